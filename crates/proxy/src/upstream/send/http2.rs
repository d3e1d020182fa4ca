//! One exchange over a stream of an HTTP/2 connection to an endpoint (RFC 9113 section 8).
//!
//! Promise: dropping the exchange or its answer's body resets the stream at once; an endpoint may send no more
//! than was asked for; what was refused (REFUSED_STREAM, GOAWAY) is known not to have been looked at.

use std::future::{Future as _, poll_fn};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::client::ResponseFuture;
use h2::{Reason, RecvStream};
use sluice_http::h1::{Framing, Persist};
use sluice_http::{Body, BodyError, Frame, NameId, Request, ResponseHead, Source};
use sluice_traffic::retry::Sent;

use super::{
    Answer, CONTINUE_WAIT, Lost, MAX_INTERIMS, Scope, Terms, body_of, client_failure, framing_of, invalid,
};
use crate::failure::Failure;
use crate::h2_message;
use crate::h2_push::{Push, Stuck};
use crate::h2_stream::StreamEnd;
use crate::relay::End;
use crate::upstream::http2::Slot;
use crate::upstream::live::InFlight;
use crate::websocket;
use crate::world::{Deadline, Patience};

const NOTHING_SENT: Lost =
    Lost { failure: Failure::UpstreamReset, sent: Sent::Nothing, scope: Scope::Connection };

/// The exchange: see [`super::exchange`].
pub(super) async fn exchange(
    slot: Slot,
    request: &mut Request,
    persist: Persist,
    guard: InFlight,
    terms: &Terms<'_>,
) -> Result<Answer, Lost> {
    let refused = |failure| Lost { failure, sent: Sent::Nothing, scope: Scope::Exchange };
    if persist == Persist::Upgrade && !slot.takes_connect() {
        return Err(refused(Failure::UpgradeRefused));
    }
    let framing = framing_of(request);
    let to = (slot.scheme(), terms.address);
    let head = h2_message::http_request(&request.head, (framing, persist), to)
        .ok_or_else(|| refused(Failure::BadRequest))?;
    let ends = request.body.is_empty() && persist != Persist::Upgrade;
    let (response, stream) = slot.begin(head, ends).map_err(|_| NOTHING_SENT)?;
    let streamed = matches!(request.body, Body::Stream(_));
    let body = body_of(request);
    let owed = if let Framing::Length(length) = framing { Some(length) } else { None };
    let patience = || Patience::new(terms.timers.deadline(), terms.clock);
    let mut waiting = Await {
        response,
        upload: Push::new(body, stream, owed, patience()),
        patience: patience(),
        interims: 0,
        hold: streamed && request.head.fields.contains(NameId::Expect),
    };
    let line = Line { _slot: slot, _guard: guard };
    match poll_fn(|cx| waiting.poll(terms, cx)).await {
        Ok((head, stream)) if persist == Persist::Upgrade && (200..300).contains(&head.status) => {
            let head = websocket::switched(head, &request.head);
            let end = StreamEnd::new(waiting.upload.into_stream(), stream);
            Ok(Answer::Switched(head, Box::new(Tunnel { end, _line: line })))
        }
        Ok((head, stream)) => {
            if waiting.hold {
                // It answered instead of asking for the body: nobody may ask the client for it any more.
                waiting.upload.give_up();
            }
            Ok(Answer::Response(head.clone(), receive(&head, stream, waiting, line, terms)))
        }
        Err(lost) => {
            if streamed && let Some(body) = waiting.upload.into_untouched() {
                request.body = body;
            }
            Err(lost)
        }
    }
}

/// Waiting for the head of the answer.
struct Await {
    response: ResponseFuture,
    upload: Push,
    patience: Patience,
    /// Interim answers it has sent.
    interims: u32,
    /// The body is held back until the endpoint says 100 (RFC 9110 section 10.1.1), or a second passes.
    hold: bool,
}

type Head = (ResponseHead, RecvStream);

impl Await {
    /// Goes on sending until a head is here.
    fn poll(&mut self, terms: &Terms<'_>, cx: &mut Context<'_>) -> Poll<Result<Head, Lost>> {
        let something = |failure| Lost { failure, sent: Sent::Something, scope: Scope::Exchange };
        if terms.total.as_ref().is_some_and(|total| total.poll_passed(cx)) {
            return Poll::Ready(Err(something(Failure::UpstreamTimeout)));
        }
        self.poll_interims(terms, cx)?;
        let sending = match self.hold {
            true => Poll::Pending,
            false => poll_upload(&mut self.upload, terms.timeouts.idle, cx),
        };
        // A request that could not be sent was reset by us: that is no answer of the endpoint.
        let stuck = matches!(sending, Poll::Ready(Err(Stuck::Body(_) | Stuck::Stalled)));
        let polled = Pin::new(&mut self.response).poll(cx);
        if let Poll::Ready(response) = polled
            && (response.is_ok() || !stuck)
        {
            let (parts, stream) = response.map_err(|error| lost(&error))?.into_parts();
            let head = h2_message::response_head(&parts);
            let head = head.map_err(|refusal| something(invalid(terms, refusal)))?;
            return Poll::Ready(Ok((head, stream)));
        }
        match sending {
            Poll::Ready(Err(Stuck::Body(error))) => Poll::Ready(Err(something(client_failure(error)))),
            Poll::Ready(Err(Stuck::Stalled)) => Poll::Ready(Err(something(Failure::UpstreamTimeout))),
            Poll::Ready(Ok(()) | Err(Stuck::Refused)) => {
                match self.patience.poll_over(terms.timeouts.first_byte, cx) {
                    true => Poll::Ready(Err(something(Failure::UpstreamTimeout))),
                    false => Poll::Pending,
                }
            }
            Poll::Pending if self.hold && self.patience.poll_over(CONTINUE_WAIT, cx) => {
                self.release();
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Poll::Pending => Poll::Pending,
        }
    }

    fn release(&mut self) {
        self.hold = false;
        self.patience.renew();
    }

    fn poll_interims(&mut self, terms: &Terms<'_>, cx: &mut Context<'_>) -> Result<(), Lost> {
        while let Poll::Ready(Some(Ok(response))) = self.response.poll_informational(cx) {
            let head = h2_message::response_head(&response.into_parts().0);
            let lost = |failure| Lost { failure, sent: Sent::Something, scope: Scope::Exchange };
            let head = head.map_err(|refusal| lost(invalid(terms, refusal)))?;
            if self.interims == MAX_INTERIMS {
                return Err(lost(Failure::UpstreamInvalid));
            }
            self.interims += 1;
            if head.status == 100 && self.hold {
                self.release();
            }
            (terms.interim)(head);
        }
        Ok(())
    }
}

/// Goes on with a request's body. When that cannot go on for a reason of ours or the client's, the endpoint is
/// told by a reset; why it takes no more it says itself, in its answer.
fn poll_upload(upload: &mut Push, limit: Duration, cx: &mut Context<'_>) -> Poll<Result<(), Stuck>> {
    let sent = ready!(upload.poll(limit, cx));
    match sent {
        Ok(()) => {}
        Err(Stuck::Refused) => upload.give_up(),
        Err(Stuck::Body(_) | Stuck::Stalled) => upload.reset(Reason::CANCEL),
    }
    Poll::Ready(sent)
}

/// What an error of a stream means for its exchange. An endpoint that refuses a stream, or goes away before it,
/// has not looked at it (RFC 9113 section 8.7): the crate gives a remote GOAWAY to such streams only.
fn lost(error: &h2::Error) -> Lost {
    let refused = error.is_reset() && error.reason() == Some(Reason::REFUSED_STREAM);
    match error {
        _ if error.is_library() => {
            Lost { failure: Failure::UpstreamInvalid, sent: Sent::Something, scope: Scope::Exchange }
        }
        _ if refused => Lost { scope: Scope::Exchange, ..NOTHING_SENT },
        _ if error.is_go_away() => NOTHING_SENT,
        _ => {
            let scope = if error.is_io() { Scope::Connection } else { Scope::Exchange };
            Lost { failure: Failure::UpstreamReset, sent: Sent::Something, scope }
        }
    }
}

/// Turns what follows the head into a body.
fn receive(head: &ResponseHead, stream: RecvStream, waiting: Await, line: Line, terms: &Terms<'_>) -> Body {
    if stream.is_end_stream() {
        // Dropping what is left of the upload tells the endpoint that nobody needs it.
        return Body::Empty;
    }
    let length = head.fields.get_str(NameId::ContentLength).and_then(|length| length.parse().ok());
    let mut patience = waiting.patience;
    patience.renew();
    Body::Stream(Box::new(Reply {
        stream,
        upload: waiting.upload,
        length,
        held: 0,
        patience,
        idle: terms.timeouts.idle,
        end: terms.body_end().cloned(),
        line: Some(line),
        failed: None,
    }))
}

/// What an exchange holds until it ends: its place on the connection, and its count at the endpoint.
struct Line {
    _slot: Slot,
    _guard: InFlight,
}

/// The body of an endpoint's answer.
struct Reply {
    stream: RecvStream,
    upload: Push,
    /// Content still to come, when Content-Length says how much.
    length: Option<u64>,
    /// Bytes given out whose window has not been given back: they may still be on their way.
    held: usize,
    patience: Patience,
    idle: Duration,
    end: Option<Rc<Deadline>>,
    line: Option<Line>,
    failed: Option<BodyError>,
}

impl Reply {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Frame>, BodyError>> {
        let held = std::mem::take(&mut self.held);
        if held > 0 {
            // Whoever asks for more has got rid of what came before. Fails only for more than was received.
            let _ = self.stream.flow_control().release_capacity(held);
        }
        if poll_upload(&mut self.upload, self.idle, cx).is_ready() {
            // Sent, or not wanted: the answer may be complete either way.
            self.upload.give_up();
        }
        match self.poll_stream(cx) {
            Poll::Ready(frame) => {
                self.patience.renew();
                Poll::Ready(frame)
            }
            Poll::Pending => {
                let is_over = self.end.as_ref().is_some_and(|end| end.poll_passed(cx));
                match is_over || self.patience.poll_over(self.idle, cx) {
                    true => Poll::Ready(Err(BodyError::TimedOut)),
                    false => Poll::Pending,
                }
            }
        }
    }

    fn poll_stream(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Frame>, BodyError>> {
        loop {
            match ready!(self.stream.poll_data(cx)) {
                // A frame without content says nothing; bodies have none.
                Some(Ok(content)) if content.is_empty() => {}
                Some(Ok(content)) => {
                    self.held = content.len();
                    self.length = self.length.map(|length| length.saturating_sub(content.len() as u64));
                    return Poll::Ready(Ok(Some(Frame::Data(content))));
                }
                Some(Err(error)) => return Poll::Ready(self.ended(&error)),
                None => break,
            }
        }
        let trailers = match ready!(self.stream.poll_trailers(cx)) {
            Ok(trailers) => trailers.map(|map| h2_message::trailer_fields(&map)),
            Err(error) => return Poll::Ready(self.ended(&error)),
        };
        Poll::Ready(
            trailers.transpose().map(|fields| fields.map(Frame::Trailers)).map_err(|_| BodyError::Malformed),
        )
    }

    /// An endpoint that has answered completely may ask us to stop sending (RFC 9113 section 8.1): that is no
    /// failure of its answer.
    fn ended(&self, error: &h2::Error) -> Result<Option<Frame>, BodyError> {
        let stops = error.is_reset() && error.is_remote() && error.reason() == Some(Reason::NO_ERROR);
        match error {
            _ if stops && self.length.is_none_or(|left| left == 0) => Ok(None),
            _ if error.is_library() => Err(BodyError::Malformed),
            _ => Err(BodyError::Incomplete),
        }
    }
}

impl Source for Reply {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        match self.failed {
            Some(error) => return Poll::Ready(Some(Err(error))),
            None if self.line.is_none() => return Poll::Ready(None),
            None => {}
        }
        let polled = ready!(self.poll(cx));
        self.failed = polled.as_ref().err().copied();
        if !matches!(polled, Ok(Some(Frame::Data(_)))) {
            self.line = None;
        }
        Poll::Ready(polled.transpose())
    }

    fn length(&self) -> Option<u64> {
        self.length
    }
}

/// The stream of an extended CONNECT that was accepted.
struct Tunnel {
    end: StreamEnd,
    _line: Line,
}

impl End for Tunnel {
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
        self.end.poll_receive(cx)
    }

    fn poll_send(&mut self, bytes: &mut Bytes, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.end.poll_send(bytes, cx)
    }

    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.end.poll_end(cx)
    }

    fn reset(&mut self) {
        self.end.reset();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reset_with_any_other_reason_tells_nothing_of_what_was_done() {
        let found = lost(&h2::Error::from(Reason::CANCEL));
        assert_eq!((found.failure, found.sent), (Failure::UpstreamReset, Sent::Something));
    }
}
