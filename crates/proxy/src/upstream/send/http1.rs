//! One exchange over an HTTP/1 connection to an endpoint.
//!
//! Promise: a connection goes back to its pool only when both messages ended properly.

use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use sluice_http::h1::{self, Decoded, Decoder, Framing, Persist, Scanner};
use sluice_http::{Body, BodyError, Frame, Method, Request, ResponseHead, Source};
use sluice_traffic::retry::Sent;

use super::{
    Answer, CONTINUE_WAIT, Lost, MAX_INTERIMS, Scope, Terms, body_of, client_failure, framing_of, invalid,
};
use crate::failure::Failure;
use crate::upstream::connection::{Connection, Pool};
use crate::upstream::live::InFlight;
use crate::wire::{SendError, Sender};
use crate::world::Deadline;

/// The request on its way out, together with the part of the body that is still to come.
struct Upload {
    sender: Sender,
    body: Body,
    finished: bool,
}

impl Upload {
    /// Nothing more of it is sent; the connection is not used again.
    fn give_up(&mut self) {
        self.finished = true;
        self.sender.fail();
    }

    fn poll(
        &mut self,
        connection: &mut Connection,
        limit: Duration,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), SendError>> {
        if self.finished {
            return Poll::Ready(Ok(()));
        }
        let link = &mut connection.link;
        let sent =
            ready!(self.sender.poll(&mut self.body, cx, |outbox, cx| link.poll_flush(outbox, limit, cx)));
        self.finished = sent.is_ok();
        Poll::Ready(sent)
    }
}

/// The exchange: see [`super::exchange`].
pub(super) async fn exchange(
    mut connection: Box<Connection>,
    request: &mut Request,
    persist: Persist,
    guard: InFlight,
    terms: &Terms<'_>,
) -> Result<Answer, Lost> {
    let framing = framing_of(request);
    let mut text = Vec::with_capacity(1024);
    h1::request_head(&request.head, framing, persist, &mut text);
    let streamed = matches!(request.body, Body::Stream(_));
    let body = body_of(request);
    let mut upload = Upload { sender: Sender::new(text, framing), body, finished: false };
    let expects = streamed && request.head.fields.contains(sluice_http::NameId::Expect);
    let mut waiting = Await {
        scanner: Scanner::default(),
        interims: 0,
        hold: expects,
        continue_awaited: false,
        head_awaited: false,
        polls: 0,
    };
    let received = waiting.answer(&mut connection, &mut upload, request.head.method, terms).await;
    match received {
        Ok((head, Framing::None)) if head.status == 101 => match persist {
            Persist::Upgrade => {
                connection.in_flight = Some(guard);
                Ok(Answer::Switched(head, connection))
            }
            _ => {
                Err(Lost { failure: Failure::UpgradeRefused, sent: Sent::Something, scope: Scope::Exchange })
            }
        },
        Ok((head, framing)) => {
            if waiting.hold {
                // It answered instead of asking for the body: nobody may ask the client for it any more.
                upload.give_up();
            }
            Ok(receive(connection, head, framing, upload, guard, terms))
        }
        Err(failure) => {
            let sent = if upload.sender.untouched() { Sent::Nothing } else { Sent::Something };
            if streamed && upload.sender.sent == 0 {
                request.body = upload.body;
            }
            Err(Lost { failure, sent, scope: Scope::Connection })
        }
    }
}

/// Waiting for the head of the answer.
struct Await {
    scanner: Scanner,
    /// Interim answers it has sent.
    interims: u32,
    /// The body is held back until the endpoint says 100 (RFC 9110 section 10.1.1), or a second passes.
    hold: bool,
    continue_awaited: bool,
    /// The deadline of the head runs.
    head_awaited: bool,
    /// How often it was polled: what left at the first poll left when the attempt began.
    polls: u32,
}

impl Await {
    async fn answer(
        &mut self,
        connection: &mut Box<Connection>,
        upload: &mut Upload,
        method: Method,
        terms: &Terms<'_>,
    ) -> Result<(ResponseHead, Framing), Failure> {
        loop {
            let end = poll_fn(|cx| self.poll_head(connection, upload, terms, cx)).await?;
            let text = connection.link.buffer.split_to(end).freeze();
            self.scanner = Scanner::default();
            let parsed = h1::response(text, method, &terms.limits);
            let (head, framing) = parsed.map_err(|refusal| invalid(terms, refusal))?;
            match head.status {
                101 => return Ok((head, Framing::None)),
                100..200 if self.interims == MAX_INTERIMS => return Err(Failure::UpstreamInvalid),
                100..200 => {
                    self.interims += 1;
                    self.hold &= head.status != 100;
                    (terms.interim)(head);
                }
                _ => return Ok((head, framing)),
            }
        }
    }

    /// Goes on sending and reading until a whole head stands in the buffer; gives its length.
    fn poll_head(
        &mut self,
        connection: &mut Box<Connection>,
        upload: &mut Upload,
        terms: &Terms<'_>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<usize, Failure>> {
        if terms.total.as_ref().is_some_and(|total| total.poll_passed(cx)) {
            return Poll::Ready(Err(Failure::UpstreamTimeout));
        }
        let uploaded = self.poll_upload(connection, upload, terms, cx)?;
        self.polls = self.polls.saturating_add(1);
        loop {
            let link = &mut connection.link;
            let scanned = self.scanner.scan(&link.buffer, &terms.limits);
            if let Some(end) = scanned.map_err(|refusal| invalid(terms, refusal))? {
                return Poll::Ready(Ok(end));
            }
            match link.poll_fill(cx) {
                Poll::Ready(Ok(read)) if read > 0 => {}
                Poll::Ready(_) => return Poll::Ready(Err(Failure::UpstreamReset)),
                // While the request is still leaving, the sender's own deadline watches.
                Poll::Pending if uploaded.is_pending() => return Poll::Pending,
                Poll::Pending => return self.poll_silence(connection, terms, cx),
            }
        }
    }

    /// Whether the endpoint has been silent too long since the request left. The deadline is set once: a
    /// head that dribbles has no more time than one that never comes.
    fn poll_silence<T>(
        &mut self,
        connection: &mut Connection,
        terms: &Terms<'_>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<T, Failure>> {
        if !std::mem::replace(&mut self.head_awaited, true) {
            let now = if self.polls == 1 { terms.now } else { terms.clock.now() };
            connection.link.expect_within(now, terms.timeouts.first_byte);
        }
        match connection.link.deadline.poll_passed(cx) {
            true => Poll::Ready(Err(Failure::UpstreamTimeout)),
            false => Poll::Pending,
        }
    }

    fn poll_upload(
        &mut self,
        connection: &mut Box<Connection>,
        upload: &mut Upload,
        terms: &Terms<'_>,
        cx: &mut Context<'_>,
    ) -> Result<Poll<()>, Failure> {
        if self.hold {
            return self.poll_held(connection, upload, terms, cx);
        }
        match upload.poll(connection, terms.timeouts.idle, cx) {
            Poll::Pending => Ok(Poll::Pending),
            Poll::Ready(Ok(())) => Ok(Poll::Ready(())),
            Poll::Ready(Err(SendError::Body(error))) => Err(client_failure(error)),
            Poll::Ready(Err(SendError::Link(error))) if error.kind() == io::ErrorKind::TimedOut => {
                Err(Failure::UpstreamTimeout)
            }
            // The endpoint takes no more, but may have answered before it closed: look for that answer.
            Poll::Ready(Err(SendError::Link(_))) => {
                upload.give_up();
                Ok(Poll::Ready(()))
            }
        }
    }

    /// Sends the head alone and waits for 100 Continue, a final answer, or the end of patience.
    fn poll_held(
        &mut self,
        connection: &mut Box<Connection>,
        upload: &mut Upload,
        terms: &Terms<'_>,
        cx: &mut Context<'_>,
    ) -> Result<Poll<()>, Failure> {
        let link = &mut connection.link;
        let flushed =
            upload.sender.poll_head(cx, |outbox, cx| link.poll_flush(outbox, terms.timeouts.idle, cx));
        if let Poll::Ready(Err(_)) = flushed {
            return Err(Failure::UpstreamReset);
        }
        if flushed.is_ready() && !self.continue_awaited {
            self.continue_awaited = true;
            link.expect_within(terms.clock.now(), CONTINUE_WAIT);
        }
        if self.continue_awaited && link.deadline.poll_passed(cx) {
            self.hold = false;
            return self.poll_upload(connection, upload, terms, cx);
        }
        Ok(Poll::Pending)
    }
}

/// Turns what follows the head into a body. A body that is all here gives the connection back at once.
fn receive(
    mut connection: Box<Connection>,
    head: ResponseHead,
    framing: Framing,
    upload: Upload,
    guard: InFlight,
    terms: &Terms<'_>,
) -> Answer {
    let keep =
        h1::keep_alive(head.version, &head.fields) && framing != Framing::Close && !upload.sender.failed();
    let mut decoder = Decoder::new(framing, &terms.limits);
    let whole = match framing {
        Framing::None | Framing::Length(0) => Some(Body::Empty),
        _ => all_here(&mut decoder, &mut connection.link.buffer).map(Body::Full),
    };
    if let Some(body) = whole {
        if keep && upload.finished {
            terms.pool.give_back(connection);
        }
        return Answer::Response(head, body);
    }
    let reply = Reply {
        line: Some(Line { connection, upload, guard, pool: Rc::clone(terms.pool) }),
        decoder,
        keep,
        idle: terms.timeouts.idle,
        total: terms.body_end().cloned(),
        failed: None,
    };
    Answer::Response(head, Body::Stream(Box::new(reply)))
}

/// The whole content of known length, when it stands in the buffer already.
fn all_here(decoder: &mut Decoder, buffer: &mut BytesMut) -> Option<Bytes> {
    let length = usize::try_from(decoder.left()?).ok()?;
    if buffer.len() < length {
        return None;
    }
    match decoder.decode(buffer) {
        Ok(Decoded::Data(content)) => Some(content),
        _ => None,
    }
}

/// What an answer's body holds until it ends.
struct Line {
    connection: Box<Connection>,
    upload: Upload,
    guard: InFlight,
    pool: Rc<Pool>,
}

/// The body of an endpoint's answer.
struct Reply {
    line: Option<Line>,
    decoder: Decoder,
    /// Whether the connection may carry another exchange after this one.
    keep: bool,
    idle: Duration,
    total: Option<Rc<Deadline>>,
    failed: Option<BodyError>,
}

impl Reply {
    /// Ends the use of the connection: back to the pool when both messages ended properly.
    fn release(&mut self) {
        let Some(line) = self.line.take() else { return };
        if self.keep && line.upload.finished {
            line.pool.give_back(line.connection);
        }
        drop(line.guard);
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Frame>, BodyError>> {
        loop {
            let Some(line) = &mut self.line else { return Poll::Ready(Ok(None)) };
            if let Poll::Ready(Err(_)) = line.upload.poll(&mut line.connection, self.idle, cx) {
                // The answer may still be complete; the connection is not used again.
                line.upload.finished = true;
                self.keep = false;
            }
            let link = &mut line.connection.link;
            match self.decoder.decode(&mut link.buffer).map_err(|_| BodyError::Malformed)? {
                Decoded::Data(content) => {
                    if self.decoder.is_done() {
                        self.release();
                    }
                    return Poll::Ready(Ok(Some(Frame::Data(content))));
                }
                Decoded::Trailers(fields) => {
                    self.release();
                    return Poll::Ready(Ok(Some(Frame::Trailers(fields))));
                }
                Decoded::Done => {
                    self.release();
                    return Poll::Ready(Ok(None));
                }
                Decoded::More => {}
            }
            if self.total.as_ref().is_some_and(|deadline| deadline.poll_passed(cx)) {
                return Poll::Ready(Err(BodyError::TimedOut));
            }
            match ready!(link.poll_fill_within(self.idle, cx)) {
                Ok(0) if self.decoder.eof() => {
                    self.line = None;
                    return Poll::Ready(Ok(None));
                }
                Ok(0) => return Poll::Ready(Err(BodyError::Incomplete)),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                    return Poll::Ready(Err(BodyError::TimedOut));
                }
                Err(_) => return Poll::Ready(Err(BodyError::Incomplete)),
            }
        }
    }
}

impl Source for Reply {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        if let Some(error) = self.failed {
            return Poll::Ready(Some(Err(error)));
        }
        let polled = ready!(self.poll(cx));
        if let Err(error) = polled {
            self.failed = Some(error);
            self.line = None;
        }
        Poll::Ready(polled.transpose())
    }

    fn length(&self) -> Option<u64> {
        self.decoder.left()
    }
}
