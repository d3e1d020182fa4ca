//! The servers of a comparison: an origin and three proxies with equal jobs.
//!
//! Equal means: one worker on core 0, keep-alive to the origin, no access log, and the same about the client
//! told to the origin (X-Forwarded-For, -Proto, -Host, -Port, Via, X-Request-Id) and back to the client (Via,
//! X-Request-Id). `check_job` asks the origin whether it was told.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::Failed;
use crate::step::{built, find};

/// How long a server may take until it accepts.
const START: Duration = Duration::from_secs(10);
/// Open files allowed to each server: idle connections need them.
const FILES: usize = 65_536;
/// Bytes of the small body: a short JSON answer.
const SMALL: usize = 100;

/// The origin and the proxies of one run, with their documents in one directory.
pub(super) struct Servers {
    pub(super) proxies: Vec<Server>,
    /// Held so that it lives as long as the proxies.
    _origin: Server,
    _folder: Folder,
}

/// A running server; it is killed by its own id when dropped.
pub(super) struct Server {
    pub(super) name: &'static str,
    pub(super) port: u16,
    child: Child,
}

/// A directory that is removed when dropped.
struct Folder(PathBuf);

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

    /// The URL of `path` on it.
    pub(super) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
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

impl Servers {
    /// Starts the origin on core 1 and the proxies on core 0, and checks that each does its job.
    pub(super) fn start() -> Result<Servers, Failed> {
        let path = std::env::temp_dir().join(format!("sluice-bench-{}", std::process::id()));
        fs::create_dir_all(&path).map_err(|error| format!("cannot create {}: {error}", path.display()))?;
        let folder = Folder(path);
        let port = free_port()?;
        write(&folder.0, "large", &"x".repeat(1 << 20))?;
        let origin = launch(&Plan::nginx("origin", 1, port, &folder.0, &origin_http(port, &folder.0))?)?;
        let mut servers = Servers { proxies: Vec::new(), _origin: origin, _folder: folder };
        let plans = servers.plans(port)?;
        for plan in plans {
            let proxy = launch(&plan)?;
            check_job(&proxy)?;
            servers.proxies.push(proxy);
        }
        Ok(servers)
    }

    fn plans(&self, origin: u16) -> Result<[Plan; 3], Failed> {
        let folder = &self._folder.0;
        let (nginx, haproxy, sluice) = (free_port()?, free_port()?, free_port()?);
        Ok([
            Plan::nginx("nginx", 0, nginx, folder, &nginx_http(nginx, origin))?,
            Plan {
                name: "haproxy",
                core: 0,
                port: haproxy,
                program: find("haproxy").ok_or("haproxy is missing")?,
                arguments: vec!["-q".into(), "-db".into(), "-f".into(), {
                    write(folder, "haproxy.cfg", &haproxy_document(haproxy, origin))?
                }],
            },
            Plan {
                name: "sluice",
                core: 0,
                port: sluice,
                program: built("release", "sluice"),
                arguments: vec![
                    "run".into(),
                    write(folder, "sluice.toml", &sluice_document(sluice, origin))?,
                ],
            },
        ])
    }
}

/// How a server is started.
struct Plan {
    name: &'static str,
    core: usize,
    port: u16,
    program: PathBuf,
    arguments: Vec<String>,
}

impl Plan {
    fn nginx(name: &'static str, core: usize, port: u16, folder: &Path, http: &str) -> Result<Plan, Failed> {
        let own = folder.join(name);
        fs::create_dir_all(&own).map_err(|error| format!("cannot create {}: {error}", own.display()))?;
        let here = own.display();
        let document = format!(
            "daemon off;\nworker_processes 1;\nworker_rlimit_nofile {FILES};\npid {here}/pid;\n\
             error_log {here}/error.log;\nevents {{ worker_connections 32768; }}\nhttp {{\n  \
             client_body_temp_path {here}/body; proxy_temp_path {here}/proxy; fastcgi_temp_path {here}/fastcgi;\n  \
             uwsgi_temp_path {here}/uwsgi; scgi_temp_path {here}/scgi;\n  \
             access_log off;\n  keepalive_timeout 600s;\n  keepalive_requests 100000000;\n{http}}}\n"
        );
        let file = write(&own, "nginx.conf", &document)?;
        let arguments = vec!["-c".into(), file, "-e".into(), format!("{here}/error.log")];
        Ok(Plan { name, core, port, program: find("nginx").ok_or("nginx is missing")?, arguments })
    }
}

fn origin_http(port: u16, folder: &Path) -> String {
    let (small, folder) = ("x".repeat(SMALL), folder.display());
    format!(
        "  sendfile on;\n  server {{\n    listen 127.0.0.1:{port} backlog=4096;\n    root {folder};\n    \
         location = / {{ return 200 \"{small}\"; }}\n    \
         location = /told {{ return 200 \"$http_x_forwarded_for|$http_x_forwarded_proto|$http_x_forwarded_host|\
         $http_x_forwarded_port|$http_via|$http_x_request_id\"; }}\n    \
         location = /large {{ }}\n  }}\n"
    )
}

fn nginx_http(port: u16, origin: u16) -> String {
    format!(
        "  upstream origin {{ server 127.0.0.1:{origin}; keepalive 128; keepalive_requests 100000000; }}\n  \
         server {{\n    listen 127.0.0.1:{port} backlog=4096;\n    location / {{\n      \
         proxy_pass http://origin;\n      proxy_http_version 1.1;\n      \
         proxy_set_header Connection \"\";\n      proxy_set_header Host $http_host;\n      \
         proxy_set_header X-Forwarded-For $remote_addr;\n      proxy_set_header X-Forwarded-Proto $scheme;\n      \
         proxy_set_header X-Forwarded-Host $http_host;\n      proxy_set_header X-Forwarded-Port $server_port;\n      \
         proxy_set_header Via \"1.1 nginx\";\n      proxy_set_header X-Request-Id $request_id;\n      \
         add_header Via \"1.1 nginx\";\n      add_header X-Request-Id $request_id;\n    }}\n  }}\n"
    )
}

fn haproxy_document(port: u16, origin: u16) -> String {
    format!(
        "global\n  nbthread 1\n  maxconn 18000\n  no strict-limits\n\
         defaults\n  mode http\n  timeout connect 5s\n  timeout client 600s\n  timeout server 60s\n  \
         timeout http-keep-alive 600s\n  option http-keep-alive\n  http-reuse always\n\
         frontend web\n  bind 127.0.0.1:{port} backlog 4096\n  \
         unique-id-format %{{+X}}o%ci:%cp_%fi:%fp_%Ts_%rt:%pid\n  \
         http-request set-header X-Forwarded-For %[src]\n  http-request set-header X-Forwarded-Proto http\n  \
         http-request set-header X-Forwarded-Host %[req.hdr(host)]\n  \
         http-request set-header X-Forwarded-Port %[dst_port]\n  http-request set-header Via \"1.1 haproxy\"\n  \
         http-request set-header X-Request-Id %[unique-id]\n  \
         http-response set-header Via \"1.1 haproxy\"\n  http-response set-header X-Request-Id %[unique-id]\n  \
         default_backend origin\n\
         backend origin\n  server origin 127.0.0.1:{origin}\n"
    )
}

fn sluice_document(port: u16, origin: u16) -> String {
    format!(
        "[process]\nworkers = 1\n\n[listeners.web]\naddress = \"127.0.0.1:{port}\"\ntimeouts = {{ idle = \"10m\" }}\n\n\
         [[routes]]\nname = \"all\"\nmatch = {{ path_prefix = \"/\" }}\nforward = {{ upstream = \"origin\" }}\n\n\
         [upstreams.origin]\nendpoints = [\"127.0.0.1:{origin}\"]\n"
    )
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
            return Err(format!("{} ended at once: {status}", plan.name));
        }
        if Instant::now() > deadline {
            return Err(format!("{} does not accept on port {}", plan.name, plan.port));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(server)
}

/// Fails unless the origin is told all six things through this proxy: without that, jobs are not equal.
fn check_job(proxy: &Server) -> Result<(), Failed> {
    let answer = get(proxy.port, "/told")?;
    let (head, told) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let names = [
        "X-Forwarded-For",
        "X-Forwarded-Proto",
        "X-Forwarded-Host",
        "X-Forwarded-Port",
        "Via",
        "X-Request-Id",
    ];
    let values: Vec<&str> = told.trim().split('|').collect();
    if !head.starts_with("HTTP/1.1 200 ") || values.len() != names.len() {
        return Err(format!("{} does not proxy:\n{answer}", proxy.name));
    }
    let untold: Vec<_> =
        names.iter().zip(&values).filter(|(_, value)| value.is_empty()).map(|(name, _)| *name).collect();
    match untold.is_empty() {
        true => Ok(()),
        false => Err(format!(
            "{} does not tell the origin {}: the jobs are not equal",
            proxy.name,
            untold.join(", ")
        )),
    }
}

fn get(port: u16, path: &str) -> Result<String, Failed> {
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))?;
        stream.set_read_timeout(Some(START))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: bench.example\r\nConnection: close\r\n\r\n")?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    };
    ask().map_err(|error| format!("no answer on port {port}: {error}"))
}

fn free_port() -> Result<u16, Failed> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| listener.local_addr())
        .map(|address| address.port())
        .map_err(|error| format!("no free port: {error}"))
}

fn write(folder: &Path, name: &str, text: &str) -> Result<String, Failed> {
    let path = folder.join(name);
    fs::write(&path, text).map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    Ok(path.display().to_string())
}
