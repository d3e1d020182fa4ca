//! `cargo xtask test`: build, then every test of the workspace, then one line with the counts.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use crate::Failed;
use crate::packages::{build_router, how_to_install, install_missing, install_python};
use crate::step::{announce, built, cargo, flag, run as run_step};

/// Tests that were counted over all test binaries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    passed: usize,
    failed: usize,
    skipped: usize,
}

pub(crate) fn run(arguments: &[&str]) -> Result<(), Failed> {
    let mut filters = arguments.to_vec();
    let without_peers = flag(&mut filters, "--without-peers");
    let missing = install_missing();
    if !missing.is_empty() {
        eprintln!("xtask: {}", how_to_install(&missing));
        if !without_peers {
            return Err("tests need them; `--without-peers` leaves those tests out and counts them".into());
        }
    }
    if !without_peers {
        // Beside the folder of the profile, where tests look.
        let program = built("debug", "sluice");
        let target = program.ancestors().nth(2).ok_or("the program has no folder")?;
        install_python(&target.join("peers/python"))?;
        build_router(&target.join("peers/scr-router"))?;
    }
    // End-to-end tests run the real program; cargo does not build it for them. The whole workspace, because one
    // package alone would have its dependencies built once more, with fewer features.
    run_step(&mut cargo(["build", "--locked", "--workspace"]))?;
    let mut tests = cargo(["test", "--locked", "--workspace", "--no-fail-fast", "--"]);
    tests.args(&filters).env("SLUICE_BINARY", built("debug", "sluice"));
    if without_peers {
        // Tests that need a real server live in modules of this name.
        tests.args(["--skip", "with_peers::"]);
    }
    // With filters of a person's own, what is left out was not skipped but not asked for.
    let (counts, succeeded) = counted(&mut tests, without_peers && filters.is_empty())?;
    if !succeeded && counts.failed == 0 {
        eprintln!("xtask: cargo failed beside the tests: a build error or a crash, see above");
    }
    println!("{} passed, {} failed, {} skipped", counts.passed, counts.failed, counts.skipped);
    match succeeded && counts.failed == 0 {
        true if counts.passed == 0 => Err("no test ran".into()),
        true => Ok(()),
        false => Err("tests failed".into()),
    }
}

/// Runs the tests with their output passed on, and sums up the result lines.
fn counted(command: &mut Command, left_out_are_skipped: bool) -> Result<(Counts, bool), Failed> {
    announce(command);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| format!("cannot start cargo: {error}"))?;
    let mut counts = Counts::default();
    if let Some(stdout) = child.stdout.take() {
        let mut lines = BufReader::new(stdout);
        let mut line = Vec::new();
        // Bytes, not text: a test may print anything.
        while lines.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
            // A closed terminal must not end the tests half-way.
            let _ = std::io::stdout().write_all(&line);
            counts.add(&String::from_utf8_lossy(&line), left_out_are_skipped);
            line.clear();
        }
    }
    let status = child.wait().map_err(|error| format!("cannot wait for cargo: {error}"))?;
    Ok((counts, status.success()))
}

impl Counts {
    /// Adds `test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 2 filtered out; finished in 0.1s`.
    fn add(&mut self, line: &str, left_out_are_skipped: bool) {
        let Some(rest) = line.strip_prefix("test result: ") else { return };
        let Some((_, counts)) = rest.split_once(". ") else { return };
        for part in counts.split("; ") {
            let mut words = part.trim().splitn(2, ' ');
            let Some(count) = words.next().and_then(|word| word.parse::<usize>().ok()) else { continue };
            match words.next() {
                Some("passed") => self.passed += count,
                Some("failed") => self.failed += count,
                Some("ignored") => self.skipped += count,
                Some("filtered out") if left_out_are_skipped => self.skipped += count,
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn result_lines_are_summed_up() {
        let mut counts = Counts::default();
        counts.add("running 4 tests\n", true);
        counts.add(
            "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 2 filtered out; finished in 0.1s\n",
            true,
        );
        counts.add("test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 9 filtered out; finished in 0s\n", false);
        assert_eq!(counts, Counts { passed: 4, failed: 2, skipped: 3 });
    }
}
