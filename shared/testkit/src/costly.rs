//! Pictures that are small files and costly to decode, as a stranger may send them.

/// A PNG of black pixels, with `depth`, `colours` and `interlaced` in its header.
pub fn black_png(width: u32, height: u32, depth: u8, colours: u8, interlaced: bool) -> Vec<u8> {
    png(width, height, depth, colours, interlaced, &[])
}

/// A black PNG of 200 × 200 pixels with these chunks before its data.
pub fn png_with(chunks: &[Vec<u8>]) -> Vec<u8> {
    png(200, 200, 8, 2, false, chunks)
}

/// A colour profile that is `bytes` long once it is inflated, and a thousandth of that before.
pub fn profile(bytes: u64) -> Vec<u8> {
    chunk(b"iCCP", &[b"a\0\0", &zeros(bytes)[..]].concat())
}

/// A text that is `bytes` long once it is inflated, compressed in the same way.
pub fn compressed_text(bytes: u64) -> Vec<u8> {
    chunk(b"zTXt", &[b"a\0\0", &zeros(bytes)[..]].concat())
}

/// The same text in the international form of the chunk.
pub fn international_text(bytes: u64) -> Vec<u8> {
    chunk(b"iTXt", &[b"XML:com.adobe.xmp\0\x01\0\0\0", &zeros(bytes)[..]].concat())
}

/// An Exif block that says that the picture stands on its side.
pub fn turned() -> Vec<u8> {
    chunk(b"eXIf", b"MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0")
}

/// A PNG whose data is nothing but the heads of `count` blocks, each with codes of its own that have to be set up.
pub fn png_of_empty_blocks(count: usize) -> Vec<u8> {
    let mut bits = Bits::default();
    for _ in 0..count {
        bits.dynamic_block(
            false,
            0,
            &[16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1],
            |symbol| u32::from(symbol == 18 || symbol == 1),
        );
        // 138 + 117 codes of no length, two of one bit, one for the distances.
        bits.push(1, 1);
        bits.push(127, 7);
        bits.push(1, 1);
        bits.push(106, 7);
        bits.push(0, 3);
        // The second of the two ends the block.
        bits.push(1, 1);
    }
    let data = [&[0x78, 0xDA], &bits.finish()[..]].concat();
    let parts = [header(2000, 2000, 8, 0, false), chunk(b"IDAT", &data), chunk(b"IEND", b"")];
    [SIGNATURE, &parts.concat()].concat()
}

fn png(width: u32, height: u32, depth: u8, colours: u8, interlaced: bool, chunks: &[Vec<u8>]) -> Vec<u8> {
    let channels = match colours {
        0 => 1,
        2 => 3,
        4 => 2,
        _ => 4,
    };
    let row = |width: u64| 1 + (width * channels * u64::from(depth)).div_ceil(8);
    let raw = if interlaced {
        // Adam7: where each pass begins, and how far its pixels are apart.
        [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
            .map(|(x, y, across, down)| {
                let wide = (u64::from(width) + across - 1 - x.min(u64::from(width) + across - 1)) / across;
                let high = (u64::from(height) + down - 1 - y.min(u64::from(height) + down - 1)) / down;
                if wide == 0 { 0 } else { high * row(wide) }
            })
            .iter()
            .sum()
    } else {
        u64::from(height) * row(width.into())
    };
    let parts = [
        header(width, height, depth, colours, interlaced),
        chunks.concat(),
        chunk(b"IDAT", &zeros(raw)),
        chunk(b"IEND", b""),
    ];
    [SIGNATURE, &parts.concat()].concat()
}

const SIGNATURE: &[u8] = b"\x89PNG\r\n\x1a\n";

fn header(width: u32, height: u32, depth: u8, colours: u8, interlaced: bool) -> Vec<u8> {
    let rest = [depth, colours, 0, 0, u8::from(interlaced)];
    chunk(b"IHDR", &[&width.to_be_bytes()[..], &height.to_be_bytes(), &rest].concat())
}

/// A chunk of a PNG.
pub fn chunk(kind: &[u8; 4], data: &[u8]) -> Vec<u8> {
    let mut table = [0_u32; 256];
    for (entry, index) in table.iter_mut().zip(0..) {
        *entry = (0..8).fold(index, |crc: u32, _| (crc >> 1) ^ if crc & 1 == 1 { 0xEDB8_8320 } else { 0 });
    }
    let update = |crc: u32, byte: &u8| (crc >> 8) ^ table[usize::from(crc as u8 ^ byte)];
    let crc = !kind.iter().chain(data).fold(u32::MAX, update);
    let length = u32::try_from(data.len()).expect("a chunk is shorter than that").to_be_bytes();
    [&length[..], kind, data, &crc.to_be_bytes()].concat()
}

/// `count` zeros, compressed as far as the format allows: two bits for 258 of them.
fn zeros(count: u64) -> Vec<u8> {
    let mut bits = Bits::default();
    let order = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1];
    bits.dynamic_block(true, 29, &order, |symbol| match symbol {
        18 => 1,
        1 | 2 => 2,
        _ => 0,
    });
    // The literal 0 and the end have two bits, a copy of 258 bytes has one, as has its distance. (Codes are sent
    // from their highest bit on: "11" is a length of 2, "10" of 1, read from the left.)
    bits.push(0b11, 2);
    bits.push(0, 1);
    bits.push(127, 7);
    bits.push(0, 1);
    bits.push(106, 7);
    bits.push(0b11, 2);
    bits.push(0, 1);
    bits.push(17, 7);
    bits.push(0b01, 2);
    bits.push(0b01, 2);
    let copies = count.saturating_sub(1) / 258;
    let literals = count - 258 * copies;
    for _ in 0..literals {
        bits.push(0b01, 2);
    }
    bits.zeros(2 * copies);
    bits.push(0b11, 2);
    // Adler's sums: the first stays 1, and the second counts the bytes.
    let checksum = (count % 65_521) << 16 | 1;
    [&[0x78, 0xDA], &bits.finish()[..], &(checksum as u32).to_be_bytes()].concat()
}

/// Bits from the lowest of a byte on, as in RFC 1951.
#[derive(Default)]
struct Bits {
    bytes: Vec<u8>,
    held: u64,
    count: u32,
}

impl Bits {
    fn push(&mut self, value: u64, count: u32) {
        self.held |= value << self.count;
        self.count += count;
        while self.count >= 8 {
            self.bytes.push(self.held as u8);
            self.held >>= 8;
            self.count -= 8;
        }
    }

    fn zeros(&mut self, mut count: u64) {
        while count > 0 && self.count > 0 {
            self.push(0, 1);
            count -= 1;
        }
        self.bytes.resize(self.bytes.len() + (count / 8) as usize, 0);
        self.push(0, (count % 8) as u32);
    }

    /// The head of a block with codes of its own: 257 + `literals` lengths and one of a distance will follow.
    fn dynamic_block(&mut self, is_last: bool, literals: u64, order: &[u8], length: impl Fn(u8) -> u32) {
        self.push(is_last.into(), 1);
        self.push(2, 2);
        self.push(literals, 5);
        self.push(0, 5);
        self.push(order.len() as u64 - 4, 4);
        for symbol in order {
            self.push(length(*symbol).into(), 3);
        }
    }

    fn finish(mut self) -> Vec<u8> {
        if self.count > 0 {
            self.bytes.push(self.held as u8);
        }
        self.bytes
    }
}

/// A grey progressive JPEG of `scans` scans. Each scan goes over all blocks, and says in a few bytes that there is
/// nothing in them.
pub fn jpeg_of_scans(width: u16, height: u16, scans: usize) -> Vec<u8> {
    let segment = |code: u8, content: &[u8]| {
        let length = u16::try_from(content.len() + 2).expect("a segment is shorter than that").to_be_bytes();
        [&[0xFF, code], &length[..], content].concat()
    };
    let blocks = u64::from(width.div_ceil(8)) * u64::from(height.div_ceil(8));
    let ([h0, h1], [w0, w1]) = (height.to_be_bytes(), width.to_be_bytes());
    // One code of one bit: no difference to the block before; and for the other scans, 16,384 + 14 bits of empty ones.
    let table = |class: u8, symbol: u8| segment(0xC4, &[&[class, 1][..], &[0; 15], &[symbol]].concat());
    let mut jpeg = vec![0xFF, 0xD8];
    jpeg.extend(segment(0xDB, &[&[0][..], &[1; 64]].concat()));
    jpeg.extend(segment(0xC2, &[8, h0, h1, w0, w1, 1, 1, 0x11, 0]));
    jpeg.extend(table(0x00, 0));
    jpeg.extend(table(0x10, 0xE0));
    jpeg.extend(segment(0xDA, &[1, 1, 0, 0, 0, 0]));
    jpeg.resize(jpeg.len() + blocks.div_ceil(8) as usize, 0);
    // A code and the number behind it are 15 bits, all of them zero.
    let runs = vec![0; (15 * blocks.div_ceil(16_384)).div_ceil(8) as usize];
    for _ in 1..scans {
        jpeg.extend(segment(0xDA, &[1, 1, 0, 1, 63, 0]));
        jpeg.extend(&runs);
    }
    jpeg.extend([0xFF, 0xD9]);
    jpeg
}

/// A JPEG with `count` segments of `content` behind its beginning.
pub fn jpeg_with_segments(jpeg: &[u8], code: u8, content: &[u8], count: usize) -> Vec<u8> {
    let length = u16::try_from(content.len() + 2).expect("a segment is shorter than that").to_be_bytes();
    let segment = [&[0xFF, code], &length[..], content].concat();
    [&jpeg[..2], &segment.repeat(count), &jpeg[2..]].concat()
}

/// A GIF whose frame is larger than its screen, and has one colour.
pub fn gif_with_frame(screen: u16, frame: u16) -> Vec<u8> {
    let ([s0, s1], [f0, f1]) = (screen.to_le_bytes(), frame.to_le_bytes());
    let mut gif = [b"GIF89a", &[s0, s1, s0, s1, 0x80, 0, 0, 9, 9, 9, 200, 0, 0][..]].concat();
    gif.extend([b',', 0, 0, 0, 0, f0, f1, f0, f1, 0, 2]);
    // Codes of three bits: clear (4), two pixels of colour 0, clear, …: they never grow.
    let pixels = u64::from(frame) * u64::from(frame);
    let mut bits = Bits::default();
    for _ in 0..pixels.div_ceil(2) {
        bits.push(4, 3);
        bits.push(0, 6);
    }
    bits.push(5, 3);
    for block in bits.finish().chunks(255) {
        gif.push(block.len() as u8);
        gif.extend(block);
    }
    gif.extend([0, b';']);
    gif
}

/// A lossless WebP of 1024 × 1024 pixels with `groups` groups of codes. For each group a decoder needs tables of 20
/// kilobytes.
pub fn webp_of_groups(groups: u64) -> Vec<u8> {
    let mut bits = Bits::default();
    bits.push(0x2F, 8);
    bits.push(1023, 14);
    bits.push(1023, 14);
    bits.push(0, 4);
    // No transformation, no cache; groups by blocks of 4 × 4 pixels, in a picture of 256 × 256.
    bits.push(0b0100, 4);
    bits.push(0, 3);
    // Green and red, which say the group, may be anything; the others are one and the same.
    let anything = |bits: &mut Bits| {
        // A code in which all lengths are 8.
        bits.push(0, 1);
        bits.push(12 - 4, 4);
        for symbol in [17, 18, 0, 1, 2, 3, 4, 5, 16, 6, 7, 8] {
            bits.push(u64::from(symbol == 8), 3);
        }
    };
    anything(&mut bits);
    // Of green there are 256, and none of the lengths behind them.
    bits.push(1, 1);
    bits.push(3, 3);
    bits.push(254, 8);
    anything(&mut bits);
    bits.push(0, 1);
    for _ in 0..3 {
        bits.push(1, 4);
    }
    for block in 0..256 * 256 {
        // Codes are sent from their highest bit on.
        for byte in (block.min(groups - 1) as u16).to_le_bytes() {
            bits.push(byte.reverse_bits().into(), 8);
        }
    }
    for _ in 0..5 * groups {
        // Lengths of 1, 2, 3, … 9, 10, 10, each in four bits.
        bits.push(0, 1);
        bits.push(15, 4);
        for symbol in [17, 18, 0, 1, 2, 3, 4, 5, 16, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15] {
            bits.push(if (1..=16).contains(&symbol) { 4 } else { 0 }, 3);
        }
        bits.push(1, 1);
        bits.push(1, 3);
        bits.push(11 - 2, 4);
        for length in [1_u8, 2, 3, 4, 5, 6, 7, 8, 9, 10, 10] {
            bits.push(((length - 1).reverse_bits() >> 4).into(), 4);
        }
    }
    // Every pixel is the first symbol of each code, four bits.
    bits.zeros(4 * 1024 * 1024);
    let mut data = bits.finish();
    data.resize(data.len().next_multiple_of(2), 0);
    let length = |bytes: usize| u32::try_from(bytes).expect("it is shorter than that").to_le_bytes();
    let riff = length(data.len() + 12);
    [b"RIFF", &riff[..], b"WEBPVP8L", &length(data.len()), &data].concat()
}
