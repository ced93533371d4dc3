//! JPEG (ITU-T T.81): segments of marker and length, and between them, behind each SOS,
//! entropy-coded data in which only a marker can end it.
//!
//! The picture is there with the first data of its first scan: browsers show what a scan holds, and the end of the data
//! can't be told from a cut without decoding it. From then on nothing is refused but too many scans.
//!
//! Previews inside APPn segments are passed over with their segment. As in libjpeg, bytes that belong to no segment are
//! skipped until the next marker, and bytes behind EOI are ignored: cameras write both. Hierarchical images, and images
//! whose height comes only behind the first scan (DNL), are refused: no common viewer shows them.

use crate::exif::Exif;
use crate::image::{Format, Image, Limits, SniffError};
use crate::walk::{Step, Walk};

/// The signature has taken the 0xFF of the first marker, so the first byte read is its code.
pub(crate) const FIRST: Step = Step::Read;

#[derive(Debug)]
pub(crate) struct Jpeg {
    limits: Limits,
    state: State,
    image: Option<Image>,
    /// How many components the frame header has announced.
    components: u8,
    scans: Scans,
    /// The pixels of the picture, once for each scan.
    scanned: u64,
    /// The first Exif block before the first scan, as far as it has come.
    exif: Option<Exif>,
}

#[derive(Debug, Clone, Copy)]
enum State {
    /// Between segments or in entropy-coded data: on the way to the next 0xFF.
    Data,
    /// Behind 0xFF: any number of further 0xFF, then a marker's code or the zero of stuffing.
    Marker,
    /// The length of the segment with this marker.
    Length(u8),
    /// The frame header behind its length.
    Frame(u8),
    /// The scan header behind its length.
    Scan,
    /// The head of a table in a segment of this marker, with so much of the segment behind it.
    TableHead(u8, u16),
    /// The rest of the table, likewise.
    TableBody(u8, u16),
    /// The name of an application's segment, with so much of the segment behind it.
    Name(u16),
    /// The Exif block behind its name.
    Exif,
    /// A segment that is passed over.
    Segment,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scans {
    None,
    /// A scan header without a byte of data behind it yet.
    Announced,
    /// At least one scan has data.
    Seen,
}

impl Jpeg {
    pub(crate) const fn new(limits: Limits) -> Self {
        Self {
            limits,
            state: State::Marker,
            image: None,
            components: 0,
            scans: Scans::None,
            scanned: 0,
            exif: None,
        }
    }

    /// The way to the next marker.
    fn data(&mut self) -> Step {
        self.state = State::Data;
        Step::Read
    }

    fn data_seen(&mut self) {
        if self.scans == Scans::Announced {
            self.scans = Scans::Seen;
        }
    }

    fn marker(&mut self, code: u8) -> Result<Step, SniffError> {
        match code {
            // Makers' trailers may hold anything, other pictures too.
            _ if self.has_picture()
                && !matches!(code, EOI | DHT | DAC | SOS | DQT | DNL | DRI | APP0..=APP15 | COM) =>
            {
                return Ok(self.data());
            }
            EOI => match (self.image, self.scans) {
                (Some(image), Scans::Seen) => return Ok(Step::End(image)),
                _ => return malformed("it ends without image data"),
            },
            SOI => return malformed("it begins a second time before its end"),
            SOF0..=SOF3 | SOF9..=SOF11 if self.image.is_some() => {
                return malformed("it has a second frame header");
            }
            SOS if self.image.is_none() => {
                return malformed("its image data comes before the frame header");
            }
            SOF0..=SOF3 | SOF9..=SOF11 | DHT | DAC | SOS | DQT | DNL | DRI | APP0..=APP15 | COM => {}
            SOF5..=SOF15 | DHP | EXP => return malformed("viewers show no hierarchical JPEG"),
            _ => return malformed("it has an unknown marker"),
        }
        self.state = State::Length(code);
        Ok(Step::Take(2))
    }

    fn segment(&mut self, code: u8, length: u16) -> Result<Step, SniffError> {
        // The length counts its own two bytes.
        let content = match length.checked_sub(2) {
            Some(content) => content,
            None if self.has_picture() => return Ok(self.data()),
            None => return malformed("a segment is shorter than its own length field"),
        };
        match code {
            SOF0..=SOF3 | SOF9..=SOF11 => {
                if !matches!(content, 9 | 12 | 15 | 18) {
                    return malformed("its frame header is not one of 1 to 4 components");
                }
                self.state = State::Frame(code);
                Ok(Step::Take(content.into()))
            }
            SOS => {
                if !matches!(content, 6 | 8 | 10 | 12) {
                    return if self.has_picture() { Ok(self.data()) } else { malformed(BAD_SCAN) };
                }
                self.state = State::Scan;
                Ok(Step::Take(content.into()))
            }
            DQT | DHT if !self.has_picture() => self.table(code, content),
            APP1 if self.scans == Scans::None && self.exif.is_none() && content as usize > EXIF.len() => {
                self.state = State::Name(content - EXIF.len() as u16 - 1);
                Ok(Step::Take(EXIF.len() + 1))
            }
            _ => Ok(self.skip(content.into())),
        }
    }

    fn skip(&mut self, bytes: u32) -> Step {
        self.state = State::Segment;
        Step::Skip(bytes.into())
    }

    /// The way through the Exif block, or past it.
    fn exif(&mut self, exif: Exif, step: Option<Step>) -> Step {
        self.exif = Some(exif);
        self.state = State::Exif;
        step.unwrap_or_else(|| self.skip(exif.left))
    }

    /// The next table of a segment of which `left` bytes are left.
    ///
    /// Bytes between segments are skipped, so a wrong length would often go unnoticed. The tables
    /// say for a second time how long their segment is, and decoders insist on it.
    fn table(&mut self, code: u8, left: u16) -> Result<Step, SniffError> {
        if left == 0 {
            return Ok(self.data());
        }
        // The table's kind, and for a Huffman table how many codes of 1 to 16 bits it has.
        let head: u8 = if code == DQT { 1 } else { 17 };
        let Some(behind) = left.checked_sub(head.into()) else {
            return malformed(BAD_TABLE);
        };
        self.state = State::TableHead(code, behind);
        Ok(Step::Take(head.into()))
    }

    fn table_head(&mut self, code: u8, left: u16, head: &[u8]) -> Result<Step, SniffError> {
        let &[kind, ref counts @ ..] = head else {
            return malformed(SHORT);
        };
        // Precision or class is 0 or 1, and there are four tables of each.
        let (class, number) = (kind >> 4, kind & 15);
        if class > 1 || number > 3 {
            return malformed(BAD_TABLE);
        }
        let size = if code == DQT { 64 << class } else { counts.iter().map(|count| u16::from(*count)).sum() };
        let Some(behind) = left.checked_sub(size) else {
            return malformed(BAD_TABLE);
        };
        self.state = State::TableBody(code, behind);
        Ok(Step::Skip(size.into()))
    }

    fn frame(&mut self, code: u8, header: &[u8]) -> Result<Step, SniffError> {
        let &[precision, h0, h1, w0, w1, count, ref components @ ..] = header else {
            return malformed(SHORT);
        };
        let precision_is_legal = match code {
            SOF0 => precision == 8,
            SOF3 | SOF11 => (2..=16).contains(&precision),
            _ => matches!(precision, 8 | 12),
        };
        if !precision_is_legal {
            return malformed("there is no such sample precision");
        }
        let (components, []) = components.as_chunks::<3>() else {
            return malformed(SHORT);
        };
        if components.len() != usize::from(count) {
            return malformed("its frame header does not hold as many components as it says");
        }
        let factors = 1..=4;
        if !components
            .iter()
            .all(|[_, sampling, _]| factors.contains(&(sampling >> 4)) && factors.contains(&(sampling & 15)))
        {
            return malformed("a sampling factor is not within 1 to 4");
        }
        let width = u16::from_be_bytes([w0, w1]);
        let height = u16::from_be_bytes([h0, h1]);
        if width == 0 {
            return malformed("its width is 0");
        }
        if height == 0 {
            return malformed("its height is 0 (one that comes behind the data is not supported)");
        }
        self.components = count;
        self.image = Some(self.limits.admit(Format::Jpeg, width.into(), height.into())?);
        Ok(self.data())
    }

    fn scan(&mut self, header: &[u8]) -> Result<Step, SniffError> {
        let &[count, ref selection @ ..] = header else {
            return malformed(SHORT);
        };
        if count > self.components || selection.len() != usize::from(count) * 2 + 3 {
            return if self.has_picture() { Ok(self.data()) } else { malformed(BAD_SCAN) };
        }
        // A decoder goes over all blocks for each scan, however little the scan says about them.
        self.scanned = self.scanned.saturating_add(self.image.map_or(0, Image::pixels));
        self.limits.admit_scanned(Format::Jpeg, self.scanned)?;
        if self.scans == Scans::None {
            self.scans = Scans::Announced;
        }
        Ok(self.data())
    }
}

impl Walk for Jpeg {
    fn take(&mut self, bytes: &[u8]) -> Result<Step, SniffError> {
        match (self.state, bytes) {
            (State::Length(code), &[high, low]) => self.segment(code, u16::from_be_bytes([high, low])),
            (State::Frame(code), header) => self.frame(code, header),
            (State::Scan, header) => self.scan(header),
            (State::TableHead(code, left), head) => self.table_head(code, left, head),
            (State::TableBody(code, left), []) => self.table(code, left),
            // A block without content is none.
            (State::Name(left), [name @ .., _]) if name == EXIF && left > 0 => {
                let (exif, step) = Exif::begin(left.into());
                Ok(self.exif(exif, step))
            }
            (State::Name(left), _) => Ok(self.skip(left.into())),
            (State::Exif, bytes) => match self.exif {
                Some(mut exif) => {
                    let step = exif.take(bytes);
                    Ok(self.exif(exif, step))
                }
                None => malformed(SHORT),
            },
            (State::Segment, []) => Ok(self.data()),
            _ => malformed(SHORT),
        }
    }

    fn read(&mut self, piece: &[u8]) -> Result<(usize, Step), SniffError> {
        let mut at = 0;
        while let Some(&byte) = piece.get(at) {
            match (self.state, byte) {
                (State::Marker, 0xFF) => at += 1,
                // A stuffed 0xFF, or a marker that has no segment: the data goes on.
                (State::Marker, 0x00 | TEM | RST0..=RST7) => {
                    if byte == 0 {
                        self.data_seen();
                    }
                    at += 1;
                    self.state = State::Data;
                }
                (State::Marker, code) => {
                    let step = self.marker(code)?;
                    return Ok((at + 1, step));
                }
                _ => {
                    let data = marker_prefix(&piece[at..]);
                    if data > 0 {
                        self.data_seen();
                    }
                    at += data;
                    if at < piece.len() {
                        self.state = State::Marker;
                        at += 1;
                    }
                }
            }
        }
        Ok((at, Step::Read))
    }

    fn header(&self) -> Option<Image> {
        self.image
    }

    fn has_picture(&self) -> bool {
        self.scans == Scans::Seen
    }

    fn orientation(&self) -> u8 {
        self.exif.map_or(1, |exif| exif.orientation())
    }
}

/// Where the first 0xFF lies that may be a marker's: one that no zero follows, or the last byte.
/// The length of `data` if there is none.
///
/// Nearly every 0xFF in entropy-coded data is stuffed, about one in 256 bytes. So the search is for the pair, not for
/// 0xFF alone. It looks at whole blocks without a branch inside, which the compiler turns into vector instructions.
/// Stuffed bytes then cost nothing.
fn marker_prefix(data: &[u8]) -> usize {
    const BLOCK: usize = 64;
    let Some((last, earlier)) = data.split_last() else {
        return 0;
    };
    let following = &data[1..];
    let is_prefix = |(byte, next): (&u8, &u8)| (*byte == 0xFF) & (*next != 0);
    let (blocks, _) = earlier.as_chunks::<BLOCK>();
    let (following_blocks, _) = following.as_chunks::<BLOCK>();
    let clear = BLOCK
        * blocks
            .iter()
            .zip(following_blocks)
            .take_while(|(block, following)| {
                !block.iter().zip(*following).fold(false, |found, pair| found | is_prefix(pair))
            })
            .count();
    earlier[clear..]
        .iter()
        .zip(&following[clear..])
        .position(is_prefix)
        .map_or_else(|| earlier.len() + usize::from(*last != 0xFF), |found| clear + found)
}

// Markers by the names of T.81, table B.1: the byte behind 0xFF.
const TEM: u8 = 0x01;
const SOF0: u8 = 0xC0;
const SOF3: u8 = 0xC3;
const DHT: u8 = 0xC4;
const SOF5: u8 = 0xC5;
const SOF9: u8 = 0xC9;
const SOF11: u8 = 0xCB;
const DAC: u8 = 0xCC;
const SOF15: u8 = 0xCF;
const RST0: u8 = 0xD0;
const RST7: u8 = 0xD7;
const SOI: u8 = 0xD8;
const EOI: u8 = 0xD9;
const SOS: u8 = 0xDA;
const DQT: u8 = 0xDB;
const DNL: u8 = 0xDC;
const DRI: u8 = 0xDD;
const DHP: u8 = 0xDE;
const EXP: u8 = 0xDF;
/// The name of an Exif block. A byte that fills up follows, of any value.
const EXIF: &[u8] = b"Exif\0";
const APP0: u8 = 0xE0;
const APP1: u8 = 0xE1;
const APP15: u8 = 0xEF;
const COM: u8 = 0xFE;

const BAD_SCAN: &str = "a scan header does not fit the frame";
const BAD_TABLE: &str = "a quantization or Huffman table does not fit its segment";
const SHORT: &str = "a segment is too short";

const fn malformed<T>(reason: &'static str) -> Result<T, SniffError> {
    Err(SniffError::Malformed { format: Format::Jpeg, reason })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use proptest::prelude::*;

    use super::*;
    use crate::tests::{
        BASELINE_JPG, EXIF_THUMBNAIL_JPG, LIMITS, PROGRESSIVE_JPG, RESTARTS_JPG, find, is_malformed,
        is_truncated, patched,
    };
    use crate::{SniffError, sniff};

    const SOF1: u8 = 0xC1;
    const SOF2: u8 = 0xC2;

    const IMAGE: Image = Image { format: Format::Jpeg, width: 3, height: 2 };

    fn segment(code: u8, content: &[u8]) -> Vec<u8> {
        let length = u16::try_from(content.len() + 2).unwrap().to_be_bytes();
        [&[0xFF, code], &length[..], content].concat()
    }

    /// A frame header of one component.
    fn frame(code: u8, precision: u8, width: u16, height: u16) -> Vec<u8> {
        let ([h0, h1], [w0, w1]) = (height.to_be_bytes(), width.to_be_bytes());
        segment(code, &[precision, h0, h1, w0, w1, 1, 1, 0x11, 0])
    }

    fn sof() -> Vec<u8> {
        frame(SOF0, 8, 3, 2)
    }

    fn sos() -> Vec<u8> {
        segment(SOS, &[1, 1, 0, 0, 63, 0])
    }

    fn eoi() -> Vec<u8> {
        vec![0xFF, EOI]
    }

    fn jpeg(parts: &[Vec<u8>]) -> Vec<u8> {
        [&[0xFF, SOI], &parts.concat()[..]].concat()
    }

    #[test]
    fn the_fixtures_are_what_they_are_here_for() {
        let scans = |bytes: &[u8]| bytes.windows(2).filter(|pair| *pair == [0xFF, SOS]).count();
        assert_eq!(scans(BASELINE_JPG.bytes), 1);
        assert!(scans(PROGRESSIVE_JPG.bytes) > 3);
        find(RESTARTS_JPG.bytes, &[0xFF, RST0]);
        // The thumbnail has a frame header of its own, and it comes first.
        let thumbnail = find(EXIF_THUMBNAIL_JPG.bytes, &[0xFF, SOF0]);
        assert_eq!(EXIF_THUMBNAIL_JPG.bytes[thumbnail + 5..][..4], [0, 8, 0, 8]);
    }

    #[test]
    fn entropy_coded_data_ends_only_at_a_marker() {
        for data in [
            &[0x12, 0x34][..],
            // Stuffed, alone and at either end.
            &[0xFF, 0x00],
            &[0xFF, 0x00, 0xFF, 0x00, 0x01],
            &[0x01, 0xFF, 0x00],
            // Restarts, and a stuffed byte directly behind one.
            &[0x01, 0xFF, RST0, 0x02, 0xFF, RST7, 0xFF, 0x00],
            // Fill bytes before a marker and before a zero.
            &[0x01, 0xFF, 0xFF, 0xFF, RST0, 0x02, 0xFF, 0xFF, 0x00],
            &[0x01, 0xFF],
        ] {
            let whole = jpeg(&[sof(), sos(), data.to_vec(), eoi()]);
            assert_eq!(sniff(&whole, LIMITS), Ok(IMAGE), "{data:02X?}");
        }
        // Without an end, a picture is there all the same.
        assert_eq!(sniff(&jpeg(&[sof(), sos(), vec![1, 0xFF, 0, EOI]]), LIMITS), Ok(IMAGE));
        assert!(is_truncated(&jpeg(&[sof(), sos()])));
        assert!(is_truncated(&jpeg(&[sof(), sos(), vec![0xFF]])));
    }

    #[test]
    fn parts_come_in_an_order_and_the_frame_once() {
        let data = || vec![0x12];
        let app = || segment(APP0, b"\xFF\xD9 within a segment means nothing");
        for whole in [
            &[app(), sof(), sos(), data(), eoi()][..],
            &[sof(), sos(), data(), segment(DHT, &[]), sos(), data(), eoi()],
            // libjpeg and viewers skip bytes that belong to no segment.
            &[app(), vec![0, 0, 0], sof(), sos(), data(), eoi()],
        ] {
            assert_eq!(sniff(&jpeg(whole), LIMITS), Ok(IMAGE));
        }
        for (why, broken) in [
            ("nothing at all", &[eoi()][..]),
            ("no frame", &[sos(), data(), eoi()]),
            ("no scan", &[sof(), eoi()]),
            ("a scan without data", &[sof(), sos(), eoi()]),
            ("two frames", &[sof(), sof(), sos(), data(), eoi()]),
            ("two beginnings", &[vec![0xFF, SOI], sof(), sos(), data(), eoi()]),
            ("a reserved marker", &[segment(0x02, b"x")]),
            ("an unknown marker", &[segment(0xF0, b"x")]),
            ("a length of 1", &[vec![0xFF, COM, 0, 1]]),
            ("a scan of more components", &[sof(), segment(SOS, &[2, 1, 0, 2, 0, 0, 63, 0])]),
            ("a scan of none", &[sof(), segment(SOS, &[0, 0, 63, 0])]),
            ("a scan header that is too long", &[sof(), segment(SOS, &[1, 1, 0, 0, 63, 0, 0, 0])]),
        ] {
            assert!(is_malformed(&jpeg(broken)), "{why}");
        }
    }

    #[test]
    fn behind_a_picture_only_scans_count() {
        let picture = || [sof(), sos(), vec![0x12]].concat();
        for rest in [
            vec![0xFF, SOI],
            sof(),
            segment(0xF0, b"x"),
            vec![0xFF, COM, 0, 1],
            segment(SOS, &[2, 1, 0, 2, 0, 0, 63, 0]),
            segment(DHT, b"no table"),
            vec![0xFF, SOS, 0xFF, 0xFF],
            [&[0xFF, SOF0][..], b"\x00\x00\x00\x18ftypmp42"].concat(),
        ] {
            assert_eq!(sniff(&jpeg(&[picture(), rest.clone()]), LIMITS), Ok(IMAGE), "{rest:02X?}");
            assert_eq!(sniff(&jpeg(&[picture(), rest.clone(), eoi()]), LIMITS), Ok(IMAGE), "{rest:02X?}");
            // A decoder may go on behind it, so more scans are still too many.
            let scans = [sos(), vec![0x12]].concat().repeat(100);
            let limits = Limits { max_pixels: 6 };
            assert!(matches!(
                sniff(&jpeg(&[picture(), rest, scans]), limits),
                Err(SniffError::TooMuchWork { .. })
            ));
        }
    }

    #[test]
    fn tables_fill_their_segments() {
        let bytes = |kind: u8, size| [&[kind][..], &vec![1; size]].concat();
        let codes = |kind, count: u8| [&[kind, 0, count][..], &[0; 14], &vec![1; count.into()]].concat();
        for (code, content) in [
            (DQT, bytes(0x00, 64)),
            (DQT, [bytes(0x13, 128), bytes(0x01, 64)].concat()),
            (DHT, codes(0x00, 0)),
            (DHT, [codes(0x10, 3), codes(0x03, 255)].concat()),
        ] {
            let whole = |content: &[u8]| jpeg(&[segment(code, content), sof(), sos(), vec![1], eoi()]);
            assert_eq!(sniff(&whole(&content), LIMITS), Ok(IMAGE));
            assert!(is_malformed(&whole(&[&content[..], &[0]].concat())));
            assert!(is_malformed(&whole(&patched(&content, 0, &[0x04]))));
            assert!(is_malformed(&whole(&patched(&content, 0, &[0x20]))));
        }
        assert!(is_malformed(&jpeg(&[segment(DQT, &bytes(0x10, 64))])));
        assert!(is_malformed(&jpeg(&[segment(DHT, &codes(0, 3)[..19])])));
    }

    #[test]
    fn illegal_frames_are_refused_at_once() {
        for (why, header) in [
            ("no width", frame(SOF0, 8, 0, 2)),
            ("a height that comes later", frame(SOF0, 8, 3, 0)),
            ("12 bits in baseline", frame(SOF0, 12, 3, 2)),
            ("9 bits", frame(SOF2, 9, 3, 2)),
            ("hierarchical", frame(SOF5, 8, 3, 2)),
            ("hierarchical", segment(DHP, &[8, 0, 2, 0, 3, 1, 1, 0x11, 0])),
            ("no component", segment(SOF0, &[8, 0, 2, 0, 3, 0])),
            ("fewer components than said", segment(SOF0, &[8, 0, 2, 0, 3, 2, 1, 0x11, 0])),
            ("a sampling factor of 0", segment(SOF0, &[8, 0, 2, 0, 3, 1, 1, 0x10, 0])),
            ("a sampling factor of 5", segment(SOF0, &[8, 0, 2, 0, 3, 1, 1, 0x51, 0])),
        ] {
            assert!(is_malformed(&jpeg(&[header])), "{why}");
        }
        for (code, precision) in [(SOF1, 12), (SOF2, 8), (SOF3, 16), (SOF9, 8)] {
            let whole = jpeg(&[frame(code, precision, 3, 2), sos(), vec![1], eoi()]);
            assert_eq!(sniff(&whole, LIMITS), Ok(IMAGE), "{code:02X}");
        }
    }

    #[test]
    fn the_largest_frame_is_refused_with_its_header() {
        assert!(matches!(
            sniff(&jpeg(&[frame(SOF2, 8, u16::MAX, u16::MAX)]), LIMITS),
            Err(SniffError::TooManyPixels { width: 65_535, height: 65_535, .. })
        ));
    }

    proptest! {
        #[test]
        fn the_fast_search_finds_what_a_plain_one_finds(
            data in proptest::collection::vec(
                prop_oneof![20 => Just(0x55_u8), 3 => Just(0xFF), 6 => Just(0)],
                0..400,
            ),
        ) {
            let plain = (0..data.len())
                .find(|&at| data[at] == 0xFF && data.get(at + 1).is_none_or(|next| *next != 0))
                .unwrap_or(data.len());
            prop_assert_eq!(marker_prefix(&data), plain);
        }

        #[test]
        fn a_marker_is_found_wherever_it_lies(before in 0..300_usize, after in 0..300_usize) {
            let mut data = vec![0x55; before];
            data.extend([0xFF, 0x00, 0x55, 0xFF, EOI]);
            data.extend(vec![0x55; after]);
            prop_assert_eq!(marker_prefix(&data), before + 3);
        }
    }
}
