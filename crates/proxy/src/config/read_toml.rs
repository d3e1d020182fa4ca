//! TOML text to tree.
//!
//! Promise: every value and key keeps its bytes; a syntax error or a key that stands twice is a problem.

use std::ops::Range;

use toml_edit::{Item, TableLike};

use super::report::Finding;
use super::source::Source;
use super::tree::{Key, MAX_DEPTH, Node, Value, bad_number, too_deep};
use crate::problem::At;

type Read = (Option<Node>, Vec<Finding>);

/// Reads TOML text.
pub(crate) fn read(source: &Source) -> Read {
    let document = match toml_edit::Document::parse(source.text.as_str()) {
        Ok(document) => document,
        Err(error) => return (None, vec![syntax(source, &error)]),
    };
    let mut reader = Reader { source, findings: Vec::new() };
    let root = reader.table(document.as_table(), 0..0, 0);
    (Some(root), reader.findings)
}

fn syntax(source: &Source, error: &toml_edit::TomlError) -> Finding {
    let span = error.span().unwrap_or(source.text.len()..source.text.len());
    let message = match error.message() {
        "duplicate key" => format!("the key `{}` stands twice", source.slice(&span).trim()),
        message => message.replace('\n', ", "),
    };
    Finding::new(At::root(), span, message)
}

struct Reader<'a> {
    source: &'a Source,
    findings: Vec<Finding>,
}

impl Reader<'_> {
    fn table(&mut self, table: &dyn TableLike, span: Range<usize>, depth: usize) -> Node {
        let mut entries = Vec::with_capacity(table.len());
        for (text, item) in table.iter() {
            let key = table.key(text).and_then(toml_edit::Key::span).unwrap_or(span.clone());
            let node = self.item(item, &key, depth + 1);
            entries.push((Key { text: text.to_owned(), span: key }, node));
        }
        Node::new(Value::Table(entries), span)
    }

    fn item(&mut self, item: &Item, key: &Range<usize>, depth: usize) -> Node {
        // An implicit table (`a` of `[a.b]`) has no place but its key's.
        let span = item.span().unwrap_or(key.clone());
        if depth > MAX_DEPTH {
            self.findings.push(too_deep(span.clone()));
            return Node::new(Value::Null, span);
        }
        match item {
            Item::None => Node::new(Value::Null, span),
            Item::Value(value) => self.value(value, span, depth),
            Item::Table(table) => self.table(table, span, depth),
            Item::ArrayOfTables(tables) => {
                let items = tables.iter().map(|table| {
                    let header = table.span().unwrap_or(key.clone());
                    self.table(table, header, depth + 1)
                });
                Node::new(Value::Array(items.collect()), span)
            }
        }
    }

    fn value(&mut self, value: &toml_edit::Value, span: Range<usize>, depth: usize) -> Node {
        if depth > MAX_DEPTH {
            self.findings.push(too_deep(span.clone()));
            return Node::new(Value::Null, span);
        }
        let read = match value {
            toml_edit::Value::String(text) => Value::String(text.value().clone()),
            toml_edit::Value::Integer(number) => Value::Integer(*number.value()),
            toml_edit::Value::Boolean(value) => Value::Bool(*value.value()),
            // A moment in time is text to the rest of us: RFC 3339 in both cases.
            toml_edit::Value::Datetime(moment) => Value::String(moment.value().to_string()),
            toml_edit::Value::Float(number) if number.value().is_finite() => Value::Float(*number.value()),
            toml_edit::Value::Float(_) => {
                self.findings.push(bad_number(span.clone(), self.source.slice(&span)));
                Value::Float(0.0)
            }
            toml_edit::Value::Array(items) => {
                let read = items.iter().map(|item| {
                    let span = item.span().unwrap_or(span.clone());
                    self.value(item, span, depth + 1)
                });
                Value::Array(read.collect())
            }
            toml_edit::Value::InlineTable(table) => return self.table(table, span, depth),
        };
        Node::new(read, span)
    }
}
