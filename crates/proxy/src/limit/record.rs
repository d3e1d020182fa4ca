//! What limiters said to an exchange: for its answer, the metrics and the access log.
//!
//! Promise: an exchange that no limiter has anything to tell the client about carries five bytes of it and a pointer.

use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sluice_http::{Fields, NameId};
use sluice_traffic::limit::{Decision, Permit};

use super::{Uncounted, seconds};
use crate::failure::Failure;

/// What limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// How fast.
    RateLimit,
    /// How much.
    Quota,
}

impl Kind {
    /// All, in their order.
    pub const ALL: [Kind; 2] = [Kind::RateLimit, Kind::Quota];

    /// The word of metrics.
    pub const fn word(self) -> &'static str {
        match self {
            Kind::RateLimit => "rate_limit",
            Kind::Quota => "quota",
        }
    }
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Ruling {
    /// It passed.
    Passed,
    /// It passed without being counted where it should have been: Redis had no answer.
    Uncounted,
    /// It passed after a wait.
    Delayed,
    /// It passed because of `dry_run` alone.
    WouldRefuse,
    /// It was refused.
    Refused,
}

impl Ruling {
    /// All, in their order: what is worth more notice comes later.
    pub const ALL: [Ruling; 5] =
        [Ruling::Passed, Ruling::Uncounted, Ruling::Delayed, Ruling::WouldRefuse, Ruling::Refused];

    /// The word of metrics and of the access log.
    pub const fn word(self) -> &'static str {
        match self {
            Ruling::Passed => "passed",
            Ruling::Uncounted => "uncounted",
            Ruling::Delayed => "delayed",
            Ruling::WouldRefuse => "would-refuse",
            Ruling::Refused => "refused",
        }
    }
}

/// How often each kind of limiter ruled what, in one exchange: fifteen times at most. Every exchange carries it, so
/// the kinds share bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally([u8; Ruling::ALL.len()]);

impl Tally {
    fn add(&mut self, kind: Kind, ruling: Ruling) {
        if self.get(kind, ruling) < 15 {
            self.0[ruling as usize] += 1 << (4 * kind as u8);
        }
    }

    /// How often.
    pub fn get(&self, kind: Kind, ruling: Ruling) -> u8 {
        self.0[ruling as usize] >> (4 * kind as u8) & 15
    }

    /// Whether no limiter has ruled anything.
    pub fn is_empty(&self) -> bool {
        *self == Tally::default()
    }
}

/// When answers say what is left.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Show {
    /// Never; a refusal still has Retry-After.
    Never,
    /// When a request is refused.
    #[default]
    Refused,
    /// In every answer.
    Always,
}

/// How a limiter is applied.
#[derive(Clone, Debug)]
pub struct Manner {
    /// What it limits.
    pub kind: Kind,
    /// Whether it refuses.
    pub force: Force,
    shown: Arc<Shown>,
}

/// What answers say of a limiter, ready but for the numbers that change.
#[derive(Debug)]
struct Shown {
    /// When they say it.
    when: Show,
    /// How many pass.
    limit: u64,
    /// RateLimit-Policy.
    policy: Box<[u8]>,
    /// RateLimit, up to what is left.
    item: Box<[u8]>,
}

impl Manner {
    /// That of a limiter which lets so many pass in so long a time.
    pub fn new(
        kind: Kind,
        name: &str,
        (force, when): (Force, Show),
        (limit, window): (u64, Duration),
    ) -> Manner {
        let (name, window) = (shown_name(name), seconds(window));
        let policy = format!("\"{name}\";q={limit};w={window}").into_bytes().into();
        let item = format!("\"{name}\";r=").into_bytes().into();
        Manner { kind, force, shown: Arc::new(Shown { when, limit, policy, item }) }
    }
}

/// Whether a limiter refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Force {
    /// It does.
    Enforced,
    /// It counts and says what it would have done.
    DryRun,
}

/// What answers say of one limiter.
#[derive(Clone, Debug)]
struct Told {
    shown: Arc<Shown>,
    remaining: u64,
    reset: u64,
    retry_after: Option<u64>,
}

/// What limiters said to an exchange.
#[derive(Clone, Debug, Default)]
pub struct Record {
    /// For the metrics.
    pub tally: Tally,
    /// In a box, which most exchanges do not have: each carries its size.
    told: Option<Box<List>>,
}

/// What answers say, of each limiter that has something to say: of most routes one.
#[derive(Clone, Debug)]
struct List {
    first: Told,
    others: Vec<Told>,
}

impl List {
    fn iter(&self) -> impl Iterator<Item = &Told> + Clone {
        std::iter::once(&self.first).chain(&self.others)
    }
}

impl Record {
    /// Notes what a limiter says; how long the request has to wait.
    ///
    /// # Errors
    /// It refuses.
    pub fn note(
        &mut self,
        manner: &Manner,
        decided: Result<Option<Decision>, Uncounted>,
    ) -> Result<Duration, Failure> {
        let Ok(decided) = decided else {
            let (ruling, ended) = match manner.force {
                Force::Enforced => (Ruling::Refused, Err(Failure::LimitUnavailable)),
                Force::DryRun => (Ruling::WouldRefuse, Ok(Duration::ZERO)),
            };
            self.count(manner.kind, ruling);
            return ended;
        };
        let Some(decision) = decided else {
            self.count(manner.kind, Ruling::Uncounted);
            return Ok(Duration::ZERO);
        };
        let (ruling, ended) = match (decision.permit, manner.force) {
            (Permit::Now, _) => (Ruling::Passed, Ok(Duration::ZERO)),
            (Permit::After(wait), Force::Enforced) => (Ruling::Delayed, Ok(wait)),
            (Permit::After(_), Force::DryRun) => (Ruling::Delayed, Ok(Duration::ZERO)),
            (Permit::Refused(_), Force::Enforced) => (Ruling::Refused, Err(Failure::RateLimited)),
            (Permit::Refused(_), Force::DryRun) => (Ruling::WouldRefuse, Ok(Duration::ZERO)),
        };
        self.count(manner.kind, ruling);
        if ruling == Ruling::Refused || manner.shown.when == Show::Always {
            let told = Told::new(manner, decision);
            match &mut self.told {
                Some(list) => list.others.push(told),
                None => self.told = Some(Box::new(List { first: told, others: Vec::new() })),
            }
        }
        ended
    }

    fn count(&mut self, kind: Kind, ruling: Ruling) {
        self.tally.add(kind, ruling);
    }

    /// What is worth most notice, in a word; none when there was no limiter.
    pub fn word(&self) -> Option<&'static str> {
        let ruled = |ruling: &Ruling| self.tally.0[*ruling as usize] > 0;
        Ruling::ALL.iter().rev().find(|ruling| ruled(ruling)).map(|ruling| ruling.word())
    }

    /// Writes what the client is told: RateLimit-Policy and RateLimit of every limiter
    /// (draft-ietf-httpapi-ratelimit-headers-10), X-RateLimit-* of the one that leaves least, and Retry-After
    /// (RFC 9110 section 10.2.3) of the one that refused.
    pub fn tell(&self, fields: &mut Fields) {
        let Some(list) = &self.told else { return };
        let shown = list.iter().filter(|told| told.shown.when != Show::Never);
        let bytes = |told: &Told| told.shown.policy.len() + told.shown.item.len();
        let (lines, bytes) = shown.clone().fold((0, 0), |(lines, all), told| (lines + 2, all + bytes(told)));
        // Once for all: a line has at most so many bytes beside what is ready.
        fields.reserve(lines + 4, bytes + (lines + 4) * LINE);
        let [mut room, mut other] = [[0; DIGITS]; 2];
        for told in shown.clone() {
            let (left, reset) = (decimal(told.remaining, &mut room), decimal(told.reset, &mut other));
            fields.append(NameId::RateLimitPolicy, &told.shown.policy);
            fields.append_parts(NameId::RateLimit, &[&told.shown.item, left, b";t=", reset]);
        }
        let mut set = |field: NameId, number: u64| fields.set(field, decimal(number, &mut room));
        if let Some(least) = shown.min_by_key(|told| (told.retry_after.is_none(), told.remaining)) {
            set(NameId::XRateLimitLimit, least.shown.limit);
            set(NameId::XRateLimitRemaining, least.remaining);
            set(NameId::XRateLimitReset, least.retry_after.unwrap_or(least.reset));
        }
        if let Some(after) = list.iter().filter_map(|told| told.retry_after).max() {
            set(NameId::RetryAfter, after);
        }
    }
}

/// The most digits of a number, and the bytes of a line with two of them and the longest name.
const DIGITS: usize = 20;
const LINE: usize = 2 * DIGITS + 24;

/// A number as it is written.
fn decimal(mut number: u64, room: &mut [u8; DIGITS]) -> &[u8] {
    let mut first = DIGITS;
    loop {
        first -= 1;
        room[first] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            return &room[first..];
        }
    }
}

impl Told {
    fn new(manner: &Manner, decision: Decision) -> Told {
        let retry_after = match decision.permit {
            // A client that comes back within the same second would come in vain.
            Permit::Refused(after) => Some(seconds(after).max(1)),
            Permit::Now | Permit::After(_) => None,
        };
        Told {
            shown: Arc::clone(&manner.shown),
            remaining: decision.remaining,
            reset: seconds(decision.reset),
            retry_after,
        }
    }
}

/// The name of a limiter as it stands in answers, in quotes (RFC 9651 section 3.3.3): what cannot stand there is
/// left out.
pub fn shown_name(name: &str) -> String {
    let fit = |c: &char| matches!(c, ' '..='~') && !matches!(c, '"' | '\\');
    name.chars().filter(fit).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manner(name: &str, force: Force, show: Show) -> Manner {
        Manner::new(Kind::RateLimit, name, (force, show), (5, Duration::from_millis(1500)))
    }

    fn decision(permit: Permit, remaining: u64) -> Option<Decision> {
        Some(Decision { permit, remaining, reset: Duration::from_millis(2100) })
    }

    fn told(record: &Record) -> Vec<String> {
        let mut fields = Fields::new();
        record.tell(&mut fields);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let line = |(_, name, value): (NameId, &[u8], &[u8])| format!("{}: {}", text(name), text(value));
        fields.iter().map(line).collect()
    }

    const REFUSED: Permit = Permit::Refused(Duration::from_millis(1));

    #[test]
    fn a_refusal_says_when_to_come_again() {
        let mut record = Record::default();
        let shop = manner("sh\"op", Force::Enforced, Show::Refused);
        assert_eq!(record.note(&shop, Ok(decision(Permit::Now, 3))), Ok(Duration::ZERO));
        assert_eq!((told(&record), record.word()), (vec![], Some("passed")));
        assert_eq!(record.note(&shop, Ok(decision(REFUSED, 0))), Err(Failure::RateLimited));
        assert_eq!(
            told(&record),
            [
                "RateLimit-Policy: \"shop\";q=5;w=2",
                "RateLimit: \"shop\";r=0;t=3",
                "X-RateLimit-Limit: 5",
                "X-RateLimit-Remaining: 0",
                "X-RateLimit-Reset: 1",
                "Retry-After: 1",
            ]
        );
        let counted = |ruling| record.tally.get(Kind::RateLimit, ruling);
        assert_eq!((counted(Ruling::Passed), counted(Ruling::Refused)), (1, 1));
        assert_eq!((record.word(), record.tally.get(Kind::Quota, Ruling::Refused)), (Some("refused"), 0));
        let mut record = Record::default();
        let quiet = manner("shop", Force::Enforced, Show::Never);
        assert!(record.note(&quiet, Ok(decision(REFUSED, 0))).is_err());
        assert_eq!(told(&record), ["Retry-After: 1"]);
    }

    #[test]
    fn of_several_the_one_that_leaves_least_is_told() {
        let mut record = Record::default();
        for (name, remaining) in [("a", 4), ("b", 2), ("c", 3)] {
            let manner = manner(name, Force::Enforced, Show::Always);
            record.note(&manner, Ok(decision(Permit::Now, remaining))).unwrap();
        }
        let told = told(&record);
        assert_eq!(told.len(), 9);
        assert!(told.contains(&"RateLimit: \"c\";r=3;t=3".to_owned()), "{told:?}");
        assert_eq!(told[6..8], ["X-RateLimit-Limit: 5", "X-RateLimit-Remaining: 2"]);
    }

    #[test]
    fn numbers_are_written_as_they_are() {
        for number in [0, 9, 10, 1_000_001, u64::MAX] {
            assert_eq!(decimal(number, &mut [0; DIGITS]), number.to_string().as_bytes());
        }
    }

    #[test]
    fn a_dry_run_lets_pass_and_counts() {
        let mut record = Record::default();
        let dry = manner("shop", Force::DryRun, Show::Refused);
        let wait = Permit::After(Duration::from_secs(1));
        for (decided, word) in [
            (Ok(decision(Permit::Now, 1)), "passed"),
            (Ok(None), "uncounted"),
            (Ok(decision(wait, 0)), "delayed"),
            (Ok(decision(REFUSED, 0)), "would-refuse"),
            (Err(Uncounted), "would-refuse"),
        ] {
            assert_eq!(record.note(&dry, decided), Ok(Duration::ZERO));
            assert_eq!(record.word(), Some(word));
        }
        assert_eq!(told(&record), Vec::<String>::new());
        let strict = manner("shop", Force::Enforced, Show::Refused);
        assert_eq!(record.note(&strict, Err(Uncounted)), Err(Failure::LimitUnavailable));
        assert_eq!(record.note(&strict, Ok(decision(wait, 0))), Ok(Duration::from_secs(1)));
    }
}
