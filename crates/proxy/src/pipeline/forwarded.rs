//! What peers say about the client, and what endpoints are told: X-Forwarded-*, Forwarded, Via, X-Request-Id.
//!
//! Promise: the word of a peer that is not trusted changes nothing: not the client's address, not the scheme,
//! not the request id, and none of it reaches an endpoint. The word of a trusted peer is kept and ours added.
//!
//! The client's address is found from the right: the peer, then what each trusted proxy says about the one
//! before it; the first address that is no trusted proxy's is the client's. Something that is no address ends
//! the walk at the address found before it.

use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};

use sluice_http::{FieldName, Fields, NameId, RequestHead, ResponseHead, Version, host_of};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::exchange::Exchange;
use crate::facts::Scheme;
use crate::request_id;
use crate::value::Network;

/// Our name in Via and Proxy-Status.
pub const PSEUDONYM: &str = "sluice";

/// What is told to endpoints about the client.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct Forwarded {
    /// X-Forwarded-For, -Proto, -Host and -Port. Default true.
    pub x_forwarded: bool,
    /// Forwarded (RFC 7239). Default false.
    pub rfc7239: bool,
    /// Via. Default true.
    pub via: bool,
    /// X-Request-Id, to the endpoint and back to the client. Default true.
    pub request_id: bool,
    /// Client-Cert (RFC 9440): the certificate that the client has proved on this listener; it needs
    /// `client_auth`. Default false.
    pub client_certificate: bool,
}

impl Default for Forwarded {
    fn default() -> Self {
        Forwarded {
            x_forwarded: true,
            rfc7239: false,
            via: true,
            request_id: true,
            client_certificate: false,
        }
    }
}

/// Whom a listener trusts, and what it tells endpoints.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    /// Peers whose X-Forwarded-*, Forwarded and X-Request-Id are believed.
    pub trusted: Vec<Network>,
    /// What is told to endpoints. Which list is believed follows from it: Forwarded when only that is told,
    /// otherwise X-Forwarded-For (and Forwarded when both are told and X-Forwarded-For is missing). A proxy
    /// that writes one of them passes the other one on as the client forged it.
    pub forwarded: Forwarded,
    /// Whether the listener asks clients for certificates: then nobody else's word about them counts.
    pub asks_clients: bool,
}

impl Policy {
    /// Whether this peer's word counts.
    pub fn trusts(&self, address: IpAddr) -> bool {
        self.trusted.iter().any(|network| network.contains(address))
    }
}

/// The client's address and scheme: the connection's own, or what a chain of trusted proxies says.
pub fn client(peer: SocketAddr, scheme: Scheme, head: &RequestHead, policy: &Policy) -> (IpAddr, Scheme) {
    let address = peer.ip().to_canonical();
    if !policy.trusts(address) {
        return (address, scheme);
    }
    let Forwarded { x_forwarded, rfc7239, .. } = policy.forwarded;
    let x_listed = head.fields.contains(NameId::XForwardedFor);
    if rfc7239 && !(x_forwarded && x_listed) {
        let (said, proto) = walk(forwarded_elements(&head.fields), policy);
        return (said.unwrap_or(address), proto.unwrap_or(scheme));
    }
    let entries = list(&head.fields, NameId::XForwardedFor).map(|entry| (address_of(entry), None));
    let (said, _) = walk(entries, policy);
    // The last one is the nearest proxy's word.
    let proto = list(&head.fields, NameId::XForwardedProto).last().and_then(scheme_of);
    (said.unwrap_or(address), proto.unwrap_or(scheme))
}

/// The request id that a trusted peer gave, if it is one.
pub fn request_id<'a>(peer: SocketAddr, head: &'a RequestHead, policy: &Policy) -> Option<&'a str> {
    let received = head.fields.get(NameId::XRequestId)?;
    policy.trusts(peer.ip()).then(|| request_id::accepted(received)).flatten()
}

type Said = (Option<IpAddr>, Option<Scheme>);

/// What a walk from the right finds, in one pass from the left: each entry is what the walk would find if it
/// started there. No address: the walk would end before this entry.
fn walk(entries: impl Iterator<Item = Said>, policy: &Policy) -> Said {
    entries.fold((None, None), |before, entry| match entry.0 {
        Some(address) if before.0.is_some() && policy.trusts(address) => before,
        _ => entry,
    })
}

fn list(fields: &Fields, name: NameId) -> impl Iterator<Item = &str> {
    let lines = fields.get_all(name).map(|line| std::str::from_utf8(line).unwrap_or("?"));
    lines.flat_map(|line| line.split(',')).map(str::trim).filter(|entry| !entry.is_empty())
}

/// An address, with or without brackets and port.
fn address_of(text: &str) -> Option<IpAddr> {
    let bare = match text.strip_prefix('[') {
        Some(bracketed) => bracketed.split_once(']').filter(|(_, port)| is_port(port))?.0,
        None => match text.split_once(':') {
            Some((v4, port)) if !port.contains(':') => Some(v4).filter(|_| is_port(&text[v4.len()..]))?,
            _ => text,
        },
    };
    bare.parse().ok().map(|address: IpAddr| address.to_canonical())
}

/// Nothing, or ":" with digits or an obfuscated port (RFC 7239 section 6: "_" and a token).
fn is_port(text: &str) -> bool {
    let Some(port) = text.strip_prefix(':') else { return text.is_empty() };
    port.starts_with('_') || (!port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()))
}

fn scheme_of(text: &str) -> Option<Scheme> {
    match text {
        _ if text.eq_ignore_ascii_case("https") || text.eq_ignore_ascii_case("wss") => Some(Scheme::Https),
        _ if text.eq_ignore_ascii_case("http") || text.eq_ignore_ascii_case("ws") => Some(Scheme::Http),
        _ => None,
    }
}

/// The elements of Forwarded (RFC 7239 section 4): their `for` and their `proto`.
fn forwarded_elements(fields: &Fields) -> impl Iterator<Item = Said> {
    let lines = fields.get_all(NameId::Forwarded).map(|line| std::str::from_utf8(line).unwrap_or("?"));
    lines.flat_map(|line| split_unquoted(line, b',')).filter(|element| !element.is_empty()).map(element)
}

fn element(text: &str) -> Said {
    let mut said = (None, None);
    for (key, value) in split_unquoted(text, b';').filter_map(|pair| pair.split_once('=')) {
        // A backslash inside a quoted address or scheme is nothing anybody writes: it makes them garbage.
        let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value);
        if key.eq_ignore_ascii_case("for") {
            said.0 = address_of(value);
        } else if key.eq_ignore_ascii_case("proto") {
            said.1 = scheme_of(value);
        }
    }
    said
}

/// The parts between separators that do not stand in quotes, without the spaces around them.
fn split_unquoted(text: &str, separator: u8) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest?;
        let (mut quoted, mut escaped) = (false, false);
        let end = text.bytes().position(|byte| {
            let plain = !escaped;
            escaped = plain && quoted && byte == b'\\';
            quoted ^= plain && byte == b'"';
            !quoted && byte == separator
        });
        rest = end.map(|end| &text[end + 1..]);
        Some(text[..end.unwrap_or(text.len())].trim())
    })
}

/// Writes what the endpoint is told into a request's fields, as the listener's policy says. To be called
/// before anything changes the request's authority, and once for an exchange.
pub fn apply(head: &mut RequestHead, exchange: &Exchange, policy: &Policy) {
    let peer = exchange.client.peer.ip().to_canonical();
    if !policy.trusts(peer) {
        head.fields.retain(|id, name, _| !speaks_of_client(id, name));
    } else if policy.asks_clients {
        head.fields.retain(|_, name, _| !speaks_of_certificate(name));
    }
    if policy.forwarded.client_certificate {
        apply_client_cert(head, exchange);
    }
    // One buffer for everything that is not already bytes somewhere.
    let mut text = String::with_capacity(128);
    if policy.forwarded.x_forwarded {
        apply_x_forwarded(head, exchange, peer, &mut text);
    }
    if policy.forwarded.rfc7239 {
        text.clear();
        push_element(head, exchange, peer, &mut text);
        extend(&mut head.fields, NameId::Forwarded, &text);
    }
    if policy.forwarded.via {
        let entry: &[u8] = match head.version {
            Version::Http10 => b"1.0 sluice",
            Version::Http11 => b"1.1 sluice",
            Version::Http2 => b"2 sluice",
        };
        head.fields.append(NameId::Via, entry);
    }
    if policy.forwarded.request_id {
        head.fields.set(NameId::XRequestId, exchange.request_id.as_bytes());
    }
}

/// Removes what speaks of the client, whoever wrote it: for destinations that are not ours.
pub fn say_nothing_of_client(head: &mut RequestHead) {
    head.fields.retain(|id, name, _| !speaks_of_client(id, name));
}

/// Writes the request id into the fields of an answer, as the listener's policy says.
pub fn apply_to_answer(head: &mut ResponseHead, exchange: &Exchange, policy: &Policy) {
    if policy.forwarded.request_id {
        head.fields.set(NameId::XRequestId, exchange.request_id.as_bytes());
    }
}

/// Whether endpoints may take this field for our word about the client. `X_Forwarded_For` is one too: CGI and
/// its heirs make the same variable of both spellings.
fn speaks_of_client(id: NameId, name: &[u8]) -> bool {
    const PREFIX: &[u8] = b"x-forwarded-";
    match id {
        NameId::Forwarded
        | NameId::XForwardedFor
        | NameId::XForwardedHost
        | NameId::XForwardedPort
        | NameId::XForwardedProto
        | NameId::XRealIp => true,
        NameId::Other => {
            let starts =
                name.len() > PREFIX.len() && name.iter().map(dashed).zip(PREFIX).all(|(a, b)| a == *b);
            starts || same(name, b"x-real-ip") || speaks_of_certificate(name)
        }
        _ => false,
    }
}

/// Whether endpoints may take this field for our word about the client's certificate (RFC 9440 section 2).
fn speaks_of_certificate(name: &[u8]) -> bool {
    same(name, b"client-cert") || same(name, b"client-cert-chain")
}

/// Whether a name is this one in lower case, underscores counting as dashes.
fn same(name: &[u8], known: &[u8]) -> bool {
    name.len() == known.len() && name.iter().map(dashed).eq(known.iter().copied())
}

fn dashed(byte: &u8) -> u8 {
    if *byte == b'_' { b'-' } else { byte.to_ascii_lowercase() }
}

fn apply_client_cert(head: &mut RequestHead, exchange: &Exchange) {
    let client = exchange.client.tls.as_ref().and_then(|secured| secured.client.as_ref());
    if let (Some(client), Some(name)) = (client, FieldName::new("Client-Cert")) {
        head.fields.set(&name, client.client_cert().as_bytes());
    }
}

fn apply_x_forwarded(head: &mut RequestHead, exchange: &Exchange, peer: IpAddr, text: &mut String) {
    push_address(text, peer);
    extend(&mut head.fields, NameId::XForwardedFor, text);
    let scheme = exchange.client.scheme;
    // What is here now is a trusted proxy's word about the client's own request: it stays.
    if !head.fields.contains(NameId::XForwardedProto) {
        head.fields.append(NameId::XForwardedProto, scheme.text().as_bytes());
    }
    text.clear();
    text.push_str(head.authority());
    if !text.is_empty() && !head.fields.contains(NameId::XForwardedHost) {
        head.fields.append(NameId::XForwardedHost, text.as_bytes());
    }
    if !head.fields.contains(NameId::XForwardedPort) {
        let port = text[host_of(text).len()..].strip_prefix(':').filter(|port| !port.is_empty());
        let default = match scheme {
            Scheme::Http => "80",
            Scheme::Https => "443",
        };
        head.fields.append(NameId::XForwardedPort, port.unwrap_or(default).as_bytes());
    }
}

/// Adds an entry to a list that stands in one or more lines; afterwards it stands in one.
fn extend(fields: &mut Fields, name: NameId, entry: &str) {
    if !fields.contains(name) {
        return fields.append(name, entry.as_bytes());
    }
    let mut joined = Vec::with_capacity(64);
    for line in fields.get_all(name).filter(|line| !line.trim_ascii().is_empty()) {
        joined.extend_from_slice(line);
        joined.extend_from_slice(b", ");
    }
    joined.extend_from_slice(entry.as_bytes());
    fields.set(name, &joined);
}

/// Our element of Forwarded: `for=192.0.2.7;host="shop.example:81";proto=http`.
fn push_element(head: &RequestHead, exchange: &Exchange, peer: IpAddr, text: &mut String) {
    text.push_str("for=");
    match peer {
        IpAddr::V4(_) => push_address(text, peer),
        IpAddr::V6(address) => _ = write!(text, "\"[{address}]\""),
    }
    let host = head.authority();
    if !host.is_empty() {
        text.push_str(";host=");
        match host.bytes().all(sluice_http::name::is_token) {
            true => text.push_str(host),
            false => push_quoted(text, host),
        }
    }
    text.push_str(";proto=");
    text.push_str(exchange.client.scheme.text());
}

fn push_quoted(text: &mut String, value: &str) {
    text.push('"');
    for c in value.chars() {
        if matches!(c, '"' | '\\') {
            text.push('\\');
        }
        text.push(c);
    }
    text.push('"');
}

/// Writes an address; IPv4, the usual case, digit by digit: the formatting machinery costs three times that.
fn push_address(text: &mut String, address: IpAddr) {
    let IpAddr::V4(address) = address else {
        _ = write!(text, "{address}");
        return;
    };
    for (index, octet) in address.octets().into_iter().enumerate() {
        if index > 0 {
            text.push('.');
        }
        if octet >= 100 {
            text.push((b'0' + octet / 100) as char);
        }
        if octet >= 10 {
            text.push((b'0' + octet / 10 % 10) as char);
        }
        text.push((b'0' + octet % 10) as char);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filter::fixture::{exchange, name, request, values};
    use crate::tls::Secured;
    use proptest::prelude::*;
    use std::sync::Arc;

    fn policy(x_forwarded: bool, rfc7239: bool) -> Policy {
        let trusted = ["10.0.0.0/8", "2001:db8::/32"].map(|text| text.parse().unwrap());
        let forwarded = Forwarded { x_forwarded, rfc7239, ..Default::default() };
        Policy { trusted: trusted.into(), forwarded, asks_clients: false }
    }

    fn head(fields: &[(&str, &str)]) -> RequestHead {
        let mut head = request("GET", "/").head;
        for (field, value) in fields {
            head.fields.append(&name(field), value.as_bytes());
        }
        head
    }

    fn said(peer: &str, policy: &Policy, fields: &[(&str, &str)]) -> (String, Scheme) {
        let peer = SocketAddr::new(peer.parse().unwrap(), 4711);
        let (address, scheme) = client(peer, Scheme::Http, &head(fields), policy);
        (address.to_string(), scheme)
    }

    #[test]
    fn an_untrusted_peer_is_the_client_whatever_it_says() {
        let forged = [
            ("X-Forwarded-For", "198.51.100.1"),
            ("Forwarded", "for=198.51.100.1;proto=https"),
            ("X-Forwarded-Proto", "https"),
        ];
        for policy in [policy(true, false), policy(false, true), policy(true, true), Policy::default()] {
            assert_eq!(said("192.0.2.7", &policy, &forged), ("192.0.2.7".to_owned(), Scheme::Http));
            assert_eq!(said("::ffff:192.0.2.7", &policy, &forged).0, "192.0.2.7");
        }
    }

    #[test]
    fn the_client_is_the_first_untrusted_address_from_the_right() {
        for (list, client) in [
            ("192.0.2.7", "192.0.2.7"),
            ("198.51.100.1, 192.0.2.7", "192.0.2.7"),
            ("198.51.100.1, 192.0.2.7, 10.1.1.1,10.2.2.2 ", "192.0.2.7"),
            ("10.3.3.3, 10.1.1.1", "10.3.3.3"),
            ("198.51.100.1, nonsense, 10.1.1.1", "10.1.1.1"),
            ("198.51.100.1, unknown", "10.0.0.1"),
            ("198.51.100.1, 192.0.2.7:80", "192.0.2.7"),
            ("[2001:db9::1]:80, 10.1.1.1:9", "2001:db9::1"),
            ("2001:db9::1, [2001:db8::7]", "2001:db9::1"),
            ("::ffff:192.0.2.7", "192.0.2.7"),
            ("192.0.2.7:x, 10.1.1.1", "10.1.1.1"),
            ("192.0.2.7,, ,", "192.0.2.7"),
            ("", "10.0.0.1"),
        ] {
            let found = said("10.0.0.1", &policy(true, false), &[("X-Forwarded-For", list)]);
            assert_eq!(found.0, client, "{list}");
        }
        let lines = [("X-Forwarded-For", "192.0.2.7"), ("X-Forwarded-For", "10.1.1.1")];
        assert_eq!(said("10.0.0.1", &policy(true, false), &lines).0, "192.0.2.7");
    }

    #[test]
    fn forwarded_is_read_with_its_quotes_and_brackets() {
        for (list, client, scheme) in [
            ("for=192.0.2.7;proto=https", "192.0.2.7", Scheme::Https),
            (
                "For=\"[2001:db9::1]:4711\" ; Proto=HTTPS, for=10.1.1.1;proto=http",
                "2001:db9::1",
                Scheme::Https,
            ),
            ("for=\"192.0.2.7:_gone\"", "192.0.2.7", Scheme::Http),
            ("for=198.51.100.1, for=_hidden;proto=https", "10.0.0.1", Scheme::Https),
            ("for=198.51.100.1, by=10.1.1.1", "10.0.0.1", Scheme::Http),
            ("host=\"a,for=198.51.100.1\\\",\";for=192.0.2.7", "192.0.2.7", Scheme::Http),
            ("for=\"198.51.100.1", "10.0.0.1", Scheme::Http),
        ] {
            let found = said("10.0.0.1", &policy(false, true), &[("Forwarded", list)]);
            assert_eq!(found, (client.to_owned(), scheme), "{list}");
        }
    }

    #[test]
    fn only_the_list_that_the_policy_names_is_believed() {
        let both = [("X-Forwarded-For", "192.0.2.1"), ("Forwarded", "for=192.0.2.2")];
        for (policy, client) in [
            (policy(true, false), "192.0.2.1"),
            (policy(false, false), "192.0.2.1"),
            (policy(true, true), "192.0.2.1"),
            (policy(false, true), "192.0.2.2"),
        ] {
            assert_eq!(said("10.0.0.1", &policy, &both).0, client, "{policy:?}");
        }
        assert_eq!(said("10.0.0.1", &policy(true, true), &both[1..]).0, "192.0.2.2");
        assert_eq!(said("10.0.0.1", &policy(true, false), &both[1..]).0, "10.0.0.1");
    }

    #[test]
    fn the_nearest_proxy_names_the_scheme() {
        for (value, scheme) in
            [("https", Scheme::Https), ("https, http", Scheme::Http), ("ftp", Scheme::Http)]
        {
            let fields = [("X-Forwarded-For", "192.0.2.7"), ("X-Forwarded-Proto", value)];
            assert_eq!(said("10.0.0.1", &policy(true, false), &fields).1, scheme, "{value}");
        }
    }

    #[test]
    fn nothing_forged_reaches_an_endpoint() {
        let forged = [
            ("X-Forwarded-For", "198.51.100.1"),
            ("X-FORWARDED-User", "root"),
            ("x_forwarded_for", "198.51.100.1"),
            ("X-Real-IP", "198.51.100.1"),
            ("Client-Cert", ":MAA=:"),
            ("client_cert_chain", ":MAA=:"),
            ("X_Real_IP", "198.51.100.1"),
            ("Forwarded", "for=198.51.100.1"),
            ("X-Forwarded-Host", "evil.example"),
            ("X-Request-Id", "forged"),
            ("X-Forwarded", "not-ours"),
        ];
        let mut head = head(&forged);
        apply(&mut head, &exchange("/"), &policy(true, false));
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let lines: Vec<String> =
            head.fields.iter().map(|(_, name, value)| format!("{}: {}", text(name), text(value))).collect();
        let expected = [
            "Host: shop.example",
            "X-Request-Id: r-1",
            "X-Forwarded: not-ours",
            "X-Forwarded-For: 192.0.2.7",
            "X-Forwarded-Proto: http",
            "X-Forwarded-Host: shop.example",
            "X-Forwarded-Port: 80",
            "Via: 1.1 sluice",
        ];
        assert_eq!(lines, expected);
    }

    #[test]
    fn the_certificate_a_client_has_proved_is_told_and_nobody_elses_word_about_it() {
        let identity = crate::tls::Identity::of(&vec![0x30, 0x00].into());
        let secured = Secured { client: Some(identity), ..Secured::default() };
        let forged = [("client_cert", ":MAA=:"), ("Client-Cert-Chain", ":MAA=:"), ("X-Kept", "1")];
        let told = |peer: &str, asks_clients, client_certificate, tls: &Secured| {
            let mut policy = policy(false, false);
            policy.asks_clients = asks_clients;
            policy.forwarded.client_certificate = client_certificate;
            let (mut head, mut exchange) = (head(&forged), exchange("/"));
            exchange.client.peer.set_ip(peer.parse().unwrap());
            exchange.client.tls = Some(Arc::new(tls.clone()));
            apply(&mut head, &exchange, &policy);
            let lines = ["client_cert", "Client-Cert-Chain", "Client-Cert"];
            lines.map(|line| values(&head.fields, line).join(","))
        };
        let nobody = Secured::default();
        let (stranger, proxy) = ("192.0.2.7", "10.0.0.1");
        assert_eq!(told(stranger, false, false, &secured), ["", "", ""]);
        assert_eq!(told(stranger, true, true, &secured), ["", "", ":MAA=:"]);
        assert_eq!(told(proxy, true, true, &secured), ["", "", ":MAA=:"]);
        assert_eq!(told(proxy, true, true, &nobody), ["", "", ""]);
        assert_eq!(told(proxy, true, false, &secured), ["", "", ""]);
        assert_eq!(told(proxy, false, false, &nobody), [":MAA=:", ":MAA=:", ""]);
    }

    #[test]
    fn what_is_not_told_is_still_not_forged() {
        let mut head = head(&[("X-Forwarded-For", "198.51.100.1"), ("Forwarded", "for=198.51.100.1")]);
        let off = Forwarded {
            x_forwarded: false,
            rfc7239: false,
            via: false,
            request_id: false,
            client_certificate: false,
        };
        apply(&mut head, &exchange("/"), &Policy { forwarded: off, ..Policy::default() });
        assert_eq!(head.fields.len(), 1, "{:?}", head.fields);
    }

    #[test]
    fn a_trusted_proxys_word_is_kept_and_ours_added() {
        let mut exchange = exchange("/");
        exchange.client.peer = "[2001:db8::9]:1".parse().unwrap();
        exchange.client.scheme = Scheme::Https;
        let mut head = head(&[
            ("X-Forwarded-For", "192.0.2.1"),
            ("X-Forwarded-For", "192.0.2.2"),
            ("X-Forwarded-Host", "outside.example"),
            ("X-Forwarded-Prefix", "/shop"),
            ("Forwarded", "for=192.0.2.1"),
            ("Via", "1.1 edge"),
        ]);
        head.version = Version::Http10;
        head.fields.set(NameId::Host, b"inside.example:8443");
        apply(&mut head, &exchange, &policy(true, true));
        for (field, expected) in [
            ("X-Forwarded-For", &["192.0.2.1, 192.0.2.2, 2001:db8::9"][..]),
            ("X-Forwarded-Proto", &["https"]),
            ("X-Forwarded-Host", &["outside.example"]),
            ("X-Forwarded-Port", &["8443"]),
            ("X-Forwarded-Prefix", &["/shop"]),
            ("Forwarded", &["for=192.0.2.1, for=\"[2001:db8::9]\";host=\"inside.example:8443\";proto=https"]),
            ("Via", &["1.1 edge", "1.0 sluice"]),
        ] {
            assert_eq!(values(&head.fields, field), expected, "{field}");
        }
    }

    #[test]
    fn ports_follow_the_authority_or_the_scheme() {
        for (host, scheme, port) in [
            ("a", Scheme::Http, "80"),
            ("a", Scheme::Https, "443"),
            ("a:", Scheme::Https, "443"),
            ("[::1]:81", Scheme::Http, "81"),
        ] {
            let mut head = head(&[]);
            head.fields.set(NameId::Host, host.as_bytes());
            let mut exchange = exchange("/");
            exchange.client.scheme = scheme;
            apply(&mut head, &exchange, &policy(true, false));
            assert_eq!(values(&head.fields, "X-Forwarded-Port"), [port], "{host}");
        }
    }

    #[test]
    fn a_request_id_counts_only_from_trusted_peers_and_in_shape() {
        let trusting = policy(true, false);
        let peer = |text: &str| SocketAddr::new(text.parse().unwrap(), 1);
        let given = head(&[("X-Request-Id", "abc.1_2-3")]);
        assert_eq!(request_id(peer("10.0.0.1"), &given, &trusting), Some("abc.1_2-3"));
        assert_eq!(request_id(peer("192.0.2.1"), &given, &trusting), None);
        assert_eq!(request_id(peer("10.0.0.1"), &head(&[("X-Request-Id", "a b")]), &trusting), None);
        assert_eq!(request_id(peer("10.0.0.1"), &head(&[]), &trusting), None);
    }

    /// The walk as its definition says it: from the right.
    fn from_the_right(entries: &[Said], policy: &Policy) -> Option<IpAddr> {
        let mut last_good = None;
        for (address, _) in entries.iter().rev() {
            let Some(address) = address else { break };
            last_good = Some(*address);
            if !policy.trusts(*address) {
                break;
            }
        }
        last_good
    }

    proptest! {
        #[test]
        fn one_pass_finds_what_the_walk_finds(
            kinds in proptest::collection::vec((0u8..4, any::<u8>()), 0..8)
        ) {
            let policy = policy(true, false);
            let entries: Vec<Said> = kinds.into_iter().map(|(kind, last)| match kind {
                0 => (None, None),
                1 => (Some(IpAddr::from([192, 0, 2, last])), None),
                _ => (Some(IpAddr::from([10, 0, 0, last])), None),
            }).collect();
            prop_assert_eq!(walk(entries.iter().copied(), &policy).0, from_the_right(&entries, &policy));
        }

        #[test]
        fn no_list_can_panic_or_forge_what_a_trusted_proxy_added(list in "[ -~]{0,40}", host in "[ -~]{0,12}") {
            let policy = policy(true, false);
            let list = format!("{list}, 192.0.2.9");
            let found = said("10.0.0.1", &policy, &[("X-Forwarded-For", &list)]);
            prop_assert_eq!(found.0, "192.0.2.9");
            let mut head = head(&[("Forwarded", &list)]);
            head.fields.set(NameId::Host, host.as_bytes());
            let both = Policy { forwarded: Forwarded { rfc7239: true, ..policy.forwarded }, ..policy };
            client("10.0.0.1:1".parse().unwrap(), Scheme::Http, &head, &both);
            apply(&mut head, &exchange("/"), &both);
            let elements = head.fields.get_str(NameId::Forwarded).unwrap();
            prop_assert_eq!(split_unquoted(elements, b',').count(), 1, "{}", elements);
        }

        #[test]
        fn ipv4_is_written_as_the_standard_library_writes_it(octets: [u8; 4]) {
            let mut text = String::new();
            push_address(&mut text, IpAddr::from(octets));
            prop_assert_eq!(text, IpAddr::from(octets).to_string());
        }
    }
}
