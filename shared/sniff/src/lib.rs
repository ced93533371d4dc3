//! Tells PNG, JPEG, GIF and WebP by their bytes while these stream by, and walks the structure of the image to its end
//! without decoding pixels.
//!
//! A file name and a declared content type are claims; only the bytes decide what is stored. A [`Sniffer`] takes a body
//! in chunks of any size, and keeps a few dozen bytes whatever the image's size. It says the dimensions as soon as the
//! header is there, and fails with the first byte that rules an image out. An accepted image begins with a signature,
//! has a legal header and every part up to its last one: PNG's IEND, JPEG's EOI, GIF's trailer, the length in WebP's
//! RIFF header. An upload that broke off is therefore never taken for an image.
//!
//! The measure is the behaviour of viewers, not every letter of the specifications. Bytes behind the image's end are
//! ignored in all four formats, because cameras append previews and video there. Parts that the common decoders skip
//! with a warning are ignored too. Each module says where it is lenient.

mod crc32;
mod gif;
mod jpeg;
mod png;
mod webp;

#[cfg(test)]
mod tests;

use std::fmt;

use thiserror::Error;

/// Reads an image chunk by chunk; see the crate's description for the checks.
///
/// After an error every further [`push`](Sniffer::push), and [`finish`](Sniffer::finish) too,
/// returns that error again, so a caller that goes on reading cannot turn it into a success.
#[derive(Debug)]
pub struct Sniffer {
    limits: Limits,
    state: State,
    /// Bytes of a signature or of a [`Step::Take`] that began in an earlier chunk.
    held: Held,
}

impl Sniffer {
    /// A sniffer that has seen nothing yet.
    pub fn new(limits: Limits) -> Self {
        Self { limits, state: State::Signature, held: Held::default() }
    }

    /// Takes the next bytes of the body, in a chunk of any size.
    ///
    /// # Errors
    /// An error as soon as the bytes seen so far rule out an image within the limits. It is never [`SniffError::Empty`]
    /// or [`SniffError::Truncated`], which only the end can tell.
    pub fn push(&mut self, chunk: &[u8]) -> Result<(), SniffError> {
        self.advance(chunk).inspect_err(|error| self.state = State::Failed(*error))
    }

    /// The format and the dimensions in the image's header, once it has been seen.
    ///
    /// The header alone proves nothing about the rest: only [`finish`](Sniffer::finish) does.
    pub fn header(&self) -> Option<Image> {
        match &self.state {
            State::Walking(walker, _) => walker.header(),
            State::Signature | State::Failed(_) => None,
        }
    }

    /// Ends the body, and returns the image if it was whole.
    ///
    /// # Errors
    /// The error of an earlier push, or an error that there were no bytes or too few.
    pub fn finish(self) -> Result<Image, SniffError> {
        match self.state {
            State::Walking(_, Step::End(image)) => Ok(image),
            State::Walking(walker, _) => Err(SniffError::Truncated { format: walker.format() }),
            State::Signature => Err(match identify(self.held.bytes()) {
                Identity::Empty => SniffError::Empty,
                Identity::Known(format) | Identity::Beginning(format) => SniffError::Truncated { format },
                Identity::Unknown => SniffError::Unsupported,
            }),
            State::Failed(error) => Err(error),
        }
    }

    fn advance(&mut self, mut input: &[u8]) -> Result<(), SniffError> {
        loop {
            match &mut self.state {
                State::Failed(error) => return Err(*error),
                State::Signature => {
                    let Some((byte, rest)) = input.split_first() else {
                        return Ok(());
                    };
                    input = rest;
                    self.held.push(*byte);
                    match identify(self.held.bytes()) {
                        Identity::Known(format) => {
                            let (walker, step) = Walker::new(format, self.held.bytes(), self.limits)?;
                            self.held.clear();
                            self.state = State::Walking(walker, step);
                        }
                        Identity::Empty | Identity::Beginning(_) => {}
                        Identity::Unknown => return Err(SniffError::Unsupported),
                    }
                }
                State::Walking(walker, step) => match *step {
                    Step::End(_) => return Ok(()),
                    Step::Take(count) => {
                        if self.held.is_empty()
                            && let Some((bytes, rest)) = input.split_at_checked(count)
                        {
                            input = rest;
                            *step = walker.take(bytes)?;
                        } else if self.held.fill(count, &mut input) {
                            *step = walker.take(self.held.bytes())?;
                            self.held.clear();
                        } else {
                            return Ok(());
                        }
                    }
                    Step::Skip(0) => *step = walker.take(&[])?,
                    Step::Skip(count) => {
                        if input.is_empty() {
                            return Ok(());
                        }
                        // A count beyond usize is longer than any slice.
                        let here = usize::try_from(count).map_or(input.len(), |count| count.min(input.len()));
                        input = &input[here..];
                        *step = Step::Skip(count - here as u64);
                    }
                    Step::Read => {
                        if input.is_empty() {
                            return Ok(());
                        }
                        let (read, next) = walker.read(input)?;
                        input = &input[read..];
                        *step = next;
                    }
                },
            }
        }
    }
}

/// Sniffs bytes that are all there.
///
/// # Errors
/// As for [`Sniffer::push`] and [`Sniffer::finish`].
pub fn sniff(bytes: &[u8], limits: Limits) -> Result<Image, SniffError> {
    let mut sniffer = Sniffer::new(limits);
    sniffer.push(bytes)?;
    sniffer.finish()
}

/// The image formats that are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// Portable Network Graphics, the animated kind (APNG) included.
    Png,
    /// JPEG: baseline, extended, progressive or lossless, Huffman or arithmetic coding.
    Jpeg,
    /// GIF87a and GIF89a, still or animated.
    Gif,
    /// WebP: lossy, lossless or extended, still or animated.
    Webp,
}

impl Format {
    const ALL: [Self; 4] = [Self::Png, Self::Jpeg, Self::Gif, Self::Webp];

    /// The media type, for `Content-Type`.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Png => "image/png",
            Self::Jpeg => "image/jpeg",
            Self::Gif => "image/gif",
            Self::Webp => "image/webp",
        }
    }

    /// The usual ending of a file's name, without the dot.
    pub const fn extension(self) -> &'static str {
        match self {
            Self::Png => "png",
            Self::Jpeg => "jpg",
            Self::Gif => "gif",
            Self::Webp => "webp",
        }
    }

    /// The format of a media type, whatever its case and its parameters.
    pub fn from_content_type(content_type: &str) -> Option<Self> {
        let essence = content_type.split(';').next()?.trim();
        Self::ALL.into_iter().find(|format| format.content_type().eq_ignore_ascii_case(essence))
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Png => "PNG",
            Self::Jpeg => "JPEG",
            Self::Gif => "GIF",
            Self::Webp => "WebP",
        })
    }
}

/// The format and the dimensions of an image, by its header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Image {
    /// The format that the bytes have, whatever was claimed.
    pub format: Format,
    /// Pixels across, of the whole canvas; never 0.
    pub width: u32,
    /// Pixels down, of the whole canvas; never 0.
    pub height: u32,
}

impl Image {
    /// Width times height.
    fn pixels(self) -> u64 {
        u64::from(self.width) * u64::from(self.height)
    }
}

/// The limits of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The most pixels, width times height, that a canvas may have. It is checked as soon as the
    /// header is parsed, because a few bytes can claim a picture that no memory holds.
    ///
    /// It also bounds the work that a decoder repeats: the scans of a JPEG go over at most [`SCANS`](Limits::SCANS)
    /// times as many pixels, the frames of an animation have at most [`FRAMES`](Limits::FRAMES) times as many together.
    pub max_pixels: u64,
}

impl Limits {
    /// How many scans a JPEG of [`Limits::max_pixels`] pixels may have; a smaller one may have more. Encoders write up
    /// to about a dozen. Each scan can be a few bytes long, but makes a decoder go over the whole picture.
    pub const SCANS: u64 = 16;
    /// How many frames of [`Limits::max_pixels`] pixels an animation may have; smaller ones may be more. A
    /// rendition needs the first one only, a browser needs all.
    pub const FRAMES: u64 = 100;

    /// Refuses an image whose scans go over too many pixels. `got` is their number so far.
    fn admit_scanned(self, format: Format, got: u64) -> Result<(), SniffError> {
        self.admit_work(format, "scans x pixels", Self::SCANS, got)
    }

    /// Refuses an animation whose frames have too many pixels. `got` is their number so far.
    fn admit_framed(self, format: Format, got: u64) -> Result<(), SniffError> {
        self.admit_work(format, "frames x pixels", Self::FRAMES, got)
    }

    fn admit_work(
        self,
        format: Format,
        product: &'static str,
        times: u64,
        got: u64,
    ) -> Result<(), SniffError> {
        let most = self.max_pixels.saturating_mul(times);
        if got > most { Err(SniffError::TooMuchWork { format, product, most, got }) } else { Ok(()) }
    }

    fn admit(self, format: Format, width: u32, height: u32) -> Result<Image, SniffError> {
        if u64::from(width) * u64::from(height) > self.max_pixels {
            return Err(SniffError::TooManyPixels { format, width, height, max_pixels: self.max_pixels });
        }
        Ok(Image { format, width, height })
    }
}

/// Why bytes are not stored as an image. The texts are plain ASCII on one line, so that they fit
/// into the header of a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SniffError {
    /// There was no byte.
    #[error("the image is empty: send the bytes of a PNG, JPEG, GIF or WebP image")]
    Empty,
    /// The bytes are something else, an image of another format included.
    #[error("not an image that is stored here: PNG, JPEG, GIF and WebP are allowed")]
    Unsupported,
    /// All bytes are legal, but they end before the image does.
    #[error("the {format} image is cut off before its end: send the whole file")]
    Truncated {
        /// The format that the bytes began with.
        format: Format,
    },
    /// The signature is there, and something behind it is illegal.
    #[error("not a valid {format} image: {reason}")]
    Malformed {
        /// The format that the signature names.
        format: Format,
        /// The fault, worded to stand behind a colon.
        reason: &'static str,
    },
    /// The header claims more pixels than the limits allow.
    #[error("the {format} image has {width} x {height} pixels: at most {max_pixels} pixels are allowed")]
    TooManyPixels {
        /// The format that the signature names.
        format: Format,
        /// Pixels across, of the canvas or to the end of a GIF frame beyond it.
        width: u32,
        /// Pixels down, likewise.
        height: u32,
        /// [`Limits::max_pixels`].
        max_pixels: u64,
    },
    /// A few bytes make a decoder do too much work: the scans of a JPEG, the frames of an animation.
    #[error("decoding the {format} image takes too long: {product} must be at most {most}, got {got}")]
    TooMuchWork {
        /// The format that the signature names.
        format: Format,
        /// The factors of the product that is limited.
        product: &'static str,
        /// The most that is allowed.
        most: u64,
        /// The product when the limit was passed; that of the whole image may be larger.
        got: u64,
    },
}

#[derive(Debug)]
enum State {
    Signature,
    Walking(Walker, Step),
    Failed(SniffError),
}

/// The next step that a walker asks for. The driver in [`Sniffer::advance`] hides the borders between chunks everywhere
/// but in [`Walk::read`].
#[derive(Debug, Clone, Copy)]
enum Step {
    /// So many bytes in one piece, at least 1 and at most [`Held::CAPACITY`].
    Take(usize),
    /// So many bytes are passed over unread; then `take` is called with none.
    Skip(u64),
    /// The bytes as they come, through [`Walk::read`].
    Read,
    /// The image is whole; what follows is not part of it.
    End(Image),
}

/// The structure of one format behind its signature: a state machine that takes bytes and answers with the step that it
/// needs next.
trait Walk {
    /// Gets the bytes that a [`Step::Take`] asked for, or nothing after a [`Step::Skip`]. Another number of bytes
    /// cannot come; walkers call it malformed, because that is safer than a panic.
    fn take(&mut self, bytes: &[u8]) -> Result<Step, SniffError>;

    /// Gets all bytes at hand, at least one, after a [`Step::Read`], and returns how many of them it has handled. A
    /// format without such a step does not need this.
    fn read(&mut self, piece: &[u8]) -> Result<(usize, Step), SniffError> {
        Ok((piece.len(), Step::Read))
    }

    fn header(&self) -> Option<Image>;
}

#[derive(Debug)]
enum Walker {
    Png(png::Png),
    Jpeg(jpeg::Jpeg),
    Gif(gif::Gif),
    Webp(webp::Webp),
}

impl Walker {
    /// The walker for the bytes behind `signature`, and its first step.
    fn new(format: Format, signature: &[u8], limits: Limits) -> Result<(Self, Step), SniffError> {
        Ok(match format {
            Format::Png => (Self::Png(png::Png::new(limits)), png::FIRST),
            Format::Jpeg => (Self::Jpeg(jpeg::Jpeg::new(limits)), jpeg::FIRST),
            Format::Gif => (Self::Gif(gif::Gif::new(limits)), gif::FIRST),
            Format::Webp => (Self::Webp(webp::Webp::new(signature, limits)?), webp::FIRST),
        })
    }

    const fn format(&self) -> Format {
        match self {
            Self::Png(_) => Format::Png,
            Self::Jpeg(_) => Format::Jpeg,
            Self::Gif(_) => Format::Gif,
            Self::Webp(_) => Format::Webp,
        }
    }

    fn take(&mut self, bytes: &[u8]) -> Result<Step, SniffError> {
        match self {
            Self::Png(png) => png.take(bytes),
            Self::Jpeg(jpeg) => jpeg.take(bytes),
            Self::Gif(gif) => gif.take(bytes),
            Self::Webp(webp) => webp.take(bytes),
        }
    }

    fn read(&mut self, piece: &[u8]) -> Result<(usize, Step), SniffError> {
        match self {
            Self::Png(png) => png.read(piece),
            Self::Jpeg(jpeg) => jpeg.read(piece),
            Self::Gif(gif) => gif.read(piece),
            Self::Webp(webp) => webp.read(piece),
        }
    }

    fn header(&self) -> Option<Image> {
        match self {
            Self::Png(png) => png.header(),
            Self::Jpeg(jpeg) => jpeg.header(),
            Self::Gif(gif) => gif.header(),
            Self::Webp(webp) => webp.header(),
        }
    }
}

/// A few bytes that arrived in different chunks and are needed together.
#[derive(Debug, Default)]
struct Held {
    buffer: [u8; Self::CAPACITY],
    len: usize,
}

impl Held {
    /// The longest piece that any walker takes at once is a JPEG frame header of four components,
    /// 18 bytes.
    const CAPACITY: usize = 18;

    fn bytes(&self) -> &[u8] {
        &self.buffer[..self.len]
    }

    const fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn clear(&mut self) {
        self.len = 0;
    }

    fn push(&mut self, byte: u8) {
        self.buffer[self.len] = byte;
        self.len += 1;
    }

    /// Moves bytes from `input` until `count` are held; false if more have to arrive first.
    fn fill(&mut self, count: usize, input: &mut &[u8]) -> bool {
        let here = (count - self.len).min(input.len());
        let (bytes, rest) = input.split_at(here);
        self.buffer[self.len..self.len + here].copy_from_slice(bytes);
        self.len += here;
        *input = rest;
        self.len == count
    }
}

enum Identity {
    Empty,
    /// A whole signature.
    Known(Format),
    /// Too few bytes to tell; so far they are those of this format.
    Beginning(Format),
    Unknown,
}

/// The signatures; a question mark, which none of them contains, stands for any byte. No two
/// formats begin alike, so one byte is enough to say what a file may become.
const SIGNATURES: [(Format, &[u8]); 5] = [
    (Format::Png, b"\x89PNG\r\n\x1A\n"),
    // SOI, and the first byte of the marker that must follow it.
    (Format::Jpeg, b"\xFF\xD8\xFF"),
    (Format::Gif, b"GIF87a"),
    (Format::Gif, b"GIF89a"),
    (Format::Webp, b"RIFF????WEBP"),
];

fn identify(bytes: &[u8]) -> Identity {
    if bytes.is_empty() {
        return Identity::Empty;
    }
    SIGNATURES
        .into_iter()
        .find(|(_, signature)| {
            bytes.iter().zip(*signature).all(|(byte, wanted)| *wanted == b'?' || wanted == byte)
        })
        .map_or(Identity::Unknown, |(format, signature)| {
            if bytes.len() < signature.len() { Identity::Beginning(format) } else { Identity::Known(format) }
        })
}
