//! Deadlines for connections: coarse, lazy and cheap.
//!
//! A connection sets a deadline several times for each request and nearly none of them ever passes. So
//! setting one writes a number; only an earlier deadline than the one already queued touches the wheel, and
//! a fired slot re-queues the entries that were put off meanwhile (the idea of hashed timing wheels,
//! Varghese and Lauck 1987, with lazy re-arming).
//!
//! Promise: a deadline is never missed, and is seen at most two ticks (20 ms) late.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::Clock;

const TICKS_A_SECOND: u64 = 100;
const SLOTS: u64 = 1024;
const NEVER: u64 = u64::MAX;

/// The deadlines of one worker.
pub struct Timers {
    clock: Clock,
    start: Instant,
    slots: RefCell<Vec<Vec<Weak<Entry>>>>,
    queued: Cell<usize>,
    tick: Cell<u64>,
    /// The tick until which the wheel stands still; `NEVER` when nothing is queued.
    still_until: Cell<u64>,
    armed: Notify,
}

struct Entry {
    /// The tick at which it passes; `NEVER` when it is not set.
    due: Cell<u64>,
    /// The tick of the slot it stands in; `NEVER` when it stands in none.
    queued: Cell<u64>,
    waker: RefCell<Option<Waker>>,
}

/// One deadline, set again and again by the connection that owns it.
pub struct Deadline {
    timers: Rc<Timers>,
    entry: Rc<Entry>,
}

impl Timers {
    pub(super) fn new(clock: Clock) -> Rc<Timers> {
        Rc::new(Timers {
            clock,
            start: clock.now(),
            slots: RefCell::new(vec![Vec::new(); SLOTS as usize]),
            queued: Cell::new(0),
            tick: Cell::new(0),
            still_until: Cell::new(NEVER),
            armed: Notify::new(),
        })
    }

    /// A deadline that is not set.
    pub fn deadline(self: &Rc<Self>) -> Deadline {
        let entry = Entry { due: Cell::new(NEVER), queued: Cell::new(NEVER), waker: RefCell::new(None) };
        Deadline { timers: Rc::clone(self), entry: Rc::new(entry) }
    }

    /// Wakes everybody who waits with a deadline, so that they look at the world again (drain).
    pub fn wake_all(&self) {
        for slot in self.slots.borrow().iter() {
            slot.iter().filter_map(Weak::upgrade).for_each(|entry| entry.wake());
        }
    }

    /// Turns the wheel. It stands still up to the next slot that holds something, so that connections which
    /// wait for a minute cost a few wake-ups, not a hundred a second.
    pub(super) async fn run(self: Rc<Self>) {
        loop {
            let next = self.next_slot();
            self.still_until.set(next);
            if next == NEVER {
                self.armed.notified().await;
                continue;
            }
            let until = self.start + Duration::from_millis((next + 1) * (1000 / TICKS_A_SECOND));
            tokio::select! {
                biased;
                () = self.armed.notified() => {}
                () = tokio::time::sleep_until(until.into()) => self.advance(self.tick_of(self.clock.now())),
            }
        }
    }

    /// The tick of the next slot that holds something.
    fn next_slot(&self) -> u64 {
        if self.queued.get() == 0 {
            return NEVER;
        }
        let (tick, slots) = (self.tick.get(), self.slots.borrow());
        (tick..tick + SLOTS).find(|tick| !slots[(tick % SLOTS) as usize].is_empty()).unwrap_or(NEVER)
    }

    fn tick_of(&self, at: Instant) -> u64 {
        let since = at.saturating_duration_since(self.start);
        since.as_secs() * TICKS_A_SECOND + u64::from(since.subsec_millis()) / (1000 / TICKS_A_SECOND)
    }

    fn advance(&self, now: u64) {
        // After a long pause every slot is due once; older laps need no second look.
        let from = self.tick.get().max(now.saturating_sub(SLOTS - 1));
        self.tick.set(now + 1);
        for tick in from..=now {
            let entries = std::mem::take(&mut self.slots.borrow_mut()[(tick % SLOTS) as usize]);
            self.queued.set(self.queued.get() - entries.len());
            for entry in entries.iter().filter_map(Weak::upgrade) {
                // An entry that was queued again for an earlier slot stands in two; only one is its own.
                if entry.queued.get() != NEVER && entry.queued.get() % SLOTS != tick % SLOTS {
                    continue;
                }
                entry.queued.set(NEVER);
                match entry.due.get() {
                    NEVER => {}
                    due if due <= now => entry.wake(),
                    _ => self.queue(&entry),
                }
            }
        }
    }

    fn queue(&self, entry: &Rc<Entry>) {
        let slot = entry.due.get().clamp(self.tick.get(), self.tick.get() + SLOTS - 1);
        entry.queued.set(slot);
        self.slots.borrow_mut()[(slot % SLOTS) as usize].push(Rc::downgrade(entry));
        self.queued.set(self.queued.get() + 1);
        if slot < self.still_until.get() {
            self.still_until.set(slot);
            self.armed.notify_one();
        }
    }
}

impl Entry {
    fn wake(&self) {
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }
}

impl Deadline {
    /// Sets it to `after` from `now`, replacing what was set.
    pub fn set(&self, now: Instant, after: Duration) {
        // One tick is added because `now` may stand at the end of the present one.
        let due = self.timers.tick_of(now + after) + 1;
        self.entry.due.set(due);
        if due < self.entry.queued.get() {
            self.timers.queue(&self.entry);
        }
    }

    /// Sets it when there is a limit, clears it when there is none.
    pub fn set_or_clear(&self, now: Instant, after: Option<Duration>) {
        match after {
            Some(after) => self.set(now, after),
            None => self.clear(),
        }
    }

    /// Takes it back.
    pub fn clear(&self) {
        self.entry.due.set(NEVER);
    }

    /// Runs `future` until it is done or the deadline passes (`None`). Cancel-safe if the future is.
    pub async fn limit<F: Future>(&self, future: F) -> Option<F::Output> {
        let mut future = pin!(future);
        poll_fn(|cx| match future.as_mut().poll(cx) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending if self.poll_passed(cx) => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        })
        .await
    }

    /// Waits until it has passed; for ever when it is not set. Cancel-safe.
    pub async fn passed(&self) {
        poll_fn(|cx| if self.poll_passed(cx) { Poll::Ready(()) } else { Poll::Pending }).await;
    }

    /// Whether it has passed; if not, the task is woken when it does.
    pub fn poll_passed(&self, cx: &Context<'_>) -> bool {
        let due = self.entry.due.get();
        if due < self.timers.tick.get() {
            return true;
        }
        let mut waker = self.entry.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expired(deadline: &Deadline) -> bool {
        deadline.poll_passed(&Context::from_waker(Waker::noop()))
    }

    fn at(timers: &Timers, millis: u64) -> Instant {
        timers.start + Duration::from_millis(millis)
    }

    #[test]
    fn a_deadline_passes_once_its_time_has_come_and_not_before() {
        let timers = Timers::new(Clock::start());
        let deadline = timers.deadline();
        deadline.set(at(&timers, 0), Duration::from_millis(100));
        timers.advance(9);
        assert!(!expired(&deadline));
        timers.advance(11);
        assert!(expired(&deadline));
    }

    #[test]
    fn putting_off_keeps_it_and_bringing_forward_fires_it_early() {
        let timers = Timers::new(Clock::start());
        let deadline = timers.deadline();
        deadline.set(at(&timers, 0), Duration::from_millis(100));
        deadline.set(at(&timers, 0), Duration::from_millis(300));
        timers.advance(20);
        assert!(!expired(&deadline));
        deadline.set(at(&timers, 210), Duration::from_millis(20));
        timers.advance(24);
        assert!(expired(&deadline));
        deadline.clear();
        timers.advance(60);
        assert!(!expired(&deadline));
    }

    #[test]
    fn deadlines_beyond_one_lap_of_the_wheel_hold() {
        let timers = Timers::new(Clock::start());
        let deadline = timers.deadline();
        deadline.set(at(&timers, 0), Duration::from_secs(60));
        for tick in 0..=5999 {
            timers.advance(tick);
            assert!(!expired(&deadline), "tick {tick}");
        }
        timers.advance(6001);
        assert!(expired(&deadline));
    }

    #[test]
    fn a_dropped_deadline_leaves_nothing_behind_after_its_slot() {
        let timers = Timers::new(Clock::start());
        drop({
            let deadline = timers.deadline();
            deadline.set(at(&timers, 0), Duration::from_millis(50));
            deadline
        });
        timers.advance(10);
        assert_eq!(timers.queued.get(), 0);
    }
}
