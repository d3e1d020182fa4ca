//! The way to a destination: look up, check, connect, through a parent or not; then a tunnel or one exchange.
//!
//! Promise: everything up to the connection has one time limit, and what it was at when that passed is the
//! failure. A pooled connection that turns out stale is replaced once, where that is safe.

use std::cell::Cell;
use std::future::poll_fn;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use sluice_http::h1::Persist;
use sluice_http::{Method, NameId, Request, RequestHead, Response, ResponseHead};

use super::outward::Outward;
use super::parent::{Handshake, Parent};
use super::rules::{Decision, Destination, Kind};
use super::{ForwardProxy, Tell, destination};
use crate::action::Acted;
use crate::exchange::{Exchange, Outcome, TargetForm};
use crate::failure::Failure;
use crate::pipeline::forwarded;
use crate::resolve::{self, Unresolved, race};
use crate::scene::Scene;
use crate::stream::{Care, Socket, Stream};
use crate::upstream::config::Timeouts;
use crate::upstream::connection::{Connection, Origin};
use crate::upstream::live::InFlight;
use crate::upstream::reach;
use crate::upstream::send::{self, ANSWER_LIMITS, Answer, Lost, Terms};
use crate::wire::Link;

/// One request on its way.
struct Trip<'a> {
    scene: &'a Scene<'a>,
    outward: &'a Outward,
    to: Destination<'a>,
    /// What it fails with when its time is over now.
    stage: Cell<Failure>,
}

/// Where to connect to.
struct Way<'a> {
    parent: Option<&'a Parent>,
    /// All of them may be dialled.
    addresses: Vec<IpAddr>,
    port: u16,
}

impl ForwardProxy {
    /// Sends the request where it asks to go, or opens a tunnel.
    ///
    /// Cancel-safe in the sense that dropping it abandons the connection.
    pub async fn run(
        &self,
        (scene, outward): (&Scene<'_>, &Outward),
        exchange: &mut Exchange,
        request: &mut Request,
    ) -> Result<Acted, Failure> {
        let kind = if request.head.method == Method::Connect { Kind::Connect } else { Kind::Plain };
        if kind == Kind::Plain && exchange.form != TargetForm::Http {
            return Err(Failure::NotProxied);
        }
        let authority = request.head.authority().to_owned();
        let to = destination(&authority, kind).ok_or(Failure::BadRequest)?;
        exchange.endpoint = Arc::from(authority.as_str());
        exchange.attempts = 1;
        let trip = Trip { scene, outward, to, stage: Cell::new(Failure::DnsTimeout) };
        match kind {
            Kind::Connect => self.tunnel(&trip, exchange, &authority).await,
            Kind::Plain => self.plain(&trip, exchange, request).await,
        }
    }

    async fn tunnel(
        &self,
        trip: &Trip<'_>,
        exchange: &mut Exchange,
        authority: &str,
    ) -> Result<Acted, Failure> {
        let connection = self
            .in_time(trip, async {
                let way = self.way(trip).await?;
                let (mut connection, _) = trip.dial(&way).await?;
                if let Some(parent) = way.parent {
                    agree(&mut connection.link, parent.connect(authority)).await?;
                }
                Ok(connection)
            })
            .await?;
        let now = trip.scene.world.clock.now();
        exchange.phases.connected = now.saturating_duration_since(exchange.started);
        exchange.outcome = Outcome::Completed;
        Ok(Acted::Switched(ResponseHead::new(200), connection))
    }

    async fn plain(
        &self,
        trip: &Trip<'_>,
        exchange: &mut Exchange,
        request: &mut Request,
    ) -> Result<Acted, Failure> {
        let way = self.in_time(trip, self.way(trip)).await?;
        self.prepare(&mut request.head, &way);
        // A body that was pulled is gone; without it the request would be another one.
        let has_body = !request.body.is_empty();
        let mut pooled = true;
        loop {
            let (connection, address, origin) = self.connection(trip, &way, request, pooled).await?;
            let now = trip.scene.world.clock.now();
            exchange.phases.connected = now.saturating_duration_since(exchange.started);
            match self.attempt(trip, request, (connection, address), now).await {
                Ok(Answer::Response(head, _)) if head.status == 407 && way.parent.is_some() => {
                    // It asks us, not the client.
                    return Err(Failure::ParentRefused);
                }
                Ok(Answer::Response(head, body)) => {
                    let ended = trip.scene.world.clock.now();
                    exchange.phases.first_byte = ended.saturating_duration_since(exchange.started);
                    exchange.outcome = Outcome::Completed;
                    return Ok(Acted::Response(Response { head, body }));
                }
                // No upgrade was asked for.
                Ok(Answer::Switched(..)) => return Err(Failure::UpgradeRefused),
                Err(lost) => {
                    let whole = !has_body || !request.body.is_empty();
                    if origin == Origin::Fresh || !whole || !lost.may_resend(request) {
                        return Err(lost.failure);
                    }
                    pooled = false;
                }
            }
        }
    }

    async fn attempt(
        &self,
        trip: &Trip<'_>,
        request: &mut Request,
        (connection, address): (Box<Connection>, SocketAddr),
        now: Instant,
    ) -> Result<Answer, Lost> {
        let (pool, live) = trip.outward.at(address, now);
        let terms = Terms {
            timeouts: Timeouts {
                connect: self.connect,
                first_byte: self.first_byte,
                idle: self.idle,
                total: None,
            },
            limits: ANSWER_LIMITS,
            total: None,
            now,
            until: None,
            clock: trip.scene.world.clock,
            timers: &trip.scene.world.timers,
            address: "",
            pool: &pool,
            interim: trip.scene.interim,
            cells: &trip.outward.cells,
        };
        let over = reach::Way::Http1(connection);
        send::exchange(over, request, Persist::KeepAlive, InFlight::begin(&live), &terms).await
    }

    /// A pooled connection, or a new one.
    async fn connection(
        &self,
        trip: &Trip<'_>,
        way: &Way<'_>,
        request: &Request,
        pooled: bool,
    ) -> Result<(Box<Connection>, SocketAddr, Origin), Failure> {
        let care = if request.head.method.is_idempotent() { Care::Usual } else { Care::Extra };
        let now = trip.scene.world.clock.now();
        let idle = pooled.then(|| trip.outward.idle((&way.addresses, way.port), now, care)).flatten();
        if let Some((connection, address)) = idle {
            return Ok((connection, address, Origin::Reused));
        }
        let (connection, address) = self.in_time(trip, trip.dial(way)).await?;
        Ok((connection, address, Origin::Fresh))
    }

    /// What the next one gets to see of the request.
    fn prepare(&self, head: &mut RequestHead, way: &Way<'_>) {
        match way.parent {
            None => {
                head.fields.remove(NameId::ProxyAuthorization);
            }
            Some(parent) => {
                parent.authorize(head);
                let path = if head.target() == "*" { "" } else { head.target() };
                let target = format!("http://{}{path}", head.authority());
                head.set_target(&target);
            }
        }
        if self.tell != Tell::Client {
            forwarded::say_nothing_of_client(head);
            head.fields.remove(NameId::XRequestId);
        }
        if self.tell == Tell::Nothing {
            head.fields.remove(NameId::Via);
        }
    }

    /// Looks up and checks. Nothing is asked about a name that no address could help.
    async fn way<'a>(&'a self, trip: &Trip<'_>) -> Result<Way<'a>, Failure> {
        if matches!(self.rules.decide_name(trip.to), Decision::Denied(_)) {
            return Err(Failure::DestinationDenied);
        }
        let host = trip.to.host;
        let parent = self.parent.as_ref().filter(|parent| parent.takes(host));
        let known = match (parent, resolve::known(host)) {
            (_, Some(known)) => Some(known),
            (Some(parent), None) if !parent.resolves_here => None,
            _ => Some(trip.outward.resolver.resolve(host).await),
        };
        let allowed = match known {
            None => Vec::new(),
            Some(found) => self.allowed(trip.to, found.map_err(failure)?)?,
        };
        match parent {
            None => Ok(Way { parent, addresses: allowed, port: trip.to.port }),
            Some(through) => {
                let addresses = trip.outward.resolver.resolve(&through.host).await.map_err(failure)?;
                Ok(Way { parent, addresses, port: through.port })
            }
        }
    }

    fn allowed(&self, to: Destination<'_>, mut found: Vec<IpAddr>) -> Result<Vec<IpAddr>, Failure> {
        found.retain(|&address| matches!(self.rules.decide(to, address), Decision::Allowed(_)));
        if found.is_empty() { Err(Failure::DestinationDenied) } else { Ok(found) }
    }

    /// Within `timeouts.connect`.
    async fn in_time<T>(
        &self,
        trip: &Trip<'_>,
        step: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let world = trip.scene.world;
        let deadline = world.timers.deadline();
        deadline.set(world.clock.now(), self.connect);
        deadline.limit(step).await.unwrap_or_else(|| Err(trip.stage.get()))
    }
}

impl Trip<'_> {
    async fn dial(&self, way: &Way<'_>) -> Result<(Box<Connection>, SocketAddr), Failure> {
        self.stage.set(Failure::ConnectTimeout);
        let world = self.scene.world;
        let stream = race::connect(&way.addresses, way.port, world).await;
        let stream = stream.map_err(|_| Failure::ConnectFailed)?;
        let address = stream.peer_addr().map_err(|_| Failure::ConnectFailed)?;
        // It only saves time.
        let _ = stream.set_nodelay(true);
        Ok((Connection::new(Stream::Plain(Socket::Tcp(stream)), None, world), address))
    }
}

/// Asks a parent for a tunnel.
async fn agree(link: &mut Link, request: Vec<u8>) -> Result<(), Failure> {
    let mut text = Bytes::from(request);
    poll_fn(|cx| link.poll_send(&mut text, cx)).await.map_err(|_| Failure::UpstreamReset)?;
    let mut handshake = Handshake::default();
    while !handshake.is_open(&mut link.buffer)? {
        match poll_fn(|cx| link.poll_fill(cx)).await {
            Ok(0) | Err(_) => return Err(Failure::UpstreamReset),
            Ok(_) => {}
        }
    }
    Ok(())
}

fn failure(unresolved: Unresolved) -> Failure {
    match unresolved {
        Unresolved::TimedOut => Failure::DnsTimeout,
        Unresolved::NotFound | Unresolved::Failed => Failure::DnsFailed,
    }
}
