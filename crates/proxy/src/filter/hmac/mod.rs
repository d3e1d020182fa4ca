//! The `hmac` filter: requests signed with a shared secret.
//!
//! The shape is that of Kong's hmac-auth and of draft-cavage-http-signatures:
//!
//! ```text
//! Authorization: hmac username="key-1", algorithm="hmac-sha256", headers="@request-target host date", signature="BASE64"
//! Date: Sun, 06 Nov 1994 08:49:37 GMT
//! ```
//!
//! What is signed: for each name in `headers`, `name: value`, lines joined by a line feed. `@request-target` (or
//! `(request-target)`) is the method in lower case, a space, and path with query as they were sent; Kong's
//! `request-line` is the first line of an HTTP/1.1 request.
//!
//! Promise: a request is valid for the time around its date alone, and says what it is for; signatures are compared in
//! constant time; an unknown key costs what a wrong signature does.

mod replay;

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256, Sha512};
use sluice_http::{Body, FieldName, NameId, Request, RequestHead};

use super::challenge::{realm, refuse};
use super::except::Except;
use super::lookup::Forwarded;
use super::{Filter, Flow, Known, Loading};
use crate::consumer::{Consumer, Consumers, identify};
use crate::credentials::equal;
use crate::exchange::Exchange;
use crate::failure::Failure;
use crate::http_date;
use crate::problem::{At, Problems};
use crate::scene::Scene;
use crate::value::{ByteSize, Period};
use crate::whole_body::{self, Broken};
pub use replay::{Config as ReplayConfig, Signatures};
use replay::{Mark, Replay};

/// Lets in consumers whose requests are signed with one of their `hmac_keys`. Others get 401. The secret never
/// travels; a copied request is valid until `max_skew` has passed, unless `replay` refuses it.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// How far a request's Date (or X-Date, for clients that cannot set Date) may be from now. Default "5m".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_skew: Option<Period>,
    /// What must be signed beside the date. Default ["@request-target", "host"].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signed: Option<Vec<String>>,
    /// Refuses a request that was there before. Default: a copy passes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replay: Option<ReplayConfig>,
    /// Whether the body must be signed too: a signed Digest header ("SHA-256=BASE64") that is right. Such bodies are
    /// kept in memory whole. Default false.
    pub body: bool,
    /// The longest body that is then accepted; a longer one gets 413. Default "1MiB".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_body: Option<ByteSize>,
    /// Whether the signature is removed before the request goes on. Default false.
    pub hide_credentials: bool,
    /// Named in the challenge. Default "restricted".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub realm: Option<String>,
    /// Paths for which no signature is asked for.
    #[serde(skip_serializing_if = "Except::is_empty")]
    pub except: Except,
}

/// The checked filter.
#[derive(Debug)]
pub struct HmacAuth {
    max_skew: Duration,
    signed: Vec<String>,
    replay: Option<Replay>,
    body: Option<usize>,
    signature: Forwarded,
    except: Except,
    challenge: Arc<str>,
    /// None until they are known: then nobody is let in.
    consumers: Option<Arc<Consumers>>,
}

/// The names for the method with the target.
const TARGETS: [&str; 3] = ["@request-target", "(request-target)", "request-line"];

impl Filter for HmacAuth {
    type Config = Config;

    const NAME: &'static str = "hmac";

    fn build(config: &Config, at: &At, problems: &mut Problems) -> Option<HmacAuth> {
        let found = problems.iter().count();
        let max_skew = config.max_skew.map_or(Duration::from_secs(300), |period| period.0);
        if max_skew < Duration::from_secs(1) {
            problems.add(&at.key("max_skew"), "clocks differ by more than that");
        }
        let usual = || ["@request-target", "host"].map(str::to_owned).into();
        let signed: Vec<String> = config.signed.clone().unwrap_or_else(usual);
        for (index, name) in signed.iter().enumerate() {
            if !TARGETS.contains(&name.as_str()) && FieldName::new(name).is_none() {
                let problem =
                    problems.add(&at.key("signed").index(index), format!("`{name}` is not a header name"));
                problem.hint("@request-target is the method with the path and the query");
            }
        }
        if config.max_body.is_some() && !config.body {
            problems.add(&at.key("max_body"), "`max_body` means nothing without `body = true`");
        }
        config.except.check(&at.key("except"), problems);
        let realm = realm(config.realm.as_ref(), at, problems);
        let cap = config.max_body.map_or(1 << 20, |size| usize::try_from(size.0).unwrap_or(usize::MAX));
        let replay = config.replay.as_ref().map(|replay| replay.check(&at.key("replay"), problems).ok_or(()));
        let replay = replay.transpose().ok()?;
        (problems.iter().count() == found).then(|| HmacAuth {
            max_skew,
            signed,
            replay,
            body: config.body.then_some(cap),
            signature: Forwarded::unless(config.hide_credentials),
            except: config.except.clone(),
            challenge: format!("hmac realm={realm}").into(),
            consumers: None,
        })
    }

    fn find(&mut self, known: &Known<'_>, at: &At, problems: &mut Problems) {
        if !known.consumers.has_hmac_keys() {
            let problem = problems.add(at, "no consumer signs requests: nobody would be let in");
            problem.hint("[consumers.NAME] hmac_keys");
        }
        self.consumers = Some(Arc::clone(known.consumers));
    }

    fn load(&mut self, loading: &Loading<'_>, at: &At, problems: &mut Problems) {
        if let Some(replay) = &mut self.replay {
            replay.load(&self.challenge, loading, &at.key("replay"), problems);
        }
    }

    async fn on_request(
        &self,
        scene: &Scene<'_>,
        exchange: &mut Exchange,
        request: &mut Request,
    ) -> Result<Flow, Failure> {
        // In a box: few routes have it, and every exchange would carry its size.
        Box::pin(self.decide(scene, exchange, request)).await
    }
}

impl HmacAuth {
    async fn decide(
        &self,
        scene: &Scene<'_>,
        exchange: &mut Exchange,
        request: &mut Request,
    ) -> Result<Flow, Failure> {
        if self.except.covers(exchange) {
            return Ok(Flow::Continue);
        }
        let name = exchange.role.credentials();
        let now = scene.world.unix(exchange.started).as_secs();
        let Some(Signed { consumer, mark, until }) = self.verified(&request.head, name, now) else {
            return Err(refuse(exchange, &self.challenge));
        };
        if let Some(cap) = self.body
            && !self.is_whole(request, cap).await?
        {
            return Err(refuse(exchange, &self.challenge));
        }
        identify(exchange, &consumer)?;
        // Last: what is refused otherwise may be sent again.
        if let Some(replay) = &self.replay
            && !replay.is_first(&mark, (now, until)).await?
        {
            return Err(refuse(exchange, &self.challenge));
        }
        if name == NameId::ProxyAuthorization || self.signature == Forwarded::Removed {
            request.head.fields.remove(name);
        }
        Ok(Flow::Continue)
    }
}

/// A request whose signature is right.
struct Signed {
    consumer: Arc<Consumer>,
    /// Stands for the signature.
    mark: Mark,
    /// The last second in which its date is not too old.
    until: u64,
}

/// What stands in Authorization.
struct Parameters<'a> {
    key: &'a str,
    algorithm: &'a str,
    names: &'a str,
    signature: Vec<u8>,
}

impl<'a> Parameters<'a> {
    fn read(line: &'a [u8]) -> Option<Parameters<'a>> {
        let line = std::str::from_utf8(line).ok()?;
        let (scheme, rest) = line.split_once(' ')?;
        if !scheme.eq_ignore_ascii_case("hmac") && !scheme.eq_ignore_ascii_case("signature") {
            return None;
        }
        let (mut key, mut algorithm, mut names, mut signature) = (None, None, None, None);
        let mut rest = rest.trim();
        while !rest.is_empty() {
            let (name, after) = rest.split_once("=\"")?;
            let (value, after) = after.split_once('"')?;
            let place = match name.trim() {
                "username" | "keyId" => &mut key,
                "algorithm" => &mut algorithm,
                "headers" => &mut names,
                "signature" => &mut signature,
                _ => return None,
            };
            if place.replace(value).is_some() {
                return None;
            }
            rest = after.trim_start();
            rest = rest.strip_prefix(',').map_or(rest, str::trim_start);
        }
        let signature = STANDARD.decode(signature?).ok()?;
        Some(Parameters { key: key?, algorithm: algorithm?, names: names?, signature })
    }
}

impl HmacAuth {
    fn verified(&self, head: &RequestHead, name: NameId, now: u64) -> Option<Signed> {
        let mut lines = head.fields.get_all(name);
        let parameters = lines.next().filter(|_| lines.next().is_none()).and_then(Parameters::read)?;
        let names: Vec<&str> = parameters.names.split(' ').filter(|name| !name.is_empty()).collect();
        let date = ["x-date", "date"]
            .into_iter()
            .find(|date| names.iter().any(|name| name.eq_ignore_ascii_case(date)))?;
        let sent = http_date::parse(single(head, date)?)?;
        if sent.abs_diff(now) > self.max_skew.as_secs() {
            return None;
        }
        let is_signed = |wanted: &str| {
            let target = TARGETS.contains(&wanted);
            names.iter().any(|name| name.eq_ignore_ascii_case(wanted) || (target && TARGETS.contains(name)))
        };
        let digest = self.body.map(|_| "digest");
        if !self.signed.iter().map(String::as_str).chain(digest).all(is_signed) {
            return None;
        }
        let text = text(head, &names)?;
        let known = self.consumers.as_ref()?.by_hmac_key(parameters.key);
        // Computed for an unknown key too.
        let secret = known.map_or(&b"nobody has this key"[..], |(_, secret)| secret.bytes());
        let right = match parameters.algorithm {
            "hmac-sha256" => equal(&sign::<Hmac<Sha256>>(secret, &text)?, &parameters.signature),
            "hmac-sha512" => equal(&sign::<Hmac<Sha512>>(secret, &text)?, &parameters.signature),
            _ => false,
        };
        let (consumer, _) = known.filter(|_| right)?;
        let length = (parameters.key.len() as u64).to_le_bytes();
        let parts = Sha256::new().chain_update(length).chain_update(parameters.key);
        let digest = parts.chain_update(&parameters.signature).finalize();
        let mut mark = Mark::default();
        mark.iter_mut().zip(digest).for_each(|(byte, from)| *byte = from);
        Some(Signed { consumer: Arc::clone(consumer), mark, until: sent + self.max_skew.as_secs() })
    }

    /// Whether the body is the one whose digest was signed; it stays in the request.
    async fn is_whole(&self, request: &mut Request, cap: usize) -> Result<bool, Failure> {
        let digest = single(&request.head, "digest").and_then(|value| {
            let (word, digest) = value.split_at_checked("SHA-256=".len())?;
            STANDARD.decode(digest).ok().filter(|_| word.eq_ignore_ascii_case(b"SHA-256="))
        });
        let Some(digest) = digest else { return Ok(false) };
        let body = whole_body::take(&mut request.body, cap).await.map_err(|broken| match broken {
            Broken::TooLong => Failure::BodyTooLarge,
            Broken::Body(error) => crate::upstream::send::client_failure(error),
        })?;
        let right = equal(&Sha256::digest(&body), &digest);
        request.body = if body.is_empty() { Body::Empty } else { Body::Full(body) };
        Ok(right)
    }
}

fn sign<M: Mac + KeyInit>(secret: &[u8], text: &[u8]) -> Option<Vec<u8>> {
    let mac = <M as KeyInit>::new_from_slice(secret).ok()?;
    Some(mac.chain_update(text).finalize().into_bytes().to_vec())
}

/// The value of a field that is there once.
fn single<'a>(head: &'a RequestHead, name: &str) -> Option<&'a [u8]> {
    let name = FieldName::new(name)?;
    let mut values =
        head.fields.iter().filter(|(_, known, _)| known.eq_ignore_ascii_case(name.as_str().as_bytes()));
    let (_, _, value) = values.next()?;
    values.next().is_none().then_some(value)
}

/// What is signed.
fn text(head: &RequestHead, names: &[&str]) -> Option<Vec<u8>> {
    let mut text = Vec::with_capacity(256);
    for name in names {
        if !text.is_empty() {
            text.push(b'\n');
        }
        let target = head.path_and_query();
        match *name {
            "request-line" => {
                text.extend_from_slice(format!("{} {target} HTTP/1.1", head.method_text()).as_bytes());
            }
            name if TARGETS.contains(&name) => {
                let method = head.method_text().to_ascii_lowercase();
                text.extend_from_slice(format!("{name}: {method} {target}").as_bytes());
            }
            name => {
                text.extend_from_slice(name.to_ascii_lowercase().as_bytes());
                text.extend_from_slice(b": ");
                match name.eq_ignore_ascii_case("host") {
                    // An HTTP/2 request names it in another way.
                    true => text.extend_from_slice(head.authority().as_bytes()),
                    false => text.extend_from_slice(single(head, name)?),
                }
            }
        }
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filter::fixture;

    const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const SECRET: &str = "0123456789abcdef";

    fn filter(toml: &str) -> HmacAuth {
        let config: Config = toml_edit::de::from_str(toml).unwrap();
        let mut problems = Problems::new();
        let mut filter = HmacAuth::build(&config, &At::root(), &mut problems).unwrap();
        let consumers = fixture::consumers(&format!("[anna]\nhmac_keys = {{ k1 = '{SECRET}' }}"));
        let known = fixture::known(&consumers);
        filter.find(&known, &At::root(), &mut problems);
        assert!(problems.is_empty(), "{problems:?}");
        filter
    }

    fn request(names: &str, key: &str, signed: &str) -> Request {
        let mut request = fixture::request("POST", "/a?b=1");
        request.head.fields.append(NameId::Date, DATE.as_bytes());
        let signature = STANDARD.encode(sign::<Hmac<Sha256>>(SECRET.as_bytes(), signed.as_bytes()).unwrap());
        let line = format!(
            "hmac username=\"{key}\", algorithm=\"hmac-sha256\", headers=\"{names}\", signature=\"{signature}\""
        );
        request.head.fields.append(NameId::Authorization, line.as_bytes());
        request
    }

    fn who(filter: &HmacAuth, request: &Request, now: u64) -> Option<String> {
        filter.verified(&request.head, NameId::Authorization, now).map(|one| one.consumer.name.to_string())
    }

    const NAMES: &str = "date @request-target host";
    const SIGNED: &str =
        "date: Sun, 06 Nov 1994 08:49:37 GMT\n@request-target: post /a?b=1\nhost: shop.example";
    const NOW: u64 = 784_111_777;

    #[test]
    fn a_request_that_is_signed_as_it_is_lets_in() {
        let filter = filter("");
        let good = request(NAMES, "k1", SIGNED);
        assert_eq!(who(&filter, &good, NOW).as_deref(), Some("anna"));
        assert_eq!(who(&filter, &good, NOW + 300).as_deref(), Some("anna"));
        for late in [NOW + 301, NOW - 301] {
            assert_eq!(who(&filter, &good, late), None);
        }
        let line = "date: Sun, 06 Nov 1994 08:49:37 GMT\nPOST /a?b=1 HTTP/1.1\nhost: shop.example";
        assert!(
            who(&filter, &request("date request-line host", "k1", line), NOW).is_some(),
            "Kong's own form"
        );
        for (names, key, signed) in [
            (NAMES, "k2", SIGNED),
            (NAMES, "k1", &*SIGNED.replace("b=1", "b=2")),
            ("date host", "k1", "date: Sun, 06 Nov 1994 08:49:37 GMT\nhost: shop.example"),
            ("@request-target host", "k1", "@request-target: post /a?b=1\nhost: shop.example"),
            ("date @request-target host x-none", "k1", SIGNED),
        ] {
            assert_eq!(who(&filter, &request(names, key, signed), NOW), None, "{names} {key}");
        }
        let mut twice = request(NAMES, "k1", SIGNED);
        twice.head.fields.append(NameId::Date, DATE.as_bytes());
        assert_eq!(who(&filter, &twice, NOW), None);
        for line in
            ["", "hmac", "hmac x", "hmac username=\"a", "Basic abc", "hmac username=\"k1\",username=\"k1\""]
        {
            let mut request = fixture::request("GET", "/");
            request.head.fields.append(NameId::Authorization, line.as_bytes());
            assert_eq!(who(&filter, &request, NOW), None, "{line}");
        }
    }

    #[tokio::test(flavor = "local")]
    async fn a_body_is_checked_where_it_is_asked_for() {
        let filter = filter("body = true\nmax_body = '8B'");
        let digest = format!("SHA-256={}", STANDARD.encode(Sha256::digest(b"hello")));
        for (body, expected) in [
            ("hello", Ok(true)),
            ("hellO", Ok(false)),
            ("", Ok(false)),
            ("too long for it", Err(Failure::BodyTooLarge)),
        ] {
            let mut request = fixture::request("POST", "/");
            request.head.fields.append(&fixture::name("digest"), digest.as_bytes());
            request.body = Body::Full(body.into());
            assert_eq!(filter.is_whole(&mut request, 8).await, expected, "{body}");
            if expected.is_ok() && !body.is_empty() {
                assert!(matches!(&request.body, Body::Full(bytes) if bytes == body));
            }
        }
        assert_eq!(who(&filter, &request(NAMES, "k1", SIGNED), NOW), None, "the digest is not signed");
    }
}
