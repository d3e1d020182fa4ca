//! What a token says, as texts by name.
//!
//! Promise: bounded in number and length; a nested claim has a name with dots.

use std::sync::Arc;

use serde_json::Value;

/// Longest claim that is kept, in bytes: it may become a header field.
pub const LONGEST_CLAIM: usize = 4096;

/// The most claims of one token that are kept.
const MOST_CLAIMS: usize = 128;

/// How deep claims are read.
const DEEPEST: usize = 4;

/// Names with their texts.
type Named = Vec<(Box<str>, Box<str>)>;

/// The claims of a token that was found right. Cloning is cheap.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claims(Arc<Said>);

#[derive(Debug, Default, PartialEq, Eq)]
struct Said {
    named: Named,
    /// The object itself, where somebody needs it whole.
    source: Option<Box<str>>,
}

impl Claims {
    /// What an object says: numbers and truth values as they are written; a list of texts or numbers with a space
    /// between two, as in `scope` (RFC 8693 section 4.2); an entry of an object as `name.entry`. What is longer
    /// than [`LONGEST_CLAIM`], and null, are not there.
    pub fn of(object: &serde_json::Map<String, Value>) -> Claims {
        let mut found = Vec::new();
        for (name, value) in object {
            read(name, value, (&mut found, DEEPEST));
        }
        found.sort_unstable();
        Claims(Arc::new(Said { named: found, source: None }))
    }

    /// The same, and the object itself.
    pub fn with_source(object: &serde_json::Map<String, Value>) -> Claims {
        let named = Claims::of(object).0.named.clone();
        Claims(Arc::new(Said { named, source: serde_json::to_string(object).ok().map(Into::into) }))
    }

    /// The object itself, if it was kept.
    pub fn source(&self) -> Option<&str> {
        self.0.source.as_deref()
    }

    /// The text of a claim.
    pub fn get(&self, name: &str) -> Option<&str> {
        let place = self.0.named.binary_search_by(|(known, _)| (**known).cmp(name)).ok()?;
        Some(&self.0.named[place].1)
    }
}

fn read(name: &str, value: &Value, (found, depth): (&mut Named, usize)) {
    let text = match value {
        Value::Object(entries) if depth > 0 => {
            for (key, value) in entries {
                read(&format!("{name}.{key}"), value, (found, depth - 1));
            }
            return;
        }
        Value::Array(items) => match items.iter().map(scalar).collect::<Option<Vec<String>>>() {
            Some(items) => items.join(" "),
            None => return,
        },
        value => match scalar(value) {
            Some(text) => text,
            None => return,
        },
    };
    if text.len() <= LONGEST_CLAIM && found.len() < MOST_CLAIMS {
        found.push((name.into(), text.into()));
    }
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(truth) => Some(truth.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_are_texts_by_name() {
        let text = format!(
            r#"{{"sub":"anna","exp":7,"admin":true,"scope":["a","b",3],"realm_access":{{"roles":["x"],"n":{{"m":1}}}},
                "none":null,"mixed":["a",{{}}],"long":"{}","a.b":"dotted"}}"#,
            "x".repeat(LONGEST_CLAIM + 1)
        );
        let claims = Claims::of(&serde_json::from_str(&text).unwrap());
        for (name, expected) in [
            ("sub", Some("anna")),
            ("exp", Some("7")),
            ("admin", Some("true")),
            ("scope", Some("a b 3")),
            ("realm_access.roles", Some("x")),
            ("realm_access.n.m", Some("1")),
            ("a.b", Some("dotted")),
            ("realm_access", None),
            ("none", None),
            ("mixed", None),
            ("long", None),
            ("other", None),
        ] {
            assert_eq!(claims.get(name), expected, "{name}");
        }
    }

    #[test]
    fn a_token_cannot_say_too_much() {
        let many: serde_json::Map<String, Value> =
            (0..1000).map(|index| (index.to_string(), 1.into())).collect();
        assert_eq!(Claims::of(&many).0.named.len(), MOST_CLAIMS);
    }
}
