//! The `register_tunnels` action: connectors register and deregister, and whoever may asks what there is.
//!
//! Promise: what passes the route's filters is decided as on a listener of protocol tunnel, whose only route has this
//! action; a tunnel is agreed on over HTTP/1.1 only, and lives on after its exchange, whatever a reload changes.

use std::net::SocketAddr;
use std::sync::Arc;

use serde_json::Value;
use sluice_http::{Body, Method, NameId, Request, Response, ResponseHead};
use sluice_tunnel::registration::Purpose;

use super::{Acted, dark_launch};
use crate::exchange::{Exchange, Outcome};
use crate::failure::Failure;
use crate::problem::{At, Problems};
use crate::scene::Scene;
use crate::tunnels::Tunnels;
use crate::tunnels::announced::{Agreed, Desk};
use crate::tunnels::config::{Admission, AdmissionConfig, Callers};

/// What people write: the same as for a listener of protocol tunnel.
pub type Config = AdmissionConfig;

/// The `register_tunnels` action, checked.
#[derive(Debug)]
pub struct RegisterTunnels {
    admission: Admission,
}

impl RegisterTunnels {
    /// Checks it; it stands at `at`, behind filters that know who is asking, or behind none.
    pub fn build(
        config: &Config,
        callers: Callers,
        at: &At,
        problems: &mut Problems,
    ) -> Option<RegisterTunnels> {
        Some(RegisterTunnels { admission: config.check(callers, at, problems)? })
    }

    /// Decides about a registration, or tells what there is.
    ///
    /// # Errors
    /// Why it is refused.
    pub fn run(
        &self,
        (scene, tunnels): (&Scene<'_>, &Arc<Tunnels>),
        exchange: &mut Exchange,
        request: &Request,
    ) -> Result<Acted, Failure> {
        exchange.outcome = Outcome::Answered;
        let head = &request.head;
        let peer = SocketAddr::new(exchange.client.address.to_canonical(), exchange.client.peer.port());
        let desk = Desk { tunnels, admission: &self.admission, peer, world: scene.world };
        desk.check_address()?;
        if head.path() == "/health" {
            return told(exchange, request, || tunnels.health());
        }
        if let Some(tokens) = &self.admission.dark_launch
            && let Some(rest) = head.path().strip_prefix(dark_launch::BASE)
        {
            let is_known =
                exchange.consumer.is_some() || exchange.user.is_some() || exchange.claims.is_some();
            let is_admitted = if tokens.is_empty() { is_known } else { tokens.admit(head) };
            if !is_admitted {
                exchange.challenge = "Bearer".into();
                return Err(Failure::Unauthenticated);
            }
            return dark_launch::answer(tunnels, rest, exchange, request);
        }
        desk.check_token(head).inspect_err(|_| exchange.challenge = "Bearer".into())?;
        match (Purpose::of(head.path()), head.path()) {
            (Some(_), _) if head.method != Method::Get => not_allowed(exchange, "GET"),
            // What followed the head would be taken for frames.
            (Some(_), _) if !request.body.is_empty() => Err(Failure::TunnelNotWebsocket),
            (Some(purpose), _) => {
                let registration = desk.read(head, purpose)?;
                let agreed = desk.agree(exchange.registration.insert(Box::new(registration)))?;
                Ok(match agreed {
                    Agreed::Tunnel(head, lasting) => Acted::Lasting(head, Box::new(lasting)),
                    Agreed::Goodbye(head, end) => Acted::Switched(head, end),
                })
            }
            (None, "/api/registrations") => told(exchange, request, || tunnels.registrations()),
            (None, "/health/connectors") => told(exchange, request, || tunnels.connectors()),
            (None, _) => Err(Failure::NoRoute),
        }
    }
}

fn not_allowed(exchange: &mut Exchange, allow: &str) -> Result<Acted, Failure> {
    exchange.allow = allow.into();
    Err(Failure::MethodNotAllowed)
}

/// Answers with JSON.
fn told(exchange: &mut Exchange, request: &Request, value: impl Fn() -> Value) -> Result<Acted, Failure> {
    if !matches!(request.head.method, Method::Get | Method::Head) {
        return not_allowed(exchange, "GET, HEAD");
    }
    let mut head = ResponseHead::new(200);
    head.fields.append(NameId::ContentType, b"application/json");
    head.fields.append(NameId::CacheControl, b"no-store");
    Ok(Acted::Response(Response { head, body: Body::Full(value().to_string().into()) }))
}
