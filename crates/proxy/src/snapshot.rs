//! What runs: a model with its live state, immutable, one revision.
//!
//! Promise: building one changes nothing that runs. What survives a change, by identity:
//! * an endpoint's live state (in-flight count, health, breaker, ejection, latency): upstream name and
//!   address, here;
//! * its connection places: as long as `max_connections` is the same, here;
//! * its idle connections and the balancer's position, in each worker: see `upstream::Local::new`;
//! * a listener's sockets and connections: name and address, or the address alone when it was renamed, here;
//! * breakers of routes and upstreams, and limits of what runs at once: by name, in `filter::Shared`;
//! * counters: by their labels, in the metrics registry;
//! * health check tasks: as long as the check is the same, in `health::monitor`;
//! * which passwords were found right a moment ago, connections to Redis, what limits and quotas have counted: in
//!   `filter::Shared`;
//! * tunnels, and who waits for one: in `tunnels`, which is of the process;
//! * TLS sessions: as long as a listener's or upstream's TLS and the files it names are the same, in
//!   `tls::Loaded`; those of clients also over a change of certificates;
//! * the access log's file: as long as its configuration is the same, here.

use std::collections::HashMap;
use std::net::ToSocketAddrs;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

use crate::address::Address;
use crate::circuit::Around;
use crate::config::document::{Document, Process};
use crate::config::model::{ListenerPolicy, Model};
use crate::filter;
use crate::gate::Patience;
use crate::gates::Limited;
use crate::limit::consumer::OfConsumer;
use crate::load::{consumer_limits, load_filters, load_listeners};
use crate::observe::access_log::AccessLog;
use crate::observe::diagnostic::Diagnostics;
use crate::observe::metrics::{Collector, Registry};
use crate::problem::{At, Problems};
use crate::sockets::{self, Bound, Inherited, Listening};
use crate::tls;
use crate::tunnels::Tunnels;
use crate::upstream::affinity::By;
use crate::upstream::config::{EndpointPolicy, Policy, PoolPolicy};
use crate::upstream::{Endpoint, Upstream};

/// What runs.
pub struct Snapshot {
    /// Counts changes, from 1.
    pub revision: u64,
    /// The document it came from.
    pub document: Document,
    /// What it does.
    pub model: Model,
    /// The upstreams, in the model's order.
    pub upstreams: Vec<Arc<Upstream>>,
    /// The listeners and their sockets.
    pub listeners: Vec<(Arc<ListenerPolicy>, Arc<Bound>)>,
    /// Certificates and what listeners and upstreams run with.
    pub tls: tls::Loaded,
    /// Where exchanges are logged.
    pub log: Option<Arc<AccessLog>>,
    /// What the filters share.
    pub shared: filter::Shared,
    /// The limits of each consumer, by its position.
    pub consumer_limits: Vec<OfConsumer>,
    /// The tunnels of the process.
    pub tunnels: Arc<Tunnels>,
}

/// A snapshot that is ready to run, with the sockets that are new in it: for each worker one of each.
pub struct Built {
    /// The snapshot.
    pub snapshot: Arc<Snapshot>,
    /// New sockets: listener name, one socket for each worker.
    pub sockets: Vec<(Arc<str>, Vec<Listening>)>,
}

/// Builds the next snapshot; `now` is Unix time. Binds sockets, resolves names and reads the files that the
/// document names; on any problem nothing stays behind.
pub fn build(
    document: Document,
    mut model: Model,
    (before, now): (Option<&Snapshot>, Duration),
    (workers, secret, inherited): (usize, &[u8], &mut Vec<Inherited>),
    observe: (&Registry, &Diagnostics),
) -> Result<Built, Problems> {
    let mut problems = Problems::new();
    let shared =
        before.map_or_else(|| start(secret, &document.process, observe), |before| before.shared.clone());
    load_listeners(&mut model, &shared, &mut problems);
    let tunnels = before.map_or_else(|| first_tunnels(observe), |before| Arc::clone(&before.tunnels));
    load_filters(&mut model, &shared, &mut problems);
    let consumer_limits = consumer_limits(&model, &shared, &mut problems);
    let now = now.as_secs().try_into().unwrap_or(i64::MAX);
    let tls = tls::Loaded::load(&model.tls(), before.map(|before| &before.tls), now, &mut problems);
    let upstreams = upstreams(&model, before, (secret, &tls, &shared, &tunnels), &mut problems);
    let log = log(&model, before, observe, &mut problems);
    let (listeners, sockets) = listeners(&model, before, (workers, inherited), &mut problems);
    if !problems.is_empty() {
        return Err(problems);
    }
    for caution in tls.cautions() {
        observe.1.warn(caution, &[]);
    }
    let revision = before.map_or(1, |before| before.revision + 1);
    tunnels.set_policy(model.tunnels.clone());
    let snapshot = Snapshot {
        revision,
        document,
        model,
        upstreams,
        listeners,
        tls,
        log,
        shared,
        consumer_limits,
        tunnels,
    };
    let snapshot = Arc::new(snapshot);
    Ok(Built { snapshot, sockets })
}

/// What filters share in a process that starts.
fn start(
    secret: &[u8],
    process: &Process,
    (registry, diagnostics): (&Registry, &Diagnostics),
) -> filter::Shared {
    let shared = filter::Shared::new(secret);
    if let Some(state) = &process.state {
        shared.limits.keep_in(state.into());
    }
    shared.redis.report_to(diagnostics);
    shared.key_sets.report_to(diagnostics);
    registry.register(shared.redis.clone());
    shared
}

/// The tunnels of a process that starts: none.
fn first_tunnels((registry, diagnostics): (&Registry, &Diagnostics)) -> Arc<Tunnels> {
    let tunnels = Tunnels::new(diagnostics);
    let collector: Arc<dyn Collector> = Arc::<Tunnels>::clone(&tunnels);
    registry.register(collector);
    tunnels
}

fn upstreams(
    model: &Model,
    before: Option<&Snapshot>,
    (secret, tls, shared, tunnels): (&[u8], &tls::Loaded, &filter::Shared, &Arc<Tunnels>),
    problems: &mut Problems,
) -> Vec<Arc<Upstream>> {
    let mut out = Vec::with_capacity(model.upstreams.len());
    for (name, policy) in &model.upstreams {
        let old = before.and_then(|before| before.upstreams.iter().find(|upstream| upstream.name == *name));
        let at = At::root().key("upstreams").key(&**name).key("endpoints");
        let endpoints: Vec<_> = (policy.endpoints.iter().enumerate())
            .map(|(index, endpoint)| {
                let addresses = match policy.discovery {
                    Some(_) => Vec::new(),
                    None => resolve(&endpoint.address, &at.index(index), problems),
                };
                self::endpoint((name, policy), endpoint, (addresses, old), (secret, shared))
            })
            .collect();
        let group = old.map(|old| Arc::clone(&old.group)).unwrap_or_default();
        let tokens =
            endpoints.iter().enumerate().map(|(index, endpoint)| (endpoint.token.clone(), index)).collect();
        out.push(Arc::new(Upstream {
            name: Arc::clone(name),
            policy: policy.clone(),
            endpoints,
            tls: tls.client(name).cloned(),
            circuit: (policy.group_breaker)
                .map(|policy| shared.circuits.circuit(Around::Upstream, name, policy)),
            gate: (policy.concurrency).map(|(limit, patience)| {
                Limited::new(&shared.gates, &format!("upstream {name}"), limit, patience)
            }),
            tunnels: policy.discovery.is_some().then(|| Arc::clone(tunnels)),
            group,
            tokens,
        }));
    }
    out
}

fn endpoint(
    (upstream, policy): (&str, &Policy),
    endpoint: &EndpointPolicy,
    (addresses, old): (Vec<Address>, Option<&Arc<Upstream>>),
    (secret, shared): (&[u8], &filter::Shared),
) -> Endpoint {
    let kept = old.and_then(|old| {
        let same = old.endpoints.iter().find(|known| *known.address == *endpoint.address);
        same.map(|known| (known, old.policy.pool.max_connections))
    });
    let places = policy.pool.max_connections;
    let limit = match kept {
        Some((known, before)) if before == places => known.limit.clone(),
        _ => places.map(|places| Arc::new(Semaphore::new(places))),
    };
    let gate = policy.pool.max_requests.map(|limit| {
        let PoolPolicy { queue, queue_timeout, .. } = policy.pool;
        let patience = Patience { queue, wait: queue_timeout, ..Patience::NONE };
        Limited::new(&shared.gates, &format!("endpoint {} of {upstream}", endpoint.address), limit, patience)
    });
    let token = match policy.affinity.as_ref().map(|affinity| &affinity.by) {
        Some(By::Cookie(cookie)) => cookie.token(upstream, &endpoint.id, secret),
        _ => String::new(),
    };
    Endpoint {
        address: Arc::from(endpoint.address.as_str()),
        addresses,
        policy: endpoint.clone(),
        live: kept.map(|(known, _)| Arc::clone(&known.live)).unwrap_or_default(),
        limit,
        gate,
        token,
    }
}

fn resolve(address: &str, at: &At, problems: &mut Problems) -> Vec<Address> {
    if let Some(unix) = Address::unix(address) {
        return problems.take(at, unix).into_iter().collect();
    }
    match address.to_socket_addrs().map(|found| found.map(Address::Inet).collect::<Vec<_>>()) {
        Ok(addresses) if !addresses.is_empty() => addresses,
        Ok(_) => {
            problems.add(at, format!("`{address}` has no address"));
            Vec::new()
        }
        Err(error) => {
            problems
                .add(at, format!("`{address}` cannot be resolved: {error}"))
                .hint("use an address, or a name that this machine can resolve");
            Vec::new()
        }
    }
}

fn log(
    model: &Model,
    before: Option<&Snapshot>,
    (registry, diagnostics): (&Registry, &Diagnostics),
    problems: &mut Problems,
) -> Option<Arc<AccessLog>> {
    let wanted = model.access_log.as_ref()?;
    if let Some(before) = before
        && before.model.access_log.as_ref() == Some(wanted)
    {
        return before.log.clone();
    }
    let at = At::root().key("access_log").key("path");
    match AccessLog::open(wanted.clone(), registry, diagnostics) {
        Ok(log) => Some(log),
        Err(error) => {
            problems.add(&at, format!("the access log cannot be opened: {error}"));
            None
        }
    }
}

type Listeners = Vec<(Arc<ListenerPolicy>, Arc<Bound>)>;
type Sockets = Vec<(Arc<str>, Vec<Listening>)>;

fn listeners(
    model: &Model,
    before: Option<&Snapshot>,
    (workers, inherited): (usize, &mut Vec<Inherited>),
    problems: &mut Problems,
) -> (Listeners, Sockets) {
    let known: HashMap<_, _> = before
        .into_iter()
        .flat_map(|before| &before.listeners)
        .map(|(policy, bound)| ((Arc::clone(&policy.name), bound.configured.clone()), bound))
        .collect();
    let (mut listeners, mut sockets) = (Vec::new(), Vec::new());
    for policy in &model.listeners {
        let renamed = || {
            let left = |old: &Arc<str>| !model.listeners.iter().any(|now| now.name == *old);
            known.iter().find(|((old, place), bound)| {
                let taken = listeners.iter().any(|(_, taken)| Arc::ptr_eq(taken, bound));
                let named = place.address.inet().is_none_or(|address| address.port() != 0);
                *place == policy.place && named && left(old) && !taken
            })
        };
        let same = known.get(&(Arc::clone(&policy.name), policy.place.clone()));
        if let Some(bound) = same.or_else(|| renamed().map(|(_, bound)| bound)) {
            listeners.push((Arc::clone(policy), Arc::clone(bound)));
            continue;
        }
        let bound = sockets::bind(&policy.place, policy.mode, workers, inherited)
            .and_then(|sockets| Ok((Bound::new(&policy.place, &sockets)?, sockets)));
        match bound {
            Ok((bound, new)) => {
                listeners.push((Arc::clone(policy), bound));
                sockets.push((Arc::clone(&policy.name), new));
            }
            Err(error) => {
                let at = At::root().key("listeners").key(&*policy.name).key("address");
                let problem =
                    problems.add(&at, format!("{} cannot be listened on: {error}", policy.place.address));
                if error.kind() == std::io::ErrorKind::AddrInUse {
                    problem.hint("stop the process that listens there, or choose another port");
                } else if policy.place.address.inet().is_none() {
                    problem.hint("the folder must be there, and this user must be able to write in it");
                } else if error.kind() == std::io::ErrorKind::PermissionDenied {
                    problem.hint("ports below 1024 need the capability CAP_NET_BIND_SERVICE");
                }
            }
        }
    }
    (listeners, sockets)
}
