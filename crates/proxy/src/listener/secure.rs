//! The TLS handshake of an accepted connection.
//!
//! Promise: it has a deadline; a client that does not speak TLS is told so where it speaks HTTP; every
//! handshake that fails is counted by its reason.

use std::io;
use std::rc::Rc;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::TlsAcceptor;

use super::LocalListener;
use crate::stream::{Rewound, Socket, Stream};
use crate::tls::{Secured, Server, TlsRefusal};
use crate::worker::Worker;

/// The content type of a handshake record, with which every TLS connection begins (RFC 8446 section 5.1).
const HANDSHAKE: u8 = 22;

/// What a client that speaks HTTP where TLS is spoken can understand.
const PLAIN_ANSWER: &[u8] = b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nConnection: close\r\n\
Content-Length: 55\r\n\r\nThis port speaks TLS: ask for it with https://, please.\n";

/// Makes the handshake; `read` are bytes that were read of the socket already. `None`: it failed, and was
/// counted.
pub async fn secure(
    worker: &Rc<Worker>,
    listener: &LocalListener,
    tls: &Server,
    (socket, read): (Socket, Bytes),
) -> Option<(Stream, Arc<Secured>)> {
    let deadline = worker.world.timers.deadline();
    deadline.set(worker.world.clock.now(), tls.handshake_timeout());
    let shaken = deadline.limit(shake(tls, socket, read)).await.unwrap_or(Err(TlsRefusal::TimedOut));
    match shaken {
        Ok(secured) => Some(secured),
        Err(refusal) => {
            listener.cells.tls_refused(refusal);
            None
        }
    }
}

async fn shake(tls: &Server, mut socket: Socket, read: Bytes) -> Result<(Stream, Arc<Secured>), TlsRefusal> {
    let read = match read.is_empty() {
        false => read,
        true => first(&mut socket).await.map_err(|_| TlsRefusal::Closed)?,
    };
    match read.first() {
        None => return Err(TlsRefusal::Closed),
        Some(&HANDSHAKE) => {}
        Some(byte) => {
            if byte.is_ascii_uppercase() {
                // The client may be gone; nothing depends on the answer.
                let _ = socket.write_all(PLAIN_ANSWER).await;
            }
            return Err(TlsRefusal::NotTls);
        }
    }
    let acceptor = TlsAcceptor::from(Arc::clone(tls.config()));
    let accepted = acceptor.accept(Rewound { socket, read }).await;
    let stream = accepted.map_err(|error| TlsRefusal::of(&error))?;
    let secured = Arc::new(Secured::of_server(stream.get_ref().1));
    Ok((Stream::Server(Box::new(stream)), secured))
}

/// The first bytes: usually a whole ClientHello.
async fn first(socket: &mut Socket) -> io::Result<Bytes> {
    let mut buffer = BytesMut::with_capacity(2048);
    socket.read_buf(&mut buffer).await?;
    Ok(buffer.freeze())
}
