//! What the opening handshake of WebSocket needs where one side upgrades an HTTP/1.1 connection and the other
//! uses an extended CONNECT (RFC 8441).

use sluice_http::websocket::accept;
use sluice_http::{NameId, RequestHead, ResponseHead};

/// The 101 that tells an HTTP/1.1 client what a 2xx to an extended CONNECT said.
pub fn switched(mut head: ResponseHead, request: &RequestHead) -> ResponseHead {
    head.set_status(101);
    let protocol = request.fields.get(NameId::Upgrade).unwrap_or_default();
    let protocol = protocol.split(|&byte| byte == b',').next().unwrap_or_default().trim_ascii();
    head.fields.set(NameId::Connection, b"Upgrade");
    head.fields.set(NameId::Upgrade, protocol);
    if let Some(key) = request.fields.get(NameId::SecWebSocketKey) {
        head.fields.set(NameId::SecWebSocketAccept, accept(key).as_bytes());
    }
    head
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_protocol_asked_for_is_the_one_switched_to() {
        let mut request = RequestHead::new("GET", "/");
        request.fields.append(NameId::Upgrade, b"websocket, other");
        request.fields.append(NameId::SecWebSocketKey, b"dGhlIHNhbXBsZSBub25jZQ==");
        let head = switched(ResponseHead::new(200), &request);
        assert_eq!((head.status, head.fields.get(NameId::Upgrade)), (101, Some(&b"websocket"[..])));
        assert!(head.fields.contains(NameId::SecWebSocketAccept));
    }
}
