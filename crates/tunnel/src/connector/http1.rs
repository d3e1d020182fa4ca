//! A target that speaks HTTP/1.1: the simplest there is, on the engine of `sluice-http`.
//!
//! Promise: requests and answers stream both ways at once; a connection is used again only after a complete
//! exchange; redirects, cookies and content codings are none of its business.

use std::cell::RefCell;
use std::future::{Future as _, poll_fn};
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use sluice_http::h1::{self, Decoded, Decoder, Framing, Limits, Persist, Scanner};
use sluice_http::{Body, BodyError, Frame, Method, NameId, Request, Response, ResponseHead, Source};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::Instant;

use super::address::Address;
use super::dial::{Dial, LocalFuture, Stream};
use super::target::{Target, TargetFailed};
use crate::websocket::Output;

const ROOM: usize = 16 * 1024;
const LOW: usize = 2 * 1024;

/// How a [`Http1`] target is reached.
#[derive(Clone, Copy, Debug)]
pub struct Http1Settings {
    /// How long a connection may take to be made.
    pub connect: Duration,
    /// How long an idle connection is kept.
    pub idle: Duration,
    /// Idle connections, at most.
    pub most_idle: usize,
    /// Of an answer's head.
    pub limits: Limits,
}

impl Default for Http1Settings {
    fn default() -> Http1Settings {
        Http1Settings {
            connect: Duration::from_secs(5),
            idle: Duration::from_secs(15),
            most_idle: 64,
            limits: Limits { line: 60 * 1024, head: 63 * 1024, fields: 500 },
        }
    }
}

/// A service that speaks HTTP/1.1 at one address.
pub struct Http1 {
    shared: Rc<Shared>,
}

struct Shared {
    address: Address,
    dial: Rc<dyn Dial>,
    settings: Http1Settings,
    idle: RefCell<Vec<(Connection, Instant)>>,
}

struct Connection {
    stream: Box<dyn Stream>,
    buf: BytesMut,
}

impl Http1 {
    /// The service at this address.
    pub fn new(address: Address, dial: Rc<dyn Dial>, settings: Http1Settings) -> Http1 {
        Http1 { shared: Rc::new(Shared { address, dial, settings, idle: RefCell::default() }) }
    }
}

impl Target for Http1 {
    fn call(&self, request: Request) -> LocalFuture<Result<Response, TargetFailed>> {
        let shared = Rc::clone(&self.shared);
        Box::pin(async move { shared.call(request).await })
    }
}

impl Shared {
    async fn call(self: Rc<Self>, request: Request) -> Result<Response, TargetFailed> {
        let Request { mut head, body } = request;
        head.fields.remove(NameId::Expect);
        let may_switch = h1::upgrade(&head.fields).is_some();
        let framing = match (may_switch, body.length()) {
            (true, _) => Framing::None,
            (false, Some(0)) if head.fields.contains(NameId::ContentLength) => Framing::Length(0),
            (false, Some(0)) => Framing::None,
            (false, Some(length)) => Framing::Length(length),
            (false, None) => Framing::Chunked,
        };
        let mut text = Vec::new();
        let persist = if may_switch { Persist::Upgrade } else { Persist::KeepAlive };
        h1::request_head(&head, framing, persist, &mut text);
        // A kept connection may just be closing: what can be sent twice is.
        let is_repeatable = body.is_empty() && head.method.is_idempotent();
        let kept = if is_repeatable || body.is_empty() { self.kept().await } else { None };
        let mut call = Call {
            connection: match kept {
                Some(connection) => connection,
                None => self.fresh().await?,
            },
            out: Output::default(),
            body: if may_switch { Upload::Held(body) } else { Upload::Runs(body, framing) },
            scanner: Scanner::default(),
            method: head.method,
            limits: self.settings.limits,
        };
        call.out.put(&text);
        let first = poll_fn(|cx| call.poll_head(cx)).await;
        let (head, framing) = match first {
            Err(TargetFailed::Closed) if is_repeatable => {
                call.connection = self.fresh().await?;
                call.out = Output::default();
                call.out.put(&text);
                poll_fn(|cx| call.poll_head(cx)).await?
            }
            first => first?,
        };
        Ok(self.answer(call, head, framing))
    }

    /// The answer whose head came.
    fn answer(self: Rc<Self>, mut call: Call, head: ResponseHead, framing: Framing) -> Response {
        let is_switched = head.status == 101;
        let framing = if is_switched { Framing::Close } else { framing };
        if let (true, Upload::Held(body)) = (is_switched, &mut call.body) {
            call.body = Upload::Runs(std::mem::take(body), Framing::Close);
        }
        let is_kept = h1::keep_alive(head.version, &head.fields) && !is_switched;
        let decoder = Decoder::new(framing, &self.settings.limits);
        let mut answer = Answer { call: Some(call), decoder, is_kept, home: self };
        let body = match answer.decoder.is_done() {
            true => {
                answer.done();
                Body::Empty
            }
            false => Body::Stream(Box::new(answer)),
        };
        Response { head, body }
    }

    async fn fresh(&self) -> Result<Connection, TargetFailed> {
        match tokio::time::timeout(self.settings.connect, self.dial.dial(&self.address)).await {
            Ok(Ok(stream)) => Ok(Connection { stream, buf: BytesMut::new() }),
            Ok(Err(_)) => Err(TargetFailed::Unreachable),
            Err(_) => Err(TargetFailed::TimedOut),
        }
    }

    /// An idle connection that nobody has closed.
    async fn kept(&self) -> Option<Connection> {
        loop {
            let (mut connection, since) = self.idle.borrow_mut().pop()?;
            let is_silent = poll_fn(|cx| {
                let read = pin!(connection.stream.read_buf(&mut connection.buf)).poll(cx);
                Poll::Ready(read.is_pending())
            });
            if is_silent.await && since.elapsed() < self.settings.idle {
                return Some(connection);
            }
        }
    }

    fn keep(&self, connection: Connection) {
        let mut idle = self.idle.borrow_mut();
        idle.retain(|(_, since)| since.elapsed() < self.settings.idle);
        if idle.len() < self.settings.most_idle {
            idle.push((connection, Instant::now()));
        }
    }
}

/// The content of a request on its way to the target.
enum Upload {
    /// Waits whether the protocol changes.
    Held(Body),
    /// Is sent, in this framing; `Close` sends the bytes as they are.
    Runs(Body, Framing),
    /// Was sent.
    Done,
    /// Could not be sent; the answer may still come.
    Broken,
}

/// One exchange with the target.
struct Call {
    connection: Connection,
    out: Output,
    body: Upload,
    scanner: Scanner,
    method: Method,
    limits: Limits,
}

impl Call {
    /// Sends what there is; pending means only that not all was sent.
    fn poll_upload(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), TargetFailed>> {
        loop {
            while self.out.has_remaining() {
                match ready!(pin!(self.connection.stream.write_buf(&mut self.out)).poll(cx)) {
                    Ok(1..) => {}
                    Ok(0) | Err(_) => {
                        // A target may answer and close before it has read everything.
                        self.body = Upload::Broken;
                        self.out = Output::default();
                    }
                }
            }
            let Upload::Runs(body, framing) = &mut self.body else {
                return pin!(self.connection.stream.flush()).poll(cx).map(|_| Ok(()));
            };
            let framing = *framing;
            match body.poll_frame(cx) {
                Poll::Ready(Some(Ok(Frame::Data(bytes)))) => put_content(&mut self.out, bytes, framing),
                Poll::Ready(Some(Ok(Frame::Trailers(fields)))) => {
                    if framing == Framing::Chunked {
                        let mut text = Vec::new();
                        h1::trailers(&fields, &mut text);
                        self.out.put(&text);
                    }
                    self.body = Upload::Done;
                }
                Poll::Ready(None) => {
                    match framing {
                        Framing::Chunked => self.out.put(h1::LAST_CHUNK),
                        Framing::Close => _ = pin!(self.connection.stream.shutdown()).poll(cx),
                        _ => {}
                    }
                    self.body = Upload::Done;
                }
                Poll::Ready(Some(Err(_))) => return Poll::Ready(Err(TargetFailed::Upload)),
                Poll::Pending => {
                    let _ = pin!(self.connection.stream.flush()).poll(cx);
                    return Poll::Pending;
                }
            }
        }
    }

    /// Sends, and reads until the head of the final answer is there.
    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<(ResponseHead, Framing), TargetFailed>> {
        if let Poll::Ready(Err(failed)) = self.poll_upload(cx) {
            return Poll::Ready(Err(failed));
        }
        loop {
            let scanned = self.scanner.scan(&self.connection.buf, &self.limits);
            if let Some(length) = scanned.map_err(|_| TargetFailed::Malformed)? {
                let raw = self.connection.buf.split_to(length).freeze();
                let (head, framing) =
                    h1::response(raw, self.method, &self.limits).map_err(|_| TargetFailed::Malformed)?;
                match head.status {
                    101 if matches!(self.body, Upload::Held(_)) => {}
                    101 => return Poll::Ready(Err(TargetFailed::Malformed)),
                    100..=199 => continue,
                    _ => {}
                }
                return Poll::Ready(Ok((head, framing)));
            }
            match ready!(self.poll_read(cx)) {
                Ok(1..) => {}
                Ok(0) | Err(_) => return Poll::Ready(Err(TargetFailed::Closed)),
            }
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let Connection { stream, buf } = &mut self.connection;
        if buf.capacity() - buf.len() < LOW {
            buf.reserve(ROOM);
        }
        pin!(stream.read_buf(buf)).poll(cx)
    }
}

fn put_content(out: &mut Output, bytes: Bytes, framing: Framing) {
    if framing != Framing::Chunked {
        return out.put_part(bytes);
    }
    let mut start = Vec::with_capacity(10);
    h1::chunk_start(bytes.len(), &mut start);
    out.put(&start);
    out.put_part(bytes);
    out.put(h1::CHUNK_END);
}

/// The content of an answer.
struct Answer {
    /// Gone when the content is complete.
    call: Option<Call>,
    decoder: Decoder,
    is_kept: bool,
    home: Rc<Shared>,
}

impl Answer {
    /// The content is complete: the connection goes home, if everything was sent and nothing more came.
    fn done(&mut self) {
        let Some(call) = self.call.take() else { return };
        let is_clean = matches!(call.body, Upload::Done) || is_empty(&call.body);
        if self.is_kept && is_clean && !call.out.has_remaining() && call.connection.buf.is_empty() {
            self.home.keep(call.connection);
        }
    }
}

/// Whether there is nothing to send: such a body is never asked for its end.
fn is_empty(upload: &Upload) -> bool {
    matches!(upload, Upload::Runs(body, Framing::None | Framing::Length(0)) if body.is_empty())
}

impl Source for Answer {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        let Some(call) = &mut self.call else { return Poll::Ready(None) };
        if let Poll::Ready(Err(_)) = call.poll_upload(cx) {
            return Poll::Ready(Some(Err(BodyError::Incomplete)));
        }
        loop {
            let found = match self.decoder.decode(&mut call.connection.buf) {
                Ok(Decoded::Data(bytes)) => Some(Ok(Frame::Data(bytes))),
                Ok(Decoded::Trailers(fields)) => Some(Ok(Frame::Trailers(fields))),
                Ok(Decoded::Done) => None,
                Err(_) => Some(Err(BodyError::Malformed)),
                Ok(Decoded::More) => match ready!(call.poll_read(cx)) {
                    Ok(1..) => continue,
                    Ok(0) if self.decoder.eof() => None,
                    Ok(0) | Err(_) => Some(Err(BodyError::Incomplete)),
                },
            };
            if matches!(found, None | Some(Ok(Frame::Trailers(_)))) {
                self.done();
            }
            return Poll::Ready(found);
        }
    }

    fn length(&self) -> Option<u64> {
        self.decoder.left()
    }
}
