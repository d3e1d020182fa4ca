//! `bench tls`: HTTP/1 over TLS in, HTTP/1 keep-alive in the clear out.

use std::process::Command;

use super::certificate;
use super::compare::{Answered, Options, Scenario, Unit, chosen, compare};
use super::http::{Listen, start};
use super::servers::Server;
use super::wrk::{self, Drive};
use crate::Failed;
use crate::step::{built, cargo, output, run as run_step};

/// Connections of the load, when `--connections` says nothing else.
const CONNECTIONS: usize = 32;

enum Load {
    /// A new connection for each request: what a handshake costs. The word is for the load generator.
    Handshake(&'static str),
    KeepAlive,
}

const SCENARIOS: &[Scenario<Load>] = &[
    Scenario {
        name: "handshake",
        about: "full TLS 1.3 handshakes (X25519, ECDSA P-256), one request each",
        unit: Unit::Handshake,
        load: Load::Handshake("full"),
    },
    Scenario {
        name: "resume",
        about: "resumed TLS 1.3 handshakes (X25519), one request each",
        unit: Unit::Handshake,
        load: Load::Handshake("resumed"),
    },
    Scenario {
        name: "keepalive",
        about: "HTTPS keep-alive GET on 32 connections, 100 B answers",
        unit: Unit::Request,
        load: Load::KeepAlive,
    },
];

/// The load generator that makes handshakes and knows what kind they were: see its file in crates/testkit.
const HANDSHAKES: &str = "handshakes";

pub(super) fn run(options: &Options) -> Result<(), Failed> {
    let scenarios = chosen(SCENARIOS, options)?;
    run_step(&mut cargo(["build", "--locked", "--package", "sluice-testkit", "--example", HANDSHAKES]))?;
    let servers = start(Listen::Tls, options.without.as_deref())?;
    let chain = certificate::chain(&servers.folder);
    compare(&scenarios, options, &servers.proxies, |load, proxy, seconds| match load {
        Load::Handshake(kind) => {
            handshakes(proxy, &chain, (kind, options.connections.unwrap_or(CONNECTIONS), seconds))
        }
        Load::KeepAlive => {
            let url = Listen::Tls.url(proxy, "/");
            wrk::drive(Drive {
                url: &url,
                connections: options.connections.unwrap_or(CONNECTIONS),
                seconds,
                close: false,
                field: None,
            })
        }
    })
}

/// Runs the load generator on core 1.
fn handshakes(
    proxy: &Server,
    chain: &str,
    (kind, connections, seconds): (&str, usize, usize),
) -> Result<Answered, Failed> {
    let mut command = Command::new("taskset");
    command.args(["-c", "1"]).arg(built("debug", &format!("examples/{HANDSHAKES}")));
    command.args([kind, &proxy.port.to_string(), chain]);
    command.args([connections.to_string(), seconds.to_string()]);
    super::counted::read(&output(&mut command)?)
}
