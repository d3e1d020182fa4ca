//! Any bytes as the frames of an HTTP/2 client: the watch does not panic, and its verdict does not depend on the
//! pieces. The first byte says how large the pieces are.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sluice_http::h2::{Budgets, Flood, Watch};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

fn verdict<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Result<(), Flood> {
    let mut watch = Watch::new(&Budgets { continuations: 2, header_block: 100, ..Budgets::default() });
    watch.feed(PREFACE, 0)?;
    pieces.into_iter().try_for_each(|piece| watch.feed(piece, 0))
}

fuzz_target!(|bytes: &[u8]| {
    let Some((&size, bytes)) = bytes.split_first() else { return };
    let at_once = verdict(std::iter::once(bytes));
    assert_eq!(verdict(bytes.chunks(usize::from(size).max(1))), at_once);
    assert_eq!(verdict(bytes.chunks(1)), at_once);
});
