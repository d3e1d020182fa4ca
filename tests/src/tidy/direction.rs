//! Which crate may know which, and which module of the data plane may import which.

use std::path::{Path, PathBuf};

use super::{assert_none, excepted, files, read, root};

/// A crate of ours and the crates of ours it may depend on: down only.
const CRATES: &[(&str, &[&str])] = &[
    ("sluice", &["sluice-admin", "sluice-proxy", "sluice-tunnel", "sluice-store"]),
    ("sluice-admin", &["sluice-proxy", "sluice-store"]),
    ("sluice-proxy", &["sluice-http", "sluice-tunnel", "sluice-traffic"]),
    ("sluice-http", &[]),
    ("sluice-tunnel", &["sluice-http"]),
    ("sluice-traffic", &[]),
    ("sluice-store", &[]),
    ("sluice-testkit", &[]),
    ("sluice-tests", &["sluice-testkit"]),
    ("xtask", &[]),
];

/// Crates in `crates/`, at most.
const MOST: usize = 8;

/// Crates from outside that only these crates of ours may use.
const RESERVED: &[(&str, &[&str])] = &[
    ("clap", &["sluice"]),
    ("clap_complete", &["sluice"]),
    ("axum", &["sluice-admin"]),
    ("httparse", &["sluice-http"]),
    ("tokio", &["sluice", "sluice-admin", "sluice-proxy", "sluice-tunnel", "sluice-store", "sluice-testkit", "sluice-tests"]),
];

/// Storeys of the data plane from the ground up; a module imports from its own storey's file or from below.
/// Modules of one storey in `SIBLINGS` never import each other.
const STOREYS: &[&[&str]] = &[
    &["value", "problem", "failure", "facts", "exchange", "world", "http", "relay", "template", "expression", "observe"],
    &["upstream"],
    &["filter", "action", "discovery", "health"],
    &["route"],
    &["config"],
    &["snapshot"],
    &["pipeline", "gateway"],
    &["listener", "protocol", "worker"],
];
const SIBLINGS: usize = 2;

struct Manifest {
    file: PathBuf,
    name: String,
    dependencies: Vec<String>,
}

fn manifests() -> Vec<Manifest> {
    let folders = ["crates", "tests", "xtask"];
    let found = folders.iter().flat_map(|folder| files(folder, "toml")).filter(|file| file.ends_with("Cargo.toml"));
    found
        .map(|file| {
            let document: toml_edit::DocumentMut = read(&file).parse().unwrap();
            let names = |table: &str| -> Vec<String> {
                let table = document.get(table).and_then(|table| table.as_table());
                table.map(|table| table.iter().map(|(name, _)| name.to_owned()).collect()).unwrap_or_default()
            };
            let name = document["package"]["name"].as_str().unwrap().to_owned();
            Manifest { name, dependencies: names("dependencies"), file }
        })
        .collect()
}

#[test]
fn crates_depend_downwards_only() {
    let mut found = Vec::new();
    for manifest in manifests() {
        let Some((_, allowed)) = CRATES.iter().find(|(name, _)| *name == manifest.name) else {
            found.push(format!("{}: a crate that has no place in the direction", manifest.file.display()));
            continue;
        };
        let ours = manifest.dependencies.iter().filter(|name| name.starts_with("sluice") || *name == "xtask");
        for name in ours.filter(|name| !allowed.contains(&name.as_str())) {
            found.push(format!("{} -> {name}", manifest.name));
        }
    }
    assert_none("the direction of docs/decisions/0001", &found);
}

#[test]
fn crates_are_few() {
    let crates = std::fs::read_dir(root().join("crates")).unwrap().count();
    assert!(crates <= MOST, "{crates} crates: a topic earns a module, a dependency set earns a crate");
}

#[test]
fn some_dependencies_stay_where_they_belong() {
    let mut found = Vec::new();
    for manifest in manifests() {
        for (reserved, owners) in RESERVED {
            let uses = manifest.dependencies.iter().any(|name| name == reserved);
            if uses && !owners.contains(&manifest.name.as_str()) {
                found.push(format!("{} uses {reserved}", manifest.name));
            }
        }
    }
    assert_none("only its owners may depend on it", &found);
}

/// The storey of the top module that a file of the data plane belongs to.
fn storey(module: &str) -> Option<usize> {
    STOREYS.iter().position(|modules| modules.contains(&module))
}

/// `crates/proxy/src/filter/headers.rs` -> `filter`
fn module_of(file: &Path) -> String {
    let first = file.components().nth(3).map(|part| part.as_os_str().to_string_lossy().into_owned());
    first.unwrap_or_default().trim_end_matches(".rs").to_owned()
}

/// The modules named after `crate::` in the code before the tests: `use crate::{a, b::c};` gives a and b.
fn imports(text: &str) -> Vec<String> {
    let code: String = text
        .lines()
        .take_while(|line| line.trim_end() != "#[cfg(test)]")
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect::<Vec<_>>()
        .join("\n");
    let mut found = Vec::new();
    for (at, path) in code.match_indices("crate::") {
        if code[..at].ends_with(|before: char| before.is_alphanumeric() || before == '_') {
            continue;
        }
        let rest = &code[at + path.len()..];
        match rest.strip_prefix('{') {
            Some(list) => found.extend(heads_of(list)),
            None => found.push(word(rest)),
        }
    }
    found.retain(|name| !name.is_empty());
    found
}

/// The first words of the entries of a braced list, whose opening brace is gone.
fn heads_of(list: &str) -> Vec<String> {
    let (mut depth, mut fresh, mut heads) = (0, true, Vec::new());
    for (at, letter) in list.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => fresh = true,
            _ if fresh && !letter.is_whitespace() => {
                heads.push(word(&list[at..]));
                fresh = false;
            }
            _ => {}
        }
    }
    heads
}

fn word(text: &str) -> String {
    text.chars().take_while(|letter| letter.is_alphanumeric() || *letter == '_').collect()
}

#[test]
fn modules_of_the_data_plane_import_downwards_only() {
    let mut found = Vec::new();
    for file in files("crates/proxy/src", "rs") {
        let module = module_of(&file);
        if module == "lib" || module == "tests" || file.ends_with("tests.rs") || excepted(&file, "direction") {
            continue;
        }
        let Some(own) = storey(&module) else {
            found.push(format!("{}: module `{module}` has no storey", file.display()));
            continue;
        };
        for import in imports(&read(&file)) {
            let Some(other) = storey(&import) else { continue };
            let sideways = other == own && own == SIBLINGS && import != module;
            if other > own || sideways {
                found.push(format!("{}: {module} -> {import}", file.display()));
            }
        }
    }
    assert_none("the storeys of ARCHITECTURE.md", &found);
}

#[test]
fn imports_are_found_in_every_form() {
    let text = "use crate::facts::{Facts, Scheme};\nuse crate::{action, filter::{a, b}, route};\n\
                // crate::no\nfn f(x: crate::value::Period, y: my_crate::other) {}\n#[cfg(test)]\nuse crate::late;";
    assert_eq!(imports(text), ["facts", "action", "filter", "route", "value"]);
}
