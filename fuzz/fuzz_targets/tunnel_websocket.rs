//! Any bytes as the frames of a WebSocket, for both roles: the decoder does not panic, and what it finds does not
//! depend on the pieces. The first byte says how large the pieces are.

#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use sluice_tunnel::websocket::{Binary, Breach, Decoder, Limits, Message, Role};

fn found<'a>(
    role: Role,
    binary: Binary,
    pieces: impl Iterator<Item = &'a [u8]>,
) -> (Vec<Message>, Result<(), Breach>) {
    let mut decoder = Decoder::new(role, Limits { text: 1000, binary });
    let (mut buf, mut found) = (BytesMut::new(), Vec::new());
    for piece in pieces {
        buf.extend_from_slice(piece);
        loop {
            match decoder.decode(&mut buf) {
                Ok(Some(message)) => found.push(message),
                Ok(None) => break,
                Err(breach) => return (found, Err(breach)),
            }
        }
    }
    (found, Ok(()))
}

fuzz_target!(|bytes: &[u8]| {
    let Some((&size, bytes)) = bytes.split_first() else { return };
    for role in [Role::Client, Role::Server] {
        let whole = Binary::Whole(2000);
        let at_once = found(role, whole, std::iter::once(bytes));
        assert_eq!(found(role, whole, bytes.chunks(usize::from(size).max(1))), at_once);
        assert_eq!(found(role, whole, bytes.chunks(1)), at_once);
        let streamed = found(role, Binary::Streamed, bytes.chunks(usize::from(size).max(1)));
        assert!(
            streamed.0.iter().all(|message| !matches!(message, Message::Binary(piece) if piece.is_empty()))
        );
    }
});
