//! PNG (W3C "Portable Network Graphics, Third Edition"): chunks of length, type, data and CRC,
//! from IHDR to IEND.
//!
//! The CRC of every critical chunk is checked, because a decoder refuses the image if it is wrong. Ancillary chunks are
//! passed over by their length: a decoder that refuses one leaves it out and shows the image.

use crate::crc32::Crc32;
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
    palette: Palette,
    data: Data,
    crc: Crc32,
    /// The pixels of all frames, if it is animated.
    framed: u64,
}

#[derive(Debug, Clone, Copy)]
enum State {
    ChunkHeader,
    Ihdr,
    /// The start of a frame's header, with so much of the chunk and its CRC behind it.
    FrameControl(u32),
    /// So much of a critical chunk's data has still to be read.
    Content(Critical, u32),
    /// The CRC of a critical chunk.
    Crc(Critical),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Critical {
    Plte,
    Idat,
    Iend,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Palette {
    /// Colours that are not taken from a palette may come with one as a suggestion.
    Optional,
    Needed,
    Seen,
}

/// The image data is one stream, cut into IDAT chunks that follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Data {
    None,
    Under { empty: bool },
    Ended,
}

impl Png {
    pub(crate) const fn new(limits: Limits) -> Self {
        Self {
            limits,
            state: State::ChunkHeader,
            image: None,
            palette: Palette::Optional,
            data: Data::None,
            crc: Crc32::new(),
            framed: 0,
        }
    }

    fn chunk(&mut self, length: u32, kind: [u8; 4]) -> Result<Step, SniffError> {
        if length > MAX_31_BITS {
            return malformed("a chunk's length is beyond 2^31 - 1");
        }
        if !kind.iter().all(u8::is_ascii_alphabetic) {
            return malformed("a chunk's type is not made of four letters");
        }
        if self.image.is_none() {
            if &kind != b"IHDR" || length != 13 {
                return malformed("the first chunk is not an IHDR of 13 bytes");
            }
            self.state = State::Ihdr;
            return Ok(Step::Take(13 + 4));
        }
        if let Data::Under { empty } = self.data
            && &kind != b"IDAT"
        {
            if empty {
                return malformed("its image data is empty");
            }
            self.data = Data::Ended;
        }
        let critical = match &kind {
            b"PLTE" => {
                if self.data != Data::None {
                    return malformed("PLTE comes after the image data");
                }
                match self.palette {
                    Palette::Seen => return malformed("it has a second PLTE"),
                    Palette::Needed if !length.is_multiple_of(3) || !(3..=768).contains(&length) => {
                        return malformed("PLTE does not hold 1 to 256 colours");
                    }
                    Palette::Needed | Palette::Optional => self.palette = Palette::Seen,
                }
                Critical::Plte
            }
            b"IDAT" => {
                if self.palette == Palette::Needed {
                    return malformed("its colours refer to a palette that is missing");
                }
                let empty_before = match self.data {
                    Data::None => true,
                    Data::Under { empty } => empty,
                    Data::Ended => return malformed("its IDAT chunks do not follow each other"),
                };
                self.data = Data::Under { empty: empty_before && length == 0 };
                Critical::Idat
            }
            b"IEND" => {
                if self.data != Data::Ended {
                    return malformed("it has no image data");
                }
                if length != 0 {
                    return malformed("IEND is not empty");
                }
                Critical::Iend
            }
            b"fcTL" if length >= FRAME_SIZE => {
                self.state = State::FrameControl(length - FRAME_SIZE + 4);
                return Ok(Step::Take(FRAME_SIZE as usize));
            }
            [first, ..] if first.is_ascii_lowercase() => {
                self.state = State::ChunkHeader;
                // The CRC is passed over with the data.
                return Ok(Step::Skip(u64::from(length) + 4));
            }
            b"IHDR" => return malformed("it has a second IHDR"),
            _ => return malformed("it has a critical chunk that no decoder knows"),
        };
        self.crc = Crc32::new();
        self.crc.update(&kind);
        Ok(self.content(critical, length))
    }

    fn content(&mut self, critical: Critical, left: u32) -> Step {
        if left == 0 {
            self.state = State::Crc(critical);
            Step::Take(4)
        } else {
            self.state = State::Content(critical, left);
            Step::Read
        }
    }

    fn ihdr(&mut self, bytes: &[u8]) -> Result<Step, SniffError> {
        let [w0, w1, w2, w3, h0, h1, h2, h3, depth, color, compression, filter, interlace, c0, c1, c2, c3] =
            *bytes
        else {
            return malformed(SHORT);
        };
        self.crc.update(b"IHDR");
        self.crc.update(&bytes[..13]);
        if self.crc.value() != u32::from_be_bytes([c0, c1, c2, c3]) {
            return malformed(BAD_CRC);
        }
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
        if color == PALETTE_COLOR {
            self.palette = Palette::Needed;
        }
        self.state = State::ChunkHeader;
        Ok(FIRST)
    }
}

impl Walk for Png {
    fn take(&mut self, bytes: &[u8]) -> Result<Step, SniffError> {
        match (self.state, bytes) {
            (State::ChunkHeader, []) => Ok(FIRST),
            (State::ChunkHeader, &[l0, l1, l2, l3, k0, k1, k2, k3]) => {
                self.chunk(u32::from_be_bytes([l0, l1, l2, l3]), [k0, k1, k2, k3])
            }
            (State::Ihdr, bytes) => self.ihdr(bytes),
            (State::FrameControl(rest), &[_, _, _, _, w0, w1, w2, w3, h0, h1, h2, h3]) => {
                let width = u32::from_be_bytes([w0, w1, w2, w3]);
                let height = u32::from_be_bytes([h0, h1, h2, h3]);
                self.framed = self.framed.saturating_add(u64::from(width) * u64::from(height));
                self.limits.admit_framed(Format::Png, self.framed)?;
                self.state = State::ChunkHeader;
                Ok(Step::Skip(rest.into()))
            }
            (State::Crc(critical), &[c0, c1, c2, c3]) => {
                if self.crc.value() != u32::from_be_bytes([c0, c1, c2, c3]) {
                    return malformed(BAD_CRC);
                }
                self.state = State::ChunkHeader;
                Ok(match (critical, self.image) {
                    (Critical::Iend, Some(image)) => Step::End(image),
                    _ => FIRST,
                })
            }
            _ => malformed(SHORT),
        }
    }

    fn read(&mut self, piece: &[u8]) -> Result<(usize, Step), SniffError> {
        let State::Content(critical, left) = self.state else {
            return malformed(SHORT);
        };
        let here = piece.len().min(left as usize);
        self.crc.update(&piece[..here]);
        Ok((here, self.content(critical, left - here as u32)))
    }

    fn header(&self) -> Option<Image> {
        self.image
    }
}

const BAD_CRC: &str = "a chunk's bytes do not fit its checksum";
const SHORT: &str = "a chunk is too short";

const fn malformed<T>(reason: &'static str) -> Result<T, SniffError> {
    Err(SniffError::Malformed { format: Format::Png, reason })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use crate::crc32::Crc32;
    use crate::tests::{
        ANIMATED_PNG, LIMITS, PALETTE_PNG, STILL_PNG, find, is_malformed, is_truncated, patched,
    };
    use crate::{Format, Image, SniffError, Sniffer, sniff};

    const SIGNATURE: &[u8] = b"\x89PNG\r\n\x1A\n";

    fn chunk(kind: &[u8; 4], data: &[u8]) -> Vec<u8> {
        let mut crc = Crc32::new();
        crc.update(kind);
        crc.update(data);
        let length = u32::try_from(data.len()).unwrap().to_be_bytes();
        [&length[..], kind, data, &crc.value().to_be_bytes()].concat()
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
        ] {
            assert_eq!(sniff(&png(whole), LIMITS), Ok(image));
        }
        for (why, broken) in [
            ("no IHDR", &[idat(), iend()][..]),
            ("IHDR not first", &[note(), small(), idat(), iend()]),
            ("two IHDR", &[small(), small(), idat(), iend()]),
            ("no IDAT", &[small(), iend()]),
            ("no byte of data", &[small(), chunk(b"IDAT", b""), iend()]),
            ("IDAT apart", &[small(), idat(), note(), idat(), iend()]),
            ("full IEND", &[small(), idat(), chunk(b"IEND", b"x")]),
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
        for broken in [
            &[indexed(), idat(), iend()][..],
            &[indexed(), idat(), palette(3), iend()],
            &[indexed(), palette(3), palette(3), idat(), iend()],
        ] {
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
    fn a_flipped_bit_in_a_critical_chunk_is_noticed_and_in_a_note_it_is_not() {
        for fixture in [STILL_PNG, PALETTE_PNG] {
            let data = find(fixture.bytes, b"IDAT") + 8;
            let broken = patched(fixture.bytes, data, &[fixture.bytes[data] ^ 1]);
            assert!(is_malformed(&broken));
        }
        let dimension = STILL_PNG.bytes[19];
        assert!(is_malformed(&patched(STILL_PNG.bytes, 19, &[dimension ^ 1])));
        let frame = find(ANIMATED_PNG.bytes, b"fdAT") + 10;
        let odd = patched(ANIMATED_PNG.bytes, frame, &[ANIMATED_PNG.bytes[frame] ^ 1]);
        assert_eq!(sniff(&odd, LIMITS), Ok(ANIMATED_PNG.image));
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
