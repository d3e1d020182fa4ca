//! What a forward action does when its upstream fails: a fixed answer, or another upstream.
//!
//! Promise: a request goes to the other upstream only when nothing of its body is gone; whoever waits for the
//! answer hears of one of the two, never of both.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::respond::{self, Respond};
use crate::failure::{Failure, Side};
use crate::problem::{At, Problems};

/// What happens instead, when the upstream fails. Exactly one of `respond` and `upstream`.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// On which failures, by their codes (docs/failures.md). Default: all that are the upstream's, and
    /// breaker-open, no-endpoint, overloaded and exchange-timeout.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on: Option<Vec<String>>,
    /// On which statuses of the upstream's answers too, for example [502, 503].
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub statuses: Vec<u16>,
    /// Gives this answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub respond: Option<respond::Config>,
    /// Sends the request to this upstream, when none of its body has been taken. Not on exchange-timeout: no
    /// time is left then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream: Option<String>,
}

/// The same, checked.
#[derive(Debug)]
pub struct Fallback {
    on: Box<[Failure]>,
    statuses: Box<[u16]>,
    /// What happens.
    pub then: Then,
}

/// What happens instead.
#[derive(Debug)]
pub enum Then {
    /// This answer.
    Respond(Respond),
    /// The upstream at this position.
    Upstream(usize),
}

impl Config {
    /// Checks it; `upstreams` are the names there are, `first` is the position of the one that may fail.
    pub(super) fn check(
        &self,
        (upstreams, first): (&[&str], Option<usize>),
        at: &At,
        problems: &mut Problems,
    ) -> Option<Fallback> {
        let found = problems.iter().count();
        let on = match &self.on {
            None => Failure::ALL.iter().copied().filter(|failure| is_usual(*failure)).collect(),
            Some(codes) => failures(codes, &at.key("on"), problems),
        };
        for (index, status) in self.statuses.iter().enumerate() {
            if !(400..600).contains(status) {
                let at = at.key("statuses").index(index);
                problems.add(&at, format!("{status} is not a status of a failure")).hint("400 to 599");
            }
        }
        let then = match (&self.respond, &self.upstream) {
            (Some(respond), None) => Respond::build(respond, &at.key("respond"), problems).map(Then::Respond),
            (None, Some(name)) => {
                let timeout = self.on.iter().flatten().position(|code| *code == LATE.code());
                if let Some(index) = timeout {
                    let message = "the time of the request is over then, also for another upstream";
                    problems
                        .add(&at.key("on").index(index), message)
                        .hint("upstream-timeout is that of one upstream");
                }
                let position = super::forward::position(name, upstreams, &at.key("upstream"), problems);
                if position.is_some() && position == first {
                    problems.add(&at.key("upstream"), "that is the upstream that has failed");
                }
                position.map(Then::Upstream)
            }
            _ => {
                problems
                    .add(at, "exactly one of `respond` and `upstream` happens instead")
                    .hint("fallback = { respond = { status = 503, body = \"back soon\" } }");
                None
            }
        };
        (problems.iter().count() == found).then_some(())?;
        Some(Fallback { on, statuses: self.statuses.as_slice().into(), then: then? })
    }
}

impl Fallback {
    /// Whether it happens instead of what came. `whole`: nothing of the request's body is gone.
    pub(super) fn stands_in(&self, came: Result<u16, Failure>, whole: bool) -> bool {
        let can = match self.then {
            Then::Respond(_) => true,
            Then::Upstream(_) => whole && came != Err(LATE),
        };
        can && self.concerns(came)
    }

    /// Whether it is for what came: the status of an answer, or a failure.
    fn concerns(&self, came: Result<u16, Failure>) -> bool {
        match came {
            Ok(status) => self.statuses.contains(&status),
            Err(failure) => self.on.contains(&failure),
        }
    }
}

/// The request has taken all the time it had.
const LATE: Failure = Failure::ExchangeTimeout;

fn is_usual(failure: Failure) -> bool {
    let ours = [Failure::BreakerOpen, Failure::NoEndpoint, Failure::Overloaded, Failure::ExchangeTimeout];
    ours.contains(&failure) || failure.row().side == Side::Upstream
}

fn failures(codes: &[String], at: &At, problems: &mut Problems) -> Box<[Failure]> {
    let known = |code: &str| Failure::ALL.iter().copied().find(|failure| failure.code() == code);
    let mut found = Vec::new();
    for (index, code) in codes.iter().enumerate() {
        match known(code) {
            Some(failure) => found.push(failure),
            None => {
                let all = Failure::ALL.iter().map(|failure| failure.code());
                let hint = match crate::closest::closest(code, all) {
                    Some(close) => format!("did you mean `{close}`?"),
                    None => "docs/failures.md lists them".to_owned(),
                };
                problems.add(&at.index(index), format!("there is no failure `{code}`")).hint(hint);
            }
        }
    }
    found.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(toml: &str) -> Result<Fallback, Vec<String>> {
        let config: Config = toml_edit::de::from_str(toml).unwrap();
        let mut problems = Problems::new();
        let checked = config.check((&["app", "spare"], Some(0)), &At::root(), &mut problems);
        assert_eq!(checked.is_some(), problems.is_empty());
        checked.ok_or(problems.iter().map(|problem| problem.at.to_string()).collect())
    }

    #[test]
    fn it_is_for_what_the_upstream_did_unless_something_else_is_said() {
        let usual = check("respond = { status = 503 }").unwrap();
        for (came, concerned) in [
            (Err(Failure::BreakerOpen), true),
            (Err(Failure::ConnectFailed), true),
            (Err(Failure::Overloaded), true),
            (Err(Failure::ClientGone), false),
            (Err(Failure::BodyTooLarge), false),
            (Ok(503), false),
        ] {
            assert_eq!(usual.concerns(came), concerned, "{came:?}");
        }
        let chosen = check("on = ['breaker-open']\nstatuses = [503]\nupstream = 'spare'").unwrap();
        assert!(chosen.concerns(Ok(503)) && chosen.concerns(Err(Failure::BreakerOpen)));
        assert!(!chosen.concerns(Ok(500)) && !chosen.concerns(Err(Failure::ConnectFailed)));
        assert!(matches!(chosen.then, Then::Upstream(1)));
        assert!(chosen.stands_in(Ok(503), true) && !chosen.stands_in(Ok(503), false));
        assert!(usual.stands_in(Err(Failure::ExchangeTimeout), false));
        let other = check("upstream = 'spare'").unwrap();
        assert!(!other.stands_in(Err(Failure::ExchangeTimeout), true), "no time is left");
    }

    #[test]
    fn what_cannot_happen_is_a_problem() {
        for (toml, place) in [
            ("", ""),
            ("respond = {}\nupstream = 'spare'", ""),
            ("upstream = 'app'", "upstream"),
            ("upstream = 'spar'", "upstream"),
            ("respond = { status = 99 }", "respond.status"),
            ("on = ['exchange-timeout']\nupstream = 'spare'", "on[0]"),
            ("on = ['breaker-opn']\nrespond = {}", "on[0]"),
            ("statuses = [200]\nrespond = {}", "statuses[0]"),
        ] {
            assert_eq!(check(toml).unwrap_err(), [place], "{toml}");
        }
    }
}
