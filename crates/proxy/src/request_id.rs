//! Request ids: the text by which one exchange is found again in answers, log lines and other services.
//!
//! Promise: an id is 1 to 128 characters of `[A-Za-z0-9._-]`, whoever made it, so it can stand in a field, a
//! JSON text and a log line as it is. Ours sort by the time they were made.

const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// A new id: a UUID of version 7 (RFC 9562 section 5.7), 36 characters.
///
/// `unix_millis` is the time in milliseconds since 1970 (its low 48 bits count); of `random`, 74 bits are used.
pub fn uuid_v7(unix_millis: u64, random: (u64, u64)) -> String {
    let version_and_a = 0x7000 | (random.0 & 0x0fff);
    let variant_and_b = (0b10 << 62) | (random.1 >> 2);
    let bits = (u128::from((unix_millis << 16) | version_and_a) << 64) | u128::from(variant_and_b);
    let mut text = *b"xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx";
    // Where the two digits of each byte stand.
    let places = [0, 2, 4, 6, 9, 11, 14, 16, 19, 21, 24, 26, 28, 30, 32, 34];
    for (place, byte) in places.into_iter().zip(bits.to_be_bytes()) {
        text[place] = DIGITS[usize::from(byte >> 4)];
        text[place + 1] = DIGITS[usize::from(byte & 0xf)];
    }
    std::str::from_utf8(&text).unwrap_or_default().to_owned()
}

/// A received id, if it is one: 1 to 128 characters of `[A-Za-z0-9._-]`.
pub fn accepted(received: &[u8]) -> Option<&str> {
    let fits = (1..=128).contains(&received.len())
        && received.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'));
    if !fits {
        return None;
    }
    std::str::from_utf8(received).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_example_of_the_rfc_comes_out() {
        // RFC 9562 appendix A.6: 017F22E2-79B0-7CC3-98C4-DC0C0C07398F.
        let random = (0xcc3, 0x18c4_dc0c_0c07_398f << 2);
        assert_eq!(uuid_v7(0x017f_22e2_79b0, random), "017f22e2-79b0-7cc3-98c4-dc0c0c07398f");
    }

    #[test]
    fn only_plain_short_texts_are_accepted() {
        for good in ["a", "A-b_c.9", &"x".repeat(128)] {
            assert_eq!(accepted(good.as_bytes()), Some(good));
        }
        for bad in ["", "a b", "a\"", "a,b", "é", "a\r\n", &"x".repeat(129)] {
            assert_eq!(accepted(bad.as_bytes()), None, "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn ids_are_accepted_and_sort_by_time(early in 0u64..1 << 47, step in 1u64..1 << 40, a: (u64, u64), b: (u64, u64)) {
            let (first, second) = (uuid_v7(early, a), uuid_v7(early + step, b));
            prop_assert!(first < second);
            prop_assert_eq!(accepted(first.as_bytes()), Some(first.as_str()));
            prop_assert_eq!(&first[14..15], "7");
            prop_assert!(matches!(&first[19..20], "8" | "9" | "a" | "b"));
        }
    }
}
