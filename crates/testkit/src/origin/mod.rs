//! A scripted origin: what stands behind the gateway, and everything it saw.
//!
//! Promise: it records the exact bytes that came, counts connections, and does on the wire exactly what its
//! script says ("503 twice, then 200", "reset after 10 bytes", "never answer").

mod manual;
mod reply;
mod serve;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

pub use manual::ManualOrigin;
pub use reply::{Reply, Script};

use crate::deadline::eventually;
use crate::message::Received;
use crate::peer::own_loopback;

/// Requests kept for inspection; older ones are only counted, so that a long load does not fill memory.
const KEPT: usize = 2_000;

/// What an origin saw.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    requests: Vec<Received>,
    total: usize,
    accepted: usize,
    open: usize,
    held: usize,
    bytes: usize,
}

#[derive(Debug)]
pub(crate) struct Shared {
    script: Mutex<Script>,
    seen: Mutex<Seen>,
    /// Counts calls of `release`; a held reply waits for the next one.
    released: watch::Sender<u64>,
    /// True while the origin runs; turning it off ends every connection.
    running: watch::Sender<bool>,
}

impl Shared {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap()
    }
}

/// A scripted HTTP/1.1 origin on a loopback address of its own.
#[derive(Debug)]
pub struct Origin {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

impl Origin {
    /// Starts an origin with a script.
    pub async fn start(script: impl Into<Script>) -> Origin {
        let shared = Arc::new(Shared {
            script: Mutex::new(script.into()),
            seen: Mutex::default(),
            released: watch::Sender::new(0),
            running: watch::Sender::new(true),
        });
        let listener = TcpListener::bind((own_loopback(), 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let accepting = Some(tokio::spawn(serve::accept(listener, shared.clone())));
        Origin { address, shared, accepting }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Replaces the script from the next request on.
    pub fn set_script(&self, script: impl Into<Script>) {
        *self.shared.script.lock().unwrap() = script.into();
    }

    /// Lets every reply that is held now go.
    pub fn release(&self) {
        self.shared.released.send_modify(|count| *count += 1);
    }

    /// The complete requests so far (the last 2,000).
    pub fn requests(&self) -> Vec<Received> {
        self.shared.seen().requests.clone()
    }

    /// The latest complete request.
    pub fn last(&self) -> Received {
        self.shared.seen().requests.last().cloned().expect("the origin has not received a request")
    }

    /// How many complete requests came.
    pub fn count(&self) -> usize {
        self.shared.seen().total
    }

    /// How many connections were accepted.
    pub fn connections(&self) -> usize {
        self.shared.seen().accepted
    }

    /// How many connections are open now.
    pub fn open(&self) -> usize {
        self.shared.seen().open
    }

    /// How many bytes came over all connections: 0 proves that nothing reached it.
    pub fn bytes(&self) -> usize {
        self.shared.seen().bytes
    }

    /// Waits until so many complete requests have come.
    pub async fn wait_count(&self, count: usize) {
        let what = format!("{count} requests at the origin");
        eventually(&what, async || (self.count() >= count).then_some(())).await;
    }

    /// Waits until so many connections have been accepted.
    pub async fn wait_connections(&self, count: usize) {
        let what = format!("{count} connections at the origin");
        eventually(&what, async || (self.connections() >= count).then_some(())).await;
    }

    /// Waits until exactly so many replies are held back.
    pub async fn wait_held(&self, held: usize) {
        let what = format!("{held} held replies at the origin");
        eventually(&what, async || (self.shared.seen().held == held).then_some(())).await;
    }

    /// Waits until exactly so many connections are open.
    pub async fn wait_open(&self, open: usize) {
        let what = format!("{open} open connections at the origin");
        eventually(&what, async || (self.open() == open).then_some(())).await;
    }

    /// Closes the port and resets every connection, as a killed process would.
    pub async fn stop(&mut self) {
        self.shared.running.send_replace(false);
        if let Some(accepting) = self.accepting.take() {
            accepting.abort();
            let _ = accepting.await;
        }
        self.wait_open(0).await;
        self.shared.seen().held = 0;
    }

    /// Listens on the same port again, with the same script.
    pub async fn start_again(&mut self) {
        assert!(self.accepting.is_none(), "the origin is running");
        self.shared.running.send_replace(true);
        let listener = TcpListener::bind(self.address).await;
        let listener = listener.unwrap_or_else(|error| panic!("cannot bind {} again: {error}", self.address));
        self.accepting = Some(tokio::spawn(serve::accept(listener, self.shared.clone())));
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.shared.running.send_replace(false);
        if let Some(accepting) = &self.accepting {
            accepting.abort();
        }
    }
}
