//! Durability: an answered upload is read back byte for byte after every fault, every key has its old or
//! its new image, whole, and the sweep removes what no row names and nothing else.

use std::collections::{BTreeMap, BTreeSet};

use super::Verdict;
use crate::faults::history::{Did, Failure, KeyId, Moment, Outcome, Record, Seen, seconds};
use crate::faults::image::ImageId;

/// The result of the sweep at the end.
#[derive(Debug, Clone, Default)]
pub(crate) struct Swept {
    /// Files before it that no row named.
    pub(crate) unnamed_before: usize,
    /// Files after it that no row names.
    pub(crate) unnamed_after: Vec<String>,
    /// Files after it that a row names and that are not there.
    pub(crate) missing: Vec<String>,
}

/// Checks what was read at each calm, from its beginning to its end, against what was written before.
pub(crate) fn check(records: &[Record], keys: usize, calms: &[(Moment, Moment)], swept: &Swept) -> Verdict {
    let mut violations = Vec::new();
    for record in records {
        violations.extend(damage(record));
    }
    let starts: Vec<Moment> = calms.iter().map(|(start, _)| *start).collect();
    let mut looked_at = 0;
    for (start, end) in calms {
        let mut seen: BTreeMap<KeyId, BTreeMap<usize, Result<Seen, Failure>>> = BTreeMap::new();
        for record in records.iter().filter(|record| record.start >= *start && record.end <= *end) {
            if let Did::Read { key, seen: found, .. } = &record.did {
                seen.entry(*key).or_default().insert(record.gateway, *found);
                looked_at += 1;
            }
        }
        for key in 0..keys {
            let at = seconds(*start);
            let Some(found) = seen.get(&key).filter(|found| found.len() == 2) else {
                violations.push(format!("key {key} was not read back at {at:.3} s"));
                continue;
            };
            let allowed = allowed(records, key, *start, &starts);
            for (gateway, found) in found {
                let is_allowed = match found {
                    Ok(Seen::Image(id)) => allowed.contains(&Some(*id)),
                    Ok(Seen::Nothing) => allowed.contains(&None),
                    _ => false,
                };
                if !is_allowed {
                    violations.push(format!(
                        "key {key} at {at:.3} s through gateway {}: {found:?}, and {allowed:?} are possible",
                        gateway + 1
                    ));
                }
            }
            if found.values().collect::<Vec<_>>().windows(2).any(|pair| pair[0] != pair[1]) {
                violations.push(format!("key {key} at {at:.3} s: the gateways disagree: {found:?}"));
            }
        }
    }
    for file in &swept.unnamed_after {
        violations.push(format!("the sweep left {file}, which no row names"));
    }
    for file in &swept.missing {
        violations.push(format!("{file} is named by a row and gone"));
    }
    let looked_at = format!(
        "{looked_at} reads at {} moments of calm; {} files that no row named, swept",
        calms.len(),
        swept.unnamed_before
    );
    Verdict {
        promise: "Durability: answered uploads are there, whole; the sweep removes just what no row names",
        looked_at,
        violations,
    }
}

/// The damage that a record shows: a result that must never be seen or answered, at any time.
fn damage(record: &Record) -> Option<String> {
    let at = seconds(record.end);
    match record.did {
        Did::Read { key, seen: Ok(Seen::Damaged), .. } => {
            Some(format!("key {key} at {at:.3} s: bytes that nobody has uploaded"))
        }
        Did::Wrote { key, outcome: Outcome::Unknown(Failure::Status(status @ 400..500)), .. } => {
            Some(format!("key {key} at {at:.3} s: an honest change was refused with {status}"))
        }
        _ => None,
    }
}

/// The images, or none, that `key` may have at `calm`: those of writes behind which no other one has
/// certainly come.
fn allowed(records: &[Record], key: KeyId, calm: Moment, calms: &[Moment]) -> BTreeSet<Option<ImageId>> {
    let mut writes: Vec<(Moment, Moment, bool, Option<ImageId>)> = vec![(0, 0, true, None)];
    for record in records.iter().filter(|record| record.end <= calm) {
        let (value, outcome) = match &record.did {
            Did::Wrote { key: other, image, outcome } if *other == key => (*image, *outcome),
            Did::DeletedAll { outcome } => (None, *outcome),
            _ => continue,
        };
        let late = calms.iter().copied().find(|calm| *calm >= record.end).unwrap_or(calm);
        match outcome {
            Outcome::Done { .. } => writes.push((record.start, record.end, true, value)),
            Outcome::StillTelling => writes.push((record.start, late, true, value)),
            Outcome::Unknown(_) => writes.push((record.start, late, false, value)),
            Outcome::NotSent => {}
        }
    }
    let last_certain = writes.iter().filter(|write| write.2).map(|write| write.0).max().unwrap_or_default();
    writes.iter().filter(|write| write.1 >= last_certain).map(|write| write.3).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(gateway: usize, start: Moment, did: Did) -> Record {
        Record { is_probe: false, gateway, start, end: start + 1, did }
    }

    fn wrote(start: Moment, image: Option<ImageId>, outcome: Outcome) -> Record {
        record(0, start, Did::Wrote { key: 0, image, outcome })
    }

    fn read_back(start: Moment, seen: Seen) -> [Record; 2] {
        [0, 1].map(|gateway| record(gateway, start, Did::Read { key: 0, seen: Ok(seen), cache: None }))
    }

    fn violations(records: &[Record]) -> usize {
        check(records, 1, &[(100, 200)], &Swept::default()).violations.len()
    }

    const DONE: Outcome = Outcome::Done { found: None };
    const LOST: Outcome = Outcome::Unknown(Failure::Lost);

    #[test]
    fn the_last_answered_upload_is_read_back_or_one_that_may_have_come_behind_it() {
        let history = [wrote(1, Some(1), DONE), wrote(3, Some(2), DONE), wrote(5, Some(3), LOST)];
        let with = |seen| violations(&[&history[..], &read_back(110, seen)].concat());
        assert_eq!((with(Seen::Image(2)), with(Seen::Image(3))), (0, 0));
        assert_eq!((with(Seen::Image(1)), with(Seen::Nothing)), (2, 2));
    }

    #[test]
    fn gateways_that_disagree_keys_that_were_not_read_and_bytes_of_nobody_are_found() {
        let history = [wrote(1, Some(1), DONE), wrote(3, Some(2), LOST)];
        let [one, _] = read_back(110, Seen::Image(1));
        let [_, other] = read_back(110, Seen::Image(2));
        assert_eq!(violations(&[&history[..], &[one.clone(), other]].concat()), 1);
        assert_eq!(violations(&[&history[..], &[one]].concat()), 1);
        let damaged = read_back(50, Seen::Damaged);
        let fine = read_back(110, Seen::Image(1));
        assert_eq!(violations(&[&history[..], &damaged, &fine].concat()), 2);
    }

    #[test]
    fn a_refused_upload_and_a_sweep_that_errs_are_found() {
        let refused = wrote(1, Some(1), Outcome::Unknown(Failure::Status(413)));
        assert_eq!(violations(&[&[refused][..], &read_back(110, Seen::Nothing)].concat()), 1);
        let swept = Swept { unnamed_before: 2, unnamed_after: vec!["a".into()], missing: vec!["b".into()] };
        assert_eq!(check(&[], 0, &[], &swept).violations.len(), 2);
    }
}
