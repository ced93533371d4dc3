//! JPEG: decodes only what a rendition needs of it.
//!
//! Each component is scaled by itself, from the size that it is sampled at, and colours are mixed at the end where there are
//! few pixels. Blocks are transformed at a half, a quarter or an eighth of their size where that is enough. Pixels of a
//! sequential picture go from the block to the scaler; of a progressive one, the needed coefficients are kept.
//!
//! Damage is taken as libjpeg takes it, which browsers use: the rest of data that ends too early is grey, lost restarts are
//! searched, missing tables are the standard's.

mod bits;
mod header;
mod idct;
mod plane;
mod progressive;
mod restart;
mod sequential;
mod standard;
#[cfg(test)]
mod tests;

use header::{Colours, Frame, Scan, Segments};
use idct::Size;
use plane::Plane;
use progressive::Coefficients;

use crate::colour;
use crate::input::Clock;
use crate::target::{METADATA_BYTES, Reason, Target};

/// How many times larger than wanted a component is after the transform, at least, if it is large enough: luma and other
/// colours, and chroma, which the eye resolves less.
const LEFT: f64 = 1.5;
const LEFT_OF_CHROMA: f64 = 1.0;
/// The most bytes of coefficients that are kept for a pixel of a progressive picture.
const MOST_KEPT: u64 = 3;

/// A JPEG whose structure is sound.
pub(crate) struct Jpeg<'a> {
    bytes: &'a [u8],
    /// Up to its first scan.
    start: Result<(Segments<'a>, Scan), Reason>,
}

impl<'a> Jpeg<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, start: start(bytes) }
    }

    /// The most bytes that decoding it to this size takes.
    pub(crate) fn memory(&self, (width, height): (u32, u32)) -> u64 {
        let Ok((segments, _)) = &self.start else { return 0 };
        let Some(frame) = &segments.frame else { return 0 };
        let sizes = sizes(frame, segments.colours(), width, height);
        let each = sizes.iter().enumerate().map(|(component, size)| {
            let kept = if frame.is_progressive { Coefficients::memory(frame, component, *size) } else { 0 };
            kept + Plane::memory(frame, component, *size, width)
        });
        let profile = segments.profile_bytes().min(METADATA_BYTES) as u64;
        each.sum::<u64>() + colour::memory(profile)
    }

    pub(crate) fn decode(self, target: &mut impl Target, clock: Clock) -> Result<(), Reason> {
        let (mut segments, first) = self.start?;
        let mut next = Some(first);
        let frame = segments.frame.clone().ok_or(Reason::Incomplete)?;
        let colours = segments.colours();
        let Some((width, height)) = target.size(frame.width, frame.height)? else { return Ok(()) };
        target.colours(segments.profile().as_deref().and_then(colour::of_profile));
        let sizes = sizes(&frame, colours, width, height);
        let plane = |(component, size): (usize, &Size)| Plane::new(&frame, component, *size, width, height);
        let mut planes: Vec<Plane> = sizes.iter().enumerate().map(plane).collect();
        if frame.is_progressive {
            let of = |(component, size): (usize, &Size)| Coefficients::new(&frame, component, *size);
            let mut all: Vec<Coefficients> = sizes.iter().enumerate().map(of).collect();
            let unneeded = unneeded_scans(&next, segments.clone(), &sizes);
            while let Some(scan) = next {
                if !unneeded.contains(&scan.start) {
                    let tables = &segments.tables;
                    segments.at = progressive::decode(self.bytes, &scan, &frame, tables, &mut all, clock)?;
                }
                // What came before a damaged segment is shown.
                next = segments.next_scan().unwrap_or_default();
            }
            for (coefficients, plane) in all.into_iter().zip(&mut planes) {
                coefficients.finish(plane, clock)?;
            }
        } else {
            let mut is_done = vec![false; planes.len()];
            while let Some(scan) = next {
                // A component has one scan.
                if !scan.components.iter().any(|choice| is_done[choice.component]) {
                    scan.components.iter().for_each(|choice| is_done[choice.component] = true);
                    let tables = &segments.tables;
                    segments.at = sequential::decode(self.bytes, &scan, &frame, tables, &mut planes, clock)?;
                }
                if is_done.iter().all(|done| *done) {
                    break;
                }
                // What came before a damaged segment is shown.
                next = segments.next_scan().unwrap_or_default();
            }
        }
        let planes = planes.into_iter().map(Plane::finish).collect();
        target.pixels(mixed(planes, colours), colours.samples());
        Ok(())
    }
}

/// Goes to the first scan.
fn start(bytes: &[u8]) -> Result<(Segments<'_>, Scan), Reason> {
    let mut segments = Segments::new(bytes);
    let scan = segments.next_scan()?.ok_or(Reason::Incomplete)?;
    let frame = segments.frame.as_ref().filter(|frame| frame.width > 0 && frame.height > 0);
    frame.ok_or(Reason::Incomplete)?;
    Ok((segments, scan))
}

/// The size at which each component is transformed.
fn sizes(frame: &Frame, colours: Colours, width: u32, height: u32) -> Vec<Size> {
    let (most_across, most_down) = frame.unit();
    let size = |(at, component): (usize, &header::Component)| {
        let across = frame.width * component.across / most_across;
        let down = frame.height * component.down / most_down;
        let scale = (f64::from(across) / f64::from(width)).min(f64::from(down) / f64::from(height));
        let is_chroma = matches!(colours, Colours::Luma | Colours::InksAsLuma) && matches!(at, 1 | 2);
        let left = if is_chroma { LEFT_OF_CHROMA } else { LEFT };
        let is_enough = |size: &Size| scale * f64::from(*size as u32) / 8.0 >= left;
        Size::ALL.into_iter().find(is_enough).unwrap_or(Size::Eight)
    };
    let mut sizes: Vec<Size> = frame.components.iter().enumerate().map(size).collect();
    let pixels = u64::from(frame.width) * u64::from(frame.height);
    let kept = |sizes: &[Size]| -> u64 {
        sizes.iter().enumerate().map(|(at, size)| Coefficients::memory(frame, at, *size)).sum()
    };
    // The last components first: those are chroma.
    for at in (0..sizes.len()).rev() {
        if frame.is_progressive && kept(&sizes) > MOST_KEPT * pixels + (1 << 20) {
            sizes[at] = sizes[at].min(Size::Four);
        }
    }
    sizes
}

/// Where scans begin whose coefficients are neither needed nor help to understand later scans.
fn unneeded_scans(first: &Option<Scan>, mut segments: Segments<'_>, sizes: &[Size]) -> Vec<usize> {
    let mut scans: Vec<Scan> = first.iter().cloned().collect();
    while let Ok(Some(scan)) = segments.next_scan() {
        scans.push(scan);
    }
    let mut needed: Vec<u64> = sizes.iter().map(|size| size.needed()).collect();
    let mut unneeded = Vec::new();
    for scan in scans.iter().rev() {
        let band = scan.band();
        if scan.components.iter().any(|choice| needed[choice.component] & band != 0) {
            scan.components.iter().for_each(|choice| needed[choice.component] |= band);
        } else {
            unneeded.push(scan.start);
        }
    }
    unneeded
}

/// The components side by side; luma and chroma as colours (JFIF).
fn mixed(mut planes: Vec<Vec<u8>>, colours: Colours) -> Vec<u8> {
    match (&mut planes[..], colours) {
        ([only], _) => std::mem::take(only),
        ([luma, blue, red], Colours::Luma) => colour::FULL.mix(luma, blue, red),
        (planes, _) => {
            let mut mixed = Vec::with_capacity(planes.iter().map(|plane| plane.len()).sum());
            for at in 0..planes.first().map_or(0, |plane| plane.len()) {
                mixed.extend(planes.iter().map(|plane| plane[at]));
            }
            mixed
        }
    }
}
