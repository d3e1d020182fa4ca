//! The `forward_auth` filter: another service decides who comes in.
//!
//! Promise: headers that the service's answer fills are never the client's own; without an answer nobody comes in,
//! unless the document says so; a question carries no body.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sluice_http::{Body, FieldName, NameId, Request, RequestHead, Response};

use super::except::Except;
use super::{Filter, Flow, Known, Loading};
use crate::closest::closest;
use crate::exchange::Exchange;
use crate::failure::Failure;
use crate::problem::{At, Problems};
use crate::scene::Scene;
use crate::upstream::call;
use crate::value::Period;

/// Asks a service about each request: with a GET that carries X-Forwarded-Method, -Uri, -Host, -Proto and -For. An
/// answer with a status of 2xx lets the request in; any other below 500 goes to the client as it is.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The upstream that is asked.
    pub upstream: String,
    /// What it is asked for: "/verify".
    pub path: String,
    /// Headers of the request that it is shown. Default: Authorization and Cookie.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_headers: Option<Vec<String>>,
    /// Headers of its answer that become the request's: X-User. The client's own are removed, also on exempt paths.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub response_headers: Vec<String>,
    /// How long it may take. Default "5s".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Period>,
    /// What happens when it gives no answer, or one of 500 and above. Default "deny".
    #[serde(default)]
    pub on_failure: OnFailure,
    /// Remembers who was let in. Default: it is asked each time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<CacheConfig>,
    /// Paths for which it is not asked.
    #[serde(default, skip_serializing_if = "Except::is_empty")]
    pub except: Except,
}

/// What happens without an answer.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum OnFailure {
    /// 503.
    #[default]
    Deny,
    /// The request is let in, without the headers of an answer.
    Allow,
}

/// Remembers answers that let in: for the same method, host, target and values of `key`. A request with none of the
/// key's headers is always asked about.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct CacheConfig {
    /// For how long.
    pub ttl: Period,
    /// Headers of the request whose values tell clients apart. Default: `request_headers`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub key: Vec<String>,
}

/// The most answers that are remembered.
const ROOM: usize = 4096;

/// The checked filter.
#[derive(Debug)]
pub struct ForwardAuth {
    upstream: String,
    /// None until it is found.
    index: Option<usize>,
    path: String,
    shown: Vec<FieldName>,
    taken: Vec<FieldName>,
    timeout: Duration,
    on_failure: OnFailure,
    cache: Option<Cache>,
    except: Except,
}

/// What is remembered, until when.
type Remembered = HashMap<Box<[u8]>, (Instant, Taken)>;

/// What all filters of a process remember, by route and configuration: a change of the document that is none of theirs
/// leaves it.
#[derive(Debug, Default)]
pub struct Answers(Mutex<HashMap<Identity, Weak<Mutex<Remembered>>>>);

/// A route's name, and the configuration as text.
type Identity = (String, String);

impl Answers {
    fn of(&self, route: &str, config: &str) -> Arc<Mutex<Remembered>> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, answers| answers.strong_count() > 0);
        let place = known.entry((route.to_owned(), config.to_owned())).or_default();
        place.upgrade().unwrap_or_else(|| {
            let answers = Arc::default();
            *place = Arc::downgrade(&answers);
            answers
        })
    }
}

/// Fields of an answer.
type Taken = Arc<[(FieldName, Box<[u8]>)]>;

#[derive(Debug)]
struct Cache {
    ttl: Duration,
    key: Vec<FieldName>,
    /// The filter's configuration.
    identity: String,
    /// Its own until it is loaded.
    answers: Arc<Mutex<Remembered>>,
}

impl Filter for ForwardAuth {
    type Config = Config;

    const NAME: &'static str = "forward_auth";

    fn build(config: &Config, at: &At, problems: &mut Problems) -> Option<ForwardAuth> {
        let found = problems.iter().count();
        if !config.path.starts_with('/') || config.path.bytes().any(|byte| byte <= 0x20 || byte >= 0x7f) {
            problems.add(&at.key("path"), format!("`{}` is not a path that can be asked for", config.path));
        }
        let timeout = config.timeout.map_or(Duration::from_secs(5), |period| period.0);
        if timeout.is_zero() {
            problems.add(&at.key("timeout"), "a time of zero would fail every question");
        }
        let mut names = |key: &str, list: &[String]| -> Vec<FieldName> {
            let at = at.key(key);
            let name = |(index, text): (usize, &String)| {
                let name = FieldName::new(text);
                if name.is_none() {
                    problems.add(&at.index(index), format!("`{text}` is not a header name"));
                }
                name
            };
            list.iter().enumerate().filter_map(name).collect()
        };
        let usual = ["Authorization", "Cookie"].map(str::to_owned);
        let shown = names("request_headers", config.request_headers.as_deref().unwrap_or(&usual));
        let taken = names("response_headers", &config.response_headers);
        let cache = config.cache.as_ref().map(|cache| {
            let key = if cache.key.is_empty() { shown.clone() } else { names("cache", &cache.key) };
            let identity = serde_json::to_string(config).unwrap_or_default();
            Cache { ttl: cache.ttl.0, key, identity, answers: Arc::default() }
        });
        config.except.check(&at.key("except"), problems);
        (problems.iter().count() == found).then(|| ForwardAuth {
            upstream: config.upstream.clone(),
            index: None,
            path: config.path.clone(),
            shown,
            taken,
            timeout,
            on_failure: config.on_failure,
            cache,
            except: config.except.clone(),
        })
    }

    fn find(&mut self, known: &Known<'_>, at: &At, problems: &mut Problems) {
        let names = || known.upstreams.iter().copied();
        self.index = names().position(|name| name == self.upstream);
        if self.index.is_none() {
            let message = format!("there is no upstream `{}`", self.upstream);
            let problem = problems.add(&at.key("upstream"), message);
            if let Some(meant) = closest(&self.upstream, names()) {
                problem.hint(format!("did you mean `{meant}`?"));
            }
        }
    }

    fn load(&mut self, loading: &Loading<'_>, _at: &At, _problems: &mut Problems) {
        if let Some(cache) = &mut self.cache {
            cache.answers = loading.shared.answers.of(loading.route, &cache.identity);
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

impl ForwardAuth {
    async fn decide(
        &self,
        scene: &Scene<'_>,
        exchange: &mut Exchange,
        request: &mut Request,
    ) -> Result<Flow, Failure> {
        for name in &self.taken {
            request.head.fields.remove(name);
        }
        if self.except.covers(exchange) {
            return Ok(Flow::Continue);
        }
        let key = self.cache.as_ref().and_then(|cache| cache.key(&request.head));
        let known = self
            .cache
            .as_ref()
            .zip(key.as_ref())
            .and_then(|(cache, key)| cache.recall(key, exchange.started));
        let taken = match known {
            Some(taken) => taken,
            None => match self.ask(scene, exchange, &request.head).await {
                Ok(answer) if (200..300).contains(&answer.head.status) => {
                    let taken = self.take(&answer);
                    if let (Some(cache), Some(key)) = (&self.cache, key) {
                        cache.remember(key, exchange.started, &taken);
                    }
                    taken
                }
                Ok(answer) if answer.head.status < 500 => return Ok(Flow::Answer(answer)),
                Ok(_) | Err(_) if self.on_failure == OnFailure::Allow => return Ok(Flow::Continue),
                Ok(_) | Err(_) => return Err(Failure::AuthUnavailable),
            },
        };
        for (name, value) in taken.iter() {
            request.head.fields.append(name, value);
        }
        Ok(Flow::Continue)
    }

    async fn ask(
        &self,
        scene: &Scene<'_>,
        exchange: &Exchange,
        head: &RequestHead,
    ) -> Result<Response, Failure> {
        let mut question = RequestHead::new("GET", &self.path);
        let fields = &mut question.fields;
        for name in &self.shown {
            for value in head.fields.get_all(name) {
                fields.append(name, value);
            }
        }
        let client = exchange.client.address.to_canonical().to_string();
        fields.set(NameId::XForwardedFor, client.as_bytes());
        fields.set(NameId::XForwardedHost, head.authority().as_bytes());
        fields.set(NameId::XForwardedProto, exchange.client.scheme.text().as_bytes());
        for (name, value) in
            [("X-Forwarded-Method", head.method_text()), ("X-Forwarded-Uri", head.path_and_query())]
        {
            if let Some(name) = FieldName::new(name) {
                fields.set(&name, value.as_bytes());
            }
        }
        fields.set(NameId::XRequestId, exchange.request_id.as_bytes());
        let mut question = Request { head: question, body: Body::Empty };
        let index = self.index.ok_or(Failure::Internal)?;
        call::ask(scene, index, (&exchange.facts(head), &mut question), self.timeout).await
    }

    fn take(&self, answer: &Response) -> Taken {
        let fields = &answer.head.fields;
        let values = |name: &FieldName| -> Vec<(FieldName, Box<[u8]>)> {
            fields.get_all(name).map(|value| (name.clone(), value.into())).collect()
        };
        self.taken.iter().flat_map(values).collect()
    }
}

impl Cache {
    /// What answers are remembered by; None: nothing tells this client from others.
    fn key(&self, head: &RequestHead) -> Option<Box<[u8]>> {
        let mut key = Vec::with_capacity(256);
        let mut part = |bytes: &[u8]| {
            key.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
            key.extend_from_slice(bytes);
        };
        part(head.method_text().as_bytes());
        part(head.authority().as_bytes());
        part(head.path_and_query().as_bytes());
        let mut known = false;
        for (name, index) in self.key.iter().zip(0_u64..) {
            for value in head.fields.get_all(name) {
                known = true;
                part(&index.to_le_bytes());
                part(value);
            }
        }
        known.then(|| key.into())
    }

    fn recall(&self, key: &[u8], now: Instant) -> Option<Taken> {
        let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        let (until, taken) = answers.get(key)?;
        (*until > now).then(|| Arc::clone(taken))
    }

    fn remember(&self, key: Box<[u8]>, now: Instant, taken: &Taken) {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        if answers.len() >= ROOM {
            answers.retain(|_, (until, _)| *until > now);
            if answers.len() >= ROOM {
                answers.clear();
            }
        }
        answers.insert(key, (now + self.ttl, Arc::clone(taken)));
    }
}
