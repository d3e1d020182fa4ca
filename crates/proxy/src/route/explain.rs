//! Why a request takes the route it takes.
//!
//! Promise: the winner is the one [`Table::find`] gives. It is found here in another way, one route after
//! the other, so it is slow and fit for people only.

use std::cmp::{Ordering, Reverse};
use std::collections::BTreeSet;
use std::fmt;

use serde::Serialize;

use super::host::{Host, Spelling};
use super::method;
use super::order::{Key, Route};
use super::path::Form;
use super::table::Table;
use crate::facts::Facts;

/// Routes that lost are listed up to this number, the nearest first.
const LISTED: usize = 20;

/// Why a request takes the route it takes.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Explanation {
    /// What a lookup gives.
    pub verdict: Verdict,
    /// The route that wins.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub winner: Option<Standing>,
    /// The route that would win without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runner_up: Option<Standing>,
    /// Others, nearest first; the runner-up too.
    pub lost: Vec<Lost>,
    /// How many more lost.
    pub omitted: usize,
}

/// What a lookup gives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum Verdict {
    /// A route.
    Found,
    /// Routes match but for the method.
    MethodNotAllowed {
        /// The value of Allow.
        allow: String,
    },
    /// No route matches.
    NotFound,
}

/// A route that matches, and what of it does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Standing {
    /// Its name.
    pub route: String,
    /// Its position among the routes, from 0.
    pub position: usize,
    /// Its priority.
    pub priority: i32,
    /// The host that matches.
    pub host: String,
    /// The path that matches.
    pub path: String,
    /// The conditions, which all hold.
    pub conditions: Vec<String>,
    /// Parameters from the path.
    pub params: Vec<(String, String)>,
}

/// A route that lost, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Lost {
    /// Its name.
    pub route: String,
    /// Everything that speaks against it.
    pub reasons: Vec<Reason>,
}

/// What speaks against a route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "why", rename_all = "snake_case")]
pub enum Reason {
    /// It does not take part.
    Disabled,
    /// It matches no longer.
    Expired,
    /// The host differs.
    Host {
        /// What it wants.
        wants: Vec<String>,
    },
    /// The path differs.
    Path {
        /// What it wants.
        wants: String,
    },
    /// The method differs.
    Method {
        /// What it wants.
        wants: String,
    },
    /// A condition does not hold.
    Condition {
        /// What it wants.
        wants: String,
    },
    /// It matches, but the winner has a higher priority.
    LowerPriority {
        /// Its own.
        priority: i32,
    },
    /// It matches, but the winner's host is more specific.
    LessSpecificHost,
    /// It matches, but the winner's path is more specific.
    LessSpecificPath,
    /// It matches, but a longer location of the same host and priority matches too.
    ShorterLocation,
    /// It matches, but the winner has more conditions.
    FewerConditions,
    /// It matches, but the winner was written before it.
    WrittenLater,
}

/// A route that matches.
struct Held<'a> {
    position: usize,
    route: &'a Route,
    host: &'a Host,
    key: Key,
}

impl Table {
    /// Why the request takes the route it takes, or none.
    pub fn explain(&self, facts: &Facts<'_>, now_unix: u64) -> Explanation {
        let mut spelling = Spelling::new();
        let host = spelling.of(facts.head.host());
        let mut held = Vec::new();
        let mut failed = Vec::new();
        for (position, route) in self.routes.iter().enumerate() {
            let Some(route) = route else { continue };
            let mut reasons = against(route, host, facts, now_unix);
            if !self.takes_part[position] {
                reasons.insert(0, Reason::Disabled);
            }
            let hosts = route.hosts.iter().filter(|name| name.matches(host)).min_by_key(|name| name.order());
            match hosts {
                Some(host) if reasons.is_empty() => {
                    held.push(Held { position, route, host, key: route.key(host, position) });
                }
                _ => failed.push((route, reasons)),
            }
        }
        held.sort_by(|a, b| a.key.cmp(&b.key));
        let winner = first(&held, None);
        let runner_up = first(&held, winner);
        let mut lost: Vec<Lost> = Vec::new();
        if let Some(winner) = winner.map(|winner| &held[winner]) {
            // The runner-up is the nearest by definition; the others follow in their order.
            let others = (0..held.len()).filter(|&index| held[index].position != winner.position);
            let mut others: Vec<usize> = others.collect();
            others.sort_by_key(|&index| Some(index) != runner_up);
            lost.extend(others.iter().map(|&index| Lost {
                route: held[index].route.name.to_string(),
                reasons: vec![behind(&held[index], winner, &held)],
            }));
        }
        let verdict = verdict(winner, &failed);
        failed.sort_by_key(|(_, reasons)| distance(reasons));
        lost.extend(
            failed.into_iter().map(|(route, reasons)| Lost { route: route.name.to_string(), reasons }),
        );
        let omitted = lost.len().saturating_sub(LISTED);
        lost.truncate(LISTED);
        let standing = |index: usize| held[index].standing(facts);
        Explanation {
            verdict,
            winner: winner.map(standing),
            runner_up: runner_up.map(standing),
            lost,
            omitted,
        }
    }
}

impl Held<'_> {
    fn standing(&self, facts: &Facts<'_>) -> Standing {
        let methods: Vec<_> = self.route.guard.methods.names().collect();
        let methods = (!methods.is_empty()).then(|| format!("method {}", methods.join(", ")));
        let params = self.route.path.params(facts.path).0.into_iter();
        Standing {
            route: self.route.name.to_string(),
            position: self.position,
            priority: self.route.priority,
            host: self.host.to_string(),
            path: self.route.path.to_string(),
            conditions: methods
                .into_iter()
                .chain(self.route.guard.parts.iter().map(ToString::to_string))
                .collect(),
            params: params.map(|(name, value)| (name.to_string(), value)).collect(),
        }
    }

    /// How long its location prefix is, and what decides between equal ones; `None` for other paths.
    fn location(&self) -> Option<(usize, usize, Reverse<usize>)> {
        match &self.route.path.form {
            Form::LocationPrefix(text, _) => {
                Some((text.len(), self.route.conditions(), Reverse(self.position)))
            }
            _ => None,
        }
    }

    /// Whether a longer location of the same host and priority matches.
    fn is_shorter(&self, held: &[Held<'_>], without: Option<usize>) -> bool {
        self.location().is_some_and(|ours| {
            held.iter().enumerate().any(|(index, other)| {
                Some(index) != without
                    && (&other.key.priority, &other.key.host) == (&self.key.priority, &self.key.host)
                    && other.location().is_some_and(|theirs| theirs > ours)
            })
        })
    }
}

/// The first of those that match; `without` leaves one out.
fn first(held: &[Held<'_>], without: Option<usize>) -> Option<usize> {
    (0..held.len()).find(|&index| Some(index) != without && !held[index].is_shorter(held, without))
}

/// Everything that keeps a route from matching.
fn against(route: &Route, host: &str, facts: &Facts<'_>, now_unix: u64) -> Vec<Reason> {
    let mut reasons = Vec::new();
    if route.expired(now_unix) {
        reasons.push(Reason::Expired);
    }
    if !route.hosts.iter().any(|name| name.matches(host)) {
        reasons.push(Reason::Host { wants: route.hosts.iter().map(ToString::to_string).collect() });
    }
    if !route.path.matches(facts.path) {
        reasons.push(Reason::Path { wants: route.path.to_string() });
    }
    if !route.guard.methods.allow(facts.head) {
        reasons.push(Reason::Method { wants: method::allow_value(&route.guard.methods.names().collect()) });
    }
    let parts = route.guard.parts.iter().filter(|part| !part.holds(facts));
    reasons.extend(parts.map(|part| Reason::Condition { wants: part.to_string() }));
    reasons
}

/// Why a route that matches comes behind the winner.
fn behind(held: &Held<'_>, winner: &Held<'_>, all: &[Held<'_>]) -> Reason {
    let (ours, theirs) = (&held.key, &winner.key);
    if ours.priority != theirs.priority {
        return Reason::LowerPriority { priority: held.route.priority };
    }
    if ours.host != theirs.host {
        return Reason::LessSpecificHost;
    }
    if held.is_shorter(all, None) {
        return Reason::ShorterLocation;
    }
    match (ours.path.cmp(&theirs.path), ours.conditions.cmp(&theirs.conditions)) {
        (Ordering::Equal, Ordering::Equal) => Reason::WrittenLater,
        (Ordering::Equal, _) => Reason::FewerConditions,
        _ => Reason::LessSpecificPath,
    }
}

fn verdict(winner: Option<usize>, failed: &[(&Route, Vec<Reason>)]) -> Verdict {
    if winner.is_some() {
        return Verdict::Found;
    }
    let but_for_method = failed.iter().filter(|(_, reasons)| matches!(reasons[..], [Reason::Method { .. }]));
    let names: BTreeSet<&str> = but_for_method.flat_map(|(route, _)| route.guard.methods.names()).collect();
    match names.is_empty() {
        true => Verdict::NotFound,
        false => Verdict::MethodNotAllowed { allow: method::allow_value(&names) },
    }
}

/// How far a route was from matching: routes of another place are further than those with a condition more.
fn distance(reasons: &[Reason]) -> (usize, usize) {
    let elsewhere = |reason: &&Reason| matches!(reason, Reason::Host { .. } | Reason::Path { .. });
    (reasons.iter().filter(elsewhere).count(), reasons.len())
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Disabled => f.write_str("it is disabled"),
            Reason::Expired => f.write_str("it has expired"),
            Reason::Host { wants } => write!(f, "the host is not {}", wants.join(" or ")),
            Reason::Path { wants } => write!(f, "the path does not match {wants}"),
            Reason::Method { wants } => write!(f, "the method is not {wants}"),
            Reason::Condition { wants } => write!(f, "does not hold: {wants}"),
            Reason::LowerPriority { priority } => write!(f, "it matches, with lower priority ({priority})"),
            Reason::LessSpecificHost => f.write_str("it matches, with a less specific host"),
            Reason::LessSpecificPath => f.write_str("it matches, with a less specific path"),
            Reason::ShorterLocation => f.write_str("it matches, and so does a longer location"),
            Reason::FewerConditions => f.write_str("it matches, with fewer conditions"),
            Reason::WrittenLater => f.write_str("it matches, written later"),
        }
    }
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (priority {}, host {}, {}", self.route, self.priority, self.host, self.path)?;
        self.conditions.iter().try_for_each(|condition| write!(f, ", {condition}"))?;
        f.write_str(")")
    }
}

/// For people: several lines, each ended.
impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.verdict {
            Verdict::Found => {}
            Verdict::MethodNotAllowed { allow } => {
                writeln!(f, "no route: the method is not allowed (Allow: {allow})")?;
            }
            Verdict::NotFound => writeln!(f, "no route matches")?,
        }
        if let Some(winner) = &self.winner {
            writeln!(f, "route {winner}")?;
            for (name, value) in &winner.params {
                writeln!(f, "  {name} = {value}")?;
            }
        }
        if let Some(runner_up) = &self.runner_up {
            writeln!(f, "runner-up {runner_up}")?;
        }
        for lost in &self.lost {
            let reasons: Vec<_> = lost.reasons.iter().map(ToString::to_string).collect();
            writeln!(f, "not {}: {}", lost.route, reasons.join("; "))?;
        }
        match self.omitted {
            0 => Ok(()),
            omitted => writeln!(f, "and {omitted} more further away"),
        }
    }
}
