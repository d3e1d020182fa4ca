//! What a document says of consumers, and its check.
//!
//! Promise: a credential belongs to one consumer; what is wrong with one is told without a part of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Consumer, Consumers, Standing};
use crate::credentials::{Digest, KeyHash, Secret, StoredHash};
use crate::network_list::List;
use crate::problem::{At, Problems};
use crate::value::{Network, Rate, Span};

/// Whom the gateway knows: a customer of its APIs, with credentials of any kind. The filters basic_auth, api_key,
/// jwt and hmac find out who is asking; acl asks for groups.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Whether its credentials count. A disabled consumer gets 403. Default "enabled".
    pub status: Status,
    /// Groups it belongs to, for the filter acl and for expressions.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    /// Hashes of its API keys, for the filter api_key. `sluice make-key` makes a key and its hash.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub api_keys: Vec<KeyHash>,
    /// A user name and a password, for the filter basic_auth.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub basic: Option<Basic>,
    /// Whose tokens are its own, for the filter jwt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jwt: Option<Jwt>,
    /// Secrets it signs requests with, by key id, for the filter hmac: at least 16 bytes each. Several, so that
    /// one can be replaced while the other is still in use.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub hmac_keys: BTreeMap<String, Secret>,
    /// How fast it may ask, all its addresses together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<RateLimit>,
    /// How much it may ask for in a period.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quota: Option<Quota>,
    /// The addresses it may come from. Others get 403.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip_access: Option<IpAccess>,
}

/// Whether a consumer's credentials count.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// They do.
    #[default]
    Enabled,
    /// Who has them gets 403.
    Disabled,
}

/// A user name and a password.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Basic {
    /// The user name. Default: the consumer's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The password's hash.
    pub password: StoredHash,
}

/// Whose tokens are a consumer's own.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Jwt {
    /// The claim `iss` its tokens must have. Default: any issuer that the filter accepts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// What stands in its tokens' claim `sub`, or in the filter's `consumer_claim`.
    pub subject: String,
}

/// How fast a consumer may ask.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct RateLimit {
    /// Requests in a time: "100/s", "600/m".
    pub rate: Rate,
    /// Requests that may come at once. Default: those of one second, at least 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst: Option<u32>,
}

/// How much a consumer may ask for in a period.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Quota {
    /// Requests.
    pub limit: u64,
    /// "hour", "day", "week" or "month" of the calendar in UTC, or any length of time: "90m".
    pub period: Span,
}

/// The addresses a consumer may come from.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct IpAccess {
    /// Who is allowed; everybody else is denied then.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allow: Vec<Network>,
    /// Who is denied, though the other list allows it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub deny: Vec<Network>,
}

/// The shortest secret that requests are signed with, in bytes: RFC 2104 section 3 wants the length of the hash's
/// output, which old secrets rarely have.
const SHORTEST_SECRET: usize = 16;

/// Longest name of a consumer, in bytes: it is a label of metrics and stands in each log line.
const LONGEST_NAME: usize = 128;

/// The consumers of a document, whose table stands at `at`. Touches no file.
pub fn check(table: &BTreeMap<String, Config>, at: &At, problems: &mut Problems) -> Arc<Consumers> {
    let mut consumers = Consumers::default();
    for (index, (name, config)) in table.iter().enumerate() {
        let at = at.key(name);
        if name.is_empty() || name.len() > LONGEST_NAME || name.chars().any(char::is_control) {
            problems.add(&at, format!("a consumer's name has 1 to {LONGEST_NAME} bytes that can be printed"));
        }
        consumers.list.push(Arc::new(config.consumer((name, index), &at, problems)));
        config.index(&mut consumers, (name, index), &at, problems);
    }
    Arc::new(consumers)
}

impl Config {
    fn consumer(&self, (name, position): (&str, usize), at: &At, problems: &mut Problems) -> Consumer {
        for (index, group) in self.groups.iter().enumerate() {
            let at = at.key("groups").index(index);
            // A comma would make two of one where they are written in one text.
            if group.is_empty() || group.contains(|c: char| c == ',' || c.is_control()) {
                problems.add(&at, "a group's name is empty, or has a comma or control characters in it");
            } else if self.groups[..index].contains(group) {
                problems.add(&at, format!("group `{group}` stands here twice"));
            }
        }
        if self.rate_limit.is_some_and(|limit| limit.burst == Some(0)) {
            let at = at.key("rate_limit").key("burst");
            problems.add(&at, "with a burst of zero nothing would be let through");
        }
        if self.quota.is_some_and(|quota| quota.limit == 0) {
            let at = at.key("quota").key("limit");
            problems
                .add(&at, "with a quota of zero nothing would be let through")
                .hint("status = \"disabled\"");
        }
        if self.ip_access.as_ref().is_some_and(|lists| lists.allow.is_empty() && lists.deny.is_empty()) {
            let problem = problems.add(&at.key("ip_access"), "it allows everybody");
            problem.hint("give it `allow` or `deny`, or leave it out");
        }
        let lists = self.ip_access.as_ref();
        Consumer {
            name: name.into(),
            position,
            groups: self.groups.iter().map(|group| group.as_str().into()).collect(),
            groups_text: self.groups.join(",").into(),
            standing: match self.status {
                Status::Enabled => Standing::Enabled,
                Status::Disabled => Standing::Disabled,
            },
            rate_limit: self.rate_limit,
            quota: self.quota,
            allow: lists.filter(|lists| !lists.allow.is_empty()).map(|lists| List::new(&lists.allow, None)),
            deny: lists.map(|lists| List::new(&lists.deny, None)).unwrap_or_default(),
        }
    }

    /// Notes its credentials, each of which must be its own.
    fn index(&self, all: &mut Consumers, (name, index): (&str, usize), at: &At, problems: &mut Problems) {
        for (place, key) in self.api_keys.iter().enumerate() {
            let at = at.key("api_keys").index(place);
            let Some(digest) = problems.take(&at, Digest::read(key)) else { continue };
            if let Some(other) = all.keys.insert(digest, index) {
                let other = &all.list[other].name;
                problems.add(&at, format!("consumer `{other}` has this API key already"));
            }
        }
        if let Some(basic) = &self.basic {
            let (key, user) = match &basic.user {
                Some(user) => ("user", user.as_str()),
                None => ("password", name),
            };
            let at = at.key("basic");
            match all.users.list(user, &basic.password) {
                Err(message) => _ = problems.add(&at.key(key), message),
                Ok(user) => _ = all.by_user.insert(user, index),
            }
        }
        if let Some(Jwt { issuer, subject }) = &self.jwt {
            let at = at.key("jwt").key("subject");
            let same = all.subjects.entry(subject.as_str().into()).or_default();
            if subject.is_empty() {
                problems.add(&at, "an empty subject is nobody's");
            } else if let Some((_, other)) =
                same.iter().find(|(known, _)| known.as_deref() == issuer.as_deref())
            {
                let other = &all.list[*other].name;
                problems.add(&at, format!("consumer `{other}` has this subject of the same issuer already"));
            }
            same.push((issuer.as_deref().map(Box::from), index));
        }
        for (id, secret) in &self.hmac_keys {
            let at = at.key("hmac_keys").key(id);
            // Where it is written in a request it stands in quotes.
            if id.is_empty()
                || id.bytes().any(|byte| !(0x20..0x7f).contains(&byte) || b"\"\\".contains(&byte))
            {
                problems.add(&at, "a key id has printable ASCII characters only, and no quotes");
            }
            if secret.bytes().len() < SHORTEST_SECRET {
                let message =
                    format!("a secret that requests are signed with has at least {SHORTEST_SECRET} bytes");
                problems.add(&at, message).hint("openssl rand -base64 32");
            }
            if let Some((other, _)) = all.hmac_keys.insert(id.as_str().into(), (index, secret.clone())) {
                let other = &all.list[other].name;
                problems.add(&at, format!("consumer `{other}` has key id `{id}` already"));
            }
        }
    }
}
