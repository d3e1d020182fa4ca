//! The services that are published: started, changed for those of another plan, drained.
//!
//! Promise: a service that another plan leaves as it is keeps its tunnels, its requests and its counts; one that is
//! changed is published anew before it is taken back; no request that is running is lost before the deadline.

use std::rc::Rc;
use std::time::Duration;

use sluice_proxy::observe::diagnostic::Diagnostics;
use sluice_proxy::world::{Clock, World};
use sluice_tunnel::connector::{Connector, Fixed, Handle, LookedUp, Parts, Report, Routers, Stopped};
use tokio::task::JoinSet;

use super::dial::Dialler;
use super::events::Told;
use super::health::Shown;
use super::plan::Service;
use super::target::{self, Counts};

/// How long a service that is taken back waits for the one that takes its place.
const OVERLAP: Duration = Duration::from_secs(5);
/// Between two looks at that one.
const LOOK: Duration = Duration::from_millis(20);

/// All services, those that are being drained among them.
pub(super) struct Published {
    services: Vec<One>,
    /// Those that are being drained.
    leaving: Vec<(tokio::task::Id, Handle)>,
    connectors: JoinSet<Stopped>,
    world: Rc<World>,
    diagnostics: Diagnostics,
}

struct One {
    service: Service,
    task: tokio::task::Id,
    handle: Handle,
    counts: Rc<Counts>,
    /// How gateways and the target are reached.
    diallers: [Dialler; 2],
}

/// What another plan has changed, in numbers of services.
pub(super) struct Change {
    pub(super) kept: usize,
    pub(super) started: usize,
    pub(super) stopped: usize,
}

/// Whether a gateway can send requests.
pub(super) fn is_open(router: &Report) -> bool {
    router.idle + router.busy > 0
}

/// Waits until a service is published somewhere.
async fn opened(handle: &Handle) {
    while !handle.routers().iter().any(is_open) {
        tokio::time::sleep(LOOK).await;
    }
}

impl Published {
    /// No services yet.
    pub(super) fn new(diagnostics: Diagnostics) -> Published {
        // Nothing here asks the world for random numbers.
        let world = World::new(Clock::start(), 0);
        let (services, leaving, connectors) = Default::default();
        Published { services, leaving, connectors, world, diagnostics }
    }

    /// Publishes these services, and no others; `limit` is how long requests of the others may take to finish.
    pub(super) fn apply(&mut self, services: Vec<Service>, limit: Duration) -> Change {
        let mut before = std::mem::take(&mut self.services);
        let mut change = Change { kept: 0, started: 0, stopped: 0 };
        for service in services {
            let same = before.iter().position(|one| one.service.is_as(&service));
            let one = if let Some(place) = same {
                change.kept += 1;
                let one = before.swap_remove(place);
                // Certificates may have been renewed: they are for connections to come.
                one.diallers[0].renew(service.router_tls.clone());
                one.diallers[1].renew(service.target_tls.clone());
                one
            } else {
                change.started += 1;
                self.start(service)
            };
            self.services.push(one);
        }
        change.stopped = before.len();
        for one in before {
            self.retire(one, limit);
        }
        change
    }

    /// A connector for a service.
    fn start(&mut self, service: Service) -> One {
        let counts = Rc::new(Counts::default());
        let routers: Rc<dyn Routers> = match service.each_address {
            true => Rc::new(LookedUp(service.routers.clone())),
            false => Rc::new(Fixed(service.routers.clone())),
        };
        let diallers = [&service.router_tls, &service.target_tls].map(|tls| Dialler::new(tls.clone()));
        let headers = service.headers.clone();
        let told = Told::new((&service.name, headers), Rc::clone(&counts), self.diagnostics.clone());
        let parts = Parts {
            routers,
            dial: Rc::new(diallers[0].clone()),
            target: target::target(&service, &diallers[1], &counts, &self.world),
            hooks: Rc::new(told),
        };
        let (connector, handle) = Connector::new(service.options.clone(), parts);
        let task = self.connectors.spawn_local(connector.run()).id();
        One { service, task, handle, counts, diallers }
    }

    /// Drains a service, once the one of its name is published.
    fn retire(&mut self, one: One, limit: Duration) {
        let next = self.services.iter().find(|other| other.service.name == one.service.name);
        let next = next.map(|other| other.handle.clone());
        self.leaving.push((one.task, one.handle.clone()));
        drop(tokio::task::spawn_local(async move {
            if let Some(next) = next {
                // One that finds no gateway holds up nothing.
                let _ = tokio::time::timeout(OVERLAP, opened(&next)).await;
            }
            one.handle.stop(limit).await;
        }));
    }

    /// As they are shown.
    pub(super) fn shown(&self) -> Vec<Shown> {
        let shown = |one: &One| Shown {
            name: one.service.name.clone(),
            route: one.service.route().to_owned(),
            domain: one.service.options.announcement.domain.clone(),
            target: one.service.target_text.clone(),
            handle: one.handle.clone(),
            counts: Rc::clone(&one.counts),
        };
        self.services.iter().map(shown).collect()
    }

    /// Waits until one that was taken back has ended. Never ready while there is none.
    pub(super) async fn reap(&mut self) {
        match self.connectors.join_next_with_id().await {
            Some(ended) => {
                let task = ended.map_or_else(|error| error.id(), |(task, _)| task);
                self.leaving.retain(|(leaving, _)| *leaving != task);
            }
            None => std::future::pending().await,
        }
    }

    /// Deregisters everywhere and waits until no request is running; whether that was so at the deadline.
    pub(super) async fn drain(mut self, limit: Duration) -> bool {
        let handles =
            self.services.iter().map(|one| &one.handle).chain(self.leaving.iter().map(|(_, it)| it));
        let mut stopping = JoinSet::new();
        for handle in handles {
            let handle = handle.clone();
            stopping.spawn_local(async move { handle.stop(limit).await });
        }
        let mut all = true;
        while let Some(stopped) = self.connectors.join_next().await {
            all &= matches!(stopped, Ok(Stopped::Drained));
        }
        all
    }
}
