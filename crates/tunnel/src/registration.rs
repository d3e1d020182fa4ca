//! How a connector announces itself, and what it is answered: the two handshakes, both sides.
//!
//! Promise: a 1.0 answer says `CrankerProtocol: 1.0`, a subprotocol is named only if it was offered, and old peers
//! never see an extension that they did not ask for. Whether the announcement is allowed is the gateway's to
//! decide, between reading it and answering.

use std::fmt;

use sluice_http::reasons::reasons;
use sluice_http::websocket::{self, BadHandshake};
use sluice_http::{Fields, NameId, RequestHead, ResponseHead};

use crate::text::name;

const PROTOCOL: &str = "CrankerProtocol";
const ROUTE: &str = "Route";
const DOMAIN: &str = "Domain";
/// Ours: what both ends know beyond the protocol. Peers that do not know the field ignore it.
const EXTENSIONS: &str = "CrankerExtensions";

/// Bytes of a route, a domain, an instance or a component name.
const LONGEST: usize = 512;

/// A version of the tunnel's protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Version {
    /// 1.0: one exchange per tunnel.
    V1,
    /// 3.0: many exchanges per tunnel.
    V3,
}

impl Version {
    /// The subprotocol that names it.
    pub const fn subprotocol(self) -> &'static str {
        match self {
            Version::V1 => "cranker_1.0",
            Version::V3 => "cranker_3.0",
        }
    }

    /// "1.0" or "3.0".
    pub const fn text(self) -> &'static str {
        match self {
            Version::V1 => "1.0",
            Version::V3 => "3.0",
        }
    }

    fn of(token: &[u8]) -> Option<Version> {
        let token = token.trim_ascii().to_ascii_lowercase();
        match token.strip_prefix(b"cranker_").unwrap_or(&token) {
            b"1.0" => Some(Version::V1),
            b"3.0" => Some(Version::V3),
            _ => None,
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

/// What both ends know beyond the protocol. Nothing of it is used unless both named it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extensions {
    /// `upgrade`: WebSocket and other protocols through the tunnel, after a 101.
    pub upgrade: bool,
    /// `trailers`: trailer fields, in 3.0.
    pub trailers: bool,
}

impl Extensions {
    /// None of them: a peer that speaks the protocol only.
    pub const NONE: Extensions = Extensions { upgrade: false, trailers: false };
    /// All that this crate knows.
    pub const ALL: Extensions = Extensions { upgrade: true, trailers: true };

    fn read(fields: &Fields) -> Extensions {
        let has = |wanted: &str| {
            let mut members =
                fields.get_all(name(EXTENSIONS)).flat_map(|value| value.split(|&byte| byte == b','));
            members.any(|member| member.trim_ascii().eq_ignore_ascii_case(wanted.as_bytes()))
        };
        Extensions { upgrade: has("upgrade"), trailers: has("trailers") }
    }

    /// What both know.
    pub fn and(self, other: Extensions) -> Extensions {
        Extensions { upgrade: self.upgrade && other.upgrade, trailers: self.trailers && other.trailers }
    }

    fn write(self, fields: &mut Fields) {
        let known = [(self.upgrade, "upgrade"), (self.trailers, "trailers")];
        let names: Vec<&str> =
            known.iter().filter(|(is_known, _)| *is_known).map(|(_, name)| *name).collect();
        if !names.is_empty() {
            fields.append(name(EXTENSIONS), names.join(", ").as_bytes());
        }
    }
}

/// What a connector asks of a gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To carry requests.
    Register,
    /// To carry none any more.
    Deregister,
}

impl Purpose {
    /// What this path asks for; `None` when it is another path.
    pub fn of(path: &str) -> Option<Purpose> {
        match path {
            "/register" | "/register/" => Some(Purpose::Register),
            "/deregister" | "/deregister/" => Some(Purpose::Deregister),
            _ => None,
        }
    }

    const fn path(self) -> &'static str {
        match self {
            Purpose::Register => "/register/",
            Purpose::Deregister => "/deregister/",
        }
    }
}

/// A connector's announcement, as a gateway reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    /// What for.
    pub purpose: Purpose,
    /// The route it serves, without slashes at its ends; `None` for every path.
    pub route: Option<String>,
    /// The domain it serves; `None` for all.
    pub domain: Option<String>,
    /// The instance of the connector, when it says so.
    pub instance: Option<String>,
    /// Free text, as decoded; may be empty.
    pub component: String,
    /// What it knows.
    pub extensions: Extensions,
    /// The version it is to be answered with. For a deregistration it means nothing.
    pub version: Version,
    is_offered: bool,
    key: String,
}

reasons! {
    /// Why an announcement was refused.
    pub enum Unregistered {
        NotWebSocket "tunnel-not-websocket" "the request does not open a WebSocket",
        NoVersion "tunnel-no-version" "none of the versions offered is supported",
        BadRoute "tunnel-bad-route" "the route or the domain is malformed",
        BadName "tunnel-bad-name" "the instance or the component name is malformed or too long",
    }
}

impl From<BadHandshake> for Unregistered {
    fn from(_: BadHandshake) -> Unregistered {
        Unregistered::NotWebSocket
    }
}

impl Registration {
    /// Reads the request that opens a tunnel. The versions supported are in the order of nothing: the connector's
    /// order of offers counts.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn read(
        head: &RequestHead,
        purpose: Purpose,
        supported: &[Version],
    ) -> Result<Registration, Unregistered> {
        let key = String::from_utf8_lossy(websocket::asked(head)?).into_owned();
        let fields = &head.fields;
        let offers = fields.get_all(NameId::SecWebSocketProtocol);
        let mut offered = offers.flat_map(|value| value.split(|&byte| byte == b',')).filter_map(Version::of);
        let chosen = offered.find(|version| supported.contains(version));
        let spoken = fields.get(name(PROTOCOL)).and_then(Version::of).filter(|it| supported.contains(it));
        let version = match (purpose, chosen.or(spoken)) {
            (_, Some(version)) => version,
            // The version is not looked at where nothing is carried.
            (Purpose::Deregister, None) => Version::V1,
            (Purpose::Register, None) => return Err(Unregistered::NoVersion),
        };
        let (instance, component) = query(head.query().unwrap_or_default())?;
        Ok(Registration {
            purpose,
            route: place(fields.get(name(ROUTE)))?,
            domain: place(fields.get(name(DOMAIN)))?.map(|domain| domain.to_ascii_lowercase()),
            instance,
            component,
            extensions: Extensions::read(fields),
            version,
            is_offered: chosen.is_some(),
            key,
        })
    }

    /// The 101 that accepts it; `known` is what we know.
    pub fn accept(&self, known: Extensions) -> ResponseHead {
        let mut head = websocket::agree(self.key.as_bytes());
        if self.purpose == Purpose::Register && self.is_offered {
            head.fields.append(NameId::SecWebSocketProtocol, self.version.subprotocol().as_bytes());
        }
        if self.purpose == Purpose::Deregister || self.version == Version::V1 {
            head.fields.append(name(PROTOCOL), b"1.0");
        }
        if self.purpose == Purpose::Register {
            self.extensions.and(known).write(&mut head.fields);
        }
        head
    }
}

/// A route as an announcement would name it; `None` for the one that serves every path.
///
/// # Errors
/// No announcement can name it.
pub fn announced_route(value: &[u8]) -> Result<Option<String>, Unregistered> {
    place(Some(value))
}

/// A route or a domain; missing, empty and `*` are all the same.
fn place(value: Option<&[u8]>) -> Result<Option<String>, Unregistered> {
    let value = value.unwrap_or_default().trim_ascii();
    let value = std::str::from_utf8(value).map_err(|_| Unregistered::BadRoute)?.trim_matches('/');
    if value.is_empty() || value == "*" {
        return Ok(None);
    }
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"/_.-~%:@!$&'()+,;=[]".contains(&byte);
    match value.len() <= LONGEST && value.bytes().all(is_allowed) {
        true => Ok(Some(value.to_owned())),
        false => Err(Unregistered::BadRoute),
    }
}

/// connectorInstanceID and componentName; the latter may be encoded or not.
fn query(query: &str) -> Result<(Option<String>, String), Unregistered> {
    let (mut instance, mut component) = (None, String::new());
    for pair in query.split('&') {
        match pair.split_once('=') {
            Some(("connectorInstanceID", id)) if !id.is_empty() => instance = Some(decoded(id)?),
            Some(("componentName", name)) => component = decoded(name)?,
            _ => {}
        }
    }
    Ok((instance, component))
}

/// Percent-decoded; an escape that is none stays as it is.
fn decoded(text: &str) -> Result<String, Unregistered> {
    let digit = |byte: Option<&u8>| byte.and_then(|&byte| char::from(byte).to_digit(16)).map(|it| it as u8);
    let (bytes, mut out, mut at) = (text.as_bytes(), Vec::with_capacity(text.len()), 0);
    while let Some(&byte) = bytes.get(at) {
        match (byte, digit(bytes.get(at + 1)), digit(bytes.get(at + 2))) {
            (b'%', Some(high), Some(low)) => {
                out.push(high << 4 | low);
                at += 3;
            }
            (b'+', ..) => {
                out.push(b' ');
                at += 1;
            }
            _ => {
                out.push(byte);
                at += 1;
            }
        }
    }
    let text = String::from_utf8_lossy(&out).into_owned();
    match text.len() <= LONGEST && !text.chars().any(char::is_control) {
        true => Ok(text),
        false => Err(Unregistered::BadName),
    }
}

/// A connector's announcement, as it makes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announcement {
    /// The route it serves, `*` for every path.
    pub route: String,
    /// The domain it serves, `*` for all.
    pub domain: String,
    /// The instance of this connector.
    pub instance: String,
    /// Free text for people.
    pub component: String,
    /// What it speaks, the best first.
    pub versions: Vec<Version>,
    /// What it knows.
    pub extensions: Extensions,
}

impl Announcement {
    /// The request that opens a tunnel to the gateway at `host`, with a key of 16 random bytes in base64.
    pub fn request(&self, purpose: Purpose, host: &str, key: &str) -> RequestHead {
        let target = format!(
            "{}?connectorInstanceID={}&componentName={}",
            purpose.path(),
            encoded(&self.instance),
            encoded(&self.component)
        );
        let mut head = RequestHead::new("GET", &target);
        head.fields.append(NameId::Host, host.as_bytes());
        websocket::ask(&mut head, key);
        head.fields.append(name(PROTOCOL), b"1.0");
        head.fields.append(name(ROUTE), self.route.as_bytes());
        head.fields.append(name(DOMAIN), self.domain.as_bytes());
        if purpose == Purpose::Register {
            if self.versions.contains(&Version::V3) {
                let offers: Vec<&str> = self.versions.iter().map(|version| version.subprotocol()).collect();
                head.fields.append(NameId::SecWebSocketProtocol, offers.join(", ").as_bytes());
            }
            self.extensions.write(&mut head.fields);
        }
        head
    }

    /// What the gateway's answer selects: the version, and what both know.
    ///
    /// # Errors
    /// When the answer does not accept the announcement, or selects a version that was not offered.
    pub fn accepted(&self, head: &ResponseHead, key: &str) -> Result<(Version, Extensions), Unregistered> {
        websocket::agreed(head, key)?;
        let version = match head.fields.get(NameId::SecWebSocketProtocol) {
            Some(selected) if selected == Version::V3.subprotocol().as_bytes() => Version::V3,
            _ => Version::V1,
        };
        match self.versions.contains(&version) {
            true => Ok((version, self.extensions.and(Extensions::read(&head.fields)))),
            false => Err(Unregistered::NoVersion),
        }
    }
}

/// Percent-encoded for a query's value.
fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
    const BOTH: &[Version] = &[Version::V1, Version::V3];

    fn announcement() -> Announcement {
        Announcement {
            route: "my-service".to_owned(),
            domain: "*".to_owned(),
            instance: "i-1".to_owned(),
            component: "a b&c".to_owned(),
            versions: vec![Version::V3, Version::V1],
            extensions: Extensions::ALL,
        }
    }

    fn read(lines: &[(&str, &str)], target: &str) -> Result<Registration, Unregistered> {
        let mut head = RequestHead::new("GET", target);
        websocket::ask(&mut head, KEY);
        for (field, value) in lines {
            head.fields.append(name(field), value.as_bytes());
        }
        Registration::read(&head, Purpose::Register, BOTH)
    }

    fn line(head: &ResponseHead, field: &str) -> Option<String> {
        head.fields.get(name(field)).map(|value| String::from_utf8_lossy(value).into_owned())
    }

    #[test]
    fn both_ends_agree_on_3_0_and_extensions() {
        let connector = announcement();
        let head = connector.request(Purpose::Register, "gateway:9070", KEY);
        assert_eq!(head.target(), "/register/?connectorInstanceID=i-1&componentName=a%20b%26c");
        assert_eq!(Purpose::of(head.path()), Some(Purpose::Register));
        let found = Registration::read(&head, Purpose::Register, BOTH).unwrap();
        assert_eq!((found.route.as_deref(), found.domain.as_deref()), (Some("my-service"), None));
        assert_eq!((found.instance.as_deref(), &found.component[..]), (Some("i-1"), "a b&c"));
        let answer = found.accept(Extensions { upgrade: true, trailers: false });
        assert_eq!(line(&answer, "sec-websocket-protocol").as_deref(), Some("cranker_3.0"));
        assert_eq!((line(&answer, PROTOCOL), line(&answer, EXTENSIONS).as_deref()), (None, Some("upgrade")));
        let agreed = Extensions { upgrade: true, trailers: false };
        assert_eq!(connector.accepted(&answer, KEY), Ok((Version::V3, agreed)));
    }

    #[test]
    fn the_first_supported_offer_wins_and_the_version_field_is_the_last_resort() {
        let version = |lines: &[(&str, &str)]| read(lines, "/register").map(|found| found.version);
        assert_eq!(version(&[("CrankerProtocol", "1.0")]), Ok(Version::V1));
        assert_eq!(version(&[("Crankerprotocol", "3.0")]), Ok(Version::V3));
        let offer = |text| [("CrankerProtocol", "1.0"), ("Sec-WebSocket-Protocol", text)];
        assert_eq!(version(&offer("cranker_3.0, cranker_1.0")), Ok(Version::V3));
        assert_eq!(version(&offer("cranker_1.0, cranker_3.0")), Ok(Version::V1));
        assert_eq!(version(&offer("chat, CRANKER_3.0")), Ok(Version::V3));
        assert_eq!(version(&offer("cranker_2.0")), Ok(Version::V1));
        assert_eq!(version(&[]), Err(Unregistered::NoVersion));
        assert_eq!(version(&[("CrankerProtocol", "2.0")]), Err(Unregistered::NoVersion));
    }

    #[test]
    fn a_1_0_answer_names_its_version_and_no_subprotocol_that_was_not_offered() {
        let bare = read(&[("CrankerProtocol", "1.0")], "/register").unwrap().accept(Extensions::ALL);
        assert_eq!(line(&bare, PROTOCOL).as_deref(), Some("1.0"));
        assert_eq!((line(&bare, "sec-websocket-protocol"), line(&bare, EXTENSIONS)), (None, None));
        let lines = [("CrankerProtocol", "1.0"), ("Sec-WebSocket-Protocol", "cranker_1.0")];
        let offered = read(&lines, "/register").unwrap().accept(Extensions::ALL);
        assert_eq!(line(&offered, "sec-websocket-protocol").as_deref(), Some("cranker_1.0"));
        assert_eq!(line(&offered, PROTOCOL).as_deref(), Some("1.0"));
    }

    #[test]
    fn without_a_selection_it_is_1_0_if_that_was_offered() {
        let answer = websocket::agree(KEY.as_bytes());
        let mut connector = announcement();
        assert_eq!(connector.accepted(&answer, KEY), Ok((Version::V1, Extensions::NONE)));
        connector.versions = vec![Version::V3];
        assert_eq!(connector.accepted(&answer, KEY), Err(Unregistered::NoVersion));
        assert_eq!(connector.accepted(&ResponseHead::new(403), KEY), Err(Unregistered::NotWebSocket));
    }

    #[test]
    fn a_catch_all_has_many_spellings() {
        let route = |lines: &[(&str, &str)]| {
            read(&[&[("CrankerProtocol", "1.0")], lines].concat(), "/register").map(|found| found.route)
        };
        for lines in [&[][..], &[("Route", "")], &[("Route", "*")], &[("route", "/")]] {
            assert_eq!(route(lines), Ok(None));
        }
        assert_eq!(route(&[("Route", "/a/b.c/")]), Ok(Some("a/b.c".to_owned())));
        assert_eq!(route(&[("Route", "a b")]), Err(Unregistered::BadRoute));
        assert_eq!(route(&[("Route", "caf\u{e9}")]), Err(Unregistered::BadRoute));
    }

    #[test]
    fn names_may_be_encoded_or_not_but_not_long() {
        let names = |query: &str| {
            let found = read(&[("CrankerProtocol", "1.0")], &format!("/register/?{query}"));
            found.map(|found| (found.instance, found.component))
        };
        assert_eq!(names("componentName=a-b%zz"), Ok((None, "a-b%zz".to_owned())));
        assert_eq!(names("connectorInstanceID=&componentName=a+b%20c"), Ok((None, "a b c".to_owned())));
        assert_eq!(names("componentName=a%0ab"), Err(Unregistered::BadName));
        assert_eq!(names(&format!("connectorInstanceID={}", "x".repeat(513))), Err(Unregistered::BadName));
    }

    #[test]
    fn a_deregistration_needs_no_version_and_offers_no_subprotocol() {
        let mut head = announcement().request(Purpose::Deregister, "gateway", KEY);
        assert!(!head.fields.contains(NameId::SecWebSocketProtocol));
        head.fields.remove(name(PROTOCOL));
        let found = Registration::read(&head, Purpose::of(head.path()).unwrap(), BOTH).unwrap();
        let answer = found.accept(Extensions::ALL);
        assert_eq!(line(&answer, "sec-websocket-protocol"), None);
    }

    #[test]
    fn a_request_that_opens_no_websocket_is_no_registration() {
        let head = RequestHead::new("GET", "/register");
        let read = Registration::read(&head, Purpose::Register, BOTH);
        assert_eq!(read, Err(Unregistered::NotWebSocket));
    }
}
