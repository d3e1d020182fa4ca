//! Texts with variables: "{request_id}", "https://{host}{path}?{query}".
//!
//! | variable | value |
//! |---|---|
//! | `{request_id}` `{listener}` `{route}` | their names |
//! | `{client}` | the trusted client address |
//! | `{method}` `{scheme}` | as received; "http" or "https" |
//! | `{authority}` `{host}` `{port}` | what the request is for; the port is the scheme's when none is written |
//! | `{target}` `{path}` `{query}` | as received, encoded; target is both, query has no `?` |
//! | `{header.NAME}` `{cookie.NAME}` `{query.NAME}` | the first of that name; a query value is decoded |
//! | `{consumer.name}` `{consumer.groups}` | who is asking, and its groups with commas, once a filter has found out |
//! | `{claim.NAME}` | the claim of that name of the token that the filter jwt found right |
//! | `{param.NAME}` | the path parameter `{NAME}` of the route's path |
//!
//! `{{` and `}}` are braces. What is absent is written as nothing.
//!
//! Promise: a text that compiles renders, whatever the request holds; where it becomes part of a target, no
//! value can end the segment, the path or the query it stands in, or climb out of it.

use std::fmt;

use sluice_http::FieldName;

use crate::closest::closest;
use crate::expression::fact::{Fact, TlsFact};
use crate::facts::Facts;
use crate::percent::{Set, encode};

/// How a variable's value is written into the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Escape {
    /// As it is: for field values (`Fields` replaces control bytes) and bodies.
    None,
    /// For targets: percent-encoded where a path segment needs it ("/" too), and after a `?` of the text
    /// everything but unreserved characters. `{path}`, `{target}` and `{query}` are encoded as received and
    /// stay as they are; after a `?` only `{query}` does.
    Segment,
    /// As `Segment`, but values keep their "/": for the parameters of tail templates (`{*rest}`).
    Path,
}

/// A compiled text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    pieces: Box<[Piece]>,
    /// Whether a value could turn the target it makes into one of another host: "//evil.example".
    guards_start: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Literal(Box<str>),
    Variable(Fact, Encoding),
}

/// What happens to the value of one variable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Encoding {
    Raw,
    Segment,
    Path,
    Component,
    /// As `Segment`, and the brackets of an IPv6 literal stay (RFC 3986 section 3.2.2).
    Authority,
}

const PLAIN: &[(&str, Fact)] = &[
    ("authority", Fact::Authority),
    ("client", Fact::Client),
    ("consumer.groups", Fact::Groups),
    ("consumer.name", Fact::Consumer),
    ("host", Fact::Host),
    ("listener", Fact::Listener),
    ("method", Fact::Method),
    ("path", Fact::RawPath),
    ("port", Fact::Port),
    ("query", Fact::Query),
    ("request_id", Fact::RequestId),
    ("route", Fact::Route),
    ("scheme", Fact::Scheme),
    ("target", Fact::Target),
    ("tls.cipher", Fact::Tls(TlsFact::Cipher)),
    ("tls.client.dns", Fact::Tls(TlsFact::Dns)),
    ("tls.client.email", Fact::Tls(TlsFact::Email)),
    ("tls.client.fingerprint", Fact::Tls(TlsFact::Fingerprint)),
    ("tls.client.issuer", Fact::Tls(TlsFact::Issuer)),
    ("tls.client.serial", Fact::Tls(TlsFact::Serial)),
    ("tls.client.subject", Fact::Tls(TlsFact::Subject)),
    ("tls.client.uri", Fact::Tls(TlsFact::Uri)),
    ("tls.sni", Fact::Tls(TlsFact::Sni)),
    ("tls.version", Fact::Tls(TlsFact::Version)),
];

const FAMILIES: &[&str] = &["header", "cookie", "query", "param", "claim"];

impl Template {
    /// Compiles a text; the error says which variable is unknown and which there are.
    pub fn compile(text: &str, escape: Escape) -> Result<Template, String> {
        let mut pieces = Vec::new();
        let mut literal = String::new();
        let mut in_query = false;
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            let (before, brace) = rest.split_at(at);
            literal.push_str(before);
            if let Some(after) = brace.strip_prefix("{{").or_else(|| brace.strip_prefix("}}")) {
                literal.push_str(&brace[..1]);
                rest = after;
                continue;
            }
            if brace.starts_with('}') {
                return Err("`}` closes nothing; write `}}` for a brace".to_owned());
            }
            let Some((name, after)) = brace[1..].split_once('}') else {
                return Err(format!("`{}` has no `}}`; write `{{{{` for a brace", shown(brace)));
            };
            let fact = variable(name)?;
            in_query |= literal.contains(['?', '#']);
            if !literal.is_empty() {
                pieces.push(Piece::Literal(std::mem::take(&mut literal).into()));
            }
            let encoding = encoding(&fact, escape, in_query);
            pieces.push(Piece::Variable(fact, encoding));
            rest = after;
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            pieces.push(Piece::Literal(literal.into()));
        }
        let guards_start = escape != Escape::None && !text.starts_with("//");
        Ok(Template { pieces: pieces.into(), guards_start })
    }

    /// Appends the text with its variables filled in. In a target, slashes that values put at its start
    /// become one: `//host` and `/\\host` would name another host (RFC 3986 section 4.2).
    pub fn render(&self, facts: &Facts<'_>, out: &mut String) {
        let start = out.len();
        for piece in &self.pieces {
            match piece {
                Piece::Literal(text) => out.push_str(text),
                Piece::Variable(fact, encoding) => {
                    if let Some(value) = fact.read(facts) {
                        encoding.write(&value, out);
                    }
                }
            }
        }
        let rendered = &out[start..];
        let slashes = rendered.len() - rendered.trim_start_matches(['/', '\\']).len();
        if self.guards_start && slashes > 1 {
            out.replace_range(start..start + slashes, "/");
        }
    }

    /// The text, when it has no variables.
    pub fn is_constant(&self) -> Option<&str> {
        match &*self.pieces {
            [] => Some(""),
            [Piece::Literal(text)] => Some(text),
            _ => None,
        }
    }

    /// The names of its variables, in the order written: `host`, `header.X-A`.
    pub fn variables(&self) -> impl Iterator<Item = String> + '_ {
        self.pieces.iter().filter_map(|piece| match piece {
            Piece::Literal(_) => None,
            Piece::Variable(fact, _) => Some(Spelled(fact).to_string()),
        })
    }
}

/// The text it can be compiled from again.
impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.pieces.iter().try_for_each(|piece| match piece {
            Piece::Literal(text) => f.write_str(&text.replace('{', "{{").replace('}', "}}")),
            Piece::Variable(fact, _) => write!(f, "{{{}}}", Spelled(fact)),
        })
    }
}

impl Encoding {
    fn write(self, value: &[u8], out: &mut String) {
        match self {
            Encoding::Raw => out.push_str(&String::from_utf8_lossy(value)),
            Encoding::Component => encode(value, Set::UNRESERVED, out),
            Encoding::Authority => encode(value, Set::SEGMENT.with(b"[]"), out),
            Encoding::Segment => segment(value, out),
            Encoding::Path => {
                for (position, part) in value.split(|byte| *byte == b'/').enumerate() {
                    if position > 0 {
                        out.push('/');
                    }
                    segment(part, out);
                }
            }
        }
    }
}

/// Writes a part of a path segment. A dot segment, or a value that could become one together with what
/// stands beside it, would make the endpoint climb the path (RFC 3986 section 5.2.4), and `%2E` is the same
/// as a dot to it (section 6.2.2.2): such dots are encoded twice, so that they stay a name.
fn segment(value: &[u8], out: &mut String) {
    // Some endpoints cut a segment at ";" before they look for dots: "/..;/".
    let stem = value.split(|byte| *byte == b';').next().unwrap_or_default();
    let dots = match stem {
        b"." | b".." => stem.len(),
        _ => 0,
    };
    (0..dots).for_each(|_| out.push_str("%252E"));
    encode(&value[dots..], Set::SEGMENT, out);
}

fn encoding(fact: &Fact, escape: Escape, in_query: bool) -> Encoding {
    match (escape, fact) {
        (Escape::None, _) | (_, Fact::Query) => Encoding::Raw,
        (_, Fact::RawPath | Fact::Target) if !in_query => Encoding::Raw,
        _ if in_query => Encoding::Component,
        (_, Fact::Host | Fact::Authority) => Encoding::Authority,
        (Escape::Segment, _) => Encoding::Segment,
        (Escape::Path, _) => Encoding::Path,
    }
}

fn variable(name: &str) -> Result<Fact, String> {
    if let Some((_, fact)) = PLAIN.iter().find(|(plain, _)| *plain == name) {
        return Ok(fact.clone());
    }
    match name.split_once('.') {
        Some((family, "")) if FAMILIES.contains(&family) => {
            Err(format!("`{{{family}.}}` names no {family}; write `{{{family}.NAME}}`"))
        }
        Some(("header", key)) => FieldName::new(key)
            .map(Fact::Header)
            .ok_or_else(|| format!("`{}` in `{{header.NAME}}` is not a header name", shown(key))),
        Some(("cookie", key)) => Ok(Fact::Cookie(key.into())),
        Some(("query", key)) => Ok(Fact::Parameter(key.into())),
        Some(("claim", key)) => Ok(Fact::Claim(key.into())),
        Some(("param", key)) => Ok(Fact::Param(key.into())),
        _ => Err(unknown(name)),
    }
}

fn unknown(name: &str) -> String {
    let known = PLAIN.iter().map(|(plain, _)| *plain);
    let meant = match name.split_once('.') {
        Some((family, key)) => {
            closest(family, FAMILIES.iter().copied()).map(|family| format!("`{{{family}.{}}}`", shown(key)))
        }
        None => closest(name, known.clone()).map(|plain| format!("`{{{plain}}}`")),
    };
    let question = meant.map(|meant| format!(" - did you mean {meant}?")).unwrap_or_default();
    let list: Vec<String> =
        known.map(str::to_owned).chain(FAMILIES.iter().map(|family| format!("{family}.NAME"))).collect();
    format!("there is no variable `{{{}}}`{question} (there are: {})", shown(name), list.join(", "))
}

/// A text from a document, short enough for a sentence.
fn shown(text: &str) -> String {
    text.chars().take(40).flat_map(char::escape_debug).collect()
}

struct Spelled<'a>(&'a Fact);

impl fmt::Display for Spelled<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Fact::Header(name) => write!(f, "header.{}", name.as_str()),
            Fact::Parameter(name) => write!(f, "query.{name}"),
            Fact::Cookie(name) => write!(f, "cookie.{name}"),
            Fact::Param(name) => write!(f, "param.{name}"),
            Fact::Claim(name) => write!(f, "claim.{name}"),
            plain => f.write_str(PLAIN.iter().find(|(_, fact)| fact == plain).map_or("", |(name, _)| name)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::{Params, Scheme};
    use proptest::prelude::*;
    use sluice_http::{NameId, RequestHead};

    fn render_with(text: &str, escape: Escape, head: &RequestHead, params: &Params) -> String {
        let template = Template::compile(text, escape).unwrap();
        let facts = Facts {
            head,
            path: "/normal",
            client: "::ffff:192.0.2.7".parse().unwrap(),
            scheme: Scheme::Https,
            listener: "web",
            tls: None,
            request_id: "r-1",
            route: "shop",
            params,
            identity: Default::default(),
        };
        let mut out = String::from("^");
        template.render(&facts, &mut out);
        out.split_off(1)
    }

    fn render(text: &str, escape: Escape) -> String {
        let mut head = RequestHead::new("GET", "/a%2Fb/c?x=1%202&y=%3F&d=..&amp=a%26b");
        head.fields.append(NameId::Host, b"Shop.example:8443");
        head.fields.append(NameId::UserAgent, b"a/b?\xff");
        head.fields.append(NameId::Cookie, b"uid=u/1; t=2");
        let params = Params(vec![
            ("id".into(), "7/8 #?é".to_owned()),
            ("rest".into(), "x y/../z".to_owned()),
            ("evil".into(), "/evil.example".to_owned()),
            ("cut".into(), "..;a".to_owned()),
        ]);
        render_with(text, escape, &head, &params)
    }

    #[test]
    fn every_variable_is_filled_in() {
        for (text, expected) in [
            ("", ""),
            ("plain", "plain"),
            ("{{}} {{host}}", "{} {host}"),
            ("https://{host}{path}?{query}", "https://Shop.example/a%2Fb/c?x=1%202&y=%3F&d=..&amp=a%26b"),
            ("{authority} {port} {scheme} {method}", "Shop.example:8443 8443 https GET"),
            ("{target}", "/a%2Fb/c?x=1%202&y=%3F&d=..&amp=a%26b"),
            ("{client} {listener} {route} {request_id}", "192.0.2.7 web shop r-1"),
            ("{header.user-agent}|{cookie.uid}|{query.x}|{param.id}", "a/b?\u{fffd}|u/1|1 2|7/8 #?é"),
            ("<{header.x}{cookie.x}{query.z}{param.z}>", "<>"),
        ] {
            assert_eq!(render(text, Escape::None), expected, "{text}");
        }
    }

    #[test]
    fn values_are_escaped_for_the_place_they_stand_in() {
        for (escape, text, expected) in [
            (Escape::Segment, "/v/{param.id}", "/v/7%2F8%20%23%3F%C3%A9"),
            (Escape::Segment, "/v/{header.user-agent}", "/v/a%2Fb%3F%FF"),
            (Escape::Path, "/v/{param.rest}", "/v/x%20y/%252E%252E/z"),
            (Escape::Segment, "/v/{query.d}/x", "/v/%252E%252E/x"),
            (Escape::Segment, "/v/{param.cut}/x", "/v/%252E%252E;a/x"),
            (Escape::Segment, "{path}?id={query.amp}", "/a%2Fb/c?id=a%26b"),
            (Escape::Segment, "/login?next={path}", "/login?next=%2Fa%252Fb%2Fc"),
            (Escape::Segment, "/x?{query}", "/x?x=1%202&y=%3F&d=..&amp=a%26b"),
            (Escape::Segment, "https://{host}{path}", "https://Shop.example/a%2Fb/c"),
        ] {
            assert_eq!(render(text, escape), expected, "{text}");
        }
    }

    #[test]
    fn a_value_cannot_send_a_target_to_another_host() {
        assert_eq!(render("/{param.evil}", Escape::Path), "/evil.example");
        assert_eq!(render("//cdn.example{path}", Escape::Path), "//cdn.example/a%2Fb/c");
        for target in ["//evil.example/", "/\\evil.example/"] {
            let head = RequestHead::new("GET", target);
            let rendered = render_with("{path}", Escape::Segment, &head, &Params::default());
            assert_eq!(rendered, "/evil.example/");
            assert_eq!(render_with("{path}", Escape::None, &head, &Params::default()), target);
        }
    }

    #[test]
    fn an_ipv6_host_keeps_its_brackets_and_ports_have_defaults() {
        let mut head = RequestHead::new("GET", "/");
        head.fields.append(NameId::Host, b"[2001:db8::1]");
        let rendered = render_with("https://{host}:{port}/", Escape::Segment, &head, &Params::default());
        assert_eq!(rendered, "https://[2001:db8::1]:443/");
    }

    #[test]
    fn an_error_says_what_to_write() {
        let list = "(there are: authority, client, consumer.groups, consumer.name, host, listener, method, path, port, query, request_id, route, \
                    scheme, target, tls.cipher, tls.client.dns, tls.client.email, tls.client.fingerprint, \
                    tls.client.issuer, tls.client.serial, tls.client.subject, tls.client.uri, tls.sni, tls.version, \
                    header.NAME, cookie.NAME, query.NAME, param.NAME, claim.NAME)";
        for (text, expected) in [
            ("{hots}", format!("there is no variable `{{hots}}` - did you mean `{{host}}`? {list}")),
            ("{id}", format!("there is no variable `{{id}}` {list}")),
            ("{}", format!("there is no variable `{{}}` {list}")),
            (
                "{headers.X-A}",
                format!("there is no variable `{{headers.X-A}}` - did you mean `{{header.X-A}}`? {list}"),
            ),
            ("a}", "`}` closes nothing; write `}}` for a brace".to_owned()),
            ("{host", "`{host` has no `}`; write `{{` for a brace".to_owned()),
            ("{header.}", "`{header.}` names no header; write `{header.NAME}`".to_owned()),
            ("{header.a b}", "`a b` in `{header.NAME}` is not a header name".to_owned()),
        ] {
            assert_eq!(Template::compile(text, Escape::None).unwrap_err(), expected, "{text}");
        }
    }

    #[test]
    fn constants_variables_and_spelling_can_be_asked_for() {
        let compile = |text: &str| Template::compile(text, Escape::None).unwrap();
        assert_eq!(compile("").is_constant(), Some(""));
        assert_eq!(compile("a{{b").is_constant(), Some("a{b"));
        assert_eq!(compile("{host}").is_constant(), None);
        let text = "{{{header.X-A}}}{query.q}{path}";
        assert_eq!(compile(text).variables().collect::<Vec<_>>(), ["header.X-A", "query.q", "path"]);
        assert_eq!(compile(text).to_string(), text);
    }

    #[test]
    fn every_plain_variable_spells_itself() {
        for (name, _) in PLAIN {
            let template = Template::compile(&format!("{{{name}}}"), Escape::None).unwrap();
            assert_eq!(template.variables().collect::<Vec<_>>(), [*name]);
        }
    }

    proptest! {
        #[test]
        fn compiling_and_rendering_never_panics(text in "[a-z{}./?]{0,12}|(\\{(host|path|query.x|param.id)\\}|[{}/]){0,6}|.{0,20}") {
            for escape in [Escape::None, Escape::Segment, Escape::Path] {
                if Template::compile(&text, escape).is_ok() {
                    render(&text, escape);
                }
            }
        }

        #[test]
        fn a_value_never_leaves_its_segment(value in "[./;?#% ]{0,6}|\\PC{0,12}|[\\x00-\\x20ab]{0,6}") {
            let params = Params(vec![("v".into(), value)]);
            let head = RequestHead::new("GET", "/");
            let rendered = render_with("<{param.v}", Escape::Segment, &head, &params);
            let bad = |c: char| matches!(c, '/' | '?' | '#') || c <= ' ' || c >= '\u{7f}';
            prop_assert!(!rendered.contains(bad), "{}", rendered);
            for text in ["/{param.v}", "/.{param.v}", "/{param.v}{param.v}"] {
                let rendered = render_with(text, Escape::Path, &head, &params);
                prop_assert!(rendered.split('/').all(|segment| segment != ".." && !segment.starts_with("..;")));
            }
            let rendered = render_with("?{param.v}", Escape::Path, &head, &params);
            prop_assert!(!rendered.contains(['&', '=', '+', '/', '#']), "{}", rendered);
        }
    }
}
