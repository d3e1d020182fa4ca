//! Heads as text: how a request or a response travels in a tunnel (both versions use the same form).
//!
//! Promise: a line break, a NUL or another control byte in a head is refused or replaced, never passed on; what
//! cannot be read is an error of one exchange. Field values are bytes on either side and UTF-8 in between: each
//! byte travels as the character of its number (Latin-1). Text that is not such UTF-8 is taken as bytes, as one
//! connector sends them.

mod request;
mod response;

#[cfg(test)]
mod tests;

use std::borrow::Cow;

use sluice_http::reasons::reasons;
use sluice_http::{FieldName, Fields, Name, NameId, h1};

pub use request::{Content, Marker, Upgrades, read_request, write_request};
pub(crate) use request::{END, switches};
pub(crate) use response::has_content;
pub use response::{read_response, write_response};

reasons! {
    /// Why a head of a tunnel was refused.
    pub enum BadHead {
        NoMarker "tunnel-no-marker" "a request head ends in no marker",
        StartLine "tunnel-start-line" "the first line of a head is malformed",
        Target "tunnel-target" "the request target is malformed",
        Status "tunnel-status" "the status is not 101, or 200 to 999",
        Field "tunnel-field" "a field is malformed",
        Length "tunnel-content-length" "Content-Length is malformed, or there are two",
        TooLarge "tunnel-head-too-large" "a head is larger than allowed",
    }
}

/// Most lines of a head.
const LINES: usize = 1000;

/// The bytes that a text stands for.
fn bytes_of(text: &[u8]) -> Cow<'_, [u8]> {
    if text.is_ascii() {
        return Cow::Borrowed(text);
    }
    let mapped = std::str::from_utf8(text)
        .ok()
        .and_then(|text| text.chars().map(|letter| u8::try_from(u32::from(letter)).ok()).collect());
    mapped.map_or(Cow::Borrowed(text), Cow::Owned)
}

/// Adds the text that stands for these bytes.
fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    if bytes.is_ascii() {
        return out.extend_from_slice(bytes);
    }
    for &byte in bytes {
        let mut place = [0; 2];
        out.extend_from_slice(char::from(byte).encode_utf8(&mut place).as_bytes());
    }
}

fn put_field(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.extend_from_slice(name);
    out.push(b':');
    put_bytes(out, value);
    out.push(b'\n');
}

/// The lines of a head, without LF or CRLF.
fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|&byte| byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line))
}

/// Reads field lines. A line without a colon, or one that begins with it (the empty line; a field of HTTP/2 that
/// slipped in), is none.
fn read_fields<'a>(lines: impl Iterator<Item = &'a [u8]>, size: usize) -> Result<Fields, BadHead> {
    let mut fields = Fields::with_capacity(16, size);
    for line in lines {
        let Some(colon) = line.iter().position(|&byte| byte == b':').filter(|&at| at > 0) else { continue };
        let (name, value) = (&line[..colon], bytes_of(line[colon + 1..].trim_ascii()));
        let name = std::str::from_utf8(name).ok().and_then(FieldName::new).ok_or(BadHead::Field)?;
        if !value.iter().all(|&byte| sluice_http::name::is_value(byte)) {
            return Err(BadHead::Field);
        }
        if fields.len() == LINES {
            return Err(BadHead::TooLarge);
        }
        fields.append(&name, &value);
    }
    Ok(fields)
}

/// What Content-Length says. Where Transfer-Encoding stands beside it (connectors pass on what their target sent,
/// but the content has no coding in a tunnel) both go, as RFC 9112 section 6.3 has it.
fn read_length(fields: &mut Fields) -> Result<Option<u64>, BadHead> {
    if fields.remove(NameId::TransferEncoding) > 0 {
        fields.remove(NameId::ContentLength);
    }
    let mut values = fields.get_all(NameId::ContentLength);
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() || value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return Err(BadHead::Length);
    }
    let digits = std::str::from_utf8(value).unwrap_or_default();
    digits.parse().map(Some).map_err(|_| BadHead::Length)
}

/// Writes trailer fields, for an extension of 3.0.
pub fn write_trailers(fields: &Fields) -> Vec<u8> {
    let mut out = Vec::new();
    for (_, name, value) in fields.iter().filter(|(id, ..)| h1::may_be_trailer(*id)) {
        put_field(&mut out, name, value);
    }
    out
}

/// Reads trailer fields; those that may be none are dropped.
///
/// # Errors
/// [`BadHead::Field`] and [`BadHead::TooLarge`].
pub fn read_trailers(text: &[u8]) -> Result<Fields, BadHead> {
    let mut fields = read_fields(lines(text), text.len())?;
    fields.retain(|id, _, _| h1::may_be_trailer(id));
    Ok(fields)
}

/// A field name as spelled here, known or not.
pub(crate) fn name(text: &str) -> Name<'_> {
    Name::received(text)
}
