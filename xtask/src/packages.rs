//! Debian packages with the real servers and clients that tests and benchmarks run.

use std::process::{Command, Stdio};

use crate::Failed;
use crate::step::{find, output, run};

/// A program and the package it comes from.
struct Need {
    program: &'static str,
    package: &'static str,
}

const NEEDS: &[Need] = &[
    Need { program: "nginx", package: "nginx-light" },
    Need { program: "haproxy", package: "haproxy" },
    Need { program: "wrk", package: "wrk" },
    Need { program: "curl", package: "curl" },
    Need { program: "python3", package: "python3" },
];

/// Installs what is missing when we may; the names of the programs that are still missing afterwards.
pub(crate) fn install_missing() -> Vec<&'static str> {
    let missing = missing();
    if missing.is_empty() {
        return Vec::new();
    }
    let packages: Vec<_> = missing.iter().map(|need| need.package).collect();
    if let Err(failed) = install(&packages) {
        eprintln!("xtask: CANNOT INSTALL {}: {failed}", packages.join(" "));
    }
    self::missing().iter().map(|need| need.program).collect()
}

/// The sentence for programs that are missing.
pub(crate) fn how_to_install(programs: &[&str]) -> String {
    let packages: Vec<_> =
        NEEDS.iter().filter(|need| programs.contains(&need.program)).map(|need| need.package).collect();
    format!(
        "missing programs: {}\n       on Debian: apt-get install --no-install-recommends {}",
        programs.join(" "),
        packages.join(" ")
    )
}

fn missing() -> Vec<&'static Need> {
    NEEDS.iter().filter(|need| find(need.program).is_none()).collect()
}

fn install(packages: &[&str]) -> Result<(), Failed> {
    if find("apt-get").is_none() {
        return Err("there is no apt-get here".into());
    }
    if output(Command::new("id").arg("-u"))?.trim() != "0" {
        return Err("only root may".into());
    }
    run(&mut apt(&["update"]))?;
    run(apt(&["install", "-y", "--no-install-recommends"]).args(packages))
}

fn apt(arguments: &[&str]) -> Command {
    let mut command = Command::new("apt-get");
    command.arg("-qq").args(arguments).stdin(Stdio::null()).stdout(Stdio::null());
    // A run level of 1 keeps the packages from starting daemons of their own.
    command.env("DEBIAN_FRONTEND", "noninteractive").env("RUNLEVEL", "1");
    command
}
