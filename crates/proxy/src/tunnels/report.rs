//! What there is, told: the originals' JSON shapes, our own status, and metrics.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Map, Value, json};
use sluice_tunnel::registration::{Unregistered, Version};

use super::{End, Refused, Tunnel, Tunnels};
use crate::observe::metrics::{Collector, Exposition, Kind};

/// Routes that have metrics of their own; the others are counted together.
const LABELS: usize = 100;

/// What one tunnel is, in a report.
struct Shown {
    domain: String,
    route: String,
    tunnel: std::sync::Arc<Tunnel>,
}

impl Tunnels {
    fn shown(&self) -> Vec<Shown> {
        let mut out = Vec::new();
        self.each(|domain, route, pool| {
            out.extend(pool.shown().map(|tunnel| Shown {
                domain: domain.to_owned(),
                route: route.to_owned(),
                tunnel: std::sync::Arc::clone(tunnel),
            }));
        });
        out
    }

    /// `{"<route>": {"<ip>": {}}, "default": {}}`: `GET /api/registrations`. An address that is dark says so.
    pub fn registrations(&self) -> Value {
        let mut routes: BTreeMap<String, Map<String, Value>> = BTreeMap::new();
        routes.insert("default".to_owned(), Map::new());
        for Shown { route, tunnel, .. } in self.shown() {
            let name = if route.is_empty() { "default".to_owned() } else { route };
            let told = if tunnel.is_dark() { json!({ "darkMode": true }) } else { json!({}) };
            routes.entry(name).or_default().insert(tunnel.origin.peer.ip().to_string(), told);
        }
        Value::Object(routes.into_iter().map(|(route, addresses)| (route, addresses.into())).collect())
    }

    /// `{"services": {...}}`: `GET /health/connectors`.
    pub fn connectors(&self) -> Value {
        let mut services: BTreeMap<String, Vec<Shown>> = BTreeMap::new();
        self.each(|_, route, _| _ = services.entry(named(route).to_owned()).or_default());
        for shown in self.shown() {
            services.entry(named(&shown.route).to_owned()).or_default().push(shown);
        }
        let services: Map<String, Value> = (services.into_iter())
            .map(|(route, tunnels)| {
                let service = self.service(&route, tunnels);
                (route, service)
            })
            .collect();
        json!({ "services": services })
    }

    fn service(&self, route: &str, tunnels: Vec<Shown>) -> Value {
        let component = tunnels.first().map(|shown| shown.tunnel.origin.component.to_string());
        let mut connectors: BTreeMap<String, Vec<Shown>> = BTreeMap::new();
        for shown in tunnels {
            connectors.entry(shown.tunnel.origin.instance.to_string()).or_default().push(shown);
        }
        let connectors: Vec<Value> = (connectors.into_iter())
            .filter_map(|(instance, tunnels)| {
                let first = &tunnels.first()?.tunnel;
                Some(json!({
                    "connectorInstanceID": instance,
                    "ip": first.origin.peer.ip().to_string(),
                    "componentName": &*first.origin.component,
                    "connectionCount": tunnels.len(),
                    "darkMode": first.is_dark(),
                    "connections": tunnels.iter().map(connection).collect::<Vec<_>>(),
                }))
            })
            .collect();
        json!({ "name": route, "componentName": component, "isCatchAll": route == "*", "connectors": connectors })
    }

    /// `GET /health`.
    pub fn health(&self) -> Value {
        let mut map: BTreeMap<String, HashMap<String, usize>> = BTreeMap::new();
        map.insert("default".to_owned(), HashMap::new());
        let mut count = 0;
        for Shown { route, tunnel, .. } in self.shown() {
            count += 1;
            let name = if route.is_empty() { "default".to_owned() } else { route };
            *map.entry(name).or_default().entry(tunnel.origin.peer.ip().to_string()).or_default() += 1;
        }
        // Which, is told to those who prove who they are.
        let (is_on, is_gray) = self.dark_mode();
        json!({
            "component": "sluice",
            "description": "Open tunnels of this gateway",
            "version": env!("CARGO_PKG_VERSION"),
            "service": "/health/connectors",
            "git-url": env!("CARGO_PKG_REPOSITORY"),
            "isAvailable": true,
            "dependencies": [{ "router": {
                "CrankerProtocol": "1.0, 3.0",
                "activeConnections": count,
                "services": "/health/connectors",
                "darkMode": { "isOn": is_on, "grayTestToggle": is_gray },
                "isAvailable": true,
                "Services Register Map": map,
            }}],
        })
    }

    /// For our own status: open tunnels, and those that could be taken, of each place.
    pub fn status(&self) -> Value {
        let mut out = Vec::new();
        self.each(|domain, route, pool| {
            let (idle, multiplexed) = pool.counts();
            out.push(json!({
                "route": named(route),
                "domain": named(domain),
                "open": pool.open,
                "idle": idle,
                "multiplexed": multiplexed,
                "dark": pool.dark(),
                "waiting": pool.shared.waiting.load(Ordering::Relaxed),
            }));
        });
        Value::Array(out)
    }
}

fn named(place: &str) -> &str {
    if place.is_empty() { "*" } else { place }
}

fn connection(shown: &Shown) -> Value {
    let Shown { domain, tunnel, .. } = shown;
    let mut connection = json!({
        "socketID": tunnel.number.to_string(),
        "port": tunnel.origin.peer.port(),
        "protocol": tunnel.origin.version.subprotocol(),
    });
    if tunnel.origin.version == Version::V3 {
        connection["inflight"] = tunnel.in_flight().into();
        if !domain.is_empty() {
            connection["domain"] = domain.as_str().into();
        }
    }
    connection
}

impl Collector for Tunnels {
    fn collect(&self, out: &mut Exposition) {
        // Route, and open, idle and waiting.
        let mut routes: Vec<(String, [usize; 3])> = Vec::new();
        self.each(|_, route, pool| {
            let (idle, multiplexed) = pool.counts();
            let numbers = [pool.open, idle + multiplexed, pool.shared.waiting.load(Ordering::Relaxed)];
            let name = match routes.len() {
                ..LABELS => named(route),
                _ => "(others)",
            };
            match routes.last_mut().filter(|(last, _)| *last == name) {
                Some((_, sums)) => sums.iter_mut().zip(numbers).for_each(|(sum, number)| *sum += number),
                None => routes.push((name.to_owned(), numbers)),
            }
        });
        if routes.is_empty() && self.accepted.load(Ordering::Relaxed) == 0 {
            // Nobody tunnels here.
            return;
        }
        let families = [
            ("sluice_tunnels_open", "Tunnels that are open."),
            ("sluice_tunnels_available", "Idle tunnels of 1.0, and all of 3.0."),
            ("sluice_tunnel_waiting", "Requests that wait for a tunnel."),
        ];
        for (index, (name, help)) in families.into_iter().enumerate() {
            let mut family = out.family(name, help, Kind::Gauge);
            for (route, numbers) in &routes {
                family.sample(&[("route", route)], numbers[index] as u64);
            }
        }
        let mut family = out.family(
            "sluice_tunnel_registrations_total",
            "Tunnels that were opened or refused.",
            Kind::Counter,
        );
        family.sample(&[("result", "accepted")], self.accepted.load(Ordering::Relaxed));
        let refused = Refused::ALL.iter().map(|refused| refused.code());
        let unregistered = Unregistered::ALL.iter().map(|unregistered| unregistered.code());
        let counted = refused.zip(&self.refused).chain(unregistered.zip(&self.unregistered));
        let value = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        counted.for_each(|(code, counter)| family.sample(&[("result", code)], value(counter)));
        let mut family =
            out.family("sluice_tunnel_ends_total", "Tunnels that ended, by reason.", Kind::Counter);
        for (end, counter) in End::ALL.iter().zip(&self.ends) {
            family.sample(&[("reason", end.code())], value(counter));
        }
    }
}
