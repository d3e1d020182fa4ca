//! What a document says of a limiter beside how much it lets pass: the part that rate limits and quotas have in
//! common.

use std::time::Duration;

use super::OnRedisFailure;
use super::key::{Per, Prefixes};
use super::record::{Force, Kind, Manner, Show, shown_name};
use super::remote::Remote;
use super::seen::Seen;
use crate::problem::{At, Problems};
use crate::redis::{Connections, Server};

/// What was written.
#[derive(Clone, Copy, Debug)]
pub struct Written<'a> {
    /// What it counts by.
    pub per: &'a str,
    /// How many bits of addresses count, IPv4 and IPv6.
    pub prefixes: (Option<u8>, Option<u8>),
    /// A name of its own.
    pub name: Option<&'a String>,
    /// Whether it only says what it would have done.
    pub dry_run: bool,
    /// When answers say what is left.
    pub headers: Show,
    /// The Redis server.
    pub shared: Option<&'a String>,
    /// What happens while that has no answer.
    pub on_redis_failure: OnRedisFailure,
}

/// The same, checked.
#[derive(Debug)]
pub struct Plan {
    /// What it counts by.
    pub per: Per,
    written_per: String,
    name: Option<String>,
    force: Force,
    show: Show,
    server: Option<Box<Server>>,
    on_failure: OnRedisFailure,
}

/// Whose limiter it is.
#[derive(Clone, Copy, Debug)]
pub struct Owner<'a> {
    /// The route.
    pub route: &'a str,
    /// The upstream that the route forwards to, if it forwards.
    pub upstream: Option<&'a str>,
}

impl Plan {
    /// Checks it. `None` when a problem was added.
    pub fn check(written: &Written<'_>, at: &At, problems: &mut Problems) -> Option<Plan> {
        let found = problems.iter().count();
        let prefixes = Prefixes::check(written.prefixes, at, problems);
        let per = Per::check(written.per, prefixes, &at.key("per"), problems);
        if written.name.is_some_and(|name| shown_name(name).is_empty()) {
            problems.add(&at.key("name"), "a name has characters that can be printed");
        }
        let server =
            written.shared.and_then(|text| Server::check(text, &at.key("shared"), problems)).map(Box::new);
        if written.shared.is_none() && written.on_redis_failure != OnRedisFailure::Local {
            let problem = problems.add(&at.key("on_redis_failure"), "no Redis server is asked");
            problem.hint("name it: shared = \"redis://127.0.0.1:6379\"");
        }
        let force = if written.dry_run { Force::DryRun } else { Force::Enforced };
        (problems.iter().count() == found).then_some(Plan {
            per: per?,
            written_per: format!("{} /{} /{}", written.per, prefixes.v4, prefixes.v6),
            name: written.name.cloned(),
            force,
            show: written.headers,
            server,
            on_failure: written.on_redis_failure,
        })
    }

    /// What defines the limiter, with what it lets pass: limiters with the same identity are one, also in another
    /// gateway, and after a change of the document. Equal ones on a route have their number in it. `None` when a problem was added.
    pub fn identity(
        &self,
        passes: &str,
        (owner, seen): (Owner<'_>, &Seen),
        at: &At,
        problems: &mut Problems,
    ) -> Option<String> {
        let scope = match (&self.name, &self.per, owner.upstream) {
            (_, Per::Upstream, None) => {
                let problem = problems.add(&at.key("per"), "this route forwards to no upstream");
                problem.hint("per = \"route\" counts what comes to it");
                return None;
            }
            (Some(name), Per::Upstream, Some(upstream)) => format!("name {name}\nupstream {upstream}"),
            (None, Per::Upstream, Some(upstream)) => format!("upstream {upstream}"),
            (Some(name), ..) => format!("name {name}"),
            (None, ..) => format!("route {}", owner.route),
        };
        let identity = format!("{scope}\n{}\n{passes}", self.written_per);
        if self.name.is_some() {
            seen.once(owner.route, &identity, &at.key("name"), problems);
            return Some(identity);
        }
        Some(seen.apart(owner.route, identity))
    }

    /// The part that is in Redis, if it is to be there. `Err` when a problem was added.
    pub fn remote(
        &self,
        identity: &str,
        redis: &Connections,
        at: &At,
        problems: &mut Problems,
    ) -> Result<Option<Box<Remote>>, Failed> {
        let Some(server) = &self.server else { return Ok(None) };
        let redis = redis.open(server, &at.key("shared"), problems).ok_or(Failed)?;
        Ok(Some(Box::new(Remote::new(redis, identity, self.on_failure))))
    }

    /// How the limiter is applied.
    pub fn manner(&self, kind: Kind, owner: Owner<'_>, (limit, window): (u64, Duration)) -> Manner {
        let name = match (&self.name, &self.per, owner.upstream) {
            (Some(name), ..) => name,
            (None, Per::Upstream, Some(upstream)) => upstream,
            _ => owner.route,
        };
        Manner::new(kind, name, (self.force, self.show), (limit, window))
    }
}

/// A problem was added.
#[derive(Clone, Copy, Debug)]
pub struct Failed;
