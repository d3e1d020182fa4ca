//! `cargo xtask bench balance`: what a pick costs, for every balancer with 3, 100 and 1,000 endpoints.
//!
//! Promise: all endpoints are available, with weights of 1 to 3 and some requests in flight; every pick has
//! another key. The same seed in every run.
#![allow(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a benchmark speaks to its terminal and measures real time"
)]

use std::hint::black_box;
use std::time::{Duration, Instant};

use sluice_traffic::Rng;
use sluice_traffic::balance::{Balancer, Config, Kind, Member, NAMES, View, hash};

const COUNTS: [usize; 3] = [3, 100, 1_000];
/// The median of this many measurements counts.
const ROUNDS: usize = 7;
/// How long one measurement takes, about.
const ROUND: Duration = Duration::from_millis(40);

struct Group {
    weights: Vec<u32>,
    in_flight: Vec<u32>,
}

impl View for Group {
    fn len(&self) -> usize {
        self.weights.len()
    }
    fn available(&self, index: usize) -> bool {
        black_box(index) < self.weights.len()
    }
    fn weight(&self, index: usize) -> f64 {
        f64::from(self.weights[index])
    }
    fn in_flight(&self, index: usize) -> u32 {
        self.in_flight[index]
    }
    fn latency(&self, index: usize) -> f64 {
        1e6 + index as f64
    }
}

fn main() {
    print!("{:<20}", "ns per pick");
    for count in COUNTS {
        print!("{:>18}", format!("{count} endpoints"));
    }
    println!();
    for name in NAMES {
        let config: Config = serde_json::from_value((*name).into()).unwrap_or_default();
        assert_eq!(config.kind().name(), *name);
        for &(label, weights) in labels(config.kind()) {
            print!("{:<20}", format!("{name}{label}"));
            for count in COUNTS {
                print!("{:>18.1}", nanos(&config, count, weights));
            }
            println!();
        }
    }
}

/// The spread of weights to measure with, and what the row is called.
fn labels(kind: Kind) -> &'static [(&'static str, u32)] {
    // Only this one has a shorter way when all weights are equal.
    match kind {
        Kind::RoundRobin => &[("", 3), (", equal", 1)],
        _ => &[("", 3)],
    }
}

fn nanos(config: &Config, count: usize, weights: u32) -> f64 {
    let group = Group {
        weights: (0..count as u32).map(|index| 1 + index % weights).collect(),
        in_flight: (0..count as u32).map(|index| index * 7 % 5).collect(),
    };
    let keys: Vec<String> =
        (0..count).map(|index| format!("10.0.{}.{}:80", index / 250, index % 250)).collect();
    let members: Vec<Member<'_>> =
        keys.iter().zip(&group.weights).map(|(key, &weight)| Member { key, weight }).collect();
    let mut balancer = Balancer::new(config, &members);
    let mut rng = Rng::new(1);
    let mut round = |picks: u32| {
        let start = Instant::now();
        for key in 0..picks {
            let hashed = if balancer.needs_hash() { hash(&key.to_le_bytes()) } else { 0 };
            black_box(balancer.pick(black_box(&group), hashed, &mut rng));
        }
        start.elapsed()
    };
    // How many picks fill a round, from a small one.
    const TRIAL: u32 = 1_000;
    round(TRIAL);
    let one = round(TRIAL).as_nanos() as f64 / f64::from(TRIAL);
    let picks = (ROUND.as_nanos() as f64 / one.max(0.1)) as u32;
    let mut all: Vec<f64> = (0..ROUNDS).map(|_| round(picks).as_nanos() as f64 / f64::from(picks)).collect();
    all.sort_by(f64::total_cmp);
    all[ROUNDS / 2]
}
