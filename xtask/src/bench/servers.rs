//! The processes of a comparison: started on their core, stopped by their own id, with their documents in one
//! directory.

use std::fs;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::Failed;
use crate::step::{built, find};

/// How long a server may take until it accepts.
const START: Duration = Duration::from_secs(10);
/// Open files allowed to each server: idle connections need them.
const FILES: usize = 65_536;

/// The origin and the proxies of one run, with their documents in one directory.
pub(super) struct Servers {
    pub(super) proxies: Vec<Server>,
    pub(super) folder: Folder,
    /// Held so that it lives as long as the proxies.
    _origin: Server,
}

/// A running server; it is killed by its own id when dropped.
pub(super) struct Server {
    pub(super) name: &'static str,
    pub(super) port: u16,
    child: Child,
}

/// A directory that is removed when dropped.
pub(super) struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl Server {
    /// Its process id; its workers are children of it.
    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(Some(_))) {
            return;
        }
        // TERM first: an nginx master that is killed leaves its workers behind.
        let id = self.child.id().to_string();
        let _ = Command::new("sh").args(["-c", &format!("kill -TERM {id}")]).status();
        let deadline = Instant::now() + Duration::from_secs(3);
        while Instant::now() < deadline {
            if matches!(self.child.try_wait(), Ok(Some(_)) | Err(_)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Folder {
    pub(super) fn new() -> Result<Folder, Failed> {
        let path = std::env::temp_dir().join(format!("sluice-bench-{}", std::process::id()));
        fs::create_dir_all(&path).map_err(|error| format!("cannot create {}: {error}", path.display()))?;
        Ok(Folder(path))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// The path of the file `name` in it.
    pub(super) fn file(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }

    /// Writes a file; its path.
    pub(super) fn write(&self, name: &str, text: &str) -> Result<String, Failed> {
        let path = self.file(name);
        fs::write(&path, text).map_err(|error| format!("cannot write {path}: {error}"))?;
        Ok(path)
    }
}

impl Servers {
    /// Starts the origin, then the proxies but the one called `without`; `check` fails when a proxy does not do
    /// the job that makes it comparable.
    pub(super) fn start(
        folder: Folder,
        origin: &Plan,
        (plans, without): (Vec<Plan>, Option<&str>),
        check: impl Fn(&Server) -> Result<(), Failed>,
    ) -> Result<Servers, Failed> {
        if without.is_some_and(|name| !plans.iter().any(|plan| plan.name == name)) {
            let names: Vec<_> = plans.iter().map(|plan| plan.name).collect();
            return Err(format!("--without takes one of: {}", names.join(", ")));
        }
        let mut servers = Servers { proxies: Vec::new(), folder, _origin: launch(origin)? };
        for plan in plans.iter().filter(|plan| Some(plan.name) != without) {
            let proxy = launch(plan)?;
            check(&proxy).map_err(|failed| format!("{} does not do its job: {failed}", proxy.name))?;
            servers.proxies.push(proxy);
        }
        Ok(servers)
    }
}

/// How a server is started.
pub(super) struct Plan {
    pub(super) name: &'static str,
    pub(super) core: usize,
    pub(super) port: u16,
    pub(super) program: PathBuf,
    pub(super) arguments: Vec<String>,
}

impl Plan {
    /// nginx with one worker and these blocks beside `events`.
    pub(super) fn nginx(
        name: &'static str,
        (core, port): (usize, u16),
        folder: &Folder,
        blocks: &str,
    ) -> Result<Plan, Failed> {
        let own = folder.path().join(name);
        fs::create_dir_all(&own).map_err(|error| format!("cannot create {}: {error}", own.display()))?;
        let here = own.display();
        let document = format!(
            "daemon off;\nworker_processes 1;\nworker_rlimit_nofile {FILES};\npid {here}/pid;\n\
             error_log {here}/error.log;\n{blocks}events {{ worker_connections 32768; }}\n"
        );
        let file = folder.write(&format!("{name}/nginx.conf"), &document)?;
        let arguments = vec!["-c".into(), file, "-e".into(), format!("{here}/error.log")];
        Ok(Plan { name, core, port, program: find("nginx").ok_or("nginx is missing")?, arguments })
    }

    /// HAProxy on core 0 with this document.
    pub(super) fn haproxy(
        name: &'static str,
        port: u16,
        folder: &Folder,
        document: &str,
    ) -> Result<Plan, Failed> {
        let file = folder.write(&format!("{name}.cfg"), document)?;
        let arguments = vec!["-q".into(), "-db".into(), "-f".into(), file];
        let program = find("haproxy").ok_or("haproxy is missing")?;
        Ok(Plan { name, core: 0, port, program, arguments })
    }

    /// Sluice on core 0 with this document.
    pub(super) fn sluice(port: u16, folder: &Folder, document: &str) -> Result<Plan, Failed> {
        let arguments = vec!["run".into(), folder.write("sluice.toml", document)?];
        Ok(Plan { name: "sluice", core: 0, port, program: built("release", "sluice"), arguments })
    }
}

fn launch(plan: &Plan) -> Result<Server, Failed> {
    let limit = format!(
        "ulimit -n {FILES} 2>/dev/null || ulimit -n $(ulimit -Hn); exec taskset -c {} \"$0\" \"$@\"",
        plan.core
    );
    let mut command = Command::new("sh");
    command.arg("-c").arg(limit).arg(&plan.program).args(&plan.arguments);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::inherit());
    let child = command.spawn().map_err(|error| format!("cannot start {}: {error}", plan.name))?;
    let mut server = Server { name: plan.name, port: plan.port, child };
    let deadline = Instant::now() + START;
    while TcpStream::connect((Ipv4Addr::LOCALHOST, plan.port)).is_err() {
        if let Ok(Some(status)) = server.child.try_wait() {
            return Err(format!("{} ended at once, {status}: what it said stands above", plan.name));
        }
        if Instant::now() > deadline {
            return Err(format!("{} does not accept on port {}", plan.name, plan.port));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(server)
}

pub(super) fn free_port() -> Result<u16, Failed> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| listener.local_addr())
        .map(|address| address.port())
        .map_err(|error| format!("no free port: {error}"))
}
