//! The `acl` filter: which of those that are known may come in.
//!
//! Promise: nobody passes whom no filter before it has identified, unless `when` alone is asked.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sluice_http::Request;

use super::{Filter, Flow, Known};
use crate::closest::closest;
use crate::consumer::Consumer;
use crate::exchange::Exchange;
use crate::expression::{Expression, checked};
use crate::failure::Failure;
use crate::problem::{At, Problems};
use crate::scene::Scene;

/// Lets in by who is asking: put it behind basic_auth, api_key, jwt or hmac, which find that out. Others get 403.
/// A consumer passes that is named in `consumers` or belongs to a group of `allow`; without both, everyone that is
/// known passes.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Groups whose consumers may come in.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allow: Vec<String>,
    /// Consumers that may come in, by name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub consumers: Vec<String>,
    /// Groups whose consumers may not come in, whatever else they belong to.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub deny: Vec<String>,
    /// A condition that must hold besides: "jwt.claims.role == \"admin\"". With nothing else it is the only one, and
    /// no consumer is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub when: Option<String>,
}

/// The checked filter.
#[derive(Debug)]
pub struct Acl {
    config: Config,
    when: Option<Expression>,
}

impl Filter for Acl {
    type Config = Config;

    const NAME: &'static str = "acl";

    fn build(config: &Config, at: &At, problems: &mut Problems) -> Option<Acl> {
        let found = problems.iter().count();
        for (key, list) in
            [("allow", &config.allow), ("consumers", &config.consumers), ("deny", &config.deny)]
        {
            for (index, name) in list.iter().enumerate().filter(|(_, name)| name.is_empty()) {
                problems.add(&at.key(key).index(index), format!("the name `{name}` is empty"));
            }
        }
        for (index, group) in config.deny.iter().enumerate().filter(|(_, group)| config.allow.contains(group))
        {
            let at = at.key("deny").index(index);
            problems.add(&at, format!("group `{group}` is allowed and denied"));
        }
        let when = (config.when.as_ref())
            .and_then(|text| checked(Expression::condition_on_route(text), &at.key("when"), problems));
        (problems.iter().count() == found).then(|| Acl { config: config.clone(), when })
    }

    fn find(&mut self, known: &Known<'_>, at: &At, problems: &mut Problems) {
        let names = || known.consumers.all().iter().map(|consumer| &*consumer.name);
        for (index, name) in self.config.consumers.iter().enumerate() {
            if known.consumers.named(name).is_none() {
                let at = at.key("consumers").index(index);
                let problem = problems.add(&at, format!("there is no consumer `{name}`"));
                if let Some(meant) = closest(name, names()) {
                    problem.hint(format!("did you mean `{meant}`?"));
                }
            }
        }
    }

    async fn on_request(
        &self,
        _scene: &Scene<'_>,
        exchange: &mut Exchange,
        request: &mut Request,
    ) -> Result<Flow, Failure> {
        let Config { allow, consumers, deny, .. } = &self.config;
        let by_rule_alone =
            self.when.is_some() && allow.is_empty() && consumers.is_empty() && deny.is_empty();
        let permitted = match &exchange.consumer {
            Some(consumer) => self.permits(consumer),
            None => by_rule_alone,
        };
        let holds = self.when.as_ref().is_none_or(|when| when.holds(&exchange.facts(&request.head)));
        match permitted && holds {
            true => Ok(Flow::Continue),
            false => Err(Failure::Forbidden),
        }
    }
}

impl Acl {
    fn permits(&self, consumer: &Consumer) -> bool {
        let Config { allow, consumers, deny, .. } = &self.config;
        let within = |groups: &[String]| groups.iter().any(|group| consumer.is_in(group));
        let named = consumers.iter().any(|name| **name == *consumer.name);
        let everyone = allow.is_empty() && consumers.is_empty();
        !within(deny) && (everyone || named || within(allow))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::consumer::{Claims, Consumers};
    use crate::filter::fixture;

    fn known() -> Arc<Consumers> {
        fixture::consumers("[anna]\ngroups = ['gold', 'late']\n[bob]\ngroups = ['silver']\n[carl]")
    }

    fn build(toml: &str) -> Result<Acl, Vec<String>> {
        let config: Config = toml_edit::de::from_str(toml).unwrap();
        let mut problems = Problems::new();
        let at = At::root().key("acl");
        let mut built = Acl::build(&config, &at, &mut problems);
        if let Some(acl) = &mut built {
            acl.find(&fixture::known(&known()), &at, &mut problems);
        }
        let told = || problems.iter().map(|problem| format!("{}: {}", problem.at, problem.message)).collect();
        built.filter(|_| problems.is_empty()).ok_or_else(told)
    }

    async fn passes(acl: &Acl, who: &str, claims: &str) -> bool {
        let mut exchange = fixture::exchange("/");
        exchange.consumer = known().named(who).cloned();
        exchange.claims = serde_json::from_str(claims).ok().map(|object| Claims::of(&object));
        let mut request = fixture::request("GET", "/");
        match acl.on_request(&fixture::stage().scene(), &mut exchange, &mut request).await {
            Ok(Flow::Continue) => true,
            Err(Failure::Forbidden) => false,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test(flavor = "local")]
    async fn groups_and_names_decide_and_who_is_not_known_never_passes() {
        for (toml, expected) in [
            ("", [true, true, true, false]),
            ("allow = ['gold', 'silver']", [true, true, false, false]),
            ("allow = ['gold']\nconsumers = ['carl']", [true, false, true, false]),
            ("deny = ['late']", [false, true, true, false]),
            ("consumers = ['anna']\ndeny = ['late']", [false, false, false, false]),
            ("when = '\"gold\" in consumer.groups || consumer.name == \"bob\"'", [true, true, false, false]),
            ("allow = ['gold']\nwhen = 'request.method == \"PUT\"'", [false, false, false, false]),
        ] {
            let acl = build(toml).unwrap();
            for (who, expected) in ["anna", "bob", "carl", "nobody"].into_iter().zip(expected) {
                assert_eq!(passes(&acl, who, "").await, expected, "{toml} {who}");
            }
        }
    }

    #[tokio::test(flavor = "local")]
    async fn a_condition_alone_asks_for_no_consumer() {
        let acl = build("when = 'jwt.claims.role == \"admin\" && !has(jwt.claims.tenant)'").unwrap();
        assert!(passes(&acl, "nobody", r#"{"role":"admin"}"#).await);
        assert!(!passes(&acl, "nobody", r#"{"role":"guest"}"#).await);
        assert!(!passes(&acl, "nobody", "").await);
    }

    #[test]
    fn what_is_wrong_is_told_at_its_place() {
        assert_eq!(
            build("allow = ['a', '']\ndeny = ['a']\nwhen = 'jwt.claim.x'").unwrap_err(),
            [
                "acl.allow[1]: the name `` is empty",
                "acl.deny[0]: group `a` is allowed and denied",
                "acl.when: `jwt` has no member `claim`",
            ]
        );
        assert_eq!(
            build("consumers = ['ana']").unwrap_err(),
            ["acl.consumers[0]: there is no consumer `ana`"]
        );
    }
}
