//! gRPC-Web at the socket: what the endpoint sees, what the browser sees.

use std::net::SocketAddr;

use sluice_testkit::{Answer, Gateway, Origin, Reply, free_port, http};

use crate::setup::Lines;

const ROUTE: &str = "filters = [{ grpc_web = {} }]";
/// A message of three bytes, and the same in base64.
const MESSAGE: &[u8] = b"\0\0\0\0\x03abc";
const MESSAGE_TEXT: &[u8] = b"AAAAAANhYmM=";

/// The frame of these trailers.
fn trailers(text: &str) -> Vec<u8> {
    [&[0x80, 0, 0, 0, u8::try_from(text.len()).unwrap()], text.as_bytes()].concat()
}

async fn call(gateway: &Gateway, content_type: &str, body: &[u8]) -> Answer {
    let fields = [("Content-Type", content_type), ("Grpc-Timeout", "1S"), ("X-Own", "1")];
    http::request(gateway.address("web"), "POST", "/shop.Shop/Buy", &fields, body).await
}

#[tokio::test]
async fn a_call_is_translated_both_ways() {
    let reply = Reply::chunked(["\0\0\0\0\x03", "xyz"]).field("Content-Type", "application/grpc+proto");
    let origin = Origin::start(reply.trailer("Grpc-Status", "0").trailer("X-Sum", "3")).await;
    let gateway = Lines { route: ROUTE, ..Lines::default() }.start(&[origin.address()]).await;
    let answer = call(&gateway, "application/grpc-web+proto", MESSAGE).await;
    assert_eq!((answer.status, answer.field("content-type")), (200, Some("application/grpc-web+proto")));
    let expected = [&b"\0\0\0\0\x03xyz"[..], &trailers("grpc-status: 0\r\nx-sum: 3\r\n")].concat();
    assert_eq!(answer.body, expected);
    let seen = origin.last();
    assert_eq!(
        (seen.field("content-type"), seen.field("te")),
        (Some("application/grpc+proto"), Some("trailers"))
    );
    // What is left of the second that the client gave.
    assert!(seen.field("grpc-timeout").is_some_and(|left| left.ends_with(['u', 'm'])), "{:?}", seen.fields);
    assert_eq!(seen.field("x-own"), Some("1"));
    assert_eq!(seen.body, MESSAGE);
}

#[tokio::test]
async fn a_text_call_is_decoded_and_its_answer_encoded() {
    let reply = Reply::chunked(["\0\0\0\0\x03xyz"]).field("Content-Type", "application/grpc");
    let origin = Origin::start(reply.trailer("Grpc-Status", "0")).await;
    let gateway = Lines { route: ROUTE, ..Lines::default() }.start(&[origin.address()]).await;
    let answer = call(&gateway, "application/grpc-web-text", MESSAGE_TEXT).await;
    assert_eq!(answer.field("content-type"), Some("application/grpc-web-text"));
    assert!(answer.text().ends_with("gAAAABBncnBjLXN0YXR1czogMA0K"), "{}", answer.text());
    assert_eq!(origin.last().body, MESSAGE);
}

#[tokio::test]
async fn a_failure_reaches_the_client_as_grpc_web_with_and_without_the_filter() {
    let gone = SocketAddr::from(([127, 0, 0, 1], free_port()));
    for route in [ROUTE, ""] {
        let gateway = Lines { route, ..Lines::default() }.start(&[gone]).await;
        let answer = call(&gateway, "application/grpc-web", MESSAGE).await;
        assert_eq!((answer.status, answer.field("content-type")), (200, Some("application/grpc-web")));
        assert_eq!((answer.body[0], answer.field("grpc-status")), (0x80, None), "{}", answer.text());
        assert!(answer.text().contains("grpc-status: 14\r\ngrpc-message: "), "{}", answer.text());
    }
}

#[tokio::test]
async fn grpc_itself_passes_untouched() {
    let reply = Reply::ok("").field("Content-Type", "application/grpc").field("Grpc-Status", "5");
    let origin = Origin::start(reply).await;
    let gateway = Lines { route: ROUTE, ..Lines::default() }.start(&[origin.address()]).await;
    let answer = call(&gateway, "application/grpc", MESSAGE).await;
    assert_eq!(
        (answer.field("content-type"), answer.field("grpc-status")),
        (Some("application/grpc"), Some("5"))
    );
    assert_eq!(origin.last().field("content-type"), Some("application/grpc"));
}
