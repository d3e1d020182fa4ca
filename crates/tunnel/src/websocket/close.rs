//! Closing: codes, reasons (RFC 6455 section 7.4), and what breaks a connection.

use sluice_http::reasons::reasons;

/// Bytes of a reason: a control frame has 125, the code takes two.
const REASON: usize = 123;

/// The content of a close frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Close {
    /// One of the codes that may stand in a frame.
    pub code: u16,
    /// For people, at most 123 bytes.
    pub reason: String,
}

impl Close {
    /// Done.
    pub const NORMAL: u16 = 1000;
    /// Stopping, or the client has gone.
    pub const GOING_AWAY: u16 = 1001;
    /// Breaks the protocol.
    pub const PROTOCOL: u16 = 1002;
    /// Not the content its kind of message has.
    pub const INVALID: u16 = 1007;
    /// Against the rules; for a tunnel: the request was bad.
    pub const POLICY: u16 = 1008;
    /// A message is larger than allowed.
    pub const TOO_BIG: u16 = 1009;
    /// It failed.
    pub const ERROR: u16 = 1011;

    /// With as much of the reason as has room, cut between characters.
    pub fn new(code: u16, reason: &str) -> Close {
        let end = reason.floor_char_boundary(REASON);
        Close { code, reason: reason[..end].to_owned() }
    }

    pub(super) fn payload(&self) -> Vec<u8> {
        [&self.code.to_be_bytes(), self.reason.as_bytes()].concat()
    }

    /// Reads the payload of a close frame; `None` when it has none.
    pub(super) fn read(payload: &[u8]) -> Result<Option<Close>, Breach> {
        let (high, low, reason) = match payload {
            [] => return Ok(None),
            [_] => return Err(Breach::BadClose),
            [high, low, reason @ ..] => (*high, *low, reason),
        };
        let code = u16::from_be_bytes([high, low]);
        if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
            return Err(Breach::BadClose);
        }
        let reason = std::str::from_utf8(reason).map_err(|_| Breach::BadReason)?;
        Ok(Some(Close { code, reason: reason.to_owned() }))
    }
}

reasons! {
    /// Why a peer's bytes ended a WebSocket.
    pub enum Breach {
        Reserved "websocket-reserved-bits" "a frame uses reserved bits",
        UnknownOpcode "websocket-unknown-opcode" "a frame has an unknown opcode",
        Masking "websocket-masking" "a client's frame is not masked, or a server's is",
        Length "websocket-length" "a frame's length is malformed",
        BadControl "websocket-bad-control" "a control frame is fragmented or too long",
        Fragments "websocket-fragments" "a message begins inside another, or goes on without a beginning",
        BadClose "websocket-bad-close" "a close frame is malformed",
        BadReason "websocket-bad-reason" "the reason of a close frame is not UTF-8",
        MessageTooLarge "websocket-message-too-large" "a message is larger than allowed",
        Unexpected "tunnel-unexpected-message" "a message stands where the tunnel's protocol has none",
        BadFrame "tunnel-bad-frame" "a frame of the tunnel's protocol is malformed",
        Unread "tunnel-unread" "the peer makes us answer and reads no answers",
    }
}

impl Breach {
    /// The close code that tells the peer.
    pub const fn close_code(self) -> u16 {
        match self {
            Breach::MessageTooLarge => Close::TOO_BIG,
            Breach::BadReason => Close::INVALID,
            Breach::Unread => Close::POLICY,
            _ => Close::PROTOCOL,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_cut_between_characters() {
        let close = Close::new(Close::ERROR, &"é".repeat(100));
        assert_eq!((close.reason.len(), close.payload().len()), (122, 124));
        assert_eq!(Close::read(&close.payload()), Ok(Some(close)));
    }

    #[test]
    fn a_close_has_a_code_that_may_be_sent_and_a_reason_in_utf8() {
        assert_eq!(Close::read(b""), Ok(None));
        assert_eq!(Close::read(b"\x03"), Err(Breach::BadClose));
        for code in [0u16, 999, 1004, 1005, 1006, 1015, 2999, 5000, u16::MAX] {
            assert_eq!(Close::read(&code.to_be_bytes()), Err(Breach::BadClose), "{code}");
        }
        for code in [1000u16, 1001, 1008, 1011, 1014, 3000, 4999] {
            assert_eq!(Close::read(&code.to_be_bytes()).map(|close| close.unwrap().code), Ok(code));
        }
        assert_eq!(Close::read(b"\x03\xe8\xff"), Err(Breach::BadReason));
    }
}
