//! A worker: one thread, one single-threaded runtime, its own pools, positions, buffers and cells.
//!
//! Promise: nothing a request does here takes a lock or touches another worker, but for the atomics of
//! endpoints. Orders (a new snapshot, drain) come through a mailbox; an exchange keeps the snapshot it
//! began with.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sluice_http::RequestHead;
use sluice_traffic::breaker::Change;
use tokio::sync::{mpsc, oneshot};

use crate::action::forward_proxy::outward::Outward;
use crate::circuit::Circuit;
use crate::config::model::ListenerPolicy;
use crate::gateway::Gateway;
use crate::listener::LocalListener;
use crate::listener::accept::{self, Acceptor};
use crate::observe::access_log::LogWriter;
use crate::observe::metrics::{ConsumerCells, RouteCells};
use crate::pipeline::forwarded;
use crate::protocol::udp;
use crate::request_id;
use crate::snapshot::Snapshot;
use crate::sockets::Listening;
use crate::upstream::live::Live;
use crate::upstream::{Events, Local, Upstream};
use crate::world::World;

/// The route of tunnel listeners, where routes are named.
const REGISTRATIONS: &str = "(registrations)";

/// How often idle connections are looked over and the access log is flushed.
const SWEEP: Duration = Duration::from_millis(200);

/// What a worker is told.
pub enum Order {
    /// Run this snapshot from the next exchange on, with sockets for listeners that are new; say when.
    Adopt(Arc<Snapshot>, Vec<(Arc<str>, Listening)>, oneshot::Sender<()>),
    /// Give up idle connections to an endpoint: somebody waits for a place.
    Shed(Arc<Live>),
    /// Accept no more, finish what runs, then end.
    Drain,
    /// End now, whatever runs.
    End,
}

/// A worker's state.
pub struct Worker {
    /// What all workers share.
    pub gateway: Arc<Gateway>,
    /// Its time, randomness and tasks.
    pub world: Rc<World>,
    /// Its open connections.
    pub connections: Rc<Cell<usize>>,
    index: usize,
    running: RefCell<Rc<Running>>,
    draining: Cell<bool>,
}

/// A snapshot together with a worker's own part of it.
pub struct Running {
    /// The snapshot.
    pub snapshot: Arc<Snapshot>,
    /// The worker's part of each upstream, in the model's order.
    pub upstreams: Vec<Rc<Local>>,
    /// The routes' names, in the model's order: the worker's own copies, see `upstream::Local::name`.
    pub names: Vec<Arc<str>>,
    /// Counters of each route, in the model's order.
    pub routes: Vec<Arc<RouteCells>>,
    /// Counters of consumers, in the model's order.
    pub consumers: Vec<Arc<ConsumerCells>>,
    /// Counters of exchanges without a route.
    pub unrouted: Arc<RouteCells>,
    /// The same of exchanges of tunnel listeners, and the name of their one route.
    pub registrations: (Arc<RouteCells>, Arc<str>),
    /// The part of forward proxying, where a route does that.
    pub outward: Option<Rc<Outward>>,
    /// Where exchanges are logged, if they are.
    pub log: Option<RefCell<LogWriter>>,
    listeners: HashMap<Arc<str>, Rc<LocalListener>>,
}

impl Running {
    fn new(worker: &Worker, snapshot: Arc<Snapshot>, before: Option<&Running>) -> Running {
        let (registry, index) = (&worker.gateway.registry, worker.index);
        let local = |upstream: &Arc<Upstream>| {
            let before = before
                .and_then(|before| before.upstreams.iter().find(|old| old.shared.name == upstream.name));
            Rc::new(Local::new(Arc::clone(upstream), before.map(|old| &**old), registry, index))
        };
        let listener = |policy: &Arc<ListenerPolicy>, bound| {
            let tls = snapshot.tls.server(&policy.name);
            Rc::new(LocalListener::new(policy, bound, tls, (registry, index)))
        };
        let outward = snapshot.model.connect.is_some().then(|| {
            let before = before.and_then(|before| before.outward.as_ref());
            Outward::new(&snapshot.model.dns, before, || registry.upstream(index, "forward_proxy"))
        });
        Running {
            outward,
            upstreams: snapshot.upstreams.iter().map(local).collect(),
            routes: snapshot.model.routes.iter().map(|route| registry.route(index, &route.name)).collect(),
            names: snapshot.model.routes.iter().map(|route| Arc::from(&*route.name)).collect(),
            consumers: (snapshot.model.consumers.all().iter())
                .map(|one| registry.consumer(index, &one.name))
                .collect(),
            unrouted: registry.route(index, ""),
            registrations: (registry.route(index, REGISTRATIONS), REGISTRATIONS.into()),
            log: snapshot.log.as_ref().map(|log| RefCell::new(log.writer())),
            listeners: (snapshot.listeners.iter())
                .map(|(policy, bound)| (Arc::clone(&policy.name), listener(policy, bound)))
                .collect(),
            snapshot,
        }
    }

    /// The present form of a listener; the one given when it was removed.
    pub fn listener(&self, known: &Rc<LocalListener>) -> Rc<LocalListener> {
        match self.listeners.get(&known.shared.name) {
            Some(listener) if Arc::ptr_eq(&listener.bound, &known.bound) => Rc::clone(listener),
            // It has another name now, or it is gone.
            _ => {
                let renamed = self.listeners.values().find(|now| Arc::ptr_eq(&now.bound, &known.bound));
                Rc::clone(renamed.unwrap_or(known))
            }
        }
    }
}

/// Runs a worker on this thread until it has drained and been told to end.
pub fn run(
    gateway: Arc<Gateway>,
    index: usize,
    snapshot: Arc<Snapshot>,
    mailbox: mpsc::UnboundedReceiver<Order>,
) -> std::io::Result<()> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default())?;
    runtime.block_on(async move {
        let seed = gateway.seed.wrapping_add((index as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let world = World::new(gateway.clock, seed);
        let worker = Worker::start(gateway, index, world, &snapshot);
        worker.obey(mailbox).await;
    });
    Ok(())
}

/// Exchanges hold their worker anyway, and count it without other cores.
impl Events for Worker {
    fn shed(&self, live: &Arc<Live>) {
        self.gateway.shed(live);
    }

    fn breaker_changed(&self, upstream: &Upstream, index: usize, change: Change) {
        self.gateway.breaker_changed(upstream, index, change);
    }

    fn circuit_changed(&self, circuit: &Circuit, change: Change) {
        self.gateway.circuit_changed(circuit, change);
    }
}

impl Worker {
    /// Whom its exchanges tell what concerns all workers.
    pub fn events(self: &Rc<Self>) -> Rc<dyn Events> {
        Rc::<Worker>::clone(self)
    }

    fn start(gateway: Arc<Gateway>, index: usize, world: Rc<World>, snapshot: &Arc<Snapshot>) -> Rc<Worker> {
        let empty = Running {
            snapshot: Arc::clone(snapshot),
            upstreams: Vec::new(),
            names: Vec::new(),
            routes: Vec::new(),
            consumers: Vec::new(),
            unrouted: gateway.registry.route(index, ""),
            registrations: (gateway.registry.route(index, REGISTRATIONS), REGISTRATIONS.into()),
            outward: None,
            log: None,
            listeners: HashMap::new(),
        };
        Rc::new(Worker {
            gateway,
            world,
            connections: Rc::default(),
            index,
            running: RefCell::new(Rc::new(empty)),
            draining: Cell::new(false),
        })
    }

    /// What runs now. An exchange takes it once.
    pub fn running(&self) -> Rc<Running> {
        Rc::clone(&self.running.borrow())
    }

    /// Whether the process is stopping.
    pub fn is_draining(&self) -> bool {
        self.draining.get()
    }

    /// The id of an exchange: a trusted client's own, or a new one.
    pub fn request_id(
        &self,
        head: Option<&RequestHead>,
        peer: SocketAddr,
        (policy, now): (&forwarded::Policy, Instant),
    ) -> String {
        let given = head.and_then(|head| forwarded::request_id(peer, head, policy));
        given.map_or_else(
            || {
                let millis = self.world.unix(now).as_millis() as u64;
                self.world.random(|rng| request_id::uuid_v7(millis, (rng.next(), rng.next())))
            },
            str::to_owned,
        )
    }

    async fn obey(self: &Rc<Self>, mut mailbox: mpsc::UnboundedReceiver<Order>) {
        let mut sweep = tokio::time::interval(SWEEP);
        sweep.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                order = mailbox.recv() => match order {
                    Some(Order::End) | None => return self.flush(),
                    Some(order) => self.carry_out(order),
                },
                _ = sweep.tick() => {
                    self.sweep();
                    if self.is_draining() && self.connections.get() == 0 {
                        return self.flush();
                    }
                }
            }
        }
    }

    fn carry_out(self: &Rc<Self>, order: Order) {
        match order {
            Order::Adopt(snapshot, sockets, done) => {
                self.adopt(snapshot, sockets);
                // Nobody waits any more when the sender of the order has gone.
                let _ = done.send(());
            }
            Order::Shed(live) => {
                for upstream in &self.running().upstreams {
                    upstream.pools.iter().filter(|pool| pool.serves(&live)).for_each(|pool| pool.shed());
                }
            }
            // The loop that reads the mailbox ends with it.
            Order::End => {}
            Order::Drain => {
                self.draining.set(true);
                self.world.timers.wake_all();
            }
        }
    }

    fn adopt(self: &Rc<Self>, snapshot: Arc<Snapshot>, sockets: Vec<(Arc<str>, Listening)>) {
        let before = self.running();
        let running = Rc::new(Running::new(self, snapshot, Some(&before)));
        self.flush();
        *self.running.borrow_mut() = Rc::clone(&running);
        for (name, socket) in sockets {
            let Some(listener) = running.listeners.get(&name) else { continue };
            if let Err(error) = self.listen(listener, socket) {
                let fields: [(&str, &dyn std::fmt::Display); 2] = [("listener", &name), ("error", &error)];
                self.gateway.diagnostics.error("listener failed", &fields);
            }
        }
        // Connections that wait look at their listener again: it may be gone.
        self.world.timers.wake_all();
    }

    fn listen(self: &Rc<Self>, listener: &Rc<LocalListener>, socket: Listening) -> std::io::Result<()> {
        let (own, listener) = (Rc::clone(self), Rc::clone(listener));
        match socket {
            Listening::Tcp(socket) => {
                let socket = Acceptor::Tcp(tokio::net::TcpListener::from_std(socket)?);
                self.world.spawn(accept::run(own, listener, socket));
            }
            Listening::Unix(socket) => {
                let socket = Acceptor::Unix(tokio::net::UnixListener::from_std(socket)?);
                self.world.spawn(accept::run(own, listener, socket));
            }
            Listening::Udp(socket) => {
                let socket = tokio::net::UdpSocket::from_std(socket)?;
                self.world.spawn(udp::run(own, listener, socket));
            }
        }
        Ok(())
    }

    fn sweep(&self) {
        self.world.set_wall();
        let now = self.world.clock.now();
        self.running.borrow().upstreams.iter().for_each(|upstream| upstream.sweep(now));
        if let Some(outward) = &self.running.borrow().outward {
            outward.sweep(now);
        }
        self.flush();
    }

    fn flush(&self) {
        if let Some(log) = &self.running.borrow().log {
            log.borrow_mut().flush();
        }
    }
}
