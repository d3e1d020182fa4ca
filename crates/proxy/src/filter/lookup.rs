//! Where a request may carry a key or a token, and taking it out of the request.
//!
//! Promise: the first place in the order written that holds one counts; a place that holds two holds none that
//! could be believed. What is taken out is gone in every copy.

use std::borrow::Cow;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sluice_http::{FieldName, NameId, RequestHead};

use crate::percent::{Plus, decode, decoded};
use crate::problem::{At, Problems};

/// What becomes of credentials that were found right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forwarded {
    /// They go on with the request.
    Kept,
    /// They do not.
    Removed,
}

impl Forwarded {
    /// What `hide_credentials` says.
    pub fn unless(hidden: bool) -> Forwarded {
        if hidden { Forwarded::Removed } else { Forwarded::Kept }
    }
}

/// A place in a request: exactly one of header, query and cookie.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct PlaceConfig {
    /// A header's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub header: Option<String>,
    /// The word before the value in the header, as "Bearer". Default: "Bearer" in Authorization, none elsewhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheme: Option<String>,
    /// A query parameter's name. URLs are written to many logs: prefer a header.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub query: Option<String>,
    /// A cookie's name. Browsers send cookies on the word of any page: ask for a CSRF token besides.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cookie: Option<String>,
}

impl PlaceConfig {
    /// A header.
    pub fn header(name: &str) -> PlaceConfig {
        PlaceConfig { header: Some(name.to_owned()), ..PlaceConfig::default() }
    }

    fn check(&self, at: &At, problems: &mut Problems) -> Option<Place> {
        let written = [&self.header, &self.query, &self.cookie].into_iter().flatten().count();
        if written != 1 {
            problems.add(at, "a place is exactly one of header, query and cookie");
            return None;
        }
        if self.scheme.is_some() && self.header.is_none() {
            problems.add(&at.key("scheme"), "only a header has a scheme");
        }
        if let Some(header) = &self.header {
            let Some(name) = FieldName::new(header) else {
                problems.add(&at.key("header"), format!("`{header}` is not a header name"));
                return None;
            };
            let bearer = || (name.id() == NameId::Authorization).then(|| "Bearer".to_owned());
            let scheme = self.scheme.clone().or_else(bearer).filter(|scheme| !scheme.is_empty());
            return Some(Place::Header(name, scheme.map(Into::into)));
        }
        let (key, name) = match (&self.query, &self.cookie) {
            (Some(name), _) => ("query", name),
            (_, Some(name)) => ("cookie", name),
            _ => return None,
        };
        if name.is_empty() || name.bytes().any(|byte| byte <= 0x20 || b"=;,\"\\\x7f".contains(&byte)) {
            problems.add(&at.key(key), format!("`{}` is not a name", name.escape_debug()));
            return None;
        }
        Some(if key == "query" {
            Place::Query(name.as_str().into())
        } else {
            Place::Cookie(name.as_str().into())
        })
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    Header(FieldName, Option<Box<str>>),
    Query(Box<str>),
    Cookie(Box<str>),
}

/// Places, in the order they are looked at.
#[derive(Clone, Debug)]
pub struct Lookup(Box<[Place]>);

/// What was found.
#[derive(Debug, PartialEq, Eq)]
pub enum Found<'a> {
    /// Nothing.
    Nothing,
    /// Two in one place.
    Twice,
    /// One.
    One(Cow<'a, [u8]>),
}

impl Lookup {
    /// Checks the places of a document, or takes the usual ones.
    pub fn check(
        written: &[PlaceConfig],
        usual: &[PlaceConfig],
        at: &At,
        problems: &mut Problems,
    ) -> Option<Lookup> {
        let places = if written.is_empty() { usual } else { written };
        let checked: Vec<Option<Place>> =
            places.iter().enumerate().map(|(index, place)| place.check(&at.index(index), problems)).collect();
        checked.into_iter().collect::<Option<Vec<Place>>>().map(|places| Lookup(places.into()))
    }

    /// The first that is there.
    pub fn find<'a>(&'a self, head: &'a RequestHead) -> Found<'a> {
        for place in &self.0 {
            let found = place.find(head);
            if found != Found::Nothing {
                return found;
            }
        }
        Found::Nothing
    }

    /// Takes out what stands in any of the places.
    pub fn remove(&self, head: &mut RequestHead) {
        for place in &self.0 {
            match place {
                Place::Header(name, _) => _ = head.fields.remove(name),
                Place::Query(name) => remove_parameter(head, name),
                Place::Cookie(name) => remove_cookie(head, name),
            }
        }
    }
}

impl Place {
    fn find<'a>(&'a self, head: &'a RequestHead) -> Found<'a> {
        match self {
            Place::Header(name, scheme) => {
                // Another scheme in Authorization is another filter's.
                let of_scheme = |value: &'a [u8]| match scheme {
                    None => Some(value.trim_ascii()),
                    Some(scheme) => {
                        let (word, rest) = value.split_at_checked(scheme.len())?;
                        let ours = word.eq_ignore_ascii_case(scheme.as_bytes()) && rest.starts_with(b" ");
                        ours.then(|| rest.trim_ascii())
                    }
                };
                single(head.fields.get_all(name).filter_map(of_scheme).map(Cow::Borrowed))
            }
            Place::Query(name) => {
                let pairs = head.query().unwrap_or_default().split('&');
                single(pairs.filter_map(|pair| {
                    let (key, value) = pair.split_once('=')?;
                    let named = decoded(key.as_bytes(), Plus::Space).eq(name.bytes());
                    named.then(|| decode(value.as_bytes(), Plus::Space))
                }))
            }
            Place::Cookie(name) => {
                let cookies =
                    head.fields.get_all(NameId::Cookie).flat_map(|line| line.split(|byte| *byte == b';'));
                single(cookies.filter_map(|pair| named(pair, name)).map(Cow::Borrowed))
            }
        }
    }
}

fn single<'a>(mut values: impl Iterator<Item = Cow<'a, [u8]>>) -> Found<'a> {
    match (values.next(), values.next()) {
        (None, _) => Found::Nothing,
        (Some(value), None) => Found::One(value),
        (Some(_), Some(_)) => Found::Twice,
    }
}

/// The value of a cookie, when it is this one.
fn named<'a>(pair: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let equals = pair.iter().position(|byte| *byte == b'=')?;
    let value = pair[equals + 1..].trim_ascii();
    let bare = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\"")).unwrap_or(value);
    (pair[..equals].trim_ascii() == name.as_bytes()).then_some(bare)
}

fn remove_parameter(head: &mut RequestHead, name: &str) {
    let Some(query) = head.query() else { return };
    let ours = |pair: &&str| {
        let key = pair.split('=').next().unwrap_or(pair);
        decoded(key.as_bytes(), Plus::Space).eq(name.bytes())
    };
    if !query.split('&').any(|pair| ours(&pair)) {
        return;
    }
    let kept: Vec<&str> = query.split('&').filter(|pair| !ours(pair)).collect();
    let target = head.target();
    let path = &target[..target.find('?').unwrap_or(target.len())];
    let target = if kept.is_empty() { path.to_owned() } else { format!("{path}?{}", kept.join("&")) };
    head.set_target(&target);
}

fn remove_cookie(head: &mut RequestHead, name: &str) {
    let lines: Vec<Vec<u8>> = head.fields.get_all(NameId::Cookie).map(<[u8]>::to_vec).collect();
    if !lines.iter().any(|line| line.split(|byte| *byte == b';').any(|pair| named(pair, name).is_some())) {
        return;
    }
    head.fields.remove(NameId::Cookie);
    for line in lines {
        let kept: Vec<&[u8]> = (line.split(|byte| *byte == b';').map(<[u8]>::trim_ascii))
            .filter(|pair| !pair.is_empty() && named(pair, name).is_none())
            .collect();
        if !kept.is_empty() {
            head.fields.append(NameId::Cookie, &kept.join(&b"; "[..]));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filter::fixture;

    fn lookup(toml: &str) -> Lookup {
        #[derive(Deserialize)]
        struct Holder {
            lookup: Vec<PlaceConfig>,
        }
        let holder: Holder = toml_edit::de::from_str(toml).unwrap();
        let mut problems = Problems::new();
        let lookup = Lookup::check(&holder.lookup, &[], &At::root(), &mut problems);
        assert!(problems.is_empty(), "{problems:?}");
        lookup.unwrap()
    }

    fn find(lookup: &Lookup, target: &str, fields: &[(&str, &str)]) -> String {
        let mut request = fixture::request("GET", target);
        for (name, value) in fields {
            request.head.fields.append(&fixture::name(name), value.as_bytes());
        }
        match lookup.find(&request.head) {
            Found::Nothing => "-".to_owned(),
            Found::Twice => "twice".to_owned(),
            Found::One(value) => String::from_utf8_lossy(&value).into_owned(),
        }
    }

    #[test]
    fn the_first_place_that_holds_one_counts() {
        let all = lookup(
            "lookup = [{ header = 'authorization' }, { query = 'tök' }, { cookie = 't' }, { header = 'x-t' }]",
        );
        for (target, fields, expected) in [
            ("/", &[][..], "-"),
            ("/", &[("Authorization", "Bearer a")], "a"),
            ("/", &[("Authorization", "bearer  a ")], "a"),
            ("/", &[("Authorization", "Bearera")], "-"),
            ("/", &[("Authorization", "Basic a"), ("x-t", "b")], "b"),
            ("/", &[("Authorization", "Basic a"), ("Authorization", "Bearer b")], "b"),
            ("/", &[("Authorization", "Bearer a"), ("Authorization", "Bearer a")], "twice"),
            ("/?t%C3%B6k=a%2Bb+c", &[("Cookie", "t=c")], "a+b c"),
            ("/?t%C3%B6k=a&t%C3%B6k=b", &[], "twice"),
            ("/?t%C3%B6k", &[("Cookie", "a=b; t=\"c\"")], "c"),
            ("/", &[("Cookie", "t=c; t=d")], "twice"),
            ("/", &[("Cookie", "tt=c"), ("Cookie", "t=d")], "d"),
        ] {
            assert_eq!(find(&all, target, fields), expected, "{target} {fields:?}");
        }
        let word = lookup("lookup = [{ header = 'x-t', scheme = 'Token' }]");
        assert_eq!(find(&word, "/", &[("x-t", "token a")]), "a");
        let bare = lookup("lookup = [{ header = 'authorization', scheme = '' }]");
        assert_eq!(find(&bare, "/", &[("authorization", "a")]), "a");
    }

    #[test]
    fn what_is_taken_out_is_gone_and_nothing_else() {
        let all = lookup("lookup = [{ header = 'x-t' }, { query = 't' }, { cookie = 't' }]");
        let mut request = fixture::request("GET", "http://a/b?a=1&t=2&%74=3&b");
        for line in ["a=1; t=2;b=3", "t=9", "c=4"] {
            request.head.fields.append(NameId::Cookie, line.as_bytes());
        }
        request.head.fields.append(&fixture::name("x-t"), b"1");
        all.remove(&mut request.head);
        assert_eq!(request.head.target(), "http://a/b?a=1&b");
        assert_eq!(fixture::values(&request.head.fields, "cookie"), ["a=1; b=3", "c=4"]);
        assert!(!request.head.fields.contains(&fixture::name("x-t")));
        let mut request = fixture::request("GET", "/b?t=1");
        all.remove(&mut request.head);
        assert_eq!(request.head.target(), "/b");
    }

    #[test]
    fn a_place_is_one_of_three() {
        let mut problems = Problems::new();
        let both = PlaceConfig { query: Some("q".into()), ..PlaceConfig::header("a") };
        let scheme =
            PlaceConfig { scheme: Some("s".into()), query: Some("q".into()), ..PlaceConfig::default() };
        let name = PlaceConfig { cookie: Some("a=b".into()), ..PlaceConfig::default() };
        let places = [PlaceConfig::default(), both, scheme, PlaceConfig::header("a b"), name];
        assert!(Lookup::check(&places, &[], &At::root().key("lookup"), &mut problems).is_none());
        let places: Vec<String> = problems.iter().map(|problem| problem.at.to_string()).collect();
        assert_eq!(
            places,
            ["lookup[0]", "lookup[1]", "lookup[2].scheme", "lookup[3].header", "lookup[4].cookie"]
        );
    }
}
