//! Lines of a document that are not shown, whatever a problem is about: a secret may stand on them.
//!
//! Promise: it looks at the text alone, since what is misspelled or no document at all may hold secrets too. It rather
//! withholds one line too many.

/// What a secret, or the hash of one, begins with.
const MARKS: &[&str] = &[
    "$argon2",
    "$2a$",
    "$2b$",
    "$2y$",
    "$5$",
    "$6$",
    "$apr1$",
    "$1$",
    "$y$",
    "{SHA}",
    "sha256:",
    "PRIVATE KEY",
    "eyJ",
];

/// Keys under which secrets stand, and what else is near them.
const KEYS: &[&str] = &[
    "secret",
    "password",
    "passwd",
    "users",
    "basic",
    "hmac_keys",
    "api_keys",
    "client_secret",
    "credentials",
];

/// How many lines above are looked at for the table that a line stands in.
const ABOVE: usize = 40;

/// Whether a secret may stand on a line (from 1).
pub(super) fn may_hold_secret(text: &str, line: usize) -> bool {
    let lines: Vec<&str> = text.lines().take(line).collect();
    let Some((own, above)) = lines.split_last() else { return false };
    if is_marked(own) || KEYS.iter().any(|key| is_key(own, key)) || has_credentials_in_url(own) {
        return true;
    }
    // A table begins above: with a header of TOML, or with a line that is less indented.
    let mut depth = indent(own);
    let toml_header = |line: &str| line.trim_start().starts_with('[');
    for line in above.iter().rev().take(ABOVE).filter(|line| !line.trim().is_empty()) {
        if toml_header(line) {
            let name = line.trim().trim_matches(['[', ']']);
            return name.split('.').any(|part| KEYS.contains(&part.trim().trim_matches('"')));
        }
        if indent(line) < depth {
            depth = indent(line);
            if KEYS.iter().any(|key| is_key(line, key)) {
                return true;
            }
        }
    }
    false
}

fn indent(line: &str) -> usize {
    line.len() - line.trim_start().len()
}

fn is_marked(line: &str) -> bool {
    MARKS.iter().any(|mark| line.contains(mark))
}

/// Whether `key =`, `key:` or `"key":` stands on the line.
fn is_key(line: &str, key: &str) -> bool {
    line.match_indices(key).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + key.len()..].trim_start_matches(['"', '\'']).trim_start();
        let starts = before.is_none_or(|c| !c.is_alphanumeric() && c != '_' && c != '-');
        starts && after.starts_with(['=', ':'])
    })
}

/// "redis://user:password@host".
fn has_credentials_in_url(line: &str) -> bool {
    line.match_indices("://").any(|(at, _)| {
        let rest = &line[at + 3..];
        let authority = &rest[..rest.find(['/', '"', '\'', ' ']).unwrap_or(rest.len())];
        authority.contains('@')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_with_a_secret_or_near_one_is_withheld() {
        for (text, expected) in [
            ("filters = [{ basic_auth = { users = { anna = \"x\" }, relm = \"y\" } }]", true),
            ("filters = [{ basic_auth = { userz = { anna = \"$2y$05$abc\" } } }]", true),
            ("[consumers.a]\nname = 1\nhmac_keys = { k = \"top\" ", true),
            ("[consumers.a.hmac_keys]\nk = \"top\" x", true),
            ("[a.users]\n\nanna = \"plain", true),
            ("users:\n  # staff\n  anna: plain: x", true),
            ("\"secret\": \"x\" \"y\"", true),
            ("redis = \"redis://:top@host/0\" x", true),
            ("api_keys = [\n  \"top\"\n  x", true),
            ("[consumers.a.users]\n[listeners.web]\naddress = 1", false),
            ("a = \"${file:secret.txt}\"", false),
            ("a = 'b@c'\nusersx = 1", false),
            ("upstream = \"http://host/a@b\"", false),
            ("", false),
        ] {
            let line = text.lines().count();
            assert_eq!(may_hold_secret(text, line), expected, "{text}");
        }
    }
}
