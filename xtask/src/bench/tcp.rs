//! `bench tcp`: bytes through proxies that do not look at them, and the connections themselves.
//!
//! HAProxy stands here twice, because nobody would choose the slower of its two ways: with read and write, and
//! with splice(2).

use std::process::Command;

use super::compare::{Options, Scenario, Unit, chosen, compare};
use super::counted;
use super::servers::{Folder, Plan, Server, Servers, free_port};
use super::tcp_ends::{Ask, ask};
use crate::Failed;
use crate::step::output;

/// Connections of the load, when `--connections` says nothing else.
const CONNECTIONS: usize = 16;

const SCENARIOS: &[Scenario<Ask>] = &[
    Scenario {
        name: "download",
        about: "the origin sends as fast as it can",
        unit: Unit::Mebibyte,
        load: Ask::Download,
    },
    Scenario {
        name: "upload",
        about: "the clients send as fast as they can",
        unit: Unit::Mebibyte,
        load: Ask::Upload,
    },
    Scenario {
        name: "connection",
        about: "a connection for one byte each way",
        unit: Unit::Connection,
        load: Ask::Echo,
    },
];

/// Where Debian's package puts what makes nginx a TCP proxy.
pub(crate) const NGINX_STREAM: &str = "/usr/lib/nginx/modules/ngx_stream_module.so";

pub(super) fn run(options: &Options) -> Result<(), Failed> {
    let scenarios = chosen(SCENARIOS, options)?;
    let servers = start(options.without.as_deref())?;
    compare(&scenarios, options, &servers.proxies, |ask, proxy, seconds| {
        let mut command = Command::new("taskset");
        command.args(["-c", "1"]).arg(ourselves()?).args(["bench", "tcp-client", ask.word()]);
        command.args([
            proxy.port.to_string(),
            options.connections.unwrap_or(CONNECTIONS).to_string(),
            seconds.to_string(),
        ]);
        counted::read(&output(&mut command)?)
    })
}

fn start(without: Option<&str>) -> Result<Servers, Failed> {
    let folder = Folder::new()?;
    let (origin, nginx, haproxy, splice, sluice) =
        (free_port()?, free_port()?, free_port()?, free_port()?, free_port()?);
    let arguments = vec!["bench".into(), "tcp-origin".into(), origin.to_string()];
    let plan = Plan { name: "origin", core: 1, port: origin, program: ourselves()?, arguments };
    let plans = vec![
        Plan::nginx("nginx", (0, nginx), &folder, &nginx_block(nginx, origin))?,
        Plan::haproxy("haproxy", haproxy, &folder, &haproxy_document(haproxy, origin, ""))?,
        Plan::haproxy(
            "haproxy-splice",
            splice,
            &folder,
            &haproxy_document(splice, origin, "  option splice-auto\n"),
        )?,
        Plan::sluice(sluice, &folder, &sluice_document(sluice, origin))?,
    ];
    Servers::start(folder, &plan, (plans, without), check_job)
}

fn ourselves() -> Result<std::path::PathBuf, Failed> {
    std::env::current_exe().map_err(|error| format!("where are we? {error}"))
}

fn nginx_block(port: u16, origin: u16) -> String {
    format!(
        "load_module {NGINX_STREAM};\nstream {{\n  access_log off;\n  server {{\n    \
         listen 127.0.0.1:{port} backlog=4096;\n    proxy_pass 127.0.0.1:{origin};\n    proxy_half_close on;\n  }}\n}}\n"
    )
}

fn haproxy_document(port: u16, origin: u16, option: &str) -> String {
    format!(
        "global\n  nbthread 1\n  maxconn 18000\n  no strict-limits\n\
         defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 600s\n  timeout server 600s\n{option}\
         frontend raw\n  bind 127.0.0.1:{port} backlog 4096\n  default_backend sink\n\
         backend sink\n  server sink 127.0.0.1:{origin}\n"
    )
}

fn sluice_document(port: u16, origin: u16) -> String {
    format!(
        "[process]\nworkers = 1\n\n[listeners.raw]\naddress = \"127.0.0.1:{port}\"\nprotocol = \"tcp\"\n\n\
         [[routes]]\nname = \"raw\"\nmatch = {{ listeners = [\"raw\"] }}\nforward = {{ upstream = \"sink\" }}\n\n\
         [upstreams.sink]\nendpoints = [\"127.0.0.1:{origin}\"]\n"
    )
}

/// Fails unless bytes go both ways and the end of one direction does not end the other.
fn check_job(proxy: &Server) -> Result<(), Failed> {
    for one in [Ask::Echo, Ask::Upload] {
        ask(one, proxy.port, std::time::Instant::now())
            .map_err(|error| format!("no {} through port {}: {error}", one.word(), proxy.port))?;
    }
    Ok(())
}
