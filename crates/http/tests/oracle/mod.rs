//! hyper as a reader of whole files, over a pipe in memory.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::rc::Rc;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::body::{Body, Incoming};
use hyper::ext::ReasonPhrase;
use hyper::{HeaderMap, Request, Response, Version};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::{Message, Reading};

const PIPE: usize = 1 << 20;

/// Gives the bytes to hyper's server and records what its service is called with.
pub(crate) fn requests(bytes: &[u8]) -> Reading {
    let messages = Rc::new(RefCell::new(Vec::new()));
    let is_clean = Rc::new(Cell::new(true));
    block_on(async {
        let (mut client, server) = tokio::io::duplex(PIPE);
        client.write_all(bytes).await.unwrap();
        client.shutdown().await.unwrap();
        let service = hyper::service::service_fn(|request: Request<Incoming>| {
            let (messages, is_clean) = (messages.clone(), is_clean.clone());
            async move {
                match request_message(request).await {
                    Some(message) => messages.borrow_mut().push(message),
                    None => is_clean.set(false),
                }
                Ok::<_, hyper::Error>(Response::new(Empty::<Bytes>::new()))
            }
        });
        let mut builder = hyper::server::conn::http1::Builder::new();
        builder.half_close(true);
        if builder.serve_connection(TokioIo::new(server), service).with_upgrades().await.is_err() {
            is_clean.set(false);
        }
    });
    let messages = messages.take();
    Reading { messages, is_clean: is_clean.get() }
}

async fn request_message(request: Request<Incoming>) -> Option<Message> {
    let (head, body) = request.into_parts();
    let length = body.size_hint().exact();
    let collected = body.collect().await.ok()?;
    let trailers = collected.trailers().map(sorted).unwrap_or_default();
    Some(Message {
        start: format!("{} {}", head.method, head.uri),
        version: version(head.version),
        fields: sorted(&head.headers),
        length,
        body: collected.to_bytes().to_vec(),
        trailers,
    })
}

/// Lets hyper's client send a request and gives it the bytes as the answer.
pub(crate) fn response(method: &str, bytes: &[u8]) -> Reading {
    let message = block_on(async {
        let (client, server) = tokio::io::duplex(PIPE);
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(client)).await.unwrap();
        let target = if method == "CONNECT" { "a.example:443" } else { "/" };
        let request = Request::builder().method(method).uri(target).header("Host", "a.example");
        let exchange = async {
            let response = sender.send_request(request.body(Empty::<Bytes>::new()).unwrap()).await.ok()?;
            response_message(response).await
        };
        let (message, _, ()) = tokio::join!(exchange, connection.with_upgrades(), answer(server, bytes));
        message
    });
    Reading { is_clean: message.is_some(), messages: message.into_iter().collect() }
}

/// Reads the request's head, then writes the answer and closes.
async fn answer(mut server: DuplexStream, bytes: &[u8]) {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        request.push(server.read_u8().await.unwrap());
    }
    // The client may have hung up over the first bytes already.
    let _ = server.write_all(bytes).await;
    let _ = server.shutdown().await;
}

async fn response_message(response: Response<Incoming>) -> Option<Message> {
    let (head, body) = response.into_parts();
    let length = body.size_hint().exact();
    let collected = body.collect().await.ok()?;
    let trailers = collected.trailers().map(sorted).unwrap_or_default();
    let registered = head.status.canonical_reason().unwrap_or("").as_bytes();
    let reason = head.extensions.get::<ReasonPhrase>().map_or(registered, ReasonPhrase::as_bytes);
    Some(Message {
        start: format!("{} {}", head.status.as_u16(), String::from_utf8_lossy(reason)),
        version: version(head.version),
        fields: sorted(&head.headers),
        length,
        body: collected.to_bytes().to_vec(),
        trailers,
    })
}

fn sorted(fields: &HeaderMap) -> Vec<(String, Vec<u8>)> {
    let line = |(name, value): (&hyper::header::HeaderName, &hyper::header::HeaderValue)| {
        (name.as_str().to_owned(), value.as_bytes().to_vec())
    };
    let mut lines: Vec<_> = fields.iter().map(line).collect();
    lines.sort_by(|a, b| a.0.cmp(&b.0));
    lines
}

fn version(version: Version) -> &'static str {
    if version == Version::HTTP_10 { "1.0" } else { "1.1" }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}
