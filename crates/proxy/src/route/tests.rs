//! The table as a whole: what wins, what ties, what is explained.

use super::*;
use crate::facts::{Facts, Scheme};
use sluice_http::{FieldName, NameId, RequestHead};

/// A route from the JSON of a match, with keys of the route itself beside it.
pub(super) struct Written {
    pub(super) name: String,
    pub(super) matches: Match,
    pub(super) priority: i32,
    pub(super) enabled: bool,
    pub(super) expires: Option<u64>,
}

impl Written {
    fn new(name: &str, matches: &str) -> Written {
        let matches = serde_json::from_str(matches).unwrap_or_else(|error| panic!("{matches}: {error}"));
        Written { name: name.to_owned(), matches, priority: 0, enabled: true, expires: None }
    }

    fn priority(self, priority: i32) -> Written {
        Written { priority, ..self }
    }
}

pub(super) fn build(routes: &[Written]) -> (Table, Problems) {
    let specs: Vec<RouteSpec<'_>> = routes
        .iter()
        .enumerate()
        .map(|(index, route)| RouteSpec {
            name: &route.name,
            matches: &route.matches,
            priority: route.priority,
            enabled: route.enabled,
            expires: route.expires,
            at: At::root().key("routes").index(index),
        })
        .collect();
    let mut problems = Problems::new();
    let table = Table::build(&specs, &["web"], &mut problems);
    (table, problems)
}

/// A table of routes named by their match, which has no problems.
fn table(matches: &[&str]) -> Table {
    let routes: Vec<_> = matches.iter().map(|text| Written::new(text, text)).collect();
    let (table, problems) = build(&routes);
    assert!(problems.is_empty(), "{problems:?}");
    table
}

pub(super) fn request(method: &str, host: &str, target: &str, fields: &[(&str, &str)]) -> RequestHead {
    let mut head = RequestHead::new(method, target);
    head.fields.append(NameId::Host, host.as_bytes());
    for (name, value) in fields {
        head.fields.append(&FieldName::new(name).unwrap(), value.as_bytes());
    }
    head
}

/// Asks with the facts of a request whose path is already normal.
pub(super) fn with_facts<T>(head: &RequestHead, ask: impl FnOnce(&Facts<'_>) -> T) -> T {
    ask(&Facts {
        head,
        path: &decode::path(head.path()).unwrap(),
        client: "192.0.2.7".parse().unwrap(),
        scheme: Scheme::Http,
        listener: "web",
        tls: None,
        request_id: "",
        route: "",
        params: &Params::default(),
        identity: Default::default(),
    })
}

const NOW: u64 = 1_800_000_000;

fn find(table: &Table, method: &str, host: &str, target: &str) -> Lookup {
    with_facts(&request(method, host, target, &[]), |facts| table.find(facts, NOW))
}

/// The position of the route that a GET finds.
fn found(table: &Table, host: &str, target: &str) -> Option<usize> {
    match find(table, "GET", host, target) {
        Lookup::Found { route, .. } => Some(route),
        _ => None,
    }
}

#[test]
fn a_host_matches_with_and_without_port_in_any_case() {
    let table = table(&[r#"{"hosts":["shop.example","[::1]"],"path":"/"}"#]);
    for host in
        ["shop.example", "shop.example:8080", "SHOP.Example:80", "shop.example.", "[::1]", "[0::1]:8080"]
    {
        assert_eq!(found(&table, host, "/"), Some(0), "{host}");
    }
    for host in ["", "shop.example.org", "a.shop.example", "::1"] {
        assert_eq!(found(&table, host, "/"), None, "{host}");
    }
}

#[test]
fn priority_comes_before_host_and_host_before_path() {
    let hosts = [
        r#"{"hosts":["a.shop.example"],"path_prefix":"/"}"#,
        r#"{"hosts":["*.shop.example"],"path":"/x"}"#,
        r#"{"hosts":["*.example"],"path":"/x","methods":["GET"]}"#,
        r#"{"path":"/x","methods":["GET"]}"#,
    ];
    let plain = table(&hosts);
    for (host, route) in [("a.shop.example", 0), ("b.a.shop.example", 1), ("c.example", 2), ("c.org", 3)] {
        assert_eq!(found(&plain, host, "/x"), Some(route), "{host}");
    }
    let mut routes: Vec<_> = hosts.iter().map(|text| Written::new(text, text)).collect();
    routes[3].priority = 1;
    assert_eq!(found(&build(&routes).0, "a.shop.example", "/x"), Some(3));
    assert_eq!(found(&build(&routes).0, "a.shop.example", "/y"), Some(0));
}

#[test]
fn paths_with_odd_characters_and_encoded_ones_match() {
    let table = table(&[
        r#"{"path":"/v1/a:b(c)|d"}"#,
        r#"{"path":"/v2/caf%C3%A9"}"#,
        r#"{"path":"/v3/{id}:cancel"}"#,
        r#"{"path_prefix":"/v4/(x)"}"#,
    ]);
    for (target, route) in [
        ("/v1/a:b(c)|d", 0),
        ("/v1/%61%3Ab%28c%29%7Cd", 0),
        ("/v2/caf%c3%a9", 1),
        ("/v3/7:cancel", 2),
        ("/v3/7%3Acancel", 2),
        ("/v4/%28x%29/y", 3),
    ] {
        assert_eq!(found(&table, "", target), Some(route), "{target}");
    }
}

#[test]
fn the_more_specific_path_wins() {
    let table = table(&[
        r#"{}"#,
        r#"{"path_prefix":"/"}"#,
        r#"{"path_prefix":"/x"}"#,
        r#"{"path":"/x/{*rest}"}"#,
        r#"{"path":"/x/{id}"}"#,
        r#"{"path":"/x/{id:int}"}"#,
        r#"{"path":"/x/{id}.json"}"#,
        r#"{"path":"/x/{kind:a|b}"}"#,
        r#"{"path":"/x/{kind:c|d}"}"#,
        r#"{"path":"/x/a"}"#,
        r#"{"path_regex":"^/x/r"}"#,
    ]);
    for (target, route) in [
        ("*", 1),
        ("/y", 1),
        ("/x", 2),
        ("/x/", 2),
        ("/x/y/z", 3),
        ("/x/y", 4),
        ("/x/7", 5),
        ("/x/7.json", 6),
        ("/x/b", 7),
        ("/x/d", 8),
        ("/x/a", 9),
        ("/x/r", 10),
    ] {
        assert_eq!(found(&table, "", target), Some(route), "{target}");
    }
    let Lookup::Found { params, .. } = find(&table, "GET", "", "/x/a%2Fb") else { panic!() };
    assert_eq!(params.get("id"), Some("a/b"));
}

#[test]
fn locations_follow_nginx() {
    // The examples of nginx's documentation of `location`, A to E, and a longer plain prefix.
    let table = table(&[
        r#"{"location":"= /"}"#,
        r#"{"location":"/"}"#,
        r#"{"location":"/documents/"}"#,
        r#"{"location":"^~ /images/"}"#,
        r#"{"location":"~* \\.(gif|jpg|jpeg)$"}"#,
        r#"{"location":"~ ^/documents/.*\\.gif$"}"#,
        r#"{"location":"/images/raw/"}"#,
    ]);
    for (target, route) in [
        ("/", 0),
        ("/index.html", 1),
        ("/documents/document.html", 2),
        ("/images/1.gif", 3),
        ("/documents/1.JPG", 4),
        ("/documents/1.gif", 4),
        ("/images/raw/1.gif", 4),
        ("/images/raw/1.png", 6),
        ("/documents", 1),
    ] {
        assert_eq!(found(&table, "", target), Some(route), "{target}");
    }
}

#[test]
fn a_location_whose_conditions_fail_is_as_if_it_were_not_there() {
    let table = table(&[
        r#"{"location":"^~ /a/"}"#,
        r#"{"location":"/a/b/","methods":["POST"]}"#,
        r#"{"location":"~ ^/a/b/"}"#,
        r#"{"location":"= /a/b/c","methods":["PUT"]}"#,
    ]);
    let route = |method| match find(&table, method, "", "/a/b/c") {
        Lookup::Found { route, .. } => route,
        other => panic!("{other:?}"),
    };
    assert_eq!((route("GET"), route("POST"), route("PUT")), (0, 2, 3));
}

#[test]
fn other_methods_get_405_with_all_that_are_allowed() {
    let table = table(&[
        r#"{"path":"/x","methods":["POST"]}"#,
        r#"{"path":"/x","methods":["GET","PURGE"]}"#,
        r#"{"path":"/x","methods":["DELETE"],"headers":{"x-admin":"1"}}"#,
        r#"{"path_prefix":"/x","methods":["PUT"]}"#,
        r#"{"path":"/y","methods":["OPTIONS"]}"#,
    ]);
    let allow = "GET, HEAD, POST, PURGE, PUT".to_owned();
    assert_eq!(find(&table, "PATCH", "", "/x"), Lookup::MethodNotAllowed { allow: allow.clone() });
    assert_eq!(find(&table, "OPTIONS", "", "/x"), Lookup::MethodNotAllowed { allow });
    assert_eq!(find(&table, "PATCH", "", "/z"), Lookup::NotFound);
    for (method, route) in [("HEAD", 1), ("GET", 1), ("PURGE", 1), ("POST", 0), ("PUT", 3)] {
        let params = Params::default();
        assert_eq!(find(&table, method, "", "/x"), Lookup::Found { route, params }, "{method}");
    }
}

#[test]
fn more_conditions_win_and_all_must_hold() {
    let table = table(&[
        r#"{"path_prefix":"/"}"#,
        r#"{"path_prefix":"/","headers":{"x-beta":"1"}}"#,
        r#"{"path_prefix":"/","headers":{"x-beta":"1"},"query":{"v":{"min":2}}}"#,
    ]);
    let route =
        |target, fields: &[(&str, &str)]| match with_facts(&request("GET", "", target, fields), |facts| {
            table.find(facts, NOW)
        }) {
            Lookup::Found { route, .. } => route,
            other => panic!("{other:?}"),
        };
    assert_eq!(route("/", &[]), 0);
    assert_eq!(route("/?v=2", &[]), 0);
    assert_eq!(route("/?v=1", &[("X-Beta", "1")]), 1);
    assert_eq!(route("/?v=2", &[("X-Beta", "1")]), 2);
}

#[test]
fn a_route_that_is_disabled_or_has_expired_matches_nothing() {
    let mut routes =
        [Written::new("old", r#"{"path":"/x"}"#).priority(1), Written::new("new", r#"{"path":"/x"}"#)];
    let ask = |routes: &[Written]| {
        let (table, problems) = build(routes);
        assert!(problems.is_empty());
        found(&table, "", "/x")
    };
    assert_eq!(ask(&routes), Some(0));
    routes[0].expires = Some(NOW + 1);
    assert_eq!(ask(&routes), Some(0));
    routes[0].expires = Some(NOW);
    assert_eq!(ask(&routes), Some(1));
    routes[0].expires = None;
    routes[0].enabled = false;
    assert_eq!(ask(&routes), Some(1));
    // Not even a tie: a disabled twin is a common way to prepare a change.
    routes[0].priority = 0;
    assert_eq!(ask(&routes), Some(1));
    routes[1].enabled = false;
    assert_eq!(ask(&routes), None);
}

#[test]
fn routes_that_nothing_tells_apart_are_a_problem() {
    for (a, b) in [
        (r#"{"path":"/x"}"#, r#"{"path":"/x"}"#),
        (r#"{"path":"/x"}"#, r#"{"path":"/%78"}"#),
        (r#"{"path":"/x"}"#, r#"{"location":"= /x"}"#),
        (r#"{"path":"/x/{id}"}"#, r#"{"path":"/x/{name}"}"#),
        (r#"{"path":"/x/{k:a|b}"}"#, r#"{"path":"/x/{k:b|c}"}"#),
        (r#"{"path":"/x/{k:a|b}/{id}"}"#, r#"{"path":"/x/{kind:b|c}/{name}"}"#),
        (r#"{"path":"/x/a{id}"}"#, r#"{"path":"/x/{id}b"}"#),
        (r#"{"path_prefix":"/x"}"#, r#"{"path_prefix":"/x/"}"#),
        (r#"{"path_regex":"^/x"}"#, r#"{"path_regex":"^/x"}"#),
        (r#"{"location":"/x"}"#, r#"{"location":"^~ /x"}"#),
        (r#"{}"#, r#"{"hosts":["*"]}"#),
        (r#"{"hosts":["a.x"]}"#, r#"{"hosts":["b.x","A.X"]}"#),
        (r#"{"path":"/x","methods":["GET"]}"#, r#"{"path":"/x","methods":["HEAD"]}"#),
        (r#"{"path":"/x","methods":["GET"]}"#, r#"{"path":"/x","headers":{"a":"1"}}"#),
        (r#"{"path":"/x","when":"true"}"#, r#"{"path":"/x","when":"true"}"#),
    ] {
        let (_, problems) = build(&[Written::new("one", a), Written::new("two", b)]);
        let all: Vec<_> = problems.iter().collect();
        assert_eq!(all.len(), 1, "{a} {b}");
        assert_eq!(all[0].at.to_string(), "routes[1]");
        assert!(all[0].message.contains("`two` ties with `one`"), "{}", all[0].message);
        assert!(all[0].hint.as_deref().is_some_and(|hint| hint.contains("priority")));
        // A priority settles it.
        let (_, problems) = build(&[Written::new("one", a).priority(1), Written::new("two", b)]);
        assert!(problems.is_empty(), "{a} {b}");
    }
}

#[test]
fn routes_that_can_be_told_apart_are_no_problem() {
    for (a, b) in [
        (r#"{"path":"/x"}"#, r#"{"path":"/y"}"#),
        (r#"{"hosts":["*.x"]}"#, r#"{"hosts":["*.x"],"path_prefix":"/"}"#),
        (r#"{"path":"/x/{k:a|b}"}"#, r#"{"path":"/x/{kind:c|d}"}"#),
        (r#"{"path":"/x/{id:int}"}"#, r#"{"path":"/x/{name}"}"#),
        (r#"{"path":"/x/{id:int}"}"#, r#"{"path":"/x/{name:uuid}"}"#),
        (r#"{"path":"/x/a{id}"}"#, r#"{"path":"/x/b{id}"}"#),
        (r#"{"path":"/x/{*rest}"}"#, r#"{"path_prefix":"/x"}"#),
        (r#"{"path":"/x","methods":["GET"]}"#, r#"{"path":"/x","methods":["POST"]}"#),
        (r#"{"path":"/x","headers":{"v":"1"}}"#, r#"{"path":"/x","headers":{"v":"2"}}"#),
        (r#"{"path":"/x","headers":{"v":"1"}}"#, r#"{"path":"/x"}"#),
        (r#"{"path":"/x","hosts":["a"]}"#, r#"{"path":"/x","hosts":["b"]}"#),
        (r#"{"path":"/x","hosts":["*.a"]}"#, r#"{"path":"/x","hosts":["*.b.a"]}"#),
        (r#"{"path_regex":"^/x"}"#, r#"{"path_regex":"^/x.*"}"#),
        (r#"{"location":"~ ^/x"}"#, r#"{"location":"~ ^/x"}"#),
        (r#"{"path":"/x","source":["10.0.0.0/8"]}"#, r#"{"path":"/x","source":["192.0.2.0/24"]}"#),
    ] {
        let (_, problems) = build(&[Written::new("one", a), Written::new("two", b)]);
        assert!(problems.is_empty(), "{a} {b}: {problems:?}");
    }
}

#[test]
fn each_route_that_ties_is_reported_once_with_the_first_it_ties_with() {
    let both = r#"{"hosts":["a.x","b.x"],"path":"/x"}"#;
    let routes = [Written::new("one", both), Written::new("two", both), Written::new("three", both)];
    let messages: Vec<_> = build(&routes).1.iter().map(|problem| problem.message[..22].to_owned()).collect();
    assert_eq!(messages, ["`two` ties with `one`:", "`three` ties with `one"]);
}

#[test]
fn every_problem_of_every_route_is_found_and_the_others_are_compiled() {
    let routes = [
        Written::new("one", r#"{"hosts":["a:80","*x"],"path":"x","methods":["get"]}"#),
        Written::new("two", r#"{"path_regex":"(","listeners":["wbe"]}"#),
        Written::new("three", r#"{"path":"/x"}"#),
    ];
    let (table, problems) = build(&routes);
    let places: Vec<_> = problems.iter().map(|problem| problem.at.to_string()).collect();
    let expected = [
        "routes[0].match.hosts[0]",
        "routes[0].match.hosts[1]",
        "routes[0].match.path",
        "routes[0].match.methods[0]",
        "routes[1].match.path_regex",
        "routes[1].match.listeners[0]",
    ];
    assert_eq!(places, expected);
    assert_eq!(found(&table, "", "/x"), Some(2));
}

#[test]
fn a_match_is_read_strictly_and_written_back_without_defaults() {
    let error = serde_json::from_str::<Match>(r#"{"paht":"/x"}"#).unwrap_err().to_string();
    assert!(error.contains("unknown field `paht`"), "{error}");
    let text = r#"{"hosts":["a"],"path":"/x","headers":{"h":"1","i":{"min":1,"not":true}}}"#;
    let read: Match = serde_json::from_str(text).unwrap();
    assert_eq!(serde_json::to_string(&read).unwrap(), text);
    let schema = schemars::schema_for!(Match);
    let schema = serde_json::to_string(&schema).unwrap();
    assert!(schema.contains("\"additionalProperties\":false") && schema.contains("path_prefix"));
}

#[test]
fn an_explanation_names_winner_runner_up_and_reasons() {
    let routes = [
        Written::new("everything", r#"{"path_prefix":"/"}"#),
        Written::new("product", r#"{"hosts":["shop.example"],"path":"/products/{id}","methods":["GET"]}"#),
        Written::new("beta", r#"{"path":"/products/{id}","headers":{"x-beta":"1"},"methods":["POST"]}"#),
        Written::new("fallback", r#"{"path_prefix":"/products"}"#).priority(-1),
        Written { expires: Some(1), ..Written::new("gone", r#"{"path":"/products/7"}"#) },
        Written { enabled: false, ..Written::new("off", r#"{"path":"/products/7"}"#) },
        Written::new("elsewhere", r#"{"hosts":["other.example"],"path":"/other"}"#),
    ];
    let (table, problems) = build(&routes);
    assert!(problems.is_empty(), "{problems:?}");
    let explain = |method, target| {
        with_facts(&request(method, "shop.example", target, &[]), |facts| table.explain(facts, NOW))
    };
    let explanation = explain("GET", "/products/7");
    assert_eq!(
        explanation.to_string(),
        "route product (priority 0, host shop.example, path /products/{id}, method GET, HEAD)\n  \
           id = 7\n\
         runner-up everything (priority 0, host *, path_prefix /)\n\
         not everything: it matches, with a less specific host\n\
         not fallback: it matches, with lower priority (-1)\n\
         not gone: it has expired\n\
         not off: it is disabled\n\
         not beta: the method is not POST; does not hold: header x-beta: exact \"1\"\n\
         not elsewhere: the host is not other.example; the path does not match path /other\n"
    );
    let json = serde_json::to_value(&explanation).unwrap();
    assert_eq!(json["winner"]["route"], "product");
    assert_eq!(json["lost"][2]["reasons"][0]["why"], "expired");
}

#[test]
fn an_explanation_says_when_only_the_method_differs_and_is_bounded() {
    let routes: Vec<_> = (0..50)
        .map(|number| {
            Written::new(&format!("r{number}"), &format!(r#"{{"path":"/{number}","methods":["GET"]}}"#))
        })
        .collect();
    let (table, _) = build(&routes);
    let head = request("POST", "a", "/7", &[]);
    let explanation = with_facts(&head, |facts| table.explain(facts, NOW));
    assert_eq!(explanation.verdict, Verdict::MethodNotAllowed { allow: "GET, HEAD".to_owned() });
    assert_eq!((explanation.lost.len(), explanation.omitted), (20, 30));
    assert_eq!(explanation.lost[0].route, "r7");
}
