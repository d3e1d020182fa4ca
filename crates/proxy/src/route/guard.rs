//! The guard of a route: everything that must be true besides host and path.
//!
//! Promise: asking allocates nothing, but for a query parameter that is encoded in the request.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use sluice_http::{FieldName, RequestHead};

use super::condition::{Check, Condition};
use super::decode::{self, Plus};
use super::method::Methods;
use super::{Match, keep};
use crate::expression::{Expression, checked};
use crate::facts::{self, Facts};
use crate::problem::{At, Problems};
use crate::value::Network;

/// All conditions of a route.
#[derive(Debug)]
pub(super) struct Guard {
    pub(super) methods: Methods,
    /// All but the methods, the cheap ones first. One list, so that a route without conditions costs one
    /// look.
    pub(super) parts: Vec<Part>,
}

/// One condition of a guard.
#[derive(Debug)]
pub(super) enum Part {
    Listener(Vec<Box<str>>),
    Source(Vec<Network>),
    Header(FieldName, Check),
    Query(Box<str>, Check),
    Cookie(Box<str>, Check),
    When(Box<str>, Expression),
}

impl Guard {
    /// Compiles the conditions of a match, which stands at `at`.
    pub(super) fn compile(from: &Match, at: &At, known_listeners: &[&str], problems: &mut Problems) -> Guard {
        let mut methods = Methods::default();
        for (index, method) in from.methods.iter().enumerate() {
            keep(methods.add(method), &at.key("methods").index(index), problems);
        }
        let mut parts = Vec::new();
        if !from.listeners.is_empty() {
            parts.push(listeners(&from.listeners, &at.key("listeners"), known_listeners, problems));
        }
        if !from.source.is_empty() {
            parts.push(Part::Source(from.source.clone()));
        }
        for (name, condition) in &from.headers {
            let at = at.key("headers").key(name);
            let check = Check::compile(condition, &at, problems);
            let Some(name) = FieldName::new(name) else {
                let message = format!("`{name}` is not a field name");
                problems.add(&at, message).hint("write a name like \"X-Api-Version\"");
                continue;
            };
            parts.extend(check.map(|check| Part::Header(name, check)));
        }
        named(&from.query, &at.key("query"), problems, Part::Query, &mut parts);
        named(&from.cookies, &at.key("cookies"), problems, Part::Cookie, &mut parts);
        if let Some(text) = &from.when {
            parts.extend(when(text, &at.key("when"), problems));
        }
        Guard { methods, parts }
    }

    /// How many conditions there are.
    pub(super) fn len(&self) -> usize {
        usize::from(!self.methods.is_any()) + self.parts.len()
    }

    /// Whether all but the method hold.
    pub(super) fn holds(&self, facts: &Facts<'_>) -> bool {
        self.parts.iter().all(|part| part.holds(facts))
    }

    /// Whether no request fulfils both guards, as far as can be told, taking it that a request carries
    /// each header, query parameter and cookie at most once.
    pub(super) fn excludes(&self, other: &Guard) -> bool {
        !self.methods.overlap(&other.methods)
            || self.parts.iter().any(|part| other.parts.iter().any(|theirs| part.excludes(theirs)))
    }
}

impl Part {
    /// Whether it holds.
    pub(super) fn holds(&self, facts: &Facts<'_>) -> bool {
        match self {
            Part::Listener(names) => names.iter().any(|name| **name == *facts.listener),
            Part::Source(networks) => networks.iter().any(|network| network.contains(facts.client)),
            Part::Header(name, check) => check.holds(facts.head.fields.get_all(name).map(Cow::Borrowed)),
            Part::Query(name, check) => check.holds(query_values(facts.head, name)),
            Part::Cookie(name, check) => {
                let value = facts::cookie(facts.head, name).map(|value| Cow::Borrowed(value.as_bytes()));
                check.holds(value.into_iter())
            }
            Part::When(_, expression) => expression.holds(facts),
        }
    }

    fn excludes(&self, other: &Part) -> bool {
        match (self, other) {
            (Part::Header(a, ours), Part::Header(b, theirs)) => {
                a.as_str().eq_ignore_ascii_case(b.as_str()) && ours.excludes(theirs)
            }
            (Part::Query(a, ours), Part::Query(b, theirs))
            | (Part::Cookie(a, ours), Part::Cookie(b, theirs)) => a == b && ours.excludes(theirs),
            (Part::Listener(ours), Part::Listener(theirs)) => !ours.iter().any(|name| theirs.contains(name)),
            (Part::Source(ours), Part::Source(theirs)) => !ours
                .iter()
                .any(|a| theirs.iter().any(|b| a.0.contains(&b.0.network()) || b.0.contains(&a.0.network()))),
            _ => false,
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Part::Header(name, check) => write!(f, "header {name:?}: {check}"),
            Part::Query(name, check) => write!(f, "query {name}: {check}"),
            Part::Cookie(name, check) => write!(f, "cookie {name}: {check}"),
            Part::Source(networks) => {
                let networks: Vec<_> = networks.iter().map(ToString::to_string).collect();
                write!(f, "source {}", networks.join(", "))
            }
            Part::Listener(names) => write!(f, "listener {}", names.join(", ")),
            Part::When(text, _) => write!(f, "when {text}"),
        }
    }
}

fn listeners(names: &[String], at: &At, known: &[&str], problems: &mut Problems) -> Part {
    for (index, name) in names.iter().enumerate().filter(|(_, name)| !known.contains(&name.as_str())) {
        let hint = if known.is_empty() {
            "there is none".to_owned()
        } else {
            format!("there is: {}", known.join(", "))
        };
        problems.add(&at.index(index), format!("there is no listener `{name}`")).hint(hint);
    }
    Part::Listener(names.iter().map(|name| name.as_str().into()).collect())
}

fn named(
    conditions: &BTreeMap<String, Condition>,
    at: &At,
    problems: &mut Problems,
    part: fn(Box<str>, Check) -> Part,
    parts: &mut Vec<Part>,
) {
    for (name, condition) in conditions {
        let at = at.key(name);
        if name.is_empty() {
            problems.add(&at, "a name is missing").hint("write the name before the equals sign");
        }
        parts.extend(Check::compile(condition, &at, problems).map(|check| part(name.as_str().into(), check)));
    }
}

fn when(text: &str, at: &At, problems: &mut Problems) -> Option<Part> {
    checked(Expression::condition(text), at, problems).map(|expression| Part::When(text.into(), expression))
}

/// The decoded values of a query parameter, in order.
fn query_values<'a>(head: &'a RequestHead, name: &'a str) -> impl Iterator<Item = Cow<'a, [u8]>> {
    head.query().unwrap_or("").split('&').filter_map(move |pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let same = decode::bytes(key, Plus::Space).eq(name.bytes());
        same.then(|| decode::decoded(value, Plus::Space))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::{Params, Scheme};

    fn guard(text: &str) -> Guard {
        let mut problems = Problems::new();
        let from: Match = serde_json::from_str(text).unwrap();
        let guard = Guard::compile(&from, &At::root(), &["web", "inside"], &mut problems);
        assert!(problems.is_empty(), "{problems:?}");
        guard
    }

    fn holds(text: &str, target: &str, fields: &[(&str, &str)]) -> bool {
        let mut head = RequestHead::new("GET", target);
        for (name, value) in fields {
            head.fields.append(&FieldName::new(name).unwrap(), value.as_bytes());
        }
        guard(text).holds(&Facts {
            head: &head,
            path: head.path(),
            client: "192.0.2.7".parse().unwrap(),
            scheme: Scheme::Http,
            listener: "web",
            tls: None,
            request_id: "",
            route: "",
            params: &Params::default(),
            identity: Default::default(),
        })
    }

    #[test]
    fn a_header_condition_looks_at_every_line_of_its_name_in_any_case() {
        let guard = r#"{"headers":{"x-beta":"1"}}"#;
        assert!(holds(guard, "/", &[("X-Beta", "0"), ("X-BETA", "1")]));
        assert!(!holds(guard, "/", &[("X-Beta", "0")]));
        assert!(!holds(guard, "/", &[]));
        assert!(holds(r#"{"headers":{"accept":{"contains":"json"}}}"#, "/", &[("Accept", "text/json")]));
    }

    #[test]
    fn query_names_and_values_are_compared_decoded() {
        let guard = r#"{"query":{"a b":"c d+e"}}"#;
        assert!(holds(guard, "/?x=1&a%20b=c+d%2Be", &[]));
        assert!(holds(guard, "/?a+b=other&a+b=c%20d%2be", &[]));
        assert!(!holds(guard, "/?a%20b=c%20d+e", &[]));
        assert!(holds(r#"{"query":{"debug":{"present":true}}}"#, "/?debug", &[]));
        assert!(holds(r#"{"query":{"debug":{"present":false}}}"#, "/", &[]));
        assert!(holds(r#"{"query":{"page":{"min":1,"max":9}}}"#, "/?page=9", &[]));
    }

    #[test]
    fn cookies_source_and_listeners_are_conditions() {
        let cookies = &[("Cookie", "a=1; who=\"me\"")];
        assert!(holds(r#"{"cookies":{"who":"me"}}"#, "/", cookies));
        assert!(!holds(r#"{"cookies":{"who":"you"}}"#, "/", cookies));
        assert!(holds(r#"{"source":["10.0.0.0/8","192.0.2.0/24"]}"#, "/", &[]));
        assert!(!holds(r#"{"source":["10.0.0.0/8"]}"#, "/", &[]));
        assert!(holds(r#"{"listeners":["inside","web"]}"#, "/", &[]));
        assert!(!holds(r#"{"listeners":["inside"]}"#, "/", &[]));
    }

    #[test]
    fn every_wrong_condition_is_a_problem_at_its_place() {
        let from: Match = serde_json::from_str(
            r#"{"methods":["GET","get"],"listeners":["wbe"],"headers":{"a b":"1","x":{}},"query":{"q":{"regex":"("}}}"#,
        )
        .unwrap();
        let mut problems = Problems::new();
        Guard::compile(&from, &At::root().key("match"), &["web"], &mut problems);
        let mut places: Vec<_> = problems.iter().map(|problem| problem.at.to_string()).collect();
        places.sort();
        let expected = [
            "match.headers.a b",
            "match.headers.x",
            "match.listeners[0]",
            "match.methods[1]",
            "match.query.q.regex",
        ];
        assert_eq!(places, expected);
        assert!(problems.iter().all(|problem| problem.hint.is_some()));
    }

    #[test]
    fn guards_exclude_each_other_by_any_condition() {
        for (a, b, excluded) in [
            (r#"{}"#, r#"{}"#, false),
            (r#"{"methods":["GET"]}"#, r#"{"methods":["POST"]}"#, true),
            (r#"{"methods":["GET"]}"#, r#"{}"#, false),
            (r#"{"headers":{"X-A":"1"}}"#, r#"{"headers":{"x-a":"2"}}"#, true),
            (r#"{"headers":{"X-A":"1"}}"#, r#"{"headers":{"x-b":"2"}}"#, false),
            (r#"{"query":{"a":"1"}}"#, r#"{"query":{"a":"2"}}"#, true),
            (r#"{"cookies":{"a":"1"}}"#, r#"{"cookies":{"a":"2"}}"#, true),
            (r#"{"listeners":["web"]}"#, r#"{"listeners":["inside"]}"#, true),
            (r#"{"source":["10.0.0.0/8"]}"#, r#"{"source":["192.0.2.0/24"]}"#, true),
            (r#"{"source":["10.0.0.0/8"]}"#, r#"{"source":["10.1.0.0/16"]}"#, false),
            (r#"{"when":"true"}"#, r#"{"when":"false"}"#, false),
        ] {
            let (one, other) = (guard(a), guard(b));
            assert_eq!((one.excludes(&other), other.excludes(&one)), (excluded, excluded), "{a} {b}");
        }
    }

    #[test]
    fn conditions_are_counted_and_printed() {
        let guard = guard(
            r#"{"methods":["GET"],"headers":{"X-A":"1"},"query":{"q":{"present":true}},"cookies":{"c":"1"},
                "source":["10.0.0.0/8"],"listeners":["web"],"when":"true"}"#,
        );
        assert_eq!(guard.len(), 7);
        let texts: Vec<_> = guard.parts.iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            [
                "listener web",
                "source 10.0.0.0/8",
                "header X-A: exact \"1\"",
                "query q: present",
                "cookie c: exact \"1\"",
                "when true"
            ]
        );
    }
}
