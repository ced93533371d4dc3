//! One owner: never two workers that answer.
//!
//! An incarnation never comes back. So once a later one has said that it serves, none before it may say so
//! to whoever asks afterwards, and none before it may have windows with hits in them that began afterwards.

use std::collections::BTreeMap;

use super::Verdict;
use crate::faults::history::{Moment, seconds};
use crate::faults::rows::WindowRow;
use crate::faults::watch::Sight;

/// Checks which lives said that they serve, and which had hits in their windows. Windows of the lives in `skewed`
/// prove nothing, because the wall clock of their worker was set.
pub(crate) fn check(sights: &[Sight], windows: &[WindowRow], skewed: &[String]) -> Verdict {
    let said = sights.iter().map(|sight| (sight.incarnation.as_str(), sight.start, sight.end));
    let mut violations = overlaps(said, "said that it serves");
    let counted = windows
        .iter()
        .filter(|window| window.hits > 0 && !skewed.contains(&window.incarnation))
        .map(|window| (window.incarnation.as_str(), window.start, window.end));
    violations.extend(overlaps(counted, "counted hits"));
    let lives: std::collections::BTreeSet<_> = sights.iter().map(|sight| &sight.incarnation).collect();
    Verdict {
        promise: "One owner: never two workers that answer",
        looked_at: format!("{} answers of {} lives of the workers", sights.len(), lives.len()),
        violations,
    }
}

/// Finds what one life did that began after a later life had done the same.
fn overlaps<'a>(deeds: impl Iterator<Item = (&'a str, Moment, Moment)> + Clone, what: &str) -> Vec<String> {
    // Of each life, when it first began to do so, and when it had done so for the first time.
    let mut first: BTreeMap<&str, (Moment, Moment)> = BTreeMap::new();
    for (life, start, end) in deeds.clone() {
        let known = first.entry(life).or_insert((start, end));
        *known = (start.min(known.0), end.min(known.1));
    }
    let mut order: Vec<(Moment, Moment, &str)> =
        first.into_iter().map(|(life, (start, end))| (start, end, life)).collect();
    order.sort_unstable();
    let mut next: BTreeMap<&str, (Moment, &str)> = BTreeMap::new();
    for pair in order.windows(2) {
        next.insert(pair[0].2, (pair[1].1, pair[1].2));
    }
    deeds
        .filter_map(|(life, start, _)| {
            let (taken_over, by) = next.get(life)?;
            (start > *taken_over).then(|| {
                format!(
                    "{life} {what} at {:.3} s, and {by} had done so at {:.3} s",
                    seconds(start),
                    seconds(*taken_over)
                )
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sight(incarnation: &str, start: Moment, end: Moment) -> Sight {
        Sight { start, end, worker: "w".into(), incarnation: incarnation.into() }
    }

    fn window(incarnation: &str, sequence: u64, start: Moment, end: Moment) -> WindowRow {
        let (worker, incarnation) = ("w".to_owned(), incarnation.to_owned());
        WindowRow { worker, incarnation, sequence, start, end, requests: 1, hits: 1, misses: 0, near_hits: 0 }
    }

    #[test]
    fn a_worker_that_answers_after_another_one_has_taken_over_is_found() {
        let mut sights = vec![sight("a", 0, 1), sight("b", 10, 11), sight("b", 20, 21)];
        assert!(check(&sights, &[], &[]).violations.is_empty());
        // Asked before, answered late.
        sights.push(sight("a", 5, 30));
        assert!(check(&sights, &[], &[]).violations.is_empty());
        sights.push(sight("a", 12, 13));
        assert_eq!(check(&sights, &[], &[]).violations.len(), 1);
    }

    #[test]
    fn hits_in_a_window_after_another_one_has_taken_over_are_found() {
        let mut windows = vec![window("a", 1, 0, 30), window("b", 1, 10, 20), window("b", 2, 20, 30)];
        assert!(check(&[], &windows, &[]).violations.is_empty());
        windows.push(window("a", 2, 30, 40));
        assert_eq!(check(&[], &windows, &[]).violations.len(), 1);
        assert!(check(&[], &windows, &["a".into()]).violations.is_empty());
    }
}
