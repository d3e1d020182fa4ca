//! Balancer, selection, breaker, ejection, health checks and retry budget together, in virtual time:
//! endpoints die, slow down, fail some requests and come back, and after every step the promises are checked.
//!
//! A run is a pure function of the balancer's kind and a seed; a failing run names both.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use sluice_traffic::balance::{Balancer, Config, Member, NAMES, View, hash};
use sluice_traffic::breaker::{self, Admission, Breaker, Change, State};
use sluice_traffic::ejection::{self, Census, Ejection};
use sluice_traffic::health::{Health, Tracker, jitter};
use sluice_traffic::latency::PeakEwma;
use sluice_traffic::retry::{Backoff, Budget, BudgetPolicy, Class, Idempotent, Sent, may_retry};
use sluice_traffic::selection::{self, Candidates, Ejected, Fitness, Service, Standing, Tier, Tried};
use sluice_traffic::{Moment, Rng, Verdict, slow_start};

const MS: u64 = 1_000_000;
const SECOND: u64 = 1000 * MS;
/// Until then endpoints misbehave; from then on all are well.
const CALM: u64 = 40 * SECOND;
/// By then the longest open time, the longest ejection, health checks and slow start must be over.
const RECOVERED: u64 = CALM + 30 * SECOND;
/// No request arrives after it.
const END: u64 = RECOVERED + 20 * SECOND;
const ATTEMPTS: u32 = 3;
const SLOW_START: Duration = Duration::from_secs(3);
const PANIC_THRESHOLD: f64 = 0.4;

const BREAKER: breaker::Policy = breaker::Policy {
    failure_ratio: 0.5,
    window: Duration::from_secs(5),
    min_requests: 10,
    open_for: Duration::from_secs(1),
    max_open_for: Duration::from_secs(8),
    half_open_requests: 3,
    consecutive_failures: Some(8),
};

const EJECTION: ejection::Policy = ejection::Policy {
    consecutive_failures: 5,
    base: Duration::from_secs(2),
    max: Duration::from_secs(10),
    max_ratio: 0.5,
};

const BUDGET: BudgetPolicy = BudgetPolicy { ratio: 0.2, floor_per_second: 1.0 };

/// How an endpoint behaves.
#[derive(Clone, Copy, Debug)]
enum Behaviour {
    /// Answers within some milliseconds.
    Well,
    /// Answers within some hundred.
    Slow,
    /// Refuses connections.
    Dead,
    /// Never answers: a time-out.
    Hanging,
    /// Fails every second request.
    Flaky,
}

/// An endpoint with everything that workers share about it.
struct Endpoint {
    behaviour: Behaviour,
    backup: bool,
    weight: u32,
    in_flight: u32,
    latency: PeakEwma,
    breaker: Breaker,
    ejection: Ejection,
    tracker: Tracker,
    up_since: Option<Moment>,
    /// Half-open periods, and the probes of the last one that are out, counted here on their own account.
    half_opened: u32,
    probes: u32,
    /// Requests since everything must have recovered.
    picks_at_end: u32,
}

impl Endpoint {
    fn standing(&self, now: Moment) -> Standing {
        let ejected = if self.ejection.ejected(now) { Ejected::Yes } else { Ejected::No };
        let breaker = match self.breaker.would_admit(&BREAKER, now) {
            true => selection::Breaker::Admits,
            false => selection::Breaker::Refuses,
        };
        Standing {
            service: Service::Enabled,
            tier: if self.backup { Tier::Backup } else { Tier::Primary },
            fitness: Fitness::of(self.tracker.health(), ejected, breaker),
        }
    }

    /// What becomes of a request, and after how long.
    fn answer(&self, rng: &mut Rng) -> (Verdict, Sent, u64) {
        let some = |least: u64, more: u32, rng: &mut Rng| (least + u64::from(rng.below(more))) * MS;
        match self.behaviour {
            Behaviour::Well => (Verdict::Success, Sent::Something, some(2, 8, rng)),
            Behaviour::Slow => (Verdict::Success, Sent::Something, some(200, 400, rng)),
            Behaviour::Dead => (Verdict::Failure, Sent::Nothing, MS / 2),
            Behaviour::Hanging => (Verdict::Failure, Sent::Something, SECOND),
            Behaviour::Flaky if rng.below(2) == 0 => (Verdict::Failure, Sent::Something, some(1, 5, rng)),
            Behaviour::Flaky => (Verdict::Success, Sent::Something, some(2, 8, rng)),
        }
    }
}

/// The view of one pick.
struct Now<'a> {
    endpoints: &'a [Endpoint],
    candidates: Candidates,
    tried: &'a Tried,
    now: Moment,
}

impl View for Now<'_> {
    fn len(&self) -> usize {
        self.endpoints.len()
    }
    fn available(&self, index: usize) -> bool {
        !self.tried.contains(index) && self.candidates.include(self.endpoints[index].standing(self.now))
    }
    fn weight(&self, index: usize) -> f64 {
        let endpoint = &self.endpoints[index];
        let since = endpoint.up_since.map(|up| self.now.since(up));
        f64::from(endpoint.weight) * slow_start::share(since, SLOW_START)
    }
    fn in_flight(&self, index: usize) -> u32 {
        self.endpoints[index].in_flight
    }
    fn latency(&self, index: usize) -> f64 {
        self.endpoints[index].latency.value(self.now)
    }
}

#[derive(Debug)]
struct Exchange {
    key: u64,
    idempotent: Idempotent,
    attempts: u32,
    tried: Tried,
}

#[derive(Debug)]
struct Attempt {
    endpoint: usize,
    admission: Admission,
    /// The half-open periods of the endpoint until it began.
    half_opened: u32,
    began: Moment,
    verdict: Verdict,
    sent: Sent,
}

#[derive(Debug)]
enum Event {
    Arrive,
    Attempt(Exchange),
    Finish(Exchange, Attempt),
    Check(usize),
    Behave(usize),
}

/// Orders events by time, then by the order in which they were planned.
struct Planned(u64, u64, Event);

impl PartialEq for Planned {
    fn eq(&self, other: &Self) -> bool {
        (self.0, self.1) == (other.0, other.1)
    }
}
impl Eq for Planned {}
impl PartialOrd for Planned {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Planned {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.0, self.1).cmp(&(other.0, other.1))
    }
}

/// What happened, counted on its own account.
#[derive(Default, Debug)]
struct Tally {
    arrived: u32,
    succeeded: u32,
    failed: u32,
    abandoned: u32,
    under_way: u32,
    waiting: u32,
    opened: u32,
    half_opened: u32,
    closed: u32,
    ejected: u32,
    retries: u32,
    refused_retries: u32,
    succeeded_at_end: u32,
    arrived_at_end: u32,
}

struct Simulation {
    rng: Rng,
    now: Moment,
    events: BinaryHeap<Reverse<Planned>>,
    planned: u64,
    endpoints: Vec<Endpoint>,
    group: ejection::Group,
    balancer: Balancer,
    budget: Budget,
    /// The seconds of the requests and of the retries of the last 10 s.
    requests: VecDeque<u64>,
    retries: VecDeque<u64>,
    tally: Tally,
}

impl Simulation {
    fn new(config: &Config, seed: u64) -> Simulation {
        let mut rng = Rng::new(seed);
        let count = 3 + rng.below(5) as usize;
        let keys: Vec<String> = (0..count).map(|at| format!("192.0.2.{at}:8080")).collect();
        let endpoints: Vec<Endpoint> = (0..count)
            .map(|at| Endpoint {
                behaviour: Behaviour::Well,
                // Never the first: there is always a primary.
                backup: at > 1 && rng.below(4) == 0,
                weight: 1 + rng.below(3),
                in_flight: 0,
                latency: PeakEwma::new(Duration::from_secs(5)),
                breaker: Breaker::default(),
                ejection: Ejection::default(),
                tracker: Tracker::new(Health::Unknown),
                up_since: None,
                half_opened: 0,
                probes: 0,
                picks_at_end: 0,
            })
            .collect();
        let members: Vec<_> = keys
            .iter()
            .zip(&endpoints)
            .map(|(key, endpoint)| Member { key, weight: endpoint.weight })
            .collect();
        let mut simulation = Simulation {
            balancer: Balancer::new(config, &members),
            rng,
            now: Moment(0),
            events: BinaryHeap::new(),
            planned: 0,
            endpoints,
            group: ejection::Group::default(),
            budget: Budget::new(BUDGET),
            requests: VecDeque::new(),
            retries: VecDeque::new(),
            tally: Tally::default(),
        };
        for at in 0..count {
            simulation.plan(0, Event::Check(at));
            simulation.plan(5 * SECOND, Event::Behave(at));
        }
        simulation.plan(10 * MS, Event::Arrive);
        simulation
    }

    fn plan(&mut self, after: u64, event: Event) {
        self.planned += 1;
        self.events.push(Reverse(Planned(self.now.0 + after, self.planned, event)));
    }

    fn run(mut self) -> Tally {
        while let Some(Reverse(Planned(at, _, event))) = self.events.pop() {
            assert!(at >= self.now.0);
            self.now = Moment(at);
            match event {
                Event::Arrive => self.arrive(),
                Event::Attempt(exchange) => {
                    self.tally.waiting -= 1;
                    self.attempt(exchange);
                }
                Event::Finish(exchange, attempt) => self.finish(exchange, &attempt),
                Event::Check(at) => self.check(at),
                Event::Behave(at) => self.behave(at),
            }
            self.check_promises();
        }
        self.check_the_end();
        self.tally
    }

    fn arrive(&mut self) {
        self.tally.arrived += 1;
        self.tally.arrived_at_end += u32::from(self.now.0 >= RECOVERED);
        self.budget.deposit(self.now);
        self.requests.push_back(self.now.0 / SECOND);
        let key = hash(&self.rng.next().to_le_bytes());
        let idempotent = if self.rng.below(5) == 0 { Idempotent::No } else { Idempotent::Yes };
        self.attempt(Exchange { key, idempotent, attempts: 0, tried: Tried::new() });
        if self.now.0 < END {
            let next = u64::from(1 + self.rng.below(12)) * MS;
            self.plan(next, Event::Arrive);
        }
    }

    fn attempt(&mut self, mut exchange: Exchange) {
        exchange.attempts += 1;
        loop {
            let (endpoints, now) = (&self.endpoints, self.now);
            let standing = |at: usize| endpoints[at].standing(now);
            let candidates =
                selection::candidates(endpoints.len(), standing, &exchange.tried, PANIC_THRESHOLD);
            let view = Now { endpoints, candidates, tried: &exchange.tried, now };
            let Some(at) = self.balancer.pick(&view, exchange.key, &mut self.rng) else {
                assert_eq!(candidates, Candidates::Nobody, "no pick although there are candidates");
                self.tally.failed += 1;
                return;
            };
            assert!(candidates.include(standing(at)) && !exchange.tried.contains(at), "picked no candidate");
            exchange.tried.insert(at);
            if let Some(admission) = self.begin(at) {
                self.plan_finish(exchange, at, admission);
                return;
            }
        }
    }

    /// Passes the breaker; `None` when it refuses.
    fn begin(&mut self, at: usize) -> Option<Admission> {
        let endpoint = &mut self.endpoints[at];
        let state = endpoint.breaker.state(self.now);
        let admission = endpoint.breaker.admit(&BREAKER, self.now);
        if admission.change() == Some(Change::HalfOpened) {
            self.tally.half_opened += 1;
            endpoint.half_opened += 1;
            // A probe of an earlier period may still hang; it counts for nothing.
            endpoint.probes = 0;
        }
        match admission {
            Admission::Yes(_) => assert_eq!(state, State::Closed),
            Admission::Probe(_) => {
                assert_eq!(state, State::HalfOpen);
                endpoint.probes += 1;
                assert!(endpoint.probes <= BREAKER.half_open_requests, "{} probes are out", endpoint.probes);
            }
            Admission::No => {
                assert_ne!(state, State::Closed);
                return None;
            }
        }
        endpoint.in_flight += 1;
        endpoint.picks_at_end += u32::from(self.now.0 >= RECOVERED);
        self.tally.under_way += 1;
        Some(admission)
    }

    fn plan_finish(&mut self, exchange: Exchange, endpoint: usize, admission: Admission) {
        let (mut verdict, sent, mut after) = self.endpoints[endpoint].answer(&mut self.rng);
        if self.rng.below(50) == 0 {
            // The client goes away before the answer.
            after = after.min(MS);
            verdict = Verdict::Ignored;
        }
        let half_opened = self.endpoints[endpoint].half_opened;
        let attempt = Attempt { endpoint, admission, half_opened, began: self.now, verdict, sent };
        self.plan(after, Event::Finish(exchange, attempt));
    }

    fn finish(&mut self, exchange: Exchange, attempt: &Attempt) {
        let (at, now, verdict) = (attempt.endpoint, self.now, attempt.verdict);
        self.tally.under_way -= 1;
        let endpoint = &mut self.endpoints[at];
        endpoint.in_flight -= 1;
        let is_probe = matches!(attempt.admission, Admission::Probe(_));
        endpoint.probes -= u32::from(is_probe && attempt.half_opened == endpoint.half_opened);
        match endpoint.breaker.record(&BREAKER, now, attempt.admission, verdict) {
            Some(Change::Opened) => self.tally.opened += 1,
            Some(Change::Closed) => self.tally.closed += 1,
            Some(Change::HalfOpened) | None => {}
        }
        if verdict == Verdict::Success {
            endpoint.latency.observe(now, now.since(attempt.began));
        }
        let census = || self.census(at);
        let ejected =
            self.endpoints[at].ejection.record(&EJECTION, now, verdict, &self.group, census).is_some();
        self.tally.ejected += u32::from(ejected);
        match verdict {
            Verdict::Success => {
                self.tally.succeeded += 1;
                self.tally.succeeded_at_end += u32::from(now.0 >= RECOVERED);
            }
            Verdict::Ignored => self.tally.abandoned += 1,
            Verdict::Failure => self.retry(exchange, attempt.sent),
        }
    }

    fn census(&self, own: usize) -> Census {
        let in_service =
            |at: &usize| *at != own && self.endpoints[*at].standing(self.now).fitness == Fitness::Fit;
        Census {
            endpoints: self.endpoints.len(),
            ejected: self.ejected(),
            others_in_service: (0..self.endpoints.len()).filter(in_service).count(),
        }
    }

    fn ejected(&self) -> usize {
        self.endpoints.iter().filter(|endpoint| endpoint.ejection.ejected(self.now)).count()
    }

    fn retry(&mut self, exchange: Exchange, sent: Sent) {
        if !may_retry(Class::Idempotent, sent, exchange.idempotent, exchange.attempts, ATTEMPTS) {
            self.tally.failed += 1;
            return;
        }
        if !self.budget.withdraw(self.now) {
            self.tally.refused_retries += 1;
            self.tally.failed += 1;
            return;
        }
        self.tally.retries += 1;
        let second = self.now.0 / SECOND;
        self.retries.push_back(second);
        for seconds in [&mut self.requests, &mut self.retries] {
            while seconds.front().is_some_and(|first| first + 10 <= second) {
                seconds.pop_front();
            }
        }
        let allowed = BUDGET.ratio * self.requests.len() as f64 + BUDGET.floor_per_second * 10.0;
        assert!(self.retries.len() as f64 <= allowed, "{} retries, {allowed} allowed", self.retries.len());
        let delay = Backoff::default().delay(exchange.attempts, &mut self.rng);
        self.tally.waiting += 1;
        self.plan(delay.as_nanos() as u64, Event::Attempt(exchange));
    }

    /// An active check. Those of a hanging endpoint time out, those of a flaky one pass.
    fn check(&mut self, at: usize) {
        let endpoint = &mut self.endpoints[at];
        let passes = !matches!(endpoint.behaviour, Behaviour::Dead | Behaviour::Hanging);
        let before = endpoint.tracker.health();
        match endpoint.tracker.observe(passes, 2, 3) {
            Some(Health::Healthy) if before == Health::Unhealthy => {
                endpoint.up_since = Some(self.now);
                endpoint.ejection.clear(self.now);
            }
            _ => {}
        }
        if self.now.0 < END {
            let next = jitter(Duration::from_secs(1), &mut self.rng);
            self.plan(next.as_nanos() as u64, Event::Check(at));
        }
    }

    fn behave(&mut self, at: usize) {
        if self.now.0 >= CALM {
            self.endpoints[at].behaviour = Behaviour::Well;
            return;
        }
        self.endpoints[at].behaviour = match self.rng.below(9) {
            0 => Behaviour::Slow,
            1 | 2 => Behaviour::Dead,
            3 => Behaviour::Hanging,
            4 => Behaviour::Flaky,
            _ => Behaviour::Well,
        };
        let length = (500 + u64::from(self.rng.below(9500))) * MS;
        self.plan(length.min(CALM.saturating_sub(self.now.0)), Event::Behave(at));
    }

    fn check_promises(&self) {
        let in_flight: u32 = self.endpoints.iter().map(|endpoint| endpoint.in_flight).sum();
        assert_eq!(in_flight, self.tally.under_way);
        let tally = &self.tally;
        let ended = tally.succeeded + tally.failed + tally.abandoned;
        assert_eq!(tally.arrived, ended + tally.under_way + tally.waiting, "an exchange is lost or doubled");
        let most = (EJECTION.max_ratio * self.endpoints.len() as f64).floor().max(1.0) as usize;
        assert!(self.ejected() <= most, "{} of {} are ejected", self.ejected(), self.endpoints.len());
        assert!(self.ejected() < self.endpoints.len());
        for endpoint in &self.endpoints {
            if let Some(until) = endpoint.breaker.open_until() {
                let longest = self.now.after(BREAKER.max_open_for).after(Duration::from_millis(1));
                assert!(until <= longest, "open for longer than the longest");
            }
        }
    }

    /// Everything is over, and everybody works again.
    fn check_the_end(&self) {
        let tally = &self.tally;
        assert_eq!((tally.under_way, tally.waiting), (0, 0), "{tally:?}");
        for endpoint in &self.endpoints {
            assert_eq!((endpoint.in_flight, endpoint.probes), (0, 0));
            assert!(!endpoint.ejection.ejected(self.now));
            assert_eq!(endpoint.tracker.health(), Health::Healthy);
        }
        let abandoned_at_most = tally.arrived_at_end / 10;
        assert!(tally.succeeded_at_end + abandoned_at_most >= tally.arrived_at_end, "{tally:?}");
        let primaries = || self.endpoints.iter().filter(|endpoint| !endpoint.backup);
        let weights: u32 = primaries().map(|endpoint| endpoint.weight).sum();
        let picks: u32 = primaries().map(|endpoint| endpoint.picks_at_end).sum();
        for endpoint in primaries() {
            assert_eq!(endpoint.breaker.state(self.now), State::Closed);
            let fair = picks * endpoint.weight / weights;
            // There is hardly any load: this one follows latency then, see its file.
            let least = if matches!(self.balancer, Balancer::PeakEwma(_)) { 1 } else { fair / 3 };
            assert!(endpoint.picks_at_end >= least, "{} of {fair}: {tally:?}", endpoint.picks_at_end);
        }
    }
}

#[test]
fn every_balancer_survives_endpoints_that_die_slow_down_and_recover() {
    let mut sum = Tally::default();
    for name in NAMES {
        let config: Config = serde_json::from_value((*name).into()).unwrap();
        for seed in 0..6 {
            let run = catch_unwind(AssertUnwindSafe(|| Simulation::new(&config, seed).run()));
            let Ok(tally) = run else { panic!("the simulation of {name} fails with seed {seed}") };
            sum.opened += tally.opened;
            sum.half_opened += tally.half_opened;
            sum.closed += tally.closed;
            sum.ejected += tally.ejected;
            sum.retries += tally.retries;
            sum.refused_retries += tally.refused_retries;
            sum.abandoned += tally.abandoned;
        }
    }
    // What the promises are about did happen.
    for happened in [sum.opened, sum.half_opened, sum.closed, sum.ejected, sum.retries, sum.refused_retries] {
        assert!(happened > 20, "{sum:?}");
    }
    assert!(sum.abandoned > 0);
}

#[test]
fn a_run_is_a_pure_function_of_its_seed() {
    let run = || format!("{:?}", Simulation::new(&Config::default(), 77).run());
    assert_eq!(run(), run());
}
