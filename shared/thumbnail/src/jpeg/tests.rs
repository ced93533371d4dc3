#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
use std::time::Duration;

use jpeg_encoder::{ColorType, Encoder, SamplingFactor};

use super::*;
use crate::colour::Samples;
use crate::scale::Rows;
use crate::wanted::{Random, Wanted, difference};

fn decoded(jpeg: &[u8], width: u32) -> Result<(Vec<u8>, Samples), Reason> {
    let mut wanted = Wanted::of(width);
    Jpeg::new(jpeg).decode(&mut wanted, Clock::start(Duration::from_secs(10)))?;
    wanted.taken()
}

/// The same from the pixels before they were coded.
fn expected(pixels: &[u8], (across, down): (u32, u32), samples: Samples, width: u32) -> Vec<u8> {
    let mut rows = Rows::new(across, down, width, crate::scaled(down, width, across), samples);
    pixels.chunks(across as usize * samples.channels()).for_each(|row| rows.push(row));
    rows.finish()
}

/// A part of a photograph.
fn photograph(across: u32, down: u32) -> image::RgbImage {
    let photograph = image::load_from_memory(testkit::samples::retina().bytes).unwrap();
    photograph.crop_imm(300, 300, across, down).into_rgb8()
}

fn encoded(picture: &image::RgbImage, with: impl Fn(&mut Encoder<&mut Vec<u8>>)) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = Encoder::new(&mut bytes, 90);
    with(&mut encoder);
    let (width, height) = (picture.width() as u16, picture.height() as u16);
    encoder.encode(picture, width, height, ColorType::Rgb).unwrap();
    bytes
}

#[test]
fn every_way_of_coding_gives_the_pixels_that_were_coded() {
    let samplings = [
        SamplingFactor::F_1_1,
        SamplingFactor::F_2_1,
        SamplingFactor::F_1_2,
        SamplingFactor::F_2_2,
        SamplingFactor::F_4_1,
        SamplingFactor::F_4_2,
        SamplingFactor::F_1_4,
        SamplingFactor::F_2_4,
    ];
    for (across, down) in [(611, 403), (640, 400), (17, 9)] {
        let picture = photograph(across, down);
        for sampling in samplings {
            for (is_progressive, restarts) in [(false, 0), (false, 7), (true, 0), (true, 5)] {
                let jpeg = encoded(&picture, |encoder| {
                    encoder.set_sampling_factor(sampling);
                    encoder.set_progressive(is_progressive);
                    encoder.set_restart_interval(restarts);
                    encoder.set_optimized_huffman_tables(restarts == 0);
                });
                for width in [16, 60, 100, 300, 600].into_iter().filter(|width| *width < across) {
                    let (found, samples) = decoded(&jpeg, width).unwrap();
                    assert_eq!(samples, Samples::Rgb);
                    let wanted = expected(&picture, (across, down), Samples::Rgb, width);
                    let error = difference(&found, &wanted);
                    let what = format!("{across} x {down} {sampling:?} {is_progressive} {restarts} {width}");
                    assert!(error < 1.5, "{what}: {error}");
                }
            }
        }
    }
}

#[test]
fn grey_is_one_component_whatever_its_sampling() {
    let grey = image::DynamicImage::from(photograph(611, 403)).into_luma8();
    let mut jpeg = Vec::new();
    Encoder::new(&mut jpeg, 90).encode(&grey, 611, 403, ColorType::Luma).unwrap();
    let at = jpeg.windows(2).position(|bytes| bytes == [0xFF, 0xC0]).unwrap();
    for sampling in [0x11, 0x22, 0x41] {
        jpeg[at + 11] = sampling;
        let (found, samples) = decoded(&jpeg, 100).unwrap();
        assert_eq!(samples, Samples::Grey);
        jpeg[at + 11] = 0x11;
        assert!(difference(&found, &expected(&grey, (611, 403), Samples::Grey, 100)) < 1.0);
    }
}

/// Where the restart markers of a picture are.
fn restarts(jpeg: &[u8]) -> Vec<usize> {
    jpeg.windows(2)
        .enumerate()
        .filter(|(_, two)| two[0] == 0xFF && two[1] & 0xF8 == 0xD0)
        .map(|(at, _)| at)
        .collect()
}

#[test]
fn lost_and_damaged_restarts_cost_no_more_than_their_part_of_the_picture() {
    // A restart for each row of units.
    let picture = photograph(640, 640);
    for is_progressive in [false, true] {
        let jpeg = encoded(&picture, |encoder| {
            encoder.set_sampling_factor(SamplingFactor::F_2_2);
            encoder.set_progressive(is_progressive);
            encoder.set_restart_interval(40);
        });
        let markers = restarts(&jpeg);
        let (whole, _) = decoded(&jpeg, 160).unwrap();
        let without = |at: usize, length: usize| [&jpeg[..at], &jpeg[at + length..]].concat();
        let (fifth, sixth) = (markers[4], markers[5]);
        let mut renumbered = jpeg.clone();
        renumbered[fifth + 1] = 0xD0 | (renumbered[fifth + 1] + 4) & 7;
        let mut overwritten = jpeg.clone();
        overwritten[fifth + 10..fifth + 14].fill(0x55);
        let many = [&jpeg[..fifth], &[0xFF, 0xFF, 0xFF, 0xFF], &jpeg[fifth..]].concat();
        for (what, damaged, harmed) in [
            ("a marker is missing", without(fifth, 2), 2..7),
            ("a marker and the data behind it are missing", without(fifth, sixth - fifth), 2..7),
            ("a marker has another number", renumbered, 2..7),
            ("some data is overwritten", overwritten, 2..7),
            ("bytes fill up before a marker", many, 0..0),
        ] {
            // The first scan of a progressive picture has blocks of one component only, 80 in a row.
            let harmed = if is_progressive && !harmed.is_empty() { 0..4 } else { harmed };
            let (found, _) = decoded(&damaged, 160).unwrap();
            // Of 40 rows of units, each is 4 rows of 160 pixels.
            let row = 3 * 160 * 4;
            for (at, (found, wanted)) in found.chunks(row).zip(whole.chunks(row)).enumerate() {
                let error = difference(found, wanted);
                assert!(error < 1.0 || harmed.contains(&at), "{is_progressive} {what}: {error} in row {at}");
            }
        }
    }
}

#[test]
fn what_ends_too_early_is_grey_from_there_on() {
    let jpeg = encoded(&photograph(640, 640), |_| ());
    let scan = jpeg.windows(2).position(|bytes| bytes == [0xFF, 0xDA]).unwrap();
    let (whole, _) = decoded(&jpeg, 160).unwrap();
    let (cut, _) = decoded(&jpeg[..scan + (jpeg.len() - scan) / 2], 160).unwrap();
    let quarter = whole.len() / 4;
    assert!(difference(&whole[..quarter], &cut[..quarter]) < 0.1);
    assert!(cut[3 * quarter..].iter().all(|value| *value == 128));
}

#[test]
fn damaged_pictures_are_decoded_or_refused() {
    let mut random = Random(1);
    let picture = photograph(97, 61);
    let mut decodable = 0;
    for round in 0..2000 {
        let mut jpeg = encoded(&picture, |encoder| {
            encoder.set_progressive(round % 2 == 1);
            encoder.set_restart_interval((round % 3 * 4) as u16);
        });
        for _ in 0..=random.below(4) {
            let at = random.below(jpeg.len());
            match random.below(3) {
                0 => jpeg[at] = random.below(256) as u8,
                1 => jpeg[at] ^= 1 << random.below(8),
                _ => jpeg.truncate(at.max(2)),
            }
        }
        // What is not limited here is by the pixels that a picture may have.
        let is_small = Jpeg::new(&jpeg).memory((20, 12)) < 64 << 20;
        decodable += usize::from(is_small && decoded(&jpeg, 20).is_ok());
    }
    assert!(decodable > 1000, "{decodable}");
}

#[test]
fn no_more_is_kept_of_a_progressive_picture_than_its_pixels_take() {
    let jpeg = encoded(&photograph(640, 640), |encoder| {
        encoder.set_sampling_factor(SamplingFactor::F_1_1);
        encoder.set_progressive(true);
    });
    let pixels = 640 * 640;
    for width in [40, 160, 600] {
        let memory = Jpeg::new(&jpeg).memory((width, width));
        assert!(memory < 4 * pixels + (2 << 20), "{width}: {memory}");
    }
}
