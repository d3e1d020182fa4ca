//! The connector's end of a tunnel, whatever its version. It is driven as [`crate::GatewayEnd`] is.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use sluice_http::{Fields, ResponseHead};

use crate::driven::driven;
use crate::event::{Call, StreamId, Unsendable};
use crate::registration::Version;
use crate::settings::Settings;
use crate::websocket::{Close, Output, Received, Socket};
use crate::{v1, v3};

/// The connector's end of one tunnel.
#[derive(Debug)]
pub enum ConnectorEnd {
    /// Version 1.0.
    V1(Box<v1::Connector>),
    /// Version 3.0.
    V3(Box<v3::Connector>),
}

impl ConnectorEnd {
    /// After the handshake. The seed is for masking keys; `now` here and everywhere is the time since any moment
    /// that stays the same for the tunnel.
    pub fn new(version: Version, settings: Settings, random: (u64, Duration)) -> ConnectorEnd {
        match version {
            Version::V1 => ConnectorEnd::V1(Box::new(v1::Connector::new(settings, random))),
            Version::V3 => ConnectorEnd::V3(Box::new(v3::Connector::new(settings, random))),
        }
    }

    /// Whether no exchange runs in it.
    pub fn is_idle(&self) -> bool {
        match self {
            ConnectorEnd::V1(end) => end.is_idle(),
            ConnectorEnd::V3(end) => end.count() == 0,
        }
    }

    /// Sends the head of an answer.
    ///
    /// # Errors
    /// When the exchange is over, or the head too large; in the latter case the exchange is still to be ended.
    pub fn respond(
        &mut self,
        stream: StreamId,
        head: &ResponseHead,
        now: Duration,
    ) -> Result<(), Unsendable> {
        match self {
            ConnectorEnd::V1(end) => end.respond(head, now),
            ConnectorEnd::V3(end) => end.respond(stream, head, now),
        }
    }

    /// Sends content of an answer.
    pub fn data(&mut self, stream: StreamId, bytes: Bytes, now: Duration) {
        match self {
            ConnectorEnd::V1(end) => end.data(bytes, now),
            ConnectorEnd::V3(end) => end.data(stream, bytes, now),
        }
    }

    /// Ends an answer with trailer fields, where both ends know them.
    pub fn trailers(&mut self, stream: StreamId, fields: &Fields, now: Duration) {
        match self {
            ConnectorEnd::V1(end) => end.end(now),
            ConnectorEnd::V3(end) => end.trailers(stream, fields, now),
        }
    }

    /// Ends an answer. In 1.0 the tunnel closes.
    pub fn end(&mut self, stream: StreamId, now: Duration) {
        match self {
            ConnectorEnd::V1(end) => end.end(now),
            ConnectorEnd::V3(end) => end.end(stream, now),
        }
    }

    /// There is no answer, or not all of it. In 1.0 the tunnel closes.
    pub fn fail(&mut self, stream: StreamId, reason: &str, now: Duration) {
        match self {
            ConnectorEnd::V1(end) => end.fail(reason, now),
            ConnectorEnd::V3(end) => end.fail(stream, reason, now),
        }
    }

    /// Closes the tunnel with everything in it.
    pub fn close(&mut self, reason: &str, now: Duration) {
        match self {
            ConnectorEnd::V1(end) => end.close(reason, now),
            ConnectorEnd::V3(end) => end.close((Close::GOING_AWAY, reason), now),
        }
    }

    /// Closes a tunnel of 3.0 that is idle, as one that is drained; a tunnel of 1.0 closes with its exchange.
    pub fn close_if_drained(&mut self, now: Duration) {
        if let ConnectorEnd::V3(end) = self {
            end.close_if_idle(now);
        }
    }
}

driven!(ConnectorEnd, Call);
