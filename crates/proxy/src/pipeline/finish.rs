//! The end of an exchange: its facts go to the metrics and the access log, exactly once.

use std::rc::Rc;

use sluice_http::{NameId, RequestHead};

use crate::exchange::{Exchange, Outcome};
use crate::observe::access_log::Record;
use crate::worker::{Running, Worker};

/// What the access log wants of a request as it came, before filters change it. Captured only when there
/// is an access log.
#[derive(Clone, Debug)]
pub struct Observed {
    head: RequestHead,
}

impl Observed {
    /// Captures it.
    pub fn of(head: &RequestHead) -> Observed {
        Observed { head: head.clone() }
    }
}

/// Notes the exchange's end.
pub fn note(worker: &Rc<Worker>, running: &Running, exchange: &mut Exchange, observed: Option<Observed>) {
    let now = worker.world.clock.now();
    exchange.phases.total = now.saturating_duration_since(exchange.started);
    match exchange.route_index {
        Some(route) => running.routes[route].finish(exchange),
        None => running.unrouted.finish(exchange),
    }
    if let Outcome::Failed(failure) = exchange.outcome {
        running.failures.count(failure);
    }
    if let Some(log) = &running.log {
        let head = observed.as_ref().map(|observed| &observed.head);
        let text = |name: NameId| head.and_then(|head| head.fields.get_str(name)).unwrap_or("");
        let record = Record {
            exchange,
            head,
            user_agent: text(NameId::UserAgent),
            referer: text(NameId::Referer),
        };
        log.borrow_mut().record(&record, worker.world.clock.unix());
    }
}
