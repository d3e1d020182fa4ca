//! The `jwt` filter: JSON Web Tokens (RFC 7519), carried as RFC 6750 has it.
//!
//! Promise: only algorithms of the list are computed, each with keys of its own kind; a token that is too long or
//! there twice is refused before anything is computed; what a client says in headers that hold claims is removed, also
//! on exempt paths; a token that was right a moment ago costs one hash. A client is told that its token is not valid,
//! or has expired, and nothing else.

mod config;
mod session;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sluice_http::{FieldName, Request, Response};

use super::challenge::refuse;
use super::except::Except;
use super::lookup::{Forwarded, Found, Lookup};
use super::{Filter, Flow, Known as Beside, Loading};
use crate::closest::closest;
use crate::consumer::{Claims, Consumers, identify};
use crate::exchange::Exchange;
use crate::failure::Failure;
use crate::problem::{At, Problems};
use crate::redis::Server;
use crate::scene::Scene;
use crate::token::{
    self, Elsewhere, Keys, LONGEST_TOKEN, Memory, Policy, Rejected, Remote, Revoked, Ring, Rules, Unverified,
    Verified,
};
use crate::world::Clock;
use config::Renew;
pub use config::{Config, RenewConfig, Several};
pub use session::{Config as SessionConfig, CsrfConfig};
use session::{Known, Session};

/// An algorithm that tokens are signed with (RFC 7518 section 3.1, RFC 8037).
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names of RFC 7518")]
pub enum Algorithm {
    HS256,
    HS384,
    HS512,
    RS256,
    RS384,
    RS512,
    PS256,
    PS384,
    PS512,
    ES256,
    ES384,
    EdDSA,
}

impl Algorithm {
    fn is_shared(self) -> bool {
        matches!(self, Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512)
    }

    fn token(self) -> token::Algorithm {
        match self {
            Algorithm::HS256 => token::Algorithm::HS256,
            Algorithm::HS384 => token::Algorithm::HS384,
            Algorithm::HS512 => token::Algorithm::HS512,
            Algorithm::RS256 => token::Algorithm::RS256,
            Algorithm::RS384 => token::Algorithm::RS384,
            Algorithm::RS512 => token::Algorithm::RS512,
            Algorithm::PS256 => token::Algorithm::PS256,
            Algorithm::PS384 => token::Algorithm::PS384,
            Algorithm::PS512 => token::Algorithm::PS512,
            Algorithm::ES256 => token::Algorithm::ES256,
            Algorithm::ES384 => token::Algorithm::ES384,
            Algorithm::EdDSA => token::Algorithm::EdDSA,
        }
    }
}

/// Where keys come from.
#[derive(Debug)]
enum Source {
    /// They are here.
    Known(Arc<Keys>),
    /// A file that has not been read yet.
    File(PathBuf),
    /// The directory of a token action, not found yet.
    Directory(PathBuf),
    /// The keys of one.
    Ring(Arc<Ring>),
    /// A published set that is not kept yet.
    Wanted(Policy),
    /// A published set.
    Remote(Arc<Remote>),
}

/// What becomes of a token that is no consumer's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Strangers {
    Accepted,
    Refused,
}

/// What the process gives the filter.
#[derive(Debug)]
struct Loaded {
    consumers: Arc<Consumers>,
    memory: Arc<Memory>,
    revoked: Arc<Revoked>,
    /// What other gateways have taken back.
    elsewhere: Option<Elsewhere>,
}

/// The checked filter.
#[derive(Debug)]
pub struct Jwt {
    source: Source,
    rules: Rules,
    number: u64,
    lookup: Lookup,
    token: Forwarded,
    headers: Vec<(FieldName, String)>,
    consumer_claim: String,
    strangers: Strangers,
    session: Option<Session>,
    renew: Option<Renew>,
    revocations: Option<Server>,
    except: Except,
    /// Without a token; with one that is not valid; with one that has expired (RFC 6750 section 3).
    challenges: [Arc<str>; 3],
    /// None until it is loaded: then nobody is let in.
    loaded: Option<Loaded>,
    clock: Clock,
}

impl Filter for Jwt {
    type Config = Config;

    const NAME: &'static str = "jwt";

    fn build(config: &Config, at: &At, problems: &mut Problems) -> Option<Jwt> {
        let checked = config.check(at, problems)?;
        let plain = checked.challenge;
        let invalid = format!("{plain}, error=\"invalid_token\"");
        let expired = format!("{invalid}, error_description=\"The token has expired\"");
        Some(Jwt {
            source: checked.source,
            rules: checked.rules,
            number: checked.number,
            lookup: checked.lookup,
            token: checked.token,
            headers: checked.headers,
            consumer_claim: config.consumer_claim.clone().unwrap_or_else(|| "sub".to_owned()),
            strangers: if config.require_consumer { Strangers::Refused } else { Strangers::Accepted },
            session: checked.session,
            renew: checked.renew,
            revocations: checked.revocations,
            except: config.except.clone(),
            challenges: [plain, invalid, expired].map(Arc::from),
            loaded: None,
            clock: Clock::start(),
        })
    }

    fn files(config: &Config) -> Vec<PathBuf> {
        config.file.iter().chain(&config.ca).map(PathBuf::from).collect()
    }

    fn find(&mut self, known: &Beside<'_>, at: &At, problems: &mut Problems) {
        let Source::Directory(path) = &self.source else { return };
        let directory = path.display().to_string();
        if !known.directories.contains_key(&directory) {
            let message = format!("no route with the action token has the directory `{directory}`");
            let problem = problems.add(&at.key("directory"), message);
            if let Some(meant) = closest(&directory, known.directories.keys().map(String::as_str)) {
                problem.hint(format!("did you mean `{meant}`?"));
            }
        }
    }

    fn load(&mut self, loading: &Loading<'_>, at: &At, problems: &mut Problems) {
        let shared = loading.shared;
        match &self.source {
            Source::File(path) => {
                let read = std::fs::read_to_string(path).map_err(|error| error.to_string());
                let keys = read.and_then(|text| {
                    // Another content, other tokens: what was checked with the old keys is not remembered.
                    self.number ^= xxhash_rust::xxh3::xxh3_64(text.as_bytes());
                    Keys::read(&text, token::Source::Own)
                });
                let told = keys.map_err(|why| format!("{} cannot be used: {why}", path.display()));
                if let Some(keys) = problems.take(&at.key("file"), told) {
                    self.source = Source::Known(Arc::new(keys));
                }
            }
            Source::Wanted(policy) => {
                if let Some(remote) = shared.key_sets.open(policy, &at.key("jwks"), problems) {
                    self.source = Source::Remote(remote);
                }
            }
            Source::Directory(path) => {
                // When it could not be opened, that is a problem of the action.
                if let Some(ring) = shared.rings.of(path) {
                    self.source = Source::Ring(ring);
                }
            }
            Source::Known(_) | Source::Remote(_) | Source::Ring(_) => {}
        }
        let elsewhere = match (&self.source, &self.revocations) {
            (Source::Ring(ring), _) => ring.elsewhere().cloned(),
            (_, Some(server)) => {
                shared.redis.open(server, &at.key("revocations"), problems).map(Elsewhere::new)
            }
            _ => None,
        };
        if let Some(session) = &mut self.session {
            session.load(loading, &at.key("session"), problems);
        }
        self.loaded = Some(Loaded {
            consumers: Arc::clone(loading.consumers),
            memory: Arc::clone(&shared.tokens),
            revoked: Arc::clone(&shared.revoked),
            elsewhere,
        });
    }

    async fn on_request(
        &self,
        scene: &Scene<'_>,
        exchange: &mut Exchange,
        request: &mut Request,
    ) -> Result<Flow, Failure> {
        for (header, _) in &self.headers {
            request.head.fields.remove(header);
        }
        if self.except.covers(exchange) {
            return Ok(Flow::Continue);
        }
        let now = (scene.world.unix(exchange.started).as_secs(), exchange.started);
        if let Some(done) = self.quick(now, exchange, request) {
            return done.map(|()| Flow::Continue);
        }
        // In a box, since it is rare: every exchange would carry its size.
        Box::pin(self.slow(now, exchange, request)).await.map(|()| Flow::Continue)
    }

    async fn on_response(&self, exchange: &mut Exchange, response: &mut Response) -> Result<(), Failure> {
        if let (Some(renew), Some(claims)) = (&self.renew, &exchange.claims)
            && let Some(token) = renewed(renew, claims, self.clock.unix().as_secs())
        {
            response.head.fields.set(&renew.header, token.as_bytes());
        }
        Ok(())
    }
}

impl Jwt {
    /// What is known without waiting: there is no token that could be looked at, or it is remembered.
    fn quick(
        &self,
        now: (u64, Instant),
        exchange: &mut Exchange,
        request: &mut Request,
    ) -> Option<Result<(), Failure>> {
        let Some(loaded) = &self.loaded else { return Some(Err(Failure::Internal)) };
        let verified = match self.lookup.find(&request.head) {
            Found::Nothing => return Some(Err(refuse(exchange, &self.challenges[0]))),
            Found::One(token) if token.len() <= LONGEST_TOKEN => {
                let asked = |one: &Arc<Verified>| loaded.elsewhere.is_none() || one.was_asked(now.0);
                self.recall(loaded, &token, now).filter(|_| self.session.is_none()).filter(asked)?
            }
            Found::One(_) | Found::Twice => return Some(Err(refuse(exchange, &self.challenges[1]))),
        };
        Some(self.let_in(loaded, self.not_revoked(loaded, verified), (exchange, request)))
    }

    async fn slow(
        &self,
        now: (u64, Instant),
        exchange: &mut Exchange,
        request: &mut Request,
    ) -> Result<(), Failure> {
        let loaded = self.loaded.as_ref().ok_or(Failure::Internal)?;
        let Found::One(token) = self.lookup.find(&request.head) else { return Err(Failure::Internal) };
        let verified = match self.recall(loaded, &token, now) {
            Some(verified) => Ok(verified),
            None => self.verify(loaded, &token, now).await?,
        };
        let mut verified = verified.and_then(|verified| self.not_revoked(loaded, verified));
        if let (Some(elsewhere), Ok(found)) = (&loaded.elsewhere, &verified)
            && self.is_revoked(elsewhere, found, now.0).await?
        {
            verified = Err(Rejected::Revoked);
        }
        if let (Some(session), Ok(_)) = (&self.session, &verified)
            && session.ask(&token, exchange, &request.head).await? == Known::No
        {
            return Err(refuse(exchange, &self.challenges[1]));
        }
        self.let_in(loaded, verified, (exchange, request))
    }

    fn let_in(
        &self,
        loaded: &Loaded,
        verified: Result<Arc<Verified>, Rejected>,
        (exchange, request): (&mut Exchange, &mut Request),
    ) -> Result<(), Failure> {
        let verified = match verified {
            Ok(verified) => verified,
            Err(rejected) => {
                let challenge = if rejected == Rejected::Expired { 2 } else { 1 };
                return Err(refuse(exchange, &self.challenges[challenge]));
            }
        };
        self.identify(loaded, &verified.claims, exchange)?;
        self.pass_on(&verified.claims, request);
        Ok(())
    }

    /// What tokens are checked by, as one number: another set of keys is another number.
    fn rules_number(&self, now: Instant) -> Option<u64> {
        match &self.source {
            Source::Remote(remote) => Some(self.number.wrapping_add(remote.present(now)?.1)),
            Source::Ring(ring) => Some(self.number.wrapping_add(ring.number())),
            _ => Some(self.number),
        }
    }

    fn recall(&self, loaded: &Loaded, token: &[u8], (unix, now): (u64, Instant)) -> Option<Arc<Verified>> {
        loaded.memory.recall(self.rules_number(now)?, token, unix)
    }

    /// Checks a token that is not remembered. The outer failure says that it could not be checked.
    async fn verify(
        &self,
        loaded: &Loaded,
        token: &[u8],
        (unix, now): (u64, Instant),
    ) -> Result<Result<Arc<Verified>, Rejected>, Failure> {
        let unverified = match Unverified::read(token, &self.rules.algorithms) {
            Ok(unverified) => unverified,
            Err(rejected) => return Ok(Err(rejected)),
        };
        let checked = match &self.source {
            Source::Known(keys) => unverified.verify(keys),
            Source::Ring(ring) => match unverified.verify(&ring.keys()) {
                Err(Rejected::UnknownKey) => unverified.verify(&ring.renewed(unix)),
                checked => checked,
            },
            Source::File(_) | Source::Wanted(_) | Source::Directory(_) => return Err(Failure::Internal),
            Source::Remote(remote) => {
                let (keys, number) = remote.keys(now).await.ok_or(Failure::AuthUnavailable)?;
                match unverified.verify(&keys) {
                    Err(Rejected::UnknownKey) => match remote.renewed(number, now).await {
                        Some((keys, _)) => unverified.verify(&keys),
                        None => Err(Rejected::UnknownKey),
                    },
                    checked => checked,
                }
            }
        };
        let verified = checked.and_then(|claims| {
            let end = self.rules.check(&claims, unix)?;
            let claims = match self.renew {
                Some(_) => Claims::with_source(&claims),
                None => Claims::of(&claims),
            };
            Ok(Arc::new(Verified::new(claims, end)))
        });
        if let (Ok(verified), Some(number)) = (&verified, self.rules_number(now)) {
            loaded.memory.remember(number, token, verified, unix);
        }
        Ok(verified)
    }

    fn not_revoked(&self, loaded: &Loaded, verified: Arc<Verified>) -> Result<Arc<Verified>, Rejected> {
        match verified.claims.get("jti").is_some_and(|id| loaded.revoked.holds(id)) {
            true => Err(Rejected::Revoked),
            false => Ok(verified),
        }
    }

    /// Whether another gateway took it back. Asked once a second, so that a token costs one question and not each
    /// request.
    async fn is_revoked(&self, elsewhere: &Elsewhere, found: &Verified, now: u64) -> Result<bool, Failure> {
        let Some(id) = found.claims.get("jti") else { return Ok(false) };
        if found.was_asked(now) {
            return Ok(false);
        }
        let revoked = elsewhere.holds(id).await.map_err(|_| Failure::AuthUnavailable)?;
        if !revoked {
            found.note_asked(now);
        }
        Ok(revoked)
    }

    fn identify(&self, loaded: &Loaded, claims: &Claims, exchange: &mut Exchange) -> Result<(), Failure> {
        exchange.claims = Some(claims.clone());
        let subject = claims.get(&self.consumer_claim);
        let consumer = subject.and_then(|subject| loaded.consumers.by_subject(claims.get("iss"), subject));
        match consumer {
            Some(consumer) => identify(exchange, consumer),
            None if self.strangers == Strangers::Refused => Err(Failure::Forbidden),
            None => Ok(()),
        }
    }

    fn pass_on(&self, claims: &Claims, request: &mut Request) {
        if self.token == Forwarded::Removed {
            self.lookup.remove(&mut request.head);
        }
        for (header, claim) in &self.headers {
            if let Some(value) = claims.get(claim) {
                // `Fields` replaces control bytes.
                request.head.fields.set(header, value.as_bytes());
            }
        }
    }
}

/// The same token with another end.
fn renewed(renew: &Renew, claims: &Claims, now: u64) -> Option<String> {
    let mut object: serde_json::Map<String, serde_json::Value> =
        serde_json::from_str(claims.source()?).ok()?;
    object.insert("exp".to_owned(), (now + renew.ttl.as_secs()).into());
    let payload = serde_json::to_vec(&object).ok()?;
    let header = URL_SAFE_NO_PAD.encode(br#"{"alg":"HS256","typ":"JWT"}"#);
    let message = format!("{header}.{}", URL_SAFE_NO_PAD.encode(payload));
    let key = jsonwebtoken::EncodingKey::from_secret(renew.secret.bytes());
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, token::Algorithm::HS256).ok()?;
    Some(format!("{message}.{signature}"))
}
