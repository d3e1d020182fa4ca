//! The body of a request as it arrives on an HTTP/2 stream, and what may be said to the client meanwhile.
//!
//! Promise: the client may send no more than somebody has asked for (flow control follows the pulling); a
//! client that holds its body back for 100 Continue is told to go on when the body is wanted, once.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use sluice_http::h1::Framing;
use sluice_http::{Body, BodyError, Frame, ResponseHead, Source};

use crate::h2_message;
use crate::world::{Clock, Deadline};

/// What has been received of a stream, for whoever notes the exchange's end.
#[derive(Default)]
pub(super) struct Received {
    bytes: Cell<u64>,
}

impl Received {
    /// Body bytes so far.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.get()
    }
}

/// Whether the client holds its body back.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Expects {
    Nothing,
    Continue,
    Told,
}

/// The way back to the client, before the answer is on it.
pub(super) struct Reply {
    respond: RefCell<SendResponse<Bytes>>,
    expects: Cell<Expects>,
}

impl Reply {
    pub(super) fn new(respond: SendResponse<Bytes>, expects_continue: bool) -> Rc<Reply> {
        let expects = if expects_continue { Expects::Continue } else { Expects::Nothing };
        Rc::new(Reply { respond: RefCell::new(respond), expects: Cell::new(expects) })
    }

    /// Sends an interim response. An error means that the client is gone: others see that too.
    pub(super) fn interim(&self, head: &ResponseHead) {
        if head.status == 101 {
            // Means nothing in HTTP/2 (RFC 9113 section 8.6).
            return;
        }
        if head.status == 100 {
            match self.expects.get() {
                Expects::Told => return,
                Expects::Continue => self.expects.set(Expects::Told),
                Expects::Nothing => {}
            }
        }
        let _ = self.respond.borrow_mut().send_informational(h2_message::response_parts(head, Framing::None));
    }

    /// Ready when the client has given the stream up.
    pub(super) fn poll_gone(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.respond.borrow_mut().poll_reset(cx).map(|_| ())
    }

    /// Sends the answer's head.
    pub(super) fn head(
        &self,
        head: &ResponseHead,
        framing: Framing,
        end: bool,
    ) -> Result<h2::SendStream<Bytes>, h2::Error> {
        self.respond.borrow_mut().send_response(h2_message::response_parts(head, framing), end)
    }

    /// Ends the stream in a way that the client cannot take for an answer.
    pub(super) fn reset(&self, reason: h2::Reason) {
        self.respond.borrow_mut().send_reset(reason);
    }
}

/// How a body may arrive.
pub(super) struct Terms {
    /// The most bytes.
    pub(super) limit: u64,
    /// How long it may be silent.
    pub(super) stall: Duration,
    /// The deadline for that.
    pub(super) deadline: Deadline,
    /// Clocks.
    pub(super) clock: Clock,
}

/// The body that follows a head; `length` is what the head says of it.
pub(super) fn body(
    stream: RecvStream,
    length: Option<u64>,
    (reply, received): (&Rc<Reply>, &Rc<Received>),
    terms: Terms,
) -> Body {
    if stream.is_end_stream() {
        return Body::Empty;
    }
    let (reply, received) = (Rc::clone(reply), Rc::clone(received));
    Body::Stream(Box::new(Arriving {
        stream,
        length,
        reply,
        received,
        terms,
        held: 0,
        waiting: false,
        ended: None,
    }))
}

struct Arriving {
    stream: RecvStream,
    length: Option<u64>,
    reply: Rc<Reply>,
    received: Rc<Received>,
    terms: Terms,
    /// Bytes given out whose window has not been given back: they may still be on their way.
    held: usize,
    /// The deadline runs.
    waiting: bool,
    ended: Option<Result<(), BodyError>>,
}

impl Arriving {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Frame>, BodyError>> {
        loop {
            match ready!(self.stream.poll_data(cx)) {
                // A frame without content says nothing; bodies have none.
                Some(Ok(content)) if content.is_empty() => {}
                Some(Ok(content)) => return Poll::Ready(self.take(content).map(Some)),
                Some(Err(error)) => return Poll::Ready(Err(failed(&error))),
                None => break,
            }
        }
        let trailers = ready!(self.stream.poll_trailers(cx)).map_err(|error| failed(&error))?;
        let trailers = trailers.map(|map| h2_message::trailer_fields(&map)).transpose();
        Poll::Ready(trailers.map(|fields| fields.map(Frame::Trailers)).map_err(|_| BodyError::Malformed))
    }

    fn take(&mut self, content: Bytes) -> Result<Frame, BodyError> {
        self.received.bytes.set(self.received.bytes.get() + content.len() as u64);
        if self.received.bytes.get() > self.terms.limit {
            return Err(BodyError::TooLarge);
        }
        self.length = self.length.map(|length| length.saturating_sub(content.len() as u64));
        self.held = content.len();
        Ok(Frame::Data(content))
    }

    /// Gives back the window of what was given out before: whoever asks for more has got rid of it.
    fn release(&mut self) {
        let held = std::mem::take(&mut self.held);
        if held > 0 {
            // Fails only for more than was received.
            let _ = self.stream.flow_control().release_capacity(held);
        }
    }
}

fn failed(error: &h2::Error) -> BodyError {
    match error.is_library() {
        true => BodyError::Malformed,
        false => BodyError::Incomplete,
    }
}

impl Source for Arriving {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        match self.ended {
            Some(Ok(())) => return Poll::Ready(None),
            Some(Err(error)) => return Poll::Ready(Some(Err(error))),
            None => {}
        }
        if self.reply.expects.get() == Expects::Continue {
            self.reply.interim(&ResponseHead::new(100));
        }
        self.release();
        let polled = match self.poll(cx) {
            Poll::Ready(polled) => polled,
            Poll::Pending => {
                if !std::mem::replace(&mut self.waiting, true) {
                    self.terms.deadline.set(self.terms.clock.now(), self.terms.stall);
                }
                match self.terms.deadline.poll_passed(cx) {
                    true => Err(BodyError::TimedOut),
                    false => return Poll::Pending,
                }
            }
        };
        self.waiting = false;
        self.ended = match &polled {
            Ok(Some(Frame::Data(_))) => None,
            Ok(_) => Some(Ok(())),
            Err(error) => Some(Err(*error)),
        };
        Poll::Ready(polled.transpose())
    }

    fn length(&self) -> Option<u64> {
        self.length
    }
}
