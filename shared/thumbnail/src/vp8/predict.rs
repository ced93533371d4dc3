//! Prediction of pixels from those above and to the left (RFC 6386, section 12).

use super::tokens::Block;
use super::transform;

/// Bytes from a row of a workspace to the next one.
pub(crate) const STRIDE: usize = 32;
/// Where the first pixel of a macroblock is. The pixels above it lie in the row before, the left ones in the column before.
pub(crate) const FIRST: usize = STRIDE + 8;

/// The pixels of a macroblock in one plane, with those around it: 16 × 16 of luma or 8 × 8 of chroma, and behind those
/// above four more to the right.
pub(crate) type Workspace = [u8; 17 * STRIDE];

/// Modes of whole macroblocks.
pub(crate) const MEAN: u8 = 0;
pub(crate) const VERTICAL: u8 = 1;
pub(crate) const HORIZONTAL: u8 = 2;
pub(crate) const GRADIENT: u8 = 3;
/// Each of the 4 × 4 blocks of luma has a mode of its own.
pub(crate) const SMALL: u8 = 4;

/// Modes of 4 × 4 blocks, as the tables have them.
pub(crate) const SMALL_MEAN: u8 = 0;
pub(crate) const SMALL_GRADIENT: u8 = 1;
pub(crate) const SMALL_VERTICAL: u8 = 2;
pub(crate) const SMALL_HORIZONTAL: u8 = 3;
pub(crate) const LEFT_DOWN: u8 = 4;
pub(crate) const RIGHT_DOWN: u8 = 5;
pub(crate) const VERTICAL_RIGHT: u8 = 6;
pub(crate) const VERTICAL_LEFT: u8 = 7;
pub(crate) const HORIZONTAL_DOWN: u8 = 8;
pub(crate) const HORIZONTAL_UP: u8 = 9;

/// Fills a macroblock of `SIZE` × `SIZE` pixels. The mean is of those around that belong to the picture.
#[inline(always)]
pub(crate) fn whole<const SIZE: usize>(pixels: &mut Workspace, mode: u8, has_above: bool, has_left: bool) {
    let mut above = [0; SIZE];
    above.copy_from_slice(&pixels[8..8 + SIZE]);
    let left: [u8; SIZE] = std::array::from_fn(|y| pixels[FIRST + STRIDE * y - 1]);
    let corner = i16::from(pixels[7]);
    let rows = pixels[STRIDE..].chunks_exact_mut(STRIDE).take(SIZE).map(|row| &mut row[8..8 + SIZE]);
    match mode {
        VERTICAL => rows.for_each(|row| row.copy_from_slice(&above)),
        HORIZONTAL => rows.zip(left).for_each(|(row, left)| row.fill(left)),
        GRADIENT => {
            for (row, left) in rows.zip(left) {
                let more = i16::from(left) - corner;
                for (pixel, above) in row.iter_mut().zip(above) {
                    *pixel = (i16::from(above) + more).clamp(0, 255) as u8;
                }
            }
        }
        _ => {
            let sum = |side: [u8; SIZE]| side.iter().map(|pixel| u32::from(*pixel)).sum::<u32>();
            let size = SIZE as u32;
            let mean = match (has_above, has_left) {
                (true, true) => (sum(above) + sum(left) + size) / (2 * size),
                (true, false) => (sum(above) + size / 2) / size,
                (false, true) => (sum(left) + size / 2) / size,
                (false, false) => 128,
            };
            rows.for_each(|row| row.fill(mean as u8));
        }
    }
}

fn mean_of_two(one: u8, other: u8) -> u8 {
    ((u16::from(one) + u16::from(other) + 1) >> 1) as u8
}

fn mean_of_three(one: u8, middle: u8, other: u8) -> u8 {
    ((u16::from(one) + 2 * u16::from(middle) + u16::from(other) + 2) >> 2) as u8
}

/// Fills a block of 4 × 4 pixels whose first one is at this place, and adds its differences.
#[inline(always)]
pub(crate) fn small(pixels: &mut Workspace, at: usize, mode: u8, block: &mut Block, end: usize) {
    let Some(around) = pixels[at - STRIDE - 1..].first_chunk::<{ 4 * STRIDE + 9 }>() else { return };
    // From the lowest one on the left, over the corner, to the last one above.
    let edge: [u8; 13] = std::array::from_fn(|place| match place {
        0..4 => around[STRIDE * (4 - place)],
        _ => around[place - 4],
    });
    // Of each and its neighbours, and of each and the one before it.
    let three = |at: usize| mean_of_three(edge[at - 1], edge[at], edge[at + 1]);
    let two = |at: usize| mean_of_two(edge[at - 1], edge[at]);
    let rows: [[u8; 4]; 4] = match mode {
        SMALL_GRADIENT => std::array::from_fn(|y| {
            let more = i16::from(edge[3 - y]) - i16::from(edge[4]);
            std::array::from_fn(|x| (i16::from(edge[5 + x]) + more).clamp(0, 255) as u8)
        }),
        SMALL_VERTICAL => [std::array::from_fn(|x| three(5 + x)); 4],
        SMALL_HORIZONTAL => {
            [[three(3); 4], [three(2); 4], [three(1); 4], [mean_of_three(edge[1], edge[0], edge[0]); 4]]
        }
        LEFT_DOWN => {
            let last = mean_of_three(edge[11], edge[12], edge[12]);
            let all: [u8; 7] = std::array::from_fn(|at| if at == 6 { last } else { three(6 + at) });
            std::array::from_fn(|y| std::array::from_fn(|x| all[x + y]))
        }
        RIGHT_DOWN => {
            let all: [u8; 7] = std::array::from_fn(|at| three(1 + at));
            std::array::from_fn(|y| std::array::from_fn(|x| all[3 + x - y]))
        }
        VERTICAL_RIGHT => {
            let (even, odd) = ([two(5), two(6), two(7), two(8)], [three(4), three(5), three(6), three(7)]);
            [even, odd, [three(3), even[0], even[1], even[2]], [three(2), odd[0], odd[1], odd[2]]]
        }
        VERTICAL_LEFT => {
            let even = [two(6), two(7), two(8), two(9)];
            let odd = [three(6), three(7), three(8), three(9)];
            [even, odd, [even[1], even[2], even[3], three(10)], [odd[1], odd[2], odd[3], three(11)]]
        }
        HORIZONTAL_DOWN => {
            let (first, second) = ([two(4), three(4)], [two(3), three(3)]);
            let (third, fourth) = ([two(2), three(2)], [two(1), three(1)]);
            let row = |[a, b]: [u8; 2], [c, d]: [u8; 2]| [a, b, c, d];
            [row(first, [three(5), three(6)]), row(second, first), row(third, second), row(fourth, third)]
        }
        HORIZONTAL_UP => {
            let last = edge[0];
            let (first, second) = ([two(3), three(2)], [two(2), three(1)]);
            let third = [two(1), mean_of_three(edge[1], last, last)];
            let row = |[a, b]: [u8; 2], [c, d]: [u8; 2]| [a, b, c, d];
            [row(first, second), row(second, third), row(third, [last; 2]), [last; 4]]
        }
        _ => {
            let sum: u16 = edge[..4].iter().chain(&edge[5..9]).map(|pixel| u16::from(*pixel)).sum();
            [[((sum + 4) >> 3) as u8; 4]; 4]
        }
    };
    put(pixels, at, rows, block, end);
}

#[inline(always)]
fn put(pixels: &mut Workspace, at: usize, rows: [[u8; 4]; 4], block: &mut Block, end: usize) {
    let Some(into) = pixels[at..].first_chunk_mut::<{ 3 * STRIDE + 4 }>() else { return };
    let rows = match end {
        0 if block[0] == 0 => rows,
        0 | 1 => {
            let more = transform::flat(block[0]);
            block[0] = 0;
            std::array::from_fn(|y| std::array::from_fn(|x| added(rows[y][x], more)))
        }
        _ => {
            let differences = transform::inverse(block);
            *block = [0; 16];
            std::array::from_fn(|y| std::array::from_fn(|x| added(rows[y][x], differences[y][x])))
        }
    };
    for (y, row) in rows.iter().enumerate() {
        into[STRIDE * y..STRIDE * y + 4].copy_from_slice(row);
    }
}

/// Adds the differences of a block whose coefficients end before place `end`, and clears it.
#[inline(always)]
pub(crate) fn add(pixels: &mut Workspace, at: usize, block: &mut Block, end: usize) {
    if end == 0 && block[0] == 0 {
        return;
    }
    let Some(from) = pixels[at..].first_chunk::<{ 3 * STRIDE + 4 }>() else { return };
    let rows = std::array::from_fn(|y| std::array::from_fn(|x| from[STRIDE * y + x]));
    put(pixels, at, rows, block, end);
}

#[inline(always)]
fn added(pixel: u8, more: i16) -> u8 {
    i16::from(pixel).saturating_add(more).clamp(0, 255) as u8
}
