//! Percent-coding (RFC 3986 section 2.1): decoding what clients send, encoding what we write into targets.
//!
//! Promise: decoding never fails and never decodes twice; text without escapes is borrowed, not copied.
//! Whether malformed escapes are acceptable is asked separately ([`is_well_formed`]), because a router
//! refuses them while a log line shows them.

use std::borrow::Cow;

/// What a plus sign stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plus {
    /// Itself: in paths (RFC 3986 section 3.3, a sub-delim).
    Literal,
    /// A space: in queries (application/x-www-form-urlencoded, as HTML forms write them).
    Space,
}

/// The decoded bytes of `text`, one after the other. A `%` without two hexadecimal digits stays as it is.
#[derive(Clone, Debug)]
pub struct Decoded<'a> {
    rest: &'a [u8],
    plus: Plus,
}

impl Iterator for Decoded<'_> {
    type Item = u8;

    fn next(&mut self) -> Option<u8> {
        let (&first, rest) = self.rest.split_first()?;
        self.rest = rest;
        match first {
            b'+' if self.plus == Plus::Space => Some(b' '),
            b'%' => match rest {
                [high, low, after @ ..] => match (hex(*high), hex(*low)) {
                    (Some(high), Some(low)) => {
                        self.rest = after;
                        Some(high << 4 | low)
                    }
                    _ => Some(b'%'),
                },
                _ => Some(b'%'),
            },
            other => Some(other),
        }
    }
}

/// The decoded bytes of `text` as an iterator: for comparing without allocating.
pub fn decoded(text: &[u8], plus: Plus) -> Decoded<'_> {
    Decoded { rest: text, plus }
}

/// The decoded bytes of `text`; borrowed when nothing is encoded.
pub fn decode(text: &[u8], plus: Plus) -> Cow<'_, [u8]> {
    let first = match plus {
        Plus::Literal => memchr::memchr(b'%', text),
        Plus::Space => memchr::memchr2(b'%', b'+', text),
    };
    let Some(first) = first else { return Cow::Borrowed(text) };
    let mut out = Vec::with_capacity(text.len());
    out.extend_from_slice(&text[..first]);
    out.extend(decoded(&text[first..], plus));
    Cow::Owned(out)
}

/// Whether every `%` is followed by two hexadecimal digits (RFC 3986 section 2.1).
pub fn is_well_formed(text: &[u8]) -> bool {
    memchr::memchr_iter(b'%', text).all(|at| {
        let digit = |index: usize| text.get(index).is_some_and(u8::is_ascii_hexdigit);
        digit(at + 1) && digit(at + 2)
    })
}

/// The first value of parameter `name` (decoded) in a query, as it stands there (encoded). Names are
/// decoded before they are compared, so `%76=1` gives `v`, as it does for the endpoint behind us.
pub fn parameter<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    query.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let found = !pair.is_empty() && decoded(key.as_bytes(), Plus::Space).eq(name.bytes());
        found.then_some(value)
    })
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|value| value as u8)
}

/// Bytes that stay as they are; every other byte is encoded. Only ASCII can be in a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Set(u128);

impl Set {
    /// Letters, digits, `-._~` (RFC 3986 section 2.3): safe in every component, such as a query value.
    pub const UNRESERVED: Set =
        Set(0).with(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~");

    /// One path segment: pchar (RFC 3986 section 3.3), that is unreserved, sub-delims, `:` and `@`.
    pub const SEGMENT: Set = Set::UNRESERVED.with(b"!$&'()*+,;=:@");

    /// Several path segments: pchar and `/` (RFC 3986 section 3.3).
    pub const PATH: Set = Set::SEGMENT.with(b"/");

    /// A whole query (RFC 3986 section 3.4). For one value of it take [`Set::UNRESERVED`].
    pub const QUERY: Set = Set::PATH.with(b"?");

    /// This set and `bytes`, which must be ASCII.
    pub const fn with(mut self, bytes: &[u8]) -> Set {
        let mut at = 0;
        while at < bytes.len() {
            assert!(bytes[at] < 128, "only ASCII can be in a set");
            self.0 |= 1 << bytes[at];
            at += 1;
        }
        self
    }

    /// Whether `byte` stays as it is.
    pub const fn keeps(self, byte: u8) -> bool {
        byte < 128 && self.0 >> byte & 1 == 1
    }
}

/// Appends `bytes` to `out`; what is not in `set` is written as `%XX` with upper-case digits (RFC 3986
/// section 6.2.2.1). Encodes `%` too: give it decoded bytes.
pub fn encode(bytes: &[u8], set: Set, out: &mut String) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    for &byte in bytes {
        if set.keeps(byte) {
            out.push(char::from(byte));
        } else {
            out.push('%');
            out.push(char::from(DIGITS[usize::from(byte >> 4)]));
            out.push(char::from(DIGITS[usize::from(byte & 15)]));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn escapes_are_decoded_once_and_malformed_ones_stay() {
        for (text, plain) in [
            ("a%20b", "a b"),
            ("%41%c3%A9", "Aé"),
            ("%2541", "%41"),
            ("%", "%"),
            ("%4", "%4"),
            ("%zz%41", "%zzA"),
            ("%%41", "%A"),
            ("a+b", "a+b"),
        ] {
            assert_eq!(decode(text.as_bytes(), Plus::Literal), plain.as_bytes(), "{text}");
        }
        assert_eq!(&decode(b"a+b%2B", Plus::Space)[..], b"a b+");
    }

    #[test]
    fn text_without_escapes_is_borrowed() {
        assert!(matches!(decode(b"plain", Plus::Space), Cow::Borrowed(_)));
        assert!(matches!(decode(b"a+b", Plus::Literal), Cow::Borrowed(_)));
    }

    #[test]
    fn well_formed_means_two_digits_after_every_percent() {
        for (text, expected) in [("", true), ("%41x", true), ("%4", false), ("%", false), ("%g0", false)] {
            assert_eq!(is_well_formed(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn a_parameter_is_found_by_its_decoded_name() {
        let query = "&a=1&%76=2&b[]=3&flag&a=9&x+y=4&=5";
        for (name, value) in [
            ("a", Some("1")),
            ("v", Some("2")),
            ("b[]", Some("3")),
            ("flag", Some("")),
            ("x y", Some("4")),
            ("", Some("5")),
            ("%76", None),
            ("A", None),
        ] {
            assert_eq!(parameter(query, name), value, "{name}");
        }
    }

    #[test]
    fn sets_are_those_of_the_grammar() {
        let kept = |set: Set| (0..=255u8).filter(|byte| set.keeps(*byte)).count();
        assert_eq!(kept(Set::UNRESERVED), 66);
        assert_eq!(kept(Set::SEGMENT), 66 + 13);
        assert_eq!(kept(Set::PATH), 66 + 14);
        assert_eq!(kept(Set::QUERY), 66 + 15);
        let mut out = String::new();
        encode("a/b?ü %#".as_bytes(), Set::SEGMENT, &mut out);
        assert_eq!(out, "a%2Fb%3F%C3%BC%20%25%23");
    }

    proptest! {
        #[test]
        fn encoding_is_undone_by_decoding(bytes: Vec<u8>) {
            for set in [Set::UNRESERVED, Set::SEGMENT, Set::PATH, Set::QUERY] {
                let mut out = String::new();
                encode(&bytes, set, &mut out);
                prop_assert!(is_well_formed(out.as_bytes()));
                prop_assert_eq!(&decode(out.as_bytes(), Plus::Literal)[..], &bytes[..]);
            }
        }

        #[test]
        fn decoding_never_grows_or_panics(bytes: Vec<u8>) {
            prop_assert!(decode(&bytes, Plus::Space).len() <= bytes.len());
        }
    }
}
