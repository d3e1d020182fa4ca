//! The model: a document that has been checked. Names are positions, texts are compiled, defaults applied;
//! nothing in it needs the network, and nothing in it changes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use sluice_http::Method;
use sluice_http::h1::Limits;

use super::document::Protocol;
use super::requests::Requests;
use crate::action::Action;
use crate::consumer::Consumers;
use crate::filter;
use crate::filter::ip_access::IpAccess;
use crate::limit;
use crate::observe::access_log;
use crate::pipeline::forwarded;
use crate::resolve;
use crate::route::{Streams, Table};
use crate::sockets::Place;
use crate::tls;
use crate::tunnels::config;
use crate::upstream::config::Policy;
use crate::value::Network;

/// A checked configuration.
pub struct Model {
    /// Sockets.
    pub listeners: Vec<Arc<ListenerPolicy>>,
    /// Finds routes of HTTP requests.
    pub table: Table,
    /// Finds routes for CONNECT: those with the action forward_proxy, if there is one.
    pub connect: Option<Table>,
    /// Where names are looked up.
    pub dns: resolve::Policy,
    /// Finds routes of connections and flows.
    pub streams: Streams,
    /// The routes, in the order written.
    pub routes: Vec<Route>,
    /// The upstreams by name.
    pub upstreams: Vec<(Arc<str>, Policy)>,
    /// Whom the gateway knows.
    pub consumers: Arc<Consumers>,
    /// How their limits are counted.
    pub consumer_limits: limit::plan::Plan,
    /// Certificates by name.
    pub certificates: Vec<(String, tls::CertificatePolicy)>,
    /// Limits of tunnels.
    pub tunnels: config::Policy,
    /// One line for each exchange.
    pub access_log: Option<access_log::Plan>,
}

impl Model {
    /// What it asks for of TLS, to be loaded from files.
    pub fn tls(&self) -> tls::Wanted<'_> {
        let listeners = self.listeners.iter();
        let upstreams = self.upstreams.iter();
        tls::Wanted {
            certificates: self.certificates.iter().map(|(name, policy)| (name.as_str(), policy)).collect(),
            listeners: listeners.filter_map(|one| Some((&*one.name, one.tls.as_ref()?))).collect(),
            upstreams: upstreams.filter_map(|(name, one)| Some((&**name, one.tls.as_ref()?))).collect(),
        }
    }

    /// What finds the routes of requests with this method; `None` when there can be none.
    pub fn table_for(&self, method: Method) -> Option<&Table> {
        match method {
            Method::Connect => self.connect.as_ref(),
            _ => Some(&self.table),
        }
    }
}

/// A checked route.
pub struct Route {
    /// Its name.
    pub name: Arc<str>,
    /// The listeners it is for; empty: all of them.
    pub listeners: Box<[String]>,
    /// Its filters, in the order written.
    pub filters: Vec<filter::Built>,
    /// What it does.
    pub action: Action,
}

/// A listener, checked: defaults applied.
pub struct ListenerPolicy {
    /// Its name.
    pub name: Arc<str>,
    /// Where it listens.
    pub place: Place,
    /// Who may connect to its Unix socket.
    pub mode: Option<u32>,
    /// TLS; None: plain.
    pub tls: Option<tls::ServerPolicy>,
    /// Who is believed, and what endpoints are told.
    pub forwarded: forwarded::Policy,
    /// What is spoken on it.
    pub protocol: Protocol,
    /// Who says first who its client is.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// Times.
    pub timeouts: ListenerTimeouts,
    /// Limits of heads.
    pub limits: Limits,
    /// The most bytes of a request body.
    pub body_limit: u64,
    /// The most open connections, or flows.
    pub connections: u32,
    /// Who may come in.
    pub access: Option<IpAccess>,
    /// The most open connections of one client.
    pub connections_per_client: Option<u32>,
    /// The most requests at once.
    pub requests: Option<Requests>,
    /// The most bytes of a datagram.
    pub datagram: usize,
    /// Requests of one connection.
    pub requests_per_connection: u32,
    /// HTTP/2.
    pub http2: Http2Policy,
    /// The one route of a tunnel listener.
    pub registrations: Option<Box<Route>>,
}

/// HTTP/2 on a listener, with defaults.
#[derive(Clone, Copy, Debug)]
pub struct Http2Policy {
    /// Streams that may be open on a connection.
    pub max_streams: u32,
    /// Bytes that may arrive unasked on a stream.
    pub stream_window: u32,
    /// Bytes that may arrive unasked on a connection.
    pub connection_window: u32,
    /// How long a connection takes new streams.
    pub max_age: Duration,
}

/// Who sends a PROXY header, checked.
#[derive(Clone, Debug)]
pub struct ProxyProtocol {
    /// The proxies.
    pub from: Vec<Network>,
    /// What becomes of a connection without a header.
    pub missing: Missing,
    /// How long it may take.
    pub timeout: Duration,
}

/// What becomes of a connection whose PROXY header is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// It is taken as it is.
    Accepted,
    /// It is refused.
    Refused,
}

impl ProxyProtocol {
    /// Whether this peer sends a header.
    pub fn concerns(&self, peer: SocketAddr) -> bool {
        self.from.iter().any(|network| network.contains(peer.ip()))
    }
}

/// Times of a listener, with defaults.
#[derive(Clone, Copy, Debug)]
pub struct ListenerTimeouts {
    /// For a head.
    pub head: Duration,
    /// Between requests.
    pub idle: Duration,
    /// Without a byte of a body.
    pub stall: Duration,
    /// For an exchange.
    pub total: Option<Duration>,
}
