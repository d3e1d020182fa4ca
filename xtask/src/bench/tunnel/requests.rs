//! The gateway's CPU for a request through a tunnel, as a ratio to a plain one, and the time a tunnel adds.
//!
//! The ways take turns in one run of one gateway, and each round has a ratio of its own: a slow minute of the machine
//! slows both sides of it.

use super::super::compare::{Answered, Options, median};
use super::super::http::{http_block, origin_server};
use super::super::processor::{Used, used};
use super::super::servers::{Folder, Plan};
use super::super::wrk::{Drive, drive};
use super::{Bar, Tunnelled, Version};
use crate::Failed;

/// Connections of the load, when nobody says how many.
const CONNECTIONS: usize = 64;
/// Tunnels of 3.0: the default of `sluice connect`.
const TUNNELS: usize = 2;
/// Idle tunnels of 1.0 for each connection of the load: a request finds one, and the next is opened meanwhile.
const SPARE: usize = 2;
/// How much longer half of the requests may take at most, in milliseconds.
const ADDED: f64 = 1.0;

/// Where a request goes.
struct Way {
    name: &'static str,
    path: &'static str,
    /// CPU of the gateway against the plain way, at most.
    most: f64,
}

const WAYS: [Way; 3] = [
    Way { name: "plain", path: "plain", most: 1.0 },
    Way { name: "tunnel 3.0", path: "v3", most: 1.6 },
    Way { name: "tunnel 1.0", path: "v1", most: 4.0 },
];

/// What the rounds of a way gave.
#[derive(Default)]
struct Rounds {
    used: Vec<Used>,
    /// Processor time against the plain way's in the same round.
    ratios: Vec<f64>,
    per_second: Vec<f64>,
    /// One request at a time: half of them took no longer, in milliseconds.
    p50: Vec<f64>,
    /// Beyond the plain way in the same round.
    added: Vec<f64>,
}

pub(super) fn run(options: &Options) -> Result<Vec<Bar>, Failed> {
    let connections = options.connections.unwrap_or(CONNECTIONS);
    let windows = [(Version::V3, TUNNELS), (Version::V1, SPARE * connections)];
    let tunnelled = Tunnelled::start(nginx, &windows)?;
    let mut rounds: [Rounds; 3] = Default::default();
    for round in 0..=options.rounds {
        // Round 0 warms up.
        let seconds = if round == 0 { 1 } else { options.seconds };
        let (mut plain, mut plain_p50) = (0.0, 0.0);
        for (index, (way, kept)) in WAYS.iter().zip(&mut rounds).enumerate() {
            let before = used(tunnelled.gateway().id());
            let answered = load(&tunnelled, way, (connections, seconds))?;
            let spent = (used(tunnelled.gateway().id()) - before).per(answered.count);
            let alone = load(&tunnelled, way, (1, 1))?;
            let p50 = alone.latency.unwrap_or_default().p50;
            if index == 0 {
                (plain, plain_p50) = (spent.total(), p50);
            }
            if round > 0 {
                kept.used.push(spent);
                kept.ratios.push(spent.total() / plain);
                kept.per_second.push(answered.per_second);
                kept.p50.push(p50);
                kept.added.push(p50 - plain_p50);
            }
        }
    }
    print(options, connections, &rounds);
    let bars = WAYS.iter().zip(&rounds).skip(1).flat_map(|(way, kept)| {
        let cpu = Bar {
            what: format!("{}: CPU of a request, times a plain one", way.name),
            figure: median(kept.ratios.iter().copied()),
            most: way.most,
        };
        let time = Bar {
            what: format!("{}: p50 beyond a plain one, in ms", way.name),
            figure: median(kept.added.iter().copied()),
            most: ADDED,
        };
        [cpu, time]
    });
    Ok(bars.collect())
}

pub(super) fn nginx(port: u16, folder: &Folder) -> Result<Plan, Failed> {
    // It gives the same answer for every path.
    let server = origin_server(port, folder).replace("location = / {", "location / {");
    Plan::nginx("origin", (1, port), folder, &http_block("origin", folder, &server))
}

fn load(
    tunnelled: &Tunnelled,
    way: &Way,
    (connections, seconds): (usize, usize),
) -> Result<Answered, Failed> {
    let url = tunnelled.url(way.path);
    let answered = drive(Drive { url: &url, connections, seconds, close: false, field: None })?;
    match answered.errors > 0.0 {
        true => Err(format!("{}: {} of {} requests failed", way.name, answered.errors, answered.count)),
        false => Ok(answered),
    }
}

fn print(options: &Options, connections: usize, rounds: &[Rounds; 3]) {
    println!(
        "\nrequests: keep-alive GET with 100 B answers, {connections} connections; p50 with one connection"
    );
    println!(
        "medians of {} rounds of {} s, one worker on core 0; connector, origin and load on core 1",
        options.rounds, options.seconds
    );
    println!(
        "  {:<12} {:>11} {:>15} {:>7} {:>7} {:>7} {:>7} {:>7} {:>9} {:>9}",
        "way", "requests/s", "CPU us/request", "user", "sys", "ratio", "least", "most", "p50 ms", "added ms"
    );
    for (way, kept) in WAYS.iter().zip(rounds) {
        let least = kept.ratios.iter().copied().fold(f64::INFINITY, f64::min);
        let most = kept.ratios.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        println!(
            "  {:<12} {:>11.0} {:>15.2} {:>7.2} {:>7.2} {:>7.3} {least:>7.3} {most:>7.3} {:>9.3} {:>9.3}",
            way.name,
            median(kept.per_second.iter().copied()),
            median(kept.used.iter().map(|used| used.total())),
            median(kept.used.iter().map(|used| used.user)),
            median(kept.used.iter().map(|used| used.system)),
            median(kept.ratios.iter().copied()),
            median(kept.p50.iter().copied()),
            median(kept.added.iter().copied()),
        );
    }
}
