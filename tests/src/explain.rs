//! `sluice route explain`: the winner, the runner-up and why, filters, upstream and pick; as text and JSON.

use serde_json::Value;
use sluice_testkit::{Finished, Gateway, Scratch, http, sluice};

use crate::setup::base;

const ROUTES: &str = r#"
[[routes]]
name = "item"
match = { hosts = ["shop.example"], path = "/items/{id:int}", methods = ["GET", "POST"] }
filters = [{ headers = { request = { set = { X-A = "1" } } } }, { rewrite = { strip_prefix = "/items" } }]
forward = { upstream = "app" }

[[routes]]
name = "beta"
match = { path = "/items/{name}", headers = { X-Beta = "1" } }
respond = { status = 204 }

[[routes]]
name = "off"
match = { path = "/items/7" }
enabled = false
respond = { status = 204 }

[[routes]]
name = "all"
match = { path_prefix = "/" }
redirect = { to = "https://{host}{path}" }

[[routes]]
name = "posted"
match = { path = "/posted", methods = ["POST"] }
priority = 5
respond = { status = 204 }

[upstreams.app]
endpoints = [{ address = "127.0.0.1:9001", state = "disabled" }, { address = "127.0.0.1:9002", weight = 3 }]
balance = "least_requests"
"#;

async fn explain(arguments: &[&str]) -> Finished {
    let scratch = Scratch::new();
    let path = scratch.write("sluice.toml", base("") + ROUTES).display().to_string();
    let command = ["route", "explain", "--config", &path];
    sluice(command.iter().chain(arguments)).finish().await
}

#[tokio::test]
async fn the_text_tells_winner_runner_up_reasons_filters_upstream_and_pick() {
    let ended = explain(&["GET", "http://shop.example/items/7"]).await;
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    let text = ended.stdout;
    for part in [
        "route item (priority 0, host shop.example, path /items/{id:int}, method GET, HEAD, POST)",
        "id = 7",
        "runner-up all",
        "not all: it matches, with a less specific host",
        "not off: it is disabled",
        "not beta: does not hold: header X-Beta: exact \"1\"",
        "filters   headers, rewrite",
        "forward to upstream `app` (least_requests)",
        "127.0.0.1:9002 (weight 3",
        "pick      127.0.0.1:9002",
    ] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
}

#[tokio::test]
async fn the_json_tells_the_same() {
    let ended = explain(&["GET", "http://shop.example/items/7", "--format", "json"]).await;
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    let json: Value = serde_json::from_str(&ended.stdout).unwrap();
    let (routing, then) = (&json["routing"], &json["then"]);
    assert_eq!(routing["verdict"]["is"], "found");
    assert_eq!(
        (&routing["winner"]["route"], &routing["runner_up"]["route"]),
        (&"item".into(), &"all".into())
    );
    assert_eq!(routing["winner"]["params"], serde_json::json!([["id", "7"]]));
    let why = |name: &str| {
        let lost = routing["lost"].as_array().unwrap().iter().find(|lost| lost["route"] == name);
        lost.unwrap_or_else(|| panic!("{name} is not in {routing}"))["reasons"][0]["why"].clone()
    };
    assert_eq!(
        (why("all"), why("off"), why("beta")),
        ("less_specific_host".into(), "disabled".into(), "condition".into())
    );
    assert_eq!(then["filters"], serde_json::json!(["headers", "rewrite"]));
    assert_eq!((&then["action"], &then["upstream"]), (&"forward".into(), &"app".into()));
    assert_eq!((&then["balance"], &then["pick"]), (&"least_requests".into(), &"127.0.0.1:9002".into()));
}

#[tokio::test]
async fn method_fields_and_host_of_the_request_count() {
    for (arguments, part) in [
        (vec!["GET", "http://other.example/items/x", "-H", "X-Beta: 1"], "route beta"),
        (vec!["GET", "http://shop.example/items/7", "-H", "Host: other.example"], "route all"),
        (vec!["DELETE", "http://shop.example/items/7"], "route all"),
        (vec!["GET", "https://any.example/x?y=1"], "action    redirect"),
        (vec!["POST", "http://any.example/posted"], "action    respond"),
    ] {
        let ended = explain(&arguments).await;
        assert_eq!(ended.code(), 0, "{arguments:?}: {}", ended.stderr);
        assert!(ended.stdout.contains(part), "{arguments:?}: {part} is not in\n{}", ended.stdout);
    }
}

#[tokio::test]
async fn a_request_without_a_route_is_explained_too() {
    let scratch = Scratch::new();
    let routes =
        "[[routes]]\nname = \"write\"\nmatch = { path = \"/x\", methods = [\"POST\"] }\nrespond = {}\n";
    let path = scratch.write("sluice.toml", base("") + routes).display().to_string();
    for (url, part) in [
        ("http://a.example/x", "the method is not allowed (Allow: POST)"),
        ("http://a.example/y", "no route matches"),
    ] {
        let ended = sluice(["route", "explain", "GET", url, "--config", &path]).finish().await;
        assert!(ended.stdout.contains(part) && ended.stdout.contains("not write:"), "{}", ended.stdout);
    }
}

#[tokio::test]
async fn misuse_is_2_and_a_bad_document_78() {
    for arguments in [["GET", "shop.example/x"], ["G E T", "http://a/"]] {
        assert_eq!(explain(&arguments).await.code(), 2, "{arguments:?}");
    }
    let refused = explain(&["GET", "http://a/x/../../y"]).await;
    assert_eq!(refused.code(), 2);
    assert!(refused.stderr.contains("400 bad-request"), "{}", refused.stderr);
    assert_eq!(explain(&["GET", "http://a/", "-H", "nonsense"]).await.code(), 2);
    assert_eq!(explain(&["GET", "http://a/", "--listener", "none"]).await.code(), 2);
    let scratch = Scratch::new();
    let path = scratch.write("sluice.toml", "nonsense").display().to_string();
    let ended = sluice(["route", "explain", "GET", "http://a/", "--config", &path]).finish().await;
    assert_eq!(ended.code(), 78);
}

#[tokio::test]
async fn what_is_explained_is_what_happens() {
    let names = ["exact", "template", "typed", "prefix", "regex", "location", "host", "header", "any"];
    let matches = [
        "path = \"/a/b\"",
        "path = \"/a/{x}\"",
        "path = \"/a/{x:int}\"",
        "path_prefix = \"/a\"",
        "path_regex = \"^/a/r.*z$\"",
        "location = \"/loc\"",
        "hosts = [\"h.example\"], path_prefix = \"/a\"",
        "path = \"/a/{x}\", headers = { X-H = \"1\" }",
        "",
    ];
    let mut document = base("");
    for (name, matches) in names.iter().zip(matches) {
        document += &format!(
            "[[routes]]\nname = \"{name}\"\nmatch = {{ {matches} }}\nrespond = {{ body = \"{name}\" }}\n"
        );
    }
    let gateway = Gateway::start(&document).await;
    let path = gateway.scratch().file("sluice.toml").display().to_string();
    for target in ["/a/b", "/a/c", "/a/7", "/a", "/a/rxz", "/loc/x", "/", "/%61/b", "/a//b"] {
        for (host, header) in [("h.example", "X-H: 0"), ("o.example:81", "X-H: 1"), ("o.example", "X-H: 0")] {
            let (name, value) = header.split_once(": ").unwrap();
            let taken =
                http::get_with(gateway.address("web"), target, &[("Host", host), (name, value)]).await;
            let url = format!("http://{host}{target}");
            let command =
                ["route", "explain", "GET", &url, "-H", header, "--config", &path, "--format", "json"];
            let said: Value = serde_json::from_str(&sluice(command).finish().await.stdout).unwrap();
            assert_eq!(said["routing"]["winner"]["route"], taken.text(), "{url} {header}");
        }
    }
}
