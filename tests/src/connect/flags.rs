//! What the arguments of `sluice connect` do, one by one.

use sluice_testkit::{Gateway, Origin, Reply, Signal, Wire, eventually, http, sluice};

use super::child::Connector;
use super::{VERSIONS, document};

/// A connector of `shop` with these arguments besides.
async fn launch(gateway: &Gateway, origin: &Origin, more: &[&str]) -> Connector {
    let router = format!("ws://{}", gateway.address("tunnels"));
    let target = format!("http://{}", origin.address());
    let to = ["--router", &router, "--target", &target];
    let route = if more.contains(&"--route") { &[][..] } else { &["--route", "shop"] };
    Connector::launch(&[&to[..], route, more].concat()).await
}

/// What the gateway knows of the connectors of `shop`.
async fn connectors(gateway: &Gateway) -> serde_json::Value {
    http::get(gateway.address("tunnels"), "/health/connectors").await.json()["services"]["shop"].clone()
}

#[tokio::test]
async fn fields_of_the_registration_let_a_connector_in() {
    // The hash of "right".
    let hash = "sha256:27042f4e6eca7d0b2a7ee4026df2ecfa51d3339e6d122aa099118ecd8563bad9";
    let gateway = Gateway::start(&document(0, &format!("tunnel = {{ tokens = [\"{hash}\"] }}"))).await;
    let origin = Origin::start(Reply::ok("in")).await;
    let refused = launch(&gateway, &origin, &["--header", "Authorization: Bearer wrong"]).await;
    refused.says("the gateway answered 401").await;
    assert_eq!(refused.health().await["status"], "down");
    let mut connector =
        launch(&gateway, &origin, &["-H", "X-A: b", "-H", "Authorization: Bearer right"]).await;
    connector.wait("up").await;
    assert_eq!(http::get(gateway.address("web"), "/shop/").await.text(), "in");
    // The deregistration has them too.
    connector.process.signal(Signal::Term).await;
    assert!(connector.process.wait_exit().await.success());
    let said = connector.process.stderr();
    assert!(!said.contains("deregistration failed") && !said.contains("right"), "{said}");
}

#[tokio::test]
async fn name_window_and_version_are_those_asked_for() {
    let origin = Origin::start(Reply::ok("here")).await;
    for (version, shown) in [("3.0", "cranker_3.0"), ("1.0", "cranker_1.0")] {
        let gateway = Gateway::start(&document(0, "")).await;
        let arguments = ["--component", "a name", "--window", "3", "--version", version];
        let _connector = launch(&gateway, &origin, &arguments).await;
        eventually("three tunnels", async || {
            let service = connectors(&gateway).await;
            let connections = service["connectors"][0]["connections"].as_array()?.clone();
            let is_right = connections.iter().all(|connection| connection["protocol"] == shown);
            (connections.len() == 3 && is_right && service["componentName"] == "a name").then_some(())
        })
        .await;
    }
    // The gateway chooses among those that are offered, the first if it can.
    let gateway = Gateway::start(&document(0, "")).await;
    let connector = launch(&gateway, &origin, &["--version", "1.0,3.0"]).await;
    connector.says("version=1.0").await;
}

#[tokio::test]
async fn a_domain_is_served_before_the_others() {
    let gateway = Gateway::start(&document(0, "")).await;
    let (own, any) = (Origin::start(Reply::ok("own")).await, Origin::start(Reply::ok("any")).await);
    let first = launch(&gateway, &own, &["--domain", "shop.example"]).await;
    let second = launch(&gateway, &any, &["--route", "*"]).await;
    first.wait("up").await;
    second.wait("up").await;
    for _ in 0..4 {
        for (host, path, text) in
            [("shop.example", "/shop/", "own"), ("other.example", "/shop/", "any"), ("a", "/else", "any")]
        {
            let answer = http::get_with(gateway.address("web"), path, &[("Host", host)]).await;
            assert_eq!(answer.text(), text, "{host}{path}");
        }
    }
    assert_eq!(first.health().await["services"]["shop"]["domain"], "shop.example");
}

#[tokio::test]
async fn a_service_is_published_at_every_gateway() {
    let gateways = [Gateway::start(&document(0, "")).await, Gateway::start(&document(0, "")).await];
    let origin = Origin::start(Reply::ok("here")).await;
    let other = format!("ws://{}", gateways[1].address("tunnels"));
    let connector = launch(&gateways[0], &origin, &["--router", &other]).await;
    eventually("tunnels to both", async || {
        let health = connector.health().await;
        let routers = health["services"]["shop"]["routers"].as_array()?.clone();
        let is_open = |router: &serde_json::Value| router["tunnels"]["idle"] == 2;
        (routers.len() == 2 && routers.iter().all(is_open)).then_some(())
    })
    .await;
    for gateway in &gateways {
        assert_eq!(http::get(gateway.address("web"), "/shop/").await.text(), "here");
    }
    let [first, second] = gateways;
    drop(first);
    assert_eq!(http::get(second.address("web"), "/shop/").await.text(), "here");
    assert_eq!(connector.health().await["status"], "up", "one is enough");
}

#[tokio::test]
async fn each_address_of_a_name_is_a_gateway() {
    let gateway = Gateway::start(&document(0, "")).await;
    let origin = Origin::start(Reply::ok("here")).await;
    let router = format!("ws://localhost:{}", gateway.address("tunnels").port());
    let target = format!("http://{}", origin.address());
    let arguments = ["--each-address", "--router", &router, "--route", "shop", "--target", &target];
    let connector = Connector::launch(&arguments).await;
    connector.wait("up").await;
    let routers = connector.health().await["services"]["shop"]["routers"].clone();
    let own = format!("{router} (127.0.0.1)");
    assert!(routers.as_array().unwrap().iter().any(|router| router["address"] == own.as_str()), "{routers}");
    let unknown =
        ["--each-address", "--router", "ws://nowhere.invalid:1", "--route", "shop", "--target", &target];
    Connector::launch(&unknown).await.says("gateways cannot be looked up").await;
}

#[tokio::test]
async fn requests_that_take_longer_than_the_drain_are_cut_off() {
    let origin = Origin::start(Reply::ok("late").held()).await;
    for version in VERSIONS {
        let gateway = Gateway::start(&document(0, "")).await;
        let arguments = ["--drain-timeout", "200ms", "--version", version, "--log-format", "json"];
        let mut connector = launch(&gateway, &origin, &arguments).await;
        connector.wait("up").await;
        let mut client = Wire::connect(gateway.address("web")).await;
        client.send("GET /shop/ HTTP/1.1\r\nHost: a\r\n\r\n").await;
        origin.wait_held(1).await;
        connector.process.signal(Signal::Term).await;
        assert_eq!(connector.process.wait_exit().await.code(), Some(1));
        assert_eq!(client.answer().await.status, 502, "{version}");
        origin.wait_held(0).await;
        let said = connector.process.stderr();
        for line in said.lines() {
            let line: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("{said}"));
            assert!(line["message"].is_string(), "{line}");
        }
        assert!(said.contains("stopped at the drain deadline"), "{said}");
    }
}

#[tokio::test]
async fn verbose_tells_of_every_tunnel_and_of_requests_that_were_given_up() {
    let gateway = Gateway::start(&document(0, "")).await;
    let origin = Origin::start(Reply::never()).await;
    let connector = launch(&gateway, &origin, &["--verbose"]).await;
    connector.says("tunnel opened").await;
    let mut client = Wire::connect(gateway.address("web")).await;
    client.send("GET /shop/ HTTP/1.1\r\nHost: a\r\n\r\n").await;
    eventually("the request", async || {
        (connector.health().await["services"]["shop"]["requests"]["running"] == 1).then_some(())
    })
    .await;
    drop(client);
    connector.says("request cancelled").await;
    assert_eq!(connector.health().await["services"]["shop"]["requests"]["cancelled"], 1);
}

#[tokio::test]
async fn every_argument_has_its_place_in_a_file() {
    let arguments = [
        "connect",
        "--print",
        "--router",
        "wss://a.example",
        "--router",
        "wss://b.example:9070",
        "--each-address",
        "--component",
        "a name",
        "-H",
        "X-A: b",
        "--ca",
        "ca.pem",
        "--cert",
        "own.pem",
        "--key",
        "own.key",
        "--route",
        "shop",
        "--target",
        "https://localhost:1",
        "--target-protocol",
        "http2",
        "--target-ca",
        "target.pem",
        "--domain",
        "shop.example",
        "--window",
        "7",
        "--version",
        "1.0",
        "--health",
        "127.0.0.1:9001",
        "--drain-timeout",
        "5s",
    ];
    let printed = sluice(arguments).finish().await;
    assert_eq!(printed.code(), 0, "{}", printed.stderr);
    let document: toml_edit::DocumentMut = printed.stdout.parse().unwrap();
    let expected: toml_edit::DocumentMut = "
        routers = ['wss://a.example', 'wss://b.example:9070']
        each_address = true
        tls = { ca = 'ca.pem', chain = 'own.pem', key = 'own.key' }
        headers = { X-A = 'b' }
        component = 'a name'
        health = '127.0.0.1:9001'
        drain_timeout = '5s'
        services = { shop = { target = 'https://localhost:1', protocol = 'http2', domain = 'shop.example', \
        target_tls = { ca = 'target.pem' }, window = 7, versions = ['1.0'] } }"
        .parse()
        .unwrap();
    let json = |document: toml_edit::DocumentMut| {
        toml_edit::de::from_document::<serde_json::Value>(document).unwrap()
    };
    assert_eq!(json(document), json(expected));
}
