//! Writing an answer to an HTTP/1 client: how it is framed, whether the connection goes on, what is done
//! when its body fails half-way.

use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::Poll;

use sluice_http::h1::{self, Framing, Persist};
use sluice_http::{Body, Method, RequestHead, Response, ResponseHead, Version};

use super::conn::Rest;
use super::{Next, Session};
use crate::exchange::{Exchange, Outcome};
use crate::failure::{Connection, Failure};
use crate::listener::LocalListener;
use crate::pipeline::problem_answer::{self, Form};
use crate::protocol::tell_length;
use crate::wire::{SendError, Sender};

/// Whether a whole message reached the socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// It did.
    Sent,
    /// The connection broke or the body failed before its end.
    Lost,
}

/// Writes the answer of one exchange.
pub(super) struct Writing<'a> {
    session: &'a Session,
    listener: &'a Rc<LocalListener>,
    method: Method,
    version: Version,
    /// Whether the client said that this request is its last on this connection.
    last: bool,
    /// Whether the client and our limits let the connection go on.
    connection: Connection,
}

impl<'a> Writing<'a> {
    /// For the request of `head`, the `served`-th on its connection.
    pub(super) fn new(
        session: &'a Session,
        listener: &'a Rc<LocalListener>,
        served: u32,
        head: &RequestHead,
    ) -> Self {
        let last = !h1::keep_alive(head.version, &head.fields);
        let more = !last && served < listener.shared.requests_per_connection;
        let connection = if more { Connection::Keep } else { Connection::Close };
        Writing { session, listener, method: head.method, version: head.version, last, connection }
    }

    /// For a request that was not understood.
    pub(super) fn closing(session: &'a Session, listener: &'a Rc<LocalListener>) -> Self {
        let (method, version) = (Method::Get, Version::Http11);
        Writing { session, listener, method, version, last: false, connection: Connection::Close }
    }

    /// Answers with a failure.
    pub(super) async fn fail(
        &mut self,
        exchange: &mut Exchange,
        head: &RequestHead,
        failure: Failure,
    ) -> Next {
        exchange.outcome = Outcome::Failed(failure);
        let response = problem_answer::answer(failure, exchange, Form::of(head));
        self.response(exchange, response).await
    }

    /// Sends the answer.
    pub(super) async fn response(&mut self, exchange: &mut Exchange, response: Response) -> Next {
        let Response { mut head, body } = response;
        tell_length(self.method, &mut head, &body);
        exchange.status = head.status;
        if let Outcome::Failed(failure) = exchange.outcome
            && failure.row().connection == Connection::Close
        {
            self.connection = Connection::Close;
        }
        let framing = self.framing(&head, &body);
        let stopping = self.session.arrival.worker.is_draining() || self.listener.is_closed();
        if stopping || framing == Framing::Close || self.session.conn.rest() == Rest::Much {
            self.connection = Connection::Close;
        }
        let persist = match self.connection {
            Connection::Keep => Persist::KeepAlive,
            Connection::Close => Persist::Close,
        };
        let mut text = Vec::with_capacity(1024);
        h1::response_head(&head, framing, self.version, persist, &mut text);
        match self.send(exchange, text, framing, body).await {
            Ended::Lost => Next::Gone,
            Ended::Sent => self.next().await,
        }
    }

    /// Sends the head after which the connection is a tunnel: a 101, or a 2xx to CONNECT.
    pub(super) async fn switch(&mut self, exchange: &mut Exchange, head: &ResponseHead) -> Ended {
        exchange.status = head.status;
        let mut text = Vec::with_capacity(256);
        let persist = if head.status == 101 { Persist::Upgrade } else { Persist::KeepAlive };
        h1::response_head(head, Framing::None, self.version, persist, &mut text);
        self.send(exchange, text, Framing::None, Body::Empty).await
    }

    /// How the body is framed (RFC 9112 section 6).
    fn framing(&self, head: &ResponseHead, body: &Body) -> Framing {
        if self.method == Method::Head || matches!(head.status, 204 | 304) {
            return Framing::None;
        }
        match body.length() {
            Some(length) => Framing::Length(length),
            None if self.version >= Version::Http11 => Framing::Chunked,
            None => Framing::Close,
        }
    }

    async fn send(&self, exchange: &mut Exchange, text: Vec<u8>, framing: Framing, mut body: Body) -> Ended {
        let conn = &self.session.conn;
        let stall = self.listener.shared.timeouts.stall;
        let mut sender = Sender::new(text, framing);
        let sent = poll_fn(|cx| {
            let polled =
                sender.poll(&mut body, cx, |outbox, cx| conn.link.borrow_mut().poll_flush(outbox, stall, cx));
            match polled {
                // While nothing is on its way to the client, only listening shows that it has left.
                Poll::Pending if sender.waits_for_body() && conn.poll_gone(cx).is_ready() => {
                    Poll::Ready(Err(SendError::Link(io::ErrorKind::UnexpectedEof.into())))
                }
                polled => polled,
            }
        })
        .await;
        exchange.sent = sender.sent;
        let failure = match sent {
            Ok(()) => return Ended::Sent,
            Err(SendError::Body(_)) => Failure::UpstreamIncomplete,
            Err(SendError::Link(error)) if error.kind() == io::ErrorKind::TimedOut => Failure::ClientTimeout,
            Err(SendError::Link(_)) => Failure::ClientGone,
        };
        // The status has left already: all that can still be said is that the message is not whole, by
        // closing before its end. Only the log and the metrics know why.
        exchange.outcome = Outcome::Failed(failure);
        if framing == Framing::Close {
            // An orderly close would look like the end of the body: reset instead.
            conn.link.borrow().stream.reset_on_close();
        }
        Ended::Lost
    }

    /// After an answer was sent: where the connection stands.
    async fn next(&self) -> Next {
        match (self.connection, self.session.conn.rest()) {
            // The client said that this was its last request: nothing of it can arrive that a close would
            // turn into a reset.
            (Connection::Close, Rest::Nothing) if self.last && !self.session.conn.has_bytes() => Next::Gone,
            (Connection::Close, _) | (_, Rest::Much) => Next::Close,
            (Connection::Keep, Rest::Nothing) => Next::Again,
            (Connection::Keep, Rest::Little) => match Box::pin(self.session.conn.drop_rest()).await {
                true => Next::Again,
                false => Next::Close,
            },
        }
    }
}
