//! The handle of a running connector: looks in and stops it, from any thread.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use super::address::Address;

/// What the tunnels of a gateway are doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouterState {
    /// The window is kept open.
    Active,
    /// It is being drained.
    Stopping,
}

/// One gateway, as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Where it is.
    pub address: Address,
    /// What its tunnels are doing.
    pub state: RouterState,
    /// Tunnels that never carried a request.
    pub idle: usize,
    /// Tunnels that did, in 1.0 each with one.
    pub busy: usize,
    /// Failures in a row.
    pub failures: u32,
    /// The last one.
    pub last_error: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    Run,
    /// For at most so long.
    Drain(Duration),
}

/// How a connector stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// Every exchange ended in time.
    Drained,
    /// Some were cut off.
    TimedOut,
}

#[derive(Debug)]
pub(super) struct Shared {
    reports: Mutex<Vec<Report>>,
    pub(super) orders: watch::Sender<Order>,
    pub(super) stopped: watch::Sender<Option<Stopped>>,
}

impl Shared {
    pub(super) fn new() -> Arc<Shared> {
        Arc::new(Shared {
            reports: Mutex::default(),
            orders: watch::Sender::new(Order::Run),
            stopped: watch::Sender::new(None),
        })
    }

    fn reports(&self) -> MutexGuard<'_, Vec<Report>> {
        self.reports.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn report(&self, report: Report) {
        let mut reports = self.reports();
        match reports.iter_mut().find(|known| known.address == report.address) {
            Some(known) => *known = report,
            None => reports.push(report),
        }
    }

    pub(super) fn forget(&self, address: &Address) {
        self.reports().retain(|report| report.address != *address);
    }
}

/// Looks into a connector, and stops it.
#[derive(Clone, Debug)]
pub struct Handle {
    pub(super) shared: Arc<Shared>,
}

impl Handle {
    /// Every gateway that the connector knows.
    pub fn routers(&self) -> Vec<Report> {
        self.shared.reports().clone()
    }

    /// Deregisters everywhere, waits until every exchange has ended, at most so long, and closes what is left.
    /// A second call waits with the first. The connector must be running.
    pub async fn stop(&self, patience: Duration) -> Stopped {
        self.shared.orders.send_if_modified(|order| {
            let is_first = *order == Order::Run;
            if is_first {
                *order = Order::Drain(patience);
            }
            is_first
        });
        let mut stopped = self.shared.stopped.subscribe();
        let done = stopped.wait_for(Option::is_some).await.map(|stopped| *stopped);
        done.ok().flatten().unwrap_or(Stopped::TimedOut)
    }
}
