//! One exchange through a tunnel: with its task, by messages.
//!
//! Promise: dropping the exchange or its answer's body gives the call up at the connector, unless everything was
//! said; no more of an upload is pulled than there is credit for; the connector is told what the client has taken;
//! a body that may be needed again is not touched before the tunnel has taken the request.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use sluice_http::h1::{Framing, Persist};
use sluice_http::{Body, BodyError, Frame, Method, NameId, Request, ResponseHead, Source};
use sluice_traffic::retry::Sent;
use sluice_tunnel::event::{Fault, Unsendable};
use sluice_tunnel::text::Content;

use super::{Answer, Lost, Scope, Terms, body_of, client_failure, framing_of};
use crate::failure::Failure;
use crate::relay::End;
use crate::tunnels::Slot;
use crate::tunnels::line::{CREDIT, Line, Told};
use crate::tunnels::watch::{Event, Watch};
use crate::upstream::live::InFlight;
use crate::world::{Deadline, Patience};

/// The tunnel ended before it saw the request.
const NOT_SEEN: Lost = Lost { failure: Failure::TunnelLost, sent: Sent::Nothing, scope: Scope::Connection };

const fn refused(failure: Failure) -> Lost {
    Lost { failure, sent: Sent::Nothing, scope: Scope::Exchange }
}

const fn something(failure: Failure) -> Lost {
    Lost { failure, sent: Sent::Something, scope: Scope::Exchange }
}

/// The exchange: see [`super::exchange`].
pub(super) async fn exchange(
    (slot, watch): (Slot, Option<Rc<Watch>>),
    request: &mut Request,
    persist: Persist,
    guard: InFlight,
    terms: &Terms<'_>,
) -> Result<Answer, Lost> {
    let is_upgrade = persist == Persist::Upgrade;
    if is_upgrade && !slot.extensions().upgrade {
        return Err(refused(Failure::UpgradeRefused));
    }
    let framing = framing_of(request);
    let mut head = request.head.clone();
    if !is_upgrade {
        head.fields.remove(NameId::Upgrade);
    }
    let line = slot.begin(head, Content::from(framing)).ok_or(NOT_SEEN)?;
    let streamed = matches!(request.body, Body::Stream(_));
    let body = body_of(request);
    let is_bare = matches!(framing, Framing::None | Framing::Length(0));
    let patience = || Patience::new(terms.timers.deadline(), terms.clock);
    let mut waiting = Await {
        wire: Wire {
            line,
            inbox: VecDeque::new(),
            credit: CREDIT,
            is_closed: false,
            is_begun: false,
            watch: watch.map(Watched::new),
        },
        upload: Upload {
            body,
            held: Bytes::new(),
            owed: if let Framing::Length(length) = framing { Some(length) } else { None },
            is_over: is_bare,
            is_streamed: streamed,
            untouched: true,
            patience: patience(),
        },
        patience: patience(),
    };
    let answered = poll_fn(|cx| waiting.poll(terms, cx)).await;
    if let (Some(watched), Ok(head)) = (&waiting.wire.watch, &answered) {
        watched.watch.tell(&Event::HeadReceived(head));
    }
    match answered {
        Ok(head) if head.status == 101 && is_upgrade => {
            let end = Switched { wire: waiting.wire, held: 0, is_blocked: false, _guard: guard };
            Ok(Answer::Switched(head, Box::new(end)))
        }
        Ok(head) if head.status == 101 => Err(something(Failure::UpgradeRefused)),
        Ok(head) => {
            let has_content = request.head.method != Method::Head && !matches!(head.status, 204 | 304);
            let body = waiting.into_body((&head, has_content), guard, terms);
            Ok(Answer::Response(head, body))
        }
        Err(lost) => {
            if streamed && waiting.upload.untouched {
                request.body = waiting.upload.body;
            }
            Err(lost)
        }
    }
}

/// What a fault means for an exchange of which nothing was answered.
fn failure(fault: Fault) -> Failure {
    match fault {
        Fault::ConnectorFailed => Failure::TunnelTargetFailed,
        Fault::Refused => Failure::TunnelRefused,
        Fault::Silent => Failure::TunnelSilent,
        Fault::GoneAway | Fault::Dropped => Failure::TunnelLost,
        Fault::NoAnswer | Fault::BadHead | Fault::WrongLength | Fault::Broken | Fault::Overrun => {
            Failure::UpstreamInvalid
        }
    }
}

/// The line, and what came over it.
struct Wire {
    line: Line,
    inbox: VecDeque<Told>,
    /// Bytes that may be sent.
    credit: usize,
    is_closed: bool,
    /// The tunnel has sent the head.
    is_begun: bool,
    watch: Option<Watched>,
}

/// Who watches, and what they were told already.
struct Watched {
    watch: Rc<Watch>,
    is_request_told: bool,
    is_answer_told: bool,
}

impl Watched {
    fn new(watch: Rc<Watch>) -> Watched {
        Watched { watch, is_request_told: false, is_answer_told: false }
    }

    fn request_sent(&mut self) {
        if !std::mem::replace(&mut self.is_request_told, true) {
            self.watch.tell(&Event::RequestSent);
        }
    }

    fn answer_received(&mut self) {
        if !std::mem::replace(&mut self.is_answer_told, true) {
            self.watch.tell(&Event::AnswerReceived);
        }
    }
}

impl Wire {
    /// Takes in everything that was told; true when there is new credit.
    fn absorb(&mut self, cx: &mut Context<'_>) -> bool {
        let before = self.credit;
        while !self.is_closed
            && let Poll::Ready(told) = self.line.poll_told(cx)
        {
            match told {
                Some(Told::Begun) => {
                    self.is_begun = true;
                    if let Some(watched) = &self.watch {
                        watched.watch.tell(&Event::HeadSent);
                    }
                }
                Some(Told::Credit(more)) => self.credit += more,
                Some(told) => self.inbox.push_back(told),
                None => self.is_closed = true,
            }
        }
        self.credit > before
    }

    /// Gives content to the tunnel, for which there is credit.
    fn data(&mut self, piece: Bytes) {
        let bytes = piece.len();
        self.credit -= bytes;
        let watch = self.watch.as_ref().map(|watched| &watched.watch).filter(|watch| watch.wants_content());
        if let Some(watch) = watch {
            watch.tell(&Event::Sending(&piece));
        }
        self.line.data(piece);
        if let Some(watch) = watch {
            watch.tell(&Event::Sent(bytes));
        }
    }
}

/// A request's body on its way.
struct Upload {
    body: Body,
    held: Bytes,
    /// Content still owed to Content-Length.
    owed: Option<u64>,
    is_over: bool,
    is_streamed: bool,
    untouched: bool,
    patience: Patience,
}

/// Why a body was not sent to its end.
enum Stuck {
    Body(BodyError),
    Stalled,
}

impl Upload {
    fn poll(&mut self, wire: &mut Wire, limit: Duration, cx: &mut Context<'_>) -> Poll<Result<(), Stuck>> {
        while !self.is_over {
            if !self.held.is_empty() {
                if wire.credit == 0 {
                    return match self.patience.poll_over(limit, cx) {
                        true => Poll::Ready(Err(Stuck::Stalled)),
                        false => Poll::Pending,
                    };
                }
                wire.data(self.held.split_to(wire.credit.min(self.held.len())));
                self.patience.renew();
                continue;
            }
            if (self.is_streamed || wire.watch.is_some()) && !wire.is_begun {
                // It could not be sent again through another tunnel; who watches is told of the head first.
                return Poll::Pending;
            }
            let frame = ready!(self.body.poll_frame(cx));
            self.untouched = false;
            self.take(frame, wire)?;
        }
        self.tell_sent(wire);
        Poll::Ready(Ok(()))
    }

    /// Tells who watches when all of the request was sent.
    fn tell_sent(&self, wire: &mut Wire) {
        if let Some(watched) = &mut wire.watch
            && wire.is_begun
            && self.is_over
        {
            watched.request_sent();
        }
    }

    fn take(&mut self, frame: Option<Result<Frame, BodyError>>, wire: &Wire) -> Result<(), Stuck> {
        match frame {
            Some(Ok(Frame::Data(content))) => {
                if let Some(owed) = &mut self.owed {
                    let left = owed.checked_sub(content.len() as u64);
                    *owed = left.ok_or(Stuck::Body(BodyError::Malformed))?;
                }
                self.held = content;
                return Ok(());
            }
            Some(Err(error)) => return Err(Stuck::Body(error)),
            _ if self.owed.is_some_and(|owed| owed > 0) => return Err(Stuck::Body(BodyError::Incomplete)),
            Some(Ok(Frame::Trailers(fields))) => wire.line.trailers(fields),
            None => wire.line.end(),
        }
        self.is_over = true;
        Ok(())
    }
}

/// Waiting for the head of the answer.
struct Await {
    wire: Wire,
    upload: Upload,
    patience: Patience,
}

impl Await {
    fn poll(&mut self, terms: &Terms<'_>, cx: &mut Context<'_>) -> Poll<Result<ResponseHead, Lost>> {
        if terms.total.as_ref().is_some_and(|total| total.poll_passed(cx)) {
            return Poll::Ready(Err(something(Failure::UpstreamTimeout)));
        }
        self.wire.absorb(cx);
        self.upload.tell_sent(&mut self.wire);
        match self.wire.inbox.pop_front() {
            Some(Told::Head(head)) => return Poll::Ready(Ok(head)),
            Some(Told::Failed(fault)) => return Poll::Ready(Err(something(failure(fault)))),
            Some(Told::Unsent(Unsendable::TooLarge)) => {
                return Poll::Ready(Err(refused(Failure::HeadTooLarge)));
            }
            Some(Told::Unsent(Unsendable::NotOpen)) => return Poll::Ready(Err(NOT_SEEN)),
            None if self.wire.is_closed && !self.wire.is_begun => return Poll::Ready(Err(NOT_SEEN)),
            None if self.wire.is_closed => return Poll::Ready(Err(something(Failure::TunnelLost))),
            // The head comes first.
            Some(_) => return Poll::Ready(Err(something(Failure::UpstreamInvalid))),
            None => {}
        }
        match self.upload.poll(&mut self.wire, terms.timeouts.idle, cx) {
            Poll::Ready(Ok(())) => match self.patience.poll_over(terms.timeouts.first_byte, cx) {
                true => Poll::Ready(Err(something(Failure::UpstreamTimeout))),
                false => Poll::Pending,
            },
            Poll::Ready(Err(Stuck::Body(error))) => Poll::Ready(Err(something(client_failure(error)))),
            Poll::Ready(Err(Stuck::Stalled)) => Poll::Ready(Err(something(Failure::UpstreamTimeout))),
            Poll::Pending => Poll::Pending,
        }
    }

    /// Turns what follows the head into a body.
    fn into_body(
        self,
        (head, has_content): (&ResponseHead, bool),
        guard: InFlight,
        terms: &Terms<'_>,
    ) -> Body {
        let length = head.fields.get_str(NameId::ContentLength).and_then(|length| length.parse().ok());
        let length = if has_content { length } else { Some(0) };
        let mut patience = self.patience;
        patience.renew();
        let mut reply = Reply {
            wire: self.wire,
            upload: self.upload,
            length,
            held: 0,
            patience,
            idle: terms.timeouts.idle,
            end: terms.body_end().cloned(),
            ended: None,
            _guard: guard,
        };
        reply.tell_whole();
        match length {
            // Dropping it says whether the upload is given up.
            Some(0) => Body::Empty,
            _ => Body::Stream(Box::new(reply)),
        }
    }
}

/// The body of an answer.
struct Reply {
    wire: Wire,
    upload: Upload,
    /// Content still to come, when Content-Length says how much.
    length: Option<u64>,
    /// Bytes given out that may still be on their way.
    held: usize,
    patience: Patience,
    idle: Duration,
    end: Option<Rc<Deadline>>,
    ended: Option<Result<(), BodyError>>,
    _guard: InFlight,
}

impl Reply {
    /// Tells who watches when Content-Length says that nothing follows.
    fn tell_whole(&mut self) {
        if self.length == Some(0) {
            self.tell_end();
        }
    }

    fn tell_end(&mut self) {
        if let Some(watched) = &mut self.wire.watch {
            watched.answer_received();
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Frame>, BodyError>> {
        let held = std::mem::take(&mut self.held);
        if held > 0 {
            // Whoever asks for more has got rid of what came before.
            self.wire.line.consumed(held);
        }
        self.wire.absorb(cx);
        if let Poll::Ready(Err(_)) = self.upload.poll(&mut self.wire, self.idle, cx) {
            // The connector may have its answer complete without it; if not, it is told when this is dropped.
            self.upload.is_over = true;
            self.upload.untouched = false;
        }
        let told = match self.wire.inbox.pop_front() {
            None if self.wire.is_closed => return Poll::Ready(Err(BodyError::Incomplete)),
            None => {
                let is_over = self.end.as_ref().is_some_and(|end| end.poll_passed(cx));
                return match is_over || self.patience.poll_over(self.idle, cx) {
                    true => Poll::Ready(Err(BodyError::TimedOut)),
                    false => Poll::Pending,
                };
            }
            Some(told) => told,
        };
        self.patience.renew();
        Poll::Ready(match told {
            Told::Data(content) => {
                self.held = content.len();
                self.length = self.length.map(|length| length.saturating_sub(content.len() as u64));
                if let Some(watched) = &self.wire.watch {
                    watched.watch.tell(&Event::Received(&content));
                }
                self.tell_whole();
                Ok(Some(Frame::Data(content)))
            }
            Told::Trailers(fields) => {
                self.tell_end();
                Ok(Some(Frame::Trailers(fields)))
            }
            Told::End => {
                self.tell_end();
                self.wire.line.leave();
                Ok(None)
            }
            _ => Err(BodyError::Incomplete),
        })
    }
}

impl Source for Reply {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        if let Some(ended) = self.ended {
            return Poll::Ready(ended.err().map(Err));
        }
        let polled = ready!(self.poll(cx));
        match &polled {
            Ok(Some(Frame::Data(_))) => {}
            Ok(Some(Frame::Trailers(_)) | None) => self.ended = Some(Ok(())),
            Err(error) => self.ended = Some(Err(*error)),
        }
        Poll::Ready(polled.transpose())
    }

    fn length(&self) -> Option<u64> {
        self.length
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        let is_whole = self.length == Some(0) || self.ended == Some(Ok(()));
        if is_whole && self.upload.is_over && !matches!(self.ended, Some(Err(_))) {
            self.wire.line.leave();
        }
    }
}

/// After a 101: bytes both ways.
struct Switched {
    wire: Wire,
    /// Bytes given out that may still be on their way.
    held: usize,
    /// Somebody waits for credit.
    is_blocked: bool,
    _guard: InFlight,
}

impl Switched {
    fn absorb(&mut self, cx: &mut Context<'_>) {
        if self.wire.absorb(cx) && std::mem::take(&mut self.is_blocked) {
            cx.waker().wake_by_ref();
        }
    }
}

impl End for Switched {
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
        let held = std::mem::take(&mut self.held);
        if held > 0 {
            self.wire.line.consumed(held);
        }
        self.absorb(cx);
        loop {
            match self.wire.inbox.pop_front() {
                Some(Told::Data(bytes)) => {
                    self.held = bytes.len();
                    return Poll::Ready(Ok(bytes));
                }
                Some(Told::End) => return Poll::Ready(Ok(Bytes::new())),
                Some(Told::Failed(_)) => return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
                Some(_) => {}
                None if self.wire.is_closed => {
                    return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
                }
                None => return Poll::Pending,
            }
        }
    }

    fn poll_send(&mut self, bytes: &mut Bytes, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.wire.absorb(cx);
        while !bytes.is_empty() {
            if self.wire.credit == 0 {
                self.is_blocked = true;
                return Poll::Pending;
            }
            let piece = bytes.split_to(self.wire.credit.min(bytes.len()));
            self.wire.data(piece);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_end(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.wire.line.end();
        Poll::Ready(Ok(()))
    }

    fn reset(&mut self) {
        // Dropping it gives the exchange up.
    }
}
