//! Forwarding: what an endpoint sees, what the client gets, and what happens when an endpoint misbehaves.

use std::net::SocketAddr;
use std::time::Duration;

use sluice_testkit::{Gateway, Load, Origin, Reply, Script, Wire, eventually, http};

/// A gateway that forwards everything to these endpoints.
pub(crate) async fn gateway(endpoints: &[SocketAddr]) -> Gateway {
    Gateway::start(&document(endpoints, "")).await
}

/// The document of such a gateway, with more lines for its upstream.
pub(crate) fn document(endpoints: &[SocketAddr], upstream: &str) -> String {
    let endpoints: Vec<String> = endpoints.iter().map(|address| format!("\"{address}\"")).collect();
    format!(
        "[process]\nworkers = 1\nadmin = {{ address = \"127.0.0.1:0\" }}\n\n\
         [listeners.web]\naddress = \"127.0.0.1:0\"\n\n\
         [[routes]]\nname = \"all\"\nmatch = {{ path_prefix = \"/\" }}\nforward = {{ upstream = \"app\" }}\n\n\
         [upstreams.app]\nendpoints = [{}]\n{upstream}\n",
        endpoints.join(", ")
    )
}

#[tokio::test]
async fn a_request_and_its_answer_pass_unchanged_but_for_what_a_proxy_adds() {
    let origin = Origin::start(Reply::ok("body").field("X-Answer", "1").field("x-ODD", "Case")).await;
    let gateway = gateway(&[origin.address()]).await;
    let mut wire = Wire::connect(gateway.address("web")).await;
    wire.send("PUT /a%20b?q=%C3%A9&x HTTP/1.1\r\nHost: shop.example:81\r\nX-odd: 1\r\nX-odd: 2\r\nContent-Length: 3\r\n\r\nabc")
        .await;
    let answer = wire.answer().await;
    assert_eq!((answer.status, answer.text().as_str(), answer.field("x-answer")), (200, "body", Some("1")));
    assert!(answer.fields.0.iter().any(|(name, _)| name == "x-ODD"), "{:?}", answer.fields);
    let seen = origin.last();
    assert_eq!((seen.method.as_str(), seen.target.as_str()), ("PUT", "/a%20b?q=%C3%A9&x"));
    assert_eq!((seen.field("host"), seen.text().as_str()), (Some("shop.example:81"), "abc"));
    assert_eq!(seen.fields.all("x-odd").collect::<Vec<_>>(), ["1", "2"]);
    assert!(seen.fields.0.iter().any(|(name, _)| name == "X-odd"), "{:?}", seen.fields);
    assert_eq!(seen.field("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(seen.field("x-forwarded-proto"), Some("http"));
    assert_eq!(seen.field("x-forwarded-host"), Some("shop.example:81"));
    assert!(seen.field("via").is_some_and(|via| via.starts_with("1.1 ")), "{:?}", seen.fields);
    assert_eq!(seen.field("x-request-id"), answer.field("x-request-id"));
    assert!(answer.field("x-request-id").is_some_and(|id| !id.is_empty()));
}

#[tokio::test]
async fn r7_forged_forwarding_fields_of_an_untrusted_peer_are_replaced() {
    let origin = Origin::start(Reply::ok("")).await;
    let gateway = gateway(&[origin.address()]).await;
    let forged =
        [("X-Forwarded-For", "10.0.0.1"), ("X-Forwarded-Proto", "https"), ("X-Forwarded-Host", "evil")];
    http::get_with(gateway.address("web"), "/", &forged).await;
    let seen = origin.last();
    assert_eq!(seen.fields.all("x-forwarded-for").collect::<Vec<_>>(), ["127.0.0.1"]);
    assert_eq!(seen.fields.all("x-forwarded-proto").collect::<Vec<_>>(), ["http"]);
    assert!(!String::from_utf8_lossy(&seen.head).contains("evil"));
}

#[tokio::test]
async fn connection_named_fields_stay_on_their_hop() {
    let origin = Origin::start(
        Reply::ok("").field("Connection", "X-Hop").field("X-Hop", "1").field("Keep-Alive", "max=5"),
    )
    .await;
    let gateway = gateway(&[origin.address()]).await;
    let fields =
        [("Connection", "keep-alive, X-Mine, Host"), ("X-Mine", "1"), ("TE", "trailers"), ("X-Kept", "1")];
    let answer = http::get_with(gateway.address("web"), "/", &fields).await;
    assert_eq!((answer.field("x-hop"), answer.field("keep-alive")), (None, None));
    let seen = origin.last();
    assert_eq!((seen.field("x-mine"), seen.field("x-kept")), (None, Some("1")));
    assert!(seen.field("host").is_some(), "Connection must not take Host away");
}

#[tokio::test]
async fn r1_error_answers_of_an_endpoint_reach_the_client_whole() {
    let origin = Origin::start(Script::each(|request| {
        let status = request.target[1..].parse().unwrap();
        Reply::status(status).field("X-Own", "yes").body(format!("own {status}"))
    }))
    .await;
    let gateway = gateway(&[origin.address()]).await;
    for status in [400, 401, 404, 418, 429, 500, 501, 502, 503, 504, 599] {
        let answer = http::get(gateway.address("web"), &format!("/{status}")).await;
        assert_eq!((answer.status, answer.text()), (status, format!("own {status}")));
        assert_eq!(answer.field("x-own"), Some("yes"));
    }
}

#[tokio::test]
async fn one_upstream_connection_serves_many_requests() {
    let origin = Origin::start(Reply::ok("x")).await;
    let gateway = gateway(&[origin.address()]).await;
    let load = Load { connections: 1, requests: 200, body: Some("x".into()), ..Load::default() };
    let report = load.run(gateway.address("web")).await;
    report.assert_clean();
    assert_eq!((report.opened, origin.connections()), (1, 1));
}

#[tokio::test]
async fn a_stale_pooled_connection_costs_the_client_nothing() {
    let mut origin = Origin::start(Reply::ok("x")).await;
    let gateway = gateway(&[origin.address()]).await;
    for _ in 0..5 {
        assert_eq!(http::post(gateway.address("web"), "/", "body").await.status, 200);
        origin.stop().await;
        origin.start_again().await;
    }
    assert_eq!(origin.count(), 5);
}

#[tokio::test]
async fn r5_a_dead_endpoint_beside_a_live_one_costs_no_request() {
    let mut dead = Origin::start(Reply::ok("x")).await;
    let live = Origin::start(Reply::ok("x")).await;
    dead.stop().await;
    let gateway = gateway(&[dead.address(), live.address()]).await;
    let load = Load { connections: 2, requests: 50, ..Load::default() };
    load.run(gateway.address("web")).await.assert_clean();
    assert_eq!(live.count(), 50);
}

#[tokio::test]
async fn each_way_an_endpoint_can_fail_has_its_code() {
    let cases = [
        (Reply::closed(), 502, "upstream-reset"),
        (Reply::reset(), 502, "upstream-reset"),
        (Reply::ok("0123456789").cut_after(10), 502, "upstream-reset"),
        (Reply::raw("HTP/1.1 200 OK\r\n\r\n").close(), 502, "upstream-invalid"),
        (
            Reply::raw("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx").close(),
            502,
            "upstream-invalid",
        ),
        (
            Reply::raw("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n").close(),
            502,
            "upstream-invalid",
        ),
        (Reply::raw("HTTP/1.1 200 OK\r\nBad Name: 1\r\n\r\n").close(), 502, "upstream-invalid"),
        (Reply::never(), 504, "upstream-timeout"),
    ];
    let origin = Origin::start(Reply::ok("")).await;
    let timeouts = "timeouts = { first_byte = \"300ms\" }";
    let gateway = Gateway::start(&document(&[origin.address()], timeouts)).await;
    for (reply, status, code) in cases {
        origin.set_script(reply.clone());
        let answer = http::get(gateway.address("web"), "/").await;
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{reply:?}");
        let proxy_status = answer.field("proxy-status").unwrap_or("");
        assert!(proxy_status.contains(code), "{code} is not in Proxy-Status: {proxy_status}");
    }
    origin.wait_open(0).await;
}

#[tokio::test]
async fn a_refused_connection_is_connect_failed() {
    let mut origin = Origin::start(Reply::ok("")).await;
    origin.stop().await;
    let gateway = gateway(&[origin.address()]).await;
    let answer = http::get(gateway.address("web"), "/").await;
    assert_eq!((answer.status, answer.code().as_str()), (502, "connect-failed"));
    assert!(!answer.text().contains(&origin.address().to_string()), "internal addresses stay inside");
}

#[tokio::test]
async fn r17_a_post_is_not_repeated_after_it_was_sent() {
    let origin = Origin::start(Reply::closed()).await;
    let second = Origin::start(Reply::closed()).await;
    let gateway = gateway(&[origin.address(), second.address()]).await;
    assert_eq!(http::post(gateway.address("web"), "/", "x").await.status, 502);
    assert_eq!(origin.count() + second.count(), 1);
    assert_eq!(http::get(gateway.address("web"), "/").await.status, 502);
    assert_eq!(origin.count() + second.count(), 3, "a GET is tried on the other endpoint");
}

#[tokio::test]
async fn an_answer_that_breaks_off_breaks_off_for_the_client_too() {
    let origin = Origin::start(Reply::ok(vec![b'x'; 100_000]).cut_after(50_000)).await;
    let gateway = gateway(&[origin.address()]).await;
    let mut wire = Wire::connect(gateway.address("web")).await;
    wire.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let problem = wire.try_answer_to("GET").await.unwrap_err();
    assert!(problem.contains("in the middle"), "{problem}");
}

#[tokio::test]
async fn a_chunked_answer_that_breaks_off_gets_no_last_chunk() {
    let origin = Origin::start(Reply::chunked(["aaaa", "bbbb"]).cut_after(70)).await;
    let gateway = gateway(&[origin.address()]).await;
    let mut wire = Wire::connect(gateway.address("web")).await;
    wire.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let bytes = wire.read_to_end().await;
    assert!(!bytes.ends_with(b"0\r\n\r\n"), "{:?}", String::from_utf8_lossy(&bytes));
}

#[tokio::test]
async fn a_client_that_leaves_takes_its_upstream_connection_with_it() {
    let origin = Origin::start(Reply::never()).await;
    let gateway = gateway(&[origin.address()]).await;
    let mut wire = Wire::connect(gateway.address("web")).await;
    wire.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    origin.wait_count(1).await;
    wire.reset();
    origin.wait_open(0).await;
}

#[tokio::test]
async fn r19_large_bodies_stream_both_ways() {
    let large = vec![b'z'; 12 << 20];
    let origin = Origin::start(Reply::ok(large.clone())).await;
    let gateway = gateway(&[origin.address()]).await;
    let answer = http::post(gateway.address("web"), "/", &large).await;
    assert!(answer.body == large && origin.last().body == large);
}

#[tokio::test]
async fn a_dribbled_answer_reaches_the_client_piece_by_piece() {
    let origin = Origin::start(Reply::chunked(["one", "two"]).dribble(1, Duration::from_millis(1))).await;
    let gateway = gateway(&[origin.address()]).await;
    assert_eq!(http::get(gateway.address("web"), "/").await.text(), "onetwo");
}

#[tokio::test]
async fn an_upgrade_is_a_tunnel_only_after_101() {
    let origin = Origin::start(Reply::upgrade("echo")).await;
    let upgrading = document(&[origin.address()], "")
        .replace("{ upstream = \"app\" }", "{ upstream = \"app\", upgrade = true }");
    let gateway = Gateway::start(&upgrading).await;
    let asked = "GET /chat HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n";
    let mut wire = Wire::connect(gateway.address("web")).await;
    wire.send(asked).await;
    assert_eq!(wire.answer().await.status, 101);
    wire.send("hello").await.expect("hello").await;
    wire.half_close().await.expect_closed().await;
    origin.wait_open(0).await;
    origin.set_script(Reply::status(403));
    let mut wire = Wire::connect(gateway.address("web")).await;
    wire.send(asked).await;
    assert_eq!(wire.answer().await.status, 403);
    wire.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(wire.answer().await.status, 403, "the connection went on as HTTP");
}

#[tokio::test]
async fn r16_counts_return_to_zero_after_many_exchanges_also_broken_ones() {
    let origin = Origin::start(Script::each(|request| match request.target.as_str() {
        "/cut" => Reply::ok("0123456789").cut_after(20),
        _ => Reply::ok("x"),
    }))
    .await;
    let gateway = gateway(&[origin.address()]).await;
    let load = Load { connections: 4, requests: 500, ..Load::default() };
    load.run(gateway.address("web")).await.assert_clean();
    for _ in 0..20 {
        let mut wire = Wire::connect(gateway.address("web")).await;
        wire.send("GET /cut HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
        wire.read_to_end().await;
    }
    eventually("no open exchange and no open connection", async || {
        let metrics = gateway.metrics().await;
        let open: Vec<_> = metrics.iter().filter(|(name, _)| is_gauge_of_open(name)).collect();
        assert!(!open.is_empty(), "no gauge of open things among {:?}", metrics.keys());
        open.iter().all(|(_, value)| **value == 0.0).then_some(())
    })
    .await;
}

fn is_gauge_of_open(sample: &str) -> bool {
    let name = sample.split('{').next().unwrap_or("");
    name.ends_with("_in_flight") || name.ends_with("_active") || name.ends_with("_connections_open")
}

mod with_peers {
    use sluice_testkit::{Peer, Scratch};

    use super::*;
    use crate::setup::Lines;

    #[tokio::test]
    async fn a_real_haproxy_stands_behind_it_in_three_protocols() {
        let origin = Origin::start(Reply::ok("from behind haproxy")).await;
        for (words, upstream) in
            [("", ""), ("proto h2", "protocol = \"http2\""), ("accept-proxy", "proxy_protocol = \"v2\"")]
        {
            let haproxy = Peer::haproxy(origin.address(), words).await;
            let gateway = Lines { upstream, ..Lines::default() }.start(&[haproxy.address()]).await;
            let body = Some("from behind haproxy".into());
            let load = Load { connections: 4, requests: 200, body, ..Load::default() };
            load.run(gateway.address("web")).await.assert_clean();
        }
    }

    #[tokio::test]
    async fn a_real_nginx_and_a_real_python_server_stand_behind_it() {
        let nginx = Peer::nginx("location / { return 200 \"from nginx\"; }").await;
        let files = Scratch::new();
        files.write("page.txt", "from python");
        let python = Peer::python(files.path()).await;
        let through_nginx = gateway(&[nginx.address()]).await;
        let load =
            Load { connections: 4, requests: 1_000, body: Some("from nginx".into()), ..Load::default() };
        load.run(through_nginx.address("web")).await.assert_clean();
        // Python answers in HTTP/1.0 and closes: a body that ends with its connection.
        let through_python = gateway(&[python.address()]).await;
        let load = Load {
            connections: 2,
            requests: 50,
            target: "/page.txt".into(),
            body: Some("from python".into()),
            ..Load::default()
        };
        load.run(through_python.address("web")).await.assert_clean();
    }
}
