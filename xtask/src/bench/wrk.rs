//! One run of wrk and what it says.

use std::process::Command;

use super::compare::{Answered, Latency};
use crate::Failed;
use crate::step::output;

/// How wrk drives.
#[derive(Clone, Copy, Debug)]
pub(super) struct Drive<'a> {
    pub(super) url: &'a str,
    pub(super) connections: usize,
    pub(super) seconds: usize,
    /// Ask for the connection to be closed after each answer.
    pub(super) close: bool,
    /// A field of each request: `Name: value`.
    pub(super) field: Option<&'a str>,
}

/// Runs wrk on core 1.
pub(super) fn drive(how: Drive<'_>) -> Result<Answered, Failed> {
    let mut command = Command::new("taskset");
    command.args(["-c", "1", "wrk", "--threads", "1", "--latency", "--timeout", "10s"]);
    command.args(["--connections", &how.connections.to_string()]);
    command.args(["--duration", &format!("{}s", how.seconds)]);
    if how.close {
        command.args(["--header", "Connection: close"]);
    }
    if let Some(field) = how.field {
        command.args(["--header", field]);
    }
    let text = output(command.arg(how.url))?;
    parse(&text).ok_or_else(|| format!("wrk said something else:\n{text}"))
}

fn parse(text: &str) -> Option<Answered> {
    let mut answered = Answered::default();
    let mut latency = Latency::default();
    for line in text.lines().map(str::trim) {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["50%", time] => latency.p50 = milliseconds(time)?,
            ["99%", time] => latency.p99 = milliseconds(time)?,
            [count, "requests", "in", ..] => answered.count = count.parse().ok()?,
            ["Requests/sec:", rate] => answered.per_second = rate.parse().ok()?,
            ["Non-2xx", "or", "3xx", "responses:", count] => answered.errors += count.parse::<f64>().ok()?,
            ["Socket", "errors:", ..] => {
                let counts = words.iter().filter_map(|word| word.trim_end_matches(',').parse::<f64>().ok());
                answered.errors += counts.sum::<f64>();
            }
            _ => {}
        }
    }
    answered.latency = Some(latency);
    (answered.count > 0.0).then_some(answered)
}

fn milliseconds(text: &str) -> Option<f64> {
    let split = text.find(|c: char| c.is_ascii_alphabetic())?;
    let number: f64 = text[..split].parse().ok()?;
    match &text[split..] {
        "us" => Some(number / 1e3),
        "ms" => Some(number),
        "s" => Some(number * 1e3),
        "m" => Some(number * 60e3),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_read() {
        let text = "Running 1s test @ http://127.0.0.1:1/\n  1 threads and 8 connections\n  Thread Stats   Avg      Stdev\n    \
            Latency   1.04ms  100.00us   3.25ms   88.10%\n  Latency Distribution\n     50%    0.98ms\n     75%    1.10ms\n     \
            90%    1.26ms\n     99%   12.00us\n  12345 requests in 1.10s, 2.00MB read\n  Socket errors: connect 0, read 2, write 0, timeout 1\n  \
            Non-2xx or 3xx responses: 4\nRequests/sec:  11222.73\nTransfer/sec:      1.82MB\n";
        let latency = Some(Latency { p50: 0.98, p99: 0.012 });
        let expected = Answered { count: 12345.0, per_second: 11222.73, latency, errors: 7.0 };
        assert_eq!(parse(text), Some(expected));
        assert_eq!(parse("unable to connect"), None);
    }
}
