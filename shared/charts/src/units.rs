//! How quantities are written for people: bytes, counts, ratios, durations.
//!
//! One megabyte is 2^20 bytes wherever a page or a chart writes "MB", because that is what a
//! capacity of "64 MB" means ([`wire::config::MEGABYTE`]); kB, GB and the others follow it.

use time::UtcOffset;

const BYTE_UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
const COUNT_UNITS: [&str; 7] = ["", "k", "M", "G", "T", "P", "E"];

/// A number of bytes in the largest unit of which there is at least one: `792 kB`, `2.6 MB`.
pub fn bytes(bytes: u64) -> String {
    let (value, unit) = scaled(bytes as f64, 1024.0);
    format!("{}\u{a0}{}", short(value), BYTE_UNITS[unit])
}

/// A count with its thousands apart: `12,345`.
pub fn count(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A count with the word for what is counted: `1 image`, `2 images`.
pub fn counted(number: u64, one: &str, many: &str) -> String {
    format!("{}\u{a0}{}", count(number), if number == 1 { one } else { many })
}

/// The number up to which a page counts the stored images.
pub const MOST_COUNTED: u64 = 10_000;

/// As [`counted`], for a number that was counted only to one beyond [`MOST_COUNTED`]: `over 10,000 images`.
pub fn counted_in_part(number: u64, one: &str, many: &str) -> String {
    if number > MOST_COUNTED {
        format!("over\u{a0}{}", counted(MOST_COUNTED, one, many))
    } else {
        counted(number, one, many)
    }
}

/// A number in a few characters, for axes and headlines: `0.25`, `120`, `1.5k`, `12M`.
pub fn compact(value: f64) -> String {
    let (value, unit) = scaled(value, 1000.0);
    format!("{}{}", short(value), COUNT_UNITS[unit])
}

/// A ratio in percent, with one decimal unless it is exactly none or all: `99.9 %`, `100 %`.
///
/// A ratio below 1 never reads as 100 %: 0.99999 is `99.9 %`.
pub fn percent(ratio: f64) -> String {
    let percent = (ratio.clamp(0.0, 1.0) * 1000.0).floor() / 10.0;
    if percent == 0.0 || percent == 100.0 {
        format!("{percent:.0}\u{a0}%")
    } else {
        format!("{percent:.1}\u{a0}%")
    }
}

/// A duration as its largest unit says it: `5 s`, `12 min`, `3 h`, `4 days`.
pub fn duration(ms: u64) -> String {
    // Rounded: a window of 4,998 ms is one of 5 s.
    let seconds = ms.saturating_add(500) / 1000;
    match seconds {
        0 if ms > 0 => format!("{ms}\u{a0}ms"),
        0 => "0\u{a0}s".to_owned(),
        1..60 => format!("{seconds}\u{a0}s"),
        60..3600 => format!("{}\u{a0}min", seconds / 60),
        3600..86_400 => format!("{}\u{a0}h", seconds / 3600),
        _ => counted(seconds / 86_400, "day", "days"),
    }
}

/// The name of a zone that is only known by its offset: `UTC`, `UTC+2`, `UTC−3:30`.
pub fn zone(offset: UtcOffset) -> String {
    let (hours, minutes, _) = offset.as_hms();
    let sign = if offset.is_negative() { '−' } else { '+' };
    match (hours.unsigned_abs(), minutes.unsigned_abs()) {
        (0, 0) => "UTC".to_owned(),
        (hours, 0) => format!("UTC{sign}{hours}"),
        (hours, minutes) => format!("UTC{sign}{hours}:{minutes:02}"),
    }
}

/// `value` divided by `base` until less than `base` is left, and how many times.
fn scaled(mut value: f64, base: f64) -> (f64, usize) {
    let mut unit = 0;
    // From half a unit below the limit, so that 1023.7 kB is "1 MB" and not "1024 kB".
    while value >= base - 0.5 && unit + 1 < BYTE_UNITS.len() {
        value /= base;
        unit += 1;
    }
    (value, unit)
}

/// Up to three significant digits, without trailing zeros.
fn short(value: f64) -> String {
    let decimals = match value.abs() {
        0.0 => 0,
        // Two significant digits: a rate of 0.0012/s must not read as zero.
        size if size < 1.0 => (1.0 - size.log10().floor()).min(9.0) as usize,
        size if size < 99.95 => 1,
        _ => 0,
    };
    let text = format!("{value:.decimals$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(text: String) -> String {
        text.replace('\u{a0}', " ")
    }

    #[test]
    fn bytes_are_written_in_powers_of_1024() {
        for (number, text) in [
            (0, "0 B"),
            (1, "1 B"),
            (1023, "1023 B"),
            (1000, "1000 B"),
            (1024, "1 kB"),
            (791_555, "773 kB"),
            (2_600_000, "2.5 MB"),
            (64 << 20, "64 MB"),
            (1 << 30, "1 GB"),
            ((1 << 30) - 1, "1 GB"),
            (u64::MAX, "16 EB"),
        ] {
            assert_eq!(plain(bytes(number)), text, "{number}");
        }
    }

    #[test]
    fn counts_have_their_thousands_apart_and_agree_with_their_noun() {
        assert_eq!(counted_in_part(1, "image", "images"), "1\u{a0}image");
        assert_eq!(counted_in_part(MOST_COUNTED, "image", "images"), "10,000\u{a0}images");
        assert_eq!(counted_in_part(MOST_COUNTED + 1, "image", "images"), "over\u{a0}10,000\u{a0}images");
        assert_eq!(count(0), "0");
        assert_eq!(count(999), "999");
        assert_eq!(count(1000), "1,000");
        assert_eq!(count(u64::MAX), "18,446,744,073,709,551,615");
        assert_eq!(plain(counted(1, "image", "images")), "1 image");
        assert_eq!(plain(counted(0, "image", "images")), "0 images");
        assert_eq!(plain(counted(1234, "image", "images")), "1,234 images");
    }

    #[test]
    fn compact_numbers_keep_three_digits() {
        for (number, text) in [
            (0.0, "0"),
            (0.25, "0.25"),
            (0.2, "0.2"),
            (0.0012, "0.0012"),
            (1e-300, "0"),
            (999.6, "1k"),
            (1.0, "1"),
            (12.5, "12.5"),
            (999.0, "999"),
            (1500.0, "1.5k"),
            (2e6, "2M"),
            (1.8e19, "18E"),
        ] {
            assert_eq!(compact(number), text);
        }
    }

    #[test]
    fn a_ratio_is_rounded_down_so_that_only_all_reads_as_all() {
        for (ratio, text) in [
            (0.0, "0 %"),
            (1.0, "100 %"),
            (0.5, "50.0 %"),
            (0.999_99, "99.9 %"),
            (2.0 / 3.0, "66.6 %"),
            (7.0, "100 %"),
        ] {
            assert_eq!(plain(percent(ratio)), text);
        }
    }

    #[test]
    fn durations_and_zones() {
        for (ms, text) in [
            (0, "0 s"),
            (5, "5 ms"),
            (4_998, "5 s"),
            (59_600, "1 min"),
            (5_000, "5 s"),
            (61_000, "1 min"),
            (7_200_000, "2 h"),
            (86_400_000, "1 day"),
            (259_200_000, "3 days"),
        ] {
            assert_eq!(plain(duration(ms)), text);
        }
        for (hours, minutes, text) in
            [(0, 0, "UTC"), (2, 0, "UTC+2"), (-3, -30, "UTC−3:30"), (5, 45, "UTC+5:45")]
        {
            assert_eq!(UtcOffset::from_hms(hours, minutes, 0).map(zone).ok().as_deref(), Some(text));
        }
    }
}
