//! One line for one exchange.
//!
//! Promise: a line ends with the only line feed in it. Facts that are not known (no route was found, no
//! endpoint was tried) have no key in JSON and a hyphen in the combined format.

use std::io::Write as _;
use std::ops::Range;
use std::time::{Duration, SystemTime};

use sluice_http::{Name, NameId, RequestHead, Version};
use sluice_tunnel::registration::Registration;

use super::config::{Layout, Plan};
use super::escape::{self, Escape};
use super::redact;
use crate::exchange::{Exchange, Outcome};
use crate::observe::timestamp::Timestamp;

/// What a line says of the request beyond the exchange's facts. It is copied when the request arrives, since
/// filters edit the head and forwarding consumes it. Reused from exchange to exchange, it allocates nothing.
#[derive(Clone, Debug, Default)]
pub struct Captured {
    text: Vec<u8>,
    /// One for each slot, then one for each extra header; `None` where the request has no such field.
    spans: Vec<Option<Range<usize>>>,
    version: Option<Version>,
}

const METHOD: usize = 0;
const TARGET: usize = 1;
const HOST: usize = 2;
const REFERER: usize = 3;
const AGENT: usize = 4;
const EXTRA: usize = 5;

impl Captured {
    /// Forgets the request before; a request whose head was refused is logged like this.
    pub fn clear(&mut self) {
        self.text.clear();
        self.spans.clear();
        self.version = None;
    }

    /// Copies what `plan` wants of the head. Secrets are not copied.
    pub(super) fn take(&mut self, head: &RequestHead, plan: &Plan) {
        self.clear();
        self.version = Some(head.version);
        self.push(head.method_text().as_bytes());
        self.push(head.target().as_bytes());
        self.push(head.host().as_bytes());
        self.push_field(head, NameId::Referer);
        self.push_field(head, NameId::UserAgent);
        for extra in &plan.headers {
            if extra.secret && head.fields.contains(&extra.name) {
                self.push(redact::REDACTED);
            } else {
                self.push_field(head, &extra.name);
            }
        }
    }

    fn push(&mut self, bytes: &[u8]) {
        let start = self.text.len();
        self.text.extend_from_slice(bytes);
        self.spans.push(Some(start..self.text.len()));
    }

    /// Several fields of a name become one value with commas, as RFC 9110 section 5.3 has it.
    fn push_field<'s, 'a: 's>(&mut self, head: &'s RequestHead, name: impl Into<Name<'a>>) {
        let start = self.text.len();
        let mut found = false;
        for value in head.fields.get_all(name) {
            if found {
                self.text.extend_from_slice(b", ");
            }
            self.text.extend_from_slice(value);
            found = true;
        }
        self.spans.push(found.then_some(start..self.text.len()));
    }

    fn get(&self, slot: usize) -> Option<&[u8]> {
        self.text.get(self.spans.get(slot)?.clone()?)
    }
}

/// An exchange that ended, with what was captured of its request.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// The exchange.
    pub exchange: &'a Exchange,
    /// What was captured of its request.
    pub request: &'a Captured,
}

impl Record<'_> {
    /// Whether a line is written for it.
    pub(super) fn is_wanted(&self, plan: &Plan) -> bool {
        let exchange = self.exchange;
        matches!(exchange.outcome, Outcome::Failed(_))
            || exchange.status >= 500
            || u64::from(hash(exchange.request_id.as_bytes())) < plan.sample
    }

    /// Appends its line; `now` is the moment it ended.
    pub(super) fn write(&self, plan: &Plan, timestamp: &mut Timestamp, now: SystemTime, out: &mut Vec<u8>) {
        match plan.layout {
            Layout::Json => self.write_json(plan, timestamp, now, out),
            Layout::Combined => self.write_combined(plan, timestamp, now, out),
        }
    }

    fn write_json(&self, plan: &Plan, timestamp: &mut Timestamp, now: SystemTime, out: &mut Vec<u8>) {
        let Exchange { client, phases, .. } = self.exchange;
        out.extend_from_slice(b"{\"time\":\"");
        timestamp.write(now, out);
        out.push(b'"');
        let mut line = Json { out };
        line.text("request_id", self.exchange.request_id.as_bytes());
        line.display("client.address", client.address);
        if client.peer.ip().to_canonical() != client.address.to_canonical() {
            line.display("network.peer.address", client.peer.ip());
        }
        self.write_json_request(plan, &mut line);
        line.text("user.name", self.exchange.user.as_deref().unwrap_or_default().as_bytes());
        let consumer = self.exchange.consumer.as_deref();
        line.text("consumer", consumer.map_or(&b""[..], |consumer| consumer.name.as_bytes()));
        if self.exchange.status > 0 {
            line.count("http.response.status_code", u64::from(self.exchange.status));
        }
        line.text("outcome", self.exchange.outcome.code().as_bytes());
        let limit = self.exchange.limits.word().filter(|word| *word != "passed");
        line.text("limit", limit.unwrap_or_default().as_bytes());
        line.text("listener", client.listener.as_bytes());
        line.text("route", self.exchange.route.as_bytes());
        line.text("upstream", self.exchange.upstream.as_bytes());
        line.text("endpoint", self.exchange.endpoint.as_bytes());
        if let Some(registration) = &self.exchange.registration {
            line.registration(registration);
        }
        line.count("attempts", u64::from(self.exchange.attempts));
        line.millis("duration_ms", Some(phases.total));
        line.millis("connect_ms", Some(phases.connected).filter(|phase| !phase.is_zero()));
        line.millis("ttfb_ms", Some(phases.first_byte).filter(|phase| !phase.is_zero()));
        line.count("bytes_in", self.exchange.received);
        line.count("bytes_out", self.exchange.sent);
        line.text("user_agent", self.request.get(AGENT).unwrap_or(b""));
        line.target("referer", self.request.get(REFERER), plan);
        for (index, extra) in plan.headers.iter().enumerate() {
            line.target(&extra.key, self.request.get(EXTRA + index), plan);
        }
        line.out.extend_from_slice(b"}\n");
    }

    fn write_json_request(&self, plan: &Plan, line: &mut Json<'_>) {
        let request = self.request;
        line.text("http.request.method", request.get(METHOD).unwrap_or(b""));
        // Connections and flows have neither version nor status.
        if request.version.is_some() || self.exchange.status > 0 {
            line.text("url.scheme", self.exchange.client.scheme.text().as_bytes());
        }
        line.text("server.address", request.get(HOST).unwrap_or(b""));
        if let Some(target) = request.get(TARGET) {
            let (path, query) = path_and_query(target);
            line.text("url.path", path);
            if let Some(query) = query {
                line.key("url.query");
                line.out.push(b'"');
                redact::query(query, &plan.parameters, escape::json, line.out);
                line.out.push(b'"');
            }
        }
        line.text("network.protocol.version", request.version.map_or("", Version::text).as_bytes());
    }

    fn write_combined(&self, plan: &Plan, timestamp: &mut Timestamp, now: SystemTime, out: &mut Vec<u8>) {
        const ESCAPE: Escape = escape::hex;
        _ = write!(out, "{} - ", self.exchange.client.address.to_canonical());
        let consumer = || self.exchange.consumer.as_ref().map(|consumer| &*consumer.name);
        match self.exchange.user.as_deref().or_else(consumer) {
            // A name with a space would look like two columns.
            Some(user) => user.split_inclusive(' ').for_each(|part| {
                ESCAPE(part.trim_end_matches(' ').as_bytes(), out);
                out.extend_from_slice(if part.ends_with(' ') { b"\\x20" } else { b"" });
            }),
            None => out.push(b'-'),
        }
        out.extend_from_slice(b" [");
        timestamp.write(now, out);
        out.extend_from_slice(b"] \"");
        if let (Some(method), Some(target), Some(version)) =
            (self.request.get(METHOD), self.request.get(TARGET), self.request.version)
        {
            ESCAPE(method, out);
            out.push(b' ');
            redact::target(target, &plan.parameters, ESCAPE, out);
            out.extend_from_slice(match version {
                Version::Http10 => b" HTTP/1.0",
                Version::Http11 => b" HTTP/1.1",
                Version::Http2 => b" HTTP/2.0",
            });
        } else {
            out.push(b'-');
        }
        out.extend_from_slice(b"\" ");
        push_or_hyphen(u64::from(self.exchange.status), out);
        out.push(b' ');
        push_or_hyphen(self.exchange.sent, out);
        out.extend_from_slice(b" \"");
        redact::target(self.request.get(REFERER).unwrap_or(b"-"), &plan.parameters, ESCAPE, out);
        out.extend_from_slice(b"\" \"");
        ESCAPE(self.request.get(AGENT).unwrap_or(b"-"), out);
        out.extend_from_slice(b"\"\n");
    }
}

/// Path and query of a target in any form; an authority (CONNECT) counts as path.
fn path_and_query(target: &[u8]) -> (&[u8], Option<&[u8]>) {
    let position = |bytes: &[u8], wanted: u8| bytes.iter().position(|byte| *byte == wanted);
    let (path, query) = match position(target, b'?') {
        Some(mark) => (&target[..mark], Some(&target[mark + 1..])),
        None => (target, None),
    };
    if path.starts_with(b"/") {
        return (path, query);
    }
    match path.windows(3).position(|three| three == b"://") {
        Some(scheme) => {
            let rest = &path[scheme + 3..];
            (position(rest, b'/').map_or(&b"/"[..], |slash| &rest[slash..]), query)
        }
        None => (path, query),
    }
}

/// FNV-1a with a final mix: the low bits alone would not be even. Not for an adversary: a request id that a
/// client may choose is believed only from trusted proxies.
fn hash(bytes: &[u8]) -> u32 {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in bytes {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    }
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xff51_afd7_ed55_8ccd);
    (hash >> 32) as u32
}

fn push_or_hyphen(value: u64, out: &mut Vec<u8>) {
    match value {
        0 => out.push(b'-'),
        value => push_decimal(value, out),
    }
}

/// `write!` costs five times as much, six times a line.
fn push_decimal(mut value: u64, out: &mut Vec<u8>) {
    let mut digits = [0; 20];
    let mut start = digits.len();
    loop {
        start -= 1;
        digits[start] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[start..]);
}

/// The rest of an object whose first member is written.
struct Json<'a> {
    out: &'a mut Vec<u8>,
}

impl Json<'_> {
    fn key(&mut self, key: &str) {
        self.out.extend_from_slice(b",\"");
        self.out.extend_from_slice(key.as_bytes());
        self.out.extend_from_slice(b"\":");
    }

    /// Nothing when the text is empty: then it is not known.
    fn text(&mut self, key: &str, text: &[u8]) {
        if !text.is_empty() {
            self.key(key);
            self.out.push(b'"');
            escape::json(text, self.out);
            self.out.push(b'"');
        }
    }

    /// A value in which a URL may stand.
    fn target(&mut self, key: &str, text: Option<&[u8]>, plan: &Plan) {
        if let Some(text) = text {
            self.key(key);
            self.out.push(b'"');
            redact::target(text, &plan.parameters, escape::json, self.out);
            self.out.push(b'"');
        }
    }

    /// What a connector announced.
    fn registration(&mut self, registration: &Registration) {
        self.text("tunnel.route", registration.route.as_deref().unwrap_or("*").as_bytes());
        self.text("tunnel.domain", registration.domain.as_deref().unwrap_or_default().as_bytes());
        self.text("tunnel.component", registration.component.as_bytes());
        self.text("tunnel.instance", registration.instance.as_deref().unwrap_or_default().as_bytes());
        self.text("tunnel.version", registration.version.text().as_bytes());
    }

    fn display(&mut self, key: &str, address: std::net::IpAddr) {
        self.key(key);
        _ = write!(self.out, "\"{}\"", address.to_canonical());
    }

    fn count(&mut self, key: &str, value: u64) {
        self.key(key);
        push_decimal(value, self.out);
    }

    fn millis(&mut self, key: &str, value: Option<Duration>) {
        let Some(value) = value else { return };
        let micros = u64::try_from(value.as_micros()).unwrap_or(u64::MAX);
        self.count(key, micros / 1_000);
        let rest = micros % 1_000;
        let digit = |value: u64| b'0' + (value % 10) as u8;
        self.out.extend_from_slice(&[b'.', digit(rest / 100), digit(rest / 10), digit(rest)]);
    }
}
