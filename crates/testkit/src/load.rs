//! Many requests over several connections, every answer checked.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use crate::http::request_bytes;
use crate::wire::Wire;

/// How many failures are kept as sentences; the rest are counted.
const KEPT: usize = 20;

/// A closed loop: each connection sends its next request when the last answer is complete and right. A
/// connection that fails is replaced.
#[derive(Clone, Debug)]
pub struct Load {
    /// Connections at a time.
    pub connections: usize,
    /// Requests in all; `usize::MAX` runs until it is stopped.
    pub requests: usize,
    /// What is asked for.
    pub target: String,
    /// The Host; the gateway's address when `None`.
    pub host: Option<String>,
    /// The status every answer must have.
    pub status: u16,
    /// The body every answer must have, when it is known.
    pub body: Option<Vec<u8>>,
}

impl Default for Load {
    fn default() -> Load {
        Load { connections: 8, requests: 1_000, target: "/".into(), host: None, status: 200, body: None }
    }
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct LoadReport {
    /// Answers that were right.
    pub right: usize,
    /// Requests without a right answer.
    pub failed: usize,
    /// The first failures, as sentences.
    pub failures: Vec<String>,
    /// How long the right answers took, in rising order.
    pub latencies: Vec<Duration>,
    /// Connections opened.
    pub opened: usize,
}

impl LoadReport {
    /// The latency that this share (0 to 1) of the answers stayed within.
    pub fn latency(&self, share: f64) -> Duration {
        let last = self.latencies.len().saturating_sub(1);
        self.latencies.get((last as f64 * share).round() as usize).copied().unwrap_or_default()
    }

    /// Fails the test unless every request was answered right.
    pub fn assert_clean(&self) {
        assert!(
            self.failed == 0,
            "{} of {} failed: {:#?}",
            self.failed,
            self.failed + self.right,
            self.failures
        );
    }

    fn add(&mut self, other: LoadReport) {
        self.right += other.right;
        self.failed += other.failed;
        self.opened += other.opened;
        self.latencies.extend(other.latencies);
        self.failures.extend(other.failures);
        self.failures.truncate(KEPT);
    }
}

/// A load that runs beside the test.
#[derive(Debug)]
pub struct LoadTask {
    shared: Arc<Shared>,
    lanes: Vec<JoinHandle<LoadReport>>,
}

#[derive(Debug)]
struct Shared {
    load: Load,
    address: SocketAddr,
    bytes: Vec<u8>,
    started: AtomicUsize,
    answered: AtomicUsize,
    stopped: AtomicBool,
}

impl Load {
    /// Runs all of it.
    pub async fn run(&self, address: SocketAddr) -> LoadReport {
        self.start(address).join().await
    }

    /// Starts it beside the test.
    pub fn start(&self, address: SocketAddr) -> LoadTask {
        let host = self.host.clone().unwrap_or_else(|| address.to_string());
        let shared = Arc::new(Shared {
            load: self.clone(),
            address,
            bytes: request_bytes(address, "GET", &self.target, &[("Host", &host)], b""),
            started: AtomicUsize::new(0),
            answered: AtomicUsize::new(0),
            stopped: AtomicBool::new(false),
        });
        let lanes = (0..self.connections).map(|_| tokio::spawn(lane(shared.clone()))).collect();
        LoadTask { shared, lanes }
    }
}

impl LoadTask {
    /// How many right answers have come so far.
    pub fn answered(&self) -> usize {
        self.shared.answered.load(Ordering::Relaxed)
    }

    /// Starts no further requests and gives the report when the open ones are done.
    pub async fn finish(self) -> LoadReport {
        self.shared.stopped.store(true, Ordering::Relaxed);
        self.join().await
    }

    async fn join(self) -> LoadReport {
        let mut report = LoadReport::default();
        for lane in self.lanes {
            report.add(lane.await.unwrap());
        }
        report.latencies.sort_unstable();
        report
    }
}

async fn lane(shared: Arc<Shared>) -> LoadReport {
    let mut report = LoadReport::default();
    let mut open: Option<Wire> = None;
    while !shared.stopped.load(Ordering::Relaxed)
        && shared.started.fetch_add(1, Ordering::Relaxed) < shared.load.requests
    {
        let began = Instant::now();
        let mut wire = match open.take() {
            Some(wire) => wire,
            None => {
                report.opened += 1;
                Wire::connect(shared.address).await
            }
        };
        match one(&mut wire, &shared).await {
            Ok(keep) => {
                report.right += 1;
                report.latencies.push(began.elapsed());
                shared.answered.fetch_add(1, Ordering::Relaxed);
                open = keep.then_some(wire);
            }
            Err(failure) => {
                report.failed += 1;
                if report.failures.len() < KEPT {
                    report.failures.push(failure);
                }
            }
        }
    }
    report
}

/// One request; whether the connection may be used again.
async fn one(wire: &mut Wire, shared: &Shared) -> Result<bool, String> {
    wire.send(&shared.bytes).await;
    let answer = wire.try_answer_to("GET").await?;
    if answer.status != shared.load.status {
        return Err(format!("status {}: {}", answer.status, answer.text()));
    }
    if shared.load.body.as_ref().is_some_and(|body| *body != answer.body) {
        return Err(format!("another body: {:?}", answer.text()));
    }
    Ok(!answer.field("connection").is_some_and(|value| value.eq_ignore_ascii_case("close")))
}
