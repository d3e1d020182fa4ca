//! Which route a request takes.
//!
//! Promise: the order below is the whole rule, [`Table::find`] costs the same with ten routes and with a
//! hundred thousand, and [`Table::explain`] can say of every route why it won or lost.
//!
//! # The order
//!
//! A route matches when its host, its path and all its conditions match. Among those that match, the first
//! of this order wins:
//!
//! 1. **Priority**: the higher one.
//! 2. **Host**: an exact host, then the wildcard with more labels, then any host.
//! 3. **Path**:
//!    1. a literal path (`path` without parameters, `location = /x`);
//!    2. a `location ^~ /x`, when it is the longest prefix among the locations that match;
//!    3. a `path_regex`;
//!    4. a `location ~ re` or `~* re`;
//!    5. templates and prefixes, compared segment by segment: literal, then enum, then parameters with
//!       text around them (more text first), then typed, then plain, then `{*tail}`, then a plain
//!       `location` prefix (longer first), then `path_prefix`; so of two prefixes the longer one wins;
//!    6. no path at all.
//! 4. **Conditions**: more of them. `methods`, `source`, `listeners` and `when` count one each; so does
//!    every header, query parameter and cookie. Not for location regexes: there only the order counts.
//! 5. **The order written**, for regexes, and for routes whose conditions exclude each other.
//!
//! Two routes that can match the same request and are equal up to step 4 are a problem at load, except
//! regexes: location regexes are tried in the order written, as nginx does, and path regexes tie only
//! when their texts are equal.
//!
//! # Locations
//!
//! Among `location` routes of the same host and priority this is nginx's procedure, over those whose other
//! conditions hold (nginx has none): an exact location wins at once; else the longest prefix is remembered;
//! if it is `^~` it wins; else the first regex that matches, in the order written; else the remembered
//! prefix. A location whose conditions do not hold is as if it were not there.
//!
//! # Methods
//!
//! When routes match but for the method, the answer is 405 with all their methods in Allow. HEAD is allowed
//! where GET is listed. OPTIONS is a method like any other.
//!
//! Read in this order: [`Match`] (what people write), `host`, `path`, `segment`, `location`, `condition`,
//! `guard` (all conditions of a route), `order` (what comes first), `trie`, `index`, `table`, `explain`.

mod condition;
mod decode;
mod expiry;
mod explain;
mod guard;
mod hash;
mod host;
mod index;
mod location;
mod method;
#[cfg(test)]
mod oracle;
mod order;
mod path;
mod segment;
mod streams;
mod table;
#[cfg(test)]
mod tests;
mod ties;
mod trie;

use std::collections::BTreeMap;
use std::ops::Range;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::facts::Params;
use crate::problem::{At, Problems};
use crate::value::Network;

pub use condition::{Condition, Number, Tests};
pub use expiry::parse_time;
pub use explain::{Explanation, Lost, Reason, Standing, Verdict};
pub use streams::Streams;
pub use table::Table;

/// What must be true of a request. Everything written must hold; what is left out is not looked at.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Match {
    /// Hosts, any of which may be asked for: "shop.example", "*.shop.example" (every name below it, at any
    /// depth), an address ("192.0.2.7", "[::1]"), or "*". Case, port and a final dot of the request's Host
    /// do not matter. Default: any host.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<String>,
    /// The whole path, literally ("/about") or with parameters: `{id}` is one segment that is not empty,
    /// `{id:int}` and `{id:uuid}` one of that form, `{kind:a|b}` one of these words, and a final `{*rest}`
    /// the rest of the path, at least one character. Text may stand around a parameter: "/v1/{id}.json".
    /// `{{` and `}}` are braces. Paths are compared percent-decoded (but for %2F).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The first segments of the path: "/api" matches /api, /api/ and /api/x, not /apix. A final slash
    /// means nothing. "/" matches every path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path_prefix: Option<String>,
    /// A regex found anywhere in the decoded path; write ^ and $ to match it whole. The syntax is that of
    /// the Rust regex crate: linear time, no look-around, no backreferences.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path_regex: Option<String>,
    /// A location as nginx writes it: "= /x" this path, "/x" paths that start with this text (also /xy),
    /// "^~ /x" the same but before regexes, "~ re" a regex, "~* re" one without regard to case. Locations
    /// of the same host and priority are chosen by nginx's procedure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub location: Option<String>,
    /// Methods: "GET" (which allows HEAD too), "POST". Other methods of a path that matches get 405 with
    /// Allow. Default: any method.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<String>,
    /// Header fields by name. A text is the whole value of one of its lines; a table holds tests.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, Condition>,
    /// Query parameters by name, both decoded; any of several values of one name may match.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub query: BTreeMap<String, Condition>,
    /// Cookies by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub cookies: BTreeMap<String, Condition>,
    /// Networks or addresses the client may come from: "10.0.0.0/8", "192.0.2.7".
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub source: Vec<Network>,
    /// Names of listeners the request may arrive on. Default: any.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub listeners: Vec<String>,
    /// Server names a TLS client may ask for (SNI), on routes of TCP listeners: "db.example",
    /// "*.db.example". Default: any, also none, and connections without TLS.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sni: Vec<String>,
    /// An expression that must be true: `request.headers["x-beta"] == "1"`. Path parameters are not known
    /// yet when it is asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub when: Option<String>,
}

/// One route as the table needs it.
#[derive(Clone, Debug)]
pub struct RouteSpec<'a> {
    /// Its name, for problems and explanations.
    pub name: &'a str,
    /// What must be true of the request.
    pub matches: &'a Match,
    /// The higher wins.
    pub priority: i32,
    /// Whether it takes part. A route that does not is still checked.
    pub enabled: bool,
    /// The moment from which it matches no longer, in Unix seconds: see [`parse_time`].
    pub expires: Option<u64>,
    /// Where the route stands in the document; its match is taken to be under the key `match`.
    pub at: At,
}

/// What a lookup gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// A route.
    Found {
        /// Its position among the routes the table was built from.
        route: usize,
        /// What its path template took from the path.
        params: Params,
    },
    /// Routes match but for the method.
    MethodNotAllowed {
        /// The value of Allow: "GET, HEAD, POST".
        allow: String,
    },
    /// No route matches.
    NotFound,
}

/// What is wrong in one text of a match.
#[derive(Debug, PartialEq, Eq)]
struct Complaint {
    part: Option<Range<usize>>,
    message: String,
    hint: Option<String>,
}

impl Complaint {
    fn new(message: impl Into<String>, hint: impl Into<String>) -> Complaint {
        Complaint { part: None, message: message.into(), hint: Some(hint.into()) }
    }

    fn part(self, part: Range<usize>) -> Complaint {
        Complaint { part: Some(part), ..self }
    }

    fn report(self, at: &At, problems: &mut Problems) {
        let problem = problems.add(at, self.message);
        problem.part = self.part;
        problem.hint = self.hint;
    }
}

/// Keeps what a parse step gave, or reports what is wrong with it.
fn keep<T>(result: Result<T, Complaint>, at: &At, problems: &mut Problems) -> Option<T> {
    result.map_err(|complaint| complaint.report(at, problems)).ok()
}
