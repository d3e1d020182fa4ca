//! Where the admin endpoints may listen: on this machine only.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// Reads an address and port for the admin endpoints: `127.0.0.1:9900`, `[::1]:9900`, `localhost:9900`.
///
/// # Errors
/// One sentence: what is wrong, and what to write instead. There are no credentials yet, so every address
/// that another machine could reach is refused.
pub fn check_address(text: &str) -> Result<SocketAddr, String> {
    let port_of = |name: &str| text.strip_prefix(name).and_then(|port| port.parse::<u16>().ok());
    if let Some(port) = port_of("localhost:") {
        return Ok((Ipv4Addr::LOCALHOST, port).into());
    }
    if let Some(port) = port_of(":") {
        return Err(format!(
            "`{text}` is every address of this machine; the admin endpoints listen on loopback only: write \"127.0.0.1:{port}\""
        ));
    }
    let address: SocketAddr = text.parse().map_err(|_| {
        format!("`{text}` is not an address and a port; write \"127.0.0.1:9900\" or \"[::1]:9900\"")
    })?;
    if !is_loopback(address.ip()) {
        return Err(format!(
            "`{text}` can be reached from other machines; the admin endpoints listen on loopback only: write \"127.0.0.1:{}\"",
            address.port()
        ));
    }
    Ok(address)
}

/// Whether only this machine can reach it. An IPv4 address in IPv6 clothes counts as the IPv4 address.
pub(crate) fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_addresses_are_taken() {
        for (text, address) in [
            ("127.0.0.1:9900", "127.0.0.1:9900"),
            ("127.8.9.1:0", "127.8.9.1:0"),
            ("[::1]:9900", "[::1]:9900"),
            ("localhost:9900", "127.0.0.1:9900"),
            ("[::ffff:127.0.0.1]:80", "[::ffff:127.0.0.1]:80"),
        ] {
            assert_eq!(check_address(text), Ok(address.parse().unwrap()), "{text}");
        }
    }

    #[test]
    fn addresses_others_can_reach_are_refused_with_advice() {
        for text in [
            "0.0.0.0:9900",
            "[::]:9900",
            "192.0.2.1:9900",
            "[2001:db8::1]:9900",
            ":9900",
            "[::ffff:10.0.0.1]:9900",
        ] {
            let error = check_address(text).unwrap_err();
            assert!(error.contains("loopback only: write \"127.0.0.1:9900\""), "{error}");
        }
        for text in
            ["", "9900", "127.0.0.1", "127.0.0.1:99999", "localhost", "localhost:x", "example.org:80", ":"]
        {
            assert!(check_address(text).unwrap_err().contains("is not an address and a port"), "{text}");
        }
    }
}
