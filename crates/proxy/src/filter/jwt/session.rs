//! Tokens that Redis knows: presence, CSRF tokens, renewal.
//!
//! Promise: without an answer of Redis nobody comes in. One call for each request, which also renews.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sluice_http::{FieldName, RequestHead};

use crate::credentials::equal;
use crate::exchange::Exchange;
use crate::failure::Failure;
use crate::filter::Loading;
use crate::filter::except::Except;
use crate::problem::{At, Problems};
use crate::redis::{Redis, Script, Server};
use crate::value::Period;

/// Asks Redis for the key `prefix` + token.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The server: "redis://127.0.0.1:6379/0".
    pub redis: String,
    /// What stands before the token in the key. Default "".
    #[serde(default)]
    pub prefix: String,
    /// The key's lifetime is set to this with each request; a key without a lifetime keeps none. Default: it stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renew: Option<Period>,
    /// A header must hold the key's value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub csrf: Option<CsrfConfig>,
}

/// A header must hold the key's value, else 403: a page of another site can make a browser send its cookies, but
/// cannot know this.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct CsrfConfig {
    /// The header.
    pub header: String,
    /// Methods for which it is not asked for. Default: GET, HEAD and OPTIONS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub except_methods: Option<Vec<String>>,
    /// Paths for which it is not asked for.
    #[serde(default, skip_serializing_if = "Except::is_empty")]
    pub except: Except,
}

/// The checked session.
#[derive(Debug)]
pub(super) struct Session {
    server: Server,
    redis: Option<Arc<Redis>>,
    prefix: String,
    renew: Duration,
    csrf: Option<Csrf>,
}

#[derive(Debug)]
struct Csrf {
    header: FieldName,
    methods: Vec<String>,
    except: Except,
}

/// What became of the question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// The token is there.
    Yes,
    /// It is not.
    No,
}

/// The value; and, where there is one, a new lifetime.
static ASK: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "local v = redis.call('GET', KEYS[1])
         if v and ARGV[1] ~= '0' and redis.call('PTTL', KEYS[1]) > 0 then redis.call('PEXPIRE', KEYS[1], ARGV[1]) end
         return v",
    )
});

impl Config {
    pub(super) fn check(&self, at: &At, problems: &mut Problems) -> Option<Session> {
        let server = Server::check(&self.redis, &at.key("redis"), problems);
        let csrf = self.csrf.as_ref().map(|csrf| csrf.check(&at.key("csrf"), problems).ok_or(()));
        if self.renew.is_some_and(|period| period.0.as_millis() == 0) {
            problems.add(&at.key("renew"), "a lifetime of zero would remove the key");
        }
        Some(Session {
            server: server?,
            redis: None,
            prefix: self.prefix.clone(),
            renew: self.renew.map(|period| period.0).unwrap_or_default(),
            csrf: csrf.transpose().ok()?,
        })
    }
}

impl CsrfConfig {
    fn check(&self, at: &At, problems: &mut Problems) -> Option<Csrf> {
        self.except.check(&at.key("except"), problems);
        let Some(header) = FieldName::new(&self.header) else {
            problems.add(&at.key("header"), format!("`{}` is not a header name", self.header));
            return None;
        };
        let usual = || ["GET", "HEAD", "OPTIONS"].map(str::to_owned).into();
        Some(Csrf {
            header,
            methods: self.except_methods.clone().unwrap_or_else(usual),
            except: self.except.clone(),
        })
    }
}

impl Session {
    pub(super) fn load(&mut self, loading: &Loading<'_>, at: &At, problems: &mut Problems) {
        self.redis = loading.shared.redis.open(&self.server, &at.key("redis"), problems);
    }

    /// Whether Redis knows the token.
    ///
    /// # Errors
    /// [`Failure::AuthUnavailable`]; [`Failure::Forbidden`] without the CSRF token that stands there.
    pub(super) async fn ask(
        &self,
        token: &[u8],
        exchange: &Exchange,
        head: &RequestHead,
    ) -> Result<Known, Failure> {
        let redis = self.redis.as_ref().ok_or(Failure::Internal)?;
        let key = [self.prefix.as_bytes(), token].concat();
        let mut script = ASK.key(key);
        script.arg(self.renew.as_millis() as u64);
        let found: Option<Vec<u8>> = redis.run(&script).await.map_err(|_| Failure::AuthUnavailable)?;
        let Some(value) = found else { return Ok(Known::No) };
        let Some(csrf) = &self.csrf else { return Ok(Known::Yes) };
        let method = head.method_text();
        let exempt =
            csrf.methods.iter().any(|one| one.eq_ignore_ascii_case(method)) || csrf.except.covers(exchange);
        let shown =
            || head.fields.get(&csrf.header).is_some_and(|shown| !value.is_empty() && equal(shown, &value));
        if exempt || shown() { Ok(Known::Yes) } else { Err(Failure::Forbidden) }
    }
}
