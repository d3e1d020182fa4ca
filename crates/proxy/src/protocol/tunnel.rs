//! A connection that has become a tunnel: what is left of it when the exchange that opened it is over.
//!
//! Promise: it holds no snapshot, no listener and no buffer of its own, so that reloads leave it alone and idle
//! tunnels cost little.

use std::rc::Rc;

use crate::bandwidth;
use crate::relay::Lasting;
use crate::wire::Link;
use crate::worker::Worker;

/// Moves bytes until the tunnel ends, at the pace of the exchange that opened it.
pub async fn serve(worker: Rc<Worker>, mut link: Link, mut lasting: Box<Lasting>) {
    link.expect_nothing();
    let (client, tunnel) = (&mut link, &mut *lasting.end);
    bandwidth::relay((client, tunnel), lasting.throttle.as_deref(), (lasting.idle, &worker.world)).await;
}
