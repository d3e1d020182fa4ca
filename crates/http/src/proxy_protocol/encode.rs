//! Headers that we write, for endpoints that want to know the client.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{Transport, V2};

/// The two addresses in one family: both IPv4 if they can be.
enum Pair {
    Ipv4(Ipv4Addr, Ipv4Addr),
    Ipv6(Ipv6Addr, Ipv6Addr),
}

impl Pair {
    fn of(source: SocketAddr, destination: SocketAddr) -> Pair {
        let wide = |address| match address {
            IpAddr::V4(address) => address.to_ipv6_mapped(),
            IpAddr::V6(address) => address,
        };
        match (source.ip().to_canonical(), destination.ip().to_canonical()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => Pair::Ipv4(source, destination),
            (source, destination) => Pair::Ipv6(wide(source), wide(destination)),
        }
    }
}

/// Appends a header of version 1. Where one address is IPv4 and the other IPv6, the first is written in
/// IPv4-mapped form.
pub fn encode_v1(source: SocketAddr, destination: SocketAddr, out: &mut Vec<u8>) {
    let (from, to) = (source.port(), destination.port());
    // Writing into a Vec cannot fail.
    _ = match Pair::of(source, destination) {
        Pair::Ipv4(source, destination) => write!(out, "PROXY TCP4 {source} {destination} {from} {to}\r\n"),
        Pair::Ipv6(source, destination) => write!(out, "PROXY TCP6 {source} {destination} {from} {to}\r\n"),
    };
}

/// Appends a header of version 1 that names nobody: for connections of our own, such as health checks.
pub fn encode_v1_local(out: &mut Vec<u8>) {
    out.extend_from_slice(b"PROXY UNKNOWN\r\n");
}

/// Appends a header of version 2 for a TCP connection. Where one address is IPv4 and the other IPv6, the
/// first is written in IPv4-mapped form.
pub fn encode_v2(source: SocketAddr, destination: SocketAddr, out: &mut Vec<u8>) {
    encode_binary(Transport::Stream, source, destination, out);
}

/// Appends a header of version 2 for a UDP datagram.
pub fn encode_v2_datagram(source: SocketAddr, destination: SocketAddr, out: &mut Vec<u8>) {
    encode_binary(Transport::Datagram, source, destination, out);
}

/// Appends a header of version 2 that names nobody: for connections of our own, such as health checks.
pub fn encode_v2_local(out: &mut Vec<u8>) {
    out.extend_from_slice(V2);
    out.extend_from_slice(&[0x20, 0x00, 0, 0]);
}

fn encode_binary(transport: Transport, source: SocketAddr, destination: SocketAddr, out: &mut Vec<u8>) {
    let transport = match transport {
        Transport::Stream => 1,
        Transport::Datagram => 2,
    };
    out.extend_from_slice(V2);
    match Pair::of(source, destination) {
        Pair::Ipv4(source, destination) => {
            out.extend_from_slice(&[0x21, 0x10 | transport, 0, 12]);
            out.extend_from_slice(&source.octets());
            out.extend_from_slice(&destination.octets());
        }
        Pair::Ipv6(source, destination) => {
            out.extend_from_slice(&[0x21, 0x20 | transport, 0, 36]);
            out.extend_from_slice(&source.octets());
            out.extend_from_slice(&destination.octets());
        }
    }
    out.extend_from_slice(&source.port().to_be_bytes());
    out.extend_from_slice(&destination.port().to_be_bytes());
}
