//! The connector's end of a 1.0 tunnel.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use sluice_http::ResponseHead;

use super::{limits, send_content};
use crate::event::{Call, Cancel, Expected, StreamId, Unsendable};
use crate::settings::Settings;
use crate::text::{Content, END, Marker, Upgrades, read_request, switches, write_response};
use crate::websocket::{Breach, Close, Ended, Received, Role, Socket};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Waits for a request.
    Idle,
    /// A request came.
    Busy,
    /// Its answer's head was sent.
    Answered,
    /// It was a 101.
    Switched,
    /// After a 101, and we have sent everything.
    HalfClosed,
    /// The exchange is over, whatever becomes of the connection.
    Over,
}

/// The connector's end of a 1.0 tunnel: see `ConnectorEnd` for what the methods mean.
#[derive(Debug)]
pub struct Connector {
    socket: Socket,
    settings: Settings,
    state: State,
    /// The content of the request that is to come; `None` when it is complete.
    upload: Option<Expected>,
    queue: VecDeque<Call>,
}

impl Connector {
    /// After the handshake; the seed is for masking keys.
    pub fn new(settings: Settings, (seed, now): (u64, Duration)) -> Connector {
        Connector {
            socket: Socket::new(Role::Client, limits(&settings), settings.timing, (seed, now)),
            settings,
            state: State::Idle,
            upload: None,
            queue: VecDeque::new(),
        }
    }

    pub(crate) fn socket(&mut self) -> &mut Socket {
        &mut self.socket
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.state == State::Idle
    }

    /// Sends the head of the answer.
    ///
    /// # Errors
    /// When there is no request that waits for one, or it is too large; then the exchange is still to be ended.
    pub fn respond(&mut self, head: &ResponseHead, now: Duration) -> Result<(), Unsendable> {
        if self.state != State::Busy {
            return Err(Unsendable::NotOpen);
        }
        let text = write_response(head);
        if text.len() > self.settings.head_sent {
            return Err(Unsendable::TooLarge);
        }
        self.state = if head.status == 101 { State::Switched } else { State::Answered };
        self.socket.send_text(&text, now);
        Ok(())
    }

    /// Sends content of the answer.
    pub fn data(&mut self, bytes: Bytes, now: Duration) {
        if matches!(self.state, State::Answered | State::Switched) {
            send_content(&mut self.socket, bytes, self.settings.chunk, now);
        }
    }

    /// The answer is complete.
    pub fn end(&mut self, now: Duration) {
        match self.state {
            State::Switched if self.upload.is_some() => {
                self.state = State::HalfClosed;
                self.socket.send_text(END, now);
            }
            State::Answered | State::Switched => self.over(&Close::new(Close::NORMAL, ""), now),
            _ => {}
        }
    }

    /// There is no answer, or not all of it.
    pub fn fail(&mut self, reason: &str, now: Duration) {
        if !matches!(self.state, State::Idle | State::Over) {
            self.over(&Close::new(Close::ERROR, reason), now);
        }
    }

    /// Closes the tunnel, with or without an exchange.
    pub fn close(&mut self, reason: &str, now: Duration) {
        if !matches!(self.state, State::Idle | State::Over) {
            self.queue.push_back(Call::Cancelled(StreamId::ONLY, Cancel::Closed));
        }
        self.over(&Close::new(Close::GOING_AWAY, reason), now);
    }

    fn over(&mut self, close: &Close, now: Duration) {
        if self.socket.is_open() {
            self.socket.finish(close.code, &close.reason, now);
            self.state = State::Over;
            self.upload = None;
            self.queue.push_back(Call::Closed(Ended::Ours));
        }
    }

    /// What happened next; `None` asks for more bytes.
    pub fn receive(&mut self, buf: &mut BytesMut, now: Duration) -> Option<Call> {
        loop {
            if let Some(call) = self.queue.pop_front() {
                return Some(call);
            }
            let received = self.socket.receive(buf, now)?;
            self.take(received, now);
        }
    }

    /// Something that the socket says.
    pub(crate) fn take(&mut self, received: Received, now: Duration) {
        match received {
            Received::Text(text) if self.state == State::Idle => self.request(&text, now),
            Received::Text(text) if text == END && self.upload.is_some() => self.uploaded(now),
            Received::Binary(bytes) => self.content(bytes, now),
            Received::Text(_) => self.breach(now),
            Received::Ended(ended) => self.ended(ended),
        }
    }

    fn request(&mut self, text: &[u8], now: Duration) {
        let Ok((head, content)) = read_request(text, Marker::Written) else {
            // Nothing was begun, so nothing is cancelled.
            return self.over(&Close::new(Close::ERROR, "malformed request head"), now);
        };
        let upgrades = if self.settings.extensions.upgrade { Upgrades::Kept } else { Upgrades::Dropped };
        self.state = State::Busy;
        self.upload = match content {
            Content::None => None,
            // After an upgrade, what follows is not the request's content.
            _ if switches(&head, upgrades) => Some(Expected::new(None)),
            Content::Length(length) => Some(Expected::new(Some(length))),
            Content::Unknown => Some(Expected::new(None)),
        };
        self.queue.push_back(Call::Request(StreamId::ONLY, head, content));
        if self.upload.is_none() {
            self.queue.push_back(Call::End(StreamId::ONLY));
        }
    }

    fn uploaded(&mut self, now: Duration) {
        if !self.upload.take().is_some_and(Expected::is_met) {
            return self.cancel(Cancel::WrongLength, now);
        }
        self.queue.push_back(Call::End(StreamId::ONLY));
        if self.state == State::HalfClosed {
            self.over(&Close::new(Close::NORMAL, ""), now);
        }
    }

    fn content(&mut self, bytes: Bytes, now: Duration) {
        match self.upload.as_mut().map(|expected| expected.takes(bytes.len())) {
            Some(true) => self.queue.push_back(Call::Data(StreamId::ONLY, bytes)),
            Some(false) => self.cancel(Cancel::WrongLength, now),
            None => self.breach(now),
        }
    }

    fn cancel(&mut self, cancel: Cancel, now: Duration) {
        self.queue.push_back(Call::Cancelled(StreamId::ONLY, cancel));
        self.over(&Close::new(Close::ERROR, "request body of the wrong length"), now);
    }

    fn breach(&mut self, now: Duration) {
        if let Some(Received::Ended(ended)) = self.socket.breach(Breach::Unexpected, now) {
            self.ended(ended);
        }
    }

    fn ended(&mut self, ended: Ended) {
        let state = std::mem::replace(&mut self.state, State::Over);
        self.upload = None;
        if !matches!(state, State::Idle | State::Over) {
            self.queue.push_back(Call::Cancelled(StreamId::ONLY, Cancel::of(&ended)));
        }
        self.queue.push_back(Call::Closed(ended));
    }
}
