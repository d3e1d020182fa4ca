//! Any bytes as a chunked body: the decoder does not panic, and neither the content nor the verdict depends on
//! the pieces the bytes come in. The first byte says how large the pieces are.

#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use sluice_http::h1::{Decoded, Decoder, Framing, Limits, Refusal};

/// Content, number of trailer fields, and the bytes behind the end if there is one.
type Body = (Vec<u8>, usize, Result<Option<Vec<u8>>, Refusal>);

fn decode<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Body {
    let mut decoder = Decoder::new(Framing::Chunked, &Limits { line: 64, head: 256, fields: 8 });
    let (mut buf, mut data, mut trailers) = (BytesMut::new(), Vec::new(), 0);
    for piece in pieces {
        buf.extend_from_slice(piece);
        loop {
            match decoder.decode(&mut buf) {
                Ok(Decoded::More | Decoded::Done) => break,
                Ok(Decoded::Data(piece)) => data.extend(piece),
                Ok(Decoded::Trailers(fields)) => trailers += fields.len(),
                Err(refusal) => return (data, trailers, Err(refusal)),
            }
        }
    }
    let left = decoder.is_done().then(|| buf.to_vec());
    (data, trailers, Ok(left))
}

fuzz_target!(|bytes: &[u8]| {
    let Some((&size, bytes)) = bytes.split_first() else { return };
    let at_once = decode(std::iter::once(bytes));
    assert!(at_once.0.len() <= bytes.len());
    assert_eq!(decode(bytes.chunks(usize::from(size).max(1))), at_once);
    assert_eq!(decode(bytes.chunks(1)), at_once);
});
