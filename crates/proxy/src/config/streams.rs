//! Routes of TCP and UDP listeners: which they are, and what they cannot ask for.

use super::document::{Document, Protocol, Route};
use crate::action::forward::HostConfig;
use crate::problem::{At, Problems};

/// What a route is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// HTTP requests.
    Requests,
    /// Connections or flows of bytes.
    Streams,
}

/// Which kind a route is: that of the listeners it names; requests when it names none. What does not fit
/// its kind is a problem.
pub(super) fn check(document: &Document, route: &Route, at: &At, problems: &mut Problems) -> Kind {
    let protocol = |name: &String| document.listeners.get(name).map(|listener| listener.protocol);
    let protocols: Vec<Protocol> = route.matches.listeners.iter().filter_map(protocol).collect();
    let streams = protocols.iter().filter(|&&protocol| protocol != Protocol::Http).count();
    if streams == 0 {
        if !route.matches.sni.is_empty() {
            problems
                .add(&at.key("match").key("sni"), "`sni` is asked of connections of TCP listeners only")
                .hint("name them: listeners = [\"db\"]; for HTTP write hosts");
        }
        return Kind::Requests;
    }
    if streams < protocols.len() {
        problems
            .add(&at.key("match").key("listeners"), "these listeners speak HTTP and something else")
            .hint("write one route for each kind");
    }
    if !route.matches.sni.is_empty() && protocols.contains(&Protocol::Udp) {
        problems.add(&at.key("match").key("sni"), "datagrams carry no server name");
    }
    check_match(route, &at.key("match"), problems);
    check_actions(route, at, problems);
    Kind::Streams
}

fn check_match(route: &Route, at: &At, problems: &mut Problems) {
    let from = &route.matches;
    for (key, written) in [
        ("hosts", !from.hosts.is_empty()),
        ("path", from.path.is_some()),
        ("path_prefix", from.path_prefix.is_some()),
        ("path_regex", from.path_regex.is_some()),
        ("location", from.location.is_some()),
        ("methods", !from.methods.is_empty()),
        ("headers", !from.headers.is_empty()),
        ("query", !from.query.is_empty()),
        ("cookies", !from.cookies.is_empty()),
    ] {
        if written {
            let hint = match key {
                "hosts" => "sni is the name a TLS client asks for: sni = [\"db.example\"]",
                _ => "a route of a TCP or UDP listener asks for listeners, sni, source and when",
            };
            problems.add(&at.key(key), format!("`{key}` is known of HTTP requests only")).hint(hint);
        }
    }
}

fn check_actions(route: &Route, at: &At, problems: &mut Problems) {
    if !route.filters.is_empty() {
        problems
            .add(&at.key("filters"), "filters work on HTTP requests only")
            .hint("who may connect can be said by the route: match = { source = [\"10.0.0.0/8\"] }");
    }
    for (key, written) in [
        ("respond", route.respond.is_some()),
        ("redirect", route.redirect.is_some()),
        ("forward_proxy", route.forward_proxy.is_some()),
    ] {
        if written {
            problems
                .add(&at.key(key), "a connection can only be forwarded")
                .hint("forward = { upstream = \"...\" }");
        }
    }
    let Some(forward) = &route.forward else { return };
    let at = at.key("forward");
    for (key, written) in [
        ("host", forward.host != HostConfig::Preserve),
        ("upgrade", forward.upgrade),
        ("retry", !forward.retry.statuses.is_empty() || forward.retry.non_idempotent),
    ] {
        if written {
            problems.add(&at.key(key), format!("`{key}` speaks of HTTP requests; a connection has none"));
        }
    }
}
