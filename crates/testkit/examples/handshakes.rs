//! The load generator of `cargo xtask bench tls`: `handshakes full|resumed PORT CHAIN CONNECTIONS SECONDS`.
//!
//! Each connection makes a TLS 1.3 handshake, one request that asks for the connection to be closed, and then
//! the next connection follows. Promise: only handshakes of the kind that was asked for count, with X25519,
//! so that every server does the same work; all others are errors. It prints `COUNT in SECONDS s, N errors`.
//!
//! Not a part of xtask, which stays free of a TLS library.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a benchmark speaks to its terminal and measures real time"
)]

use std::error::Error;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::process::ExitCode;
use std::sync::{Arc, Once};
use std::thread;
use std::time::{Duration, Instant};

use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, HandshakeKind, NamedGroup, RootCertStore, StreamOwned};

const USAGE: &str = "handshakes full|resumed PORT CHAIN CONNECTIONS SECONDS";
/// The name in the certificate.
const NAME: &str = "bench.example";
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: bench.example\r\nConnection: close\r\n\r\n";
/// A server that says nothing for so long has failed.
const SILENCE: Duration = Duration::from_secs(10);
/// The first problem is printed; the others are likely the same.
static SAID: Once = Once::new();

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("handshakes: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [kind, port, chain, connections, seconds] = &arguments[..] else { return Err(USAGE.into()) };
    let kind = match kind.as_str() {
        "full" => HandshakeKind::Full,
        "resumed" => HandshakeKind::Resumed,
        _ => return Err(USAGE.into()),
    };
    let (port, connections): (u16, u16) = (port.parse()?, connections.parse()?);
    let configs = (0..connections).map(|_| {
        // Each has its own tickets, so that none lacks one because another was faster.
        let config = Arc::new(config(kind, chain)?);
        if kind == HandshakeKind::Resumed {
            // The first handshake is full: it brings the tickets.
            once(&config, port)?;
        }
        Ok(config)
    });
    let configs: Vec<_> = configs.collect::<Outcome<_>>()?;
    let start = Instant::now();
    let deadline = start + Duration::from_secs(seconds.parse()?);
    let threads: Vec<_> = configs
        .into_iter()
        .map(|config| thread::spawn(move || repeat(&config, (port, kind), deadline)))
        .collect();
    let ended: Vec<_> = threads.into_iter().filter_map(|thread| thread.join().ok()).collect();
    let took = start.elapsed().as_secs_f64();
    let (counts, errors): (Vec<u64>, Vec<u64>) = ended.into_iter().unzip();
    println!("{} in {took:.3} s, {} errors", counts.iter().sum::<u64>(), errors.iter().sum::<u64>());
    Ok(())
}

fn config(kind: HandshakeKind, chain: &str) -> Outcome<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(chain)?)?;
    // The one group that old and new libraries both prefer when it is the only one.
    let groups = aws_lc_rs::ALL_KX_GROUPS.iter().copied().filter(|group| group.name() == NamedGroup::X25519);
    let provider = CryptoProvider { kx_groups: groups.collect(), ..aws_lc_rs::default_provider() };
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    if kind == HandshakeKind::Full {
        config.resumption = Resumption::disabled();
    }
    Ok(config)
}

/// Connects again and again until the deadline; how many handshakes were of that kind, and the errors.
fn repeat(config: &Arc<ClientConfig>, (port, kind): (u16, HandshakeKind), deadline: Instant) -> (u64, u64) {
    let (mut count, mut errors) = (0, 0);
    while Instant::now() < deadline {
        let problem = match once(config, port) {
            Ok(made) if made == kind => {
                count += 1;
                continue;
            }
            Ok(made) => format!("a handshake of another kind: {made:?}"),
            Err(error) => error.to_string(),
        };
        errors += 1;
        SAID.call_once(|| eprintln!("handshakes: {problem}"));
        // A server that refuses at once must not turn this into a race.
        if errors > 1000 {
            break;
        }
    }
    (count, errors)
}

fn once(config: &Arc<ClientConfig>, port: u16) -> Outcome<HandshakeKind> {
    let socket = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(SILENCE))?;
    socket.set_write_timeout(Some(SILENCE))?;
    let mut stream =
        StreamOwned::new(ClientConnection::new(config.clone(), ServerName::try_from(NAME)?)?, socket);
    stream.write_all(REQUEST)?;
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        // An end without close_notify: what was asked for has come, and only that counts here.
        Err(error) if error.kind() != ErrorKind::UnexpectedEof => Err(error.into()),
        _ if !answer.starts_with(b"HTTP/1.1 200 ") => Err("no answer with status 200".into()),
        _ => stream.conn.handshake_kind().ok_or_else(|| "no handshake".into()),
    }
}
