//! Our own connector, on a thread of its own.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use sluice_testkit::{Gateway, eventually, http};
use sluice_tunnel::connector::{Connector, Fixed, Handle, Http1, NoHooks, Options, Parts, Stopped, Tcp};
use sluice_tunnel::registration::Version;

/// A connector that runs; it ends with the process unless it is stopped.
pub(super) struct Running {
    handle: Handle,
}

impl Running {
    /// Registers `route` at the gateway for a target, and waits until a tunnel is there.
    pub(super) async fn start(
        gateway: &Gateway,
        route: &str,
        target: SocketAddr,
        version: Version,
    ) -> Running {
        let running = Running::spawn(gateway.address("tunnels"), route, target, version);
        wait_for(gateway, route).await;
        running
    }

    /// Runs, whether a gateway is there or not.
    pub(super) fn spawn(router: SocketAddr, route: &str, target: SocketAddr, version: Version) -> Running {
        let mut options = Options::new(route);
        options.announcement.versions = vec![version];
        let (sender, receiver) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let target =
                Http1::new(format!("http://{target}").parse().unwrap(), Rc::new(Tcp), Default::default());
            let parts = Parts {
                routers: Rc::new(Fixed(vec![format!("ws://{router}").parse().unwrap()])),
                dial: Rc::new(Tcp),
                target: Rc::new(target),
                hooks: Rc::new(NoHooks),
            };
            let (connector, handle) = Connector::new(options, parts);
            sender.send(handle).unwrap();
            runtime.block_on(connector.run());
        });
        Running { handle: receiver.recv().unwrap() }
    }

    /// Deregisters, drains and stops.
    pub(super) async fn stop(self) -> Stopped {
        self.handle.stop(Duration::from_secs(10)).await
    }
}

/// Waits until a route has a tunnel that can be taken.
pub(super) async fn wait_for(gateway: &Gateway, route: &str) {
    let address = gateway.address("tunnels");
    eventually("a tunnel", async || {
        let registrations = http::get(address, "/api/registrations").await.json();
        registrations
            .get(route)
            .filter(|route| route.as_object().is_some_and(|it| !it.is_empty()))
            .map(|_| ())
    })
    .await;
}
