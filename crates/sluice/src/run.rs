//! `sluice run`: the life of a gateway process.
//!
//! One way leads to a change, whoever asks for it (SIGHUP, a changed file, the admin endpoint): the
//! document is read, checked and applied here, one at a time, all or nothing.
//!
//! Signals: HUP reloads, USR1 reopens logs, USR2 hands over to a new process, TERM and INT drain, a second INT
//! ends at once.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use sluice_admin::{Readiness, Reload};
use sluice_proxy::config::{Loaded, Source};
use sluice_proxy::gateway::{Control, Gateway, Legacy};
use sluice_proxy::observe::diagnostic::{Diagnostics, Layout, Level};
use sluice_proxy::observe::metrics::Format;
use sluice_proxy::{status, tls};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot};

use crate::cli::{Exit, LogFormat, RunArgs, complain, say};
use crate::documents::{self, Unusable};
use crate::handover::{self, Offer};
use crate::watch::{self, Watch};

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
    /// A hand-over has ended: the new process is ready, or there is none.
    HandedOver(std::io::Result<()>),
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
    let mut received = match handover::receive() {
        Ok(received) => received,
        Err(error) => return Unusable::Unreadable(format!("nothing was handed over: {error}")).complain(),
    };
    let started = Keeper::start(origin, diagnostics, (requests.clone(), watcher), &mut received).await;
    let (mut keeper, admin) = match started {
        Ok(started) => started,
        Err(unusable) => return unusable.complain(),
    };
    greet(&keeper.control, admin.as_ref(), hints);
    let (stop, stopped) = oneshot::channel::<()>();
    // Kept to the end: while it drains, the admin endpoints say so.
    keeper.stop_admin = Some(stop);
    if let Some(listener) = admin {
        let endpoints = Arc::new(Endpoints { gateway: Arc::clone(&keeper.control.gateway), requests });
        serve_admin(listener, endpoints, stopped, keeper.diagnostics.clone());
    }
    if let Some(Err(error)) = received.map(handover::Received::ready) {
        keeper.diagnostics.warn("the process before has gone already", &[("error", &error)]);
    }
    keeper.obey(inbox, &mut signals).await
}

#[expect(clippy::disallowed_methods, reason = "the program gives the diagnostics their clock")]
pub(crate) fn wall() -> SystemTime {
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
    lines.extend(addresses.iter().map(|(name, protocol, address)| {
        let protocol = protocol.word();
        format!("listening  {name}  {protocol}  {address}")
    }));
    if let Some(address) = admin.and_then(|listener| listener.local_addr().ok()) {
        lines.push(format!("admin  http://{address}"));
    }
    if let Some((.., address)) = addresses.first() {
        lines.extend(hints(&address.to_string()));
    }
    lines.push("ready".to_owned());
    let _ = say(&lines.join("\n"));
}

/// Keeps a gateway's document and what runs of it in step.
struct Keeper {
    origin: Origin,
    /// What runs, or was refused last: a touched file that holds the same is no change.
    seen: Seen,
    watch: Option<Watch>,
    control: Control,
    diagnostics: Diagnostics,
    /// The socket of the admin endpoints and its configured address, for a process that takes over.
    admin: Option<(SocketAddr, TcpListener)>,
    /// The program's file, as it was found at the start: it may be another one by now.
    program: PathBuf,
    /// Dropping it stops the admin endpoints.
    stop_admin: Option<oneshot::Sender<()>>,
    /// Whether a new process is being started.
    handing_over: bool,
    requests: mpsc::Sender<Request>,
}

impl Keeper {
    async fn start(
        origin: Origin,
        diagnostics: Diagnostics,
        (requests, mut watch): (mpsc::Sender<Request>, Option<Watch>),
        received: &mut Option<handover::Received>,
    ) -> Result<(Keeper, Option<tokio::net::TcpListener>), Unusable> {
        let source = origin.read()?;
        let loaded = documents::load(&source, origin.folder())?;
        let mut seen = Seen { text: source.text, ..Seen::default() };
        seen.follow(&loaded, watch.as_mut());
        let problems = |problems| Unusable::Problems(Box::new(loaded.report(&problems)));
        let admin = match &loaded.document.process.admin {
            None => None,
            Some(admin) => {
                let inherited = received.as_mut().and_then(|received| received.admin.take());
                Some(bind_admin(&admin.address, inherited).map_err(Unusable::Unreadable)?)
            }
        };
        let legacy = match received {
            Some(received) => std::mem::take(&mut received.legacy),
            None => Legacy { secret: secret().map_err(unreadable("/dev/urandom"))?, sockets: Vec::new() },
        };
        let control =
            Control::start(loaded.document.clone(), diagnostics.clone(), legacy).await.map_err(problems)?;
        let gateway = Arc::clone(&control.gateway);
        control.gateway.registry.register(Arc::new(status::Gauges::new(&gateway)));
        let listener = match &admin {
            None => None,
            Some((_, listener)) => Some(listen(listener).map_err(unreadable("process.admin.address"))?),
        };
        let program = std::env::current_exe().map_err(unreadable("the program's file"))?;
        let keeper = Keeper {
            origin,
            seen,
            watch,
            control,
            diagnostics,
            admin,
            program,
            stop_admin: None,
            handing_over: false,
            requests,
        };
        Ok((keeper, listener))
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
                _ = signals.usr2.recv() => self.hand_over(),
                Some(request) = inbox.recv() => match request {
                    Request::Reload(answer) => {
                        // Whoever asked may have left; the change stands all the same.
                        let _ = answer.send(self.reload("the admin endpoint").await.map_err(|why| why.to_json()));
                    }
                    Request::Changed => self.changed().await,
                    Request::HandedOver(Ok(())) => {
                        self.diagnostics.info("a new process has taken over", &[]);
                        self.control.handed_over();
                        // It answers at the admin endpoints' socket too.
                        self.stop_admin = None;
                        break;
                    }
                    Request::HandedOver(Err(error)) => {
                        self.handing_over = false;
                        self.diagnostics.error("nothing was handed over, this process goes on", &[("error", &error)]);
                    }
                },
            }
        }
        self.drain(inbox, signals).await
    }

    /// Starts the program again, to take over from this process.
    #[expect(
        clippy::disallowed_methods,
        reason = "the hand-over lives on the control thread, beside the workers"
    )]
    fn hand_over(&mut self) {
        if self.handing_over {
            return;
        }
        let offer = self.offer();
        let (program, arguments) = (self.program.clone(), std::env::args_os().skip(1).collect());
        let requests = self.requests.clone();
        self.handing_over = true;
        self.diagnostics.info("handing over to a new process", &[("program", &program.display())]);
        tokio::spawn(async move {
            let handed = match offer {
                Ok(offer) => handover::hand_over(&program, arguments, offer).await,
                Err(error) => Err(error),
            };
            // Nobody hears it when the process is ending anyway.
            let _ = requests.send(Request::HandedOver(handed)).await;
        });
    }

    fn offer(&self) -> std::io::Result<Offer> {
        if self.origin.path().is_none() {
            return Err(std::io::Error::other("only a process that runs a file can be taken over from"));
        }
        let admin = match &self.admin {
            None => None,
            Some((address, socket)) => Some((*address, socket.try_clone()?)),
        };
        Ok(Offer { legacy: self.control.legacy()?, admin })
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

    /// A file may have changed: only another content is a change.
    async fn changed(&mut self) {
        if let Ok(source) = self.origin.read()
            && self.seen.text == source.text
            && self.seen.contents == tls::contents(&self.seen.files)
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
            self.seen.text.clone_from(&source.text);
            self.seen.contents = tls::contents(&self.seen.files);
            documents::load(&source, self.origin.folder())
        });
        let loaded = read.inspect_err(|_| self.control.gateway.note_refused())?;
        self.seen.follow(&loaded, self.watch.as_mut());
        let applied = self.control.apply(loaded.document.clone()).await;
        applied.map_err(|problems| Unusable::Problems(Box::new(loaded.report(&problems))))
    }
}

/// What was read, to tell whether it has changed.
#[derive(Default)]
struct Seen {
    text: String,
    /// The files besides, which the text names.
    files: Vec<PathBuf>,
    contents: [u8; 32],
}

impl Seen {
    /// Takes note of the files that a document names; before they are read, so that no change is missed.
    fn follow(&mut self, loaded: &Loaded, watch: Option<&mut Watch>) {
        self.files = loaded.document.files();
        if let Some(watch) = watch {
            watch.follow(&self.files);
        }
        self.contents = tls::contents(&self.files);
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

fn unreadable(what: &'static str) -> impl Fn(std::io::Error) -> Unusable {
    move |error| Unusable::Unreadable(format!("{what}: {error}"))
}

type Admin = (SocketAddr, TcpListener);

fn bind_admin(text: &str, inherited: Option<Admin>) -> Result<Admin, String> {
    let address = sluice_admin::check_address(text)?;
    if let Some(inherited) = inherited.filter(|(configured, _)| *configured == address) {
        return Ok(inherited);
    }
    let bound = TcpListener::bind(address);
    let bound =
        bound.map_err(|error| format!("process.admin.address: {address} cannot be listened on: {error}"))?;
    Ok((address, bound))
}

fn listen(socket: &TcpListener) -> std::io::Result<tokio::net::TcpListener> {
    let socket = socket.try_clone()?;
    socket.set_nonblocking(true)?;
    tokio::net::TcpListener::from_std(socket)
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
    usr2: Signal,
    term: Signal,
    int: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Signals> {
        Ok(Signals {
            hup: signal(SignalKind::hangup())?,
            usr1: signal(SignalKind::user_defined1())?,
            usr2: signal(SignalKind::user_defined2())?,
            term: signal(SignalKind::terminate())?,
            int: signal(SignalKind::interrupt())?,
        })
    }
}
