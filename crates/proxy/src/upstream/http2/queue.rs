//! Who waits for a place on an HTTP/2 connection, in the order of arrival.
//!
//! Promise: a place is handed to the first in the queue, not left for whoever looks next; who leaves the
//! queue with a place gives it to the next.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

use super::Slot;

/// The queue.
#[derive(Default)]
pub(super) struct Queue(RefCell<VecDeque<Rc<Entry>>>);

#[derive(Default)]
struct Entry {
    given: RefCell<Option<Slot>>,
    /// It is worth looking again: a connection was opened, or could not be.
    stirred: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Entry {
    fn wake(&self) {
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }
}

impl Queue {
    pub(super) fn is_empty(&self) -> bool {
        self.0.borrow().is_empty()
    }

    /// Joins at the end. The caller is in the queue until it drops what it gets, or is given a place.
    pub(super) fn join(self: &Rc<Self>) -> Waiter {
        let entry = Rc::<Entry>::default();
        self.0.borrow_mut().push_back(Rc::clone(&entry));
        Waiter { queue: Rc::clone(self), entry }
    }

    /// Hands a place to the first; gives it back when nobody waits.
    pub(super) fn give(&self, slot: Slot) -> Option<Slot> {
        let Some(first) = self.0.borrow_mut().pop_front() else { return Some(slot) };
        *first.given.borrow_mut() = Some(slot);
        first.wake();
        None
    }

    /// Makes everybody look again.
    pub(super) fn stir(&self) {
        for entry in self.0.borrow().iter() {
            entry.stirred.set(true);
            entry.wake();
        }
    }
}

/// Somebody who waits.
pub(in crate::upstream) struct Waiter {
    queue: Rc<Queue>,
    entry: Rc<Entry>,
}

impl Waiter {
    /// The place it was given.
    pub(in crate::upstream) fn given(&self) -> Option<Slot> {
        self.entry.given.borrow_mut().take()
    }

    /// Waits for a place; `None` when it is worth looking again. Cancel-safe.
    pub(in crate::upstream) async fn wait(&self) -> Option<Slot> {
        poll_fn(|cx| {
            if let Some(slot) = self.given() {
                return Poll::Ready(Some(slot));
            }
            if self.entry.stirred.replace(false) {
                return Poll::Ready(None);
            }
            *self.entry.waker.borrow_mut() = Some(cx.waker().clone());
            Poll::Pending
        })
        .await
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        // A place it leaves behind goes to the next when it is dropped: the queue must not be borrowed then.
        let left = self.given();
        self.queue.0.borrow_mut().retain(|entry| !Rc::ptr_eq(entry, &self.entry));
        drop(left);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_leaves_is_not_in_the_queue_any_more() {
        let queue = Rc::<Queue>::default();
        let (first, second) = (queue.join(), queue.join());
        drop(first);
        assert!(!queue.is_empty());
        drop(second);
        assert!(queue.is_empty());
    }

    #[tokio::test]
    async fn who_is_stirred_looks_again_once() {
        let queue = Rc::<Queue>::default();
        let waiter = queue.join();
        queue.stir();
        assert!(waiter.wait().await.is_none());
        let mut cx = std::task::Context::from_waker(Waker::noop());
        assert!(std::pin::pin!(waiter.wait()).poll(&mut cx).is_pending());
    }
}
