//! The `api_key` filter: a key that a machine carries.
//!
//! Promise: the document holds hashes only; a key that nobody has costs what one costs that somebody has; a key that
//! is there twice is none.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sluice_http::Request;

use super::challenge::{realm, refuse};
use super::except::Except;
use super::lookup::{Forwarded, Found, Lookup, PlaceConfig};
use super::{Filter, Flow, Known};
use crate::consumer::{Consumers, identify};
use crate::credentials::{KeyForm, LONGEST_KEY};
use crate::exchange::Exchange;
use crate::failure::Failure;
use crate::problem::{At, Problems};
use crate::scene::Scene;

/// Lets in consumers by their API keys (`api_keys` of a consumer). Others get 401. Use it behind TLS.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where a key may stand, in the order looked at. Default: the header X-API-Key.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub lookup: Vec<PlaceConfig>,
    /// What keys made by `sluice make-key --prefix` begin with: anything else is refused by its look, before it is
    /// hashed, and so is a key with a typing error. Default: keys look as they like.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// Whether the key is removed before the request goes on. Default false.
    pub hide_credentials: bool,
    /// Named in the challenge. Default "restricted".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub realm: Option<String>,
    /// Paths for which no key is asked for.
    #[serde(skip_serializing_if = "Except::is_empty")]
    pub except: Except,
}

/// The checked filter.
#[derive(Debug)]
pub struct ApiKey {
    lookup: Lookup,
    form: Option<KeyForm>,
    key: Forwarded,
    except: Except,
    challenge: Arc<str>,
    /// None until they are known: then nobody is let in.
    consumers: Option<Arc<Consumers>>,
}

impl Filter for ApiKey {
    type Config = Config;

    const NAME: &'static str = "api_key";

    fn build(config: &Config, at: &At, problems: &mut Problems) -> Option<ApiKey> {
        let found = problems.iter().count();
        let lookup =
            Lookup::check(&config.lookup, &[PlaceConfig::header("X-API-Key")], &at.key("lookup"), problems);
        let form = (config.prefix.as_ref())
            .map(|prefix| problems.take(&at.key("prefix"), KeyForm::new(prefix)).ok_or(()));
        config.except.check(&at.key("except"), problems);
        let realm = realm(config.realm.as_ref(), at, problems);
        let (lookup, form) = (lookup?, form.transpose().ok()?);
        (problems.iter().count() == found).then(|| ApiKey {
            lookup,
            form,
            key: Forwarded::unless(config.hide_credentials),
            except: config.except.clone(),
            challenge: format!("Key realm={realm}").into(),
            consumers: None,
        })
    }

    fn find(&mut self, known: &Known<'_>, at: &At, problems: &mut Problems) {
        if !known.consumers.has_keys() {
            problems
                .add(at, "no consumer has an API key: nobody would be let in")
                .hint("[consumers.NAME] api_keys");
        }
        self.consumers = Some(Arc::clone(known.consumers));
    }

    async fn on_request(
        &self,
        _scene: &Scene<'_>,
        exchange: &mut Exchange,
        request: &mut Request,
    ) -> Result<Flow, Failure> {
        if self.except.covers(exchange) {
            return Ok(Flow::Continue);
        }
        let consumer = match self.lookup.find(&request.head) {
            Found::One(key) if key.len() <= LONGEST_KEY => {
                let looks_right = self.form.as_ref().is_none_or(|form| form.fits(&key));
                let consumers = self.consumers.as_ref().filter(|_| looks_right);
                consumers.and_then(|consumers| consumers.by_key(&key)).map(Arc::clone)
            }
            _ => None,
        };
        match consumer {
            Some(consumer) => identify(exchange, &consumer)?,
            None => return Err(refuse(exchange, &self.challenge)),
        }
        if self.key == Forwarded::Removed {
            self.lookup.remove(&mut request.head);
        }
        Ok(Flow::Continue)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filter::fixture;

    /// Of "key".
    const HASH: &str = "sha256:2c70e12b7a0646f92279f427c7b38e7334d8e5389cff167a1dc30e73f826b683";

    fn build(toml: &str, consumers: &str) -> Result<ApiKey, Vec<String>> {
        let config: Config = toml_edit::de::from_str(toml).unwrap();
        let mut problems = Problems::new();
        let at = At::root().key("api_key");
        let mut built = ApiKey::build(&config, &at, &mut problems);
        let consumers = fixture::consumers(consumers);
        if let Some(filter) = &mut built {
            let known = fixture::known(&consumers);
            filter.find(&known, &at, &mut problems);
        }
        let told = || problems.iter().map(|problem| format!("{}: {}", problem.at, problem.message)).collect();
        built.filter(|_| problems.is_empty()).ok_or_else(told)
    }

    async fn ask(
        filter: &ApiKey,
        target: &str,
        fields: &[(&str, &str)],
    ) -> (Result<String, Failure>, Request) {
        let mut exchange = fixture::exchange(target.split('?').next().unwrap());
        let mut request = fixture::request("GET", target);
        for (name, value) in fields {
            request.head.fields.append(&fixture::name(name), value.as_bytes());
        }
        let flow = filter.on_request(&fixture::stage().scene(), &mut exchange, &mut request).await;
        let name = || exchange.consumer.as_ref().map_or("-".to_owned(), |one| one.name.to_string());
        (flow.map(|_| name()), request)
    }

    #[tokio::test(flavor = "local")]
    async fn a_consumer_is_known_by_its_key_and_nobody_else_is() {
        let filter = build("except = ['/open/*']", &format!("[anna]\napi_keys = ['{HASH}']")).unwrap();
        let no = Err(Failure::Unauthenticated);
        for (target, fields, expected) in [
            ("/", &[("X-API-Key", "key")][..], Ok("anna".to_owned())),
            ("/", &[("x-api-key", " key ")], Ok("anna".to_owned())),
            ("/", &[], no.clone()),
            ("/", &[("X-API-Key", "")], no.clone()),
            ("/", &[("X-API-Key", "Key")], no.clone()),
            ("/", &[("X-API-Key", "key"), ("X-API-Key", "key")], no.clone()),
            ("/?api_key=key", &[], no),
            ("/open/a", &[], Ok("-".to_owned())),
        ] {
            assert_eq!(ask(&filter, target, fields).await.0, expected, "{target} {fields:?}");
        }
    }

    #[tokio::test(flavor = "local")]
    async fn a_key_goes_on_unless_it_is_hidden() {
        let anna = format!("[anna]\napi_keys = ['{HASH}']");
        let filter = build("lookup = [{ query = 'k' }]", &anna).unwrap();
        assert_eq!(ask(&filter, "/?k=key", &[]).await.1.head.target(), "/?k=key");
        let filter = build("lookup = [{ query = 'k' }]\nhide_credentials = true", &anna).unwrap();
        assert_eq!(ask(&filter, "/?k=key", &[]).await.1.head.target(), "/");
    }

    #[tokio::test(flavor = "local")]
    async fn with_a_prefix_a_key_must_look_right() {
        let (key, hash) = KeyForm::new("shop").unwrap().make().unwrap();
        let consumers = format!("[anna]\napi_keys = ['{}', '{HASH}']", hash.0);
        let filter = build("prefix = 'shop'", &consumers).unwrap();
        assert!(ask(&filter, "/", &[("X-API-Key", &key)]).await.0.is_ok());
        assert!(ask(&filter, "/", &[("X-API-Key", "key")]).await.0.is_err());
    }

    #[tokio::test(flavor = "local")]
    async fn a_disabled_consumer_gets_403() {
        let filter = build("", &format!("[anna]\nstatus = 'disabled'\napi_keys = ['{HASH}']")).unwrap();
        assert_eq!(ask(&filter, "/", &[("X-API-Key", "key")]).await.0, Err(Failure::Forbidden));
    }

    #[test]
    fn what_is_wrong_is_told_at_its_place() {
        let anna = format!("[anna]\napi_keys = ['{HASH}']");
        assert_eq!(
            build("lookup = [{}]\nprefix = 'a b'\nexcept = ['x']\nrealm = 'é'", &anna).unwrap_err(),
            [
                "api_key.lookup[0]: a place is exactly one of header, query and cookie",
                "api_key.prefix: a prefix has 1 to 32 letters, digits, `_` and `-`",
                "api_key.except[0]: `x` is not a path, or the beginning of one",
                "api_key.realm: a realm has printable ASCII characters only",
            ]
        );
        assert_eq!(
            build("", "[anna]").unwrap_err(),
            ["api_key: no consumer has an API key: nobody would be let in"]
        );
    }
}
