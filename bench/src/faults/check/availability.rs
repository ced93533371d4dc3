//! Availability: with worker, nats-server or recorder away, reads of stored images go on; with MariaDB
//! away, those of cached ones do; and all is back to normal within ten seconds, with nobody's help.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Struck, Verdict};
use crate::faults::history::{CacheWord, Did, Failure, KeyId, Moment, Record, seconds};
use crate::faults::strike::Kind;
use crate::faults::watch::Sight;

/// How soon all is back to normal, and another worker has taken over.
pub(crate) const SOON: Moment = 10_000_000_000;

/// The same when JetStream has lost which worker serves: a new one waits until none can that may have been before, for
/// the longest claim that may be set and its eighth, and for the leases of that.
const SOON_WITHOUT_CLAIM: Moment = 20_000_000_000;

/// The same when two nats-servers find each other again: neither has a majority without the other, and their elections,
/// with pauses drawn at random, took from 1 s to 29 s.
const SOON_IN_A_CLUSTER: Moment = 45_000_000_000;

/// How soon all is back to normal after a fault of this kind.
fn soon(kind: Kind) -> Moment {
    match kind {
        Kind::NatsWithoutItsStore => SOON_WITHOUT_CLAIM,
        Kind::RouteCut => SOON_IN_A_CLUSTER,
        _ => SOON,
    }
}

/// The effect of one kind of fault on readers and writers.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Figures {
    /// How often it struck.
    pub(crate) strikes: usize,
    /// Reads while it lasted and until all was well again, through gateways that it did not strike.
    pub(crate) reads: usize,
    /// The reads among them that failed.
    pub(crate) failed_reads: usize,
    /// Changes in that time, and the number of them that were not acknowledged.
    pub(crate) changes: usize,
    pub(crate) failed_changes: usize,
    /// Reads of images that no client changed, and the number of them that failed.
    pub(crate) steady_reads: usize,
    pub(crate) failed_steady_reads: usize,
    /// The longest time without a successful one of those, in milliseconds.
    pub(crate) longest_gap_ms: u64,
    /// The longest time until every gateway found all parts again, in milliseconds.
    pub(crate) ready_ms: u64,
    /// The longest time until windows became rows again, in milliseconds.
    pub(crate) recorded_ms: u64,
    /// The longest time until another worker served, in milliseconds, where one had to.
    pub(crate) takeover_ms: Option<u64>,
}

/// Checks the faults one by one, and adds up the figures of each kind.
pub(crate) fn check(
    records: &[Record],
    struck: &[Struck],
    sights: &[Sight],
    steady: &std::ops::Range<KeyId>,
) -> (Verdict, BTreeMap<Kind, Figures>) {
    let mut figures: BTreeMap<Kind, Figures> = BTreeMap::new();
    let mut violations = Vec::new();
    for one in struck {
        let strike = &one.strike;
        let name = strike.kind.name();
        let at = seconds(strike.began);
        let sum = figures.entry(strike.kind).or_default();
        sum.strikes += 1;
        for (what, when, longest) in [
            ("the gateways are ready", one.ready, &mut sum.ready_ms),
            ("windows become rows", one.recorded, &mut sum.recorded_ms),
        ] {
            let took = when.map(|when| when.saturating_sub(strike.healed));
            match took {
                Some(took) => *longest = (*longest).max(took / 1_000_000),
                None => *longest = u64::MAX,
            }
            if took.is_none_or(|took| took > soon(strike.kind)) {
                violations.push(format!("{name} at {at:.3} s: {what} after {:?} s", took.map(seconds)));
            }
        }
        if strike.kind.needs_the_standby() {
            let takeover = takeover(sights, strike.began);
            sum.takeover_ms = sum.takeover_ms.max(takeover.map(|took| took / 1_000_000));
            if takeover.is_none_or(|took| took > SOON) {
                violations.push(format!(
                    "{name} at {at:.3} s: the standby serves after {:?} s",
                    takeover.map(seconds)
                ));
            }
        }
        let end = one.ready.unwrap_or(strike.healed);
        violations.extend(look(records, one, end, sum, steady));
    }
    for record in records {
        if let Did::Read { seen: Err(Failure::Unanswered), .. }
        | Did::Listed { keys: Err(Failure::Unanswered) } = record.did
        {
            violations.push(format!("a read at {:.3} s was never answered", seconds(record.start)));
        }
    }
    let verdict = Verdict {
        promise: "Availability: stored images are read while worker, bus or recorder are away, cached ones \
                  while MariaDB is; all is normal within 10 s (20 s when JetStream's store is lost, 45 s when two nats-servers were apart), with nobody's help",
        looked_at: format!("{} faults of {} kinds", struck.len(), figures.len()),
        violations,
    };
    (verdict, figures)
}

/// How long it took until another life of a worker than the one before `began` served.
fn takeover(sights: &[Sight], began: Moment) -> Option<Moment> {
    let before = sights.iter().filter(|sight| sight.start < began).max_by_key(|sight| sight.start)?;
    let after = sights.iter().filter(|sight| sight.start >= began && sight.incarnation != before.incarnation);
    after.map(|sight| sight.end - began).min()
}

/// Looks at the reads while a fault lasted, and returns what may not be.
fn look(
    records: &[Record],
    one: &Struck,
    end: Moment,
    sum: &mut Figures,
    steady: &std::ops::Range<KeyId>,
) -> Vec<String> {
    let strike = &one.strike;
    let mut violations = Vec::new();
    let mut last_success = [strike.began; 2];
    let mut gap = |last: &mut Moment, now: Moment| {
        let gap = now.min(end).saturating_sub(*last) / 1_000_000;
        sum.longest_gap_ms = sum.longest_gap_ms.max(gap);
        *last = now;
    };
    for record in records.iter().filter(|record| record.end >= strike.began && record.start <= end) {
        match &record.did {
            Did::Wrote { outcome, .. } | Did::DeletedAll { outcome } => {
                sum.changes += 1;
                sum.failed_changes +=
                    usize::from(!matches!(outcome, crate::faults::history::Outcome::Done { .. }));
            }
            Did::Read { key, seen, cache } if !strike.gateways[record.gateway] => {
                sum.reads += 1;
                sum.failed_reads += usize::from(seen.is_err());
                let is_steady = record.is_probe && steady.contains(key);
                if is_steady {
                    sum.steady_reads += 1;
                    sum.failed_steady_reads += usize::from(seen.is_err());
                    if seen.is_ok() {
                        gap(&mut last_success[record.gateway], record.end);
                    }
                }
                // A cache that takes longer than the budget is as good as none, and was not promised.
                let had_a_chance = *cache != Some(CacheWord::TimedOut);
                let is_promised = strike.kind.leaves_stored_images_readable()
                    || is_steady && had_a_chance && strike.kind.leaves_cached_images_readable();
                if let Err(failure) = seen
                    && is_promised
                {
                    violations.push(format!(
                        "{} at {:.3} s: a read of key {key} through gateway {} at {:.3} s failed: {failure:?} \
                         ({cache:?})",
                        strike.kind.name(),
                        seconds(strike.began),
                        record.gateway + 1,
                        seconds(record.start)
                    ));
                }
            }
            Did::Read { .. } | Did::Listed { .. } => {}
        }
    }
    for (gateway, last) in last_success.iter_mut().enumerate() {
        if !strike.gateways[gateway] {
            gap(last, end);
        }
    }
    violations
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::faults::check::tests::struck;
    use crate::faults::history::Seen;

    const SECOND: Moment = 1_000_000_000;

    fn read(gateway: usize, at: Moment, seen: Result<Seen, Failure>, cache: Option<CacheWord>) -> Record {
        Record { is_probe: true, gateway, start: at, end: at + 1, did: Did::Read { key: 9, seen, cache } }
    }

    fn checked(records: &[Record], struck: &[Struck], sights: &[Sight]) -> (usize, Figures) {
        let (verdict, figures) = check(records, struck, sights, &(9..10));
        (verdict.violations.len(), figures.into_values().next().unwrap_or_default())
    }

    const LOST: Result<Seen, Failure> = Err(Failure::Status(503));
    const FINE: Result<Seen, Failure> = Ok(Seen::Image(1));

    #[test]
    fn a_failed_read_is_found_unless_its_gateway_was_struck_or_nothing_was_promised() {
        let one = |kind, record: Record| checked(&[record], &[struck(kind, SECOND, 2 * SECOND)], &[]).0;
        let lost = read(0, SECOND, LOST, None);
        assert_eq!(one(Kind::NatsKilled, lost.clone()), 1);
        assert_eq!(one(Kind::NatsKilled, read(0, 3 * SECOND, LOST, None)), 0);
        assert_eq!(one(Kind::MariaDbKilled, lost.clone()), 1);
        assert_eq!(one(Kind::MariaDbKilled, read(0, SECOND, LOST, Some(CacheWord::TimedOut))), 0);
        assert_eq!(one(Kind::LinksCut, lost.clone()), 0);
        let mut strike = struck(Kind::GatewayKilled, SECOND, 2 * SECOND);
        strike.strike.gateways[0] = true;
        assert_eq!(checked(std::slice::from_ref(&lost), std::slice::from_ref(&strike), &[]).0, 0);
        assert_eq!(checked(&[read(1, SECOND, LOST, None)], &[strike], &[]).0, 1);
    }

    #[test]
    fn whatever_is_not_back_in_time_is_found() {
        let mut late = struck(Kind::NatsKilled, SECOND, 2 * SECOND);
        late.ready = Some(13 * SECOND);
        late.recorded = None;
        assert_eq!(checked(&[], &[late], &[]).0, 2);
    }

    #[test]
    fn a_standby_that_is_late_is_found() {
        let sight = |incarnation: &str, at| Sight {
            start: at,
            end: at,
            worker: "w".into(),
            incarnation: incarnation.into(),
        };
        let kill = [struck(Kind::WorkerKilled, SECOND, SECOND)];
        let (found, figures) = checked(&[], &kill, &[sight("a", 0), sight("b", 6 * SECOND)]);
        assert_eq!((found, figures.takeover_ms), (0, Some(5000)));
        assert_eq!(checked(&[], &kill, &[sight("a", 0), sight("b", 12 * SECOND)]).0, 1);
        assert_eq!(checked(&[], &kill, &[sight("a", 0), sight("a", 6 * SECOND)]).0, 1);
    }

    #[test]
    fn the_longest_gap_is_that_of_the_worse_gateway() {
        let records = [read(0, 1_500_000_000, FINE, None), read(1, 1_100_000_000, FINE, None)];
        let (found, figures) = checked(&records, &[struck(Kind::NatsKilled, SECOND, 2 * SECOND)], &[]);
        assert_eq!((found, figures.longest_gap_ms), (0, 899));
    }
}
