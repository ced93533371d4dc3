//! Images of any size, to the byte: a GIF of one pixel with a comment that cannot be compressed.

use bytes::Bytes;
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};

/// Signature, screen and two colours.
const HEAD: &[u8] = b"GIF89a\x01\x00\x01\x00\x80\x00\x00\xff\xff\xff\x00\x00\x00";
/// The pixel and the trailer.
const TAIL: &[u8] = b",\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x02D\x01\x00;";
/// The beginning and the end of a comment.
const FRAME: (&[u8], &[u8]) = (b"!\xfe", b"\0");
/// The longest block of a comment, with the byte that says its length.
const BLOCK: usize = 256;

/// The size of the smallest image.
pub(crate) const SMALLEST: usize = HEAD.len() + TAIL.len();

/// The image number `number` of `size` bytes. Those smaller than [`SMALLEST`] become as large, and the few sizes
/// above it that no comment is short enough for become a little larger.
pub(crate) fn picture(number: u64, size: usize) -> Bytes {
    let mut bytes = Vec::with_capacity(size + BLOCK);
    bytes.extend_from_slice(HEAD);
    if size > SMALLEST {
        let mut left = size.saturating_sub(SMALLEST + FRAME.0.len() + FRAME.1.len()).max(2);
        let mut random = SmallRng::seed_from_u64(number);
        bytes.extend_from_slice(FRAME.0);
        while left > 0 {
            // A block has at least one byte besides its length.
            let block = if left == BLOCK + 1 { BLOCK - 1 } else { left.min(BLOCK) };
            bytes.push(u8::try_from(block - 1).unwrap_or(u8::MAX));
            let at = bytes.len();
            bytes.resize(at + block - 1, 0);
            random.fill_bytes(&mut bytes[at..]);
            left -= block;
        }
        bytes.extend_from_slice(FRAME.1);
    }
    bytes.extend_from_slice(TAIL);
    bytes.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_are_images_of_the_size_asked_for_and_unlike_each_other() {
        let limits = sniff::Limits { max_pixels: 1 };
        for size in (SMALLEST + 5..SMALLEST + 600).chain([10_000, 279_000, 1 << 20]) {
            let image = picture(1, size);
            assert_eq!(image.len(), size);
            assert!(sniff::sniff(&image, limits).is_ok(), "{size}");
            assert!(image != picture(2, size) || size < SMALLEST + 16);
        }
        assert_eq!(picture(1, 10).len(), SMALLEST);
        assert!(sniff::sniff(&picture(1, 10), limits).is_ok());
    }
}
