//! Tells PNG, JPEG, GIF and WebP by their bytes while these stream by, and walks the structure of the image to its end
//! without decoding pixels.
//!
//! A file name and a declared content type are claims; only the bytes decide what is stored. A [`Sniffer`] takes a body
//! in chunks of any size, and keeps a few dozen bytes whatever the image's size. It says the dimensions as soon as the
//! header is there, and fails with the first byte that rules an image out. An accepted image begins with a signature,
//! has a legal header and at least one whole picture, and asks no decoder for more work than the limits allow.
//!
//! The measure is the behaviour of browsers, not every letter of the specifications. Once a picture is there, a missing,
//! cut or damaged rest changes nothing: cameras append previews and video, and tools forget the last bytes. An upload
//! that broke off is told by its transport (length, chunks, boundary). Each module says what a whole picture is.

mod gif;
mod image;
mod jpeg;
mod png;
mod walk;
mod webp;

#[cfg(test)]
mod tests;

pub use image::{Format, Image, Limits, SniffError};
use walk::{LONGEST_TAKE, Step, Walk};

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

    /// Ends the body, and returns the image if it has a whole picture.
    ///
    /// # Errors
    /// The error of an earlier push, or an error that there were no bytes or too few.
    pub fn finish(self) -> Result<Image, SniffError> {
        match self.state {
            State::Walking(_, Step::End(image)) => Ok(image),
            State::Walking(walker, _) => {
                walker.picture().ok_or(SniffError::Truncated { format: walker.format() })
            }
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

#[derive(Debug)]
enum State {
    Signature,
    Walking(Walker, Step),
    Failed(SniffError),
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

    fn walk(&self) -> &dyn Walk {
        match self {
            Self::Png(png) => png,
            Self::Jpeg(jpeg) => jpeg,
            Self::Gif(gif) => gif,
            Self::Webp(webp) => webp,
        }
    }

    fn take(&mut self, bytes: &[u8]) -> Result<Step, SniffError> {
        let taken = match self {
            Self::Png(png) => png.take(bytes),
            Self::Jpeg(jpeg) => jpeg.take(bytes),
            Self::Gif(gif) => gif.take(bytes),
            Self::Webp(webp) => webp.take(bytes),
        };
        match (taken, self.picture()) {
            // What is illegal behind a picture ends the image.
            (Err(SniffError::Malformed { .. }), Some(image)) => Ok(Step::End(image)),
            (taken, _) => taken,
        }
    }

    fn read(&mut self, piece: &[u8]) -> Result<(usize, Step), SniffError> {
        match self {
            Self::Jpeg(jpeg) => jpeg.read(piece),
            // No other format has such a step.
            Self::Png(_) | Self::Gif(_) | Self::Webp(_) => Ok((piece.len(), Step::Read)),
        }
    }

    fn header(&self) -> Option<Image> {
        self.walk().header()
    }

    /// The image, if a whole picture of it is there.
    fn picture(&self) -> Option<Image> {
        self.walk().header().filter(|_| self.walk().has_picture())
    }
}

/// A few bytes that arrived in different chunks and are needed together.
#[derive(Debug, Default)]
struct Held {
    buffer: [u8; LONGEST_TAKE],
    len: usize,
}

impl Held {
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
