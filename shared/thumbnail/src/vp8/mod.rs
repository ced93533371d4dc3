//! Key frames of VP8 (RFC 6386), which lossy WebP pictures are, for renditions that are much smaller.
//!
//! Luma and chroma are scaled by themselves, each from the size that it is coded at, and colours are mixed at the end where
//! there are few pixels. Rows of macroblocks go to the scalers as they come, so the memory grows with the width and not
//! with the pixels.
//!
//! The loop filter is left out: pixels are predicted from unfiltered ones, and the filter only smooths the edges of blocks,
//! which do not show once the picture is scaled down. libwebp leaves it out too, for pictures that it scales to less
//! than three quarters.
//!
//! Missing bits are read as zeros, as in libwebp.

mod bool_decoder;
mod decoder;
mod header;
mod predict;
mod tables;
#[cfg(test)]
mod tests;
mod tokens;
mod transform;

use decoder::Decoder;
use header::Frame;

use crate::colour::{self, Samples};
use crate::input::Clock;
use crate::scale::{self, Rows, Side};
use crate::target::{Reason, Target};

/// A key frame, before it is decoded.
pub(crate) struct Vp8<'a> {
    data: &'a [u8],
    /// In pixels, across and down.
    pub(crate) size: (u32, u32),
}

impl<'a> Vp8<'a> {
    /// The key frame in the chunk of a WebP; `None` if it is none.
    pub(crate) fn new(data: &'a [u8]) -> Option<Self> {
        Some(Self { data, size: header::size(data)? })
    }

    /// Whether it is scaled to less than three quarters, so that the loop filter can be left out.
    pub(crate) fn is_scaled_down(&self, width: u32, height: u32) -> bool {
        let is_less = |small: u32, large: u32| 4 * u64::from(small) < 3 * u64::from(large);
        is_less(width, self.size.0) && is_less(height, self.size.1)
    }

    /// The most bytes that decoding it takes for this width.
    pub(crate) fn memory(&self, width: u32) -> u64 {
        let (across, _) = self.size;
        decoder::memory(across)
            + scale::memory_of_rows(across, width, 1)
            + 2 * scale::memory_of_rows(across.div_ceil(2), width, 1)
    }

    pub(crate) fn decode(
        self,
        (width, height): (u32, u32),
        target: &mut impl Target,
        clock: Clock,
    ) -> Result<(), Reason> {
        let (across, down) = self.size;
        let mut decoder = Decoder::new(Frame::new(self.data)?);
        // Chroma has half a sample too much where a side is odd.
        let half = |length: u32| Side { length: f64::from(length) / 2.0, count: length.div_ceil(2) };
        let plane = |across, down| Rows::of(across, down, width, height, Samples::Grey);
        let chroma = || plane(half(across), half(down));
        let mut planes = [plane(Side::of(across, 1, 1), Side::of(down, 1, 1)), chroma(), chroma()];
        for row in 0..decoder.count() {
            clock.look()?;
            for (at, (plane, pixels)) in planes.iter_mut().zip(decoder.next()).enumerate() {
                let each = if at == decoder::LUMA { 1 } else { 2 };
                let (length, rows) = (across.div_ceil(each), down.div_ceil(each) - row * 16 / each);
                let stride = (across.div_ceil(16) * 16 / each) as usize;
                for pixels in pixels.chunks_exact(stride).take(rows as usize) {
                    plane.push(&pixels[..length as usize]);
                }
            }
        }
        let [luma, blue, red] = planes.map(Rows::finish);
        target.pixels(colour::STUDIO.mix(&luma, &blue, &red), Samples::Rgb);
        Ok(())
    }
}
