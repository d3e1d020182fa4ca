//! The connector's end of a 3.0 tunnel: the gateway opens the streams.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use sluice_http::{Fields, ResponseHead};

use super::frame::Last;
use super::mux::{FAILED, Input, Mux, Phase};
use crate::event::{Call, Cancel, StreamId, Unsendable};
use crate::settings::Settings;
use crate::text::{
    Content, Marker, Upgrades, read_request, read_trailers, switches, write_response, write_trailers,
};
use crate::websocket::{Close, Ended, Received, Role, Socket};

/// The connector's end of a 3.0 tunnel: see `ConnectorEnd` for what the methods mean.
#[derive(Debug)]
pub struct Connector {
    mux: Mux,
    queue: VecDeque<Call>,
}

impl Connector {
    /// After the handshake; the seed is for masking keys.
    pub fn new(settings: Settings, random: (u64, Duration)) -> Connector {
        Connector { mux: Mux::new(Role::Client, settings, random), queue: VecDeque::new() }
    }

    pub(crate) fn socket(&mut self) -> &mut Socket {
        &mut self.mux.socket
    }

    /// Exchanges that are running.
    pub fn count(&self) -> usize {
        self.mux.count()
    }

    /// Sends the head of an answer.
    ///
    /// # Errors
    /// When the exchange is over, or the head too large; in the latter case the exchange is still to be ended.
    pub fn respond(
        &mut self,
        stream: StreamId,
        head: &ResponseHead,
        now: Duration,
    ) -> Result<(), Unsendable> {
        let text = write_response(head);
        if text.len() > self.mux.settings.head_sent {
            return Err(Unsendable::TooLarge);
        }
        let open = self.mux.stream(stream.0).ok_or(Unsendable::NotOpen)?;
        open.is_switched = head.status == 101;
        self.mux.send_head(stream.0, &text, Last::No, now);
        Ok(())
    }

    /// Sends content.
    pub fn data(&mut self, stream: StreamId, bytes: Bytes, now: Duration) {
        self.mux.send_data(stream.0, bytes, now);
    }

    /// Sends trailer fields and ends the answer; without the extension it only ends it.
    pub fn trailers(&mut self, stream: StreamId, fields: &Fields, now: Duration) {
        match self.mux.settings.extensions.trailers {
            true => self.mux.send_head(stream.0, &write_trailers(fields), Last::Yes, now),
            false => self.mux.send_end(stream.0, now),
        }
        self.maybe_forget(stream.0);
    }

    /// The answer is complete; what is left of the request is of no interest.
    pub fn end(&mut self, stream: StreamId, now: Duration) {
        self.mux.send_end(stream.0, now);
        self.maybe_forget(stream.0);
    }

    fn maybe_forget(&mut self, id: i32) {
        if self.mux.stream(id).is_some_and(|stream| !stream.is_switched || stream.phase == Phase::Done) {
            self.mux.forget(id);
        }
    }

    /// There is no answer, or not all of it.
    pub fn fail(&mut self, stream: StreamId, reason: &str, now: Duration) {
        self.mux.reset(stream.0, (FAILED, reason), now);
    }

    /// Closes the tunnel with everything in it.
    pub fn close(&mut self, (code, reason): (u16, &str), now: Duration) {
        if self.mux.socket.is_open() {
            self.mux.socket.finish(code, reason, now);
            self.ended(Ended::Ours);
        }
    }

    /// Closes the tunnel when no exchange runs in it; says whether it did.
    pub fn close_if_idle(&mut self, now: Duration) -> bool {
        let is_idle = self.mux.count() == 0;
        if is_idle {
            self.close((Close::NORMAL, ""), now);
        }
        is_idle
    }

    /// Whether content may be sent; else [`Call::Resumed`] will say so.
    pub fn may_send(&self, stream: StreamId) -> bool {
        self.mux.may_send(stream.0)
    }

    /// So much content was passed on.
    pub fn consumed(&mut self, stream: StreamId, count: usize, now: Duration) {
        self.mux.consumed(stream.0, count, now);
    }

    /// What happened next; `None` asks for more bytes.
    pub fn receive(&mut self, buf: &mut BytesMut, now: Duration) -> Option<Call> {
        loop {
            if let Some(call) = self.queue.pop_front() {
                return Some(call);
            }
            let input = self.mux.receive(buf, now)?;
            self.input(input, now);
        }
    }

    /// Something that the socket says.
    pub(crate) fn take(&mut self, received: Received, now: Duration) {
        if let Some(input) = self.mux.take(received, now) {
            self.input(input, now);
        }
    }

    fn input(&mut self, input: Input, now: Duration) {
        match input {
            Input::Head(id, text, last) => self.head(id, &text, last, now),
            Input::Data(id, bytes, last) => self.content(id, bytes, last, now),
            Input::Reset(id) => self.cancelled(id, Cancel::ClientGone),
            Input::Resumed(id) => self.queue.push_back(Call::Resumed(StreamId(id))),
            Input::Overrun(id) => self.cancelled(id, Cancel::Overrun),
            Input::TooLarge(id) | Input::Early(id) => self.cancelled(id, Cancel::BadRequest),
            Input::Ended(ended) => self.ended(ended),
        }
    }

    fn head(&mut self, id: i32, text: &[u8], last: Last, now: Duration) {
        let extensions = self.mux.settings.extensions;
        let Some(stream) = self.mux.stream(id) else { return };
        if stream.phase == Phase::Content {
            return self.trailer(id, text, last, now);
        }
        // A stream whose request cannot be read has not begun: nobody is told but the gateway.
        let Ok((head, content)) = read_request(text, Marker::Absent) else {
            return self.mux.reset(id, (FAILED, "malformed request head"), now);
        };
        let upgrades = if extensions.upgrade { Upgrades::Kept } else { Upgrades::Dropped };
        let (content, length) = match (last, content) {
            (Last::Yes, _) => (Content::None, Some(0)),
            (Last::No, content) if switches(&head, upgrades) => (content, None),
            (Last::No, Content::Length(length)) => (Content::Length(length), Some(length)),
            (Last::No, content) => (content, None),
        };
        stream.opened(last, length);
        self.queue.push_back(Call::Request(StreamId(id), head, content));
        self.maybe_end(id, last, now);
    }

    /// A second head is trailers, if both know them.
    fn trailer(&mut self, id: i32, text: &[u8], last: Last, now: Duration) {
        match read_trailers(text) {
            Ok(fields) if self.mux.settings.extensions.trailers && last == Last::Yes => {
                self.queue.push_back(Call::Trailers(StreamId(id), fields));
                self.maybe_end(id, last, now);
            }
            _ => self.broken(id, (Cancel::Broken, "a second head"), now),
        }
    }

    fn content(&mut self, id: i32, bytes: Bytes, last: Last, now: Duration) {
        let Some(stream) = self.mux.stream(id) else { return };
        if !stream.expected.takes(bytes.len()) {
            return self.broken(id, (Cancel::WrongLength, "request body of the wrong length"), now);
        }
        if !bytes.is_empty() {
            self.queue.push_back(Call::Data(StreamId(id), bytes));
        }
        self.maybe_end(id, last, now);
    }

    fn maybe_end(&mut self, id: i32, last: Last, now: Duration) {
        let Some(stream) = self.mux.stream(id).filter(|_| last == Last::Yes) else { return };
        if !stream.expected.is_met() {
            return self.broken(id, (Cancel::WrongLength, "request body of the wrong length"), now);
        }
        stream.phase = Phase::Done;
        if stream.is_switched && stream.is_sent {
            self.mux.forget(id);
        }
        self.queue.push_back(Call::End(StreamId(id)));
    }

    fn broken(&mut self, id: i32, (cancel, reason): (Cancel, &str), now: Duration) {
        self.mux.reset(id, (FAILED, reason), now);
        self.cancelled(id, cancel);
    }

    fn cancelled(&mut self, id: i32, cancel: Cancel) {
        self.queue.push_back(Call::Cancelled(StreamId(id), cancel));
    }

    fn ended(&mut self, ended: Ended) {
        let cancel = Cancel::of(&ended);
        let streams = self.mux.forget_all();
        self.queue.extend(streams.into_iter().map(|id| Call::Cancelled(StreamId(id), cancel)));
        self.queue.push_back(Call::Closed(ended));
    }
}
