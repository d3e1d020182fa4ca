//! An example's document, made fit for a test: port 0, and an origin of the test's own behind each endpoint.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use sluice_testkit::{Origin, Received, Reply, Script, free_port};
use tokio::net::UdpSocket;
use tokio::task::AbortHandle;
use toml_edit::{DocumentMut, Item, TableLike, Value, value};

/// Endpoints at this port are nobody's: connecting to them fails.
const NOBODY: &str = "127.0.0.1:9";
/// Endpoints at this port always answer 503, as the sample origins do.
const FAILING: &str = "127.0.0.1:9004";

/// The document, and what stands behind it.
pub(super) struct Adapted {
    pub(super) text: String,
    /// Addresses as written, and the listeners that have them.
    pub(super) listeners: BTreeMap<String, String>,
    /// The admin address as written.
    pub(super) admin: Option<String>,
    /// They answer as long as this lives.
    _origins: Vec<Origin>,
    echoes: Vec<AbortHandle>,
}

pub(super) async fn adapt(text: &str) -> Adapted {
    let mut document: DocumentMut = text.parse().unwrap();
    let mut listeners = BTreeMap::new();
    for (name, listener) in tables(document.get_mut("listeners")) {
        let written = listener.insert("address", value("127.0.0.1:0")).unwrap();
        listeners.insert(with_defaults(written.as_str().unwrap()), name);
    }
    let process = document.get_mut("process").and_then(Item::as_table_like_mut);
    let admin = process.and_then(|process| process.get_mut("admin")).map(|admin| {
        let written = admin.as_table_like_mut().unwrap().insert("address", value("127.0.0.1:0"));
        written.unwrap().as_str().unwrap().to_owned()
    });
    let mut origins = Vec::new();
    let mut echoes = Vec::new();
    let datagrams = text.contains("protocol = \"udp\"");
    for (name, upstream) in tables(document.get_mut("upstreams")) {
        // One that is discovered names none.
        let Some(endpoints) = upstream.get_mut("endpoints").and_then(Item::as_array_mut) else { continue };
        for endpoint in endpoints.iter_mut() {
            let address = match endpoint {
                Value::InlineTable(table) => table.get_mut("address").unwrap(),
                address => address,
            };
            let written = address.as_str().unwrap().to_owned();
            *address = if datagrams {
                let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
                let own = socket.local_addr().unwrap().to_string();
                echoes.push(tokio::spawn(echo(socket)).abort_handle());
                own.into()
            } else if written == NOBODY {
                format!("127.0.0.1:{}", free_port()).into()
            } else {
                let origin = Origin::start(origin(name.clone(), written)).await;
                let own = origin.address().to_string();
                origins.push(origin);
                own.into()
            };
        }
    }
    Adapted { text: document.to_string(), listeners, admin, _origins: origins, echoes }
}

/// An address whose variables have their defaults.
fn with_defaults(text: &str) -> String {
    let Some((before, rest)) = text.split_once("${") else { return text.to_owned() };
    let (variable, after) = rest.split_once('}').unwrap();
    let (_, default) = variable.split_once(":-").unwrap();
    format!("{before}{default}{after}")
}

/// A connector's file, made fit as well: it registers at `gateway`. The services behind it live as long as what is
/// given besides, the address of its health endpoint as written.
pub(super) async fn adapt_connector(
    text: &str,
    gateway: SocketAddr,
) -> (String, Vec<Origin>, Option<String>) {
    let mut document: DocumentMut = text.parse().unwrap();
    document["routers"] = value(toml_edit::Array::from_iter([format!("ws://{gateway}")]));
    let health = document.get("health").map(|address| address.as_str().unwrap().to_owned());
    document["health"] = value("127.0.0.1:0");
    let mut origins = Vec::new();
    for (name, service) in tables(document.get_mut("services")) {
        let target =
            service.get("target").unwrap().as_str().unwrap().strip_prefix("http://").unwrap().to_owned();
        let origin = Origin::start(origin(name, target)).await;
        service.insert("target", value(format!("http://{}", origin.address())));
        origins.push(origin);
    }
    (document.to_string(), origins, health)
}

/// Sends every datagram back.
async fn echo(socket: UdpSocket) {
    let mut buffer = [0; 2048];
    while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
        let _ = socket.send_to(&buffer[..length], from).await;
    }
}

impl Drop for Adapted {
    fn drop(&mut self) {
        self.echoes.iter().for_each(AbortHandle::abort);
    }
}

/// What the endpoint `written` of an upstream answers: the request, or as the document's readers know it.
fn origin(upstream: String, written: String) -> Script {
    Script::each(move |request: &Received| {
        let reply = match request.fields.get("upgrade") {
            Some(protocol) => Reply::upgrade(protocol),
            None if written == FAILING => Reply::status(503),
            None => Reply::echo(),
        };
        reply.field("X-Upstream", &upstream).field("X-Endpoint", &written)
    })
}

fn tables(item: Option<&mut Item>) -> Vec<(String, &mut dyn TableLike)> {
    let Some(table) = item.and_then(Item::as_table_like_mut) else { return Vec::new() };
    table.iter_mut().map(|(name, item)| (name.to_string(), item.as_table_like_mut().unwrap())).collect()
}
