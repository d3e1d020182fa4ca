//! The target of a service: spoken to in HTTP/1.1 (the tunnel library's), in HTTP/2 (`http2`), or in what TLS agrees
//! on (`auto`), and counted (`counted`).

mod auto;
mod counted;
mod http2;

use std::rc::Rc;

use sluice_proxy::tls::Offer;
use sluice_proxy::world::World;
use sluice_tunnel::connector::{Http1, Http1Settings, Target};

use super::dial::Dialler;
use super::document::TargetProtocol;
use super::plan::Service;
use auto::Auto;
use counted::Counted;
pub(in crate::connect) use counted::{Counts, count};
use http2::Http2;

/// The target of a service.
pub(super) fn target(
    service: &Service,
    dialler: &Dialler,
    counts: &Rc<Counts>,
    world: &Rc<World>,
) -> Rc<dyn Target> {
    let (to, dialler) = (service.target.clone(), dialler.clone());
    let counts = Rc::clone(counts);
    match service.protocol {
        TargetProtocol::Http1 => {
            Rc::new(Counted::new(Http1::new(to, Rc::new(dialler), Http1Settings::default()), counts))
        }
        TargetProtocol::Http2 => {
            Rc::new(Counted::new(Http2::new(to, dialler, Offer::Http2, Rc::clone(world)), counts))
        }
        TargetProtocol::Auto => Rc::new(Counted::new(Auto::new(to, dialler, Rc::clone(world)), counts)),
    }
}
