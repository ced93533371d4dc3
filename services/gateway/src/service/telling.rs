//! Telling the cache that an image changed, until it has acknowledged it (design rules 6 and 9).

use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use origin::pending::{LeftBehind, Note, Pending, Scope};
use parking_lot::Mutex;
use runtime::bus::RequestFailure;
use runtime::clock::{Moment, with_margin};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use wire::inspect::{ClearReply, InvalidateReply};
use wire::near::LONGEST_LEASE_MS;
use wire::{Key, Refill};

use crate::cache::client::{CACHE, CHANGE_LIMIT, CacheClient};
use crate::cache::granted::Granted;
use crate::error::Error;
use crate::service::reach::Reach;
use crate::service::serving::{Nobody, Serving};

/// How long an upload or a deletion waits for the acknowledgement before it is answered 503.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// How long one request waits. A repeated invalidation is harmless, a lost one is not.
const ATTEMPT_LIMIT: Duration = Duration::from_secs(2);
/// The time after which every near lease granted before has ended, even by clocks that run apart by up to an eighth.
const LEASES_END: Duration = with_margin(Duration::from_millis(LONGEST_LEASE_MS));
/// How long an acknowledgement may take before the gateway checks whether any worker serves at all.
const DOUBT: Duration = Duration::from_millis(50);
/// The longest pause between two such checks. A claim renewed in between is seen to run out later by up to this.
const DOUBT_EVERY: Duration = Duration::from_millis(200);
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);
/// How often each gateway looks for notes that were left behind.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The age from which a note counts as left behind: the gateway that made it has given up by then, or is gone.
const LEFT_BEHIND: Duration = Duration::from_secs(6);
/// How long notes of acknowledged changes gather before they are removed.
const GATHERING: Duration = Duration::from_millis(50);
/// How many of them are read in one go.
const BATCH: u32 = 100;
/// How many of them are told of at once.
const AT_ONCE: usize = 8;
/// The author in the cache's history when the deletion of all images clears the cache.
const BY: &str = "gateway: all images deleted";

/// Tells the cache, and removes the notes of what it has acknowledged. Clones share everything.
#[derive(Debug, Clone)]
pub(crate) struct Teller {
    cache: CacheClient,
    serving: Serving,
    pending: Pending,
    /// Notes of acknowledged changes, which are removed together: each removal alone would be a commit.
    acknowledged: Arc<Mutex<Acknowledged>>,
    /// The teller reads MySQL all the time, so it is the first to know whether MySQL answers.
    reach: Reach,
}

#[derive(Debug, Default)]
struct Acknowledged {
    notes: Vec<Note>,
    /// Whether a task removes them.
    is_removing: bool,
}

/// The cache has been told: none holds the image from before any more.
#[derive(Debug)]
pub(crate) struct Told {
    /// The lease to fill the new image, if it was asked for and handed out.
    pub(crate) granted: Option<Granted>,
}

impl Teller {
    /// Tells this cache, and keeps these notes.
    pub(crate) fn new(cache: CacheClient, serving: Serving, pending: Pending, reach: Reach) -> Self {
        Self { cache, serving, pending, acknowledged: Arc::default(), reach }
    }

    /// Tells the cache of one change, again and again for up to five seconds. True once no cache holds the
    /// image from before; then the note is to be given to [`Teller::forget`].
    pub(crate) async fn tell(&self, note: &Note) -> bool {
        self.acknowledged(&note.scope, None).await.is_some()
    }

    /// As [`Teller::tell`], and asks for the lease to fill the new image; `None` in the place of false.
    pub(crate) async fn tell_to_refill(&self, note: &Note, refill: Option<Refill>) -> Option<Told> {
        self.acknowledged(&note.scope, refill).await
    }

    /// Removes the note of an acknowledged change, by a task among `tasks`. No answer has to wait for it: until it is
    /// gone, the change may be told of once more, which is harmless.
    pub(crate) fn forget(&self, note: Note, tasks: &TaskTracker) {
        let mut acknowledged = self.acknowledged.lock();
        acknowledged.notes.push(note);
        if !acknowledged.is_removing {
            acknowledged.is_removing = true;
            tasks.spawn(self.clone().remove_acknowledged());
        }
    }

    async fn remove_acknowledged(self) {
        loop {
            sleep(GATHERING).await;
            let notes = {
                let mut acknowledged = self.acknowledged.lock();
                if acknowledged.notes.is_empty() {
                    acknowledged.is_removing = false;
                    return;
                }
                std::mem::take(&mut acknowledged.notes)
            };
            if let Err(error) = self.pending.remove(&notes).await {
                tracing::warn!(
                    error = error.to_string(),
                    notes = notes.len(),
                    "notes of acknowledged changes could not be removed: the cache is told of them once more"
                );
            }
        }
    }

    /// `Some` once a worker has acknowledged, or surely none holds the image from before. `None` after [`ANSWER_LIMIT`].
    async fn acknowledged(&self, scope: &Scope, refill: Option<Refill>) -> Option<Told> {
        let doubt = async {
            sleep(DOUBT).await;
            // It is rarely reached, and large.
            Box::pin(self.nobody_serves()).await;
        };
        let done = async {
            let granted = tokio::select! {
                granted = self.told_owner(scope, refill) => granted,
                () = doubt => None,
            };
            Told { granted }
        };
        timeout(ANSWER_LIMIT, done).await.ok()
    }

    /// Tells the worker that serves, until it has acknowledged.
    async fn told_owner(&self, scope: &Scope, refill: Option<Refill>) -> Option<Granted> {
        let mut pause = FIRST_PAUSE;
        loop {
            let told = match scope {
                Scope::Key(key) => {
                    self.invalidate(key, refill, ATTEMPT_LIMIT).await.map(|(_, granted)| granted)
                }
                Scope::Everything => self.try_clear(BY, ATTEMPT_LIMIT).await.map(|_| None),
            };
            let failure = match told {
                Ok(granted) => return granted,
                Err(failure) => failure,
            };
            tracing::debug!(%failure, "the cache has not acknowledged a change yet");
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Waits until the image from before can't be served any more: no worker serves, and no near lease lasts.
    async fn nobody_serves(&self) {
        let sure = loop {
            match self.serving.nobody().await {
                Nobody::Sure(sure) => break sure,
                Nobody::Perhaps(again) => sleep(again.min(DOUBT_EVERY)).await,
            }
        };
        // A lease that a worker granted before it went away ends by itself.
        loop {
            let left = (sure + LEASES_END).since(Moment::now());
            if left.is_zero() {
                return;
            }
            sleep(left).await;
        }
    }

    /// Has the worker that serves drop an image.
    async fn invalidate(
        &self,
        key: &Key,
        refill: Option<Refill>,
        limit: Duration,
    ) -> Result<(InvalidateReply, Option<Granted>), RequestFailure> {
        let asked = self.cache.invalidate(key, refill, limit);
        self.by_the_owner(asked, |(reply, _)| &reply.incarnation).await
    }

    /// Has the worker that serves drop everything.
    async fn try_clear(&self, by: &str, limit: Duration) -> Result<ClearReply, RequestFailure> {
        self.by_the_owner(self.cache.clear(by, limit), |reply| &reply.incarnation).await
    }

    /// The acknowledgement of a change. It counts only if the incarnation that gives it owns the claim (design rule 9).
    ///
    /// The read of the claim begins after the change. An owner from before that read serves no more. An owner from
    /// after it has read all that it holds after the change. So request and read can be on their way at once.
    async fn by_the_owner<A>(
        &self,
        asked: impl Future<Output = Result<A, RequestFailure>>,
        incarnation: impl Fn(&A) -> &String,
    ) -> Result<A, RequestFailure> {
        let (reply, owner) = tokio::join!(asked, self.serving.owner());
        let reply = reply?;
        if owner.as_ref() != Some(incarnation(&reply)) {
            let doubt = "the worker that answered is not known to be the one that serves; ask again";
            return Err(RequestFailure::Other(doubt.to_owned()));
        }
        Ok(reply)
    }

    /// Drops what is cached under `key`, the copies of gateways included. The stored image stays.
    ///
    /// # Errors
    /// As [`Teller::clear`].
    pub(crate) async fn drop_cached(&self, key: &Key) -> Result<InvalidateReply, Error> {
        let told = self.invalidate(key, None, CHANGE_LIMIT).await;
        told.map(|(reply, _)| reply).map_err(|failure| Error::of_request(CACHE, failure))
    }

    /// Drops everything that is cached. `by` goes into the history.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when no worker that serves answers; a refusal in the worker's own words.
    pub(crate) async fn clear(&self, by: &str) -> Result<ClearReply, Error> {
        self.try_clear(by, CHANGE_LIMIT).await.map_err(|failure| Error::of_request(CACHE, failure))
    }

    /// How many changes the cache has not acknowledged yet.
    pub(crate) async fn pending_count(&self) -> Result<u64, Error> {
        Ok(self.pending.count().await?)
    }

    /// Tells the cache of changes that were left behind, until the stop. Every gateway does so: it is harmless if
    /// two tell of the same change.
    pub(crate) async fn run(self, shutdown: CancellationToken) -> anyhow::Result<()> {
        let mut failing = false;
        while shutdown.run_until_cancelled(sleep(LOOK_EVERY)).await.is_some() {
            match shutdown.run_until_cancelled(self.tell_left_behind()).await {
                None => break,
                Some(Ok(told)) => {
                    failing = false;
                    if told > 0 {
                        tracing::info!(
                            told,
                            "changes that a gateway had left unacknowledged were told to the cache"
                        );
                    }
                }
                Some(Err(reason)) => {
                    if !failing {
                        tracing::warn!(
                            reason,
                            "changes that a gateway had left unacknowledged could not be told to the cache: it is tried again"
                        );
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
            let notes = notes.map_err(Error::from);
            self.reach.note(&notes);
            let notes = notes.map_err(|error| error.to_string())?;
            let is_last = notes.len() < BATCH as usize;
            after = notes.last().cloned();
            // Each note is told by itself, so one that is not acknowledged, or whose row is locked, holds up no other.
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
        if !self.tell(&note).await {
            return Err("the cache does not acknowledge".to_owned());
        }
        self.pending.remove(&[note]).await.map_err(|error| error.to_string())
    }
}
