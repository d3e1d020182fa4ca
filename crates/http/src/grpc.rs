//! What gRPC over HTTP/2 puts into fields, and the two messages of its health protocol, written by hand.
//!
//! Sources: grpc/doc/PROTOCOL-HTTP2.md, http-grpc-status-mapping.md, health-checking.md and the protobuf
//! encoding. Promise: no text from the network is echoed, no length is followed before it is checked.

use std::time::Duration;

use crate::fields::Fields;
use crate::name::NameId;
use crate::reasons::reasons;

/// grpc-timeout has at most this many digits.
const DIGITS: usize = 8;
const MOST: u128 = 99_999_999;
/// Units of grpc-timeout in nanoseconds, finest first.
const UNITS: [(u8, u128); 6] = [
    (b'n', 1),
    (b'u', 1_000),
    (b'm', 1_000_000),
    (b'S', 1_000_000_000),
    (b'M', 60_000_000_000),
    (b'H', 3_600_000_000_000),
];

/// The value of a grpc-timeout field: one to eight digits and a unit (H M S m u n). `None` when it is malformed:
/// such a request has no deadline of its own.
pub fn timeout(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    if digits.is_empty() || digits.len() > DIGITS || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = digits.iter().fold(0, |number, digit| number * 10 + u64::from(digit - b'0'));
    match unit {
        b'H' => Some(Duration::from_secs(number * 3600)),
        b'M' => Some(Duration::from_secs(number * 60)),
        b'S' => Some(Duration::from_secs(number)),
        b'm' => Some(Duration::from_millis(number)),
        b'u' => Some(Duration::from_micros(number)),
        b'n' => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

/// The value of a grpc-timeout field, in the finest unit that it fits into; never longer than `timeout`, and
/// at most 99999999 hours.
pub fn format_timeout(timeout: Duration) -> String {
    let nanos = timeout.as_nanos();
    let fits = UNITS.into_iter().find(|&(_, unit)| nanos / unit <= MOST);
    let (unit, number) = fits.map_or((b'H', MOST), |(name, unit)| (name, nanos / unit));
    format!("{number}{}", char::from(unit))
}

/// Appends `message` as a grpc-message field has it: percent-encoded but for the visible ASCII characters.
pub fn encode_message(message: &str, out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for byte in message.bytes() {
        match byte {
            b' '..=b'$' | b'&'..=b'~' => out.push(byte),
            _ => out.extend([b'%', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]),
        }
    }
}

/// Whether a message with these fields is one of gRPC: its Content-Type says so.
pub fn is_grpc(fields: &Fields) -> bool {
    let content_type = fields.get(NameId::ContentType).unwrap_or_default();
    content_type
        .split_at_checked(CONTENT_TYPE.len())
        .is_some_and(|(kind, rest)| kind == CONTENT_TYPE && matches!(rest.first(), None | Some(b'+' | b';')))
}

const CONTENT_TYPE: &[u8] = b"application/grpc";

/// Whether a grpc-status is a failure of the server, as a 5xx is: UNKNOWN, DEADLINE_EXCEEDED, UNIMPLEMENTED,
/// INTERNAL, UNAVAILABLE and DATA_LOSS.
pub fn is_server_error(status: &[u8]) -> bool {
    matches!(status, b"2" | b"4" | b"12" | b"13" | b"14" | b"15")
}

/// DEADLINE_EXCEEDED, as a grpc-status field has it.
pub const DEADLINE_EXCEEDED: &[u8] = b"4";

/// The gRPC status that a client makes of an HTTP status, where an answer has no grpc-status.
pub const fn status_of(http: u16) -> u8 {
    match http {
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502 | 503 | 504 => 14,
        _ => 2,
    }
}

/// The largest health answer that is read, in bytes with its prefix. It holds one number.
pub const LONGEST_HEALTH: usize = 1024;

/// What `grpc.health.v1.Health/Check` says of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// UNKNOWN, also when it said nothing or a number that does not exist yet.
    Unknown,
    /// SERVING
    Serving,
    /// NOT_SERVING
    NotServing,
    /// SERVICE_UNKNOWN; servers say so in Watch only.
    ServiceUnknown,
}

reasons! {
    /// Why bytes are no health answer.
    pub enum Invalid {
        TooLong "grpc-message-too-long" "the gRPC message is longer than expected",
        Truncated "grpc-message-truncated" "the gRPC message is shorter than its prefix says",
        Trailing "grpc-message-trailing" "more than one gRPC message",
        Compressed "grpc-message-compressed" "the gRPC message is compressed",
        Malformed "grpc-message-malformed" "the gRPC message is not valid protobuf",
    }
}

/// The body of a `HealthCheckRequest` for a service; the empty name stands for the server.
pub fn health_request(service: &str) -> Vec<u8> {
    let mut message = Vec::with_capacity(service.len() + 6);
    // Field 1, length-delimited; a default value is left out.
    if !service.is_empty() {
        message.push(0x0A);
        let mut length = service.len();
        while length >= 0x80 {
            message.push(length as u8 | 0x80);
            length >>= 7;
        }
        message.push(length as u8);
        message.extend_from_slice(service.as_bytes());
    }
    let mut out = Vec::with_capacity(message.len() + 5);
    out.push(0);
    out.extend_from_slice(&(message.len() as u32).to_be_bytes());
    out.extend_from_slice(&message);
    out
}

/// Reads the body of a `HealthCheckResponse`: prefix and message, complete. Unknown fields are skipped; of a
/// field that stands there twice the last counts.
///
/// # Errors
/// [`Invalid`] when it is not exactly one uncompressed, well-formed message of at most [`LONGEST_HEALTH`] bytes.
pub fn health_status(body: &[u8]) -> Result<Health, Invalid> {
    if body.len() > LONGEST_HEALTH {
        return Err(Invalid::TooLong);
    }
    let (&[compressed, length @ ..], message) = body.split_first_chunk::<5>().ok_or(Invalid::Truncated)?;
    if compressed != 0 {
        return Err(Invalid::Compressed);
    }
    let length = u32::from_be_bytes(length) as usize;
    match message.len() {
        got if got < length => return Err(Invalid::Truncated),
        got if got > length => return Err(Invalid::Trailing),
        _ => {}
    }
    let mut status = 0;
    let mut fields = Protobuf { rest: message };
    while let Some((number, value)) = fields.next().ok_or(Invalid::Malformed)? {
        if let (1, Some(value)) = (number, value) {
            status = value;
        }
    }
    Ok(match status {
        1 => Health::Serving,
        2 => Health::NotServing,
        3 => Health::ServiceUnknown,
        _ => Health::Unknown,
    })
}

/// The fields of a protobuf message.
struct Protobuf<'a> {
    rest: &'a [u8],
}

impl Protobuf<'_> {
    /// The next field: its number, and its value when it is a varint. `Some(None)` at the end, `None` when
    /// malformed (groups, which proto3 has not, are).
    #[allow(clippy::option_option, reason = "the end and an error are two things")]
    fn next(&mut self) -> Option<Option<(u64, Option<u64>)>> {
        if self.rest.is_empty() {
            return Some(None);
        }
        let tag = self.varint()?;
        let (number, kind) = (tag >> 3, tag & 7);
        if number == 0 || tag > u64::from(u32::MAX) {
            return None;
        }
        let skipped = match kind {
            0 => return Some(Some((number, Some(self.varint()?)))),
            1 => 8,
            2 => usize::try_from(self.varint()?).ok()?,
            5 => 4,
            _ => return None,
        };
        self.rest = self.rest.get(skipped..)?;
        Some(Some((number, None)))
    }

    /// At most ten bytes of seven bits, least significant first.
    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for at in 0..10 {
            let (&byte, rest) = self.rest.split_first()?;
            self.rest = rest;
            value |= u64::from(byte & 0x7F) << (7 * at);
            if byte < 0x80 {
                // The tenth byte has room for one bit.
                return (at < 9 || byte < 2).then_some(value);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::test_runner::RngSeed;

    use super::*;

    fn body(message: &[u8]) -> Vec<u8> {
        [&[0][..], &u32::try_from(message.len()).unwrap().to_be_bytes(), message].concat()
    }

    #[test]
    fn a_timeout_has_digits_and_a_unit() {
        for (text, expected) in [
            ("0n", Duration::ZERO),
            ("1H", Duration::from_secs(3600)),
            ("2M", Duration::from_secs(120)),
            ("3S", Duration::from_secs(3)),
            ("4m", Duration::from_millis(4)),
            ("5u", Duration::from_micros(5)),
            ("6n", Duration::from_nanos(6)),
            ("00000007S", Duration::from_secs(7)),
            ("99999999H", Duration::from_secs(99_999_999 * 3600)),
        ] {
            assert_eq!(timeout(text.as_bytes()), Some(expected), "{text}");
        }
        for bad in
            ["", "1", "S", "1s", "1h", "-1S", "+1S", "1 S", " 1S", "1S ", "1.5S", "123456789S", "1SS", "0x1S"]
        {
            assert_eq!(timeout(bad.as_bytes()), None, "{bad:?}");
        }
        for byte in (0..=255).filter(|byte| !b"HMSmun".contains(byte)) {
            assert_eq!(timeout(&[b'1', byte]), None, "{byte}");
        }
    }

    #[test]
    fn a_timeout_is_written_in_the_finest_unit_that_fits() {
        for (duration, expected) in [
            (Duration::ZERO, "0n"),
            (Duration::from_nanos(99_999_999), "99999999n"),
            (Duration::from_nanos(100_000_999), "100000u"),
            (Duration::from_millis(1500), "1500000u"),
            (Duration::from_secs(100), "100000m"),
            (Duration::from_secs(100_000), "100000S"),
            (Duration::from_secs(100_000_000), "1666666M"),
            (Duration::from_secs(6_000_000_000), "1666666H"),
            (Duration::MAX, "99999999H"),
        ] {
            assert_eq!(format_timeout(duration), expected, "{duration:?}");
        }
    }

    #[test]
    fn a_message_keeps_visible_ascii_only() {
        let mut out = Vec::new();
        encode_message("100% ~é\r\n\0\x7f!", &mut out);
        assert_eq!(out, b"100%25 ~%C3%A9%0D%0A%00%7F!");
    }

    #[test]
    fn http_statuses_map_as_the_table_says() {
        let table = [(400, 13), (401, 16), (403, 7), (404, 12), (429, 14), (502, 14), (503, 14), (504, 14)];
        for status in 0..1000 {
            let expected = table.iter().find(|row| row.0 == status).map_or(2, |row| row.1);
            assert_eq!(status_of(status), expected, "{status}");
        }
    }

    #[test]
    fn a_health_request_names_its_service() {
        assert_eq!(health_request(""), [0, 0, 0, 0, 0]);
        assert_eq!(health_request("a.B"), b"\0\0\0\0\x05\x0A\x03a.B");
        let long = health_request(&"x".repeat(300));
        assert_eq!(long[..8], [0, 0, 0, 1, 47, 0x0A, 0xAC, 0x02]);
        assert_eq!(long.len(), 5 + 303);
    }

    #[test]
    fn a_health_answer_gives_the_status() {
        for (message, expected) in [
            (&b""[..], Health::Unknown),
            (b"\x08\x00", Health::Unknown),
            (b"\x08\x01", Health::Serving),
            (b"\x08\x02", Health::NotServing),
            (b"\x08\x03", Health::ServiceUnknown),
            (b"\x08\x04", Health::Unknown),
            (b"\x08\x81\x00", Health::Serving),
            (b"\x08\x02\x08\x01", Health::Serving),
            (b"\x10\x02\x08\x01", Health::Serving),
            (b"\x12\x03abc\x08\x01", Health::Serving),
            (b"\x08\x01\x19abcdefgh", Health::Serving),
            (b"\x08\x01\x1Dabcd", Health::Serving),
            // Field 1 with another type is another field.
            (b"\x0A\x01\x01", Health::Unknown),
            (b"\x08\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x01", Health::Unknown),
        ] {
            assert_eq!(health_status(&body(message)), Ok(expected), "{message:?}");
        }
    }

    #[test]
    fn a_malformed_health_answer_is_refused() {
        for message in [
            &b"\x08"[..],
            b"\x08\x80",
            b"\x00\x01",
            b"\x0B",
            b"\x0C",
            b"\x0E\x01",
            b"\x0F\x01",
            b"\x12\x04abc",
            b"\x12\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x01",
            b"\x19abcdefg",
            b"\x1Dabc",
            b"\x08\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x02",
            b"\x08\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x01",
            b"\x88\x80\x80\x80\x80\x01\x01",
        ] {
            assert_eq!(health_status(&body(message)), Err(Invalid::Malformed), "{message:?}");
        }
        let good = body(b"\x08\x01");
        for end in 0..good.len() {
            assert_eq!(health_status(&good[..end]), Err(Invalid::Truncated), "{end}");
        }
        assert_eq!(health_status(&[&good[..], b"\0"].concat()), Err(Invalid::Trailing));
        assert_eq!(health_status(b"\x01\0\0\0\x02\x08\x01"), Err(Invalid::Compressed));
        assert_eq!(health_status(&body(&[0x08; LONGEST_HEALTH - 4])), Err(Invalid::TooLong));
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: 2000,
            rng_seed: RngSeed::Fixed(1),
            failure_persistence: None,
            ..Default::default()
        })]

        #[test]
        fn a_written_timeout_is_hardly_shorter(secs in 0..359_999_996_400u64, shift in 0..39u32, nanos in 0..1_000_000_000u32) {
            let given = Duration::new(secs >> shift, nanos);
            let read = timeout(format_timeout(given).as_bytes()).unwrap();
            prop_assert!(read <= given && given - read <= given / 100_000, "{given:?} {read:?}");
        }

        #[test]
        fn no_bytes_panic(bytes: Vec<u8>) {
            let _ = (timeout(&bytes), health_status(&bytes), health_status(&body(&bytes)));
        }
    }
}
