//! How much memory the codes of a lossless WebP bitstream take (RFC 9649, section 3).
//!
//! Up to 65,536 groups of five Huffman codes may be announced, each in a few dozen bytes. A decoder sets up tables of
//! many kilobytes for each of them before the first pixel. Their number stands in a picture of its own, compressed in
//! the same way, so that picture has to be read. The tables themselves need not be made.

/// The symbols of the codes of green (with lengths and, behind them, the cache), red, blue, alpha, distance.
const ALPHABETS: [usize; 5] = [256 + 24, 256, 256, 256, 40];
const CODE_LENGTHS: usize = 19;
const CODE_LENGTH_ORDER: [usize; CODE_LENGTHS] =
    [17, 18, 0, 1, 2, 3, 4, 5, 16, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];
/// The first colours that are neither literals nor lengths.
const CACHE: usize = ALPHABETS[0];
/// Decoders look up so many bits at once, in entries of four bytes, and the rest of longer codes in a tree.
const TABLE_BITS: usize = 10;
const NODE_BYTES: u64 = 64;
/// The bytes that a group takes besides its codes.
const GROUP_BYTES: u64 = 1 << 10;
/// The offsets of the first 120 distances lie within eight columns and seven rows.
const NEAR: usize = 120;

/// The bytes that the codes of a bitstream take; none if it breaks off before its pixels begin. `size` is
/// that of a bitstream without a header, as alpha channels have it.
pub(crate) fn codes_memory(bytes: &[u8], size: Option<(u32, u32)>) -> Option<u64> {
    let mut bits = Bits { bytes, at: 0 };
    let (width, height) = match size {
        Some(size) => (size.0 as usize, size.1 as usize),
        None => {
            bits.read(8)?;
            let size = (bits.read(14)? + 1, bits.read(14)? + 1);
            bits.read(4)?;
            size
        }
    };
    let mut xsize = width;
    let mut memory = 0;
    let mut seen = [false; 4];
    while bits.read(1)? == 1 {
        let transform = bits.read(2)?;
        if std::mem::replace(seen.get_mut(transform)?, true) {
            return None;
        }
        let subsampled = |length: usize, bits: usize| (length + (1 << bits) - 1) >> bits;
        match transform {
            0 | 1 => {
                let block = bits.read(3)? + 2;
                let picture = bits.picture(subsampled(xsize, block), subsampled(height, block))?;
                memory += picture.memory;
            }
            2 => {}
            _ => {
                let colours = bits.read(8)? + 1;
                memory += bits.picture(colours, 1)?.memory;
                xsize = subsampled(
                    xsize,
                    if colours <= 2 {
                        3
                    } else if colours <= 4 {
                        2
                    } else {
                        usize::from(colours <= 16)
                    },
                );
            }
        }
    }
    let cache = bits.cache()?;
    let mut groups = 1;
    if bits.read(1)? == 1 {
        let block = bits.read(3)? + 2;
        let subsampled = |length: usize| (length + (1 << block) - 1) >> block;
        let picture = bits.picture(subsampled(xsize), subsampled(height))?;
        memory += picture.memory;
        // The number of a group stands in red and green.
        groups =
            picture.pixels.iter().map(|pixel| usize::from(pixel[0]) << 8 | usize::from(pixel[1])).max()? + 1;
    }
    for _ in 0..groups {
        memory += bits.group(cache)?.1;
    }
    Some(memory)
}

/// A picture within the bitstream, decoded.
struct Picture {
    /// Red, green, blue, alpha.
    pixels: Vec<[u8; 4]>,
    memory: u64,
}

struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Bits<'_> {
    fn read(&mut self, count: usize) -> Option<usize> {
        let mut value = 0;
        for bit in 0..count {
            let byte = self.bytes.get(self.at >> 3)?;
            value |= usize::from((byte >> (self.at & 7)) & 1) << bit;
            self.at += 1;
        }
        Some(value)
    }

    /// The bits of the cache of colours, if there is one.
    fn cache(&mut self) -> Option<Option<usize>> {
        if self.read(1)? == 0 {
            return Some(None);
        }
        let bits = self.read(4)?;
        (1..=11).contains(&bits).then_some(Some(bits))
    }

    /// A group of codes, and the bytes that they take.
    fn group(&mut self, cache: Option<usize>) -> Option<([Code; 5], u64)> {
        let mut memory = GROUP_BYTES;
        let mut codes = [const { Code::One(0) }; 5];
        for (code, alphabet) in codes.iter_mut().zip(ALPHABETS) {
            let cached = if alphabet == CACHE { cache.map_or(0, |bits| 1 << bits) } else { 0 };
            *code = self.code(alphabet + cached)?;
            memory += code.memory();
        }
        Some((codes, memory))
    }

    fn code(&mut self, alphabet: usize) -> Option<Code> {
        if self.read(1)? == 1 {
            let is_two = self.read(1)? == 1;
            let first_bits = if self.read(1)? == 1 { 8 } else { 1 };
            let first = self.read(first_bits)?;
            if !is_two {
                return (first < alphabet).then_some(Code::One(first));
            }
            let second = self.read(8)?;
            let mut counts = [0; 16];
            counts[1] = 2;
            return (first < alphabet && second < alphabet)
                .then_some(Code::Many { counts, symbols: vec![first, second] });
        }
        let mut lengths = [0; CODE_LENGTHS];
        let count = self.read(4)? + 4;
        for at in CODE_LENGTH_ORDER.get(..count)? {
            lengths[*at] = self.read(3)?;
        }
        let code = Code::new(&lengths)?;
        let mut most = if self.read(1)? == 1 {
            let bits = 2 + 2 * self.read(3)?;
            2 + self.read(bits)?
        } else {
            alphabet
        };
        let mut lengths = Vec::with_capacity(alphabet);
        let mut previous = 8;
        while lengths.len() < alphabet && most > 0 {
            most -= 1;
            let (length, times) = match self.symbol(&code)? {
                16 => (previous, 3 + self.read(2)?),
                17 => (0, 3 + self.read(3)?),
                18 => (0, 11 + self.read(7)?),
                length => (length, 1),
            };
            if length > 0 {
                previous = length;
            }
            lengths.resize(lengths.len() + times, length);
            if lengths.len() > alphabet {
                return None;
            }
        }
        Code::new(&lengths)
    }

    fn symbol(&mut self, code: &Code) -> Option<usize> {
        let (counts, symbols) = match code {
            Code::One(symbol) => return Some(*symbol),
            Code::Many { counts, symbols } => (counts, symbols),
        };
        let (mut value, mut first, mut before) = (0, 0, 0);
        for count in &counts[1..] {
            value |= self.read(1)?;
            if value < first + count {
                return symbols.get(before + value - first).copied();
            }
            before += count;
            first = (first + count) << 1;
            value <<= 1;
        }
        None
    }

    /// A length or a distance, of which the prefix has been read.
    fn copied(&mut self, prefix: usize) -> Option<usize> {
        if prefix < 4 {
            return Some(prefix + 1);
        }
        let extra = (prefix - 2) >> 1;
        Some(((2 + (prefix & 1)) << extra) + self.read(extra)? + 1)
    }

    fn picture(&mut self, width: usize, height: usize) -> Option<Picture> {
        let cache_bits = self.cache()?;
        let (codes, memory) = self.group(cache_bits)?;
        let mut cache = vec![[0; 4]; cache_bits.map_or(0, |bits| 1 << bits)];
        let keep = |cache: &mut Vec<[u8; 4]>, [red, green, blue, alpha]: [u8; 4]| {
            if let Some(bits) = cache_bits {
                let colour = u32::from_be_bytes([alpha, red, green, blue]);
                cache[(0x1E35_A7BD_u32.wrapping_mul(colour) >> (32 - bits)) as usize] =
                    [red, green, blue, alpha];
            }
        };
        let count = width * height;
        let mut pixels: Vec<[u8; 4]> = Vec::with_capacity(count);
        while pixels.len() < count {
            let symbol = self.symbol(&codes[0])?;
            if symbol < 256 {
                let mut pixel = [0, symbol as u8, 0, 0];
                for (channel, code) in [(0, 1), (2, 2), (3, 3)] {
                    pixel[channel] = self.symbol(&codes[code])? as u8;
                }
                pixels.push(pixel);
                keep(&mut cache, pixel);
            } else if symbol < CACHE {
                let length = self.copied(symbol - 256)?;
                let prefix = self.symbol(&codes[4])?;
                let distance = near_or_far(self.copied(prefix)?, width);
                let start = pixels.len().checked_sub(distance)?;
                if pixels.len() + length > count {
                    return None;
                }
                for at in start..start + length {
                    let pixel = pixels[at];
                    pixels.push(pixel);
                    keep(&mut cache, pixel);
                }
            } else {
                pixels.push(*cache.get(symbol - CACHE)?);
            }
        }
        Some(Picture { pixels, memory: memory + 4 * count as u64 })
    }
}

enum Code {
    One(usize),
    /// How many symbols have a code of each length, and the symbols in the order of their codes.
    Many {
        counts: [usize; 16],
        symbols: Vec<usize>,
    },
}

impl Code {
    fn new(lengths: &[usize]) -> Option<Self> {
        let mut counts = [0; 16];
        for length in lengths {
            *counts.get_mut(*length)? += 1;
        }
        counts[0] = 0;
        let mut symbols: Vec<usize> = (0..lengths.len()).filter(|symbol| lengths[*symbol] > 0).collect();
        if let [one] = symbols[..] {
            return Some(Self::One(one));
        }
        symbols.sort_by_key(|symbol| lengths[*symbol]);
        // The codes must use up the whole code space: the sum of 2^-length is 1.
        let said: usize =
            counts.iter().enumerate().skip(1).map(|(length, count)| count << (15 - length)).sum();
        (said == 1 << 15).then_some(Self::Many { counts, symbols })
    }

    fn memory(&self) -> u64 {
        let Self::Many { counts, .. } = self else { return 0 };
        let longest = counts.iter().rposition(|count| *count > 0).unwrap_or_default();
        let long: usize = counts[TABLE_BITS + 1..].iter().sum();
        (4 << longest.min(TABLE_BITS)) + NODE_BYTES * long as u64
    }
}

/// A distance as it is counted in rows: the first ones are places near the pixel.
fn near_or_far(distance: usize, width: usize) -> usize {
    if distance > NEAR {
        return distance - NEAR;
    }
    // By their distance: across, down (RFC 9649, section 4.2.2).
    const MAP: [u8; NEAR] = [
        0x18, 0x07, 0x17, 0x19, 0x28, 0x06, 0x27, 0x29, 0x16, 0x1a, 0x26, 0x2a, 0x38, 0x05, 0x37, 0x39, 0x15,
        0x1b, 0x36, 0x3a, 0x25, 0x2b, 0x48, 0x04, 0x47, 0x49, 0x14, 0x1c, 0x35, 0x3b, 0x46, 0x4a, 0x24, 0x2c,
        0x58, 0x45, 0x4b, 0x34, 0x3c, 0x03, 0x57, 0x59, 0x13, 0x1d, 0x56, 0x5a, 0x23, 0x2d, 0x44, 0x4c, 0x55,
        0x5b, 0x33, 0x3d, 0x68, 0x02, 0x67, 0x69, 0x12, 0x1e, 0x66, 0x6a, 0x22, 0x2e, 0x54, 0x5c, 0x43, 0x4d,
        0x65, 0x6b, 0x32, 0x3e, 0x78, 0x01, 0x77, 0x79, 0x53, 0x5d, 0x11, 0x1f, 0x64, 0x6c, 0x42, 0x4e, 0x76,
        0x7a, 0x21, 0x2f, 0x75, 0x7b, 0x31, 0x3f, 0x63, 0x6d, 0x52, 0x5e, 0x00, 0x74, 0x7c, 0x41, 0x4f, 0x10,
        0x20, 0x62, 0x6e, 0x30, 0x73, 0x7d, 0x51, 0x5f, 0x40, 0x72, 0x7e, 0x61, 0x6f, 0x50, 0x71, 0x7f, 0x60,
        0x70,
    ];
    let code = usize::from(MAP[distance - 1]);
    let (across, down) = (8 - (code & 15) as isize, code >> 4);
    let distance = (down * width) as isize + across;
    usize::try_from(distance).unwrap_or(1).max(1)
}
