//! Scans that have all coefficients of their components: each block goes to its plane at once.

use super::bits::{Bits, Codes};
use super::header::{CodeTable, Frame, Scan, Tables};
use super::plane::{Block, Dequantizer, Layout, Plane};
use super::restart::Restarts;
use crate::input::Clock;
use crate::target::Reason;

/// A component as this scan has it.
struct Part {
    plane: usize,
    layout: Layout,
    dc: Codes,
    ac: Codes,
    dequantizer: Dequantizer,
    /// The mean of the last block, which the next one differs from.
    before: i32,
}

/// Decodes a scan into the planes of its components. Where its data ends too early, the rest is grey.
pub(crate) fn decode(
    data: &[u8],
    scan: &Scan,
    frame: &Frame,
    tables: &Tables<'_>,
    planes: &mut [Plane],
    clock: Clock,
) -> Result<usize, Reason> {
    let mut parts = Vec::new();
    for choice in &scan.components {
        let quantization = tables.quantization_of(&frame.components[choice.component])?;
        parts.push(Part {
            plane: choice.component,
            layout: Layout::new(frame, choice.component),
            dc: CodeTable::codes(tables.dc[choice.dc].as_ref())?,
            ac: CodeTable::codes(tables.ac[choice.ac].as_ref())?,
            dequantizer: Dequantizer::new(planes[choice.component].size, quantization),
            before: 0,
        });
    }
    // A component by itself comes block by block, and without the padding of whole units.
    let (across, down) = match &mut parts[..] {
        [part] => {
            (part.layout.across, part.layout.down) = (1, 1);
            (part.layout.own_wide, part.layout.own_high)
        }
        _ => frame.units(),
    };
    let mut bits = Bits::new(data, scan.start);
    let mut restarts = Restarts::new(tables.restart_interval);
    let mut block = [0.0; 128];
    for _ in 0..down {
        clock.look()?;
        for unit in 0..across {
            if restarts.is_due() {
                restarts.find(&mut bits);
                parts.iter_mut().for_each(|part| part.before = 0);
            }
            let is_missing = bits.is_exhausted();
            for part in &mut parts {
                let plane = &mut planes[part.plane];
                for y in 0..part.layout.down {
                    for x in 0..part.layout.across {
                        let is_flat = if is_missing {
                            block[0] = 0.0;
                            true
                        } else {
                            part.read(&mut bits, &mut block)
                        };
                        plane.put(unit * part.layout.across + x, y, &block, is_flat);
                    }
                }
            }
        }
        for part in &parts {
            planes[part.plane].finish_rows(part.layout.down);
        }
    }
    Ok(bits.position())
}

impl Part {
    /// Reads a block. Returns whether it is all of one value.
    #[inline]
    fn read(&mut self, bits: &mut Bits<'_>, block: &mut Block) -> bool {
        let Dequantizer { places, factors, last, .. } = &self.dequantizer;
        bits.refill();
        let entry = self.dc.next(bits);
        let size = u32::from(entry.symbol & 15);
        let difference = if entry.is_open() { bits.signed(size) } else { i32::from(entry.value) };
        self.before = self.before.wrapping_add(difference);
        let mean = self.dequantizer.mean(self.before);
        block[0] = mean;
        let mut at = 1;
        let mut is_flat = true;
        while at <= *last {
            bits.refill();
            let entry = self.ac.next(bits);
            let size = u32::from(entry.symbol & 15);
            let run = usize::from(entry.symbol >> 4);
            if size == 0 {
                if run != 15 {
                    return is_flat;
                }
                at += 16;
                continue;
            }
            let value = if entry.is_open() { bits.signed(size) } else { i32::from(entry.value) };
            at += run;
            if is_flat {
                block[..64].fill(0.0);
                block[0] = mean;
                is_flat = false;
            }
            // After damage it may be behind the last one, and is taken for that, as in libjpeg.
            let in_block = at.min(63);
            block[usize::from(places[in_block] & 127)] = value as f32 * factors[in_block];
            at += 1;
        }
        // The rest is skipped.
        while at < 64 {
            bits.refill();
            let entry = self.ac.next(bits);
            if entry.is_open() {
                bits.skip(u32::from(entry.symbol & 15));
            }
            let run = usize::from(entry.symbol >> 4);
            if entry.symbol & 15 == 0 && run != 15 {
                break;
            }
            at += run + 1;
        }
        is_flat
    }
}
