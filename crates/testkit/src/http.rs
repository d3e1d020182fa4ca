//! Plain requests for tests that are not about bytes: one connection, one request, one answer.

use std::net::SocketAddr;

use crate::message::Answer;
use crate::wire::Wire;

/// `GET target`.
pub async fn get(address: SocketAddr, target: &str) -> Answer {
    request(address, "GET", target, &[], b"").await
}

/// `GET target` with fields; a `Host` among them replaces the usual one.
pub async fn get_with(address: SocketAddr, target: &str, fields: &[(&str, &str)]) -> Answer {
    request(address, "GET", target, fields, b"").await
}

/// `POST target` with a body.
pub async fn post(address: SocketAddr, target: &str, body: impl AsRef<[u8]>) -> Answer {
    request(address, "POST", target, &[], body.as_ref()).await
}

/// One request on a connection of its own; a body is sent with Content-Length.
pub async fn request(
    address: SocketAddr,
    method: &str,
    target: &str,
    fields: &[(&str, &str)],
    body: &[u8],
) -> Answer {
    let mut wire = Wire::connect(address).await;
    wire.send(request_bytes(address, method, target, fields, body)).await;
    wire.answer_to(method).await
}

/// The bytes of such a request, for a connection that goes on.
pub fn request_bytes(
    address: SocketAddr,
    method: &str,
    target: &str,
    fields: &[(&str, &str)],
    body: &[u8],
) -> Vec<u8> {
    let mut text = format!("{method} {target} HTTP/1.1\r\n");
    if !fields.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
        text.push_str(&format!("Host: {address}\r\n"));
    }
    for (name, value) in fields {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    if !body.is_empty() || matches!(method, "POST" | "PUT" | "PATCH") {
        text.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    text.push_str("\r\n");
    let mut bytes = text.into_bytes();
    bytes.extend_from_slice(body);
    bytes
}
