//! Debian packages with the real servers and clients that tests and benchmarks run.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::Failed;
use crate::step::{cargo, find, output, run};

/// A program and the package it comes from.
struct Need {
    /// Found by name as a command is, or by its whole path: modules of Python and nginx are files, and the
    /// Python that Debian's modules belong to need not be the one that comes first in PATH.
    program: &'static str,
    package: &'static str,
}

const NEEDS: &[Need] = &[
    Need { program: "nginx", package: "nginx-light" },
    Need { program: crate::bench::NGINX_STREAM, package: "libnginx-mod-stream" },
    Need { program: "haproxy", package: "haproxy" },
    Need { program: "wrk", package: "wrk" },
    Need { program: "h2load", package: "nghttp2-client" },
    Need { program: "nghttp", package: "nghttp2-client" },
    Need { program: "curl", package: "curl" },
    Need { program: "openssl", package: "openssl" },
    Need { program: "git", package: "git" },
    Need { program: "ip", package: "iproute2" },
    Need { program: "/usr/bin/python3", package: "python3" },
    Need { program: "/usr/lib/python3/dist-packages/pip/__init__.py", package: "python3-pip" },
    Need { program: "/usr/lib/python3/dist-packages/websockets/__init__.py", package: "python3-websockets" },
    Need { program: "redis-server", package: "redis-server" },
    Need { program: "redis-cli", package: "redis-tools" },
    // The -core packages: the programs alone, without a database or a service of the system's own.
    Need { program: "mariadbd", package: "mariadb-server-core" },
    Need { program: "mariadb", package: "mariadb-client-core" },
];

/// Packages of PyPI that tests run: a connector of tunnels, and what it forgets to ask for.
const PYTHON: &[&str] = &["crank4py-connector==0.0.5", "six==1.17.0"];

/// Asked by Debian's packages before they start a daemon (invoke-rc.d(8)): 101 forbids it.
const POLICY: &str = "/usr/sbin/policy-rc.d";

/// Installs what is missing when we may; the names of the programs that are still missing afterwards.
pub(crate) fn install_missing() -> Vec<&'static str> {
    let missing = missing();
    if missing.is_empty() {
        return Vec::new();
    }
    let packages = packages(missing.into_iter());
    if let Err(failed) = install(&packages) {
        eprintln!("xtask: CANNOT INSTALL {}: {failed}", packages.join(" "));
    }
    self::missing().iter().map(|need| need.program).collect()
}

/// Installs the packages of PyPI into this folder, unless they are there.
pub(crate) fn install_python(folder: &Path) -> Result<(), Failed> {
    if folder.exists() {
        return Ok(());
    }
    // Whole or not at all.
    let beside = folder.with_added_extension("new");
    let mut pip = Command::new("/usr/bin/python3");
    pip.args(["-m", "pip", "--isolated", "--disable-pip-version-check", "install", "--quiet", "--upgrade"]);
    run(pip.arg("--target").arg(&beside).args(PYTHON))?;
    fs::rename(&beside, folder).map_err(|error| format!("cannot write {}: {error}", folder.display()))
}

/// Builds the router of crates.io that tests run into this folder; about a minute on two cores, once.
pub(crate) fn build_router(folder: &Path) -> Result<(), Failed> {
    let manifest = ["build", "--locked", "--quiet", "--manifest-path", "tests/peers/scr-router/Cargo.toml"];
    run(cargo(manifest).arg("--target-dir").arg(folder))
}

/// The sentence for programs that are missing.
pub(crate) fn how_to_install(programs: &[&str]) -> String {
    let packages = packages(NEEDS.iter().filter(|need| programs.contains(&need.program)));
    format!(
        "missing programs: {}\n       on Debian: apt-get install --no-install-recommends {}",
        programs.join(" "),
        packages.join(" ")
    )
}

/// The packages of these, each once.
fn packages<'a>(needs: impl Iterator<Item = &'a Need>) -> Vec<&'static str> {
    let mut packages: Vec<_> = needs.map(|need| need.package).collect();
    packages.dedup();
    packages
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
    let _policy = NoDaemons::new()?;
    run(apt(&["install", "-y", "--no-install-recommends"]).args(packages))
}

fn apt(arguments: &[&str]) -> Command {
    let mut command = Command::new("apt-get");
    command.arg("-qq").args(arguments).stdin(Stdio::null()).stdout(Stdio::null());
    command.env("DEBIAN_FRONTEND", "noninteractive");
    command
}

/// While it lives no package starts a daemon.
struct NoDaemons;

impl NoDaemons {
    /// None when the machine has a policy of its own: that one stays as it is.
    fn new() -> Result<Option<NoDaemons>, Failed> {
        let sentence = |error| format!("cannot write {POLICY}: {error}");
        let mut file = match OpenOptions::new().write(true).create_new(true).mode(0o755).open(POLICY) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::AlreadyExists => return Ok(None),
            Err(error) => return Err(sentence(error)),
        };
        let ours = NoDaemons;
        file.write_all(b"#!/bin/sh\nexit 101\n").map_err(sentence)?;
        Ok(Some(ours))
    }
}

impl Drop for NoDaemons {
    fn drop(&mut self) {
        let _ = fs::remove_file(POLICY);
    }
}
