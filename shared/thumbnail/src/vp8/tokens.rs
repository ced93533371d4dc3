//! The coefficients of blocks (RFC 6386, section 13).

use super::bool_decoder::Bools;
use super::tables::ZIGZAG;

/// The coefficients of a block, row by row.
pub(crate) type Block = [i16; 16];

/// Probabilities of the further bits of a large number, by its category, 3 to 6. Those of 0 are none.
const LARGE: [[u8; 11]; 4] = [
    [173, 148, 140, 0, 0, 0, 0, 0, 0, 0, 0],
    [176, 155, 140, 135, 0, 0, 0, 0, 0, 0, 0],
    [180, 157, 141, 134, 130, 0, 0, 0, 0, 0, 0],
    [254, 254, 243, 230, 196, 177, 153, 140, 133, 130, 129],
];

/// Reads a block from its coefficient `first` on, after blocks of which `before` (0 to 2) have coefficients. Returns the
/// place behind the last one; `first` if there are none.
#[inline(always)]
pub(crate) fn read(
    bools: &mut Bools<'_>,
    probabilities: &[[[u8; 11]; 3]; 17],
    first: usize,
    before: usize,
    steps: [i32; 2],
    block: &mut Block,
) -> usize {
    let mut at = first;
    let mut branch = &probabilities[at][before];
    let mut step = steps[usize::from(at > 0)];
    while at < 16 {
        if !bools.next(branch[0]) {
            return at;
        }
        // After a zero there is no end.
        while !bools.next(branch[1]) {
            at += 1;
            if at == 16 {
                return 16;
            }
            branch = &probabilities[at][0];
            step = steps[1];
        }
        let following = &probabilities[at + 1];
        let number = if bools.next(branch[2]) {
            let number = large(bools, branch);
            branch = &following[2];
            number
        } else {
            branch = &following[1];
            1
        };
        // A frame that was made to may exceed 16 bits.
        block[usize::from(ZIGZAG[at] & 15)] = (bools.signed(number) * step) as i16;
        step = steps[1];
        at += 1;
    }
    16
}

/// A number of 2 or more.
#[inline(always)]
fn large(bools: &mut Bools<'_>, branch: &[u8; 11]) -> i32 {
    if !bools.next(branch[3]) {
        if !bools.next(branch[4]) {
            return 2;
        }
        return 3 + i32::from(bools.next(branch[5]));
    }
    if !bools.next(branch[6]) {
        if !bools.next(branch[7]) {
            return 5 + i32::from(bools.next(159));
        }
        let upper = 2 * i32::from(bools.next(165));
        return 7 + upper + i32::from(bools.next(145));
    }
    let upper = usize::from(bools.next(branch[8]));
    let category = 2 * upper + usize::from(bools.next(branch[9 + upper]));
    let more = LARGE[category]
        .iter()
        .take_while(|probability| **probability > 0)
        .fold(0, |more, probability| 2 * more + i32::from(bools.next(*probability)));
    3 + (8 << category) + more
}
