//! Which endpoint: enabled, well, breaker not open, not tried yet -> affinity -> balancer.
//!
//! Promise: no allocation but for a Set-Cookie; the reason of an empty choice is told apart (nothing
//! available, or only breakers in the way).

use std::rc::Rc;

use sluice_traffic::balance::{self, View};
use sluice_traffic::breaker::{self, Admission, Verdict};
use sluice_traffic::clock::Moment;

use super::affinity::{By, OnUnavailable};
use super::config::{EndpointState, HashSource};
use super::live::Health;
use super::{Endpoint, Local, Upstream};
use crate::facts::{self, Facts};
use crate::failure::Failure;
use crate::world::World;

/// The endpoints an exchange has tried already.
#[derive(Clone, Debug, Default)]
pub struct Tried {
    first: u64,
    rest: Vec<usize>,
}

impl Tried {
    /// Notes one.
    pub fn add(&mut self, index: usize) {
        match index {
            0..64 => self.first |= 1 << index,
            _ => self.rest.push(index),
        }
    }

    fn has(&self, index: usize) -> bool {
        match index {
            0..64 => self.first & (1 << index) != 0,
            _ => self.rest.contains(&index),
        }
    }
}

/// A chosen endpoint.
#[derive(Debug)]
pub struct Choice {
    /// Its position.
    pub index: usize,
    /// What its breaker says of this attempt.
    pub admission: Admission,
    /// A cookie to set on the answer.
    pub cookie: Option<String>,
}

/// Which of the endpoints are looked at.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Tier {
    Primary,
    Backup,
}

/// Whether health counts, or so few are well that it is ignored.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Normal,
    Panic,
}

struct Candidates<'a> {
    upstream: &'a Upstream,
    tried: &'a Tried,
    now: Moment,
    tier: Tier,
    mode: Mode,
}

impl Upstream {
    /// Whether an endpoint may take traffic as far as its own state says.
    pub fn is_well(&self, endpoint: &Endpoint, now: Moment) -> bool {
        let live = &endpoint.live;
        live.health() != Health::Unhealthy
            && !(self.policy.ejection.is_some() && live.ejection.is_ejected(now))
            && !self.is_open(endpoint, now)
    }

    /// Whether the endpoint's breaker rejects.
    pub fn is_open(&self, endpoint: &Endpoint, now: Moment) -> bool {
        self.policy.breaker.as_ref().is_some_and(|_| endpoint.live.breaker.state(now) == breaker::State::Open)
    }
}

impl View for Candidates<'_> {
    fn len(&self) -> usize {
        self.upstream.endpoints.len()
    }

    fn available(&self, index: usize) -> bool {
        let endpoint = &self.upstream.endpoints[index];
        endpoint.policy.state == EndpointState::Enabled
            && endpoint.policy.backup == (self.tier == Tier::Backup)
            && !self.tried.has(index)
            && (self.mode == Mode::Panic || self.upstream.is_well(endpoint, self.now))
    }

    fn weight(&self, index: usize) -> f64 {
        let endpoint = &self.upstream.endpoints[index];
        let weight = f64::from(endpoint.policy.weight);
        match (self.upstream.policy.slow_start, endpoint.live.up_for(self.now)) {
            (Some(window), Some(up)) => weight * sluice_traffic::slow_start::share(Some(up), window.as_nanos() as u64),
            _ => weight,
        }
    }

    fn in_flight(&self, index: usize) -> u32 {
        self.upstream.endpoints[index].live.in_flight()
    }

    fn latency(&self, index: usize) -> f64 {
        self.upstream.endpoints[index].live.latency.value(self.now)
    }
}

impl Local {
    /// Chooses an endpoint for a request.
    pub fn pick(&self, world: &Rc<World>, facts: &Facts<'_>, tried: &mut Tried, now: Moment) -> Result<Choice, Failure> {
        loop {
            let choice = self.choose(world, facts, tried, now)?;
            let endpoint = &self.shared.endpoints[choice.index];
            let admission = match &self.shared.policy.breaker {
                Some(policy) => endpoint.live.breaker.admit(policy, now),
                None => Admission::Yes,
            };
            if admission == Admission::No {
                // Another worker took the last probe between our look and our knock.
                tried.add(choice.index);
                continue;
            }
            return Ok(Choice { admission, ..choice });
        }
    }

    fn choose(&self, world: &Rc<World>, facts: &Facts<'_>, tried: &Tried, now: Moment) -> Result<Choice, Failure> {
        let candidates = self.candidates(tried, now);
        let choice = |index, cookie| Choice { index, admission: Admission::Yes, cookie };
        let Some(affinity) = &self.shared.policy.affinity else {
            let index = self.balance(world, facts, &candidates);
            return index.map(|index| choice(index, None)).ok_or_else(|| self.none_left(tried, now));
        };
        match &affinity.by {
            By::Cookie(cookie) => {
                let bound = facts::cookie(facts.head, &cookie.name).and_then(|token| self.shared.tokens.get(token));
                match bound {
                    Some(&index) if candidates.keeps(index) => return Ok(choice(index, None)),
                    Some(_) if affinity.on_unavailable == OnUnavailable::Fail => return Err(Failure::NoEndpoint),
                    _ => {}
                }
                let index = self.balance(world, facts, &candidates).ok_or_else(|| self.none_left(tried, now))?;
                Ok(choice(index, Some(cookie.set(&self.shared.endpoints[index].token))))
            }
            By::Header(name) => {
                let key = facts.head.fields.get(name);
                self.stick(world, facts, &candidates, key).ok_or_else(|| self.none_left(tried, now)).map(|i| choice(i, None))
            }
            By::Client => {
                let key = address_key(facts);
                let index = self.stick(world, facts, &candidates, Some(&key));
                index.ok_or_else(|| self.none_left(tried, now)).map(|i| choice(i, None))
            }
        }
    }

    fn candidates<'a>(&'a self, tried: &'a Tried, now: Moment) -> Candidates<'a> {
        let upstream = &*self.shared;
        let mut candidates = Candidates { upstream, tried, now, tier: Tier::Primary, mode: Mode::Normal };
        if upstream.policy.panic_threshold > 0.0 {
            let enabled = || upstream.endpoints.iter().filter(|e| e.policy.state == EndpointState::Enabled);
            let well = enabled().filter(|endpoint| upstream.is_well(endpoint, now)).count();
            if sluice_traffic::panic_mode::panicking(well, enabled().count(), upstream.policy.panic_threshold) {
                candidates.mode = Mode::Panic;
            }
        }
        if upstream.endpoints.iter().any(|endpoint| endpoint.policy.backup)
            && !(0..upstream.endpoints.len()).any(|index| candidates.available(index))
        {
            candidates.tier = Tier::Backup;
        }
        candidates
    }

    fn balance(&self, world: &Rc<World>, facts: &Facts<'_>, candidates: &Candidates<'_>) -> Option<usize> {
        let mut balancer = self.balancer.borrow_mut();
        let hash = if balancer.needs_hash() { self.hash(facts) } else { 0 };
        world.random(|rng| balancer.pick(candidates, hash, rng))
    }

    /// Affinity by a value: the same value, the same endpoint; without the value the balancer chooses.
    fn stick(
        &self,
        world: &Rc<World>,
        facts: &Facts<'_>,
        candidates: &Candidates<'_>,
        key: Option<&[u8]>,
    ) -> Option<usize> {
        match (key, self.sticky.borrow_mut().as_mut()) {
            (Some(key), Some(sticky)) => world.random(|rng| sticky.pick(candidates, balance::hash(key), rng)),
            _ => self.balance(world, facts, candidates),
        }
    }

    fn hash(&self, facts: &Facts<'_>) -> u64 {
        let value = match &self.shared.policy.hash {
            HashSource::Client => None,
            HashSource::Path => Some(facts.path.as_bytes()),
            HashSource::Header(name) => facts.head.fields.get(name),
            HashSource::Cookie(name) => facts::cookie(facts.head, name).map(str::as_bytes),
            HashSource::Query(name) => facts::query(facts.head, name).map(str::as_bytes),
        };
        value.map_or_else(|| balance::hash(&address_key(facts)), balance::hash)
    }

    fn none_left(&self, tried: &Tried, now: Moment) -> Failure {
        let mut untried = (0..self.shared.endpoints.len())
            .filter(|&index| !tried.has(index))
            .map(|index| &self.shared.endpoints[index])
            .filter(|endpoint| endpoint.policy.state == EndpointState::Enabled)
            .peekable();
        let only_breakers = untried.peek().is_some() && untried.all(|endpoint| self.shared.is_open(endpoint, now));
        if only_breakers { Failure::BreakerOpen } else { Failure::NoEndpoint }
    }

    /// Notes how an attempt went. Gives the change of the breaker's state, for the log.
    pub fn record(
        &self,
        index: usize,
        admission: Admission,
        verdict: Verdict,
        (now, latency): (Moment, Option<std::time::Duration>),
    ) -> Option<breaker::Change> {
        let live = &self.shared.endpoints[index].live;
        if let Some(latency) = latency {
            live.latency.observe(now, latency.as_nanos() as u64);
        }
        if let Some(policy) = &self.shared.policy.ejection {
            self.eject(policy, index, verdict, now);
        }
        let policy = self.shared.policy.breaker.as_ref()?;
        live.breaker.record(policy, now, admission, verdict)
    }

    fn eject(&self, policy: &sluice_traffic::ejection::Policy, index: usize, verdict: Verdict, now: Moment) {
        let ejection = &self.shared.endpoints[index].live.ejection;
        match verdict {
            Verdict::Success => ejection.success(),
            Verdict::Failure => {
                let total = self.shared.endpoints.len();
                let out = self.shared.endpoints.iter().filter(|e| e.live.ejection.is_ejected(now)).count();
                ejection.failure(policy, now, out, total);
            }
            Verdict::Ignored => {}
        }
    }

    /// Counts a request towards the retry budget.
    pub fn deposit(&self, now: Moment) {
        self.budget.borrow_mut().deposit(now);
    }

    /// Whether the retry budget allows one more.
    pub fn withdraw(&self, now: Moment) -> bool {
        self.budget.borrow_mut().withdraw(now)
    }
}

impl Candidates<'_> {
    /// Whether an endpoint may keep a client that is bound to it: a draining one may.
    fn keeps(&self, index: usize) -> bool {
        let endpoint = &self.upstream.endpoints[index];
        endpoint.policy.state != EndpointState::Disabled
            && !self.tried.has(index)
            && (self.mode == Mode::Panic || self.upstream.is_well(endpoint, self.now))
    }
}

fn address_key(facts: &Facts<'_>) -> [u8; 16] {
    match facts.client.to_canonical() {
        std::net::IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        std::net::IpAddr::V6(address) => address.octets(),
    }
}
