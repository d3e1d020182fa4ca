//! gRPC through the gateway: statuses, deadlines, health.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use sluice_testkit::{Gateway, eventually, free_port, http as http1, within};
use tokio::net::TcpListener;

use super::client::{Answer, Client, finish, send_all};
use super::origin::{Origin, Stream, play};
use crate::setup::Lines;

const HTTP2: &str = "protocol = \"http2\"";

async fn gateway(origin: &Origin, upstream: &str) -> Gateway {
    Lines { upstream: &format!("{HTTP2}\n{upstream}"), ..Lines::default() }.start(&[origin.address()]).await
}

/// A unary call with these fields besides the usual ones.
async fn call(gateway: &Gateway, path: &str, fields: &[(&str, &str)]) -> Answer {
    let mut client = Client::connect(gateway.address("web")).await;
    let mut request = Request::post(format!("http://a.example{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    let (answer, mut stream) = client.begin(request.body(()).unwrap(), false).await;
    send_all(&mut stream, Bytes::from_static(b"\0\0\0\0\0"), None).await;
    finish(answer).await
}

/// The grpc-status, wherever it stands.
fn status(answer: &Answer) -> &str {
    let trailers = answer.trailers.as_ref().and_then(|trailers| trailers.get("grpc-status"));
    answer.field("grpc-status").or(trailers.map(|status| status.to_str().unwrap())).unwrap_or("none")
}

/// Answers with a message and this status in the trailers; without a message for an empty one.
fn reply(mut stream: Stream, message: &'static [u8], status: &str) {
    let head = Response::builder().header("content-type", "application/grpc").body(()).unwrap();
    let mut back = stream.respond.send_response(head, false).unwrap();
    if !message.is_empty() {
        back.send_data(Bytes::from_static(message), false).unwrap();
    }
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", status.parse().unwrap());
    back.send_trailers(trailers).unwrap();
}

#[tokio::test]
async fn a_call_passes_with_its_message_and_its_status() {
    let origin = Origin::start(|stream| play(async move { reply(stream, b"\0\0\0\0\0", "0") })).await;
    let gateway = gateway(&origin, "").await;
    let answer = call(&gateway, "/a.B/C", &[]).await;
    assert_eq!((answer.status, status(&answer), answer.body.len()), (200, "0", 5));
    assert_eq!(origin.last().headers["te"], "trailers");
}

#[tokio::test]
async fn the_endpoint_is_told_the_time_that_is_left() {
    let origin = Origin::start(|stream| play(async move { reply(stream, b"", "0") })).await;
    let gateway = gateway(&origin, "").await;
    call(&gateway, "/a.B/C", &[("grpc-timeout", "30S")]).await;
    let seen = origin.last().headers["grpc-timeout"].to_str().unwrap().to_owned();
    let (number, unit) = seen.split_at(seen.len() - 1);
    let micros = match unit {
        "u" => 1,
        "m" => 1000,
        _ => panic!("{seen}"),
    };
    let left = Duration::from_micros(number.parse::<u64>().unwrap() * micros);
    assert!(left < Duration::from_secs(30) && left > Duration::from_secs(15), "{seen}");
}

#[tokio::test]
async fn a_call_whose_time_is_over_gets_deadline_exceeded() {
    let origin = Origin::start(|stream: Stream| {
        play(async move {
            let _held = stream;
            std::future::pending::<()>().await;
        })
    })
    .await;
    let gateway = gateway(&origin, "").await;
    let began = Instant::now();
    let answer = call(&gateway, "/a.B/C", &[("grpc-timeout", "100m")]).await;
    assert_eq!((answer.status, status(&answer)), (200, "4"));
    assert_eq!(answer.field("content-type"), Some("application/grpc"));
    assert!(began.elapsed() >= Duration::from_millis(100));
}

#[tokio::test]
async fn a_stream_of_messages_ends_with_its_time() {
    let origin = Origin::start(|mut stream: Stream| {
        play(async move {
            let head = Response::builder().header("content-type", "application/grpc").body(()).unwrap();
            let mut back = stream.respond.send_response(head, false).unwrap();
            back.send_data(Bytes::from_static(b"\0\0\0\0\0"), false).unwrap();
            // Until the gateway gives it up.
            let _ = std::future::poll_fn(|cx| back.poll_reset(cx)).await;
        })
    })
    .await;
    let gateway = gateway(&origin, "").await;
    let mut client = Client::connect(gateway.address("web")).await;
    let request = Request::post("http://a.example/a.B/C")
        .header("content-type", "application/grpc")
        .header("grpc-timeout", "300m")
        .body(())
        .unwrap();
    let began = Instant::now();
    let (answer, _) = client.begin(request, true).await;
    let answer = finish(answer).await;
    assert_eq!((answer.status, status(&answer), answer.body.len()), (200, "4", 5), "DEADLINE_EXCEEDED");
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(300) && took < Duration::from_secs(10), "{took:?}");
}

#[tokio::test]
async fn failures_of_the_gateway_are_statuses_of_grpc() {
    let origin = Origin::start(|stream: Stream| {
        play(async move {
            match stream.request.uri().path() {
                "/reset" => stream.reset(h2::Reason::INTERNAL_ERROR),
                "/odd" => stream.fields(200, &[("te", "gzip")]),
                _ => std::future::pending::<()>().await,
            }
        })
    })
    .await;
    let gone = format!("127.0.0.1:{}", free_port());
    let more = format!(
        "[[routes]]\nname = \"gone\"\nmatch = {{ path = \"/gone\", hosts = [\"a.example\"] }}\nforward = {{ upstream = \"gone\" }}\n\
         [[routes]]\nname = \"get\"\nmatch = {{ path = \"/get\", hosts = [\"a.example\"], methods = [\"GET\"] }}\nforward = {{ upstream = \"app\" }}\n\
         [upstreams.gone]\nendpoints = [\"{gone}\"]\nprotocol = \"http2\"\n"
    );
    let lines = Lines {
        route: "match = { path_prefix = \"/\", hosts = [\"a.example\"] }",
        upstream: "protocol = \"http2\"\ntimeouts = { first_byte = \"100ms\" }\nejection = false",
        more: &more,
        ..Lines::default()
    };
    let gateway = lines.start(&[origin.address()]).await;
    for (path, expected) in [("/reset", "14"), ("/gone", "14"), ("/slow", "4")] {
        let answer = call(&gateway, path, &[]).await;
        assert_eq!((answer.status, status(&answer)), (200, expected), "{path}");
        assert!(answer.body.is_empty(), "{path}");
    }
}

#[tokio::test]
async fn a_stream_of_messages_that_breaks_off_ends_with_unavailable() {
    let origin = Origin::start(|mut stream: Stream| {
        play(async move {
            let head = Response::builder().header("content-type", "application/grpc").body(()).unwrap();
            let mut back = stream.respond.send_response(head, false).unwrap();
            back.send_data(Bytes::from_static(b"\0\0\0\0\0"), false).unwrap();
            // The client ends its request when it has the message.
            while let Some(Ok(_)) = stream.request.body_mut().data().await {}
            back.send_reset(h2::Reason::INTERNAL_ERROR);
        })
    })
    .await;
    let gateway = gateway(&origin, "").await;
    let mut client = Client::connect(gateway.address("web")).await;
    let request =
        Request::post("http://a.example/a.B/C").header("content-type", "application/grpc").body(()).unwrap();
    let (answer, mut stream) = client.begin(request, false).await;
    let mut body = within("a head", answer).await.unwrap().into_body();
    assert_eq!(within("a message", body.data()).await.unwrap().unwrap().len(), 5);
    stream.send_data(Bytes::new(), true).unwrap();
    assert!(within("the end", body.data()).await.is_none());
    let trailers = within("trailers", body.trailers()).await.unwrap().unwrap();
    assert_eq!(trailers["grpc-status"], "14");
    eventually("it is counted", async || {
        let failed = gateway.metric("sluice_failures_total", &["code=\"upstream-incomplete\""]).await;
        (failed == 1.0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn calls_that_end_with_unavailable_open_the_breaker_as_5xx_do() {
    for in_trailers in [true, false] {
        let origin = Origin::start(move |stream: Stream| {
            play(async move {
                let fields = [("content-type", "application/grpc"), ("grpc-status", "14")];
                match in_trailers {
                    true => reply(stream, b"", "14"),
                    false => stream.fields(200, &fields),
                }
            })
        })
        .await;
        let gateway = gateway(&origin, "breaker = { consecutive_failures = 3, open_for = \"60s\" }").await;
        eventually("an open breaker", async || {
            let answer = call(&gateway, "/a.B/C", &[]).await;
            assert_eq!(status(&answer), "14");
            answer.field("proxy-status").is_some_and(|status| status.contains("breaker-open")).then_some(())
        })
        .await;
        assert_eq!(origin.streams(), 3);
    }
}

#[tokio::test]
async fn statuses_of_the_application_do_not_open_the_breaker() {
    let origin = Origin::start(|stream| play(async move { reply(stream, b"", "5") })).await;
    let gateway = gateway(&origin, "breaker = { consecutive_failures = 3, open_for = \"60s\" }").await;
    for _ in 0..10 {
        assert_eq!(status(&call(&gateway, "/a.B/C", &[]).await), "5");
    }
    assert_eq!(origin.streams(), 10);
}

#[tokio::test]
async fn grpcs_health_protocol_decides_who_gets_traffic() {
    let (reporter, service) = tonic_health::server::health_reporter();
    reporter.set_service_status("shop", tonic_health::ServingStatus::NotServing).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let incoming = tonic::transport::server::TcpIncoming::from(listener);
    tokio::spawn(tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming));
    let check = "health = { grpc = { service = \"shop\", every = \"20ms\", timeout = \"10s\" } }";
    let lines = Lines { upstream: &format!("{HTTP2}\n{check}"), ..Lines::default() };
    let gateway = lines.start(&[address]).await;
    let code = async || http1::get(gateway.address("web"), "/").await;
    eventually("an unhealthy endpoint", async || (code().await.status == 503).then_some(())).await;
    reporter.set_service_status("shop", tonic_health::ServingStatus::Serving).await;
    eventually("a healthy endpoint", async || (code().await.status != 503).then_some(())).await;
}
