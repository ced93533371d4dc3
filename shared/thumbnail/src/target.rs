//! Shared by the decoders of all formats: the target of the rows, and the reasons why there may be none.

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

impl Reason {
    pub(crate) fn decoder(error: impl std::fmt::Debug) -> Self {
        // The sentences of some decoders begin with their own names, and have several lines.
        let mut text = format!("{error:?}").split_whitespace().collect::<Vec<_>>().join(" ");
        if let Some((at, _)) = text.char_indices().nth(300) {
            text.truncate(at);
        }
        Self::Decoder(text)
    }
}

/// The receiver of the rows of a picture.
pub(crate) trait Target {
    /// Gets the size and the channels of the rows that will come; false if none are wanted.
    fn begin(&mut self, across: u32, down: u32, samples: Samples) -> Result<bool, Reason>;

    /// Gets the colour profile.
    fn colours(&mut self, profile: Option<ColorProfile>);

    /// Gets the next row.
    fn row(&mut self, row: &[u8]);

    /// Gets all rows, each of so many bytes.
    fn rows(&mut self, pixels: &[u8], bytes_a_row: usize) -> Result<(), Reason> {
        for row in pixels.chunks_exact(bytes_a_row.max(1)) {
            self.row(row);
        }
        Ok(())
    }
}
