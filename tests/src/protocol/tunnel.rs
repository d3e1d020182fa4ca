//! Upgrades: a byte tunnel where the route allows it, an ordinary exchange where it does not.

use std::time::Duration;

use sluice_testkit::{Gateway, ManualOrigin, Origin, Reply, Signal, Wire, eventually, http};

use crate::forward::gateway;
use crate::setup::Lines;

const ASKED: &str = "GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                     Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
const AGREED: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                      Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
const UPGRADES: Lines<'_> =
    Lines { listener: "", route: "", forward: "upgrade = true", upstream: "", more: "" };

/// A tunnel: the client's end and the endpoint's.
async fn tunnel(origin: &ManualOrigin, gateway: &Gateway) -> (Wire, Wire) {
    let mut client = Wire::connect(gateway.address("web")).await;
    client.send(ASKED).await;
    let mut endpoint = origin.accept().await;
    let asked = endpoint.request_head().await;
    assert_eq!(asked.field("upgrade"), Some("websocket"));
    assert!(asked.field("connection").is_some_and(|value| value.eq_ignore_ascii_case("upgrade")));
    assert_eq!(asked.field("sec-websocket-key"), Some("dGhlIHNhbXBsZSBub25jZQ=="));
    endpoint.send(AGREED).await;
    let agreed = client.head().await;
    assert_eq!((agreed.status, agreed.field("upgrade")), (101, Some("websocket")));
    assert!(agreed.field("connection").is_some_and(|value| value.eq_ignore_ascii_case("upgrade")));
    assert_eq!(agreed.field("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    (client, endpoint)
}

#[tokio::test]
async fn bytes_pass_both_ways_as_they_are() {
    let origin = ManualOrigin::start().await;
    let gateway = UPGRADES.start(&[origin.address()]).await;
    let (mut client, mut endpoint) = tunnel(&origin, &gateway).await;
    let every_byte: Vec<u8> = (0..=255).collect();
    for _ in 0..3 {
        client.send(&every_byte).await;
        endpoint.expect(&every_byte).await.send("0\r\n\r\nGET /not HTTP\r\n\r\n").await;
        client.expect("0\r\n\r\nGET /not HTTP\r\n\r\n").await;
    }
    drop(client);
    endpoint.expect_closed().await;
}

#[tokio::test]
async fn bytes_that_come_with_the_heads_are_not_lost() {
    let origin = ManualOrigin::start().await;
    let gateway = UPGRADES.start(&[origin.address()]).await;
    let mut client = Wire::connect(gateway.address("web")).await;
    client.send(format!("{ASKED}early")).await;
    let mut endpoint = origin.accept().await;
    endpoint.request_head().await;
    endpoint.send(format!("{AGREED}hello")).await;
    assert_eq!(client.head().await.status, 101);
    client.expect("hello").await;
    endpoint.expect("early").await;
}

#[tokio::test]
async fn much_passes_both_ways_at_the_same_time() {
    let origin = Origin::start(Reply::upgrade("echo")).await;
    let gateway = UPGRADES.start(&[origin.address()]).await;
    let mut client = Wire::connect(gateway.address("web")).await;
    client.send(ASKED.replace("websocket", "echo")).await;
    assert_eq!(client.head().await.status, 101);
    let piece: Vec<u8> = (0..100_000u32).flat_map(u32::to_le_bytes).collect();
    for _ in 0..20 {
        client.send(&piece).await;
        assert!(client.read(piece.len()).await == piece);
    }
}

#[tokio::test]
async fn each_side_may_finish_first_and_still_listen() {
    let origin = ManualOrigin::start().await;
    let gateway = UPGRADES.start(&[origin.address()]).await;
    let (mut client, mut endpoint) = tunnel(&origin, &gateway).await;
    client.send("last words").await.half_close().await;
    assert_eq!(endpoint.read_to_end().await, b"last words");
    endpoint.send("the answer").await;
    client.expect("the answer").await;
    drop(endpoint);
    client.expect_closed().await;
    let (mut client, mut endpoint) = tunnel(&origin, &gateway).await;
    endpoint.half_close().await;
    client.expect_closed().await;
    client.send("still here").await;
    endpoint.expect("still here").await;
    drop(client);
    endpoint.expect_closed().await;
}

#[tokio::test]
async fn a_tunnel_closes_when_nothing_moves_and_only_then() {
    let origin = ManualOrigin::start().await;
    let lines = Lines { listener: "timeouts.idle = \"1s\"", ..UPGRADES };
    let gateway = lines.start(&[origin.address()]).await;
    let (mut client, mut endpoint) = tunnel(&origin, &gateway).await;
    let mut turns = tokio::time::interval(Duration::from_millis(60));
    for _ in 0..24 {
        turns.tick().await;
        endpoint.send("tick").await;
        client.expect("tick").await;
    }
    for _ in 0..24 {
        turns.tick().await;
        client.send("tock").await;
        endpoint.expect("tock").await;
    }
    client.expect_closed().await;
    endpoint.expect_closed().await;
}

#[tokio::test]
async fn a_broken_side_breaks_the_other() {
    let origin = ManualOrigin::start().await;
    let gateway = UPGRADES.start(&[origin.address()]).await;
    let (mut client, endpoint) = tunnel(&origin, &gateway).await;
    endpoint.reset();
    client.expect_closed().await;
    let (client, mut endpoint) = tunnel(&origin, &gateway).await;
    client.reset();
    endpoint.expect_closed().await;
}

#[tokio::test]
async fn r13_an_upgrade_where_the_route_does_not_allow_it_is_an_ordinary_request() {
    let origin = Origin::start(Reply::echo()).await;
    let gateway = gateway(&[origin.address()]).await;
    let mut client = Wire::connect(gateway.address("web")).await;
    for _ in 0..2 {
        client.send(ASKED).await;
        let answer = client.answer().await;
        assert_eq!(answer.status, 200);
        assert_eq!((origin.last().field("upgrade"), origin.last().field("connection")), (None, None));
    }
    assert_eq!(http::get(gateway.admin(), "/livez").await.status, 200, "the process lives");
}

#[tokio::test]
async fn an_endpoint_may_refuse_to_switch() {
    let origin = Origin::start(Reply::status(426).field("Upgrade", "h2c").then(Reply::ok("plain"))).await;
    let gateway = UPGRADES.start(&[origin.address()]).await;
    let mut client = Wire::connect(gateway.address("web")).await;
    client.send(ASKED).await;
    let answer = client.answer().await;
    assert_eq!((answer.status, answer.field("upgrade")), (426, Some("h2c")));
    client.send(ASKED).await;
    assert_eq!(client.answer().await.text(), "plain", "the connection goes on");
}

#[tokio::test]
async fn a_101_nobody_asked_for_is_502() {
    let origin = Origin::start(Reply::upgrade("websocket")).await;
    let gateway = UPGRADES.start(&[origin.address()]).await;
    let answer = http::get(gateway.address("web"), "/").await;
    assert_eq!((answer.status, answer.code().as_str()), (502, "upgrade-refused"));
    origin.wait_open(0).await;
}

#[tokio::test]
async fn a_drain_does_not_wait_for_a_tunnel_beyond_its_deadline() {
    let origin = ManualOrigin::start().await;
    let document = UPGRADES.document(&[origin.address()]);
    let document = document.replace("workers = 1", "workers = 1\ndrain_timeout = \"300ms\"");
    let mut gateway = Gateway::start(&document).await;
    let (mut client, mut endpoint) = tunnel(&origin, &gateway).await;
    gateway.signal(Signal::Term).await;
    client.send("still").await;
    endpoint.expect("still").await;
    gateway.wait_exit().await;
    client.expect_closed().await;
    endpoint.expect_closed().await;
}

#[tokio::test]
async fn an_http_1_0_client_cannot_ask_for_an_upgrade() {
    let origin = Origin::start(Reply::echo()).await;
    let gateway = UPGRADES.start(&[origin.address()]).await;
    let mut client = Wire::connect(gateway.address("web")).await;
    client.send(ASKED.replace("HTTP/1.1", "HTTP/1.0")).await;
    assert_eq!(client.answer().await.status, 200);
    assert_eq!(origin.last().field("upgrade"), None);
}

#[tokio::test]
async fn a_tunnel_counts_at_its_endpoint_until_it_ends() {
    let origin = ManualOrigin::start().await;
    let gateway = UPGRADES.start(&[origin.address()]).await;
    let (client, endpoint) = tunnel(&origin, &gateway).await;
    assert_eq!(gateway.metric("sluice_endpoint_in_flight", &[]).await, 1.0);
    drop(client);
    drop(endpoint);
    eventually("nothing in flight", async || {
        (gateway.metric("sluice_endpoint_in_flight", &[]).await == 0.0).then_some(())
    })
    .await;
}
