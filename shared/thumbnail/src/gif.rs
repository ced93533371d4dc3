//! GIF: the first frame, as indices of colours until a row is needed.

use gif::{ColorOutput, DecodeOptions, MemoryLimit};

use crate::colour::Samples;
use crate::input::{Clock, Input};
use crate::scale::Rows;
use crate::target::{Reason, Target};

const TRANSPARENT: [u8; 4] = [0; 4];

/// The most bytes that decoding takes: a byte for each pixel of the first frame, and the tables of its codes.
pub(crate) fn memory(gif: &[u8]) -> u64 {
    let (width, height) = first_frame(gif).unwrap_or_default();
    u64::from(width) * u64::from(height) + (1 << 20)
}

/// Decodes the first frame on a canvas that holds it. Around it, and where it has no colour, the canvas is transparent.
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
    let mut decoder = options.read_info(Input::new(gif, clock)).map_err(failed)?;
    let frame = decoder.next_frame_info().map_err(failed)?.ok_or(Reason::Incomplete)?;
    let (left, top) = (usize::from(frame.left), usize::from(frame.top));
    let (across, down) = (usize::from(frame.width), usize::from(frame.height));
    let transparent = frame.transparent;
    let colours = decoder.palette().map_err(failed)?;
    let (colours, _) = colours.as_chunks::<3>();
    let mut palette = [TRANSPARENT; 256];
    for (entry, [red, green, blue]) in palette.iter_mut().zip(colours) {
        *entry = [*red, *green, *blue, 255];
    }
    if let Some(transparent) = transparent {
        palette[usize::from(transparent)] = TRANSPARENT;
    }
    let mut indices = vec![0; across * down];
    decoder.read_into_buffer(&mut indices).map_err(failed)?;
    clock.look()?;
    drop(decoder);

    let mut rows = Rows::new(canvas.0, canvas.1, width, height, Samples::Rgba);
    let mut row = vec![TRANSPARENT; canvas.0 as usize];
    let mut of_frame = indices.chunks_exact(across.max(1));
    for y in 0..canvas.1 as usize {
        if y % 1024 == 0 {
            clock.look()?;
        }
        if y < top || y >= top + down {
            row.fill(TRANSPARENT);
        } else if let Some((indices, row)) = of_frame.next().zip(row.get_mut(left..)) {
            for (pixel, index) in row.iter_mut().zip(indices) {
                *pixel = palette[usize::from(*index)];
            }
        }
        rows.push(row.as_flattened());
    }
    target.pixels(rows.finish(), Samples::Rgba);
    Ok(())
}

fn failed(error: gif::DecodingError) -> Reason {
    match error {
        gif::DecodingError::Io(error) => Reason::io(error),
        error => Reason::Decoder(error.to_string()),
    }
}

/// The size of the first frame.
fn first_frame(gif: &[u8]) -> Option<(u32, u32)> {
    let table = |flags: u8| if flags & 0x80 == 0 { 0 } else { 3 << ((flags & 7) + 1) };
    let mut at = 13 + table(*gif.get(10)?);
    loop {
        match *gif.get(at)? {
            b'!' => {
                at += 2;
                loop {
                    let length = usize::from(*gif.get(at)?);
                    at += 1 + length;
                    if length == 0 {
                        break;
                    }
                }
            }
            b',' => {
                let &[w0, w1, h0, h1] = gif.get(at + 5..at + 9)?.first_chunk()?;
                return Some((u16::from_le_bytes([w0, w1]).into(), u16::from_le_bytes([h0, h1]).into()));
            }
            // Zeros between blocks.
            0 => at += 1,
            _ => return None,
        }
    }
}
