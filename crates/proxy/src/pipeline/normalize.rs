//! The normalised path: the one spelling of a path by which requests are matched.
//!
//! Promise: two targets that name the same path give the same text, so that no spelling slips past a route's
//! conditions or filters. It is for matching only: the target that an endpoint gets is not touched.
//!
//! * Percent-encoded bytes are decoded, but for `%2F` (a slash inside a segment is not a separator) and
//!   `%25` (or the text could be decoded twice); these stay, in upper case. Bytes that are not UTF-8 stay
//!   encoded too.
//! * Dot segments are removed (RFC 3986 section 5.2.4), encoded dots as well; a path that climbs above the
//!   root is refused.
//! * Repeated slashes become one, as nginx's `merge_slashes` does.
//! * Refused as `bad-request`: an incomplete escape, and an escape of a control byte.

use std::borrow::Cow;

use sluice_http::{Method, NameId, RequestHead};

use crate::failure::Failure;
use crate::percent::{self, Set};

/// The normalised form of the path of a target: borrowed when there was nothing to do. "*" stays; an empty
/// path (an absolute form without one) is "/". Normalising twice changes nothing more.
///
/// # Errors
/// [`Failure::BadRequest`], see above.
pub fn path(raw: &str) -> Result<Cow<'_, str>, Failure> {
    match raw {
        "" => return Ok(Cow::Borrowed("/")),
        "*" => return Ok(Cow::Borrowed("*")),
        _ if !raw.starts_with('/') => return Err(Failure::BadRequest),
        _ if is_normal(raw) => return Ok(Cow::Borrowed(raw)),
        _ => {}
    }
    let decoded = decode(raw)?;
    Ok(Cow::Owned(resolve(&decoded)?))
}

/// One scan: no escape, no control byte, no "//", and no segment that starts with a dot.
fn is_normal(raw: &str) -> bool {
    let mut before = 0;
    raw.bytes().all(|byte| {
        let after_slash = before == b'/';
        before = byte;
        byte != b'%' && byte > 0x20 && byte != 0x7f && !(after_slash && matches!(byte, b'/' | b'.'))
    })
}

/// Whether the path's segments are what they seem: none is empty (but the last), none is a dot segment in
/// any spelling.
pub(crate) fn has_plain_segments(path: &str) -> bool {
    if !path.contains("//") && !path.contains("/.") && !path.contains("/%2") {
        return true;
    }
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let empty = segment.is_empty() && segments.peek().is_some();
        if empty || is_dots(segment) {
            return false;
        }
    }
    true
}

pub(crate) fn is_dots(segment: &str) -> bool {
    // "%2e%2E" is the longest spelling.
    segment.len() <= 6 && matches!(segment.to_ascii_lowercase().replace("%2e", ".").as_str(), "." | "..")
}

/// The value of the escape `%XX` at the start of `text`.
pub(crate) fn escaped(text: &[u8]) -> Option<u8> {
    let &[b'%', high, low, ..] = text else { return None };
    let digit = |byte: u8| (byte as char).to_digit(16);
    Some((digit(high)? * 16 + digit(low)?) as u8)
}

fn decode(raw: &str) -> Result<String, Failure> {
    let mut bytes = Vec::with_capacity(raw.len());
    let mut rest = raw.as_bytes();
    while let Some(&byte) = rest.first() {
        let (byte, length) = match byte {
            b'%' => (escaped(rest).ok_or(Failure::BadRequest)?, 3),
            byte => (byte, 1),
        };
        rest = &rest[length..];
        match (byte, length) {
            (0..0x20 | 0x7f, _) => return Err(Failure::BadRequest),
            (b'/', 3) => bytes.extend_from_slice(b"%2F"),
            (b'%', _) => bytes.extend_from_slice(b"%25"),
            _ => bytes.push(byte),
        }
    }
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        percent::encode(chunk.invalid(), Set::UNRESERVED, &mut text);
    }
    Ok(text)
}

/// Removes dot segments and empty segments. A trailing slash stays, and "/a/." is "/a/".
fn resolve(decoded: &str) -> Result<String, Failure> {
    let mut out = String::with_capacity(decoded.len());
    let mut segments = decoded.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        match segment {
            "" | "." => {}
            ".." => {
                let parent = out.rfind('/').ok_or(Failure::BadRequest)?;
                out.truncate(parent);
            }
            _ => {
                out.push('/');
                out.push_str(segment);
                continue;
            }
        }
        if last {
            out.push('/');
        }
    }
    Ok(out)
}

/// A normalised path spelled as a target again: what may not stand in a path is percent-encoded, and the
/// escapes that normalising keeps stay as they are.
pub(crate) fn encode(normalised: &str) -> String {
    let mut out = String::with_capacity(normalised.len() + 8);
    percent::encode(normalised.as_bytes(), Set::PATH.with(b"%"), &mut out);
    out
}

/// Gives a target in absolute form the origin form that endpoints expect (RFC 9112 section 3.2.1). The
/// authority goes on in Host, which the engine has checked to be the same one.
pub fn origin_form(head: &mut RequestHead) {
    if head.target().starts_with(['/', '*']) || head.method == Method::Connect {
        return;
    }
    if !head.fields.contains(NameId::Host) {
        let authority = head.authority().to_owned();
        head.fields.append(NameId::Host, authority.as_bytes());
    }
    let target = match head.path_and_query() {
        // "OPTIONS http://host" asks about the server itself (RFC 9112 section 3.2.4).
        "/" if head.method == Method::Options && !head.target().ends_with('/') => "*".to_owned(),
        query if query.starts_with('?') => format!("/{query}"),
        target => target.to_owned(),
    };
    head.set_target(&target);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_normal_path_is_borrowed() {
        for raw in ["/", "/a", "/a/b.c/", "/a:b(c)|d;e=f", "/..a", "*", "/é", "/a\\b"] {
            let normal = path(raw).unwrap();
            assert_eq!(normal, raw);
            assert!(matches!(normal, Cow::Borrowed(_)) || raw.starts_with("/."), "{raw}");
        }
        assert_eq!(path("").unwrap(), "/");
    }

    #[test]
    fn escapes_are_decoded_but_for_slash_and_percent() {
        for (raw, normal) in [
            ("/%61%3A%28b%29%7c", "/a:(b)|"),
            ("/a%2fb%2Fc", "/a%2Fb%2Fc"),
            ("/100%25", "/100%25"),
            ("/%2541", "/%2541"),
            ("/%252e%252e/x", "/%252e%252e/x"),
            ("/caf%c3%a9", "/café"),
            ("/x%ffy%C3", "/x%FFy%C3"),
            ("/a%20b%3Fc%23d", "/a b?c#d"),
            ("/a%5C..%5cb", "/a\\..\\b"),
        ] {
            assert_eq!(path(raw).unwrap(), normal, "{raw}");
        }
    }

    #[test]
    fn dot_segments_and_repeated_slashes_go() {
        for (raw, normal) in [
            ("/a/./b", "/a/b"),
            ("/a/../b", "/b"),
            ("/a/%2e%2E/b", "/b"),
            ("/a/.%2e/b/.", "/b/"),
            ("/a/b/..", "/a/"),
            ("/a/..", "/"),
            ("/.", "/"),
            ("//a///b//", "/a/b/"),
            ("/a//../b", "/b"),
            ("/a/.b/..c/...", "/a/.b/..c/..."),
            ("/a%2F../b", "/a%2F../b"),
        ] {
            assert_eq!(path(raw).unwrap(), normal, "{raw}");
        }
    }

    #[test]
    fn what_is_ambiguous_or_dangerous_is_refused() {
        for raw in [
            "/..",
            "/a/../..",
            "/%2e%2e/a",
            "//..",
            "/a%",
            "/a%2",
            "/a%zz",
            "/a%+1",
            "/a%00b",
            "/a%0d%0a",
            "/a%7F",
            "/a\u{7f}",
            "/a\tb",
            "a",
            "a.example:443",
        ] {
            assert_eq!(path(raw), Err(Failure::BadRequest), "{raw:?}");
        }
    }

    #[test]
    fn plain_segments_are_told_from_the_others() {
        for plain in ["/", "/a/b/", "/.a/b..", "/...", "/%2Fa", "/a%2e%2e"] {
            assert!(has_plain_segments(plain), "{plain}");
        }
        for other in ["//", "/a//b", "/a/./b", "/..", "/%2e%2E/", "/a/.%2e", "/%2e"] {
            assert!(!has_plain_segments(other), "{other}");
        }
    }

    proptest! {
        #[test]
        fn normalising_never_panics_and_twice_is_once(
            raw in "/([a-c./%é\u{7f}]|%2[5eEfF0-9]|%[0-9a-fA-F]{2}|//|\\.\\./){0,24}"
        ) {
            if let Ok(once) = path(&raw) {
                prop_assert!(once.starts_with('/'), "{}", once);
                prop_assert_eq!(path(&once).unwrap(), once.clone(), "{}", raw);
                prop_assert!(has_plain_segments(&once), "{} -> {}", raw, once);
                // And its spelling as a target means the same path.
                let spelled = encode(&once);
                prop_assert!(spelled.bytes().all(|byte| byte > 0x20 && byte < 0x7f && byte != b'?'));
                prop_assert_eq!(path(&spelled).unwrap(), once);
            }
        }

        #[test]
        fn any_text_is_answered_without_a_panic(raw in any::<String>()) {
            let _ = path(&raw);
            let _ = has_plain_segments(&raw);
        }
    }
}
