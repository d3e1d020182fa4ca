//! HTTP/1 at the socket: framing, keep-alive, pipelining, interim answers, expectations, trailers.

use sluice_testkit::{Origin, Reply, Script, Wire, http};

use crate::forward::gateway;

#[tokio::test]
async fn pipelined_requests_are_answered_in_order_on_one_connection() {
    let origin = Origin::start(Script::each(|request| Reply::ok(request.target.clone()))).await;
    let gateway = gateway(&[origin.address()]).await;
    let mut wire = Wire::connect(gateway.address("web")).await;
    let requests: String = (0..10).map(|n| format!("GET /{n} HTTP/1.1\r\nHost: a\r\n\r\n")).collect();
    wire.send(requests).await;
    for n in 0..10 {
        assert_eq!(wire.answer().await.text(), format!("/{n}"));
    }
}

#[tokio::test]
async fn a_request_may_come_byte_by_byte() {
    let origin = Origin::start(Reply::echo()).await;
    let gateway = gateway(&[origin.address()]).await;
    let mut wire = Wire::connect(gateway.address("web")).await;
    for byte in b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n" {
        wire.send([*byte]).await;
    }
    assert_eq!(wire.answer().await.json()["body"], "abc");
}

#[tokio::test]
async fn chunked_bodies_pass_both_ways_with_their_trailers() {
    let origin =
        Origin::start(Reply::chunked(["ab", "cd"]).field("Trailer", "X-Sum").trailer("X-Sum", "4")).await;
    let gateway = gateway(&[origin.address()]).await;
    let mut wire = Wire::connect(gateway.address("web")).await;
    wire.send("POST / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nTransfer-Encoding: chunked\r\nTrailer: X-In\r\n\r\n2\r\nhi\r\n0\r\nX-In: 2\r\n\r\n")
        .await;
    let answer = wire.answer().await;
    assert_eq!((answer.text().as_str(), answer.trailers.get("x-sum")), ("abcd", Some("4")));
    let seen = origin.last();
    assert_eq!((seen.text().as_str(), seen.trailers.get("x-in")), ("hi", Some("2")));
}

#[tokio::test]
async fn answers_without_content_keep_the_connection_usable() {
    let origin = Origin::start(Script::each(|request| match request.target.as_str() {
        "/204" => Reply::status(204),
        "/304" => Reply::status(304).field("ETag", "\"x\""),
        _ => Reply::ok("content"),
    }))
    .await;
    let gateway = gateway(&[origin.address()]).await;
    let mut wire = Wire::connect(gateway.address("web")).await;
    for (method, target, status) in
        [("HEAD", "/", 200), ("GET", "/204", 204), ("GET", "/304", 304), ("GET", "/", 200)]
    {
        wire.send(format!("{method} {target} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        let answer = wire.answer_to(method).await;
        assert_eq!(answer.status, status);
        if method == "HEAD" {
            assert_eq!(answer.field("content-length"), Some("7"), "HEAD tells the length of GET");
        }
    }
}

#[tokio::test]
async fn http_1_0_is_answered_and_closed_unless_it_asks_to_stay() {
    let origin = Origin::start(Reply::chunked(["abc"])).await;
    let gateway = gateway(&[origin.address()]).await;
    let mut wire = Wire::connect(gateway.address("web")).await;
    wire.send("GET / HTTP/1.0\r\n\r\n").await;
    let answer = wire.answer().await;
    assert_eq!(answer.text(), "abc");
    assert_eq!(answer.field("transfer-encoding"), None, "HTTP/1.0 knows no chunks");
    wire.expect_closed().await;
    origin.set_script(Reply::ok("abc"));
    let mut wire = Wire::connect(gateway.address("web")).await;
    for _ in 0..2 {
        wire.send("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").await;
        assert_eq!(wire.answer().await.text(), "abc");
    }
}

#[tokio::test]
async fn a_body_that_ends_with_its_connection_is_framed_for_the_client() {
    let origin = Origin::start(Reply::until_close("all of it")).await;
    let gateway = gateway(&[origin.address()]).await;
    let mut wire = Wire::connect(gateway.address("web")).await;
    for _ in 0..2 {
        wire.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert_eq!(wire.answer().await.text(), "all of it");
    }
}

#[tokio::test]
async fn connection_close_is_kept() {
    let origin = Origin::start(Reply::ok("x")).await;
    let gateway = gateway(&[origin.address()]).await;
    let mut wire = Wire::connect(gateway.address("web")).await;
    wire.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    assert_eq!(wire.answer().await.field("connection"), Some("close"));
    wire.expect_closed().await;
}

#[tokio::test]
async fn interim_answers_reach_the_client() {
    let origin = Origin::start(Reply::ok("x").interim(103, &[("Link", "</style.css>; rel=preload")])).await;
    let gateway = gateway(&[origin.address()]).await;
    let mut wire = Wire::connect(gateway.address("web")).await;
    wire.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let early = wire.head().await;
    assert_eq!((early.status, early.field("link")), (103, Some("</style.css>; rel=preload")));
    assert_eq!(wire.answer().await.status, 200);
}

#[tokio::test]
async fn an_expectation_is_met_by_the_endpoint_or_answered_finally() {
    let origin = Origin::start(Reply::status(413).early().close().then(Reply::echo())).await;
    let gateway = gateway(&[origin.address()]).await;
    let asked = "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n";
    let mut wire = Wire::connect(gateway.address("web")).await;
    wire.send(asked).await;
    assert_eq!(wire.answer().await.status, 413);
    let mut wire = Wire::connect(gateway.address("web")).await;
    wire.send(asked).await;
    assert_eq!(wire.head().await.status, 100);
    wire.send("body").await;
    assert_eq!(wire.answer().await.json()["body"], "body");
}

#[tokio::test]
async fn an_early_final_answer_reaches_a_client_that_still_sends() {
    let origin = Origin::start(Reply::status(403).early()).await;
    let gateway = gateway(&[origin.address()]).await;
    let mut wire = Wire::connect(gateway.address("web")).await;
    wire.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\nsome").await;
    assert_eq!(wire.answer().await.status, 403);
}

#[tokio::test]
async fn a_method_nobody_knows_passes_through() {
    let origin = Origin::start(Reply::echo()).await;
    let gateway = gateway(&[origin.address()]).await;
    let answer = http::request(gateway.address("web"), "PROPFIND", "/x", &[], b"").await;
    assert_eq!(answer.json()["method"], "PROPFIND");
}

#[tokio::test]
async fn an_absolute_target_decides_the_host_and_arrives_in_origin_form() {
    let origin = Origin::start(Reply::echo()).await;
    let gateway = gateway(&[origin.address()]).await;
    let mut wire = Wire::connect(gateway.address("web")).await;
    wire.send("GET http://shop.example/x?y HTTP/1.1\r\nHost: shop.example\r\n\r\n").await;
    assert_eq!(wire.answer().await.json()["target"], "/x?y");
    assert_eq!(origin.last().field("host"), Some("shop.example"));
}
