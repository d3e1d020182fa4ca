//! A tree against the document's schema: every key and value that does not fit, in one pass.
//!
//! Promise: knows no setting by name, so a new filter or balancer needs nothing here. A problem shows the text
//! of a value only when that text may be shown.

use std::ops::Range;

use super::report::Finding;
use super::shape::{Additional, Kinds, Shape, ShapeId, Shapes};
use super::suggest;
use super::tree::{Key, Node, Origin, Value};
use crate::closest::closest;
use crate::problem::{At, Step};
use crate::value;

/// Checks a tree; texts that came wholly from a `${...}` take the type that their place wants.
pub(crate) fn validate(tree: &mut Node, shapes: &Shapes) -> Vec<Finding> {
    let mut walk = Walk { shapes, path: Vec::new(), findings: Vec::new(), trials: 0 };
    walk.check(shapes.root(), tree);
    walk.findings
}

pub(super) struct Walk<'a> {
    pub(super) shapes: &'a Shapes,
    pub(super) path: Vec<Step>,
    pub(super) findings: Vec<Finding>,
    /// How many trials (see `choose`) this walk stands in.
    pub(super) trials: usize,
}

impl Walk<'_> {
    /// Checks the value at the current path.
    pub(super) fn check(&mut self, id: ShapeId, node: &mut Node) {
        if node.origin == Origin::Failed {
            return;
        }
        let shape = self.shapes.get(id);
        for more in &shape.all {
            self.check(*more, node);
        }
        if !shape.alternatives.is_empty() {
            self.choose(id, node);
            if shape.properties.is_empty() {
                return;
            }
        }
        adapt(node, shape.kinds);
        if !shape.kinds.has(Kinds::of(node)) {
            self.wrong_kind(shape.kinds, &[id], node);
            return;
        }
        if !shape.constants.is_empty() && !shape.constants.iter().any(|constant| equals(constant, node)) {
            self.unknown_value(&[id], node);
            return;
        }
        match &node.value {
            Value::String(text) => self.text(shape, text, node),
            Value::Integer(number) => self.number(shape, *number as f64, node),
            Value::Float(number) => self.number(shape, *number, node),
            Value::Array(_) => self.list(shape, node),
            Value::Table(_) => self.table(shape, node),
            Value::Null | Value::Bool(_) => {}
        }
    }

    pub(super) fn at(&self) -> At {
        self.path.iter().fold(At::root(), |at, step| match step {
            Step::Key(key) => at.key(key),
            Step::Index(index) => at.index(*index),
        })
    }

    pub(super) fn add(&mut self, span: &Range<usize>, message: impl Into<String>, hint: Option<String>) {
        let mut finding = Finding::new(self.at(), span.clone(), message);
        finding.problem.hint = hint;
        self.findings.push(finding);
    }

    /// Checks the value under `key`.
    pub(super) fn under(&mut self, key: &Key, id: ShapeId, node: &mut Node) {
        self.path.push(Step::Key(key.text.clone()));
        self.check(id, node);
        self.path.pop();
    }

    fn text(&mut self, shape: &Shape, text: &str, node: &Node) {
        let shown = shown(node, text);
        let example = || shape.example.as_ref().map(|example| format!("for example {example}"));
        if let Some(format) = &shape.format
            && let Err(problem) = value::check_format(format, text)
        {
            if node.is_secret() {
                self.add(&node.span, format!("{shown} is not a {}", format.replace('-', " ")), example());
                return;
            }
            // The sentence of the value's own parser: what is wrong; and what to write instead.
            match problem.split_once("; ") {
                Some((message, hint)) => self.add(&node.span, message, Some(hint.to_owned())),
                None => self.add(&node.span, problem, example()),
            }
        } else if shape.pattern.as_ref().is_some_and(|pattern| !pattern.is_match(text)) {
            let pattern = shape.pattern.as_ref().map_or("", regex::Regex::as_str);
            self.add(&node.span, format!("{shown} does not have the form `{pattern}`"), example());
        } else if shape.shortest > 0 || shape.longest.is_some() {
            let length = text.chars().count() as u64;
            if length < shape.shortest {
                let message = match shape.shortest {
                    1 => "this text is empty".to_owned(),
                    shortest => format!("this text is too short: at least {shortest} characters"),
                };
                self.add(&node.span, message, example());
            } else if let Some(longest) = shape.longest.filter(|longest| length > *longest) {
                self.add(
                    &node.span,
                    format!("this text is too long: at most {longest} characters"),
                    example(),
                );
            }
        }
    }

    fn number(&mut self, shape: &Shape, number: f64, node: &Node) {
        let shown = shown(node, &number.to_string());
        if let Some(least) = shape.least.filter(|least| number < *least) {
            self.add(&node.span, format!("{shown} is too small: at least {least}"), None);
        } else if let Some(most) = shape.most.filter(|most| number > *most) {
            self.add(&node.span, format!("{shown} is too large: at most {most}"), None);
        }
    }

    fn list(&mut self, shape: &Shape, node: &mut Node) {
        let Value::Array(items) = &mut node.value else { return };
        let length = items.len() as u64;
        if length < shape.fewest_items {
            let message = match (length, shape.fewest_items) {
                (0, 1) => "this list is empty".to_owned(),
                (_, fewest) => format!("this list is too short: at least {fewest} entries"),
            };
            self.add(&node.span, message, None);
        } else if let Some(most) = shape.most_items.filter(|most| length > *most) {
            self.add(&node.span, format!("this list is too long: at most {most} entries"), None);
        }
        let Some(id) = shape.items else { return };
        for (index, item) in items.iter_mut().enumerate() {
            self.path.push(Step::Index(index));
            self.check(id, item);
            self.path.pop();
        }
    }

    fn table(&mut self, shape: &Shape, node: &mut Node) {
        let Value::Table(entries) = &mut node.value else { return };
        let absent = |entries: &[(Key, Node)], name: &str| !entries.iter().any(|(key, _)| key.text == name);
        let names: Vec<&str> = shape.names.iter().map(String::as_str).collect();
        let unused: Vec<&str> = names.iter().copied().filter(|name| absent(entries, name)).collect();
        let required = shape.required.iter().map(String::as_str);
        let mut missing: Vec<&str> = required.filter(|name| absent(entries, name)).collect();

        for (key, item) in entries {
            let id = match (shape.properties.get(&key.text), shape.additional) {
                (Some(id), _) => *id,
                (None, Additional::Shaped(id)) => id,
                (None, Additional::Any) => continue,
                (None, Additional::Forbidden) => {
                    let meant = self.unknown_key(key, &unused, &names);
                    // One slip of the pen is one problem: the key is there, misspelt.
                    missing.retain(|name| Some(*name) != meant);
                    continue;
                }
            };
            self.under(key, id, item);
        }
        for name in missing {
            self.add(&node.span, format!("missing key `{name}`"), None);
        }
    }

    /// Notes a key that nothing knows; gives the one that was probably meant.
    pub(super) fn unknown_key<'n>(
        &mut self,
        key: &Key,
        near: &[&'n str],
        all: &[&'n str],
    ) -> Option<&'n str> {
        let meant = closest(&key.text, near.iter().copied());
        let hint = match meant {
            Some(meant) => format!("did you mean `{meant}`?"),
            None if all.is_empty() => "no keys are allowed here".to_owned(),
            None => format!("allowed here: {}", suggest::list(all.iter().copied())),
        };
        self.path.push(Step::Key(key.text.clone()));
        self.add(&key.span, format!("unknown key `{}`", key.text), Some(hint));
        self.path.pop();
        meant
    }

    /// Notes a value that is none of the constants of `options`, nor names one of their tables.
    pub(super) fn unknown_value(&mut self, options: &[ShapeId], node: &Node) {
        let text = |constant: &serde_json::Value| {
            constant.as_str().map_or_else(|| constant.to_string(), str::to_owned)
        };
        let shapes = options.iter().map(|id| self.shapes.get(*id));
        let constants = shapes.clone().flat_map(|shape| &shape.constants).map(text);
        let tags = shapes.filter_map(Shape::tag).map(|(tag, _)| tag.to_owned());
        let allowed: Vec<String> = constants.chain(tags).collect();
        let allowed: Vec<&str> = allowed.iter().map(String::as_str).collect();
        let (message, meant) = match &node.value {
            // ES512 is no slip of the pen for HS512: all that there are is said.
            Value::String(text) if !node.is_secret() => {
                let is_term = text.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit());
                let meant = if is_term { None } else { closest(text, allowed.iter().copied()) };
                (format!("unknown value `{text}`"), meant)
            }
            _ => ("this value is not one of those allowed".to_owned(), None),
        };
        let hint = match meant {
            Some(meant) => format!("did you mean `{meant}`?"),
            None => format!("allowed here: {}", suggest::list(allowed)),
        };
        self.add(&node.span, message, Some(hint));
    }

    /// Notes a value of a kind that none of `options` takes.
    pub(super) fn wrong_kind(&mut self, kinds: Kinds, options: &[ShapeId], node: &Node) {
        let expected = kinds.words();
        if let (Origin::Whole(_), Value::String(text)) = (node.origin, &node.value) {
            let text =
                if node.is_secret() { shown(node, text) } else { format!("the text {}", shown(node, text)) };
            self.add(&node.span, format!("expected {expected}, found {text}"), None);
            return;
        }
        let found = match Kinds::of(node) {
            Kinds::NULL => "nothing (null)".to_owned(),
            Kinds::BOOL => "a boolean".to_owned(),
            kind => kind.words(),
        };
        let hint = self.kind_hint(kinds, options, node);
        self.add(&node.span, format!("expected {expected}, found {found}"), hint);
    }

    fn kind_hint(&self, kinds: Kinds, options: &[ShapeId], node: &Node) -> Option<String> {
        // A hint may quote the text only when it may be shown.
        let open = !node.is_secret();
        if let Value::String(text) = &node.value
            && open
        {
            let number = kinds.has(Kinds::NUMBER) && text.parse::<f64>().is_ok_and(f64::is_finite);
            let boolean = kinds.has(Kinds::BOOL) && matches!(text.as_str(), "true" | "false");
            if number || boolean {
                return Some(format!("write {text} without quotes"));
            }
            if kinds.has(Kinds::BOOL) && matches!(text.as_str(), "yes" | "on" | "no" | "off") {
                return Some("write true or false".to_owned());
            }
        }
        let items = options.iter().filter_map(|id| self.shapes.get(*id).items);
        if items.into_iter().any(|items| self.shapes.kinds(items).has(Kinds::of(node))) {
            return Some("write it as a list: `[...]`".to_owned());
        }
        if let Value::String(text) = &node.value
            && open
            && options.iter().any(|id| self.shapes.get(*id).tag().is_some_and(|(tag, _)| tag == text))
        {
            return Some(format!("`{text}` is a key here: write a table with it"));
        }
        let constants = options.iter().flat_map(|id| &self.shapes.get(*id).constants);
        let constants: Vec<&str> = constants.filter_map(serde_json::Value::as_str).collect();
        if !constants.is_empty() {
            return Some(format!("allowed here: {}", suggest::list(constants)));
        }
        let mut examples = options.iter().filter_map(|id| self.shapes.get(*id).example.as_ref());
        examples.next().map(|example| format!("for example {example}"))
    }
}

/// Gives a text that came wholly from one `${...}` the type that its place wants.
pub(super) fn adapt(node: &mut Node, kinds: Kinds) {
    let (Origin::Whole(_), Value::String(text)) = (node.origin, &node.value) else { return };
    if kinds.has(Kinds::STRING) {
        return;
    }
    let text = text.trim();
    let boolean = || text.parse().ok().filter(|_| kinds.has(Kinds::BOOL)).map(Value::Bool);
    let integer = || text.parse().ok().filter(|_| kinds.has(Kinds::INTEGER)).map(Value::Integer);
    let float = || {
        let number = text.parse::<f64>().ok()?;
        (kinds.has(Kinds::FLOAT) && number.is_finite()).then_some(Value::Float(number))
    };
    if let Some(value) = boolean().or_else(integer).or_else(float) {
        node.value = value;
    }
}

/// A value's text as a problem may show it.
fn shown(node: &Node, text: &str) -> String {
    if node.is_secret() { "the file's text".to_owned() } else { format!("`{text}`") }
}

fn equals(constant: &serde_json::Value, node: &Node) -> bool {
    match (constant, &node.value) {
        (serde_json::Value::String(constant), Value::String(text)) => constant == text,
        (constant, _) => *constant == node.to_json(),
    }
}
