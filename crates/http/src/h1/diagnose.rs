//! Why did the grammar refuse a head? Looked for only then, line by line, in the order of the bytes.
//!
//! Promise: the reason is the first broken rule; a head that breaks none of those known here (which the parser
//! must not have refused) gives `BadStartLine` rather than nothing.

use super::options::trim;
use super::scan::BLANKS;
use super::{Limits, Refusal};
use crate::name::{is_token, is_value};

/// Why a request head was refused.
#[cold]
pub(super) fn request(raw: &[u8], limits: &Limits) -> Refusal {
    let mut rest = raw;
    for _ in 0..BLANKS {
        rest = rest.strip_prefix(b"\r\n").unwrap_or(rest);
    }
    head(rest, limits, request_line).err().unwrap_or(Refusal::BadStartLine)
}

/// Why a response head was refused.
#[cold]
pub(super) fn response(raw: &[u8], limits: &Limits) -> Refusal {
    head(raw, limits, status_line).err().unwrap_or(Refusal::BadStartLine)
}

fn head(raw: &[u8], limits: &Limits, start: fn(&[u8]) -> Result<(), Refusal>) -> Result<(), Refusal> {
    let mut lines = raw.split_inclusive(|&byte| byte == b'\n');
    start(line(lines.next().unwrap_or_default())?)?;
    let mut count = 0;
    for text in lines {
        let text = line(text)?;
        if text.is_empty() {
            return Ok(());
        }
        field(text)?;
        count += 1;
        if count > limits.fields {
            return Err(Refusal::TooManyFields);
        }
    }
    Ok(())
}

/// A line without its CRLF; no other CR may stand in it.
fn line(text: &[u8]) -> Result<&[u8], Refusal> {
    let Some(text) = text.strip_suffix(b"\n") else { return Err(Refusal::BadStartLine) };
    let Some(text) = text.strip_suffix(b"\r") else { return Err(Refusal::BareLf) };
    if text.contains(&b'\r') { Err(Refusal::BareCr) } else { Ok(text) }
}

fn request_line(text: &[u8]) -> Result<(), Refusal> {
    let Some((method, rest)) = split_at_space(text) else { return Err(Refusal::BadStartLine) };
    if method.is_empty() || !method.iter().all(|&byte| is_token(byte)) {
        return Err(Refusal::BadMethod);
    }
    let Some((target, after)) = split_at_space(rest) else { return Err(Refusal::BadStartLine) };
    if target.is_empty() {
        return Err(Refusal::BadStartLine);
    }
    let is_clean = target.iter().all(|&byte| byte > 0x20 && byte != 0x7f);
    if !is_clean || std::str::from_utf8(target).is_err() {
        return Err(Refusal::BadTarget);
    }
    match version(after) {
        // A version at the end of the line: what stands before it is a target with a space in it.
        Err(Refusal::BadStartLine) if after.len() > 9 && version(&after[after.len() - 8..]).is_ok() => {
            Err(Refusal::BadTarget)
        }
        other => other,
    }
}

fn status_line(text: &[u8]) -> Result<(), Refusal> {
    let Some((first, rest)) = text.split_at_checked(8) else { return Err(Refusal::BadStartLine) };
    version(first)?;
    let Some(rest) = rest.strip_prefix(b" ") else { return Err(Refusal::BadStartLine) };
    let (code, reason) = rest.split_at_checked(3).ok_or(Refusal::BadStatus)?;
    if !code.iter().all(u8::is_ascii_digit) || code[0] == b'0' {
        return Err(Refusal::BadStatus);
    }
    match reason.split_first() {
        None => Ok(()),
        Some((b' ', reason)) if reason.iter().all(|&byte| is_value(byte)) => Ok(()),
        Some((b' ', _)) => Err(Refusal::BadStartLine),
        Some(_) => Err(Refusal::BadStatus),
    }
}

fn version(text: &[u8]) -> Result<(), Refusal> {
    match text {
        b"HTTP/1.0" | b"HTTP/1.1" => Ok(()),
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
            if major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            Err(Refusal::BadVersion)
        }
        _ => Err(Refusal::BadStartLine),
    }
}

fn field(text: &[u8]) -> Result<(), Refusal> {
    if matches!(text, [b' ' | b'\t', ..]) {
        return Err(Refusal::Folded);
    }
    let Some(colon) = text.iter().position(|&byte| byte == b':') else { return Err(Refusal::BadName) };
    let (name, value) = (&text[..colon], trim(&text[colon + 1..]));
    if name.is_empty() || !name.iter().all(|&byte| is_token(byte)) {
        return Err(Refusal::BadName);
    }
    if value.iter().all(|&byte| is_value(byte)) { Ok(()) } else { Err(Refusal::BadValue) }
}

fn split_at_space(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = text.iter().position(|&byte| byte == b' ')?;
    Some((&text[..at], &text[at + 1..]))
}
