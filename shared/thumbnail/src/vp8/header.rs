//! The header of a frame (RFC 6386, sections 9 and 19.2).

use super::bool_decoder::Bools;
use super::tables::{AC_STEPS, BANDS, DC_STEPS, TOKEN_CHANGES, TOKENS};
use crate::target::Reason;

/// The length of a key frame's tag, and of the rest before its first partition.
const TAG_BYTES: usize = 10;

/// Probabilities of tokens by the kind of block, the place of the coefficient, and how large the one before was. Behind the
/// last place there is one more, which is never read.
pub(crate) type Probabilities = [[[[u8; 11]; 3]; 17]; 4];

/// The steps of quantization: of means and of the other coefficients.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Steps {
    pub(crate) luma: [i32; 2],
    /// Of the means of luma, if they are coded by themselves.
    pub(crate) means: [i32; 2],
    pub(crate) chroma: [i32; 2],
}

/// The header of a key frame.
pub(crate) struct Frame<'a> {
    pub(crate) width: u32,
    pub(crate) height: u32,
    /// The rest of the first partition: the modes of macroblocks.
    pub(crate) modes: Bools<'a>,
    /// The partitions of coefficients; rows of macroblocks take turns.
    pub(crate) partitions: Vec<Bools<'a>>,
    /// The probabilities of the segment of a macroblock, if there are segments.
    pub(crate) segments: Option<[u8; 3]>,
    pub(crate) steps: [Steps; 4],
    /// The probability that a macroblock has coefficients, if some are marked to have none.
    pub(crate) skip: Option<u8>,
    pub(crate) tokens: Box<Probabilities>,
    /// How strong the loop filter is, of 63.
    #[cfg_attr(not(test), expect(dead_code, reason = "tests look at it"))]
    pub(crate) filter_level: u8,
}

/// The size of a key frame, and where its first partition begins and ends; `None` if it is none.
fn tag(data: &[u8]) -> Option<(u32, u32, usize)> {
    let &[t0, t1, t2, 0x9D, 0x01, 0x2A, w0, w1, h0, h1] = data.first_chunk::<TAG_BYTES>()? else {
        return None;
    };
    let tag = u32::from_le_bytes([t0, t1, t2, 0]);
    // The upper two bits of each side are a hint how to show it.
    let side = |low, high| u32::from(u16::from_le_bytes([low, high]) & 0x3FFF);
    let (width, height) = (side(w0, w1), side(h0, h1));
    let is_key_frame = tag & 1 == 0;
    let is_known = (tag >> 1 & 7) <= 3;
    (is_key_frame && is_known && width > 0 && height > 0).then_some((width, height, (tag >> 5) as usize))
}

/// The size of a key frame; `None` if it is none.
pub(crate) fn size(data: &[u8]) -> Option<(u32, u32)> {
    tag(data).map(|(width, height, _)| (width, height))
}

impl<'a> Frame<'a> {
    pub(crate) fn new(data: &'a [u8]) -> Result<Self, Reason> {
        let (width, height, first_bytes) =
            tag(data).ok_or_else(|| Reason::Decoder("it has no key frame".to_owned()))?;
        let (first, rest) = data[TAG_BYTES..].split_at_checked(first_bytes).ok_or(Reason::Incomplete)?;
        let mut bools = Bools::new(first);
        // Whether colours are as usual, and whether pixels may lie beyond 0 to 255. They are cut off in any case.
        bools.number(2);
        let mut segments = None;
        let mut levels = [0; 4];
        let (mut has_segments, mut are_absolute) = (false, true);
        if bools.flag() {
            has_segments = true;
            let has_map = bools.flag();
            if bools.flag() {
                are_absolute = bools.flag();
                levels = std::array::from_fn(|_| bools.optional(7));
                // The filter's.
                (0..4).for_each(|_| _ = bools.optional(6));
            }
            if has_map {
                segments =
                    Some(std::array::from_fn(|_| if bools.flag() { bools.number(8) } else { u8::MAX }));
            }
        }
        // The loop filter: its kind, its level and its sharpness.
        bools.number(1);
        let filter_level = bools.number(6);
        bools.number(3);
        if bools.flag() && bools.flag() {
            (0..8).for_each(|_| _ = bools.optional(6));
        }
        let partitions = partitions(rest, 1 << bools.number(2))?;
        let steps = steps(&mut bools, has_segments.then_some((levels, are_absolute)));
        // Whether the probabilities stay for later frames.
        bools.number(1);
        let tokens = tokens(&mut bools);
        let skip = if bools.flag() { Some(bools.number(8)) } else { None };
        Ok(Self { width, height, modes: bools, partitions, segments, steps, skip, tokens, filter_level })
    }
}

/// The partitions of coefficients. The sizes of all but the last one come first (section 9.5).
fn partitions(data: &[u8], count: usize) -> Result<Vec<Bools<'_>>, Reason> {
    let (sizes, mut rest) = data.split_at_checked(3 * (count - 1)).ok_or(Reason::Incomplete)?;
    let mut partitions = Vec::with_capacity(count);
    for size in sizes.as_chunks::<3>().0 {
        let size = u32::from_le_bytes([size[0], size[1], size[2], 0]) as usize;
        let (partition, behind) = rest.split_at(size.min(rest.len()));
        partitions.push(Bools::new(partition));
        rest = behind;
    }
    if rest.is_empty() {
        return Err(Reason::Incomplete);
    }
    partitions.push(Bools::new(rest));
    Ok(partitions)
}

/// The steps of each segment (sections 9.6 and 14.1).
fn steps(bools: &mut Bools<'_>, segments: Option<([i32; 4], bool)>) -> [Steps; 4] {
    let level = i32::from(bools.number(7));
    let [luma_dc, means_dc, means_ac, chroma_dc, chroma_ac]: [i32; 5] =
        std::array::from_fn(|_| bools.optional(4));
    std::array::from_fn(|segment| {
        let level = match segments {
            Some((levels, true)) => levels[segment],
            Some((levels, false)) => level + levels[segment],
            None => level,
        };
        let of = |steps: &[u16; 128], more: i32| i32::from(steps[(level + more).clamp(0, 127) as usize]);
        Steps {
            luma: [of(&DC_STEPS, luma_dc), of(&AC_STEPS, 0)],
            means: [2 * of(&DC_STEPS, means_dc), (of(&AC_STEPS, means_ac) * 155 / 100).max(8)],
            chroma: [of(&DC_STEPS, chroma_dc).min(132), of(&AC_STEPS, chroma_ac)],
        }
    })
}

/// The probabilities of tokens, by place (section 13.4).
fn tokens(bools: &mut Bools<'_>) -> Box<Probabilities> {
    let mut tokens = TOKENS;
    let all = tokens.as_flattened_mut().as_flattened_mut().as_flattened_mut();
    for (probability, change) in
        all.iter_mut().zip(TOKEN_CHANGES.as_flattened().as_flattened().as_flattened())
    {
        if bools.next(*change) {
            *probability = bools.number(8);
        }
    }
    let mut by_place = Box::new([[[[0; 11]; 3]; 17]; 4]);
    for (places, bands) in by_place.iter_mut().zip(&tokens) {
        for (place, band) in places.iter_mut().zip(BANDS) {
            *place = bands[band];
        }
    }
    by_place
}
