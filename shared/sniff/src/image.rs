//! An image by its header: its format, its size, the limits for both, and why bytes are none.

use std::fmt;

use thiserror::Error;

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
    /// Every format, in the order in which sentences name them.
    pub const ALL: [Self; 4] = [Self::Png, Self::Jpeg, Self::Gif, Self::Webp];

    /// The name, the media type, and the usual ending of a file's name.
    const fn row(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::Png => ("PNG", "image/png", "png"),
            Self::Jpeg => ("JPEG", "image/jpeg", "jpg"),
            Self::Gif => ("GIF", "image/gif", "gif"),
            Self::Webp => ("WebP", "image/webp", "webp"),
        }
    }

    /// The name for people.
    pub const fn name(self) -> &'static str {
        self.row().0
    }

    /// The media type, for `Content-Type`.
    pub const fn content_type(self) -> &'static str {
        self.row().1
    }

    /// The usual ending of a file's name, without the dot.
    pub const fn extension(self) -> &'static str {
        self.row().2
    }

    /// All names within a sentence, with `conjunction` before the last: `PNG, JPEG, GIF or WebP`.
    pub fn names(conjunction: &str) -> String {
        let names = Self::ALL.map(Self::name);
        let [names @ .., last] = &names;
        format!("{} {conjunction} {last}", names.join(", "))
    }

    /// The format of a media type, whatever its case and its parameters.
    pub fn from_content_type(content_type: &str) -> Option<Self> {
        let essence = content_type.split(';').next()?.trim();
        Self::ALL.into_iter().find(|format| format.content_type().eq_ignore_ascii_case(essence))
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The format and the dimensions of an image, by its header, as it is stored: see [`Image::shown`].
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
    /// The same with the size at which it is shown, turned by this orientation (1 to 8, as Exif numbers it).
    pub const fn shown(self, orientation: u8) -> Self {
        match orientation {
            5..=8 => Self { width: self.height, height: self.width, ..self },
            _ => self,
        }
    }

    /// Width times height.
    pub(crate) fn pixels(self) -> u64 {
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
    pub(crate) fn admit_scanned(self, format: Format, got: u64) -> Result<(), SniffError> {
        self.admit_work(format, "scans x pixels", Self::SCANS, got)
    }

    /// Refuses an animation whose frames have too many pixels. `got` is their number so far.
    pub(crate) fn admit_framed(self, format: Format, got: u64) -> Result<(), SniffError> {
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

    pub(crate) fn admit(self, format: Format, width: u32, height: u32) -> Result<Image, SniffError> {
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
    #[error("the image must be a {} image, got no bytes", Format::names("or"))]
    Empty,
    /// The bytes are something else, an image of another format included.
    #[error("the image must be a {} image, got other bytes", Format::names("or"))]
    Unsupported,
    /// All bytes are legal, but they end before a picture does.
    #[error("the {format} image must be whole, got one that is cut off before its end")]
    Truncated {
        /// The format that the bytes began with.
        format: Format,
    },
    /// The signature is there, and something behind it is illegal.
    #[error("the {format} image must be well formed: {reason}")]
    Malformed {
        /// The format that the signature names.
        format: Format,
        /// The fault, worded to stand behind a colon.
        reason: &'static str,
    },
    /// The header claims more pixels than the limits allow.
    #[error("the {format} image must have at most {max_pixels} pixels, got {width} x {height}")]
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
