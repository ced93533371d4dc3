//! Lists within sentences.

use std::fmt::Display;

/// The words as a list within a sentence: `a, b and c`.
pub fn listed(words: impl IntoIterator<Item = impl Display>) -> String {
    let mut words: Vec<String> = words.into_iter().map(|word| word.to_string()).collect();
    match words.pop() {
        Some(last) if !words.is_empty() => format!("{} and {last}", words.join(", ")),
        last => last.unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_one_stands_behind_an_and() {
        assert_eq!(listed([1, 2, 3]), "1, 2 and 3");
        assert_eq!(listed(["a"]), "a");
        assert_eq!(listed([0; 0]), "");
    }
}
