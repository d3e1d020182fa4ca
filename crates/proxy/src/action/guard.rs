//! Passing the breakers around a route and an upstream.

use crate::circuit::{Circuit, Passing, verdict};
use crate::failure::Failure;
use crate::scene::Scene;
use crate::world::World;

/// Lets a request pass, now.
///
/// # Errors
/// [`Failure::BreakerOpen`]
pub(super) fn pass<'a>(circuit: &'a Circuit, world: &World) -> Result<Passing<'a>, Failure> {
    circuit.pass(world.clock.moment(world.clock.now()))
}

/// Judges it by what came, and tells of the change that makes.
pub(super) fn judge(
    scene: &Scene<'_>,
    (circuit, passing): (&Circuit, Passing<'_>),
    came: Result<u16, Failure>,
) {
    let now = scene.world.clock.moment(scene.world.clock.now());
    if let Some(change) = passing.judge(verdict(came), now) {
        scene.events.circuit_changed(circuit, change);
    }
}
