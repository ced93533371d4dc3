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

mod exif;
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

    /// How browsers turn and mirror the picture, as the Exif block before its data asks for: 1 (not at all) to 8, as Exif
    /// numbers it. The [`Image`] has its size as it is stored; [`Image::shown`] is that of the turned one.
    pub fn orientation(&self) -> u8 {
        match &self.state {
            State::Walking(walker, _) => walker.orientation(),
            State::Signature | State::Failed(_) => 1,
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
                Identity::Known(Row { format, .. }) => SniffError::Truncated { format: *format },
                Identity::Beginning(format) => SniffError::Truncated { format },
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
                        Identity::Known(row) => {
                            let (walker, step) = (row.walk)(self.held.bytes(), self.limits)?;
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
                        let (read, next) = walker.walk().read(input)?;
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

/// As [`sniff`], of an image that must have its end too: a file that was written whole and may be damaged.
///
/// # Errors
/// As for [`sniff`]; [`SniffError::Truncated`] without an end.
pub fn sniff_to_end(bytes: &[u8], limits: Limits) -> Result<Image, SniffError> {
    let mut sniffer = Sniffer::new(limits);
    sniffer.push(bytes)?;
    match sniffer.state {
        State::Walking(walker, Step::Take(_) | Step::Skip(_) | Step::Read) => {
            Err(SniffError::Truncated { format: walker.format() })
        }
        _ => sniffer.finish(),
    }
}

#[derive(Debug)]
enum State {
    Signature,
    Walking(Walker, Step),
    Failed(SniffError),
}

macro_rules! walkers {
    ($($format:ident($walker:ty),)*) => {
        /// The walker of each format. It is no `Box<dyn Walk>`, so that a sniffer takes no memory of its own.
        #[derive(Debug)]
        enum Walker {
            $($format($walker),)*
        }

        impl Walker {
            const fn format(&self) -> Format {
                match self { $(Self::$format(_) => Format::$format,)* }
            }

            fn walk(&mut self) -> &mut dyn Walk {
                match self { $(Self::$format(walker) => walker,)* }
            }

            fn header(&self) -> Option<Image> {
                match self { $(Self::$format(walker) => walker.header(),)* }
            }

            fn has_picture(&self) -> bool {
                match self { $(Self::$format(walker) => walker.has_picture(),)* }
            }

            fn orientation(&self) -> u8 {
                match self { $(Self::$format(walker) => walker.orientation(),)* }
            }
        }
    };
}

walkers! {
    Png(png::Png),
    Jpeg(jpeg::Jpeg),
    Gif(gif::Gif),
    Webp(webp::Webp),
}

impl Walker {
    /// The image, if a whole picture of it is there.
    fn picture(&self) -> Option<Image> {
        self.header().filter(|_| self.has_picture())
    }

    /// Takes the bytes of a step. Behind a picture, what is illegal ends the image.
    fn take(&mut self, bytes: &[u8]) -> Result<Step, SniffError> {
        match (self.walk().take(bytes), self.picture()) {
            (Err(SniffError::Malformed { .. }), Some(image)) => Ok(Step::End(image)),
            (taken, _) => taken,
        }
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
    Known(&'static Row),
    /// Too few bytes to tell; so far they are those of this format.
    Beginning(Format),
    Unknown,
}

type Begun = Result<(Walker, Step), SniffError>;

/// The first bytes of a file of a format.
struct Row {
    format: Format,
    /// A question mark, which no signature contains, stands for any byte.
    signature: &'static [u8],
    /// The walker for the bytes behind the signature, and its first step.
    walk: fn(&[u8], Limits) -> Begun,
}

/// The signatures. No two formats begin alike, so one byte is enough to say what a file may become.
const ROWS: [Row; 5] = [
    Row {
        format: Format::Png,
        signature: b"\x89PNG\r\n\x1A\n",
        walk: |_, limits| Ok((Walker::Png(png::Png::new(limits)), png::FIRST)),
    },
    Row {
        format: Format::Jpeg,
        // SOI, and the first byte of the marker that must follow it.
        signature: b"\xFF\xD8\xFF",
        walk: |_, limits| Ok((Walker::Jpeg(jpeg::Jpeg::new(limits)), jpeg::FIRST)),
    },
    Row { format: Format::Gif, signature: b"GIF87a", walk: gif },
    Row { format: Format::Gif, signature: b"GIF89a", walk: gif },
    Row {
        format: Format::Webp,
        signature: b"RIFF????WEBP",
        walk: |signature, limits| Ok((Walker::Webp(webp::Webp::new(signature, limits)?), webp::FIRST)),
    },
];

fn gif(_: &[u8], limits: Limits) -> Begun {
    Ok((Walker::Gif(gif::Gif::new(limits)), gif::FIRST))
}

/// The bytes with which files of each format begin; `None` is any byte. Some formats have several beginnings.
pub fn signatures() -> impl Iterator<Item = (Format, Vec<Option<u8>>)> {
    let wanted = |byte: &u8| (*byte != b'?').then_some(*byte);
    ROWS.iter().map(move |row| (row.format, row.signature.iter().map(wanted).collect()))
}

fn identify(bytes: &[u8]) -> Identity {
    if bytes.is_empty() {
        return Identity::Empty;
    }
    let fits =
        |row: &&Row| bytes.iter().zip(row.signature).all(|(byte, wanted)| *wanted == b'?' || wanted == byte);
    match ROWS.iter().find(fits) {
        None => Identity::Unknown,
        Some(row) if bytes.len() < row.signature.len() => Identity::Beginning(row.format),
        Some(row) => Identity::Known(row),
    }
}
