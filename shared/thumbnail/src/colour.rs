//! Colours as pictures mean them, in sRGB: ICC profiles, and what a PNG says in other ways.
//!
//! They are converted after scaling, where there are few pixels. What a browser can't apply either, such as a damaged
//! profile, is left out; the colours are then taken for sRGB.

use moxcms::{
    Chromaticity, CicpColorPrimaries, CicpProfile, ColorPrimaries, ColorProfile, DataColorSpace, Layout,
    MatrixCoefficients, ToneReprCurve, TransferCharacteristics, TransformOptions, XyY,
};

/// The channels of pixels, 8 bits each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Samples {
    Grey,
    Rgb,
    /// With opacity.
    Rgba,
    /// Cyan, magenta, yellow and black as Adobe's programs write them into a JPEG: 255 is no ink.
    Inks,
    /// The same, with the first three as luma and chroma.
    InksAsLuma,
}

impl Samples {
    pub(crate) fn channels(self) -> usize {
        match self {
            Self::Grey => 1,
            Self::Rgb => 3,
            Self::Rgba | Self::Inks | Self::InksAsLuma => 4,
        }
    }
}

/// The bytes that reading a profile and making its tables take, at most.
pub(crate) fn memory(profile_bytes: u64) -> u64 {
    if profile_bytes == 0 { 0 } else { 6 * profile_bytes + (4 << 20) }
}

/// An ICC profile; `None` if it can't be read.
pub(crate) fn of_profile(profile: &[u8]) -> Option<ColorProfile> {
    ColorProfile::new_from_slice(profile).ok()
}

/// The colours of a PNG: the first of cICP, iCCP, sRGB, and gAMA with cHRM (PNG, third edition, section 4.3). A cHRM by
/// itself says nothing, as in browsers.
pub(crate) fn of_png(info: &png::Info<'_>) -> Option<ColorProfile> {
    if let Some(points) = &info.coding_independent_code_points
        && let Some(profile) = of_code_points(points)
    {
        return Some(profile);
    }
    if let Some(profile) = info.icc_profile.as_deref().and_then(of_profile) {
        return Some(profile);
    }
    if info.srgb.is_some() {
        return None;
    }
    let gamma = info.gama_chunk?.into_value();
    let mut profile = ColorProfile::new_srgb();
    if let Some(chunk) = &info.chrm_chunk {
        let at =
            |(x, y): (png::ScaledFloat, png::ScaledFloat)| Chromaticity::new(x.into_value(), y.into_value());
        let primaries = ColorPrimaries { red: at(chunk.red), green: at(chunk.green), blue: at(chunk.blue) };
        let white = at(chunk.white);
        if white.y > 0.0 {
            let white = XyY { x: white.x.into(), y: white.y.into(), yb: 1.0 };
            profile.update_rgb_colorimetry(white, primaries);
        }
    }
    profile.cicp = None;
    let curve = ToneReprCurve::Parametric(vec![1.0 / gamma]);
    profile.red_trc = Some(curve.clone());
    profile.green_trc = Some(curve.clone());
    profile.blue_trc = Some(curve);
    Some(profile)
}

/// Colours by code points (ITU-T H.273); `None` for those that say nothing about RGB.
fn of_code_points(points: &png::CodingIndependentCodePoints) -> Option<ColorProfile> {
    let cicp = CicpProfile {
        color_primaries: CicpColorPrimaries::try_from(points.color_primaries).ok()?,
        transfer_characteristics: TransferCharacteristics::try_from(points.transfer_function).ok()?,
        matrix_coefficients: MatrixCoefficients::Identity,
        full_range: points.is_video_full_range_image,
    };
    if points.matrix_coefficients != 0 {
        return None;
    }
    let mut profile = ColorProfile::new_srgb();
    // It is there again if the code points have a meaning.
    profile.cicp = None;
    profile.update_rgb_colorimetry_from_cicp(cicp);
    profile.cicp?;
    if let Some(curve) = shown_curve(cicp.transfer_characteristics) {
        profile.cicp = None;
        profile.red_trc = Some(curve.clone());
        profile.green_trc = Some(curve.clone());
        profile.blue_trc = Some(curve);
    }
    Some(profile)
}

/// The curve of screens, where it is not the inverse of the camera's: ITU-R BT.1886 for television. High dynamic range (ITU-R
/// BT.2100) is shown as Chromium does up to half of white: with twice the brightness of a page (203 cd/m², ITU-R BT.2408)
/// as white. What is brighter than that is white here, where Chromium compresses the upper half.
fn shown_curve(transfer: TransferCharacteristics) -> Option<ToneReprCurve> {
    const WHITE: f64 = 2.0 * 203.0;
    let of = |light: fn(f64) -> f64| {
        let entries = (0..=1023)
            .map(|at| (light(f64::from(at) / 1023.0).clamp(0.0, WHITE) / WHITE * 65535.0).round() as u16);
        Some(ToneReprCurve::Lut(entries.collect()))
    };
    match transfer {
        TransferCharacteristics::Bt709
        | TransferCharacteristics::Bt601
        | TransferCharacteristics::Bt202010bit
        | TransferCharacteristics::Bt202012bit => Some(ToneReprCurve::Parametric(vec![2.4])),
        TransferCharacteristics::Smpte2084 => of(|signal| {
            let root = signal.powf(1.0 / 78.843_75);
            let share = (root - 0.835_937_5).max(0.0) / (18.851_562_5 - 18.6875 * root);
            share.powf(1.0 / 0.159_301_757_812_5) * 10_000.0
        }),
        // On a screen of 1,000 cd/m².
        TransferCharacteristics::Hlg => of(|signal| {
            let scene = if signal <= 0.5 {
                signal * signal / 3.0
            } else {
                (((signal - 0.559_910_73) / 0.178_832_77).exp() + 0.284_668_92) / 12.0
            };
            scene.powf(1.2) * 1000.0
        }),
        _ => None,
    }
}

/// Pixels in sRGB: grey, RGB, or RGB with opacity.
pub(crate) fn to_srgb(
    pixels: Vec<u8>,
    samples: Samples,
    profile: Option<&ColorProfile>,
) -> (Vec<u8>, Samples) {
    match samples {
        Samples::Grey => match profile.map(|profile| profile.color_space) {
            Some(DataColorSpace::Gray) => converted(&pixels, Layout::Gray, profile, Layout::Rgb)
                .map_or((pixels, Samples::Grey), |rgb| (rgb, Samples::Rgb)),
            Some(DataColorSpace::Rgb) => {
                (rgb(pixels.iter().flat_map(|grey| [*grey; 3]).collect(), profile), Samples::Rgb)
            }
            _ => (pixels, Samples::Grey),
        },
        Samples::Rgb => (rgb(pixels, profile), Samples::Rgb),
        Samples::Rgba => (with_opacity(pixels, profile), Samples::Rgba),
        Samples::Inks => (from_inks(pixels, profile), Samples::Rgb),
        Samples::InksAsLuma => (from_inks(without_luma(pixels), profile), Samples::Rgb),
    }
}

fn rgb(pixels: Vec<u8>, profile: Option<&ColorProfile>) -> Vec<u8> {
    let of_rgb = profile.filter(|profile| profile.color_space == DataColorSpace::Rgb);
    converted(&pixels, Layout::Rgb, of_rgb, Layout::Rgb).unwrap_or(pixels)
}

fn with_opacity(mut pixels: Vec<u8>, profile: Option<&ColorProfile>) -> Vec<u8> {
    match profile.map(|profile| profile.color_space) {
        Some(DataColorSpace::Rgb) => {
            converted(&pixels, Layout::Rgba, profile, Layout::Rgba).unwrap_or(pixels)
        }
        // Grey with opacity comes in all three colours.
        Some(DataColorSpace::Gray) => {
            let (all, _) = pixels.as_chunks_mut::<4>();
            let is_grey = all.iter().all(|[red, green, blue, _]| red == green && green == blue);
            let grey: Vec<u8> = all.iter().map(|[grey, ..]| *grey).collect();
            if let Some(rgb) = converted(&grey, Layout::Gray, profile, Layout::Rgb).filter(|_| is_grey) {
                let (rgb, _) = rgb.as_chunks::<3>();
                for (pixel, [red, green, blue]) in all.iter_mut().zip(rgb) {
                    *pixel = [*red, *green, *blue, pixel[3]];
                }
            }
            pixels
        }
        _ => pixels,
    }
}

fn from_inks(mut pixels: Vec<u8>, profile: Option<&ColorProfile>) -> Vec<u8> {
    if let Some(profile) = profile.filter(|profile| profile.color_space == DataColorSpace::Cmyk) {
        // In a profile, 255 is all ink.
        pixels.iter_mut().for_each(|ink| *ink = 255 - *ink);
        if let Some(rgb) = converted(&pixels, Layout::Rgba, Some(profile), Layout::Rgb) {
            return rgb;
        }
        pixels.iter_mut().for_each(|ink| *ink = 255 - *ink);
    }
    let (pixels, _) = pixels.as_chunks::<4>();
    let times = |ink: u8, black: u8| ((u16::from(ink) * u16::from(black) + 127) / 255) as u8;
    pixels.iter().flat_map(|&[c, m, y, k]| [times(c, k), times(m, k), times(y, k)]).collect()
}

/// How luma and chroma make colours: the luma of black, and the factors of luma, of red chroma in red and in green, and of
/// blue chroma in green and in blue.
pub(crate) struct Mixing {
    black: f32,
    luma: f32,
    red: [f32; 2],
    blue: [f32; 2],
}

/// JFIF: luma has all values.
pub(crate) const FULL: Mixing =
    Mixing { black: 0.0, luma: 1.0, red: [1.402, -0.714_136], blue: [-0.344_136, 1.772] };
/// WebP: luma is 16 to 235 (ITU-R BT.601).
pub(crate) const STUDIO: Mixing =
    Mixing { black: 16.0, luma: 255.0 / 219.0, red: [1.596_027, -0.812_968], blue: [-0.391_762, 2.017_232] };

impl Mixing {
    #[inline]
    fn of(&self, luma: u8, blue: u8, red: u8) -> [u8; 3] {
        let luma = self.luma * (f32::from(luma) - self.black);
        let (blue, red) = (f32::from(blue) - 128.0, f32::from(red) - 128.0);
        let colours = [
            luma + self.red[0] * red,
            luma + self.red[1] * red + self.blue[0] * blue,
            luma + self.blue[1] * blue,
        ];
        colours.map(|value| (value + 0.5).clamp(0.0, 255.0) as u8)
    }

    /// Colours of planes of luma, blue chroma and red chroma.
    pub(crate) fn mix(&self, luma: &[u8], blue: &[u8], red: &[u8]) -> Vec<u8> {
        luma.iter().zip(blue).zip(red).flat_map(|((luma, blue), red)| self.of(*luma, *blue, *red)).collect()
    }
}

/// Cyan, magenta and yellow from luma and chroma (JFIF), as Adobe's programs mean them.
fn without_luma(mut pixels: Vec<u8>) -> Vec<u8> {
    let (all, _) = pixels.as_chunks_mut::<4>();
    for pixel in all {
        let [luma, blue, red, black] = *pixel;
        let [cyan, magenta, yellow] = FULL.of(luma, blue, red).map(|colour| 255 - colour);
        *pixel = [cyan, magenta, yellow, black];
    }
    pixels
}

/// The pixels in sRGB; `None` if there is no profile, or one that can't be applied.
fn converted(pixels: &[u8], from: Layout, profile: Option<&ColorProfile>, to: Layout) -> Option<Vec<u8>> {
    let options = TransformOptions::default();
    let transform = profile?.create_transform_8bit(from, &ColorProfile::new_srgb(), to, options).ok()?;
    let mut into = vec![0; pixels.len() / from.channels() * to.channels()];
    transform.transform(pixels, &mut into).ok()?;
    Some(into)
}
