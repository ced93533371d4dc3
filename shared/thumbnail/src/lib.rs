//! Makes narrower renditions of images: decodes, scales, turns upright, encodes.
//!
//! A rendition is a JPEG, or a PNG if anything shows through. It has the height that goes with its width, the
//! orientation that the camera noted (Exif), and in sRGB the colours that the image means (its ICC profile and the like). It
//! has no metadata. Of an animation it has the first frame.
//!
//! Pictures come from strangers, so the cost of one is known before it is decoded. [`Picture::memory`] returns the most
//! bytes that a picture takes, by its own pixels. A PNG is decoded row by row, unless it is interlaced. Metadata
//! (profiles, Exif) is read up to 4 MB, inflated, and text is never inflated. The limits of [`sniff`] bound the time of
//! decoding, and at last a limit on the processor's time does.

mod colour;
mod decode;
mod gif;
mod input;
mod jpeg;
mod scale;
mod target;
#[cfg(test)]
mod tests;
mod vp8;
mod vp8l;
#[cfg(test)]
mod wanted;

use std::time::Duration;

use image::codecs::png::PngEncoder;
use image::metadata::Orientation;
use image::{DynamicImage, GrayImage, RgbImage, RgbaImage};
use jpeg_encoder::{Encoder, ImageBuffer, JpegColorType, SamplingFactor, rgb_to_ycbcr};
use moxcms::ColorProfile;
use sniff::{Format, Image, Limits, Sniffer};

use colour::Samples;
use decode::Source;
use target::{Reason, Target};

/// The quality of a JPEG, of 100. Compared with a Lanczos filter of all pixels, photographs keep a structural similarity
/// (SSIM) of 0.98 on average (`bench pictures`).
const JPEG_QUALITY: u8 = 87;
/// The most pixels down that a JPEG can have.
const MOST_PIXELS_DOWN: u32 = 65_535;
/// The memory of a rendition besides its source picture, in bytes for each of its own pixels: four channels, twice
/// while it is turned, and the file.
const RENDITION_BYTES_A_PIXEL: u64 = 10;
/// The most processor time that decoding may take. The largest picture of the usual kinds takes a third of it; a
/// picture that takes longer was made to.
const TIME_LIMIT: Duration = Duration::from_secs(10);

/// A rendition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Thumbnail {
    /// JPEG or PNG.
    pub format: Format,
    /// Pixels across.
    pub width: u32,
    /// Pixels down.
    pub height: u32,
    /// The file.
    pub bytes: Vec<u8>,
}

/// There is no rendition of the image, and a repeated request does not change that.
#[derive(Debug, thiserror::Error)]
#[error("the pixels of the {format} image can't be decoded: {reason}")]
pub struct DecodeError {
    format: Format,
    reason: Reason,
}

/// An image whose structure is sound, before it is decoded.
pub struct Picture<'a> {
    source: Source<'a>,
    image: Image,
    orientation: Orientation,
    /// The most bytes that decoding takes, before anything is scaled.
    decoding: u64,
}

impl<'a> Picture<'a> {
    /// Examines an image without decoding it, and refuses one that would not be stored within these limits.
    ///
    /// # Errors
    /// [`DecodeError`].
    pub fn look(bytes: &'a [u8], format: Format, limits: Limits) -> Result<Self, DecodeError> {
        let failed = |reason| DecodeError { format, reason };
        let mut sniffer = Sniffer::new(limits);
        let pushed = sniffer.push(bytes);
        let orientation = Orientation::from_exif(sniffer.orientation()).unwrap_or(Orientation::NoTransforms);
        let image =
            pushed.and_then(|()| sniffer.finish()).map_err(|error| failed(Reason::Structure(error)))?;
        if image.format != format {
            let reason = Reason::Decoder(format!("it is a {} image", image.format));
            return Err(failed(reason));
        }
        let source = Source::new(bytes, image);
        let decoding = source.memory(image).map_err(failed)?;
        Ok(Self { source, image, orientation, decoding })
    }

    /// The most bytes of memory that making a rendition takes besides the image's own bytes.
    pub fn memory(&self, width: u32) -> u64 {
        let Image { width: across, height: down, .. } = self.image;
        let mut making = Making::of(width, self.orientation);
        // A rendition is made only if the image is wider.
        let Ok(Some(size)) = making.size(across, down) else { return self.decoding };
        let rendition = RENDITION_BYTES_A_PIXEL * u64::from(size.0) * u64::from(size.1);
        let scaling = self.source.scaling_memory(self.image, size);
        self.decoding.saturating_add(scaling).saturating_add(rendition)
    }

    /// The error of a rendition that takes more memory than the `most` bytes that there are for it.
    pub fn too_large(&self, width: u32, most: u64) -> DecodeError {
        DecodeError { format: self.image.format, reason: Reason::Memory { needed: self.memory(width), most } }
    }

    /// The rendition that is `width` pixels wide; none if the image is not wider itself. It takes milliseconds to
    /// seconds of computing.
    ///
    /// # Errors
    /// [`DecodeError`].
    pub fn rendition(self, width: u32) -> Result<Option<Thumbnail>, DecodeError> {
        self.rendition_within(width, TIME_LIMIT)
    }

    fn rendition_within(self, width: u32, limit: Duration) -> Result<Option<Thumbnail>, DecodeError> {
        let format = self.image.format;
        let mut making = Making::of(width, self.orientation);
        let made = self.source.decode(&mut making, limit).and_then(|()| making.finish());
        made.map_err(|reason| DecodeError { format, reason })
    }
}

impl std::fmt::Debug for Picture<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Picture").field("image", &self.image).finish_non_exhaustive()
    }
}

/// A rendition under way.
struct Making {
    width: u32,
    orientation: Orientation,
    /// The size as scaled, before it is turned upright.
    size: (u32, u32),
    /// Nothing, if the image is not wider.
    pixels: Option<(Vec<u8>, Samples)>,
    profile: Option<ColorProfile>,
}

impl Making {
    fn of(width: u32, orientation: Orientation) -> Self {
        Self { width, orientation, size: (0, 0), pixels: None, profile: None }
    }
}

impl Target for Making {
    fn size(&mut self, stored_across: u32, stored_down: u32) -> Result<Option<(u32, u32)>, Reason> {
        let is_turned = matches!(
            self.orientation,
            Orientation::Rotate90
                | Orientation::Rotate270
                | Orientation::Rotate90FlipH
                | Orientation::Rotate270FlipH
        );
        let turned = |across, down| if is_turned { (down, across) } else { (across, down) };
        let (across, down) = turned(stored_across, stored_down);
        if across <= self.width {
            return Ok(None);
        }
        let height = scaled(down, self.width, across);
        if height > MOST_PIXELS_DOWN {
            return Err(Reason::TooHigh { width: self.width, height, most: MOST_PIXELS_DOWN });
        }
        // Scaled first, so that turning it moves few pixels.
        self.size = turned(self.width, height);
        Ok(Some(self.size))
    }

    fn colours(&mut self, profile: Option<ColorProfile>) {
        self.profile = profile;
    }

    fn pixels(&mut self, pixels: Vec<u8>, samples: Samples) {
        self.pixels = Some((pixels, samples));
    }
}

impl Making {
    fn finish(self) -> Result<Option<Thumbnail>, Reason> {
        let Some((pixels, samples)) = self.pixels else { return Ok(None) };
        let (width, height) = self.size;
        let (pixels, samples) = colour::to_srgb(pixels, samples, self.profile.as_ref());
        let image = match samples {
            Samples::Grey => GrayImage::from_raw(width, height, pixels).map(DynamicImage::ImageLuma8),
            Samples::Rgb => RgbImage::from_raw(width, height, pixels).map(DynamicImage::ImageRgb8),
            _ => RgbaImage::from_raw(width, height, pixels).map(DynamicImage::ImageRgba8),
        };
        let mut image = image.ok_or(Reason::Incomplete)?;
        // Transparency is looked for here, where there are few pixels.
        let seen_through = image.as_rgba8().is_some_and(|small| small.pixels().any(|pixel| pixel.0[3] < 255));
        if !seen_through {
            image = DynamicImage::ImageRgb8(image.into_rgb8());
        }
        image.apply_orientation(self.orientation);
        let mut bytes = Vec::new();
        let format = if seen_through {
            image.write_with_encoder(PngEncoder::new(&mut bytes))?;
            Format::Png
        } else {
            let rgb = image.as_rgb8().ok_or(Reason::Incomplete)?;
            let mut encoder = Encoder::new(&mut bytes, JPEG_QUALITY);
            encoder.set_sampling_factor(SamplingFactor::F_2_2);
            encoder
                .encode_image(Halved(rgb))
                .map_err(|error| Reason::Decoder(format!("its rendition can't be written: {error}")))?;
            Format::Jpeg
        };
        Ok(Some(Thumbnail { format, width: image.width(), height: image.height(), bytes }))
    }
}

/// Luma of each pixel, and chroma of four pixels together: the encoder takes the upper left one of each four.
struct Halved<'a>(&'a RgbImage);

impl ImageBuffer for Halved<'_> {
    fn get_jpeg_color_type(&self) -> JpegColorType {
        JpegColorType::Ycbcr
    }

    fn width(&self) -> u16 {
        self.0.width().try_into().unwrap_or(u16::MAX)
    }

    fn height(&self) -> u16 {
        self.0.height().try_into().unwrap_or(u16::MAX)
    }

    fn fill_buffers(&self, y: u16, buffers: &mut [Vec<u8>; 4]) {
        let [luma, blue, red, _] = buffers;
        let bytes = 3 * self.0.width() as usize;
        let row = |at: usize| {
            let row = self.0.as_raw().get(at * bytes..(at + 1) * bytes).unwrap_or_default();
            row.as_chunks::<3>().0
        };
        let upper = row(usize::from(y));
        luma.extend(upper.iter().map(|&[r, g, b]| rgb_to_ycbcr(r, g, b).0));
        if y % 2 == 1 {
            // Nobody asks for these.
            blue.resize(blue.len() + upper.len(), 128);
            red.resize(red.len() + upper.len(), 128);
            return;
        }
        let lower = if y + 1 < self.height() { row(usize::from(y) + 1) } else { upper };
        for (upper, lower) in upper.chunks(2).zip(lower.chunks(2)) {
            let last = upper.len() - 1;
            let mean = |channel: usize| {
                let sum =
                    [upper[0], upper[last], lower[0], lower[last]].map(|pixel| u16::from(pixel[channel]));
                ((sum.iter().sum::<u16>() + 2) / 4) as u8
            };
            let (_, cb, cr) = rgb_to_ycbcr(mean(0), mean(1), mean(2));
            blue.resize(blue.len() + upper.len(), cb);
            red.resize(red.len() + upper.len(), cr);
        }
    }
}

/// `length` × `numerator` ÷ `denominator`, rounded, at least 1.
fn scaled(length: u32, numerator: u32, denominator: u32) -> u32 {
    let exact = u64::from(length) * u64::from(numerator);
    let rounded = (exact + u64::from(denominator) / 2) / u64::from(denominator).max(1);
    u32::try_from(rounded).unwrap_or(u32::MAX).max(1)
}
