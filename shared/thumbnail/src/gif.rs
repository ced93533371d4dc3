//! GIF: the first frame, as indices of colours until a row is needed.

use std::borrow::Cow;

use gif::{ColorOutput, DecodeOptions, MemoryLimit};

use crate::colour::Samples;
use crate::input::{Clock, Input};
use crate::scale::Rows;
use crate::target::{Reason, Target};

const TRANSPARENT: [u8; 4] = [0; 4];
const BLACK: [u8; 4] = [0, 0, 0, 255];

/// The most bytes that decoding takes: a byte for each pixel of the frame, a row of the canvas, and the tables of its codes.
pub(crate) fn memory(gif: &[u8], canvas: (u32, u32)) -> u64 {
    let (width, height) = first_frame(gif).unwrap_or_default();
    let copy = if has_palette(gif) { 0 } else { gif.len() as u64 };
    copy + u64::from(width) * u64::from(height) + 5 * u64::from(canvas.0) + (1 << 20)
}

/// Decodes the first frame that has pixels, on a canvas that holds it. Around it, and where its data has ended too early,
/// the canvas is transparent.
pub(crate) fn decode(
    gif: &[u8],
    canvas: (u32, u32),
    target: &mut impl Target,
    clock: Clock,
) -> Result<(), Reason> {
    let Some((width, height)) = target.size(canvas.0, canvas.1)? else { return Ok(()) };
    let mut options = DecodeOptions::new();
    options.set_color_output(ColorOutput::Indexed);
    options.allow_unknown_blocks(true);
    // The size is known to be within the limits.
    options.set_memory_limit(MemoryLimit::Unlimited);
    let gif = &*with_palette(gif);
    let mut decoder = options.read_info(Input::new(gif, clock)).map_err(failed)?;
    let frame = loop {
        let frame = decoder.next_frame_info().map_err(failed)?.ok_or(Reason::Incomplete)?;
        if frame.width > 0 && frame.height > 0 {
            break frame;
        }
    };
    let (left, top) = (usize::from(frame.left), usize::from(frame.top));
    let (across, down) = (usize::from(frame.width), usize::from(frame.height));
    let (transparent, is_interlaced) = (frame.transparent, frame.interlaced);
    // Browsers take colours that no table has for black.
    let mut palette = [BLACK; 256];
    let (colours, _) = decoder.palette().map_err(failed)?.as_chunks::<3>();
    for (entry, [red, green, blue]) in palette.iter_mut().zip(colours) {
        *entry = [*red, *green, *blue, 255];
    }
    if let Some(transparent) = transparent {
        palette[usize::from(transparent)] = TRANSPARENT;
    }

    // An interlaced frame comes in four passes.
    let passes: &[(usize, usize)] = if is_interlaced { &[(0, 8), (4, 8), (2, 4), (1, 2)] } else { &[(0, 1)] };
    let order = passes.iter().flat_map(|(first, each)| (*first..down).step_by(*each));
    let mut indices = vec![0; across * down];
    let mut received = vec![false; down];
    for (count, row) in order.enumerate() {
        match decoder.fill_buffer(&mut indices[row * across..][..across]) {
            Ok(true) => received[row] = true,
            Ok(false) => break,
            Err(error) if count == 0 => return Err(failed(error)),
            Err(_) => break,
        }
    }
    clock.look()?;
    drop(decoder);

    let mut rows = Rows::new(canvas.0, canvas.1, width, height, Samples::Rgba);
    let mut row = vec![TRANSPARENT; canvas.0 as usize];
    for y in 0..canvas.1 as usize {
        if y % 1024 == 0 {
            clock.look()?;
        }
        row.fill(TRANSPARENT);
        if let Some(at) = y.checked_sub(top).filter(|at| received.get(*at) == Some(&true)) {
            let into = row.get_mut(left..).unwrap_or_default();
            for (pixel, index) in into.iter_mut().zip(&indices[at * across..][..across]) {
                *pixel = palette[usize::from(*index)];
            }
        }
        rows.push(row.as_flattened());
    }
    target.pixels(rows.finish(), Samples::Rgba);
    Ok(())
}

fn has_palette(gif: &[u8]) -> bool {
    gif.get(10).is_none_or(|flags| flags & 0x80 != 0)
}

/// A GIF with a table for frames that have none: the decoder wants one.
fn with_palette(gif: &[u8]) -> Cow<'_, [u8]> {
    if has_palette(gif) {
        return Cow::Borrowed(gif);
    }
    let (screen, rest) = gif.split_at(gif.len().min(13));
    let mut copy = [screen, &[0; 6], rest].concat();
    // Two colours.
    copy[10] = copy[10] & 0xF8 | 0x80;
    Cow::Owned(copy)
}

fn failed(error: gif::DecodingError) -> Reason {
    match error {
        gif::DecodingError::Io(error) => Reason::io(error),
        error => Reason::Decoder(error.to_string()),
    }
}

/// The size of the first frame that has pixels.
fn first_frame(gif: &[u8]) -> Option<(u32, u32)> {
    let table = |flags: u8| if flags & 0x80 == 0 { 0 } else { 3 << ((flags & 7) + 1) };
    // The place behind a list of blocks.
    let behind = |mut at: usize| loop {
        let length = usize::from(*gif.get(at)?);
        at += 1 + length;
        if length == 0 {
            return Some(at);
        }
    };
    let mut at = 13 + table(*gif.get(10)?);
    loop {
        match *gif.get(at)? {
            b'!' => at = behind(at + 2)?,
            b',' => {
                let &[w0, w1, h0, h1, flags] = gif.get(at + 5..at + 10)?.first_chunk()?;
                let (width, height) = (u16::from_le_bytes([w0, w1]), u16::from_le_bytes([h0, h1]));
                if width > 0 && height > 0 {
                    return Some((width.into(), height.into()));
                }
                at = behind(at + 11 + table(flags))?;
            }
            // Zeros between blocks.
            0 => at += 1,
            _ => return None,
        }
    }
}
