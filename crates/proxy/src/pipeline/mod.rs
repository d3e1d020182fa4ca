//! What happens to every request around its route.

pub mod forwarded;
pub mod hops;
pub mod normalize;
pub mod problem_answer;
