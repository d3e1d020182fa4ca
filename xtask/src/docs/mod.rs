//! `cargo xtask docs`: the pages that are made from the program: what it accepts and how it can fail.
//!
//! Promise: with `--check` nothing is written, and a stale page fails with its name.

mod reference;

use std::path::Path;
use std::process::Command;

use crate::Failed;
use crate::step::{built, cargo, flag, none_left, output, root, run as run_step};

pub(crate) fn run(arguments: &[&str]) -> Result<(), Failed> {
    let mut rest = arguments.to_vec();
    let check = flag(&mut rest, "--check");
    none_left(&rest)?;
    run_step(&mut cargo(["build", "--locked", "--workspace"]))?;
    let mut stale = Vec::new();
    for (file, text) in pages()? {
        let path = root().join(file);
        let same = std::fs::read_to_string(&path).is_ok_and(|written| written == text);
        match (same, check) {
            (true, _) => {}
            (false, true) => stale.push(file),
            (false, false) => write(&path, &text)?,
        }
    }
    match stale.is_empty() {
        true => Ok(()),
        false => Err(format!("stale: {}; run `cargo xtask docs` and commit", stale.join(", "))),
    }
}

/// Every generated page with its text.
fn pages() -> Result<[(&'static str, String); 3], Failed> {
    let said = |arguments: &[&str]| {
        output(Command::new(built("debug", "sluice")).args(arguments).current_dir(root()))
    };
    let schema = said(&["config", "schema"])?;
    let parsed = serde_json::from_str(&schema).map_err(|error| format!("the schema is not JSON: {error}"))?;
    Ok([
        ("docs/configuration.md", reference::page(&parsed)),
        ("docs/failures.md", said(&["docs", "failures"])?),
        ("docs/sluice.schema.json", schema),
    ])
}

fn write(path: &Path, text: &str) -> Result<(), Failed> {
    std::fs::write(path, text).map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    println!("wrote {}", path.display());
    Ok(())
}
