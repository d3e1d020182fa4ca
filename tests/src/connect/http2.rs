//! Targets of `sluice connect` that speak HTTP/2: h2c by prior knowledge, and what TLS agrees on.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, Response};
use sluice_testkit::tls::{Authority, Handshake, Server, server_config};
use sluice_testkit::{
    Gateway, Origin as Http1Origin, Reply, Scratch, Wire, eventually, http as http1, sluice, within,
};
use tonic::codegen::tokio_stream::StreamExt as _;
use tonic::codegen::tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request};

use super::VERSIONS;
use super::child::Connector;
use crate::grpc::{self, Raw, messages, method};
use crate::http2::origin::{Origin, play};

/// A gateway that lets protocols change, and how a connector publishes a route at it.
async fn gateway() -> Gateway {
    Gateway::start(&super::document(0, "").replace("tunnel = {}", "tunnel = { upgrade = true }")).await
}

async fn publish(gateway: &Gateway, (route, target): (&str, &str), more: &[&str]) -> Connector {
    let router = format!("ws://{}", gateway.address("tunnels"));
    let to = ["--router", &router, "--route", route, "--target", target];
    let connector = Connector::launch(&[&to[..], more].concat()).await;
    connector.wait("up").await;
    connector
}

async fn publish_h2c(gateway: &Gateway, target: SocketAddr, version: &str) -> Connector {
    let target = format!("http://{target}");
    publish(gateway, ("shop", &target), &["--target-protocol", "http2", "--version", version]).await
}

#[tokio::test]
async fn grpc_of_every_kind_passes_through_3_0() {
    let (address, seen) = grpc::serve().await;
    let gateway = gateway().await;
    let target = format!("http://{address}");
    let arguments = ["--target-protocol", "http2", "--version", "3.0"];
    let _connector = publish(&gateway, ("test.Echo", &target), &arguments).await;
    let mut client = grpc::client(&gateway).await;

    let mut request = Request::new(Bytes::from_static(b"one"));
    request.metadata_mut().insert("x-tag", "7".parse().unwrap());
    let answer = client.unary(request, method("Each"), Raw).await.unwrap();
    assert_eq!(answer.metadata().get("x-tag").unwrap().to_str().unwrap(), "7");
    assert_eq!(answer.into_inner(), "one");

    // Both ways at once: each message is answered before the next is sent.
    client.ready().await.unwrap();
    let (send, receive) = tokio::sync::mpsc::channel(1);
    let both = Request::new(ReceiverStream::new(receive));
    let mut stream = client.streaming(both, method("Each"), Raw).await.unwrap().into_inner();
    for message in messages(200) {
        send.send(message.clone()).await.unwrap();
        assert_eq!(within("the echo", stream.message()).await.unwrap(), Some(message));
    }
    drop(send);
    assert!(within("the end", stream.next()).await.is_none());

    for code in 1..=16 {
        client.ready().await.unwrap();
        let request = Request::new(Bytes::from(code.to_string()));
        let status = client.unary(request, method("Fail"), Raw).await.unwrap_err();
        assert_eq!((status.code(), status.message()), (Code::from_i32(code), "as asked: 100 % é"));
    }

    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..250 {
        let mut client = client.clone();
        tasks.spawn(async move {
            client.ready().await.unwrap();
            let message = Bytes::from(vec![b'x'; 10_000]);
            let answer = client.unary(Request::new(message.clone()), method("Each"), Raw).await.unwrap();
            assert_eq!(answer.into_inner(), message);
        });
    }
    while let Some(done) = within("all answers", tasks.join_next()).await {
        done.unwrap();
    }
    let connections = seen.connections.load(Ordering::SeqCst);
    assert!(connections <= 4, "{connections} connections to the target");
}

#[tokio::test]
async fn a_call_that_is_cancelled_is_cancelled_at_the_service() {
    let (address, seen) = grpc::serve().await;
    let gateway = gateway().await;
    let target = format!("http://{address}");
    let arguments = ["--target-protocol", "http2", "--version", "3.0"];
    let _connector = publish(&gateway, ("test.Echo", &target), &arguments).await;
    let client = grpc::client(&gateway).await;
    let mut quickest = Duration::MAX;
    for round in 1..=5 {
        let mut client = client.clone();
        let call = tokio::spawn(async move {
            client.ready().await.unwrap();
            let _ = client.unary(Request::new(Bytes::from_static(b"x")), method("Hold"), Raw).await;
        });
        let holding = async || (seen.holding.load(Ordering::SeqCst) == round).then_some(());
        eventually("the call is there", holding).await;
        call.abort();
        let aborted = Instant::now();
        let cancelled = async || (seen.cancelled.load(Ordering::SeqCst) == round).then_some(());
        eventually("the cancellation is there", cancelled).await;
        quickest = quickest.min(aborted.elapsed());
    }
    assert!(quickest < Duration::from_millis(100), "{quickest:?}");
    assert_eq!(seen.connections.load(Ordering::SeqCst), 1, "a cancelled call costs its stream alone");
}

#[tokio::test]
async fn requests_of_every_kind_reach_a_target_that_speaks_http_2() {
    let origin = Origin::start(|mut stream| {
        play(async move {
            let (body, _) = stream.read().await;
            let said = format!("{} {} {}", stream.request.method(), stream.request.uri(), body.len());
            match stream.request.method().as_str() {
                "HEAD" => stream.fields(200, &[("x-said", &said)]),
                _ => stream.answer(203, said),
            }
        })
    })
    .await;
    for version in VERSIONS {
        let gateway = gateway().await;
        let connector = publish_h2c(&gateway, origin.address(), version).await;
        let web = gateway.address("web");
        let fields = [
            ("Host", "shop.example"),
            ("Cookie", "a=b"),
            ("X-A", "1"),
            ("Connection", "X-Hop"),
            ("X-Hop", "2"),
        ];
        for (method, size) in [("GET", 0), ("POST", 300_000), ("PUT", 0), ("DELETE", 0), ("OPTIONS", 0)] {
            let body = vec![b'x'; size];
            let answer = http1::request(web, method, "/shop/a%20b?c=d", &fields, &body).await;
            let expected = format!("{method} http://shop.example/shop/a%20b?c=d {size}");
            assert_eq!((answer.status, answer.text()), (203, expected), "{version}");
        }
        let answer = http1::request(web, "HEAD", "/shop/", &fields, b"").await;
        assert_eq!((answer.status, answer.body.len()), (200, 0));
        let last = origin.last().headers;
        assert_eq!((&last["x-a"], &last["cookie"]), (&"1".parse().unwrap(), &"a=b".parse().unwrap()));
        assert!(!last.contains_key("x-hop") && !last.contains_key("connection"));
        let mut client = Wire::connect(web).await;
        client
            .send(
                "POST /shop/ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
            )
            .await;
        assert!(client.answer().await.text().ends_with(" 3"), "{version}");
        let health = connector.health().await;
        assert_eq!(health["services"]["shop"]["requests"]["target_failed"], 0, "{health:#}");
    }
    assert_eq!(origin.connections(), VERSIONS.len(), "a connector needs one connection");
}

/// More than fits anywhere on the way.
const LARGE: usize = 64 * 1024 * 1024;

/// Sends as much as is taken, and counts it.
async fn pour(mut back: h2::SendStream<Bytes>, counter: &AtomicUsize) {
    while counter.load(Ordering::SeqCst) < LARGE {
        back.reserve_capacity(16 * 1024);
        let Some(Ok(room)) = std::future::poll_fn(|cx| back.poll_capacity(cx)).await else { return };
        counter.fetch_add(room, Ordering::SeqCst);
        let _ = back.send_data(Bytes::from(vec![b'x'; room]), false);
    }
}

#[tokio::test]
async fn what_is_not_taken_is_not_sent_in_either_direction() {
    let sent = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&sent);
    let origin = Origin::start(move |mut stream| {
        let counter = Arc::clone(&counter);
        play(async move {
            if stream.request.method() == http::Method::POST {
                // Takes nothing, and ends when the client has left.
                let _ = std::future::poll_fn(|cx| stream.respond.poll_reset(cx)).await;
                return;
            }
            let back = stream.respond.send_response(Response::new(()), false).unwrap();
            pour(back, &counter).await;
        })
    })
    .await;
    for version in VERSIONS {
        let gateway = gateway().await;
        let _connector = publish_h2c(&gateway, origin.address(), version).await;
        sent.store(0, Ordering::SeqCst);
        let mut idle = Wire::connect(gateway.address("web")).await;
        idle.send("GET /shop/ HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert_eq!(idle.head().await.status, 200);
        let mut uploading = Wire::connect(gateway.address("web")).await;
        uploading.send(format!("POST /shop/ HTTP/1.1\r\nHost: a\r\nContent-Length: {LARGE}\r\n\r\n")).await;
        let (piece, mut taken) = (vec![b'x'; 256 * 1024], 0);
        while let Ok(Ok(())) =
            tokio::time::timeout(Duration::from_millis(500), uploading.try_send(&piece)).await
        {
            taken += piece.len();
            assert!(taken < LARGE / 2, "{version}: nobody stops the upload");
        }
        let sent = sent.load(Ordering::SeqCst);
        assert!(sent < LARGE / 2, "{version}: nobody stops the target: {sent}");
        // Their neighbours on the same connection are not held up.
        origin.wait_streams(2).await;
    }
}

#[tokio::test]
async fn a_target_that_resets_is_502_before_its_answer_and_an_abort_after() {
    let origin = Origin::start(|mut stream| {
        play(async move {
            if stream.request.uri().path() == "/shop/begun" {
                let mut back = stream.respond.send_response(Response::new(()), false).unwrap();
                back.send_data(Bytes::from_static(b"part"), false).unwrap();
                // The reset would overtake what it resets.
                let mut turn = stream.request.into_body();
                let _ = turn.data().await;
                back.send_reset(h2::Reason::INTERNAL_ERROR);
                return;
            }
            stream.reset(h2::Reason::INTERNAL_ERROR);
        })
    })
    .await;
    for version in VERSIONS {
        let gateway = gateway().await;
        let connector = publish_h2c(&gateway, origin.address(), version).await;
        let answer = http1::get(gateway.address("web"), "/shop/").await;
        assert_eq!((answer.status, answer.code().as_str()), (502, "tunnel-target-failed"), "{version}");
        let mut client = Wire::connect(gateway.address("web")).await;
        client.send("POST /shop/begun HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n").await;
        assert_eq!(client.head().await.status, 200);
        client.expect("4\r\npart\r\n").await;
        client.send("a").await;
        let rest = client.try_read_to_end().await.unwrap_or_default();
        assert!(rest.is_empty(), "{version}: {:?}", String::from_utf8_lossy(&rest));
        assert_eq!(connector.health().await["services"]["shop"]["requests"]["running"], 0);
    }
}

#[tokio::test]
async fn a_target_that_goes_away_takes_nothing_with_it() {
    let origin = Origin::start(|stream| {
        play(async move {
            let _ = stream.leave.send(());
            let connection = stream.connection;
            stream.answer(200, connection.to_string());
        })
    })
    .await;
    let gateway = gateway().await;
    let _connector = publish_h2c(&gateway, origin.address(), "3.0").await;
    for turn in 0..50 {
        let answer = http1::post(gateway.address("web"), "/shop/", "x").await;
        assert_eq!(answer.status, 200, "{turn}: {}", answer.text());
    }
    assert!(origin.connections() > 1);
}

#[tokio::test]
async fn a_stream_that_was_refused_is_asked_for_again() {
    let turns = AtomicUsize::new(0);
    let origin = Origin::start(move |stream| {
        let is_first = turns.fetch_add(1, Ordering::SeqCst) == 0;
        play(async move {
            match is_first {
                true => stream.reset(h2::Reason::REFUSED_STREAM),
                false => stream.answer(200, "second"),
            }
        })
    })
    .await;
    let gateway = gateway().await;
    let _connector = publish_h2c(&gateway, origin.address(), "3.0").await;
    assert_eq!(http1::get(gateway.address("web"), "/shop/").await.text(), "second");
}

#[tokio::test]
async fn a_protocol_switch_becomes_an_extended_connect_where_the_target_takes_it() {
    let mut builder = h2::server::Builder::new();
    builder.enable_connect_protocol();
    let origin = Origin::with(builder, |mut stream| {
        play(async move {
            let protocol = stream.request.extensions().get::<h2::ext::Protocol>().cloned();
            assert_eq!(protocol.unwrap().as_str(), "echo");
            let mut back = stream.respond.send_response(Response::new(()), false).unwrap();
            let mut body = stream.request.into_body();
            while let Some(Ok(piece)) = body.data().await {
                let _ = body.flow_control().release_capacity(piece.len());
                back.send_data(piece, false).unwrap();
            }
            back.send_data(Bytes::new(), true).unwrap();
        })
    })
    .await;
    let plain = Origin::start(|stream| play(async move { stream.answer(200, "plain") })).await;
    for version in VERSIONS {
        let gateway = gateway().await;
        let connector = publish_h2c(&gateway, origin.address(), version).await;
        let request = "GET /shop/ HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n";
        let mut client = Wire::connect(gateway.address("web")).await;
        client.send(request).await;
        let answer = client.head().await;
        assert_eq!((answer.status, answer.field("upgrade")), (101, Some("echo")), "{version}");
        client.send("there").await.expect("there").await;
        client.half_close().await.expect_closed().await;
        drop(connector);
        let _connector = publish_h2c(&gateway, plain.address(), version).await;
        let mut client = Wire::connect(gateway.address("web")).await;
        client.send(request).await;
        assert_eq!(client.answer().await.status, 502, "{version}: that target cannot");
    }
}

#[tokio::test]
async fn tls_agrees_on_what_the_target_speaks_unless_the_file_says_it() {
    let (scratch, authority) = (Scratch::new(), Authority::new("Tests"));
    let ca = authority.write(&scratch, "ca.pem").display().to_string();
    let origins = (
        Origin::start(|stream| play(async move { stream.answer(200, "two") })).await,
        Http1Origin::start(Reply::ok("one")).await,
    );
    let server = async |origin: SocketAddr, protocols: &[&str]| {
        let mut config = server_config(&authority.leaf(&["127.0.0.1"]));
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        Server::before(origin, config).await
    };
    let gateway = gateway().await;
    let (two, one) = (origins.0.address(), origins.1.address());
    for (origin, protocols, protocol, expected) in [
        (two, &["h2", "http/1.1"][..], "auto", Some("two")),
        (two, &["h2"], "http2", Some("two")),
        (one, &["http/1.1"], "auto", Some("one")),
        (one, &[], "auto", Some("one")),
        (one, &["h2", "http/1.1"], "http1", Some("one")),
        (one, &["http/1.1"], "http2", None),
    ] {
        let server = server(origin, protocols).await;
        // What is the default is left out.
        let line = match protocol {
            "auto" => String::new(),
            protocol => format!("protocol = \"{protocol}\"\n"),
        };
        let text = format!(
            "routers = [\"ws://{}\"]\nhealth = \"127.0.0.1:0\"\n\n[services.shop]\ntarget = \"https://{}\"\n\
             {line}target_tls = {{ ca = \"{ca}\", sni = \"127.0.0.1\" }}\n",
            gateway.address("tunnels"),
            server.address()
        );
        let path = scratch.write("connector.toml", text).display().to_string();
        let connector = Connector::of(Gateway::launch(&sluice(["connect", &path]), Scratch::new()).await);
        connector.wait("up").await;
        for _ in 0..3 {
            let answer = http1::get(gateway.address("web"), "/shop/").await;
            match expected {
                Some(text) => assert_eq!(answer.text(), text, "{protocols:?} {protocol}"),
                None => assert_eq!(answer.status, 502, "{protocols:?} {protocol}"),
            }
        }
        let handshakes = server.handshakes();
        let is_done = |handshake: &Handshake| matches!(handshake, Handshake::Done { .. });
        assert_eq!(handshakes.iter().filter(|one| is_done(one)).count(), usize::from(expected.is_some()));
    }
}

#[tokio::test]
async fn a_target_that_stays_silent_costs_all_who_wait_for_it_one_deadline() {
    // It accepts, and says nothing: each attempt takes five seconds.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gateway = gateway().await;
    let _connector = publish_h2c(&gateway, silent.local_addr().unwrap(), "3.0").await;
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..10 {
        let web = gateway.address("web");
        tasks.spawn(async move { http1::get(web, "/shop/").await.status });
    }
    while let Some(status) = within("all of them", tasks.join_next()).await {
        assert_eq!(status.unwrap(), 502);
    }
}

#[tokio::test]
async fn trailers_and_an_early_answer_pass_while_an_upload_goes_on() {
    let origin = Origin::start(|mut stream| {
        play(async move {
            let mut back = stream.respond.send_response(Response::new(()), false).unwrap();
            back.send_data(Bytes::from_static(b"early"), false).unwrap();
            let mut body = stream.request.into_body();
            let mut count = 0;
            while let Some(Ok(piece)) = body.data().await {
                let _ = body.flow_control().release_capacity(piece.len());
                count += piece.len();
            }
            let mut trailers = HeaderMap::new();
            trailers.insert("x-count", count.to_string().parse().unwrap());
            back.send_trailers(trailers).unwrap();
        })
    })
    .await;
    let gateway = gateway().await;
    let _connector = publish_h2c(&gateway, origin.address(), "3.0").await;
    let mut client = Wire::connect(gateway.address("web")).await;
    let request = "POST /shop/ HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: TE\r\nContent-Length: 2000000\r\n\r\n";
    client.send(request).await;
    assert_eq!(client.head().await.status, 200);
    client.expect("5\r\nearly\r\n").await;
    client.send(vec![b'x'; 2_000_000]).await;
    client.expect("0\r\nx-count: 2000000\r\n\r\n").await;
}

mod with_peers {
    use sha2::{Digest as _, Sha256};
    use sluice_testkit::{Peer, Script, free_port, own_loopback};

    use super::*;

    #[tokio::test]
    async fn nginx_is_a_target_in_http_2() {
        let echo = Script::each(|request| Reply::ok(request.body.clone()));
        let origin = Http1Origin::start(echo).await;
        let address = SocketAddr::from((own_loopback(), free_port()));
        let server = format!(
            "listen {address} http2;\nclient_max_body_size 100m;\n\
             location / {{ return 200 \"$server_protocol $http_host\"; }}\n\
             location /shop/echo {{ proxy_pass http://{}; }}",
            origin.address()
        );
        let _nginx = Peer::nginx(&server).await;
        let body: Vec<u8> = (0..3_000_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        for version in VERSIONS {
            let gateway = gateway().await;
            let _connector = publish_h2c(&gateway, address, version).await;
            let answer = http1::get_with(gateway.address("web"), "/shop/", &[("Host", "shop.example")]).await;
            assert_eq!(answer.text(), "HTTP/2.0 shop.example", "{version}");
            let answer = http1::post(gateway.address("web"), "/shop/echo", &body).await;
            assert_eq!(Sha256::digest(&answer.body), Sha256::digest(&body), "{version}");
        }
    }
}
