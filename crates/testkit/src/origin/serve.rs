//! An origin's connections: read a request, record it, do what the script says.

use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpStream};

use super::reply::{Content, Manner, Reply};
use super::{KEPT, Shared};
use crate::message::{Reader, Received, request_ends};

/// Accepts until it is aborted.
pub(super) async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let _ = stream.set_nodelay(true);
        let number = {
            let mut seen = shared.seen();
            seen.accepted += 1;
            seen.open += 1;
            seen.accepted - 1
        };
        tokio::spawn(connection(stream, number, shared.clone()));
    }
}

async fn connection(stream: TcpStream, number: usize, shared: Arc<Shared>) {
    let open = Open(shared.clone());
    let mut running = shared.running.subscribe();
    let mut reader = Reader::new(Counted { stream, shared: shared.clone() });
    tokio::select! {
        () = requests(&mut reader, number, &shared) => {}
        _ = running.wait_for(|running| !running) => { let _ = reader.from.stream.set_zero_linger(); }
    }
    drop(reader);
    drop(open);
}

/// Counts the connection as open while it lives.
struct Open(Arc<Shared>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.seen().open -= 1;
    }
}

/// The socket, with the bytes that come through it counted.
struct Counted {
    stream: TcpStream,
    shared: Arc<Shared>,
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        let before = buffer.filled().len();
        let polled = std::pin::Pin::new(&mut self.stream).poll_read(cx, buffer);
        self.shared.seen().bytes += buffer.filled().len() - before;
        polled
    }
}

type Connection = Reader<Counted>;

/// Whether the connection takes another request.
#[derive(PartialEq, Eq)]
enum Next {
    Request,
    Nothing,
}

async fn requests(reader: &mut Connection, number: usize, shared: &Shared) {
    while let Ok(head) = reader.head().await {
        let mut request = Received::of(head, number);
        let script = shared.script.lock().unwrap().clone();
        let listed = script.reply_at_head();
        let early = listed.as_ref().filter(|reply| reply.early);
        if let Some(reply) = early
            && send(reader, reply, &request, shared).await == Next::Nothing
        {
            return;
        }
        if early.is_none() && expects_continue(&request) && !write_continue(reader).await {
            return;
        }
        let Ok(body) = reader.body(request_ends(&request.fields)).await else { return };
        (request.body, request.body_on_wire, request.trailers) = (body.content, body.on_wire, body.trailers);
        record(shared, &request);
        if early.is_some() {
            continue;
        }
        let reply = listed.unwrap_or_else(|| script.reply_to(&request));
        if send(reader, &reply, &request, shared).await == Next::Nothing {
            return;
        }
    }
}

fn expects_continue(request: &Received) -> bool {
    request.field("expect").is_some_and(|value| value.eq_ignore_ascii_case("100-continue"))
}

async fn write_continue(reader: &mut Connection) -> bool {
    reader.from.stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await.is_ok()
}

fn record(shared: &Shared, request: &Received) {
    let mut seen = shared.seen();
    seen.total += 1;
    if seen.requests.len() == KEPT {
        seen.requests.drain(..KEPT / 2);
    }
    seen.requests.push(request.clone());
}

async fn send(reader: &mut Connection, reply: &Reply, request: &Received, shared: &Shared) -> Next {
    if reply.held && hold(reader, shared).await == Next::Nothing {
        return Next::Nothing;
    }
    if matches!(reply.content, Content::Never) {
        // The peer may go; until then there is silence.
        while reader.more().await {}
        return Next::Nothing;
    }
    let bytes = reply.render(request);
    let stream = &mut reader.from.stream;
    let written = match reply.manner {
        Manner::Whole => stream.write_all(&bytes).await,
        Manner::CutAfter(length) => {
            let _ = stream.write_all(&bytes[..length.min(bytes.len())]).await;
            return Next::Nothing;
        }
        Manner::ResetAfter(length) => {
            let _ = stream.write_all(&bytes[..length.min(bytes.len())]).await;
            let _ = stream.set_zero_linger();
            return Next::Nothing;
        }
        Manner::Dribble { bytes: size, every } => dribble(stream, &bytes, size, every).await,
    };
    if written.is_err() || reply.close {
        return Next::Nothing;
    }
    if matches!(reply.content, Content::Upgrade(_)) {
        echo_bytes(reader).await;
        return Next::Nothing;
    }
    Next::Request
}

/// Waits for a release; nothing follows when the peer has gone before it.
async fn hold(reader: &mut Connection, shared: &Shared) -> Next {
    let mut released = shared.released.subscribe();
    let before = *released.borrow_and_update();
    shared.seen().held += 1;
    let next = tokio::select! {
        _ = released.wait_for(|count| *count > before) => Next::Request,
        () = async { while reader.more().await {} } => Next::Nothing,
    };
    shared.seen().held -= 1;
    next
}

async fn dribble(
    stream: &mut TcpStream,
    bytes: &[u8],
    size: usize,
    every: std::time::Duration,
) -> std::io::Result<()> {
    for piece in bytes.chunks(size) {
        stream.write_all(piece).await?;
        tokio::time::sleep(every).await;
    }
    Ok(())
}

async fn echo_bytes(reader: &mut Connection) {
    loop {
        let bytes = std::mem::take(&mut reader.buffer);
        if reader.from.stream.write_all(&bytes).await.is_err() || !reader.more().await {
            let _ = reader.from.stream.shutdown().await;
            return;
        }
    }
}
