//! The path of a match, compiled: one of six forms.
//!
//! Promise: patterns are normalised as request paths are, so that a pattern that can never match because
//! of its spelling is either repaired (percent-encoding) or refused (dot segments, a query).

use std::fmt;

use regex::bytes::Regex;

use super::condition::{self, Case};
use super::location::{self, Over};
use super::segment::{Segment, longer_first, starts_with};
use super::{Complaint, Match, decode, keep};
use crate::facts::Params;
use crate::percent::{self, Plus};
use crate::problem::{At, Problems};

/// The path of a match.
#[derive(Debug)]
pub(super) struct Path {
    pub(super) form: Form,
    /// The key and the text as written; empty when there is none.
    written: Box<str>,
}

/// What a path is matched with.
#[derive(Debug)]
pub(super) enum Form {
    /// Nothing: every path matches.
    Any,
    /// This path: `path` without parameters, `location = /x`.
    Literal(Box<str>),
    /// Segment by segment: `path` with parameters, `path_prefix`.
    Template(Template),
    /// `path_regex`.
    Regex(Box<PathRegex>),
    /// `location /x`, `location ^~ /x`.
    LocationPrefix(Box<str>, Over),
    /// `location ~ re`, `location ~* re`.
    LocationRegex(Box<PathRegex>),
}

/// Segments, and what may come after them.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Template {
    pub(super) segments: Vec<Segment>,
    pub(super) end: End,
}

/// What comes after the segments of a template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Nothing.
    Here,
    /// Anything: the rest is the last segment, a tail.
    Tail,
    /// Nothing, or a slash and anything.
    Prefix,
}

/// A regex over paths.
#[derive(Debug)]
pub(super) struct PathRegex {
    pub(super) text: Box<str>,
    /// What every path it matches starts with: compared first, since it is so much cheaper.
    start: Box<str>,
    regex: Regex,
}

/// How specific a path is; less comes first. Between two forms that can match the same path this is the
/// order of the module above.
pub(super) type PathOrder = Vec<u32>;

impl Path {
    /// Compiles the path of a match, which stands at `at`; `None` when a problem was added.
    pub(super) fn compile(from: &Match, at: &At, problems: &mut Problems) -> Option<Path> {
        type Parse = fn(&str) -> Result<Form, Complaint>;
        let kinds: [(&str, &Option<String>, Parse); 4] = [
            ("path", &from.path, template),
            ("path_prefix", &from.path_prefix, prefix),
            ("path_regex", &from.path_regex, |text| {
                PathRegex::compile(text, Case::Sensitive).map(|regex| Form::Regex(regex.into()))
            }),
            ("location", &from.location, location::parse),
        ];
        let mut written = kinds.iter().filter_map(|(key, text, parse)| Some((*key, text.as_ref()?, *parse)));
        let Some((key, text, parse)) = written.next() else {
            return Some(Path { form: Form::Any, written: "".into() });
        };
        let others: Vec<_> = written.map(|(other, ..)| other).collect();
        for other in &others {
            problems
                .add(&at.key(*other), format!("`{key}` already says which paths match"))
                .hint("keep one of path, path_prefix, path_regex and location");
        }
        let form = keep(parse(text), &at.key(key), problems)?;
        others.is_empty().then(|| Path { form, written: format!("{key} {text}").into() })
    }

    /// Whether it matches a normalised path.
    pub(super) fn matches(&self, path: &str) -> bool {
        match &self.form {
            Form::Any => true,
            Form::Literal(text) => **text == *path,
            Form::Template(template) => template.matches(path),
            Form::Regex(regex) | Form::LocationRegex(regex) => regex.matches(path),
            Form::LocationPrefix(text, _) => path.starts_with(&**text),
        }
    }

    /// The parameters of a path that matches.
    pub(super) fn params(&self, path: &str) -> Params {
        match &self.form {
            Form::Template(template) => template.params(path),
            _ => Params::default(),
        }
    }

    /// Whether a path that matches may give parameters.
    pub(super) fn has_params(&self) -> bool {
        let literal = |segment: &Segment| matches!(segment, Segment::Literal(_));
        matches!(&self.form, Form::Template(template) if !template.segments.iter().all(literal))
    }

    /// How specific it is.
    pub(super) fn order(&self) -> PathOrder {
        match &self.form {
            Form::Literal(_) => vec![0],
            Form::LocationPrefix(text, Over::Regexes) => vec![1, u32::MAX - text.len() as u32],
            Form::Regex(_) => vec![2],
            Form::LocationRegex(_) => vec![3],
            Form::Template(template) => template.order(),
            Form::LocationPrefix(text, Over::Nothing) => {
                // Whole segments are literals; the last may go on.
                let whole = text.matches('/').count() - 1;
                let rest = text.rsplit('/').next().unwrap_or_default();
                let last = PARTIAL | longer_first(rest.len());
                std::iter::once(4).chain(std::iter::repeat_n(0, whole)).chain([last]).collect()
            }
            Form::Any => vec![5],
        }
    }
}

/// A parameter's value: what the normalised path still keeps encoded is decoded here, once.
fn value_of(text: &str) -> String {
    String::from_utf8_lossy(&percent::decode(text.as_bytes(), Plus::Literal)).into_owned()
}

const PARTIAL: u32 = 4 << 24;
const PREFIX: u32 = 5 << 24;

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.written.is_empty() { "any path" } else { &self.written })
    }
}

impl Template {
    fn matches(&self, path: &str) -> bool {
        let mut rest = path.strip_prefix('/');
        if rest.is_none() {
            // "*" (OPTIONS) and "" (CONNECT) have no segments: only the prefix of everything matches.
            return self.segments.is_empty() && self.end == End::Prefix;
        }
        for segment in &self.segments {
            let Some(text) = rest else { return false };
            if let Segment::Tail { .. } = segment {
                return !text.is_empty();
            }
            let (first, after) = first_segment(text);
            if !segment.matches(first) {
                return false;
            }
            rest = after;
        }
        rest.is_none() || self.end == End::Prefix
    }

    /// The parameters of a path that matches: so only the segments that are parameters are looked at.
    fn params(&self, path: &str) -> Params {
        let mut params = Params::default();
        let mut rest = path.strip_prefix('/');
        for segment in &self.segments {
            let Some(text) = rest else { break };
            let (first, after) = first_segment(text);
            if let Some((name, value)) = segment.parameter(first, text) {
                params.0.push((name.clone(), value_of(value)));
            }
            rest = after;
        }
        params
    }

    fn order(&self) -> PathOrder {
        let end = match self.end {
            End::Here => Some(0),
            End::Tail => None,
            End::Prefix => Some(PREFIX),
        };
        std::iter::once(4).chain(self.segments.iter().map(Segment::order)).chain(end).collect()
    }
}

/// The first segment of a path without its leading slash, and what comes after the next slash.
pub(super) fn first_segment(rest: &str) -> (&str, Option<&str>) {
    match memchr::memchr(b'/', rest.as_bytes()) {
        Some(at) => (&rest[..at], Some(&rest[at + 1..])),
        None => (rest, None),
    }
}

impl PathRegex {
    pub(super) fn compile(text: &str, case: Case) -> Result<PathRegex, Complaint> {
        if text.is_empty() {
            return Err(Complaint::new("the regex is empty", "use path_prefix = \"/\" for every path"));
        }
        let regex = condition::regex(text, case)?;
        let start = if case == Case::Sensitive { literal_start(text) } else { "" };
        Ok(PathRegex { text: text.into(), start: start.into(), regex })
    }

    pub(super) fn matches(&self, path: &str) -> bool {
        starts_with(path, &self.start) && self.regex.is_match(path.as_bytes())
    }
}

/// The literal text a regex starts with after `^`, as far as it is plain to see.
fn literal_start(text: &str) -> &str {
    let Some(rest) = text.strip_prefix('^').filter(|rest| !rest.contains('|')) else { return "" };
    let end = rest.find(|c| "\\.+*?()[]{}^$".contains(c)).unwrap_or(rest.len());
    match rest[end..].chars().next() {
        // The character before a repetition may be missing.
        Some('*' | '?' | '{') => rest[..end].char_indices().next_back().map_or("", |(last, _)| &rest[..last]),
        _ => &rest[..end],
    }
}

fn template(text: &str) -> Result<Form, Complaint> {
    if text == "*" {
        return Ok(Form::Literal("*".into()));
    }
    spelled(text, 0)?;
    let mut segments = Vec::new();
    let mut at = 1;
    for part in text[1..].split('/') {
        if matches!(segments.last(), Some(Segment::Tail { .. })) {
            return Err(Complaint::new("a tail is the last segment", "remove what follows it")
                .part(at - 1..text.len()));
        }
        let segment = Segment::parse(part, at)?;
        if let Some(name) = segment.name()
            && segments.iter().any(|other: &Segment| other.name() == Some(name))
        {
            let complaint =
                Complaint::new(format!("parameter `{name}` stands twice in this path"), "rename one");
            return Err(complaint.part(at..at + part.len()));
        }
        segments.push(segment);
        at += part.len() + 1;
    }
    let literals: Option<Vec<&str>> = segments
        .iter()
        .map(|segment| if let Segment::Literal(text) = segment { Some(&**text) } else { None })
        .collect();
    if let Some(literals) = literals {
        let path = format!("/{}", literals.join("/"));
        return without_dots(path, 0..text.len()).map(|path| Form::Literal(path.into()));
    }
    for segment in &segments {
        if let Segment::Literal(text) = segment {
            without_dots(format!("/{text}"), 0..0)?;
        }
    }
    let end = if matches!(segments.last(), Some(Segment::Tail { .. })) { End::Tail } else { End::Here };
    Ok(Form::Template(Template { segments, end }))
}

fn prefix(text: &str) -> Result<Form, Complaint> {
    if let (Some(open), Some(close)) = (text.find('{'), text.find('}'))
        && open < close
    {
        let hint = "use `path` with a tail: \"/users/{id}/{*rest}\"; %7B and %7D are braces";
        return Err(Complaint::new("a prefix has no parameters", hint).part(open..close + 1));
    }
    let path = absolute(text, 0)?;
    let path = path.strip_suffix('/').unwrap_or(&path);
    let segments = path.split('/').skip(1).map(|segment| Segment::Literal(segment.into())).collect();
    Ok(Form::Template(Template { segments, end: End::Prefix }))
}

/// A literal path in normal spelling; `start` is where it stands in the text that was written.
pub(super) fn absolute(text: &str, start: usize) -> Result<String, Complaint> {
    spelled(text, start)?;
    let part = start..start + text.len();
    match decode::path(text) {
        Some(path) => without_dots(path, part),
        None => {
            Err(Complaint::new("this path is not UTF-8 when decoded", "encode the text as UTF-8").part(part))
        }
    }
}

fn spelled(text: &str, start: usize) -> Result<(), Complaint> {
    if !text.starts_with('/') {
        return Err(Complaint::new("a path starts with a slash", format!("write \"/{text}\"")));
    }
    match text.find('?') {
        Some(at) => {
            let hint = "use `query` for query parameters; write %3F for a question mark in a path";
            Err(Complaint::new("a path has no query", hint).part(start + at..start + text.len()))
        }
        None => Ok(()),
    }
}

fn without_dots(path: String, part: std::ops::Range<usize>) -> Result<String, Complaint> {
    match path.split('/').find(|segment| *segment == "." || *segment == "..") {
        Some(dots) => {
            let message =
                format!("no request path holds a segment `{dots}`: they are resolved before matching");
            let complaint = Complaint::new(message, "write the path it leads to");
            Err(if part.is_empty() { complaint } else { complaint.part(part) })
        }
        None => Ok(path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compile(text: &str) -> Result<Path, Problems> {
        let from: Match = serde_json::from_str(text).unwrap();
        let mut problems = Problems::new();
        Path::compile(&from, &At::root().key("match"), &mut problems).ok_or(problems)
    }

    fn path(key: &str, text: &str) -> Path {
        compile(&serde_json::json!({ key: text }).to_string()).unwrap()
    }

    #[test]
    fn each_form_matches_what_it_says() {
        for (key, text, good, bad) in [
            ("path", "/about", &["/about"][..], &["/about/", "/About", "/about/x", "/"][..]),
            ("path", "/", &["/"], &["", "//", "/x"]),
            ("path", "/a%3A%28b%29%7Cc", &["/a:(b)|c"], &["/a"]),
            ("path", "/a:(b)|c", &["/a:(b)|c"], &["/a"]),
            ("path", "/a%2fb", &["/a%2Fb"], &["/a/b"]),
            ("path", "/x/{id}", &["/x/1", "/x/a:b", "/x/a%2Fb"], &["/x", "/x/", "/x/1/", "/x/1/2"]),
            ("path", "/x/{id}/", &["/x/1/"], &["/x/1"]),
            ("path", "/v1/{id}.json", &["/v1/7.json"], &["/v1/.json", "/v1/7.xml"]),
            ("path", "/f/{*rest}", &["/f/a", "/f/a/b/", "/f//"], &["/f", "/f/"]),
            ("path", "/{a}/x/{b:int}", &["/q/x/1"], &["/q/x/z", "/q/y/1"]),
            ("path", "*", &["*"], &["/", "/x"]),
            ("path_prefix", "/api", &["/api", "/api/", "/api/x"], &["/apix", "/", "/ap"]),
            ("path_prefix", "/api/", &["/api", "/api/", "/api/x"], &["/apix"]),
            ("path_prefix", "/a%20b", &["/a b/c"], &["/a%20b"]),
            ("path_prefix", "/", &["/", "/x", "", "*"], &[]),
            ("path_regex", "^/u/[0-9]+$", &["/u/1"], &["/u/1/", "/v/u/1"]),
            ("path_regex", "b+", &["/abba"], &["/aa"]),
            ("location", "/api", &["/api", "/apix", "/api/x"], &["/ap"]),
            ("location", "^~ /api/", &["/api/", "/api/x"], &["/api"]),
            ("location", "= /api", &["/api"], &["/api/"]),
        ] {
            let compiled = path(key, text);
            for good in good {
                assert!(compiled.matches(good), "{key} {text} matches {good}");
            }
            for bad in bad {
                assert!(!compiled.matches(bad), "{key} {text} does not match {bad}");
            }
        }
    }

    #[test]
    fn parameters_are_taken_and_decoded() {
        let params = path("path", "/{kind:a|b}/{id:int}/x{name}/{*rest}").params("/b/-7/xy%2Fz/p/q%2Fr");
        let pairs: Vec<_> = params.0.iter().map(|(name, value)| (&**name, value.as_str())).collect();
        assert_eq!(pairs, [("kind", "b"), ("id", "-7"), ("name", "y/z"), ("rest", "p/q/r")]);
    }

    #[test]
    fn wrong_paths_are_problems_at_their_key() {
        for (key, text) in [
            ("path", "about"),
            ("path", ""),
            ("path", "/a?b=1"),
            ("path", "/a/../b"),
            ("path", "/a/./{id}"),
            ("path", "/a/%2e%2e/{id}"),
            ("path", "/{id}/{id}"),
            ("path", "/{*rest}/x"),
            ("path", "/%ff"),
            ("path_prefix", "/users/{id}"),
            ("path_prefix", "api"),
            ("path_prefix", "/.."),
            ("path_regex", "("),
            ("path_regex", ""),
            ("location", "~ ["),
            ("location", "= /a?b"),
        ] {
            let problems = compile(&serde_json::json!({ key: text }).to_string()).unwrap_err();
            let all: Vec<_> = problems.iter().collect();
            assert_eq!(all.len(), 1, "{key} {text}");
            assert_eq!(all[0].at.to_string(), format!("match.{key}"));
            assert!(all[0].hint.is_some());
        }
    }

    #[test]
    fn one_kind_of_path_is_enough() {
        let problems = compile(r#"{"path":"/a","location":"/b","path_prefix":"/c"}"#).unwrap_err();
        let places: Vec<_> = problems.iter().map(|problem| problem.at.to_string()).collect();
        assert_eq!(places, ["match.path_prefix", "match.location"]);
    }

    #[test]
    fn the_literal_start_of_a_regex_is_never_too_long() {
        for (text, start) in [
            ("^/a/b", "/a/b"),
            ("^/a/b$", "/a/b"),
            ("^/ab?c", "/a"),
            ("^/ab*", "/a"),
            ("^/ab{0}", "/a"),
            ("^/ab+", "/ab"),
            ("^/a\\.b", "/a"),
            ("^/a|b", ""),
            ("/a", ""),
            ("^(a)", ""),
            ("^?", ""),
        ] {
            assert_eq!(literal_start(text), start, "{text}");
        }
    }
}
