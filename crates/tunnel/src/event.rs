//! What happens in a tunnel, in words that are the same for both versions.
//!
//! Promise: every exchange ends exactly once: for a gateway with [`Answer::End`] or [`Answer::Failed`], for a
//! connector with [`Call::Cancelled`] unless it ended the exchange itself; a tunnel ends exactly once, last.

use bytes::Bytes;
use sluice_http::reasons::reasons;
use sluice_http::{Fields, RequestHead, ResponseHead};

use crate::text::Content;
use crate::websocket::{Close, Ended};

/// An exchange in a tunnel. A tunnel of version 1.0 carries one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamId(pub(crate) i32);

impl StreamId {
    /// The one exchange of a tunnel of version 1.0.
    pub(crate) const ONLY: StreamId = StreamId(1);

    /// Its number on the wire.
    pub fn number(self) -> i32 {
        self.0
    }
}

/// What a gateway hears from a connector.
#[derive(Debug)]
pub enum Answer {
    /// The head of the answer. Status 101 means that the tunnel now carries another protocol's bytes.
    Head(StreamId, ResponseHead),
    /// Content; never empty. Acknowledge it when it was passed on.
    Data(StreamId, Bytes),
    /// Trailer fields, before the end.
    Trailers(StreamId, Fields),
    /// The answer is complete. After a 101 the other direction may still be open.
    End(StreamId),
    /// The exchange failed, for this reason: see [`Fault::status`].
    Failed(StreamId, Fault),
    /// More may be sent: see `may_send`.
    Resumed(StreamId),
    /// The tunnel is over; every exchange has ended before.
    Closed(Ended),
}

/// What a connector hears from a gateway.
#[derive(Debug)]
pub enum Call {
    /// A request begins.
    Request(StreamId, RequestHead, Content),
    /// Content; never empty. Acknowledge it when it was passed on.
    Data(StreamId, Bytes),
    /// Trailer fields, before the end.
    Trailers(StreamId, Fields),
    /// The request is complete.
    End(StreamId),
    /// The exchange is over before its answer was: the call is to be given up.
    Cancelled(StreamId, Cancel),
    /// More may be sent: see `may_send`.
    Resumed(StreamId),
    /// The tunnel is over; every exchange has ended before.
    Closed(Ended),
}

reasons! {
    /// Why an exchange in a tunnel failed, as a gateway sees it.
    pub enum Fault {
        ConnectorFailed "tunnel-connector-failed" "the connector could not reach or finish with its target",
        Refused "tunnel-refused" "the connector calls the request bad",
        NoAnswer "tunnel-no-answer" "the connector ended the exchange without an answer",
        BadHead "tunnel-bad-head" "the head of the connector's answer is malformed or too large",
        WrongLength "tunnel-wrong-length" "the answer is shorter or longer than its Content-Length",
        GoneAway "tunnel-gone-away" "the connector closed the tunnel",
        Dropped "tunnel-dropped" "the connection of the tunnel broke",
        Silent "tunnel-silent" "the connector was silent for too long",
        Broken "tunnel-broken" "the connector broke a rule of the tunnel's protocol",
        Overrun "tunnel-overrun" "the connector does not wait for acknowledgements",
    }
}

impl Fault {
    /// The status a client gets when nothing of the answer was passed on yet. Afterwards the answer is aborted.
    pub const fn status(self) -> u16 {
        match self {
            Fault::Refused => 400,
            Fault::Silent => 504,
            _ => 502,
        }
    }

    /// What the end of a tunnel means for an exchange that is not complete.
    pub(crate) fn of(ended: &Ended) -> Fault {
        match ended {
            Ended::Closed(Some(close)) => match close.code {
                Close::ERROR => Fault::ConnectorFailed,
                Close::POLICY => Fault::Refused,
                _ => Fault::GoneAway,
            },
            Ended::Closed(None) | Ended::Ours => Fault::GoneAway,
            Ended::Dropped => Fault::Dropped,
            Ended::Silent => Fault::Silent,
            Ended::Broken(_) => Fault::Broken,
        }
    }
}

reasons! {
    /// Why an exchange in a tunnel was given up, as a connector sees it.
    pub enum Cancel {
        ClientGone "tunnel-client-gone" "the gateway gave the exchange up",
        Closed "tunnel-closed" "the gateway closed the tunnel",
        Dropped "tunnel-dropped" "the connection of the tunnel broke",
        Silent "tunnel-silent" "the gateway was silent for too long",
        Broken "tunnel-broken" "the gateway broke a rule of the tunnel's protocol",
        BadRequest "tunnel-bad-request" "the request is malformed or too large",
        WrongLength "tunnel-wrong-length" "the request is shorter or longer than its Content-Length",
        Overrun "tunnel-overrun" "the gateway does not wait for acknowledgements",
    }
}

impl Cancel {
    pub(crate) fn of(ended: &Ended) -> Cancel {
        match ended {
            Ended::Closed(Some(close)) if close.code == Close::GOING_AWAY => Cancel::ClientGone,
            Ended::Closed(_) | Ended::Ours => Cancel::Closed,
            Ended::Dropped => Cancel::Dropped,
            Ended::Silent => Cancel::Silent,
            Ended::Broken(_) => Cancel::Broken,
        }
    }
}

reasons! {
    /// Why a request could not be put into a tunnel; nothing of it was sent.
    pub enum Unsendable {
        TooLarge "tunnel-request-head-too-large" "the head is larger than the connector accepts",
        NotOpen "tunnel-not-open" "the tunnel is over, or carries as many exchanges as it may",
    }
}

/// Content against what was announced.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Expected(Option<u64>);

impl Expected {
    pub(crate) fn new(length: Option<u64>) -> Expected {
        Expected(length)
    }

    /// Whether so much more is not too much.
    pub(crate) fn takes(&mut self, length: usize) -> bool {
        match &mut self.0 {
            None => true,
            Some(left) => match left.checked_sub(length as u64) {
                Some(rest) => {
                    *left = rest;
                    true
                }
                None => false,
            },
        }
    }

    pub(crate) fn is_met(self) -> bool {
        self.0.is_none_or(|left| left == 0)
    }
}
