//! The kit against itself: what a scripted origin does is what the byte-exact client sees.

use super::*;
use crate::{Load, Wire, http};

#[tokio::test]
async fn a_list_of_replies_is_given_in_order_and_the_last_repeats() {
    let origin = Origin::start(Reply::status(503).times(2).then(Reply::ok("fine"))).await;
    let mut statuses = Vec::new();
    for _ in 0..4 {
        statuses.push(http::get(origin.address(), "/").await.status);
    }
    assert_eq!(statuses, [503, 503, 200, 200]);
    assert_eq!((origin.count(), origin.connections()), (4, 4));
    origin.wait_open(0).await;
}

#[tokio::test]
async fn requests_are_recorded_byte_for_byte_over_one_connection() {
    let origin = Origin::start(Reply::chunked(["ab", "c"]).trailer("X-T", "1")).await;
    let mut wire = Wire::connect(origin.address()).await;
    let first = b"POST /a?b HTTP/1.1\r\nhOsT: x\r\nContent-Length: 2\r\n\r\nhi";
    wire.send(first).await.send("GET /b HTTP/1.1\r\nHost: x\r\n\r\n").await;
    let answer = wire.answer().await;
    assert_eq!((answer.text().as_str(), answer.trailers.get("x-t")), ("abc", Some("1")));
    assert_eq!(answer.body_on_wire, b"2\r\nab\r\n1\r\nc\r\n0\r\nX-T: 1\r\n\r\n");
    wire.answer().await;
    let seen = origin.requests();
    assert_eq!([seen[0].head.as_slice(), &seen[0].body].concat(), first);
    assert_eq!((seen[1].target.as_str(), seen[1].connection, origin.open()), ("/b", 0, 1));
}

#[tokio::test]
async fn cut_reset_and_silence_are_what_they_say() {
    let origin = Origin::start(Reply::ok("0123456789").cut_after(40)).await;
    let mut wire = Wire::connect(origin.address()).await;
    wire.send("GET / HTTP/1.1\r\n\r\n").await;
    assert_eq!(wire.read_to_end().await.len(), 40);
    origin.set_script(Reply::reset());
    let mut wire = Wire::connect(origin.address()).await;
    wire.send("GET / HTTP/1.1\r\n\r\n").await;
    wire.expect_closed().await;
    origin.set_script(Reply::never());
    let mut wire = Wire::connect(origin.address()).await;
    wire.send("GET / HTTP/1.1\r\n\r\n").await;
    origin.wait_count(3).await;
    assert!(!wire.is_closed().await);
    drop(wire);
    origin.wait_open(0).await;
}

#[tokio::test]
async fn a_held_reply_waits_for_its_release() {
    let origin = Origin::start(Reply::ok("now").held()).await;
    let mut wire = Wire::connect(origin.address()).await;
    wire.send("GET / HTTP/1.1\r\n\r\n").await;
    origin.wait_count(1).await;
    origin.wait_held(1).await;
    assert!(!wire.is_closed().await);
    origin.release();
    assert_eq!(wire.answer().await.text(), "now");
    origin.wait_held(0).await;
}

#[tokio::test]
async fn an_early_reply_comes_before_the_body_and_an_expectation_is_met_otherwise() {
    let origin = Origin::start(Reply::status(413).early().then(Reply::echo())).await;
    let mut wire = Wire::connect(origin.address()).await;
    wire.send("POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\n").await;
    assert_eq!(wire.answer().await.status, 413);
    wire.send("abcPOST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n").await;
    assert_eq!(wire.head().await.status, 100);
    wire.send("xyz").await;
    assert_eq!(wire.answer().await.json()["body"], "xyz");
}

#[tokio::test]
async fn an_upgraded_connection_echoes_and_ends_with_its_peer() {
    let origin = Origin::start(Reply::upgrade("test").interim(103, &[("Link", "</a>")])).await;
    let mut wire = Wire::connect(origin.address()).await;
    wire.send("GET / HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: test\r\n\r\nearly").await;
    assert_eq!(wire.head().await.field("link"), Some("</a>"));
    assert_eq!(wire.answer().await.status, 101);
    wire.expect("early").await.send("late").await.expect("late").await;
    wire.half_close().await.expect_closed().await;
}

#[tokio::test]
async fn a_stopped_origin_refuses_and_comes_back_on_its_port() {
    let mut origin = Origin::start(Reply::ok("x")).await;
    let mut wire = Wire::connect(origin.address()).await;
    origin.wait_connections(1).await;
    origin.stop().await;
    wire.expect_closed().await;
    assert!(tokio::net::TcpStream::connect(origin.address()).await.is_err());
    origin.start_again().await;
    assert_eq!(http::get(origin.address(), "/").await.status, 200);
}

#[tokio::test]
async fn a_load_checks_every_answer() {
    let origin = Origin::start(Reply::ok("x").times(29).then(Reply::ok("y"))).await;
    let load = Load { connections: 3, requests: 30, body: Some("x".into()), ..Load::default() };
    let report = load.run(origin.address()).await;
    assert_eq!((report.right, report.failed, report.latencies.len()), (29, 1, 29));
    assert!(report.failures[0].contains("another body"), "{:?}", report.failures);
    assert!(report.latency(0.5) <= report.latency(1.0));
}

mod with_peers {
    use super::*;
    use crate::{Peer, Scratch};

    #[tokio::test]
    async fn nginx_haproxy_and_python_start_and_stop() {
        let mut nginx = Peer::nginx("location / { return 200 hello; }").await;
        assert_eq!(http::get(nginx.address(), "/").await.text(), "hello");
        nginx.kill().await;
        assert!(tokio::net::TcpStream::connect(nginx.address()).await.is_err());
        let origin = Origin::start(Reply::echo()).await;
        let haproxy = Peer::haproxy(origin.address(), "").await;
        assert_eq!(http::get(haproxy.address(), "/x").await.json()["target"], "/x");
        let files = Scratch::new();
        files.write("a.txt", "file");
        let python = Peer::python(files.path()).await;
        assert_eq!(http::get(python.address(), "/a.txt").await.text(), "file");
    }
}
