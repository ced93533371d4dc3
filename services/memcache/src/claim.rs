//! Which worker serves: a claim on an entry of a KV bucket, won by compare-and-set, renewed, and valid
//! for a while by the owner's own clock (a lease in the sense of Gray and Cheriton, SOSP 1989).
//!
//! The owner counts from *before* it sent a renewal; a worker that stands by counts from *after* it saw
//! the claim for the first time as it is, and waits a margin longer. So the owner's time always ends
//! first, however long a message took, as long as the two clocks don't run apart by more than an eighth.
//! A worker that was stopped and resumed, or cut off, looks at its clock before each answer and finds
//! its claim run out.
//!
//! To ask the bus who else is there would be no substitute: a worker that is paused does not answer, and
//! comes back.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_nats::jetstream::kv;
use runtime::clock::Moment;
use runtime::{Bus, streams};
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use wire::subject;

use crate::config::LONGEST_CLAIM_MS;

/// How often a worker that stands by looks at the claim.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// The longest that giving up a claim may take; if it fails, it runs out.
const RELEASE_TIME: Duration = Duration::from_millis(500);

/// The entry in the bucket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    /// The worker's name, for people.
    worker: String,
    /// The life of it that owns the claim.
    incarnation: String,
    /// How long the claim is valid after each renewal, in milliseconds.
    valid_ms: u64,
    /// Whether the owner gave it up: it serves no more.
    released: bool,
}

/// The claim of one life of a worker.
#[derive(Debug)]
pub struct Claim {
    bus: Bus,
    bucket: kv::Store,
    entry: Entry,
    length: Duration,
    /// The zero of `end_ms`.
    origin: Moment,
    /// Until when it is valid, in milliseconds since `origin`. Zero is for good.
    end_ms: AtomicU64,
    /// Cancelled when it has ended for good.
    ended: CancellationToken,
    /// The connection on which it was renewed last.
    connection: AtomicU64,
    /// The revision of the entry as this worker wrote it; held while it is renewed.
    revision: Mutex<u64>,
}

/// Why a renewal did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum RenewalError {
    /// Somebody else has it, or the bucket has forgotten it. It does not come back.
    #[error("the claim to serve has gone to another")]
    Lost,
    /// The bucket can't be reached; the claim is valid for as long as it was.
    #[error("the claim to serve can't be renewed now: {0:#}")]
    Failed(anyhow::Error),
}

impl Claim {
    /// Stands by until the claim is free, takes it, and returns it as that of a new incarnation. `None`
    /// after `shutdown`. `former` is the last incarnation of this very process, which serves no more.
    pub async fn win(
        bus: &Bus,
        worker: &str,
        length: Duration,
        former: Option<&str>,
        shutdown: &CancellationToken,
    ) -> Option<Self> {
        let mut standby =
            Standby { bus, bucket: None, worker, length, former, seen: None, said: String::new() };
        loop {
            match shutdown.run_until_cancelled(standby.look()).await? {
                Ok(Some(claim)) => {
                    tracing::info!(
                        incarnation = claim.entry.incarnation,
                        "this worker has the claim to serve"
                    );
                    return Some(claim);
                }
                Ok(None) => {}
                Err(error) => {
                    // The bucket may have to be made anew.
                    standby.bucket = None;
                    standby.say(format!("the claim to serve can't be read: {error:#}"));
                }
            }
            shutdown.run_until_cancelled(sleep(LOOK_EVERY)).await?;
        }
    }

    /// The life of the worker that has it.
    pub fn incarnation(&self) -> &str {
        &self.entry.incarnation
    }

    /// When it was won, or a little earlier: since then no other worker serves.
    pub fn won(&self) -> Moment {
        self.origin
    }

    /// Whether it is valid at this moment.
    pub fn is_valid(&self) -> bool {
        millis(self.origin.elapsed()) < self.end_ms.load(Ordering::Acquire)
    }

    /// The connection on which it was renewed last. After a reconnection the bucket may be another one,
    /// in which somebody else has it: nothing is served before a renewal on the new connection.
    pub fn connection(&self) -> u64 {
        self.connection.load(Ordering::Acquire)
    }

    /// Ends it at once and for good, whatever is on its way.
    pub fn end(&self) {
        self.end_ms.store(0, Ordering::Release);
        self.ended.cancel();
    }

    /// Renews it once.
    ///
    /// # Errors
    /// [`RenewalError`].
    pub async fn renew(&self) -> Result<(), RenewalError> {
        let mut revision = self.revision.lock().await;
        if !self.is_valid() {
            // Whoever stands by may have it already, though the bucket does not say so yet.
            self.end();
            return Err(RenewalError::Lost);
        }
        let bucket = &self.bucket;
        let renewed = async {
            let connection = self.bus.connection_count();
            // Behind another connection may be another bucket, in which the same number is somebody else's.
            if connection == self.connection() {
                let sent = Moment::now();
                if let Some(next) = write(bucket, &self.entry, Some(*revision)).await? {
                    return Ok(Some((next, sent, connection)));
                }
            }
            // A write of our own, whose acknowledgement was lost, is no loss of the claim.
            match read(bucket).await? {
                Some((Found::Claim(entry), current)) if entry == self.entry => {
                    let sent = Moment::now();
                    let written = write(bucket, &self.entry, Some(current)).await?;
                    Ok(written.map(|next| (next, sent, connection)))
                }
                _ => Ok(None),
            }
        };
        match timeout(self.length / 2, renewed).await {
            Ok(Ok(Some((next, sent, connection)))) => {
                *revision = next;
                let end_ms = millis((sent + self.length).since(self.origin));
                let extended = self
                    .end_ms
                    .fetch_update(Ordering::AcqRel, Ordering::Acquire, |end| (end != 0).then_some(end_ms));
                self.connection.store(connection, Ordering::Release);
                extended.map(|_| ()).map_err(|_| RenewalError::Lost)
            }
            Ok(Ok(None)) => {
                self.end();
                Err(RenewalError::Lost)
            }
            Ok(Err(error)) => Err(RenewalError::Failed(error)),
            Err(_) => Err(RenewalError::Failed(anyhow::anyhow!("no answer in time"))),
        }
    }

    /// Renews it again and again. Returns when it is lost: taken by another, or run out.
    pub async fn keep(&self) {
        let mut failing = false;
        loop {
            let pause = sleep(if failing { self.length / 16 } else { self.length / 4 });
            if self.ended.run_until_cancelled(pause).await.is_none() {
                return;
            }
            match self.renew().await {
                Ok(()) => failing = false,
                Err(RenewalError::Lost) => return,
                Err(error @ RenewalError::Failed(_)) => {
                    if !failing {
                        tracing::warn!(%error, "renewing the claim to serve");
                    }
                    failing = true;
                }
            }
            if !self.is_valid() {
                return;
            }
        }
    }

    /// Gives it up, after the worker has left the bus: whoever stands by need not wait.
    pub async fn release(&self) {
        self.end();
        let released = async {
            let revision = self.revision.lock().await;
            let entry = Entry { released: true, ..self.entry.clone() };
            if write(&self.bucket, &entry, Some(*revision)).await?.is_some() {
                return anyhow::Ok(());
            }
            // The stop has broken a renewal off, which was written all the same.
            if let Some((Found::Claim(found), current)) = read(&self.bucket).await?
                && found == self.entry
            {
                write(&self.bucket, &entry, Some(current)).await?;
            }
            Ok(())
        };
        match timeout(RELEASE_TIME, released).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!("the claim to serve was not given up and runs out: {error:#}"),
            Err(_) => tracing::warn!("the claim to serve was not given up in time and runs out"),
        }
    }
}

/// A worker that waits for the claim.
struct Standby<'a> {
    bus: &'a Bus,
    bucket: Option<kv::Store>,
    worker: &'a str,
    length: Duration,
    former: Option<&'a str>,
    /// What stood in the bucket, at which revision, and when it was first seen there.
    seen: Option<(Found, u64, Moment)>,
    said: String,
}

impl Standby<'_> {
    /// Looks at the claim, and takes it if it is free.
    async fn look(&mut self) -> anyhow::Result<Option<Claim>> {
        let bucket = match self.bucket.clone() {
            Some(bucket) => bucket,
            None => timeout(self.length, streams::ensure_owners_bucket(self.bus.jetstream())).await??,
        };
        self.bucket = Some(bucket.clone());
        let found = timeout(self.length, read(&bucket)).await??;
        let Some((found, revision)) = found else { return self.take(bucket, None).await };
        // By whichever length is longer, if they were set differently; none can be longer than any setting.
        let (valid_ms, waiting) = match &found {
            Found::Claim(entry) if entry.released || self.former == Some(entry.incarnation.as_str()) => {
                return self.take(bucket, Some(revision)).await;
            }
            Found::Claim(entry) => {
                (entry.valid_ms, format!("worker {} has the claim to serve", entry.worker))
            }
            Found::Unreadable(why) => {
                (0, format!("the claim to serve can't be read and is waited out: {why}"))
            }
        };
        let length = self.length.max(Duration::from_millis(valid_ms.min(LONGEST_CLAIM_MS)));
        let now = Moment::now();
        match &self.seen {
            // Both, since the revisions of a bucket that was made anew begin again.
            Some((seen, seen_revision, since)) if (seen, *seen_revision) == (&found, revision) => {
                if now.since(*since) > length + length / 8 {
                    tracing::info!(revision, "the claim to serve has run out");
                    return self.take(bucket, Some(revision)).await;
                }
            }
            _ => self.seen = Some((found, revision, now)),
        }
        self.say(format!("standing by: {waiting}"));
        Ok(None)
    }

    async fn take(&self, bucket: kv::Store, expected: Option<u64>) -> anyhow::Result<Option<Claim>> {
        let entry = Entry {
            worker: self.worker.to_owned(),
            incarnation: format!("{:016x}", rand::random::<u64>()),
            valid_ms: millis(self.length),
            released: false,
        };
        let connection = self.bus.connection_count();
        let origin = Moment::now();
        let Some(revision) = write(&bucket, &entry, expected).await? else { return Ok(None) };
        Ok(Some(Claim {
            bus: self.bus.clone(),
            bucket,
            entry,
            length: self.length,
            origin,
            end_ms: AtomicU64::new(millis(self.length)),
            ended: CancellationToken::new(),
            connection: AtomicU64::new(connection),
            revision: Mutex::new(revision),
        }))
    }

    /// Logs what is the case, each thing once.
    fn say(&mut self, what: String) {
        if self.said != what {
            tracing::info!("{what}");
            self.said = what;
        }
    }
}

/// What stands in the bucket.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    /// Somebody's claim.
    Claim(Entry),
    /// Something else, and what: whoever had the claim before may not know it yet, so that it is waited out.
    Unreadable(String),
}

/// What stands in the bucket, and its revision.
async fn read(bucket: &kv::Store) -> anyhow::Result<Option<(Found, u64)>> {
    let Some(entry) = streams::last(bucket, subject::OWNERS_KEY).await? else { return Ok(None) };
    let found = match entry.value.as_deref().map(serde_json::from_slice) {
        Some(Ok(claim)) => Found::Claim(claim),
        Some(Err(error)) => Found::Unreadable(error.to_string()),
        None => Found::Unreadable("it was deleted".to_owned()),
    };
    Ok(Some((found, entry.revision)))
}

/// Writes the entry if its revision is still `expected`; the new revision, or `None` if it is not.
async fn write(bucket: &kv::Store, entry: &Entry, expected: Option<u64>) -> anyhow::Result<Option<u64>> {
    let body = serde_json::to_vec(entry)?.into();
    match bucket.update(subject::OWNERS_KEY, body, expected.unwrap_or(0)).await {
        Ok(revision) => Ok(Some(revision)),
        Err(error) if error.kind() == kv::UpdateErrorKind::WrongLastRevision => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
