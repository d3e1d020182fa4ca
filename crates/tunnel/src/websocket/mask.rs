//! Masking (RFC 6455 section 5.3): every byte XOR one of four, eight bytes at a time.

/// The masking key of one frame, and how many bytes it has masked so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mask {
    key: [u8; 4],
    at: usize,
}

impl Mask {
    pub(super) fn new(key: [u8; 4]) -> Mask {
        Mask { key, at: 0 }
    }

    /// Masks or unmasks the next bytes of the frame: the same operation.
    pub(super) fn apply(&mut self, bytes: &mut [u8]) {
        let mut key = self.key;
        key.rotate_left(self.at % 4);
        self.at = (self.at + bytes.len()) % 4;
        let [a, b, c, d] = key;
        let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
        let (words, rest) = bytes.as_chunks_mut::<8>();
        for word in words {
            *word = (u64::from_ne_bytes(*word) ^ wide).to_ne_bytes();
        }
        for (byte, key) in rest.iter_mut().zip([a, b, c, d, a, b, c, d]) {
            *byte ^= key;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_masked_as_the_whole_is() {
        let key = [1, 0x22, 0xf3, 0x84];
        let text: Vec<u8> = (0..100).collect();
        let expected: Vec<u8> = text.iter().enumerate().map(|(at, byte)| byte ^ key[at % 4]).collect();
        for cut in 0..=text.len() {
            let mut masked = text.clone();
            let mut mask = Mask::new(key);
            let (first, second) = masked.split_at_mut(cut);
            mask.apply(first);
            mask.apply(second);
            assert_eq!(masked, expected, "cut at {cut}");
        }
    }
}
