//! The body of a request on its way to an endpoint, over HTTP/2.
//!
//! Promise: nothing is pulled that the endpoint has no room for; it ends with END_STREAM or with trailers, a
//! body that fails with a reset.

use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::{Reason, SendStream};
use sluice_http::{Body, BodyError, Frame};

use crate::h2_message;
use crate::world::{Clock, Deadline};

/// A deadline for something that does not go on; it starts when it first does not.
pub(super) struct Patience {
    deadline: Deadline,
    clock: Clock,
    waiting: bool,
}

impl Patience {
    pub(super) fn new(deadline: Deadline, clock: Clock) -> Patience {
        Patience { deadline, clock, waiting: false }
    }

    /// It goes on.
    pub(super) fn renew(&mut self) {
        self.waiting = false;
    }

    /// Whether it has not gone on for `limit`.
    pub(super) fn poll_over(&mut self, limit: Duration, cx: &Context<'_>) -> bool {
        if !std::mem::replace(&mut self.waiting, true) {
            self.deadline.set(self.clock.now(), limit);
        }
        self.deadline.poll_passed(cx)
    }
}

/// The part of a body that is still to come.
pub(super) struct Upload {
    body: Body,
    stream: SendStream<Bytes>,
    /// Pulled, and not sent yet.
    held: Bytes,
    /// Pulled behind `held`.
    next: Option<Option<Result<Frame, BodyError>>>,
    /// Content still owed to Content-Length.
    owed: Option<u64>,
    patience: Patience,
    state: State,
    /// Nothing of the body was pulled.
    untouched: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Sending,
    /// All was sent, or the endpoint takes no more.
    Over,
}

/// Why a body could not be sent.
#[derive(Debug)]
pub(super) enum Stuck {
    /// It failed.
    Body(BodyError),
    /// The endpoint has taken nothing for too long.
    TimedOut,
}

impl Upload {
    pub(super) fn new(
        body: Body,
        stream: SendStream<Bytes>,
        owed: Option<u64>,
        patience: Patience,
    ) -> Upload {
        let state = if body.is_empty() { State::Over } else { State::Sending };
        Upload { body, stream, held: Bytes::new(), next: None, owed, patience, state, untouched: true }
    }

    /// Nothing more of it is sent.
    pub(super) fn give_up(&mut self) {
        self.state = State::Over;
    }

    /// The body, when nothing of it was pulled.
    pub(super) fn into_untouched(self) -> Option<Body> {
        self.untouched.then_some(self.body)
    }

    /// The stream, for what follows instead of a body.
    pub(super) fn into_stream(self) -> SendStream<Bytes> {
        self.stream
    }

    /// Goes on sending. Ready when all was sent or the endpoint takes no more: the answer says why. Pending also
    /// while the client sends nothing: only the endpoint's part has a limit here. Cancel-safe.
    pub(super) fn poll(&mut self, limit: Duration, cx: &mut Context<'_>) -> Poll<Result<(), Stuck>> {
        while self.state == State::Sending {
            if !self.held.is_empty() {
                match self.poll_held(cx) {
                    Poll::Ready(()) => self.patience.renew(),
                    Poll::Pending if self.patience.poll_over(limit, cx) => {
                        return self.stop(Reason::CANCEL, Stuck::TimedOut);
                    }
                    Poll::Pending => return Poll::Pending,
                }
                continue;
            }
            let frame = match self.next.take() {
                Some(frame) => frame,
                None => ready!(self.body.poll_frame(cx)),
            };
            self.untouched = false;
            if let Err(error) = self.take(frame, cx) {
                return self.stop(Reason::CANCEL, Stuck::Body(error));
            }
        }
        Poll::Ready(Ok(()))
    }

    fn take(
        &mut self,
        frame: Option<Result<Frame, BodyError>>,
        cx: &mut Context<'_>,
    ) -> Result<(), BodyError> {
        match frame {
            Some(Ok(Frame::Data(content))) => {
                if let Some(owed) = &mut self.owed {
                    *owed = owed.checked_sub(content.len() as u64).ok_or(BodyError::Malformed)?;
                }
                self.held = content;
                // The last piece carries the end, where it is known to be the last.
                if self.body.length() == Some(0)
                    && let Poll::Ready(next) = self.body.poll_frame(cx)
                {
                    self.next = Some(next);
                }
            }
            Some(Err(error)) => return Err(error),
            _ if self.owed.is_some_and(|owed| owed > 0) => return Err(BodyError::Incomplete),
            Some(Ok(Frame::Trailers(fields))) => {
                self.state = State::Over;
                // An endpoint that does not listen any more says so in its answer.
                let _ = self.stream.send_trailers(h2_message::trailer_map(&fields));
            }
            None => {
                self.state = State::Over;
                let _ = self.stream.send_data(Bytes::new(), true);
            }
        }
        Ok(())
    }

    /// Sends as much of `held` as the endpoint has room for; ready when some has left.
    fn poll_held(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.stream.reserve_capacity(self.held.len());
        let room = match self.stream.capacity() {
            0 => match ready!(self.stream.poll_capacity(cx)) {
                Some(Ok(0)) => return Poll::Pending,
                Some(Ok(room)) => room,
                Some(Err(_)) | None => {
                    self.state = State::Over;
                    self.held = Bytes::new();
                    return Poll::Ready(());
                }
            },
            room => room,
        };
        let part = self.held.split_to(room.min(self.held.len()));
        let is_last = self.held.is_empty() && matches!(self.next, Some(None)) && self.owed.unwrap_or(0) == 0;
        if self.stream.send_data(part, is_last).is_err() || is_last {
            self.state = State::Over;
            self.held = Bytes::new();
        }
        Poll::Ready(())
    }

    fn stop(&mut self, reason: Reason, stuck: Stuck) -> Poll<Result<(), Stuck>> {
        self.state = State::Over;
        self.stream.send_reset(reason);
        Poll::Ready(Err(stuck))
    }
}
