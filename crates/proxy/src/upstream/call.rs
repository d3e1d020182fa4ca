//! One request of the gateway's own to an upstream: a question that a filter asks before it decides.
//!
//! Promise: it counts like any attempt (breaker, ejection, latency); a request that reached nobody goes to one other
//! endpoint, and over a fresh connection when a pooled one was stale; it goes nowhere a second time when it may have
//! been seen.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sluice_http::h1::Persist;
use sluice_http::{NameId, Request, Response};
use sluice_traffic::retry::Sent;
use sluice_traffic::selection::Tried;

use super::Local;
use super::attempt::Attempt;
use super::live::InFlight;
use super::pick::{Came, Choice};
use super::reach::Reach;
use super::send::{self, ANSWER_LIMITS, Answer, Lost, Scope, Terms};
use crate::facts::Facts;
use crate::failure::Failure;
use crate::scene::Scene;
use crate::stream::Care;

/// Asks, and gives the answer's head with a body that is still to be read.
///
/// # Errors
/// There is no answer in time, or none at all.
pub async fn ask(
    scene: &Scene<'_>,
    upstream: usize,
    (facts, request): (&Facts<'_>, &mut Request),
    timeout: Duration,
) -> Result<Response, Failure> {
    let local = scene.upstreams.get(upstream).ok_or(Failure::Internal)?;
    let deadline = scene.world.timers.deadline();
    deadline.set(scene.world.clock.now(), timeout);
    let asked = std::pin::pin!(attempts(scene, local, facts, request));
    deadline.limit(asked).await.unwrap_or(Err(Failure::UpstreamTimeout))
}

async fn attempts(
    scene: &Scene<'_>,
    local: &Rc<Local>,
    facts: &Facts<'_>,
    request: &mut Request,
) -> Result<Response, Failure> {
    let mut tried = Tried::default();
    let mut last = None;
    for _ in 0..2 {
        let started = scene.world.clock.now();
        let choice = match local.pick(scene.world, facts, &mut tried, scene.world.clock.moment(started)) {
            Ok(choice) => choice,
            Err(failure) => return Err(last.unwrap_or(failure)),
        };
        tried.insert(choice.index);
        let noting = Attempt::begin((scene.world, scene.events), local, &choice);
        let result = exchange(scene, local, (&choice, started), request).await;
        let ended = scene.world.clock.now();
        match result {
            Ok(Answer::Response(head, body)) => {
                let came = if head.status >= 500 { Came::ServerError } else { Came::Answer };
                noting.note(Ok((came, ended.saturating_duration_since(started))), ended);
                return Ok(Response { head, body });
            }
            // It was not asked to.
            Ok(Answer::Switched(..)) => return Err(Failure::UpgradeRefused),
            Err(lost) => {
                noting.note(Err(lost.failure), ended);
                if lost.sent != Sent::Nothing {
                    return Err(lost.failure);
                }
                last = Some(lost.failure);
            }
        }
    }
    Err(last.unwrap_or(Failure::NoEndpoint))
}

async fn exchange(
    scene: &Scene<'_>,
    local: &Rc<Local>,
    (choice, started): (&Choice, Instant),
    request: &mut Request,
) -> Result<Answer, Lost> {
    let endpoint = &local.shared.endpoints[choice.index];
    if !request.head.fields.contains(NameId::Host) {
        request.head.fields.set(NameId::Host, endpoint.host().as_bytes());
    }
    let header = Vec::new();
    let reach = Reach {
        local,
        index: choice.index,
        world: scene.world,
        events: &**scene.events,
        header,
        wanted: None,
    };
    let total = local.shared.policy.timeouts.total.map(|limit| {
        let deadline = scene.world.timers.deadline();
        deadline.set(started, limit);
        Rc::new(deadline)
    });
    let lost = |failure| Lost { failure, sent: Sent::Nothing, scope: Scope::Exchange };
    endpoint.turn(&local.shared.policy, scene.world).await.map_err(lost)?;
    let mut pooled = reach.pooled(started, Care::Usual);
    loop {
        let was_pooled = pooled.is_some();
        let way = match pooled.take() {
            Some(way) => way,
            None => {
                let reached = Box::pin(reach.connect(Care::Usual)).await;
                reached.map_err(lost)?.0
            }
        };
        let terms = Terms {
            timeouts: local.shared.policy.timeouts,
            limits: ANSWER_LIMITS,
            total: total.clone(),
            now: scene.world.clock.now(),
            until: None,
            clock: scene.world.clock,
            timers: &scene.world.timers,
            address: endpoint.host(),
            pool: &local.pools[choice.index],
            interim: &|_| {},
            cells: &local.cells,
        };
        let guard = InFlight::begin(&Arc::clone(&endpoint.live));
        match send::exchange(way, request, Persist::KeepAlive, guard, &terms).await {
            Err(lost) if was_pooled && lost.may_resend(request) => {}
            result => return result,
        }
    }
}
