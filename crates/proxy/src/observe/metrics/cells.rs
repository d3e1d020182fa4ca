//! The cells a worker counts in.
//!
//! Promise: every cell has one writer, its worker, so counting is a plain load, add and store: no lock
//! prefix, no shared cache line, no lookup. Labels are resolved when a snapshot is built, and positions
//! inside a block are the numbers of closed enums.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use sluice_http::h1::Refusal;
use sluice_http::h2::{Breach, Flood};
use sluice_http::proxy_protocol::Invalid;
use sluice_http::socks5;

use super::histogram::Histogram;
use crate::exchange::{Exchange, Outcome};
use crate::failure::Failure;
use crate::limit::record::{Kind, Ruling, Tally};
use crate::tls::TlsRefusal;

/// A number that only grows, written by one worker and read by anybody.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Starts at zero.
    pub const fn new() -> Counter {
        Counter(AtomicU64::new(0))
    }

    /// Adds. Not a read-modify-write: with a second writer, increments would be lost.
    #[inline]
    pub fn add(&self, amount: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(amount), Relaxed);
    }

    /// The current value.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// A number that goes up and down, written by one worker and read by anybody.
#[derive(Debug, Default)]
pub struct Gauge(AtomicI64);

impl Gauge {
    /// Adds, or takes away. Not a read-modify-write: with a second writer, changes would be lost.
    #[inline]
    pub fn add(&self, change: i64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(change), Relaxed);
    }

    /// The current value.
    pub fn get(&self) -> i64 {
        self.0.load(Relaxed)
    }
}

/// Labels of the classes a status falls into; the first is for an exchange without an answer.
pub(super) const CLASSES: [&str; 6] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];

/// Number of outcome codes: completed, answered, and each failure.
pub(super) const OUTCOMES: usize = 2 + Failure::ALL.len();

fn class(status: u16) -> usize {
    match status / 100 {
        class @ 1..=5 => usize::from(class),
        _ => 0,
    }
}

fn outcome_index(outcome: Outcome) -> usize {
    match outcome {
        Outcome::Completed => 0,
        Outcome::Answered => 1,
        Outcome::Failed(failure) => 2 + failure as usize,
    }
}

/// The code at an outcome's position.
pub(super) fn outcome_code(index: usize) -> &'static str {
    match index {
        0 => Outcome::Completed.code(),
        1 => Outcome::Answered.code(),
        _ => Failure::ALL.get(index - 2).map_or("", |failure| failure.code()),
    }
}

/// What is counted of an exchange when it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Status sent to the client; 0 when no answer was sent.
    pub status: u16,
    /// How it ended.
    pub outcome: Outcome,
    /// From the first byte of the request to the last byte of the answer.
    pub duration: Duration,
    /// Body bytes from the client.
    pub received: u64,
    /// Body bytes to the client.
    pub sent: u64,
    /// What limits and quotas ruled.
    pub limits: Tally,
}

impl From<&Exchange> for Summary {
    fn from(exchange: &Exchange) -> Summary {
        Summary {
            status: exchange.status,
            outcome: exchange.outcome,
            duration: exchange.phases.total,
            received: exchange.received,
            sent: exchange.sent,
            limits: exchange.limits.tally,
        }
    }
}

/// What one worker counted of one route.
///
/// The block behind it is made at the route's first exchange, so a hundred thousand routes that nobody asks
/// for cost a hundred thousand pointers, not 150 MB.
#[derive(Debug, Default)]
pub struct RouteCells(OnceLock<Box<RouteBlock>>);

/// Aligned to two cache lines: x86 fetches them in pairs, and the neighbour may be another worker's.
#[derive(Debug)]
#[repr(align(128))]
pub(super) struct RouteBlock {
    pub(super) exchanges: [[Counter; CLASSES.len()]; OUTCOMES],
    pub(super) duration: Histogram,
    pub(super) received: Counter,
    pub(super) sent: Counter,
    pub(super) limits: [[Counter; Ruling::ALL.len()]; Kind::ALL.len()],
}

impl RouteCells {
    /// Counts an exchange that ended. Allocates at the first one of this route on this worker, never again.
    #[inline]
    pub fn finish(&self, summary: &Summary) {
        let block = self.0.get_or_init(Box::default);
        block.exchanges[outcome_index(summary.outcome)][class(summary.status)].add(1);
        block.duration.record(summary.duration);
        block.received.add(summary.received);
        block.sent.add(summary.sent);
        if !summary.limits.is_empty() {
            for (kind, ruling) in Kind::ALL.iter().flat_map(|kind| Ruling::ALL.map(|ruling| (*kind, ruling)))
            {
                let count = summary.limits.get(kind, ruling);
                block.limits[kind as usize][ruling as usize].add(u64::from(count));
            }
        }
    }

    /// What was counted; `None` before the first exchange.
    pub(super) fn block(&self) -> Option<&RouteBlock> {
        self.0.get().map(|block| &**block)
    }
}

impl Default for RouteBlock {
    fn default() -> RouteBlock {
        RouteBlock {
            exchanges: [const { [const { Counter::new() }; CLASSES.len()] }; OUTCOMES],
            duration: Histogram::default(),
            received: Counter::new(),
            sent: Counter::new(),
            limits: [const { [const { Counter::new() }; Ruling::ALL.len()] }; Kind::ALL.len()],
        }
    }
}

/// What one worker counted of one consumer.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct ConsumerCells {
    pub(super) exchanges: [Counter; CLASSES.len()],
    pub(super) received: Counter,
    pub(super) sent: Counter,
}

impl ConsumerCells {
    /// Counts an exchange of this consumer that ended.
    #[inline]
    pub fn finish(&self, summary: &Summary) {
        self.exchanges[class(summary.status)].add(1);
        self.received.add(summary.received);
        self.sent.add(summary.sent);
    }
}

/// What one worker counted of one upstream.
#[derive(Debug)]
#[repr(align(128))]
pub struct UpstreamCells {
    /// Attempts that followed a failed one of the same exchange.
    pub retries: Counter,
    /// Exchanges that wanted a retry and did not get one, because the retry budget was used up.
    pub retries_denied: Counter,
    /// Exchanges that were given something else, because it failed.
    pub fallbacks: Counter,
    pub(super) latency: Histogram,
    pub(super) refused: [Counter; Refusal::ALL.len()],
}

impl Default for UpstreamCells {
    fn default() -> UpstreamCells {
        UpstreamCells {
            retries: Counter::new(),
            retries_denied: Counter::new(),
            fallbacks: Counter::new(),
            latency: Histogram::default(),
            refused: [const { Counter::new() }; Refusal::ALL.len()],
        }
    }
}

impl UpstreamCells {
    /// Counts the time from the start of an attempt to the first byte of its answer.
    #[inline]
    pub fn latency(&self, latency: Duration) {
        self.latency.record(latency);
    }

    /// Counts an answer that the HTTP engine refused.
    pub fn refused(&self, refusal: Refusal) {
        self.refused[refusal as usize].add(1);
    }
}

/// What one worker counted of one endpoint.
#[derive(Debug)]
#[repr(align(128))]
pub struct EndpointCells {
    /// Connections opened.
    pub opened: Counter,
    /// Attempts that were given a pooled connection.
    pub reused: Counter,
    /// Pooled connections that wait for an attempt.
    pub idle: Gauge,
    pub(super) answered: Counter,
    pub(super) failed: [Counter; Failure::ALL.len()],
}

impl Default for EndpointCells {
    fn default() -> EndpointCells {
        EndpointCells {
            opened: Counter::new(),
            reused: Counter::new(),
            idle: Gauge::default(),
            answered: Counter::new(),
            failed: [const { Counter::new() }; Failure::ALL.len()],
        }
    }
}

impl EndpointCells {
    /// Counts an attempt: `Ok` when an answer's head came, else how it failed.
    #[inline]
    pub fn attempted(&self, result: Result<(), Failure>) {
        match result {
            Ok(()) => self.answered.add(1),
            Err(failure) => self.failed[failure as usize].add(1),
        }
    }
}

/// What one worker counted of one listener.
#[derive(Debug)]
#[repr(align(128))]
pub struct ListenerCells {
    /// Bytes read from clients' connections, heads and framing included.
    pub received: Counter,
    /// Bytes written to clients' connections, heads and framing included.
    pub sent: Counter,
    /// Datagrams that were dropped: no room for a flow or in a socket, or too long.
    pub dropped: Counter,
    pub(super) accepted: Counter,
    pub(super) active: Gauge,
    pub(super) refused: [Counter; Refusal::ALL.len()],
    pub(super) handshakes: [Counter; TlsRefusal::ALL.len()],
    pub(super) floods: [Counter; Flood::ALL.len()],
    pub(super) breaches: [Counter; Breach::ALL.len()],
    pub(super) refused_headers: [Counter; Invalid::ALL.len()],
    pub(super) refused_socks: [Counter; socks5::Invalid::ALL.len()],
    pub(super) failed: [Counter; Failure::ALL.len()],
}

impl Default for ListenerCells {
    fn default() -> ListenerCells {
        ListenerCells {
            received: Counter::new(),
            sent: Counter::new(),
            dropped: Counter::new(),
            accepted: Counter::new(),
            active: Gauge::default(),
            refused: [const { Counter::new() }; Refusal::ALL.len()],
            handshakes: [const { Counter::new() }; TlsRefusal::ALL.len()],
            floods: [const { Counter::new() }; Flood::ALL.len()],
            breaches: [const { Counter::new() }; Breach::ALL.len()],
            refused_headers: [const { Counter::new() }; Invalid::ALL.len()],
            refused_socks: [const { Counter::new() }; socks5::Invalid::ALL.len()],
            failed: [const { Counter::new() }; Failure::ALL.len()],
        }
    }
}

impl ListenerCells {
    /// Counts a connection that was accepted.
    pub fn opened(&self) {
        self.accepted.add(1);
        self.active.add(1);
    }

    /// Counts the end of a connection; once for each `opened`.
    pub fn closed(&self) {
        self.active.add(-1);
    }

    /// Counts a request that the HTTP engine refused.
    pub fn refused(&self, refusal: Refusal) {
        self.refused[refusal as usize].add(1);
    }

    /// Counts a TLS handshake that failed.
    pub fn tls_refused(&self, refusal: TlsRefusal) {
        self.handshakes[refusal as usize].add(1);
    }

    /// Counts an HTTP/2 connection that is closed because of what its client did too much.
    pub fn flooded(&self, flood: Flood) {
        self.floods[flood as usize].add(1);
    }

    /// Counts a broken rule of HTTP/2.
    pub fn breached(&self, breach: Breach) {
        self.breaches[breach as usize].add(1);
    }

    /// Counts a SOCKS message that was refused.
    pub fn refused_socks(&self, invalid: socks5::Invalid) {
        self.refused_socks[invalid as usize].add(1);
    }

    /// Counts a PROXY header that was refused.
    pub fn refused_header(&self, invalid: Invalid) {
        self.refused_headers[invalid as usize].add(1);
    }

    /// Counts an exchange that failed.
    pub fn failed(&self, failure: Failure) {
        self.failed[failure as usize].add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn enum_numbers_are_positions_in_their_lists() {
        for (position, failure) in Failure::ALL.iter().enumerate() {
            assert_eq!(*failure as usize, position);
            let outcome = Outcome::Failed(*failure);
            assert_eq!(outcome_code(outcome_index(outcome)), failure.code());
        }
        for (position, refusal) in Refusal::ALL.iter().enumerate() {
            assert_eq!(*refusal as usize, position);
        }
        for outcome in [Outcome::Completed, Outcome::Answered] {
            assert_eq!(outcome_code(outcome_index(outcome)), outcome.code());
        }
    }

    #[test]
    fn every_status_has_a_class() {
        let classes = [0, 99, 100, 204, 304, 499, 599, 600, 999].map(|status| CLASSES[class(status)]);
        assert_eq!(classes, ["none", "none", "1xx", "2xx", "3xx", "4xx", "5xx", "none", "none"]);
    }

    #[test]
    fn a_route_that_nobody_asks_for_has_no_block() {
        let cells = RouteCells::default();
        assert!(cells.block().is_none());
        cells.finish(&Summary {
            status: 502,
            outcome: Outcome::Failed(Failure::UpstreamReset),
            duration: Duration::from_millis(2),
            received: 3,
            sent: 5,
            limits: Tally::default(),
        });
        let block = cells.block().unwrap();
        assert_eq!(block.exchanges[2 + Failure::UpstreamReset as usize][5].get(), 1);
        assert_eq!((block.received.get(), block.sent.get()), (3, 5));
    }

    #[test]
    fn blocks_of_two_workers_share_no_cache_line() {
        assert_eq!(align_of::<RouteBlock>(), 128);
        assert_eq!(align_of::<UpstreamCells>(), 128);
        assert_eq!(align_of::<EndpointCells>(), 128);
        assert_eq!(align_of::<ListenerCells>(), 128);
    }
}
