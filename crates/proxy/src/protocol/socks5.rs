//! Connections of SOCKS 5 listeners (RFC 1928, RFC 1929): a CONNECT without HTTP, under the same routes.
//!
//! Promise: the request goes through the pipeline like a CONNECT over HTTP, so that routes, filters and rules
//! mean the same; what is malformed is refused and counted; the handshake has the listener's time for a head.

use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use base64::Engine as _;
use bytes::{Buf as _, Bytes};
use sluice_http::socks5::{self, Authentication, Invalid, Method, Parsed, Reply, Target, Verdict};
use sluice_http::{Body, NameId, Request, RequestHead};

use super::Arrival;
use crate::bandwidth;
use crate::config::model::Route;
use crate::exchange::{Exchange, Outcome};
use crate::failure::Failure;
use crate::filter::Built;
use crate::filter::basic_auth::BasicAuth;
use crate::listener::LocalListener;
use crate::observe::access_log::Captured;
use crate::pipeline::{self, Handled, Place};
use crate::wire::Link;
use crate::worker::Running;

/// A user name and a password.
type Claim = (String, Vec<u8>);

/// Why there is no request.
enum Broken {
    /// The client left or was too slow.
    Gone(Failure),
    /// It sent what may not come.
    Invalid(Invalid),
    /// It was told that it may not go on.
    Refused,
}

/// Serves a connection until it ends.
pub async fn serve(arrival: Arrival, listener: Rc<LocalListener>, mut link: Link) {
    let worker = Rc::clone(&arrival.worker);
    let running = worker.running();
    let listener = running.listener(&listener);
    let started = worker.world.clock.now();
    link.expect_within(started, listener.shared.timeouts.head);
    let mut exchange = arrival.begin(&listener, started, None);
    match negotiate((&arrival, &listener), &running, &mut link).await {
        Ok((target, claim)) => {
            link.expect_nothing();
            let served = Served { arrival: &arrival, listener: &listener, running: &running };
            served.connect((&target, claim), &mut exchange, &mut link).await;
        }
        Err(Broken::Gone(failure)) => exchange.outcome = Outcome::Failed(failure),
        Err(Broken::Refused) => exchange.outcome = Outcome::Failed(Failure::ProxyUnauthenticated),
        Err(Broken::Invalid(invalid)) => {
            listener.cells.refused_socks(invalid);
            exchange.outcome = Outcome::Failed(Failure::BadRequest);
            let mut answer = Vec::new();
            match invalid.reply() {
                Some(reply) => socks5::reply(reply, None, &mut answer),
                None if invalid == Invalid::Socks4 => answer.extend(socks5::SOCKS4_REJECTED),
                None => {}
            }
            // The client may be gone; nothing depends on it.
            let _ = send(&mut link, answer).await;
        }
    }
    pipeline::finish::note(&worker, &running, &listener, &mut exchange, &Captured::default());
}

/// Greeting, method, credentials, request.
async fn negotiate(
    (arrival, listener): (&Arrival, &LocalListener),
    running: &Running,
    link: &mut Link,
) -> Result<(Target, Option<Claim>), Broken> {
    let offered = message(link, socks5::greeting).await?;
    let asks = passwords(running, listener).next().is_some();
    // A client that offers no password may still be let in by a route that asks for none.
    let wanted = if asks && offered.password { Authentication::Password } else { Authentication::None };
    let method = offered.choose(wanted);
    send(link, socks5::method_reply(method).to_vec()).await?;
    let claim = match method {
        Method::Unacceptable => return Err(Broken::Refused),
        Method::None => None,
        Method::Password => Some(credentials((arrival, listener), running, link).await?),
    };
    Ok((message(link, socks5::request).await?, claim))
}

async fn credentials(
    (arrival, listener): (&Arrival, &LocalListener),
    running: &Running,
    link: &mut Link,
) -> Result<Claim, Broken> {
    let (user, password) = message(link, |bytes| {
        Ok(match socks5::credentials(bytes)? {
            Parsed::More => Parsed::More,
            Parsed::Message { length, message } => {
                let user = String::from_utf8_lossy(message.user).into_owned();
                Parsed::Message { length, message: (user, message.password.to_vec()) }
            }
        })
    })
    .await?;
    let now = arrival.worker.world.clock.now();
    for filter in passwords(running, listener) {
        if filter.verify(&user, &password, (now, arrival.peer.ip().into())).await.is_ok() {
            send(link, socks5::credentials_reply(Verdict::Accepted).to_vec()).await?;
            return Ok((user, password));
        }
    }
    send(link, socks5::credentials_reply(Verdict::Rejected).to_vec()).await?;
    Err(Broken::Refused)
}

/// What asks for a password on the routes that this listener's clients may reach. Which of them decides is not
/// known before the request.
fn passwords<'a>(
    running: &'a Running,
    listener: &'a LocalListener,
) -> impl Iterator<Item = &'a BasicAuth> + use<'a> {
    let mine = |route: &&Route| {
        let listeners = &route.listeners;
        route.action.is_proxy()
            && (listeners.is_empty() || listeners.iter().any(|name| **name == *listener.name))
    };
    let filters = running.snapshot.model.routes.iter().filter(mine).flat_map(|route| &route.filters);
    filters.filter_map(|filter| if let Built::BasicAuth(filter) = filter { Some(filter) } else { None })
}

/// Reads one message; what comes behind it stays in the buffer.
async fn message<T>(
    link: &mut Link,
    parse: impl Fn(&[u8]) -> Result<Parsed<T>, Invalid>,
) -> Result<T, Broken> {
    poll_fn(|cx| {
        loop {
            match parse(&link.buffer) {
                Ok(Parsed::Message { length, message }) => {
                    link.buffer.advance(length);
                    return Poll::Ready(Ok(message));
                }
                Ok(Parsed::More) => {}
                Err(invalid) => return Poll::Ready(Err(Broken::Invalid(invalid))),
            }
            match link.poll_fill(cx) {
                Poll::Ready(Ok(1..)) => {}
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Err(Broken::Gone(Failure::ClientGone))),
                Poll::Pending if link.deadline.poll_passed(cx) => {
                    return Poll::Ready(Err(Broken::Gone(Failure::ClientTimeout)));
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    })
    .await
}

async fn send(link: &mut Link, text: Vec<u8>) -> Result<(), Broken> {
    let mut text = Bytes::from(text);
    poll_fn(|cx| link.poll_send(&mut text, cx)).await.map_err(|_| Broken::Gone(Failure::ClientGone))
}

/// Where one connection is served.
struct Served<'a> {
    arrival: &'a Arrival,
    listener: &'a Rc<LocalListener>,
    running: &'a Rc<Running>,
}

impl Served<'_> {
    async fn connect(
        &self,
        (target, claim): (&Target, Option<Claim>),
        exchange: &mut Exchange,
        link: &mut Link,
    ) {
        let worker = &self.arrival.worker;
        let mut request = Request { head: stand_in(target, claim), body: Body::Empty };
        let place = Place { worker, running: self.running, listener: self.listener, interim: &|_| {} };
        let handled = Box::pin(pipeline::handle(&place, exchange, &mut request)).await;
        let mut answer = Vec::new();
        let Handled::Switched(_, mut endpoint) = handled else {
            socks5::reply(refusal(exchange.outcome), None, &mut answer);
            let _ = send(link, answer).await;
            return;
        };
        socks5::reply(Reply::Succeeded, None, &mut answer);
        if send(link, answer).await.is_err() {
            exchange.outcome = Outcome::Failed(Failure::ClientGone);
            return;
        }
        let idle = self.listener.shared.timeouts.idle;
        let relayed =
            bandwidth::relay((link, &mut *endpoint), exchange.throttle.as_deref(), (idle, &worker.world))
                .await;
        (exchange.received, exchange.sent) = (relayed.up, relayed.down);
    }
}

/// The same request over HTTP.
fn stand_in(target: &Target, claim: Option<Claim>) -> RequestHead {
    let authority: Arc<str> = target.to_string().into();
    let mut head = RequestHead::new("CONNECT", &authority);
    head.fields.append(NameId::Host, authority.as_bytes());
    if let Some((user, password)) = claim {
        let mut pair = user.into_bytes();
        pair.push(b':');
        pair.extend(password);
        let text = format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair));
        head.fields.append(NameId::ProxyAuthorization, text.as_bytes());
    }
    head
}

/// What a failure is called in SOCKS.
fn refusal(outcome: Outcome) -> Reply {
    let Outcome::Failed(failure) = outcome else { return Reply::NotAllowed };
    match failure {
        Failure::ConnectFailed => Reply::ConnectionRefused,
        Failure::ConnectTimeout | Failure::DnsTimeout => Reply::TtlExpired,
        Failure::DnsFailed => Reply::HostUnreachable,
        failure if failure.row().status < 500 => Reply::NotAllowed,
        _ => Reply::GeneralFailure,
    }
}
