//! YAML text to tree: the core schema of YAML 1.2, so `yes` and `on` are texts.
//!
//! Promise: one document; anchors and aliases work and their expansion is bounded; tags, merge keys and keys
//! that are no texts are problems.

use std::collections::HashMap;
use std::ops::Range;

use granit_parser::{Event, Parser, ScalarStyle};

use super::report::Finding;
use super::source::Source;
use super::tree::{Key, MAX_DEPTH, Node, Value, bad_number, too_deep, twice};
use crate::problem::At;

/// How many values aliases may add to a document; far more than people write, far less than a bomb.
const MAX_ALIASED: usize = 100_000;

/// Reads YAML text.
pub(crate) fn read(source: &Source) -> (Option<Node>, Vec<Finding>) {
    let mut builder = Builder::new(source);
    let mut options = granit_parser::options! {
        disallow_directives: true,
        flow_nesting_limit: MAX_DEPTH + 1,
        block_nesting_limit: MAX_DEPTH + 1,
    };
    options.set_emit_comments(false);
    for next in Parser::new_from_str_with_options(&source.text, options) {
        let step = next
            .map_err(|error| syntax(source, &error))
            .and_then(|(event, span)| builder.event(event, &span));
        if let Err(finding) = step {
            builder.findings.push(finding);
            return (None, builder.findings);
        }
    }
    // A document without content is a table without keys.
    let empty = || Node::new(Value::Table(Vec::new()), 0..0);
    let root = builder.root.filter(|root| root.value != Value::Null).unwrap_or_else(empty);
    (Some(root), builder.findings)
}

fn syntax(source: &Source, error: &granit_parser::ScanError) -> Finding {
    let at = source.boundary(error.marker().byte_offset().unwrap_or_default());
    let length = source.text[at..].chars().next().filter(|c| *c != '\n').map_or(0, char::len_utf8);
    Finding::new(At::root(), at..at + length, error.info().replace('\n', ", "))
}

/// A table or list that is not closed yet.
struct Frame {
    open: Open,
    start: usize,
    anchor: usize,
}

enum Open {
    List(Vec<Node>),
    Table { entries: Vec<(Key, Node)>, seen: HashMap<String, usize>, key: Option<Key> },
}

/// A value that aliases may repeat, and what a repetition costs.
struct Anchored {
    node: Node,
    values: usize,
    depth: usize,
}

struct Builder<'a> {
    source: &'a Source,
    open: Vec<Frame>,
    anchored: HashMap<usize, Anchored>,
    aliased: usize,
    documents: usize,
    root: Option<Node>,
    findings: Vec<Finding>,
}

impl<'a> Builder<'a> {
    fn new(source: &'a Source) -> Builder<'a> {
        Builder {
            source,
            open: Vec::new(),
            anchored: HashMap::new(),
            aliased: 0,
            documents: 0,
            root: None,
            findings: Vec::new(),
        }
    }

    fn event(&mut self, event: Event<'_>, span: &granit_parser::Span) -> Result<(), Finding> {
        let bytes = span.byte_range().unwrap_or_default();
        if event.tag().is_some() {
            let tag = span.tag_span().and_then(|span| span.byte_range()).unwrap_or(bytes.clone());
            let message = format!("tags are not accepted: `{}`", self.source.slice(&tag));
            self.findings.push(Finding::new(At::root(), tag, message).hint("remove it"));
        }
        match event {
            Event::DocumentStart(..) => {
                self.documents += 1;
                if self.documents > 1 {
                    return Err(problem(bytes, "a second document begins here; a file holds one"));
                }
            }
            Event::Scalar(text, style, anchor, _) => return self.scalar(&text, style, anchor, bytes),
            Event::SequenceStart(_, anchor, _) => self.start(Open::List(Vec::new()), bytes, anchor)?,
            Event::MappingStart(_, anchor, _) => {
                let open = Open::Table { entries: Vec::new(), seen: HashMap::new(), key: None };
                self.start(open, bytes, anchor)?;
            }
            Event::SequenceEnd | Event::MappingEnd => return self.end(bytes.end),
            Event::Alias(anchor) => return self.alias(anchor, bytes),
            _ => {}
        }
        Ok(())
    }

    /// Whether the next value is a key.
    fn wants_key(&self) -> bool {
        matches!(self.open.last(), Some(Frame { open: Open::Table { key: None, .. }, .. }))
    }

    fn start(&mut self, open: Open, span: Range<usize>, anchor: usize) -> Result<(), Finding> {
        if self.wants_key() {
            return Err(problem(span, "a key must be a text"));
        }
        if self.open.len() >= MAX_DEPTH {
            return Err(too_deep(span));
        }
        self.open.push(Frame { open, start: span.start, anchor });
        Ok(())
    }

    fn end(&mut self, end: usize) -> Result<(), Finding> {
        let Some(frame) = self.open.pop() else { return Ok(()) };
        let value = match frame.open {
            Open::List(items) => Value::Array(items),
            Open::Table { entries, .. } => Value::Table(entries),
        };
        // A block collection ends where the next thing starts: the blank lines between are not part of it.
        let covered = self.source.slice(&(frame.start..end)).trim_end().len();
        self.place(Node::new(value, frame.start..frame.start + covered), frame.anchor);
        Ok(())
    }

    fn scalar(
        &mut self,
        text: &str,
        style: ScalarStyle,
        anchor: usize,
        span: Range<usize>,
    ) -> Result<(), Finding> {
        if let Some(Frame { open: Open::Table { key, .. }, .. }) = self.open.last_mut()
            && key.is_none()
        {
            if text == "<<" && style == ScalarStyle::Plain {
                return Err(problem(span, "merge keys (`<<`) are not part of YAML 1.2")
                    .hint("repeat the keys, or alias a whole value"));
            }
            *key = Some(Key { text: text.to_owned(), span: span.clone() });
            if anchor > 0 {
                self.remember(anchor, Node::new(Value::String(text.to_owned()), span));
            }
            return Ok(());
        }
        let value = if style == ScalarStyle::Plain {
            plain(text).unwrap_or_else(|()| {
                self.findings.push(bad_number(span.clone(), text));
                Value::Integer(0)
            })
        } else {
            Value::String(text.to_owned())
        };
        self.place(Node::new(value, span), anchor);
        Ok(())
    }

    fn alias(&mut self, anchor: usize, span: Range<usize>) -> Result<(), Finding> {
        let Some(found) = self.anchored.get(&anchor) else {
            return Err(problem(span, "this alias stands inside its own anchor"));
        };
        self.aliased += found.values;
        if self.aliased > MAX_ALIASED {
            return Err(problem(span, format!("aliases repeat more than {MAX_ALIASED} values")));
        }
        if self.open.len() + found.depth > MAX_DEPTH {
            return Err(too_deep(span));
        }
        let mut node = found.node.clone();
        if self.wants_key() {
            let Value::String(text) = node.value else { return Err(problem(span, "a key must be a text")) };
            if let Some(Frame { open: Open::Table { key, .. }, .. }) = self.open.last_mut() {
                *key = Some(Key { text, span });
            }
            return Ok(());
        }
        node.span = span;
        self.place(node, 0);
        Ok(())
    }

    fn remember(&mut self, anchor: usize, node: Node) {
        let (values, depth) = weight(&node);
        self.anchored.insert(anchor, Anchored { node, values, depth });
    }

    /// Puts a finished value where it belongs.
    fn place(&mut self, node: Node, anchor: usize) {
        if anchor > 0 {
            self.remember(anchor, node.clone());
        }
        match self.open.last_mut().map(|frame| &mut frame.open) {
            None => self.root = Some(node),
            Some(Open::List(items)) => items.push(node),
            Some(Open::Table { entries, seen, key }) => {
                let Some(key) = key.take() else { return };
                match seen.get(&key.text).and_then(|position| entries.get(*position)) {
                    Some((first, _)) => self.findings.push(twice(&key, first, self.source)),
                    None => {
                        seen.insert(key.text.clone(), entries.len());
                        entries.push((key, node));
                    }
                }
            }
        }
    }
}

fn problem(span: Range<usize>, message: impl Into<String>) -> Finding {
    Finding::new(At::root(), span, message)
}

/// How many values a node holds, itself included, and how deep it nests.
fn weight(node: &Node) -> (usize, usize) {
    let sum = |(values, depth): (usize, usize), (more, deeper): (usize, usize)| {
        (values + more, depth.max(deeper + 1))
    };
    match &node.value {
        Value::Array(items) => items.iter().map(weight).fold((1, 1), sum),
        Value::Table(entries) => entries.iter().map(|(_, node)| weight(node)).fold((1, 1), sum),
        _ => (1, 0),
    }
}

/// A plain scalar in the core schema (YAML 1.2.2 section 10.3.2); `Err` is a number we cannot hold.
fn plain(text: &str) -> Result<Value, ()> {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Ok(Value::Null),
        "true" | "True" | "TRUE" => return Ok(Value::Bool(true)),
        "false" | "False" | "FALSE" => return Ok(Value::Bool(false)),
        _ => {}
    }
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse().map(Value::Integer).map_err(|_| ());
    }
    for (prefix, radix) in [("0x", 16), ("0o", 8)] {
        if let Some(number) = text.strip_prefix(prefix)
            && !number.is_empty()
            && number.chars().all(|c| c.is_digit(radix))
        {
            return i64::from_str_radix(number, radix).map(Value::Integer).map_err(|_| ());
        }
    }
    if matches!(digits, ".inf" | ".Inf" | ".INF") || matches!(text, ".nan" | ".NaN" | ".NAN") {
        return Err(());
    }
    let numeric = digits.bytes().all(|byte| byte.is_ascii_digit() || b".eE+-".contains(&byte))
        && digits.starts_with(|c: char| c.is_ascii_digit() || c == '.')
        && digits.contains(|c: char| c.is_ascii_digit());
    match text.parse::<f64>() {
        Ok(number) if numeric && number.is_finite() => Ok(Value::Float(number)),
        Ok(_) if numeric => Err(()),
        _ => Ok(Value::String(text.to_owned())),
    }
}
