//! Where a socket is: an IP address with a port, or a path in the file system.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

/// Where a socket is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// An IP address with a port.
    Inet(SocketAddr),
    /// The path of a Unix socket.
    Unix(Arc<Path>),
}

/// What stands before the path of a Unix socket in a text.
const UNIX: &str = "unix:";
/// The longest path the kernel takes: sun_path has 108 bytes, the last of them zero (unix(7)).
const LONGEST: usize = 107;

impl Address {
    /// The Unix socket that a text names; none when it names none.
    ///
    /// # Errors
    /// What is wrong with its path.
    pub fn unix(text: &str) -> Option<Result<Address, String>> {
        let path = text.strip_prefix(UNIX)?;
        Some(match path {
            _ if !path.starts_with('/') || path.ends_with('/') => {
                Err(format!("`{path}` is not the absolute path of a socket; write \"unix:/run/app.sock\""))
            }
            _ if path.len() > LONGEST => Err(format!(
                "the path of a Unix socket has at most {LONGEST} bytes; this one has {}",
                path.len()
            )),
            _ if path.contains('\0') => Err("a path holds no zero byte".to_owned()),
            _ => Ok(Address::Unix(Arc::from(Path::new(path)))),
        })
    }

    /// The IP address and port, if it has them.
    pub fn inet(&self) -> Option<SocketAddr> {
        match self {
            Address::Inet(address) => Some(*address),
            Address::Unix(_) => None,
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Address {
        Address::Inet(address)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Inet(address) => address.fmt(f),
            Address::Unix(path) => write!(f, "{UNIX}{}", path.display()),
        }
    }
}

/// What clients are told apart by, where they are counted: an IPv4 address, or the network of an IPv6 address
/// (/64), for whoever has one of its addresses has them all.
pub type Origin = [u8; 9];

/// What a client with this address is counted by.
pub fn origin_of(address: IpAddr) -> Origin {
    let mut key = [0; 9];
    match address.to_canonical() {
        IpAddr::V4(address) => {
            key[0] = 4;
            key[1..5].copy_from_slice(&address.octets());
        }
        IpAddr::V6(address) => {
            key[0] = 6;
            key[1..].copy_from_slice(&address.octets()[..8]);
        }
    }
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unix_socket_has_an_absolute_path_that_the_kernel_takes() {
        let written = |text: &str| Address::unix(text).unwrap().map(|address| address.to_string());
        assert_eq!(written("unix:/run/app.sock").unwrap(), "unix:/run/app.sock");
        assert!(Address::unix("127.0.0.1:80").is_none());
        for wrong in
            ["unix:", "unix:app.sock", "unix:/run/", "unix:/a\0b", &format!("unix:/{}", "a".repeat(107))]
        {
            assert!(written(wrong).is_err(), "{wrong:?}");
        }
    }
}
