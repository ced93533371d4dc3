//! WebP (RFC 9649): a RIFF container of one bitstream, or of a VP8X header with metadata and one
//! bitstream or many frames.
//!
//! The picture is whole with its bitstream, or with the first frame of an animation. The length in the RIFF header is
//! where the image ends. Chunks of types unknown here are passed over, as the RFC asks.

use crate::image::{Format, Image, Limits, SniffError};
use crate::walk::{Step, Walk};

/// The header of the first chunk.
pub(crate) const FIRST: Step = Step::Take(CHUNK_HEADER);

/// A chunk's type and length.
const CHUNK_HEADER: usize = 8;

/// The sizes of the bitstream headers; no other part of a bitstream is read.
const VP8_HEADER: u64 = 10;
const VP8L_HEADER: u64 = 5;

/// The flag in VP8X that says that there are frames.
const ANIMATION: u8 = 0b0000_0010;

#[derive(Debug)]
pub(crate) struct Webp {
    limits: Limits,
    state: State,
    /// The bytes that are left of the RIFF chunk behind the top-level chunk at hand.
    left: u64,
    /// The ANMF chunk at hand.
    frame: Option<Frame>,
    layout: Layout,
    image: Option<Image>,
    picture_seen: bool,
    /// Whether a picture is there to its end, so that the rest is of no matter.
    has_picture: bool,
    /// The pixels of all frames.
    framed: u64,
}

#[derive(Debug, Clone, Copy)]
enum State {
    ChunkHeader,
    /// The header of an extended file.
    Vp8x,
    /// The first bytes of a lossy bitstream, and how much of its chunk is behind them.
    Vp8 {
        rest: u64,
        padding: u64,
    },
    /// The same of a lossless one.
    Vp8l {
        rest: u64,
        padding: u64,
    },
    /// The header of a frame.
    Anmf,
    /// The rest of a bitstream, and then padding.
    Picture {
        padding: u64,
    },
    Skipped,
}

/// The layout of the file, as the first chunk decides it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layout {
    Undecided,
    Simple,
    ExtendedStill,
    /// Frames will come, and before them the ANIM chunk that says how they are played.
    AnimationAnnounced,
    Animated,
}

#[derive(Debug, Clone, Copy)]
struct Frame {
    width: u32,
    height: u32,
    /// The bytes that are left of the frame's chunk.
    left: u64,
    padding: u64,
    picture_seen: bool,
}

impl Webp {
    /// # Errors
    /// When the RIFF length in the signature leaves no room for an image.
    pub(crate) fn new(signature: &[u8], limits: Limits) -> Result<Self, SniffError> {
        let &[_, _, _, _, l0, l1, l2, l3, ref tag @ ..] = signature else {
            return malformed(SHORT);
        };
        // The length counts the tag.
        let length = u64::from(u32::from_le_bytes([l0, l1, l2, l3]));
        let Some(left) = length.checked_sub(tag.len() as u64).filter(|left| *left >= CHUNK_HEADER as u64)
        else {
            return malformed("its RIFF length leaves no room for an image");
        };
        Ok(Self {
            limits,
            state: State::ChunkHeader,
            left,
            frame: None,
            layout: Layout::Undecided,
            image: None,
            picture_seen: false,
            has_picture: false,
            framed: 0,
        })
    }

    /// Behind a chunk: the next one, or the end of the frame or of the file.
    fn next(&mut self) -> Result<Step, SniffError> {
        self.state = State::ChunkHeader;
        if let Some(frame) = self.frame {
            if frame.left >= CHUNK_HEADER as u64 {
                return Ok(Step::Take(CHUNK_HEADER));
            }
            if frame.left > 0 {
                return malformed(OVERLAP);
            }
            if !frame.picture_seen {
                return malformed("a frame has no picture");
            }
            self.frame = None;
            self.picture_seen = true;
            return Ok(self.skip(frame.padding));
        }
        match (self.left, self.image) {
            (0, Some(image)) if self.picture_seen => Ok(Step::End(image)),
            (0, _) => malformed("it has no picture"),
            (left, _) if left < CHUNK_HEADER as u64 => malformed(OVERLAP),
            _ => Ok(Step::Take(CHUNK_HEADER)),
        }
    }

    fn skip(&mut self, count: u64) -> Step {
        self.state = State::Skipped;
        Step::Skip(count)
    }

    fn chunk(&mut self, kind: [u8; 4], length: u32) -> Result<Step, SniffError> {
        let length = u64::from(length);
        let left = match &mut self.frame {
            Some(frame) => &mut frame.left,
            None => &mut self.left,
        };
        // Chunks begin at even places.
        let padding = length & 1;
        let Some(behind) = left.checked_sub(CHUNK_HEADER as u64 + length + padding) else {
            return malformed(OVERLAP);
        };
        *left = behind;

        match (&kind, self.layout) {
            (b"VP8X", Layout::Undecided) => {
                if length != 10 {
                    return malformed("its VP8X chunk is not of 10 bytes");
                }
                self.state = State::Vp8x;
                Ok(Step::Take(10))
            }
            (b"VP8 ", _) => {
                self.picture()?;
                let Some(rest) = length.checked_sub(VP8_HEADER) else {
                    return malformed(SHORT);
                };
                self.state = State::Vp8 { rest, padding };
                Ok(Step::Take(VP8_HEADER as usize))
            }
            (b"VP8L", _) => {
                self.picture()?;
                let Some(rest) = length.checked_sub(VP8L_HEADER) else {
                    return malformed(SHORT);
                };
                self.state = State::Vp8l { rest, padding };
                Ok(Step::Take(VP8L_HEADER as usize))
            }
            (_, Layout::Undecided) => malformed("its first chunk is not VP8, VP8L or VP8X"),
            (b"VP8X", _) => malformed("it has a second VP8X chunk"),
            (b"ANIM", Layout::AnimationAnnounced) => {
                if length != 6 {
                    return malformed("its ANIM chunk is not of 6 bytes");
                }
                self.layout = Layout::Animated;
                Ok(self.skip(length))
            }
            (b"ANMF", Layout::AnimationAnnounced) => malformed("a frame comes before ANIM"),
            (b"ANMF", Layout::Animated) if self.frame.is_none() => {
                let Some(left) = length.checked_sub(16) else {
                    return malformed(SHORT);
                };
                self.frame = Some(Frame { width: 0, height: 0, left, padding, picture_seen: false });
                self.state = State::Anmf;
                Ok(Step::Take(16))
            }
            _ => Ok(self.skip(length + padding)),
        }
    }

    /// Notes that a bitstream begins here, where one may.
    fn picture(&mut self) -> Result<(), SniffError> {
        let seen = match (&mut self.frame, self.layout) {
            (Some(frame), _) => &mut frame.picture_seen,
            (None, Layout::AnimationAnnounced | Layout::Animated) => {
                return malformed("it is animated and has a picture outside of its frames");
            }
            (None, Layout::Undecided) => {
                self.layout = Layout::Simple;
                &mut self.picture_seen
            }
            (None, Layout::Simple | Layout::ExtendedStill) => &mut self.picture_seen,
        };
        if *seen {
            return malformed("it has a second picture where one belongs");
        }
        *seen = true;
        Ok(())
    }

    /// Compares the size in a bitstream's header with that of the frame or the canvas around it; a simple file has no
    /// size but its bitstream's.
    fn sized(&mut self, width: u32, height: u32) -> Result<(), SniffError> {
        let around = match (self.frame, self.image) {
            (Some(frame), _) => (frame.width, frame.height),
            (None, Some(image)) => (image.width, image.height),
            (None, None) => {
                self.image = Some(self.limits.admit(Format::Webp, width, height)?);
                return Ok(());
            }
        };
        if around != (width, height) {
            return malformed("a picture is not of the size that is announced for it");
        }
        Ok(())
    }

    fn vp8x(&mut self, header: [u8; 10]) -> Result<Step, SniffError> {
        let [flags, _, _, _, w0, w1, w2, h0, h1, h2] = header;
        let (width, height) = (one_more(w0, w1, w2), one_more(h0, h1, h2));
        if width.checked_mul(height).is_none() {
            return malformed("its canvas has more than 2^32 - 1 pixels");
        }
        self.image = Some(self.limits.admit(Format::Webp, width, height)?);
        self.layout = if flags & ANIMATION == 0 { Layout::ExtendedStill } else { Layout::AnimationAnnounced };
        self.next()
    }

    /// The key frame header of RFC 6386, section 9.1.
    fn vp8(&mut self, header: [u8; 10], rest: u64) -> Result<(), SniffError> {
        let [t0, t1, t2, s0, s1, s2, w0, w1, h0, h1] = header;
        let tag = u32::from_le_bytes([t0, t1, t2, 0]);
        let is_key_frame = tag & 1 == 0;
        let version = (tag >> 1) & 7;
        let is_shown = tag & 0x10 != 0;
        let first_partition = tag >> 5;
        if !is_key_frame || version > 3 || !is_shown || [s0, s1, s2] != [0x9D, 0x01, 0x2A] {
            return malformed("its VP8 data does not begin with a key frame that is shown");
        }
        if u64::from(first_partition) >= VP8_HEADER + rest {
            return malformed("its VP8 data is shorter than its first partition");
        }
        // The upper two bits ask for a scaling that no decoder does.
        let width = u16::from_le_bytes([w0, w1]) & 0x3FFF;
        let height = u16::from_le_bytes([h0, h1]) & 0x3FFF;
        if width == 0 || height == 0 {
            return malformed("its width or height is 0");
        }
        self.sized(width.into(), height.into())
    }

    /// The header of RFC 9649, section 3.4.
    fn vp8l(&mut self, header: [u8; 5]) -> Result<(), SniffError> {
        let [signature, b0, b1, b2, b3] = header;
        let bits = u32::from_le_bytes([b0, b1, b2, b3]);
        let version = bits >> 29;
        if signature != 0x2F || version != 0 {
            return malformed("its VP8L data does not begin with a header of version 0");
        }
        self.sized((bits & 0x3FFF) + 1, ((bits >> 14) & 0x3FFF) + 1)
    }

    fn anmf(&mut self, header: [u8; 16]) -> Result<Step, SniffError> {
        let [x0, x1, x2, y0, y1, y2, w0, w1, w2, h0, h1, h2, _, _, _, _] = header;
        let (width, height) = (one_more(w0, w1, w2), one_more(h0, h1, h2));
        // Offsets are in units of two pixels. None of the sums exceeds 2^26.
        let right = 2 * u32::from_le_bytes([x0, x1, x2, 0]) + width;
        let bottom = 2 * u32::from_le_bytes([y0, y1, y2, 0]) + height;
        let fits = self.image.is_some_and(|image| right <= image.width && bottom <= image.height);
        if !fits {
            return malformed("a frame reaches beyond the canvas");
        }
        self.framed = self.framed.saturating_add(u64::from(width) * u64::from(height));
        self.limits.admit_framed(Format::Webp, self.framed)?;
        if let Some(frame) = &mut self.frame {
            frame.width = width;
            frame.height = height;
        }
        self.next()
    }
}

impl Walk for Webp {
    fn take(&mut self, bytes: &[u8]) -> Result<Step, SniffError> {
        match (self.state, bytes) {
            (State::ChunkHeader, &[k0, k1, k2, k3, l0, l1, l2, l3]) => {
                self.chunk([k0, k1, k2, k3], u32::from_le_bytes([l0, l1, l2, l3]))
            }
            (State::Skipped, []) => self.next(),
            (State::Picture { padding }, []) => {
                self.has_picture = true;
                Ok(self.skip(padding))
            }
            (State::Vp8x, bytes) => self.vp8x(exactly(bytes)?),
            (State::Vp8 { rest, padding }, bytes) => {
                self.vp8(exactly(bytes)?, rest)?;
                self.state = State::Picture { padding };
                Ok(Step::Skip(rest))
            }
            (State::Vp8l { rest, padding }, bytes) => {
                self.vp8l(exactly(bytes)?)?;
                self.state = State::Picture { padding };
                Ok(Step::Skip(rest))
            }
            (State::Anmf, bytes) => self.anmf(exactly(bytes)?),
            _ => malformed(SHORT),
        }
    }

    fn header(&self) -> Option<Image> {
        self.image
    }

    fn has_picture(&self) -> bool {
        self.has_picture
    }
}

fn exactly<const N: usize>(bytes: &[u8]) -> Result<[u8; N], SniffError> {
    <[u8; N]>::try_from(bytes).or_else(|_| malformed(SHORT))
}

/// Widths and heights of 24 bits are stored less one.
const fn one_more(low: u8, middle: u8, high: u8) -> u32 {
    u32::from_le_bytes([low, middle, high, 0]) + 1
}

const OVERLAP: &str = "a chunk reaches beyond the part that it belongs to";
const SHORT: &str = "a chunk is too short";

const fn malformed<T>(reason: &'static str) -> Result<T, SniffError> {
    Err(SniffError::Malformed { format: Format::Webp, reason })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use crate::tests::{
        ALPHA_WEBP, ANIMATED_WEBP, LIMITS, LOSSLESS_WEBP, LOSSY_WEBP, find, is_malformed, is_truncated,
        patched,
    };
    use crate::{Format, Image, SniffError, Sniffer, sniff};

    const IMAGE: Image = Image { format: Format::Webp, width: 3, height: 2 };

    fn chunk(kind: &[u8; 4], data: &[u8]) -> Vec<u8> {
        let length = u32::try_from(data.len()).unwrap().to_le_bytes();
        let padding = &b"\0"[..data.len() % 2];
        [&kind[..], &length, data, padding].concat()
    }

    fn webp(chunks: &[Vec<u8>]) -> Vec<u8> {
        chunk(b"RIFF", &[b"WEBP", &chunks.concat()[..]].concat())
    }

    /// A lossy bitstream of 3 x 2 that ends behind its header and one byte.
    fn vp8() -> Vec<u8> {
        chunk(b"VP8 ", b"\x10\0\0\x9D\x01\x2A\x03\0\x02\0x")
    }

    /// The same, lossless.
    fn vp8l() -> Vec<u8> {
        chunk(b"VP8L", b"\x2F\x02\x40\0\0x")
    }

    fn vp8x(flags: u8, width: u32, height: u32) -> Vec<u8> {
        let (width, height) = ((width - 1).to_le_bytes(), (height - 1).to_le_bytes());
        chunk(b"VP8X", &[&[flags, 0, 0, 0], &width[..3], &height[..3]].concat())
    }

    fn anmf(offset: u8, chunks: &[Vec<u8>]) -> Vec<u8> {
        let header = [offset, 0, 0, 0, 0, 0, 2, 0, 0, 1, 0, 0, 100, 0, 0, 0];
        chunk(b"ANMF", &[&header[..], &chunks.concat()].concat())
    }

    fn anim() -> Vec<u8> {
        chunk(b"ANIM", &[0; 6])
    }

    const STILL: u8 = 0;
    const ANIMATED: u8 = super::ANIMATION;

    #[test]
    fn the_fixtures_are_what_they_are_here_for() {
        assert_eq!(&LOSSY_WEBP.bytes[12..16], b"VP8 ");
        assert_eq!(&LOSSLESS_WEBP.bytes[12..16], b"VP8L");
        find(ALPHA_WEBP.bytes, b"ALPH");
        find(ANIMATED_WEBP.bytes, b"ANMF");
    }

    #[test]
    fn one_picture_or_frames_of_one_each_are_an_image() {
        let still = vp8x(STILL, 3, 2);
        let animated = vp8x(ANIMATED, 3, 2);
        let note = || chunk(b"EXIF", b"odd");
        let alpha = || chunk(b"ALPH", b"a");
        for chunks in [
            &[vp8()][..],
            &[vp8l()],
            &[vp8(), note()],
            &[still.clone(), note(), alpha(), vp8(), chunk(b"new!", b"")],
            &[still.clone(), vp8l()],
            // Behind a picture nothing matters.
            &[vp8(), vp8()],
            &[still, vp8(), vp8l()],
            &[vp8(), vec![0; 6]],
            &[animated.clone(), anim(), anmf(0, &[vp8(), vp8()])],
            &[animated.clone(), anim(), anmf(0, &[vp8()]), anmf(1, &[vp8()])],
            &[animated.clone(), anim(), anmf(0, &[vp8()])],
            &[
                animated,
                anim(),
                anmf(0, &[alpha(), vp8(), chunk(b"new!", b"odd")]),
                anmf(0, &[vp8l()]),
                note(),
            ],
        ] {
            assert_eq!(sniff(&webp(chunks), LIMITS), Ok(IMAGE));
        }
    }

    #[test]
    fn pictures_where_none_belong_and_missing_ones_are_refused() {
        let still = || vp8x(STILL, 3, 2);
        let animated = || vp8x(ANIMATED, 3, 2);
        for (why, chunks) in [
            ("nothing", &[][..]),
            ("no picture first", &[chunk(b"EXIF", b""), vp8()]),
            ("no picture", &[still()]),
            ("only a frame", &[still(), anmf(0, &[vp8()])]),
            ("two canvases", &[still(), still(), vp8()]),
            ("no frame", &[animated(), anim()]),
            ("a picture outside of frames", &[animated(), anim(), vp8()]),
            ("a picture before ANIM", &[animated(), vp8()]),
            ("a frame before ANIM", &[animated(), anmf(0, &[vp8()])]),
            ("a short ANIM", &[animated(), chunk(b"ANIM", &[0; 4]), anmf(0, &[vp8()])]),
            ("an empty frame", &[animated(), anim(), anmf(0, &[])]),
            ("a frame beyond the canvas", &[animated(), anim(), anmf(1, &[vp8()])]),
            ("a picture of another size", &[vp8x(STILL, 4, 2), vp8()]),
            ("a short canvas", &[chunk(b"VP8X", &[0; 8]), vp8()]),
            ("a short picture", &[chunk(b"VP8 ", &[0; 8])]),
            ("a short frame", &[animated(), anim(), chunk(b"ANMF", &[0; 8])]),
        ] {
            assert!(is_malformed(&webp(chunks)), "{why}");
        }
    }

    #[test]
    fn broken_bitstream_headers_are_refused_at_once() {
        for (why, header) in [
            ("no key frame", &b"\x11\0\0\x9D\x01\x2A\x03\0\x02\0"[..]),
            ("version 4", b"\x18\0\0\x9D\x01\x2A\x03\0\x02\0"),
            ("not shown", b"\0\0\0\x9D\x01\x2A\x03\0\x02\0"),
            ("a first partition of 10 bytes in 10", b"\x50\x01\0\x9D\x01\x2A\x03\0\x02\0"),
            ("no start code", b"\x10\0\0\x9D\x01\x2B\x03\0\x02\0"),
            ("no width", b"\x10\0\0\x9D\x01\x2A\0\x40\x02\0"),
            ("no height", b"\x10\0\0\x9D\x01\x2A\x03\0\0\x40"),
        ] {
            assert!(is_malformed(&webp(&[chunk(b"VP8 ", header)])), "{why}");
        }
        for (why, header) in
            [("no signature", &b"\x2E\x02\x40\0\0x"[..]), ("version 1", b"\x2F\x02\x40\0\x20x")]
        {
            assert!(is_malformed(&webp(&[chunk(b"VP8L", header)])), "{why}");
        }
    }

    #[test]
    fn the_riff_length_holds_a_picture() {
        let whole = webp(&[vp8()]);
        let length = u32::try_from(whole.len() - 8).unwrap();
        let with = |length: u32| patched(&whole, 4, &length.to_le_bytes());
        for length in [length, length + 1, length + 8] {
            assert_eq!(sniff(&with(length), LIMITS), Ok(IMAGE), "a rest that is missing");
        }
        for cut in 2..whole.len() {
            assert!(is_truncated(&whole[..whole.len() - cut]), "without the last {cut} bytes");
        }
        assert!(is_malformed(&with(length - 2)));
        assert!(is_malformed(&with(11)));
        assert!(is_malformed(&with(0)));
        // The padding of the last chunk, there and not counted: libwebp refuses it too.
        assert!(is_malformed(&with(length - 1)));
    }

    #[test]
    fn a_huge_canvas_is_refused_with_its_header() {
        let mut sniffer = Sniffer::new(LIMITS);
        assert!(matches!(
            sniffer.push(&webp(&[vp8x(STILL, 60_000, 60_000), vp8()])[..30]),
            Err(SniffError::TooManyPixels { width: 60_000, height: 60_000, .. })
        ));
        let beyond = webp(&[vp8x(STILL, 1 << 24, 1 << 24), vp8()]);
        assert!(is_malformed(&beyond));
    }
}
