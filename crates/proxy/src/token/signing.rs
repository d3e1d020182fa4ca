//! Keys that sign, and the public part of each: made here or read from PEM.
//!
//! Promise: what a message says of a key is never a part of it; what is published of a private key is its public part.

use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING as P256, ECDSA_P384_SHA384_FIXED_SIGNING as P384, EcdsaKeyPair,
    Ed25519KeyPair,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jsonwebtoken::jwk::{Jwk, ThumbprintHash};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// An algorithm that tokens are signed with (RFC 7518 section 3.1, RFC 8037).
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names of RFC 7518")]
pub enum Signing {
    #[default]
    ES256,
    ES384,
    EdDSA,
    RS256,
    PS256,
}

impl Signing {
    /// All of them.
    pub const ALL: [Algorithm; 5] =
        [Algorithm::ES256, Algorithm::ES384, Algorithm::EdDSA, Algorithm::RS256, Algorithm::PS256];

    /// What it is called in a token.
    pub fn algorithm(self) -> Algorithm {
        match self {
            Signing::ES256 => Algorithm::ES256,
            Signing::ES384 => Algorithm::ES384,
            Signing::EdDSA => Algorithm::EdDSA,
            Signing::RS256 => Algorithm::RS256,
            Signing::PS256 => Algorithm::PS256,
        }
    }

    /// A new private key (PKCS #8). RSA has 2048 bits, and takes a moment.
    pub(super) fn make(self) -> Option<Vec<u8>> {
        let random = SystemRandom::new();
        let made = |document: aws_lc_rs::pkcs8::Document| document.as_ref().to_vec();
        match self {
            Signing::ES256 => EcdsaKeyPair::generate_pkcs8(&P256, &random).ok().map(made),
            Signing::ES384 => EcdsaKeyPair::generate_pkcs8(&P384, &random).ok().map(made),
            Signing::EdDSA => Ed25519KeyPair::generate_pkcs8v1(&random).ok().map(made),
            Signing::RS256 | Signing::PS256 => {
                let pair = RsaKeyPair::generate(KeySize::Rsa2048).ok()?;
                let der: Pkcs8V1Der<'_> = pair.as_der().ok()?;
                Some(der.as_ref().to_vec())
            }
        }
    }
}

/// A key as it is used.
pub(super) struct Key {
    /// Its id (`kid`).
    pub(super) id: String,
    /// What stands in the key set of it.
    pub(super) public: Value,
    /// None of one that only checks.
    signer: Option<(Algorithm, EncodingKey)>,
}

/// Why text is no key.
pub(super) type Unfit = &'static str;

impl Key {
    /// Reads PEM: a private key, or the public one of a key that signs no longer. Without an id it is called by its
    /// thumbprint (RFC 7638); without an algorithm it has the usual one of its kind.
    pub(super) fn read(text: &str, id: Option<&str>, algorithm: Option<Signing>) -> Result<Key, Unfit> {
        let found = match (text.contains("PRIVATE KEY-----"), text.contains("PUBLIC KEY-----")) {
            (true, false) => private(text, algorithm)?,
            (false, true) => public(text, algorithm)?,
            (true, true) => return Err("it holds more than one key"),
            (false, false) => return Err("it is not a key in PEM"),
        };
        let (algorithm, jwk, signer) = found;
        let thumbprint =
            || jwk.thumbprint(ThumbprintHash::SHA256).map_err(|_| "it is no key of a known kind");
        let id = match id {
            Some(id) => id.to_owned(),
            None => thumbprint()?,
        };
        let mut public = serde_json::to_value(&jwk).map_err(|_| "it is no key of a known kind")?;
        public["kid"] = id.as_str().into();
        public["use"] = "sig".into();
        Ok(Key { id, public, signer: signer.map(|key| (algorithm, key)) })
    }

    /// The same for one that was made here (PKCS #8).
    pub(super) fn made(der: &[u8], id: &str, algorithm: Signing) -> Result<Key, Unfit> {
        let text =
            format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", STANDARD.encode(der));
        Key::read(&text, Some(id), Some(algorithm))
    }

    /// What its tokens name as their algorithm; None: it only checks.
    pub(super) fn algorithm(&self) -> Option<Algorithm> {
        self.signer.as_ref().map(|(algorithm, _)| *algorithm)
    }

    /// A signature, in base64url.
    pub(super) fn sign(&self, message: &[u8]) -> Option<String> {
        let (algorithm, key) = self.signer.as_ref()?;
        jsonwebtoken::crypto::sign(message, key, *algorithm).ok()
    }
}

type Found = (Algorithm, Jwk, Option<EncodingKey>);

fn private(text: &str, wanted: Option<Signing>) -> Result<Found, Unfit> {
    if text.contains("BEGIN ENCRYPTED PRIVATE KEY") {
        return Err("it is encrypted: nobody could be asked for its password");
    }
    if text.contains("BEGIN EC PRIVATE KEY") {
        return Err("it is not PKCS #8: `openssl pkcs8 -topk8 -nocrypt` makes that of it");
    }
    let pem = text.trim().as_bytes();
    let candidates: [(&[Algorithm], Option<EncodingKey>); 3] = [
        (&[Algorithm::RS256, Algorithm::PS256], EncodingKey::from_rsa_pem(pem).ok()),
        (&[Algorithm::ES256, Algorithm::ES384], EncodingKey::from_ec_pem(pem).ok()),
        (&[Algorithm::EdDSA], EncodingKey::from_ed_pem(pem).ok()),
    ];
    let wanted = wanted.map(Signing::algorithm);
    for (algorithms, key) in candidates {
        let Some(key) = key else { continue };
        // The curve of an EC key fits one of the two; any RSA key fits both.
        let fitting = algorithms.iter().filter(|algorithm| wanted.is_none_or(|wanted| wanted == **algorithm));
        for algorithm in fitting {
            let signs = jsonwebtoken::crypto::sign(b"", &key, *algorithm).is_ok();
            if let (true, Ok(jwk)) = (signs, Jwk::from_encoding_key(&key, *algorithm)) {
                return Ok((*algorithm, jwk, Some(key)));
            }
        }
        return Err("it is of another kind than its algorithm, or too short");
    }
    Err("it is no private key of a known kind: RSA, P-256, P-384 or Ed25519")
}

fn public(text: &str, wanted: Option<Signing>) -> Result<Found, Unfit> {
    let pem = text.trim().as_bytes();
    let ec = || {
        let key = DecodingKey::from_ec_pem(pem).ok()?;
        let curve = match key.try_get_as_bytes().ok()?.len() {
            65 => Algorithm::ES256,
            97 => Algorithm::ES384,
            _ => return None,
        };
        Some((key, curve))
    };
    let rsa = match wanted.map(Signing::algorithm) {
        Some(Algorithm::PS256) => Algorithm::PS256,
        _ => Algorithm::RS256,
    };
    let found = DecodingKey::from_rsa_pem(pem).ok().map(|key| (key, rsa)).or_else(ec);
    let found = found.or_else(|| DecodingKey::from_ed_pem(pem).ok().map(|key| (key, Algorithm::EdDSA)));
    let (key, algorithm) =
        found.ok_or("it is no public key of a known kind: RSA, P-256, P-384 or Ed25519")?;
    if wanted.is_some_and(|wanted| wanted.algorithm() != algorithm) {
        return Err("it is of another kind than its algorithm");
    }
    let jwk = Jwk::from_decoding_key(&key, Some(algorithm));
    Ok((algorithm, jwk.map_err(|_| "it is no public key of a known kind")?, None))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::{Keys, Source, Unverified};

    const ALL: [Signing; 5] =
        [Signing::ES256, Signing::ES384, Signing::EdDSA, Signing::RS256, Signing::PS256];

    fn token(key: &Key) -> String {
        use base64::engine::general_purpose::URL_SAFE_NO_PAD;
        let algorithm = key.algorithm().unwrap();
        let header = format!("{{\"alg\":\"{algorithm:?}\",\"kid\":\"{}\"}}", key.id);
        let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode("{}"));
        format!("{message}.{}", key.sign(message.as_bytes()).unwrap())
    }

    #[test]
    fn keys_of_every_algorithm_are_made_and_check_what_they_sign() {
        for signing in ALL {
            let der = signing.make().unwrap();
            let key = Key::made(&der, "k", signing).unwrap();
            assert_eq!(key.algorithm(), Some(signing.algorithm()));
            let set = serde_json::json!({ "keys": [key.public] }).to_string();
            for private in ["\"d\"", "\"p\"", "\"q\"", "\"k\""] {
                assert!(!set.contains(&format!("{private}:")), "{set}");
            }
            let keys = Keys::read(&set, Source::Published).unwrap();
            let token = token(&key);
            let read = Unverified::read(token.as_bytes(), &Signing::ALL).unwrap();
            assert!(read.verify(&keys).is_ok(), "{signing:?}");
            let other = Key::made(&signing.make().unwrap(), "k", signing).unwrap();
            let others = serde_json::json!({ "keys": [other.public] }).to_string();
            assert!(read.verify(&Keys::read(&others, Source::Published).unwrap()).is_err(), "{signing:?}");
        }
    }

    #[test]
    fn a_key_is_called_by_its_thumbprint_and_used_as_its_kind_is() {
        for (signing, usual) in ALL.into_iter().zip([0, 1, 2, 3, 3]) {
            let der = signing.make().unwrap();
            let text = format!(
                "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n",
                STANDARD.encode(&der)
            );
            let key = Key::read(&text, None, None).unwrap();
            assert_eq!(key.algorithm(), Some(Signing::ALL[usual]), "{signing:?}");
            assert!(key.id.len() == 43 && Key::read(&text, None, None).unwrap().id == key.id);
            for other in ALL {
                let fits = Key::read(&text, Some("x"), Some(other)).is_ok();
                let rsa = |one: Signing| matches!(one, Signing::RS256 | Signing::PS256);
                assert_eq!(fits, other == signing || rsa(other) && rsa(signing), "{signing:?} {other:?}");
            }
        }
    }

    #[test]
    fn what_is_no_key_is_said_without_a_part_of_it() {
        for (text, told) in [
            ("", "it is not a key in PEM"),
            (
                "-----BEGIN PRIVATE KEY-----\nMAA=\n-----END PRIVATE KEY-----",
                "no private key of a known kind",
            ),
            ("-----BEGIN PUBLIC KEY-----\nMAA=\n-----END PUBLIC KEY-----", "no public key of a known kind"),
            ("-----BEGIN ENCRYPTED PRIVATE KEY-----", "it is encrypted"),
            ("-----BEGIN EC PRIVATE KEY-----", "openssl pkcs8"),
            ("-----BEGIN PRIVATE KEY-----\n-----BEGIN PUBLIC KEY-----", "more than one key"),
        ] {
            let why = Key::read(text, None, None).err().unwrap_or_default();
            assert!(why.contains(told), "{text}: {why}");
        }
    }
}
