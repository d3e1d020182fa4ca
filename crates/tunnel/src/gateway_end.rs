//! The gateway's end of a tunnel, whatever its version: what a driver of sockets needs, and nothing else.
//!
//! A driver reads into a buffer and calls [`GatewayEnd::receive`] until it finds nothing more; writes what is in
//! [`GatewayEnd::output`]; calls [`GatewayEnd::eof`] when the connection ended and [`GatewayEnd::tick`] at the
//! [`GatewayEnd::deadline`], and then `receive` again; and closes the connection when the end
//! [is over](GatewayEnd::is_over) and the output is written.
//!
//! Back-pressure. In 3.0 a driver always reads: [`GatewayEnd::consumed`] is what holds a fast connector back. In 1.0
//! it stops reading while its client is slow. It sends content while [`GatewayEnd::may_send`] and the output is
//! small.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use sluice_http::{Fields, RequestHead};

use crate::event::{Answer, StreamId, Unsendable};
use crate::registration::Version;
use crate::settings::Settings;
use crate::text::Content;
use crate::websocket::{Output, Socket};
use crate::{v1, v3};

/// Why a tunnel is closed on deregistration, and when its client has gone.
const GOING_AWAY: &str = "Going away";

/// What became of a tunnel that was told to retire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retired {
    /// It was idle, and closes.
    Closed,
    /// Exchanges run in it; its connector closes it after the last.
    Busy,
}

/// The gateway's end of one tunnel.
#[derive(Debug)]
pub enum GatewayEnd {
    /// Version 1.0.
    V1(Box<v1::Gateway>),
    /// Version 3.0.
    V3(Box<v3::Gateway>),
}

impl GatewayEnd {
    /// After the handshake. `now` here and everywhere is the time since any moment that stays the same for the
    /// tunnel.
    pub fn new(version: Version, settings: Settings, now: Duration) -> GatewayEnd {
        // A server masks nothing: the seed is never used.
        match version {
            Version::V1 => GatewayEnd::V1(Box::new(v1::Gateway::new(settings, (0, now)))),
            Version::V3 => GatewayEnd::V3(Box::new(v3::Gateway::new(settings, (0, now)))),
        }
    }

    fn socket(&mut self) -> &mut Socket {
        match self {
            GatewayEnd::V1(end) => end.socket(),
            GatewayEnd::V3(end) => end.socket(),
        }
    }

    /// The version it speaks.
    pub fn version(&self) -> Version {
        match self {
            GatewayEnd::V1(_) => Version::V1,
            GatewayEnd::V3(_) => Version::V3,
        }
    }

    /// Whether it takes a request now.
    pub fn has_room(&self) -> bool {
        match self {
            GatewayEnd::V1(end) => end.is_idle(),
            GatewayEnd::V3(end) => end.has_room(),
        }
    }

    /// Exchanges that are running.
    pub fn count(&self) -> usize {
        match self {
            GatewayEnd::V1(end) => usize::from(end.is_busy()),
            GatewayEnd::V3(end) => end.count(),
        }
    }

    /// Sends a request. If it asks for another protocol and both ends know how, content may always follow.
    ///
    /// # Errors
    /// When there is no room, or the head is too large; nothing was sent then.
    pub fn request(
        &mut self,
        head: &RequestHead,
        content: Content,
        now: Duration,
    ) -> Result<StreamId, Unsendable> {
        match self {
            GatewayEnd::V1(end) => end.request(head, content, now),
            GatewayEnd::V3(end) => end.request(head, content, now),
        }
    }

    /// Sends content of a request.
    pub fn data(&mut self, stream: StreamId, bytes: Bytes, now: Duration) {
        match self {
            GatewayEnd::V1(end) => end.data(bytes, now),
            GatewayEnd::V3(end) => end.data(stream, bytes, now),
        }
    }

    /// Ends a request with trailer fields, where both ends know them.
    pub fn trailers(&mut self, stream: StreamId, fields: &Fields, now: Duration) {
        match self {
            GatewayEnd::V1(end) => end.end(now),
            GatewayEnd::V3(end) => end.trailers(stream, fields, now),
        }
    }

    /// Ends a request.
    pub fn end(&mut self, stream: StreamId, now: Duration) {
        match self {
            GatewayEnd::V1(end) => end.end(now),
            GatewayEnd::V3(end) => end.end(stream, now),
        }
    }

    /// Gives an exchange up: nothing more is heard of it. In 1.0 the tunnel goes with it.
    pub fn reset(&mut self, stream: StreamId, reason: &str, now: Duration) {
        match self {
            GatewayEnd::V1(end) => end.give_up(now),
            GatewayEnd::V3(end) => end.reset(stream, reason, now),
        }
    }

    /// Closes the tunnel with everything in it.
    pub fn close(&mut self, now: Duration) {
        match self {
            GatewayEnd::V1(end) => end.close(GOING_AWAY, now),
            GatewayEnd::V3(end) => end.close(GOING_AWAY, now),
        }
    }

    /// Its connector has deregistered: closes the tunnel if it is idle.
    pub fn retire(&mut self, now: Duration) -> Retired {
        if self.count() > 0 {
            return Retired::Busy;
        }
        self.close(now);
        Retired::Closed
    }

    /// Whether content of this request may be sent; if not, [`Answer::Resumed`] will come.
    pub fn may_send(&self, stream: StreamId) -> bool {
        match self {
            GatewayEnd::V1(_) => true,
            GatewayEnd::V3(end) => end.may_send(stream),
        }
    }

    /// So many bytes of an answer's content were passed on.
    pub fn consumed(&mut self, stream: StreamId, count: usize, now: Duration) {
        if let GatewayEnd::V3(end) = self {
            end.consumed(stream, count, now);
        }
    }

    /// What happened next, out of the bytes in `buf`; `None` asks for more.
    pub fn receive(&mut self, buf: &mut BytesMut, now: Duration) -> Option<Answer> {
        match self {
            GatewayEnd::V1(end) => end.receive(buf, now),
            GatewayEnd::V3(end) => end.receive(buf, now),
        }
    }

    /// The connection has ended or broken.
    pub fn eof(&mut self, now: Duration) {
        if let Some(received) = self.socket().eof() {
            self.take(received, now);
        }
    }

    /// Does what is due.
    pub fn tick(&mut self, now: Duration) {
        if let Some(received) = self.socket().tick(now) {
            self.take(received, now);
        }
    }

    fn take(&mut self, received: crate::websocket::Received, now: Duration) {
        match self {
            GatewayEnd::V1(end) => end.take(received, now),
            GatewayEnd::V3(end) => end.take(received, now),
        }
    }

    /// When `tick` is due.
    pub fn deadline(&mut self) -> Option<Duration> {
        self.socket().deadline()
    }

    /// What waits to be written.
    pub fn output(&mut self) -> &mut Output {
        self.socket().output()
    }

    /// Whether nothing more will be read.
    pub fn is_over(&mut self) -> bool {
        self.socket().is_over()
    }
}
