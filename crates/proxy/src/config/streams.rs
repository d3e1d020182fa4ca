//! Routes of TCP and UDP listeners: which they are, and what they cannot ask for.

use super::document::{Document, Protocol, Route};
use crate::action::forward::HostConfig;
use crate::filter::Carries;
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
    let streams =
        protocols.iter().filter(|protocol| matches!(protocol, Protocol::Tcp | Protocol::Udp)).count();
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
    check_filters(route, protocols.contains(&Protocol::Udp), at, problems);
    check_actions(document, route, at, problems);
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

fn check_filters(route: &Route, datagrams: bool, at: &At, problems: &mut Problems) {
    for (filter, index) in route.filters.iter().zip(0..) {
        let at = at.key("filters").index(index).key(filter.name());
        match filter.carries() {
            Carries::Flows => {}
            Carries::Connections if !datagrams => {}
            Carries::Connections => {
                problems.add(&at, "as it is set here this filter may have to wait, which datagrams cannot");
            }
            Carries::Requests => {
                problems
                    .add(&at, "this filter works on HTTP requests only")
                    .hint("who may connect is said by ip_access");
            }
        }
    }
}

fn check_actions(document: &Document, route: &Route, at: &At, problems: &mut Problems) {
    for (key, written) in [
        ("respond", route.respond.is_some()),
        ("redirect", route.redirect.is_some()),
        ("token", route.token.is_some()),
        ("forward_proxy", route.forward_proxy.is_some()),
        ("tunnel", route.tunnel.is_some()),
        ("register_tunnels", route.register_tunnels.is_some()),
    ] {
        if written {
            problems
                .add(&at.key(key), "a connection can only be forwarded")
                .hint("forward = { upstream = \"...\" }");
        }
    }
    let Some(forward) = &route.forward else { return };
    let at = at.key("forward");
    if document.upstreams.get(&forward.upstream).is_some_and(|upstream| upstream.discovery.is_some()) {
        problems.add(
            &at.key("upstream"),
            "a tunnel carries HTTP requests; connections and datagrams it does not",
        );
    }
    for (key, written) in [
        ("host", forward.host != HostConfig::Preserve),
        ("upgrade", forward.upgrade),
        ("fallback", forward.fallback.as_ref().is_some_and(|fallback| fallback.respond.is_some())),
        ("retry", !forward.retry.statuses.is_empty() || forward.retry.non_idempotent),
    ] {
        if written {
            problems.add(&at.key(key), format!("`{key}` speaks of HTTP requests; a connection has none"));
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::config::check::check;
    use crate::config::document::Document;

    const BASE: &str = "[listeners.web]\naddress = ':8080'\n[listeners.db]\naddress = ':3306'\nprotocol = 'tcp'\n\
                        [listeners.dns]\naddress = ':53'\nprotocol = 'udp'\n\
                        [upstreams.u]\nendpoints = ['127.0.0.1:1']\n";

    /// The places of the problems of a document with these routes.
    fn problems(routes: &str) -> Vec<String> {
        let document: Document = toml_edit::de::from_str(&format!("{BASE}{routes}")).unwrap();
        let problems = check(&document).err().unwrap_or_default();
        problems.iter().map(|problem| problem.at.to_string()).collect()
    }

    fn route(name: &str, matches: &str, rest: &str) -> String {
        format!("[[routes]]\nname = '{name}'\nmatch = {{ {matches} }}\n{rest}\n")
    }

    const FORWARD: &str = "forward = { upstream = 'u' }";

    #[test]
    fn a_connection_can_be_asked_for_its_name_and_source_alone() {
        for fine in
            ["listeners = ['db']", "listeners = ['db', 'dns'], source = ['10.0.0.0/8'], when = 'true'"]
        {
            assert_eq!(problems(&route("r", fine, FORWARD)), [""; 0], "{fine}");
        }
        for (matches, place) in [
            ("hosts = ['a']", "hosts"),
            ("path = '/'", "path"),
            ("path_prefix = '/'", "path_prefix"),
            ("path_regex = 'x'", "path_regex"),
            ("location = '/'", "location"),
            ("methods = ['GET']", "methods"),
            ("headers = { a = '1' }", "headers"),
            ("query = { a = '1' }", "query"),
            ("cookies = { a = '1' }", "cookies"),
        ] {
            let matches = format!("listeners = ['db'], {matches}");
            assert_eq!(problems(&route("r", &matches, FORWARD)), [format!("routes[0].match.{place}")]);
        }
        for (matches, place) in [
            ("sni = ['a.example']", "sni"),
            ("listeners = ['web'], sni = ['a.example']", "sni"),
            ("listeners = ['dns'], sni = ['a.example']", "sni"),
            ("listeners = ['web', 'db']", "listeners"),
            ("listeners = ['db'], sni = ['a b']", "sni[0]"),
        ] {
            assert_eq!(
                problems(&route("r", matches, FORWARD)),
                [format!("routes[0].match.{place}")],
                "{matches}"
            );
        }
    }

    #[test]
    fn a_connection_goes_through_no_tunnel() {
        let tunnel = "[upstreams.t]\ndiscovery = { tunnel = 'x' }\n";
        let rest = format!("forward = {{ upstream = 't' }}\n{tunnel}");
        let found = problems(&route("r", "listeners = ['db']", &rest));
        assert_eq!(found, ["routes[0].forward.upstream"]);
        assert_eq!(problems(&route("r", "listeners = ['web']", &rest)), [""; 0]);
    }

    #[test]
    fn a_connection_can_only_be_forwarded() {
        for (rest, place) in [
            ("respond = {}", "respond"),
            ("redirect = { to = '/' }", "redirect"),
            ("forward = { upstream = 'u', upgrade = true }", "forward.upgrade"),
            ("forward = { upstream = 'u', host = 'endpoint' }", "forward.host"),
            ("forward = { upstream = 'u', retry = { statuses = [503] } }", "forward.retry"),
            (
                "filters = [{ rewrite = { strip_prefix = '/a' } }]\nforward = { upstream = 'u' }",
                "filters[0].rewrite",
            ),
        ] {
            assert_eq!(problems(&route("r", "listeners = ['db']", rest)), [format!("routes[0].{place}")]);
        }
    }

    #[test]
    fn ties_are_found_within_a_kind_only() {
        let (web, db) = (route("web", "", FORWARD), route("db", "listeners = ['db']", FORWARD));
        assert_eq!(problems(&format!("{web}{db}")), [""; 0]);
        let named = |name: &str| route(name, "listeners = ['db'], sni = ['a.example']", FORWARD);
        assert_eq!(problems(&format!("{web}{db}{}", named("a"))), [""; 0]);
        assert_eq!(problems(&format!("{web}{}{}", named("a"), named("b"))).len(), 1);
    }

    #[test]
    fn what_a_listener_cannot_use_is_a_problem() {
        for (listener, place) in [
            ("address = 'unix:relative'", "address"),
            ("address = 'unix:/run/s'\nprotocol = 'udp'", "address"),
            ("address = ':1'\nmode = '0600'", "mode"),
            ("address = 'unix:/run/s'\nmode = '9'", "mode"),
            ("address = 'unix:/run/s'\nmode = '07777'", "mode"),
            ("address = ':1'\nprotocol = 'tcp'\ntrusted_proxies = ['10.0.0.0/8']", "trusted_proxies"),
            (
                "address = ':1'\nprotocol = 'udp'\nproxy_protocol = { from = ['10.0.0.0/8'] }",
                "proxy_protocol",
            ),
            ("address = ':1'\nproxy_protocol = { from = [] }", "proxy_protocol.from"),
            ("address = ':1'\nproxy_protocol = { from = ['::1'], timeout = '0s' }", "proxy_protocol.timeout"),
        ] {
            let found = problems(&format!("[listeners.x]\n{listener}\n"));
            assert_eq!(found, [format!("listeners.x.{place}")], "{listener}");
        }
        assert_eq!(problems("[listeners.x]\naddress = 'unix:/run/s'\nmode = '0660'\n"), [""; 0]);
        assert_eq!(
            problems("[listeners.x]\naddress = ':53'\n"),
            [""; 0],
            "UDP and TCP have ports of their own"
        );
    }
}
