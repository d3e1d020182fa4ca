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

/// The least length of a piece of a large text. Small enough that what the parser makes of it stays in the
/// processor's cache, large enough that pieces are few.
const PIECE: usize = 128 * 1024;

/// Reads TOML text.
pub(crate) fn read(source: &Source) -> (Option<Node>, Vec<Finding>) {
    match in_pieces(source, PIECE) {
        Some(root) => (Some(root), Vec::new()),
        None => whole(source),
    }
}

/// Reads a large text piece by piece: the parser holds some thirty times a text's length in memory, and getting
/// that memory takes longer than the reading. `None` when there is nothing to gain, or when the pieces do not
/// obviously mean what the whole does; so also for every text with a problem.
///
/// A text is cut before lines `[[name]]` of one name. A cut inside of a text or list of several lines leaves
/// what is before it without an end, which is a problem there. So after pieces without problems all cuts are
/// between tables, and a key that stands in one piece only means what it means in the whole.
fn in_pieces(source: &Source, least: usize) -> Option<Node> {
    let (name, cuts) = cuts(&source.text, least)?;
    let mut root: Vec<(Key, Node)> = Vec::new();
    let ends = cuts.iter().copied().chain([source.text.len()]);
    let starts = std::iter::once(0).chain(cuts.iter().copied());
    for (index, (start, end)) in starts.zip(ends).enumerate() {
        let (table, errors) = DeTable::parse_recoverable(&source.text[start..end]);
        let mut reader = Reader { source, start, findings: Vec::new() };
        let piece = reader.table(table.get_ref(), 0..0, 0);
        let Value::Table(entries) = piece.value else { return None };
        if !errors.is_empty() || !reader.findings.is_empty() {
            return None;
        }
        for (key, node) in entries {
            let known = root.iter_mut().find(|(known, _)| known.text == key.text);
            match (known.map(|(_, known)| &mut known.value), node.value) {
                // What stands before the first cut is a list of another kind.
                (None, _) if index == 0 && key.text == name => return None,
                (None, value) => root.push((key, Node { value, ..node })),
                (Some(Value::Array(all)), Value::Array(more)) if key.text == name => all.extend(more),
                (Some(_), _) => return None,
            }
        }
    }
    Some(Node::new(Value::Table(root), 0..0))
}

/// A name, and where its `[[name]]` begins lines, at least so many bytes apart; the first one always.
fn cuts(text: &str, least: usize) -> Option<(&str, Vec<usize>)> {
    if text.len() < 2 * least {
        return None;
    }
    let lines = || std::iter::once(0).chain(memchr::memchr_iter(b'\n', text.as_bytes()).map(|at| at + 1));
    let name = lines().find_map(|at| {
        let (name, _) = text[at..].strip_prefix("[[")?.split_once("]]")?;
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
        (!name.is_empty() && name.bytes().all(plain)).then_some(name)
    })?;
    let header = format!("[[{name}]]");
    let mut cuts: Vec<usize> = Vec::new();
    for at in lines().filter(|&at| text[at..].starts_with(&header)) {
        if cuts.last().is_none_or(|last| at - last >= least) {
            cuts.push(at);
        }
    }
    Some((name, cuts))
}

fn whole(source: &Source) -> (Option<Node>, Vec<Finding>) {
    let (table, errors) = DeTable::parse_recoverable(&source.text);
    let mut reader = Reader { source, start: 0, findings: Vec::new() };
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
    /// Where what is read begins in the source.
    start: usize,
    findings: Vec<Finding>,
}

impl Reader<'_> {
    fn place(&self, span: Range<usize>) -> Range<usize> {
        self.start + span.start..self.start + span.end
    }

    fn table(&mut self, table: &DeTable<'_>, span: Range<usize>, depth: usize) -> Node {
        let entries = table.iter().map(|(key, value)| {
            let node = self.value(value.get_ref(), self.place(value.span()), depth + 1);
            (Key { text: key.get_ref().to_string(), span: self.place(key.span()) }, node)
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
                (items.iter())
                    .map(|item| self.value(item.get_ref(), self.place(item.span()), depth + 1))
                    .collect(),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::source::Format;

    fn source(text: &str) -> Source {
        Source::new("x", text, Format::Toml)
    }

    #[test]
    fn pieces_read_as_the_whole_does() {
        for text in [
            "a = 1\n[l.x]\nb = 'é'\n[[r]]\nn = 1\n[r.m]\nk = [1,\n2]\n[[r]]\nn = 2 # x\n[[r.s]]\nt = 3\n[[r.s]]\n[[r]]\n[u.a]\n[u.b]\n",
            "[[r]]\r\nn = 1\r\n[[r]]\r\nn = {a = \"b\"}\r\n[[ r ]]\r\nn = 3\r\n",
            "[[a.b]]\nn = 1\n[[r]]\n[[r]] # last\n[[\"r\"]]\n",
            "[[r]]\n[x]\nn = 1\n[[r]]\n[y]\nn = 2\n[[s]]\n[[s]]\n",
        ] {
            let source = source(text);
            let (expected, findings) = whole(&source);
            assert!(findings.is_empty(), "{text}: {findings:?}");
            assert_eq!(in_pieces(&source, 1), expected, "{text}");
        }
    }

    #[test]
    fn what_pieces_could_get_wrong_is_read_whole() {
        for text in [
            "n = 1",
            "r = []\n[[r]]\nn = 1\n",
            "[r]\n[[r]]\nn = 1\n",
            "[[r]]\nn = 1\nn = 2\n[[r]]\n",
            "[[r]]\nt = \"\"\"\n[[r]]\n\"\"\"\n[[r]]\n",
            "[[r]]\nt = [\n[[r]]\n]\n",
            "[[e1]]\nt = [\n[[e1]]\n]\n",
            "[x.a]\n[[r]]\n[x.b]\n[[r]]\n",
            "[x.a]\n[[r]]\n[x.a]\n[[r]]\n",
            "[[r]]\n[x]\n[[r]]\n[x]\n",
            "[[r]]\n[x]\nr = [1]\n[[r]]\n[[x]]\n",
        ] {
            assert_eq!(in_pieces(&source(text), 1), None, "{text}");
        }
    }
}
