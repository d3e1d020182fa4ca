//! Any messages in tunnels of both versions, to both ends: nothing panics, exchanges end at most once, and no stream
//! is left when the tunnel is over. A message is a length, a kind (odd for text) and its bytes.

#![no_main]

use std::collections::HashSet;
use std::time::Duration;

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use sluice_http::RequestHead;
use sluice_tunnel::event::{Answer, Call};
use sluice_tunnel::registration::{Extensions, Version};
use sluice_tunnel::settings::Settings;
use sluice_tunnel::text::Content;
use sluice_tunnel::{ConnectorEnd, GatewayEnd};

const NOW: Duration = Duration::ZERO;

/// The messages as frames, masked with zeroes or not at all.
fn frames(mut bytes: &[u8], mask: &[u8], bit: u8) -> BytesMut {
    let mut out = BytesMut::new();
    while let [length, kind, rest @ ..] = bytes {
        let (payload, rest) = rest.split_at(rest.len().min(usize::from(length % 126)));
        out.extend_from_slice(&[if kind % 2 == 1 { 0x81 } else { 0x82 }, bit | payload.len() as u8]);
        out.extend_from_slice(mask);
        out.extend_from_slice(payload);
        bytes = rest;
    }
    out
}

fuzz_target!(|bytes: &[u8]| {
    for version in [Version::V1, Version::V3] {
        let settings =
            Settings { extensions: Extensions::ALL, waiting: 100, streams: 4, ..Settings::gateway() };
        let mut gateway = GatewayEnd::new(version, settings, NOW);
        for _ in 0..3 {
            let _ = gateway.request(&RequestHead::new("GET", "/"), Content::Unknown, NOW);
        }
        let (mut buf, mut over) = (frames(bytes, &[0; 4], 0x80), HashSet::new());
        while let Some(answer) = gateway.receive(&mut buf, NOW) {
            match answer {
                Answer::Failed(id, _) => assert!(over.insert(id), "it had ended"),
                Answer::Head(id, head) if head.status != 101 => assert!(!over.contains(&id)),
                _ => {}
            }
        }
        gateway.eof(NOW);
        while gateway.receive(&mut buf, NOW).is_some() {}
        assert_eq!(gateway.count(), 0);

        let settings =
            Settings { extensions: Extensions::ALL, waiting: 100, streams: 4, ..Settings::connector() };
        let mut connector = ConnectorEnd::new(version, settings, (1, NOW));
        let (mut buf, mut over) = (frames(bytes, &[], 0), HashSet::new());
        while let Some(call) = connector.receive(&mut buf, NOW) {
            match call {
                Call::Request(id, ..) => assert!(!over.contains(&id), "it had ended"),
                Call::Cancelled(id, _) => assert!(over.insert(id), "it had ended"),
                _ => {}
            }
        }
        connector.eof(NOW);
        while connector.receive(&mut buf, NOW).is_some() {}
    }
});
