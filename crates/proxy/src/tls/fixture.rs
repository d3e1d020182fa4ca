//! An authority, certificates and files for tests.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256,
    RevokedCertParams, RsaKeySize, SanType, SerialNumber, date_time_ymd,
};
use rustls::pki_types::CertificateDer;

use super::certificate::Certificate;
use super::config::CertificatePolicy;
use crate::problem::{At, Problems};

/// 2026-11-21, in Unix time.
pub(super) const NOW: i64 = 1_795_219_200;

/// A folder that goes away again.
pub(super) struct Folder(PathBuf);

impl Folder {
    pub(super) fn new() -> Folder {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("sluice-tls-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    pub(super) fn shown(&self) -> String {
        self.0.display().to_string()
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub(super) fn write(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        std::fs::write(self.path(name), text).unwrap();
        self.path(name)
    }

    /// Writes a certificate and its key under a name.
    pub(super) fn write_pair(&self, name: &str, made: &Made) -> CertificatePolicy {
        CertificatePolicy {
            chain: self.write(&format!("{name}.pem"), &made.chain),
            key: self.write(&format!("{name}.key"), &made.key),
        }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A certificate with its key.
pub(super) struct Made {
    pub(super) der: CertificateDer<'static>,
    pub(super) chain: String,
    pub(super) key: String,
    pub(super) pair: KeyPair,
}

impl Made {
    pub(super) fn certificate(&self) -> Arc<Certificate> {
        let folder = Folder::new();
        let mut problems = Problems::new();
        let policy = folder.write_pair("made", self);
        let loaded = Certificate::load(&policy, NOW, &At::root(), &mut problems);
        Arc::new(loaded.unwrap_or_else(|| panic!("{problems:?}")))
    }
}

/// Issues certificates.
pub(super) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(super) pem: String,
}

impl Authority {
    pub(super) fn new() -> Authority {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.remove(DnType::CommonName);
        params.distinguished_name.push(DnType::CommonName, "Test authority");
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Authority { issuer: Issuer::new(params, key), pem }
    }

    pub(super) fn server(&self, names: &[&str]) -> Made {
        self.issue(&server_params(names), KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap())
    }

    pub(super) fn rsa_server(&self, names: &[&str]) -> Made {
        let key = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap();
        self.issue(&server_params(names), key)
    }

    /// One that is valid from a year to another.
    pub(super) fn dated(&self, names: &[&str], from: i32, to: i32) -> Made {
        let mut params = server_params(names);
        params.not_before = date_time_ymd(from, 1, 1);
        params.not_after = date_time_ymd(to, 1, 1);
        self.issue(&params, KeyPair::generate().unwrap())
    }

    pub(super) fn client(&self, name: &str, names: &[&str]) -> Made {
        let mut params = CertificateParams::default();
        params.distinguished_name.remove(DnType::CommonName);
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.serial_number = Some(SerialNumber::from(7));
        params.subject_alt_names = names
            .iter()
            .map(|name| match name.contains("://") {
                true => SanType::URI((*name).try_into().unwrap()),
                false => SanType::DnsName((*name).try_into().unwrap()),
            })
            .collect();
        self.issue(&params, KeyPair::generate().unwrap())
    }

    /// A list that revokes the certificates of [`Authority::client`], or none; it expires in that year.
    pub(super) fn crl(&self, revoked: bool, expires: i32) -> String {
        let one = RevokedCertParams {
            serial_number: SerialNumber::from(7),
            revocation_time: date_time_ymd(2020, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(2020, 1, 1),
            next_update: date_time_ymd(expires, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: revoked.then_some(one).into_iter().collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.issuer).unwrap().pem().unwrap()
    }

    fn issue(&self, params: &CertificateParams, pair: KeyPair) -> Made {
        let certificate = params.signed_by(&pair, &self.issuer).unwrap();
        let der = certificate.der().clone();
        Made { der, chain: certificate.pem(), key: pair.serialize_pem(), pair }
    }
}

fn server_params(names: &[&str]) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    CertificateParams::new(names).unwrap()
}

/// The file's path as problems show it.
pub(super) fn shown(path: &Path) -> String {
    format!("`{}`", path.display())
}
