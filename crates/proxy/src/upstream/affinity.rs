//! Affinity: the same client, the same endpoint.
//!
//! A cookie carries a token of the endpoint. By default the token is a MAC over the upstream's and the
//! endpoint's identity under a key that only this process (or the configuration) knows: it tells a client
//! nothing, and a client can make none up. Looking it up is a comparison with the endpoints' tokens, so
//! there is nothing to decode. Header and address affinity hash the value over the endpoints instead.

use hmac::{Hmac, KeyInit, Mac};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use sluice_http::FieldName;

use crate::problem::{At, Problems};
use crate::value::Period;

/// Keeps a client on one endpoint. Exactly one of cookie, header and client stands in it.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// By a cookie that we set: its name, or a table with more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cookie: Option<CookieConfig>,
    /// By the value of a request field.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub header: Option<String>,
    /// By the trusted client address.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub client: bool,
    /// What happens when the endpoint is not available. Default "choose".
    pub on_unavailable: OnUnavailable,
}

/// What happens when the endpoint that affinity names is not available.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum OnUnavailable {
    /// Another is chosen, and the cookie follows.
    #[default]
    Choose,
    /// The request fails with 503.
    Fail,
}

/// The affinity cookie.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum CookieConfig {
    /// Its name.
    Name(String),
    /// More about it.
    Detailed(DetailedCookie),
}

/// The affinity cookie with its attributes.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DetailedCookie {
    /// Its name, for example "srv_id".
    pub name: String,
    /// What it carries: "signed" (default) an opaque value nobody can make up, "plain" the endpoint's id.
    #[serde(default)]
    pub value: CookieValue,
    /// The secret that signs. Default: drawn at start, so that sessions end with the process; give the same
    /// to every gateway that shares clients.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
    /// Path attribute. Default "/".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Domain attribute. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
    /// Max-Age attribute. Default: none, the cookie ends with the browser's session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_age: Option<Period>,
    /// Secure attribute. Default false.
    #[serde(default)]
    pub secure: bool,
    /// HttpOnly attribute. Default true.
    #[serde(default = "yes")]
    pub http_only: bool,
    /// SameSite attribute. Default "lax".
    #[serde(default)]
    pub same_site: SameSite,
}

fn yes() -> bool {
    true
}

/// What an affinity cookie carries.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum CookieValue {
    /// An opaque value nobody can make up.
    #[default]
    Signed,
    /// The endpoint's id.
    Plain,
}

/// The SameSite attribute.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum SameSite {
    /// Lax.
    #[default]
    Lax,
    /// Strict.
    Strict,
    /// None; browsers want Secure with it.
    None,
}

/// Affinity, checked.
#[derive(Clone, Debug)]
pub struct Policy {
    /// What binds a client.
    pub by: By,
    /// What happens when the endpoint is not available.
    pub on_unavailable: OnUnavailable,
}

/// What binds a client to its endpoint.
#[derive(Clone, Debug)]
pub enum By {
    /// A cookie we set.
    Cookie(Cookie),
    /// A request field's value.
    Header(FieldName),
    /// The trusted client address.
    Client,
}

/// The cookie, its attributes rendered.
#[derive(Clone, Debug)]
pub struct Cookie {
    /// Its name.
    pub name: String,
    /// "; Path=/; HttpOnly; SameSite=Lax"
    attributes: String,
    value: CookieValue,
    secret: Option<String>,
}

impl Config {
    /// Checks that exactly one kind stands in it and that the cookie can be written.
    pub fn check(&self, at: &At, problems: &mut Problems) -> Option<Policy> {
        let by = match (&self.cookie, &self.header, self.client) {
            (Some(cookie), None, false) => By::Cookie(cookie.check(&at.key("cookie"), problems)?),
            (None, Some(header), false) => {
                let Some(name) = FieldName::new(header) else {
                    problems.add(&at.key("header"), format!("`{header}` is not a field name"));
                    return None;
                };
                By::Header(name)
            }
            (None, None, true) => By::Client,
            _ => {
                problems
                    .add(at, "affinity needs exactly one of `cookie`, `header` and `client`")
                    .hint("affinity = { cookie = \"srv_id\" }");
                return None;
            }
        };
        Some(Policy { by, on_unavailable: self.on_unavailable })
    }
}

impl CookieConfig {
    fn check(&self, at: &At, problems: &mut Problems) -> Option<Cookie> {
        let plain = |name: &String| DetailedCookie {
            name: name.clone(),
            value: CookieValue::Signed,
            secret: None,
            path: None,
            domain: None,
            max_age: None,
            secure: false,
            http_only: true,
            same_site: SameSite::Lax,
        };
        let (at, cookie) = match self {
            CookieConfig::Name(name) => (at.clone(), plain(name)),
            CookieConfig::Detailed(cookie) => (at.key("name"), cookie.clone()),
        };
        if FieldName::new(&cookie.name).is_none() {
            problems.add(&at, format!("`{}` is not a cookie name", cookie.name));
            return None;
        }
        for text in [&cookie.path, &cookie.domain].into_iter().flatten() {
            if text.bytes().any(|byte| byte < 0x20 || byte == b';' || byte == 0x7f) {
                problems.add(&at, format!("`{text}` cannot stand in a cookie attribute"));
                return None;
            }
        }
        if cookie.same_site == SameSite::None && !cookie.secure {
            problems
                .add(&at, "browsers drop a SameSite=None cookie that is not Secure")
                .hint("secure = true");
            return None;
        }
        Some(Cookie {
            attributes: cookie.attributes(),
            name: cookie.name,
            value: cookie.value,
            secret: cookie.secret,
        })
    }
}

impl DetailedCookie {
    fn attributes(&self) -> String {
        let mut out = format!("; Path={}", self.path.as_deref().unwrap_or("/"));
        if let Some(domain) = &self.domain {
            out.push_str(&format!("; Domain={domain}"));
        }
        if let Some(age) = self.max_age {
            out.push_str(&format!("; Max-Age={}", age.0.as_secs()));
        }
        if self.secure {
            out.push_str("; Secure");
        }
        if self.http_only {
            out.push_str("; HttpOnly");
        }
        out.push_str(match self.same_site {
            SameSite::Lax => "; SameSite=Lax",
            SameSite::Strict => "; SameSite=Strict",
            SameSite::None => "; SameSite=None",
        });
        out
    }
}

impl Cookie {
    /// The value that names an endpoint: its id, or a MAC nobody without the secret can make.
    /// `drawn` is the process's own secret, used when the configuration gives none.
    pub fn token(&self, upstream: &str, id: &str, drawn: &[u8]) -> String {
        if self.value == CookieValue::Plain {
            return id.to_owned();
        }
        let secret = self.secret.as_deref().map_or(drawn, str::as_bytes);
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret) else {
            unreachable!("HMAC takes keys of any length (RFC 2104 section 2)")
        };
        mac.update(upstream.as_bytes());
        mac.update(&[0]);
        mac.update(id.as_bytes());
        use base64::Engine as _;
        base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(&mac.finalize().into_bytes()[..18])
    }

    /// The Set-Cookie value that binds a client to the endpoint of `token`.
    pub fn set(&self, token: &str) -> String {
        format!("{}={token}{}", self.name, self.attributes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cookie(config: &CookieConfig) -> Cookie {
        let mut problems = Problems::new();
        let cookie = config.check(&At::root(), &mut problems);
        assert!(problems.is_empty(), "{problems:?}");
        cookie.unwrap()
    }

    #[test]
    fn a_signed_token_tells_nothing_and_depends_on_the_secret() {
        let cookie = cookie(&CookieConfig::Name("srv_id".into()));
        let token = cookie.token("u", "127.0.0.1:1", b"one");
        assert!(!token.contains("127"));
        assert_eq!(token, cookie.token("u", "127.0.0.1:1", b"one"));
        assert_ne!(token, cookie.token("u", "127.0.0.1:1", b"two"));
        assert_ne!(token, cookie.token("v", "127.0.0.1:1", b"one"));
        assert_eq!(cookie.set("t"), "srv_id=t; Path=/; HttpOnly; SameSite=Lax");
    }

    #[test]
    fn exactly_one_kind_of_affinity_is_accepted() {
        let mut problems = Problems::new();
        let both = Config { header: Some("x".into()), client: true, ..Config::default() };
        assert!(both.check(&At::root(), &mut problems).is_none());
        assert!(Config::default().check(&At::root(), &mut problems).is_none());
        assert_eq!(problems.iter().count(), 2);
    }
}
