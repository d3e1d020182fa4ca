//! The `cors` filter: which pages of other origins may read what a route answers (Fetch standard, "CORS
//! protocol").
//!
//! Promise: a preflight is answered here and reaches no endpoint, also where the route's methods do not name
//! OPTIONS; what an endpoint says about origins never passes; an answer that depends on Origin always says so
//! in Vary, for every client and status, also when the gateway itself answers; credentials are never offered
//! to every origin.

mod origins;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sluice_http::name::is_value;
use sluice_http::{Body, FieldName, Fields, Method, NameId, Request, RequestHead, Response, ResponseHead};

use super::{Filter, Flow};
use crate::exchange::{CrossOrigin, Exchange};
use crate::failure::Failure;
use crate::problem::{At, Problems};
use crate::scene::Scene;
use crate::value::Period;
use origins::Origins;

/// Lets pages of other origins use a route (CORS). Write it first among the filters: what a filter before it
/// refuses, a page cannot read, and a preflight carries no credentials. Preflights find the route as the
/// request they ask for would, as far as they name it: by method, host, path and query, not by its headers and
/// cookies.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Who may: origins as browsers send them, "https://shop.example", "http://localhost:3000"; with a star
    /// for every name below, "https://*.shop.example", or for every port, "http://localhost:*"; "*" for all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub origins: Vec<String>,
    /// More of them: regexes, each for a whole origin.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub origins_regex: Vec<String>,
    /// With which methods. Default GET, HEAD and POST; "*" for all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<String>,
    /// With which header fields beside those that every page may send. "*" for all. Default none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<String>,
    /// Which header fields of the answer a page may read beside those that every page may. "*" for all,
    /// without credentials. Default none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub expose: Vec<String>,
    /// Whether requests may carry cookies and other credentials. Not together with every origin. Default
    /// false.
    pub credentials: bool,
    /// How long browsers may keep the answer to a preflight. Default "10m"; "0s": not at all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_age: Option<Period>,
    /// Whether pages of public networks may ask for what lies in a private one. Default false.
    pub private_network: bool,
}

/// The checked filter.
#[derive(Debug)]
pub struct Cors {
    origins: Origins,
    methods: Allowed,
    headers: Allowed,
    expose: Option<Box<str>>,
    credentials: Credentials,
    max_age: String,
    private_network: PrivateNetwork,
}

/// What may be asked for.
#[derive(Debug)]
enum Allowed {
    /// What the page asks for is told to be allowed: "*" would mean nothing with credentials.
    All,
    /// This list.
    These(Box<str>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Credentials {
    Without,
    With,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PrivateNetwork {
    Closed,
    Open,
}

const ASKS_PRIVATE: &str = "Access-Control-Request-Private-Network";
const ALLOWS_PRIVATE: &str = "Access-Control-Allow-Private-Network";

/// What endpoints may not say themselves.
const OURS: [NameId; 6] = [
    NameId::AccessControlAllowOrigin,
    NameId::AccessControlAllowCredentials,
    NameId::AccessControlAllowMethods,
    NameId::AccessControlAllowHeaders,
    NameId::AccessControlExposeHeaders,
    NameId::AccessControlMaxAge,
];

/// The method that a preflight asks for; `None` for every other request.
pub fn asked(head: &RequestHead) -> Option<&str> {
    (head.method == Method::Options && head.fields.contains(NameId::Origin))
        .then(|| head.fields.get_str(NameId::AccessControlRequestMethod))
        .flatten()
}

impl Filter for Cors {
    type Config = Config;

    const NAME: &'static str = "cors";

    fn build(config: &Config, at: &At, problems: &mut Problems) -> Option<Cors> {
        let found = problems.iter().count();
        let mut origins = Origins::build(&config.origins, &at.key("origins"), problems);
        origins.add_regexes(&config.origins_regex, &at.key("origins_regex"), problems);
        if config.origins.is_empty() && config.origins_regex.is_empty() {
            problems.add(at, "without origins nobody may").hint("origins = [\"https://shop.example\"]");
        }
        let methods = methods(&config.methods, &at.key("methods"), problems);
        let headers = names(&config.headers, &at.key("headers"), problems);
        let expose = names(&config.expose, &at.key("expose"), problems);
        if config.credentials {
            check_credentials(config, &origins, at, problems);
        }
        debug_assert!(problems.iter().count() > found || !origins.is_empty());
        (problems.iter().count() == found).then(|| Cors {
            origins,
            methods,
            headers,
            expose: match expose {
                Allowed::All => Some("*".into()),
                Allowed::These(list) => Some(list).filter(|list| !list.is_empty()),
            },
            credentials: if config.credentials { Credentials::With } else { Credentials::Without },
            max_age: config.max_age.map_or(600, |period| period.0.as_secs()).to_string(),
            private_network: match config.private_network {
                true => PrivateNetwork::Open,
                false => PrivateNetwork::Closed,
            },
        })
    }

    async fn on_request(
        &self,
        _scene: &Scene<'_>,
        exchange: &mut Exchange,
        request: &mut Request,
    ) -> Result<Flow, Failure> {
        let fields = &request.head.fields;
        let mut lines = fields.get_all(NameId::Origin);
        let origin = lines.next().filter(|_| lines.next().is_none());
        let permitted = origin.and_then(|origin| std::str::from_utf8(origin).ok());
        let permitted = permitted.filter(|origin| self.origins.include(origin));
        if let Some(method) = asked(&request.head) {
            let answer = self.preflight(permitted, method, fields);
            exchange.cross_origin = Some(Box::new(CrossOrigin::Told));
            return Ok(Flow::Answer(answer));
        }
        exchange.cross_origin = permitted.map(|origin| Box::new(CrossOrigin::Permitted(origin.into())));
        Ok(Flow::Continue)
    }

    async fn on_response(&self, exchange: &mut Exchange, response: &mut Response) -> Result<(), Failure> {
        let origin = match exchange.cross_origin.as_deref() {
            Some(CrossOrigin::Told) => return Ok(()),
            Some(CrossOrigin::Permitted(origin)) => Some(&**origin),
            None => None,
        };
        let fields = &mut response.head.fields;
        let is_ours = |id, name: &[u8]| {
            OURS.contains(&id)
                || (id == NameId::Other && name.eq_ignore_ascii_case(ALLOWS_PRIVATE.as_bytes()))
        };
        fields.retain(|id, name, _| !is_ours(id, name));
        self.permit(origin, fields);
        if let Some(expose) = &self.expose
            && fields.contains(NameId::AccessControlAllowOrigin)
        {
            fields.append(NameId::AccessControlExposeHeaders, expose.as_bytes());
        }
        Ok(())
    }
}

impl Cors {
    /// Says whether this origin may read the answer.
    fn permit(&self, origin: Option<&str>, fields: &mut Fields) {
        if self.origins.every() {
            // The same for everybody: caches may keep one answer.
            fields.append(NameId::AccessControlAllowOrigin, b"*");
            return;
        }
        vary(fields, "Origin");
        let Some(origin) = origin else { return };
        fields.append(NameId::AccessControlAllowOrigin, origin.as_bytes());
        if self.credentials == Credentials::With {
            fields.append(NameId::AccessControlAllowCredentials, b"true");
        }
    }

    /// The answer to a preflight. Who may not is told nothing: that is how a browser knows.
    fn preflight(&self, origin: Option<&str>, method: &str, asked: &Fields) -> Response {
        let mut head = ResponseHead::new(204);
        let fields = &mut head.fields;
        self.permit(origin, fields);
        let mut depends = String::from("Access-Control-Request-Method, Access-Control-Request-Headers");
        if self.private_network == PrivateNetwork::Open {
            depends.push_str(", ");
            depends.push_str(ASKS_PRIVATE);
        }
        fields.append(NameId::Vary, depends.as_bytes());
        if !fields.contains(NameId::AccessControlAllowOrigin) {
            return Response { head, body: Body::Empty };
        }
        let methods = match &self.methods {
            Allowed::All => method.as_bytes(),
            Allowed::These(list) => list.as_bytes(),
        };
        fields.append(NameId::AccessControlAllowMethods, methods);
        match &self.headers {
            Allowed::These(list) if list.is_empty() => {}
            Allowed::These(list) => fields.append(NameId::AccessControlAllowHeaders, list.as_bytes()),
            Allowed::All => {
                if let Some(wanted) = asked.get(NameId::AccessControlRequestHeaders) {
                    fields.append(NameId::AccessControlAllowHeaders, wanted);
                }
            }
        }
        fields.append(NameId::AccessControlMaxAge, self.max_age.as_bytes());
        if self.private_network == PrivateNetwork::Open
            && named(asked, ASKS_PRIVATE).is_some_and(|value| value == b"true")
        {
            append(fields, ALLOWS_PRIVATE, b"true");
        }
        Response { head, body: Body::Empty }
    }
}

fn named<'a>(fields: &'a Fields, name: &str) -> Option<&'a [u8]> {
    let mut lines = fields.iter();
    lines.find(|(_, line, _)| line.eq_ignore_ascii_case(name.as_bytes())).map(|(_, _, value)| value)
}

fn append(fields: &mut Fields, name: &str, value: &[u8]) {
    if let Some(name) = FieldName::new(name) {
        fields.append(&name, value);
    }
}

/// Adds a name to Vary, unless it stands there or everything does.
fn vary(fields: &mut Fields, name: &str) {
    let is_it = |entry: &[u8]| entry == b"*" || entry.eq_ignore_ascii_case(name.as_bytes());
    let said = fields.get_all(NameId::Vary).flat_map(|line| line.split(|byte| *byte == b','));
    let is_said = said.map(<[u8]>::trim_ascii).any(is_it);
    if !is_said {
        fields.append(NameId::Vary, name.as_bytes());
    }
}

fn check_credentials(config: &Config, origins: &Origins, at: &At, problems: &mut Problems) {
    if origins.every() {
        let message = "credentials for every origin would hand the users' accounts to every page";
        problems.add(&at.key("credentials"), message).hint("name the origins, or leave out `credentials`");
    }
    if origins.null() {
        let message = "every page can make itself the origin \"null\": it may not carry credentials";
        problems.add(&at.key("origins"), message).hint("leave out \"null\", or `credentials`");
    }
    // "null", and one that nobody can have meant.
    let anybody = |origin: &&str| !origins.every() && !origins.null() && origins.matched_by_regex(origin);
    if ["null", "https://nobody-has-this-name.invalid"].iter().any(anybody) {
        let message = "a regex here takes every page, or \"null\", which every page can make itself: it may not \
                       carry credentials";
        problems
            .add(&at.key("origins_regex"), message)
            .hint("write more of the origin, \"https://[a-z]+\\.shop\\.example\"");
    }
    if config.expose.iter().any(|name| name == "*") {
        let message = "browsers take \"*\" for a name here when there are credentials";
        problems.add(&at.key("expose"), message).hint("name the fields");
    }
}

fn methods(texts: &[String], at: &At, problems: &mut Problems) -> Allowed {
    if texts.is_empty() {
        return Allowed::These("GET, HEAD, POST".into());
    }
    list(texts, at, problems, |text, at, problems| {
        let known = Method::of(text.as_bytes()) != Method::Other;
        let upper = text.to_ascii_uppercase();
        if FieldName::new(text).is_none() {
            problems.add(at, format!("`{text}` is not a method"));
        } else if !known && Method::of(upper.as_bytes()) != Method::Other {
            problems
                .add(at, format!("`{text}` is no method: case matters"))
                .hint(format!("write \"{upper}\""));
        }
    })
}

fn names(texts: &[String], at: &At, problems: &mut Problems) -> Allowed {
    list(texts, at, problems, |text, at, problems| {
        if FieldName::new(text).is_none() {
            problems.add(at, format!("`{text}` is not a field name"));
        }
    })
}

fn list(
    texts: &[String],
    at: &At,
    problems: &mut Problems,
    check: impl Fn(&str, &At, &mut Problems),
) -> Allowed {
    if texts.iter().any(|text| text == "*") {
        return Allowed::All;
    }
    for (index, text) in texts.iter().enumerate() {
        check(text, &at.index(index), problems);
    }
    let list = texts.join(", ");
    debug_assert!(!problems.is_empty() || list.bytes().all(is_value));
    Allowed::These(list.into())
}

#[cfg(test)]
mod tests;
