//! What a rendition takes of the memory, beside what was said before. One test, so that nothing else runs in this
//! process meanwhile.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::Cursor;

use image::codecs::jpeg::JpegEncoder;
use image::{DynamicImage, ImageFormat, RgbImage, RgbaImage};
use sniff::{Format, Limits};
use testkit::costly;
use thumbnail::Picture;

const LIMITS: Limits = Limits { max_pixels: 100_000_000 };
/// What the allocator and the test may keep beside it.
const SLACK: u64 = 8 << 20;

fn status(field: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}

/// How far the process grew beyond what it had.
fn growth<T>(what: impl FnOnce() -> T) -> (T, u64) {
    // The peak begins anew (proc(5), clear_refs).
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
    let before = status("VmRSS");
    let result = what();
    (result, status("VmHWM").saturating_sub(before))
}

fn encoded(image: &DynamicImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    image.write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

fn photograph(width: u32, height: u32) -> DynamicImage {
    RgbImage::from_fn(width, height, |x, y| image::Rgb([(x / 7) as u8, (y / 5) as u8, (x ^ y) as u8])).into()
}

/// A lossy WebP whose header says this size. What is missing of its data is read as zeros.
fn enlarged(width: u16, height: u16) -> Vec<u8> {
    let mut webp = include_bytes!("unfiltered.webp").to_vec();
    // Behind the head of the file, that of the chunk, and six bytes of the frame.
    webp[26..28].copy_from_slice(&width.to_le_bytes());
    webp[28..30].copy_from_slice(&height.to_le_bytes());
    webp
}

#[test]
fn a_rendition_takes_the_memory_that_was_said_and_that_goes_with_its_own_picture() {
    let photo = photograph(4000, 3000);
    let mut seen_through = RgbaImage::from_pixel(4000, 3000, image::Rgba([1, 2, 3, 100]));
    seen_through.put_pixel(5, 5, image::Rgba([1, 2, 3, 4]));
    let mut jpeg = Vec::new();
    photo.write_with_encoder(JpegEncoder::new_with_quality(&mut jpeg, 85)).unwrap();
    let extension = [b"http://ns.adobe.com/xmp/extension/\0", &[b'0'; 32][..], &[0; 8]].concat();
    let noted = costly::jpeg_with_segments(&jpeg, 0xE1, &extension, 100_000);
    let part = [b"ICC_PROFILE\0\x01\xfe", &[0; 60_000][..]].concat();
    let parts = costly::jpeg_with_segments(&jpeg, 0xE2, &part, 250);
    let mut wide = Vec::new();
    photograph(65_000, 1500).write_with_encoder(JpegEncoder::new_with_quality(&mut wide, 20)).unwrap();
    for (what, format, bytes, most_a_pixel) in [
        ("PNG of 24 bits", Format::Png, costly::black_png(5000, 5000, 8, 2, false), 1.0),
        ("PNG of 64 bits", Format::Png, costly::black_png(5000, 5000, 16, 6, false), 1.0),
        ("PNG of 24 bits, interlaced", Format::Png, costly::black_png(5000, 5000, 8, 2, true), 4.5),
        ("PNG of 64 bits, interlaced", Format::Png, costly::black_png(3000, 3000, 16, 6, true), 4.5),
        ("PNG that is high", Format::Png, costly::black_png(400, 60_000, 8, 2, false), 8.0),
        ("PNG that is wide", Format::Png, costly::black_png(2_000_000, 12, 8, 2, false), 12.0),
        ("PNG with a profile", Format::Png, costly::png_with(&[costly::profile(800_000_000)]), 200.0),
        ("PNG with text", Format::Png, costly::png_with(&[costly::compressed_text(800_000_000)]), 200.0),
        ("JPEG", Format::Jpeg, jpeg, 0.5),
        ("JPEG with 100,000 notes", Format::Jpeg, noted, 0.5),
        ("JPEG with a profile in 250 parts", Format::Jpeg, parts, 1.5),
        ("JPEG, progressive, grey", Format::Jpeg, costly::jpeg_of_scans(5000, 5000, 10), 3.5),
        ("GIF", Format::Gif, costly::gif_with_frame(2000, 2000), 1.5),
        ("GIF with a frame beyond its screen", Format::Gif, costly::gif_with_frame(200, 2000), 1.5),
        ("JPEG that is wide", Format::Jpeg, wide, 0.5),
        ("WebP, lossy", Format::Webp, enlarged(16_383, 6000), 0.5),
        ("WebP, lossless", Format::Webp, encoded(&photo, ImageFormat::WebP), 9.0),
        ("WebP with 5,000 groups of codes", Format::Webp, costly::webp_of_groups(5000), 200.0),
        ("WebP, seen through", Format::Webp, encoded(&seen_through.into(), ImageFormat::WebP), 9.0),
    ] {
        let image = sniff::sniff(&bytes, LIMITS).unwrap();
        let pixels = u64::from(image.width) * u64::from(image.height);
        // Beside a small screen, the frame is what is decoded.
        let pixels = if what.contains("beyond") { 2000 * 2000 } else { pixels };
        let (said, took) = growth(|| {
            let picture = Picture::look(&bytes, format, LIMITS).unwrap();
            let said = picture.memory(160);
            picture.rendition(160).unwrap();
            said
        });
        let a_pixel = |bytes: u64| bytes as f64 / pixels as f64;
        println!(
            "{what}: {} pixels, {:.1} MB, {:.1} bytes a pixel; said before: {:.1}",
            pixels,
            took as f64 / 1e6,
            a_pixel(took),
            a_pixel(said)
        );
        assert!(took <= said + SLACK, "{what} took {took} bytes, and {said} were said");
        assert!(a_pixel(took.saturating_sub(SLACK)) < most_a_pixel, "{what}: {took}");
    }
}
