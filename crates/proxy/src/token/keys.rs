//! Keys that tokens are checked with: from PEM, JWK, JWK sets, or a shared secret.
//!
//! Promise: a key checks algorithms of its own kind only, so that a public key is never taken for a secret; what a
//! document or a key set says too much is passed over, what it says too little is refused.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde_json::Value;

/// The most keys of one set: without a key id all that fit are tried.
const MOST_KEYS: usize = 64;

/// The shortest shared secret, in bytes. RFC 7518 section 3.2 wants as many as the hash has, which secrets of older
/// systems rarely have; shorter than this one can be guessed.
pub const SHORTEST_SECRET: usize = 16;

/// A key.
struct Key {
    id: Option<Box<str>>,
    algorithms: Vec<Algorithm>,
    key: DecodingKey,
}

/// Keys that tokens are checked with.
#[derive(Default)]
pub struct Keys(Vec<Key>);

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Keys({})", self.0.len())
    }
}

/// Whether a set may hold shared secrets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Ours: a file or the document.
    Own,
    /// Published: a secret in it would be none.
    Published,
}

impl Keys {
    /// A shared secret.
    ///
    /// # Errors
    /// One sentence: it is too short.
    pub fn secret(secret: &[u8]) -> Result<Keys, String> {
        if secret.len() < SHORTEST_SECRET {
            return Err(format!("a secret has at least {SHORTEST_SECRET} bytes"));
        }
        let algorithms = vec![Algorithm::HS256, Algorithm::HS384, Algorithm::HS512];
        Ok(Keys(vec![Key { id: None, algorithms, key: DecodingKey::from_secret(secret) }]))
    }

    /// Reads PEM (one public key or more), a JWK or a JWK set.
    ///
    /// # Errors
    /// One sentence, without a part of the text.
    pub fn read(text: &str, source: Source) -> Result<Keys, String> {
        let keys = match text.trim_start().starts_with('{') {
            true => read_json(text, source)?,
            false => read_pem(text)?,
        };
        match keys.len() {
            0 => Err("it holds no key that could check a token".to_owned()),
            1..=MOST_KEYS => Ok(Keys(keys)),
            _ => Err(format!("it holds more than {MOST_KEYS} keys")),
        }
    }

    /// Adds the keys of another set.
    pub fn join(&mut self, other: Keys) {
        self.0.extend(other.0);
    }

    /// Those that may check a token with this algorithm and key id.
    pub fn fitting<'a>(
        &'a self,
        id: Option<&'a str>,
        algorithm: Algorithm,
    ) -> impl Iterator<Item = &'a DecodingKey> + 'a {
        let named = move |key: &&Key| match (&key.id, id) {
            (Some(own), Some(id)) => **own == *id,
            // A key without a name is asked about everything, and so is every key by a token without one.
            _ => true,
        };
        let fits = move |key: &&Key| key.algorithms.contains(&algorithm);
        self.0.iter().filter(named).filter(fits).map(|key| &key.key)
    }
}

fn read_json(text: &str, source: Source) -> Result<Vec<Key>, String> {
    let value: Value = serde_json::from_str(text).map_err(|_| "it is not JSON".to_owned())?;
    let entries = match value.get("keys") {
        Some(Value::Array(entries)) => entries.clone(),
        Some(_) => return Err("its `keys` are not a list".to_owned()),
        None => vec![value],
    };
    // RFC 7517 section 5: what is not understood in a set is passed over.
    Ok(entries.into_iter().filter_map(|entry| key_of(serde_json::from_value(entry).ok()?, source)).collect())
}

fn key_of(jwk: Jwk, source: Source) -> Option<Key> {
    if jwk.common.public_key_use.as_ref().is_some_and(|usage| *usage != PublicKeyUse::Signature) {
        return None;
    }
    let mut algorithms = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => rsa_algorithms(),
        AlgorithmParameters::EllipticCurve(curve) => match curve.curve {
            EllipticCurve::P256 => vec![Algorithm::ES256],
            EllipticCurve::P384 => vec![Algorithm::ES384],
            _ => return None,
        },
        AlgorithmParameters::OctetKeyPair(pair) if pair.curve == EllipticCurve::Ed25519 => {
            vec![Algorithm::EdDSA]
        }
        AlgorithmParameters::OctetKey(key) if source == Source::Own => {
            let length = URL_SAFE_NO_PAD.decode(&key.value).map_or(0, |bytes| bytes.len());
            if length < SHORTEST_SECRET {
                return None;
            }
            vec![Algorithm::HS256, Algorithm::HS384, Algorithm::HS512]
        }
        _ => return None,
    };
    if let Some(named) = jwk.common.key_algorithm {
        let named: Option<Algorithm> = named.to_string().parse().ok();
        algorithms.retain(|algorithm| Some(*algorithm) == named);
    }
    let key = DecodingKey::from_jwk(&jwk).ok().filter(|_| !algorithms.is_empty())?;
    Some(Key { id: jwk.common.key_id.map(Into::into), algorithms, key })
}

fn read_pem(text: &str) -> Result<Vec<Key>, String> {
    if text.contains("PRIVATE KEY") {
        return Err("it is a private key; tokens are checked with the public one".to_owned());
    }
    let mut keys = Vec::new();
    for block in text.split_inclusive("-----END PUBLIC KEY-----").filter(|block| block.contains("-----BEGIN"))
    {
        let pem = block.trim().as_bytes();
        let rsa = || DecodingKey::from_rsa_pem(pem).ok().map(|key| (key, rsa_algorithms()));
        let ec = || {
            let key = DecodingKey::from_ec_pem(pem).ok()?;
            // An uncompressed point: 1 + 2 * 32 bytes, or 1 + 2 * 48.
            let algorithm = match key.try_get_as_bytes().ok()?.len() {
                65 => Algorithm::ES256,
                97 => Algorithm::ES384,
                _ => return None,
            };
            Some((key, vec![algorithm]))
        };
        let ed = || DecodingKey::from_ed_pem(pem).ok().map(|key| (key, vec![Algorithm::EdDSA]));
        let (key, algorithms) =
            rsa().or_else(ec).or_else(ed).ok_or("it holds PEM that is no public key of a known kind")?;
        keys.push(Key { id: None, algorithms, key });
    }
    Ok(keys)
}

fn rsa_algorithms() -> Vec<Algorithm> {
    use Algorithm::{PS256, PS384, PS512, RS256, RS384, RS512};
    vec![RS256, RS384, RS512, PS256, PS384, PS512]
}
