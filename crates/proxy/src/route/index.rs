//! The routes of one host, by the form of their path.
//!
//! Promise: whatever is shown to a visitor matches host and path; what is left for it to look at are the
//! conditions.

use std::cmp::Reverse;

use super::hash::ConfigMap;
use super::location::Prefixes;
use super::order::{Candidate, Route};
use super::path::Form;
use super::trie::{NodeId, Trie};

/// What looks at candidates. Leaves are sorted by rank.
pub(super) trait Visit {
    /// Only candidates with a rank below it are of interest.
    fn limit(&self) -> u32;
    /// Candidates that match host and path.
    fn leaf(&mut self, leaf: &[Candidate]);
    /// The candidates of every location prefix of the path, the longest first; within a leaf they are
    /// sorted by priority and conditions.
    fn locations<'l>(&mut self, leaves: impl Iterator<Item = &'l [Candidate]>);
}

/// The routes of one host.
#[derive(Debug)]
pub(super) struct Index {
    best: u32,
    literals: ConfigMap<Box<str>, Vec<Candidate>>,
    root: Option<NodeId>,
    templates: Vec<Candidate>,
    prefixes: Prefixes,
    regexes: Vec<Candidate>,
    any: Vec<Candidate>,
}

impl Index {
    /// Without routes.
    pub(super) fn new() -> Index {
        Index {
            best: u32::MAX,
            literals: ConfigMap::default(),
            root: None,
            templates: Vec::new(),
            prefixes: Prefixes::default(),
            regexes: Vec::new(),
            any: Vec::new(),
        }
    }

    /// Adds a route. Candidates must come in the order of their ranks.
    pub(super) fn add(&mut self, trie: &mut Trie, route: &Route, candidate: Candidate) {
        self.best = self.best.min(candidate.rank);
        match &route.path.form {
            Form::Any => self.any.push(candidate),
            Form::Literal(text) => self.literals.entry(text.clone()).or_default().push(candidate),
            Form::Template(template) => {
                let root = *self.root.get_or_insert_with(|| trie.root());
                self.templates.push(candidate);
                trie.add(root, template, candidate);
            }
            Form::Regex(_) | Form::LocationRegex(_) => self.regexes.push(candidate),
            Form::LocationPrefix(text, _) => self.prefixes.add(text, candidate),
        }
    }

    /// After the last route: what has to be sorted.
    pub(super) fn finish(&mut self, routes: &[Option<Route>]) {
        self.prefixes.finish(|candidate| {
            let route = routes[candidate.route as usize].as_ref();
            route.map(|route| (Reverse(route.priority), Reverse(route.conditions()), candidate.route))
        });
    }

    /// Shows every candidate that matches the path and may be of interest.
    pub(super) fn walk(&self, trie: &Trie, routes: &[Option<Route>], path: &str, visit: &mut impl Visit) {
        if self.best >= visit.limit() {
            return;
        }
        if !self.literals.is_empty()
            && let Some(leaf) = self.literals.get(path)
        {
            visit.leaf(leaf);
        }
        if let Some(root) = self.root {
            trie.walk(root, path, visit);
        }
        visit.locations(self.prefixes.of(path));
        for candidate in &self.regexes {
            if candidate.rank >= visit.limit() {
                break;
            }
            if routes[candidate.route as usize].as_ref().is_some_and(|route| route.path.matches(path)) {
                visit.leaf(std::slice::from_ref(candidate));
            }
        }
        visit.leaf(&self.any);
    }

    /// Groups of candidates whose paths are the same; not those of templates and regexes.
    pub(super) fn same_paths(&self) -> impl Iterator<Item = &[Candidate]> {
        let literals = self.literals.values().map(Vec::as_slice);
        literals.chain(self.prefixes.leaves()).chain([&self.any[..]])
    }

    /// The candidates of regexes.
    pub(super) fn regexes(&self) -> &[Candidate] {
        &self.regexes
    }

    /// Its root in the trie.
    pub(super) fn root(&self) -> Option<NodeId> {
        self.root
    }

    /// The candidates of templates and prefixes.
    pub(super) fn templates(&self) -> &[Candidate] {
        &self.templates
    }
}
