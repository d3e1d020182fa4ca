//! How soon things arrive at the other end, with our connector's process in between, in both versions.
//!
//! A machine that runs other tests may be late for reasons of its own: a bound holds when the best of some rounds
//! keeps it, and something that buffers or waits for a timer keeps it in none.

use std::time::{Duration, Instant};

use sluice_testkit::{Gateway, ManualOrigin, Wire};

use super::gateway;
use crate::connect::VERSIONS;
use crate::connect::child::Connector;

const ROUNDS: usize = 10;

/// A gateway, and a connector of this version before a target.
async fn published(version: &str) -> (Gateway, Connector, ManualOrigin) {
    let origin = ManualOrigin::start().await;
    let gateway = gateway("").await;
    let connector = Connector::publish(gateway.address("tunnels"), origin.address(), version).await;
    (gateway, connector, origin)
}

/// A request that its target has seen, and not answered.
async fn asked(gateway: &Gateway, origin: &ManualOrigin) -> (Wire, Wire) {
    let mut client = Wire::connect(gateway.address("web")).await;
    client.send("GET /shop/slow HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut target = origin.accept().await;
    target.request().await;
    (client, target)
}

/// A request whose answer has begun.
async fn begun(gateway: &Gateway, origin: &ManualOrigin) -> (Wire, Wire) {
    let (mut client, mut target) = asked(gateway, origin).await;
    target
        .send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        .await;
    assert_eq!(client.head().await.status, 200);
    (client, target)
}

#[tokio::test]
async fn each_tick_of_a_stream_arrives_within_50_ms() {
    for version in VERSIONS {
        let (gateway, _connector, origin) = published(version).await;
        let (mut client, mut target) = begun(&gateway, &origin).await;
        let mut best = Duration::MAX;
        for round in 0..ROUNDS {
            let mut slowest = Duration::ZERO;
            for tick in 0..10 {
                let chunk = format!("11\r\ndata: {round:>4}{tick:>5}\n\n\r\n");
                let sent = Instant::now();
                target.send(&chunk).await;
                client.expect(&chunk).await;
                slowest = slowest.max(sent.elapsed());
            }
            best = best.min(slowest);
        }
        assert!(best <= Duration::from_millis(50), "{version}: a tick took {best:?}");
    }
}

#[tokio::test]
async fn each_piece_of_an_upload_arrives_within_50_ms() {
    for version in VERSIONS {
        let (gateway, _connector, origin) = published(version).await;
        let mut client = Wire::connect(gateway.address("web")).await;
        client.send("POST /shop/up HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n").await;
        let mut target = origin.accept().await;
        target.request_head().await;
        let mut best = Duration::MAX;
        for _ in 0..ROUNDS {
            let sent = Instant::now();
            client.send("5\r\npiece\r\n").await;
            target.expect("5\r\npiece\r\n").await;
            best = best.min(sent.elapsed());
        }
        assert!(best <= Duration::from_millis(50), "{version}: a piece took {best:?}");
        client.send("0\r\n\r\n").await;
        target.expect("0\r\n\r\n").await;
        target.send("HTTP/1.1 204 No Content\r\n\r\n").await;
        assert_eq!(client.answer().await.status, 204);
    }
}

#[tokio::test]
async fn a_client_that_leaves_is_noticed_by_the_target_within_100_ms() {
    for version in VERSIONS {
        let (gateway, _connector, origin) = published(version).await;
        for has_begun in [true, false] {
            let mut best = Duration::MAX;
            for round in 0..ROUNDS {
                let (client, mut target) = match has_begun {
                    true => begun(&gateway, &origin).await,
                    false => asked(&gateway, &origin).await,
                };
                let left = Instant::now();
                // In turns: an orderly end, and a reset.
                match round % 2 {
                    0 => drop(client),
                    _ => client.reset(),
                }
                target.expect_closed().await;
                best = best.min(left.elapsed());
            }
            assert!(best <= Duration::from_millis(100), "{version}, begun: {has_begun}: it took {best:?}");
        }
    }
}

#[tokio::test]
async fn a_target_that_dies_in_the_middle_is_an_abort_at_once_however_it_dies() {
    for version in VERSIONS {
        let (gateway, _connector, origin) = published(version).await;
        for (framing, content) in
            [("Transfer-Encoding: chunked", "4\r\npart\r\n"), ("Content-Length: 10", "part")]
        {
            let mut best = Duration::MAX;
            for round in 0..ROUNDS {
                let (mut client, mut target) = asked(&gateway, &origin).await;
                target.send(format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n{content}")).await;
                assert_eq!(client.head().await.status, 200);
                client.expect(content).await;
                let died = Instant::now();
                match round % 2 {
                    0 => drop(target),
                    _ => target.reset(),
                }
                // Nothing more: no last chunk, and not the bytes that were announced.
                let rest = client.try_read_to_end().await.unwrap_or_default();
                best = best.min(died.elapsed());
                assert!(rest.is_empty(), "{version}: {:?}", String::from_utf8_lossy(&rest));
            }
            assert!(best <= Duration::from_millis(100), "{version}: it took {best:?}");
        }
    }
}

#[tokio::test]
async fn trailers_come_through_3_0_and_are_left_out_in_1_0() {
    for version in VERSIONS {
        let (gateway, _connector, origin) = published(version).await;
        let mut client = Wire::connect(gateway.address("web")).await;
        client.send("GET /shop/ HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: TE\r\n\r\n").await;
        let mut target = origin.accept().await;
        target.request().await;
        target
            .send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 7\r\n\r\n")
            .await;
        let answer = client.answer().await;
        let expected = if version == "3.0" { Some("7") } else { None };
        assert_eq!((answer.text().as_str(), answer.trailers.get("x-sum")), ("ok", expected), "{version}");
    }
}
