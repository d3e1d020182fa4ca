//! Connections of listeners for tunnels: a connector registers, deregisters, or somebody asks what there is.
//!
//! Promise: one request for each connection; what is malformed, denied or over a limit is answered and counted by its
//! reason; a tunnel that is agreed on holds no snapshot, so that reloads leave it alone and cost nothing.

use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use serde_json::Value;
use sluice_http::h1::{self, Framing, Persist, Scanner};
use sluice_http::{Method, NameId, RequestHead, ResponseHead, Version};
use sluice_tunnel::registration::{Extensions, Purpose, Registration};
use sluice_tunnel::settings::Settings;
use sluice_tunnel::websocket::{Close, Limits, Role, Socket};

use super::Arrival;
use crate::failure::Failure;
use crate::listener::LocalListener;
use crate::relay;
use crate::tunnels::actor::Actor;
use crate::tunnels::config::Admission;
use crate::tunnels::{Origin, Refused, Tunnels};
use crate::wire::Link;

/// Longer than any silence that a tunnel's own rules allow: it ends what no rule ended.
const SLACK: Duration = Duration::from_secs(15);

/// What a request comes to.
enum Outcome {
    /// It is answered, and that is all.
    Answered(ResponseHead, Bytes),
    /// A tunnel.
    Tunnel(ResponseHead, Box<Actor>, Duration),
    /// Told goodbye over a WebSocket.
    Deregistered(ResponseHead),
}

/// Serves a connection until it ends.
pub async fn serve(arrival: Arrival, listener: Rc<LocalListener>, mut link: Link) {
    let worker = Rc::clone(&arrival.worker);
    let outcome = {
        let running = worker.running();
        let listener = running.listener(&listener);
        let Some(admission) = listener.shared.tunnel.clone() else { return };
        let started = worker.world.clock.now();
        link.expect_within(started, listener.shared.timeouts.head);
        match head(&mut link, &listener).await {
            Ok(head) => {
                let tunnels = &running.snapshot.tunnels;
                Office { arrival: &arrival, admission: &admission, tunnels }.decide(&head)
            }
            Err(failure) => {
                listener.cells.failed(failure);
                if failure == Failure::ClientGone {
                    return;
                }
                Outcome::Answered(ResponseHead::new(failure.row().status), Bytes::new())
            }
        }
    };
    match outcome {
        Outcome::Answered(head, body) => _ = answer(&mut link, &head, body).await,
        Outcome::Deregistered(head) => {
            if switch(&mut link, &head, goodbye()).await.is_ok() {
                farewell(&mut link, &arrival).await;
            }
        }
        Outcome::Tunnel(head, mut actor, silence) => {
            if switch(&mut link, &head, Bytes::new()).await.is_ok() {
                link.expect_nothing();
                relay::run(&mut link, &mut *actor, silence + SLACK, &worker.world).await;
            }
        }
    }
}

/// Reads one head.
async fn head(link: &mut Link, listener: &LocalListener) -> Result<RequestHead, Failure> {
    let limits = &listener.shared.limits;
    let mut scanner = Scanner::default();
    let refused = |refusal| {
        listener.cells.refused(refusal);
        Failure::refused_request(refusal)
    };
    let text = poll_fn(|cx| {
        loop {
            if let Some(end) = scanner.scan(&link.buffer, limits).map_err(refused)? {
                return Poll::Ready(Ok(link.buffer.split_to(end).freeze()));
            }
            match link.poll_fill(cx) {
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Err(Failure::ClientGone)),
                // The head's time goes on.
                Poll::Ready(Ok(_)) => {}
                Poll::Pending if link.deadline.poll_passed(cx) => {
                    return Poll::Ready(Err(Failure::ClientTimeout));
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    })
    .await?;
    h1::request(text, limits).map(|(head, _)| head).map_err(refused)
}

/// Where registrations are decided.
struct Office<'a> {
    arrival: &'a Arrival,
    admission: &'a Arc<Admission>,
    tunnels: &'a Arc<Tunnels>,
}

impl Office<'_> {
    fn decide(&self, head: &RequestHead) -> Outcome {
        if let Err(refused) = self.admission.admits_address(self.arrival.peer.ip()) {
            return self.refuse(refused);
        }
        if head.method == Method::Trace {
            return status(405);
        }
        match (Purpose::of(head.path()), head.path()) {
            (_, "/health") => json(&self.tunnels.health()),
            _ if self.admission.admits_token(head).is_err() => self.refuse(Refused::Token),
            (Some(purpose), _) => self.announced(head, purpose),
            (None, "/api/registrations") => json(&self.tunnels.registrations()),
            (None, "/health/connectors") => json(&self.tunnels.connectors()),
            _ => status(404),
        }
    }

    fn refuse(&self, refused: Refused) -> Outcome {
        self.tunnels.note_refused(refused);
        plain(refused.status(), refused.to_string())
    }

    fn announced(&self, head: &RequestHead, purpose: Purpose) -> Outcome {
        let registration = match Registration::read(head, purpose, &self.admission.versions) {
            Ok(registration) => registration,
            Err(unregistered) => {
                self.tunnels.note_unregistered(unregistered);
                return plain(unregistered.status(), unregistered.to_string());
            }
        };
        if let Err(refused) = self.admission.admits_route(&registration) {
            return self.refuse(refused);
        }
        match purpose {
            Purpose::Register => self.register(&registration),
            Purpose::Deregister => {
                let route = registration.route.as_deref().unwrap_or_default();
                if let Some(instance) = &registration.instance {
                    self.tunnels.retire(route, instance);
                }
                Outcome::Deregistered(registration.accept(Extensions::NONE))
            }
        }
    }

    fn register(&self, registration: &Registration) -> Outcome {
        use sluice_tunnel::registration::Version as Spoken;
        let extensions = registration.extensions.and(self.admission.settings.extensions);
        let settings = Settings { extensions, ..self.admission.settings };
        let peer = self.arrival.peer;
        let instance = registration.instance.clone().unwrap_or_else(|| format!("unknown-{}", peer.ip()));
        let origin = Origin {
            version: registration.version,
            domain: match registration.version {
                // Connectors of 1.0 know no domains.
                Spoken::V1 => Box::default(),
                Spoken::V3 => registration.domain.as_deref().unwrap_or_default().into(),
            },
            route: registration.route.as_deref().unwrap_or_default().into(),
            instance: instance.into(),
            component: registration.component.as_str().into(),
            peer,
            extensions,
            streams: settings.streams,
        };
        let world = &self.arrival.worker.world;
        match self.tunnels.enter(origin, world.clock.now()) {
            Ok(entered) => {
                let head = registration.accept(self.admission.settings.extensions);
                let actor = Box::new(Actor::new(self.tunnels, entered, settings, world));
                Outcome::Tunnel(head, actor, settings.timing.silence)
            }
            Err(refused) => plain(refused.status(), refused.to_string()),
        }
    }
}

/// The close frame of a deregistration that was carried out.
fn goodbye() -> Bytes {
    let timing = Settings::gateway().timing;
    let mut socket = Socket::new(Role::Server, Limits::SMALL, timing, (0, Duration::ZERO));
    socket.close(Close::NORMAL, "Deregister complete", Duration::ZERO);
    let length = socket.output().remaining();
    socket.output().copy_to_bytes(length)
}

fn status(status: u16) -> Outcome {
    Outcome::Answered(ResponseHead::new(status), Bytes::new())
}

fn plain(status: u16, mut text: String) -> Outcome {
    let mut head = ResponseHead::new(status);
    head.fields.append(NameId::ContentType, b"text/plain");
    match status {
        426 => {
            head.fields.append(NameId::Upgrade, b"websocket");
            head.fields.append(NameId::SecWebSocketVersion, b"13");
        }
        429 | 503 => head.fields.append(NameId::RetryAfter, b"1"),
        401 => head.fields.append(NameId::WwwAuthenticate, b"Bearer"),
        _ => {}
    }
    text.push('\n');
    Outcome::Answered(head, text.into())
}

fn json(value: &Value) -> Outcome {
    let mut head = ResponseHead::new(200);
    head.fields.append(NameId::ContentType, b"application/json");
    head.fields.append(NameId::CacheControl, b"no-store");
    Outcome::Answered(head, value.to_string().into())
}

/// Sends an answer, and the end.
async fn answer(link: &mut Link, head: &ResponseHead, body: Bytes) -> std::io::Result<()> {
    let mut text = Vec::with_capacity(256 + body.len());
    let framing = Framing::Length(body.len() as u64);
    h1::response_head(head, framing, Version::Http11, Persist::Close, &mut text);
    text.extend_from_slice(&body);
    let mut bytes = Bytes::from(text);
    poll_fn(|cx| link.poll_send(&mut bytes, cx)).await?;
    poll_fn(|cx| link.poll_end(cx)).await
}

/// Sends a 101 and what follows it.
async fn switch(link: &mut Link, head: &ResponseHead, behind: Bytes) -> std::io::Result<()> {
    let mut text = Vec::with_capacity(256);
    h1::response_head(head, Framing::None, Version::Http11, Persist::Upgrade, &mut text);
    text.extend_from_slice(&behind);
    let mut bytes = Bytes::from(text);
    poll_fn(|cx| link.poll_send(&mut bytes, cx)).await
}

/// Lets a connector read its goodbye: reads until it closes, for two seconds at most.
async fn farewell(link: &mut Link, arrival: &Arrival) {
    link.expect_within(arrival.worker.world.clock.now(), Duration::from_secs(2));
    poll_fn(|cx| {
        loop {
            link.buffer.clear();
            match link.poll_receive(cx) {
                Poll::Ready(Ok(bytes)) if !bytes.is_empty() => {}
                Poll::Pending if !link.deadline.poll_passed(cx) => return Poll::Pending,
                _ => return Poll::Ready(()),
            }
        }
    })
    .await;
    // Nobody may be there any more.
    let _ = poll_fn(|cx| link.poll_end(cx)).await;
}
