//! A body on its way into an HTTP/2 stream, on either side of the gateway.
//!
//! Promise: nothing is pulled that the peer has no room for; the end travels with the last bytes where it is
//! known by then; a body that fails is never ended: its owner says how.

use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::{Reason, SendStream};
use sluice_http::{Body, BodyError, Fields, Frame};

use crate::h2_message;
use crate::world::Patience;

/// No more of a large piece than this is asked to be sent at a time.
const PIECE: usize = 64 * 1024;

/// A body and the stream it goes into.
pub struct Push {
    stream: SendStream<Bytes>,
    body: Body,
    /// Pulled, and not sent yet.
    held: Bytes,
    /// Pulled while `held` was about to be sent.
    next: Option<Option<Result<Frame, BodyError>>>,
    /// Content still owed to Content-Length.
    owed: Option<u64>,
    patience: Patience,
    state: State,
    sent: u64,
    /// Nothing of the body was pulled.
    untouched: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Sending,
    /// All was sent, or its owner gave up.
    Over,
}

/// Why a body was not sent to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stuck {
    /// It failed.
    Body(BodyError),
    /// The peer takes no more: it reset the stream, or its connection is gone.
    Refused,
    /// The peer has taken nothing for too long.
    Stalled,
}

impl Push {
    /// Takes a stream whose head has been sent. `owed` is what Content-Length says, where there is one that
    /// nobody else watches.
    pub fn new(body: Body, stream: SendStream<Bytes>, owed: Option<u64>, patience: Patience) -> Push {
        let state = if body.is_empty() { State::Over } else { State::Sending };
        Push { stream, body, held: Bytes::new(), next: None, owed, patience, state, sent: 0, untouched: true }
    }

    /// Nothing more of it is sent.
    pub fn give_up(&mut self) {
        self.state = State::Over;
    }

    /// Nothing more of it is sent, and the peer is told why.
    pub fn reset(&mut self, reason: Reason) {
        self.state = State::Over;
        self.stream.send_reset(reason);
    }

    /// Ends the stream with these trailers, whatever is left of the body.
    pub fn end_with(&mut self, trailers: &Fields) -> Result<(), Stuck> {
        self.state = State::Over;
        self.stream.send_trailers(h2_message::trailer_map(trailers)).map_err(|_| Stuck::Refused)
    }

    /// Content bytes handed over.
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// The body, when nothing of it was pulled.
    pub fn into_untouched(self) -> Option<Body> {
        self.untouched.then_some(self.body)
    }

    /// The stream, for what follows instead of a body.
    pub fn into_stream(self) -> SendStream<Bytes> {
        self.stream
    }

    /// Goes on sending. Pending also while the body gives nothing: only the peer's part has a `limit` here.
    /// Cancel-safe.
    ///
    /// # Errors
    /// Why it was not sent to its end; the stream is as it was.
    pub fn poll(&mut self, limit: Duration, cx: &mut Context<'_>) -> Poll<Result<(), Stuck>> {
        while self.state == State::Sending {
            if self.held.is_empty() {
                if self.stream.poll_reset(cx).is_ready() {
                    return Poll::Ready(Err(Stuck::Refused));
                }
                let frame = match self.next.take() {
                    Some(frame) => frame,
                    None => ready!(self.body.poll_frame(cx)),
                };
                self.untouched = false;
                self.take(frame)?;
                continue;
            }
            match self.poll_held(cx) {
                Poll::Ready(sent) => {
                    self.patience.renew();
                    sent?;
                }
                Poll::Pending if self.patience.poll_over(limit, cx) => {
                    return Poll::Ready(Err(Stuck::Stalled));
                }
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(Ok(()))
    }

    fn take(&mut self, frame: Option<Result<Frame, BodyError>>) -> Result<(), Stuck> {
        match frame {
            Some(Ok(Frame::Data(content))) => {
                if let Some(owed) = &mut self.owed {
                    let left = owed.checked_sub(content.len() as u64);
                    *owed = left.ok_or(Stuck::Body(BodyError::Malformed))?;
                }
                self.held = content;
                Ok(())
            }
            Some(Err(error)) => Err(Stuck::Body(error)),
            _ if self.owed.is_some_and(|owed| owed > 0) => Err(Stuck::Body(BodyError::Incomplete)),
            Some(Ok(Frame::Trailers(fields))) => self.end_with(&fields),
            None => self.hand_over(Bytes::new(), true),
        }
    }

    /// Sends as much of `held` as the peer has room for; ready when some has left.
    fn poll_held(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Stuck>> {
        self.stream.reserve_capacity(self.held.len().min(PIECE));
        let room = match self.stream.capacity() {
            0 => match ready!(self.stream.poll_capacity(cx)) {
                Some(Ok(0)) => return Poll::Pending,
                Some(Ok(room)) => room,
                Some(Err(_)) | None => return Poll::Ready(Err(Stuck::Refused)),
            },
            room => room,
        };
        let part = self.held.split_to(room.min(self.held.len()));
        let mut last = false;
        if self.held.is_empty()
            && let Poll::Ready(next) = self.body.poll_frame(cx)
        {
            last = next.is_none() && self.owed.unwrap_or(0) == 0;
            self.next = Some(next);
        }
        Poll::Ready(self.hand_over(part, last))
    }

    fn hand_over(&mut self, part: Bytes, last: bool) -> Result<(), Stuck> {
        self.sent += part.len() as u64;
        if last {
            self.state = State::Over;
        }
        self.stream.send_data(part, last).map_err(|_| Stuck::Refused)
    }
}
