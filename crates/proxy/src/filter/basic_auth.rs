//! The `basic_auth` filter: a user name and a password, asked for as RFC 7617 has it.
//!
//! Promise: nothing runs behind it for a client that is not a known user; a password is checked away from the
//! worker's thread; one that was right a moment ago costs microseconds. On the route of a forward proxy it
//! reads Proxy-Authorization and answers 407.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sluice_http::{NameId, Request};

use super::challenge::{realm, refuse};
use super::except::Except;
use super::lookup::Forwarded;
use super::{Filter, Flow, Known, Loading};
use crate::consumer::{Consumers, identify};
use crate::credentials::{Claim, Neighbour, StoredHash, Users, Verifier};
use crate::exchange::Exchange;
use crate::failure::Failure;
use crate::problem::{At, Problems};
use crate::scene::Scene;

/// RFC 4648 section 4; some clients leave the padding out.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Lets in who proves to be a user, by name and password (RFC 7617). Use it behind TLS: anybody on the way
/// could read the password. On the route of a forward proxy the client proves it to the proxy
/// (Proxy-Authorization, 407).
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// What browsers show when they ask. Default "restricted".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub realm: Option<String>,
    /// User to password hash. `sluice hash-password` makes hashes.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub users: BTreeMap<String, StoredHash>,
    /// An htpasswd file with more users: `name:hash` on each line. A relative name starts where the gateway
    /// was started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Whether consumers that have `basic` are let in too. Default: when neither `users` nor `file` is given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub consumers: Option<bool>,
    /// Whether Authorization is removed before the request goes on. Default false. Proxy-Authorization never
    /// goes on.
    pub hide_credentials: bool,
    /// Paths for which nobody is asked.
    #[serde(skip_serializing_if = "Except::is_empty")]
    pub except: Except,
}

/// The checked filter.
#[derive(Debug)]
pub struct BasicAuth {
    users: Users,
    file: Option<PathBuf>,
    asked: Asked,
    /// Those of the document, where they are asked for.
    consumers: Option<Arc<Consumers>>,
    challenge: Arc<str>,
    authorization: Forwarded,
    except: Except,
    /// None until it is loaded: then nobody is let in.
    verifier: Option<Arc<Verifier>>,
}

/// Who is let in beside the filter's own users.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Nobody,
    Consumers,
}

impl Filter for BasicAuth {
    type Config = Config;

    const NAME: &'static str = "basic_auth";

    fn build(config: &Config, at: &At, problems: &mut Problems) -> Option<BasicAuth> {
        let found = problems.iter().count();
        let users = Users::listed(&config.users, &at.key("users"), problems);
        let own = !config.users.is_empty() || config.file.is_some();
        let asked = match config.consumers.unwrap_or(!own) {
            true => Asked::Consumers,
            false => Asked::Nobody,
        };
        if !own && asked == Asked::Nobody {
            problems
                .add(at, "without users nobody would be let in")
                .hint("give it `users` or a `file`, or let consumers in");
        }
        if config.file.as_deref() == Some("") {
            problems.add(&at.key("file"), "the name of the file is empty");
        }
        let realm = realm(config.realm.as_ref(), at, problems);
        config.except.check(&at.key("except"), problems);
        (problems.iter().count() == found).then(|| BasicAuth {
            users,
            file: config.file.as_ref().map(PathBuf::from),
            asked,
            consumers: None,
            challenge: format!("Basic realm={realm}, charset=\"UTF-8\"").into(),
            authorization: Forwarded::unless(config.hide_credentials),
            except: config.except.clone(),
            verifier: None,
        })
    }

    fn files(config: &Config) -> Vec<PathBuf> {
        config.file.iter().map(PathBuf::from).collect()
    }

    fn find(&mut self, known: &Known<'_>, at: &At, problems: &mut Problems) {
        if self.asked == Asked::Consumers && known.consumers.users().is_empty() {
            problems
                .add(at, "without users nobody would be let in")
                .hint("give it `users` or a `file`, or a consumer `basic`");
        }
    }

    fn load(&mut self, loading: &Loading<'_>, at: &At, problems: &mut Problems) {
        if let Some(file) = &self.file {
            self.users.read(file, &at.key("file"), problems);
        }
        if self.asked == Asked::Consumers {
            let consumers = loading.consumers;
            if let Err(message) = self.users.join(consumers.users()) {
                problems.add(at, message);
            }
            self.consumers = Some(Arc::clone(consumers));
        }
        self.verifier = Some(Arc::clone(&loading.shared.verifier));
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
        let name = exchange.role.credentials();
        let fields = &mut request.head.fields;
        let decoded = {
            // Two of them are two claims: neither is chosen.
            let mut lines = fields.get_all(name);
            lines.next().filter(|_| lines.next().is_none()).and_then(decode)
        };
        let admitted = match decoded.as_deref().and_then(claim) {
            Some(claim) => self.admit(claim, (exchange.started, exchange.client.address.into())).await,
            None => Err(Failure::Unauthenticated),
        };
        match admitted {
            Ok(user) => self.note(user, exchange)?,
            Err(Failure::Unauthenticated) => return Err(refuse(exchange, &self.challenge)),
            Err(failure) => {
                exchange.user = None;
                return Err(failure);
            }
        }
        if name == NameId::ProxyAuthorization || self.authorization == Forwarded::Removed {
            fields.remove(name);
        }
        Ok(Flow::Continue)
    }
}

impl BasicAuth {
    /// The user whose name and password these are; for protocols that carry them in another way. `from`
    /// is the present and the client's address. Cancel-safe.
    ///
    /// # Errors
    /// [`Failure::Unauthenticated`] when there is none, [`Failure::Overloaded`] when too many passwords wait
    /// to be checked.
    pub async fn verify(
        &self,
        user: &str,
        password: &[u8],
        from: (Instant, Neighbour),
    ) -> Result<Arc<str>, Failure> {
        self.admit(Claim { user, password }, from).await
    }

    /// Notes who it is; a consumer may be turned away.
    fn note(&self, user: Arc<str>, exchange: &mut Exchange) -> Result<(), Failure> {
        let consumer = self.consumers.as_ref().and_then(|consumers| consumers.by_user(&user));
        exchange.user = Some(user);
        consumer.map_or(Ok(()), |consumer| identify(exchange, consumer))
    }

    async fn admit(&self, claim: Claim<'_>, from: (Instant, Neighbour)) -> Result<Arc<str>, Failure> {
        match &self.verifier {
            Some(verifier) => verifier.admit(&self.users, claim, from).await,
            None => Err(Failure::Internal),
        }
    }
}

/// What stands in `Basic BASE64`; none for another scheme and for what is malformed.
fn decode(value: &[u8]) -> Option<Vec<u8>> {
    let (scheme, token) = value.split_at_checked("Basic ".len())?;
    BASE64.decode(token.trim_ascii()).ok().filter(|_| scheme.eq_ignore_ascii_case(b"Basic "))
}

/// `user:password`: the first colon ends the name. Names are text, passwords are bytes.
fn claim(decoded: &[u8]) -> Option<Claim<'_>> {
    let colon = decoded.iter().position(|byte| *byte == b':')?;
    let user = std::str::from_utf8(&decoded[..colon]).ok()?;
    Some(Claim { user, password: &decoded[colon + 1..] })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::Role;
    use crate::filter::{Shared, fixture};
    use crate::line_file::tests::TextFile;

    /// Of "pass:word".
    const HASH: &str = "{SHA}JfOwpCDy5ASLqp0M24rdutzyYk8=";

    fn build(toml: &str) -> Result<BasicAuth, Vec<String>> {
        let config: Config = toml_edit::de::from_str(toml).unwrap();
        let mut problems = Problems::new();
        let built = BasicAuth::build(&config, &At::root().key("basic_auth"), &mut problems);
        assert_eq!(built.is_some(), problems.is_empty());
        let mut built = built.ok_or(
            problems.iter().map(|problem| format!("{}: {}", problem.at, problem.message)).collect::<Vec<_>>(),
        )?;
        built.load(&fixture::loading(&Shared::new(b"secret")), &At::root(), &mut problems);
        assert!(problems.is_empty(), "{problems:?}");
        Ok(built)
    }

    /// The answer for a value of Authorization (or Proxy-Authorization), and whether it still stands there.
    async fn ask(filter: &BasicAuth, role: Role, values: &[&str]) -> (Result<String, Failure>, bool, String) {
        let mut exchange = fixture::exchange("/");
        exchange.role = role;
        exchange.user = Some("somebody".into());
        let name = if role == Role::Proxy { NameId::ProxyAuthorization } else { NameId::Authorization };
        let mut request = fixture::request("GET", "/");
        for value in values {
            request.head.fields.append(name, value.as_bytes());
        }
        let flow = filter.on_request(&fixture::stage().scene(), &mut exchange, &mut request).await;
        let user = flow.map(|_| exchange.user.as_deref().unwrap_or("nobody").to_owned());
        assert_eq!(user.is_err(), exchange.user.is_none());
        (user, request.head.fields.contains(name), exchange.challenge.to_string())
    }

    #[tokio::test(flavor = "local")]
    async fn a_user_is_let_in_and_everybody_else_is_asked() {
        let filter = build(&format!("realm = 'in \"side\"'\nusers = {{ \"añna\" = \"{HASH}\" }}")).unwrap();
        // "añna:pass:word", with and without padding, and in another case of the scheme.
        for value in ["Basic YcOxbmE6cGFzczp3b3Jk", "bAsIC  YcOxbmE6cGFzczp3b3Jk "] {
            let (user, kept, challenge) = ask(&filter, Role::Gateway, &[value]).await;
            assert_eq!((user, kept, &*challenge), (Ok("añna".to_owned()), true, ""), "{value}");
        }
        for values in [
            &[][..],
            &[""],
            &["Basic"],
            &["Basic "],
            &["Basic !!!"],
            &["Basic YcOxbmE="],
            &["Bearer YcOxbmE6cGFzczp3b3Jk"],
            &["BasicYcOxbmE6cGFzczp3b3Jk"],
            &["Basic Ym9iOnBhc3M6d29yZA=="],
            &["Basic YcOxbmE6cGFzcw=="],
            &["Basic YfFuYTpwYXNzOndvcmQ="],
            &["Basic YcOxbmE6cGFzczp3b3Jk", "Basic YcOxbmE6cGFzczp3b3Jk"],
        ] {
            let (user, _, challenge) = ask(&filter, Role::Gateway, values).await;
            assert_eq!(user, Err(Failure::Unauthenticated), "{values:?}");
            assert_eq!(challenge, "Basic realm=\"in \\\"side\\\"\", charset=\"UTF-8\"");
        }
    }

    #[tokio::test(flavor = "local")]
    async fn a_forward_proxy_reads_its_own_field_and_removes_it() {
        let filter = build(&format!("users = {{ \"añna\" = \"{HASH}\" }}")).unwrap();
        let (user, kept, _) = ask(&filter, Role::Proxy, &["Basic YcOxbmE6cGFzczp3b3Jk"]).await;
        assert_eq!((user, kept), (Ok("añna".to_owned()), false));
        let (user, _, challenge) = ask(&filter, Role::Proxy, &[]).await;
        assert_eq!(user, Err(Failure::ProxyUnauthenticated));
        assert_eq!(challenge, "Basic realm=\"restricted\", charset=\"UTF-8\"");
    }

    #[tokio::test(flavor = "local")]
    async fn credentials_go_on_unless_they_are_hidden() {
        let filter = build(&format!("users = {{ \"añna\" = \"{HASH}\" }}\nhide_credentials = true")).unwrap();
        let (user, kept, _) = ask(&filter, Role::Gateway, &["Basic YcOxbmE6cGFzczp3b3Jk"]).await;
        assert_eq!((user, kept), (Ok("añna".to_owned()), false));
    }

    #[tokio::test(flavor = "local")]
    async fn users_of_the_file_are_known_and_an_unloaded_filter_lets_nobody_in() {
        let file = TextFile::new("basic-auth", format!("bob:{HASH}\n").as_bytes());
        let toml = format!("file = '{}'", file.0.display());
        let filter = build(&toml).unwrap();
        let now = (fixture::exchange("/").started, std::net::IpAddr::from([127, 0, 0, 1]).into());
        assert_eq!(filter.verify("bob", b"pass:word", now).await, Ok("bob".into()));
        assert_eq!(filter.verify("bob", b"wrong", now).await, Err(Failure::Unauthenticated));
        let config: Config = toml_edit::de::from_str(&toml).unwrap();
        assert_eq!(BasicAuth::files(&config), std::slice::from_ref(&file.0));
        let unloaded = BasicAuth::build(&config, &At::root(), &mut Problems::new()).unwrap();
        assert_eq!(unloaded.verify("bob", b"pass:word", now).await, Err(Failure::Internal));
    }

    #[tokio::test(flavor = "local")]
    async fn consumers_are_let_in_where_they_are_asked_for() {
        let consumers =
            fixture::consumers(&format!("[shop]\nbasic = {{ user = 'añna', password = '{HASH}' }}"));
        let shared = Shared::new(b"secret");
        let load = |toml: &str| {
            let config: Config = toml_edit::de::from_str(toml).unwrap();
            let mut problems = Problems::new();
            let mut filter = BasicAuth::build(&config, &At::root(), &mut problems).unwrap();
            filter.find(&fixture::known(&consumers), &At::root(), &mut problems);
            let loading = Loading { consumers: &consumers, ..fixture::loading(&shared) };
            filter.load(&loading, &At::root(), &mut problems);
            problems.is_empty().then_some(filter).ok_or(problems)
        };
        for (toml, expected) in [
            (String::new(), Some("shop")),
            (format!("consumers = true\nusers = {{ bob = '{HASH}' }}"), Some("shop")),
            (format!("users = {{ bob = '{HASH}' }}"), None),
        ] {
            let filter = load(&toml).unwrap();
            let mut exchange = fixture::exchange("/");
            let mut request = fixture::request("GET", "/");
            request.head.fields.append(NameId::Authorization, b"Basic YcOxbmE6cGFzczp3b3Jk");
            let flow = filter.on_request(&fixture::stage().scene(), &mut exchange, &mut request).await;
            assert_eq!(flow.is_ok(), expected.is_some());
            assert_eq!(exchange.consumer.as_ref().map(|one| &*one.name), expected, "{toml}");
        }
        assert!(
            load(&format!("consumers = true\nusers = {{ 'añna' = '{HASH}' }}")).is_err(),
            "a user of both"
        );
        let config = Config::default();
        let mut problems = Problems::new();
        let mut filter = BasicAuth::build(&config, &At::root(), &mut problems).unwrap();
        let nobody = fixture::consumers("");
        filter.find(&fixture::known(&nobody), &At::root(), &mut problems);
        assert_eq!(problems.iter().count(), 1, "no consumer has a password");
    }

    #[test]
    fn what_is_wrong_is_told_at_its_place() {
        assert_eq!(
            build("consumers = false").unwrap_err(),
            ["basic_auth: without users nobody would be let in"]
        );
        assert_eq!(
            build("realm = \"a\\n\"\nfile = ''\nusers = { bob = 'secret' }").unwrap_err(),
            [
                "basic_auth.users.bob: the hash of user `bob` is in none of the known forms",
                "basic_auth.file: the name of the file is empty",
                "basic_auth.realm: a realm has printable ASCII characters only",
            ]
        );
    }
}
