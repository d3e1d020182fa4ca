//! Hellos that OpenSSL 3.0 sent (samples/), whole, cut and in many records, and made ones with every fault.

use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use super::*;

/// Bytes, name, protocols.
type Sample = (&'static [u8], Option<&'static str>, &'static [&'static [u8]]);

/// For `Shop.Example` with h2 and http/1.1; without both; for `shop.example`, TLS 1.2 at most.
const SAMPLES: [Sample; 3] = [
    (include_bytes!("samples/openssl-tls13"), Some("shop.example"), &[b"h2", b"http/1.1"]),
    (include_bytes!("samples/openssl-bare"), None, &[]),
    (include_bytes!("samples/openssl-tls12"), Some("shop.example"), &[]),
];

fn counted<const N: usize>(content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(content.len()).unwrap().to_be_bytes();
    [&length[4 - N..], content].concat()
}

fn extension(kind: u16, content: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes()[..], &counted::<2>(content)].concat()
}

fn sni(name: &[u8]) -> Vec<u8> {
    extension(0, &counted::<2>(&[&[0][..], &counted::<2>(name)].concat()))
}

fn alpn(protocols: &[&[u8]]) -> Vec<u8> {
    let list: Vec<u8> = protocols.iter().flat_map(|protocol| counted::<1>(protocol)).collect();
    extension(16, &counted::<2>(&list))
}

fn body(extensions: &[Vec<u8>]) -> Vec<u8> {
    let start =
        [&[3, 3][..], &[7; 32], &counted::<1>(&[8; 32]), &counted::<2>(&[0x13, 0x01]), &[1, 0]].concat();
    [start, counted::<2>(&extensions.concat())].concat()
}

fn handshake(body: &[u8]) -> Vec<u8> {
    [&[1][..], &counted::<3>(body)].concat()
}

/// A handshake message in records of at most so many bytes.
fn records(message: &[u8], size: usize) -> Vec<u8> {
    message.chunks(size).flat_map(|piece| [&[22, 3, 1][..], &counted::<2>(piece)].concat()).collect()
}

fn of_body(body: &[u8]) -> Result<Parsed, NotTls> {
    parse(&records(&handshake(body), LONGEST_RECORD))
}

fn read(bytes: &[u8]) -> Hello {
    match parse(bytes) {
        Ok(Parsed::Hello(hello)) => hello,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_hellos_of_openssl_are_read_whatever_follows() {
    for (bytes, name, protocols) in SAMPLES {
        for behind in [&b""[..], b"\x16\x03\x03", b"garbage", &[0; LONGEST]] {
            let hello = read(&[bytes, behind].concat());
            assert_eq!((hello.sni.as_deref(), hello.alpn().collect::<Vec<_>>()), (name, protocols.to_vec()));
        }
    }
}

#[test]
fn every_beginning_asks_for_more() {
    for (bytes, ..) in SAMPLES {
        for end in 0..bytes.len() {
            assert_eq!(parse(&bytes[..end]), Ok(Parsed::More), "{end}");
        }
    }
}

#[test]
fn a_hello_in_many_records_is_the_same() {
    for (bytes, ..) in SAMPLES {
        let expected = read(bytes);
        for size in 1..bytes.len() - 4 {
            let split = records(&bytes[5..], size);
            assert_eq!(read(&split), expected, "{size}");
            for end in [split.len() - 1, split.len() / 2, size + 4, size + 5, size + 6] {
                if end < split.len() {
                    assert_eq!(parse(&split[..end]), Ok(Parsed::More), "{size} {end}");
                }
            }
        }
    }
}

#[test]
fn another_protocol_is_told_apart_at_its_first_different_byte() {
    let start = [22, 3, 1, 0, 200, 1];
    for at in [0, 1, 2, 3, 5] {
        let right: fn(u8) -> bool = match at {
            0 => |byte| byte == 22,
            1 => |byte| byte == 3,
            2 => |byte| byte <= 4,
            3 => |byte| byte <= 0x40,
            _ => |byte| byte == 1,
        };
        for byte in (0..=255).filter(|&byte| !right(byte)) {
            let bytes = [&start[..at], &[byte]].concat();
            assert_eq!(parse(&bytes[..at]), Ok(Parsed::More));
            assert_eq!(parse(&bytes), Err(NotTls::NotTls), "{bytes:?}");
        }
    }
    for bytes in
        [&b"GET / HTTP/1.1\r\n"[..], b"SSH-2.0", b"\x80\x2E\x01\x03\x01", b"PROXY TCP4", b"\x15\x03\x01"]
    {
        assert_eq!(parse(bytes), Err(NotTls::NotTls));
    }
}

#[test]
fn broken_records_are_refused() {
    let message = handshake(&body(&[]));
    let first = records(&message[..10], 10);
    for (behind, why) in [
        (&[23][..], NotTls::BadRecord),
        (&[21, 3, 1], NotTls::BadRecord),
        (&[22, 2], NotTls::BadRecord),
        (&[22, 3, 1, 0, 0], NotTls::BadRecord),
        (&[22, 3, 1, 0x40, 1], NotTls::BadRecord),
        (&[22, 3, 1, 0x41], NotTls::BadRecord),
    ] {
        assert_eq!(parse(&[&first, behind].concat()), Err(why), "{behind:?}");
    }
    assert_eq!(parse(&[22, 3, 1, 0, 0]), Err(NotTls::BadRecord));
}

#[test]
fn a_hello_over_the_limit_is_refused() {
    let filler = |length: usize| body(&[extension(21, &vec![0; length])]);
    let most = LONGEST - RECORD_HEADER - MESSAGE_HEADER - filler(0).len();
    assert_eq!(of_body(&filler(most)), Ok(Parsed::Hello(Hello::default())));
    // Refused with its length, before the rest is there.
    let over = records(&handshake(&filler(most + 1)), LONGEST_RECORD);
    assert_eq!(parse(&over[..8]), Ok(Parsed::More));
    assert_eq!(parse(&over[..9]), Err(NotTls::TooLong));
    // Many small records: what counts is what has to be kept.
    let split = records(&handshake(&filler(3000)), 1);
    assert_eq!(parse(&split[..LONGEST - 1]), Ok(Parsed::More));
    assert_eq!(parse(&split[..LONGEST]), Err(NotTls::TooLong));
    assert_eq!(parse(&split), Err(NotTls::TooLong));
}

#[test]
fn names_are_normalised_and_addresses_are_none() {
    for (name, expected) in [
        (&b"Shop.EXAMPLE"[..], Some("shop.example")),
        (b"shop.example.", Some("shop.example")),
        (b"a_b-1.example", Some("a_b-1.example")),
        (b"192.0.2.1", None),
        (b"::1", None),
    ] {
        assert_eq!(read(&records(&handshake(&body(&[sni(name)])), 100)).sni.as_deref(), expected);
    }
    for name in [
        &b""[..],
        b".",
        b"a b",
        b"a\0.example",
        b"a/b",
        b"a:443",
        b"\xFF",
        "é".as_bytes(),
        b"*.example",
        &[b'a'; 256],
    ] {
        assert_eq!(of_body(&body(&[sni(name)])), Err(NotTls::BadName), "{}", name.escape_ascii());
    }
}

#[test]
fn a_malformed_hello_is_refused() {
    let name = |content: &[u8]| body(&[extension(0, content)]);
    let protocols = |content: &[u8]| body(&[extension(16, content)]);
    let start = body(&[]).len() - 2;
    let mut cases = vec![
        // No list, an empty one, one that is too long or too short, another kind of name, two names.
        name(b""),
        name(b"\0\0"),
        name(b"\0\x05\0\0\x01a"),
        name(b"\0\x03\0\0\x01a"),
        name(b"\0\x04\x01\0\x01a"),
        name(b"\0\x08\0\0\x01a\0\0\x01b"),
        name(b"\0\x04\0\0\x01ab"),
        body(&[sni(b"a"), sni(b"a")]),
        protocols(b""),
        protocols(b"\0\0"),
        protocols(b"\0\x01\0"),
        protocols(b"\0\x03\x02h"),
        protocols(b"\0\x03\x01h\0"),
        protocols(b"\0\x03\x02h2x"),
        body(&[alpn(&[b"h2"]), alpn(&[b"h2"])]),
        body(&[vec![0]]),
        body(&[vec![0, 9, 0]]),
        body(&[vec![0, 9, 0, 1]]),
        [body(&[]), vec![0]].concat(),
        // A session of 33 bytes, an odd number of bytes of suites, no suites, no compression.
        [&[3; 34][..], &counted::<1>(&[8; 33]), &counted::<2>(&[1, 1]), &[1, 0]].concat(),
        [&[3; 34][..], &[0], &counted::<2>(&[1, 1, 1]), &[1, 0]].concat(),
        [&[3; 34][..], &[0], &[0, 0], &[1, 0]].concat(),
        [&[3; 34][..], &[0], &counted::<2>(&[1, 1]), &[0]].concat(),
    ];
    // Cut anywhere, but where the extensions begin: a hello may end there.
    let whole = body(&[sni(b"a.example"), alpn(&[b"h2"])]);
    cases.extend((0..whole.len()).filter(|&end| end != start).map(|end| whole[..end].to_vec()));
    for case in cases {
        assert_eq!(of_body(&case), Err(NotTls::BadHello), "{}", case.escape_ascii());
    }
    assert_eq!(of_body(&whole[..start]), Ok(Parsed::Hello(Hello::default())));
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 2000,
        rng_seed: RngSeed::Fixed(1),
        failure_persistence: None,
        ..Default::default()
    })]

    #[test]
    fn no_bytes_panic_and_a_verdict_stays(at in 0..200usize, byte: u8, size in 1..120usize, keep in 0..200usize) {
        let mut message = handshake(&body(&[sni(b"shop.example"), alpn(&[b"h2", b"http/1.1"])]));
        if let Some(changed) = message.get_mut(at) {
            *changed = byte;
        }
        let mut bytes = records(&message, size);
        if keep < bytes.len() {
            bytes[keep] = byte.wrapping_mul(31);
        }
        let mut verdict = Ok(Parsed::More);
        for end in 0..=bytes.len() {
            let now = parse(&bytes[..end]);
            prop_assert!(verdict == Ok(Parsed::More) || now == verdict, "{:?} then {:?}", verdict, now);
            verdict = now;
        }
    }
}
