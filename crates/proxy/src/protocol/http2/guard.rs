//! The bytes under an HTTP/2 connection, with a watch on the frames that come in.
//!
//! Promise: what a client does too much of is noticed before it costs, whatever the frames say; from then
//! on nothing more is read of it.

use std::cell::Cell;
use std::io;
use std::io::IoSlice;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Buf as _;
use sluice_http::h2::{Budgets, Flood, Watch};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::wire::Link;
use crate::world::Clock;

/// A link whose incoming frames are watched.
pub(super) struct Guard {
    link: Link,
    clock: Clock,
    watch: Watch,
    flood: Rc<Cell<Option<Flood>>>,
}

impl Guard {
    /// Watches a link from its first byte on; what it does too much is put into `flood`.
    pub(super) fn new(link: Link, clock: Clock, flood: Rc<Cell<Option<Flood>>>) -> Guard {
        Guard { link, clock, watch: Watch::new(&Budgets::default()), flood }
    }

    fn look(&mut self, bytes: &[u8]) {
        let now = self.clock.moment(self.clock.now());
        if let Err(flood) = self.watch.feed(bytes, now.0) {
            self.flood.set(Some(flood));
        }
    }
}

impl AsyncRead for Guard {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.flood.get().is_some() {
            // The connection is being closed: it is polled for what it has to say, not to listen.
            return Poll::Pending;
        }
        let before = buffer.filled().len();
        if this.link.buffer.is_empty() {
            ready!(Pin::new(&mut this.link.stream).poll_read(cx, buffer))?;
        } else {
            let length = this.link.buffer.len().min(buffer.remaining());
            buffer.put_slice(&this.link.buffer[..length]);
            this.link.buffer.advance(length);
        }
        this.look(&buffer.filled()[before..]);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Guard {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().link.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().link.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().link.stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().link.stream).poll_shutdown(cx)
    }
}
