//! Breakers, ejection and the panic threshold: what real traffic says about an endpoint.

use sluice_testkit::{Answer, Gateway, Origin, Reply, eventually, http};

use super::{App, Client, checked, endpoint, http_check, lettered, letters, set, share, wait_health};

/// A breaker that stays open for the length of a test.
const BREAKER: &str =
    "breaker = { failure_ratio = 0.5, window = \"60s\", min_requests = 4, open_for = \"60s\" }";

async fn get(gateway: &Gateway) -> Answer {
    http::get(gateway.address("web"), "/").await
}

/// What the client gets: its status, and the code when it is the gateway's own answer.
async fn said(gateway: &Gateway) -> (u16, Option<String>) {
    let answer = get(gateway).await;
    let own = answer.field("content-type") == Some("application/problem+json");
    (answer.status, own.then(|| answer.code()))
}

fn open() -> (u16, Option<String>) {
    (503, Some("breaker-open".into()))
}

#[tokio::test]
async fn a_breaker_opens_at_its_ratio_and_rejects_without_asking_the_endpoint() {
    let origin = Origin::start(Reply::ok("x").times(2).then(Reply::status(500))).await;
    let gateway = App::of([&origin]).upstream(BREAKER).start().await;
    for status in [200, 200, 500, 500] {
        assert_eq!(said(&gateway).await, (status, None));
    }
    // Half of four requests failed.
    for _ in 0..5 {
        assert_eq!(said(&gateway).await, open());
    }
    assert_eq!(origin.count(), 4);
    let answer = get(&gateway).await;
    assert!(answer.field("proxy-status").is_some_and(|value| value.contains("breaker-open")));
    eventually("six failures counted", async || {
        let counted = gateway.metric("sluice_failures_total", &["code=\"breaker-open\""]).await;
        (counted == 6.0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn r18_client_errors_never_trip_a_breaker() {
    let origin = Origin::start(Reply::status(404)).await;
    let gateway = App::of([&origin]).upstream(BREAKER).start().await;
    for status in [404, 400, 401, 403, 429] {
        origin.set_script(Reply::status(status));
        for _ in 0..10 {
            assert_eq!(said(&gateway).await, (status, None));
        }
    }
}

#[tokio::test]
async fn r18_few_requests_do_not_trip_a_breaker() {
    let origin = Origin::start(Reply::status(500).times(3).then(Reply::ok("x"))).await;
    let gateway = App::of([&origin])
        .upstream("breaker = { failure_ratio = 0.9, window = \"60s\", min_requests = 4, open_for = \"60s\" }")
        .start()
        .await;
    for status in [500, 500, 500, 200, 200] {
        assert_eq!(said(&gateway).await, (status, None));
    }
}

#[tokio::test]
async fn failures_to_connect_and_to_answer_count_too() {
    let mut dead = Origin::start(Reply::ok("x")).await;
    dead.stop().await;
    let silent = Origin::start(Reply::never()).await;
    let closing = Origin::start(Reply::closed()).await;
    for (origin, status, code) in [
        (&dead, 502, "connect-failed"),
        (&silent, 504, "upstream-timeout"),
        (&closing, 502, "upstream-reset"),
    ] {
        let upstream = format!("{BREAKER}\ntimeouts = {{ first_byte = \"50ms\" }}");
        let gateway = App::of([origin]).upstream(&upstream).start().await;
        for _ in 0..4 {
            assert_eq!(said(&gateway).await, (status, Some(code.into())));
        }
        assert_eq!(said(&gateway).await, open(), "after four times {code}");
    }
}

#[tokio::test]
async fn clients_that_leave_do_not_trip_a_breaker() {
    let origin = Origin::start(Reply::never()).await;
    let gateway = App::of([&origin]).upstream(BREAKER).start().await;
    for sent in 1..=8 {
        let mut client = Client::of(&gateway).await;
        client.send("/").await;
        origin.wait_count(sent).await;
        client.wire.reset();
        origin.wait_open(0).await;
    }
    origin.set_script(Reply::ok("x"));
    assert_eq!(said(&gateway).await, (200, None));
}

#[tokio::test]
async fn an_open_breaker_leaves_the_traffic_to_the_other_endpoints() {
    let origins = lettered::<2>().await;
    origins[0].set_script(Reply::status(500));
    let gateway = App::of(&origins).upstream(BREAKER).start().await;
    let mut client = Client::of(&gateway).await;
    let mut failed = 0;
    for _ in 0..40 {
        failed += usize::from(client.get("/", &[]).await.status == 500);
    }
    assert_eq!((failed, origins[0].count()), (4, 4));
    assert_eq!(client.letters(10).await, "B".repeat(10));
}

#[tokio::test]
async fn r18_a_probe_closes_a_breaker_when_the_endpoint_is_well_again() {
    let origin = Origin::start(Reply::status(500)).await;
    let gateway = App::of([&origin])
        .upstream("breaker = { min_requests = 4, open_for = \"100ms\", max_open_for = \"100ms\" }")
        .start()
        .await;
    for _ in 0..4 {
        assert_eq!(said(&gateway).await, (500, None));
    }
    eventually("a failed probe that opens it again", async || {
        let before = origin.count();
        (said(&gateway).await == (500, None) && origin.count() == before + 1).then_some(())
    })
    .await;
    assert_eq!(said(&gateway).await, open(), "one probe, then it is open again");
    origin.set_script(Reply::ok("x"));
    eventually("a probe", async || (said(&gateway).await == (200, None)).then_some(())).await;
    for _ in 0..10 {
        assert_eq!(said(&gateway).await, (200, None), "it is closed");
    }
    let log = gateway.stderr();
    for change in ["change=opened", "change=closed"] {
        assert!(log.contains(change), "{change} is not in\n{log}");
    }
}

/// Sends requests until a breaker lets one through to the origin; gives its client.
async fn probe(gateway: &Gateway, origin: &Origin) -> Client {
    let before = origin.count();
    eventually("a probe at the origin", async || {
        let mut client = Client::of(gateway).await;
        client.send("/").await;
        let rejected = tokio::select! {
            answer = client.wire.answer() => Some(answer.code()),
            () = origin.wait_count(before + 1) => None,
        };
        assert!(rejected.as_deref().is_none_or(|code| code == "breaker-open"), "{rejected:?}");
        rejected.is_none().then_some(client)
    })
    .await
}

#[tokio::test]
async fn while_a_probe_is_out_others_are_rejected() {
    let origin = Origin::start(Reply::status(500)).await;
    let gateway = App::of([&origin])
        .upstream("breaker = { min_requests = 2, open_for = \"1ms\", max_open_for = \"60s\" }")
        .start()
        .await;
    for _ in 0..2 {
        assert_eq!(said(&gateway).await, (500, None));
    }
    origin.set_script(Reply::ok("probe").held());
    let mut probe = probe(&gateway, &origin).await;
    origin.wait_held(1).await;
    for _ in 0..5 {
        assert_eq!(said(&gateway).await, open());
    }
    origin.set_script(Reply::ok("x"));
    origin.release();
    assert_eq!(probe.wire.answer().await.text(), "probe");
    assert_eq!(said(&gateway).await, (200, None), "the probe closed it");
}

#[tokio::test]
async fn a_probe_whose_client_leaves_makes_room_for_another() {
    let origin = Origin::start(Reply::status(500)).await;
    let gateway = App::of([&origin])
        .upstream("breaker = { min_requests = 2, open_for = \"1ms\", max_open_for = \"60s\" }")
        .start()
        .await;
    for _ in 0..2 {
        assert_eq!(said(&gateway).await, (500, None));
    }
    origin.set_script(Reply::never());
    let probe = probe(&gateway, &origin).await;
    probe.wire.reset();
    origin.wait_open(0).await;
    origin.set_script(Reply::ok("x"));
    eventually("another probe", async || (said(&gateway).await == (200, None)).then_some(())).await;
}

#[tokio::test]
async fn failures_in_a_row_open_a_breaker_whatever_the_ratio() {
    let origin = Origin::start(Reply::ok("x").times(30).then(Reply::status(502))).await;
    let gateway = App::of([&origin])
        .upstream("breaker = { min_requests = 1000, consecutive_failures = 3, open_for = \"60s\" }")
        .start()
        .await;
    for _ in 0..30 {
        assert_eq!(said(&gateway).await, (200, None));
    }
    for _ in 0..3 {
        assert_eq!(said(&gateway).await, (502, None));
    }
    assert_eq!(said(&gateway).await, open());
}

#[tokio::test]
async fn r11_another_endpoints_weight_changes_no_breaker() {
    let origins = lettered::<2>().await;
    origins[0].set_script(Reply::status(500));
    let app = |weight: u32| {
        App::with([endpoint(&origins[0], ""), endpoint(&origins[1], &format!("weight = {weight}"))])
            .upstream(BREAKER)
    };
    let gateway = app(1).start().await;
    let mut client = Client::of(&gateway).await;
    for _ in 0..20 {
        client.get("/", &[]).await;
    }
    assert_eq!(origins[0].count(), 4, "its breaker is open");
    origins[0].set_script(Reply::ok("A"));
    for weight in [2, 3, 1] {
        app(weight).replace(&gateway).await;
        assert_eq!(client.letters(10).await, "B".repeat(10), "and stays open");
    }
}

#[tokio::test]
async fn failures_in_a_row_eject_an_endpoint_for_a_while() {
    let origins = lettered::<2>().await;
    origins[0].set_script(Reply::status(500).times(3).then(Reply::ok("A")));
    let gateway = App::of(&origins)
        .upstream("ejection = { consecutive_failures = 3, server_errors = true, for = \"300ms\" }")
        .start()
        .await;
    let mut client = Client::of(&gateway).await;
    let began = std::time::Instant::now();
    let mut statuses = Vec::new();
    for _ in 0..6 {
        statuses.push(client.get("/", &[]).await.status);
    }
    assert_eq!(statuses, [500, 200, 500, 200, 500, 200]);
    eventually("the endpoint's return", async || (client.letters(1).await == "A").then_some(())).await;
    assert!(began.elapsed().as_millis() >= 300, "out for the whole time");
    assert_eq!(share(&client.letters(10).await, 'A'), 5);
}

#[tokio::test]
async fn a_success_between_failures_saves_an_endpoint_from_ejection() {
    let origins = lettered::<2>().await;
    let failing = Reply::status(500);
    origins[0].set_script(failing.clone().times(2).then(Reply::ok("A")).then(failing.clone()).then(failing));
    let gateway = App::of(&origins)
        .upstream("ejection = { consecutive_failures = 4, server_errors = true, for = \"60s\" }")
        .start()
        .await;
    let mut client = Client::of(&gateway).await;
    for _ in 0..10 {
        client.get("/", &[]).await;
    }
    // Two failures, a success, two failures: it was asked each time.
    assert_eq!((origins[0].count(), origins[1].count()), (5, 5));
}

#[tokio::test]
async fn the_last_endpoint_is_never_ejected() {
    let ejection =
        "ejection = { consecutive_failures = 2, server_errors = true, for = \"60s\", max_ratio = 1.0 }";
    let alone = Origin::start(Reply::status(500)).await;
    let gateway = App::of([&alone]).upstream(ejection).start().await;
    for _ in 0..10 {
        assert_eq!(said(&gateway).await, (500, None));
    }
    let origins = lettered::<2>().await;
    origins.iter().for_each(|origin| origin.set_script(Reply::status(500)));
    let gateway = App::of(&origins).upstream(ejection).start().await;
    for _ in 0..20 {
        assert_eq!(said(&gateway).await, (500, None), "one of them goes on taking requests");
    }
    let fewest = origins[0].count().min(origins[1].count());
    assert_eq!(fewest, 2, "the other one was ejected");
}

#[tokio::test]
async fn no_more_endpoints_are_ejected_than_the_share_allows() {
    let origins = lettered::<4>().await;
    origins[..3].iter().for_each(|origin| origin.set_script(Reply::status(500)));
    let gateway = App::of(&origins)
        .upstream("ejection = { consecutive_failures = 2, server_errors = true, for = \"60s\" }")
        .start()
        .await;
    let mut client = Client::of(&gateway).await;
    for _ in 0..40 {
        client.get("/", &[]).await;
    }
    let mut ejected = origins.iter().filter(|origin| origin.count() == 2).count();
    assert_eq!(ejected, 2, "half of four, the default");
    origins.iter().for_each(|origin| origin.set_script(Reply::ok("x")));
    let before: Vec<_> = origins.iter().map(Origin::count).collect();
    client.letters(20).await;
    ejected = origins.iter().zip(before).filter(|(origin, before)| origin.count() == *before).count();
    assert_eq!(ejected, 2);
}

#[tokio::test]
async fn below_the_panic_threshold_health_is_not_believed() {
    let origins = lettered::<4>().await;
    origins[0].set_script(checked("A", Reply::status(200)));
    for (at, origin) in origins.iter().enumerate().skip(1) {
        origin.set_script(checked(&super::letter(at), Reply::status(500)));
    }
    for (threshold, expected) in [("0", "A"), ("0.25", "A"), ("0.3", "ABCD"), ("1", "ABCD")] {
        let gateway = App::of(&origins)
            .upstream(&format!("panic_threshold = {threshold}"))
            .upstream(&http_check(""))
            .start()
            .await;
        for origin in &origins[1..] {
            wait_health(&gateway, origin, "unhealthy").await;
        }
        assert_eq!(set(&letters(&gateway, 12).await), expected, "panic_threshold = {threshold}");
    }
}
