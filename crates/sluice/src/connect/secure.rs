//! TLS of a connector, through the same loading as the gateway's upstreams.

use std::sync::Arc;

use sluice_proxy::problem::{At, Problems, Step};
use sluice_proxy::tls::{
    self, CertificateConfig, CertificatePolicy, Client, ClientPolicy, ClientTls, ClientTlsTable, Loaded,
};

use super::document::Tls;

/// What the certificate and the client are called while they are loaded.
const NAME: &str = "connector";

/// TLS that is asked for, checked; no file was read yet.
#[derive(Clone, PartialEq)]
pub(super) struct Wanted {
    policy: ClientPolicy,
    certificate: Option<CertificatePolicy>,
    at: At,
}

impl Wanted {
    /// Checks it without touching files.
    pub(super) fn check(tls: &Tls, at: &At, problems: &mut Problems) -> Option<Wanted> {
        let found = problems.iter().count();
        let certificate = match (&tls.chain, &tls.key) {
            (None, None) => None,
            (Some(chain), Some(key)) => {
                CertificateConfig { chain: chain.clone(), key: key.clone() }.check(at, problems)
            }
            (Some(_), None) => {
                problems.add(at, "a certificate needs its private key").hint("add `key`");
                None
            }
            (None, Some(_)) => {
                problems.add(at, "a private key needs its certificate").hint("add `chain`");
                None
            }
        };
        let named = certificate.is_some().then(|| NAME.to_owned());
        let table = ClientTlsTable {
            ca: tls.ca.clone(),
            sni: tls.sni.clone(),
            certificate: named,
            ..Default::default()
        };
        let policy = ClientTls::Detailed(table).check(at, problems)?;
        (problems.iter().count() == found).then(|| Wanted { policy, certificate, at: at.clone() })
    }

    /// The authorities this machine trusts, and no certificate of ours.
    pub(super) fn default_at(at: &At) -> Wanted {
        let (ca, sni, certificate) = (None, None, None);
        let policy = ClientPolicy { ca, sni, certificate, verify: true, min_version: tls::Version::Tls12 };
        Wanted { policy, certificate: None, at: at.clone() }
    }

    /// Reads the files; `now` is Unix time in seconds.
    pub(super) fn read(
        &self,
        now: i64,
        (cautions, problems): (&mut Vec<String>, &mut Problems),
    ) -> Option<Arc<Client>> {
        let certificates = self.certificate.iter().map(|certificate| (NAME, certificate)).collect();
        let wanted =
            tls::Wanted { certificates, listeners: Vec::new(), upstreams: vec![(NAME, &self.policy)] };
        let mut found = Problems::new();
        let loaded = Loaded::load(&wanted, None, now, &mut found);
        for problem in found.iter() {
            // It knows the places of a gateway's document; the last step is called the same here.
            let at = match problem.at.steps().last() {
                Some(Step::Key(key)) if matches!(&key[..], "ca" | "chain" | "key") => self.at.key(key),
                _ => self.at.clone(),
            };
            problems.add(&at, problem.message.clone()).hint.clone_from(&problem.hint);
        }
        cautions.extend(loaded.cautions().iter().cloned());
        loaded.client(NAME).filter(|_| found.is_empty()).cloned()
    }
}
