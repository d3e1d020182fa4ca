//! An HTTP/2 client for tests: the h2 crate over a plain socket.

use std::net::SocketAddr;

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use http::{HeaderMap, Request};
use sluice_testkit::within;
use tokio::net::TcpStream;

/// One connection; it ends when this and all of its streams are dropped.
pub(crate) struct Client {
    pub(crate) send: SendRequest<Bytes>,
}

/// An answer with its whole body.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Option<HeaderMap>,
}

impl Answer {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

impl Client {
    /// Connects with prior knowledge.
    pub(crate) async fn connect(address: SocketAddr) -> Client {
        Client::with(address, &h2::client::Builder::new()).await
    }

    /// Connects with settings of its own.
    pub(crate) async fn with(address: SocketAddr, builder: &h2::client::Builder) -> Client {
        let stream = TcpStream::connect(address).await.unwrap();
        let (send, connection) = within("the HTTP/2 handshake", builder.handshake(stream)).await.unwrap();
        tokio::spawn(connection);
        Client { send }
    }

    /// Begins a request; its body is sent through the stream given back.
    pub(crate) async fn begin(
        &mut self,
        request: Request<()>,
        end: bool,
    ) -> (ResponseFuture, h2::SendStream<Bytes>) {
        let mut ready = within("room for a stream", self.send.clone().ready()).await.unwrap();
        ready.send_request(request, end).unwrap()
    }

    /// A GET and its whole answer.
    pub(crate) async fn get(&mut self, target: &str) -> Answer {
        let (answer, _) = self.begin(get(target), true).await;
        finish(answer).await
    }

    /// A POST with a body that is all here.
    pub(crate) async fn post(&mut self, target: &str, body: impl Into<Bytes>) -> Answer {
        let request = Request::post(format!("http://a.example{target}")).body(()).unwrap();
        let (answer, mut stream) = self.begin(request, false).await;
        send_all(&mut stream, body.into(), None).await;
        finish(answer).await
    }
}

/// A GET request.
pub(crate) fn get(target: &str) -> Request<()> {
    Request::get(format!("http://a.example{target}")).body(()).unwrap()
}

/// Sends a body as the window allows, then its trailers or its end.
pub(crate) async fn send_all(
    stream: &mut h2::SendStream<Bytes>,
    mut body: Bytes,
    trailers: Option<HeaderMap>,
) {
    while !body.is_empty() {
        stream.reserve_capacity(body.len());
        let polled = std::future::poll_fn(|cx| stream.poll_capacity(cx));
        let room = within("a window", polled).await.unwrap().unwrap();
        let last = room >= body.len() && trailers.is_none();
        stream.send_data(body.split_to(room.min(body.len())), last).unwrap();
        if last {
            return;
        }
    }
    match trailers {
        Some(trailers) => stream.send_trailers(trailers).unwrap(),
        None => stream.send_data(Bytes::new(), true).unwrap(),
    }
}

/// The whole answer.
pub(crate) async fn finish(answer: ResponseFuture) -> Answer {
    try_finish(answer).await.unwrap()
}

/// The whole answer, or how the stream ended.
pub(crate) async fn try_finish(answer: ResponseFuture) -> Result<Answer, h2::Error> {
    within("an answer", async {
        let (parts, mut stream) = answer.await?.into_parts();
        let mut body = Vec::new();
        while let Some(piece) = stream.data().await {
            let piece = piece?;
            body.extend_from_slice(&piece);
            let _ = stream.flow_control().release_capacity(piece.len());
        }
        let trailers = stream.trailers().await?;
        Ok(Answer { status: parts.status.as_u16(), headers: parts.headers, body, trailers })
    })
    .await
}
