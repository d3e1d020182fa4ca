//! Rate limits: how fast requests may come.

use std::sync::Arc;
use std::time::Duration;

use sluice_http::RequestHead;
use sluice_traffic::Moment;
use sluice_traffic::limit::Decision;
use sluice_traffic::limit::bucket::Bucket;
use sluice_traffic::limit::fixed::Fixed;
use sluice_traffic::limit::sliding::Sliding;

use super::key::{Key, Per};
use super::record::Manner;
use super::remote::{Count, Mark, Remote};
use super::{Limits, OnRedisFailure, Uncounted};
use crate::exchange::Exchange;
use crate::failure::Failure;
use crate::value::Rate;
use crate::world::World;

/// How requests are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// Permits come back one by one.
    Bucket(Bucket),
    /// So many in each period of the clock.
    Fixed(Fixed, Duration),
    /// So many within any period.
    Sliding(Sliding),
}

/// The burst of a rate that names none: the requests of one second, at least one.
pub fn burst(rate: Rate) -> u64 {
    let of_second = f64::from(rate.count) / rate.period.0.as_secs_f64();
    (of_second as u64).clamp(1, u64::from(rate.count))
}

impl Algorithm {
    /// What answers say: how many in which time.
    pub fn policy(&self) -> (u64, Duration) {
        match self {
            Algorithm::Bucket(bucket) => {
                let [interval, ..] = bucket.nanos();
                (bucket.burst(), Duration::from_nanos(interval.saturating_mul(bucket.burst())))
            }
            Algorithm::Fixed(fixed, period) => (fixed.limit, *period),
            Algorithm::Sliding(sliding) => (u64::from(sliding.limit()), sliding.period()),
        }
    }
}

/// A rate limit that runs.
#[derive(Debug)]
pub struct RateLimit {
    algorithm: Algorithm,
    /// How it is applied.
    pub manner: Manner,
    /// What defines it, in this process.
    id: u64,
    limits: Arc<Limits>,
    /// In a box: it is large, and all filters are as large as the largest.
    remote: Option<Box<Remote>>,
}

/// A key, as both places of counting know it.
#[derive(Clone, Copy, Debug)]
pub struct Subject {
    local: u64,
    mark: Option<Mark>,
}

impl RateLimit {
    /// The limiter that `identity` defines: with the same one it goes on where it was.
    pub fn new(
        (algorithm, manner): (Algorithm, Manner),
        identity: &str,
        limits: &Arc<Limits>,
        remote: Option<Box<Remote>>,
    ) -> RateLimit {
        let id = limits.hash(0, Key::value(identity.as_bytes()));
        RateLimit { algorithm, manner, id, limits: Arc::clone(limits), remote }
    }

    /// Lets a request pass, maybe after a wait. Dropping it while it waits gives up its turn, not its permit.
    ///
    /// # Errors
    /// It is refused.
    pub async fn enforce(
        &self,
        per: &Per,
        world: &World,
        (exchange, head): (&mut Exchange, &RequestHead),
    ) -> Result<(), Failure> {
        let subject = per.read(exchange, head, |key| self.subject(key));
        let decided = match &self.remote {
            None => Ok(Some(self.count_here(&subject, world))),
            // In a box, since it is large: every exchange would carry its size.
            Some(remote) => Box::pin(self.count_there(remote, &subject, world)).await,
        };
        let wait = exchange.limits.note(&self.manner, decided)?;
        if !wait.is_zero() {
            Box::pin(tokio::time::sleep(wait)).await;
        }
        Ok(())
    }

    /// Stands for a key.
    fn subject(&self, key: Key<'_>) -> Subject {
        let mark = self.remote.as_ref().map(|remote| remote.mark(key));
        Subject { local: self.limits.hash(self.id, key), mark }
    }

    /// Counts in this process.
    fn count_here(&self, subject: &Subject, world: &World) -> Decision {
        let at = world.clock.now();
        self.decide(subject, world.clock.moment(at), world.unix(at))
    }

    /// Decides at a moment, which is so long after 1970.
    fn decide(&self, subject: &Subject, now: Moment, unix: Duration) -> Decision {
        let limits = &self.limits;
        match &self.algorithm {
            Algorithm::Bucket(bucket) => {
                limits.small.with(subject.local, now, |entry| bucket.decide(entry, now))
            }
            Algorithm::Fixed(fixed, period) => {
                let end = now.after(left(*period, unix));
                limits.small.with(subject.local, now, |entry| fixed.decide(entry, now, end))
            }
            Algorithm::Sliding(sliding) => {
                limits.sliding.with(subject.local, now, |entry| sliding.decide(entry, now))
            }
        }
    }

    /// Counts in Redis; `None` when it passes uncounted.
    async fn count_there(
        &self,
        remote: &Remote,
        subject: &Subject,
        world: &World,
    ) -> Result<Option<Decision>, Uncounted> {
        let count = match &self.algorithm {
            Algorithm::Bucket(bucket) => Count::Bucket(bucket),
            Algorithm::Fixed(fixed, period) => Count::Fixed { limit: fixed.limit, period: *period },
            Algorithm::Sliding(sliding) => Count::Sliding(sliding),
        };
        let now = || world.clock.moment(world.clock.now());
        let mark = subject.mark.unwrap_or_default();
        match (remote.take(count, (&mark, subject.local), &self.limits, now).await, remote.on_failure) {
            (Ok(decision), _) => Ok(Some(decision)),
            (Err(_), OnRedisFailure::Local) => Ok(Some(self.count_here(subject, world))),
            (Err(_), OnRedisFailure::Allow) => Ok(None),
            (Err(_), OnRedisFailure::Deny) => Err(Uncounted),
        }
    }
}

/// What is left of the wall clock's present period.
fn left(period: Duration, unix: Duration) -> Duration {
    let period = period.as_nanos().max(1);
    let left = period - unix.as_nanos() % period;
    Duration::from_nanos(u64::try_from(left).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use sluice_traffic::limit::Permit;
    use sluice_traffic::limit::bucket::Queue;

    use super::super::record::{Force, Kind, Show};
    use super::*;

    const RATE: u64 = 50_000;
    const SECOND: Duration = Duration::from_secs(1);
    /// How long the limiter is asked, in nanoseconds of its clock.
    const LENGTH: u64 = 2_000_000_000;

    /// How many of the requests that some threads send, one each `gap` nanoseconds together, go on within
    /// [`LENGTH`]. The clock is that of their number: a thread that is held up comes late with its time.
    fn passed(algorithm: Algorithm, gap: u64, threads: usize) -> u64 {
        let limits = Arc::<Limits>::default();
        let manner = Manner::new(Kind::RateLimit, "x", (Force::Enforced, Show::Never), (RATE, SECOND));
        let limiter = RateLimit::new((algorithm, manner), "x", &limits, None);
        let (subject, clock) = (limiter.subject(Key::value(b"a")), AtomicU64::new(0));
        let ask = || {
            let mut passed = 0;
            loop {
                let now = clock.fetch_add(gap, Ordering::Relaxed);
                if now >= LENGTH {
                    return passed;
                }
                let wait = match limiter.decide(&subject, Moment(now), Duration::from_nanos(now)).permit {
                    Permit::Now => 0,
                    Permit::After(wait) => wait.as_nanos() as u64,
                    Permit::Refused(_) => continue,
                };
                passed += u64::from(now + wait < LENGTH);
            }
        };
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..threads).map(|_| scope.spawn(ask)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        })
    }

    #[test]
    fn a_limit_of_50_000_a_second_holds_within_a_hundredth() {
        let seconds = LENGTH / 1_000_000_000;
        let (all, hundredth) = (RATE * seconds, RATE * seconds / 100);
        let bucket = |burst| Bucket::new(RATE, SECOND, burst);
        let queue = Queue { places: 100, wait: SECOND };
        for (name, algorithm) in [
            ("token bucket", Algorithm::Bucket(bucket(500))),
            ("leaky bucket", Algorithm::Bucket(bucket(1).with_queue(queue))),
            ("fixed window", Algorithm::Fixed(Fixed { limit: RATE }, SECOND)),
            ("sliding window", Algorithm::Sliding(Sliding::new(RATE as u32, SECOND))),
        ] {
            // Twice as many as may, and a few more than may.
            for gap in [1_000_000_000 / RATE / 2, 1_000_000_000 / RATE * 98 / 100] {
                let passed = passed(algorithm, gap, 2);
                let bounds = all - hundredth..=all + hundredth;
                assert!(bounds.contains(&passed), "{name}: {passed} not in {bounds:?}");
            }
        }
        // Who stays a hundredth below it, without a burst, is never refused.
        let (gap, burst) = (1_000_000_000 / RATE * 101 / 100, 500);
        for algorithm in [Algorithm::Bucket(bucket(burst)), Algorithm::Fixed(Fixed { limit: RATE }, SECOND)] {
            assert_eq!(passed(algorithm, gap, 1), LENGTH.div_ceil(gap), "{algorithm:?}");
        }
    }
}
