//! TLS of a listener, as it runs: one configuration, shared by all workers.
//!
//! Promise: sessions are resumed by tickets, sealed with keys that all workers share and that change every six
//! hours; nothing is kept in memory for a session. The keys outlive a change of anything but of how clients
//! prove who they are: a session that was opened under other rules is not resumed.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::Ticketer;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, ProducesTickets, VerifierBuilderError, WebPkiClientVerifier};
use rustls::version::{TLS12, TLS13};
use rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion};

use super::certificate::Certificate;
use super::config::{ClientAuthMode, ClientAuthPolicy, ServerPolicy, Version};
use super::files::{self, Digest, Wrong};
use super::provider;
use super::resolver::Resolver;
use crate::problem::{At, Problems};

/// TLS of a listener.
pub struct Server {
    config: Arc<ServerConfig>,
    resolver: Arc<Resolver>,
    policy: ServerPolicy,
    /// What the certificates' files held.
    certificates: Vec<[Digest; 2]>,
    /// What the files about clients held.
    clients: Vec<Digest>,
}

impl Server {
    /// The policy with these certificates; reads the files about clients. `before`, the one that runs, is given
    /// back when nothing has changed; `now` is Unix time in seconds. None: a problem, which names the file.
    pub(super) fn load(
        policy: &ServerPolicy,
        certificates: Vec<Arc<Certificate>>,
        (before, now): (Option<&Arc<Server>>, i64),
        at: &At,
        problems: &mut Problems,
    ) -> Option<Arc<Server>> {
        let at_auth = at.key("client_auth");
        let auth = policy.client_auth.as_ref();
        let auth = match auth.map(|auth| Authorities::read(auth, now, &at_auth, problems)) {
            None => None,
            Some(read) => Some(read?),
        };
        let clients = auth.as_ref().map(|auth| auth.digests.clone()).unwrap_or_default();
        let digests: Vec<_> = certificates.iter().map(|certificate| certificate.digest).collect();
        if let Some(before) = before
            && (&before.policy, &before.certificates, &before.clients) == (policy, &digests, &clients)
        {
            return Some(Arc::clone(before));
        }
        let kept =
            before.filter(|old| old.policy.client_auth == policy.client_auth && old.clients == clients);
        let ticketer = match kept {
            Some(old) => Arc::clone(&old.config.ticketer),
            None => {
                problems.take(at, Ticketer::new().map_err(|_| "there is no randomness for session keys"))?
            }
        };
        let resolver = Arc::new(Resolver::new(certificates, policy.unknown_sni)?);
        let verifier = match auth {
            None => WebPkiClientVerifier::no_client_auth(),
            Some(auth) => auth.verifier().map_err(|wrong| wrong.note(&at_auth.key("crl"), problems)).ok()?,
        };
        let config = problems.take(at, config(policy, &resolver, verifier, ticketer))?;
        let (policy, config) = (policy.clone(), Arc::new(config));
        Some(Arc::new(Server { config, resolver, policy, certificates: digests, clients }))
    }

    /// What a handshake is made with.
    pub fn config(&self) -> &Arc<ServerConfig> {
        &self.config
    }

    /// How long a handshake may take.
    pub fn handshake_timeout(&self) -> Duration {
        self.policy.handshake_timeout
    }

    /// Whether clients are asked for a certificate.
    pub fn asks_clients(&self) -> bool {
        self.policy.client_auth.is_some()
    }

    /// Whether a request for `host` (with or without a port) may come over a connection opened with the name
    /// `sni`. If not: 421 (RFC 9110 section 15.5.20), and the client may try again over another connection.
    pub fn permits(&self, sni: Option<&str>, host: &str) -> bool {
        let Some(sni) = sni.filter(|_| self.policy.strict_sni) else { return true };
        let host = sluice_http::host_of(host);
        let bare = host.strip_suffix('.').unwrap_or(host);
        bare.eq_ignore_ascii_case(sni.strip_suffix('.').unwrap_or(sni)) || self.resolver.covers(sni, host)
    }
}

fn config(
    policy: &ServerPolicy,
    resolver: &Arc<Resolver>,
    verifier: Arc<dyn ClientCertVerifier>,
    ticketer: Arc<dyn ProducesTickets>,
) -> Result<ServerConfig, rustls::Error> {
    let mut cryptography = provider();
    if let Some(ciphers) = &policy.ciphers {
        let known = &cryptography.cipher_suites;
        let chosen = known.iter().filter(|suite| ciphers.contains(&suite.suite())).copied();
        let chosen = chosen.collect();
        cryptography = Arc::new(CryptoProvider { cipher_suites: chosen, ..(*cryptography).clone() });
    }
    let builder = ServerConfig::builder_with_provider(cryptography)
        .with_protocol_versions(&versions(policy.versions))?;
    let resolver = Arc::clone(resolver);
    let mut config = builder.with_client_cert_verifier(verifier).with_cert_resolver(resolver);
    config.alpn_protocols = policy.alpn.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    config.ticketer = ticketer;
    // A table of sessions would be one lock for all workers; clients without tickets are rare and old.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(config)
}

/// The versions of a range, newest first.
pub(super) fn versions((min, max): (Version, Version)) -> Vec<&'static SupportedProtocolVersion> {
    let all = [(Version::Tls13, &TLS13), (Version::Tls12, &TLS12)];
    all.into_iter().filter(|(version, _)| (min..=max).contains(version)).map(|(_, version)| version).collect()
}

/// Who may have issued clients' certificates, and which are revoked, as the files say now.
struct Authorities<'a> {
    policy: &'a ClientAuthPolicy,
    roots: RootCertStore,
    revoked: Vec<rustls::pki_types::CertificateRevocationListDer<'static>>,
    digests: Vec<Digest>,
}

impl<'a> Authorities<'a> {
    fn read(
        policy: &'a ClientAuthPolicy,
        now: i64,
        at: &At,
        problems: &mut Problems,
    ) -> Option<Authorities<'a>> {
        let ca = files::read(&policy.ca)
            .and_then(|bytes| Ok((files::authorities(&policy.ca, &bytes)?, files::digest(&bytes))));
        let ca = ca.map_err(|wrong| wrong.note(&at.key("ca"), problems)).ok();
        let (mut revoked, mut digests) = (Vec::new(), Vec::new());
        let mut whole = true;
        for (index, path) in policy.crl.iter().enumerate() {
            let read = files::read(path).and_then(|bytes| {
                revoked.extend(files::revocations(path, &bytes, now)?);
                digests.push(files::digest(&bytes));
                Ok(())
            });
            whole &= read.map_err(|wrong| wrong.note(&at.key("crl").index(index), problems)).is_ok();
        }
        let (roots, digest) = ca.filter(|_| whole)?;
        digests.push(digest);
        Some(Authorities { policy, roots, revoked, digests })
    }

    fn verifier(self) -> Result<Arc<dyn ClientCertVerifier>, Wrong> {
        let mut builder = WebPkiClientVerifier::builder_with_provider(Arc::new(self.roots), provider());
        if !self.revoked.is_empty() {
            builder = builder.with_crls(self.revoked).enforce_revocation_expiration();
        }
        if self.policy.mode == ClientAuthMode::Optional {
            builder = builder.allow_unauthenticated();
        }
        builder.build().map_err(|error| {
            let file = self.policy.crl.first().map_or(Path::new(""), |first| first);
            match error {
                VerifierBuilderError::NoRootAnchors => Wrong::new(&self.policy.ca, "holds no authority"),
                _ => Wrong::new(file, "or another list beside it is of a kind that cannot be used"),
            }
        })
    }
}
