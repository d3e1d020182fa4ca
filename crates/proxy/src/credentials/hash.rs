//! The forms in which a password is stored: argon2, bcrypt, SHA-crypt, MD5-crypt and htpasswd's `{SHA}`.
//!
//! Promise: what is read can be checked, in a bounded time; why a text cannot be read is said without a part
//! of it; digests are compared in constant time.

use std::borrow::Cow;
use std::fmt;

use argon2::password_hash::phc::PasswordHash;
use argon2::{Argon2, Params, PasswordHasher as _, PasswordVerifier as _};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use sha_crypt::ShaCrypt;
use sha1::{Digest as _, Sha1};

use super::{LONGEST_PASSWORD, equal, md5_crypt};

/// The most memory that one check may take, in KiB.
const MOST_MEMORY: u32 = 1 << 20;

/// The most memory times passes of argon2, in KiB: a few seconds of CPU.
const MOST_ARGON2: u64 = 4 << 20;

/// The highest cost of bcrypt: each step doubles the time, 15 is about 2 s of CPU.
const MOST_BCRYPT: u32 = 15;

/// The most rounds of SHA-crypt: about a second of CPU.
const MOST_ROUNDS: u32 = 1_000_000;

/// The cost of bcrypt that [`make`] uses.
const BCRYPT_COST: u32 = 12;

/// A hash as it stands in a document; not read yet.
#[derive(Clone, Deserialize, Serialize, PartialEq, Eq)]
#[serde(transparent)]
pub struct StoredHash(pub String);

impl fmt::Debug for StoredHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StoredHash(..)")
    }
}

impl JsonSchema for StoredHash {
    fn schema_name() -> Cow<'static, str> {
        "StoredHash".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "writeOnly": true,
            "description": "A password's hash: argon2id or argon2i, bcrypt, SHA-crypt (\"$5$\", \"$6$\"), \
                            MD5-crypt (\"$apr1$\", \"$1$\") or \"{SHA}\". `sluice hash-password` makes one.",
        })
    }
}

/// Why a text is not a hash that can be checked: one sentence's end, "is ...".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreadable {
    /// Not one of the forms.
    Unknown,
    /// One of the forms, but broken.
    Malformed(&'static str),
    /// Checking it would take too much time or memory.
    TooCostly(&'static str),
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unreadable::Unknown => f.write_str("is in none of the known forms"),
            Unreadable::Malformed(form) => write!(f, "is a malformed {form} hash"),
            Unreadable::TooCostly(form) => write!(f, "is a {form} hash that would take too long to check"),
        }
    }
}

/// A stored password.
pub struct Hash {
    text: Box<str>,
    form: Form,
}

enum Form {
    Argon2(Box<PasswordHash>),
    Bcrypt,
    ShaCrypt,
    Md5Crypt { mark: &'static str, salt: Box<str>, digest: Box<str> },
    Sha1([u8; 20]),
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hash(..)")
    }
}

impl Hash {
    /// Reads a stored hash.
    ///
    /// # Errors
    /// It is in no form that is known, broken, or too costly to check.
    pub fn read(text: &str) -> Result<Hash, Unreadable> {
        let form = if text.starts_with("$argon2id$") || text.starts_with("$argon2i$") {
            read_argon2(text)?
        } else if ["$2a$", "$2b$", "$2y$"].iter().any(|mark| text.starts_with(mark)) {
            read_bcrypt(text)?
        } else if text.starts_with("$5$") || text.starts_with("$6$") {
            read_sha_crypt(text)?
        } else if let Some(mark) = ["$apr1$", "$1$"].into_iter().find(|mark| text.starts_with(mark)) {
            read_md5_crypt(mark, &text[mark.len()..])?
        } else if let Some(digest) = text.strip_prefix("{SHA}") {
            let digest = STANDARD.decode(digest).ok().and_then(|bytes| bytes.try_into().ok());
            Form::Sha1(digest.ok_or(Unreadable::Malformed("{SHA}"))?)
        } else {
            return Err(Unreadable::Unknown);
        };
        Ok(Hash { text: text.into(), form })
    }

    /// The text it was read from. It identifies the hash; it is not to be shown.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// Whether it is this password's. Takes tens of milliseconds of CPU, and for argon2 tens of megabytes: not
    /// for a worker's own thread.
    pub fn is_of(&self, password: &[u8]) -> bool {
        if password.len() > LONGEST_PASSWORD {
            return false;
        }
        match &self.form {
            Form::Argon2(hash) => Argon2::default().verify_password(password, &**hash).is_ok(),
            Form::Bcrypt => bcrypt::verify(password, &self.text).unwrap_or(false),
            Form::ShaCrypt => ShaCrypt::default().verify_password(password, &*self.text).is_ok(),
            Form::Md5Crypt { mark, salt, digest } => {
                equal(&md5_crypt::digest(password, mark, salt), digest.as_bytes())
            }
            Form::Sha1(digest) => equal(&Sha1::digest(password), digest),
        }
    }
}

fn read_argon2(text: &str) -> Result<Form, Unreadable> {
    const BROKEN: Unreadable = Unreadable::Malformed("argon2");
    let hash = PasswordHash::new(text).map_err(|_| BROKEN)?;
    let params = Params::try_from(&hash).map_err(|_| BROKEN)?;
    // Without a version the reference implementation means 16 and our library 19: neither is guessed.
    let version = hash.version.is_some_and(|version| version == 16 || version == 19);
    if !version || hash.salt.is_none() || hash.hash.is_none() {
        return Err(BROKEN);
    }
    let work = u64::from(params.m_cost()) * u64::from(params.t_cost());
    if params.m_cost() > MOST_MEMORY || work > MOST_ARGON2 {
        return Err(Unreadable::TooCostly("argon2"));
    }
    Ok(Form::Argon2(Box::new(hash)))
}

fn read_bcrypt(text: &str) -> Result<Form, Unreadable> {
    let parts: bcrypt::HashParts = text.parse().map_err(|_| Unreadable::Malformed("bcrypt"))?;
    match parts.get_cost() {
        4..=MOST_BCRYPT => Ok(Form::Bcrypt),
        cost if cost > MOST_BCRYPT => Err(Unreadable::TooCostly("bcrypt")),
        _ => Err(Unreadable::Malformed("bcrypt")),
    }
}

fn read_sha_crypt(text: &str) -> Result<Form, Unreadable> {
    const BROKEN: Unreadable = Unreadable::Malformed("SHA-crypt");
    let mut parts: Vec<&str> = text.split('$').skip(1).collect();
    if let Some(rounds) = parts.get(1).and_then(|part| part.strip_prefix("rounds=")) {
        let rounds: u32 = rounds.parse().map_err(|_| BROKEN)?;
        if rounds > MOST_ROUNDS {
            return Err(Unreadable::TooCostly("SHA-crypt"));
        }
        sha_crypt::Params::new(rounds).map_err(|_| BROKEN)?;
        parts.remove(1);
    }
    let [kind, salt, digest] = parts[..] else { return Err(BROKEN) };
    let crypt = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.' || b == b'/');
    let length = if kind == "5" { 43 } else { 86 };
    match !salt.is_empty() && salt.len() <= 16 && crypt(salt) && digest.len() == length && crypt(digest) {
        true => Ok(Form::ShaCrypt),
        false => Err(BROKEN),
    }
}

fn read_md5_crypt(mark: &'static str, rest: &str) -> Result<Form, Unreadable> {
    let parts = rest.split_once('$');
    let whole = parts.filter(|(salt, digest)| (1..=8).contains(&salt.len()) && md5_crypt::is_encoded(digest));
    let (salt, digest) = whole.ok_or(Unreadable::Malformed("MD5-crypt"))?;
    Ok(Form::Md5Crypt { mark, salt: salt.into(), digest: digest.into() })
}

/// Which form [`make`] makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Making {
    /// argon2id with 19 MiB, two passes and one lane: the first choice of OWASP's Password Storage Cheat Sheet.
    Argon2id,
    /// bcrypt with cost 12 and the mark `$2y$`, which Apache httpd and nginx read too.
    Bcrypt,
}

/// Hashes a new password, with a salt from the system.
///
/// # Errors
/// One sentence: the password is empty or too long for the form, or the system gave no random numbers.
pub fn make(password: &[u8], making: Making) -> Result<String, String> {
    if password.is_empty() || password.len() > LONGEST_PASSWORD {
        return Err(format!("a password has 1 to {LONGEST_PASSWORD} bytes"));
    }
    match making {
        Making::Argon2id => {
            let hash: PasswordHash =
                Argon2::default().hash_password(password).map_err(|error| error.to_string())?;
            Ok(hash.to_string())
        }
        Making::Bcrypt => match bcrypt::non_truncating_hash_with_result(password, BCRYPT_COST) {
            Ok(parts) => Ok(parts.format_for_version(bcrypt::Version::TwoY)),
            Err(bcrypt::BcryptError::Truncation(_)) => {
                Err("bcrypt reads the first 71 bytes of a password only; use argon2".to_owned())
            }
            Err(error) => Err(error.to_string()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Hashes made by others: crypt(3) of libxcrypt, openssl, the test vectors of argon2's reference.
    const GOOD: [(&str, &str); 11] = [
        ("correct horse", "$2b$04$abcdefghijklmnopqrstuujydOTSfIH/d5oUHpsygqV5X9xJLQc6e"),
        ("correct horse", "$2y$04$abcdefghijklmnopqrstuujydOTSfIH/d5oUHpsygqV5X9xJLQc6e"),
        ("correct horse", "$5$saltstr1$uP7uJYqU4yFb9ZJpRAdNyts0Z0.VC96vWR8seagM9T0"),
        (
            "correct horse",
            "$6$saltstr1$RaqNQjSSxazxsVUQGYTo.kiFEvb.Hbo/zsspac7D/mI41AmUIaK.SsQkwtLyaQdZAMHw6hkZ1PQp4RpdaEOVU.",
        ),
        (
            "correct horse",
            "$6$rounds=1000$saltstr1$gdxNA/eYgkYcRSQPZanKxpN8ylzAEkSU9iGTtuvVMmygTJyQ1IsmNRdFVqLxPJLVpHGp83TzfBIiioBxW0gJJ.",
        ),
        ("correct horse", "$apr1$saltstr1$K/PQNGmhfGJZFOxXq5upf1"),
        ("correct horse", "$1$saltstr1$AsKcJtejHqZcwKlECiX23/"),
        ("correct horse", "{SHA}L55TUjtiq8FBorTWAZ0jy6g129A="),
        ("password", "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4"),
        ("password", "$argon2i$v=19$m=256,t=2,p=1$c29tZXNhbHQ$iekCn0Y3spW+sCcFanM2xBT63UP2sghkUoHLIUpWRS8"),
        ("password", "$argon2i$v=16$m=256,t=2,p=1$c29tZXNhbHQ$/U3YPXYsSb3q9XxHvc0MLxur+GP960kN9j7emXX8zwY"),
    ];

    #[test]
    fn a_password_is_known_in_every_form() {
        for (password, text) in GOOD {
            let hash = Hash::read(text).unwrap_or_else(|why| panic!("{text} {why}"));
            assert!(hash.is_of(password.as_bytes()), "{text}");
            for wrong in [&password[1..], &format!("{password} "), &password.to_uppercase(), ""] {
                assert!(!hash.is_of(wrong.as_bytes()), "{wrong:?} for {text}");
            }
            assert!(!hash.is_of(&[b'x'; LONGEST_PASSWORD + 1]));
        }
    }

    #[test]
    fn what_cannot_be_checked_is_refused_without_a_part_of_it() {
        use Unreadable::{Malformed, TooCostly, Unknown};
        for (text, why) in [
            ("", Unknown),
            ("secret", Unknown),
            ("rl.3StKT.4T8M", Unknown),
            ("$y$j9T$abc$def", Unknown),
            ("$argon2d$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4", Unknown),
            ("$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ", Malformed("argon2")),
            (
                "$argon2id$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4",
                Malformed("argon2"),
            ),
            (
                "$argon2id$v=19$m=1,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4",
                Malformed("argon2"),
            ),
            ("$argon2id$v=19$m=2000000,t=1,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEg", TooCostly("argon2")),
            ("$argon2id$v=19$m=65536,t=65,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEg", TooCostly("argon2")),
            ("$2y$04$abcdefghijklmnopqrstuujydOTSfIH/d5oUHpsygqV5X9xJLQc6", Malformed("bcrypt")),
            ("$2y$03$abcdefghijklmnopqrstuujydOTSfIH/d5oUHpsygqV5X9xJLQc6e", Malformed("bcrypt")),
            ("$2y$31$abcdefghijklmnopqrstuujydOTSfIH/d5oUHpsygqV5X9xJLQc6e", TooCostly("bcrypt")),
            ("$5$saltstr1$uP7uJYqU4yFb9ZJpRAdNyts0Z0.VC96vWR8seagM9T", Malformed("SHA-crypt")),
            ("$5$rounds=9$saltstr1$uP7uJYqU4yFb9ZJpRAdNyts0Z0.VC96vWR8seagM9T0", Malformed("SHA-crypt")),
            (
                "$5$rounds=9999999$saltstr1$uP7uJYqU4yFb9ZJpRAdNyts0Z0.VC96vWR8seagM9T0",
                TooCostly("SHA-crypt"),
            ),
            ("$apr1$saltstr1", Malformed("MD5-crypt")),
            ("$apr1$saltstr1long$K/PQNGmhfGJZFOxXq5upf1", Malformed("MD5-crypt")),
            ("{SHA}L55TUjtiq8FBorTWAZ0jy6g1", Malformed("{SHA}")),
        ] {
            assert_eq!(Hash::read(text).unwrap_err(), why, "{text}");
        }
        assert_eq!(TooCostly("bcrypt").to_string(), "is a bcrypt hash that would take too long to check");
    }

    #[test]
    fn what_is_made_can_be_read_and_is_another_each_time() {
        for making in [Making::Argon2id, Making::Bcrypt] {
            let made = make(b"correct horse", making).unwrap();
            assert!(Hash::read(&made).unwrap().is_of(b"correct horse"), "{made}");
            assert_ne!(made, make(b"correct horse", making).unwrap());
        }
        assert!(make(b"x", Making::Argon2id).unwrap().starts_with("$argon2id$v=19$m=19456,t=2,p=1$"));
        assert!(make(b"x", Making::Bcrypt).unwrap().starts_with("$2y$12$"));
        assert!(make(b"", Making::Argon2id).is_err() && make(&[b'x'; 2000], Making::Argon2id).is_err());
        assert!(make(&[b'x'; 72], Making::Bcrypt).unwrap_err().contains("argon2"));
    }

    #[test]
    fn a_hash_does_not_show_itself() {
        let text = GOOD[0].1;
        let shown = format!("{:?} {:?}", Hash::read(text), StoredHash(text.to_owned()));
        assert_eq!(shown, "Ok(Hash(..)) StoredHash(..)");
    }
}
