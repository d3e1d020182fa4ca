//! The methods of a route.
//!
//! Promise: asking is one bit test for every registered method; HEAD is allowed where GET is listed
//! (RFC 9110 section 9.3.2: a HEAD is a GET without the body).

use std::collections::BTreeSet;

use sluice_http::{Method, RequestHead, name};

use super::Complaint;

const KNOWN: [(Method, &str); 10] = [
    (Method::Get, "GET"),
    (Method::Head, "HEAD"),
    (Method::Post, "POST"),
    (Method::Put, "PUT"),
    (Method::Delete, "DELETE"),
    (Method::Connect, "CONNECT"),
    (Method::Options, "OPTIONS"),
    (Method::Trace, "TRACE"),
    (Method::Patch, "PATCH"),
    (Method::Query, "QUERY"),
];

/// A set of methods; empty stands for all.
#[derive(Debug, Default)]
pub(super) struct Methods {
    known: u16,
    others: Vec<Box<str>>,
}

impl Methods {
    /// Adds one.
    pub(super) fn add(&mut self, text: &str) -> Result<(), Complaint> {
        if text.is_empty() || !text.bytes().all(name::is_token) {
            let message = format!("`{text}` is not a method");
            return Err(Complaint::new(message, "a method is one word: \"GET\", \"POST\""));
        }
        match Method::of(text.as_bytes()) {
            Method::Other => {
                let upper = text.to_ascii_uppercase();
                if upper != text && Method::of(upper.as_bytes()) != Method::Other {
                    let message = format!("methods are case-sensitive, and there is no `{text}`");
                    return Err(Complaint::new(message, format!("write \"{upper}\"")));
                }
                self.others.push(text.into());
            }
            Method::Get => self.known |= bit(Method::Get) | bit(Method::Head),
            method => self.known |= bit(method),
        }
        Ok(())
    }

    /// Whether any method will do.
    pub(super) fn is_any(&self) -> bool {
        self.known == 0 && self.others.is_empty()
    }

    /// Whether the request's method is one of them.
    pub(super) fn allow(&self, head: &RequestHead) -> bool {
        match head.method {
            Method::Other => {
                self.is_any() || self.others.iter().any(|method| **method == *head.method_text())
            }
            method => self.known & bit(method) != 0 || self.is_any(),
        }
    }

    /// Whether some method is in both.
    pub(super) fn overlap(&self, other: &Methods) -> bool {
        self.is_any()
            || other.is_any()
            || self.known & other.known != 0
            || self.others.iter().any(|method| other.others.contains(method))
    }

    /// Their names.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        let known = KNOWN.iter().filter(|(method, _)| self.known & bit(*method) != 0).map(|(_, text)| *text);
        known.chain(self.others.iter().map(|text| &**text))
    }
}

/// The value of Allow for all of them (RFC 9110 section 10.2.1): in alphabetical order.
pub(super) fn allow_value(names: &BTreeSet<&str>) -> String {
    names.iter().copied().collect::<Vec<_>>().join(", ")
}

const fn bit(method: Method) -> u16 {
    1 << method as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    fn methods(texts: &[&str]) -> Methods {
        let mut methods = Methods::default();
        for text in texts {
            methods.add(text).unwrap();
        }
        methods
    }

    #[test]
    fn get_allows_head_and_own_methods_are_compared_by_text() {
        let set = methods(&["GET", "PURGE"]);
        for (method, allowed) in [
            ("GET", true),
            ("HEAD", true),
            ("PURGE", true),
            ("purge", false),
            ("POST", false),
            ("BAN", false),
        ] {
            assert_eq!(set.allow(&RequestHead::new(method, "/")), allowed, "{method}");
        }
        assert!(methods(&[]).allow(&RequestHead::new("BAN", "/")));
        assert_eq!(allow_value(&set.names().collect()), "GET, HEAD, PURGE");
    }

    #[test]
    fn sets_overlap_when_a_method_is_in_both() {
        assert!(methods(&["GET"]).overlap(&methods(&["HEAD"])));
        assert!(!methods(&["GET"]).overlap(&methods(&["POST", "PURGE"])));
        assert!(methods(&["PURGE"]).overlap(&methods(&["GET", "PURGE"])));
        assert!(methods(&[]).overlap(&methods(&["GET"])));
    }

    #[test]
    fn a_wrong_method_says_what_to_write() {
        let complaint = Methods::default().add("get").unwrap_err();
        assert_eq!(complaint.hint.as_deref(), Some("write \"GET\""));
        assert!(Methods::default().add("GET POST").is_err());
        assert!(Methods::default().add("").is_err());
    }
}
