//! What a connection runs over: a TCP or Unix socket, plain or under TLS.
//!
//! Promise: everything above reads and writes one type and never asks which; what was read before the
//! handshake (a PROXY header's neighbours) is not lost.

use std::io;
use std::io::IoSlice;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::{client, server};

/// A connected socket.
#[derive(Debug)]
pub enum Socket {
    /// TCP.
    Tcp(TcpStream),
    /// A Unix stream socket.
    Unix(UnixStream),
}

/// A socket of which some bytes were read already.
#[derive(Debug)]
pub struct Rewound {
    /// The socket.
    pub socket: Socket,
    /// What comes before the bytes that are still in it.
    pub read: Bytes,
}

/// A connected stream.
#[derive(Debug)]
pub enum Stream {
    /// Nothing between us and the socket.
    Plain(Socket),
    /// We are the TLS server.
    Server(Box<server::TlsStream<Rewound>>),
    /// We are the TLS client.
    Client(Box<client::TlsStream<Socket>>),
}

impl Socket {
    /// Ready when bytes, the end or an error wait.
    pub fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Socket::Tcp(socket) => socket.poll_read_ready(cx),
            Socket::Unix(socket) => socket.poll_read_ready(cx),
        }
    }

    fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Socket::Tcp(socket) => socket.try_read(buffer),
            Socket::Unix(socket) => socket.try_read(buffer),
        }
    }

    fn options(&self) -> socket2::SockRef<'_> {
        match self {
            Socket::Tcp(socket) => socket2::SockRef::from(socket),
            Socket::Unix(socket) => socket2::SockRef::from(socket),
        }
    }
}

/// How carefully a connection is asked whether it is quiet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Care {
    /// What the runtime knows of it: no system call.
    Usual,
    /// The kernel is asked: for requests that cannot be sent again.
    Extra,
}

impl Stream {
    /// The socket at the bottom.
    pub fn socket(&self) -> &Socket {
        match self {
            Stream::Plain(socket) => socket,
            Stream::Server(tls) => &tls.get_ref().0.socket,
            Stream::Client(tls) => tls.get_ref().0,
        }
    }

    /// The TCP socket, when nothing stands between us and it.
    pub fn plain_tcp(&self) -> Option<&TcpStream> {
        match self {
            Stream::Plain(Socket::Tcp(socket)) => Some(socket),
            _ => None,
        }
    }

    /// Ready when reading may give something: bytes, the end, or an error.
    pub fn poll_read_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let waits = match self {
            Stream::Plain(_) => false,
            Stream::Server(tls) => {
                let (rewound, session) = tls.get_mut();
                !rewound.read.is_empty() || has_text(session.reader())
            }
            Stream::Client(tls) => has_text(tls.get_mut().1.reader()),
        };
        match waits {
            true => Poll::Ready(Ok(())),
            false => self.socket().poll_read_ready(cx),
        }
    }

    /// Whether the peer has sent nothing, not even its end: an idle connection that can be used.
    pub fn is_quiet(&mut self, care: Care) -> bool {
        let told = match self {
            // Asks the kernel only where the runtime has heard something, and does not depend on the task's
            // budget.
            Stream::Plain(socket) => {
                let read = socket.try_read(&mut [0]);
                matches!(read, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
            }
            // Session tickets may wait: they are taken in and are nothing.
            Stream::Server(_) | Stream::Client(_) => {
                let mut byte = [0];
                let mut cx = Context::from_waker(Waker::noop());
                Pin::new(&mut *self).poll_read(&mut cx, &mut ReadBuf::new(&mut byte)).is_pending()
            }
        };
        if !told || care == Care::Usual {
            return told;
        }
        let mut byte = [std::mem::MaybeUninit::uninit()];
        let peeked = self.socket().options().peek(&mut byte);
        matches!(peeked, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Closing it will look like an error to the peer, not like an orderly end.
    pub fn reset_on_close(&self) {
        // When it fails, the close is an orderly one: there is nothing else to be done.
        let _ = self.socket().options().set_linger(Some(Duration::ZERO));
    }
}

/// Whether decrypted bytes, or the peer's orderly end, wait.
fn has_text(reader: rustls::Reader<'_>) -> bool {
    reader.into_first_chunk().is_ok()
}

macro_rules! delegate {
    ($stream:expr, $inner:ident => $call:expr) => {
        match $stream {
            Stream::Plain($inner) => $call,
            Stream::Server($inner) => $call,
            Stream::Client($inner) => $call,
        }
    };
}

impl AsyncRead for Stream {
    #[inline]
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        delegate!(self.get_mut(), inner => Pin::new(inner).poll_read(cx, buffer))
    }
}

impl AsyncWrite for Stream {
    #[inline]
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        delegate!(self.get_mut(), inner => Pin::new(inner).poll_write(cx, bytes))
    }

    #[inline]
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        delegate!(self.get_mut(), inner => Pin::new(inner).poll_write_vectored(cx, slices))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    #[inline]
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            // A socket holds nothing back.
            Stream::Plain(_) => Poll::Ready(Ok(())),
            Stream::Server(tls) => Pin::new(tls).poll_flush(cx),
            Stream::Client(tls) => Pin::new(tls).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        delegate!(self.get_mut(), inner => Pin::new(inner).poll_shutdown(cx))
    }
}

macro_rules! on_socket {
    ($socket:expr, $inner:ident => $call:expr) => {
        match $socket {
            Socket::Tcp($inner) => $call,
            Socket::Unix($inner) => $call,
        }
    };
}

impl AsyncRead for Socket {
    #[inline]
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        on_socket!(self.get_mut(), inner => Pin::new(inner).poll_read(cx, buffer))
    }
}

impl AsyncWrite for Socket {
    #[inline]
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        on_socket!(self.get_mut(), inner => Pin::new(inner).poll_write(cx, bytes))
    }

    #[inline]
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        on_socket!(self.get_mut(), inner => Pin::new(inner).poll_write_vectored(cx, slices))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_socket!(self.get_mut(), inner => Pin::new(inner).poll_shutdown(cx))
    }
}

impl AsyncRead for Rewound {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.read.is_empty() {
            return Pin::new(&mut this.socket).poll_read(cx, buffer);
        }
        let length = this.read.len().min(buffer.remaining());
        buffer.put_slice(&this.read[..length]);
        this.read.advance(length);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Rewound {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().socket).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().socket).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_shutdown(cx)
    }
}
