//! An HTTP/2 stream as one end of a tunnel (RFC 9113 section 8.5, RFC 8441), on either side of the gateway.
//!
//! Promise: the peer may send no more than has been passed on; its end is an END_STREAM, a break a reset.

use std::io;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream};

use crate::relay::End;

/// Both directions of a stream.
pub struct StreamEnd {
    send: SendStream<Bytes>,
    receive: RecvStream,
    /// Bytes given out whose window has not been given back.
    held: usize,
}

impl StreamEnd {
    /// Takes a stream whose heads have been exchanged.
    pub fn new(send: SendStream<Bytes>, receive: RecvStream) -> StreamEnd {
        StreamEnd { send, receive, held: 0 }
    }
}

impl End for StreamEnd {
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
        let held = std::mem::take(&mut self.held);
        if held > 0 {
            // Whoever asks for more has passed on what came before. Fails only for more than was received.
            let _ = self.receive.flow_control().release_capacity(held);
        }
        loop {
            match ready!(self.receive.poll_data(cx)) {
                Some(Ok(bytes)) if bytes.is_empty() => {}
                Some(Ok(bytes)) => {
                    self.held = bytes.len();
                    return Poll::Ready(Ok(bytes));
                }
                Some(Err(error)) => return Poll::Ready(Err(broken(error))),
                None => return Poll::Ready(Ok(Bytes::new())),
            }
        }
    }

    fn poll_send(&mut self, bytes: &mut Bytes, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !bytes.is_empty() {
            self.send.reserve_capacity(bytes.len());
            let room = match self.send.capacity() {
                0 => match ready!(self.send.poll_capacity(cx)) {
                    Some(room) => room.map_err(broken)?,
                    None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
                },
                room => room,
            };
            let part = bytes.split_to(room.min(bytes.len()));
            self.send.send_data(part, false).map_err(broken)?;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_end(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.send.send_data(Bytes::new(), true).map_err(broken))
    }

    fn reset(&mut self) {
        self.send.send_reset(Reason::CONNECT_ERROR);
    }
}

fn broken(error: h2::Error) -> io::Error {
    match error.into_io() {
        Some(error) => error,
        None => io::ErrorKind::ConnectionReset.into(),
    }
}
