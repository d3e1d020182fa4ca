//! Every sample whole, at every truncation point and with every bad byte; the laws of both directions.

use std::net::SocketAddr;

use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use super::*;

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn proxied(transport: Transport, source: &str, destination: &str) -> Source {
    Source::Proxied { transport, source: address(source), destination: address(destination) }
}

fn source_of(bytes: &[u8]) -> Result<(usize, Source), Invalid> {
    match parse(bytes)? {
        Parsed::Header { length, source, .. } => Ok((length, source)),
        Parsed::More => panic!("incomplete: {bytes:?}"),
    }
}

fn v2(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
    let mut out = V2.to_vec();
    out.extend_from_slice(&[command, family]);
    out.extend_from_slice(&u16::try_from(block.len()).unwrap().to_be_bytes());
    out.extend_from_slice(block);
    out
}

fn tlv(kind: u8, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(value.len()).unwrap().to_be_bytes();
    [&[kind], &length[..], value].concat()
}

/// An IPv4 header with these TLVs.
fn with_tlvs(tlvs: &[Vec<u8>]) -> Vec<u8> {
    let block = [&[192, 0, 2, 1, 198, 51, 100, 1, 0x12, 0x34, 0x01, 0xBB][..], &tlvs.concat()].concat();
    v2(0x21, 0x11, &block)
}

/// Every header here is read whole whatever follows it, and every beginning of it asks for more.
fn samples() -> Vec<(Vec<u8>, Source)> {
    let stream = |source, destination| proxied(Transport::Stream, source, destination);
    let datagram = |source, destination| proxied(Transport::Datagram, source, destination);
    let ipv4 = [192, 0, 2, 1, 198, 51, 100, 1, 0x12, 0x34, 0x01, 0xBB];
    let mut ipv6 = [0; 36];
    (ipv6[15], ipv6[31], ipv6[33], ipv6[35]) = (1, 2, 3, 4);
    let mut mapped = ipv6;
    (mapped[10], mapped[11], mapped[12]) = (0xFF, 0xFF, 10);
    vec![
        (
            b"PROXY TCP4 192.0.2.1 198.51.100.1 4660 443\r\n".to_vec(),
            stream("192.0.2.1:4660", "198.51.100.1:443"),
        ),
        (b"PROXY TCP4 0.0.0.0 255.255.255.255 0 65535\r\n".to_vec(), stream("0.0.0.0:0", "255.255.255.255:65535")),
        (b"PROXY TCP6 2001:db8::1 ::2 1 2\r\n".to_vec(), stream("[2001:db8::1]:1", "[::2]:2")),
        (b"PROXY TCP6 ::ffff:10.0.0.1 ::2 1 2\r\n".to_vec(), stream("10.0.0.1:1", "[::2]:2")),
        (
            b"PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n"
                .to_vec(),
            stream(
                "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535",
                "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535",
            ),
        ),
        (b"PROXY UNKNOWN\r\n".to_vec(), Source::Local),
        (b"PROXY UNKNOWN ffff::1 what ever 99999\r\n".to_vec(), Source::Local),
        ([&b"PROXY UNKNOWN "[..], &[b'x'; 107 - 16], b"\r\n"].concat(), Source::Local),
        (v2(0x20, 0x00, &[]), Source::Local),
        (v2(0x20, 0x11, &ipv4), Source::Local),
        // LOCAL: family and block are ignored, whatever they are.
        (v2(0x20, 0xFF, &[1, 2, 3]), Source::Local),
        (v2(0x21, 0x00, &[]), Source::Local),
        (v2(0x21, 0x00, &[9; 40]), Source::Local),
        (v2(0x21, 0x11, &ipv4), stream("192.0.2.1:4660", "198.51.100.1:443")),
        (v2(0x21, 0x12, &ipv4), datagram("192.0.2.1:4660", "198.51.100.1:443")),
        (v2(0x21, 0x21, &ipv6), stream("[::1]:3", "[::2]:4")),
        (v2(0x21, 0x22, &ipv6), datagram("[::1]:3", "[::2]:4")),
        (v2(0x21, 0x21, &mapped), stream("10.0.0.1:3", "[::2]:4")),
        (v2(0x21, 0x31, &[b'/'; 216]), Source::Unix),
        (v2(0x21, 0x32, &[0; 216]), Source::Unix),
        (with_tlvs(&[tlv(0x04, &[0; 7]), tlv(0xEA, b"cloud")]), stream("192.0.2.1:4660", "198.51.100.1:443")),
    ]
}

#[test]
fn a_header_is_read_whole_and_what_follows_is_left_alone() {
    for (bytes, expected) in samples() {
        for behind in [&b""[..], b"GET / HTTP/1.1\r\n", b"\n", b"\r\n", b"PROXY UNKNOWN\r\n", V2] {
            let stream = [&bytes, behind].concat();
            assert_eq!(source_of(&stream), Ok((bytes.len(), expected)), "{}", stream.escape_ascii());
        }
    }
}

#[test]
fn every_beginning_of_a_header_asks_for_more() {
    for (bytes, _) in samples() {
        for end in 0..bytes.len() {
            assert_eq!(parse(&bytes[..end]), Ok(Parsed::More), "{}", bytes[..end].escape_ascii());
        }
    }
}

#[test]
fn another_protocol_is_told_apart_at_its_first_different_byte() {
    for (signature, skip) in [(&V1[..5], 1), (V2, 1)] {
        for at in 0..signature.len() {
            for byte in (0..=255).filter(|&byte| byte != signature[at]) {
                if at < skip && matches!(byte, b'P' | b'\r') {
                    continue;
                }
                let mut bytes = signature[..at].to_vec();
                bytes.push(byte);
                assert_eq!(parse(&bytes), Err(Invalid::NotProxy), "{}", bytes.escape_ascii());
            }
        }
    }
    for bytes in [
        &b"GET / HTTP/1.1\r\n"[..],
        b"PRI * HTTP/2.0",
        b"POST",
        b"PROXY\t",
        b"\x16\x03\x01",
        b"\n",
        b"proxy ",
    ] {
        assert_eq!(parse(bytes), Err(Invalid::NotProxy), "{}", bytes.escape_ascii());
    }
}

#[test]
fn a_malformed_line_is_refused_at_the_byte_that_makes_it_so() {
    // The last byte of each is the first that cannot stand where it stands.
    for (text, why) in [
        ("PROXY  ", Invalid::BadFamily),
        ("PROXY TCP5", Invalid::BadFamily),
        ("PROXY TCP4\r", Invalid::BadFamily),
        ("PROXY TCP4\t", Invalid::BadFamily),
        ("PROXY UD", Invalid::BadFamily),
        ("PROXY t", Invalid::BadFamily),
        ("PROXY UNKNOWNS", Invalid::BadFamily),
        ("PROXY UNKNOWN\n", Invalid::BadFamily),
        ("PROXY UNKNOWN \n", Invalid::BadAddress),
        ("PROXY UNKNOWN a\0", Invalid::BadAddress),
        ("PROXY UNKNOWN \rx", Invalid::BadAddress),
        ("PROXY UNKNOWN\r\r", Invalid::BadAddress),
        ("PROXY TCP4  ", Invalid::BadAddress),
        ("PROXY TCP4 a", Invalid::BadAddress),
        ("PROXY TCP4 1.2.3 ", Invalid::BadAddress),
        ("PROXY TCP4 1.2.3.256 ", Invalid::BadAddress),
        ("PROXY TCP4 01.2.3.4 ", Invalid::BadAddress),
        ("PROXY TCP4 1.2.3.4\t", Invalid::BadAddress),
        ("PROXY TCP4 1111.222.333.444", Invalid::BadAddress),
        ("PROXY TCP4 1.2.3.4 5.6.7.8\r", Invalid::BadAddress),
        ("PROXY TCP4 1.2.3.4 5.6.7.8  ", Invalid::BadAddress),
        ("PROXY TCP4 1.2.3.4 5.6.7.8 +", Invalid::BadAddress),
        ("PROXY TCP4 1.2.3.4 5.6.7.8 65536 ", Invalid::BadAddress),
        ("PROXY TCP4 1.2.3.4 5.6.7.8 00 ", Invalid::BadAddress),
        ("PROXY TCP4 1.2.3.4 5.6.7.8 080 ", Invalid::BadAddress),
        ("PROXY TCP4 1.2.3.4 5.6.7.8 123456", Invalid::BadAddress),
        ("PROXY TCP4 1.2.3.4 5.6.7.8 80 \r", Invalid::BadAddress),
        ("PROXY TCP4 1.2.3.4 5.6.7.8 80 443 ", Invalid::BadAddress),
        ("PROXY TCP4 1.2.3.4 5.6.7.8 80 443\n", Invalid::BadAddress),
        ("PROXY TCP4 1.2.3.4 5.6.7.8 80 443\rx", Invalid::BadAddress),
        ("PROXY TCP6 1.2.3.4 ", Invalid::BadAddress),
        ("PROXY TCP6 ::g", Invalid::BadAddress),
        ("PROXY TCP6 [", Invalid::BadAddress),
        ("PROXY TCP6 fe80::1%", Invalid::BadAddress),
        ("PROXY TCP6 1::2::3 ", Invalid::BadAddress),
    ] {
        let bytes = text.as_bytes();
        assert_eq!(parse(bytes), Err(why), "{text:?}");
        assert_eq!(parse(&bytes[..bytes.len() - 1]), Ok(Parsed::More), "before the last byte of {text:?}");
    }
}

#[test]
fn a_line_is_never_longer_than_107_bytes() {
    let endless = [&b"PROXY UNKNOWN "[..], &[b'x'; 200]].concat();
    assert_eq!(parse(&endless[..LONGEST_V1 - 1]), Ok(Parsed::More));
    assert_eq!(parse(&endless[..LONGEST_V1]), Err(Invalid::TooLong));
    let late = [&b"PROXY UNKNOWN "[..], &[b'x'; 107 - 15], b"\r\n"].concat();
    assert_eq!(parse(&late), Err(Invalid::TooLong));
    let long = "ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255";
    let long = format!("PROXY TCP6 {long} {long} 1 1\r\n");
    assert_eq!(parse(long.as_bytes()), Err(Invalid::TooLong));
}

#[test]
fn a_binary_head_is_refused_at_the_byte_that_makes_it_invalid() {
    for command in (0..=255).filter(|command| !matches!(command, 0x20 | 0x21)) {
        assert_eq!(parse(&[V2, &[command][..]].concat()), Err(Invalid::BadVersion), "{command:#x}");
    }
    let known = [0x00, 0x11, 0x12, 0x21, 0x22, 0x31, 0x32];
    for family in (0..=255).filter(|family| !known.contains(family)) {
        assert_eq!(parse(&[V2, &[0x21, family][..]].concat()), Err(Invalid::BadFamily), "{family:#x}");
    }
    for (family, block) in [(0x11, 12), (0x22, 36), (0x31, 216u16)] {
        let short = [V2, &[0x21, family][..], &(block - 1).to_be_bytes()].concat();
        assert_eq!(parse(&short), Err(Invalid::BadAddress), "{family:#x}");
    }
    let longest = u16::try_from(LONGEST - 16).unwrap();
    let head = |length: u16| [V2, &[0x20, 0x00][..], &length.to_be_bytes()].concat();
    assert_eq!(parse(&head(longest)), Ok(Parsed::More));
    assert_eq!(parse(&head(longest + 1)), Err(Invalid::TooLong));
    assert_eq!(parse(&head(u16::MAX)), Err(Invalid::TooLong));
}

#[test]
fn tlvs_give_host_protocol_and_id() {
    let bytes = with_tlvs(&[
        tlv(0x01, b"h2"),
        tlv(0x20, &[1; 300]),
        tlv(0x02, b"shop.example"),
        tlv(0x05, &[7; 128]),
        tlv(0x30, b""),
    ]);
    let Ok(Parsed::Header { extras, .. }) = parse(&bytes) else { panic!("{:?}", parse(&bytes)) };
    assert_eq!(
        extras,
        Extras { alpn: Some(b"h2"), authority: Some(b"shop.example"), unique_id: Some(&[7; 128]) }
    );
}

#[test]
fn a_malformed_tlv_is_refused() {
    for tlvs in [
        vec![0x01],
        vec![0x01, 0],
        vec![0x01, 0, 2, b'h'],
        vec![0xEA, 0xFF, 0xFF],
        tlv(0x05, &[7; 129]),
        tlv(0x03, &[0; 3]),
        tlv(0x03, &[0; 5]),
        [tlv(0x03, &[0; 4]), tlv(0x03, &[0; 4])].concat(),
    ] {
        assert_eq!(parse(&with_tlvs(std::slice::from_ref(&tlvs))), Err(Invalid::BadTlv), "{tlvs:?}");
    }
}

#[test]
fn a_checksum_is_verified_wherever_it_stands() {
    for (before, behind) in [(vec![], vec![]), (tlv(0x02, b"a.example"), tlv(0x05, b"1"))] {
        let mut bytes = with_tlvs(&[before.clone(), tlv(0x03, &[0; 4]), behind]);
        let at = 16 + 12 + before.len() + 3;
        let sum = crate::crc32c::Crc32c::new().update(&bytes).value();
        bytes[at..at + 4].copy_from_slice(&sum.to_be_bytes());
        assert!(source_of(&bytes).is_ok());
        for bit in 0..32 {
            let mut wrong = bytes.clone();
            wrong[at + bit / 8] ^= 1 << (bit % 8);
            assert_eq!(parse(&wrong), Err(Invalid::BadChecksum));
        }
        // A flipped bit in the client's address is what it is for.
        bytes[16] ^= 1;
        assert_eq!(parse(&bytes), Err(Invalid::BadChecksum));
    }
}

#[test]
fn what_names_nobody_is_read_as_local() {
    for encode in [encode_v1_local, encode_v2_local] {
        let mut out = Vec::new();
        encode(&mut out);
        assert_eq!(source_of(&out), Ok((out.len(), Source::Local)));
    }
}

#[test]
fn addresses_of_two_families_are_written_in_one() {
    let (source, destination) = (address("192.0.2.1:1"), address("[2001:db8::1]:2"));
    for encode in [encode_v1, encode_v2] {
        let mut out = Vec::new();
        encode(source, destination, &mut out);
        let expected = proxied(Transport::Stream, "192.0.2.1:1", "[2001:db8::1]:2");
        assert_eq!(source_of(&out), Ok((out.len(), expected)), "{}", out.escape_ascii());
    }
    let mut out = Vec::new();
    encode_v1(address("[::ffff:192.0.2.1]:1"), address("198.51.100.1:2"), &mut out);
    assert_eq!(out, b"PROXY TCP4 192.0.2.1 198.51.100.1 1 2\r\n");
}

#[test]
fn codes_are_distinct() {
    let mut codes: Vec<&str> = Invalid::ALL.iter().map(|invalid| invalid.code()).collect();
    codes.sort_unstable();
    codes.dedup();
    assert_eq!(codes.len(), Invalid::ALL.len());
}

/// An address that has one form only.
fn any_address() -> impl Strategy<Value = SocketAddr> {
    any::<(std::net::IpAddr, u16)>().prop_map(|(address, port)| SocketAddr::new(address.to_canonical(), port))
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 2000,
        rng_seed: RngSeed::Fixed(1),
        failure_persistence: None,
        ..Default::default()
    })]

    #[test]
    fn what_is_written_is_read_back(source in any_address(), destination in any_address(), behind: Vec<u8>) {
        type Encode = fn(SocketAddr, SocketAddr, &mut Vec<u8>);
        for (encode, transport) in [
            (encode_v1 as Encode, Transport::Stream),
            (encode_v2, Transport::Stream),
            (encode_v2_datagram, Transport::Datagram),
        ] {
            let mut out = Vec::new();
            encode(source, destination, &mut out);
            let length = out.len();
            out.extend_from_slice(&behind);
            prop_assert_eq!(source_of(&out), Ok((length, Source::Proxied { transport, source, destination })));
        }
    }

    #[test]
    fn no_bytes_panic_and_a_verdict_stays(
        which in 0..3usize,
        at in 0..60usize,
        byte: u8,
        tail in proptest::collection::vec(any::<u8>(), 0..80),
    ) {
        let starts: [&[u8]; 3] = [b"", b"PROXY TCP6 ::1 ::2 1 2\r\n", &with_tlvs(&[tlv(0x02, b"a")])];
        let mut bytes = [starts[which], &tail].concat();
        if let Some(changed) = bytes.get_mut(at) {
            *changed = byte;
        }
        let mut verdict = Ok(Parsed::More);
        for end in 0..=bytes.len() {
            let now = parse(&bytes[..end]);
            prop_assert!(verdict == Ok(Parsed::More) || now == verdict, "{:?} then {:?}", verdict, now);
            verdict = now;
        }
    }
}
