//! `cargo xtask ci`: what must be green before a change lands: the tests, then the lints.

use crate::step::{cargo, find, flag, none_left, run as run_step};
use crate::{Failed, docs, test};

pub(crate) fn run(arguments: &[&str]) -> Result<(), Failed> {
    let mut rest = arguments.to_vec();
    let lints_alone = flag(&mut rest, "--lints");
    let without_peers = flag(&mut rest, "--without-peers");
    none_left(&rest)?;
    if !lints_alone {
        test::run(if without_peers { &["--without-peers"] } else { &[] })?;
    }
    lints()
}

fn lints() -> Result<(), Failed> {
    run_step(&mut cargo(["fmt", "--all", "--check"]))?;
    let targets = ["--locked", "--workspace", "--all-targets", "--all-features"];
    run_step(cargo(["clippy"]).args(targets).args(["--", "--deny", "warnings"]))?;
    docs::run(&["--check"])?;
    match find("cargo-deny") {
        Some(_) => run_step(&mut cargo(["deny", "--locked", "check"]))?,
        None => eprintln!(
            "xtask: CARGO-DENY IS NOT INSTALLED: licences, advisories and bans (deny.toml) were not checked"
        ),
    }
    println!("lints passed");
    Ok(())
}
