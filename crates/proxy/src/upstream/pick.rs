//! Which endpoint: enabled, well, breaker not open, not tried yet -> affinity -> balancer.
//!
//! Promise: no allocation but for a Set-Cookie; the reason of an empty choice is told apart (nothing
//! available, or only breakers in the way).

use std::rc::Rc;

use sluice_traffic::balance::{self, View};
use sluice_traffic::breaker::{self, Admission};
use sluice_traffic::ejection::Census;
use sluice_traffic::selection::{self, Candidates, Ejected, Fitness, Service, Standing, Tier, Tried};
use sluice_traffic::{Moment, Verdict};

use super::affinity::{By, OnUnavailable};
use super::config::{EndpointState, HashSource};
use super::live::Health;
use super::{Endpoint, Local, Upstream};
use crate::circuit::retry_after;
use crate::facts::{self, Facts};
use crate::failure::Failure;
use crate::world::World;

/// What came of an attempt, as far as its endpoint is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Came {
    /// An answer below 500.
    Answer,
    /// An answer of 500 or above.
    ServerError,
    /// A failure on the endpoint's side: no answer, or none that could be understood.
    Failure,
    /// Nothing that tells about the endpoint: the client left.
    Nothing,
}

impl Came {
    const fn verdict(self) -> Verdict {
        match self {
            Came::Answer => Verdict::Success,
            Came::ServerError | Came::Failure => Verdict::Failure,
            Came::Nothing => Verdict::Ignored,
        }
    }
}

/// A chosen endpoint.
#[derive(Debug)]
pub struct Choice {
    /// Its position.
    pub index: usize,
    /// What its breaker said, when it has one: the attempt's result is recorded with it.
    pub admission: Option<Admission>,
    /// A cookie to set on the answer.
    pub cookie: Option<String>,
}

/// The endpoints as a balancer sees them: for one pick, at one moment.
struct Members<'a> {
    upstream: &'a Upstream,
    tried: &'a Tried,
    now: Moment,
    candidates: Candidates,
    crowd: Crowd,
}

/// What becomes of endpoints that run as many requests as they may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Crowd {
    /// They are left alone: others have room.
    Avoided,
    /// They are taken: a request waits there.
    Joined,
}

impl Upstream {
    fn has_room(&self, index: usize, now: Moment) -> bool {
        self.endpoints[index].has_room(&self.policy, now)
    }

    /// Where an endpoint stands.
    pub fn standing(&self, index: usize, now: Moment) -> Standing {
        let Endpoint { policy, live, .. } = &self.endpoints[index];
        // Until its first check has answered, an endpoint is taken to be well.
        let health = if live.health() == Health::Unhealthy { Health::Unhealthy } else { Health::Healthy };
        let ejected = match self.policy.ejection.is_some() && live.ejection.ejected(now) {
            true => Ejected::Yes,
            false => Ejected::No,
        };
        let breaker = match &self.policy.breaker {
            Some(policy) if !live.breaker.would_admit(policy, now) => selection::Breaker::Refuses,
            _ => selection::Breaker::Admits,
        };
        Standing {
            service: match policy.state {
                EndpointState::Enabled => Service::Enabled,
                EndpointState::Drain => Service::Draining,
                EndpointState::Disabled => Service::Disabled,
            },
            tier: if policy.backup { Tier::Backup } else { Tier::Primary },
            fitness: Fitness::of(health, ejected, breaker),
        }
    }
}

impl View for Members<'_> {
    fn len(&self) -> usize {
        self.upstream.endpoints.len()
    }

    fn available(&self, index: usize) -> bool {
        self.may_take(index) && (self.crowd == Crowd::Joined || self.upstream.has_room(index, self.now))
    }

    fn weight(&self, index: usize) -> f64 {
        let endpoint = &self.upstream.endpoints[index];
        let weight = f64::from(endpoint.policy.weight);
        match self.upstream.policy.slow_start {
            Some(window) => {
                weight * sluice_traffic::slow_start::share(endpoint.live.up_for(self.now), window)
            }
            None => weight,
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
    pub fn pick(
        &self,
        world: &Rc<World>,
        facts: &Facts<'_>,
        tried: &mut Tried,
        now: Moment,
    ) -> Result<Choice, Failure> {
        loop {
            let choice = self.choose(world, facts, tried, now)?;
            let endpoint = &self.shared.endpoints[choice.index];
            let admission =
                (self.shared.policy.breaker.as_ref()).map(|policy| endpoint.live.breaker.admit(policy, now));
            if admission == Some(Admission::No) {
                // Another worker took the last probe between our look and our knock.
                tried.insert(choice.index);
                continue;
            }
            return Ok(Choice { admission, ..choice });
        }
    }

    fn choose(
        &self,
        world: &Rc<World>,
        facts: &Facts<'_>,
        tried: &Tried,
        now: Moment,
    ) -> Result<Choice, Failure> {
        let members = self.members(tried, now);
        let choice = |index, cookie| Choice { index, admission: None, cookie };
        let Some(affinity) = &self.shared.policy.affinity else {
            let index = self.balance(world, facts, &members);
            return index.map(|index| choice(index, None)).ok_or_else(|| self.none_left(tried, now));
        };
        match &affinity.by {
            By::Cookie(cookie) => {
                let bound =
                    facts::cookie(facts.head, &cookie.name).and_then(|token| self.shared.tokens.get(token));
                match bound {
                    Some(&index) if members.keep(index) => return Ok(choice(index, None)),
                    Some(_) if affinity.on_unavailable == OnUnavailable::Fail => {
                        return Err(Failure::NoEndpoint);
                    }
                    _ => {}
                }
                let index = self.balance(world, facts, &members).ok_or_else(|| self.none_left(tried, now))?;
                Ok(choice(index, Some(cookie.set(&self.shared.endpoints[index].token))))
            }
            By::Header(name) => {
                let key = facts.head.fields.get(name);
                self.stick(world, facts, &members, key)
                    .ok_or_else(|| self.none_left(tried, now))
                    .map(|i| choice(i, None))
            }
            By::Client => {
                let key = address_key(facts);
                let index = self.stick(world, facts, &members, Some(&key));
                index.ok_or_else(|| self.none_left(tried, now)).map(|i| choice(i, None))
            }
        }
    }

    fn members<'a>(&'a self, tried: &'a Tried, now: Moment) -> Members<'a> {
        let upstream = &*self.shared;
        let standing = |index| upstream.standing(index, now);
        let threshold = upstream.policy.panic_threshold;
        let candidates = selection::candidates(upstream.endpoints.len(), standing, tried, threshold);
        let mut members = Members { upstream, tried, now, candidates, crowd: Crowd::Joined };
        let limited = upstream.policy.pool.max_requests.is_some() || upstream.policy.pool.rate.is_some();
        if limited && (0..members.len()).any(|at| members.may_take(at) && upstream.has_room(at, now)) {
            members.crowd = Crowd::Avoided;
        }
        members
    }

    fn balance(&self, world: &Rc<World>, facts: &Facts<'_>, members: &Members<'_>) -> Option<usize> {
        let mut balancer = self.balancer.borrow_mut();
        let hash = if balancer.needs_hash() { self.hash(facts) } else { 0 };
        world.random(|rng| balancer.pick(members, hash, rng))
    }

    /// Affinity by a value: the same value, the same endpoint; without the value the balancer chooses.
    fn stick(
        &self,
        world: &Rc<World>,
        facts: &Facts<'_>,
        members: &Members<'_>,
        key: Option<&[u8]>,
    ) -> Option<usize> {
        match (key, self.sticky.borrow_mut().as_mut()) {
            (Some(key), Some(sticky)) => world.random(|rng| sticky.pick(members, balance::hash(key), rng)),
            _ => self.balance(world, facts, members),
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

    /// In how many seconds the first of its endpoints' breakers lets a request pass again; 0: not known.
    pub fn retry_after(&self, now: Moment) -> u16 {
        let untils = self.shared.endpoints.iter().filter_map(|endpoint| endpoint.live.breaker.open_until());
        retry_after(untils.min(), now)
    }

    /// Why there is nobody to choose.
    fn none_left(&self, tried: &Tried, now: Moment) -> Failure {
        let mut untried = (0..self.shared.endpoints.len())
            .filter(|&index| !tried.contains(index))
            .map(|index| self.shared.standing(index, now))
            .filter(|standing| standing.service == Service::Enabled)
            .peekable();
        let any = untried.peek().is_some();
        match any && untried.all(|standing| standing.fitness == Fitness::BreakerOpen) {
            true => Failure::BreakerOpen,
            false => Failure::NoEndpoint,
        }
    }

    /// Notes how an attempt went. Gives the change of the breaker's state, for the log.
    pub fn record(
        &self,
        index: usize,
        admission: Option<Admission>,
        came: Came,
        (now, latency): (Moment, Option<std::time::Duration>),
    ) -> Option<breaker::Change> {
        let live = &self.shared.endpoints[index].live;
        if let Some(latency) = latency {
            live.latency.observe(now, latency.as_nanos() as u64);
        }
        if let Some(policy) = &self.shared.policy.ejection {
            let verdict = match came {
                Came::ServerError if !policy.server_errors => Verdict::Success,
                came => came.verdict(),
            };
            live.ejection.record(&policy.rule, now, verdict, &self.shared.group, || self.census(index, now));
        }
        let change =
            live.breaker.record(self.shared.policy.breaker.as_ref()?, now, admission?, came.verdict());
        change.or_else(|| admission?.change())
    }

    /// The endpoints when one of them is about to be ejected.
    fn census(&self, index: usize, now: Moment) -> Census {
        let mut census = Census { endpoints: 0, ejected: 0, others_in_service: 0 };
        for other in 0..self.shared.endpoints.len() {
            let standing = self.shared.standing(other, now);
            if standing.service == Service::Enabled {
                census.endpoints += 1;
                census.ejected += usize::from(standing.fitness == Fitness::Ejected);
                census.others_in_service += usize::from(standing.fitness == Fitness::Fit && other != index);
            }
        }
        census
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

impl Members<'_> {
    /// Whether an endpoint may keep a client that is bound to it: a draining one may.
    fn keep(&self, index: usize) -> bool {
        !self.tried.contains(index) && self.upstream.standing(index, self.now).keeps_affinity()
    }

    /// Whether an endpoint takes traffic, whatever else it does.
    fn may_take(&self, index: usize) -> bool {
        !self.tried.contains(index) && self.candidates.include(self.upstream.standing(index, self.now))
    }
}

fn address_key(facts: &Facts<'_>) -> [u8; 16] {
    match facts.client.to_canonical() {
        std::net::IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        std::net::IpAddr::V6(address) => address.octets(),
    }
}
