//! One run of h2load and what it says.

use std::process::Command;

use super::compare::{Answered, Unit};
use crate::Failed;
use crate::step::output;

/// How h2load drives.
#[derive(Clone, Copy, Debug)]
pub(super) struct Drive<'a> {
    pub(super) url: &'a str,
    pub(super) connections: usize,
    /// Requests in flight on each connection.
    pub(super) streams: usize,
    pub(super) seconds: usize,
    /// Requests, or MiB of bodies: those of answers that the end cut off count, too.
    pub(super) unit: Unit,
}

/// Runs h2load on core 1.
pub(super) fn drive(how: Drive<'_>) -> Result<Answered, Failed> {
    let mut command = Command::new("taskset");
    command.args(["-c", "1", "h2load", "--threads", "1"]);
    command.args(["--clients", &how.connections.to_string()]);
    command.args(["--max-concurrent-streams", &how.streams.to_string()]);
    command.args(["--duration", &how.seconds.to_string()]);
    let text = output(command.arg(how.url))?;
    parse(&text, how.unit).ok_or_else(|| format!("h2load got no answers, or said something else:\n{text}"))
}

/// It tells no percentiles without writing a line for every request.
fn parse(text: &str, unit: Unit) -> Option<Answered> {
    let told = |what: &str| text.lines().find_map(|line| line.strip_prefix(what));
    let (finished, requests, codes) = (told("finished in ")?, told("requests: ")?, told("status codes: ")?);
    let seconds: f64 = finished.split_once("s, ")?.0.parse().ok()?;
    let count = match unit {
        Unit::Mebibyte => bytes(told("traffic: ")?)? / f64::from(1 << 20),
        _ => counted(requests, "done")?,
    };
    let mut errors = 0.0;
    for failure in ["failed", "errored", "timeout"] {
        errors += counted(requests, failure)?;
    }
    for refusal in ["4xx", "5xx"] {
        errors += counted(codes, refusal)?;
    }
    (count > 0.0).then_some(Answered { count, per_second: count / seconds, latency: None, errors })
}

/// The bytes of bodies: `..., 105.21MB (110315712) data`.
fn bytes(traffic: &str) -> Option<f64> {
    let (before, _) = traffic.split_once(") data")?;
    before.rsplit_once('(')?.1.parse().ok()
}

/// The number before `word`: `9 total, 8 done`.
fn counted(text: &str, word: &str) -> Option<f64> {
    let part = text.split(',').map(str::trim).find(|part| part.split(' ').nth(1) == Some(word))?;
    part.split(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_read() {
        let text = "starting benchmark...\nApplication protocol: h2c\n\nfinished in 2.00s, 26071.50 req/s, 9.66MB/s\n\
            requests: 52143 total, 52399 started, 52143 done, 52141 succeeded, 2 failed, 1 errored, 0 timeout\n\
            status codes: 52140 2xx, 0 3xx, 2 4xx, 1 5xx\n\
            traffic: 9.66MB (10124592) total, 37.39KB (38290) headers (space savings 29.07%), 8.00MB (8388608) data\n";
        let requests = Answered { count: 52143.0, per_second: 26071.5, latency: None, errors: 6.0 };
        assert_eq!(parse(text, Unit::Request), Some(requests));
        assert_eq!(parse(text, Unit::Mebibyte).map(|answered| answered.count), Some(8.0));
        assert_eq!(parse("unable to connect", Unit::Request), None);
    }
}
