//! Long bodies and slow ones: they stream, whole and at once.

use std::time::Duration;

use sluice_testkit::{ManualOrigin, Origin, Reply, Wire, http};

use crate::forward::gateway;
use crate::setup::Lines;

const LARGE: usize = 12 * 1024 * 1024;

/// Content whose every part is different, so that a piece lost or doubled shows.
fn content(length: usize) -> Vec<u8> {
    (0..length as u32 / 4).flat_map(u32::to_le_bytes).collect()
}

#[tokio::test]
async fn r19_answers_of_12_mib_pass_whole() {
    let body = content(LARGE);
    let origin = Origin::start(Reply::ok(body.clone())).await;
    let gateway = gateway(&[origin.address()]).await;
    for reply in
        [Reply::ok(body.clone()), Reply::chunked(body.chunks(100_003)), Reply::until_close(body.clone())]
    {
        origin.set_script(reply);
        let answer = http::get(gateway.address("web"), "/").await;
        assert!(answer.body == body, "{} of {LARGE} bytes came", answer.body.len());
    }
}

#[tokio::test]
async fn uploads_of_12_mib_pass_whole() {
    let body = content(LARGE);
    let origin = Origin::start(Reply::ok("thanks")).await;
    let gateway = gateway(&[origin.address()]).await;
    assert_eq!(http::post(gateway.address("web"), "/", &body).await.text(), "thanks");
    assert!(origin.last().body == body);
    let mut wire = Wire::connect(gateway.address("web")).await;
    wire.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    for piece in body.chunks(777_777) {
        wire.send(format!("{:x}\r\n", piece.len())).await.send(piece).await.send("\r\n").await;
    }
    wire.send("0\r\n\r\n").await;
    assert_eq!(wire.answer().await.text(), "thanks");
    assert!(origin.last().body == body);
}

#[tokio::test]
async fn r19_a_stream_may_take_longer_than_every_timeout_that_is_not_for_the_whole() {
    let origin = Origin::start(Reply::ok(vec![b'x'; 500]).dribble(10, Duration::from_millis(30))).await;
    let lines = Lines {
        listener: "timeouts = { head = \"1s\", idle = \"1s\", stall = \"1s\" }",
        upstream: "timeouts = { connect = \"1s\", first_byte = \"1s\", idle = \"1s\" }",
        ..Lines::default()
    };
    let gateway = lines.start(&[origin.address()]).await;
    let began = std::time::Instant::now();
    assert_eq!(http::get(gateway.address("web"), "/").await.body.len(), 500);
    assert!(began.elapsed() > Duration::from_secs(1));
}

#[tokio::test]
async fn each_event_of_a_stream_arrives_before_the_next_is_sent() {
    let origin = ManualOrigin::start().await;
    let gateway = gateway(&[origin.address()]).await;
    let mut client = Wire::connect(gateway.address("web")).await;
    client.send("GET /events HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\n\r\n").await;
    let mut endpoint = origin.accept().await;
    endpoint.request().await;
    endpoint
        .send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        .await;
    assert_eq!(client.head().await.field("content-type"), Some("text/event-stream"));
    for n in 0..20 {
        let event = format!("data: {n:02}\n\n");
        let chunk = format!("{:x}\r\n{event}\r\n", event.len());
        endpoint.send(&chunk).await;
        client.expect(&chunk).await;
    }
    endpoint.send("0\r\n\r\n").await;
    client.expect("0\r\n\r\n").await;
}

#[tokio::test]
async fn each_piece_of_an_upload_arrives_before_the_next_is_sent() {
    let origin = ManualOrigin::start().await;
    let gateway = gateway(&[origin.address()]).await;
    let mut client = Wire::connect(gateway.address("web")).await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 40\r\n\r\n").await;
    let mut endpoint = origin.accept().await;
    endpoint.request_head().await;
    for n in 0..10 {
        client.send(format!("{n:04}")).await;
        endpoint.expect(format!("{n:04}")).await;
    }
    endpoint.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    assert_eq!(client.answer().await.status, 200);
}

#[tokio::test]
async fn request_and_answer_may_stream_at_the_same_time() {
    let origin = ManualOrigin::start().await;
    let gateway = gateway(&[origin.address()]).await;
    let mut client = Wire::connect(gateway.address("web")).await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    let mut endpoint = origin.accept().await;
    endpoint.request_head().await;
    endpoint.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    let answer = client.head().await;
    // When its head left, nobody knew whether the rest of the upload would come.
    assert_eq!((answer.status, answer.field("connection")), (200, Some("close")));
    for turn in ["1\r\na\r\n", "1\r\nb\r\n", "1\r\nc\r\n", "0\r\n\r\n"] {
        client.send(turn).await;
        endpoint.expect(turn).await.send(turn).await;
        client.expect(turn).await;
    }
    client.expect_closed().await;
    let mut client = Wire::connect(gateway.address("web")).await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(endpoint.request().await.method, "GET", "the endpoint's connection goes on");
}

#[tokio::test]
async fn a_client_that_reads_slowly_slows_the_endpoint_down() {
    let origin = ManualOrigin::start().await;
    let gateway = gateway(&[origin.address()]).await;
    let mut client = Wire::connect(gateway.address("web")).await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut endpoint = origin.accept().await;
    endpoint.request().await;
    endpoint.send("HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n").await;
    let piece = vec![b'x'; 1 << 20];
    let mut taken = 0;
    while tokio::time::timeout(Duration::from_millis(500), endpoint.try_send(&piece)).await.is_ok() {
        taken += 1;
        assert!(taken < 200, "200 MiB went somewhere, and the client read none of it");
    }
    assert_eq!(client.head().await.status, 200);
}
