//! Which origins are meant: exact ones, whole domains, regexes, all.
//!
//! Promise: an origin is compared with what browsers send (RFC 6454 section 6.2: scheme, host in lower case,
//! no default port), whole, never by a part of it: "https://shop.example" is not "https://shop.example.evil".

use std::collections::HashSet;

use regex::Regex;

use crate::problem::{At, Problems};

/// The checked list.
#[derive(Debug, Default)]
pub(super) struct Origins {
    every: bool,
    exact: HashSet<Box<str>>,
    patterns: Vec<Pattern>,
    regexes: Vec<Regex>,
}

/// An origin some part of which is left open.
#[derive(Debug)]
struct Pattern {
    scheme: Box<str>,
    host: Host,
    port: Port,
}

#[derive(Debug)]
enum Host {
    Exact(Box<str>),
    /// ".shop.example": every name below it.
    Below(Box<str>),
}

#[derive(Debug)]
enum Port {
    Exact(Option<Box<str>>),
    Any,
}

const HINT: &str = "write what browsers send, \"https://shop.example\" or \"http://localhost:3000\"; \
                    \"https://*.shop.example\" for every name below, \"http://localhost:*\" for every port, \"*\" for all";

impl Origins {
    /// Checks the entries, which stand at `at`.
    pub(super) fn build(entries: &[String], at: &At, problems: &mut Problems) -> Origins {
        let mut origins = Origins::default();
        for (index, entry) in entries.iter().enumerate() {
            match entry.as_str() {
                "*" => origins.every = true,
                "null" => _ = origins.exact.insert(entry.as_str().into()),
                entry => match pattern(entry) {
                    Ok(Pattern { host: Host::Exact(_), port: Port::Exact(_), .. }) => {
                        origins.exact.insert(entry.into());
                    }
                    Ok(pattern) => origins.patterns.push(pattern),
                    Err(message) => _ = problems.add(&at.index(index), message).hint(HINT),
                },
            }
        }
        origins
    }

    /// Adds regexes, each for a whole origin.
    pub(super) fn add_regexes(&mut self, texts: &[String], at: &At, problems: &mut Problems) {
        for (index, text) in texts.iter().enumerate() {
            let regex = Regex::new(&format!("^(?:{text})$")).map_err(|_| format!("`{text}` is not a regex"));
            self.regexes.extend(problems.take(&at.index(index), regex));
        }
    }

    /// Whether every origin is meant.
    pub(super) fn every(&self) -> bool {
        self.every
    }

    /// Whether "null" is meant by name: sandboxed frames, files and redirected requests.
    pub(super) fn null(&self) -> bool {
        self.exact.contains("null")
    }

    /// Whether nobody is meant.
    pub(super) fn is_empty(&self) -> bool {
        !self.every && self.exact.is_empty() && self.patterns.is_empty() && self.regexes.is_empty()
    }

    /// Whether this origin is meant.
    pub(super) fn include(&self, origin: &str) -> bool {
        self.every
            || self.exact.contains(origin)
            || self.patterns.iter().any(|pattern| pattern.matches(origin))
            || self.matched_by_regex(origin)
    }

    /// Whether a regex means this origin.
    pub(super) fn matched_by_regex(&self, origin: &str) -> bool {
        self.regexes.iter().any(|regex| regex.is_match(origin))
    }
}

impl Pattern {
    fn matches(&self, origin: &str) -> bool {
        let Some((scheme, host, port)) = parts(origin) else { return false };
        let host_fits = match &self.host {
            Host::Exact(exact) => **exact == *host,
            Host::Below(domain) => host.strip_suffix(&**domain).is_some_and(is_host),
        };
        let port_fits = match &self.port {
            Port::Exact(exact) => exact.as_deref() == port,
            Port::Any => port.is_none_or(is_port),
        };
        *self.scheme == *scheme && host_fits && port_fits
    }
}

/// Scheme, host, and port if there is one.
fn parts(origin: &str) -> Option<(&str, &str, Option<&str>)> {
    let (scheme, rest) = origin.split_once("://")?;
    let bracket = rest.rfind(']').map_or(0, |end| end + 1);
    let (host, port) = match rest[bracket..].rfind(':') {
        Some(colon) => (&rest[..bracket + colon], Some(&rest[bracket + colon + 1..])),
        None => (rest, None),
    };
    Some((scheme, host, port))
}

fn pattern(entry: &str) -> Result<Pattern, String> {
    let wrong = || format!("`{entry}` is not an origin");
    let (scheme, host, port) = parts(entry).ok_or_else(wrong)?;
    let known =
        !scheme.is_empty() && scheme.bytes().all(|byte| byte.is_ascii_lowercase() || b"+-.".contains(&byte));
    let below = host.strip_prefix("*.");
    if !known || !is_host(below.unwrap_or(host)) || !port.is_none_or(|port| port == "*" || is_port(port)) {
        return Err(wrong());
    }
    if matches!((scheme, port), ("http", Some("80")) | ("https", Some("443"))) {
        return Err(format!("`{entry}` names the port that browsers leave out"));
    }
    Ok(Pattern {
        scheme: scheme.into(),
        host: match below {
            Some(domain) => Host::Below(format!(".{domain}").into()),
            None => Host::Exact(host.into()),
        },
        port: match port {
            Some("*") => Port::Any,
            port => Port::Exact(port.map(Into::into)),
        },
    })
}

/// A name, or an address; IPv6 in brackets.
fn is_host(text: &str) -> bool {
    if let Some(inside) = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')) {
        return inside.parse::<std::net::Ipv6Addr>().is_ok();
    }
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-._".contains(&byte);
    !text.is_empty() && text.bytes().all(allowed)
}

fn is_port(text: &str) -> bool {
    text.parse::<u16>().is_ok_and(|port| port > 0) && !text.starts_with(['+', '0'])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn build(entries: &[&str], regexes: &[&str]) -> Result<Origins, Vec<String>> {
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let mut problems = Problems::new();
        let mut origins = Origins::build(&owned(entries), &At::root(), &mut problems);
        origins.add_regexes(&owned(regexes), &At::root(), &mut problems);
        match problems.is_empty() {
            true => Ok(origins),
            false => Err(problems.iter().map(|problem| problem.message.clone()).collect()),
        }
    }

    #[test]
    fn an_origin_is_compared_whole() {
        let origins =
            build(&["https://shop.example", "http://localhost:3000", "http://[::1]:8080"], &[]).unwrap();
        for meant in ["https://shop.example", "http://localhost:3000", "http://[::1]:8080"] {
            assert!(origins.include(meant), "{meant}");
        }
        for other in [
            "http://shop.example",
            "https://shop.example.evil",
            "https://evil-shop.example",
            "https://shop.example:8443",
            "https://SHOP.example",
            "http://localhost",
            "null",
            "",
        ] {
            assert!(!origins.include(other), "{other}");
        }
    }

    #[test]
    fn a_star_stands_for_names_below_or_for_a_port() {
        let origins = build(&["https://*.shop.example", "http://localhost:*"], &[]).unwrap();
        for meant in
            ["https://a.shop.example", "https://a.b.shop.example", "http://localhost", "http://localhost:1"]
        {
            assert!(origins.include(meant), "{meant}");
        }
        for other in [
            "https://shop.example",
            "https://.shop.example",
            "https://evilshop.example",
            "https://a.shop.example:8443",
            "https://evil.example/.shop.example",
            "https://evil.example?.shop.example",
            "https://user@a.shop.example",
            "http://localhost:99999",
            "http://localhost:evil",
            "http://localhost.evil:80",
        ] {
            assert!(!origins.include(other), "{other}");
        }
    }

    #[test]
    fn a_regex_is_anchored_and_every_means_every() {
        let origins = build(&[], &[r"https://pr-\d+\.shop\.example|https://a"]).unwrap();
        assert!(origins.include("https://pr-17.shop.example") && origins.include("https://a"));
        assert!(!origins.include("https://pr-17.shop.example.evil") && !origins.include("https://ab"));
        let every = build(&["*"], &[]).unwrap();
        assert!(every.every() && every.include("null") && every.include("https://x"));
        assert!(build(&["null"], &[]).unwrap().null());
    }

    #[test]
    fn what_no_browser_sends_is_a_problem() {
        for entry in [
            "shop.example",
            "https://shop.example/",
            "https://Shop.example",
            "https://*.*.example",
            "https://a.*",
            "https://*",
            "https://user@shop.example",
            "https://shop.example:x",
            "https://",
            "://a",
            "",
        ] {
            assert_eq!(build(&[entry], &[]).unwrap_err(), [format!("`{entry}` is not an origin")]);
        }
        assert!(build(&["https://shop.example:443"], &[]).is_err());
        assert!(build(&[], &["("]).is_err());
    }
}
