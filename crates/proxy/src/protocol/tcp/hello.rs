//! The server name in the first bytes of a TLS client.

use rustls::server::Acceptor;

/// The longest hello that is waited for, in bytes: four records.
const LONGEST: usize = 64 * 1024;
/// The content type of a handshake record (RFC 8446 section 5.1).
const HANDSHAKE: u8 = 22;

/// What the bytes so far are.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Hello {
    /// The beginning of a hello, or nothing yet.
    More,
    /// A hello that asks for this name.
    Named(String),
    /// A hello without a name, or no TLS at all.
    Nameless,
}

/// Reads the hello at the front of `bytes`.
pub(super) fn read(bytes: &[u8]) -> Hello {
    match bytes.first() {
        None => return Hello::More,
        Some(&HANDSHAKE) => {}
        Some(_) => return Hello::Nameless,
    }
    let (mut acceptor, mut rest) = (Acceptor::default(), bytes);
    while !rest.is_empty() {
        match acceptor.read_tls(&mut rest) {
            Ok(1..) => {}
            Ok(0) | Err(_) => break,
        }
    }
    match acceptor.accept() {
        Ok(None) if bytes.len() < LONGEST => Hello::More,
        Ok(None) | Err(_) => Hello::Nameless,
        Ok(Some(accepted)) => match accepted.client_hello().server_name() {
            Some(name) => Hello::Named(name.to_owned()),
            None => Hello::Nameless,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn hello(name: &'static str) -> Vec<u8> {
        let config = rustls::ClientConfig::builder()
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        let mut client = rustls::ClientConnection::new(Arc::new(config), name.try_into().unwrap()).unwrap();
        let mut out = Vec::new();
        client.write_tls(&mut out).unwrap();
        out
    }

    #[test]
    fn the_name_of_a_hello_is_found_when_all_of_it_is_there() {
        let whole = hello("a.example");
        for end in 0..whole.len() {
            assert_eq!(read(&whole[..end]), Hello::More, "{end}");
        }
        assert_eq!(read(&whole), Hello::Named("a.example".into()));
        assert_eq!(read(&[&whole[..], b"more"].concat()), Hello::Named("a.example".into()));
    }

    #[test]
    fn what_is_no_hello_has_no_name() {
        assert_eq!(read(&hello("192.0.2.1")), Hello::Nameless);
        for other in [&b"GET / HTTP/1.1\r\n"[..], b"\x16\x03\x01\xff\xff\xff", b"\x16garbage", b"\0"] {
            assert_eq!(read(other), Hello::Nameless, "{other:?}");
        }
    }
}
