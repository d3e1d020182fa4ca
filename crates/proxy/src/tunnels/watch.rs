//! Who watches the exchanges that go through tunnels, and what they are told.
//!
//! Promise: every exchange that is watched is told of to its end: [`Event::Ended`] comes exactly once and last, also
//! when the client leaves or the exchange is dropped. Where nobody watches, an exchange pays for one load and one
//! comparison; content is told of only to those who want it, and never copied.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use sluice_http::{RequestHead, ResponseHead};

use super::trace::Trace;
use super::{Slot, Tunnel, Tunnels};
use crate::exchange::{Exchange, Outcome};
use crate::failure::Failure;
use crate::world::Clock;

/// How much a watcher is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Interest {
    /// The steps of an exchange.
    Steps,
    /// Every piece of content too.
    Content,
}

/// Told what happens in exchanges through tunnels, on the worker of the exchange, which waits for it meanwhile. It can
/// change nothing: for that there are filters.
pub trait Watcher: Send + Sync {
    /// What it wants to be told.
    fn interest(&self) -> Interest {
        Interest::Steps
    }

    /// Something happened.
    fn event(&self, about: &About, event: &Event<'_>);
}

/// All who watch an exchange.
type Watchers = Arc<[Arc<dyn Watcher>]>;

/// Who watches a process's tunnels.
#[derive(Default)]
pub(super) struct Watching {
    is_watched: AtomicBool,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    /// The program's own.
    added: Vec<Arc<dyn Watcher>>,
    /// The operator's.
    trace: Option<Arc<dyn Watcher>>,
}

impl Watching {
    fn change(&self, change: impl FnOnce(&mut Known)) {
        let known = &mut *self.known.lock().unwrap_or_else(PoisonError::into_inner);
        change(known);
        self.is_watched.store(!known.added.is_empty() || known.trace.is_some(), Ordering::Relaxed);
    }

    fn all(&self) -> Option<Watchers> {
        if !self.is_watched.load(Ordering::Relaxed) {
            return None;
        }
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        Some(known.added.iter().chain(&known.trace).cloned().collect())
    }
}

impl Tunnels {
    /// Tells this watcher of every exchange that begins from now on, as long as the process runs.
    pub fn watch(&self, watcher: Arc<dyn Watcher>) {
        self.watching.change(|known| known.added.push(watcher));
    }

    pub(super) fn set_trace(&self, interest: Option<Interest>) {
        let diagnostics = self.diagnostics.clone();
        let trace = interest.map(|interest| Arc::new(Trace { diagnostics, interest }) as Arc<dyn Watcher>);
        self.watching.change(|known| known.trace = trace);
    }

    /// Tells who watches that there was no tunnel for an exchange.
    pub fn note_unavailable(&self, exchange: &mut Exchange, clock: Clock) {
        if let Some(watch) = self.watch_over(exchange, clock) {
            watch.tell(&Event::Unavailable);
        }
    }

    fn watch_over(&self, exchange: &mut Exchange, clock: Clock) -> Option<Rc<Watch>> {
        if exchange.watch.is_none() {
            let about = |exchange: &Exchange| About {
                request_id: exchange.request_id.as_str().into(),
                route: Arc::clone(&exchange.route),
                tunnel: None,
            };
            let watchers = self.watching.all()?;
            exchange.watch = Some(Watch::new(watchers, about(exchange), (exchange.started, clock)));
        }
        exchange.watch.clone()
    }
}

impl Slot {
    /// Tells who watches that the exchange uses it, after waiting since this moment.
    pub fn watched(
        &self,
        exchange: &mut Exchange,
        head: &RequestHead,
        (clock, since): (Clock, Instant),
    ) -> Option<Rc<Watch>> {
        let watch = self.tunnels.watch_over(exchange, clock)?;
        watch.about.borrow_mut().tunnel = self.tunnel.clone().map(Through);
        watch.tell(&Event::Taken(head, clock.now().saturating_duration_since(since)));
        Some(watch)
    }
}

/// The exchange that an event belongs to.
#[derive(Clone, Debug)]
pub struct About {
    /// Its id.
    pub request_id: Box<str>,
    /// The name of its route in the document.
    pub route: Arc<str>,
    /// The tunnel that it goes through; none while there is none.
    pub tunnel: Option<Through>,
}

/// A tunnel, as a watcher sees it.
#[derive(Clone, Debug)]
pub struct Through(Arc<Tunnel>);

impl Through {
    /// "tunnel:my-service", or "tunnel:*".
    pub fn label(&self) -> &str {
        &self.0.place.label
    }

    /// Whether its connector serves every path.
    pub fn is_catch_all(&self) -> bool {
        self.0.origin.route.is_empty()
    }

    /// Its connector's instance.
    pub fn instance(&self) -> &str {
        &self.0.origin.instance
    }

    /// Its connector's name, for people.
    pub fn component(&self) -> &str {
        &self.0.origin.component
    }

    /// Its connector's address.
    pub fn address(&self) -> SocketAddr {
        self.0.origin.peer
    }

    /// "1.0" or "3.0".
    pub fn version(&self) -> &'static str {
        self.0.origin.version.text()
    }
}

/// What happens in an exchange, in this order; content of both directions interleaves.
#[derive(Debug)]
pub enum Event<'a> {
    /// A tunnel was taken after this time of waiting, and this will be sent. Again when the tunnel ended before it saw
    /// the request.
    Taken(&'a RequestHead, Duration),
    /// The tunnel has sent the head.
    HeadSent,
    /// A piece of the request's content is about to be given to the tunnel.
    Sending(&'a Bytes),
    /// So many bytes of it were given to the tunnel, which holds back no more than 64 KiB.
    Sent(usize),
    /// All of the request was; at once after the head where there is no content.
    RequestSent,
    /// The head of the answer came, and no filter has seen it.
    HeadReceived(&'a ResponseHead),
    /// The client gets this head now.
    Responding(&'a ResponseHead),
    /// A piece of the answer's content came.
    Received(&'a Bytes),
    /// All of the answer has come.
    AnswerReceived,
    /// There was no tunnel for it.
    Unavailable,
    /// It is over, well or badly: nothing follows.
    Ended(Ending),
}

/// How an exchange ended.
#[derive(Clone, Copy, Debug)]
pub struct Ending {
    /// How.
    pub outcome: Outcome,
    /// The status that the client was sent; 0: none.
    pub status: u16,
    /// From the first byte of the request on.
    pub duration: Duration,
    /// Content from the client.
    pub received: u64,
    /// Content to the client.
    pub sent: u64,
}

/// The watch over one exchange.
pub struct Watch {
    watchers: Watchers,
    about: RefCell<About>,
    interest: Interest,
    is_over: Cell<bool>,
    /// Since when, by which clock.
    started: (Instant, Clock),
}

impl Watch {
    fn new(watchers: Watchers, about: About, started: (Instant, Clock)) -> Rc<Watch> {
        let interest = watchers.iter().map(|watcher| watcher.interest()).max().unwrap_or(Interest::Steps);
        Rc::new(Watch { watchers, about: RefCell::new(about), interest, is_over: Cell::new(false), started })
    }

    /// Tells all who want to know.
    pub fn tell(&self, event: &Event<'_>) {
        if self.is_over.get() {
            return;
        }
        let least = match event {
            Event::Sending(_) | Event::Sent(_) | Event::Received(_) => Interest::Content,
            _ => Interest::Steps,
        };
        let about = self.about.borrow();
        for watcher in self.watchers.iter().filter(|watcher| watcher.interest() >= least) {
            watcher.event(&about, event);
        }
    }

    /// Whether anybody wants content.
    pub fn wants_content(&self) -> bool {
        self.interest == Interest::Content
    }

    /// It is over.
    pub fn end(&self, ending: Ending) {
        self.tell(&Event::Ended(ending));
        self.is_over.set(true);
    }
}

/// An exchange that nobody brought to its end was dropped with its client's connection.
impl Drop for Watch {
    fn drop(&mut self) {
        let (started, clock) = self.started;
        let duration = clock.now().saturating_duration_since(started);
        let outcome = Outcome::Failed(Failure::ClientGone);
        self.end(Ending { outcome, status: 0, duration, received: 0, sent: 0 });
    }
}

impl From<&Exchange> for Ending {
    fn from(exchange: &Exchange) -> Ending {
        Ending {
            outcome: exchange.outcome,
            status: exchange.status,
            duration: exchange.phases.total,
            received: exchange.received,
            sent: exchange.sent,
        }
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Watch").field(&self.about.borrow().request_id).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::exchange::Client;
    use crate::facts::Scheme;
    use crate::observe::diagnostic::Diagnostics;

    /// Writes down what it is told.
    struct Notes(Interest, Arc<Mutex<Vec<String>>>);

    impl Watcher for Notes {
        fn interest(&self) -> Interest {
            self.0
        }

        fn event(&self, about: &About, event: &Event<'_>) {
            let said = match event {
                Event::Ended(ending) => format!("{} {}", about.request_id, ending.outcome.code()),
                Event::Sent(bytes) => format!("sent {bytes}"),
                event => format!("{event:?}"),
            };
            self.1.lock().unwrap().push(said);
        }
    }

    fn tunnels(interest: Interest) -> (Arc<Tunnels>, Arc<Mutex<Vec<String>>>) {
        let (tunnels, notes) = (Tunnels::new(&Diagnostics::silent()), Arc::default());
        tunnels.watch(Arc::new(Notes(interest, Arc::clone(&notes))));
        (tunnels, notes)
    }

    fn exchange(clock: Clock) -> Exchange {
        let client = Client {
            peer: "192.0.2.7:5000".parse().unwrap(),
            address: "192.0.2.7".parse().unwrap(),
            scheme: Scheme::Http,
            listener: "web".into(),
            tls: None,
        };
        Exchange::begin(client, "r-1".to_owned(), clock.now())
    }

    #[test]
    fn the_end_is_told_once_and_nothing_after_it() {
        let clock = Clock::start();
        let (tunnels, notes) = tunnels(Interest::Content);
        let mut exchange = exchange(clock);
        let watch = tunnels.watch_over(&mut exchange, clock).unwrap();
        assert!(
            Rc::ptr_eq(&watch, &tunnels.watch_over(&mut exchange, clock).unwrap()),
            "one for an exchange"
        );
        watch.tell(&Event::Sent(7));
        watch.end(Ending::from(&exchange));
        watch.tell(&Event::AnswerReceived);
        drop((exchange, watch));
        assert_eq!(notes.lock().unwrap()[..], ["sent 7", "r-1 completed"]);
    }

    #[test]
    fn an_exchange_that_is_dropped_has_an_end_too() {
        let clock = Clock::start();
        let (tunnels, notes) = tunnels(Interest::Steps);
        let mut exchange = exchange(clock);
        tunnels.watch_over(&mut exchange, clock).unwrap().tell(&Event::Sent(7));
        drop(exchange);
        assert_eq!(notes.lock().unwrap()[..], ["r-1 client-gone"], "and content is for those who want it");
    }

    #[test]
    fn nobody_is_told_where_nobody_watches() {
        let clock = Clock::start();
        let tunnels = Tunnels::new(&Diagnostics::silent());
        assert!(tunnels.watch_over(&mut exchange(clock), clock).is_none());
        tunnels.set_trace(Some(Interest::Steps));
        assert!(tunnels.watch_over(&mut exchange(clock), clock).is_some());
        tunnels.set_trace(None);
        assert!(tunnels.watch_over(&mut exchange(clock), clock).is_none());
    }
}
