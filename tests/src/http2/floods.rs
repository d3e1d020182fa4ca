//! Attacks on HTTP/2 that are known by name: each ends the connection, is counted, and hurts nobody else.

use std::net::SocketAddr;

use sluice_testkit::{Gateway, Origin, Reply, Wire, eventually};

use super::client::Client;
use crate::forward::gateway;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    out.extend([kind, flags]);
    out.extend(stream.to_be_bytes());
    out.extend(payload);
    out
}

/// GET / of a.example: indexed :method, :scheme and :path, and a literal :authority.
fn request_block() -> Vec<u8> {
    let mut block = vec![0x82, 0x86, 0x84, 0x41, 9];
    block.extend(b"a.example");
    block
}

async fn attack(address: SocketAddr, frames: impl IntoIterator<Item = Vec<u8>>) {
    let mut wire = Wire::connect(address).await;
    wire.send([PREFACE, &frame(4, 0, 0, &[])].concat()).await;
    let mut batch = Vec::new();
    for frame in frames {
        batch.extend(frame);
        if batch.len() > 60_000 {
            // The gateway may have closed by now: that is what is wanted.
            if wire.try_send(std::mem::take(&mut batch)).await.is_err() {
                return;
            }
        }
    }
    let _ = wire.try_send(batch).await;
    let _ = wire.try_read_to_end().await;
}

async fn assert_counted(gateway: &Gateway, reason: &str) {
    let family = "sluice_listener_refused_total";
    eventually(reason, async || (gateway.metric(family, &[reason]).await > 0.0).then_some(())).await;
    // Others are served as before.
    let mut client = Client::connect(gateway.address("web")).await;
    assert_eq!(client.get("/").await.status, 200, "after {reason}");
}

#[tokio::test]
async fn every_flood_ends_its_connection_and_is_counted() {
    let origin = Origin::start(Reply::ok("")).await;
    let gateway = gateway(&[origin.address()]).await;
    let address = gateway.address("web");
    let ids = || (1..).step_by(2);
    let opened = |id| frame(1, 5, id, &request_block());
    let cancel = |id| frame(3, 0, id, &8_u32.to_be_bytes());
    attack(address, ids().take(5_000).flat_map(|id| [opened(id), cancel(id)])).await;
    assert_counted(&gateway, "h2-rapid-reset").await;
    attack(address, (0..50_000).map(|_| frame(6, 0, 0, &[0; 8]))).await;
    assert_counted(&gateway, "h2-ping-flood").await;
    attack(address, (0..5_000).map(|_| frame(4, 0, 0, &[]))).await;
    assert_counted(&gateway, "h2-settings-flood").await;
    attack(address, (0..50_000).map(|_| frame(2, 0, 1, &[0, 0, 0, 0, 1]))).await;
    assert_counted(&gateway, "h2-priority-flood").await;
    let open = [frame(1, 0, 1, &request_block())];
    attack(address, open.into_iter().chain((0..5_000).map(|_| frame(9, 0, 1, &[])))).await;
    assert_counted(&gateway, "h2-continuation-flood").await;
    // A POST that never ends.
    let mut block = request_block();
    block[0] = 0x83;
    let open = [frame(1, 4, 1, &block)];
    attack(address, open.into_iter().chain((0..50_000).map(|_| frame(0, 0, 1, &[])))).await;
    assert_counted(&gateway, "h2-empty-data-flood").await;
    attack(address, [frame(0, 0, 1, &vec![0; 20_000])]).await;
    assert_counted(&gateway, "h2-frame-too-large").await;
}

#[tokio::test]
async fn a_window_overflow_and_data_without_a_stream_break_the_connection() {
    let origin = Origin::start(Reply::ok("")).await;
    let gateway = gateway(&[origin.address()]).await;
    let address = gateway.address("web");
    attack(address, [frame(8, 0, 0, &i32::MAX.to_be_bytes())]).await;
    assert_counted(&gateway, "h2-flow-control-error").await;
    attack(address, [frame(0, 0, 1, b"x")]).await;
    assert_counted(&gateway, "h2-protocol-error").await;
    // MadeYouReset: each stream gets a window that is too large, for which we must reset it.
    let ids = (1..).step_by(2).take(400);
    let mut block = request_block();
    block[0] = 0x83;
    let provoke = |id| [frame(1, 4, id, &block), frame(8, 0, id, &i32::MAX.to_be_bytes())];
    attack(address, ids.flat_map(provoke)).await;
    assert_counted(&gateway, "h2-made-you-reset").await;
}

#[tokio::test]
async fn an_hpack_bomb_is_refused_before_it_is_large() {
    let origin = Origin::start(Reply::ok("")).await;
    let gateway = gateway(&[origin.address()]).await;
    // A field of 4,000 bytes enters the table, then is repeated 8,000 times with one byte each: 32 MB.
    let mut block = request_block();
    block.extend([0x40, 1, b'x', 0x7f, 0xa1, 0x1e]);
    block.extend(vec![b'y'; 4_000]);
    block.extend(vec![0xbe; 8_000]);
    let before = gateway.metric("process_resident_memory_bytes", &[]).await;
    attack(gateway.address("web"), [frame(1, 5, 1, &block)]).await;
    let grown = gateway.metric("process_resident_memory_bytes", &[]).await - before;
    assert!(grown < 8e6, "memory grew by {grown} bytes");
    assert_eq!(origin.count(), 0);
    let mut client = Client::connect(gateway.address("web")).await;
    assert_eq!(client.get("/").await.status, 200);
}
