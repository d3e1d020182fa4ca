//! `bench h1`: requests per second, processor time per request and latency of three proxies.

use super::processor::{Used, used};
use super::servers::{Server, Servers};
use super::wrk::{Answered, Drive, drive};
use crate::Failed;

/// What a person asked for.
pub(super) struct Options {
    pub(super) seconds: usize,
    pub(super) rounds: usize,
    pub(super) connections: usize,
    pub(super) only: Option<String>,
}

/// One kind of load.
struct Scenario {
    name: &'static str,
    about: &'static str,
    path: &'static str,
    close: bool,
    /// MiB of one body, when throughput is what counts.
    mebibytes: f64,
}

const SCENARIOS: &[Scenario] = &[
    Scenario { name: "h1", about: "keep-alive GET, 100 B answers", path: "/", close: false, mebibytes: 0.0 },
    Scenario {
        name: "large",
        about: "keep-alive GET, 1 MiB answers",
        path: "/large",
        close: false,
        mebibytes: 1.0,
    },
    Scenario {
        name: "connection",
        about: "one connection per request",
        path: "/",
        close: true,
        mebibytes: 0.0,
    },
];

/// The rounds of one proxy.
#[derive(Default)]
struct Rounds {
    answered: Vec<Answered>,
    used: Vec<Used>,
}

pub(super) fn run(options: &Options) -> Result<(), Failed> {
    let chosen: Vec<_> = SCENARIOS
        .iter()
        .filter(|scenario| options.only.as_deref().is_none_or(|name| name == scenario.name))
        .collect();
    if chosen.is_empty() {
        return Err("--only takes h1, large or connection".into());
    }
    let servers = Servers::start()?;
    for scenario in chosen {
        let rounds = measure(scenario, options, &servers.proxies)?;
        print(scenario, options, &servers.proxies, &rounds);
    }
    Ok(())
}

fn measure(scenario: &Scenario, options: &Options, proxies: &[Server]) -> Result<Vec<Rounds>, Failed> {
    let mut rounds: Vec<Rounds> = proxies.iter().map(|_| Rounds::default()).collect();
    for round in 0..=options.rounds {
        for (proxy, kept) in proxies.iter().zip(&mut rounds) {
            let url = proxy.url(scenario.path);
            // Round 0 warms up: pools fill, code and page cache get hot; it is not counted.
            let seconds = if round == 0 { 1 } else { options.seconds };
            let before = used(proxy.id());
            let how = Drive { url: &url, connections: options.connections, seconds, close: scenario.close };
            let answered = drive(how).map_err(|failed| format!("{}: {failed}", proxy.name))?;
            let spent = used(proxy.id()) - before;
            if round > 0 {
                kept.answered.push(answered);
                kept.used.push(spent.per(answered.requests));
            }
        }
    }
    Ok(rounds)
}

fn print(scenario: &Scenario, options: &Options, proxies: &[Server], rounds: &[Rounds]) {
    let Options { seconds, rounds: turns, connections, .. } = options;
    println!("\n{}: {}", scenario.name, scenario.about);
    println!(
        "{connections} connections, medians of {turns} rounds of {seconds} s, one worker each on core 0"
    );
    let large = scenario.mebibytes > 0.0;
    let (rate, unit) = if large { ("MB/s", "MiB") } else { ("requests/s", "request") };
    println!(
        "  proxy    {rate:>11} {:>16} {:>7} {:>7} {:>9} {:>9} {:>7}",
        format!("CPU us/{unit}"),
        "user",
        "sys",
        "p50 ms",
        "p99 ms",
        "errors"
    );
    for (proxy, kept) in proxies.iter().zip(rounds) {
        let per_second = match large {
            true => kept.rate() * scenario.mebibytes * (1 << 20) as f64 / 1e6,
            false => kept.rate(),
        };
        println!(
            "  {:<8} {per_second:>11.0} {:>16.2} {:>7.2} {:>7.2} {:>9.3} {:>9.3} {:>7}",
            proxy.name,
            kept.cost(),
            median(kept.used.iter().map(|used| used.user)),
            median(kept.used.iter().map(|used| used.system)),
            median(kept.answered.iter().map(|answered| answered.p50)),
            median(kept.answered.iter().map(|answered| answered.p99)),
            kept.answered.iter().map(|answered| answered.errors).sum::<f64>(),
        );
    }
    print_ratios(proxies, rounds);
}

fn print_ratios(proxies: &[Server], rounds: &[Rounds]) {
    let Some(ours) = proxies.iter().position(|proxy| proxy.name == "sluice") else { return };
    for (proxy, kept) in proxies.iter().zip(rounds).filter(|(proxy, _)| proxy.name != "sluice") {
        println!(
            "  sluice / {:<8} CPU {:.3}   throughput {:.3}",
            proxy.name,
            rounds[ours].cost() / kept.cost(),
            rounds[ours].rate() / kept.rate()
        );
    }
}

impl Rounds {
    /// Median requests per second.
    fn rate(&self) -> f64 {
        median(self.answered.iter().map(|answered| answered.per_second))
    }

    /// Median processor time of a request in microseconds.
    fn cost(&self) -> f64 {
        median(self.used.iter().map(|used| used.total()))
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => 0.0,
        count if count % 2 == 1 => values[count / 2],
        count => f64::midpoint(values[count / 2 - 1], values[count / 2]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_ignores_one_bad_round() {
        assert_eq!(median([3.0, 100.0, 1.0].into_iter()), 3.0);
        assert_eq!(median([4.0, 2.0].into_iter()), 3.0);
        assert_eq!(median(std::iter::empty()), 0.0);
    }
}
