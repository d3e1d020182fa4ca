//! One open tunnel: what its driver and its exchanges share.
//!
//! Everything is on one thread. The driver (see `drive`) is the only one that touches the socket; every exchange is
//! a task of its own, so that a target that stalls holds up nobody. Both reach the protocol through here.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Buf as _;
use sluice_http::{Body, BodyError, Frame, Request};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::address::Address;
use super::exchange;
use super::hooks::{Event, Hooks};
use super::inbox::{Arriving, Inbox};
use super::target::Target;
use crate::ConnectorEnd;
use crate::event::{Call, Cancel, StreamId};
use crate::registration::Version;
use crate::text::Content;
use crate::websocket::Ended;

/// Bytes that wait to be written above which no content is added; and, in 1.0, bytes that wait for the target
/// above which nothing is read.
const FULL: usize = 64 * 1024;

/// What an exchange and its tunnel have of the connector.
pub(super) struct Surroundings {
    pub(super) router: Address,
    pub(super) target: Rc<dyn Target>,
    pub(super) hooks: Rc<dyn Hooks>,
}

/// One tunnel.
pub(super) struct Tunnel {
    pub(super) around: Rc<Surroundings>,
    end: RefCell<ConnectorEnd>,
    exchanges: RefCell<HashMap<StreamId, Exchange>>,
    driver: RefCell<Option<Waker>>,
    /// Exchanges that wait until less is to be written.
    crowd: RefCell<Vec<Waker>>,
    /// Content of requests that waits for targets, in bytes.
    waiting: Cell<usize>,
    is_retiring: Cell<bool>,
    start: Instant,
    /// Called when the first request comes.
    on_use: RefCell<Option<Box<dyn FnOnce()>>>,
}

struct Exchange {
    inbox: Rc<Inbox>,
    window: Option<Waker>,
    task: AbortHandle,
}

impl Tunnel {
    pub(super) fn new(
        around: Rc<Surroundings>,
        start: Instant,
        end: ConnectorEnd,
        on_use: Box<dyn FnOnce()>,
    ) -> Rc<Tunnel> {
        Rc::new(Tunnel {
            around,
            end: RefCell::new(end),
            exchanges: RefCell::default(),
            driver: RefCell::default(),
            crowd: RefCell::default(),
            waiting: Cell::new(0),
            is_retiring: Cell::new(false),
            start,
            on_use: RefCell::new(Some(on_use)),
        })
    }

    pub(super) fn now(&self) -> Duration {
        self.start.elapsed()
    }

    pub(super) fn at(&self, moment: Duration) -> Instant {
        self.start + moment
    }

    /// Works with the protocol, and lets the driver write what comes of it.
    pub(super) fn with<T>(&self, work: impl FnOnce(&mut ConnectorEnd, Duration) -> T) -> T {
        let done = work(&mut self.end.borrow_mut(), self.now());
        if let Some(driver) = self.driver.borrow_mut().take() {
            driver.wake();
        }
        done
    }

    /// For the driver itself: nobody is woken.
    pub(super) fn end(&self) -> std::cell::RefMut<'_, ConnectorEnd> {
        self.end.borrow_mut()
    }

    pub(super) fn wait_for_work(&self, cx: &Context<'_>) {
        *self.driver.borrow_mut() = Some(cx.waker().clone());
    }

    /// Something was written: exchanges that waited for that go on.
    pub(super) fn written(&self) {
        if self.end().output().remaining() < FULL {
            self.crowd.borrow_mut().drain(..).for_each(Waker::wake);
        }
    }

    /// Whether more may be read: in 1.0, not while the target is behind.
    pub(super) fn may_read(&self) -> bool {
        self.end().version() == Version::V3 || self.waiting.get() < FULL
    }

    /// Content was taken by a target, or will never be.
    pub(super) fn consumed(&self, stream: StreamId, count: usize) {
        self.waiting.set(self.waiting.get().saturating_sub(count));
        self.with(|end, now| end.consumed(stream, count, now));
    }

    /// Whether content of this answer may be sent now. `Err` when the exchange is over.
    pub(super) fn poll_room(&self, stream: StreamId, cx: &Context<'_>) -> Poll<Result<(), ()>> {
        let mut exchanges = self.exchanges.borrow_mut();
        let Some(exchange) = exchanges.get_mut(&stream) else { return Poll::Ready(Err(())) };
        let mut end = self.end();
        if !end.may_send(stream) {
            exchange.window = Some(cx.waker().clone());
            return Poll::Pending;
        }
        if end.output().remaining() >= FULL {
            self.crowd.borrow_mut().push(cx.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }

    /// Whether both directions of an exchange are over.
    pub(super) fn poll_over(&self, stream: StreamId, cx: &Context<'_>) -> Poll<()> {
        match self.exchanges.borrow_mut().get_mut(&stream) {
            Some(exchange) => {
                exchange.window = Some(cx.waker().clone());
                Poll::Pending
            }
            None => Poll::Ready(()),
        }
    }

    /// The exchange has come to its end.
    pub(super) fn finished(&self, stream: StreamId) {
        let exchange = self.exchanges.borrow_mut().remove(&stream);
        if let Some(exchange) = exchange {
            exchange.inbox.finish(Err(BodyError::Incomplete));
        }
        if self.is_retiring.get() {
            self.with(ConnectorEnd::close_if_drained);
        }
    }

    /// No more requests are wanted: a 3.0 tunnel closes when it is idle, as does an idle one of 1.0.
    pub(super) fn retire(&self) {
        self.is_retiring.set(true);
        self.with(|end, now| match end.version() {
            Version::V3 => end.close_if_drained(now),
            Version::V1 if end.is_idle() => end.close("Going away", now),
            Version::V1 => {}
        });
    }

    /// Ends the tunnel with everything in it.
    pub(super) fn kill(&self) {
        self.with(|end, now| end.close("Going away", now));
    }

    /// Does what a call asks for; the end of the tunnel is given back.
    pub(super) fn take(self: &Rc<Self>, call: Call) -> Option<Ended> {
        match call {
            Call::Request(stream, head, content) => self.begin(stream, head, content),
            Call::Data(stream, bytes) => self.arrived(stream, Frame::Data(bytes)),
            Call::Trailers(stream, fields) => self.arrived(stream, Frame::Trailers(fields)),
            Call::End(stream) => {
                if let Some(exchange) = self.exchanges.borrow().get(&stream) {
                    exchange.inbox.finish(Ok(()));
                }
            }
            Call::Cancelled(stream, cancel) => self.cancel(stream, cancel),
            Call::Resumed(stream) => {
                if let Some(exchange) = self.exchanges.borrow_mut().get_mut(&stream) {
                    exchange.window.take().into_iter().for_each(Waker::wake);
                }
            }
            Call::Closed(ended) => return Some(ended),
        }
        None
    }

    fn begin(self: &Rc<Self>, stream: StreamId, mut head: sluice_http::RequestHead, content: Content) {
        if let Some(on_use) = self.on_use.borrow_mut().take() {
            on_use();
        }
        self.around.hooks.request(&self.around.router, &mut head);
        let inbox = Rc::new(Inbox::default());
        let left = match content {
            Content::None | Content::Length(0) => None,
            Content::Length(length) => Some(Some(length)),
            Content::Unknown => Some(None),
        };
        let body = left.map_or(Body::Empty, |left| {
            let (inbox, tunnel) = (Rc::clone(&inbox), Rc::clone(self));
            Body::Stream(Box::new(Arriving { inbox, tunnel, stream, left }))
        });
        let work = exchange::run(Rc::clone(self), stream, Request { head, body });
        let task = tokio::task::spawn_local(work).abort_handle();
        self.exchanges.borrow_mut().insert(stream, Exchange { inbox, window: None, task });
    }

    fn arrived(&self, stream: StreamId, frame: Frame) {
        let count = if let Frame::Data(bytes) = &frame { bytes.len() } else { 0 };
        let exchanges = self.exchanges.borrow();
        let taken = exchanges.get(&stream).is_some_and(|exchange| exchange.inbox.push(frame).is_ok());
        match taken {
            true => self.waiting.set(self.waiting.get() + count),
            // The target does not want it; the client need not know.
            false => {
                let now = self.now();
                self.end().consumed(stream, count, now);
            }
        }
    }

    fn cancel(&self, stream: StreamId, cancel: Cancel) {
        let exchange = self.exchanges.borrow_mut().remove(&stream);
        if let Some(mut exchange) = exchange {
            exchange.inbox.finish(Err(BodyError::Incomplete));
            exchange.window.take().into_iter().for_each(Waker::wake);
            exchange.task.abort();
            self.around.hooks.event(&Event::Cancelled(cancel));
        }
    }
}
