//! The circuit breaker: closed (traffic flows), open (refused), half-open (a few probes decide).
//!
//! ```text
//!            too many failures                       open_for is over
//!   Closed ---------------------> Open <------------------------------> HalfOpen
//!     ^                                    a probe failed                  |
//!     +--------------------------------------------------------------------+
//!                           half_open_requests probes succeeded
//! ```
//!
//! Promise: shared by threads without a lock, one word for the state, changed whole. Every admission carries
//! the turn (the period of one state) it was given in, and a result counts only in its own turn: late
//! failures from before a trip cannot trip the breaker again, a late probe cannot free a slot it does not
//! hold. It cannot get stuck: open ends by time, and probes whose results never come are given up when the
//! last of them has been out for the longest open time. Between threads a trip may see a result more or less
//! than a single one would.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use crate::window::Window;
use crate::{Moment, Verdict};

/// When a breaker opens and how it closes again.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Policy {
    /// It opens when at least this share of the window's requests failed, 0 to 1. At least one must have.
    pub failure_ratio: f64,
    /// How far back requests count. It slides in tenths.
    pub window: Duration,
    /// It does not open by ratio with fewer requests in the window.
    pub min_requests: u32,
    /// How long it stays open after its first trip; at least a millisecond, the resolution of its clock.
    pub open_for: Duration,
    /// It stays open twice as long after each consecutive trip, up to this. A trip is consecutive when a
    /// probe failed, or when it comes within one open time of closing.
    pub max_open_for: Duration,
    /// Probes admitted in one half-open period, at once and in all; as many successes close it. 1 to 255.
    pub half_open_requests: u32,
    /// It opens also after this many failures in a row, whatever the ratio and the number of requests.
    pub consecutive_failures: Option<u32>,
}

impl Default for Policy {
    /// Half of at least 20 requests in 10 s; open for 5 s, growing to 60 s; 3 probes.
    fn default() -> Self {
        Policy {
            failure_ratio: 0.5,
            window: Duration::from_secs(10),
            min_requests: 20,
            open_for: Duration::from_secs(5),
            max_open_for: Duration::from_secs(60),
            half_open_requests: 3,
            consecutive_failures: None,
        }
    }
}

impl Policy {
    fn probes(&self) -> u64 {
        u64::from(self.half_open_requests.clamp(1, 255))
    }

    /// Milliseconds of the longest open time, after which lost probes are given up too.
    fn longest(&self) -> u64 {
        millis(self.open_for.max(self.max_open_for))
    }

    /// Milliseconds it stays open after `trips` consecutive trips (1 or more).
    fn open_millis(&self, trips: u64) -> u64 {
        let doubled = 1_u64 << (trips.saturating_sub(1)).min(40);
        millis(self.open_for).saturating_mul(doubled).min(self.longest())
    }
}

/// What a breaker does with requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Traffic flows.
    Closed,
    /// Requests are refused.
    Open,
    /// A few requests pass as probes.
    HalfOpen,
}

/// Whether one request may pass. Every admission but `No` must be given back to [`Breaker::record`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "an admission that is not recorded holds a probe's slot"]
pub enum Admission {
    /// It may.
    Yes(Turn),
    /// It may, and its result decides what becomes of the breaker.
    Probe(Turn),
    /// It may not.
    No,
}

impl Admission {
    /// The change this admission made: the first probe half-opens the breaker.
    pub const fn change(self) -> Option<Change> {
        match self {
            Admission::Probe(Turn { first: true, .. }) => Some(Change::HalfOpened),
            _ => None,
        }
    }
}

/// The period of one state in which a request was admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    stamp: u64,
    first: bool,
}

/// What became of a breaker, for logs and metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It trips.
    Opened,
    /// Its open time is over and the first probe goes.
    HalfOpened,
    /// Enough probes succeeded.
    Closed,
}

/// A circuit breaker: closed when new.
#[derive(Debug, Default)]
pub struct Breaker {
    word: AtomicU64,
    /// Milliseconds of the clock when the last probe went; written before the word that lets it go.
    last_probe: AtomicU64,
    in_a_row: AtomicU32,
    window: Window,
}

/// The state word, unpacked. Its layout: stamp 40 bits, trips 6, succeeded 8, probing 8, phase 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Word {
    phase: Phase,
    /// Probes that are out; only while half-open.
    probing: u64,
    /// Probes that succeeded; only while half-open.
    succeeded: u64,
    /// Consecutive trips.
    trips: u64,
    /// Milliseconds of the clock; with the phase it names the turn. Closed: until then a trip is consecutive.
    /// Open: until then it is. Half-open: when it began.
    stamp: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Closed,
    Open,
    HalfOpen,
}

impl Breaker {
    /// Asks to let one request pass.
    pub fn admit(&self, policy: &Policy, now: Moment) -> Admission {
        let mut word = self.load();
        loop {
            let next = match self.consider(word, policy, now) {
                Step::Stay(admission) => return admission,
                Step::Probe(next) => next,
            };
            self.last_probe.store(clock(now), Ordering::Relaxed);
            match self.swap(word, next) {
                Ok(()) => {
                    let first = word.phase == Phase::Open;
                    return Admission::Probe(Turn { stamp: next.stamp, first });
                }
                Err(changed) => word = changed,
            }
        }
    }

    /// Whether [`Breaker::admit`] would let a request pass now; asking takes no slot.
    pub fn would_admit(&self, policy: &Policy, now: Moment) -> bool {
        !matches!(self.consider(self.load(), policy, now), Step::Stay(Admission::No))
    }

    /// Takes the result of an admitted request. Gives the change when it made one.
    pub fn record(
        &self,
        policy: &Policy,
        now: Moment,
        admission: Admission,
        verdict: Verdict,
    ) -> Option<Change> {
        match admission {
            Admission::Yes(turn) => self.record_request(policy, now, turn, verdict),
            Admission::Probe(turn) => self.record_probe(policy, now, turn, verdict),
            Admission::No => None,
        }
    }

    /// What it does with requests now. An open breaker whose time is over counts as half-open.
    pub fn state(&self, now: Moment) -> State {
        let word = self.load();
        match word.phase {
            Phase::Closed => State::Closed,
            Phase::Open if clock(now) < word.stamp => State::Open,
            Phase::Open | Phase::HalfOpen => State::HalfOpen,
        }
    }

    /// Until when it refuses requests; `None` unless it is open. It may be in the past: the next request is a
    /// probe then.
    pub fn open_until(&self) -> Option<Moment> {
        let word = self.load();
        (word.phase == Phase::Open).then(|| Moment(word.stamp.saturating_mul(MILLI)))
    }

    fn record_request(&self, policy: &Policy, now: Moment, turn: Turn, verdict: Verdict) -> Option<Change> {
        let word = self.load();
        if !word.is(Phase::Closed, turn) {
            return None;
        }
        let in_a_row = match verdict {
            Verdict::Ignored => return None,
            Verdict::Success => {
                // A load is cheaper than a store that every thread then has to fetch.
                if self.in_a_row.load(Ordering::Relaxed) > 0 {
                    self.in_a_row.store(0, Ordering::Relaxed);
                }
                0
            }
            Verdict::Failure => self.in_a_row.fetch_add(1, Ordering::Relaxed).saturating_add(1),
        };
        self.window.add(policy.window, now, verdict == Verdict::Failure);
        if !self.too_many_failures(policy, now, in_a_row) {
            return None;
        }
        // Another thread that tripped it first has reported it.
        self.swap(word, word.trip(policy, clock(now))).is_ok().then_some(Change::Opened)
    }

    fn too_many_failures(&self, policy: &Policy, now: Moment, in_a_row: u32) -> bool {
        if policy.consecutive_failures.is_some_and(|limit| in_a_row >= limit.max(1)) {
            return true;
        }
        let counts = self.window.counts(policy.window, now);
        counts.failures > 0
            && counts.requests >= u64::from(policy.min_requests)
            && counts.failures as f64 >= policy.failure_ratio * counts.requests as f64
    }

    fn record_probe(&self, policy: &Policy, now: Moment, turn: Turn, verdict: Verdict) -> Option<Change> {
        let mut word = self.load();
        while word.is(Phase::HalfOpen, turn) {
            let (next, change) = word.probed(policy, clock(now), verdict);
            if change == Some(Change::Closed) {
                // Before the swap: nothing is counted until it is closed, and then it must start from
                // nothing.
                self.window.clear();
                self.in_a_row.store(0, Ordering::Relaxed);
            }
            match self.swap(word, next) {
                Ok(()) => return change,
                Err(changed) => word = changed,
            }
        }
        None
    }

    fn consider(&self, word: Word, policy: &Policy, now: Moment) -> Step {
        word.admit(policy, clock(now), self.last_probe.load(Ordering::Relaxed))
    }

    fn load(&self) -> Word {
        Word::unpack(self.word.load(Ordering::Acquire))
    }

    fn swap(&self, from: Word, to: Word) -> Result<(), Word> {
        let swapped = self.word.compare_exchange(from.pack(), to.pack(), Ordering::AcqRel, Ordering::Acquire);
        swapped.map(|_| ()).map_err(Word::unpack)
    }
}

enum Step {
    /// Nothing changes.
    Stay(Admission),
    /// The request is a probe once the word is swapped for this one.
    Probe(Word),
}

impl Word {
    fn admit(self, policy: &Policy, now: u64, last_probe: u64) -> Step {
        match self.phase {
            Phase::Closed => Step::Stay(Admission::Yes(Turn { stamp: self.stamp, first: false })),
            Phase::Open if now < self.stamp => Step::Stay(Admission::No),
            Phase::Open => Step::Probe(self.half_open(now)),
            Phase::HalfOpen if self.probing + self.succeeded < policy.probes() => {
                Step::Probe(Word { probing: self.probing + 1, ..self })
            }
            // Probes whose results never came: begin again, in a new turn.
            Phase::HalfOpen if now >= last_probe.saturating_add(policy.longest()) => {
                Step::Probe(self.half_open(now))
            }
            Phase::HalfOpen => Step::Stay(Admission::No),
        }
    }

    /// Half-open with its first probe out.
    fn half_open(self, now: u64) -> Word {
        Word { phase: Phase::HalfOpen, probing: 1, succeeded: 0, stamp: now, ..self }
    }

    fn is(self, phase: Phase, turn: Turn) -> bool {
        self.phase == phase && self.stamp == turn.stamp
    }

    fn trip(self, policy: &Policy, now: u64) -> Word {
        let consecutive = self.phase == Phase::HalfOpen || now < self.stamp;
        let trips = if consecutive { (self.trips + 1).min(MOST_TRIPS) } else { 1 };
        let stamp = now.saturating_add(policy.open_millis(trips)).min(LAST_STAMP);
        Word { phase: Phase::Open, probing: 0, succeeded: 0, trips, stamp }
    }

    fn probed(self, policy: &Policy, now: u64, verdict: Verdict) -> (Word, Option<Change>) {
        let probing = self.probing.saturating_sub(1);
        match verdict {
            Verdict::Ignored => (Word { probing, ..self }, None),
            Verdict::Failure => (self.trip(policy, now), Some(Change::Opened)),
            Verdict::Success if self.succeeded + 1 < policy.probes() => {
                (Word { probing, succeeded: self.succeeded + 1, ..self }, None)
            }
            Verdict::Success => {
                let stamp = now.saturating_add(policy.open_millis(self.trips)).min(LAST_STAMP);
                let closed = Word { phase: Phase::Closed, probing: 0, succeeded: 0, stamp, ..self };
                (closed, Some(Change::Closed))
            }
        }
    }

    const fn pack(self) -> u64 {
        self.stamp << 24 | self.trips << 18 | self.succeeded << 10 | self.probing << 2 | self.phase as u64
    }

    const fn unpack(word: u64) -> Word {
        let phase = match word & 3 {
            0 => Phase::Closed,
            1 => Phase::Open,
            _ => Phase::HalfOpen,
        };
        Word {
            phase,
            probing: word >> 2 & 0xff,
            succeeded: word >> 10 & 0xff,
            trips: word >> 18 & MOST_TRIPS,
            stamp: word >> 24,
        }
    }
}

const MILLI: u64 = 1_000_000;
const MOST_TRIPS: u64 = 63;
/// 34 years after the clock's start.
const LAST_STAMP: u64 = (1 << 40) - 1;

/// The moment in the breaker's milliseconds.
const fn clock(now: Moment) -> u64 {
    let millis = now.0 / MILLI;
    if millis > LAST_STAMP { LAST_STAMP } else { millis }
}

/// A length in milliseconds, rounded up, at least one.
fn millis(length: Duration) -> u64 {
    u64::try_from(length.as_nanos().div_ceil(u128::from(MILLI))).unwrap_or(u64::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1000 * MILLI;

    fn policy() -> Policy {
        Policy { min_requests: 4, half_open_requests: 2, ..Policy::default() }
    }

    fn at(seconds: u64) -> Moment {
        Moment(seconds * SECOND)
    }

    fn send(breaker: &Breaker, policy: &Policy, now: Moment, verdict: Verdict) -> Option<Change> {
        let admission = breaker.admit(policy, now);
        breaker.record(policy, now, admission, verdict)
    }

    fn fail(breaker: &Breaker, policy: &Policy, now: Moment) -> Option<Change> {
        send(breaker, policy, now, Verdict::Failure)
    }

    /// A breaker that tripped at `now`.
    fn tripped(policy: &Policy, now: Moment) -> Breaker {
        let breaker = Breaker::default();
        while fail(&breaker, policy, now).is_none() {}
        breaker
    }

    #[test]
    fn it_opens_at_the_ratio_and_not_below_the_minimum_of_requests() {
        let (breaker, policy) = (Breaker::default(), policy());
        assert_eq!(fail(&breaker, &policy, at(1)), None);
        assert_eq!(fail(&breaker, &policy, at(1)), None);
        assert_eq!(send(&breaker, &policy, at(1), Verdict::Success), None);
        assert_eq!(breaker.state(at(1)), State::Closed);
        // The fourth request completes the minimum; half of them failed.
        assert_eq!(send(&breaker, &policy, at(1), Verdict::Success), Some(Change::Opened));
        assert_eq!(breaker.state(at(1)), State::Open);
        assert_eq!(breaker.open_until(), Some(at(6)));
        assert_eq!(breaker.admit(&policy, at(5)), Admission::No);
        assert!(!breaker.would_admit(&policy, at(5)));
    }

    #[test]
    fn failures_leave_the_window_and_ignored_results_never_enter_it() {
        let (breaker, policy) = (Breaker::default(), policy());
        for _ in 0..3 {
            assert_eq!(fail(&breaker, &policy, at(0)), None);
        }
        for _ in 0..100 {
            assert_eq!(send(&breaker, &policy, at(1), Verdict::Ignored), None);
        }
        for _ in 0..3 {
            assert_eq!(fail(&breaker, &policy, at(11)), None, "those of 11 s ago are gone");
        }
        let never = Policy { failure_ratio: 0.0, ..policy };
        let healthy = Breaker::default();
        for _ in 0..100 {
            assert_eq!(send(&healthy, &never, at(1), Verdict::Success), None);
        }
    }

    #[test]
    fn failures_in_a_row_open_it_whatever_the_ratio() {
        let policy = Policy { consecutive_failures: Some(3), min_requests: 1000, ..policy() };
        let breaker = Breaker::default();
        for verdict in
            [Verdict::Failure, Verdict::Failure, Verdict::Success, Verdict::Failure, Verdict::Failure]
        {
            assert_eq!(send(&breaker, &policy, at(1), verdict), None);
        }
        assert_eq!(send(&breaker, &policy, at(1), Verdict::Failure), Some(Change::Opened));
    }

    #[test]
    fn half_open_admits_the_probes_and_closes_when_all_succeed() {
        let policy = policy();
        let breaker = tripped(&policy, at(1));
        assert_eq!(breaker.state(at(6)), State::HalfOpen);
        let first = breaker.admit(&policy, at(6));
        assert_eq!(first.change(), Some(Change::HalfOpened));
        let second = breaker.admit(&policy, at(6));
        assert!(matches!(second, Admission::Probe(_)));
        assert_eq!(second.change(), None);
        assert_eq!(breaker.admit(&policy, at(6)), Admission::No);
        assert_eq!(breaker.record(&policy, at(7), first, Verdict::Success), None);
        assert_eq!(
            breaker.admit(&policy, at(7)),
            Admission::No,
            "probes are counted in all, not only at once"
        );
        assert_eq!(breaker.record(&policy, at(7), second, Verdict::Success), Some(Change::Closed));
        assert_eq!(breaker.state(at(7)), State::Closed);
        assert_eq!(fail(&breaker, &policy, at(7)), None, "it starts with an empty window");
    }

    #[test]
    fn an_abandoned_probe_frees_its_slot() {
        let policy = Policy { half_open_requests: 1, ..policy() };
        let breaker = tripped(&policy, at(1));
        let probe = breaker.admit(&policy, at(6));
        assert_eq!(breaker.admit(&policy, at(6)), Admission::No);
        assert_eq!(breaker.record(&policy, at(6), probe, Verdict::Ignored), None);
        let probe = breaker.admit(&policy, at(6));
        assert!(matches!(probe, Admission::Probe(_)));
        assert_eq!(breaker.record(&policy, at(6), probe, Verdict::Success), Some(Change::Closed));
    }

    #[test]
    fn a_lost_probe_does_not_hold_it_half_open_for_ever() {
        let policy = Policy { half_open_requests: 1, ..policy() };
        let breaker = tripped(&policy, at(1));
        let lost = breaker.admit(&policy, at(6));
        assert_eq!(breaker.admit(&policy, at(65)), Admission::No);
        let next = breaker.admit(&policy, at(66));
        assert!(matches!(next, Admission::Probe(_)));
        assert_eq!(breaker.record(&policy, at(67), lost, Verdict::Failure), None, "its turn is over");
        assert_eq!(breaker.record(&policy, at(67), next, Verdict::Success), Some(Change::Closed));
    }

    #[test]
    fn rare_probes_are_not_taken_for_lost_ones() {
        let policy = policy();
        let breaker = tripped(&policy, at(1));
        assert_eq!(send(&breaker, &policy, at(6), Verdict::Success), None);
        let second = breaker.admit(&policy, at(100));
        assert_eq!(
            breaker.admit(&policy, at(101)),
            Admission::No,
            "the second has only been out for a second"
        );
        assert_eq!(breaker.record(&policy, at(102), second, Verdict::Success), Some(Change::Closed));
    }

    #[test]
    fn results_from_an_earlier_turn_change_nothing() {
        let policy = policy();
        let breaker = Breaker::default();
        let slow: Vec<_> = (0..50).map(|_| breaker.admit(&policy, at(1))).collect();
        while fail(&breaker, &policy, at(1)).is_none() {}
        for probe in [breaker.admit(&policy, at(6)), breaker.admit(&policy, at(6))] {
            let _ = breaker.record(&policy, at(6), probe, Verdict::Success);
        }
        assert_eq!(breaker.state(at(7)), State::Closed);
        for admission in slow {
            assert_eq!(breaker.record(&policy, at(7), admission, Verdict::Failure), None);
        }
        assert_eq!(breaker.state(at(7)), State::Closed);
    }

    #[test]
    fn the_open_time_doubles_with_consecutive_trips_up_to_the_most() {
        let policy = policy();
        let breaker = tripped(&policy, at(0));
        let mut opened = 0;
        for expected in [5, 10, 20, 40, 60, 60] {
            let until = breaker.open_until().unwrap();
            assert_eq!(until, at(opened + expected));
            assert_eq!(fail(&breaker, &policy, until), Some(Change::Opened));
            opened += expected;
        }
    }

    #[test]
    fn a_trip_soon_after_closing_is_consecutive_and_a_later_one_is_not() {
        let policy = Policy { half_open_requests: 1, ..policy() };
        for (wait, open_for) in [(1, 10), (6, 5)] {
            let breaker = tripped(&policy, at(0));
            assert_eq!(send(&breaker, &policy, at(5), Verdict::Success), Some(Change::Closed));
            let again = 5 + wait;
            while fail(&breaker, &policy, at(again)).is_none() {}
            assert_eq!(breaker.open_until(), Some(at(again + open_for)));
        }
    }

    #[test]
    fn silly_policies_and_times_are_no_trouble() {
        let policy = Policy {
            failure_ratio: f64::NAN,
            window: Duration::ZERO,
            min_requests: 0,
            open_for: Duration::MAX,
            max_open_for: Duration::ZERO,
            half_open_requests: 0,
            consecutive_failures: Some(0),
        };
        let breaker = Breaker::default();
        assert_eq!(fail(&breaker, &policy, Moment(u64::MAX)), Some(Change::Opened));
        assert!(breaker.open_until().is_some());
        let _ = breaker.admit(&policy, Moment(0));
        let _ = breaker.admit(&policy, Moment(u64::MAX));
        let quick = Policy { open_for: Duration::ZERO, max_open_for: Duration::ZERO, ..policy };
        let breaker = tripped(&quick, at(1));
        assert_eq!(breaker.admit(&quick, at(1)), Admission::No, "a millisecond at least");
        assert!(matches!(breaker.admit(&quick, at(2)), Admission::Probe(_)));
    }

    #[test]
    fn threads_never_get_more_probes_than_there_are() {
        let policy = Policy { half_open_requests: 5, ..policy() };
        let breaker = tripped(&policy, at(1));
        let probes: Vec<Admission> = std::thread::scope(|scope| {
            let ask = || -> Vec<_> { (0..100).map(|_| breaker.admit(&policy, at(6))).collect() };
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(ask)).collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        let probes: Vec<_> = probes.into_iter().filter(|admission| *admission != Admission::No).collect();
        assert_eq!(probes.len(), 5);
        assert_eq!(probes.iter().filter(|probe| probe.change().is_some()).count(), 1);
        let changes: Vec<_> = probes
            .iter()
            .filter_map(|probe| breaker.record(&policy, at(7), *probe, Verdict::Success))
            .collect();
        assert_eq!(changes, [Change::Closed]);
    }
}
