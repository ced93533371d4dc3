//! Choices and given values within sentences.

use std::fmt::Display;

/// The words as the choices of a sentence: `a, b or c`.
pub fn one_of(words: impl IntoIterator<Item = impl Display>) -> String {
    let mut words: Vec<String> = words.into_iter().map(|word| word.to_string()).collect();
    match words.pop() {
        Some(last) if !words.is_empty() => format!("{} or {last}", words.join(", ")),
        last => last.unwrap_or_default(),
    }
}

/// The most characters of a given value that a sentence shows.
const SHOWN_CHARS: usize = 64;

/// A given value as a sentence shows it: in double quotes, escaped, cut to 64 characters.
pub fn shown(text: &str) -> String {
    format!("{:?}", cut(text))
}

/// At most 64 characters of a text, the last one `…` if some are left out.
pub fn cut(text: &str) -> String {
    if text.chars().count() <= SHOWN_CHARS {
        return text.to_owned();
    }
    text.chars().take(SHOWN_CHARS - 1).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_choice_stands_behind_an_or() {
        assert_eq!(one_of([1, 2, 3]), "1, 2 or 3");
        assert_eq!(one_of(["a"]), "a");
        assert_eq!(one_of([0; 0]), "");
    }

    #[test]
    fn a_given_value_is_short_and_escaped() {
        assert_eq!(shown("7"), "\"7\"");
        assert_eq!(shown("a\"\n\u{202e}"), "\"a\\\"\\n\\u{202e}\"");
        assert_eq!(shown(&"ä".repeat(64)), format!("\"{}\"", "ä".repeat(64)));
        assert_eq!(shown(&"ä".repeat(65)), format!("\"{}…\"", "ä".repeat(63)));
    }
}
