//! How long things may take at an upstream: connect, first_byte, idle, total; and the route's own limit.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use sluice_testkit::{Answer, Gateway, Origin, Reply, Wire, eventually, http};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use super::{App, LOG, lettered, logged};

async fn get(gateway: &Gateway) -> Answer {
    http::get(gateway.address("web"), "/").await
}

/// What the client is told, and how long it took.
async fn told(gateway: &Gateway, method: &str) -> ((u16, String), Duration) {
    let began = Instant::now();
    let body: &[u8] = if method == "POST" { b"x" } else { b"" };
    let answer = http::request(gateway.address("web"), method, "/", &[], body).await;
    ((answer.status, answer.code()), began.elapsed())
}

/// A listener whose queue of connections is full: the next one to connect hears nothing.
struct Full {
    address: SocketAddr,
    _listener: TcpListener,
    _queued: Vec<TcpStream>,
}

impl Full {
    async fn start() -> Full {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(1).unwrap();
        let address = listener.local_addr().unwrap();
        let mut queued = Vec::new();
        // Nobody accepts; what the queue takes is connected at once on loopback.
        while let Ok(connected) =
            tokio::time::timeout(Duration::from_millis(300), TcpStream::connect(address)).await
        {
            queued.push(connected.unwrap());
            assert!(queued.len() < 100, "a queue of one took {} connections", queued.len());
        }
        Full { address, _listener: listener, _queued: queued }
    }
}

#[tokio::test]
async fn connecting_has_a_limit_and_any_request_goes_on_elsewhere() {
    let full = Full::start().await;
    let origin = Origin::start(Reply::ok("B")).await;
    let timeouts = "timeouts = { connect = \"150ms\" }";
    let alone = App::with([format!("\"{}\"", full.address)]).upstream(timeouts).start().await;
    for method in ["GET", "POST"] {
        let (told, took) = told(&alone, method).await;
        assert_eq!(told, (504, "connect-timeout".into()));
        assert!(took >= Duration::from_millis(150) && took < Duration::from_secs(5), "{took:?}");
    }
    let both = [format!("\"{}\"", full.address), format!("\"{}\"", origin.address())];
    let gateway = App::with(both).upstream(timeouts).start().await;
    for _ in 0..2 {
        assert_eq!(http::post(gateway.address("web"), "/", "x").await.text(), "B");
    }
}

#[tokio::test]
async fn the_first_byte_has_a_limit_and_an_idempotent_request_goes_on_elsewhere() {
    let origins = lettered::<2>().await;
    origins[0].set_script(Reply::never());
    let timeouts = "timeouts = { first_byte = \"150ms\" }";
    let alone = App::of(&origins[..1]).upstream(timeouts).start().await;
    for method in ["GET", "POST"] {
        let (told, took) = told(&alone, method).await;
        assert_eq!(told, (504, "upstream-timeout".into()));
        assert!(took >= Duration::from_millis(150) && took < Duration::from_secs(5), "{took:?}");
    }
    origins[0].wait_open(0).await;
    let gateway = App::of(&origins).upstream(timeouts).start().await;
    assert_eq!(get(&gateway).await.text(), "B");
}

#[tokio::test]
async fn a_head_that_dribbles_has_no_more_time_than_a_silent_one() {
    let origin = Origin::start(Reply::ok("x").dribble(1, Duration::from_millis(100))).await;
    let gateway = App::of([&origin]).upstream("timeouts = { first_byte = \"300ms\" }").start().await;
    let (told, took) = told(&gateway, "GET").await;
    // The whole head would take five seconds.
    assert_eq!(told, (504, "upstream-timeout".into()));
    assert!(took < Duration::from_secs(3), "{took:?}");
}

#[tokio::test]
async fn an_answer_that_stalls_ends_after_the_idle_time() {
    let stalls = Reply::raw("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc");
    let origin = Origin::start(stalls).await;
    let gateway = App::of([&origin]).upstream("timeouts = { idle = \"150ms\" }").rest(LOG).start().await;
    let began = Instant::now();
    let mut wire = Wire::connect(gateway.address("web")).await;
    wire.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let received = wire.read_to_end().await;
    assert!(received.ends_with(b"\r\n\r\nabc"), "{:?}", String::from_utf8_lossy(&received));
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(150) && took < Duration::from_secs(5), "{took:?}");
    assert_eq!(logged(&gateway, 1).await[0]["outcome"], "upstream-incomplete");
    origin.wait_open(0).await;
}

#[tokio::test]
async fn an_answer_that_goes_on_slowly_is_not_idle() {
    let origin = Origin::start(Reply::ok("0123456789").dribble(4, Duration::from_millis(60))).await;
    let gateway = App::of([&origin]).upstream("timeouts = { idle = \"1s\" }").start().await;
    let began = Instant::now();
    assert_eq!(get(&gateway).await.text(), "0123456789");
    assert!(began.elapsed() > Duration::from_millis(500), "longer than one pause");
}

#[tokio::test]
async fn an_endpoint_that_takes_no_more_of_the_request_ends_after_the_idle_time() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let gateway =
        App::with([format!("\"{address}\"")]).upstream("timeouts = { idle = \"200ms\" }").start().await;
    let mut wire = Wire::connect(gateway.address("web")).await;
    wire.send("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 500000000\r\n\r\n").await;
    let (_deaf, _) = listener.accept().await.unwrap();
    // Until the buffers on the way are full, and the gateway has given up.
    let chunk = vec![b'z'; 1 << 20];
    let answer = loop {
        tokio::select! {
            answer = wire.answer() => break answer,
            () = tokio::task::yield_now() => {}
        }
        let sent = tokio::time::timeout(Duration::from_millis(50), wire.try_send(&chunk)).await;
        if matches!(sent, Ok(Err(_)) | Err(_)) {
            break wire.answer().await;
        }
    };
    assert_eq!((answer.status, answer.code().as_str()), (504, "upstream-timeout"));
}

#[tokio::test]
async fn an_attempt_has_a_limit_before_its_answer() {
    let origin = Origin::start(Reply::never()).await;
    let gateway = App::of([&origin]).upstream("timeouts = { total = \"150ms\" }").start().await;
    let (told, took) = told(&gateway, "GET").await;
    assert_eq!(told, (504, "upstream-timeout".into()));
    assert!(took >= Duration::from_millis(150) && took < Duration::from_secs(5), "{took:?}");
    origin.wait_open(0).await;
}

#[tokio::test]
async fn an_attempt_has_a_limit_in_its_answer() {
    let slow = Reply::ok(vec![b'x'; 10_000]).dribble(100, Duration::from_millis(20));
    let origin = Origin::start(slow).await;
    let gateway = App::of([&origin]).upstream("timeouts = { total = \"300ms\" }").rest(LOG).start().await;
    let began = Instant::now();
    let mut wire = Wire::connect(gateway.address("web")).await;
    wire.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let received = wire.read_to_end().await;
    assert!(received.len() > 200 && received.len() < 10_000, "{} bytes", received.len());
    assert!(began.elapsed() >= Duration::from_millis(300));
    assert_eq!(logged(&gateway, 1).await[0]["outcome"], "upstream-incomplete");
    origin.wait_open(0).await;
}

#[tokio::test]
async fn a_route_has_a_limit_for_all_attempts_together() {
    let origins = lettered::<3>().await;
    origins.iter().for_each(|origin| origin.set_script(Reply::never()));
    let gateway = App::of(&origins)
        .upstream("timeouts = { first_byte = \"200ms\" }")
        .forward("timeout = \"300ms\", retry = { attempts = 3 }")
        .rest(LOG)
        .start()
        .await;
    let (told, took) = told(&gateway, "GET").await;
    assert_eq!(told, (504, "exchange-timeout".into()));
    assert!(took >= Duration::from_millis(300) && took < Duration::from_secs(5), "{took:?}");
    assert_eq!(logged(&gateway, 1).await[0]["attempts"], 2);
    eventually("no connection left behind", async || {
        origins.iter().all(|origin| origin.open() == 0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_time_of_zero_is_a_problem() {
    let [origin] = lettered::<1>().await;
    let gateway = App::of([&origin]).start().await;
    for key in ["connect", "first_byte", "idle", "total"] {
        let bad = App::of([&origin]).upstream(&format!("timeouts = {{ {key} = \"0s\" }}"));
        let reloaded = gateway.reload(&bad.text()).await;
        assert!(reloaded.status >= 400 && reloaded.body.contains(key), "{key}: {}", reloaded.body);
    }
}
