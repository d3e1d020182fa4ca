//! TCP listeners: connections passed on as they are.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest, Sha256};
use sluice_testkit::{
    Gateway, ManualOrigin, Origin, Reply, Scratch, Signal, Wire, eventually, free_port, http, within,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What a test adds to a document with one TCP listener `db` and one upstream `db`.
#[derive(Clone, Copy, Default)]
pub(crate) struct Tcp<'a> {
    /// Lines of `[process]`.
    pub process: &'a str,
    /// Lines of the listener.
    pub listener: &'a str,
    /// Further members of the route's match.
    pub matches: &'a str,
    /// Lines of the upstream.
    pub upstream: &'a str,
    /// Further tables.
    pub more: &'a str,
}

impl Tcp<'_> {
    pub(crate) fn document(&self, endpoints: &[SocketAddr]) -> String {
        let Tcp { process, listener, matches, upstream, more } = self;
        let endpoints: Vec<String> = endpoints.iter().map(|address| format!("\"{address}\"")).collect();
        let endpoints = endpoints.join(", ");
        let comma = if matches.is_empty() { "" } else { ", " };
        let address = if listener.contains("address") { "" } else { "address = \"127.0.0.1:0\"" };
        format!(
            "[process]\nworkers = 1\nadmin = {{ address = \"127.0.0.1:0\" }}\n{process}\n\n\
             [listeners.db]\nprotocol = \"tcp\"\n{address}\n{listener}\n\n\
             [[routes]]\nname = \"db\"\nmatch = {{ listeners = [\"db\"]{comma}{matches} }}\n\
             forward = {{ upstream = \"db\" }}\n\n\
             [upstreams.db]\nendpoints = [{endpoints}]\n{upstream}\n\n{more}\n"
        )
    }

    pub(crate) async fn start(&self, endpoints: &[SocketAddr]) -> Gateway {
        Gateway::start(&self.document(endpoints)).await
    }
}

/// A tunnel: the client's end and the endpoint's.
async fn tunnel(origin: &ManualOrigin, gateway: &Gateway) -> (Wire, Wire) {
    let client = Wire::connect(gateway.address("db")).await;
    (client, origin.accept().await)
}

async fn failures(gateway: &Gateway, code: &str) -> f64 {
    gateway.metric("sluice_failures_total", &[&format!("code=\"{code}\"")]).await
}

async fn wait_failure(gateway: &Gateway, code: &str) {
    let what = format!("a failure {code}");
    eventually(&what, async || (failures(gateway, code).await > 0.0).then_some(())).await;
}

#[tokio::test]
async fn either_side_may_speak_first() {
    let origin = ManualOrigin::start().await;
    let gateway = Tcp::default().start(&[origin.address()]).await;
    let (mut client, mut endpoint) = tunnel(&origin, &gateway).await;
    endpoint.send("5.5.5-server greets\n").await;
    client.expect("5.5.5-server greets\n").await.send("login").await;
    endpoint.expect("login").await;
    let (mut client, mut endpoint) = tunnel(&origin, &gateway).await;
    let every_byte: Vec<u8> = (0..=255).collect();
    client.send(&every_byte).await;
    endpoint.expect(&every_byte).await.send("\r\n\0").await;
    client.expect("\r\n\0").await;
    drop(client);
    endpoint.expect_closed().await;
}

#[tokio::test]
async fn each_side_may_finish_first_and_still_listen() {
    let origin = ManualOrigin::start().await;
    let gateway = Tcp::default().start(&[origin.address()]).await;
    let (mut client, mut endpoint) = tunnel(&origin, &gateway).await;
    client.send("question").await.half_close().await;
    assert_eq!(endpoint.read_to_end().await, b"question");
    endpoint.send("answer").await;
    client.expect("answer").await;
    drop(endpoint);
    client.expect_closed().await;
    let (mut client, mut endpoint) = tunnel(&origin, &gateway).await;
    endpoint.send("all").await.half_close().await;
    assert_eq!(client.read_to_end().await, b"all");
    client.send("still here").await;
    endpoint.expect("still here").await;
    drop(client);
    endpoint.expect_closed().await;
    assert_eq!(gateway.metric("sluice_http_requests_total", &["outcome=\"completed\""]).await, 2.0);
}

/// So many bytes that no two pieces of them are the same, and their hash.
fn piece(number: u64) -> Vec<u8> {
    (0..32 * 1024_u64)
        .flat_map(|at| (number << 32 | at).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes())
        .collect()
}

const PIECES: u64 = 400;

async fn write_much(mut to: impl AsyncWriteExt + Unpin, seed: u64) -> Vec<u8> {
    let mut hash = Sha256::new();
    for number in 0..PIECES {
        let piece = piece(seed + number);
        hash.update(&piece);
        to.write_all(&piece).await.unwrap();
    }
    to.shutdown().await.unwrap();
    hash.finalize().to_vec()
}

async fn read_much(mut from: impl AsyncReadExt + Unpin) -> (u64, Vec<u8>) {
    let (mut hash, mut count) = (Sha256::new(), 0);
    let mut buffer = vec![0; 256 * 1024];
    loop {
        match from.read(&mut buffer).await.unwrap() {
            0 => return (count, hash.finalize().to_vec()),
            read => {
                hash.update(&buffer[..read]);
                count += read as u64;
            }
        }
    }
}

/// 100 MiB each way at the same time.
async fn much_both_ways(listener: &TcpListener, gateway: SocketAddr) {
    let client = TcpStream::connect(gateway).await.unwrap();
    let (endpoint, _) = listener.accept().await.unwrap();
    let (client_in, client_out) = client.into_split();
    let (endpoint_in, endpoint_out) = endpoint.into_split();
    let (up, down, at_endpoint, at_client) = tokio::join!(
        tokio::spawn(write_much(client_out, 0)),
        tokio::spawn(write_much(endpoint_out, 1_000_000)),
        tokio::spawn(read_much(endpoint_in)),
        tokio::spawn(read_much(client_in)),
    );
    let total = PIECES * 256 * 1024;
    assert_eq!(at_endpoint.unwrap(), (total, up.unwrap()));
    assert_eq!(at_client.unwrap(), (total, down.unwrap()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_megabytes_pass_each_way_unchanged() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let log = "[access_log]\npath = \"access.log\"\n";
    let gateway = Tcp { more: log, ..Tcp::default() }.start(&[listener.local_addr().unwrap()]).await;
    let moved = much_both_ways(&listener, gateway.address("db"));
    tokio::time::timeout(Duration::from_secs(120), moved).await.expect("it takes seconds, not minutes");
    let line = log_line(&gateway).await;
    let total = PIECES * 256 * 1024;
    assert_eq!((&line["bytes_in"], &line["bytes_out"]), (&total.into(), &total.into()));
    assert_eq!((line["route"].as_str(), line["outcome"].as_str()), (Some("db"), Some("completed")));
    assert_eq!((line["listener"].as_str(), line["attempts"].as_u64()), (Some("db"), Some(1)));
}

/// The first line of access.log.
pub(crate) async fn log_line(gateway: &Gateway) -> serde_json::Value {
    let path = gateway.scratch().file("access.log");
    eventually("a line of the access log", async || {
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        text.lines().next().map(|line| serde_json::from_str(line).unwrap())
    })
    .await
}

#[tokio::test]
async fn ipv6_is_spoken_on_both_sides() {
    let listener = TcpListener::bind("[::1]:0").await.unwrap();
    let lines = Tcp { listener: "address = \"[::1]:0\"", ..Tcp::default() };
    let gateway = lines.start(&[listener.local_addr().unwrap()]).await;
    let mut client = TcpStream::connect(gateway.address("db")).await.unwrap();
    let (mut endpoint, _) = within("the endpoint", listener.accept()).await.unwrap();
    client.write_all(b"six").await.unwrap();
    let mut read = [0; 3];
    within("bytes", endpoint.read_exact(&mut read)).await.unwrap();
    assert_eq!(&read, b"six");
}

#[tokio::test]
async fn a_tunnel_closes_when_nothing_moves_and_is_counted() {
    let origin = ManualOrigin::start().await;
    let lines = Tcp { listener: "timeouts.idle = \"300ms\"", ..Tcp::default() };
    let gateway = lines.start(&[origin.address()]).await;
    let (mut client, mut endpoint) = tunnel(&origin, &gateway).await;
    client.expect_closed().await;
    endpoint.expect_closed().await;
    wait_failure(&gateway, "idle-timeout").await;
}

#[tokio::test]
async fn an_endpoint_that_cannot_be_reached_is_passed_over() {
    let origin = ManualOrigin::start().await;
    let nobody = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let gateway = Tcp::default().start(&[nobody, origin.address()]).await;
    for _ in 0..4 {
        let (mut client, mut endpoint) = tunnel(&origin, &gateway).await;
        client.send("x").await;
        endpoint.expect("x").await;
    }
    let failed = gateway.metric("sluice_upstream_attempts_total", &["result=\"connect-failed\""]).await;
    assert!(failed > 0.0);
    assert_eq!(failures(&gateway, "connect-failed").await, 0.0);
    assert_eq!(gateway.metric("sluice_upstream_retries_total", &[]).await, failed);
}

#[tokio::test]
async fn a_connection_that_finds_no_endpoint_is_closed_and_counted() {
    let nobody = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let gateway = Tcp::default().start(&[nobody]).await;
    Wire::refused_by(gateway.address("db")).await;
    wait_failure(&gateway, "connect-failed").await;
    let elsewhere = Tcp { matches: "source = [\"192.0.2.0/24\"]", ..Tcp::default() };
    assert_eq!(gateway.reload(&elsewhere.document(&[nobody])).await.status, 200);
    Wire::refused_by(gateway.address("db")).await;
    wait_failure(&gateway, "no-route").await;
}

#[tokio::test]
async fn places_are_limited_and_their_queue_too() {
    let origin = ManualOrigin::start().await;
    let lines =
        Tcp { upstream: "pool = { max_connections = 1, queue_timeout = \"100ms\" }", ..Tcp::default() };
    let gateway = lines.start(&[origin.address()]).await;
    let (client, mut endpoint) = tunnel(&origin, &gateway).await;
    Wire::refused_by(gateway.address("db")).await;
    wait_failure(&gateway, "overloaded").await;
    drop(client);
    endpoint.expect_closed().await;
    drop(endpoint);
    let (mut client, mut endpoint) = tunnel(&origin, &gateway).await;
    client.send("x").await;
    endpoint.expect("x").await;
}

#[tokio::test]
async fn a_reload_keeps_tunnels_and_new_connections_take_the_new_way() {
    let (old, new) = (ManualOrigin::start().await, ManualOrigin::start().await);
    let gateway = Tcp::default().start(&[old.address()]).await;
    let (mut client, mut endpoint) = tunnel(&old, &gateway).await;
    assert_eq!(gateway.reload(&Tcp::default().document(&[new.address()])).await.status, 200);
    client.send("on").await;
    endpoint.expect("on").await.send("and on").await;
    client.expect("and on").await;
    let (mut client, mut endpoint) = tunnel(&new, &gateway).await;
    client.send("x").await;
    endpoint.expect("x").await;
}

#[tokio::test]
async fn requests_and_connections_never_take_each_others_routes() {
    let (web, db) = (Origin::start(Reply::ok("web")).await, ManualOrigin::start().await);
    let more = format!(
        "[listeners.web]\naddress = \"127.0.0.1:0\"\n\n\
         [[routes]]\nname = \"web\"\nmatch = {{ path_prefix = \"/web\" }}\nforward = {{ upstream = \"web\" }}\n\n\
         [[routes]]\nname = \"any\"\npriority = 9\nmatch = {{ hosts = [\"*.example\"] }}\n\
         forward = {{ upstream = \"web\" }}\n\n\
         [upstreams.web]\nendpoints = [\"{}\"]\n",
        web.address()
    );
    let gateway = Tcp { more: &more, ..Tcp::default() }.start(&[db.address()]).await;
    assert_eq!(http::get(gateway.address("web"), "/web").await.text(), "web");
    assert_eq!(http::get(gateway.address("web"), "/other").await.code(), "no-route");
    let (mut client, mut endpoint) = tunnel(&db, &gateway).await;
    client.send("GET /web HTTP/1.1\r\nHost: a.example\r\n\r\n").await;
    endpoint.expect("GET /web HTTP/1.1\r\nHost: a.example\r\n\r\n").await;
    assert_eq!(web.count(), 1);
}

#[tokio::test]
async fn a_drain_does_not_wait_for_a_tunnel_beyond_its_deadline() {
    let origin = ManualOrigin::start().await;
    let lines = Tcp { process: "drain_timeout = \"300ms\"", ..Tcp::default() };
    let mut gateway = lines.start(&[origin.address()]).await;
    let (mut client, mut endpoint) = tunnel(&origin, &gateway).await;
    gateway.signal(Signal::Term).await;
    client.send("still").await;
    endpoint.expect("still").await;
    gateway.wait_exit().await;
    client.expect_closed().await;
    endpoint.expect_closed().await;
}

type Certificate = rustls::pki_types::CertificateDer<'static>;

/// A TLS server that sends its name and closes.
struct Named {
    address: SocketAddr,
    certificate: Certificate,
}

/// A TLS connection that asks for `name` and trusts this certificate.
async fn secured(
    gateway: SocketAddr,
    name: &'static str,
    certificate: &Certificate,
) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate.clone()).unwrap();
    let config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    connector.connect(name.try_into().unwrap(), TcpStream::connect(gateway).await?).await
}

impl Named {
    async fn start(name: &'static str) -> Named {
        let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        let certificate = made.cert.der().clone();
        let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let config = rustls::ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.clone()], key)
            .unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                tokio::spawn(say(acceptor.accept(stream), name));
            }
        });
        Named { address, certificate }
    }

    /// What a client that asks for `name`, and trusts this server's certificate, is told.
    async fn ask(&self, gateway: SocketAddr, name: &'static str) -> std::io::Result<String> {
        let mut tls = secured(gateway, name, &self.certificate).await?;
        let mut told = String::new();
        tls.read_to_string(&mut told).await?;
        Ok(told)
    }
}

#[tokio::test]
async fn tls_passes_through_to_the_endpoint_of_its_server_name() {
    let (one, two) = (Named::start("one.example").await, Named::start("b.two.example").await);
    let plain = ManualOrigin::start().await;
    let more = format!(
        "[[routes]]\nname = \"one\"\nmatch = {{ listeners = [\"db\"], sni = [\"one.example\"] }}\n\
         forward = {{ upstream = \"one\" }}\n\n\
         [[routes]]\nname = \"two\"\nmatch = {{ listeners = [\"db\"], sni = [\"*.two.example\"] }}\n\
         forward = {{ upstream = \"two\" }}\n\n\
         [upstreams.one]\nendpoints = [\"{}\"]\n\n[upstreams.two]\nendpoints = [\"{}\"]\n",
        one.address, two.address
    );
    let lines = Tcp { more: &more, listener: "timeouts.head = \"300ms\"", ..Tcp::default() };
    let gateway = lines.start(&[plain.address()]).await;
    let address = gateway.address("db");
    assert_eq!(within("one", one.ask(address, "one.example")).await.unwrap(), "one.example");
    assert_eq!(within("two", two.ask(address, "b.two.example")).await.unwrap(), "b.two.example");
    let mut client = Wire::connect(address).await;
    client.send("not TLS").await;
    let mut endpoint = plain.accept().await;
    endpoint.expect("not TLS").await;
    // A route asks for a name, so the client's first bytes are waited for, but not for ever.
    Wire::refused_by(address).await;
    wait_failure(&gateway, "client-timeout").await;
}

#[tokio::test]
async fn tls_ends_at_a_listener_that_has_a_certificate() {
    let made = rcgen::generate_simple_self_signed(["db.example".to_owned()]).unwrap();
    let files = Scratch::new();
    let chain = files.write("chain.pem", made.cert.pem());
    let key = files.write("key.pem", made.signing_key.serialize_pem());
    let (named, other) = (ManualOrigin::start().await, ManualOrigin::start().await);
    let more = format!(
        "[certificates.db]\nchain = \"{}\"\nkey = \"{}\"\n\n\
         [[routes]]\nname = \"named\"\nmatch = {{ listeners = [\"db\"], sni = [\"db.example\"] }}\n\
         forward = {{ upstream = \"named\" }}\n\n[upstreams.named]\nendpoints = [\"{}\"]\n",
        chain.display(),
        key.display(),
        named.address()
    );
    let lines = Tcp { listener: "tls = { certificates = [\"db\"] }", more: &more, ..Tcp::default() };
    let gateway = lines.start(&[other.address()]).await;
    let certificate = made.cert.der().clone();
    let connecting = secured(gateway.address("db"), "db.example", &certificate);
    let mut client = within("the handshake", connecting).await.unwrap();
    let mut endpoint = named.accept().await;
    endpoint.send("greeting").await;
    let mut read = [0; 8];
    within("bytes", client.read_exact(&mut read)).await.unwrap();
    assert_eq!(&read, b"greeting");
    client.write_all(b"in plain").await.unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(endpoint.read_to_end().await, b"in plain");
    endpoint.send("answer").await;
    drop(endpoint);
    let mut rest = Vec::new();
    within("the end", client.read_to_end(&mut rest)).await.unwrap();
    assert_eq!(rest, b"answer");
    Wire::connect(gateway.address("db")).await.send("no TLS").await.expect_closed().await;
}

mod with_peers {
    use sluice_testkit::{Peer, Program};

    use super::*;

    /// What a client program says when it has asked through the gateway.
    async fn said(program: &str, arguments: &str, gateway: &Gateway, more: &[&str]) -> String {
        let port = gateway.address("db").port().to_string();
        let arguments = arguments.split(' ').chain([port.as_str()]).chain(more.iter().copied());
        let ended = Program::at(program).arguments(arguments).finish().await;
        assert_eq!(ended.code(), 0, "{}", ended.stderr);
        ended.stdout.trim().to_owned()
    }

    #[tokio::test]
    async fn a_redis_client_is_served() {
        let redis = Peer::redis().await;
        let gateway = Tcp::default().start(&[redis.address()]).await;
        let value = "v".repeat(100_000);
        let client = "-h 127.0.0.1 -p";
        assert_eq!(said("redis-cli", client, &gateway, &["set", "key", &value]).await, "OK");
        assert_eq!(said("redis-cli", client, &gateway, &["get", "key"]).await, value);
    }

    #[tokio::test]
    async fn a_mariadb_client_is_served_by_a_server_that_speaks_first() {
        let mariadb = Peer::mariadb().await;
        let gateway = Tcp::default().start(&[mariadb.address()]).await;
        let client = "--no-defaults --protocol=tcp --skip-ssl -h 127.0.0.1 -N -P";
        let asked = ["-e", "select 6 * 7, length(repeat('x', 1000000))"];
        assert_eq!(said("mariadb", client, &gateway, &asked).await, "42\t1000000");
    }
}

/// Says its name to who has shaken hands, and closes.
async fn say(handshake: tokio_rustls::Accept<TcpStream>, name: &'static str) {
    if let Ok(mut tls) = handshake.await {
        let _ = tls.write_all(name.as_bytes()).await;
        let _ = tls.shutdown().await;
    }
}

/// A client that is reset: before it has noticed that it is connected, or after.
pub(crate) async fn turned_away(gateway: &Gateway) {
    let Ok(mut client) = within("a connection", TcpStream::connect(gateway.address("db"))).await else {
        return;
    };
    let ended = within("its end", client.read(&mut [0])).await;
    assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
}

#[tokio::test]
async fn a_route_lets_in_by_address_and_others_are_reset() {
    let origin = ManualOrigin::start().await;
    let document = Tcp::default().document(&[origin.address()]);
    let only = |allow: &str| {
        let filters = format!("filters = [{{ ip_access = {{ allow = [\"{allow}\"] }} }}]\nforward = {{ up");
        document.replace("forward = { up", &filters)
    };
    let gateway = Gateway::start(&only("127.0.0.2")).await;
    turned_away(&gateway).await;
    wait_failure(&gateway, "forbidden").await;
    let mut allowed = Wire::connect_from([127, 0, 0, 2].into(), gateway.address("db")).await;
    let mut endpoint = origin.accept().await;
    // Who is inside stays when the list changes.
    assert_eq!(gateway.reload(&only("127.0.0.1")).await.status, 200);
    allowed.send("still here").await;
    endpoint.expect("still here").await;
    let (mut client, mut endpoint) = tunnel(&origin, &gateway).await;
    client.send("now me").await;
    endpoint.expect("now me").await;
}
