//! Scans that have some bits of some coefficients. Coefficients are kept until all scans are read, but only those that
//! the wanted size needs; of the others, whether they are zero.

use super::bits::{Bits, Codes};
use super::header::{CodeTable, Frame, Scan, Tables};
use super::idct::Size;
use super::plane::{Dequantizer, Layout, Plane};
use super::restart::Restarts;
use crate::input::Clock;
use crate::target::Reason;

/// The coefficients of a component.
#[derive(Debug)]
pub(crate) struct Coefficients {
    layout: Layout,
    size: Size,
    /// Those that are kept, block by block.
    kept: Vec<i16>,
    /// The coefficients of a block that are not zero, a bit each in the order of a scan.
    known: Vec<u64>,
    /// By the order of a scan: the place among those that are kept.
    places: [Option<u8>; 64],
    quantization: Option<[u16; 64]>,
}

impl Coefficients {
    pub(crate) fn new(frame: &Frame, component: usize, size: Size) -> Self {
        let layout = Layout::new(frame, component);
        let blocks = layout.wide as usize * layout.high as usize;
        let kept = size as usize;
        let needed = size.needed();
        let place = |at: usize| {
            let place = super::header::ZIGZAG[at];
            (needed >> at & 1 == 1).then_some(place / 8 * size as u8 + place % 8)
        };
        Self {
            layout,
            size,
            kept: vec![0; blocks * kept * kept],
            known: vec![0; blocks],
            places: std::array::from_fn(place),
            quantization: None,
        }
    }

    /// The bytes that they take.
    pub(crate) fn memory(frame: &Frame, component: usize, size: Size) -> u64 {
        let layout = Layout::new(frame, component);
        let kept = size as u64;
        u64::from(layout.wide) * u64::from(layout.high) * (2 * kept * kept + 8)
    }

    fn set(&mut self, block: usize, at: usize, value: i16) {
        if let Some(place) = self.places[at & 63] {
            let kept = self.size as usize;
            self.kept[block * kept * kept + usize::from(place)] = value;
        }
        self.known[block] |= 1 << (at & 63);
    }

    /// Gives all blocks to the plane.
    pub(crate) fn finish(self, plane: &mut Plane, clock: Clock) -> Result<(), Reason> {
        let Some(quantization) = &self.quantization else { return Ok(()) };
        let dequantizer = Dequantizer::new(self.size, quantization);
        let kept = self.size as usize;
        let mut block = [0.0; 128];
        let mut blocks = self.kept.chunks_exact(kept * kept);
        for _ in 0..self.layout.high {
            clock.look()?;
            for x in 0..self.layout.wide {
                let values = blocks.next().unwrap_or_default();
                for (at, place) in self.places.iter().enumerate().take(dequantizer.last + 1) {
                    if let Some(place) = place {
                        let into = usize::from(dequantizer.places[at]);
                        block[into] = f32::from(values[usize::from(*place)]) * dequantizer.factors[at];
                    }
                }
                block[0] = dequantizer.mean(values[0].into());
                let is_flat = values[1..].iter().all(|value| *value == 0);
                plane.put(x, 0, &block, is_flat);
            }
            plane.finish_rows(1);
        }
        Ok(())
    }
}

/// Reads a scan. Where its data ends too early, the rest is left as it is.
pub(crate) fn decode(
    data: &[u8],
    scan: &Scan,
    frame: &Frame,
    tables: &Tables<'_>,
    all: &mut [Coefficients],
    clock: Clock,
) -> Result<usize, Reason> {
    for choice in &scan.components {
        let coefficients = &mut all[choice.component];
        if coefficients.quantization.is_none() {
            coefficients.quantization = Some(*tables.quantization_of(&frame.components[choice.component])?);
        }
    }
    // Refinements of the means have no codes.
    let mut codes = Vec::new();
    for choice in &scan.components {
        codes.push(match (scan.first, scan.before) {
            (1.., _) => Some(CodeTable::codes(tables.ac[choice.ac].as_ref())?),
            (0, 0) => Some(CodeTable::codes(tables.dc[choice.dc].as_ref())?),
            _ => None,
        });
    }
    let mut bits = Bits::new(data, scan.start);
    let mut restarts = Restarts::new(tables.restart_interval);
    let is_alone = scan.components.len() == 1;
    let (across, down) = match &scan.components[..] {
        [choice] => {
            let layout = all[choice.component].layout;
            (layout.own_wide, layout.own_high)
        }
        _ => frame.units(),
    };
    let mut means = [0_i32; 4];
    let mut band = Band { first: scan.first.into(), last: scan.last.into(), shift: scan.now, blocks_left: 0 };
    for unit_down in 0..down {
        clock.look()?;
        for unit in 0..across {
            if restarts.is_due() {
                restarts.find(&mut bits);
                means = [0; 4];
                band.blocks_left = 0;
            }
            if bits.is_exhausted() {
                continue;
            }
            for ((choice, codes), mean) in scan.components.iter().zip(&codes).zip(&mut means) {
                let coefficients = &mut all[choice.component];
                let layout = coefficients.layout;
                if let Some(codes) = codes.as_ref().filter(|_| scan.first > 0) {
                    let block = (unit_down * layout.wide + unit) as usize;
                    if scan.before == 0 {
                        band.read(&mut bits, codes, coefficients, block);
                    } else {
                        band.refine(&mut bits, codes, coefficients, block);
                    }
                    continue;
                }
                let (h, v) = if is_alone { (1, 1) } else { (layout.across, layout.down) };
                for y in 0..v {
                    for x in 0..h {
                        let block = ((unit_down * v + y) * layout.wide + unit * h + x) as usize;
                        let kept = coefficients.size as usize;
                        let value = &mut coefficients.kept[block * kept * kept];
                        let Some(codes) = codes else {
                            *value |= i16::from(bits.flag()) << scan.now;
                            continue;
                        };
                        let size = u32::from(codes.symbol(&mut bits) & 15);
                        bits.refill();
                        *mean = mean.wrapping_add(bits.signed(size));
                        *value = (*mean << scan.now) as i16;
                    }
                }
            }
        }
    }
    Ok(bits.position())
}

/// Some coefficients of each block.
struct Band {
    first: usize,
    last: usize,
    /// The position of the bit that is read.
    shift: u8,
    /// How many more blocks have nothing new in this band.
    blocks_left: u32,
}

impl Band {
    /// Reads the first bits of the band (T.81, G.1.2.2).
    fn read(&mut self, bits: &mut Bits<'_>, codes: &Codes, into: &mut Coefficients, block: usize) {
        if self.blocks_left > 0 {
            self.blocks_left -= 1;
            return;
        }
        let mut at = self.first;
        while at <= self.last {
            bits.refill();
            let entry = codes.next(bits);
            let (run, size) = (u32::from(entry.symbol >> 4), u32::from(entry.symbol & 15));
            if size > 0 {
                let value = if entry.is_open() { bits.signed(size) } else { i32::from(entry.value) };
                at += run as usize;
                if at > self.last {
                    return;
                }
                into.set(block, at, (value << self.shift) as i16);
                at += 1;
            } else if run == 15 {
                at += 16;
            } else {
                bits.refill();
                self.blocks_left = (1 << run) - 1 + bits.take(run);
                return;
            }
        }
    }

    /// Reads one more bit of each coefficient of the band (T.81, G.1.2.3).
    fn refine(&mut self, bits: &mut Bits<'_>, codes: &Codes, into: &mut Coefficients, block: usize) {
        let bit = 1_i16 << self.shift;
        let mut at = self.first;
        if self.blocks_left == 0 {
            while at <= self.last {
                let symbol = codes.symbol(bits);
                let (mut run, size) = (symbol >> 4, symbol & 15);
                let value = match size {
                    0 if run < 15 => {
                        bits.refill();
                        self.blocks_left = (1 << run) + bits.take(run.into());
                        break;
                    }
                    0 => 0,
                    _ if bits.flag() => bit,
                    _ => -bit,
                };
                let known = into.known[block];
                while at <= self.last {
                    if known >> at & 1 == 1 {
                        refined(bits, into, block, at, bit);
                    } else if run == 0 {
                        break;
                    } else {
                        run -= 1;
                    }
                    at += 1;
                }
                if value != 0 && at <= self.last {
                    into.set(block, at, value);
                }
                at += 1;
            }
        }
        if self.blocks_left > 0 {
            let known = into.known[block];
            while at <= self.last {
                if known >> at & 1 == 1 {
                    refined(bits, into, block, at, bit);
                }
                at += 1;
            }
            self.blocks_left -= 1;
        }
    }
}

/// Reads one more bit of a coefficient that is not zero.
fn refined(bits: &mut Bits<'_>, into: &mut Coefficients, block: usize, at: usize, bit: i16) {
    if bits.flag()
        && let Some(place) = into.places[at & 63]
    {
        let kept = into.size as usize;
        let value = &mut into.kept[block * kept * kept + usize::from(place)];
        if *value & bit == 0 {
            *value = value.wrapping_add(if *value < 0 { -bit } else { bit });
        }
    }
}
