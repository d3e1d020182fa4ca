//! One WebSocket after its handshake: messages both ways, and everything that runs by itself.
//!
//! Promise: a ping is answered at once, unless the peer reads nothing of what waits for it; it ends exactly once,
//! with the reason; after our close frame nothing more is sent, and what the peer still sends is dropped.
//! It knows no clock: every time is a `Duration` since any moment that stays the same for the connection.

use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};

use super::{Binary, Breach, Close, Decoder, Encoder, Limits, Message, Output, Role, opcode};

/// How long the peer may take to answer our close frame.
const CLOSING: Duration = Duration::from_secs(5);

/// Pongs are not added while more than this waits to be written: a peer that only pings and never reads.
const BACKLOG: usize = 1024 * 1024;

/// When to ping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pings {
    /// So often.
    Every(Duration),
    /// When nothing was sent for so long.
    AfterSilence(Duration),
}

/// Pings and patience.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// When to ping.
    pub pings: Pings,
    /// What a ping carries, at most 125 bytes.
    pub payload: &'static [u8],
    /// A peer from which nothing came for so long is given up; zero for never.
    pub silence: Duration,
    /// The close code and reason it gets.
    pub silent: (u16, &'static str),
}

/// What came of the peer's bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Received {
    /// A whole text message.
    Text(Bytes),
    /// A binary message or a piece of one: see [`Binary`].
    Binary(Bytes),
    /// The end; once.
    Ended(Ended),
}

/// How a WebSocket ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The peer closed it; `None` is a close frame without a code.
    Closed(Option<Close>),
    /// The connection broke without a close frame.
    Dropped,
    /// Nothing came for too long.
    Silent,
    /// The peer broke a rule.
    Broken(Breach),
    /// We closed it.
    Ours,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    /// Our close frame is queued; the peer's is awaited until then.
    Closing(Duration),
    Over,
}

/// One side of one WebSocket.
#[derive(Debug)]
pub struct Socket {
    decoder: Decoder,
    encoder: Encoder,
    out: Output,
    timing: Timing,
    state: State,
    is_reported: bool,
    read_at: Duration,
    wrote_at: Duration,
    pinged_at: Duration,
}

impl Socket {
    /// Opened now. The seed is for masking keys.
    pub fn new(role: Role, limits: Limits, timing: Timing, (seed, now): (u64, Duration)) -> Socket {
        Socket {
            decoder: Decoder::new(role, limits),
            encoder: Encoder::new(role, seed),
            out: Output::default(),
            timing,
            state: State::Open,
            is_reported: false,
            read_at: now,
            wrote_at: now,
            pinged_at: now,
        }
    }

    /// Takes the next message off the front of `buf`; `None` asks for more bytes.
    pub fn receive(&mut self, buf: &mut BytesMut, now: Duration) -> Option<Received> {
        while self.state != State::Over {
            let message = match self.decoder.decode(buf) {
                Ok(message) => message?,
                Err(breach) => {
                    self.close(breach.close_code(), "protocol error", now);
                    return self.end(Ended::Broken(breach));
                }
            };
            self.read_at = now;
            let is_open = self.state == State::Open;
            match message {
                Message::Ping(payload) => self.pong(&payload, now),
                Message::Pong(_) => {}
                Message::Close(_) if !is_open => return self.end(Ended::Ours),
                Message::Close(close) => {
                    let code = close.as_ref().map_or(Close::NORMAL, |close| close.code);
                    self.close(code, "", now);
                    return self.end(Ended::Closed(close));
                }
                Message::Text(text) if is_open => return Some(Received::Text(text)),
                Message::Binary(bytes) if is_open => return Some(Received::Binary(bytes)),
                Message::Text(_) | Message::Binary(_) => {}
            }
        }
        buf.clear();
        None
    }

    /// The connection ended, or broke: no more bytes will come.
    pub fn eof(&mut self) -> Option<Received> {
        self.end(if self.is_open() { Ended::Dropped } else { Ended::Ours })
    }

    fn end(&mut self, how: Ended) -> Option<Received> {
        self.state = State::Over;
        (!std::mem::replace(&mut self.is_reported, true)).then_some(Received::Ended(how))
    }

    fn pong(&mut self, payload: &[u8], now: Duration) {
        if self.state == State::Open && self.out.remaining() < BACKLOG {
            self.encoder.control(opcode::PONG, payload, &mut self.out);
            self.wrote_at = now;
        }
    }

    /// Sends a text message.
    pub fn send_text(&mut self, text: &[u8], now: Duration) {
        if self.state == State::Open {
            self.wrote_at = now;
            self.encoder.text(text, &mut self.out);
        }
    }

    /// Sends a binary message: a copy of `lead`, then `payload`.
    pub fn send_binary(&mut self, lead: &[u8], payload: Bytes, now: Duration) {
        if self.state == State::Open {
            self.wrote_at = now;
            self.encoder.binary(lead, payload, &mut self.out);
        }
    }

    /// Sends a close frame, the last one. The peer's answer is awaited for five seconds.
    pub fn close(&mut self, code: u16, reason: &str, now: Duration) {
        if self.state == State::Open {
            self.encoder.control(opcode::CLOSE, &Close::new(code, reason).payload(), &mut self.out);
            self.state = State::Closing(now + CLOSING);
        }
    }

    /// Closes and tells nobody: the caller knows how it ended.
    pub fn finish(&mut self, code: u16, reason: &str, now: Duration) {
        self.close(code, reason, now);
        self.is_reported = true;
    }

    /// A rule of the protocol above was broken: closes, and says so.
    pub fn breach(&mut self, breach: Breach, now: Duration) -> Option<Received> {
        self.close(breach.close_code(), "protocol error", now);
        self.end(Ended::Broken(breach))
    }

    /// What waits to be written.
    pub fn output(&mut self) -> &mut Output {
        &mut self.out
    }

    /// Bytes that wait to be written.
    pub fn backlog(&self) -> usize {
        self.out.remaining()
    }

    /// Whether messages may still be sent.
    pub fn is_open(&self) -> bool {
        self.state == State::Open
    }

    /// Whether nothing more is read or awaited: when the output is written, the connection can be closed.
    pub fn is_over(&self) -> bool {
        self.state == State::Over
    }

    /// When [`Socket::tick`] wants to be called; it may be called earlier.
    pub fn deadline(&self) -> Option<Duration> {
        match self.state {
            State::Over => None,
            State::Closing(until) => Some(until),
            State::Open if self.timing.silence.is_zero() => Some(self.ping_at()),
            State::Open => Some(self.ping_at().min(self.read_at + self.timing.silence)),
        }
    }

    fn ping_at(&self) -> Duration {
        match self.timing.pings {
            Pings::Every(interval) => self.pinged_at + interval,
            Pings::AfterSilence(interval) => self.pinged_at.max(self.wrote_at) + interval,
        }
    }

    /// Does what is due: a ping, or the end of a silent peer.
    pub fn tick(&mut self, now: Duration) -> Option<Received> {
        match self.state {
            State::Over => None,
            State::Closing(until) if now >= until => self.end(Ended::Ours),
            State::Closing(_) => None,
            State::Open => {
                let silence = self.timing.silence;
                if !silence.is_zero() && now >= self.read_at + silence {
                    let (code, reason) = self.timing.silent;
                    self.close(code, reason, now);
                    return self.end(Ended::Silent);
                }
                if now >= self.ping_at() {
                    self.pinged_at = now;
                    self.encoder.control(opcode::PING, self.timing.payload, &mut self.out);
                }
                None
            }
        }
    }
}

impl Limits {
    /// Small messages only: for the socket of a deregistration.
    pub const SMALL: Limits = Limits { text: 1024, binary: Binary::Whole(1024) };
}
