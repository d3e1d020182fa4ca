//! Every command a person or CI runs: `cargo xtask test | ci | bench | docs | fuzz`.
//!
//! Promise: std and a JSON reader only, so that it builds in seconds on a bare machine; what it does is printed
//! before it is done; what it cannot do is said loudly and fails, never skipped in silence.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a command speaks to its terminal, and measures and waits in real time"
)]

mod bench;
mod ci;
mod docs;
mod fuzz;
mod packages;
mod step;
mod test;

use std::process::ExitCode;

/// Why a command ended badly: a sentence for the terminal.
type Failed = String;

const USAGE: &str = "\
cargo xtask COMMAND

  test [--without-peers] [FILTER...]   build, then every test; installs Debian packages tests need when it can
  ci [--lints]                         test, then the lints; --lints: the lints alone
  docs [--check]                       write the generated pages, or fail when they are stale
  fuzz [--seconds N] [TARGET...]       run every fuzz target, or these, for N seconds each (default 30)
  bench h1  [--only h1|large|connection]
  bench h2  [--only h2|large]          HTTP/2 in the clear
  bench tls [--only handshake|resume|keepalive]
  bench tcp [--only download|upload|connection]
            [--seconds N] [--rounds N] [--connections N] [--without PROXY]
                                       nginx, HAProxy and Sluice with equal jobs, loaded in turn
  bench filters [--only ROW] [--seconds N] [--rounds N] [--connections N]
                                       what each filter adds to a request, in CPU
  bench tunnel [--only requests|idle|bulk] [--seconds N] [--rounds N] [--connections N]
                                       reverse tunnels beside plain proxying; fails when a bar is missed
  bench idle [--connections N]         memory of idle keep-alive connections
  bench routes | balance               micro-benchmarks of route lookup and endpoint choice
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words.split_first() {
        Some((&"test", rest)) => test::run(rest),
        Some((&"ci", rest)) => ci::run(rest),
        Some((&"docs", rest)) => docs::run(rest),
        Some((&"fuzz", rest)) => fuzz::run(rest),
        Some((&"bench", rest)) => bench::run(rest),
        Some((&("help" | "--help" | "-h"), _)) => {
            print!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        _ => {
            eprint!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failed) => {
            eprintln!("xtask: {failed}");
            ExitCode::FAILURE
        }
    }
}
