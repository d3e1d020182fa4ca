//! The bodies of gRPC-Web: base64 that comes in any pieces, and trailers as the last frame of the content.
//!
//! Promise: beside the piece that passes, at most three characters or the trailers are held.

use std::task::{Context, Poll, ready};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use sluice_http::{Body, BodyError, Fields, Frame, NameId, Source};

use crate::exchange::GrpcWeb;

type Polled = Poll<Option<Result<Frame, BodyError>>>;

/// The content of a text request.
pub(super) fn decoded(body: Body) -> Body {
    match body {
        Body::Empty => Body::Empty,
        body => Body::Stream(Box::new(Decoded { body, decoder: Decoder::default() })),
    }
}

/// An answer's content, with its trailers in it; `status` is what a missing status is taken from.
pub(super) fn with_trailers(body: Body, form: GrpcWeb, status: Fields) -> Body {
    match body {
        Body::Empty => Body::Full(form.write(last_frame(&[&status]).into())),
        body => Body::Stream(Box::new(WithTrailers { body, form, status: Some(status) })),
    }
}

impl GrpcWeb {
    /// A piece as it goes on the wire. Each is encoded on its own, padding and all, so that no byte of a
    /// message waits for the next one.
    fn write(self, piece: Bytes) -> Bytes {
        match self {
            GrpcWeb::Binary => piece,
            GrpcWeb::Text => STANDARD.encode(piece).into(),
        }
    }
}

/// A request's body, decoded from base64.
struct Decoded {
    body: Body,
    decoder: Decoder,
}

impl Source for Decoded {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Polled {
        loop {
            let frame = match ready!(self.body.poll_frame(cx)) {
                Some(Ok(Frame::Data(piece))) => match self.decoder.decode(&piece) {
                    Some(content) if content.is_empty() => continue,
                    Some(content) => Some(Ok(Frame::Data(content.into()))),
                    None => Some(Err(BodyError::Malformed)),
                },
                None | Some(Ok(_)) if !self.decoder.is_at_boundary() => Some(Err(BodyError::Malformed)),
                end => end,
            };
            return Poll::Ready(frame);
        }
    }

    fn length(&self) -> Option<u64> {
        None
    }
}

/// Base64 (RFC 4648 section 4) in pieces: four characters are a quantum; padding ends a text, and another may
/// follow.
#[derive(Default)]
struct Decoder {
    /// The bits of the characters of a quantum that is not complete.
    bits: u32,
    characters: u8,
    padding: u8,
}

impl Decoder {
    fn is_at_boundary(&self) -> bool {
        self.characters == 0
    }

    /// The bytes that are complete with this piece; `None` when it is not base64.
    fn decode(&mut self, piece: &[u8]) -> Option<Vec<u8>> {
        let mut out = Vec::with_capacity(piece.len() / 4 * 3 + 3);
        for &byte in piece {
            let value = match byte {
                b'=' if self.characters >= 2 => {
                    self.padding += 1;
                    0
                }
                _ if self.padding > 0 => return None,
                _ => value(byte)?,
            };
            self.bits = self.bits << 6 | u32::from(value);
            self.characters += 1;
            if self.characters == 4 {
                let [_, bytes @ ..] = self.bits.to_be_bytes();
                let (content, unused) = bytes.split_at(3 - usize::from(self.padding));
                if unused.iter().any(|&byte| byte != 0) {
                    return None;
                }
                out.extend_from_slice(content);
                *self = Decoder::default();
            }
        }
        Some(out)
    }
}

fn value(byte: u8) -> Option<u8> {
    match byte {
        b'A'..=b'Z' => Some(byte - b'A'),
        b'a'..=b'z' => Some(byte - b'a' + 26),
        b'0'..=b'9' => Some(byte - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    }
}

/// An answer's body with its trailers as the last frame.
struct WithTrailers {
    body: Body,
    form: GrpcWeb,
    /// The status when the trailers have none; taken with the last frame.
    status: Option<Fields>,
}

impl Source for WithTrailers {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Polled {
        if self.status.is_none() {
            return Poll::Ready(None);
        }
        let piece = match ready!(self.body.poll_frame(cx)) {
            Some(Ok(Frame::Data(piece))) => piece,
            Some(Err(error)) => return Poll::Ready(Some(Err(error))),
            Some(Ok(Frame::Trailers(trailers))) => self.end(trailers),
            None => self.end(Fields::new()),
        };
        Poll::Ready(Some(Ok(Frame::Data(self.form.write(piece)))))
    }

    fn length(&self) -> Option<u64> {
        None
    }
}

impl WithTrailers {
    fn end(&mut self, mut trailers: Fields) -> Bytes {
        let status = self.status.take().unwrap_or_default();
        if trailers.contains(NameId::GrpcStatus) {
            return last_frame(&[&trailers]).into();
        }
        trailers.remove(NameId::GrpcMessage);
        last_frame(&[&trailers, &status]).into()
    }
}

/// Trailers as a frame: 0x80, length, and a head in HTTP/1 form with lower-case names.
fn last_frame(trailers: &[&Fields]) -> Vec<u8> {
    let mut out = vec![0x80, 0, 0, 0, 0];
    for (_, name, value) in trailers.iter().flat_map(|fields| fields.iter()) {
        out.extend(name.iter().map(u8::to_ascii_lowercase));
        out.extend_from_slice(b": ");
        out.extend_from_slice(value);
        out.extend_from_slice(b"\r\n");
    }
    let length = (out.len() - 5) as u32;
    out[1..5].copy_from_slice(&length.to_be_bytes());
    out
}
