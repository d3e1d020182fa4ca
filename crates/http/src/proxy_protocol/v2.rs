//! Version 2 (section 2.2): a binary head, addresses, and TLVs.
//!
//! Promise: every length is checked against the header's own before it is followed; a checksum that is there
//! is verified.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{Extras, Invalid, LONGEST, Parsed, Source, Transport, V2, begins};
use crate::crc32c::Crc32c;

/// Signature, version and command, family and transport, length.
const V2_HEAD: usize = 16;
const UNIX_BLOCK: usize = 216;
/// The longest PP2_TYPE_UNIQUE_ID.
const LONGEST_ID: usize = 128;

const TLV_ALPN: u8 = 0x01;
const TLV_AUTHORITY: u8 = 0x02;
const TLV_CRC32C: u8 = 0x03;
const TLV_UNIQUE_ID: u8 = 0x05;

pub(super) fn parse(bytes: &[u8]) -> Result<Parsed<'_>, Invalid> {
    if begins(bytes, V2)?.is_none() {
        return Ok(Parsed::More);
    }
    let Some(&command) = bytes.get(12) else { return Ok(Parsed::More) };
    if !matches!(command, 0x20 | 0x21) {
        return Err(Invalid::BadVersion);
    }
    let Some(&family) = bytes.get(13) else { return Ok(Parsed::More) };
    // With LOCAL (0x20) and UNSPEC everything that follows is to be ignored.
    let family = if command == 0x20 { 0x00 } else { family };
    let block = match family {
        0x00 => 0,
        0x11 | 0x12 => 12,
        0x21 | 0x22 => 36,
        0x31 | 0x32 => UNIX_BLOCK,
        _ => return Err(Invalid::BadFamily),
    };
    let Some(&length) = bytes.get(14..).and_then(<[u8]>::first_chunk) else { return Ok(Parsed::More) };
    let length = V2_HEAD + usize::from(u16::from_be_bytes(length));
    if length > LONGEST {
        return Err(Invalid::TooLong);
    }
    if length < V2_HEAD + block {
        return Err(Invalid::BadAddress);
    }
    let Some(header) = bytes.get(..length) else { return Ok(Parsed::More) };
    let (addresses, tlvs) = header[V2_HEAD..].split_at(block);
    let source = source(family, addresses)?;
    let extras = if family == 0x00 { Extras::default() } else { extras(header, tlvs)? };
    Ok(Parsed::Header { length, source, extras })
}

fn source(family: u8, block: &[u8]) -> Result<Source, Invalid> {
    let (source, destination) = match family >> 4 {
        0x1 => addresses::<4>(block, |octets| IpAddr::V4(Ipv4Addr::from(octets))),
        0x2 => addresses::<16>(block, |octets| IpAddr::V6(Ipv6Addr::from(octets)).to_canonical()),
        0x3 => return Ok(Source::Unix),
        _ => return Ok(Source::Local),
    }
    .ok_or(Invalid::BadAddress)?;
    let transport = if family & 0xF == 2 { Transport::Datagram } else { Transport::Stream };
    Ok(Source::Proxied { transport, source, destination })
}

/// Two addresses of `N` bytes, then their two ports.
fn addresses<const N: usize>(
    block: &[u8],
    address: fn([u8; N]) -> IpAddr,
) -> Option<(SocketAddr, SocketAddr)> {
    let (&source, rest) = block.split_first_chunk::<N>()?;
    let (&destination, rest) = rest.split_first_chunk::<N>()?;
    let (&from, rest) = rest.split_first_chunk::<2>()?;
    let &to = rest.first_chunk::<2>()?;
    let socket = |octets, port| SocketAddr::new(address(octets), u16::from_be_bytes(port));
    Some((socket(source, from), socket(destination, to)))
}

/// Reads the TLVs (section 2.2): type, length in two bytes, value.
fn extras<'a>(header: &[u8], tlvs: &'a [u8]) -> Result<Extras<'a>, Invalid> {
    let mut extras = Extras::default();
    let mut rest = tlvs;
    let mut checksum = None;
    while let Some((&kind, after)) = rest.split_first() {
        let (&length, after) = after.split_first_chunk::<2>().ok_or(Invalid::BadTlv)?;
        let (value, after) =
            after.split_at_checked(usize::from(u16::from_be_bytes(length))).ok_or(Invalid::BadTlv)?;
        match kind {
            TLV_ALPN => extras.alpn = Some(value),
            TLV_AUTHORITY => extras.authority = Some(value),
            TLV_UNIQUE_ID if value.len() > LONGEST_ID => return Err(Invalid::BadTlv),
            TLV_UNIQUE_ID => extras.unique_id = Some(value),
            TLV_CRC32C => {
                let &expected = value.first_chunk::<4>().ok_or(Invalid::BadTlv)?;
                if value.len() != 4 || checksum.is_some() {
                    return Err(Invalid::BadTlv);
                }
                checksum = Some((header.len() - after.len() - 4, u32::from_be_bytes(expected)));
            }
            _ => {}
        }
        rest = after;
    }
    match checksum {
        Some((at, expected)) if sum(header, at) != expected => Err(Invalid::BadChecksum),
        _ => Ok(extras),
    }
}

/// The checksum of a header whose own checksum at `at` counts as zero.
fn sum(header: &[u8], at: usize) -> u32 {
    Crc32c::new().update(&header[..at]).update(&[0; 4]).update(&header[at + 4..]).value()
}
