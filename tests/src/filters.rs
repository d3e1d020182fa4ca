//! Filters and what the gateway tells both sides, seen at the socket.

use sluice_testkit::{Gateway, Origin, Reply, Wire, http};

use crate::setup::{Lines, base};

#[tokio::test]
async fn request_headers_are_removed_renamed_set_and_added() {
    let origin = Origin::start(Reply::ok("")).await;
    let route = "match = { path = \"/u/{id}\" }\nfilters = [{ headers = { request = { \
        remove = [\"X-Gone\", \"cookie\"], rename = { X-Old = \"X-New\" }, \
        set = { X-One = \"1\", X-Vars = \"{client} {method} {host} {param.id} {query.q} {header.x-in} {route} {listener} {scheme}\" }, \
        set_if_missing = { X-One = \"no\", X-Default = \"d\" }, add = { X-Many = \"b\" } } } }]";
    let gateway = Lines { route, ..Lines::default() }.start(&[origin.address()]).await;
    let fields = [
        ("X-Gone", "1"),
        ("x-gone", "2"),
        ("Cookie", "a=b"),
        ("X-Old", "kept"),
        ("X-One", "theirs"),
        ("X-In", "in"),
        ("X-Many", "a"),
    ];
    let mut all = vec![("Host", "shop.example")];
    all.extend(fields);
    http::get_with(gateway.address("web"), "/u/7?q=v", &all).await;
    let seen = origin.last();
    assert_eq!((seen.field("x-gone"), seen.field("cookie"), seen.field("x-old")), (None, None, None));
    assert_eq!(seen.field("x-new"), Some("kept"));
    assert_eq!(seen.fields.all("x-one").collect::<Vec<_>>(), ["1"]);
    assert_eq!(seen.field("x-vars"), Some("127.0.0.1 GET shop.example 7 v in all web http"));
    assert_eq!(seen.field("x-default"), Some("d"));
    assert_eq!(seen.fields.all("x-many").collect::<Vec<_>>(), ["a", "b"]);
}

#[tokio::test]
async fn response_headers_are_removed_renamed_set_and_added() {
    let origin = Origin::start(
        Reply::ok("").field("Server", "old/1").field("X-Old", "kept").field("X-Many", "a").field("ETag", "1"),
    )
    .await;
    let route = "filters = [{ headers = { response = { remove = [\"server\"], rename = { x-old = \"X-New\" }, \
        set = { X-Id = \"{request_id} {route}\" }, set_if_missing = { ETag = \"no\", X-Default = \"d\" }, \
        add = { X-Many = \"b\" } } } }]";
    let gateway = Lines { route, ..Lines::default() }.start(&[origin.address()]).await;
    let answer = http::get(gateway.address("web"), "/").await;
    assert_eq!((answer.field("server"), answer.field("x-old")), (None, None));
    assert_eq!((answer.field("x-new"), answer.field("etag")), (Some("kept"), Some("1")));
    let id = answer.field("x-request-id").unwrap();
    assert_eq!(answer.field("x-id"), Some(format!("{id} all").as_str()));
    assert_eq!(answer.field("x-default"), Some("d"));
    assert_eq!(answer.fields.all("x-many").collect::<Vec<_>>(), ["a", "b"]);
}

#[tokio::test]
async fn what_a_client_sends_cannot_split_a_head_through_a_variable() {
    let origin = Origin::start(Reply::ok("")).await;
    let route = "match = { path = \"/{id}\" }\nfilters = [{ headers = { request = { set = { X-Id = \"{param.id}\" } } } }]";
    let gateway = Lines { route, ..Lines::default() }.start(&[origin.address()]).await;
    let answer = http::get(gateway.address("web"), "/a%0d%0aX-Evil:%201").await;
    assert_eq!(answer.status, 400, "an encoded control byte is refused");
    http::get(gateway.address("web"), "/a%20b%C3%A9").await;
    let seen = origin.last();
    assert_eq!(seen.field("x-evil"), None);
    assert_eq!(seen.field("x-id"), Some("a bé"));
}

#[tokio::test]
async fn a_rewrite_changes_what_the_endpoint_sees() {
    let cases = [
        ("strip_prefix = \"/api\"", "/api/x%2Fy?q=1", "/x%2Fy?q=1"),
        ("strip_prefix = \"/api\"", "/api", "/"),
        ("strip_prefix = \"/api\"", "/apix", "/apix"),
        ("replace_prefix = { from = \"/api\", to = \"/v2\" }", "/api/x", "/v2/x"),
        ("regex = \"^/user/([0-9]+)/(.*)$\", to = \"/$2/of/$1\"", "/user/7/posts?p=1", "/posts/of/7?p=1"),
        ("path = \"/items/{query.id}\"", "/x?id=a%2Fb%20c", "/items/a%2Fb%20c?id=a%2Fb%20c"),
        (
            "query = { remove = [\"debug\"], set = { v = \"2\" }, add = { w = \"a&b\" } }",
            "/x?debug=1&a=%20&v=1",
            "/x?a=%20&v=2&w=a%26b",
        ),
        ("strip_prefix = \"/api\"", "/api/../secret", "/secret"),
    ];
    for (rewrite, target, seen) in cases {
        let origin = Origin::start(Reply::ok("")).await;
        let route = format!("filters = [{{ rewrite = {{ {rewrite} }} }}]");
        let gateway = Lines { route: &route, ..Lines::default() }.start(&[origin.address()]).await;
        http::get(gateway.address("web"), target).await;
        assert_eq!(origin.last().target, seen, "{rewrite} on {target}");
    }
}

#[tokio::test]
async fn without_a_rewrite_the_target_is_not_touched() {
    let origin = Origin::start(Reply::ok("")).await;
    let gateway = Lines::default().start(&[origin.address()]).await;
    for target in ["/a//b", "/a/./b", "/a/../b", "/%41%2f%c3%a9", "/a?x=%2e#", "/;p=1", "/a%2e%2e/b", "*"] {
        let method = if target == "*" { "OPTIONS" } else { "GET" };
        let answer = http::request(gateway.address("web"), method, target, &[], b"").await;
        match answer.status {
            200 => assert_eq!(origin.last().target, target),
            status => assert_eq!((status, target.contains('#')), (400, true), "{target}"),
        }
    }
}

#[tokio::test]
async fn filters_run_in_order_and_back_in_reverse() {
    let origin = Origin::start(Reply::ok("")).await;
    let step = |n| {
        format!(
            "{{ headers = {{ request = {{ add = {{ X-Way = \"in-{n}\" }} }}, \
             response = {{ add = {{ X-Way = \"out-{n}\" }} }} }} }}"
        )
    };
    let route = format!(
        "filters = [{}, {{ rewrite = {{ path = \"/new\" }} }}, \
         {{ headers = {{ request = {{ set = {{ X-Path = \"{{path}}\" }} }} }} }}, {}]",
        step(1),
        step(2)
    );
    let gateway = Lines { route: &route, ..Lines::default() }.start(&[origin.address()]).await;
    let answer = http::get(gateway.address("web"), "/old").await;
    let seen = origin.last();
    assert_eq!(seen.fields.all("x-way").collect::<Vec<_>>(), ["in-1", "in-2"]);
    assert_eq!(seen.field("x-path"), Some("/new"), "a later filter sees what an earlier one did");
    assert_eq!(answer.fields.all("x-way").collect::<Vec<_>>(), ["out-2", "out-1"]);
}

#[tokio::test]
async fn response_filters_dress_the_gateways_own_answers_of_the_route() {
    let mut origin = Origin::start(Reply::ok("")).await;
    origin.stop().await;
    let route = "match = { path_prefix = \"/here\" }\nfilters = [{ headers = { response = { set = { X-Route = \"{route}\" } } } }]";
    let more = "[[routes]]\nname = \"fixed\"\nmatch = { path = \"/fixed\" }\nrespond = { status = 200 }\n\
        filters = [{ headers = { response = { set = { X-Route = \"{route}\" } } } }]";
    let gateway = Lines { route, more, ..Lines::default() }.start(&[origin.address()]).await;
    for (target, status, header) in
        [("/here", 502, Some("all")), ("/fixed", 200, Some("fixed")), ("/nowhere", 404, None)]
    {
        let answer = http::get(gateway.address("web"), target).await;
        assert_eq!((answer.status, answer.field("x-route")), (status, header), "{target}");
    }
}

#[tokio::test]
async fn respond_gives_a_fixed_answer() {
    let document = base("")
        + "[[routes]]\nname = \"t\"\nmatch = { path = \"/{who}\" }\n\
           respond = { status = 418, headers = { X-Who = \"{param.who}\", Content-Type = \"text/x\" }, body = \"hello {param.who}\\n\" }\n\
           [[routes]]\nname = \"empty\"\nmatch = { path = \"/e/mpty\" }\nrespond = { status = 204 }\n\
           [[routes]]\nname = \"plain\"\nmatch = { path = \"/p/lain\" }\nrespond = { body = \"plain\" }\n";
    let gateway = Gateway::start(&document).await;
    let mut wire = Wire::connect(gateway.address("web")).await;
    wire.send("GET /you HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let answer = wire.answer().await;
    assert_eq!((answer.status, answer.text().as_str()), (418, "hello you\n"));
    assert_eq!((answer.field("x-who"), answer.field("content-type")), (Some("you"), Some("text/x")));
    wire.send("HEAD /you HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(wire.head().await.field("content-length"), Some("10"));
    wire.send("GET /e/mpty HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let answer = wire.answer().await;
    assert_eq!(
        (answer.status, answer.field("content-length"), answer.field("content-type")),
        (204, None, None)
    );
    wire.send("POST /p/lain HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody").await;
    let answer = wire.answer().await;
    assert_eq!(
        (answer.text().as_str(), answer.field("content-type")),
        ("plain", Some("text/plain; charset=utf-8"))
    );
    wire.send("GET /p/lain HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(wire.answer().await.text(), "plain", "the body of the one before was dropped");
}

#[tokio::test]
async fn redirect_sends_the_client_elsewhere() {
    let document = base("")
        + "[[routes]]\nname = \"secure\"\nmatch = { path_prefix = \"/s\" }\nredirect = { to = \"https://{host}{path}\" }\n\
           [[routes]]\nname = \"moved\"\nmatch = { path = \"/old/{*rest}\" }\nredirect = { to = \"/new/{param.rest}\", status = 302, keep_query = false }\n\
           [[routes]]\nname = \"evil\"\nmatch = { path = \"/e/{*rest}\" }\nredirect = { to = \"/{param.rest}\" }\n";
    let gateway = Gateway::start(&document).await;
    for (target, status, location) in [
        ("/s/a%20b?q=1&r", 308, "https://shop.example/s/a%20b?q=1&r"),
        ("/old/a/b%3Fc?q=1", 302, "/new/a/b%3Fc"),
        ("/e//evil.example/", 308, "/evil.example/"),
    ] {
        let answer = http::get_with(gateway.address("web"), target, &[("Host", "shop.example:81")]).await;
        assert_eq!((answer.status, answer.field("location")), (status, Some(location)), "{target}");
    }
}

#[tokio::test]
async fn the_host_is_the_clients_the_endpoints_or_a_given_one() {
    let origin = Origin::start(Reply::ok("")).await;
    let endpoint = origin.address().to_string();
    for (forward, expected) in [
        ("", "shop.example:81"),
        ("host = \"preserve\"", "shop.example:81"),
        ("host = \"endpoint\"", endpoint.as_str()),
        ("host = { set = \"inside.example\" }", "inside.example"),
    ] {
        let gateway = Lines { forward, ..Lines::default() }.start(&[origin.address()]).await;
        http::get_with(gateway.address("web"), "/", &[("Host", "shop.example:81")]).await;
        let seen = origin.last();
        assert_eq!(seen.fields.all("host").collect::<Vec<_>>(), [expected], "{forward}");
        assert_eq!(seen.field("x-forwarded-host"), Some("shop.example:81"), "{forward}");
    }
}

#[tokio::test]
async fn r7_only_a_trusted_proxy_is_believed() {
    let origin = Origin::start(Reply::ok("")).await;
    let said = [
        ("Host", "inner.example"),
        ("X-Forwarded-For", "198.51.100.1, 127.0.0.2"),
        ("X-Forwarded-Proto", "https"),
        ("X-Forwarded-Host", "shop.example"),
        ("X-Forwarded-Port", "444"),
        ("X-Real-IP", "198.51.100.9"),
        ("X_Forwarded_For", "198.51.100.9"),
        ("Forwarded", "for=198.51.100.9"),
        ("X-Request-Id", "theirs-1"),
    ];
    let route = "filters = [{ headers = { request = { set = { X-Client = \"{client} {scheme}\" } } } }]";
    for trusted in [false, true] {
        let listener = if trusted {
            "trusted_proxies = [\"127.0.0.0/8\"]"
        } else {
            "trusted_proxies = [\"10.0.0.0/8\"]"
        };
        let gateway = Lines { listener, route, ..Lines::default() }.start(&[origin.address()]).await;
        let answer = http::get_with(gateway.address("web"), "/", &said).await;
        let seen = origin.last();
        let of = |name| seen.fields.all(name).collect::<Vec<_>>().join("|");
        if trusted {
            assert_eq!(of("x-client"), "198.51.100.1 https");
            assert_eq!(of("x-forwarded-for"), "198.51.100.1, 127.0.0.2, 127.0.0.1");
            assert_eq!(
                (of("x-forwarded-proto"), of("x-forwarded-host")),
                ("https".into(), "shop.example".into())
            );
            assert_eq!((of("x-forwarded-port"), of("x-request-id")), ("444".into(), "theirs-1".into()));
            assert_eq!(answer.field("x-request-id"), Some("theirs-1"));
        } else {
            assert_eq!(of("x-client"), "127.0.0.1 http");
            assert_eq!(of("x-forwarded-for"), "127.0.0.1");
            assert_eq!(
                (of("x-forwarded-proto"), of("x-forwarded-host")),
                ("http".into(), "inner.example".into())
            );
            assert_eq!(of("x-forwarded-port"), "80");
            assert_ne!(of("x-request-id"), "theirs-1");
            let head = String::from_utf8_lossy(&seen.head);
            assert!(!head.contains("198.51.100"), "{head}");
        }
    }
}

#[tokio::test]
async fn r7_a_forged_address_is_no_source() {
    let origin = Origin::start(Reply::ok("inside")).await;
    let lines = Lines { route: "match = { source = [\"10.0.0.0/8\"] }", ..Lines::default() };
    let gateway = lines.start(&[origin.address()]).await;
    let forged = [("X-Forwarded-For", "10.0.0.1"), ("Forwarded", "for=10.0.0.1"), ("X-Real-IP", "10.0.0.1")];
    assert_eq!(http::get_with(gateway.address("web"), "/", &forged).await.status, 404);
    let lines = Lines { listener: "trusted_proxies = [\"127.0.0.1\"]", ..lines };
    let gateway = lines.start(&[origin.address()]).await;
    assert_eq!(http::get_with(gateway.address("web"), "/", &forged).await.text(), "inside");
}

#[tokio::test]
async fn what_is_told_to_endpoints_is_a_setting() {
    let origin = Origin::start(Reply::ok("")).await;
    let listener = "forwarded = { x_forwarded = false, rfc7239 = true, via = false, request_id = false }";
    let gateway = Lines { listener, ..Lines::default() }.start(&[origin.address()]).await;
    let answer = http::get_with(gateway.address("web"), "/", &[("Host", "shop.example:81")]).await;
    let seen = origin.last();
    assert_eq!(seen.field("forwarded"), Some("for=127.0.0.1;host=\"shop.example:81\";proto=http"));
    for name in ["x-forwarded-for", "x-forwarded-proto", "via", "x-request-id"] {
        assert_eq!(seen.field(name), None, "{name}");
    }
    assert_eq!((answer.field("via"), answer.field("x-request-id")), (None, None));
    let gateway = Lines::default().start(&[origin.address()]).await;
    let answer = http::get_with(gateway.address("web"), "/", &[("Via", "1.0 before")]).await;
    assert_eq!(origin.last().fields.all("via").collect::<Vec<_>>().join(", "), "1.0 before, 1.1 sluice");
    assert_eq!(answer.field("via"), Some("1.1 sluice"));
}

#[tokio::test]
async fn a_request_that_goes_round_and_round_is_508() {
    let origin = Origin::start(Reply::ok("")).await;
    let first = Lines::default().start(&[origin.address()]).await;
    // Its endpoint becomes the gateway itself.
    let reloaded = first.reload(&Lines::default().document(&[first.address("web")])).await;
    assert_eq!(reloaded.status, 200, "{}", reloaded.body);
    let answer = http::get(first.address("web"), "/").await;
    assert_eq!((answer.status, answer.code().as_str()), (508, "loop-detected"));
    assert!(first.metric("sluice_failures_total", &["code=\"loop-detected\""]).await == 1.0);
    assert_eq!(origin.count(), 0);
}

#[tokio::test]
async fn max_forwards_counts_down_and_ends_here() {
    let origin = Origin::start(Reply::ok("")).await;
    let gateway = Lines {
        route: "match = { path = \"/x\", methods = [\"GET\", \"OPTIONS\", \"TRACE\"] }",
        ..Lines::default()
    }
    .start(&[origin.address()])
    .await;
    let ask = async |method: &str, left: &str| {
        http::request(gateway.address("web"), method, "/x", &[("Max-Forwards", left)], b"").await
    };
    assert_eq!(ask("OPTIONS", "3").await.status, 200);
    assert_eq!(origin.last().field("max-forwards"), Some("2"));
    assert_eq!(ask("GET", "0").await.status, 200, "it only means something on OPTIONS and TRACE");
    assert_eq!(origin.last().field("max-forwards"), Some("0"));
    let answer = ask("OPTIONS", "0").await;
    assert_eq!((answer.status, answer.field("allow")), (200, Some("GET, HEAD, OPTIONS, TRACE")));
    assert_eq!(ask("TRACE", "0").await.status, 405);
    assert_eq!(ask("OPTIONS", "many").await.status, 400);
    assert_eq!(origin.count(), 2);
}
