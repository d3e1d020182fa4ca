//! `cargo xtask fuzz`: every fuzz target for a while, over its committed corpus.

use std::process::Command;

use crate::Failed;
use crate::step::{find, number, output, root, run as run_step};

pub(crate) fn run(arguments: &[&str]) -> Result<(), Failed> {
    let mut wanted = arguments.to_vec();
    let seconds = number(&mut wanted, "--seconds", 30)?;
    let targets = targets()?;
    if let Some(unknown) = wanted.iter().find(|name| !targets.iter().any(|target| target == *name)) {
        return Err(format!("no fuzz target {unknown:?}; there are: {}", targets.join(" ")));
    }
    ready()?;
    for target in targets.iter().filter(|target| wanted.is_empty() || wanted.contains(&target.as_str())) {
        let limit = format!("-max_total_time={seconds}");
        // Through rustup's cargo: the one that runs us is of the stable toolchain.
        let mut fuzz = Command::new("cargo");
        fuzz.args(["+nightly", "fuzz", "run", target, "--", &limit]).current_dir(root());
        fuzz.env_remove("CARGO").env_remove("RUSTUP_TOOLCHAIN");
        run_step(&mut fuzz)?;
    }
    Ok(())
}

fn targets() -> Result<Vec<String>, Failed> {
    let folder = root().join("fuzz/fuzz_targets");
    let files = std::fs::read_dir(&folder)
        .map_err(|error| format!("no fuzz targets in {}: {error}", folder.display()))?;
    let mut names: Vec<String> = files
        .filter_map(|file| file.ok()?.file_name().into_string().ok()?.strip_suffix(".rs").map(String::from))
        .collect();
    names.sort();
    Ok(names)
}

fn ready() -> Result<(), Failed> {
    let explain = "fuzzing needs a nightly toolchain and cargo-fuzz:\n       \
                   rustup toolchain install nightly && cargo install cargo-fuzz";
    if find("cargo-fuzz").is_none() {
        return Err(explain.into());
    }
    let toolchains = output(Command::new("rustup").args(["toolchain", "list"]))?;
    match toolchains.lines().any(|line| line.starts_with("nightly")) {
        true => Ok(()),
        false => Err(explain.into()),
    }
}
