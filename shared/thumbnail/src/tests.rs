#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use image::{GenericImageView as _, Rgb, Rgba};
use testkit::samples;

use super::*;

const MAX_PIXELS: u64 = 4 << 20;

fn decoded(thumbnail: &Thumbnail) -> DynamicImage {
    let sniffed = sniff::sniff(&thumbnail.bytes, sniff::Limits { max_pixels: MAX_PIXELS }).unwrap();
    assert_eq!(
        sniffed,
        sniff::Image { format: thumbnail.format, width: thumbnail.width, height: thumbnail.height }
    );
    image::load_from_memory(&thumbnail.bytes).unwrap()
}

fn encoded(image: &DynamicImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    image.write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

/// Left half red, right half blue, the lower right quarter green.
fn quarters(width: u32, height: u32) -> DynamicImage {
    RgbImage::from_fn(width, height, |x, y| match (x < width / 2, y < height / 2) {
        (true, _) => Rgb([250, 0, 0]),
        (false, true) => Rgb([0, 0, 250]),
        (false, false) => Rgb([0, 250, 0]),
    })
    .into()
}

/// The largest channel of the pixel in the middle of each quarter: upper left, upper right, lower left, lower
/// right.
fn colours(image: &DynamicImage) -> String {
    let (width, height) = image.dimensions();
    let at = |x, y| {
        let [red, green, blue, _] = image.get_pixel(width * x / 4, height * y / 4).0;
        let most = red.max(green).max(blue);
        if red == most {
            'r'
        } else if green == most {
            'g'
        } else {
            'b'
        }
    };
    [at(1, 1), at(3, 1), at(1, 3), at(3, 3)].iter().collect()
}

#[test]
fn every_sample_becomes_a_small_jpeg_of_the_same_shape() {
    for sample in samples::all() {
        let format = Format::from_content_type(sample.content_type).unwrap();
        for width in [160, 320] {
            let thumbnail = make(sample.bytes, format, width, MAX_PIXELS).unwrap().unwrap();
            assert_eq!((thumbnail.format, thumbnail.width), (Format::Jpeg, width), "{}", sample.name);
            assert_eq!(thumbnail.height, (sample.height * width + sample.width / 2) / sample.width);
            assert!(thumbnail.bytes.len() < sample.bytes.len() / 2, "{}", sample.name);
            decoded(&thumbnail);
        }
        assert_eq!(make(sample.bytes, format, sample.width, MAX_PIXELS).unwrap(), None, "{}", sample.name);
    }
}

#[test]
fn all_formats_are_read_and_keep_their_colours() {
    let image = quarters(800, 600);
    for (format, encoded_as) in [
        (Format::Png, ImageFormat::Png),
        (Format::Jpeg, ImageFormat::Jpeg),
        (Format::Gif, ImageFormat::Gif),
        (Format::Webp, ImageFormat::WebP),
    ] {
        for width in [10, 160, 790] {
            let bytes = encoded(&image, encoded_as);
            let thumbnail = make(&bytes, format, width, MAX_PIXELS).unwrap().unwrap();
            assert_eq!(colours(&decoded(&thumbnail)), "rbrg", "{format} {width}");
        }
    }
}

#[test]
fn what_shows_through_stays_so_and_no_colour_comes_out_of_it() {
    // Opaque green in the middle of transparent red.
    let image = RgbaImage::from_fn(900, 900, |x, y| {
        let inside = (300..600).contains(&x) && (300..600).contains(&y);
        if inside { Rgba([0, 200, 0, 255]) } else { Rgba([255, 0, 0, 0]) }
    });
    for width in [160, 640] {
        let bytes = encoded(&image.clone().into(), ImageFormat::Png);
        let thumbnail = make(&bytes, Format::Png, width, MAX_PIXELS).unwrap().unwrap();
        assert_eq!(thumbnail.format, Format::Png);
        let small = decoded(&thumbnail).into_rgba8();
        assert_eq!(small.get_pixel(0, 0).0[3], 0);
        assert_eq!(small.get_pixel(width / 2, width / 2).0, [0, 200, 0, 255]);
        assert!(small.pixels().all(|pixel| pixel.0[3] == 0 || pixel.0[0] < 10), "{width}: red at the edge");
    }
    // An alpha channel in which nothing shows through needs no PNG.
    let opaque = RgbaImage::from_pixel(900, 900, Rgba([1, 2, 3, 255]));
    let bytes = encoded(&opaque.into(), ImageFormat::Png);
    assert_eq!(make(&bytes, Format::Png, 160, MAX_PIXELS).unwrap().unwrap().format, Format::Jpeg);
}

/// A JPEG with an Exif block that says nothing but this orientation.
fn oriented(image: &DynamicImage, orientation: u8) -> Vec<u8> {
    let jpeg = encoded(image, ImageFormat::Jpeg);
    let mut exif = b"Exif\0\0MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0".to_vec();
    exif.extend([orientation, 0, 0, 0, 0, 0, 0]);
    let length = u16::try_from(exif.len() + 2).unwrap().to_be_bytes();
    [&jpeg[..2], &[0xff, 0xe1], &length, &exif, &jpeg[2..]].concat()
}

#[test]
fn it_stands_as_the_camera_was_held() {
    let image = quarters(800, 600);
    for (orientation, colours_then, is_turned) in [
        (1, "rbrg", false),
        (2, "brgr", false),
        (3, "grbr", false),
        (4, "rgrb", false),
        (5, "rrbg", true),
        (6, "rrgb", true),
        (7, "gbrr", true),
        (8, "bgrr", true),
    ] {
        let bytes = oriented(&image, orientation);
        let thumbnail = make(&bytes, Format::Jpeg, 160, MAX_PIXELS).unwrap().unwrap();
        let height = if is_turned { 213 } else { 120 };
        assert_eq!((thumbnail.width, thumbnail.height), (160, height), "{orientation}");
        assert_eq!(colours(&decoded(&thumbnail)), colours_then, "{orientation}");
        // Whether it is wide enough to be made narrower counts as it is seen.
        assert_eq!(
            make(&bytes, Format::Jpeg, 700, MAX_PIXELS).unwrap().is_none(),
            is_turned,
            "{orientation}"
        );
    }
}

#[test]
fn shapes_at_the_edge_have_at_least_one_pixel_and_their_height() {
    for (width, height, small) in [(5000, 1, (160, 1)), (200, 3000, (160, 2400)), (161, 1, (160, 1))] {
        let bytes = encoded(&quarters(width, height), ImageFormat::Png);
        let thumbnail = make(&bytes, Format::Png, 160, MAX_PIXELS).unwrap().unwrap();
        assert_eq!((thumbnail.width, thumbnail.height), small);
        decoded(&thumbnail);
    }
}

#[test]
fn what_can_not_be_decoded_is_said_to_be_so() {
    let rocket = samples::rocket().bytes;
    for (bytes, format) in [(&rocket[..200], Format::Jpeg), (rocket, Format::Png), (&[][..], Format::Webp)] {
        let error = make(bytes, format, 160, MAX_PIXELS).unwrap_err().to_string();
        assert!(error.starts_with(&format!("the pixels of the {format} image")), "{error}");
    }
    // More pixels than were said are not decoded, nor pixels of more bytes.
    assert!(make(samples::retina().bytes, Format::Jpeg, 160, 1000).is_err());
    let deep = encoded(&DynamicImage::new_rgba16(200, 200), ImageFormat::Png);
    assert!(make(&deep, Format::Png, 160, 200 * 200).is_err());
    assert!(make(&deep, Format::Png, 160, 3 * 200 * 200).unwrap().is_some());
}

#[test]
fn a_colour_profile_goes_along_if_it_is_for_what_is_written() {
    let mut profile = vec![7; 500];
    profile[16..20].copy_from_slice(b"RGB ");
    let with_profile = |profile: Vec<u8>| {
        let mut bytes = Vec::new();
        let mut encoder = JpegEncoder::new(&mut bytes);
        encoder.set_icc_profile(profile).unwrap();
        quarters(400, 400).write_with_encoder(encoder).unwrap();
        let thumbnail = make(&bytes, Format::Jpeg, 160, MAX_PIXELS).unwrap().unwrap();
        let mut decoder =
            ImageReader::with_format(Cursor::new(thumbnail.bytes), ImageFormat::Jpeg).into_decoder().unwrap();
        decoder.icc_profile().unwrap()
    };
    assert_eq!(with_profile(profile.clone()), Some(profile.clone()));
    profile[16..20].copy_from_slice(b"CMYK");
    assert_eq!(with_profile(profile), None);
}
