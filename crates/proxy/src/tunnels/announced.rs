//! What a connector's announcement comes to: a tunnel, a goodbye, or a failure.
//!
//! Promise: the one place where registrations are decided, whatever listener they come through; what is malformed,
//! denied or over a limit is counted by its reason; a tunnel holds nothing of the exchange that opened it.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use sluice_http::{RequestHead, ResponseHead};
use sluice_tunnel::registration::{Extensions, Purpose, Registration, Version};
use sluice_tunnel::settings::Settings;
use sluice_tunnel::websocket::{Close, Limits, Role, Socket};

use super::actor::Actor;
use super::config::Admission;
use super::{Origin, Refused, Tunnels, unregistered};
use crate::failure::Failure;
use crate::relay::{End, Lasting};
use crate::world::{Deadline, World};

/// Longer than any silence that a tunnel's own rules allow: it ends what no rule ended.
const SLACK: Duration = Duration::from_secs(15);
/// How long a connector that was told goodbye may take to close.
const FAREWELL: Duration = Duration::from_secs(2);

/// Where registrations are decided.
pub struct Desk<'a> {
    /// The tunnels there are.
    pub tunnels: &'a Arc<Tunnels>,
    /// Who may register here.
    pub admission: &'a Admission,
    /// The connector's address.
    pub peer: SocketAddr,
    /// Time and timers.
    pub world: &'a Rc<World>,
}

/// What was agreed on, and what follows its 101.
pub enum Agreed {
    /// A tunnel.
    Tunnel(ResponseHead, Lasting),
    /// The connector's idle tunnels close: it is told, and that is all.
    Goodbye(ResponseHead, Box<dyn End>),
}

impl Desk<'_> {
    /// Whether this peer may ask for anything.
    ///
    /// # Errors
    /// [`Failure::TunnelAddressDenied`].
    pub fn check_address(&self) -> Result<(), Failure> {
        self.counted(self.admission.admits_address(self.peer.ip()))
    }

    /// Whether the request carries a token, if one is asked for.
    ///
    /// # Errors
    /// [`Failure::TunnelTokenMissing`].
    pub fn check_token(&self, head: &RequestHead) -> Result<(), Failure> {
        self.counted(self.admission.admits_token(head))
    }

    /// Reads an announcement.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(&self, head: &RequestHead, purpose: Purpose) -> Result<Registration, Failure> {
        Registration::read(head, purpose, &self.admission.versions).map_err(|reason| {
            self.tunnels.note_unregistered(reason);
            unregistered(reason)
        })
    }

    /// Does what it asks for.
    ///
    /// # Errors
    /// Why it may not be.
    pub fn agree(&self, registration: &Registration) -> Result<Agreed, Failure> {
        self.counted(self.admission.admits_route(registration))?;
        match registration.purpose {
            Purpose::Register => self.register(registration),
            Purpose::Deregister => {
                let route = registration.route.as_deref().unwrap_or_default();
                if let Some(instance) = &registration.instance {
                    self.tunnels.retire(route, instance);
                }
                let farewell = Box::new(Farewell::new(self.world));
                Ok(Agreed::Goodbye(registration.accept(Extensions::NONE), farewell))
            }
        }
    }

    fn register(&self, registration: &Registration) -> Result<Agreed, Failure> {
        let extensions = registration.extensions.and(self.admission.settings.extensions);
        let settings = Settings { extensions, ..self.admission.settings };
        let instance = registration.instance.clone().unwrap_or_else(|| format!("unknown-{}", self.peer.ip()));
        let origin = Origin {
            version: registration.version,
            domain: match registration.version {
                // Connectors of 1.0 know no domains.
                Version::V1 => Box::default(),
                Version::V3 => registration.domain.as_deref().unwrap_or_default().into(),
            },
            route: registration.route.as_deref().unwrap_or_default().into(),
            instance: instance.into(),
            component: registration.component.as_str().into(),
            peer: self.peer,
            extensions,
            streams: settings.streams,
        };
        // It counts its refusals itself.
        let entered = self.tunnels.enter(origin, self.world.clock.now())?;
        let head = registration.accept(self.admission.settings.extensions);
        let end = Box::new(Actor::new(self.tunnels, entered, settings, self.world));
        Ok(Agreed::Tunnel(head, Lasting { end, idle: settings.timing.silence + SLACK, throttle: None }))
    }

    fn counted(&self, checked: Result<(), Refused>) -> Result<(), Failure> {
        checked.map_err(|refused| {
            self.tunnels.note_refused(refused);
            refused.into()
        })
    }
}

/// The other end of a deregistration's WebSocket: says goodbye, and ends when the connector has, or takes too long.
struct Farewell {
    goodbye: Bytes,
    is_answered: bool,
    deadline: Deadline,
}

impl Farewell {
    fn new(world: &World) -> Farewell {
        let timing = Settings::gateway().timing;
        let mut socket = Socket::new(Role::Server, Limits::SMALL, timing, (0, Duration::ZERO));
        socket.close(Close::NORMAL, "Deregister complete", Duration::ZERO);
        let length = socket.output().remaining();
        let goodbye = socket.output().copy_to_bytes(length);
        let deadline = world.timers.deadline();
        deadline.set(world.clock.now(), FAREWELL);
        Farewell { goodbye, is_answered: false, deadline }
    }
}

impl End for Farewell {
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
        if !self.goodbye.is_empty() {
            return Poll::Ready(Ok(std::mem::take(&mut self.goodbye)));
        }
        match self.is_answered || self.deadline.poll_passed(cx) {
            true => Poll::Ready(Ok(Bytes::new())),
            false => Poll::Pending,
        }
    }

    fn poll_send(&mut self, bytes: &mut Bytes, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The first byte of a close frame: nothing comes behind it, and the connector waits for our end.
        self.is_answered |= bytes.first() == Some(&0x88);
        bytes.clear();
        if self.deadline.poll_passed(cx) {
            // Whoever goes on talking after the end is cut off.
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Poll::Ready(Ok(()))
    }

    fn poll_end(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.is_answered = true;
        Poll::Ready(Ok(()))
    }

    fn reset(&mut self) {}
}
