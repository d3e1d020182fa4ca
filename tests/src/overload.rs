//! Overload, seen at the socket: how much runs at once, who waits, who is turned away, and what happens instead.

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use sluice_testkit::{Gateway, ManualOrigin, Origin, Reply, Wire, eventually, http, within};

use crate::setup::Lines;
use crate::tcp::{Tcp, turned_away};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// A client that has asked and waits for its answer.
async fn asks(gateway: &Gateway, target: &str) -> Wire {
    let mut wire = Wire::connect(gateway.address("web")).await;
    wire.send(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
    wire
}

async fn waits_for(gateway: &Gateway, metric: &str, value: f64) {
    let what = format!("{metric} = {value}");
    eventually(&what, async || (gateway.metric(metric, &[]).await == value).then_some(())).await;
}

async fn wait_failures(gateway: &Gateway, code: &str, count: f64) {
    let labels = [&*format!("code=\"{code}\"")];
    gateway.wait_metric("sluice_failures_total", &labels, |value| value == count).await;
}

#[tokio::test]
async fn who_finds_no_place_waits_in_order_of_priority_or_gets_503() {
    const URGENT: &str = "priority = 'request.path == \"/high\" ? 5 : 0'";
    let origin = Origin::start(Reply::ok("x").held()).await;
    let places = format!("limit = 1, queue = 2, wait = \"30s\", {URGENT}");
    let (route, listener) = (
        format!("filters = [{{ concurrency = {{ {places} }} }}]"),
        format!("limits = {{ requests = {{ {places} }} }}"),
    );
    // The priority is said on the route, and goes with the request.
    let urgent = format!("filters = [{{ concurrency = {{ {URGENT} }} }}]");
    let upstream = "concurrency = { limit = 1, queue = 2, wait = \"30s\" }";
    let pool = "pool = { max_requests = 1, queue = 2, queue_timeout = \"30s\" }";
    let of_endpoint = format!("endpoint {} of app", origin.address());
    for (name, lines) in [
        ("all per route", Lines { route: &route, ..Lines::default() }),
        ("listener web", Lines { listener: &listener, ..Lines::default() }),
        ("upstream app", Lines { route: &urgent, upstream, ..Lines::default() }),
        (of_endpoint.as_str(), Lines { route: &urgent, upstream: pool, ..Lines::default() }),
    ] {
        let before = origin.count();
        let gateway = lines.start(&[origin.address()]).await;
        let mut first = asks(&gateway, "/first").await;
        origin.wait_held(1).await;
        let mut low = asks(&gateway, "/low").await;
        waits_for(&gateway, "sluice_limit_waiting", 1.0).await;
        let mut high = asks(&gateway, "/high").await;
        waits_for(&gateway, "sluice_limit_waiting", 2.0).await;
        let refused = http::get(gateway.address("web"), "/more").await;
        assert_eq!((refused.status, refused.field("retry-after")), (503, Some("1")), "{name}");
        assert!(refused.text().contains("\"overloaded\""), "{}", refused.text());
        assert_eq!(origin.count(), before + 1, "one at a time");
        for wire in [&mut first, &mut high, &mut low] {
            origin.wait_held(1).await;
            origin.release();
            assert_eq!(wire.answer().await.status, 200, "{name}");
        }
        let order: Vec<_> =
            origin.requests().into_iter().skip(before).map(|request| request.target).collect();
        assert_eq!(order, ["/first", "/high", "/low"], "{name}");
        waits_for(&gateway, "sluice_limit_running", 0.0).await;
        let label = format!("limit=\"{name}\"");
        gateway.wait_metric("sluice_limit_refused_total", &[&label], |value| value == 1.0).await;
    }
}

#[tokio::test]
async fn who_waits_too_long_or_leaves_makes_room() {
    let origin = Origin::start(Reply::ok("x").held()).await;
    let route = "filters = [{ concurrency = { limit = 1, queue = 1, wait = \"100ms\" } }]";
    let gateway = Lines { route, ..Lines::default() }.start(&[origin.address()]).await;
    let first = asks(&gateway, "/").await;
    origin.wait_held(1).await;
    assert_eq!(http::get(gateway.address("web"), "/").await.status, 503, "after its time");
    drop(asks(&gateway, "/").await);
    waits_for(&gateway, "sluice_limit_waiting", 0.0).await;
    drop(first);
    waits_for(&gateway, "sluice_limit_running", 0.0).await;
    let mut next = asks(&gateway, "/").await;
    origin.wait_held(1).await;
    origin.release();
    assert_eq!(next.answer().await.status, 200);
}

#[tokio::test]
async fn a_tunnel_holds_its_place_and_a_reload_keeps_the_count() {
    let origin = Origin::start(Reply::upgrade("echo")).await;
    let route = "filters = [{ concurrency = { limit = 1 } }]";
    let lines = Lines { route, forward: "upgrade = true", ..Lines::default() };
    let gateway = lines.start(&[origin.address()]).await;
    let mut wire = Wire::connect(gateway.address("web")).await;
    wire.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n").await;
    assert_eq!(wire.head().await.status, 101);
    assert_eq!(http::get(gateway.address("web"), "/").await.status, 503);
    assert_eq!(gateway.reload(&lines.document(&[origin.address()])).await.status, 200);
    assert_eq!(http::get(gateway.address("web"), "/").await.status, 503, "the tunnel counts on");
    let more = lines.document(&[origin.address()]).replace("limit = 1", "limit = 2");
    assert_eq!(gateway.reload(&more).await.status, 200);
    assert_ne!(http::get(gateway.address("web"), "/").await.status, 503);
    drop(wire);
    waits_for(&gateway, "sluice_limit_running", 0.0).await;
}

#[tokio::test]
async fn each_client_has_a_limit_of_its_own() {
    let origin = Origin::start(Reply::ok("x").held()).await;
    let route = "filters = [{ concurrency = { limit = 1, per = \"client\" } }]";
    let gateway = Lines { route, ..Lines::default() }.start(&[origin.address()]).await;
    let _one = asks(&gateway, "/").await;
    origin.wait_held(1).await;
    assert_eq!(http::get(gateway.address("web"), "/").await.status, 503);
    let other = IpAddr::from(Ipv4Addr::new(127, 0, 0, 2));
    let mut other = Wire::connect_from(other, gateway.address("web")).await;
    other.send(GET).await;
    origin.wait_held(2).await;
}

#[tokio::test]
async fn an_upstream_and_each_endpoint_bear_so_many_requests() {
    let (one, two) = (Origin::start(Reply::ok("x").held()).await, Origin::start(Reply::ok("x").held()).await);
    let upstream =
        "pool = { max_requests = 1, queue = 1, queue_timeout = \"30s\" }\nconcurrency = { limit = 3 }";
    let lines = Lines { upstream, ..Lines::default() };
    let gateway = lines.start(&[one.address(), two.address()]).await;
    let mut wires = vec![asks(&gateway, "/").await, asks(&gateway, "/").await];
    one.wait_held(1).await;
    two.wait_held(1).await;
    wires.push(asks(&gateway, "/").await);
    waits_for(&gateway, "sluice_limit_waiting", 1.0).await;
    assert_eq!(http::get(gateway.address("web"), "/").await.status, 503, "the upstream is full");
    let answers = tokio::spawn(async move {
        for wire in &mut wires {
            assert_eq!(wire.answer().await.status, 200);
        }
    });
    eventually("all answers", async || {
        one.release();
        two.release();
        answers.is_finished().then_some(())
    })
    .await;
    answers.await.unwrap();
    assert_eq!(one.count() + two.count(), 3);
    waits_for(&gateway, "sluice_limit_running", 0.0).await;
}

#[tokio::test]
async fn each_endpoint_gets_so_many_requests_in_a_time_and_the_others_get_the_rest() {
    let (one, two) = (Origin::start(Reply::ok("x")).await, Origin::start(Reply::ok("x")).await);
    let upstream = "balance = \"source_hash\"\npool = { max_rate = \"1/h\", burst = 2, queue = 0 }";
    let lines = Lines { upstream, ..Lines::default() };
    let gateway = lines.start(&[one.address(), two.address()]).await;
    for _ in 0..4 {
        assert_eq!(http::get(gateway.address("web"), "/").await.status, 200);
    }
    assert_eq!((one.count(), two.count()), (2, 2));
    assert_eq!(gateway.reload(&lines.document(&[one.address(), two.address()])).await.status, 200);
    let refused = http::get(gateway.address("web"), "/").await;
    assert_eq!((refused.status, refused.field("retry-after")), (503, Some("1")));
    // Who is too early waits for its turn, when there is a queue.
    let patient =
        lines.document(&[one.address()]).replace("\"1/h\", burst = 2, queue = 0", "\"10/s\", burst = 1");
    let gateway = Gateway::start(&patient).await;
    at_least(Duration::from_millis(190), "two turns", async {
        for _ in 0..3 {
            assert_eq!(http::get(gateway.address("web"), "/").await.status, 200);
        }
    })
    .await;
}

#[tokio::test]
async fn a_listener_bears_so_many_requests_and_connections_of_a_client() {
    let origin = Origin::start(Reply::ok("x").held()).await;
    let listener = "limits = { requests = 1, connections_per_client = 2 }";
    let gateway = Lines { listener, ..Lines::default() }.start(&[origin.address()]).await;
    let held = asks(&gateway, "/").await;
    origin.wait_held(1).await;
    let mut second = asks(&gateway, "/").await;
    assert_eq!(second.answer().await.status, 503);
    Wire::refused_by(gateway.address("web")).await;
    wait_failures(&gateway, "overloaded", 2.0).await;
    let other = IpAddr::from(Ipv4Addr::new(127, 0, 0, 2));
    let mut other = Wire::connect_from(other, gateway.address("web")).await;
    other.send(GET).await;
    assert_eq!(other.answer().await.status, 503, "it is another client");
    drop((held, second));
    // Both leave the count: a connection of this client comes in again, and its request runs.
    eventually("room again", async || {
        let mut wire = Wire::connect(gateway.address("web")).await;
        wire.try_send(GET).await.ok()?;
        origin.set_script(Reply::ok("x"));
        wire.try_answer_to("GET").await.ok().filter(|answer| answer.status == 200).map(drop)
    })
    .await;
}

#[tokio::test]
async fn who_is_not_on_the_list_of_a_listener_is_not_read_at_all() {
    let origin = Origin::start(Reply::ok("x")).await;
    let listener = "ip_access = { allow = [\"127.0.0.2\"] }";
    let lines = Lines { listener, ..Lines::default() };
    let gateway = lines.start(&[origin.address()]).await;
    Wire::refused_by(gateway.address("web")).await;
    wait_failures(&gateway, "forbidden", 1.0).await;
    let allowed = IpAddr::from(Ipv4Addr::new(127, 0, 0, 2));
    let mut wire = Wire::connect_from(allowed, gateway.address("web")).await;
    wire.send(GET).await;
    assert_eq!(wire.answer().await.status, 200);
    // A new list is asked for the next request of a connection that is there.
    let turned = lines.document(&[origin.address()]).replace("127.0.0.2", "127.0.0.1");
    assert_eq!(gateway.reload(&turned).await.status, 200);
    wire.send(GET).await;
    assert_eq!(wire.answer().await.status, 403);
    assert_eq!(http::get(gateway.address("web"), "/").await.status, 200);
}

#[tokio::test]
async fn behind_a_trusted_proxy_the_list_of_a_listener_asks_for_the_client_it_names() {
    let origin = Origin::start(Reply::ok("x")).await;
    let listener = "trusted_proxies = [\"127.0.0.1\"]\nip_access = { allow = [\"192.0.2.7\"] }";
    let gateway = Lines { listener, ..Lines::default() }.start(&[origin.address()]).await;
    for (client, status) in [("192.0.2.7", 200), ("192.0.2.8", 403)] {
        let answer = http::get_with(gateway.address("web"), "/", &[("X-Forwarded-For", client)]).await;
        assert_eq!(answer.status, status, "{client}");
    }
    let listener = "proxy_protocol = { from = [\"127.0.0.1\"] }\nip_access = { allow = [\"192.0.2.7\"] }";
    let gateway = Lines { listener, ..Lines::default() }.start(&[origin.address()]).await;
    let mut wire = Wire::connect(gateway.address("web")).await;
    wire.send(format!("PROXY TCP4 192.0.2.7 192.0.2.1 1 2\r\n{GET}")).await;
    assert_eq!(wire.answer().await.status, 200);
    let mut wire = Wire::connect(gateway.address("web")).await;
    wire.send("PROXY TCP4 192.0.2.8 192.0.2.1 1 2\r\n").await;
    wire.expect_closed().await;
    wait_failures(&gateway, "forbidden", 1.0).await;
}

#[tokio::test]
async fn a_breaker_of_a_route_opens_and_a_fixed_answer_stands_in() {
    let origin = Origin::start(Reply::status(500)).await;
    let forward = "breaker = { consecutive_failures = 2, open_for = \"50ms\", max_open_for = \"50ms\" }, \
                   fallback = { on = [\"breaker-open\"], respond = { status = 503, body = \"back soon\" } }";
    let gateway = Lines { forward, ..Lines::default() }.start(&[origin.address()]).await;
    let address = gateway.address("web");
    for _ in 0..2 {
        assert_eq!(http::get(address, "/").await.status, 500);
    }
    let answer = http::get(address, "/").await;
    assert_eq!((answer.status, answer.text().as_str()), (503, "back soon"));
    assert_eq!(origin.count(), 2);
    gateway.wait_metric("sluice_upstream_fallbacks_total", &["upstream=\"app\""], |value| value == 1.0).await;
    let status = http::get(gateway.admin(), "/v1/status").await.json();
    assert_eq!(status["breakers"][0]["of"], "route");
    assert_eq!(status["breakers"][0]["name"], "all");
    origin.set_script(Reply::ok("well"));
    eventually("the breaker to close", async || {
        (http::get(address, "/").await.text() == "well").then_some(())
    })
    .await;
    waits_for(&gateway, "sluice_breaker_state", 0.0).await;
    assert!(gateway.stderr().contains("breaker changed"), "{}", gateway.stderr());
}

#[tokio::test]
async fn whom_an_open_breaker_refuses_hears_when_it_lets_somebody_pass() {
    let origin = Origin::start(Reply::status(500)).await;
    let breaker = "breaker = { consecutive_failures = 1, open_for = \"600s\", max_open_for = \"600s\" }";
    let group = format!("group_{breaker}");
    for lines in [
        Lines { forward: breaker, ..Lines::default() },
        Lines { upstream: breaker, ..Lines::default() },
        Lines { upstream: &group, ..Lines::default() },
    ] {
        let gateway = lines.start(&[origin.address()]).await;
        assert_eq!(http::get(gateway.address("web"), "/").await.status, 500);
        let refused = http::get(gateway.address("web"), "/").await;
        assert!(refused.text().contains("\"breaker-open\""), "{}", refused.text());
        let after: u64 = refused.field("retry-after").unwrap().parse().unwrap();
        assert!((500..=600).contains(&after), "{after}");
    }
}

#[tokio::test]
async fn another_upstream_has_as_many_attempts_as_the_first() {
    let spare = Origin::start(Reply::ok("spare")).await;
    // Nobody listens on port 1.
    let [one, two] = ["127.0.0.2:1", "127.0.0.3:1"].map(|address| address.parse().unwrap());
    let more = format!("[upstreams.spare]\nendpoints = [\"127.0.0.4:1\", \"{}\"]", spare.address());
    let forward = "fallback = { upstream = \"spare\" }";
    let gateway = Lines { forward, more: &more, ..Lines::default() }.start(&[one, two]).await;
    for _ in 0..4 {
        assert_eq!(http::get(gateway.address("web"), "/").await.text(), "spare");
    }
}

#[tokio::test]
async fn the_breaker_of_an_upstream_stops_all_its_endpoints_and_another_upstream_stands_in() {
    let bad = Origin::start(Reply::status(500)).await;
    let (also_bad, spare) =
        (Origin::start(Reply::status(500)).await, Origin::start(Reply::ok("spare")).await);
    let more = format!("[upstreams.spare]\nendpoints = [\"{}\"]", spare.address());
    let upstream = "group_breaker = { consecutive_failures = 4, open_for = \"60s\" }";
    let forward = "fallback = { upstream = \"spare\", statuses = [503] }";
    let lines = Lines { forward, upstream, more: &more, ..Lines::default() };
    let gateway = lines.start(&[bad.address(), also_bad.address()]).await;
    let address = gateway.address("web");
    for _ in 0..4 {
        assert_eq!(http::get(address, "/").await.status, 500, "that is not what the fallback is for");
    }
    assert_eq!((bad.count(), also_bad.count()), (2, 2));
    assert_eq!(http::post(address, "/", "body").await.text(), "spare");
    assert_eq!((spare.last().body.as_slice(), bad.count() + also_bad.count()), (&b"body"[..], 4));
    assert_eq!(gateway.metric("sluice_breaker_state", &["of=\"upstream\"", "name=\"app\""]).await, 1.0);
    assert_eq!(gateway.reload(&lines.document(&[bad.address(), also_bad.address()])).await.status, 200);
    assert_eq!(http::get(address, "/").await.text(), "spare", "a reload does not close it");
}

#[tokio::test]
async fn a_request_whose_body_is_gone_does_not_fall_back_on_another_upstream() {
    let (bad, spare) = (Origin::start(Reply::status(503)).await, Origin::start(Reply::ok("spare")).await);
    let more = format!("[upstreams.spare]\nendpoints = [\"{}\"]", spare.address());
    let forward = "fallback = { upstream = \"spare\", statuses = [503] }";
    let gateway = Lines { forward, more: &more, ..Lines::default() }.start(&[bad.address()]).await;
    assert_eq!(http::get(gateway.address("web"), "/").await.text(), "spare");
    let mut wire = Wire::connect(gateway.address("web")).await;
    wire.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n").await;
    assert_eq!(wire.answer().await.status, 503);
    assert_eq!(spare.count(), 1);
}

#[tokio::test]
async fn what_has_fallen_back_holds_no_place_at_the_upstream_that_failed() {
    let (bad, spare) = (Origin::start(Reply::status(503)).await, Origin::start(Reply::never()).await);
    let more = format!("[upstreams.spare]\nendpoints = [\"{}\"]", spare.address());
    let forward = "fallback = { upstream = \"spare\", statuses = [503], on = [] }";
    let lines = Lines { forward, upstream: "concurrency = { limit = 1 }", more: &more, ..Lines::default() };
    let gateway = lines.start(&[bad.address()]).await;
    let _waits = asks(&gateway, "/").await;
    spare.wait_count(1).await;
    // Else the second one would find no place, and get 503 without being sent to anybody.
    let _also_waits = asks(&gateway, "/").await;
    spare.wait_count(2).await;
    assert_eq!(bad.count(), 2);
}

#[tokio::test]
async fn an_adaptive_limit_shrinks_when_an_upstream_slows_down() {
    let origin = Origin::start(Reply::ok("x")).await;
    let route = "filters = [{ concurrency = { adaptive = { min = 1, initial = 20, max = 100 } } }]";
    let gateway = Lines { route, upstream: "timeouts = { first_byte = \"20ms\" }", ..Lines::default() }
        .start(&[origin.address()])
        .await;
    assert_eq!(http::get(gateway.address("web"), "/").await.status, 200);
    origin.set_script(Reply::never());
    eventually("a smaller limit", async || {
        assert_eq!(http::get(gateway.address("web"), "/").await.status, 504);
        (gateway.metric("sluice_limit_places", &[]).await < 18.0).then_some(())
    })
    .await;
}

/// How long something takes, at least.
async fn at_least(least: Duration, what: &str, something: impl Future<Output = ()>) {
    let started = Instant::now();
    within(what, something).await;
    let took = started.elapsed();
    assert!(took >= least, "{what} took {took:?}");
}

#[tokio::test]
async fn bodies_move_at_their_pace_both_ways() {
    let content = vec![b'x'; 60_000];
    let origin = Origin::start(Reply::echo()).await;
    let route = "filters = [{ bandwidth = { up = \"200kB/s\", down = \"200kB/s\", burst = \"10kB\" } }]";
    let gateway = Lines { route, ..Lines::default() }.start(&[origin.address()]).await;
    // 50 kB beyond the burst at 200 kB/s, less the last piece.
    at_least(Duration::from_millis(190), "an echo", async {
        let answer = http::post(gateway.address("web"), "/", &content).await;
        assert_eq!(answer.status, 200);
        assert!(answer.text().contains(&"x".repeat(content.len())), "{} bytes", answer.body.len());
    })
    .await;
}

#[tokio::test]
async fn a_tcp_tunnel_has_its_pace_and_its_limits() {
    let origin = ManualOrigin::start().await;
    let lines = Tcp { matches: "", ..Tcp::default() };
    let document = lines.document(&[origin.address()]).replace(
        "forward = { upstream = \"db\" }",
        "filters = [{ concurrency = { limit = 1 } }, { bandwidth = { down = \"200kB/s\", burst = \"1kB\" } }]\n\
         forward = { upstream = \"db\" }",
    );
    let gateway = Gateway::start(&document).await;
    let mut client = Wire::connect(gateway.address("db")).await;
    let mut endpoint = origin.accept().await;
    at_least(Duration::from_millis(100), "a download", async {
        let content = vec![b'x'; 300_000];
        let (_, read) = tokio::join!(endpoint.send(&content), client.read(content.len()));
        assert_eq!(read, content);
    })
    .await;
    // A second connection finds no place, and is reset.
    turned_away(&gateway).await;
    wait_failures(&gateway, "overloaded", 1.0).await;
}
