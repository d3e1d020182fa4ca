//! How many requests of a listener run at once, who waits, and who goes first: what people write, and its checked
//! form.

use std::num::NonZeroU32;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::exchange::Exchange;
use crate::expression::{Expression, checked};
use crate::facts::Facts;
use crate::filter::concurrency::OrderConfig;
use crate::gate::Patience;
use crate::gates::{Gates, Limited};
use crate::problem::{At, Problems};
use crate::value::Period;

/// How many requests run at once.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(untagged)]
pub enum Setting {
    /// So many; nobody waits.
    Limit(NonZeroU32),
    /// More about it.
    Detailed(Config),
}

/// How many requests run at once, and who waits.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// How many.
    pub limit: NonZeroU32,
    /// How many more may wait. Default 0.
    #[serde(default)]
    pub queue: u32,
    /// How long they wait. Default "1s".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait: Option<Period>,
    /// Who of them is next. Default "oldest".
    #[serde(default)]
    pub order: OrderConfig,
    /// An expression that gives a whole number: whose is higher goes first, here and at every limit of what runs
    /// at once that comes after it. Of the route nothing is known yet. Default 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<String>,
}

/// The same, checked.
#[derive(Debug)]
pub struct Requests {
    limit: u32,
    patience: Patience,
    /// How urgent a request is.
    pub priority: Option<Expression>,
    /// None until it is loaded: then nobody is let in.
    pub gate: Option<Limited>,
}

impl Setting {
    /// Checks it. `None` when a problem was added.
    pub fn check(&self, at: &At, problems: &mut Problems) -> Option<Requests> {
        let config = match self {
            Setting::Limit(limit) => {
                let (limit, patience) = (limit.get(), Patience::NONE);
                return Some(Requests { limit, patience, priority: None, gate: None });
            }
            Setting::Detailed(config) => config,
        };
        let priority = match &config.priority {
            Some(text) => Some(checked(Expression::value(text), &at.key("priority"), problems)?),
            None => None,
        };
        if config.queue > 0 && config.wait.is_some_and(|wait| wait.0.is_zero()) {
            problems.add(&at.key("wait"), "nobody waits for no time").hint("leave out `queue`");
            return None;
        }
        let wait = config.wait.map_or(Duration::from_secs(1), |wait| wait.0);
        let patience = Patience { queue: config.queue as usize, wait, order: config.order.order() };
        Some(Requests { limit: config.limit.get(), patience, priority, gate: None })
    }
}

impl Requests {
    /// Takes its gate from those of the process.
    pub fn load(&mut self, gates: &Gates, listener: &str) {
        self.gate = Some(Limited::new(gates, &format!("listener {listener}"), self.limit, self.patience));
    }

    /// How urgent a request is; what was said before, when nothing is said here.
    pub fn priority(&self, exchange: &Exchange, facts: &Facts<'_>) -> i32 {
        let said = self.priority.as_ref().map(|expression| expression.text(facts));
        said.map_or(exchange.priority, |text| text.and_then(|text| text.parse().ok()).unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(toml: &str) -> Result<Requests, Vec<String>> {
        #[derive(Deserialize)]
        struct Holder {
            requests: Setting,
        }
        let holder: Holder = toml_edit::de::from_str(toml).unwrap();
        let mut problems = Problems::new();
        let checked = holder.requests.check(&At::root(), &mut problems);
        checked.ok_or(problems.iter().map(|problem| problem.at.to_string()).collect())
    }

    #[test]
    fn a_number_lets_nobody_wait_and_a_table_says_more() {
        let plain = check("requests = 5").unwrap();
        assert_eq!((plain.limit, plain.patience, plain.priority.is_none()), (5, Patience::NONE, true));
        let more = check("requests = { limit = 5, queue = 2, priority = 'request.path == \"/a\" ? 1 : 0' }");
        let more = more.unwrap();
        assert_eq!((more.patience.queue, more.patience.wait), (2, Duration::from_secs(1)));
        assert!(more.priority.is_some());
        for (toml, place) in
            [("limit = 1, priority = '('", "priority"), ("limit = 1, queue = 1, wait = '0s'", "wait")]
        {
            assert_eq!(check(&format!("requests = {{ {toml} }}")).unwrap_err(), [place], "{toml}");
        }
    }
}
