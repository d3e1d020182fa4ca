//! Passing the breakers around a route and an upstream, and what happens instead.
//!
//! Promise: a request that was let through is judged once, by what came of it; the client hears of one thing
//! alone: what the upstream gave, or what stands in for it.

use std::sync::Arc;

use sluice_http::Request;

use super::Acted;
use super::fallback::{Fallback, Then};
use super::forward::{Forward, is_whole};
use crate::circuit::{Circuit, Passing, verdict};
use crate::exchange::{Exchange, Outcome};
use crate::failure::Failure;
use crate::scene::Scene;
use crate::world::World;

/// Lets a request pass, now; notes when one may, if it may not.
///
/// # Errors
/// [`Failure::BreakerOpen`]
pub(super) fn pass<'a>(
    circuit: &'a Circuit,
    world: &World,
    exchange: &mut Exchange,
) -> Result<Passing<'a>, Failure> {
    let now = world.clock.moment(world.clock.now());
    circuit.pass(now).inspect_err(|_| exchange.retry_after = circuit.retry_after(now))
}

/// Judges it by what came, and tells of the change that makes.
pub(super) fn judge(
    scene: &Scene<'_>,
    (circuit, passing): (&Circuit, Passing<'_>),
    came: Result<u16, Failure>,
) {
    let now = scene.world.clock.moment(scene.world.clock.now());
    if let Some(change) = passing.judge(verdict(came), now) {
        scene.events.circuit_changed(circuit, change);
    }
}

impl Forward {
    /// The same, passing the breakers; falls back where that is written.
    pub async fn guarded(
        &self,
        scene: &Scene<'_>,
        exchange: &mut Exchange,
        request: &mut Request,
    ) -> Result<Acted, Failure> {
        let (had_body, places) = (!request.body.is_empty(), exchange.held.count());
        let acted = match &self.circuit {
            None => self.through(self.upstream, scene, exchange, request).await,
            Some(circuit) => match pass(circuit, scene.world, exchange) {
                Ok(passing) => {
                    let acted = self.through(self.upstream, scene, exchange, request).await;
                    judge(scene, (circuit, passing), came(&acted));
                    acted
                }
                Err(failure) => Err(failure),
            },
        };
        let came = came(&acted);
        match self.fallback.as_deref() {
            Some(fallback) if fallback.stands_in(came, is_whole(request, had_body)) => {
                // What failed is over: it holds no place beside what stands in.
                drop(acted);
                exchange.held.leave(places);
                self.fall_back(fallback, scene, exchange, request).await
            }
            _ => acted,
        }
    }

    /// What happens instead of what came.
    async fn fall_back(
        &self,
        fallback: &Fallback,
        scene: &Scene<'_>,
        exchange: &mut Exchange,
        request: &mut Request,
    ) -> Result<Acted, Failure> {
        scene.upstreams[self.upstream].cells.fallbacks.add(1);
        match &fallback.then {
            Then::Upstream(upstream) => self.through(*upstream, scene, exchange, request).await,
            Then::Respond(respond) => {
                exchange.outcome = Outcome::Answered;
                Ok(Acted::Response(respond.answer(exchange, &request.head)))
            }
        }
    }

    /// Sends it to one upstream, if its breaker and its limit let it.
    async fn through(
        &self,
        upstream: usize,
        scene: &Scene<'_>,
        exchange: &mut Exchange,
        request: &mut Request,
    ) -> Result<Acted, Failure> {
        let local = &scene.upstreams[upstream];
        let Some(circuit) = &local.shared.circuit else {
            return self.send(local, scene, exchange, request).await;
        };
        exchange.upstream = Arc::clone(&local.name);
        let passing = pass(circuit, scene.world, exchange)?;
        let acted = self.send(local, scene, exchange, request).await;
        judge(scene, (circuit, passing), came(&acted));
        acted
    }
}

/// The status of an answer, or how there is none.
fn came(acted: &Result<Acted, Failure>) -> Result<u16, Failure> {
    acted.as_ref().map_err(|failure| *failure).map(|acted| match acted {
        Acted::Response(response) => response.head.status,
        Acted::Switched(head, _) | Acted::Lasting(head, _) => head.status,
    })
}
