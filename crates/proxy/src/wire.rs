//! Bytes on a connection: filling a buffer, and sending a head and a body as few writes as possible.
//!
//! Promise: a read asks for as much as the stream has shown it can give (4 KiB for heads, up to 256 KiB
//! while a body streams); a head and the first bytes of its body leave in one vectored write; a connection
//! without an exchange owns no buffer.

use std::future::Future as _;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::{Buf as _, Bytes, BytesMut};
use sluice_http::h1::{self, Framing};
use sluice_http::{Body, BodyError, Fields, Frame};
use tokio::io::{AsyncReadExt, AsyncWrite};
use tokio::net::TcpStream;

use crate::stream::Stream;
use crate::world::{Clock, Deadline, Timers};

/// Content up to this size is copied behind the head: cheaper than a vectored write (measured: 0.2 us).
const COPIED: usize = 2 * 1024;
/// No more text than this waits before further content is taken: each piece of it is small.
const WAITING: usize = 16 * 1024;
const FIRST_READ: usize = 4 * 1024;
const GROWTH: usize = 4;
const LARGEST_READ: usize = 256 * 1024;

/// One end of a connection: the stream, what was read and not yet used, and its deadline.
pub struct Link {
    /// What it runs over.
    pub stream: Stream,
    /// Bytes read and not yet used.
    pub buffer: BytesMut,
    /// The deadline of whatever this end waits for.
    pub deadline: Deadline,
    clock: Clock,
    read_size: usize,
    waiting: Waiting,
}

/// Whether the deadline runs for a read or a write that could not go on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Waiting {
    No,
    Yes,
}

impl Link {
    /// Takes a connected stream.
    pub fn new(stream: Stream, clock: Clock, timers: &std::rc::Rc<Timers>) -> Link {
        Link {
            stream,
            buffer: BytesMut::new(),
            deadline: timers.deadline(),
            clock,
            read_size: FIRST_READ,
            waiting: Waiting::No,
        }
    }

    /// Sets the deadline of what is waited for from `now` on.
    pub fn expect_within(&mut self, now: Instant, limit: Duration) {
        self.waiting = Waiting::Yes;
        self.deadline.set(now, limit);
    }

    /// What was waited for is here: the next wait has its own time.
    pub fn expect_nothing(&mut self) {
        self.waiting = Waiting::No;
    }

    /// Reads what is there into the buffer; 0 is the end. Cancel-safe.
    pub fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.buffer.capacity() - self.buffer.len() < self.read_size / 2 {
            if self.buffer.is_empty() {
                // Who waits owns no room: hundreds of exchanges that wait would fill the processor's cache with it.
                ready!(self.stream.poll_read_ready(cx))?;
            }
            self.buffer.reserve(self.read_size);
        }
        let room = self.buffer.capacity() - self.buffer.len();
        let read = ready!(pin!(self.stream.read_buf(&mut self.buffer)).poll(cx))?;
        // A full buffer says that more waits: ask for more at a time. A small read says the opposite.
        if read == room && self.read_size < LARGEST_READ {
            self.read_size *= GROWTH;
        }
        self.waiting = Waiting::No;
        Poll::Ready(Ok(read))
    }

    /// As `poll_fill`, but fails with `TimedOut` when nothing comes for `limit`.
    pub fn poll_fill_within(&mut self, limit: Duration, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        match self.poll_fill(cx) {
            Poll::Pending => self.poll_stall(limit, cx),
            ready => ready,
        }
    }

    /// Writes as much of the outbox as the socket takes; fails with `TimedOut` when it takes nothing for
    /// `limit`. Cancel-safe: what was written is remembered.
    pub fn poll_flush(
        &mut self,
        outbox: &mut Outbox,
        limit: Duration,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while !outbox.is_empty() {
            match outbox.poll_write(Pin::new(&mut self.stream), cx) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(_)) => self.waiting = Waiting::No,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return self.poll_stall(limit, cx).map_ok(|_| ()),
            }
        }
        // Under TLS the last record may still wait for the socket.
        match Pin::new(&mut self.stream).poll_flush(cx) {
            Poll::Pending => self.poll_stall(limit, cx).map_ok(|_| ()),
            flushed => flushed,
        }
    }

    /// The TCP socket, when nothing stands between us and it and nothing of it was read ahead.
    pub fn plain(&self) -> Option<&TcpStream> {
        self.stream.plain_tcp().filter(|_| self.buffer.is_empty())
    }

    /// Takes what was read, or reads: empty at the end. While nothing comes there is no buffer. Cancel-safe.
    pub fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
        if self.buffer.is_empty() {
            let filled = self.poll_fill(cx);
            if filled.is_pending() {
                // What came was no text yet.
                self.buffer = BytesMut::new();
            }
            ready!(filled)?;
        }
        Poll::Ready(Ok(self.buffer.split().freeze()))
    }

    /// Writes all of `bytes`; what is written is taken off them. Cancel-safe.
    pub fn poll_send(&mut self, bytes: &mut Bytes, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !bytes.is_empty() {
            match ready!(Pin::new(&mut self.stream).poll_write(cx, bytes))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => bytes.advance(written),
            }
        }
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    /// Sends our end: the peer may go on sending. Cancel-safe.
    pub fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    /// The buffers of a finished exchange go; bytes of the next request stay.
    pub fn rest(&mut self) {
        self.read_size = FIRST_READ;
        self.waiting = Waiting::No;
        if self.buffer.is_empty() {
            self.buffer = BytesMut::new();
        }
    }

    fn poll_stall(&mut self, limit: Duration, cx: &Context<'_>) -> Poll<io::Result<usize>> {
        if self.waiting == Waiting::No {
            self.waiting = Waiting::Yes;
            self.deadline.set(self.clock.now(), limit);
        }
        match self.deadline.poll_passed(cx) {
            true => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            false => Poll::Pending,
        }
    }
}

/// Bytes on their way out: text, then content, then a few fixed bytes.
pub struct Outbox {
    /// Not one byte has been written.
    untouched: bool,
    text: Vec<u8>,
    written: usize,
    content: Bytes,
    end: &'static [u8],
}

impl Outbox {
    /// An outbox that holds a head.
    pub fn new(text: Vec<u8>) -> Outbox {
        Outbox { untouched: true, text, written: 0, content: Bytes::new(), end: &[] }
    }

    /// Puts content into an empty outbox.
    pub fn put(&mut self, content: Bytes) {
        debug_assert!(self.is_empty(), "content may not get in front of what waits");
        self.content = content;
    }

    fn is_empty(&self) -> bool {
        self.written == self.text.len() && self.content.is_empty() && self.end.is_empty()
    }

    /// Whether another piece can be added without getting in front of one that waits.
    fn takes_content(&self) -> bool {
        self.content.is_empty() && self.end.is_empty() && self.text.len() - self.written <= WAITING
    }

    fn poll_write(&mut self, stream: Pin<&mut Stream>, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let text = &self.text[self.written..];
        let written = if self.content.is_empty() && self.end.is_empty() {
            ready!(stream.poll_write(cx, text))?
        } else {
            let slices = [IoSlice::new(text), IoSlice::new(&self.content), IoSlice::new(self.end)];
            let from = usize::from(text.is_empty());
            ready!(stream.poll_write_vectored(cx, &slices[from..]))?
        };
        self.advance(written);
        Poll::Ready(Ok(written))
    }

    fn advance(&mut self, mut written: usize) {
        self.untouched &= written == 0;
        let text = written.min(self.text.len() - self.written);
        self.written += text;
        written -= text;
        if self.written == self.text.len() {
            self.text.clear();
            self.written = 0;
        }
        let content = written.min(self.content.len());
        let _ = self.content.split_to(content);
        self.end = &self.end[written - content..];
    }
}

/// Sends one message: its head, then its body as it comes.
pub struct Sender {
    outbox: Outbox,
    framing: Framing,
    /// Content still owed under `Framing::Length`.
    owed: u64,
    /// A frame that was pulled while the one before it was being framed.
    next: Option<Result<Frame, BodyError>>,
    state: State,
    /// Content bytes handed to the socket or about to be.
    pub sent: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Body,
    Done,
    Failed,
}

/// Why a message could not be sent.
#[derive(Debug)]
pub enum SendError {
    /// Its body failed.
    Body(BodyError),
    /// The connection failed.
    Link(io::Error),
}

impl Sender {
    /// Will send `head` and a body in this framing.
    pub fn new(head: Vec<u8>, framing: Framing) -> Sender {
        let owed = if let Framing::Length(length) = framing { length } else { 0 };
        let state = match framing {
            Framing::None | Framing::Length(0) => State::Done,
            _ => State::Body,
        };
        Sender { outbox: Outbox::new(head), framing, owed, next: None, state, sent: 0 }
    }

    /// Goes on sending; `flush` writes the outbox to the connection. Ready when everything was written.
    /// Cancel-safe.
    pub fn poll(
        &mut self,
        body: &mut Body,
        cx: &mut Context<'_>,
        mut flush: impl FnMut(&mut Outbox, &mut Context<'_>) -> Poll<io::Result<()>>,
    ) -> Poll<Result<(), SendError>> {
        loop {
            let loaded = match self.state {
                State::Body if self.outbox.takes_content() => self.poll_load(body, cx),
                _ => Poll::Ready(Ok(())),
            };
            if let Poll::Ready(Err(error)) = loaded {
                // What came before the failure still leaves, if it can without waiting.
                let _ = flush(&mut self.outbox, cx);
                return Poll::Ready(Err(SendError::Body(error)));
            }
            ready!(flush(&mut self.outbox, cx)).map_err(SendError::Link)?;
            ready!(loaded).map_err(SendError::Body)?;
            if self.state == State::Done && self.outbox.is_empty() {
                // What has left needs no room while the peer works.
                self.outbox.text = Vec::new();
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// Sends what stands in the outbox (the head) without pulling the body. Cancel-safe.
    pub fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        mut flush: impl FnMut(&mut Outbox, &mut Context<'_>) -> Poll<io::Result<()>>,
    ) -> Poll<io::Result<()>> {
        flush(&mut self.outbox, cx)
    }

    /// Whether all that was pulled has left, and more of the body is to come.
    pub fn waits_for_body(&self) -> bool {
        self.state == State::Body && self.outbox.is_empty()
    }

    /// Gives up on what is left.
    pub fn fail(&mut self) {
        self.state = State::Failed;
    }

    /// Whether it gave up.
    pub fn failed(&self) -> bool {
        self.state == State::Failed
    }

    /// Whether not one byte has been handed to the socket.
    pub fn untouched(&self) -> bool {
        self.outbox.untouched
    }

    /// Puts the next piece of the body into the outbox, and the end with it when it is known.
    fn poll_load(&mut self, body: &mut Body, cx: &mut Context<'_>) -> Poll<Result<(), BodyError>> {
        let frame = match self.next.take() {
            Some(frame) => Some(frame),
            None => ready!(body.poll_frame(cx)),
        };
        match frame {
            Some(Ok(Frame::Data(content))) => self.load(content, body, cx),
            Some(Ok(Frame::Trailers(fields))) => self.end(Some(&fields)),
            Some(Err(error)) => Err(error),
            None => self.end(None),
        }
        .into()
    }

    fn load(&mut self, content: Bytes, body: &mut Body, cx: &mut Context<'_>) -> Result<(), BodyError> {
        self.sent += content.len() as u64;
        match self.framing {
            Framing::Length(_) => {
                self.owed = self.owed.checked_sub(content.len() as u64).ok_or(BodyError::Malformed)?;
                if self.owed == 0 {
                    self.state = State::Done;
                }
            }
            Framing::Chunked => {
                h1::chunk_start(content.len(), &mut self.outbox.text);
                self.outbox.end = h1::CHUNK_END;
                match body.poll_frame(cx) {
                    Poll::Ready(None) => {
                        self.outbox.end = CHUNK_END_AND_LAST;
                        self.state = State::Done;
                    }
                    Poll::Ready(Some(frame)) => self.next = Some(frame),
                    Poll::Pending => {}
                }
            }
            Framing::Close | Framing::None => {}
        }
        if content.len() <= COPIED {
            let end = std::mem::take(&mut self.outbox.end);
            self.outbox.text.extend_from_slice(&content);
            self.outbox.text.extend_from_slice(end);
        } else {
            self.outbox.content = content;
        }
        Ok(())
    }

    fn end(&mut self, trailers: Option<&Fields>) -> Result<(), BodyError> {
        if self.owed > 0 {
            return Err(BodyError::Incomplete);
        }
        self.state = State::Done;
        if self.framing == Framing::Chunked {
            match trailers {
                Some(fields) => h1::trailers(fields, &mut self.outbox.text),
                None => self.outbox.text.extend_from_slice(h1::LAST_CHUNK),
            }
        }
        Ok(())
    }
}

const CHUNK_END_AND_LAST: &[u8] = b"\r\n0\r\n\r\n";

#[cfg(test)]
mod tests {
    use super::*;

    /// Always has a small piece.
    struct Drops;

    impl sluice_http::Source for Drops {
        fn poll_frame(&mut self, _: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
            Poll::Ready(Some(Ok(Frame::Data(Bytes::from_static(&[b'x'; 100])))))
        }

        fn length(&self) -> Option<u64> {
            None
        }
    }

    #[tokio::test(flavor = "local")]
    async fn a_link_that_waits_for_bytes_owns_no_buffer() {
        use tokio::io::AsyncWriteExt as _;
        let world = crate::world::World::new(Clock::start(), 1);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let connecting = TcpStream::connect(listener.local_addr().unwrap());
        let (accepted, peer) = tokio::join!(listener.accept(), connecting);
        let socket = crate::stream::Socket::Tcp(accepted.unwrap().0);
        let (mut link, mut peer) =
            (Link::new(Stream::Plain(socket), world.clock, &world.timers), peer.unwrap());
        for bytes in ["first", "second"] {
            peer.write_all(bytes.as_bytes()).await.unwrap();
            assert_eq!(std::future::poll_fn(|cx| link.poll_receive(cx)).await.unwrap(), bytes);
            let mut cx = Context::from_waker(std::task::Waker::noop());
            assert!(link.poll_receive(&mut cx).is_pending());
            assert_eq!(link.buffer.capacity(), 0);
        }
    }

    #[test]
    fn a_peer_that_takes_nothing_stops_the_body_whatever_the_size_of_its_pieces() {
        for framing in [Framing::Chunked, Framing::Close] {
            let mut sender = Sender::new(vec![b'h'; 500], framing);
            let mut body = Body::Stream(Box::new(Drops));
            let mut cx = Context::from_waker(std::task::Waker::noop());
            for _ in 0..1000 {
                assert!(sender.poll(&mut body, &mut cx, |_, _| Poll::Pending).is_pending());
            }
            assert!(sender.outbox.text.len() < 20_000, "{} bytes wait", sender.outbox.text.len());
        }
    }
}
