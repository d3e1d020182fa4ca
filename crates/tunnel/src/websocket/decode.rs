//! Frames out of the bytes of a connection (RFC 6455 section 5).
//!
//! Promise: payloads are cut off the buffer and unmasked in place, not copied (but for messages that must be whole
//! and come in fragments); how the bytes were split on arrival changes nothing but the pieces of streamed
//! messages; memory is bounded by the limits. Text is not checked to be UTF-8: some connectors put Latin-1 in
//! it. Everything else that the RFC forbids is a [`Breach`].

use bytes::{Buf, Bytes, BytesMut};

use super::mask::Mask;
use super::{Breach, Close, Role, opcode};

/// How binary messages are given out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Binary {
    /// In pieces as they arrive, without regard to the borders of messages; of any length.
    Streamed,
    /// Whole; of at most so many bytes.
    Whole(usize),
}

/// What is accepted from the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a text message, all fragments together.
    pub text: usize,
    /// Binary messages.
    pub binary: Binary,
}

/// What a call of [`Decoder::decode`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// A whole text message.
    Text(Bytes),
    /// A whole binary message, or a piece that is not empty: see [`Binary`].
    Binary(Bytes),
    /// To be answered with the same payload.
    Ping(Bytes),
    /// The answer to a ping, or nobody asked.
    Pong(Bytes),
    /// The last one: every further call finds nothing.
    Close(Option<Close>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Text,
    Binary,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Carries {
    Message(Kind),
    Ping,
    Pong,
    Close,
}

/// A frame whose header was read.
#[derive(Clone, Copy, Debug)]
struct Frame {
    carries: Carries,
    is_final: bool,
    /// Bytes of the payload that are missing.
    left: usize,
    mask: Option<Mask>,
}

/// The reading side of one WebSocket.
#[derive(Debug)]
pub struct Decoder {
    role: Role,
    limits: Limits,
    frame: Option<Frame>,
    /// The message that goes on.
    open: Option<Kind>,
    /// Its fragments so far, when it must be whole.
    parts: BytesMut,
    is_closed: bool,
}

impl Decoder {
    /// For our role: a server's decoder wants masked frames, a client's wants bare ones.
    pub fn new(role: Role, limits: Limits) -> Decoder {
        Decoder { role, limits, frame: None, open: None, parts: BytesMut::new(), is_closed: false }
    }

    /// Takes the next message, or piece of one, off the front of `buf`. `None` asks for more bytes; then `buf`
    /// has room for what is missing.
    ///
    /// # Errors
    /// A [`Breach`]; the decoder is of no use afterwards.
    pub fn decode(&mut self, buf: &mut BytesMut) -> Result<Option<Message>, Breach> {
        while !self.is_closed {
            let frame = match self.frame {
                Some(frame) => frame,
                None => match self.header(buf)? {
                    Some(frame) => frame,
                    None => return Ok(None),
                },
            };
            self.frame = Some(frame);
            let is_streamed =
                frame.carries == Carries::Message(Kind::Binary) && self.limits.binary == Binary::Streamed;
            if is_streamed {
                match self.piece(frame, buf) {
                    Some(piece) if piece.is_empty() => continue,
                    piece => return Ok(piece.map(Message::Binary)),
                }
            }
            if buf.len() < frame.left {
                // Bounded: the header was held against the limits.
                buf.reserve(frame.left - buf.len());
                return Ok(None);
            }
            let payload = unmasked(buf.split_to(frame.left), frame.mask);
            self.frame = None;
            if let Some(message) = self.whole(frame, payload)? {
                return Ok(Some(message));
            }
        }
        Ok(None)
    }

    /// What there is of a streamed frame; empty at the end of an empty one.
    fn piece(&mut self, mut frame: Frame, buf: &mut BytesMut) -> Option<Bytes> {
        if buf.is_empty() && frame.left > 0 {
            return None;
        }
        let mut piece = buf.split_to(frame.left.min(buf.len()));
        if let Some(mask) = &mut frame.mask {
            mask.apply(&mut piece);
        }
        frame.left -= piece.len();
        self.frame = (frame.left > 0).then_some(frame);
        if frame.left == 0 && frame.is_final {
            self.open = None;
        }
        Some(piece.freeze())
    }

    /// What a whole frame makes; nothing when it is a fragment and more follow.
    fn whole(&mut self, frame: Frame, payload: Bytes) -> Result<Option<Message>, Breach> {
        let kind = match frame.carries {
            Carries::Ping => return Ok(Some(Message::Ping(payload))),
            Carries::Pong => return Ok(Some(Message::Pong(payload))),
            Carries::Close => {
                self.is_closed = true;
                return Close::read(&payload).map(|close| Some(Message::Close(close)));
            }
            Carries::Message(kind) => kind,
        };
        if !frame.is_final {
            self.parts.extend_from_slice(&payload);
            return Ok(None);
        }
        self.open = None;
        let message = match self.parts.is_empty() {
            true => payload,
            false => {
                self.parts.extend_from_slice(&payload);
                std::mem::take(&mut self.parts).freeze()
            }
        };
        Ok(Some(match kind {
            Kind::Text => Message::Text(message),
            Kind::Binary => Message::Binary(message),
        }))
    }

    /// Takes a frame's header, once it is complete.
    fn header(&mut self, buf: &mut BytesMut) -> Result<Option<Frame>, Breach> {
        let &[first, second, ref rest @ ..] = &buf[..] else { return Ok(None) };
        if first & 0x70 != 0 {
            return Err(Breach::Reserved);
        }
        let is_masked = second & 0x80 != 0;
        if is_masked != (self.role == Role::Server) {
            return Err(Breach::Masking);
        }
        let is_final = first & 0x80 != 0;
        let carries = self.carries(first & 0x0f, is_final)?;
        let (length, rest) = match (second & 0x7f, rest) {
            (126.., _) if !matches!(carries, Carries::Message(_)) => return Err(Breach::BadControl),
            (126, &[a, b, ref rest @ ..]) => match u16::from_be_bytes([a, b]) {
                ..126 => return Err(Breach::Length),
                length => (u64::from(length), rest),
            },
            (127, &[a, b, c, d, e, f, g, h, ref rest @ ..]) => {
                match u64::from_be_bytes([a, b, c, d, e, f, g, h]) {
                    length @ 0x1_0000..=0x7fff_ffff_ffff_ffff => (length, rest),
                    _ => return Err(Breach::Length),
                }
            }
            (126.., _) => return Ok(None),
            (length, rest) => (u64::from(length), rest),
        };
        let left = usize::try_from(length).map_err(|_| Breach::MessageTooLarge)?;
        self.check_size(carries, left)?;
        let (mask, rest) = match (is_masked, rest) {
            (true, &[a, b, c, d, ref rest @ ..]) => (Some(Mask::new([a, b, c, d])), rest),
            (true, _) => return Ok(None),
            (false, rest) => (None, rest),
        };
        if let Carries::Message(kind) = carries {
            self.open = Some(kind);
        }
        let taken = buf.len() - rest.len();
        buf.advance(taken);
        Ok(Some(Frame { carries, is_final, left, mask }))
    }

    fn carries(&self, code: u8, is_final: bool) -> Result<Carries, Breach> {
        let carries = match (code, self.open) {
            (opcode::CONTINUATION, Some(kind)) => return Ok(Carries::Message(kind)),
            (opcode::TEXT, None) => return Ok(Carries::Message(Kind::Text)),
            (opcode::BINARY, None) => return Ok(Carries::Message(Kind::Binary)),
            (opcode::CONTINUATION | opcode::TEXT | opcode::BINARY, _) => return Err(Breach::Fragments),
            (opcode::CLOSE, _) => Carries::Close,
            (opcode::PING, _) => Carries::Ping,
            (opcode::PONG, _) => Carries::Pong,
            _ => return Err(Breach::UnknownOpcode),
        };
        if is_final { Ok(carries) } else { Err(Breach::BadControl) }
    }

    fn check_size(&self, carries: Carries, length: usize) -> Result<(), Breach> {
        let limit = match (carries, self.limits.binary) {
            (Carries::Message(Kind::Text), _) => self.limits.text,
            (Carries::Message(Kind::Binary), Binary::Whole(limit)) => limit,
            _ => return Ok(()),
        };
        match self.parts.len().saturating_add(length) > limit {
            true => Err(Breach::MessageTooLarge),
            false => Ok(()),
        }
    }
}

fn unmasked(mut payload: BytesMut, mask: Option<Mask>) -> Bytes {
    if let Some(mut mask) = mask {
        mask.apply(&mut payload);
    }
    payload.freeze()
}
