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
pub(super) fn is_field_name(option: &[u8]) -> bool {
    !["close", "keep-alive", "upgrade", "te"]
        .iter()
        .any(|known| option.eq_ignore_ascii_case(known.as_bytes()))
}

/// Whether the sender named this field in Connection, and may.
#[cold]
pub(super) fn is_named(fields: &Fields, field: &Field) -> bool {
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

pub(super) fn says_trailers(value: &[u8]) -> bool {
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

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::h1::{Limits, parse};
    use crate::head::Method;
    use crate::name::FieldName;

    fn received(lines: &[&str]) -> (RequestHead, Framing) {
        let text = format!("{}\r\n\r\n", lines.join("\r\n"));
        parse::request(Bytes::from(text), &Limits::default()).unwrap()
    }

    fn answered(lines: &[&str], method: Method) -> (ResponseHead, Framing) {
        let text = format!("{}\r\n\r\n", lines.join("\r\n"));
        parse::response(Bytes::from(text), method, &Limits::default()).unwrap()
    }

    fn lines(out: &[u8]) -> Vec<String> {
        let text = std::str::from_utf8(out).unwrap().strip_suffix("\r\n\r\n").unwrap();
        text.split("\r\n").map(str::to_owned).collect()
    }

    fn request(head: &RequestHead, framing: Framing, persist: Persist) -> Vec<String> {
        let mut out = Vec::new();
        request_head(head, framing, persist, &mut out);
        lines(&out)
    }

    fn response(head: &ResponseHead, framing: Framing, client: Version, persist: Persist) -> Vec<String> {
        let mut out = Vec::new();
        response_head(head, framing, client, persist, &mut out);
        lines(&out)
    }

    #[test]
    fn a_request_keeps_order_case_and_bytes() {
        let (head, framing) = received(&[
            "PATCH /a?b=\u{e9} HTTP/1.1",
            "X-b:1",
            "hOST: a",
            "content-LENGTH: 007",
            "x-B: 2 ",
            "X-Empty:",
        ]);
        let mut out = b"before".to_vec();
        request_head(&head, framing, Persist::KeepAlive, &mut out);
        let expected = "beforePATCH /a?b=\u{e9} HTTP/1.1\r\nX-b: 1\r\nhOST: a\r\ncontent-LENGTH: 7\r\nx-B: 2\r\n\
                        X-Empty: \r\n\r\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn a_request_says_the_framing_it_is_given() {
        let (head, _) = received(&["POST / HTTP/1.1", "Host: a", "transfer-encoding: Chunked", "A: b"]);
        let say = |framing| request(&head, framing, Persist::KeepAlive);
        let start = ["POST / HTTP/1.1", "Host: a"];
        assert_eq!(say(Framing::Chunked), [&start[..], &["transfer-encoding: chunked", "A: b"]].concat());
        assert_eq!(say(Framing::Length(0)), [&start[..], &["A: b", "Content-Length: 0"]].concat());
        let most = say(Framing::Length(u64::MAX));
        assert_eq!(most[3], "Content-Length: 18446744073709551615");
        assert_eq!(say(Framing::None), [&start[..], &["A: b"]].concat());
        assert_eq!(say(Framing::Close), [&start[..], &["A: b"]].concat());
        let (head, _) = received(&["POST / HTTP/1.1", "Host: a", "Content-Length: 3"]);
        let chunked = request(&head, Framing::Chunked, Persist::KeepAlive);
        assert_eq!(chunked, [&start[..], &["Transfer-Encoding: chunked"]].concat());
    }

    #[test]
    fn a_repeated_framing_field_is_written_once() {
        let mut head = RequestHead::new("POST", "/");
        head.fields.append(NameId::Host, b"a");
        head.fields.append(NameId::ContentLength, b"1");
        head.fields.append(NameId::ContentLength, b"2");
        head.fields.append(NameId::TransferEncoding, b"gzip");
        let once = request(&head, Framing::Length(9), Persist::KeepAlive);
        assert_eq!(once, ["POST / HTTP/1.1", "Host: a", "Content-Length: 9"]);
    }

    #[test]
    fn what_is_for_one_connection_does_not_cross_it() {
        let (head, _) = received(&[
            "GET / HTTP/1.1",
            "Host: a",
            "Connection: keep-alive, X-Hop, Foo",
            "Keep-Alive: timeout=5",
            "Proxy-Connection: keep-alive",
            "x-hop: 1",
            "TE: gzip",
            "Trailer: X",
            "Upgrade: h2c",
            "HTTP2-Settings: AAA",
            "Proxy-Authorization: Basic x",
            "X-Stays: 1",
        ]);
        let start = ["GET / HTTP/1.1", "Host: a", "Proxy-Authorization: Basic x", "X-Stays: 1"];
        assert_eq!(request(&head, Framing::None, Persist::KeepAlive), start);
        let close = request(&head, Framing::None, Persist::Close);
        assert_eq!(close, [&start[..], &["Connection: close"]].concat());
    }

    #[test]
    fn connection_cannot_remove_what_others_rely_on() {
        let stay = [
            "Host: a",
            "Authorization: x",
            "Cookie: a=b",
            "Content-Type: a/b",
            "Content-Other: c",
            "Forwarded: for=x",
            "X-Forwarded-For: 1.2.3.4",
            "X-Real-IP: 1",
            "Via: 1.1 x",
            "X-Request-Id: 7",
            "Traceparent: 00",
            "Sec-WebSocket-Extensions: x",
        ];
        let names: Vec<&str> = stay.iter().map(|line| line.split(':').next().unwrap()).collect();
        let connection = format!("Connection: {}", names.join(","));
        let (head, framing) = received(&[&["GET / HTTP/1.1"], &stay[..], &[&connection]].concat());
        let expected = [&["GET / HTTP/1.1"], &stay[..]].concat();
        assert_eq!(request(&head, framing, Persist::KeepAlive), expected);
    }

    #[test]
    fn connection_cannot_remove_what_the_gateway_wrote() {
        let (mut head, framing) = received(&[
            "GET / HTTP/1.1",
            "Host: a",
            "Connection: X-Consumer, X-Role, X-Old, X-New",
            "X-Role: admin",
            "X-Old: 1",
            "X-Hop: 2",
        ]);
        let name = |text: &str| FieldName::new(text).unwrap();
        head.fields.append(&name("X-Consumer"), b"shop");
        head.fields.set(&name("X-Role"), b"user");
        head.fields.rename(&name("X-Hop"), &name("X-New"));
        let expected = ["GET / HTTP/1.1", "Host: a", "X-Role: user", "X-New: 2", "X-Consumer: shop"];
        assert_eq!(request(&head, framing, Persist::KeepAlive), expected);
    }

    #[test]
    fn te_is_reduced_to_trailers_and_trailer_stays_before_chunks() {
        let (head, _) = received(&["GET / HTTP/1.1", "Host: a", "TE: gzip;q=0.5, Trailers", "Trailer: X"]);
        let start = ["GET / HTTP/1.1", "Host: a"];
        let plain = request(&head, Framing::None, Persist::KeepAlive);
        assert_eq!(plain, [&start[..], &["TE: trailers", "Connection: TE"]].concat());
        let close = request(&head, Framing::Chunked, Persist::Close);
        let tail = ["Trailer: X", "Transfer-Encoding: chunked", "TE: trailers", "Connection: close, TE"];
        assert_eq!(close, [&start[..], &tail].concat());
        let (head, _) = received(&["GET / HTTP/1.0", "Host: a", "TE: trailers"]);
        assert_eq!(request(&head, Framing::None, Persist::KeepAlive), start);
    }

    #[test]
    fn an_upgrade_is_asked_for_only_when_it_is_meant() {
        let head = ["GET /chat HTTP/1.1", "Host: a", "Connection: Upgrade", "Upgrade: websocket"];
        let (head, framing) = received(&head);
        let upgrade = request(&head, framing, Persist::Upgrade);
        let expected = ["GET /chat HTTP/1.1", "Host: a", "Upgrade: websocket", "Connection: upgrade"];
        assert_eq!(upgrade, expected);
        assert_eq!(request(&head, framing, Persist::KeepAlive), ["GET /chat HTTP/1.1", "Host: a"]);
        let (head, framing) = answered(
            &[
                "HTTP/1.1 101 Switching Protocols",
                "Upgrade: websocket",
                "Connection: upgrade",
                "Content-Length: 0",
            ],
            Method::Get,
        );
        let expected = ["HTTP/1.1 101 Switching Protocols", "Upgrade: websocket", "Connection: upgrade"];
        assert_eq!(response(&head, framing, Version::Http11, Persist::Upgrade), expected);
    }

    #[test]
    fn a_request_without_host_gets_the_one_of_its_target() {
        let (head, framing) = received(&["GET http://b.example:81/x HTTP/1.0"]);
        let expected = ["GET http://b.example:81/x HTTP/1.1", "Host: b.example:81"];
        assert_eq!(request(&head, framing, Persist::KeepAlive), expected);
        let (head, framing) = received(&["GET / HTTP/1.0"]);
        assert_eq!(request(&head, framing, Persist::KeepAlive), ["GET / HTTP/1.1", "Host: "]);
    }

    #[test]
    fn a_response_says_the_framing_it_is_given() {
        let (head, _) = answered(
            &[
                "HTTP/1.0 200 Fine \u{e9}",
                "Server: x",
                "content-length: 5",
                "Connection: x-a",
                "X-A: 1",
                "B: 2",
            ],
            Method::Get,
        );
        let say = |framing| response(&head, framing, Version::Http11, Persist::KeepAlive);
        let start = ["HTTP/1.1 200 Fine \u{e9}", "Server: x"];
        assert_eq!(say(Framing::Length(6)), [&start[..], &["content-length: 6", "B: 2"]].concat());
        assert_eq!(say(Framing::Length(0)), [&start[..], &["content-length: 0", "B: 2"]].concat());
        assert_eq!(say(Framing::Chunked), [&start[..], &["B: 2", "Transfer-Encoding: chunked"]].concat());
        assert_eq!(say(Framing::Close), [&start[..], &["B: 2", "Connection: close"]].concat());
    }

    #[test]
    fn an_answer_without_body_keeps_the_length_it_describes() {
        let none = |status: u16, persist| {
            let start = format!("HTTP/1.1 {status} x");
            let (head, framing) = answered(&[&start, "Content-Length: 5"], Method::Head);
            response(&head, framing, Version::Http11, persist)[1..].to_vec()
        };
        assert_eq!(none(200, Persist::KeepAlive), ["Content-Length: 5"]);
        assert_eq!(none(304, Persist::KeepAlive), ["Content-Length: 5"]);
        assert_eq!(none(204, Persist::KeepAlive), [""; 0]);
        assert_eq!(none(204, Persist::Close), ["Connection: close"]);
        let head = ResponseHead::new(204);
        let expected = ["HTTP/1.1 204 No Content"];
        assert_eq!(response(&head, Framing::Length(0), Version::Http11, Persist::KeepAlive), expected);
    }

    #[test]
    fn an_old_client_is_told_that_the_connection_stays() {
        let head = ResponseHead::new(200);
        let say = |framing, persist| response(&head, framing, Version::Http10, persist)[1..].to_vec();
        let length = "Content-Length: 1";
        assert_eq!(say(Framing::Length(1), Persist::KeepAlive), [length, "Connection: keep-alive"]);
        assert_eq!(say(Framing::Length(1), Persist::Close), [length, "Connection: close"]);
        assert_eq!(say(Framing::Close, Persist::KeepAlive), ["Connection: close"]);
    }

    #[test]
    fn only_426_says_upgrade_without_being_one() {
        let say = |status: &str| {
            let (head, framing) = answered(&[status, "Upgrade: websocket", "Content-Length: 0"], Method::Get);
            response(&head, framing, Version::Http11, Persist::KeepAlive)[1..].to_vec()
        };
        let expected = ["Upgrade: websocket", "Content-Length: 0", "Connection: upgrade"];
        assert_eq!(say("HTTP/1.1 426 Upgrade Required"), expected);
        assert_eq!(say("HTTP/1.1 200 OK"), ["Content-Length: 0"]);
    }

    #[test]
    fn an_interim_response_has_neither_framing_nor_options() {
        let (head, _) = answered(
            &["HTTP/1.1 103 Early Hints", "Link: </a>", "Content-Length: 3", "Connection: close"],
            Method::Get,
        );
        let mut out = Vec::new();
        interim_head(&head, &mut out);
        assert_eq!(lines(&out), ["HTTP/1.1 103 Early Hints", "Link: </a>"]);
    }

    #[test]
    fn chunks_and_trailers_are_written_byte_for_byte() {
        let mut out = Vec::new();
        for len in [1, 15, 16, 255, 0x1000, usize::MAX, 0] {
            chunk_start(len, &mut out);
        }
        assert_eq!(out, b"1\r\nf\r\n10\r\nff\r\n1000\r\nffffffffffffffff\r\n");
        let mut fields = Fields::new();
        fields.append(&FieldName::new("X-Sum").unwrap(), b"1");
        fields.append(NameId::ContentLength, b"9");
        fields.append(NameId::GrpcStatus, b"0");
        out.clear();
        trailers(&fields, &mut out);
        assert_eq!(out, b"0\r\nX-Sum: 1\r\nGrpc-Status: 0\r\n\r\n");
        out.clear();
        trailers(&Fields::new(), &mut out);
        assert_eq!(out, LAST_CHUNK);
    }
}
