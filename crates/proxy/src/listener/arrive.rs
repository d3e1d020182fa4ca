//! The set-up of a connection, top to bottom: PROXY header, TLS handshake, then its protocol.
//!
//! Promise: nobody waits for a byte that the listener's settings do not ask for; whatever goes wrong before
//! the protocol begins is counted and closes the connection within its own time.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use bytes::BytesMut;

use super::admit::admit;
use super::{LocalListener, Open, proxy_header, secure};
use crate::config::document::Protocol;
use crate::facts::Scheme;
use crate::protocol::{Arrival, http1, http2, socks5, tcp};
use crate::stream::{Socket, Stream};
use crate::tls::Server;
use crate::wire::Link;
use crate::worker::Worker;

/// Serves an accepted connection until it ends, in a task of its own.
pub fn arrive(worker: &Rc<Worker>, listener: &Rc<LocalListener>, socket: Socket, peer: SocketAddr) {
    let shared = &listener.shared;
    let header = shared.proxy_protocol.as_ref().is_some_and(|policy| policy.concerns(peer));
    let counted = match header {
        // It says who the client is.
        true => None,
        false => match admit(listener, peer.ip()) {
            Ok(counted) => counted,
            Err(_counted) => return,
        },
    };
    let open = (Open::count(listener, &worker.connections), counted);
    let (own, listener) = (Rc::clone(worker), Rc::clone(listener));
    let is_http = matches!(shared.protocol, Protocol::Http | Protocol::Tunnel);
    if header || listener.tls.is_some() || !is_http {
        return worker.world.spawn(async move {
            set_up(own, listener, socket, peer).await;
            drop(open);
        });
    }
    // Idle connections are many, most of them such: their task has no room for a set-up.
    let session = http1::Session::new(plain(own, peer), link(worker, Stream::Plain(socket)));
    worker.world.spawn(async move {
        http1::serve(session, listener).await;
        drop(open);
    });
}

fn plain(worker: Rc<Worker>, peer: SocketAddr) -> Arrival {
    Arrival { worker, peer, scheme: Scheme::Http, tls: None }
}

fn link(worker: &Worker, stream: Stream) -> Link {
    Link::new(stream, worker.world.clock, &worker.world.timers)
}

/// The set-up of a connection that has one, then its protocol.
async fn set_up(worker: Rc<Worker>, listener: Rc<LocalListener>, mut socket: Socket, mut peer: SocketAddr) {
    // What came behind the PROXY header.
    let mut read = BytesMut::new();
    let mut _client = None;
    if let Some(policy) = listener.shared.proxy_protocol.as_ref().filter(|policy| policy.concerns(peer)) {
        match proxy_header::receive(&worker, &listener, policy, (&mut socket, &mut read)).await {
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
    let mut link = link(&worker, Stream::Plain(socket));
    link.buffer = read;
    let arrival = plain(worker, peer);
    match listener.shared.protocol {
        Protocol::Tcp => Box::pin(tcp::serve(arrival, listener, link)).await,
        Protocol::Socks5 => Box::pin(socks5::serve(arrival, listener, link)).await,
        // Datagrams come as no connection.
        Protocol::Http | Protocol::Tunnel | Protocol::Udp => {
            Box::pin(http1::serve(http1::Session::new(arrival, link), listener)).await;
        }
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
    let link = link(&worker, stream);
    let speaks_http2 = secured.alpn.as_deref() == Some("h2");
    let arrival = Arrival { worker, peer, scheme: Scheme::Https, tls: Some(secured) };
    match listener.shared.protocol {
        Protocol::Tcp => tcp::serve(arrival, listener, link).await,
        Protocol::Socks5 => socks5::serve(arrival, listener, link).await,
        _ if speaks_http2 => http2::serve(arrival, listener, link).await,
        _ => http1::serve(http1::Session::new(arrival, link), listener).await,
    }
}
