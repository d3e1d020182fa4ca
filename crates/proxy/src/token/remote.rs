//! Key sets that others publish (JWKS), fetched in the background.
//!
//! Promise: one fetch at a time for one address in the process, whoever asks; the last good set stays in use while
//! the address cannot be reached, for a bounded time; a token with an unknown key id causes one fetch, and not more
//! than one in ten seconds however many such tokens come.

use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};

use super::keys::{Keys, Source};
use crate::fetch::{Fetch, Url};
use crate::observe::diagnostic::Diagnostics;
use crate::problem::{At, Problems};
use crate::purpose::Purpose;
use crate::world::Clock;

/// The most bytes of a key set.
const MOST: usize = 256 * 1024;

/// For one fetch; also how long a request waits for one.
const PATIENCE: Duration = Duration::from_secs(5);

/// Between two fetches that unknown key ids cause.
const SHORTEST_GAP: Duration = Duration::from_secs(10);

/// After a fetch that failed, at first; doubled each time.
const FIRST_RETRY: Duration = Duration::from_secs(1);

/// What was fetched.
#[derive(Clone, Debug, Default)]
struct State {
    /// How many fetches have ended.
    attempts: u64,
    /// When the last one ended.
    at: Option<Instant>,
    /// The last good set, with a number of its own, and when it was fetched.
    good: Option<(Arc<Keys>, u64, Instant)>,
}

/// How a key set is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Where it is.
    pub url: Url,
    /// Authorities for it; None: those this machine trusts.
    pub ca: Option<String>,
    /// Between two fetches.
    pub every: Duration,
    /// How long the last good set is used while it cannot be fetched.
    pub stale: Duration,
}

/// A key set that somebody publishes.
pub struct Remote {
    policy: Policy,
    state: watch::Receiver<State>,
    wanted: Arc<Notify>,
}

impl std::fmt::Debug for Remote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Remote").field(&self.policy.url).finish()
    }
}

impl Remote {
    /// The set and its number. Waits for the first fetch, and no other.
    pub async fn keys(&self, now: Instant) -> Option<(Arc<Keys>, u64)> {
        if let Some(found) = self.present(now) {
            return Some(found);
        }
        let mut state = self.state.clone();
        let first = state.wait_for(|state| state.attempts > 0);
        let _ = tokio::time::timeout(PATIENCE, first).await;
        self.present(now)
    }

    /// The set as it is known now, and its number.
    pub fn present(&self, now: Instant) -> Option<(Arc<Keys>, u64)> {
        let state = self.state.borrow();
        let (keys, number, at) = state.good.as_ref()?;
        (now.saturating_duration_since(*at) <= self.policy.stale).then(|| (Arc::clone(keys), *number))
    }

    /// Has it fetched, because a token names a key that is not in it; gives it when it is another one then.
    pub async fn renewed(&self, known: u64, now: Instant) -> Option<(Arc<Keys>, u64)> {
        let mut state = self.state.clone();
        let (before, recent) = {
            let state = state.borrow_and_update();
            let gap = state.at.map(|at| now.saturating_duration_since(at));
            (state.attempts, gap.is_some_and(|gap| gap < SHORTEST_GAP))
        };
        if !recent {
            self.wanted.notify_one();
            let next = state.wait_for(|state| state.attempts > before);
            let _ = tokio::time::timeout(PATIENCE, next).await;
        }
        self.present(now).filter(|(_, number)| *number != known)
    }
}

/// The key sets of a process, by how they are kept.
#[derive(Debug, Default)]
pub struct Remotes {
    purpose: Purpose,
    known: Mutex<Vec<(Policy, Weak<Remote>)>>,
    diagnostics: OnceLock<Diagnostics>,
}

impl Remotes {
    /// None yet. Those that are only looked at are never fetched.
    pub fn new(purpose: Purpose) -> Remotes {
        Remotes { purpose, ..Remotes::default() }
    }

    /// Tells the operator from now on what cannot be fetched.
    pub fn report_to(&self, diagnostics: &Diagnostics) {
        self.diagnostics.get_or_init(|| diagnostics.clone());
    }

    /// The set that is kept so: the one there is, or a new one whose first fetch begins. Must be called on the control
    /// thread's runtime. `None` when a problem was added.
    #[expect(
        clippy::disallowed_methods,
        reason = "key sets are fetched on the control thread, beside the workers"
    )]
    pub fn open(&self, policy: &Policy, at: &At, problems: &mut Problems) -> Option<Arc<Remote>> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|(_, remote)| remote.strong_count() > 0);
        let same = known.iter().find(|(other, _)| other == policy);
        if let Some(remote) = same.and_then(|(_, remote)| remote.upgrade()) {
            return Some(remote);
        }
        let fetch = Fetch::new(policy.url.clone(), policy.ca.as_deref(), at, problems)?;
        let (sender, state) = watch::channel(State::default());
        let wanted = Arc::new(Notify::new());
        let remote = Arc::new(Remote { policy: policy.clone(), state, wanted: Arc::clone(&wanted) });
        known.push((policy.clone(), Arc::downgrade(&remote)));
        let diagnostics = self.diagnostics.get_or_init(Diagnostics::silent).clone();
        let keeper = Keeper { policy: policy.clone(), fetch, sender, wanted, diagnostics };
        if self.purpose == Purpose::Running && tokio::runtime::Handle::try_current().is_ok() {
            tokio::spawn(keeper.run());
        }
        Some(remote)
    }
}

/// The task that fetches.
struct Keeper {
    policy: Policy,
    fetch: Fetch,
    sender: watch::Sender<State>,
    wanted: Arc<Notify>,
    diagnostics: Diagnostics,
}

impl Keeper {
    /// Until nobody uses the set any more.
    async fn run(self) {
        let clock = Clock::start();
        let mut retry = FIRST_RETRY;
        let mut last = String::new();
        loop {
            let fetched = tokio::time::timeout(PATIENCE, self.fetch.get(MOST)).await;
            let fetched = fetched.unwrap_or_else(|_| Err("no answer in time".to_owned())).and_then(|bytes| {
                let text = String::from_utf8(bytes).map_err(|_| "it is not text".to_owned())?;
                Ok((Keys::read(&text, Source::Published)?, text))
            });
            let now = clock.now();
            let failed = fetched.as_ref().err().cloned();
            self.sender.send_modify(|state| {
                state.attempts += 1;
                state.at = Some(now);
                if let Ok((keys, text)) = fetched {
                    let number = state.good.as_ref().map_or(0, |(_, number, _)| *number);
                    let (keys, number) = match &state.good {
                        Some((known, ..)) if text == last => (Arc::clone(known), number),
                        _ => (Arc::new(keys), number + 1),
                    };
                    state.good = Some((keys, number, now));
                    last = text;
                }
            });
            let pause = match &failed {
                None => {
                    retry = FIRST_RETRY;
                    self.policy.every
                }
                Some(why) => {
                    let fields: [(&str, &dyn std::fmt::Display); 2] =
                        [("url", &self.policy.url), ("why", why)];
                    self.diagnostics.warn("a key set could not be fetched", &fields);
                    retry = (retry * 2).min(self.policy.every);
                    retry / 2
                }
            };
            tokio::select! {
                () = self.sender.closed() => return,
                () = tokio::time::sleep(pause) => {}
                () = self.wanted.notified() => {}
            }
        }
    }
}
