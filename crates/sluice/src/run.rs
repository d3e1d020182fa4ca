//! `sluice run`: the life of a gateway process.
//!
//! One way leads to a change, whoever asks for it (SIGHUP, a changed file, the admin endpoint): the
//! document is read, checked and applied here, one at a time, all or nothing.
//!
//! Signals: HUP reloads, USR1 reopens logs, TERM and INT drain, a second INT ends at once.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use sluice_admin::{Readiness, Reload};
use sluice_proxy::config::Source;
use sluice_proxy::gateway::{Control, Gateway};
use sluice_proxy::observe::diagnostic::{Diagnostics, Layout, Level};
use sluice_proxy::observe::metrics::Format;
use sluice_proxy::status;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot};

use crate::cli::{Exit, LogFormat, RunArgs, complain, say};
use crate::documents::{self, Unusable};
use crate::watch;

/// Where a gateway's document comes from.
pub(crate) enum Origin {
    /// A file, which is watched and can be read again.
    File(PathBuf),
    /// A text made by the program: there is nothing to read again.
    Text(Source),
}

/// What the control loop is asked.
pub(crate) enum Request {
    /// Read the document again, whatever it says, and tell how that went.
    Reload(oneshot::Sender<Result<u64, serde_json::Value>>),
    /// The file may have changed.
    Changed,
}

/// Runs a gateway from a file.
pub(crate) fn run(args: &RunArgs) -> Exit {
    match documents::find(args.config.path.as_deref()) {
        Ok(path) => {
            let name = path.display().to_string();
            serve(Origin::File(path), args.log_format, &move |listener| {
                vec![
                    format!("try       curl -i http://{listener}/"),
                    format!(
                        "change    edit {name}: a correct change is live at once, a wrong one changes nothing"
                    ),
                    format!("ask       sluice route explain GET http://{listener}/ --config {name}"),
                ]
            })
        }
        Err(text) => {
            complain(&format!("error: {text}"));
            Exit::Config
        }
    }
}

/// Runs a gateway; `hints` are the next commands, given the first listener's address.
pub(crate) fn serve(origin: Origin, format: LogFormat, hints: &dyn Fn(&str) -> Vec<String>) -> Exit {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            complain(&format!("error: the control thread cannot start: {error}"));
            return Exit::Failure;
        }
    };
    let exit = runtime.block_on(live(origin, format, hints));
    // Blocking work of the admin endpoints may be under way; nobody waits for it any more.
    runtime.shutdown_timeout(Duration::from_millis(100));
    exit
}

async fn live(origin: Origin, format: LogFormat, hints: &dyn Fn(&str) -> Vec<String>) -> Exit {
    let layout = match format {
        LogFormat::Text => Layout::Text,
        LogFormat::Json => Layout::Json,
    };
    let diagnostics = Diagnostics::stderr(layout, Level::Info, wall);
    let mut signals = match Signals::new() {
        Ok(signals) => signals,
        Err(error) => {
            complain(&format!("error: signals cannot be received: {error}"));
            return Exit::Failure;
        }
    };
    let (requests, inbox) = mpsc::channel(16);
    // Watched before it is read: a change in between is not missed.
    let watcher = origin.path().and_then(|path| watch::start(path, requests.clone(), &diagnostics));
    let (mut keeper, admin) = match Keeper::start(origin, diagnostics).await {
        Ok(started) => started,
        Err(unusable) => return unusable.complain(),
    };
    greet(&keeper.control, admin.as_ref(), hints);
    let (stop, stopped) = oneshot::channel::<()>();
    if let Some(listener) = admin {
        let endpoints = Arc::new(Endpoints { gateway: Arc::clone(&keeper.control.gateway), requests });
        serve_admin(listener, endpoints, stopped, keeper.diagnostics.clone());
    }
    let exit = keeper.obey(inbox, &mut signals).await;
    drop(watcher);
    // The admin endpoints answered "draining" until here.
    drop(stop);
    exit
}

#[expect(clippy::disallowed_methods, reason = "the program gives the diagnostics their clock")]
fn wall() -> SystemTime {
    SystemTime::now()
}

#[expect(
    clippy::disallowed_methods,
    reason = "the admin endpoints live on the control thread, beside the workers"
)]
fn serve_admin(
    listener: tokio::net::TcpListener,
    endpoints: Arc<Endpoints>,
    stopped: oneshot::Receiver<()>,
    diagnostics: Diagnostics,
) {
    tokio::spawn(async move {
        let served = sluice_admin::serve(listener, endpoints, async move {
            // Both ends mean the same: the process is ending.
            let _ = stopped.await;
        });
        if let Err(error) = served.await {
            diagnostics.error("the admin endpoints failed", &[("error", &error)]);
        }
    });
}

fn greet(control: &Control, admin: Option<&tokio::net::TcpListener>, hints: &dyn Fn(&str) -> Vec<String>) {
    let mut lines = vec![format!("sluice {}", env!("CARGO_PKG_VERSION"))];
    let addresses = control.addresses();
    lines.extend(addresses.iter().map(|(name, address)| format!("listening  {name}  http  {address}")));
    if let Some(address) = admin.and_then(|listener| listener.local_addr().ok()) {
        lines.push(format!("admin  http://{address}"));
    }
    if let Some((_, address)) = addresses.first() {
        lines.extend(hints(&address.to_string()));
    }
    lines.push("ready".to_owned());
    let _ = say(&lines.join("\n"));
}

/// Keeps a gateway's document and what runs of it in step.
struct Keeper {
    origin: Origin,
    /// The text that runs, or was refused last: a touched file with the same text is no change.
    seen: Option<String>,
    control: Control,
    diagnostics: Diagnostics,
}

impl Keeper {
    async fn start(
        origin: Origin,
        diagnostics: Diagnostics,
    ) -> Result<(Keeper, Option<tokio::net::TcpListener>), Unusable> {
        let source = origin.read()?;
        let loaded = documents::load(&source, origin.folder())?;
        let problems = |problems| Unusable::Problems(Box::new(loaded.report(&problems)));
        let admin = match &loaded.document.process.admin {
            None => None,
            Some(admin) => Some(bind_admin(&admin.address).await.map_err(Unusable::Unreadable)?),
        };
        let secret = secret().map_err(|error| Unusable::Unreadable(format!("/dev/urandom: {error}")))?;
        let control =
            Control::start(loaded.document.clone(), diagnostics.clone(), secret).await.map_err(problems)?;
        let gateway = Arc::clone(&control.gateway);
        control.gateway.registry.register(Arc::new(status::Gauges::new(&gateway)));
        let keeper = Keeper { origin, seen: Some(source.text), control, diagnostics };
        Ok((keeper, admin))
    }

    /// Obeys signals and requests until the process ends.
    async fn obey(&mut self, mut inbox: mpsc::Receiver<Request>, signals: &mut Signals) -> Exit {
        loop {
            tokio::select! {
                biased;
                _ = signals.term.recv() => break,
                _ = signals.int.recv() => break,
                _ = signals.hup.recv() => {
                    // What is wrong was told to the operator.
                    let _ = self.reload("SIGHUP").await;
                }
                _ = signals.usr1.recv() => self.control.reopen_logs(),
                Some(request) = inbox.recv() => match request {
                    Request::Reload(answer) => {
                        // Whoever asked may have left; the change stands all the same.
                        let _ = answer.send(self.reload("the admin endpoint").await.map_err(|why| why.to_json()));
                    }
                    Request::Changed => self.changed().await,
                },
            }
        }
        self.drain(inbox, signals).await
    }

    /// Lets exchanges finish. A second INT, or the deadline, ends it.
    async fn drain(&mut self, mut inbox: mpsc::Receiver<Request>, signals: &mut Signals) -> Exit {
        let limit = self.control.drain_timeout();
        self.diagnostics.info("draining", &[("deadline", &format!("{}ms", limit.as_millis()))]);
        let cut_short = {
            let mut drained = std::pin::pin!(self.control.drain());
            let mut deadline = std::pin::pin!(tokio::time::sleep(limit));
            loop {
                tokio::select! {
                    () = &mut drained => break None,
                    () = &mut deadline => break Some("stopped at the drain deadline with exchanges unfinished"),
                    _ = signals.int.recv() => break Some("stopped at once"),
                    _ = signals.hup.recv() => {}
                    // Dropping a reload's answer tells its asker that there will be none.
                    Some(_) = inbox.recv() => {}
                }
            }
        };
        let Some(why) = cut_short else {
            self.diagnostics.info("stopped", &[]);
            return Exit::Success;
        };
        self.control.end().await;
        self.diagnostics.warn(why, &[]);
        Exit::Failure
    }

    /// The file may have changed: only another text is a change.
    async fn changed(&mut self) {
        if let Ok(source) = self.origin.read()
            && self.seen.as_deref() == Some(source.text.as_str())
        {
            return;
        }
        let _ = self.reload("a changed file").await;
    }

    async fn reload(&mut self, why: &str) -> Result<u64, Unusable> {
        let reloaded = self.try_reload().await;
        match &reloaded {
            Ok(revision) => {
                self.diagnostics.info("configuration applied", &[("revision", revision), ("asked_by", &why)]);
            }
            Err(unusable) => {
                let message = "configuration refused, what ran before runs on";
                self.diagnostics.error(message, &[("asked_by", &why), ("problems", &unusable.count())]);
                complain(unusable.text().trim_end());
            }
        }
        reloaded
    }

    async fn try_reload(&mut self) -> Result<u64, Unusable> {
        let read = self.origin.read().and_then(|source| {
            self.seen = Some(source.text.clone());
            documents::load(&source, self.origin.folder())
        });
        let loaded = read.inspect_err(|_| self.control.gateway.note_refused())?;
        let applied = self.control.apply(loaded.document.clone()).await;
        applied.map_err(|problems| Unusable::Problems(Box::new(loaded.report(&problems))))
    }
}

impl Origin {
    fn read(&self) -> Result<Source, Unusable> {
        match self {
            Origin::File(path) => documents::read(path),
            Origin::Text(source) => Ok(source.clone()),
        }
    }

    fn path(&self) -> Option<&Path> {
        match self {
            Origin::File(path) => Some(path),
            Origin::Text(_) => None,
        }
    }

    fn folder(&self) -> Option<&Path> {
        self.path().and_then(Path::parent)
    }
}

async fn bind_admin(text: &str) -> Result<tokio::net::TcpListener, String> {
    let address = sluice_admin::check_address(text)?;
    let bound = tokio::net::TcpListener::bind(address).await;
    bound.map_err(|error| format!("process.admin.address: {address} cannot be listened on: {error}"))
}

/// The secret that signs what clients carry for this process: drawn anew at each start.
fn secret() -> std::io::Result<Vec<u8>> {
    use std::io::Read as _;
    let mut secret = vec![0; 32];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut secret)?;
    Ok(secret)
}

/// What the admin endpoints ask of the process.
struct Endpoints {
    gateway: Arc<Gateway>,
    requests: mpsc::Sender<Request>,
}

impl sluice_admin::Gateway for Endpoints {
    fn readiness(&self) -> Readiness {
        let draining =
            if self.gateway.is_draining() { Err("the process is stopping".to_owned()) } else { Ok(()) };
        let workers = match self.gateway.workers() {
            (running, all) if running == all => Ok(()),
            (running, all) => Err(format!("{running} of {all} workers run")),
        };
        Readiness::default().check("configuration", Ok(())).check("workers", workers).check("drain", draining)
    }

    fn metrics(&self, format: Format) -> String {
        self.gateway.registry.render(format)
    }

    fn status(&self) -> serde_json::Value {
        status::status(&self.gateway)
    }

    fn reload(&self) -> Reload {
        let requests = self.requests.clone();
        Box::pin(async move {
            let (answer, wait) = oneshot::channel();
            let stopping = || serde_json::json!([{ "message": "the process is stopping" }]);
            requests.send(Request::Reload(answer)).await.map_err(|_| stopping())?;
            wait.await.unwrap_or_else(|_| Err(stopping()))
        })
    }
}

struct Signals {
    hup: Signal,
    usr1: Signal,
    term: Signal,
    int: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Signals> {
        Ok(Signals {
            hup: signal(SignalKind::hangup())?,
            usr1: signal(SignalKind::user_defined1())?,
            term: signal(SignalKind::terminate())?,
            int: signal(SignalKind::interrupt())?,
        })
    }
}
