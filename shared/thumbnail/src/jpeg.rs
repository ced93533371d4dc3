//! The parts of a JPEG that a rendition needs, and the memory that decoding them takes.

use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

use crate::colour::{self, Samples};
use crate::target::{METADATA_BYTES, Reason, Target};

/// A JPEG without the segments that no rendition needs, such as notes and previews. The decoder would keep copies of
/// them. There may be hundreds of thousands of them, which the decoder compares with each other.
pub(crate) struct Essential {
    bytes: Vec<u8>,
    frame: Option<Frame>,
    profile_bytes: u64,
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

const ICC: &[u8] = b"ICC_PROFILE\0";

impl Essential {
    /// Copies the needed parts of a JPEG whose structure is sound.
    pub(crate) fn of(jpeg: &[u8]) -> Self {
        let mut bytes = Vec::with_capacity(jpeg.len());
        bytes.extend_from_slice(&[0xFF, 0xD8]);
        let mut frame: Option<Frame> = None;
        let mut profile_bytes = 0;
        let (mut has_tables, mut has_alike) = (false, false);
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
                0xE2 if content.starts_with(ICC) => {
                    profile_bytes += content.len();
                    profile_bytes <= METADATA_BYTES
                }
                0xE1..=0xEF | 0xFE => false,
                // The height once more, behind the first scan.
                0xDC => false,
                _ => true,
            };
            at = end;
            has_tables |= code == 0xC4;
            if code == 0xDA {
                if !std::mem::replace(&mut has_tables, true) {
                    bytes.extend_from_slice(&standard_tables());
                }
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
                let from = bytes.len();
                bytes.extend_from_slice(&jpeg[start..at]);
                let segment = &mut bytes[from..];
                match code {
                    0xC0..=0xC2 => has_alike = number_components(segment, 10, 3, true),
                    0xDA if has_alike => _ = number_components(segment, 5, 2, false),
                    _ => {}
                }
            }
        }
        bytes.extend_from_slice(&[0xFF, 0xD9]);
        Self { bytes, frame, profile_bytes: profile_bytes.min(METADATA_BYTES) as u64 }
    }

    /// The most bytes that decoding it takes.
    pub(crate) fn memory(&self) -> u64 {
        let copy = self.bytes.len() as u64;
        // A JPEG that is not supported is refused with its header.
        let Some(frame) = &self.frame else { return copy };
        let pixels = frame.width * frame.height;
        let channels = match frame.sampling.len() {
            1 => 1,
            4 => 4,
            _ => 3,
        };
        let most = |pick: fn(&(u64, u64)) -> u64| frame.sampling.iter().map(pick).max().unwrap_or(1).max(1);
        let (across, down) = (most(|factors| factors.0), most(|factors| factors.1));
        // Whole blocks, as many as the largest component has in a unit.
        let wide = frame.width.next_multiple_of(8 * across);
        let high = frame.height.next_multiple_of(8 * down);
        let of = |(h, v): &(u64, u64)| wide * high * h * v / (across * down);
        let rows: u64 = frame.sampling.iter().map(|(_, v)| 2 * wide * 8 * v).sum::<u64>() + 16 * 8 * wide;
        let samples: u64 = frame.sampling.iter().map(of).sum();
        let is_kept = frame.is_progressive || usize::from(frame.in_first_scan) < frame.sampling.len();
        let profile = colour::memory(self.profile_bytes);
        copy + profile + channels * pixels + rows + if is_kept { 2 * samples } else { 0 }
    }

    pub(crate) fn decode(self, target: &mut impl Target) -> Result<(), Reason> {
        let options = DecoderOptions::default()
            .set_strict_mode(false)
            .set_max_width(usize::MAX)
            .set_max_height(usize::MAX);
        let mut decoder = JpegDecoder::new_with_options(ZCursor::new(&self.bytes[..]), options);
        decoder.decode_headers().map_err(Reason::decoder)?;
        // What Adobe's segment says counts for four components only.
        let has_inks = self.frame.as_ref().is_some_and(|frame| frame.sampling.len() == 4);
        let (colours, samples) = match decoder.input_colorspace() {
            Some(ColorSpace::Luma) => (ColorSpace::Luma, Samples::Grey),
            Some(ColorSpace::CMYK) if has_inks => (ColorSpace::CMYK, Samples::Inks),
            Some(ColorSpace::YCCK) if has_inks => (ColorSpace::YCCK, Samples::InksAsLuma),
            _ => (ColorSpace::RGB, Samples::Rgb),
        };
        decoder.set_options(options.jpeg_set_out_colorspace(colours));
        let (across, down) = decoder.dimensions().ok_or(Reason::Incomplete)?;
        let (Ok(across), Ok(down)) = (u32::try_from(across), u32::try_from(down)) else {
            return Err(Reason::Incomplete);
        };
        let wanted = target.begin(across, down, samples)?;
        if !wanted {
            return Ok(());
        }
        target.colours(decoder.icc_profile().as_deref().and_then(colour::of_profile));
        let bytes_a_row = across as usize * samples.channels();
        let mut pixels = vec![0; down as usize * bytes_a_row];
        decoder.decode_into(&mut pixels).map_err(Reason::decoder)?;
        drop(decoder);
        drop(self);
        target.rows(&pixels, bytes_a_row)
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

/// Numbers the components of a frame or a scan by their order, if all of them have one number. Browsers go by the order, too.
/// `at` is where the first one stands in the segment, each of so many bytes, behind their count. Says whether that was done.
fn number_components(segment: &mut [u8], at: usize, bytes: usize, is_frame: bool) -> bool {
    let count = segment.get(at - 1).copied().map_or(0, usize::from);
    let Some(components) = segment.get_mut(at..at + count * bytes) else { return false };
    let first = components.first().copied();
    let are_alike = count > 1 && components.iter().step_by(bytes).all(|number| Some(*number) == first);
    if are_alike {
        for (number, component) in (1..).zip(components.chunks_exact_mut(bytes)) {
            component[0] = number;
        }
    }
    are_alike && is_frame
}

/// The Huffman tables of the standard's example (ITU-T T.81, section K.3), which a picture of Motion JPEG leaves out.
fn standard_tables() -> Vec<u8> {
    const DC_LUMA: &[u8] = b"\x00\x00\x01\x05\x01\x01\x01\x01\x01\x01\0\0\0\0\0\0\0\x00\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b";
    const DC_CHROMA: &[u8] = b"\x01\x00\x03\x01\x01\x01\x01\x01\x01\x01\x01\x01\0\0\0\0\0\x00\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b";
    const AC_LUMA: &[u8] = b"\x10\x00\x02\x01\x03\x03\x02\x04\x03\x05\x05\x04\x04\x00\x00\x01\x7d\
        \x01\x02\x03\x00\x04\x11\x05\x12\x21\x31\x41\x06\x13\x51\x61\x07\x22\x71\x14\x32\x81\x91\xa1\x08\x23\x42\xb1\xc1\x15\
        \x52\xd1\xf0\x24\x33\x62\x72\x82\x09\x0a\x16\x17\x18\x19\x1a\x25\x26\x27\x28\x29\x2a\x34\x35\x36\x37\x38\x39\x3a\x43\
        \x44\x45\x46\x47\x48\x49\x4a\x53\x54\x55\x56\x57\x58\x59\x5a\x63\x64\x65\x66\x67\x68\x69\x6a\x73\x74\x75\x76\x77\x78\
        \x79\x7a\x83\x84\x85\x86\x87\x88\x89\x8a\x92\x93\x94\x95\x96\x97\x98\x99\x9a\xa2\xa3\xa4\xa5\xa6\xa7\xa8\xa9\xaa\xb2\
        \xb3\xb4\xb5\xb6\xb7\xb8\xb9\xba\xc2\xc3\xc4\xc5\xc6\xc7\xc8\xc9\xca\xd2\xd3\xd4\xd5\xd6\xd7\xd8\xd9\xda\xe1\xe2\xe3\
        \xe4\xe5\xe6\xe7\xe8\xe9\xea\xf1\xf2\xf3\xf4\xf5\xf6\xf7\xf8\xf9\xfa";
    const AC_CHROMA: &[u8] = b"\x11\x00\x02\x01\x02\x04\x04\x03\x04\x07\x05\x04\x04\x00\x01\x02\x77\
        \x00\x01\x02\x03\x11\x04\x05\x21\x31\x06\x12\x41\x51\x07\x61\x71\x13\x22\x32\x81\x08\x14\x42\x91\xa1\xb1\xc1\x09\x23\
        \x33\x52\xf0\x15\x62\x72\xd1\x0a\x16\x24\x34\xe1\x25\xf1\x17\x18\x19\x1a\x26\x27\x28\x29\x2a\x35\x36\x37\x38\x39\x3a\
        \x43\x44\x45\x46\x47\x48\x49\x4a\x53\x54\x55\x56\x57\x58\x59\x5a\x63\x64\x65\x66\x67\x68\x69\x6a\x73\x74\x75\x76\x77\
        \x78\x79\x7a\x82\x83\x84\x85\x86\x87\x88\x89\x8a\x92\x93\x94\x95\x96\x97\x98\x99\x9a\xa2\xa3\xa4\xa5\xa6\xa7\xa8\xa9\
        \xaa\xb2\xb3\xb4\xb5\xb6\xb7\xb8\xb9\xba\xc2\xc3\xc4\xc5\xc6\xc7\xc8\xc9\xca\xd2\xd3\xd4\xd5\xd6\xd7\xd8\xd9\xda\xe2\
        \xe3\xe4\xe5\xe6\xe7\xe8\xe9\xea\xf2\xf3\xf4\xf5\xf6\xf7\xf8\xf9\xfa";
    let tables = [DC_LUMA, DC_CHROMA, AC_LUMA, AC_CHROMA].concat();
    let length = u16::try_from(tables.len() + 2).unwrap_or_default().to_be_bytes();
    [&[0xFF, 0xC4][..], &length, &tables].concat()
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
