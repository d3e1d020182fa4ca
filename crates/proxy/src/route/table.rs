//! All routes, compiled for lookup.
//!
//! Promise: [`Table::find`] gives the first route of the documented order, allocates nothing but the
//! parameters of a template and the Allow of a 405, and costs a few hash lookups however many routes there
//! are. Where routes share one path and differ in conditions only, they are tried one after the other;
//! regexes of one host too.

use std::collections::BTreeSet;

use super::guard::Guard;
use super::host::Host;
use super::index::{Hosts, Visit};
use super::method;
use super::order::{Beyond, Candidate, Key, Route};
use super::path::Path;
use super::{Lookup, RouteSpec, keep, ties};
use crate::facts::{Facts, Params};
use crate::problem::Problems;

/// All routes, compiled for lookup.
#[derive(Debug)]
pub struct Table {
    /// By position; `None` for one with a problem.
    pub(super) routes: Vec<Option<Route>>,
    /// Which of them take part.
    pub(super) takes_part: Vec<bool>,
    pub(super) hosts: Hosts,
}

impl Table {
    /// Compiles routes. Every problem is added, with its place; a table that came with problems leaves the
    /// routes concerned out and must not be used for traffic. `known_listeners` are the names a match may
    /// use. Disabled routes are checked, but match nothing and tie with nothing.
    pub fn build(routes: &[RouteSpec<'_>], known_listeners: &[&str], problems: &mut Problems) -> Table {
        let compiled: Vec<_> = routes.iter().map(|spec| compile(spec, known_listeners, problems)).collect();
        let takes_part = routes.iter().map(|spec| spec.enabled).collect();
        let mut table = Table { routes: compiled, takes_part, hosts: Hosts::default() };
        let mut entries: Vec<(Key, &Host, &Route)> = table
            .enabled()
            .flat_map(|(index, route)| {
                route.hosts.iter().map(move |host| (route.key(host, index), host, route))
            })
            .collect();
        entries.sort_by(|(a, ..), (b, ..)| a.cmp(b));
        let mut hosts = Hosts::default();
        for (rank, (key, host, route)) in entries.iter().enumerate() {
            hosts.add(host, route, route.candidate(rank, key.written));
        }
        hosts.finish(&table.routes);
        table.hosts = hosts;
        ties::report(&table, routes, problems);
        table
    }

    /// The routes that take part, with their positions.
    pub(super) fn enabled(&self) -> impl Iterator<Item = (usize, &Route)> {
        let routes = self.routes.iter().zip(&self.takes_part).enumerate();
        routes
            .filter_map(|(index, (route, takes_part))| Some((index, route.as_ref().filter(|_| *takes_part)?)))
    }

    /// The route of a request, by its normalised path and the other facts. `now_unix` is the time in Unix
    /// seconds, for routes that expire.
    pub fn find(&self, facts: &Facts<'_>, now_unix: u64) -> Lookup {
        let mut best = Best { routes: &self.routes, facts, now_unix, found: None, but_for_method: false };
        self.hosts.walk(&self.routes, facts, &mut best);
        if let Some(Candidate { route, beyond, .. }) = best.found {
            let route = route as usize;
            let params = match (beyond, &self.routes[route]) {
                (Beyond::More, Some(route)) => route.path.params(facts.path),
                _ => Params::default(),
            };
            return Lookup::Found { route, params };
        }
        match best.but_for_method {
            true => Lookup::MethodNotAllowed { allow: self.allow(facts, now_unix) },
            false => Lookup::NotFound,
        }
    }

    /// The methods that routes name for what the request asks for, as a value of Allow.
    pub fn allow(&self, facts: &Facts<'_>, now_unix: u64) -> String {
        let mut allowed = Allowed { routes: &self.routes, facts, now_unix, names: BTreeSet::new() };
        self.hosts.walk(&self.routes, facts, &mut allowed);
        method::allow_value(&allowed.names)
    }
}

fn compile(spec: &RouteSpec<'_>, known_listeners: &[&str], problems: &mut Problems) -> Option<Route> {
    let at = spec.at.key("match");
    let before = problems.iter().len();
    let mut hosts = Vec::new();
    for (key, texts) in [("hosts", &spec.matches.hosts), ("sni", &spec.matches.sni)] {
        for (index, text) in texts.iter().enumerate() {
            match keep(Host::parse(text), &at.key(key).index(index), problems) {
                Some(host) if !hosts.contains(&host) => hosts.push(host),
                _ => {}
            }
        }
    }
    if spec.matches.hosts.is_empty() && spec.matches.sni.is_empty() {
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

    fn take(&mut self, candidate: Candidate) {
        if candidate.rank < self.limit() {
            self.found = Some(candidate);
        }
    }

    /// That of what was found.
    fn priority(&self) -> i32 {
        let found = self.found.and_then(|found| self.routes[found.route as usize].as_ref());
        found.map_or(i32::MIN, |route| route.priority)
    }
}

impl Visit for Best<'_> {
    fn limit(&self) -> u32 {
        self.found.map_or(u32::MAX, |found| found.rank)
    }

    fn leaf(&mut self, leaf: &[Candidate]) {
        let (routes, limit) = (self.routes, self.limit());
        for &candidate in leaf.iter().take_while(|candidate| candidate.rank < limit) {
            let holds = candidate.beyond == Beyond::Nothing
                || routes[candidate.route as usize].as_ref().is_some_and(|route| self.holds(route));
            if holds {
                return self.take(candidate);
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
                if route.priority < self.priority() || remembered.is_some_and(|known| known >= route.priority)
                {
                    break;
                }
                if self.holds(route) {
                    remembered = Some(route.priority);
                    self.take(candidate);
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
