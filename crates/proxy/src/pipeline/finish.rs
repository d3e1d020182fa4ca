//! The end of an exchange: its facts go to the metrics and the access log, exactly once.

use std::rc::Rc;
use std::time::{Instant, UNIX_EPOCH};

use crate::exchange::{Exchange, Outcome};
use crate::failure::Failure;
use crate::listener::LocalListener;
use crate::observe::access_log::{Captured, Record};
use crate::observe::metrics::Summary;
use crate::tunnels::watch::Ending;
use crate::worker::{Running, Worker};

/// Notes the exchange's end, and gives its moment. `captured` is what the access log wants of the request.
pub fn note(
    worker: &Rc<Worker>,
    running: &Running,
    listener: &LocalListener,
    exchange: &mut Exchange,
    captured: &Captured,
) -> Instant {
    let now = worker.world.clock.now();
    exchange.phases.total = now.saturating_duration_since(exchange.started);
    let cells = match exchange.route_index {
        Some(route) => &running.routes[route as usize],
        None if listener.shared.registrations.is_some() => &running.registrations.0,
        None => &running.unrouted,
    };
    let summary = Summary::from(&*exchange);
    cells.finish(&summary);
    let consumer = exchange.consumer.as_ref().and_then(|consumer| running.consumers.get(consumer.position));
    if let Some(cells) = consumer {
        cells.finish(&summary);
    }
    if let Outcome::Failed(failure) = exchange.outcome {
        listener.cells.failed(failure);
        if matches!(failure, Failure::TunnelUnavailable | Failure::TunnelUnknown) {
            running.snapshot.tunnels.note_unavailable(exchange, worker.world.clock);
        }
    }
    if let Some(watch) = exchange.watch.take() {
        watch.end(Ending::from(&*exchange));
    }
    if let Some(log) = &running.log {
        let record = Record { exchange, request: captured };
        log.borrow_mut().record(&record, UNIX_EPOCH + worker.world.unix(now));
    }
    now
}
