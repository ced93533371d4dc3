//! Scales a picture that comes row by row, so that the memory grows with its width and not with its pixels.
//!
//! The filter is Catmull-Rom's cubic, stretched to the scale, in both directions one after the other. Colours are
//! weighted by their opacity, because an invisible pixel has no colour to give.

use std::collections::VecDeque;
use std::ops::Range;

use crate::colour::Samples;

/// How far the cubic reaches, in pixels of the smaller picture.
const REACH: f32 = 2.0;

/// Bytes that the tables and rows of a scaler take, at most: a weight for each pixel across that a pixel of the smaller
/// picture depends on, and sums for the few rows that are under way.
pub(crate) fn memory(across: u32, width: u32, channels: usize) -> u64 {
    let reach = 2 * REACH as u64 + 2;
    let weights = 4 * reach * u64::from(across.max(width));
    weights + 4 * (reach + 1) * u64::from(width) * channels as u64
}

/// Takes rows of 8 bits a channel, and gives those of a smaller picture.
#[derive(Debug)]
pub(crate) struct Scaler {
    channels: usize,
    has_opacity: bool,
    down: u32,
    height: u32,
    columns: Vec<Window>,
    /// The row at hand, scaled across.
    row: Vec<f32>,
    /// The rows of the smaller picture that the row at hand adds to.
    under_way: VecDeque<Sum>,
    /// The next row of the picture, and of the smaller one.
    at: u32,
    next: u32,
    done: Vec<u8>,
}

/// The pixels that a pixel of the smaller picture depends on, and how much.
#[derive(Debug)]
struct Window {
    start: u32,
    weights: Vec<f32>,
}

#[derive(Debug)]
struct Sum {
    window: Window,
    row: Vec<f32>,
}

impl Scaler {
    /// From `across` × `down` pixels to `width` × `height`.
    pub(crate) fn new(across: u32, down: u32, width: u32, height: u32, samples: Samples) -> Self {
        let pixels = (width as usize).saturating_mul(height as usize);
        let channels = samples.channels();
        Self {
            channels,
            has_opacity: samples == Samples::Rgba,
            down,
            height,
            columns: (0..width).map(|at| window(at, across, width)).collect(),
            row: vec![0.0; width as usize * channels],
            under_way: VecDeque::new(),
            at: 0,
            next: 0,
            done: Vec::with_capacity(pixels.saturating_mul(channels)),
        }
    }

    /// Takes the next row.
    pub(crate) fn push(&mut self, row: &[u8]) {
        match self.channels {
            1 => across::<1>(&self.columns, row, &mut self.row),
            3 => across::<3>(&self.columns, row, &mut self.row),
            _ if !self.has_opacity => across::<4>(&self.columns, row, &mut self.row),
            _ => across_weighted(&self.columns, row, &mut self.row),
        }
        while self.next < self.height {
            let window = window(self.next, self.down, self.height);
            if window.start > self.at {
                break;
            }
            self.under_way.push_back(Sum { window, row: vec![0.0; self.row.len()] });
            self.next += 1;
        }
        for sum in &mut self.under_way {
            let within = (self.at - sum.window.start) as usize;
            if let Some(weight) = sum.window.weights.get(within) {
                for (sum, value) in sum.row.iter_mut().zip(&self.row) {
                    *sum += weight * value;
                }
            }
        }
        self.at += 1;
        while self.under_way.front().is_some_and(|sum| {
            u64::from(sum.window.start) + sum.window.weights.len() as u64 <= u64::from(self.at)
        }) {
            if let Some(sum) = self.under_way.pop_front() {
                self.finish_row(&sum.row);
            }
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

/// The window of the pixel `at`, when `large` pixels are scaled to `small` ones.
fn window(at: u32, large: u32, small: u32) -> Window {
    let scale = f64::from(large) / f64::from(small);
    let stretch = scale.max(1.0);
    let center = (f64::from(at) + 0.5) * scale;
    let reach = f64::from(REACH) * stretch;
    let last = large - 1;
    let start = ((center - reach).floor().max(0.0) as u32).min(last);
    let end = ((center + reach).ceil().max(0.0) as u32).clamp(start + 1, large);
    let weights = Range { start, end }.map(|pixel| cubic((f64::from(pixel) + 0.5 - center) / stretch));
    let mut weights: Vec<f32> = weights.collect();
    let sum: f32 = weights.iter().sum();
    for weight in &mut weights {
        *weight /= sum;
    }
    Window { start, weights }
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

fn across<const CHANNELS: usize>(columns: &[Window], row: &[u8], into: &mut [f32]) {
    let (pixels, _) = row.as_chunks::<CHANNELS>();
    let (into, _) = into.as_chunks_mut::<CHANNELS>();
    for (window, into) in columns.iter().zip(into) {
        let mut sums = [0.0; CHANNELS];
        for (pixel, weight) in pixels[window.start as usize..].iter().zip(&window.weights) {
            for (sum, value) in sums.iter_mut().zip(pixel) {
                *sum += weight * f32::from(*value);
            }
        }
        *into = sums;
    }
}

/// The same for three colours, weighted by the fourth channel, their opacity.
fn across_weighted(columns: &[Window], row: &[u8], into: &mut [f32]) {
    let (pixels, _) = row.as_chunks::<4>();
    let (into, _) = into.as_chunks_mut::<4>();
    for (window, into) in columns.iter().zip(into) {
        let mut sums = [0.0; 4];
        for (&[red, green, blue, alpha], weight) in
            pixels[window.start as usize..].iter().zip(&window.weights)
        {
            let opaque = weight * f32::from(alpha);
            let share = opaque * (1.0 / 255.0);
            sums[0] += share * f32::from(red);
            sums[1] += share * f32::from(green);
            sums[2] += share * f32::from(blue);
            sums[3] += opaque;
        }
        *into = sums;
    }
}

#[cfg(test)]
mod tests {
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
                let mut scaler = Scaler::new(across, down, width, height, samples);
                let row = pixel.repeat(across as usize);
                for _ in 0..down {
                    scaler.push(&row);
                    assert!(scaler.under_way.len() <= 6, "{}", scaler.under_way.len());
                }
                let done = scaler.finish();
                assert_eq!(done.len(), width as usize * height as usize * channels);
                assert!(done.chunks(channels).all(|found| found == pixel), "{across} x {down}");
            }
        }
    }
}
