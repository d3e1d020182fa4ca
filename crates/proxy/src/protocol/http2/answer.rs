//! Sending an answer on an HTTP/2 stream: the head, the body as far as the client's window goes, trailers.
//!
//! Promise: the body is pulled only while the client takes it; a client that keeps its window shut for the
//! listener's stall timeout loses the stream; an answer that breaks off is reset, never ended.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::{Reason, SendStream};
use sluice_http::h1::Framing;
use sluice_http::h2::Breach;
use sluice_http::{Body, BodyError, Fields, Frame, Method, Response};

use super::Session;
use super::body::Reply;
use crate::exchange::{Exchange, Outcome};
use crate::failure::Failure;
use crate::h2_message;
use crate::listener::LocalListener;
use crate::protocol;
use crate::world::Deadline;

/// No more of a large piece than this is asked to be sent at a time.
const PIECE: usize = 64 * 1024;

/// Why an answer was not sent to its end.
enum Cut {
    /// The client gave the stream up, or its connection broke.
    Gone,
    /// The client's window stayed shut.
    Stalled,
    /// The body failed.
    Body,
}

/// Sends the answer to a request of this method.
pub(super) async fn send(
    (session, listener): (&Session, &Rc<LocalListener>),
    (reply, method): (&Reply, Method),
    exchange: &mut Exchange,
    response: Response,
) {
    let Response { mut head, body } = response;
    exchange.status = head.status;
    protocol::tell_length(method, &mut head, &body);
    let framing = match body.length() {
        _ if method == Method::Head || matches!(head.status, 204 | 304) => Framing::None,
        Some(length) => Framing::Length(length),
        None => Framing::Chunked,
    };
    let end = matches!(framing, Framing::None | Framing::Length(0));
    let Ok(stream) = reply.head(&head, framing, end) else {
        exchange.outcome = Outcome::Failed(Failure::ClientGone);
        return;
    };
    if end {
        return;
    }
    let deadline = session.arrival.worker.world.timers.deadline();
    let mut sending = Sending { stream, body, piece: Bytes::new(), next: None, sent: 0, waiting: None };
    let stall = listener.shared.timeouts.stall;
    let clock = session.arrival.worker.world.clock;
    let sent = poll_fn(|cx| match sending.poll(cx) {
        Poll::Pending => sending.poll_stall(&deadline, || deadline.set(clock.now(), stall), cx),
        ready => ready,
    })
    .await;
    exchange.sent = sending.sent;
    let Err(cut) = sent else { return };
    let (failure, reason) = match cut {
        Cut::Gone => (Failure::ClientGone, Reason::CANCEL),
        Cut::Stalled => {
            listener.cells.breached(Breach::StalledWindow);
            (Failure::ClientTimeout, Reason::CANCEL)
        }
        Cut::Body => (Failure::UpstreamIncomplete, Reason::INTERNAL_ERROR),
    };
    exchange.outcome = Outcome::Failed(failure);
    sending.stream.send_reset(reason);
}

/// An answer whose body is on its way.
struct Sending {
    stream: SendStream<Bytes>,
    body: Body,
    /// Pulled and not sent.
    piece: Bytes,
    /// Pulled while the piece before it was about to be sent.
    next: Option<Option<Result<Frame, BodyError>>>,
    /// Bytes handed over.
    sent: u64,
    /// Bytes that had been sent when the wait for the client's window began.
    waiting: Option<u64>,
}

impl Sending {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Cut>> {
        loop {
            if self.piece.is_empty() {
                if self.stream.poll_reset(cx).is_ready() {
                    return Poll::Ready(Err(Cut::Gone));
                }
                let frame = match self.next.take() {
                    Some(frame) => frame,
                    None => {
                        self.waiting = None;
                        ready!(self.body.poll_frame(cx))
                    }
                };
                match frame {
                    Some(Ok(Frame::Data(content))) => self.piece = content,
                    Some(Ok(Frame::Trailers(fields))) => return Poll::Ready(self.end_with(&fields)),
                    Some(Err(_)) => return Poll::Ready(Err(Cut::Body)),
                    None => return Poll::Ready(self.hand_over(Bytes::new(), true)),
                }
            }
            ready!(self.poll_piece(cx))?;
            if matches!(self.next, Some(None)) && self.piece.is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// Sends as much of the piece as the client's window takes.
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Cut>> {
        self.stream.reserve_capacity(self.piece.len().min(PIECE));
        let room = match self.stream.capacity() {
            0 => match ready!(self.stream.poll_capacity(cx)) {
                Some(Ok(room)) => room,
                _ => return Poll::Ready(Err(Cut::Gone)),
            },
            room => room,
        };
        let part = self.piece.split_to(room.min(self.piece.len()));
        self.waiting = None;
        let mut last = false;
        if self.piece.is_empty() {
            // The end travels with the last bytes where it is known already.
            if let Poll::Ready(frame) = self.body.poll_frame(cx) {
                last = frame.is_none();
                self.next = Some(frame);
            }
        }
        Poll::Ready(self.hand_over(part, last))
    }

    fn hand_over(&mut self, part: Bytes, last: bool) -> Result<(), Cut> {
        self.sent += part.len() as u64;
        self.stream.send_data(part, last).map_err(|_| Cut::Gone)
    }

    fn end_with(&mut self, trailers: &Fields) -> Result<(), Cut> {
        self.stream.send_trailers(h2_message::trailer_map(trailers)).map_err(|_| Cut::Gone)
    }

    /// While the client takes nothing: whether it has done so for too long. While the body gives nothing the
    /// body's own times count.
    fn poll_stall(
        &mut self,
        deadline: &Deadline,
        begin: impl FnOnce(),
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Cut>> {
        if self.piece.is_empty() {
            return Poll::Pending;
        }
        if self.waiting != Some(self.sent) {
            self.waiting = Some(self.sent);
            begin();
        }
        match deadline.poll_passed(cx) {
            true => Poll::Ready(Err(Cut::Stalled)),
            false => Poll::Pending,
        }
    }
}
