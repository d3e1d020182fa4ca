//! Endpoints that break off, talk nonsense or talk too much: the client always sees that it is not whole.

use std::time::Duration;

use sluice_testkit::{Origin, Reply, Wire, http};

use crate::forward::gateway;
use crate::setup::Lines;

#[tokio::test]
async fn an_answer_that_breaks_off_is_seen_as_broken_by_every_client() {
    let body = vec![b'x'; 300_000];
    let replies = [
        ("sized", Reply::ok(body.clone()).cut_after(200_000)),
        ("sized, reset", Reply::ok(body.clone()).reset_after(200_000)),
        ("chunked", Reply::chunked([body.clone()]).cut_after(200_000)),
        (
            "chunked, in a size",
            Reply::raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n1").close(),
        ),
        (
            "chunked, no last chunk",
            Reply::raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n").close(),
        ),
        (
            "chunked, garbage",
            Reply::raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nzzz\r\n").close(),
        ),
    ];
    let origin = Origin::start(Reply::ok("")).await;
    let gateway = gateway(&[origin.address()]).await;
    for (what, reply) in replies {
        origin.set_script(reply);
        let mut wire = Wire::connect(gateway.address("web")).await;
        wire.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let broken = wire.try_answer_to("GET").await;
        assert!(broken.is_err(), "{what}: HTTP/1.1 got a whole answer: {:?}", broken.unwrap().head);
        // To HTTP/1.0 a chunked answer ends with the connection: an orderly end would be a lie.
        let mut old = Wire::connect(gateway.address("web")).await;
        old.send("GET / HTTP/1.0\r\n\r\n").await;
        match old.try_read_to_end().await {
            Err(_) => {}
            Ok(bytes) => {
                let text = String::from_utf8_lossy(&bytes);
                assert!(
                    text.contains("Content-Length: 300000"),
                    "{what}: HTTP/1.0 saw an orderly end: {text:.200}"
                );
                assert!(bytes.len() < 300_000, "{what}");
            }
        }
    }
    let counted = gateway.metric("sluice_failures_total", &["code=\"upstream-incomplete\""]).await;
    assert_eq!(counted, 12.0, "each of them was counted");
}

#[tokio::test]
async fn what_came_before_a_break_still_arrives() {
    let broken = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\nzzz\r\n";
    let origin = Origin::start(Reply::raw(broken).close()).await;
    let gateway = gateway(&[origin.address()]).await;
    let mut wire = Wire::connect(gateway.address("web")).await;
    wire.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    wire.head().await;
    // Chunks that came together may leave as one.
    assert_eq!(wire.read_to_end().await, b"5\r\nabcde\r\n");
}

#[tokio::test]
async fn garbage_is_502_upstream_invalid_and_counted_by_reason() {
    let garbage = [
        "garbage\r\n\r\n",
        "HTTP/1.1 2000 OK\r\n\r\n",
        "HTTP/1.1 abc OK\r\n\r\n",
        "HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
        "\u{16}\u{3}\u{1}\u{2}\u{0}\u{1}\r\n\r\n",
        "SSH-2.0-OpenSSH_9.6\r\n\r\n",
        "HTTP/1.1 200 OK\r\nNo colon here\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX : y\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: a\r\n folded\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: a\u{0}b\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1, 2\r\n\r\nx",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, gzip\r\n\r\n",
        "HTTP/1.1 200 OK\nContent-Length: 0\n\n",
    ];
    let origin = Origin::start(Reply::ok("")).await;
    let gateway = gateway(&[origin.address()]).await;
    let mut wire = Wire::connect(gateway.address("web")).await;
    for bytes in garbage {
        origin.set_script(Reply::raw(bytes).close());
        wire.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let answer = wire.answer().await;
        assert_eq!((answer.status, answer.code().as_str()), (502, "upstream-invalid"), "{bytes:?}");
        assert!(!answer.text().contains("folded"), "what the endpoint said stays inside");
    }
    let refused = gateway.metric("sluice_upstream_refused_total", &["upstream=\"app\""]).await;
    assert_eq!(refused, garbage.len() as f64);
    let failed = gateway.metric("sluice_failures_total", &["code=\"upstream-invalid\""]).await;
    assert_eq!(failed, garbage.len() as f64);
    let attempts = gateway.metric("sluice_upstream_attempts_total", &["result=\"upstream-invalid\""]).await;
    assert_eq!(attempts, garbage.len() as f64);
}

#[tokio::test]
async fn an_oversize_answer_head_is_refused_and_a_large_one_passes() {
    let origin = Origin::start(Reply::ok("x").field("X-Large", &"x".repeat(40_000))).await;
    let gateway = gateway(&[origin.address()]).await;
    let answer = http::get(gateway.address("web"), "/").await;
    assert_eq!(answer.field("x-large").map(str::len), Some(40_000));
    let mut many = Reply::ok("x");
    for n in 0..500 {
        many = many.field(&format!("X-{n}"), "y");
    }
    let endless = format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(4_000_000));
    for (what, reply) in [
        ("a long line", Reply::ok("x").field("X-Large", &"x".repeat(100_000))),
        ("many lines", many),
        ("a line without end", Reply::raw(endless)),
    ] {
        origin.set_script(reply);
        let answer = http::get(gateway.address("web"), "/").await;
        assert_eq!((answer.status, answer.code().as_str()), (502, "upstream-invalid"), "{what}");
    }
    origin.wait_open(0).await;
}

#[tokio::test]
async fn bytes_behind_an_answer_never_reach_the_next_client() {
    let poisoned =
        "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nmineHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison";
    let origin = Origin::start(Reply::raw(poisoned).then(Reply::ok("own"))).await;
    let gateway = gateway(&[origin.address()]).await;
    assert_eq!(http::get(gateway.address("web"), "/").await.text(), "mine");
    assert_eq!(http::get(gateway.address("web"), "/").await.text(), "own");
    assert_eq!(origin.connections(), 2, "the first connection was given up");
}

#[tokio::test]
async fn internal_words_never_reach_the_client() {
    let mut origin = Origin::start(Reply::raw("secret banner of a database\r\n\r\n").close()).await;
    let gateway = gateway(&[origin.address()]).await;
    for stopped in [false, true] {
        if stopped {
            origin.stop().await;
        }
        for accept in ["*/*", "text/html"] {
            let answer = http::get_with(gateway.address("web"), "/", &[("Accept", accept)]).await;
            let all = String::from_utf8_lossy(&answer.head).into_owned() + &answer.text();
            assert_eq!(answer.status, 502);
            for word in ["banner", "127.0.0.1", "os error", "src/", "panicked"] {
                assert!(!all.contains(word), "{word} in {all}");
            }
        }
    }
}

#[tokio::test]
async fn a_dribbled_answer_head_gets_no_more_time_for_each_byte() {
    let slow = Reply::ok("x").field("X-Long", &"x".repeat(2_000)).dribble(1, Duration::from_millis(30));
    let origin = Origin::start(slow).await;
    let lines = Lines { upstream: "timeouts.first_byte = \"300ms\"", ..Lines::default() };
    let gateway = lines.start(&[origin.address()]).await;
    let answer = http::get(gateway.address("web"), "/").await;
    assert_eq!((answer.status, answer.code().as_str()), (504, "upstream-timeout"));
}

#[tokio::test]
async fn interim_answers_without_end_are_no_answer() {
    let bytes = "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n".repeat(2_000);
    let origin = Origin::start(Reply::raw(bytes)).await;
    let gateway = gateway(&[origin.address()]).await;
    let answer = http::get(gateway.address("web"), "/").await;
    assert_eq!((answer.status, answer.code().as_str()), (502, "upstream-invalid"));
}

#[tokio::test]
async fn a_connection_to_an_http_1_0_endpoint_is_kept_only_when_it_says_so() {
    for (field, connections) in [("", 2), ("Connection: keep-alive\r\n", 1)] {
        let answer = format!("HTTP/1.0 200 OK\r\nContent-Length: 2\r\n{field}\r\nok");
        let origin = Origin::start(Reply::raw(answer)).await;
        let gateway = gateway(&[origin.address()]).await;
        for _ in 0..2 {
            let answer = http::get(gateway.address("web"), "/").await;
            assert_eq!((answer.text().as_str(), answer.version.as_str()), ("ok", "HTTP/1.1"));
        }
        assert_eq!(origin.connections(), connections, "{field:?}");
    }
}
