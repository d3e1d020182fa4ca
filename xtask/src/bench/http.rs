//! The origin and the proxies of the HTTP benchmarks: three proxies with equal jobs.
//!
//! Equal means: one worker on core 0, keep-alive to the origin, no access log, and the same about the client
//! told to the origin (X-Forwarded-For, -Proto, -Host, -Port, Via, X-Request-Id) and back to the client (Via,
//! X-Request-Id). `check_job` asks the origin whether it was told.

use std::process::Command;

use super::certificate;
use super::servers::{Folder, Plan, Server, Servers, free_port};
use crate::Failed;
use crate::step::output;

/// Bytes of the small body: a short JSON answer.
const SMALL: usize = 100;
/// Idle connections to the origin that each proxy keeps: more than any load here has requests in flight.
const KEPT: usize = 1024;

/// What the proxies speak with the load generator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Listen {
    /// HTTP/1 in the clear.
    Http1,
    /// HTTP/2 in the clear, by prior knowledge.
    Http2,
    /// HTTP/1 over TLS, with the certificate of [`certificate::make`].
    Tls,
}

impl Listen {
    /// The URL of `path` on a proxy.
    pub(super) fn url(self, proxy: &Server, path: &str) -> String {
        let scheme = match self {
            Listen::Http1 | Listen::Http2 => "http",
            Listen::Tls => "https",
        };
        format!("{scheme}://127.0.0.1:{}{path}", proxy.port)
    }
}

/// Starts the origin on core 1 and the proxies on core 0, and checks that each does its job.
pub(super) fn start(listen: Listen, without: Option<&str>) -> Result<Servers, Failed> {
    let folder = Folder::new()?;
    folder.write("large", &"x".repeat(1 << 20))?;
    if listen == Listen::Tls {
        certificate::make(&folder)?;
    }
    let origin = free_port()?;
    let plan = Plan::nginx(
        "origin",
        (1, origin),
        &folder,
        &http_block("origin", &folder, &origin_server(origin, &folder)),
    )?;
    let (nginx, haproxy, sluice) = (free_port()?, free_port()?, free_port()?);
    let plans = vec![
        Plan::nginx(
            "nginx",
            (0, nginx),
            &folder,
            &http_block("nginx", &folder, &nginx_server(listen, (nginx, origin), &folder)),
        )?,
        Plan::haproxy("haproxy", haproxy, &folder, &haproxy_document(listen, (haproxy, origin), &folder))?,
        Plan::sluice(sluice, &folder, &sluice_document(listen, (sluice, origin), &folder))?,
    ];
    Servers::start(folder, &plan, (plans, without), |proxy| check_job(listen, proxy))
}

/// The `http` block of an nginx around one server.
pub(super) fn http_block(name: &str, folder: &Folder, server: &str) -> String {
    let here = folder.path().join(name).display().to_string();
    format!(
        "http {{\n  client_body_temp_path {here}/body; proxy_temp_path {here}/proxy; \
         fastcgi_temp_path {here}/fastcgi;\n  uwsgi_temp_path {here}/uwsgi; scgi_temp_path {here}/scgi;\n  \
         access_log off;\n  keepalive_timeout 600s;\n  keepalive_requests 100000000;\n{server}}}\n"
    )
}

pub(super) fn origin_server(port: u16, folder: &Folder) -> String {
    let (small, folder) = ("x".repeat(SMALL), folder.path().display());
    format!(
        "  sendfile on;\n  server {{\n    listen 127.0.0.1:{port} backlog=4096;\n    root {folder};\n    \
         location = / {{ return 200 \"{small}\"; }}\n    \
         location = /told {{ return 200 \"$http_x_forwarded_for|$http_x_forwarded_proto|$http_x_forwarded_host|\
         $http_x_forwarded_port|$http_via|$http_x_request_id\"; }}\n    \
         location = /large {{ }}\n  }}\n"
    )
}

fn nginx_server(listen: Listen, (port, origin): (u16, u16), folder: &Folder) -> String {
    let (word, lines) = match listen {
        Listen::Http1 => ("", String::new()),
        Listen::Http2 => (" http2", String::new()),
        Listen::Tls => {
            let (chain, key) = (certificate::chain(folder), certificate::key(folder));
            // Debian's nginx has TLS 1.3, but not by default.
            let words = "ssl_protocols TLSv1.2 TLSv1.3; ssl_session_cache off;";
            (" ssl", format!("    ssl_certificate {chain};\n    ssl_certificate_key {key};\n    {words}\n"))
        }
    };
    format!(
        "  upstream origin {{ server 127.0.0.1:{origin}; keepalive {KEPT}; keepalive_requests 100000000; }}\n  \
         server {{\n    listen 127.0.0.1:{port}{word} backlog=4096;\n{lines}    location / {{\n      \
         proxy_pass http://origin;\n      proxy_http_version 1.1;\n      \
         proxy_set_header Connection \"\";\n      proxy_set_header Host $http_host;\n      \
         proxy_set_header X-Forwarded-For $remote_addr;\n      proxy_set_header X-Forwarded-Proto $scheme;\n      \
         proxy_set_header X-Forwarded-Host $http_host;\n      proxy_set_header X-Forwarded-Port $server_port;\n      \
         proxy_set_header Via \"1.1 nginx\";\n      proxy_set_header X-Request-Id $request_id;\n      \
         add_header Via \"1.1 nginx\";\n      add_header X-Request-Id $request_id;\n    }}\n  }}\n"
    )
}

fn haproxy_document(listen: Listen, (port, origin): (u16, u16), folder: &Folder) -> String {
    let (words, scheme) = match listen {
        Listen::Http1 => (String::new(), "http"),
        Listen::Http2 => (" proto h2".into(), "http"),
        Listen::Tls => (format!(" ssl crt {}", certificate::both(folder)), "https"),
    };
    format!(
        "global\n  nbthread 1\n  maxconn 18000\n  no strict-limits\n\
         defaults\n  mode http\n  timeout connect 5s\n  timeout client 600s\n  timeout server 60s\n  \
         timeout http-keep-alive 600s\n  option http-keep-alive\n  http-reuse always\n\
         frontend web\n  bind 127.0.0.1:{port}{words} backlog 4096\n  \
         unique-id-format %{{+X}}o%ci:%cp_%fi:%fp_%Ts_%rt:%pid\n  \
         http-request set-header X-Forwarded-For %[src]\n  http-request set-header X-Forwarded-Proto {scheme}\n  \
         http-request set-header X-Forwarded-Host %[req.hdr(host)]\n  \
         http-request set-header X-Forwarded-Port %[dst_port]\n  http-request set-header Via \"1.1 haproxy\"\n  \
         http-request set-header X-Request-Id %[unique-id]\n  \
         http-response set-header Via \"1.1 haproxy\"\n  http-response set-header X-Request-Id %[unique-id]\n  \
         default_backend origin\n\
         backend origin\n  server origin 127.0.0.1:{origin}\n"
    )
}

/// HTTP/2 by prior knowledge needs no word: the listener sees it.
fn sluice_document(listen: Listen, (port, origin): (u16, u16), folder: &Folder) -> String {
    let (listener, certificates) = match listen {
        Listen::Http1 | Listen::Http2 => ("", String::new()),
        Listen::Tls => {
            let (chain, key) = (certificate::chain(folder), certificate::key(folder));
            let section = format!("[certificates.bench]\nchain = \"{chain}\"\nkey = \"{key}\"\n\n");
            ("tls = { certificates = [\"bench\"] }\n", section)
        }
    };
    format!(
        "[process]\nworkers = 1\n\n[listeners.web]\naddress = \"127.0.0.1:{port}\"\ntimeouts = {{ idle = \"10m\" }}\n\
         {listener}\n{certificates}\
         [[routes]]\nname = \"all\"\nmatch = {{ path_prefix = \"/\" }}\nforward = {{ upstream = \"origin\" }}\n\n\
         [upstreams.origin]\nendpoints = [\"127.0.0.1:{origin}\"]\npool = {{ max_idle = {KEPT} }}\n"
    )
}

/// Fails unless the origin is told all six things through this proxy: without that, jobs are not equal.
fn check_job(listen: Listen, proxy: &Server) -> Result<(), Failed> {
    let told = ask(listen, &listen.url(proxy, "/told"))?;
    let names = [
        "X-Forwarded-For",
        "X-Forwarded-Proto",
        "X-Forwarded-Host",
        "X-Forwarded-Port",
        "Via",
        "X-Request-Id",
    ];
    let values: Vec<&str> = told.trim().split('|').collect();
    if values.len() != names.len() {
        return Err(format!("the origin's answer does not come through:\n{told}"));
    }
    let untold: Vec<_> =
        names.iter().zip(&values).filter(|(_, value)| value.is_empty()).map(|(name, _)| *name).collect();
    match untold.is_empty() {
        true => Ok(()),
        false => Err(format!("the origin is not told {}: the jobs are not equal", untold.join(", "))),
    }
}

/// The body of a 200 from this URL.
fn ask(listen: Listen, url: &str) -> Result<String, Failed> {
    let mut curl = Command::new("curl");
    // -q: a person's own curlrc or proxy must not stand between.
    curl.args(["-q", "--noproxy", "*", "--silent", "--show-error", "--fail", "--max-time", "10"]);
    match listen {
        Listen::Http1 => &mut curl,
        Listen::Http2 => curl.arg("--http2-prior-knowledge"),
        Listen::Tls => curl.arg("--insecure"),
    };
    output(curl.arg(url)).map_err(|failed| format!("no answer from {url}: {failed}"))
}
