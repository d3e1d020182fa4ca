//! Pure traffic decisions: which endpoint takes a request, and whether it may be tried at all.
//!
//! Promise: no sockets, no clock, no threads and no randomness of its own. Time is a [`Moment`] that the
//! caller passes, randomness an [`Rng`] that the caller seeds, so every decision can be replayed. What
//! several threads share ([`breaker`], [`ejection`], [`latency`]) is lock-free and taken by `&self`, but for
//! [`limit::table`], which says how it locks; the rest belongs to one worker.
//!
//! In the order in which a request meets them: [`limit`] (how much may come in) -> [`selection`] (who may take it: [`health`], [`breaker`],
//! [`ejection`], [`panic_mode`]) -> [`balance`] (who does, with [`slow_start`] weights and [`latency`]) ->
//! [`retry`] (whether and when another attempt follows).

pub mod balance;
pub mod breaker;
mod clock;
pub mod ejection;
pub mod gradient;
pub mod health;
pub mod latency;
pub mod limit;
pub mod pace;
pub mod panic_mode;
pub mod queue;
pub mod retry;
mod rng;
pub mod selection;
pub mod slow_start;
mod verdict;
mod window;

pub use clock::Moment;
pub use rng::Rng;
pub use verdict::Verdict;
