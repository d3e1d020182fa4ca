//! The forward action: send the request to an upstream, on another endpoint again when that is safe.
//!
//! Promise: a request is sent again only when nothing of it was sent, or its method is idempotent and the
//! policy allows it; never to an endpoint that was tried; never beyond the retry budget when something was
//! sent. One resend over a fresh connection is free when a pooled connection turns out stale.

use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sluice_http::h1::{self, Persist};
use sluice_http::{NameId, Request, RequestHead, Response, Version, grpc};
use sluice_traffic::breaker;
use sluice_traffic::retry::{self, Sent};
use sluice_traffic::selection::Tried;

use super::Acted;
use super::fallback::{self, Fallback};
use super::record::{self, Patience};
use crate::circuit::{Around, Circuit, Circuits};
use crate::exchange::{Exchange, Outcome};
use crate::failure::{Failure, Retry};
use crate::problem::{At, Problems};
use crate::scene::Scene;
use crate::stream::Care;
use crate::upstream::Local;
use crate::upstream::attempt;
use crate::upstream::config::BreakerConfig;
use crate::upstream::connection::Origin;
use crate::upstream::live::InFlight;
use crate::upstream::pick::Choice;
use crate::upstream::reach::{Reach, Way};
use crate::upstream::send::{self, ANSWER_LIMITS, Answer, Lost, Scope, Terms};
use crate::value::Period;
use crate::world::{Deadline, World};

/// Send the request to an upstream.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The upstream's name.
    pub upstream: String,
    /// For the whole exchange up to the answer's head, all attempts together. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Period>,
    /// When a failed attempt is tried again on another endpoint.
    #[serde(default)]
    pub retry: RetryConfig,
    /// The Host the endpoint sees. Default "preserve": the client's.
    #[serde(default)]
    pub host: HostConfig,
    /// Whether HTTP/1.1 upgrades (WebSocket) are passed on. Default false: the request goes on as an
    /// ordinary one.
    #[serde(default)]
    pub upgrade: bool,
    /// Stops sending while too many requests of this route fail (5xx and the upstream's failures), whatever
    /// endpoint they go to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub breaker: Option<BreakerConfig>,
    /// What happens instead when the upstream fails.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fallback: Option<fallback::Config>,
}

/// When a failed attempt is tried again on another endpoint.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RetryConfig {
    /// Attempts in all, the first included. Default 2; 1 never tries again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempts: Option<std::num::NonZeroU8>,
    /// Statuses of answers to idempotent requests that are tried again, for example [502, 503].
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub statuses: Vec<u16>,
    /// Whether requests that are not idempotent may be sent again too. Default false.
    pub non_idempotent: bool,
}

/// The Host an endpoint sees.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum HostConfig {
    /// The client's.
    #[default]
    Preserve,
    /// The endpoint's address as written.
    Endpoint,
    /// This one.
    Set(String),
}

/// The forward action, checked.
#[derive(Debug)]
pub struct Forward {
    /// The upstream's position in the model.
    pub upstream: usize,
    pub(super) timeout: Option<Duration>,
    pub(super) attempts: u32,
    statuses: Vec<u16>,
    non_idempotent: bool,
    host: HostConfig,
    upgrade: bool,
    breaker: Option<breaker::Policy>,
    /// The breaker, once it is loaded.
    pub(super) circuit: Option<Circuit>,
    pub(super) fallback: Option<Box<Fallback>>,
}

impl Config {
    /// Checks it; `upstreams` are the names there are, in the model's order.
    pub fn check(&self, upstreams: &[&str], at: &At, problems: &mut Problems) -> Option<Forward> {
        let before = problems.iter().count();
        let upstream = position(&self.upstream, upstreams, &at.key("upstream"), problems);
        let fallback = (self.fallback.as_ref())
            .and_then(|config| config.check((upstreams, upstream), &at.key("fallback"), problems));
        if let HostConfig::Set(host) = &self.host
            && (host.is_empty() || host.bytes().any(|byte| byte <= 0x20 || byte >= 0x7f))
        {
            problems.add(&at.key("host").key("set"), format!("`{host}` is not a Host"));
        }
        for (index, status) in self.retry.statuses.iter().enumerate() {
            if !(400..600).contains(status) {
                let at = at.key("retry").key("statuses").index(index);
                problems.add(&at, format!("{status} is not a status of a failure")).hint("400 to 599");
            }
        }
        if problems.iter().count() > before {
            return None;
        }
        Some(Forward {
            upstream: upstream?,
            timeout: self.timeout.map(|period| period.0),
            attempts: self.retry.attempts.map_or(2, |attempts| u32::from(attempts.get())),
            statuses: self.retry.statuses.clone(),
            non_idempotent: self.retry.non_idempotent,
            host: self.host.clone(),
            upgrade: self.upgrade,
            breaker: self.breaker.map(BreakerConfig::policy),
            circuit: None,
            fallback: fallback.map(Box::new),
        })
    }
}

/// The position of the upstream with this name.
pub(super) fn position(name: &str, upstreams: &[&str], at: &At, problems: &mut Problems) -> Option<usize> {
    let position = upstreams.iter().position(|known| *known == name);
    if position.is_none() {
        let problem = problems.add(at, format!("there is no upstream `{name}`"));
        match crate::closest::closest(name, upstreams.iter().copied()) {
            Some(name) => problem.hint(format!("did you mean `{name}`?")),
            None => problem.hint(format!("add a table [upstreams.{name}]")),
        };
    }
    position
}

/// Tunnels that one request may find ended.
const STALE_TUNNELS: u32 = 8;

/// Whether HTTP/1.1 upgrades are passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upgrades {
    /// They are.
    Passed,
    /// The request goes on as an ordinary one.
    Ignored,
}

/// One try at one endpoint, and what came of it.
struct Attempt {
    choice: Choice,
    result: Result<Answer, Lost>,
    /// Whether the request is still what it was: nothing of its body was pulled.
    whole: bool,
}

impl Forward {
    /// Takes its breaker from those of the process.
    pub fn load(&mut self, circuits: &Circuits, route: &str) {
        self.circuit = self.breaker.map(|policy| circuits.circuit(Around::Route, route, policy));
    }

    /// To an upstream, with every default.
    pub fn plain(upstream: usize, upgrades: Upgrades) -> Forward {
        Forward {
            upstream,
            timeout: None,
            attempts: 2,
            statuses: Vec::new(),
            non_idempotent: false,
            host: HostConfig::Preserve,
            upgrade: upgrades == Upgrades::Passed,
            breaker: None,
            fallback: None,
            circuit: None,
        }
    }

    /// Whether a breaker stands before it, or a fallback behind.
    pub fn is_guarded(&self, scene: &Scene<'_>) -> bool {
        let local = &scene.upstreams[self.upstream];
        self.circuit.is_some() || self.fallback.is_some() || local.shared.circuit.is_some()
    }

    /// Sends the request; tries again when that is safe. For what is not guarded.
    pub fn run<'a>(
        &'a self,
        scene: &'a Scene<'_>,
        exchange: &'a mut Exchange,
        request: &'a mut Request,
    ) -> impl Future<Output = Result<Acted, Failure>> + 'a {
        self.send(&scene.upstreams[self.upstream], scene, exchange, request)
    }

    /// Sends it to an upstream, whatever breakers say.
    pub(super) async fn send(
        &self,
        local: &Rc<Local>,
        scene: &Scene<'_>,
        exchange: &mut Exchange,
        request: &mut Request,
    ) -> Result<Acted, Failure> {
        exchange.upstream = Arc::clone(&local.name);
        let asked = grpc_timeout(&request.head);
        let timeout = match (self.timeout, asked) {
            (Some(ours), Some(asked)) => Some(ours.min(asked)),
            (ours, asked) => ours.or(asked),
        };
        let limit = asked.and(timeout).map(|timeout| Limit { started: exchange.started, timeout });
        let persist = (self.persist(request), limit);
        let mut tried = Tried::default();
        let started = exchange.started;
        local.deposit(scene.world.clock.moment(started));
        let attempts = pin!(self.attempts(scene, local, exchange, request, (persist, &mut tried)));
        match timeout {
            None => attempts.await,
            Some(timeout) => {
                let deadline = scene.world.timers.deadline();
                deadline.set(started, timeout);
                deadline.limit(attempts).await.unwrap_or(Err(Failure::ExchangeTimeout))
            }
        }
    }

    /// An upgrade goes on only where the route allows it, and without a body: after a 101 nobody could tell
    /// the rest of one from the tunnel's bytes. Never to h2c: requests in such a tunnel would pass no route.
    fn persist(&self, request: &Request) -> Persist {
        let RequestHead { version, fields, .. } = &request.head;
        let asked = *version != Version::Http10 && h1::upgrade(fields).is_some();
        let mut protocols = fields.get_all(NameId::Upgrade).flat_map(|line| line.split(|&byte| byte == b','));
        let h2c = |protocol: &[u8]| protocol.trim_ascii().eq_ignore_ascii_case(b"h2c");
        match self.upgrade && asked && request.body.is_empty() && !protocols.any(h2c) {
            true => Persist::Upgrade,
            false => Persist::KeepAlive,
        }
    }

    async fn attempts(
        &self,
        scene: &Scene<'_>,
        local: &Rc<Local>,
        exchange: &mut Exchange,
        request: &mut Request,
        (terms, tried): ((Persist, Option<Limit>), &mut Tried),
    ) -> Result<Acted, Failure> {
        if let Some(gate) = &local.shared.gate {
            let permit = gate.enter(scene.world, exchange.priority).await?;
            exchange.held.keep(permit, scene.world, exchange.started);
        }
        let mut failed: Option<Attempt> = None;
        // At this upstream: another one may have been tried before.
        let mut tries = 0;
        loop {
            let now = scene.world.clock.now();
            let moment = scene.world.clock.moment(now);
            let choice = match local.pick(scene.world, &exchange.facts(&request.head), tried, moment) {
                Ok(choice) => choice,
                // Nobody is left to try: what the last attempt gave says more than "no endpoint".
                Err(failure) => {
                    exchange.retry_after = local.retry_after(moment);
                    return failed.map_or(Err(failure), |last| self.settle(exchange, last));
                }
            };
            if failed.take().is_some() {
                local.cells.retries.add(1);
            }
            tried.insert(choice.index);
            exchange.attempts += 1;
            tries += 1;
            exchange.endpoint = Arc::clone(&local.addresses[choice.index]);
            let attempt = self.attempt(scene, local, exchange, request, (terms, choice, now)).await;
            if !self.again(scene, local, request, (&attempt, tries)) {
                return self.settle(exchange, attempt);
            }
            failed = Some(attempt);
        }
    }

    /// One try at the chosen endpoint; over a fresh connection again when a pooled one was stale.
    async fn attempt(
        &self,
        scene: &Scene<'_>,
        local: &Rc<Local>,
        exchange: &mut Exchange,
        request: &mut Request,
        ((persist, limit), choice, started): ((Persist, Option<Limit>), Choice, Instant),
    ) -> Attempt {
        let endpoint = &local.shared.endpoints[choice.index];
        match &self.host {
            HostConfig::Preserve => {}
            HostConfig::Endpoint => request.head.fields.set(NameId::Host, endpoint.host().as_bytes()),
            HostConfig::Set(host) => request.head.fields.set(NameId::Host, host.as_bytes()),
        }
        let total = local.shared.policy.timeouts.total.map(|limit| {
            let deadline = scene.world.timers.deadline();
            deadline.set(started, limit);
            Rc::new(deadline)
        });
        let patience = if limit.is_some() { Patience::Clients } else { Patience::Endpoints };
        let noting = attempt::Attempt::begin((scene.world, scene.events), local, &choice);
        let has_body = !request.body.is_empty();
        let terms = ((persist, limit), started, total);
        let result = self.exchange((scene, local, choice.index), exchange, request, terms).await;
        let ended = scene.world.clock.now();
        if result.is_ok() {
            exchange.phases.first_byte = ended.saturating_duration_since(exchange.started);
        }
        let result = record::note(noting, patience, result, (started, ended));
        Attempt { choice, result, whole: is_whole(request, has_body) }
    }

    /// One exchange, over a way that is there or a new one; over a new one again when a pooled one was stale.
    async fn exchange(
        &self,
        (scene, local, index): (&Scene<'_>, &Rc<Local>, usize),
        exchange: &mut Exchange,
        request: &mut Request,
        ((persist, limit), started, total): ((Persist, Option<Limit>), Instant, Option<Rc<Deadline>>),
    ) -> Result<Answer, Lost> {
        let version = local.shared.policy.proxy_protocol;
        let header = version.map_or(Vec::new(), |version| version.connection(exchange));
        let tunnels = exchange.tunnels.take();
        let wanted = tunnels.as_deref();
        let reach = Reach { local, index, world: scene.world, events: &**scene.events, header, wanted };
        let care = if request.head.method.is_idempotent() { Care::Usual } else { Care::Extra };
        let has_body = !request.body.is_empty();
        let mut now = started;
        // Tunnels that end while they are taken are many when their connectors deregister.
        let mut resends = if local.shared.tunnels.is_some() { STALE_TUNNELS } else { 1 };
        let lost = |failure| Lost { failure, sent: Sent::Nothing, scope: Scope::Exchange };
        local.shared.endpoints[index].turn(&local.shared.policy, scene.world).await.map_err(lost)?;
        loop {
            let place = match &local.shared.endpoints[index].gate {
                Some(gate) => Some(gate.enter(scene.world, exchange.priority).await.map_err(lost)?),
                None => None,
            };
            let pooled = if resends > 0 { reach.pooled(now, care) } else { None };
            let (mut way, origin) = match pooled {
                Some(way) => (way, Origin::Reused),
                // Boxed: a TLS handshake has no room in exchanges that find a connection.
                // Failed: nobody was reached.
                None => Box::pin(reach.connect(care)).await.map_err(lost)?,
            };
            if let Way::Tunnel(slot, watch) = &mut way {
                exchange.endpoint = slot.label().map_or_else(Arc::default, Arc::clone);
                *watch = slot.watched(exchange, &request.head, (scene.world.clock, now));
            }
            if origin == Origin::Fresh {
                now = scene.world.clock.now();
            }
            exchange.phases.connected = now.saturating_duration_since(exchange.started);
            let guard = InFlight::begin(&local.shared.endpoints[index].live).holding(place);
            let until = limit.as_ref().map(|limit| limit.pass_on(scene.world, &mut request.head, now));
            let terms = terms(scene, local, index, (now, total.clone(), until));
            let result = send::exchange(way, request, persist, guard, &terms).await;
            let is_stale = |lost: Lost| {
                origin == Origin::Reused && is_whole(request, has_body) && lost.may_resend(request)
            };
            match result {
                Err(lost) if resends > 0 && is_stale(lost) => resends -= 1,
                result => return result,
            }
        }
    }

    /// Whether another endpoint is tried.
    fn again(
        &self,
        scene: &Scene<'_>,
        local: &Local,
        request: &Request,
        (attempt, tries): (&Attempt, u32),
    ) -> bool {
        let (class, sent) = match &attempt.result {
            Ok(Answer::Response(head, ..)) if self.statuses.contains(&head.status) => {
                (retry::Class::Idempotent, Sent::Something)
            }
            Ok(_) => return false,
            Err(lost) => (class(lost.failure), lost.sent),
        };
        let idempotent = match self.non_idempotent || request.head.method.is_idempotent() {
            true => retry::Idempotent::Yes,
            false => retry::Idempotent::No,
        };
        if !attempt.whole || !retry::may_retry(class, sent, idempotent, tries, self.attempts) {
            return false;
        }
        // What was not sent is sent once only: it multiplies no traffic, so it needs no budget.
        let granted =
            sent == Sent::Nothing || local.withdraw(scene.world.clock.moment(scene.world.clock.now()));
        if !granted {
            local.cells.retries_denied.add(1);
        }
        granted
    }

    fn settle(&self, exchange: &mut Exchange, attempt: Attempt) -> Result<Acted, Failure> {
        match attempt.result {
            Err(lost) => Err(lost.failure),
            Ok(Answer::Switched(head, connection)) => {
                exchange.outcome = Outcome::Completed;
                Ok(Acted::Switched(head, connection))
            }
            Ok(Answer::Response(mut head, body)) => {
                if let Some(cookie) = attempt.choice.cookie {
                    head.fields.append(NameId::SetCookie, cookie.as_bytes());
                }
                exchange.outcome = Outcome::Completed;
                Ok(Acted::Response(Response { head, body }))
            }
        }
    }
}

/// The end that a client of gRPC gave its call (grpc-timeout), when that comes before the route's.
#[derive(Clone, Copy)]
struct Limit {
    started: Instant,
    timeout: Duration,
}

impl Limit {
    /// Tells the endpoint how much time is left, and gives the end of the answer's body.
    fn pass_on(&self, world: &World, head: &mut RequestHead, now: Instant) -> Rc<Deadline> {
        let left = self.timeout.saturating_sub(now.saturating_duration_since(self.started));
        head.fields.set(NameId::GrpcTimeout, grpc::format_timeout(left).as_bytes());
        let deadline = world.timers.deadline();
        deadline.set(now, left);
        Rc::new(deadline)
    }
}

fn grpc_timeout(head: &RequestHead) -> Option<Duration> {
    let value = head.fields.get(NameId::GrpcTimeout)?;
    grpc::is_grpc(&head.fields).then(|| grpc::timeout(value)).flatten()
}

fn terms<'a>(
    scene: &'a Scene<'_>,
    local: &'a Rc<Local>,
    index: usize,
    (now, total, until): (Instant, Option<Rc<Deadline>>, Option<Rc<Deadline>>),
) -> Terms<'a> {
    Terms {
        timeouts: local.shared.policy.timeouts,
        limits: ANSWER_LIMITS,
        total,
        now,
        until,
        clock: scene.world.clock,
        timers: &scene.world.timers,
        address: local.shared.endpoints[index].host(),
        pool: &local.pools[index],
        interim: scene.interim,
        cells: &local.cells,
    }
}

/// Whether the request is still what it was: a body that was pulled is gone, and without it the request would be
/// another one.
pub(super) fn is_whole(request: &Request, has_body: bool) -> bool {
    !has_body || !request.body.is_empty()
}

pub(super) fn class(failure: Failure) -> retry::Class {
    match failure.row().retry {
        Retry::No => retry::Class::Never,
        Retry::Any => retry::Class::Always,
        Retry::Idempotent => retry::Class::Idempotent,
    }
}
