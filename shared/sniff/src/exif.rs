//! The orientation in an Exif block (CIPA DC-008, TIFF 6.0), found while the block streams by.

use crate::walk::Step;

/// The tag of the orientation, and the type of its value: a number of 16 bits.
const ORIENTATION: u16 = 0x0112;
const SHORT: u16 = 3;

/// A block on its way.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Exif {
    place: Place,
    is_big_endian: bool,
    /// How many of its bytes no step has asked for yet.
    pub(crate) left: u32,
    orientation: u8,
}

#[derive(Debug, Clone, Copy)]
enum Place {
    Header,
    /// Between the header and the first directory.
    Between,
    /// The number of the directory's entries.
    Count,
    /// An entry, with so many behind it.
    Entry(u16),
}

impl Exif {
    /// A block of so many bytes, and the first step of it; no step if it is too short.
    pub(crate) fn begin(left: u32) -> (Self, Option<Step>) {
        let mut exif = Self { place: Place::Header, is_big_endian: false, left, orientation: 1 };
        let step = exif.ask(Place::Header, 8);
        (exif, step)
    }

    /// Takes the bytes of its last step, and returns its next one; `None` once nothing more is to be learnt.
    pub(crate) fn take(&mut self, bytes: &[u8]) -> Option<Step> {
        match (self.place, bytes) {
            (Place::Header, &[b0, b1, m0, m1, o0, o1, o2, o3]) => {
                self.is_big_endian = match [b0, b1] {
                    [b'M', b'M'] => true,
                    [b'I', b'I'] => false,
                    _ => return None,
                };
                if self.short([m0, m1]) != 42 {
                    return None;
                }
                let offset = [o0, o1, o2, o3];
                let offset =
                    if self.is_big_endian { u32::from_be_bytes(offset) } else { u32::from_le_bytes(offset) };
                let between = offset.checked_sub(8)?;
                self.left = self.left.checked_sub(between)?;
                self.place = Place::Between;
                Some(Step::Skip(between.into()))
            }
            (Place::Between, []) => self.ask(Place::Count, 2),
            (Place::Count, &[c0, c1]) => {
                let count = self.short([c0, c1]).checked_sub(1)?;
                self.ask(Place::Entry(count), 12)
            }
            (Place::Entry(behind), &[t0, t1, k0, k1, c0, c1, c2, c3, v0, v1, _, _]) => {
                let is_one = [c0, c1, c2, c3] == if self.is_big_endian { [0, 0, 0, 1] } else { [1, 0, 0, 0] };
                let value = u8::try_from(self.short([v0, v1])).unwrap_or_default();
                // Browsers pass over one that makes no sense.
                let makes_sense = self.short([k0, k1]) == SHORT && is_one && (1..=8).contains(&value);
                if self.short([t0, t1]) == ORIENTATION && makes_sense {
                    self.orientation = value;
                    return None;
                }
                self.ask(Place::Entry(behind.checked_sub(1)?), 12)
            }
            _ => None,
        }
    }

    /// How the picture is to be turned and mirrored, as Exif numbers it: 1 to 8, and 1 if the block does not say.
    pub(crate) const fn orientation(&self) -> u8 {
        self.orientation
    }

    fn ask(&mut self, place: Place, bytes: u8) -> Option<Step> {
        self.left = self.left.checked_sub(bytes.into())?;
        self.place = place;
        Some(Step::Take(bytes.into()))
    }

    fn short(&self, bytes: [u8; 2]) -> u16 {
        if self.is_big_endian { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) }
    }
}
