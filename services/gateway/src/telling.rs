//! Telling the cache that an image changed, until it has acknowledged it (design rules 6 and 9).

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use runtime::bus::RequestFailure;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use wire::near::LONGEST_LEASE_MS;

use crate::cache::CacheClient;
use crate::error::Error;
use crate::origin::pending::{LeftBehind, Note, Pending, Scope};
use crate::origin::reach::Reach;

/// How long an upload or a deletion waits for the acknowledgement before it is answered 503.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// How long one request waits. A repeated invalidation is harmless, a lost one is not.
const ATTEMPT_LIMIT: Duration = Duration::from_secs(2);
/// After so long no near lease lasts that was granted before, by clocks that run apart by up to an eighth.
const LEASES_END: Duration = Duration::from_millis(LONGEST_LEASE_MS + LONGEST_LEASE_MS / 8);
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);
/// How often each gateway looks for notes that somebody has left behind.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How old those are: whoever made them has given up by then, or is gone.
const LEFT_BEHIND: Duration = Duration::from_secs(6);
/// How long notes of acknowledged changes gather before they are removed.
const GATHERING: Duration = Duration::from_millis(50);
/// How many of them are read in one go.
const BATCH: u32 = 100;
/// How many of them are told of at once.
const AT_ONCE: usize = 8;
/// Who clears the cache, in its history.
const BY: &str = "gateway: all images deleted";

/// Tells the cache, and removes the notes of what it has acknowledged. Clones share everything.
#[derive(Debug, Clone)]
pub(crate) struct Teller {
    cache: CacheClient,
    pending: Pending,
    /// Notes of acknowledged changes, which are removed together: each removal alone would be a commit.
    acknowledged: Arc<Mutex<Vec<Note>>>,
    /// Held while some of them are removed; meanwhile others gather.
    removing: Arc<tokio::sync::Mutex<()>>,
    /// It looks at MySQL all the time, so it knows first.
    reach: Reach,
}

impl Teller {
    /// Tells this cache, and keeps these notes.
    pub(crate) fn new(cache: CacheClient, pending: Pending, reach: Reach) -> Self {
        Self { cache, pending, acknowledged: Arc::default(), removing: Arc::default(), reach }
    }

    /// Tells the cache of one change, again and again for up to five seconds. True once no cache holds the
    /// image from before; then the note is to be given to [`Teller::forget`].
    pub(crate) async fn tell(&self, note: &Note) -> bool {
        self.acknowledged(&note.scope).await
    }

    /// Removes the note of an acknowledged change. Nobody has to wait for it: until it is gone, the change
    /// may be told of once more, which is harmless.
    pub(crate) async fn forget(self, note: Note) {
        lock(&self.acknowledged).push(note);
        let _removing = self.removing.lock().await;
        if lock(&self.acknowledged).is_empty() {
            return;
        }
        sleep(GATHERING).await;
        let notes = std::mem::take(&mut *lock(&self.acknowledged));
        if let Err(error) = self.pending.remove(&notes).await {
            tracing::warn!(
                error = error.message(),
                notes = notes.len(),
                "the notes of acknowledged invalidations remain"
            );
        }
    }

    async fn acknowledged(&self, scope: &Scope) -> bool {
        let deadline = Instant::now() + ANSWER_LIMIT;
        let mut pause = FIRST_PAUSE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now()).min(ATTEMPT_LIMIT);
            if self.attempt(scope, left).await {
                return true;
            }
            let next = Instant::now() + pause;
            if next >= deadline {
                return false;
            }
            sleep_until(next).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn attempt(&self, scope: &Scope, limit: Duration) -> bool {
        let failure = match scope {
            Scope::Key(key) => self.cache.invalidate(key, limit).await.err(),
            Scope::Everything => self.cache.try_clear(BY, limit).await.err(),
        };
        match failure {
            None => true,
            Some(failure) if means_no_cache(&failure) => {
                // What a worker granted before it went away ends by itself.
                sleep(LEASES_END).await;
                true
            }
            Some(_) => false,
        }
    }

    /// How many changes the cache has not acknowledged yet.
    pub(crate) async fn pending_count(&self) -> Result<u64, Error> {
        self.pending.count().await
    }

    /// Tells of what others have left behind, until the stop. Every gateway does: that two tell of the
    /// same change is harmless.
    pub(crate) async fn run(self, shutdown: CancellationToken) -> anyhow::Result<()> {
        let mut failing = false;
        while shutdown.run_until_cancelled(sleep(LOOK_EVERY)).await.is_some() {
            match shutdown.run_until_cancelled(self.tell_left_behind()).await {
                None => break,
                Some(Ok(told)) => {
                    failing = false;
                    if told > 0 {
                        tracing::info!(told, "the cache was told of changes that were left behind");
                    }
                }
                Some(Err(reason)) => {
                    if !failing {
                        tracing::warn!(reason, "changes that were left behind can't be told of now");
                    }
                    failing = true;
                }
            }
        }
        Ok(())
    }

    async fn tell_left_behind(&self) -> Result<u64, String> {
        let (mut told, mut trouble) = (0, None);
        let mut after = None;
        loop {
            let notes = self.pending.older_than(LEFT_BEHIND, after.as_ref(), BATCH).await;
            self.reach.note(&notes);
            let notes = notes.map_err(|error| error.message())?;
            let is_last = notes.len() < BATCH as usize;
            after = notes.last().cloned();
            // Each by itself: one that is not acknowledged, or whose row is locked, holds up no other.
            let mut done = stream::iter(notes).map(|left| self.tell_again(left)).buffer_unordered(AT_ONCE);
            while let Some(done) = done.next().await {
                match done {
                    Ok(()) => told += 1,
                    Err(reason) => trouble = Some(reason),
                }
            }
            if is_last {
                return trouble.map_or(Ok(told), Err);
            }
        }
    }

    async fn tell_again(&self, LeftBehind { note, .. }: LeftBehind) -> Result<(), String> {
        if !self.acknowledged(&note.scope).await {
            return Err("the cache does not acknowledge".to_owned());
        }
        self.pending.remove(&[note]).await.map_err(|error| error.message())
    }
}

/// Held for a moment, to add or to take.
fn lock(notes: &Mutex<Vec<Note>>) -> MutexGuard<'_, Vec<Note>> {
    notes.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether a failure means that no cache is there, so that none can hold an old image (design rule 9).
/// This is the one place that decides it.
///
/// "No responders" comes from the server that we are connected to: nobody has subscribed to
/// invalidations. A worker subscribes to them before it serves, keeps serving nothing after each
/// connection until a round trip has proven that subscription, and drops all it held at that moment; a
/// worker that stops unsubscribes from gets first. So whoever might serve is subscribed, and whoever is
/// not, will serve only what it reads after this change.
fn means_no_cache(failure: &RequestFailure) -> bool {
    matches!(failure, RequestFailure::NoResponders(_))
}
