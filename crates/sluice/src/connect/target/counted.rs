//! A target whose requests are counted.

use std::cell::Cell;
use std::rc::Rc;
use std::task::{Context, Poll};

use sluice_http::{Body, BodyError, Frame, Request, Response, Source};
use sluice_tunnel::connector::{LocalFuture, Target, TargetFailed};

/// What a service has done.
#[derive(Debug, Default)]
pub(in crate::connect) struct Counts {
    /// Requests that are running.
    pub(in crate::connect) running: Cell<u64>,
    /// Requests that came.
    pub(in crate::connect) total: Cell<u64>,
    /// Requests that the target did not answer, or not completely.
    pub(in crate::connect) failed: Cell<u64>,
    /// Requests that were given up from the other side.
    pub(in crate::connect) cancelled: Cell<u64>,
}

/// Adds one.
pub(in crate::connect) fn count(counter: &Cell<u64>) {
    counter.set(counter.get().wrapping_add(1));
}

/// A target, counted.
pub(super) struct Counted<T> {
    target: T,
    counts: Rc<Counts>,
}

/// A request that is running, until this is dropped.
struct Running(Rc<Counts>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.set(self.0.running.get().saturating_sub(1));
    }
}

impl<T> Counted<T> {
    pub(super) fn new(target: T, counts: Rc<Counts>) -> Counted<T> {
        Counted { target, counts }
    }
}

impl<T: Target> Target for Counted<T> {
    fn call(&self, request: Request) -> LocalFuture<Result<Response, TargetFailed>> {
        count(&self.counts.total);
        count(&self.counts.running);
        let running = Running(Rc::clone(&self.counts));
        let answer = self.target.call(request);
        Box::pin(async move {
            let Response { head, body } = answer.await?;
            let body = match body {
                Body::Stream(source) => Body::Stream(Box::new(Answering { source, _running: running })),
                body => body,
            };
            Ok(Response { head, body })
        })
    }
}

/// The content of an answer, during which its request is running.
struct Answering {
    source: Box<dyn Source>,
    _running: Running,
}

impl Source for Answering {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        self.source.poll_frame(cx)
    }

    fn length(&self) -> Option<u64> {
        self.source.length()
    }
}
