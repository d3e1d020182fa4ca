//! HTTP/2 from clients: what HTTP/1 can, on streams.

use bytes::Bytes;
use h2::Reason;
use http::{HeaderMap, Method, Request};
use sluice_testkit::{Gateway, ManualOrigin, Origin, Reply, Script, Signal, Wire, eventually, within};

use super::client::{Client, finish, get, send_all, try_finish};
use crate::forward::gateway;

#[tokio::test]
async fn streams_are_answered_side_by_side_on_one_connection() {
    let origin = Origin::start(Script::each(|request| Reply::ok(request.target.clone()))).await;
    let gateway = gateway(&[origin.address()]).await;
    let mut client = Client::connect(gateway.address("web")).await;
    let mut answers = Vec::new();
    for n in 0..100 {
        answers.push(client.begin(get(&format!("/{n}?q=1")), true).await.0);
    }
    for (n, answer) in answers.into_iter().enumerate() {
        let answer = finish(answer).await;
        assert_eq!((answer.status, answer.text()), (200, format!("/{n}?q=1")));
    }
    assert_eq!(gateway.metric("sluice_listener_connections_total", &["web"]).await, 1.0);
}

#[tokio::test]
async fn the_endpoint_sees_an_http_1_request_with_host_and_one_cookie_line() {
    let origin = Origin::start(Reply::ok("")).await;
    let gateway = gateway(&[origin.address()]).await;
    let mut client = Client::connect(gateway.address("web")).await;
    let request = Request::get("http://shop.example:81/x")
        .header("cookie", "a=1")
        .header("cookie", "b=2")
        .header("te", "trailers")
        .header("x-own", "1")
        .body(())
        .unwrap();
    let (answer, _) = client.begin(request, true).await;
    assert_eq!(finish(answer).await.status, 200);
    let seen = origin.last();
    assert_eq!(seen.field("host"), Some("shop.example:81"));
    assert_eq!(seen.field("cookie"), Some("a=1; b=2"));
    assert_eq!(seen.field("x-own"), Some("1"));
    assert!(seen.field("via").unwrap_or("2 sluice").starts_with('2'), "{:?}", seen.field("via"));
}

#[tokio::test]
async fn bodies_and_trailers_pass_both_ways_whatever_their_size() {
    let origin = Origin::start(Reply::echo()).await;
    let gateway = gateway(&[origin.address()]).await;
    let mut client = Client::connect(gateway.address("web")).await;
    for size in [0, 1, 16 * 1024, 300 * 1024] {
        let body: Vec<u8> = (0..size).map(|n| b'a' + (n % 23) as u8).collect();
        let answer = client.post("/", body.clone()).await;
        let echoed: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(echoed["body"].as_str().unwrap().as_bytes(), &body[..], "{size}");
    }
    origin.set_script(Reply::chunked(["ab", "cd"]).field("Trailer", "X-Sum").trailer("X-Sum", "4"));
    let request = Request::post("http://a.example/").body(()).unwrap();
    let (answer, mut stream) = client.begin(request, false).await;
    let mut trailers = HeaderMap::new();
    trailers.insert("x-in", "2".parse().unwrap());
    send_all(&mut stream, Bytes::from_static(b"hi"), Some(trailers)).await;
    let answer = finish(answer).await;
    assert_eq!(answer.text(), "abcd");
    assert_eq!(answer.trailers.unwrap()["x-sum"], "4");
    let seen = origin.last();
    assert_eq!((seen.text().as_str(), seen.trailers.get("x-in")), ("hi", Some("2")));
}

#[tokio::test]
async fn head_and_answers_without_content_have_none() {
    let origin = Origin::start(Script::each(|request| match request.target.as_str() {
        "/204" => Reply::status(204),
        "/304" => Reply::status(304).field("ETag", "\"x\""),
        _ => Reply::ok("content"),
    }))
    .await;
    let gateway = gateway(&[origin.address()]).await;
    let mut client = Client::connect(gateway.address("web")).await;
    let request = Request::head("http://a.example/").body(()).unwrap();
    let (answer, _) = client.begin(request, true).await;
    let answer = finish(answer).await;
    assert_eq!((answer.field("content-length"), answer.body.len()), (Some("7"), 0));
    for (target, status) in [("/204", 204), ("/304", 304)] {
        let answer = client.get(target).await;
        assert_eq!((answer.status, answer.body.len()), (status, 0));
    }
}

#[tokio::test]
async fn failures_are_problems_and_close_only_their_stream() {
    let origin = Origin::start(Reply::ok("")).await;
    let gateway = gateway(&[origin.address()]).await;
    let mut client = Client::connect(gateway.address("web")).await;
    let (answer, _) = client.begin(get("/%zz"), true).await;
    let answer = finish(answer).await;
    assert_eq!((answer.status, answer.field("content-type")), (400, Some("application/problem+json")));
    assert!(answer.text().contains("bad-request"));
    let many =
        (0..200).fold(Request::get("http://a.example/"), |request, n| request.header(format!("x-{n}"), "1"));
    let (answer, _) = client.begin(many.body(()).unwrap(), true).await;
    assert_eq!(finish(answer).await.status, 431);
    assert_eq!(client.get("/").await.status, 200);
}

#[tokio::test]
async fn a_stream_given_up_by_the_client_is_given_up_at_the_endpoint() {
    let origin = ManualOrigin::start().await;
    let gateway = gateway(&[origin.address()]).await;
    let mut client = Client::connect(gateway.address("web")).await;
    let (answer, mut stream) = client.begin(get("/"), true).await;
    let mut endpoint = origin.accept().await;
    endpoint.request().await;
    stream.send_reset(Reason::CANCEL);
    drop(answer);
    endpoint.expect_closed().await;
    assert_eq!(
        eventually("the failure is counted", async || {
            let gone = gateway.metric("sluice_failures_total", &["client-gone"]).await;
            (gone > 0.0).then_some(gone)
        })
        .await,
        1.0
    );
}

#[tokio::test]
async fn an_endpoint_that_breaks_off_resets_the_stream() {
    let origin = Origin::start(Reply::ok("x".repeat(100_000)).reset_after(50_000)).await;
    let gateway = gateway(&[origin.address()]).await;
    let mut client = Client::connect(gateway.address("web")).await;
    let (answer, _) = client.begin(get("/"), true).await;
    let error = try_finish(answer).await.unwrap_err();
    assert_eq!(error.reason(), Some(Reason::INTERNAL_ERROR));
}

#[tokio::test]
async fn interim_answers_pass() {
    let origin = Origin::start(Reply::ok("").interim(103, &[("Link", "</a>; rel=preload")])).await;
    let gateway = gateway(&[origin.address()]).await;
    let mut client = Client::connect(gateway.address("web")).await;
    let (mut answer, _) = client.begin(get("/"), true).await;
    let early = std::future::poll_fn(|cx| answer.poll_informational(cx));
    let early = within("the early hints", early).await.unwrap().unwrap();
    assert_eq!(
        (early.status().as_u16(), &early.headers()["link"]),
        (103, &"</a>; rel=preload".parse::<http::HeaderValue>().unwrap())
    );
    assert_eq!(finish(answer).await.status, 200);
}

#[tokio::test]
async fn a_drain_says_goaway_and_lets_streams_end() {
    let origin = Origin::start(Reply::ok("late").held()).await;
    let mut gateway = gateway(&[origin.address()]).await;
    let mut client = Client::connect(gateway.address("web")).await;
    let (answer, _) = client.begin(get("/"), true).await;
    origin.wait_held(1).await;
    gateway.signal(Signal::Term).await;
    let mut probe = client.send.clone();
    eventually("no further stream is taken", async || {
        std::future::poll_fn(|cx| std::task::Poll::Ready(probe.poll_ready(cx).is_ready())).await;
        client.send.clone().ready().await.is_err().then_some(())
    })
    .await;
    origin.release();
    assert_eq!(finish(answer).await.text(), "late");
    assert!(gateway.wait_exit().await.success());
}

#[tokio::test]
async fn a_client_that_shuts_its_window_loses_its_stream_only() {
    let origin = Origin::start(Script::each(|request| match request.target.as_str() {
        "/large" => Reply::ok("x".repeat(1_000_000)),
        _ => Reply::ok("small"),
    }))
    .await;
    let gateway = Gateway::start(&format!(
        r#"
        [process]
        admin = {{ address = "127.0.0.1:0" }}
        [listeners.web]
        address = "127.0.0.1:0"
        timeouts = {{ stall = "300ms" }}
        [[routes]]
        name = "all"
        forward = {{ upstream = "origin" }}
        [upstreams.origin]
        endpoints = ["{}"]
        "#,
        origin.address()
    ))
    .await;
    let mut client = Client::connect(gateway.address("web")).await;
    let (answer, _stream) = client.begin(get("/large"), true).await;
    let (_, mut body) = within("a head", answer).await.unwrap().into_parts();
    eventually("the stream is given up", async || {
        let stalled = gateway.metric("sluice_listener_refused_total", &["h2-stalled-window"]).await;
        (stalled == 1.0).then_some(())
    })
    .await;
    let mut read = 0;
    let reason = loop {
        match within("the end of the stream", body.data()).await {
            Some(Ok(piece)) => {
                read += piece.len();
                let _ = body.flow_control().release_capacity(piece.len());
            }
            Some(Err(error)) => break error.reason(),
            None => break None,
        }
    };
    assert!(read < 1_000_000 && reason == Some(Reason::CANCEL), "{read} {reason:?}");
    assert_eq!(client.get("/small").await.text(), "small");
}

#[tokio::test]
async fn an_extended_connect_becomes_a_tunnel_to_an_http_1_endpoint() {
    let origin = ManualOrigin::start().await;
    let gateway = Gateway::start(&format!(
        r#"
        [listeners.web]
        address = "127.0.0.1:0"
        [[routes]]
        name = "all"
        forward = {{ upstream = "origin", upgrade = true }}
        [upstreams.origin]
        endpoints = ["{}"]
        "#,
        origin.address()
    ))
    .await;
    let mut client = Client::connect(gateway.address("web")).await;
    let mut request = Request::builder()
        .method(Method::CONNECT)
        .uri("http://a.example/chat?x=1")
        .header("sec-websocket-version", "13")
        .body(())
        .unwrap();
    request.extensions_mut().insert(h2::ext::Protocol::from_static("websocket"));
    let (answer, mut up) = client.begin(request, false).await;
    let mut endpoint = origin.accept().await;
    let seen = endpoint.request_head().await;
    assert_eq!((seen.method.as_str(), seen.target.as_str()), ("GET", "/chat?x=1"));
    assert_eq!(seen.field("upgrade"), Some("websocket"));
    assert_eq!(seen.field("sec-websocket-version"), Some("13"));
    assert_eq!(seen.field("sec-websocket-key").unwrap().len(), 24);
    endpoint
        .send("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: x\r\nSec-WebSocket-Protocol: p\r\n\r\nhello")
        .await;
    let (head, mut down) = within("the switch", answer).await.unwrap().into_parts();
    assert_eq!(head.status, 200);
    assert_eq!((head.headers.get("sec-websocket-accept"), head.headers.get("upgrade")), (None, None));
    assert_eq!(head.headers["sec-websocket-protocol"], "p");
    assert_eq!(&within("bytes down", down.data()).await.unwrap().unwrap()[..], b"hello");
    send_all(&mut up, Bytes::from_static(b"up"), None).await;
    endpoint.expect("up").await;
    endpoint.expect_closed().await;
    endpoint.send("after").await;
    endpoint.half_close().await;
    assert_eq!(&within("bytes after half-close", down.data()).await.unwrap().unwrap()[..], b"after");
    // The end may come in a frame of its own.
    let mut end = within("the end", down.data()).await;
    if matches!(&end, Some(Ok(bytes)) if bytes.is_empty()) {
        end = within("the end", down.data()).await;
    }
    assert!(end.is_none(), "{end:?}");
}

#[tokio::test]
async fn a_wrong_preface_is_refused_in_the_protocol_that_it_looks_like() {
    let origin = Origin::start(Reply::ok("")).await;
    let gateway = gateway(&[origin.address()]).await;
    let mut wire = Wire::connect(gateway.address("web")).await;
    wire.send("PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n").await;
    wire.read_to_end().await;
    eventually("the refusal in the metrics", async || {
        let refused = gateway.metric("sluice_listener_refused_total", &["h2-bad-preface"]).await;
        (refused == 1.0).then_some(())
    })
    .await;
    let mut wire = Wire::connect(gateway.address("web")).await;
    wire.send("PRI * HTTP/2.0\r\nHost: a\r\n\r\n").await;
    assert_eq!(wire.answer().await.status, 505);
}
