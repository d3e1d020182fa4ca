//! The HTTP/2 connections of one worker to one endpoint: which takes the next exchange, and who waits.
//!
//! Promise: requests that come together share a connection, also one that is still being opened; another one
//! is opened when all places are taken. A place that becomes free goes to who waits.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::client;
use tokio::sync::Notify;

use super::connection::{drive, pinger};
use super::{Connection, Policy, Slot};
use crate::facts::Scheme;
use crate::failure::Failure;
use crate::stream::Stream;
use crate::upstream::config;
use crate::upstream::connection::Place;
use crate::upstream::live::Live;
use crate::world::World;

/// The connections that speak HTTP/2.
pub struct Pool {
    live: Arc<Live>,
    policy: Cell<Policy>,
    times: Cell<Times>,
    connections: RefCell<Vec<Rc<Connection>>>,
    dials: RefCell<Vec<Rc<Opening>>>,
    /// How many exchanges the last connection allowed: what one that is being opened is expected to allow.
    expected: Cell<usize>,
    /// Requests that wait for a place here.
    waiting: Cell<usize>,
    /// A place is free, or a connection was opened or could not be.
    changed: Notify,
}

/// The two halves of a connection: for whoever sends requests, and for the task that moves its frames.
pub(in crate::upstream) type Ends = (client::SendRequest<Bytes>, client::Connection<Stream, Bytes>);

/// How long connections live.
#[derive(Clone, Copy)]
struct Times {
    idle: Duration,
    age: Option<Duration>,
}

impl Times {
    fn of(pool: &config::PoolPolicy) -> Times {
        Times { idle: pool.idle_timeout, age: pool.max_age }
    }
}

/// A connection that is being opened, for all requests that have joined.
pub(in crate::upstream) struct Opening {
    joined: Cell<usize>,
    /// How it ended, when it has.
    ended: Cell<Option<Result<(), Failure>>>,
}

/// A request's share in a dial.
pub(in crate::upstream) struct Joined(Rc<Opening>);

impl Joined {
    /// How the dial ended, when it has.
    pub(in crate::upstream) fn ended(&self) -> Option<Result<(), Failure>> {
        self.0.ended.get()
    }
}

impl Drop for Joined {
    fn drop(&mut self) {
        self.0.joined.set(self.0.joined.get() - 1);
    }
}

impl Pool {
    pub(in crate::upstream) fn new(live: &Arc<Live>, policy: Policy, pool: &config::PoolPolicy) -> Rc<Pool> {
        Rc::new(Pool {
            live: Arc::clone(live),
            policy: Cell::new(policy),
            times: Cell::new(Times::of(pool)),
            connections: RefCell::default(),
            dials: RefCell::default(),
            expected: Cell::new(usize::MAX),
            waiting: Cell::new(0),
            changed: Notify::new(),
        })
    }

    /// Takes over a changed policy; connections that were opened under other settings end what they have.
    pub(in crate::upstream) fn set_policy(&self, policy: &config::Policy) {
        self.times.set(Times::of(&policy.pool));
        if self.policy.replace(policy.http2) != policy.http2 {
            self.retire();
        }
    }

    /// Connections without an exchange.
    pub fn idle(&self) -> usize {
        self.connections.borrow().iter().filter(|connection| connection.open() == 0).count()
    }

    /// Closes all that carry nothing.
    pub(in crate::upstream) fn clear(&self) {
        self.connections.borrow_mut().retain(|connection| connection.open() > 0);
    }

    /// Somebody waits for a connection: closes those that carry nothing, unless it is ours who wait. Who waited
    /// may have been served meanwhile.
    pub fn shed(&self) {
        if self.waiting.get() == 0 && self.live.waiting.load(Ordering::Relaxed) > 0 {
            self.clear();
        }
    }

    /// Those that are there take no more.
    pub(in crate::upstream) fn retire(&self) {
        self.connections.borrow_mut().clear();
    }

    /// Closes what has been idle too long; what is too old takes no more.
    pub fn sweep(&self, now: Instant) {
        let idle = self.times.get().idle;
        self.connections.borrow_mut().retain(|connection| {
            let since = connection.idle_since.get().unwrap_or(now);
            connection.idle_since.set((connection.open() == 0).then_some(since));
            now.saturating_duration_since(since) < idle && self.takes(connection, now)
        });
    }

    fn takes(&self, connection: &Connection, now: Instant) -> bool {
        let age = now.saturating_duration_since(connection.born);
        self.times.get().age.is_none_or(|most| age < most) && connection.is_usable()
    }

    /// A place on a connection that has one.
    pub(in crate::upstream) fn take(self: &Rc<Self>, now: Instant) -> Option<Slot> {
        let mut connections = self.connections.borrow_mut();
        let most = self.policy.get().max_streams;
        loop {
            let found = connections.iter().position(|one| one.open() < most.min(one.allowed()))?;
            if self.takes(&connections[found], now) {
                return Some(connections[found].slot(self));
            }
            connections.remove(found);
        }
    }

    /// Joins a dial that is expected to have a place left.
    pub(in crate::upstream) fn join(&self) -> Option<Joined> {
        let places = self.expected.get().min(self.policy.get().max_streams).max(1);
        let dials = self.dials.borrow();
        dials.iter().find(|dial| dial.joined.get() < places).map(join)
    }

    /// Notes that a connection is being opened.
    pub(in crate::upstream) fn begin(&self) -> (Rc<Opening>, Joined) {
        let dial = Rc::new(Opening { joined: Cell::new(0), ended: Cell::new(None) });
        self.dials.borrow_mut().push(Rc::clone(&dial));
        let joined = join(&dial);
        (dial, joined)
    }

    /// Notes that it was opened, or how it failed; all who wait look again.
    pub(in crate::upstream) fn end(&self, dial: &Rc<Opening>, result: Result<(), Failure>) {
        dial.ended.set(Some(result));
        self.dials.borrow_mut().retain(|other| !Rc::ptr_eq(other, dial));
        self.changed.notify_waiters();
    }

    /// Takes a connection that was opened.
    pub(in crate::upstream) fn add(
        self: &Rc<Self>,
        (requests, mut frames): Ends,
        (scheme, place): (Scheme, Option<Place>),
        world: &World,
    ) {
        let connection = Connection::new(requests, scheme, world.clock.now());
        self.expected.set(connection.allowed());
        let pinger = pinger(&mut frames, self.policy.get(), world);
        let of = (Rc::downgrade(&connection), Rc::downgrade(self));
        world.spawn(drive(frames, of, pinger, place));
        self.connections.borrow_mut().push(connection);
    }

    /// Waits until it is worth looking again.
    pub(in crate::upstream) async fn changed(&self) {
        struct Waits<'a>(&'a Cell<usize>);
        impl Drop for Waits<'_> {
            fn drop(&mut self) {
                self.0.set(self.0.get() - 1);
            }
        }
        self.waiting.set(self.waiting.get() + 1);
        let _waits = Waits(&self.waiting);
        self.changed.notified().await;
    }

    /// A place on `connection` is free.
    pub(super) fn freed(&self, connection: &Rc<Connection>) {
        if self.waiting.get() > 0 {
            self.changed.notify_one();
        } else if connection.open() == 0 && self.live.waiting.load(Ordering::Relaxed) > 0 {
            // Another worker waits for a connection: this one makes room for it.
            self.remove(|other| Rc::ptr_eq(other, connection));
        }
    }

    /// A connection is over.
    pub(super) fn forget(&self, connection: &Weak<Connection>) {
        self.remove(|other| std::ptr::eq(Rc::as_ptr(other), connection.as_ptr()));
        // Who waited for a place on it must look for another.
        self.changed.notify_waiters();
    }

    fn remove(&self, which: impl Fn(&Rc<Connection>) -> bool) {
        let mut connections = self.connections.borrow_mut();
        let found = connections.iter().position(which).map(|found| connections.remove(found));
        drop(connections);
        drop(found);
    }
}

fn join(dial: &Rc<Opening>) -> Joined {
    dial.joined.set(dial.joined.get() + 1);
    Joined(Rc::clone(dial))
}
