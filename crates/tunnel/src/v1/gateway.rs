//! The gateway's end of a 1.0 tunnel.
//!
//! What the end of the tunnel means is read so that a client can tell: 1000 after a head is a complete answer if its
//! Content-Length agrees; every other end after the head aborts, before the head it is a status. 1000 without any
//! head is no answer.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use sluice_http::{Method, RequestHead};

use super::{is_normal, limits, send_content};
use crate::event::{Answer, Expected, Fault, StreamId, Unsendable};
use crate::settings::Settings;
use crate::text::{Content, END, Marker, Upgrades, has_content, read_response, switches, write_request};
use crate::websocket::{Breach, Close, Ended, Received, Role, Socket};

#[derive(Clone, Copy, Debug)]
enum State {
    /// Waits for a request.
    Idle,
    /// The request was sent, the head of its answer is awaited.
    Waiting,
    /// The head came, and so much content is to follow.
    Answering(Expected),
    /// The head came and allows no content: what comes is dropped.
    Bare,
    /// After a 101.
    Switched,
    /// After a 101, and the connector has sent everything.
    HalfClosed,
    /// The exchange is over, whatever becomes of the connection.
    Over,
}

/// The gateway's end of a 1.0 tunnel: see `GatewayEnd` for what the methods mean.
#[derive(Debug)]
pub struct Gateway {
    socket: Socket,
    settings: Settings,
    state: State,
    method: Method,
    is_uploading: bool,
    queue: VecDeque<Answer>,
}

impl Gateway {
    /// After the handshake; the seed is for masking keys.
    pub fn new(settings: Settings, (seed, now): (u64, Duration)) -> Gateway {
        Gateway {
            socket: Socket::new(Role::Server, limits(&settings), settings.timing, (seed, now)),
            settings,
            state: State::Idle,
            method: Method::Get,
            is_uploading: false,
            queue: VecDeque::new(),
        }
    }

    pub(crate) fn socket(&mut self) -> &mut Socket {
        &mut self.socket
    }

    pub(crate) fn is_idle(&self) -> bool {
        matches!(self.state, State::Idle) && self.socket.is_open()
    }

    pub(crate) fn is_busy(&self) -> bool {
        !matches!(self.state, State::Idle | State::Over)
    }

    /// Sends a request.
    ///
    /// # Errors
    /// When the tunnel is not idle, or the head is too large.
    pub fn request(
        &mut self,
        head: &RequestHead,
        content: Content,
        now: Duration,
    ) -> Result<StreamId, Unsendable> {
        if !self.is_idle() {
            return Err(Unsendable::NotOpen);
        }
        let upgrades = if self.settings.extensions.upgrade { Upgrades::Kept } else { Upgrades::Dropped };
        let text = write_request(head, content, upgrades, Marker::Written);
        if text.len() > self.settings.head_sent {
            return Err(Unsendable::TooLarge);
        }
        self.is_uploading = text.ends_with(b"_1");
        debug_assert!(self.is_uploading || !switches(head, upgrades), "both directions stay open");
        self.method = head.method;
        self.state = State::Waiting;
        self.socket.send_text(&text, now);
        Ok(StreamId::ONLY)
    }

    /// Sends content.
    pub fn data(&mut self, bytes: Bytes, now: Duration) {
        if self.is_uploading {
            send_content(&mut self.socket, bytes, self.settings.chunk, now);
        }
    }

    /// The request is complete.
    pub fn end(&mut self, now: Duration) {
        if std::mem::take(&mut self.is_uploading) {
            self.socket.send_text(END, now);
        }
    }

    /// Gives the exchange up: nothing more is heard of it.
    pub fn give_up(&mut self, now: Duration) {
        self.over(&Close::new(Close::GOING_AWAY, "Going away"), now);
    }

    /// Closes the tunnel; a running exchange fails.
    pub fn close(&mut self, reason: &str, now: Duration) {
        if self.is_busy() {
            self.queue.push_back(Answer::Failed(StreamId::ONLY, Fault::GoneAway));
        }
        self.over(&Close::new(Close::GOING_AWAY, reason), now);
    }

    fn over(&mut self, close: &Close, now: Duration) {
        if self.socket.is_open() {
            self.socket.finish(close.code, &close.reason, now);
            self.state = State::Over;
            self.is_uploading = false;
            self.queue.push_back(Answer::Closed(Ended::Ours));
        }
    }

    fn fail(&mut self, fault: Fault, now: Duration) {
        if !matches!(self.state, State::Idle | State::Over) {
            self.queue.push_back(Answer::Failed(StreamId::ONLY, fault));
        }
        self.over(&Close::new(Close::ERROR, "ERRORED"), now);
    }

    /// What happened next; `None` asks for more bytes.
    pub fn receive(&mut self, buf: &mut BytesMut, now: Duration) -> Option<Answer> {
        loop {
            if let Some(answer) = self.queue.pop_front() {
                return Some(answer);
            }
            let received = self.socket.receive(buf, now)?;
            self.take(received, now);
        }
    }

    /// Something that the socket says.
    pub(crate) fn take(&mut self, received: Received, now: Duration) {
        match received {
            Received::Text(text) => self.text(&text, now),
            Received::Binary(bytes) => self.binary(bytes, now),
            Received::Ended(ended) => self.ended(ended),
        }
    }

    fn text(&mut self, text: &[u8], now: Duration) {
        match self.state {
            State::Waiting => match read_response(text, self.method) {
                Ok((head, _)) if head.status == 101 && !self.settings.extensions.upgrade => {
                    self.fail(Fault::BadHead, now);
                }
                Ok((head, length)) => {
                    self.state = match head.status {
                        101 => State::Switched,
                        status if !has_content(self.method, status) => State::Bare,
                        _ => State::Answering(Expected::new(length)),
                    };
                    self.queue.push_back(Answer::Head(StreamId::ONLY, head));
                }
                Err(_) => self.fail(Fault::BadHead, now),
            },
            State::Switched if text == END => {
                self.state = State::HalfClosed;
                self.queue.push_back(Answer::End(StreamId::ONLY));
            }
            State::Over => {}
            _ => self.breach(now),
        }
    }

    fn binary(&mut self, bytes: Bytes, now: Duration) {
        match &mut self.state {
            State::Answering(expected) => match expected.takes(bytes.len()) {
                true => self.queue.push_back(Answer::Data(StreamId::ONLY, bytes)),
                false => self.fail(Fault::WrongLength, now),
            },
            State::Switched => self.queue.push_back(Answer::Data(StreamId::ONLY, bytes)),
            State::Bare | State::Over => {}
            State::Idle | State::Waiting | State::HalfClosed => self.breach(now),
        }
    }

    fn breach(&mut self, now: Duration) {
        if let Some(Received::Ended(ended)) = self.socket.breach(Breach::Unexpected, now) {
            self.ended(ended);
        }
    }

    fn ended(&mut self, ended: Ended) {
        let is_normal = is_normal(&ended);
        let failed = |fault| Some(Answer::Failed(StreamId::ONLY, fault));
        let answer = match std::mem::replace(&mut self.state, State::Over) {
            State::Idle | State::Over => None,
            State::Waiting if is_normal => failed(Fault::NoAnswer),
            State::Answering(expected) if is_normal && !expected.is_met() => failed(Fault::WrongLength),
            State::Answering(_) | State::Bare | State::Switched if is_normal => {
                Some(Answer::End(StreamId::ONLY))
            }
            State::HalfClosed => None,
            _ => failed(Fault::of(&ended)),
        };
        self.is_uploading = false;
        self.queue.extend(answer);
        self.queue.push_back(Answer::Closed(ended));
    }
}
