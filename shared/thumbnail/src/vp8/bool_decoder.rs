//! Arithmetic decoding of yes or no (RFC 6386, section 7).

/// Reads a partition. Behind its end come zeros.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bools<'a> {
    rest: &'a [u8],
    /// The bits at hand, the first one uppermost; bits that are not counted yet may be among them already.
    value: u64,
    count: u32,
    /// The width of the interval, 128 to 255.
    range: u32,
}

/// How many bits a decision looks at.
const NEEDED: u32 = 8;

impl<'a> Bools<'a> {
    pub(crate) fn new(data: &'a [u8]) -> Self {
        Self { rest: data, value: 0, count: 0, range: 255 }
    }

    #[inline(always)]
    fn refill(&mut self) {
        if let Some(bytes) = self.rest.first_chunk::<8>() {
            self.value |= u64::from_be_bytes(*bytes) >> self.count;
            let taken = (63 - self.count) / 8;
            self.rest = self.rest.get(taken as usize..).unwrap_or_default();
            self.count += 8 * taken;
        } else {
            (self.rest, self.value, self.count) = last(self.rest, self.value, self.count);
        }
    }

    /// Reads whether something is so, whose probability not to be so is this, of 256.
    #[inline(always)]
    pub(crate) fn next(&mut self, probability: u8) -> bool {
        if self.count < NEEDED {
            self.refill();
        }
        let split = 1 + (((self.range - 1) * u32::from(probability)) >> 8);
        let large = u64::from(split) << 56;
        let is_so = self.value >= large;
        if is_so {
            self.range -= split;
            self.value -= large;
        } else {
            self.range = split;
        }
        self.normalize();
        is_so
    }

    #[inline(always)]
    fn normalize(&mut self) {
        // It is at least 1 and at most 255.
        let shift = ((self.range | 1).leading_zeros() - 24) & 7;
        self.range <<= shift;
        self.value <<= shift;
        self.count -= shift;
    }

    /// Takes the number or its opposite, each as probable.
    #[inline(always)]
    pub(crate) fn signed(&mut self, number: i32) -> i32 {
        if self.count < NEEDED {
            self.refill();
        }
        // Without a branch: nothing could foretell it.
        let split = self.range.div_ceil(2);
        let large = u64::from(split) << 56;
        let is_negative = self.value >= large;
        let mask = 0_u64.wrapping_sub(u64::from(is_negative));
        self.range = if is_negative { self.range - split } else { split };
        self.value -= large & mask;
        self.normalize();
        let mask = mask as i32;
        (number ^ mask) - mask
    }

    pub(crate) fn flag(&mut self) -> bool {
        self.next(128)
    }

    /// A number of so many bits, the first one uppermost.
    pub(crate) fn number(&mut self, bits: u32) -> u8 {
        (0..bits).fold(0, |number, _| number << 1 | u8::from(self.flag()))
    }

    /// A number with a sign behind it, where a flag says that there is one; otherwise 0.
    pub(crate) fn optional(&mut self, bits: u32) -> i32 {
        if !self.flag() {
            return 0;
        }
        let number = i32::from(self.number(bits));
        if self.flag() { -number } else { number }
    }
}

/// Takes bytes one by one, near the end.
#[cold]
#[inline(never)]
fn last(mut rest: &[u8], mut value: u64, mut count: u32) -> (&[u8], u64, u32) {
    while count <= 48 {
        if let Some((byte, others)) = rest.split_first() {
            value |= u64::from(*byte) << (56 - count);
            rest = others;
        }
        count += 8;
    }
    (rest, value, count)
}
