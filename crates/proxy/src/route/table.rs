//! All routes, compiled for lookup.
//!
//! Promise: [`Table::find`] gives the first route of the documented order, allocates nothing but the
//! parameters of a template and the Allow of a 405, and costs a few hash lookups however many routes there
//! are. Where routes share one path and differ in conditions only, they are tried one after the other;
//! regexes of one host too.

use std::collections::BTreeSet;

use super::guard::Guard;
use super::hash::ConfigMap;
use super::host::{self, Host, Spelling};
use super::index::{Index, Visit};
use super::method;
use super::order::{Candidate, Key, Route};
use super::path::Path;
use super::trie::Trie;
use super::{Lookup, RouteSpec, keep, ties};
use crate::facts::Facts;
use crate::problem::Problems;

/// All routes, compiled for lookup.
#[derive(Debug)]
pub struct Table {
    /// By position; `None` for one with a problem.
    pub(super) routes: Vec<Option<Route>>,
    /// Which of them take part.
    pub(super) enabled: Vec<bool>,
    trie: Trie,
    exact: ConfigMap<Box<str>, Index>,
    below: ConfigMap<Box<str>, Index>,
    /// The labels of the longest key of `below`: nobody can make us look at more labels of a Host.
    most_labels: usize,
    any: Index,
}

impl Table {
    /// Compiles routes. Every problem is added, with its place; a table that came with problems leaves the
    /// routes concerned out and must not be used for traffic. `known_listeners` are the names a match may
    /// use. Disabled routes are checked, but match nothing and tie with nothing.
    pub fn build(routes: &[RouteSpec<'_>], known_listeners: &[&str], problems: &mut Problems) -> Table {
        let compiled = routes.iter().map(|spec| compile(spec, known_listeners, problems)).collect();
        let mut table = Table {
            routes: compiled,
            enabled: routes.iter().map(|spec| spec.enabled).collect(),
            trie: Trie::default(),
            exact: ConfigMap::default(),
            below: ConfigMap::default(),
            most_labels: 0,
            any: Index::new(),
        };
        table.fill();
        let indexes = table.exact.values().chain(table.below.values()).chain([&table.any]);
        ties::report(indexes, &table.trie, &table.routes, routes, problems);
        table
    }

    fn fill(&mut self) {
        let enabled = self.routes.iter().zip(&self.enabled).enumerate();
        let enabled = enabled
            .filter_map(|(index, (route, enabled))| Some((index, route.as_ref().filter(|_| *enabled)?)));
        let mut entries: Vec<(Key, &Host, &Route)> = enabled
            .flat_map(|(index, route)| {
                route.hosts.iter().map(move |host| (route.key(host, index), host, route))
            })
            .collect();
        entries.sort_by(|(a, ..), (b, ..)| a.cmp(b));
        for (rank, (key, host, route)) in entries.iter().enumerate() {
            let index = match host {
                Host::Exact(name) => self.exact.entry(name.clone()).or_insert_with(Index::new),
                Host::Below(name) => {
                    self.most_labels = self.most_labels.max(host::labels(name));
                    self.below.entry(name.clone()).or_insert_with(Index::new)
                }
                Host::Any => &mut self.any,
            };
            let candidate = Candidate { rank: rank as u32, route: key.written as u32 };
            index.add(&mut self.trie, route, candidate);
        }
        for index in self.exact.values_mut().chain(self.below.values_mut()).chain([&mut self.any]) {
            index.finish(&self.routes);
        }
    }

    /// The route of a request, by its normalised path and the other facts. `now_unix` is the time in Unix
    /// seconds, for routes that expire.
    pub fn find(&self, facts: &Facts<'_>, now_unix: u64) -> Lookup {
        let mut best = Best {
            routes: &self.routes,
            facts,
            now_unix,
            found: None,
            priority: i32::MIN,
            but_for_method: false,
        };
        self.walk(facts, &mut best);
        if let Some(Candidate { route, .. }) = best.found {
            let route = route as usize;
            let params = self.routes[route].as_ref().map(|route| route.path.params(facts.path));
            return Lookup::Found { route, params: params.unwrap_or_default() };
        }
        match best.but_for_method {
            true => Lookup::MethodNotAllowed { allow: self.allow(facts, now_unix) },
            false => Lookup::NotFound,
        }
    }

    fn allow(&self, facts: &Facts<'_>, now_unix: u64) -> String {
        let mut allowed = Allowed { routes: &self.routes, facts, now_unix, names: BTreeSet::new() };
        self.walk(facts, &mut allowed);
        method::allow_value(&allowed.names)
    }

    fn walk<'t>(&'t self, facts: &Facts<'_>, visit: &mut (impl Visit + 't)) {
        let mut spelling = Spelling::new();
        let host = spelling.of(facts.head.host());
        if let Some(index) = self.exact.get(host) {
            index.walk(&self.trie, &self.routes, facts.path, visit);
        }
        for name in host::above(host, self.most_labels) {
            if let Some(index) = self.below.get(name) {
                index.walk(&self.trie, &self.routes, facts.path, visit);
            }
        }
        self.any.walk(&self.trie, &self.routes, facts.path, visit);
    }
}

fn compile(spec: &RouteSpec<'_>, known_listeners: &[&str], problems: &mut Problems) -> Option<Route> {
    let at = spec.at.key("match");
    let before = problems.iter().len();
    let mut hosts = Vec::new();
    for (index, text) in spec.matches.hosts.iter().enumerate() {
        match keep(Host::parse(text), &at.key("hosts").index(index), problems) {
            Some(host) if !hosts.contains(&host) => hosts.push(host),
            _ => {}
        }
    }
    if spec.matches.hosts.is_empty() {
        hosts.push(Host::Any);
    }
    let path = Path::compile(spec.matches, &at, problems);
    let guard = Guard::compile(spec.matches, &at, known_listeners, problems);
    let sound = problems.iter().len() == before;
    let (name, priority, expires) = (spec.name.into(), spec.priority, spec.expires);
    path.filter(|_| sound).map(|path| Route { name, hosts, path, guard, priority, expires })
}

/// Looks for the first candidate in order whose conditions hold.
struct Best<'a> {
    routes: &'a [Option<Route>],
    facts: &'a Facts<'a>,
    now_unix: u64,
    found: Option<Candidate>,
    /// That of `found`.
    priority: i32,
    but_for_method: bool,
}

impl Best<'_> {
    fn holds(&mut self, route: &Route) -> bool {
        let allowed = route.guard.methods.allow(self.facts.head);
        if !allowed && (self.found.is_some() || self.but_for_method) {
            return false;
        }
        let holds = !route.expired(self.now_unix) && route.guard.holds(self.facts);
        self.but_for_method |= holds && !allowed;
        holds && allowed
    }

    fn take(&mut self, candidate: Candidate, route: &Route) {
        if candidate.rank < self.limit() {
            (self.found, self.priority) = (Some(candidate), route.priority);
        }
    }
}

impl Visit for Best<'_> {
    fn limit(&self) -> u32 {
        self.found.map_or(u32::MAX, |found| found.rank)
    }

    fn leaf(&mut self, leaf: &[Candidate]) {
        let (routes, limit) = (self.routes, self.limit());
        for &candidate in leaf.iter().take_while(|candidate| candidate.rank < limit) {
            if let Some(route) = &routes[candidate.route as usize]
                && self.holds(route)
            {
                return self.take(candidate, route);
            }
        }
    }

    fn locations<'l>(&mut self, leaves: impl Iterator<Item = &'l [Candidate]>) {
        let routes = self.routes;
        // The priority of the last prefix that held. All that held so far had at most the priority of
        // `found`, and lower ones matter no longer: so this one number says of every priority whether its
        // longest prefix is known.
        let mut remembered = None;
        for leaf in leaves {
            for &candidate in leaf {
                let Some(route) = &routes[candidate.route as usize] else { continue };
                if route.priority < self.priority || remembered.is_some_and(|known| known >= route.priority) {
                    break;
                }
                if self.holds(route) {
                    remembered = Some(route.priority);
                    self.take(candidate, route);
                    break;
                }
            }
        }
    }
}

/// Collects the methods of all routes that match but for the method.
struct Allowed<'a> {
    routes: &'a [Option<Route>],
    facts: &'a Facts<'a>,
    now_unix: u64,
    names: BTreeSet<&'a str>,
}

impl Visit for Allowed<'_> {
    fn limit(&self) -> u32 {
        u32::MAX
    }

    fn leaf(&mut self, leaf: &[Candidate]) {
        let routes = leaf.iter().filter_map(|candidate| self.routes[candidate.route as usize].as_ref());
        for route in routes {
            if !route.expired(self.now_unix) && route.guard.holds(self.facts) {
                self.names.extend(route.guard.methods.names());
            }
        }
    }

    fn locations<'l>(&mut self, leaves: impl Iterator<Item = &'l [Candidate]>) {
        leaves.for_each(|leaf| self.leaf(leaf));
    }
}
