//! The head of a response: from a connector to a gateway, in the dialects that connectors speak.

use sluice_http::{Method, NameId, ResponseHead, h1};

use super::{BadHead, bytes_of, lines, put_field, read_fields, read_length};

/// Writes a response. What is for one connection only stays here, but for the protocol a 101 names.
///
/// There is always at least one field line, and the text ends in LF: a router exists that ends its process
/// otherwise.
pub fn write_response(head: &ResponseHead) -> Vec<u8> {
    let mut out = Vec::with_capacity(512);
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(head.status.to_string().as_bytes());
    out.push(b' ');
    out.extend(head.reason().iter().filter(|&&byte| (b' '..0x7f).contains(&byte)));
    out.push(b'\n');
    let lines = out.len();
    let crossing = h1::crossing(&head.fields);
    for (_, name, value) in crossing.filter(|(id, ..)| !matches!(id, NameId::Te | NameId::Trailer)) {
        put_field(&mut out, name, &value);
    }
    if let (101, Some(protocol)) = (head.status, h1::upgrade(&head.fields)) {
        put_field(&mut out, b"Connection", b"Upgrade");
        put_field(&mut out, b"Upgrade", protocol);
    }
    if out.len() == lines {
        // A field that every gateway drops.
        put_field(&mut out, b"Connection", b"close");
    }
    out
}

/// Reads a response to a request of this method, and how many bytes of content it announces, when it does and
/// may have any.
///
/// Lines end in LF or CRLF, the last one in nothing; the reason may be missing; a second line that is no field is
/// the echo of the request that some connectors send.
///
/// # Errors
/// What is malformed.
pub fn read_response(text: &[u8], request: Method) -> Result<(ResponseHead, Option<u64>), BadHead> {
    let mut all = lines(text).peekable();
    let status = status(all.next().unwrap_or_default())?;
    let _echo = all.next_if(|line| is_echo(line));
    let mut head = ResponseHead::new(status);
    head.fields = read_fields(all, text.len())?;
    let length = read_length(&mut head.fields)?;
    Ok((head, if has_content(request, status) { length } else { Some(0) }))
}

/// Whether a response may have content (RFC 9110 section 6.4.1).
pub(crate) fn has_content(request: Method, status: u16) -> bool {
    request != Method::Head && !matches!(status, 204 | 304)
}

fn status(line: &[u8]) -> Result<u16, BadHead> {
    let line = bytes_of(line);
    let mut words = line.split(|&byte| byte == b' ');
    if !words.next().is_some_and(|version| version.starts_with(b"HTTP/")) {
        return Err(BadHead::StartLine);
    }
    match words.next() {
        Some(&[a @ b'1'..=b'9', b @ b'0'..=b'9', c @ b'0'..=b'9']) => {
            let status = [a, b, c].iter().fold(0, |status, digit| status * 10 + u16::from(digit - b'0'));
            // An interim answer has no form in a tunnel.
            if status < 200 && status != 101 { Err(BadHead::Status) } else { Ok(status) }
        }
        _ => Err(BadHead::Status),
    }
}

/// `METHOD SP target`: a space stands before the first colon, if there is one.
fn is_echo(line: &[u8]) -> bool {
    line.iter().find(|byte| matches!(byte, b' ' | b':')) == Some(&b' ')
}
