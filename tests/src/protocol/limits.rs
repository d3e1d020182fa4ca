//! Limits of a listener: bodies, heads, lines, fields.

use sluice_testkit::{Origin, Reply, Wire, http};

use crate::setup::Lines;

#[tokio::test]
async fn a_body_over_the_limit_is_413_by_its_length_before_a_byte_of_it_is_read() {
    let origin = Origin::start(Reply::ok("x")).await;
    let lines = Lines { listener: "limits.body = \"1KiB\"", ..Lines::default() };
    let gateway = lines.start(&[origin.address()]).await;
    assert_eq!(http::post(gateway.address("web"), "/", "x".repeat(1024)).await.status, 200);
    let mut wire = Wire::connect(gateway.address("web")).await;
    wire.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1025\r\n\r\n").await;
    let answer = wire.answer().await;
    assert_eq!((answer.status, answer.code().as_str()), (413, "body-too-large"));
    wire.expect_closed().await;
    let mut wire = Wire::connect(gateway.address("web")).await;
    wire.send("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 99999999\r\n\r\n").await;
    assert_eq!(wire.head().await.status, 413, "without a 100 before it");
    assert_eq!(origin.count(), 1);
}

#[tokio::test]
async fn a_chunked_body_over_the_limit_is_413_and_no_endpoint_gets_it_whole() {
    let origin = Origin::start(Reply::ok("x")).await;
    let lines = Lines { listener: "limits.body = \"1KiB\"", ..Lines::default() };
    let gateway = lines.start(&[origin.address()]).await;
    let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let chunk = format!("200\r\n{}\r\n", "x".repeat(512));
    let mut wire = Wire::connect(gateway.address("web")).await;
    wire.send(format!("{head}{chunk}{chunk}0\r\n\r\n")).await;
    assert_eq!(wire.answer().await.status, 200, "the limit itself is allowed");
    wire.send(format!("{head}{chunk}{chunk}1\r\nx\r\n0\r\n\r\n")).await;
    let answer = wire.answer().await;
    assert_eq!((answer.status, answer.code().as_str()), (413, "body-too-large"));
    wire.expect_closed().await;
    assert_eq!(origin.count(), 1);
    assert_eq!(gateway.metric("sluice_failures_total", &["code=\"body-too-large\""]).await, 1.0);
}

#[tokio::test]
async fn limits_of_heads_are_settings() {
    let origin = Origin::start(Reply::ok("x")).await;
    let lines =
        Lines { listener: "limits = { line = \"1KiB\", head = \"2KiB\", fields = 10 }", ..Lines::default() };
    let gateway = lines.start(&[origin.address()]).await;
    let many = "X-A: 1\r\n".repeat(11);
    let long = format!("X-A: {}\r\n", "x".repeat(1_100));
    let large = format!("X-A: {}\r\n", "x".repeat(900)).repeat(3);
    for (fields, status) in [("", 200), (&*many, 431), (&*long, 431), (&*large, 431)] {
        let mut wire = Wire::connect(gateway.address("web")).await;
        wire.send(format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n")).await;
        assert_eq!(wire.answer().await.status, status, "{fields:.30}");
    }
    let target = "x".repeat(1_100);
    assert_eq!(http::get(gateway.address("web"), &format!("/{target}")).await.status, 414);
    assert_eq!(origin.count(), 1);
}
