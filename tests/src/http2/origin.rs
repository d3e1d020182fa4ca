//! An HTTP/2 endpoint for tests: the h2 crate's server, one script for all streams.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use h2::server::{Builder, SendResponse};
use h2::{Reason, RecvStream};
use http::{HeaderMap, Request, Response};
use sluice_testkit::{eventually, within};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

/// A stream that arrived: its request, and the way back.
pub(crate) struct Stream {
    pub(crate) request: Request<RecvStream>,
    pub(crate) respond: SendResponse<Bytes>,
    /// The connection it came on, counted from 1.
    pub(crate) connection: usize,
    /// Ends the connection: GOAWAY, then its streams finish.
    pub(crate) leave: mpsc::UnboundedSender<()>,
}

/// What a script does with a stream.
pub(crate) type Played = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A running endpoint.
pub(crate) struct Origin {
    address: SocketAddr,
    seen: Arc<Seen>,
}

#[derive(Default)]
struct Seen {
    connections: AtomicUsize,
    streams: AtomicUsize,
    requests: Mutex<Vec<http::request::Parts>>,
}

impl Origin {
    /// An endpoint with usual settings.
    pub(crate) async fn start(script: impl Fn(Stream) -> Played + Send + Sync + 'static) -> Origin {
        Origin::with(Builder::new(), script).await
    }

    /// An endpoint with settings of its own.
    pub(crate) async fn with(
        builder: Builder,
        script: impl Fn(Stream) -> Played + Send + Sync + 'static,
    ) -> Origin {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (seen, script) = (Arc::<Seen>::default(), Arc::new(script));
        let of_task = Arc::clone(&seen);
        tokio::spawn(async move {
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                let (builder, script, seen) = (builder.clone(), Arc::clone(&script), Arc::clone(&of_task));
                let connection = seen.connections.fetch_add(1, Ordering::SeqCst) + 1;
                tokio::spawn(serve(socket, builder, (script, seen, connection)));
            }
        });
        Origin { address, seen }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Connections so far.
    pub(crate) fn connections(&self) -> usize {
        self.seen.connections.load(Ordering::SeqCst)
    }

    /// Streams so far.
    pub(crate) fn streams(&self) -> usize {
        self.seen.streams.load(Ordering::SeqCst)
    }

    pub(crate) async fn wait_streams(&self, count: usize) {
        eventually("streams", async || (self.streams() >= count).then_some(())).await;
    }

    /// The head of the last request.
    pub(crate) fn last(&self) -> http::request::Parts {
        self.seen.requests.lock().unwrap().last().unwrap().clone()
    }
}

impl Stream {
    /// Answers without fields.
    pub(crate) fn answer(mut self, status: u16, body: impl Into<Bytes>) {
        let body = body.into();
        let head = Response::builder().status(status).body(()).unwrap();
        let mut stream = self.respond.send_response(head, body.is_empty()).unwrap();
        if !body.is_empty() {
            stream.send_data(body, true).unwrap();
        }
    }

    /// Answers with these fields and no body.
    pub(crate) fn fields(mut self, status: u16, fields: &[(&str, &str)]) {
        let mut head = Response::builder().status(status);
        for (name, value) in fields {
            head = head.header(*name, *value);
        }
        self.respond.send_response(head.body(()).unwrap(), true).unwrap();
    }

    /// Resets the stream.
    pub(crate) fn reset(mut self, reason: Reason) {
        self.respond.send_reset(reason);
    }

    /// Reads the request's body to its end.
    pub(crate) async fn read(&mut self) -> (Vec<u8>, Option<HeaderMap>) {
        let body = self.request.body_mut();
        let mut read = Vec::new();
        within("a request body", async {
            while let Some(piece) = body.data().await {
                let piece = piece.unwrap();
                let _ = body.flow_control().release_capacity(piece.len());
                read.extend_from_slice(&piece);
            }
            (read, body.trailers().await.unwrap())
        })
        .await
    }
}

/// A script of an async block.
pub(crate) fn play(future: impl Future<Output = ()> + Send + 'static) -> Played {
    Box::pin(future)
}

/// Plays the script for every stream of a connection.
async fn serve<F: Fn(Stream) -> Played>(
    socket: TcpStream,
    builder: Builder,
    (script, seen, connection): (Arc<F>, Arc<Seen>, usize),
) {
    let Ok(mut accepted) = builder.handshake(socket).await else { return };
    let (leave, mut leaves) = mpsc::unbounded_channel();
    loop {
        tokio::select! {
            Some(()) = leaves.recv() => accepted.graceful_shutdown(),
            stream = accepted.accept() => {
                let Some(Ok((request, respond))) = stream else { return };
                seen.streams.fetch_add(1, Ordering::SeqCst);
                let (parts, body) = request.into_parts();
                seen.requests.lock().unwrap().push(parts.clone());
                let request = Request::from_parts(parts, body);
                let leave = leave.clone();
                tokio::spawn(script(Stream { request, respond, connection, leave }));
            }
        }
    }
}
