//! Tests of the rules for all formats. The rules of one format are tested in its module.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::path::Path;

use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::*;

pub(crate) const LIMITS: Limits = Limits { max_pixels: 100_000_000 };

#[derive(Debug)]
pub(crate) struct Fixture {
    name: &'static str,
    pub(crate) bytes: &'static [u8],
    pub(crate) image: Image,
}

macro_rules! fixtures {
    ($($constant:ident = $name:literal $format:ident $width:literal x $height:literal;)*) => {
        $(pub(crate) const $constant: Fixture = Fixture {
            name: $name,
            bytes: include_bytes!(concat!("../fixtures/", $name)),
            image: Image { format: Format::$format, width: $width, height: $height },
        };)*
        const FIXTURES: &[Fixture] = &[$($constant),*];
    };
}

fixtures! {
    STILL_PNG = "still.png" Png 7 x 5;
    PALETTE_PNG = "palette.png" Png 7 x 5;
    ANIMATED_PNG = "animated.png" Png 7 x 5;
    BASELINE_JPG = "baseline.jpg" Jpeg 24 x 18;
    PROGRESSIVE_JPG = "progressive.jpg" Jpeg 24 x 18;
    RESTARTS_JPG = "restarts.jpg" Jpeg 24 x 18;
    EXIF_THUMBNAIL_JPG = "exif-thumbnail.jpg" Jpeg 24 x 18;
    STILL_GIF = "still.gif" Gif 7 x 5;
    ANIMATED_GIF = "animated.gif" Gif 7 x 5;
    LOSSY_WEBP = "lossy.webp" Webp 24 x 18;
    LOSSLESS_WEBP = "lossless.webp" Webp 7 x 5;
    ALPHA_WEBP = "alpha.webp" Webp 24 x 18;
    ANIMATED_WEBP = "animated.webp" Webp 24 x 18;
}

/// `bytes` with `new` written over those at `at`.
pub(crate) fn patched(bytes: &[u8], at: usize, new: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[at..at + new.len()].copy_from_slice(new);
    bytes
}

/// Where `needle` first lies in `bytes`.
pub(crate) fn find(bytes: &[u8], needle: &[u8]) -> usize {
    bytes.windows(needle.len()).position(|window| window == needle).unwrap()
}

pub(crate) fn is_malformed(bytes: &[u8]) -> bool {
    matches!(sniff(bytes, LIMITS), Err(SniffError::Malformed { .. }))
}

pub(crate) fn is_truncated(bytes: &[u8]) -> bool {
    matches!(sniff(bytes, LIMITS), Err(SniffError::Truncated { .. }))
}

fn in_chunks<'a>(chunks: impl IntoIterator<Item = &'a [u8]>) -> Result<Image, SniffError> {
    let mut sniffer = Sniffer::new(LIMITS);
    for chunk in chunks {
        sniffer.push(chunk)?;
    }
    sniffer.finish()
}

#[test]
fn the_sample_photographs_are_whole_images_of_their_sizes() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../samples");
    for (name, format, width, height) in [
        ("astronaut.png", Format::Png, 512, 512),
        ("chelsea.png", Format::Png, 451, 300),
        ("coffee.png", Format::Png, 600, 400),
        ("grass.png", Format::Png, 512, 512),
        ("hubble_deep_field.jpg", Format::Jpeg, 1000, 872),
        ("retina.jpg", Format::Jpeg, 1411, 1411),
        ("rocket.jpg", Format::Jpeg, 640, 427),
    ] {
        let bytes = std::fs::read(folder.join(name)).unwrap();
        let image = Image { format, width, height };
        assert_eq!(sniff(&bytes, LIMITS), Ok(image), "{name}");
        assert_eq!(in_chunks(bytes.chunks(1000)), Ok(image), "{name} in chunks");
        assert_eq!(sniff(&bytes[..bytes.len() - 1], LIMITS), Ok(image), "{name} without its last byte");
        let cut = &bytes[..bytes.len() / 3];
        let cut_off = if format == Format::Jpeg { Ok(image) } else { Err(SniffError::Truncated { format }) };
        assert_eq!(sniff(cut, LIMITS), cut_off, "a third of {name}");
    }
}

#[test]
fn what_encoders_write_is_accepted_in_every_flavour() {
    for fixture in FIXTURES {
        assert_eq!(sniff(fixture.bytes, LIMITS), Ok(fixture.image), "{}", fixture.name);
    }
}

#[test]
fn a_beginning_is_cut_off_until_there_is_a_picture() {
    for fixture in FIXTURES {
        assert_eq!(sniff(&[], LIMITS), Err(SniffError::Empty));
        let mut has_picture = false;
        for length in 1..fixture.bytes.len() {
            let sniffed = sniff(&fixture.bytes[..length], LIMITS);
            let name = fixture.name;
            match sniffed {
                Ok(image) => assert_eq!(image, fixture.image, "the first {length} bytes of {name}"),
                Err(error) => {
                    assert_eq!(
                        error,
                        SniffError::Truncated { format: fixture.image.format },
                        "{length} of {name}"
                    );
                    assert!(!has_picture || fixture.image.format == Format::Png, "{length} of {name}");
                }
            }
            has_picture |= sniffed.is_ok();
        }
        assert!(has_picture || fixture.image.format == Format::Webp, "{}", fixture.name);
    }
}

#[test]
fn an_image_that_must_have_its_end_is_cut_off_without() {
    for fixture in FIXTURES {
        assert_eq!(sniff_to_end(fixture.bytes, LIMITS), Ok(fixture.image), "{}", fixture.name);
        for length in 1..fixture.bytes.len() {
            let cut = sniff_to_end(&fixture.bytes[..length], LIMITS);
            let ends_early = fixture.image.format == Format::Png && length + 4 >= fixture.bytes.len();
            assert!(cut.is_err() || ends_early, "the first {length} bytes of {}", fixture.name);
        }
    }
}

#[test]
fn bytes_behind_the_end_of_an_image_are_ignored() {
    for fixture in FIXTURES {
        for tail in [&b"\0"[..], b"appended by a camera", fixture.bytes] {
            assert_eq!(in_chunks([fixture.bytes, tail]), Ok(fixture.image), "{}", fixture.name);
        }
    }
}

#[test]
fn other_files_are_refused_with_their_first_telling_byte() {
    for (name, bytes) in [
        ("SVG", &b"<svg xmlns=\"http://www.w3.org/2000/svg\"/>"[..]),
        ("XML", b"<?xml version=\"1.0\"?>"),
        ("text", b"Good morning"),
        ("BMP", b"BM\x3A\0\0\0"),
        ("TIFF, little-endian", b"II*\0"),
        ("TIFF, big-endian", b"MM\0*"),
        ("AVIF", b"\0\0\0\x20ftypavif"),
        ("WAV", b"RIFF\x24\0\0\0WAVEfmt "),
        ("a later GIF", b"GIF90a"),
        ("a PNG whose line ends were converted", b"\x89PNG\n\x1A\n"),
        ("two bytes of a JPEG", b"\xFF\xD9"),
        ("one byte", b"x"),
    ] {
        assert_eq!(sniff(bytes, LIMITS), Err(SniffError::Unsupported), "{name}");
    }
    assert_eq!(Sniffer::new(LIMITS).push(b"<"), Err(SniffError::Unsupported));
}

#[test]
fn the_header_is_known_before_the_body_arrives() {
    for fixture in FIXTURES {
        let mut sniffer = Sniffer::new(LIMITS);
        assert_eq!(sniffer.header(), None);
        let mut known_after = None;
        for (at, byte) in fixture.bytes.iter().enumerate() {
            sniffer.push(std::slice::from_ref(byte)).unwrap();
            if known_after.is_none() && sniffer.header().is_some() {
                known_after = Some(at + 1);
            }
        }
        assert_eq!(sniffer.header(), Some(fixture.image), "{}", fixture.name);
        assert!(known_after.unwrap() < fixture.bytes.len(), "{}", fixture.name);
    }
}

#[test]
fn as_many_pixels_as_are_allowed_pass_and_one_more_does_not() {
    for fixture in FIXTURES {
        let Image { format, width, height } = fixture.image;
        let pixels = u64::from(width * height);
        let exact = Limits { max_pixels: pixels };
        assert_eq!(sniff(fixture.bytes, exact), Ok(fixture.image));
        let max_pixels = pixels - 1;
        assert_eq!(
            sniff(fixture.bytes, Limits { max_pixels }),
            Err(SniffError::TooManyPixels { format, width, height, max_pixels }),
            "{}",
            fixture.name
        );
    }
}

#[test]
fn an_error_stays_whatever_follows() {
    let mut sniffer = Sniffer::new(LIMITS);
    assert_eq!(sniffer.push(b"x"), Err(SniffError::Unsupported));
    assert_eq!(sniffer.push(&[]), Err(SniffError::Unsupported));
    assert_eq!(sniffer.push(STILL_PNG.bytes), Err(SniffError::Unsupported));
    assert_eq!(sniffer.header(), None);
    assert_eq!(sniffer.finish(), Err(SniffError::Unsupported));
}

#[test]
fn content_types_lead_back_to_their_formats() {
    for format in Format::ALL {
        assert_eq!(Format::from_content_type(format.content_type()), Some(format));
    }
    assert_eq!(Format::from_content_type("Image/WebP ; quality=high"), Some(Format::Webp));
    assert_eq!(Format::from_content_type("image/svg+xml"), None);
    assert_eq!(Format::from_content_type(""), None);
}

#[test]
fn errors_are_one_plain_line() {
    let format = Format::Webp;
    for error in [
        SniffError::Empty,
        SniffError::Unsupported,
        SniffError::Truncated { format },
        SniffError::Malformed { format, reason: "a reason" },
        SniffError::TooManyPixels { format, width: 60_000, height: 60_000, max_pixels: 100_000_000 },
        SniffError::TooMuchWork {
            format,
            product: "scans x pixels",
            most: 1_600_000_000,
            got: 1_700_000_000,
        },
    ] {
        let text = error.to_string();
        assert!(text.bytes().all(|byte| matches!(byte, b' '..=b'~')), "{text}");
    }
}

/// A picture of 2 x 2 pixels that makes a decoder repeat its work `times` times: a JPEG of so many scans, or an
/// animation of so many frames. The second value is how often that is allowed for each pixel of the largest picture.
fn repeated(format: Format, times: usize) -> (Vec<u8>, u64) {
    let again = |part: &[u8]| part.repeat(times);
    match format {
        Format::Jpeg => {
            let frame = b"\xFF\xC2\0\x0B\x08\0\x02\0\x02\x01\x01\x11\0";
            let scans = again(b"\xFF\xDA\0\x08\x01\x01\0\0\0\0\x12");
            ([b"\xFF\xD8", &frame[..], &scans, b"\xFF\xD9"].concat(), Limits::SCANS)
        }
        Format::Gif => {
            let frames = again(b",\0\0\0\0\x02\0\x02\0\0\x02\x01a\0");
            ([b"GIF89a\x02\0\x02\0\0\0\0", &frames[..], b";"].concat(), Limits::FRAMES)
        }
        Format::Png => {
            let chunk = |kind: &[u8; 4], data: &[u8]| {
                [&(data.len() as u32).to_be_bytes()[..], kind, data, b"\0\0\0\0"].concat()
            };
            let header = chunk(b"IHDR", b"\0\0\0\x02\0\0\0\x02\x08\0\0\0\0");
            let control = chunk(b"fcTL", b"\0\0\0\0\0\0\0\x02\0\0\0\x02\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
            let parts = [header, again(&control), chunk(b"IDAT", b"pixels"), chunk(b"IEND", b"")];
            ([b"\x89PNG\r\n\x1A\n", &parts.concat()[..]].concat(), Limits::FRAMES)
        }
        Format::Webp => {
            let picture = b"VP8L\x06\0\0\0\x2F\x01\x40\0\0\0";
            let frame = [b"ANMF\x1E\0\0\0\0\0\0\0\0\0\x01\0\0\x01\0\0\0\0\0\0", &picture[..]].concat();
            let start = b"WEBPVP8X\x0A\0\0\0\x02\0\0\0\x01\0\0\x01\0\0ANIM\x06\0\0\0\0\0\0\0\0\0";
            let riff = [&start[..], &again(&frame)].concat();
            ([b"RIFF", &(riff.len() as u32).to_le_bytes()[..], &riff].concat(), Limits::FRAMES)
        }
    }
}

#[test]
fn a_hundred_scans_of_the_largest_picture_are_too_much_though_they_are_few_bytes() {
    // As many pixels as are allowed, in each of the scans that a decoder would give up after.
    let (mut bytes, _) = repeated(Format::Jpeg, 101);
    let size = find(&bytes, b"\0\x02\0\x02");
    bytes = patched(&bytes, size, &[0x27, 0x10, 0x27, 0x10]);
    assert!(bytes.len() < 2000);
    assert_eq!(
        sniff(&bytes, LIMITS),
        Err(SniffError::TooMuchWork {
            format: Format::Jpeg,
            product: "scans x pixels",
            most: 1_600_000_000,
            got: 1_700_000_000
        })
    );
}

#[test]
fn frames_are_counted_by_their_own_size() {
    // Screens of the largest size, on which little changes.
    let (mut gif, _) = repeated(Format::Gif, 5000);
    let screen = find(&gif, b"\x02\0\x02\0");
    gif = patched(&gif, screen, &[0x10, 0x27, 0x10, 0x27]);
    assert!(sniff(&gif, LIMITS).is_ok());
}

/// An image as a real encoder wrote it.
fn any_fixture() -> impl Strategy<Value = &'static Fixture> {
    select(FIXTURES.iter().collect::<Vec<_>>())
}

/// A fixture with a few bytes overwritten, taken out or put in.
fn mutated() -> impl Strategy<Value = Vec<u8>> {
    let edit = (0..3_u8, any::<Index>(), any::<u8>());
    (any_fixture(), proptest::collection::vec(edit, 0..6)).prop_map(|(fixture, edits)| {
        let mut bytes = fixture.bytes.to_vec();
        for (kind, at, byte) in edits {
            let at = at.index(bytes.len());
            match kind {
                0 => bytes[at] = byte,
                1 if bytes.len() > 1 => drop(bytes.remove(at)),
                _ => bytes.insert(at, byte),
            }
        }
        bytes
    })
}

/// A signature and then anything, so that arbitrary bytes get past the first check.
fn behind_a_signature() -> impl Strategy<Value = Vec<u8>> {
    let start = any_fixture().prop_flat_map(|fixture| {
        (0..=fixture.bytes.len().min(64)).prop_map(|length| &fixture.bytes[..length])
    });
    (start, proptest::collection::vec(any::<u8>(), 0..400)).prop_map(|(start, rest)| [start, &rest].concat())
}

/// A PNG in which single chunks are changed, missing or repeated, each of the length that it says.
fn edited_png() -> impl Strategy<Value = Vec<u8>> {
    let edit = (0..4_u8, any::<Index>(), any::<Index>(), any::<u8>());
    let png = select(vec![STILL_PNG.bytes, PALETTE_PNG.bytes, ANIMATED_PNG.bytes]);
    (png, proptest::collection::vec(edit, 0..6)).prop_map(|(png, edits)| {
        let (signature, mut rest) = png.split_at(8);
        let mut chunks = Vec::new();
        while let Some((length, behind)) = rest.split_first_chunk::<4>() {
            let (chunk, behind) = behind.split_at(4 + u32::from_be_bytes(*length) as usize);
            chunks.push(chunk.to_vec());
            rest = &behind[4..];
        }
        for (kind, which, at, byte) in edits {
            let which = which.index(chunks.len());
            match kind {
                0 if chunks.len() > 1 => drop(chunks.remove(which)),
                1 => chunks.insert(which, chunks[which].clone()),
                _ => {
                    let at = at.index(chunks[which].len());
                    chunks[which][at] = byte;
                }
            }
        }
        let mut bytes = signature.to_vec();
        for chunk in chunks {
            bytes.extend_from_slice(&(chunk.len() as u32 - 4).to_be_bytes());
            bytes.extend_from_slice(&chunk);
            bytes.extend_from_slice(b"\0\0\0\0");
        }
        bytes
    })
}

/// The state of a sniffer has a fixed size: it owns no memory but its own few bytes, whatever it reads.
const _: () = assert!(!std::mem::needs_drop::<Sniffer>() && size_of::<Sniffer>() <= 256);

/// An Exif block with this orientation behind other entries, in a directory so far behind the header.
fn exif(orientation: u16, is_big_endian: bool, others: u16, between: u32) -> Vec<u8> {
    let short = |value: u16| if is_big_endian { value.to_be_bytes() } else { value.to_le_bytes() };
    let long = |value: u32| if is_big_endian { value.to_be_bytes() } else { value.to_le_bytes() };
    let entry =
        |tag: u16, value: u16| [&short(tag)[..], &short(3), &long(1), &short(value), &[0, 0]].concat();
    let order: &[u8] = if is_big_endian { b"MM" } else { b"II" };
    let mut block = [order, &short(42), &long(8 + between)].concat();
    block.resize(block.len() + between as usize, 7);
    block.extend(short(others + 2));
    (0..others).for_each(|at| block.extend(entry(0x100 + at, 9)));
    block.extend(entry(0x112, orientation));
    block.extend(entry(0x9000, 5));
    block
}

fn jpeg_with(block: &[u8]) -> Vec<u8> {
    let length = u16::try_from(block.len() + 8).unwrap().to_be_bytes();
    let jpeg = BASELINE_JPG.bytes;
    [&jpeg[..2], &[0xFF, 0xE1], &length, b"Exif\0\0", block, &jpeg[2..]].concat()
}

fn png_with(block: &[u8], at: usize) -> Vec<u8> {
    let (length, png) = (u32::try_from(block.len()).unwrap().to_be_bytes(), STILL_PNG.bytes);
    [&png[..at], &length, b"eXIf", block, &[0; 4], &png[at..]].concat()
}

/// Its orientation, however its bytes are cut.
fn orientation_of(bytes: &[u8]) -> u8 {
    let with = |length: usize| {
        let mut sniffer = Sniffer::new(LIMITS);
        bytes.chunks(length).for_each(|chunk| sniffer.push(chunk).unwrap());
        let orientation = sniffer.orientation();
        sniffer.finish().unwrap();
        orientation
    };
    let whole = with(bytes.len());
    assert!((1..40).all(|length| with(length) == whole));
    whole
}

#[test]
fn a_picture_is_turned_as_its_first_exif_block_says() {
    for orientation in 0..=9 {
        for (is_big_endian, others, between) in [(true, 0, 0), (false, 0, 0), (true, 5, 30), (false, 17, 1)] {
            let block = exif(orientation, is_big_endian, others, between);
            let wanted = u8::try_from(orientation).unwrap();
            let wanted = if (1..=8).contains(&wanted) { wanted } else { 1 };
            assert_eq!(orientation_of(&jpeg_with(&block)), wanted, "{orientation}");
            assert_eq!(orientation_of(&png_with(&block, 33)), wanted, "{orientation}");
        }
    }
    let (upright, turned) = (exif(1, true, 0, 0), exif(6, true, 0, 0));
    let two = jpeg_with(&turned);
    let length = u16::try_from(upright.len() + 8).unwrap().to_be_bytes();
    let two = [&two[..2], &[0xFF, 0xE1], &length, b"Exif\0\0", &upright, &two[2..]].concat();
    assert_eq!(orientation_of(&two), 1);
    // An empty block before it is none, and any byte may fill up behind the name.
    let empty = [&two[..2], b"\xFF\xE1\0\x08Exif\0\0", &jpeg_with(&turned)[2..]].concat();
    assert_eq!(orientation_of(&empty), 6);
    let mut filled = jpeg_with(&turned);
    assert_eq!(&filled[6..12], b"Exif\0\0");
    filled[11] = b'x';
    assert_eq!(orientation_of(&filled), 6);
    // Browsers do not look behind the pixels of a PNG, nor at a WebP's block.
    assert_eq!(orientation_of(&png_with(&turned, STILL_PNG.bytes.len() - 12)), 1);
    for fixture in FIXTURES {
        assert_eq!(orientation_of(fixture.bytes), 1, "{}", fixture.name);
    }
    // A block that is cut, or none, is passed over.
    for length in 0..turned.len() {
        let cut = &turned[..length];
        let wanted = if length < 22 { 1 } else { 6 };
        assert_eq!(orientation_of(&jpeg_with(cut)), wanted, "{length}");
        assert_eq!(orientation_of(&png_with(cut, 33)), wanted, "{length}");
    }
    for (at, bytes) in
        [(0, &b"XX"[..]), (2, &[0, 43]), (4, &[0, 0, 0, 7]), (4, &[255; 4]), (8, &[0, 0]), (12, &[0, 4])]
    {
        assert_eq!(orientation_of(&jpeg_with(&patched(&turned, at, bytes))), 1, "{at}");
    }
    // One that makes no sense is passed over: a value of none, a count that is not one.
    for (at, bytes) in [(18, &[0, 9][..]), (18, &[0, 0]), (14, &[0, 0, 0, 2])] {
        assert_eq!(orientation_of(&jpeg_with(&patched(&turned, at, bytes))), 1, "{at}");
    }
    let image = Image { format: Format::Png, width: 7, height: 5 };
    assert!((0..5).chain(9..12).all(|orientation| image.shown(orientation) == image));
    assert!(
        (5..9).all(|orientation| (image.shown(orientation).width, image.shown(orientation).height) == (5, 7))
    );
}

proptest! {
    #[test]
    fn how_bytes_are_cut_into_chunks_changes_nothing(
        bytes in prop_oneof![mutated(), edited_png(), behind_a_signature()],
        cuts in proptest::collection::vec(any::<Index>(), 0..12),
    ) {
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        cuts.extend([0, bytes.len()]);
        cuts.sort_unstable();
        let whole = sniff(&bytes, LIMITS);
        let chunks = cuts.windows(2).map(|pair| &bytes[pair[0]..pair[1]]);
        prop_assert_eq!(in_chunks(chunks), whole);
        prop_assert_eq!(in_chunks(bytes.chunks(1)), whole);
    }

    #[test]
    fn what_is_done_again_and_again_is_counted_and_bounded(
        format in select(&Format::ALL[..]),
        times in 1..300_usize,
        max_pixels in 4..16_u64,
        length in 1..100_usize,
    ) {
        let (bytes, allowed) = repeated(format, times);
        let mut sniffer = Sniffer::new(Limits { max_pixels });
        let pushed = bytes.chunks(length).try_for_each(|chunk| sniffer.push(chunk));
        let sniffed = pushed.and_then(|()| sniffer.finish());
        let most = allowed * max_pixels;
        if times as u64 * 4 <= most {
            prop_assert_eq!(sniffed, Ok(Image { format, width: 2, height: 2 }));
        } else {
            let product = if format == Format::Jpeg { "scans x pixels" } else { "frames x pixels" };
            let got = (most / 4 + 1) * 4;
            prop_assert_eq!(sniffed, Err(SniffError::TooMuchWork { format, product, most, got }));
        }
    }

    #[test]
    fn arbitrary_bytes_are_never_an_image_and_never_a_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..400),
    ) {
        prop_assert!(sniff(&bytes, LIMITS).is_err());
    }

    #[test]
    fn what_a_beginning_has_decided_the_rest_does_not_change(
        bytes in prop_oneof![mutated(), edited_png(), behind_a_signature()],
        cut in any::<Index>(),
    ) {
        // An error of a beginning, other than being too short, is also that of the whole. A picture stays what it is, but
        // more of it may be cut off or too much.
        let (beginning, whole) = (sniff(&bytes[..cut.index(bytes.len() + 1)], LIMITS), sniff(&bytes, LIMITS));
        match (beginning, whole) {
            (Err(SniffError::Empty | SniffError::Truncated { .. }), _)
            | (Ok(_), Err(SniffError::Truncated { format: Format::Png } | SniffError::TooMuchWork { .. })) => {}
            (decided, whole) => prop_assert_eq!(whole, decided),
        }
    }
}
