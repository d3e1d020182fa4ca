//! TLS to an upstream's endpoints, as it runs: configurations shared by all workers, with one memory of
//! sessions that can be resumed.

use std::fmt;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::sign::SingleCertAndKey;
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use super::certificate::Certificate;
use super::config::{ClientPolicy, Version};
use super::files::{self, Digest};
use super::provider;
use super::server::versions;
use crate::problem::{At, Problems};

/// Which protocols an endpoint is offered (ALPN).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offer {
    /// Nothing: what is spoken inside is not HTTP.
    Nothing,
    /// "http/1.1".
    Http1,
    /// "h2".
    Http2,
    /// "h2" and "http/1.1", in this order.
    Both,
}

impl Offer {
    const ALL: [Offer; 4] = [Offer::Nothing, Offer::Http1, Offer::Http2, Offer::Both];

    fn protocols(self) -> Vec<Vec<u8>> {
        let protocols: &[&[u8]] = match self {
            Offer::Nothing => &[],
            Offer::Http1 => &[b"http/1.1"],
            Offer::Http2 => &[b"h2"],
            Offer::Both => &[b"h2", b"http/1.1"],
        };
        protocols.iter().map(|protocol| protocol.to_vec()).collect()
    }
}

/// TLS to an upstream's endpoints.
pub struct Client {
    /// In the order of [`Offer::ALL`].
    configs: [Arc<ClientConfig>; 4],
    policy: ClientPolicy,
    /// What it was made of: the authorities, and the files of the certificate that is shown.
    made_of: (Option<Digest>, Option<[Digest; 2]>),
}

impl Client {
    /// The policy with this certificate of ours; reads the authorities. `before`, the one that runs, is given
    /// back when nothing has changed. None: a problem, which names the file.
    pub(super) fn load(
        policy: &ClientPolicy,
        certificate: Option<&Certificate>,
        (before, system): (Option<&Arc<Client>>, &mut System),
        at: &At,
        problems: &mut Problems,
    ) -> Option<Arc<Client>> {
        let roots = match (&policy.ca, policy.verify) {
            (_, false) => None,
            (None, true) => Some(system.roots(at, problems)?),
            (Some(ca), true) => {
                let read = files::read(ca)
                    .and_then(|bytes| Ok((Arc::new(files::authorities(ca, &bytes)?), files::digest(&bytes))));
                Some(read.map_err(|wrong| wrong.note(&at.key("ca"), problems)).ok()?)
            }
        };
        let digest = roots.as_ref().map(|(_, digest)| *digest);
        let made_of = (digest, certificate.map(|certificate| certificate.digest));
        if let Some(before) = before.filter(|before| before.policy == *policy && before.made_of == made_of) {
            return Some(Arc::clone(before));
        }
        let config = config(policy, roots.map(|(roots, _)| roots), certificate);
        let config = config.map_err(|error| format!("TLS cannot be set up: {error}"));
        let config = problems.take(at, config)?;
        let configs = Offer::ALL.map(|offer| {
            // Copies share the memory of sessions, and what makes a session fit: verifier and certificate.
            let mut config = config.clone();
            config.alpn_protocols = offer.protocols();
            Arc::new(config)
        });
        Some(Arc::new(Client { configs, policy: policy.clone(), made_of }))
    }

    /// TLS to a server beside the upstreams, without a certificate of ours; reads the authorities.
    pub fn outgoing(policy: &ClientPolicy, at: &At, problems: &mut Problems) -> Option<Arc<Client>> {
        Client::load(policy, None, (None, &mut System::default()), at, problems)
    }

    /// What a handshake is made with.
    pub fn config(&self, offer: Offer) -> &Arc<ClientConfig> {
        &self.configs[offer as usize]
    }

    /// The name that an endpoint ("host:port") is asked for and must prove. None: its host cannot be a name.
    pub fn server_name(&self, endpoint: &str) -> Option<ServerName<'static>> {
        self.policy.server_name(endpoint)
    }
}

impl ClientPolicy {
    /// The name that an endpoint ("host:port") is asked for and must prove. None: its host cannot be a name.
    pub fn server_name(&self, endpoint: &str) -> Option<ServerName<'static>> {
        self.sni.clone().or_else(|| name_of(endpoint))
    }
}

/// The host of "host:port" as the name of a server; a Unix socket ("unix:/path") has none.
fn name_of(endpoint: &str) -> Option<ServerName<'static>> {
    if endpoint.starts_with("unix:") {
        return None;
    }
    let host = endpoint.rsplit_once(':').map_or(endpoint, |(host, _)| host);
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    ServerName::try_from(bare.to_owned()).ok()
}

fn config(
    policy: &ClientPolicy,
    roots: Option<Arc<RootCertStore>>,
    certificate: Option<&Certificate>,
) -> Result<ClientConfig, Error> {
    let verifier: Arc<dyn ServerCertVerifier> = match roots {
        None => Arc::new(AnyServer),
        Some(roots) => WebPkiServerVerifier::builder_with_provider(roots, provider())
            .build()
            .map_err(|error| Error::General(error.to_string()))?,
    };
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&versions((policy.min_version, Version::Tls13)))?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    Ok(match certificate {
        None => builder.with_no_client_auth(),
        Some(certificate) => {
            builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(&certificate.key))))
        }
    })
}

/// The authorities this machine trusts, read when the first upstream needs them.
#[derive(Default)]
pub(super) struct System(Option<Option<(Arc<RootCertStore>, Digest)>>);

impl System {
    fn roots(&mut self, at: &At, problems: &mut Problems) -> Option<(Arc<RootCertStore>, Digest)> {
        let found = self.0.get_or_insert_with(|| {
            let found = rustls_native_certs::load_native_certs().certs;
            let digest = files::digest(&found.iter().flat_map(|one| one.iter().copied()).collect::<Vec<_>>());
            let mut roots = RootCertStore::empty();
            // Some of them are always of kinds nobody uses any more.
            let (usable, _) = roots.add_parsable_certificates(found);
            (usable > 0).then(|| (Arc::new(roots), digest))
        });
        if found.is_none() {
            let problem =
                problems.add(at, "this machine trusts no authority that could have issued certificates");
            problem.hint("install the package ca-certificates, or name a file with `ca`");
        }
        found.clone()
    }
}

/// Believes every server; its signatures must still be right.
struct AnyServer;

impl fmt::Debug for AnyServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AnyServer")
    }
}

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _certificate: &CertificateDer<'_>,
        _chain: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &provider().signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &provider().signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_an_endpoint_is_its_host() {
        let names = [
            ("shop.example:443", Some("shop.example")),
            ("127.0.0.1:443", Some("127.0.0.1")),
            ("[::1]:443", Some("::1")),
            ("a b:443", None),
            ("unix:/run/app.sock", None),
        ];
        for (endpoint, expected) in names {
            let name = name_of(endpoint).map(|name| name.to_str().into_owned());
            assert_eq!(name.as_deref(), expected, "{endpoint}");
        }
    }
}
