//! `cargo xtask bench`: Sluice beside nginx and HAProxy with equal jobs, and the micro-benchmarks.
//!
//! Promise: one worker each, pinned to core 0; the origin and the load on core 1; the proxies take turns in
//! one run, so that a slow minute of the machine slows all of them; medians over the rounds; everything that
//! was started is stopped, also after a failure.

mod http1;
mod idle;
mod processor;
mod servers;
mod wrk;

use crate::Failed;
use crate::packages::{how_to_install, install_missing};
use crate::step::{cargo, none_left, number, option, run as run_step};

pub(crate) fn run(arguments: &[&str]) -> Result<(), Failed> {
    let (what, rest) = arguments.split_first().ok_or("bench what? h1, idle, routes or balance")?;
    let mut rest = rest.to_vec();
    match *what {
        "h1" => {
            let options = http1::Options {
                seconds: number(&mut rest, "--seconds", 5)?,
                rounds: number(&mut rest, "--rounds", 5)?,
                connections: number(&mut rest, "--connections", 64)?,
                only: option(&mut rest, "--only")?.map(String::from),
            };
            none_left(&rest)?;
            prepare()?;
            http1::run(&options)
        }
        "idle" => {
            let connections = number(&mut rest, "--connections", 10_000)?;
            none_left(&rest)?;
            prepare()?;
            idle::run(connections)
        }
        // The far end of `idle`, in a process of its own with a higher limit on open files.
        "idle-client" => idle::client(&rest),
        "routes" => example("sluice-proxy", "bench_routes", &rest),
        "balance" => example("sluice-traffic", "bench_balance", &rest),
        other => Err(format!("no benchmark {other:?}; there are h1, idle, routes and balance")),
    }
}

fn prepare() -> Result<(), Failed> {
    let missing = install_missing();
    if !missing.is_empty() {
        return Err(how_to_install(&missing));
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    if cores < 2 {
        return Err("a comparison needs two cores: one for the proxy, one for the origin and the load".into());
    }
    run_step(&mut cargo(["build", "--locked", "--release", "--package", "sluice"]))
}

fn example(package: &str, name: &str, arguments: &[&str]) -> Result<(), Failed> {
    let run = ["run", "--locked", "--quiet", "--release", "--package", package, "--example", name, "--"];
    run_step(cargo(run).args(arguments))
}
