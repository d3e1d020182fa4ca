//! A connector's document, checked: what the program runs.
//!
//! Promise: every problem of a document is found at once; the files of TLS are looked into in a second step.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use sluice_http::FieldName;
use sluice_proxy::problem::{At, Problems};
use sluice_proxy::tls::Client;
use sluice_tunnel::connector::{Address, Options, Security};
use sluice_tunnel::registration::Version;

use super::document::{self, Document, TargetProtocol, TunnelVersion};
use super::secure::Wanted;

/// Tunnels to each gateway, at most.
const WIDEST: u16 = 1000;
/// Bytes of a route, a domain or a component name.
const LONGEST: usize = 512;
/// Fields that the protocol itself has in a registration.
const OURS: [&str; 12] = [
    "connection",
    "content-length",
    "crankerextensions",
    "crankerprotocol",
    "domain",
    "host",
    "route",
    "sec-websocket-extensions",
    "sec-websocket-key",
    "sec-websocket-protocol",
    "sec-websocket-version",
    "upgrade",
];

/// All that a connector does.
pub(super) struct Plan {
    pub(super) health: Option<SocketAddr>,
    pub(super) drain: Duration,
    pub(super) services: Vec<Service>,
    /// What is no problem yet: a sentence each.
    pub(super) cautions: Vec<String>,
}

/// A field of registrations.
pub(super) type Header = (FieldName, String);

/// One service.
pub(super) struct Service {
    pub(super) name: String,
    pub(super) options: Options,
    pub(super) routers: Vec<Address>,
    pub(super) each_address: bool,
    pub(super) headers: Vec<Header>,
    pub(super) target: Address,
    pub(super) protocol: TargetProtocol,
    /// As it was written.
    pub(super) target_text: String,
    pub(super) router_tls: Option<Arc<Client>>,
    pub(super) target_tls: Option<Arc<Client>>,
    wanted: (Option<Wanted>, Option<Wanted>),
}

impl Service {
    /// What it is registered for.
    pub(super) fn route(&self) -> &str {
        &self.options.announcement.route
    }

    /// Whether the other one is published in the same way, for the same target. What TLS reads from files may
    /// differ.
    pub(super) fn is_as(&self, other: &Service) -> bool {
        let announced = |service: &Service| {
            let it = &service.options.announcement;
            (it.route.clone(), it.domain.clone(), it.component.clone(), it.versions.clone())
        };
        let headers = |service: &Service| -> Vec<(String, String)> {
            service.headers.iter().map(|(name, value)| (name.as_str().to_owned(), value.clone())).collect()
        };
        (&self.name, announced(self), headers(self), self.options.window)
            == (&other.name, announced(other), headers(other), other.options.window)
            && (&self.routers, self.each_address) == (&other.routers, other.each_address)
            && (&self.target, self.protocol, &self.wanted) == (&other.target, other.protocol, &other.wanted)
    }
}

impl Plan {
    /// Checks a document without touching files.
    ///
    /// # Errors
    /// Every problem found.
    pub(super) fn check(document: &Document) -> Result<Plan, Problems> {
        let (root, mut problems) = (At::root(), Problems::new());
        let health = document.health.as_ref().and_then(|text| {
            let found = text.parse().ok();
            if found.is_none() {
                let problem =
                    problems.add(&root.key("health"), format!("`{text}` is not an address and port"));
                problem.hint("health = \"127.0.0.1:9001\"");
            }
            found
        });
        if document.services.is_empty() {
            let problem = problems.add(&root.key("services"), "nothing is published");
            problem.hint("add [services.my-service] with target = \"http://localhost:5000\"");
        }
        let routers = addresses(&document.routers, &root.key("routers"), &mut problems);
        let headers = check_headers(&document.headers, &root.key("headers"), &mut problems);
        let tls = document.tls.as_ref();
        let tls = tls.and_then(|tls| Wanted::check(tls, &root.key("tls"), &mut problems));
        let mut services = Vec::with_capacity(document.services.len());
        for (name, service) in &document.services {
            let at = root.key("services").key(name);
            let Some(mut checked) = check_service((name, service), (document, &routers), &at, &mut problems)
            else {
                continue;
            };
            let is_own = |name: &FieldName| {
                checked.headers.iter().any(|(own, _)| own.as_str().eq_ignore_ascii_case(name.as_str()))
            };
            let shared: Vec<Header> = headers.iter().filter(|(name, _)| !is_own(name)).cloned().collect();
            checked.headers.extend(shared);
            if checked.routers.iter().any(|router| router.security == Security::Tls) {
                checked.wanted.0 = Some(tls.clone().unwrap_or_else(|| Wanted::default_at(&root.key("tls"))));
            }
            services.push(checked);
        }
        if tls.is_some() && services.iter().all(|service| service.wanted.0.is_none()) && problems.is_empty() {
            let problem = problems.add(&root.key("tls"), "no gateway is reached over TLS");
            problem.hint("write wss:// instead of ws://, or leave `tls` out");
        }
        let drain = document.drain_timeout.map_or(Duration::from_secs(30), |period| period.0);
        match problems.is_empty() {
            true => Ok(Plan { health, drain, services, cautions: Vec::new() }),
            false => Err(problems),
        }
    }

    /// Reads the files of TLS; `now` is Unix time in seconds.
    ///
    /// # Errors
    /// Every problem found.
    pub(super) fn read_files(mut self, now: i64) -> Result<Plan, Problems> {
        let mut problems = Problems::new();
        // The same table is read once.
        let mut known: Vec<(Wanted, Option<Arc<Client>>)> = Vec::new();
        let mut read = |wanted: &Option<Wanted>| {
            let wanted = wanted.as_ref()?;
            if let Some((_, client)) = known.iter().find(|(other, _)| other == wanted) {
                return client.clone();
            }
            let client = wanted.read(now, (&mut self.cautions, &mut problems));
            known.push((wanted.clone(), client.clone()));
            client
        };
        for service in &mut self.services {
            service.router_tls = read(&service.wanted.0);
            service.target_tls = read(&service.wanted.1);
        }
        if problems.is_empty() { Ok(self) } else { Err(problems) }
    }
}

fn check_service(
    (name, service): (&str, &document::Service),
    (document, routers): (&Document, &[Address]),
    at: &At,
    problems: &mut Problems,
) -> Option<Service> {
    let mut options =
        Options::new(text(service.route.as_deref().unwrap_or(name), &at.key("route"), problems));
    if let Some(domain) = &service.domain {
        options.announcement.domain = text(domain, &at.key("domain"), problems).to_owned();
    }
    if let Some(component) = &document.component {
        options.announcement.component = label(component, &At::root().key("component"), problems);
    }
    if !service.versions.is_empty() {
        options.announcement.versions = versions(&service.versions, &at.key("versions"), problems);
    }
    match service.window {
        None => {}
        Some(window @ 1..=WIDEST) => options.window = window.into(),
        Some(_) => {
            problems.add(&at.key("window"), format!("a window has 1 to {WIDEST} tunnels"));
        }
    }
    let own = addresses(&service.routers, &at.key("routers"), problems);
    let routers = if service.routers.is_empty() { routers.to_owned() } else { own };
    if service.routers.is_empty() && document.routers.is_empty() {
        let problem = problems.add(at, "the service is published nowhere");
        problem.hint("routers = [\"wss://gateway.example:9070\"], here or at the top");
    }
    let headers = check_headers(&service.headers, &at.key("headers"), problems);
    let target = check_target(&service.target, &at.key("target"), problems);
    let tls_at = at.key("target_tls");
    let tls = service.target_tls.as_ref().and_then(|tls| Wanted::check(tls, &tls_at, problems));
    let target = target?;
    let is_tls = target.security == Security::Tls;
    if !is_tls && service.target_tls.is_some() {
        problems.add(&tls_at, "the target is not reached over TLS").hint("write https:// instead of http://");
    }
    let protocol = service.protocol.unwrap_or(match is_tls {
        true => TargetProtocol::Auto,
        false => TargetProtocol::Http1,
    });
    if protocol == TargetProtocol::Auto && !is_tls {
        problems
            .add(&at.key("protocol"), "`auto` asks TLS which protocol is spoken, but this target has none")
            .hint("write `protocol = \"http2\"` for a target that speaks HTTP/2 without TLS, else \"http1\"");
    }
    Some(Service {
        name: name.to_owned(),
        options,
        routers,
        each_address: document.each_address,
        headers,
        target,
        protocol,
        target_text: service.target.clone(),
        router_tls: None,
        target_tls: None,
        wanted: (None, is_tls.then(|| tls.unwrap_or_else(|| Wanted::default_at(&tls_at)))),
    })
}

fn versions(written: &[TunnelVersion], at: &At, problems: &mut Problems) -> Vec<Version> {
    for (index, version) in written.iter().enumerate() {
        if written[..index].contains(version) {
            problems.add(&at.index(index), "this version stands here twice");
        }
    }
    let version = |version: &TunnelVersion| match version {
        TunnelVersion::V1 => Version::V1,
        TunnelVersion::V3 => Version::V3,
    };
    written.iter().map(version).collect()
}

fn addresses(written: &[String], at: &At, problems: &mut Problems) -> Vec<Address> {
    let mut found: Vec<Address> = Vec::with_capacity(written.len());
    for (index, text) in written.iter().enumerate() {
        let at = at.index(index);
        match text.parse::<Address>() {
            Ok(address) if found.contains(&address) => {
                problems.add(&at, format!("`{text}` stands here twice"));
            }
            Ok(address) if is_bare(text) => found.push(address),
            Ok(_) => {
                let problem = problems.add(&at, format!("`{text}` has a path: the protocol has its own"));
                problem.hint("write scheme, host and port only");
            }
            Err(_) => {
                let problem = problems.add(&at, format!("`{text}` is no address of a gateway"));
                problem.hint("\"wss://gateway.example:9070\", or ws:// without TLS");
            }
        }
    }
    found
}

/// Whether nothing but a slash stands behind host and port.
fn is_bare(text: &str) -> bool {
    let rest = text.split_once("://").map_or(text, |(_, rest)| rest);
    rest.find(['/', '?']).is_none_or(|place| &rest[place..] == "/")
}

fn check_target(text: &str, at: &At, problems: &mut Problems) -> Option<Address> {
    let scheme = text.split_once("://").map_or("", |(scheme, _)| scheme);
    let parsed = text.parse::<Address>().ok().filter(|_| matches!(scheme, "http" | "https"));
    let hint = "target = \"http://localhost:5000\"";
    match parsed {
        Some(address) if is_bare(text) => Some(address),
        Some(_) => {
            problems.add(at, format!("`{text}` has a path: requests keep the one they came with")).hint(hint);
            None
        }
        None if matches!(scheme, "h2" | "h2c" | "grpc") => {
            let problem = problems.add(at, format!("`{scheme}` is no scheme of a target"));
            problem.hint("write http:// or https://, and protocol = \"http2\" beside it");
            None
        }
        None => {
            problems.add(at, format!("`{text}` is no address of a target")).hint(hint);
            None
        }
    }
}

/// A route or a domain.
fn text<'a>(text: &'a str, at: &At, problems: &mut Problems) -> &'a str {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"/_.-~%:@!$&'()+,;=[]*".contains(&byte);
    if text.is_empty() || text.len() > LONGEST || !text.bytes().all(is_allowed) {
        let problem = problems.add(at, format!("`{text}` cannot be registered"));
        problem.hint("letters, digits, `-`, `.`, `_`, and `/` between them; or `*`");
    }
    text
}

fn label(text: &str, at: &At, problems: &mut Problems) -> String {
    if text.len() > LONGEST || text.chars().any(char::is_control) {
        problems.add(at, format!("a name has at most {LONGEST} bytes and no control characters"));
    }
    text.to_owned()
}

fn check_headers(written: &BTreeMap<String, String>, at: &At, problems: &mut Problems) -> Vec<Header> {
    let mut headers = Vec::with_capacity(written.len());
    for (name, value) in written {
        let at = at.key(name);
        let lower = name.to_ascii_lowercase();
        if OURS.contains(&&*lower) {
            problems.add(&at, format!("`{name}` belongs to the protocol itself"));
            continue;
        }
        if !value.bytes().all(|byte| byte == b'\t' || (0x20..0x7f).contains(&byte)) {
            problems.add(&at, "a value has printable ASCII only").withhold();
            continue;
        }
        match FieldName::new(name) {
            Some(name) => headers.push((name, value.clone())),
            None => _ = problems.add(&at, format!("`{name}` is no name of a field")),
        }
    }
    headers
}
