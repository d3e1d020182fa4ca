//! The head of a request: from a gateway to a connector.

use std::borrow::Cow;

use sluice_http::h1::{self, Framing};
use sluice_http::{NameId, RequestHead, Version};

use super::{BadHead, bytes_of, lines, put_bytes, put_field, read_fields, read_length};

/// What follows a request's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// Nothing.
    None,
    /// So many bytes.
    Length(u64),
    /// Until its end is announced.
    Unknown,
}

impl Content {
    /// As HTTP/1 frames it.
    pub fn framing(self) -> Framing {
        match self {
            Content::None => Framing::None,
            Content::Length(length) => Framing::Length(length),
            Content::Unknown => Framing::Chunked,
        }
    }
}

impl From<Framing> for Content {
    fn from(framing: Framing) -> Content {
        match framing {
            Framing::None => Content::None,
            Framing::Length(length) => Content::Length(length),
            Framing::Chunked | Framing::Close => Content::Unknown,
        }
    }
}

/// What becomes of a wish to change the protocol (Upgrade).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upgrades {
    /// It goes through the tunnel: the other end knows how.
    Kept,
    /// It stays here, as with every hop that does not know it.
    Dropped,
}

/// The last line of a head in 1.0; in 3.0 a flag says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Marker {
    /// A line `_1` (content follows) or `_2`.
    Written,
    /// None.
    Absent,
}

/// In 1.0, the message that ends the content.
pub(crate) const END: &[u8] = b"_3";

/// Whether the request wants to change the protocol, and may.
pub(crate) fn switches(head: &RequestHead, upgrades: Upgrades) -> bool {
    upgrades == Upgrades::Kept && h1::upgrade(&head.fields).is_some()
}

/// Writes a request. What is for one connection only stays here, and so do Expect, TE, Trailer and what is for
/// proxies; several Cookie lines become one.
pub fn write_request(head: &RequestHead, content: Content, upgrades: Upgrades, marker: Marker) -> Vec<u8> {
    let is_switch = switches(head, upgrades);
    let mut out = Vec::with_capacity(512);
    out.extend_from_slice(head.method_text().as_bytes());
    out.push(b' ');
    let target = head.path_and_query();
    put_bytes(&mut out, if target.is_empty() { b"/" } else { target.as_bytes() });
    out.extend_from_slice(b" HTTP/1.1\n");
    if !head.fields.contains(NameId::Host) {
        put_field(&mut out, b"Host", head.authority().as_bytes());
    }
    let mut cookie = None;
    for (id, name, value) in h1::crossing(&head.fields) {
        match id {
            NameId::Expect
            | NameId::Te
            | NameId::Trailer
            | NameId::ContentLength
            | NameId::ProxyAuthorization
            | NameId::ProxyAuthenticate => {}
            NameId::Cookie => match &mut cookie {
                None => cookie = Some((name, value.to_vec())),
                Some((_, all)) => {
                    all.extend_from_slice(b"; ");
                    all.extend_from_slice(&value);
                }
            },
            _ => put_field(&mut out, name, &value),
        }
    }
    if let Some((name, value)) = cookie {
        put_field(&mut out, name, &value);
    }
    if let Content::Length(length) = content {
        put_field(&mut out, b"Content-Length", length.to_string().as_bytes());
    }
    if is_switch {
        put_field(&mut out, b"Connection", b"Upgrade");
        put_field(&mut out, b"Upgrade", h1::upgrade(&head.fields).unwrap_or_default());
    }
    out.push(b'\n');
    if marker == Marker::Written {
        let is_bare = !is_switch && matches!(content, Content::None | Content::Length(0));
        out.extend_from_slice(if is_bare { b"_2" } else { b"_1" });
    }
    out
}

/// Reads a request. The content that a head without a marker announces is what its Content-Length says; the
/// frame it came in says whether there is any.
///
/// The method ends at the first space of the first line and the version begins behind the last: a gateway may
/// send the target decoded, with spaces in it. They are encoded again.
///
/// # Errors
/// What is malformed.
pub fn read_request(text: &[u8], marker: Marker) -> Result<(RequestHead, Content), BadHead> {
    let (text, has_content) = match marker {
        Marker::Absent => (text, true),
        Marker::Written => {
            let end = text.len().saturating_sub(2);
            match text.split_at(end) {
                (text, b"_1") if text.ends_with(b"\n") => (text, true),
                (text, b"_2") if text.ends_with(b"\n") => (text, false),
                _ => return Err(BadHead::NoMarker),
            }
        }
    };
    let mut lines = lines(text);
    let first = bytes_of(lines.next().unwrap_or_default());
    let (method, target) = start_line(&first)?;
    let mut fields = read_fields(lines, text.len())?;
    let content = match read_length(&mut fields)? {
        _ if !has_content => Content::None,
        Some(length) => Content::Length(length),
        None => Content::Unknown,
    };
    // No edit of the text, as the target was checked: every byte may stand in a start line.
    Ok((RequestHead::with_fields(method, &target, Version::Http11, fields), content))
}

fn start_line(line: &[u8]) -> Result<(&str, Cow<'_, str>), BadHead> {
    let space = |byte: &u8| *byte == b' ';
    let from = line.iter().position(space).ok_or(BadHead::StartLine)?;
    let to = line.iter().rposition(space).ok_or(BadHead::StartLine)?;
    if from >= to || !line[to + 1..].starts_with(b"HTTP/1.") {
        return Err(BadHead::StartLine);
    }
    let method = std::str::from_utf8(&line[..from]).map_err(|_| BadHead::StartLine)?;
    if method.is_empty() || !method.bytes().all(sluice_http::name::is_token) {
        return Err(BadHead::StartLine);
    }
    let target = &line[from + 1..to];
    // Origin form, or the asterisk of OPTIONS: a target elsewhere is not the connector's to call.
    let is_origin = target.first() == Some(&b'/') || (method == "OPTIONS" && target == b"*");
    if !is_origin || target.iter().any(|&byte| byte < b' ' || byte == 0x7f || byte == b'#') {
        return Err(BadHead::Target);
    }
    match std::str::from_utf8(target) {
        Ok(target) if target.bytes().all(|byte| byte > b' ' && byte < 0x7f) => Ok((method, target.into())),
        _ => Ok((method, encoded(target).into())),
    }
}

/// With everything percent-encoded that may not stand in a target.
fn encoded(target: &[u8]) -> String {
    let mut out = String::with_capacity(target.len() + 16);
    for &byte in target {
        match byte {
            b'!'..=b'~' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}
