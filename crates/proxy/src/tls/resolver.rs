//! Which certificate a client gets: by the name it asks for, and by the signatures it understands.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use rustls::SignatureScheme;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::certificate::Certificate;
use super::config::UnknownSni;
use super::names::{normal, parent};

/// Finds certificates by name, in time that does not grow with their number.
pub(super) struct Resolver {
    /// In the order written; never empty.
    certificates: Vec<Arc<Certificate>>,
    exact: HashMap<String, Vec<usize>>,
    /// By what stands behind "*.".
    wildcards: HashMap<String, Vec<usize>>,
    /// The first certificate, and those for exactly the same names.
    default: Vec<usize>,
    unknown: UnknownSni,
}

impl Resolver {
    /// Of certificates in the order written; None when there is none.
    pub(super) fn new(certificates: Vec<Arc<Certificate>>, unknown: UnknownSni) -> Option<Resolver> {
        let first = Arc::clone(certificates.first()?);
        let (mut exact, mut wildcards) = (HashMap::<_, Vec<_>>::new(), HashMap::<_, Vec<_>>::new());
        let mut default = Vec::new();
        for (index, certificate) in certificates.iter().enumerate() {
            let names = certificate.names();
            for name in &names.exact {
                exact.entry(name.clone()).or_default().push(index);
            }
            for name in &names.wildcards {
                wildcards.entry(name.clone()).or_default().push(index);
            }
            if index == 0 || names == first.names() {
                default.push(index);
            }
        }
        Some(Resolver { certificates, exact, wildcards, default, unknown })
    }

    /// The certificates that a client may get, the first one that it understands; empty: none.
    pub(super) fn candidates(&self, sni: Option<&str>) -> &[usize] {
        if let Some(sni) = sni {
            let name = normal(sni);
            let wildcard = || parent(&name).and_then(|parent| self.wildcards.get(parent));
            if let Some(found) = self.exact.get(&*name).or_else(wildcard) {
                return found;
            }
        }
        match self.unknown {
            UnknownSni::Default => &self.default,
            UnknownSni::Refuse => &[],
        }
    }

    fn choose(&self, sni: Option<&str>, schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let candidates = self.candidates(sni);
        let understood = |index: &&usize| self.certificates[**index].key.key.choose_scheme(schemes).is_some();
        // With one it does not understand, the handshake fails in a way that the client can tell.
        let chosen = candidates.iter().find(understood).or(candidates.first())?;
        Some(Arc::clone(&self.certificates[*chosen].key))
    }

    /// Whether every certificate that a client may have got for this name is good for the host, too.
    pub(super) fn covers(&self, sni: &str, host: &str) -> bool {
        let candidates = self.candidates(Some(sni));
        !candidates.is_empty()
            && candidates.iter().all(|index| self.certificates[*index].names().covers(host))
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.choose(hello.server_name(), hello.signature_schemes())
    }
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resolver").field("exact", &self.exact).field("wildcards", &self.wildcards).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::fixture::Authority;

    const ECDSA: SignatureScheme = SignatureScheme::ECDSA_NISTP256_SHA256;
    const RSA: SignatureScheme = SignatureScheme::RSA_PSS_SHA256;

    fn resolver(all: &[&crate::tls::fixture::Made], unknown: UnknownSni) -> Resolver {
        Resolver::new(all.iter().map(|made| made.certificate()).collect(), unknown).unwrap()
    }

    fn chosen(resolver: &Resolver, sni: Option<&str>, schemes: &[SignatureScheme]) -> Option<usize> {
        let chosen = resolver.choose(sni, schemes)?;
        resolver.certificates.iter().position(|one| Arc::ptr_eq(&one.key, &chosen))
    }

    #[test]
    fn the_exact_name_wins_over_the_wildcard_and_both_over_the_first() {
        let ca = Authority::new();
        let (first, wild, exact) =
            (ca.server(&["first.example"]), ca.server(&["*.shop.example"]), ca.server(&["a.shop.example"]));
        let resolver = resolver(&[&first, &wild, &exact], UnknownSni::Default);
        for (sni, expected) in [
            (Some("a.shop.example"), 2),
            (Some("A.Shop.Example."), 2),
            (Some("b.shop.example"), 1),
            (Some("a.b.shop.example"), 0),
            (Some("shop.example"), 0),
            (None, 0),
        ] {
            assert_eq!(chosen(&resolver, sni, &[ECDSA]), Some(expected), "{sni:?}");
        }
    }

    #[test]
    fn refusal_is_for_other_names_and_for_none() {
        let resolver = resolver(&[&Authority::new().server(&["a.example"])], UnknownSni::Refuse);
        assert_eq!(chosen(&resolver, Some("a.example"), &[ECDSA]), Some(0));
        assert_eq!(chosen(&resolver, Some("b.example"), &[ECDSA]), None);
        assert_eq!(chosen(&resolver, None, &[ECDSA]), None);
    }

    #[test]
    fn each_client_gets_the_certificate_it_understands() {
        let ca = Authority::new();
        let (ecdsa, rsa) = (ca.server(&["a.example"]), ca.rsa_server(&["a.example"]));
        let resolver = resolver(&[&ecdsa, &rsa], UnknownSni::Default);
        for sni in [Some("a.example"), Some("unknown.example"), None] {
            assert_eq!(chosen(&resolver, sni, &[RSA]), Some(1), "{sni:?}");
            assert_eq!(chosen(&resolver, sni, &[RSA, ECDSA]), Some(0), "{sni:?}");
            assert_eq!(chosen(&resolver, sni, &[SignatureScheme::ED25519]), Some(0), "{sni:?}");
        }
    }
}
