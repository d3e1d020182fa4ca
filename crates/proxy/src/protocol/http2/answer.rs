//! Sending an answer on an HTTP/2 stream: the head, the body as far as the client's window goes, trailers.
//!
//! Promise: the body is pulled only while the client takes it; a client that keeps its window shut for the
//! listener's stall timeout loses the stream; an answer that breaks off is reset, never ended;
//! one of gRPC says with which status.

use std::future::poll_fn;
use std::rc::Rc;

use h2::Reason;
use sluice_http::h1::Framing;
use sluice_http::h2::Breach;
use sluice_http::{BodyError, Fields, Method, Response, grpc};

use super::Session;
use super::body::Reply;
use crate::exchange::{Exchange, Outcome};
use crate::failure::Failure;
use crate::h2_push::{Push, Stuck};
use crate::listener::LocalListener;
use crate::protocol;
use crate::world::Patience;

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
    let world = &session.arrival.worker.world;
    let patience = Patience::new(world.timers.deadline(), world.clock);
    let mut push = Push::new(body, stream, None, patience);
    let sent = poll_fn(|cx| push.poll(listener.shared.timeouts.stall, cx)).await;
    exchange.sent = push.sent();
    let Err(stuck) = sent else { return };
    exchange.outcome = Outcome::Failed(match stuck {
        Stuck::Refused => Failure::ClientGone,
        Stuck::Stalled => {
            listener.cells.breached(Breach::StalledWindow);
            Failure::ClientTimeout
        }
        Stuck::Body(_) => Failure::UpstreamIncomplete,
    });
    match stuck {
        // A client that reads gRPC learns the reason; its status is no success, so nothing looks complete.
        Stuck::Body(error) if grpc::is_grpc(&head.fields) => {
            let timed_out = error == BodyError::TimedOut;
            let told = if timed_out { Failure::UpstreamTimeout } else { Failure::UpstreamIncomplete };
            let mut trailers = Fields::default();
            told.tell_grpc(&mut trailers);
            // A client that has left meanwhile needs to be told nothing.
            let _ = push.end_with(&trailers);
        }
        Stuck::Body(_) => push.reset(Reason::INTERNAL_ERROR),
        Stuck::Refused | Stuck::Stalled => push.reset(Reason::CANCEL),
    }
}
