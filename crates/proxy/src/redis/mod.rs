//! What several gateways share: a Redis server, over one connection for the process.
//!
//! Promise: a call ends within the server's time, whatever Redis does: it may be gone, refuse, hang or be slow.
//! While it is known to be gone or slow, calls fail at once and nobody waits; a thread of its own tries to reach
//! it again, at longer and longer intervals, and lets calls through when it answers in time. What was sent is
//! never sent again: a call that failed may still have happened.
//!
//! [`Connections`] lives in `filter::Shared`; [`Server`] is what a document says; [`Redis`] is what is called.

mod link;
mod server;

use std::fmt;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use ::redis::{FromRedisValue, RedisError, ScriptInvocation};
use tokio::sync::{Notify, mpsc, watch};

pub use ::redis::{Cmd, Script, cmd};
pub use server::Server;

use crate::observe::diagnostic::Diagnostics;
use crate::observe::metrics::{Collector, Exposition, Kind};
use crate::problem::{At, Problems};
use crate::purpose::Purpose;
use link::{Link, State};

/// Calls in a row without an answer in time after which Redis counts as gone.
const SLOW: u32 = 5;

/// The connections of a process to Redis servers: one for each server that somebody uses.
pub struct Connections {
    purpose: Purpose,
    known: Mutex<Vec<(Server, Weak<Redis>)>>,
    /// The thread that keeps them: started with the first one.
    thread: OnceLock<mpsc::UnboundedSender<Link>>,
    diagnostics: OnceLock<Diagnostics>,
}

/// Why a call gave nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unavailable {
    /// There is no connection: Redis cannot be reached, or was too slow a moment ago.
    Down,
    /// No answer in time.
    Late,
    /// It answered with an error: no rights, no memory, a replica that takes no writes.
    Refused,
}

impl Connections {
    /// None yet, and no thread. Those that are only looked at are never made, and every call fails.
    pub fn new(purpose: Purpose) -> Connections {
        let (known, thread, diagnostics) = Default::default();
        Connections { purpose, known, thread, diagnostics }
    }

    /// Tells the operator from now on when a server comes and goes.
    pub fn report_to(&self, diagnostics: &Diagnostics) {
        self.diagnostics.get_or_init(|| diagnostics.clone());
    }

    /// The connection to a server: the one there is, or a new one that is being made when this returns. It is
    /// closed when nobody holds it any more. `None` when a problem was added: a file for TLS cannot be used.
    pub fn open(&self, server: &Server, at: &At, problems: &mut Problems) -> Option<Arc<Redis>> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|(_, redis)| redis.strong_count() > 0);
        let same = known.iter().find(|(other, _)| other == server);
        if let Some(redis) = same.and_then(|(_, redis)| redis.upgrade()) {
            return Some(redis);
        }
        let tls = server.load_tls(at, problems)?;
        let (sender, state) = watch::channel(State::Unknown);
        let redis = Arc::new(Redis {
            timeout: server.timeout,
            name: server.name().into(),
            state,
            broken: Arc::default(),
            late_in_a_row: AtomicU32::new(0),
            counts: Counts::default(),
        });
        known.push((server.clone(), Arc::downgrade(&redis)));
        let diagnostics = self.diagnostics.get_or_init(Diagnostics::silent).clone();
        let broken = Arc::clone(&redis.broken);
        let link = Link { server: server.clone(), tls, state: sender, broken, diagnostics };
        if self.purpose == Purpose::Looking {
            return Some(redis);
        }
        // Without the thread nothing is ever sent, and calls fail: `Down`.
        let _ = self.thread.get_or_init(link::start).send(link);
        Some(redis)
    }

    fn alive(&self) -> Vec<Arc<Redis>> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let mut alive: Vec<_> = known.iter().filter_map(|(_, redis)| redis.upgrade()).collect();
        // With other credentials it is another connection to the same server: one stands for both.
        alive.sort_by(|one, other| one.name.cmp(&other.name));
        alive.dedup_by(|one, other| one.name == other.name);
        alive
    }
}

impl Default for Connections {
    fn default() -> Connections {
        Connections::new(Purpose::Running)
    }
}

impl fmt::Debug for Connections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connections(..)")
    }
}

impl Collector for Connections {
    fn collect(&self, out: &mut Exposition) {
        let alive = self.alive();
        if alive.is_empty() {
            return;
        }
        const UP: &str = "Whether calls to a Redis server are let through.";
        let mut family = out.family("sluice_redis_up", UP, Kind::Gauge);
        for redis in &alive {
            family.sample(&[("server", &redis.name)], u64::from(redis.is_up()));
        }
        const CALLS: &str = "Calls to a Redis server, by how they ended.";
        let mut family = out.family("sluice_redis_calls_total", CALLS, Kind::Counter);
        for redis in &alive {
            let counts = &redis.counts;
            for (result, count) in [
                ("answered", &counts.answered),
                ("down", &counts.down),
                ("late", &counts.late),
                ("refused", &counts.refused),
            ] {
                family.sample(&[("server", &redis.name), ("result", result)], count.load(Relaxed));
            }
        }
    }
}

#[derive(Debug, Default)]
struct Counts {
    answered: AtomicU64,
    down: AtomicU64,
    late: AtomicU64,
    refused: AtomicU64,
}

/// A connection to a Redis server, shared by all threads.
pub struct Redis {
    timeout: Duration,
    name: Box<str>,
    state: watch::Receiver<State>,
    /// Tells the thread that the connection is of no use, or that nobody needs it any more.
    broken: Arc<Notify>,
    late_in_a_row: AtomicU32,
    counts: Counts,
}

impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Redis").field(&self.name).finish()
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.broken.notify_one();
    }
}

impl Redis {
    /// Asks Redis one thing. Cancel-safe in that dropping it only forgets the answer. Must be called on a
    /// runtime with timers.
    ///
    /// # Errors
    /// There is no answer: see [`Unavailable`].
    pub async fn call<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, Unavailable> {
        self.within(async |mut connection| command.query_async(&mut connection).await).await
    }

    /// Runs a script, which is sent only when Redis does not know it yet.
    ///
    /// # Errors
    /// There is no answer: see [`Unavailable`].
    pub async fn run<T: FromRedisValue>(&self, script: &ScriptInvocation<'_>) -> Result<T, Unavailable> {
        self.within(async |mut connection| script.invoke_async(&mut connection).await).await
    }

    /// Whether calls are let through: a connection is there and answers in time.
    pub fn is_up(&self) -> bool {
        matches!(*self.state.borrow(), State::Up { .. })
    }

    async fn within<T>(
        &self,
        ask: impl AsyncFnOnce(MultiplexedConnection) -> Result<T, RedisError>,
    ) -> Result<T, Unavailable> {
        let asked = async {
            let (connection, number) = self.connection().await.ok_or(Unavailable::Down)?;
            let answered = tokio::time::timeout(self.timeout, ask(connection)).await;
            self.note(answered.is_err(), number);
            match answered {
                Ok(answered) => answered.map_err(|error| match error.is_io_error() {
                    true => Unavailable::Down,
                    false => Unavailable::Refused,
                }),
                Err(_) => Err(Unavailable::Late),
            }
        };
        let answer = asked.await;
        let count = match &answer {
            Ok(_) => &self.counts.answered,
            Err(Unavailable::Down) => &self.counts.down,
            Err(Unavailable::Late) => &self.counts.late,
            Err(Unavailable::Refused) => &self.counts.refused,
        };
        count.fetch_add(1, Relaxed);
        answer
    }

    /// The connection and its number. Waits only for the first one of a server.
    async fn connection(&self) -> Option<(MultiplexedConnection, u64)> {
        let mut state = self.state.clone();
        let known = |state: &State| !matches!(state, State::Unknown);
        let state = match tokio::time::timeout(self.timeout, state.wait_for(known)).await {
            Ok(Ok(state)) => state.clone(),
            _ => return None,
        };
        match state {
            State::Up { connection, number } => Some((connection, number)),
            State::Unknown | State::Down => None,
        }
    }

    /// Gives a connection up that did not answer in time again and again.
    fn note(&self, is_late: bool, number: u64) {
        if !is_late {
            // Most answers find a zero: a store by every call would be a word that all cores fight for.
            if self.late_in_a_row.load(Relaxed) != 0 {
                self.late_in_a_row.store(0, Relaxed);
            }
            return;
        }
        let current = matches!(*self.state.borrow(), State::Up { number: now, .. } if now == number);
        if current && self.late_in_a_row.fetch_add(1, Relaxed) + 1 >= SLOW {
            self.late_in_a_row.store(0, Relaxed);
            self.broken.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(url: &str) -> (Connections, Arc<Redis>) {
        let connections = Connections::default();
        let server: Server = url.parse().unwrap();
        let mut problems = Problems::new();
        let redis = connections.open(&server, &At::root(), &mut problems).unwrap();
        assert!(problems.is_empty(), "{problems:?}");
        (connections, redis)
    }

    #[tokio::test(flavor = "local")]
    async fn a_server_that_is_not_there_fails_calls_at_once() {
        // Bound and closed again: nobody listens there.
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let (_connections, redis) = open(&format!("redis://127.0.0.1:{port}"));
        assert_eq!(redis.call::<()>(&cmd("PING")).await, Err(Unavailable::Down));
        assert!(!redis.is_up());
    }

    #[tokio::test(flavor = "local")]
    async fn a_server_that_says_nothing_is_given_up() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (_connections, redis) = open(&format!("redis://127.0.0.1:{port}?timeout=5ms"));
        assert_eq!(redis.call::<()>(&cmd("PING")).await, Err(Unavailable::Down));
    }

    #[tokio::test(flavor = "local")]
    async fn one_connection_serves_all_who_name_the_same_server() {
        let (connections, redis) = open("redis://127.0.0.1:1");
        let again = |url: &str| {
            let server: Server = url.parse().unwrap();
            connections.open(&server, &At::root(), &mut Problems::new()).unwrap()
        };
        assert!(Arc::ptr_eq(&redis, &again("redis://127.0.0.1:1")));
        let other = again("redis://127.0.0.1:1/2");
        assert!(!Arc::ptr_eq(&redis, &other));
        drop(other);
        assert_eq!(connections.alive().len(), 1);
    }
}
