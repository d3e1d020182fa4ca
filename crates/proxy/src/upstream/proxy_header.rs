//! The PROXY header that endpoints are sent first: who the client is.

use std::net::SocketAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sluice_http::proxy_protocol as codec;

use crate::exchange::Exchange;

/// Which version of the PROXY protocol endpoints are spoken to in.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum ProxyProtocol {
    /// Version 1: a line of text.
    V1,
    /// Version 2: binary.
    V2,
}

impl ProxyProtocol {
    /// The header of a connection that serves this exchange.
    pub fn connection(self, exchange: &Exchange) -> Vec<u8> {
        let (source, destination) = ends(exchange);
        let mut out = Vec::with_capacity(codec::LONGEST_V1);
        match self {
            ProxyProtocol::V1 => codec::encode_v1(source, destination, &mut out),
            ProxyProtocol::V2 => codec::encode_v2(source, destination, &mut out),
        }
        out
    }

    /// The header of a flow's first datagram; there is none in version 1.
    pub fn datagram(self, exchange: &Exchange) -> Vec<u8> {
        let (source, destination) = ends(exchange);
        let mut out = Vec::with_capacity(64);
        if self == ProxyProtocol::V2 {
            codec::encode_v2_datagram(source, destination, &mut out);
        }
        out
    }

    /// The header of a connection of our own, such as a health check.
    pub fn nobody(self) -> Vec<u8> {
        let mut out = Vec::with_capacity(16);
        match self {
            ProxyProtocol::V1 => codec::encode_v1_local(&mut out),
            ProxyProtocol::V2 => codec::encode_v2_local(&mut out),
        }
        out
    }
}

/// The client's address, and the one it reached us at. Of a client that a trusted proxy only named there is
/// no port.
fn ends(exchange: &Exchange) -> (SocketAddr, SocketAddr) {
    let client = &exchange.client;
    let source = match client.peer.ip().to_canonical() == client.address.to_canonical() {
        true => client.peer,
        false => SocketAddr::new(client.address, 0),
    };
    (source, exchange.reached.unwrap_or(SocketAddr::new([0, 0, 0, 0].into(), 0)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filter::fixture;

    #[test]
    fn the_trusted_client_is_named_and_our_own_connections_name_nobody() {
        let mut exchange = fixture::exchange("/");
        exchange.reached = Some("198.51.100.1:443".parse().unwrap());
        let line = ProxyProtocol::V1.connection(&exchange);
        assert_eq!(line, b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 443\r\n");
        exchange.client.address = "203.0.113.9".parse().unwrap();
        let line = ProxyProtocol::V1.connection(&exchange);
        assert_eq!(line, b"PROXY TCP4 203.0.113.9 198.51.100.1 0 443\r\n");
        assert_eq!(ProxyProtocol::V1.nobody(), b"PROXY UNKNOWN\r\n");
        assert_eq!(ProxyProtocol::V2.nobody()[12], 0x20);
        assert_eq!(ProxyProtocol::V2.datagram(&exchange)[13], 0x12);
    }
}
