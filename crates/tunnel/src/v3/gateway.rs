//! The gateway's end of a 3.0 tunnel: it opens the streams.
//!
//! A stream is complete when the connector says so (END_STREAM); a tunnel that ends before, with whatever code,
//! leaves its streams incomplete.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use sluice_http::{Fields, Method, RequestHead};

use super::frame::Last;
use super::mux::{Input, Mux, Phase};
use crate::event::{Answer, Fault, StreamId, Unsendable};
use crate::settings::Settings;
use crate::text::{
    Content, Marker, Upgrades, has_content, read_response, read_trailers, switches, write_request,
    write_trailers,
};
use crate::websocket::{Close, Ended, Received, Role, Socket};

/// The code of a RST from a gateway.
const GIVEN_UP: i32 = 1;

/// The gateway's end of a 3.0 tunnel: see `GatewayEnd` for what the methods mean.
#[derive(Debug)]
pub struct Gateway {
    mux: Mux,
    /// Of the requests whose answer's head is awaited, or allows no content.
    methods: HashMap<i32, Method>,
    queue: VecDeque<Answer>,
}

impl Gateway {
    /// After the handshake; the seed is for masking keys.
    pub fn new(settings: Settings, random: (u64, Duration)) -> Gateway {
        let mux = Mux::new(Role::Server, settings, random);
        Gateway { mux, methods: HashMap::new(), queue: VecDeque::new() }
    }

    pub(crate) fn socket(&mut self) -> &mut Socket {
        &mut self.mux.socket
    }

    /// Exchanges that are running.
    pub fn count(&self) -> usize {
        self.mux.count()
    }

    pub(crate) fn has_room(&self) -> bool {
        self.mux.has_room()
    }

    /// Sends a request, on a stream of its own.
    ///
    /// # Errors
    /// When there is no room for another stream, or the head is too large.
    pub fn request(
        &mut self,
        head: &RequestHead,
        content: Content,
        now: Duration,
    ) -> Result<StreamId, Unsendable> {
        let upgrades = if self.mux.settings.extensions.upgrade { Upgrades::Kept } else { Upgrades::Dropped };
        let text = write_request(head, content, upgrades, Marker::Absent);
        if text.len() > self.mux.settings.head_sent {
            return Err(Unsendable::TooLarge);
        }
        let id = self.mux.open().ok_or(Unsendable::NotOpen)?;
        let is_bare = matches!(content, Content::None | Content::Length(0)) && !switches(head, upgrades);
        self.methods.insert(id, head.method);
        self.mux.send_head(id, &text, if is_bare { Last::Yes } else { Last::No }, now);
        Ok(StreamId(id))
    }

    /// Sends content.
    pub fn data(&mut self, stream: StreamId, bytes: Bytes, now: Duration) {
        self.mux.send_data(stream.0, bytes, now);
    }

    /// Sends trailer fields and ends the request; without the extension it only ends it.
    pub fn trailers(&mut self, stream: StreamId, fields: &Fields, now: Duration) {
        match self.mux.settings.extensions.trailers {
            true => self.mux.send_head(stream.0, &write_trailers(fields), Last::Yes, now),
            false => self.end(stream, now),
        }
    }

    /// The request is complete.
    pub fn end(&mut self, stream: StreamId, now: Duration) {
        self.mux.send_end(stream.0, now);
        let is_over = |stream: &mut super::mux::Stream| stream.is_switched && stream.phase == Phase::Done;
        if self.mux.stream(stream.0).is_some_and(is_over) {
            self.forget(stream.0);
        }
    }

    /// Gives an exchange up.
    pub fn reset(&mut self, stream: StreamId, reason: &str, now: Duration) {
        self.mux.reset(stream.0, (GIVEN_UP, reason), now);
        self.methods.remove(&stream.0);
    }

    /// Closes the tunnel with everything in it.
    pub fn close(&mut self, reason: &str, now: Duration) {
        if self.mux.socket.is_open() {
            self.mux.socket.finish(Close::GOING_AWAY, reason, now);
            self.ended(Ended::Ours);
        }
    }

    /// Whether content may be sent; else [`Answer::Resumed`] will say so.
    pub fn may_send(&self, stream: StreamId) -> bool {
        self.mux.may_send(stream.0)
    }

    /// So much content was passed on.
    pub fn consumed(&mut self, stream: StreamId, count: usize, now: Duration) {
        self.mux.consumed(stream.0, count, now);
    }

    /// What happened next; `None` asks for more bytes.
    pub fn receive(&mut self, buf: &mut BytesMut, now: Duration) -> Option<Answer> {
        loop {
            if let Some(answer) = self.queue.pop_front() {
                return Some(answer);
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
            Input::Reset(id) => self.failed(id, Fault::ConnectorFailed),
            Input::Resumed(id) => self.queue.push_back(Answer::Resumed(StreamId(id))),
            Input::Overrun(id) => self.failed(id, Fault::Overrun),
            Input::TooLarge(id) => self.failed(id, Fault::BadHead),
            Input::Early(id) => self.failed(id, Fault::Broken),
            Input::Ended(ended) => self.ended(ended),
        }
    }

    fn head(&mut self, id: i32, text: &[u8], last: Last, now: Duration) {
        let extensions = self.mux.settings.extensions;
        let method = self.methods.get(&id).copied().unwrap_or(Method::Get);
        let Some(stream) = self.mux.stream(id) else { return };
        if stream.phase == Phase::Content {
            return self.trailer(id, text, last, now);
        }
        match read_response(text, method) {
            Ok((head, _)) if head.status == 101 && !extensions.upgrade => {
                self.broken(id, Fault::BadHead, now);
            }
            Ok((head, length)) => {
                let has_content = has_content(method, head.status);
                stream.opened(last, length.filter(|_| has_content));
                stream.is_switched = head.status == 101;
                if has_content {
                    self.methods.remove(&id);
                }
                self.queue.push_back(Answer::Head(StreamId(id), head));
                self.maybe_end(id, last, now);
            }
            Err(_) => self.broken(id, Fault::BadHead, now),
        }
    }

    /// A second head is trailers, if both know them.
    fn trailer(&mut self, id: i32, text: &[u8], last: Last, now: Duration) {
        match read_trailers(text) {
            Ok(fields) if self.mux.settings.extensions.trailers && last == Last::Yes => {
                self.queue.push_back(Answer::Trailers(StreamId(id), fields));
                self.maybe_end(id, last, now);
            }
            _ => self.broken(id, Fault::Broken, now),
        }
    }

    fn content(&mut self, id: i32, bytes: Bytes, last: Last, now: Duration) {
        let is_dropped = self.methods.contains_key(&id);
        let Some(stream) = self.mux.stream(id) else { return };
        if !is_dropped && !stream.expected.takes(bytes.len()) {
            return self.broken(id, Fault::WrongLength, now);
        }
        match bytes.is_empty() {
            true => {}
            false if is_dropped => self.mux.consumed(id, bytes.len(), now),
            false => self.queue.push_back(Answer::Data(StreamId(id), bytes)),
        }
        self.maybe_end(id, last, now);
    }

    fn maybe_end(&mut self, id: i32, last: Last, now: Duration) {
        let is_dropped = self.methods.contains_key(&id);
        let Some(stream) = self.mux.stream(id).filter(|_| last == Last::Yes) else { return };
        if !is_dropped && !stream.expected.is_met() {
            return self.broken(id, Fault::WrongLength, now);
        }
        stream.phase = Phase::Done;
        if !stream.is_switched || stream.is_sent {
            self.forget(id);
        }
        self.queue.push_back(Answer::End(StreamId(id)));
    }

    /// The connector broke a rule in this stream.
    fn broken(&mut self, id: i32, fault: Fault, now: Duration) {
        self.mux.reset(id, (GIVEN_UP, "malformed answer"), now);
        self.failed(id, fault);
    }

    fn failed(&mut self, id: i32, fault: Fault) {
        self.methods.remove(&id);
        self.queue.push_back(Answer::Failed(StreamId(id), fault));
    }

    fn forget(&mut self, id: i32) {
        self.mux.forget(id);
        self.methods.remove(&id);
    }

    fn ended(&mut self, ended: Ended) {
        self.methods.clear();
        let fault = Fault::of(&ended);
        let streams = self.mux.forget_all();
        self.queue.extend(streams.into_iter().map(|id| Answer::Failed(StreamId(id), fault)));
        self.queue.push_back(Answer::Closed(ended));
    }
}
