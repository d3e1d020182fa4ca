//! What every balancer promises, checked over generated groups. Seeds are fixed, so a run is the same each
//! time.

use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use sluice_traffic::Rng;
use sluice_traffic::balance::{Balancer, Config, Kind, Member, NAMES, View, bounded_hash, hash, maglev};

/// A group in a given situation.
#[derive(Clone, Debug)]
struct Group {
    available: Vec<bool>,
    weight: Vec<f64>,
    in_flight: Vec<u32>,
    latency: Vec<f64>,
}

impl Group {
    fn idle(weights: &[u32]) -> Group {
        Group {
            available: vec![true; weights.len()],
            weight: weights.iter().map(|weight| f64::from(*weight)).collect(),
            in_flight: vec![0; weights.len()],
            latency: vec![1e6; weights.len()],
        }
    }

    fn takes(&self, at: usize) -> bool {
        self.available[at] && self.weight[at] > 0.0
    }
}

impl View for Group {
    fn len(&self) -> usize {
        self.available.len()
    }
    fn available(&self, index: usize) -> bool {
        self.available[index]
    }
    fn weight(&self, index: usize) -> f64 {
        self.weight[index]
    }
    fn in_flight(&self, index: usize) -> u32 {
        self.in_flight[index]
    }
    fn latency(&self, index: usize) -> f64 {
        self.latency[index]
    }
}

fn config(name: &str) -> Config {
    serde_json::from_value(name.into()).expect("a name from the table")
}

/// A small table, so that a debug build is quick.
fn small_maglev() -> Config {
    Config::Maglev(maglev::Config { table: 5003 })
}

fn all() -> impl Iterator<Item = Config> {
    NAMES.iter().map(|name| config(name)).map(|config| match config.kind() {
        Kind::Maglev => small_maglev(),
        _ => config,
    })
}

fn keys(count: usize) -> Vec<String> {
    (0..count).map(|at| format!("192.0.2.{}:80{at:02}", at * 7 % 256)).collect()
}

fn build(config: &Config, keys: &[String], weights: &[u32]) -> Balancer {
    let members: Vec<_> = keys.iter().zip(weights).map(|(key, &weight)| Member { key, weight }).collect();
    Balancer::new(config, &members)
}

/// The picks of 4,000 keys in an idle group.
fn homes(balancer: &mut Balancer, group: &Group) -> Vec<usize> {
    let mut rng = Rng::new(1);
    let home = |key: u32| balancer.pick(group, hash(&key.to_le_bytes()), &mut rng).expect("somebody");
    (0..4000).map(home).collect()
}

/// The share of picks of each member while a steady number of requests is in flight, first in, first out.
fn shares_under_load(balancer: &mut Balancer, weights: &[u32], picks: usize) -> Vec<f64> {
    let mut group = Group::idle(weights);
    let mut rng = Rng::new(42);
    let mut under_way = std::collections::VecDeque::new();
    let mut counts = vec![0_u32; weights.len()];
    let concurrency = 30 * weights.iter().sum::<u32>() as usize;
    for number in 0..picks + concurrency {
        let picked = balancer.pick(&group, hash(&number.to_le_bytes()), &mut rng).expect("somebody");
        group.in_flight[picked] += 1;
        under_way.push_back(picked);
        if number >= concurrency {
            counts[picked] += 1;
            let done = under_way.pop_front().expect("one under way");
            group.in_flight[done] -= 1;
        }
    }
    counts.iter().map(|count| f64::from(*count) / picks as f64).collect()
}

/// How far a kind's shares may be from the weights, relative to them.
fn tolerance(kind: Kind) -> f64 {
    match kind {
        Kind::RoundRobin => 0.01,
        // With 20,000 picks a share of 1/60 has a standard deviation of 5.4 %.
        Kind::Random | Kind::SourceHash | Kind::Maglev => 0.25,
        // Few requests in flight for a unit of weight: a step is 3 %.
        Kind::LeastRequests | Kind::TwoChoices | Kind::PeakEwma => 0.15,
        // Arcs of 160 points have a standard deviation of 8 %.
        Kind::RingHash => 0.40,
        Kind::BoundedHash => 0.40,
    }
}

fn cases(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(20_260_101),
        ..Default::default()
    }
}

fn situation() -> impl Strategy<Value = (Vec<u32>, Group)> {
    let member = (0_u32..6, any::<bool>(), 0.0..=1.0_f64, 0_u32..50, prop_oneof![Just(0.0), 1e3..1e9_f64]);
    prop::collection::vec(member, 0..90).prop_map(|members| {
        let weights: Vec<u32> = members.iter().map(|member| member.0).collect();
        let mut group = Group::idle(&weights);
        for (at, (weight, available, share, in_flight, latency)) in members.into_iter().enumerate() {
            group.available[at] = available;
            group.weight[at] = f64::from(weight) * share;
            group.in_flight[at] = in_flight;
            group.latency[at] = latency;
        }
        (weights, group)
    })
}

proptest! {
    #![proptest_config(cases(60))]

    #[test]
    fn a_pick_is_available_and_there_is_one_whenever_somebody_is((weights, group) in situation(), seed: u64) {
        let keys = keys(weights.len());
        let somebody = (0..weights.len()).any(|at| group.takes(at));
        let mut rng = Rng::new(seed);
        for config in all() {
            let mut balancer = build(&config, &keys, &weights);
            for _ in 0..20 {
                let picked = balancer.pick(&group, rng.next(), &mut rng);
                prop_assert_eq!(picked.is_some(), somebody, "{}", config.kind());
                let right = picked.is_none_or(|at| group.takes(at));
                prop_assert!(right, "{} picked {picked:?}", config.kind());
            }
        }
    }

    #[test]
    fn a_pick_finds_the_only_one_of_many(
        (members, only) in (2_usize..90).prop_flat_map(|n| (Just(n), 0..n)),
        seed: u64,
    ) {
        let weights = vec![1; members];
        let mut group = Group::idle(&weights);
        group.available = (0..members).map(|at| at == only).collect();
        let mut rng = Rng::new(seed);
        for config in all() {
            let mut balancer = build(&config, &keys(members), &weights);
            prop_assert_eq!(balancer.pick(&group, rng.next(), &mut rng), Some(only), "{}", config.kind());
        }
    }
}

proptest! {
    #![proptest_config(cases(12))]

    #[test]
    fn traffic_follows_the_weights_for_each_kind(weights in prop::collection::vec(1_u32..=10, 2..6)) {
        let total = f64::from(weights.iter().sum::<u32>());
        for config in all() {
            let kind = config.kind();
            let mut balancer = build(&config, &keys(weights.len()), &weights);
            let shares = shares_under_load(&mut balancer, &weights, 20_000);
            for (share, weight) in shares.iter().zip(&weights) {
                let fair = f64::from(*weight) / total;
                let off = (share - fair).abs() / fair;
                prop_assert!(off <= tolerance(kind), "{kind}: {shares:?} for {weights:?}");
            }
        }
    }

    #[test]
    fn round_robin_is_exact_over_a_cycle_and_even_within_it(
        weights in prop::collection::vec(1_u32..=9, 1..7),
    ) {
        let mut balancer = build(&config("round_robin"), &keys(weights.len()), &weights);
        let (group, mut rng) = (Group::idle(&weights), Rng::new(0));
        let total: u32 = weights.iter().sum();
        let mut counts = vec![0_u32; weights.len()];
        for picks in 1..=3 * total {
            counts[balancer.pick(&group, 0, &mut rng).expect("somebody")] += 1;
            for (count, weight) in counts.iter().zip(&weights) {
                let fair = f64::from(picks * weight) / f64::from(total);
                let off = (f64::from(*count) - fair).abs();
                prop_assert!(off < 2.0, "{counts:?} after {picks} for {weights:?}");
            }
            if picks % total == 0 {
                let exact: Vec<u32> = weights.iter().map(|weight| weight * (picks / total)).collect();
                prop_assert_eq!(&counts, &exact);
            }
        }
    }

    #[test]
    fn a_change_of_membership_moves_few_keys(
        weights in prop::collection::vec(1_u32..=3, 3..12),
        gone in any::<prop::sample::Index>(),
    ) {
        // The lightest stays: see the ring's promise.
        let weights: Vec<u32> = std::iter::once(1).chain(weights).collect();
        let gone = 1 + gone.index(weights.len() - 1);
        let keys = keys(weights.len());
        let stay = |at: usize| if at < gone { at } else { at + 1 };
        let few_keys: Vec<String> = (0..keys.len() - 1).map(|at| keys[stay(at)].clone()).collect();
        let few_weights: Vec<u32> = (0..keys.len() - 1).map(|at| weights[stay(at)]).collect();
        // Maglev moves some keys that need not move (section 5.3 of the paper), the others none.
        let big = Config::Maglev(maglev::Config { table: 65_537 });
        for (config, extra) in [(config("source_hash"), 0), (config("ring_hash"), 0), (big, 240)] {
            let many = homes(&mut build(&config, &keys, &weights), &Group::idle(&weights));
            let few = homes(&mut build(&config, &few_keys, &few_weights), &Group::idle(&few_weights));
            // Read forwards a member goes, read backwards one comes.
            let pairs = many.iter().zip(&few);
            let moved = pairs.filter(|(many, few)| **many != stay(**few) && **many != gone).count();
            prop_assert!(moved <= extra, "{}: {moved} of 4000 moved for {weights:?}", config.kind());
        }
    }

    #[test]
    fn an_unavailable_member_moves_its_own_keys_only_and_to_everybody(
        weights in prop::collection::vec(1_u32..=3, 3..8),
        gone in any::<prop::sample::Index>(),
    ) {
        let gone = gone.index(weights.len());
        let (all_in, mut one_out) = (Group::idle(&weights), Group::idle(&weights));
        one_out.available[gone] = false;
        for config in [config("source_hash"), config("ring_hash"), small_maglev()] {
            let mut balancer = build(&config, &keys(weights.len()), &weights);
            let before = homes(&mut balancer, &all_in);
            let during = homes(&mut balancer, &one_out);
            let mut heirs = vec![0; weights.len()];
            for (before, during) in before.iter().zip(&during) {
                prop_assert!(before == during || *before == gone, "{}", config.kind());
                heirs[*during] += usize::from(*before == gone);
            }
            let most = heirs.iter().max().copied().unwrap_or(0);
            let all: usize = heirs.iter().sum();
            prop_assert!(most < all * 9 / 10, "{}: {heirs:?} inherit", config.kind());
            prop_assert_eq!(homes(&mut balancer, &all_in), before, "its keys come back");
        }
    }

    #[test]
    fn the_order_of_members_moves_no_key(weights in prop::collection::vec(1_u32..=3, 2..9)) {
        let last = weights.len() - 1;
        let keys = keys(weights.len());
        let turned_keys: Vec<String> = keys.iter().rev().cloned().collect();
        let turned: Vec<u32> = weights.iter().rev().copied().collect();
        for config in [config("source_hash"), config("ring_hash"), config("bounded_hash"), small_maglev()] {
            let forwards = homes(&mut build(&config, &keys, &weights), &Group::idle(&weights));
            let backwards = homes(&mut build(&config, &turned_keys, &turned), &Group::idle(&turned));
            prop_assert!(forwards.iter().zip(&backwards).all(|(a, b)| *a == last - b), "{}", config.kind());
        }
    }

    #[test]
    fn slow_start_takes_a_share_of_its_keys_and_always_the_same(share in 0.1..0.9_f64) {
        let weights = [2; 5];
        let mut group = Group::idle(&weights);
        for config in [config("ring_hash"), small_maglev()] {
            let mut balancer = build(&config, &keys(5), &weights);
            group.weight[2] = 2.0;
            let full = homes(&mut balancer, &group);
            group.weight[2] = 2.0 * share;
            let started = homes(&mut balancer, &group);
            let count = |homes: &[usize]| homes.iter().filter(|at| **at == 2).count() as f64;
            prop_assert!((count(&started) / count(&full) - share).abs() < 0.1, "{}", config.kind());
            prop_assert!(full.iter().zip(&started).all(|(full, started)| full == started || *full == 2));
            group.weight[2] = 2.0 * share * 0.5;
            let earlier = homes(&mut balancer, &group);
            let mut pairs = earlier.iter().zip(&started);
            prop_assert!(pairs.all(|(earlier, started)| *earlier != 2 || *started == 2));
        }
    }

    #[test]
    fn bounded_hash_never_exceeds_its_bound(
        weights in prop::collection::vec(1_u32..=4, 2..9),
        epsilon in prop_oneof![Just(0.25), 0.05..2.0_f64],
        seed: u64,
    ) {
        let config = Config::BoundedHash(bounded_hash::Config { epsilon, points: 160 });
        let mut balancer = build(&config, &keys(weights.len()), &weights);
        let (mut group, mut rng) = (Group::idle(&weights), Rng::new(seed));
        let total_weight: f64 = group.weight.iter().sum();
        let mut under_way: Vec<usize> = Vec::new();
        for step in 0..2000 {
            // It fills up, then comes and goes; half of the requests have one hot key.
            if step > 300 && !under_way.is_empty() && rng.below(2) == 0 {
                let done = under_way.swap_remove(rng.below(under_way.len() as u32) as usize);
                group.in_flight[done] -= 1;
                continue;
            }
            let key = if rng.below(2) == 0 { 7 } else { rng.next() };
            let picked = balancer.pick(&group, key, &mut rng).expect("somebody");
            group.in_flight[picked] += 1;
            under_way.push(picked);
            let fair = under_way.len() as f64 * group.weight[picked] / total_weight;
            let bound = ((1.0 + epsilon) * fair).ceil();
            let load = f64::from(group.in_flight[picked]);
            prop_assert!(load <= bound, "{:?} exceeds {bound}", group.in_flight);
        }
    }
}

#[test]
fn two_choices_and_least_requests_avoid_the_busy_and_peak_ewma_the_slow() {
    let weights = [1; 4];
    let mut rng = Rng::new(5);
    let mut picks_of_first = |name: &str, group: &Group| {
        let mut balancer = build(&config(name), &keys(4), &weights);
        (0..1000).filter(|_| balancer.pick(group, 0, &mut rng) == Some(0)).count()
    };
    let mut group = Group::idle(&weights);
    group.in_flight = vec![9, 1, 1, 1];
    assert_eq!(picks_of_first("least_requests", &group), 0);
    assert_eq!(picks_of_first("two_choices", &group), 0);
    assert_eq!(picks_of_first("peak_ewma", &group), 0);
    group.in_flight = vec![0; 4];
    group.latency[0] = 50e6;
    assert_eq!(picks_of_first("peak_ewma", &group), 0);
    // Never answered: tried when idle, left alone while it has something.
    group.latency[0] = 0.0;
    assert!(picks_of_first("peak_ewma", &group) > 300);
    group.in_flight[0] = 1;
    assert_eq!(picks_of_first("peak_ewma", &group), 0);
}

#[test]
fn bounded_hash_keeps_a_key_at_home_until_home_is_full_and_then_spills_in_order() {
    let weights = [1; 4];
    let mut balancer = build(&config("bounded_hash"), &keys(4), &weights);
    let (mut group, mut rng) = (Group::idle(&weights), Rng::new(3));
    let home = balancer.pick(&group, 7, &mut rng).expect("somebody");
    group.in_flight = vec![4; 4];
    group.in_flight[home] = 5;
    // 17 in flight and this one: ceil(1.25 * 18 / 4) = 6.
    assert_eq!(balancer.pick(&group, 7, &mut rng), Some(home));
    group.in_flight[home] = 6;
    let second = balancer.pick(&group, 7, &mut rng).expect("somebody");
    assert_ne!(second, home);
    assert_eq!(balancer.pick(&group, 7, &mut rng), Some(second), "always the same next one");
}

#[test]
fn an_idle_group_is_used_evenly_by_the_kinds_that_look_at_load() {
    for name in ["least_requests", "two_choices"] {
        let weights = [3, 1];
        let mut balancer = build(&config(name), &keys(2), &weights);
        let (group, mut rng) = (Group::idle(&weights), Rng::new(9));
        let first = (0..4000).filter(|_| balancer.pick(&group, 0, &mut rng) == Some(0)).count();
        assert!((2850..3150).contains(&first), "{name}: {first} of 4000");
    }
}

#[test]
fn only_hash_balancers_need_a_hash() {
    for config in all() {
        let hashes =
            matches!(config.kind(), Kind::SourceHash | Kind::RingHash | Kind::BoundedHash | Kind::Maglev);
        assert_eq!(build(&config, &keys(2), &[1, 1]).needs_hash(), hashes, "{}", config.kind());
    }
}

#[test]
fn a_member_in_slow_start_takes_its_weight_of_now() {
    let weights = [2, 2, 4];
    for name in ["round_robin", "random", "least_requests", "two_choices", "source_hash"] {
        let mut balancer = build(&config(name), &keys(3), &weights);
        let (mut group, mut rng) = (Group::idle(&weights), Rng::new(17));
        // Of 2 + 0.5 + 4; and with one more out, of 0.5 + 4, where a draw must often be repeated.
        group.weight[1] = 0.5;
        for (out, fair) in [(None, 0.5 / 6.5), (Some(0), 0.5 / 4.5)] {
            group.available = (0..3).map(|at| Some(at) != out).collect();
            let mut pick = || balancer.pick(&group, hash(&rng.next().to_le_bytes()), &mut rng);
            let share = (0..20_000).filter(|_| pick() == Some(1)).count() as f64 / 20_000.0;
            assert!((share / fair - 1.0).abs() < 0.1, "{name}: {share} instead of {fair}");
        }
    }
}
