//! Runs health checks on the control thread: one task for each endpoint, kept over configuration changes
//! as long as its check is the same.

use std::collections::HashMap;
use std::sync::Arc;

use sluice_traffic::Rng;
use sluice_traffic::health::Tracker;
use tokio::task::JoinHandle;

use super::dial::{Line, Over};
use super::{Check, Policy, tcp};
use crate::address::Address;
use crate::gateway::Gateway;
use crate::snapshot::Snapshot;
use crate::tls::Offer;
use crate::upstream::Upstream;
use crate::upstream::config::{EndpointState, Protocol};
use crate::upstream::live::{Health, Live};
use crate::upstream::proxy_header::ProxyProtocol;

/// The running checks.
pub struct Monitor {
    gateway: Arc<Gateway>,
    tasks: HashMap<(Arc<str>, Arc<str>), Task>,
}

struct Task {
    /// The check's whole description: another one means another task.
    description: String,
    handle: JoinHandle<()>,
}

/// What one task asks, and where it notes the answer.
struct Patient {
    gateway: Arc<Gateway>,
    upstream: Arc<str>,
    address: Arc<str>,
    addresses: Vec<Address>,
    line: Line,
    live: Arc<Live>,
    policy: Policy,
}

impl Monitor {
    /// Nothing is checked yet.
    pub fn new(gateway: Arc<Gateway>) -> Monitor {
        Monitor { gateway, tasks: HashMap::new() }
    }

    /// Checks what the snapshot says, and nothing else any more.
    #[expect(
        clippy::disallowed_methods,
        reason = "health checks live on the control thread, beside the workers"
    )]
    pub fn watch(&mut self, snapshot: &Snapshot) {
        let mut before = std::mem::take(&mut self.tasks);
        for upstream in &snapshot.upstreams {
            let checked =
                |endpoint: &&crate::upstream::Endpoint| endpoint.policy.state != EndpointState::Disabled;
            for endpoint in upstream.endpoints.iter().filter(checked) {
                let key = (Arc::clone(&upstream.name), Arc::clone(&endpoint.address));
                let Some(policy) = &upstream.policy.health else {
                    endpoint
                        .live
                        .set_health(Health::Unknown, self.gateway.clock.moment(self.gateway.clock.now()));
                    continue;
                };
                let Some(line) = line(upstream, &endpoint.address, policy) else { continue };
                let tls = line.tls.as_ref().map(|(config, _)| Arc::as_ptr(config));
                let (over, header) = (line.over, &line.header);
                let description = format!("{policy:?} {:?} {header:?} {over:?} {tls:?}", endpoint.addresses);
                match before.remove(&key) {
                    Some(task) if task.description == description => {
                        self.tasks.insert(key, task);
                        continue;
                    }
                    Some(task) => task.handle.abort(),
                    None => {}
                }
                let patient = Patient {
                    gateway: Arc::clone(&self.gateway),
                    upstream: Arc::clone(&upstream.name),
                    address: Arc::clone(&endpoint.address),
                    addresses: endpoint.addresses.clone(),
                    line,
                    live: Arc::clone(&endpoint.live),
                    policy: policy.clone(),
                };
                let handle = tokio::spawn(patient.watch());
                self.tasks.insert(key, Task { description, handle });
            }
        }
        before.into_values().for_each(|task| task.handle.abort());
    }

    /// Checks nothing any more.
    pub fn stop(&mut self) {
        self.tasks.drain().for_each(|(_, task)| task.handle.abort());
    }
}

/// How the endpoint at `address` is spoken to by this check.
fn line(upstream: &Upstream, address: &str, policy: &Policy) -> Option<Line> {
    let over = match upstream.policy.protocol {
        Protocol::Http2 => Over::Http2,
        Protocol::Http1 | Protocol::Auto => Over::Http1,
    };
    let offer = match (&policy.check, over) {
        (Check::Grpc(_), _) | (_, Over::Http2) => Offer::Http2,
        _ => Offer::Http1,
    };
    let tls = match &upstream.tls {
        // A name that is none is a problem of the document.
        Some(tls) => Some((Arc::clone(tls.config(offer)), tls.server_name(address)?)),
        None => None,
    };
    let header = upstream.policy.proxy_protocol.map_or(Vec::new(), ProxyProtocol::nobody);
    Some(Line { header, tls, over })
}

impl Patient {
    /// Asks at once, then at every interval, give or take a tenth.
    async fn watch(self) {
        let mut rng = Rng::new(fastrand::u64(..));
        let schedule = self.policy.schedule;
        let mut tracker = Tracker::new(self.live.health());
        loop {
            let asked = tokio::time::timeout(schedule.timeout, self.ask()).await;
            let result = asked.unwrap_or_else(|_| Err("no answer in time".into()));
            if result.is_ok() {
                // Traffic may have found it failing; it waits for its return no longer than for this check.
                self.live.ejection.clear(self.gateway.clock.moment(self.gateway.clock.now()));
            }
            if tracker.observe(result.is_ok(), schedule.rise, schedule.fall).is_some() {
                self.note(&result);
            }
            tokio::time::sleep(sluice_traffic::health::jitter(schedule.every, &mut rng)).await;
        }
    }

    /// What stands for the endpoint where a name is wanted: a Unix socket has none.
    fn host(&self, address: &Address) -> &str {
        if address.inet().is_some() { &self.address } else { "localhost" }
    }

    async fn ask(&self) -> Result<(), String> {
        let mut last = Err("no address".to_owned());
        for address in &self.addresses {
            last = match &self.policy.check {
                Check::Tcp => tcp::check(address, &self.line).await,
                Check::Http(check) => check.ask(address, self.host(address), &self.line).await,
                Check::Grpc(check) => check.ask(address, self.host(address), &self.line).await,
            };
            if last.is_ok() {
                break;
            }
        }
        last
    }

    fn note(&self, result: &Result<(), String>) {
        let clock = self.gateway.clock;
        let health = if result.is_ok() { Health::Healthy } else { Health::Unhealthy };
        self.live.set_health(health, clock.moment(clock.now()));
        let why: &str = result.as_ref().err().map_or("the check succeeded", String::as_str);
        let state = if result.is_ok() { "healthy" } else { "unhealthy" };
        let fields: [(&str, &dyn std::fmt::Display); 4] =
            [("upstream", &self.upstream), ("endpoint", &self.address), ("state", &state), ("why", &why)];
        self.gateway.diagnostics.info("endpoint health changed", &fields);
    }
}
