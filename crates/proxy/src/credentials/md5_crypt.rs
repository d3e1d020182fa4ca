//! The MD5-crypt of FreeBSD (`$1$`) and its variant of Apache httpd (`$apr1$`), for old htpasswd files.
//!
//! Source: FreeBSD's crypt-md5.c and APR's apr_md5.c, which differ in the mark alone. A thousand rounds of MD5
//! are a weak hash today: this checks such passwords and makes none.

use md5::{Digest as _, Md5};

/// The digits of crypt's base 64, the least significant first.
const DIGITS: &[u8; 64] = b"./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// Length of an encoded digest.
pub(super) const ENCODED: usize = 22;

/// Whether this can be the digest of a hash: its length and alphabet.
pub(super) fn is_encoded(text: &str) -> bool {
    text.len() == ENCODED && text.bytes().all(|byte| DIGITS.contains(&byte))
}

/// The encoded digest of a password; `mark` is "$1$" or "$apr1$".
pub(super) fn digest(password: &[u8], mark: &str, salt: &str) -> [u8; ENCODED] {
    let salt = salt.as_bytes();
    let mut start = Md5::new().chain_update(password).chain_update(mark).chain_update(salt);
    let inner = Md5::new().chain_update(password).chain_update(salt).chain_update(password).finalize();
    let mut left = password.len();
    while left > 0 {
        let part = left.min(inner.len());
        start.update(&inner[..part]);
        left -= part;
    }
    let mut bits = password.len();
    while bits > 0 {
        // As the first implementation had it: a zero byte for a one, the password's first byte for a zero.
        start.update(if bits & 1 == 1 { &[0][..] } else { &password[..1] });
        bits >>= 1;
    }
    let mut digest = start.finalize();
    for round in 0..1000 {
        let mut next = Md5::new();
        next.update(if round % 2 == 1 { password } else { &digest[..] });
        if round % 3 != 0 {
            next.update(salt);
        }
        if round % 7 != 0 {
            next.update(password);
        }
        next.update(if round % 2 == 1 { &digest[..] } else { password });
        digest = next.finalize();
    }
    encode(&digest.into())
}

fn encode(digest: &[u8; 16]) -> [u8; ENCODED] {
    const GROUPS: [[usize; 3]; 5] = [[0, 6, 12], [1, 7, 13], [2, 8, 14], [3, 9, 15], [4, 10, 5]];
    let mut out = [0; ENCODED];
    let put = |out: &mut [u8], mut value: u32| {
        for digit in out {
            *digit = DIGITS[(value & 63) as usize];
            value >>= 6;
        }
    };
    for (part, [high, middle, low]) in out.chunks_mut(4).zip(GROUPS) {
        let byte = |index: usize| u32::from(digest[index]);
        put(part, byte(high) << 16 | byte(middle) << 8 | byte(low));
    }
    put(&mut out[20..], u32::from(digest[11]));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_those_of_openssl() {
        let long = "a rather long password that is over sixteen bytes, éà";
        for (password, mark, salt, encoded) in [
            ("correct horse", "$apr1$", "saltstr1", "K/PQNGmhfGJZFOxXq5upf1"),
            ("correct horse", "$1$", "saltstr1", "AsKcJtejHqZcwKlECiX23/"),
            ("", "$apr1$", "x", "tMwYqBfQwi3FYAr0aJc8M/"),
            (long, "$apr1$", "abcdefgh", "Zu.BCUBO5m73xgdxgaF74."),
        ] {
            assert_eq!(digest(password.as_bytes(), mark, salt), encoded.as_bytes(), "{password}");
            assert!(is_encoded(encoded));
        }
        assert!(!is_encoded("Zu.BCUBO5m73xgdxgaF74") && !is_encoded("Zu.BCUBO5m73xgdxgaF74-"));
    }
}
