//! The PROXY header that a trusted peer sends first: who its client is.
//!
//! Promise: only peers that the listener names are asked; a header that is missing, malformed or late closes
//! the connection and is counted by its reason; bytes behind it are kept.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

use bytes::{Buf as _, BytesMut};
use sluice_http::proxy_protocol::{self, Invalid, Parsed, Source};
use tokio::io::AsyncReadExt as _;

use super::LocalListener;
use crate::config::model::{Missing, ProxyProtocol};
use crate::failure::Failure;
use crate::stream::Socket;
use crate::worker::Worker;

/// The connection is over, and the reason was counted.
#[derive(Debug)]
pub struct Refused;

/// Receives the header. Gives the client's address, or none when the proxy speaks for itself.
pub async fn receive(
    worker: &Rc<Worker>,
    listener: &LocalListener,
    policy: &ProxyProtocol,
    (socket, read): (&mut Socket, &mut BytesMut),
) -> Result<Option<SocketAddr>, Refused> {
    let deadline = worker.world.timers.deadline();
    deadline.set(worker.world.clock.now(), policy.timeout);
    loop {
        match proxy_protocol::parse(read) {
            Ok(Parsed::Header { length, source, .. }) => {
                read.advance(length);
                return Ok(client(source));
            }
            Ok(Parsed::More) => {}
            Err(Invalid::NotProxy) if policy.missing == Missing::Accepted => return Ok(None),
            Err(invalid) => {
                listener.cells.refused_header(invalid);
                listener.cells.failed(Failure::BadRequest);
                return Err(Refused);
            }
        }
        let received = poll_fn(|cx| match pin!(socket.read_buf(read)).poll(cx) {
            Poll::Pending if deadline.poll_passed(cx) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            received => received,
        });
        let failure = match received.await {
            Ok(0) | Err(_) if read.is_empty() && policy.missing == Missing::Accepted => return Ok(None),
            Ok(1..) => continue,
            Err(error) if error.kind() == io::ErrorKind::TimedOut => Failure::ClientTimeout,
            Ok(0) | Err(_) => Failure::ClientGone,
        };
        listener.cells.failed(failure);
        return Err(Refused);
    }
}

fn client(source: Source) -> Option<SocketAddr> {
    match source {
        Source::Proxied { source, .. } => Some(source),
        Source::Local | Source::Unix => None,
    }
}
