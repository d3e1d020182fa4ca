//! Reads what stands in PEM files.
//!
//! Promise: every error is a sentence that names the file and holds nothing of what stands in it.

use std::fmt;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use rustls::RootCertStore;
use rustls::pki_types::pem::{Error, PemObject};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use sha2::{Digest as _, Sha256};

use crate::observe::timestamp::{Style, Timestamp};
use crate::problem::{At, Problems};

/// The largest file that is read, in bytes: lists of revoked certificates can be long.
const LARGEST: u64 = 64 << 20;

/// Which bytes a file held.
pub(super) type Digest = [u8; 32];

/// Why a file cannot be used, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    pub(super) message: String,
    pub(super) hint: Option<String>,
}

impl Wrong {
    pub(super) fn new(path: &Path, what: impl fmt::Display) -> Wrong {
        Wrong { message: format!("`{}` {what}", path.display()), hint: None }
    }

    pub(super) fn hint(self, hint: impl Into<String>) -> Wrong {
        Wrong { hint: Some(hint.into()), ..self }
    }

    pub(super) fn note(self, at: &At, problems: &mut Problems) {
        let problem = problems.add(at, self.message);
        problem.hint = self.hint;
    }
}

/// Which bytes these files hold now, in one number; a file that cannot be read counts as an empty one.
pub fn contents(files: &[PathBuf]) -> [u8; 32] {
    let mut all = Sha256::new();
    for file in files {
        all.update(digest(&read(file).unwrap_or_default()));
    }
    all.finalize().into()
}

pub(super) fn digest(bytes: &[u8]) -> Digest {
    Sha256::digest(bytes).into()
}

pub(super) fn read(path: &Path) -> Result<Vec<u8>, Wrong> {
    let unreadable = |error: std::io::Error| Wrong::new(path, format_args!("cannot be read: {error}"));
    // A pipe would be waited for.
    if !std::fs::metadata(path).map_err(unreadable)?.is_file() {
        return Err(Wrong::new(path, "is not a file"));
    }
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(unreadable)?;
    file.take(LARGEST + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    match bytes.len() as u64 > LARGEST {
        true => Err(Wrong::new(path, "is larger than 64MiB")),
        false => Ok(bytes),
    }
}

/// All sections of a kind; `what` is its name. At least one.
fn sections<T: PemObject>(path: &Path, bytes: &[u8], what: &str) -> Result<Vec<T>, Wrong> {
    let found: Result<Vec<T>, Error> = T::pem_slice_iter(bytes).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) if !has(bytes, "-----BEGIN ") => {
            let wrong = Wrong::new(path, "is not a PEM file: it has no \"-----BEGIN\" line");
            Err(wrong
                .hint("a binary (DER) file becomes one with `openssl x509 -inform der` or `openssl pkey`"))
        }
        Ok(_) => Err(Wrong::new(path, format_args!("holds no {what}"))),
        Err(error) => Err(damaged(path, &error)),
    }
}

fn damaged(path: &Path, error: &Error) -> Wrong {
    let why = match error {
        Error::MissingSectionEnd { .. } => "a section has no \"-----END\" line",
        Error::IllegalSectionStart { .. } => "a \"-----BEGIN\" line is malformed",
        Error::Base64Decode(_) => "a section is not base64",
        _ => "a section cannot be read",
    };
    Wrong::new(path, format_args!("is damaged: {why}"))
}

fn has(bytes: &[u8], text: &str) -> bool {
    memchr::memmem::find(bytes, text.as_bytes()).is_some()
}

pub(super) fn certificates(path: &Path, bytes: &[u8]) -> Result<Vec<CertificateDer<'static>>, Wrong> {
    sections(path, bytes, "certificate")
}

pub(super) fn private_key(path: &Path, bytes: &[u8]) -> Result<PrivateKeyDer<'static>, Wrong> {
    if has(bytes, "-----BEGIN ENCRYPTED PRIVATE KEY-----") || has(bytes, "Proc-Type: 4,ENCRYPTED") {
        let wrong = Wrong::new(path, "is protected by a password");
        return Err(wrong.hint("take it off with `openssl pkey`, and let only this process read the file"));
    }
    let found: Vec<PrivateKeyDer<'static>> = sections(path, bytes, "private key")?;
    found.into_iter().next().ok_or_else(|| Wrong::new(path, "holds no private key"))
}

pub(super) fn authorities(path: &Path, bytes: &[u8]) -> Result<RootCertStore, Wrong> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path, bytes)? {
        roots
            .add(certificate)
            .map_err(|_| Wrong::new(path, "holds an authority's certificate that is malformed"))?;
    }
    Ok(roots)
}

/// Lists of revoked certificates; an expired one is refused, because it would refuse every client.
pub(super) fn revocations(
    path: &Path,
    bytes: &[u8],
    now: i64,
) -> Result<Vec<CertificateRevocationListDer<'static>>, Wrong> {
    let lists: Vec<CertificateRevocationListDer<'static>> =
        sections(path, bytes, "list of revoked certificates")?;
    for list in &lists {
        let Ok((_, list)) = x509_parser::parse_x509_crl(list) else {
            return Err(Wrong::new(path, "holds a malformed list of revoked certificates"));
        };
        if let Some(next) = list.next_update().filter(|next| next.timestamp() < now) {
            return Err(Wrong::new(
                path,
                format_args!("holds a list that expired on {}", day(next.timestamp())),
            ));
        }
    }
    Ok(lists)
}

/// A moment's day, in UTC: "2027-01-31".
pub(super) fn day(unix: i64) -> String {
    let moment = UNIX_EPOCH + Duration::from_secs(unix.try_into().unwrap_or(0));
    let mut text = Vec::new();
    Timestamp::new(Style::Rfc3339).write(moment, &mut text);
    text.truncate("2027-01-31".len());
    String::from_utf8(text).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_written_as_dates() {
        for (unix, text) in [(0, "1970-01-01"), (951_782_400, "2000-02-29"), (i64::MIN, "1970-01-01")] {
            assert_eq!(day(unix), text);
        }
    }

    #[test]
    fn a_pipe_and_a_folder_are_no_files() {
        let told = read(Path::new("/dev/zero")).unwrap_err().message;
        assert_eq!(told, "`/dev/zero` is not a file");
        assert!(read(&std::env::temp_dir()).is_err());
    }

    #[test]
    fn damage_is_told_without_what_is_damaged() {
        let path = Path::new("a.key");
        let key = "-----BEGIN PRIVATE KEY-----\nsecret!\n-----END PRIVATE KEY-----\n";
        let told = private_key(path, key.as_bytes()).unwrap_err().message;
        assert_eq!(told, "`a.key` is damaged: a section is not base64");
        let told = private_key(path, b"-----BEGIN PRIVATE KEY-----\nsecret").unwrap_err().message;
        assert!(told.starts_with("`a.key` is damaged") && !told.contains("secret"), "{told}");
    }
}
