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
use sluice_http::{Method, NameId, Request, Response, ResponseHead};

use crate::action::{self, Acted, Action};
use crate::config::model::Route;
use crate::exchange::{Exchange, Outcome, Role, TargetForm};
use crate::failure::Failure;
use crate::filter::{self, Flow};
use crate::listener::LocalListener;
use crate::relay::End;
use crate::route::Lookup;
use crate::worker::{Running, Worker};

/// Where an exchange takes place: nothing in it changes while the exchange lasts.
pub struct Scene<'a> {
    /// The worker.
    pub worker: &'a Rc<Worker>,
    /// The snapshot, with the worker's own part of it.
    pub running: &'a Rc<Running>,
    /// The listener it came through.
    pub listener: &'a Rc<LocalListener>,
    /// Takes interim responses for the client.
    pub interim: &'a dyn Fn(ResponseHead),
}

/// What the pipeline gives.
pub enum Handled {
    /// An answer.
    Response(Response),
    /// The endpoint switched protocols: the client is told, then both are one tunnel.
    Switched(ResponseHead, Box<dyn End>),
}

/// Handles a request. The request stays with the caller, so that what is left of its body can be dealt
/// with after the answer. Cancel-safe in the sense that dropping it abandons the attempt at the endpoint.
pub async fn handle(scene: &Scene<'_>, exchange: &mut Exchange, request: &mut Request) -> Handled {
    if exchange.form == TargetForm::Origin {
        exchange.form = TargetForm::of(&request.head);
    }
    normalize::origin_form(&mut request.head);
    let route = match find(scene, exchange, request) {
        Ok(route) => route,
        Err(failure) => return Handled::Response(fail(scene, exchange, request, failure)),
    };
    if let Some(answer) = limited(scene, exchange, request) {
        return Handled::Response(answer);
    }
    forwarded::apply(&mut request.head, exchange, &scene.listener.shared.forwarded);
    let entered = filter::request_phase(&route.filters, exchange, request).await;
    let acted = match entered.flow {
        Ok(Flow::Continue) => act(scene, route, exchange, request).await,
        Ok(Flow::Answer(response)) => {
            exchange.outcome = Outcome::Answered;
            Ok(Acted::Response(response))
        }
        Err(failure) => Err(failure),
    };
    let mut response = match acted {
        Ok(Acted::Switched(head, connection)) => return Handled::Switched(head, connection),
        Ok(Acted::Response(response)) => response,
        Err(failure) => fail(scene, exchange, request, failure),
    };
    let mut left = entered.count;
    while let Err(interrupted) = filter::response_phase(&route.filters, left, exchange, &mut response).await {
        response = fail(scene, exchange, request, interrupted.failure);
        left = interrupted.left;
    }
    mark(scene, exchange, &mut response);
    Handled::Response(response)
}

/// The answer to a request that may travel no further.
fn limited(scene: &Scene<'_>, exchange: &mut Exchange, request: &mut Request) -> Option<Response> {
    let counts = matches!(request.head.method, Method::Options | Method::Trace);
    if !counts || !request.head.fields.contains(NameId::MaxForwards) {
        return None;
    }
    let now = scene.worker.world.clock.unix().as_secs();
    exchange.allow = scene.running.snapshot.model.table.allow(&exchange.facts(&request.head), now);
    match hops::max_forwards(&mut request.head, &exchange.allow) {
        Ok(Hop::On) => None,
        Ok(Hop::Here(mut response)) => {
            exchange.outcome = Outcome::Answered;
            mark(scene, exchange, &mut response);
            Some(response)
        }
        Err(failure) => Some(fail(scene, exchange, request, failure)),
    }
}

/// Normalises the path and finds the route.
fn find<'a>(scene: &'a Scene<'_>, exchange: &mut Exchange, request: &Request) -> Result<&'a Route, Failure> {
    let named = check_name(scene, exchange, request);
    exchange.path = normalize::path(request.head.path())?.into_owned();
    hops::check_loop(&request.head)?;
    let model = &scene.running.snapshot.model;
    let now = scene.worker.world.unix(exchange.started).as_secs();
    // A tunnel to where the client likes is only for routes that say so.
    let table = model.table_for(request.head.method).ok_or(Failure::MethodNotAllowed)?;
    let found = table.find(&exchange.facts(&request.head), now);
    // A forward proxy is asked for names that are not its own.
    if !matches!(found, Lookup::Found { route, .. } if model.routes[route].action.is_proxy()) {
        named?;
    }
    match found {
        Lookup::Found { route, params } => {
            let found = &model.routes[route];
            exchange.params = params;
            exchange.route = Arc::clone(&scene.running.names[route]);
            exchange.route_index = Some(route);
            if found.action.is_proxy() {
                exchange.role = Role::Proxy;
            }
            Ok(found)
        }
        Lookup::MethodNotAllowed { allow } => {
            exchange.allow = allow;
            Err(Failure::MethodNotAllowed)
        }
        Lookup::NotFound => Err(Failure::NoRoute),
    }
}

/// A connection opened for one name carries no requests for names of another certificate: who looked at the
/// first name only (a firewall, a pass-through, client authentication) would be fooled.
fn check_name(scene: &Scene<'_>, exchange: &Exchange, request: &Request) -> Result<(), Failure> {
    let (Some(server), Some(secured)) = (&scene.listener.tls, &exchange.client.tls) else { return Ok(()) };
    match server.permits(secured.sni.as_deref(), request.head.authority()) {
        true => Ok(()),
        false => Err(Failure::MisdirectedRequest),
    }
}

async fn act(
    scene: &Scene<'_>,
    route: &Route,
    exchange: &mut Exchange,
    request: &mut Request,
) -> Result<Acted, Failure> {
    let events = scene.worker.events();
    let action_scene = action::Scene {
        world: &scene.worker.world,
        upstreams: &scene.running.upstreams,
        interim: scene.interim,
        events: &events,
        outward: scene.running.outward.as_deref(),
    };
    match &route.action {
        Action::Forward(forward) => forward.run(&action_scene, exchange, request).await,
        Action::ForwardProxy(proxy) => Box::pin(proxy.run(&action_scene, exchange, request)).await,
        Action::Respond(respond) => {
            exchange.outcome = Outcome::Answered;
            Ok(Acted::Response(respond.answer(exchange, &request.head)))
        }
        Action::Redirect(redirect) => {
            exchange.outcome = Outcome::Answered;
            Ok(Acted::Response(redirect.answer(exchange, &request.head)))
        }
    }
}

/// The only place in the pipeline where a failure becomes an answer.
fn fail(scene: &Scene<'_>, exchange: &mut Exchange, request: &Request, failure: Failure) -> Response {
    exchange.outcome = Outcome::Failed(failure);
    let mut response = problem_answer::answer(failure, exchange, Form::of(&request.head));
    mark(scene, exchange, &mut response);
    response
}

/// What every answer carries of us.
fn mark(scene: &Scene<'_>, exchange: &Exchange, response: &mut Response) {
    let policy = &scene.listener.shared.forwarded;
    forwarded::apply_to_answer(&mut response.head, exchange, policy);
    if policy.forwarded.via && exchange.outcome == Outcome::Completed {
        response.head.fields.append(NameId::Via, b"1.1 sluice");
    }
}
