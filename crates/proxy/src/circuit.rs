//! Breakers around a whole route or upstream, beside those of endpoints, and what they are kept by.
//!
//! Promise: a request that a breaker let through is judged once, also when it is abandoned; a breaker keeps
//! its state over configuration changes by its name, as long as some snapshot or request holds it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use sluice_traffic::breaker::{Admission, Breaker, Change, Policy, State};
use sluice_traffic::{Moment, Verdict};

use crate::failure::{Failure, Side};

/// What a breaker is around.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Around {
    /// A route.
    Route,
    /// All endpoints of an upstream together.
    Upstream,
}

impl Around {
    /// "route" or "upstream".
    pub const fn word(self) -> &'static str {
        match self {
            Around::Route => "route",
            Around::Upstream => "upstream",
        }
    }
}

/// All breakers with a name.
#[derive(Debug, Default)]
pub struct Circuits(Mutex<BTreeMap<(Around, String), Weak<Breaker>>>);

/// What a scrape or a person is told of one.
#[derive(Clone, Debug)]
pub struct Told {
    /// What it is around.
    pub around: Around,
    /// The name of that.
    pub name: String,
    /// What it does with requests.
    pub state: State,
}

impl Circuits {
    /// The breaker around something, as a document has it.
    pub fn circuit(&self, around: Around, name: &str, policy: Policy) -> Circuit {
        let mut breakers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        breakers.retain(|_, breaker| breaker.strong_count() > 0);
        let key = (around, name.to_owned());
        let breaker = breakers.get(&key).and_then(Weak::upgrade).unwrap_or_default();
        breakers.insert(key, Arc::downgrade(&breaker));
        Circuit { around, name: name.into(), policy, breaker }
    }

    /// All that there are, at a moment.
    pub fn all(&self, now: Moment) -> Vec<Told> {
        let breakers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let all = breakers.iter();
        all.filter_map(|((around, name), breaker)| {
            Some(Told { around: *around, name: name.clone(), state: breaker.upgrade()?.state(now) })
        })
        .collect()
    }
}

/// A breaker with its name and the policy of a document.
#[derive(Clone)]
pub struct Circuit {
    /// What it is around.
    pub around: Around,
    /// The name of that.
    pub name: Arc<str>,
    policy: Policy,
    breaker: Arc<Breaker>,
}

impl fmt::Debug for Circuit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Circuit({} {})", self.around.word(), self.name)
    }
}

impl Circuit {
    /// In how many seconds it lets a request pass again; 0: not known.
    pub fn retry_after(&self, now: Moment) -> u16 {
        retry_after(self.breaker.open_until(), now)
    }

    /// Lets a request pass.
    ///
    /// # Errors
    /// [`Failure::BreakerOpen`]: it is open, or half-open with all its probes out.
    pub fn pass(&self, now: Moment) -> Result<Passing<'_>, Failure> {
        match self.breaker.admit(&self.policy, now) {
            Admission::No => Err(Failure::BreakerOpen),
            admission => Ok(Passing { circuit: self, admission, since: now, judged: false }),
        }
    }
}

/// A request that passes; dropping it unjudged says nothing about what it went to.
#[derive(Debug)]
pub struct Passing<'a> {
    circuit: &'a Circuit,
    admission: Admission,
    since: Moment,
    judged: bool,
}

impl Passing<'_> {
    /// Judges it. Gives the change of the breaker's state, for the log.
    pub fn judge(mut self, verdict: Verdict, now: Moment) -> Option<Change> {
        self.judged = true;
        let Circuit { breaker, policy, .. } = self.circuit;
        breaker.record(policy, now, self.admission, verdict).or_else(|| self.admission.change())
    }
}

impl Drop for Passing<'_> {
    fn drop(&mut self) {
        if !self.judged {
            let Circuit { breaker, policy, .. } = self.circuit;
            // Nobody is told: an abandoned probe changes no state.
            let _ = breaker.record(policy, self.since, self.admission, Verdict::Ignored);
        }
    }
}

/// Whole seconds until a breaker that is open until then lets a request pass, for Retry-After; 0: not known.
pub fn retry_after(open_until: Option<Moment>, now: Moment) -> u16 {
    let left = open_until.map_or(0, |until| until.since(now));
    u16::try_from(left.div_ceil(1_000_000_000)).unwrap_or(u16::MAX)
}

/// What an answer's status, or a failure, says about where the request went.
pub fn verdict(result: Result<u16, Failure>) -> Verdict {
    match result {
        Ok(500..) => Verdict::Failure,
        Ok(_) => Verdict::Success,
        Err(Failure::NoEndpoint | Failure::ExchangeTimeout) => Verdict::Failure,
        // What another breaker refused, and what a full queue did, is not heard of twice.
        Err(failure) if failure.row().side == Side::Upstream => Verdict::Failure,
        Err(_) => Verdict::Ignored,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: Policy = Policy {
        failure_ratio: 0.5,
        window: std::time::Duration::from_secs(10),
        min_requests: 2,
        open_for: std::time::Duration::from_secs(1),
        max_open_for: std::time::Duration::from_secs(1),
        half_open_requests: 1,
        consecutive_failures: None,
    };

    fn at(millis: u64) -> Moment {
        Moment(millis * 1_000_000)
    }

    #[test]
    fn it_opens_probes_and_closes_and_a_new_document_keeps_its_state() {
        let circuits = Circuits::default();
        let circuit = circuits.circuit(Around::Route, "shop", POLICY);
        let fail =
            |millis| circuit.pass(at(millis)).map(|passing| passing.judge(Verdict::Failure, at(millis)));
        assert_eq!(fail(0).unwrap(), None);
        assert_eq!(fail(0).unwrap(), Some(Change::Opened));
        let after = circuits.circuit(Around::Route, "shop", POLICY);
        assert_eq!(after.pass(at(500)).err(), Some(Failure::BreakerOpen));
        assert_eq!(circuits.all(at(500))[0].state, State::Open);
        assert_eq!([after.retry_after(at(500)), after.retry_after(at(1_100))], [1, 0]);
        assert!(circuits.circuit(Around::Upstream, "shop", POLICY).pass(at(500)).is_ok());
        // A probe that is abandoned frees its place.
        drop(after.pass(at(1_100)).unwrap());
        let probe = after.pass(at(1_100)).unwrap();
        assert!(after.pass(at(1_100)).is_err());
        assert_eq!(probe.judge(Verdict::Success, at(1_200)), Some(Change::Closed));
        drop((circuit, after));
        assert!(circuits.all(at(1_200)).iter().all(|told| told.around != Around::Route));
    }

    #[test]
    fn only_what_is_about_the_upstream_is_held_against_it() {
        for (result, expected) in [
            (Ok(200), Verdict::Success),
            (Ok(404), Verdict::Success),
            (Ok(503), Verdict::Failure),
            (Err(Failure::UpstreamReset), Verdict::Failure),
            (Err(Failure::NoEndpoint), Verdict::Failure),
            (Err(Failure::ClientGone), Verdict::Ignored),
            (Err(Failure::BreakerOpen), Verdict::Ignored),
            (Err(Failure::Overloaded), Verdict::Ignored),
        ] {
            assert_eq!(verdict(result), expected, "{result:?}");
        }
    }
}
