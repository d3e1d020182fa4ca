//! The document: what people write, in serde types. Doc comments here are the user manual: they become the
//! JSON Schema and docs/configuration.md.
//!
//! Promise: nothing is resolved or defaulted across objects here; unknown keys are errors.

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::requests;
use crate::filter::Filter as _;
use crate::filter::ip_access::IpAccess;
use crate::pipeline::forwarded::Forwarded;
use crate::value::{ByteSize, Network, Period};
use crate::{action, consumer, filter, limit, observe, resolve, route, tls, tunnels, upstream};

/// A Sluice configuration.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Document {
    /// What needs a restart to change. Everything else is live.
    pub process: Process,
    /// Sockets that accept connections, by name.
    pub listeners: BTreeMap<String, Listener>,
    /// What happens to which requests.
    pub routes: Vec<Route>,
    /// Groups of interchangeable endpoints, by name.
    pub upstreams: BTreeMap<String, upstream::Config>,
    /// Certificates with their private keys, by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub certificates: BTreeMap<String, tls::CertificateConfig>,
    /// Whom the gateway knows, by name: with credentials, groups, limits.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub consumers: BTreeMap<String, consumer::Config>,
    /// How the limits and quotas of consumers are counted. Default: by this gateway alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub consumer_limits: Option<limit::consumer::Config>,
    /// Where names are looked up, for the action forward_proxy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dns: Option<resolve::Config>,
    /// Reverse tunnels: how many there may be, and what gets no traffic. Who may open them is said by listeners of
    /// protocol "tunnel" and by routes with the action register_tunnels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tunnels: Option<tunnels::config::Config>,
    /// One line for each exchange.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access_log: Option<observe::access_log::Config>,
}

impl Document {
    /// The files besides the document that it takes something from whenever they change: certificates, keys,
    /// authorities, lists of revoked certificates, what filters read.
    pub fn files(&self) -> Vec<PathBuf> {
        let mut files: Vec<&String> = Vec::new();
        files.extend(
            self.certificates.values().flat_map(|certificate| [&certificate.chain, &certificate.key]),
        );
        let auths =
            self.listeners.values().filter_map(|listener| listener.tls.as_ref()?.client_auth.as_ref());
        files.extend(auths.flat_map(|auth| std::iter::once(&auth.ca).chain(&auth.crl)));
        files.extend(self.upstreams.values().filter_map(|upstream| upstream.tls.as_ref()?.ca()));
        let mut files: Vec<PathBuf> = files.into_iter().map(PathBuf::from).collect();
        files.extend(self.routes.iter().flat_map(|route| &route.filters).flat_map(filter::Config::files));
        files.extend(
            self.listeners
                .values()
                .filter_map(|listener| listener.ip_access.as_ref())
                .flat_map(IpAccess::files),
        );
        files.extend(
            self.routes
                .iter()
                .filter_map(|route| route.token.as_ref())
                .flat_map(action::token::Config::files),
        );
        files.sort_unstable();
        files.dedup();
        files
    }
}

/// What needs a restart to change.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Process {
    /// Number of worker threads. Default: the cores this process may use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workers: Option<std::num::NonZeroU16>,
    /// Where the admin endpoints listen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub admin: Option<Admin>,
    /// How long exchanges may take to finish after TERM. Default "30s".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drain_timeout: Option<Period>,
    /// A directory for what must outlive the process: the counts of quotas. It is made when it is not there.
    /// Default: they are kept in memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// Where the configuration is kept. Only "file" so far.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub store: Option<Store>,
}

/// Where the configuration is kept.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Store {
    /// This file.
    File,
}

/// The admin endpoints: /metrics, /livez, /readyz, /healthz.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Admin {
    /// Address and port; loopback only.
    pub address: String,
}

/// A socket that accepts connections.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Listener {
    /// Address and port: "127.0.0.1:8080", "[::]:80", ":8080" for every IPv4 address; or a Unix socket:
    /// "unix:/run/sluice.sock". Its peers count as 127.0.0.1.
    pub address: String,
    /// Who may connect to a Unix socket, as chmod takes it: "0660". Default: as the umask has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// What is spoken on it. Default "http".
    #[serde(default)]
    pub protocol: Protocol,
    /// Speaks TLS. Default: it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<tls::ServerTls>,
    /// Peers whose X-Forwarded-*, Forwarded and X-Request-Id are believed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub trusted_proxies: Vec<Network>,
    /// What is told to endpoints about the client.
    #[serde(default)]
    pub forwarded: Forwarded,
    /// Believes what trusted proxies say about their client in front of a connection (PROXY protocol,
    /// versions 1 and 2). Default: nobody is asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy_protocol: Option<ProxyProtocol>,
    /// Who may come in, by address. Others are turned away before anything is read of them; behind trusted
    /// proxies, where requests tell the address, they get 403.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip_access: Option<filter::ip_access::Config>,
    /// How long things may take.
    #[serde(default)]
    pub timeouts: ListenerTimeouts,
    /// How much is accepted.
    #[serde(default)]
    pub limits: ListenerLimits,
    /// HTTP/2 on this listener: over TLS by ALPN, without TLS when the client begins with it.
    #[serde(default)]
    pub http2: ListenerHttp2,
    /// Who may register tunnels here, for a listener of protocol "tunnel". Default: everybody who can connect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tunnel: Option<tunnels::config::AdmissionConfig>,
}

/// HTTP/2 on a listener.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct ListenerHttp2 {
    /// Streams that a client may have open on one connection. Default 128.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_streams: Option<std::num::NonZeroU16>,
    /// Bytes of a request body that a client may send before we take them, on each stream. Default "256KiB".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream_window: Option<ByteSize>,
    /// The same for all streams of a connection together. Default "1MiB".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connection_window: Option<ByteSize>,
    /// A connection that is older takes no further streams: the client opens another one. Default "1h".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_age: Option<Period>,
}

/// Who sends a PROXY header in front of a connection.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct ProxyProtocol {
    /// Networks or addresses of the proxies. From others a header is refused like any other garbage. Peers
    /// of a Unix socket count as 127.0.0.1.
    pub from: Vec<Network>,
    /// Whether they must send it. Default true. With false, a connection without a header is taken as it is;
    /// a peer that sends nothing at first is waited for up to `timeout`.
    #[serde(default = "yes")]
    pub required: bool,
    /// How long the header may take. Default "3s".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Period>,
}

/// What is spoken on a listener.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// HTTP/1.0, HTTP/1.1 and HTTP/2.
    #[default]
    Http,
    /// Any protocol over TCP or a Unix socket: connections are passed on as they are.
    Tcp,
    /// Any protocol over UDP: the datagrams of one client address are a flow to one endpoint.
    Udp,
    /// SOCKS 5: a CONNECT under the same routes as one over HTTP, for the action forward_proxy.
    Socks5,
    /// Connectors register here and open tunnels (Cranker 1.0 and 3.0), through which services that cannot be
    /// reached otherwise get their requests.
    Tunnel,
}

impl Protocol {
    /// The word documents use.
    pub const fn word(self) -> &'static str {
        match self {
            Protocol::Http => "http",
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Socks5 => "socks5",
            Protocol::Tunnel => "tunnel",
        }
    }
}

/// How long things may take on a listener's connections.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct ListenerTimeouts {
    /// From the first byte of a head to its last. Default "10s". On a TCP listener whose routes ask for a
    /// server name: until the TLS hello is there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub head: Option<Period>,
    /// Between two requests on a connection, and before the first. Default "60s". On a TCP listener: while
    /// nothing moves either way; default "10m". On a UDP listener the same of a flow; default "30s".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle: Option<Period>,
    /// Without a byte of a request body arriving, or of an answer leaving. Default "30s".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stall: Option<Period>,
    /// For a whole exchange. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total: Option<Period>,
}

/// How much is accepted on a listener's connections.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct ListenerLimits {
    /// Bytes of the start line and of each field line. Default "8KiB".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<ByteSize>,
    /// Bytes of a head. Default "16KiB".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub head: Option<ByteSize>,
    /// Field lines of a head. Default 100.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fields: Option<u16>,
    /// Bytes of a request body. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<ByteSize>,
    /// Open connections; further ones wait in the socket's backlog. Default: none. On a UDP listener: open
    /// flows; datagrams of further clients are dropped; default 10000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connections: Option<u32>,
    /// Open connections (or flows) of one client; further ones are closed at once. IPv6 clients are counted by
    /// their /64. Trusted proxies are not counted. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connections_per_client: Option<std::num::NonZeroU32>,
    /// Requests that run at once on all connections: a number, and further ones get 503; or a table, with a queue.
    /// Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests: Option<requests::Setting>,
    /// Bytes of a datagram from a client of a UDP listener; longer ones are dropped. Default: what UDP takes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub datagram: Option<ByteSize>,
    /// Requests on one connection, after which it is closed. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests_per_connection: Option<u32>,
}

/// What happens to which requests. Exactly one action stands in it: forward, respond,
/// redirect, token, forward_proxy, tunnel or register_tunnels.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// A name, unique among routes; it stands in logs and metrics.
    pub name: String,
    /// What must be true of the request; empty matches every request.
    #[serde(default, rename = "match")]
    pub matches: route::Match,
    /// Among routes that match, the highest priority wins, then the most specific. Default 0.
    #[serde(default)]
    pub priority: i32,
    /// Whether it takes part. Default true.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// It stops matching at this moment (RFC 3339: "2027-01-31T00:00:00Z").
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<String>,
    /// Steps around the action, in order on the way in and in reverse on the way out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub filters: Vec<filter::Config>,
    /// Send it to an upstream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forward: Option<action::forward::Config>,
    /// Give a fixed answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub respond: Option<action::respond::Config>,
    /// Send the client elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redirect: Option<action::redirect::Config>,
    /// Give tokens to consumers, check them, take them back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<action::token::Config>,
    /// Send it where the client says, as far as the rules allow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forward_proxy: Option<action::forward_proxy::Config>,
    /// Send it through the tunnel that its path or host names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tunnel: Option<action::tunnel::Config>,
    /// Let connectors register tunnels here, as on a listener of protocol "tunnel": on the paths /register and
    /// /deregister, over HTTP/1.1. /api/registrations, /health and /health/connectors tell what there is. Other paths
    /// get 404.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub register_tunnels: Option<action::register_tunnels::Config>,
}

fn yes() -> bool {
    true
}
