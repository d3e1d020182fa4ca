//! What browsers are told: cross-origin sharing, careful headers, and limits of bodies, seen at the socket.

use sluice_testkit::{Origin, Reply, Wire, eventually, http};

use crate::setup::Lines;

const SHOP: &str = "https://shop.example";

const CORS: &str = "cors = { origins = [\"https://shop.example\", \"https://*.shop.example\"], \
                    methods = [\"GET\", \"PUT\"], headers = [\"X-A\"], expose = [\"X-B\"], credentials = true }";

fn preflight(origin: &str) -> [(&str, &str); 3] {
    [("Origin", origin), ("Access-Control-Request-Method", "PUT"), ("Access-Control-Request-Headers", "x-a")]
}

#[tokio::test]
async fn a_preflight_is_answered_without_the_endpoint_also_where_options_is_no_method_of_the_route() {
    let origin = Origin::start(Reply::ok("")).await;
    let route = format!("match = {{ methods = [\"PUT\"] }}\nfilters = [{{ {CORS} }}]");
    let gateway = Lines { route: &route, ..Lines::default() }.start(&[origin.address()]).await;
    let address = gateway.address("web");
    let answer = http::request(address, "OPTIONS", "/x", &preflight("https://a.shop.example"), b"").await;
    assert_eq!(answer.status, 204);
    assert_eq!(answer.field("access-control-allow-origin"), Some("https://a.shop.example"));
    assert_eq!(answer.field("access-control-allow-methods"), Some("GET, PUT"));
    assert_eq!(answer.field("access-control-allow-headers"), Some("X-A"));
    assert_eq!(answer.field("access-control-allow-credentials"), Some("true"));
    assert_eq!(answer.field("access-control-max-age"), Some("600"));
    let refused = http::request(address, "OPTIONS", "/x", &preflight("https://evil.example"), b"").await;
    assert_eq!((refused.status, refused.field("access-control-allow-origin")), (204, None));
    // Another OPTIONS is a request like any other; and a preflight for what no route does is one too.
    assert_eq!(http::request(address, "OPTIONS", "/x", &[("Origin", SHOP)], b"").await.status, 405);
    let delete = [("Origin", SHOP), ("Access-Control-Request-Method", "DELETE")];
    assert_eq!(http::request(address, "OPTIONS", "/x", &delete, b"").await.status, 405);
    assert_eq!(origin.count(), 0);
}

#[tokio::test]
async fn a_route_for_options_without_cors_gets_the_preflights_of_routes_without_it() {
    let origin = Origin::start(Reply::ok("own answer").field("Access-Control-Allow-Origin", "*")).await;
    let gateway = Lines::default().start(&[origin.address()]).await;
    let answer = http::request(gateway.address("web"), "OPTIONS", "/", &preflight(SHOP), b"").await;
    assert_eq!(
        (answer.text().as_str(), answer.field("access-control-allow-origin")),
        ("own answer", Some("*"))
    );
}

#[tokio::test]
async fn answers_of_endpoints_and_of_the_gateway_say_who_may_read_them() {
    let mut origin = Origin::start(
        Reply::ok("x").field("Access-Control-Allow-Origin", "*").field("Vary", "Accept-Encoding"),
    )
    .await;
    let route = format!("filters = [{{ {CORS} }}, {{ body_limit = {{ limit = \"1B\" }} }}]");
    let gateway = Lines { route: &route, ..Lines::default() }.start(&[origin.address()]).await;
    let address = gateway.address("web");
    for (body, status) in [(&b""[..], 200), (b"too long", 413)] {
        let answer = http::request(address, "PUT", "/", &[("Origin", SHOP)], body).await;
        assert_eq!(answer.status, status);
        let allowed: Vec<_> = answer.fields.all("access-control-allow-origin").collect();
        assert_eq!(allowed, [SHOP], "{status}");
        assert_eq!(answer.field("access-control-expose-headers"), Some("X-B"), "{status}");
        assert!(answer.fields.all("vary").any(|value| value == "Origin"), "{status}");
    }
    for fields in [&[("Origin", "https://evil.example")][..], &[]] {
        let answer = http::get_with(address, "/", fields).await;
        assert_eq!(answer.field("access-control-allow-origin"), None);
        assert_eq!(answer.fields.all("vary").collect::<Vec<_>>(), ["Accept-Encoding", "Origin"]);
    }
    origin.stop().await;
    let answer = http::get_with(address, "/", &[("Origin", SHOP)]).await;
    assert_eq!((answer.status / 100, answer.field("access-control-allow-origin")), (5, Some(SHOP)));
}

#[tokio::test]
async fn careful_headers_stand_on_every_answer() {
    let mut origin =
        Origin::start(Reply::ok("x").field("Server", "old/1").field("X-Frame-Options", "DENY")).await;
    let route = "filters = [{ security_headers = { content_security_policy = \"default-src 'self'\" } }]";
    let gateway = Lines { route, ..Lines::default() }.start(&[origin.address()]).await;
    let answer = http::get(gateway.address("web"), "/").await;
    assert_eq!(answer.field("x-content-type-options"), Some("nosniff"));
    assert_eq!(answer.field("x-frame-options"), Some("DENY"), "the endpoint's own");
    assert_eq!(answer.field("content-security-policy"), Some("default-src 'self'"));
    assert_eq!((answer.field("server"), answer.field("strict-transport-security")), (None, None));
    origin.stop().await;
    let answer = http::get(gateway.address("web"), "/").await;
    assert_eq!((answer.status / 100, answer.field("x-frame-options")), (5, Some("SAMEORIGIN")));
}

#[tokio::test]
async fn a_body_that_is_too_long_is_refused_by_its_declared_length_or_on_the_way() {
    let origin = Origin::start(Reply::ok("took it")).await;
    let route = "filters = [{ body_limit = { limit = \"8B\" } }]";
    let gateway = Lines { route, ..Lines::default() }.start(&[origin.address()]).await;
    let address = gateway.address("web");
    assert_eq!(http::post(address, "/", "12345678").await.text(), "took it");
    let mut wire = Wire::connect(address).await;
    // Nothing of the body comes: its length alone is judged.
    wire.send("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\n").await;
    let answer = wire.answer().await;
    assert_eq!(answer.status, 413);
    assert!(answer.text().contains("body-too-large"), "{}", answer.text());
    assert_eq!(origin.count(), 1);
    let mut wire = Wire::connect(address).await;
    wire.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n8\r\n12345678\r\n0\r\n\r\n")
        .await;
    assert_eq!(wire.answer().await.status, 200);
    let mut wire = Wire::connect(address).await;
    wire.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n4\r\n6789\r\n")
        .await;
    assert_eq!(wire.answer().await.status, 413);
    let what = "a failure in the metric";
    eventually(what, async || {
        (gateway.metric("sluice_failures_total", &["code=\"body-too-large\""]).await > 1.0).then_some(())
    })
    .await;
}
