//! Percent-decoding (RFC 3986 section 2.1), for patterns and for query parameters.
//!
//! Promise: nothing here fails on what a client sent: a percent sign without two hex digits stands for
//! itself.

use std::borrow::Cow;

/// What a plus sign means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Plus {
    /// A space: in queries (application/x-www-form-urlencoded).
    Space,
    /// Itself: in paths.
    Itself,
}

/// The bytes `text` stands for, one by one.
pub(super) fn bytes(text: &str, plus: Plus) -> impl Iterator<Item = u8> + '_ {
    let mut rest = text.as_bytes();
    std::iter::from_fn(move || {
        let (byte, used) = match rest {
            [] => return None,
            [b'%', high, low, ..] => match (digit(*high), digit(*low)) {
                (Some(high), Some(low)) => (high << 4 | low, 3),
                _ => (b'%', 1),
            },
            [b'+', ..] if plus == Plus::Space => (b' ', 1),
            [byte, ..] => (*byte, 1),
        };
        rest = &rest[used..];
        Some(byte)
    })
}

/// The decoded text; borrows when nothing is encoded.
pub(super) fn decoded(text: &str, plus: Plus) -> Cow<'_, [u8]> {
    match text.bytes().any(|byte| byte == b'%' || byte == b'+' && plus == Plus::Space) {
        true => Cow::Owned(bytes(text, plus).collect()),
        false => Cow::Borrowed(text.as_bytes()),
    }
}

/// A path or a part of one, decoded as request paths are: all but `%2F` and `%25`, which stay, in upper case,
/// so that what was a slash or a percent sign of a segment can still be told. `None` when it is not UTF-8.
pub(super) fn path(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('%') {
        let escape = rest.get(at..at + 3).unwrap_or("");
        let kept = ["%2F", "%25"].into_iter().find(|kept| kept.eq_ignore_ascii_case(escape));
        let end = at + if kept.is_some() { 0 } else { escape.len().max(1) };
        out.extend(bytes(&rest[..end], Plus::Itself));
        out.extend_from_slice(kept.unwrap_or("").as_bytes());
        rest = &rest[end + kept.map_or(0, str::len)..];
    }
    out.extend(bytes(rest, Plus::Itself));
    String::from_utf8(out).ok()
}

fn digit(byte: u8) -> Option<u8> {
    (byte as char).to_digit(16).map(|digit| digit as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_value_is_decoded_and_borrowed_when_it_can_be() {
        assert_eq!(&*decoded("a%20b+c%2Bd", Plus::Space), b"a b c+d");
        assert!(matches!(decoded("plain", Plus::Space), Cow::Borrowed(b"plain")));
        assert!(matches!(decoded("a+b", Plus::Itself), Cow::Borrowed(b"a+b")));
        assert_eq!(&*decoded("100%", Plus::Space), b"100%");
        assert_eq!(&*decoded("%zz%4", Plus::Space), b"%zz%4");
    }

    #[test]
    fn a_path_keeps_encoded_slashes() {
        assert_eq!(path("/a%2fb%2Fc%2f").as_deref(), Some("/a%2Fb%2Fc%2F"));
        assert_eq!(path("/100%25/%7e%C3%A9").as_deref(), Some("/100%25/~é"));
        assert_eq!(path("/%é%").as_deref(), Some("/%é%"));
        assert_eq!(path("/%61%3A%28b%29%7C").as_deref(), Some("/a:(b)|"));
        assert_eq!(path("/caf%C3%A9").as_deref(), Some("/café"));
        assert_eq!(path("/%ff"), None);
    }
}
