//! gRPC with tonic on both sides: every kind of call, statuses, deadlines, cancellation, many calls.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::{Buf, BufMut, Bytes};
use sluice_testkit::{Gateway, Wire, eventually, within};
use tokio::net::TcpListener;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::codegen::tokio_stream::wrappers::ReceiverStream;
use tonic::codegen::tokio_stream::{self, Stream, StreamExt as _};
use tonic::codegen::{BoxFuture, Service, http};
use tonic::{Code, Request, Response, Status};

/// Messages are bytes: nothing here depends on what they mean.
#[derive(Clone, Copy, Default)]
pub(crate) struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Raw;
    type Decoder = Raw;

    fn encoder(&mut self) -> Raw {
        Raw
    }

    fn decoder(&mut self) -> Raw {
        Raw
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        let length = from.remaining();
        Ok(Some(from.copy_to_bytes(length)))
    }
}

/// What the service has seen.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) cancelled: AtomicUsize,
    pub(crate) holding: AtomicUsize,
    pub(crate) connections: AtomicUsize,
}

/// `Each` echoes every message as it comes, `Fail` ends with the code that the first message names, `Hold`
/// answers nothing.
#[derive(Clone, Default)]
struct Echo(Arc<Seen>);

type Messages = Pin<Box<dyn Stream<Item = Result<Bytes, Status>> + Send>>;

struct Call {
    path: String,
    seen: Arc<Seen>,
}

/// Counts a call that was dropped.
struct Held(Arc<Seen>);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.cancelled.fetch_add(1, Ordering::SeqCst);
    }
}

impl tonic::server::StreamingService<Bytes> for Call {
    type Response = Bytes;
    type ResponseStream = Messages;
    type Future = BoxFuture<Response<Messages>, Status>;

    fn call(&mut self, request: Request<tonic::Streaming<Bytes>>) -> Self::Future {
        let (path, seen) = (self.path.clone(), Arc::clone(&self.seen));
        let tag = request.metadata().get("x-tag").cloned();
        Box::pin(async move {
            let mut messages = request.into_inner();
            match path.as_str() {
                "/test.Echo/Fail" => {
                    let first = messages.message().await?.unwrap_or_default();
                    let code = String::from_utf8_lossy(&first).parse().unwrap_or(2);
                    Err(Status::new(Code::from_i32(code), "as asked: 100 % é"))
                }
                "/test.Echo/Hold" => {
                    let _held = Held(Arc::clone(&seen));
                    seen.holding.fetch_add(1, Ordering::SeqCst);
                    std::future::pending::<()>().await;
                    Err(Status::internal("it was pending"))
                }
                _ => {
                    let mut response = Response::new(Box::pin(messages) as Messages);
                    if let Some(tag) = tag {
                        response.metadata_mut().insert("x-tag", tag);
                    }
                    Ok(response)
                }
            }
        })
    }
}

impl Service<http::Request<tonic::body::Body>> for Echo {
    type Response = http::Response<tonic::body::Body>;
    type Error = std::convert::Infallible;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
        let call = Call { path: request.uri().path().to_owned(), seen: Arc::clone(&self.0) };
        Box::pin(async move { Ok(tonic::server::Grpc::new(Raw).streaming(call, request).await) })
    }
}

impl tonic::server::NamedService for Echo {
    const NAME: &'static str = "test.Echo";
}

/// Starts the service.
pub(crate) async fn serve() -> (SocketAddr, Arc<Seen>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let echo = Echo::default();
    let seen = Arc::clone(&echo.0);
    let counted = Arc::clone(&seen);
    let (accepted, incoming) = tokio::sync::mpsc::channel(16);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            counted.connections.fetch_add(1, Ordering::SeqCst);
            if accepted.send(std::io::Result::Ok(stream)).await.is_err() {
                return;
            }
        }
    });
    tokio::spawn(async move {
        let server = tonic::transport::Server::builder().add_service(echo);
        server.serve_with_incoming(ReceiverStream::new(incoming)).await.unwrap();
    });
    (address, seen)
}

/// Starts the service and a gateway before it.
async fn start(more: &str) -> (Gateway, Arc<Seen>) {
    let (address, seen) = serve().await;
    let gateway = Gateway::start(&format!(
        "[process]\nworkers = 1\nadmin = {{ address = \"127.0.0.1:0\" }}\n\n\
         [listeners.web]\naddress = \"127.0.0.1:0\"\n\n\
         [[routes]]\nname = \"echo\"\nmatch = {{ path_prefix = \"/test.Echo\" }}\n\
         forward = {{ upstream = \"echo\" }}\n\n\
         [upstreams.echo]\nendpoints = [\"{address}\"]\nprotocol = \"http2\"\n{more}\n"
    ))
    .await;
    (gateway, seen)
}

pub(crate) type Client = tonic::client::Grpc<tonic::transport::Channel>;

pub(crate) async fn client(gateway: &Gateway) -> Client {
    let endpoint =
        tonic::transport::Endpoint::from_shared(format!("http://{}", gateway.address("web"))).unwrap();
    let mut client = tonic::client::Grpc::new(within("a channel", endpoint.connect()).await.unwrap());
    client.ready().await.unwrap();
    client
}

pub(crate) fn method(name: &str) -> PathAndQuery {
    PathAndQuery::try_from(format!("/test.Echo/{name}")).unwrap()
}

pub(crate) fn messages(count: usize) -> Vec<Bytes> {
    (0..count).map(|n| Bytes::from(format!("message {n} {}", "x".repeat(n * 10)))).collect()
}

#[tokio::test]
async fn every_kind_of_call_passes_with_its_metadata() {
    let (gateway, _seen) = start("").await;
    let mut client = client(&gateway).await;
    let mut request = Request::new(Bytes::from_static(b"one"));
    request.metadata_mut().insert("x-tag", "7".parse().unwrap());
    let answer = client.unary(request, method("Each"), Raw).await.unwrap();
    assert_eq!(
        (answer.get_ref().as_ref(), answer.metadata().get("x-tag").unwrap().to_str().unwrap()),
        (&b"one"[..], "7")
    );

    // Client streaming that answers with its only message.
    client.ready().await.unwrap();
    let only = Request::new(tokio_stream::iter(messages(1)));
    assert_eq!(
        client.client_streaming(only, method("Each"), Raw).await.unwrap().into_inner(),
        messages(1)[0]
    );

    client.ready().await.unwrap();
    let one = Request::new(messages(1).remove(0));
    let mut stream = client.server_streaming(one, method("Each"), Raw).await.unwrap().into_inner();
    assert_eq!(stream.message().await.unwrap(), Some(messages(1).remove(0)));
    assert_eq!(stream.message().await.unwrap(), None);

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
}

#[tokio::test]
async fn statuses_of_the_service_reach_the_client_as_they_are() {
    let (gateway, _seen) = start("").await;
    let mut client = client(&gateway).await;
    for code in 1..=16 {
        client.ready().await.unwrap();
        let request = Request::new(Bytes::from(code.to_string()));
        let status = client.unary(request, method("Fail"), Raw).await.unwrap_err();
        assert_eq!((status.code(), status.message()), (Code::from_i32(code), "as asked: 100 % é"));
    }
}

#[tokio::test]
async fn our_own_failures_are_statuses_too() {
    let (gateway, _seen) = start("").await;
    let mut client = client(&gateway).await;
    let unknown = PathAndQuery::from_static("/test.Other/Method");
    let status = client.unary(Request::new(Bytes::new()), unknown, Raw).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::Unimplemented, "No route matches this request."));
    // Nobody listens there.
    let dead = sluice_testkit::free_port();
    let document = format!(
        "[listeners.web]\naddress = \"127.0.0.1:0\"\n[[routes]]\nname = \"a\"\nforward = {{ upstream = \"u\" }}\n\
         [upstreams.u]\nendpoints = [\"127.0.0.1:{dead}\"]\nprotocol = \"http2\"\n"
    );
    let gateway = Gateway::start(&document).await;
    let mut client = self::client(&gateway).await;
    let status = client.unary(Request::new(Bytes::new()), method("Each"), Raw).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
}

#[tokio::test]
async fn a_call_that_the_client_cancels_is_cancelled_at_the_service() {
    let (gateway, seen) = start("").await;
    let client = client(&gateway).await;
    let mut quickest = Duration::MAX;
    // On a machine that runs all tests at once a poll may come late: the best of a few counts.
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
}

#[tokio::test]
async fn ten_thousand_calls_need_few_connections() {
    let (gateway, seen) = start("").await;
    let client = client(&gateway).await;
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..100 {
        let mut client = client.clone();
        tasks.spawn(async move {
            for n in 0..100 {
                client.ready().await.unwrap();
                let message = Bytes::from(n.to_string());
                let answer = client.unary(Request::new(message.clone()), method("Each"), Raw).await.unwrap();
                assert_eq!(answer.into_inner(), message);
            }
        });
    }
    while let Some(done) = within("ten thousand answers", tasks.join_next()).await {
        done.unwrap();
    }
    let connections = seen.connections.load(Ordering::SeqCst);
    assert!(connections <= 4, "{connections} connections to the endpoint");
}

#[tokio::test]
async fn a_client_that_speaks_http_1_reaches_a_service_that_speaks_http_2() {
    let (gateway, _seen) = start("").await;
    let mut wire = Wire::connect(gateway.address("web")).await;
    wire.send(
        "POST /test.Echo/Each HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nContent-Type: application/grpc\r\n",
    )
    .await
    .send("Content-Length: 7\r\n\r\n\0\0\0\0\x02hi")
    .await;
    let answer = wire.answer().await;
    assert_eq!((answer.status, &answer.body[..]), (200, &b"\0\0\0\0\x02hi"[..]));
    assert_eq!(answer.trailers.get("grpc-status"), Some("0"));
}
