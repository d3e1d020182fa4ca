//! Expect: 100-continue and interim answers (RFC 9110 sections 10.1.1 and 15.2).

use std::time::{Duration, Instant};

use sluice_testkit::{ManualOrigin, Origin, Reply, Wire, http};

use crate::forward::gateway;
use crate::setup::base;
use sluice_testkit::Gateway;

const ASKED: &str = "POST /up HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const CONTINUE: &str = "HTTP/1.1 100 Continue\r\n\r\n";

/// A client that asked, and the endpoint's end of the exchange, which has the head.
async fn asked(origin: &ManualOrigin, gateway: &Gateway) -> (Wire, Wire) {
    let mut client = Wire::connect(gateway.address("web")).await;
    client.send(ASKED).await;
    let mut endpoint = origin.accept().await;
    let head = endpoint.request_head().await;
    assert_eq!(head.field("expect"), Some("100-continue"), "{:?}", head.fields);
    (client, endpoint)
}

#[tokio::test]
async fn the_body_waits_for_the_endpoints_100() {
    let origin = ManualOrigin::start().await;
    let gateway = gateway(&[origin.address()]).await;
    let (mut client, mut endpoint) = asked(&origin, &gateway).await;
    endpoint.send(CONTINUE).await;
    assert_eq!(client.head().await.status, 100);
    client.send("body").await;
    endpoint.expect("body").await.send(OK).await;
    let answer = client.head().await;
    assert_eq!(answer.status, 200, "exactly one 100 came before the answer");
    client.expect("ok").await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(endpoint.request().await.method, "GET", "both connections go on");
    endpoint.send(OK).await;
    assert_eq!(client.answer().await.text(), "ok");
}

#[tokio::test]
async fn an_endpoint_may_answer_instead_of_100_and_the_client_is_never_told_to_go_on() {
    for status in [417, 401, 200] {
        let origin = ManualOrigin::start().await;
        let gateway = gateway(&[origin.address()]).await;
        let (mut client, mut endpoint) = asked(&origin, &gateway).await;
        endpoint.send(format!("HTTP/1.1 {status} X\r\nContent-Length: 5\r\n\r\nfinal")).await;
        let answer = client.head().await;
        assert_eq!(answer.status, status, "no 100 came first");
        client.expect("final").await;
        // Whether the body still comes is for the client to know: the connection cannot go on.
        assert_eq!(answer.field("connection"), Some("close"));
        client.expect_closed().await;
        assert!(endpoint.read_to_end().await.is_empty(), "the endpoint got no byte of a body");
    }
}

#[tokio::test]
async fn a_body_goes_after_a_second_when_the_endpoint_never_says_100() {
    let origin = ManualOrigin::start().await;
    let gateway = gateway(&[origin.address()]).await;
    let began = Instant::now();
    let (mut client, mut endpoint) = asked(&origin, &gateway).await;
    assert_eq!(client.head().await.status, 100, "the gateway says it");
    assert!(began.elapsed() >= Duration::from_millis(900), "after {:?}", began.elapsed());
    client.send("body").await;
    endpoint.expect("body").await;
    // Too late: the client has been told.
    endpoint.send(CONTINUE).await;
    endpoint.send(OK).await;
    assert_eq!(client.head().await.status, 200, "one 100 and no more");
    client.expect("ok").await;
}

#[tokio::test]
async fn a_client_that_does_not_wait_for_100_is_served_too() {
    let origin = Origin::start(Reply::echo()).await;
    let gateway = gateway(&[origin.address()]).await;
    let mut client = Wire::connect(gateway.address("web")).await;
    for _ in 0..3 {
        client.send(format!("{ASKED}body")).await;
        assert_eq!(client.answer().await.json()["body"], "body");
    }
    client.send(ASKED.replace("Content-Length: 4", "Transfer-Encoding: chunked")).await;
    client.send("4\r\nbody\r\n0\r\n\r\n").await;
    assert_eq!(client.answer().await.json()["body"], "body");
}

#[tokio::test]
async fn an_expectation_nobody_knows_is_refused_with_417() {
    let origin = Origin::start(Reply::ok("")).await;
    let gateway = gateway(&[origin.address()]).await;
    let fields = [("Expect", "the-unexpected")];
    let answer = http::get_with(gateway.address("web"), "/", &fields).await;
    assert_eq!((answer.status, answer.code().as_str()), (417, "expectation-failed"));
    assert_eq!(origin.bytes(), 0);
}

#[tokio::test]
async fn an_answer_of_the_gateway_itself_comes_without_100() {
    let document = base("") + "[[routes]]\nname = \"a\"\nrespond = { status = 403, body = \"no\" }\n";
    let gateway = Gateway::start(&document).await;
    let mut client = Wire::connect(gateway.address("web")).await;
    client.send(ASKED).await;
    assert_eq!(client.head().await.status, 403);
    client.expect("no").await.expect_closed().await;
}

#[tokio::test]
async fn an_http_1_0_client_gets_no_interim_answer() {
    let origin = Origin::start(Reply::ok("x").interim(103, &[("Link", "</a.css>; rel=preload")])).await;
    let gateway = gateway(&[origin.address()]).await;
    let mut client = Wire::connect(gateway.address("web")).await;
    client.send("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").await;
    assert_eq!(client.head().await.status, 200);
    client.expect("x").await;
    // HTTP/1.0 knows no expectations either: the field says nothing.
    let asked = "POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n";
    client.send(asked).await;
    client.send("body").await;
    assert_eq!(client.head().await.status, 200);
    assert_eq!(origin.last().text(), "body");
}

#[tokio::test]
async fn interim_answers_keep_their_order_and_fields() {
    let hints = Reply::ok("x")
        .interim(103, &[("Link", "</a.css>; rel=preload"), ("X-Hint", "1")])
        .interim(103, &[("Link", "</b.js>; rel=preload")])
        .interim(102, &[]);
    let origin = Origin::start(hints).await;
    let gateway = gateway(&[origin.address()]).await;
    let mut client = Wire::connect(gateway.address("web")).await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let first = client.head().await;
    assert_eq!((first.status, first.field("x-hint")), (103, Some("1")));
    assert_eq!(client.head().await.field("link"), Some("</b.js>; rel=preload"));
    assert_eq!(client.head().await.status, 102);
    assert_eq!(client.answer().await.text(), "x");
}
