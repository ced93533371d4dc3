#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::Cursor;

use image::ImageEncoder as _;
use image::codecs::jpeg::JpegEncoder;
use image::{GenericImageView as _, ImageFormat, Rgb, Rgba};
use testkit::{costly, samples};

use super::*;

const MAX_PIXELS: u64 = 4 << 20;

fn make(bytes: &[u8], format: Format, width: u32, max_pixels: u64) -> Result<Option<Thumbnail>, DecodeError> {
    Picture::look(bytes, format, Limits { max_pixels })?.rendition(width)
}

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
        // The width that counts is that of the picture as it is seen, turned upright.
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
    // More pixels than were said are not decoded.
    assert!(make(samples::retina().bytes, Format::Jpeg, 160, 1000).is_err());
    let deep = encoded(&DynamicImage::new_rgba16(200, 200), ImageFormat::Png);
    assert!(make(&deep, Format::Png, 160, 200 * 200).unwrap().is_some());
}

/// The time that this thread has taken of a processor.
fn computing<T>(what: impl FnOnce() -> T) -> (T, Duration) {
    let now = || {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        Duration::new(now.tv_sec.try_into().unwrap(), now.tv_nsec.try_into().unwrap())
    };
    let start = now();
    let result = what();
    (result, now() - start)
}

const LARGEST: Limits = Limits { max_pixels: 100_000_000 };

#[test]
fn what_is_said_about_a_picture_is_inflated_to_four_megabytes_at_most() {
    for chunk in [
        costly::profile(800_000_000),
        costly::compressed_text(800_000_000),
        costly::international_text(800_000_000),
    ] {
        let png = costly::png_with(std::slice::from_ref(&chunk));
        assert!(png.len() < 900_000, "{}", png.len());
        let picture = Picture::look(&png, Format::Png, LARGEST).unwrap();
        assert!(picture.memory(160) < 40 << 20, "{}", picture.memory(160));
        let (made, took) = computing(|| picture.rendition(160));
        assert_eq!(made.unwrap().unwrap().width, 160);
        assert!(took < Duration::from_secs(1), "{took:?} for {:?}", &chunk[4..8]);
    }
}

#[test]
fn more_scans_than_are_stored_are_not_decoded_either() {
    let jpeg = costly::jpeg_of_scans(10_000, 10_000, 101);
    assert!(jpeg.len() < 600_000, "{}", jpeg.len());
    let (refused, took) = computing(|| Picture::look(&jpeg, Format::Jpeg, LARGEST).unwrap_err());
    assert!(refused.to_string().contains("at most 1600000000, got 1700000000"), "{refused}");
    assert!(took < Duration::from_millis(500), "{took:?}");
    // As many as are allowed are decoded.
    let jpeg = costly::jpeg_of_scans(1000, 1000, 16);
    let limits = Limits { max_pixels: 1_000_000 };
    let made = Picture::look(&jpeg, Format::Jpeg, limits).unwrap().rendition(160).unwrap().unwrap();
    assert_eq!((made.width, made.height), (160, 160));
}

#[test]
fn segments_that_nobody_needs_cost_nothing() {
    let extension = [b"http://ns.adobe.com/xmp/extension/\0", &[b'0'; 32][..], &[0; 8]].concat();
    let [comment, exif]: [&[u8]; 2] = [b"x", b"Exif\0\0MM\0\x2a\0\0\0\x08\0\0"];
    for (code, content) in
        [(0xE1, &extension[..]), (0xFE, comment), (0xE1, exif), (0xE2, b"ICC_PROFILE\0\x01\x01")]
    {
        let jpeg = costly::jpeg_with_segments(samples::rocket().bytes, code, content, 100_000);
        let (made, took) = computing(|| make(&jpeg, Format::Jpeg, 160, MAX_PIXELS));
        assert_eq!(made.unwrap().unwrap().width, 160);
        assert!(took < Duration::from_secs(2), "{took:?} for {code:X}");
    }
}

#[test]
fn what_takes_too_long_is_given_up() {
    let png = costly::png_of_empty_blocks(200_000);
    let picture = Picture::look(&png, Format::Png, LARGEST).unwrap();
    let (given_up, took) =
        computing(|| picture.rendition_within(160, Duration::from_millis(50)).unwrap_err());
    assert!(given_up.to_string().contains("of computing"), "{given_up}");
    assert!(took < Duration::from_millis(500), "{took:?}");
    // With enough time, the decoder finds that there are no pixels.
    let incomplete = make(&png, Format::Png, 160, MAX_PIXELS).unwrap_err();
    assert!(!incomplete.to_string().contains("of computing"), "{incomplete}");
}

#[test]
fn a_rendition_is_no_higher_than_its_format_allows() {
    let png = costly::black_png(170, 80_000, 8, 0, false);
    let (refused, took) = computing(|| make(&png, Format::Png, 160, 20_000_000).unwrap_err());
    assert!(refused.to_string().contains("75294 pixels high"), "{refused}");
    assert!(took < Duration::from_millis(500), "{took:?}");
}

#[test]
fn the_codes_of_a_lossless_webp_count_as_what_they_take() {
    let few = costly::webp_of_groups(3);
    let picture = Picture::look(&few, Format::Webp, LARGEST).unwrap();
    assert!(picture.memory(160) < 20 << 20, "{}", picture.memory(160));
    assert_eq!(picture.rendition(160).unwrap().unwrap().width, 160);
    let many = costly::webp_of_groups(30_000);
    assert!(many.len() < 4 << 20, "{}", many.len());
    let (picture, took) = computing(|| Picture::look(&many, Format::Webp, LARGEST).unwrap());
    assert!(picture.memory(160) > 600_000_000, "{}", picture.memory(160));
    println!("{} bytes, of which the codes take {} bytes; seen in {took:?}", many.len(), picture.memory(160));
}

#[test]
fn every_lossless_webp_that_is_decoded_is_measured() {
    let photographs = samples::all().into_iter().map(|sample| image::load_from_memory(sample.bytes).unwrap());
    let seen_through = RgbaImage::from_fn(300, 200, |x, y| Rgba([x as u8, y as u8, 7, (x ^ y) as u8]));
    for image in photographs.chain([quarters(400, 300), DynamicImage::ImageRgba8(seen_through)]) {
        let bytes = encoded(&image, ImageFormat::WebP);
        let picture = Picture::look(&bytes, Format::Webp, LARGEST).unwrap();
        assert!(picture.rendition(160).unwrap().is_some());
    }
}

/// A PNG with further chunks behind its header.
fn png_with(image: &DynamicImage, chunks: &[(&[u8; 4], &[u8])]) -> Vec<u8> {
    let png = encoded(image, ImageFormat::Png);
    let chunks = chunks.iter().flat_map(|(kind, content)| costly::chunk(kind, content));
    [&png[..33], &chunks.collect::<Vec<u8>>(), &png[33..]].concat()
}

fn jpeg_with(image: &DynamicImage, profile: Option<Vec<u8>>) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = JpegEncoder::new_with_quality(&mut bytes, 100);
    if let Some(profile) = profile {
        encoder.set_icc_profile(profile).unwrap();
    }
    image.write_with_encoder(encoder).unwrap();
    bytes
}

/// The colour in the middle of the rendition of a picture of one colour.
/// A simple WebP, with a profile if there is one.
fn webp_with(simple: &[u8], profile: Option<Vec<u8>>) -> Vec<u8> {
    let Some(mut profile) = profile else { return simple.to_vec() };
    let image = sniff::sniff(simple, LARGEST).unwrap();
    let length = u32::try_from(profile.len()).unwrap().to_le_bytes();
    profile.resize(profile.len().next_multiple_of(2), 0);
    let side = |side: u32| (side - 1).to_le_bytes();
    let (width, height) = (side(image.width), side(image.height));
    let canvas = [b"VP8X\x0A\0\0\0\x20\0\0\0", &width[..3], &height[..3]].concat();
    let chunks = [&canvas, &b"ICCP"[..], &length, &profile, &simple[12..]].concat();
    let size = u32::try_from(chunks.len() + 4).unwrap().to_le_bytes();
    [b"RIFF", &size[..], b"WEBP", &chunks].concat()
}

fn middle(bytes: &[u8], format: Format) -> [i32; 3] {
    let thumbnail = make(bytes, format, 160, MAX_PIXELS).unwrap().unwrap();
    let small = decoded(&thumbnail);
    let [red, green, blue, _] = small.get_pixel(small.width() / 2, small.height() / 2).0;
    [red, green, blue].map(i32::from)
}

fn is_near(found: [i32; 3], wanted: [i32; 3]) -> bool {
    found.iter().zip(wanted).all(|(found, wanted)| (found - wanted).abs() <= 3)
}

const ORANGE: [u8; 3] = [200, 100, 50];

/// The colours are those of Chromium.
#[test]
fn colours_are_those_that_browsers_show() {
    let orange: DynamicImage = RgbImage::from_pixel(400, 300, Rgb(ORANGE)).into();
    let grey: DynamicImage = GrayImage::from_pixel(400, 300, image::Luma([120])).into();
    let middling: DynamicImage = RgbImage::from_pixel(400, 300, Rgb([128; 3])).into();
    let see_through: DynamicImage = RgbaImage::from_pixel(400, 300, Rgba([200, 100, 50, 128])).into();
    let p3 = ColorProfile::new_display_p3().encode().unwrap();
    let adobe = ColorProfile::new_adobe_rgb().encode().unwrap();
    let linear_grey = ColorProfile::new_gray_with_gamma(1.0).encode().unwrap();
    for (what, jpeg, wanted) in [
        ("nothing", jpeg_with(&orange, None), [200, 100, 50]),
        ("Display P3", jpeg_with(&orange, Some(p3.clone())), [215, 93, 31]),
        ("Adobe RGB", jpeg_with(&orange, Some(adobe.clone())), [227, 100, 42]),
        ("linear grey", jpeg_with(&grey, Some(linear_grey.clone())), [183, 183, 183]),
        ("grey, Adobe RGB", jpeg_with(&grey, Some(adobe)), [121, 121, 121]),
        ("a profile for grey", jpeg_with(&orange, Some(linear_grey)), [200, 100, 50]),
        ("a profile that is none", jpeg_with(&orange, Some(vec![7; 500])), [200, 100, 50]),
    ] {
        let found = middle(&jpeg, Format::Jpeg);
        assert!(is_near(found, wanted), "{what}: {found:?}");
        let thumbnail = make(&jpeg, Format::Jpeg, 160, MAX_PIXELS).unwrap().unwrap();
        assert!(!thumbnail.bytes.windows(11).any(|bytes| bytes == b"ICC_PROFILE"), "{what}");
    }
    // A lossy WebP: its pixels as a JPEG, each without and with the profile.
    let lossy = include_bytes!("../tests/filtered.webp");
    let pixels = image::load_from_memory(lossy).unwrap();
    let mut means = Vec::new();
    for profile in [None, Some(p3)] {
        let files =
            [(jpeg_with(&pixels, profile.clone()), Format::Jpeg), (webp_with(lossy, profile), Format::Webp)];
        means.push(files.map(|(bytes, format)| {
            let made = decoded(&make(&bytes, format, 160, MAX_PIXELS).unwrap().unwrap()).into_rgb8();
            let mean = |channel: usize| made.pixels().map(|pixel| u64::from(pixel.0[channel])).sum::<u64>();
            [0, 1, 2]
                .map(|channel| (mean(channel) / u64::from(made.width() * made.height())).cast_signed() as i32)
        }));
    }
    assert!(is_near(means[0][1], means[0][0]) && is_near(means[1][1], means[1][0]), "{means:?}");
    assert!(!is_near(means[0][1], means[1][1]), "{means:?}");

    let gamma = |value: u32| value.to_be_bytes();
    let chromaticities = |values: [u32; 8]| values.map(u32::to_be_bytes).concat();
    let of_p3 = chromaticities([31_270, 32_900, 68_000, 32_000, 26_500, 69_000, 15_000, 6000]);
    let (one, usual) = (gamma(100_000), gamma(45_455));
    for (what, image, chunks, wanted) in [
        ("gamma", &orange, &[(b"gAMA", &one[..])][..], [229, 168, 122]),
        ("gamma of grey", &grey, &[(b"gAMA", &one)], [183, 183, 183]),
        ("gamma and P3", &orange, &[(b"gAMA", &usual), (b"cHRM", &of_p3)], [216, 93, 24]),
        ("chromaticities alone", &orange, &[(b"cHRM", &of_p3)], [200, 100, 50]),
        ("sRGB above gamma", &orange, &[(b"sRGB", &[0]), (b"gAMA", &one)], [200, 100, 50]),
        ("P3 by code points", &orange, &[(b"cICP", &[12, 13, 0, 1])], [215, 93, 31]),
        ("BT.2020 by code points", &orange, &[(b"cICP", &[9, 1, 0, 1])], [239, 63, 5]),
        (
            "linear by code points, above gamma",
            &orange,
            &[(b"cICP", &[1, 8, 0, 1]), (b"gAMA", &usual)],
            [229, 168, 122],
        ),
        ("PQ", &middling, &[(b"cICP", &[9, 16, 0, 1])], [132, 132, 132]),
        ("HLG", &middling, &[(b"cICP", &[9, 18, 0, 1])], [99, 99, 99]),
        ("code points that say nothing", &orange, &[(b"cICP", &[2, 2, 0, 1])], [200, 100, 50]),
    ] {
        let found = middle(&png_with(image, chunks), Format::Png);
        assert!(is_near(found, wanted), "{what}: {found:?}");
    }
    // What shows through keeps its opacity.
    let png = png_with(&see_through, &[(b"gAMA", &one)]);
    let thumbnail = make(&png, Format::Png, 160, MAX_PIXELS).unwrap().unwrap();
    assert_eq!(decoded(&thumbnail).get_pixel(80, 60).0, [229, 168, 122, 128]);
}

#[test]
fn what_cameras_and_editors_leave_out_or_say_twice_is_no_obstacle() {
    let jpeg = encoded(&quarters(400, 240), ImageFormat::Jpeg);
    let segment = |code: u8| jpeg.windows(2).position(|bytes| bytes == [0xFF, code]).unwrap();
    let length = |at: usize| 2 + usize::from(u16::from_be_bytes([jpeg[at + 2], jpeg[at + 3]]));
    // One number for all components, in frame and scan.
    let mut alike = jpeg.clone();
    for component in 0..3 {
        alike[segment(0xC0) + 10 + 3 * component] = 1;
        alike[segment(0xDA) + 5 + 2 * component] = 1;
    }
    // The encoder writes the tables of the standard, so leaving them out changes nothing.
    let mut bare = jpeg.clone();
    while let Some(at) = bare.windows(2).position(|bytes| bytes == [0xFF, 0xC4]) {
        let end = at + 2 + usize::from(u16::from_be_bytes([bare[at + 2], bare[at + 3]]));
        bare.drain(at..end);
    }
    assert!(bare.len() + 400 < jpeg.len());
    // The height, once more, behind the scan.
    let repeated = [&jpeg[..jpeg.len() - 2], &[0xFF, 0xDC, 0, 4, 0, 240, 0xFF, 0xD9]].concat();
    for (what, bytes) in [("alike", alike), ("bare", bare), ("repeated", repeated)] {
        let thumbnail = make(&bytes, Format::Jpeg, 160, MAX_PIXELS).unwrap().unwrap();
        assert_eq!((thumbnail.height, &*colours(&decoded(&thumbnail))), (96, "rbrg"), "{what}");
    }
    assert!(length(segment(0xDA)) > 8);
    // Adobe's segment says something about inks, where there are none.
    for transform in [0, 2] {
        let adobe = [&jpeg[..2], b"\xFF\xEE\0\x0EAdobe\0\x64\0\0\0\0", &[transform], &jpeg[2..]].concat();
        let thumbnail = make(&adobe, Format::Jpeg, 160, MAX_PIXELS).unwrap().unwrap();
        assert_eq!(thumbnail.height, 96, "{transform}");
    }

    // A GIF whose screen is smaller than its frame, or nothing.
    let gif = encoded(&quarters(400, 240), ImageFormat::Gif);
    for screen in [[0, 0, 0, 0], [100, 0, 50, 0], [0x90, 1, 0xF0, 0]] {
        let gif = [&gif[..6], &screen[..], &gif[10..]].concat();
        let thumbnail = make(&gif, Format::Gif, 160, MAX_PIXELS).unwrap().unwrap();
        assert_eq!((thumbnail.height, &*colours(&decoded(&thumbnail))), (96, "rbrg"), "{screen:?}");
    }

    // A WebP that promises what is not there, and one whose Exif block browsers do not look at.
    let webp = encoded(&quarters(400, 240), ImageFormat::WebP);
    let size = [143, 1, 0, 239, 0, 0];
    let extended = |flags: u8, behind: &[u8]| {
        let header = [&b"VP8X\x0a\0\0\0"[..], &[flags, 0, 0, 0], &size].concat();
        let body = [b"WEBP", &header[..], &webp[12..], behind].concat();
        [b"RIFF", &u32::try_from(body.len()).unwrap().to_le_bytes()[..], &body].concat()
    };
    let extended_with = |flags: u8, before: &[u8]| {
        let header = [&b"VP8X\x0a\0\0\0"[..], &[flags, 0, 0, 0], &size].concat();
        let body = [b"WEBP", &header[..], before, &webp[12..]].concat();
        [b"RIFF", &u32::try_from(body.len()).unwrap().to_le_bytes()[..], &body].concat()
    };
    let turned = b"EXIF\x1a\0\0\0MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0";
    for (what, webp) in [("promised", extended(0x2C, &[])), ("turned", extended(0x08, turned))] {
        let thumbnail = make(&webp, Format::Webp, 160, MAX_PIXELS).unwrap().unwrap();
        assert_eq!((thumbnail.height, &*colours(&decoded(&thumbnail))), (96, "rbrg"), "{what}");
    }
    // A profile that no flag announces, which would exchange two colours.
    let mut swapped = ColorProfile::new_srgb();
    std::mem::swap(&mut swapped.red_colorant, &mut swapped.blue_colorant);
    let swapped = swapped.encode().unwrap();
    let mut chunk = [b"ICCP", &u32::try_from(swapped.len()).unwrap().to_le_bytes()[..], &swapped].concat();
    chunk.resize(chunk.len().next_multiple_of(2), 0);
    for (flags, wanted) in [(0x20, "brbg"), (0, "rbrg")] {
        let thumbnail = make(&extended_with(flags, &chunk), Format::Webp, 160, MAX_PIXELS).unwrap().unwrap();
        assert_eq!(colours(&decoded(&thumbnail)), wanted, "{flags:x}");
    }
    // That of a PNG they do look at, unless it comes behind the pixels.
    let upright = png_with(&quarters(400, 240), &[(b"eXIf", &turned[8..])]);
    assert_eq!(make(&upright, Format::Png, 160, MAX_PIXELS).unwrap().unwrap().height, 267);
}

/// Four inks, as Adobe's programs write them: inverted, and perhaps as luma and chroma.
#[test]
fn inks_are_shown_as_browsers_do() {
    for (file, wanted) in [
        (&include_bytes!("../tests/inks.jpg")[..], [189, 101, 48]),
        (&include_bytes!("../tests/inks-as-luma.jpg")[..], [189, 101, 48]),
    ] {
        let found = middle(file, Format::Jpeg);
        assert!(is_near(found, wanted), "{found:?}");
    }
}

#[test]
fn colours_of_fine_stripes_are_mixed_evenly() {
    // Two colours of the same brightness, so that chroma alone tells them apart.
    for width in [320, 322, 480] {
        let stripes = image::RgbImage::from_fn(width, 200, |x, _| {
            if x / 2 % 2 == 0 { Rgb([200, 50, 90]) } else { Rgb([40, 120, 120]) }
        });
        let png = encoded(&stripes.into(), ImageFormat::Png);
        let thumbnail = make(&png, Format::Png, 160, MAX_PIXELS).unwrap().unwrap();
        let small = decoded(&thumbnail).into_rgb8();
        let mean = |channel: usize| {
            small.pixels().map(|pixel| f64::from(pixel.0[channel])).sum::<f64>()
                / f64::from(small.width() * small.height())
        };
        let error = [120.0, 85.0, 105.0].iter().enumerate().map(|(at, wanted)| (mean(at) - wanted).abs());
        assert!(error.fold(0.0, f64::max) < 3.0, "{width}: {} {} {}", mean(0), mean(1), mean(2));
    }
}

#[test]
fn gifs_and_webps_that_browsers_show_are_shown_as_they_do() {
    // Clear (4), two pixels of colour 0, and so on, 200 × 200; its palette has two colours.
    let whole = costly::gif_with_frame(200, 200);
    let shown = |gif: &[u8]| {
        let made = make(gif, Format::Gif, 160, MAX_PIXELS).unwrap().unwrap();
        let image = decoded(&made).into_rgba8();
        [image.get_pixel(80, 8).0, image.get_pixel(80, 150).0]
    };
    let near = |found: [u8; 4], wanted: [u8; 4]| found.iter().zip(wanted).all(|(a, b)| a.abs_diff(b) < 3);
    let [above, below] = shown(&whole);
    assert!(near(above, [9, 9, 9, 255]) && near(below, above));
    // Its data ends after a quarter: a block of none, and the end.
    let frame = whole.windows(2).position(|two| two == [b',', 0]).unwrap();
    let blocks = frame + 11;
    let block = 256;
    let cut = [&whole[..blocks + block * (whole.len() / block / 4)], &[0, b';']].concat();
    let [above, below] = shown(&cut);
    assert!(near(above, [9, 9, 9, 255]) && below[3] == 0, "{above:?} {below:?}");
    // A colour that no table has is black: without a palette, each is.
    let mut bare = whole.clone();
    bare[10] = 0;
    bare.drain(13..19);
    assert!(near(shown(&bare)[0], [0, 0, 0, 255]), "{:?}", shown(&bare));
    // A frame without pixels comes first.
    let empty =
        [&whole[..frame], &[b',', 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 1, 0x2C, 0], &whole[frame..]].concat();
    assert!(near(shown(&empty)[1], [9, 9, 9, 255]));

    // A lossy WebP that is said to show through, and does not, in both ways of decoding.
    let lossy = include_bytes!("../tests/filtered.webp");
    let mut said = webp_with(lossy, Some(vec![0; 4]));
    said[20] = 0x10;
    for width in [160, 320] {
        let one = make(&said, Format::Webp, width, MAX_PIXELS).unwrap().unwrap();
        let other = make(lossy, Format::Webp, width, MAX_PIXELS).unwrap().unwrap();
        assert!(one == other, "{width}");
    }
}
