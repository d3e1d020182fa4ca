//! Document -> model: every problem, none applied. Pure: no file, no network, no clock.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use sluice_http::h1::Limits;

use super::document::{Document, Listener, ListenerHttp2, Protocol, ProxyProtocol, Route as RouteDocument};
use super::model::{self, Http2Policy, ListenerPolicy, ListenerTimeouts, Missing, Model, Route};
use super::streams::{self, Kind};
use super::{certificates, document};
use crate::action::Action;
use crate::action::redirect::Redirect;
use crate::action::register_tunnels::RegisterTunnels;
use crate::action::respond::Respond;
use crate::action::token::{self, Asks};
use crate::address::Address;
use crate::consumer;
use crate::filter::ip_access::IpAccess;
use crate::filter::{self, Filter as _, Known};
use crate::pipeline::forwarded;
use crate::problem::{At, Problems};
use crate::route::{RouteSpec, Streams, Table, parse_time};
use crate::sockets::{Place, Transport};
use crate::tls::Spoken;
use crate::tunnels::config::Callers;
use crate::upstream::config::Policy;
use crate::upstream::discovery;
use crate::value::{ByteSize, Period};

/// Checks a document.
pub fn check(document: &Document) -> Result<Model, Problems> {
    let mut problems = Problems::new();
    check_process(document, &mut problems);
    let listeners = check_listeners(document, &mut problems);
    let upstreams = check_upstreams(document, &mut problems);
    let consumers = consumer::check(&document.consumers, &At::root().key("consumers"), &mut problems);
    let consumer_limits = document.consumer_limits.as_ref().cloned().unwrap_or_default();
    let consumer_limits = consumer_limits.check(&At::root().key("consumer_limits"), &mut problems);
    let certificates = certificates::check(document, &mut problems);
    let (tables, streams) = check_matches(document, &mut problems);
    let dns = (document.dns.as_ref())
        .map(|config| config.check(&At::root().key("dns"), &mut problems))
        .unwrap_or_default();
    let names: Vec<&str> = document.upstreams.keys().map(String::as_str).collect();
    let tokens = document.routes.iter().enumerate().filter_map(|(index, route)| {
        let at = At::root().key("routes").index(index).key("token");
        Some((at, route.token.as_ref()?))
    });
    let directories = &token::directories(tokens, &mut problems);
    let known = Known { consumers: &consumers, upstreams: &names, directories };
    let routes: Vec<_> = (document.routes.iter().enumerate())
        .filter_map(|(index, route)| {
            check_route(route, &known, &At::root().key("routes").index(index), &mut problems)
        })
        .collect();
    let access_log = (document.access_log.as_ref())
        .and_then(|config| config.build(&At::root().key("access_log"), &mut problems));
    if let Some(consumer_limits) = consumer_limits
        && problems.is_empty()
    {
        let (table, connect) = tables;
        return Ok(Model {
            listeners,
            table,
            connect,
            streams,
            dns,
            routes,
            upstreams,
            consumers,
            consumer_limits,
            certificates,
            tunnels: document.tunnels.clone().unwrap_or_default().policy(),
            access_log,
        });
    }
    Err(problems)
}

fn check_process(document: &Document, problems: &mut Problems) {
    let at = At::root().key("process");
    if document.process.state.as_deref() == Some("") {
        problems.add(&at.key("state"), "the name of the directory is empty");
    }
    if let Some(admin) = &document.process.admin {
        let loopback = admin.address.parse::<SocketAddr>().map(|address| address.ip().is_loopback());
        if loopback != Ok(true) {
            problems
                .add(
                    &at.key("admin").key("address"),
                    format!("`{}` is not a loopback address with a port", admin.address),
                )
                .hint("the admin endpoints have no credentials yet: use 127.0.0.1:9900");
        }
    }
}

fn check_listeners(document: &Document, problems: &mut Problems) -> Vec<Arc<ListenerPolicy>> {
    let at = At::root().key("listeners");
    if document.listeners.is_empty() {
        problems
            .add(&at, "there is no listener: nothing would be accepted")
            .hint("add [listeners.web] with address = \"127.0.0.1:8080\"");
    }
    let mut taken: HashMap<Place, &str> = HashMap::new();
    let mut out = Vec::new();
    for (name, listener) in &document.listeners {
        let at = at.key(name);
        let Some(policy) = check_listener(name, listener, &at, problems) else { continue };
        let free_port = policy.place.address.inet().is_some_and(|address| address.port() == 0);
        match taken.insert(policy.place.clone(), name) {
            Some(other) if !free_port => {
                problems.add(&at.key("address"), format!("listener `{other}` has the same address"));
            }
            _ => out.push(Arc::new(policy)),
        }
    }
    out
}

fn check_listener(
    name: &str,
    listener: &Listener,
    at: &At,
    problems: &mut Problems,
) -> Option<ListenerPolicy> {
    let or = |period: Option<Period>, seconds| period.map_or(Duration::from_secs(seconds), |period| period.0);
    let size = |size: Option<ByteSize>, default: usize| {
        size.map_or(default, |size| size.0.try_into().unwrap_or(usize::MAX))
    };
    let (timeouts, limits) = (&listener.timeouts, &listener.limits);
    let default = Limits::default();
    let heads = Limits {
        line: size(limits.line, default.line),
        head: size(limits.head, default.head),
        fields: limits.fields.map_or(default.fields, usize::from),
    };
    if !(256..=1024 * 1024).contains(&heads.head) || heads.line < 64 || heads.fields == 0 {
        problems
            .add(
                &at.key("limits"),
                "these limits would refuse every request, or let heads grow without bound",
            )
            .hint("head: 256B to 1MiB, line: at least 64B, fields: at least 1");
    }
    check_times(timeouts, &at.key("timeouts"), problems);
    if limits.connections == Some(0) {
        problems.add(
            &at.key("limits").key("connections"),
            "with no connections allowed nothing is ever accepted",
        );
    }
    let tls =
        listener.tls.as_ref().and_then(|tls| tls.check(spoken(listener.protocol), &at.key("tls"), problems));
    let asks_clients = listener.tls.as_ref().is_some_and(|tls| tls.client_auth.is_some());
    if listener.forwarded.client_certificate && !asks_clients {
        problems
            .add(
                &at.key("forwarded").key("client_certificate"),
                "this listener asks no client for a certificate",
            )
            .hint("tls = { certificates = [...], client_auth = { ca = \"clients.pem\" } }");
    }
    Some(ListenerPolicy {
        name: Arc::from(name),
        place: check_place(listener, at, problems)?,
        mode: check_mode(listener, at, problems),
        tls,
        forwarded: forwarded::Policy {
            trusted: listener.trusted_proxies.clone(),
            forwarded: listener.forwarded,
            asks_clients,
        },
        protocol: listener.protocol,
        proxy_protocol: listener
            .proxy_protocol
            .as_ref()
            .and_then(|config| check_proxy_protocol(config, &at.key("proxy_protocol"), problems)),
        timeouts: ListenerTimeouts {
            head: or(timeouts.head, 10),
            idle: or(timeouts.idle, default_idle(listener.protocol)),
            stall: or(timeouts.stall, 30),
            total: timeouts.total.map(|period| period.0),
        },
        limits: heads,
        body_limit: limits.body.map_or(u64::MAX, |size| size.0),
        connections: limits.connections.unwrap_or(match listener.protocol {
            Protocol::Udp => 10_000,
            Protocol::Http | Protocol::Tcp | Protocol::Socks5 | Protocol::Tunnel => u32::MAX,
        }),
        access: (listener.ip_access.as_ref())
            .and_then(|config| IpAccess::build(config, &at.key("ip_access"), problems)),
        connections_per_client: limits.connections_per_client.map(NonZeroU32::get),
        requests: (limits.requests.as_ref())
            .and_then(|setting| setting.check(&at.key("limits").key("requests"), problems)),
        datagram: size(limits.datagram, LONGEST_DATAGRAM).min(LONGEST_DATAGRAM),
        requests_per_connection: limits
            .requests_per_connection
            .filter(|count| *count > 0)
            .unwrap_or(u32::MAX),
        http2: check_http2(&listener.http2, &at.key("http2"), problems),
        registrations: check_registrations(listener, at, problems),
    })
}

/// No time is zero.
fn check_times(timeouts: &document::ListenerTimeouts, at: &At, problems: &mut Problems) {
    for (key, period) in [
        ("head", timeouts.head),
        ("idle", timeouts.idle),
        ("stall", timeouts.stall),
        ("total", timeouts.total),
    ] {
        if period.is_some_and(|period| period.0.is_zero()) {
            problems.add(&at.key(key), "a time of zero would fail every request");
        }
    }
}

/// The one route of a tunnel listener.
fn check_registrations(listener: &Listener, at: &At, problems: &mut Problems) -> Option<Box<Route>> {
    let config = listener.tunnel.clone().unwrap_or_default();
    let action = RegisterTunnels::build(&config, Callers::Anybody, &at.key("tunnel"), problems)?;
    let action = Action::RegisterTunnels(Box::new(action));
    let route = Route { name: Arc::default(), listeners: Box::default(), filters: Vec::new(), action };
    (listener.protocol == Protocol::Tunnel).then(|| Box::new(route))
}

/// RFC 9113 section 6.9.1: the largest window.
const LARGEST_WINDOW: u64 = (1 << 31) - 1;

fn check_http2(http2: &ListenerHttp2, at: &At, problems: &mut Problems) -> Http2Policy {
    let mut window = |key: &str, size: Option<ByteSize>, default: u32| match size {
        None => default,
        Some(ByteSize(size @ 65_535..=LARGEST_WINDOW)) => u32::try_from(size).unwrap_or(default),
        Some(_) => {
            problems.add(&at.key(key), "a window holds 65535 bytes (64KiB less one) to 2 GiB less one");
            default
        }
    };
    let stream_window = window("stream_window", http2.stream_window, 256 * 1024);
    let connection_window = window("connection_window", http2.connection_window, 1024 * 1024);
    let max_age = http2.max_age.map_or(Duration::from_secs(3600), |period| period.0);
    if max_age.is_zero() {
        problems.add(&at.key("max_age"), "a connection that may not live carries nothing");
    }
    let max_streams = http2.max_streams.map_or(128, |streams| u32::from(streams.get()));
    Http2Policy { max_streams, stream_window, connection_window, max_age }
}

fn check_proxy_protocol(
    config: &ProxyProtocol,
    at: &At,
    problems: &mut Problems,
) -> Option<model::ProxyProtocol> {
    if config.from.is_empty() {
        problems
            .add(&at.key("from"), "nobody could send a PROXY header")
            .hint("name the proxies: from = [\"10.0.0.0/8\"]");
        return None;
    }
    let timeout = config.timeout.map_or(Duration::from_secs(3), |period| period.0);
    if timeout.is_zero() {
        problems.add(&at.key("timeout"), "a time of zero would refuse every connection");
        return None;
    }
    let missing = if config.required { Missing::Refused } else { Missing::Accepted };
    Some(model::ProxyProtocol { from: config.from.clone(), missing, timeout })
}

/// What UDP can carry over IPv6, which is more than over IPv4.
const LONGEST_DATAGRAM: usize = 65_527;

/// In seconds.
fn default_idle(protocol: Protocol) -> u64 {
    match protocol {
        Protocol::Http | Protocol::Tunnel => 60,
        Protocol::Tcp | Protocol::Socks5 => 600,
        Protocol::Udp => 30,
    }
}

/// What is spoken inside TLS.
fn spoken(protocol: Protocol) -> Spoken {
    match protocol {
        Protocol::Http => Spoken::Http,
        Protocol::Tcp | Protocol::Udp | Protocol::Socks5 | Protocol::Tunnel => Spoken::Bytes,
    }
}

fn check_place(listener: &Listener, at: &At, problems: &mut Problems) -> Option<Place> {
    let address = problems.take(&at.key("address"), parse_address(&listener.address))?;
    let transport = match listener.protocol {
        Protocol::Http | Protocol::Tcp | Protocol::Socks5 | Protocol::Tunnel => Transport::Stream,
        Protocol::Udp => Transport::Datagram,
    };
    if transport == Transport::Datagram && address.inet().is_none() {
        problems.add(&at.key("address"), "a UDP listener has an address with a port");
        return None;
    }
    let http = listener.protocol == Protocol::Http;
    for (key, unfit) in [
        ("trusted_proxies", !http && !listener.trusted_proxies.is_empty()),
        ("proxy_protocol", listener.protocol == Protocol::Udp && listener.proxy_protocol.is_some()),
        ("tls", listener.protocol == Protocol::Udp && listener.tls.is_some()),
        ("tunnel", listener.protocol != Protocol::Tunnel && listener.tunnel.is_some()),
    ] {
        if unfit {
            let word = listener.protocol.word();
            problems.add(&at.key(key), format!("`{key}` means nothing to a listener of protocol \"{word}\""));
        }
    }
    Some(Place { transport, address })
}

/// "0660": who may connect to a Unix socket.
fn check_mode(listener: &Listener, at: &At, problems: &mut Problems) -> Option<u32> {
    let (at, text) = (at.key("mode"), listener.mode.as_ref()?);
    if !listener.address.starts_with("unix:") {
        problems.add(&at, "only a Unix socket has a mode");
        return None;
    }
    let digits = (3..=4).contains(&text.len()).then(|| u32::from_str_radix(text, 8).ok()).flatten();
    if digits.is_none_or(|mode| mode > 0o777) {
        problems
            .add(&at, format!("`{text}` is not a mode"))
            .hint("three octal digits, as chmod takes them: \"0660\"");
        return None;
    }
    digits
}

/// "127.0.0.1:80", "[::1]:80", ":80" for every IPv4 address, or "unix:/path".
fn parse_address(text: &str) -> Result<Address, String> {
    if let Some(unix) = Address::unix(text) {
        return unix;
    }
    parse_inet(text).map(Address::Inet)
}

fn parse_inet(text: &str) -> Result<SocketAddr, String> {
    if let Some(port) = text.strip_prefix(':')
        && let Ok(port) = port.parse()
    {
        return Ok(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)));
    }
    text.parse().map_err(|_| {
        format!(
            "`{text}` is not an address with a port; write \"127.0.0.1:8080\", \"[::]:8080\", \":8080\" or \"unix:/run/sluice.sock\""
        )
    })
}

fn check_upstreams(document: &Document, problems: &mut Problems) -> Vec<(Arc<str>, Policy)> {
    let at = At::root().key("upstreams");
    let mut upstreams: Vec<_> = (document.upstreams.iter())
        .filter_map(|(name, config)| Some((Arc::from(name.as_str()), config.check(&at.key(name), problems)?)))
        .collect();
    if document.routes.iter().any(|route| route.tunnel.is_some()) {
        upstreams.extend(discovery::all(problems).map(|all| (Arc::from(ALL_TUNNELS), all)));
    }
    upstreams
}

/// The upstream behind the action `tunnel`, where upstreams are named.
const ALL_TUNNELS: &str = "(tunnels)";

/// The tables of HTTP requests and of CONNECT, and the routes of connections and flows.
fn check_matches(document: &Document, problems: &mut Problems) -> ((Table, Option<Table>), Streams) {
    let at = At::root().key("routes");
    let mut names: HashMap<&str, usize> = HashMap::new();
    let (mut specs, mut streams) = (Vec::with_capacity(document.routes.len()), Vec::new());
    for (index, route) in document.routes.iter().enumerate() {
        let at = at.index(index);
        if route.name.is_empty() || route.name.bytes().any(|byte| byte < 0x20) {
            problems.add(&at.key("name"), "a route needs a name that can be printed");
        }
        if let Some(other) = names.insert(&route.name, index) {
            problems
                .add(&at.key("name"), format!("route {} has the name `{}` already", other + 1, route.name));
        }
        let expires =
            route.expires.as_ref().and_then(|text| problems.take(&at.key("expires"), parse_time(text)));
        let kind = streams::check(document, route, &at, problems);
        if kind == Kind::Streams {
            streams.push(index);
        }
        specs.push(RouteSpec {
            name: &route.name,
            matches: &route.matches,
            priority: route.priority,
            enabled: route.enabled,
            expires,
            at,
        });
    }
    let listeners: Vec<&str> = document.listeners.keys().map(String::as_str).collect();
    // Sound routes only: what is wrong with one is said once, by the table of all.
    let before = problems.iter().len();
    let mut requests = specs.clone();
    streams.iter().for_each(|&index| requests[index].enabled = false);
    let table = Table::build(&requests, &listeners, problems);
    if problems.iter().len() > before {
        streams.clear();
    }
    let streams = Streams::build(&specs, streams, &listeners, problems);
    ((table, connect_table(document, requests, &listeners)), streams)
}

/// The routes that CONNECT may take, if there are any. What is wrong with them is known from the table of all.
fn connect_table(document: &Document, mut specs: Vec<RouteSpec<'_>>, listeners: &[&str]) -> Option<Table> {
    let mut proxies = false;
    for (spec, route) in specs.iter_mut().zip(&document.routes) {
        proxies |= route.forward_proxy.is_some();
        spec.enabled &= route.forward_proxy.is_some();
    }
    proxies.then(|| Table::build(&specs, listeners, &mut Problems::new()))
}

fn check_route(route: &RouteDocument, known: &Known<'_>, at: &At, problems: &mut Problems) -> Option<Route> {
    let filters = filter::build_all(&route.filters, known, &at.key("filters"), problems);
    let action = check_action(route, known, at, problems)?;
    let listeners = route.matches.listeners.clone().into();
    Some(Route { name: Arc::from(route.name.as_str()), listeners, filters, action })
}

fn check_action(
    route: &RouteDocument,
    Known { consumers, upstreams, directories }: &Known<'_>,
    at: &At,
    problems: &mut Problems,
) -> Option<Action> {
    let actions = [
        route.forward.is_some(),
        route.respond.is_some(),
        route.redirect.is_some(),
        route.token.is_some(),
        route.forward_proxy.is_some(),
        route.tunnel.is_some(),
        route.register_tunnels.is_some(),
    ];
    match actions.iter().filter(|written| **written).count() {
        1 => {}
        0 => {
            problems.add(at, format!("route `{}` does nothing", route.name)).hint(
                "give it exactly one action: forward, respond, redirect, token, forward_proxy, tunnel or register_tunnels",
            );
            return None;
        }
        _ => {
            problems
                .add(at, format!("route `{}` has more than one action", route.name))
                .hint("keep exactly one of forward, respond, redirect, token, forward_proxy, tunnel and register_tunnels");
            return None;
        }
    }
    if let Some(config) = &route.forward {
        return config.check(upstreams, &at.key("forward"), problems).map(Action::Forward);
    }
    if let Some(config) = &route.respond {
        return Respond::build(config, &at.key("respond"), problems).map(Action::Respond);
    }
    if let Some(config) = &route.redirect {
        return Redirect::build(config, &at.key("redirect"), problems).map(Action::Redirect);
    }
    if let Some(config) = &route.token {
        let asks = match consumers.has_keys() || !consumers.users().is_empty() {
            true => Asks::Somebody,
            false => Asks::Nobody,
        };
        let token = config.check(asks, directories, &at.key("token"), problems);
        return token.map(|token| Action::Token(Box::new(token)));
    }
    if let Some(config) = &route.tunnel {
        // Behind the upstreams that are written stands the one of all tunnels.
        return config.check(upstreams.len(), &at.key("tunnel"), problems).map(Action::Tunnel);
    }
    if let Some(config) = &route.register_tunnels {
        let callers = match filter::tell_callers(&route.filters) {
            true => Callers::Known,
            false => Callers::Anybody,
        };
        let built = RegisterTunnels::build(config, callers, &at.key("register_tunnels"), problems);
        return built.map(|register| Action::RegisterTunnels(Box::new(register)));
    }
    let config = route.forward_proxy.as_ref()?;
    let checked = config.check(&at.key("forward_proxy"), problems)?;
    Some(Action::ForwardProxy(Box::new(checked)))
}
