//! Counting in Redis, where several gateways count together.
//!
//! Promise: each decision is one atomic script, by the clock of Redis. Of a rate limit a gateway takes a few
//! permits in advance, a hundredth of a second's worth, and uses them within [`HOLD`]: what is not used by then
//! is lost, never given twice. So gateways together let pass at most what one would, within any time that is
//! `HOLD` longer. A quota takes none in advance. Who was refused is refused without asking again until Redis
//! could say otherwise.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use sluice_traffic::Moment;
use sluice_traffic::limit::bucket::Bucket;
use sluice_traffic::limit::sliding::Sliding;
use sluice_traffic::limit::{Decision, Entry, Permit};

use super::key::Key;
use super::{Limits, OnRedisFailure};
use crate::redis::{Redis, Script, Unavailable};

/// How long permits that were taken in advance are kept.
const HOLD: Duration = Duration::from_millis(100);

/// Into how many steps a sliding window is cut in Redis, and how many of them are counted: the one that runs too.
/// As many as a hash has room for in its small form, so that the window is hardly longer than its period.
const STEPS: (u64, u64) = (126, 127);

/// A limiter's part that is in Redis.
#[derive(Debug)]
pub struct Remote {
    redis: Arc<Redis>,
    /// Knows what defines the limiter; a key is added.
    digest: Sha256,
    /// What happens without an answer.
    pub on_failure: OnRedisFailure,
}

/// Stands for a key of a limiter in Redis, the same for all gateways.
pub type Mark = [u8; 16];

/// What a script gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Grant {
    /// Permits.
    count: u64,
    /// When the granted one may go on, or when another may be asked for.
    wait: Duration,
    /// When the key is as new.
    reset: Duration,
    /// What is left.
    remaining: u64,
}

impl Grant {
    fn decision(self) -> Decision {
        let permit = match (self.count, self.wait) {
            (0, after) => Permit::Refused(after),
            (_, Duration::ZERO) => Permit::Now,
            (_, wait) => Permit::After(wait),
        };
        Decision { permit, remaining: self.remaining, reset: self.reset }
    }
}

impl Remote {
    /// The part of a limiter that `identity` defines.
    pub fn new(redis: Arc<Redis>, identity: &str, on_failure: OnRedisFailure) -> Remote {
        let length = (identity.len() as u64).to_le_bytes();
        Remote { redis, digest: Sha256::new().chain_update(length).chain_update(identity), on_failure }
    }

    /// Stands for a key.
    pub fn mark(&self, key: Key<'_>) -> Mark {
        let kind = [key.kind as u8];
        let digest = self.digest.clone().chain_update(kind).chain_update(key.bytes).finalize();
        let mut mark = Mark::default();
        mark.iter_mut().zip(digest).for_each(|(byte, from)| *byte = from);
        mark
    }

    /// Asks for one permit; `now` gives the present.
    ///
    /// # Errors
    /// Redis has no answer.
    pub async fn take(
        &self,
        count: Count<'_>,
        (mark, local): (&Mark, u64),
        limits: &Limits,
        now: impl Fn() -> Moment,
    ) -> Result<Decision, Unavailable> {
        // Apart from what is counted here while Redis does not answer.
        let local = local.rotate_left(32) ^ 0x9e37_79b9_7f4a_7c15;
        let at = now();
        let wanted = match limits.small.with(local, at, |entry| take(entry, at, count.batch())) {
            Ok(decision) => return Ok(decision),
            Err(wanted) => wanted,
        };
        let asked = self.ask(count, mark, wanted).await;
        let at = now();
        limits.small.with(local, at, |entry| {
            let mut stock = Stock::of(entry, at);
            stock.asking &= wanted <= 1;
            match &asked {
                Ok(grant) if grant.count == 0 => stock.refuse(at.after(grant.wait), entry),
                Ok(grant) => stock.put(grant.count - 1, at.after(HOLD.min(grant.reset)), entry),
                Err(_) => stock.put(0, at, entry),
            }
        });
        asked.map(Grant::decision)
    }

    /// Takes one of a quota whose period has so much left.
    ///
    /// # Errors
    /// Redis has no answer.
    pub async fn take_of_quota(
        &self,
        limit: u64,
        left: Duration,
        mark: &Mark,
    ) -> Result<Decision, Unavailable> {
        self.ask(Count::Quota { limit, left }, mark, 1).await.map(Grant::decision)
    }

    async fn ask(&self, count: Count<'_>, mark: &Mark, wanted: u64) -> Result<Grant, Unavailable> {
        let micros = |nanos: u64| nanos as f64 / 1e3;
        let (script, arguments) = match count {
            Count::Bucket(bucket) => {
                let [interval, tolerance, wait] = bucket.nanos().map(micros);
                (&SCRIPTS.bucket, [interval, tolerance, wait])
            }
            Count::Fixed { limit, period } => {
                (&SCRIPTS.fixed, [limit as f64, period.as_micros() as f64, 0.0])
            }
            Count::Quota { limit, left } => (&SCRIPTS.fixed, [limit as f64, 0.0, left.as_micros() as f64]),
            Count::Sliding(sliding) => {
                let step = sliding.period().as_micros().div_ceil(u128::from(STEPS.0)).max(1);
                (&SCRIPTS.sliding, [f64::from(sliding.limit()), step as f64, STEPS.1 as f64])
            }
        };
        let mut call = script.key(format!("sluice:limit:{:032x}", u128::from_be_bytes(*mark)));
        arguments.iter().for_each(|argument| _ = call.arg(argument));
        let [count, wait, reset, remaining]: [i64; 4] = self.redis.run(call.arg(wanted)).await?;
        let number = |number: i64| u64::try_from(number).unwrap_or(0);
        Ok(Grant {
            count: number(count),
            wait: Duration::from_micros(number(wait)),
            reset: Duration::from_micros(number(reset)),
            remaining: number(remaining),
        })
    }
}

/// What is counted.
#[derive(Clone, Copy, Debug)]
pub enum Count<'a> {
    /// A bucket.
    Bucket(&'a Bucket),
    /// So many in each period of Redis's clock.
    Fixed {
        /// How many.
        limit: u64,
        /// The period.
        period: Duration,
    },
    /// A window that moves.
    Sliding(&'a Sliding),
    /// So many in a period that the gateways know.
    Quota {
        /// How many.
        limit: u64,
        /// What is left of the period.
        left: Duration,
    },
}

impl Count<'_> {
    /// How many permits are taken at once: those of a hundredth of a second, and no more than a twentieth of
    /// what there can be.
    fn batch(self) -> u64 {
        let (most, hundredth) = match self {
            Count::Bucket(bucket) => {
                let [interval, _, wait] = bucket.nanos();
                // Those that wait are told one by one how long.
                if wait > 0 {
                    return 1;
                }
                (bucket.burst(), 10_000_000 / interval)
            }
            Count::Fixed { limit, period } => (limit, per_hundredth(limit, period)),
            Count::Sliding(sliding) => {
                let limit = u64::from(sliding.limit());
                (limit, per_hundredth(limit, sliding.period()))
            }
            Count::Quota { .. } => return 1,
        };
        hundredth.min(most / 20).max(1)
    }
}

/// How many of `limit` in `period` are those of a hundredth of a second.
fn per_hundredth(limit: u64, period: Duration) -> u64 {
    (limit as f64 / period.as_secs_f64() / 100.0) as u64
}

/// What a gateway knows of a key in Redis: permits in advance, or that there are none. In a table's entry: it may
/// be forgotten at any time, at the price of one more question.
struct Stock {
    permits: u64,
    /// One of ours is asking for more than it needs.
    asking: bool,
    /// There are none until this is forgotten.
    refused: bool,
}

const ASKING: u64 = 1 << 63;
const REFUSED: u64 = 1 << 62;

impl Stock {
    fn of(entry: &Entry<1>, now: Moment) -> Stock {
        let word = if entry.fresh_at > now { entry.state[0] } else { 0 };
        Stock {
            permits: word & !(ASKING | REFUSED),
            asking: word & ASKING != 0,
            refused: word & REFUSED != 0,
        }
    }

    fn write(&self) -> [u64; 1] {
        let flag = |is_set: bool, flag| if is_set { flag } else { 0 };
        [self.permits | flag(self.asking, ASKING) | flag(self.refused, REFUSED)]
    }

    /// Notes permits that were granted beside the one that was needed.
    fn put(mut self, permits: u64, keep: Moment, entry: &mut Entry<1>) {
        if permits > 0 {
            // What was left is lost: it may be older than these.
            (self.permits, self.refused) = (permits, false);
            entry.fresh_at = keep;
        }
        entry.state = self.write();
    }

    fn refuse(mut self, until: Moment, entry: &mut Entry<1>) {
        if self.permits == 0 {
            self.refused = true;
            entry.fresh_at = until;
        }
        entry.state = self.write();
    }
}

/// Decides without Redis, or says how many permits to ask for: who asks while somebody else asks for many asks
/// for its own.
fn take(entry: &mut Entry<1>, now: Moment, batch: u64) -> Result<Decision, u64> {
    let mut stock = Stock::of(entry, now);
    let kept = Duration::from_nanos(entry.fresh_at.since(now));
    if stock.refused {
        return Ok(Decision { permit: Permit::Refused(kept), remaining: 0, reset: kept });
    }
    if stock.permits > 0 {
        stock.permits -= 1;
        entry.state = stock.write();
        return Ok(Decision { permit: Permit::Now, remaining: stock.permits, reset: kept });
    }
    if stock.asking || batch <= 1 {
        return Err(1);
    }
    stock.asking = true;
    *entry = Entry { fresh_at: now.after(HOLD), state: stock.write() };
    Err(batch)
}

struct Scripts {
    bucket: Script,
    fixed: Script,
    sliding: Script,
}

/// Each takes three numbers that define it and the permits wanted, and gives what [`Grant`] says, times in
/// microseconds. Numbers in Lua are f64: the clock counts from 2023, which leaves room for fractions.
static SCRIPTS: LazyLock<Scripts> = LazyLock::new(|| {
    const CLOCK: &str = "local time = redis.call('TIME')
        local now = (tonumber(time[1]) - 1700000000) * 1000000 + tonumber(time[2])
        local a, b, c, wanted = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
        local key = KEYS[1]\n";
    // a: interval, b: tolerance, c: the longest wait. The value is the theoretical arrival time.
    const BUCKET: &str = "local arrival = math.max(tonumber(redis.call('GET', key) or now), now)
        local early = arrival - b - now
        if early > c then
            return {0, math.ceil(early - c), math.ceil(arrival - now), 0}
        end
        local granted = 1
        if early <= 0 then
            granted = math.min(wanted, math.floor(-early / a + 0.000001) + 1)
        end
        arrival = arrival + granted * a
        redis.call('SET', key, string.format('%.3f', arrival), 'PX', math.ceil((arrival - now) / 1000))
        local left = math.max(0, math.floor((b + a - (arrival - now)) / a + 0.000001))
        return {granted, math.max(0, math.ceil(early)), math.ceil(arrival - now), left}";
    // a: limit, b: the period, whose key goes with it; or 0 when c is what is left of a period by the gateway's
    // clock: its key is that of this period alone, and is kept for an hour longer, or a gateway whose clock is
    // behind the others' would begin the period's last seconds anew.
    const FIXED: &str = "local count = tonumber(redis.call('GET', key) or 0)
        local left, keep = c, c + 3600000000
        if b > 0 then
            left, keep = redis.call('PTTL', key) * 1000, nil
            if left < 0 then
                left = b - (now + 1700000000000000) % b
                keep = left
            end
        end
        if count >= a then return {0, left, left, 0} end
        local granted = math.min(wanted, a - count)
        redis.call('INCRBY', key, granted)
        if keep then redis.call('PEXPIRE', key, math.ceil(keep / 1000)) end
        return {granted, 0, left, a - count - granted}";
    // a: limit, b: step, c: steps that are counted. A hash of step to count.
    const SLIDING: &str = "local step = math.floor(now / b)
        local sum, oldest = 0, step
        local all = redis.call('HGETALL', key)
        for i = 1, #all, 2 do
            local of = tonumber(all[i])
            if of <= step - c then
                redis.call('HDEL', key, all[i])
            else
                sum = sum + tonumber(all[i + 1])
                oldest = math.min(oldest, of)
            end
        end
        if sum >= a then
            local free = math.ceil((oldest + c) * b - now)
            return {0, free, math.ceil((step + c) * b - now), 0}
        end
        local granted = math.min(wanted, a - sum)
        redis.call('HINCRBY', key, string.format('%d', step), granted)
        redis.call('PEXPIRE', key, math.ceil((c + 1) * b / 1000))
        return {granted, 0, math.ceil((step + c) * b - now), a - sum - granted}";
    let script = |text: &str| Script::new(&format!("{CLOCK}{text}"));
    Scripts { bucket: script(BUCKET), fixed: script(FIXED), sliding: script(SLIDING) }
});

#[cfg(test)]
mod tests {
    use super::*;

    const MILLISECOND: u64 = 1_000_000;

    fn at(millis: u64) -> Moment {
        Moment(1_000 * MILLISECOND + millis * MILLISECOND)
    }

    /// What a decision from memory says: how many are left, or how long there is none.
    fn known(entry: &mut Entry<1>, now: Moment) -> Result<Result<u64, u128>, u64> {
        take(entry, now, 10).map(|decision| match decision.permit {
            Permit::Refused(after) => Err(after.as_millis()),
            Permit::Now | Permit::After(_) => Ok(decision.remaining),
        })
    }

    #[test]
    fn permits_in_advance_are_used_once_and_not_for_long() {
        let mut entry = Entry::NEW;
        assert_eq!(known(&mut entry, at(0)), Err(10));
        assert_eq!(known(&mut entry, at(0)), Err(1), "somebody asks for ten");
        let mut stock = Stock::of(&entry, at(1));
        stock.asking = false;
        stock.put(2, at(101), &mut entry);
        assert_eq!([known(&mut entry, at(2)), known(&mut entry, at(3))], [Ok(Ok(1)), Ok(Ok(0))]);
        assert_eq!(known(&mut entry, at(4)), Err(10));
        Stock::of(&entry, at(5)).put(9, at(105), &mut entry);
        assert_eq!(known(&mut entry, at(105)), Err(10), "what is left is lost");
    }

    #[test]
    fn who_was_refused_is_refused_until_there_can_be_a_permit() {
        let mut entry = Entry::NEW;
        Stock::of(&entry, at(0)).refuse(at(50), &mut entry);
        assert_eq!(known(&mut entry, at(20)), Ok(Err(30)));
        assert_eq!(known(&mut entry, at(50)), Err(10));
    }

    #[test]
    fn little_is_taken_in_advance_of_a_slow_or_small_limit() {
        let bucket = |count, burst| Bucket::new(count, Duration::from_secs(1), burst);
        let batch = |bucket: &Bucket| Count::Bucket(bucket).batch();
        assert_eq!(batch(&bucket(10, 1000)), 1);
        assert_eq!(batch(&bucket(5_000, 10)), 1);
        assert_eq!(batch(&bucket(5_000, 5_000)), 50);
        let queue = sluice_traffic::limit::bucket::Queue { places: 100, wait: Duration::from_secs(1) };
        assert_eq!(batch(&bucket(5_000, 5_000).with_queue(queue)), 1);
        let second = Duration::from_secs(1);
        assert_eq!(Count::Fixed { limit: 5_000, period: second }.batch(), 50);
        assert_eq!(Count::Sliding(&Sliding::new(5_000, second)).batch(), 50);
        assert_eq!(Count::Quota { limit: 5_000, left: second }.batch(), 1);
    }
}
