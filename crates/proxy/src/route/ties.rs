//! Routes of which nobody can say which comes first.
//!
//! Promise: a tie is found at load, and each route is reported at most once. Only routes that cannot be
//! told apart are compared in pairs, so the check stays far from quadratic for real tables.

use std::collections::{HashMap, HashSet};

use super::RouteSpec;
use super::order::{Candidate, Route};
use super::path::Form;
use super::table::Table;
use crate::problem::Problems;

/// Reports every enabled route that ties with one written before it.
pub(super) fn report(table: &Table, specs: &[RouteSpec<'_>], problems: &mut Problems) {
    let mut ties = Ties { routes: &table.routes, first: HashMap::new() };
    for index in table.hosts.indexes() {
        for leaf in index.same_paths() {
            ties.within(leaf);
        }
        ties.regexes(index.regexes());
    }
    ties.templates(table);
    let mut found: Vec<(usize, usize)> = ties.first.into_iter().collect();
    found.sort_unstable();
    for (later, earlier) in found {
        let (later, earlier) = (&specs[later], &specs[earlier]);
        let message = format!(
            "`{}` ties with `{}`: the same requests can match both, and nothing says which comes first",
            later.name, earlier.name
        );
        problems.add(&later.at, message).hint(format!(
            "give one of them a higher priority (both have {}), or one more condition",
            later.priority
        ));
    }
}

struct Ties<'a> {
    routes: &'a [Option<Route>],
    /// For each route that ties, the first one it ties with.
    first: HashMap<usize, usize>,
}

impl Ties<'_> {
    /// Candidates of one host and one path.
    fn within(&mut self, leaf: &[Candidate]) {
        if leaf.len() < 2 {
            return;
        }
        let mut alike: HashMap<(i32, usize), Vec<usize>> = HashMap::new();
        for candidate in leaf {
            let index = candidate.route as usize;
            if let Some(route) = &self.routes[index] {
                alike.entry((route.priority, route.conditions())).or_default().push(index);
            }
        }
        for mut alike in alike.into_values() {
            alike.sort_unstable();
            for (position, &later) in alike.iter().enumerate() {
                self.first_of(&alike[..position], later);
            }
        }
    }

    /// Notes the first of `earlier`, which are alike in everything else, that can match what `later` can.
    fn first_of(&mut self, earlier: &[usize], later: usize) {
        let Some(route) = &self.routes[later] else { return };
        let meets = |&&other: &&usize| {
            other != later
                && self.routes[other].as_ref().is_some_and(|other| !other.guard.excludes(&route.guard))
        };
        if let Some(&first) = earlier.iter().find(meets) {
            let known = self.first.entry(later).or_insert(first);
            *known = first.min(*known);
        }
    }

    /// Two path regexes tie when their texts are equal; location regexes never do.
    fn regexes(&mut self, regexes: &[Candidate]) {
        let mut by_text: HashMap<&str, Vec<Candidate>> = HashMap::new();
        for candidate in regexes {
            if let Some(Route { path, .. }) = &self.routes[candidate.route as usize]
                && let Form::Regex(regex) = &path.form
            {
                by_text.entry(&regex.text).or_default().push(*candidate);
            }
        }
        for same in by_text.into_values() {
            self.within(&same);
        }
    }

    fn templates(&mut self, table: &Table) {
        let mut seen: HashSet<u32> = HashSet::new();
        for (position, route) in table.enabled() {
            let Form::Template(template) = &route.path.form else { continue };
            for root in route.hosts.iter().filter_map(|host| table.hosts.index(host)?.root()) {
                let leaves = table.hosts.trie.alike(root, template);
                match leaves[..] {
                    // A leaf with nothing like it elsewhere is looked at once, for all its candidates.
                    [leaf] if !seen.insert(leaf[0].rank) => {}
                    [leaf] => self.within(leaf),
                    _ => self.across(position, route, &leaves),
                }
            }
        }
    }

    /// Compares one route with those of other templates.
    fn across(&mut self, later: usize, route: &Route, leaves: &[&[Candidate]]) {
        let alike =
            |other: &Route| other.priority == route.priority && other.conditions() == route.conditions();
        let others = leaves.iter().copied().flatten().map(|candidate| candidate.route as usize);
        let mut earlier: Vec<usize> =
            others.filter(|&other| other < later && self.routes[other].as_ref().is_some_and(alike)).collect();
        earlier.sort_unstable();
        self.first_of(&earlier, later);
    }
}
