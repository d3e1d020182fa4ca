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
/// * the target holds no `#`, no space and no control byte, and is UTF-8; its escapes are the router's;
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

fn index<'a>(fields: &mut Fields, lines: &[Header<'a>]) -> Marks<'a> {
    let mut marks = Marks::default();
    fields.list.reserve_exact(lines.len() + SPARE);
    for line in lines {
        let id = NameId::of(line.name.as_bytes());
        match id {
            NameId::Host => {
                marks.hosts += 1;
                marks.host = Some(line.value);
            }
            NameId::ContentLength => {
                marks.lengths += 1;
                marks.length = Some(line.value);
            }
            NameId::TransferEncoding => marks.encodings += 1,
            _ => {}
        }
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
