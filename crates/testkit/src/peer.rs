//! Real servers beside the gateway: nginx, HAProxy, Python's http.server, Redis and MariaDB, from Debian's
//! packages.
//!
//! They run on free loopback ports from documents of their own and are killed, by their own id, when
//! dropped. Tests that need one live in modules called `with_peers`, so that `cargo xtask test
//! --without-peers` can leave them out and count them.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicU16, Ordering};

use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use crate::deadline::eventually;
use crate::scratch::Scratch;

/// A running server.
#[derive(Debug)]
pub struct Peer {
    child: Child,
    address: SocketAddr,
    scratch: Scratch,
}

/// A port where nobody listens, or that a program can have which cannot say which port it got. It is none of
/// those that the system gives to whoever asks for port 0: nobody gets it by chance meanwhile.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Where the first of a process stands, so that processes beside each other seldom try the same.
    let start = std::process::id().wrapping_mul(61) % PORTS;
    for _ in 0..PORTS {
        let step = u32::from(NEXT.fetch_add(1, Ordering::Relaxed));
        let port = FIRST_PORT + ((start + step) % PORTS) as u16;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
    panic!("no port is free from {FIRST_PORT} on");
}

/// Linux gives ports from 32768 on.
const FIRST_PORT: u16 = 12_000;
const PORTS: u32 = 20_000;

/// A loopback address that no other part of the tests listens on, so that a port of it is still free when
/// its server stops and starts again.
pub fn own_loopback() -> Ipv4Addr {
    static NEXT: AtomicU16 = AtomicU16::new(1);
    let [high, low] = NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes();
    Ipv4Addr::new(127, 1 + (std::process::id() % 250) as u8, high, low)
}

impl Peer {
    /// nginx, one process, with this content of its one `server` block: `location / { return 200 "x"; }`.
    pub async fn nginx(server: &str) -> Peer {
        let (scratch, port) = (Scratch::new(), free_port());
        let here = scratch.path().display();
        let document = format!(
            "daemon off; master_process off; pid {here}/pid; error_log {here}/error.log;\n\
             events {{ worker_connections 1024; }}\n\
             http {{\n  access_log off;\n  client_body_temp_path {here}/body; proxy_temp_path {here}/proxy;\n  \
             fastcgi_temp_path {here}/fastcgi; uwsgi_temp_path {here}/uwsgi; scgi_temp_path {here}/scgi;\n  \
             server {{\n    listen 127.0.0.1:{port};\n{server}\n  }}\n}}\n"
        );
        let path = scratch.write("nginx.conf", document).display().to_string();
        let log = scratch.file("error.log").display().to_string();
        Peer::start("nginx", &["-c", &path, "-e", &log], port, scratch).await
    }

    /// HAProxy with one frontend that sends everything to `origin`; `words` follow the address that it binds:
    /// `proto h2`, `accept-proxy`.
    pub async fn haproxy(origin: SocketAddr, words: &str) -> Peer {
        let (scratch, port) = (Scratch::new(), free_port());
        let document = format!(
            "defaults\n  mode http\n  timeout connect 5s\n  timeout client 30s\n  timeout server 30s\n\
             frontend f\n  bind 127.0.0.1:{port} {words}\n  default_backend b\n\
             backend b\n  server s {origin}\n"
        );
        let path = scratch.write("haproxy.cfg", document).display().to_string();
        Peer::start("haproxy", &["-q", "-db", "-f", &path], port, scratch).await
    }

    /// Python's http.server with the files of a directory.
    pub async fn python(directory: &Path) -> Peer {
        let (scratch, port) = (Scratch::new(), free_port());
        let directory = directory.display().to_string();
        let (server, bind) = (["-u", "-m", "http.server"], ["--bind", "127.0.0.1"]);
        let port_text = port.to_string();
        let arguments = [&server[..], &[&port_text], &bind[..], &["--directory", &directory]].concat();
        Peer::start("python3", &arguments, port, scratch).await
    }

    /// Python's http.server with the files of a directory, under TLS with this chain and key.
    pub async fn python_tls(directory: &Path, chain: &Path, key: &Path) -> Peer {
        const SERVER: &str = "import functools, http.server, ssl, sys\n\
            handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=sys.argv[2])\n\
            server = http.server.ThreadingHTTPServer(('127.0.0.1', int(sys.argv[1])), handler)\n\
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)\n\
            context.load_cert_chain(sys.argv[3], sys.argv[4])\n\
            server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)\n\
            server.serve_forever()";
        let (scratch, port) = (Scratch::new(), free_port());
        let [directory, chain, key] = [directory, chain, key].map(|path| path.display().to_string());
        let arguments = ["-u", "-c", SERVER, &port.to_string(), &directory, &chain, &key];
        Peer::start("python3", &arguments, port, scratch).await
    }

    /// Redis, empty and without a file. Its client speaks first: `redis-cli -h HOST -p PORT`.
    pub async fn redis() -> Peer {
        let (scratch, port) = (Scratch::new(), free_port().to_string());
        let here = scratch.path().display().to_string();
        let kept = ["--save", "", "--appendonly", "no", "--dir", &here];
        let arguments = [&["--bind", "127.0.0.1", "--port", &port][..], &kept].concat();
        Peer::start("redis-server", &arguments, port.parse().unwrap(), scratch).await
    }

    /// MariaDB, empty, where everybody may do everything. The server speaks first:
    /// `mariadb --no-defaults --protocol=tcp -h HOST -P PORT`.
    pub async fn mariadb() -> Peer {
        let (scratch, port) = (Scratch::new(), free_port());
        let here = scratch.path().display();
        // No tables of rights and no InnoDB: it needs no preparation and starts in a moment.
        let arguments = format!(
            "--no-defaults --user=root --skip-grant-tables --skip-innodb --default-storage-engine=Aria \
             --skip-log-bin --bind-address=127.0.0.1 --port={port} --datadir={here} --socket={here}/socket \
             --pid-file={here}/pid"
        );
        let arguments: Vec<&str> = arguments.split(' ').collect();
        Peer::start("mariadbd", &arguments, port, scratch).await
    }

    async fn start(program: &str, arguments: &[&str], port: u16, scratch: Scratch) -> Peer {
        // Debian keeps daemons out of a user's PATH.
        let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
        let said = std::fs::File::create(scratch.file("said")).unwrap();
        let mut command = Command::new(program);
        command.args(arguments).env("PATH", path).stdin(Stdio::null()).kill_on_drop(true);
        command.stdout(said.try_clone().unwrap()).stderr(said);
        let child = command.spawn().unwrap_or_else(|error| {
            panic!("cannot start {program} ({error}): `cargo xtask test` installs it, or use --without-peers")
        });
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut peer = Peer { child, address, scratch };
        eventually(&format!("{program} on port {port}"), async || {
            if let Some(status) = peer.child.try_wait().unwrap() {
                let said = std::fs::read_to_string(peer.scratch.file("said")).unwrap_or_default();
                panic!("{program} ended at once: {status}\n{said}");
            }
            TcpStream::connect(address).await.ok()
        })
        .await;
        peer
    }

    /// Where it accepts.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its directory.
    pub fn scratch(&self) -> &Scratch {
        &self.scratch
    }

    /// Kills it as `kill -9` does and waits until it is gone.
    pub async fn kill(&mut self) {
        self.child.kill().await.unwrap();
    }
}

#[cfg(test)]
mod tests {
    mod with_peers {
        use super::super::*;
        use crate::program::Program;
        use crate::wire::Wire;

        #[tokio::test]
        async fn redis_answers_its_client() {
            let redis = Peer::redis().await;
            Wire::connect(redis.address()).await.send("PING\r\n").await.expect("+PONG\r\n").await;
        }

        #[tokio::test]
        async fn mariadb_answers_its_client() {
            let mariadb = Peer::mariadb().await;
            let port = mariadb.address().port().to_string();
            let client = ["mariadb", "--no-defaults", "--protocol=tcp", "-h", "127.0.0.1", "-P", &port];
            let ask = Program::at("/usr/bin/env").arguments(client).arguments(["-Ne", "select 6 * 7"]);
            let answer = ask.finish().await;
            assert_eq!((answer.code(), answer.stdout.as_str()), (0, "42\n"), "{}", answer.stderr);
        }
    }
}
