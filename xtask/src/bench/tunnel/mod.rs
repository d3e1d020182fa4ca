//! `bench tunnel`: what a request through a reverse tunnel costs the gateway beside one that it proxies plainly, what
//! idle tunnels cost in memory, and what a long stream does.
//!
//! The gateway stands alone on core 0. The connector is `sluice connect`, a process of its own on core 1, so that its
//! work is not counted. Every figure has a bar; one that is missed fails the command.

mod bulk;
mod bulk_ends;
mod idle;
mod requests;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::{Duration, Instant};

use super::compare::Options;
use super::servers::{Folder, Plan, Server, Servers, free_port};
use crate::Failed;
use crate::step::built;

pub(super) use bulk_ends::origin;

/// How long a connector may take to open its tunnels.
const OPEN: Duration = Duration::from_secs(120);

/// What is measured, in this order, with what it is called in `--only`.
const PARTS: &[(&str, Part)] = &[("requests", requests::run), ("idle", idle::run), ("bulk", bulk::run)];

type Part = fn(&Options) -> Result<Vec<Bar>, Failed>;

/// A figure and how large it may be.
struct Bar {
    what: String,
    figure: f64,
    most: f64,
}

pub(super) fn run(options: &Options) -> Result<(), Failed> {
    let wanted = |name: &str| options.only.as_deref().is_none_or(|only| only == name);
    let parts: Vec<_> = PARTS.iter().filter(|(name, _)| wanted(name)).collect();
    if parts.is_empty() {
        let names: Vec<_> = PARTS.iter().map(|(name, _)| *name).collect();
        return Err(format!("--only takes one of: {}", names.join(", ")));
    }
    let mut bars = Vec::new();
    for (_, part) in parts {
        bars.extend(part(options)?);
    }
    println!("\nbars");
    for Bar { what, figure, most } in &bars {
        let word = if figure <= most { "held" } else { "MISSED" };
        println!("  {what:<60} {figure:>9.3}  at most {most:>7.1}  {word}");
    }
    match bars.iter().filter(|bar| bar.figure > bar.most).count() {
        0 => Ok(()),
        missed => Err(format!("{missed} of {} bars missed", bars.len())),
    }
}

/// A version of the tunnels, and the route its connector registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    V3,
    V1,
}

impl Version {
    const ALL: [Version; 2] = [Version::V3, Version::V1];

    fn number(self) -> &'static str {
        match self {
            Version::V3 => "3.0",
            Version::V1 => "1.0",
        }
    }

    fn route(self) -> &'static str {
        match self {
            Version::V3 => "v3",
            Version::V1 => "v1",
        }
    }

    fn connector(self) -> &'static str {
        match self {
            Version::V3 => "connector of 3.0",
            Version::V1 => "connector of 1.0",
        }
    }
}

/// A gateway and connectors of some versions before one origin.
struct Tunnelled {
    servers: Servers,
}

impl Drop for Tunnelled {
    /// The connectors first: then they go in good order, and say nothing about a gateway that is gone.
    fn drop(&mut self) {
        while self.servers.proxies.pop().is_some() {}
    }
}

impl Tunnelled {
    /// Starts them; `origin` makes the plan of one at that port. Each connector has so many tunnels open.
    fn start(
        origin: impl Fn(u16, &Folder) -> Result<Plan, Failed>,
        versions: &[(Version, usize)],
    ) -> Result<Tunnelled, Failed> {
        let folder = Folder::new()?;
        let (target, web, tunnels) = (free_port()?, free_port()?, free_port()?);
        let origin = origin(target, &folder)?;
        let mut plans = vec![Plan::sluice(web, &folder, &document(web, tunnels, target))?];
        for (version, window) in versions {
            plans.push(connector((*version, *window), (tunnels, target), &folder)?);
        }
        let windows: Vec<usize> = versions.iter().map(|(_, window)| *window).collect();
        let servers = Servers::start(folder, &origin, (plans, None), |_| Ok(()))?;
        for (connector, window) in servers.proxies[1..].iter().zip(windows) {
            wait_open(connector, window)?;
        }
        Ok(Tunnelled { servers })
    }

    fn gateway(&self) -> &Server {
        &self.servers.proxies[0]
    }

    fn connectors(&self) -> &[Server] {
        &self.servers.proxies[1..]
    }

    /// The URL of a route at the gateway.
    fn url(&self, route: &str) -> String {
        format!("http://127.0.0.1:{}/{route}", self.gateway().port)
    }
}

/// The gateway's document: the plain way and a tunnel of each version to the same origin.
fn document(web: u16, tunnels: u16, origin: u16) -> String {
    let route = |name: &str, upstream: &str| {
        format!(
            "[[routes]]\nname = \"{name}\"\nmatch = {{ path_prefix = \"/{name}\" }}\n\
             forward = {{ upstream = \"{name}\" }}\n\n[upstreams.{name}]\n{upstream}\n\n"
        )
    };
    let ways = Version::ALL.map(|version| {
        let name = version.route();
        route(name, &format!("discovery = {{ tunnel = \"{name}\" }}"))
    });
    format!(
        "[process]\nworkers = 1\n\n[tunnels]\nmax_per_address = 20000\n\n\
         [listeners.web]\naddress = \"127.0.0.1:{web}\"\ntimeouts = {{ idle = \"10m\" }}\n\n\
         [listeners.tunnels]\naddress = \"127.0.0.1:{tunnels}\"\nprotocol = \"tunnel\"\n\n{}{}",
        route("plain", &format!("endpoints = [\"127.0.0.1:{origin}\"]\npool = {{ max_idle = 1024 }}")),
        ways.concat()
    )
}

/// The most that one service's window may be.
const WINDOW: usize = 1000;

/// `sluice connect` on core 1. Its port is that of its health endpoint.
fn connector(
    (version, window): (Version, usize),
    (tunnels, origin): (u16, u16),
    folder: &Folder,
) -> Result<Plan, Failed> {
    let port = free_port()?;
    let text = connector_document((version, window), (tunnels, origin), port);
    let arguments = vec!["connect".into(), folder.write(&format!("{}.toml", version.route()), &text)?];
    Ok(Plan { name: version.connector(), core: 1, port, program: built("release", "sluice"), arguments })
}

/// As many services of one route as the window takes.
fn connector_document(
    (version, window): (Version, usize),
    (tunnels, origin): (u16, u16),
    health: u16,
) -> String {
    let mut text =
        format!("routers = [\"ws://127.0.0.1:{tunnels}\"]\nhealth = \"127.0.0.1:{health}\"\n\n[services]\n");
    let (route, number) = (version.route(), version.number());
    for (index, left) in (0..window).step_by(WINDOW).map(|begun| window - begun).enumerate() {
        text.push_str(&format!(
            "s{index} = {{ route = \"{route}\", target = \"http://127.0.0.1:{origin}\", window = {}, \
             versions = [\"{number}\"] }}\n",
            left.min(WINDOW)
        ));
    }
    text
}

/// Waits until a connector says that so many tunnels are open.
fn wait_open(connector: &Server, window: usize) -> Result<(), Failed> {
    let deadline = Instant::now() + OPEN;
    loop {
        let open = tunnels_of(connector.port).unwrap_or(0);
        if open >= window as u64 {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(format!("the {} has {open} tunnels open, not {window}", connector.name));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Idle tunnels, or all of 3.0, as a connector's health endpoint tells.
fn tunnels_of(port: u16) -> Option<u64> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    stream.write_all(b"GET /health HTTP/1.1\r\nHost: h\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (_, content) = answer.split_once("\r\n\r\n")?;
    open_of(content)
}

fn open_of(content: &str) -> Option<u64> {
    let shown: serde_json::Value = serde_json::from_str(content).ok()?;
    let services = shown["services"].as_object()?;
    let routers = services.values().filter_map(|service| service["routers"].as_array()).flatten();
    // In 3.0 one that was used still counts as open.
    let count = |router: &serde_json::Value| {
        let of = |kind: &str| router["tunnels"][kind].as_u64().unwrap_or(0);
        of("idle") + of("used")
    };
    Some(routers.map(count).sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tunnels_of_all_gateways_are_counted() {
        let text =
            r#"{"services":{"a":{"routers":[{"tunnels":{"idle":2,"used":1}},{"tunnels":{"idle":4}}]}}}"#;
        assert_eq!(open_of(text), Some(7));
        assert_eq!(open_of("{}"), None);
    }

    #[test]
    fn a_large_window_is_that_of_several_services() {
        let text = connector_document((Version::V1, 2_500), (1, 2), 3);
        assert_eq!((text.matches("window = 1000").count(), text.matches("window = 500").count()), (2, 1));
        assert!(text.contains("s2 = { route = \"v1\""), "{text}");
    }

    #[test]
    fn the_document_has_a_way_of_each_kind() {
        let text = document(1, 2, 3);
        for part in ["path_prefix = \"/plain\"", "tunnel = \"v3\"", "tunnel = \"v1\"", "127.0.0.1:3"] {
            assert!(text.contains(part), "{part}");
        }
    }
}
