//! The `redirect` action: sends the client elsewhere.
//!
//! Promise: Location is a valid URI reference whatever the client sent, and a redirect to a path of this host
//! cannot be turned into one to another host ("//evil.example/").

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sluice_http::{Body, NameId, RequestHead, Response, ResponseHead};

use crate::exchange::Exchange;
use crate::percent::{Set, encode};
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
    /// It is a path: this host, even if a value starts with slashes or a scheme.
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
        let to = to?;
        let of_query = |name: String| name == "target" || name == "query" || name.starts_with("query.");
        let query = match config.keep_query && !config.to.contains('?') && !to.variables().any(of_query) {
            true => Query::Added,
            false => Query::AsWritten,
        };
        Some(Redirect { to, status, query, place: place(&config.to) })
    }

    /// The answer to the request `head`.
    pub fn answer(&self, exchange: &Exchange, head: &RequestHead) -> Response {
        let mut location = String::new();
        self.to.render(&exchange.facts(head), &mut location);
        if self.place == Place::ThisHost {
            let slashes = location.len() - location.trim_start_matches(['/', '\\']).len();
            location.replace_range(..slashes, "/");
        }
        let mut location = uri_reference(&location);
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
        _ if !to.starts_with(['/', '{']) && !to.contains("://") => {
            Some("it starts with neither a slash nor a scheme")
        }
        _ => None,
    };
    if let Some(wrong) = wrong {
        let hint = "write a URL or a path: \"https://{host}{path}\", \"/new/{param.id}\"";
        problems.add(at, format!("not a place to go to: {wrong}")).hint(hint);
        return None;
    }
    problems.take(at, Template::compile(to, Escape::Path))
}

fn place(to: &str) -> Place {
    match to.starts_with("//") || (!to.starts_with('/') && to.contains("://")) {
        true => Place::Elsewhere,
        false => Place::ThisHost,
    }
}

/// Encodes what no URI holds (RFC 3986 section 2), and the backslash, which browsers take for a slash.
fn uri_reference(text: &str) -> String {
    // "%" too: what is encoded already stays.
    const URI: Set = Set::QUERY.with(b"%#[]");
    let mut out = String::with_capacity(text.len() + 64);
    encode(text.as_bytes(), URI, &mut out);
    out
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
        exchange.params.0.push((Arc::from("js"), "https:evil.example".to_owned()));
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
            ("to = 'https://n.example{target}'", "https://n.example/o?a=1"),
            ("to = '/n/{{query}}'", "/n/%7Bquery%7D?a=1"),
        ] {
            assert_eq!(location(toml, "/o?a=1").1, expected, "{toml}");
        }
    }

    #[test]
    fn no_request_can_choose_another_host() {
        for target in ["//evil.example/x", "/\\evil.example/x", "///evil.example/x", "/\\/evil.example/x"] {
            assert_eq!(location("to = '{path}'", target).1, "/evil.example/x", "{target}");
        }
        let next = location("to = '/login?next=https://{host}{path}'", "//evil.example/x").1;
        assert_eq!(next, "/login?next=https://shop.example%2F%2Fevil.example%2Fx");
        assert_eq!(location("to = '{param.js}'", "/").1, "/https:evil.example");
        assert_eq!(location("to = '/{param.rest}'", "/").1, "/evil.example/a%20b%3Fc%23d%25");
        assert_eq!(location("to = '{param.rest}'", "/").1, "/evil.example/a%20b%3Fc%23d%25");
    }

    #[test]
    fn wrong_settings_are_problems_with_a_place() {
        for (toml, place) in [
            ("to = ''", "to: "),
            ("to = '/a b'", "to: "),
            ("to = 'a/b'", "to: "),
            ("to = '/{nope}'", "to: "),
            ("to = '/a'\nstatus = 200", "status: "),
            ("to = '/a'\nstatus = 304", "status: "),
        ] {
            let problems = build(toml).unwrap_err();
            assert!(problems.len() == 1 && problems[0].starts_with(place), "{toml}: {problems:?}");
        }
    }
}
