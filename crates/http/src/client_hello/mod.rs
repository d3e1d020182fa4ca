//! What a TLS ClientHello says in the clear (RFC 8446 section 4.1.2): the server's name (RFC 6066 section 3) and
//! the application protocols (RFC 7301), for routing a connection without ending its TLS.
//!
//! Promise: nothing is decrypted, answered or changed: the bytes go on to the endpoint as they are. At most
//! [`LONGEST`] bytes have to be kept; a stream that is no TLS is refused at the first byte that shows it.

use std::borrow::Cow;
use std::net::IpAddr;

use crate::reasons::reasons;

/// The longest beginning of a stream, in bytes, in which a ClientHello must be complete. With post-quantum key
/// shares they have some 1.8 KiB.
pub const LONGEST: usize = 16 * 1024;

/// The longest record (RFC 8446 section 5.1).
const LONGEST_RECORD: usize = 1 << 14;
const RECORD_HEADER: usize = 5;
const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
/// Type and length of a handshake message.
const MESSAGE_HEADER: usize = 4;
const SERVER_NAME: u16 = 0;
const ALPN: u16 = 16;

/// What the bytes received so far are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// The beginning of a ClientHello.
    More,
    /// A ClientHello.
    Hello(Hello),
}

/// What a ClientHello says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hello {
    /// The host the client wants, in lower case and without a final dot. `None` when it did not say, or named
    /// an address, which is not a name (RFC 6066).
    pub sni: Option<String>,
    /// As on the wire: each protocol behind its length.
    alpn: Vec<u8>,
}

impl Hello {
    /// The application protocols the client offers, in its order: `h2`, `http/1.1`...
    pub fn alpn(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = Reader(&self.alpn);
        std::iter::from_fn(move || rest.counted::<1>())
    }
}

reasons! {
    /// Why a stream does not begin with a ClientHello.
    pub enum NotTls {
        NotTls "tls-not-a-handshake" "the client does not speak TLS",
        TooLong "tls-hello-too-long" "the ClientHello is longer than allowed",
        BadRecord "tls-bad-record" "the ClientHello's records are malformed",
        BadHello "tls-bad-hello" "the ClientHello is malformed",
        BadName "tls-bad-server-name" "the server name in the ClientHello is malformed",
    }
}

/// Reads the ClientHello at the front of `bytes`: everything received so far.
///
/// # Errors
/// [`NotTls`] as soon as no continuation could make `bytes` a ClientHello that we read.
pub fn parse(bytes: &[u8]) -> Result<Parsed, NotTls> {
    let seen = &bytes[..bytes.len().min(LONGEST)];
    match message(seen)? {
        Some(message) => Ok(Parsed::Hello(hello(&message)?)),
        None if bytes.len() < LONGEST => Ok(Parsed::More),
        None => Err(NotTls::TooLong),
    }
}

/// The body of the first handshake message, put together when it comes in several records.
fn message(bytes: &[u8]) -> Result<Option<Cow<'_, [u8]>>, NotTls> {
    // First only lengths are looked at, so that a hello in small pieces is not put together for each of them.
    let (mut header, mut length, mut have) = ([0; MESSAGE_HEADER], None, 0);
    let mut records = Records { rest: bytes, is_first: true };
    while let Some((fragment, is_whole)) = records.next()? {
        for (to, &byte) in header.iter_mut().skip(have).zip(fragment) {
            *to = byte;
        }
        have += fragment.len();
        if have > 0 && header[0] != CLIENT_HELLO {
            return Err(NotTls::NotTls);
        }
        if have >= MESSAGE_HEADER {
            let [_, high, middle, low] = header;
            let total = MESSAGE_HEADER + u32::from_be_bytes([0, high, middle, low]) as usize;
            if total > LONGEST - RECORD_HEADER {
                return Err(NotTls::TooLong);
            }
            length = Some(total);
        }
        match length {
            Some(length) if have >= length => return Ok(Some(together(bytes, length))),
            _ if !is_whole => return Ok(None),
            _ => {}
        }
    }
    Ok(None)
}

/// The first `length` bytes of handshake, without their header; the records are known to hold them.
fn together(bytes: &[u8], length: usize) -> Cow<'_, [u8]> {
    let mut records = Records { rest: bytes, is_first: true };
    let mut all = Vec::new();
    while let Ok(Some((fragment, _))) = records.next() {
        if all.is_empty() && fragment.len() >= length {
            return Cow::Borrowed(&fragment[MESSAGE_HEADER..length]);
        }
        all.extend_from_slice(&fragment[..fragment.len().min(length - all.len())]);
        if all.len() == length {
            break;
        }
    }
    all.drain(..MESSAGE_HEADER.min(all.len()));
    Cow::Owned(all)
}

/// The records of a stream.
struct Records<'a> {
    rest: &'a [u8],
    is_first: bool,
}

impl<'a> Records<'a> {
    /// The next fragment of handshake and whether it is all there; `None` when not even its header is.
    fn next(&mut self) -> Result<Option<(&'a [u8], bool)>, NotTls> {
        // A stream whose first bytes are wrong is something else; later on it is TLS that is broken.
        let wrong = if self.is_first { NotTls::NotTls } else { NotTls::BadRecord };
        let is_right = |at: usize, right: fn(u8) -> bool| self.rest.get(at).is_none_or(|&byte| right(byte));
        // Clients write 3.1 or 3.3 for compatibility, whatever they speak.
        if !is_right(0, |kind| kind == HANDSHAKE)
            || !is_right(1, |major| major == 3)
            || !is_right(2, |minor| minor <= 4)
        {
            return Err(wrong);
        }
        if !is_right(3, |high| usize::from(high) <= LONGEST_RECORD >> 8) {
            return Err(wrong);
        }
        let Some((&[_, _, _, high, low], rest)) = self.rest.split_first_chunk::<RECORD_HEADER>() else {
            return Ok(None);
        };
        let length = usize::from(u16::from_be_bytes([high, low]));
        if length == 0 || length > LONGEST_RECORD {
            return Err(NotTls::BadRecord);
        }
        let (fragment, rest) = rest.split_at(length.min(rest.len()));
        (self.rest, self.is_first) = (rest, false);
        Ok(Some((fragment, fragment.len() == length)))
    }
}

/// Reads the body of a ClientHello.
fn hello(body: &[u8]) -> Result<Hello, NotTls> {
    let mut hello = Hello::default();
    let mut reader = Reader(body);
    let Some(extensions) = extensions(&mut reader) else { return Err(NotTls::BadHello) };
    let (mut names, mut protocols) = (0, 0);
    let mut rest = Reader(extensions);
    while !rest.0.is_empty() {
        let (Some(kind), Some(content)) = (rest.number(), rest.counted::<2>()) else {
            return Err(NotTls::BadHello);
        };
        match kind {
            SERVER_NAME => {
                names += 1;
                hello.sni = server_name(content)?;
            }
            ALPN => {
                protocols += 1;
                hello.alpn = protocol_list(content).ok_or(NotTls::BadHello)?.to_vec();
            }
            _ => {}
        }
    }
    match names > 1 || protocols > 1 {
        true => Err(NotTls::BadHello),
        false => Ok(hello),
    }
}

/// Skips what stands before the extensions, and gives them. A hello may end before them.
fn extensions<'a>(body: &mut Reader<'a>) -> Option<&'a [u8]> {
    // Version and random.
    body.take(2 + 32)?;
    let session = body.counted::<1>()?;
    let suites = body.counted::<2>()?;
    let compressions = body.counted::<1>()?;
    if session.len() > 32 || suites.is_empty() || suites.len() % 2 == 1 || compressions.is_empty() {
        return None;
    }
    if body.0.is_empty() {
        return Some(&[]);
    }
    let extensions = body.counted::<2>()?;
    body.0.is_empty().then_some(extensions)
}

/// One list of names, of which only one kind is defined, and one of a kind allowed.
fn server_name(content: &[u8]) -> Result<Option<String>, NotTls> {
    let entry = |content| {
        let mut content = Reader(content);
        let mut list = Reader(content.counted::<2>()?);
        let (&[kind], name) = (list.take(1)?.first_chunk()?, list.counted::<2>()?);
        (kind == 0 && list.0.is_empty() && content.0.is_empty()).then_some(name)
    };
    let name = std::str::from_utf8(entry(content).ok_or(NotTls::BadHello)?).map_err(|_| NotTls::BadName)?;
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.parse::<IpAddr>().is_ok() {
        return Ok(None);
    }
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    match !name.is_empty() && name.len() <= 255 && name.bytes().all(is_name) {
        true => Ok(Some(name.to_ascii_lowercase())),
        false => Err(NotTls::BadName),
    }
}

/// A list of protocols, each behind its length, none empty.
fn protocol_list(content: &[u8]) -> Option<&[u8]> {
    let mut content = Reader(content);
    let list = content.counted::<2>()?;
    let mut rest = Reader(list);
    while !rest.0.is_empty() {
        if rest.counted::<1>()?.is_empty() {
            return None;
        }
    }
    (!list.is_empty() && content.0.is_empty()).then_some(list)
}

/// What is left to read.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn number(&mut self) -> Option<u16> {
        self.take(2)?.first_chunk().copied().map(u16::from_be_bytes)
    }

    /// So many bytes as the `N` before them say.
    fn counted<const N: usize>(&mut self) -> Option<&'a [u8]> {
        let length = self.take(N)?.iter().fold(0, |length, &byte| length << 8 | usize::from(byte));
        self.take(length)
    }
}

#[cfg(test)]
mod tests;
