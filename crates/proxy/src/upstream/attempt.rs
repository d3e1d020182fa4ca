//! One attempt at an endpoint, as its endpoint sees it.
//!
//! Promise: how it went is recorded (latency, breaker, ejection, counters) exactly once, also when the
//! attempt is abandoned.

use std::rc::Rc;
use std::time::{Duration, Instant};

use sluice_traffic::breaker::Admission;

use super::pick::{Came, Choice};
use super::{Events, Local};
use crate::failure::{Failure, Side};
use crate::world::World;

/// An attempt that has begun.
pub struct Attempt<'a> {
    world: &'a Rc<World>,
    events: &'a dyn Events,
    local: &'a Rc<Local>,
    index: usize,
    admission: Option<Admission>,
    noted: bool,
}

impl<'a> Attempt<'a> {
    /// Begins one at the chosen endpoint.
    pub fn begin(
        (world, events): (&'a Rc<World>, &'a dyn Events),
        local: &'a Rc<Local>,
        choice: &Choice,
    ) -> Attempt<'a> {
        let Choice { index, admission, .. } = *choice;
        Attempt { world, events, local, index, admission, noted: false }
    }

    /// Notes how it went: what came from the endpoint and after what time, or how it failed.
    pub fn note(mut self, came: Result<(Came, Duration), Failure>, ended: Instant) {
        self.noted = true;
        self.local.endpoint_cells[self.index].attempted(came.map(|_| ()));
        match came {
            Ok((came, latency)) => {
                self.local.cells.latency(latency);
                self.record(came, Some(latency), ended);
            }
            Err(failure) if failure.row().side == Side::Upstream => self.record(Came::Failure, None, ended),
            Err(_) => self.record(Came::Nothing, None, ended),
        }
    }

    fn record(&self, came: Came, latency: Option<Duration>, now: Instant) {
        let now = self.world.clock.moment(now);
        if let Some(change) = self.local.record(self.index, self.admission, came, (now, latency)) {
            self.events.breaker_changed(&self.local.shared, self.index, change);
        }
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        if !self.noted {
            self.record(Came::Nothing, None, self.world.clock.now());
        }
    }
}
