//! Keys that machines carry: API keys, kept as SHA-256, and secrets that must be known in full.
//!
//! A slow hash as for passwords would be no better: an API key is random (`make` draws 192 bits), so it cannot be
//! guessed from its hash, and each request would pay for it. That is also why a password is no API key.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// What stands before a digest in a document.
const MARK: &str = "sha256:";

/// The hash of an API key as it stands in a document; not read yet.
#[derive(Clone, Deserialize, Serialize, PartialEq, Eq)]
#[serde(transparent)]
pub struct KeyHash(pub String);

/// A text that nobody may see.
#[derive(Clone, Deserialize, Serialize, PartialEq, Eq)]
#[serde(transparent)]
pub struct Secret(pub String);

impl Secret {
    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

macro_rules! unseen {
    ($($name:ident $description:literal,)*) => {$(
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($name), "(..)"))
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "writeOnly": true, "description": $description })
            }
        }
    )*};
}

unseen! {
    KeyHash "The hash of an API key: \"sha256:\" and 64 hexadecimal digits. `sluice make-key` makes one.",
    Secret "A secret text. Keep it out of the document: \"${file:/run/secrets/key}\" or \"${KEY}\".",
}

/// The SHA-256 of a key.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest([u8; 32]);

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Digest(..)")
    }
}

impl Digest {
    /// That of a key.
    pub fn of(key: &[u8]) -> Digest {
        Digest(Sha256::digest(key).into())
    }

    /// Reads a stored hash.
    ///
    /// # Errors
    /// One sentence without a part of it.
    pub fn read(stored: &KeyHash) -> Result<Digest, &'static str> {
        const WRONG: &str =
            "an API key's hash is \"sha256:\" and 64 hexadecimal digits; `sluice make-key` makes one";
        let digits = stored.0.strip_prefix(MARK).filter(|digits| digits.len() == 64 && digits.is_ascii());
        let digits = digits.ok_or(WRONG)?;
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.as_bytes().chunks(2)) {
            let pair = std::str::from_utf8(pair).unwrap_or_default();
            // from_str_radix takes a sign.
            let plain = pair.bytes().all(|digit| digit.is_ascii_hexdigit());
            *byte = u8::from_str_radix(pair, 16).ok().filter(|_| plain).ok_or(WRONG)?;
        }
        Ok(Digest(bytes))
    }

    /// As a document has it.
    pub fn stored(&self) -> KeyHash {
        use fmt::Write as _;
        let mut text = MARK.to_owned();
        // Writing to a String cannot fail.
        self.0.iter().for_each(|byte| _ = write!(text, "{byte:02x}"));
        KeyHash(text)
    }
}

/// Longest API key that is looked at, in bytes.
pub const LONGEST_KEY: usize = 512;

/// Characters of a key that [`KeyForm::make`] draws: 196 bits.
const DRAWN: usize = 33;

/// Characters of its checksum: 35 bits, against typing errors alone.
const CHECKSUM: usize = 6;

const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// Keys with a prefix: `shop_` and 39 characters. A key that was published by mistake can be found by its prefix,
/// and one with a typing error is known by its checksum.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyForm(Box<str>);

impl KeyForm {
    /// Keys that begin with this.
    ///
    /// # Errors
    /// One sentence.
    pub fn new(prefix: &str) -> Result<KeyForm, &'static str> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
        match (1..=32).contains(&prefix.len()) && prefix.bytes().all(plain) {
            true => Ok(KeyForm(format!("{prefix}_").into())),
            false => Err("a prefix has 1 to 32 letters, digits, `_` and `-`"),
        }
    }

    /// Draws a key from the system's random numbers, and gives it with its hash.
    ///
    /// # Errors
    /// The system gave no random numbers.
    pub fn make(&self) -> Result<(String, KeyHash), &'static str> {
        let mut key = self.0.to_string();
        let start = key.len();
        while key.len() < start + DRAWN {
            let mut byte = [0];
            aws_lc_rs::rand::fill(&mut byte).map_err(|_| "the system gave no random numbers")?;
            // Above the largest multiple of 62 some characters would be likelier than others.
            if usize::from(byte[0]) < ALPHABET.len() * 4 {
                key.push(char::from(ALPHABET[usize::from(byte[0]) % ALPHABET.len()]));
            }
        }
        key.push_str(&checksum(&key));
        let hash = Digest::of(key.as_bytes()).stored();
        Ok((key, hash))
    }

    /// Whether a key looks as if [`KeyForm::make`] had made it.
    pub fn fits(&self, key: &[u8]) -> bool {
        let Some(text) = std::str::from_utf8(key).ok().filter(|text| text.is_ascii()) else { return false };
        let length = self.0.len() + DRAWN + CHECKSUM;
        text.len() == length
            && text.starts_with(&*self.0)
            && text[length - CHECKSUM..] == checksum(&text[..length - CHECKSUM])
    }
}

fn checksum(text: &str) -> String {
    let digest = Sha256::digest(text.as_bytes());
    let mut value = digest.iter().take(8).fold(0, |value, byte| value << 8 | u64::from(*byte));
    (0..CHECKSUM)
        .map(|_| {
            let digit = (value % ALPHABET.len() as u64) as usize;
            value /= ALPHABET.len() as u64;
            char::from(ALPHABET[digit])
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_is_made_fits_and_a_typing_error_does_not() {
        let form = KeyForm::new("shop").unwrap();
        let (key, hash) = form.make().unwrap();
        assert_ne!(key, form.make().unwrap().0);
        assert!(form.fits(key.as_bytes()) && key.len() == 5 + DRAWN + CHECKSUM);
        assert_eq!(Digest::read(&hash), Ok(Digest::of(key.as_bytes())));
        for at in 0..key.len() {
            let mut typo = key.clone().into_bytes();
            typo[at] = if typo[at] == b'x' { b'y' } else { b'x' };
            assert!(!form.fits(&typo), "{at}");
        }
        assert!(!form.fits(b"") && !KeyForm::new("other").unwrap().fits(key.as_bytes()));
        assert!(KeyForm::new("").is_err() && KeyForm::new("a b").is_err());
    }

    #[test]
    fn a_stored_hash_is_that_of_the_key_alone() {
        // printf key | sha256sum
        let stored = "sha256:2c70e12b7a0646f92279f427c7b38e7334d8e5389cff167a1dc30e73f826b683";
        assert_eq!(Digest::of(b"key").stored().0, stored);
        assert_eq!(
            Digest::read(&KeyHash(stored.to_uppercase().replace("SHA", "sha"))),
            Ok(Digest::of(b"key"))
        );
        for wrong in ["", "sha256:", "key", &stored[7..], &stored[..70], "sha256:é", &format!("{stored}0")] {
            assert!(Digest::read(&KeyHash(wrong.to_owned())).is_err(), "{wrong}");
        }
        let signed = stored.replace("2c", "+c");
        assert!(Digest::read(&KeyHash(signed)).is_err());
    }

    #[test]
    fn nothing_shows_itself() {
        let shown = format!("{:?} {:?} {:?}", KeyHash("a".into()), Secret("b".into()), Digest::of(b"c"));
        assert_eq!(shown, "KeyHash(..) Secret(..) Digest(..)");
    }
}
