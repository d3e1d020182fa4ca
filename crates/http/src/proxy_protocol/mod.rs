//! The PROXY protocol, versions 1 and 2 (haproxy's proxy-protocol.txt): who the client is, said by the proxy
//! before us in front of the first byte of a connection or datagram, or by us to an endpoint.
//!
//! Promise: a stream that is no header is refused at the first byte that shows it, never taken for a
//! truncated one; nothing is guessed or repaired; at most [`LONGEST`] bytes have to be kept while a header
//! arrives. Addresses in IPv4-mapped form are given as the IPv4 addresses they are, so that no list of
//! networks can be slipped past.

mod encode;
#[cfg(test)]
mod tests;
mod v1;
mod v2;

use std::net::SocketAddr;

pub use encode::{encode_v1, encode_v1_local, encode_v2, encode_v2_datagram, encode_v2_local};

use crate::reasons::reasons;

/// The longest header of version 1 in bytes, with its CRLF.
pub const LONGEST_V1: usize = 107;
/// The longest header that is accepted, in bytes. The specification asks receivers for 536; clouds and
/// certificates in TLVs need more, nobody needs this much.
pub const LONGEST: usize = 4096;

const V1: &[u8] = b"PROXY ";
const V2: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// What the bytes received so far are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed<'a> {
    /// The beginning of a header.
    More,
    /// A header.
    Header {
        /// Its length in bytes; what follows is the connection's own.
        length: usize,
        /// Who is asking.
        source: Source,
        /// What else a header of version 2 said.
        extras: Extras<'a>,
    },
}

/// Whom a header names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The proxy itself (a health check), or nobody it knows: the connection's own addresses count.
    Local,
    /// A client.
    Proxied {
        /// What it spoke.
        transport: Transport,
        /// The client's address.
        source: SocketAddr,
        /// The address the client connected to.
        destination: SocketAddr,
    },
    /// A client on a Unix socket; its paths are of no use to us.
    Unix,
}

/// What a client speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Transport {
    /// TCP.
    #[default]
    Stream,
    /// UDP; version 2 only.
    Datagram,
}

/// What a header of version 2 may say beside the addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extras<'a> {
    /// The application protocol the client and the proxy agreed on (PP2_TYPE_ALPN).
    pub alpn: Option<&'a [u8]>,
    /// The host name the client asked for, from SNI (PP2_TYPE_AUTHORITY).
    pub authority: Option<&'a [u8]>,
    /// At most 128 bytes that identify the connection (PP2_TYPE_UNIQUE_ID).
    pub unique_id: Option<&'a [u8]>,
}

reasons! {
    /// Why bytes are no acceptable header.
    pub enum Invalid {
        NotProxy "proxy-header-missing" "the stream does not begin with a PROXY protocol header",
        TooLong "proxy-header-too-long" "the PROXY protocol header is longer than allowed",
        BadVersion "proxy-header-bad-version" "the PROXY protocol version or command is unknown",
        BadFamily "proxy-header-bad-family" "the PROXY protocol address family is unknown",
        BadAddress "proxy-header-bad-address" "the addresses in the PROXY protocol header are malformed",
        BadTlv "proxy-header-bad-tlv" "a TLV in the PROXY protocol header is malformed",
        BadChecksum "proxy-header-bad-checksum" "the PROXY protocol header's checksum is wrong",
    }
}

/// Reads the header at the front of `bytes`: everything received so far. Version 1 and 2 are told apart by
/// their first byte.
///
/// For a datagram, which has its header whole or not at all, [`Parsed::More`] is as bad as an error.
///
/// # Errors
/// [`Invalid`] as soon as no continuation could make `bytes` a header.
pub fn parse(bytes: &[u8]) -> Result<Parsed<'_>, Invalid> {
    match bytes.first() {
        None => Ok(Parsed::More),
        Some(b'P') => v1::parse(bytes),
        Some(b'\r') => v2::parse(bytes),
        Some(_) => Err(Invalid::NotProxy),
    }
}

/// Whether `bytes` begin as `signature` does; `None` when they are too short to say.
fn begins(bytes: &[u8], signature: &[u8]) -> Result<Option<()>, Invalid> {
    let known = bytes.len().min(signature.len());
    match bytes[..known] == signature[..known] {
        true => Ok((known == signature.len()).then_some(())),
        false => Err(Invalid::NotProxy),
    }
}
