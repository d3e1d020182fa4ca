//! Version 1.0: a tunnel carries one exchange and is never used again. Heads and markers are text messages, content
//! is binary messages, and the connector's close frame is the end of the answer.

mod connector;
mod gateway;

#[cfg(test)]
mod tests;

pub use connector::Connector;
pub use gateway::Gateway;

use bytes::Bytes;

use crate::settings::Settings;
use crate::websocket::{Binary, Close, Ended, Limits, Socket};
use std::time::Duration;

/// Markers and heads are whole, content is as it arrives.
fn limits(settings: &Settings) -> Limits {
    Limits { text: settings.head_received, binary: Binary::Streamed }
}

/// Content in messages of the allowed size.
fn send_content(socket: &mut Socket, mut bytes: Bytes, chunk: usize, now: Duration) {
    while !bytes.is_empty() {
        let piece = bytes.split_to(bytes.len().min(chunk.max(1)));
        socket.send_binary(b"", piece, now);
    }
}

/// Whether the peer says that all went well.
fn is_normal(ended: &Ended) -> bool {
    matches!(ended, Ended::Closed(Some(close)) if close.code == Close::NORMAL)
}
