//! The parts of a JPEG that a rendition needs, and the memory that decoding them takes.

use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

use crate::target::{METADATA_BYTES, Reason, Target};

/// A JPEG without the segments that no rendition needs, such as notes and previews. The decoder would keep copies of
/// them. There may be hundreds of thousands of them, which the decoder compares with each other.
pub(crate) struct Essential {
    bytes: Vec<u8>,
    frame: Option<Frame>,
}

struct Frame {
    is_progressive: bool,
    width: u64,
    height: u64,
    /// How often each component is sampled across and down.
    sampling: Vec<(u64, u64)>,
    /// How many components the first scan has.
    in_first_scan: u8,
}

const EXIF: &[u8] = b"Exif\0\0";
const ICC: &[u8] = b"ICC_PROFILE\0";

impl Essential {
    /// Copies the needed parts of a JPEG whose structure is sound.
    pub(crate) fn of(jpeg: &[u8]) -> Self {
        let mut bytes = Vec::with_capacity(jpeg.len());
        bytes.extend_from_slice(&[0xFF, 0xD8]);
        let mut frame: Option<Frame> = None;
        let mut has_exif = false;
        let mut profile_bytes = 0;
        let mut at = 2;
        while let Some(marker) = next_marker(jpeg, at) {
            let (start, code) = marker;
            if code == 0xD9 {
                break;
            }
            let Some(&[high, low]) = jpeg.get(start + 2..start + 4) else { break };
            let end = start + 2 + usize::from(u16::from_be_bytes([high, low]));
            let Some(content) = jpeg.get(start + 4..end) else { break };
            let is_needed = match code {
                0xE0 | 0xEE => true,
                // Viewers take the first of two.
                0xE1 if content.starts_with(EXIF) => !std::mem::replace(&mut has_exif, true),
                0xE2 if content.starts_with(ICC) => {
                    profile_bytes += content.len();
                    profile_bytes <= METADATA_BYTES
                }
                0xE1..=0xEF | 0xFE => false,
                _ => true,
            };
            at = end;
            if code == 0xDA {
                // The data goes with its scan: up to the next marker that is no restart.
                at = next_marker(jpeg, end).map_or(jpeg.len(), |(next, _)| next);
                if let Some(frame) = &mut frame
                    && frame.in_first_scan == 0
                {
                    frame.in_first_scan = content.first().copied().unwrap_or_default();
                }
            } else if frame.is_none() && matches!(code, 0xC0..=0xC2) {
                frame = Frame::new(code, content);
            }
            if is_needed {
                bytes.extend_from_slice(&jpeg[start..at]);
            }
        }
        bytes.extend_from_slice(&[0xFF, 0xD9]);
        Self { bytes, frame }
    }

    /// The most bytes that decoding it takes.
    pub(crate) fn memory(&self) -> u64 {
        let copy = self.bytes.len() as u64;
        // A JPEG that is not supported is refused with its header.
        let Some(frame) = &self.frame else { return copy };
        let pixels = frame.width * frame.height;
        let channels = if frame.sampling.len() == 1 { 1 } else { 3 };
        let most = |pick: fn(&(u64, u64)) -> u64| frame.sampling.iter().map(pick).max().unwrap_or(1).max(1);
        let (across, down) = (most(|factors| factors.0), most(|factors| factors.1));
        // Whole blocks, as many as the largest component has in a unit.
        let wide = frame.width.next_multiple_of(8 * across);
        let high = frame.height.next_multiple_of(8 * down);
        let of = |(h, v): &(u64, u64)| wide * high * h * v / (across * down);
        let rows: u64 = frame.sampling.iter().map(|(_, v)| 2 * wide * 8 * v).sum::<u64>() + 16 * 8 * wide;
        let samples: u64 = frame.sampling.iter().map(of).sum();
        let is_kept = frame.is_progressive || usize::from(frame.in_first_scan) < frame.sampling.len();
        copy + channels * pixels + rows + if is_kept { 2 * samples } else { 0 }
    }

    pub(crate) fn decode(self, target: &mut impl Target) -> Result<(), Reason> {
        let options = DecoderOptions::default()
            .set_strict_mode(false)
            .set_max_width(usize::MAX)
            .set_max_height(usize::MAX);
        let mut decoder = JpegDecoder::new_with_options(ZCursor::new(&self.bytes[..]), options);
        decoder.decode_headers().map_err(Reason::decoder)?;
        let is_grey = decoder.input_colorspace() == Some(ColorSpace::Luma);
        let (colours, channels) = if is_grey { (ColorSpace::Luma, 1) } else { (ColorSpace::RGB, 3) };
        decoder.set_options(options.jpeg_set_out_colorspace(colours));
        let (across, down) = decoder.dimensions().ok_or(Reason::Incomplete)?;
        let (Ok(across), Ok(down)) = (u32::try_from(across), u32::try_from(down)) else {
            return Err(Reason::Incomplete);
        };
        let wanted = target.begin(across, down, channels, decoder.exif().map(|exif| &exif[..]))?;
        if !wanted {
            return Ok(());
        }
        target.colours(decoder.icc_profile());
        let mut pixels = vec![0; across as usize * down as usize * channels];
        decoder.decode_into(&mut pixels).map_err(Reason::decoder)?;
        drop(decoder);
        drop(self);
        target.rows(&pixels, across as usize * channels)
    }
}

impl Frame {
    fn new(code: u8, header: &[u8]) -> Option<Self> {
        let &[_, h0, h1, w0, w1, _, ref components @ ..] = header else { return None };
        let (components, _) = components.as_chunks::<3>();
        Some(Self {
            is_progressive: code == 0xC2,
            width: u16::from_be_bytes([w0, w1]).into(),
            height: u16::from_be_bytes([h0, h1]).into(),
            sampling: components
                .iter()
                .map(|[_, factors, _]| (u64::from(factors >> 4), u64::from(factors & 15)))
                .collect(),
            in_first_scan: 0,
        })
    }
}

/// Where the next marker with a segment, or the end, is, and its code.
fn next_marker(jpeg: &[u8], from: usize) -> Option<(usize, u8)> {
    let mut at = from;
    loop {
        at += jpeg.get(at..)?.iter().position(|byte| *byte == 0xFF)?;
        match *jpeg.get(at + 1)? {
            0x00 | 0x01 | 0xD0..=0xD7 => at += 2,
            0xFF => at += 1,
            code => return Some((at, code)),
        }
    }
}
