//! Bytes of a complete head to a head and the framing of its body.
//!
//! Promise: what is accepted has one reading only. httparse does the grammar at speed; this module adds what
//! it tolerates and we do not (bare LF, blanks before a response), then checks target, Host and framing. A
//! refusal names the first rule that was broken. Nothing is decoded, repaired or merged.

use std::mem::MaybeUninit;

use bytes::Bytes;
use httparse::Header;

pub use super::options::{Expectation, connection_has, expects_continue, keep_alive, upgrade};
use super::scan::BLANKS;
use super::{Framing, Limits, Refusal, diagnose, framing, target};
use crate::fields::{Field, Fields, Text};
use crate::head::{Method, RequestHead, ResponseHead, Version};
use crate::name::NameId;

/// Heads with up to this many fields are parsed without a heap array.
const ON_STACK: usize = 128;

/// Parses the head of a request: all bytes up to and with the empty line, as [`Scanner::scan`] measured it.
///
/// Beyond the grammar (RFC 9112 sections 2 to 6) it holds that
/// * HTTP/1.1 has exactly one Host, HTTP/1.0 at most one; the value is `uri-host [":" port]` with digits up to
///   65535 as port, and is empty only beside the target `*` (an http URI has no empty host);
/// * an absolute target is http or https without userinfo, CONNECT names host and port, and the Host beside
///   either names the same authority: letter case and a scheme's default port may differ;
/// * the target holds no `#`, `"`, `<`, `>`, space or control byte, in its path no backtick, and is UTF-8; its
///   escapes are the router's;
/// * Content-Length is one line of digits, Transfer-Encoding exactly `chunked`, and only one of them is there;
/// * TRACE has no body, CONNECT neither Content-Length nor Transfer-Encoding.
///
/// # Errors
/// The first rule that is broken.
///
/// [`Scanner::scan`]: super::Scanner::scan
pub fn request(head: Bytes, limits: &Limits) -> Result<(RequestHead, Framing), Refusal> {
    let raw = head.clone();
    let (mut stack, mut heap) = ([const { MaybeUninit::uninit() }; ON_STACK], Vec::new());
    let mut parsed = httparse::Request::new(&mut []);
    let complete = parsed.parse_with_uninit_headers(&raw, slots(&mut stack, &mut heap, &raw, limits));
    let (Ok(httparse::Status::Complete(end)), Some(method), Some(path), Some(version)) =
        (complete, parsed.method, parsed.path, parsed.version)
    else {
        return Err(diagnose::request(&raw, limits));
    };
    if !is_crlf_only(&raw, end, offset(&raw, method.as_bytes()), parsed.headers) {
        return Err(diagnose::request(&raw, limits));
    }
    let version = version_of(version);
    let mut head = RequestHead::received(head, method.as_bytes(), path.as_bytes(), version);
    let marks = index(&mut head.fields, parsed.headers);
    let form = target::form(head.method, path)?;
    target::check_host(&form, version, &marks)?;
    let framing = framing::of_request(&head, &marks)?;
    Ok((head, framing))
}

/// Checks the head of a request that did not come as HTTP/1 text, by the rules of [`request`] for HTTP/1.1:
/// target, Host and Content-Length. Says what Content-Length says of the body; `None` when it says nothing.
///
/// # Errors
/// The first rule that is broken.
pub fn check(head: &RequestHead) -> Result<Framing, Refusal> {
    let mut marks = Marks::default();
    for (id, _, value) in head.fields.iter() {
        marks.note(id, value);
    }
    let form = target::form(head.method, head.target())?;
    target::check_host(&form, head.version, &marks)?;
    framing::of_request(head, &marks)
}

/// Parses the head of a response to a request of method `request`: all bytes up to and with the empty line.
///
/// The body's framing follows RFC 9112 section 6.3: none for HEAD, 1xx, 204, 304 and a 2xx to CONNECT, else
/// chunked, else Content-Length, else until the connection closes. A missing space before a missing reason
/// phrase is tolerated, as nothing can be mistaken for it.
///
/// # Errors
/// The first rule that is broken; Content-Length beside Transfer-Encoding, Transfer-Encoding in HTTP/1.0 and a
/// repeated or list Content-Length are refused here too, even where the body would be none.
pub fn response(head: Bytes, request: Method, limits: &Limits) -> Result<(ResponseHead, Framing), Refusal> {
    let raw = head.clone();
    let (mut stack, mut heap) = ([const { MaybeUninit::uninit() }; ON_STACK], Vec::new());
    let mut parsed = httparse::Response::new(&mut []);
    let slots = slots(&mut stack, &mut heap, &raw, limits);
    let complete =
        httparse::ParserConfig::default().parse_response_with_uninit_headers(&mut parsed, &raw, slots);
    let (Ok(httparse::Status::Complete(end)), Some(code), Some(version)) =
        (complete, parsed.code, parsed.version)
    else {
        return Err(diagnose::response(&raw, limits));
    };
    // Blanks before a status line are not tolerated: they would be the rest of the answer before.
    if code < 100 || !raw.starts_with(b"HTTP/") || !is_crlf_only(&raw, end, 0, parsed.headers) {
        return Err(diagnose::response(&raw, limits));
    }
    let version = version_of(version);
    let mut head = ResponseHead::received(head, code, reason(&raw), version);
    let marks = index(&mut head.fields, parsed.headers);
    let framing = framing::of_response(request, &head, &marks)?;
    Ok((head, framing))
}

/// Parses field lines that end with an empty line: a trailer section (RFC 9112 section 7.1.2).
pub(super) fn trailers(section: Bytes, limits: &Limits) -> Result<Fields, Refusal> {
    let mut slots = vec![httparse::EMPTY_HEADER; limits.fields.min(most_fields(&section))];
    let raw = section.clone();
    let Ok(httparse::Status::Complete((end, lines))) = httparse::parse_headers(&raw, &mut slots) else {
        return Err(Refusal::BadTrailer);
    };
    // No start line stands before the first field, so its place is checked here.
    let first = lines.first().map_or(0, |line| offset(&raw, line.name.as_bytes()));
    if first != 0 || !is_crlf_only(&raw, end, 0, lines.get(1..).unwrap_or_default()) {
        return Err(Refusal::BadTrailer);
    }
    let mut fields = Fields { text: Text::new(section), list: Vec::new() };
    index(&mut fields, lines);
    Ok(fields)
}

/// What the framing and Host rules need to know of the fields.
#[derive(Default)]
pub(super) struct Marks<'a> {
    pub(super) host: Option<&'a [u8]>,
    pub(super) hosts: usize,
    pub(super) length: Option<&'a [u8]>,
    pub(super) lengths: usize,
    pub(super) encodings: usize,
}

impl<'a> Marks<'a> {
    #[inline]
    fn note(&mut self, id: NameId, value: &'a [u8]) {
        match id {
            NameId::Host => {
                self.hosts += 1;
                self.host = Some(value);
            }
            NameId::ContentLength => {
                self.lengths += 1;
                self.length = Some(value);
            }
            NameId::TransferEncoding => self.encodings += 1,
            _ => {}
        }
    }
}

fn index<'a>(fields: &mut Fields, lines: &[Header<'a>]) -> Marks<'a> {
    let mut marks = Marks::default();
    fields.list.reserve_exact(lines.len() + SPARE);
    for line in lines {
        let id = NameId::of(line.name.as_bytes());
        marks.note(id, line.value);
        let name = fields.text.span_of(line.name.as_bytes());
        fields.list.push(Field { name, value: fields.text.span_of(line.value), id });
    }
    marks
}

/// Room for the fields a gateway adds (forwarding, tracing), so that they do not move the index.
const SPARE: usize = 8;

/// Where httparse puts what it finds: on the stack when that is enough.
fn slots<'s, 'b>(
    stack: &'s mut [MaybeUninit<Header<'b>>; ON_STACK],
    heap: &'s mut Vec<MaybeUninit<Header<'b>>>,
    raw: &[u8],
    limits: &Limits,
) -> &'s mut [MaybeUninit<Header<'b>>] {
    let wanted = limits.fields.min(most_fields(raw));
    if wanted > ON_STACK {
        heap.resize_with(wanted, MaybeUninit::uninit);
        return heap;
    }
    &mut stack[..wanted]
}

/// The shortest field line, `a:` and CRLF, has four bytes: more fields than this cannot be there.
fn most_fields(raw: &[u8]) -> usize {
    raw.len() / 4
}

/// Whether every line of a parsed head ends in CRLF: httparse takes a bare LF for a line end. Each field's
/// name must stand behind a CRLF, the head must end in two, and only so many blanks may stand before it.
fn is_crlf_only(raw: &[u8], end: usize, start: usize, lines: &[Header<'_>]) -> bool {
    let behind_crlf =
        |at: usize| at.checked_sub(2).and_then(|from| raw.get(from..at)).is_some_and(|pair| pair == b"\r\n");
    end == raw.len()
        && raw.ends_with(b"\r\n\r\n")
        && start <= usize::from(BLANKS) * 2
        && raw[..start].chunks(2).all(|pair| pair == b"\r\n")
        && lines.iter().all(|line| behind_crlf(offset(raw, line.name.as_bytes())))
}

/// Where `part`, a slice of `raw`, starts in it.
fn offset(raw: &[u8], part: &[u8]) -> usize {
    (part.as_ptr() as usize).wrapping_sub(raw.as_ptr() as usize)
}

/// The reason phrase of a status line that httparse accepted: `HTTP/1.1 200` is 12 bytes long.
fn reason(raw: &[u8]) -> &[u8] {
    let line = &raw[..memchr::memchr(b'\r', raw).unwrap_or(raw.len())];
    line.get(13..).unwrap_or(&line[line.len()..])
}

fn version_of(minor: u8) -> Version {
    match minor {
        0 => Version::Http10,
        _ => Version::Http11,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(head: &[u8]) -> Result<(RequestHead, Framing), Refusal> {
        request(Bytes::copy_from_slice(head), &Limits::default())
    }

    fn parse_response(head: &[u8], method: Method) -> Result<(ResponseHead, Framing), Refusal> {
        response(Bytes::copy_from_slice(head), method, &Limits::default())
    }

    /// The refusal or framing of a request with this start line and these lines, each without CRLF.
    fn verdict(lines: &[&str]) -> Result<Framing, Refusal> {
        parse(format!("{}\r\n\r\n", lines.join("\r\n")).as_bytes()).map(|(_, framing)| framing)
    }

    fn get(lines: &[&str]) -> Result<Framing, Refusal> {
        verdict(&[&["GET / HTTP/1.1", "Host: a"], lines].concat())
    }

    #[test]
    fn a_request_is_an_index_over_its_bytes() {
        let (head, framing) = parse(
            b"\r\nPOST /a%2Fb?c=\xc3\xa9 HTTP/1.1\r\nhOST:a.example:81\r\nX-Empty: \r\nX-A: \t b c\t \r\n\
              Content-Length: 5\r\n\r\n",
        )
        .unwrap();
        assert_eq!((head.method, head.method_text(), head.version), (Method::Post, "POST", Version::Http11));
        assert_eq!((head.target(), head.host()), ("/a%2Fb?c=é", "a.example"));
        assert_eq!(framing, Framing::Length(5));
        let lines: Vec<_> = head.fields.iter().collect();
        let expected: [(NameId, &[u8], &[u8]); 4] = [
            (NameId::Host, b"hOST", b"a.example:81"),
            (NameId::Other, b"X-Empty", b""),
            (NameId::Other, b"X-A", b"b c"),
            (NameId::ContentLength, b"Content-Length", b"5"),
        ];
        assert_eq!(lines, expected);
    }

    #[test]
    fn heads_with_many_fields_are_parsed_up_to_the_limit() {
        let limits = Limits { fields: 300, ..Limits::default() };
        let head = |fields: usize| {
            Bytes::from(format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "a:\r\n".repeat(fields - 1)))
        };
        assert_eq!(request(head(300), &limits).unwrap().0.fields.len(), 300);
        assert_eq!(request(head(301), &limits).unwrap_err(), Refusal::TooManyFields);
        assert_eq!(parse(&head(100)).unwrap().0.fields.len(), 100);
        assert_eq!(parse(&head(101)).unwrap_err(), Refusal::TooManyFields);
        let limits = Limits { fields: usize::MAX, ..limits };
        assert_eq!(request(head(2000), &limits).unwrap().0.fields.len(), 2000);
    }

    #[test]
    fn grammar_is_refused_with_the_rule_that_broke() {
        let cases: &[(&[u8], Refusal)] = &[
            (b"GET / HTTP/1.1\nHost: a\r\n\r\n", Refusal::BareLf),
            (b"GET / HTTP/1.1\r\nHost: a\n\r\n", Refusal::BareLf),
            (b"GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n", Refusal::BareLf),
            (b"GET / HTTP/1.1\r\nHost: a\r\nX:\nY: b\r\n\r\n", Refusal::BareLf),
            (b"\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", Refusal::BareLf),
            (b"GET / HTTP/1.1\r\nHost: a\r\n\n", Refusal::BareLf),
            (b"GET / HTTP/1.1\r\nHost: a\n\n", Refusal::BareLf),
            (b"GET / HTTP/1.1\r\nHost: a\rb\r\n\r\n", Refusal::BareCr),
            (b"GET / HTTP/1.1\r\r\nHost: a\r\n\r\n", Refusal::BareCr),
            (b"GET /\rx HTTP/1.1\r\nHost: a\r\n\r\n", Refusal::BareCr),
            (b"GET / HTTP/1.1\r\nHo\rst: a\r\n\r\n", Refusal::BareCr),
            (b"GET / HTTP/1.1\r\nHost: a\r\n b\r\n\r\n", Refusal::Folded),
            (b"GET / HTTP/1.1\r\n Host: a\r\n\r\n", Refusal::Folded),
            (b"GET / HTTP/1.1\r\nHost : a\r\n\r\n", Refusal::BadName),
            (b"GET / HTTP/1.1\r\nHost\t: a\r\n\r\n", Refusal::BadName),
            (b"GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n", Refusal::BadName),
            (b"GET / HTTP/1.1\r\nHost: a\r\nnocolon\r\n\r\n", Refusal::BadName),
            (b"GET / HTTP/1.1\r\nHost: a\r\nX(: b\r\n\r\n", Refusal::BadName),
            (b"GET / HTTP/1.1\r\nHost: a\r\nX\xc3\xa9: b\r\n\r\n", Refusal::BadName),
            (b"GET / HTTP/1.1\r\nHost: a\r\nX: b\0\r\n\r\n", Refusal::BadValue),
            (b"GET / HTTP/1.1\r\nHost: a\r\nX: \x01\r\n\r\n", Refusal::BadValue),
            (b"GET / HTTP/1.1\r\nHost: a\r\nX: b\x7f\r\n\r\n", Refusal::BadValue),
            (b"G@T / HTTP/1.1\r\nHost: a\r\n\r\n", Refusal::BadMethod),
            (b"GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n", Refusal::BadMethod),
            (b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n", Refusal::BadStartLine),
            (b"GET /  HTTP/1.1\r\nHost: a\r\n\r\n", Refusal::BadStartLine),
            (b"GET / HTTP/1.1 \r\nHost: a\r\n\r\n", Refusal::BadStartLine),
            (b"GET /\r\n\r\n", Refusal::BadStartLine),
            (b"GET\r\n\r\n", Refusal::BadStartLine),
            (b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", Refusal::BadTarget),
            (b"GET /\x01 HTTP/1.1\r\nHost: a\r\n\r\n", Refusal::BadTarget),
            (b"GET /\x7f HTTP/1.1\r\nHost: a\r\n\r\n", Refusal::BadTarget),
            (b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n", Refusal::BadTarget),
            (b"GET / HTTP/1.2\r\nHost: a\r\n\r\n", Refusal::BadVersion),
            (b"PRI * HTTP/2.0\r\n\r\n", Refusal::BadVersion),
            (b"GET / HTTP/0.9\r\n\r\n", Refusal::BadVersion),
            (b"GET / http/1.1\r\nHost: a\r\n\r\n", Refusal::BadStartLine),
            (b"GET / HTTP/1.10\r\nHost: a\r\n\r\n", Refusal::BadStartLine),
            (b"\r\n\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", Refusal::BadStartLine),
            (b"GET / HTTP/1.1\r\nHost: a\r\n", Refusal::BadStartLine),
            (b"GET / HTTP/1.1\r\nHost: a\r\n\r\nmore", Refusal::BadStartLine),
            (b"", Refusal::BadStartLine),
            (b"\r\n\r\n", Refusal::BadStartLine),
        ];
        for (head, refusal) in cases {
            let found = parse(head).map(|(_, framing)| framing);
            assert_eq!(found, Err(*refusal), "{:?}", String::from_utf8_lossy(head));
        }
    }

    #[test]
    fn a_request_has_exactly_one_host() {
        assert_eq!(verdict(&["GET / HTTP/1.1"]), Err(Refusal::HostMissing));
        assert_eq!(verdict(&["GET / HTTP/1.0"]), Ok(Framing::None));
        assert_eq!(get(&["Host: a"]), Err(Refusal::HostRepeated));
        assert_eq!(get(&["host: b"]), Err(Refusal::HostRepeated));
        assert_eq!(verdict(&["GET / HTTP/1.0", "Host: a", "Host: a"]), Err(Refusal::HostRepeated));
        assert_eq!(verdict(&["OPTIONS * HTTP/1.1", "Host:"]), Ok(Framing::None));
    }

    #[test]
    fn a_host_is_a_name_or_address_with_a_port() {
        let host = |value: &str| verdict(&["GET / HTTP/1.1", &format!("Host: {value}")]);
        for good in
            ["a", "a.example", "A-b_c.example:8080", "1.2.3.4:80", "[::1]", "[::1]:80", "a%20b", "a:0", "a."]
        {
            assert_eq!(host(good), Ok(Framing::None), "{good}");
        }
        for bad in [
            "",
            ":80",
            "a:",
            "a:b",
            "a:80:81",
            "a:65536",
            "a:-1",
            "a:+1",
            "u@a",
            "u:p@a",
            "a b",
            "a/b",
            "a?b",
            "a#b",
            "[::1",
            "::1",
            "[::1]a",
            "[::g]",
            "[fe80::1%25eth0]",
            "[v1.a]",
            "[]",
            "a\\b",
            "a%2",
            "a%zz",
            "é",
            "a\"b",
            "<a>",
            "a|b",
            "{a}",
            "http://a",
        ] {
            assert_eq!(host(bad), Err(Refusal::BadHost), "{bad}");
        }
    }

    #[test]
    fn the_target_has_the_form_its_method_allows() {
        let target = |method: &str, target: &str, host: &str| {
            verdict(&[&format!("{method} {target} HTTP/1.1"), &format!("Host: {host}")])
        };
        for (method, text, host) in [
            ("GET", "/", "a"),
            ("GET", "//x/../y{|}\\^[]?a=/%zz{|}\\^`[]", "a"),
            ("GET", "http://a/", "a"),
            ("GET", "http://a", "a"),
            ("GET", "http://a?b", "a"),
            ("GET", "HTTP://A.b:81/x", "a.B:81"),
            ("GET", "http://a:80/", "a"),
            ("GET", "https://a/", "a:443"),
            ("GET", "http://[::1]:8080/", "[::1]:8080"),
            ("OPTIONS", "*", "a"),
            ("OPTIONS", "http://a", "a"),
            ("CONNECT", "a:443", "a:443"),
            ("CONNECT", "a:443", "A"),
            ("CONNECT", "[::1]:443", "[::1]:443"),
        ] {
            assert_eq!(target(method, text, host), Ok(Framing::None), "{method} {text}");
        }
        for (method, text) in [
            ("GET", "*"),
            ("GET", "a"),
            ("GET", "?a"),
            ("GET", "/a#b"),
            ("GET", "#"),
            ("GET", "/\"a\""),
            ("GET", "/?\"a\""),
            ("GET", "/<a"),
            ("GET", "/?a>"),
            ("GET", "/`"),
            ("GET", "ftp://a/"),
            ("GET", "http:/a"),
            ("GET", "http:///"),
            ("GET", "http://u@a/"),
            ("GET", "http://u:p@a/"),
            ("GET", "http://a:/"),
            ("GET", "://a/"),
            ("GET", "a:443"),
            ("OPTIONS", "**"),
            ("OPTIONS", "*?a"),
            ("CONNECT", "/"),
            ("CONNECT", "a"),
            ("CONNECT", "a:"),
            ("CONNECT", ":443"),
            ("CONNECT", "a:443/"),
            ("CONNECT", "http://a:443"),
            ("CONNECT", "u@a:443"),
            ("CONNECT", "*"),
        ] {
            assert_eq!(target(method, text, "a"), Err(Refusal::BadTarget), "{method} {text}");
        }
        for (method, text, host) in [
            ("GET", "http://a/", "b"),
            ("GET", "http://a:81/", "a"),
            ("GET", "http://a/", "a:81"),
            ("GET", "https://a/", "a:80"),
            ("GET", "http://a/", ""),
            ("CONNECT", "a:443", "b:443"),
            ("CONNECT", "a:443", "a:80"),
        ] {
            assert_eq!(target(method, text, host), Err(Refusal::BadHost), "{method} {text}");
        }
    }

    #[test]
    fn a_request_body_has_one_length() {
        let post = |lines: &[&str]| verdict(&[&["POST / HTTP/1.1", "Host: a"], lines].concat());
        assert_eq!(post(&[]), Ok(Framing::None));
        assert_eq!(post(&["Content-Length: 0"]), Ok(Framing::Length(0)));
        assert_eq!(post(&["Content-Length: 00012"]), Ok(Framing::Length(12)));
        assert_eq!(post(&["Content-Length: 18446744073709551615"]), Ok(Framing::Length(u64::MAX)));
        assert_eq!(post(&["Transfer-Encoding: chunked"]), Ok(Framing::Chunked));
        assert_eq!(post(&["transfer-encoding: \t ChunKed \t"]), Ok(Framing::Chunked));
        assert_eq!(get(&["Content-Length: 3"]), Ok(Framing::Length(3)));
        for bad in [
            "",
            "+1",
            "-1",
            "0x1",
            "1a",
            "1 1",
            "1,1",
            "1, 1",
            ",1",
            "1;",
            "1.0",
            "18446744073709551616",
            "99999999999999999999999",
            "\u{0661}",
        ] {
            assert_eq!(post(&[&format!("Content-Length: {bad}")]), Err(Refusal::BadLength), "{bad}");
        }
        assert_eq!(post(&["Content-Length: 1", "Content-Length: 1"]), Err(Refusal::BadLength));
        assert_eq!(post(&["Content-Length: 1", "Content-Length: 2"]), Err(Refusal::BadLength));
        let both = Err(Refusal::LengthAndEncoding);
        assert_eq!(post(&["Content-Length: 1", "Transfer-Encoding: chunked"]), both);
        assert_eq!(post(&["Transfer-Encoding: chunked", "Content-Length: 1"]), both);
        assert_eq!(post(&["Transfer-Encoding: identity", "Content-Length: 1"]), both);
    }

    #[test]
    fn the_only_transfer_coding_is_one_final_chunked() {
        let post = |lines: &[&str]| verdict(&[&["POST / HTTP/1.1", "Host: a"], lines].concat());
        for (value, refusal) in [
            ("chunked, chunked", Refusal::BadEncoding),
            ("chunked, identity", Refusal::BadEncoding),
            ("chunked, gzip", Refusal::BadEncoding),
            ("chunked;a=b", Refusal::BadEncoding),
            ("chunked,", Refusal::BadEncoding),
            (",chunked", Refusal::BadEncoding),
            ("", Refusal::BadEncoding),
            ("\"chunked\"", Refusal::BadEncoding),
            ("chu nked", Refusal::BadEncoding),
            ("chunked\u{a0}", Refusal::BadEncoding),
            ("gzip, chunked", Refusal::UnknownEncoding),
            ("gzip;q=1, chunked", Refusal::UnknownEncoding),
            ("gzip", Refusal::UnknownEncoding),
            ("identity", Refusal::UnknownEncoding),
            ("xchunked", Refusal::UnknownEncoding),
            ("chunked-", Refusal::UnknownEncoding),
        ] {
            assert_eq!(post(&[&format!("Transfer-Encoding: {value}")]), Err(refusal), "{value}");
        }
        let twice = post(&["Transfer-Encoding: chunked", "Transfer-Encoding: chunked"]);
        assert_eq!(twice, Err(Refusal::BadEncoding));
        let other = post(&["Transfer-Encoding: chunked", "Transfer-Encoding: x"]);
        assert_eq!(other, Err(Refusal::BadEncoding));
        let old = verdict(&["POST / HTTP/1.0", "Transfer-Encoding: chunked"]);
        assert_eq!(old, Err(Refusal::EncodingInHttp10));
    }

    #[test]
    fn trace_and_connect_have_no_body() {
        let trace = |line: &str| verdict(&["TRACE / HTTP/1.1", "Host: a", line]);
        assert_eq!(trace("Content-Length: 1"), Err(Refusal::UnexpectedBody));
        assert_eq!(trace("Transfer-Encoding: chunked"), Err(Refusal::UnexpectedBody));
        assert_eq!(trace("Content-Length: 0"), Ok(Framing::Length(0)));
        let connect = |line: &str| verdict(&["CONNECT a:1 HTTP/1.1", "Host: a:1", line]);
        assert_eq!(connect("Content-Length: 0"), Err(Refusal::UnexpectedBody));
        assert_eq!(connect("Transfer-Encoding: chunked"), Err(Refusal::UnexpectedBody));
        assert_eq!(connect("X: y"), Ok(Framing::None));
    }

    #[test]
    fn a_response_keeps_its_reason_as_received() {
        let reason = |head: &[u8]| parse_response(head, Method::Get).unwrap().0.reason().to_vec();
        assert_eq!(reason(b"HTTP/1.1 200 Fine\r\n\r\n"), b"Fine");
        assert_eq!(reason(b"HTTP/1.1 200 \xe9t\xe9 \t\r\nA: b\r\n\r\n"), b"\xe9t\xe9 \t");
        assert_eq!(reason(b"HTTP/1.0 200 \r\n\r\n"), b"");
        assert_eq!(reason(b"HTTP/1.1 200\r\n\r\n"), b"");
        let (head, _) = parse_response(b"HTTP/1.0 999 x\r\nA: b\r\n\r\n", Method::Get).unwrap();
        assert_eq!((head.status, head.version, head.fields.len()), (999, Version::Http10, 1));
    }

    #[test]
    fn the_framing_of_a_response_follows_request_status_and_fields() {
        let framing = |status: u16, method: Method, lines: &str| {
            parse_response(format!("HTTP/1.1 {status} x\r\n{lines}\r\n").as_bytes(), method).map(|(_, f)| f)
        };
        let (length, chunked) = ("Content-Length: 5\r\n", "Transfer-Encoding: chunked\r\n");
        assert_eq!(framing(200, Method::Get, length), Ok(Framing::Length(5)));
        assert_eq!(framing(200, Method::Get, "Content-Length: 0\r\n"), Ok(Framing::Length(0)));
        assert_eq!(framing(200, Method::Get, chunked), Ok(Framing::Chunked));
        assert_eq!(framing(200, Method::Get, ""), Ok(Framing::Close));
        for lines in [length, chunked, ""] {
            assert_eq!(framing(200, Method::Head, lines), Ok(Framing::None));
            assert_eq!(framing(200, Method::Connect, lines), Ok(Framing::None));
            for status in [100, 101, 103, 199, 204, 304] {
                assert_eq!(framing(status, Method::Get, lines), Ok(Framing::None), "{status}");
            }
        }
        assert_eq!(framing(400, Method::Connect, length), Ok(Framing::Length(5)));
        let both = format!("{length}{chunked}");
        assert_eq!(framing(200, Method::Get, &both), Err(Refusal::LengthAndEncoding));
        assert_eq!(framing(200, Method::Head, &both), Err(Refusal::LengthAndEncoding));
        let twice = format!("{length}{length}");
        assert_eq!(framing(200, Method::Get, &twice), Err(Refusal::BadLength));
        assert_eq!(framing(304, Method::Get, "Content-Length: x\r\n"), Err(Refusal::BadLength));
        assert_eq!(framing(200, Method::Get, "Transfer-Encoding: gzip\r\n"), Err(Refusal::UnknownEncoding));
        let old = parse_response(b"HTTP/1.0 200 x\r\nTransfer-Encoding: chunked\r\n\r\n", Method::Get);
        assert_eq!(old.map(|(_, framing)| framing), Err(Refusal::EncodingInHttp10));
    }

    #[test]
    fn a_malformed_response_is_refused_with_the_rule_that_broke() {
        for (head, refusal) in [
            (&b"\r\nHTTP/1.1 200 OK\r\n\r\n"[..], Refusal::BadStartLine),
            (b"HTTP/1.1 200 OK\n\r\n", Refusal::BareLf),
            (b"HTTP/1.1 200\n\r\n", Refusal::BareLf),
            (b"HTTP/1.1 200 OK\r\nA: b\n\r\n", Refusal::BareLf),
            (b"HTTP/1.1 200 O\rK\r\n\r\n", Refusal::BareCr),
            (b"HTTP/1.1 200 O\0K\r\n\r\n", Refusal::BadStartLine),
            (b"HTTP/1.1 099 x\r\n\r\n", Refusal::BadStatus),
            (b"HTTP/1.1 2000 x\r\n\r\n", Refusal::BadStatus),
            (b"HTTP/1.1 20 x\r\n\r\n", Refusal::BadStatus),
            (b"HTTP/1.1 2\r\n\r\n", Refusal::BadStatus),
            (b"HTTP/1.1 2x0 x\r\n\r\n", Refusal::BadStatus),
            (b"HTTP/1.1  200 x\r\n\r\n", Refusal::BadStatus),
            (b"HTTP/2.0 200 x\r\n\r\n", Refusal::BadVersion),
            (b"HTTP/1.1\r\n\r\n", Refusal::BadStartLine),
            (b"ICY 200 OK\r\n\r\n", Refusal::BadStartLine),
            (b"HTTP/1.1 200 OK\r\nA : b\r\n\r\n", Refusal::BadName),
            (b"HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n", Refusal::Folded),
            (b"HTTP/1.1 200 OK\r\nA: b\x01\r\n\r\n", Refusal::BadValue),
            (b"HTTP/1.1 200 OK\r\n", Refusal::BadStartLine),
            (b"", Refusal::BadStartLine),
        ] {
            let found = parse_response(head, Method::Get).map(|(_, framing)| framing);
            assert_eq!(found, Err(refusal), "{:?}", String::from_utf8_lossy(head));
        }
    }

    #[test]
    fn connection_options_decide_about_persistence() {
        let has = |version: &str, lines: &str| {
            let head = format!("GET / HTTP/{version}\r\nHost: a\r\n{lines}\r\n");
            let (head, _) = parse(head.as_bytes()).unwrap();
            keep_alive(head.version, &head.fields)
        };
        assert!(has("1.1", ""));
        assert!(has("1.1", "Connection: TE, x\r\n"));
        assert!(!has("1.1", "Connection: CLOSE\r\n"));
        assert!(!has("1.1", "Connection: keep-alive\r\nConnection: x ,\tclose\r\n"));
        assert!(has("1.1", "Connection: closed\r\n"));
        assert!(!has("1.0", ""));
        assert!(has("1.0", "Connection: Keep-Alive\r\n"));
        assert!(!has("1.0", "Connection: keep-alive, close\r\n"));
    }

    #[test]
    fn expect_and_upgrade_are_read_as_lists() {
        let head = |version: &str, lines: &str| {
            parse(format!("GET / HTTP/{version}\r\nHost: a\r\n{lines}\r\n").as_bytes()).unwrap().0
        };
        assert_eq!(expects_continue(&head("1.1", "")), Expectation::None);
        assert_eq!(expects_continue(&head("1.1", "Expect: \r\n")), Expectation::None);
        assert_eq!(expects_continue(&head("1.1", "Expect: 100-Continue\r\n")), Expectation::Continue);
        assert_eq!(expects_continue(&head("1.0", "Expect: 100-continue\r\n")), Expectation::None);
        assert_eq!(expects_continue(&head("1.1", "Expect: 100-continue, x\r\n")), Expectation::Unknown);
        assert_eq!(expects_continue(&head("1.1", "Expect: 200-ok\r\n")), Expectation::Unknown);
        let upgrades = |lines: &str| upgrade(&head("1.1", lines).fields).map(<[u8]>::to_vec);
        assert_eq!(upgrades("Connection: x, Upgrade\r\nUpgrade: websocket\r\n"), Some(b"websocket".to_vec()));
        assert_eq!(upgrades("Upgrade: websocket\r\n"), None);
        assert_eq!(upgrades("Connection: upgrade\r\n"), None);
        assert_eq!(upgrades("Connection: upgrade\r\nUpgrade:\r\n"), None);
    }
}
