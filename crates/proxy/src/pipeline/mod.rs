//! The exchange, on one page: [`handle`] is the path of every request, top to bottom.
//!
//! Promise: one exchange sees one snapshot; filters run in the order written and in reverse on the way out,
//! exactly those that were entered, also around answers the gateway makes itself; a failure becomes an
//! answer in one place.

pub mod finish;
pub mod forwarded;
pub mod hops;
pub mod normalize;
pub mod problem_answer;

use std::rc::Rc;
use std::sync::Arc;

use hops::Hop;
use problem_answer::Form;
use sluice_http::{Body, Method, NameId, Request, RequestHead, Response, ResponseHead};

use crate::action::forward::Forward;
use crate::action::{Acted, Action};
use crate::config::model::{Model, Route};
use crate::exchange::{Exchange, Outcome, Role, TargetForm};
use crate::facts::Facts;
use crate::failure::Failure;
use crate::filter::{self, Entered, Flow, cors};

use crate::limit::consumer::OfConsumer;
use crate::listener::LocalListener;
use crate::relay::{End, Lasting};
use crate::route::Lookup;
use crate::scene::Scene;
use crate::tunnels::watch::Event;
use crate::upstream::Events;
use crate::worker::{Running, Worker};

/// Where an exchange takes place: nothing in it changes while the exchange lasts.
pub struct Place<'a> {
    /// The worker.
    pub worker: &'a Rc<Worker>,
    /// The snapshot, with the worker's own part of it.
    pub running: &'a Rc<Running>,
    /// The listener it came through.
    pub listener: &'a Rc<LocalListener>,
    /// Takes interim responses for the client.
    pub interim: &'a dyn Fn(ResponseHead),
}

impl Place<'_> {
    /// What filters and actions may use of it.
    pub fn scene<'s>(&'s self, events: &'s Rc<dyn Events>) -> Scene<'s> {
        let (world, upstreams) = (&self.worker.world, &self.running.upstreams);
        Scene { world, upstreams, interim: self.interim, events }
    }
}

/// What the pipeline gives.
pub enum Handled {
    /// An answer.
    Response(Response),
    /// The endpoint switched protocols: the client is told, then both are one tunnel.
    Switched(ResponseHead, Box<dyn End>),
    /// The same with a tunnel that outlives the exchange.
    Lasting(ResponseHead, Box<Lasting>),
}

/// Handles a request. The request stays with the caller, so that what is left of its body can be dealt
/// with after the answer. Cancel-safe in the sense that dropping it abandons the attempt at the endpoint.
pub async fn handle(place: &Place<'_>, exchange: &mut Exchange, request: &mut Request) -> Handled {
    if exchange.form == TargetForm::Origin {
        exchange.form = TargetForm::of(&request.head);
    }
    normalize::origin_form(&mut request.head);
    let route = match enter(place, exchange, request).await.and_then(|()| find(place, exchange, request)) {
        Ok(route) => route,
        Err(failure) => return Handled::Response(fail(place, exchange, request, failure)),
    };
    if let Some(answer) = limited(place, exchange, request) {
        return Handled::Response(answer);
    }
    forwarded::apply(&mut request.head, exchange, &place.listener.shared.forwarded);
    let events = place.worker.events();
    let scene = place.scene(&events);
    let Entered { count, flow } = filter::request_phase(&route.filters, &scene, (exchange, request)).await;
    let acted = if matches!(flow, Ok(Flow::Continue)) {
        // So that the future has no room for an answer beside the action's.
        drop(flow);
        // Every filter has passed it: it is known who is asking.
        let held = match limits_of_consumer(place, exchange) {
            // In a box, since few consumers have limits: every exchange would carry the size.
            Some(limits) => Box::pin(limits.enforce(scene.world, exchange, &request.head)).await,
            None => Ok(()),
        };
        match held {
            Ok(()) => act(place, &scene, route, (exchange, request)).await,
            Err(failure) => Err(failure),
        }
    } else {
        exchange.outcome = Outcome::Answered;
        flow.and_then(|flow| match flow {
            Flow::Answer(response) => Ok(Acted::Response(response)),
            Flow::Continue => Err(Failure::Internal),
        })
    };
    let mut response = match acted {
        Ok(Acted::Switched(head, connection)) => {
            watched(exchange, &head);
            return Handled::Switched(head, connection);
        }
        Ok(Acted::Lasting(head, lasting)) => return Handled::Lasting(head, lasting),
        Ok(Acted::Response(mut response)) => {
            exchange.limits.tell(&mut response.head.fields);
            response
        }
        Err(failure) => fail(place, exchange, request, failure),
    };
    let mut left = count;
    while let Err(interrupted) = filter::response_phase(&route.filters, left, exchange, &mut response).await {
        response = fail(place, exchange, request, interrupted.failure);
        left = interrupted.left;
    }
    mark(place, exchange, &mut response);
    watched(exchange, &response.head);
    Handled::Response(response)
}

/// Who watches the exchange learns what its client gets.
fn watched(exchange: &Exchange, head: &ResponseHead) {
    if let Some(watch) = &exchange.watch {
        watch.tell(&Event::Responding(head));
    }
}

/// Lets a request in through the listener, maybe after a wait. Cancel-safe.
async fn enter(place: &Place<'_>, exchange: &mut Exchange, request: &Request) -> Result<(), Failure> {
    let shared = &place.listener.shared;
    // Connections were asked already, but for those of trusted proxies, and those that are older than the list.
    if shared.access.as_ref().is_some_and(|access| !access.permits(exchange.client.address)) {
        return Err(Failure::Forbidden);
    }
    let Some(requests) = &shared.requests else { return Ok(()) };
    if requests.priority.is_some() {
        // The path that it may ask for; with the route it is found again.
        exchange.path = normalize::path(request.head.path())?.into_owned();
        exchange.priority = requests.priority(exchange, &exchange.facts(&request.head));
    }
    let world = &place.worker.world;
    let gate = requests.gate.as_ref().ok_or(Failure::Internal)?;
    let permit = gate.enter(world, exchange.priority).await?;
    exchange.held.keep(permit, world, exchange.started);
    Ok(())
}

/// Finds the route of a connection or flow, and passes it through the filters. `head` stands for a request:
/// its host is the server name that the client asked for. Cancel-safe.
///
/// # Errors
/// [`Failure::NoRoute`], or how a filter refused it.
pub async fn admit<'a>(
    place: &'a Place<'_>,
    exchange: &mut Exchange,
    head: RequestHead,
) -> Result<(&'a Forward, RequestHead), Failure> {
    let model = &place.running.snapshot.model;
    let now = place.worker.world.unix(exchange.started).as_secs();
    let index = model.streams.find(&exchange.facts(&head), now).ok_or(Failure::NoRoute)?;
    let route = &model.routes[index];
    exchange.route = Arc::clone(&place.running.names[index]);
    exchange.route_index = u32::try_from(index).ok();
    // The check of the document lets no other action pass, and no filter that answers.
    let Action::Forward(forward) = &route.action else { return Err(Failure::Internal) };
    let mut request = Request { head, body: Body::Empty };
    let events = place.worker.events();
    let entered =
        filter::request_phase(&route.filters, &place.scene(&events), (exchange, &mut request)).await;
    match entered.flow? {
        Flow::Continue => Ok((forward, request.head)),
        Flow::Answer(_) => Err(Failure::Internal),
    }
}

/// The answer to a request that may travel no further.
fn limited(place: &Place<'_>, exchange: &mut Exchange, request: &mut Request) -> Option<Response> {
    let counts = matches!(request.head.method, Method::Options | Method::Trace);
    if !counts || !request.head.fields.contains(NameId::MaxForwards) {
        return None;
    }
    let now = place.worker.world.clock.unix().as_secs();
    exchange.allow = place.running.snapshot.model.table.allow(&exchange.facts(&request.head), now).into();
    match hops::max_forwards(&mut request.head, &exchange.allow) {
        Ok(Hop::On) => None,
        Ok(Hop::Here(mut response)) => {
            exchange.outcome = Outcome::Answered;
            mark(place, exchange, &mut response);
            Some(response)
        }
        Err(failure) => Some(fail(place, exchange, request, failure)),
    }
}

/// Normalises the path and finds the route.
fn find<'a>(place: &'a Place<'_>, exchange: &mut Exchange, request: &Request) -> Result<&'a Route, Failure> {
    let named = check_name(place, exchange, request);
    exchange.path = normalize::path(request.head.path())?.into_owned();
    hops::check_loop(&request.head)?;
    let model = &place.running.snapshot.model;
    if let Some(only) = &place.listener.shared.registrations {
        exchange.route = Arc::clone(&place.running.registrations.1);
        return Ok(only);
    }
    let now = place.worker.world.unix(exchange.started).as_secs();
    // A tunnel to where the client likes is only for routes that say so.
    let table = model.table_for(request.head.method).ok_or(Failure::MethodNotAllowed)?;
    let preflighted = preflighted(model, &exchange.facts(&request.head), now);
    let found = preflighted.unwrap_or_else(|| table.find(&exchange.facts(&request.head), now));
    // A forward proxy is asked for names that are not its own.
    if !matches!(found, Lookup::Found { route, .. } if model.routes[route].action.is_proxy()) {
        named?;
    }
    match found {
        Lookup::Found { route, params } => {
            let found = &model.routes[route];
            exchange.params = params;
            exchange.route = Arc::clone(&place.running.names[route]);
            exchange.route_index = u32::try_from(route).ok();
            if found.action.is_proxy() {
                exchange.role = Role::Proxy;
            }
            Ok(found)
        }
        Lookup::MethodNotAllowed { allow } => {
            exchange.allow = allow.into();
            Err(Failure::MethodNotAllowed)
        }
        Lookup::NotFound => Err(Failure::NoRoute),
    }
}

/// What a preflight finds: the route of the request that it asks for, if that route answers preflights.
fn preflighted(model: &Model, facts: &Facts<'_>, now: u64) -> Option<Lookup> {
    let method = cors::asked(facts.head)?;
    let mut asked = facts.head.clone();
    asked.set_method(method);
    let found = model.table.find(&Facts { head: &asked, ..*facts }, now);
    let answers = |route: usize| model.routes[route].filters.iter().any(filter::Built::answers_preflights);
    matches!(found, Lookup::Found { route, .. } if answers(route)).then_some(found)
}

/// A connection opened for one name carries no requests for names of another certificate: who looked at the
/// first name only (a firewall, a pass-through, client authentication) would be fooled.
fn check_name(place: &Place<'_>, exchange: &Exchange, request: &Request) -> Result<(), Failure> {
    let (Some(server), Some(secured)) = (&place.listener.tls, &exchange.client.tls) else { return Ok(()) };
    match server.permits(secured.sni.as_deref(), request.head.authority()) {
        true => Ok(()),
        false => Err(Failure::MisdirectedRequest),
    }
}

async fn act(
    place: &Place<'_>,
    scene: &Scene<'_>,
    route: &Route,
    (exchange, request): (&mut Exchange, &mut Request),
) -> Result<Acted, Failure> {
    match &route.action {
        // In a box: routes without breakers carry no room for it.
        Action::Forward(forward) if forward.is_guarded(scene) => {
            Box::pin(forward.guarded(scene, exchange, request)).await
        }
        Action::Forward(forward) => forward.run(scene, exchange, request).await,
        Action::ForwardProxy(proxy) => {
            let outward = place.running.outward.as_deref().ok_or(Failure::Internal)?;
            Box::pin(proxy.run((scene, outward), exchange, request)).await
        }
        Action::Tunnel(tunnel) => {
            Box::pin(tunnel.run((scene, &place.running.snapshot.tunnels), exchange, request)).await
        }
        Action::RegisterTunnels(register) => {
            register.run((scene, &place.running.snapshot.tunnels), exchange, request)
        }
        Action::Respond(respond) => {
            exchange.outcome = Outcome::Answered;
            Ok(Acted::Response(respond.answer(exchange, &request.head)))
        }
        Action::Token(token) => {
            exchange.outcome = Outcome::Answered;
            // In a box: few routes have it.
            Box::pin(token.run(scene, exchange, request)).await.map(Acted::Response)
        }
        Action::Redirect(redirect) => {
            exchange.outcome = Outcome::Answered;
            Ok(Acted::Response(redirect.answer(exchange, &request.head)))
        }
    }
}

/// The limits in the record of the consumer that is asking, if it has any.
fn limits_of_consumer<'a>(place: &'a Place<'_>, exchange: &Exchange) -> Option<&'a OfConsumer> {
    let limits = place.running.snapshot.consumer_limits.get(exchange.consumer.as_ref()?.position)?;
    (!limits.is_empty()).then_some(limits)
}

/// The only place in the pipeline where a failure becomes an answer.
fn fail(place: &Place<'_>, exchange: &mut Exchange, request: &Request, failure: Failure) -> Response {
    exchange.outcome = Outcome::Failed(failure);
    let mut response = problem_answer::answer(failure, exchange, Form::of(&request.head));
    exchange.limits.tell(&mut response.head.fields);
    mark(place, exchange, &mut response);
    response
}

/// What every answer carries of us.
fn mark(place: &Place<'_>, exchange: &Exchange, response: &mut Response) {
    let policy = &place.listener.shared.forwarded;
    forwarded::apply_to_answer(&mut response.head, exchange, policy);
    if policy.forwarded.via && exchange.outcome == Outcome::Completed {
        response.head.fields.append(NameId::Via, b"1.1 sluice");
    }
}
