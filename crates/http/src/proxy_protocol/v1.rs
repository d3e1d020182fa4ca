//! Version 1 (section 2.1): one line of ASCII.
//!
//! Promise: one spelling per header: single spaces, ports and addresses without leading zeros, CRLF.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{Extras, Invalid, LONGEST_V1, Parsed, Source, Transport, V1, begins};

/// `255.255.255.255`
const LONGEST_IPV4: usize = 15;
/// `ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255`
const LONGEST_IPV6: usize = 45;

pub(super) fn parse(bytes: &[u8]) -> Result<Parsed<'_>, Invalid> {
    if begins(bytes, V1)?.is_none() {
        return Ok(Parsed::More);
    }
    let seen = &bytes[..bytes.len().min(LONGEST_V1)];
    let Some(source) = line(&mut Line { rest: &seen[V1.len()..] })? else {
        return match bytes.len() < LONGEST_V1 {
            true => Ok(Parsed::More),
            false => Err(Invalid::TooLong),
        };
    };
    // The line has an end, or there would be no source: it is the first LF.
    let end = seen.iter().position(|&byte| byte == b'\n').unwrap_or(0);
    Ok(Parsed::Header { length: end + 1, source, extras: Extras::default() })
}

/// What follows `PROXY `; `None` asks for more.
fn line(line: &mut Line<'_>) -> Result<Option<Source>, Invalid> {
    let Some((family, length)) = line.family()? else { return Ok(None) };
    if family == Family::Unknown {
        return line.ignored();
    }
    line.rest = &line.rest[length..];
    let Some(source) = line.address(family)? else { return Ok(None) };
    let Some(destination) = line.address(family)? else { return Ok(None) };
    let Some(from) = line.port(b' ')? else { return Ok(None) };
    let Some(to) = line.port(b'\r')? else { return Ok(None) };
    match line.rest.first() {
        None => Ok(None),
        Some(b'\n') => Ok(Some(Source::Proxied {
            transport: Transport::Stream,
            source: SocketAddr::new(source, from),
            destination: SocketAddr::new(destination, to),
        })),
        Some(_) => Err(Invalid::BadAddress),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Family {
    Ipv4,
    Ipv6,
    Unknown,
}

/// What is left of the line.
struct Line<'a> {
    rest: &'a [u8],
}

impl<'a> Line<'a> {
    fn family(&self) -> Result<Option<(Family, usize)>, Invalid> {
        let known = [(&b"TCP4 "[..], Family::Ipv4), (b"TCP6 ", Family::Ipv6), (b"UNKNOWN", Family::Unknown)];
        for (word, family) in known {
            match begins(self.rest, word) {
                Ok(Some(())) => return Ok(Some((family, word.len()))),
                Ok(None) => return Ok(None),
                Err(_) => {}
            }
        }
        Err(Invalid::BadFamily)
    }

    /// After UNKNOWN everything up to the end of the line is to be ignored, but it is a line.
    fn ignored(&self) -> Result<Option<Source>, Invalid> {
        let rest = &self.rest[b"UNKNOWN".len()..];
        if rest.first().is_some_and(|byte| !matches!(byte, b' ' | b'\r')) {
            return Err(Invalid::BadFamily);
        }
        let end = rest.iter().position(|byte| !(b' '..=b'~').contains(byte));
        match end.map(|end| &rest[end..]) {
            None | Some([b'\r']) => Ok(None),
            Some([b'\r', b'\n', ..]) => Ok(Some(Source::Local)),
            Some(_) => Err(Invalid::BadAddress),
        }
    }

    fn address(&mut self, family: Family) -> Result<Option<IpAddr>, Invalid> {
        let (may, longest): (fn(u8) -> bool, usize) = match family {
            Family::Ipv4 => (|byte| byte.is_ascii_digit() || byte == b'.', LONGEST_IPV4),
            _ => (|byte| byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.'), LONGEST_IPV6),
        };
        let Some(word) = self.word(b' ', longest, may)? else { return Ok(None) };
        let address = match family {
            Family::Ipv4 => word.parse().ok().map(|address: Ipv4Addr| IpAddr::V4(address)),
            _ => word.parse().ok().map(|address: Ipv6Addr| IpAddr::V6(address).to_canonical()),
        };
        address.map(Some).ok_or(Invalid::BadAddress)
    }

    fn port(&mut self, end: u8) -> Result<Option<u16>, Invalid> {
        let Some(word) = self.word(end, 5, |byte| byte.is_ascii_digit())? else { return Ok(None) };
        if word.len() > 1 && word.starts_with('0') {
            return Err(Invalid::BadAddress);
        }
        word.parse().map(Some).map_err(|_| Invalid::BadAddress)
    }

    /// Takes the bytes up to `end`, each of which must be a byte that `may` be there.
    fn word(&mut self, end: u8, longest: usize, may: fn(u8) -> bool) -> Result<Option<&'a str>, Invalid> {
        let rest = self.rest;
        let length = rest.iter().position(|&byte| !may(byte)).unwrap_or(rest.len());
        if length > longest {
            return Err(Invalid::BadAddress);
        }
        let (word, rest) = rest.split_at(length);
        match rest.split_first() {
            None => Ok(None),
            Some((&byte, rest)) if byte == end => {
                self.rest = rest;
                std::str::from_utf8(word).map(Some).map_err(|_| Invalid::BadAddress)
            }
            Some(_) => Err(Invalid::BadAddress),
        }
    }
}
