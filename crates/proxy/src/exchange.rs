//! The facts about one exchange: a request, its response, and what happened in between.
//!
//! Promise: typed fields, no bag. It knows no snapshot and no filter, so that filters and actions can be
//! tested with a plain value.

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sluice_http::{Method, NameId, RequestHead, Version};
use sluice_tunnel::registration::Registration;

use crate::bandwidth::Throttle;
use crate::consumer::{Claims, Consumer};
use crate::facts::{Facts, Identity, Params, Scheme};
use crate::failure::Failure;
use crate::gate::Held;
use crate::limit;
use crate::tls::Secured;
use crate::tunnels::Wanted;
use crate::tunnels::watch::Watch;

/// Who is asking, and through which listener.
#[derive(Clone, Debug)]
pub struct Client {
    /// The other end of the connection.
    pub peer: SocketAddr,
    /// The trusted client address: the peer's, or what a trusted proxy said.
    pub address: IpAddr,
    /// How it reached us (a trusted proxy's word counts).
    pub scheme: Scheme,
    /// The name of the listener.
    pub listener: Arc<str>,
    /// What its TLS handshake with us said; None: the connection is plain.
    pub tls: Option<Arc<Secured>>,
}

/// How a request names what it is for (RFC 9112 section 3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetForm {
    /// With Host alone: it is for this gateway.
    Origin,
    /// "http://host/path", or HTTP/2, where every request names its authority.
    Http,
    /// "https://host/path".
    Https,
    /// "host:port": CONNECT.
    Authority,
}

impl TargetForm {
    /// The form of a request as it came.
    pub fn of(head: &RequestHead) -> TargetForm {
        match head.absolute() {
            _ if head.method == Method::Connect => TargetForm::Authority,
            Some((scheme, _)) if scheme.eq_ignore_ascii_case("http") => TargetForm::Http,
            Some((scheme, _)) if scheme.eq_ignore_ascii_case("https") => TargetForm::Https,
            _ if head.version == Version::Http2 => TargetForm::Http,
            _ => TargetForm::Origin,
        }
    }
}

/// What this gateway is for an exchange's client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Role {
    /// It stands for the servers behind it: credentials come in Authorization.
    #[default]
    Gateway,
    /// A forward proxy, which the client knows as one: credentials for it come in Proxy-Authorization.
    Proxy,
}

impl Role {
    /// The field that carries credentials for us.
    pub fn credentials(self) -> NameId {
        match self {
            Role::Gateway => NameId::Authorization,
            Role::Proxy => NameId::ProxyAuthorization,
        }
    }
}

/// How an exchange ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The endpoint's own answer, complete.
    Completed,
    /// An answer a filter or action of ours gave.
    Answered,
    /// A failure of the table.
    Failed(Failure),
}

impl Outcome {
    /// "completed", "answered", or the failure's code.
    pub fn code(self) -> &'static str {
        match self {
            Outcome::Completed => "completed",
            Outcome::Answered => "answered",
            Outcome::Failed(failure) => failure.code(),
        }
    }
}

/// How a gRPC-Web client reads and writes bodies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GrpcWeb {
    /// As they are: `application/grpc-web`.
    Binary,
    /// In base64: `application/grpc-web-text`.
    Text,
}

/// What the `cors` filter found of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CrossOrigin {
    /// A page of this origin, which may.
    Permitted(Box<str>),
    /// A preflight, whose answer says everything already.
    Told,
}

/// How long the phases took, from the first byte of the request; zero when a phase was not reached.
#[derive(Clone, Copy, Debug, Default)]
pub struct Phases {
    /// Until an endpoint's connection was ready.
    pub connected: Duration,
    /// Until the first byte of the endpoint's answer.
    pub first_byte: Duration,
    /// Until the last byte left.
    pub total: Duration,
}

/// One request with its response and the facts about both.
#[derive(Debug)]
pub struct Exchange {
    /// Who is asking.
    pub client: Client,
    /// The id in X-Request-Id, in problem bodies and in log lines.
    pub request_id: String,
    /// The address the client reached us at, when it is known.
    pub reached: Option<SocketAddr>,
    /// When its first byte arrived.
    pub started: Instant,
    /// How it named what it is for.
    pub form: TargetForm,
    /// The normalised path it was matched by.
    pub path: String,
    /// The route's name; empty before one is found.
    pub route: Arc<str>,
    /// The route's position in the model.
    pub route_index: Option<u32>,
    /// What we are for the client.
    pub role: Role,
    /// The user whose credentials were found right.
    pub user: Option<Arc<str>>,
    /// Who is asking, once a filter has found out; a later filter may still turn it away.
    pub consumer: Option<Arc<Consumer>>,
    /// What its token says, once it was found right.
    pub claims: Option<Claims>,
    /// Parameters from the route's path template.
    pub params: Params,
    /// The upstream's name; empty when none was used.
    pub upstream: Arc<str>,
    /// The endpoint last tried; empty when none was.
    pub endpoint: Arc<str>,
    /// How many endpoints were tried.
    pub attempts: u32,
    /// Phase timers.
    pub phases: Phases,
    /// How it ended; `Completed` until something else is known.
    pub outcome: Outcome,
    /// Status sent to the client.
    pub status: u16,
    /// In how many seconds a breaker that refused it lets one pass again; 0: it does not know.
    pub retry_after: u16,
    /// How urgent it is where it has to wait for a place: a higher one goes first.
    pub priority: i32,
    /// Body bytes from the client.
    pub received: u64,
    /// Body bytes to the client.
    pub sent: u64,
    /// Methods the path allows, for 405.
    pub allow: Box<str>,
    /// Which credentials are asked for, for 401 and 407 (RFC 9110 section 11.6.1).
    pub challenge: Arc<str>,
    /// What limits and quotas said.
    pub limits: limit::record::Record,
    /// What the client of a gRPC-Web request that was translated to gRPC reads.
    pub grpc_web: Option<GrpcWeb>,
    /// Whether a page of another origin may read the answer.
    pub cross_origin: Option<Box<CrossOrigin>>,
    /// How fast its bytes may move.
    pub throttle: Option<Box<Throttle>>,
    /// The places that it holds.
    pub held: Held,
    /// The tunnels that may carry it, when the request says which.
    pub tunnels: Option<Box<Wanted>>,
    /// Who watches it on its way through a tunnel.
    pub watch: Option<Rc<Watch>>,
    /// What a connector announced with it.
    pub registration: Option<Box<Registration>>,
}

impl Exchange {
    /// The facts an exchange starts with.
    pub fn begin(client: Client, request_id: String, started: Instant) -> Exchange {
        let none: Arc<str> = Arc::default();
        Exchange {
            client,
            request_id,
            reached: None,
            started,
            form: TargetForm::Origin,
            path: String::new(),
            route: Arc::clone(&none),
            route_index: None,
            role: Role::Gateway,
            user: None,
            consumer: None,
            claims: None,
            params: Params::default(),
            upstream: Arc::clone(&none),
            endpoint: Arc::clone(&none),
            attempts: 0,
            phases: Phases::default(),
            outcome: Outcome::Completed,
            status: 0,
            retry_after: 0,
            priority: 0,
            received: 0,
            sent: 0,
            allow: Box::default(),
            challenge: none,
            limits: limit::record::Record::default(),
            grpc_web: None,
            cross_origin: None,
            throttle: None,
            held: Held::default(),
            tunnels: None,
            watch: None,
            registration: None,
        }
    }

    /// The facts that conditions, expressions and templates may ask for.
    pub fn facts<'a>(&'a self, head: &'a RequestHead) -> Facts<'a> {
        Facts {
            head,
            path: &self.path,
            client: self.client.address,
            scheme: self.client.scheme,
            listener: &self.client.listener,
            tls: self.client.tls.as_deref(),
            request_id: &self.request_id,
            route: &self.route,
            params: &self.params,
            identity: Identity { consumer: self.consumer.as_deref(), claims: self.claims.as_ref() },
        }
    }
}
