//! What Connection, Expect and Upgrade say about a message (RFC 9110 sections 7.6.1, 7.8 and 10.1.1).
//!
//! Promise: list members are compared without case and with optional whitespace around them; a malformed
//! member names nothing. Nothing here decides: the caller does.

use crate::fields::Fields;
use crate::head::{RequestHead, Version};
use crate::name::NameId;

/// What a request expects before it sends its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expectation {
    /// Nothing.
    None,
    /// A 100 answer, or a final one.
    Continue,
    /// Something that is not known: 417 is the answer.
    Unknown,
}

/// Whether the connection may be used again after this message (RFC 9112 section 9.3): `close` wins, HTTP/1.1
/// persists otherwise, HTTP/1.0 must say `keep-alive`.
pub fn keep_alive(version: Version, fields: &Fields) -> bool {
    if !fields.contains(NameId::Connection) {
        return version != Version::Http10;
    }
    !connection_has(fields, "close") && (version != Version::Http10 || connection_has(fields, "keep-alive"))
}

/// Whether a Connection field names `token`.
pub fn connection_has(fields: &Fields, token: &str) -> bool {
    connection_options(fields).any(|option| option.eq_ignore_ascii_case(token.as_bytes()))
}

/// What the Connection fields name, in order; empty members are left out.
pub(super) fn connection_options(fields: &Fields) -> impl Iterator<Item = &[u8]> {
    fields.get_all(NameId::Connection).flat_map(members)
}

/// The members of a list value (RFC 9110 section 5.6.1); empty ones are left out.
pub(super) fn members(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&byte| byte == b',').map(trim).filter(|member| !member.is_empty())
}

/// `text` without optional whitespace (space, tab) around it.
pub(super) fn trim(text: &[u8]) -> &[u8] {
    let is_ows = |byte: &u8| matches!(byte, b' ' | b'\t');
    let from = text.iter().position(|byte| !is_ows(byte)).unwrap_or(text.len());
    let to = text.iter().rposition(|byte| !is_ows(byte)).map_or(from, |last| last + 1);
    &text[from..to]
}

/// What the request expects. HTTP/1.0 cannot expect anything: there, the field means nothing.
pub fn expects_continue(head: &RequestHead) -> Expectation {
    if head.version == Version::Http10 {
        return Expectation::None;
    }
    let mut expectation = Expectation::None;
    for member in head.fields.get_all(NameId::Expect).flat_map(members) {
        if !member.eq_ignore_ascii_case(b"100-continue") {
            return Expectation::Unknown;
        }
        expectation = Expectation::Continue;
    }
    expectation
}

/// The value of the first Upgrade field, when Connection names `upgrade`. An HTTP/1.0 message cannot ask for
/// an upgrade: the caller looks at its version.
pub fn upgrade(fields: &Fields) -> Option<&[u8]> {
    let value = fields.get(NameId::Upgrade)?;
    (connection_has(fields, "upgrade") && !value.is_empty()).then_some(value)
}
