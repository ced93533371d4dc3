//! The CRC-32 of PNG, gzip and Ethernet (ISO 3309), sixteen bytes at a time.

/// `TABLES[n][b]` is the effect of byte `b` followed by `n` zero bytes, so that the effects of
/// sixteen bytes are looked up independently of each other and added (slicing-by-16, after Kounavis
/// and Berry, "Novel Table Lookup-Based Algorithms for High-Performance CRC Generation", 2008).
static TABLES: [[u32; 256]; 16] = tables();

/// A checksum under way.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Crc32(u32);

impl Crc32 {
    pub(crate) const fn new() -> Self {
        Self(u32::MAX)
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        let (blocks, rest) = bytes.as_chunks::<16>();
        let mut crc = self.0;
        for block in blocks {
            let mut mixed = *block;
            for (byte, old) in mixed.iter_mut().zip(crc.to_le_bytes()) {
                *byte ^= old;
            }
            crc = mixed
                .iter()
                .zip(TABLES.iter().rev())
                .fold(0, |sum, (byte, table)| sum ^ table[usize::from(*byte)]);
        }
        for byte in rest {
            let [low, ..] = crc.to_le_bytes();
            crc = (crc >> 8) ^ TABLES[0][usize::from(low ^ byte)];
        }
        self.0 = crc;
    }

    pub(crate) const fn value(self) -> u32 {
        !self.0
    }
}

const fn tables() -> [[u32; 256]; 16] {
    const POLYNOMIAL: u32 = 0xEDB8_8320;
    let mut tables = [[0; 256]; 16];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = (crc >> 1) ^ (POLYNOMIAL * (crc & 1));
            bit += 1;
        }
        tables[0][byte] = crc;
        byte += 1;
    }
    let mut zeros = 1;
    while zeros < 16 {
        let mut byte = 0;
        while byte < 256 {
            let before = tables[zeros - 1][byte];
            tables[zeros][byte] = (before >> 8) ^ tables[0][(before & 0xFF) as usize];
            byte += 1;
        }
        zeros += 1;
    }
    tables
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(bytes: &[u8]) -> u32 {
        let mut crc = Crc32::new();
        crc.update(bytes);
        crc.value()
    }

    #[test]
    fn the_check_value_of_the_catalogue_comes_out() {
        assert_eq!(of(b"123456789"), 0xCBF4_3926);
        assert_eq!(of(b""), 0);
    }

    proptest! {
        #[test]
        fn sixteen_at_a_time_is_the_same_as_one_at_a_time(
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            let mut single = Crc32::new();
            for byte in &bytes {
                single.update(std::slice::from_ref(byte));
            }
            prop_assert_eq!(of(&bytes), single.value());
        }
    }
}
