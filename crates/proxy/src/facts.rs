//! What is known of a request when it is matched, explained or written into a template.

use std::net::IpAddr;
use std::sync::Arc;

use sluice_http::RequestHead;

use crate::consumer::{Claims, Consumer};
use crate::tls::Secured;

/// How the client reached us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// Plain.
    Http,
    /// Over TLS.
    Https,
}

impl Scheme {
    /// "http" or "https".
    pub const fn text(self) -> &'static str {
        match self {
            Scheme::Http => "http",
            Scheme::Https => "https",
        }
    }
}

/// Parameters a path template took from a path: `{id}` gives `id`. Values are percent-decoded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Params(pub Vec<(Arc<str>, String)>);

impl Params {
    /// The value of parameter `name`.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| &**key == name).map(|(_, value)| value.as_str())
    }
}

/// The facts that conditions, expressions and templates may ask for.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// The request's head.
    pub head: &'a RequestHead,
    /// The normalised path: percent-decoded (but for `%2F` and `%25`), without dot segments.
    pub path: &'a str,
    /// The trusted client address: the peer's, or what a trusted proxy said.
    pub client: IpAddr,
    /// How the client reached us.
    pub scheme: Scheme,
    /// The name of the listener.
    pub listener: &'a str,
    /// What the client's TLS handshake with us said; None: the connection is plain.
    pub tls: Option<&'a Secured>,
    /// The request id.
    pub request_id: &'a str,
    /// The name of the route; empty before one is found.
    pub route: &'a str,
    /// Path parameters; empty before a route is found.
    pub params: &'a Params,
    /// Who is asking; nobody before a filter has found out.
    pub identity: Identity<'a>,
}

/// Who is asking, as far as filters have found out.
#[derive(Clone, Copy, Debug, Default)]
pub struct Identity<'a> {
    /// The consumer.
    pub consumer: Option<&'a Consumer>,
    /// What its token says.
    pub claims: Option<&'a Claims>,
}

/// The value of the cookie `name` in the request's Cookie fields (RFC 6265 section 5.4), without quotes.
pub fn cookie<'a>(head: &'a RequestHead, name: &str) -> Option<&'a str> {
    head.fields.get_all(sluice_http::NameId::Cookie).find_map(|line| {
        let line = std::str::from_utf8(line).ok()?;
        line.split(';').find_map(|pair| {
            let (key, value) = pair.trim().split_once('=')?;
            (key == name).then(|| value.trim_matches('"'))
        })
    })
}

/// The first value of query parameter `name` as it stands in the target (percent-encoded).
pub fn query<'a>(head: &'a RequestHead, name: &str) -> Option<&'a str> {
    head.query()?.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (key == name).then_some(value)
    })
}
