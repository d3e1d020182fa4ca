//! Heads, chunks and trailers to bytes, always as HTTP/1.1 (RFC 9112; RFC 9110 section 7.6).
//!
//! Promise: one pass over the fields, no allocation but the growth of `out`. What is for one connection only
//! never crosses to the next; the framing that is written is the one that was given, whatever the fields say;
//! order and case of everything else stay.
//!
//! Never written as found: Connection, Keep-Alive, Proxy-Connection, HTTP2-Settings, TE, Transfer-Encoding,
//! Content-Length; Upgrade only for an upgrade; Trailer only before chunks; and what Connection names. But a
//! peer may not use Connection to remove what others rely on: fields that the gateway wrote or changed stay,
//! and so do, whoever wrote them,
//! * Host, Origin, Expect, Range, Cache-Control and every Content- field,
//! * Authorization, Proxy-Authorization, WWW-Authenticate, Proxy-Authenticate, Cookie, Set-Cookie,
//! * Forwarded, Via, X-Forwarded-For, -Host, -Port and -Proto, X-Real-IP,
//! * X-Request-Id, Traceparent, Tracestate,
//! * the Sec-WebSocket fields.

use super::options::{connection_options, members};
use super::{Framing, trailer};
use crate::fields::{Field, Fields};
use crate::head::{RequestHead, ResponseHead, Version};
use crate::name::NameId;

/// Behind the data of each chunk.
pub const CHUNK_END: &[u8] = b"\r\n";

/// The end of a chunked body without trailers.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// What becomes of the connection after the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Persist {
    /// The next message follows.
    KeepAlive,
    /// It is closed.
    Close,
    /// It speaks another protocol: the head asks for it, or (101) agrees.
    Upgrade,
}

/// Writes the head of a request.
///
/// `Framing::Close` cannot be said of a request and is written as no body. `TE: trailers` is passed on, as the
/// only coding that another hop may promise. A request without Host (HTTP/1.0, HTTP/2) gets the one of its
/// target, as HTTP/1.1 must have one.
pub fn request_head(head: &RequestHead, framing: Framing, persist: Persist, out: &mut Vec<u8>) {
    out.reserve(512);
    put(out, head.method_text().as_bytes());
    out.push(b' ');
    put(out, head.target().as_bytes());
    put(out, b" HTTP/1.1\r\n");
    let announce = match framing {
        Framing::None | Framing::Close => Announce::Nothing,
        Framing::Length(length) => Announce::Length(length),
        Framing::Chunked => Announce::Chunked,
    };
    let is_upgrade = persist == Persist::Upgrade;
    let seen = put_fields(&head.fields, announce, is_upgrade, out);
    if !seen.host {
        put_line(out, b"Host", head.authority().as_bytes());
    }
    let wants_trailers = seen.te_trailers && head.version != Version::Http10;
    if wants_trailers {
        put_line(out, b"TE", b"trailers");
    }
    put_connection(
        out,
        [
            (persist == Persist::Close).then_some("close"),
            is_upgrade.then_some("upgrade"),
            wants_trailers.then_some("TE"),
        ],
    );
    put(out, b"\r\n");
}

/// Writes the head of a final response, or of 101, to a client that speaks `client`.
///
/// `Framing::None` says that no body follows because of the request or the status (HEAD, 304): then
/// Content-Length stays as it is. For an empty body give `Length(0)`. 1xx and 204 never have a Content-Length;
/// neither may a 2xx to CONNECT, but only the caller knows that one. `Chunked` is not for HTTP/1.0 clients.
pub fn response_head(
    head: &ResponseHead,
    framing: Framing,
    client: Version,
    persist: Persist,
    out: &mut Vec<u8>,
) {
    let announce = match (head.status, framing) {
        (100..=199 | 204, _) | (_, Framing::Close) => Announce::Nothing,
        (_, Framing::None) if persist == Persist::Upgrade => Announce::Nothing,
        (_, Framing::None) => Announce::AsFound,
        (_, Framing::Length(length)) => Announce::Length(length),
        (_, Framing::Chunked) => Announce::Chunked,
    };
    // 426 must say which protocol it wants (RFC 9110 section 15.5.22).
    let is_upgrade = persist == Persist::Upgrade || head.status == 426;
    let is_last = persist == Persist::Close || framing == Framing::Close;
    put_status_line(head, out);
    put_fields(&head.fields, announce, is_upgrade, out);
    put_connection(
        out,
        [
            is_last.then_some("close"),
            (!is_last && client == Version::Http10).then_some("keep-alive"),
            is_upgrade.then_some("upgrade"),
        ],
    );
    put(out, b"\r\n");
}

/// Writes the head of an interim response (RFC 9110 section 15.2), except 101. HTTP/1.0 clients know none.
pub fn interim_head(head: &ResponseHead, out: &mut Vec<u8>) {
    put_status_line(head, out);
    put_fields(&head.fields, Announce::Nothing, false, out);
    put(out, b"\r\n");
}

/// Writes what stands before the data of a chunk of `len` bytes. An empty chunk would end the body: 0 writes
/// nothing, and [`CHUNK_END`] must not follow then.
pub fn chunk_start(len: usize, out: &mut Vec<u8>) {
    if len == 0 {
        return;
    }
    let digits = (usize::BITS - len.leading_zeros()).div_ceil(4);
    for digit in (0..digits).rev() {
        out.push(b"0123456789abcdef"[(len >> (digit * 4)) & 0xf]);
    }
    put(out, b"\r\n");
}

/// Writes the end of a chunked body with trailers. Fields that may not be trailers are left out.
pub fn trailers(fields: &Fields, out: &mut Vec<u8>) {
    put(out, b"0\r\n");
    for (id, name, value) in fields.iter() {
        if trailer::is_allowed(id) {
            put_line(out, name, value);
        }
    }
    put(out, b"\r\n");
}

/// What the head says about the body.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Announce {
    Nothing,
    /// The Content-Length that is there.
    AsFound,
    Length(u64),
    Chunked,
}

impl Announce {
    /// Writes it in place of a field that stood there, so that order and case stay.
    fn put(self, fields: &Fields, field: &Field, out: &mut Vec<u8>) -> bool {
        let name = fields.text.get(field.name);
        match (self, field.id) {
            (Announce::AsFound, NameId::ContentLength) => put_line(out, name, fields.text.get(field.value)),
            (Announce::Length(length), NameId::ContentLength) => put_number(out, name, length),
            (Announce::Chunked, NameId::TransferEncoding) => put_line(out, name, b"chunked"),
            _ => return false,
        }
        true
    }

    /// Writes it as a field of our own.
    fn put_new(self, out: &mut Vec<u8>) {
        match self {
            Announce::Nothing | Announce::AsFound => {}
            Announce::Length(length) => put_number(out, b"Content-Length", length),
            Announce::Chunked => put_line(out, b"Transfer-Encoding", b"chunked"),
        }
    }
}

/// What was seen among the fields.
#[derive(Default)]
struct Seen {
    host: bool,
    te_trailers: bool,
}

fn put_fields(fields: &Fields, announce: Announce, is_upgrade: bool, out: &mut Vec<u8>) -> Seen {
    let has_named = connection_options(fields).any(is_field_name);
    let mut seen = Seen::default();
    let mut is_announced = false;
    for field in &fields.list {
        match field.id {
            NameId::Connection | NameId::KeepAlive | NameId::ProxyConnection | NameId::Http2Settings => {}
            NameId::TransferEncoding | NameId::ContentLength => {
                is_announced = is_announced || announce.put(fields, field, out);
            }
            NameId::Te => seen.te_trailers |= says_trailers(fields.text.get(field.value)),
            NameId::Upgrade if !is_upgrade => {}
            NameId::Trailer if announce != Announce::Chunked => {}
            NameId::Upgrade | NameId::Trailer => put_field(fields, field, out),
            NameId::Host => {
                seen.host = true;
                put_field(fields, field, out);
            }
            _ if has_named && is_named(fields, field) => {}
            _ => put_field(fields, field, out),
        }
    }
    if !is_announced {
        announce.put_new(out);
    }
    seen
}

/// Whether a Connection option may be the name of a field, other than those that are dropped anyway.
fn is_field_name(option: &[u8]) -> bool {
    !["close", "keep-alive", "upgrade", "te"]
        .iter()
        .any(|known| option.eq_ignore_ascii_case(known.as_bytes()))
}

/// Whether the sender named this field in Connection, and may.
#[cold]
fn is_named(fields: &Fields, field: &Field) -> bool {
    let name = fields.text.get(field.name);
    let is_as_received = field.name.is_received() && field.value.is_received();
    is_as_received
        && !is_end_to_end(field.id, name)
        && connection_options(fields).any(|option| option.eq_ignore_ascii_case(name))
}

/// The fields listed at the top.
fn is_end_to_end(id: NameId, name: &[u8]) -> bool {
    let is_critical = matches!(
        id,
        NameId::Host
            | NameId::Origin
            | NameId::Expect
            | NameId::Range
            | NameId::CacheControl
            | NameId::Authorization
            | NameId::ProxyAuthorization
            | NameId::WwwAuthenticate
            | NameId::ProxyAuthenticate
            | NameId::Cookie
            | NameId::SetCookie
            | NameId::Forwarded
            | NameId::Via
            | NameId::XForwardedFor
            | NameId::XForwardedHost
            | NameId::XForwardedPort
            | NameId::XForwardedProto
            | NameId::XRealIp
            | NameId::XRequestId
            | NameId::Traceparent
            | NameId::Tracestate
            | NameId::SecWebSocketAccept
            | NameId::SecWebSocketKey
            | NameId::SecWebSocketProtocol
            | NameId::SecWebSocketVersion
    );
    let starts_with = |prefix: &str| {
        name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix.as_bytes()))
    };
    is_critical || starts_with("content-") || starts_with("sec-websocket-")
}

fn says_trailers(value: &[u8]) -> bool {
    members(value).any(|member| member.eq_ignore_ascii_case(b"trailers"))
}

fn put_status_line(head: &ResponseHead, out: &mut Vec<u8>) {
    out.reserve(512);
    let status = head.status.clamp(100, 999);
    let digit = |value: u16| b'0' + (value % 10) as u8;
    put(out, b"HTTP/1.1 ");
    put(out, &[digit(status / 100), digit(status / 10), digit(status), b' ']);
    put(out, head.reason());
    put(out, b"\r\n");
}

fn put_connection(out: &mut Vec<u8>, options: [Option<&str>; 3]) {
    let mut lead: &[u8] = b"Connection: ";
    for option in options.into_iter().flatten() {
        put(out, lead);
        put(out, option.as_bytes());
        lead = b", ";
    }
    if lead == b", " {
        put(out, b"\r\n");
    }
}

#[inline]
fn put_field(fields: &Fields, field: &Field, out: &mut Vec<u8>) {
    put_line(out, fields.text.get(field.name), fields.text.get(field.value));
}

#[inline]
fn put_line(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.reserve(name.len() + value.len() + 4);
    put(out, name);
    put(out, b": ");
    put(out, value);
    put(out, b"\r\n");
}

fn put_number(out: &mut Vec<u8>, name: &[u8], mut number: u64) {
    // An u64 has at most 20 digits.
    let mut digits = [b'0'; 20];
    let mut first = digits.len() - 1;
    loop {
        digits[first] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
        first -= 1;
    }
    put_line(out, name, &digits[first..]);
}

#[inline]
fn put(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(bytes);
}
