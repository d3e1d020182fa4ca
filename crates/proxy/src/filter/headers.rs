//! The `headers` filter: edits to the fields of requests and responses.
//!
//! Promise: names and values are checked when the document is; no edit can break framing or split a head;
//! the fields that say where a message ends and what the connection does cannot be edited.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sluice_http::{FieldName, Fields, Request, RequestHead, Response};

use super::{Filter, Flow};
use crate::exchange::Exchange;
use crate::facts::Facts;
use crate::failure::Failure;
use crate::field_values::{Variables, compile_values, editable_name};
use crate::problem::{At, Problems};
use crate::scene::Scene;
use crate::template::Template;

/// Edits the fields of requests and responses.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Edits to what the endpoint gets. Values may use every variable.
    #[serde(skip_serializing_if = "Edits::is_empty")]
    pub request: Edits,
    /// Edits to what the client gets, also when the gateway itself answers. Values may use the variables
    /// `{client}`, `{listener}`, `{param.NAME}`, `{request_id}`, `{route}` and `{scheme}`.
    #[serde(skip_serializing_if = "Edits::is_empty")]
    pub response: Edits,
}

/// Edits to the fields of one message, made in this order: remove, rename, set, set_if_missing, add; names
/// of one kind of edit in alphabetical order.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Edits {
    /// Names whose lines are all removed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub remove: Vec<String>,
    /// Old name to new name; values and order stay.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub rename: BTreeMap<String, String>,
    /// Name to value: all lines of the name become this one.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub set: BTreeMap<String, String>,
    /// Name to value: added only where the message has no line of the name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub set_if_missing: BTreeMap<String, String>,
    /// Name to value: one more line at the end.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub add: BTreeMap<String, String>,
}

impl Edits {
    fn is_empty(&self) -> bool {
        *self == Edits::default()
    }
}

/// The `headers` filter.
#[derive(Debug)]
pub struct Headers {
    request: Steps,
    response: Steps,
    /// Stands in for the request's head, which has been given to the endpoint when a response comes back:
    /// the variables allowed in response values never look at it.
    no_head: RequestHead,
}

impl Filter for Headers {
    type Config = Config;
    const NAME: &'static str = "headers";

    fn build(config: &Config, at: &At, problems: &mut Problems) -> Option<Headers> {
        let request = Steps::build(&config.request, Variables::All, &at.key("request"), problems);
        let response = Steps::build(&config.response, Variables::Exchange, &at.key("response"), problems);
        Some(Headers { request: request?, response: response?, no_head: RequestHead::new("GET", "/") })
    }

    async fn on_request(
        &self,
        _scene: &Scene<'_>,
        exchange: &mut Exchange,
        request: &mut Request,
    ) -> Result<Flow, Failure> {
        if !self.request.0.is_empty() {
            let head = &mut request.head;
            self.request.apply(
                head,
                |head| &mut head.fields,
                |head, template, out| {
                    template.render(&exchange.facts(head), out);
                },
            );
        }
        Ok(Flow::Continue)
    }

    async fn on_response(&self, exchange: &mut Exchange, response: &mut Response) -> Result<(), Failure> {
        if !self.response.0.is_empty() {
            let facts: Facts<'_> = exchange.facts(&self.no_head);
            self.response.apply(
                &mut response.head,
                |head| &mut head.fields,
                |_, template, out| {
                    template.render(&facts, out);
                },
            );
        }
        Ok(())
    }
}

/// One edit, compiled.
#[derive(Debug)]
enum Step {
    Remove(FieldName),
    Rename(FieldName, FieldName),
    Set(FieldName, Template),
    SetIfMissing(FieldName, Template),
    Add(FieldName, Template),
}

/// The edits of one message, in the order in which they are made.
#[derive(Debug)]
struct Steps(Box<[Step]>);

impl Steps {
    fn build(edits: &Edits, allowed: Variables, at: &At, problems: &mut Problems) -> Option<Steps> {
        let mut steps = Vec::new();
        let remove = at.key("remove");
        for (index, text) in edits.remove.iter().enumerate() {
            steps.push(editable_name(text, &remove.index(index), problems).map(Step::Remove));
        }
        let rename = at.key("rename");
        for (from, to) in &edits.rename {
            let at = rename.key(from.as_str());
            let (from, to) = (editable_name(from, &at, problems), editable_name(to, &at, problems));
            steps.push(from.zip(to).map(|(from, to)| Step::Rename(from, to)));
        }
        let mut values = |key: &str, values, step: fn(FieldName, Template) -> Step| match compile_values(
            values,
            allowed,
            &at.key(key),
            problems,
        ) {
            Some(values) => steps.extend(values.into_iter().map(|(name, value)| Some(step(name, value)))),
            None => steps.push(None),
        };
        values("set", &edits.set, Step::Set);
        values("set_if_missing", &edits.set_if_missing, Step::SetIfMissing);
        values("add", &edits.add, Step::Add);
        Some(Steps(steps.into_iter().collect::<Option<Box<[_]>>>()?))
    }

    /// Makes the edits on `head`. A value sees the head as the edits before it left it.
    fn apply<H>(
        &self,
        head: &mut H,
        fields: impl Fn(&mut H) -> &mut Fields,
        render: impl Fn(&H, &Template, &mut String),
    ) {
        let mut rendered = String::new();
        for step in &self.0 {
            let value = match step {
                Step::Remove(_) | Step::Rename(..) => "",
                Step::Set(_, value) | Step::SetIfMissing(_, value) | Step::Add(_, value) => {
                    value.is_constant().unwrap_or_else(|| {
                        rendered.clear();
                        render(head, value, &mut rendered);
                        &rendered
                    })
                }
            };
            let fields = fields(head);
            match step {
                Step::Remove(name) => _ = fields.remove(name),
                Step::Rename(from, to) => _ = fields.rename(from, to),
                Step::Set(name, _) => fields.set(name, value.as_bytes()),
                Step::SetIfMissing(name, _) if fields.contains(name) => {}
                Step::SetIfMissing(name, _) | Step::Add(name, _) => fields.append(name, value.as_bytes()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture;
    use sluice_http::NameId;

    use super::*;
    use std::sync::Arc;

    fn config(toml: &str) -> Config {
        toml_edit::de::from_str(toml).unwrap()
    }

    fn build(toml: &str) -> Headers {
        let mut problems = Problems::new();
        let built = Headers::build(&config(toml), &At::root(), &mut problems);
        assert!(problems.is_empty(), "{problems:?}");
        built.unwrap()
    }

    fn problems(toml: &str) -> Vec<(String, String)> {
        let mut problems = Problems::new();
        assert!(Headers::build(&config(toml), &At::root(), &mut problems).is_none(), "{toml}");
        problems.iter().map(|problem| (problem.at.to_string(), problem.message.clone())).collect()
    }

    fn lines(fields: &Fields) -> Vec<String> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        fields.iter().map(|(_, name, value)| format!("{}: {}", text(name), text(value))).collect()
    }

    #[tokio::test(flavor = "local")]
    async fn request_fields_are_removed_renamed_set_and_added_in_this_order() {
        let filter = build(
            "[request]
             add = { x-tag = 'b' }
             set = { x-tag = 'a', x-id = '{request_id}', x-agent = '{header.x-ua}' }
             set_if_missing = { accept = '*/*', x-new = 'n' }
             rename = { user-agent = 'X-UA' }
             remove = ['x-tag', 'cookie']",
        );
        let mut request = fixture::request("GET", "/");
        let fields = &mut request.head.fields;
        fields.append(&fixture::name("X-Tag"), b"old");
        fields.append(NameId::UserAgent, b"curl");
        fields.append(NameId::Cookie, b"a=1");
        fields.append(NameId::Accept, b"text/html");
        let flow =
            filter.on_request(&fixture::stage().scene(), &mut fixture::exchange("/"), &mut request).await;
        assert!(matches!(flow, Ok(Flow::Continue)));
        let expected = [
            "Host: shop.example",
            "X-UA: curl",
            "Accept: text/html",
            "x-agent: curl",
            "x-id: r-1",
            "x-tag: a",
            "x-new: n",
            "x-tag: b",
        ];
        assert_eq!(lines(&request.head.fields), expected);
    }

    #[tokio::test(flavor = "local")]
    async fn response_values_see_the_exchange() {
        let filter = build(
            "[response]
             set = { server = 'sluice', x-from = '{client} {route} {scheme} {listener} {param.id}' }
             remove = ['x-powered-by']",
        );
        let mut exchange = fixture::exchange("/");
        exchange.params.0.push((Arc::from("id"), "7".to_owned()));
        let mut response = fixture::response(200);
        response.head.fields.append(NameId::Server, b"apache");
        response.head.fields.append(&fixture::name("X-Powered-By"), b"php");
        filter.on_response(&mut exchange, &mut response).await.unwrap();
        assert_eq!(lines(&response.head.fields), ["Server: sluice", "x-from: 192.0.2.7 shop http web 7"]);
    }

    #[tokio::test(flavor = "local")]
    async fn a_value_cannot_split_the_head() {
        let filter = build("[request]\nset = { x-note = 'n={param.note}' }");
        let mut exchange = fixture::exchange("/");
        exchange.params.0.push((Arc::from("note"), "a\r\nX-Evil: 1".to_owned()));
        let mut request = fixture::request("GET", "/");
        filter.on_request(&fixture::stage().scene(), &mut exchange, &mut request).await.unwrap();
        assert_eq!(fixture::values(&request.head.fields, "x-note"), ["n=a  X-Evil: 1"]);
    }

    #[test]
    fn every_problem_is_found_at_its_place() {
        let found = problems(
            "[request]
             remove = ['x ok', 'Connection']
             rename = { a = 'Host' }
             set = { Content-Length = '1', x-a = \"a\\nb\", x-b = '{nope}' }
             [response]
             add = { Transfer-Encoding = 'x', X-C = '1', x-c = '2', x-d = '{header.cookie}' }",
        );
        let places: Vec<&str> = found.iter().map(|(at, _)| at.as_str()).collect();
        let expected = [
            "request.remove[0]",
            "request.remove[1]",
            "request.rename.a",
            "request.set.Content-Length",
            "request.set.x-a",
            "request.set.x-b",
            "response.add.Transfer-Encoding",
            "response.add.x-c",
            "response.add.x-d",
        ];
        assert_eq!(places, expected, "{found:?}");
        assert!(found[8].1.contains("{header.cookie}"), "{found:?}");
    }
}
