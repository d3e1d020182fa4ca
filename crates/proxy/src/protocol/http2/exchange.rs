//! One exchange on an HTTP/2 stream: head in, pipeline, answer out, facts noted.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;
use std::time::Instant;

use base64::Engine as _;
use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use sluice_http::h1::{Framing, Refusal};
use sluice_http::h2::Breach;
use sluice_http::{Body, Method, NameId, Request, RequestHead, ResponseHead};

use super::body::{Received, Reply, Terms, body};
use super::{Session, answer};
use crate::bandwidth;
use crate::exchange::{Exchange, Outcome, TargetForm};
use crate::failure::Failure;
use crate::h2_message;
use crate::h2_stream::StreamEnd;
use crate::listener::LocalListener;
use crate::observe::access_log::Captured;
use crate::pipeline::problem_answer::{self, Form};
use crate::pipeline::{self, Handled, Place};
use crate::relay::End;
use crate::worker::Running;

/// Runs the exchange whose head came at `started`. What the frame layer gave is read at once, so that the future
/// has no room for it.
pub(super) fn run<'a>(
    (session, listener): (&'a Session, &'a Rc<LocalListener>),
    started: Instant,
    request: http::Request<RecvStream>,
    respond: SendResponse<Bytes>,
) -> impl Future<Output = ()> + 'a {
    let worker = &session.arrival.worker;
    let running = worker.running();
    let (parts, stream) = request.into_parts();
    let extended = parts.extensions.get::<h2::ext::Protocol>().is_some();
    let (head, refused) = match read_head(&parts, listener) {
        Ok(head) => (head, None),
        Err(failure) => (RequestHead::new("GET", "/"), Some(failure)),
    };
    let known = if refused.is_none() { Some(&head) } else { None };
    let mut exchange = session.arrival.begin(listener, started, known);
    if parts.uri.scheme_str() == Some("https") {
        exchange.form = TargetForm::Https;
    }
    let reply = Reply::new(respond, head.fields.contains(NameId::Expect));
    let received = Rc::new(Received::default());
    let mut captured = Captured::default();
    let tunnelled = extended || head.method == Method::Connect;
    let (mut request, stream) = match tunnelled {
        // What follows is a tunnel's bytes, not a body.
        true => (Request { head, body: Body::Empty }, Some(stream)),
        false => {
            let body = arriving(session, listener, stream, (&head, &reply, &received));
            (Request { head, body }, None)
        }
    };
    if extended {
        add_key(session, &mut request.head);
    }
    if let Some(log) = &running.log {
        log.borrow().capture(&request.head, &mut captured);
    }
    async move {
        let setting = Setting { session, listener, running: &running, reply: &reply };
        match refused {
            Some(failure) => setting.fail(&mut exchange, &request.head, failure).await,
            None => setting.respond(&mut exchange, &mut request, stream).await,
        }
        exchange.received += received.bytes();
        pipeline::finish::note(worker, &running, listener, &mut exchange, &captured);
    }
}

/// Turns the head into ours, and refuses what HTTP/1 would be refused for.
fn read_head(parts: &http::request::Parts, listener: &LocalListener) -> Result<RequestHead, Failure> {
    let count = parts.headers.len();
    if count > listener.shared.limits.fields {
        listener.cells.refused(Refusal::TooManyFields);
        return Err(Failure::HeadTooLarge);
    }
    let head = h2_message::request_head(parts).map_err(|refusal| {
        listener.cells.refused(refusal);
        listener.cells.breached(Breach::Fields);
        Failure::refused_request(refusal)
    })?;
    let length = head.fields.get_str(NameId::ContentLength).and_then(|text| text.parse::<u64>().ok());
    match length {
        Some(length) if length > listener.shared.body_limit => Err(Failure::BodyTooLarge),
        _ => Ok(head),
    }
}

/// An extended CONNECT for a WebSocket has no key (RFC 8441 section 5); an endpoint that speaks HTTP/1 needs
/// one.
fn add_key(session: &Session, head: &mut RequestHead) {
    let websocket =
        head.fields.get(NameId::Upgrade).is_some_and(|name| name.eq_ignore_ascii_case(b"websocket"));
    if websocket {
        let (high, low) = session.arrival.worker.world.random(|rng| (rng.next(), rng.next()));
        let bytes = ((u128::from(high) << 64) | u128::from(low)).to_be_bytes();
        let key = base64::engine::general_purpose::STANDARD.encode(bytes);
        head.fields.set(NameId::SecWebSocketKey, key.as_bytes());
    }
}

fn arriving(
    session: &Session,
    listener: &LocalListener,
    stream: RecvStream,
    (head, reply, received): (&RequestHead, &Rc<Reply>, &Rc<Received>),
) -> Body {
    let length = head.fields.get_str(NameId::ContentLength).and_then(|text| text.parse().ok());
    let world = &session.arrival.worker.world;
    let terms = Terms {
        limit: listener.shared.body_limit,
        stall: listener.shared.timeouts.stall,
        deadline: world.timers.deadline(),
        clock: world.clock,
    };
    body(stream, length, (reply, received), terms)
}

/// Where one exchange takes place.
struct Setting<'a> {
    session: &'a Session,
    listener: &'a Rc<LocalListener>,
    running: &'a Rc<Running>,
    reply: &'a Rc<Reply>,
}

impl Setting<'_> {
    /// Makes the answer while watching the client, then sends it.
    async fn respond(&self, exchange: &mut Exchange, request: &mut Request, stream: Option<RecvStream>) {
        let interim = |head: ResponseHead| self.reply.interim(&head);
        let worker = &self.session.arrival.worker;
        let place = Place { worker, running: self.running, listener: self.listener, interim: &interim };
        let handled = {
            let handle = pin!(pipeline::handle(&place, exchange, request));
            self.watch(handle).await
        };
        match handled {
            Ok(Handled::Response(response)) => {
                let to = (&**self.reply, request.head.method);
                answer::send((self.session, self.listener), to, exchange, response).await;
            }
            Ok(Handled::Switched(head, endpoint)) => self.tunnel(exchange, stream, head, endpoint).await,
            // Nobody can ask for it over HTTP/2.
            Ok(Handled::Lasting(..)) => self.fail(exchange, &request.head, Failure::Internal).await,
            Err(Failure::ClientGone) => {
                exchange.outcome = Outcome::Failed(Failure::ClientGone);
                exchange.status = Failure::ClientGone.row().status;
            }
            Err(failure) => self.fail(exchange, &request.head, failure).await,
        }
    }

    /// Drives `handle` to its end while noticing that the client gives the stream up or that the listener's
    /// time for an exchange is over.
    async fn watch(&self, mut handle: Pin<&mut impl Future<Output = Handled>>) -> Result<Handled, Failure> {
        let world = &self.session.arrival.worker.world;
        let total = self.listener.shared.timeouts.total.map(|limit| {
            let deadline = world.timers.deadline();
            deadline.set(world.clock.now(), limit);
            deadline
        });
        poll_fn(|cx| {
            if let Poll::Ready(handled) = handle.as_mut().poll(cx) {
                return Poll::Ready(Ok(handled));
            }
            if self.reply.poll_gone(cx).is_ready() {
                return Poll::Ready(Err(Failure::ClientGone));
            }
            match &total {
                Some(deadline) if deadline.poll_passed(cx) => Poll::Ready(Err(Failure::ExchangeTimeout)),
                _ => Poll::Pending,
            }
        })
        .await
    }

    /// Answers with a failure.
    async fn fail(&self, exchange: &mut Exchange, head: &RequestHead, failure: Failure) {
        exchange.outcome = Outcome::Failed(failure);
        let response = problem_answer::answer(failure, exchange, Form::of(head));
        let to = (&**self.reply, head.method);
        answer::send((self.session, self.listener), to, exchange, response).await;
    }

    /// The endpoint switched protocols, or the way to a destination is open: bytes both ways from here on.
    async fn tunnel(
        &self,
        exchange: &mut Exchange,
        stream: Option<RecvStream>,
        head: ResponseHead,
        mut endpoint: Box<dyn End>,
    ) {
        let Some(receive) = stream else {
            // Nobody asked for it on this stream: only a CONNECT can become a tunnel.
            exchange.outcome = Outcome::Failed(Failure::UpgradeRefused);
            return self.reply.reset(Reason::INTERNAL_ERROR);
        };
        exchange.status = 200;
        let Ok(send) = self.reply.head(&head, Framing::None, false) else {
            exchange.outcome = Outcome::Failed(Failure::ClientGone);
            return;
        };
        let mut client = StreamEnd::new(send, receive);
        let idle = self.listener.shared.timeouts.idle;
        let world = &self.session.arrival.worker.world;
        let relayed =
            bandwidth::relay((&mut client, &mut *endpoint), exchange.throttle.as_deref(), (idle, world))
                .await;
        (exchange.received, exchange.sent) = (relayed.up, relayed.down);
    }
}
