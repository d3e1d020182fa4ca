//! The shortest proof that it runs: proxy, explain itself, end.

use sluice_testkit::{Gateway, Load, Origin, Reply, Scratch, Script, Signal, Wire, http, sluice};

use crate::forward::{document, gateway};

#[tokio::test]
async fn it_proxies_to_an_origin_and_spreads_over_three() {
    let origins = [
        Origin::start(Reply::ok("x")).await,
        Origin::start(Reply::ok("x")).await,
        Origin::start(Reply::ok("x")).await,
    ];
    let gateway = gateway(&[0, 1, 2].map(|at: usize| origins[at].address())).await;
    let load = Load { connections: 3, requests: 300, body: Some("x".into()), ..Load::default() };
    load.run(gateway.address("web")).await.assert_clean();
    for origin in &origins {
        assert_eq!(origin.count(), 100, "round robin gives each endpoint its share");
    }
}

#[tokio::test]
async fn the_demo_answers_from_three_origins_and_stops_on_int() {
    let demo = sluice(["demo", "--address", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
    let mut gateway = Gateway::launch(&demo, Scratch::new()).await;
    let mut bodies = std::collections::BTreeSet::new();
    for _ in 0..3 {
        let answer = http::get(gateway.address("web"), "/").await;
        assert_eq!(answer.status, 200);
        bodies.insert(answer.text());
    }
    assert_eq!(bodies.len(), 3, "{bodies:?}");
    assert!(gateway.stdout().contains("curl "), "it prints requests to try:\n{}", gateway.stdout());
    gateway.signal(Signal::Int).await;
    assert_eq!(gateway.wait_exit().await.code(), Some(0));
}

#[tokio::test]
async fn proxy_needs_no_file() {
    let origin = Origin::start(Reply::ok("no file")).await;
    let proxy = sluice(["proxy", "127.0.0.1:0", &origin.address().to_string()]);
    let mut gateway = Gateway::launch(&proxy, Scratch::new()).await;
    assert_eq!(http::get(gateway.address("web"), "/").await.text(), "no file");
    gateway.signal(Signal::Term).await;
    assert_eq!(gateway.wait_exit().await.code(), Some(0));
}

#[tokio::test]
async fn health_endpoints_and_metrics_answer() {
    let origin = Origin::start(Reply::ok("")).await;
    let gateway = gateway(&[origin.address()]).await;
    for path in ["/livez", "/readyz", "/healthz", "/metrics"] {
        assert_eq!(http::get(gateway.admin(), path).await.status, 200, "{path}");
    }
    assert_eq!(http::get(gateway.admin(), "/nowhere").await.status, 404);
}

#[tokio::test]
async fn r25_term_lets_an_exchange_finish_and_then_ends_with_0() {
    let origin = Origin::start(Reply::ok("finished").held()).await;
    let mut gateway = gateway(&[origin.address()]).await;
    let address = gateway.address("web");
    let mut wire = Wire::connect(address).await;
    wire.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    origin.wait_held(1).await;
    let mut idle = Wire::connect(address).await;
    gateway.signal(Signal::Term).await;
    idle.expect_closed().await;
    origin.release();
    let answer = wire.answer().await;
    assert_eq!((answer.text().as_str(), answer.field("connection")), ("finished", Some("close")));
    wire.expect_closed().await;
    assert_eq!(gateway.wait_exit().await.code(), Some(0));
}

#[tokio::test]
async fn a_second_int_ends_it_at_once() {
    let origin = Origin::start(Reply::never()).await;
    let mut gateway = gateway(&[origin.address()]).await;
    let mut wire = Wire::connect(gateway.address("web")).await;
    wire.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    origin.wait_count(1).await;
    let mut idle = Wire::connect(gateway.address("web")).await;
    gateway.signal(Signal::Int).await;
    // The first one was taken: the listener has gone and idle connections are closed.
    idle.expect_closed().await;
    gateway.signal(Signal::Int).await;
    gateway.wait_exit().await;
}

#[tokio::test]
async fn the_drain_has_a_deadline() {
    let origin = Origin::start(Reply::never()).await;
    let text =
        document(&[origin.address()], "").replace("workers = 1", "workers = 1\ndrain_timeout = \"200ms\"");
    let mut gateway = Gateway::start(&text).await;
    let mut wire = Wire::connect(gateway.address("web")).await;
    wire.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    origin.wait_count(1).await;
    gateway.signal(Signal::Term).await;
    gateway.wait_exit().await;
}

#[tokio::test]
async fn lines_of_ended_exchanges_reach_the_log_when_the_drain_is_cut_short() {
    let origin = Origin::start(Script::each(|request| match request.target.as_str() {
        "/never" => Reply::never(),
        _ => Reply::ok("x"),
    }))
    .await;
    let folder = Scratch::new();
    let log = folder.path().join("access.log");
    let text =
        document(&[origin.address()], "").replace("workers = 1", "workers = 1\ndrain_timeout = \"100ms\"");
    let text = format!("{text}\n[access_log]\npath = \"{}\"\n", log.display());
    let mut gateway = Gateway::start(&text).await;
    let mut held = Wire::connect(gateway.address("web")).await;
    held.send("GET /never HTTP/1.1\r\nHost: a\r\n\r\n").await;
    origin.wait_count(1).await;
    assert_eq!(http::get(gateway.address("web"), "/ended").await.status, 200);
    gateway.signal(Signal::Term).await;
    assert_eq!(gateway.wait_exit().await.code(), Some(1));
    let lines = std::fs::read_to_string(&log).unwrap();
    assert!(lines.contains("/ended"), "{lines:?}");
}
