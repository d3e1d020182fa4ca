//! The gateway: what all workers share, and the one way to change what runs.
//!
//! Promise: [`Control::apply`] is all or nothing: a document with any problem changes nothing; one without
//! is live on every worker when it returns. Start, signal, file watch and admin endpoint all go through it.

use std::fmt::Display;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use sluice_traffic::breaker::Change;
use tokio::sync::{mpsc, oneshot};

use crate::address::Address;
use crate::circuit::Circuit;
use crate::config::check::check;
use crate::config::document::{Document, Process, Protocol};
use crate::health::monitor::Monitor;
use crate::observe::diagnostic::Diagnostics;
use crate::observe::metrics::{Registry, Reload};
use crate::problem::{At, Problems};
use crate::snapshot::{self, Snapshot};
use crate::sockets::Inherited;
use crate::upstream::live::Live;
use crate::upstream::{Events, Upstream};
use crate::worker::{self, Order};
use crate::world::Clock;

/// How long tunnels are taken after a drain has begun.
const LAST_REQUESTS: Duration = Duration::from_millis(500);

/// What all workers share.
pub struct Gateway {
    /// Clocks.
    pub clock: Clock,
    /// Counters.
    pub registry: Arc<Registry>,
    /// For operators.
    pub diagnostics: Diagnostics,
    /// Where the workers' random numbers start.
    pub seed: u64,
    mailboxes: Vec<mpsc::UnboundedSender<Order>>,
    current: Mutex<Arc<Snapshot>>,
    draining: AtomicBool,
    workers: AtomicUsize,
}

impl Gateway {
    /// What runs.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.current.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// How many workers run, of how many.
    pub fn workers(&self) -> (usize, usize) {
        (self.workers.load(Ordering::Relaxed), self.mailboxes.len())
    }

    /// Whether the process is stopping.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Notes a change that was refused; the control side calls it also for texts that are no document.
    pub fn note_refused(&self) {
        self.registry.reloaded(Reload::Refused, self.clock.wall());
    }
}

impl Events for Gateway {
    fn shed(&self, live: &Arc<Live>) {
        for mailbox in &self.mailboxes {
            // A worker that has ended has no connections.
            let _ = mailbox.send(Order::Shed(Arc::clone(live)));
        }
    }

    fn breaker_changed(&self, upstream: &Upstream, index: usize, change: Change) {
        let endpoint = &upstream.endpoints[index].address;
        let change = word(change);
        let fields: [(&str, &dyn Display); 3] =
            [("upstream", &upstream.name), ("endpoint", endpoint), ("change", &change)];
        self.diagnostics.info("breaker changed", &fields);
    }

    fn circuit_changed(&self, circuit: &Circuit, change: Change) {
        let change = word(change);
        let fields: [(&str, &dyn Display); 2] = [(circuit.around.word(), &circuit.name), ("change", &change)];
        self.diagnostics.info("breaker changed", &fields);
    }
}

fn word(change: Change) -> &'static str {
    match change {
        Change::Opened => "opened",
        Change::HalfOpened => "half-opened",
        Change::Closed => "closed",
    }
}

/// What a process that starts has from the one before it, or makes itself.
#[derive(Default)]
pub struct Legacy {
    /// Signs what clients carry for this process.
    pub secret: Vec<u8>,
    /// Sockets that are listened on already.
    pub sockets: Vec<Inherited>,
}

/// The control side of a running gateway. Lives on the control thread.
pub struct Control {
    /// What all workers share.
    pub gateway: Arc<Gateway>,
    secret: Vec<u8>,
    process: Process,
    threads: Vec<JoinHandle<()>>,
    monitor: Monitor,
}

impl Control {
    /// Checks a document, binds its listeners and starts the workers. Must be called on a current-thread
    /// runtime that stays: health checks run on it.
    pub async fn start(
        document: Document,
        diagnostics: Diagnostics,
        mut legacy: Legacy,
    ) -> Result<Control, Problems> {
        let clock = Clock::start();
        let workers = document.process.workers.map_or_else(cores, |workers| usize::from(workers.get()));
        let process = document.process.clone();
        let model = check(&document)?;
        let registry = Arc::new(Registry::new(workers));
        let built = snapshot::build(
            document,
            model,
            (None, clock.unix()),
            (workers, &legacy.secret, &mut legacy.sockets),
            (&registry, &diagnostics),
        )?;
        let (mailboxes, boxes): (Vec<_>, Vec<_>) = (0..workers).map(|_| mpsc::unbounded_channel()).unzip();
        let gateway = Arc::new(Gateway {
            clock,
            registry,
            diagnostics,
            seed: fastrand::u64(..),
            mailboxes,
            current: Mutex::new(Arc::clone(&built.snapshot)),
            draining: AtomicBool::new(false),
            workers: AtomicUsize::new(0),
        });
        let threads = spawn(&gateway, &built.snapshot, boxes).map_err(|error| {
            let mut problems = Problems::new();
            problems.add(
                &At::root().key("process").key("workers"),
                format!("a worker cannot be started: {error}"),
            );
            problems
        })?;
        let monitor = Monitor::new(Arc::clone(&gateway));
        let mut control = Control { gateway, secret: legacy.secret, process, threads, monitor };
        control.publish(built).await;
        Ok(control)
    }

    /// Makes a document run in place of the present one, or changes nothing and says why not.
    pub async fn apply(&mut self, document: Document) -> Result<u64, Problems> {
        let applied = self.try_apply(document).await;
        if applied.is_err() {
            self.gateway.note_refused();
        }
        applied
    }

    async fn try_apply(&mut self, document: Document) -> Result<u64, Problems> {
        if document.process != self.process {
            let mut problems = Problems::new();
            problems
                .add(&At::root().key("process"), "what stands under `process` cannot change while it runs")
                .hint("restart to change it, or take the change back");
            return Err(problems);
        }
        let model = check(&document)?;
        let before = self.gateway.snapshot();
        let mut none = Vec::new();
        let workers = (self.gateway.mailboxes.len(), &*self.secret, &mut none);
        let observe = (&*self.gateway.registry, &self.gateway.diagnostics);
        let now = self.gateway.clock.unix();
        let built = snapshot::build(document, model, (Some(&before), now), workers, observe)?;
        for (_, bound) in &before.listeners {
            if !built.snapshot.listeners.iter().any(|(_, kept)| Arc::ptr_eq(kept, bound)) {
                bound.close();
            }
        }
        for (policy, bound) in &built.snapshot.listeners {
            if let Err(error) = bound.set_mode(policy.mode) {
                let fields: [(&str, &dyn Display); 2] = [("listener", &policy.name), ("error", &error)];
                self.gateway.diagnostics.warn("the mode of a Unix socket cannot be set", &fields);
            }
        }
        let revision = built.snapshot.revision;
        self.publish(built).await;
        Ok(revision)
    }

    /// Gives a snapshot to every worker and waits until all run it.
    async fn publish(&mut self, built: snapshot::Built) {
        *self.gateway.current.lock().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&built.snapshot);
        let mut sockets: Vec<Vec<_>> = self.gateway.mailboxes.iter().map(|_| Vec::new()).collect();
        for (name, bound) in built.sockets {
            for (worker, socket) in bound.into_iter().enumerate() {
                // There may be more inherited sockets than workers: each must be accepted from.
                let worker = worker % sockets.len();
                sockets[worker].push((Arc::clone(&name), socket));
            }
        }
        let mut adopted = Vec::with_capacity(self.gateway.mailboxes.len());
        for (mailbox, sockets) in self.gateway.mailboxes.iter().zip(sockets) {
            let (done, wait) = oneshot::channel();
            let _ = mailbox.send(Order::Adopt(Arc::clone(&built.snapshot), sockets, done));
            adopted.push(wait);
        }
        for wait in adopted {
            // A worker that has ended runs nothing that could be out of date.
            let _ = wait.await;
        }
        self.monitor.watch(&built.snapshot);
        self.gateway.registry.reloaded(Reload::Applied(built.snapshot.revision), self.gateway.clock.wall());
    }

    /// What is listened on: the listeners' names, protocols, and addresses with the real port.
    pub fn addresses(&self) -> Vec<(Arc<str>, Protocol, Address)> {
        let snapshot = self.gateway.snapshot();
        let listeners = snapshot.listeners.iter();
        listeners
            .map(|(policy, bound)| (Arc::clone(&policy.name), policy.protocol, bound.address.clone()))
            .collect()
    }

    /// Another process listens on the same sockets from now on.
    pub fn handed_over(&self) {
        self.gateway.snapshot().listeners.iter().for_each(|(_, bound)| bound.hand_over());
    }

    /// What the next process needs to go on where this one is. The sockets are copies.
    ///
    /// # Errors
    /// There are no descriptors left.
    pub fn legacy(&self) -> std::io::Result<Legacy> {
        let mut sockets = Vec::new();
        for (_, bound) in &self.gateway.snapshot().listeners {
            sockets.extend(bound.copies()?.into_iter().map(|socket| (bound.configured.clone(), socket)));
        }
        Ok(Legacy { secret: self.secret.clone(), sockets })
    }

    /// How long exchanges may take to finish after TERM.
    pub fn drain_timeout(&self) -> Duration {
        self.process.drain_timeout.map_or(Duration::from_secs(30), |period| period.0)
    }

    /// Stops accepting and lets exchanges finish; ready when all workers have ended. Dropping the future
    /// leaves them draining.
    pub async fn drain(&mut self) {
        self.gateway.draining.store(true, Ordering::Relaxed);
        self.monitor.stop();
        for (_, bound) in &self.gateway.snapshot().listeners {
            bound.retire();
        }
        for mailbox in &self.gateway.mailboxes {
            let _ = mailbox.send(Order::Drain);
        }
        let tunnels = Arc::clone(&self.gateway.snapshot().tunnels);
        if !tunnels.is_empty() {
            // Clients that came at the last moment may still send their request.
            tokio::time::sleep(LAST_REQUESTS).await;
        }
        // Also without tunnels: none may be opened from now on.
        tunnels.drain();
        self.ended().await;
        self.close_log();
    }

    /// Ends all workers with whatever runs on them; lines of exchanges that have ended still reach the log.
    pub async fn end(&mut self) {
        for mailbox in &self.gateway.mailboxes {
            // A worker that has ended needs no order.
            let _ = mailbox.send(Order::End);
        }
        // A worker that does not obey within a second hangs: the process ends without it.
        let _ = tokio::time::timeout(Duration::from_secs(1), self.ended()).await;
        self.close_log();
    }

    async fn ended(&self) {
        let mut poll = tokio::time::interval(Duration::from_millis(10));
        while !self.threads.iter().all(JoinHandle::is_finished) {
            poll.tick().await;
        }
    }

    fn close_log(&self) {
        let closed =
            self.gateway.snapshot().log.as_ref().map_or(Ok(()), |log| log.close(Duration::from_secs(5)));
        if let Err(error) = closed {
            self.gateway.diagnostics.warn("the access log is not complete", &[("error", &error)]);
        }
    }

    /// Opens log files anew, after they were moved away.
    pub fn reopen_logs(&self) {
        if let Some(log) = &self.gateway.snapshot().log {
            log.reopen();
        }
    }
}

fn spawn(
    gateway: &Arc<Gateway>,
    snapshot: &Arc<Snapshot>,
    boxes: Vec<mpsc::UnboundedReceiver<Order>>,
) -> std::io::Result<Vec<JoinHandle<()>>> {
    let spawn = |(index, mailbox)| {
        let (gateway, snapshot) = (Arc::clone(gateway), Arc::clone(snapshot));
        std::thread::Builder::new().name(format!("worker-{index}")).spawn(move || {
            let diagnostics = gateway.diagnostics.clone();
            let _alive = Alive::count(Arc::clone(&gateway));
            if let Err(error) = worker::run(gateway, index, snapshot, mailbox) {
                diagnostics.error("a worker could not start", &[("worker", &index), ("error", &error)]);
            }
        })
    };
    boxes.into_iter().enumerate().map(spawn).collect()
}

/// A worker's thread that runs; however it ends, it counts no longer.
struct Alive(Arc<Gateway>);

impl Alive {
    fn count(gateway: Arc<Gateway>) -> Alive {
        gateway.workers.fetch_add(1, Ordering::Relaxed);
        Alive(gateway)
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.workers.fetch_sub(1, Ordering::Relaxed);
        if std::thread::panicking() {
            self.0.diagnostics.error("a worker has died: this is a defect, restart the process", &[]);
        }
    }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
