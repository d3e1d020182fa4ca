//! Every folder in examples/ is started, with its addresses replaced by ports of the test's own, and the
//! requests in its requests.txt are made.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use sluice_testkit::{Gateway, Origin, Reply, http};
use toml_edit::{DocumentMut, Item, TableLike, value};

/// A line of requests.txt: METHOD HOST TARGET -> STATUS [UPSTREAM TARGET-IT-SEES]
struct Asked<'a> {
    method: &'a str,
    host: &'a str,
    target: &'a str,
    status: u16,
    served: Option<(&'a str, &'a str)>,
}

fn asked(line: &str) -> Asked<'_> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let (method, host, target, status, served) = match words[..] {
        [method, host, target, "->", status] => (method, host, target, status, None),
        [method, host, target, "->", status, upstream, seen] => {
            (method, host, target, status, Some((upstream, seen)))
        }
        _ => panic!("not a request: {line:?}"),
    };
    Asked { method, host, target, status: status.parse().unwrap(), served }
}

/// The document with port 0 for listeners and an origin of our own behind each upstream.
async fn adapt(text: &str) -> (String, BTreeMap<String, Origin>) {
    let mut document: DocumentMut = text.parse().unwrap();
    for (_, listener) in tables(document.get_mut("listeners")) {
        listener.insert("address", value("127.0.0.1:0"));
    }
    if let Some(admin) = document.get_mut("process").and_then(|process| process.get_mut("admin")) {
        admin.as_table_like_mut().unwrap().insert("address", value("127.0.0.1:0"));
    }
    let mut origins = BTreeMap::new();
    for (name, upstream) in tables(document.get_mut("upstreams")) {
        // Health checks come to the same origin; only what the test asked for is looked at.
        let origin = Origin::start(Reply::echo().field("X-Upstream", &name)).await;
        let endpoints = upstream.get_mut("endpoints").and_then(Item::as_array_mut).unwrap();
        let addresses: toml_edit::Array =
            endpoints.iter().map(|_| origin.address().to_string()).take(1).collect();
        upstream.insert("endpoints", value(addresses));
        origins.insert(name, origin);
    }
    (document.to_string(), origins)
}

fn tables(item: Option<&mut Item>) -> Vec<(String, &mut dyn TableLike)> {
    let Some(table) = item.and_then(Item::as_table_like_mut) else { return Vec::new() };
    table.iter_mut().map(|(name, item)| (name.to_string(), item.as_table_like_mut().unwrap())).collect()
}

async fn run(folder: &Path) {
    let name = folder.file_name().unwrap().to_string_lossy();
    let (document, _origins) = adapt(&fs::read_to_string(folder.join("sluice.toml")).unwrap()).await;
    let gateway = Gateway::start(&document).await;
    let requests = fs::read_to_string(folder.join("requests.txt")).unwrap();
    let lines = requests.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    for line in lines {
        let asked = asked(line);
        let fields = [("Host", asked.host)];
        let answer = http::request(gateway.address("web"), asked.method, asked.target, &fields, b"").await;
        assert_eq!(answer.status, asked.status, "{name}: {line}\n{}", answer.text());
        if let Some((upstream, seen)) = asked.served {
            assert_eq!(answer.field("x-upstream"), Some(upstream), "{name}: {line}");
            assert_eq!(answer.json()["target"], seen, "{name}: {line}");
        }
    }
}

#[tokio::test]
async fn every_example_answers_as_it_says() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("examples");
    let mut folders: Vec<_> = fs::read_dir(examples).unwrap().map(|entry| entry.unwrap().path()).collect();
    folders.retain(|path| path.is_dir());
    folders.sort();
    assert!(!folders.is_empty());
    for folder in folders {
        run(&folder).await;
    }
}
