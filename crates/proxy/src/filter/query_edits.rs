//! Edits to a query, for the `rewrite` filter.
//!
//! Promise: parameters that no edit names keep their order and their spelling, byte for byte; values are
//! percent-encoded, so that a value can never become a second parameter.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::facts::Facts;
use crate::percent::{Plus, Set, decoded, encode};
use crate::problem::{At, Problems};
use crate::template::{Escape, Template};

/// Edits to the query, made in this order: remove, set, add. Values may use variables and are percent-encoded.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct QueryConfig {
    /// Names of parameters that are removed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub remove: Vec<String>,
    /// Name to value: the first parameter of the name gets the value, others of the name are removed; added at
    /// the end when there is none.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub set: BTreeMap<String, String>,
    /// Name to value: one more parameter at the end.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub add: BTreeMap<String, String>,
}

/// Edits to a query, compiled.
#[derive(Debug)]
pub(crate) struct QueryEdits {
    remove: Vec<String>,
    set: Vec<(String, Template)>,
    add: Vec<(String, Template)>,
}

impl QueryEdits {
    /// Checks and compiles; `None` when a problem was added.
    pub(crate) fn build(config: &QueryConfig, at: &At, problems: &mut Problems) -> Option<QueryEdits> {
        if *config == QueryConfig::default() {
            problems.add(at, "these edits change nothing").hint("write set, add or remove");
            return None;
        }
        let remove = at.key("remove");
        let empty = config.remove.iter().position(String::is_empty);
        if let Some(index) = empty {
            problems.add(&remove.index(index), "the name of a parameter is empty");
        }
        let set = compile(&config.set, &at.key("set"), problems);
        let add = compile(&config.add, &at.key("add"), problems);
        if empty.is_some() {
            return None;
        }
        Some(QueryEdits { remove: config.remove.clone(), set: set?, add: add? })
    }

    /// The query after the edits; `None` when it stays as it is.
    pub(crate) fn query(&self, query: &str, facts: &Facts<'_>) -> Option<String> {
        let mut out = String::with_capacity(query.len() + 32);
        let mut done = vec![false; self.set.len()];
        for pair in query.split('&').filter(|_| !query.is_empty()) {
            // Names are compared as forms mean them: "+" is a space, escapes are decoded.
            let name = decoded(pair.split('=').next().unwrap_or(pair).as_bytes(), Plus::Space);
            if self.remove.iter().any(|removed| name.clone().eq(removed.bytes())) {
                continue;
            }
            match self.set.iter().position(|(set, _)| name.clone().eq(set.bytes())) {
                None => push_pair(&mut out, pair),
                Some(index) if done[index] => {}
                Some(index) => {
                    done[index] = true;
                    push_edit(&mut out, &self.set[index], facts);
                }
            }
        }
        let missing = self.set.iter().zip(&done).filter(|(_, done)| !**done).map(|(edit, _)| edit);
        for edit in missing.chain(&self.add) {
            push_edit(&mut out, edit, facts);
        }
        (out != query).then_some(out)
    }
}

fn compile(
    values: &BTreeMap<String, String>,
    at: &At,
    problems: &mut Problems,
) -> Option<Vec<(String, Template)>> {
    let mut compiled = Vec::with_capacity(values.len());
    for (name, text) in values {
        let at = at.key(name.as_str());
        if name.is_empty() {
            problems.add(&at, "the name of a parameter is empty");
            compiled.push(None);
            continue;
        }
        // Unescaped here: the value as a whole is encoded when it is written.
        let value = problems.take(&at, Template::compile(text, Escape::None));
        compiled.push(value.map(|value| (name.clone(), value)));
    }
    compiled.into_iter().collect()
}

fn push_pair(out: &mut String, pair: &str) {
    if !out.is_empty() {
        out.push('&');
    }
    out.push_str(pair);
}

fn push_edit(out: &mut String, (name, value): &(String, Template), facts: &Facts<'_>) {
    let mut text = String::new();
    value.render(facts, &mut text);
    push_pair(out, "");
    encode(name.as_bytes(), Set::UNRESERVED, out);
    out.push('=');
    encode(text.as_bytes(), Set::UNRESERVED, out);
}

#[cfg(test)]
mod tests {
    use super::super::fixture;
    use super::*;

    fn edited(toml: &str, query: &str) -> Option<String> {
        let config: QueryConfig = toml_edit::de::from_str(toml).unwrap();
        let mut problems = Problems::new();
        let edits = QueryEdits::build(&config, &At::root(), &mut problems).unwrap();
        let exchange = fixture::exchange("/");
        edits.query(query, &exchange.facts(&fixture::request("GET", "/").head))
    }

    #[test]
    fn other_parameters_keep_order_and_spelling() {
        let toml = "remove = ['b', 'x y']\nset = { c = 'é/{request_id}' }\nadd = { a = '=' }";
        let query = "a=%41+%&b=1&c=1&%62=2&d&x+y=1&x%20y&c=2&=e";
        assert_eq!(edited(toml, query).unwrap(), "a=%41+%&c=%C3%A9%2Fr-1&d&=e&a=%3D");
        assert_eq!(edited(toml, "").unwrap(), "c=%C3%A9%2Fr-1&a=%3D");
    }

    #[test]
    fn a_query_without_the_names_stays_as_it_is() {
        assert_eq!(edited("remove = ['b']", "a=1&&c"), None);
        assert_eq!(edited("remove = ['b']", ""), None);
        assert_eq!(edited("remove = ['b']", "b"), Some(String::new()));
    }

    #[test]
    fn empty_names_are_problems() {
        let config: QueryConfig =
            toml_edit::de::from_str("remove = ['']\nset = { '' = '1' }\nadd = { a = '{nope}' }").unwrap();
        let mut problems = Problems::new();
        assert!(QueryEdits::build(&config, &At::root(), &mut problems).is_none());
        assert_eq!(problems.iter().len(), 3, "{problems:?}");
    }
}
