//! Statistics: within each life of a worker the windows are 1, 2, 3, … once each; only a killed one may lack
//! its last ones; and what the rows add up to is what the clients were answered by the cache, from one moment
//! of calm to the next.
//!
//! Near hits are reported by the gateways, so they are counted a little later. A gateway that is killed takes
//! with it those that it had not reported. If the answer to a report was lost together with the life of the worker
//! that it was sent to, it is unknown whether the report was counted: it counts at most once.
//!
//! A read that the worker answers too late, while its row can't be read either, asks the worker once more. Both gets are
//! answered and counted, and the client sees one hit.

use std::collections::BTreeMap;

use super::{Struck, Verdict};
use crate::faults::history::{CacheWord, Did, Failure, Moment, Record, seconds};
use crate::faults::rows::WindowRow;
use crate::faults::strike::{KilledWorker, Strike};
use crate::faults::watch::Sight;

/// How much earlier than the loss of JetStream's store a window may have ended that was lost with it: it
/// was on its way to its row.
const ON_ITS_WAY: Moment = 2_000_000_000;
/// A gateway that is killed loses at most the near hits of this time before,
pub(crate) const UNREPORTED: Moment = 250_000_000;
/// and those of the report before, if it was under way. A gateway waits this long for the answer to a report.
const UNDER_WAY: Moment = 500_000_000;
/// A copy that was granted just before the end of a worker's life is served for so long (`NEAR_LEASE_MS`).
const NEAR_LEASE: Moment = 1_000_000_000;

/// A stretch of time of which something may be lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Lost {
    from: Moment,
    to: Moment,
    what: What,
}

/// The kinds of counts that may be lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    /// Everything that a worker counted.
    Windows,
    /// Near hits, of one gateway or of any.
    NearHits(Option<usize>),
}

impl Lost {
    /// Whether this get may be in it.
    fn has(&self, record: &Record, is_near: bool) -> bool {
        let delay = match self.what {
            What::NearHits(gateway)
                if !is_near || gateway.is_some_and(|gateway| gateway != record.gateway) =>
            {
                return false;
            }
            What::NearHits(_) => 0,
            // Counted when it was reported.
            What::Windows if is_near => UNREPORTED + UNDER_WAY,
            What::Windows => 0,
        };
        record.end + delay >= self.from && record.start <= self.to
    }
}

/// The sums of the rows at a moment when no request was under way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counted {
    pub(crate) at: Moment,
    pub(crate) gets: u64,
    /// Near hits among them.
    pub(crate) near: u64,
}

impl Counted {
    /// The sums of these rows.
    pub(crate) fn of(windows: &[WindowRow], at: Moment) -> Self {
        let gets = windows.iter().map(|window| window.requests).sum();
        Self { at, gets, near: windows.iter().map(|window| window.near_hits).sum() }
    }
}

/// The numbers of the answers that clients got.
#[derive(Debug, Clone, Copy, Default)]
struct Tally {
    /// By the cache, near hits among them.
    answered: u64,
    near: u64,
    /// The answered ones whose counts may be lost.
    lost: u64,
    near_lost: u64,
    /// Whether the cache was asked, or was once more, and has counted that, is not known.
    unsure: u64,
}

impl Tally {
    fn of<'a>(
        records: impl Iterator<Item = &'a Record>,
        lost: &[Lost],
        without_rows: &[(Moment, Moment)],
    ) -> Self {
        let mut tally = Self::default();
        for record in records {
            let asked = asked(record);
            let is_near = asked == Asked::Near;
            let is_hit = matches!(record.did, Did::Read { cache: Some(CacheWord::Hit), .. });
            let has_no_row = |(from, to): &(Moment, Moment)| record.end >= *from && record.start <= *to;
            tally.unsure += u64::from(is_hit && without_rows.iter().any(has_no_row));
            match asked {
                Asked::Surely | Asked::Near => {
                    let is_lost = u64::from(lost.iter().any(|lost| lost.has(record, is_near)));
                    tally.answered += 1;
                    tally.lost += is_lost;
                    tally.near += u64::from(is_near);
                    tally.near_lost += is_lost * u64::from(is_near);
                }
                Asked::Perhaps => tally.unsure += 1,
                Asked::No => {}
            }
        }
        tally
    }
}

/// Checks the rows of all windows against what the clients counted, knowing which workers were killed when,
/// and who served when.
pub(crate) fn check(
    records: &[Record],
    windows: &[WindowRow],
    struck: &[Struck],
    sights: &[Sight],
    calms: &[Counted],
) -> Verdict {
    let mut violations = Vec::new();
    let lives = lives(windows);
    let lost = losses(&lives, struck, sights, &mut violations);
    if let Some(window) = windows.iter().find(|window| window.requests != window.hits + window.misses) {
        let (life, sequence) = (&window.incarnation, window.sequence);
        violations.push(format!("{life}: in window {sequence} hits and misses are not all"));
    }

    let Counted { gets: counted, near: near_counted, .. } = Counted::of(windows, Moment::MAX);
    let without_rows = without_rows(struck);
    let all = Tally::of(records.iter(), &lost, &without_rows);
    if counted + all.lost < all.answered {
        violations.push(format!(
            "the rows add up to {counted} gets, and the clients were answered {} times, of which {} may be lost",
            all.answered, all.lost
        ));
    }
    if counted > all.answered + all.unsure {
        violations.push(format!(
            "the rows add up to {counted} gets, and the clients were answered {} times and gave up {}",
            all.answered, all.unsure
        ));
    }
    if near_counted + all.near_lost < all.near || near_counted > all.near + all.unsure {
        violations.push(format!(
            "the rows add up to {near_counted} near hits, and the clients had {}, of which {} may be lost, and \
             gave up {}",
            all.near, all.near_lost, all.unsure
        ));
    }
    violations.extend(between_calms(records, &lost, &without_rows, calms));
    Verdict {
        promise: "Statistics: no window missing or doubled, and their sum is what the clients were answered",
        looked_at: format!(
            "{} windows of {} lives, {counted} gets in them, {near_counted} of which near hits, added up at {} \
             moments of calm; clients: {} answered by the cache, {} of them in windows lost with a killed worker \
             or not reported by a killed gateway, {} given up",
            windows.len(),
            lives.len(),
            calms.len(),
            all.answered,
            all.lost,
            all.unsure,
        ),
        violations,
    }
}

/// Whether the rows have everything that was surely counted between two moments of calm.
pub(crate) fn is_complete(
    records: &[Record],
    windows: &[WindowRow],
    struck: &[Struck],
    sights: &[Sight],
    before: Counted,
    now: Counted,
) -> bool {
    // Errors in the windows themselves are reported by the check at the end.
    let lost = losses(&lives(windows), struck, sights, &mut Vec::new());
    let tally = Tally::of(between(records, before, now), &lost, &[]);
    now.gets.saturating_sub(before.gets) + tally.lost >= tally.answered
        && now.near.saturating_sub(before.near) + tally.near_lost >= tally.near
}

fn between(records: &[Record], before: Counted, now: Counted) -> impl Iterator<Item = &Record> {
    records.iter().filter(move |record| record.start >= before.at && record.end <= now.at)
}

/// Checks the sums from each moment of calm to the next.
fn between_calms(
    records: &[Record],
    lost: &[Lost],
    without_rows: &[(Moment, Moment)],
    calms: &[Counted],
) -> Vec<String> {
    let mut violations = Vec::new();
    let mut before = Counted::default();
    // The counts that had no row at the calms before, and may have come since.
    let mut late = [0; 2];
    for now in calms {
        let tally = Tally::of(between(records, before, *now), lost, without_rows);
        let time = format!("from {:.3} to {:.3} s", seconds(before.at), seconds(now.at));
        let sums = [
            ("gets", now.gets.saturating_sub(before.gets), tally.answered, tally.lost),
            ("near hits", now.near.saturating_sub(before.near), tally.near, tally.near_lost),
        ];
        for ((what, gained, answered, lost), late) in sums.into_iter().zip(&mut late) {
            let most = answered + tally.unsure;
            if gained + lost < answered || gained > most + *late {
                violations.push(format!(
                    "{time} the rows gained {gained} {what}, and the clients were answered {answered} times, of \
                     which {lost} may be lost, and gave up {}; {late} may have been late",
                    tally.unsure
                ));
            }
            // A read that was given up may be counted at any later time: its message may wait in a half-closed connection.
            *late = (most + *late).saturating_sub(gained);
        }
        before = *now;
    }
    violations
}

/// When rows could not be read: from a fault until every gateway was ready again.
fn without_rows(struck: &[Struck]) -> Vec<(Moment, Moment)> {
    let those = struck.iter().filter(|struck| !struck.strike.kind.leaves_stored_images_readable());
    those.map(|struck| (struck.strike.began, struck.ready.unwrap_or(Moment::MAX))).collect()
}

/// Everything that may be lost. Windows that are missing without a permitted cause are violations.
fn losses(
    lives: &BTreeMap<String, Vec<&WindowRow>>,
    struck: &[Struck],
    sights: &[Sight],
    violations: &mut Vec<String>,
) -> Vec<Lost> {
    let mut lost = Vec::new();
    let stores: Vec<(Moment, Moment)> = struck
        .iter()
        .filter(|struck| struck.strike.lost_store)
        .map(|struck| (struck.strike.began, struck.ready.unwrap_or(struck.strike.healed)))
        .collect();
    for (life, windows) in lives {
        let mut expected = 1;
        let mut before: Option<&WindowRow> = None;
        for window in windows {
            if window.sequence != expected {
                let from = before.map_or(window.start, |before| before.end);
                let gap = Lost { from, to: window.start, what: What::Windows };
                let is_excused =
                    stores.iter().any(|(began, ended)| gap.from <= *ended && gap.to + ON_ITS_WAY >= *began);
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
    }
    let succession = Succession::of(sights);
    lost.extend(succession.tails(lives, struck));
    lost.extend(succession.reports_in_doubt(struck));
    for (gateway, at) in struck.iter().flat_map(|struck| &struck.strike.killed_gateways) {
        let from = at.saturating_sub(UNREPORTED + UNDER_WAY);
        lost.push(Lost { from, to: *at, what: What::NearHits(Some(*gateway)) });
    }
    lost
}

/// Whether the cache was asked and answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    Surely,
    /// The gateway answered from its copy.
    Near,
    Perhaps,
    No,
}

fn asked(record: &Record) -> Asked {
    let Did::Read { seen, cache, .. } = &record.did else { return Asked::No };
    match (cache, seen) {
        (Some(CacheWord::Hit | CacheWord::Miss), _) => Asked::Surely,
        // It was counted before the answer began to be sent.
        (Some(CacheWord::Near), _) => Asked::Near,
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

/// The lives of the workers, one after the other.
struct Succession<'a> {
    /// When each was first seen, when it was last asked with success, its incarnation, and whose it was.
    lives: Vec<(Moment, Moment, &'a str, &'a str)>,
}

impl<'a> Succession<'a> {
    fn of(sights: &'a [Sight]) -> Self {
        let mut seen: BTreeMap<&str, (Moment, Moment, &str)> = BTreeMap::new();
        for sight in sights {
            let known = seen.entry(&sight.incarnation).or_insert((sight.end, sight.start, &sight.worker));
            *known = (known.0.min(sight.end), known.1.max(sight.start), known.2);
        }
        let lives = seen.into_iter().map(|(life, (first, last, worker))| (first, last, life, worker));
        let mut lives: Vec<_> = lives.collect();
        lives.sort_unstable();
        Self { lives }
    }

    /// The counts that killed workers had not handed over. For each kill it is the time from the last window that has
    /// its row to the kill, or to when another worker served.
    fn tails(&self, windows: &BTreeMap<String, Vec<&WindowRow>>, struck: &[Struck]) -> Vec<Lost> {
        let mut lost = Vec::new();
        let mut kills: Vec<&KilledWorker> =
            struck.iter().flat_map(|struck| &struck.strike.killed_workers).collect();
        kills.sort_unstable_by_key(|killed| killed.at);
        let mut killed_before: BTreeMap<&str, Moment> = BTreeMap::new();
        for killed in kills {
            let before = killed_before.insert(&killed.worker, killed.at);
            // The life that the kill ended, if that worker served; else one that had ended before, of which
            // windows may still have waited.
            let is_it = |life: &(Moment, Moment, &str, &str)| life.0 <= killed.at && life.3 == killed.worker;
            let at = self.lives.iter().rposition(is_it);
            let seen = at.map(|at| self.lives[at]).filter(|life| before.is_none_or(|before| before < life.0));
            lost.extend(match (at.zip(seen), before) {
                (Some((at, (first, _, life, _))), _) => {
                    let next = self.lives.get(at + 1).map_or(Moment::MAX, |next| next.0);
                    let last = windows.get(life).and_then(|windows| windows.last());
                    // By a clock that was set, a window may have been at any time.
                    let from = last.map_or(first, |window| window.end).max(first);
                    Some(Lost { from, to: killed.at.min(next), what: What::Windows })
                }
                // It was killed again so soon that no sight shows whether it, or another worker, served in between.
                (None, Some(before)) if !self.has_seen_any(before, killed.at) => {
                    Some(Lost { from: before, to: killed.at, what: What::Windows })
                }
                (None, _) => None,
            });
        }
        lost
    }

    /// Whether some life was seen between these moments, or before and after.
    fn has_seen_any(&self, from: Moment, to: Moment) -> bool {
        self.lives.iter().any(|(first, last, ..)| *first < to && *last > from)
    }

    /// Wherever one life followed another that did not leave by itself: the report of each gateway that was
    /// under way when that life ended, or else its first one afterwards, which has hits until the leases end.
    fn reports_in_doubt(&self, struck: &[Struck]) -> Vec<Lost> {
        let pairs = self.lives.windows(2).filter(|pair| {
            let cause = struck.iter().map(|struck| &struck.strike).filter(|strike| strike.began <= pair[1].0);
            cause.max_by_key(|strike| strike.began).is_none_or(|strike| !lets_workers_leave(strike))
        });
        let lost = pairs.map(|pair| Lost {
            from: pair[0].1.saturating_sub(UNREPORTED + UNDER_WAY),
            to: pair[0].1 + NEAR_LEASE + UNREPORTED,
            what: What::NearHits(None),
        });
        lost.collect()
    }
}

/// Whether workers that ended in a strike were asked to.
fn lets_workers_leave(strike: &Strike) -> bool {
    strike.kind.lets_workers_leave() && strike.killed_workers.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::faults::check::tests::struck;
    use crate::faults::history::Seen;
    use crate::faults::strike::Kind;

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
            near_hits: 0,
        }
    }

    fn reads(count: usize, at: Moment, cache: Option<CacheWord>) -> Vec<Record> {
        let did = Did::Read { key: 0, seen: Ok(Seen::Nothing), cache };
        vec![Record { is_probe: false, gateway: 0, start: at, end: at + 1, did }; count]
    }

    fn violations(records: &[Record], windows: &[WindowRow], struck: &[Struck]) -> usize {
        let sight = Sight { start: 0, end: 1, worker: "memcache-1".into(), incarnation: "a".into() };
        check(records, windows, struck, &[sight], &[]).violations.len()
    }

    /// The same windows with near hits in them.
    fn near_windows(windows: &[WindowRow], near_hits: u64) -> Vec<WindowRow> {
        let near =
            |window: &WindowRow| WindowRow { near_hits: near_hits.min(window.requests), ..window.clone() };
        windows.iter().map(near).collect()
    }

    #[test]
    fn near_hits_count_and_a_killed_gateway_may_lack_its_last_ones_and_no_others() {
        let windows = near_windows(&[window("a", 1, 5), window("a", 2, 5)], 5);
        let hits = |count, at| reads(count, at, Some(CacheWord::Near));
        assert_eq!(violations(&hits(10, SECOND), &windows, &[]), 0);
        // One that has no row, and a row that has none; also as near hits.
        assert_eq!(violations(&hits(11, SECOND), &windows, &[]), 2);
        assert_eq!(violations(&hits(9, SECOND), &windows, &[]), 2);
        let far = reads(1, SECOND, Some(CacheWord::Hit));
        assert_eq!(violations(&[hits(9, SECOND), far].concat(), &windows, &[]), 1);

        let kill = |gateway| {
            let mut kill = struck(Kind::GatewayKilled, 4 * SECOND, 4 * SECOND);
            kill.strike.killed_gateways.push((gateway, 4 * SECOND));
            kill
        };
        let with = |late| [hits(10, SECOND), hits(3, late)].concat();
        let before = 4 * SECOND - (UNREPORTED + UNDER_WAY);
        assert_eq!(violations(&with(before), &windows, &[kill(0)]), 0);
        assert_eq!(violations(&with(before - 2), &windows, &[kill(0)]), 2, "long before");
        assert_eq!(violations(&with(4 * SECOND + 1), &windows, &[kill(0)]), 2, "afterwards");
        assert_eq!(violations(&with(before), &windows, &[kill(1)]), 2, "of the other gateway");
        let far = reads(3, before, Some(CacheWord::Hit));
        assert_eq!(violations(&[hits(10, SECOND), far].concat(), &windows, &[kill(0)]), 1, "far hits");
        // They may not be counted twice either.
        let doubled = near_windows(&[window("a", 1, 5), window("a", 2, 9)], 9);
        assert_eq!(violations(&with(before), &doubled, &[kill(0)]), 2);
    }

    #[test]
    fn a_report_may_be_lost_with_the_life_it_was_sent_to_unless_that_left_by_itself() {
        let windows = near_windows(&[window("a", 1, 5), window("b", 1, 5)], 5);
        let sight = |incarnation: &str, at| Sight {
            start: at,
            end: at + 1,
            worker: "memcache-1".into(),
            incarnation: incarnation.into(),
        };
        let sights = [sight("a", SECOND), sight("a", 5 * SECOND), sight("b", 9 * SECOND)];
        let count = |kind, at| {
            let history = [10, 2]
                .map(|count| reads(count, if count == 10 { SECOND } else { at }, Some(CacheWord::Near)));
            let strike = struck(kind, 5 * SECOND, 9 * SECOND);
            check(&history.concat(), &windows, &[strike], &sights, &[]).violations.len()
        };
        assert_eq!(count(Kind::WorkerStoppedPastItsClaim, 5 * SECOND + NEAR_LEASE), 0);
        assert_eq!(
            count(Kind::WorkerStoppedPastItsClaim, 7 * SECOND),
            2,
            "no report was sent to it any more"
        );
        assert_eq!(count(Kind::TwoWorkersAtOnce, 5 * SECOND), 2);
    }

    #[test]
    fn near_hits_in_a_window_that_is_lost_were_served_before_it() {
        let windows = near_windows(&[window("a", 1, 5), window("a", 2, 5)], 5);
        let mut kill = struck(Kind::WorkerKilled, 4 * SECOND, 4 * SECOND);
        kill.strike.killed_workers.push(KilledWorker { worker: "memcache-1".into(), at: 4 * SECOND });
        let with = |at| {
            [10, 3].map(|count| reads(count, if count == 10 { SECOND } else { at }, Some(CacheWord::Near)))
        };
        assert_eq!(violations(&with(3 * SECOND - UNREPORTED).concat(), &windows, &[kill.clone()]), 0);
        assert_eq!(violations(&with(2 * SECOND).concat(), &windows, &[kill]), 2);
    }

    #[test]
    fn a_hit_without_rows_may_count_twice_and_no_other() {
        let windows = [window("a", 1, 5), window("a", 2, 6)];
        let with = |at, kind| {
            let history = [(9, SECOND), (1, at)].map(|(count, at)| reads(count, at, Some(CacheWord::Hit)));
            violations(&history.concat(), &windows, &[struck(kind, 4 * SECOND, 5 * SECOND)])
        };
        assert_eq!(with(4 * SECOND, Kind::MariaDbAway), 0);
        assert_eq!(with(6 * SECOND, Kind::MariaDbAway), 1, "later");
        assert_eq!(with(4 * SECOND, Kind::RecorderAway), 1, "with rows");
    }

    #[test]
    fn what_is_missing_between_two_calms_is_not_made_good_by_what_is_too_much_between_two_others() {
        let hits = |count, at| reads(count, at, Some(CacheWord::Hit));
        let history = [hits(5, SECOND), hits(5, 3 * SECOND)].concat();
        let windows = [window("a", 1, 5), window("a", 2, 5)];
        let sums = |first, second| {
            let calms =
                [(2, first), (4, second)].map(|(at, gets)| Counted { at: at * SECOND, gets, near: 0 });
            check(&history, &windows, &[], &[], &calms).violations.len()
        };
        assert_eq!(sums(5, 10), 0);
        assert_eq!(sums(6, 10), 2);
        assert_eq!(sums(5, 9), 1);
        assert_eq!(sums(5, 11), 1);
        // It is found, also if it comes later.
        assert_eq!(sums(4, 10), 1);
        let near = reads(5, SECOND, Some(CacheWord::Near));
        let windows = near_windows(&[window("a", 1, 5)], 5);
        let near_sum = |near_hits| {
            let calm = Counted { at: 2 * SECOND, gets: 5, near: near_hits };
            check(&near, &windows, &[], &[], &[calm]).violations.len()
        };
        assert_eq!([4, 5, 6].map(near_sum), [1, 0, 1]);
        let complete = |gets| {
            let (before, now) =
                (Counted { at: 2 * SECOND, gets: 5, near: 0 }, Counted { at: 4 * SECOND, gets, near: 0 });
            is_complete(&history, &windows, &[], &[], before, now)
        };
        assert!(!complete(9) && complete(10));
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
    fn a_worker_that_is_killed_twice_may_have_served_in_between_though_nobody_saw_it() {
        let windows = [window("a", 1, 5), window("a", 2, 5)];
        let kill = |at| {
            let mut kill = struck(Kind::EverythingKilled, at, at);
            kill.strike.killed_workers.push(KilledWorker { worker: "memcache-1".into(), at });
            kill
        };
        let kills = [kill(4 * SECOND), kill(8 * SECOND)];
        let with = |at| {
            [10, 3].map(|count| reads(count, if count == 10 { SECOND } else { at }, Some(CacheWord::Hit)))
        };
        assert_eq!(violations(&with(7 * SECOND).concat(), &windows, &kills), 0);
        assert_eq!(violations(&with(9 * SECOND).concat(), &windows, &kills), 1);
        assert_eq!(violations(&with(7 * SECOND).concat(), &windows, &kills[..1]), 1);
        // A standby has nothing to lose.
        let sight = |worker: &str, incarnation: &str, at| Sight {
            start: at,
            end: at,
            worker: worker.into(),
            incarnation: incarnation.into(),
        };
        let mut sights = vec![sight("memcache-1", "a", 1)];
        sights.extend([5, 9].map(|at| sight("memcache-2", "b", at * SECOND)));
        assert_eq!(check(&with(7 * SECOND).concat(), &windows, &kills, &sights, &[]).violations.len(), 1);
    }

    #[test]
    fn windows_by_a_clock_that_was_set_excuse_nothing_before_their_life() {
        let windows = [window("a", 1, 5), window("a", 2, 5)];
        let sight = |incarnation: &str, at| Sight {
            start: at,
            end: at,
            worker: "memcache-1".into(),
            incarnation: incarnation.into(),
        };
        let mut kill = struck(Kind::WorkerKilled, 90 * SECOND, 90 * SECOND);
        kill.strike.killed_workers.push(KilledWorker { worker: "memcache-1".into(), at: 90 * SECOND });
        let count = |at| {
            let history = [10, 3]
                .map(|count| reads(count, if count == 10 { SECOND } else { at }, Some(CacheWord::Hit)));
            check(&history.concat(), &windows, &[kill.clone()], &[sight("a", 60 * SECOND)], &[])
                .violations
                .len()
        };
        assert_eq!((count(70 * SECOND), count(50 * SECOND)), (0, 1));
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
