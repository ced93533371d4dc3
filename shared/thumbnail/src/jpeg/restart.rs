//! The restarts of a scan. Where their markers are missing or damaged, they are found again as libjpeg does.

use super::bits::Bits;

/// Counts the units of a scan up to its next restart.
#[derive(Debug)]
pub(crate) struct Restarts {
    interval: u32,
    left: u32,
    /// The number of the next restart, of 0 to 7.
    next: u8,
}

impl Restarts {
    /// A restart after so many units; never, if it is 0.
    pub(crate) fn new(interval: u32) -> Self {
        Self { interval, left: interval, next: 0 }
    }

    /// Begins a unit. Returns whether a restart comes before it.
    #[inline]
    pub(crate) fn is_due(&mut self) -> bool {
        if self.interval == 0 {
            return false;
        }
        if self.left > 0 {
            self.left -= 1;
            return false;
        }
        self.left = self.interval - 1;
        true
    }

    /// Goes to the data behind the restart's marker. If a later marker comes first, there is no data for now.
    pub(crate) fn find(&mut self, bits: &mut Bits<'_>) {
        let wanted = self.next;
        self.next = (wanted + 1) & 7;
        let mut at = bits.position();
        while let Some((marker, code)) = any_marker(bits.data(), at) {
            let ahead = code.wrapping_sub(0xD0).wrapping_sub(wanted) & 7;
            match code {
                0xD0..=0xD7 => match ahead {
                    // One of the next two: this one was lost.
                    1 | 2 => return bits.stop_at(marker),
                    // One of the last two: it is a restart that was given up.
                    6 | 7 => at = marker + 2,
                    _ => return bits.restart_at(marker + 2),
                },
                0xC0.. => return bits.stop_at(marker),
                _ => at = marker + 2,
            }
        }
        bits.stop_at(bits.data().len());
    }
}

/// Where the next marker is, and its code.
fn any_marker(data: &[u8], from: usize) -> Option<(usize, u8)> {
    let mut at = from;
    loop {
        at += data.get(at..)?.iter().position(|byte| *byte == 0xFF)?;
        match *data.get(at + 1)? {
            0x00 => at += 2,
            0xFF => at += 1,
            code => return Some((at, code)),
        }
    }
}
