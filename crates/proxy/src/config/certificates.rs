//! Certificates of a document, and that those which listeners and upstreams name are there.

use super::document::Document;
use crate::problem::{At, Problems};
use crate::tls::{CertificatePolicy, ClientTls, known_certificate};

/// The certificates, by name. Touches no file.
pub(super) fn check(document: &Document, problems: &mut Problems) -> Vec<(String, CertificatePolicy)> {
    let at = At::root().key("certificates");
    let known = document.certificates.iter();
    let certificates =
        known.filter_map(|(name, config)| Some((name.clone(), config.check(&at.key(name), problems)?)));
    let certificates = certificates.collect();
    let known = document.certificates.keys().map(String::as_str);
    for (name, listener) in &document.listeners {
        let at = At::root().key("listeners").key(name).key("tls").key("certificates");
        let named = listener.tls.iter().flat_map(|tls| &tls.certificates);
        for (index, certificate) in named.enumerate() {
            known_certificate(known.clone(), certificate, &at.index(index), problems);
        }
    }
    for (name, upstream) in &document.upstreams {
        let at = At::root().key("upstreams").key(name).key("tls").key("certificate");
        if let Some(certificate) = upstream.tls.as_ref().and_then(ClientTls::certificate) {
            known_certificate(known.clone(), certificate, &at, problems);
        }
    }
    certificates
}
