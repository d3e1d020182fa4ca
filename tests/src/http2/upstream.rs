//! HTTP/2 towards endpoints: what passes, how connections are shared, and what becomes of what goes wrong.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::Reason;
use h2::server::Builder;
use http::{HeaderMap, Method, Request, Response};
use sluice_testkit::{Gateway, Wire, eventually, http as http1, within};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::{Notify, Semaphore};

use super::client::{Client, finish, send_all};
use super::origin::{Origin, Stream, play};
use crate::setup::Lines;

const HTTP2: &str = "protocol = \"http2\"";

/// A gateway that speaks HTTP/2 with these endpoints.
async fn gateway(origins: &[&Origin], upstream: &str) -> Gateway {
    let addresses: Vec<_> = origins.iter().map(|origin| origin.address()).collect();
    Lines { upstream: &format!("{HTTP2}\n{upstream}"), ..Lines::default() }.start(&addresses).await
}

fn pattern(size: usize) -> Vec<u8> {
    (0..size).map(|at| (at * 31 + at / 251) as u8).collect()
}

/// Sends back what it gets, as it comes.
async fn echo(mut stream: Stream) {
    let head = Response::builder().status(200).body(()).unwrap();
    let mut back = stream.respond.send_response(head, false).unwrap();
    let body = stream.request.body_mut();
    while let Some(piece) = body.data().await {
        let Ok(mut piece) = piece else { return };
        let _ = body.flow_control().release_capacity(piece.len());
        while !piece.is_empty() {
            back.reserve_capacity(piece.len());
            let Some(Ok(room)) = std::future::poll_fn(|cx| back.poll_capacity(cx)).await else { return };
            if back.send_data(piece.split_to(room.min(piece.len())), false).is_err() {
                return;
            }
        }
    }
    match body.trailers().await {
        Ok(Some(trailers)) => back.send_trailers(trailers).unwrap(),
        _ => back.send_data(Bytes::new(), true).unwrap(),
    }
}

#[tokio::test]
async fn an_http_1_request_arrives_as_http_2_and_its_answer_as_http_1() {
    let origin = Origin::start(|stream| {
        play(async move { stream.fields(404, &[("x-own", "1"), ("set-cookie", "a"), ("set-cookie", "b")]) })
    })
    .await;
    let gateway = gateway(&[&origin], "").await;
    let fields = [("X-Mine", "2"), ("Keep-Alive", "x"), ("Upgrade", "h2c"), ("Cookie", "a=1; b=2")];
    let answer = http1::get_with(gateway.address("web"), "/a?b", &fields).await;
    assert_eq!((answer.status, answer.field("x-own")), (404, Some("1")));
    assert_eq!(answer.fields.all("set-cookie").collect::<Vec<_>>(), ["a", "b"]);
    let seen = origin.last();
    assert_eq!(seen.version, http::Version::HTTP_2);
    assert_eq!(seen.uri.path_and_query().unwrap(), "/a?b");
    assert_eq!(seen.uri.authority().unwrap().as_str(), gateway.address("web").to_string());
    assert_eq!(seen.uri.scheme_str(), Some("http"));
    assert_eq!(seen.headers["x-mine"], "2");
    assert_eq!(seen.headers["cookie"], "a=1; b=2");
    assert!(!seen.headers.contains_key("keep-alive") && !seen.headers.contains_key("upgrade"));
    assert!(!seen.headers.contains_key("host") && !seen.headers.contains_key("content-length"));
}

#[tokio::test]
async fn big_bodies_pass_both_ways_unchanged() {
    let origin = Origin::start(|stream| play(echo(stream))).await;
    let gateway = gateway(&[&origin], "").await;
    for size in [0, 1, 70_000, 5_000_000] {
        let body = pattern(size);
        let answer = http1::post(gateway.address("web"), "/", &body).await;
        assert!(answer.status == 200 && answer.body == body, "{size}: {}", answer.body.len());
    }
    assert_eq!(origin.connections(), 1);
    assert_eq!(origin.last().headers["content-length"], "5000000");
}

#[tokio::test]
async fn trailers_pass_both_ways() {
    let origin = Origin::start(|stream| play(echo(stream))).await;
    let gateway = gateway(&[&origin], "").await;
    let mut wire = Wire::connect(gateway.address("web")).await;
    wire.send(
        "POST / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: TE\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n\
         2\r\nhi\r\n0\r\nX-Sum: 7\r\n\r\n",
    )
    .await;
    let answer = wire.answer().await;
    assert_eq!((answer.text().as_str(), answer.trailers.get("x-sum")), ("hi", Some("7")));
    assert_eq!(origin.last().headers["te"], "trailers");

    let mut client = Client::connect(gateway.address("web")).await;
    let (answer, mut stream) = client.begin(Request::post("http://a/").body(()).unwrap(), false).await;
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", "8".parse().unwrap());
    send_all(&mut stream, Bytes::from_static(b"ho"), Some(trailers)).await;
    let answer = finish(answer).await;
    assert_eq!((answer.text().as_str(), &answer.trailers.unwrap()["x-sum"]), ("ho", &"8".parse().unwrap()));
}

#[tokio::test]
async fn a_head_request_and_answers_without_content_end_at_once() {
    let origin = Origin::start(|stream| {
        play(async move {
            match stream.request.method() {
                &Method::HEAD => stream.fields(200, &[("content-length", "7")]),
                _ => stream.fields(304, &[("etag", "\"x\"")]),
            }
        })
    })
    .await;
    let gateway = gateway(&[&origin], "").await;
    let head = http1::request(gateway.address("web"), "HEAD", "/", &[], b"").await;
    assert_eq!((head.status, head.field("content-length")), (200, Some("7")));
    let unchanged = http1::get(gateway.address("web"), "/").await;
    assert_eq!((unchanged.status, unchanged.field("etag")), (304, Some("\"x\"")));
}

#[tokio::test]
async fn early_hints_come_before_the_answer() {
    let origin = Origin::start(|mut stream: Stream| {
        play(async move {
            let hints = Response::builder().status(103).header("link", "</a>; rel=preload").body(()).unwrap();
            stream.respond.send_informational(hints).unwrap();
            stream.answer(200, "done");
        })
    })
    .await;
    let gateway = gateway(&[&origin], "").await;
    let mut wire = Wire::connect(gateway.address("web")).await;
    wire.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let hints = wire.head().await;
    assert_eq!((hints.status, hints.field("link")), (103, Some("</a>; rel=preload")));
    assert_eq!(wire.answer().await.text(), "done");
}

#[tokio::test]
async fn a_body_is_held_back_until_the_endpoint_wants_it() {
    let origin = Origin::start(|mut stream: Stream| {
        play(async move {
            match stream.request.uri().path() {
                "/no" => stream.answer(403, "no"),
                _ => {
                    let go_on = Response::builder().status(100).body(()).unwrap();
                    stream.respond.send_informational(go_on).unwrap();
                    let (body, _) = stream.read().await;
                    stream.answer(200, body);
                }
            }
        })
    })
    .await;
    let gateway = gateway(&[&origin], "").await;
    let head = |path: &str| {
        format!("POST {path} HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n")
    };
    let mut wire = Wire::connect(gateway.address("web")).await;
    wire.send(head("/yes")).await;
    assert_eq!(wire.head().await.status, 100);
    wire.send("body").await;
    assert_eq!(wire.answer().await.text(), "body");
    let mut wire = Wire::connect(gateway.address("web")).await;
    wire.send(head("/no")).await;
    assert_eq!(wire.answer().await.status, 403);
}

/// An origin that answers one request for each permit of the gate.
async fn gated(builder: Builder) -> (Arc<Semaphore>, Origin) {
    let gate = Arc::new(Semaphore::new(0));
    let held = Arc::clone(&gate);
    let origin = Origin::with(builder, move |stream| {
        let gate = Arc::clone(&held);
        play(async move {
            gate.acquire().await.unwrap().forget();
            stream.answer(200, "x");
        })
    })
    .await;
    (gate, origin)
}

#[tokio::test]
async fn requests_that_come_together_share_one_connection() {
    let (gate, origin) = gated(Builder::new()).await;
    let gateway = gateway(&[&origin], "").await;
    let mut client = Client::connect(gateway.address("web")).await;
    let mut answers = Vec::new();
    for _ in 0..80 {
        answers.push(client.begin(Request::get("http://a/").body(()).unwrap(), true).await.0);
    }
    origin.wait_streams(80).await;
    assert_eq!(origin.connections(), 1);
    gate.add_permits(80);
    for answer in answers {
        assert_eq!(finish(answer).await.status, 200);
    }
    assert_eq!(gateway.metric("sluice_upstream_connections_total", &["opened"]).await, 1.0);
}

#[tokio::test]
async fn an_endpoint_that_allows_one_stream_gets_several_connections() {
    let mut builder = Builder::new();
    builder.max_concurrent_streams(1);
    let (gate, origin) = gated(builder).await;
    let gateway = gateway(&[&origin], "").await;
    let mut client = Client::connect(gateway.address("web")).await;
    let mut answers = Vec::new();
    for _ in 0..4 {
        answers.push(client.begin(Request::get("http://a/").body(()).unwrap(), true).await.0);
    }
    origin.wait_streams(4).await;
    assert_eq!(origin.connections(), 4);
    gate.add_permits(4);
    for answer in answers {
        assert_eq!(finish(answer).await.status, 200);
    }
}

#[tokio::test]
async fn a_limit_on_connections_makes_requests_wait_for_a_place_on_one() {
    let (gate, origin) = gated(Builder::new()).await;
    let limits = "http2 = { max_streams = 2 }\npool = { max_connections = 1, queue_timeout = \"60s\" }";
    let gateway = gateway(&[&origin], limits).await;
    let mut client = Client::connect(gateway.address("web")).await;
    let mut answers = Vec::new();
    for _ in 0..6 {
        answers.push(client.begin(Request::get("http://a/").body(()).unwrap(), true).await.0);
    }
    origin.wait_streams(2).await;
    gate.add_permits(6);
    for answer in answers {
        assert_eq!(finish(answer).await.status, 200);
    }
    assert_eq!((origin.connections(), origin.streams()), (1, 6));
}

#[tokio::test]
async fn a_refused_stream_is_tried_on_another_endpoint_whatever_its_method() {
    let refusing = Origin::start(|stream| play(async move { stream.reset(Reason::REFUSED_STREAM) })).await;
    let taking = Origin::start(|mut stream: Stream| {
        play(async move {
            let (body, _) = stream.read().await;
            stream.answer(200, body);
        })
    })
    .await;
    let gateway = gateway(&[&refusing, &taking], "ejection = false").await;
    for _ in 0..4 {
        let answer = http1::post(gateway.address("web"), "/", "order").await;
        assert_eq!((answer.status, answer.text().as_str()), (200, "order"));
    }
    assert!(refusing.streams() > 0);
    assert_eq!(taking.streams(), 4);
}

#[tokio::test]
async fn other_resets_are_not_tried_again_when_the_method_is_not_idempotent() {
    let resetting = Origin::start(|stream| play(async move { stream.reset(Reason::INTERNAL_ERROR) })).await;
    let gateway = gateway(&[&resetting], "").await;
    let answer = http1::post(gateway.address("web"), "/", "order").await;
    assert_eq!((answer.status, answer.code().as_str()), (502, "upstream-reset"));
    assert_eq!(resetting.streams(), 1);
}

/// Frames of an endpoint that goes away before the first request: SETTINGS, then GOAWAY with nothing processed.
const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
const GO_AWAY: &[u8] = &[0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// Waits for the HEADERS (type 1) of a request and goes away without having looked at it.
async fn go_away(mut socket: tokio::net::TcpStream) {
    socket.write_all(SETTINGS).await.unwrap();
    let mut read = Vec::new();
    while !read.windows(5).any(|window| matches!(window[3..], [1, 4 | 5])) {
        if socket.read_buf(&mut read).await.unwrap_or(0) == 0 {
            return;
        }
    }
    socket.write_all(GO_AWAY).await.unwrap();
    // To the end: closing with unread bytes would be a reset that overtakes the GOAWAY.
    while socket.read_buf(&mut read).await.is_ok_and(|more| more > 0) {}
}

#[tokio::test]
async fn a_request_behind_a_goaway_is_sent_again() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let leaving = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            tokio::spawn(go_away(socket));
        }
    });
    let origin = Origin::start(|mut stream: Stream| {
        play(async move {
            let (body, _) = stream.read().await;
            stream.answer(200, body);
        })
    })
    .await;
    let lines = Lines { upstream: &format!("{HTTP2}\nejection = false"), ..Lines::default() };
    let gateway = lines.start(&[leaving, origin.address()]).await;
    for _ in 0..4 {
        let answer = http1::post(gateway.address("web"), "/", "order").await;
        assert_eq!((answer.status, answer.text().as_str()), (200, "order"));
    }
    assert_eq!(origin.streams(), 4);
}

#[tokio::test]
async fn a_connection_that_goes_away_ends_its_streams_and_takes_no_new_ones() {
    let release = Arc::new(Notify::new());
    let held = Arc::clone(&release);
    let origin = Origin::start(move |stream: Stream| {
        let release = Arc::clone(&held);
        play(async move {
            if stream.request.uri().path() == "/leave" {
                stream.leave.send(()).unwrap();
                release.notified().await;
            }
            let connection = stream.connection.to_string();
            stream.answer(200, connection);
        })
    })
    .await;
    let gateway = gateway(&[&origin], "").await;
    let address = gateway.address("web");
    let leaving = tokio::spawn(async move { http1::get(address, "/leave").await });
    origin.wait_streams(1).await;
    eventually("another connection", async || (http1::get(address, "/").await.text() == "2").then_some(()))
        .await;
    release.notify_one();
    assert_eq!(leaving.await.unwrap().text(), "1");
}

#[tokio::test]
async fn a_reset_half_way_through_an_answer_shows_as_an_answer_that_is_not_whole() {
    let seen = Arc::new(Semaphore::new(0));
    let half_way = Arc::clone(&seen);
    let origin = Origin::start(move |mut stream: Stream| {
        let half_way = Arc::clone(&half_way);
        play(async move {
            let head = Response::builder().status(200).body(()).unwrap();
            let mut back = stream.respond.send_response(head, false).unwrap();
            back.send_data(Bytes::from_static(b"half"), false).unwrap();
            if stream.request.uri().path() == "/reset" {
                half_way.acquire().await.unwrap().forget();
                back.send_reset(Reason::INTERNAL_ERROR);
            } else {
                back.send_data(Bytes::new(), true).unwrap();
            }
        })
    })
    .await;
    let gateway = gateway(&[&origin], "").await;
    let mut wire = Wire::connect(gateway.address("web")).await;
    wire.send("GET /reset HTTP/1.1\r\nHost: a\r\n\r\n").await;
    wire.head().await;
    seen.add_permits(1);
    assert!(!wire.read_to_end().await.ends_with(b"0\r\n\r\n"), "the answer looks whole");
    assert_eq!(http1::get(gateway.address("web"), "/").await.text(), "half");
    assert_eq!(origin.connections(), 1);
}

#[tokio::test]
async fn a_client_that_leaves_is_told_to_the_endpoint_at_once() {
    let (told, mut resets) = tokio::sync::mpsc::unbounded_channel();
    let origin = Origin::start(move |mut stream: Stream| {
        let told = told.clone();
        play(async move {
            let answers = stream.request.uri().path() == "/body";
            let reason = if answers {
                let head = Response::builder().status(200).body(()).unwrap();
                let mut back = stream.respond.send_response(head, false).unwrap();
                back.send_data(Bytes::from_static(b"x"), false).unwrap();
                std::future::poll_fn(|cx| back.poll_reset(cx)).await
            } else {
                std::future::poll_fn(|cx| stream.respond.poll_reset(cx)).await
            };
            told.send((reason.unwrap(), Instant::now())).unwrap();
        })
    })
    .await;
    let gateway = gateway(&[&origin], "").await;
    for (count, path) in [(1, "/"), (2, "/body")] {
        let mut wire = Wire::connect(gateway.address("web")).await;
        wire.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        origin.wait_streams(count).await;
        if path == "/body" {
            assert_eq!(wire.head().await.status, 200);
        }
        let left = Instant::now();
        drop(wire);
        let (reason, at) = within("a reset", resets.recv()).await.unwrap();
        assert_eq!(reason, Reason::CANCEL, "{path}");
        let took = at.duration_since(left);
        assert!(took < Duration::from_millis(100), "{path}: {took:?}");
    }
}

#[tokio::test]
async fn an_endpoint_that_takes_nothing_of_a_body_runs_out_of_time() {
    let origin = Origin::start(|stream: Stream| {
        play(async move {
            let _held = stream;
            std::future::pending::<()>().await;
        })
    })
    .await;
    let gateway = gateway(&[&origin], "timeouts = { idle = \"200ms\" }").await;
    let answer = http1::post(gateway.address("web"), "/", pattern(3_000_000)).await;
    assert_eq!((answer.status, answer.code().as_str()), (504, "upstream-timeout"));
}

#[tokio::test]
async fn an_endpoint_that_speaks_http_1_is_an_invalid_one() {
    let origin = sluice_testkit::Origin::start(sluice_testkit::Reply::ok("x")).await;
    let gateway = Lines { upstream: HTTP2, ..Lines::default() }.start(&[origin.address()]).await;
    let answer = http1::get(gateway.address("web"), "/").await;
    assert_eq!((answer.status, answer.code().as_str()), (502, "upstream-invalid"));
}

/// Answers an extended CONNECT and echoes what comes.
async fn tunnel(stream: Stream) {
    let protocol = stream.request.extensions().get::<h2::ext::Protocol>().unwrap();
    assert_eq!(protocol.as_str(), "websocket");
    echo(stream).await;
}

const UPGRADE: &str = "GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                       Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

#[tokio::test]
async fn a_websocket_client_of_http_1_reaches_an_endpoint_by_extended_connect() {
    let mut builder = Builder::new();
    builder.enable_connect_protocol();
    let origin = Origin::with(builder, |stream| play(tunnel(stream))).await;
    let lines = Lines { upstream: HTTP2, forward: "upgrade = true", ..Lines::default() };
    let gateway = lines.start(&[origin.address()]).await;
    let mut wire = Wire::connect(gateway.address("web")).await;
    wire.send(UPGRADE).await;
    let switched = wire.head().await;
    assert_eq!((switched.status, switched.field("upgrade")), (101, Some("websocket")));
    assert_eq!(switched.field("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    wire.send("there").await;
    wire.expect("there").await;
    assert_eq!(origin.last().headers["sec-websocket-version"], "13");
    assert!(!origin.last().headers.contains_key("sec-websocket-key"));
    wire.half_close().await;
    wire.expect_closed().await;
}

#[tokio::test]
async fn an_upgrade_is_refused_when_the_endpoint_takes_no_extended_connect() {
    let origin = Origin::start(|stream| play(async move { stream.answer(200, "") })).await;
    let lines = Lines { upstream: HTTP2, forward: "upgrade = true", ..Lines::default() };
    let gateway = lines.start(&[origin.address()]).await;
    let mut wire = Wire::connect(gateway.address("web")).await;
    wire.send(UPGRADE).await;
    let answer = wire.answer().await;
    assert_eq!((answer.status, answer.code().as_str()), (502, "upgrade-refused"));
    assert_eq!(origin.streams(), 0);
}

#[tokio::test]
async fn idle_and_old_connections_are_closed() {
    let origin = Origin::start(|stream| {
        play(async move {
            let connection = stream.connection.to_string();
            stream.answer(200, connection);
        })
    })
    .await;
    let gateway = gateway(&[&origin], "pool = { max_age = \"100ms\" }").await;
    eventually("a second connection", async || {
        (http1::get(gateway.address("web"), "/").await.text() == "2").then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_connection_that_answers_no_ping_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                socket.write_all(SETTINGS).await.unwrap();
                let _ = tokio::io::copy(&mut socket, &mut tokio::io::sink()).await;
            });
        }
    });
    let upstream = format!("{HTTP2}\nhttp2 = {{ ping = \"50ms\", ping_timeout = \"50ms\" }}");
    let gateway = Lines { upstream: &upstream, ..Lines::default() }.start(&[silent]).await;
    let answer = http1::get(gateway.address("web"), "/").await;
    assert_eq!((answer.status, answer.code().as_str()), (502, "upstream-reset"));
}
