//! Dark launch: what is dark is asked for and changed while the gateway runs.

use std::net::SocketAddr;

use sluice_testkit::{Answer, Gateway, Origin, Reply, eventually, http, sluice};
use sluice_tunnel::registration::Version;

use super::connector::Running;
use super::document;
use super::raw::{BINARY, Raw, TEXT};

/// The hash of "right".
const HASH: &str = "sha256:27042f4e6eca7d0b2a7ee4026df2ecfa51d3339e6d122aa099118ecd8563bad9";
const RIGHT: [(&str, &str); 1] = [("Authorization", "Bearer right")];

fn admission() -> String {
    format!("tunnel = {{ dark_launch = {{ tokens = [\"{HASH}\"] }} }}")
}

async fn ask(address: SocketAddr, method: &str, path: &str) -> Answer {
    http::request(address, method, &format!("/api/dark-launch/{path}"), &RIGHT, b"").await
}

async fn text(address: SocketAddr, method: &str, path: &str) -> (u16, String) {
    let answer = ask(address, method, path).await;
    assert_eq!(answer.field("content-type"), Some("text/plain; charset=utf-8"), "{path}: {answer:?}");
    (answer.status, answer.text())
}

async fn serve(mut raw: Raw, body: &str) -> String {
    let request = raw.text().await;
    raw.send(TEXT, "HTTP/1.1 200 OK\nX-A: b\n").await.send(BINARY, body).await.close(1000).await;
    request
}

#[tokio::test]
async fn the_endpoints_answer_as_the_original_router_does() {
    let gateway = Gateway::start(&document("300ms", &admission(), "")).await;
    let address = gateway.address("tunnels");
    for (method, path, status, expected) in [
        ("GET", "ip", 200, "DarkMode IPs = []"),
        ("GET", "service", 200, "DarkMode Services = []"),
        ("GET", "gray", 200, "DarkMode=false, darkModeGrayTestToggle=false"),
        ("GET", "ip/1.2.3.4", 200, "DarkMode = false for ip = 1.2.3.4"),
        ("PUT", "ip/1.2.3.4", 200, "update dark launch manager successfully"),
        ("PUT", "ip/1.2.3.4", 200, "update dark launch manager successfully"),
        ("GET", "ip/1.2.3.4", 200, "DarkMode = true for ip = 1.2.3.4"),
        ("PUT", "ip/2001:DB8:0::1", 200, "update dark launch manager successfully"),
        ("GET", "ip/%5B2001:db8::1%5D", 200, "DarkMode = true for ip = 2001:db8::1"),
        ("PUT", "ip/::ffff:192.0.2.7", 200, "update dark launch manager successfully"),
        ("GET", "ip", 200, "DarkMode IPs = [1.2.3.4 192.0.2.7 2001:db8::1]"),
        ("PUT", "service/my-service", 200, "update dark launch manager successfully"),
        ("PUT", "service/deep/er", 200, "update dark launch manager successfully"),
        ("PUT", "service/*", 200, "update dark launch manager successfully"),
        ("GET", "service", 200, "DarkMode Services = [* deep/er my-service]"),
        ("GET", "service/my-service", 200, "DarkMode = true for service = my-service"),
        ("PUT", "gray/on", 200, "DarkMode=true, darkModeGrayTestToggle=true"),
        ("GET", "gray", 200, "DarkMode=true, darkModeGrayTestToggle=true"),
        ("PUT", "gray/off", 200, "DarkMode=true, darkModeGrayTestToggle=false"),
        ("DELETE", "ip/1.2.3.4", 200, "ip: 1.2.3.4 was deleted successfully from dark launch manager"),
        ("DELETE", "service/*", 200, "service: * was deleted successfully from dark launch manager"),
        ("GET", "service/my%20service", 200, "DarkMode = false for service = my service"),
    ] {
        assert_eq!(text(address, method, path).await, (status, expected.to_owned()), "{method} {path}");
    }
    for (method, path, begins) in [
        ("PUT", "ip/1.2.3", "Invalid request, invalid ip: 1.2.3, action: Add IP, ErrorID: "),
        ("DELETE", "ip/1.2.3.4", "Invalid request, invalid ip: 1.2.3.4, action: Remove IP, ErrorID: "),
        (
            "PUT",
            "service/a%3Cb%22",
            "Invalid request, invalid service: a<b\\\", action: Add service, ErrorID: ",
        ),
        ("DELETE", "service/x", "Invalid request, invalid service: x, action: Remove service, ErrorID: "),
    ] {
        let (status, said) = text(address, method, path).await;
        assert!(status == 400 && said.starts_with(begins) && said.len() > begins.len(), "{status} {said}");
    }
    for (method, path, status) in
        [("POST", "ip/1.2.3.4", 405), ("DELETE", "gray", 405), ("GET", "gray/on", 405), ("GET", "other", 404)]
    {
        assert_eq!(ask(address, method, path).await.status, status, "{method} {path}");
    }
}

#[tokio::test]
async fn without_something_dark_nothing_is_gray_and_without_a_token_nothing_is_told() {
    let gateway = Gateway::start(&document("300ms", &admission(), "")).await;
    let address = gateway.address("tunnels");
    let (status, said) = text(address, "PUT", "gray/on").await;
    assert!(status == 403 && said.starts_with("Forbidden request, ErrorID="), "{status} {said}");
    for fields in [&[][..], &[("Authorization", "Bearer wrong")]] {
        for (method, path) in [("GET", "ip"), ("PUT", "ip/1.2.3.4"), ("GET", "gray"), ("GET", "nonsense")] {
            let target = format!("/api/dark-launch/{path}");
            let answer = http::request(address, method, &target, fields, b"").await;
            assert_eq!((answer.status, answer.field("www-authenticate")), (401, Some("Bearer")), "{target}");
        }
    }
    assert_eq!(text(address, "GET", "ip").await.1, "DarkMode IPs = []");
    // Where it is not configured it does not exist.
    assert_eq!(gateway.reload(&document("300ms", "", "")).await.status, 200);
    assert_eq!(ask(address, "GET", "ip").await.status, 404);
}

#[tokio::test]
async fn gray_sends_all_requests_through_what_is_dark_and_nothing_else() {
    for version in [Version::V1, Version::V3] {
        let (lit, dark) = (Origin::start(Reply::ok("lit")).await, Origin::start(Reply::ok("dark")).await);
        let gateway = Gateway::start(&document("300ms", &admission(), "")).await;
        let (web, address) = (gateway.address("web"), gateway.address("tunnels"));
        let _lit = Running::start(&gateway, "shop", lit.address(), version).await;
        let _dark = Running::start(&gateway, "office", dark.address(), version).await;
        assert_eq!(text(address, "PUT", "service/office").await.0, 200);
        let answers = async || {
            let (shop, office) = (http::get(web, "/shop").await, http::get(web, "/office").await);
            (shop.status, shop.text(), office.status)
        };
        assert_eq!(answers().await, (200, "lit".to_owned(), 503), "{version}");
        assert_eq!(text(address, "PUT", "gray/on").await.0, 200);
        let office = http::get(web, "/office").await;
        assert_eq!((office.status, office.text().as_str()), (200, "dark"), "{version}");
        assert_eq!(http::get(web, "/shop").await.status, 503, "{version}: it has no dark tunnel");
        // What is taken back turns gray off.
        assert_eq!(text(address, "DELETE", "service/office").await.0, 200);
        assert_eq!(answers().await, (200, "lit".to_owned(), 200), "{version}");
    }
}

#[tokio::test]
async fn an_address_that_is_made_dark_keeps_its_tunnels_and_gets_no_request() {
    let gateway = Gateway::start(&document("300ms", &admission(), "")).await;
    let (web, address) = (gateway.address("web"), gateway.address("tunnels"));
    let raw = Raw::register(address, "shop").await;
    assert_eq!(text(address, "PUT", "ip/127.0.0.1").await.0, 200);
    assert_eq!(http::get(web, "/shop").await.status, 503);
    let registrations = http::get(address, "/api/registrations").await.json();
    assert_eq!(registrations["shop"]["127.0.0.1"], serde_json::json!({ "darkMode": true }));
    let connectors = http::get(address, "/health/connectors").await.json();
    assert_eq!(connectors["services"]["shop"]["connectors"][0]["darkMode"], true);
    let health = http::get(address, "/health").await.json();
    let expected = serde_json::json!({ "isOn": true, "grayTestToggle": false });
    assert_eq!(health["dependencies"][0]["router"]["darkMode"], expected);
    // One that comes later is dark too; who waits while it is lit gets the first.
    let later = Raw::register(address, "shop").await;
    assert_eq!(http::get(web, "/shop").await.status, 503);
    // A reload leaves orders alone.
    assert_eq!(gateway.reload(&document("20s", &admission(), "")).await.status, 200);
    let waiting = tokio::spawn(async move { http::get(web, "/shop").await });
    eventually("a request to wait", async || {
        (gateway.metric("sluice_tunnel_waiting", &["route=\"shop\""]).await == 1.0).then_some(())
    })
    .await;
    assert_eq!(text(address, "DELETE", "ip/127.0.0.1").await.0, 200);
    serve(raw, "lit again").await;
    assert_eq!(waiting.await.unwrap().text(), "lit again");
    assert!(gateway.stderr().contains("dark launch"), "{}", gateway.stderr());
    drop(later);
}

#[tokio::test]
async fn what_the_document_says_is_shown_and_changed_in_the_document_only() {
    let written = "[tunnels]\ndark_addresses = [\"10.0.0.0/8\"]\ndark_routes = [\"shop\"]\n";
    let gateway = Gateway::start(&document("300ms", &admission(), written)).await;
    let address = gateway.address("tunnels");
    assert_eq!(text(address, "GET", "ip").await.1, "DarkMode IPs = [10.0.0.0/8]");
    assert_eq!(text(address, "GET", "ip/10.1.2.3").await.1, "DarkMode = true for ip = 10.1.2.3");
    assert_eq!(text(address, "GET", "service").await.1, "DarkMode Services = [shop]");
    let (status, said) = text(address, "DELETE", "service/shop").await;
    assert!(status == 409 && said.contains("configuration"), "{status} {said}");
    assert_eq!(text(address, "PUT", "gray/on").await.0, 200);
    assert_eq!(gateway.reload(&document("300ms", &admission(), "")).await.status, 200);
    assert_eq!(text(address, "GET", "gray").await.1, "DarkMode=false, darkModeGrayTestToggle=false");
}

#[tokio::test]
async fn on_a_route_a_filter_that_knows_who_is_asking_is_enough() {
    let route = |filters: &str| {
        format!(
            "[[routes]]\nname = \"dark\"\nmatch = {{ path_prefix = \"/api/dark-launch\" }}\nfilters = [{filters}]\n\
             register_tunnels = {{ dark_launch = {{}} }}\n[consumers.anna]\napi_keys = [\"{HASH}\"]\n"
        )
    };
    let gateway = Gateway::start(&document("300ms", "", &route("{ api_key = {} }"))).await;
    let web = gateway.address("web");
    assert_eq!(http::request(web, "PUT", "/api/dark-launch/service/shop", &[], b"").await.status, 401);
    let key = [("X-API-Key", "right")];
    let answer = http::request(web, "PUT", "/api/dark-launch/service/shop", &key, b"").await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "update dark launch manager successfully"));
    eventually("a line about it", async || {
        gateway
            .stderr()
            .lines()
            .any(|line| line.contains("subject=shop") && line.contains("by=anna"))
            .then_some(())
    })
    .await;
    // A path that the filter passes over is not open.
    let open = route("{ api_key = { except = [\"/api/dark-launch/ip\"] } }");
    assert_eq!(gateway.reload(&document("300ms", "", &open)).await.status, 200);
    assert_eq!(http::get(web, "/api/dark-launch/ip").await.status, 401);
    for filters in ["", "{ ip_access = { allow = [\"127.0.0.1\"] } }"] {
        let refused = gateway.reload(&document("300ms", "", &route(filters))).await;
        assert!(refused.status != 200 && refused.body.contains("dark_launch"), "{}", refused.body);
    }
    let scratch = sluice_testkit::Scratch::new();
    let open = document("300ms", "tunnel = { dark_launch = {} }", "");
    let path = scratch.write("open.toml", &open).display().to_string();
    let checked = sluice(["check"]).arguments([&path]).finish().await;
    assert!(checked.code() == 78 && checked.stderr.contains("anybody could"), "{}", checked.stderr);
}
