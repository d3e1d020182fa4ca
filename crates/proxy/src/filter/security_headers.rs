//! The `security_headers` filter: what a browser should be careful about with a route's answers.
//!
//! Promise: Strict-Transport-Security is said over https only (RFC 6797 section 7.2); a default never replaces
//! what an endpoint says itself, what is written here always does; what is sent is checked when the document
//! is.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sluice_http::name::is_value;
use sluice_http::{FieldName, Response};

use super::Filter;
use crate::exchange::Exchange;
use crate::facts::Scheme;
use crate::failure::Failure;
use crate::problem::{At, Problems};
use crate::value::Period;

/// Tells browsers to be careful, and takes away what tells about the endpoint's software. Without settings it
/// sends, where the endpoint says nothing itself, Strict-Transport-Security (over https) for a year,
/// X-Content-Type-Options "nosniff", X-Frame-Options "SAMEORIGIN" and Referrer-Policy
/// "strict-origin-when-cross-origin". What is written here replaces what the endpoint says.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Strict-Transport-Security: browsers come back over https only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hsts: Option<Hsts>,
    /// X-Frame-Options: who may show a page in a frame, "DENY" or "SAMEORIGIN". `frame-ancestors` of a
    /// content security policy says the same in more words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frame_options: Option<String>,
    /// Content-Security-Policy: where a page may load from. Default: none is sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_security_policy: Option<String>,
    /// Content-Security-Policy-Report-Only: the same, told about instead of enforced. Default: none is sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_security_policy_report_only: Option<String>,
    /// Referrer-Policy: what other sites hear about where a user came from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub referrer_policy: Option<String>,
    /// Permissions-Policy: what a page may use of the device. Default: none is sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub permissions_policy: Option<String>,
    /// Cross-Origin-Opener-Policy, "same-origin" and others. Default: none is sent; pages that open windows of
    /// other sites and talk with them would break.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub opener_policy: Option<String>,
    /// Cross-Origin-Embedder-Policy, "require-corp" and others. Default: none is sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub embedder_policy: Option<String>,
    /// Cross-Origin-Resource-Policy, "same-origin", "same-site" or "cross-origin". Default: none is sent;
    /// other sites could not show the images of this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource_policy: Option<String>,
    /// Which defaults are not sent.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub without: Vec<Usual>,
    /// Fields of the endpoint's answers that are taken away. Default Server, X-Powered-By, X-AspNet-Version
    /// and X-AspNetMvc-Version; [] takes nothing away.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remove: Option<Vec<String>>,
}

/// Strict-Transport-Security.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct Hsts {
    /// For how long. Default "365d"; "0s" makes browsers forget.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_age: Option<Period>,
    /// Whether for every name below this one too. Default false.
    pub include_subdomains: bool,
    /// Whether browsers may know it from the start: for submission to their lists, which ask for a year at
    /// least and every name below. Default false.
    pub preload: bool,
}

/// A field that is sent without being asked for.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Usual {
    /// Strict-Transport-Security.
    Hsts,
    /// X-Content-Type-Options.
    ContentTypeOptions,
    /// X-Frame-Options.
    FrameOptions,
    /// Referrer-Policy.
    ReferrerPolicy,
}

/// The checked filter.
#[derive(Debug)]
pub struct SecurityHeaders {
    remove: Box<[FieldName]>,
    said: Box<[Said]>,
}

/// One field that is sent.
#[derive(Debug)]
struct Said {
    name: FieldName,
    value: Box<str>,
    over: Over,
    against: Against,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Over {
    Any,
    Https,
}

/// What becomes of the endpoint's own field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Against {
    Kept,
    Replaced,
}

const REMOVED: [&str; 4] = ["Server", "X-Powered-By", "X-AspNet-Version", "X-AspNetMvc-Version"];

const YEAR: u64 = 365 * 86_400;

impl Filter for SecurityHeaders {
    type Config = Config;

    const NAME: &'static str = "security_headers";

    fn build(config: &Config, at: &At, problems: &mut Problems) -> Option<SecurityHeaders> {
        let found = problems.iter().count();
        let mut said = Vec::new();
        let mut say = |key: &str, name: &str, written: Option<&str>, default: Option<(Usual, &str)>| {
            let default = default.filter(|(which, _)| !config.without.contains(which));
            let value = written.or(default.map(|(_, value)| value));
            let (Some(value), Some(name)) = (value, FieldName::new(name)) else { return };
            if value.is_empty() || !value.bytes().all(is_value) {
                problems.add(&at.key(key), "a field needs a value, on one line").hint("or leave the key out");
                return;
            }
            let over = if key == "hsts" { Over::Https } else { Over::Any };
            let against = if written.is_some() { Against::Replaced } else { Against::Kept };
            said.push(Said { name, value: value.into(), over, against });
        };
        let hsts = config.hsts.map(Hsts::text);
        let default_hsts = Hsts::default().text();
        say("hsts", "Strict-Transport-Security", hsts.as_deref(), Some((Usual::Hsts, &default_hsts)));
        let nosniff = Some((Usual::ContentTypeOptions, "nosniff"));
        say("", "X-Content-Type-Options", None, nosniff);
        let framing = Some((Usual::FrameOptions, "SAMEORIGIN"));
        say("frame_options", "X-Frame-Options", config.frame_options.as_deref(), framing);
        let referrer = Some((Usual::ReferrerPolicy, "strict-origin-when-cross-origin"));
        say("referrer_policy", "Referrer-Policy", config.referrer_policy.as_deref(), referrer);
        for (key, name, written) in [
            ("content_security_policy", "Content-Security-Policy", &config.content_security_policy),
            (
                "content_security_policy_report_only",
                "Content-Security-Policy-Report-Only",
                &config.content_security_policy_report_only,
            ),
            ("permissions_policy", "Permissions-Policy", &config.permissions_policy),
            ("opener_policy", "Cross-Origin-Opener-Policy", &config.opener_policy),
            ("embedder_policy", "Cross-Origin-Embedder-Policy", &config.embedder_policy),
            ("resource_policy", "Cross-Origin-Resource-Policy", &config.resource_policy),
        ] {
            say(key, name, written.as_deref(), None);
        }
        check_words(config, at, problems);
        let remove = removed(config, at, problems);
        (problems.iter().count() == found).then(|| SecurityHeaders { remove, said: said.into() })
    }

    async fn on_response(&self, exchange: &mut Exchange, response: &mut Response) -> Result<(), Failure> {
        let fields = &mut response.head.fields;
        for name in &self.remove {
            fields.remove(name);
        }
        for said in &self.said {
            if said.over == Over::Https && exchange.client.scheme != Scheme::Https {
                // Over http anybody could have said it: browsers would not listen, and must not be told.
                fields.remove(&said.name);
            } else if said.against == Against::Replaced {
                fields.set(&said.name, said.value.as_bytes());
            } else if !fields.contains(&said.name) {
                fields.append(&said.name, said.value.as_bytes());
            }
        }
        Ok(())
    }
}

impl Hsts {
    fn text(self) -> String {
        let age = self.max_age.map_or(YEAR, |period| period.0.as_secs());
        let subdomains = if self.include_subdomains { "; includeSubDomains" } else { "" };
        let preload = if self.preload { "; preload" } else { "" };
        format!("max-age={age}{subdomains}{preload}")
    }
}

/// Words that browsers do not know would be as good as nothing said.
fn check_words(config: &Config, at: &At, problems: &mut Problems) {
    for (key, written, known) in [
        ("frame_options", &config.frame_options, &["DENY", "SAMEORIGIN"][..]),
        (
            "opener_policy",
            &config.opener_policy,
            &["same-origin", "same-origin-allow-popups", "noopener-allow-popups", "unsafe-none"],
        ),
        ("embedder_policy", &config.embedder_policy, &["require-corp", "credentialless", "unsafe-none"]),
        ("resource_policy", &config.resource_policy, &["same-origin", "same-site", "cross-origin"]),
    ] {
        let Some(text) = written else { continue };
        // Parameters may follow: report-to.
        let word = text.split(';').next().unwrap_or_default().trim();
        if !word.is_empty() && !known.contains(&word) {
            problems
                .add(&at.key(key), format!("browsers do not know `{word}`"))
                .hint(format!("one of {}", known.join(", ")));
        }
    }
    let Some(hsts) = config.hsts.filter(|hsts| hsts.preload) else { return };
    if !hsts.include_subdomains || hsts.max_age.is_some_and(|age| age.0.as_secs() < YEAR) {
        let message = "the lists of browsers take names for a year at least, with every name below";
        problems
            .add(&at.key("hsts").key("preload"), message)
            .hint("include_subdomains = true, max_age = \"365d\" or longer");
    }
}

fn removed(config: &Config, at: &At, problems: &mut Problems) -> Box<[FieldName]> {
    let Some(names) = &config.remove else {
        return REMOVED.iter().filter_map(|name| FieldName::new(name)).collect();
    };
    let at = at.key("remove");
    (names.iter().enumerate())
        .filter_map(|(index, name)| crate::field_values::editable_name(name, &at.index(index), problems))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filter::fixture::{self, values};

    fn build(toml: &str) -> Result<SecurityHeaders, Vec<String>> {
        let config: Config = toml_edit::de::from_str(toml).unwrap();
        let mut problems = Problems::new();
        let built = SecurityHeaders::build(&config, &At::root(), &mut problems);
        assert_eq!(built.is_some(), problems.is_empty());
        built.ok_or(problems.iter().map(|problem| problem.at.to_string()).collect())
    }

    /// The fields of an endpoint's answer with these, as `name: value`.
    async fn answer(toml: &str, scheme: Scheme, said: &[(&str, &str)]) -> Vec<String> {
        let mut exchange = fixture::exchange("/");
        exchange.client.scheme = scheme;
        let mut response = fixture::response(200);
        for (name, value) in said {
            response.head.fields.append(&fixture::name(name), value.as_bytes());
        }
        build(toml).unwrap().on_response(&mut exchange, &mut response).await.unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let fields = response.head.fields.iter();
        fields.map(|(_, name, value)| format!("{}: {}", text(name), text(value))).collect()
    }

    #[tokio::test(flavor = "local")]
    async fn the_defaults_are_sent_and_hsts_over_https_only() {
        let common = [
            "X-Content-Type-Options: nosniff",
            "X-Frame-Options: SAMEORIGIN",
            "Referrer-Policy: strict-origin-when-cross-origin",
        ];
        assert_eq!(answer("", Scheme::Http, &[("Strict-Transport-Security", "max-age=1")]).await, common);
        let secured = answer("", Scheme::Https, &[]).await;
        assert_eq!(secured[0], "Strict-Transport-Security: max-age=31536000");
        assert_eq!(secured[1..], common);
        let less = "without = ['hsts', 'content_type_options', 'frame_options', 'referrer_policy']";
        assert_eq!(answer(less, Scheme::Https, &[]).await, [""; 0]);
    }

    #[tokio::test(flavor = "local")]
    async fn a_default_gives_way_to_the_endpoint_and_what_is_written_does_not() {
        let own = [
            ("x-frame-options", "DENY"),
            ("Content-Security-Policy", "default-src *"),
            ("Referrer-Policy", "origin"),
        ];
        let toml = "content_security_policy = \"default-src 'self'\"\nreferrer_policy = 'no-referrer'\n\
                    permissions_policy = 'camera=()'\nopener_policy = 'same-origin'\nembedder_policy = 'require-corp'\n\
                    resource_policy = 'same-site'\nhsts = { max_age = '730d', include_subdomains = true, preload = true }";
        let mut fields = answer(toml, Scheme::Https, &own).await;
        fields.sort();
        assert_eq!(
            fields,
            [
                "Content-Security-Policy: default-src 'self'",
                "Cross-Origin-Embedder-Policy: require-corp",
                "Cross-Origin-Opener-Policy: same-origin",
                "Cross-Origin-Resource-Policy: same-site",
                "Permissions-Policy: camera=()",
                "Referrer-Policy: no-referrer",
                "Strict-Transport-Security: max-age=63072000; includeSubDomains; preload",
                "X-Content-Type-Options: nosniff",
                "x-frame-options: DENY",
            ]
        );
    }

    #[tokio::test(flavor = "local")]
    async fn what_tells_of_the_software_is_taken_away() {
        let said = [("Server", "old/1"), ("X-POWERED-BY", "PHP"), ("X-AspNet-Version", "4"), ("X-Kept", "1")];
        let fields = answer("", Scheme::Http, &said).await;
        assert_eq!(fields[0], "X-Kept: 1");
        assert_eq!(fields.len(), 4);
        assert_eq!(answer("remove = []", Scheme::Http, &said).await.len(), 7);
        assert_eq!(answer("remove = ['x-kept']", Scheme::Http, &said).await[0], "Server: old/1");
        let mut response = fixture::response(200);
        let filter = build("").unwrap();
        filter.on_response(&mut fixture::exchange("/"), &mut response).await.unwrap();
        assert_eq!(values(&response.head.fields, "x-frame-options"), ["SAMEORIGIN"]);
    }

    #[test]
    fn what_browsers_do_not_know_is_a_problem() {
        for (toml, place) in [
            ("frame_options = 'ALLOW-FROM https://a'", "frame_options"),
            ("frame_options = 'deny'", "frame_options"),
            ("opener_policy = 'x'", "opener_policy"),
            ("embedder_policy = 'x'", "embedder_policy"),
            ("resource_policy = 'x'", "resource_policy"),
            ("content_security_policy = \"a\\nb\"", "content_security_policy"),
            ("referrer_policy = ''", "referrer_policy"),
            ("hsts = { preload = true }", "hsts.preload"),
            ("hsts = { preload = true, include_subdomains = true, max_age = '1d' }", "hsts.preload"),
            ("remove = ['Content-Length']", "remove[0]"),
        ] {
            assert_eq!(build(toml).unwrap_err(), [place], "{toml}");
        }
        assert!(build("opener_policy = 'same-origin; report-to=\"x\"'").is_ok());
    }
}
