//! The driver of one tunnel: moves bytes between its socket and its protocol, and rings the clock.

use std::future::{Future as _, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::Sleep;

use super::dial::Stream;
use super::tunnel::Tunnel;
use crate::websocket::Ended;

/// Room for a read.
const ROOM: usize = 16 * 1024;
/// Below this, room is made.
const LOW: usize = 2 * 1024;
/// How long the connection's own farewell (TLS) may take.
const FAREWELL: Duration = Duration::from_secs(1);

struct Driver {
    tunnel: Rc<Tunnel>,
    stream: Box<dyn Stream>,
    buf: BytesMut,
    timer: Pin<Box<Sleep>>,
    ended: Option<Ended>,
}

/// Runs a tunnel to its end.
pub(super) async fn drive(tunnel: Rc<Tunnel>, stream: Box<dyn Stream>, buf: BytesMut) -> Ended {
    let timer = Box::pin(tokio::time::sleep(Duration::ZERO));
    let mut driver = Driver { tunnel, stream, buf, timer, ended: None };
    poll_fn(|cx| driver.poll(cx)).await;
    let _ = tokio::time::timeout(FAREWELL, driver.stream.shutdown()).await;
    driver.ended.unwrap_or(Ended::Dropped)
}

impl Driver {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.tunnel.wait_for_work(cx);
        loop {
            self.listen();
            let written = self.write(cx);
            if written == Poll::Ready(Err(())) {
                self.lost();
                return Poll::Ready(());
            }
            if self.tunnel.end().is_over() && written.is_ready() {
                return Poll::Ready(());
            }
            if self.ring(cx) {
                continue;
            }
            if !self.tunnel.may_read() {
                return Poll::Pending;
            }
            match ready!(self.read(cx)) {
                0 => {
                    self.lost();
                    return Poll::Ready(());
                }
                _ => self.tunnel.wait_for_work(cx),
            }
        }
    }

    /// Takes everything that happened.
    fn listen(&mut self) {
        loop {
            let now = self.tunnel.now();
            let Some(call) = self.tunnel.end().receive(&mut self.buf, now) else { return };
            if let Some(ended) = self.tunnel.take(call) {
                self.ended = Some(ended);
            }
        }
    }

    /// Writes what waits; ready when nothing does.
    fn write(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ()>> {
        loop {
            let mut end = self.tunnel.end();
            let out = end.output();
            if !out.has_remaining() {
                break;
            }
            let wrote = pin!(self.stream.write_buf(out)).poll(cx);
            drop(end);
            match ready!(wrote) {
                Ok(1..) => self.tunnel.written(),
                Ok(0) | Err(_) => return Poll::Ready(Err(())),
            }
        }
        pin!(self.stream.flush()).poll(cx).map_err(|_| ())
    }

    fn read(&mut self, cx: &mut Context<'_>) -> Poll<usize> {
        if self.buf.capacity() - self.buf.len() < LOW {
            self.buf.reserve(ROOM);
        }
        pin!(self.stream.read_buf(&mut self.buf)).poll(cx).map(|read| read.unwrap_or(0))
    }

    /// Whether something was due.
    fn ring(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(deadline) = self.tunnel.end().deadline() else { return false };
        let at = self.tunnel.at(deadline);
        if self.timer.deadline() != at {
            self.timer.as_mut().reset(at);
        }
        if self.timer.as_mut().poll(cx).is_pending() {
            return false;
        }
        let now = self.tunnel.now();
        self.tunnel.end().tick(now);
        true
    }

    fn lost(&mut self) {
        let now = self.tunnel.now();
        self.tunnel.end().eof(now);
        self.listen();
    }
}
