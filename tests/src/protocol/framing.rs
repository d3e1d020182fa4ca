//! Where messages end: lengths, chunks, trailers, answers without content, HTTP/1.0 clients.

use sluice_testkit::{Origin, Reply, Script, Wire};

use crate::forward::gateway;

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

#[tokio::test]
async fn each_framing_of_an_answer_reaches_each_kind_of_client() {
    let origin = Origin::start(Script::each(|request| match request.target.as_str() {
        "/sized" => Reply::ok("content"),
        "/chunked" => Reply::chunked(["con", "tent"]),
        _ => Reply::until_close("content"),
    }))
    .await;
    let gateway = gateway(&[origin.address()]).await;
    for (target, length, coding) in
        [("/sized", Some("7"), None), ("/chunked", None, Some("chunked")), ("/close", None, Some("chunked"))]
    {
        let mut wire = Wire::connect(gateway.address("web")).await;
        wire.send(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        let answer = wire.answer().await;
        assert_eq!(answer.text(), "content", "{target}");
        let framing = (answer.field("content-length"), answer.field("transfer-encoding"));
        assert_eq!(framing, (length, coding), "{target}");
        wire.send(GET).await;
        assert_eq!(wire.answer().await.text(), "content", "the connection goes on after {target}");
        let mut old = Wire::connect(gateway.address("web")).await;
        old.send(format!("GET {target} HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")).await;
        let answer = old.answer().await;
        assert_eq!((answer.text().as_str(), answer.field("transfer-encoding")), ("content", None));
        assert_eq!(answer.field("content-length"), length, "{target} to HTTP/1.0");
        match length {
            Some(_) => assert_eq!(answer.field("connection"), Some("keep-alive")),
            None => old.expect_closed().await,
        }
    }
}

#[tokio::test]
async fn chunks_of_a_request_are_framed_again_and_a_length_stays_one() {
    let origin = Origin::start(Reply::ok("")).await;
    let gateway = gateway(&[origin.address()]).await;
    let mut wire = Wire::connect(gateway.address("web")).await;
    wire.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    wire.send("4;ext=\"a;b\"\r\nWiki\r\n05\r\npedia\r\n0\r\n\r\n").await;
    wire.answer().await;
    let seen = origin.last();
    assert_eq!((seen.text().as_str(), seen.field("content-length")), ("Wikipedia", None));
    assert_eq!(seen.field("transfer-encoding"), Some("chunked"));
    assert!(!String::from_utf8_lossy(&seen.body_on_wire).contains("ext"), "extensions are for one hop");
    wire.send("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nWikipedia").await;
    wire.answer().await;
    let seen = origin.last();
    assert_eq!((seen.text().as_str(), seen.field("content-length")), ("Wikipedia", Some("9")));
    assert_eq!(seen.field("transfer-encoding"), None);
}

#[tokio::test]
async fn trailers_go_both_ways_and_not_to_http_1_0() {
    let reply =
        || Reply::chunked(["abc"]).field("Trailer", "X-Sum, X-B").trailer("X-Sum", "3").trailer("X-B", "b");
    let origin = Origin::start(reply()).await;
    let gateway = gateway(&[origin.address()]).await;
    let mut wire = Wire::connect(gateway.address("web")).await;
    let head =
        "POST / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nTrailer: X-In\r\nTransfer-Encoding: chunked\r\n\r\n";
    wire.send(format!("{head}2\r\nhi\r\n0\r\nX-In: 2\r\nX-More: m\r\n\r\n")).await;
    let answer = wire.answer().await;
    assert_eq!((answer.trailers.get("x-sum"), answer.trailers.get("x-b")), (Some("3"), Some("b")));
    assert_eq!(answer.field("trailer"), Some("X-Sum, X-B"));
    let seen = origin.last();
    assert_eq!((seen.trailers.get("x-in"), seen.trailers.get("x-more")), (Some("2"), Some("m")));
    assert_eq!((seen.field("te"), seen.field("trailer")), (Some("trailers"), Some("X-In")));
    let mut old = Wire::connect(gateway.address("web")).await;
    old.send("GET / HTTP/1.0\r\n\r\n").await;
    let answer = old.answer().await;
    assert_eq!((answer.text().as_str(), answer.field("trailer")), ("abc", None));
}

#[tokio::test]
async fn a_trailer_cannot_smuggle_what_belongs_into_a_head() {
    let reply = Reply::chunked(["abc"])
        .trailer("X-Fine", "1")
        .trailer("Content-Type", "text/evil")
        .trailer("Set-Cookie", "a=b");
    let origin = Origin::start(reply).await;
    let gateway = gateway(&[origin.address()]).await;
    let mut wire = Wire::connect(gateway.address("web")).await;
    wire.send("GET / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\n\r\n").await;
    match wire.try_answer_to("GET").await {
        Ok(answer) => {
            assert_eq!((answer.text().as_str(), answer.trailers.get("x-fine")), ("abc", Some("1")));
            assert_eq!(
                (answer.trailers.get("content-type"), answer.trailers.get("set-cookie")),
                (None, None)
            );
        }
        // Refusing the whole message is as safe; the client must see that it is broken.
        Err(problem) => assert!(problem.contains("middle"), "{problem}"),
    }
}

#[tokio::test]
async fn answers_without_content_end_at_their_head_whatever_they_announce() {
    let origin = Origin::start(Script::each(|request| match request.target.as_str() {
        "/204" => Reply::raw("HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n"),
        "/304" => Reply::raw("HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\nContent-Length: 5\r\n\r\n"),
        "/head-sized" => Reply::raw("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"),
        "/head-chunked" => Reply::raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
        "/head-404" => Reply::raw("HTTP/1.1 404 Not Found\r\nContent-Length: 5\r\n\r\n"),
        _ => Reply::ok("next"),
    }))
    .await;
    let gateway = gateway(&[origin.address()]).await;
    let cases = [
        ("GET", "/204", "204", None),
        ("GET", "/304", "304", Some("5")),
        ("HEAD", "/head-sized", "200", Some("5")),
        ("HEAD", "/head-chunked", "200", None),
        ("HEAD", "/head-404", "404", Some("5")),
    ];
    let mut wire = Wire::connect(gateway.address("web")).await;
    for (method, target, status, length) in cases {
        wire.send(format!("{method} {target} HTTP/1.1\r\nHost: a\r\n\r\n{GET}")).await;
        let answer = wire.head().await;
        assert_eq!(answer.status.to_string(), status, "{method} {target}");
        assert_eq!(answer.field("content-length"), length, "{method} {target}");
        assert_eq!(wire.answer().await.text(), "next", "right after the head of {method} {target}");
    }
    assert_eq!(origin.connections(), 1, "the endpoint's connection went on as well");
}

#[tokio::test]
async fn a_head_request_to_a_failure_gets_no_body() {
    let mut origin = Origin::start(Reply::ok("")).await;
    origin.stop().await;
    let gateway = gateway(&[origin.address()]).await;
    let mut wire = Wire::connect(gateway.address("web")).await;
    for _ in 0..2 {
        wire.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert_eq!(wire.head().await.status, 502);
    }
}

#[tokio::test]
async fn an_empty_body_is_no_body_and_a_post_says_so() {
    let origin = Origin::start(Reply::ok("")).await;
    let gateway = gateway(&[origin.address()]).await;
    let mut wire = Wire::connect(gateway.address("web")).await;
    for (request, length) in [
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", None),
        ("DELETE / HTTP/1.1\r\nHost: a\r\n\r\n", None),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", Some("0")),
    ] {
        wire.send(request).await;
        assert_eq!(wire.answer().await.field("content-length"), Some("0"));
        let seen = origin.last();
        assert_eq!((seen.field("content-length"), seen.field("transfer-encoding")), (length, None));
    }
}
