//! What the guide and the README show as TOML is accepted by `sluice check`.
//!
//! A block of `toml` is a whole document. One of `toml fragment` is a part of one: what it needs besides, a
//! listener, the upstreams it names, a consumer, the route around keys of one, is added here. One of `toml connector` is a file
//! of `sluice connect`.

use std::fs;
use std::path::{Path, PathBuf};

use sluice_testkit::{Scratch, sluice};
use toml_edit::{DocumentMut, Item};

fn pages() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut pages: Vec<PathBuf> =
        fs::read_dir(root.join("docs/guide")).unwrap().map(|entry| entry.unwrap().path()).collect();
    pages.retain(|path| path.extension().is_some_and(|extension| extension == "md"));
    pages.sort();
    pages.push(root.join("README.md"));
    pages
}

/// What a block of TOML is.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Document,
    Fragment,
    Connector,
}

/// The blocks of TOML of a page: the line each begins on, what it is, its text.
fn blocks(page: &str) -> Vec<(usize, Kind, String)> {
    let mut blocks = Vec::new();
    let mut open = None;
    for (index, line) in page.lines().enumerate() {
        match (&mut open, line) {
            (None, "```toml") => open = Some((index + 2, Kind::Document, String::new())),
            (None, "```toml fragment") => open = Some((index + 2, Kind::Fragment, String::new())),
            (None, "```toml connector") => open = Some((index + 2, Kind::Connector, String::new())),
            (None, line) => assert!(!line.starts_with("```toml"), "line {}: {line}", index + 1),
            (Some(_), "```") => blocks.extend(open.take()),
            (Some((_, _, text)), line) => {
                text.push_str(line);
                text.push('\n');
            }
        }
    }
    assert!(open.is_none(), "a block without an end");
    blocks
}

/// Somebody with credentials of each kind.
const CONSUMER: &str = "[consumers.acme]\n\
    api_keys = [\"sha256:2c70e12b7a0646f92279f427c7b38e7334d8e5389cff167a1dc30e73f826b683\"]\n\
    basic = { password = \"{SHA}L55TUjtiq8FBorTWAZ0jy6g129A=\" }\n\
    hmac_keys = { k1 = \"0123456789abcdef0123456789abcdef\" }\n";

/// A fragment with what it needs besides.
fn completed(fragment: &str) -> String {
    let document: DocumentMut = fragment.parse().unwrap_or_else(|error| panic!("{error}\n{fragment}"));
    let of_document = [
        "process",
        "listeners",
        "routes",
        "upstreams",
        "certificates",
        "dns",
        "access_log",
        "consumers",
        "consumer_limits",
        "tunnels",
    ];
    let mut text = match document.iter().all(|(key, _)| of_document.contains(&key)) {
        true => fragment.to_owned(),
        // Keys of a route.
        false if document.contains_key("forward") => format!("[[routes]]\nname = \"part\"\n{fragment}"),
        false => format!("[[routes]]\nname = \"part\"\nrespond = {{}}\n{fragment}"),
    };
    let document: DocumentMut = text.parse().unwrap_or_else(|error| panic!("{error}\n{text}"));
    if !document.contains_key("listeners") {
        text.push_str("[listeners.web]\naddress = \"127.0.0.1:8080\"\n");
    }
    if !document.contains_key("consumers") {
        text.push_str(CONSUMER);
    }
    let mut named: Vec<String> = Vec::new();
    for route in document.get("routes").and_then(Item::as_array_of_tables).into_iter().flatten() {
        let forward = route.get("forward").and_then(Item::as_table_like);
        let upstream = forward.and_then(|forward| forward.get("upstream")).and_then(Item::as_str);
        named.extend(upstream.map(str::to_owned));
    }
    named.sort();
    named.dedup();
    let known = |name: &String| document.get("upstreams").is_some_and(|all| all.get(name).is_some());
    for name in named.iter().filter(|name| !known(name)) {
        text.push_str(&format!("[upstreams.{name}]\nendpoints = [\"127.0.0.1:9001\"]\n"));
    }
    text
}

#[tokio::test]
async fn every_document_in_the_guide_is_accepted() {
    let scratch = Scratch::new();
    let mut checked = 0;
    for page in pages() {
        for (line, kind, text) in blocks(&fs::read_to_string(&page).unwrap()) {
            let text = if kind == Kind::Fragment { completed(&text) } else { text };
            let path = scratch.write("guide.toml", &text).display().to_string();
            let command =
                if kind == Kind::Connector { ["connect", "--print"] } else { ["check", "--without-files"] };
            let ended = sluice(command).arguments([&path]).finish().await;
            assert_eq!(ended.code(), 0, "{}:{line}\n{text}\n{}", page.display(), ended.stderr);
            checked += 1;
        }
    }
    assert!(checked >= 20, "{checked} documents were found");
}
