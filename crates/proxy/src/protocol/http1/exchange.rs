//! One exchange on an HTTP/1 connection: head in, pipeline, answer out, facts noted.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;
use std::time::Instant;

use bytes::Bytes;
use sluice_http::h1::{self, Expectation, Framing};
use sluice_http::{Request, RequestHead, Version};

use super::answer::{Ended, Writing};
use super::conn::{Expects, NoHead};
use super::{Next, Session};
use crate::bandwidth;
use crate::exchange::{Exchange, Outcome};
use crate::failure::{Connection, Failure};
use crate::listener::LocalListener;
use crate::observe::access_log::Captured;
use crate::pipeline::problem_answer::{self, Form};
use crate::pipeline::{self, Handled, Place};
use crate::protocol::http2;
use crate::relay::End;
use crate::worker::Running;

/// Runs one exchange and says when it ended. `served` counts the requests of this connection, this one
/// included.
pub(super) async fn run(
    session: &Session,
    listener: &Rc<LocalListener>,
    running: Rc<Running>,
    served: u32,
) -> (Next, Instant) {
    let started = session.arrival.worker.world.clock.now();
    let shared = &listener.shared;
    let head = match session.conn.head(&shared.limits, started, shared.timeouts.head).await {
        Ok(head) => head,
        Err(NoHead::NotYet) => return (Next::Wait, started),
        Err(NoHead::Gone) => return (Next::Gone, started),
        Err(NoHead::TimedOut) => {
            return Box::pin(refuse(session, listener, &running, started, Failure::ClientTimeout)).await;
        }
        Err(NoHead::Refused(refusal)) => {
            listener.cells.refused(refusal);
            return Box::pin(refuse(session, listener, &running, started, Failure::refused_request(refusal)))
                .await;
        }
    };
    if served == 1 && *head == *http2::PREFACE_HEAD {
        session.conn.unread(&head);
        return (Next::Http2, started);
    }
    let (head, framing) = match parse(head, listener) {
        Ok(parsed) => parsed,
        Err(failure) => return Box::pin(refuse(session, listener, &running, started, failure)).await,
    };
    let mut exchange = session.arrival.begin(listener, started, Some(&head));
    let allowed = admit(session, listener, &head, framing);
    let body = session.conn.body(framing, &shared.limits, shared.body_limit, shared.timeouts.stall);
    let mut request = Request { head, body };
    let mut captured = Captured::default();
    if let Some(log) = &running.log {
        log.borrow().capture(&request.head, &mut captured);
    }
    let mut writing = Writing::new(session, listener, served, &request.head);
    let next = match allowed {
        Ok(()) => respond(session, listener, &running, (&mut exchange, &mut request, &mut writing)).await,
        Err(failure) => Box::pin(writing.fail(&mut exchange, &request.head, failure)).await,
    };
    exchange.received += session.conn.received();
    if let Some(refusal) = session.conn.body_refusal() {
        listener.cells.refused(refusal);
    }
    let ended = pipeline::finish::note(&session.arrival.worker, &running, listener, &mut exchange, &captured);
    (next, ended)
}

fn parse(head: Bytes, listener: &LocalListener) -> Result<(RequestHead, Framing), Failure> {
    h1::request(head, &listener.shared.limits).map_err(|refusal| {
        listener.cells.refused(refusal);
        Failure::refused_request(refusal)
    })
}

/// What can be refused by the head alone.
fn admit(
    session: &Session,
    listener: &LocalListener,
    head: &RequestHead,
    framing: Framing,
) -> Result<(), Failure> {
    let expectation = h1::expects_continue(head);
    session.conn.set_expects(match expectation {
        Expectation::None => Expects::Nothing,
        _ if framing == Framing::None => Expects::Nothing,
        // With what is unknown too it is for the client to say whether the body comes.
        Expectation::Continue | Expectation::Unknown => Expects::Continue,
    });
    if expectation == Expectation::Unknown {
        return Err(Failure::ExpectationFailed);
    }
    match framing {
        Framing::Length(length) if length > listener.shared.body_limit => Err(Failure::BodyTooLarge),
        _ => Ok(()),
    }
}

/// Makes the answer while watching the client, then sends it.
async fn respond(
    session: &Session,
    listener: &Rc<LocalListener>,
    running: &Rc<Running>,
    (exchange, request, writing): (&mut Exchange, &mut Request, &mut Writing<'_>),
) -> Next {
    let knows_interims = request.head.version != Version::Http10;
    let interim = |head| {
        if knows_interims {
            session.conn.interim(head);
        }
    };
    let place = Place { worker: &session.arrival.worker, running, listener, interim: &interim };
    let handled = {
        // Pinned where it was made: a future of this size is not moved about.
        let handle = pin!(pipeline::handle(&place, exchange, request));
        watch(session, listener, handle).await
    };
    let handled = match handled {
        Ok(handled) => handled,
        Err(failure) if failure == Failure::ClientGone => {
            exchange.outcome = Outcome::Failed(failure);
            exchange.status = failure.row().status;
            return Next::Gone;
        }
        Err(failure) => return Box::pin(writing.fail(exchange, &request.head, failure)).await,
    };
    match handled {
        Handled::Response(response) => writing.response(exchange, response).await,
        Handled::Switched(head, endpoint) => {
            if writing.switch(exchange, &head).await == Ended::Sent {
                Box::pin(tunnel(session, listener, exchange, endpoint)).await;
            }
            Next::Gone
        }
        Handled::Lasting(head, mut lasting) => match writing.switch(exchange, &head).await {
            Ended::Sent => {
                lasting.throttle = exchange.throttle.take();
                Next::Tunnel(lasting)
            }
            Ended::Lost => Next::Gone,
        },
    }
}

/// What follows the switch of protocols: bytes both ways. They count as the bodies of the exchange.
async fn tunnel(
    session: &Session,
    listener: &LocalListener,
    exchange: &mut Exchange,
    mut endpoint: Box<dyn End>,
) {
    let idle = listener.shared.timeouts.idle;
    let mut client = Rc::clone(&session.conn);
    let world = &session.arrival.worker.world;
    let relayed =
        bandwidth::relay((&mut client, &mut *endpoint), exchange.throttle.as_deref(), (idle, world)).await;
    (exchange.received, exchange.sent) = (relayed.up, relayed.down);
}

/// Drives `handle` to its end while sending interim responses and noticing that the client leaves or that
/// the listener's time for an exchange is over.
async fn watch(
    session: &Session,
    listener: &LocalListener,
    mut handle: Pin<&mut impl Future<Output = Handled>>,
) -> Result<Handled, Failure> {
    let total = listener.shared.timeouts.total.map(|limit| {
        let deadline = session.arrival.worker.world.timers.deadline();
        deadline.set(session.arrival.worker.world.clock.now(), limit);
        deadline
    });
    let mut handled = None;
    poll_fn(|cx| {
        if handled.is_none()
            && let Poll::Ready(done) = handle.as_mut().poll(cx)
        {
            handled = Some(done);
        }
        match session.conn.poll_interims(listener.shared.timeouts.stall, cx) {
            Poll::Ready(Err(_)) => return Poll::Ready(Err(Failure::ClientGone)),
            // The answer must not overtake its interim responses.
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Ok(())) => {}
        }
        if let Some(handled) = handled.take() {
            return Poll::Ready(Ok(handled));
        }
        if session.conn.poll_gone(cx).is_ready() {
            return Poll::Ready(Err(Failure::ClientGone));
        }
        match &total {
            Some(deadline) if deadline.poll_passed(cx) => Poll::Ready(Err(Failure::ExchangeTimeout)),
            _ => Poll::Pending,
        }
    })
    .await
}

/// Answers a request that was refused before it was understood.
async fn refuse(
    session: &Session,
    listener: &Rc<LocalListener>,
    running: &Rc<Running>,
    started: Instant,
    failure: Failure,
) -> (Next, Instant) {
    debug_assert!(failure.row().connection == Connection::Close);
    let mut exchange = session.arrival.begin(listener, started, None);
    exchange.outcome = Outcome::Failed(failure);
    let response = problem_answer::answer(failure, &exchange, Form::default());
    let next = Writing::closing(session, listener).response(&mut exchange, response).await;
    let ended = pipeline::finish::note(
        &session.arrival.worker,
        running,
        listener,
        &mut exchange,
        &Captured::default(),
    );
    (next, ended)
}
