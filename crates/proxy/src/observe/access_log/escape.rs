//! Bytes from the network as text inside a line.
//!
//! Promise: what comes out can neither end the string nor the line, and holds no control codes.

use std::ops::Range;

/// An escape: appends the bytes to the line.
pub(super) type Escape = fn(&[u8], &mut Vec<u8>);

const HEX: &[u8; 16] = b"0123456789abcdef";
const HEX_UPPER: &[u8; 16] = b"0123456789ABCDEF";

/// The inside of a JSON string (RFC 8259 section 7). DEL and the C1 controls are escaped too: terminals obey
/// them. What is not UTF-8 becomes U+FFFD.
pub(crate) fn json(bytes: &[u8], out: &mut Vec<u8>) {
    for chunk in bytes.utf8_chunks() {
        json_str(chunk.valid(), out);
        if !chunk.invalid().is_empty() {
            out.extend_from_slice("\u{fffd}".as_bytes());
        }
    }
}

fn json_str(text: &str, out: &mut Vec<u8>) {
    let bytes = text.as_bytes();
    let mut plain: Range<usize> = 0..0;
    while let Some(&byte) = bytes.get(plain.end) {
        let next = bytes.get(plain.end + 1).copied().unwrap_or(0);
        let (code, length) = match byte {
            b'"' | b'\\' | 0..0x20 | 0x7f => (byte, 1),
            // U+0080 to U+009F; their last byte in UTF-8 is their number.
            0xc2 if next < 0xa0 => (next, 2),
            _ => {
                plain.end += 1;
                continue;
            }
        };
        out.extend_from_slice(&bytes[plain.clone()]);
        json_escape(code, out);
        plain = plain.end + length..plain.end + length;
    }
    out.extend_from_slice(&bytes[plain]);
}

fn json_escape(code: u8, out: &mut Vec<u8>) {
    match code {
        b'"' | b'\\' => out.extend_from_slice(&[b'\\', code]),
        b'\n' => out.extend_from_slice(b"\\n"),
        b'\r' => out.extend_from_slice(b"\\r"),
        b'\t' => out.extend_from_slice(b"\\t"),
        _ => {
            out.extend_from_slice(b"\\u00");
            out.extend_from_slice(&[HEX[usize::from(code >> 4)], HEX[usize::from(code & 15)]]);
        }
    }
}

/// The inside of a quoted string of the combined format: quotes, backslashes, control bytes and whatever is
/// not ASCII as `\xHH`.
pub(super) fn hex(bytes: &[u8], out: &mut Vec<u8>) {
    for &byte in bytes {
        match byte {
            b'"' | b'\\' | 0..0x20 | 0x7f.. => {
                let digits = [HEX_UPPER[usize::from(byte >> 4)], HEX_UPPER[usize::from(byte & 15)]];
                out.extend_from_slice(b"\\x");
                out.extend_from_slice(&digits);
            }
            _ => out.push(byte),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn escaped(escape: Escape, bytes: &[u8]) -> String {
        let mut out = Vec::new();
        escape(bytes, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn json_reads_back_as_what_was_written() {
        let texts =
            ["", "plain", "\"\\\n\r\t\u{0}\u{1f}\u{7f}", "é\u{80}\u{9f}\u{a0}ÿ日本\u{1f600}", "\u{9b}31m"];
        for text in texts {
            let escaped = escaped(json, text.as_bytes());
            let back: String = serde_json::from_str(&format!("\"{escaped}\"")).unwrap();
            assert_eq!(back, text);
            assert!(!escaped.chars().any(char::is_control), "{escaped:?}");
        }
        assert_eq!(escaped(json, b"a\"\x1b\x7f"), "a\\\"\\u001b\\u007f");
    }

    #[test]
    fn bytes_that_are_not_utf8_are_replaced_in_json() {
        assert_eq!(escaped(json, b"a\xffb\xc2"), "a\u{fffd}b\u{fffd}");
        assert_eq!(escaped(json, b"\xc2\x9b"), "\\u009b");
    }

    #[test]
    fn every_byte_is_one_line_of_json() {
        let all: Vec<u8> = (0..=255).chain((0..=255).rev()).collect();
        let escaped = escaped(json, &all);
        assert!(serde_json::from_str::<String>(&format!("\"{escaped}\"")).is_ok());
    }

    #[test]
    fn combined_escapes_quotes_controls_and_what_is_not_ascii() {
        assert_eq!(escaped(hex, b"a \"b\\\n\x7f\xc3\xa9~"), "a \\x22b\\x5C\\x0A\\x7F\\xC3\\xA9~");
    }
}
