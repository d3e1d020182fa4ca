//! What every limiter promises, over generated traffic, and with clocks that disagree. Seeds are fixed, so a run
//! is the same each time.

use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use sluice_traffic::Moment;
use sluice_traffic::limit::bucket::{Bucket, Queue};
use sluice_traffic::limit::fixed::Fixed;
use sluice_traffic::limit::sliding::Sliding;
use sluice_traffic::limit::table::Table;
use sluice_traffic::limit::{Decision, Entry, Permit};

fn fixed_seed() -> ProptestConfig {
    ProptestConfig { cases: 400, rng_seed: RngSeed::Fixed(4), ..ProptestConfig::default() }
}

/// When requests come: some at once, some apart, in nanoseconds.
fn arrivals() -> impl Strategy<Value = Vec<u64>> {
    let gap = prop_oneof![3 => Just(0_u64), 3 => 0..30_u64, 1 => 0..3_000_u64];
    proptest::collection::vec(gap, 1..200).prop_map(|gaps| {
        let mut now = 1_000_000;
        gaps.into_iter()
            .map(|gap| {
                now += gap;
                now
            })
            .collect()
    })
}

/// The same, decided in an order in which neighbours have changed places.
fn disordered() -> impl Strategy<Value = Vec<u64>> {
    (arrivals(), any::<u64>()).prop_map(|(mut arrivals, mix)| {
        for place in 1..arrivals.len() {
            if mix.rotate_left(place as u32) & 1 == 1 {
                arrivals.swap(place - 1, place);
            }
        }
        arrivals
    })
}

/// The most moments that fall into any closed window of this length.
fn densest(moments: &[u64], length: u64) -> usize {
    let mut sorted = moments.to_vec();
    sorted.sort_unstable();
    let within = |from: &u64| sorted.iter().filter(|at| **at >= *from && **at - from <= length).count();
    sorted.iter().map(within).max().unwrap_or(0)
}

/// When those that pass go on.
fn passed(arrivals: &[u64], mut decide: impl FnMut(Moment) -> Decision) -> Vec<u64> {
    let go_on = |at: &u64| match decide(Moment(*at)).permit {
        Permit::Now => Some(*at),
        Permit::After(wait) => Some(at + wait.as_nanos() as u64),
        Permit::Refused(_) => None,
    };
    arrivals.iter().filter_map(go_on).collect()
}

proptest! {
    #![proptest_config(fixed_seed())]

    #[test]
    fn a_bucket_never_gives_more_than_its_burst_and_its_rate(
        arrivals in disordered(), count in 1..20_u64, period in 20..2_000_u64, burst in 1..30_u64,
        places in 0..20_u64, wait in 0..2_000_u64, length in 0..5_000_u64,
    ) {
        let queue = Queue { places, wait: Duration::from_nanos(wait) };
        let bucket = Bucket::new(count, Duration::from_nanos(period), burst).with_queue(queue);
        let mut entry = Entry::<1>::NEW;
        let passed = passed(&arrivals, |now| bucket.decide(&mut entry, now));
        let bound = burst as f64 + length as f64 * count as f64 / period as f64;
        prop_assert!(densest(&passed, length) as f64 <= bound + 1e-9, "{passed:?}");
    }

    #[test]
    fn a_bucket_gives_all_that_it_has(arrivals in arrivals(), count in 1..20_u64, period in 20..2_000_u64, burst in 1..30_u64) {
        // Counted in fractions of a permit, as the picture of a bucket has it.
        let bucket = Bucket::new(count, Duration::from_nanos(period), burst);
        let interval = period.div_ceil(count);
        let (mut entry, mut level, mut last) = (Entry::<1>::NEW, burst * interval, 0);
        for at in arrivals {
            level = (level + (at - last)).min(burst * interval);
            last = at;
            let has_one = level >= interval;
            if has_one {
                level -= interval;
            }
            let decision = bucket.decide(&mut entry, Moment(at));
            prop_assert_eq!(decision.permit == Permit::Now, has_one);
            prop_assert_eq!(decision.remaining, if has_one { level / interval } else { 0 });
            if let Permit::Refused(after) = decision.permit {
                prop_assert_eq!(after.as_nanos() as u64, interval - level);
            }
        }
    }

    #[test]
    fn those_that_wait_are_few_and_go_on_in_order(
        arrivals in arrivals(), period in 20..2_000_u64, burst in 1..5_u64, places in 0..20_u64,
    ) {
        let queue = Queue { places, wait: Duration::from_secs(1) };
        let bucket = Bucket::new(1, Duration::from_nanos(period), burst).with_queue(queue);
        let mut entry = Entry::<1>::NEW;
        let mut waiting: Vec<u64> = Vec::new();
        for at in arrivals {
            waiting.retain(|go_on| *go_on > at);
            if let Permit::After(wait) = bucket.decide(&mut entry, Moment(at)).permit {
                let go_on = at + wait.as_nanos() as u64;
                prop_assert!(waiting.last().is_none_or(|last| go_on - last >= period));
                waiting.push(go_on);
            }
            prop_assert!(waiting.len() as u64 <= places, "{waiting:?}");
        }
    }

    #[test]
    fn a_sliding_window_holds_wherever_it_begins(
        arrivals in arrivals(), limit in 1..20_u32, period in 10..2_000_u64,
    ) {
        let sliding = Sliding::new(limit, Duration::from_nanos(period));
        let mut entry = Entry::NEW;
        let passed = passed(&arrivals, |now| sliding.decide(&mut entry, now));
        prop_assert!(densest(&passed, period) <= limit as usize, "{passed:?}");
        // What it refuses would have been too much for a window that is a tenth longer, rounded to steps.
        let step = period.div_ceil(10);
        for at in arrivals.iter().filter(|at| !passed.contains(at)) {
            let within = passed.iter().filter(|other| **other <= *at && at / step - *other / step <= 10).count();
            prop_assert!(within >= limit as usize);
        }
    }

    #[test]
    fn a_sliding_window_holds_over_long_and_changing_traffic(
        parts in proptest::collection::vec((1..400_u64, 1..60_usize, 0..40_u64), 1..40),
        limit in 1..2_000_u32, period in 100..20_000_u64, slow in 1..40_u64,
    ) {
        let sliding = Sliding::new(limit, Duration::from_nanos(period));
        let (mut entry, mut now, mut passed) = (Entry::NEW, 1_000_000_u64, Vec::new());
        for (gap, times, many) in parts {
            for number in 0..times as u64 {
                // Even, uneven, and many at once.
                now += gap / slow + number % 3 * (gap % 2);
                for _ in 0..=many {
                    let decision = sliding.decide(&mut entry, Moment(now));
                    match decision.permit {
                        Permit::Now => passed.push(now),
                        Permit::Refused(after) => prop_assert!(!after.is_zero()),
                        Permit::After(_) => unreachable!("nobody waits"),
                    }
                }
            }
        }
        for (first, last) in passed.iter().zip(passed.iter().skip(limit as usize)) {
            prop_assert!(last - first > period, "{limit} in {period}: {first} {last}");
        }
    }

    #[test]
    fn when_a_sliding_window_says_that_one_may_come_one_may(
        arrivals in arrivals(), limit in 1..20_u32, period in 10..2_000_u64,
    ) {
        let sliding = Sliding::new(limit, Duration::from_nanos(period));
        let mut entry = Entry::NEW;
        for at in arrivals {
            if let Permit::Refused(after) = sliding.decide(&mut entry, Moment(at)).permit {
                let (mut early, mut then) = (entry, entry);
                let again = Moment(at).after(after);
                prop_assert_eq!(sliding.decide(&mut then, again).permit, Permit::Now);
                let before = sliding.decide(&mut early, Moment(again.0 - 1)).permit;
                prop_assert!(matches!(before, Permit::Refused(_)), "{:?}", before);
            }
        }
    }

    #[test]
    fn who_steadily_asks_a_sliding_window_for_more_gets_all_of_it(
        limit in 20..1_200_u32, demand in 1.0..2.5_f64, jitter in 0.0..1.0_f64, start in 0..1_000_000_000_u64, seed in any::<u64>(),
    ) {
        const PERIODS: u64 = 12;
        let period = 1_000_000_000_u64;
        let sliding = Sliding::new(limit, Duration::from_nanos(period));
        let gap = period as f64 / f64::from(limit) / demand;
        let (mut entry, mut rng, mut passed) = (Entry::NEW, sluice_traffic::Rng::new(seed), 0_u64);
        // What a log of all that passed gives.
        let (mut log, mut all) = (std::collections::VecDeque::new(), 0_u64);
        for number in 0..(f64::from(limit) * demand) as u64 * PERIODS {
            let shaken = (rng.next() as f64 / u64::MAX as f64 - 0.5) * jitter;
            let now = start + 10 * period + ((number as f64 + shaken) * gap) as u64;
            passed += u64::from(sliding.decide(&mut entry, Moment(now)).permit == Permit::Now);
            if log.len() < limit as usize || log.front().is_some_and(|first| now - first > period) {
                log.push_back(now);
                all += 1;
                if log.len() > limit as usize {
                    log.pop_front();
                }
            }
        }
        // Where a step has a handful only, uneven traffic is no line.
        let hundredths = if limit < 500 { 97 } else { 99 };
        prop_assert!(passed * 100 >= all * hundredths, "{passed} of {all}");
    }

    #[test]
    fn a_fixed_window_gives_exactly_its_limit(arrivals in arrivals(), limit in 1..20_u64, period in 10..2_000_u64) {
        let fixed = Fixed { limit };
        let mut entry = Entry::NEW;
        let end = |now: Moment| Moment((now.0 / period + 1) * period);
        let passed = passed(&arrivals, |now| fixed.decide(&mut entry, now, end(now)));
        let in_period = |moments: &[u64], of: &u64| moments.iter().filter(|at| *at / period == of / period).count();
        for at in &arrivals {
            prop_assert_eq!(in_period(&passed, at), in_period(&arrivals, at).min(limit as usize));
        }
    }

    #[test]
    fn keys_do_not_touch_each_other(
        traffic in proptest::collection::vec((0..40_u64, 0..60_u64), 1..400), burst in 1..5_u64,
    ) {
        let (table, bucket) = (Table::<1>::new(1 << 20), Bucket::new(1, Duration::from_nanos(100), burst));
        let mut alone = vec![Entry::<1>::NEW; 40];
        let mut now = Moment(1_000);
        for (key, gap) in traffic {
            now = Moment(now.0 + gap);
            let expected = bucket.decide(&mut alone[key as usize], now);
            // One of the keys' shards holds many of them.
            let hash = (key + 1) << 58 | (key % 3);
            prop_assert_eq!(table.with(hash, now, |entry| bucket.decide(entry, now)), expected);
        }
    }
}
