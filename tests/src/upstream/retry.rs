//! Retries: what is sent a second time, to whom, and what never is.

use sluice_testkit::{Answer, Gateway, Origin, Reply, Wire, http};

use super::{App, Client, LOG, lettered, logged};

async fn get(gateway: &Gateway) -> Answer {
    http::get(gateway.address("web"), "/").await
}

async fn request(gateway: &Gateway, method: &str, body: &str) -> Answer {
    http::request(gateway.address("web"), method, "/", &[], body.as_bytes()).await
}

async fn retries(gateway: &Gateway) -> f64 {
    gateway.metric("sluice_upstream_retries_total", &[]).await
}

#[tokio::test]
async fn r17_a_connect_error_is_retried_whatever_the_method() {
    let mut origins = lettered::<2>().await;
    origins[0].stop().await;
    let gateway = App::of(&origins).start().await;
    for method in ["GET", "POST", "PUT", "DELETE", "PATCH", "POST"] {
        let body = if method == "GET" { "" } else { "body" };
        let answer = request(&gateway, method, body).await;
        assert_eq!((answer.status, answer.text().as_str()), (200, "B"), "{method}");
        let seen = origins[1].last();
        assert_eq!((seen.method.as_str(), seen.text().as_str()), (method, body));
    }
    assert!(retries(&gateway).await >= 3.0);
}

#[tokio::test]
async fn a_body_that_is_still_to_come_survives_a_connect_error() {
    let mut origins = lettered::<2>().await;
    origins[0].stop().await;
    let gateway = App::of(&origins).start().await;
    for _ in 0..2 {
        let mut wire = Wire::connect(gateway.address("web")).await;
        wire.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n").await;
        origins[1].wait_connections(1).await;
        wire.send("5\r\nhello\r\n").await.send("6\r\n world\r\n0\r\n\r\n").await;
        assert_eq!(wire.answer().await.text(), "B");
        assert_eq!(origins[1].last().text(), "hello world");
    }
}

#[tokio::test]
async fn r17_a_request_that_is_not_idempotent_is_not_sent_twice() {
    for reply in [Reply::closed(), Reply::reset(), Reply::ok("0123456789").cut_after(20)] {
        let origins = lettered::<2>().await;
        origins.iter().for_each(|origin| origin.set_script(reply.clone()));
        let gateway = App::of(&origins).start().await;
        for (sent, method) in ["POST", "PATCH"].into_iter().enumerate() {
            let answer = request(&gateway, method, "order").await;
            assert_eq!((answer.status, answer.code().as_str()), (502, "upstream-reset"), "{method}");
            assert_eq!(origins[0].count() + origins[1].count(), sent + 1, "{method} went out once");
        }
        assert_eq!(retries(&gateway).await, 0.0);
    }
}

#[tokio::test]
async fn r17_nor_when_it_was_not_answered_in_time() {
    let origins = lettered::<2>().await;
    origins.iter().for_each(|origin| origin.set_script(Reply::never()));
    let gateway = App::of(&origins).upstream("timeouts = { first_byte = \"100ms\" }").start().await;
    let answer = request(&gateway, "POST", "order").await;
    assert_eq!((answer.status, answer.code().as_str()), (504, "upstream-timeout"));
    assert_eq!(origins[0].count() + origins[1].count(), 1);
}

#[tokio::test]
async fn a_route_may_allow_it() {
    let origins = lettered::<2>().await;
    origins[0].set_script(Reply::closed());
    let gateway = App::of(&origins).forward("retry = { non_idempotent = true }").start().await;
    let answer = request(&gateway, "POST", "order").await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "B"));
    assert_eq!(origins[1].last().text(), "order");
}

#[tokio::test]
async fn an_idempotent_request_is_sent_to_another_endpoint() {
    for reply in [Reply::closed(), Reply::reset(), Reply::ok("0123456789").cut_after(20)] {
        let origins = lettered::<2>().await;
        origins[0].set_script(reply);
        let gateway = App::of(&origins).rest(LOG).start().await;
        for method in ["GET", "HEAD", "OPTIONS", "DELETE", "GET", "PUT"] {
            let body = if method == "PUT" { "what arrived with the head" } else { "" };
            assert_eq!(request(&gateway, method, body).await.status, 200, "{method}");
            assert_eq!(origins[1].last().text(), body, "{method}");
        }
        let asked = origins[0].count();
        assert!(asked >= 3, "the failing endpoint was asked {asked} times");
        let lines = logged(&gateway, 6).await;
        let mut attempts = 0;
        for line in &lines {
            assert_eq!(line["endpoint"], origins[1].address().to_string(), "the last endpoint: {line}");
            attempts += line["attempts"].as_u64().unwrap();
        }
        assert_eq!(attempts as usize, 6 + asked);
        assert_eq!(retries(&gateway).await as usize, asked);
    }
}

#[tokio::test]
async fn every_endpoint_is_tried_at_most_once() {
    let origins = lettered::<3>().await;
    origins.iter().for_each(|origin| origin.set_script(Reply::closed()));
    let gateway = App::of(&origins).forward("retry = { attempts = 9 }").rest(LOG).start().await;
    let answer = get(&gateway).await;
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (502, "upstream-reset"),
        "the last failure, not its end"
    );
    assert_eq!(origins.each_ref().map(Origin::count), [1, 1, 1]);
    assert_eq!(logged(&gateway, 1).await[0]["attempts"], 3);
}

#[tokio::test]
async fn attempts_are_limited_and_one_never_tries_again() {
    for (retry, attempts) in [("attempts = 1", 1), ("", 2), ("attempts = 2", 2), ("attempts = 3", 3)] {
        let origins = lettered::<4>().await;
        origins.iter().for_each(|origin| origin.set_script(Reply::closed()));
        let gateway = App::of(&origins).forward(&format!("retry = {{ {retry} }}")).rest(LOG).start().await;
        assert_eq!(get(&gateway).await.status, 502);
        assert_eq!(origins.iter().map(Origin::count).sum::<usize>(), attempts, "{retry:?}");
        let line = &logged(&gateway, 1).await[0];
        assert_eq!(
            (line["attempts"].as_u64(), line["outcome"].as_str()),
            (Some(attempts as u64), Some("upstream-reset"))
        );
    }
}

#[tokio::test]
async fn a_connect_error_is_not_retried_with_one_attempt() {
    let mut origins = lettered::<2>().await;
    origins[0].stop().await;
    let gateway = App::of(&origins).forward("retry = { attempts = 1 }").start().await;
    let mut statuses = Vec::new();
    for _ in 0..4 {
        statuses.push(get(&gateway).await.status);
    }
    assert_eq!(statuses, [502, 200, 502, 200]);
}

#[tokio::test]
async fn listed_statuses_are_retried_for_idempotent_requests_only() {
    let origins = lettered::<2>().await;
    origins[0].set_script(Reply::status(503));
    let gateway = App::of(&origins).forward("retry = { statuses = [503] }").start().await;
    let mut client = Client::of(&gateway).await;
    assert_eq!(client.letters(6).await, "BBBBBB");
    let mut statuses = [client.post("x").await.status, client.post("x").await.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 503], "a POST gets the answer that came");
    origins[0].set_script(Reply::status(500));
    let mut statuses = [client.get("/", &[]).await.status, client.get("/", &[]).await.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 500], "500 is not listed");
}

#[tokio::test]
async fn r1_the_last_answer_of_a_listed_status_reaches_the_client() {
    let origins = lettered::<2>().await;
    for origin in &origins {
        origin.set_script(Reply::status(503).body("own words").field("Retry-After", "7"));
    }
    for (used, attempts) in [(2, 2), (2, 9), (1, 2)] {
        let gateway = App::of(&origins[..used])
            .forward(&format!("retry = {{ attempts = {attempts}, statuses = [503] }}"))
            .start()
            .await;
        let before = origins[0].count() + origins[1].count();
        let answer = get(&gateway).await;
        assert_eq!(
            (answer.status, answer.text().as_str()),
            (503, "own words"),
            "{used} endpoints, {attempts}"
        );
        assert_eq!(answer.field("retry-after"), Some("7"));
        assert_eq!(origins[0].count() + origins[1].count(), before + used);
        assert_eq!(retries(&gateway).await as usize, used - 1, "what had nowhere to go is no retry");
    }
}

/// Requests to two endpoints of which the first resets every connection: how many failed.
async fn failed_of(requests: usize, budget: &str) -> (usize, [Origin; 2], Gateway) {
    let origins = lettered::<2>().await;
    origins[0].set_script(Reply::reset());
    let gateway =
        App::of(&origins).upstream(&format!("ejection = false\nretry_budget = {{ {budget} }}")).start().await;
    let mut failed = 0;
    for _ in 0..requests {
        failed += usize::from(get(&gateway).await.status == 502);
    }
    (failed, origins, gateway)
}

#[tokio::test]
async fn without_a_budget_there_are_no_retries() {
    let (failed, origins, gateway) = failed_of(20, "ratio = 0, floor = 0").await;
    assert_eq!((failed, origins[0].count(), retries(&gateway).await), (10, 10, 0.0));
    assert_eq!(gateway.metric("sluice_upstream_retries_denied_total", &[]).await, 10.0);
}

#[tokio::test]
async fn a_budget_ties_retries_to_requests() {
    let (failed, origins, gateway) = failed_of(100, "ratio = 0.25, floor = 0").await;
    let made = retries(&gateway).await as usize;
    assert!((20..=26).contains(&made), "{made} retries for 100 requests");
    assert_eq!(failed + made, origins[0].count(), "each reset was the client's or was tried again");
    let (failed, ..) = failed_of(20, "ratio = 0, floor = 3").await;
    assert_eq!(failed, 0, "three a second for ten seconds are always allowed");
}

#[tokio::test]
async fn r5_a_retry_of_what_was_never_sent_needs_no_budget() {
    let mut origins = lettered::<3>().await;
    origins[0].stop().await;
    origins[1].stop().await;
    // Whatever ejection spares, one dead endpoint goes on being picked; the floor would last for thirty.
    for upstream in ["", "ejection = false\nretry_budget = { ratio = 0, floor = 0 }"] {
        let gateway = App::of(&origins).upstream(upstream).forward("retry = { attempts = 3 }").start().await;
        let mut client = Client::of(&gateway).await;
        for turn in 0..150 {
            assert_eq!(client.post("order").await.text(), "C", "request {turn} with {upstream:?}");
        }
    }
    assert_eq!(origins[2].count(), 300);
}

#[tokio::test]
async fn a_body_that_was_partly_sent_is_not_sent_again() {
    let origins = lettered::<2>().await;
    // It reads the head and resets while the body is on its way.
    origins[0].set_script(Reply::reset().early());
    let gateway = App::of(&origins).forward("retry = { non_idempotent = true, attempts = 2 }").start().await;
    let mut wire = Wire::connect(gateway.address("web")).await;
    let head = "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\nbegins";
    wire.send(head).await;
    let answer = wire.answer_to("PUT").await;
    assert_eq!((answer.status, answer.code().as_str()), (502, "upstream-reset"));
    assert_eq!(origins[1].connections(), 0);
}

#[tokio::test]
async fn an_answer_that_has_begun_is_never_begun_again() {
    let origins = lettered::<2>().await;
    origins[0].set_script(Reply::ok(vec![b'x'; 100_000]).reset_after(50_000));
    let gateway = App::of(&origins).start().await;
    let mut wire = Wire::connect(gateway.address("web")).await;
    wire.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(wire.try_answer_to("GET").await.is_err());
    assert_eq!(origins[1].count(), 0);
}

#[tokio::test]
async fn an_invalid_answer_is_not_asked_for_again() {
    let origins = lettered::<2>().await;
    origins[0].set_script(Reply::raw("HTP/1.1 200 OK\r\n\r\n").close());
    let gateway = App::of(&origins).start().await;
    let answer = get(&gateway).await;
    assert_eq!((answer.status, answer.code().as_str()), (502, "upstream-invalid"));
    assert_eq!(origins[1].count(), 0);
}
