//! One exchange of a health check over HTTP/2.

use bytes::Bytes;
use h2::RecvStream;
use h2::client::SendRequest;
use http::{HeaderMap, Request};

use crate::stream::Stream;

/// What came back.
pub(super) struct Answer {
    /// Status and fields.
    pub(super) head: http::response::Parts,
    /// The body's beginning, of so many bytes as were asked for or a little more.
    pub(super) body: Vec<u8>,
    /// Trailers.
    pub(super) trailers: Option<HeaderMap>,
}

/// Sends a request and reads the answer; no more of its body than `most` bytes.
pub(super) async fn exchange(
    stream: Stream,
    request: Request<()>,
    body: Bytes,
    most: usize,
) -> Result<Answer, String> {
    let mut builder = h2::client::Builder::new();
    builder.enable_push(false).max_header_list_size(16 * 1024);
    let (requests, connection) = builder.handshake(stream).await.map_err(|error| broken(&error))?;
    tokio::select! {
        biased;
        asked = ask(requests, request, body, most) => asked,
        ended = connection => Err(match ended {
            Err(error) => broken(&error),
            Ok(()) => "the connection closed before an answer".into(),
        }),
    }
}

async fn ask(
    mut requests: SendRequest<Bytes>,
    request: Request<()>,
    body: Bytes,
    most: usize,
) -> Result<Answer, String> {
    let (answer, mut stream) =
        requests.send_request(request, body.is_empty()).map_err(|error| broken(&error))?;
    if !body.is_empty() {
        stream.send_data(body, true).map_err(|error| broken(&error))?;
    }
    let (head, mut stream) = answer.await.map_err(|error| broken(&error))?.into_parts();
    let body = read(&mut stream, most).await?;
    let trailers =
        if body.len() < most { stream.trailers().await.map_err(|error| broken(&error))? } else { None };
    Ok(Answer { head, body, trailers })
}

async fn read(stream: &mut RecvStream, most: usize) -> Result<Vec<u8>, String> {
    let mut body = Vec::new();
    while body.len() < most
        && let Some(piece) = stream.data().await
    {
        let piece = piece.map_err(|error| broken(&error))?;
        // Fails only for more than was received.
        let _ = stream.flow_control().release_capacity(piece.len());
        body.extend_from_slice(&piece);
    }
    Ok(body)
}

fn broken(error: &h2::Error) -> String {
    format!("HTTP/2: {error}")
}
