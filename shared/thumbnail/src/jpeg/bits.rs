//! The bits of a scan, and Huffman's codes (ITU-T T.81, annexes C and F).

/// How many bits of a code are looked up at once. Longer codes are rare.
const LOOKUP_BITS: u32 = 10;

/// Reads the bits of a scan up to the next marker. Behind it come zeros.
#[derive(Debug)]
pub(crate) struct Bits<'a> {
    data: &'a [u8],
    at: usize,
    /// The next bits, the first one uppermost.
    next: u64,
    count: u32,
    /// How many of them are zeros that stand for missing ones.
    made_up: u32,
    /// Whether the data has ended, with a marker or with the file.
    is_at_end: bool,
}

impl<'a> Bits<'a> {
    pub(crate) fn new(data: &'a [u8], at: usize) -> Self {
        Self { data, at, next: 0, count: 0, made_up: 0, is_at_end: false }
    }

    /// Makes at least 32 bits available.
    #[inline]
    pub(crate) fn refill(&mut self) {
        if self.count < 32 {
            self.refill_now();
        }
    }

    #[inline]
    fn refill_now(&mut self) {
        if let Some(bytes) = self.data.get(self.at..).and_then(|rest| rest.first_chunk::<8>()) {
            let bytes = u64::from_be_bytes(*bytes);
            // Bit 7 of each byte that is 0xFF, and perhaps of some above one.
            let inverted = !bytes;
            if inverted.wrapping_sub(0x0101_0101_0101_0101) & bytes & 0x8080_8080_8080_8080 == 0 {
                self.next |= bytes >> self.count;
                let taken = (63 - self.count) / 8;
                self.at += taken as usize;
                self.count += 8 * taken;
                // The bits behind the whole bytes are there already when their byte comes.
                return;
            }
        }
        self.refill_slowly();
    }

    #[cold]
    fn refill_slowly(&mut self) {
        while self.count <= 56 {
            let byte = match (self.is_at_end, self.data.get(self.at), self.data.get(self.at + 1)) {
                (false, Some(0xFF), Some(0)) => {
                    self.at += 2;
                    0xFF
                }
                // A marker may have any number of 0xFF before it.
                (false, Some(0xFF), Some(0xFF)) => {
                    self.at += 1;
                    continue;
                }
                (false, Some(byte), _) if *byte != 0xFF => {
                    self.at += 1;
                    *byte
                }
                _ => {
                    self.is_at_end = true;
                    self.made_up += 8;
                    0
                }
            };
            self.next |= u64::from(byte) << (56 - self.count);
            self.count += 8;
        }
    }

    /// Whether more bits were taken than there are.
    #[inline]
    pub(crate) fn is_exhausted(&self) -> bool {
        self.made_up > self.count
    }

    /// The next bits, of 1 to 16, without taking them.
    #[inline]
    fn peek(&self, count: u32) -> u32 {
        (self.next >> (64 - count)) as u32
    }

    #[inline]
    pub(crate) fn skip(&mut self, count: u32) {
        self.next <<= count;
        // Where bits were made up there are more than 32 of them, so more are never taken than there are.
        self.count = self.count.saturating_sub(count);
    }

    /// Takes up to 16 bits; they must be available.
    #[inline]
    pub(crate) fn take(&mut self, count: u32) -> u32 {
        if count == 0 {
            return 0;
        }
        let value = self.peek(count);
        self.skip(count);
        value
    }

    /// Takes one bit.
    #[inline]
    pub(crate) fn flag(&mut self) -> bool {
        self.refill();
        self.take(1) == 1
    }

    /// Takes a number of so many bits that may be negative (T.81, figure F.12).
    #[inline]
    pub(crate) fn signed(&mut self, size: u32) -> i32 {
        extended(self.take(size), size)
    }

    /// Where the marker is at which the data ends, or where one is searched from.
    pub(crate) fn position(&self) -> usize {
        // Bytes that were read ahead belong to the data: no marker is among them.
        self.at
    }

    /// Leaves the data up to the next restart out: its marker, or a later one, comes first.
    pub(crate) fn stop_at(&mut self, at: usize) {
        *self = Self { is_at_end: true, made_up: 1, ..Self::new(self.data, at) };
    }

    /// Goes on behind a marker.
    pub(crate) fn restart_at(&mut self, at: usize) {
        *self = Self::new(self.data, at);
    }

    pub(crate) fn data(&self) -> &'a [u8] {
        self.data
    }
}

fn extended(value: u32, size: u32) -> i32 {
    if size == 0 {
        return 0;
    }
    let value = value.cast_signed();
    if value < 1 << (size - 1) { value - (1 << size) + 1 } else { value }
}

/// The codes of a table, ready to be looked up.
#[derive(Debug, Clone)]
pub(crate) struct Codes {
    /// By the next bits: see [`Entry`].
    lookup: Box<[Entry; 1 << LOOKUP_BITS]>,
    /// For each length: the first code behind those of that length, and what to add to a code to get its place.
    ends: [u32; 18],
    offsets: [i32; 17],
    symbols: Vec<u8>,
}

/// The meaning of the next bits, if they hold a whole code.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Entry {
    /// The number that follows the code, if it is among the bits too.
    pub(crate) value: i16,
    /// The symbol: a run of zeros (4 bits), and the size of the number that follows (4 bits).
    pub(crate) symbol: u8,
    /// How many bits to skip; the length of the code, and that of the number where it is known. 0: the code is longer.
    pub(crate) length: u8,
}

impl Entry {
    /// Whether the number is still to be read.
    #[inline]
    pub(crate) fn is_open(self) -> bool {
        self.length & OPEN != 0
    }
}

const OPEN: u8 = 0x80;

impl Codes {
    /// The codes of a table: how many there are of each length, and their symbols in order; `None` if there are more
    /// codes than the lengths allow. Missing symbols are zeros.
    pub(crate) fn new(counts: &[u8; 16], symbols: &[u8]) -> Option<Self> {
        let total: usize = counts.iter().map(|count| usize::from(*count)).sum();
        if total > 256 {
            return None;
        }
        let mut symbols = symbols.to_vec();
        symbols.resize(total, 0);
        let mut lookup = Box::new([Entry::default(); 1 << LOOKUP_BITS]);
        let (mut ends, mut offsets) = ([0; 18], [0; 17]);
        let (mut code, mut place) = (0_u32, 0_u32);
        for (length, count) in (1_u32..).zip(counts) {
            let count = u32::from(*count);
            offsets[length as usize] = place.cast_signed() - code.cast_signed();
            for at in 0..count {
                if length <= LOOKUP_BITS {
                    fill(&mut lookup[..], code + at, length, symbols[(place + at) as usize])?;
                }
            }
            code += count;
            place += count;
            if code > 1 << length {
                return None;
            }
            ends[length as usize] = code << (16 - length);
            code <<= 1;
        }
        ends[17] = u32::MAX;
        Some(Self { lookup, ends, offsets, symbols })
    }

    /// Looks the next code up, with the number behind it where that is short. At least 32 bits must be available.
    #[inline]
    pub(crate) fn next(&self, bits: &mut Bits<'_>) -> Entry {
        let entry = self.lookup[bits.peek(LOOKUP_BITS) as usize];
        if entry.length == 0 {
            return self.next_slowly(bits);
        }
        bits.skip(u32::from(entry.length & !OPEN));
        entry
    }

    #[cold]
    fn next_slowly(&self, bits: &mut Bits<'_>) -> Entry {
        let ahead = bits.peek(16);
        let length = (1..17).find(|length| ahead < self.ends[*length]).unwrap_or(17);
        if length == 17 {
            // No such code: libjpeg warns, and takes it for a zero.
            bits.skip(16);
            return Entry { length: 16, ..Entry::default() };
        }
        bits.skip(length as u32);
        let code = ahead >> (16 - length);
        let place = usize::try_from(code.cast_signed() + self.offsets[length]).unwrap_or_default();
        let symbol = self.symbols.get(place).copied().unwrap_or_default();
        let open = if symbol & 15 == 0 { 0 } else { OPEN };
        Entry { value: 0, symbol, length: length as u8 | open }
    }

    /// The next symbol by itself.
    #[inline]
    pub(crate) fn symbol(&self, bits: &mut Bits<'_>) -> u8 {
        bits.refill();
        let entry = self.lookup[bits.peek(LOOKUP_BITS) as usize];
        if entry.length == 0 {
            return self.next_slowly(bits).symbol;
        }
        let number = if entry.is_open() { 0 } else { u32::from(entry.symbol & 15) };
        bits.skip(u32::from(entry.length & !OPEN) - number);
        entry.symbol
    }
}

/// Fills in what begins with a code.
fn fill(lookup: &mut [Entry], code: u32, length: u32, symbol: u8) -> Option<()> {
    let rest = LOOKUP_BITS - length;
    let size = u32::from(symbol & 15);
    let first = (code << rest) as usize;
    let all = lookup.get_mut(first..first + (1 << rest))?;
    for (behind, entry) in (0_u32..).zip(all) {
        *entry = if size <= rest {
            let value = extended(behind >> (rest - size), size);
            Entry { value: value as i16, symbol, length: (length + size) as u8 }
        } else {
            Entry { value: 0, symbol, length: length as u8 | OPEN }
        };
    }
    Some(())
}
