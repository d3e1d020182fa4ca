//! A gigabyte each way through a tunnel: what arrives is what was sent, and memory stays what it was.

use std::time::Instant;

use super::super::compare::Options;
use super::super::processor::{peak, used};
use super::super::servers::{Folder, Plan, Server};
use super::bulk_ends::{download, upload};
use super::{Bar, Tunnelled, Version};
use crate::Failed;

/// Bytes each way, and before that to get everything to its working size.
const BYTES: u64 = 1 << 30;
const FIRST: u64 = 64 << 20;
/// MiB that the highest memory may grow by while they pass.
const MOST: f64 = 4.0;

type Transfer = fn(u16, &str, u64) -> std::io::Result<()>;

const WAYS: [(&str, Transfer); 2] = [("up", upload), ("down", download)];

pub(super) fn run(_: &Options) -> Result<Vec<Bar>, Failed> {
    let mut lines = vec![
        format!("\nbulk: {} MiB each way in one request each, compared at the other end", BYTES >> 20),
        format!(
            "  {:<12} {:<6} {:>9} {:>18} {:>22} {:>24}",
            "version", "way", "MB/s", "gateway CPU us/MiB", "gateway peak KiB, +", "connector peak KiB, +"
        ),
    ];
    let mut bars = Vec::new();
    for version in Version::ALL {
        let tunnelled = Tunnelled::start(plan, &[(version, 2)])?;
        for (_, transfer) in WAYS {
            pass(&tunnelled, version, (transfer, FIRST))?;
        }
        for way in WAYS {
            let (line, grown) = measure(&tunnelled, version, way)?;
            lines.push(line);
            for (name, grown) in grown {
                let what =
                    format!("tunnel {}, 1 GiB {}: growth of the {name}, in MiB", version.number(), way.0);
                bars.push(Bar { what, figure: grown as f64 / 1024.0, most: MOST });
            }
        }
    }
    println!("{}", lines.join("\n"));
    Ok(bars)
}

/// By how many KiB the highest memory of each process has grown.
type Grown = Vec<(&'static str, u64)>;

/// One way: its line, and by how many KiB the highest memory of each process has grown.
fn measure(
    tunnelled: &Tunnelled,
    version: Version,
    (name, transfer): (&str, Transfer),
) -> Result<(String, Grown), Failed> {
    let gateway = tunnelled.gateway();
    let processes: Vec<(&'static str, &Server)> = std::iter::once(("gateway", gateway))
        .chain(tunnelled.connectors().iter().map(|connector| ("connector", connector)))
        .collect();
    let before: Vec<u64> = processes.iter().map(|(_, process)| peak(process.id())).collect();
    let (spent, start) = (used(gateway.id()), Instant::now());
    pass(tunnelled, version, (transfer, BYTES))?;
    let (took, spent) = (start.elapsed().as_secs_f64(), used(gateway.id()) - spent);
    let after: Vec<u64> = processes.iter().map(|(_, process)| peak(process.id())).collect();
    let grown: Vec<u64> =
        after.iter().zip(&before).map(|(after, before)| after.saturating_sub(*before)).collect();
    let told: Vec<String> =
        after.iter().zip(&grown).map(|(after, grown)| format!("{after} +{grown}")).collect();
    let line = format!(
        "  {:<12} {name:<6} {:>9.0} {:>18.1} {:>22} {:>24}",
        version.number(),
        BYTES as f64 / 1e6 / took,
        spent.total() / (BYTES >> 20) as f64,
        told[0],
        told[1],
    );
    Ok((line, processes.into_iter().map(|(name, _)| name).zip(grown).collect()))
}

fn pass(tunnelled: &Tunnelled, version: Version, (transfer, bytes): (Transfer, u64)) -> Result<(), Failed> {
    transfer(tunnelled.gateway().port, version.route(), bytes)
        .map_err(|error| format!("{} MiB through {}: {error}", bytes >> 20, version.number()))
}

/// An origin that makes and compares content: this program.
fn plan(port: u16, _: &Folder) -> Result<Plan, Failed> {
    let program = std::env::current_exe().map_err(|error| format!("where are we? {error}"))?;
    let arguments = ["bench", "tunnel-origin", &port.to_string()].map(String::from).to_vec();
    Ok(Plan { name: "origin", core: 1, port, program, arguments })
}
