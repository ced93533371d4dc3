//! PNG (W3C "Portable Network Graphics, Third Edition"): chunks of length, type, data and CRC, from IHDR to IEND.
//!
//! The picture is whole behind its last IDAT chunk. Checksums are not checked: browsers show pictures with wrong ones.

use crate::exif::Exif;
use crate::image::{Format, Image, Limits, SniffError};
use crate::walk::{Step, Walk};

/// A chunk's length and type.
pub(crate) const FIRST: Step = Step::Take(8);

/// Lengths and dimensions are of 31 bits, for languages without unsigned numbers.
const MAX_31_BITS: u32 = (1 << 31) - 1;

const PALETTE_COLOR: u8 = 3;

/// The number, the width and the height with which the header of a frame begins (fcTL).
const FRAME_SIZE: u32 = 12;

#[derive(Debug)]
pub(crate) struct Png {
    limits: Limits,
    state: State,
    image: Option<Image>,
    /// Whether the colours refer to a palette that has not come yet.
    needs_palette: bool,
    /// Whether a byte of image data has come.
    has_data: bool,
    /// Whether the last chunk was image data.
    in_data: bool,
    /// The pixels of all frames, if it is animated.
    framed: u64,
    /// The first eXIf before the image data, as far as it has come.
    exif: Option<Exif>,
}

#[derive(Debug, Clone, Copy)]
enum State {
    ChunkHeader,
    Ihdr,
    /// The start of a frame's header, with so much of the chunk and its CRC behind it.
    FrameControl(u32),
    /// The rest of an IDAT chunk, which may be empty.
    Idat {
        is_empty: bool,
    },
    /// An eXIf chunk.
    Exif,
    /// The rest of another chunk.
    Skipped,
}

impl Png {
    pub(crate) const fn new(limits: Limits) -> Self {
        Self {
            limits,
            state: State::ChunkHeader,
            image: None,
            needs_palette: false,
            has_data: false,
            in_data: false,
            framed: 0,
            exif: None,
        }
    }

    fn chunk(&mut self, length: u32, kind: [u8; 4]) -> Result<Step, SniffError> {
        if length > MAX_31_BITS {
            return malformed("a chunk's length is beyond 2^31 - 1");
        }
        if !kind.iter().all(u8::is_ascii_alphabetic) {
            return malformed("a chunk's type is not made of four letters");
        }
        let Some(image) = self.image else {
            if &kind != b"IHDR" || length != 13 {
                return malformed("the first chunk is not an IHDR of 13 bytes");
            }
            self.state = State::Ihdr;
            return Ok(Step::Take(13 + 4));
        };
        if self.in_data && !self.has_data && &kind != b"IDAT" {
            return malformed("its image data is empty");
        }
        self.in_data = &kind == b"IDAT";
        self.state = State::Skipped;
        match &kind {
            b"PLTE" => {
                if self.needs_palette && (!length.is_multiple_of(3) || !(3..=768).contains(&length)) {
                    return malformed("PLTE does not hold 1 to 256 colours");
                }
                self.needs_palette = false;
            }
            b"IDAT" if self.needs_palette => {
                return malformed("its colours refer to a palette that is missing");
            }
            b"IDAT" => self.state = State::Idat { is_empty: length == 0 },
            b"IEND" if self.has_data => return Ok(Step::End(image)),
            b"IEND" => return malformed("it has no image data"),
            b"fcTL" if length >= FRAME_SIZE => {
                self.state = State::FrameControl(length - FRAME_SIZE + 4);
                return Ok(Step::Take(FRAME_SIZE as usize));
            }
            b"eXIf" if !self.has_data && self.exif.is_none() => {
                let (exif, step) = Exif::begin(length);
                return Ok(self.exif(exif, step));
            }
            b"IHDR" => return malformed("it has a second IHDR"),
            [first, ..] if first.is_ascii_uppercase() && !self.has_data => {
                return malformed("it has a critical chunk that no decoder knows");
            }
            _ => {}
        }
        // The CRC is passed over with the data.
        Ok(Step::Skip(u64::from(length) + 4))
    }

    /// The way through the eXIf chunk, or past it and its CRC.
    fn exif(&mut self, exif: Exif, step: Option<Step>) -> Step {
        self.exif = Some(exif);
        self.state = State::Exif;
        step.unwrap_or_else(|| {
            self.state = State::Skipped;
            Step::Skip(u64::from(exif.left) + 4)
        })
    }

    fn ihdr(&mut self, bytes: &[u8]) -> Result<Step, SniffError> {
        let [w0, w1, w2, w3, h0, h1, h2, h3, depth, color, compression, filter, interlace, _, _, _, _] =
            *bytes
        else {
            return malformed(SHORT);
        };
        let width = u32::from_be_bytes([w0, w1, w2, w3]);
        let height = u32::from_be_bytes([h0, h1, h2, h3]);
        let legal = 1..=MAX_31_BITS;
        if !legal.contains(&width) || !legal.contains(&height) {
            return malformed("its width or height is not within 1 to 2^31 - 1");
        }
        let depth_is_legal = match color {
            0 => matches!(depth, 1 | 2 | 4 | 8 | 16),
            PALETTE_COLOR => matches!(depth, 1 | 2 | 4 | 8),
            2 | 4 | 6 => matches!(depth, 8 | 16),
            _ => false,
        };
        if !depth_is_legal {
            return malformed("there is no such colour type and bit depth");
        }
        if compression != 0 || filter != 0 || interlace > 1 {
            return malformed("there is no such compression, filter or interlace method");
        }
        self.image = Some(self.limits.admit(Format::Png, width, height)?);
        self.needs_palette = color == PALETTE_COLOR;
        self.state = State::ChunkHeader;
        Ok(FIRST)
    }
}

impl Walk for Png {
    fn take(&mut self, bytes: &[u8]) -> Result<Step, SniffError> {
        match (self.state, bytes) {
            (State::ChunkHeader, &[l0, l1, l2, l3, k0, k1, k2, k3]) => {
                self.chunk(u32::from_be_bytes([l0, l1, l2, l3]), [k0, k1, k2, k3])
            }
            (State::Ihdr, bytes) => self.ihdr(bytes),
            (State::FrameControl(rest), &[_, _, _, _, w0, w1, w2, w3, h0, h1, h2, h3]) => {
                let width = u32::from_be_bytes([w0, w1, w2, w3]);
                let height = u32::from_be_bytes([h0, h1, h2, h3]);
                self.framed = self.framed.saturating_add(u64::from(width) * u64::from(height));
                self.limits.admit_framed(Format::Png, self.framed)?;
                self.state = State::Skipped;
                Ok(Step::Skip(rest.into()))
            }
            (State::Exif, bytes) => match self.exif {
                Some(mut exif) => {
                    let step = exif.take(bytes);
                    Ok(self.exif(exif, step))
                }
                None => malformed(SHORT),
            },
            (State::Idat { .. } | State::Skipped, []) => {
                self.has_data |= matches!(self.state, State::Idat { is_empty: false });
                self.state = State::ChunkHeader;
                Ok(FIRST)
            }
            _ => malformed(SHORT),
        }
    }

    fn header(&self) -> Option<Image> {
        self.image
    }

    fn has_picture(&self) -> bool {
        // Within a further IDAT chunk, the picture is not whole yet.
        self.has_data && !matches!(self.state, State::Idat { .. })
    }

    fn orientation(&self) -> u8 {
        self.exif.map_or(1, |exif| exif.orientation())
    }
}

const SHORT: &str = "a chunk is too short";

const fn malformed<T>(reason: &'static str) -> Result<T, SniffError> {
    Err(SniffError::Malformed { format: Format::Png, reason })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use crate::tests::{
        ANIMATED_PNG, LIMITS, PALETTE_PNG, STILL_PNG, find, is_malformed, is_truncated, patched,
    };
    use crate::{Format, Image, SniffError, Sniffer, sniff};

    const SIGNATURE: &[u8] = b"\x89PNG\r\n\x1A\n";

    fn chunk(kind: &[u8; 4], data: &[u8]) -> Vec<u8> {
        let length = u32::try_from(data.len()).unwrap().to_be_bytes();
        [&length[..], kind, data, b"\0\0\0\0"].concat()
    }

    fn ihdr(width: u32, height: u32, rest: [u8; 5]) -> Vec<u8> {
        let (width, height) = (width.to_be_bytes(), height.to_be_bytes());
        chunk(b"IHDR", &[&width[..], &height, &rest].concat())
    }

    fn png(chunks: &[Vec<u8>]) -> Vec<u8> {
        [SIGNATURE, &chunks.concat()].concat()
    }

    /// 8 bits, grey.
    const GREY: [u8; 5] = [8, 0, 0, 0, 0];
    /// 8 bits, by palette.
    const INDEXED: [u8; 5] = [8, 3, 0, 0, 0];

    fn idat() -> Vec<u8> {
        chunk(b"IDAT", b"pixels")
    }

    fn iend() -> Vec<u8> {
        chunk(b"IEND", b"")
    }

    #[test]
    fn a_header_of_60_000_by_60_000_is_refused_before_the_body_arrives() {
        let mut sniffer = Sniffer::new(LIMITS);
        assert_eq!(
            sniffer.push(&png(&[ihdr(60_000, 60_000, GREY)])),
            Err(SniffError::TooManyPixels {
                format: Format::Png,
                width: 60_000,
                height: 60_000,
                max_pixels: LIMITS.max_pixels,
            })
        );
    }

    #[test]
    fn chunks_have_an_order() {
        let small = || ihdr(1, 1, GREY);
        let note = || chunk(b"tEXt", b"k\0v");
        let image = Image { format: Format::Png, width: 1, height: 1 };
        for whole in [
            &[small(), idat(), iend()][..],
            &[small(), note(), idat(), idat(), note(), iend()],
            &[small(), chunk(b"IDAT", b""), idat(), iend()],
            // Browsers ignore all that comes behind the data, and that it is missing.
            &[small(), idat()],
            &[small(), idat(), note()],
            &[small(), idat(), note(), idat(), iend()],
            &[small(), idat(), chunk(b"IEND", b"x")],
            &[small(), idat(), b"\0\0\0\0IEND".to_vec()],
            &[small(), idat(), chunk(b"CgBI", b"x")],
            &[small(), idat(), chunk(b"od d", b"x")],
            &[small(), idat(), small()],
        ] {
            assert_eq!(sniff(&png(whole), LIMITS), Ok(image));
        }
        for (why, broken) in [
            ("no IHDR", &[idat(), iend()][..]),
            ("IHDR not first", &[note(), small(), idat(), iend()]),
            ("two IHDR", &[small(), small(), idat(), iend()]),
            ("no IDAT", &[small(), iend()]),
            ("no byte of data", &[small(), chunk(b"IDAT", b""), iend()]),
            ("unknown critical chunk", &[small(), chunk(b"CgBI", b"x"), idat(), iend()]),
        ] {
            assert!(is_malformed(&png(broken)), "{why}");
        }
    }

    #[test]
    fn colours_by_number_need_a_palette_before_the_data() {
        let palette = |length| chunk(b"PLTE", &vec![7; length]);
        let indexed = || ihdr(1, 1, INDEXED);
        assert!(sniff(&png(&[indexed(), palette(3), idat(), iend()]), LIMITS).is_ok());
        assert!(sniff(&png(&[indexed(), palette(768), idat(), iend()]), LIMITS).is_ok());
        for length in [0, 2, 4, 771] {
            let broken = png(&[indexed(), palette(length), idat(), iend()]);
            assert!(is_malformed(&broken), "a palette of {length} bytes");
        }
        for broken in [&[indexed(), idat(), iend()][..], &[indexed(), idat(), palette(3), iend()]] {
            assert!(is_malformed(&png(broken)));
        }
    }

    #[test]
    fn illegal_headers_are_refused_at_once() {
        for (width, height, rest) in [
            (0, 1, GREY),
            (1, 0, GREY),
            (1 << 31, 1, GREY),
            (1, u32::MAX, GREY),
            (1, 1, [3, 0, 0, 0, 0]),
            (1, 1, [16, 3, 0, 0, 0]),
            (1, 1, [4, 2, 0, 0, 0]),
            (1, 1, [8, 1, 0, 0, 0]),
            (1, 1, [8, 5, 0, 0, 0]),
            (1, 1, [8, 7, 0, 0, 0]),
            (1, 1, [8, 0, 1, 0, 0]),
            (1, 1, [8, 0, 0, 1, 0]),
            (1, 1, [8, 0, 0, 0, 2]),
        ] {
            assert!(is_malformed(&png(&[ihdr(width, height, rest)])), "{width} x {height}, {rest:?}");
        }
        let long = chunk(b"IHDR", &[0; 14]);
        assert!(is_malformed(&png(&[long])));
    }

    #[test]
    fn checksums_are_of_no_matter() {
        for fixture in [STILL_PNG, PALETTE_PNG, ANIMATED_PNG] {
            let data = find(fixture.bytes, b"IDAT") + 8;
            let odd = patched(fixture.bytes, data, &[fixture.bytes[data] ^ 1]);
            assert_eq!(sniff(&odd, LIMITS), Ok(fixture.image));
        }
    }

    #[test]
    fn image_data_that_is_cut_is_no_picture() {
        let cut = |chunks: &[Vec<u8>], by: usize| {
            let whole = png(chunks);
            sniff(&whole[..whole.len() - by], LIMITS)
        };
        let image = Image { format: Format::Png, width: 1, height: 1 };
        assert_eq!(cut(&[ihdr(1, 1, GREY), idat()], 0), Ok(image));
        for by in 1..idat().len() {
            assert_eq!(
                cut(&[ihdr(1, 1, GREY), idat()], by),
                Err(SniffError::Truncated { format: Format::Png })
            );
        }
        // Of a second chunk, its header must be there to tell that there is one.
        for by in 1..=idat().len() - 8 {
            let two = [ihdr(1, 1, GREY), idat(), idat()];
            assert_eq!(cut(&two, by), Err(SniffError::Truncated { format: Format::Png }), "{by}");
        }
    }

    #[test]
    fn a_chunk_longer_than_the_file_is_cut_off_and_one_beyond_the_format_malformed() {
        let start = png(&[ihdr(1, 1, GREY)]);
        let with_length = |length: u32| [&start[..], &length.to_be_bytes(), b"tEXt"].concat();
        assert!(is_truncated(&with_length((1 << 31) - 1)));
        assert!(is_malformed(&with_length(1 << 31)));
        assert!(is_malformed(&[&start[..], b"\0\0\0\0tE t"].concat()));
    }
}
