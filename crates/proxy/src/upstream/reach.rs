//! A way to an endpoint: a connection of its own for an exchange that speaks HTTP/1, a place on a shared one
//! for HTTP/2, a place in a tunnel where connectors have opened some.
//!
//! Promise: what is there is used first; requests that come together open one HTTP/2 connection, not one
//! each; a limit on connections is kept over all workers, and who waits for one also takes a place that
//! becomes free meanwhile.

use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use super::config::Protocol;
use super::connection::{Connection, Dial, Origin, Place, Pool, Spoken, open, place};
use super::http2::{self, Ends, Joined, Opening, Slot, Waiter};
use super::{Events, Local};
use crate::facts::Scheme;
use crate::failure::Failure;
use crate::stream::{Care, Stream};
use crate::tunnels::watch::Watch;
use crate::tunnels::{self, Missing, Tunnels, Wanted};
use crate::world::World;

/// What an exchange goes over.
pub enum Way {
    /// A connection.
    Http1(Box<Connection>),
    /// A place on one.
    Http2(Slot),
    /// A place in a tunnel, and who watches.
    Tunnel(tunnels::Slot, Option<Rc<Watch>>),
}

/// Who wants to reach an endpoint.
pub struct Reach<'a> {
    /// The worker's part of the upstream.
    pub local: &'a Rc<Local>,
    /// The endpoint's position.
    pub index: usize,
    /// Time and tasks.
    pub world: &'a Rc<World>,
    /// Whom to ask for a place.
    pub events: &'a dyn Events,
    /// Sent first on a connection that is opened: a PROXY header, or nothing.
    pub header: Vec<u8>,
    /// The tunnels that may carry it, where it is reached through tunnels.
    pub wanted: Option<&'a Wanted>,
}

impl Reach<'_> {
    /// A way that is there already.
    pub fn pooled(&self, now: Instant, care: Care) -> Option<Way> {
        let found = self.look(now, care)?;
        self.local.endpoint_cells[self.index].reused.add(1);
        Some(found)
    }

    fn look(&self, now: Instant, care: Care) -> Option<Way> {
        if let (Some(tunnels), Some(wanted)) = self.tunnels() {
            return tunnels.take(wanted, now).ok().map(|slot| Way::Tunnel(slot, None));
        }
        let pool = self.pool();
        let http1 = || pool.take(now, care).map(Way::Http1);
        match self.local.shared.policy.protocol {
            Protocol::Http1 => http1(),
            Protocol::Http2 => pool.http2.take().map(Way::Http2),
            Protocol::Auto => pool.http2.take().map(Way::Http2).or_else(http1),
        }
    }

    /// Opens a connection, or joins others who do. Cancel-safe: dropping it abandons a connection of its own;
    /// a shared one is opened for those to come.
    pub async fn connect(&self, care: Care) -> Result<(Way, Origin), Failure> {
        if let (Some(tunnels), Some(wanted)) = self.tunnels() {
            return self.tunnel(tunnels, wanted).await;
        }
        let agreed = self.pool().agreed.get();
        match self.local.shared.policy.protocol {
            Protocol::Http1 => self.alone().await,
            Protocol::Auto if agreed == Some(Spoken::Http1) => self.alone().await,
            Protocol::Http2 | Protocol::Auto => self.together(care).await,
        }
    }

    fn tunnels(&self) -> (Option<&Arc<Tunnels>>, Option<&Wanted>) {
        let shared = &self.local.shared;
        (shared.tunnels.as_ref(), self.wanted.or(shared.policy.discovery.as_deref()))
    }

    /// Waits for a tunnel. Cancel-safe: one that comes too late goes back.
    async fn tunnel(&self, tunnels: &Arc<Tunnels>, wanted: &Wanted) -> Result<(Way, Origin), Failure> {
        let now = self.world.clock.now();
        let waiting = tunnels.wait(wanted, now).map_err(|missing| match missing {
            Missing::Unknown => Failure::TunnelUnknown,
            Missing::Crowded => Failure::Overloaded,
            Missing::Busy => Failure::TunnelUnavailable,
        })?;
        let slot = match waiting {
            Ok(slot) => slot,
            Err(waiting) => {
                let deadline = self.world.timers.deadline();
                deadline.set(now, wanted.wait);
                match deadline.limit(waiting).await {
                    Some(Ok(slot)) => slot,
                    Some(Err(_)) | None => return Err(Failure::TunnelUnavailable),
                }
            }
        };
        Ok((Way::Tunnel(slot, None), Origin::Reused))
    }

    fn pool(&self) -> &Rc<Pool> {
        &self.local.pools[self.index]
    }

    async fn place(&self) -> Result<Option<Place>, Failure> {
        let endpoint = &self.local.shared.endpoints[self.index];
        let Some(limit) = &endpoint.limit else { return Ok(None) };
        let shed = || self.events.shed(&endpoint.live);
        place(limit, &endpoint.live, self.pool().policy(), self.world, shed).await.map(Some)
    }

    async fn alone(&self) -> Result<(Way, Origin), Failure> {
        let place = self.place().await?;
        let way = self.dialler().dial(place).await?;
        let way = match way {
            Some(way) => Way::Http1(way),
            // It speaks HTTP/2 since now.
            None => return Box::pin(self.together(Care::Usual)).await,
        };
        Ok((way, Origin::Fresh))
    }

    async fn together(&self, care: Care) -> Result<(Way, Origin), Failure> {
        let pool = &self.pool().http2;
        let waiter = pool.wait();
        if let Some(slot) = waiter.given() {
            return Ok(self.shared(slot));
        }
        let mut joined: Option<Joined> = None;
        loop {
            match joined.as_ref().map(Joined::ended) {
                // It is still being opened.
                Some(None) => {}
                Some(Some(Err(failure))) => return Err(failure),
                Some(Some(Ok(()))) if self.pool().agreed.get() == Some(Spoken::Http1) => {
                    drop(waiter);
                    return match self.look(self.world.clock.now(), care) {
                        Some(way) => Ok((way, Origin::Fresh)),
                        None => Box::pin(self.alone()).await,
                    };
                }
                // Nobody opens one for us, or others came before us on the one that was opened.
                Some(Some(Ok(()))) | None => {
                    joined = pool.join();
                    if joined.is_none() {
                        match self.place_or_slot(&waiter).await? {
                            Found::Place(place) => joined = Some(self.begin(place)),
                            Found::Slot(slot) => return Ok(self.shared(slot)),
                        }
                    }
                }
            }
            if let Some(slot) = waiter.wait().await {
                return Ok(self.shared(slot));
            }
        }
    }

    /// Counts what others use, too.
    fn shared(&self, slot: Slot) -> (Way, Origin) {
        let origin = slot.origin;
        if origin == Origin::Reused {
            self.local.endpoint_cells[self.index].reused.add(1);
        }
        (Way::Http2(slot), origin)
    }

    /// Waits for a place among the endpoint's connections, or on one of them.
    async fn place_or_slot(&self, waiter: &Waiter) -> Result<Found, Failure> {
        let mut place = pin!(self.place());
        loop {
            tokio::select! {
                biased;
                slot = waiter.wait() => match slot {
                    Some(slot) => return Ok(Found::Slot(slot)),
                    None => continue,
                },
                place = &mut place => return Ok(Found::Place(place?)),
            }
        }
    }

    /// Opens a connection for all who need one.
    fn begin(&self, place: Option<Place>) -> Joined {
        let dialler = self.dialler();
        let (dial, joined) = self.pool().http2.begin();
        self.world.spawn(dialler.shared(dial, place));
        joined
    }

    fn dialler(&self) -> Dialler {
        Dialler {
            local: Rc::clone(self.local),
            index: self.index,
            world: Rc::clone(self.world),
            header: self.header.clone(),
        }
    }
}

/// What was there first.
enum Found {
    Place(Option<Place>),
    Slot(Slot),
}

/// What a task that opens a connection needs.
struct Dialler {
    local: Rc<Local>,
    index: usize,
    world: Rc<World>,
    header: Vec<u8>,
}

impl Dialler {
    /// Opens a connection. One that speaks HTTP/2 goes into the pool.
    async fn dial(&self, place: Option<Place>) -> Result<Option<Box<Connection>>, Failure> {
        let (shared, pool) = (Arc::clone(&self.local.shared), &self.local.pools[self.index]);
        let how = Dial { connect: shared.policy.timeouts.connect, header: &self.header };
        let deadline = self.world.timers.deadline();
        deadline.set(self.world.clock.now(), how.connect);
        let (stream, spoken) = open((&shared, self.index), &how, &self.world).await?;
        pool.agreed.set(Some(spoken));
        let connection = match spoken {
            Spoken::Http1 => Some(Connection::new(stream, place, &self.world)),
            Spoken::Http2 => {
                let scheme = match &stream {
                    Stream::Client(_) => Scheme::Https,
                    _ => Scheme::Http,
                };
                let begun = deadline.limit(self.handshake(stream)).await;
                pool.http2.add(begun.unwrap_or(Err(Failure::ConnectTimeout))?, (scheme, place), &self.world);
                None
            }
        };
        self.local.endpoint_cells[self.index].opened.add(1);
        Ok(connection)
    }

    async fn handshake(&self, stream: Stream) -> Result<Ends, Failure> {
        http2::handshake(stream, &self.local.shared.policy.http2).await
    }

    async fn shared(self, dial: Rc<Opening>, place: Option<Place>) {
        let dialled = self.dial(place).await;
        let pool = &self.local.pools[self.index];
        let result = dialled.map(|connection| {
            if let Some(connection) = connection {
                pool.give_back(connection);
            }
        });
        pool.http2.end(&dial, result);
    }
}
