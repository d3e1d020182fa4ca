//! The `respond` action: a fixed answer.
//!
//! Promise: an answer that could not be sent (a body where none may be, a field that frames messages) is a
//! problem of the document, not of a request.

use std::collections::BTreeMap;

use bytes::Bytes;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sluice_http::{Body, FieldName, NameId, RequestHead, Response, ResponseHead};

use crate::exchange::Exchange;
use crate::field_values::{Variables, compile_values};
use crate::problem::{At, Problems};
use crate::template::{Escape, Template};

/// Gives a fixed answer.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The status, 200 to 599. Default 200.
    #[schemars(range(min = 200, max = 599))]
    pub status: u16,
    /// Fields of the answer. Values may use variables.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// The body. It may use variables, which are written as they are: give the client's own words (a header,
    /// the path) no place in an HTML page. Its Content-Type is "text/plain; charset=utf-8" unless `headers`
    /// has one.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub body: String,
}

impl Default for Config {
    fn default() -> Config {
        Config { status: 200, headers: BTreeMap::new(), body: String::new() }
    }
}

/// The `respond` action.
#[derive(Debug)]
pub struct Respond {
    status: u16,
    headers: Vec<(FieldName, Template)>,
    body: Content,
}

/// The body of the answer.
#[derive(Debug)]
enum Content {
    None,
    /// Without variables: every answer shares these bytes.
    Fixed(Bytes),
    Template(Template),
}

const DEFAULT_TYPE: &[u8] = b"text/plain; charset=utf-8";

impl Respond {
    /// Checks and compiles a configuration, which stands at `at`; `None` when it added problems.
    pub fn build(config: &Config, at: &At, problems: &mut Problems) -> Option<Respond> {
        let status = status(config, at, problems);
        let headers = compile_values(&config.headers, Variables::All, &at.key("headers"), problems);
        let body = content(&config.body, &at.key("body"), problems);
        Some(Respond { status: status?, headers: headers?, body: body? })
    }

    /// The answer to the request `head`.
    pub fn answer(&self, exchange: &Exchange, head: &RequestHead) -> Response {
        let facts = exchange.facts(head);
        let mut answer = ResponseHead::new(self.status);
        let mut text = String::new();
        for (name, value) in &self.headers {
            text.clear();
            value.render(&facts, &mut text);
            answer.fields.append(name, text.as_bytes());
        }
        let body = match &self.body {
            Content::None => Body::Empty,
            Content::Fixed(bytes) => Body::Full(bytes.clone()),
            Content::Template(template) => {
                let mut body = String::new();
                template.render(&facts, &mut body);
                Body::Full(Bytes::from(body))
            }
        };
        if !body.is_empty() && !answer.fields.contains(NameId::ContentType) {
            answer.fields.append(NameId::ContentType, DEFAULT_TYPE);
        }
        Response { head: answer, body }
    }
}

fn status(config: &Config, at: &At, problems: &mut Problems) -> Option<u16> {
    let status = config.status;
    if !(200..=599).contains(&status) {
        problems.add(&at.key("status"), format!("{status} is not a status from 200 to 599"));
        return None;
    }
    if matches!(status, 204 | 205 | 304) && !config.body.is_empty() {
        let hint = "leave the body out, or answer with status 200";
        problems.add(&at.key("body"), format!("an answer with status {status} has no body")).hint(hint);
        return None;
    }
    Some(status)
}

fn content(body: &str, at: &At, problems: &mut Problems) -> Option<Content> {
    if body.is_empty() {
        return Some(Content::None);
    }
    let template = problems.take(at, Template::compile(body, Escape::None))?;
    let fixed = template.is_constant().map(|text| Bytes::copy_from_slice(text.as_bytes()));
    Some(fixed.map_or(Content::Template(template), Content::Fixed))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filter::fixture;

    fn build(toml: &str) -> Result<Respond, Vec<String>> {
        let config: Config = toml_edit::de::from_str(toml).unwrap();
        let mut problems = Problems::new();
        let built = Respond::build(&config, &At::root(), &mut problems);
        assert_eq!(built.is_none(), !problems.is_empty(), "{toml}: {problems:?}");
        built.ok_or_else(|| problems.iter().map(|p| format!("{}: {}", p.at, p.message)).collect())
    }

    fn answer(toml: &str) -> Response {
        build(toml).unwrap().answer(&fixture::exchange("/"), &fixture::request("GET", "/").head)
    }

    fn text(body: &Body) -> &str {
        match body {
            Body::Full(bytes) => std::str::from_utf8(bytes).unwrap(),
            _ => "",
        }
    }

    #[test]
    fn a_fixed_body_is_plain_text_unless_said_otherwise() {
        let response = answer("body = 'hello'");
        assert_eq!((response.head.status, text(&response.body)), (200, "hello"));
        assert_eq!(response.head.fields.get(NameId::ContentType), Some(DEFAULT_TYPE));
        let response = answer("headers = { content-type = 'text/html' }\nbody = '<p>'");
        assert_eq!(fixture::values(&response.head.fields, "content-type"), ["text/html"]);
    }

    #[test]
    fn body_and_fields_are_templates() {
        let response = answer("status = 503\nheaders = { x-id = '{request_id}' }\nbody = 'at {host}'");
        assert_eq!((response.head.status, text(&response.body)), (503, "at shop.example"));
        assert_eq!(fixture::values(&response.head.fields, "x-id"), ["r-1"]);
    }

    #[test]
    fn an_answer_without_a_body_has_no_type() {
        let response = answer("status = 204");
        assert!(response.body.is_empty() && response.head.fields.is_empty());
    }

    #[test]
    fn wrong_settings_are_problems_with_a_place() {
        for (toml, place) in [
            ("status = 199", "status: "),
            ("status = 600", "status: "),
            ("status = 204\nbody = 'x'", "body: "),
            ("status = 304\nbody = 'x'", "body: "),
            ("body = '{nope}'", "body: "),
            ("headers = { content-length = '1' }", "headers.content-length: "),
            ("headers = { x-a = '{nope}' }", "headers.x-a: "),
        ] {
            let problems = build(toml).unwrap_err();
            assert!(problems.len() == 1 && problems[0].starts_with(place), "{toml}: {problems:?}");
        }
    }
}
