//! Which route a request takes, why, and where it would go.
//!
//! Works on a model alone: nothing is sent, no name is resolved, and the pick is the one a fresh worker
//! would make with every endpoint well.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use serde_json::{Value, json};
use sluice_http::{FieldName, Method, NameId, RequestHead};
use sluice_traffic::Rng;
use sluice_traffic::balance::{Balancer, Member, View};

use crate::action::Action;
use crate::action::forward_proxy::{ForwardProxy, destination, rules::Kind};
use crate::config::document::Protocol;
use crate::config::model::{Model, Route};
use crate::exchange::{Client, Exchange};
use crate::facts::Scheme;
use crate::failure::Failure;
use crate::filter;
use crate::pipeline::normalize;
use crate::route::{Explanation, Lookup};
use crate::upstream::config::{EndpointPolicy, EndpointState, Policy};
use crate::world::Clock;

/// A request that nobody sends.
pub struct Question<'a> {
    /// The method.
    pub method: &'a str,
    /// The URL.
    pub url: &'a str,
    /// Fields: "Name: value".
    pub fields: &'a [String],
    /// The client's address.
    pub client: IpAddr,
    /// The listener it comes through; the first when none is named.
    pub listener: Option<&'a str>,
}

/// Where a request would go, and why.
pub struct Answer {
    routing: Explanation,
    then: Option<Then>,
}

/// What would happen after the route is found.
struct Then {
    filters: Vec<&'static str>,
    action: Does,
}

enum Does {
    Respond,
    Redirect,
    Token,
    Tunnel,
    RegisterTunnels,
    /// What the rules say of the destination.
    ForwardProxy(String),
    Forward {
        upstream: String,
        balance: &'static str,
        endpoints: Vec<EndpointPolicy>,
        pick: Option<usize>,
    },
}

/// Answers a question about a model.
///
/// # Errors
/// What is wrong with the question: no URL, no field, an unknown listener, a path that is refused.
pub fn explain(model: &Model, question: &Question<'_>, clock: Clock) -> Result<Answer, String> {
    let head = request(question)?;
    let listener = match question.listener {
        Some(name) if model.listeners.iter().any(|listener| *listener.name == *name) => Arc::from(name),
        Some(name) => return Err(format!("there is no listener `{name}`")),
        None => (model.listeners.iter())
            .find(|listener| listener.protocol == Protocol::Http)
            .map(|first| Arc::clone(&first.name))
            .unwrap_or_default(),
    };
    let scheme = if question.url.starts_with("https://") { Scheme::Https } else { Scheme::Http };
    let peer = SocketAddr::new(question.client, 0);
    let client = Client { peer, address: question.client, scheme, listener, tls: None };
    let mut exchange = Exchange::begin(client, "explained".to_owned(), clock.now());
    let path = normalize::path(head.path());
    let refused =
        |failure: Failure| format!("the path is refused: {} {}", failure.row().status, failure.code());
    exchange.path = path.map_err(refused)?.into_owned();
    let now = clock.unix().as_secs();
    let table = model
        .table_for(head.method)
        .ok_or("no route has the action forward_proxy: CONNECT is refused with 405")?;
    let routing = table.explain(&exchange.facts(&head), now);
    let then = match table.find(&exchange.facts(&head), now) {
        Lookup::Found { route, .. } => Some(then(&model.routes[route], model, (&head, scheme))),
        _ => None,
    };
    Ok(Answer { routing, then })
}

fn request(args: &Question<'_>) -> Result<RequestHead, String> {
    let rest = args.url.strip_prefix("http://").or_else(|| args.url.strip_prefix("https://"));
    let Some(rest) = rest else {
        return Err(format!("`{}` is not a URL; write http://host/path", args.url));
    };
    let (authority, target) = match rest.find(['/', '?']) {
        Some(at) if rest.as_bytes()[at] == b'?' => (&rest[..at], format!("/{}", &rest[at..])),
        Some(at) => (&rest[..at], rest[at..].to_owned()),
        None => (rest, "/".to_owned()),
    };
    if FieldName::new(args.method).is_none() {
        return Err(format!("`{}` is not a method", args.method));
    }
    let target = if args.method == "CONNECT" { authority } else { &target };
    let mut head = RequestHead::new(args.method, target);
    head.fields.append(NameId::Host, authority.as_bytes());
    for line in args.fields {
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

/// What the rules say of where a request wants to go. What names resolve to is not known here.
fn decision(proxy: &ForwardProxy, head: &RequestHead, scheme: Scheme) -> String {
    let authority = head.authority();
    // Clients ask for a tunnel to what is under TLS.
    let kind =
        if head.method == Method::Connect || scheme == Scheme::Https { Kind::Connect } else { Kind::Plain };
    let with_port = format!("{authority}:443");
    let to = destination(authority, kind).or_else(|| destination(&with_port, kind));
    let Some(to) = to else { return format!("`{authority}` is not a destination") };
    let known = crate::resolve::known(to.host).and_then(|known| known.ok()?.first().copied());
    let decision = match known {
        Some(address) => proxy.rules.decide(to, address).to_string(),
        None => proxy.rules.explain_name(to),
    };
    format!("{}:{} {decision}", to.host, to.port)
}

fn then(route: &Route, model: &Model, (head, scheme): (&RequestHead, Scheme)) -> Then {
    let action = match &route.action {
        Action::Respond(_) => Does::Respond,
        Action::Redirect(_) => Does::Redirect,
        Action::Token(_) => Does::Token,
        Action::Tunnel(_) => Does::Tunnel,
        Action::RegisterTunnels(_) => Does::RegisterTunnels,
        Action::ForwardProxy(proxy) => Does::ForwardProxy(decision(proxy, head, scheme)),
        Action::Forward(forward) => {
            let (name, policy) = &model.upstreams[forward.upstream];
            Does::Forward {
                upstream: name.to_string(),
                balance: policy.balance.kind().name(),
                endpoints: policy.endpoints.clone(),
                pick: pick(policy),
            }
        }
    };
    Then { filters: route.filters.iter().map(filter::Built::name).collect(), action }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.routing.to_string().trim_end())?;
        let Some(then) = &self.then else { return Ok(()) };
        let filters = if then.filters.is_empty() { "none".to_owned() } else { then.filters.join(", ") };
        writeln!(f, "filters   {filters}")?;
        match &then.action {
            Does::Respond => writeln!(f, "action    respond"),
            Does::Redirect => writeln!(f, "action    redirect"),
            Does::Token => writeln!(f, "action    token"),
            Does::Tunnel => writeln!(f, "action    tunnel"),
            Does::RegisterTunnels => writeln!(f, "action    register_tunnels"),
            Does::ForwardProxy(decision) => {
                writeln!(f, "action    forward_proxy")?;
                writeln!(f, "rules     {decision}")
            }
            Does::Forward { upstream, balance, endpoints, pick } => {
                writeln!(f, "action    forward to upstream `{upstream}` ({balance})")?;
                for endpoint in endpoints {
                    let role = if endpoint.backup { "backup" } else { "primary" };
                    let EndpointPolicy { address, weight, .. } = endpoint;
                    writeln!(f, "endpoint  {address} (weight {weight}, {role}, {})", endpoint.state.word())?;
                }
                match pick {
                    Some(index) => {
                        writeln!(
                            f,
                            "pick      {} (a fresh worker's, all endpoints well)",
                            endpoints[*index].address
                        )
                    }
                    None => writeln!(f, "pick      none: no endpoint is enabled"),
                }
            }
        }
    }
}

impl Answer {
    /// The same for programs.
    pub fn to_json(&self) -> Value {
        let then = self.then.as_ref().map(|then| match &then.action {
            Does::Respond => json!({ "filters": then.filters, "action": "respond" }),
            Does::Redirect => json!({ "filters": then.filters, "action": "redirect" }),
            Does::Token => json!({ "filters": then.filters, "action": "token" }),
            Does::Tunnel => json!({ "filters": then.filters, "action": "tunnel" }),
            Does::RegisterTunnels => json!({ "filters": then.filters, "action": "register_tunnels" }),
            Does::ForwardProxy(decision) => {
                json!({ "filters": then.filters, "action": "forward_proxy", "rules": decision })
            }
            Does::Forward { upstream, balance, endpoints, pick } => json!({
                "filters": then.filters,
                "action": "forward",
                "upstream": upstream,
                "balance": balance,
                "endpoints": endpoints.iter().map(|endpoint| &endpoint.address).collect::<Vec<_>>(),
                "pick": pick.map(|index| &endpoints[index].address),
            }),
        });
        json!({ "routing": self.routing, "then": then })
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
