//! Messages to frames (RFC 6455 section 5), and the bytes that wait to be written.
//!
//! Promise: every message is one frame. A server's payloads go out as they came in, without a copy, unless they
//! are so small that copying is cheaper than a vector of them; a client's are copied once, masked on the way.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, Bytes, BytesMut};

use super::mask::Mask;
use super::{Role, opcode};

/// Payloads shorter than this are copied beside their header.
const SMALL: usize = 1024;

/// Bytes on their way out. It is a [`Buf`] with vectored chunks.
#[derive(Debug, Default)]
pub struct Output {
    parts: VecDeque<Bytes>,
    /// Behind the parts.
    tail: BytesMut,
    len: usize,
}

impl Output {
    /// Adds a copy.
    pub fn put(&mut self, bytes: &[u8]) {
        self.len += bytes.len();
        self.tail.extend_from_slice(bytes);
    }

    /// Adds the bytes themselves, unless they are so few that a copy is cheaper.
    pub fn put_part(&mut self, bytes: Bytes) {
        if bytes.len() < SMALL {
            return self.put(&bytes);
        }
        self.len += bytes.len();
        if !self.tail.is_empty() {
            self.parts.push_back(self.tail.split().freeze());
        }
        self.parts.push_back(bytes);
    }

    fn put_masked(&mut self, bytes: &[u8], mask: &mut Mask) {
        let start = self.tail.len();
        self.put(bytes);
        mask.apply(&mut self.tail[start..]);
    }
}

impl Buf for Output {
    fn remaining(&self) -> usize {
        self.len
    }

    fn chunk(&self) -> &[u8] {
        self.parts.front().map_or(&self.tail, |part| part)
    }

    fn advance(&mut self, mut count: usize) {
        self.len = self.len.saturating_sub(count);
        while let Some(part) = self.parts.front_mut() {
            if count < part.len() {
                return part.advance(count);
            }
            count -= part.len();
            self.parts.pop_front();
        }
        self.tail.advance(count.min(self.tail.len()));
    }

    /// The first bytes; no copy of them when they are all there is, or a part of a payload.
    fn copy_to_bytes(&mut self, len: usize) -> Bytes {
        assert!(len <= self.len, "no more than there is");
        let whole = match self.parts.front_mut() {
            Some(part) if part.len() > len => Some(part.split_to(len)),
            Some(part) if part.len() == len => self.parts.pop_front(),
            None if self.tail.len() == len => Some(std::mem::take(&mut self.tail).freeze()),
            _ => None,
        };
        match whole {
            Some(bytes) => {
                self.len -= len;
                bytes
            }
            None => {
                let mut copy = BytesMut::with_capacity(len);
                bytes::BufMut::put(&mut copy, self.take(len));
                copy.freeze()
            }
        }
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let tail = (!self.tail.is_empty()).then_some(&self.tail[..]);
        let chunks = self.parts.iter().map(|part| &part[..]).chain(tail);
        slices.iter_mut().zip(chunks).map(|(slice, chunk)| *slice = IoSlice::new(chunk)).count()
    }
}

/// The writing side of one WebSocket.
#[derive(Debug)]
pub struct Encoder {
    role: Role,
    keys: fastrand::Rng,
}

impl Encoder {
    /// For our role: a client masks, with keys that follow from the seed.
    pub fn new(role: Role, seed: u64) -> Encoder {
        Encoder { role, keys: fastrand::Rng::with_seed(seed) }
    }

    /// Writes a text message.
    pub fn text(&mut self, text: &[u8], out: &mut Output) {
        self.frame(opcode::TEXT, text, Bytes::new(), out);
    }

    /// Writes a binary message: a copy of `lead`, then `payload`.
    pub fn binary(&mut self, lead: &[u8], payload: Bytes, out: &mut Output) {
        self.frame(opcode::BINARY, lead, payload, out);
    }

    /// Writes a control frame, whose payload has at most 125 bytes.
    pub(super) fn control(&mut self, code: u8, payload: &[u8], out: &mut Output) {
        self.frame(code, &payload[..payload.len().min(125)], Bytes::new(), out);
    }

    fn frame(&mut self, code: u8, lead: &[u8], payload: Bytes, out: &mut Output) {
        let length = lead.len() + payload.len();
        let masked = if self.role == Role::Client { 0x80 } else { 0 };
        let mut header = [0x80 | code, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let size = match length {
            ..126 => {
                header[1] = masked | length as u8;
                2
            }
            126..0x1_0000 => {
                header[1] = masked | 126;
                header[2..4].copy_from_slice(&(length as u16).to_be_bytes());
                4
            }
            _ => {
                header[1] = masked | 127;
                header[2..10].copy_from_slice(&(length as u64).to_be_bytes());
                10
            }
        };
        out.put(&header[..size]);
        match self.role {
            Role::Server => {
                out.put(lead);
                out.put_part(payload);
            }
            Role::Client => {
                let key = self.keys.u32(..).to_ne_bytes();
                out.put(&key);
                let mut mask = Mask::new(key);
                out.put_masked(lead, &mut mask);
                out.put_masked(&payload, &mut mask);
            }
        }
    }
}
