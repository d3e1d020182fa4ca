//! Much at once, and much in one piece: both versions.

use sha2::{Digest as _, Sha256};
use sluice_testkit::{Gateway, ManualOrigin, Origin, Program, Reply, Wire, http};
use sluice_tunnel::registration::Version;
use tokio::task::JoinSet;

use super::connector::Running;
use super::document;

const BOTH: [Version; 2] = [Version::V1, Version::V3];

/// Requests at a time.
const CROWD: usize = 2_000;
/// Open files of this process: a client, a target, and both ends of the connector for each of them, and what other
/// tests use meanwhile.
const FILES: usize = 6 * CROWD;

/// Bytes of a stream, of the pieces in which it is sent, and of the one before it that brings everything to its
/// working size.
const STREAM: usize = 256 * MIB;
const PIECE: usize = MIB;
const FIRST: usize = 64 * MIB;
const MIB: usize = 1 << 20;
/// Bytes that the gateway's memory may grow by while a stream passes. The allocator takes 32 MiB at a time, and a debug
/// build has up to 100 MiB of buffers in the end, as much for 512 MiB as for 128 (measured). `bench tunnel` has a bar of
/// 4 MiB for 1 GiB, for a release build.
const GROWTH: usize = 96 * MIB;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_thousand_slow_exchanges_run_at_once() {
    let id = std::process::id().to_string();
    let raised = Program::at("/usr/bin/prlimit")
        .arguments(["--pid", &id, &format!("--nofile={FILES}:")])
        .finish()
        .await;
    assert!(raised.status.success(), "cannot open so many files: {}", raised.stderr);
    for version in BOTH {
        let origin = Origin::start(Reply::ok("at last").held()).await;
        let gateway = Gateway::start(&document("10s", "", "")).await;
        let _connector = Running::start(&gateway, "shop", origin.address(), version).await;
        let web = gateway.address("web");
        let mut crowd = JoinSet::new();
        for number in 0..CROWD {
            crowd.spawn(async move { http::get(web, &format!("/shop/{number}")).await });
        }
        // None has its answer before all are there.
        origin.wait_held(CROWD).await;
        origin.release();
        while let Some(answer) = crowd.join_next().await {
            let answer = answer.unwrap();
            assert_eq!((answer.status, answer.text().as_str()), (200, "at last"), "{version}");
        }
        assert_eq!(origin.count(), CROWD, "{version}");
    }
}

#[tokio::test]
async fn memory_stays_flat_while_long_streams_pass_unchanged() {
    for version in BOTH {
        let origin = ManualOrigin::start().await;
        let gateway = Gateway::start(&document("10s", "", "")).await;
        let _connector = Running::start(&gateway, "shop", origin.address(), version).await;
        both_ways(&gateway, &origin, FIRST).await;
        let before = peak(&gateway);
        both_ways(&gateway, &origin, STREAM).await;
        let grown = peak(&gateway).saturating_sub(before);
        assert!(grown <= GROWTH, "{version}: {grown} bytes more than {before}");
    }
}

/// A stream up, and one down.
async fn both_ways(gateway: &Gateway, origin: &ManualOrigin, length: usize) {
    let web = gateway.address("web");
    let (mut client, mut target) =
        call(origin, web, &format!("PUT /shop HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n\r\n"))
            .await;
    let (sent, came) = tokio::join!(send(&mut client, length), receive(&mut target, length));
    assert_eq!(sent, came);
    target.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").await;
    assert_eq!(client.answer().await.status, 200);
    let (mut client, mut target) = call(origin, web, "GET /shop HTTP/1.1\r\nHost: h\r\n\r\n").await;
    target.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n")).await;
    assert_eq!(client.head().await.status, 200);
    let (sent, came) = tokio::join!(send(&mut target, length), receive(&mut client, length));
    assert_eq!(sent, came);
}

/// A client and its target, when the head of the request is there.
async fn call(origin: &ManualOrigin, web: std::net::SocketAddr, head: &str) -> (Wire, Wire) {
    let mut client = Wire::connect(web).await;
    client.send(head).await;
    let mut target = origin.accept().await;
    target.request_head().await;
    (client, target)
}

/// Sends a stream in which no two pieces are equal; its hash.
async fn send(wire: &mut Wire, length: usize) -> Vec<u8> {
    let mut hash = Sha256::new();
    let mut piece: Vec<u8> = (0..PIECE).map(|at| (at * 7 + at / 251) as u8).collect();
    for number in 0..length / PIECE {
        piece[..8].copy_from_slice(&number.to_be_bytes());
        hash.update(&piece);
        wire.send(&piece).await;
    }
    hash.finalize().to_vec()
}

/// The hash of what comes.
async fn receive(wire: &mut Wire, length: usize) -> Vec<u8> {
    let mut hash = Sha256::new();
    for _ in 0..length / PIECE {
        hash.update(wire.read(PIECE).await);
    }
    hash.finalize().to_vec()
}

/// The most memory that the gateway has ever had, in bytes.
fn peak(gateway: &Gateway) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", gateway.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<usize>().unwrap() * 1024
}
