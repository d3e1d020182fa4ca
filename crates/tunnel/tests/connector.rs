//! Our connector with our gateway's end, over pipes in memory: both versions, whole exchanges, and their ends.

mod gateway;

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use sha2::{Digest as _, Sha256};
use sluice_http::{Body, BodyError, Frame, NameId, Request, RequestHead, Response, ResponseHead, Source};
use sluice_tunnel::Retired;
use sluice_tunnel::connector::{
    Address, Connector, Event, Fixed, Handle, Hooks, Http1, Http1Settings, LocalFuture, NoHooks, Options,
    Parts, Routers, Stopped, Target, TargetFailed,
};
use sluice_tunnel::event::{Answer, Fault, StreamId};
use sluice_tunnel::registration::{Purpose, Version};
use sluice_tunnel::text::Content;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::sync::mpsc;

use gateway::{Gateway, Pipes, Tunnel, soon};

const BOTH: [Version; 2] = [Version::V1, Version::V3];

type Answering = Pin<Box<dyn Future<Output = Result<Response, TargetFailed>>>>;

/// A target that is a function.
struct Function<F>(F);

impl<F: Fn(Request) -> Answering> Target for Function<F> {
    fn call(&self, request: Request) -> LocalFuture<Result<Response, TargetFailed>> {
        (self.0)(request)
    }
}

fn target(answer: impl Fn(Request) -> Answering + 'static) -> Rc<dyn Target> {
    Rc::new(Function(answer))
}

fn text(status: u16, body: &'static str) -> Response {
    let mut head = ResponseHead::new(status);
    head.fields.append(NameId::ContentType, b"text/plain");
    Response { head, body: Body::Full(Bytes::from_static(body.as_bytes())) }
}

fn echo() -> Rc<dyn Target> {
    target(|request| {
        Box::pin(async move {
            let mut head = ResponseHead::new(200);
            head.fields.append(NameId::Server, request.head.target().as_bytes());
            Ok(Response { head, body: request.body })
        })
    })
}

/// A body from a function that is polled.
struct Polled<F>(F);

impl<F: FnMut(&mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>>> Source for Polled<F> {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        (self.0)(cx)
    }

    fn length(&self) -> Option<u64> {
        None
    }
}

fn stream(poll: impl FnMut(&mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> + 'static) -> Body {
    Body::Stream(Box::new(Polled(poll)))
}

fn connector(pipes: Rc<Pipes>, target: Rc<dyn Target>) -> (Connector, Handle) {
    let routers = Rc::new(Fixed(vec!["ws://gateway:9070".parse().expect("an address")]));
    Connector::new(
        Options { window: 1, ..Options::new("my-service") },
        Parts { routers, dial: pipes, target, hooks: Rc::new(NoHooks) },
    )
}

/// Runs a connector beside a test, until that is done.
async fn beside(connector: Connector, test: impl Future<Output = ()>) {
    tokio::select! {
        stopped = connector.run() => panic!("the connector stopped: {stopped:?}"),
        () = test => {}
    }
}

fn get() -> RequestHead {
    let mut head = RequestHead::new("GET", "/x?y");
    head.fields.append(NameId::Host, b"service");
    head
}

fn post() -> RequestHead {
    let mut head = get();
    head.set_method("POST");
    head
}

#[tokio::test]
async fn a_get_is_answered_in_both_versions() {
    for version in BOTH {
        let (mut gateway, pipes) = Gateway::new(&[version]);
        let answers = target(|request| {
            assert_eq!((request.head.target(), request.body.is_empty()), ("/x?y", true));
            Box::pin(async { Ok(text(201, "hello")) })
        });
        let (connector, handle) = connector(pipes, answers);
        beside(connector, async {
            let mut tunnel = gateway.tunnel().await;
            assert_eq!(tunnel.end.version(), version);
            let id = tunnel.request(&get(), Content::None);
            let (head, content) = tunnel.answer(id).await;
            assert_eq!((head.status, &content[..]), (201, &b"hello"[..]));
            assert_eq!(head.fields.get(NameId::ContentType), Some(&b"text/plain"[..]));
            assert_eq!(handle.routers()[0].failures, 0);
        })
        .await;
    }
}

#[tokio::test]
async fn a_used_tunnel_of_1_0_is_replaced_at_once() {
    let (mut gateway, pipes) = Gateway::new(&[Version::V1]);
    let never = target(|_| Box::pin(std::future::pending()));
    let (connector, handle) = connector(pipes, never);
    beside(connector, async {
        let mut tunnels = Vec::new();
        for _ in 0..5 {
            let mut tunnel = gateway.tunnel().await;
            tunnel.request(&get(), Content::None);
            tunnel.flush().await;
            tunnels.push(tunnel);
        }
        gateway.tunnel().await;
        assert_eq!(handle.routers()[0].busy, 5);
    })
    .await;
}

#[tokio::test]
async fn a_large_body_passes_both_ways_at_once_unchanged() {
    for version in BOTH {
        let (mut gateway, pipes) = Gateway::new(&[version]);
        let (connector, _handle) = connector(pipes, echo());
        beside(connector, async {
            let mut tunnel = gateway.tunnel().await;
            let mut random = fastrand::Rng::with_seed(5);
            let content: Bytes = std::iter::repeat_with(|| random.u8(..)).take(6_000_000).collect();
            let id = tunnel.request(&post(), Content::Length(content.len() as u64));
            let mut hash = Sha256::new();
            tunnel.upload(id, content.clone(), |bytes| hash.update(&bytes)).await;
            assert_eq!(hash.finalize(), Sha256::digest(&content));
        })
        .await;
    }
}

/// Counts those that are alive.
struct Alive(Rc<Cell<i32>>);

impl Alive {
    fn new(count: &Rc<Cell<i32>>) -> Alive {
        count.set(count.get() + 1);
        Alive(Rc::clone(count))
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

async fn until(mut is_true: impl FnMut() -> bool) {
    soon(async {
        while !is_true() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// A target that never answers, or never goes on after the head; and how many of its calls are alive.
fn slow(has_head: bool) -> (Rc<dyn Target>, Rc<Cell<i32>>) {
    let count = Rc::new(Cell::new(0));
    let alive = Rc::clone(&count);
    let slow = target(move |_| {
        let mine = Alive::new(&alive);
        Box::pin(async move {
            if !has_head {
                std::future::pending::<()>().await;
            }
            let body = stream(move |_| {
                let _ = &mine;
                Poll::Pending
            });
            Ok(Response { head: ResponseHead::new(200), body })
        })
    });
    (slow, count)
}

#[tokio::test]
async fn a_client_that_goes_cancels_the_call_before_and_after_the_head() {
    for (version, has_head) in BOTH.into_iter().flat_map(|version| [(version, false), (version, true)]) {
        let (mut gateway, pipes) = Gateway::new(&[version]);
        let (target, alive) = slow(has_head);
        let (connector, _handle) = connector(pipes, target);
        beside(connector, async {
            let mut tunnel = gateway.tunnel().await;
            let id = tunnel.request(&get(), Content::None);
            if has_head {
                assert!(matches!(tunnel.next().await, Answer::Head(..)));
            }
            tunnel.flush().await;
            until(|| alive.get() == 1).await;
            let now = tunnel.now();
            tunnel.end.reset(id, "Client early closed", now);
            tunnel.flush().await;
            until(|| alive.get() == 0).await;
        })
        .await;
    }
}

#[tokio::test]
async fn a_broken_tunnel_cancels_its_calls() {
    for version in BOTH {
        let (mut gateway, pipes) = Gateway::new(&[version]);
        let (target, alive) = slow(true);
        let (connector, _handle) = connector(pipes, target);
        beside(connector, async {
            let mut tunnel = gateway.tunnel().await;
            tunnel.request(&get(), Content::None);
            assert!(matches!(tunnel.next().await, Answer::Head(..)));
            tunnel.drop_connection();
            until(|| alive.get() == 0).await;
        })
        .await;
    }
}

/// The first call finds nobody, the second a bug, the third half an answer.
async fn die(call: u32) -> Result<Response, TargetFailed> {
    match call {
        1 => Err(TargetFailed::Unreachable),
        2 => panic!("a bug in a target"),
        _ => {
            let part = Ok(Frame::Data(Bytes::from_static(b"part")));
            let mut pieces = vec![Err(BodyError::Incomplete), part];
            let body = stream(move |_| Poll::Ready(pieces.pop()));
            Ok(Response { head: ResponseHead::new(200), body })
        }
    }
}

#[tokio::test]
async fn a_target_that_dies_is_a_fault_before_and_after_the_head() {
    for version in BOTH {
        let (mut gateway, pipes) = Gateway::new(&[version]);
        let count = Cell::new(0);
        let dying = target(move |_| {
            count.set(count.get() + 1);
            Box::pin(die(count.get()))
        });
        let (connector, _handle) = connector(pipes, dying);
        beside(connector, async {
            let mut tunnel = gateway.tunnel().await;
            for _ in 0..2 {
                let id = tunnel.request(&get(), Content::None);
                assert!(matches!(tunnel.of(id).await, Answer::Failed(_, Fault::ConnectorFailed)));
                tunnel = gateway.after(tunnel).await;
            }
            let id = tunnel.request(&get(), Content::None);
            assert!(matches!(tunnel.of(id).await, Answer::Head(..)));
            assert!(matches!(tunnel.of(id).await, Answer::Data(_, bytes) if bytes == "part"));
            assert!(matches!(tunnel.of(id).await, Answer::Failed(_, Fault::ConnectorFailed)));
        })
        .await;
    }
}

#[tokio::test]
async fn a_stalled_stream_holds_up_no_other() {
    let (mut gateway, pipes) = Gateway::new(&[Version::V3]);
    let sent = Rc::new(Cell::new(0));
    let counter = Rc::clone(&sent);
    let answers = target(move |request| {
        let counter = Rc::clone(&counter);
        if request.head.target() != "/endless" {
            return Box::pin(async { Ok(text(200, "quick")) });
        }
        let body = stream(move |_| {
            counter.set(counter.get() + 10_000);
            Poll::Ready(Some(Ok(Frame::Data(Bytes::from(vec![0; 10_000])))))
        });
        Box::pin(async { Ok(Response { head: ResponseHead::new(200), body }) })
    });
    let (connector, _handle) = connector(pipes, answers);
    beside(connector, async {
        let mut tunnel = gateway.tunnel().await;
        let mut endless = get();
        endless.set_target("/endless");
        tunnel.request(&endless, Content::None);
        for _ in 0..50 {
            let id = tunnel.request(&get(), Content::None);
            assert_eq!(tunnel.answer(id).await.1, b"quick");
        }
        // 64 KiB without an acknowledgement, and the piece in hand.
        assert_eq!(sent.get(), 70_000);
    })
    .await;
}

#[tokio::test]
async fn a_target_that_does_not_read_stalls_only_its_upload() {
    let (mut gateway, pipes) = Gateway::new(&[Version::V3]);
    let held = Rc::new(RefCell::new(Vec::new()));
    let keep = Rc::clone(&held);
    let answers = target(move |request| {
        if request.head.target() == "/x?y" {
            return Box::pin(async { Ok(text(200, "quick")) });
        }
        keep.borrow_mut().push(request);
        Box::pin(std::future::pending())
    });
    let (connector, _handle) = connector(pipes, answers);
    beside(connector, async {
        let mut tunnel = gateway.tunnel().await;
        let mut stuck = post();
        stuck.set_target("/stuck");
        let slow = tunnel.request(&stuck, Content::Unknown);
        let mut sent = 0;
        while tunnel.end.may_send(slow) {
            let now = tunnel.now();
            tunnel.end.data(slow, Bytes::from(vec![0; 8192]), now);
            sent += 8192;
        }
        for _ in 0..10 {
            let id = tunnel.request(&get(), Content::None);
            assert_eq!(tunnel.answer(id).await.1, b"quick");
        }
        assert!(!tunnel.end.may_send(slow));
        // The target goes on: the sender hears of it.
        let mut request = held.borrow_mut().pop().unwrap();
        let mut read = 0;
        while read < sent {
            let Some(Ok(Frame::Data(bytes))) = soon(poll_fn(|cx| request.body.poll_frame(cx))).await else {
                panic!("no content")
            };
            read += bytes.len();
        }
        assert!(matches!(tunnel.of(slow).await, Answer::Resumed(_)));
    })
    .await;
}

#[tokio::test]
async fn two_hundred_exchanges_run_at_a_time() {
    let (mut gateway, pipes) = Gateway::new(&[Version::V3]);
    let (connector, _handle) = connector(pipes, echo());
    beside(connector, async {
        let mut tunnel = gateway.tunnel().await;
        let ids: Vec<StreamId> = (0..200).map(|_| tunnel.request(&post(), Content::Unknown)).collect();
        let mut heads = 0;
        while heads < 200 {
            heads += usize::from(matches!(tunnel.next().await, Answer::Head(..)));
        }
        for id in &ids {
            let now = tunnel.now();
            tunnel.end.data(*id, Bytes::from(vec![1; 1000]), now);
            tunnel.end.end(*id, now);
        }
        let (mut bytes, mut ends) = (0, 0);
        while ends < 200 {
            match tunnel.next().await {
                Answer::Data(_, data) => bytes += data.len(),
                Answer::End(_) => ends += 1,
                other => panic!("{other:?}"),
            }
        }
        assert_eq!((bytes, tunnel.end.count()), (200_000, 0));
    })
    .await;
}

#[tokio::test]
async fn a_lost_tunnel_is_opened_again() {
    for version in BOTH {
        let (mut gateway, pipes) = Gateway::new(&[version]);
        let (connector, _handle) = connector(pipes, echo());
        beside(connector, async {
            for _ in 0..2 {
                gateway.tunnel().await.drop_connection();
            }
            let mut tunnel = gateway.tunnel().await;
            let id = tunnel.request(&get(), Content::None);
            assert_eq!(tunnel.answer(id).await.0.status, 200);
        })
        .await;
    }
}

/// Answers a deregistration as a gateway does: what is idle closes first.
async fn deregistered(gateway: &mut Gateway, tunnels: &mut [Tunnel]) -> Vec<Retired> {
    let (registration, farewell) = gateway.accept().await;
    assert_eq!(
        (registration.purpose, registration.route.as_deref()),
        (Purpose::Deregister, Some("my-service"))
    );
    let mut retired = Vec::new();
    for tunnel in tunnels {
        retired.push(tunnel.retire().await);
    }
    farewell.farewell().await;
    retired
}

#[tokio::test]
async fn a_stop_deregisters_and_waits_for_what_runs() {
    for version in BOTH {
        let (mut gateway, pipes) = Gateway::new(&[version]);
        let (connector, handle) = connector(pipes, echo());
        let test = async {
            let mut busy = gateway.tunnel().await;
            let id = busy.request(&post(), Content::Unknown);
            assert!(matches!(busy.of(id).await, Answer::Head(..)));
            let mut tunnels = vec![busy];
            if version == Version::V1 {
                tunnels.push(gateway.tunnel().await);
            }
            let stopping = handle.stop(Duration::from_secs(30));
            let (stopped, ()) = tokio::join!(stopping, drained(&mut gateway, tunnels, id));
            assert_eq!(stopped, Stopped::Drained);
        };
        let (stopped, ()) = soon(async { tokio::join!(connector.run(), test) }).await;
        assert_eq!(stopped, Stopped::Drained);
    }
}

/// The first tunnel is busy with this exchange, the others are idle.
async fn drained(gateway: &mut Gateway, mut tunnels: Vec<Tunnel>, id: StreamId) {
    let retired = deregistered(gateway, &mut tunnels).await;
    assert_eq!(retired[0], Retired::Busy);
    assert!(retired[1..].iter().all(|it| *it == Retired::Closed));
    for idle in &mut tunnels[1..] {
        idle.closed().await;
    }
    let busy = &mut tunnels[0];
    let now = busy.now();
    busy.end.data(id, Bytes::from_static(b"late"), now);
    busy.end.end(id, now);
    assert_eq!(soon(rest(busy, id)).await, b"late");
    busy.closed().await;
}

/// The content that is still to come.
async fn rest(tunnel: &mut Tunnel, id: StreamId) -> Vec<u8> {
    let mut content = Vec::new();
    loop {
        match tunnel.of(id).await {
            Answer::Data(_, bytes) => content.extend_from_slice(&bytes),
            Answer::End(_) => return content,
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_tunnel_that_is_being_opened_is_waited_for_before_the_gateway_is_told() {
    for version in BOTH {
        let (mut gateway, pipes) = Gateway::new(&[version]);
        let (connector, handle) = connector(Rc::clone(&pipes), echo());
        let test = async {
            // Announced, and not answered yet.
            let announced = soon(gateway.dialled.recv()).await.expect("a connector");
            let serving = async {
                let early = tokio::time::timeout(Duration::from_millis(20), gateway.dialled.recv()).await;
                assert!(early.is_err(), "told too early");
                pipes.0.send(announced).expect("no surprise");
                let mut tunnels = vec![gateway.tunnel().await];
                assert_eq!(deregistered(&mut gateway, &mut tunnels).await, [Retired::Closed]);
                tunnels[0].closed().await;
            };
            let (stopped, ()) = tokio::join!(handle.stop(Duration::from_secs(30)), serving);
            assert_eq!(stopped, Stopped::Drained);
        };
        soon(async { tokio::join!(connector.run(), test) }).await;
    }
}

#[tokio::test]
async fn a_stop_survives_a_gateway_that_knows_no_deregistration() {
    let (mut gateway, pipes) = Gateway::new(&[Version::V3]);
    let (connector, handle) = connector(pipes, echo());
    let test = async {
        let mut tunnel = gateway.tunnel().await;
        let stopping = handle.stop(Duration::from_secs(30));
        let serving = async {
            drop(soon(gateway.dialled.recv()).await);
            // Nobody closes the idle tunnel, so its connector does.
            tunnel.closed().await;
        };
        let (stopped, ()) = tokio::join!(stopping, serving);
        assert_eq!(stopped, Stopped::Drained);
    };
    soon(async { tokio::join!(connector.run(), test) }).await;
}

#[tokio::test]
async fn a_stop_that_takes_too_long_cuts_off() {
    let (mut gateway, pipes) = Gateway::new(&[Version::V3]);
    let (connector, handle) = connector(pipes, target(|_| Box::pin(std::future::pending())));
    let test = async {
        let mut tunnel = gateway.tunnel().await;
        let id = tunnel.request(&get(), Content::None);
        tunnel.flush().await;
        let stopping = handle.stop(Duration::from_millis(50));
        let serving = async {
            drop(soon(gateway.dialled.recv()).await);
            assert!(matches!(tunnel.of(id).await, Answer::Failed(_, Fault::GoneAway)));
        };
        let (stopped, ()) = tokio::join!(stopping, serving);
        assert_eq!(stopped, Stopped::TimedOut);
    };
    soon(async { tokio::join!(connector.run(), test) }).await;
}

/// An HTTP/1.1 target behind a connector, and the connections it gets.
fn http1() -> (Rc<dyn Target>, mpsc::UnboundedReceiver<DuplexStream>) {
    let (sender, dialled) = mpsc::unbounded_channel();
    let address = "http://service:5000".parse().expect("an address");
    (Rc::new(Http1::new(address, Rc::new(Pipes(sender)), Http1Settings::default())), dialled)
}

/// Reads until this was read; gives everything.
async fn read_until(stream: &mut DuplexStream, end: &str) -> String {
    let mut buf = BytesMut::new();
    while !buf.ends_with(end.as_bytes()) {
        assert_ne!(soon(stream.read_buf(&mut buf)).await.ok(), Some(0), "{buf:?}");
    }
    String::from_utf8_lossy(&buf).into_owned()
}

#[tokio::test]
async fn an_http1_target_keeps_its_connection_and_streams() {
    for version in BOTH {
        let (mut gateway, pipes) = Gateway::new(&[version]);
        let (service, mut dialled) = http1();
        let (connector, _handle) = connector(pipes, service);
        beside(connector, async {
            let mut tunnel = gateway.tunnel().await;
            let id = tunnel.request(&get(), Content::None);
            tunnel.flush().await;
            let mut origin = soon(dialled.recv()).await.unwrap();
            let head = read_until(&mut origin, "\r\n\r\n").await;
            assert_eq!(head, "GET /x?y HTTP/1.1\r\nHost: service\r\n\r\n");
            let answer = "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
            origin.write_all(answer.as_bytes()).await.unwrap();
            let (head, content) = tunnel.answer(id).await;
            assert_eq!((head.fields.get(NameId::ContentLength), &content[..]), (Some(&b"2"[..]), &b"ok"[..]));
            tunnel = gateway.after(tunnel).await;
            let id = tunnel.request(&get(), Content::None);
            tunnel.flush().await;
            read_until(&mut origin, "\r\n\r\n").await;
            origin
                .write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n")
                .await
                .unwrap();
            assert!(matches!(tunnel.of(id).await, Answer::Head(..)));
            assert!(matches!(tunnel.of(id).await, Answer::Data(_, bytes) if bytes == "a"));
            origin.write_all(b"1\r\nb\r\n0\r\n\r\n").await.unwrap();
            assert_eq!(rest(&mut tunnel, id).await, b"b");
            assert!(dialled.try_recv().is_err(), "one connection is enough");
        })
        .await;
    }
}

#[tokio::test]
async fn an_http1_target_that_closes_early_is_a_fault() {
    let (mut gateway, pipes) = Gateway::new(&[Version::V3]);
    let (service, mut dialled) = http1();
    let (connector, _handle) = connector(pipes, service);
    beside(connector, async {
        let mut tunnel = gateway.tunnel().await;
        let id = tunnel.request(&post(), Content::Unknown);
        let now = tunnel.now();
        tunnel.end.data(id, Bytes::from_static(b"abc"), now);
        tunnel.flush().await;
        let mut origin = soon(dialled.recv()).await.unwrap();
        let sent = read_until(&mut origin, "\r\n3\r\nabc\r\n").await;
        assert!(sent.contains("Transfer-Encoding: chunked"), "{sent}");
        origin.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc").await.unwrap();
        assert!(matches!(tunnel.of(id).await, Answer::Head(..)));
        assert!(matches!(tunnel.of(id).await, Answer::Data(..)));
        drop(origin);
        assert!(matches!(tunnel.of(id).await, Answer::Failed(_, Fault::ConnectorFailed)));
        // Where nothing listens.
        dialled.close();
        let id = tunnel.request(&get(), Content::None);
        assert!(matches!(tunnel.of(id).await, Answer::Failed(_, Fault::ConnectorFailed)));
    })
    .await;
}

#[tokio::test]
async fn a_protocol_change_passes_bytes_both_ways() {
    for version in BOTH {
        let (mut gateway, pipes) = Gateway::new(&[version]);
        let (service, mut dialled) = http1();
        let (connector, _handle) = connector(pipes, service);
        beside(connector, async {
            let mut tunnel = gateway.tunnel().await;
            let mut request = get();
            request.fields.append(NameId::Connection, b"Upgrade");
            request.fields.append(NameId::Upgrade, b"websocket");
            let id = tunnel.request(&request, Content::None);
            let now = tunnel.now();
            tunnel.end.data(id, Bytes::from_static(b"early"), now);
            tunnel.flush().await;
            let mut origin = soon(dialled.recv()).await.unwrap();
            let head = read_until(&mut origin, "\r\n\r\n").await;
            assert!(head.contains("Upgrade: websocket\r\n"), "{head}");
            origin
                .write_all(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhi")
                .await
                .unwrap();
            let Answer::Head(_, head) = tunnel.of(id).await else { panic!("no head") };
            assert_eq!((head.status, head.fields.get(NameId::Upgrade)), (101, Some(&b"websocket"[..])));
            assert!(matches!(tunnel.of(id).await, Answer::Data(_, bytes) if bytes == "hi"));
            assert_eq!(read_until(&mut origin, "early").await, "early");
            let now = tunnel.now();
            tunnel.end.end(id, now);
            tunnel.flush().await;
            let mut nothing = BytesMut::new();
            assert_eq!(soon(origin.read_buf(&mut nothing)).await.unwrap(), 0);
            drop(origin);
            assert!(matches!(tunnel.of(id).await, Answer::End(_)));
        })
        .await;
    }
}

#[tokio::test]
async fn in_1_0_a_target_that_does_not_read_stops_the_tunnel_and_nothing_piles_up() {
    let (mut gateway, pipes) = Gateway::new(&[Version::V1]);
    let held = Rc::new(RefCell::new(Vec::new()));
    let keep = Rc::clone(&held);
    let answers = target(move |request| {
        keep.borrow_mut().push(request);
        Box::pin(std::future::pending())
    });
    let (connector, _handle) = connector(pipes, answers);
    beside(connector, async {
        let mut tunnel = gateway.tunnel().await;
        let id = tunnel.request(&post(), Content::Unknown);
        let mut left = 4_000_000;
        let now = tunnel.now();
        tunnel.end.data(id, Bytes::from(vec![7; left]), now);
        until(|| {
            tunnel.try_write();
            !held.borrow().is_empty()
        })
        .await;
        // Whatever time passes, no more leaves than the pipe, the inbox and one read hold.
        for _ in 0..2000 {
            tunnel.try_write();
            tokio::task::yield_now().await;
        }
        let sent = left + 500 * 4 - tunnel.waiting();
        assert!(sent < 64 * 1024 + 64 * 1024 + 32 * 1024, "{sent}");
        let mut request = held.borrow_mut().pop().expect("a request");
        while left > 0 {
            tunnel.try_write();
            let frame = tokio::time::timeout(Duration::from_millis(1), request.body.frame());
            if let Ok(Some(Ok(Frame::Data(bytes)))) = frame.await {
                assert!(bytes.iter().all(|byte| *byte == 7));
                left -= bytes.len();
            }
        }
    })
    .await;
}

/// Hooks that add a token, change the path, count, and panic when told.
#[derive(Default)]
struct Loud {
    log: RefCell<Vec<String>>,
    panics: Cell<bool>,
}

impl Hooks for Loud {
    fn register(&self, router: &Address, head: &mut RequestHead) {
        assert!(!self.panics.replace(false), "a bug in a hook");
        head.fields.set(NameId::Authorization, router.host.as_bytes());
    }

    fn request(&self, _: &Address, head: &mut RequestHead) {
        head.set_target("/changed");
    }

    fn event(&self, event: &Event<'_>) {
        let word = match event {
            Event::RoutersChanged { added, removed, unchanged } => {
                format!("+{} -{} ={}", added.len(), removed.len(), unchanged.len())
            }
            Event::Opened(router, version) => format!("{} {version}", router.host),
            Event::OpenFailed(_, error) => error.to_string(),
            Event::TargetFailed { router, target, failed } => format!("{} {target} {failed}", router.host),
            _ => return,
        };
        self.log.borrow_mut().push(word);
    }
}

/// A list of gateways that a test changes.
struct Changing(Rc<RefCell<Vec<&'static str>>>);

impl Routers for Changing {
    fn routers(&self) -> LocalFuture<std::io::Result<Vec<Address>>> {
        let list =
            self.0.borrow().iter().map(|host| format!("ws://{host}").parse()).collect::<Result<_, _>>();
        Box::pin(async move { Ok(list.expect("addresses")) })
    }
}

#[tokio::test]
async fn hooks_take_part_and_may_panic() {
    let (mut gateway, pipes) = Gateway::new(&[Version::V3]);
    let hooks = Rc::new(Loud::default());
    hooks.panics.set(true);
    let routers = Rc::new(Fixed(vec!["ws://gateway".parse().unwrap()]));
    let (connector, _handle) = Connector::new(
        Options { window: 1, ..Options::new("*") },
        Parts { routers, dial: pipes, target: echo(), hooks: Rc::clone(&hooks) as Rc<dyn Hooks> },
    );
    beside(connector, async {
        // The first attempt panicked; its connection was made and dropped.
        drop(soon(gateway.dialled.recv()).await);
        let (registration, mut tunnel) = gateway.accept().await;
        assert_eq!((registration.route, registration.domain), (None, None));
        let id = tunnel.request(&get(), Content::None);
        assert_eq!(tunnel.answer(id).await.0.fields.get(NameId::Server), Some(&b"/changed"[..]));
        assert_eq!(hooks.log.borrow()[..], ["+1 -0 =0".to_owned(), "gateway 3.0".to_owned()]);
    })
    .await;
}

#[tokio::test]
async fn hooks_are_told_which_request_a_target_failed_at() {
    let (mut gateway, pipes) = Gateway::new(&[Version::V3]);
    let hooks = Rc::new(Loud::default());
    let routers = Rc::new(Fixed(vec!["ws://gateway".parse().unwrap()]));
    let (connector, _handle) = Connector::new(
        Options { window: 1, ..Options::new("*") },
        Parts {
            routers,
            dial: pipes,
            target: target(|_| Box::pin(die(1))),
            hooks: Rc::clone(&hooks) as Rc<dyn Hooks>,
        },
    );
    beside(connector, async {
        let mut tunnel = gateway.tunnel().await;
        tunnel.request(&get(), Content::None);
        assert!(matches!(tunnel.next().await, Answer::Failed(..)));
        assert_eq!(hooks.log.borrow().last().map(String::as_str), Some("gateway /changed no connection"));
    })
    .await;
}

#[tokio::test]
async fn gateways_come_and_go() {
    let (mut gateway, pipes) = Gateway::new(&[Version::V3]);
    let (hooks, list) = (Rc::new(Loud::default()), Rc::new(RefCell::new(vec!["a", "b", "a"])));
    let (connector, handle) = Connector::new(
        Options { window: 1, refresh: Duration::from_millis(20), ..Options::new("*") },
        Parts {
            routers: Rc::new(Changing(Rc::clone(&list))),
            dial: pipes,
            target: echo(),
            hooks: Rc::clone(&hooks) as Rc<dyn Hooks>,
        },
    );
    beside(connector, async {
        let mut tunnels = [gateway.tunnel().await, gateway.tunnel().await];
        list.replace(vec!["b", "c"]);
        // The new one registers and the old one deregisters, in any order.
        let purposes =
            [gateway.accept().await, gateway.accept().await].map(|(found, tunnel)| (found.purpose, tunnel));
        assert!(purposes.iter().any(|(purpose, _)| *purpose == Purpose::Deregister));
        for (purpose, tunnel) in purposes {
            if purpose == Purpose::Deregister {
                tunnel.farewell().await;
            }
        }
        // The gateway does not close what is idle: the connector does.
        tunnels[0].closed().await;
        until(|| handle.routers().len() == 2).await;
        let mut hosts: Vec<_> = handle.routers().into_iter().map(|router| router.address.host).collect();
        hosts.sort();
        assert_eq!(hosts, ["b", "c"]);
        assert!(hooks.log.borrow().contains(&"+1 -1 =1".to_owned()));
    })
    .await;
}

#[tokio::test]
async fn a_gateway_that_refuses_is_tried_again_one_tunnel_at_a_time() {
    let (mut gateway, pipes) = Gateway::new(&[Version::V3]);
    let hooks = Rc::new(Loud::default());
    let routers = Rc::new(Fixed(vec!["ws://gateway".parse().unwrap()]));
    let (connector, handle) = Connector::new(
        Options { window: 3, ..Options::new("*") },
        Parts { routers, dial: pipes, target: echo(), hooks: Rc::clone(&hooks) as Rc<dyn Hooks> },
    );
    beside(connector, async {
        for _ in 0..3 {
            let mut refused = soon(gateway.dialled.recv()).await.unwrap();
            read_until(&mut refused, "\r\n\r\n").await;
            refused.write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n").await.unwrap();
        }
        until(|| handle.routers().first().is_some_and(|router| router.failures == 3)).await;
        assert_eq!(handle.routers()[0].last_error.as_deref(), Some("the gateway answered 403"));
        let mut again = soon(gateway.dialled.recv()).await.unwrap();
        read_until(&mut again, "\r\n\r\n").await;
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert!(gateway.dialled.try_recv().is_err(), "one at a time");
        drop(again);
        let _tunnels = [gateway.tunnel().await, gateway.tunnel().await, gateway.tunnel().await];
    })
    .await;
}
