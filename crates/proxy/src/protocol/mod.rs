//! What is spoken on a connection, and who is at its other end.

pub mod http1;
pub mod http2;
pub mod socks5;
pub mod tcp;
pub mod tunnel;
pub mod udp;

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use sluice_http::{Body, Method, NameId, RequestHead, ResponseHead};

use crate::exchange::{Client, Exchange};
use crate::facts::Scheme;
use crate::listener::LocalListener;
use crate::pipeline::forwarded;
use crate::tls::Secured;
use crate::worker::Worker;

/// A connection that was accepted: where it lives and who is at its other end.
#[derive(Clone)]
pub struct Arrival {
    /// The worker it lives on.
    pub worker: Rc<Worker>,
    /// The other end: what a trusted PROXY header says, else the socket's.
    pub peer: SocketAddr,
    /// Plain or over TLS.
    pub scheme: Scheme,
    /// What the TLS handshake said.
    pub tls: Option<Arc<Secured>>,
}

impl Arrival {
    /// The facts an exchange on this connection starts with.
    pub fn begin(&self, listener: &LocalListener, started: Instant, head: Option<&RequestHead>) -> Exchange {
        let shared = &listener.shared;
        let (address, scheme) = match head {
            Some(head) => forwarded::client(self.peer, self.scheme, head, &shared.forwarded),
            None => (self.peer.ip(), self.scheme),
        };
        let client = Client {
            peer: self.peer,
            address,
            scheme,
            listener: Arc::clone(&listener.name),
            tls: self.tls.clone(),
        };
        let request_id = self.worker.request_id(head, self.peer, (&shared.forwarded, started));
        let mut exchange = Exchange::begin(client, request_id, started);
        exchange.reached = Some(listener.bound.reached());
        exchange
    }
}

/// Our own answers to HEAD tell the length of what GET would get, as an endpoint's do.
fn tell_length(method: Method, head: &mut ResponseHead, body: &Body) {
    if let (Method::Head, Body::Full(content)) = (method, body)
        && !head.fields.contains(NameId::ContentLength)
    {
        head.fields.append(NameId::ContentLength, content.len().to_string().as_bytes());
    }
}
