//! `sluice connect`: publishes services through gateways, by tunnels that are opened from here.
//!
//! A command line becomes a document (`document`), a document becomes a plan (`plan`, with `secure` for TLS), a plan is
//! taken by what is `published`, and each service of the plan is one connector of the library (`sluice-tunnel`) with our dialler (`dial`), a target
//! in HTTP/1.1 or HTTP/2 that is counted (`target`) and hooks that tell the operator (`events`). `health` shows all of them.
//!
//! Promise: a wrong document starts nothing, and on HUP changes nothing; on TERM or INT no request that is running is lost before the deadline.

mod dial;
mod document;
mod events;
mod health;
mod plan;
mod published;
mod secure;
mod target;

use std::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use sluice_proxy::config::{self, Format, Loaded, Source, SystemEnvironment};
use sluice_proxy::observe::diagnostic::{Diagnostics, Layout, Level};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::LocalSet;

use crate::cli::{ConnectArgs, Exit, LogFormat, complain, say};
use crate::documents::{self, Unusable};
use crate::run::wall;
use document::Document;
pub(crate) use document::{TargetProtocol, TunnelVersion};
use health::Health;
use plan::Plan;
use published::{Change, Published};

/// What the operator started.
pub(crate) fn connect(args: &ConnectArgs) -> Exit {
    if args.print {
        return print(args);
    }
    let plan = match plan(args) {
        Ok(plan) => plan,
        Err(unusable) => return unusable.complain(),
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
    let diagnostics = Diagnostics::stderr(layout, least, wall);
    let exit = runtime.block_on(LocalSet::new().run_until(live(args, plan, diagnostics)));
    // A name may be looked up just now; nobody waits for it any more.
    runtime.shutdown_timeout(Duration::from_millis(100));
    exit
}

/// Shows the document.
fn print(args: &ConnectArgs) -> Exit {
    let loaded = match load(args) {
        Ok(loaded) => loaded,
        Err(unusable) => return unusable.complain(),
    };
    if let Err(found) = Plan::check(&loaded.document) {
        return Unusable::Problems(Box::new(loaded.report(&found))).complain();
    }
    match loaded.show(Format::Toml) {
        Ok(text) => say(text.trim_end()),
        Err(error) => {
            complain(&format!("error: {error}"));
            Exit::Failure
        }
    }
}

/// What is to be done, with everything that it takes from files.
fn plan(args: &ConnectArgs) -> Result<Plan, Unusable> {
    let loaded = load(args)?;
    let now = wall().duration_since(std::time::SystemTime::UNIX_EPOCH).unwrap_or_default();
    let now = now.as_secs().try_into().unwrap_or(i64::MAX);
    let plan = Plan::check(&loaded.document).and_then(|plan| plan.read_files(now));
    plan.map_err(|found| Unusable::Problems(Box::new(loaded.report(&found))))
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

/// The signals that end a connector.
struct End {
    term: Signal,
    int: Signal,
}

impl End {
    /// The next one.
    async fn asked(&mut self) {
        tokio::select! {
            _ = self.term.recv() => {}
            _ = self.int.recv() => {}
        }
    }
}

/// Those, and the one that asks to read the file again.
fn signals() -> std::io::Result<(End, Signal)> {
    let end = End { term: signal(SignalKind::terminate())?, int: signal(SignalKind::interrupt())? };
    Ok((end, signal(SignalKind::hangup())?))
}

/// Runs until a signal, and drains.
async fn live(args: &ConnectArgs, first: Plan, diagnostics: Diagnostics) -> Exit {
    let (mut end, mut hup) = match signals() {
        Ok(signals) => signals,
        Err(error) => {
            complain(&format!("error: signals cannot be received: {error}"));
            return Exit::Failure;
        }
    };
    let mut lines = vec![format!("sluice {}", env!("CARGO_PKG_VERSION"))];
    let listener = match first.health {
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
    for service in &first.services {
        let (name, route, to) = (&service.name, service.route(), &service.target_text);
        lines.push(format!("service  {name}  route {route}  to {to}"));
    }
    let mut running = Running::new(first, diagnostics);
    if let Some(listener) = listener {
        drop(tokio::task::spawn_local(health::serve(listener, Rc::clone(&running.health))));
    }
    lines.push("ready".to_owned());
    let _ = say(&lines.join("\n"));
    loop {
        tokio::select! {
            () = end.asked() => break,
            _ = hup.recv() => running.reload(plan(args)),
            () = running.published.reap() => {}
        }
    }
    running.drain(&mut end).await
}

/// What is running, and how it may be changed.
struct Running {
    published: Published,
    health: Rc<Health>,
    /// Where the health endpoint listens, as written.
    address: Option<SocketAddr>,
    limit: Duration,
    diagnostics: Diagnostics,
}

impl Running {
    fn new(plan: Plan, diagnostics: Diagnostics) -> Running {
        let published = Published::new(diagnostics.clone());
        let (health, address, limit) = (Rc::default(), plan.health, plan.drain);
        let mut running = Running { published, health, address, limit, diagnostics };
        running.take(plan);
        running
    }

    fn take(&mut self, plan: Plan) -> Change {
        for caution in &plan.cautions {
            self.diagnostics.warn(caution, &[]);
        }
        self.limit = plan.drain;
        let change = self.published.apply(plan.services, plan.drain);
        self.health.show(self.published.shown());
        change
    }

    /// Takes what the file says now, or nothing of it.
    fn reload(&mut self, plan: Result<Plan, Unusable>) {
        let plan = match plan {
            Ok(plan) => plan,
            Err(unusable) => {
                let message = "configuration refused, what ran before runs on";
                self.diagnostics.error(message, &[("asked_by", &"SIGHUP"), ("problems", &unusable.count())]);
                return complain(unusable.text().trim_end());
            }
        };
        if plan.health != self.address {
            self.diagnostics.warn("the health endpoint moves with a restart only", &[]);
        }
        let Change { kept, started, stopped } = self.take(plan);
        self.diagnostics.info(
            "configuration applied",
            &[("asked_by", &"SIGHUP"), ("kept", &kept), ("started", &started), ("stopped", &stopped)],
        );
    }

    /// Deregisters everywhere and waits until no request is running. A second signal, or the deadline, ends it.
    async fn drain(self, end: &mut End) -> Exit {
        let Running { published, health, limit, diagnostics, .. } = self;
        health.drain();
        diagnostics.info("draining", &[("deadline", &format!("{}ms", limit.as_millis()))]);
        let cut_short = tokio::select! {
            all = published.drain(limit) => {
                (!all).then_some("stopped at the drain deadline with requests unfinished")
            }
            () = end.asked() => Some("stopped at once"),
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
}
