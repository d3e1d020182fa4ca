//! A connector of version 1.0 written here, frame by frame.

use std::net::SocketAddr;

use sluice_testkit::{Answer, Wire};

/// One WebSocket to the gateway.
pub(super) struct Raw {
    wire: Wire,
}

/// A frame's kind and payload.
pub(super) type Frame = (u8, Vec<u8>);

pub(super) const TEXT: u8 = 1;
pub(super) const BINARY: u8 = 2;
pub(super) const CLOSE: u8 = 8;
pub(super) const PING: u8 = 9;
pub(super) const PONG: u8 = 10;

impl Raw {
    /// Asks for something, with the usual fields and these.
    pub(super) async fn ask(address: SocketAddr, target: &str, fields: &[(&str, &str)]) -> (Raw, Answer) {
        let mut text = format!(
            "GET {target} HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        );
        fields.iter().for_each(|(name, value)| text.push_str(&format!("{name}: {value}\r\n")));
        text.push_str("\r\n");
        let mut wire = Wire::connect(address).await;
        wire.send(text).await;
        let answer = wire.head().await;
        (Raw { wire }, answer)
    }

    /// Registers a tunnel of 1.0.
    pub(super) async fn register(address: SocketAddr, route: &str) -> Raw {
        let target = "/register/?connectorInstanceID=i-1&componentName=raw";
        let (raw, answer) = Raw::ask(address, target, &[("CrankerProtocol", "1.0"), ("Route", route)]).await;
        assert_eq!(answer.status, 101);
        raw
    }

    /// The next frame; the gateway masks nothing and fragments nothing.
    pub(super) async fn frame(&mut self) -> Frame {
        let head = self.wire.read(2).await;
        assert_eq!(head[0] & 0xf0, 0x80, "one frame for each message");
        let length = match head[1] {
            126 => self.wire.read(2).await.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)),
            127 => self.wire.read(8).await.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)),
            length => usize::from(length),
        };
        (head[0] & 0xf, self.wire.read(length).await)
    }

    /// The next frame's text.
    pub(super) async fn text(&mut self) -> String {
        let (kind, payload) = self.frame().await;
        assert_eq!(kind, TEXT, "{payload:?}");
        String::from_utf8(payload).unwrap()
    }

    /// Sends a frame, with a mask of zeros.
    pub(super) async fn send(&mut self, kind: u8, payload: impl AsRef<[u8]>) -> &mut Raw {
        let payload = payload.as_ref();
        let mut bytes = vec![0x80 | kind];
        match payload.len() {
            length @ ..126 => bytes.push(0x80 | length as u8),
            length => {
                bytes.push(0x80 | 126);
                bytes.extend_from_slice(&(length as u16).to_be_bytes());
            }
        }
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(payload);
        self.wire.send(bytes).await;
        self
    }

    /// Closes with this code.
    pub(super) async fn close(&mut self, code: u16) {
        self.send(CLOSE, code.to_be_bytes()).await;
    }

    /// The gateway's close frame must come next.
    pub(super) async fn expect_close(&mut self, code: u16, reason: &str) {
        let (kind, payload) = self.frame().await;
        assert_eq!((kind, &payload[..2], &payload[2..]), (CLOSE, &code.to_be_bytes()[..], reason.as_bytes()));
    }

    /// The gateway's end of the connection must come next.
    pub(super) async fn expect_end(&mut self) {
        self.wire.expect_closed().await;
    }

    /// The connection breaks.
    pub(super) fn vanish(self) {
        self.wire.reset();
    }
}
