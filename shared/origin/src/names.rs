//! Names of files: random for images, and derived from those for their variants.

use std::ops::RangeInclusive;

use wire::Variant;

/// The folders with the files: the first two digits of a name.
pub(crate) const SHELVES: RangeInclusive<u8> = 0..=u8::MAX;

/// Which way of making variants a file comes from. Files of another way are not read any more.
pub(crate) const MAKING: u32 = 3;

/// The name of the file of a variant of the image in the file `original`.
pub(crate) fn location_of(original: &str, variant: Variant) -> String {
    format!("{original}.{variant}-{MAKING}")
}

/// The name of the file of the original, given that of any file.
pub(crate) fn original_of(location: &str) -> &str {
    match location.rsplit_once('.') {
        Some((original, variant)) if is_variant(variant) => original,
        _ => location,
    }
}

/// Whether this is the end of a variant's name, in whichever way it was made; the first way had no number.
fn is_variant(end: &str) -> bool {
    let (variant, making) = end.split_once('-').unwrap_or((end, "1"));
    let is_number = !making.is_empty() && making.bytes().all(|byte| byte.is_ascii_digit());
    is_number && variant.parse::<Variant>().is_ok()
}

/// Whether this is the name of a variant that was made in another way than today's, and so is not read any more.
pub(crate) fn is_outdated(location: &str) -> bool {
    let end = location.rsplit_once('.').map(|(_, end)| end).filter(|end| is_variant(end));
    end.is_some_and(|end| end.split_once('-').is_none_or(|(_, making)| making != MAKING.to_string()))
}

/// A new name of 128 random bits, on one of the [`SHELVES`], so that no folder grows large: `3f/3fa9…`.
pub(crate) fn new_location() -> String {
    let name: u128 = rand::random();
    let digits = format!("{name:032x}");
    format!("{}/{digits}", &digits[..2])
}

pub(crate) fn shelf_name(shelf: u8) -> String {
    format!("{shelf:02x}")
}

/// Whether a name is one that [`new_location`] gives, or that of its variant, or of an unfinished upload to either. The
/// name of an unfinished upload ends with a `#` and a number. Nothing else is ever swept away, because a person may
/// have put it there.
pub(crate) fn is_location(name: &str) -> bool {
    let (location, part) = name.split_once('#').unwrap_or((name, "0"));
    let location = original_of(location);
    let is_hex = |text: &str| text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let on_its_shelf = location.split_once('/').is_some_and(|(shelf, digits)| {
        digits.len() == 32 && is_hex(digits) && digits.get(..2) == Some(shelf)
    });
    on_its_shelf && !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_original_is_told_by_the_name_of_any_file() {
        for variant in Variant::ALL {
            assert_eq!(original_of(&location_of("3f/3fa9", variant)), "3f/3fa9");
        }
        assert_eq!(original_of("3f/3fa9.w320"), "3f/3fa9");
        assert!(is_outdated("3f/3fa9.w320") && is_outdated("3f/3fa9.w320-1"));
        assert!(!is_outdated(&location_of("3f/3fa9", Variant::W320)) && !is_outdated("3f/3fa9"));
        for name in
            ["3f/3fa9", "3f/3fa9.w99", "3f/3fa9#1", "3f/3fa9.w320#1", "3f/3fa9.w320-", "3f/3fa9.w320-x"]
        {
            assert_eq!(original_of(name), name);
        }
    }
}
