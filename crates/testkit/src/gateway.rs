//! A gateway of a test: the real program, started from a document, told by what it prints where it listens.
//!
//! Contract with `sluice run`: on standard output, one line `listening  NAME  PROTOCOL  ADDRESS` for each
//! listener, `admin  http://ADDRESS` when there is one, and `ready` when all of them accept. So a document
//! says port 0 everywhere and no test picks a port.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::ExitStatus;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::Child;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::deadline::{eventually, within};
use crate::http;
use crate::program::{Program, sluice};
use crate::scratch::Scratch;

/// The name of the document in the gateway's directory.
const DOCUMENT: &str = "sluice.toml";

/// A signal to a gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Finish what is in flight, then end.
    Term,
    /// The same; a second one ends at once.
    Int,
    /// Read the document again.
    Hup,
    /// Open the logs again.
    Usr1,
    /// Hand over to a new process.
    Usr2,
    /// End now, as a crash would.
    Kill,
}

/// A counter that has not moved for so long has been counted.
const STILL: Duration = Duration::from_millis(30);

/// The answer to a reload.
#[derive(Clone, Debug)]
pub struct Reloaded {
    /// The status: 200 when the document was taken.
    pub status: u16,
    /// The body.
    pub body: String,
}

/// What a gateway has said so far.
#[derive(Clone, Debug, Default)]
struct Said {
    listeners: BTreeMap<String, SocketAddr>,
    admin: Option<SocketAddr>,
    ready: bool,
    over: bool,
    lines: Vec<String>,
}

/// A running gateway; dropping it kills the process (its id only).
#[derive(Debug)]
pub struct Gateway {
    child: Child,
    said: watch::Receiver<Said>,
    stderr: Arc<Mutex<String>>,
    collecting: JoinHandle<()>,
    scratch: Scratch,
}

impl Gateway {
    /// Starts `sluice run` with this document and waits until it is ready.
    pub async fn start(document: &str) -> Gateway {
        let scratch = Scratch::new();
        let path = scratch.write(DOCUMENT, document);
        let program = sluice(["run", &path.display().to_string()]);
        Gateway::launch(&program, scratch).await
    }

    /// Starts a program that keeps the contract above: `sluice demo`, `sluice proxy`, with what options a
    /// test needs. It runs in the scratch directory.
    pub async fn launch(program: &Program, scratch: Scratch) -> Gateway {
        let what = program.describe();
        let program = program.clone().directory(scratch.path());
        let mut child =
            program.command().spawn().unwrap_or_else(|error| panic!("cannot start {what}: {error}"));
        let stderr = Arc::<Mutex<String>>::default();
        let collecting = tokio::spawn(collect(child.stderr.take().unwrap(), stderr.clone()));
        let (sender, said) = watch::channel(Said::default());
        tokio::spawn(listen(child.stdout.take().unwrap(), sender));
        let mut gateway = Gateway { child, said, stderr, collecting, scratch };
        within(&format!("`ready` from {what}"), gateway.said.wait_for(|said| said.ready || said.over))
            .await
            .ok();
        if !gateway.said.borrow().ready {
            let status = gateway.wait_exit().await;
            panic!("{what} did not start: {status}\n{}\n{}", gateway.stdout(), gateway.stderr());
        }
        gateway
    }

    /// Where the listener `name` accepts.
    pub fn address(&self, name: &str) -> SocketAddr {
        let said = self.said.borrow();
        *said.listeners.get(name).unwrap_or_else(|| panic!("no listener {name:?} among {:?}", said.listeners))
    }

    /// Where the admin endpoints are.
    pub fn admin(&self) -> SocketAddr {
        self.said.borrow().admin.expect("this gateway has no admin address")
    }

    /// Its directory: relative names in the document lie here.
    pub fn scratch(&self) -> &Scratch {
        &self.scratch
    }

    /// Replaces the document, as an editor that renames would.
    pub fn write(&self, document: &str) {
        self.scratch.write(DOCUMENT, document);
    }

    /// Replaces the document and asks for a reload.
    pub async fn reload(&self, document: &str) -> Reloaded {
        self.write(document);
        let answer = http::post(self.admin(), "/v1/reload", "").await;
        Reloaded { status: answer.status, body: answer.text() }
    }

    /// Sends a signal to the process.
    pub async fn signal(&self, signal: Signal) {
        let id = self.child.id().expect("the gateway has ended");
        let name = match signal {
            Signal::Term => "TERM",
            Signal::Int => "INT",
            Signal::Hup => "HUP",
            Signal::Usr1 => "USR1",
            Signal::Usr2 => "USR2",
            Signal::Kill => "KILL",
        };
        // The shell's own kill: it is there without any package, and needs no unsafe code here.
        let sent = Program::at("/bin/sh").arguments(["-c", &format!("kill -{name} {id}")]).finish().await;
        assert!(sent.status.success(), "cannot signal {id}: {}", sent.stderr);
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id().expect("the gateway has ended")
    }

    /// Waits until it has ended, and until all that it said is here.
    pub async fn wait_exit(&mut self) -> ExitStatus {
        let status = within("the end of the gateway", self.child.wait()).await.unwrap();
        within("the end of its output", self.said.wait_for(|said| said.over)).await.ok();
        if !self.collecting.is_finished() {
            within("the end of its errors", &mut self.collecting).await.ok();
        }
        status
    }

    /// What it wrote to standard error so far.
    pub fn stderr(&self) -> String {
        self.stderr.lock().unwrap().clone()
    }

    /// What it wrote to standard output so far.
    pub fn stdout(&self) -> String {
        self.said.borrow().lines.join("\n")
    }

    /// Waits until a line of standard output contains `text`.
    pub async fn wait_stdout(&mut self, text: &str) {
        let seen = |said: &Said| said.over || said.lines.iter().any(|line| line.contains(text));
        within(&format!("{text:?} on standard output"), self.said.wait_for(seen)).await.ok();
        assert!(self.stdout().contains(text), "ended without saying {text:?}:\n{}", self.stdout());
    }

    /// Every sample of /metrics: `name{labels}` as printed -> value.
    pub async fn metrics(&self) -> BTreeMap<String, f64> {
        let answer = http::get(self.admin(), "/metrics").await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        metrics_of(&answer.text())
    }

    /// The sum over the samples of the metric `name` whose labels contain every one of `labels`
    /// (`code="no-route"`), once it stands still: what an exchange is counted by comes a little after its answer.
    pub async fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        let mut before = self.metric_now(name, labels).await;
        for _ in 0..10 {
            tokio::time::sleep(STILL).await;
            let now = self.metric_now(name, labels).await;
            if now == before {
                break;
            }
            before = now;
        }
        before
    }

    async fn metric_now(&self, name: &str, labels: &[&str]) -> f64 {
        let metrics = self.metrics().await;
        let of_name = metrics.iter().filter(|(sample, _)| sample.split('{').next() == Some(name));
        of_name
            .filter(|(sample, _)| labels.iter().all(|label| sample.contains(label)))
            .map(|(_, value)| value)
            .sum()
    }

    /// Waits until that sum fits.
    pub async fn wait_metric(&self, name: &str, labels: &[&str], fits: impl Fn(f64) -> bool) {
        let what = format!("{name} {labels:?}");
        eventually(&what, async || fits(self.metric_now(name, labels).await).then_some(())).await;
    }
}

/// The samples of a Prometheus text: `name{labels}` as printed -> value.
pub fn metrics_of(text: &str) -> BTreeMap<String, f64> {
    let samples = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    samples
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("not a sample: {line:?}"));
            (name.to_owned(), value.parse().unwrap_or_else(|_| panic!("not a value: {line:?}")))
        })
        .collect()
}

async fn listen(stdout: impl AsyncRead + Unpin, said: watch::Sender<Said>) {
    let mut lines = BufReader::new(stdout).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        said.send_modify(|said| {
            understand(&line, said);
            said.lines.push(line);
        });
    }
    said.send_modify(|said| said.over = true);
}

fn understand(line: &str, said: &mut Said) {
    let words: Vec<&str> = line.split_whitespace().collect();
    match words[..] {
        // The test knows the path of a Unix socket: it wrote it.
        ["listening", _, _, address] if address.starts_with("unix:") => {}
        ["listening", name, _, address] => {
            let address = address.parse().unwrap_or_else(|_| panic!("not an address: {line:?}"));
            said.listeners.insert(name.to_owned(), address);
        }
        ["admin", address] => said.admin = address.strip_prefix("http://").and_then(|text| text.parse().ok()),
        ["ready"] => said.ready = true,
        _ => {}
    }
}

async fn collect(from: impl AsyncRead + Unpin, into: Arc<Mutex<String>>) {
    let mut lines = BufReader::new(from).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let mut text = into.lock().unwrap();
        text.push_str(&line);
        text.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A stand-in that keeps the contract, so that the kit is tested without the program.
    async fn stand_in(script: &str) -> Gateway {
        Gateway::launch(&Program::at("/bin/sh").arguments(["-c", script]), Scratch::new()).await
    }

    #[tokio::test]
    async fn addresses_come_from_what_the_program_says() {
        let script = "echo 'listening  web  http  127.0.0.1:4711'; echo 'admin  http://127.0.0.1:4712'
            echo oh >&2; echo ready; exec sleep 60";
        let mut gateway = stand_in(script).await;
        assert_eq!(gateway.address("web").port(), 4711);
        assert_eq!(gateway.admin().port(), 4712);
        gateway.signal(Signal::Kill).await;
        assert!(!gateway.wait_exit().await.success());
        assert_eq!(gateway.stderr(), "oh\n");
    }

    #[tokio::test]
    #[should_panic(expected = "did not start")]
    async fn a_program_that_ends_before_it_is_ready_fails_the_test() {
        stand_in("echo 'listening web http 127.0.0.1:1'; exit 78").await;
    }

    #[test]
    fn samples_are_read_with_their_labels() {
        let read = metrics_of("# HELP a x\na{code=\"x\",side=\"y z\"} 3\nb 0.5\n");
        assert_eq!(read["a{code=\"x\",side=\"y z\"}"], 3.0);
        assert_eq!(read["b"], 0.5);
    }
}
