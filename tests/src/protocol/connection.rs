//! One connection after another exchange: pipelining, keep-alive, close, limits, clients that leave.

use std::time::{Duration, Instant};

use sluice_testkit::{Gateway, Origin, Reply, Script, Wire, eventually};

use crate::forward::gateway;
use crate::setup::Lines;

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

#[tokio::test]
async fn pipelined_requests_with_bodies_are_answered_in_order() {
    let origin = Origin::start(Script::each(|request| {
        Reply::ok(format!("{} {} {}", request.method, request.target, request.text()))
    }))
    .await;
    let gateway = gateway(&[origin.address()]).await;
    let mut wire = Wire::connect(gateway.address("web")).await;
    wire.send(
        "POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc\
         GET /2 HTTP/1.1\r\nHost: a\r\n\r\n\
         PUT /3 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\ndef\r\n0\r\n\r\n\
         GET /4 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n\
         GET /5 HTTP/1.1\r\nHost: a\r\n\r\n",
    )
    .await;
    for expected in ["POST /1 abc", "GET /2 ", "PUT /3 def", "GET /4 "] {
        assert_eq!(wire.answer().await.text(), expected);
    }
    wire.expect_closed().await;
    assert_eq!(origin.count(), 4, "nothing behind Connection: close is a request");
}

#[tokio::test]
async fn a_slow_answer_holds_back_the_ones_behind_it() {
    let origin = Origin::start(Reply::ok("slow").held().then(Reply::ok("fast"))).await;
    let gateway = gateway(&[origin.address()]).await;
    let mut wire = Wire::connect(gateway.address("web")).await;
    wire.send(format!("{GET}{GET}")).await;
    origin.wait_held(1).await;
    assert_eq!(origin.count(), 1, "the second waits for its turn");
    origin.release();
    assert_eq!(wire.answer().await.text(), "slow");
    assert_eq!(wire.answer().await.text(), "fast");
}

#[tokio::test]
async fn who_wants_to_close_is_obeyed() {
    let origin = Origin::start(Reply::ok("x")).await;
    let gateway = gateway(&[origin.address()]).await;
    for request in [
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: X-A, CLOSE\r\n\r\n",
        "GET / HTTP/1.0\r\n\r\n",
        "GET / HTTP/1.0\r\nConnection: close\r\n\r\n",
    ] {
        let mut wire = Wire::connect(gateway.address("web")).await;
        wire.send(request).await;
        let answer = wire.answer().await;
        assert_eq!((answer.text().as_str(), answer.field("connection")), ("x", Some("close")), "{request}");
        wire.expect_closed().await;
    }
    let mut wire = Wire::connect(gateway.address("web")).await;
    for _ in 0..3 {
        wire.send("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").await;
        assert_eq!(wire.answer().await.field("connection"), Some("keep-alive"));
    }
    assert_eq!(origin.connections(), 1, "a client's wish is not the endpoint's");
}

#[tokio::test]
async fn an_endpoint_that_closes_does_not_close_the_client() {
    let origin = Origin::start(Reply::ok("x").close()).await;
    let gateway = gateway(&[origin.address()]).await;
    let mut wire = Wire::connect(gateway.address("web")).await;
    for _ in 0..3 {
        wire.send(GET).await;
        let answer = wire.answer().await;
        assert_eq!((answer.text().as_str(), answer.field("connection")), ("x", None));
    }
    assert_eq!(origin.connections(), 3);
}

#[tokio::test]
async fn a_connection_has_its_number_of_requests() {
    let origin = Origin::start(Reply::ok("x")).await;
    let lines = Lines { listener: "limits.requests_per_connection = 3", ..Lines::default() };
    let gateway = lines.start(&[origin.address()]).await;
    let mut wire = Wire::connect(gateway.address("web")).await;
    for closes in [None, None, Some("close")] {
        wire.send(GET).await;
        assert_eq!(wire.answer().await.field("connection"), closes);
    }
    wire.expect_closed().await;
}

#[tokio::test]
async fn further_connections_wait_until_one_goes() {
    let origin = Origin::start(Reply::ok("x")).await;
    let lines = Lines { listener: "limits.connections = 2", ..Lines::default() };
    let gateway = lines.start(&[origin.address()]).await;
    let address = gateway.address("web");
    let mut open = [Wire::connect(address).await, Wire::connect(address).await];
    for wire in &mut open {
        wire.send(GET).await;
        wire.answer().await;
    }
    // The kernel takes it; nobody reads it yet.
    let mut third = Wire::connect(address).await;
    third.send(GET).await;
    let early = tokio::time::timeout(Duration::from_millis(300), third.head()).await;
    assert!(early.is_err(), "the third was served beside two");
    for wire in &mut open {
        wire.send(GET).await;
        wire.answer().await;
    }
    drop(open);
    assert_eq!(third.answer().await.text(), "x");
}

#[tokio::test]
async fn what_is_left_of_a_short_upload_is_read_and_the_connection_goes_on() {
    let origin = Origin::start(Reply::status(403).early().then(Reply::ok("next"))).await;
    let gateway = gateway(&[origin.address()]).await;
    let mut wire = Wire::connect(gateway.address("web")).await;
    wire.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\nsome").await;
    let answer = wire.answer().await;
    assert_eq!((answer.status, answer.field("connection")), (403, None));
    wire.send("x".repeat(100_000 - 4)).await.send(GET).await;
    assert_eq!(wire.answer().await.text(), "next");
}

#[tokio::test]
async fn a_long_upload_is_ended_by_an_early_answer() {
    let origin = Origin::start(Reply::status(413).early().close()).await;
    let gateway = gateway(&[origin.address()]).await;
    let mut wire = Wire::connect(gateway.address("web")).await;
    wire.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000000\r\n\r\n").await;
    wire.send("x".repeat(500_000)).await;
    let answer = wire.answer().await;
    assert_eq!((answer.status, answer.text().as_str()), (413, "413"));
    assert_eq!(answer.field("connection"), Some("close"));
    // More of the body is not taken for ever.
    eventually("the end of the connection", async || wire.try_send("x".repeat(100_000)).await.err()).await;
}

#[tokio::test]
async fn a_client_that_leaves_ends_the_endpoints_exchange() {
    for leave in ["close", "reset"] {
        let origin = Origin::start(Reply::never()).await;
        let gateway = gateway(&[origin.address()]).await;
        let mut wire = Wire::connect(gateway.address("web")).await;
        wire.send(GET).await;
        origin.wait_count(1).await;
        let began = Instant::now();
        match leave {
            "close" => drop(wire),
            _ => wire.reset(),
        }
        origin.wait_open(0).await;
        assert!(began.elapsed() < Duration::from_secs(1), "{leave}: {:?}", began.elapsed());
        assert_eq!(gateway.metric("sluice_failures_total", &["code=\"client-gone\""]).await, 1.0);
        nothing_in_flight(&gateway).await;
    }
}

#[tokio::test]
async fn a_client_that_leaves_during_upload_or_answer_ends_it_too() {
    let origin = Origin::start(Reply::ok("")).await;
    let gateway = gateway(&[origin.address()]).await;
    let mut wire = Wire::connect(gateway.address("web")).await;
    wire.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\nsome").await;
    origin.wait_connections(1).await;
    drop(wire);
    origin.wait_open(0).await;
    assert_eq!(origin.count(), 0, "half a request is none");
    origin.set_script(Reply::ok(vec![b'x'; 64 * 1024 * 1024]));
    let mut wire = Wire::connect(gateway.address("web")).await;
    wire.send(GET).await;
    wire.head().await;
    wire.reset();
    origin.wait_open(0).await;
    nothing_in_flight(&gateway).await;
}

#[tokio::test]
async fn a_client_that_leaves_while_its_body_is_held_back_is_noticed() {
    let origin = Origin::start(Reply::never().early()).await;
    let gateway = gateway(&[origin.address()]).await;
    let mut wire = Wire::connect(gateway.address("web")).await;
    wire.send("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n").await;
    origin.wait_connections(1).await;
    drop(wire);
    origin.wait_open(0).await;
    nothing_in_flight(&gateway).await;
}

async fn nothing_in_flight(gateway: &Gateway) {
    eventually("no attempt and no connection", async || {
        let attempts = gateway.metric("sluice_endpoint_in_flight", &[]).await;
        let open = gateway.metric("sluice_listener_connections_active", &[]).await;
        (attempts == 0.0 && open == 0.0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_request_may_come_in_pieces_of_any_size() {
    let origin = Origin::start(Reply::echo()).await;
    let gateway = gateway(&[origin.address()]).await;
    let request = "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n0123456789GET /y HTTP/1.1\r\nHost: a\r\n\r\n";
    for size in [2, 3, 7, 40] {
        let mut wire = Wire::connect(gateway.address("web")).await;
        let mut turns = tokio::time::interval(Duration::from_millis(2));
        for piece in request.as_bytes().chunks(size) {
            turns.tick().await;
            wire.send(piece).await;
        }
        assert_eq!(wire.answer().await.json()["body"], "0123456789", "pieces of {size}");
        assert_eq!(wire.answer().await.json()["target"], "/y", "pieces of {size}");
    }
}
