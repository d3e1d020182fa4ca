//! One exchange with an endpoint: the request out, the answer's head in, and the rest of both bodies while
//! the answer is pulled; over HTTP/1 (`http1`), HTTP/2 (`http2`) or through a tunnel (`tunnel`).
//!
//! Promise: the answer is read while the request is still being sent (an endpoint may answer early); it is
//! known whether any byte of the request could have reached the endpoint.

mod http1;
mod http2;
mod tunnel;

use std::rc::Rc;
use std::time::{Duration, Instant};

use sluice_http::h1::{Framing, Limits, Persist, Refusal};
use sluice_http::{Body, BodyError, Method, Request, ResponseHead};
use sluice_traffic::retry::Sent;

use super::config::Timeouts;
use super::connection::Pool;
use super::live::InFlight;
use super::reach::Way;
use crate::failure::Failure;
use crate::observe::metrics::UpstreamCells;
use crate::relay::End;
use crate::world::{Clock, Deadline, Timers};

/// What one exchange needs beside its request.
pub struct Terms<'a> {
    /// How long things may take.
    pub timeouts: Timeouts,
    /// How much of an answer's head is accepted.
    pub limits: Limits,
    /// The end of the attempt, when it has one: the wait for the answer, or the answer's body, fails then.
    pub total: Option<Rc<Deadline>>,
    /// When the attempt began: the answer's head is expected from then on, if the request needs no waiting.
    pub now: Instant,
    /// The end that the client gave the answer's body (grpc-timeout), when that comes before `total`.
    pub until: Option<Rc<Deadline>>,
    /// Clocks.
    pub clock: Clock,
    /// Deadlines.
    pub timers: &'a Rc<Timers>,
    /// What stands in for a Host that is not there: the endpoint's address.
    pub address: &'a str,
    /// Where the connection goes afterwards.
    pub pool: &'a Rc<Pool>,
    /// Takes 1xx heads other than 101 that the endpoint sends before its answer.
    pub interim: &'a dyn Fn(ResponseHead),
    /// Counts what the engine refuses of the endpoint.
    pub cells: &'a UpstreamCells,
}

impl Terms<'_> {
    /// The end of the answer's body.
    fn body_end(&self) -> Option<&Rc<Deadline>> {
        self.until.as_ref().or(self.total.as_ref())
    }
}

/// What an endpoint gave.
pub enum Answer {
    /// A response.
    Response(ResponseHead, Body),
    /// It switched protocols: what follows the 101 belongs to the tunnel.
    Switched(ResponseHead, Box<dyn End>),
}

/// An attempt that gave no answer.
#[derive(Clone, Copy, Debug)]
pub struct Lost {
    /// How it failed.
    pub failure: Failure,
    /// Whether the endpoint may have seen the request.
    pub sent: Sent,
    /// What else failed with it.
    pub scope: Scope,
}

impl Lost {
    /// Whether a request lost on a pooled connection may go out once more over a fresh one: the endpoint had
    /// closed it before it read the request, as far as can be told.
    pub fn may_resend(self, request: &Request) -> bool {
        matches!(self.failure, Failure::UpstreamReset | Failure::TunnelLost)
            && self.scope == Scope::Connection
            && (self.sent == Sent::Nothing
                || (request.head.method.is_idempotent() && !matches!(request.body, Body::Stream(_))))
    }
}

/// What an endpoint's answer head may look like: roomier than a client's request.
pub const ANSWER_LIMITS: Limits = Limits { line: 64 * 1024, head: 128 * 1024, fields: 200 };

/// What failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The connection: it may have gone stale unnoticed.
    Connection,
    /// This exchange alone: over another connection it would not fare better.
    Exchange,
}

/// Sends the request and waits for the answer's head. A streamed body is taken out of the request, and put
/// back untouched when the attempt fails before any of it was pulled.
///
/// Cancel-safe in the sense that dropping it abandons the exchange: it closes an HTTP/1 connection, and resets
/// an HTTP/2 stream.
pub async fn exchange(
    way: Way,
    request: &mut Request,
    persist: Persist,
    guard: InFlight,
    terms: &Terms<'_>,
) -> Result<Answer, Lost> {
    match way {
        Way::Http1(connection) => http1::exchange(connection, request, persist, guard, terms).await,
        Way::Tunnel(slot, watch) => {
            Box::pin(tunnel::exchange((slot, watch), request, persist, guard, terms)).await
        }
        Way::Http2(slot) => Box::pin(http2::exchange(slot, request, persist, guard, terms)).await,
    }
}

/// What an attempt sends: a copy of a body that is there, or the stream itself, which only one attempt can have.
fn body_of(request: &mut Request) -> Body {
    match &mut request.body {
        Body::Empty => Body::Empty,
        Body::Full(content) => Body::Full(content.clone()),
        stream => std::mem::take(stream),
    }
}

/// How the request's body is framed towards the endpoint.
fn framing_of(request: &Request) -> Framing {
    match request.body.length() {
        // A request without content has no length, but for the methods that are defined to carry some
        // (RFC 9110 section 8.6: a user agent SHOULD send Content-Length: 0 with them).
        Some(0) if matches!(request.head.method, Method::Post | Method::Put | Method::Patch) => {
            Framing::Length(0)
        }
        Some(0) => Framing::None,
        Some(length) => Framing::Length(length),
        None => Framing::Chunked,
    }
}

/// How long a body is held back for an endpoint that never says 100 Continue.
const CONTINUE_WAIT: Duration = Duration::from_secs(1);

/// An endpoint that sends more interim answers than this has nothing to say; they wait in memory for a client
/// that may not read them.
const MAX_INTERIMS: u32 = 100;

fn invalid(terms: &Terms<'_>, refusal: Refusal) -> Failure {
    terms.cells.refused(refusal);
    Failure::UpstreamInvalid
}

/// What a failing request body means for its exchange.
pub fn client_failure(error: BodyError) -> Failure {
    match error {
        BodyError::Incomplete => Failure::ClientGone,
        BodyError::Malformed => Failure::BodyInvalid,
        BodyError::TimedOut => Failure::ClientTimeout,
        BodyError::TooLarge => Failure::BodyTooLarge,
    }
}
