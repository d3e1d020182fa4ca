//! What a document says of the `token` action, and its check.

use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Endpoint, Token};
use crate::problem::{At, Problems};
use crate::redis::Server;
use crate::token::{Directories, Given, Keeping, Origin, Signing};
use crate::value::Period;

/// Gives tokens to consumers, checks them and takes them back. A consumer proves who it is by its name and one of its
/// API keys, or by its `basic` user and password. Routes with the same `directory` share their keys, and what was taken
/// back; they say the same of `algorithm`, `keys`, `rotate` and `shared`.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// What the route serves. Default "token".
    #[serde(default)]
    pub endpoint: Endpoint,
    /// The claim `iss` of tokens: "https://gateway.example".
    pub issuer: String,
    /// Where signing keys are kept, which are made at the first start, and the list of tokens that were taken back. The
    /// filter jwt reads them by its own `directory`; for others the public keys stand in `jwks.json` in it. Processes
    /// on one machine may share it. With `keys` it can be left out: then what was taken back is forgotten with the process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directory: Option<String>,
    /// What keys are made for. With another one than before, another key signs. Default "ES256".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub algorithm: Option<Signing>,
    /// Keys that you give, instead of those that are made. The first signs, all of them check and are published. To
    /// replace one: add the new one behind it; when everybody has fetched it, put it first; take the old one out when
    /// its last token has ended.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<KeyConfig>,
    /// The claim `aud` of tokens. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub audience: Vec<String>,
    /// How long a token is valid. Default "1h".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<Period>,
    /// How long a refresh token is valid; it can be used once. Default: none is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refresh_ttl: Option<Period>,
    /// Scopes that can be asked for; all of them are given to who asks for none. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scopes: Vec<String>,
    /// After this time another key is made and signs. Default "30d".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotate: Option<Period>,
    /// A Redis server by which gateways tell each other what was taken back: "redis://127.0.0.1:6379". While it has no
    /// answer, nothing is taken back or renewed (503), and the filter jwt lets nobody in (503). Default: none; other
    /// machines do not hear of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shared: Option<String>,
}

/// A key that you give.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct KeyConfig {
    /// Its file: a private key in PEM (PKCS #8), or the public one of a key that signs no longer.
    pub file: String,
    /// Its id (`kid`). Default: its thumbprint (RFC 7638).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// What it signs with. Default: ES256, ES384, EdDSA or RS256, as its kind is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub algorithm: Option<Signing>,
}

const TTL: Duration = Duration::from_secs(3600);
const ROTATE: Duration = Duration::from_secs(30 * 86_400);

/// The directories of a document's `token` actions, with the longest life that any of its routes gives a token. Routes
/// of one directory that do not agree are a problem of the later one.
pub fn directories<'a>(
    configs: impl Iterator<Item = (At, &'a Config)>,
    problems: &mut Problems,
) -> Directories {
    let mut first: Vec<(&str, &Config)> = Vec::new();
    let mut found = Directories::new();
    for (at, config) in configs {
        let Some(directory) = config.directory.as_deref() else { continue };
        let longest = found.entry(directory.to_owned()).or_default();
        *longest = (*longest).max(config.longest());
        let Some((_, other)) = first.iter().find(|(known, _)| *known == directory) else {
            first.push((directory, config));
            continue;
        };
        for (key, same) in [
            ("algorithm", config.algorithm == other.algorithm),
            ("keys", config.keys == other.keys),
            ("rotate", config.rotate == other.rotate),
            ("shared", config.shared == other.shared),
        ] {
            if !same {
                problems.add(
                    &at.key(key),
                    format!("another route with this directory says something else of `{key}`"),
                );
            }
        }
    }
    found
}

impl Config {
    /// The files it reads, so that a change of one can be noticed.
    pub fn files(&self) -> impl Iterator<Item = PathBuf> {
        self.keys.iter().map(|key| PathBuf::from(&key.file))
    }

    fn longest(&self) -> u64 {
        let of = |period: Option<Period>, usual: Duration| period.map_or(usual, |period| period.0).as_secs();
        of(self.ttl, TTL).max(of(self.refresh_ttl, Duration::ZERO))
    }

    /// Checks it; it stands at `at`. `asks` says whether some consumer could ask, `directories` comes of [`directories`].
    pub fn check(
        &self,
        asks: Asks,
        directories: &Directories,
        at: &At,
        problems: &mut Problems,
    ) -> Option<Token> {
        let found = problems.iter().count();
        if self.endpoint != Endpoint::Keys && asks == Asks::Nobody {
            let problem = problems.add(at, "no consumer has credentials: nobody could ask");
            problem.hint("[consumers.NAME] api_keys");
        }
        if self.issuer.is_empty() {
            problems.add(&at.key("issuer"), "an issuer has a name");
        }
        let mut seconds = |key: &str, period: Option<Period>, usual: Duration| {
            let period = period.map_or(usual, |period| period.0);
            if period < Duration::from_secs(1) {
                problems.add(&at.key(key), "it is shorter than a second");
            }
            period.as_secs()
        };
        let ttl = seconds("ttl", self.ttl, TTL);
        let refresh_ttl = self.refresh_ttl.map(|period| seconds("refresh_ttl", Some(period), Duration::ZERO));
        let rotate = seconds("rotate", self.rotate, ROTATE);
        for (index, scope) in self.scopes.iter().enumerate() {
            // RFC 6749 section 3.3.
            let plain = |byte: u8| (0x21..0x7f).contains(&byte) && byte != b'"' && byte != b'\\';
            if scope.is_empty() || !scope.bytes().all(plain) {
                let at = at.key("scopes").index(index);
                problems.add(&at, format!("`{}` is no scope", scope.escape_debug()));
            }
        }
        let keeping = self.keeping(rotate, directories, at, problems);
        (problems.iter().count() == found).then(|| Token {
            endpoint: self.endpoint,
            issuer: self.issuer.clone(),
            audience: self.audience.clone(),
            ttl,
            refresh_ttl,
            scopes: self.scopes.clone(),
            keeping,
            loaded: None,
        })
    }

    fn keeping(&self, rotate: u64, directories: &Directories, at: &At, problems: &mut Problems) -> Keeping {
        let given = |key: &KeyConfig| Given {
            file: key.file.as_str().into(),
            id: key.id.clone(),
            algorithm: key.algorithm,
        };
        match (&self.directory, self.keys.is_empty()) {
            (None, true) => {
                let problem = problems.add(at, "nobody knows where its keys are");
                problem.hint("`directory` for keys that are made, `keys` for your own");
            }
            (Some(directory), _) if directory.is_empty() => {
                problems.add(&at.key("directory"), "the name of the directory is empty");
            }
            (_, false) => {
                for (key, written) in
                    [("algorithm", self.algorithm.is_some()), ("rotate", self.rotate.is_some())]
                {
                    if written {
                        problems.add(
                            &at.key(key),
                            format!("`{key}` is for keys that are made, not for given ones"),
                        );
                    }
                }
            }
            _ => {}
        }
        for (index, key) in self.keys.iter().enumerate().filter(|(_, key)| key.id.as_deref() == Some("")) {
            problems.add(&at.key("keys").index(index).key("id"), format!("the id of {} is empty", key.file));
        }
        let origin = match self.keys.is_empty() {
            true => Origin::Made { algorithm: self.algorithm.unwrap_or_default(), rotate },
            false => Origin::Given(self.keys.iter().map(given).collect()),
        };
        let longest = self.directory.as_ref().and_then(|directory| directories.get(directory)).copied();
        let shared = self.shared.as_ref();
        Keeping {
            directory: self.directory.as_ref().map(PathBuf::from),
            origin,
            longest: longest.unwrap_or_else(|| self.longest()),
            shared: shared.and_then(|text| Server::check(text, &at.key("shared"), problems)),
        }
    }
}

/// Whether some consumer could ask for a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asks {
    /// One has credentials.
    Somebody,
    /// None has.
    Nobody,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(configs: &[&str]) -> Vec<String> {
        let configs: Vec<Config> = configs
            .iter()
            .map(|text| toml_edit::de::from_str(&format!("issuer = 'i'\n{text}")).unwrap())
            .collect();
        let mut problems = Problems::new();
        let at = |index| At::root().index(index);
        let places = configs.iter().enumerate().map(|(index, config)| (at(index), config));
        let directories = directories(places, &mut problems);
        for (index, config) in configs.iter().enumerate() {
            config.check(Asks::Somebody, &directories, &at(index), &mut problems);
        }
        problems.iter().map(|problem| format!("{}: {}", problem.at, problem.message)).collect()
    }

    #[test]
    fn routes_of_one_directory_agree_and_the_longest_token_counts() {
        let one = "directory = 'd'\nttl = '10s'";
        let other = "directory = 'd'\nendpoint = 'revoke'";
        assert!(told(&[one, other]).is_empty());
        let configs: Vec<Config> = [one, other]
            .map(|text| toml_edit::de::from_str(&format!("issuer = 'i'\n{text}")).unwrap())
            .into();
        let places = configs.iter().map(|config| (At::root(), config));
        let directories = directories(places, &mut Problems::new());
        assert_eq!(directories.get("d"), Some(&3600));
        let odd = "directory = 'd'\nalgorithm = 'EdDSA'\nrotate = '7d'";
        assert_eq!(
            told(&[one, odd]),
            [
                "[1].algorithm: another route with this directory says something else of `algorithm`",
                "[1].rotate: another route with this directory says something else of `rotate`",
            ]
        );
    }

    #[test]
    fn keys_are_made_in_a_directory_or_given() {
        assert_eq!(told(&[""]), ["[0]: nobody knows where its keys are"]);
        assert_eq!(told(&["directory = ''"]), ["[0].directory: the name of the directory is empty"]);
        assert!(told(&["keys = [{ file = 'a.pem' }]"]).is_empty());
        assert_eq!(
            told(&["keys = [{ file = 'a.pem', id = '' }]\nrotate = '1d'\nalgorithm = 'RS256'"]),
            [
                "[0].algorithm: `algorithm` is for keys that are made, not for given ones",
                "[0].rotate: `rotate` is for keys that are made, not for given ones",
                "[0].keys[0].id: the id of a.pem is empty",
            ]
        );
        let unknown: Result<Config, _> = toml_edit::de::from_str("issuer = 'i'\nalgorithm = 'ES512'");
        let told = unknown.unwrap_err().to_string();
        assert!(told.contains("ES512") && told.contains("ES384"), "{told}");
    }
}
