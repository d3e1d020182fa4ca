//! The set-up of a connection, top to bottom: PROXY header, TLS handshake, then its protocol.
//!
//! Promise: nobody waits for a byte that the listener's settings do not ask for; whatever goes wrong before
//! the protocol begins is counted and closes the connection within its own time.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use bytes::BytesMut;

use super::admit::admit;
use super::{LocalListener, proxy_header, secure};
use crate::config::document::Protocol;
use crate::facts::Scheme;
use crate::protocol::{Arrival, http1, http2, socks5, tcp};
use crate::stream::{Socket, Stream};
use crate::tls::Server;
use crate::wire::Link;
use crate::worker::Worker;

/// Serves an accepted connection until it ends.
pub async fn arrive(
    worker: Rc<Worker>,
    listener: Rc<LocalListener>,
    mut socket: Socket,
    mut peer: SocketAddr,
) {
    // What came behind the PROXY header.
    let mut read = BytesMut::new();
    let mut _client = None;
    if let Some(policy) = listener.shared.proxy_protocol.as_ref().filter(|policy| policy.concerns(peer)) {
        // Boxed: connections without such a header carry no room for it.
        let header = proxy_header::receive(&worker, &listener, policy, (&mut socket, &mut read));
        match Box::pin(header).await {
            Ok(said) => peer = said.unwrap_or(peer),
            Err(_counted) => return,
        }
        match admit(&listener, peer.ip()) {
            Ok(counted) => _client = counted,
            Err(_counted) => return,
        }
    }
    if let Some(server) = listener.tls.clone() {
        return Box::pin(arrive_secured(worker, listener, server, (socket, read, peer))).await;
    }
    let (clock, timers) = (worker.world.clock, Rc::clone(&worker.world.timers));
    let mut link = Link::new(Stream::Plain(socket), clock, &timers);
    link.buffer = read;
    let arrival = Arrival { worker, peer, scheme: Scheme::Http, tls: None };
    match listener.shared.protocol {
        Protocol::Tcp => Box::pin(tcp::serve(arrival, listener, link)).await,
        Protocol::Socks5 => Box::pin(socks5::serve(arrival, listener, link)).await,
        // Datagrams come as no connection.
        Protocol::Http | Protocol::Udp => http1::serve(arrival, listener, link).await,
    }
}

/// The same over TLS: boxed as a whole, for its state is larger anyway.
async fn arrive_secured(
    worker: Rc<Worker>,
    listener: Rc<LocalListener>,
    server: Arc<Server>,
    (socket, read, peer): (Socket, BytesMut, SocketAddr),
) {
    let handshake = secure::secure(&worker, &listener, &server, (socket, read.freeze()));
    let Some((stream, secured)) = Box::pin(handshake).await else { return };
    let link = Link::new(stream, worker.world.clock, &worker.world.timers);
    let speaks_http2 = secured.alpn.as_deref() == Some("h2");
    let arrival = Arrival { worker, peer, scheme: Scheme::Https, tls: Some(secured) };
    match listener.shared.protocol {
        Protocol::Tcp => tcp::serve(arrival, listener, link).await,
        Protocol::Socks5 => socks5::serve(arrival, listener, link).await,
        _ if speaks_http2 => http2::serve(arrival, listener, link).await,
        _ => http1::serve(arrival, listener, link).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Arrive<F> = fn(Rc<Worker>, Rc<LocalListener>, Socket, SocketAddr) -> F;

    fn size_of_arrive<F>(_: Arrive<F>) -> usize {
        size_of::<F>()
    }

    #[test]
    fn the_set_up_adds_little_to_a_connection() {
        let size = size_of_arrive(arrive);
        assert!(size <= 768, "the task of a connection has grown to {size} bytes");
    }
}
