//! Any bytes as a response: the parser does not panic, and what is accepted is written in a form that is
//! accepted again with the same framing and stays the same.

#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use sluice_http::h1::{self, Framing, Limits, Persist, Scanner};
use sluice_http::{Method, Version};

fuzz_target!(|bytes: &[u8]| {
    let limits = Limits::default();
    for method in [Method::Get, Method::Head, Method::Connect] {
        let _ = h1::response(Bytes::copy_from_slice(bytes), method, &limits);
        let Ok(Some(len)) = Scanner::default().scan(bytes, &limits) else { return };
        let raw = Bytes::copy_from_slice(&bytes[..len]);
        let Ok((head, framing)) = h1::response(raw, method, &limits) else { return };
        assert!((100..=999).contains(&head.status));
        let mut once = Vec::new();
        h1::response_head(&head, framing, Version::Http11, Persist::KeepAlive, &mut once);
        let all = Limits { line: usize::MAX, head: usize::MAX, fields: usize::MAX };
        let (again, found) = h1::response(Bytes::from(once.clone()), method, &all)
            .unwrap_or_else(|refusal| panic!("{refusal}: {:?}", String::from_utf8_lossy(&once)));
        assert_eq!((found, again.status, again.reason()), (framing, head.status, head.reason()));
        let mut twice = Vec::new();
        h1::response_head(&again, framing, Version::Http11, Persist::KeepAlive, &mut twice);
        assert_eq!(once, twice);
        assert!(
            framing != Framing::Close || once.ends_with(b"Connection: close\r\n\r\n") || head.status == 426
        );
    }
});
