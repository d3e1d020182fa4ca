//! What both ends of a 3.0 tunnel have in common: streams over one socket.
//!
//! Promise: nothing about one stream holds up another; what a stream may cost is bounded (its head, its waiting
//! content, the number of streams); frames for streams that are over are ignored; a RST is never answered.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use bytes::{Bytes, BytesMut};

use super::flow::{Receiving, Sending};
use super::frame::{self, Frame, HEAD_PART, HEADER, Last, Part};
use crate::event::Expected;
use crate::settings::Settings;
use crate::websocket::{Binary, Breach, Ended, Limits, Received, Role, Socket};

/// Every known peer ends the tunnel above this; so do we.
const MESSAGE: usize = 64 * 1024;
/// Bytes that may wait to be written before a peer that makes us answer, and reads nothing, is given up.
const UNREAD: usize = 4 * 1024 * 1024;
/// Streams that were over lately, whose late heads must not open them again.
const REMEMBERED: usize = 256;

/// Where a stream is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// The peer's head is to come.
    Head,
    /// Its content.
    Content,
    /// Its content was complete.
    Done,
}

/// One stream.
#[derive(Debug)]
pub(super) struct Stream {
    /// Parts of the peer's head, or of its trailers, so far.
    parts: BytesMut,
    sending: Sending,
    receiving: Receiving,
    /// What the peer still sends.
    pub(super) phase: Phase,
    /// Whether we have sent everything.
    pub(super) is_sent: bool,
    /// After a 101.
    pub(super) is_switched: bool,
    /// Of what the peer sends.
    pub(super) expected: Expected,
}

/// What the peer's frames mean.
#[derive(Debug)]
pub(super) enum Input {
    /// A whole head, or whole trailers.
    Head(i32, Bytes, Last),
    Data(i32, Bytes, Last),
    Reset(i32),
    Resumed(i32),
    /// It sends more than it may: the stream was forgotten, and the peer told.
    Overrun(i32),
    /// Its head is too large: likewise.
    TooLarge(i32),
    /// It sends content before its head: likewise.
    Early(i32),
    Ended(Ended),
}

/// The code of a RST when something failed.
pub(super) const FAILED: i32 = 1011;

/// Who opens streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Opens {
    Us,
    Peer,
}

#[derive(Debug)]
pub(super) struct Mux {
    pub(super) socket: Socket,
    pub(super) settings: Settings,
    streams: HashMap<i32, Stream>,
    opens: Opens,
    /// The number of the last stream that we opened.
    last: i32,
    over: VecDeque<i32>,
}

impl Mux {
    pub(super) fn new(role: Role, settings: Settings, random: (u64, Duration)) -> Mux {
        let limits = Limits { text: MESSAGE, binary: Binary::Whole(MESSAGE) };
        Mux {
            socket: Socket::new(role, limits, settings.timing, random),
            settings,
            streams: HashMap::new(),
            opens: if role == Role::Server { Opens::Us } else { Opens::Peer },
            last: 0,
            over: VecDeque::new(),
        }
    }

    pub(super) fn stream(&mut self, id: i32) -> Option<&mut Stream> {
        self.streams.get_mut(&id)
    }

    pub(super) fn count(&self) -> usize {
        self.streams.len()
    }

    /// Whether another stream of ours has room, also among what waits to be written.
    pub(super) fn has_room(&self) -> bool {
        self.socket.is_open()
            && self.streams.len() < self.settings.streams
            && self.socket.backlog() < UNREAD / 4
    }

    /// Opens a stream of ours; `None` when there is no room.
    pub(super) fn open(&mut self) -> Option<i32> {
        if !self.has_room() {
            return None;
        }
        self.last = self.last.checked_add(1)?;
        self.streams.insert(self.last, Stream::new());
        Some(self.last)
    }

    pub(super) fn forget(&mut self, id: i32) {
        if self.streams.remove(&id).is_some() && self.opens == Opens::Peer {
            self.over.truncate(REMEMBERED - 1);
            self.over.push_front(id);
        }
    }

    /// Whether somebody here knows of the stream: not before its request is complete.
    fn is_begun(&self, id: i32) -> bool {
        self.streams.get(&id).is_some_and(|stream| self.opens == Opens::Us || stream.phase != Phase::Head)
    }

    /// Forgets all streams; says which were begun, in order.
    pub(super) fn forget_all(&mut self) -> Vec<i32> {
        let mut all: Vec<i32> = self.streams.keys().copied().filter(|&id| self.is_begun(id)).collect();
        self.streams.clear();
        all.sort_unstable();
        all
    }

    /// Sends a head, in parts if it is long. A gateway says that nothing follows on every part, as others do: some
    /// connector may look at the first only; a connector on the last, as some gateway ends the stream with it.
    pub(super) fn send_head(&mut self, id: i32, text: &[u8], last: Last, now: Duration) {
        if text.is_empty() && last == Last::Yes {
            return self.send_end(id, now);
        }
        let Some(stream) = self.streams.get_mut(&id).filter(|stream| !stream.is_sent) else { return };
        stream.sending.sent(text.len());
        stream.is_sent = last == Last::Yes;
        let mut parts = text.chunks(HEAD_PART).peekable();
        while let Some(part) = parts.next() {
            let (place, last) = match (parts.peek(), self.opens) {
                (None, _) => (Part::Final, last),
                (Some(_), Opens::Us) => (Part::First, last),
                (Some(_), Opens::Peer) => (Part::First, Last::No),
            };
            let lead = [&frame::head(id, last, place)[..], part].concat();
            self.socket.send_binary(&lead, Bytes::new(), now);
        }
    }

    pub(super) fn send_data(&mut self, id: i32, mut bytes: Bytes, now: Duration) {
        let Some(stream) = self.streams.get_mut(&id).filter(|stream| !stream.is_sent) else { return };
        stream.sending.sent(bytes.len());
        let most = self.settings.chunk.clamp(1, MESSAGE - HEADER);
        while !bytes.is_empty() {
            let piece = bytes.split_to(bytes.len().min(most));
            self.socket.send_binary(&frame::data(id, Last::No), piece, now);
        }
    }

    pub(super) fn send_end(&mut self, id: i32, now: Duration) {
        let Some(stream) = self.streams.get_mut(&id).filter(|stream| !stream.is_sent) else { return };
        stream.is_sent = true;
        self.socket.send_binary(&frame::data(id, Last::Yes), Bytes::new(), now);
    }

    /// Tells the peer that the exchange is over, and forgets the stream.
    pub(super) fn reset(&mut self, id: i32, (code, message): (i32, &str), now: Duration) {
        if self.streams.contains_key(&id) {
            let end = message.floor_char_boundary(1024);
            self.socket.send_binary(&frame::reset(id, code, &message[..end]), Bytes::new(), now);
            self.forget(id);
        }
    }

    pub(super) fn may_send(&self, id: i32) -> bool {
        self.streams.get(&id).is_some_and(|stream| stream.sending.may_send())
    }

    /// Content was passed on.
    pub(super) fn consumed(&mut self, id: i32, count: usize, now: Duration) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        if let Some(count) = stream.receiving.consumed(count)
            && stream.phase != Phase::Done
        {
            self.socket.send_binary(&frame::window(id, count), Bytes::new(), now);
        }
    }

    /// What the peer's bytes mean; `None` asks for more.
    pub(super) fn receive(&mut self, buf: &mut BytesMut, now: Duration) -> Option<Input> {
        loop {
            let received = self.socket.receive(buf, now)?;
            if let Some(input) = self.take(received, now) {
                return Some(input);
            }
        }
    }

    /// Something that the socket says.
    pub(super) fn take(&mut self, received: Received, now: Duration) -> Option<Input> {
        let message = match received {
            Received::Binary(message) => message,
            Received::Text(_) => return None,
            Received::Ended(ended) => return Some(Input::Ended(ended)),
        };
        if self.socket.backlog() > UNREAD {
            return self.breach(Breach::Unread, now);
        }
        match frame::read(message) {
            Ok(Frame::Data(id, bytes, last)) => self.data(id, bytes, last, now),
            Ok(Frame::Head(id, text, last, part)) => self.head(id, text, (last, part), now),
            Ok(Frame::Reset(id, _, _)) => {
                let is_begun = self.is_begun(id);
                self.forget(id);
                is_begun.then_some(Input::Reset(id))
            }
            Ok(Frame::Window(id, count)) => {
                let resumes = self.streams.get_mut(&id)?.sending.acknowledged(count);
                resumes.then_some(Input::Resumed(id))
            }
            Ok(Frame::Unknown) => None,
            Err(breach) => self.breach(breach, now),
        }
    }

    fn breach(&mut self, breach: Breach, now: Duration) -> Option<Input> {
        match self.socket.breach(breach, now)? {
            Received::Ended(ended) => Some(Input::Ended(ended)),
            Received::Text(_) | Received::Binary(_) => None,
        }
    }

    /// The peer breaks a rule in this stream.
    fn give_up(&mut self, id: i32, reason: &str, input: Input, now: Duration) -> Option<Input> {
        let is_begun = self.is_begun(id);
        self.reset(id, (FAILED, reason), now);
        is_begun.then_some(input)
    }

    fn data(&mut self, id: i32, bytes: Bytes, last: Last, now: Duration) -> Option<Input> {
        let stream = self.streams.get_mut(&id).filter(|stream| stream.phase != Phase::Done)?;
        if stream.phase == Phase::Head {
            return self.give_up(id, "content before its head", Input::Early(id), now);
        }
        if stream.receiving.received(bytes.len()) > self.settings.waiting {
            return self.give_up(id, "more than the window was sent", Input::Overrun(id), now);
        }
        if last == Last::Yes {
            stream.phase = Phase::Done;
        }
        (!bytes.is_empty() || last == Last::Yes).then_some(Input::Data(id, bytes, last))
    }

    fn head(&mut self, id: i32, text: Bytes, (last, part): (Last, Part), now: Duration) -> Option<Input> {
        if !self.streams.contains_key(&id) {
            if self.opens == Opens::Us || id <= 0 || self.over.contains(&id) {
                return None;
            }
            let has_room = self.streams.len() < self.settings.streams;
            self.streams.insert(id, Stream::new());
            if !has_room {
                self.reset(id, (FAILED, "too many streams"), now);
                return None;
            }
        }
        let stream = self.streams.get_mut(&id).filter(|stream| stream.phase != Phase::Done)?;
        if stream.parts.len() + text.len() > self.settings.head_received {
            return self.give_up(id, "head too large", Input::TooLarge(id), now);
        }
        stream.receiving.received(text.len());
        let length = text.len();
        let whole = match (part, stream.parts.is_empty()) {
            (Part::First, _) => {
                stream.parts.extend_from_slice(&text);
                None
            }
            (Part::Final, true) => Some(text),
            (Part::Final, false) => {
                stream.parts.extend_from_slice(&text);
                Some(std::mem::take(&mut stream.parts).freeze())
            }
        };
        self.consumed(id, length, now);
        Some(Input::Head(id, whole?, last))
    }
}

impl Stream {
    fn new() -> Stream {
        Stream {
            parts: BytesMut::new(),
            sending: Sending::default(),
            receiving: Receiving::default(),
            phase: Phase::Head,
            is_sent: false,
            is_switched: false,
            expected: Expected::new(None),
        }
    }

    /// The peer's head came.
    pub(super) fn opened(&mut self, last: Last, length: Option<u64>) {
        self.phase = if last == Last::Yes { Phase::Done } else { Phase::Content };
        self.expected = Expected::new(length);
    }
}
