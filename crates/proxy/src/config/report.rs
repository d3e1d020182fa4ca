//! The problems of a document, each with its place in the source.
//!
//! Promise: sorted by place; a text that came from a file (`${file:...}`) never shows in one.

use std::ops::Range;

use serde_json::json;

use super::locate;
use super::render::{self, Style};
use super::source::{Lines, Source};
use super::tree::{Node, Value};
use crate::problem::{At, Problem, Problems};

/// One problem and the bytes it is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What is wrong.
    pub problem: Problem,
    /// The bytes in the source it is about; empty when something is missing there.
    pub span: Range<usize>,
}

impl Finding {
    pub(crate) fn new(at: At, span: Range<usize>, message: impl Into<String>) -> Finding {
        Finding { problem: Problem::new(at, message), span }
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Finding {
        self.problem.hint = Some(hint.into());
        self
    }
}

/// Every problem of a document, with what is needed to show them.
#[derive(Clone, Debug)]
pub struct Report {
    source: Source,
    findings: Vec<Finding>,
}

impl Report {
    pub(crate) fn new(source: Source, mut findings: Vec<Finding>) -> Report {
        findings.sort_by_key(|finding| (finding.span.start, finding.span.end));
        findings.dedup();
        Report { source, findings }
    }

    /// Gives problems found in the parsed document (by path) their places in the source.
    pub(crate) fn locate(source: &Source, tree: &Node, problems: &Problems) -> Report {
        let hidden = Hidden::of(tree);
        let findings = problems.iter().map(|problem| {
            let span = locate::span(source, tree, problem);
            let mut problem = problem.clone();
            hidden.cover(tree, source, &mut problem);
            Finding { problem, span }
        });
        Report::new(source.clone(), findings.collect())
    }

    /// How many problems there are.
    pub fn len(&self) -> usize {
        self.findings.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.findings.is_empty()
    }

    /// The problems in the order of their places.
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// The source the problems are in.
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// The problems as people read them: place, message, source line, caret, hint.
    pub fn render(&self, style: Style) -> String {
        render::report(&self.source, &self.findings, style)
    }

    /// The problems as programs read them: a list of `{file, line, column, path, message, hint}`, the hint
    /// `null` when there is none.
    pub fn to_json(&self) -> serde_json::Value {
        let lines = Lines::of(&self.source);
        let entry = |finding: &Finding| {
            let position = lines.position(finding.span.start);
            json!({
                "file": self.source.name,
                "line": position.line,
                "column": position.column,
                "path": finding.problem.at.to_string(),
                "message": finding.problem.message,
                "hint": finding.problem.hint,
            })
        };
        self.findings.iter().map(entry).collect()
    }
}

/// The texts of a document that may not be shown.
pub(crate) struct Hidden(Vec<String>);

/// A shorter text is not looked for in sentences: it would be found everywhere and says nothing.
const SHORTEST_HIDDEN: usize = 4;

impl Hidden {
    pub(crate) fn of(tree: &Node) -> Hidden {
        fn collect(node: &Node, texts: &mut Vec<String>) {
            match &node.value {
                Value::String(text) if node.is_secret() && text.len() >= SHORTEST_HIDDEN => {
                    texts.push(text.clone());
                    // Messages quote with {:?} now and then.
                    texts.push(text.escape_debug().to_string());
                }
                Value::Array(items) => items.iter().for_each(|item| collect(item, texts)),
                Value::Table(entries) => entries.iter().for_each(|(_, item)| collect(item, texts)),
                _ => {}
            }
        }
        let mut texts = Vec::new();
        collect(tree, &mut texts);
        // The longest first: one text may contain another.
        texts.sort_by_key(|text| std::cmp::Reverse(text.len()));
        Hidden(texts)
    }

    /// Takes hidden texts out of a problem. At a hidden value nothing of the message is kept: it may quote a
    /// part of the text.
    pub(crate) fn cover(&self, tree: &Node, source: &Source, problem: &mut Problem) {
        let (node, _) = locate::nearest(tree, &problem.at);
        if node.is_secret() {
            let written = source.slice(&node.span);
            problem.message = format!("the value of {written} is not accepted here");
            problem.hint = Some("its text is not shown because it comes from a file".to_owned());
            problem.part = None;
            return;
        }
        for text in &self.0 {
            if problem.message.contains(text) {
                problem.message = problem.message.replace(text, "${file:...}");
            }
            if let Some(hint) = problem.hint.as_mut().filter(|hint| hint.contains(text)) {
                *hint = hint.replace(text, "${file:...}");
            }
        }
    }
}
