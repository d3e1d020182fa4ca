//! Memory of many tunnels that carry nothing now. Each of 3.0 has carried requests before.

use super::super::compare::Options;
use super::super::processor::resident;
use super::super::wrk::{Drive, drive};
use super::{Bar, Tunnelled, Version, requests, wait_open};
use crate::Failed;

/// Tunnels of each version.
const TUNNELS: usize = 10_000;
/// MiB for all of them, at most.
const MOST: f64 = 100.0;
/// Times that all tunnels of 3.0 are used before memory is looked at.
const USES: f64 = 2.0;

pub(super) fn run(_: &Options) -> Result<Vec<Bar>, Failed> {
    let mut lines = vec![
        format!("\nidle: the gateway's memory with {TUNNELS} tunnels, all of which were used"),
        format!(
            "  {:<12} {:>12} {:>12} {:>12} {:>12}",
            "version", "before KiB", "open KiB", "used KiB", "KiB/tunnel"
        ),
    ];
    let mut bars = Vec::new();
    for version in Version::ALL {
        let before = {
            let alone = Tunnelled::start(requests::nginx, &[])?;
            resident(alone.gateway().id())
        };
        let tunnelled = Tunnelled::start(requests::nginx, &[(version, TUNNELS)])?;
        let open = resident(tunnelled.gateway().id());
        use_all(&tunnelled, version)?;
        let after = resident(tunnelled.gateway().id());
        let all = after.max(open).saturating_sub(before) as f64;
        let name = version.number();
        lines
            .push(format!("  {name:<12} {before:>12} {open:>12} {after:>12} {:>12.2}", all / TUNNELS as f64));
        bars.push(Bar {
            what: format!("tunnel {name}: {TUNNELS} idle ones, in MiB"),
            figure: all / 1024.0,
            most: MOST,
        });
    }
    println!("{}", lines.join("\n"));
    Ok(bars)
}

/// Requests until every tunnel has carried some; then they are idle again.
fn use_all(tunnelled: &Tunnelled, version: Version) -> Result<(), Failed> {
    let url = tunnelled.url(version.route());
    let mut count = 0.0;
    while count < USES * TUNNELS as f64 {
        let how = Drive { url: &url, connections: 16, seconds: 1, close: false, field: None };
        let answered = drive(how)?;
        if answered.errors > 0.0 {
            return Err(format!("{} of {} requests failed", answered.errors, answered.count));
        }
        count += answered.count;
    }
    tunnelled.connectors().iter().try_for_each(|connector| wait_open(connector, TUNNELS))
}
