//! Which route a request takes, through the socket.

use std::net::{IpAddr, Ipv4Addr};

use sluice_testkit::{Gateway, Scratch, Wire, http, sluice};

use crate::setup::base;

/// A route with this name that answers with its name.
fn route(name: &str, matches: &str) -> String {
    format!("[[routes]]\nname = \"{name}\"\nmatch = {{ {matches} }}\nrespond = {{ body = \"{name}\" }}\n")
}

/// A gateway with these routes.
async fn gateway(routes: &[(&str, &str)]) -> Gateway {
    let routes: String = routes.iter().map(|(name, matches)| route(name, matches)).collect();
    Gateway::start(&(base("") + &routes)).await
}

/// The name of the route, or the status.
async fn taken(gateway: &Gateway, target: &str, fields: &[(&str, &str)]) -> String {
    let answer = http::get_with(gateway.address("web"), target, fields).await;
    if answer.status == 200 { answer.text() } else { answer.status.to_string() }
}

/// Whether the document is refused, and what is said.
async fn problems(routes: &[(&str, &str)]) -> String {
    let routes: String = routes.iter().map(|(name, matches)| route(name, matches)).collect();
    let scratch = Scratch::new();
    let path = scratch.write("sluice.toml", base("") + &routes).display().to_string();
    let ended = sluice(["check", &path]).finish().await;
    if ended.code() == 0 { String::new() } else { ended.stderr }
}

#[tokio::test]
async fn r4_hosts_with_and_without_port_and_in_any_case() {
    let gateway = gateway(&[
        ("shop", "hosts = [\"shop.example\", \"store.example\"]"),
        ("wild", "hosts = [\"*.shop.example\"]"),
        ("deep", "hosts = [\"*.eu.shop.example\"]"),
        ("address", "hosts = [\"192.0.2.7\", \"[::1]\"]"),
        ("any", "path_prefix = \"/\""),
    ])
    .await;
    for (host, route) in [
        ("shop.example", "shop"),
        ("shop.example:8080", "shop"),
        ("SHOP.Example", "shop"),
        ("shop.example.", "shop"),
        ("store.example:80", "shop"),
        ("a.shop.example", "wild"),
        ("a.b.shop.example:81", "wild"),
        ("a.eu.shop.example", "deep"),
        ("eu.shop.example", "wild"),
        ("192.0.2.7:80", "address"),
        ("[::1]:80", "address"),
        ("myshop.example", "any"),
        ("shop.example.evil", "any"),
        ("localhost", "any"),
    ] {
        assert_eq!(taken(&gateway, "/", &[("Host", host)]).await, route, "{host}");
    }
    let mut wire = Wire::connect(gateway.address("web")).await;
    wire.send("GET / HTTP/1.0\r\n\r\n").await;
    assert_eq!(wire.answer().await.text(), "any", "HTTP/1.0 without a Host");
}

#[tokio::test]
async fn templates_prefixes_and_regexes_in_their_order() {
    let gateway = gateway(&[
        ("exact", "path = \"/v1/items/top\""),
        ("int", "path = \"/v1/items/{id:int}\""),
        ("uuid", "path = \"/v1/items/{id:uuid}\""),
        ("json", "path = \"/v1/items/{id}.json\""),
        ("one", "path = \"/v1/items/{id}\""),
        ("tail", "path = \"/v1/items/{id}/{*rest}\""),
        ("regex", "path_regex = \"^/v1/items/r[0-9]+$\""),
        ("prefix", "path_prefix = \"/v1\""),
        ("longer", "path_prefix = \"/v1/things\""),
    ])
    .await;
    for (target, route) in [
        ("/v1/items/top", "exact"),
        ("/v1/items/7", "int"),
        ("/v1/items/-7", "int"),
        ("/v1/items/0f8fad5b-d9cb-469f-a165-70867728950e", "uuid"),
        ("/v1/items/a.json", "json"),
        ("/v1/items/abc", "one"),
        ("/v1/items/abc/", "prefix"),
        ("/v1/items/abc/d/e", "tail"),
        ("/v1/items/r12", "regex"),
        ("/v1", "prefix"),
        ("/v1/", "prefix"),
        ("/v1x", "404"),
        ("/v1/things", "longer"),
        ("/v1/things/x", "longer"),
        ("/v1/thingsx", "prefix"),
        ("/V1", "404"),
        ("/", "404"),
    ] {
        assert_eq!(taken(&gateway, target, &[]).await, route, "{target}");
    }
}

#[tokio::test]
async fn r20_enum_sets_and_parameter_names_stand_side_by_side() {
    let gateway = gateway(&[
        ("fruit", "path = \"/{kind:apple|pear}/{id}\""),
        ("tool", "path = \"/{kind:saw|axe}/{name}\""),
        ("colour", "path = \"/{colour:red|green}/{id:int}\""),
        ("other", "path = \"/{anything}/{number}\""),
        ("deeper", "path = \"/{anything}/{x}/{y}\""),
    ])
    .await;
    for (target, route) in [
        ("/apple/1", "fruit"),
        ("/pear/x", "fruit"),
        ("/saw/1", "tool"),
        ("/axe/x", "tool"),
        ("/red/7", "colour"),
        ("/red/x", "other"),
        ("/apples/1", "other"),
        ("/appl/1", "other"),
        ("/apple/1/2", "deeper"),
        ("/apple", "404"),
    ] {
        assert_eq!(taken(&gateway, target, &[]).await, route, "{target}");
    }
}

#[tokio::test]
async fn r14_odd_characters_and_encoded_forms_match() {
    let gateway = gateway(&[
        ("colon", "path = \"/v1/items:batch\""),
        ("parens", "path = \"/f(x)|g\""),
        ("space", "path = \"/a b\""),
        ("umlaut", "path = \"/grün/{name}\""),
        ("odata", "path = \"/Products({id})\""),
        ("slash", "path = \"/files/{name}\""),
    ])
    .await;
    for (target, route) in [
        ("/v1/items:batch", "colon"),
        ("/v1/items%3Abatch", "colon"),
        ("/%76%31/items%3abatch", "colon"),
        ("/f(x)|g", "parens"),
        ("/f%28x%29%7Cg", "parens"),
        ("/a%20b", "space"),
        ("/gr%C3%BCn/x", "umlaut"),
        ("/gr%c3%bcn/%C3%BC", "umlaut"),
        ("/Products(7)", "odata"),
        ("/Products%287%29", "odata"),
        ("/files/a%2Fb", "slash"),
        ("/files/a/b", "404"),
        ("/files//a", "slash"),
        ("/x/../files/./a", "slash"),
        ("/x/%2e%2e/files/a", "slash"),
        ("/a+b", "404"),
        ("/../a%20b", "400"),
        ("/a%2", "400"),
        ("/a%00b", "400"),
    ] {
        assert_eq!(taken(&gateway, target, &[]).await, route, "{target}");
    }
}

#[tokio::test]
async fn methods_that_no_route_has_get_405_with_all_that_there_are() {
    let gateway = gateway(&[
        ("read", "path = \"/x\", methods = [\"GET\"]"),
        ("write", "path = \"/x\", methods = [\"POST\", \"PUT\"]"),
        ("purge", "path = \"/y\", methods = [\"PURGE\"]"),
    ])
    .await;
    let ask = async |method: &str, target: &str| {
        let answer = http::request(gateway.address("web"), method, target, &[], b"").await;
        (answer.status, answer.field("allow").map(str::to_owned))
    };
    for (method, status) in [("GET", 200), ("HEAD", 200), ("POST", 200), ("PUT", 200)] {
        assert_eq!(ask(method, "/x").await, (status, None), "{method}");
    }
    for method in ["DELETE", "OPTIONS", "PURGE", "get"] {
        assert_eq!(ask(method, "/x").await, (405, Some("GET, HEAD, POST, PUT".into())), "{method}");
    }
    assert_eq!(ask("PURGE", "/y").await, (200, None));
    assert_eq!(ask("GET", "/y").await, (405, Some("PURGE".into())));
    assert_eq!(ask("GET", "/z").await, (404, None));
    let answer = http::request(gateway.address("web"), "DELETE", "/x", &[], b"").await;
    assert_eq!(answer.code(), "method-not-allowed");
}

#[tokio::test]
async fn headers_queries_and_cookies_are_conditions() {
    let conditions = [
        ("exact", "\"1\""),
        ("prefix", "{ prefix = \"pre\" }"),
        ("both", "{ suffix = \"fix\", contains = \"u\" }"),
        ("regex", "{ regex = \"^[a-c]+$\" }"),
        ("range", "{ min = 100, max = 200.5 }"),
        ("absent", "{ present = false }"),
        ("present", "{ present = true }"),
        ("not", "{ exact = \"1\", not = true }"),
    ];
    let mut routes = String::new();
    for (name, condition) in conditions {
        routes += &route(name, &format!("path = \"/{name}\", headers = {{ X-A = {condition} }}"));
    }
    routes += &route("query", "path = \"/q\", query = { v = \"a b\" }");
    routes += &route("two", "path = \"/q\", query = { v = \"1\", w = \"2\" }");
    routes += &route("flag", "path = \"/flag\", query = { debug = { present = true } }");
    routes += &route("cookie", "path = \"/c\", cookies = { who = \"me\" }");
    let gateway = Gateway::start(&(base("") + &routes)).await;
    for (route, matching, others) in [
        ("exact", "1", ["10", "x"]),
        ("prefix", "prefer", ["Prefer", "repre"]),
        ("both", "suffix", ["sufix-", "fix"]),
        ("regex", "abc", ["abcd", "ABC"]),
        ("range", "200.5", ["200.6", "x"]),
        ("present", "x", ["", ""]),
        ("not", "2", ["1", "1"]),
    ] {
        let target = format!("/{route}");
        assert_eq!(taken(&gateway, &target, &[("x-a", matching)]).await, route, "{matching}");
        for other in others.into_iter().filter(|other| !other.is_empty()) {
            assert_eq!(taken(&gateway, &target, &[("X-A", other)]).await, "404", "{route}: {other}");
        }
    }
    assert_eq!(taken(&gateway, "/absent", &[]).await, "absent");
    assert_eq!(taken(&gateway, "/absent", &[("X-A", "1")]).await, "404");
    assert_eq!(taken(&gateway, "/not", &[]).await, "not");
    assert_eq!(taken(&gateway, "/exact", &[("X-A", "0"), ("X-A", "1")]).await, "exact", "any line counts");
    for (target, route) in [
        ("/q?v=a+b", "query"),
        ("/q?x=1&v=a%20b", "query"),
        ("/q?w=2&v=1", "two"),
        ("/q?v=1", "404"),
        ("/q", "404"),
        ("/flag?debug", "flag"),
        ("/flag?debug=0", "flag"),
        ("/flag?bug=0", "404"),
    ] {
        assert_eq!(taken(&gateway, target, &[]).await, route, "{target}");
    }
    assert_eq!(taken(&gateway, "/c", &[("Cookie", "a=b; who=me; c=d")]).await, "cookie");
    assert_eq!(taken(&gateway, "/c", &[("Cookie", "who=you")]).await, "404");
}

#[tokio::test]
async fn source_listener_and_expression_are_conditions() {
    let routes = route("second", "source = [\"127.0.0.2\"]")
        + &route("third", "source = [\"127.0.3.0/24\"]")
        + &route("inside", "listeners = [\"inside\"], path = \"/in\"")
        + &route(
            "when",
            "path = \"/when\", when = 'request.headers[\"x-beta\"] == \"1\" && request.query.v in [\"1\", \"2\"]'",
        );
    let document = base("") + "[listeners.inside]\naddress = \"127.0.0.1:0\"\n\n" + &routes;
    let gateway = Gateway::start(&document).await;
    let from = async |last: [u8; 4], target: &str| {
        let mut wire = Wire::connect_from(IpAddr::V4(Ipv4Addr::from(last)), gateway.address("web")).await;
        wire.send(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        let answer = wire.answer().await;
        if answer.status == 200 { answer.text() } else { answer.status.to_string() }
    };
    assert_eq!(from([127, 0, 0, 2], "/").await, "second");
    assert_eq!(from([127, 0, 3, 9], "/").await, "third");
    assert_eq!(from([127, 0, 0, 3], "/").await, "404");
    assert_eq!(http::get(gateway.address("inside"), "/in").await.text(), "inside");
    assert_eq!(taken(&gateway, "/in", &[]).await, "404");
    assert_eq!(taken(&gateway, "/when?v=2", &[("X-Beta", "1")]).await, "when");
    assert_eq!(taken(&gateway, "/when?v=3", &[("X-Beta", "1")]).await, "404");
    assert_eq!(taken(&gateway, "/when?v=1", &[]).await, "404");
}

#[tokio::test]
async fn priority_comes_first_and_what_is_disabled_or_expired_takes_no_part() {
    let with = |name: &str, matches: &str, more: &str| route(name, matches) + more + "\n";
    let document = base("")
        + &with("exact", "path = \"/a\"", "")
        + &with("first", "path_prefix = \"/a\"", "priority = 10")
        + &with("last", "path = \"/b\"", "priority = -1")
        + &with("prefix", "path_prefix = \"/b\"", "")
        + &with("off", "path = \"/c\"", "enabled = false")
        + &with("past", "path = \"/c\"", "expires = \"2020-01-01T00:00:00Z\"")
        + &with("future", "path_prefix = \"/c\"", "expires = \"2999-01-01T00:00:00Z\"");
    let gateway = Gateway::start(&document).await;
    for (target, route) in [("/a", "first"), ("/b", "prefix"), ("/c", "future")] {
        assert_eq!(taken(&gateway, target, &[]).await, route, "{target}");
    }
}

#[tokio::test]
async fn ties_are_problems_and_what_is_told_apart_is_none() {
    let tied: [&[(&str, &str)]; 5] = [
        &[("one", "path = \"/a\""), ("two", "path = \"/a\"")],
        &[("one", "path = \"/{a}\""), ("two", "path = \"/{b}\"")],
        &[("one", "path = \"/{a:x|y}\""), ("two", "path = \"/{b:y|z}\"")],
        &[("one", "path_prefix = \"/a\""), ("two", "path_prefix = \"/a/\"")],
        &[("one", "headers = { X-A = \"1\" }"), ("two", "headers = { X-B = \"1\" }")],
    ];
    for routes in tied {
        let said = problems(routes).await;
        assert!(said.contains("`two` ties with `one`"), "{routes:?}: {said}");
    }
    let apart: [&[(&str, &str)]; 5] = [
        &[("one", "path = \"/a\""), ("two", "path_prefix = \"/a\"")],
        &[("one", "path = \"/a\", methods = [\"GET\"]"), ("two", "path = \"/a\", methods = [\"POST\"]")],
        &[("one", "path = \"/{a:x|y}\""), ("two", "path = \"/{b:z|w}\"")],
        &[("one", "hosts = [\"a.example\"]"), ("two", "hosts = [\"b.example\"]")],
        &[("one", "path_regex = \"^/a\""), ("two", "path_regex = \"a$\"")],
    ];
    for routes in apart {
        assert_eq!(problems(routes).await, "", "{routes:?}");
    }
}

mod with_peers {
    //! nginx decides the same.

    use super::*;
    use sluice_testkit::Peer;

    /// In the order in which they are written: the form, as nginx and as our `location` take it.
    const LOCATIONS: &[&str] = &[
        "= /",
        "= /exact",
        "/",
        "/doc",
        "/docs/",
        "/docs/api",
        "^~ /static/",
        "^~ /static/images/",
        "/static/images/deep/",
        "~ \\\\.php$",
        "~* \\\\.(gif|jpg)$",
        "~ ^/docs/[0-9]+$",
        "~ ^/docs/[0-9]",
        "~* ^/CASE",
        "/case",
        "~ /a b$",
        "^~ /un",
        "/grün",
    ];

    const TARGETS: &[&str] = &[
        "/",
        "/?q=1",
        "/exact",
        "/exact/",
        "/exactly",
        "/doc",
        "/docs",
        "/documents/x",
        "/docs/",
        "/docs/api",
        "/docs/apis",
        "/docs/12",
        "/docs/12a",
        "/docs/x.php",
        "/index.php",
        "/index.PHP",
        "/a.GIF",
        "/a.gif?x=.php",
        "/static/a.php",
        "/static/images/a.gif",
        "/static/images/deep/a.gif",
        "/static",
        "/Case/x",
        "/case/x",
        "/x/../docs/12",
        "/x//docs/12",
        "//docs///12",
        "/%64ocs/12",
        "/docs/%31%32",
        "/x/a%20b",
        "/under",
        "/gr%C3%BCn/x",
        "/docs/./12",
        "/a%2Fb.php",
        "/nothing/here",
    ];

    #[tokio::test]
    async fn locations_win_as_they_do_in_nginx() {
        let mut server = String::new();
        let mut routes = String::new();
        for (number, location) in LOCATIONS.iter().enumerate() {
            // A regex with a space needs quotes there; TOML doubles the backslashes here.
            let theirs = location.replace("\\\\", "\\");
            let (modifier, text) = theirs.split_once(' ').unwrap_or(("", &theirs));
            server.push_str(&format!("location {modifier} \"{text}\" {{ return 200 \"{number}\"; }}\n"));
            routes.push_str(&route(&number.to_string(), &format!("location = \"{location}\"")));
        }
        let nginx = Peer::nginx(&server).await;
        let gateway = Gateway::start(&(base("") + &routes)).await;
        let mut differ = Vec::new();
        for target in TARGETS {
            let theirs = http::get(nginx.address(), target).await;
            let ours = http::get(gateway.address("web"), target).await;
            if (theirs.status, theirs.text()) != (ours.status, ours.text()) {
                differ.push(format!("{target}: nginx takes {}, we {}", theirs.text(), ours.text()));
            }
        }
        assert_eq!(differ, Vec::<String>::new());
    }
}
