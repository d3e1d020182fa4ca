//! The endpoints over a real socket, with a client that writes bytes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::*;
use crate::server::{Bounds, serve_within};

/// Long enough for a busy machine; no test waits for it when all is well.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Default)]
struct Fake {
    draining: bool,
    problems: Option<Value>,
    reloads: Arc<AtomicU64>,
    /// A reload waits for it when there is one.
    gate: Option<Arc<Notify>>,
}

impl Gateway for Fake {
    fn readiness(&self) -> Readiness {
        let drain = if self.draining { Err("the gateway is draining".to_owned()) } else { Ok(()) };
        Readiness::default().check("configuration", Ok(())).check("drain", drain)
    }

    fn metrics(&self, format: Format) -> String {
        format!("{format:?}\n")
    }

    fn status(&self) -> Value {
        json!({ "version": "0.1.0", "revision": 3 })
    }

    fn reload(&self) -> Reload {
        let (problems, reloads, gate) = (self.problems.clone(), self.reloads.clone(), self.gate.clone());
        Box::pin(async move {
            if let Some(gate) = gate {
                gate.notified().await;
            }
            let revision = reloads.fetch_add(1, Ordering::SeqCst) + 1;
            problems.map_or(Ok(revision), Err)
        })
    }
}

struct Server {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<std::io::Result<()>>,
}

const BOUNDS: Bounds = Bounds { connections: 4, head: PATIENCE, life: PATIENCE, grace: PATIENCE };

impl Server {
    async fn start(gateway: Fake) -> Server {
        Server::bounded(gateway, BOUNDS).await
    }

    #[expect(clippy::disallowed_methods, reason = "a test is not a worker")]
    async fn bounded(gateway: Fake, bounds: Bounds) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let shutdown = async { _ = stopped.await };
        let serving = tokio::spawn(serve_within(listener, Arc::new(gateway), shutdown, bounds));
        Server { address, stop, serving }
    }

    /// Sends a request with Connection: close, and gives everything that comes back.
    async fn ask(&self, request: &str) -> Answer {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let (line, fields) = request.split_once('\n').unwrap_or((request, ""));
        let mut text = format!("{line} HTTP/1.1\r\nConnection: close\r\n");
        if !fields.contains("Host:") {
            text.push_str("Host: 127.0.0.1\r\n");
        }
        fields.lines().for_each(|field| text.push_str(&format!("{field}\r\n")));
        text.push_str("\r\n");
        stream.write_all(text.as_bytes()).await.unwrap();
        read_to_end(&mut stream).await
    }

    async fn stop(self) {
        self.stop.send(()).unwrap();
        timeout(PATIENCE, self.serving).await.expect("the server stops").unwrap().unwrap();
    }
}

struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn of(text: &str) -> Answer {
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((text, ""));
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        Answer { status, head: head.to_ascii_lowercase(), body: body.to_owned() }
    }

    fn has(&self, field: &str) -> bool {
        self.head.lines().any(|line| line == field)
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }
}

async fn read_to_end(stream: &mut TcpStream) -> Answer {
    let mut text = Vec::new();
    // A reset after the answer is an end too.
    _ = timeout(PATIENCE, stream.read_to_end(&mut text)).await.expect("the connection ends");
    Answer::of(&String::from_utf8(text).unwrap())
}

#[tokio::test]
async fn a_ready_gateway_says_ok() {
    let server = Server::start(Fake::default()).await;
    for path in ["/livez", "/readyz", "/healthz"] {
        let answer = server.ask(&format!("GET {path}")).await;
        assert_eq!((answer.status, answer.body.as_str()), (200, "ok\n"), "{path}");
        assert!(
            answer.has("cache-control: no-store") && answer.has("content-type: text/plain; charset=utf-8")
        );
    }
    let answer = server.ask("GET /readyz?verbose").await;
    assert_eq!(answer.body, "[+] configuration: ok\n[+] drain: ok\nok\n");
    let answer = server.ask("HEAD /readyz").await;
    assert_eq!((answer.status, answer.body.as_str()), (200, ""));
    server.stop().await;
}

#[tokio::test]
async fn a_draining_gateway_lives_but_is_not_ready() {
    let server = Server::start(Fake { draining: true, ..Fake::default() }).await;
    assert_eq!(server.ask("GET /livez").await.status, 200);
    let answer = server.ask("GET /readyz").await;
    assert_eq!(
        (answer.status, answer.body.as_str()),
        (503, "[-] drain: the gateway is draining\nnot ready\n")
    );
    let answer = server.ask("GET /healthz?verbose").await;
    assert!(answer.status == 503 && answer.body.starts_with("[+] configuration: ok\n"), "{}", answer.body);
    server.stop().await;
}

#[tokio::test]
async fn metrics_come_in_the_format_that_is_asked_for() {
    let server = Server::start(Fake::default()).await;
    let answer = server.ask("GET /metrics").await;
    assert_eq!((answer.status, answer.body.as_str()), (200, "Text\n"));
    assert!(answer.has("content-type: text/plain; version=0.0.4; charset=utf-8"), "{}", answer.head);
    let answer =
        server.ask("GET /metrics\nAccept: text/plain;q=0.5\nAccept: application/openmetrics-text").await;
    assert_eq!(answer.body, "OpenMetrics\n");
    assert!(answer.has("content-type: application/openmetrics-text; version=1.0.0; charset=utf-8"));
    server.stop().await;
}

#[tokio::test]
async fn status_is_json() {
    let server = Server::start(Fake::default()).await;
    let answer = server.ask("GET /v1/status").await;
    assert_eq!(answer.json(), json!({ "version": "0.1.0", "revision": 3 }));
    assert!(answer.has("content-type: application/json"));
    server.stop().await;
}

#[tokio::test]
async fn a_reload_gives_the_revision_or_the_problems() {
    let server = Server::start(Fake::default()).await;
    let answer = server.ask("POST /v1/reload\nContent-Length: 0").await;
    assert_eq!((answer.status, answer.json()), (200, json!({ "revision": 1 })));
    server.stop().await;
    let problems = json!([{ "at": "routes[0]", "message": "no action" }]);
    let server = Server::start(Fake { problems: Some(problems.clone()), ..Fake::default() }).await;
    let answer = server.ask("POST /v1/reload").await;
    assert_eq!(answer.status, 422);
    assert!(answer.has("content-type: application/problem+json"));
    let body = answer.json();
    assert_eq!((&body["code"], &body["status"]), (&json!("configuration-refused"), &json!(422)));
    assert_eq!(body["problems"], problems);
    server.stop().await;
}

#[tokio::test]
async fn a_reload_goes_on_when_its_client_leaves() {
    let (gate, reloads) = (Arc::new(Notify::new()), Arc::new(AtomicU64::new(0)));
    let fake = Fake { gate: Some(gate.clone()), reloads: reloads.clone(), ..Fake::default() };
    let server = Server::start(fake).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(b"POST /v1/reload HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    // Served on the same thread, a later request proves that the earlier one was read.
    assert_eq!(server.ask("GET /livez").await.status, 200);
    drop(stream);
    server.stop().await;
    gate.notify_one();
    timeout(PATIENCE, async {
        while reloads.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("the reload ends");
}

#[tokio::test]
async fn unknown_paths_and_methods_are_problems() {
    let server = Server::start(Fake::default()).await;
    for path in ["/", "/v1", "/v1/status/", "/metrics/x"] {
        let answer = server.ask(&format!("GET {path}")).await;
        assert_eq!((answer.status, answer.json()["code"].as_str()), (404, Some("not-found")), "{path}");
        assert!(
            answer.has("content-type: application/problem+json") && answer.has("cache-control: no-store")
        );
    }
    for (request, allow) in [("DELETE /metrics", "allow: get,head"), ("GET /v1/reload", "allow: post")] {
        let answer = server.ask(request).await;
        assert_eq!((answer.status, answer.json()["code"].as_str()), (405, Some("method-not-allowed")));
        assert!(answer.has(allow), "{}", answer.head);
    }
    server.stop().await;
}

#[tokio::test]
async fn requests_that_a_web_page_could_send_are_refused() {
    let reloads = Arc::new(AtomicU64::new(0));
    let server = Server::start(Fake { reloads: reloads.clone(), ..Fake::default() }).await;
    for (request, code) in [
        ("GET /metrics\nHost: evil.example", "host-not-allowed"),
        ("POST /v1/reload\nHost: evil.example", "host-not-allowed"),
        ("POST /v1/reload\nSec-Fetch-Site: cross-site", "cross-site"),
        ("POST /v1/reload\nOrigin: https://evil.example", "cross-site"),
    ] {
        let answer = server.ask(request).await;
        assert_eq!((answer.status, answer.json()["code"].as_str()), (403, Some(code)), "{request}");
    }
    assert_eq!(reloads.load(Ordering::SeqCst), 0);
    assert_eq!(server.ask("POST /v1/reload\nSec-Fetch-Site: none").await.status, 200);
    server.stop().await;
}

#[tokio::test]
async fn a_head_that_is_too_large_is_refused() {
    let server = Server::start(Fake::default()).await;
    let answer = server.ask(&format!("GET /livez\nX-Big: {}", "a".repeat(20 << 10))).await;
    assert_eq!(answer.status, 431);
    server.stop().await;
}

#[tokio::test]
async fn a_body_is_never_waited_for() {
    let server = Server::start(Fake::default()).await;
    let answer = server.ask("POST /v1/reload\nContent-Length: 1000000000000").await;
    assert_eq!(answer.status, 200);
    server.stop().await;
}

#[tokio::test]
async fn clients_that_send_nothing_make_room_for_others() {
    let bounds = Bounds { connections: 2, head: Duration::from_millis(50), ..BOUNDS };
    let server = Server::bounded(Fake::default(), bounds).await;
    let mut silent = Vec::new();
    for started in [&b""[..], b"GET /livez HT"] {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(started).await.unwrap();
        silent.push(stream);
    }
    assert_eq!(timeout(PATIENCE, server.ask("GET /livez")).await.expect("room").status, 200);
    for mut stream in silent {
        assert_ne!(read_to_end(&mut stream).await.status, 200);
    }
    server.stop().await;
}

#[tokio::test]
async fn a_connection_ends_after_its_life() {
    let bounds = Bounds { life: Duration::from_millis(50), ..BOUNDS };
    let server = Server::bounded(Fake::default(), bounds).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    assert_eq!(read_to_end(&mut stream).await.status, 0);
    server.stop().await;
}

#[tokio::test]
async fn stopping_closes_idle_connections_and_finishes_answers() {
    let gate = Arc::new(Notify::new());
    let server = Server::start(Fake { gate: Some(gate.clone()), ..Fake::default() }).await;
    let mut idle = TcpStream::connect(server.address).await.unwrap();
    let mut busy = TcpStream::connect(server.address).await.unwrap();
    busy.write_all(b"POST /v1/reload HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    assert_eq!(server.ask("GET /livez").await.status, 200);
    server.stop.send(()).unwrap();
    assert_eq!(read_to_end(&mut idle).await.status, 0);
    gate.notify_one();
    assert_eq!(read_to_end(&mut busy).await.status, 200);
    timeout(PATIENCE, server.serving).await.expect("the server stops").unwrap().unwrap();
}

#[tokio::test]
async fn a_listener_that_others_can_reach_is_refused() {
    let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
    let error = serve(listener, Arc::new(Fake::default()), std::future::pending()).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
}
