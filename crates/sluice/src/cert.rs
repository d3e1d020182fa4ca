//! `sluice cert`: a local authority and certificates of it, to try TLS out with.
//!
//! Promise: private keys are readable by this user alone from the moment they exist; nothing is overwritten
//! unasked; a file is there whole or not at all.

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::{ErrorKind, Write as _};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};

use crate::cli::{CertArgs, Exit, complain, say};
use crate::run::wall;

/// How long the authority is valid, in days.
const AUTHORITY_DAYS: u32 = 3650;

/// Makes a certificate, and the authority when there is none.
pub(crate) fn cert(args: &CertArgs) -> Exit {
    match make(args, wall()) {
        Ok(text) => say(text.trim_end()),
        Err(Failed(exit, text)) => {
            complain(&format!("error: {text}"));
            exit
        }
    }
}

struct Failed(Exit, String);

fn failed(what: impl std::fmt::Display) -> impl Fn(rcgen::Error) -> Failed {
    move |error| Failed(Exit::Failure, format!("{what}: {error}"))
}

/// Where the files of an authority or certificate are.
struct Files {
    certificate: PathBuf,
    key: PathBuf,
}

impl Files {
    fn new(folder: &Path, stem: &str) -> Files {
        Files { certificate: folder.join(format!("{stem}.pem")), key: folder.join(format!("{stem}.key")) }
    }

    fn write(&self, certificate: &str, key: &str) -> Result<(), Failed> {
        write(&self.key, key, 0o600)?;
        write(&self.certificate, certificate, 0o644)
    }
}

fn make(args: &CertArgs, now: SystemTime) -> Result<String, Failed> {
    let names = names(args)?;
    let stem = stem(&args.names[0]);
    let files = Files::new(&args.dir, &stem);
    let there = [&files.certificate, &files.key].into_iter().find(|file| file.exists());
    if let Some(there) = there.filter(|_| !args.force) {
        let text = format!("{} exists\nhint: --force replaces it", there.display());
        return Err(Failed(Exit::Failure, text));
    }
    std::fs::create_dir_all(&args.dir).map_err(|error| unwritable(&args.dir, &error))?;
    let mut text = String::new();
    let authority_files = Files::new(&args.dir, "ca");
    let (authority, made) = authority(&authority_files, now)?;
    if made {
        let (certificate, key) = (authority_files.certificate.display(), authority_files.key.display());
        let _ = writeln!(
            text,
            "wrote {certificate}  the authority: clients that trust it trust its certificates"
        );
        let _ = writeln!(text, "wrote {key}  its private key: whoever has it can be anyone to them");
    }
    let key = KeyPair::generate().map_err(failed("the private key"))?;
    let params = params(args, names, now);
    let certificate = params.signed_by(&key, &authority).map_err(failed("the certificate"))?;
    files.write(&certificate.pem(), &key.serialize_pem())?;
    let _ = writeln!(text, "wrote {}", files.certificate.display());
    let _ = writeln!(text, "wrote {}\n", files.key.display());
    text.push_str(&advice(args, (&stem, &files), &authority_files.certificate));
    Ok(text)
}

/// The authority in these files, or a new one; and whether it is new.
fn authority(files: &Files, now: SystemTime) -> Result<(Issuer<'static, KeyPair>, bool), Failed> {
    let read = |path: &Path| match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Failed(Exit::Failure, format!("{}: {error}", path.display()))),
    };
    match (read(&files.certificate)?, read(&files.key)?) {
        (Some(certificate), Some(key)) => {
            let key = KeyPair::from_pem(&key).map_err(failed(files.key.display()))?;
            let read = Issuer::from_ca_cert_pem(&certificate, key);
            Ok((read.map_err(failed(files.certificate.display()))?, false))
        }
        (None, None) => Ok((new_authority(files, now)?, true)),
        (Some(_), None) | (None, Some(_)) => {
            let (certificate, key) = (files.certificate.display(), files.key.display());
            let text = format!(
                "only one of {certificate} and {key} exists\nhint: bring the other one back, or remove it"
            );
            Err(Failed(Exit::Failure, text))
        }
    }
}

fn new_authority(files: &Files, now: SystemTime) -> Result<Issuer<'static, KeyPair>, Failed> {
    let key = KeyPair::generate().map_err(failed("the private key"))?;
    let mut params = CertificateParams::default();
    // Trust stores tell authorities apart by their names.
    let id = params.key_identifier(&key).iter().take(4).fold(String::new(), |mut id, byte| {
        let _ = write!(id, "{byte:02x}");
        id
    });
    common_name(&mut params, &format!("Sluice development authority {id}"));
    valid(&mut params, now, AUTHORITY_DAYS);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let certificate = params.self_signed(&key).map_err(failed("the authority"))?;
    files.write(&certificate.pem(), &key.serialize_pem())?;
    Ok(Issuer::new(params, key))
}

fn params(args: &CertArgs, names: Vec<SanType>, now: SystemTime) -> CertificateParams {
    let mut params = CertificateParams::default();
    common_name(&mut params, &args.names[0]);
    valid(&mut params, now, args.days);
    params.subject_alt_names = names;
    params.use_authority_key_identifier_extension = true;
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![match args.client {
        true => ExtendedKeyUsagePurpose::ClientAuth,
        false => ExtendedKeyUsagePurpose::ServerAuth,
    }];
    params
}

fn common_name(params: &mut CertificateParams, name: &str) {
    params.distinguished_name.remove(DnType::CommonName);
    params.distinguished_name.push(DnType::CommonName, name);
}

/// From an hour ago, because clocks differ.
fn valid(params: &mut CertificateParams, now: SystemTime, days: u32) {
    params.not_before = (now - Duration::from_secs(3600)).into();
    params.not_after = (now + Duration::from_secs(u64::from(days) * 86_400)).into();
}

/// What the names are: addresses, host names; of a client also URIs, e-mail addresses, and a first name that
/// is just a name.
fn names(args: &CertArgs) -> Result<Vec<SanType>, Failed> {
    let mut names = Vec::with_capacity(args.names.len());
    for (index, name) in args.names.iter().enumerate() {
        let usage = || Failed(Exit::Usage, format!("`{name}` is not a host name or an address"));
        let text = || name.clone().try_into().map_err(|_| usage());
        if let Ok(address) = name.parse::<IpAddr>() {
            names.push(SanType::IpAddress(address));
        } else if is_host(name) {
            names.push(SanType::DnsName(text()?));
        } else if args.client && name.contains("://") {
            names.push(SanType::URI(text()?));
        } else if args.client && name.contains('@') {
            names.push(SanType::Rfc822Name(text()?));
        } else if !(args.client && index == 0 && name.chars().any(char::is_alphanumeric)) {
            return Err(usage());
        }
    }
    if stem(&args.names[0]) == "ca" {
        return Err(Failed(Exit::Usage, "the name `ca` is taken by the authority".to_owned()));
    }
    Ok(names)
}

fn is_host(name: &str) -> bool {
    let plain = name.strip_prefix("*.").unwrap_or(name);
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    name.len() <= 253 && plain.split('.').all(label)
}

/// What the files of a certificate are called.
fn stem(name: &str) -> String {
    let name = name.strip_prefix("*.").map_or(name.to_owned(), |parent| format!("wildcard.{parent}"));
    let stem: String = name
        .chars()
        .map(|letter| if letter.is_alphanumeric() || "-_.".contains(letter) { letter } else { '_' })
        .collect();
    // No hidden file, no way up.
    if stem.starts_with('.') { format!("_{stem}") } else { stem }
}

fn unwritable(path: &Path, error: &std::io::Error) -> Failed {
    Failed(Exit::Failure, format!("{}: {error}", path.display()))
}

/// Writes a file beside its place, then puts it there.
fn write(path: &Path, text: &str, mode: u32) -> Result<(), Failed> {
    let beside = path.with_added_extension("new");
    let written = (|| {
        match std::fs::remove_file(&beside) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&beside)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&beside, path)
    })();
    written.map_err(|error| unwritable(path, &error))
}

/// The lines of a document that use it, and a command to try.
fn advice(args: &CertArgs, (stem, files): (&str, &Files), authority: &Path) -> String {
    let quoted = |path: &Path| serde_json::json!(path.display().to_string()).to_string();
    let mut text = String::new();
    let (ca, certificate, key) = (authority.display(), files.certificate.display(), files.key.display());
    if args.client {
        let _ = writeln!(text, "[listeners.web.tls]");
        let _ = writeln!(text, "client_auth = {{ ca = {} }}\n", quoted(authority));
        let _ = writeln!(
            text,
            "try  curl --cacert {ca} --cert {certificate} --key {key} https://localhost:8443/"
        );
        return text;
    }
    let bare = stem.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
    let name = if bare { stem.to_owned() } else { format!("\"{stem}\"") };
    let _ = writeln!(text, "[certificates.{name}]");
    let _ = writeln!(text, "chain = {}", quoted(&files.certificate));
    let _ = writeln!(text, "key   = {}\n", quoted(&files.key));
    let _ = writeln!(text, "[listeners.web]");
    let _ = writeln!(text, "address = \"127.0.0.1:8443\"");
    let _ = writeln!(text, "tls     = {{ certificates = [\"{stem}\"] }}\n");
    let _ = writeln!(text, "try  curl --cacert {ca} https://{}:8443/", args.names[0].replace("*.", "www."));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_names_stay_in_their_folder() {
        for (name, expected) in [
            ("localhost", "localhost"),
            ("*.shop.example", "wildcard.shop.example"),
            ("::1", "__1"),
            ("../up", "_.._up"),
            ("Ada Lovelace", "Ada_Lovelace"),
        ] {
            assert_eq!(stem(name), expected);
        }
    }

    #[test]
    fn hosts_are_told_from_other_names() {
        for host in ["localhost", "a-b.example", "*.shop.example", "xn--bcher-kva.example"] {
            assert!(is_host(host), "{host}");
        }
        for other in ["", "a b", "-a", "a..b", "a.*.b", "*", "a/b", "ada@example", "[::1]"] {
            assert!(!is_host(other), "{other}");
        }
    }
}
