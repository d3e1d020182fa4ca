//! Slow clients and slow endpoints: each deadline ends what it says, and nothing else.

use std::time::Duration;

use sluice_testkit::{Origin, Reply, Wire, http};

use crate::setup::Lines;

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

#[tokio::test]
async fn a_head_that_does_not_arrive_in_time_is_408() {
    let origin = Origin::start(Reply::ok("")).await;
    let lines = Lines { listener: "timeouts.head = \"200ms\"", ..Lines::default() };
    let gateway = lines.start(&[origin.address()]).await;
    let mut wire = Wire::connect(gateway.address("web")).await;
    wire.send("GET / HTTP/1.1\r\nHo").await;
    let answer = wire.answer().await;
    assert_eq!((answer.status, answer.code().as_str()), (408, "client-timeout"));
    assert_eq!(answer.field("connection"), Some("close"));
    wire.expect_closed().await;
    assert_eq!(origin.connections(), 0);
}

#[tokio::test]
async fn a_dribbled_head_gets_no_more_time_for_each_byte() {
    let origin = Origin::start(Reply::ok("")).await;
    let lines = Lines { listener: "timeouts.head = \"300ms\"", ..Lines::default() };
    let gateway = lines.start(&[origin.address()]).await;
    let mut wire = Wire::connect(gateway.address("web")).await;
    let mut turns = tokio::time::interval(Duration::from_millis(20));
    wire.send("GET / HTTP/1.1\r\nHost: a\r\nX-Slow: ").await;
    let mut sent = 0;
    let answer = loop {
        tokio::select! {
            biased;
            answer = wire.head() => break answer,
            _ = turns.tick() => {}
        }
        sent += 1;
        assert!(sent < 500, "the head may go on for ever");
        wire.send("x").await;
    };
    assert_eq!(answer.status, 408);
}

#[tokio::test]
async fn an_idle_connection_closes_without_a_word() {
    let origin = Origin::start(Reply::ok("x")).await;
    let lines = Lines { listener: "timeouts.idle = \"200ms\"", ..Lines::default() };
    let gateway = lines.start(&[origin.address()]).await;
    Wire::connect(gateway.address("web")).await.expect_closed().await;
    let mut wire = Wire::connect(gateway.address("web")).await;
    wire.send(GET).await;
    wire.answer().await;
    wire.expect_closed().await;
    assert_eq!(gateway.metric("sluice_failures_total", &[]).await, 0.0, "idleness is no failure");
}

#[tokio::test]
async fn an_idle_timeout_does_not_touch_an_exchange() {
    let origin = Origin::start(Reply::ok("late").held()).await;
    let lines = Lines { listener: "timeouts.idle = \"150ms\"", ..Lines::default() };
    let gateway = lines.start(&[origin.address()]).await;
    let mut idle = Wire::connect(gateway.address("web")).await;
    let mut wire = Wire::connect(gateway.address("web")).await;
    wire.send(GET).await;
    origin.wait_held(1).await;
    idle.expect_closed().await;
    origin.release();
    assert_eq!(wire.answer().await.text(), "late");
}

#[tokio::test]
async fn a_body_that_stalls_is_408_and_one_that_dribbles_is_not() {
    let origin = Origin::start(Reply::echo()).await;
    let lines = Lines { listener: "timeouts.stall = \"800ms\"", ..Lines::default() };
    let gateway = lines.start(&[origin.address()]).await;
    let mut wire = Wire::connect(gateway.address("web")).await;
    wire.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 20\r\n\r\n").await;
    let mut turns = tokio::time::interval(Duration::from_millis(50));
    for _ in 0..20 {
        turns.tick().await;
        wire.send("x").await;
    }
    assert_eq!(wire.answer().await.json()["body"], "x".repeat(20), "longer than the stall time in all");
    wire.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 20\r\n\r\nxxx").await;
    let answer = wire.answer().await;
    assert_eq!((answer.status, answer.code().as_str()), (408, "client-timeout"));
    wire.expect_closed().await;
    assert_eq!(origin.count(), 1);
    origin.wait_open(0).await;
}

#[tokio::test]
async fn a_client_that_does_not_read_its_answer_is_left() {
    let origin = Origin::start(Reply::ok(vec![b'x'; 64 * 1024 * 1024])).await;
    let lines = Lines { listener: "timeouts.stall = \"300ms\"", ..Lines::default() };
    let gateway = lines.start(&[origin.address()]).await;
    let mut wire = Wire::connect(gateway.address("web")).await;
    wire.send(GET).await;
    origin.wait_count(1).await;
    origin.wait_open(0).await;
    assert_eq!(gateway.metric("sluice_failures_total", &["code=\"client-timeout\""]).await, 1.0);
    assert!(wire.try_answer_to("GET").await.is_err());
}

#[tokio::test]
async fn the_listeners_time_for_an_exchange_ends_with_504() {
    let origin = Origin::start(Reply::never()).await;
    let lines = Lines { listener: "timeouts.total = \"200ms\"", ..Lines::default() };
    let gateway = lines.start(&[origin.address()]).await;
    let mut wire = Wire::connect(gateway.address("web")).await;
    for round in 1..=2 {
        wire.send(GET).await;
        let answer = wire.answer().await;
        assert_eq!((answer.status, answer.code().as_str()), (504, "exchange-timeout"));
        origin.wait_count(round).await;
        origin.wait_open(0).await;
    }
}

#[tokio::test]
async fn the_routes_time_is_over_all_attempts() {
    let origins = [Origin::start(Reply::never()).await, Origin::start(Reply::never()).await];
    let lines = Lines {
        forward: "timeout = \"1200ms\", retry = { attempts = 5 }",
        upstream: "timeouts.first_byte = \"800ms\"",
        ..Lines::default()
    };
    let gateway = lines.start(&[origins[0].address(), origins[1].address()]).await;
    let answer = http::get(gateway.address("web"), "/").await;
    assert_eq!((answer.status, answer.code().as_str()), (504, "exchange-timeout"));
    assert_eq!(origins[0].count() + origins[1].count(), 2, "the time ran out in the second attempt");
}

#[tokio::test]
async fn an_endpoint_that_stalls_in_its_body_breaks_the_answer_off() {
    let origin = Origin::start(Reply::raw("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")).await;
    let lines = Lines { upstream: "timeouts.idle = \"200ms\"", ..Lines::default() };
    let gateway = lines.start(&[origin.address()]).await;
    let mut wire = Wire::connect(gateway.address("web")).await;
    wire.send(GET).await;
    assert_eq!(wire.head().await.status, 200);
    assert_eq!(wire.read_to_end().await, b"half");
    assert_eq!(gateway.metric("sluice_failures_total", &["code=\"upstream-incomplete\""]).await, 1.0);
}

#[tokio::test]
async fn an_attempts_whole_time_ends_a_stream_that_goes_on() {
    let origin = Origin::start(Reply::ok(vec![b'x'; 2_000]).dribble(10, Duration::from_millis(20))).await;
    let lines = Lines { upstream: "timeouts.total = \"400ms\"", ..Lines::default() };
    let gateway = lines.start(&[origin.address()]).await;
    let mut wire = Wire::connect(gateway.address("web")).await;
    wire.send(GET).await;
    let problem = wire.try_answer_to("GET").await.unwrap_err();
    assert!(problem.contains("middle"), "{problem}");
}
