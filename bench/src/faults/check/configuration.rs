//! Configuration: the last acknowledged change is in force after any restart, and stands in the history
//! once.

use std::collections::BTreeMap;

use super::Verdict;
use crate::faults::history::{Moment, seconds};
use crate::faults::load::{Change, InForce, Setting};
use crate::faults::rows::PropertyRow;

/// The configurations that both gateways reported at a moment of calm.
#[derive(Debug, Clone)]
pub(crate) struct Said {
    pub(crate) at: Moment,
    pub(crate) in_force: [Option<InForce>; 2],
}

/// Checks what was said against what was asked for, and the rows against both. `first` is what the system
/// starts with.
pub(crate) fn check(changes: &[Change], said: &[Said], rows: &[PropertyRow], first: &Setting) -> Verdict {
    let mut violations = Vec::new();
    let calms: Vec<Moment> = said.iter().map(|said| said.at).collect();
    for said in said {
        let at = seconds(said.at);
        let allowed = allowed(changes, said.at, &calms, first);
        for (gateway, in_force) in said.in_force.iter().enumerate() {
            let setting = in_force.as_ref().and_then(|in_force| in_force.setting.as_ref());
            if !setting.is_some_and(|setting| allowed.contains(&setting)) {
                violations.push(format!(
                    "at {at:.3} s gateway {} says {in_force:?}, and {allowed:?} are possible",
                    gateway + 1
                ));
            }
        }
        if said.in_force[0] != said.in_force[1] {
            violations.push(format!("at {at:.3} s the gateways disagree: {:?}", said.in_force));
        }
    }
    for change in changes {
        let Some(answered) = &change.answered else { continue };
        let is_there = rows.iter().any(|row| {
            row.revision == answered.revision
                && answered.setting.as_ref().is_none_or(|setting| {
                    setting.capacity_mb == row.capacity_mb && setting.policy == row.policy
                })
        });
        if !is_there {
            violations.push(format!(
                "the change answered at {:.3} s has no row: {answered:?}",
                seconds(change.end)
            ));
        }
        if change.asked.is_some() && change.asked != answered.setting {
            violations.push(format!("{:?} was asked for, and {:?} answered", change.asked, answered.setting));
        }
    }
    let mut buckets: BTreeMap<_, Vec<u64>> = BTreeMap::new();
    for row in rows {
        buckets.entry(row.bucket).or_default().push(row.revision);
    }
    for revisions in buckets.values() {
        if revisions.iter().copied().ne(1..=revisions.len() as u64) {
            violations.push(format!("the revisions of one bucket are not 1, 2, 3, …: {revisions:?}"));
        }
    }
    // The last row says what is in force: that of the last moment of calm, after which nobody changed it.
    if let (Some(said), Some(row)) = (said.last(), rows.last()) {
        let setting = Setting { capacity_mb: row.capacity_mb, policy: row.policy.clone() };
        let in_force = said.in_force[0].as_ref();
        if in_force.is_none_or(|in_force| in_force.setting.as_ref() != Some(&setting)) {
            violations.push(format!("the last row is {row:?}, and in force is {in_force:?}"));
        }
    }
    let answered = changes.iter().filter(|change| change.answered.is_some()).count();
    Verdict {
        promise: "Configuration: the last acknowledged change is in force, and in the history, once",
        looked_at: format!(
            "{answered} acknowledged changes and clears, asked back at {} moments of calm; {} rows",
            said.len(),
            rows.len()
        ),
        violations,
    }
}

/// The settings that may be in force at a moment: the last one that was acknowledged, and those asked for without
/// an answer. Such a request may have waited somewhere, and take effect after one that was sent later, but before
/// the next calm.
fn allowed<'a>(changes: &'a [Change], at: Moment, calms: &[Moment], first: &'a Setting) -> Vec<&'a Setting> {
    // With each, until when its request may be on its way.
    let mut allowed = vec![(first, 0)];
    for change in changes.iter().filter(|change| change.end <= at) {
        let calm = calms.iter().copied().find(|calm| *calm >= change.end).unwrap_or(Moment::MAX);
        match (&change.asked, &change.answered) {
            (Some(asked), Some(_)) => {
                allowed.retain(|(_, until)| *until >= change.start);
                allowed.push((asked, 0));
            }
            (Some(asked), None) => allowed.push((asked, calm)),
            (None, _) => {}
        }
    }
    allowed.into_iter().map(|(setting, _)| setting).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::OffsetDateTime;

    fn setting(capacity_mb: u64) -> Setting {
        Setting { capacity_mb, policy: "lru".into() }
    }

    fn in_force(revision: u64, capacity_mb: u64) -> InForce {
        InForce { revision, setting: Some(setting(capacity_mb)) }
    }

    fn change(at: Moment, capacity_mb: u64, revision: Option<u64>) -> Change {
        let answered = revision.map(|revision| in_force(revision, capacity_mb));
        Change { start: at, end: at + 1, asked: Some(setting(capacity_mb)), answered }
    }

    fn said(at: Moment, capacity_mb: u64) -> Said {
        Said { at, in_force: [0; 2].map(|_| Some(in_force(0, capacity_mb))) }
    }

    fn rows(capacities: &[u64]) -> Vec<PropertyRow> {
        let bucket = OffsetDateTime::UNIX_EPOCH;
        let numbered = capacities.iter().zip(1..);
        numbered
            .map(|(capacity_mb, revision)| PropertyRow {
                bucket,
                revision,
                capacity_mb: *capacity_mb,
                policy: "lru".into(),
            })
            .collect()
    }

    fn violations(changes: &[Change], said: &[Said], rows: &[PropertyRow]) -> usize {
        check(changes, said, rows, &setting(64)).violations.len()
    }

    #[test]
    fn the_last_acknowledged_change_or_an_unanswered_one_after_it_is_in_force() {
        let changes = [change(1, 2, Some(2)), change(3, 8, Some(3)), change(5, 32, None)];
        assert_eq!(violations(&changes, &[said(10, 8)], &rows(&[64, 2, 8])), 0);
        assert_eq!(violations(&changes, &[said(10, 32)], &rows(&[64, 2, 8, 32])), 0);
        assert_eq!(violations(&changes, &[said(10, 2)], &rows(&[64, 2, 8, 2])), 2);
    }

    #[test]
    fn an_unanswered_change_may_come_behind_a_later_one_and_not_behind_the_calm() {
        let mut changes = vec![change(1, 2, None), change(3, 8, Some(3))];
        assert_eq!(violations(&changes, &[said(10, 2)], &rows(&[64, 8, 8, 2])), 0);
        changes.push(change(11, 16, Some(4)));
        assert_eq!(violations(&changes, &[said(10, 8), said(20, 2)], &rows(&[64, 2, 8, 16, 2])), 2);
    }

    #[test]
    fn a_change_without_a_row_a_gap_and_a_history_that_lags_are_found() {
        let changes = [change(1, 2, Some(2)), change(3, 8, Some(3))];
        assert_eq!(violations(&changes, &[], &rows(&[64, 2])), 1);
        let mut gap = rows(&[64, 2, 8, 8]);
        gap.remove(0);
        assert_eq!(violations(&changes, &[], &gap), 1);
        assert_eq!(violations(&changes, &[said(10, 8)], &rows(&[64, 2, 8, 2])), 1);
        let [mut one, _] = [said(10, 8), said(10, 8)];
        one.in_force[1] = None;
        assert_eq!(violations(&changes, &[one], &rows(&[64, 2, 8])), 2);
    }
}
