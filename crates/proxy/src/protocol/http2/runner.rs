//! The tasks that run a connection's exchanges, one after the other.
//!
//! Promise: every stream has a task of its own while it runs; one that has ended takes the next stream instead of
//! being made anew (an exchange's future has 4 KiB, which are copied when a task is made). Few wait: one while
//! nothing runs, and never more than [`MOST`]. A panic ends one exchange and its task.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;

use super::{Session, exchange};
use crate::listener::LocalListener;

/// Tasks that wait for a stream while others run.
const MOST: usize = 32;

/// A stream that has begun.
pub(super) type Stream = (http::Request<RecvStream>, SendResponse<Bytes>);

/// An exchange to run.
struct Job {
    open: Open,
    listener: Rc<LocalListener>,
    stream: Box<Stream>,
}

/// A stream that runs; counts until it is dropped.
struct Open(Rc<Session>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.set(self.0.open.get() - 1);
    }
}

/// The tasks of a connection that wait for a stream. Dropping it ends them.
#[derive(Default)]
pub(super) struct Runners {
    waiting: RefCell<Vec<Waiting<Job>>>,
}

/// Where a task finds its next job.
struct Runner<J> {
    job: Cell<Option<J>>,
    waker: Cell<Option<Waker>>,
}

/// A task that waits; it ends when this is dropped without a job.
struct Waiting<J>(Rc<Runner<J>>);

impl<J> Drop for Waiting<J> {
    fn drop(&mut self) {
        if let Some(waker) = self.0.waker.take() {
            waker.wake();
        }
    }
}

impl Runners {
    /// Runs an exchange, on a task that waits or on a new one.
    pub(super) fn run(session: &Rc<Session>, listener: &Rc<LocalListener>, stream: Box<Stream>) {
        session.begin();
        let job = Job { open: Open(Rc::clone(session)), listener: Rc::clone(listener), stream };
        let waits = session.runners.waiting.borrow_mut().pop();
        match waits {
            Some(waiting) => waiting.0.job.set(Some(job)),
            // Boxed once, where it stays: a task is moved about before it runs.
            None => session.arrival.worker.world.spawn(Box::pin(work(job))),
        }
    }

    /// Whether a task whose exchange has ended shall wait for the next.
    fn keep(&self, runner: &Rc<Runner<Job>>, running: usize) -> bool {
        let most = if running == 0 { 1 } else { MOST };
        let mut waiting = self.waiting.borrow_mut();
        let keep = waiting.len() < most;
        if keep {
            waiting.push(Waiting(Rc::clone(runner)));
        }
        waiting.truncate(most);
        keep
    }
}

/// Runs one exchange after the other.
async fn work(mut job: Job) {
    let runner = Rc::new(Runner { job: Cell::new(None), waker: Cell::new(None) });
    loop {
        let Job { open, listener, stream } = job;
        exchange::run(&open.0, &listener, stream).await;
        let session = Rc::clone(&open.0);
        drop((open, listener));
        if !session.runners.keep(&runner, session.open.get()) {
            return;
        }
        // The connection may end meanwhile.
        drop(session);
        match runner.next().await {
            Some(next) => job = next,
            None => return,
        }
    }
}

impl<J> Runner<J> {
    /// The next job; `None` when there will be none. Cancel-safe.
    async fn next(self: &Rc<Self>) -> Option<J> {
        poll_fn(|cx| match self.job.take() {
            Some(job) => Poll::Ready(Some(job)),
            None if Rc::strong_count(self) == 1 => Poll::Ready(None),
            None => {
                self.waker.set(Some(cx.waker().clone()));
                Poll::Pending
            }
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::Context;

    use super::*;

    #[test]
    fn a_task_that_waits_gets_a_job_or_ends_with_its_connection() {
        let mut cx = Context::from_waker(Waker::noop());
        let runner = Rc::new(Runner { job: Cell::new(None), waker: Cell::new(None) });
        let waiting = Waiting(Rc::clone(&runner));
        let mut next = pin!(runner.next());
        assert_eq!(next.as_mut().poll(&mut cx), Poll::Pending);
        waiting.0.job.set(Some(7));
        drop(waiting);
        assert!(runner.waker.take().is_none(), "it was not woken");
        assert_eq!(next.as_mut().poll(&mut cx), Poll::Ready(Some(7)));

        let waiting = Waiting(Rc::clone(&runner));
        let mut next = pin!(runner.next());
        assert_eq!(next.as_mut().poll(&mut cx), Poll::Pending);
        drop(waiting);
        assert!(runner.waker.take().is_none(), "it was not woken");
        assert_eq!(next.as_mut().poll(&mut cx), Poll::Ready(None));
    }
}
