//! The `redirect` action: sends the client elsewhere.
//!
//! Promise: Location is a valid URI reference whatever the client sent, and a redirect to a path of this host
//! cannot be turned into one to another host ("//evil.example/").

use std::borrow::Cow;
use std::fmt::Write;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sluice_http::{Body, NameId, RequestHead, Response, ResponseHead};

use crate::exchange::Exchange;
use crate::facts::{Facts, Params};
use crate::problem::{At, Problems};
use crate::template::{Escape, Template};

/// Sends the client elsewhere.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where to: a URL or a path, a text with variables: "https://{host}{path}". `{path}` is the path as the
    /// client wrote it; the values of path parameters are percent-encoded but for their slashes.
    pub to: String,
    /// 301, 302, 303, 307 or 308. Default 308: for good, and the method stays.
    #[serde(default = "permanent")]
    #[schemars(extend("enum" = [301, 302, 303, 307, 308]))]
    pub status: u16,
    /// Whether the request's query is added where `to` has none of its own. Default true.
    #[serde(default = "yes")]
    pub keep_query: bool,
}

fn permanent() -> u16 {
    308
}

fn yes() -> bool {
    true
}

/// The `redirect` action.
#[derive(Debug)]
pub struct Redirect {
    to: Template,
    status: u16,
    query: Query,
    place: Place,
}

/// What becomes of the request's query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Query {
    /// It is added to the new place.
    Added,
    /// It is left out, or `to` speaks of it itself.
    AsWritten,
}

/// Which host `to` means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// It names one.
    Elsewhere,
    /// It is a path: this host, even if a value starts with slashes.
    ThisHost,
}

impl Redirect {
    /// Checks and compiles a configuration, which stands at `at`; `None` when it added problems.
    pub fn build(config: &Config, at: &At, problems: &mut Problems) -> Option<Redirect> {
        let to = target(&config.to, &at.key("to"), problems);
        let status = config.status;
        if !matches!(status, 301 | 302 | 303 | 307 | 308) {
            problems
                .add(&at.key("status"), format!("{status} is not the status of a redirect"))
                .hint("308 or 301 for good, 307 or 302 for now, 303 to fetch another page after a POST");
            return None;
        }
        let speaks_of_query = config.to.contains('?') || config.to.contains("{query");
        let query = match config.keep_query && !speaks_of_query {
            true => Query::Added,
            false => Query::AsWritten,
        };
        let place = match config.to.contains("://") || config.to.starts_with("//") {
            true => Place::Elsewhere,
            false => Place::ThisHost,
        };
        Some(Redirect { to: to?, status, query, place })
    }

    /// The answer to the request `head`.
    pub fn answer(&self, exchange: &Exchange, head: &RequestHead) -> Response {
        let path = raw_path(head);
        let params = encoded(&exchange.params);
        let facts = Facts { path: &path, params: &params, ..exchange.facts(head) };
        let mut text = String::new();
        self.to.render(&facts, &mut text);
        let mut location = uri_reference(&text);
        if self.place == Place::ThisHost {
            let slashes = location.len() - location.trim_start_matches('/').len();
            location.replace_range(..slashes, if slashes > 0 { "/" } else { "" });
        }
        if self.query == Query::Added
            && let Some(query) = head.query().filter(|query| !query.is_empty())
        {
            // Before the fragment, which only `to` itself can have.
            let end = location.find('#').unwrap_or(location.len());
            location.insert_str(end, &format!("?{}", uri_reference(query)));
        }
        let mut answer = ResponseHead::new(self.status);
        answer.fields.append(NameId::Location, location.as_bytes());
        Response { head: answer, body: Body::Empty }
    }
}

fn target<'a>(to: &'a str, at: &At, problems: &mut Problems) -> Option<Template> {
    let wrong: Option<&'a str> = match to {
        "" => Some("it is empty"),
        _ if to.contains(|c: char| c.is_whitespace() || c.is_control()) => {
            Some("it holds a space or a control character")
        }
        _ => None,
    };
    if let Some(wrong) = wrong {
        let hint = "write a URL or a path: \"https://{host}{path}\", \"/new/{param.id}\"";
        problems.add(at, format!("not a place to go to: {wrong}")).hint(hint);
        return None;
    }
    problems.take(at, Template::compile(to, Escape::None))
}

/// The path as the client wrote it, with one slash first: "//host/x" after nothing would name a host.
fn raw_path(head: &RequestHead) -> Cow<'_, str> {
    let path = head.path();
    let rest = path.trim_start_matches(['/', '\\']);
    match path {
        "*" => Cow::Borrowed("/"),
        // What was trimmed is one slash: the path is fine as it is.
        _ if path.starts_with('/') && rest.len() + 1 == path.len() => Cow::Borrowed(path),
        _ => Cow::Owned(format!("/{rest}")),
    }
}

/// Values come decoded: "?", "#" and "%" in them must not mean anything in the new place.
fn encoded(params: &Params) -> Params {
    let encode = |value: &str| {
        let mut out = String::with_capacity(value.len());
        for byte in value.bytes() {
            match byte {
                b'%' | b'?' | b'#' | b'&' | b'+' => push_escaped(byte, &mut out),
                _ if byte.is_ascii() => out.push(byte as char),
                _ => push_escaped(byte, &mut out),
            }
        }
        out
    };
    Params(params.0.iter().map(|(name, value)| (name.clone(), encode(value))).collect())
}

/// Encodes what no URI holds (RFC 3986 section 2), and the backslash, which browsers take for a slash.
fn uri_reference(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 64);
    for byte in text.bytes() {
        match byte {
            0..=0x20 | 0x7f.. | b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}' => {
                push_escaped(byte, &mut out);
            }
            _ => out.push(byte as char),
        }
    }
    out
}

fn push_escaped(byte: u8, out: &mut String) {
    // Writing to a String cannot fail.
    _ = write!(out, "%{byte:02X}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filter::fixture;
    use std::sync::Arc;

    fn build(toml: &str) -> Result<Redirect, Vec<String>> {
        let config: Config = toml_edit::de::from_str(toml).unwrap();
        let mut problems = Problems::new();
        let built = Redirect::build(&config, &At::root(), &mut problems);
        assert_eq!(built.is_none(), !problems.is_empty(), "{toml}: {problems:?}");
        built.ok_or_else(|| problems.iter().map(|p| format!("{}: {}", p.at, p.message)).collect())
    }

    fn location(toml: &str, target: &str) -> (u16, String) {
        let mut exchange = fixture::exchange("/normalised");
        exchange.params.0.push((Arc::from("rest"), "/evil.example/a b?c#d%".to_owned()));
        let response = build(toml).unwrap().answer(&exchange, &fixture::request("GET", target).head);
        assert!(response.body.is_empty());
        let location = response.head.fields.get_str(NameId::Location).unwrap().to_owned();
        (response.head.status, location)
    }

    #[test]
    fn path_and_query_go_along_as_the_client_wrote_them() {
        let to = "to = 'https://{host}{path}'";
        let cases = [
            ("/a%2Fb/%c3%a9?x=%20&y", "https://shop.example/a%2Fb/%c3%a9?x=%20&y"),
            ("/", "https://shop.example/"),
            ("/a?", "https://shop.example/a"),
        ];
        for (target, expected) in cases {
            assert_eq!(location(to, target), (308, expected.to_owned()));
        }
    }

    #[test]
    fn the_query_is_added_only_where_it_is_wanted() {
        for (toml, expected) in [
            ("to = '/n#top'\nstatus = 302", "/n?a=1#top"),
            ("to = '/n'\nkeep_query = false", "/n"),
            ("to = '/n?b=2'", "/n?b=2"),
            ("to = '/n?{query}'", "/n?a=1"),
        ] {
            assert_eq!(location(toml, "/o?a=1").1, expected, "{toml}");
        }
    }

    #[test]
    fn no_request_can_choose_another_host() {
        for target in ["//evil.example/x", "/\\evil.example/x", "///evil.example/x", "/\\/evil.example/x"] {
            assert_eq!(location("to = '{path}'", target).1, "/evil.example/x", "{target}");
        }
        assert_eq!(location("to = '/{param.rest}'", "/").1, "/evil.example/a%20b%3Fc%23d%25");
        assert_eq!(location("to = '{param.rest}'", "/").1, "/evil.example/a%20b%3Fc%23d%25");
    }

    #[test]
    fn wrong_settings_are_problems_with_a_place() {
        for (toml, place) in [
            ("to = ''", "to: "),
            ("to = '/a b'", "to: "),
            ("to = '/{nope}'", "to: "),
            ("to = '/a'\nstatus = 200", "status: "),
            ("to = '/a'\nstatus = 304", "status: "),
        ] {
            let problems = build(toml).unwrap_err();
            assert!(problems.len() == 1 && problems[0].starts_with(place), "{toml}: {problems:?}");
        }
    }
}
