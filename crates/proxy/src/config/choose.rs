//! Which of several shapes a value means: enums of every tagging, options, untagged alternatives.
//!
//! Promise: the problems given are about the alternative that the writer meant, never "nothing matched".

use super::shape::{Kinds, Shape, ShapeId};
use super::suggest;
use super::tree::{Key, Node, Value};
use super::validate::{Walk, adapt};

/// How many choices by trial may stand in one another; deeper ones take the first that could be. Each trial
/// walks what is below it once for every alternative.
const MAX_TRIALS: usize = 4;

impl Walk<'_> {
    /// Checks a value against the alternatives of a shape.
    pub(super) fn choose(&mut self, id: ShapeId, node: &mut Node) {
        let shape = self.shapes.get(id);
        let options: Vec<ShapeId> =
            shape.alternatives.iter().flat_map(|one| self.shapes.options(*one)).collect();
        let kinds = options.iter().fold(Kinds::NONE, |kinds, option| kinds.or(self.shape(*option).kinds));
        adapt(node, kinds);
        let kind = Kinds::of(node);
        let fitting: Vec<ShapeId> =
            options.iter().copied().filter(|option| self.shape(*option).kinds.has(kind)).collect();
        match (fitting.as_slice(), &node.value) {
            ([], _) => self.wrong_kind(kinds, &options, node),
            ([one], _) if self.shape(*one).constants.is_empty() && self.shape(*one).tag().is_none() => {
                self.check(*one, node);
            }
            (_, Value::String(_)) => self.choose_text(&options, &fitting, node),
            (_, Value::Table(_)) => self.choose_table(&options, &fitting, node),
            _ => self.trial(&fitting, node),
        }
    }

    fn shape(&self, id: ShapeId) -> &Shape {
        self.shapes.get(id)
    }

    fn choose_text(&mut self, options: &[ShapeId], fitting: &[ShapeId], node: &mut Node) {
        let Value::String(text) = &node.value else { return };
        let (named, free): (Vec<ShapeId>, Vec<ShapeId>) =
            fitting.iter().partition(|id| !self.shape(**id).constants.is_empty());
        let constants = named.iter().flat_map(|id| &self.shape(*id).constants);
        if constants.into_iter().any(|constant| constant.as_str() == Some(text)) {
            return;
        }
        let is_tag = options.iter().any(|id| self.shape(*id).tag().is_some_and(|(tag, _)| tag == text));
        if !free.is_empty() {
            self.trial(&free, node);
        } else if is_tag && !node.is_secret() {
            let hint = format!("write a table with the key `{text}`");
            self.add(&node.span.clone(), format!("`{text}` needs settings"), Some(hint));
        } else {
            self.unknown_value(options, node);
        }
    }

    fn choose_table(&mut self, options: &[ShapeId], fitting: &[ShapeId], node: &mut Node) {
        let (tagged, plain): (Vec<ShapeId>, Vec<ShapeId>) =
            fitting.iter().partition(|id| self.shape(**id).tag().is_some());
        let Value::Table(entries) = &node.value else { return };
        let names_tag = entries.iter().any(|(key, _)| self.tag(&tagged, key).is_some());
        if !tagged.is_empty() && (plain.is_empty() || names_tag) {
            self.tagged(options, &tagged, node);
        } else {
            match self.inside_tag(&plain, node) {
                Named::One(one) => self.check(one, node),
                Named::Wrong => {}
                Named::Nothing => self.trial(&plain, node),
            }
        }
    }

    /// The shape under a key that names one of the alternatives.
    fn tag(&self, tagged: &[ShapeId], key: &Key) -> Option<ShapeId> {
        let tags = tagged.iter().filter_map(|id| self.shape(*id).tag());
        tags.into_iter().find(|(tag, _)| *tag == key.text).map(|(_, shape)| shape)
    }

    /// `{ cors = ... }`: exactly one key, which names the alternative.
    fn tagged(&mut self, options: &[ShapeId], tagged: &[ShapeId], node: &mut Node) {
        let shapes = self.shapes;
        let names: Vec<&str> =
            tagged.iter().filter_map(|id| shapes.get(*id).tag()).map(|(name, _)| name).collect();
        let span = node.span.clone();
        let constants = options.iter().flat_map(|id| &shapes.get(*id).constants);
        let bare: Vec<&str> = constants.filter_map(serde_json::Value::as_str).collect();
        let all: Vec<&str> = names.iter().chain(&bare).copied().collect();
        let Value::Table(entries) = &mut node.value else { return };
        if entries.is_empty() {
            match names.as_slice() {
                [one] => self.add(&span, format!("missing key `{one}`"), None),
                _ => {
                    let hint = format!("allowed here: {}", suggest::list(names.iter().copied()));
                    self.add(&span, "exactly one key is needed here", Some(hint));
                }
            }
            return;
        }
        if let [(first, _), (second, _), ..] = entries.as_slice()
            && names.len() > 1
        {
            let keys = suggest::list(entries.iter().map(|(key, _)| key.text.as_str()));
            let message = format!("exactly one key is allowed here, found {keys}");
            let hint = format!("give `{}` and `{}` a table each", first.text, second.text);
            let second = second.span.clone();
            self.add(&second, message, Some(hint));
        }
        for (key, item) in entries {
            match self.tag(tagged, key) {
                Some(id) => self.under(key, id, item),
                None if bare.contains(&key.text.as_str()) => {
                    let hint = format!("write \"{}\" in the place of the table", key.text);
                    self.add(&key.span, format!("`{}` takes no settings", key.text), Some(hint));
                }
                None => {
                    self.unknown_key(key, &all, &names);
                }
            }
        }
    }

    /// The alternative that a key inside names: `{ kind = "cors", ... }`.
    fn inside_tag(&mut self, plain: &[ShapeId], node: &Node) -> Named {
        let shapes = self.shapes;
        let [first, _, ..] = plain else { return Named::Nothing };
        let constants = |id: ShapeId, name: &str| {
            let property = shapes.get(id).properties.get(name)?;
            let required = shapes.get(id).required.iter().any(|required| required == name);
            let constants = shapes.get(*property).constants.as_slice();
            (required && !constants.is_empty()).then_some(constants)
        };
        let tells = |name: &&String| plain.iter().all(|id| constants(*id, name).is_some());
        let Some(name) = shapes.get(*first).names.iter().find(tells) else { return Named::Nothing };
        let Some(value) = node.get(name) else {
            self.add(&node.span, format!("missing key `{name}`"), None);
            return Named::Wrong;
        };
        let json = value.to_json();
        let named = plain.iter().find(|id| constants(**id, name).is_some_and(|all| all.contains(&json)));
        if named.is_none() {
            let properties: Vec<ShapeId> =
                plain.iter().filter_map(|id| shapes.get(*id).properties.get(name).copied()).collect();
            self.path.push(crate::problem::Step::Key(name.clone()));
            self.unknown_value(&properties, value);
            self.path.pop();
        }
        named.map_or(Named::Wrong, |one| Named::One(*one))
    }

    /// The alternative with the fewest problems.
    fn trial(&mut self, options: &[ShapeId], node: &mut Node) {
        if let ([one], _) | ([one, ..], MAX_TRIALS..) = (options, self.trials) {
            self.check(*one, node);
            return;
        }
        let mut best = None;
        for option in options {
            let mut tried = node.clone();
            let mut walk = Walk {
                shapes: self.shapes,
                path: self.path.clone(),
                findings: Vec::new(),
                trials: self.trials + 1,
            };
            walk.check(*option, &mut tried);
            let better = |(_, findings): &(Node, Vec<_>)| walk.findings.len() < findings.len();
            if best.as_ref().is_none_or(better) {
                best = Some((tried, walk.findings));
            }
        }
        if let Some((tried, findings)) = best {
            *node = tried;
            self.findings.extend(findings);
        }
    }
}

/// What a key inside a table says about the alternative that is meant.
enum Named {
    /// This one.
    One(ShapeId),
    /// One that there is not; there is a problem about that already.
    Wrong,
    /// Nothing: no key tells the alternatives apart.
    Nothing,
}
