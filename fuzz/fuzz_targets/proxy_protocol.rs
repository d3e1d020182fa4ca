//! Any bytes as a PROXY protocol header: the parser does not panic, a verdict does not change with more bytes,
//! and a header that is accepted is written in a form that is read as the same.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sluice_http::proxy_protocol::{Parsed, Source, Transport, encode_v2, encode_v2_datagram, parse};

fuzz_target!(|bytes: &[u8]| {
    let at_once = parse(bytes);
    for end in 0..bytes.len() {
        let early = parse(&bytes[..end]);
        assert!(early == Ok(Parsed::More) || early == at_once);
    }
    let Ok(Parsed::Header { length, source: said, .. }) = at_once else { return };
    assert!(length <= bytes.len());
    let Source::Proxied { transport, source, destination } = said else { return };
    let mut out = Vec::new();
    match transport {
        Transport::Stream => encode_v2(source, destination, &mut out),
        Transport::Datagram => encode_v2_datagram(source, destination, &mut out),
    }
    assert!(matches!(parse(&out), Ok(Parsed::Header { source, .. }) if source == said));
});
