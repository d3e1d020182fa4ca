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

use crate::driven::driven;
use crate::event::{Answer, StreamId, Unsendable};
use crate::registration::Version;
use crate::settings::Settings;
use crate::text::Content;
use crate::websocket::{Output, Received, Socket};
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

    /// The end of a deregistration's socket, after its handshake: it carries nothing and closes at once. The
    /// connector's idle tunnels are to be [retired](GatewayEnd::retire) before.
    pub fn farewell(settings: Settings, now: Duration) -> GatewayEnd {
        let mut end = v1::Gateway::new(settings, (0, now));
        end.farewell(now);
        GatewayEnd::V1(Box::new(end))
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
}

driven!(GatewayEnd, Answer);

#[cfg(test)]
mod tests {
    use bytes::Buf as _;

    use super::*;
    use crate::event::Answer;
    use crate::websocket::Ended;

    #[test]
    fn a_deregistration_is_closed_with_1000() {
        let mut end = GatewayEnd::farewell(Settings::gateway(), Duration::ZERO);
        assert!(!end.has_room());
        let out = end.output();
        assert_eq!(
            out.copy_to_bytes(out.remaining()),
            "\u{88}\u{15}\u{3}\u{e8}Deregister complete".chars().map(|it| it as u8).collect::<Vec<_>>()
        );
        // The connector closes it by itself, too.
        let mut buf = BytesMut::from(&b"\x88\x82\0\0\0\0\x03\xe8"[..]);
        assert!(matches!(end.receive(&mut buf, Duration::ZERO), Some(Answer::Closed(Ended::Ours))));
        assert!(end.receive(&mut buf, Duration::ZERO).is_none() && end.is_over());
    }

    #[test]
    fn an_idle_tunnel_is_retired_and_a_busy_one_is_not() {
        for version in [Version::V1, Version::V3] {
            let mut end = GatewayEnd::new(version, Settings::gateway(), Duration::ZERO);
            let head = RequestHead::new("GET", "/");
            assert!(end.has_room());
            end.request(&head, Content::None, Duration::ZERO).unwrap();
            assert_eq!((end.retire(Duration::ZERO), end.count()), (Retired::Busy, 1));
            let mut idle = GatewayEnd::new(version, Settings::gateway(), Duration::ZERO);
            assert_eq!((idle.retire(Duration::ZERO), idle.has_room()), (Retired::Closed, false));
        }
    }

    #[test]
    fn an_idle_tunnel_is_small() {
        assert!(size_of::<v1::Gateway>() <= 768, "{}", size_of::<v1::Gateway>());
        assert!(size_of::<v3::Gateway>() <= 1024, "{}", size_of::<v3::Gateway>());
    }
}
