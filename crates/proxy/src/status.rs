//! What runs, told to people (`/v1/status`) and to scrapes (gauges of endpoints).

use std::sync::{Arc, Weak};

use serde_json::{Value, json};
use sluice_traffic::Moment;
use sluice_traffic::breaker::State;
use sluice_traffic::selection::{Fitness, Service};

use crate::gates::{Named, Totals};
use crate::gateway::Gateway;
use crate::observe::metrics::{Collector, Exposition, Kind};
use crate::snapshot::Snapshot;
use crate::upstream::Upstream;

/// Everything a person asks first: revision, listeners, routes, upstreams and their endpoints.
pub fn status(gateway: &Gateway) -> Value {
    let snapshot = gateway.snapshot();
    let now = gateway.clock.moment(gateway.clock.now());
    let listeners: Vec<Value> = (snapshot.listeners.iter())
        .map(|(policy, bound)| {
            json!({
                "name": &*policy.name,
                "address": bound.address.to_string(),
                "protocol": policy.protocol.word(),
                "connections": bound.connections(),
            })
        })
        .collect();
    let routes: Vec<&str> = snapshot.model.routes.iter().map(|route| &*route.name).collect();
    let upstreams: Vec<Value> =
        snapshot.upstreams.iter().map(|upstream| upstream_status(upstream, now)).collect();
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "revision": snapshot.revision,
        "process_id": std::process::id(),
        "uptime_seconds": now.0 / 1_000_000_000,
        "draining": gateway.is_draining(),
        "listeners": listeners,
        "routes": routes,
        "upstreams": upstreams,
        "breakers": breakers(&snapshot, now),
        "limits": limits(&snapshot),
        "tunnels": snapshot.tunnels.status(),
    })
}

/// The breakers of routes and upstreams.
fn breakers(snapshot: &Snapshot, now: Moment) -> Vec<Value> {
    let all = snapshot.shared.circuits.all(now).into_iter();
    all.map(|told| json!({ "of": told.around.word(), "name": told.name, "state": breaker(told.state) }))
        .collect()
}

/// What limits how much runs at once.
fn limits(snapshot: &Snapshot) -> Vec<Value> {
    let each = |named: Arc<Named>| {
        let Totals { limit, inside, waiting, refused } = named.kind.totals();
        json!({ "name": named.name, "limit": limit, "running": inside, "waiting": waiting, "refused": refused })
    };
    snapshot.shared.gates.all().into_iter().map(each).collect()
}

fn upstream_status(upstream: &Upstream, now: Moment) -> Value {
    let endpoint = |index: usize| {
        let endpoint = &upstream.endpoints[index];
        json!({
            "address": &*endpoint.address,
            "weight": endpoint.policy.weight,
            "backup": endpoint.policy.backup,
            "state": state(upstream, index, now),
            "in_flight": endpoint.live.in_flight(),
            "breaker": breaker(endpoint.live.breaker.state(now)),
        })
    };
    json!({
        "name": &*upstream.name,
        "balance": upstream.policy.balance.kind().name(),
        "endpoints": (0..upstream.endpoints.len()).map(endpoint).collect::<Vec<_>>(),
    })
}

/// One word for where an endpoint stands.
pub fn state(upstream: &Upstream, index: usize, now: Moment) -> &'static str {
    let standing = upstream.standing(index, now);
    match (standing.service, standing.fitness) {
        (Service::Disabled, _) => "disabled",
        (Service::Draining, _) => "draining",
        (Service::Enabled, Fitness::Fit) => "available",
        (Service::Enabled, Fitness::BreakerOpen) => "breaker-open",
        (Service::Enabled, Fitness::Ejected) => "ejected",
        (Service::Enabled, Fitness::Unhealthy) => "unhealthy",
    }
}

fn breaker(state: State) -> &'static str {
    match state {
        State::Closed => "closed",
        State::Open => "open",
        State::HalfOpen => "half-open",
    }
}

/// What limits how much runs at once, and the breakers of routes and upstreams.
fn overload(snapshot: &Snapshot, now: Moment, out: &mut Exposition) {
    let help = "Breakers of routes and upstreams: 0 closed, 1 open, 2 half-open.";
    let mut family = out.family("sluice_breaker_state", help, Kind::Gauge);
    for told in snapshot.shared.circuits.all(now) {
        let state: u64 = match told.state {
            State::Closed => 0,
            State::Open => 1,
            State::HalfOpen => 2,
        };
        family.sample(&[("of", told.around.word()), ("name", &told.name)], state);
    }
    let limits = snapshot.shared.gates.all();
    let totals: Vec<_> = limits.iter().map(|named| (&*named.name, named.kind.totals())).collect();
    let mut each = |name, help, kind, value: &dyn Fn(&Totals) -> u64| {
        let mut family = out.family(name, help, kind);
        for (limit, totals) in &totals {
            family.sample(&[("limit", limit)], value(totals));
        }
    };
    each("sluice_limit_places", "How many may run at once.", Kind::Gauge, &|totals| u64::from(totals.limit));
    each("sluice_limit_running", "How many do.", Kind::Gauge, &|totals| totals.inside);
    each("sluice_limit_waiting", "How many wait to.", Kind::Gauge, &|totals| totals.waiting);
    each("sluice_limit_refused_total", "How many were turned away.", Kind::Counter, &|totals| totals.refused);
}

/// Gauges of endpoints, read when somebody scrapes.
pub struct Gauges(Weak<Gateway>);

impl Gauges {
    /// Of this gateway; does not keep it alive.
    pub fn new(gateway: &Arc<Gateway>) -> Gauges {
        Gauges(Arc::downgrade(gateway))
    }
}

impl Collector for Gauges {
    fn collect(&self, out: &mut Exposition) {
        let Some(gateway) = self.0.upgrade() else { return };
        let snapshot = gateway.snapshot();
        let now = gateway.clock.moment(gateway.clock.now());
        let mut each = |name, help, value: &dyn Fn(&Upstream, usize) -> u64| {
            let mut family = out.family(name, help, Kind::Gauge);
            for upstream in &snapshot.upstreams {
                for (index, endpoint) in upstream.endpoints.iter().enumerate() {
                    let labels = [("upstream", &*upstream.name), ("endpoint", &*endpoint.address)];
                    family.sample(&labels, value(upstream, index));
                }
            }
        };
        each("sluice_endpoint_up", "Whether an endpoint takes traffic.", &|upstream, index| {
            u64::from(state(upstream, index, now) == "available")
        });
        each(
            "sluice_endpoint_in_flight",
            "Attempts at an endpoint that have not ended.",
            &|upstream, index| u64::from(upstream.endpoints[index].live.in_flight()),
        );
        each("sluice_endpoint_breaker_state", "0 closed, 1 open, 2 half-open.", &|upstream, index| {
            match upstream.endpoints[index].live.breaker.state(now) {
                State::Closed => 0,
                State::Open => 1,
                State::HalfOpen => 2,
            }
        });
        overload(&snapshot, now, out);
    }
}
