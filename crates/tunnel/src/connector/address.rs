//! Where a gateway or a target is.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// How bytes travel to an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Security {
    /// `ws`, `http`.
    Plain,
    /// `wss`, `https`.
    Tls,
}

/// A place to dial.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address {
    /// Whether with TLS.
    pub security: Security,
    /// A name, or an IP address without brackets. A certificate must be for it.
    pub host: String,
    /// The port.
    pub port: u16,
    /// Which of the host's addresses, when that was looked up before.
    pub ip: Option<IpAddr>,
}

impl Address {
    /// Host and port as a Host field has them; a scheme's default port is left out.
    pub fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        match (self.security, self.port) {
            (Security::Plain, 80) | (Security::Tls, 443) => host,
            (_, port) => format!("{host}:{port}"),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.security == Security::Tls { "wss" } else { "ws" };
        write!(f, "{scheme}://{}", self.authority())?;
        self.ip.map_or(Ok(()), |ip| write!(f, " ({ip})"))
    }
}

/// A text that is no address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadAddress;

impl fmt::Display for BadAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an address is ws, wss, http or https, then ://, a host and maybe a port")
    }
}

impl std::error::Error for BadAddress {}

impl FromStr for Address {
    type Err = BadAddress;

    /// Reads `wss://gateway.example:9070`. What stands behind the port is not looked at: the protocol has its own
    /// paths.
    fn from_str(text: &str) -> Result<Address, BadAddress> {
        let (scheme, rest) = text.split_once("://").ok_or(BadAddress)?;
        let security = match scheme {
            "ws" | "http" => Security::Plain,
            "wss" | "https" => Security::Tls,
            _ => return Err(BadAddress),
        };
        let authority = rest.split(['/', '?']).next().unwrap_or_default();
        let (host, port) = match authority.strip_prefix('[') {
            Some(rest) => {
                let (host, port) = rest.split_once(']').ok_or(BadAddress)?;
                host.parse::<std::net::Ipv6Addr>().map_err(|_| BadAddress)?;
                (host, port)
            }
            None => authority.split_at(authority.find(':').unwrap_or(authority.len())),
        };
        let is_host = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:".contains(&byte);
        if host.is_empty() || host.len() > 255 || !host.bytes().all(is_host) {
            return Err(BadAddress);
        }
        let port = match (port.strip_prefix(':'), security) {
            (Some(port), _) if port.bytes().all(|byte| byte.is_ascii_digit()) => {
                port.parse().ok().filter(|&port| port != 0).ok_or(BadAddress)?
            }
            (None, Security::Plain) if port.is_empty() => 80,
            (None, Security::Tls) if port.is_empty() => 443,
            _ => return Err(BadAddress),
        };
        Ok(Address { security, host: host.to_ascii_lowercase(), port, ip: None })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_shown() {
        let shown = |text: &str| text.parse::<Address>().map(|address| address.to_string());
        assert_eq!(
            shown("wss://Gateway.Example:9070/register/?x"),
            Ok("wss://gateway.example:9070".to_owned())
        );
        assert_eq!(shown("ws://10.0.0.1"), Ok("ws://10.0.0.1".to_owned()));
        assert_eq!(shown("https://a"), Ok("wss://a".to_owned()));
        assert_eq!(shown("http://[::1]:5000"), Ok("ws://[::1]:5000".to_owned()));
        for bad in [
            "",
            "a:1",
            "ftp://a",
            "ws://",
            "ws://:1",
            "ws://a:",
            "ws://a:x",
            "ws://a:70000",
            "ws://a:0",
            "ws://u@a",
            "ws://[::1",
            "ws://[x]",
            "ws://[::1]x",
            "ws://a:+1",
        ] {
            assert_eq!(shown(bad), Err(BadAddress), "{bad}");
        }
    }
}
