//! Any bytes as a TLS ClientHello: the parser does not panic, and a verdict does not change with more bytes.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sluice_http::client_hello::{Parsed, parse};

fuzz_target!(|bytes: &[u8]| {
    let at_once = parse(bytes);
    if let Ok(Parsed::Hello(hello)) = &at_once {
        assert!(hello.alpn().all(|protocol| !protocol.is_empty()));
    }
    for end in (0..bytes.len()).step_by(1 + bytes.len() / 64) {
        let early = parse(&bytes[..end]);
        assert!(early == Ok(Parsed::More) || early == at_once);
    }
});
