//! What a document says of the filter jwt, and its check.

use std::collections::BTreeMap;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use sluice_http::FieldName;

use super::session::{self, Session};
use super::{Algorithm, Source};
use crate::credentials::Secret;
use crate::fetch::Url;
use crate::filter::challenge::realm;
use crate::filter::except::Except;
use crate::filter::lookup::{Forwarded, Lookup, PlaceConfig};
use crate::problem::{At, Problems};
use crate::redis::Server;
use crate::token::{Keys, Policy, Rules, SHORTEST_SECRET};
use crate::value::Period;

/// Lets in who has a JSON Web Token that is valid: signed by a known key, of the right issuer and audience, and not
/// expired. Others get 401. Keys come from exactly one of `secret`, `keys`, `file`, `jwks` and `directory`.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// A shared secret, for HS256, HS384 and HS512: at least 16 bytes, better 32.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret: Option<Secret>,
    /// Public keys in PEM, or a JWK or JWK set in JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keys: Option<String>,
    /// A file with the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Where the issuer publishes its key set: "https://id.example/.well-known/jwks.json".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jwks: Option<String>,
    /// The `directory` of a route with the action token: its keys as they are now, and what was taken back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub directory: Option<String>,
    /// A Redis server in which other gateways write down the tokens they have taken back (their token action's `shared`):
    /// "redis://127.0.0.1:6379". It is asked about a token once a second; without an answer nobody is let in. With
    /// `directory` it is known already.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revocations: Option<String>,
    /// File with authorities for `jwks`. Default: those this machine trusts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
    /// Between two fetches of `jwks`. A token with an unknown key id causes one more, at most every 10 seconds.
    /// Default "5m".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refresh: Option<Period>,
    /// How long the last key set is used while `jwks` cannot be reached. Default "1d".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stale_if_error: Option<Period>,
    /// Algorithms that tokens may have. Default: HS256 with a secret; else RS256, PS256, ES256, ES384 and EdDSA.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub algorithms: Vec<Algorithm>,
    /// The claim `iss` must be this. Default: any issuer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub issuer: Option<Several>,
    /// The claim `aud` must be this, or hold it. Default: any audience.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audience: Option<Several>,
    /// Claims that must be there. Default ["exp"].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub require: Option<Vec<String>>,
    /// How far the issuer's clock and ours may differ. Default "30s".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub leeway: Option<Period>,
    /// Where a token may stand, in the order looked at. Default: after "Bearer" in Authorization.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub lookup: Vec<PlaceConfig>,
    /// Header to claim: what endpoints are told. These headers of the client are removed first, also where no token
    /// is asked for. An entry of an object is "realm_access.roles"; a list has a space between two.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub claims_to_headers: BTreeMap<String, String>,
    /// Whether the token is removed before the request goes on. Default false.
    pub hide_credentials: bool,
    /// The claim by which the consumer is known (`jwt.subject` of a consumer). Default "sub".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub consumer_claim: Option<String>,
    /// Whether a token that is no consumer's is refused with 403. Default false.
    pub require_consumer: bool,
    /// Asks Redis besides: whether the token is still there, and for a CSRF token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<session::Config>,
    /// Gives the client a new token with each answer. With `secret` only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub renew: Option<RenewConfig>,
    /// Named in the challenge. Default "restricted".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub realm: Option<String>,
    /// Paths for which no token is asked for.
    #[serde(skip_serializing_if = "Except::is_empty")]
    pub except: Except,
}

/// One text, or several.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(untagged)]
pub enum Several {
    /// One.
    One(String),
    /// Several.
    Many(Vec<String>),
}

impl Several {
    fn list(written: Option<&Several>, at: &At, problems: &mut Problems) -> Vec<String> {
        let list = match written {
            None => return Vec::new(),
            Some(Several::One(one)) => vec![one.clone()],
            Some(Several::Many(list)) => list.clone(),
        };
        if list.is_empty() || list.iter().any(String::is_empty) {
            problems.add(at, "an empty list or text would refuse every token");
        }
        list
    }
}

/// A new token with each answer: the old one with another end.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct RenewConfig {
    /// The header of answers that holds it.
    pub header: String,
    /// How long it is valid.
    pub ttl: Period,
}

/// A new token with each answer, checked.
#[derive(Debug)]
pub(super) struct Renew {
    pub(super) header: FieldName,
    pub(super) ttl: Duration,
    pub(super) secret: Secret,
}

/// What the configuration becomes.
pub(super) struct Checked {
    pub(super) source: Source,
    pub(super) rules: Rules,
    pub(super) lookup: Lookup,
    pub(super) headers: Vec<(FieldName, String)>,
    pub(super) session: Option<Session>,
    pub(super) renew: Option<Renew>,
    pub(super) revocations: Option<Server>,
    pub(super) challenge: String,
    pub(super) token: Forwarded,
    /// Stands for what tokens are checked by.
    pub(super) number: u64,
}

impl Config {
    pub(super) fn check(&self, at: &At, problems: &mut Problems) -> Option<Checked> {
        let found = problems.iter().count();
        let source = self.source(at, problems);
        self.except.check(&at.key("except"), problems);
        let usual = [PlaceConfig::header("Authorization")];
        let lookup = Lookup::check(&self.lookup, &usual, &at.key("lookup"), problems);
        let headers = self.headers(&at.key("claims_to_headers"), problems);
        let realm = realm(self.realm.as_ref(), at, problems);
        let rules = self.rules(at, problems);
        let revocations = self.revocations.as_ref();
        let revocations =
            revocations.map(|text| Server::check(text, &at.key("revocations"), problems).ok_or(()));
        let session =
            self.session.as_ref().map(|config| config.check(&at.key("session"), problems).ok_or(()));
        let renew =
            self.renew.as_ref().map(|config| self.renew(config, &at.key("renew"), problems).ok_or(()));
        let (source, lookup) = (source?, lookup?);
        let (session, renew) = (session.transpose().ok()?, renew.transpose().ok()?);
        let revocations = revocations.transpose().ok()?;
        let written = serde_json::to_vec(&(
            &self.secret,
            &self.keys,
            &self.file,
            &self.jwks,
            &self.directory,
            &self.issuer,
        ))
        .ok()?;
        let more =
            serde_json::to_vec(&(&self.audience, &self.require, &self.leeway, &rules.algorithms)).ok()?;
        let digest = Sha256::new().chain_update(written).chain_update(more).finalize();
        (problems.iter().count() == found).then(|| Checked {
            source,
            rules,
            lookup,
            headers,
            session,
            renew,
            revocations,
            challenge: format!("Bearer realm={realm}"),
            token: Forwarded::unless(self.hide_credentials),
            number: digest.iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte)),
        })
    }

    fn source(&self, at: &At, problems: &mut Problems) -> Option<Source> {
        let written = [&self.keys, &self.file, &self.jwks, &self.directory];
        let written = written.into_iter().flatten().count() + usize::from(self.secret.is_some());
        if written != 1 {
            problems.add(at, "keys come from exactly one of secret, keys, file, jwks and directory");
            return None;
        }
        if self.directory.is_some() && self.revocations.is_some() {
            let problem =
                problems.add(&at.key("revocations"), "a directory knows already what was taken back");
            problem.hint("the token action's `shared` says where gateways tell each other");
        }
        for (key, unfit) in [
            ("ca", self.ca.is_some()),
            ("refresh", self.refresh.is_some()),
            ("stale_if_error", self.stale_if_error.is_some()),
        ] {
            if unfit && self.jwks.is_none() {
                problems.add(&at.key(key), format!("`{key}` means nothing without `jwks`"));
            }
        }
        if let Some(secret) = &self.secret {
            let keys = problems.take(&at.key("secret"), Keys::secret(secret.bytes()))?;
            return Some(Source::Known(keys.into()));
        }
        if let Some(text) = &self.keys {
            let keys = problems.take(&at.key("keys"), Keys::read(text, crate::token::Source::Own))?;
            return Some(Source::Known(keys.into()));
        }
        if let Some(file) = &self.file {
            return Some(Source::File(file.into()));
        }
        if let Some(directory) = &self.directory {
            return Some(Source::Directory(directory.into()));
        }
        let url = problems.take(&at.key("jwks"), Url::parse(self.jwks.as_ref()?))?;
        let every = self.refresh.map_or(Duration::from_secs(300), |period| period.0);
        if every < Duration::from_secs(1) {
            problems
                .add(&at.key("refresh"), "fetched more often than once in a second, it would be a burden");
        }
        let stale = self.stale_if_error.map_or(Duration::from_secs(86_400), |period| period.0);
        Some(Source::Wanted(Policy { url, ca: self.ca.clone(), every, stale: stale.max(every) }))
    }

    fn rules(&self, at: &At, problems: &mut Problems) -> Rules {
        let shared = self.secret.is_some();
        let algorithms: Vec<Algorithm> = match (self.algorithms.is_empty(), shared) {
            (false, _) => self.algorithms.clone(),
            (true, true) => vec![Algorithm::HS256],
            (true, false) => {
                vec![Algorithm::RS256, Algorithm::PS256, Algorithm::ES256, Algorithm::ES384, Algorithm::EdDSA]
            }
        };
        for (index, algorithm) in algorithms.iter().enumerate() {
            if algorithm.is_shared() != shared && (shared || self.jwks.is_some()) {
                let why = if shared { "a secret checks" } else { "a published key set never checks" };
                problems.add(&at.key("algorithms").index(index), format!("{why} HS256, HS384 and HS512"));
            }
        }
        Rules {
            algorithms: algorithms.into_iter().map(Algorithm::token).collect(),
            issuers: Several::list(self.issuer.as_ref(), &at.key("issuer"), problems),
            audiences: Several::list(self.audience.as_ref(), &at.key("audience"), problems),
            leeway: self.leeway.map_or(30, |period| period.0.as_secs()),
            required: self.require.clone().unwrap_or_else(|| vec!["exp".to_owned()]),
        }
    }

    fn headers(&self, at: &At, problems: &mut Problems) -> Vec<(FieldName, String)> {
        let mut headers = Vec::new();
        for (header, claim) in &self.claims_to_headers {
            match FieldName::new(header) {
                Some(name) => headers.push((name, claim.clone())),
                None => _ = problems.add(&at.key(header), format!("`{header}` is not a header name")),
            }
        }
        headers
    }

    fn renew(&self, config: &RenewConfig, at: &At, problems: &mut Problems) -> Option<Renew> {
        let Some(secret) = self.secret.clone() else {
            problems.add(at, "a new token can only be signed with a shared `secret`");
            return None;
        };
        let Some(header) = FieldName::new(&config.header) else {
            problems.add(&at.key("header"), format!("`{}` is not a header name", config.header));
            return None;
        };
        if config.ttl.0.as_secs() == 0 {
            problems.add(&at.key("ttl"), "a token that ends within a second is of no use");
            return None;
        }
        Some(Renew { header, ttl: config.ttl.0, secret })
    }
}

/// Read by the doc comment above.
const _: () = assert!(SHORTEST_SECRET == 16);
