//! CRC-32C (Castagnoli, RFC 3720 appendix B.4): the checksum of a PROXY protocol header.

/// The polynomial 0x1EDC6F41, bits reversed.
const POLYNOMIAL: u32 = 0x82F6_3B78;
const TABLE: [u32; 256] = table();

const fn table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let (mut crc, mut bit) = (byte as u32, 0);
        while bit < 8 {
            crc = (crc >> 1) ^ if crc & 1 == 1 { POLYNOMIAL } else { 0 };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
}

/// A checksum that is fed in pieces.
#[derive(Clone, Copy)]
pub(crate) struct Crc32c(u32);

impl Crc32c {
    pub(crate) fn new() -> Crc32c {
        Crc32c(!0)
    }

    pub(crate) fn update(self, bytes: &[u8]) -> Crc32c {
        let step = |crc: u32, &byte: &u8| TABLE[usize::from(crc as u8 ^ byte)] ^ (crc >> 8);
        Crc32c(bytes.iter().fold(self.0, step))
    }

    pub(crate) fn value(self) -> u32 {
        !self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_of_rfc_3720_hold() {
        let of = |bytes: &[u8]| Crc32c::new().update(bytes).value();
        let rising: Vec<u8> = (0..32).collect();
        assert_eq!(of(&[0; 32]), 0x8A91_36AA);
        assert_eq!(of(&[0xFF; 32]), 0x62A8_AB43);
        assert_eq!(of(&rising), 0x46DD_794E);
        assert_eq!(of(b"123456789"), 0xE306_9283);
        assert_eq!(Crc32c::new().update(b"12345").update(b"6789").value(), 0xE306_9283);
    }
}
