//! Any bytes as a request: scanner and parser do not panic, the scan does not depend on pieces, and what is
//! accepted is written in a form that is accepted again with the same framing and stays the same.

#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use sluice_http::h1::{self, Limits, Persist, Refusal, Scanner};

fuzz_target!(|bytes: &[u8]| {
    let limits = Limits::default();
    // Without the scanner, too: the parser must not rely on what the scanner has refused.
    let _ = h1::request(Bytes::copy_from_slice(bytes), &limits);
    let at_once = Scanner::default().scan(bytes, &limits);
    let mut scanner = Scanner::default();
    let mut bytewise = Ok(None);
    for end in 1..=bytes.len() {
        bytewise = scanner.scan(&bytes[..end], &limits);
        if bytewise != Ok(None) {
            break;
        }
    }
    assert_eq!(bytewise, at_once);
    let Ok(Some(len)) = at_once else { return };
    let Ok((head, framing)) = h1::request(Bytes::copy_from_slice(&bytes[..len]), &limits) else { return };
    let mut once = Vec::new();
    h1::request_head(&head, framing, Persist::KeepAlive, &mut once);
    // What is written may be longer than what came in: whitespace is added, a short number spelled out.
    let limits = Limits { line: usize::MAX, head: usize::MAX, fields: usize::MAX };
    let (again, found) = match h1::request(Bytes::from(once.clone()), &limits) {
        Ok(read) => read,
        Err(Refusal::BadHost) if head.authority().is_empty() => return,
        Err(refusal) => panic!("{refusal}: {:?}", String::from_utf8_lossy(&once)),
    };
    assert_eq!((found, again.target(), again.method_text()), (framing, head.target(), head.method_text()));
    let mut twice = Vec::new();
    h1::request_head(&again, framing, Persist::KeepAlive, &mut twice);
    assert_eq!(once, twice);
});
