//! Statistics: within each life of a worker the windows are 1, 2, 3, … once each; only a killed one may lack
//! its last ones; and what the rows add up to is what the clients were answered by the cache.

use std::collections::BTreeMap;

use super::{Struck, Verdict};
use crate::faults::history::{CacheWord, Did, Failure, Moment, Record, seconds};
use crate::faults::rows::WindowRow;
use crate::faults::watch::Sight;

/// How much earlier than the loss of JetStream's store a window may have ended that was lost with it: it
/// was on its way to its row.
const ON_ITS_WAY: Moment = 2_000_000_000;

/// A stretch of time of which windows may be lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Lost {
    from: Moment,
    to: Moment,
}

/// Checks the rows of all windows against what the clients counted, knowing which workers were killed when,
/// and who served when.
pub(crate) fn check(
    records: &[Record],
    windows: &[WindowRow],
    struck: &[Struck],
    sights: &[Sight],
) -> Verdict {
    let mut violations = Vec::new();
    let mut lost = Vec::new();
    let losses: Vec<(Moment, Moment)> = struck
        .iter()
        .filter(|struck| struck.strike.lost_store)
        .map(|struck| (struck.strike.began, struck.ready.unwrap_or(struck.strike.healed)))
        .collect();
    let lives = lives(windows);
    for (life, windows) in &lives {
        let mut expected = 1;
        let mut before: Option<&WindowRow> = None;
        for window in windows {
            if window.sequence != expected {
                let gap = Lost { from: before.map_or(window.start, |before| before.end), to: window.start };
                let is_excused =
                    losses.iter().any(|(began, ended)| gap.from <= *ended && gap.to + ON_ITS_WAY >= *began);
                if is_excused {
                    lost.push(gap);
                } else {
                    violations.push(format!(
                        "{life}: window {expected} is missing or doubled; there is {} at {:.3} s",
                        window.sequence,
                        seconds(window.start)
                    ));
                }
            }
            expected = window.sequence + 1;
            before = Some(window);
        }
        if let Some(window) = windows.iter().find(|window| window.requests != window.hits + window.misses) {
            violations.push(format!("{life}: in window {} hits and misses are not all", window.sequence));
        }
    }
    lost.extend(tails(&lives, struck, sights));

    let counted: u64 = windows.iter().map(|window| window.requests).sum();
    let mut answered = 0;
    let mut unsure = 0;
    let mut in_lost = 0;
    for record in records {
        match asked(record) {
            Asked::Surely => {
                answered += 1;
                let is_in = |lost: &Lost| record.end >= lost.from && record.start <= lost.to;
                in_lost += u64::from(lost.iter().any(is_in));
            }
            Asked::Perhaps => unsure += 1,
            Asked::No => {}
        }
    }
    if counted + in_lost < answered {
        violations.push(format!(
            "the rows add up to {counted} gets, and the clients were answered {answered} times, of which \
             {in_lost} may be in windows that were lost"
        ));
    }
    if counted > answered + unsure {
        violations.push(format!(
            "the rows add up to {counted} gets, and the clients were answered {answered} times and gave up \
             {unsure}"
        ));
    }
    Verdict {
        promise: "Statistics: no window missing or doubled, and their sum is what the clients were answered",
        looked_at: format!(
            "{} windows of {} lives, {counted} gets in them; clients: {answered} answered by the cache, \
             {in_lost} of them in windows lost with a killed worker, {unsure} given up",
            windows.len(),
            lives.len(),
        ),
        violations,
    }
}

/// Whether the cache was asked and answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    Surely,
    Perhaps,
    No,
}

fn asked(record: &Record) -> Asked {
    let Did::Read { seen, cache, .. } = &record.did else { return Asked::No };
    match (cache, seen) {
        (Some(CacheWord::Hit | CacheWord::Miss), _) => Asked::Surely,
        (Some(CacheWord::TimedOut | CacheWord::TooLarge), _) => Asked::Perhaps,
        (Some(CacheWord::Without), _) | (None, Err(Failure::NotSent)) => Asked::No,
        // The answer broke off, or it is one that doesn't say.
        (None, Err(Failure::Lost | Failure::Unanswered | Failure::Status(_)) | Ok(_)) => Asked::Perhaps,
    }
}

/// The windows of each life, in their order.
fn lives(windows: &[WindowRow]) -> BTreeMap<String, Vec<&WindowRow>> {
    let mut lives: BTreeMap<String, Vec<&WindowRow>> = BTreeMap::new();
    for window in windows {
        lives.entry(window.incarnation.clone()).or_default().push(window);
    }
    for windows in lives.values_mut() {
        windows.sort_by_key(|window| window.sequence);
    }
    lives
}

/// What killed workers had not handed over: for each kill, the time from the last window that has its row
/// to the kill, or to when another worker served.
fn tails(lives: &BTreeMap<String, Vec<&WindowRow>>, struck: &[Struck], sights: &[Sight]) -> Vec<Lost> {
    // Each life, whose it was, and when it was first seen.
    let mut first_seen: BTreeMap<&str, (Moment, &str)> = BTreeMap::new();
    for sight in sights {
        let seen = first_seen.entry(&sight.incarnation).or_insert((sight.end, &sight.worker));
        seen.0 = seen.0.min(sight.end);
    }
    let mut order: Vec<(Moment, &str, &str)> =
        first_seen.into_iter().map(|(life, (at, worker))| (at, life, worker)).collect();
    order.sort_unstable();
    let mut lost = Vec::new();
    for killed in struck.iter().flat_map(|struck| &struck.strike.killed_workers) {
        // The life that the kill ended, if that worker served; else one that had ended before, of which
        // windows may still have waited.
        let Some(at) =
            order.iter().rposition(|(seen, _, worker)| *seen <= killed.at && *worker == killed.worker)
        else {
            continue;
        };
        let (seen, life, _) = order[at];
        let next = order.get(at + 1).map_or(Moment::MAX, |next| next.0);
        let last = lives.get(life).and_then(|windows| windows.last()).map_or(seen, |window| window.end);
        lost.push(Lost { from: last, to: killed.at.min(next) });
    }
    lost
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::faults::check::tests::struck;
    use crate::faults::history::Seen;
    use crate::faults::strike::{KilledWorker, Kind};

    const SECOND: Moment = 1_000_000_000;

    fn window(incarnation: &str, sequence: u64, requests: u64) -> WindowRow {
        let start = sequence * SECOND;
        WindowRow {
            worker: "memcache-1".into(),
            incarnation: incarnation.into(),
            sequence,
            start,
            end: start + SECOND,
            requests,
            hits: requests,
            misses: 0,
        }
    }

    fn reads(count: usize, at: Moment, cache: Option<CacheWord>) -> Vec<Record> {
        let did = Did::Read { key: 0, seen: Ok(Seen::Nothing), cache };
        vec![Record { is_probe: false, gateway: 0, start: at, end: at + 1, did }; count]
    }

    fn violations(records: &[Record], windows: &[WindowRow], struck: &[Struck]) -> usize {
        let sight = Sight { start: 0, end: 1, worker: "memcache-1".into(), incarnation: "a".into() };
        check(records, windows, struck, &[sight]).violations.len()
    }

    #[test]
    fn a_window_that_is_missing_or_doubled_is_found() {
        let all = [window("a", 1, 0), window("a", 2, 0), window("b", 1, 0), window("a", 3, 0)];
        assert_eq!(violations(&[], &all, &[]), 0);
        assert_eq!(violations(&[], &all[1..], &[]), 1);
        assert_eq!(violations(&[], &[all[0].clone(), all[3].clone()], &[]), 1);
        assert_eq!(violations(&[], &[all[0].clone(), all[0].clone()], &[]), 1);
    }

    #[test]
    fn a_sum_that_is_too_small_or_too_large_is_found() {
        let windows = [window("a", 1, 5), window("a", 2, 5)];
        let hits = |count| reads(count, SECOND, Some(CacheWord::Hit));
        assert_eq!(violations(&hits(10), &windows, &[]), 0);
        assert_eq!(violations(&hits(11), &windows, &[]), 1);
        assert_eq!(violations(&hits(9), &windows, &[]), 1);
        let given_up = reads(1, SECOND, Some(CacheWord::TimedOut));
        assert_eq!(violations(&[hits(9), given_up].concat(), &windows, &[]), 0);
        let without = reads(1, SECOND, Some(CacheWord::Without));
        assert_eq!(violations(&[hits(9), without].concat(), &windows, &[]), 1);
    }

    #[test]
    fn a_killed_worker_may_lack_its_last_windows_and_no_others() {
        let windows = [window("a", 1, 5), window("a", 2, 5)];
        let mut kill = struck(Kind::WorkerKilled, 4 * SECOND, 4 * SECOND);
        kill.strike.killed_workers.push(KilledWorker { worker: "memcache-1".into(), at: 4 * SECOND });
        let history =
            |late| [reads(10, SECOND, Some(CacheWord::Hit)), reads(3, late, Some(CacheWord::Hit))].concat();
        assert_eq!(violations(&history(3 * SECOND + 5), &windows, &[kill.clone()]), 0);
        assert_eq!(violations(&history(2 * SECOND), &windows, &[kill.clone()]), 1);
        assert_eq!(violations(&history(5 * SECOND), &windows, &[kill]), 1);
    }

    #[test]
    fn a_gap_is_excused_by_the_loss_of_the_store_at_that_time_only() {
        let windows = [window("a", 1, 5), window("a", 10, 5)];
        let lost = |began| {
            let mut struck = struck(Kind::NatsWithoutItsStore, began, began + SECOND);
            struck.strike.lost_store = true;
            struck
        };
        let read = reads(10, SECOND, Some(CacheWord::Hit));
        assert_eq!(violations(&read, &windows, &[lost(5 * SECOND)]), 0);
        assert_eq!(violations(&read, &windows, &[lost(20 * SECOND)]), 1);
    }
}
