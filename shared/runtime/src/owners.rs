//! The entry that names the serving worker, and the conclusions from what a process has seen of it. Workers and
//! gateways read the entry at its stream's leader and write it by compare-and-set.

use std::collections::VecDeque;
use std::time::Duration;

use wire::near::LONGEST_LEASE_MS;
use wire::owners::{Entry, LONGEST_CLAIM_MS, Unreadable};
use wire::subject;

use crate::Bus;
use crate::bucket::{self, Message, Written};
use crate::bus::RequestFailure;
use crate::clock::{Moment, with_margin};

/// The number of remembered former lives of a process. Only the last one that wrote to the bucket matters.
const FORMER_LIVES: usize = 8;
/// How long a process waits for an unknown owner. After that time, no claim is valid any more, whatever its length, nor
/// any near lease that its owner granted.
pub const UNKNOWN_OWNER_LASTS: Duration =
    with_margin(Duration::from_millis(LONGEST_CLAIM_MS + LONGEST_LEASE_MS));

/// The state of the bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The entry, or the content of the bucket in its place.
    pub standing: Standing,
    /// Its revision, which a write over it expects; 0 if there is none.
    pub revision: u64,
}

/// The entry, or the content of the bucket in its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// There is none, or no bucket.
    Missing,
    /// An entry.
    Entry(Entry),
    /// An entry of a later release, which this release must not overwrite.
    Newer(u32),
    /// Something else, or the mark of a removal, with a description.
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
    /// The bucket over a connection whose user of `nats.conf` may read and write the entry.
    pub fn new(bus: Bus) -> Self {
        Self { bus }
    }

    /// The connection.
    pub fn bus(&self) -> &Bus {
        &self.bus
    }

    /// Reads the state of the bucket at the stream's leader.
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
    /// [`RequestFailure`]. The entry may be written all the same then.
    pub async fn write(&self, entry: &Entry, over: u64, limit: Duration) -> Result<Written, RequestFailure> {
        let body = serde_json::to_vec(entry).map_err(|error| RequestFailure::Other(error.to_string()))?;
        bucket::write(&self.bus, subject::OWNERS_WRITE, body.into(), over, limit).await
    }
}

/// The observations that one process has made of the entry, by its own clock.
#[derive(Debug, Clone)]
pub struct Observer {
    /// The state that was seen last, and when it was first seen.
    seen: Option<(Found, Moment)>,
    /// The last entry that was seen.
    known: Option<Entry>,
    /// The moment since which an unknown owner may have the claim.
    unknown_since: Option<Moment>,
    /// The last lives of this very process, which no longer serve.
    former: VecDeque<String>,
    /// Whether there must be an entry, though this process has seen none.
    expects_one: bool,
}

/// The action that the state seen last allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outlook {
    /// Nothing was seen yet.
    Unseen,
    /// No worker serves. The next entry may be written.
    Free,
    /// The owner has not renewed its claim for longer than the claim was valid. The claim may be ended, or taken over.
    RunOut,
    /// A worker serves, or may serve, for this time.
    Owned {
        /// The owner, in a few words.
        by: String,
        /// The time from now, if the entry stays as it is.
        left: Duration,
    },
    /// The entry is of a later release, and stays as it is.
    Newer(u32),
}

impl Observer {
    /// An observer that has seen nothing yet. With `expects_one`, a missing entry counts as lost.
    pub fn new(expects_one: bool) -> Self {
        Self { seen: None, known: None, unknown_since: None, former: VecDeque::new(), expects_one }
    }

    /// From now on, a missing entry counts as lost.
    pub fn expect_one(&mut self) {
        if !self.expects_one
            && self.seen.as_ref().is_some_and(|(found, _)| found.standing == Standing::Missing)
        {
            self.seen = None;
        }
        self.expects_one = true;
    }

    /// Notes the result of a read that ended at `now`. Reads must be noted in their order.
    pub fn note(&mut self, found: &Found, now: Moment) {
        if self.seen.as_ref().is_some_and(|(seen, _)| seen == found) {
            return;
        }
        // While the entry was missing or unreadable, the owner before can't have renewed its claim. So the time of that
        // claim counts since then, whatever is written afterwards.
        let is_counted = self.unknown_since.is_some()
            && matches!(&self.seen, Some((seen, _)) if matches!(seen.standing, Standing::Missing | Standing::Junk(_)));
        let is_unknown = match &found.standing {
            Standing::Entry(_) if is_counted => false,
            Standing::Missing => self.expects_one || self.known.is_some(),
            Standing::Entry(entry) => self.known.as_ref().is_some_and(|known| !entry.descends_from(known)),
            // The owner before may not know yet that its entry is gone.
            Standing::Junk(_) => true,
            Standing::Newer(_) => false,
        };
        if is_unknown {
            self.unknown_since = Some(now);
        }
        self.set(found.clone(), now);
    }

    /// Notes an entry that this process has written itself.
    pub fn wrote(&mut self, entry: &Entry, revision: u64, now: Moment) {
        self.set(Found { standing: Standing::Entry(entry.clone()), revision }, now);
    }

    fn set(&mut self, found: Found, now: Moment) {
        if let Some(entry) = found.entry() {
            self.known = Some(entry.clone());
        }
        self.seen = Some((found, now));
    }

    /// Notes a life of this very process, whose claim need not be waited for. That life no longer serves, or does not
    /// serve before the write that makes it the owner is known to have succeeded.
    pub fn lived(&mut self, incarnation: &str) {
        if self.former.len() == FORMER_LIVES {
            self.former.pop_front();
        }
        self.former.push_back(incarnation.to_owned());
    }

    /// The action that the state seen last allows.
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
                return Outlook::Owned {
                    by: format!("{by}: the end of the former claim is waited for"),
                    left,
                };
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

    /// The entry that follows the one seen last, and the revision over which to write it. It is `next` of that entry,
    /// or `first` if there is no entry to follow.
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

/// The rest of `length`; zero only when more than `length` has passed.
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
        // The same entry again under another revision is a renewal by a worker that counts no beats.
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
        // A process that has seen an entry takes a missing one as lost.
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
        // A gateway has waited as well, has noted that no worker serves, and was first.
        let other = Entry::first("b".into(), "memcache-2", "4567".into(), 3000);
        observer.note(&found(&other.ended(), 1), now + Duration::from_secs(1));
        assert!(is_owned(&observer, now + UNKNOWN_OWNER_LASTS));
        let waited_out = now + UNKNOWN_OWNER_LASTS + Duration::from_millis(1);
        assert_eq!(observer.outlook(waited_out), Outlook::Free);
        // If a worker was first, its claim counts like any other.
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
        // An entry that follows does not shorten the time.
        let next = old.taken("memcache-3", "89ab".into(), 3000);
        observer.note(&found(&next, 8), now + Duration::from_secs(1));
        observer.note(&found(&next.ended(), 9), now + Duration::from_secs(2));
        assert!(is_owned(&observer, now + UNKNOWN_OWNER_LASTS));
        assert_eq!(observer.outlook(now + LONG), Outlook::Free);
        // An entry of another bucket does not shorten it either. Only the process's own write does.
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
