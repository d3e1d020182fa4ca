//! What a document says of the access log, and the plan it becomes.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sluice_http::FieldName;

use super::redact::{self, Parameters};
use crate::problem::{At, Problems};
use crate::value::Ratio;

/// The access log: one line for each exchange, written when it ends.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// A file, to which lines are appended, or "-" for standard output. Default "-".
    pub path: String,
    /// How a line is written. Default "json".
    pub format: Layout,
    /// Request headers that stand in each line, beside those that always do. JSON only.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<String>,
    /// Values that never stand in a line, beside the usual credentials.
    #[serde(skip_serializing_if = "Redact::is_empty")]
    pub redact: Redact,
    /// The share of exchanges that are logged, 0 to 1, chosen by request id. Failures and answers with status
    /// 500 and above are always logged. Default 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sample: Option<Ratio>,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            path: "-".to_owned(),
            format: Layout::Json,
            headers: Vec::new(),
            redact: Redact::default(),
            sample: None,
        }
    }
}

/// How a line is written.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Layout {
    /// One JSON object; its keys follow OpenTelemetry's names for HTTP.
    #[default]
    Json,
    /// The combined log format of Apache httpd and nginx.
    Combined,
}

/// Values that never stand in a line, beside the usual credentials.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct Redact {
    /// Headers whose values are written as `[redacted]`. Authorization, cookies and the usual API key and
    /// token headers always are.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<String>,
    /// Query parameters whose values are written as `[redacted]`, in any case, with or without "-" and "_".
    /// Tokens, passwords, keys, codes and signatures always are.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub query: Vec<String>,
}

impl Redact {
    fn is_empty(&self) -> bool {
        self.headers.is_empty() && self.query.is_empty()
    }
}

/// A checked access log. Equal plans write the same lines to the same place, so a log whose plan did not
/// change runs on across a reload.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Where lines go.
    pub place: Place,
    /// How a line is written.
    pub layout: Layout,
    pub(super) headers: Vec<Extra>,
    pub(super) parameters: Parameters,
    /// Exchanges are logged whose request id hashes below it; 2^32 is all of them.
    pub(super) sample: u64,
}

/// Where lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// Standard output.
    Stdout,
    /// This file.
    File(PathBuf),
}

/// A request header that stands in each line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Extra {
    pub(super) name: FieldName,
    /// The key of the JSON object: `http.request.header.` and the name in lower case.
    pub(super) key: Box<str>,
    pub(super) secret: bool,
}

impl Config {
    /// Checks it; `at` is where it stands in the document. Touches no file.
    pub fn build(&self, at: &At, problems: &mut Problems) -> Option<Plan> {
        let found = problems.iter().count();
        let place = match self.path.as_str() {
            "-" => Place::Stdout,
            path => Place::File(path.into()),
        };
        if self.path.is_empty() || self.path.contains('\0') {
            let problem = problems.add(&at.key("path"), "the path of the access log is empty or not a path");
            problem.hint("write a file name, or \"-\" for standard output");
        }
        if self.layout_ignores_headers() {
            let message = "the combined format has no place for further headers";
            problems.add(&at.key("headers"), message).hint("use format = \"json\", or leave `headers` out");
        }
        let at_redact = at.key("redact");
        let secret = field_names(&self.redact.headers, &at_redact.key("headers"), problems);
        let headers = field_names(&self.headers, &at.key("headers"), problems);
        let headers = headers.into_iter().map(|name| {
            let lower = name.as_str().to_ascii_lowercase();
            let listed = secret.iter().any(|other| other.as_str().eq_ignore_ascii_case(&lower));
            let key = format!("http.request.header.{lower}").into_boxed_str();
            Extra { secret: listed || redact::is_secret(&name), name, key }
        });
        let headers = headers.collect();
        let parameters = match Parameters::new(&self.redact.query) {
            Ok(parameters) => parameters,
            Err(wrong) => {
                for name in wrong {
                    let message = format!("`{name}` can never be the name of a query parameter");
                    problems.add(&at_redact.key("query"), message);
                }
                return None;
            }
        };
        let sample = self.sample.map_or(1 << 32, |Ratio(share)| (share * 4_294_967_296.0) as u64);
        let plan = Plan { place, layout: self.format, headers, parameters, sample };
        (problems.iter().count() == found).then_some(plan)
    }

    fn layout_ignores_headers(&self) -> bool {
        self.format == Layout::Combined && !self.headers.is_empty()
    }
}

fn field_names(names: &[String], at: &At, problems: &mut Problems) -> Vec<FieldName> {
    let mut found: Vec<FieldName> = Vec::new();
    for (index, text) in names.iter().enumerate() {
        match FieldName::new(text) {
            None => {
                problems.add(&at.index(index), format!("`{text}` is not a header name"));
            }
            Some(name) if found.iter().any(|other| other.as_str().eq_ignore_ascii_case(text)) => {
                problems.add(&at.index(index), format!("`{}` stands here twice", name.as_str()));
            }
            Some(name) => found.push(name),
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn build(text: &str) -> Result<Plan, Vec<String>> {
        let config: Config = toml_edit::de::from_str(text).unwrap();
        let mut problems = Problems::new();
        let plan = config.build(&At::root().key("access_log"), &mut problems);
        assert_eq!(plan.is_some(), problems.is_empty());
        plan.ok_or(problems.iter().map(|problem| format!("{}: {}", problem.at, problem.message)).collect())
    }

    #[test]
    fn an_empty_table_logs_everything_as_json_to_standard_output() {
        let plan = build("").unwrap();
        assert_eq!((plan.place, plan.layout, plan.sample), (Place::Stdout, Layout::Json, 1 << 32));
    }

    #[test]
    fn listed_headers_are_marked_when_they_hold_secrets() {
        let plan = build(
            "path = \"a.log\"\nheaders = [\"X-Tenant\", \"authorization\", \"X-Mine\"]\nredact = { headers = [\"x-mine\"] }",
        );
        let plan = plan.unwrap();
        let marks: Vec<_> = plan.headers.iter().map(|extra| (&*extra.key, extra.secret)).collect();
        assert_eq!(
            marks,
            [
                ("http.request.header.x-tenant", false),
                ("http.request.header.authorization", true),
                ("http.request.header.x-mine", true)
            ]
        );
        assert_eq!(plan.place, Place::File("a.log".into()));
    }

    #[test]
    fn every_problem_is_told_at_its_place() {
        let problems = build(
            "path = \"\"\nformat = \"combined\"\nheaders = [\"a b\", \"X\", \"x\"]\nredact = { headers = [\"\"], query = [\"a=b\"] }",
        );
        assert_eq!(
            problems.unwrap_err(),
            [
                "access_log.path: the path of the access log is empty or not a path",
                "access_log.headers: the combined format has no place for further headers",
                "access_log.redact.headers[0]: `` is not a header name",
                "access_log.headers[0]: `a b` is not a header name",
                "access_log.headers[2]: `x` stands here twice",
                "access_log.redact.query: `a=b` can never be the name of a query parameter",
            ]
        );
    }

    #[test]
    fn unknown_keys_and_shares_above_one_are_refused() {
        assert!(toml_edit::de::from_str::<Config>("pfad = \"x\"").is_err());
        assert!(toml_edit::de::from_str::<Config>("sample = 1.5").is_err());
        assert!(toml_edit::de::from_str::<Config>("format = \"clf\"").is_err());
    }
}
