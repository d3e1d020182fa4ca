//! The server's side of SOCKS 5 (RFC 1928) with passwords (RFC 1929): bytes in, a target and replies out.
//!
//! Promise: every message is bounded by its own length bytes (262, 513 and 257 bytes at most), what cannot
//! become one is refused at the first byte that shows it, and a password is in no Debug output. Only CONNECT is
//! served. An address spelled as a name is an address, so that no rule about addresses can be slipped past.
//!
//! A conversation: [`greeting`] and [`method_reply`]; for [`Method::Password`] then [`credentials`] and
//! [`credentials_reply`]; then [`request`] and [`reply`]. Each gives the length of what it read: a client may
//! send ahead.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::reasons::reasons;

const VERSION: u8 = 5;
/// The version of the sub-negotiation in RFC 1929.
const CREDENTIALS_VERSION: u8 = 1;
const NO_AUTHENTICATION: u8 = 0x00;
const PASSWORD: u8 = 0x02;
const CONNECT: u8 = 0x01;
const IPV4: u8 = 0x01;
const DOMAIN: u8 = 0x03;
const IPV6: u8 = 0x04;

/// The answer to a SOCKS 4 request, "rejected": what a client that sent [`Invalid::Socks4`] understands.
pub const SOCKS4_REJECTED: [u8; 8] = [0, 0x5B, 0, 0, 0, 0, 0, 0];

/// What the bytes received so far are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed<T> {
    /// The beginning of a message.
    More,
    /// A message.
    Message {
        /// Its length in bytes; what follows is the next one.
        length: usize,
        /// What it says.
        message: T,
    },
}

reasons! {
    /// Why bytes were refused. [`Invalid::reply`] says what to answer before closing.
    pub enum Invalid {
        Socks4 "socks4" "the client speaks SOCKS 4",
        NotSocks "socks-bad-version" "the client does not speak SOCKS 5",
        BadCredentials "socks-bad-credentials" "the user name and password are not as RFC 1929 wants them",
        BadReserved "socks-bad-reserved" "the reserved byte of a request is not zero",
        CommandNotSupported "socks-command-not-supported" "the command is not CONNECT",
        AddressTypeNotSupported "socks-address-type-not-supported" "the type of the address is unknown",
        BadHost "socks-bad-host" "the host name is malformed",
        BadPort "socks-bad-port" "the port is zero",
    }
}

impl Invalid {
    /// What a client in the middle of its request is told; `None` where there is nothing it would understand.
    pub const fn reply(self) -> Option<Reply> {
        match self {
            Invalid::CommandNotSupported => Some(Reply::CommandNotSupported),
            Invalid::AddressTypeNotSupported => Some(Reply::AddressTypeNotSupported),
            Invalid::BadHost | Invalid::BadPort | Invalid::BadReserved => Some(Reply::GeneralFailure),
            Invalid::Socks4 | Invalid::NotSocks | Invalid::BadCredentials => None,
        }
    }
}

/// The methods of authentication that a client offers, as far as we know them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Methods {
    /// None at all.
    pub none: bool,
    /// User name and password (RFC 1929).
    pub password: bool,
}

/// Whether clients have to say who they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Authentication {
    /// They need not.
    None,
    /// They need a user name and a password.
    Password,
}

/// The method a server chooses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// The request is next.
    None,
    /// The credentials are next.
    Password,
    /// None of those offered: the connection is to be closed.
    Unacceptable,
}

impl Methods {
    /// The method for a server that wants this.
    pub const fn choose(self, wanted: Authentication) -> Method {
        match wanted {
            Authentication::None if self.none => Method::None,
            Authentication::Password if self.password => Method::Password,
            _ => Method::Unacceptable,
        }
    }
}

/// A user name and a password, as they came.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Credentials<'a> {
    /// The user's name.
    pub user: &'a [u8],
    /// The password.
    pub password: &'a [u8],
}

impl fmt::Debug for Credentials<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials")
    }
}

/// Whether credentials were right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The request is next.
    Accepted,
    /// The connection is to be closed.
    Rejected,
}

/// Where a client wants to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The host.
    pub host: Host,
    /// The port; never 0.
    pub port: u16,
}

/// A host, by name or address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// A name for us to resolve: lower case, of letters, digits, hyphens, underscores and dots, without a final
    /// dot.
    Name(String),
    /// An address; an IPv4-mapped one is IPv4.
    Address(IpAddr),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Name(name) => write!(f, "{name}:{}", self.port),
            Host::Address(address) => write!(f, "{}", SocketAddr::new(*address, self.port)),
        }
    }
}

/// What became of a request (RFC 1928 section 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Reply {
    /// The connection stands: from here on it is the target's.
    Succeeded = 0x00,
    /// Something else.
    GeneralFailure = 0x01,
    /// A rule of ours forbids the target.
    NotAllowed = 0x02,
    /// No way to its network.
    NetworkUnreachable = 0x03,
    /// No way to the host, or no such name.
    HostUnreachable = 0x04,
    /// It refused.
    ConnectionRefused = 0x05,
    /// It did not answer in time.
    TtlExpired = 0x06,
    /// BIND, UDP ASSOCIATE and unknown ones.
    CommandNotSupported = 0x07,
    /// Neither IPv4 nor IPv6 nor a name.
    AddressTypeNotSupported = 0x08,
}

/// Reads the first message of a client: version, number of methods, methods.
///
/// # Errors
/// [`Invalid::Socks4`] and [`Invalid::NotSocks`], with the first byte.
pub fn greeting(bytes: &[u8]) -> Result<Parsed<Methods>, Invalid> {
    match bytes.first() {
        None => return Ok(Parsed::More),
        Some(&VERSION) => {}
        Some(4) => return Err(Invalid::Socks4),
        Some(_) => return Err(Invalid::NotSocks),
    }
    let Some(offered) = counted(&bytes[1..]) else { return Ok(Parsed::More) };
    let message =
        Methods { none: offered.contains(&NO_AUTHENTICATION), password: offered.contains(&PASSWORD) };
    Ok(Parsed::Message { length: 2 + offered.len(), message })
}

/// The answer to a greeting.
pub const fn method_reply(method: Method) -> [u8; 2] {
    let code = match method {
        Method::None => NO_AUTHENTICATION,
        Method::Password => PASSWORD,
        Method::Unacceptable => 0xFF,
    };
    [VERSION, code]
}

/// Reads user name and password. Both may be empty, which no check will accept.
///
/// # Errors
/// [`Invalid::BadCredentials`] with the first byte.
pub fn credentials(bytes: &[u8]) -> Result<Parsed<Credentials<'_>>, Invalid> {
    match bytes.first() {
        None => return Ok(Parsed::More),
        Some(&CREDENTIALS_VERSION) => {}
        Some(_) => return Err(Invalid::BadCredentials),
    }
    let Some(user) = counted(&bytes[1..]) else { return Ok(Parsed::More) };
    let Some(password) = counted(&bytes[2 + user.len()..]) else { return Ok(Parsed::More) };
    let length = 3 + user.len() + password.len();
    Ok(Parsed::Message { length, message: Credentials { user, password } })
}

/// The answer to credentials.
pub const fn credentials_reply(verdict: Verdict) -> [u8; 2] {
    [CREDENTIALS_VERSION, matches!(verdict, Verdict::Rejected) as u8]
}

/// Reads a request: version, command, a zero, address type, address, port.
///
/// # Errors
/// [`Invalid`]; its [`reply`](Invalid::reply) is to be sent before the connection is closed.
pub fn request(bytes: &[u8]) -> Result<Parsed<Target>, Invalid> {
    let Some((&version, rest)) = bytes.split_first() else { return Ok(Parsed::More) };
    if version != VERSION {
        return Err(Invalid::NotSocks);
    }
    let Some((&command, rest)) = rest.split_first() else { return Ok(Parsed::More) };
    if command != CONNECT {
        return Err(Invalid::CommandNotSupported);
    }
    let Some((&reserved, rest)) = rest.split_first() else { return Ok(Parsed::More) };
    if reserved != 0 {
        return Err(Invalid::BadReserved);
    }
    let Some((&kind, rest)) = rest.split_first() else { return Ok(Parsed::More) };
    let host = match kind {
        IPV4 => rest.first_chunk::<4>().map(|&octets| (Host::Address(Ipv4Addr::from(octets).into()), 4)),
        IPV6 => rest.first_chunk::<16>().map(|&octets| (address(Ipv6Addr::from(octets).into()), 16)),
        DOMAIN => match rest.first() {
            Some(0) => return Err(Invalid::BadHost),
            _ => match counted(rest) {
                Some(text) => Some((name(text)?, 1 + text.len())),
                None => None,
            },
        },
        _ => return Err(Invalid::AddressTypeNotSupported),
    };
    let Some((host, length)) = host else { return Ok(Parsed::More) };
    let Some(&port) = rest[length..].first_chunk::<2>() else { return Ok(Parsed::More) };
    match u16::from_be_bytes(port) {
        0 => Err(Invalid::BadPort),
        port => Ok(Parsed::Message { length: 4 + length + 2, message: Target { host, port } }),
    }
}

/// Appends the answer to a request. `bound` is the address of our end of the connection to the target; clients
/// hardly look at it.
pub fn reply(reply: Reply, bound: Option<SocketAddr>, out: &mut Vec<u8>) {
    let bound = bound.unwrap_or_else(|| SocketAddr::from(([0, 0, 0, 0], 0)));
    out.extend_from_slice(&[VERSION, reply as u8, 0]);
    match bound.ip() {
        IpAddr::V4(address) => {
            out.push(IPV4);
            out.extend_from_slice(&address.octets());
        }
        IpAddr::V6(address) => {
            out.push(IPV6);
            out.extend_from_slice(&address.octets());
        }
    }
    out.extend_from_slice(&bound.port().to_be_bytes());
}

/// So many bytes as the first one says; `None` when they are not all there.
fn counted(bytes: &[u8]) -> Option<&[u8]> {
    let (&length, rest) = bytes.split_first()?;
    rest.get(..usize::from(length))
}

fn address(address: IpAddr) -> Host {
    Host::Address(address.to_canonical())
}

/// A host as a client names it: often enough an address in text.
fn name(text: &[u8]) -> Result<Host, Invalid> {
    let text = std::str::from_utf8(text).map_err(|_| Invalid::BadHost)?;
    if let Ok(found) = text.parse() {
        return Ok(address(found));
    }
    let name = text.strip_suffix('.').unwrap_or(text);
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if name.is_empty() || !name.bytes().all(is_name) {
        return Err(Invalid::BadHost);
    }
    match name.parse() {
        Ok(found) => Ok(address(found)),
        Err(_) => Ok(Host::Name(name.to_ascii_lowercase())),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::test_runner::RngSeed;

    use super::*;

    fn whole<T>(parsed: Result<Parsed<T>, Invalid>) -> (usize, T) {
        match parsed {
            Ok(Parsed::Message { length, message }) => (length, message),
            Ok(Parsed::More) => panic!("incomplete"),
            Err(invalid) => panic!("{invalid}"),
        }
    }

    fn connect(kind: u8, rest: &[u8]) -> Vec<u8> {
        [&[5, 1, 0, kind], rest].concat()
    }

    fn domain(name: &[u8]) -> Vec<u8> {
        connect(DOMAIN, &[&[u8::try_from(name.len()).unwrap()], name, &[0x01, 0xBB]].concat())
    }

    #[test]
    fn a_greeting_offers_methods() {
        for (bytes, none, password) in [
            (&b"\x05\x01\x00"[..], true, false),
            (b"\x05\x01\x02", false, true),
            (b"\x05\x03\x01\x02\x00", true, true),
            (b"\x05\x02\x01\x80", false, false),
            (b"\x05\x00", false, false),
            (&[&[5, 255][..], &[0x80; 254], &[2]].concat(), false, true),
        ] {
            let ahead = [bytes, b"\x05\x01"].concat();
            assert_eq!(whole(greeting(&ahead)), (bytes.len(), Methods { none, password }), "{bytes:?}");
            for end in 0..bytes.len() {
                assert_eq!(greeting(&bytes[..end]), Ok(Parsed::More), "{bytes:?} to {end}");
            }
        }
    }

    #[test]
    fn another_version_is_refused_with_its_first_byte() {
        for version in (0..=255).filter(|&version| version != 5) {
            let expected = if version == 4 { Invalid::Socks4 } else { Invalid::NotSocks };
            assert_eq!(greeting(&[version]), Err(expected), "{version}");
            assert_eq!(request(&[version]), Err(Invalid::NotSocks), "{version}");
        }
        for version in (0..=255).filter(|&version| version != 1) {
            assert_eq!(credentials(&[version]), Err(Invalid::BadCredentials), "{version}");
        }
    }

    #[test]
    fn the_method_is_the_one_wanted_or_none() {
        let (none, password) =
            (Methods { none: true, password: false }, Methods { none: false, password: true });
        for (offered, wanted, chosen, bytes) in [
            (none, Authentication::None, Method::None, [5, 0]),
            (password, Authentication::None, Method::Unacceptable, [5, 0xFF]),
            (none, Authentication::Password, Method::Unacceptable, [5, 0xFF]),
            (password, Authentication::Password, Method::Password, [5, 2]),
            (Methods { none: true, password: true }, Authentication::Password, Method::Password, [5, 2]),
            (Methods::default(), Authentication::None, Method::Unacceptable, [5, 0xFF]),
        ] {
            assert_eq!(offered.choose(wanted), chosen);
            assert_eq!(method_reply(chosen), bytes);
        }
    }

    #[test]
    fn credentials_are_two_counted_texts() {
        let long = [&[1, 255][..], &[b'u'; 255], &[255], &[b'p'; 255]].concat();
        for (bytes, user, password) in [
            (&b"\x01\x05alice\x06secret"[..], &b"alice"[..], &b"secret"[..]),
            (b"\x01\x00\x00", b"", b""),
            (&long, &[b'u'; 255], &[b'p'; 255]),
        ] {
            let ahead = [bytes, b"\x05"].concat();
            assert_eq!(whole(credentials(&ahead)), (bytes.len(), Credentials { user, password }));
            for end in 0..bytes.len() {
                assert_eq!(credentials(&bytes[..end]), Ok(Parsed::More), "{bytes:?} to {end}");
            }
            let shown = format!("{:?}", credentials(bytes));
            assert!(!shown.contains("secret") && !shown.contains("112"), "{shown}");
        }
        assert_eq!(
            (credentials_reply(Verdict::Accepted), credentials_reply(Verdict::Rejected)),
            ([1, 0], [1, 1])
        );
    }

    #[test]
    fn a_request_names_its_target() {
        let mut mapped = [0; 18];
        (mapped[10], mapped[11], mapped[12], mapped[15], mapped[17]) = (0xFF, 0xFF, 10, 1, 80);
        let mut ipv6 = [0; 18];
        (ipv6[15], ipv6[16]) = (1, 1);
        let long = [b'a'; 255];
        for (bytes, expected) in [
            (connect(IPV4, &[192, 0, 2, 1, 0, 80]), "192.0.2.1:80"),
            (connect(IPV6, &ipv6), "[::1]:256"),
            (connect(IPV6, &mapped), "10.0.0.1:80"),
            (domain(b"Shop.Example"), "shop.example:443"),
            (domain(b"shop.example."), "shop.example:443"),
            (domain(b"a_b-c"), "a_b-c:443"),
            (domain(b"127.0.0.1"), "127.0.0.1:443"),
            (domain(b"127.0.0.1."), "127.0.0.1:443"),
            (domain(b"::1"), "[::1]:443"),
            (domain(b"::ffff:10.0.0.1"), "10.0.0.1:443"),
            (domain(&long), &format!("{}:443", "a".repeat(255))),
        ] {
            let ahead = [&bytes[..], b"GET /"].concat();
            let (length, target) = whole(request(&ahead));
            assert_eq!((length, target.to_string().as_str()), (bytes.len(), expected));
            for end in 0..bytes.len() {
                assert_eq!(request(&bytes[..end]), Ok(Parsed::More), "{bytes:?} to {end}");
            }
        }
    }

    #[test]
    fn a_request_that_is_not_served_says_why_and_what_to_answer() {
        let commands = (0..=255).filter(|&command| command != CONNECT);
        let kinds = (0..=255).filter(|kind| ![IPV4, DOMAIN, IPV6].contains(kind));
        let mut bad: Vec<(Vec<u8>, Invalid, u8)> = Vec::new();
        bad.extend(commands.map(|command| (vec![5, command], Invalid::CommandNotSupported, 7)));
        bad.extend((1..=255).map(|reserved| (vec![5, 1, reserved], Invalid::BadReserved, 1)));
        bad.extend(kinds.map(|kind| (vec![5, 1, 0, kind], Invalid::AddressTypeNotSupported, 8)));
        bad.push((connect(DOMAIN, &[0]), Invalid::BadHost, 1));
        bad.push((connect(IPV4, &[192, 0, 2, 1, 0, 0]), Invalid::BadPort, 1));
        let names = [
            &b"."[..],
            b"a b",
            b"a\0",
            b"a/b",
            b"a:80",
            b"[::1]",
            b"\xFF",
            "é".as_bytes(),
            b"a%00",
            b"user@a",
            b"fe80::1%1",
        ];
        bad.extend(names.map(|name| (domain(name), Invalid::BadHost, 1)));
        for (bytes, expected, code) in bad {
            assert_eq!(request(&bytes), Err(expected), "{bytes:?}");
            assert_eq!(expected.reply().map(|reply| reply as u8), Some(code));
        }
        for other in [Invalid::Socks4, Invalid::NotSocks, Invalid::BadCredentials] {
            assert_eq!(other.reply(), None);
        }
    }

    #[test]
    fn a_reply_has_its_code_and_an_address() {
        let all = [
            Reply::Succeeded,
            Reply::GeneralFailure,
            Reply::NotAllowed,
            Reply::NetworkUnreachable,
            Reply::HostUnreachable,
            Reply::ConnectionRefused,
            Reply::TtlExpired,
            Reply::CommandNotSupported,
            Reply::AddressTypeNotSupported,
        ];
        for (code, kind) in all.into_iter().enumerate() {
            let mut out = Vec::new();
            reply(kind, None, &mut out);
            assert_eq!(out, [5, code as u8, 0, 1, 0, 0, 0, 0, 0, 0]);
        }
        let mut out = Vec::new();
        reply(Reply::Succeeded, Some("192.0.2.1:256".parse().unwrap()), &mut out);
        assert_eq!(out, [5, 0, 0, 1, 192, 0, 2, 1, 1, 0]);
        let mut out = Vec::new();
        reply(Reply::Succeeded, Some("[::1]:1".parse().unwrap()), &mut out);
        assert_eq!(out, [5, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1]);
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: 3000,
            rng_seed: RngSeed::Fixed(1),
            failure_persistence: None,
            ..Default::default()
        })]

        #[test]
        fn no_bytes_panic_and_a_verdict_stays(start in 0..4usize, tail in proptest::collection::vec(any::<u8>(), 0..300)) {
            let starts: [&[u8]; 4] = [b"", b"\x05\x01\x00\x03", b"\x05\x01\x00\x04", b"\x01\x03abc"];
            let bytes = [starts[start], &tail].concat();
            let mut verdicts = (greeting(b""), credentials(b""), request(b""));
            for end in 0..=bytes.len() {
                let now = (greeting(&bytes[..end]), credentials(&bytes[..end]), request(&bytes[..end]));
                prop_assert!(verdicts.0 == Ok(Parsed::More) || verdicts.0 == now.0);
                prop_assert!(verdicts.1 == Ok(Parsed::More) || verdicts.1 == now.1);
                prop_assert!(verdicts.2 == Ok(Parsed::More) || verdicts.2 == now.2);
                verdicts = now;
            }
        }
    }
}
