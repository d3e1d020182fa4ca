//! The `rewrite` filter: changes the path and the query that the endpoint sees.
//!
//! Promise: a new path starts with one "/", holds no dot segment, and cannot grow a query or break the start
//! line; encodings that an edit does not touch reach the endpoint as the client wrote them.
//!
//! Edits work on the raw path. A path with dot segments or empty segments is replaced by its normalised form
//! first: otherwise "/api/../x" would lose the prefix of a path it does not name. Later conditions are not
//! asked again: a rewrite changes what the endpoint sees, not which route was taken.

use regex::Regex;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sluice_http::{Method, Request, RequestHead};

use super::query_edits::{QueryConfig, QueryEdits};
use super::{Filter, Flow};
use crate::exchange::Exchange;
use crate::failure::Failure;
use crate::pipeline::normalize;
use crate::problem::{At, Problems};
use crate::scene::Scene;
use crate::template::{Escape, Template};

/// Changes the path and the query that the endpoint sees. At most one of strip_prefix, replace_prefix, regex
/// and path; query goes with each of them.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Whole leading segments that are taken off: "/api" makes "/api/x" "/x" and leaves "/apix" as it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub strip_prefix: Option<String>,
    /// Whole leading segments that are replaced by others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replace_prefix: Option<ReplacePrefix>,
    /// A regular expression on the path as the client wrote it (percent-encoded, without the query); the part
    /// that matches first is replaced by `to`. Without a match nothing changes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub regex: Option<String>,
    /// What `regex` is replaced by: `$name` and `$1` are its groups, `$$` is a dollar sign. Where a letter
    /// follows, a group needs braces, which a file writes as `$${name}`: `${...}` is the environment there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// The new path: a text with variables, each percent-encoded as one segment: "/v2/items/{param.id}".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Edits to the query.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub query: Option<QueryConfig>,
}

/// A prefix and what stands in its place.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct ReplacePrefix {
    /// Whole leading segments: "/a"; "/" is every path.
    pub from: String,
    /// What stands in their place: "/b"; "/" is nothing.
    pub to: String,
}

/// The `rewrite` filter.
#[derive(Debug)]
pub struct Rewrite {
    path: Option<PathEdit>,
    query: Option<QueryEdits>,
}

/// How the path changes.
#[derive(Debug)]
enum PathEdit {
    /// `from` is normalised, both are without a slash at the end: "" is the root.
    Prefix {
        from: String,
        to: String,
    },
    Regex {
        regex: Regex,
        to: Box<[Piece]>,
    },
    Template(Template),
}

/// A piece of what a regex is replaced by.
#[derive(Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Group(usize),
}

impl Filter for Rewrite {
    type Config = Config;
    const NAME: &'static str = "rewrite";

    fn build(config: &Config, at: &At, problems: &mut Problems) -> Option<Rewrite> {
        let before = problems.iter().len();
        let path = path_edit(config, at, problems);
        let query =
            config.query.as_ref().and_then(|query| QueryEdits::build(query, &at.key("query"), problems));
        if problems.iter().len() > before {
            return None;
        }
        if path.is_none() && query.is_none() {
            problems.add(at, "this rewrite changes nothing").hint(FORMS);
            return None;
        }
        Some(Rewrite { path, query })
    }

    async fn on_request(
        &self,
        _scene: &Scene<'_>,
        exchange: &mut Exchange,
        request: &mut Request,
    ) -> Result<Flow, Failure> {
        let head = &mut request.head;
        if head.method == Method::Connect || head.target() == "*" {
            return Ok(Flow::Continue);
        }
        if self.path.is_some() && !normalize::has_plain_segments(head.path()) {
            let normalised = normalize::encode(&normalize::path(head.path())?);
            head.set_target(&assembled(head, &normalised, head.query().unwrap_or("")));
        }
        if let Some(target) = self.target(exchange, head)? {
            head.set_target(&target);
        }
        Ok(Flow::Continue)
    }
}

const FORMS: &str =
    "write one of strip_prefix, replace_prefix, regex with to, or path; and query, or query alone";

impl Rewrite {
    /// The new target; `None` when it stays as it is.
    fn target(&self, exchange: &Exchange, head: &RequestHead) -> Result<Option<String>, Failure> {
        let path = match &self.path {
            Some(edit) => edit.path(exchange, head)?,
            None => None,
        };
        let query = match &self.query {
            Some(edits) => edits.query(head.query().unwrap_or(""), &exchange.facts(head)),
            None => None,
        };
        if path.is_none() && query.is_none() {
            return Ok(None);
        }
        let path = path.as_deref().unwrap_or(path_of(head));
        let query = query.as_deref().unwrap_or(head.query().unwrap_or(""));
        Ok(Some(assembled(head, path, query)))
    }
}

/// The target in the form it has, with another path and query.
fn assembled(head: &RequestHead, path: &str, query: &str) -> String {
    let origin = origin_of(head.target());
    let mut target = String::with_capacity(origin.len() + path.len() + 1 + query.len());
    target.push_str(origin);
    target.push_str(path);
    if !query.is_empty() {
        target.push('?');
        target.push_str(query);
    }
    target
}

/// The path, "/" in an absolute form without one.
fn path_of(head: &RequestHead) -> &str {
    match head.path() {
        "" => "/",
        path => path,
    }
}

/// Scheme and authority of an absolute form, nothing of an origin form.
fn origin_of(target: &str) -> &str {
    if target.starts_with('/') {
        return "";
    }
    let Some((scheme, rest)) = target.split_once("://") else { return "" };
    let authority = rest.find(['/', '?']).unwrap_or(rest.len());
    &target[..scheme.len() + "://".len() + authority]
}

impl PathEdit {
    fn path(&self, exchange: &Exchange, head: &RequestHead) -> Result<Option<String>, Failure> {
        let raw = path_of(head);
        let edited = match self {
            PathEdit::Prefix { from, to } => prefix_end(raw, from).map(|end| format!("{to}{}", &raw[end..])),
            PathEdit::Regex { regex, to } => replace(regex, to, raw),
            PathEdit::Template(template) => {
                let mut path = String::new();
                template.render(&exchange.facts(head), &mut path);
                Some(path)
            }
        };
        edited.map(safe_path).transpose()
    }
}

/// Brings an edited path into shape: one slash first, and no byte that would end the path.
fn safe_path(edited: String) -> Result<String, Failure> {
    let mut path = edited;
    // "//host/x" would be read as an authority by some endpoints.
    let slashes = path.len() - path.trim_start_matches('/').len();
    path.replace_range(..slashes, "/");
    if path.contains(['?', '#']) {
        path = path.replace('?', "%3F").replace('#', "%23");
    }
    // Values may not climb out of the path they were put into.
    let climbs = path.contains("/.") || path.contains("/%2");
    if climbs && path.split('/').any(normalize::is_dots) {
        return Err(Failure::BadRequest);
    }
    Ok(path)
}

/// Where in the raw path the segments after `prefix` start; `None` when they are not its first ones. The
/// prefix is normalised; the path is decoded byte by byte beside it, so that "/%61pi" has the prefix "/api".
fn prefix_end(raw: &str, prefix: &str) -> Option<usize> {
    let bytes = raw.as_bytes();
    let (mut at, mut wanted) = (0, prefix.as_bytes());
    while !wanted.is_empty() {
        let rest = &bytes[at..];
        let escape = normalize::escaped(rest);
        let kept = escape.and_then(|byte| match byte {
            b'/' => Some(&b"%2F"[..]),
            b'%' => Some(&b"%25"[..]),
            _ => None,
        });
        let byte = [escape.or(rest.first().copied())?];
        wanted = wanted.strip_prefix(kept.unwrap_or(&byte))?;
        at += if escape.is_some() { 3 } else { 1 };
    }
    (at == bytes.len() || bytes[at] == b'/').then_some(at)
}

fn replace(regex: &Regex, to: &[Piece], raw: &str) -> Option<String> {
    let groups = regex.captures(raw)?;
    let found = groups.get(0)?;
    let mut path = raw[..found.start()].to_owned();
    for piece in to {
        match piece {
            Piece::Text(text) => path.push_str(text),
            // A piece of the raw path: percent-encoded already.
            Piece::Group(index) => path.push_str(groups.get(*index).map_or("", |group| group.as_str())),
        }
    }
    path.push_str(&raw[found.end()..]);
    Some(path)
}

fn path_edit(config: &Config, at: &At, problems: &mut Problems) -> Option<PathEdit> {
    let Config { strip_prefix, replace_prefix, regex, to, path, .. } = config;
    let forms = [strip_prefix.is_some(), replace_prefix.is_some(), regex.is_some(), path.is_some()];
    if forms.iter().filter(|given| **given).count() > 1 {
        problems.add(at, "more than one way to change the path").hint(FORMS);
        return None;
    }
    if to.is_some() && regex.is_none() {
        problems.add(&at.key("to"), "`to` goes with `regex`, which is missing").hint(FORMS);
        return None;
    }
    if let Some(prefix) = strip_prefix {
        let at = at.key("strip_prefix");
        let from = matched_prefix(prefix, &at, problems)?;
        if from.is_empty() {
            problems.add(&at, "taking off \"/\" changes nothing").hint("leave this filter out");
            return None;
        }
        return Some(PathEdit::Prefix { from, to: String::new() });
    }
    if let Some(ReplacePrefix { from, to }) = replace_prefix {
        let at = at.key("replace_prefix");
        let from = matched_prefix(from, &at.key("from"), problems);
        let to = literal_path(to, &at.key("to"), problems);
        return from.zip(to).map(|(from, to)| {
            let to = to.trim_end_matches('/').to_owned();
            PathEdit::Prefix { from, to }
        });
    }
    if let Some(regex) = regex {
        return regex_edit(regex, to.as_deref(), at, problems);
    }
    let at = at.key("path");
    let text = literal_path(path.as_deref()?, &at, problems)?;
    problems.take(&at, Template::compile(text, Escape::Segment)).map(PathEdit::Template)
}

/// A prefix as it is compared: normalised, without a slash at its end.
fn matched_prefix(text: &str, at: &At, problems: &mut Problems) -> Option<String> {
    let text = literal_path(text, at, problems)?;
    match normalize::path(text) {
        Ok(normalised) => Some(normalised.trim_end_matches('/').to_owned()),
        Err(_) => {
            problems.add(at, format!("`{text}` is not a path")).hint("a % starts an escape such as %20");
            None
        }
    }
}

fn literal_path<'a>(text: &'a str, at: &At, problems: &mut Problems) -> Option<&'a str> {
    if !text.starts_with('/') {
        problems.add(at, "a path starts with \"/\"").hint(format!("write \"/{text}\""));
        return None;
    }
    if text.contains(['?', '#']) || text.contains(|c: char| c.is_ascii_control()) {
        problems
            .add(at, "a path holds no `?`, no `#` and no control character")
            .hint("to change the query, use `query` beside it");
        return None;
    }
    Some(text)
}

fn regex_edit(text: &str, to: Option<&str>, at: &At, problems: &mut Problems) -> Option<PathEdit> {
    let regex = match Regex::new(text) {
        Ok(regex) => Some(regex),
        Err(error) => {
            // The last line of the error says what is wrong; those before it draw the expression.
            let error = error.to_string();
            let sentence = error.lines().last().unwrap_or("").trim_start_matches("error: ").trim();
            problems
                .add(&at.key("regex"), format!("not a regular expression: {sentence}"))
                .hint("look-around and back-references are not supported: matching takes linear time");
            None
        }
    };
    let Some(to) = to else {
        problems
            .add(at, "`regex` needs `to`: what the part that matches is replaced by")
            .hint("for example: regex = \"^/x/(?<id>[^/]+)$\", to = \"/y/$id\"");
        return None;
    };
    let at = at.key("to");
    if to.contains(['?', '#']) || to.contains(|c: char| c.is_ascii_control()) {
        problems
            .add(&at, "a path holds no `?`, no `#` and no control character")
            .hint("to change the query, use `query` beside it");
        return None;
    }
    let regex = regex?;
    match pieces(to, &regex) {
        Ok(to) => Some(PathEdit::Regex { regex, to }),
        Err(message) => {
            let names: Vec<String> = regex.capture_names().flatten().map(|name| format!("${name}")).collect();
            let numbers = (1..regex.captures_len()).map(|index| format!("${index}"));
            let known: Vec<String> = names.into_iter().chain(numbers).collect();
            problems.add(&at, message).hint(match known.as_slice() {
                [] => "the regex has no group; write $$ for a dollar sign".to_owned(),
                known => format!("the regex has {}; write $$ for a dollar sign", known.join(", ")),
            });
            None
        }
    }
}

/// The name of a group after its dollar sign, and what follows: `name`, `1`, or either in braces, which are
/// needed where the text goes on with a letter.
fn group_name(text: &str) -> Option<(&str, &str)> {
    if let Some(braced) = text.strip_prefix('{') {
        return braced.split_once('}');
    }
    let numbered = text.starts_with(|c: char| c.is_ascii_digit());
    let is_name = |c: char| c.is_ascii_digit() || (!numbered && (c.is_ascii_alphabetic() || c == '_'));
    let end = text.find(|c| !is_name(c)).unwrap_or(text.len());
    (end > 0).then(|| text.split_at(end))
}

fn pieces(to: &str, regex: &Regex) -> Result<Box<[Piece]>, String> {
    let mut pieces = Vec::new();
    let mut rest = to;
    while let Some((before, after)) = rest.split_once('$') {
        pieces.push(Piece::Text(before.to_owned()));
        if let Some(after) = after.strip_prefix('$') {
            pieces.push(Piece::Text("$".to_owned()));
            rest = after;
            continue;
        }
        let (name, after) =
            group_name(after).ok_or("a `$` stands alone: groups are written `$name` or `$1`")?;
        let index = match name.parse::<usize>() {
            Ok(index) => Some(index).filter(|index| *index < regex.captures_len()),
            Err(_) => regex.capture_names().position(|known| known == Some(name)),
        };
        pieces.push(Piece::Group(index.ok_or_else(|| format!("`${name}` is not a group of the regex"))?));
        rest = after;
    }
    pieces.push(Piece::Text(rest.to_owned()));
    pieces.retain(|piece| *piece != Piece::Text(String::new()));
    Ok(pieces.into())
}

#[cfg(test)]
mod tests {
    use super::super::fixture;
    use super::*;
    use proptest::prelude::*;
    use std::sync::Arc;

    fn build(toml: &str) -> Result<Rewrite, Vec<String>> {
        let config: Config = toml_edit::de::from_str(toml).unwrap();
        let mut problems = Problems::new();
        let built = Rewrite::build(&config, &At::root(), &mut problems);
        assert_eq!(built.is_none(), !problems.is_empty(), "{toml}: {problems:?}");
        built.ok_or_else(|| problems.iter().map(|p| format!("{}: {}", p.at, p.message)).collect())
    }

    fn rewritten(toml: &str, target: &str) -> Result<String, Failure> {
        let filter = build(toml).unwrap();
        let mut exchange = fixture::exchange("/");
        exchange.params.0.push((Arc::from("id"), "a/b?c d".to_owned()));
        exchange.params.0.push((Arc::from("up"), "..".to_owned()));
        let mut request = fixture::request("GET", target);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build_local(Default::default())
            .unwrap();
        runtime.block_on(async {
            filter.on_request(&fixture::stage().scene(), &mut exchange, &mut request).await.map(drop)
        })?;
        Ok(request.head.target().to_owned())
    }

    fn check(toml: &str, cases: &[(&str, &str)]) {
        for (target, expected) in cases {
            assert_eq!(rewritten(toml, target).as_deref(), Ok(*expected), "{toml} on {target}");
        }
    }

    #[test]
    fn a_prefix_is_whole_segments_and_encodings_stay() {
        let cases = [
            ("/api/x", "/x"),
            ("/api", "/"),
            ("/api/", "/"),
            ("/api?a=1&b=%20", "/?a=1&b=%20"),
            ("/apix", "/apix"),
            ("/x/api", "/x/api"),
            ("/api/a%2Fb%20c/%c3%a9?q=%41", "/a%2Fb%20c/%c3%a9?q=%41"),
            ("/%61pi/x", "/x"),
            ("/api%2Fx", "/api%2Fx"),
            ("http://a.example:81/api/x?y", "http://a.example:81/x?y"),
            ("http://a.example?y", "http://a.example?y"),
        ];
        check("strip_prefix = '/api'", &cases);
        check("strip_prefix = '/api/'", &cases);
        check("strip_prefix = '/a b/%2f'", &[("/a%20b/%2F/c", "/c"), ("/a%20b/%2f", "/")]);
    }

    #[test]
    fn a_path_with_dot_or_empty_segments_is_normalised_first() {
        check(
            "strip_prefix = '/api'",
            &[
                ("/api/../secret?a=1", "/secret?a=1"),
                ("/x/%2e%2e/api/y", "/y"),
                ("//api//y", "/y"),
                ("/api//evil.example/x", "/evil.example/x"),
                ("/api/a%20b/./%2fc", "/a%20b/%2Fc"),
            ],
        );
    }

    #[test]
    fn a_prefix_is_replaced() {
        check("replace_prefix = { from = '/a', to = '/b/c' }", &[("/a/x", "/b/c/x"), ("/a", "/b/c")]);
        check("replace_prefix = { from = '/a', to = '/' }", &[("/a/x", "/x"), ("/a", "/"), ("/b", "/b")]);
        check("replace_prefix = { from = '/', to = '/v1/' }", &[("/a?x=1", "/v1/a?x=1"), ("/", "/v1/")]);
        check("replace_prefix = { from = '/a', to = '/ä b' }", &[("/a/x", "/%C3%A4%20b/x")]);
    }

    #[test]
    fn a_regex_works_on_the_raw_path_and_keeps_the_query() {
        check(
            "regex = '^/x/(?<id>[^/]+)$'\nto = '/y/$id/$1a/${id}b'",
            &[("/x/7?a=1", "/y/7/7a/7b?a=1"), ("/x/a%2Fb", "/y/a%2Fb/a%2Fba/a%2Fbb"), ("/x/7/8", "/x/7/8")],
        );
        check("regex = '/old'\nto = '$$new'", &[("/old/a", "/$new/a"), ("/a/old/b", "/a$new/b")]);
        check("regex = '^/a'\nto = '//'", &[("/a/x", "/x")]);
    }

    #[test]
    fn a_path_template_encodes_its_values_as_segments() {
        check("path = '/v2/items/{param.id}'", &[("/x?a=1", "/v2/items/a%2Fb%3Fc%20d?a=1")]);
        check(
            "path = '/v1{path}'",
            &[("/a/../b%20c?x", "/v1/b%20c?x"), ("http://a.example", "http://a.example/v1/")],
        );
    }

    #[test]
    fn no_edit_can_climb_out_of_the_path() {
        let climbed = rewritten("path = '/v2/{param.up}/x'", "/");
        assert!(!climbed.is_ok_and(|target| target.contains("..")));
        let toml = r"regex = '^(.*/\.)x$'
            to = '${1}.'";
        assert_eq!(rewritten(toml, "/a/.x"), Err(Failure::BadRequest));
    }

    #[test]
    fn a_query_is_edited_alone_or_beside_the_path() {
        let toml = "strip_prefix = '/api'\nquery = { set = { v = '2 &' }, remove = ['debug'] }";
        check(toml, &[("/api/x?debug=1&a=%20&v=1", "/x?a=%20&v=2%20%26"), ("/x", "/x?v=2%20%26")]);
        check(
            "query = { remove = ['a'] }",
            &[("/x?a=1", "/x"), ("/x?b", "/x?b"), ("http://h?a", "http://h/")],
        );
    }

    #[test]
    fn connect_and_asterisk_forms_are_left_alone() {
        check("replace_prefix = { from = '/', to = '/v1' }", &[("*", "*")]);
    }

    #[test]
    fn wrong_settings_are_problems_with_a_place() {
        for (toml, place) in [
            ("", ": this rewrite"),
            ("strip_prefix = '/a'\npath = '/b'", ": more than one"),
            ("to = '/b'", "to: "),
            ("regex = '/a'", ": `regex` needs"),
            ("regex = '('\nto = '/b'", "regex: not a regular expression: unclosed group"),
            ("regex = '(?<a>x)'\nto = '/${b}'", "to: `$b` is not a group"),
            ("regex = '(x)'\nto = '/${2}'", "to: `$2` is not a group"),
            ("regex = '(x)'\nto = '/$'", "to: a `$` stands alone"),
            ("regex = '(x)'\nto = '/${1'", "to: a `$` stands alone"),
            ("regex = '(x)'\nto = '/a?b'", "to: a path holds"),
            ("strip_prefix = 'api'", "strip_prefix: a path starts"),
            ("strip_prefix = '/'", "strip_prefix: taking off"),
            ("strip_prefix = '/%zz'", "strip_prefix: `/%zz` is not a path"),
            ("replace_prefix = { from = '/a', to = 'b' }", "replace_prefix.to: "),
            ("path = '/a?b={param.id}'", "path: a path holds"),
            ("path = '/{nope}'", "path: "),
            ("query = {}", "query: "),
        ] {
            let problems = build(toml).unwrap_err();
            assert!(problems.iter().any(|problem| problem.starts_with(place)), "{toml}: {problems:?}");
        }
    }

    proptest! {
        #[test]
        fn a_target_stays_one_word_that_starts_with_a_slash(
            target in "/([a-z./%é?&=#]|%2[eEfF]|api|//){0,16}", prefix in "/[a-z%é]{1,4}"
        ) {
            let toml = format!("replace_prefix = {{ from = '/api', to = '{}' }}", prefix.replace('%', "%25"));
            if let Ok(target) = rewritten(&toml, &target) {
                prop_assert!(target.starts_with('/'));
            }
            if let Ok(target) = rewritten("path = '/x{header.host}'\nquery = { add = { a = '{path}' } }", &target) {
                prop_assert!(target.bytes().all(|byte| byte > 0x20 && byte < 0x7f), "{}", target);
            }
        }
    }
}
