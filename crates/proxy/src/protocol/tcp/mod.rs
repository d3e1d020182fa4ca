//! Connections of TCP listeners: a route by listener, source and TLS server name, an endpoint, a tunnel.
//!
//! Promise: no byte of the client is waited for unless a route of its listener asks for a name; what was
//! read to find the name goes on untouched; a connection that finds no endpoint is reset, and counted by
//! its failure; every connection is one exchange in metrics and access log.

mod hello;

use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;

use sluice_http::RequestHead;

use super::Arrival;
use crate::bandwidth;
use crate::exchange::{Exchange, Outcome};
use crate::failure::Failure;
use crate::listener::LocalListener;
use crate::observe::access_log::Captured;
use crate::pipeline::{self, Place, finish};
use crate::relay::{End as _, Ended, Relayed};
use crate::stream::Socket;
use crate::wire::Link;
use crate::worker::Running;
use hello::Hello;

/// Serves a connection until it ends.
pub async fn serve(arrival: Arrival, listener: Rc<LocalListener>, mut link: Link) {
    let worker = Rc::clone(&arrival.worker);
    let started = worker.world.clock.now();
    let running = worker.running();
    let listener = running.listener(&listener);
    let mut exchange = arrival.begin(&listener, started, None);
    if let Socket::Tcp(socket) = link.stream.socket() {
        exchange.reached = socket.local_addr().ok();
    }
    let relayed = run(&arrival, &listener, &running, (&mut exchange, &mut link)).await;
    exchange.outcome = match relayed {
        Ok(relayed) => {
            (exchange.received, exchange.sent) = (relayed.up, relayed.down);
            outcome(relayed.ended)
        }
        Err(failure) => {
            link.reset();
            Outcome::Failed(failure)
        }
    };
    finish::note(&worker, &running, &listener, &mut exchange, &Captured::default());
}

fn outcome(ended: Ended) -> Outcome {
    match ended {
        Ended::Done => Outcome::Completed,
        Ended::ClientBroke => Outcome::Failed(Failure::ClientGone),
        Ended::EndpointBroke => Outcome::Failed(Failure::UpstreamReset),
        Ended::Idle => Outcome::Failed(Failure::IdleTimeout),
    }
}

async fn run(
    arrival: &Arrival,
    listener: &Rc<LocalListener>,
    running: &Rc<Running>,
    (exchange, link): (&mut Exchange, &mut Link),
) -> Result<Relayed, Failure> {
    let worker = &arrival.worker;
    let name = match running.snapshot.model.streams.asks_for_name(&listener.name) {
        _ if let Some(secured) = &arrival.tls => secured.sni.clone().unwrap_or_default(),
        true => server_name(arrival, listener, link).await?,
        false => String::new(),
    };
    let head = stand_in(&name);
    let place = Place { worker, running, listener, interim: &|_| {} };
    let (forward, head) = pipeline::admit(&place, exchange, head).await?;
    let events = worker.events();
    let mut endpoint = forward.connect(&place.scene(&events), exchange, &head).await?;
    let patience = (listener.shared.timeouts.idle, &*worker.world);
    Ok(bandwidth::relay((link, &mut *endpoint), exchange.throttle.as_deref(), patience).await)
}

/// What stands for a request where routes and balancers want one: its host is the server name.
pub(super) fn stand_in(name: &str) -> RequestHead {
    RequestHead::new("CONNECT", name)
}

/// The name in the client's TLS hello; empty when it names none or speaks something else. What was read
/// stays in the link's buffer.
async fn server_name(
    arrival: &Arrival,
    listener: &LocalListener,
    link: &mut Link,
) -> Result<String, Failure> {
    let clock = arrival.worker.world.clock;
    link.expect_within(clock.now(), listener.shared.timeouts.head);
    poll_fn(|cx| {
        loop {
            match hello::read(&link.buffer) {
                Hello::More => {}
                Hello::Named(name) => return Poll::Ready(Ok(name)),
                Hello::Nameless => return Poll::Ready(Ok(String::new())),
            }
            match link.poll_fill(cx) {
                Poll::Ready(Ok(1..)) => {}
                Poll::Ready(Ok(0)) if !link.buffer.is_empty() => return Poll::Ready(Ok(String::new())),
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Err(Failure::ClientGone)),
                Poll::Pending if link.deadline.poll_passed(cx) => {
                    return Poll::Ready(Err(Failure::ClientTimeout));
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    })
    .await
    .inspect(|_| link.expect_nothing())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_name_is_the_host_that_routes_see() {
        assert_eq!(stand_in("a.example").host(), "a.example");
        assert_eq!(stand_in("").host(), "");
    }
}
