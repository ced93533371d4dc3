#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
use std::time::Duration;

use super::*;
use crate::wanted::{Random, Wanted, difference};

/// 267 × 189 pixels of `samples/chelsea.png` by libwebp 1.2.4: four segments, four partitions, and no loop filter.
const UNFILTERED: &[u8] = include_bytes!("../../tests/unfiltered.webp");
/// 347 × 331 pixels of `samples/astronaut.png` by libwebp 1.2.4, as it usually codes: with a loop filter.
const FILTERED: &[u8] = include_bytes!("../../tests/filtered.webp");
/// Where the key frame begins in both.
const FRAME_AT: usize = 20;

fn decoded(frame: &[u8], width: u32) -> Result<Vec<u8>, Reason> {
    let vp8 = Vp8::new(frame).ok_or(Reason::Incomplete)?;
    let size = (width, crate::scaled(vp8.size.1, width, vp8.size.0));
    let mut wanted = Wanted::of(width);
    vp8.decode(size, &mut wanted, Clock::start(Duration::from_secs(10)))?;
    let (pixels, samples) = wanted.taken()?;
    assert_eq!(samples, Samples::Rgb);
    Ok(pixels)
}

/// Whole planes, padded to macroblocks.
fn planes(frame: &[u8]) -> [Vec<u8>; 3] {
    let mut decoder = Decoder::new(Frame::new(frame).unwrap());
    let mut planes = [vec![], vec![], vec![]];
    for _ in 0..decoder.count() {
        for (plane, pixels) in planes.iter_mut().zip(decoder.next()) {
            plane.extend_from_slice(pixels);
        }
    }
    planes
}

#[test]
fn pixels_are_those_of_another_decoder_byte_for_byte() {
    let data = &UNFILTERED[FRAME_AT..];
    let frame = Frame::new(data).unwrap();
    assert_eq!((frame.width, frame.height, frame.filter_level), (267, 189, 0));
    assert_eq!(frame.partitions.len(), 4);
    assert!(frame.segments.is_some());
    let other = image_webp::vp8::Vp8Decoder::decode_frame(data).unwrap();
    let [luma, blue, red] = planes(data);
    assert!(luma == other.ybuf);
    assert!(blue == other.ubuf);
    assert!(red == other.vbuf);
}

#[test]
fn a_rendition_is_near_that_of_all_pixels_with_the_loop_filter() {
    for webp in [FILTERED, UNFILTERED] {
        let (across, down) = header::size(&webp[FRAME_AT..]).unwrap();
        let whole = image::load_from_memory(webp).unwrap().into_rgb8();
        for width in [30, 100, 200] {
            let found = decoded(&webp[FRAME_AT..], width).unwrap();
            let mut rows = Rows::new(across, down, width, crate::scaled(down, width, across), Samples::Rgb);
            whole.chunks(across as usize * 3).for_each(|row| rows.push(row));
            let wanted = rows.finish();
            let difference = difference(&found, &wanted);
            assert!(difference < 1.5, "{width}: {difference}");
        }
    }
}

#[test]
fn what_is_damaged_ends_without_a_panic() {
    let mut random = Random(1);
    let mut decodable = 0;
    for round in 0..2_000 {
        let mut data = [UNFILTERED, FILTERED][round % 2][FRAME_AT..].to_vec();
        for _ in 0..=random.below(6) {
            // The header more often than what follows it. A size of 16,383 × 16,383 would take long.
            let at =
                [random.below(data.len() - 10) + 10, 10 + random.below(60), random.below(3)][random.below(3)];
            data[at] = random.below(256) as u8;
        }
        if random.below(3) == 0 {
            data.truncate(random.below(data.len()));
        }
        decodable += usize::from(decoded(&data, 50).is_ok());
    }
    assert!(decodable > 500, "{decodable}");
}

#[test]
fn a_frame_without_its_partitions_has_no_pixels() {
    let data = &UNFILTERED[FRAME_AT..];
    let first = u32::from_le_bytes([data[0], data[1], data[2], 0]) as usize >> 5;
    for length in [0, 9, 10, 10 + first - 1, 10 + first, 10 + first + 9] {
        decoded(&data[..length], 50).unwrap_err();
    }
    decoded(&data[..data.len() - 100], 50).unwrap();
    // Not a key frame.
    assert!(Vp8::new(&[&[data[0] | 1], &data[1..]].concat()).is_none());
}
