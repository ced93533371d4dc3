//! The segments of a JPEG: its frame, its tables and its scans (ITU-T T.81, annex B).

use super::bits::Codes;
use super::standard;
use crate::colour::Samples;
use crate::target::{METADATA_BYTES, Reason};

/// The most blocks of a unit, and the most components of a scan (T.81, table B.3).
const MOST_BLOCKS: usize = 10;
const MOST_COMPONENTS: usize = 4;
const ICC: &[u8] = b"ICC_PROFILE\0";
/// The least that a JFIF segment has (JFIF 1.02).
const JFIF_BYTES: usize = 14;

/// The order of coefficients in a scan: the place of each in its block, row by row.
pub(crate) const ZIGZAG: [u8; 64] = [
    0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5, 12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13, 6, 7,
    14, 21, 28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59, 52, 45, 38, 31, 39,
    46, 53, 60, 61, 54, 47, 55, 62, 63,
];

/// A frame.
#[derive(Debug, Clone)]
pub(crate) struct Frame {
    pub(crate) is_progressive: bool,
    pub(crate) width: u32,
    pub(crate) height: u32,
    pub(crate) components: Vec<Component>,
}

#[derive(Debug, Clone)]
pub(crate) struct Component {
    id: u8,
    /// How often it is sampled across and down in a unit.
    pub(crate) across: u32,
    pub(crate) down: u32,
    /// The number of its quantization table.
    quantization: u8,
}

impl Frame {
    fn new(code: u8, header: &[u8]) -> Result<Self, Reason> {
        let &[depth, h0, h1, w0, w1, count, ref rest @ ..] = header else { return Err(Reason::Incomplete) };
        if depth != 8 {
            return Err(Reason::Decoder(format!("it has {depth} bits a sample, and 8 are supported")));
        }
        let (all, _) = rest.as_chunks::<3>();
        let components = all.iter().take(count.into()).map(|&[id, sampling, quantization]| Component {
            id,
            across: (sampling >> 4).into(),
            down: (sampling & 15).into(),
            quantization,
        });
        let components: Vec<_> = components.collect();
        if components.len() != usize::from(count) || !matches!(count, 1 | 3 | 4) {
            return Err(Reason::Decoder(format!("it has {count} components, and 1, 3 or 4 are supported")));
        }
        let is_sampling = |factor| (1..=4).contains(&factor);
        if !components.iter().all(|component| is_sampling(component.across) && is_sampling(component.down)) {
            return Err(Reason::Decoder("its components are sampled more than four times".to_owned()));
        }
        Ok(Self {
            is_progressive: code == 0xC2,
            width: u16::from_be_bytes([w0, w1]).into(),
            height: u16::from_be_bytes([h0, h1]).into(),
            components,
        })
    }

    /// How many samples a unit has across and down, in blocks.
    pub(crate) fn unit(&self) -> (u32, u32) {
        let most = |factor: fn(&Component) -> u32| self.components.iter().map(factor).max().unwrap_or(1);
        (most(|component| component.across), most(|component| component.down))
    }

    /// How many units it has across and down.
    pub(crate) fn units(&self) -> (u32, u32) {
        let (across, down) = self.unit();
        (self.width.div_ceil(8 * across), self.height.div_ceil(8 * down))
    }
}

/// A scan: the components that it has, and which of their coefficients.
#[derive(Debug, Clone)]
pub(crate) struct Scan {
    pub(crate) components: Vec<Choice>,
    /// The first and the last coefficient, in the order of [`ZIGZAG`].
    pub(crate) first: u8,
    pub(crate) last: u8,
    /// The position of the lowest bit that earlier scans gave, and of that which this one gives.
    pub(crate) before: u8,
    pub(crate) now: u8,
    /// Where its data begins.
    pub(crate) start: usize,
}

/// A component of a scan, and the tables of codes that it uses.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Choice {
    pub(crate) component: usize,
    pub(crate) dc: usize,
    pub(crate) ac: usize,
}

impl Scan {
    fn new(frame: &Frame, header: &[u8], start: usize) -> Result<Self, Reason> {
        let wrong = || Reason::Decoder("a scan of it is damaged".to_owned());
        let (&count, rest) = header.split_first().ok_or_else(wrong)?;
        let (choices, spectrum) = rest.split_at_checked(2 * usize::from(count)).ok_or_else(wrong)?;
        let &[first, last, bits, ..] = spectrum else { return Err(wrong()) };
        let (choices, _) = choices.as_chunks::<2>();
        let mut components: Vec<Choice> = Vec::new();
        for &[id, tables] in choices {
            // Where components are alike, they come in the order of the frame.
            let free = |at: &usize| components.iter().all(|chosen| chosen.component != *at);
            let component = (0..frame.components.len())
                .filter(free)
                .find(|at| frame.components[*at].id == id)
                .ok_or_else(wrong)?;
            components.push(Choice {
                component,
                dc: usize::from(tables >> 4) & 3,
                ac: usize::from(tables) & 3,
            });
        }
        let blocks = |choice: &Choice| {
            let component = &frame.components[choice.component];
            (component.across * component.down) as usize
        };
        let is_too_large = components.len() > 1 && components.iter().map(blocks).sum::<usize>() > MOST_BLOCKS;
        if components.is_empty() || components.len() > MOST_COMPONENTS || is_too_large {
            return Err(wrong());
        }
        if !frame.is_progressive {
            // As libjpeg does, whatever the header says.
            return Ok(Self { components, first: 0, last: 63, before: 0, now: 0, start });
        }
        let (before, now) = (bits >> 4, bits & 15);
        let is_sound =
            if first == 0 { last == 0 } else { first <= last && last < 64 && components.len() == 1 };
        if !is_sound || now > 13 || before > 14 {
            return Err(wrong());
        }
        Ok(Self { components, first, last, before, now, start })
    }

    /// The coefficients that it has, a bit each.
    pub(crate) fn band(&self) -> u64 {
        (u64::MAX >> (63 - self.last)) & (u64::MAX << self.first)
    }
}

/// A table of codes as it is written: how many there are of each length, and their symbols.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CodeTable<'a> {
    counts: &'a [u8; 16],
    symbols: &'a [u8],
}

impl CodeTable<'_> {
    /// The codes of a table that a scan uses.
    pub(crate) fn codes(table: Option<&Self>) -> Result<Codes, Reason> {
        let table = table.ok_or_else(missing)?;
        let codes = Codes::new(table.counts, table.symbols);
        codes.ok_or_else(|| Reason::Decoder("a table of its codes is damaged".to_owned()))
    }
}

fn missing() -> Reason {
    Reason::Decoder("a table of it is missing".to_owned())
}

/// The tables that hold from here on.
#[derive(Debug, Clone)]
pub(crate) struct Tables<'a> {
    quantization: [Option<[u16; 64]>; 4],
    pub(crate) dc: [Option<CodeTable<'a>>; 4],
    pub(crate) ac: [Option<CodeTable<'a>>; 4],
    /// How many units lie between two restarts; 0 is no restarts.
    pub(crate) restart_interval: u32,
}

impl<'a> Tables<'a> {
    fn take_quantization(&mut self, mut content: &[u8]) {
        while let Some((&kind, rest)) = content.split_first() {
            let (is_wide, table) = (kind >> 4 != 0, usize::from(kind & 15));
            let length = if is_wide { 128 } else { 64 };
            let Some((values, rest)) = rest.split_at_checked(length) else { return };
            let value = |at: usize| {
                if is_wide {
                    u16::from_be_bytes([values[2 * at], values[2 * at + 1]])
                } else {
                    values[at].into()
                }
            };
            if let Some(table) = self.quantization.get_mut(table) {
                *table = Some(std::array::from_fn(value));
            }
            content = rest;
        }
    }

    fn take_codes(&mut self, mut content: &'a [u8]) {
        while let Some((&[kind], rest)) = content.split_first_chunk::<1>() {
            let Some((counts, rest)) = rest.split_first_chunk::<16>() else { return };
            let total: usize = counts.iter().map(|count| usize::from(*count)).sum();
            let Some((symbols, rest)) = rest.split_at_checked(total) else { return };
            let tables = if kind >> 4 == 0 { &mut self.dc } else { &mut self.ac };
            if let Some(table) = tables.get_mut(usize::from(kind & 15)) {
                *table = Some(CodeTable { counts, symbols });
            }
            content = rest;
        }
    }

    /// The quantization of a component.
    pub(crate) fn quantization_of(&self, component: &Component) -> Result<&[u16; 64], Reason> {
        let table = self.quantization.get(usize::from(component.quantization));
        table.and_then(Option::as_ref).ok_or_else(missing)
    }
}

/// Goes through the segments of a JPEG.
#[derive(Debug, Clone)]
pub(crate) struct Segments<'a> {
    data: &'a [u8],
    /// Where the next marker is searched from.
    pub(crate) at: usize,
    pub(crate) tables: Tables<'a>,
    pub(crate) frame: Option<Frame>,
    has_jfif: bool,
    /// The colours by Adobe's segment.
    adobe: Option<u8>,
    profile: Vec<&'a [u8]>,
}

impl<'a> Segments<'a> {
    pub(crate) fn new(data: &'a [u8]) -> Self {
        let tables = Tables {
            quantization: [None; 4],
            dc: [const { None }; 4],
            ac: [const { None }; 4],
            restart_interval: 0,
        };
        let mut segments =
            Self { data, at: 2, tables, frame: None, has_jfif: false, adobe: None, profile: Vec::new() };
        // Pictures of a film have no codes of their own.
        segments.tables.take_codes(standard::CODES);
        segments
    }

    /// Goes on to the next scan; `None` at the end of the picture.
    pub(crate) fn next_scan(&mut self) -> Result<Option<Scan>, Reason> {
        while let Some((marker, code)) = next_marker(self.data, self.at) {
            let begin = marker + 2;
            if code == 0xD9 {
                return Ok(None);
            }
            let Some(length) = self.data.get(begin..).and_then(|rest| rest.first_chunk::<2>()) else { break };
            let end = begin + usize::from(u16::from_be_bytes(*length)).max(2);
            let Some(content) = self.data.get(begin + 2..end) else { break };
            self.at = end;
            match code {
                0xC0..=0xC2 if self.frame.is_none() => self.frame = Some(Frame::new(code, content)?),
                0xC4 => self.tables.take_codes(content),
                0xC3 | 0xC5..=0xC7 | 0xC9..=0xCB | 0xCD..=0xCF => {
                    return Err(Reason::Decoder(format!("its way of coding ({code:02X}) is not supported")));
                }
                0xDB => self.tables.take_quantization(content),
                0xDD => {
                    let interval = content.first_chunk::<2>().map_or(0, |value| u16::from_be_bytes(*value));
                    self.tables.restart_interval = interval.into();
                }
                0xDA => {
                    let frame = self.frame.as_ref().ok_or(Reason::Incomplete)?;
                    return Scan::new(frame, content, end).map(Some);
                }
                0xE0 => self.has_jfif |= content.len() >= JFIF_BYTES && content.starts_with(b"JFIF\0"),
                0xE2 => {
                    if let Some(part) = content.strip_prefix(ICC) {
                        self.profile.push(part);
                    }
                }
                0xEE if content.starts_with(b"Adobe") => self.adobe = content.get(11).copied(),
                _ => {}
            }
        }
        Ok(None)
    }

    /// The meaning of its components' samples, as libjpeg takes it.
    pub(crate) fn colours(&self) -> Colours {
        let Some(frame) = &self.frame else { return Colours::Grey };
        match frame.components.len() {
            1 => Colours::Grey,
            3 if self.has_jfif => Colours::Luma,
            3 => match (self.adobe, [0, 1, 2].map(|at: usize| frame.components[at].id)) {
                (Some(0), _) => Colours::Rgb,
                (None, [b'R', b'G', b'B']) => Colours::Rgb,
                _ => Colours::Luma,
            },
            _ if matches!(self.adobe, None | Some(0)) => Colours::Inks,
            _ => Colours::InksAsLuma,
        }
    }

    /// How long the colour profile is.
    pub(crate) fn profile_bytes(&self) -> usize {
        self.profile.iter().map(|part| part.len()).sum()
    }

    /// The colour profile, put together of its numbered parts.
    pub(crate) fn profile(&self) -> Option<Vec<u8>> {
        if self.profile_bytes() > METADATA_BYTES {
            return None;
        }
        let count = *self.profile.first()?.get(1)?;
        let mut whole = Vec::new();
        for number in 1..=count {
            let part = self.profile.iter().find(|part| part.first() == Some(&number))?;
            whole.extend_from_slice(part.get(2..)?);
        }
        Some(whole)
    }
}

/// The meaning of a picture's samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Colours {
    Grey,
    Rgb,
    /// Luma and chroma (JFIF).
    Luma,
    Inks,
    InksAsLuma,
}

impl Colours {
    pub(crate) fn samples(self) -> Samples {
        match self {
            Self::Grey => Samples::Grey,
            Self::Rgb | Self::Luma => Samples::Rgb,
            Self::Inks => Samples::Inks,
            Self::InksAsLuma => Samples::InksAsLuma,
        }
    }
}

/// Where the next marker with a segment, or the end, is, and its code.
pub(crate) fn next_marker(jpeg: &[u8], from: usize) -> Option<(usize, u8)> {
    let mut at = from;
    loop {
        at += jpeg.get(at..)?.iter().position(|byte| *byte == 0xFF)?;
        match *jpeg.get(at + 1)? {
            // Data, restarts, and what no segment is called.
            0x00..=0xBF | 0xD0..=0xD7 => at += 2,
            0xFF => at += 1,
            code => return Some((at, code)),
        }
    }
}
