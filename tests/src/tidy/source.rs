//! Rules about one source file: its length, its opening, its depth, its name, what it may not say.

use std::path::Path;

use super::{assert_none, excepted, read, sources};

/// Lines of a file without its tests at which review starts, and at which the build stops.
const LINES: usize = 600;
/// Folders below a crate's `src`, the file not counted.
const DEPTH: usize = 4;
const BANNED_NAMES: &[&str] = &[
    "utils", "util", "common", "helper", "helpers", "manager", "handler", "data", "info", "process", "misc",
];

/// Lines before the unit tests at the end of the file.
fn code_lines(text: &str) -> usize {
    text.lines().take_while(|line| line.trim_end() != "#[cfg(test)]").count()
}

fn is_tests(file: &Path) -> bool {
    file.components().any(|part| part.as_os_str() == "tests") || file.ends_with("tests.rs")
}

#[test]
fn files_are_short_without_their_tests() {
    let mut found = Vec::new();
    for file in sources().iter().filter(|file| !is_tests(file) && !excepted(file, "lines")) {
        let lines = code_lines(&read(file));
        if lines > LINES {
            found.push(format!("{}: {lines} lines, stop at {LINES}", file.display()));
        }
    }
    assert_none("a file is one subject", &found);
}

#[test]
fn every_file_says_first_what_it_is() {
    let bare = |text: &str| !text.starts_with("//! ");
    let found: Vec<_> = sources()
        .iter()
        .filter(|file| !excepted(file, "opening") && bare(&read(file)))
        .map(|file| file.display().to_string())
        .collect();
    assert_none("every file opens with `//!`: what it is and what it promises", &found);
}

#[test]
fn folders_are_at_most_four_deep() {
    let depth = |file: &Path| {
        let below = file.components().skip_while(|part| part.as_os_str() != "src").count();
        below.saturating_sub(2)
    };
    let deep = sources().into_iter().filter(|file| depth(file) > DEPTH && !excepted(file, "depth"));
    assert_none(
        "at most four folders below src",
        &deep.map(|file| file.display().to_string()).collect::<Vec<_>>(),
    );
}

#[test]
fn names_say_what_a_file_is_about() {
    let banned = |file: &Path| {
        file.components().any(|part| {
            let part = part.as_os_str().to_string_lossy();
            let stem = part.strip_suffix(".rs").unwrap_or(&part);
            BANNED_NAMES.contains(&stem) || stem.ends_with("_main")
        })
    };
    let found: Vec<_> = sources()
        .into_iter()
        .filter(|file| banned(file) && !excepted(file, "name"))
        .map(|file| file.display().to_string())
        .collect();
    assert_none("these names fit everything, so they say nothing (docs/vocabulary.md)", &found);
}

#[test]
fn lints_are_not_silenced_without_a_reason() {
    let mut found = Vec::new();
    for file in sources() {
        let text = read(&file);
        // Spelled in two parts, so that this file does not find itself.
        for opening in [concat!("#[", "allow("), concat!("#![", "allow("), concat!("#[", "expect(")] {
            for (at, _) in text.match_indices(opening) {
                let attribute = &text[at..];
                let end = attribute.find(")]").unwrap_or(attribute.len());
                if !attribute[..end].contains("reason = ") {
                    let line = text[..at].lines().count() + 1;
                    found.push(format!("{}:{line}", file.display()));
                }
            }
        }
    }
    assert_none("an allowed lint needs a reason", &found);
}

#[test]
fn counting_stops_where_the_tests_begin() {
    assert_eq!(code_lines("//! x\nfn a() {}\n#[cfg(test)]\nmod tests {}\n"), 2);
}
