//! The inverse cosine transform, at full size or at a half, a quarter, an eighth of it.
//!
//! A smaller block is the transform of the lowest coefficients by themselves: what is left out are the frequencies that
//! the smaller size can't show. The eight-point transform is the one of Arai, Agui and Nakajima (1988), whose factors are
//! part of the quantization.

use std::f32::consts::SQRT_2;

/// How many pixels of a block are kept across, and as many down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Size {
    One = 1,
    Two = 2,
    Four = 4,
    Eight = 8,
}

impl Size {
    pub(crate) const ALL: [Self; 4] = [Self::One, Self::Two, Self::Four, Self::Eight];

    /// The needed coefficients, a bit each, in the order of a scan.
    pub(crate) fn needed(self) -> u64 {
        let is_needed = |place: &u8| u32::from(*place % 8).max(u32::from(*place / 8)) < self as u32;
        (0..)
            .zip(super::header::ZIGZAG)
            .filter(|(_, place)| is_needed(place))
            .fold(0, |all, (at, _)| all | 1 << at)
    }

    /// The factor of each coefficient before the transform, in the order of a scan.
    pub(crate) fn factors(self, quantization: &[u16; 64]) -> [f32; 64] {
        let own = |frequency: u8| match (self, frequency) {
            (_, 0) | (Self::Two, _) => 1.0,
            (Self::Four, _) => SQRT_2,
            (_, frequency) => SQRT_2 * (f32::from(frequency) * std::f32::consts::PI / 16.0).cos(),
        };
        let mut factors = [0.0; 64];
        for ((factor, place), step) in factors.iter_mut().zip(super::header::ZIGZAG).zip(quantization) {
            // An eighth is the mean of a block.
            *factor = f32::from(*step) / 8.0 * own(place % 8) * own(place / 8);
        }
        factors
    }
}

/// The samples of a block, column by column, from its coefficients, row by row; both have rows of eight. Values
/// are around zero.
#[inline]
pub(crate) fn inverse(size: Size, block: &[f32; 64], into: &mut [[f32; 8]], lane: usize) {
    match size {
        Size::Eight => transform::<8>(eight, block, into, lane),
        Size::Four => transform::<4>(four, block, into, lane),
        Size::Two => transform::<2>(two, block, into, lane),
        Size::One => {
            if let Some(column) = into.first_mut() {
                column[lane] = level(block[0]);
            }
        }
    }
}

/// A block that is all of one value.
#[inline]
pub(crate) fn flat(size: Size, mean: f32, into: &mut [[f32; 8]], lane: usize) {
    let mean = level(mean);
    for column in &mut into[..size as usize] {
        column[lane..lane + size as usize].fill(mean);
    }
}

/// From around zero to 0–255.
#[inline]
fn level(value: f32) -> f32 {
    (value + 128.0).clamp(0.0, 255.0)
}

#[inline]
fn transform<const N: usize>(
    of: impl Fn([[f32; N]; N]) -> [[f32; N]; N],
    block: &[f32; 64],
    into: &mut [[f32; 8]],
    lane: usize,
) {
    let rows: [[f32; N]; N] =
        std::array::from_fn(|row| std::array::from_fn(|column| block[8 * row + column]));
    let done = of(turned(of(rows)));
    let lane = lane.min(8 - N);
    for (column, done) in into[..N].iter_mut().zip(&done) {
        for (sample, value) in column[lane..lane + N].iter_mut().zip(done) {
            *sample = level(*value);
        }
    }
}

#[inline]
fn turned<const N: usize>(rows: [[f32; N]; N]) -> [[f32; N]; N] {
    std::array::from_fn(|column| std::array::from_fn(|row| rows[row][column]))
}

#[inline]
fn plus<const N: usize>(a: [f32; N], b: [f32; N]) -> [f32; N] {
    std::array::from_fn(|at| a[at] + b[at])
}

#[inline]
fn minus<const N: usize>(a: [f32; N], b: [f32; N]) -> [f32; N] {
    std::array::from_fn(|at| a[at] - b[at])
}

#[inline]
fn times<const N: usize>(a: [f32; N], factor: f32) -> [f32; N] {
    a.map(|value| value * factor)
}

/// Two points; the rows are transformed together.
#[inline]
fn two([a, b]: [[f32; 2]; 2]) -> [[f32; 2]; 2] {
    [plus(a, b), minus(a, b)]
}

#[inline]
fn four([a, b, c, d]: [[f32; 4]; 4]) -> [[f32; 4]; 4] {
    // cos(π/8) and cos(3π/8); those of the even half, cos(π/4), are 1 ÷ √2.
    const C1: f32 = 0.923_879_5;
    const C3: f32 = 0.382_683_43;
    let c = times(c, 1.0 / SQRT_2);
    let (even, odd) = (plus(a, c), minus(a, c));
    let outer = plus(times(b, C1), times(d, C3));
    let inner = minus(times(b, C3), times(d, C1));
    [plus(even, outer), plus(odd, inner), minus(odd, inner), minus(even, outer)]
}

#[inline]
fn eight(rows: [[f32; 8]; 8]) -> [[f32; 8]; 8] {
    let [r0, r1, r2, r3, r4, r5, r6, r7] = rows;
    // The even half.
    let (a, b) = (plus(r0, r4), minus(r0, r4));
    let sum = plus(r2, r6);
    let difference = minus(times(minus(r2, r6), SQRT_2), sum);
    let (e0, e3) = (plus(a, sum), minus(a, sum));
    let (e1, e2) = (plus(b, difference), minus(b, difference));
    // The odd half.
    let (z13, z10) = (plus(r5, r3), minus(r5, r3));
    let (z11, z12) = (plus(r1, r7), minus(r1, r7));
    let o7 = plus(z11, z13);
    let t11 = times(minus(z11, z13), SQRT_2);
    let z5 = times(plus(z10, z12), 1.847_759_1);
    let t10 = minus(z5, times(z12, 1.082_392_2));
    let t12 = minus(z5, times(z10, 2.613_125_9));
    let o6 = minus(t12, o7);
    let o5 = minus(t11, o6);
    let o4 = minus(t10, o5);
    [
        plus(e0, o7),
        plus(e1, o6),
        plus(e2, o5),
        plus(e3, o4),
        minus(e3, o4),
        minus(e2, o5),
        minus(e1, o6),
        minus(e0, o7),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jpeg::header::ZIGZAG;
    use std::f64::consts::PI;

    /// The definition: T.81, A.3.3, on as many coefficients and points as there are.
    fn defined(size: usize, coefficients: &[i16; 64], x: usize, y: usize) -> f64 {
        let own = |frequency: usize| if frequency == 0 { 0.5_f64.sqrt() } else { 1.0 };
        let wave = |at: usize, frequency: usize| {
            ((2 * at + 1) as f64 * frequency as f64 * PI / (2 * size) as f64).cos()
        };
        let mut sum = 0.0;
        for v in 0..size {
            for u in 0..size {
                sum += own(u) * own(v) * f64::from(coefficients[8 * v + u]) * wave(x, u) * wave(y, v);
            }
        }
        // 2 ÷ N of the transform, and N ÷ 8 of the scale.
        128.0 + sum / 4.0
    }

    #[test]
    fn every_size_is_the_transform_of_its_lowest_coefficients() {
        let mut state = 7_u32;
        let mut random = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 16).cast_signed() % 30
        };
        for size in Size::ALL {
            let n = size as usize;
            for _ in 0..20 {
                let coefficients: [i16; 64] = std::array::from_fn(|_| random() as i16 - 15);
                let factors = size.factors(&[1; 64]);
                let mut block = [0.0; 64];
                for (at, place) in ZIGZAG.iter().enumerate() {
                    if size.needed() >> at & 1 == 1 {
                        let place = usize::from(*place);
                        block[place] = f32::from(coefficients[place]) * factors[at];
                    }
                }
                let mut found = [[0.0; 8]; 8];
                let lane = 8 - n;
                inverse(size, &block, &mut found, lane);
                for (x, column) in found[..n].iter().enumerate() {
                    for (y, value) in column[lane..].iter().enumerate() {
                        let wanted = defined(n, &coefficients, x, y).clamp(0.0, 255.0);
                        let error = (f64::from(*value) - wanted).abs();
                        assert!(error < 0.01, "{size:?} {x} {y}: {value} for {wanted}");
                    }
                }
            }
        }
    }
}
