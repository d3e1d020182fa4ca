//! `bench h2`: HTTP/2 in by prior knowledge (h2c), HTTP/1 keep-alive out.

use super::compare::{Options, Scenario, Unit, chosen, compare};
use super::h2load::{Drive, drive};
use super::http::{Listen, start};
use crate::Failed;

struct Load {
    path: &'static str,
    /// Connections, when `--connections` says nothing else.
    connections: usize,
    /// Requests in flight on each connection.
    streams: usize,
    unit: Unit,
}

const SCENARIOS: &[Scenario<Load>] = &[
    Scenario {
        name: "h2",
        about: "8 connections with 32 streams each, GET, 100 B answers",
        unit: Unit::Request,
        load: Load { path: "/", connections: 8, streams: 32, unit: Unit::Request },
    },
    Scenario {
        name: "clients",
        about: "64 connections with 10 streams each, GET, 100 B answers",
        unit: Unit::Request,
        load: Load { path: "/", connections: 64, streams: 10, unit: Unit::Request },
    },
    Scenario {
        name: "large",
        about: "8 connections with 8 streams each, GET, 1 MiB answers",
        unit: Unit::Mebibyte,
        load: Load { path: "/large", connections: 8, streams: 8, unit: Unit::Mebibyte },
    },
];

pub(super) fn run(options: &Options) -> Result<(), Failed> {
    let scenarios = chosen(SCENARIOS, options)?;
    let servers = start(Listen::Http2, options.without.as_deref())?;
    compare(&scenarios, options, &servers.proxies, |load, proxy, seconds| {
        let url = Listen::Http2.url(proxy, load.path);
        let Load { connections, streams, unit, .. } = *load;
        let connections = options.connections.unwrap_or(connections);
        drive(Drive { url: &url, connections, streams, seconds, unit })
    })
}
