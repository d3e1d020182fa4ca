//! The request target's forms (RFC 9112 section 3.2) and the Host beside them (RFC 9110 section 7.2).
//!
//! Promise: an accepted request is for one authority, however it is spelled; a target that is accepted can be
//! written into a start line as it is. Paths are not looked into: escapes and dot segments are the router's.

use std::net::Ipv6Addr;

use super::Refusal;
use super::parse::Marks;
use crate::head::{Method, Version};

/// The form of a request target.
pub(super) enum Form<'a> {
    /// `/path?query`
    Origin,
    /// `http://authority/path?query`
    Absolute { authority: Authority<'a>, default_port: u16 },
    /// `host:port`, for CONNECT
    Authority(Authority<'a>),
    /// `*`, for OPTIONS
    Asterisk,
}

/// `host[:port]`, checked.
#[derive(Clone, Copy)]
pub(super) struct Authority<'a> {
    host: &'a [u8],
    port: Option<u16>,
}

/// Finds the form. httparse has refused spaces, control bytes and what is not UTF-8.
pub(super) fn form(method: Method, target: &str) -> Result<Form<'_>, Refusal> {
    // One pass without branches: nearly no target holds any of these.
    let is_suspect = target.bytes().fold(false, |found, byte| found | is_suspect(byte));
    if is_suspect && !is_tolerable(target) {
        return Err(Refusal::BadTarget);
    }
    match (method, target) {
        (Method::Connect, _) => match authority(target.as_bytes()) {
            Some(authority) if authority.port.is_some() => Ok(Form::Authority(authority)),
            _ => Err(Refusal::BadTarget),
        },
        (Method::Options, "*") => Ok(Form::Asterisk),
        _ if target.starts_with('/') => Ok(Form::Origin),
        _ => absolute(target).ok_or(Refusal::BadTarget),
    }
}

const fn is_suspect(byte: u8) -> bool {
    matches!(byte, b'#' | b'"' | b'<' | b'>' | b'`')
}

/// What no URI may hold and no browser sends raw is refused. A backtick in a query is sent raw, as are
/// `\^{|}` (RFC 3986 forbids them, the URL standard does not escape them): those pass.
#[cold]
fn is_tolerable(target: &str) -> bool {
    let path = target.split('?').next().unwrap_or(target);
    !path.contains('`') && !target.contains(['#', '"', '<', '>'])
}

fn absolute(target: &str) -> Option<Form<'_>> {
    let (scheme, rest) = target.split_once("://")?;
    let default_port = match () {
        () if scheme.eq_ignore_ascii_case("http") => 80,
        () if scheme.eq_ignore_ascii_case("https") => 443,
        () => return None,
    };
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    Some(Form::Absolute { authority: authority(&rest.as_bytes()[..end])?, default_port })
}

/// Checks number and value of Host against the target.
pub(super) fn check_host(form: &Form<'_>, version: Version, marks: &Marks<'_>) -> Result<(), Refusal> {
    let value = match (marks.hosts, marks.host) {
        (2.., _) => return Err(Refusal::HostRepeated),
        (1, Some(value)) => value,
        _ if version == Version::Http10 => return Ok(()),
        _ => return Err(Refusal::HostMissing),
    };
    if value.is_empty() && matches!(form, Form::Asterisk) {
        return Ok(());
    }
    let host = authority(value).ok_or(Refusal::BadHost)?;
    let same = match *form {
        Form::Origin | Form::Asterisk => true,
        Form::Absolute { authority, default_port } => {
            host.port.unwrap_or(default_port) == authority.port.unwrap_or(default_port)
                && host.host.eq_ignore_ascii_case(authority.host)
        }
        // Some clients leave the port out of Host; no scheme says which would be the default.
        Form::Authority(authority) => {
            (host.port.is_none() || host.port == authority.port)
                && host.host.eq_ignore_ascii_case(authority.host)
        }
    };
    if same { Ok(()) } else { Err(Refusal::BadHost) }
}

/// Checks `uri-host [":" port]` (RFC 3986 section 3.2): no userinfo, not empty, a port of digits. Stricter
/// than the grammar: an IP literal is an IPv6 address (no zone, no future form), a port is not empty.
fn authority(text: &[u8]) -> Option<Authority<'_>> {
    let end = match text {
        [b'[', rest @ ..] => {
            let end = rest.iter().position(|byte| *byte == b']')?;
            std::str::from_utf8(&rest[..end]).ok()?.parse::<Ipv6Addr>().ok()?;
            end + 2
        }
        _ => reg_name(text)?,
    };
    let (host, rest) = text.split_at(end);
    let port = match rest {
        [] => None,
        [b':', digits @ ..] => Some(port(digits)?),
        _ => return None,
    };
    Some(Authority { host, port })
}

/// The length of the registered name or IPv4 address at the front: unreserved, escapes, sub-delims.
fn reg_name(text: &[u8]) -> Option<usize> {
    let end = text.iter().position(|&byte| byte == b':').unwrap_or(text.len());
    let mut rest = &text[..end];
    if rest.is_empty() {
        return None;
    }
    while let Some((&byte, after)) = rest.split_first() {
        rest = match (byte, after) {
            (b'%', [high, low, after @ ..]) if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => after,
            (b'%', _) => return None,
            _ if is_reg_name(byte) => after,
            _ => return None,
        };
    }
    Some(end)
}

fn is_reg_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=".contains(&byte)
}

fn port(digits: &[u8]) -> Option<u16> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u16, |port, byte| match byte {
        b'0'..=b'9' => port.checked_mul(10)?.checked_add(u16::from(byte - b'0')),
        _ => None,
    })
}
