//! The host names and addresses a certificate is good for: its subject alternative names (RFC 5280 section
//! 4.2.1.6, matched as RFC 9525 section 6.3 says).

use std::borrow::Cow;
use std::net::IpAddr;

use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;

/// The names of a certificate. The common name is none: no client looks at it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// Host names in lower case, without trailing dot.
    pub exact: Vec<String>,
    /// What stands behind "*." in wildcards, likewise.
    pub wildcards: Vec<String>,
    /// Addresses.
    pub addresses: Vec<IpAddr>,
}

impl Names {
    /// The names of a certificate.
    pub(super) fn of(certificate: &X509Certificate<'_>) -> Names {
        let mut names = Names::default();
        let Ok(Some(listed)) = certificate.subject_alternative_name() else { return names };
        for name in &listed.value.general_names {
            match name {
                GeneralName::DNSName(name) => {
                    let name = normal(name).into_owned();
                    match name.strip_prefix("*.") {
                        Some(parent) if parent.contains('.') => names.wildcards.push(parent.to_owned()),
                        // A wildcard for a whole top-level domain, or inside a label: no client accepts it.
                        _ if name.contains('*') => {}
                        _ => names.exact.push(name),
                    }
                }
                GeneralName::IPAddress(bytes) => names.addresses.extend(address(bytes)),
                _ => {}
            }
        }
        names
    }

    /// Whether the certificate is good for this host: a name, or an address with or without brackets; no port.
    pub fn covers(&self, host: &str) -> bool {
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        if let Ok(address) = bare.parse::<IpAddr>() {
            return self.addresses.contains(&address);
        }
        let host = normal(host);
        if self.exact.iter().any(|name| **name == *host) {
            return true;
        }
        parent(&host).is_some_and(|parent| self.wildcards.iter().any(|wildcard| wildcard == parent))
    }
}

/// A host name in lower case, without trailing dot.
pub(super) fn normal(name: &str) -> Cow<'_, str> {
    let name = name.strip_suffix('.').unwrap_or(name);
    match name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        true => Cow::Owned(name.to_ascii_lowercase()),
        false => Cow::Borrowed(name),
    }
}

/// What stands behind the first label: a wildcard stands for exactly one.
pub(super) fn parent(name: &str) -> Option<&str> {
    name.split_once('.').filter(|(label, _)| !label.is_empty()).map(|(_, parent)| parent)
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(four) = <[u8; 4]>::try_from(bytes) {
        return Some(IpAddr::from(four));
    }
    <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::fixture::Authority;

    #[test]
    fn hosts_are_covered_by_exact_names_wildcards_of_one_label_and_addresses() {
        let made = Authority::new().server(&["Shop.Example", "*.api.example", "127.0.0.1", "::1"]);
        let names = Names::of(&x509_parser::parse_x509_certificate(&made.der).unwrap().1);
        for host in ["shop.example", "SHOP.example.", "a.api.example", "A.Api.Example", "127.0.0.1", "[::1]"]
        {
            assert!(names.covers(host), "{host}");
        }
        for host in
            ["api.example", "a.b.api.example", ".api.example", "example", "127.0.0.2", "[::2]", "", "."]
        {
            assert!(!names.covers(host), "{host}");
        }
    }

    #[test]
    fn wildcards_nobody_accepts_cover_nothing() {
        let made = Authority::new().server(&["*.example", "a*.shop.example"]);
        let names = Names::of(&x509_parser::parse_x509_certificate(&made.der).unwrap().1);
        assert_eq!(names, Names::default());
    }
}
