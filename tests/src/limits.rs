//! Rate limits and quotas, seen at the socket: one gateway, several, one that is killed, a Redis that goes.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use sluice_testkit::{Gateway, Origin, Program, Reply, Scratch, Signal, Wire, eventually, http, within};

use crate::handover::{has_ended, process};
use crate::setup::Lines;
use crate::tcp::Tcp;

async fn with_filter(filter: &str, origin: &Origin) -> Gateway {
    let route = format!("filters = [{{ {filter} }}]");
    Lines { route: &route, ..Lines::default() }.start(&[origin.address()]).await
}

/// The statuses of so many requests, one after the other.
async fn statuses(address: SocketAddr, count: usize) -> Vec<u16> {
    let mut statuses = Vec::new();
    for _ in 0..count {
        statuses.push(http::get(address, "/").await.status);
    }
    statuses
}

/// How many of so many requests pass at each of the addresses, all asked at the same time over eight connections.
async fn flood(addresses: &[SocketAddr], each: usize) -> usize {
    let ask = |address: SocketAddr| async move {
        let (mut wire, mut passed) = (Wire::connect(address).await, 0);
        for _ in 0..each / 8 {
            wire.send(http::request_bytes(address, "GET", "/", &[], b"")).await;
            passed += usize::from(wire.answer().await.status == 200);
        }
        passed
    };
    let connections = addresses.iter().flat_map(|address| std::iter::repeat_n(*address, 8));
    let tasks: Vec<_> = connections.map(|address| tokio::spawn(ask(address))).collect();
    let mut passed = 0;
    for task in tasks {
        passed += within("the end of a flood", task).await.unwrap();
    }
    passed
}

#[tokio::test]
async fn who_asks_too_fast_is_told_when_to_come_again() {
    let origin = Origin::start(Reply::ok("x")).await;
    let filter = "rate_limit = { rate = \"60/h\", burst = 3, headers = \"always\" }";
    let gateway = with_filter(filter, &origin).await;
    let address = gateway.address("web");
    let first = http::get(address, "/").await;
    assert_eq!(first.status, 200);
    assert_eq!(first.field("ratelimit-policy"), Some("\"all\";q=3;w=180"));
    assert_eq!(first.field("ratelimit"), Some("\"all\";r=2;t=60"));
    assert_eq!(
        (first.field("x-ratelimit-limit"), first.field("x-ratelimit-remaining")),
        (Some("3"), Some("2"))
    );
    assert_eq!(first.field("retry-after"), None);
    assert_eq!(statuses(address, 3).await, [200, 200, 429]);
    let refused = http::get(address, "/").await;
    assert_eq!((refused.status, refused.code().as_str()), (429, "rate-limited"));
    let after: u64 = refused.field("retry-after").unwrap().parse().unwrap();
    assert!((50..=60).contains(&after), "{after}");
    // Another client.
    let mut other = Wire::connect_from("127.0.0.9".parse().unwrap(), address).await;
    other.send(http::request_bytes(address, "GET", "/", &[], b"")).await;
    assert_eq!(other.answer().await.status, 200);
    let grpc = [("Content-Type", "application/grpc"), ("TE", "trailers")];
    let grpc = http::request(address, "POST", "/", &grpc, b"").await;
    assert_eq!((grpc.status, grpc.field("grpc-status")), (200, Some("8")));
    assert_eq!(origin.count(), 4);
    let counted = async |decision: &str| {
        let labels = ["limit=\"rate_limit\"", &format!("decision=\"{decision}\"")];
        gateway.metric("sluice_limit_decisions_total", &labels).await
    };
    // An exchange is counted when it is over, a little after its answer is here.
    eventually("all are counted", async || {
        ((counted("passed").await, counted("refused").await) == (4.0, 3.0)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_reload_keeps_what_was_counted() {
    let origin = Origin::start(Reply::ok("x")).await;
    let document = |rate: &str, more: &str| {
        let route = format!("filters = [{more}{{ rate_limit = {{ rate = \"{rate}\", burst = 2 }} }}]");
        Lines { route: &route, ..Lines::default() }.document(&[origin.address()])
    };
    let gateway = Gateway::start(&document("1/h", "")).await;
    let address = gateway.address("web");
    assert_eq!(statuses(address, 3).await, [200, 200, 429]);
    assert_eq!(gateway.reload(&document("1/h", "{ headers = {} }, ")).await.status, 200);
    assert_eq!(statuses(address, 1).await, [429]);
    assert_eq!(gateway.reload(&document("2/h", "")).await.status, 200);
    assert_eq!(statuses(address, 1).await, [200]);
}

#[tokio::test]
async fn a_leaky_bucket_makes_wait_and_then_refuses() {
    let origin = Origin::start(Reply::ok("x")).await;
    let filter = "rate_limit = { rate = \"10/s\", algorithm = \"leaky_bucket\", queue = 3, wait = \"9s\" }";
    let gateway = with_filter(filter, &origin).await;
    let (address, started) = (gateway.address("web"), Instant::now());
    let tasks: Vec<_> =
        (0..8).map(|_| tokio::spawn(async move { http::get(address, "/").await.status })).collect();
    let mut passed = 0;
    for task in tasks {
        passed += usize::from(task.await.unwrap() == 200);
    }
    // The one that finds it free and three that wait; more when this machine is slow.
    assert!(passed >= 4, "{passed}");
    let least = Duration::from_millis(100) * (passed as u32 - 1);
    assert!(started.elapsed() >= least, "{passed} in {:?}", started.elapsed());
    gateway
        .wait_metric("sluice_limit_decisions_total", &["decision=\"delayed\""], |value| value >= 3.0)
        .await;
}

#[tokio::test]
async fn a_dry_run_lets_pass_what_it_would_refuse() {
    let origin = Origin::start(Reply::ok("x")).await;
    let gateway = with_filter("rate_limit = { rate = \"1/h\", dry_run = true }", &origin).await;
    assert_eq!(statuses(gateway.address("web"), 3).await, [200; 3]);
    eventually("both are counted", async || {
        let labels = ["decision=\"would-refuse\""];
        (gateway.metric("sluice_limit_decisions_total", &labels).await == 2.0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn connections_are_limited_too() {
    let origin = Origin::start(Reply::ok("x")).await;
    let tcp = Tcp { matches: "", ..Tcp::default() };
    let filter = "filters = [{ rate_limit = { rate = \"1/h\", burst = 2 } }]\nforward =";
    let gateway = Gateway::start(&tcp.document(&[origin.address()]).replacen("forward =", filter, 1)).await;
    let address = gateway.address("db");
    for _ in 0..2 {
        assert_eq!(http::get(address, "/").await.status, 200);
    }
    Wire::refused_by(address).await;
    assert_eq!(origin.count(), 2);
    eventually("the refusal is counted", async || {
        let labels = ["decision=\"refused\"", "route=\"db\""];
        (gateway.metric("sluice_limit_decisions_total", &labels).await == 1.0).then_some(())
    })
    .await;
}

/// Of "key".
const KEY: &str = "sha256:2c70e12b7a0646f92279f427c7b38e7334d8e5389cff167a1dc30e73f826b683";

#[tokio::test]
async fn the_limits_of_a_consumer_count_all_its_addresses_and_routes_together() {
    let origin = Origin::start(Reply::ok("x")).await;
    let more = format!(
        "[[routes]]\nname = \"two\"\nmatch = {{ path = \"/two\" }}\nfilters = [{{ api_key = {{}} }}]\n\
         forward = {{ upstream = \"app\" }}\n\
         [consumers.anna]\napi_keys = [\"{KEY}\"]\nrate_limit = {{ rate = \"1/h\", burst = 4 }}\n"
    );
    let lines = Lines { route: "filters = [{ api_key = {} }]", more: &more, ..Lines::default() };
    let document = lines.document(&[origin.address()]);
    let gateway = Gateway::start(&document).await;
    let address = gateway.address("web");
    let ask = async |source: &str, path: &str, key: &str| {
        let mut wire = Wire::connect_from(source.parse().unwrap(), address).await;
        wire.send(http::request_bytes(address, "GET", path, &[("X-API-Key", key)], b"")).await;
        wire.answer().await
    };
    for (source, path) in
        [("127.0.0.1", "/"), ("127.0.0.2", "/two"), ("127.0.0.3", "/"), ("127.0.0.1", "/two")]
    {
        assert_eq!(ask(source, path, "key").await.status, 200, "{source} {path}");
        assert_eq!(ask(source, path, "no key").await.status, 401, "what is refused before is not counted");
    }
    let refused = ask("127.0.0.4", "/two", "key").await;
    assert_eq!((refused.status, refused.field("ratelimit-policy")), (429, Some("\"anna\";q=4;w=14400")));
    let quota = document
        .replace("rate_limit = { rate = \"1/h\", burst = 4 }", "quota = { limit = 1, period = \"month\" }");
    assert_eq!(gateway.reload(&quota).await.status, 200);
    assert_eq!(ask("127.0.0.4", "/two", "key").await.status, 200);
    assert_eq!(ask("127.0.0.5", "/", "key").await.status, 429);
}

/// A document with a quota that is kept in this directory.
fn with_quota(state: &Scratch, limit: usize, origin: &Origin) -> String {
    let route =
        format!("filters = [{{ quota = {{ per = \"route\", limit = {limit}, period = \"month\" }} }}]");
    let document = Lines { route: &route, ..Lines::default() }.document(&[origin.address()]);
    let state = state.file("state").display().to_string();
    document.replace("workers = 1", &format!("workers = 2\nstate = \"{state}\""))
}

#[tokio::test]
async fn a_quota_is_exact_over_a_kill() {
    let (origin, state) = (Origin::start(Reply::ok("x")).await, Scratch::new());
    let document = with_quota(&state, 20, &origin);
    for passes in [7, 6, 7, 0] {
        let mut gateway = Gateway::start(&document).await;
        assert_eq!(statuses(gateway.address("web"), passes).await, vec![200; passes]);
        if passes == 0 {
            let refused = http::get(gateway.address("web"), "/").await;
            assert_eq!((refused.status, refused.code().as_str()), (429, "rate-limited"));
        }
        gateway.signal(Signal::Kill).await;
        gateway.wait_exit().await;
    }
    assert_eq!(origin.count(), 20);
}

#[tokio::test]
async fn a_quota_is_never_exceeded_by_a_kill_under_load() {
    const LIMIT: usize = 400;
    let (origin, state) = (Origin::start(Reply::ok("x")).await, Scratch::new());
    let document = with_quota(&state, LIMIT, &origin);
    let mut gateway = Gateway::start(&document).await;
    let address = gateway.address("web");
    let ask = move || async move {
        while let Ok(mut wire) = tokio::net::TcpStream::connect(address).await.map(Wire::through) {
            let sent = wire.try_send(http::request_bytes(address, "GET", "/", &[], b"")).await;
            if sent.is_err() || wire.try_answer_to("GET").await.is_err() {
                return;
            }
        }
    };
    let load: Vec<_> = (0..8).map(|_| tokio::spawn(ask())).collect();
    origin.wait_count(LIMIT / 4).await;
    gateway.signal(Signal::Kill).await;
    gateway.wait_exit().await;
    for task in load {
        within("the end of the load", task).await.unwrap();
    }
    let before = origin.count();
    assert!(before < LIMIT, "it was killed too late");
    let gateway = Gateway::start(&document).await;
    flood(&[gateway.address("web")], LIMIT + 8).await;
    // Each of the eight may have been written down and not have passed.
    let passed = origin.count();
    assert!((LIMIT - 8..=LIMIT).contains(&passed), "{passed} passed, {before} of them before");
}

#[tokio::test]
async fn a_quota_is_exact_while_a_new_process_takes_over() {
    const LIMIT: usize = 400;
    let (origin, state) = (Origin::start(Reply::ok("x")).await, Scratch::new());
    let mut gateway = Gateway::start(&with_quota(&state, LIMIT, &origin)).await;
    let (address, old) = (gateway.address("web"), process(&gateway).await);
    let ask = move || async move {
        let mut passed = 0;
        loop {
            match http::get(address, "/").await.status {
                200 => passed += 1,
                status => return (passed, status),
            }
        }
    };
    let load: Vec<_> = (0..4).map(|_| tokio::spawn(ask())).collect();
    origin.wait_count(LIMIT / 8).await;
    gateway.signal(Signal::Usr2).await;
    let mut passed = 0;
    for task in load {
        let (of_task, last) = within("the end of the quota", task).await.unwrap();
        assert_eq!(last, 429);
        passed += of_task;
    }
    assert_eq!((passed, origin.count()), (LIMIT, LIMIT));
    eventually("the old process ends", async || has_ended(old).then_some(())).await;
    let new = process(&gateway).await;
    assert_eq!(http::get(address, "/").await.status, 429);
    let ended = Program::at("/bin/sh").arguments(["-c", &format!("kill -TERM {new}")]).finish().await;
    assert_eq!(ended.code(), 0);
    gateway.wait_exit().await;
}

mod with_peers {
    use super::*;
    use sluice_testkit::Peer;

    /// Two gateways with this filter that count in Redis.
    async fn two(filter: &str, redis: &Peer, origin: &Origin) -> (Gateway, Gateway) {
        let filter =
            filter.replace("SHARED", &format!("shared = \"redis://{}?timeout=5s\"", redis.address()));
        (with_filter(&filter, origin).await, with_filter(&filter, origin).await)
    }

    #[tokio::test]
    async fn two_gateways_on_one_redis_admit_together_what_one_would() {
        let (redis, origin) = (Peer::redis().await, Origin::start(Reply::ok("x")).await);
        for (filter, limit) in [
            ("rate_limit = { rate = \"1/h\", burst = 100, SHARED }", 100),
            ("rate_limit = { rate = \"100/h\", algorithm = \"sliding_window\", SHARED }", 100),
            ("rate_limit = { rate = \"100/d\", algorithm = \"fixed_window\", SHARED }", 100),
            ("quota = { limit = 100, period = \"month\", SHARED }", 100),
        ] {
            let (one, other) = two(filter, &redis, &origin).await;
            let (one, other) = (one.address("web"), other.address("web"));
            assert_eq!(flood(&[one, other], 160).await, limit, "{filter}");
            assert_eq!(flood(&[one, other], 8).await, 0, "{filter}");
        }
        assert_eq!(origin.count(), 400);
    }

    #[tokio::test]
    async fn a_quota_in_redis_outlives_its_period_for_gateways_whose_clocks_are_behind() {
        let (redis, origin) = (Peer::redis().await, Origin::start(Reply::ok("x")).await);
        let (one, _) = two("quota = { limit = 9, period = \"1m\", SHARED }", &redis, &origin).await;
        assert_eq!(statuses(one.address("web"), 2).await, [200, 200]);
        let mut wire = Wire::connect(redis.address()).await;
        wire.send("KEYS sluice:limit:*\r\n").await.expect("*1\r\n$45\r\n").await;
        let key = String::from_utf8(wire.read(45).await).unwrap();
        wire.expect("\r\n").await.send(format!("TTL {key}\r\n")).await.expect(":").await;
        let seconds = String::from_utf8(wire.read(4).await).unwrap();
        assert!((3_600..=3_661).contains(&seconds.parse::<u64>().unwrap()), "{seconds}");
    }

    #[tokio::test]
    async fn permits_taken_in_advance_are_within_the_limit() {
        let (redis, origin) = (Peer::redis().await, Origin::start(Reply::ok("x")).await);
        let started = Instant::now();
        let filter = "rate_limit = { rate = \"1000/s\", burst = 400, SHARED }";
        let (one, other) = two(filter, &redis, &origin).await;
        let passed = flood(&[one.address("web"), other.address("web")], 1600).await;
        let most = 400.0 + 1000.0 * started.elapsed().as_secs_f64();
        assert!((400.0..=most).contains(&(passed as f64)), "{passed} of at most {most}");
        let calls = one.metric("sluice_redis_calls_total", &["result=\"answered\""]).await;
        assert!(
            calls > 0.0 && calls < 1600.0,
            "{calls}: each takes several permits, a refusal is remembered"
        );
    }

    #[tokio::test]
    async fn a_leaky_bucket_delays_over_both() {
        let (redis, origin) = (Peer::redis().await, Origin::start(Reply::ok("x")).await);
        let filter = "rate_limit = { rate = \"20/s\", algorithm = \"leaky_bucket\", wait = \"30s\", SHARED }";
        let (one, other) = two(filter, &redis, &origin).await;
        let started = Instant::now();
        assert_eq!(flood(&[one.address("web"), other.address("web")], 8).await, 16);
        assert!(started.elapsed() >= Duration::from_millis(50) * 15, "{:?}", started.elapsed());
    }

    #[tokio::test]
    async fn when_redis_goes_each_does_as_it_was_told() {
        let origin = Origin::start(Reply::ok("x")).await;
        for (choice, expected) in
            [("local", [200, 200, 429]), ("allow", [200, 200, 200]), ("deny", [503, 503, 503])]
        {
            let mut redis = Peer::redis().await;
            let filter = format!(
                "rate_limit = {{ rate = \"1/h\", burst = 2, on_redis_failure = \"{choice}\", SHARED }}"
            );
            let (one, other) = two(&filter, &redis, &origin).await;
            let (one, other) = (one.address("web"), other.address("web"));
            let together = [statuses(one, 1).await, statuses(other, 2).await].concat();
            assert_eq!(together, [200, 200, 429], "{choice}");
            redis.kill().await;
            // The one that was refused knows it for a time; another client does not.
            let ask = async || {
                let mut wire = Wire::connect_from("127.0.0.7".parse().unwrap(), one).await;
                wire.send(http::request_bytes(one, "GET", "/", &[], b"")).await;
                wire.answer().await.status
            };
            assert_eq!([ask().await, ask().await, ask().await], expected, "{choice}");
        }
    }
}
