//! The bytes of a body, out of the bytes of a connection (RFC 9112 sections 6 and 7).
//!
//! Promise: pieces are cut off the buffer, not copied (chunks that arrived together are moved together, so that
//! they cost one piece); nothing behind the body's end is touched, as it belongs to the next message; how the
//! bytes were split on arrival changes the pieces, never their sum or the verdict.

use bytes::{Buf, Bytes, BytesMut};

use super::chunk::{self, Line};
use super::scan::Scanner;
use super::{Framing, Limits, Refusal, parse, trailer};
use crate::fields::Fields;

/// All chunk extensions of a body together, in bytes: tiny chunks with long extensions are an attack.
const EXTENSIONS: usize = 16 * 1024;

/// The state of one body.
#[derive(Clone, Debug)]
pub struct Decoder {
    state: State,
    limits: Limits,
    /// What is left of `EXTENSIONS`.
    extensions: usize,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// So many bytes are missing; never 0.
    Length(u64),
    Close,
    ChunkLine,
    /// So many bytes of the chunk are missing; never 0.
    ChunkData(u64),
    /// The CRLF behind a chunk's data.
    ChunkEnd,
    Trailers(Scanner),
    Done,
}

/// What a call of [`Decoder::decode`] found.
#[derive(Debug)]
pub enum Decoded {
    /// The buffer holds nothing more of the body: read, then ask again.
    More,
    /// Content; never empty.
    Data(Bytes),
    /// The trailer fields, once; never empty.
    Trailers(Fields),
    /// The body is complete. Every further call says so too.
    Done,
}

impl Decoder {
    /// The decoder of a body; `limits` hold for its trailer section as they do for a head.
    pub fn new(framing: Framing, limits: &Limits) -> Decoder {
        let state = match framing {
            Framing::None | Framing::Length(0) => State::Done,
            Framing::Length(length) => State::Length(length),
            Framing::Chunked => State::ChunkLine,
            Framing::Close => State::Close,
        };
        Decoder { state, limits: *limits, extensions: EXTENSIONS }
    }

    /// Takes the next piece off the front of `buf`: as much content as there is, then the trailers, then the
    /// end. Content that stands before malformed framing is given out first.
    ///
    /// # Errors
    /// [`Refusal::BadChunk`] and [`Refusal::BadTrailer`]; the decoder is of no use afterwards.
    pub fn decode(&mut self, buf: &mut BytesMut) -> Result<Decoded, Refusal> {
        match self.state {
            State::Done => Ok(Decoded::Done),
            _ if buf.is_empty() => Ok(Decoded::More),
            State::Length(left) => {
                let take = at_most(left, buf.len());
                self.state = match left - take as u64 {
                    0 => State::Done,
                    left => State::Length(left),
                };
                Ok(Decoded::Data(buf.split_to(take).freeze()))
            }
            State::Close => Ok(Decoded::Data(buf.split().freeze())),
            State::Trailers(scanner) => self.decode_trailers(scanner, buf),
            State::ChunkLine | State::ChunkData(_) | State::ChunkEnd => self.decode_chunks(buf),
        }
    }

    /// What is left of the body, in bytes, when that is known; 0 at the end.
    pub fn left(&self) -> Option<u64> {
        match self.state {
            State::Length(left) => Some(left),
            State::Done => Some(0),
            _ => None,
        }
    }

    /// Whether the body is complete; true as soon as its last byte was taken.
    pub fn is_done(&self) -> bool {
        matches!(self.state, State::Done)
    }

    /// The peer has closed: true when that is a proper end (RFC 9112 section 8), false when bytes are missing.
    pub fn eof(&mut self) -> bool {
        if matches!(self.state, State::Close) {
            self.state = State::Done;
        }
        self.is_done()
    }

    /// Walks over the chunks in `buf`; their data ends up side by side and is cut off as one piece.
    fn decode_chunks(&mut self, buf: &mut BytesMut) -> Result<Decoded, Refusal> {
        // buf[from..to] is data, buf[at..] is still to be looked at.
        let (mut from, mut to, mut at) = (0, 0, 0);
        let verdict = loop {
            let rest = &buf[at..];
            match self.state {
                State::ChunkLine => match chunk::line(rest) {
                    Ok(Line::Complete { len, size, extensions }) if extensions <= self.extensions => {
                        self.extensions -= extensions;
                        at += len;
                        self.state = match size {
                            0 => State::Trailers(Scanner::trailers()),
                            size => State::ChunkData(size),
                        };
                    }
                    Ok(Line::Partial) => break Ok(()),
                    Ok(Line::Complete { .. }) | Err(_) => break Err(Refusal::BadChunk),
                },
                State::ChunkData(_) if rest.is_empty() => break Ok(()),
                State::ChunkData(left) => {
                    let take = at_most(left, rest.len());
                    match to == from {
                        true => (from, to) = (at, at),
                        false => buf.copy_within(at..at + take, to),
                    }
                    (to, at) = (to + take, at + take);
                    self.state = match left - take as u64 {
                        0 => State::ChunkEnd,
                        left => State::ChunkData(left),
                    };
                }
                State::ChunkEnd => match rest {
                    [b'\r', b'\n', ..] => (at, self.state) = (at + 2, State::ChunkLine),
                    [] | [b'\r'] => break Ok(()),
                    _ => break Err(Refusal::BadChunk),
                },
                State::Trailers(_) if rest.starts_with(b"\r\n") => (at, self.state) = (at + 2, State::Done),
                _ => break Ok(()),
            }
        };
        if to > from {
            // A verdict about what follows is found again by the next call: the state stands before it.
            buf.advance(from);
            let data = buf.split_to(to - from).freeze();
            buf.advance(at - to);
            return Ok(Decoded::Data(data));
        }
        buf.advance(at);
        verdict?;
        match self.state {
            State::Done => Ok(Decoded::Done),
            State::Trailers(scanner) if !buf.is_empty() => self.decode_trailers(scanner, buf),
            _ => Ok(Decoded::More),
        }
    }

    fn decode_trailers(&mut self, mut scanner: Scanner, buf: &mut BytesMut) -> Result<Decoded, Refusal> {
        let scanned = scanner.scan(buf, &self.limits).map_err(|_| Refusal::BadTrailer)?;
        let Some(len) = scanned else {
            self.state = State::Trailers(scanner);
            return Ok(Decoded::More);
        };
        let section = buf.split_to(len).freeze();
        self.state = State::Done;
        if section.len() == 2 {
            return Ok(Decoded::Done);
        }
        let fields = parse::trailers(section, &self.limits)?;
        if !fields.iter().all(|(id, ..)| trailer::is_allowed(id)) {
            return Err(Refusal::BadTrailer);
        }
        Ok(Decoded::Trailers(fields))
    }
}

fn at_most(left: u64, len: usize) -> usize {
    usize::try_from(left).map_or(len, |left| left.min(len))
}
