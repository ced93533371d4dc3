//! Rows of macroblocks, from the partitions to pixels.

use super::bool_decoder::Bools;
use super::header::Frame;
use super::predict::{self, FIRST, STRIDE, Workspace};
use super::tables::SMALL_MODES;
use super::tokens::{self, Block};
use super::transform;

/// The pixels that stand for those above and to the left of the picture.
const ABOVE: u8 = 127;
const LEFT: u8 = 129;

/// The planes: luma, and chroma at half the size.
pub(crate) const LUMA: usize = 0;
const BLUE: usize = 1;
const RED: usize = 2;

/// The modes of a macroblock, from the first partition.
#[derive(Debug, Clone, Copy, Default)]
struct Modes {
    segment: u8,
    luma: u8,
    chroma: u8,
    /// It has no coefficients.
    is_skipped: bool,
    small: [u8; 16],
}

/// Whether the blocks at the edge of a macroblock have coefficients: four of luma, two of each chroma, and the means.
type Edge = [u8; 9];
const MEANS: usize = 8;

/// Decodes a frame, a row of macroblocks at a time.
pub(crate) struct Decoder<'a> {
    frame: Frame<'a>,
    /// Macroblocks across.
    wide: usize,
    /// The next row.
    at: usize,
    modes: Vec<Modes>,
    /// The modes of the small blocks above, and to the left.
    small_above: Vec<[u8; 4]>,
    above: Vec<Edge>,
    /// The last row of pixels of each plane, and the 16 or 8 rows at hand.
    pixels_above: [Vec<u8>; 3],
    pixels: [Vec<u8>; 3],
    /// The macroblock at hand.
    workspaces: [Workspace; 3],
    blocks: [Block; 24],
    /// Where the coefficients of each block end.
    ends: [u8; 24],
}

/// The most bytes that it takes for pixels across.
pub(crate) fn memory(width: u32) -> u64 {
    let wide = u64::from(width.div_ceil(16));
    // Pixels, and the modes and edges.
    wide * (17 * 32 + (size_of::<Modes>() + size_of::<[u8; 4]>() + size_of::<Edge>()) as u64) + (16 << 10)
}

impl<'a> Decoder<'a> {
    pub(crate) fn new(frame: Frame<'a>) -> Self {
        let wide = frame.width.div_ceil(16) as usize;
        let sizes = [16, 8, 8];
        Self {
            frame,
            wide,
            at: 0,
            modes: vec![Modes::default(); wide],
            small_above: vec![[predict::SMALL_MEAN; 4]; wide],
            above: vec![[0; 9]; wide],
            pixels_above: sizes.map(|size| vec![ABOVE; size * wide]),
            pixels: sizes.map(|size| vec![0; size * size * wide]),
            workspaces: [[0; 17 * STRIDE]; 3],
            blocks: [[0; 16]; 24],
            ends: [0; 24],
        }
    }

    /// How many rows of macroblocks there are.
    pub(crate) fn count(&self) -> u32 {
        self.frame.height.div_ceil(16)
    }

    /// Decodes the next row, and returns its pixels in each plane, whole macroblocks across.
    pub(crate) fn next(&mut self) -> &[Vec<u8>; 3] {
        self.read_modes();
        for (plane, pixels) in self.workspaces.iter_mut().enumerate() {
            let size = if plane == LUMA { 16 } else { 8 };
            (0..size).for_each(|y| pixels[FIRST + STRIDE * y - 1] = LEFT);
            pixels[7] = if self.at == 0 { ABOVE } else { LEFT };
        }
        let mut left = [0; 9];
        for x in 0..self.wide {
            let modes = self.modes[x];
            self.read_blocks(x, modes, &mut left);
            self.make_luma(x, modes);
            self.make_chroma(x, modes);
        }
        self.at += 1;
        &self.pixels
    }

    fn read_modes(&mut self) {
        let mut bools = self.frame.modes;
        let mut left = [predict::SMALL_MEAN; 4];
        for (modes, above) in self.modes.iter_mut().zip(&mut self.small_above) {
            modes.segment = self.frame.segments.map_or(0, |segments| {
                let upper = bools.next(segments[0]);
                2 * u8::from(upper) + u8::from(bools.next(segments[1 + usize::from(upper)]))
            });
            modes.is_skipped = self.frame.skip.is_some_and(|skip| bools.next(skip));
            if bools.next(145) {
                modes.luma = if bools.next(156) {
                    if bools.next(128) { predict::GRADIENT } else { predict::HORIZONTAL }
                } else if bools.next(163) {
                    predict::VERTICAL
                } else {
                    predict::MEAN
                };
                // What it is for blocks beside it.
                let small = match modes.luma {
                    predict::VERTICAL => predict::SMALL_VERTICAL,
                    predict::HORIZONTAL => predict::SMALL_HORIZONTAL,
                    predict::GRADIENT => predict::SMALL_GRADIENT,
                    _ => predict::SMALL_MEAN,
                };
                (left, *above) = ([small; 4], [small; 4]);
            } else {
                modes.luma = predict::SMALL;
                for (row, left) in modes.small.as_chunks_mut::<4>().0.iter_mut().zip(&mut left) {
                    for (mode, above) in row.iter_mut().zip(above.iter_mut()) {
                        *mode = small_mode(&mut bools, &SMALL_MODES[usize::from(*above)][usize::from(*left)]);
                        (*above, *left) = (*mode, *mode);
                    }
                }
            }
            modes.chroma = if !bools.next(142) {
                predict::MEAN
            } else if !bools.next(114) {
                predict::VERTICAL
            } else if !bools.next(183) {
                predict::HORIZONTAL
            } else {
                predict::GRADIENT
            };
        }
        self.frame.modes = bools;
    }

    #[inline(always)]
    fn read_blocks(&mut self, x: usize, modes: Modes, left: &mut Edge) {
        let Self { frame, blocks, ends, above, .. } = self;
        let above = &mut above[x];
        if modes.is_skipped {
            ends.fill(0);
            let keep = modes.luma == predict::SMALL;
            for edge in [above, left] {
                *edge = [0, 0, 0, 0, 0, 0, 0, 0, if keep { edge[MEANS] } else { 0 }];
            }
            return;
        }
        let partition = self.at % frame.partitions.len();
        let mut bools = frame.partitions[partition];
        let steps = &frame.steps[usize::from(modes.segment & 3)];
        let (probabilities, first) = if modes.luma == predict::SMALL {
            (&frame.tokens[3], 0)
        } else {
            let mut means = [0; 16];
            let before = usize::from(above[MEANS] + left[MEANS]);
            let end = tokens::read(&mut bools, &frame.tokens[1], 0, before, steps.means, &mut means);
            let has_any = u8::from(end > 0);
            (above[MEANS], left[MEANS]) = (has_any, has_any);
            if end > 0 {
                transform::means(&means, &mut blocks[..16]);
            }
            (&frame.tokens[0], 1)
        };
        for at in 0..16 {
            let (above, left) = (&mut above[at % 4], &mut left[at / 4]);
            let before = usize::from(*above + *left);
            let end = tokens::read(&mut bools, probabilities, first, before, steps.luma, &mut blocks[at]);
            let has_any = end > first;
            (*above, *left) = (u8::from(has_any), u8::from(has_any));
            ends[at] = if has_any { end as u8 } else { 0 };
        }
        for at in 16..24 {
            // Blue first, two by two.
            let plane = 4 + at / 4 % 2 * 2;
            let (above, left) = (&mut above[plane + at % 2], &mut left[plane + at / 2 % 2]);
            let before = usize::from(*above + *left);
            let end = tokens::read(&mut bools, &frame.tokens[2], 0, before, steps.chroma, &mut blocks[at]);
            (*above, *left) = (u8::from(end > 0), u8::from(end > 0));
            ends[at] = end as u8;
        }
        frame.partitions[partition] = bools;
    }

    #[inline(always)]
    fn make_luma(&mut self, x: usize, modes: Modes) {
        let above = &self.pixels_above[LUMA];
        let pixels = &mut self.workspaces[LUMA];
        pixels[8..24].copy_from_slice(&above[16 * x..16 * x + 16]);
        if modes.luma == predict::SMALL {
            // To the right of the last macroblock, its last pixel is repeated.
            let right = match above.get(16 * x + 16..16 * x + 20) {
                Some(&[a, b, c, d]) => [a, b, c, d],
                _ => [pixels[23]; 4],
            };
            // Rows below have the same pixels there: those of the macroblock are not made yet.
            for row in [0, 4, 8, 12] {
                pixels[STRIDE * row + 24..STRIDE * row + 28].copy_from_slice(&right);
            }
            for (at, mode) in modes.small.into_iter().enumerate() {
                let place = FIRST + at / 4 * 4 * STRIDE + at % 4 * 4;
                predict::small(pixels, place, mode, &mut self.blocks[at], usize::from(self.ends[at]));
            }
        } else {
            predict::whole::<16>(pixels, modes.luma, self.at > 0, x > 0);
            for at in 0..16 {
                let place = FIRST + at / 4 * 4 * STRIDE + at % 4 * 4;
                predict::add(pixels, place, &mut self.blocks[at], usize::from(self.ends[at]));
            }
        }
        self.finish::<16>(LUMA, x);
    }

    #[inline(always)]
    fn make_chroma(&mut self, x: usize, modes: Modes) {
        for plane in [BLUE, RED] {
            let pixels = &mut self.workspaces[plane];
            pixels[8..16].copy_from_slice(&self.pixels_above[plane][8 * x..8 * x + 8]);
            predict::whole::<8>(pixels, modes.chroma, self.at > 0, x > 0);
            for at in 0..4 {
                let place = FIRST + at / 2 * 4 * STRIDE + at % 2 * 4;
                let block = 12 + 4 * plane + at;
                predict::add(pixels, place, &mut self.blocks[block], usize::from(self.ends[block]));
            }
            self.finish::<8>(plane, x);
        }
    }

    /// Keeps the pixels of a macroblock, and those that the next one looks at.
    #[inline(always)]
    fn finish<const SIZE: usize>(&mut self, plane: usize, x: usize) {
        let pixels = &mut self.workspaces[plane];
        let rows = self.pixels[plane].chunks_exact_mut((SIZE * self.wide).max(1));
        let made = pixels.as_chunks::<STRIDE>().0;
        for (row, made) in rows.zip(&made[1..]) {
            row[SIZE * x..SIZE * x + SIZE].copy_from_slice(&made[8..8 + SIZE]);
        }
        self.pixels_above[plane][SIZE * x..SIZE * x + SIZE].copy_from_slice(&made[SIZE][8..8 + SIZE]);
        for row in &mut pixels.as_chunks_mut::<STRIDE>().0[..=SIZE] {
            row[7] = row[7 + SIZE];
        }
    }
}

fn small_mode(bools: &mut Bools<'_>, branch: &[u8; 9]) -> u8 {
    if !bools.next(branch[0]) {
        return predict::SMALL_MEAN;
    }
    if !bools.next(branch[1]) {
        return predict::SMALL_GRADIENT;
    }
    if !bools.next(branch[2]) {
        return predict::SMALL_VERTICAL;
    }
    if !bools.next(branch[3]) {
        if !bools.next(branch[4]) {
            return predict::SMALL_HORIZONTAL;
        }
        return if bools.next(branch[5]) { predict::VERTICAL_RIGHT } else { predict::RIGHT_DOWN };
    }
    if !bools.next(branch[6]) {
        return predict::LEFT_DOWN;
    }
    if !bools.next(branch[7]) {
        return predict::VERTICAL_LEFT;
    }
    if bools.next(branch[8]) { predict::HORIZONTAL_UP } else { predict::HORIZONTAL_DOWN }
}
