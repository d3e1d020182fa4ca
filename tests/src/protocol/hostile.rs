//! Clients and endpoints that mean harm, or leave at the worst moment.

use std::time::{Duration, Instant};

use sluice_testkit::{Gateway, ManualOrigin, Origin, Reply, Script, Wire, eventually, http};

use crate::forward::gateway;
use crate::setup::{Lines, base};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// A gateway with one idle connection to the endpoint, and both ends of it.
async fn warmed(origin: &ManualOrigin, gateway: &Gateway) -> (Wire, Wire) {
    let mut client = Wire::connect(gateway.address("web")).await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut endpoint = origin.accept().await;
    endpoint.request().await;
    endpoint.send(OK).await;
    assert_eq!(client.answer().await.text(), "ok");
    (client, endpoint)
}

#[tokio::test]
async fn a_put_whose_body_is_gone_is_never_sent_again_without_it() {
    let origin = ManualOrigin::start().await;
    let gateway = gateway(&[origin.address()]).await;
    let (mut client, mut endpoint) = warmed(&origin, &gateway).await;
    client.send("PUT /precious HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n12345").await;
    endpoint.request_head().await;
    endpoint.expect("12345").await;
    endpoint.reset();
    client.send("67890").await;
    let next = async {
        let mut endpoint = origin.accept().await;
        let head = endpoint.request_head().await;
        panic!("sent again: {}", String::from_utf8_lossy(&head.head));
    };
    tokio::select! {
        answer = client.answer() => assert_eq!((answer.status, answer.code().as_str()), (502, "upstream-reset")),
        () = next => {}
    }
}

#[tokio::test]
async fn an_answer_of_length_0_keeps_the_endpoints_connection() {
    let origin = Origin::start(Reply::raw("HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n")).await;
    let gateway = gateway(&[origin.address()]).await;
    for _ in 0..5 {
        assert_eq!(http::get(gateway.address("web"), "/").await.status, 201);
    }
    assert_eq!(origin.connections(), 1);
}

#[tokio::test]
async fn a_client_that_resets_before_its_100_is_an_exchange_like_others() {
    let origin = ManualOrigin::start().await;
    let gateway = gateway(&[origin.address()]).await;
    let mut client = Wire::connect(gateway.address("web")).await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n").await;
    let mut endpoint = origin.accept().await;
    endpoint.request_head().await;
    client.reset();
    assert!(endpoint.read_to_end().await.is_empty());
    eventually("the exchange in the metrics", async || {
        let metrics = http::get(gateway.admin(), "/metrics").await.text();
        metrics.lines().any(|line| line.contains("client-gone") && !line.ends_with(" 0")).then_some(())
    })
    .await;
    assert!(!gateway.stderr().contains("panicked"), "{}", gateway.stderr());
}

#[tokio::test]
async fn a_final_answer_that_streams_is_not_preceded_by_a_100() {
    let origin = ManualOrigin::start().await;
    let gateway = gateway(&[origin.address()]).await;
    let mut client = Wire::connect(gateway.address("web")).await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n").await;
    let mut endpoint = origin.accept().await;
    endpoint.request_head().await;
    endpoint.send("HTTP/1.1 413 X\r\nContent-Length: 5\r\n\r\nfi").await;
    assert_eq!(client.head().await.status, 413);
    endpoint.send("nal").await;
    client.expect("final").await.expect_closed().await;
}

#[tokio::test]
async fn connect_is_refused_and_never_reaches_an_endpoint() {
    let origin = Origin::start(Reply::raw("HTTP/1.1 200 OK\r\n\r\n")).await;
    let gateway = gateway(&[origin.address()]).await;
    let mut wire = Wire::connect(gateway.address("web")).await;
    wire.send("CONNECT evil.example:443 HTTP/1.1\r\nHost: evil.example:443\r\n\r\n").await;
    let answer = wire.answer().await;
    assert_eq!((answer.status, answer.code().as_str()), (405, "method-not-allowed"));
    assert_eq!(origin.bytes(), 0);
}

#[tokio::test]
async fn an_upgrade_is_not_passed_on_with_a_body_over_http_10_or_to_h2c() {
    let origin = Origin::start(Reply::ok("plain")).await;
    let lines = Lines { forward: "upgrade = true", ..Lines::default() };
    let gateway = lines.start(&[origin.address()]).await;
    for request in [
        "POST / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 2\r\n\r\nab",
        "GET / HTTP/1.0\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: H2C\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket, h2c\r\n\r\n",
    ] {
        let mut wire = Wire::connect(gateway.address("web")).await;
        wire.send(request).await;
        assert_eq!(wire.answer().await.text(), "plain", "{request}");
        assert_eq!(origin.last().field("upgrade"), None, "{request}");
    }
}

#[tokio::test]
async fn the_body_of_a_pipelined_request_has_its_own_time() {
    let origin = Origin::start(Script::each(|request| Reply::ok(request.text()))).await;
    let lines = Lines { listener: "timeouts = { head = \"200ms\", stall = \"10s\" }", ..Lines::default() };
    let gateway = lines.start(&[origin.address()]).await;
    let mut wire = Wire::connect(gateway.address("web")).await;
    let began = Instant::now();
    wire.send("GET / HTTP/1.1\r\nHost: a\r\n\r\nPOST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n")
        .await;
    assert_eq!(wire.answer().await.status, 200);
    // The head's time passes while the body is on its way.
    eventually("the head's time to pass", async || {
        (began.elapsed() > Duration::from_millis(600)).then_some(())
    })
    .await;
    wire.send("body").await;
    assert_eq!(wire.answer().await.text(), "body");
}

#[tokio::test]
async fn an_endpoint_cannot_send_interim_answers_without_end() {
    let origin = ManualOrigin::start().await;
    let gateway = gateway(&[origin.address()]).await;
    let mut client = Wire::connect(gateway.address("web")).await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut endpoint = origin.accept().await;
    endpoint.request_head().await;
    endpoint.send("HTTP/1.1 103 Early Hints\r\n\r\n".repeat(200)).await;
    let answer = client.answer().await;
    assert_eq!((answer.status, answer.code().as_str()), (502, "upstream-invalid"));
}

#[tokio::test]
async fn a_removed_listener_closes_although_it_is_full() {
    let origin = Origin::start(Reply::ok("late").held()).await;
    let more = "[listeners.extra]\naddress = \"127.0.0.1:0\"\nlimits = { connections = 1 }\n";
    let with = Lines { more, ..Lines::default() };
    let gateway = with.start(&[origin.address()]).await;
    let extra = gateway.address("extra");
    let mut client = Wire::connect(extra).await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    origin.wait_held(1).await;
    let reloaded = gateway.reload(&Lines::default().document(&[origin.address()])).await;
    assert_eq!(reloaded.status, 200, "{}", reloaded.body);
    eventually("the port to close", async || tokio::net::TcpStream::connect(extra).await.err()).await;
    origin.release();
    assert_eq!(client.answer().await.text(), "late");
}

#[tokio::test]
async fn a_change_is_seen_in_a_folder_that_is_never_quiet() {
    let origin = Origin::start(Reply::ok("x")).await;
    let gateway = gateway(&[origin.address()]).await;
    let respond = "[[routes]]\nname = \"all\"\nrespond = { status = 200, body = \"changed\" }\n";
    let mut noise = 0;
    gateway.write(&(base("") + respond));
    eventually("the change to run", async || {
        noise += 1;
        gateway.scratch().write("noise.log", format!("{noise}"));
        let answer = http::get(gateway.address("web"), "/").await;
        (answer.text() == "changed").then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_body_behind_an_unknown_expectation_is_not_waited_for() {
    let origin = Origin::start(Reply::ok("x")).await;
    let gateway = gateway(&[origin.address()]).await;
    let mut wire = Wire::connect(gateway.address("web")).await;
    wire.send("POST / HTTP/1.1\r\nHost: a\r\nExpect: wonders\r\nContent-Length: 4\r\n\r\n").await;
    let answer = wire.answer().await;
    assert_eq!((answer.status, answer.field("connection")), (417, Some("close")));
    wire.expect_closed().await;
}
