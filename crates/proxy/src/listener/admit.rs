//! Whether a connection may come in at all: by its address, and by how many its client has.
//!
//! Promise: decided before anything of the connection is read or answered (with a PROXY header, as soon as
//! that is there); a refusal is counted by its failure.

use std::net::IpAddr;

use super::LocalListener;
use crate::address::origin_of;
use crate::client_counts::Counted;
use crate::failure::Failure;

/// The connection may not come in, and that was counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused(pub Failure);

/// Whether a connection from this address may come in. A trusted proxy may: it brings many clients, whose
/// addresses its requests tell.
///
/// # Errors
/// The address is denied, or its client has as many connections as it may.
pub fn admit(listener: &LocalListener, address: IpAddr) -> Result<Option<Box<Counted>>, Refused> {
    let shared = &listener.shared;
    let refuse = |failure| {
        listener.cells.failed(failure);
        Err(Refused(failure))
    };
    if shared.access.is_none() && shared.connections_per_client.is_none() {
        return Ok(None);
    }
    if shared.forwarded.trusts(address) {
        return Ok(None);
    }
    if shared.access.as_ref().is_some_and(|access| !access.permits(address)) {
        return refuse(Failure::Forbidden);
    }
    let Some(most) = shared.connections_per_client else { return Ok(None) };
    match listener.bound.clients.come(origin_of(address), most) {
        // Boxed: connections that are not counted carry no room for it.
        Some(counted) => Ok(Some(Box::new(counted))),
        None => refuse(Failure::Overloaded),
    }
}
