//! `bench h1`: HTTP/1 in and out.

use super::compare::{Options, Scenario, Unit, chosen, compare};
use super::http::{Listen, start};
use super::wrk::{Drive, drive};
use crate::Failed;

/// Connections of the load, when `--connections` says nothing else.
const CONNECTIONS: usize = 64;

struct Load {
    path: &'static str,
    close: bool,
}

const SCENARIOS: &[Scenario<Load>] = &[
    Scenario {
        name: "h1",
        about: "keep-alive GET on 64 connections, 100 B answers",
        unit: Unit::Request,
        load: Load { path: "/", close: false },
    },
    Scenario {
        name: "large",
        about: "keep-alive GET on 64 connections, 1 MiB answers",
        unit: Unit::Mebibyte,
        load: Load { path: "/large", close: false },
    },
    Scenario {
        name: "connection",
        about: "one connection per request",
        unit: Unit::Request,
        load: Load { path: "/", close: true },
    },
];

pub(super) fn run(options: &Options) -> Result<(), Failed> {
    let scenarios = chosen(SCENARIOS, options)?;
    let servers = start(Listen::Http1, options.without.as_deref())?;
    compare(&scenarios, options, &servers.proxies, |load, proxy, seconds| {
        let url = Listen::Http1.url(proxy, load.path);
        drive(Drive {
            url: &url,
            connections: options.connections.unwrap_or(CONNECTIONS),
            seconds,
            close: load.close,
            field: None,
        })
    })
}
