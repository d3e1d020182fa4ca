//! The opening handshake of WebSocket (RFC 6455 section 4), both sides: which heads agree to it.
//!
//! Promise: a handshake that another implementation would read differently is refused. Frames are the business
//! of whoever speaks the protocol behind it; a gateway that passes an upgrade on does not look at them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest as _, Sha1};

use crate::h1::connection_has;
use crate::head::{Method, RequestHead, ResponseHead, Version};
use crate::name::NameId;
use crate::reasons::reasons;

/// RFC 6455 section 1.3.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// The only version there is (RFC 6455 section 4.1).
pub const VERSION: &[u8] = b"13";

reasons! {
    /// Why two heads are not a handshake.
    pub enum BadHandshake {
        NotGet "websocket-not-get" "the handshake is not an HTTP/1.1 GET",
        NoUpgrade "websocket-no-upgrade" "the message does not ask for, or agree to, an upgrade to websocket",
        BadVersion "websocket-bad-version" "the WebSocket version is not 13",
        BadKey "websocket-bad-key" "the key is not 16 bytes in base64",
        NotSwitched "websocket-not-switched" "the answer is not 101",
        BadAccept "websocket-bad-accept" "the answer does not belong to the key",
    }
}

/// The value of Sec-WebSocket-Accept that answers a Sec-WebSocket-Key.
pub fn accept(key: &[u8]) -> String {
    STANDARD.encode(Sha1::new().chain_update(key).chain_update(GUID).finalize())
}

/// A Sec-WebSocket-Key of 16 random bytes.
pub fn key(random: [u8; 16]) -> String {
    STANDARD.encode(random)
}

/// The key of a request that opens a WebSocket.
///
/// # Errors
/// The first requirement of RFC 6455 section 4.2.1 that is not met.
pub fn asked(head: &RequestHead) -> Result<&[u8], BadHandshake> {
    if head.method != Method::Get || head.version != Version::Http11 {
        return Err(BadHandshake::NotGet);
    }
    if !connection_has(&head.fields, "upgrade") || !names_websocket(head.fields.get_all(NameId::Upgrade)) {
        return Err(BadHandshake::NoUpgrade);
    }
    if one(head.fields.get_all(NameId::SecWebSocketVersion)) != Some(VERSION) {
        return Err(BadHandshake::BadVersion);
    }
    let key = one(head.fields.get_all(NameId::SecWebSocketKey)).ok_or(BadHandshake::BadKey)?;
    match STANDARD.decode(key) {
        Ok(random) if random.len() == 16 => Ok(key),
        _ => Err(BadHandshake::BadKey),
    }
}

/// Adds to the head of a request what asks for a WebSocket.
pub fn ask(head: &mut RequestHead, key: &str) {
    head.fields.set(NameId::Connection, b"Upgrade");
    head.fields.set(NameId::Upgrade, b"websocket");
    head.fields.set(NameId::SecWebSocketVersion, VERSION);
    head.fields.set(NameId::SecWebSocketKey, key.as_bytes());
}

/// The 101 that agrees to a request with this key.
pub fn agree(key: &[u8]) -> ResponseHead {
    let mut head = ResponseHead::new(101);
    head.fields.append(NameId::Connection, b"Upgrade");
    head.fields.append(NameId::Upgrade, b"websocket");
    head.fields.append(NameId::SecWebSocketAccept, accept(key).as_bytes());
    head
}

/// Whether the answer agrees to the request with this key (RFC 6455 section 4.1). Subprotocols are the
/// caller's.
///
/// # Errors
/// What is missing.
pub fn agreed(head: &ResponseHead, key: &str) -> Result<(), BadHandshake> {
    if head.status != 101 {
        return Err(BadHandshake::NotSwitched);
    }
    if !connection_has(&head.fields, "upgrade") || !names_websocket(head.fields.get_all(NameId::Upgrade)) {
        return Err(BadHandshake::NoUpgrade);
    }
    match one(head.fields.get_all(NameId::SecWebSocketAccept)) {
        Some(found) if found == accept(key.as_bytes()).as_bytes() => Ok(()),
        _ => Err(BadHandshake::BadAccept),
    }
}

fn names_websocket<'a>(values: impl Iterator<Item = &'a [u8]>) -> bool {
    let mut members = values.flat_map(|value| value.split(|&byte| byte == b','));
    members.any(|member| member.trim_ascii().eq_ignore_ascii_case(b"websocket"))
}

/// The only one.
fn one<'a>(mut values: impl Iterator<Item = &'a [u8]>) -> Option<&'a [u8]> {
    values.next().filter(|_| values.next().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

    fn request() -> RequestHead {
        let mut head = RequestHead::new("GET", "/chat");
        ask(&mut head, KEY);
        head
    }

    #[test]
    fn a_key_is_accepted_as_the_rfc_shows() {
        assert_eq!(accept(KEY.as_bytes()), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(key(*b"the sample nonce"), KEY);
    }

    #[test]
    fn two_heads_agree() {
        let head = request();
        assert_eq!(asked(&head), Ok(KEY.as_bytes()));
        assert_eq!(agreed(&agree(KEY.as_bytes()), KEY), Ok(()));
    }

    #[test]
    fn a_request_without_one_of_its_parts_is_refused() {
        let refused = |edit: &dyn Fn(&mut RequestHead)| {
            let mut head = request();
            edit(&mut head);
            asked(&head).map(<[u8]>::to_vec).unwrap_err()
        };
        assert_eq!(refused(&|head| head.set_method("POST")), BadHandshake::NotGet);
        assert_eq!(refused(&|head| head.version = Version::Http10), BadHandshake::NotGet);
        let without = |id: NameId| refused(&move |head| _ = head.fields.remove(id));
        assert_eq!(without(NameId::Upgrade), BadHandshake::NoUpgrade);
        assert_eq!(without(NameId::Connection), BadHandshake::NoUpgrade);
        assert_eq!(without(NameId::SecWebSocketVersion), BadHandshake::BadVersion);
        assert_eq!(without(NameId::SecWebSocketKey), BadHandshake::BadKey);
        let set = |id: NameId, value: &'static [u8]| refused(&move |head| head.fields.set(id, value));
        assert_eq!(set(NameId::SecWebSocketVersion, b"8"), BadHandshake::BadVersion);
        assert_eq!(set(NameId::SecWebSocketKey, b"c2hvcnQ="), BadHandshake::BadKey);
        let twice = refused(&|head| head.fields.append(NameId::SecWebSocketKey, KEY.as_bytes()));
        assert_eq!(twice, BadHandshake::BadKey);
    }

    #[test]
    fn an_answer_to_another_key_is_refused() {
        assert_eq!(agreed(&agree(b"other"), KEY), Err(BadHandshake::BadAccept));
        assert_eq!(agreed(&ResponseHead::new(200), KEY), Err(BadHandshake::NotSwitched));
        let mut head = agree(KEY.as_bytes());
        head.fields.set(NameId::Upgrade, b"h2c");
        assert_eq!(agreed(&head, KEY), Err(BadHandshake::NoUpgrade));
    }
}
