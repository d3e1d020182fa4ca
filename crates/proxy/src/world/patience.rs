//! A deadline for something that may not go on.

use std::task::Context;
use std::time::Duration;

use super::{Clock, Deadline};

/// Starts when what it is for first does not go on.
pub struct Patience {
    deadline: Deadline,
    clock: Clock,
    waiting: bool,
}

impl Patience {
    /// One that has not started.
    pub fn new(deadline: Deadline, clock: Clock) -> Patience {
        Patience { deadline, clock, waiting: false }
    }

    /// It goes on.
    pub fn renew(&mut self) {
        self.waiting = false;
    }

    /// Whether it has not gone on for `limit`. Wakes the task when that is so.
    pub fn poll_over(&mut self, limit: Duration, cx: &Context<'_>) -> bool {
        if !std::mem::replace(&mut self.waiting, true) {
            self.deadline.set(self.clock.now(), limit);
        }
        self.deadline.poll_passed(cx)
    }
}
