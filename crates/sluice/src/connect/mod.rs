//! `sluice connect`: publishes services through gateways, by tunnels that are opened from here.
//!
//! A command line becomes a document (`document`), a document becomes a plan (`plan`, with `secure` for TLS), and
//! each service of the plan is one connector of the library (`sluice-tunnel`) with our dialler (`dial`), a target
//! in HTTP/1.1 or HTTP/2 that is counted (`target`) and hooks that tell the operator (`events`). `health` shows all of them.
//!
//! Promise: a wrong document starts nothing; on TERM or INT no request that is running is lost before the deadline.

mod dial;
mod document;
mod events;
mod health;
mod plan;
mod secure;
mod target;

use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use sluice_proxy::config::{self, Format, Loaded, Source, SystemEnvironment};
use sluice_proxy::observe::diagnostic::{Diagnostics, Layout, Level};
use sluice_proxy::world::{Clock, World};
use sluice_tunnel::connector::{Connector, Fixed, Handle, LookedUp, Parts, Routers, Stopped};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::{JoinSet, LocalSet};

use crate::cli::{ConnectArgs, Exit, LogFormat, complain, say};
use crate::documents::{self, Unusable};
use crate::run::wall;
use dial::Dialler;
use document::Document;
pub(crate) use document::{TargetProtocol, TunnelVersion};
use events::Told;
use health::{Health, Shown};
use plan::{Plan, Service};
use target::Counts;

/// What the operator started.
pub(crate) fn connect(args: &ConnectArgs) -> Exit {
    let loaded = match load(args) {
        Ok(loaded) => loaded,
        Err(unusable) => return unusable.complain(),
    };
    let problems = |problems| Unusable::Problems(Box::new(loaded.report(&problems)));
    let plan = match Plan::check(&loaded.document) {
        Ok(plan) => plan,
        Err(found) => return problems(found).complain(),
    };
    if args.print {
        return match loaded.show(Format::Toml) {
            Ok(text) => say(text.trim_end()),
            Err(error) => {
                complain(&format!("error: {error}"));
                Exit::Failure
            }
        };
    }
    let now = wall().duration_since(std::time::SystemTime::UNIX_EPOCH).unwrap_or_default();
    let plan = match plan.read_files(now.as_secs().try_into().unwrap_or(i64::MAX)) {
        Ok(plan) => plan,
        Err(found) => return problems(found).complain(),
    };
    let layout = match args.log_format {
        LogFormat::Text => Layout::Text,
        LogFormat::Json => Layout::Json,
    };
    let least = if args.verbose { Level::Debug } else { Level::Info };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            complain(&format!("error: the connector cannot start: {error}"));
            return Exit::Failure;
        }
    };
    let exit =
        runtime.block_on(LocalSet::new().run_until(live(plan, Diagnostics::stderr(layout, least, wall))));
    // A name may be looked up just now; nobody waits for it any more.
    runtime.shutdown_timeout(Duration::from_millis(100));
    exit
}

/// The document of a file, or the one that the command line stands for.
fn load(args: &ConnectArgs) -> Result<Loaded<Document>, Unusable> {
    let (source, folder) = match &args.path {
        Some(path) => (documents::read(path)?, path.parent().map(Path::to_owned)),
        None => {
            let document = Document::of_arguments(args).map_err(Unusable::Unreadable)?;
            let text = config::show(&document, Format::Toml);
            let text = text.map_err(|error| Unusable::Unreadable(error.to_string()))?;
            (Source::new("the command line", text, Format::Toml), None)
        }
    };
    let environment = SystemEnvironment { folder: folder.unwrap_or_default() };
    config::load_as(&source, &environment).map_err(|report| Unusable::Problems(Box::new(report)))
}

/// Runs until a signal, and drains.
async fn live(plan: Plan, diagnostics: Diagnostics) -> Exit {
    for caution in &plan.cautions {
        diagnostics.warn(caution, &[]);
    }
    let signals =
        signal(SignalKind::terminate()).and_then(|term| Ok((term, signal(SignalKind::interrupt())?)));
    let mut signals = match signals {
        Ok(signals) => signals,
        Err(error) => {
            complain(&format!("error: signals cannot be received: {error}"));
            return Exit::Failure;
        }
    };
    let mut lines = vec![format!("sluice {}", env!("CARGO_PKG_VERSION"))];
    let listener = match plan.health {
        None => None,
        Some(address) => match tokio::net::TcpListener::bind(address).await {
            Ok(listener) => {
                let address = listener.local_addr().unwrap_or(address);
                lines.push(format!("health  http://{address}/health"));
                Some(listener)
            }
            Err(error) => {
                complain(&format!("error: health: {address} cannot be listened on: {error}"));
                return Exit::Config;
            }
        },
    };
    // Nothing here asks it for random numbers.
    let world = World::new(Clock::start(), 0);
    let mut connectors = JoinSet::new();
    let mut shown = Vec::with_capacity(plan.services.len());
    for service in &plan.services {
        lines.push(format!(
            "service  {}  route {}  to {}",
            service.name,
            service.route(),
            service.target_text
        ));
        let (connector, one) = start(service, &diagnostics, &world);
        connectors.spawn_local(connector.run());
        shown.push(one);
    }
    let health = Rc::new(Health::new(shown));
    if let Some(listener) = listener {
        drop(tokio::task::spawn_local(health::serve(listener, Rc::clone(&health))));
    }
    lines.push("ready".to_owned());
    let _ = say(&lines.join("\n"));
    asked(&mut signals).await;
    health.drain();
    drain((connectors, health.handles()), plan.drain, &mut signals, &diagnostics).await
}

/// A connector for a service.
fn start(service: &Service, diagnostics: &Diagnostics, world: &Rc<World>) -> (Connector, Shown) {
    let counts = Rc::new(Counts::default());
    let routers: Rc<dyn Routers> = match service.each_address {
        true => Rc::new(LookedUp(service.routers.clone())),
        false => Rc::new(Fixed(service.routers.clone())),
    };
    let told = Told::new((&service.name, service.headers.clone()), Rc::clone(&counts), diagnostics.clone());
    let parts = Parts {
        routers,
        dial: Rc::new(Dialler::new(service.router_tls.clone())),
        target: target::target(service, &counts, world),
        hooks: Rc::new(told),
    };
    let (connector, handle) = Connector::new(service.options.clone(), parts);
    let (name, route) = (service.name.clone(), service.route().to_owned());
    let domain = service.options.announcement.domain.clone();
    (connector, Shown { name, route, domain, target: service.target_text.clone(), handle, counts })
}

/// The next TERM or INT.
async fn asked((term, int): &mut (Signal, Signal)) {
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
}

/// Deregisters everywhere and waits until no request is running. A second signal, or the deadline, ends it.
async fn drain(
    (mut connectors, handles): (JoinSet<Stopped>, Vec<Handle>),
    limit: Duration,
    signals: &mut (Signal, Signal),
    diagnostics: &Diagnostics,
) -> Exit {
    diagnostics.info("draining", &[("deadline", &format!("{}ms", limit.as_millis()))]);
    let mut stopping = JoinSet::new();
    for handle in handles {
        stopping.spawn_local(async move { handle.stop(limit).await });
    }
    let ended = async {
        let mut all = true;
        while let Some(stopped) = connectors.join_next().await {
            all &= matches!(stopped, Ok(Stopped::Drained));
        }
        all
    };
    let cut_short = tokio::select! {
        all = ended => (!all).then_some("stopped at the drain deadline with requests unfinished"),
        () = asked(signals) => Some("stopped at once"),
    };
    match cut_short {
        None => {
            diagnostics.info("stopped", &[]);
            Exit::Success
        }
        Some(why) => {
            diagnostics.warn(why, &[]);
            Exit::Failure
        }
    }
}
