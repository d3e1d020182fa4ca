//! Any bytes as the messages of a SOCKS client: the parsers do not panic, and a verdict does not change with more
//! bytes.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sluice_http::socks5::{Parsed, credentials, greeting, request};

fuzz_target!(|bytes: &[u8]| {
    let at_once = (greeting(bytes), credentials(bytes), request(bytes));
    for end in 0..bytes.len().min(600) {
        let early = (greeting(&bytes[..end]), credentials(&bytes[..end]), request(&bytes[..end]));
        assert!(early.0 == Ok(Parsed::More) || early.0 == at_once.0);
        assert!(early.1 == Ok(Parsed::More) || early.1 == at_once.1);
        assert!(early.2 == Ok(Parsed::More) || early.2 == at_once.2);
    }
});
