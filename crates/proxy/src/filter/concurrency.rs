//! The `concurrency` filter: how many exchanges of a route run at once, who waits, and who is turned away.
//!
//! Promise: an exchange holds its place until its last byte, also as a tunnel; who waits keeps a place in a
//! bounded queue for a bounded time; who is turned away gets 503 with Retry-After before anything is sent on.

use std::num::{NonZeroU16, NonZeroU32};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sluice_http::{Request, Response};
use sluice_traffic::gradient::Policy;
use sluice_traffic::queue::Order;

use super::{Carries, Filter, Flow, Loading};
use crate::address::origin_of;
use crate::exchange::{Exchange, Outcome};
use crate::expression::{Expression, checked};
use crate::failure::Failure;
use crate::gate::{Gate, Patience};
use crate::gates::{Kind, Named, Wanted};
use crate::problem::{At, Problems};
use crate::scene::Scene;
use crate::value::Period;

/// Limits how many exchanges run at once. Further ones wait in a queue, or get 503 with Retry-After.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// How many. Either this or `adaptive`; neither when the filter only gives a `priority`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<NonZeroU32>,
    /// The limit is learnt from how long requests take: it grows while they take as long as usual, and shrinks
    /// when they take longer or time out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub adaptive: Option<Adaptive>,
    /// Who is counted together: "route" (all), "client" (each address; IPv6 by its /64), "consumer" (each
    /// consumer or user; without one each address), or each value of an expression; a request
    /// without such a value counts by its address. Default "route".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per: Option<String>,
    /// Filters with the same name have one limit together, whatever their routes are. Default: the route's
    /// name and `per`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// How many may wait. Default 0.
    pub queue: u32,
    /// How long they wait. Default "1s".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wait: Option<Period>,
    /// Who of them is next. Default "oldest".
    pub order: OrderConfig,
    /// An expression that gives a whole number: whose is higher goes first, and takes the place of a lower one
    /// in a full queue. It holds for the limits behind this one too, those of the upstream and of endpoints.
    /// Default: what a limit before said, or 0. For example `request.path.startsWith("/pay") ? 10 : 0`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<String>,
}

/// A limit that is learnt.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Adaptive {
    /// Never fewer. Default 10.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min: Option<NonZeroU16>,
    /// Never more. Default 1000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max: Option<NonZeroU16>,
    /// Where it starts. Default 50.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub initial: Option<NonZeroU16>,
    /// How many times longer than usual requests may take. Default 1.5.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tolerance: Option<f64>,
}

/// Who of those that wait is next.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum OrderConfig {
    /// Who has waited longest.
    #[default]
    Oldest,
    /// Who came last: in a long overload, where those who waited long have gone or will be late anyway.
    Newest,
}

impl OrderConfig {
    /// The same for a queue.
    pub fn order(self) -> Order {
        match self {
            OrderConfig::Oldest => Order::Oldest,
            OrderConfig::Newest => Order::Newest,
        }
    }
}

/// The checked filter.
#[derive(Debug)]
pub struct Concurrency {
    /// None: it only gives a priority.
    wanted: Option<Wanted>,
    limit: u32,
    per: Per,
    name: Option<String>,
    patience: Patience,
    priority: Option<Expression>,
    /// None until it is loaded: then nobody is let in.
    gates: Option<Arc<Named>>,
    /// Whether the gate knows of this limit: it may run for an older document until a request comes.
    told: AtomicBool,
}

/// Who is counted together.
#[derive(Debug)]
enum Per {
    Route,
    Client,
    Consumer,
    Value(Expression),
}

impl Per {
    fn text(&self) -> &str {
        match self {
            Per::Route => "route",
            Per::Client => "client",
            Per::Consumer => "consumer",
            Per::Value(expression) => expression.as_str(),
        }
    }
}

impl Filter for Concurrency {
    type Config = Config;

    const NAME: &'static str = "concurrency";

    fn build(config: &Config, at: &At, problems: &mut Problems) -> Option<Concurrency> {
        let found = problems.iter().count();
        let per = match config.per.as_deref() {
            None | Some("route") => Some(Per::Route),
            Some("client") => Some(Per::Client),
            Some("consumer") => Some(Per::Consumer),
            Some(text) => checked(Expression::value(text), &at.key("per"), problems).map(Per::Value),
        };
        let priority = (config.priority.as_ref())
            .map(|text| checked(Expression::value(text), &at.key("priority"), problems));
        let adaptive = config.adaptive.and_then(|config| config.check(&at.key("adaptive"), problems));
        let single = matches!(per, Some(Per::Route));
        let wanted = match (config.limit, adaptive) {
            (Some(limit), None) if single => Some(Wanted::One(limit.get())),
            (Some(_), None) => Some(Wanted::Each),
            (None, Some(policy)) => Some(Wanted::Adaptive(policy)),
            _ => None,
        };
        let only_urgent = Config { priority: config.priority.clone(), ..Config::default() } == *config;
        if config.limit.is_some() == config.adaptive.is_some() && !(only_urgent && priority.is_some()) {
            problems.add(at, "either `limit` or `adaptive` says how many").hint("limit = 100");
        } else if config.adaptive.is_some() && !single && per.is_some() {
            problems.add(&at.key("per"), "what is learnt is the limit of a whole route");
        }
        if config.queue > 0 && config.wait.is_some_and(|wait| wait.0.is_zero()) {
            problems.add(&at.key("wait"), "nobody waits for no time").hint("leave out `queue`");
        }
        if problems.iter().count() > found {
            return None;
        }
        Some(Concurrency {
            wanted,
            limit: config.limit.map_or(0, NonZeroU32::get),
            per: per?,
            name: config.name.clone(),
            patience: Patience {
                queue: config.queue as usize,
                wait: config.wait.map_or(Duration::from_secs(1), |wait| wait.0),
                order: config.order.order(),
            },
            priority: priority.flatten(),
            gates: None,
            told: AtomicBool::new(false),
        })
    }

    fn carries(config: &Config) -> Carries {
        match config {
            Config { adaptive: Some(_), .. } => Carries::Requests,
            Config { queue: 0, .. } => Carries::Flows,
            _ => Carries::Connections,
        }
    }

    fn load(&mut self, loading: &Loading<'_>, at: &At, problems: &mut Problems) {
        let Some(wanted) = self.wanted else { return };
        let name = match &self.name {
            Some(name) => {
                let at = at.key("name");
                loading.seen.once(loading.route, &format!("places of {name}"), &at, problems);
                loading.seen.agree(name, &self.said(), &at, problems);
                name.clone()
            }
            None => {
                let name = format!("{} per {}", loading.route, self.per.text());
                // It stands in metrics: in one line.
                loading.seen.apart(loading.route, name).replace("\nnumber ", ", ")
            }
        };
        self.gates = Some(loading.shared.gates.named(&name, wanted));
    }

    async fn on_request(
        &self,
        scene: &Scene<'_>,
        exchange: &mut Exchange,
        request: &mut Request,
    ) -> Result<Flow, Failure> {
        if let Some(priority) = &self.priority {
            let said = priority.text(&exchange.facts(&request.head)).and_then(|text| text.parse().ok());
            exchange.priority = said.unwrap_or(0);
        }
        if self.wanted.is_none() {
            return Ok(Flow::Continue);
        }
        let gate = self.gate(exchange, request).ok_or(Failure::Internal)?;
        let permit = gate.enter(scene.world, exchange.priority, self.patience).await?;
        exchange.held.keep(permit, scene.world, exchange.started);
        Ok(Flow::Continue)
    }

    async fn on_response(&self, exchange: &mut Exchange, response: &mut Response) -> Result<(), Failure> {
        if !matches!(self.wanted, Some(Wanted::Adaptive(_))) {
            return Ok(());
        }
        let answered = Some(exchange.phases.first_byte).filter(|first_byte| !first_byte.is_zero());
        let learnt = match exchange.outcome {
            // A refusal further on, or an end of somebody's patience: there was too much.
            Outcome::Failed(
                Failure::Overloaded
                | Failure::UpstreamTimeout
                | Failure::ConnectTimeout
                | Failure::ExchangeTimeout,
            ) => Some(None),
            Outcome::Completed if matches!(response.head.status, 429 | 503 | 504) => Some(None),
            Outcome::Completed => answered.map(Some),
            // What the gateway answered itself, or what broke, says nothing about load.
            _ => None,
        };
        if let Some(took) = learnt {
            exchange.held.learn(took);
        }
        Ok(())
    }
}

impl Concurrency {
    /// What is to be the same under one name.
    fn said(&self) -> String {
        let per = self.per.text();
        match self.wanted {
            Some(Wanted::Adaptive(Policy { min, max, .. })) => format!("a learnt limit of {min} to {max}"),
            _ => format!("a limit of {} per {per}", self.limit),
        }
    }

    /// The gate of an exchange, with the limit that is written here.
    fn gate(&self, exchange: &Exchange, request: &Request) -> Option<Arc<Gate>> {
        let keyed = match &self.gates.as_ref()?.kind {
            Kind::One(gate) => {
                if !self.told.swap(true, Ordering::Relaxed) {
                    match self.wanted {
                        Some(Wanted::Adaptive(policy)) => gate.set_policy(policy),
                        _ => gate.set_limit(self.limit),
                    }
                }
                return Some(Arc::clone(gate));
            }
            Kind::Each(keyed) => keyed,
        };
        // The kind of a key is part of it: no user can have the name of a consumer or the bytes of an address.
        let of = |kind: u8, key: &[u8]| keyed.gate(&[&[kind], key].concat(), self.limit);
        let client = || of(b'a', &origin_of(exchange.client.address));
        let gate = match &self.per {
            Per::Consumer if let Some(consumer) = &exchange.consumer => of(b'c', consumer.name.as_bytes()),
            Per::Consumer if let Some(user) = &exchange.user => of(b'u', user.as_bytes()),
            Per::Route | Per::Client | Per::Consumer => client(),
            Per::Value(expression) => match expression.text(&exchange.facts(&request.head)) {
                Some(value) => of(b'v', value.as_bytes()),
                None => client(),
            },
        };
        if gate.limit() != self.limit {
            gate.set_limit(self.limit);
        }
        Some(gate)
    }
}

impl Adaptive {
    fn check(self, at: &At, problems: &mut Problems) -> Option<Policy> {
        let or =
            |number: Option<NonZeroU16>, default| number.map_or(default, |number| u32::from(number.get()));
        let usual = Policy::default();
        let policy = Policy {
            min: or(self.min, usual.min),
            max: or(self.max, usual.max),
            initial: or(self.initial, usual.initial),
            tolerance: self.tolerance.unwrap_or(usual.tolerance),
        };
        if policy.min > policy.max {
            problems.add(&at.key("min"), "the least is more than the most");
            return None;
        }
        if !(1.0..=100.0).contains(&policy.tolerance) {
            problems.add(&at.key("tolerance"), "how many times longer than usual: 1 to 100");
            return None;
        }
        Some(policy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filter::{Shared, fixture};

    fn build(toml: &str, shared: &Shared) -> Result<Concurrency, Vec<String>> {
        let config: Config = toml_edit::de::from_str(toml).unwrap();
        let mut problems = Problems::new();
        let built = Concurrency::build(&config, &At::root(), &mut problems);
        assert_eq!(built.is_some(), problems.is_empty());
        let mut built =
            built.ok_or(problems.iter().map(|problem| problem.at.to_string()).collect::<Vec<_>>())?;
        built.load(&fixture::loading(shared), &At::root(), &mut problems);
        Ok(built)
    }

    /// Lets one exchange from an address in.
    async fn enter(filter: &Concurrency, client: &str, path: &str) -> Result<Exchange, Failure> {
        let stage = fixture::stage();
        let mut exchange = fixture::exchange(path);
        exchange.client.address = client.parse().unwrap();
        let mut request = fixture::request("GET", path);
        filter.on_request(&stage.scene(), &mut exchange, &mut request).await.map(|_| exchange)
    }

    #[tokio::test(flavor = "local")]
    async fn an_exchange_holds_its_place_until_it_ends() {
        let filter = build("limit = 2", &Shared::new(b"")).unwrap();
        let first = enter(&filter, "192.0.2.1", "/").await.unwrap();
        let _second = enter(&filter, "192.0.2.2", "/").await.unwrap();
        assert_eq!(enter(&filter, "192.0.2.3", "/").await.err(), Some(Failure::Overloaded));
        drop(first);
        assert!(enter(&filter, "192.0.2.3", "/").await.is_ok());
    }

    #[tokio::test(flavor = "local")]
    async fn each_client_and_each_value_has_a_limit_of_its_own() {
        let filter = build("limit = 1\nper = 'client'", &Shared::new(b"")).unwrap();
        let _held = [
            enter(&filter, "192.0.2.1", "/").await.unwrap(),
            enter(&filter, "192.0.2.2", "/").await.unwrap(),
            enter(&filter, "2001:db8::1", "/").await.unwrap(),
        ];
        for client in ["192.0.2.1", "::ffff:192.0.2.2", "2001:db8::2"] {
            assert_eq!(enter(&filter, client, "/").await.err(), Some(Failure::Overloaded), "{client}");
        }
        let filter = build("limit = 1\nper = 'request.path'", &Shared::new(b"")).unwrap();
        let _held = [enter(&filter, "::1", "/a").await.unwrap(), enter(&filter, "::1", "/b").await.unwrap()];
        assert!(enter(&filter, "::1", "/a").await.is_err());
    }

    #[tokio::test(flavor = "local")]
    async fn who_has_no_such_value_counts_by_the_address_and_a_user_is_no_consumer() {
        let filter = build("limit = 1\nper = \"request.headers['x-tenant']\"", &Shared::new(b"")).unwrap();
        let _held = [
            enter(&filter, "192.0.2.1", "/").await.unwrap(),
            enter(&filter, "192.0.2.2", "/").await.unwrap(),
        ];
        assert!(enter(&filter, "192.0.2.2", "/").await.is_err());
        let filter = build("limit = 1\nper = 'consumer'", &Shared::new(b"")).unwrap();
        let known = fixture::consumers("anna = {}");
        let (stage, mut held) = (fixture::stage(), Vec::new());
        for is_consumer in [true, false] {
            let (mut exchange, mut request) = (fixture::exchange("/"), fixture::request("GET", "/"));
            exchange.user = Some("anna".into());
            exchange.consumer = known.named("anna").filter(|_| is_consumer).cloned();
            assert_eq!(exchange.consumer.is_some(), is_consumer);
            let flow = filter.on_request(&stage.scene(), &mut exchange, &mut request).await;
            assert!(flow.is_ok(), "{is_consumer}");
            held.push(exchange);
        }
    }

    #[tokio::test(flavor = "local")]
    async fn a_new_document_keeps_who_is_inside_and_takes_effect_with_its_first_request() {
        let shared = Shared::new(b"");
        let before = build("limit = 2", &shared).unwrap();
        let _held = [enter(&before, "::1", "/").await.unwrap(), enter(&before, "::1", "/").await.unwrap()];
        let refused = build("limit = 1", &shared).unwrap();
        drop(refused);
        let after = build("limit = 3", &shared).unwrap();
        let third = enter(&after, "::1", "/").await.unwrap();
        assert!(enter(&after, "::1", "/").await.is_err());
        drop(third);
        let apart = build("limit = 1\nname = 'mine'", &shared).unwrap();
        assert!(enter(&apart, "::1", "/").await.is_ok());
    }

    #[tokio::test(flavor = "local")]
    async fn equal_limits_on_a_route_are_two_and_those_of_one_name_agree() {
        let (shared, mut problems) = (Shared::new(b""), Problems::new());
        let loading = fixture::loading(&shared);
        let mut load = |toml: &str, route: &'static str| {
            let config: Config = toml_edit::de::from_str(toml).unwrap();
            let mut built = Concurrency::build(&config, &At::root(), &mut Problems::new()).unwrap();
            built.load(&Loading { route, ..loading }, &At::root(), &mut problems);
            built
        };
        let (wide, narrow) = (load("limit = 2", "a"), load("limit = 1", "a"));
        let held = [enter(&wide, "::1", "/").await.unwrap(), enter(&wide, "::1", "/").await.unwrap()];
        assert!(enter(&narrow, "::1", "/").await.is_ok());
        assert!(enter(&wide, "::1", "/").await.is_err());
        drop(held);
        load("limit = 1\nname = 'n'", "a");
        load("limit = 1\nname = 'n'", "b");
        load("limit = 2\nname = 'n'", "c");
        load("limit = 1\nname = 'n'", "b");
        let places: Vec<_> = problems.iter().map(|problem| problem.message.as_str()).collect();
        assert_eq!(
            places,
            [
                "another filter of the name `n` has a limit of 1 per route, and this one a limit of 2 per route",
                "this limit stands on the route already: it would count each request twice",
            ]
        );
    }

    #[tokio::test(flavor = "local")]
    async fn a_priority_goes_with_the_exchange() {
        let shared = Shared::new(b"");
        let urgent = build("priority = 'request.path == \"/pay\" ? 9 : 1'", &shared).unwrap();
        let mut exchange = enter(&urgent, "::1", "/pay").await.unwrap();
        assert_eq!((exchange.priority, exchange.held.count()), (9, 0));
        let plain = build("limit = 1", &shared).unwrap();
        let (stage, mut request) = (fixture::stage(), fixture::request("GET", "/pay"));
        plain.on_request(&stage.scene(), &mut exchange, &mut request).await.unwrap();
        assert_eq!((exchange.priority, exchange.held.count()), (9, 1));
    }

    #[tokio::test(flavor = "local")]
    async fn answers_teach_an_adaptive_limit() {
        let filter = build("adaptive = { min = 1, initial = 20, max = 100 }", &Shared::new(b"")).unwrap();
        let Kind::One(gate) = &filter.gates.as_ref().unwrap().kind else { panic!() };
        let mut held = Vec::new();
        for _ in 0..20 {
            held.push(enter(&filter, "::1", "/").await.unwrap());
        }
        assert!(enter(&filter, "::1", "/").await.is_err());
        for exchange in &mut held {
            // Far enough in the clock's future for a window to end each time.
            exchange.outcome = Outcome::Failed(Failure::UpstreamTimeout);
            filter.on_response(exchange, &mut fixture::response(504)).await.unwrap();
            exchange.outcome = Outcome::Completed;
            exchange.phases.first_byte = Duration::from_secs(1);
            filter.on_response(exchange, &mut fixture::response(503)).await.unwrap();
        }
        for (exchange, seconds) in held.iter_mut().zip(1..) {
            exchange.phases.first_byte = Duration::from_secs(seconds);
            filter.on_response(exchange, &mut fixture::response(200)).await.unwrap();
        }
        assert!(gate.limit() < 20, "{gate:?}");
    }

    #[test]
    fn what_makes_no_sense_is_a_problem() {
        let shared = Shared::new(b"");
        for (toml, place) in [
            ("", ""),
            ("limit = 1\nadaptive = {}", ""),
            ("queue = 1\npriority = '1'", ""),
            ("adaptive = {}\nper = 'client'", "per"),
            ("limit = 1\nper = 'request.nope'", "per"),
            ("limit = 1\npriority = '('", "priority"),
            ("limit = 1\nqueue = 1\nwait = '0s'", "wait"),
            ("adaptive = { min = 10, max = 9 }", "adaptive.min"),
            ("adaptive = { tolerance = 0.5 }", "adaptive.tolerance"),
        ] {
            let problems = build(toml, &shared).unwrap_err();
            assert!(problems.first().is_some_and(|first| first == place), "{toml}: {problems:?}");
        }
        let carries = |toml: &str| Concurrency::carries(&toml_edit::de::from_str(toml).unwrap());
        assert_eq!(carries("limit = 1"), Carries::Flows);
        assert_eq!(carries("limit = 1\nqueue = 1"), Carries::Connections);
        assert_eq!(carries("adaptive = {}"), Carries::Requests);
    }
}
