//! The samples of one component, from its blocks to the size that is wanted.

use super::header::Frame;
use super::idct::{self, Size};
use crate::colour::Samples;
use crate::scale::{self, Column, LANES, Scaler, Side};

/// The coefficients of a block, row by row. Those that are not needed go behind its end.
pub(crate) type Block = [f32; 128];
/// Where a coefficient goes that is not needed.
const UNNEEDED: u8 = 64;

/// How the coefficients of a component become a block.
#[derive(Debug)]
pub(crate) struct Dequantizer {
    /// By the order of a scan: the place in a block, and the factor.
    pub(crate) places: [u8; 64],
    pub(crate) factors: [f32; 64],
    /// The step of the mean.
    step: i32,
    /// The last coefficient that is needed.
    pub(crate) last: usize,
}

impl Dequantizer {
    pub(crate) fn new(size: Size, quantization: &[u16; 64]) -> Self {
        let needed = size.needed();
        let mut places = super::header::ZIGZAG;
        for (at, place) in places.iter_mut().enumerate() {
            if needed >> at & 1 == 0 {
                *place = UNNEEDED;
            }
        }
        Self {
            places,
            factors: size.factors(quantization),
            step: quantization[0].into(),
            last: needed.ilog2() as usize,
        }
    }

    /// The mean of a block. One that is out of range, after damage, comes round from the other end, as in
    /// libjpeg-turbo, which has 14 bits for it.
    #[inline]
    pub(crate) fn mean(&self, steps: i32) -> f32 {
        ((steps.wrapping_mul(self.step) << 18) >> 18) as f32 / 8.0
    }
}

/// Takes the blocks of a component, row by row, and scales them.
#[derive(Debug)]
pub(crate) struct Plane {
    pub(crate) size: Size,
    columns: usize,
    rows: u32,
    /// Strips one after the other, and how many of their rows are whole.
    strips: Vec<Column>,
    filled: usize,
    pushed: u32,
    scaler: Scaler,
}

/// How a component is sampled, with its padding.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Layout {
    /// Blocks of a unit.
    pub(crate) across: u32,
    pub(crate) down: u32,
    /// Blocks of the picture, in whole units.
    pub(crate) wide: u32,
    pub(crate) high: u32,
    /// Blocks of the picture, where a scan has this component only.
    pub(crate) own_wide: u32,
    pub(crate) own_high: u32,
}

impl Layout {
    pub(crate) fn new(frame: &Frame, component: usize) -> Self {
        let (most_across, most_down) = frame.unit();
        let (units_across, units_down) = frame.units();
        let component = &frame.components[component];
        Self {
            across: component.across,
            down: component.down,
            wide: units_across * component.across,
            high: units_down * component.down,
            own_wide: (frame.width * component.across).div_ceil(8 * most_across),
            own_high: (frame.height * component.down).div_ceil(8 * most_down),
        }
    }
}

impl Plane {
    pub(crate) fn new(frame: &Frame, component: usize, size: Size, width: u32, height: u32) -> Self {
        let layout = Layout::new(frame, component);
        let (most_across, most_down) = frame.unit();
        let kept = size as u32;
        let across = Side::of(frame.width, layout.across * kept, 8 * most_across);
        let down = Side::of(frame.height, layout.down * kept, 8 * most_down);
        let columns = (layout.wide * kept) as usize;
        Self {
            size,
            columns,
            rows: down.count,
            strips: vec![[0.0; LANES]; columns * strips_of(layout, size)],
            filled: 0,
            pushed: 0,
            scaler: Scaler::new(across, down, width, height, Samples::Grey),
        }
    }

    /// The most bytes that it takes.
    pub(crate) fn memory(frame: &Frame, component: usize, size: Size, width: u32) -> u64 {
        let layout = Layout::new(frame, component);
        let columns = u64::from(layout.wide) * size as u64;
        scale::memory(columns, width.into(), 1)
            + columns * (strips_of(layout, size) * size_of::<Column>()) as u64
    }

    /// Takes the block that is `x` blocks from the left, `y` blocks below the rows that are whole.
    #[inline]
    pub(crate) fn put(&mut self, x: u32, y: u32, block: &Block, is_flat: bool) {
        let kept = self.size as usize;
        let row = self.filled + y as usize * kept;
        let first = row / LANES * self.columns + x as usize * kept;
        let into = &mut self.strips[first..first + kept];
        if is_flat {
            idct::flat(self.size, block[0], into, row % LANES);
        } else if let Some(block) = block.first_chunk::<64>() {
            idct::inverse(self.size, block, into, row % LANES);
        }
    }

    /// So many more rows of blocks are whole.
    pub(crate) fn finish_rows(&mut self, blocks: u32) {
        self.filled += blocks as usize * self.size as usize;
        let mut at = 0;
        while self.filled >= LANES {
            self.push(at, LANES);
            self.filled -= LANES;
            at += self.columns;
        }
        if at > 0 && self.filled > 0 {
            self.strips.copy_within(at..at + self.columns, 0);
        }
    }

    fn push(&mut self, at: usize, rows: usize) {
        self.scaler.push(&self.strips[at..at + self.columns], rows);
        self.pushed = self.pushed.saturating_add(rows as u32);
    }

    /// The scaled samples. Those that never came are grey.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        if self.filled > 0 {
            self.push(0, self.filled);
        }
        if self.pushed < self.rows {
            self.strips.fill([128.0; LANES]);
        }
        while self.pushed < self.rows {
            self.push(0, LANES);
        }
        self.scaler.finish()
    }
}

/// How many strips a row of units takes, beside one that is not whole.
fn strips_of(layout: Layout, size: Size) -> usize {
    (layout.down as usize * size as usize).div_ceil(LANES) + 1
}
