//! Which crate may know which, and which module of the data plane may import which.

use std::path::{Path, PathBuf};

use super::{assert_none, excepted, files, read, root};

/// A crate of ours and the crates of ours it may depend on: down only.
const CRATES: &[(&str, &[&str])] = &[
    ("sluice", &["sluice-admin", "sluice-proxy", "sluice-http", "sluice-tunnel", "sluice-store"]),
    ("sluice-admin", &["sluice-proxy", "sluice-store"]),
    ("sluice-proxy", &["sluice-http", "sluice-tunnel", "sluice-traffic"]),
    ("sluice-http", &[]),
    ("sluice-tunnel", &["sluice-http"]),
    ("sluice-traffic", &[]),
    ("sluice-store", &[]),
    ("sluice-testkit", &[]),
    ("sluice-tests", &["sluice-testkit", "sluice-tunnel"]),
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
    (
        "tokio",
        &[
            "sluice",
            "sluice-admin",
            "sluice-proxy",
            "sluice-tunnel",
            "sluice-store",
            "sluice-testkit",
            "sluice-tests",
        ],
    ),
];

/// Storeys of the data plane from the ground up; a module imports from its own storey or from below. A
/// submodule that stands elsewhere than its folder has an entry of its own. Modules of the storey `SIBLINGS`
/// never import each other.
const STOREYS: &[&[&str]] = &[
    &[
        "value",
        "address",
        "problem",
        "purpose",
        "failure",
        "facts",
        "exchange",
        "gate",
        "gates",
        "world",
        "bandwidth",
        "circuit",
        "client_counts",
        "closest",
        "percent",
        "field_values",
        "line_file",
        "credentials",
        "consumer",
        "network_list",
        "fetch",
        "http_date",
        "whole_body",
        "token",
        "request_id",
        "resolve",
        "sockets",
        "stream",
        "wire",
        "h2_message",
        "h2_push",
        "h2_stream",
        "websocket",
        "relay",
        "template",
        "tls",
        "expression",
        "observe",
        "pipeline/normalize",
        "pipeline/forwarded",
        "pipeline/hops",
        "redis",
        "limit",
        "tunnels",
    ],
    &["health"],
    &["upstream", "scene"],
    &["filter", "action", "discovery"],
    &["route"],
    &["config"],
    &["load"],
    &["snapshot"],
    &["gateway", "pipeline", "protocol", "listener", "worker", "health/monitor", "explain", "status"],
];
const SIBLINGS: usize = 3;

struct Manifest {
    file: PathBuf,
    name: String,
    dependencies: Vec<String>,
}

fn manifests() -> Vec<Manifest> {
    let folders = ["crates", "tests", "xtask"];
    let found =
        folders.iter().flat_map(|folder| files(folder, "toml")).filter(|file| file.ends_with("Cargo.toml"));
    // Programs that tests run are outside the workspace, with dependencies of their own.
    let found = found.filter(|file| !file.starts_with("tests/peers"));
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

/// The storey of a module path: that of its first two words if they have an entry, else of the first.
fn storey(path: &[String]) -> Option<usize> {
    let of = |name: &str| STOREYS.iter().position(|modules| modules.contains(&name));
    let two = path.iter().take(2).cloned().collect::<Vec<_>>().join("/");
    of(&two).or_else(|| of(path.first()?))
}

/// `crates/proxy/src/filter/headers.rs` -> `filter`, `headers`
fn module_of(file: &Path) -> Vec<String> {
    let parts = file.components().skip(3).map(|part| part.as_os_str().to_string_lossy());
    parts.map(|part| part.trim_end_matches(".rs").to_owned()).filter(|part| part != "mod").collect()
}

/// What the code before the tests names after `crate::`, to two words: `use crate::{a, b::{c, d}};` gives a,
/// b::c and b::d.
fn imports(text: &str) -> Vec<Vec<String>> {
    let code: String = text
        .lines()
        .take_while(|line| line.trim_end() != "#[cfg(test)]")
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect::<Vec<_>>()
        .join("\n");
    let mut found = Vec::new();
    for (at, path) in code.match_indices("crate::") {
        let inside_a_word = code[..at].ends_with(|before: char| before.is_alphanumeric() || before == '_');
        if !inside_a_word {
            found.extend(paths(&code[at + path.len()..], 2));
        }
    }
    found
}

/// The paths that begin here, to so many words: `a::{b, c}` gives a::b and a::c.
fn paths(text: &str, words: usize) -> Vec<Vec<String>> {
    if words == 0 {
        return vec![Vec::new()];
    }
    if let Some(list) = text.strip_prefix('{') {
        return entries(list).into_iter().flat_map(|entry| paths(entry, words)).collect();
    }
    let first = word(text);
    if first.is_empty() {
        return Vec::new();
    }
    let below = match text[first.len()..].strip_prefix("::") {
        Some(rest) => paths(rest, words - 1),
        None => vec![Vec::new()],
    };
    below.into_iter().map(|rest| [vec![first.clone()], rest].concat()).collect()
}

/// The entries of a braced list, whose opening brace is gone.
fn entries(list: &str) -> Vec<&str> {
    let (mut depth, mut start, mut found) = (0, 0, Vec::new());
    for (at, letter) in list.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' | '}' if depth == 0 => {
                found.push(list[start..at].trim());
                start = at + 1;
                if letter == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
    found
}

fn word(text: &str) -> String {
    text.chars().take_while(|letter| letter.is_alphanumeric() || *letter == '_').collect()
}

#[test]
fn modules_of_the_data_plane_import_downwards_only() {
    let mut found = Vec::new();
    for file in files("crates/proxy/src", "rs") {
        let module = module_of(&file);
        let tests = file.ends_with("tests.rs") || module.first().is_some_and(|first| first == "lib");
        if tests || excepted(&file, "direction") {
            continue;
        }
        let Some(own) = storey(&module) else {
            found.push(format!("{}: a module without a storey", file.display()));
            continue;
        };
        for import in imports(&read(&file)) {
            let Some(other) = storey(&import) else { continue };
            let sideways = other == own && own == SIBLINGS && import.first() != module.first();
            if other > own || sideways {
                found.push(format!("{} -> {}", file.display(), import.join("::")));
            }
        }
    }
    assert_none("the storeys of ARCHITECTURE.md", &found);
}

#[test]
fn imports_are_found_in_every_form() {
    let text = "use crate::facts::{Facts, Scheme};\nuse crate::{action, filter::{a, b}, route};\n\
                // crate::no\nfn f(x: crate::value::Period, y: my_crate::other) {}\n#[cfg(test)]\nuse crate::late;";
    let found: Vec<_> = imports(text).iter().map(|path| path.join("::")).collect();
    let expected =
        ["facts::Facts", "facts::Scheme", "action", "filter::a", "filter::b", "route", "value::Period"];
    assert_eq!(found, expected);
}
