//! The house rules, as tests: sizes, places, names, directions, and the pages that must exist.
//!
//! Promise: every failure names the file and the rule, all of them at once. A deviation is allowed when it
//! stands in `EXCEPTIONS` with its reason.

mod direction;
mod pages;
mod source;

use std::fs;
use std::path::{Path, PathBuf};

/// A file that may break a rule, and why.
struct Exception {
    file: &'static str,
    rule: &'static str,
    reason: &'static str,
}

/// At most ten.
const EXCEPTIONS: &[Exception] = &[];

/// The workspace's root.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// Every file under `folder` with this extension, as a path from the root, sorted.
fn files(folder: &str, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![root().join(folder)];
    while let Some(folder) = open.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for path in entries.map(|entry| entry.unwrap().path()) {
            let hidden_or_built =
                path.file_name().is_some_and(|name| name == "target" || name == "node_modules");
            if path.is_dir() && !hidden_or_built {
                open.push(path);
            } else if path.extension().is_some_and(|found| found == extension) {
                found.push(path.strip_prefix(root()).unwrap().to_owned());
            }
        }
    }
    found.sort();
    found
}

fn read(file: impl AsRef<Path>) -> String {
    let path = root().join(file);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()))
}

/// Every Rust file we wrote.
fn sources() -> Vec<PathBuf> {
    ["crates", "xtask", "tests", "fuzz"].iter().flat_map(|folder| files(folder, "rs")).collect()
}

fn excepted(file: &Path, rule: &str) -> bool {
    EXCEPTIONS.iter().any(|exception| Path::new(exception.file) == file && exception.rule == rule)
}

/// Fails with all of them, one in a line.
fn assert_none(rule: &str, found: &[String]) {
    assert!(found.is_empty(), "{rule}:\n  {}", found.join("\n  "));
}

#[test]
fn exceptions_are_few_reasoned_and_still_there() {
    assert!(EXCEPTIONS.len() <= 10, "more than ten exceptions: the rule is wrong, or the code is");
    for exception in EXCEPTIONS {
        assert!(exception.reason.len() > 20, "{}: an exception needs a reason", exception.file);
        assert!(root().join(exception.file).exists(), "{}: the exception outlived its file", exception.file);
    }
}
