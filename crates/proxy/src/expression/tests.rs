//! Golden tables of meanings and faults, and properties over arbitrary texts and random trees.

use proptest::prelude::*;
use sluice_http::{FieldName, NameId, RequestHead};

use super::parse::{DEEPEST, LONGEST};
use super::*;
use crate::facts::{Params, Scheme};

fn with_facts<T>(check: impl FnOnce(&Facts<'_>) -> T) -> T {
    let mut head =
        RequestHead::new("GET", "/A/./b?v=2&name=J%C3%BCrgen+M&%6e=7&empty=&flag&big=99999999999999999999");
    head.fields.append(NameId::Host, b"Shop.Example:8080");
    head.fields.append(&FieldName::new("X-Beta").unwrap(), b"1");
    head.fields.append(&FieldName::new("x-beta").unwrap(), b"second");
    head.fields.append(&FieldName::new("X-Raw").unwrap(), b"Caf\xe9 ABC");
    head.fields.append(NameId::Cookie, b"uid=u1; theme=\"dark\"");
    let params = Params(vec![("id".into(), "42".to_owned())]);
    check(&Facts {
        head: &head,
        path: "/A/b",
        client: "::ffff:10.1.2.3".parse().unwrap(),
        scheme: Scheme::Https,
        listener: "web",
        tls: None,
        request_id: "r-1",
        route: "shop",
        params: &params,
        identity: Default::default(),
    })
}

fn holds(text: &str) -> bool {
    let expression = Expression::condition(text).unwrap_or_else(|faults| panic!("{text}: {faults:?}"));
    with_facts(|facts| expression.holds(facts))
}

fn value(text: &str) -> Option<String> {
    let expression = Expression::value(text).unwrap_or_else(|faults| panic!("{text}: {faults:?}"));
    with_facts(|facts| expression.text(facts).map(Cow::into_owned))
}

#[test]
fn names_have_these_values() {
    for (text, expected) in [
        ("request.method", "GET"),
        ("request.path", "/A/b"),
        ("request.target", "/A/./b?v=2&name=J%C3%BCrgen+M&%6e=7&empty=&flag&big=99999999999999999999"),
        ("request.host", "shop.example"),
        ("request.scheme", "https"),
        ("request.version", "1.1"),
        ("request.id", "r-1"),
        ("request.headers[\"X-BETA\"]", "1"),
        ("request.headers.host", "Shop.Example:8080"),
        ("request.headers['x-raw']", "Caf\u{fffd} ABC"),
        ("request.query.v", "2"),
        ("request.query[\"name\"]", "Jürgen M"),
        ("request.query.n", "7"),
        ("request.query.flag", ""),
        ("request.cookies.uid", "u1"),
        ("request.cookies.theme", "dark"),
        ("params.id", "42"),
        ("params[\"id\"]", "42"),
        ("client.address", "10.1.2.3"),
        ("listener", "web"),
        ("listener.name", "web"),
        ("route", "shop"),
        ("route.name", "shop"),
        ("int(params.id) + 1", "43"),
        ("string(client.address)", "10.1.2.3"),
        ("string(1 == 1)", "true"),
        ("has(request.headers.x) ? request.headers.x : string(client.address)", "10.1.2.3"),
    ] {
        assert_eq!(value(text).as_deref(), Some(expected), "{text}");
    }
    for text in [
        "request.headers.x",
        "request.query.x",
        "int(request.query.name)",
        "lower(params.x)",
        "1 / size(request.query.empty)",
    ] {
        assert_eq!(value(text), None, "{text}");
    }
}

/// Conditions over the facts above.
const CONDITIONS: &[(&str, bool)] = &[
    ("request.headers[\"x-beta\"] == \"1\" && request.query.v in [\"1\",\"2\"]", true),
    ("request.headers[\"x-beta\"] == \"2\" || request.query.v in [\"1\"]", false),
    ("request.method in ['GET', 'HEAD',]", true),
    ("request.method in []", false),
    ("!(request.method == \"GET\")", false),
    ("!!(request.method == \"GET\")", true),
    ("request.host == \"shop.example\"", true),
    ("request.host in [\"a.example\", \"shop.example\"]", true),
    ("request.host.endsWith(\".example\") && request.host.startsWith(\"shop\")", true),
    ("request.host.contains(\"p.e\") && request.host.matches(\"^shop[.]\")", true),
    ("hash(request.host) == hash(\"shop.example\")", true),
    ("request.path.startsWith(\"/a\")", false),
    ("request.path.lower().startsWith(\"/a\")", true),
    ("lower(request.path) == \"/a/b\"", true),
    ("request.path.endsWith(\"/A/b/c\")", false),
    ("request.path.matches(r\"^/[A-Z]/\\w$\")", true),
    ("request.path.matches(\"^/[A-Z]/\\\\w$\")", true),
    ("request.path.matches(\"b\")", true),
    ("request.headers[\"x-raw\"].contains(\"ABC\")", true),
    ("size(request.query.name) == 8", true),
    ("\"\u{fc}\".size() == 1", true),
    ("request.path < \"/B\" && request.path >= \"/A\"", true),
    ("int(request.query.v) * 3 - 1 == 5 && int(request.query.v) % 2 == 0", true),
    ("-int(request.query.v) == -2", true),
    ("int(request.query.v) in [-1, 0x2]", true),
    ("int(request.query.big) == 1", false),
    ("1 + 2 * 3 == 7 && (1 + 2) * 3 == 9 && 7 - 2 - 1 == 4 && -7 / 2 == -3 && -7 % 2 == -1", true),
    ("-9223372036854775808 < 9223372036854775807", true),
    ("true ? false : true", false),
    ("request.method == \"GET\" ? request.scheme == \"https\" : false", true),
    ("(request.method == \"GET\") == (request.scheme == \"http\")", false),
    ("(request.method == \"GET\") != false", true),
    ("true || request.method == \"X\" && false", true),
    ("has(request.headers.host) && \"x-beta\" in request.headers && has(request.query[\"empty\"])", true),
    ("has(request.cookies.uid) && has(params.id) && \"uid\" in request.cookies && \"id\" in params", true),
    ("\"v\" in request.query && !(\"w\" in request.query)", true),
    ("client.address in [\"192.0.2.0/24\", \"10.0.0.0/8\"]", true),
    ("client.address in cidr(\"10.1.2.0/24\") && cidr(\"10.0.0.0/8\").contains(client.address)", true),
    ("client.address in [cidr(\"10.1.2.0/24\"), \"::1\"]", true),
    ("client.address in [\"11.0.0.0/8\", \"2001:db8::/32\"]", false),
    ("client.address == \"10.1.2.3\" && \"10.1.2.4\" != client.address", true),
    ("client.address == \"::ffff:10.1.2.3\"", true),
    ("hash(client.address) == hash(\"10.1.2.3\")", true),
    ("hash(\"\") == 1621805376158206561 || hash(request.cookies.uid) % 100 < 100", true),
    ("\"a\\u00fc\\x41\\n\\\"\\'\" == 'a\u{fc}A\n\"\\''", true),
];

#[test]
fn conditions_hold_or_do_not() {
    for (text, expected) in CONDITIONS {
        assert_eq!(holds(text), *expected, "{text}");
    }
    assert!(holds("true // said\n && // and said again\n true"));
}

#[test]
fn what_is_absent_is_only_different() {
    for absent in ["request.headers.x", "request.query.x", "request.cookies.x", "params.x"] {
        for (text, expected) in [
            ("X == \"\"", false),
            ("X != \"\"", true),
            ("X == X", false),
            ("X != X", true),
            ("!(X == \"\")", true),
            ("X < \"z\"", false),
            ("X >= \"\"", false),
            ("X in [\"\", \"a\"]", false),
            ("X.startsWith(\"\")", false),
            ("X.endsWith(\"\")", false),
            ("X.contains(\"\")", false),
            ("X.matches(\"\")", false),
            ("lower(X) == \"\"", false),
            ("size(X) >= 0", false),
            ("size(X) != 0", true),
            ("int(X) in [0]", false),
            ("hash(X) % 100 < 100", false),
            ("int(X) + 1 == 1", false),
            ("has(X)", false),
        ] {
            let text = text.replace('X', absent);
            assert_eq!(holds(&text), expected, "{text}");
        }
    }
    assert!(!holds("1 / size(request.query.empty) == 0 || 9223372036854775807 + size(request.method) > 0"));
}

#[test]
fn constants_are_known_at_load() {
    for (text, expected) in [
        ("true", Some(true)),
        ("1 + 1 == 3", Some(false)),
        ("\"abc\".startsWith(\"a\") && \"A\".lower() == \"a\"", Some(true)),
        ("request.method == \"GET\" && false", Some(false)),
        ("request.method == \"GET\" || \"a\" in [\"b\", \"a\"]", Some(true)),
        ("true ? 2 in [2] : request.method == \"\"", Some(true)),
        ("request.path in []", Some(false)),
        ("(1 == 1) != true", Some(false)),
        ("client.address == client.address", Some(true)),
        ("request.method == \"GET\"", None),
        ("request.method == \"GET\" && true", None),
    ] {
        assert_eq!(Expression::condition(text).unwrap().constant(), expected, "{text}");
    }
}

/// What is marked by « » in a text; the fault must be exactly there.
fn marked(text: &str) -> (String, Range<usize>) {
    let start = text.find('«').unwrap();
    let end = text.find('»').unwrap() - '«'.len_utf8();
    (text.replace(['«', '»'], ""), start..end)
}

fn one_fault(text: &str, message: &str, hint: &str) {
    let (text, part) = marked(text);
    let faults = Expression::condition(&text).unwrap_err();
    let expected =
        Fault { part, message: message.to_owned(), hint: (!hint.is_empty()).then(|| hint.to_owned()) };
    assert_eq!(faults, [expected], "{text}");
}

/// Text with the faulty part marked, message, hint.
const WRONG_SYNTAX: &[(&str, &str, &str)] = &[
    ("«»", "there is no expression", "for instance `request.path == \"/\"`"),
    ("  // nothing«»", "there is no expression", "for instance `request.path == \"/\"`"),
    ("request.path «=» \"/\"", "`=` has no meaning here", "write `==` to compare"),
    ("true «&» false", "`&` has no meaning here", "write `&&` for \"and\""),
    ("true «and» false", "`and` is not an operator", "write `&&`"),
    ("true «or» false", "`or` is not an operator", "write `||`"),
    ("«not» true", "`not` is not an operator", "write `!`"),
    ("true «\u{2260}» false", "`\u{2260}` has no meaning here", ""),
    ("true «true»", "an operator was expected, but here is `true`", "join conditions with `&&` or `||`"),
    ("true«)»", "`)` closes nothing", ""),
    ("(true«»", "`)` was expected to close this bracket, but here is the end", ""),
    ("true &&«»", "a value was expected, but here is the end", ""),
    ("true ? false«»", "`:` was expected between the two values of `?`, but here is the end", ""),
    ("request.method in [\"a\" «\"b\"»]", "`]` was expected after the list, but here is a text", ""),
    (
        "request.headers.«\"x\"»",
        "a name was expected after `.`, but here is a text",
        "other names stand in brackets: request.headers[\"x-beta\"]",
    ),
    ("request.path == «\"/»", "this text has no end", "close it with \""),
    ("request.path == «'/\\»", "this text has no end", "close it with '"),
    ("request.path == \"a«\\d»\"", "`\\d` is not an escape", "write `\\\\d`, or a raw text: r\"\\d\""),
    ("request.path == \"«\\x»4z\"", "`\\x` needs 2 hexadecimal digits that name a character", ""),
    ("request.path == \"«\\u»d800\"", "`\\u` needs 4 hexadecimal digits that name a character", ""),
    ("int(params.id) < «1.5»", "numbers are whole", "scale it: compare thousandths, not fractions"),
    (
        "int(params.id) < «10s»",
        "`10s` is not a number",
        "numbers are decimal or start with `0x`; a text stands in quotes",
    ),
    ("1 < «9223372036854775808»", "this number is too large", "ints have 64 bits with a sign"),
    ("1 < «99999999999999999999»", "this number is too large", "ints have 64 bits with a sign"),
];

#[test]
fn wrong_syntax_is_shown_where_it_is() {
    for (text, message, hint) in WRONG_SYNTAX {
        one_fault(text, message, hint);
    }
}

/// Text with the faulty part marked, message, hint.
const WRONG_NAMES: &[(&str, &str, &str)] = &[
    ("«requets».path == \"/\"", "`requets` is not known here", "did you mean `request`?"),
    ("«headers».x == \"/\"", "`headers` is not known here", "did you mean `request.headers`?"),
    ("«addres» in [\"::1\"]", "`addres` is not known here", "did you mean `client.address`?"),
    (
        "request.method == «GET»",
        "`GET` is not known here",
        "there are: request, client, listener, route, params, tls, consumer, jwt; a text stands in quotes",
    ),
    ("request.«header».x == \"1\"", "`request` has no member `header`", "did you mean `headers`?"),
    (
        "request.«body» == \"1\"",
        "`request` has no member `body`",
        "it has: method, path, target, host, scheme, version, id, headers, query, cookies",
    ),
    ("request.path.«x» == \"1\"", "`request.path` has no members", "for a method add brackets: .x(...)"),
    (
        "«request.path»[\"x\"] == \"1\"",
        "`request.path` has no entries",
        "request.headers, request.query, request.cookies and params have",
    ),
    (
        "request.headers[«request.path»] == \"1\"",
        "the name of an entry must be a text in quotes",
        "for instance request.headers[\"x-beta\"]",
    ),
    (
        "request.headers[«\"x y\"»] == \"1\"",
        "`x y` is not a header name",
        "letters, digits and !#$%&'*+-.^_`|~ stand in one",
    ),
    (
        "«request.headers.x-beta» == \"1\"",
        "`-` subtracts ints",
        "a name with a dash stands in brackets: request.headers[\"x-beta\"]",
    ),
    (
        "«request.headers.x-forwarded»-for == \"1\"",
        "`-` subtracts ints",
        "a name with a dash stands in brackets: request.headers[\"x-forwarded-for\"]",
    ),
    (
        "request.headers.x == «null»",
        "there is no null",
        "has(request.headers.x) asks whether a value is there",
    ),
    ("«haz»(request.headers.x)", "there is no function `haz`", "did you mean `has`?"),
    ("«now»() == 1", "there is no function `now`", "routes have `expires`; expressions do not know the time"),
    (
        "«startsWith»(request.path, \"/\")",
        "there is no function `startsWith`",
        "it is a method: request.path.startsWith(...)",
    ),
    ("request.path.«startswith»(\"/\")", "there is no method `startswith`", "did you mean `startsWith`?"),
    ("request.path.«hash»() == 1", "there is no method `hash`", "it is a function: hash(request.path)"),
];

#[test]
fn wrong_names_are_shown_with_a_suggestion() {
    for (text, message, hint) in WRONG_NAMES {
        one_fault(text, message, hint);
    }
}

/// Text with the faulty part marked, message, hint.
const WRONG_TYPES: &[(&str, &str, &str)] = &[
    (
        "«request.path»",
        "a condition must be a bool, but this is a text",
        "compare it: request.path == \"...\"",
    ),
    (
        "«client.address»",
        "a condition must be a bool, but this is an address",
        "ask for networks: client.address in [\"10.0.0.0/8\"]",
    ),
    ("«1 + 1»", "a condition must be a bool, but this is an int", "compare it: 1 + 1 > 0"),
    (
        "«request»",
        "`request` has no value of its own",
        "it has: method, path, target, host, scheme, version, id, headers, query, cookies",
    ),
    (
        "«request.headers» == \"x\"",
        "`request.headers` holds many values",
        "take one of its entries: request.headers[\"name\"]",
    ),
    (
        "true && «request.path»",
        "each side of `&&` must be a bool, but this is a text",
        "compare it: request.path == \"...\"",
    ),
    ("!«(1)»", "what `!` negates must be a bool, but this is an int", "compare it: (1) > 0"),
    (
        "«request.query.v == 1»",
        "a text cannot be compared with an int",
        "write \"1\" to compare texts, or int(request.query.v) to compare numbers",
    ),
    ("«request.query.v == true»", "a text cannot be compared with a bool", "write \"true\" to compare texts"),
    ("true «<» false", "a bool has no order", "compare it with `==` or `!=`"),
    (
        "client.address == «\"10.0.0.0/8\"»",
        "`10.0.0.0/8` is not an address",
        "write `in cidr(\"10.0.0.0/8\")` for a network",
    ),
    ("client.address == «\"x\"»", "`x` is not an address", "for instance \"192.0.2.7\" or \"2001:db8::7\""),
    (
        "«client.address == request.path»",
        "an address cannot be compared with a text",
        "string(client.address) is its text",
    ),
    (
        "client.address in [\"10.0.0.0/8\", «\"10.0.0.0/99\"»]",
        "`10.0.0.0/99` is not an address or a network",
        "write \"192.0.2.7\", \"10.0.0.0/8\" or \"2001:db8::/32\"",
    ),
    ("request.path «+» \"x\" == \"/\"", "texts cannot be joined", "compare their parts one by one with `&&`"),
    (
        "1 + «request.query.v» == 2",
        "each side of `+` must be an int, but this is a text",
        "int(request.query.v) is its number",
    ),
    ("«1 / 0» == 2", "this has no result", "it divides by zero, overflows or is not a number"),
    (
        "«9223372036854775807 + 1» == 2",
        "this has no result",
        "it divides by zero, overflows or is not a number",
    ),
    ("«int(\"x\")» == 2", "this has no result", "it divides by zero, overflows or is not a number"),
    (
        "«(request.method == \"GET\" ? 1 : \"a\")» == 1",
        "both values of `?` need one type, but these are an int and a text",
        "string(x) makes a text of each",
    ),
    ("request.path.matches(«\"(\"»)", "this regex is not valid: unclosed group", ""),
    (
        "request.path.matches(«request.path»)",
        "a regex must be a text in quotes: it is compiled at load",
        "for instance request.path.matches(r\"^/v[0-9]+/\")",
    ),
    ("request.path in «\"/a/b\"»", "a text does not stand after `in`", "\"/a/b\".contains(request.path)"),
    (
        "request.path in «3»",
        "after `in` stands a list, a network, or values by name",
        "for instance request.method in [\"GET\", \"HEAD\"]",
    ),
    ("request.path in [\"a\", «1»]", "this list holds texts in quotes", ""),
    ("1 in [1, «\"a\"»]", "this list holds ints", ""),
    (
        "«request.path» in request.headers",
        "the name of an entry must be a text in quotes",
        "for instance \"x-beta\" in request.headers",
    ),
    ("«true» in [1]", "a bool cannot be in this", ""),
    (
        "request.host == «\"Shop.example\"»",
        "this has upper-case letters, but is compared with a text in lower case",
        "write \"shop.example\"",
    ),
    (
        "has(«request.path»)",
        "has takes an entry of request.headers, request.query, request.cookies or params",
        "for instance has(request.headers[\"x-beta\"])",
    ),
    ("has(request.headers.x, «1»)", "`has` takes one argument, but here are more", ""),
    ("«has()»", "`has` takes one argument, but here is none", ""),
    ("request.path.size(«1»)  == 1", "`size` takes nothing in its brackets", ""),
    (
        "«cidr(\"10.0.0.0/8\")»",
        "a network has no value of its own",
        "ask whether it holds an address: client.address in cidr(\"10.0.0.0/8\")",
    ),
    (
        "cidr(\"::/0\").contains(«request.path»)",
        "a network contains addresses, but this is a text",
        "the address there is: client.address",
    ),
    ("«[1]» == 1", "a list has no value of its own", "it stands after `in`: x in [\"a\", \"b\"]"),
];

#[test]
fn wrong_types_are_shown_with_a_way_out() {
    for (text, message, hint) in WRONG_TYPES {
        one_fault(text, message, hint);
    }
}

#[test]
fn every_fault_is_shown_at_once() {
    let parts = |text: &str| -> Vec<String> {
        let faults = Expression::condition(text).unwrap_err();
        faults.into_iter().map(|fault| text[fault.part].to_owned()).collect()
    };
    assert_eq!(
        parts("request.pth == \"/\" && headers.x == 1 || request.path && client.address in [\"a\", \"b\"]"),
        ["pth", "headers", "request.path", "\"a\"", "\"b\""]
    );
    assert_eq!(parts("a = b & c"), ["=", "&"]);
    assert_eq!(parts("x.foo(y) ? z : request.q"), ["foo", "z", "q"]);
    assert!(parts(&"$".repeat(1000)).len() <= 20);
}

#[test]
fn depth_and_length_are_bounded_whatever_the_nesting() {
    let many = 30_000;
    for text in [
        "(".repeat(many),
        "!".repeat(many) + "true",
        "- ".repeat(9000) + "1",
        "[".repeat(many),
        "has(".repeat(9000),
        "true ? ".repeat(9000),
        "true ? true : ".repeat(4000) + "true",
        "1".to_owned() + &" + 1".repeat(9000) + " == 1",
        "request".to_owned() + &".a".repeat(many),
        "request".to_owned() + &"[\"a\"]".repeat(9000),
        "request.path".to_owned() + &".lower()".repeat(7000) + " == \"\"",
        "(true || ".repeat(7000),
    ] {
        let faults = Expression::condition(&text).unwrap_err();
        assert!(faults[0].message.contains("levels deep"), "{:.20}: {}", text, faults[0].message);
    }
    for long in ["(".repeat(LONGEST + 1), "(\u{e9}".repeat(LONGEST)] {
        let faults = Expression::condition(&long).unwrap_err();
        assert_eq!(faults[0].message, "this expression is longer than 64 KiB");
        assert!(long.get(faults[0].part.clone()).is_some());
    }
    let deep = "(".repeat(DEEPEST) + "true" + &")".repeat(DEEPEST);
    assert!(holds(&deep));
    let chain = "request.method == \"x\" || ".repeat(2000) + "request.method == \"GET\"";
    assert!(holds(&chain), "a chain of conditions is not deep");
}

#[test]
fn a_fault_becomes_a_problem_with_its_part_and_hint() {
    let mut problems = Problems::new();
    for fault in Expression::condition("request.pth == \"/\"").unwrap_err() {
        assert_eq!(fault.to_string(), "`request` has no member `pth` (did you mean `path`?)");
        fault.report(&At::root().key("when"), &mut problems);
    }
    let problem = problems.iter().next().unwrap();
    assert_eq!((problem.at.to_string().as_str(), &problem.part), ("when", &Some(8..11)));
    assert_eq!(problem.hint.as_deref(), Some("did you mean `path`?"));
}

#[test]
fn an_expression_prints_as_it_was_written_and_a_value_that_is_no_bool_never_holds() {
    let expression = Expression::value(" request.path ").unwrap();
    assert_eq!(expression.to_string(), " request.path ");
    assert_eq!(expression.as_str(), " request.path ");
    assert!(!with_facts(|facts| expression.holds(facts)));
}

#[test]
fn long_lists_are_sets() {
    let list: Vec<String> = (0..5000).map(|n| format!("\"u{n}\"")).collect();
    assert!(holds(&format!("request.cookies.uid in [{}]", list.join(","))));
    assert!(!holds(&format!("request.path.lower() in [{}]", list.join(","))));
}

/// A random well-typed tree, with a meaning of its own: the oracle.
#[derive(Clone, Debug)]
enum Model {
    Flag(bool),
    /// params.id, which is 42
    Id,
    Number(i64),
    Not(Box<Model>),
    Negated(Box<Model>),
    Pair(&'static str, Box<Model>, Box<Model>),
    If(Box<Model>, Box<Model>, Box<Model>),
}

impl Model {
    fn number(&self) -> Option<i64> {
        match self {
            Model::Id => Some(42),
            Model::Number(value) => Some(*value),
            Model::Negated(inner) => inner.number()?.checked_neg(),
            Model::If(condition, yes, no) => {
                if condition.flag() {
                    yes.number()
                } else {
                    no.number()
                }
            }
            Model::Pair(sign, a, b) => {
                let (a, b) = (a.number()?, b.number()?);
                match *sign {
                    "+" => a.checked_add(b),
                    "-" => a.checked_sub(b),
                    "*" => a.checked_mul(b),
                    "/" => a.checked_div(b),
                    _ => a.checked_rem(b),
                }
            }
            Model::Flag(_) | Model::Not(_) => None,
        }
    }

    fn flag(&self) -> bool {
        match self {
            Model::Flag(value) => *value,
            Model::Not(inner) => !inner.flag(),
            Model::If(condition, yes, no) => {
                if condition.flag() {
                    yes.flag()
                } else {
                    no.flag()
                }
            }
            Model::Pair("&&", a, b) => a.flag() && b.flag(),
            Model::Pair("||", a, b) => a.flag() || b.flag(),
            Model::Pair(sign, a, b) => match (*sign, a.number().zip(b.number())) {
                (sign, None) => sign == "!=",
                ("==", Some((a, b))) => a == b,
                ("!=", Some((a, b))) => a != b,
                ("<", Some((a, b))) => a < b,
                (_, Some((a, b))) => a >= b,
            },
            _ => false,
        }
    }

    fn binding(&self) -> u8 {
        match self {
            Model::If(..) => 0,
            Model::Pair("||", ..) => 1,
            Model::Pair("&&", ..) => 2,
            Model::Pair("==" | "!=" | "<" | ">=", ..) => 3,
            Model::Pair("+" | "-", ..) => 4,
            Model::Pair(..) => 5,
            _ => 6,
        }
    }

    /// As few brackets as the grammar allows, so that precedence and associativity are tested.
    fn print(&self, least: u8) -> String {
        let text = match self {
            Model::Flag(value) => value.to_string(),
            Model::Id => "int(params.id)".to_owned(),
            Model::Number(value) => value.to_string(),
            Model::Not(inner) => format!("!{}", inner.print(6)),
            Model::Negated(inner) => format!("-({})", inner.print(0)),
            Model::Pair(sign, a, b) => {
                format!("{} {sign} {}", a.print(self.binding()), b.print(self.binding() + 1))
            }
            Model::If(condition, yes, no) => {
                format!("{} ? {} : {}", condition.print(1), yes.print(0), no.print(0))
            }
        };
        if self.binding() < least { format!("({text})") } else { text }
    }
}

fn boxed(pair: (&'static str, Model, Model)) -> Model {
    Model::Pair(pair.0, Box::new(pair.1), Box::new(pair.2))
}

fn choice(parts: (Model, Model, Model)) -> Model {
    Model::If(Box::new(parts.0), Box::new(parts.1), Box::new(parts.2))
}

fn numbers() -> BoxedStrategy<Model> {
    let leaf = prop_oneof![3 => Just(Model::Id), 2 => (-3i64..4).prop_map(Model::Number), 1 => any::<i64>().prop_map(Model::Number)];
    leaf.prop_recursive(4, 24, 2, |inner| {
        let signs = prop::sample::select(vec!["+", "-", "*", "/", "%"]);
        prop_oneof![
            4 => (signs, inner.clone(), inner.clone()).prop_map(boxed),
            1 => inner.clone().prop_map(|inner| Model::Negated(Box::new(inner))),
            1 => (any::<bool>().prop_map(Model::Flag), inner.clone(), inner).prop_map(choice),
        ]
    })
    .boxed()
}

fn flags() -> BoxedStrategy<Model> {
    let compare = (prop::sample::select(vec!["==", "!=", "<", ">="]), numbers(), numbers()).prop_map(boxed);
    prop_oneof![1 => any::<bool>().prop_map(Model::Flag), 4 => compare]
        .prop_recursive(4, 24, 2, |inner| {
            let signs = prop::sample::select(vec!["&&", "||"]);
            prop_oneof![
                4 => (signs, inner.clone(), inner.clone()).prop_map(boxed),
                1 => inner.clone().prop_map(|inner| Model::Not(Box::new(inner))),
                1 => (inner.clone(), inner.clone(), inner).prop_map(choice),
            ]
        })
        .boxed()
}

/// Words of the language in any order: gets further than random characters do.
fn words() -> BoxedStrategy<String> {
    let word = prop::sample::select(vec![
        "request",
        ".path",
        ".headers",
        ".query",
        "[\"x\"]",
        "client.address",
        "params",
        ".id",
        "listener",
        "has(",
        "size(",
        "hash(",
        "int(",
        "cidr(",
        ".matches(",
        ".contains(",
        ".lower()",
        "(",
        ")",
        "[",
        "]",
        ",",
        "\"a\"",
        "\"10.0.0.0/8\"",
        "r\"(\"",
        "1",
        "9223372036854775808",
        "-",
        "!",
        "+",
        "%",
        "==",
        "<",
        " in ",
        "&&",
        "||",
        "?",
        ":",
        "true",
        "\\",
        "\"",
        "//",
        "\u{e9}",
        ".",
    ]);
    prop::collection::vec(word, 0..24).prop_map(|words| words.concat()).boxed()
}

fn never_panics(text: &str) {
    for compiled in [Expression::condition(text), Expression::value(text)] {
        match compiled {
            Ok(expression) => with_facts(|facts| {
                expression.holds(facts);
                expression.text(facts);
            }),
            Err(faults) => {
                assert!(!faults.is_empty(), "a refusal says why: {text}");
                for fault in faults {
                    assert!(text.get(fault.part.clone()).is_some(), "{text:?}: {fault:?}");
                    assert!(!fault.message.ends_with('.') && !fault.message.is_empty(), "{fault:?}");
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn any_text_compiles_or_is_refused_with_places(text in "\\PC{0,60}") {
        never_panics(&text);
    }

    #[test]
    fn any_words_compile_or_are_refused_with_places(text in words()) {
        never_panics(&text);
    }

    #[test]
    fn a_printed_tree_means_what_the_tree_means(model in flags()) {
        let text = model.print(0);
        match Expression::condition(&text) {
            Ok(expression) => prop_assert_eq!(with_facts(|facts| expression.holds(facts)), model.flag(), "{}", text),
            // Constant arithmetic without a result is refused at load.
            Err(faults) => prop_assert!(faults.iter().all(|f| f.message == "this has no result"), "{}: {:?}", text, faults),
        }
    }
}
