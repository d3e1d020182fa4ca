//! Active health checks: who is unwell gets no traffic, and who is well again gets it back.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use sluice_testkit::{Gateway, Origin, Reply, Script, eventually, http};

use super::{App, Client, checked, http_check, lettered, letters, set, wait_health, wait_served_by};

/// Two origins, and a gateway that checks them; the second answers its checks with `reply`.
async fn two(keys: &str, well: Reply, reply: Reply) -> ([Origin; 2], Gateway) {
    let origins = lettered::<2>().await;
    origins[0].set_script(checked("A", well));
    origins[1].set_script(checked("B", reply));
    let gateway = App::of(&origins).upstream(&http_check(keys)).start().await;
    (origins, gateway)
}

#[tokio::test]
async fn an_endpoint_whose_check_fails_gets_no_traffic_until_it_is_well_again() {
    let (origins, gateway) = two("", Reply::status(204), Reply::status(204)).await;
    assert_eq!(set(&letters(&gateway, 8).await), "AB");
    for status in [500, 404] {
        origins[1].set_script(checked("B", Reply::status(status)));
        wait_health(&gateway, &origins[1], "unhealthy").await;
        assert_eq!(letters(&gateway, 12).await, "A".repeat(12));
        origins[1].set_script(checked("B", Reply::status(302)));
        wait_health(&gateway, &origins[1], "healthy").await;
        assert_eq!(set(&letters(&gateway, 12).await), "AB");
    }
}

#[tokio::test]
async fn a_status_that_is_listed_is_well_and_others_are_not() {
    let (origins, gateway) = two(", status = [418, 204]", Reply::status(418), Reply::status(200)).await;
    wait_served_by(&gateway, "A").await;
    origins[1].set_script(checked("B", Reply::status(204)));
    wait_served_by(&gateway, "AB").await;
}

#[tokio::test]
async fn a_body_without_the_expected_text_is_a_failure() {
    let well = Reply::chunked(["all is w", "ell"]);
    let (origins, gateway) = two(", body = \"is well\"", well, Reply::ok("nothing is right")).await;
    wait_served_by(&gateway, "A").await;
    origins[1].set_script(checked("B", Reply::until_close("so is well this")));
    wait_served_by(&gateway, "AB").await;
}

#[tokio::test]
async fn checks_ask_for_the_endpoint_or_for_the_given_host() {
    let (origins, _gateway) = two("", Reply::status(200), Reply::status(200)).await;
    origins[0].wait_count(1).await;
    let asked = origins[0].last();
    assert_eq!((asked.method.as_str(), asked.target.as_str()), ("GET", "/healthz"));
    assert_eq!(asked.field("host"), Some(origins[0].address().to_string().as_str()));
    let (origins, _gateway) =
        two(", host = \"inside.example\"", Reply::status(200), Reply::status(200)).await;
    origins[1].wait_count(1).await;
    assert_eq!(origins[1].last().field("host"), Some("inside.example"));
}

#[tokio::test]
async fn a_check_without_an_answer_in_time_is_a_failure() {
    let (origins, gateway) = two(", timeout = \"400ms\"", Reply::status(200), Reply::never()).await;
    wait_served_by(&gateway, "A").await;
    assert!(gateway.stderr().contains("no answer in time"), "{}", gateway.stderr());
    // Every abandoned check closes its connection.
    origins[1].set_script(checked("B", Reply::status(200)));
    wait_served_by(&gateway, "AB").await;
}

#[tokio::test]
async fn endpoints_that_close_or_talk_nonsense_are_unwell() {
    for reply in [Reply::closed(), Reply::reset(), Reply::raw("hello\r\n\r\n")] {
        let (_origins, gateway) = two("", Reply::status(200), reply).await;
        wait_served_by(&gateway, "A").await;
    }
}

/// Answers its checks by their number: from 0 on, whether it is well.
fn by_number(letter: &'static str, asked: &Arc<AtomicUsize>, well: fn(usize) -> bool) -> Script {
    let asked = Arc::clone(asked);
    Script::each(move |request| match request.target.as_str() {
        "/healthz" if well(asked.fetch_add(1, Ordering::SeqCst)) => Reply::status(200),
        "/healthz" => Reply::status(500),
        _ => Reply::ok(letter),
    })
}

#[tokio::test]
async fn fewer_failures_in_a_row_than_fall_change_nothing() {
    let origins = lettered::<2>().await;
    let asked = Arc::new(AtomicUsize::new(0));
    origins[1].set_script(by_number("B", &asked, |number| number % 3 == 0));
    let gateway = App::of(&origins).upstream(&http_check(", fall = 3")).start().await;
    eventually("30 checks", async || (asked.load(Ordering::SeqCst) >= 30).then_some(())).await;
    assert!(!gateway.stderr().contains("state=unhealthy"), "{}", gateway.stderr());
    // Three in a row do.
    origins[1].set_script(by_number("B", &asked, |_| false));
    wait_health(&gateway, &origins[1], "unhealthy").await;
    wait_served_by(&gateway, "A").await;
}

#[tokio::test]
async fn fewer_successes_in_a_row_than_rise_bring_nobody_back() {
    let origins = lettered::<2>().await;
    let asked = Arc::new(AtomicUsize::new(0));
    origins[1].set_script(by_number("B", &asked, |number| number % 3 != 0));
    let gateway = App::of(&origins).upstream(&http_check(", rise = 3, fall = 1")).start().await;
    eventually("30 checks", async || (asked.load(Ordering::SeqCst) >= 30).then_some(())).await;
    assert!(!gateway.stderr().contains(&format!("endpoint={} state=healthy", origins[1].address())));
    assert_eq!(letters(&gateway, 12).await, "A".repeat(12));
    origins[1].set_script(by_number("B", &asked, |_| true));
    wait_served_by(&gateway, "AB").await;
}

#[tokio::test]
async fn a_tcp_check_sees_an_endpoint_die_and_return() {
    let mut origins = lettered::<2>().await;
    let check = "health = { tcp = { every = \"20ms\", timeout = \"10s\", rise = 1, fall = 2 } }";
    let gateway = App::of(&origins).upstream(check).start().await;
    for _ in 0..2 {
        wait_served_by(&gateway, "AB").await;
        origins[1].stop().await;
        wait_health(&gateway, &origins[1], "unhealthy").await;
        let failed = gateway.metric("sluice_upstream_attempts_total", &["connect-failed"]).await;
        assert_eq!(letters(&gateway, 12).await, "A".repeat(12));
        let failed_after = gateway.metric("sluice_upstream_attempts_total", &["connect-failed"]).await;
        assert_eq!(failed, failed_after, "nothing is tried at an endpoint that is known to be dead");
        origins[1].start_again().await;
        wait_health(&gateway, &origins[1], "healthy").await;
    }
}

#[tokio::test]
async fn an_endpoint_that_is_dead_from_the_start_disturbs_nobody() {
    let mut origins = lettered::<3>().await;
    origins[1].stop().await;
    let gateway = App::of(&origins).upstream(&http_check("")).start().await;
    assert_eq!(set(&letters(&gateway, 30).await), "AC");
}

#[tokio::test]
async fn when_nobody_is_well_the_answer_is_503() {
    let (origins, gateway) = two("", Reply::status(500), Reply::status(500)).await;
    for origin in &origins {
        wait_health(&gateway, origin, "unhealthy").await;
    }
    let answer = http::get(gateway.address("web"), "/").await;
    assert_eq!((answer.status, answer.code().as_str()), (503, "no-endpoint"));
    origins[0].set_script(checked("A", Reply::status(200)));
    wait_health(&gateway, &origins[0], "healthy").await;
    assert_eq!(letters(&gateway, 4).await, "AAAA");
}

#[tokio::test]
async fn health_survives_a_reload_that_changes_something_else() {
    let origins = lettered::<2>().await;
    let other = Origin::start(Reply::ok("x")).await;
    origins[1].set_script(checked("B", Reply::status(500)));
    // A check may take long: after the reload no result comes for a while.
    let app = |weight: u32| {
        App::of(&origins).upstream(&http_check(", timeout = \"60s\"")).rest(&format!(
            "[upstreams.other]\nendpoints = [{{ address = \"{}\", weight = {weight} }}]",
            other.address()
        ))
    };
    let gateway = app(1).start().await;
    wait_health(&gateway, &origins[1], "unhealthy").await;
    origins[1].set_script(checked("B", Reply::never()));
    app(2).replace(&gateway).await;
    assert_eq!(letters(&gateway, 12).await, "A".repeat(12), "it is still known to be unwell");
    // Also when the upstream itself changes, but not the endpoint.
    app(2).upstream("slow_start = \"1s\"").replace(&gateway).await;
    assert_eq!(letters(&gateway, 12).await, "A".repeat(12));
}

#[tokio::test]
async fn checks_end_with_the_configuration_that_wants_them() {
    let (origins, gateway) = two("", Reply::status(200), Reply::status(500)).await;
    wait_health(&gateway, &origins[1], "unhealthy").await;
    App::of(&origins).replace(&gateway).await;
    wait_served_by(&gateway, "AB").await;
    let mut client = Client::of(&gateway).await;
    let asked = || origins[0].requests().iter().filter(|request| request.target == "/healthz").count();
    let before = asked();
    // Far more time than some checks would need, spent on traffic.
    client.letters(300).await;
    assert!(asked() <= before + 1, "{} checks after they were taken out", asked() - before);
}
