//! How long is the body? (RFC 9112 section 6.3), read strictly: two answers are no answer.
//!
//! Promise: a message whose length another HTTP implementation could read differently is refused, whatever
//! its method or status; so a request cannot be smuggled in what we take for a body, nor the reverse.

use super::options::trim;
use super::parse::Marks;
use super::{Framing, Refusal};
use crate::fields::Fields;
use crate::head::{Method, RequestHead, ResponseHead, Version};
use crate::name::{NameId, is_token};

/// The framing of a request's body.
pub(super) fn of_request(head: &RequestHead, marks: &Marks<'_>) -> Result<Framing, Refusal> {
    if marks.encodings == 0 && marks.lengths == 0 {
        return Ok(Framing::None);
    }
    let framing = explicit(head.version, &head.fields, marks)?;
    match (head.method, framing) {
        (Method::Connect, _) => Err(Refusal::UnexpectedBody),
        (Method::Trace, Framing::Chunked | Framing::Length(1..)) => Err(Refusal::UnexpectedBody),
        _ => Ok(framing),
    }
}

/// The framing of the body of a response to a request of method `request`.
pub(super) fn of_response(
    request: Method,
    head: &ResponseHead,
    marks: &Marks<'_>,
) -> Result<Framing, Refusal> {
    let framing = match marks.encodings == 0 && marks.lengths == 0 {
        true => Framing::Close,
        false => explicit(head.version, &head.fields, marks)?,
    };
    match (request, head.status) {
        (Method::Head, _) | (_, 100..=199 | 204 | 304) | (Method::Connect, 200..=299) => Ok(Framing::None),
        _ => Ok(framing),
    }
}

/// What Transfer-Encoding or Content-Length say; one of them is there.
fn explicit(version: Version, fields: &Fields, marks: &Marks<'_>) -> Result<Framing, Refusal> {
    match (marks.encodings, marks.lengths) {
        (1.., 1..) => Err(Refusal::LengthAndEncoding),
        (1.., 0) if version == Version::Http10 => Err(Refusal::EncodingInHttp10),
        (1.., 0) => chunked(fields),
        (0, 1) => Ok(Framing::Length(length(marks.length.unwrap_or_default())?)),
        _ => Err(Refusal::BadLength),
    }
}

/// Exactly one coding, `chunked`, over all Transfer-Encoding lines (RFC 9112 section 6.1).
fn chunked(fields: &Fields) -> Result<Framing, Refusal> {
    let (mut chunked, mut others) = (0, 0);
    for value in fields.get_all(NameId::TransferEncoding) {
        for coding in value.split(|&byte| byte == b',').map(trim) {
            if chunked > 0 {
                // Repeated, or not the final one.
                return Err(Refusal::BadEncoding);
            }
            match is_chunked(coding)? {
                true => chunked += 1,
                false => others += 1,
            }
        }
    }
    if others > 0 {
        return Err(Refusal::UnknownEncoding);
    }
    Ok(Framing::Chunked)
}

/// Whether a coding is chunked; it takes no parameters, others may have them.
fn is_chunked(coding: &[u8]) -> Result<bool, Refusal> {
    let mut parts = coding.splitn(2, |&byte| byte == b';');
    let name = trim(parts.next().unwrap_or_default());
    let is_chunked = name.eq_ignore_ascii_case(b"chunked");
    if name.is_empty() || !name.iter().all(|&byte| is_token(byte)) || (is_chunked && parts.next().is_some()) {
        return Err(Refusal::BadEncoding);
    }
    Ok(is_chunked)
}

/// One value of digits (RFC 9110 section 8.6); no sign, no list, no more than an u64 holds.
fn length(value: &[u8]) -> Result<u64, Refusal> {
    if value.is_empty() {
        return Err(Refusal::BadLength);
    }
    value
        .iter()
        .try_fold(0u64, |length, byte| match byte {
            b'0'..=b'9' => length.checked_mul(10)?.checked_add(u64::from(byte - b'0')),
            _ => None,
        })
        .ok_or(Refusal::BadLength)
}
