//! The dark-launch endpoints of the action register_tunnels: what is dark is asked for and changed while it runs.
//!
//! Promise: paths, methods and texts are those of the original router, so that its scripts work; addresses may be of
//! IPv6; nothing is told or changed for somebody whom nobody has authenticated, which is the caller's to see to.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

use sluice_http::{Body, Method, NameId, Request, Response, ResponseHead};
use sluice_tunnel::registration::announced_route;

use super::Acted;
use crate::exchange::Exchange;
use crate::failure::Failure;
use crate::percent::{Plus, decode};
use crate::tunnels::Tunnels;
use crate::tunnels::darkness::{Disobeyed, Subject};

/// What stands before all of their paths.
pub(super) const BASE: &str = "/api/dark-launch/";

/// What an endpoint is about, as it is written in answers.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Ip,
    Service,
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Kind::Ip => "ip",
            Kind::Service => "service",
        }
    }

    /// "Add IP", "Remove service".
    fn action(self, verb: &str) -> String {
        match self {
            Kind::Ip => format!("{verb} IP"),
            Kind::Service => format!("{verb} service"),
        }
    }

    /// What a path names, and how that is written.
    fn subject(self, name: &str) -> Option<(Subject, String)> {
        match self {
            Kind::Ip => {
                let name = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
                let address = name.parse::<IpAddr>().ok()?.to_canonical();
                Some((Subject::Address(address), address.to_string()))
            }
            Kind::Service => {
                let route = announced_route(name.as_bytes()).ok().filter(|_| !name.is_empty())?;
                let written = route.clone().unwrap_or_else(|| "*".to_owned());
                Some((Subject::Route(route.unwrap_or_default().into()), written))
            }
        }
    }
}

/// Answers a request to one of the endpoints; `rest` is its path behind [`BASE`].
///
/// # Errors
/// There is no such endpoint, or not for this method.
pub(super) fn answer(
    tunnels: &Arc<Tunnels>,
    rest: &str,
    exchange: &mut Exchange,
    request: &Request,
) -> Result<Acted, Failure> {
    let method = request.head.method;
    let reads = matches!(method, Method::Get | Method::Head);
    let changes = matches!(method, Method::Put | Method::Delete);
    let (kind, name) = rest.split_once('/').unwrap_or((rest, ""));
    let kind = match (kind, name) {
        ("gray", "") if reads => return text(200, gray(tunnels)),
        ("gray", "on" | "off") if method == Method::Put => return set_gray(tunnels, name == "on", exchange),
        ("ip", _) => Kind::Ip,
        ("service", _) => Kind::Service,
        ("gray", "") => return not_allowed(exchange, "GET, HEAD"),
        ("gray", "on" | "off") => return not_allowed(exchange, "PUT"),
        _ => return Err(Failure::NoRoute),
    };
    match name {
        "" if reads => text(200, list(tunnels, kind)),
        "" => not_allowed(exchange, "GET, HEAD"),
        name if reads || changes => {
            let name = decode(name.as_bytes(), Plus::Literal);
            let name = String::from_utf8_lossy(&name);
            about((tunnels, kind, name), exchange, method)
        }
        _ => not_allowed(exchange, "GET, HEAD, PUT, DELETE"),
    }
}

/// One address or service.
fn about(
    (tunnels, kind, name): (&Arc<Tunnels>, Kind, Cow<'_, str>),
    exchange: &Exchange,
    method: Method,
) -> Result<Acted, Failure> {
    let (word, found) = (kind.word(), kind.subject(&name));
    let verb = match method {
        Method::Put => "Add",
        Method::Delete => "Remove",
        _ => {
            let is_dark = found.as_ref().is_some_and(|(subject, _)| tunnels.is_dark(subject));
            let written = found.map_or_else(|| shown(&name), |(_, written)| written);
            return text(200, format!("DarkMode = {is_dark} for {word} = {written}"));
        }
    };
    let refused = |status, why: &str, written: &str| {
        let (action, id) = (kind.action(verb), &exchange.request_id);
        text(status, format!("Invalid request, {why} {word}: {written}, action: {action}, ErrorID: {id}"))
    };
    let Some((subject, written)) = found else { return refused(400, "invalid", &shown(&name)) };
    let by = caller(exchange);
    let done = match method {
        Method::Put => tunnels.darken(subject, by),
        _ => tunnels.lighten(&subject, by),
    };
    match (done, method) {
        (Ok(()), Method::Put) => text(200, "update dark launch manager successfully".to_owned()),
        (Ok(()), _) => {
            text(200, format!("{word}: {written} was deleted successfully from dark launch manager"))
        }
        (Err(Disobeyed::Written), _) => refused(409, "the configuration says that it is dark,", &written),
        (Err(Disobeyed::TooMany), _) => refused(409, "there are too many already,", &written),
        (Err(_), _) => refused(400, "invalid", &written),
    }
}

/// Who is asking, for the operator.
fn caller(exchange: &Exchange) -> &str {
    let consumer = exchange.consumer.as_ref().map(|consumer| &*consumer.name);
    consumer.or(exchange.user.as_deref()).unwrap_or("somebody with a token")
}

fn list(tunnels: &Tunnels, kind: Kind) -> String {
    let (addresses, routes) = tunnels.dark();
    match kind {
        Kind::Ip => format!("DarkMode IPs = [{}]", addresses.join(" ")),
        Kind::Service => format!("DarkMode Services = [{}]", routes.join(" ")),
    }
}

fn gray(tunnels: &Tunnels) -> String {
    let (is_on, is_gray) = tunnels.dark_mode();
    format!("DarkMode={is_on}, darkModeGrayTestToggle={is_gray}")
}

fn set_gray(tunnels: &Arc<Tunnels>, is_gray: bool, exchange: &Exchange) -> Result<Acted, Failure> {
    match tunnels.set_gray(is_gray, caller(exchange)) {
        Ok(()) => text(200, gray(tunnels)),
        Err(_) => text(403, format!("Forbidden request, ErrorID={}", exchange.request_id)),
    }
}

/// What a client wrote, fit for an answer.
fn shown(name: &str) -> String {
    name.chars().take(100).flat_map(char::escape_debug).collect()
}

fn not_allowed(exchange: &mut Exchange, allow: &str) -> Result<Acted, Failure> {
    exchange.allow = allow.into();
    Err(Failure::MethodNotAllowed)
}

fn text(status: u16, text: String) -> Result<Acted, Failure> {
    let mut head = ResponseHead::new(status);
    head.fields.append(NameId::ContentType, b"text/plain; charset=utf-8");
    head.fields.append(NameId::CacheControl, b"no-store");
    Ok(Acted::Response(Response { head, body: Body::Full(text.into()) }))
}
