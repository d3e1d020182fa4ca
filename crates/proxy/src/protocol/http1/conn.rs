//! The server side of one HTTP/1 connection: its link, the request body that is arriving on it, and the
//! interim responses that wait to leave.
//!
//! Shared (in an `Rc`) by the exchange that writes the answer and the request body that is pulled by
//! whoever reads it. Borrows of the link last for one poll and never cross an await.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use sluice_http::h1::{self, Decoded, Decoder, Framing, Limits, Refusal, Scanner};
use sluice_http::{Body, BodyError, Frame, ResponseHead, Source};

use crate::relay::End;
use crate::wire::{Link, Outbox};

/// One HTTP/1 connection from a client.
pub struct Conn {
    /// The connection.
    pub link: RefCell<Link>,
    /// None when the request has no body, and between two exchanges.
    body: RefCell<Option<Box<Incoming>>>,
    /// None unless there are some, which is rare.
    interims: RefCell<Option<Box<Interims>>>,
    /// Whether the client waits for 100 Continue.
    expects: Cell<Expects>,
}

/// Interim responses on their way out.
struct Interims {
    waiting: VecDeque<ResponseHead>,
    leaving: Outbox,
}

/// The request body that is arriving.
struct Incoming {
    decoder: Decoder,
    /// Content bytes so far.
    received: u64,
    /// The most that is accepted.
    limit: u64,
    /// How long it may be silent.
    stall: Duration,
    failed: Option<BodyError>,
    refusal: Option<Refusal>,
}

/// Whether a client holds its body back for a 100 Continue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expects {
    /// It does not.
    Nothing,
    /// It does.
    Continue,
    /// It did, and has been told to go on.
    Told,
}

/// Why no head came.
#[derive(Debug)]
pub enum NoHead {
    /// Nothing has arrived: the runtime only supposed that something had.
    NotYet,
    /// The client closed, or its connection broke.
    Gone,
    /// Not in time.
    TimedOut,
    /// The bytes are not acceptable.
    Refused(Refusal),
}

/// What is left of a request body when its answer has been sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    /// Nothing: the next request starts where the buffer stands.
    Nothing,
    /// So many bytes, worth reading to keep the connection.
    Little,
    /// Too much, or it is not known how much, or its framing failed.
    Much,
}

/// A body rest up to this size is read and dropped to keep the connection.
const LITTLE: u64 = 256 * 1024;

impl Conn {
    /// A connection that nothing was read from.
    pub fn new(link: Link) -> Rc<Conn> {
        Rc::new(Conn {
            link: RefCell::new(link),
            body: RefCell::default(),
            interims: RefCell::default(),
            expects: Cell::new(Expects::Nothing),
        })
    }

    /// Puts back what was read.
    pub fn unread(&self, text: &[u8]) {
        let mut link = self.link.borrow_mut();
        let mut buffer = BytesMut::with_capacity(text.len() + link.buffer.len());
        buffer.extend_from_slice(text);
        buffer.extend_from_slice(&link.buffer);
        link.buffer = buffer;
    }

    /// The connection alone.
    pub fn into_link(self) -> Link {
        self.link.into_inner()
    }

    /// Lets go of what an exchange needed.
    pub fn rest_between(&self) {
        self.body.take();
        self.link.borrow_mut().rest();
    }

    /// Whether bytes of a next request stand in the buffer.
    pub fn has_bytes(&self) -> bool {
        !self.link.borrow().buffer.is_empty()
    }

    /// Reads until a whole head is here. Cancel-safe.
    pub async fn head(&self, limits: &Limits, now: Instant, within: Duration) -> Result<Bytes, NoHead> {
        self.link.borrow_mut().expect_within(now, within);
        let mut scanner = Scanner::default();
        poll_fn(|cx| {
            let link = &mut *self.link.borrow_mut();
            loop {
                if let Some(end) = scanner.scan(&link.buffer, limits).map_err(NoHead::Refused)? {
                    // The head's time ends with it, also when all of it was here already.
                    link.expect_nothing();
                    return Poll::Ready(Ok(link.buffer.split_to(end).freeze()));
                }
                match link.poll_fill(cx) {
                    Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Err(NoHead::Gone)),
                    Poll::Ready(Ok(_)) => {}
                    Poll::Pending if link.buffer.is_empty() => return Poll::Ready(Err(NoHead::NotYet)),
                    Poll::Pending if link.deadline.poll_passed(cx) => {
                        return Poll::Ready(Err(NoHead::TimedOut));
                    }
                    Poll::Pending => return Poll::Pending,
                }
            }
        })
        .await
    }

    /// Makes the body that follows the head just read.
    pub fn body(self: &Rc<Self>, framing: Framing, limits: &Limits, limit: u64, stall: Duration) -> Body {
        if framing == Framing::None {
            self.body.take();
            return Body::Empty;
        }
        let decoder = Decoder::new(framing, limits);
        let incoming = Incoming { decoder, received: 0, limit, stall, failed: None, refusal: None };
        let mut body = self.body.borrow_mut();
        let incoming = body.insert(Box::new(incoming));
        let link = &mut *self.link.borrow_mut();
        match framing {
            Framing::Length(length) if length <= link.buffer.len() as u64 && length > 0 => {
                // It came with the head: no stream is needed, and it can be sent again on a retry.
                match incoming.decoder.decode(&mut link.buffer) {
                    Ok(Decoded::Data(content)) => {
                        incoming.received = content.len() as u64;
                        Body::Full(content)
                    }
                    _ => Body::Stream(Box::new(Arriving(Rc::clone(self)))),
                }
            }
            Framing::Length(0) => Body::Empty,
            _ => Body::Stream(Box::new(Arriving(Rc::clone(self)))),
        }
    }

    /// Notes whether the client waits for 100 Continue.
    pub fn set_expects(&self, expects: Expects) {
        self.expects.set(expects);
    }

    /// Body bytes received in this exchange.
    pub fn received(&self) -> u64 {
        self.body.borrow().as_ref().map_or(0, |body| body.received)
    }

    /// The refusal that the body's framing met, if it did.
    pub fn body_refusal(&self) -> Option<Refusal> {
        self.body.borrow().as_ref().and_then(|body| body.refusal)
    }

    /// What is left of the request's body.
    pub fn rest(&self) -> Rest {
        let body = self.body.borrow();
        let Some(body) = &*body else { return Rest::Nothing };
        match (body.failed, body.decoder.is_done(), body.decoder.left()) {
            (None, true, _) => Rest::Nothing,
            (None, false, Some(left)) if left <= LITTLE && self.expects.get() != Expects::Continue => {
                Rest::Little
            }
            _ => Rest::Much,
        }
    }

    /// Reads and drops what is left of the request's body; false when it did not end properly.
    pub async fn drop_rest(self: &Rc<Self>) -> bool {
        let mut rest = Arriving(Rc::clone(self));
        loop {
            match poll_fn(|cx| rest.poll_frame(cx)).await {
                None => return true,
                Some(Ok(_)) => {}
                Some(Err(_)) => return false,
            }
        }
    }

    /// Takes an interim response to send before the answer.
    pub fn interim(&self, head: ResponseHead) {
        if head.status == 100 {
            match self.expects.get() {
                // We said it when the endpoint kept silent: a client is told once.
                Expects::Told => return,
                Expects::Continue => self.expects.set(Expects::Told),
                Expects::Nothing => {}
            }
        }
        let fresh = || Box::new(Interims { waiting: VecDeque::new(), leaving: Outbox::new(Vec::new()) });
        self.interims.borrow_mut().get_or_insert_with(fresh).waiting.push_back(head);
    }

    /// Sends the interim responses that wait; an error means that the client is gone.
    pub fn poll_interims(&self, stall: Duration, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut interims = self.interims.borrow_mut();
        while let Some(found) = &mut *interims {
            ready!(self.link.borrow_mut().poll_flush(&mut found.leaving, stall, cx))?;
            let Some(head) = found.waiting.pop_front() else {
                *interims = None;
                break;
            };
            let mut text = Vec::with_capacity(128);
            h1::interim_head(&head, &mut text);
            found.leaving = Outbox::new(text);
        }
        Poll::Ready(Ok(()))
    }

    /// Whether the client has left while its answer is being made. Bytes of a next request are kept, up to
    /// a buffer's worth. A client that closes its sending half has left: that is how HTTP/1 clients abort.
    pub fn poll_gone(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.body.borrow().as_ref().is_some_and(|body| !body.decoder.is_done()) {
            // Whoever reads the body will see it.
            return Poll::Pending;
        }
        loop {
            let link = &mut *self.link.borrow_mut();
            if link.buffer.len() >= 16 * 1024 {
                return Poll::Pending;
            }
            match ready!(link.poll_fill(cx)) {
                Ok(0) | Err(_) => return Poll::Ready(()),
                Ok(_) => {}
            }
        }
    }

    /// Closes in a way that lets the client read the answer: sends our end, then reads until the client
    /// closes, for two seconds or 1 MiB at most (RFC 9112 section 9.6).
    pub async fn linger(&self, now: Instant) {
        self.link.borrow_mut().expect_within(now, Duration::from_secs(2));
        let mut read = 0;
        poll_fn(|cx| {
            let link = &mut *self.link.borrow_mut();
            if read == 0 && ready!(link.poll_end(cx)).is_err() {
                return Poll::Ready(());
            }
            loop {
                link.buffer.clear();
                match link.poll_fill(cx) {
                    Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(()),
                    Poll::Ready(Ok(more)) => read += more,
                    Poll::Pending if link.deadline.poll_passed(cx) => return Poll::Ready(()),
                    Poll::Pending => return Poll::Pending,
                }
                if read > 1024 * 1024 {
                    return Poll::Ready(());
                }
            }
        })
        .await;
    }
}

/// A client's connection as one end of a tunnel.
impl End for Rc<Conn> {
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
        self.link.borrow_mut().poll_receive(cx)
    }

    fn poll_send(&mut self, bytes: &mut Bytes, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.link.borrow_mut().poll_send(bytes, cx)
    }

    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.link.borrow_mut().poll_end(cx)
    }

    fn reset(&mut self) {
        self.link.borrow().stream.reset_on_close();
    }
}

/// The request body as a source.
struct Arriving(Rc<Conn>);

impl Source for Arriving {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        let conn = &*self.0;
        if conn.expects.get() == Expects::Continue {
            // Somebody wants the body and no endpoint has said 100 yet: the client must be told.
            conn.interim(ResponseHead::new(100));
            let stall = conn.body.borrow().as_ref().map_or(Duration::ZERO, |body| body.stall);
            if let Poll::Ready(Err(_)) = conn.poll_interims(stall, cx)
                && let Some(body) = &mut *conn.body.borrow_mut()
            {
                body.failed = Some(BodyError::Incomplete);
            }
        }
        let mut body = conn.body.borrow_mut();
        let Some(body) = &mut *body else { return Poll::Ready(None) };
        if let Some(error) = body.failed {
            return Poll::Ready(Some(Err(error)));
        }
        let polled = ready!(body.poll(&mut conn.link.borrow_mut(), cx));
        body.failed = polled.as_ref().err().copied();
        Poll::Ready(polled.transpose())
    }

    fn length(&self) -> Option<u64> {
        self.0.body.borrow().as_ref().and_then(|body| body.decoder.left())
    }
}

impl Incoming {
    fn poll(&mut self, link: &mut Link, cx: &mut Context<'_>) -> Poll<Result<Option<Frame>, BodyError>> {
        loop {
            match self.decoder.decode(&mut link.buffer) {
                Ok(Decoded::Data(content)) => {
                    self.received += content.len() as u64;
                    if self.received > self.limit {
                        return Poll::Ready(Err(BodyError::TooLarge));
                    }
                    return Poll::Ready(Ok(Some(Frame::Data(content))));
                }
                Ok(Decoded::Trailers(fields)) => return Poll::Ready(Ok(Some(Frame::Trailers(fields)))),
                Ok(Decoded::Done) => return Poll::Ready(Ok(None)),
                Ok(Decoded::More) => {}
                Err(refusal) => {
                    self.refusal = Some(refusal);
                    return Poll::Ready(Err(BodyError::Malformed));
                }
            }
            match ready!(link.poll_fill_within(self.stall, cx)) {
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
