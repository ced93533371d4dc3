//! Shared by the decoders of all formats: the target of the pixels, and the reasons why there may be none.

use std::time::Duration;

use moxcms::ColorProfile;

use crate::colour::Samples;

/// The most bytes of a picture's metadata that are read; for a compressed colour profile, its inflated size. Text is
/// never inflated. A longer profile is left out.
pub(crate) const METADATA_BYTES: usize = 4 << 20;

/// Why a picture has no rendition.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Reason {
    #[error(transparent)]
    Structure(#[from] sniff::SniffError),
    #[error("{0}")]
    Decoder(String),
    #[error(transparent)]
    Image(#[from] image::ImageError),
    #[error("its pixels end too early")]
    Incomplete,
    #[error("that takes {needed} bytes of memory, and at most {most} are allowed")]
    Memory { needed: u64, most: u64 },
    #[error("that takes more than {} s of computing", .0.as_secs())]
    Time(Duration),
    #[error("it would be {height} pixels high at a width of {width}, and at most {most} are allowed")]
    TooHigh { width: u32, height: u32, most: u32 },
}

/// The receiver of a picture.
pub(crate) trait Target {
    /// Gets the size of the picture, and returns the one that is wanted of it; none if it is small enough itself.
    fn size(&mut self, across: u32, down: u32) -> Result<Option<(u32, u32)>, Reason>;

    /// Gets the colour profile.
    fn colours(&mut self, profile: Option<ColorProfile>);

    /// Gets the pixels in the wanted size.
    fn pixels(&mut self, pixels: Vec<u8>, samples: Samples);
}
