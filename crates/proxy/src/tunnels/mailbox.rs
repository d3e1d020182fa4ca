//! Messages from one place to one other, on any threads: in order, and the reader is woken when there are some.
//!
//! Promise: an empty mailbox owns no memory beyond itself, as most tunnels are idle and have one; what was sent
//! before its sender went is still read; what nobody will read is given back. Nothing here bounds what waits: `line`
//! says what does.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// Room for messages that an empty mailbox may keep.
const KEPT: usize = 4;

/// The end that messages are put in at.
#[derive(Debug)]
pub(super) struct Sender<T>(Arc<Shared<T>>);

/// The end that they are taken out at.
#[derive(Debug)]
pub(super) struct Receiver<T>(Arc<Shared<T>>);

/// Under a lock that is held for a few pointer moves: a channel without one keeps room for dozens of messages.
#[derive(Debug)]
struct Shared<T>(Mutex<State<T>>);

#[derive(Debug)]
struct State<T> {
    queue: VecDeque<T>,
    reader: Option<Waker>,
    /// One of the ends has gone.
    is_closed: bool,
}

/// A mailbox's two ends.
pub(super) fn mailbox<T>() -> (Sender<T>, Receiver<T>) {
    let state = State { queue: VecDeque::new(), reader: None, is_closed: false };
    let shared = Arc::new(Shared(Mutex::new(state)));
    (Sender(Arc::clone(&shared)), Receiver(shared))
}

impl<T> State<T> {
    fn put(&mut self, message: T) -> Result<(), T> {
        if self.is_closed {
            return Err(message);
        }
        self.queue.push_back(message);
        Ok(())
    }
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        // Every change is whole before anything that could panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Sender<T> {
    /// Sends a message; it comes back when the receiver has gone.
    pub(super) fn send(&self, message: T) -> Result<(), T> {
        let mut state = self.0.lock();
        state.put(message)?;
        let reader = state.reader.take();
        drop(state);
        reader.into_iter().for_each(Waker::wake);
        Ok(())
    }

    /// Sends a message that is no reason to wake anybody: it is read with the next one, or at the end.
    pub(super) fn send_unhurried(&self, message: T) -> Result<(), T> {
        self.0.lock().put(message)
    }

    /// Whether nobody will read what is sent.
    pub(super) fn is_closed(&self) -> bool {
        self.0.lock().is_closed
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.is_closed = true;
        let reader = state.reader.take();
        drop(state);
        reader.into_iter().for_each(Waker::wake);
    }
}

impl<T> Receiver<T> {
    /// Whether nothing more will be sent; what was sent may still wait.
    pub(super) fn is_closed(&self) -> bool {
        self.0.lock().is_closed
    }

    /// The next message; `None` when there will be none.
    pub(super) fn poll_recv(&mut self, cx: &Context<'_>) -> Poll<Option<T>> {
        let mut state = self.0.lock();
        if let Some(message) = state.queue.pop_front() {
            return Poll::Ready(Some(message));
        }
        if state.is_closed {
            return Poll::Ready(None);
        }
        if state.queue.capacity() > KEPT {
            state.queue = VecDeque::new();
        }
        if !state.reader.as_ref().is_some_and(|reader| reader.will_wake(cx.waker())) {
            state.reader = Some(cx.waker().clone());
        }
        Poll::Pending
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.is_closed = true;
        state.reader = None;
        // A message may hold an end of another mailbox: it goes after the lock.
        let unread = std::mem::take(&mut state.queue);
        drop(state);
        drop(unread);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next<T>(receiver: &mut Receiver<T>) -> Poll<Option<T>> {
        receiver.poll_recv(&Context::from_waker(Waker::noop()))
    }

    #[test]
    fn what_was_sent_before_the_sender_went_is_read() {
        let (sender, mut receiver) = mailbox();
        assert_eq!(next(&mut receiver), Poll::Pending);
        assert_eq!((sender.send(1), sender.send(2)), (Ok(()), Ok(())));
        drop(sender);
        let all = [next(&mut receiver), next(&mut receiver), next(&mut receiver)];
        assert_eq!(all, [Poll::Ready(Some(1)), Poll::Ready(Some(2)), Poll::Ready(None)]);
    }

    #[test]
    fn what_nobody_will_read_comes_back_or_is_dropped_with_what_it_holds() {
        let (sender, receiver) = mailbox();
        let (inner, mut told) = mailbox::<u8>();
        sender.send(inner).unwrap();
        assert!(!sender.is_closed());
        drop(receiver);
        assert_eq!(next(&mut told), Poll::Ready(None));
        assert!(sender.is_closed() && sender.send(mailbox().0).is_err());
    }

    #[test]
    fn a_reader_that_waits_is_woken_by_a_message_and_by_the_end() {
        struct Count(std::sync::atomic::AtomicUsize);
        impl std::task::Wake for Count {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            }
        }
        let count = Arc::new(Count(0.into()));
        let waker = Waker::from(Arc::clone(&count));
        let cx = Context::from_waker(&waker);
        let woken = || count.0.load(std::sync::atomic::Ordering::Relaxed);
        let (sender, mut receiver) = mailbox();
        assert!(receiver.poll_recv(&cx).is_pending());
        sender.send(1).unwrap();
        sender.send(2).unwrap();
        assert_eq!(woken(), 1, "once for all that waits");
        while receiver.poll_recv(&cx).is_ready() {}
        sender.send_unhurried(3).unwrap();
        assert_eq!(woken(), 1, "not for what can wait");
        drop(sender);
        assert_eq!((woken(), receiver.poll_recv(&cx)), (2, Poll::Ready(Some(3))));
    }

    #[test]
    fn an_empty_mailbox_keeps_no_room_for_a_crowd() {
        let (sender, mut receiver) = mailbox();
        (0..1000).for_each(|number| sender.send(number).unwrap());
        while next(&mut receiver).is_ready() {}
        assert!(receiver.0.lock().queue.capacity() <= KEPT);
    }
}
