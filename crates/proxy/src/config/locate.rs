//! From a path in a document to the bytes it was read from.
//!
//! Promise: every path has a place; one that does not exist has that of its nearest existing parent.

use std::ops::Range;

use super::source::Source;
use super::tree::{Node, Origin, Value};
use crate::problem::{At, Problem, Step};

/// The bytes that a problem is about.
pub(crate) fn span(source: &Source, tree: &Node, problem: &Problem) -> Range<usize> {
    let (node, complete) = nearest(tree, &problem.at);
    match &problem.part {
        Some(part) if complete => part_span(source, node, part),
        _ => node.span.clone(),
    }
}

/// The value at a path or its nearest existing parent, and whether it is the value itself.
pub(crate) fn nearest<'a>(tree: &'a Node, at: &At) -> (&'a Node, bool) {
    let mut node = tree;
    for step in at.steps() {
        let next = match (step, &node.value) {
            (Step::Key(key), _) => node.get(key),
            (Step::Index(index), Value::Array(items)) => items.get(*index),
            (Step::Index(_), _) => None,
        };
        match next {
            Some(next) => node = next,
            None => return (node, false),
        }
    }
    (node, true)
}

/// The bytes of a part of a text; the whole value when they cannot be known, as after an escape.
fn part_span(source: &Source, node: &Node, part: &Range<usize>) -> Range<usize> {
    /// Quotes, a line break after them, or a block scalar's mark: what may stand around a text.
    const MOST_AROUND: usize = 8;
    let written = source.slice(&node.span);
    let Value::String(text) = &node.value else { return node.span.clone() };
    let exact = node.origin == Origin::Written && written.len() <= text.len() + MOST_AROUND;
    match written.find(text.as_str()).filter(|_| exact && !text.is_empty()) {
        Some(offset) if part.start <= part.end && part.end <= text.len() => {
            let start = node.span.start + offset;
            source.boundary(start + part.start)..source.boundary(start + part.end)
        }
        _ => node.span.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::source::Format;
    use crate::config::tree;

    fn place(source: &Source, at: &At, part: Option<Range<usize>>) -> String {
        let (tree, _) = tree::read(source);
        let tree = tree.expect("a tree");
        let problem = Problem { part, ..Problem::new(at.clone(), "") };
        source.slice(&span(source, &tree, &problem)).to_owned()
    }

    #[test]
    fn a_path_leads_to_its_value_or_the_nearest_parent() {
        let source = Source::new("x", "[a.b]\nc = [1, {d = 'é'}]\n", Format::Toml);
        let b = At::root().key("a").key("b");
        let d = b.key("c").index(1).key("d");
        assert_eq!(place(&source, &d, None), "'é'");
        assert_eq!(place(&source, &d.key("more"), None), "'é'");
        assert_eq!(place(&source, &b.key("c").index(9), None), "[1, {d = 'é'}]");
        assert_eq!(place(&source, &b, None), "[a.b]");
        assert_eq!(place(&source, &At::root().key("a"), None), "a");
        assert_eq!(place(&source, &At::root().key("no"), None), "");
    }

    #[test]
    fn a_part_of_a_text_is_found_when_nothing_is_escaped() {
        for (format, text) in [
            (Format::Toml, "w = \"a == é!\""),
            (Format::Toml, "w = '''\na == é!'''"),
            (Format::Yaml, "w: a == é!"),
            (Format::Yaml, "w: |-\n  a == é!"),
            (Format::Json, "{\"w\": \"a == é!\"}"),
        ] {
            let source = Source::new("x", text, format);
            assert_eq!(place(&source, &At::root().key("w"), Some(5..7)), "é", "{text}");
        }
    }

    #[test]
    fn a_part_of_an_escaped_text_is_the_whole_value() {
        let source = Source::new("x", r#"w = "a\t== b""#, Format::Toml);
        assert_eq!(place(&source, &At::root().key("w"), Some(2..4)), r#""a\t== b""#);
    }

    #[test]
    fn a_part_outside_of_the_text_is_the_whole_value() {
        let source = Source::new("x", "w = 'ab'", Format::Toml);
        #[expect(clippy::reversed_empty_ranges, reason = "a wrong part must do no harm")]
        for part in [1..9, 2..1] {
            assert_eq!(place(&source, &At::root().key("w"), Some(part)), "'ab'");
        }
    }
}
