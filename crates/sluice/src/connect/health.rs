//! The health endpoint of a connector: `GET /health` answers with JSON what every service's tunnels are doing, 200
//! when each service is published somewhere, 503 when one is not or the connector is ending.
//!
//! Promise: a slow or greedy client costs a bounded amount of memory for a bounded time, and never delays a tunnel.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use serde_json::{Value, json};
use sluice_http::h1::{self, Framing, Limits, Persist, Scanner};
use sluice_http::{NameId, RequestHead, ResponseHead, Version};
use sluice_tunnel::connector::{Handle, Report, RouterState};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::published::is_open;
use super::target::Counts;

/// Clients at a time.
const CLIENTS: usize = 32;
/// For a client to ask and to take its answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// After accepting failed.
const PAUSE: Duration = Duration::from_millis(100);
const LIMITS: Limits = Limits { line: 1024, head: 8 * 1024, fields: 64 };

/// A service as it is shown.
pub(super) struct Shown {
    pub(super) name: String,
    pub(super) route: String,
    pub(super) domain: String,
    pub(super) target: String,
    pub(super) handle: Handle,
    pub(super) counts: Rc<Counts>,
}

/// All that is shown.
#[derive(Default)]
pub(super) struct Health {
    services: RefCell<Vec<Shown>>,
    is_draining: Cell<bool>,
}

impl Health {
    /// From now on these are shown.
    pub(super) fn show(&self, services: Vec<Shown>) {
        self.services.replace(services);
    }

    /// From now on the connector is ending.
    pub(super) fn drain(&self) {
        self.is_draining.set(true);
    }

    /// What is shown, and whether all is well.
    fn look(&self) -> (bool, Value) {
        let mut is_published = true;
        let services: serde_json::Map<String, Value> = self
            .services
            .borrow()
            .iter()
            .map(|service| {
                let routers = service.handle.routers();
                is_published &= routers.iter().any(is_open);
                (service.name.clone(), service.look(&routers))
            })
            .collect();
        let status = match (self.is_draining.get(), is_published) {
            (true, _) => "draining",
            (false, true) => "up",
            (false, false) => "down",
        };
        let shown = json!({ "status": status, "version": env!("CARGO_PKG_VERSION"), "services": services });
        (status == "up", shown)
    }
}

impl Shown {
    fn look(&self, routers: &[Report]) -> Value {
        let router = |report: &Report| {
            json!({
                "address": report.address.to_string(),
                "state": match report.state {
                    RouterState::Active => "active",
                    RouterState::Stopping => "stopping",
                },
                "tunnels": { "idle": report.idle, "used": report.busy },
                "failures": report.failures,
                "last_error": report.last_error,
            })
        };
        json!({
            "route": self.route,
            "domain": self.domain,
            "target": self.target,
            "requests": {
                "running": self.counts.running.get(),
                "total": self.counts.total.get(),
                "target_failed": self.counts.failed.get(),
                "cancelled": self.counts.cancelled.get(),
            },
            "routers": routers.iter().map(router).collect::<Vec<_>>(),
        })
    }
}

/// Answers for ever.
pub(super) async fn serve(listener: TcpListener, health: Rc<Health>) {
    let clients = Arc::new(Semaphore::new(CLIENTS));
    loop {
        let Ok(place) = Arc::clone(&clients).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let health = Rc::clone(&health);
                drop(tokio::task::spawn_local(async move {
                    // A client that left is nobody's business.
                    let _ = tokio::time::timeout(PATIENCE, answer(stream, &health)).await;
                    drop(place);
                }));
            }
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

async fn answer(mut stream: TcpStream, health: &Health) -> io::Result<()> {
    let (mut buf, mut scanner) = (BytesMut::with_capacity(1024), Scanner::default());
    let length = loop {
        match scanner.scan(&buf, &LIMITS) {
            Ok(Some(length)) => break Some(length),
            Ok(None) => {}
            Err(_) => break None,
        }
        if stream.read_buf(&mut buf).await? == 0 {
            return Ok(());
        }
    };
    let head = length.and_then(|length| h1::request(buf.split_to(length).freeze(), &LIMITS).ok());
    let out = match head {
        Some((head, _)) => reply(&head, health),
        None => written(400, "", true),
    };
    stream.write_all(&out).await?;
    stream.shutdown().await
}

fn reply(head: &RequestHead, health: &Health) -> Vec<u8> {
    let with_content = match head.method_text() {
        "GET" => true,
        "HEAD" => false,
        _ => return written(405, "", true),
    };
    if head.path() != "/health" {
        return written(404, "", with_content);
    }
    let (is_well, shown) = health.look();
    written(if is_well { 200 } else { 503 }, &format!("{shown:#}\n"), with_content)
}

/// A whole answer.
fn written(status: u16, content: &str, with_content: bool) -> Vec<u8> {
    let mut head = ResponseHead::new(status);
    if !content.is_empty() {
        head.fields.append(NameId::ContentType, b"application/json");
    }
    head.fields.append(NameId::CacheControl, b"no-store");
    if status == 405 {
        head.fields.append(NameId::Allow, b"GET, HEAD");
    }
    let mut out = Vec::with_capacity(256 + content.len());
    let framing = Framing::Length(content.len() as u64);
    h1::response_head(&head, framing, Version::Http11, Persist::Close, &mut out);
    if with_content {
        out.extend_from_slice(content.as_bytes());
    }
    out
}
