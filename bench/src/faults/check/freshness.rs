//! Freshness: no read that began after an upload or deletion was answered returns an older image, through
//! either gateway. Each key is a register, and its history has to be linearizable (Herlihy and Wing 1990).
//!
//! Keys are checked one by one, which suffices because linearizability is local. The search is Wing and
//! Gong's (*Testing and Verifying Concurrent Objects*, JPDC 1993) in the form of Lowe's just-in-time
//! linearization (*Testing for Linearizability*, CCPE 2017): the history is gone through in time, with all
//! configurations that could have been reached so far, each once: the register's value and which of the
//! open operations have taken effect. An operation is made to take effect when its own answer needs it to,
//! together with those before it that this needs.
//!
//! One thing is left out on purpose. While an upload is unanswered, the protocol gives a *regular* register
//! (Lamport 1986): one reader may see the new image from its file and a later one the old image from the
//! cache, until the upload is answered. So a read that overlaps the very write whose image it returns is
//! valid as such. All other reads, and all writes, have to be linearizable.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::Verdict;
use crate::faults::history::{CacheWord, Did, KeyId, Moment, Outcome, Record, Seen, Sent, seconds};
use crate::faults::image::ImageId;

/// The results of the search.
#[derive(Debug, Default)]
pub(crate) struct Checked {
    /// The number of reads that were checked.
    pub(crate) reads: usize,
    /// The checked reads that a gateway answered from a copy of its own.
    pub(crate) near: usize,
    /// The checked reads that overlap the write whose image they return.
    pub(crate) overlapping: usize,
    /// The number of writes that were checked.
    pub(crate) writes: usize,
    /// The checked writes that were never answered.
    pub(crate) unanswered: usize,
    /// A sentence for each key whose history is not linearizable.
    pub(crate) violations: Vec<String>,
}

impl Checked {
    /// For the report.
    pub(crate) fn verdict(self) -> Verdict {
        Verdict {
            promise: "Freshness: after an upload or deletion is answered, no read returns an older image",
            looked_at: format!(
                "{} reads, {} of which were near hits and {} overlap the write that they return; {} writes, {} of \
                 which were never answered",
                self.reads, self.near, self.overlapping, self.writes, self.unanswered
            ),
            violations: self.violations,
        }
    }
}

/// Checks the history of every key. `calms` are the moments at which nothing was open or pending any more:
/// a write that was not answered is over by then.
pub(crate) fn check(records: &[Record], images: &[Sent], calms: &[Moment]) -> Checked {
    let is_near =
        |record: &&Record| matches!(record.did, Did::Read { cache: Some(CacheWord::Near), seen: Ok(_), .. });
    let mut checked = Checked { near: records.iter().filter(is_near).count(), ..Checked::default() };
    for (key, operations) in by_key(records, images, calms, &mut checked.violations) {
        let (operations, overlapping) = without_overlapping(operations);
        let is_read = |operation: &&Operation| matches!(operation.what, What::Read(_));
        let reads = operations.iter().filter(is_read).count();
        checked.reads += reads + overlapping;
        checked.overlapping += overlapping;
        checked.writes += operations.len() - reads;
        checked.unanswered += operations
            .iter()
            .filter(|operation| matches!(operation.what, What::Write { certain: false, .. }))
            .count();
        if let Err(at) = linearize(&operations) {
            checked.violations.push(explain(key, &operations, at));
        }
    }
    checked
}

/// One operation on one key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Operation {
    start: Moment,
    end: Moment,
    gateway: usize,
    what: What,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Read(Seen),
    Write {
        /// The image, or `None` for a deletion.
        value: Option<ImageId>,
        /// Whether there was an image before it, if it said so.
        found: Option<bool>,
        /// Whether it took effect at all.
        certain: bool,
    },
}

/// The operations of each key that has any.
fn by_key(
    records: &[Record],
    images: &[Sent],
    calms: &[Moment],
    violations: &mut Vec<String>,
) -> BTreeMap<KeyId, Vec<Operation>> {
    let keys: BTreeSet<KeyId> = records
        .iter()
        .filter_map(|record| match record.did {
            Did::Read { key, .. } | Did::Wrote { key, .. } => Some(key),
            Did::DeletedAll { .. } | Did::Listed { .. } => None,
        })
        .collect();
    let mut by_key: BTreeMap<KeyId, Vec<Operation>> = keys.iter().map(|key| (*key, Vec::new())).collect();
    let mut add = |key: KeyId, record: &Record, end: Moment, what: What| {
        let operation = Operation { start: record.start, end, gateway: record.gateway, what };
        by_key.entry(key).or_default().push(operation);
    };
    let written = |record: &Record, value: Option<ImageId>, outcome: Outcome| {
        let calm = calms.iter().copied().find(|calm| *calm >= record.end).unwrap_or(Moment::MAX);
        Some(match outcome {
            Outcome::Done { found } => (record.end, What::Write { value, found, certain: true }),
            Outcome::StillTelling => (calm, What::Write { value, found: None, certain: true }),
            Outcome::Unknown(_) => (calm, What::Write { value, found: None, certain: false }),
            Outcome::NotSent => return None,
        })
    };
    for record in records {
        match &record.did {
            Did::Read { key, seen: Ok(seen), .. } => {
                if let Seen::Image(id) = seen
                    && images.get(*id as usize).map(|sent| sent.key) != Some(*key)
                {
                    violations.push(format!("key {key}: a read returned image {id}, which is another key's"));
                    continue;
                }
                // Damaged bytes are for another check to report.
                if *seen != Seen::Damaged {
                    add(*key, record, record.end, What::Read(*seen));
                }
            }
            Did::Wrote { key, image, outcome } => {
                if let Some((end, what)) = written(record, *image, *outcome) {
                    add(*key, record, end, what);
                }
            }
            Did::DeletedAll { outcome } => {
                for key in &keys {
                    // How many there were says nothing about one of them.
                    let outcome = match outcome {
                        Outcome::Done { .. } => Outcome::Done { found: None },
                        other => *other,
                    };
                    if let Some((end, what)) = written(record, None, outcome) {
                        add(*key, record, end, what);
                    }
                }
            }
            Did::Listed { keys: Ok(listed) } => {
                for key in &keys {
                    let seen = if listed.contains(key) { Seen::Something } else { Seen::Nothing };
                    add(*key, record, record.end, What::Read(seen));
                }
            }
            Did::Read { seen: Err(_), .. } | Did::Listed { keys: Err(_) } => {}
        }
    }
    by_key
}

/// Takes out the reads that overlap a write whose image they return, and says how many they were.
fn without_overlapping(operations: Vec<Operation>) -> (Vec<Operation>, usize) {
    let mut by_value: BTreeMap<Option<ImageId>, Vec<(Moment, Moment)>> = BTreeMap::new();
    for operation in &operations {
        if let What::Write { value, .. } = operation.what {
            by_value.entry(value).or_default().push((operation.start, operation.end));
        }
    }
    let before = operations.len();
    let overlaps = |operation: &Operation, value: Option<ImageId>| {
        let writes = by_value.get(&value).map_or(&[][..], Vec::as_slice);
        writes.iter().any(|(start, end)| *start <= operation.end && operation.start <= *end)
    };
    let kept: Vec<Operation> = operations
        .into_iter()
        .filter(|operation| match operation.what {
            What::Read(Seen::Image(id)) => !overlaps(operation, Some(id)),
            What::Read(Seen::Nothing) => !overlaps(operation, None),
            What::Read(Seen::Something) => {
                !by_value.keys().flatten().any(|value| overlaps(operation, Some(*value)))
            }
            What::Read(Seen::Damaged) | What::Write { .. } => true,
        })
        .collect();
    let overlapping = before - kept.len();
    (kept, overlapping)
}

/// How many operations may be open at once: as many as `done` has bits.
const PLACES: usize = 128;

/// A state that may have been reached: what the register holds, and which of the open operations, by their
/// places, have taken effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Configuration {
    value: Option<ImageId>,
    done: u128,
}

/// Goes through the history; on failure, the index of the operation whose answer nothing can explain.
fn linearize(operations: &[Operation]) -> Result<(), usize> {
    let mut search = Search::new(operations);
    for (_, is_end, at) in events(operations) {
        if is_end {
            search.end(at)?;
        } else {
            search.begin(at)?;
        }
    }
    Ok(())
}

/// The beginnings and ends in time. At one moment beginnings come first: then both orders are possible.
fn events(operations: &[Operation]) -> Vec<(Moment, bool, usize)> {
    let mut events: Vec<(Moment, bool, usize)> = Vec::with_capacity(operations.len() * 2);
    for (at, operation) in operations.iter().enumerate() {
        events.push((operation.start, false, at));
        events.push((operation.end, true, at));
    }
    events.sort_unstable();
    events
}

/// Stands for all images that no read has seen: no answer depends on which of them it is.
const UNSEEN: ImageId = ImageId::MAX;

struct Search<'a> {
    operations: &'a [Operation],
    /// The images that some read has seen.
    seen: BTreeSet<ImageId>,
    /// The open operations; an index here is a bit in `done`.
    places: [Option<usize>; PLACES],
    reached: HashSet<Configuration>,
}

impl<'a> Search<'a> {
    fn new(operations: &'a [Operation]) -> Self {
        let start = Configuration { value: None, done: 0 };
        let seen = operations.iter().filter_map(|operation| match operation.what {
            What::Read(Seen::Image(id)) => Some(id),
            _ => None,
        });
        Self { operations, seen: seen.collect(), places: [None; PLACES], reached: HashSet::from([start]) }
    }

    fn begin(&mut self, at: usize) -> Result<(), usize> {
        let place = self.places.iter().position(Option::is_none).ok_or(at)?;
        self.places[place] = Some(at);
        if let What::Read(seen) = self.operations[at].what {
            // To see what is there changes nothing, so it is done as soon as it can be.
            let marked = self.reached.drain().map(|mut configuration| {
                if shows(seen, configuration.value) {
                    configuration.done |= 1 << place;
                }
                configuration
            });
            self.reached = marked.collect();
        }
        Ok(())
    }

    fn end(&mut self, at: usize) -> Result<(), usize> {
        let place = self.places.iter().position(|open| *open == Some(at)).ok_or(at)?;
        let mut reached = self.with(place);
        if matches!(self.operations[at].what, What::Write { certain: false, .. }) {
            // It has taken effect by now, or never will.
            reached.extend(&self.reached);
        }
        self.places[place] = None;
        self.reached = self.without_dominated(reached, !(1 << place));
        if self.reached.is_empty() { Err(at) } else { Ok(()) }
    }

    /// All configurations in which the operation at `target` is done, that can be reached from those before.
    fn with(&self, target: usize) -> HashSet<Configuration> {
        let mut found = HashSet::new();
        let mut seen = HashSet::new();
        let mut open: Vec<Configuration> = self.reached.iter().copied().collect();
        while let Some(configuration) = open.pop() {
            if configuration.done & (1 << target) != 0 {
                found.insert(configuration);
                continue;
            }
            let spares = self.spares(&configuration);
            for (place, at) in self.open() {
                let What::Write { value, found, certain } = self.operations[at].what else { continue };
                if !certain && place != target && !spares.contains(&place) {
                    continue;
                }
                let is_possible = configuration.done & (1 << place) == 0
                    && found.is_none_or(|found| found == configuration.value.is_some())
                    && (certain || place == target || self.is_of_use(&configuration, value));
                if is_possible {
                    let next = self.write(configuration, place, value);
                    if seen.insert(next) {
                        open.push(next);
                    }
                }
            }
        }
        found
    }

    /// Of the uncertain writes that are still to come, one of each value: that which is over first. Those of
    /// images that nobody has seen are as good as each other, and so are deletions.
    fn spares(&self, configuration: &Configuration) -> Vec<usize> {
        let mut first: BTreeMap<Option<ImageId>, (Moment, usize)> = BTreeMap::new();
        for (place, at) in self.open().filter(|(place, _)| configuration.done & (1 << place) == 0) {
            if let What::Write { value, certain: false, .. } = self.operations[at].what {
                let this = (self.operations[at].end, place);
                let known = first.entry(self.plain(value)).or_insert(this);
                *known = this.min(*known);
            }
        }
        first.into_values().map(|(_, place)| place).collect()
    }

    /// A value, as far as it can be told from others.
    fn plain(&self, value: Option<ImageId>) -> Option<ImageId> {
        value.map(|id| if self.seen.contains(&id) { id } else { UNSEEN })
    }

    /// Whether somebody needs a write that may as well never have happened: a read that sees just this, or
    /// a write that found it. Otherwise whatever comes next would be as possible without it.
    fn is_of_use(&self, configuration: &Configuration, value: Option<ImageId>) -> bool {
        self.open().any(|(place, at)| {
            configuration.done & (1 << place) == 0
                && match self.operations[at].what {
                    What::Read(seen) => shows(seen, value),
                    What::Write { found: Some(found), .. } => {
                        found == value.is_some() && found != configuration.value.is_some()
                    }
                    What::Write { found: None, .. } => false,
                }
        })
    }

    /// Lets a write take effect, and with it all open reads that see it.
    fn write(&self, from: Configuration, place: usize, value: Option<ImageId>) -> Configuration {
        let mut done = from.done | 1 << place;
        for (place, at) in self.open() {
            if matches!(self.operations[at].what, What::Read(seen) if shows(seen, value)) {
                done |= 1 << place;
            }
        }
        Configuration { value: self.plain(value), done }
    }

    fn open(&self) -> impl Iterator<Item = (usize, usize)> {
        self.places.iter().enumerate().filter_map(|(place, at)| at.map(|at| (place, at)))
    }

    /// Leaves out each configuration that another one makes superfluous: with the same value and the same
    /// certain writes and reads done, it has more of the uncertain ones still to come.
    fn without_dominated(&self, reached: HashSet<Configuration>, mask: u128) -> HashSet<Configuration> {
        let mut uncertain = 0;
        for (place, at) in self.open() {
            if matches!(self.operations[at].what, What::Write { certain: false, .. }) {
                uncertain |= 1 << place;
            }
        }
        let mut classes: BTreeMap<(Option<ImageId>, u128), Vec<u128>> = BTreeMap::new();
        for configuration in reached {
            let done = configuration.done & mask;
            let class = classes.entry((configuration.value, done & !uncertain)).or_default();
            let used = done & uncertain;
            if !class.iter().any(|other| other & used == *other) {
                class.retain(|other| used & other != used);
                class.push(used);
            }
        }
        let kept = classes.into_iter().flat_map(|((value, done), used)| {
            used.into_iter().map(move |used| Configuration { value, done: done | used })
        });
        kept.collect()
    }
}

fn shows(seen: Seen, value: Option<ImageId>) -> bool {
    match seen {
        Seen::Image(id) => value == Some(id),
        Seen::Nothing => value.is_none(),
        Seen::Something => value.is_some(),
        Seen::Damaged => false,
    }
}

/// How many operations are open at a moment.
fn at_once(operations: &[Operation], moment: Moment) -> usize {
    operations.iter().filter(|operation| operation.start <= moment && moment <= operation.end).count()
}

/// A sentence, and what happened to the key around it.
fn explain(key: KeyId, operations: &[Operation], at: usize) -> String {
    let culprit = operations[at];
    let mut text = format!("key {key}: nothing explains what was answered at {:.6} s:", seconds(culprit.end));
    let mut near: Vec<&Operation> = operations.iter().filter(|other| other.start <= culprit.end).collect();
    near.sort_by_key(|operation| operation.start);
    let writes = near.iter().rev().filter(|operation| matches!(operation.what, What::Write { .. })).take(12);
    let reads = near.iter().rev().filter(|operation| matches!(operation.what, What::Read(_))).take(8);
    let mut shown: Vec<&&Operation> = writes.chain(reads).collect();
    shown.sort_by_key(|operation| operation.start);
    if at_once(operations, culprit.start) > PLACES {
        text.push_str(&format!(
            " more than {PLACES} operations were open at once, which is too many to search"
        ));
    }
    for operation in shown {
        let end = if operation.end == Moment::MAX { f64::INFINITY } else { seconds(operation.end) };
        let mark = if **operation == culprit { "  <-- this" } else { "" };
        text.push_str(&format!(
            "\n    {:.6}–{end:.6} s, gateway {}: {:?}{mark}",
            seconds(operation.start),
            operation.gateway + 1,
            operation.what
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(start: Moment, end: Moment, seen: Seen) -> Operation {
        Operation { start, end, gateway: 0, what: What::Read(seen) }
    }

    fn put(start: Moment, end: Moment, id: ImageId) -> Operation {
        Operation {
            start,
            end,
            gateway: 0,
            what: What::Write { value: Some(id), found: None, certain: true },
        }
    }

    fn unanswered(start: Moment, end: Moment, id: ImageId) -> Operation {
        let what = What::Write { value: Some(id), found: None, certain: false };
        Operation { start, end, gateway: 0, what }
    }

    fn delete(start: Moment, end: Moment, found: Option<bool>) -> Operation {
        Operation { start, end, gateway: 0, what: What::Write { value: None, found, certain: true } }
    }

    fn is_fresh(operations: &[Operation]) -> bool {
        linearize(&without_overlapping(operations.to_vec()).0).is_ok()
    }

    use Seen::{Image, Nothing, Something};

    #[test]
    fn an_older_image_after_an_answered_upload_is_found() {
        assert!(is_fresh(&[put(0, 1, 1), put(2, 5, 2), read(6, 7, Image(2))]));
        assert!(!is_fresh(&[put(0, 1, 1), put(2, 5, 2), read(6, 7, Image(1))]));
        assert!(!is_fresh(&[put(0, 1, 1), delete(2, 5, None), read(6, 7, Image(1))]));
        assert!(!is_fresh(&[put(0, 1, 1), read(6, 7, Nothing)]));
        assert!(!is_fresh(&[put(0, 1, 1), put(2, 3, 2), read(4, 5, Image(2)), read(6, 7, Image(1))]));
    }

    #[test]
    fn while_an_upload_is_unanswered_readers_may_disagree_and_afterwards_they_may_not() {
        let both = [put(0, 1, 1), put(2, 9, 2), read(3, 4, Image(2)), read(5, 6, Image(1))];
        assert!(is_fresh(&both));
        let spanning = [put(0, 1, 1), put(2, 9, 2), read(3, 4, Image(2)), read(5, 12, Image(1))];
        assert!(is_fresh(&spanning));
        let after = [put(0, 1, 1), put(2, 9, 2), read(3, 4, Image(2)), read(10, 12, Image(1))];
        assert!(!is_fresh(&after));
    }

    #[test]
    fn two_uploads_at_once_end_in_one_order_for_all() {
        let uploads = [put(0, 9, 1), put(1, 8, 2)];
        let seen = |one, other| is_fresh(&[&uploads[..], &[read(10, 11, one), read(12, 13, other)]].concat());
        assert!(seen(Image(1), Image(1)) && seen(Image(2), Image(2)));
        assert!(!seen(Image(1), Image(2)) && !seen(Image(2), Image(1)));
    }

    #[test]
    fn an_unanswered_upload_may_take_effect_late_or_never_but_not_twice_and_not_after_the_calm() {
        let upload = [put(0, 1, 1), unanswered(2, 20, 2)];
        let then = |reads: &[Operation]| is_fresh(&[&upload[..], reads].concat());
        assert!(then(&[read(30, 31, Image(1))]));
        assert!(then(&[read(30, 31, Image(2))]));
        assert!(then(&[read(5, 6, Image(1)), read(30, 31, Image(2))]));
        assert!(!then(&[read(30, 31, Image(1)), read(32, 33, Image(2))]));
        assert!(!then(&[read(30, 31, Image(2)), read(32, 33, Image(1))]));
        assert!(then(&[put(3, 4, 3), read(5, 6, Image(3)), read(30, 31, Image(2))]));
        assert!(!then(&[put(21, 22, 3), read(30, 31, Image(2))]));
    }

    #[test]
    fn what_an_answer_says_about_before_counts_too() {
        assert!(is_fresh(&[put(0, 1, 1), delete(2, 3, Some(true)), delete(4, 5, Some(false))]));
        // An answered upload that is lost shows in a deletion that finds nothing.
        assert!(!is_fresh(&[put(0, 1, 1), delete(2, 3, Some(false))]));
        assert!(is_fresh(&[unanswered(0, 9, 1), delete(2, 3, Some(true))]));
        assert!(!is_fresh(&[unanswered(0, 9, 1), delete(2, 3, Some(true)), delete(4, 5, Some(true))]));
        assert!(!is_fresh(&[put(0, 1, 1), delete(2, 3, None), read(4, 5, Something)]));
        assert!(!is_fresh(&[read(0, 1, Image(1)), put(2, 3, 1)]));
    }

    fn record(start: Moment, end: Moment, did: Did) -> Record {
        Record { is_probe: false, gateway: 0, start, end, did }
    }

    #[test]
    fn a_history_becomes_the_operations_of_each_key() {
        let wrote = |key, image, outcome| Did::Wrote { key, image, outcome };
        let seen = |key, seen| Did::Read { key, seen: Ok(seen), cache: None };
        let done = Outcome::Done { found: None };
        let unknown = Outcome::Unknown(crate::faults::history::Failure::Lost);
        let images = [0, 1, 0].map(|key| Sent { key, hash: [0; 32] });
        let mut records = vec![
            record(0, 1, wrote(0, Some(0), done)),
            record(0, 1, wrote(1, Some(1), done)),
            record(2, 3, wrote(0, Some(2), unknown)),
            record(12, 13, seen(0, Image(2))),
            record(14, 15, Did::DeletedAll { outcome: Outcome::StillTelling }),
            record(16, 17, seen(0, Image(2))),
            record(22, 23, Did::Listed { keys: Ok(vec![]) }),
        ];
        let checked = check(&records, &images, &[10, 20]);
        assert_eq!((checked.reads, checked.overlapping, checked.writes, checked.unanswered), (4, 0, 5, 1));
        assert!(checked.violations.is_empty(), "{:?}", checked.violations);
        records.push(record(18, 19, Did::Read { key: 0, seen: Ok(Image(2)), cache: Some(CacheWord::Near) }));
        let checked = check(&records, &images, &[10, 20]);
        assert_eq!((checked.near, checked.violations.len()), (1, 0), "{:?}", checked.violations);
        // A copy that should have been dropped is found.
        let stale = record(23, 24, Did::Read { key: 0, seen: Ok(Image(2)), cache: Some(CacheWord::Near) });
        let checked = check(&[&records[..], &[stale]].concat(), &images, &[10, 20]);
        assert_eq!((checked.near, checked.violations.len()), (2, 1), "{:?}", checked.violations);
        records.push(record(24, 25, seen(1, Image(0))));
        records.push(record(26, 27, seen(0, Image(2))));
        let checked = check(&records, &images, &[10, 20]);
        assert_eq!(checked.violations.len(), 2, "{:?}", checked.violations);
    }

    /// Whether some order of the operations, some uncertain ones left out, explains all answers: tried one
    /// after the other.
    fn is_explained(operations: &[Operation], value: Option<ImageId>) -> bool {
        if operations.iter().all(|operation| matches!(operation.what, What::Write { certain: false, .. })) {
            return true;
        }
        let first_end = operations.iter().map(|operation| operation.end).min().unwrap_or_default();
        (0..operations.len()).any(|at| {
            let operation = operations[at];
            let rest: Vec<_> = [&operations[..at], &operations[at + 1..]].concat();
            let without =
                matches!(operation.what, What::Write { certain: false, .. }) && is_explained(&rest, value);
            without
                || operation.start <= first_end
                    && match operation.what {
                        What::Read(seen) => shows(seen, value) && is_explained(&rest, value),
                        What::Write { value: next, found, .. } => {
                            found.is_none_or(|found| found == value.is_some()) && is_explained(&rest, next)
                        }
                    }
        })
    }

    #[test]
    fn a_hundred_unanswered_writes_are_searched_in_no_time() {
        let mut operations: Vec<Operation> = (0..100).map(|id| unanswered(1, 1000, id)).collect();
        for round in 0..60 {
            let at = 10 * (round + 1);
            operations.push(delete(at, at + 1, Some(true)));
            operations.push(read(at + 2, at + 3, Nothing));
        }
        assert!(linearize(&operations).is_ok());
        for round in 60..101 {
            operations.push(delete(10 * (round + 1), 10 * (round + 1) + 1, Some(true)));
        }
        operations.truncate(100 + 120 + 41);
        assert!(linearize(&operations).is_err(), "more deletions found an image than there were images");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(3000))]
        #[test]
        fn the_search_finds_just_what_trying_all_orders_finds(
            drawn in proptest::collection::vec((0u64..14, 0u64..6, 0u8..8, 0u32..3), 0..7)
        ) {
            let operations: Vec<Operation> = drawn.iter().map(|(start, length, kind, id)| {
                let found = [None, Some(true), Some(false)][*id as usize];
                let what = match kind {
                    0..=2 => What::Read(Image(*id)),
                    3 => What::Read(if *id == 0 { Nothing } else { Something }),
                    4 => What::Write { value: Some(*id), found: None, certain: true },
                    5 => What::Write { value: Some(*id), found: Some(start % 2 == 0), certain: true },
                    6 => What::Write { value: Some(*id), found: None, certain: false },
                    _ => What::Write { value: None, found, certain: start % 2 == 0 || found.is_some() },
                };
                Operation { start: *start, end: start + length, gateway: 0, what }
            }).collect();
            prop_assert_eq!(linearize(&operations).is_ok(), is_explained(&operations, None));
        }
    }
}
