//! Frames of 3.0: type, flags, stream, payload. Every frame is one binary message.

use bytes::{Buf, Bytes};

use crate::websocket::Breach;

/// Bytes before the payload.
pub const HEADER: usize = 6;

const DATA: u8 = 0;
const HEAD: u8 = 1;
const RESET: u8 = 3;
const WINDOW: u8 = 8;

const END_STREAM: u8 = 0x01;
const END_HEAD: u8 = 0x04;

/// Bytes of a head in one frame; longer heads are split, as every peer splits them.
pub const HEAD_PART: usize = 16_000;

/// Whether the sender of a frame has said everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Last {
    /// It has: END_STREAM.
    Yes,
    /// More follows.
    No,
}

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// Content.
    Data(i32, Bytes, Last),
    /// Part of a head. `Last` says something about the stream only once the head is complete.
    Head(i32, Bytes, Last, Part),
    /// The exchange is over: an error code and a sentence.
    Reset(i32, i32, Bytes),
    /// So many bytes were consumed.
    Window(i32, u32),
    /// Of a type that means nothing here: to be ignored.
    Unknown,
}

/// Whether a head is complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// More parts follow.
    First,
    /// This is the end of it: END_HEADERS.
    Final,
}

/// Reads a message.
///
/// # Errors
/// When it is too short for its type.
pub fn read(mut message: Bytes) -> Result<Frame, Breach> {
    let &[kind, flags, a, b, c, d, ..] = &message[..] else { return Err(Breach::BadFrame) };
    let stream = i32::from_be_bytes([a, b, c, d]);
    message.advance(HEADER);
    let last = if flags & END_STREAM != 0 { Last::Yes } else { Last::No };
    Ok(match kind {
        DATA => Frame::Data(stream, message, last),
        HEAD => {
            Frame::Head(stream, message, last, if flags & END_HEAD != 0 { Part::Final } else { Part::First })
        }
        RESET | WINDOW => {
            let number = message.try_get_i32().map_err(|_| Breach::BadFrame)?;
            match kind {
                RESET => Frame::Reset(stream, number, message),
                // A negative count would take back what was acknowledged.
                _ => Frame::Window(stream, u32::try_from(number).unwrap_or(0)),
            }
        }
        _ => Frame::Unknown,
    })
}

/// What stands before the content of a DATA frame.
pub fn data(stream: i32, last: Last) -> [u8; HEADER] {
    header(DATA, if last == Last::Yes { END_STREAM } else { 0 }, stream)
}

/// What stands before part of a head.
pub fn head(stream: i32, last: Last, part: Part) -> [u8; HEADER] {
    let end = if last == Last::Yes { END_STREAM } else { 0 };
    header(HEAD, end | if part == Part::Final { END_HEAD } else { 0 }, stream)
}

/// A whole RST_STREAM frame.
pub fn reset(stream: i32, code: i32, message: &str) -> Vec<u8> {
    [&header(RESET, 0, stream)[..], &code.to_be_bytes(), message.as_bytes()].concat()
}

/// A whole WINDOW_UPDATE frame.
pub fn window(stream: i32, count: u32) -> Vec<u8> {
    let count = i32::try_from(count).unwrap_or(i32::MAX);
    [&header(WINDOW, 0, stream)[..], &count.to_be_bytes()].concat()
}

fn header(kind: u8, flags: u8, stream: i32) -> [u8; HEADER] {
    let [a, b, c, d] = stream.to_be_bytes();
    [kind, flags, a, b, c, d]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(bytes: &'static [u8]) -> Result<Frame, Breach> {
        read(Bytes::from_static(bytes))
    }

    fn bytes(text: &'static str) -> Bytes {
        Bytes::from_static(text.as_bytes())
    }

    #[test]
    fn frames_are_as_the_protocol_shows_them() {
        assert_eq!(parse(b"\x01\x05\0\0\0\x01GET"), Ok(Frame::Head(1, bytes("GET"), Last::Yes, Part::Final)));
        assert_eq!(parse(b"\x01\x01\0\0\0\x01GET"), Ok(Frame::Head(1, bytes("GET"), Last::Yes, Part::First)));
        assert_eq!(parse(b"\x01\x04\0\0\0\x02x"), Ok(Frame::Head(2, bytes("x"), Last::No, Part::Final)));
        assert_eq!(parse(b"\0\0\0\0\x01\0ab"), Ok(Frame::Data(256, bytes("ab"), Last::No)));
        assert_eq!(parse(b"\0\x01\x7f\xff\xff\xff"), Ok(Frame::Data(i32::MAX, bytes(""), Last::Yes)));
        assert_eq!(parse(b"\x08\0\0\0\0\x01\0\0\0\x41"), Ok(Frame::Window(1, 65)));
        assert_eq!(parse(b"\x03\0\0\0\0\x01\0\0\x03\xf3no"), Ok(Frame::Reset(1, 1011, bytes("no"))));
        assert_eq!(data(1, Last::Yes), *b"\0\x01\0\0\0\x01");
        assert_eq!(head(1, Last::No, Part::Final), *b"\x01\x04\0\0\0\x01");
        assert_eq!(reset(1, 1011, "no"), b"\x03\0\0\0\0\x01\0\0\x03\xf3no");
        assert_eq!(window(1, 65), b"\x08\0\0\0\0\x01\0\0\0\x41");
    }

    #[test]
    fn unknown_types_are_no_error_and_short_frames_are() {
        for kind in [2u8, 4, 5, 6, 7, 9, 255] {
            let frame = Bytes::from(vec![kind, 0, 0, 0, 0, 1]);
            assert_eq!(read(frame), Ok(Frame::Unknown));
        }
        for short in [&b""[..], b"\0", b"\0\0\0\0\0", b"\x03\0\0\0\0\x01\0\0\x03", b"\x08\0\0\0\0\x01"] {
            assert_eq!(parse(short), Err(Breach::BadFrame), "{short:x?}");
        }
    }

    #[test]
    fn a_negative_window_acknowledges_nothing() {
        assert_eq!(parse(b"\x08\0\0\0\0\x01\xff\xff\xff\xff"), Ok(Frame::Window(1, 0)));
        assert_eq!(parse(b"\0\0\xff\xff\xff\xffx"), Ok(Frame::Data(-1, bytes("x"), Last::No)));
    }
}
