//! WebSocket framing (RFC 6455), sans-I/O: bytes in, messages out, and the reverse.
//!
//! [`Decoder`] and [`Encoder`] are the two directions; [`Socket`] joins them and adds what runs by itself: pongs,
//! pings, the closing handshake, and the end of a silent peer. Read `decode`, `encode`, `socket`.

mod close;
mod decode;
mod encode;
mod mask;
mod socket;

#[cfg(test)]
mod tests;

pub use close::{Breach, Close};
pub use decode::{Binary, Decoder, Limits, Message};
pub use encode::{Encoder, Output};
pub use socket::{Ended, Pings, Received, Socket, Timing};

/// Which side we are: a client masks what it sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// We asked for the connection: a connector.
    Client,
    /// We accepted it: a gateway.
    Server,
}

mod opcode {
    pub(super) const CONTINUATION: u8 = 0x0;
    pub(super) const TEXT: u8 = 0x1;
    pub(super) const BINARY: u8 = 0x2;
    pub(super) const CLOSE: u8 = 0x8;
    pub(super) const PING: u8 = 0x9;
    pub(super) const PONG: u8 = 0xa;
}
