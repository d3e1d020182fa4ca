//! Checking a token: JSON Web Tokens in compact form (RFC 7519, RFC 7515 section 7.1).
//!
//! Promise: nothing is computed for a token that is too long, of a wrong form, or of an algorithm that is not
//! allowed; `none` is in no list. Which check failed is for operators; a client learns that its token is not valid,
//! and when it has expired.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::Algorithm;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::keys::Keys;

/// Longest token that is looked at, in bytes.
pub const LONGEST_TOKEN: usize = 8 * 1024;

/// Why a token is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejected {
    /// It is too long, or no token.
    Malformed,
    /// Its algorithm is not allowed.
    Algorithm,
    /// No key fits it: there may be a newer one.
    UnknownKey,
    /// Its signature is wrong.
    Signature,
    /// Its time is over.
    Expired,
    /// Its time has not come.
    Early,
    /// It is from another issuer.
    Issuer,
    /// It is for somebody else.
    Audience,
    /// A claim is missing.
    Missing,
    /// It was revoked.
    Revoked,
}

/// What a token must be.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// Allowed algorithms.
    pub algorithms: Vec<Algorithm>,
    /// Allowed issuers; empty: any.
    pub issuers: Vec<String>,
    /// Of its audiences one must be one of these; empty: any.
    pub audiences: Vec<String>,
    /// How far clocks may differ, in seconds.
    pub leeway: u64,
    /// Claims that must be there.
    pub required: Vec<String>,
}

/// A token that was taken apart and not believed yet.
#[derive(Debug)]
pub struct Unverified<'a> {
    algorithm: Algorithm,
    key_id: Option<String>,
    message: &'a str,
    signature: &'a str,
    payload: &'a str,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    crit: Option<Value>,
}

impl<'a> Unverified<'a> {
    /// Takes a token apart.
    ///
    /// # Errors
    /// It is no token, or its algorithm is not one of `allowed`.
    pub fn read(token: &'a [u8], allowed: &[Algorithm]) -> Result<Unverified<'a>, Rejected> {
        Unverified::read_marked(token, "", allowed)
    }

    /// The same for one that begins with a mark, which is signed with the rest: without it, it is no token.
    ///
    /// # Errors
    /// It is no such token, or its algorithm is not one of `allowed`.
    pub fn read_marked(
        token: &'a [u8],
        mark: &str,
        allowed: &[Algorithm],
    ) -> Result<Unverified<'a>, Rejected> {
        if token.len() > LONGEST_TOKEN {
            return Err(Rejected::Malformed);
        }
        let text = std::str::from_utf8(token).map_err(|_| Rejected::Malformed)?;
        let (message, signature) = text.rsplit_once('.').ok_or(Rejected::Malformed)?;
        let bare = message.strip_prefix(mark).ok_or(Rejected::Malformed)?;
        let (header, payload) = bare.split_once('.').ok_or(Rejected::Malformed)?;
        if payload.contains('.') {
            return Err(Rejected::Malformed);
        }
        let header = URL_SAFE_NO_PAD.decode(header).map_err(|_| Rejected::Malformed)?;
        let header: Header = serde_json::from_slice(&header).map_err(|_| Rejected::Malformed)?;
        // RFC 7515 section 4.1.11: it must be understood, and we understand none.
        if header.crit.is_some() {
            return Err(Rejected::Malformed);
        }
        let algorithm = header.alg.parse().ok().filter(|algorithm| allowed.contains(algorithm));
        let algorithm = algorithm.ok_or(Rejected::Algorithm)?;
        Ok(Unverified { algorithm, key_id: header.kid, message, signature, payload })
    }

    /// The claims, once the signature was found right by one of the keys.
    ///
    /// # Errors
    /// No key fits, or the signature is wrong, or what was signed are no claims.
    pub fn verify(&self, keys: &Keys) -> Result<Map<String, Value>, Rejected> {
        let mut tried = false;
        for key in keys.fitting(self.key_id.as_deref(), self.algorithm) {
            tried = true;
            let right =
                jsonwebtoken::crypto::verify(self.signature, self.message.as_bytes(), key, self.algorithm);
            if right.unwrap_or(false) {
                let payload = URL_SAFE_NO_PAD.decode(self.payload).map_err(|_| Rejected::Malformed)?;
                return serde_json::from_slice(&payload).map_err(|_| Rejected::Malformed);
            }
        }
        Err(if tried { Rejected::Signature } else { Rejected::UnknownKey })
    }
}

impl Rules {
    /// Checks claims at this time, in seconds since 1970. Gives when they end.
    ///
    /// # Errors
    /// What does not hold.
    pub fn check(&self, claims: &Map<String, Value>, now: u64) -> Result<Option<u64>, Rejected> {
        if self.required.iter().any(|name| claims.get(name).is_none_or(Value::is_null)) {
            return Err(Rejected::Missing);
        }
        let end = seconds(claims, "exp")?;
        if end.is_some_and(|end| end.saturating_add(self.leeway) <= now) {
            return Err(Rejected::Expired);
        }
        if seconds(claims, "nbf")?.is_some_and(|start| start > now.saturating_add(self.leeway)) {
            return Err(Rejected::Early);
        }
        let issuer = claims.get("iss").and_then(Value::as_str);
        if !self.issuers.is_empty() && !self.issuers.iter().any(|one| Some(one.as_str()) == issuer) {
            return Err(Rejected::Issuer);
        }
        let meant =
            |value: &Value| value.as_str().is_some_and(|text| self.audiences.iter().any(|one| one == text));
        let for_us = match claims.get("aud") {
            _ if self.audiences.is_empty() => true,
            Some(Value::Array(list)) => list.iter().any(meant),
            Some(one) => meant(one),
            None => false,
        };
        if for_us { Ok(end.map(|end| end.saturating_add(self.leeway))) } else { Err(Rejected::Audience) }
    }
}

/// A time of RFC 7519 section 2: a number, perhaps with a fraction.
fn seconds(claims: &Map<String, Value>, name: &str) -> Result<Option<u64>, Rejected> {
    match claims.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => match value.as_f64() {
            // Beyond the range of u64 the cast stops at its ends.
            Some(number) if number.is_finite() => Ok(Some(number as u64)),
            _ => Err(Rejected::Malformed),
        },
    }
}
