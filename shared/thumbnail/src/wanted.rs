//! For tests: a target that keeps the pixels.

use moxcms::ColorProfile;

use crate::colour::Samples;
use crate::target::{Reason, Target};

/// Takes a picture at so many pixels across.
pub(crate) struct Wanted {
    width: u32,
    pixels: Option<(Vec<u8>, Samples)>,
}

impl Wanted {
    pub(crate) fn of(width: u32) -> Self {
        Self { width, pixels: None }
    }

    /// The pixels, and what they are.
    pub(crate) fn taken(self) -> Result<(Vec<u8>, Samples), Reason> {
        self.pixels.ok_or(Reason::Incomplete)
    }
}

impl Target for Wanted {
    fn size(&mut self, across: u32, down: u32) -> Result<Option<(u32, u32)>, Reason> {
        Ok(Some((self.width, crate::scaled(down, self.width, across))))
    }

    fn colours(&mut self, _: Option<ColorProfile>) {}

    fn pixels(&mut self, pixels: Vec<u8>, samples: Samples) {
        self.pixels = Some((pixels, samples));
    }
}

/// The mean difference of two pictures.
pub(crate) fn difference(found: &[u8], wanted: &[u8]) -> f64 {
    assert_eq!(found.len(), wanted.len());
    let sum: u64 = found.iter().zip(wanted).map(|(found, wanted)| u64::from(found.abs_diff(*wanted))).sum();
    sum as f64 / found.len() as f64
}

/// Numbers that seem random, the same ones in each run (Knuth's MMIX).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % limit
    }
}
