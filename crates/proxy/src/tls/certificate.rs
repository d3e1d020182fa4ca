//! A certificate with its private key, as it stands in its files now.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys};
use x509_parser::parse_x509_certificate;

use super::config::CertificatePolicy;
use super::files::{self, Digest, Wrong, day};
use super::names::Names;
use super::provider;
use crate::problem::{At, Problems};

/// A certificate with its private key, ready to be shown.
pub struct Certificate {
    pub(super) key: Arc<CertifiedKey>,
    names: Names,
    not_after: i64,
    /// Of both files.
    pub(super) digest: [Digest; 2],
}

impl Certificate {
    /// Reads it from its files; `now` is Unix time in seconds. None: a problem, which names the file.
    pub(super) fn load(
        policy: &CertificatePolicy,
        now: i64,
        at: &At,
        problems: &mut Problems,
    ) -> Option<Certificate> {
        let found = problems.iter().count();
        let mut take = |key, wrong: Wrong| wrong.note(&at.key(key), problems);
        let chain_bytes = files::read(&policy.chain).map_err(|wrong| take("chain", wrong)).ok();
        let chain = chain_bytes.as_ref().and_then(|bytes| {
            files::certificates(&policy.chain, bytes).map_err(|wrong| take("chain", wrong)).ok()
        });
        let facts = chain.as_ref().and_then(|chain| {
            let first = chain.first()?;
            leaf(&policy.chain, first, now).map_err(|wrong| take("chain", wrong)).ok()
        });
        let key_bytes = files::read(&policy.key).map_err(|wrong| take("key", wrong)).ok();
        let key = key_bytes.as_ref().and_then(|bytes| {
            files::private_key(&policy.key, bytes).map_err(|wrong| take("key", wrong)).ok()
        });
        let (chain, key) = (chain?, key?);
        let key = provider().key_provider.load_private_key(key).map_err(|_| {
            let wrong = Wrong::new(&policy.key, "holds a private key of a kind that cannot be used");
            take(
                "key",
                wrong.hint("use ECDSA (P-256, P-384, P-521), Ed25519 or RSA with at least 2048 bits"),
            );
        });
        let certified = CertifiedKey::new(chain, key.ok()?);
        if let Err(Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) = certified.keys_match() {
            take("key", mismatch(policy, &certified));
        }
        let (names, not_after) = facts?;
        let digest = [files::digest(&chain_bytes?), files::digest(&key_bytes?)];
        let key = Arc::new(certified);
        (problems.iter().count() == found).then_some(Certificate { key, names, not_after, digest })
    }

    /// The hosts it is good for.
    pub fn names(&self) -> &Names {
        &self.names
    }

    /// The last second it is valid, in Unix time.
    pub fn not_after(&self) -> i64 {
        self.not_after
    }
}

/// What is known of the certificate at the head of a chain, when it is valid now.
fn leaf(path: &Path, der: &CertificateDer<'_>, now: i64) -> Result<(Names, i64), Wrong> {
    let malformed = || Wrong::new(path, "holds a malformed certificate");
    let (_, certificate) = parse_x509_certificate(der).map_err(|_| malformed())?;
    // What this engine cannot read, the one of the handshake might not either.
    rustls::server::ParsedCertificate::try_from(der).map_err(|_| malformed())?;
    let (from, to) =
        (certificate.validity().not_before.timestamp(), certificate.validity().not_after.timestamp());
    if now > to {
        return Err(Wrong::new(path, format_args!("holds a certificate that expired on {}", day(to)))
            .hint("renew it; its file is watched"));
    }
    if now < from {
        let what = format_args!("holds a certificate that is not valid before {}", day(from)).to_string();
        return Err(Wrong::new(path, what).hint("is the clock of this machine right?"));
    }
    Ok((Names::of(&certificate), to))
}

fn mismatch(policy: &CertificatePolicy, certified: &CertifiedKey) -> Wrong {
    let chain = policy.chain.display();
    let wrong = Wrong::new(&policy.key, format_args!("is not the key of the first certificate in `{chain}`"));
    let other = certified.cert.iter().skip(1).any(|other| {
        let other = CertifiedKey::new(vec![other.clone()], Arc::clone(&certified.key));
        other.keys_match().is_ok()
    });
    match other {
        true => wrong.hint("it is that of a later one: the server's own certificate must stand first"),
        false => wrong,
    }
}
