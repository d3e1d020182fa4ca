//! TOML text to tree.
//!
//! Promise: every value and key keeps its bytes; syntax errors and keys that stand twice are problems, all of
//! them but those that only echo another.

use std::ops::Range;

use toml::de::{DeFloat, DeInteger, DeTable, DeValue};

use super::report::Finding;
use super::source::Source;
use super::tree::{Key, MAX_DEPTH, Node, Value, bad_number, too_deep};
use crate::problem::At;

const DUPLICATE: &str = "duplicate key";

/// Reads TOML text.
pub(crate) fn read(source: &Source) -> (Option<Node>, Vec<Finding>) {
    let (table, errors) = DeTable::parse_recoverable(&source.text);
    let mut reader = Reader { source, findings: Vec::new() };
    let root = reader.table(table.get_ref(), 0..0, 0);
    // After a key that stands twice the rest is known; after other errors it is a guess.
    let known = errors.iter().all(|error| error.message() == DUPLICATE);
    if !known {
        reader.findings.clear();
    }
    let mut syntax: Vec<Finding> = errors.iter().map(|error| syntax(source, error)).collect();
    syntax.sort_by_key(|finding| finding.span.start);
    let line_end = |at: usize| source.text[at..].find('\n').map_or(source.text.len(), |length| at + length);
    let mut last: Option<(usize, String)> = None;
    for finding in syntax {
        // What follows an error in its line, or says the same again, is an echo of it: a list that is not
        // closed makes each line after it wrong.
        let echo = |(end, message): &(usize, String)| {
            finding.span.start <= *end || finding.problem.message == *message
        };
        if !last.as_ref().is_some_and(echo) {
            let end = line_end(source.boundary(finding.span.start));
            last = Some((end, finding.problem.message.clone()));
            reader.findings.push(finding);
        }
    }
    (known.then_some(root), reader.findings)
}

fn syntax(source: &Source, error: &toml::de::Error) -> Finding {
    let span = error.span().unwrap_or(source.text.len()..source.text.len());
    let message = match error.message() {
        DUPLICATE => format!("the key `{}` stands twice", source.slice(&span).trim()),
        message => message.replace('\n', ", ").trim_end_matches(", expected nothing").to_owned(),
    };
    Finding::new(At::root(), span, message)
}

struct Reader<'a> {
    source: &'a Source,
    findings: Vec<Finding>,
}

impl Reader<'_> {
    fn table(&mut self, table: &DeTable<'_>, span: Range<usize>, depth: usize) -> Node {
        let entries = table.iter().map(|(key, value)| {
            let node = self.value(value.get_ref(), value.span(), depth + 1);
            (Key { text: key.get_ref().to_string(), span: key.span() }, node)
        });
        let entries = entries.collect();
        Node::new(Value::Table(entries), span)
    }

    fn value(&mut self, value: &DeValue<'_>, span: Range<usize>, depth: usize) -> Node {
        if depth > MAX_DEPTH {
            self.findings.push(too_deep(span.clone()));
            return Node::new(Value::Null, span);
        }
        let read = match value {
            DeValue::String(text) => Value::String(text.to_string()),
            DeValue::Integer(number) => integer(number).unwrap_or_else(|| self.bad_number(&span)),
            DeValue::Float(number) => float(number).unwrap_or_else(|| self.bad_number(&span)),
            DeValue::Boolean(value) => Value::Bool(*value),
            // A moment in time is text to the rest of us: RFC 3339 in both cases.
            DeValue::Datetime(moment) => Value::String(moment.to_string()),
            DeValue::Array(items) => Value::Array(
                items.iter().map(|item| self.value(item.get_ref(), item.span(), depth + 1)).collect(),
            ),
            DeValue::Table(table) => return self.table(table, span, depth),
        };
        Node::new(read, span)
    }

    fn bad_number(&mut self, span: &Range<usize>) -> Value {
        self.findings.push(bad_number(span.clone(), self.source.slice(span)));
        Value::Integer(0)
    }
}

fn integer(number: &DeInteger<'_>) -> Option<Value> {
    i64::from_str_radix(number.as_str(), number.radix()).ok().map(Value::Integer)
}

fn float(number: &DeFloat<'_>) -> Option<Value> {
    number.as_str().parse::<f64>().ok().filter(|number| number.is_finite()).map(Value::Float)
}
