//! The names an expression knows.
//!
//! Promise: an unknown name is a fault with a suggestion, never an absent value.

use std::ops::Range;

use sluice_http::FieldName;

use super::Moment;
use super::check::{Checker, Typed};
use super::fact::{Fact, TlsFact};
use super::parse::{Kind, Node};
use super::tree::{Scalar, Text};
use crate::closest::closest;

/// Something with members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Request,
    Client,
    Listener,
    Route,
    Tls,
    TlsClient,
    Consumer,
    Jwt,
}

/// Values by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Map {
    Headers,
    Query,
    Cookies,
    Params,
    Groups,
    Claims,
}

const ROOTS: &[&str] = &["request", "client", "listener", "route", "params", "tls", "consumer", "jwt"];

const REQUEST: &[&str] =
    &["method", "path", "target", "host", "scheme", "version", "id", "headers", "query", "cookies"];

impl Place {
    fn members(self) -> &'static [&'static str] {
        match self {
            Place::Request => REQUEST,
            Place::Client => &["address"],
            Place::Listener | Place::Route => &["name"],
            Place::Consumer => &["name", "groups"],
            Place::Jwt => &["claims"],
            Place::Tls => &["sni", "version", "cipher", "client"],
            Place::TlsClient => &["subject", "issuer", "serial", "fingerprint", "dns", "uri", "email"],
        }
    }

    /// What the place itself stands for.
    pub(super) fn value(self) -> Option<Fact> {
        match self {
            Place::Listener => Some(Fact::Listener),
            Place::Route => Some(Fact::Route),
            Place::Consumer => Some(Fact::Consumer),
            Place::Jwt | Place::Request | Place::Client | Place::Tls | Place::TlsClient => None,
        }
    }

    /// How to go on from it.
    pub(super) fn hint(self) -> String {
        format!("it has: {}", self.members().join(", "))
    }

    fn member(self, name: &str) -> Option<Typed> {
        let fact = match (self, name) {
            (Place::Request, "method") => Fact::Method,
            (Place::Request, "path") => Fact::Path,
            (Place::Request, "target") => Fact::Target,
            (Place::Request, "host") => {
                // Hosts have no case (RFC 9110 section 4.2.3): read in lower case whatever was received.
                return Some(Typed::Scalar(Scalar::Text(Text::Lower(Box::new(Text::Fact(Fact::Host))))));
            }
            (Place::Request, "scheme") => Fact::Scheme,
            (Place::Request, "version") => Fact::Version,
            (Place::Request, "id") => Fact::RequestId,
            (Place::Request, "headers") => return Some(Typed::Map(Map::Headers)),
            (Place::Request, "query") => return Some(Typed::Map(Map::Query)),
            (Place::Request, "cookies") => return Some(Typed::Map(Map::Cookies)),
            (Place::Client, "address") => return Some(Typed::Scalar(Scalar::Address)),
            (Place::Listener, "name") => Fact::Listener,
            (Place::Route, "name") => Fact::Route,
            (Place::Consumer, "name") => Fact::Consumer,
            (Place::Consumer, "groups") => return Some(Typed::Map(Map::Groups)),
            (Place::Jwt, "claims") => return Some(Typed::Map(Map::Claims)),
            (Place::Tls, "client") => return Some(Typed::Place(Place::TlsClient)),
            (Place::Tls | Place::TlsClient, _) => Fact::Tls(tls_fact(self, name)?),
            _ => return None,
        };
        Some(Typed::Scalar(Scalar::Text(Text::Fact(fact))))
    }
}

fn tls_fact(place: Place, name: &str) -> Option<TlsFact> {
    Some(match (place, name) {
        (Place::Tls, "sni") => TlsFact::Sni,
        (Place::Tls, "version") => TlsFact::Version,
        (Place::Tls, "cipher") => TlsFact::Cipher,
        (Place::TlsClient, "subject") => TlsFact::Subject,
        (Place::TlsClient, "issuer") => TlsFact::Issuer,
        (Place::TlsClient, "serial") => TlsFact::Serial,
        (Place::TlsClient, "fingerprint") => TlsFact::Fingerprint,
        (Place::TlsClient, "dns") => TlsFact::Dns,
        (Place::TlsClient, "uri") => TlsFact::Uri,
        (Place::TlsClient, "email") => TlsFact::Email,
        _ => return None,
    })
}

impl Checker<'_> {
    pub(super) fn name(&mut self, name: &str, part: &Range<usize>) -> Option<Typed> {
        Some(match name {
            "request" => Typed::Place(Place::Request),
            "client" => Typed::Place(Place::Client),
            "listener" => Typed::Place(Place::Listener),
            "route" => Typed::Place(Place::Route),
            "tls" => Typed::Place(Place::Tls),
            "params" => Typed::Map(Map::Params),
            "consumer" | "jwt" if self.moment == Moment::Match => {
                let hint = "the filter acl asks for it: acl = { when = \"...\" }";
                return self.fault(part, format!("`{name}` is not known yet when a route is chosen"), hint);
            }
            "consumer" => Typed::Place(Place::Consumer),
            "jwt" => Typed::Place(Place::Jwt),
            "null" => {
                let hint = "has(request.headers.x) asks whether a value is there";
                return self.fault(part, "there is no null", hint);
            }
            _ => {
                let hint = match closest(name, ROOTS.iter().copied()) {
                    Some(root) => format!("did you mean `{root}`?"),
                    None => match closest(name, REQUEST.iter().copied().chain(["address"])) {
                        Some("address") => "did you mean `client.address`?".to_owned(),
                        Some(member) => format!("did you mean `request.{member}`?"),
                        None => format!("there are: {}; a text stands in quotes", ROOTS.join(", ")),
                    },
                };
                return self.fault(part, format!("`{name}` is not known here"), hint);
            }
        })
    }

    pub(super) fn member(&mut self, of: &Node, name: &str, part: &Range<usize>) -> Option<Typed> {
        match self.check(of)? {
            Typed::Place(place) => place.member(name).or_else(|| {
                let hint = match closest(name, place.members().iter().copied()) {
                    Some(member) => format!("did you mean `{member}`?"),
                    None => place.hint(),
                };
                self.fault(
                    part,
                    format!("`{}` has no member `{name}`", self.source(&of.part).to_owned()),
                    hint,
                )
            }),
            Typed::Map(map) => self.entry_named(map, name, part),
            _ => {
                let message = format!("`{}` has no members", self.source(&of.part));
                self.fault(part, message, format!("for a method add brackets: .{name}(...)"))
            }
        }
    }

    pub(super) fn entry(&mut self, of: &Node, key: &Node) -> Option<Typed> {
        let found = self.check(of);
        let Kind::Text(name) = &key.kind else {
            let hint = "for instance request.headers[\"x-beta\"]";
            return self.fault(&key.part, "the name of an entry must be a text in quotes", hint);
        };
        match found? {
            Typed::Map(map) => self.entry_named(map, name, &key.part),
            Typed::Place(place) if place.members().contains(&name.as_str()) => place.member(name),
            _ => {
                let message = format!("`{}` has no entries", self.source(&of.part));
                self.fault(
                    &of.part,
                    message,
                    "request.headers, request.query, request.cookies and params have",
                )
            }
        }
    }

    fn entry_named(&mut self, map: Map, name: &str, part: &Range<usize>) -> Option<Typed> {
        let fact = self.fact_of(map, name, part)?;
        Some(Typed::Scalar(Scalar::Text(Text::Fact(fact))))
    }

    pub(super) fn fact_of(&mut self, map: Map, name: &str, part: &Range<usize>) -> Option<Fact> {
        Some(match map {
            Map::Headers => match FieldName::new(name) {
                Some(name) => Fact::Header(name),
                None => {
                    let message = format!("`{}` is not a header name", name.escape_debug());
                    return self.fault(part, message, "letters, digits and !#$%&'*+-.^_`|~ stand in one");
                }
            },
            Map::Query => Fact::Parameter(name.into()),
            Map::Cookies => Fact::Cookie(name.into()),
            Map::Params => Fact::Param(name.into()),
            Map::Groups => Fact::Group(name.into()),
            Map::Claims => Fact::Claim(name.into()),
        })
    }
}
