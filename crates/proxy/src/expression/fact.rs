//! What can be read of a request by name: the one list behind expressions and templates.
//!
//! Promise: a fact is bytes, as received where possible, because a field value need not be UTF-8 and must
//! not become another value by being repaired; what is not there is `None`, not an empty text.

use std::borrow::Cow;

use sluice_http::FieldName;

use crate::facts::{Facts, Scheme, cookie};
use crate::percent::{Plus, decode, parameter};
use crate::tls::Secured;

/// Something that can be read of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fact {
    /// The method's token.
    Method,
    /// The normalised path: what routes match.
    Path,
    /// The path as received.
    RawPath,
    /// The query as received, without `?`.
    Query,
    /// Path and query as received.
    Target,
    /// The authority's host as received; an IPv6 literal keeps its brackets.
    Host,
    /// The authority's port, or the scheme's.
    Port,
    /// Host and port as received.
    Authority,
    /// "http" or "https".
    Scheme,
    /// "1.0", "1.1" or "2".
    Version,
    /// Something that the client's TLS handshake with us said.
    Tls(TlsFact),
    /// The request id.
    RequestId,
    /// The trusted client address.
    Client,
    /// The listener's name.
    Listener,
    /// The route's name.
    Route,
    /// The first field line of this name.
    Header(FieldName),
    /// The first query parameter of this name, decoded.
    Parameter(Box<str>),
    /// The first cookie of this name.
    Cookie(Box<str>),
    /// The path parameter of this name.
    Param(Box<str>),
    /// The consumer's name.
    Consumer,
    /// Its groups, with commas.
    Groups,
    /// This group's name, when the consumer belongs to it.
    Group(Box<str>),
    /// The token's claim of this name.
    Claim(Box<str>),
}

/// What can be read of a TLS handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TlsFact {
    /// The name the client asked for.
    Sni,
    /// "TLSv1.2" or "TLSv1.3".
    Version,
    /// The cipher suite's IANA name.
    Cipher,
    /// The subject of the client's certificate.
    Subject,
    /// Its issuer.
    Issuer,
    /// Its serial number, in hexadecimal digits.
    Serial,
    /// Its SHA-256, in hexadecimal digits.
    Fingerprint,
    /// Its first DNS name.
    Dns,
    /// Its first URI.
    Uri,
    /// Its first e-mail address.
    Email,
}

impl TlsFact {
    fn read(self, secured: &Secured) -> Option<&str> {
        let client = secured.client.as_ref();
        match self {
            TlsFact::Sni => secured.sni.as_deref(),
            TlsFact::Version => Some(secured.version),
            TlsFact::Cipher => Some(secured.cipher),
            TlsFact::Subject => client.map(|client| client.subject.as_str()),
            TlsFact::Issuer => client.map(|client| client.issuer.as_str()),
            TlsFact::Serial => client.map(|client| client.serial.as_str()),
            TlsFact::Fingerprint => client.map(|client| client.fingerprint.as_str()),
            TlsFact::Dns => client?.dns.first().map(String::as_str),
            TlsFact::Uri => client?.uris.first().map(String::as_str),
            TlsFact::Email => client?.emails.first().map(String::as_str),
        }
    }
}

impl Fact {
    /// Its value. Allocates for the client address, and for a query parameter that has escapes.
    pub(crate) fn read<'a>(&self, facts: &Facts<'a>) -> Option<Cow<'a, [u8]>> {
        let head = facts.head;
        let text = match self {
            Fact::Method => head.method_text(),
            Fact::Path => facts.path,
            Fact::RawPath => head.path(),
            Fact::Query => head.query()?,
            Fact::Target => head.path_and_query(),
            Fact::Host => head.host(),
            Fact::Port => port(facts),
            Fact::Authority => head.authority(),
            Fact::Scheme => facts.scheme.text(),
            Fact::Version => head.version.text(),
            Fact::Tls(fact) => return fact.read(facts.tls?).map(|text| Cow::Borrowed(text.as_bytes())),
            Fact::RequestId => facts.request_id,
            Fact::Client => {
                return Some(Cow::Owned(facts.client.to_canonical().to_string().into_bytes()));
            }
            Fact::Listener => facts.listener,
            Fact::Route => facts.route,
            Fact::Header(name) => return head.fields.get(name).map(Cow::Borrowed),
            Fact::Parameter(name) => {
                return Some(decode(parameter(head.query()?, name)?.as_bytes(), Plus::Space));
            }
            Fact::Cookie(name) => cookie(head, name)?,
            Fact::Param(name) => facts.params.get(name)?,
            Fact::Consumer => &facts.identity.consumer?.name,
            Fact::Groups => &facts.identity.consumer?.groups_text,
            Fact::Group(name) => facts.identity.consumer?.groups.iter().find(|own| **own == *name)?,
            Fact::Claim(name) => facts.identity.claims?.get(name)?,
        };
        Some(Cow::Borrowed(text.as_bytes()))
    }

    /// Whether it is there. Allocates nothing.
    pub(crate) fn is_present(&self, facts: &Facts<'_>) -> bool {
        match self {
            Fact::Header(name) => facts.head.fields.contains(name),
            Fact::Parameter(name) => facts.head.query().is_some_and(|query| parameter(query, name).is_some()),
            Fact::Cookie(name) => cookie(facts.head, name).is_some(),
            Fact::Param(name) => facts.params.get(name).is_some(),
            Fact::Consumer | Fact::Groups => facts.identity.consumer.is_some(),
            Fact::Group(name) => facts.identity.consumer.is_some_and(|consumer| consumer.is_in(name)),
            Fact::Claim(name) => facts.identity.claims.is_some_and(|claims| claims.get(name).is_some()),
            Fact::Query => facts.head.query().is_some(),
            Fact::Tls(fact) => facts.tls.is_some_and(|secured| fact.read(secured).is_some()),
            _ => true,
        }
    }
}

fn port<'a>(facts: &Facts<'a>) -> &'a str {
    let head = facts.head;
    let written = head.authority()[head.host().len()..].trim_start_matches(':');
    match (written, facts.scheme) {
        ("", Scheme::Http) => "80",
        ("", Scheme::Https) => "443",
        _ => written,
    }
}
