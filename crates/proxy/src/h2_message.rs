//! Heads and trailers between our form and the one of the h2 and http crates, for both sides of the gateway.
//!
//! Promise: what is accepted over HTTP/2 obeys the rules of HTTP/1 heads and has one reading only (RFC 9113
//! section 8; what is for one HTTP/1 connection makes a message malformed, section 8.2.2); what is sent holds
//! no such field. An extended CONNECT (RFC 8441) and an HTTP/1.1 upgrade are two spellings of one request.

use std::sync::LazyLock;

use bytes::Bytes;
use h2::ext::Protocol;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::uri::{Authority, PathAndQuery};
use sluice_http::h1::{self, Framing, Persist, Refusal};
use sluice_http::{Fields, Name, NameId, RequestHead, ResponseHead, Version};

use crate::facts::Scheme;

/// Room for the fields a gateway adds, as lines and as bytes: they do not move what is there.
const SPARE: (usize, usize) = (8, 256);

/// The head of a request that came over HTTP/2. :authority becomes the Host, at the front; the crumbs of
/// Cookie become one line; an extended CONNECT becomes a GET with Connection and Upgrade, to which the caller
/// adds Sec-WebSocket-Key where the protocol is websocket.
///
/// # Errors
/// The first rule that is broken. Host may stand beside :authority when it names the same.
pub fn request_head(parts: &http::request::Parts) -> Result<RequestHead, Refusal> {
    let protocol = parts.extensions.get::<Protocol>().map(Protocol::as_str);
    let authority = parts.uri.authority().map(Authority::as_str);
    let (method, target) = start(parts, protocol, authority)?;
    let mut fields = room(&parts.headers, method.len() + target.len() + authority.map_or(0, str::len));
    match (authority, single(&parts.headers, &http::header::HOST)?) {
        (Some(authority), Some(host)) if !host.as_bytes().eq_ignore_ascii_case(authority.as_bytes()) => {
            return Err(Refusal::BadHost);
        }
        (Some(authority), _) => fields.append(NameId::Host, authority.as_bytes()),
        (None, Some(host)) => fields.append(NameId::Host, host.as_bytes()),
        (None, None) => return Err(Refusal::HostMissing),
    }
    for (name, value) in &parts.headers {
        let name = Name::received(name.as_str());
        match name.id() {
            NameId::Host | NameId::Cookie => {}
            NameId::Te if value != "trailers" => return Err(Refusal::ConnectionField),
            _ => append(&mut fields, name, value)?,
        }
    }
    join_cookies(&parts.headers, &mut fields)?;
    if let Some(protocol) = protocol {
        fields.append(NameId::Connection, b"Upgrade");
        fields.append(NameId::Upgrade, protocol.as_bytes());
    }
    let head = RequestHead::with_fields(method, target, Version::Http2, fields);
    h1::check(&head)?;
    Ok(head)
}

/// Method and target as they would stand in a start line.
fn start<'a>(
    parts: &'a http::request::Parts,
    protocol: Option<&str>,
    authority: Option<&'a str>,
) -> Result<(&'a str, &'a str), Refusal> {
    if protocol.is_some_and(|protocol| sluice_http::FieldName::new(protocol).is_none()) {
        return Err(Refusal::BadStartLine);
    }
    let method = if protocol.is_some() { "GET" } else { parts.method.as_str() };
    if method == "CONNECT" {
        return Ok((method, authority.ok_or(Refusal::BadTarget)?));
    }
    let target = parts.uri.path_and_query().map_or("", PathAndQuery::as_str);
    match target.starts_with('/') || (target == "*" && method == "OPTIONS") {
        true => Ok((method, target)),
        false => Err(Refusal::BadTarget),
    }
}

/// Empty fields with room for all of these.
fn room(headers: &HeaderMap, more: usize) -> Fields {
    let bytes: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 2).sum();
    Fields::with_capacity(headers.len() + SPARE.0, bytes + more + SPARE.1)
}

fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a HeaderValue>, Refusal> {
    let mut all = headers.get_all(name).iter();
    let first = all.next();
    match all.next() {
        None => Ok(first),
        Some(_) => Err(Refusal::HostRepeated),
    }
}

/// Adds a field line that came over HTTP/2.
fn append(fields: &mut Fields, name: Name<'_>, value: &HeaderValue) -> Result<(), Refusal> {
    let value = value.as_bytes();
    let is_blank = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    if is_for_connection(name.id()) {
        return Err(Refusal::ConnectionField);
    }
    // RFC 9113 section 8.2.1.
    if is_blank(value.first()) || is_blank(value.last()) {
        return Err(Refusal::BadValue);
    }
    fields.append(name, value);
    Ok(())
}

const fn is_for_connection(id: NameId) -> bool {
    matches!(
        id,
        NameId::Connection
            | NameId::KeepAlive
            | NameId::ProxyConnection
            | NameId::TransferEncoding
            | NameId::Upgrade
            | NameId::Http2Settings
    )
}

/// RFC 9113 section 8.2.3: one line where there were several.
fn join_cookies(headers: &HeaderMap, fields: &mut Fields) -> Result<(), Refusal> {
    let mut crumbs = headers.get_all(http::header::COOKIE).iter();
    let Some(first) = crumbs.next() else { return Ok(()) };
    let Some(second) = crumbs.next() else { return append(fields, NameId::Cookie.into(), first) };
    let mut joined = Vec::with_capacity(256);
    joined.extend_from_slice(first.as_bytes());
    for crumb in std::iter::once(second).chain(crumbs) {
        joined.extend_from_slice(b"; ");
        joined.extend_from_slice(crumb.as_bytes());
    }
    fields.append(NameId::Cookie, &joined);
    Ok(())
}

/// An answer for a client that speaks HTTP/2. `framing` as for [`h1::response_head`]: `None` for answers to
/// HEAD and for 304. A 101 becomes the 200 that accepts an extended CONNECT.
pub fn response_parts(head: &ResponseHead, framing: Framing) -> http::Response<()> {
    let switches = head.status == 101;
    let status = if switches { 200 } else { head.status.clamp(100, 999) };
    let mut response = http::Response::new(());
    *response.status_mut() = http::StatusCode::from_u16(status).unwrap_or_default();
    *response.version_mut() = http::Version::HTTP_2;
    let headers = response.headers_mut();
    headers.reserve(head.fields.len() + 1);
    let length = match (head.status, framing) {
        (100..=199 | 204, _) => Length::Nothing,
        (_, Framing::None) => Length::AsFound,
        (_, Framing::Length(length)) => Length::Of(length),
        _ => Length::Nothing,
    };
    for (id, name, value) in h1::crossing(&head.fields) {
        match id {
            NameId::ContentLength if length != Length::AsFound => {}
            NameId::Te => {}
            NameId::SecWebSocketAccept if switches => {}
            _ => put(headers, (id, name), value),
        }
    }
    length.put(headers);
    response
}

/// What the head says about the body's length.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Length {
    Nothing,
    AsFound,
    Of(u64),
}

impl Length {
    fn put(self, headers: &mut HeaderMap) {
        if let Length::Of(length) = self {
            headers.append(http::header::CONTENT_LENGTH, HeaderValue::from(length));
        }
    }
}

/// The names this crate knows, as the http crate's: its own constants where it has them.
static NAMES: LazyLock<Box<[Option<HeaderName>]>> = LazyLock::new(|| {
    NameId::ALL.iter().map(|id| HeaderName::from_bytes(id.text().as_bytes()).ok()).collect()
});

/// Fields whose values hardly ever come twice. They are sent as literals that enter no compression table (RFC
/// 7541 section 6.2.3): each would push out what does come again, and the h2 crate compares a value with all
/// earlier ones of its name in the table (measured: 5 % of a request's time for X-Request-Id alone).
fn differs_each_time(id: NameId) -> bool {
    use NameId::{Date, Traceparent, XForwardedFor, XRequestId};
    matches!(id, Date | Traceparent | XForwardedFor | XRequestId)
}

/// Adds a field; one that HTTP/2 cannot carry is left out. No field of a head that was parsed is one.
fn put(headers: &mut HeaderMap, (id, name): (NameId, &[u8]), value: Bytes) {
    let name = match NAMES.get(id as usize) {
        Some(Some(known)) => known.clone(),
        _ => match HeaderName::from_bytes(name) {
            Ok(name) => name,
            Err(_) => return,
        },
    };
    if let Ok(mut value) = HeaderValue::from_maybe_shared(value) {
        value.set_sensitive(differs_each_time(id));
        // More fields than the map can hold (32768) come through no limit of ours.
        let _ = headers.try_append(name, value);
    }
}

/// A request to an endpoint that speaks HTTP/2. `authority` stands in for a Host that is not there. With
/// `Persist::Upgrade` the request, a GET with Upgrade, becomes an extended CONNECT (RFC 8441 section 4): the
/// caller has seen that the endpoint takes those. `None` when its Host or target cannot be said in HTTP/2.
pub fn http_request(
    head: &RequestHead,
    (framing, persist): (Framing, Persist),
    (scheme, authority): (Scheme, &str),
) -> Option<http::Request<()>> {
    let host = match head.authority() {
        "" => authority,
        host => host,
    };
    let mut uri = http::uri::Parts::default();
    uri.scheme = Some(match scheme {
        Scheme::Http => http::uri::Scheme::HTTP,
        Scheme::Https => http::uri::Scheme::HTTPS,
    });
    uri.authority = Some(Authority::try_from(host).ok()?);
    uri.path_and_query = Some(PathAndQuery::try_from(head.path_and_query()).ok()?);
    let mut request = http::Request::new(());
    *request.uri_mut() = http::Uri::from_parts(uri).ok()?;
    *request.version_mut() = http::Version::HTTP_2;
    *request.method_mut() = http::Method::from_bytes(head.method_text().as_bytes()).ok()?;
    if persist == Persist::Upgrade {
        let protocol = head.fields.get_str(NameId::Upgrade)?.split(',').next()?.trim();
        *request.method_mut() = http::Method::CONNECT;
        request.extensions_mut().insert(Protocol::from(protocol));
    }
    let headers = request.headers_mut();
    headers.reserve(head.fields.len() + 1);
    for (id, name, value) in h1::crossing(&head.fields) {
        match id {
            NameId::Host | NameId::Te | NameId::ContentLength => {}
            NameId::SecWebSocketKey if persist == Persist::Upgrade => {}
            _ => put(headers, (id, name), value),
        }
    }
    if h1::wants_trailers(&head.fields) && head.version != Version::Http10 {
        headers.append(http::header::TE, HeaderValue::from_static("trailers"));
    }
    if let Framing::Length(length) = framing {
        Length::Of(length).put(headers);
    }
    Some(request)
}

/// The head of an answer, final or interim, that came over HTTP/2.
///
/// # Errors
/// The first rule that is broken.
pub fn response_head(parts: &http::response::Parts) -> Result<ResponseHead, Refusal> {
    let mut head = ResponseHead::new(parts.status.as_u16());
    head.version = Version::Http2;
    // HTTP/2 has no 101 (RFC 9113 section 8.6).
    if head.status == 101 {
        return Err(Refusal::BadStatus);
    }
    let mut fields = room(&parts.headers, 0);
    for (name, value) in &parts.headers {
        append(&mut fields, Name::received(name.as_str()), value)?;
    }
    head.fields = fields;
    Ok(head)
}

/// Trailers that came over HTTP/2.
///
/// # Errors
/// `BadTrailer` when a field stands among them that may not, as over HTTP/1.
pub fn trailer_fields(trailers: &HeaderMap) -> Result<Fields, Refusal> {
    let mut fields = room(trailers, 0);
    for (name, value) in trailers {
        let name = Name::received(name.as_str());
        if !h1::may_be_trailer(name.id()) {
            return Err(Refusal::BadTrailer);
        }
        append(&mut fields, name, value).map_err(|_| Refusal::BadTrailer)?;
    }
    Ok(fields)
}

/// Trailers for HTTP/2. Fields that may not be trailers are left out.
pub fn trailer_map(fields: &Fields) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(fields.len());
    for (id, name, value) in h1::crossing(fields) {
        if h1::may_be_trailer(id) {
            put(&mut headers, (id, name), value);
        }
    }
    headers
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(method: &str, uri: &str, fields: &[(&str, &str)]) -> http::request::Parts {
        let mut request = http::Request::builder().method(method).uri(uri);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn received(uri: &str, fields: &[(&str, &str)]) -> Result<Vec<(String, String)>, Refusal> {
        request_head(&parts("GET", uri, fields)).map(|head| lines(&head.fields))
    }

    fn lines(fields: &Fields) -> Vec<(String, String)> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        fields.iter().map(|(_, name, value)| (text(name), text(value))).collect()
    }

    fn owned(lines: &[(&str, &str)]) -> Vec<(String, String)> {
        lines.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn map(headers: &HeaderMap) -> Vec<(String, String)> {
        let text = |value: &HeaderValue| value.to_str().unwrap().to_owned();
        headers.iter().map(|(name, value)| (name.as_str().to_owned(), text(value))).collect()
    }

    #[test]
    fn a_request_over_http2_gets_its_authority_as_host_at_the_front() {
        let fields =
            [("x-a", "1"), ("host", "A.example"), ("accept", "*/*"), ("x-a", "2"), ("te", "trailers")];
        let head = request_head(&parts("POST", "https://a.example/x?y", &fields)).unwrap();
        assert_eq!((head.method_text(), head.target(), head.version), ("POST", "/x?y", Version::Http2));
        let expected =
            [("Host", "a.example"), ("x-a", "1"), ("x-a", "2"), ("accept", "*/*"), ("te", "trailers")];
        assert_eq!(lines(&head.fields), owned(&expected));
        assert_eq!(head.fields.get(NameId::Accept), Some(&b"*/*"[..]));
        assert_eq!(head.host(), "a.example");
    }

    #[test]
    fn a_host_stands_in_for_an_authority_and_may_not_contradict_one() {
        assert_eq!(received("/", &[("host", "b")]), Ok(owned(&[("Host", "b")])));
        assert_eq!(received("/", &[]), Err(Refusal::HostMissing));
        assert_eq!(received("http://a/", &[("host", "b")]), Err(Refusal::BadHost));
        assert_eq!(received("http://u@a/", &[]), Err(Refusal::BadHost));
        assert_eq!(received("http://a/", &[("host", "a"), ("host", "a")]), Err(Refusal::HostRepeated));
    }

    #[test]
    fn crumbs_of_cookies_become_one_line() {
        let found = received("http://a/", &[("cookie", "a=1"), ("x-b", "2"), ("cookie", "c=3")]).unwrap();
        assert_eq!(found, owned(&[("Host", "a"), ("x-b", "2"), ("Cookie", "a=1; c=3")]));
        let found = received("http://a/", &[("cookie", "a=1; b=2")]).unwrap();
        assert_eq!(found, owned(&[("Host", "a"), ("Cookie", "a=1; b=2")]));
    }

    #[test]
    fn what_is_for_one_http1_connection_is_refused() {
        for name in
            ["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade", "http2-settings"]
        {
            assert_eq!(received("http://a/", &[(name, "x")]), Err(Refusal::ConnectionField), "{name}");
        }
        assert_eq!(received("http://a/", &[("te", "gzip, trailers")]), Err(Refusal::ConnectionField));
        let answer = http::Response::builder().header("connection", "close").body(()).unwrap();
        assert_eq!(response_head(&answer.into_parts().0).unwrap_err(), Refusal::ConnectionField);
        let answer = http::Response::builder().status(101).body(()).unwrap();
        assert_eq!(response_head(&answer.into_parts().0).unwrap_err(), Refusal::BadStatus);
    }

    #[test]
    fn values_and_lengths_are_as_strict_as_over_http1() {
        assert_eq!(received("http://a/", &[("x-a", " 1")]), Err(Refusal::BadValue));
        assert_eq!(received("http://a/", &[("x-a", "1\t")]), Err(Refusal::BadValue));
        assert!(received("http://a/", &[("x-a", "")]).is_ok());
        let lengths = [("content-length", "1"), ("content-length", "1")];
        assert_eq!(received("http://a/", &lengths), Err(Refusal::BadLength));
        assert_eq!(received("http://a/", &[("content-length", "+1")]), Err(Refusal::BadLength));
    }

    #[test]
    fn targets_are_paths_or_the_asterisk_of_options() {
        let target = |method: &str, uri: &str| {
            request_head(&parts(method, uri, &[("host", "a")])).map(|head| head.target().to_owned())
        };
        assert_eq!(target("OPTIONS", "*"), Ok("*".into()));
        assert_eq!(target("GET", "*"), Err(Refusal::BadTarget));
        let connect = request_head(&parts("CONNECT", "a.example:443", &[])).unwrap();
        assert_eq!((connect.target(), connect.authority()), ("a.example:443", "a.example:443"));
        assert_eq!(request_head(&parts("CONNECT", "a.example", &[])).unwrap_err(), Refusal::BadTarget);
    }

    #[test]
    fn an_extended_connect_is_an_upgrade_and_back() {
        let mut connect = parts("CONNECT", "http://a/chat", &[("sec-websocket-version", "13")]);
        connect.extensions.insert(Protocol::from("websocket"));
        let mut head = request_head(&connect).unwrap();
        assert_eq!((head.method_text(), head.target()), ("GET", "/chat"));
        assert_eq!(h1::upgrade(&head.fields), Some(&b"websocket"[..]));
        head.fields.append(NameId::SecWebSocketKey, b"dGhlIHNhbXBsZSBub25jZQ==");
        let to = (Scheme::Https, "");
        let back = http_request(&head, (Framing::None, Persist::Upgrade), to).unwrap();
        assert_eq!(
            (back.method(), back.uri().to_string().as_str()),
            (&http::Method::CONNECT, "https://a/chat")
        );
        assert_eq!(back.extensions().get::<Protocol>().unwrap().as_str(), "websocket");
        assert_eq!(map(back.headers()), owned(&[("sec-websocket-version", "13")]));

        connect.extensions.insert(Protocol::from("web socket"));
        assert_eq!(request_head(&connect).unwrap_err(), Refusal::BadStartLine);

        let mut switched = ResponseHead::new(101);
        switched.fields.append(NameId::Upgrade, b"websocket");
        switched.fields.append(NameId::SecWebSocketAccept, b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        switched.fields.append(NameId::SecWebSocketProtocol, b"chat");
        let response = response_parts(&switched, Framing::None);
        assert_eq!(response.status(), 200);
        assert_eq!(map(response.headers()), owned(&[("sec-websocket-protocol", "chat")]));
    }

    #[test]
    fn a_request_to_an_endpoint_has_pseudo_fields_and_no_connection_fields() {
        let text = "GET /a?b HTTP/1.1\r\nHOST: a.example\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\nTE: gzip, trailers\r\n\
                    X-Thing: 2\r\nUpgrade: h2c\r\n\r\n";
        let (mut head, _) = h1::request(Bytes::from(text), &h1::Limits::default()).unwrap();
        let to = (Scheme::Http, "endpoint:1");
        let request = http_request(&head, (Framing::Length(3), Persist::KeepAlive), to).unwrap();
        assert_eq!(request.uri(), "http://a.example/a?b");
        assert_eq!(
            map(request.headers()),
            owned(&[("x-thing", "2"), ("te", "trailers"), ("content-length", "3")])
        );
        head.fields.remove(NameId::Host);
        let request = http_request(&head, (Framing::Chunked, Persist::KeepAlive), to).unwrap();
        assert_eq!(request.uri(), "http://endpoint:1/a?b");
        assert!(!request.headers().contains_key("content-length"));
        head.fields.set(NameId::Host, b"a%b");
        assert!(http_request(&head, (Framing::Chunked, Persist::KeepAlive), to).is_none());
    }

    #[test]
    fn an_answer_says_the_length_it_has_and_lower_case_names() {
        let mut head = ResponseHead::new(200);
        head.fields.append(NameId::ContentLength, b"9");
        head.fields.append(NameId::KeepAlive, b"timeout=1");
        head.fields.append(&sluice_http::FieldName::new("X-Thing").unwrap(), b"1");
        head.fields.append(NameId::SetCookie, b"a");
        head.fields.append(NameId::SetCookie, b"b");
        let fields = |framing| map(response_parts(&head, framing).headers());
        let rest = [("x-thing", "1"), ("set-cookie", "a"), ("set-cookie", "b")];
        assert_eq!(fields(Framing::Chunked), owned(&rest));
        assert_eq!(fields(Framing::Length(4)), owned(&[&rest[..], &[("content-length", "4")]].concat()));
        assert_eq!(fields(Framing::None), owned(&[&[("content-length", "9")], &rest[..]].concat()));
    }

    #[test]
    fn trailers_cross_both_ways_but_for_those_that_may_not_be_one() {
        let mut fields = Fields::new();
        fields.append(NameId::GrpcStatus, b"0");
        fields.append(NameId::ContentLength, b"1");
        let headers = trailer_map(&fields);
        assert_eq!(map(&headers), owned(&[("grpc-status", "0")]));
        assert_eq!(lines(&trailer_fields(&headers).unwrap()), owned(&[("grpc-status", "0")]));
        let mut headers = HeaderMap::new();
        headers.append("content-length", HeaderValue::from_static("1"));
        assert_eq!(trailer_fields(&headers).unwrap_err(), Refusal::BadTrailer);
    }
}
