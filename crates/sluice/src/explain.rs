//! `sluice route explain`: which route a request takes, why, and where it would go.
//!
//! Works on a configuration alone: nothing is sent, no name is resolved, and the pick is the one a fresh
//! worker would make with every endpoint well.

use std::net::SocketAddr;
use std::sync::Arc;

use serde_json::{Value, json};
use sluice_http::{FieldName, NameId, RequestHead};
use sluice_proxy::action::Action;
use sluice_proxy::config::check::check;
use sluice_proxy::config::model::{Model, Route};
use sluice_proxy::exchange::{Client, Exchange};
use sluice_proxy::facts::Scheme;
use sluice_proxy::pipeline::normalize;
use sluice_proxy::route::Lookup;
use sluice_proxy::upstream::config::{EndpointPolicy, EndpointState, Policy};
use sluice_proxy::world::Clock;
use sluice_traffic::Rng;
use sluice_traffic::balance::{Balancer, Member, View};

use crate::cli::{Exit, ExplainArgs, ReportFormat, complain, say};
use crate::documents::{self, Unusable};

/// Explains a request's route.
pub(crate) fn explain(args: &ExplainArgs) -> Exit {
    let head = match request(args) {
        Ok(head) => head,
        Err(text) => {
            complain(&format!("error: {text}"));
            return Exit::Usage;
        }
    };
    let path = match documents::find(args.config.as_deref()) {
        Ok(path) => path,
        Err(text) => {
            complain(&format!("error: {text}"));
            return Exit::Config;
        }
    };
    let model = documents::read(&path).and_then(|source| {
        let loaded = documents::load(&source, path.parent())?;
        check(&loaded.document).map_err(|problems| Unusable::Problems(Box::new(loaded.report(&problems))))
    });
    match model {
        Ok(model) => show(args, &model, &head),
        Err(unusable) => unusable.complain(),
    }
}

fn request(args: &ExplainArgs) -> Result<RequestHead, String> {
    let rest = args.url.strip_prefix("http://").or_else(|| args.url.strip_prefix("https://"));
    let Some(rest) = rest else {
        return Err(format!("`{}` is not a URL; write http://host/path", args.url));
    };
    let (authority, target) = match rest.find(['/', '?']) {
        Some(at) if rest.as_bytes()[at] == b'?' => (&rest[..at], format!("/{}", &rest[at..])),
        Some(at) => (&rest[..at], rest[at..].to_owned()),
        None => (rest, "/".to_owned()),
    };
    if FieldName::new(&args.method).is_none() {
        return Err(format!("`{}` is not a method", args.method));
    }
    let mut head = RequestHead::new(&args.method, &target);
    head.fields.append(NameId::Host, authority.as_bytes());
    for line in &args.headers {
        let field =
            line.split_once(':').and_then(|(name, value)| Some((FieldName::new(name.trim())?, value.trim())));
        let Some((name, value)) = field else {
            return Err(format!("`{line}` is not a field; write \"Name: value\""));
        };
        if name.id() == NameId::Host {
            head.fields.set(NameId::Host, value.as_bytes());
        } else {
            head.fields.append(&name, value.as_bytes());
        }
    }
    Ok(head)
}

fn show(args: &ExplainArgs, model: &Model, head: &RequestHead) -> Exit {
    let listener = match (&args.listener, model.listeners.first()) {
        (Some(name), _) if model.listeners.iter().any(|listener| *listener.name == **name) => {
            Arc::from(name.as_str())
        }
        (Some(name), _) => {
            complain(&format!("error: there is no listener `{name}`"));
            return Exit::Usage;
        }
        (None, Some(first)) => Arc::clone(&first.name),
        (None, None) => Arc::default(),
    };
    let clock = Clock::start();
    let scheme = if args.url.starts_with("https://") { Scheme::Https } else { Scheme::Http };
    let client = Client { peer: SocketAddr::new(args.client, 0), address: args.client, scheme, listener };
    let mut exchange = Exchange::begin(client, "explained".to_owned(), clock.now());
    exchange.path = match normalize::path(head.path()) {
        Ok(path) => path.into_owned(),
        Err(failure) => return say(&format!("refused: {} ({})", failure.row().status, failure.code())),
    };
    let now = clock.unix().as_secs();
    let explanation = model.table.explain(&exchange.facts(head), now);
    let found = match model.table.find(&exchange.facts(head), now) {
        Lookup::Found { route, .. } => Some(&model.routes[route]),
        _ => None,
    };
    match args.format {
        ReportFormat::Text => {
            let mut text = explanation.to_string();
            if let Some(route) = found {
                text = format!("{}\n{}", text.trim_end(), after(route, model));
            }
            say(text.trim_end())
        }
        ReportFormat::Json => {
            let route = found.map(|route| after_json(route, model));
            say(&format!("{:#}", json!({ "routing": explanation, "then": route })))
        }
    }
}

/// What happens after the route is found, as text.
fn after(route: &Route, model: &Model) -> String {
    let filters: Vec<&str> = route.filters.iter().map(|filter| filter.name()).collect();
    let mut out =
        format!("filters   {}\n", if filters.is_empty() { "none".to_owned() } else { filters.join(", ") });
    match &route.action {
        Action::Respond(_) => out.push_str("action    respond\n"),
        Action::Redirect(_) => out.push_str("action    redirect\n"),
        Action::Forward(forward) => {
            let (name, policy) = &model.upstreams[forward.upstream];
            out.push_str(&format!(
                "action    forward to upstream `{name}` ({})\n",
                policy.balance.kind().name()
            ));
            for endpoint in &policy.endpoints {
                let backup = if endpoint.backup { ", backup" } else { "" };
                out.push_str(&format!(
                    "endpoint  {} (weight {}{backup}, {:?})\n",
                    endpoint.address, endpoint.weight, endpoint.state
                ));
            }
            let pick = pick(policy)
                .map_or("none: no endpoint is enabled", |index| policy.endpoints[index].address.as_str());
            out.push_str(&format!("pick      {pick} (a fresh worker's, all endpoints well)\n"));
        }
    }
    out
}

fn after_json(route: &Route, model: &Model) -> Value {
    let filters: Vec<&str> = route.filters.iter().map(|filter| filter.name()).collect();
    match &route.action {
        Action::Respond(_) => json!({ "filters": filters, "action": "respond" }),
        Action::Redirect(_) => json!({ "filters": filters, "action": "redirect" }),
        Action::Forward(forward) => {
            let (name, policy) = &model.upstreams[forward.upstream];
            json!({
                "filters": filters,
                "action": "forward",
                "upstream": &**name,
                "balance": policy.balance.kind().name(),
                "endpoints": policy.endpoints.iter().map(|endpoint| &endpoint.address).collect::<Vec<_>>(),
                "pick": pick(policy).map(|index| &policy.endpoints[index].address),
            })
        }
    }
}

/// What a fresh worker picks first, with every endpoint well and idle.
fn pick(policy: &Policy) -> Option<usize> {
    struct Fresh<'a>(&'a Policy);
    impl View for Fresh<'_> {
        fn len(&self) -> usize {
            self.0.endpoints.len()
        }
        fn available(&self, index: usize) -> bool {
            let endpoint = &self.0.endpoints[index];
            let primaries =
                self.0.endpoints.iter().any(|other| !other.backup && other.state == EndpointState::Enabled);
            endpoint.state == EndpointState::Enabled && !(endpoint.backup && primaries)
        }
        fn weight(&self, index: usize) -> f64 {
            f64::from(self.0.endpoints[index].weight)
        }
        fn in_flight(&self, _: usize) -> u32 {
            0
        }
        fn latency(&self, _: usize) -> f64 {
            0.0
        }
    }
    let member = |endpoint: &EndpointPolicy| (endpoint.address.clone(), endpoint.weight);
    let members: Vec<_> = policy.endpoints.iter().map(member).collect();
    let members: Vec<Member<'_>> =
        members.iter().map(|(key, weight)| Member { key, weight: *weight }).collect();
    let mut balancer = Balancer::new(&policy.balance, &members);
    balancer.pick(&Fresh(policy), 0, &mut Rng::new(0))
}
