//! The line before a chunk's data: a size and extensions (RFC 9112 section 7.1).
//!
//! Promise: the grammar and nothing else. No sign, prefix or blank around the size, at most 16 digits, no
//! whitespace in extensions (the grammar tolerates "bad whitespace", we do not), CRLF only, even inside a
//! quoted string. Extensions are checked and dropped: no recipient past this hop can have agreed to them.

use crate::name::is_token;

/// The longest line, without CRLF, in bytes.
const LONGEST: usize = 256;
const DIGITS: usize = 16;

/// A line, or the beginning of one.
pub(super) enum Line {
    Partial,
    /// `len` bytes with CRLF, of which so many are extensions.
    Complete {
        len: usize,
        size: u64,
        extensions: usize,
    },
}

/// A byte that cannot stand where it stands, or one too many.
pub(super) struct Malformed;

/// Where in the line the next byte stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    /// Before a name; one character at least.
    NameStart,
    Name,
    /// Behind `=`.
    ValueStart,
    Value,
    Quoted,
    Escaped,
    /// Behind the closing quote.
    QuotedEnd,
    Cr,
}

/// Reads the line at the front of `buf`.
pub(super) fn line(buf: &[u8]) -> Result<Line, Malformed> {
    let mut size = 0u64;
    let mut digits = 0;
    while let Some(value) = buf.get(digits).and_then(|&byte| hex(byte)) {
        if digits == DIGITS {
            return Err(Malformed);
        }
        size = size << 4 | u64::from(value);
        digits += 1;
    }
    let mut part = match (digits, buf.get(digits)) {
        (_, None) => return Ok(Line::Partial),
        (1.., Some(b'\r')) => Part::Cr,
        (1.., Some(b';')) => Part::NameStart,
        _ => return Err(Malformed),
    };
    for (at, &byte) in buf.iter().enumerate().skip(digits + 1) {
        if part == Part::Cr {
            return match byte {
                b'\n' => Ok(Line::Complete { len: at + 1, size, extensions: at - 1 - digits }),
                _ => Err(Malformed),
            };
        }
        part = next(part, byte).ok_or(Malformed)?;
        if at >= LONGEST && part != Part::Cr {
            return Err(Malformed);
        }
    }
    Ok(Line::Partial)
}

/// `chunk-ext = *( ";" name [ "=" ( token / quoted-string ) ] )`, without the bad whitespace.
fn next(part: Part, byte: u8) -> Option<Part> {
    let is_text = byte == b'\t' || (byte >= b' ' && byte != 0x7f);
    match (part, byte) {
        (Part::NameStart | Part::Name, _) if is_token(byte) => Some(Part::Name),
        (Part::ValueStart | Part::Value, _) if is_token(byte) => Some(Part::Value),
        (Part::Name, b'=') => Some(Part::ValueStart),
        (Part::Name | Part::Value | Part::QuotedEnd, b';') => Some(Part::NameStart),
        (Part::Name | Part::Value | Part::QuotedEnd, b'\r') => Some(Part::Cr),
        (Part::ValueStart, b'"') => Some(Part::Quoted),
        (Part::Quoted, b'"') => Some(Part::QuotedEnd),
        (Part::Quoted, b'\\') => Some(Part::Escaped),
        (Part::Quoted | Part::Escaped, _) if is_text => Some(Part::Quoted),
        _ => None,
    }
}

fn hex(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}
