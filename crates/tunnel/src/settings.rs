//! How much one end of a tunnel accepts and sends, and its patience.

use std::time::Duration;

use crate::registration::Extensions;
use crate::websocket::{Close, Pings, Timing};

/// The settings of one end of one tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Bytes of a head that is sent; larger ones are refused before anything is sent.
    pub head_sent: usize,
    /// Bytes of a head that is received.
    pub head_received: usize,
    /// Bytes of content in one message; longer pieces are split.
    pub chunk: usize,
    /// Bytes of content of one exchange that may wait here for whoever consumes them, in 3.0: the peer stops by
    /// itself at 64 KiB and a piece, so more is an attack, or a peer without flow control.
    pub waiting: u64,
    /// Exchanges at a time, in 3.0.
    pub streams: usize,
    /// What both ends know beyond the protocol.
    pub extensions: Extensions,
    /// Pings, and patience with a silent peer.
    pub timing: Timing,
}

impl Settings {
    /// For the gateway's end. The pieces and heads it sends are such that every known connector takes them: one of
    /// them closes the tunnel on messages above 16 KiB.
    pub fn gateway() -> Settings {
        Settings {
            head_sent: 16 * 1024,
            head_received: 64 * 1024,
            chunk: 8 * 1024,
            waiting: 256 * 1024,
            streams: 10_000,
            extensions: Extensions::NONE,
            timing: Timing {
                pings: Pings::AfterSilence(Duration::from_secs(10)),
                payload: b"sluice",
                silence: Duration::from_secs(60),
                silent: (Close::GOING_AWAY, "TIMED_OUT"),
            },
        }
    }

    /// For the connector's end. Gateways take frames up to 64 KiB.
    pub fn connector() -> Settings {
        Settings {
            head_sent: 64 * 1024 - 1024,
            head_received: 64 * 1024,
            chunk: 16 * 1024,
            waiting: 256 * 1024,
            streams: 10_000,
            extensions: Extensions::NONE,
            timing: Timing {
                pings: Pings::Every(Duration::from_secs(5)),
                payload: b"ping",
                silence: Duration::from_secs(20),
                silent: (Close::ERROR, "No message received from router socket"),
            },
        }
    }
}
