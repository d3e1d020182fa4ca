//! Proxies that take turns under the same load, and the table of what each gave and used.

use super::processor::{Used, used};
use super::servers::Server;
use crate::Failed;

/// What a person asked for.
pub(super) struct Options {
    pub(super) seconds: usize,
    pub(super) rounds: usize,
    /// None: as many as the scenario says.
    pub(super) connections: Option<usize>,
    /// The one scenario to run.
    pub(super) only: Option<String>,
    /// The proxy to leave out.
    pub(super) without: Option<String>,
}

/// One kind of load; what makes it stands in `load`, whose form each benchmark chooses.
pub(super) struct Scenario<L> {
    pub(super) name: &'static str,
    pub(super) about: &'static str,
    pub(super) unit: Unit,
    pub(super) load: L,
}

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    Request,
    Handshake,
    Connection,
    /// When throughput is what counts.
    Mebibyte,
}

/// What one run of a load generator gave.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Answered {
    /// Of the scenario's unit.
    pub(super) count: f64,
    pub(super) per_second: f64,
    /// When the load generator tells it.
    pub(super) latency: Option<Latency>,
    /// Answers other than 2xx and 3xx, and connections that failed.
    pub(super) errors: f64,
}

/// In milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Latency {
    /// Half of the answers stayed within it.
    pub(super) p50: f64,
    /// 99 of 100 answers stayed within it.
    pub(super) p99: f64,
}

/// The rounds of one proxy.
#[derive(Default)]
struct Rounds {
    answered: Vec<Answered>,
    used: Vec<Used>,
}

/// Those of the scenarios that a person asked for.
pub(super) fn chosen<'a, L>(
    scenarios: &'a [Scenario<L>],
    options: &Options,
) -> Result<Vec<&'a Scenario<L>>, Failed> {
    let wanted = |name: &str| options.only.as_deref().is_none_or(|only| only == name);
    let chosen: Vec<_> = scenarios.iter().filter(|scenario| wanted(scenario.name)).collect();
    match chosen.is_empty() {
        true => {
            let names: Vec<_> = scenarios.iter().map(|scenario| scenario.name).collect();
            Err(format!("--only takes one of: {}", names.join(", ")))
        }
        false => Ok(chosen),
    }
}

/// Puts the scenarios, one after another, on the proxies in turn, and prints each one's table. `drive` loads a
/// proxy for so many seconds.
pub(super) fn compare<L>(
    scenarios: &[&Scenario<L>],
    options: &Options,
    proxies: &[Server],
    drive: impl Fn(&L, &Server, usize) -> Result<Answered, Failed>,
) -> Result<(), Failed> {
    for scenario in scenarios {
        let rounds = measure(options, proxies, |proxy, seconds| drive(&scenario.load, proxy, seconds))?;
        print(scenario, options, proxies, &rounds);
    }
    Ok(())
}

fn measure(
    options: &Options,
    proxies: &[Server],
    drive: impl Fn(&Server, usize) -> Result<Answered, Failed>,
) -> Result<Vec<Rounds>, Failed> {
    let mut rounds: Vec<Rounds> = proxies.iter().map(|_| Rounds::default()).collect();
    for round in 0..=options.rounds {
        for (proxy, kept) in proxies.iter().zip(&mut rounds) {
            // Round 0 warms up: pools fill, code and page cache get hot; it is not counted.
            let seconds = if round == 0 { 1 } else { options.seconds };
            let before = used(proxy.id());
            let answered = drive(proxy, seconds).map_err(|failed| format!("{}: {failed}", proxy.name))?;
            let spent = used(proxy.id()) - before;
            if round > 0 {
                kept.answered.push(answered);
                kept.used.push(spent.per(answered.count));
            }
        }
    }
    Ok(rounds)
}

fn print<L>(scenario: &Scenario<L>, options: &Options, proxies: &[Server], rounds: &[Rounds]) {
    let Options { seconds, rounds: turns, .. } = options;
    let unit = scenario.unit;
    println!("\n{}: {}", scenario.name, scenario.about);
    println!("medians of {turns} rounds of {seconds} s, one worker each on core 0");
    println!(
        "  {:<14} {:>13} {:>14} {:>17} {:>7} {:>7} {:>9} {:>9} {:>7}",
        "proxy",
        format!("{}/s", unit.many()),
        "per CPU second",
        format!("CPU us/{}", unit.one()),
        "user",
        "sys",
        "p50 ms",
        "p99 ms",
        "errors"
    );
    for (proxy, kept) in proxies.iter().zip(rounds) {
        println!(
            "  {:<14} {:>13.0} {:>14.0} {:>17.2} {:>7.2} {:>7.2} {:>9} {:>9} {:>7}",
            proxy.name,
            kept.rate() * unit.size(),
            1e6 / kept.cost() * unit.size(),
            kept.cost(),
            median(kept.used.iter().map(|used| used.user)),
            median(kept.used.iter().map(|used| used.system)),
            kept.latency(|latency| latency.p50),
            kept.latency(|latency| latency.p99),
            kept.answered.iter().map(|answered| answered.errors).sum::<f64>(),
        );
    }
    print_ratios(proxies, rounds);
}

fn print_ratios(proxies: &[Server], rounds: &[Rounds]) {
    let Some(ours) = proxies.iter().position(|proxy| proxy.name == "sluice") else { return };
    for (proxy, kept) in proxies.iter().zip(rounds).filter(|(proxy, _)| proxy.name != "sluice") {
        println!(
            "  sluice / {:<14} CPU {:.3}   per CPU second {:.3}   throughput {:.3}",
            proxy.name,
            rounds[ours].cost() / kept.cost(),
            kept.cost() / rounds[ours].cost(),
            rounds[ours].rate() / kept.rate()
        );
    }
}

impl Unit {
    fn one(self) -> &'static str {
        match self {
            Unit::Request => "request",
            Unit::Handshake => "handshake",
            Unit::Connection => "connection",
            Unit::Mebibyte => "MiB",
        }
    }

    fn many(self) -> &'static str {
        match self {
            Unit::Request => "requests",
            Unit::Handshake => "handshakes",
            Unit::Connection => "connections",
            Unit::Mebibyte => "MB",
        }
    }

    /// How many of [`Unit::many`] one is: rates of bytes are in millions, costs in binary ones.
    fn size(self) -> f64 {
        match self {
            Unit::Request | Unit::Handshake | Unit::Connection => 1.0,
            Unit::Mebibyte => f64::from(1 << 20) / 1e6,
        }
    }
}

impl Rounds {
    /// Median units per second.
    fn rate(&self) -> f64 {
        median(self.answered.iter().map(|answered| answered.per_second))
    }

    /// Median processor time of a unit in microseconds.
    fn cost(&self) -> f64 {
        median(self.used.iter().map(|used| used.total()))
    }

    /// The median of a part of the latencies, for the table.
    fn latency(&self, part: impl Fn(Latency) -> f64) -> String {
        let told: Vec<f64> = self.answered.iter().filter_map(|answered| answered.latency).map(part).collect();
        match told.is_empty() {
            true => "-".into(),
            false => format!("{:.3}", median(told.into_iter())),
        }
    }
}

pub(super) fn median(values: impl Iterator<Item = f64>) -> f64 {
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

    #[test]
    fn an_unknown_scenario_is_refused_with_the_known_ones() {
        let scenario = |name| Scenario { name, about: "", unit: Unit::Request, load: () };
        let scenarios = [scenario("small"), scenario("large")];
        let mut options = Options {
            seconds: 1,
            rounds: 1,
            connections: Some(1),
            only: Some("large".into()),
            without: None,
        };
        assert_eq!(chosen(&scenarios, &options).map(|chosen| chosen.len()), Ok(1));
        options.only = Some("tiny".into());
        let refused = chosen(&scenarios, &options).map(|chosen| chosen.len());
        assert_eq!(refused, Err("--only takes one of: small, large".into()));
    }

    #[test]
    fn a_latency_that_no_one_told_is_a_dash() {
        let mut rounds = Rounds::default();
        rounds.answered.push(Answered::default());
        assert_eq!(rounds.latency(|latency| latency.p50), "-");
        rounds
            .answered
            .push(Answered { latency: Some(Latency { p50: 1.5, p99: 2.0 }), ..Answered::default() });
        assert_eq!(rounds.latency(|latency| latency.p50), "1.500");
    }
}
