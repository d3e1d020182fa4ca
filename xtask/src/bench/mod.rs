//! `cargo xtask bench`: Sluice beside nginx and HAProxy with equal jobs, and the micro-benchmarks.
//!
//! Promise: one worker each, pinned to core 0; the origin and the load on core 1; the proxies take turns in
//! one run, so that a slow minute of the machine slows all of them; medians over the rounds; everything that
//! was started is stopped, also after a failure.

mod certificate;
mod compare;
mod counted;
mod filters;
mod h2load;
mod http;
mod http1;
mod http2;
mod idle;
mod processor;
mod servers;
mod tcp;
mod tcp_ends;
mod tls;
mod tunnel;
mod wrk;

use compare::Options;

use crate::Failed;
use crate::packages::{how_to_install, install_missing};
use crate::step::{cargo, none_left, number, option, run as run_step};

pub(crate) use tcp::NGINX_STREAM;

const NAMES: &str = "h1, h2, tls, tcp, filters, tunnel, idle, routes or balance";

pub(crate) fn run(arguments: &[&str]) -> Result<(), Failed> {
    let (what, rest) = arguments.split_first().ok_or_else(|| format!("bench what? {NAMES}"))?;
    let mut rest = rest.to_vec();
    match *what {
        "h1" => http1::run(&comparison(&mut rest)?),
        "h2" => http2::run(&comparison(&mut rest)?),
        "tls" => tls::run(&comparison(&mut rest)?),
        "tcp" => tcp::run(&comparison(&mut rest)?),
        "filters" => filters::run(&comparison(&mut rest)?),
        "tunnel" => tunnel::run(&comparison(&mut rest)?),
        "idle" => {
            let connections = number(&mut rest, "--connections", 10_000)?;
            none_left(&rest)?;
            prepare(None)?;
            idle::run(connections)
        }
        // The far ends of benchmarks, in processes of their own: on another core, with other limits.
        "idle-client" => idle::client(&rest),
        "tcp-origin" => tcp_ends::origin(&rest),
        "tcp-client" => tcp_ends::client(&rest),
        "tunnel-origin" => tunnel::origin(&rest),
        "routes" => example("sluice-proxy", "bench_routes", &rest),
        "balance" => example("sluice-traffic", "bench_balance", &rest),
        other => Err(format!("no benchmark {other:?}; there are {NAMES}")),
    }
}

/// Reads the options of a comparison of proxies and makes ready for it.
fn comparison(rest: &mut Vec<&str>) -> Result<Options, Failed> {
    let options = Options {
        seconds: number(rest, "--seconds", 5)?,
        rounds: number(rest, "--rounds", 5)?,
        connections: match number(rest, "--connections", 0)? {
            0 => None,
            connections => Some(connections),
        },
        only: option(rest, "--only")?.map(String::from),
        without: option(rest, "--without")?.map(String::from),
    };
    none_left(rest)?;
    prepare(options.without.as_deref())?;
    Ok(options)
}

fn prepare(without: Option<&str>) -> Result<(), Failed> {
    let missing = install_missing();
    if !missing.is_empty() {
        return Err(how_to_install(&missing));
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    if cores < 2 {
        return Err("a comparison needs two cores: one for the proxy, one for the origin and the load".into());
    }
    match without {
        Some("sluice") => Ok(()),
        _ => run_step(&mut cargo(["build", "--locked", "--release", "--package", "sluice"])),
    }
}

fn example(package: &str, name: &str, arguments: &[&str]) -> Result<(), Failed> {
    let run = ["run", "--locked", "--quiet", "--release", "--package", package, "--example", name, "--"];
    run_step(cargo(run).args(arguments))
}
