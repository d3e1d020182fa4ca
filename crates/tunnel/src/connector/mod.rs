//! The connector: keeps tunnels to gateways open and passes what comes through them to a target.
//!
//! ```no_run
//! use std::rc::Rc;
//! use sluice_tunnel::connector::{Connector, Fixed, Http1, NoHooks, Options, Parts, Tcp};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let routers = Fixed(vec!["ws://gateway.example:9070".parse()?]);
//! let target = Http1::new("http://127.0.0.1:5000".parse()?, Rc::new(Tcp), Default::default());
//! let (connector, handle) = Connector::new(
//!     Options::new("my-service"),
//!     Parts { routers: Rc::new(routers), dial: Rc::new(Tcp), target: Rc::new(target), hooks: Rc::new(NoHooks) },
//! );
//! // Elsewhere, and from any thread: handle.stop(Duration::from_secs(30)).await
//! # drop(handle);
//! connector.run().await;
//! # Ok(())
//! # }
//! ```
//!
//! It runs on one thread, in any tokio runtime that has time and I/O, and its future is not `Send`. Read `router`
//! (one gateway: window, back-off, drain), `handshake`, `drive` (one socket), `tunnel` and `exchange`.

mod address;
mod dial;
mod drive;
mod exchange;
mod handle;
mod handshake;
mod hooks;
mod http1;
mod inbox;
mod router;
mod routers;
mod target;
mod tunnel;

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{JoinHandle, LocalSet};

pub use address::{Address, BadAddress, Security};
pub use dial::{Dial, LocalFuture, Stream, Tcp};
pub use handle::{Handle, Report, RouterState, Stopped};
pub use handshake::OpenFailed;
pub use hooks::{Event, Hooks, NoHooks};
pub use http1::{Http1, Http1Settings};
pub use routers::{Fixed, LookedUp, Routers};
pub use target::{Target, TargetFailed};

use crate::registration::{Announcement, Extensions, Version};
use crate::settings::Settings;
use handle::{Order, Shared};
use router::Router;

/// What a connector announces, and its numbers.
#[derive(Clone, Debug)]
pub struct Options {
    /// What it announces.
    pub announcement: Announcement,
    /// Tunnels to each gateway: idle ones in 1.0, all in 3.0.
    pub window: usize,
    /// Tunnels to each gateway at most, also when all are used: the limit of exchanges in 1.0.
    pub most_tunnels: usize,
    /// How long opening a tunnel may take.
    pub connect_timeout: Duration,
    /// How often the list of gateways is asked for again.
    pub refresh: Duration,
    /// How long the tunnels of a gateway that is no longer in the list are drained.
    pub drain: Duration,
    /// Of every tunnel; the extensions in it mean nothing, as they are negotiated.
    pub settings: Settings,
    /// Where masking keys, WebSocket keys and pauses come from.
    pub seed: u64,
}

impl Options {
    /// For this route (`*` for every path), all domains, and everything that this crate speaks. The instance is
    /// random.
    pub fn new(route: &str) -> Options {
        let mut random = fastrand::Rng::new();
        let instance = random.u128(..);
        Options {
            announcement: Announcement {
                route: route.to_owned(),
                domain: "*".to_owned(),
                instance: format!("{instance:032x}"),
                component: "sluice-connector".to_owned(),
                versions: vec![Version::V3, Version::V1],
                extensions: Extensions::ALL,
            },
            window: 2,
            most_tunnels: 10_000,
            connect_timeout: Duration::from_secs(5),
            refresh: Duration::from_secs(60),
            drain: Duration::from_secs(60),
            settings: Settings::connector(),
            seed: random.u64(..),
        }
    }
}

/// What a connector is made of.
#[derive(Clone)]
pub struct Parts {
    /// Which gateways there are.
    pub routers: Rc<dyn Routers>,
    /// How they are reached.
    pub dial: Rc<dyn Dial>,
    /// What answers requests.
    pub target: Rc<dyn Target>,
    /// Where the program takes part.
    pub hooks: Rc<dyn Hooks>,
}

/// A connector that is not running yet.
pub struct Connector {
    options: Rc<Options>,
    parts: Rc<Parts>,
    shared: Arc<Shared>,
}

/// A gateway that is being served.
struct Served {
    address: Address,
    orders: watch::Sender<Order>,
    task: JoinHandle<bool>,
}

impl Connector {
    /// A connector, and its handle.
    pub fn new(options: Options, parts: Parts) -> (Connector, Handle) {
        let shared = Shared::new();
        let handle = Handle { shared: Arc::clone(&shared) };
        (Connector { options: Rc::new(options), parts: Rc::new(parts), shared }, handle)
    }

    /// Runs until the handle stops it. Dropping the future ends everything at once.
    pub async fn run(self) -> Stopped {
        LocalSet::new().run_until(self.serve()).await
    }

    async fn serve(self) -> Stopped {
        let mut orders = self.shared.orders.subscribe();
        let mut random = fastrand::Rng::with_seed(self.options.seed);
        let (mut served, mut leaving) = (Vec::new(), Vec::new());
        let patience = loop {
            if let Order::Drain(patience) = *orders.borrow_and_update() {
                break patience;
            }
            let list = tokio::select! {
                list = self.parts.routers.routers() => list,
                _ = orders.changed() => continue,
            };
            match list {
                Ok(list) => leaving.extend(self.change(&mut served, list, &mut random)),
                Err(error) => self.parts.hooks.event(&Event::RoutersUnknown(&error)),
            }
            leaving.retain(|task: &JoinHandle<bool>| !task.is_finished());
            // Until the list was found out once, it is asked for more often.
            let pause = if served.is_empty() { self.options.connect_timeout } else { self.options.refresh };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                _ = orders.changed() => {}
            }
        };
        for router in served {
            router.orders.send_replace(Order::Drain(patience));
            leaving.push(router.task);
        }
        let mut is_drained = true;
        for task in leaving {
            is_drained &= task.await.unwrap_or(false);
        }
        let stopped = if is_drained { Stopped::Drained } else { Stopped::TimedOut };
        self.shared.stopped.send_replace(Some(stopped));
        stopped
    }

    /// Serves the gateways of this list, and no others; gives the tasks that drain the others.
    fn change(
        &self,
        served: &mut Vec<Served>,
        mut list: Vec<Address>,
        random: &mut fastrand::Rng,
    ) -> Vec<JoinHandle<bool>> {
        list.sort();
        list.dedup();
        let gone: Vec<Served> = served.extract_if(.., |router| !list.contains(&router.address)).collect();
        list.retain(|address| !served.iter().any(|router| router.address == *address));
        let removed: Vec<Address> = gone.iter().map(|router| router.address.clone()).collect();
        if !list.is_empty() || !removed.is_empty() {
            let unchanged: Vec<Address> = served.iter().map(|router| router.address.clone()).collect();
            let changed = Event::RoutersChanged { added: &list, removed: &removed, unchanged: &unchanged };
            self.parts.hooks.event(&changed);
        }
        for address in list {
            let orders = watch::Sender::new(Order::Run);
            let around = (Rc::clone(&self.options), Rc::clone(&self.parts));
            let router = Router::new(address.clone(), around, Arc::clone(&self.shared), random.u64(..));
            let task = tokio::task::spawn_local(router.run(orders.subscribe()));
            served.push(Served { address, orders, task });
        }
        let drain = |router: Served| {
            router.orders.send_replace(Order::Drain(self.options.drain));
            router.task
        };
        gone.into_iter().map(drain).collect()
    }
}
