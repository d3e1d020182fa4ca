//! Message bodies: nothing, bytes, or a stream that is pulled.
//!
//! Promise: pulling is back-pressure (nothing is read until somebody asks), and a body ends exactly once:
//! with `None`, with trailers, or with an error.

use std::fmt;
use std::task::{Context, Poll};

use bytes::Bytes;

use crate::fields::Fields;

/// A body, the same type for both directions and all protocols.
#[derive(Default)]
pub enum Body {
    /// No content.
    #[default]
    Empty,
    /// All of it, here.
    Full(Bytes),
    /// It arrives as it is pulled.
    Stream(Box<dyn Source>),
}

/// One piece of a streamed body.
#[derive(Debug)]
pub enum Frame {
    /// Content; never empty.
    Data(Bytes),
    /// Trailer fields; the last frame.
    Trailers(Fields),
}

/// Where a streamed body comes from. Dropping a source abandons what is left of it: for HTTP/1 that means
/// the connection it came over cannot be used again.
pub trait Source {
    /// The next piece; `None` at the end. Cancel-safe: no piece is lost when the caller stops polling.
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>>;

    /// What is left, in bytes, when it is known.
    fn length(&self) -> Option<u64>;
}

/// Why a body ended early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyError {
    /// The sender closed or reset the connection before the end.
    Incomplete,
    /// The sender broke the framing rules.
    Malformed,
    /// The sender sent nothing for too long.
    TimedOut,
    /// The body is longer than allowed.
    TooLarge,
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            BodyError::Incomplete => "the sender closed the connection before the end of the body",
            BodyError::Malformed => "the body's framing is malformed",
            BodyError::TimedOut => "the sender of the body was silent for too long",
            BodyError::TooLarge => "the body is longer than allowed",
        })
    }
}

impl std::error::Error for BodyError {}

impl Body {
    /// Whether it is known to have no content.
    pub fn is_empty(&self) -> bool {
        match self {
            Body::Empty => true,
            Body::Full(bytes) => bytes.is_empty(),
            Body::Stream(_) => false,
        }
    }

    /// Its length in bytes, when known.
    pub fn length(&self) -> Option<u64> {
        match self {
            Body::Empty => Some(0),
            Body::Full(bytes) => Some(bytes.len() as u64),
            Body::Stream(source) => source.length(),
        }
    }

    /// Pulls the next piece. Cancel-safe.
    pub fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        match std::mem::take(self) {
            Body::Empty => Poll::Ready(None),
            Body::Full(bytes) if bytes.is_empty() => Poll::Ready(None),
            Body::Full(bytes) => Poll::Ready(Some(Ok(Frame::Data(bytes)))),
            Body::Stream(mut source) => {
                let polled = source.poll_frame(cx);
                // A finished source is dropped at once: its connection goes back to its pool.
                if !matches!(polled, Poll::Ready(None | Some(Err(_)) | Some(Ok(Frame::Trailers(_))))) {
                    *self = Body::Stream(source);
                }
                polled
            }
        }
    }

    /// Pulls the next piece.
    pub async fn frame(&mut self) -> Option<Result<Frame, BodyError>> {
        std::future::poll_fn(|cx| self.poll_frame(cx)).await
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Body::Empty => f.write_str("Empty"),
            Body::Full(bytes) => write!(f, "Full({} bytes)", bytes.len()),
            Body::Stream(_) => f.write_str("Stream"),
        }
    }
}

/// A request: head and body.
#[derive(Debug)]
pub struct Request {
    /// The head.
    pub head: crate::RequestHead,
    /// The body.
    pub body: Body,
}

/// A response: head and body.
#[derive(Debug)]
pub struct Response {
    /// The head.
    pub head: crate::ResponseHead,
    /// The body.
    pub body: Body,
}
