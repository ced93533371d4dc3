//! Pictures as rows: the memory that decoding one takes, and the decoding.

use std::borrow::Cow;
use std::time::Duration;

use image::codecs::webp::WebPDecoder;
use image::{ColorType, ImageDecoder};
use png::Transformations;
use sniff::Format;

use crate::colour::{self, Samples};
use crate::gif;
use crate::input::{Clock, Input};
use crate::jpeg::Jpeg;
use crate::scale::{self, Rows};
use crate::target::{METADATA_BYTES, Reason, Target};
use crate::vp8::Vp8;
use crate::vp8l;

/// A compressed profile that is longer than this inflates to more than is looked at, or hardly shrinks.
const COMPRESSED_PROFILE_BYTES: u32 = 1 << 20;
/// How often the time of decoding is checked: after so many rows.
const ROWS_A_LOOK: u32 = 1 << 10;

/// A picture whose structure is sound, before it is decoded.
pub(crate) enum Source<'a> {
    Png(&'a [u8]),
    Jpeg(Box<Jpeg<'a>>),
    /// With the size of its canvas.
    Gif(&'a [u8], (u32, u32)),
    /// With its only frame, if that is lossy and opaque.
    Webp(&'a [u8], Option<Vp8<'a>>),
}

impl<'a> Source<'a> {
    pub(crate) fn new(bytes: &'a [u8], image: sniff::Image) -> Self {
        match image.format {
            Format::Png => Self::Png(bytes),
            Format::Jpeg => Self::Jpeg(Box::new(Jpeg::new(bytes))),
            Format::Gif => Self::Gif(bytes, (image.width, image.height)),
            Format::Webp => Self::Webp(bytes, lossy(bytes)),
        }
    }

    /// The most bytes that decoding it takes, whatever the width of the rendition.
    pub(crate) fn memory(&self, image: sniff::Image) -> Result<u64, Reason> {
        match self {
            Self::Png(bytes) => Ok(png_memory(bytes, image)),
            // It is decoded to the size that is wanted.
            Self::Jpeg(_) => Ok(0),
            Self::Gif(bytes, canvas) => Ok(gif::memory(bytes, *canvas)),
            Self::Webp(bytes, frame) => {
                let profile = webp_chunks(bytes, BEHIND_RIFF).find(|(kind, _)| kind == b"ICCP");
                let profile = profile.map_or(0, |(_, content)| content.len().min(METADATA_BYTES) as u64);
                // Of a lossy one the rest depends on the width.
                let pixels = if frame.is_some() { 0 } else { webp_memory(bytes, image)? };
                Ok(pixels + colour::memory(profile))
            }
        }
    }

    /// The most bytes that scaling it to this size takes.
    pub(crate) fn scaling_memory(&self, image: sniff::Image, size: (u32, u32)) -> u64 {
        match self {
            Self::Jpeg(jpeg) => jpeg.memory(size),
            Self::Webp(_, Some(frame)) if frame.is_scaled_down(size.0, size.1) => frame.memory(size.0),
            Self::Webp(bytes, Some(_)) => {
                let pixels = webp_memory(bytes, image).unwrap_or(u64::MAX);
                pixels.saturating_add(scale::memory_of_rows(image.width, size.0, 4))
            }
            _ => scale::memory_of_rows(image.width, size.0, 4),
        }
    }

    pub(crate) fn decode(self, target: &mut impl Target, limit: Duration) -> Result<(), Reason> {
        let clock = Clock::start(limit);
        match self {
            Self::Png(bytes) => png(bytes, target, clock),
            Self::Jpeg(jpeg) => jpeg.decode(target, clock),
            Self::Gif(bytes, canvas) => gif::decode(bytes, canvas, target, clock),
            Self::Webp(bytes, frame) => {
                // Browsers do not look at the Exif block of a WebP. They apply a profile that the flags announce, and
                // none to an animation.
                let announced = bytes.get(12..16) == Some(b"VP8X")
                    && bytes.get(20).is_some_and(|flags| flags & 0x22 == 0x20);
                let profile = webp_chunks(bytes, BEHIND_RIFF).find(|(kind, _)| announced && kind == b"ICCP");
                let profile = profile.map(|(_, profile)| profile);
                let profile = profile.filter(|profile| profile.len() <= METADATA_BYTES);
                target.colours(profile.and_then(colour::of_profile));
                if let Some(frame) = frame {
                    let (across, down) = frame.size;
                    let Some((width, height)) = target.size(across, down)? else { return Ok(()) };
                    if frame.is_scaled_down(width, height) {
                        return frame.decode((width, height), target, clock);
                    }
                }
                let bytes = &*with_flags_of_chunks(bytes);
                whole(WebPDecoder::new(Input::new(bytes, clock))?, target, clock)
            }
        }
    }
}

/// Decodes all pixels at once, for a decoder that gives no rows.
fn whole(decoder: impl ImageDecoder, target: &mut impl Target, clock: Clock) -> Result<(), Reason> {
    let (across, down) = decoder.dimensions();
    let samples = match decoder.color_type() {
        ColorType::Rgb8 => Samples::Rgb,
        ColorType::Rgba8 => Samples::Rgba,
        other => return Err(Reason::Decoder(format!("its colours are {other:?}"))),
    };
    let Some((width, height)) = target.size(across, down)? else { return Ok(()) };
    let bytes_a_row = across as usize * samples.channels();
    let mut pixels = vec![0; down as usize * bytes_a_row];
    decoder.read_image(&mut pixels)?;
    clock.look()?;
    let mut rows = Rows::new(across, down, width, height, samples);
    pixels.chunks_exact(bytes_a_row.max(1)).for_each(|row| rows.push(row));
    target.pixels(rows.finish(), samples);
    Ok(())
}

/// Depth, colour type and interlacing of a PNG, whose first chunk is its header.
fn png_header(png: &[u8]) -> Option<(u8, u8, bool)> {
    let &[depth, colour, _, _, interlace] = png.get(24..29)?.first_chunk::<5>()?;
    Some((depth, colour, interlace != 0))
}

/// The type and the length of each chunk.
fn png_chunks(png: &[u8]) -> impl Iterator<Item = ([u8; 4], u32)> {
    let mut at = 8_usize;
    std::iter::from_fn(move || {
        let header = png.get(at..at.checked_add(8)?)?;
        let (length, kind) = (header.first_chunk::<4>()?, header.last_chunk::<4>()?);
        let length = u32::from_be_bytes(*length);
        at = at.checked_add(12)?.checked_add(length as usize)?;
        Some((*kind, length))
    })
}

fn png_memory(bytes: &[u8], image: sniff::Image) -> u64 {
    let Some((depth, colour, is_interlaced)) = png_header(bytes) else { return 0 };
    // A palette is resolved, and one colour of a picture may be made transparent.
    let channels = match colour {
        0 => 2,
        4 => 2,
        _ => 4,
    };
    let row = u64::from(image.width) * channels;
    let rows = 8 * row * if depth == 16 { 2 } else { 1 } + (1 << 20);
    let metadata = METADATA_BYTES as u64;
    // Deflate makes at most 1,032 bytes of one.
    let profile = png_chunks(bytes).take_while(|(kind, _)| kind != b"IDAT").find(|(kind, _)| kind == b"iCCP");
    let profile = profile.map_or(0, |(_, length)| metadata.min(1032 * u64::from(length)));
    rows + metadata + colour::memory(profile) + if is_interlaced { row * u64::from(image.height) } else { 0 }
}

fn png(bytes: &[u8], target: &mut impl Target, clock: Clock) -> Result<(), Reason> {
    let row_bytes = png_header(bytes).map_or(0, |_| {
        let width =
            bytes.get(16..20).and_then(|width| width.first_chunk()).map_or(0, |w| u32::from_be_bytes(*w));
        (width as usize).saturating_mul(8)
    });
    let limits = png::Limits { bytes: METADATA_BYTES.saturating_add(row_bytes) };
    let mut decoder = png::Decoder::new_with_limits(Input::new(bytes, clock), limits);
    decoder.set_ignore_text_chunk(true);
    let is_long = png_chunks(bytes)
        .take_while(|(kind, _)| kind != b"IDAT")
        .any(|(kind, length)| &kind == b"iCCP" && length > COMPRESSED_PROFILE_BYTES);
    decoder.set_ignore_iccp_chunk(is_long);
    // Two bytes a sample become one, the upper.
    decoder.set_transformations(Transformations::EXPAND | Transformations::STRIP_16);
    let mut reader = decoder.read_info().map_err(Reason::png)?;
    let (across, down) = reader.info().size();
    let stored = reader.output_color_type().0.samples();
    let samples = match stored {
        1 => Samples::Grey,
        3 => Samples::Rgb,
        _ => Samples::Rgba,
    };
    let Some((width, height)) = target.size(across, down)? else { return Ok(()) };
    target.colours(colour::of_png(reader.info()));
    let mut rows = Rows::new(across, down, width, height, samples);
    let mut scratch = Vec::new();
    if reader.info().interlaced {
        let bytes = reader.output_buffer_size().ok_or(Reason::Incomplete)?;
        let mut pixels = vec![0; bytes];
        reader.next_frame(&mut pixels).map_err(Reason::png)?;
        for row in pixels.chunks_exact(across as usize * stored) {
            rows.push(plain(row, stored, &mut scratch));
        }
        target.pixels(rows.finish(), samples);
        return Ok(());
    }
    for at in 0..down {
        if at % ROWS_A_LOOK == 0 {
            clock.look()?;
        }
        let row = reader.next_row().map_err(Reason::png)?.ok_or(Reason::Incomplete)?;
        rows.push(plain(row.data(), stored, &mut scratch));
    }
    target.pixels(rows.finish(), samples);
    Ok(())
}

/// A row with three colours where there is an alpha channel.
fn plain<'a>(row: &'a [u8], channels: usize, scratch: &'a mut Vec<u8>) -> &'a [u8] {
    if channels != 2 {
        return row;
    }
    let (pixels, _) = row.as_chunks::<2>();
    scratch.clear();
    scratch.extend(pixels.iter().flat_map(|[grey, alpha]| [*grey, *grey, *grey, *alpha]));
    scratch
}

/// A WebP whose flags promise nothing that is not there, which the decoder would refuse. An animation is one that may show
/// through: where its first frame does not reach, it does.
fn with_flags_of_chunks(webp: &[u8]) -> Cow<'_, [u8]> {
    const FLAGS_AT: usize = 20;
    const ANIMATED: u8 = 0x02;
    const OPACITY: u8 = 0x10;
    let Some((b"VP8X", flags)) = webp.get(12..16).and_then(|kind| kind.first_chunk()).zip(webp.get(FLAGS_AT))
    else {
        return Cow::Borrowed(webp);
    };
    let has = |wanted: &[u8; 4]| webp_chunks(webp, BEHIND_RIFF).any(|(kind, _)| kind == *wanted);
    let mut changed = *flags;
    for (kind, flag) in [(b"ICCP", 0x20), (b"EXIF", 0x08), (b"XMP ", 0x04)] {
        if !has(kind) {
            changed &= !flag;
        }
    }
    if flags & ANIMATED != 0 {
        changed |= OPACITY;
    } else if has(b"VP8 ") && !has(b"ALPH") {
        changed &= !OPACITY;
    }
    if changed == *flags {
        return Cow::Borrowed(webp);
    }
    let mut copy = webp.to_vec();
    copy[FLAGS_AT] = changed;
    Cow::Owned(copy)
}

/// The type and the content of each chunk of the file itself, or of a frame, behind so many bytes.
fn webp_chunks(webp: &[u8], behind: usize) -> impl Iterator<Item = ([u8; 4], &[u8])> {
    let mut at = behind;
    std::iter::from_fn(move || {
        let header = webp.get(at..at.checked_add(8)?)?;
        let (kind, length) = (header.first_chunk::<4>()?, header.last_chunk::<4>()?);
        let length = u32::from_le_bytes(*length) as usize;
        let content = webp.get(at + 8..at.checked_add(8)?.checked_add(length)?)?;
        at += 8 + length + (length & 1);
        Some((*kind, content))
    })
}

/// The frame of a WebP that is lossy, opaque and not animated; of another one there is none here.
fn lossy(webp: &[u8]) -> Option<Vp8<'_>> {
    let is_other = |kind: &[u8; 4]| matches!(kind, b"ALPH" | b"ANIM" | b"ANMF" | b"VP8L");
    if webp_chunks(webp, BEHIND_RIFF).any(|(kind, _)| is_other(&kind)) {
        return None;
    }
    let (_, frame) = webp_chunks(webp, BEHIND_RIFF).find(|(kind, _)| kind == b"VP8 ")?;
    let frame = Vp8::new(frame)?;
    match webp_chunks(webp, BEHIND_RIFF).next()? {
        (kind, _) if &kind == b"VP8 " => Some(frame),
        // Flags, three bytes for later, and both sides of the canvas less 1.
        (kind, &[flags, _, _, _, w0, w1, w2, h0, h1, h2, ..]) if &kind == b"VP8X" => {
            let side = |low, middle, high| u32::from_le_bytes([low, middle, high, 0]) + 1;
            // A promise of transparency without it counts for nothing.
            let is_animated = flags & 0x02 != 0;
            (!is_animated && frame.size == (side(w0, w1, w2), side(h0, h1, h2))).then_some(frame)
        }
        _ => None,
    }
}

fn webp_memory(bytes: &[u8], image: sniff::Image) -> Result<u64, Reason> {
    let pixels = u64::from(image.width) * u64::from(image.height);
    let mut has_alpha = false;
    let mut is_lossless = false;
    let mut animated = None;
    // The file may be copied, and the decoder reads a lossy picture twice into memory.
    let mut memory = 3 * bytes.len() as u64 + (1 << 20);
    for (kind, content) in webp_chunks(bytes, BEHIND_RIFF) {
        match &kind {
            b"ANMF" => animated = animated.or(Some(content)),
            b"ALPH" => has_alpha = true,
            b"VP8L" => is_lossless = true,
            _ => continue,
        }
        memory += codes_memory(kind, content, (image.width, image.height))?;
        if animated.is_some() {
            break;
        }
    }
    if let Some(frame) = animated {
        let &[_, _, _, _, _, _, w0, w1, w2, h0, h1, h2, ..] = frame else { return Err(Reason::Incomplete) };
        let one_more = |low, middle, high| u32::from_le_bytes([low, middle, high, 0]) + 1;
        let size = (one_more(w0, w1, w2), one_more(h0, h1, h2));
        for (kind, content) in webp_chunks(frame, BEHIND_FRAME) {
            memory += codes_memory(kind, content, size)?;
        }
    }
    // Lossy: 1.5 of luma and chroma (in whole blocks of 16 × 16), 3 or 4 of colours, of an alpha channel 5 more for
    // a moment. Lossless: 4 and 4, and 1 of transformations. The frame of an animation is copied to a canvas first,
    // and that to where it is wanted.
    let each = match (animated, has_alpha, is_lossless) {
        (Some(_), _, _) => 14,
        (None, true, _) => 11,
        (None, false, true) => 9,
        (None, false, false) => 5,
    };
    Ok(memory + each * pixels)
}

/// The bytes that the codes of a lossless picture or alpha channel take.
fn codes_memory(kind: [u8; 4], content: &[u8], size: (u32, u32)) -> Result<u64, Reason> {
    let memory = match (&kind, content) {
        (b"VP8L", content) => vp8l::codes_memory(content, None),
        (b"ALPH", [flags, content @ ..]) if flags & 3 == 1 => vp8l::codes_memory(content, Some(size)),
        _ => Some(0),
    };
    memory.ok_or(Reason::Incomplete)
}

/// Where the chunks of a file begin, and those of a frame.
const BEHIND_RIFF: usize = 12;
const BEHIND_FRAME: usize = 16;

impl Reason {
    fn png(error: png::DecodingError) -> Self {
        match error {
            png::DecodingError::IoError(error) => Self::io(error),
            error => Self::Decoder(error.to_string()),
        }
    }
}
