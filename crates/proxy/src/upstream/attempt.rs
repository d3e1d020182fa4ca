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
pub struct Attempt {
    world: Rc<World>,
    events: Rc<dyn Events>,
    local: Rc<Local>,
    index: usize,
    admission: Option<Admission>,
    noted: bool,
}

impl Attempt {
    /// Begins one at the chosen endpoint.
    pub fn begin(
        (world, events): (&Rc<World>, &Rc<dyn Events>),
        local: &Rc<Local>,
        choice: &Choice,
    ) -> Attempt {
        let (world, events, local) = (Rc::clone(world), Rc::clone(events), Rc::clone(local));
        let Choice { index, admission, .. } = *choice;
        Attempt { world, events, local, index, admission, noted: false }
    }

    /// Notes how it went: what came from the endpoint and after what time, or how it failed.
    pub fn note(self, came: Result<(Came, Duration), Failure>, ended: Instant) {
        match came {
            Ok((came, latency)) => self.answered(latency).judge(came, ended),
            Err(failure) => self.failed(failure, ended),
        }
    }

    /// Notes an answer whose worth is not known yet.
    pub fn answered(self, latency: Duration) -> Answered {
        self.local.endpoint_cells[self.index].attempted(Ok(()));
        self.local.cells.latency(latency);
        Answered { attempt: self, latency }
    }

    fn failed(mut self, failure: Failure, ended: Instant) {
        self.local.endpoint_cells[self.index].attempted(Err(failure));
        let came = if failure.row().side == Side::Upstream { Came::Failure } else { Came::Nothing };
        self.record(came, None, ended);
    }

    /// Whether a breaker waits for its result.
    pub fn is_probe(&self) -> bool {
        matches!(self.admission, Some(Admission::Probe(_)))
    }

    fn record(&mut self, came: Came, latency: Option<Duration>, now: Instant) {
        self.noted = true;
        let now = self.world.clock.moment(now);
        if let Some(change) = self.local.record(self.index, self.admission, came, (now, latency)) {
            self.events.breaker_changed(&self.local.shared, self.index, change);
        }
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if !self.noted {
            self.record(Came::Nothing, None, self.world.clock.now());
        }
    }
}

/// An attempt that was answered.
pub struct Answered {
    attempt: Attempt,
    latency: Duration,
}

impl Answered {
    /// Notes what the answer was worth.
    pub fn judge(mut self, came: Came, ended: Instant) {
        self.attempt.record(came, Some(self.latency), ended);
    }

    /// The same, now.
    pub fn judge_now(self, came: Came) {
        let now = self.attempt.world.clock.now();
        self.judge(came, now);
    }
}
