//! A gate: how many may be inside at once, who waits for a place, and for how long.
//!
//! Promise: shared by all workers; nobody takes a lock while there is room; never more are inside than the
//! limit was when they entered; a place that becomes free goes to who is next ([`sluice_traffic::queue`]),
//! never past somebody who waits; who gives up or leaves frees what it held, however its task ends.

use std::fmt;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sluice_traffic::Moment;
use sluice_traffic::gradient::{Dropped, Gradient, Policy, Sample};
use sluice_traffic::queue::{Joined, Order, Queue, Ticket};
use tokio::sync::oneshot;

use crate::failure::Failure;
use crate::world::World;

/// A gate.
pub struct Gate {
    limit: AtomicU32,
    inside: AtomicU32,
    waiting: AtomicU32,
    refused: AtomicU64,
    /// Whether those that came last are next, as the last one that joined said.
    newest: AtomicBool,
    queue: Mutex<Queue<oneshot::Sender<Permit>>>,
    learning: Option<Learning>,
}

/// Who may wait, and how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// How many may wait.
    pub queue: usize,
    /// How long.
    pub wait: Duration,
    /// Who of them is next.
    pub order: Order,
}

impl Patience {
    /// Nobody waits.
    pub const NONE: Patience = Patience { queue: 0, wait: Duration::ZERO, order: Order::Oldest };
}

/// What a limit that adapts has seen in the present window.
struct Learning {
    gradient: Mutex<Gradient>,
    /// Sum of latencies in microseconds.
    sum: AtomicU64,
    count: AtomicU32,
    most: AtomicU32,
    dropped: AtomicBool,
    /// When the window began.
    since: AtomicU64,
}

/// How long a window is at least, in nanoseconds, and how many requests it takes.
const WINDOW: u64 = 100_000_000;
const FEWEST: u32 = 10;

impl Gate {
    /// A gate for so many at once.
    pub fn new(limit: u32) -> Arc<Gate> {
        Arc::new(Gate::with(limit, None))
    }

    /// A gate that learns how many.
    pub fn adaptive(policy: Policy) -> Arc<Gate> {
        let gradient = Gradient::new(policy);
        let limit = gradient.limit();
        let learning = Learning {
            gradient: Mutex::new(gradient),
            sum: AtomicU64::new(0),
            count: AtomicU32::new(0),
            most: AtomicU32::new(0),
            dropped: AtomicBool::new(false),
            since: AtomicU64::new(0),
        };
        Arc::new(Gate::with(limit, Some(learning)))
    }

    fn with(limit: u32, learning: Option<Learning>) -> Gate {
        let (inside, waiting, refused) = (AtomicU32::new(0), AtomicU32::new(0), AtomicU64::new(0));
        let (queue, newest) = (Mutex::default(), AtomicBool::new(false));
        Gate { limit: AtomicU32::new(limit), inside, waiting, refused, newest, queue, learning }
    }

    /// Whether it learns its limit.
    pub fn is_adaptive(&self) -> bool {
        self.learning.is_some()
    }

    /// Changes the limit; who is inside stays, who may come in now does.
    pub fn set_limit(self: &Arc<Self>, limit: u32) {
        if self.limit.swap(limit, SeqCst) < limit {
            self.hand_over();
        }
    }

    /// Changes the bounds of a limit that is learnt.
    pub fn set_policy(self: &Arc<Self>, policy: Policy) {
        let Some(learning) = &self.learning else { return };
        let limit = {
            let mut gradient = locked(&learning.gradient);
            gradient.set_policy(policy);
            gradient.limit()
        };
        self.set_limit(limit);
    }

    /// How many may be inside.
    pub fn limit(&self) -> u32 {
        self.limit.load(Relaxed)
    }

    /// How many are.
    pub fn inside(&self) -> u32 {
        self.inside.load(Relaxed)
    }

    /// How many wait.
    pub fn waiting(&self) -> u32 {
        self.waiting.load(Relaxed)
    }

    /// How many were turned away, ever.
    pub fn refused(&self) -> u64 {
        self.refused.load(Relaxed)
    }

    /// Whether a place is free and nobody waits for one.
    pub fn has_room(&self) -> bool {
        self.waiting.load(Relaxed) == 0 && self.inside() < self.limit()
    }

    /// Enters at once, or not at all.
    ///
    /// # Errors
    /// [`Failure::Overloaded`]: there is no room.
    pub fn try_enter(self: &Arc<Self>) -> Result<Permit, Failure> {
        if self.waiting.load(SeqCst) == 0 && self.take_place() {
            return Ok(self.permit());
        }
        Err(self.refuse())
    }

    /// Enters, after waiting as far as `patience` goes; a higher `priority` goes first.
    ///
    /// Cancel-safe: who is dropped while it waits leaves the queue.
    ///
    /// # Errors
    /// [`Failure::Overloaded`]: the queue is full, the time is over, or somebody of higher priority came.
    pub async fn enter(
        self: &Arc<Self>,
        world: &World,
        priority: i32,
        patience: Patience,
    ) -> Result<Permit, Failure> {
        if self.waiting.load(SeqCst) == 0 && self.take_place() {
            return Ok(self.permit());
        }
        // Boxed: exchanges that find room carry nothing for those that wait.
        Box::pin(self.wait(world, priority, patience)).await.ok_or_else(|| self.refuse())
    }

    async fn wait(self: &Arc<Self>, world: &World, priority: i32, patience: Patience) -> Option<Permit> {
        let (sender, receiver) = oneshot::channel();
        self.newest.store(patience.order == Order::Newest, Relaxed);
        let joined = {
            let mut queue = locked(&self.queue);
            let joined = queue.join(priority, sender, (patience.queue, patience.order));
            self.count(&queue);
            joined
        };
        // Who had to make room learns of it when its sender is dropped.
        let (Joined::Waiting(ticket) | Joined::Instead(ticket, _)) = joined else { return None };
        let _leaving = Leaving { gate: self, ticket };
        // A place may have become free before we stood in the queue.
        self.hand_over();
        let deadline = world.timers.deadline();
        deadline.set(world.clock.now(), patience.wait);
        deadline.limit(receiver).await?.ok()
    }

    /// Gives free places to those who wait.
    fn hand_over(self: &Arc<Self>) {
        while self.waiting.load(SeqCst) > 0 && self.take_place() {
            let mut permit = self.permit();
            loop {
                let next = {
                    let mut queue = locked(&self.queue);
                    let next = queue.take(self.order());
                    self.count(&queue);
                    next
                };
                let Some(next) = next else { break };
                match next.send(permit) {
                    Ok(()) => break,
                    // It has gone: the place is for the one behind it.
                    Err(back) => permit = back,
                }
            }
        }
    }

    fn order(&self) -> Order {
        if self.newest.load(Relaxed) { Order::Newest } else { Order::Oldest }
    }

    fn take_place(&self) -> bool {
        let limit = self.limit.load(SeqCst);
        let taken = self.inside.fetch_update(SeqCst, SeqCst, |inside| (inside < limit).then_some(inside + 1));
        taken.is_ok()
    }

    fn permit(self: &Arc<Self>) -> Permit {
        Permit { gate: Arc::clone(self) }
    }

    fn refuse(&self) -> Failure {
        self.refused.fetch_add(1, Relaxed);
        Failure::Overloaded
    }

    fn count(&self, queue: &Queue<oneshot::Sender<Permit>>) {
        self.waiting.store(u32::try_from(queue.len()).unwrap_or(u32::MAX), SeqCst);
    }

    /// Learns from one that was inside: how long it took, or that it was dropped.
    pub fn learn(self: &Arc<Self>, took: Option<Duration>, now: Moment) {
        let Some(learning) = &self.learning else { return };
        learning.most.fetch_max(self.inside(), Relaxed);
        match took {
            Some(took) => {
                learning.sum.fetch_add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX / 1024), Relaxed);
                learning.count.fetch_add(1, Relaxed);
            }
            None => learning.dropped.store(true, Relaxed),
        }
        let since = learning.since.load(Relaxed);
        let enough = learning.count.load(Relaxed) >= FEWEST || learning.dropped.load(Relaxed);
        if !enough || now.0.saturating_sub(since) < WINDOW {
            return;
        }
        if learning.since.compare_exchange(since, now.0, Relaxed, Relaxed).is_ok()
            && let Some(limit) = learning.close()
        {
            self.set_limit(limit);
        }
    }
}

impl Learning {
    /// Ends the window; gives the limit from now on.
    fn close(&self) -> Option<u32> {
        let (sum, count) = (self.sum.swap(0, Relaxed), self.count.swap(0, Relaxed));
        let dropped = if self.dropped.swap(false, Relaxed) { Dropped::Some } else { Dropped::None };
        let in_flight = self.most.swap(0, Relaxed);
        if count == 0 && dropped == Dropped::None {
            return None;
        }
        let average = Duration::from_micros(sum / u64::from(count.max(1)));
        Some(locked(&self.gradient).update(Sample { average, in_flight, dropped }))
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Gate({} of {}, {} wait)", self.inside(), self.limit(), self.waiting())
    }
}

/// A place inside; dropping it frees it.
#[derive(Debug)]
pub struct Permit {
    gate: Arc<Gate>,
}

impl Permit {
    /// The gate it is for.
    pub fn gate(&self) -> &Arc<Gate> {
        &self.gate
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.gate.inside.fetch_sub(1, SeqCst);
        self.gate.hand_over();
    }
}

/// The places that an exchange holds, until it ends.
#[derive(Debug, Default)]
#[expect(clippy::box_collection, reason = "most exchanges hold none and should carry no room for any")]
pub struct Held(Option<Box<Vec<Place>>>);

#[derive(Debug)]
struct Place {
    permit: Permit,
    /// When it was given, since the exchange began, and that moment.
    entered: (Duration, Moment),
}

impl Held {
    /// Keeps a place that was given now to an exchange that began at `started`.
    pub fn keep(&mut self, permit: Permit, world: &World, started: Instant) {
        // Only limits that are learnt ask when.
        let entered = match permit.gate.is_adaptive() {
            true => {
                let now = world.clock.now();
                (now.saturating_duration_since(started), world.clock.moment(now))
            }
            false => (Duration::ZERO, Moment(0)),
        };
        self.0.get_or_insert_default().push(Place { permit, entered });
    }

    /// How many places there are.
    pub fn count(&self) -> usize {
        self.0.as_deref().map_or(0, Vec::len)
    }

    /// Gives back those that were kept since there were so many.
    pub fn leave(&mut self, count: usize) {
        if let Some(held) = self.0.as_deref_mut() {
            held.truncate(count);
        }
    }

    /// Tells the gates how long their exchange took to be answered, since it began; none: it was dropped.
    pub fn learn(&self, answered: Option<Duration>) {
        for Place { permit, entered: (after, at) } in self.0.iter().flat_map(|held| held.iter()) {
            if permit.gate.is_adaptive() {
                let took = answered.map(|answered| answered.saturating_sub(*after));
                permit.gate.learn(took, at.after(took.unwrap_or_default()));
            }
        }
    }
}

/// Leaves the queue when whoever waits there is dropped.
struct Leaving<'a> {
    gate: &'a Gate,
    ticket: Ticket,
}

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        let left = {
            let mut queue = locked(&self.gate.queue);
            let left = queue.leave(self.ticket);
            self.gate.count(&queue);
            left
        };
        // Outside of the lock: nothing of anybody else runs inside it.
        drop(left);
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
