//! Characters that can't be seen, made visible.
//!
//! A key may contain any character but control characters. Some are invisible and change how others are read: a file
//! name with U+202E before its end shows another ending. Pages show these by their numbers, so that no key can be taken
//! for another. Links, forms and copied text keep the key as it is. `static/js/live.js` does the same.

use std::borrow::Cow;
use std::fmt::Write as _;

/// Whether a character shows nothing by itself: marks of direction, joiners, fillers, tags, variation selectors.
fn is_invisible(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}' | '\u{180b}'..='\u{180f}'
        | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{2800}' | '\u{3164}'
        | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{1bca0}'..='\u{1bca3}'
        | '\u{13430}'..='\u{1345f}' | '\u{16fe4}' | '\u{1d159}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

/// Whether `c` joins the characters before and after it into one picture, as in a family or a red heart.
fn is_within_a_picture(before: Option<char>, c: char, after: Option<char>) -> bool {
    let is_picture = |c: char| matches!(c, '\u{231a}'..='\u{23ff}' | '\u{25aa}'..='\u{27bf}' | '\u{2b05}'..='\u{2b55}' | '\u{1f000}'..='\u{1faff}');
    match c {
        '\u{fe0f}' => before.is_some_and(is_picture),
        '\u{200d}' => {
            before.is_some_and(|before| before == '\u{fe0f}' || is_picture(before))
                && after.is_some_and(is_picture)
        }
        _ => false,
    }
}

/// `text` with each invisible character as `‹U+202E›`.
pub(super) fn visible(text: &str) -> Cow<'_, str> {
    if !text.contains(is_invisible) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 32);
    let mut before = None;
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        if is_invisible(c) && !is_within_a_picture(before, c, rest.clone().next()) {
            let _ = write!(shown, "‹U+{:04X}›", u32::from(c));
        } else {
            shown.push(c);
        }
        before = Some(c);
    }
    Cow::Owned(shown)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_changes_the_direction_or_hides_is_shown_by_its_number() {
        for c in [
            '\u{202a}',
            '\u{202e}',
            '\u{2066}',
            '\u{2069}',
            '\u{200e}',
            '\u{200f}',
            '\u{61c}',
            '\u{200b}',
            '\u{feff}',
            '\u{2800}',
            '\u{13430}',
            '\u{1d159}',
        ] {
            assert_eq!(visible(&format!("a{c}b")), format!("a‹U+{:04X}›b", u32::from(c)));
        }
        assert_eq!(visible("\u{e0041}"), "‹U+E0041›");
        assert_eq!(visible("\u{2192}\u{fe0f}\u{200d}b"), "\u{2192}‹U+FE0F›‹U+200D›b");
        assert_eq!(visible("a\u{fe0f}\u{200d}b"), "a‹U+FE0F›‹U+200D›b");
    }

    #[test]
    fn what_can_be_seen_stays_as_it_is() {
        for text in [
            "cat.png",
            "größe/猫",
            "عربي",
            "שלום",
            "\u{2764}\u{fe0f}",
            "\u{1f468}\u{200d}\u{1f469}\u{200d}\u{1f467}",
            "12\u{a0}kB",
            "",
        ] {
            assert_eq!(visible(text), text);
        }
    }

    proptest! {
        #[test]
        fn nothing_invisible_is_left_of_any_text_without_pictures(text in "[a-z\u{200b}-\u{206f}\u{61c}\u{fe00}-\u{fe0f}]{0,20}") {
            prop_assert!(!visible(&text).contains(is_invisible));
        }
    }
}
