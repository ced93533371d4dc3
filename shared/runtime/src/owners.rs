//! The entry that says who serves, as workers and gateways read it at its stream's leader and write it by
//! compare-and-set; and what may be concluded from what was seen of it.

use std::collections::VecDeque;
use std::time::Duration;

use wire::near::LONGEST_LEASE_MS;
use wire::owners::{Entry, LONGEST_CLAIM_MS, Unreadable};
use wire::subject;

use crate::Bus;
use crate::bucket::{self, Message, Written};
use crate::bus::RequestFailure;
use crate::clock::{Moment, with_margin};

/// So many former lives of a process are remembered. Only the last one that got as far as the bucket counts.
const FORMER_LIVES: usize = 8;
/// How long an owner is waited for of whom nothing is known: until no claim is valid any more, whatever its length,
/// nor any near lease that was granted by it.
pub const UNKNOWN_OWNER_LASTS: Duration =
    with_margin(Duration::from_millis(LONGEST_CLAIM_MS + LONGEST_LEASE_MS));

/// What stands in the bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The entry, or what is there instead.
    pub standing: Standing,
    /// Its revision, which a write over it expects; 0 if there is none.
    pub revision: u64,
}

/// The entry, or what is there instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// There is none, or no bucket.
    Missing,
    /// An entry.
    Entry(Entry),
    /// That of a later release, which must not be written over by this one.
    Newer(u32),
    /// Something else, or the mark of a removal, and what.
    Junk(String),
}

impl Found {
    /// The entry.
    pub fn entry(&self) -> Option<&Entry> {
        match &self.standing {
            Standing::Entry(entry) => Some(entry),
            Standing::Missing | Standing::Newer(_) | Standing::Junk(_) => None,
        }
    }
}

/// The bucket, over one connection.
#[derive(Debug, Clone)]
pub struct Owners {
    bus: Bus,
}

impl Owners {
    /// By a user of `nats.conf` who may read and write the entry.
    pub fn new(bus: Bus) -> Self {
        Self { bus }
    }

    /// The connection.
    pub fn bus(&self) -> &Bus {
        &self.bus
    }

    /// What the stream's leader has.
    ///
    /// # Errors
    /// [`RequestFailure`], when none answers.
    pub async fn read(&self, limit: Duration) -> Result<Found, RequestFailure> {
        let last = bucket::last(&self.bus, subject::OWNERS_STREAM, subject::OWNERS_ENTRY, limit).await?;
        let Some(Message { value, revision }) = last else {
            return Ok(Found { standing: Standing::Missing, revision: 0 });
        };
        let standing = match value.as_deref().map(Entry::read) {
            Some(Ok(entry)) => Standing::Entry(entry),
            Some(Err(Unreadable::Newer(version))) => Standing::Newer(version),
            Some(Err(Unreadable::Junk(why))) => Standing::Junk(why),
            None => Standing::Junk("it was removed".to_owned()),
        };
        Ok(Found { standing, revision })
    }

    /// Writes `entry` over the one with the revision `over`, if that is the last one.
    ///
    /// # Errors
    /// [`RequestFailure`]; then it may be written all the same.
    pub async fn write(&self, entry: &Entry, over: u64, limit: Duration) -> Result<Written, RequestFailure> {
        let body = serde_json::to_vec(entry).map_err(|error| RequestFailure::Other(error.to_string()))?;
        bucket::write(&self.bus, subject::OWNERS_WRITE, body.into(), over, limit).await
    }
}

/// What one process has seen of the entry, by its own clock.
#[derive(Debug, Clone)]
pub struct Observer {
    /// What was seen last, and when it was first seen so.
    seen: Option<(Found, Moment)>,
    /// The last entry that was seen.
    known: Option<Entry>,
    /// Since when somebody may own the claim of whom nothing is known.
    unknown_since: Option<Moment>,
    /// The last lives of this very process, which serve no more.
    former: VecDeque<String>,
    /// Whether there must be an entry, though this process has seen none.
    expects_one: bool,
}

/// What may be done about the entry that was seen last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outlook {
    /// Nothing was seen yet.
    Unseen,
    /// Nobody serves. The entry that follows on it may be written.
    Free,
    /// The owner has not renewed its claim for longer than that was valid. It may be ended, or taken over.
    RunOut,
    /// Somebody serves, or may, for so long.
    Owned {
        /// Who, in a few words.
        by: String,
        /// How long from now on, if the entry stays as it is.
        left: Duration,
    },
    /// The entry is of a later release, and stays as it is.
    Newer(u32),
}

impl Observer {
    /// Nothing was seen yet. With `expects_one`, a missing entry is one that was lost.
    pub fn new(expects_one: bool) -> Self {
        Self { seen: None, known: None, unknown_since: None, former: VecDeque::new(), expects_one }
    }

    /// From now on, a missing entry is one that was lost.
    pub fn expect_one(&mut self) {
        if !self.expects_one
            && self.seen.as_ref().is_some_and(|(found, _)| found.standing == Standing::Missing)
        {
            self.seen = None;
        }
        self.expects_one = true;
    }

    /// Takes a look that ended at `now`. Looks must be taken in their order.
    pub fn note(&mut self, found: &Found, now: Moment) {
        if self.seen.as_ref().is_some_and(|(seen, _)| seen == found) {
            return;
        }
        // Where there was nothing, or nothing that can be read, whoever had the claim before can't have renewed it: its time
        // is counted since then, whatever is written there afterwards.
        let is_counted = self.unknown_since.is_some()
            && matches!(&self.seen, Some((seen, _)) if matches!(seen.standing, Standing::Missing | Standing::Junk(_)));
        let is_unknown = match &found.standing {
            Standing::Entry(_) if is_counted => false,
            Standing::Missing => self.expects_one || self.known.is_some(),
            Standing::Entry(entry) => self.known.as_ref().is_some_and(|known| !entry.descends_from(known)),
            // Whoever had the claim before may not know it yet.
            Standing::Junk(_) => true,
            Standing::Newer(_) => false,
        };
        if is_unknown {
            self.unknown_since = Some(now);
        }
        self.set(found.clone(), now);
    }

    /// Takes what this process has written itself.
    pub fn wrote(&mut self, entry: &Entry, revision: u64, now: Moment) {
        self.set(Found { standing: Standing::Entry(entry.clone()), revision }, now);
    }

    fn set(&mut self, found: Found, now: Moment) {
        if let Some(entry) = found.entry() {
            self.known = Some(entry.clone());
        }
        self.seen = Some((found, now));
    }

    /// The claim of this life of this very process is none to wait for: it serves no more, or not before the write that
    /// makes it the owner is known to have succeeded.
    pub fn lived(&mut self, incarnation: &str) {
        if self.former.len() == FORMER_LIVES {
            self.former.pop_front();
        }
        self.former.push_back(incarnation.to_owned());
    }

    /// What may be done about the entry that was seen last.
    pub fn outlook(&self, now: Moment) -> Outlook {
        let Some((found, since)) = &self.seen else { return Outlook::Unseen };
        if let Standing::Newer(version) = found.standing {
            return Outlook::Newer(version);
        }
        if let Some(unknown_since) = self.unknown_since {
            let left = left_of(UNKNOWN_OWNER_LASTS, now.since(unknown_since));
            if !left.is_zero() {
                let by = match &found.standing {
                    Standing::Missing => "the claim to serve is missing".to_owned(),
                    Standing::Junk(why) => format!("the claim to serve can't be read ({why})"),
                    Standing::Entry(_) | Standing::Newer(_) => {
                        "the claim to serve is not the one that was known, nor one after it".to_owned()
                    }
                };
                return Outlook::Owned { by: format!("{by}; whoever had it is waited out"), left };
            }
        }
        match &found.standing {
            Standing::Missing | Standing::Junk(_) | Standing::Newer(_) => Outlook::Free,
            Standing::Entry(entry) if entry.released => Outlook::Free,
            Standing::Entry(entry) if self.former.contains(&entry.incarnation) => Outlook::Free,
            Standing::Entry(entry) => {
                let left = left_of(with_margin(Duration::from_millis(entry.valid_ms())), now.since(*since));
                if left.is_zero() {
                    return Outlook::RunOut;
                }
                Outlook::Owned { by: format!("worker {} has the claim to serve", entry.worker), left }
            }
        }
    }

    /// What follows on what was seen last: `next` of the entry, or `first` if there is none to follow on; and the
    /// revision over which to write it.
    pub fn following(
        &self,
        next: impl FnOnce(&Entry) -> Entry,
        first: impl FnOnce() -> Entry,
    ) -> (Entry, u64) {
        let (entry, revision) =
            self.seen.as_ref().map_or((None, 0), |(found, _)| (found.entry(), found.revision));
        match entry.filter(|entry| !entry.id.is_empty()) {
            Some(entry) => (next(entry), revision),
            None => (first(), revision),
        }
    }
}

/// Zero only when more than `length` has passed.
fn left_of(length: Duration, passed: Duration) -> Duration {
    if passed > length { Duration::ZERO } else { length - passed + Duration::from_millis(1) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    fn found(entry: &Entry, revision: u64) -> Found {
        Found { standing: Standing::Entry(entry.clone()), revision }
    }

    fn missing() -> Found {
        Found { standing: Standing::Missing, revision: 0 }
    }

    fn first() -> Entry {
        Entry::first("a".into(), "memcache-1", "0123".into(), 3000)
    }

    fn is_owned(observer: &Observer, now: Moment) -> bool {
        matches!(observer.outlook(now), Outlook::Owned { .. })
    }

    #[test]
    fn a_claim_has_run_out_when_it_was_seen_unchanged_for_longer_than_it_is_valid_and_an_eighth() {
        let (begin, entry) = (Moment::now(), first());
        let mut observer = Observer::new(true);
        assert_eq!(observer.outlook(begin), Outlook::Unseen);
        observer.note(&found(&entry, 7), begin);
        let later = begin + Duration::from_millis(3000);
        observer.note(&found(&entry.renewed(), 8), later);
        let end = later + Duration::from_millis(3375);
        observer.note(&found(&entry.renewed(), 8), end);
        assert!(is_owned(&observer, end));
        assert_eq!(observer.outlook(end + Duration::from_millis(1)), Outlook::RunOut);
        // The same words again under another number are a renewal of a worker that counts no beats.
        observer.note(&found(&entry.renewed(), 9), end);
        assert!(is_owned(&observer, end + Duration::from_millis(1)));
    }

    #[test]
    fn what_was_given_up_is_free_at_once_and_what_a_former_life_of_this_process_had_too() {
        let now = Moment::now();
        let mut observer = Observer::new(true);
        observer.note(&found(&first().ended(), 1), now);
        assert_eq!(observer.outlook(now), Outlook::Free);
        let mut observer = Observer::new(false);
        observer.note(&found(&first(), 1), now);
        assert!(is_owned(&observer, now));
        observer.lived("0123");
        assert_eq!(observer.outlook(now), Outlook::Free);
    }

    #[test]
    fn at_a_first_start_nobody_is_waited_for_and_later_a_missing_entry_is_an_unknown_owner_s() {
        let now = Moment::now();
        let waited_out = now + UNKNOWN_OWNER_LASTS + Duration::from_millis(1);
        let mut observer = Observer::new(false);
        observer.note(&missing(), now);
        assert_eq!(observer.outlook(now), Outlook::Free);
        // The configuration is older.
        observer.expect_one();
        observer.note(&missing(), now);
        assert!(is_owned(&observer, now + UNKNOWN_OWNER_LASTS));
        assert_eq!(observer.outlook(waited_out), Outlook::Free);
        // This process has seen one.
        let mut observer = Observer::new(false);
        observer.note(&found(&first().ended(), 1), now);
        observer.note(&missing(), now);
        assert!(is_owned(&observer, now + UNKNOWN_OWNER_LASTS));
        assert_eq!(observer.outlook(waited_out), Outlook::Free);
    }

    #[test]
    fn whoever_writes_where_there_was_nothing_does_not_make_others_wait_anew() {
        let now = Moment::now();
        let mut observer = Observer::new(false);
        observer.note(&found(&first(), 7), now);
        observer.note(&missing(), now);
        // A gateway has waited as well, has made sure that nobody serves, and was first.
        let other = Entry::first("b".into(), "memcache-2", "4567".into(), 3000);
        observer.note(&found(&other.ended(), 1), now + Duration::from_secs(1));
        assert!(is_owned(&observer, now + UNKNOWN_OWNER_LASTS));
        let waited_out = now + UNKNOWN_OWNER_LASTS + Duration::from_millis(1);
        assert_eq!(observer.outlook(waited_out), Outlook::Free);
        // A worker has: it is waited for as any other.
        observer.note(&found(&other.ended().taken("memcache-2", "89ab".into(), 3000), 2), waited_out);
        assert!(is_owned(&observer, waited_out + Duration::from_millis(3375)));
        assert!(!is_owned(&observer, waited_out + Duration::from_millis(3376)));
    }

    #[test]
    fn what_does_not_follow_on_what_was_known_is_an_unknown_owner_s_whatever_it_says() {
        let (now, old) = (Moment::now(), first().ended());
        let mut observer = Observer::new(false);
        observer.note(&found(&old.taken("memcache-2", "4567".into(), 3000).renewed(), 9), now);
        // The stream has taken two writes back.
        observer.note(&found(&old, 7), now);
        assert!(is_owned(&observer, now + UNKNOWN_OWNER_LASTS));
        // Whoever follows does not shorten the time.
        let next = old.taken("memcache-3", "89ab".into(), 3000);
        observer.note(&found(&next, 8), now + Duration::from_secs(1));
        observer.note(&found(&next.ended(), 9), now + Duration::from_secs(2));
        assert!(is_owned(&observer, now + UNKNOWN_OWNER_LASTS));
        assert_eq!(observer.outlook(now + LONG), Outlook::Free);
        // Nor what stands in another bucket; but for one's own writes.
        let other = Entry { id: "b".into(), ..next.ended() };
        observer.note(&found(&other, 1), now + LONG);
        assert!(is_owned(&observer, now + LONG));
        let mut observer = Observer::new(false);
        observer.note(&found(&first().ended(), 1), now);
        observer.wrote(&other, 2, now);
        assert_eq!(observer.outlook(now), Outlook::Free);
    }

    #[test]
    fn junk_is_waited_out_and_what_a_later_release_wrote_is_left_alone() {
        let now = Moment::now();
        let mut observer = Observer::new(false);
        observer.note(&Found { standing: Standing::Junk("x".into()), revision: 3 }, now);
        assert!(is_owned(&observer, now + UNKNOWN_OWNER_LASTS));
        assert_eq!(observer.outlook(now + LONG), Outlook::Free);
        assert_eq!(observer.following(Entry::ended, first), (first(), 3));
        observer.note(&Found { standing: Standing::Newer(2), revision: 4 }, now);
        assert_eq!(observer.outlook(now + LONG), Outlook::Newer(2));
    }
}
