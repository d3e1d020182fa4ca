//! Whether an endpoint that says nothing is still there.

use std::task::{Context, Poll};

use h2::{Ping, PingPong};

use super::Policy;
use crate::world::{Clock, Deadline, World};

/// Asks an endpoint with PING while requests are on the connection.
pub(super) struct Pinger {
    pings: PingPong,
    policy: Policy,
    /// Of the next question, or of the answer to one.
    deadline: Deadline,
    clock: Clock,
    waiting: bool,
}

/// Whether the other end is there, as far as is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sign {
    /// It may be.
    Alive,
    /// It has not answered in time.
    Dead,
}

impl Pinger {
    /// Asks as the policy says, if it does.
    pub(super) fn new(pings: Option<PingPong>, policy: Policy, world: &World) -> Option<Pinger> {
        let every = policy.ping?;
        let deadline = world.timers.deadline();
        deadline.set(world.clock.now(), every);
        Some(Pinger { pings: pings?, policy, deadline, clock: world.clock, waiting: false })
    }

    /// Asks when it is time; the task is woken when the next thing is due. `open`: requests on the connection.
    pub(super) fn poll(&mut self, open: usize, cx: &mut Context<'_>) -> Sign {
        loop {
            if self.waiting {
                match self.pings.poll_pong(cx) {
                    Poll::Ready(Ok(_)) => self.waiting = false,
                    // The connection is over: whoever drives it will see that.
                    Poll::Ready(Err(_)) => return Sign::Alive,
                    Poll::Pending if self.deadline.poll_passed(cx) => return Sign::Dead,
                    Poll::Pending => return Sign::Alive,
                }
                self.rest();
            }
            if open == 0 {
                self.rest();
            }
            if !self.deadline.poll_passed(cx) || self.pings.send_ping(Ping::opaque()).is_err() {
                return Sign::Alive;
            }
            self.waiting = true;
            self.deadline.set(self.clock.now(), self.policy.ping_timeout);
        }
    }

    fn rest(&mut self) {
        self.deadline.set_or_clear(self.clock.now(), self.policy.ping);
    }
}
