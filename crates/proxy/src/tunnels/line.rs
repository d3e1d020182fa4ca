//! Between an exchange and the tunnel that carries it: orders one way, what the tunnel tells the other.
//!
//! Promise: both may be on different threads; an exchange that is dropped is given up in its tunnel; what waits in
//! either direction is bounded by credit (upload) and by what was consumed (download), not by the channels.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use bytes::Bytes;
use sluice_http::{Fields, RequestHead, ResponseHead};
use sluice_tunnel::event::{Fault, Unsendable};
use sluice_tunnel::text::Content;

use super::{Tunnel, mailbox};

/// Bytes of a request's content that may be on their way to the tunnel's task, or wait there to be written.
pub const CREDIT: usize = 64 * 1024;

/// Bytes of an answer's content that are passed on before the tunnel is told: small answers and events wake it for
/// nothing. With what the tunnel gathers in turn (8 KiB) it stays below what lets a stopped connector go on (16 KiB).
const GATHER: usize = 4 * 1024;

/// What a tunnel's task is told.
#[derive(Debug)]
pub(super) enum Order {
    /// Send this request.
    Request(Box<Begin>),
    /// Send content.
    Data(u64, Bytes),
    /// End a request with trailers.
    Trailers(u64, Fields),
    /// End a request.
    End(u64),
    /// So much of the answer's content was passed on.
    Consumed(u64, usize),
    /// Nobody listens any more, and everything was said.
    Leave(u64),
    /// Nobody wants the answer any more.
    Gone(u64),
    /// Its connector has deregistered: close it if it is idle.
    Retire,
    /// The gateway stops: close it when it is idle.
    Drain,
}

/// A request for a tunnel.
#[derive(Debug)]
pub(super) struct Begin {
    pub(super) number: u64,
    pub(super) head: RequestHead,
    pub(super) content: Content,
    pub(super) told: mailbox::Sender<Told>,
}

/// What an exchange is told.
#[derive(Debug)]
pub enum Told {
    /// The request's head was sent: now the connector may have it.
    Begun,
    /// So much more content may be sent.
    Credit(usize),
    /// The head of the answer.
    Head(ResponseHead),
    /// Content.
    Data(Bytes),
    /// Trailer fields.
    Trailers(Fields),
    /// The answer is complete.
    End,
    /// It failed.
    Failed(Fault),
    /// It could not be sent: nothing of it was.
    Unsent(Unsendable),
}

/// One exchange in a tunnel.
pub struct Line {
    tunnel: Arc<Tunnel>,
    number: u64,
    told: mailbox::Receiver<Told>,
    /// Content that was passed on, and that the tunnel has not been told of.
    gathered: usize,
    is_over: bool,
}

impl Line {
    pub(super) fn begin(tunnel: Arc<Tunnel>, head: RequestHead, content: Content) -> Line {
        let number = tunnel.exchanges.fetch_add(1, Ordering::Relaxed);
        let (sender, told) = mailbox::mailbox();
        tunnel.tell(Order::Request(Box::new(Begin { number, head, content, told: sender })));
        Line { tunnel, number, told, gathered: 0, is_over: false }
    }

    /// The next thing told. `None`: the tunnel ended before it saw the request.
    pub fn poll_told(&mut self, cx: &mut Context<'_>) -> Poll<Option<Told>> {
        let polled = self.told.poll_recv(cx);
        if let Poll::Ready(None | Some(Told::Failed(_) | Told::Unsent(_))) = polled {
            self.is_over = true;
        }
        polled
    }

    /// Sends content, for which there is credit.
    pub fn data(&self, bytes: Bytes) {
        self.tunnel.tell(Order::Data(self.number, bytes));
    }

    /// Ends the request with trailers.
    pub fn trailers(&self, fields: Fields) {
        self.tunnel.tell(Order::Trailers(self.number, fields));
    }

    /// Ends the request.
    pub fn end(&self) {
        self.tunnel.tell(Order::End(self.number));
    }

    /// So much of the answer's content was passed on.
    pub fn consumed(&mut self, count: usize) {
        self.gathered += count;
        if self.gathered >= GATHER {
            self.tunnel.tell(Order::Consumed(self.number, std::mem::take(&mut self.gathered)));
        }
    }

    /// Everything was said: whatever the tunnel still tells, nobody needs it, but nothing is given up.
    pub fn leave(&mut self) {
        // A tunnel that has told everything has forgotten the exchange: it is not woken for that.
        if !std::mem::replace(&mut self.is_over, true) && !self.told.is_closed() {
            self.tunnel.tell(Order::Leave(self.number));
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if !self.is_over {
            self.tunnel.tell(Order::Gone(self.number));
        }
    }
}
