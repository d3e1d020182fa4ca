//! A document as a tree in which every value and key knows the bytes it came from, whatever the language.
//!
//! Promise: no tree is deeper than [`MAX_DEPTH`], so that everything that walks one may recurse.

use std::ops::Range;

use super::report::Finding;
use super::source::{Format, Source};
use super::{read_json, read_toml, read_yaml};
use crate::problem::At;

/// How deep tables and lists may nest. Our deepest documents need about a dozen.
pub const MAX_DEPTH: usize = 64;

/// A value and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// The value.
    pub value: Value,
    /// Its bytes in the source; for a table or list of several lines the bytes of its key or header.
    pub span: Range<usize>,
    /// Where its text came from.
    pub origin: Origin,
}

/// What a document is made of, in every language.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Nothing: YAML and JSON `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Integer(i64),
    /// A finite number.
    Float(f64),
    /// Text.
    String(String),
    /// A list.
    Array(Vec<Node>),
    /// Keys with values, in the order written; no key stands twice.
    Table(Vec<(Key, Node)>),
}

/// A key of a table and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// The key.
    pub text: String,
    /// Its bytes in the source.
    pub span: Range<usize>,
}

/// Where the text of a value came from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Origin {
    /// It stands in the source.
    #[default]
    Written,
    /// Some of it came from `${...}`.
    Mixed(Secrecy),
    /// All of it came from one `${...}`: it takes the type that its place wants.
    Whole(Secrecy),
    /// Its `${...}` could not be filled in; there is a problem about that already.
    Failed,
}

/// Whether a text may be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Secrecy {
    /// It may: it came from variables.
    Open,
    /// It may not: it came from a file, which is where secrets are kept.
    Secret,
}

impl Node {
    /// A value that stands in the source.
    pub fn new(value: Value, span: Range<usize>) -> Node {
        Node { value, span, origin: Origin::Written }
    }

    /// The value under `key`, when this is a table that has it.
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.entry(key).map(|(_, node)| node)
    }

    /// The key `key` and its value, when this is a table that has it.
    pub fn entry(&self, key: &str) -> Option<&(Key, Node)> {
        match &self.value {
            Value::Table(entries) => entries.iter().find(|(name, _)| name.text == key),
            _ => None,
        }
    }

    /// Whether the text may not be shown.
    pub fn is_secret(&self) -> bool {
        matches!(self.origin, Origin::Mixed(Secrecy::Secret) | Origin::Whole(Secrecy::Secret))
    }

    /// The same value without places.
    pub fn to_json(&self) -> serde_json::Value {
        match &self.value {
            Value::Null => serde_json::Value::Null,
            Value::Bool(value) => (*value).into(),
            Value::Integer(value) => (*value).into(),
            Value::Float(value) => (*value).into(),
            Value::String(value) => value.clone().into(),
            Value::Array(items) => items.iter().map(Node::to_json).collect(),
            Value::Table(entries) => serde_json::Value::Object(
                entries.iter().map(|(key, node)| (key.text.clone(), node.to_json())).collect(),
            ),
        }
    }

    /// Gives tables and lists of several lines the place of their key: a caret under `listeners` says more
    /// than one under the first line of what stands in it.
    fn settle(&mut self, text: &str) {
        match &mut self.value {
            Value::Array(items) => items.iter_mut().for_each(|item| item.settle(text)),
            Value::Table(entries) => {
                for (key, node) in entries {
                    let lines = text.get(node.span.clone()).is_none_or(|covered| covered.contains('\n'));
                    if lines && matches!(node.value, Value::Array(_) | Value::Table(_)) {
                        node.span = key.span.clone();
                    }
                    node.settle(text);
                }
            }
            _ => {}
        }
    }
}

/// Reads a source into a tree. Without a tree there is at least one finding.
pub(crate) fn read(source: &Source) -> (Option<Node>, Vec<Finding>) {
    let (mut tree, findings) = match source.format {
        Format::Toml => read_toml::read(source),
        Format::Yaml => read_yaml::read(source),
        Format::Json => read_json::read(source),
    };
    if let Some(root) = &mut tree {
        root.settle(&source.text);
        root.span = 0..0;
    }
    (tree, findings)
}

/// The problem of a document that nests deeper than [`MAX_DEPTH`].
pub(crate) fn too_deep(span: Range<usize>) -> Finding {
    Finding::new(At::root(), span, format!("nested more than {MAX_DEPTH} levels deep"))
}

/// The problem of a number that no setting can hold.
pub(crate) fn bad_number(span: Range<usize>, text: &str) -> Finding {
    let text: String = text.chars().take(40).collect();
    Finding::new(At::root(), span, format!("the number `{text}` is not finite or does not fit in 64 bits"))
}

/// The problem of a key that stands twice in a table.
pub(crate) fn twice(key: &Key, first: &Key, source: &Source) -> Finding {
    let line = source.text[..source.boundary(first.span.start)].matches('\n').count() + 1;
    Finding::new(At::root(), key.span.clone(), format!("the key `{}` stands twice", key.text))
        .hint(format!("it stands first on line {line}; keep one of them"))
}
