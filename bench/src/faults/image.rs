//! Images that name their upload: a GIF of one pixel with a comment.

use sha2::{Digest as _, Sha256};

/// The number of an upload, and of the image that it sends.
pub(crate) type ImageId = u32;

/// Signature, screen and two colours.
const HEAD: &[u8] = b"GIF89a\x01\x00\x01\x00\x80\x00\x00\xff\xff\xff\x00\x00\x00";
/// The pixel and the trailer.
const TAIL: &[u8] = b",\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x02D\x01\x00;";
/// The comment begins with a sub-block of its own: a word, then the number.
const COMMENT: &[u8] = b"!\xfe\x0cpixcache";
/// The longest sub-block.
const BLOCK: usize = 255;

/// The image of upload `id`, of about `size` bytes. No two have anything in common but the frame.
pub(crate) fn image(id: ImageId, size: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(size + BLOCK);
    bytes.extend_from_slice(HEAD);
    bytes.extend_from_slice(COMMENT);
    bytes.extend_from_slice(&id.to_be_bytes());
    // Xorshift (Marsaglia 2003): fast, and unlike for each number.
    let mut state = (u64::from(id) + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    while bytes.len() + TAIL.len() < size {
        let length = (size - bytes.len()).min(BLOCK);
        bytes.push(u8::try_from(length).unwrap_or(u8::MAX));
        for _ in 0..length {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            bytes.push(state.to_le_bytes()[4]);
        }
    }
    bytes.push(0);
    bytes.extend_from_slice(TAIL);
    bytes
}

/// Which upload these bytes are of, if they begin as an image of ours does. Whether they are whole, only
/// their hash tells.
pub(crate) fn id_of(bytes: &[u8]) -> Option<ImageId> {
    let rest = bytes.strip_prefix(HEAD)?.strip_prefix(COMMENT)?;
    rest.first_chunk().map(|id| ImageId::from_be_bytes(*id))
}

/// SHA-256.
pub(crate) fn hash(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_name_their_upload_and_have_about_the_size_asked_for() {
        for size in [1, 60, 1000, 100_000] {
            let one = image(7, size);
            assert_eq!((id_of(&one), id_of(&image(8, size))), (Some(7), Some(8)));
            assert!(
                one.len() >= size.min(40) && one.len() <= size.max(40) + BLOCK,
                "{} for {size}",
                one.len()
            );
            assert_ne!(hash(&one), hash(&image(8, size)));
            assert!(one.starts_with(b"GIF89a") && one.ends_with(b";"));
        }
        assert_eq!(id_of(b"GIF89a"), None);
    }
}
