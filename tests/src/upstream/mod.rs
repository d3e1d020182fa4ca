//! Upstreams at the socket: which endpoint gets which request, and what an endpoint that misbehaves costs.
//!
//! Origins answer with their letter ("A", "B", ...), so that a string of answers shows who served what.

mod affinity;
mod balance;
mod breaker;
mod endpoints;
mod health;
mod outage;
mod pool;
mod retry;
mod timeouts;

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use sluice_testkit::{Answer, Gateway, Origin, Reply, Script, Wire, eventually, http};

/// The letter of the origin at this position.
fn letter(at: usize) -> String {
    char::from(b'A' + at as u8).to_string()
}

/// Origins that answer with their letters.
async fn lettered<const N: usize>() -> [Origin; N] {
    let mut origins = Vec::new();
    for at in 0..N {
        origins.push(Origin::start(Reply::ok(letter(at))).await);
    }
    origins.try_into().unwrap()
}

/// Answers with the letter, and to `/healthz` with this.
fn checked(letter: &str, health: Reply) -> Script {
    let letter = letter.to_owned();
    Script::each(move |request| match request.target.as_str() {
        "/healthz" => health.clone(),
        _ => Reply::ok(letter.as_str()),
    })
}

/// A check by GET /healthz, often, with these keys besides. It takes its time: on a busy machine a check that
/// is late must not count as a failure.
fn http_check(keys: &str) -> String {
    let timeout = if keys.contains("timeout") { "" } else { ", timeout = \"10s\"" };
    format!("health = {{ http = {{ path = \"/healthz\", every = \"20ms\"{timeout}{keys} }} }}")
}

/// An endpoint with more keys, as a document writes it: `weight = 3`.
fn endpoint(origin: &Origin, keys: &str) -> String {
    let comma = if keys.is_empty() { "" } else { ", " };
    format!("{{ address = \"{}\"{comma}{keys} }}", origin.address())
}

/// A document with one upstream, `app`, that takes every request.
#[derive(Clone)]
struct App {
    endpoints: Vec<String>,
    upstream: String,
    forward: String,
    rest: String,
}

impl App {
    /// With these endpoints.
    fn of<'a>(origins: impl IntoIterator<Item = &'a Origin>) -> App {
        App::with(origins.into_iter().map(|origin| endpoint(origin, "")))
    }

    /// With endpoints as a document writes them.
    fn with(endpoints: impl IntoIterator<Item = String>) -> App {
        let (upstream, forward, rest) = Default::default();
        App { endpoints: endpoints.into_iter().collect(), upstream, forward, rest }
    }

    /// Adds lines to the upstream's table.
    fn upstream(mut self, lines: &str) -> App {
        self.upstream.push_str(lines);
        self.upstream.push('\n');
        self
    }

    /// Adds keys to the forward action.
    fn forward(mut self, keys: &str) -> App {
        self.forward.push_str(", ");
        self.forward.push_str(keys);
        self
    }

    /// Adds tables to the document.
    fn rest(mut self, tables: &str) -> App {
        self.rest.push_str(tables);
        self.rest.push('\n');
        self
    }

    fn text(&self) -> String {
        format!(
            "[process]\nworkers = 1\nadmin = {{ address = \"127.0.0.1:0\" }}\n\n\
             [listeners.web]\naddress = \"127.0.0.1:0\"\n\n\
             [[routes]]\nname = \"all\"\nmatch = {{ path_prefix = \"/\" }}\n\
             forward = {{ upstream = \"app\"{} }}\n\n\
             [upstreams.app]\nendpoints = [{}]\n{}\n{}",
            self.forward,
            self.endpoints.join(", "),
            self.upstream,
            self.rest
        )
    }

    async fn start(&self) -> Gateway {
        Gateway::start(&self.text()).await
    }

    /// Makes it what the gateway runs.
    async fn replace(&self, gateway: &Gateway) {
        let reloaded = gateway.reload(&self.text()).await;
        assert_eq!(reloaded.status, 200, "{}", reloaded.body);
    }
}

/// A client that keeps its connection.
struct Client {
    wire: Wire,
    address: SocketAddr,
}

impl Client {
    async fn of(gateway: &Gateway) -> Client {
        let address = gateway.address("web");
        Client { wire: Wire::connect(address).await, address }
    }

    async fn from(source: IpAddr, gateway: &Gateway) -> Client {
        let address = gateway.address("web");
        Client { wire: Wire::connect_from(source, address).await, address }
    }

    /// Sends a GET and does not wait for its answer.
    async fn send(&mut self, target: &str) {
        self.wire.send(http::request_bytes(self.address, "GET", target, &[], b"")).await;
    }

    async fn get(&mut self, target: &str, fields: &[(&str, &str)]) -> Answer {
        self.wire.send(http::request_bytes(self.address, "GET", target, fields, b"")).await;
        self.wire.answer().await
    }

    async fn post(&mut self, body: &str) -> Answer {
        self.wire.send(http::request_bytes(self.address, "POST", "/", &[], body.as_bytes())).await;
        self.wire.answer().await
    }

    /// The letter that serves this.
    async fn letter(&mut self, target: &str, fields: &[(&str, &str)]) -> String {
        let answer = self.get(target, fields).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.text()
    }

    /// The letters that serve so many requests, in their order.
    async fn letters(&mut self, count: usize) -> String {
        let mut letters = String::new();
        for _ in 0..count {
            letters.push_str(&self.letter("/", &[]).await);
        }
        letters
    }
}

/// The letters that serve so many requests, in their order.
async fn letters(gateway: &Gateway, count: usize) -> String {
    Client::of(gateway).await.letters(count).await
}

/// How often a letter stands among these.
fn share(letters: &str, letter: char) -> usize {
    letters.chars().filter(|c| *c == letter).count()
}

/// Every letter that is among these, once.
fn set(letters: &str) -> String {
    letters.chars().collect::<BTreeSet<_>>().into_iter().collect()
}

/// Waits until exactly these letters serve.
async fn wait_served_by(gateway: &Gateway, expected: &str) {
    let mut client = Client::of(gateway).await;
    eventually(&format!("only {expected} serving"), async || {
        (set(&client.letters(12).await) == expected).then_some(())
    })
    .await;
}

/// Waits until the latest word on an origin's health is this one.
async fn wait_health(gateway: &Gateway, origin: &Origin, state: &str) {
    let (about, state) = (format!(" endpoint={} ", origin.address()), format!(" state={state} "));
    eventually(&format!("{about}{state}"), async || {
        let said = gateway.stderr();
        let mut changes =
            said.lines().filter(|line| line.contains("health changed") && line.contains(&about));
        changes.next_back().is_some_and(|line| line.contains(&state)).then_some(())
    })
    .await;
}

/// The access log's lines, when there are so many: `[access_log]` with the path "access.log".
async fn logged(gateway: &Gateway, count: usize) -> Vec<serde_json::Value> {
    let path = gateway.scratch().file("access.log");
    eventually(&format!("{count} lines in the access log"), async || {
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        let lines: Vec<_> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        (lines.len() >= count).then_some(lines)
    })
    .await
}

/// An access log that `logged` reads.
const LOG: &str = "[access_log]\npath = \"access.log\"";
