//! Forwarding a whole connection: an endpoint is connected to, another one when that fails. Nothing has
//! been sent until then, so trying again is always safe.

use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;

use sluice_http::RequestHead;
use sluice_traffic::retry::{self, Idempotent, Sent};
use sluice_traffic::selection::Tried;

use super::fallback::Then;
use super::forward::{Forward, class};
use super::guard;
use crate::exchange::Exchange;
use crate::failure::Failure;
use crate::scene::Scene;
use crate::upstream::Local;
use crate::upstream::attempt::Attempt;
use crate::upstream::connection::{Connection, Dial, dial};
use crate::upstream::live::InFlight;
use crate::upstream::pick::{Came, Choice};

impl Forward {
    /// Connects to an endpoint for the client of `exchange`. `head` is what stands for its request.
    ///
    /// # Errors
    /// Why there is no connection: none could be made, or there is no endpoint left to try.
    pub async fn connect(
        &self,
        scene: &Scene<'_>,
        exchange: &mut Exchange,
        head: &RequestHead,
    ) -> Result<Box<Connection>, Failure> {
        let places = exchange.held.count();
        let connected = self.connect_guarded(scene, exchange, head).await;
        let (Some(fallback), Err(failure)) = (self.fallback.as_deref(), &connected) else { return connected };
        match &fallback.then {
            Then::Upstream(upstream) if fallback.stands_in(Err(*failure), true) => {
                exchange.held.leave(places);
                scene.upstreams[self.upstream].cells.fallbacks.add(1);
                Box::pin(self.connect_to(*upstream, scene, exchange, head)).await
            }
            _ => connected,
        }
    }

    /// Connects to the route's own upstream, if the route's breaker lets it.
    async fn connect_guarded(
        &self,
        scene: &Scene<'_>,
        exchange: &mut Exchange,
        head: &RequestHead,
    ) -> Result<Box<Connection>, Failure> {
        let Some(circuit) = &self.circuit else {
            return self.connect_to(self.upstream, scene, exchange, head).await;
        };
        let passing = guard::pass(circuit, scene.world, exchange)?;
        let connected = self.connect_to(self.upstream, scene, exchange, head).await;
        guard::judge(scene, (circuit, passing), connected.as_ref().map(|_| 200).map_err(|failure| *failure));
        connected
    }

    /// Connects to one upstream, if its breaker and its limit let it.
    async fn connect_to(
        &self,
        upstream: usize,
        scene: &Scene<'_>,
        exchange: &mut Exchange,
        head: &RequestHead,
    ) -> Result<Box<Connection>, Failure> {
        let local = &scene.upstreams[upstream];
        exchange.upstream = Arc::clone(&local.name);
        let circuit = local.shared.circuit.as_ref();
        let passing = circuit.map(|circuit| guard::pass(circuit, scene.world, exchange)).transpose()?;
        let connected = self.connect_in_time(local, scene, exchange, head).await;
        if let Some(passing) = circuit.zip(passing) {
            guard::judge(scene, passing, connected.as_ref().map(|_| 200).map_err(|failure| *failure));
        }
        connected
    }

    async fn connect_in_time(
        &self,
        local: &Rc<Local>,
        scene: &Scene<'_>,
        exchange: &mut Exchange,
        head: &RequestHead,
    ) -> Result<Box<Connection>, Failure> {
        let started = exchange.started;
        let attempts = pin!(self.connect_attempts(scene, local, exchange, head));
        match self.timeout {
            None => attempts.await,
            Some(timeout) => {
                let deadline = scene.world.timers.deadline();
                deadline.set(started, timeout);
                deadline.limit(attempts).await.unwrap_or(Err(Failure::ExchangeTimeout))
            }
        }
    }

    /// Chooses the endpoint of a flow of datagrams, which is not connected to.
    ///
    /// # Errors
    /// No endpoint is available.
    pub fn choose(
        &self,
        scene: &Scene<'_>,
        exchange: &mut Exchange,
        head: &RequestHead,
    ) -> Result<(Rc<Local>, Choice), Failure> {
        let local = &scene.upstreams[self.upstream];
        exchange.upstream = Arc::clone(&local.name);
        if let Some(gate) = &local.shared.gate {
            exchange.held.keep(gate.try_enter()?, scene.world, exchange.started);
        }
        let choice = choose(scene, local, (exchange, head), &mut Tried::default())?;
        Ok((Rc::clone(local), choice))
    }

    async fn connect_attempts(
        &self,
        scene: &Scene<'_>,
        local: &Rc<Local>,
        exchange: &mut Exchange,
        head: &RequestHead,
    ) -> Result<Box<Connection>, Failure> {
        if let Some(gate) = &local.shared.gate {
            let permit = gate.enter(scene.world, exchange.priority).await?;
            exchange.held.keep(permit, scene.world, exchange.started);
        }
        let mut tried = Tried::default();
        let mut failed = None;
        // At this upstream: another one may have been tried before.
        for tries in 1.. {
            let choice = match choose(scene, local, (exchange, head), &mut tried) {
                Ok(choice) => choice,
                // What the last attempt gave says more than "no endpoint".
                Err(failure) => return Err(failed.unwrap_or(failure)),
            };
            if failed.is_some() {
                local.cells.retries.add(1);
            }
            match connect(scene, local, exchange, &choice).await {
                Ok(connection) => return Ok(connection),
                Err(failure) => {
                    if !retry::may_retry(class(failure), Sent::Nothing, Idempotent::No, tries, self.attempts)
                    {
                        return Err(failure);
                    }
                    failed = Some(failure);
                }
            }
        }
        Err(failed.unwrap_or(Failure::NoEndpoint))
    }
}

/// Chooses an endpoint that was not tried, and takes note of it.
fn choose(
    scene: &Scene<'_>,
    local: &Local,
    (exchange, head): (&mut Exchange, &RequestHead),
    tried: &mut Tried,
) -> Result<Choice, Failure> {
    let moment = scene.world.clock.moment(scene.world.clock.now());
    let choice = local.pick(scene.world, &exchange.facts(head), tried, moment)?;
    tried.insert(choice.index);
    exchange.attempts += 1;
    exchange.endpoint = Arc::clone(&local.addresses[choice.index]);
    Ok(choice)
}

/// One try at the chosen endpoint.
async fn connect(
    scene: &Scene<'_>,
    local: &Rc<Local>,
    exchange: &mut Exchange,
    choice: &Choice,
) -> Result<Box<Connection>, Failure> {
    let (endpoint, policy) = (&local.shared.endpoints[choice.index], &local.shared.policy);
    let attempt = Attempt::begin((scene.world, scene.events), local, choice);
    endpoint.turn(policy, scene.world).await?;
    let started = scene.world.clock.now();
    let header = policy.proxy_protocol.map_or(Vec::new(), |version| version.connection(exchange));
    let how = Dial { connect: policy.timeouts.connect, header: &header };
    let shed = || scene.events.shed(&endpoint.live);
    let of = (&*local.shared, choice.index);
    let dialed = dial(of, &local.pools[choice.index], scene.world, &how, shed).await;
    let ended = scene.world.clock.now();
    let latency = ended.saturating_duration_since(started);
    attempt.note(dialed.as_ref().map(|_| (Came::Answer, latency)).map_err(|failure| *failure), ended);
    let mut connection = dialed?;
    local.endpoint_cells[choice.index].opened.add(1);
    connection.in_flight = Some(InFlight::begin(&endpoint.live));
    exchange.phases.connected = ended.saturating_duration_since(exchange.started);
    Ok(connection)
}
