//! Makes narrower renditions of images: decodes, turns upright, scales, encodes.
//!
//! A rendition is a JPEG, or a PNG if anything shows through. It has the height that goes with its width, the
//! orientation that the camera noted (Exif) and the colours that the image means (its ICC profile). Of an
//! animation it has the first frame.

#[cfg(test)]
mod tests;

use std::io::Cursor;

use image::codecs::jpeg::JpegEncoder;
use image::codecs::png::PngEncoder;
use image::error::{LimitError, LimitErrorKind};
use image::imageops::{self, FilterType};
use image::metadata::Orientation;
use image::{
    ColorType, DynamicImage, ImageDecoder as _, ImageEncoder, ImageError, ImageFormat, ImageReader, Limits,
    RgbImage, RgbaImage,
};
use sniff::Format;

/// The quality of a JPEG, of 100: no difference is seen at this size, and half the bytes of 92 are enough.
const JPEG_QUALITY: u8 = 82;
/// How much the decoded image may take, in bytes for each pixel of the largest: four channels of 8 bits. One with
/// more bits, or with an alpha channel that has to be made one of four, may have fewer pixels.
const BYTES_A_PIXEL: u64 = 4;
/// What decoding may allocate besides: as much again for the frame of an animation.
const WORK_BYTES_A_PIXEL: u64 = 4;
/// What it may allocate in any case.
const SPARE_BYTES: u64 = 1 << 20;
/// A colour profile that is longer than this would make up most of a small rendition.
const LONGEST_PROFILE_BYTES: usize = 8 << 10;

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

/// The image can't be decoded, though its structure is sound.
#[derive(Debug, thiserror::Error)]
#[error("the pixels of the {format} image can't be decoded: {source}")]
pub struct DecodeError {
    format: Format,
    source: ImageError,
}

/// The rendition of an image of at most `max_pixels` pixels (fewer, if each has more than 32 bits) that is `width` pixels wide; none if the image is
/// not wider itself. It takes milliseconds to seconds of computing, and some bytes of memory for each pixel.
///
/// # Errors
/// [`DecodeError`].
pub fn make(
    bytes: &[u8],
    format: Format,
    width: u32,
    max_pixels: u64,
) -> Result<Option<Thumbnail>, DecodeError> {
    try_make(bytes, format, width, max_pixels).map_err(|source| DecodeError { format, source })
}

fn try_make(
    bytes: &[u8],
    format: Format,
    width: u32,
    max_pixels: u64,
) -> Result<Option<Thumbnail>, ImageError> {
    let mut reader = ImageReader::with_format(Cursor::new(bytes), decoded_as(format));
    let mut limits = Limits::no_limits();
    limits.max_alloc =
        Some(max_pixels.saturating_mul(BYTES_A_PIXEL + WORK_BYTES_A_PIXEL).saturating_add(SPARE_BYTES));
    reader.limits(limits);
    let mut decoder = reader.into_decoder()?;
    let (stored_across, stored_down) = decoder.dimensions();
    let pixels = u64::from(stored_across) * u64::from(stored_down);
    let colours = decoder.color_type();
    let converted = if colours.has_alpha() && colours != ColorType::Rgba8 { pixels * 4 } else { 0 };
    let taken = decoder.total_bytes().saturating_add(converted);
    if pixels > max_pixels || taken > max_pixels.saturating_mul(BYTES_A_PIXEL) {
        return Err(ImageError::Limits(LimitError::from_kind(LimitErrorKind::DimensionError)));
    }
    let orientation = decoder.orientation()?;
    let is_turned = matches!(
        orientation,
        Orientation::Rotate90
            | Orientation::Rotate270
            | Orientation::Rotate90FlipH
            | Orientation::Rotate270FlipH
    );
    let turned = |across, down| if is_turned { (down, across) } else { (across, down) };
    let (across, down) = turned(stored_across, stored_down);
    if across <= width {
        return Ok(None);
    }
    let height = scaled(down, width, across);
    let profile = decoder.icc_profile()?.filter(|profile| is_for_rgb(profile));
    let mut image = DynamicImage::from_decoder(decoder)?;
    // Scaled first, so that turning it moves few pixels.
    let (first, second) = turned(width, height);
    image = if image.color().has_alpha() {
        DynamicImage::ImageRgba8(scale_rgba(image.into_rgba8(), first, second))
    } else {
        DynamicImage::ImageRgb8(scale_rgb(image, first, second))
    };
    // Looked for here, where there are few pixels.
    let seen_through = image.as_rgba8().is_some_and(|small| small.pixels().any(|pixel| pixel.0[3] < 255));
    if !seen_through {
        image = DynamicImage::ImageRgb8(image.into_rgb8());
    }
    image.apply_orientation(orientation);
    let mut bytes = Vec::new();
    let format = if seen_through {
        let encoder = PngEncoder::new(&mut bytes);
        write(&image, encoder, profile)?;
        Format::Png
    } else {
        let encoder = JpegEncoder::new_with_quality(&mut bytes, JPEG_QUALITY);
        write(&image, encoder, profile)?;
        Format::Jpeg
    };
    Ok(Some(Thumbnail { format, width: image.width(), height: image.height(), bytes }))
}

fn write(
    image: &DynamicImage,
    mut encoder: impl ImageEncoder,
    profile: Option<Vec<u8>>,
) -> Result<(), ImageError> {
    if let Some(profile) = profile {
        // Without it the image is there all the same, in colours that are a little off.
        let _ = encoder.set_icc_profile(profile);
    }
    image.write_with_encoder(encoder)
}

fn decoded_as(format: Format) -> ImageFormat {
    match format {
        Format::Png => ImageFormat::Png,
        Format::Jpeg => ImageFormat::Jpeg,
        Format::Gif => ImageFormat::Gif,
        Format::Webp => ImageFormat::WebP,
    }
}

/// `length` × `numerator` ÷ `denominator`, rounded, at least 1.
fn scaled(length: u32, numerator: u32, denominator: u32) -> u32 {
    let exact = u64::from(length) * u64::from(numerator);
    let rounded = (exact + u64::from(denominator) / 2) / u64::from(denominator).max(1);
    u32::try_from(rounded).unwrap_or(u32::MAX).max(1)
}

/// Whether an ICC profile is one for RGB, which is what is written: its header names the colour space (ICC.1,
/// section 7.2).
fn is_for_rgb(profile: &[u8]) -> bool {
    profile.len() <= LONGEST_PROFILE_BYTES && profile.get(16..20) == Some(b"RGB ")
}

/// Means of whole areas down to twice the size, which is fast, and from there a filter that keeps edges.
fn scale_rgb(mut image: DynamicImage, width: u32, height: u32) -> RgbImage {
    if image.width() > 4 * width && image.height() > 4 * height {
        image = image.thumbnail_exact(2 * width, 2 * height);
    }
    imageops::resize(&image.into_rgb8(), width, height, FilterType::CatmullRom)
}

/// The same with colours weighted by how opaque they are: what does not show has none to give.
fn scale_rgba(mut image: RgbaImage, width: u32, height: u32) -> RgbaImage {
    for pixel in image.pixels_mut() {
        let alpha = u32::from(pixel.0[3]);
        for channel in &mut pixel.0[..3] {
            *channel = u8::try_from((u32::from(*channel) * alpha + 127) / 255).unwrap_or(u8::MAX);
        }
    }
    if image.width() > 4 * width && image.height() > 4 * height {
        image = imageops::thumbnail(&image, 2 * width, 2 * height);
    }
    let mut scaled = imageops::resize(&image, width, height, FilterType::CatmullRom);
    for pixel in scaled.pixels_mut() {
        let alpha = u32::from(pixel.0[3]);
        for channel in &mut pixel.0[..3] {
            let whole = (u32::from(*channel) * 255 + alpha / 2).checked_div(alpha).unwrap_or_default();
            *channel = u8::try_from(whole).unwrap_or(u8::MAX);
        }
    }
    scaled
}
