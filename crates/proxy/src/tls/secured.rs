//! What is known of a connection over TLS after its handshake.
//!
//! Promise: a certificate that cannot be parsed gives an identity with nothing but its fingerprint; without a
//! client certificate it costs two short texts.

use std::fmt::Write as _;

use base64::Engine as _;
use rustls::pki_types::CertificateDer;
use rustls::{ProtocolVersion, ServerConnection};
use sha2::{Digest as _, Sha256};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::parse_x509_certificate;

use super::config::iana;
use super::distinguished;

/// A client's connection over TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Secured {
    /// The host name the client asked for, in lower case.
    pub sni: Option<String>,
    /// The protocol that was agreed on: "h2", "http/1.1".
    pub alpn: Option<String>,
    /// "TLSv1.2" or "TLSv1.3".
    pub version: &'static str,
    /// The cipher suite's IANA name.
    pub cipher: &'static str,
    /// Who the client has proved to be, with a certificate of an authority that the listener accepts.
    pub client: Option<Identity>,
}

/// Who a client has proved to be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// Subject (RFC 4514): "CN=Ada,O=Example".
    pub subject: String,
    /// Issuer, likewise.
    pub issuer: String,
    /// Serial number in hexadecimal digits, lower case.
    pub serial: String,
    /// SHA-256 of the certificate in hexadecimal digits, lower case.
    pub fingerprint: String,
    /// DNS names (subject alternative names).
    pub dns: Vec<String>,
    /// URIs, likewise: SPIFFE ids stand here.
    pub uris: Vec<String>,
    /// E-mail addresses, likewise.
    pub emails: Vec<String>,
    /// The last second it is valid, in Unix time.
    pub not_after: i64,
    certificate: Vec<u8>,
}

impl Secured {
    /// Of a connection whose handshake is complete.
    pub fn of_server(connection: &ServerConnection) -> Secured {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let client = connection.peer_certificates().and_then(<[_]>::first);
        Secured {
            sni: connection.server_name().map(str::to_owned),
            alpn: connection.alpn_protocol().map(text),
            version: match connection.protocol_version() {
                Some(ProtocolVersion::TLSv1_3) => "TLSv1.3",
                Some(ProtocolVersion::TLSv1_2) => "TLSv1.2",
                _ => "",
            },
            cipher: connection.negotiated_cipher_suite().map_or("", |suite| iana(suite.suite())),
            client: client.map(Identity::of),
        }
    }
}

impl Identity {
    /// Of a certificate that was proved.
    pub fn of(certificate: &CertificateDer<'_>) -> Identity {
        let mut identity = Identity {
            fingerprint: hex(&Sha256::digest(certificate)),
            certificate: certificate.to_vec(),
            ..Identity::default()
        };
        if let Ok((_, parsed)) = parse_x509_certificate(certificate) {
            identity.note(&parsed);
        }
        identity
    }

    fn note(&mut self, parsed: &X509Certificate<'_>) {
        self.subject = distinguished::text(parsed.subject());
        self.issuer = distinguished::text(parsed.issuer());
        self.serial = hex(parsed.raw_serial());
        self.not_after = parsed.validity().not_after.timestamp();
        let Ok(Some(listed)) = parsed.subject_alternative_name() else { return };
        for name in &listed.value.general_names {
            match name {
                GeneralName::DNSName(name) if printable(name) => self.dns.push((*name).to_owned()),
                GeneralName::URI(uri) if printable(uri) => self.uris.push((*uri).to_owned()),
                GeneralName::RFC822Name(email) if printable(email) => self.emails.push((*email).to_owned()),
                _ => {}
            }
        }
    }

    /// The certificate itself.
    pub fn der(&self) -> &[u8] {
        &self.certificate
    }

    /// The value of Client-Cert (RFC 9440 section 2.1): the certificate's bytes in base64 between colons.
    pub fn client_cert(&self) -> String {
        let mut value = String::with_capacity(self.certificate.len() / 3 * 4 + 6);
        value.push(':');
        base64::engine::general_purpose::STANDARD.encode_string(&self.certificate, &mut value);
        value.push(':');
        value
    }
}

/// Whether a name can stand in a header and in a log.
fn printable(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| (0x21..0x7f).contains(&byte))
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        // Writing into a text does not fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::fixture::Authority;

    #[test]
    fn an_identity_holds_what_its_certificate_says() {
        let made = Authority::new().client("Ada, of \"Example\"", &["ada.example", "spiffe://example/ada"]);
        let identity = Identity::of(&made.der);
        assert_eq!(identity.subject, "CN=Ada\\, of \\\"Example\\\"");
        assert_eq!(identity.issuer, "CN=Test authority");
        assert_eq!(identity.dns, ["ada.example"]);
        assert_eq!(identity.uris, ["spiffe://example/ada"]);
        assert_eq!(identity.fingerprint, hex(&Sha256::digest(&made.der)));
        assert!(identity.serial.len() >= 2 && identity.not_after > 0);
        let value = identity.client_cert();
        let inner = value.strip_prefix(':').and_then(|value| value.strip_suffix(':')).unwrap();
        assert_eq!(base64::engine::general_purpose::STANDARD.decode(inner).unwrap(), identity.der());
    }

    #[test]
    fn a_certificate_that_is_none_has_only_a_fingerprint() {
        let identity = Identity::of(&CertificateDer::from(vec![0x30, 0x82, 0xff]));
        assert_eq!((identity.subject.as_str(), identity.not_after), ("", 0));
        assert_eq!(identity.fingerprint.len(), 64);
    }
}
