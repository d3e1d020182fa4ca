//! The only door to time and randomness, and the one place that spawns a worker's tasks.
//!
//! Promise: nothing else in the data plane reads a clock, draws a number or spawns. A test builds a world
//! from a seed.

mod patience;
mod timers;

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use sluice_traffic::{Moment, Rng};

pub use patience::Patience;
pub use timers::{Deadline, Timers};

/// Reads the clocks. Copy it freely: it is the process's start and nothing more.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
}

impl Clock {
    /// A clock whose `Moment` zero is now.
    #[expect(clippy::disallowed_methods, reason = "World is the door to time")]
    pub fn start() -> Clock {
        Clock { start: Instant::now() }
    }

    /// The monotonic time.
    #[expect(clippy::disallowed_methods, reason = "World is the door to time")]
    pub fn now(&self) -> Instant {
        Instant::now()
    }

    /// The monotonic time as the pure crates count it: nanoseconds since the clock's start.
    pub fn moment(&self, at: Instant) -> Moment {
        Moment(at.saturating_duration_since(self.start).as_nanos() as u64)
    }

    /// The wall clock.
    #[expect(clippy::disallowed_methods, reason = "World is the door to time")]
    pub fn wall(&self) -> SystemTime {
        SystemTime::now()
    }

    /// The wall clock, since 1970-01-01T00:00:00Z.
    pub fn unix(&self) -> Duration {
        self.wall().duration_since(UNIX_EPOCH).unwrap_or_default()
    }
}

/// One worker's time, randomness and tasks.
pub struct World {
    /// The clocks.
    pub clock: Clock,
    /// Deadlines of this worker, a few milliseconds coarse.
    pub timers: Rc<Timers>,
    /// The wall clock when the monotonic one was at its start, as last looked at.
    wall_at_start: Cell<Duration>,
    rng: RefCell<Rng>,
}

impl World {
    /// A world that draws its numbers from `seed`. Must be called on a `LocalRuntime`.
    pub fn new(clock: Clock, seed: u64) -> Rc<World> {
        let timers = Timers::new(clock);
        let (wall_at_start, rng) = (Cell::default(), RefCell::new(Rng::new(seed)));
        let world = Rc::new(World { clock, timers: Rc::clone(&timers), wall_at_start, rng });
        world.set_wall();
        world.spawn(async move { timers.run().await });
        world
    }

    /// The wall clock at a moment of the monotonic one, since 1970: without asking the system. It follows a
    /// wall clock that was set within the time between two calls of [`World::set_wall`].
    pub fn unix(&self, at: Instant) -> Duration {
        self.wall_at_start.get() + at.saturating_duration_since(self.clock.start)
    }

    /// Looks at the wall clock.
    pub fn set_wall(&self) {
        let since_start = self.clock.now().saturating_duration_since(self.clock.start);
        self.wall_at_start.set(self.clock.unix().saturating_sub(since_start));
    }

    /// Uses the worker's random numbers.
    pub fn random<T>(&self, draw: impl FnOnce(&mut Rng) -> T) -> T {
        draw(&mut self.rng.borrow_mut())
    }

    /// Spawns a task on this worker. It is cancelled when the worker's runtime ends.
    pub fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        tokio::task::spawn_local(task);
    }
}
