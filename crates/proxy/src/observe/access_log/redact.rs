//! What must not stand in a log: credentials in query parameters, user information and fields.
//!
//! Promise: a redacted value is never copied, not even in part. A parameter counts whatever its case, its
//! separators (`api_key`, `api-key`, `apiKey`), its percent-encoding and its nesting (`user[password]`).
//! What this cannot see are secrets in a path, and parameters that nobody named.

use sluice_http::{FieldName, NameId};

use super::escape::Escape;

/// Stands where a value was.
pub(super) const REDACTED: &[u8] = b"[redacted]";

/// Longest parameter name that is looked at, in bytes after folding; no name that is redacted is longer.
const LONGEST: usize = 64;

/// Parameters that are always redacted, folded (see [`fold`]) and sorted.
const PARAMETERS: &[&str] = &[
    "accesskey",
    "accesstoken",
    "apikey",
    "assertion",
    "auth",
    "authorization",
    "authtoken",
    "clientassertion",
    "clientsecret",
    "code",
    "credential",
    "credentials",
    "idtoken",
    "jwt",
    "key",
    "otp",
    "passphrase",
    "passwd",
    "password",
    "pwd",
    "refreshtoken",
    "samlresponse",
    "secret",
    "secretkey",
    "session",
    "sessionid",
    "sessiontoken",
    "sid",
    "sig",
    "signature",
    "token",
    "xamzcredential",
    "xamzsecuritytoken",
    "xamzsignature",
    "xgoogcredential",
    "xgoogsignature",
];

/// Fields whose values are always redacted, beside those [`is_secret`] knows by their id.
const FIELDS: &[&str] = &[
    "api-key",
    "apikey",
    "x-access-token",
    "x-amz-security-token",
    "x-api-key",
    "x-auth-token",
    "x-csrf-token",
    "x-forwarded-access-token",
    "x-goog-iap-jwt-assertion",
    "x-vault-token",
    "x-xsrf-token",
];

/// Whether the values of a field are never logged.
pub(super) fn is_secret(name: &FieldName) -> bool {
    matches!(
        name.id(),
        NameId::Authorization | NameId::Cookie | NameId::SetCookie | NameId::ProxyAuthorization
    ) || FIELDS.iter().any(|field| field.eq_ignore_ascii_case(name.as_str()))
}

/// The parameters whose values are redacted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Parameters {
    more: Vec<Box<[u8]>>,
}

impl Parameters {
    /// The usual ones and `more`; gives back those of `more` that can never match.
    pub(super) fn new(more: &[String]) -> Result<Parameters, Vec<&str>> {
        let (mut folded, mut wrong) = (Vec::new(), Vec::new());
        for name in more {
            let name_folded: Vec<u8> = fold(name.as_bytes()).collect();
            let splits =
                name_folded.iter().any(|byte| is_bracket(*byte) || is_separator(*byte) || *byte == b'=');
            if name_folded.is_empty() || name_folded.len() > LONGEST || splits {
                wrong.push(name.as_str());
            }
            folded.push(name_folded.into_boxed_slice());
        }
        folded.sort_unstable();
        if wrong.is_empty() { Ok(Parameters { more: folded }) } else { Err(wrong) }
    }

    fn holds(&self, folded: &[u8]) -> bool {
        PARAMETERS.binary_search_by(|name| name.as_bytes().cmp(folded)).is_ok()
            || self.more.binary_search_by(|name| (**name).cmp(folded)).is_ok()
    }

    /// Whether a parameter of this name is redacted; each part of a nested name counts.
    fn redact(&self, name: &[u8]) -> bool {
        let (mut part, mut length) = ([0; LONGEST], 0_usize);
        for byte in fold(name).chain([b']']) {
            if !is_bracket(byte) {
                if let Some(slot) = part.get_mut(length) {
                    *slot = byte;
                }
                length = length.saturating_add(1);
                continue;
            }
            if part.get(..length).is_some_and(|part| !part.is_empty() && self.holds(part)) {
                return true;
            }
            length = 0;
        }
        false
    }
}

/// Percent-decodes, lowers ASCII letters, and leaves out what separates words.
fn fold(name: &[u8]) -> impl Iterator<Item = u8> + '_ {
    let mut at = 0;
    std::iter::from_fn(move || {
        let byte = *name.get(at)?;
        let digit = |offset: usize| (*name.get(at + offset)? as char).to_digit(16);
        let decoded = match (byte, digit(1), digit(2)) {
            (b'%', Some(high), Some(low)) => Some((high * 16 + low) as u8),
            _ => None,
        };
        at += if decoded.is_some() { 3 } else { 1 };
        Some(decoded.unwrap_or(byte).to_ascii_lowercase())
    })
    .filter(|byte| !matches!(byte, b'-' | b'_' | b'.' | b' ' | b'+'))
}

fn is_bracket(byte: u8) -> bool {
    byte == b'[' || byte == b']'
}

/// What may stand between two parameters; also `?` and `#`, since some clients repeat them.
fn is_separator(byte: u8) -> bool {
    matches!(byte, b'&' | b';' | b'?' | b'#')
}

/// Appends a query (without its question mark), its secrets redacted.
pub(super) fn query(query: &[u8], parameters: &Parameters, escape: Escape, out: &mut Vec<u8>) {
    let mut rest = query;
    while !rest.is_empty() {
        let end = rest.iter().position(|byte| is_separator(*byte)).unwrap_or(rest.len());
        let (pair, after) = rest.split_at(end);
        match pair.iter().position(|byte| *byte == b'=') {
            Some(equals) if equals + 1 < pair.len() && parameters.redact(&pair[..equals]) => {
                escape(&pair[..=equals], out);
                out.extend_from_slice(REDACTED);
            }
            _ => escape(pair, out),
        }
        let (separator, after) = after.split_at(usize::from(!after.is_empty()));
        escape(separator, out);
        rest = after;
    }
}

/// Appends a request target or a URL: user information and the secrets of its query redacted.
pub(super) fn target(target: &[u8], parameters: &Parameters, escape: Escape, out: &mut Vec<u8>) {
    let split = target.iter().position(|byte| matches!(byte, b'?' | b'#')).unwrap_or(target.len());
    let (path, rest) = target.split_at(split);
    let authority = path.windows(3).position(|three| three == b"://").map(|at| at + 3);
    match authority {
        Some(start) => {
            let end = path[start..].iter().position(|byte| *byte == b'/').map_or(path.len(), |at| start + at);
            escape(&path[..start], out);
            if let Some(at) = path[start..end].iter().rposition(|byte| *byte == b'@') {
                out.extend_from_slice(REDACTED);
                escape(&path[start + at..], out);
            } else {
                escape(&path[start..], out);
            }
        }
        None => escape(path, out),
    }
    let (mark, rest) = rest.split_at(usize::from(!rest.is_empty()));
    escape(mark, out);
    query(rest, parameters, escape, out);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::access_log::escape::json;

    fn redacted(text: &str, more: &[&str]) -> String {
        let more: Vec<String> = more.iter().copied().map(String::from).collect();
        let mut out = Vec::new();
        target(text.as_bytes(), &Parameters::new(&more).unwrap(), json, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_list_is_sorted_folded_and_short_enough() {
        assert!(PARAMETERS.is_sorted_by(|a, b| a < b));
        for name in PARAMETERS {
            assert!(fold(name.as_bytes()).eq(name.bytes()) && name.len() <= LONGEST, "{name}");
        }
    }

    #[test]
    fn secrets_are_redacted_however_they_are_spelled() {
        for (text, expected) in [
            ("/a?token=x&b=1", "/a?token=[redacted]&b=1"),
            ("/a?b=1&Access_Token=x;api-key=y", "/a?b=1&Access_Token=[redacted];api-key=[redacted]"),
            ("/a?apiKey=x=y", "/a?apiKey=[redacted]"),
            ("/a?pass%77ord=x", "/a?pass%77ord=[redacted]"),
            (
                "/a?user[password]=x&user%5Bpassword%5D=y",
                "/a?user[password]=[redacted]&user%5Bpassword%5D=[redacted]",
            ),
            ("/a?b?token=x", "/a?b?token=[redacted]"),
            ("https://x/#access_token=x", "https://x/#access_token=[redacted]"),
            ("/a?X-Amz-Signature=x", "/a?X-Amz-Signature=[redacted]"),
            ("http://u:p@h.example/a?c=d", "http://[redacted]@h.example/a?c=d"),
            ("http://u:p@x@h.example?secret=1", "http://[redacted]@h.example?secret=[redacted]"),
        ] {
            assert_eq!(redacted(text, &[]), expected);
        }
    }

    #[test]
    fn other_parameters_stay_as_they_are() {
        let long = format!("/a?{}token=x", "a".repeat(100));
        for text in [
            "/",
            "*",
            "",
            "/a?",
            "/a?token",
            "/a?token=",
            "/a?tokens=1&=x&&b",
            "/a@b://c",
            "h.example:443",
            &long,
        ] {
            assert_eq!(redacted(text, &[]), text);
        }
    }

    #[test]
    fn a_document_can_name_more() {
        assert_eq!(redacted("/a?card_number=1&x=2", &["Card-Number"]), "/a?card_number=[redacted]&x=2");
        let wrong = ["", "--", "a=b", "a&b", "a[b]"].map(String::from);
        assert_eq!(Parameters::new(&wrong).unwrap_err().len(), wrong.len());
    }

    #[test]
    fn fields_with_credentials_are_known() {
        for name in
            ["authorization", "COOKIE", "Set-Cookie", "Proxy-Authorization", "X-API-Key", "x-auth-token"]
        {
            assert!(is_secret(&FieldName::new(name).unwrap()), "{name}");
        }
        assert!(!is_secret(&FieldName::new("User-Agent").unwrap()));
    }
}
