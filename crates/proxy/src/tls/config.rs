//! What people write about TLS, and the checked form of it. Doc comments of the document types are the user
//! manual. Checks here touch no file.

use std::path::PathBuf;
use std::time::Duration;

use rustls::CipherSuite;
use rustls::pki_types::ServerName;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::closest::closest;
use crate::problem::{At, Problems};
use crate::value::Period;

/// A certificate and its private key, for listeners, or for upstreams whose endpoints ask for one. The files
/// are watched: renewed ones are taken on at once.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct CertificateConfig {
    /// File with the certificate, followed by those that lead to its authority (PEM).
    pub chain: String,
    /// File with its private key (PEM: PKCS#8, SEC1 or PKCS#1), without a password.
    pub key: String,
}

/// A version of TLS. Older ones are not spoken.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// TLS 1.2 (RFC 5246).
    #[serde(rename = "1.2")]
    Tls12,
    /// TLS 1.3 (RFC 8446).
    #[serde(rename = "1.3")]
    Tls13,
}

/// TLS on a listener.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct ServerTls {
    /// Names of `certificates`. Each is used for the host names that stand in it; the first also where none
    /// fits. Several may hold the same names: with an RSA and an ECDSA one each client gets what it understands.
    pub certificates: Vec<String>,
    /// The oldest version. Default "1.2".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_version: Option<Version>,
    /// The newest version. Default "1.3".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_version: Option<Version>,
    /// Cipher suites that may be used, by their IANA names; the client's order decides. Default: all that are
    /// safe.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ciphers: Option<Vec<String>>,
    /// Protocols offered to clients (ALPN), the first one preferred. Default ["h2", "http/1.1"], and none where
    /// the listener does not speak HTTP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alpn: Option<Vec<String>>,
    /// Asks clients for a certificate. Default: no.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_auth: Option<ClientAuth>,
    /// Whether a request is refused (421) whose Host belongs to another certificate than the name the
    /// connection was opened with (SNI). Default true.
    #[serde(default = "yes")]
    pub strict_sni: bool,
    /// What a client gets that names no host of the certificates, or none at all. Default "default".
    #[serde(default)]
    pub unknown_sni: UnknownSni,
    /// How long a handshake may take. Default "10s".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handshake_timeout: Option<Period>,
}

/// What a client gets that names no host of the certificates.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum UnknownSni {
    /// The first certificate.
    #[default]
    Default,
    /// No connection.
    Refuse,
}

/// Asks clients for a certificate.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct ClientAuth {
    /// File with the authorities that may have issued it (PEM).
    pub ca: String,
    /// Whether a client must have one. Default "required".
    #[serde(default)]
    pub mode: ClientAuthMode,
    /// Files with lists of revoked certificates (PEM). When there is one, every authority between the client's
    /// certificate and `ca` needs a list that has not expired.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub crl: Vec<String>,
}

/// Whether a client must have a certificate.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum ClientAuthMode {
    /// Clients without a valid one are not let in.
    #[default]
    Required,
    /// Clients may have none; one that is not valid is refused all the same.
    Optional,
}

/// Whether and how an upstream's endpoints are spoken to over TLS.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(untagged)]
pub enum ClientTls {
    /// true: TLS with the defaults; false: none.
    Switch(bool),
    /// More about it.
    Detailed(ClientTlsTable),
}

/// TLS to an upstream's endpoints.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct ClientTlsTable {
    /// File with the authorities that may have issued the endpoints' certificates (PEM). Default: those this
    /// machine trusts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
    /// The name that endpoints are asked for and must prove. Default: the endpoint's host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sni: Option<String>,
    /// Name of one of `certificates`, shown to endpoints that ask for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<String>,
    /// Whether endpoints must prove who they are. Default true. With false anyone in between can read and
    /// change everything: only for trying things out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verify: Option<bool>,
    /// The oldest version. Default "1.2".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_version: Option<Version>,
}

fn yes() -> bool {
    true
}

/// Where a certificate's files are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificatePolicy {
    /// The certificate and those that lead to its authority.
    pub chain: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// TLS of a listener, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerPolicy {
    /// Names of certificates, at least one.
    pub certificates: Vec<String>,
    /// Oldest and newest version.
    pub versions: (Version, Version),
    /// The suites that may be used; None: all.
    pub ciphers: Option<Vec<CipherSuite>>,
    /// Offered protocols.
    pub alpn: Vec<String>,
    /// Certificates of clients.
    pub client_auth: Option<ClientAuthPolicy>,
    /// Whether Host must fit the name of the connection.
    pub strict_sni: bool,
    /// What a client gets that names no known host.
    pub unknown_sni: UnknownSni,
    /// For a handshake.
    pub handshake_timeout: Duration,
}

/// Certificates of clients, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientAuthPolicy {
    /// File with authorities.
    pub ca: PathBuf,
    /// Files with lists of revoked certificates.
    pub crl: Vec<PathBuf>,
    /// Whether a client must have one.
    pub mode: ClientAuthMode,
}

/// TLS to endpoints, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientPolicy {
    /// File with authorities; None: those this machine trusts.
    pub ca: Option<PathBuf>,
    /// The name that is asked for; None: the endpoint's host.
    pub sni: Option<ServerName<'static>>,
    /// Name of the certificate that is shown.
    pub certificate: Option<String>,
    /// Whether endpoints must prove who they are.
    pub verify: bool,
    /// Oldest version.
    pub min_version: Version,
}

/// What a listener speaks inside TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spoken {
    /// HTTP: these are all the protocols that can be offered, and the default.
    Http,
    /// Bytes of any protocol.
    Bytes,
}

const HTTP_ALPN: [&str; 2] = ["h2", "http/1.1"];

/// Notes a problem when there is no certificate of this name.
pub fn known_certificate<'a>(
    known: impl Iterator<Item = &'a str> + Clone,
    name: &str,
    at: &At,
    problems: &mut Problems,
) {
    if known.clone().any(|other| other == name) {
        return;
    }
    let problem = problems.add(at, format!("there is no certificate `{name}`"));
    match closest(name, known) {
        Some(other) => problem.hint(format!("did you mean `{other}`?")),
        None => problem.hint(format!("add [certificates.{name}] with chain = \"...\" and key = \"...\"")),
    };
}

fn file(text: &str, at: &At, problems: &mut Problems) -> Option<PathBuf> {
    if text.is_empty() || text.contains('\0') {
        problems.add(at, "this is not the name of a file");
        return None;
    }
    Some(text.into())
}

impl CertificateConfig {
    /// Checks it without touching the files.
    pub fn check(&self, at: &At, problems: &mut Problems) -> Option<CertificatePolicy> {
        let chain = file(&self.chain, &at.key("chain"), problems);
        let key = file(&self.key, &at.key("key"), problems);
        Some(CertificatePolicy { chain: chain?, key: key? })
    }
}

impl ServerTls {
    /// Checks it without touching files; whether the certificates are known is for [`known_certificate`].
    pub fn check(&self, spoken: Spoken, at: &At, problems: &mut Problems) -> Option<ServerPolicy> {
        let found = problems.iter().count();
        if self.certificates.is_empty() {
            let problem = problems.add(&at.key("certificates"), "TLS needs at least one certificate");
            problem.hint("certificates = [\"shop\"], with [certificates.shop]");
        }
        for (index, name) in self.certificates.iter().enumerate() {
            if self.certificates[..index].contains(name) {
                problems.add(&at.key("certificates").index(index), format!("`{name}` stands here twice"));
            }
        }
        let versions =
            (self.min_version.unwrap_or(Version::Tls12), self.max_version.unwrap_or(Version::Tls13));
        if versions.0 > versions.1 {
            let problem = problems.add(&at.key("max_version"), "the newest version is older than the oldest");
            problem.hint("leave max_version out");
        }
        let ciphers = self.ciphers.as_ref();
        let ciphers = ciphers.map(|names| check_ciphers(names, versions, &at.key("ciphers"), problems));
        let alpn = self.check_alpn(spoken, &at.key("alpn"), problems);
        let client_auth =
            self.client_auth.as_ref().and_then(|auth| auth.check(&at.key("client_auth"), problems));
        if self.handshake_timeout.is_some_and(|period| period.0.is_zero()) {
            problems.add(&at.key("handshake_timeout"), "a time of zero would fail every handshake");
        }
        (problems.iter().count() == found).then(|| ServerPolicy {
            certificates: self.certificates.clone(),
            versions,
            ciphers,
            alpn,
            client_auth,
            strict_sni: self.strict_sni,
            unknown_sni: self.unknown_sni,
            handshake_timeout: self.handshake_timeout.map_or(Duration::from_secs(10), |period| period.0),
        })
    }

    fn check_alpn(&self, spoken: Spoken, at: &At, problems: &mut Problems) -> Vec<String> {
        let Some(alpn) = &self.alpn else {
            let default: &[&str] = if spoken == Spoken::Http { &HTTP_ALPN } else { &[] };
            return default.iter().map(|&protocol| protocol.to_owned()).collect();
        };
        for (index, protocol) in alpn.iter().enumerate() {
            let at = at.index(index);
            if spoken == Spoken::Http && !HTTP_ALPN.contains(&protocol.as_str()) {
                let problem = problems.add(&at, format!("`{protocol}` is not spoken on this listener"));
                problem.hint("alpn = [\"h2\", \"http/1.1\"], or one of them");
            } else if !(1..=255).contains(&protocol.len()) {
                problems.add(&at, "the name of a protocol has 1 to 255 bytes (RFC 7301)");
            } else if alpn[..index].contains(protocol) {
                problems.add(&at, format!("`{protocol}` stands here twice"));
            }
        }
        alpn.clone()
    }
}

fn check_ciphers(
    names: &[String],
    versions: (Version, Version),
    at: &At,
    problems: &mut Problems,
) -> Vec<CipherSuite> {
    let provider = super::provider();
    let known = || provider.cipher_suites.iter();
    let mut suites = Vec::with_capacity(names.len());
    for (index, name) in names.iter().enumerate() {
        let found = known().find(|suite| iana(suite.suite()) == *name);
        let Some(suite) = found else {
            let names: Vec<&str> = known().map(|suite| iana(suite.suite())).collect();
            let problem =
                problems.add(&at.index(index), format!("`{name}` is no known or safe cipher suite"));
            match closest(name, names.iter().copied()) {
                Some(other) => problem.hint(format!("did you mean `{other}`?")),
                None => problem.hint(format!("one of {}", names.join(", "))),
            };
            continue;
        };
        suites.push(suite.suite());
    }
    for (version, wanted) in [(Version::Tls12, "1.2"), (Version::Tls13, "1.3")] {
        let spoken = (versions.0..=versions.1).contains(&version);
        let any = known().any(|suite| {
            suites.contains(&suite.suite()) && (suite.tls13().is_some() == (version == Version::Tls13))
        });
        if spoken && !any && suites.len() == names.len() {
            let problem = problems.add(at, format!("none of these cipher suites is one of TLS {wanted}"));
            problem.hint("add one, or narrow min_version and max_version");
        }
    }
    suites
}

/// The IANA name of a suite: rustls calls those of TLS 1.3 `TLS13_...`.
pub(super) fn iana(suite: CipherSuite) -> &'static str {
    match suite {
        CipherSuite::TLS13_AES_128_GCM_SHA256 => "TLS_AES_128_GCM_SHA256",
        CipherSuite::TLS13_AES_256_GCM_SHA384 => "TLS_AES_256_GCM_SHA384",
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256 => "TLS_CHACHA20_POLY1305_SHA256",
        other => other.as_str().unwrap_or("unknown"),
    }
}

impl ClientAuth {
    fn check(&self, at: &At, problems: &mut Problems) -> Option<ClientAuthPolicy> {
        let ca = file(&self.ca, &at.key("ca"), problems);
        let crl = self.crl.iter().enumerate();
        let crl: Vec<_> =
            crl.filter_map(|(index, path)| file(path, &at.key("crl").index(index), problems)).collect();
        Some(ClientAuthPolicy { ca: ca?, crl, mode: self.mode })
    }
}

impl ClientTls {
    /// The name of the certificate that is shown, as written.
    pub fn certificate(&self) -> Option<&str> {
        match self {
            ClientTls::Switch(_) => None,
            ClientTls::Detailed(table) => table.certificate.as_deref(),
        }
    }

    /// The file with the authorities, as written.
    pub fn ca(&self) -> Option<&String> {
        match self {
            ClientTls::Switch(_) => None,
            ClientTls::Detailed(table) => table.ca.as_ref(),
        }
    }

    /// Checks it without touching files; None: plain, or a problem. Whether the certificate is known is for
    /// [`known_certificate`].
    pub fn check(&self, at: &At, problems: &mut Problems) -> Option<ClientPolicy> {
        match self {
            ClientTls::Switch(false) => None,
            ClientTls::Switch(true) => ClientTlsTable::default().check(at, problems),
            ClientTls::Detailed(table) => table.check(at, problems),
        }
    }
}

impl ClientTlsTable {
    fn check(&self, at: &At, problems: &mut Problems) -> Option<ClientPolicy> {
        let found = problems.iter().count();
        let verify = self.verify.unwrap_or(true);
        let ca = self.ca.as_ref().and_then(|ca| file(ca, &at.key("ca"), problems));
        if !verify && ca.is_some() {
            let problem = problems.add(&at.key("verify"), "with verify = false nothing is checked with `ca`");
            problem.hint("leave one of them out");
        }
        let sni = self.sni.as_ref().and_then(|sni| {
            let name = ServerName::try_from(sni.clone());
            problems.take(&at.key("sni"), name.map_err(|_| format!("`{sni}` is not a host name")))
        });
        (problems.iter().count() == found).then(|| ClientPolicy {
            ca,
            sni,
            certificate: self.certificate.clone(),
            verify,
            min_version: self.min_version.unwrap_or(Version::Tls12),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(text: &str, spoken: Spoken) -> Result<ServerPolicy, Vec<String>> {
        let config: ServerTls = toml_edit::de::from_str(text).map_err(|error| vec![error.to_string()])?;
        let mut problems = Problems::new();
        let policy = config.check(spoken, &At::root().key("tls"), &mut problems);
        assert_eq!(policy.is_some(), problems.is_empty());
        policy.ok_or_else(|| problems.iter().map(|one| format!("{}: {}", one.at, one.message)).collect())
    }

    fn client(text: &str) -> Result<ClientPolicy, Vec<String>> {
        let config: ClientTlsTable = toml_edit::de::from_str(text).unwrap();
        let mut problems = Problems::new();
        let policy = config.check(&At::root().key("tls"), &mut problems);
        policy.ok_or_else(|| problems.iter().map(|one| format!("{}: {}", one.at, one.message)).collect())
    }

    #[test]
    fn defaults_are_what_the_manual_says() {
        let policy = server("certificates = [\"a\"]", Spoken::Http).unwrap();
        assert_eq!(policy.versions, (Version::Tls12, Version::Tls13));
        assert_eq!(policy.alpn, ["h2", "http/1.1"]);
        assert!(policy.strict_sni && policy.unknown_sni == UnknownSni::Default);
        assert_eq!(policy.handshake_timeout, Duration::from_secs(10));
        assert!(server("certificates = [\"a\"]", Spoken::Bytes).unwrap().alpn.is_empty());
        let auth = server("certificates = [\"a\"]\nclient_auth = { ca = \"ca.pem\" }", Spoken::Http).unwrap();
        assert_eq!(auth.client_auth.unwrap().mode, ClientAuthMode::Required);
        let policy = client("").unwrap();
        assert!(policy.verify && policy.ca.is_none() && policy.sni.is_none());
    }

    #[test]
    fn every_problem_of_a_listener_is_told_at_its_place() {
        let text = "certificates = []\nmin_version = \"1.3\"\nmax_version = \"1.2\"\nalpn = [\"h3\", \"h2\", \"h2\"]\n\
                    ciphers = [\"TLS_AES_128_GCM_SHA265\"]\nclient_auth = { ca = \"\" }\nhandshake_timeout = \"0s\"";
        let told = server(text, Spoken::Http).unwrap_err();
        assert_eq!(
            told,
            [
                "tls.certificates: TLS needs at least one certificate",
                "tls.max_version: the newest version is older than the oldest",
                "tls.ciphers[0]: `TLS_AES_128_GCM_SHA265` is no known or safe cipher suite",
                "tls.alpn[0]: `h3` is not spoken on this listener",
                "tls.alpn[2]: `h2` stands here twice",
                "tls.client_auth.ca: this is not the name of a file",
                "tls.handshake_timeout: a time of zero would fail every handshake",
            ]
        );
    }

    #[test]
    fn cipher_suites_have_their_iana_names_and_serve_every_version() {
        let all = "certificates = [\"a\"]\nciphers = [\"TLS_AES_256_GCM_SHA384\", \
                   \"TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384\"]";
        let suites = server(all, Spoken::Http).unwrap().ciphers.unwrap();
        assert_eq!(suites[0], CipherSuite::TLS13_AES_256_GCM_SHA384);
        let new = "certificates = [\"a\"]\nciphers = [\"TLS_AES_256_GCM_SHA384\"]";
        let told = server(new, Spoken::Http).unwrap_err();
        assert_eq!(told, ["tls.ciphers: none of these cipher suites is one of TLS 1.2"]);
        server(&format!("{new}\nmin_version = \"1.3\""), Spoken::Http).unwrap();
    }

    #[test]
    fn other_versions_are_refused_when_read() {
        assert!(server("certificates = [\"a\"]\nmin_version = \"1.1\"", Spoken::Http).is_err());
    }

    #[test]
    fn a_name_that_is_no_host_and_a_useless_authority_are_problems_of_an_upstream() {
        let told = client("sni = \"a b\"\nca = \"ca.pem\"\nverify = false").unwrap_err();
        let expected = [
            "tls.verify: with verify = false nothing is checked with `ca`",
            "tls.sni: `a b` is not a host name",
        ];
        assert_eq!(told, expected);
    }

    #[test]
    fn an_unknown_certificate_has_a_proposal() {
        let mut problems = Problems::new();
        known_certificate(["shop", "api"].into_iter(), "shpo", &At::root(), &mut problems);
        known_certificate(["shop", "api"].into_iter(), "api", &At::root(), &mut problems);
        let told: Vec<_> = problems.iter().map(|problem| problem.hint.as_deref()).collect();
        assert_eq!(told, [Some("did you mean `shop`?")]);
    }
}
