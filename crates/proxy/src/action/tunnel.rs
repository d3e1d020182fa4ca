//! The tunnel action: the request itself names the service, by its path or host, as with the routers that connectors
//! of Cranker know. Needs no upstream in the document.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sluice_http::{Method, Request};

use super::Acted;
use super::forward::{Forward, Upgrades};
use crate::exchange::Exchange;
use crate::failure::Failure;
use crate::problem::{At, Problems};
use crate::scene::Scene;
use crate::tunnels::{Tunnels, Unknown, Wanted};
use crate::upstream::discovery;
use crate::value::Period;

/// Sends a request through the tunnel of the route that it names. A route that nobody has registered is answered 404
/// at once; one whose tunnels are all in use, or gone, waits. TRACE is answered 405.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// What names the route. Default "path".
    pub select: Select,
    /// How long a request waits for a tunnel; then it gets 503. Default "5s".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wait: Option<Period>,
    /// Whether HTTP/1.1 upgrades (WebSocket) are passed on, to connectors that know how. Default false.
    pub upgrade: bool,
}

/// What of a request names the route. Whatever it is, a connector that registered `*` serves what no other does.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Select {
    /// The first segment of the path: `/my-service/a/b` is for `my-service`. Nothing is taken off the path.
    #[default]
    Path,
    /// The longest registered prefix of the path: routes may hold slashes.
    LongestPrefix,
    /// The host: as a route of that name, or as a domain.
    Domain,
}

/// The tunnel action, checked.
#[derive(Debug)]
pub struct ThroughTunnel {
    forward: Forward,
    select: Select,
    wait: Duration,
}

/// Segments of a path that are looked at: with longer paths a request would cost as it likes.
const DEEPEST: usize = 16;

impl Config {
    /// Checks it; `upstream` is the position of the one that stands for all tunnels.
    pub fn check(&self, upstream: usize, _at: &At, _problems: &mut Problems) -> Option<ThroughTunnel> {
        let upgrades = if self.upgrade { Upgrades::Passed } else { Upgrades::Ignored };
        let forward = Forward::plain(upstream, upgrades);
        Some(ThroughTunnel { forward, select: self.select, wait: discovery::wait(self.wait) })
    }
}

impl ThroughTunnel {
    /// Sends the request, waiting for a tunnel where that makes sense.
    ///
    /// # Errors
    /// How it failed.
    pub async fn run(
        &self,
        (scene, tunnels): (&Scene<'_>, &Tunnels),
        exchange: &mut Exchange,
        request: &mut Request,
    ) -> Result<Acted, Failure> {
        if request.head.method == Method::Trace {
            exchange.allow = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS".into();
            return Err(Failure::MethodNotAllowed);
        }
        let wanted = self.wanted(exchange, request);
        let now = scene.world.clock.now();
        if !wanted.places.iter().any(|(domain, route)| tunnels.knows(domain, route, now)) {
            return Err(Failure::TunnelUnknown);
        }
        exchange.tunnels = Some(Box::new(wanted));
        self.forward.run(scene, exchange, request).await
    }

    fn wanted(&self, exchange: &Exchange, request: &Request) -> Wanted {
        let host = host(exchange, request);
        let path = request.head.path().trim_matches('/');
        let mut places: Vec<(&str, &str)> = Vec::with_capacity(4);
        match self.select {
            Select::Domain => places.extend([("", &*host), (&host, "")]),
            Select::Path => {
                let segment = path.split('/').next().unwrap_or_default();
                places.extend([(&*host, segment), (&host, ""), ("", segment)]);
            }
            Select::LongestPrefix => {
                let ends = path.match_indices('/').map(|(at, _)| at).take(DEEPEST).chain([path.len()]);
                let mut prefixes: Vec<&str> = ends.map(|end| &path[..end]).collect();
                prefixes.reverse();
                places.extend(prefixes.iter().map(|prefix| (&*host, *prefix)));
                places.push((&host, ""));
                places.extend(prefixes.iter().map(|prefix| ("", *prefix)));
            }
        }
        places.push(("", ""));
        places.dedup();
        let places = places.into_iter().map(|(domain, route)| (domain.into(), route.into())).collect();
        Wanted { places, wait: self.wait, unknown: Unknown::Refused }
    }
}

/// The name that a TLS client asked for, else the host of the request; without a port, in lower case.
fn host(exchange: &Exchange, request: &Request) -> String {
    let sni = exchange.client.tls.as_ref().and_then(|tls| tls.sni.as_deref());
    let authority = sni.unwrap_or_else(|| request.head.authority());
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    };
    host.to_ascii_lowercase()
}
