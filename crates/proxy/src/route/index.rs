//! The routes by host, and those of one host by the form of their path.
//!
//! Promise: whatever is shown to a visitor matches host and path; what is left for it to look at are the
//! conditions.

use std::cmp::Reverse;

use super::hash::ConfigMap;
use super::host::{self, Host, Spelling};
use super::location::Prefixes;
use super::order::{Candidate, Leaf, Route};
use super::path::Form;
use super::trie::{NodeId, Trie};
use crate::facts::Facts;

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

/// The routes by host.
#[derive(Debug, Default)]
pub(super) struct Hosts {
    pub(super) trie: Trie,
    exact: ConfigMap<Box<str>, Index>,
    below: ConfigMap<Box<str>, Index>,
    /// The labels of the longest key of `below`: nobody can make us look at more labels of a Host.
    most_labels: usize,
    any: Index,
}

impl Hosts {
    /// Adds a route under one of its hosts. Candidates must come in the order of their ranks.
    pub(super) fn add(&mut self, host: &Host, route: &Route, candidate: Candidate) {
        let index = match host {
            Host::Exact(name) => self.exact.entry(name.clone()).or_default(),
            Host::Below(name) => {
                self.most_labels = self.most_labels.max(host::labels(name));
                self.below.entry(name.clone()).or_default()
            }
            Host::Any => &mut self.any,
        };
        index.add(&mut self.trie, route, candidate);
    }

    /// After the last route: what has to be sorted.
    pub(super) fn finish(&mut self, routes: &[Option<Route>]) {
        let indexes = self.exact.values_mut().chain(self.below.values_mut()).chain([&mut self.any]);
        indexes.for_each(|index| index.finish(routes));
    }

    /// Shows every candidate that matches the request's host and path and may be of interest.
    pub(super) fn walk(&self, routes: &[Option<Route>], facts: &Facts<'_>, visit: &mut impl Visit) {
        let mut spelling = Spelling::new();
        let host = spelling.of(facts.head.host());
        if let Some(index) = self.exact.get(host) {
            index.walk(&self.trie, routes, facts.path, visit);
        }
        for name in host::above(host, self.most_labels) {
            if let Some(index) = self.below.get(name) {
                index.walk(&self.trie, routes, facts.path, visit);
            }
        }
        self.any.walk(&self.trie, routes, facts.path, visit);
    }

    /// The index of a host that a route names.
    pub(super) fn index(&self, host: &Host) -> Option<&Index> {
        match host {
            Host::Exact(name) => self.exact.get(name),
            Host::Below(name) => self.below.get(name),
            Host::Any => Some(&self.any),
        }
    }

    /// All of them.
    pub(super) fn indexes(&self) -> impl Iterator<Item = &Index> {
        self.exact.values().chain(self.below.values()).chain([&self.any])
    }
}

/// The routes of one host.
#[derive(Debug)]
pub(super) struct Index {
    best: u32,
    root: Option<NodeId>,
    // Boxed, because most hosts have few forms of paths, and a small index is in the cache sooner.
    literals: Option<Box<ConfigMap<Box<str>, Leaf>>>,
    prefixes: Option<Box<Prefixes>>,
    regexes: Vec<Candidate>,
    any: Leaf,
}

impl Default for Index {
    fn default() -> Index {
        Index {
            best: u32::MAX,
            root: None,
            literals: None,
            prefixes: None,
            regexes: Vec::new(),
            any: Leaf::new(),
        }
    }
}

impl Index {
    /// Adds a route. Candidates must come in the order of their ranks.
    pub(super) fn add(&mut self, trie: &mut Trie, route: &Route, candidate: Candidate) {
        self.best = self.best.min(candidate.rank);
        match &route.path.form {
            Form::Any => self.any.push(candidate),
            Form::Literal(text) => {
                self.literals
                    .get_or_insert_default()
                    .entry(text.clone())
                    .or_insert_with(Leaf::new)
                    .push(candidate);
            }
            Form::Template(template) => {
                let root = *self.root.get_or_insert_with(|| trie.root());
                trie.add(root, template, candidate);
            }
            Form::Regex(_) | Form::LocationRegex(_) => self.regexes.push(candidate),
            Form::LocationPrefix(text, _) => self.prefixes.get_or_insert_default().add(text, candidate),
        }
    }

    /// After the last route: what has to be sorted.
    pub(super) fn finish(&mut self, routes: &[Option<Route>]) {
        let Some(prefixes) = &mut self.prefixes else { return };
        prefixes.finish(|candidate| {
            let route = routes[candidate.route as usize].as_ref();
            route.map(|route| (Reverse(route.priority), Reverse(route.conditions()), candidate.route))
        });
    }

    /// Shows every candidate that matches the path and may be of interest.
    pub(super) fn walk(&self, trie: &Trie, routes: &[Option<Route>], path: &str, visit: &mut impl Visit) {
        if self.best >= visit.limit() {
            return;
        }
        if let Some(literals) = &self.literals
            && let Some(leaf) = literals.get(path)
        {
            visit.leaf(leaf.all());
        }
        if let Some(root) = self.root {
            trie.walk(root, path, visit);
        }
        if let Some(prefixes) = &self.prefixes {
            visit.locations(prefixes.of(path));
        }
        for candidate in &self.regexes {
            if candidate.rank >= visit.limit() {
                break;
            }
            if routes[candidate.route as usize].as_ref().is_some_and(|route| route.path.matches(path)) {
                visit.leaf(std::slice::from_ref(candidate));
            }
        }
        visit.leaf(self.any.all());
    }

    /// Groups of candidates whose paths are the same; not those of templates and regexes.
    pub(super) fn same_paths(&self) -> impl Iterator<Item = &[Candidate]> {
        let literals = self.literals.iter().flat_map(|literals| literals.values()).map(Leaf::all);
        let prefixes = self.prefixes.iter().flat_map(|prefixes| prefixes.leaves());
        literals.chain(prefixes).chain([self.any.all()])
    }

    /// The candidates of regexes.
    pub(super) fn regexes(&self) -> &[Candidate] {
        &self.regexes
    }

    /// Its root in the trie.
    pub(super) fn root(&self) -> Option<NodeId> {
        self.root
    }
}
