//! What became of an attempt, for those who judge its endpoint: latency, ejection, breaker.
//!
//! Promise: every attempt is noted exactly once, also when the exchange is abandoned. An answer of gRPC is
//! judged by its grpc-status: in the head, or in the trailers when no message came before them. With the first
//! message the call counts as answered, whatever becomes of it. A probe of a breaker is never put off.

use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use sluice_http::{Body, BodyError, Fields, Frame, NameId, ResponseHead, Source, grpc};
use sluice_traffic::breaker::Admission;

use super::Scene;
use crate::failure::Side;
use crate::upstream::pick::Came;
use crate::upstream::send::{Answer, Lost};
use crate::upstream::{Events, Local};
use crate::world::World;

/// Notes an attempt's end at its endpoint exactly once.
pub(super) struct Recorder {
    world: Rc<World>,
    events: Rc<dyn Events>,
    local: Rc<Local>,
    index: usize,
    admission: Option<Admission>,
    /// Whose time DEADLINE_EXCEEDED speaks of.
    patience: Patience,
    done: bool,
}

/// Who said how long a call may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Patience {
    /// The client: that it ran out says nothing about the endpoint.
    Clients,
    /// Nobody, or the endpoint.
    Endpoints,
}

impl Recorder {
    /// For an attempt at the endpoint `index`.
    pub(super) fn new(
        scene: &Scene<'_>,
        local: &Rc<Local>,
        (index, admission): (usize, Option<Admission>),
        patience: Patience,
    ) -> Recorder {
        let (world, events, local) = (Rc::clone(scene.world), Rc::clone(scene.events), Rc::clone(local));
        Recorder { world, events, local, index, admission, patience, done: false }
    }

    /// Notes what came of it, now or when the trailers tell.
    pub(super) fn note(
        mut self,
        result: Result<Answer, Lost>,
        started: Instant,
        ended: Instant,
    ) -> Result<Answer, Lost> {
        let latency = ended.saturating_duration_since(started);
        let failed = result.as_ref().map(drop).map_err(|lost| lost.failure);
        self.local.endpoint_cells[self.index].attempted(failed);
        if result.is_ok() {
            self.local.cells.latency(latency);
        }
        let came = match &result {
            Ok(Answer::Response(head, _)) => self.judge(head),
            Ok(Answer::Switched(..)) => Some(Came::Answer),
            Err(lost) if lost.failure.row().side == Side::Upstream => Some(Came::Failure),
            Err(_) => Some(Came::Nothing),
        };
        match (came, result) {
            (None, Ok(Answer::Response(head, Body::Stream(source)))) => {
                let judged = Judged { source, recorder: Some(self), latency };
                Ok(Answer::Response(head, Body::Stream(Box::new(judged))))
            }
            (came, result) => {
                self.record(came.unwrap_or(Came::Answer), result.is_ok().then_some(latency), ended);
                result
            }
        }
    }

    /// What an answer's head says of the attempt; `None` when the trailers may say more.
    fn judge(&self, head: &ResponseHead) -> Option<Came> {
        if head.status >= 500 {
            return Some(Came::ServerError);
        }
        if !grpc::is_grpc(&head.fields) {
            return Some(Came::Answer);
        }
        match self.call(&head.fields) {
            None if !matches!(self.admission, Some(Admission::Probe(_))) => None,
            came => Some(came.unwrap_or(Came::Answer)),
        }
    }

    /// What grpc-status says, when it is there.
    fn call(&self, fields: &Fields) -> Option<Came> {
        let status = fields.get(NameId::GrpcStatus)?;
        let clients = status == grpc::DEADLINE_EXCEEDED && self.patience == Patience::Clients;
        Some(match grpc::is_server_error(status) && !clients {
            true => Came::ServerError,
            false => Came::Answer,
        })
    }

    fn record(&mut self, came: Came, latency: Option<Duration>, now: Instant) {
        self.done = true;
        let now = self.world.clock.moment(now);
        if let Some(change) = self.local.record(self.index, self.admission, came, (now, latency)) {
            self.events.breaker_changed(&self.local.shared, self.index, change);
        }
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        if !self.done {
            self.record(Came::Nothing, None, self.world.clock.now());
        }
    }
}

/// The body of an answer of gRPC whose status is still to come.
struct Judged {
    source: Box<dyn Source>,
    recorder: Option<Recorder>,
    latency: Duration,
}

impl Source for Judged {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        let frame = ready!(self.source.poll_frame(cx));
        if let Some(mut recorder) = self.recorder.take() {
            let came = match &frame {
                Some(Ok(Frame::Trailers(fields))) => recorder.call(fields).unwrap_or(Came::Answer),
                Some(Err(BodyError::Incomplete | BodyError::Malformed)) => Came::Failure,
                _ => Came::Answer,
            };
            recorder.record(came, Some(self.latency), recorder.world.clock.now());
        }
        Poll::Ready(frame)
    }

    fn length(&self) -> Option<u64> {
        self.source.length()
    }
}
