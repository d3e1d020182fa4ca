//! Which tunnel, waiting for one, and what becomes of requests without.

use std::time::Duration;

use sluice_testkit::{Gateway, Origin, Reply, Signal, Wire, eventually, http, within};

use super::connector::Running;
use super::raw::{BINARY, Raw, TEXT};
use super::{document, gateway};
use sluice_tunnel::registration::Version;

/// Serves one request with this body.
async fn serve(mut raw: Raw, body: &str) -> String {
    let request = raw.text().await;
    raw.send(TEXT, "HTTP/1.1 200 OK\nX-By: raw\n").await.send(BINARY, body).await.close(1000).await;
    request
}

#[tokio::test]
async fn an_unknown_route_is_404_at_once_and_trace_is_405() {
    let gateway = gateway("").await;
    let answer = http::get(gateway.address("web"), "/nobody/x").await;
    assert_eq!((answer.status, answer.code().as_str()), (404, "tunnel-unknown"));
    assert_eq!(http::request(gateway.address("web"), "TRACE", "/nobody", &[], b"").await.status, 405);
}

#[tokio::test]
async fn a_known_route_without_tunnels_waits_then_503() {
    let gateway = gateway("").await;
    let tunnels = gateway.address("tunnels");
    Raw::register(tunnels, "shop").await.vanish();
    eventually("the tunnel's end", async || {
        (gateway.metric("sluice_tunnels_open", &["route=\"shop\""]).await == 0.0).then_some(())
    })
    .await;
    let answer = http::get(gateway.address("web"), "/shop/x").await;
    assert_eq!((answer.status, answer.code().as_str()), (503, "tunnel-unavailable"));
}

#[tokio::test]
async fn who_waits_gets_the_next_tunnel_in_order() {
    let gateway = Gateway::start(&document("20s", "", "")).await;
    let (web, tunnels) = (gateway.address("web"), gateway.address("tunnels"));
    // Makes the route known, and takes its only tunnel.
    let mut first = Raw::register(tunnels, "shop").await;
    let mut clients = Vec::new();
    for number in 0..3 {
        let mut client = Wire::connect(web).await;
        client.send(format!("GET /shop/{number} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        clients.push(client);
        if number == 0 {
            assert!(first.text().await.starts_with("GET /shop/0 HTTP/1.1\n"));
        } else {
            eventually("the request to wait", async || {
                let waiting = gateway.metric("sluice_tunnel_waiting", &["route=\"shop\""]).await;
                (waiting == f64::from(number)).then_some(())
            })
            .await;
        }
    }
    for (number, client) in clients.iter_mut().enumerate().skip(1) {
        let request = serve(Raw::register(tunnels, "shop").await, "x").await;
        assert!(request.starts_with(&format!("GET /shop/{number} HTTP/1.1\n")), "{request}");
        assert_eq!(client.answer().await.text(), "x");
    }
}

#[tokio::test]
async fn a_request_that_left_takes_no_tunnel() {
    let gateway = Gateway::start(&document("20s", "", "")).await;
    let (web, tunnels) = (gateway.address("web"), gateway.address("tunnels"));
    let mut busy = Raw::register(tunnels, "shop").await;
    let mut first = Wire::connect(web).await;
    first.send("GET /shop/0 HTTP/1.1\r\nHost: a\r\n\r\n").await;
    busy.text().await;
    let mut gone = Wire::connect(web).await;
    gone.send("GET /shop/gone HTTP/1.1\r\nHost: a\r\n\r\n").await;
    eventually("the request to wait", async || {
        (gateway.metric("sluice_tunnel_waiting", &["route=\"shop\""]).await == 1.0).then_some(())
    })
    .await;
    drop(gone);
    eventually("the request to leave", async || {
        let aborted = gateway.metric("sluice_failures_total", &["code=\"client-gone\""]).await;
        (aborted >= 1.0).then_some(())
    })
    .await;
    let raw = Raw::register(tunnels, "shop").await;
    let (request, answer) = tokio::join!(serve(raw, "y"), http::get(web, "/shop/here"));
    assert!(request.starts_with("GET /shop/here "), "{request}");
    assert_eq!(answer.text(), "y");
}

#[tokio::test]
async fn the_most_specific_place_serves_and_the_catch_all_the_rest() {
    let more = "[[routes]]\nname = \"deep\"\nmatch = { path_prefix = \"/deep\" }\n\
                tunnel = { select = \"longest_prefix\" }\n\
                [[routes]]\nname = \"host\"\nmatch = { hosts = [\"shop.example\"] }\ntunnel = { select = \"domain\" }\n";
    let gateway = gateway(more).await;
    let (web, tunnels) = (gateway.address("web"), gateway.address("tunnels"));
    let all = Raw::register(tunnels, "*").await;
    let deep = Raw::register(tunnels, "deep/er").await;
    let host = Raw::register(tunnels, "shop.example").await;
    let (request, answer) = tokio::join!(serve(deep, "deep"), http::get(web, "/deep/er/est"));
    assert!(request.starts_with("GET /deep/er/est "), "the path is not cut");
    assert_eq!(answer.text(), "deep");
    let fields = [("Host", "shop.example:8080")];
    let (_, answer) = tokio::join!(serve(host, "host"), http::get_with(web, "/any", &fields));
    assert_eq!(answer.text(), "host");
    let (_, answer) = tokio::join!(serve(all, "all"), http::get(web, "/elsewhere"));
    assert_eq!(answer.text(), "all");
}

#[tokio::test]
async fn a_dark_route_gets_nothing_until_it_is_lit() {
    let dark = "[tunnels]\ndark_routes = [\"shop\"]\n";
    let gateway = gateway(dark).await;
    let raw = Raw::register(gateway.address("tunnels"), "shop").await;
    assert_eq!(http::get(gateway.address("web"), "/shop").await.status, 503);
    let connectors = http::get(gateway.address("tunnels"), "/health/connectors").await.json();
    assert_eq!(connectors["services"]["shop"]["connectors"][0]["darkMode"], true);
    assert_eq!(gateway.reload(&document("5s", "", "")).await.status, 200);
    let (_, answer) = tokio::join!(serve(raw, "lit"), http::get(gateway.address("web"), "/shop"));
    assert_eq!(answer.text(), "lit");
}

#[tokio::test]
async fn a_reload_keeps_tunnels() {
    for version in [Version::V1, Version::V3] {
        let origin = Origin::start(Reply::ok("kept")).await;
        let gateway = gateway("").await;
        let _connector = Running::start(&gateway, "shop", origin.address(), version).await;
        let opened = gateway.metric("sluice_tunnel_registrations_total", &["accepted"]).await;
        for turn in 0..20 {
            let more = format!(
                "[[routes]]\nname = \"r{turn}\"\nmatch = {{ path = \"/r\" }}\nrespond = {{ status = 204 }}\n"
            );
            assert_eq!(gateway.reload(&document("1s", "", &more)).await.status, 200);
        }
        assert_eq!(gateway.metric("sluice_tunnel_registrations_total", &["accepted"]).await, opened);
        assert_eq!(http::get(gateway.address("web"), "/shop").await.text(), "kept");
    }
}

#[tokio::test]
async fn a_drain_closes_idle_tunnels_and_lets_exchanges_end() {
    let mut gateway = Gateway::start(&document("1s", "", "")).await;
    let tunnels = gateway.address("tunnels");
    let mut busy = Raw::register(tunnels, "shop").await;
    let mut client = Wire::connect(gateway.address("web")).await;
    client.send("GET /shop HTTP/1.1\r\nHost: a\r\n\r\n").await;
    busy.text().await;
    let mut idle = Raw::register(tunnels, "shop").await;
    gateway.signal(Signal::Term).await;
    idle.expect_close(1001, "Going away").await;
    idle.close(1001).await;
    drop(idle);
    busy.send(TEXT, "HTTP/1.1 200 OK\nX-A: b\n").await.send(BINARY, "late").await.close(1000).await;
    assert_eq!(client.answer().await.text(), "late");
    drop(busy);
    assert!(within("the exit", gateway.wait_exit()).await.success());
}

#[tokio::test]
async fn deregistering_under_load_fails_nothing() {
    for version in [Version::V1, Version::V3] {
        let origin = Origin::start(Reply::ok("x")).await;
        let gateway = Gateway::start(&document("10s", "", "")).await;
        let stays = Running::start(&gateway, "shop", origin.address(), version).await;
        let load = sluice_testkit::Load {
            connections: 8,
            requests: usize::MAX,
            target: "/shop".into(),
            body: Some("x".into()),
            ..Default::default()
        };
        let load = load.start(gateway.address("web"));
        for _ in 0..4 {
            let goes = Running::start(&gateway, "shop", origin.address(), version).await;
            let before = load.answered();
            eventually("some answers", async || (load.answered() > before + 100).then_some(())).await;
            within("the connector to drain", goes.stop()).await;
        }
        load.finish().await.assert_clean();
        tokio::time::timeout(Duration::from_secs(20), stays.stop()).await.unwrap();
    }
}
