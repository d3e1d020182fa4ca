//! What an answer says of its endpoint.
//!
//! Promise: an answer of gRPC is judged by its grpc-status: in the head, or in the trailers when no message came
//! before them. With the first message the call counts as answered, whatever becomes of it. A probe of a
//! breaker is never put off.

use std::task::{Context, Poll, ready};
use std::time::Instant;

use sluice_http::{Body, BodyError, Fields, Frame, NameId, ResponseHead, Source, grpc};

use crate::upstream::attempt::{Answered, Attempt};
use crate::upstream::pick::Came;
use crate::upstream::send::{Answer, Lost};

/// Who said how long a call may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Patience {
    /// The client: that it ran out says nothing about the endpoint.
    Clients,
    /// Nobody, or the endpoint.
    Endpoints,
}

/// Notes what came of an attempt, now or when the trailers tell.
pub(super) fn note(
    attempt: Attempt,
    patience: Patience,
    result: Result<Answer, Lost>,
    (started, ended): (Instant, Instant),
) -> Result<Answer, Lost> {
    let latency = ended.saturating_duration_since(started);
    let came = match &result {
        Ok(Answer::Response(head, body)) => match patience.judge(head) {
            None if attempt.is_probe() || !matches!(body, Body::Stream(_)) => Some(Came::Answer),
            came => came,
        },
        Ok(Answer::Switched(..)) => Some(Came::Answer),
        Err(lost) => {
            attempt.note(Err(lost.failure), ended);
            return result;
        }
    };
    match (came, result) {
        (None, Ok(Answer::Response(head, Body::Stream(source)))) => {
            let judged = Judged { source, answered: Some(attempt.answered(latency)), patience };
            Ok(Answer::Response(head, Body::Stream(Box::new(judged))))
        }
        (came, result) => {
            attempt.note(Ok((came.unwrap_or(Came::Answer), latency)), ended);
            result
        }
    }
}

impl Patience {
    /// What an answer's head says; `None` when the trailers may say more.
    fn judge(self, head: &ResponseHead) -> Option<Came> {
        if head.status >= 500 {
            return Some(Came::ServerError);
        }
        if !grpc::is_grpc(&head.fields) {
            return Some(Came::Answer);
        }
        self.call(&head.fields)
    }

    /// What grpc-status says, when it is there.
    fn call(self, fields: &Fields) -> Option<Came> {
        let status = fields.get(NameId::GrpcStatus)?;
        let clients = status == grpc::DEADLINE_EXCEEDED && self == Patience::Clients;
        Some(match grpc::is_server_error(status) && !clients {
            true => Came::ServerError,
            false => Came::Answer,
        })
    }
}

/// The body of an answer of gRPC whose status is still to come.
struct Judged {
    source: Box<dyn Source>,
    answered: Option<Answered>,
    patience: Patience,
}

impl Source for Judged {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        let frame = ready!(self.source.poll_frame(cx));
        if let Some(answered) = self.answered.take() {
            answered.judge_now(match &frame {
                Some(Ok(Frame::Trailers(fields))) => self.patience.call(fields).unwrap_or(Came::Answer),
                Some(Err(BodyError::Incomplete | BodyError::Malformed)) => Came::Failure,
                _ => Came::Answer,
            });
        }
        Poll::Ready(frame)
    }

    fn length(&self) -> Option<u64> {
        self.source.length()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(patience: Patience, fields: &[(NameId, &str)]) -> Option<Came> {
        let mut head = ResponseHead::new(200);
        for (name, value) in fields {
            head.fields.append(*name, value.as_bytes());
        }
        patience.judge(&head)
    }

    #[test]
    fn a_head_of_grpc_is_judged_by_its_status_and_waits_for_one() {
        let grpc = (NameId::ContentType, "application/grpc");
        let status = |status| judged(Patience::Endpoints, &[grpc, (NameId::GrpcStatus, status)]);
        for status_of_server in ["2", "4", "12", "13", "14", "15"] {
            assert_eq!(status(status_of_server), Some(Came::ServerError), "{status_of_server}");
        }
        for other in ["0", "1", "3", "5", "7", "8", "16"] {
            assert_eq!(status(other), Some(Came::Answer), "{other}");
        }
        assert_eq!(judged(Patience::Endpoints, &[grpc]), None);
        assert_eq!(judged(Patience::Endpoints, &[(NameId::GrpcStatus, "14")]), Some(Came::Answer));
    }

    #[test]
    fn a_deadline_that_the_client_set_is_not_the_endpoints_fault() {
        let fields = [(NameId::ContentType, "application/grpc"), (NameId::GrpcStatus, "4")];
        assert_eq!(judged(Patience::Clients, &fields), Some(Came::Answer));
    }
}
