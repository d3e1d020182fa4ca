//! JSON text to tree.
//!
//! Promise: exactly RFC 8259: serde_json judges the whole text first, then a small walk takes the values
//! with their bytes. A key that stands twice is a problem.

use std::ops::Range;

use super::report::Finding;
use super::source::Source;
use super::tree::{Key, MAX_DEPTH, Node, Value, bad_number, too_deep, twice};
use crate::problem::At;

/// Reads JSON text.
pub(crate) fn read(source: &Source) -> (Option<Node>, Vec<Finding>) {
    if let Err(error) = serde_json::from_str::<serde::de::IgnoredAny>(&source.text) {
        return (None, vec![syntax(source, &error)]);
    }
    let mut reader = Reader { source, at: 0, findings: Vec::new() };
    match reader.value(0) {
        Ok(root) => (Some(root), reader.findings),
        Err(finding) => {
            reader.findings.push(finding);
            (None, reader.findings)
        }
    }
}

fn syntax(source: &Source, error: &serde_json::Error) -> Finding {
    let lines_before = error.line().saturating_sub(1);
    let line: usize = source.text.split_inclusive('\n').take(lines_before).map(str::len).sum();
    // serde_json counts bytes, and gives column 0 for the line break before a line.
    let at = source.boundary(line + error.column().saturating_sub(1));
    let length = source.text[at..].chars().next().map_or(0, char::len_utf8);
    let message = error.to_string();
    let message = message.rsplit_once(" at line ").map_or(message.as_str(), |(message, _)| message);
    let finding = Finding::new(At::root(), at..at + length, message);
    let (before, after) = source.text.split_at(at);
    if source.text.trim().is_empty() {
        finding.hint("an empty document is `{}`")
    } else if before.trim_end().ends_with(',') && after.starts_with(['}', ']']) {
        finding.hint("remove the comma before it")
    } else if after.starts_with(['/', '#']) {
        finding.hint("JSON has no comments; TOML and YAML have")
    } else {
        finding
    }
}

struct Reader<'a> {
    source: &'a Source,
    at: usize,
    findings: Vec<Finding>,
}

impl Reader<'_> {
    fn peek(&mut self) -> Option<u8> {
        let rest = self.source.text.as_bytes().get(self.at..).unwrap_or_default();
        let blank = rest.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
        self.at += blank;
        rest.get(blank).copied()
    }

    /// Only reached when serde_json and this walk disagree: a problem, not a wrong tree.
    fn unexpected(&self) -> Finding {
        Finding::new(At::root(), self.at..self.at + 1, "this is not JSON")
    }

    fn value(&mut self, depth: usize) -> Result<Node, Finding> {
        let first = self.peek().ok_or_else(|| self.unexpected())?;
        let start = self.at;
        if depth > MAX_DEPTH {
            return Err(too_deep(start..start + 1));
        }
        let value = match first {
            b'{' => self.object(depth)?,
            b'[' => self.array(depth)?,
            b'"' => Value::String(self.string()?.0),
            _ => self.word()?,
        };
        Ok(Node::new(value, start..self.at))
    }

    fn object(&mut self, depth: usize) -> Result<Value, Finding> {
        let mut entries: Vec<(Key, Node)> = Vec::new();
        let mut seen = std::collections::HashMap::new();
        self.at += 1;
        while self.peek() != Some(b'}') {
            let (text, span) = self.string()?;
            let key = Key { text, span };
            self.step(b':')?;
            let node = self.value(depth + 1)?;
            match seen.get(&key.text).and_then(|position: &usize| entries.get(*position)) {
                Some((first, _)) => self.findings.push(twice(&key, first, self.source)),
                None => {
                    seen.insert(key.text.clone(), entries.len());
                    entries.push((key, node));
                }
            }
            if self.peek() == Some(b',') {
                self.at += 1;
            }
        }
        self.at += 1;
        Ok(Value::Table(entries))
    }

    fn array(&mut self, depth: usize) -> Result<Value, Finding> {
        let mut items = Vec::new();
        self.at += 1;
        while self.peek() != Some(b']') {
            items.push(self.value(depth + 1)?);
            if self.peek() == Some(b',') {
                self.at += 1;
            }
        }
        self.at += 1;
        Ok(Value::Array(items))
    }

    fn step(&mut self, byte: u8) -> Result<(), Finding> {
        if self.peek() != Some(byte) {
            return Err(self.unexpected());
        }
        self.at += 1;
        Ok(())
    }

    fn string(&mut self) -> Result<(String, Range<usize>), Finding> {
        if self.peek() != Some(b'"') {
            return Err(self.unexpected());
        }
        let start = self.at;
        let mut escaped = false;
        let end = self.source.text.as_bytes()[start + 1..].iter().position(|byte| {
            let ends = *byte == b'"' && !escaped;
            escaped = *byte == b'\\' && !escaped;
            ends
        });
        self.at = end.map_or(self.source.text.len(), |length| start + length + 2);
        let span = start..self.at;
        // A lone surrogate is grammar but not text: it fails here.
        let text = serde_json::from_str(self.source.slice(&span)).map_err(|_| {
            Finding::new(At::root(), span.clone(), "this string has an escape that is no character")
        })?;
        Ok((text, span))
    }

    fn word(&mut self) -> Result<Value, Finding> {
        let rest = &self.source.text[self.at..];
        let length =
            rest.find(|c: char| !(c.is_ascii_alphanumeric() || "+-.".contains(c))).unwrap_or(rest.len());
        let word = &rest[..length];
        if word.is_empty() {
            return Err(self.unexpected());
        }
        let span = self.at..self.at + length;
        self.at += length;
        Ok(match word {
            "null" => Value::Null,
            "true" => Value::Bool(true),
            "false" => Value::Bool(false),
            number => match (number.parse::<i64>(), number.parse::<f64>()) {
                (Ok(integer), _) => Value::Integer(integer),
                (Err(_), Ok(float)) if float.is_finite() && number.contains(['.', 'e', 'E']) => {
                    Value::Float(float)
                }
                _ => {
                    self.findings.push(bad_number(span, number));
                    Value::Integer(0)
                }
            },
        })
    }
}
