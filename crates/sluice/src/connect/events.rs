//! What a connector tells its operator: one line for each thing that changed.
//!
//! Promise: a gateway that stays away, or a target that stays down, does not fill the log: the first failure is
//! told, then what changes, and of the target's failures one line a second with the number of those it stands for.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use sluice_http::RequestHead;
use sluice_proxy::observe::diagnostic::Diagnostics;
use sluice_tunnel::connector::{Address, Event, Hooks, TargetFailed};
use sluice_tunnel::registration::Version;
use sluice_tunnel::websocket::Ended;
use tokio::time::Instant;

use super::plan::Header;
use super::target::{Counts, count};

/// Between two lines about the target.
const PAUSE: Duration = Duration::from_secs(1);

/// How it stands with a gateway.
#[derive(PartialEq)]
enum Standing {
    Registered(Version),
    Failing(String),
}

/// The hooks of one service's connector.
pub(super) struct Told {
    service: String,
    headers: Vec<Header>,
    counts: Rc<Counts>,
    diagnostics: Diagnostics,
    routers: RefCell<HashMap<Address, Standing>>,
    /// The target's failures since the last line about them, and when that was.
    target: (Cell<u64>, Cell<Option<Instant>>),
}

impl Told {
    pub(super) fn new(
        (service, headers): (&str, Vec<Header>),
        counts: Rc<Counts>,
        diagnostics: Diagnostics,
    ) -> Told {
        let (service, routers) = (service.to_owned(), RefCell::default());
        Told { service, headers, counts, diagnostics, routers, target: Default::default() }
    }

    /// Whether this is not how it stood.
    fn changes(&self, router: &Address, now: Standing) -> bool {
        let mut routers = self.routers.borrow_mut();
        let changes = routers.get(router) != Some(&now);
        routers.insert(router.clone(), now);
        changes
    }

    fn failing(&self, message: &str, router: &Address, error: &str) {
        let fields: [(&str, &dyn std::fmt::Display); 3] =
            [("service", &self.service), ("router", router), ("error", &error)];
        match self.changes(router, Standing::Failing(error.to_owned())) {
            true => self.diagnostics.warn(message, &fields),
            false => self.diagnostics.debug(message, &fields),
        }
    }

    fn opened(&self, router: &Address, version: Version) {
        let fields: [(&str, &dyn std::fmt::Display); 3] =
            [("service", &self.service), ("router", router), ("version", &version)];
        match self.changes(router, Standing::Registered(version)) {
            true => self.diagnostics.info("registered", &fields),
            false => self.diagnostics.debug("tunnel opened", &fields),
        }
    }

    fn closed(&self, router: &Address, ended: &Ended) {
        let what = match ended {
            Ended::Dropped => "the connection broke".to_owned(),
            Ended::Silent => "the gateway is silent".to_owned(),
            Ended::Broken(breach) => format!("the gateway broke the protocol: {breach:?}"),
            Ended::Closed(Some(close)) => {
                let (code, reason) = (close.code, close.reason.clone());
                let fields: [(&str, &dyn std::fmt::Display); 4] =
                    [("service", &self.service), ("router", router), ("code", &code), ("reason", &reason)];
                return self.diagnostics.debug("tunnel closed", &fields);
            }
            Ended::Closed(None) | Ended::Ours => {
                return self
                    .diagnostics
                    .debug("tunnel closed", &[("service", &self.service), ("router", router)]);
            }
        };
        // One line for all tunnels that break together.
        if matches!(self.routers.borrow().get(router), Some(Standing::Registered(_))) {
            self.failing("tunnel broken", router, &what);
        }
    }

    fn target_failed(&self, failed: TargetFailed) {
        count(&self.counts.failed);
        let (unsaid, last) = &self.target;
        let now = Instant::now();
        if last.get().is_some_and(|last| now.duration_since(last) < PAUSE) {
            return count(unsaid);
        }
        last.set(Some(now));
        let more = unsaid.take();
        self.diagnostics.warn(
            "target failed",
            &[("service", &self.service), ("code", &failed.code()), ("error", &failed), ("more", &more)],
        );
    }
}

impl Hooks for Told {
    fn register(&self, _: &Address, head: &mut RequestHead) {
        for (name, value) in &self.headers {
            head.fields.append(name, value.as_bytes());
        }
    }

    fn event(&self, event: &Event<'_>) {
        match event {
            Event::RoutersChanged { added, removed, .. } => {
                for router in *added {
                    self.diagnostics.info("gateway added", &[("service", &self.service), ("router", router)]);
                }
                for router in *removed {
                    self.routers.borrow_mut().remove(router);
                    let fields: [(&str, &dyn std::fmt::Display); 2] =
                        [("service", &self.service), ("router", router)];
                    self.diagnostics.info("gateway gone, its tunnels are drained", &fields);
                }
            }
            Event::RoutersUnknown(error) => {
                let message = "gateways cannot be looked up";
                self.diagnostics.warn(message, &[("service", &self.service), ("error", error)]);
            }
            Event::Opened(router, version) => self.opened(router, *version),
            Event::OpenFailed(router, error) => {
                self.failing("registration failed", router, &error.to_string());
            }
            Event::Closed(router, ended) => self.closed(router, ended),
            Event::DeregisterFailed(router, error) => {
                let fields: [(&str, &dyn std::fmt::Display); 3] =
                    [("service", &self.service), ("router", router), ("error", error)];
                self.diagnostics.warn("deregistration failed", &fields);
            }
            Event::TargetFailed { failed, .. } => self.target_failed(*failed),
            Event::Cancelled(why) => {
                count(&self.counts.cancelled);
                self.diagnostics
                    .debug("request cancelled", &[("service", &self.service), ("code", &why.code())]);
            }
        }
    }
}
