//! Scales a picture that comes row by row, so that the memory grows with its width and not with its pixels.
//!
//! The filter is Catmull-Rom's cubic, stretched to the scale, in both directions one after the other, on the values as
//! they are stored (no gamma). A picture that is more than [`LEFT`] times too large is first averaged over whole pixels.
//! Colours are weighted by their opacity, because an invisible pixel has no colour to give.
//!
//! Rows are scaled across eight at a time. A strip has them column by column, so that one instruction works on several.

use std::collections::VecDeque;
use std::ops::Range;

use crate::colour::Samples;

/// How many rows a strip has.
pub(crate) const LANES: usize = 8;
/// How far the cubic reaches, in pixels of the smaller picture.
const REACH: f64 = 2.0;
/// How many times larger than wanted a picture is after averaging, at least.
const LEFT: f64 = 2.0;
/// The most pixels across, and down, that are averaged at once. Sums stay within 32 bits.
const MOST_AVERAGED: u32 = 256;

/// The values of eight rows in one column.
pub(crate) type Column = [f32; LANES];

/// Bytes that a scaler of `columns` columns takes, at most, with a strip for it.
pub(crate) fn memory(columns: u64, width: u64, channels: u64) -> u64 {
    let strip = (4 * LANES as u64 + 4) * columns * channels;
    let weights = 4 * (4 * columns + 8 * width) + 32 * width;
    let rows = 4 * (LANES as u64 + 8) * width * channels;
    strip + weights + rows
}

/// The same for [`Rows`] of a picture of `across` pixels.
pub(crate) fn memory_of_rows(across: u32, width: u32, channels: u64) -> u64 {
    let columns = across.div_ceil(averaged(across, width));
    2 * u64::from(across) * channels + memory(columns.into(), width.into(), channels)
}

/// How many pixels are averaged before the cubic.
fn averaged(large: u32, small: u32) -> u32 {
    let most = f64::from(large) / (LEFT * f64::from(small));
    (most as u32).clamp(1, MOST_AVERAGED)
}

/// How long a side of a picture is, in pixels, and how many columns or rows it has for that. The last one may lie partly
/// outside.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Side {
    pub(crate) length: f64,
    pub(crate) count: u32,
}

impl Side {
    /// The side of a picture whose pixels are `numerator` ÷ `denominator` as many.
    pub(crate) fn of(length: u32, numerator: u32, denominator: u32) -> Self {
        let exact = f64::from(length) * f64::from(numerator) / f64::from(denominator);
        Self { length: exact, count: exact.ceil() as u32 }
    }

    /// The side once so many of its pixels are averaged.
    fn averaged(self, each: u32) -> Self {
        Self { length: self.length / f64::from(each), count: self.count.div_ceil(each) }
    }
}

/// Takes strips, and gives a smaller picture of 8 bits a channel.
#[derive(Debug)]
pub(crate) struct Scaler {
    channels: usize,
    has_opacity: bool,
    down: Side,
    height: u32,
    columns: Windows,
    /// The strip at hand, scaled across: its rows one after the other.
    scaled: Vec<f32>,
    /// The rows of the smaller picture that the row at hand adds to.
    under_way: VecDeque<Sum>,
    /// Rows that are not needed any more.
    spare: Vec<Vec<f32>>,
    /// The next row of the picture, and of the smaller one.
    at: u32,
    next: u32,
    done: Vec<u8>,
}

/// The pixels that each pixel of the smaller picture depends on, and how much.
#[derive(Debug)]
struct Windows {
    /// Where each begins, and which weights are its.
    all: Vec<(usize, Range<usize>)>,
    weights: Vec<f32>,
}

#[derive(Debug)]
struct Sum {
    start: u32,
    weights: Vec<f32>,
    row: Vec<f32>,
}

impl Scaler {
    /// From a picture with these sides to one of `width` × `height`.
    pub(crate) fn new(across: Side, down: Side, width: u32, height: u32, samples: Samples) -> Self {
        let pixels = (width as usize).saturating_mul(height as usize);
        let channels = samples.channels();
        Self {
            channels,
            has_opacity: samples == Samples::Rgba,
            down,
            height,
            columns: Windows::new(across, width),
            scaled: vec![0.0; LANES * width as usize * channels],
            under_way: VecDeque::new(),
            spare: Vec::new(),
            at: 0,
            next: 0,
            done: Vec::with_capacity(pixels.saturating_mul(channels)),
        }
    }

    /// Takes the next strip, of which this many rows count. Its channels lie beside each other.
    pub(crate) fn push(&mut self, strip: &[Column], rows: usize) {
        if self.next == self.height && self.under_way.is_empty() {
            return;
        }
        match self.channels {
            1 => self.columns.scale::<1>(strip, &mut self.scaled),
            3 => self.columns.scale::<3>(strip, &mut self.scaled),
            _ => self.columns.scale::<4>(strip, &mut self.scaled),
        }
        let scaled = std::mem::take(&mut self.scaled);
        for row in scaled.chunks_exact((scaled.len() / LANES).max(1)).take(rows) {
            if self.at < self.down.count {
                self.push_row(row);
            }
        }
        self.scaled = scaled;
    }

    fn push_row(&mut self, scaled: &[f32]) {
        while self.next < self.height {
            let (start, weights) = window(self.next, self.down, self.height);
            if start > self.at {
                break;
            }
            let mut row = self.spare.pop().unwrap_or_else(|| vec![0.0; scaled.len()]);
            row.fill(0.0);
            self.under_way.push_back(Sum { start, weights, row });
            self.next += 1;
        }
        for sum in &mut self.under_way {
            if let Some(weight) = sum.weights.get((self.at - sum.start) as usize) {
                for (sum, value) in sum.row.iter_mut().zip(scaled) {
                    *sum += weight * value;
                }
            }
        }
        self.at += 1;
        while let Some(sum) = self
            .under_way
            .pop_front_if(|sum| u64::from(sum.start) + sum.weights.len() as u64 <= u64::from(self.at))
        {
            self.finish_row(&sum.row);
            self.spare.push(sum.row);
        }
    }

    fn finish_row(&mut self, row: &[f32]) {
        if self.has_opacity {
            let (pixels, _) = row.as_chunks::<4>();
            for [red, green, blue, alpha] in pixels {
                let whole = |channel: &f32| if *alpha > 0.0 { rounded(channel * 255.0 / alpha) } else { 0 };
                self.done.extend([whole(red), whole(green), whole(blue), rounded(*alpha)]);
            }
        } else {
            self.done.extend(row.iter().map(|value| rounded(*value)));
        }
    }

    /// The smaller picture, once all rows have come.
    pub(crate) fn finish(self) -> Vec<u8> {
        self.done
    }
}

fn rounded(value: f32) -> u8 {
    // Between 0 and 255, so nothing is cut off.
    (value + 0.5).clamp(0.0, 255.0) as u8
}

/// The window of the pixel `at`, when a side is scaled to `small` pixels: where it begins, and its weights.
fn window(at: u32, large: Side, small: u32) -> (u32, Vec<f32>) {
    let scale = large.length / f64::from(small);
    let stretch = scale.max(1.0);
    let center = (f64::from(at) + 0.5) * scale;
    let reach = REACH * stretch;
    let last = large.count - 1;
    let start = ((center - reach).floor().max(0.0) as u32).min(last);
    let end = ((center + reach).ceil().max(0.0) as u32).clamp(start + 1, large.count);
    let weights = Range { start, end }.map(|pixel| {
        // Of the last one, a part may lie outside.
        let inside = (large.length - f64::from(pixel)).clamp(f64::EPSILON, 1.0);
        cubic((f64::from(pixel) + inside / 2.0 - center) / stretch) * inside as f32
    });
    let mut weights: Vec<f32> = weights.collect();
    let sum: f32 = weights.iter().sum();
    for weight in &mut weights {
        *weight /= sum;
    }
    (start, weights)
}

/// Catmull and Rom's cubic ("A class of local interpolating splines", 1974).
fn cubic(distance: f64) -> f32 {
    let x = distance.abs();
    let value = if x < 1.0 {
        (1.5 * x - 2.5) * x * x + 1.0
    } else if x < 2.0 {
        ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0
    } else {
        0.0
    };
    value as f32
}

impl Windows {
    fn new(large: Side, small: u32) -> Self {
        let (mut all, mut weights) = (Vec::with_capacity(small as usize), Vec::new());
        for at in 0..small {
            let (start, own) = window(at, large, small);
            let from = weights.len();
            weights.extend(own);
            all.push((start as usize, from..weights.len()));
        }
        Self { all, weights }
    }

    fn scale<const CHANNELS: usize>(&self, strip: &[Column], into: &mut [f32]) {
        let bytes = self.all.len() * CHANNELS;
        let (pixels, _) = strip.as_chunks::<CHANNELS>();
        for (at, (start, weights)) in self.all.iter().enumerate() {
            let mut sums = [[0.0_f32; LANES]; CHANNELS];
            for (pixel, weight) in pixels[*start..].iter().zip(&self.weights[weights.clone()]) {
                for (sum, values) in sums.iter_mut().zip(pixel) {
                    for (sum, value) in sum.iter_mut().zip(values) {
                        *sum += weight * value;
                    }
                }
            }
            for (channel, sum) in sums.iter().enumerate() {
                for (lane, value) in sum.iter().enumerate() {
                    into[lane * bytes + CHANNELS * at + channel] = *value;
                }
            }
        }
    }
}

/// Takes rows of 8 bits a channel for a scaler.
#[derive(Debug)]
pub(crate) struct Rows {
    scaler: Scaler,
    channels: usize,
    /// Pixels of a row, and how many are averaged across and down.
    length: usize,
    across: usize,
    down: u32,
    /// The sums of each place of the rows, unless it has opacity; and those across of them.
    upright: Vec<u16>,
    sums: Vec<u32>,
    /// How many rows are in the sums, and how many are in the strip.
    summed: u32,
    filled: usize,
    strip: Vec<Column>,
}

impl Rows {
    /// From `across` × `down` pixels to `width` × `height`.
    pub(crate) fn new(across: u32, down: u32, width: u32, height: u32, samples: Samples) -> Self {
        Self::of(Side::of(across, 1, 1), Side::of(down, 1, 1), width, height, samples)
    }

    /// The same from these sides.
    pub(crate) fn of(across: Side, down: Side, width: u32, height: u32, samples: Samples) -> Self {
        let (each_across, each_down) = (averaged(across.count, width), averaged(down.count, height));
        let (wide, high) = (across.averaged(each_across), down.averaged(each_down));
        let (length, channels) = (across.count as usize, samples.channels());
        let values = wide.count as usize * channels;
        Self {
            scaler: Scaler::new(wide, high, width, height, samples),
            channels,
            length,
            across: each_across as usize,
            down: each_down,
            upright: vec![0; if samples == Samples::Rgba { 0 } else { length * channels }],
            sums: vec![0; values],
            summed: 0,
            filled: 0,
            strip: vec![[0.0; LANES]; values],
        }
    }

    /// Takes the next row.
    pub(crate) fn push(&mut self, row: &[u8]) {
        if self.scaler.has_opacity {
            add_weighted(&mut self.sums, row, self.across);
        } else if self.summed == 0 {
            self.upright.iter_mut().zip(row).for_each(|(sum, value)| *sum = u16::from(*value));
        } else {
            // At most 256 rows.
            self.upright.iter_mut().zip(row).for_each(|(sum, value)| *sum += u16::from(*value));
        }
        self.summed += 1;
        if self.summed == self.down {
            self.finish_row();
        }
    }

    fn finish_row(&mut self) {
        if !self.scaler.has_opacity {
            match self.channels {
                1 => add::<1>(&mut self.sums, &self.upright, self.across),
                3 => add::<3>(&mut self.sums, &self.upright, self.across),
                _ => add::<4>(&mut self.sums, &self.upright, self.across),
            }
        }
        // Opaque values are 255 times as large.
        let one = if self.scaler.has_opacity { 255.0 } else { 1.0 };
        let scale = 1.0 / (self.across as f32 * self.summed as f32 * one);
        let (lane, last) = (self.filled, self.strip.len().saturating_sub(self.channels));
        for (column, sum) in self.strip.iter_mut().zip(&mut self.sums) {
            column[lane] = std::mem::take(sum) as f32 * scale;
        }
        // The last column may be of fewer pixels.
        let in_last = self.length - (self.length - 1) / self.across * self.across;
        if in_last < self.across {
            let more = self.across as f32 / in_last as f32;
            self.strip[last..].iter_mut().for_each(|column| column[lane] *= more);
        }
        self.summed = 0;
        self.filled += 1;
        if self.filled == LANES {
            self.scaler.push(&self.strip, LANES);
            self.filled = 0;
        }
    }

    /// The smaller picture, once all rows have come.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        if self.summed > 0 {
            self.finish_row();
        }
        if self.filled > 0 {
            self.scaler.push(&self.strip, self.filled);
        }
        self.scaler.finish()
    }
}

/// Adds the values of a row, of so many pixels to each sum.
fn add<const CHANNELS: usize>(sums: &mut [u32], row: &[u16], each: usize) {
    match (CHANNELS, each) {
        (1, 1) => add_grey::<1>(sums, row),
        (1, 2) => add_grey::<2>(sums, row),
        (1, 3) => add_grey::<3>(sums, row),
        (1, 4) => add_grey::<4>(sums, row),
        (1, 5) => add_grey::<5>(sums, row),
        (1, 6) => add_grey::<6>(sums, row),
        _ => {
            let (sums, _) = sums.as_chunks_mut::<CHANNELS>();
            let (pixels, _) = row.as_chunks::<CHANNELS>();
            for (sum, pixels) in sums.iter_mut().zip(pixels.chunks(each)) {
                for pixel in pixels {
                    for (sum, value) in sum.iter_mut().zip(pixel) {
                        *sum += u32::from(*value);
                    }
                }
            }
        }
    }
}

/// The same for one channel, faster.
fn add_grey<const EACH: usize>(sums: &mut [u32], row: &[u16]) {
    let (pixels, last) = row.as_chunks::<EACH>();
    let mut sums = sums.iter_mut();
    for (pixels, sum) in pixels.iter().zip(&mut sums) {
        *sum += pixels.iter().map(|value| u32::from(*value)).sum::<u32>();
    }
    if let Some(sum) = sums.next() {
        *sum += last.iter().map(|value| u32::from(*value)).sum::<u32>();
    }
}

/// The same for three colours, weighted by the fourth channel, their opacity.
fn add_weighted(sums: &mut [u32], row: &[u8], each: usize) {
    let (sums, _) = sums.as_chunks_mut::<4>();
    let (pixels, _) = row.as_chunks::<4>();
    for (sum, pixels) in sums.iter_mut().zip(pixels.chunks(each)) {
        for pixel in pixels {
            let alpha = u32::from(pixel[3]);
            for (sum, value) in sum.iter_mut().zip([pixel[0], pixel[1], pixel[2], 255]) {
                *sum += alpha * u32::from(value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn one_colour_stays_that_colour_whatever_the_sizes() {
        for (across, down, width, height) in
            [(1, 1, 1, 1), (161, 5, 160, 5), (3000, 2000, 160, 107), (5000, 1, 160, 1), (7, 9000, 6, 7714)]
        {
            for (samples, pixel) in [
                (Samples::Grey, &[9_u8][..]),
                (Samples::Rgb, &[1, 128, 255]),
                (Samples::Rgba, &[250, 3, 77, 200]),
                (Samples::Inks, &[250, 3, 77, 0]),
            ] {
                let channels = samples.channels();
                let mut rows = Rows::new(across, down, width, height, samples);
                let row = pixel.repeat(across as usize);
                for _ in 0..down {
                    rows.push(&row);
                    assert!(rows.scaler.under_way.len() <= 6, "{}", rows.scaler.under_way.len());
                }
                let done = rows.finish();
                assert_eq!(done.len(), width as usize * height as usize * channels);
                assert!(done.chunks(channels).all(|found| found == pixel), "{across} x {down}");
            }
        }
    }

    #[test]
    fn both_edges_weigh_the_same_whatever_the_size() {
        // White within a border of one pixel.
        for size in [1600, 1601, 1607, 3201, 6401, 12_801] {
            let mut rows = Rows::new(size, size, 160, 160, Samples::Grey);
            let (edge, mut inner) = (vec![0; size as usize], vec![255; size as usize]);
            (inner[0], inner[size as usize - 1]) = (0, 0);
            for y in 0..size {
                rows.push(if y == 0 || y == size - 1 { &edge } else { &inner });
            }
            let done = rows.finish();
            let at = |x: usize, y: usize| done[160 * y + x];
            let sides = [at(0, 80), at(159, 80), at(80, 0), at(80, 159)];
            let (least, most) = (sides.iter().min().unwrap(), sides.iter().max().unwrap());
            assert!(most - least < 10, "{size}: {sides:?}");
        }
    }
}
