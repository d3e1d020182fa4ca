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

#[cfg(test)]
mod tests {
    use super::*;

    fn decoder(framing: Framing) -> Decoder {
        Decoder::new(framing, &Limits::default())
    }

    /// Decodes all of `text`, given at once: content, trailers, and what is left or was refused.
    fn chunked(text: &[u8]) -> (Vec<u8>, Vec<String>, Result<Vec<u8>, Refusal>) {
        let mut decoder = decoder(Framing::Chunked);
        let mut buf = BytesMut::from(text);
        let (mut data, mut trailers) = (Vec::new(), Vec::new());
        loop {
            match decoder.decode(&mut buf) {
                Ok(Decoded::More | Decoded::Done) => return (data, trailers, Ok(buf.to_vec())),
                Ok(Decoded::Data(piece)) => data.extend(piece),
                Ok(Decoded::Trailers(fields)) => trailers.extend(fields.iter().map(|(_, name, value)| {
                    format!("{}={}", String::from_utf8_lossy(name), String::from_utf8_lossy(value))
                })),
                Err(refusal) => return (data, trailers, Err(refusal)),
            }
        }
    }

    /// The verdict on a chunk line before one byte of data and a proper end.
    fn line(text: &str) -> Result<(), Refusal> {
        let (data, _, end) = chunked(format!("{text}\r\nx\r\n0\r\n\r\n").as_bytes());
        end.map(|left| assert_eq!((&data[..], &left[..]), (&b"x"[..], &b""[..]), "{text}"))
    }

    #[test]
    fn a_length_is_cut_off_without_a_copy_and_no_further() {
        let mut buf = BytesMut::from(&b"abcdeGET /"[..]);
        let place = buf.as_ptr();
        let mut decoder = decoder(Framing::Length(7));
        let Ok(Decoded::Data(data)) = decoder.decode(&mut buf.split_to(5)) else { panic!("no data") };
        assert_eq!((&data[..], data.as_ptr()), (&b"abcde"[..], place));
        assert_eq!((decoder.left(), decoder.is_done(), decoder.eof()), (Some(2), false, false));
        let Ok(Decoded::Data(data)) = decoder.decode(&mut buf) else { panic!("no data") };
        assert_eq!((&data[..], &buf[..]), (&b"GE"[..], &b"T /"[..]));
        assert_eq!((decoder.left(), decoder.is_done(), decoder.eof()), (Some(0), true, true));
        assert!(matches!(decoder.decode(&mut buf), Ok(Decoded::Done)));
        assert!(matches!(decoder.decode(&mut buf), Ok(Decoded::Done)));
        assert_eq!(&buf[..], b"T /");
    }

    #[test]
    fn no_body_is_done_at_once() {
        for framing in [Framing::None, Framing::Length(0)] {
            let mut decoder = decoder(framing);
            let mut buf = BytesMut::from(&b"next"[..]);
            assert!(decoder.is_done() && decoder.left() == Some(0));
            assert!(matches!(decoder.decode(&mut buf), Ok(Decoded::Done)));
            assert_eq!(&buf[..], b"next");
        }
    }

    #[test]
    fn a_close_delimited_body_ends_when_the_peer_closes() {
        let mut decoder = decoder(Framing::Close);
        let mut buf = BytesMut::from(&b"abc"[..]);
        assert!(matches!(decoder.decode(&mut buf), Ok(Decoded::Data(data)) if data == "abc"));
        assert!(matches!(decoder.decode(&mut buf), Ok(Decoded::More)));
        assert_eq!((decoder.left(), decoder.is_done()), (None, false));
        assert!(decoder.eof());
        assert!(decoder.is_done() && matches!(decoder.decode(&mut buf), Ok(Decoded::Done)));
    }

    #[test]
    fn chunks_that_arrived_together_are_one_piece() {
        let mut decoder = decoder(Framing::Chunked);
        let mut buf = BytesMut::from(&b"3\r\nabc\r\n2;x=\"y\"\r\nde\r\n00A\r\nfghi"[..]);
        let place = buf.as_ptr() as usize;
        let Ok(Decoded::Data(data)) = decoder.decode(&mut buf) else { panic!("no data") };
        assert_eq!((&data[..], data.as_ptr() as usize), (&b"abcdefghi"[..], place + 3));
        assert!(matches!(decoder.decode(&mut buf), Ok(Decoded::More)));
        assert!(!decoder.eof() && decoder.left().is_none());
        buf.extend_from_slice(b"jklmno\r\n0\r\n\r\nGET /");
        let Ok(Decoded::Data(data)) = decoder.decode(&mut buf) else { panic!("no data") };
        assert_eq!((&data[..], &buf[..]), (&b"jklmno"[..], &b"GET /"[..]));
        assert!(decoder.is_done() && decoder.eof());
        assert!(matches!(decoder.decode(&mut buf), Ok(Decoded::Done)));
    }

    #[test]
    fn an_empty_chunked_body_is_done_without_data() {
        assert_eq!(chunked(b"0\r\n\r\nnext"), (vec![], vec![], Ok(b"next".to_vec())));
        assert_eq!(chunked(b"000;a\r\n\r\n"), (vec![], vec![], Ok(vec![])));
        let mut decoder = decoder(Framing::Chunked);
        assert!(matches!(decoder.decode(&mut BytesMut::from(&b"0\r\n"[..])), Ok(Decoded::More)));
        assert!(!decoder.is_done() && !decoder.eof());
    }

    #[test]
    fn a_chunk_size_is_one_to_sixteen_hex_digits() {
        for good in ["1", "01", "0000000000000001", "1;a", "1;a=b", "1;a=\"b;\t\\\" \u{e9}\";c", "1;a=\"\""] {
            assert_eq!(line(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            "+1",
            "-1",
            "0x1",
            " 1",
            "1 ",
            "\t1",
            "1\t",
            "x",
            "1g",
            "1,",
            "00000000000000001",
            "1_0",
            ";a",
            "1\r",
            "1\n",
        ] {
            assert_eq!(line(bad), Err(Refusal::BadChunk), "{bad:?}");
        }
        assert_eq!(chunked(b"ffffffffffffffff\r\nab"), (b"ab".to_vec(), vec![], Ok(vec![])));
    }

    #[test]
    fn chunk_extensions_are_strict_and_dropped() {
        for bad in [
            "1;",
            "1; a",
            "1 ;a",
            "1;a =b",
            "1;a= b",
            "1;a=",
            "1;=b",
            "1;a;",
            "1;a=\"b",
            "1;a=\"b\"c",
            "1;a=b\"",
            "1;a=\"\\",
            "1;a=\"\n\"",
            "1;a=\"\r\n\"",
            "1;a=\"\0\"",
            "1;a=\"\\\x01\"",
            "1;a\n",
            "1;(",
            "1;a=b=c",
        ] {
            assert_eq!(line(bad), Err(Refusal::BadChunk), "{bad:?}");
        }
        let long = |len: usize| line(&format!("1;{}", "a".repeat(len - 2)));
        assert_eq!((long(256), long(257)), (Ok(()), Err(Refusal::BadChunk)));
    }

    #[test]
    fn a_line_that_never_ends_is_refused_before_its_end() {
        let (_, _, end) = chunked(&[&b"1;"[..], &b"a".repeat(300)].concat());
        assert_eq!(end, Err(Refusal::BadChunk));
        let (_, _, end) = chunked(b"00000000000000000");
        assert_eq!(end, Err(Refusal::BadChunk));
    }

    #[test]
    fn the_extensions_of_a_body_are_capped_together() {
        let chunk = format!("1;{}\r\nx\r\n", "a".repeat(127));
        let most = EXTENSIONS / 128;
        let (data, _, end) = chunked(chunk.repeat(most).as_bytes());
        assert_eq!((data.len(), end), (most, Ok(vec![])));
        let (data, _, end) = chunked(chunk.repeat(most + 1).as_bytes());
        assert_eq!((data.len(), end), (most, Err(Refusal::BadChunk)));
    }

    #[test]
    fn data_ends_where_its_size_says() {
        for bad in
            [&b"1\r\nab\r\n0\r\n\r\n"[..], b"1\r\na\n0\r\n\r\n", b"1\r\na\r0\r\n\r\n", b"1\r\na0\r\n\r\n"]
        {
            let (data, _, end) = chunked(bad);
            assert_eq!((&data[..], end), (&b"a"[..], Err(Refusal::BadChunk)), "{bad:?}");
        }
        assert_eq!(chunked(b"2\r\na\r\n0\r\n\r\n").2, Err(Refusal::BadChunk));
        assert_eq!(chunked(b"1\na\r\n0\r\n\r\n").2, Err(Refusal::BadChunk));
    }

    #[test]
    fn trailers_come_once_then_the_end() {
        let text = b"1\r\na\r\n0\r\nX-Sum: 1 \r\nGrpc-Status:0\r\n\r\nnext";
        let expected = vec!["X-Sum=1".to_owned(), "Grpc-Status=0".to_owned()];
        assert_eq!(chunked(text), (b"a".to_vec(), expected, Ok(b"next".to_vec())));
    }

    #[test]
    fn trailers_are_as_strict_as_heads() {
        let limits = Limits { line: 20, head: 60, fields: 3 };
        let verdict = |section: &str| {
            let mut buf = BytesMut::from(format!("0\r\n{section}").as_bytes());
            Decoder::new(Framing::Chunked, &limits).decode(&mut buf).map(|decoded| match decoded {
                Decoded::Trailers(fields) => fields.len(),
                _ => 0,
            })
        };
        assert_eq!(verdict("A: b\r\nB: c\r\nC: d\r\n\r\n"), Ok(3));
        for bad in [
            "A: b\r\nB: c\r\nC: d\r\nD: e\r\n\r\n",
            "A: 345678901234567890\r\n",
            "A: 3456789012345678\r\nB: 3456789012345678\r\nC: 3456789012345678\r\n\r\n",
            "A: b\n\r\n",
            "A: b\r\n\n",
            "A : b\r\n\r\n",
            " A: b\r\n\r\n",
            "A: b\r\n c\r\n\r\n",
            "A: b\rc\r\n\r\n",
            "A: \0\r\n\r\n",
            "A\r\n\r\n",
            ": a\r\n\r\n",
            "Content-Length: 1\r\n\r\n",
            "transfer-encoding: chunked\r\n\r\n",
            "Host: a\r\n\r\n",
            "A: b\r\nAuthorization: x\r\n\r\n",
            "Set-Cookie: a=b\r\n\r\n",
            "Content-Type: a/b\r\n\r\n",
            "X-Forwarded-For: 1\r\n\r\n",
            "Trailer: a\r\n\r\n",
        ] {
            assert_eq!(verdict(bad), Err(Refusal::BadTrailer), "{bad:?}");
        }
    }
}
