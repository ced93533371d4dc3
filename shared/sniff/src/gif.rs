//! GIF87a and GIF89a (CompuServe, 1990): a logical screen, then blocks of which each image and
//! each extension is a chain of sub-blocks, then a trailer.
//!
//! The picture is whole with its first frame. If that reaches beyond the logical screen, the screen is as large as
//! it, as in browsers; a screen of 0 x 0 too. A frame may be empty, and zeros may lie between blocks.

use crate::image::{Format, Image, Limits, SniffError};
use crate::walk::{Step, Walk};

/// The logical screen descriptor.
pub(crate) const FIRST: Step = Step::Take(7);

#[derive(Debug)]
pub(crate) struct Gif {
    limits: Limits,
    state: State,
    /// The logical screen.
    screen: (u32, u32),
    /// The canvas, known with the first frame.
    image: Option<Image>,
    frame_seen: bool,
    /// The pixels of all frames.
    framed: u64,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Screen,
    GlobalColors,
    /// The byte that names the kind of the next block.
    Introducer,
    /// The kind of an extension, which does not matter here.
    Label,
    Frame,
    LocalColors,
    /// The size of the first codes of the compressed pixels.
    CodeSize,
    /// The length of a sub-block; zero ends the chain.
    SubBlock(Chain),
    SubBlockData(Chain),
}

/// The block that a chain of sub-blocks is part of.
#[derive(Debug, Clone, Copy)]
enum Chain {
    Extension,
    Pixels,
}

impl Gif {
    pub(crate) const fn new(limits: Limits) -> Self {
        Self { limits, state: State::Screen, screen: (0, 0), image: None, frame_seen: false, framed: 0 }
    }

    fn step(&mut self, state: State, step: Step) -> Result<Step, SniffError> {
        self.state = state;
        Ok(step)
    }

    fn block(&mut self, introducer: u8) -> Result<Step, SniffError> {
        match introducer {
            b'!' => self.step(State::Label, Step::Take(1)),
            b',' => self.step(State::Frame, Step::Take(9)),
            0 => Ok(Step::Take(1)),
            b';' => match self.image {
                Some(image) if self.frame_seen => Ok(Step::End(image)),
                _ => malformed("it has no frame"),
            },
            _ => malformed("a block is neither a frame, nor an extension, nor the trailer"),
        }
    }
}

impl Walk for Gif {
    fn take(&mut self, bytes: &[u8]) -> Result<Step, SniffError> {
        match (self.state, bytes) {
            (State::Screen, &[w0, w1, h0, h1, flags, _background, _aspect]) => {
                let width = u16::from_le_bytes([w0, w1]);
                let height = u16::from_le_bytes([h0, h1]);
                self.limits.admit(Format::Gif, width.into(), height.into())?;
                self.screen = (width.into(), height.into());
                self.step(State::GlobalColors, Step::Skip(color_table(flags)))
            }
            (State::Introducer, &[introducer]) => self.block(introducer),
            (State::Label, [_]) => self.step(State::SubBlock(Chain::Extension), Step::Take(1)),
            (State::Frame, &[x0, x1, y0, y1, w0, w1, h0, h1, flags]) => {
                let end = |start, length| {
                    u32::from(u16::from_le_bytes(start)) + u32::from(u16::from_le_bytes(length))
                };
                // However small the screen is, a decoder may enlarge it for this frame.
                let (right, bottom) = (end([x0, x1], [w0, w1]), end([y0, y1], [h0, h1]));
                let framed = self.limits.admit(Format::Gif, right, bottom)?;
                if self.image.is_none() {
                    let (width, height) = (self.screen.0.max(framed.width), self.screen.1.max(framed.height));
                    if width == 0 || height == 0 {
                        return malformed("its width or height is 0");
                    }
                    self.image = Some(self.limits.admit(Format::Gif, width, height)?);
                }
                let size = |length| u64::from(u16::from_le_bytes(length));
                self.framed = self.framed.saturating_add(size([w0, w1]) * size([h0, h1]));
                self.limits.admit_framed(Format::Gif, self.framed)?;
                self.step(State::LocalColors, Step::Skip(color_table(flags)))
            }
            (State::LocalColors, []) => self.step(State::CodeSize, Step::Take(1)),
            (State::CodeSize, [size]) => {
                // The specification says 2 to 8; decoders take 1 too.
                if !(1..=8).contains(size) {
                    return malformed("a frame's code size is not within 1 to 8 bits");
                }
                self.step(State::SubBlock(Chain::Pixels), Step::Take(1))
            }
            (State::SubBlock(chain), [0]) => {
                self.frame_seen |= matches!(chain, Chain::Pixels);
                self.step(State::Introducer, Step::Take(1))
            }
            (State::SubBlock(chain), &[length]) => {
                self.step(State::SubBlockData(chain), Step::Skip(length.into()))
            }
            (State::SubBlockData(chain), []) => self.step(State::SubBlock(chain), Step::Take(1)),
            (State::GlobalColors, []) => self.step(State::Introducer, Step::Take(1)),
            _ => malformed("a block is too short"),
        }
    }

    fn header(&self) -> Option<Image> {
        self.image
    }

    fn has_picture(&self) -> bool {
        self.frame_seen
    }
}

/// The bytes of the colour table that these flags announce: three for each of 2 to 256 colours.
const fn color_table(flags: u8) -> u64 {
    if flags & 0x80 == 0 { 0 } else { 3 << ((flags & 7) + 1) }
}

const fn malformed<T>(reason: &'static str) -> Result<T, SniffError> {
    Err(SniffError::Malformed { format: Format::Gif, reason })
}

#[cfg(test)]
mod tests {
    use crate::tests::{ANIMATED_GIF, LIMITS, is_malformed, is_truncated};
    use crate::{Format, Image, SniffError, sniff};

    const IMAGE: Image = Image { format: Format::Gif, width: 3, height: 2 };

    /// A logical screen of 3 x 2 without colours.
    const SCREEN: &[u8] = b"GIF89a\x03\0\x02\0\0\0\0";
    /// A frame of the same size, its code size, its data.
    const FRAME: &[u8] = b",\0\0\0\0\x03\0\x02\0\0\x02\x02ab\x01c\0";
    const COMMENT: &[u8] = b"!\xFE\x05hello\0";
    const TRAILER: &[u8] = b";";

    fn gif(blocks: &[&[u8]]) -> Vec<u8> {
        [SCREEN, &blocks.concat()].concat()
    }

    #[test]
    fn a_screen_then_blocks_then_a_trailer_is_an_image() {
        for blocks in
            [&[FRAME, TRAILER][..], &[COMMENT, FRAME, COMMENT, FRAME, TRAILER], &[b"!\xF9\0", FRAME, TRAILER]]
        {
            assert_eq!(sniff(&gif(blocks), LIMITS), Ok(IMAGE));
        }
        // Browsers show these too: no trailer, zeros between blocks, what is no block, an empty frame.
        for blocks in [
            &[FRAME][..],
            &[FRAME, b"\0\0", FRAME, b"\0", TRAILER],
            &[FRAME, b"\x77"],
            &[FRAME, b",\0\0"],
            &[b",\0\0\0\0\x03\0\x02\0\0\x02\0", TRAILER],
        ] {
            assert_eq!(sniff(&gif(blocks), LIMITS), Ok(IMAGE));
        }
        let old = gif(&[FRAME, TRAILER]);
        assert_eq!(sniff(&[b"GIF87a", &old[6..]].concat(), LIMITS), Ok(IMAGE));
        assert_eq!(ANIMATED_GIF.bytes.windows(3).filter(|w| *w == b"!\xF9\x04").count(), 3);
    }

    #[test]
    fn colour_tables_are_passed_over_by_the_size_in_their_flags() {
        for bits in 0..8_u8 {
            // Trailers all over, so that a wrong length ends the image early.
            let table = vec![b';'; 3 << (bits + 1)];
            let global = [b"GIF89a\x03\0\x02\0", &[0x80 | bits, 0, 0][..], &table, FRAME, TRAILER];
            assert_eq!(sniff(&global.concat(), LIMITS), Ok(IMAGE), "global, {bits}");
            let local = [b",\0\0\0\0\x03\0\x02\0", &[0x80 | bits][..], &table, b"\x02\x01a\0;"];
            assert_eq!(sniff(&gif(&local), LIMITS), Ok(IMAGE), "local, {bits}");
        }
    }

    #[test]
    fn broken_blocks_are_refused_at_once() {
        for (why, blocks) in [
            ("no frame", &[TRAILER][..]),
            ("no frame but a note", &[COMMENT, TRAILER]),
            ("an unknown block", &[b"\x77", FRAME]),
            ("a code size of 0", &[b",\0\0\0\0\x03\0\x02\0\0\0"]),
            ("a code size of 9", &[b",\0\0\0\0\x03\0\x02\0\0\x09"]),
        ] {
            assert!(is_malformed(&gif(blocks)), "{why}");
        }
        for cut in 1..FRAME.len() {
            assert!(is_truncated(&gif(&[&FRAME[..cut]])), "{cut} bytes of a frame");
        }
    }

    #[test]
    fn the_first_frame_may_enlarge_the_screen() {
        let of = |screen: [u8; 4], frame: &[u8]| {
            sniff(&[b"GIF89a", &screen[..], b"\0\0\0", frame, TRAILER].concat(), LIMITS)
        };
        assert_eq!(of([0, 0, 0, 0], FRAME), Ok(IMAGE));
        assert_eq!(of([1, 0, 1, 0], FRAME), Ok(IMAGE));
        assert_eq!(of([9, 0, 1, 0], FRAME), Ok(Image { width: 9, ..IMAGE }));
        let second = [FRAME, b",\0\0\0\0\x09\0\x09\0\0\x02\0"].concat();
        assert_eq!(of([3, 0, 2, 0], &second), Ok(IMAGE), "only the first");
        assert!(matches!(of([0, 0, 0, 0], b",\0\0\0\0\0\0\0\0\0\x02\0"), Err(SniffError::Malformed { .. })));
    }

    #[test]
    fn a_huge_frame_on_a_small_screen_is_refused() {
        assert!(matches!(
            sniff(&gif(&[b",\0\0\0\0\xFF\xFF\xFF\xFF\0"]), LIMITS),
            Err(SniffError::TooManyPixels { format: Format::Gif, width: 65_535, height: 65_535, .. })
        ));
    }
}
