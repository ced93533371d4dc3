//! The claim to serve: the one entry of the KV bucket `CACHE_OWNERS`.
//!
//! Each write is a compare-and-set on the entry just read, and raises the beat by one, whichever process makes it. So
//! an entry whose beat has not changed was not written meanwhile. An entry that a stream has taken back has a lower
//! beat, and an entry of a stream made anew has another id. Revisions show neither, because they begin again in both
//! cases.

use serde::{Deserialize, Serialize};

/// The form of the entry that this release writes.
const VERSION: u32 = 1;
/// The longest time for which a claim can be valid without being renewed, in milliseconds. A process waits that long
/// for an owner of which it knows nothing.
pub const LONGEST_CLAIM_MS: u64 = 10_000;
/// The longest validity that a reader accepts from an entry: workers that write no beat could be set to a minute.
const LONGEST_SAID_MS: u64 = 60_000;

/// The entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The number of its form.
    #[serde(default)]
    pub version: u32,
    /// The id of the chain of entries, drawn with the first entry of a bucket and kept by all that follow. It is empty
    /// if a worker that knows no ids wrote the entry.
    #[serde(default)]
    pub id: String,
    /// How many entries came before this one.
    #[serde(default)]
    pub beat: u64,
    /// The name of the owner, for people.
    pub worker: String,
    /// The life of the worker that owns the claim.
    pub incarnation: String,
    /// How long the claim is valid after each renewal, in milliseconds.
    pub valid_ms: u64,
    /// Whether the claim has ended, because the owner gave it up or it was seen to have run out. Then no worker serves.
    pub released: bool,
}

/// The value in the bucket is no [`Entry`] that this release can read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// A later release wrote it.
    #[error("its form is number {0}, of a later release")]
    Newer(u32),
    /// It makes no sense.
    #[error("{0}")]
    Junk(String),
}

#[derive(Deserialize)]
struct Form {
    #[serde(default)]
    version: u32,
}

impl Entry {
    /// The first entry of a bucket, or of a bucket whose last entry is unreadable.
    pub fn first(id: String, worker: &str, incarnation: String, valid_ms: u64) -> Self {
        let worker = worker.to_owned();
        Self { version: VERSION, id, beat: 1, worker, incarnation, valid_ms, released: false }
    }

    /// The entry that follows this one with another owner.
    #[must_use]
    pub fn taken(&self, worker: &str, incarnation: String, valid_ms: u64) -> Self {
        let worker = worker.to_owned();
        Self { worker, incarnation, valid_ms, released: false, ..self.renewed() }
    }

    /// The entry that follows this one with the same owner.
    #[must_use]
    pub fn renewed(&self) -> Self {
        Self { version: VERSION, beat: self.beat.saturating_add(1), ..self.clone() }
    }

    /// The entry that follows this one when no worker serves, be it no more or still not.
    #[must_use]
    pub fn ended(&self) -> Self {
        Self { released: true, ..self.renewed() }
    }

    /// Reads the value in the bucket.
    ///
    /// # Errors
    /// [`Unreadable`].
    pub fn read(bytes: &[u8]) -> Result<Self, Unreadable> {
        let junk = |error: serde_json::Error| Unreadable::Junk(error.to_string());
        let form: Form = serde_json::from_slice(bytes).map_err(junk)?;
        if form.version > VERSION {
            return Err(Unreadable::Newer(form.version));
        }
        let entry: Self = serde_json::from_slice(bytes).map_err(junk)?;
        // No entry could follow on it.
        if entry.beat == u64::MAX {
            return Err(Unreadable::Junk("its beat is the last number".to_owned()));
        }
        Ok(entry)
    }

    /// How long the claim is valid after each renewal, in milliseconds.
    pub fn valid_ms(&self) -> u64 {
        self.valid_ms.min(LONGEST_SAID_MS)
    }

    /// Whether the worker's life called `incarnation` may serve by it.
    pub fn names(&self, incarnation: &str) -> bool {
        !self.released && self.incarnation == incarnation
    }

    /// Whether it can be a successor of `earlier`, or is the same.
    pub fn descends_from(&self, earlier: &Self) -> bool {
        self == earlier || earlier.id.is_empty() || self.id == earlier.id && self.beat > earlier.beat
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    fn first() -> Entry {
        Entry::first("a".into(), "memcache-1", "0123".into(), 3000)
    }

    #[test]
    fn each_entry_descends_from_those_before_it_and_from_no_other() {
        let mut entries = vec![first()];
        entries.push(entries[0].renewed());
        entries.push(entries[1].ended());
        entries.push(entries[2].taken("memcache-2", "4567".into(), 2000));
        for (at, later) in entries.iter().enumerate() {
            for (before, earlier) in entries.iter().enumerate() {
                assert_eq!(later.descends_from(earlier), at >= before, "{later:?} from {earlier:?}");
            }
            assert!(!Entry { id: "b".into(), ..later.clone() }.descends_from(&entries[0]));
        }
        let rewritten = Entry { worker: "other".into(), ..entries[3].clone() };
        assert!(!rewritten.descends_from(&entries[3]));
        let (owned, ended) = (&entries[3], &entries[2]);
        assert!(owned.names("4567") && !owned.names("0123") && !ended.names("0123"));
    }

    #[test]
    fn an_entry_is_read_as_it_is_written_and_one_without_a_beat_too() {
        let entry = first();
        assert_eq!(Entry::read(&serde_json::to_vec(&entry).unwrap()).unwrap(), entry);
        let plain = br#"{"worker":"w","incarnation":"i","valid_ms":4000,"released":false}"#;
        let plain = Entry::read(plain).unwrap();
        assert_eq!((plain.beat, plain.valid_ms(), plain.id.as_str()), (0, 4000, ""));
        assert!(entry.descends_from(&plain) && !plain.descends_from(&entry));
        assert_eq!(Entry { valid_ms: u64::MAX, ..entry }.valid_ms(), 60_000);
    }

    #[test]
    fn what_is_no_entry_is_told_from_what_a_later_release_wrote() {
        assert_eq!(Entry::read(br#"{"version":2,"workers":[]}"#), Err(Unreadable::Newer(2)));
        let last =
            br#"{"beat":18446744073709551615,"worker":"w","incarnation":"i","valid_ms":1,"released":true}"#;
        assert!(matches!(Entry::read(last), Err(Unreadable::Junk(_))));
        for junk in ["", "no claim", "{}", "[]", r#"{"version":1}"#, r#"{"version":"x"}"#] {
            assert!(matches!(Entry::read(junk.as_bytes()), Err(Unreadable::Junk(_))), "{junk}");
        }
    }
}
