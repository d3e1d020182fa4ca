//! A target that speaks HTTP/2, on the `h2` crate as the gateway's upstreams are.
//!
//! Promise: requests share connections, as many on each as the target allows; neither side sends more than the
//! other takes, and an upload goes on whether or not its answer is being read; giving up a request resets its
//! stream alone; a request is sent again only when the target has not looked at it, or it may be repeated.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{Reason, RecvStream, SendStream};
use sluice_http::h1::{self, Framing, Persist};
use sluice_http::{Body, BodyError, Frame, NameId, Request, Response, Source, grpc};
use sluice_proxy::facts::Scheme;
use sluice_proxy::failure::Failure;
use sluice_proxy::h2_push::{Push, Stuck};
use sluice_proxy::tls::Offer;
use sluice_proxy::upstream::http2::{Policy, handshake};
use sluice_proxy::world::{Patience, World};
use sluice_proxy::{h2_message, websocket};
use sluice_tunnel::connector::{Address, LocalFuture, Security, Stream, Target, TargetFailed};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::connect::dial::Dialler;

/// To connect and to learn what the target allows.
const CONNECT: Duration = Duration::from_secs(5);
/// A connection without requests is used again within this time.
const IDLE: Duration = Duration::from_secs(60);
/// Nobody but the client says how long a target may take nothing of an upload.
const EVER: Duration = Duration::from_secs(86_400 * 365);

/// A service that speaks HTTP/2 at one address.
pub(super) struct Http2(Rc<Shared>);

struct Shared {
    address: Address,
    dialler: Dialler,
    offer: Offer,
    world: Rc<World>,
    connections: RefCell<Vec<Rc<Connection>>>,
    /// Held while a connection is opened: requests that come together share it, and its failure.
    opening: tokio::sync::Mutex<()>,
    /// Connections that were tried, and how the last one failed, if it did.
    tried: Cell<(u64, Option<TargetFailed>)>,
}

struct Connection {
    requests: RefCell<SendRequest<Bytes>>,
    /// Requests on it.
    open: Cell<usize>,
    /// Since when there is none.
    since: Cell<Instant>,
    /// Whether it has carried one already.
    is_used: Cell<bool>,
}

/// Why there is no place for a request.
pub(super) enum NoPlace {
    /// There is no connection.
    Failed(TargetFailed),
    /// This one speaks HTTP/1.1: both were offered.
    Http1(Box<dyn Stream>),
}

impl From<TargetFailed> for NoPlace {
    fn from(failed: TargetFailed) -> NoPlace {
        NoPlace::Failed(failed)
    }
}

/// A place for a request on a connection.
pub(super) struct Slot {
    connection: Rc<Connection>,
    /// Whether another request was on it before.
    is_used: bool,
}

impl Slot {
    fn on(connection: &Rc<Connection>) -> Slot {
        connection.open.set(connection.open.get() + 1);
        Slot { connection: Rc::clone(connection), is_used: connection.is_used.replace(true) }
    }

    /// Whether the target changes protocols (RFC 8441).
    pub(super) fn takes_connect(&self) -> bool {
        self.connection.requests.borrow().is_extended_connect_protocol_enabled()
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.connection.open.set(self.connection.open.get().saturating_sub(1));
        self.connection.since.set(Instant::now());
    }
}

impl Connection {
    fn is_usable(&self) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        let is_ready = matches!(self.requests.borrow_mut().poll_ready(&mut cx), Poll::Ready(Ok(())));
        is_ready && (self.open.get() > 0 || self.since.get().elapsed() < IDLE)
    }

    fn has_room(&self) -> bool {
        let most = Policy::default().max_streams;
        self.open.get() < most.min(self.requests.borrow().current_max_send_streams())
    }
}

impl Http2 {
    /// The service at this address; `offer` is what TLS offers it.
    pub(super) fn new(address: Address, dialler: Dialler, offer: Offer, world: Rc<World>) -> Http2 {
        let (connections, opening, tried) = Default::default();
        Http2(Rc::new(Shared { address, dialler, offer, world, connections, opening, tried }))
    }

    /// A place on a connection, which is opened when none has room.
    pub(super) async fn place(&self) -> Result<Slot, NoPlace> {
        self.0.place().await
    }

    /// Sends a request and waits for the head of its answer.
    pub(super) async fn exchange(&self, slot: Slot, request: Request) -> Result<Response, TargetFailed> {
        self.0.exchange(slot, request).await
    }
}

impl Target for Http2 {
    fn call(&self, request: Request) -> LocalFuture<Result<Response, TargetFailed>> {
        let shared = Rc::clone(&self.0);
        Box::pin(async move {
            let slot = shared.some_place().await?;
            shared.exchange(slot, request).await
        })
    }
}

impl Shared {
    async fn place(&self) -> Result<Slot, NoPlace> {
        if let Some(slot) = self.free() {
            return Ok(slot);
        }
        let (before, _) = self.tried.get();
        let _opening = self.opening.lock().await;
        if let Some(slot) = self.free() {
            return Ok(slot);
        }
        if let (tried, Some(failed)) = self.tried.get()
            && tried > before
        {
            return Err(failed.into());
        }
        let opened = tokio::time::timeout(CONNECT, self.open()).await;
        let opened = opened.unwrap_or(Err(TargetFailed::TimedOut.into()));
        let failed = if let Err(NoPlace::Failed(failed)) = &opened { Some(*failed) } else { None };
        self.tried.set((self.tried.get().0.wrapping_add(1), failed));
        opened
    }

    /// A place where nothing but HTTP/2 was offered.
    async fn some_place(&self) -> Result<Slot, TargetFailed> {
        self.place().await.map_err(|why| match why {
            NoPlace::Failed(failed) => failed,
            NoPlace::Http1(_) => TargetFailed::Malformed,
        })
    }

    fn free(&self) -> Option<Slot> {
        let mut connections = self.connections.borrow_mut();
        connections.retain(|connection| connection.is_usable());
        connections.iter().find(|connection| connection.has_room()).map(Slot::on)
    }

    async fn open(&self) -> Result<Slot, NoPlace> {
        let reached = self.dialler.reach(&self.address, self.offer).await;
        let reached = reached.map_err(|_| TargetFailed::Unreachable)?;
        if self.offer == Offer::Both && !reached.agreed_http2 {
            return Err(NoPlace::Http1(reached.stream));
        }
        let (requests, frames) =
            handshake(reached.stream, &Policy::default()).await.map_err(|failure| match failure {
                Failure::UpstreamInvalid => TargetFailed::Malformed,
                _ => TargetFailed::Closed,
            })?;
        // Ends by itself once nobody holds the other half, and nothing is on it.
        drop(tokio::task::spawn_local(async move { _ = frames.await }));
        let connection = Rc::new(Connection {
            requests: RefCell::new(requests),
            open: Cell::new(0),
            since: Cell::new(Instant::now()),
            is_used: Cell::new(false),
        });
        self.connections.borrow_mut().push(Rc::clone(&connection));
        Ok(Slot::on(&connection))
    }

    async fn exchange(&self, slot: Slot, mut request: Request) -> Result<Response, TargetFailed> {
        // The tunnel does not carry this field, and servers of gRPC may insist on it.
        if grpc::is_grpc(&request.head.fields) {
            request.head.fields.set(NameId::Te, b"trailers");
        }
        match self.attempt(slot, &mut request).await {
            Err(lost) if lost.is_repeatable => {
                let slot = self.some_place().await?;
                self.attempt(slot, &mut request).await.map_err(|lost| lost.failed)
            }
            answer => answer.map_err(|lost| lost.failed),
        }
    }

    /// One attempt. When it can be repeated, the request is whole again.
    async fn attempt(&self, slot: Slot, request: &mut Request) -> Result<Response, Lost> {
        let is_upgrade = h1::upgrade(&request.head.fields).is_some();
        if is_upgrade && !slot.takes_connect() {
            return Err(Lost::of(TargetFailed::NoForm));
        }
        let persist = if is_upgrade { Persist::Upgrade } else { Persist::KeepAlive };
        let (framing, is_bare) = (framing_of(request), request.body.is_empty());
        let scheme = if self.address.security == Security::Tls { Scheme::Https } else { Scheme::Http };
        let to = (scheme, &*self.address.authority());
        let message = h2_message::http_request(&request.head, (framing, persist), to)
            .ok_or(Lost::of(TargetFailed::NoForm))?;
        // A handle of its own: the crate would make the next request wait for one that it holds back.
        let mut requests = slot.connection.requests.borrow().clone();
        let begun = requests.send_request(message, is_bare && !is_upgrade);
        let (mut response, stream) =
            begun.map_err(|_| Lost { failed: TargetFailed::Closed, is_repeatable: true })?;
        let body = std::mem::take(&mut request.body);
        // The content of a request that changes the protocol waits until that has happened.
        let (now, later) = if is_upgrade { (Body::Empty, body) } else { (body, Body::Empty) };
        let owed = if let Framing::Length(length) = framing { Some(length) } else { None };
        let mut upload = self.push(now, stream, owed);
        let answered = poll_fn(|cx| poll_head(&mut response, &mut upload, cx)).await;
        match answered {
            Ok(response) => self.answer(response, (upload, later), &request.head, slot),
            Err(mut lost) => {
                let may_repeat = request.head.method.is_idempotent() && slot.is_used;
                lost.is_repeatable |= lost.failed == TargetFailed::Closed && may_repeat;
                request.body = if is_upgrade { later } else { upload.into_untouched().unwrap_or_default() };
                lost.is_repeatable &= is_bare || !request.body.is_empty();
                Err(lost)
            }
        }
    }

    fn push(&self, body: Body, stream: SendStream<Bytes>, owed: Option<u64>) -> Push {
        Push::new(body, stream, owed, Patience::new(self.world.timers.deadline(), self.world.clock))
    }

    /// The answer whose head came; what is left of the request goes on beside it.
    fn answer(
        &self,
        response: http::Response<RecvStream>,
        (mut upload, later): (Push, Body),
        asked: &sluice_http::RequestHead,
        slot: Slot,
    ) -> Result<Response, Lost> {
        let (parts, stream) = response.into_parts();
        let head = h2_message::response_head(&parts).map_err(|_| Lost::of(TargetFailed::Malformed))?;
        let is_switched = h1::upgrade(&asked.fields).is_some() && (200..300).contains(&head.status);
        if !is_switched && stream.is_end_stream() {
            return Ok(Response { head, body: Body::Empty });
        }
        let head = if is_switched { websocket::switched(head, asked) } else { head };
        if is_switched {
            upload = self.push(later, upload.into_stream(), None);
        }
        let sending = tokio::task::spawn_local(async move {
            let sent = poll_fn(|cx| upload.poll(EVER, cx)).await;
            if let Err(Stuck::Body(_)) = sent {
                upload.reset(Reason::CANCEL);
            }
        });
        let line = Line { _slot: slot, sending: sending.abort_handle() };
        let length = head.fields.get_str(NameId::ContentLength).and_then(|length| length.parse().ok());
        let reply = Reply { stream, length, held: 0, line: Some(line), failed: None };
        Ok(Response { head, body: Body::Stream(Box::new(reply)) })
    }
}

fn framing_of(request: &Request) -> Framing {
    match request.body.length() {
        Some(0) if !request.head.fields.contains(NameId::ContentLength) => Framing::None,
        Some(length) => Framing::Length(length),
        None => Framing::Chunked,
    }
}

/// An attempt without an answer.
struct Lost {
    failed: TargetFailed,
    /// The target has not looked at the request.
    is_repeatable: bool,
}

impl Lost {
    fn of(failed: TargetFailed) -> Lost {
        Lost { failed, is_repeatable: false }
    }
}

/// Goes on sending until the head of the answer is here.
fn poll_head(
    response: &mut ResponseFuture,
    upload: &mut Push,
    cx: &mut Context<'_>,
) -> Poll<Result<http::Response<RecvStream>, Lost>> {
    match upload.poll(EVER, cx) {
        Poll::Ready(Err(Stuck::Body(_))) => {
            upload.reset(Reason::CANCEL);
            return Poll::Ready(Err(Lost::of(TargetFailed::Upload)));
        }
        // Why it takes no more it says in its answer.
        Poll::Ready(Err(_)) => upload.give_up(),
        Poll::Ready(Ok(())) | Poll::Pending => {}
    }
    std::pin::Pin::new(response).poll(cx).map_err(|error| lost(&error))
}

/// A target that refuses a stream, or goes away before it, has not looked at it (RFC 9113 section 8.7).
fn lost(error: &h2::Error) -> Lost {
    let is_refused = error.is_reset() && error.reason() == Some(Reason::REFUSED_STREAM);
    match error.is_library() {
        true => Lost::of(TargetFailed::Malformed),
        false => Lost { failed: TargetFailed::Closed, is_repeatable: is_refused || error.is_go_away() },
    }
}

/// What an exchange holds until it ends.
struct Line {
    _slot: Slot,
    sending: AbortHandle,
}

impl Drop for Line {
    fn drop(&mut self) {
        self.sending.abort();
    }
}

/// The content of an answer.
struct Reply {
    stream: RecvStream,
    /// Content still to come, when Content-Length says how much.
    length: Option<u64>,
    /// Bytes given out whose window has not been given back: they may still be on their way.
    held: usize,
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
            Ok(trailers) => trailers.map(|map| h2_message::trailer_fields(&map)).transpose(),
            Err(error) => return Poll::Ready(self.ended(&error)),
        };
        Poll::Ready(trailers.map(|fields| fields.map(Frame::Trailers)).map_err(|_| BodyError::Malformed))
    }

    /// A target that has answered completely may ask us to stop sending (RFC 9113 section 8.1): that is no failure
    /// of its answer.
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
