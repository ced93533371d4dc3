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
use std::time::{Duration, Instant};

use async_nats::jetstream::kv;
use runtime::{Bus, streams};
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use wire::subject;

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
    origin: Instant,
    /// Until when it is valid, in milliseconds since `origin`.
    end_ms: AtomicU64,
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

    /// Whether it is valid at this moment.
    pub fn is_valid(&self) -> bool {
        millis(self.origin.elapsed()) < self.end_ms.load(Ordering::Acquire)
    }

    /// The connection on which it was renewed last. After a reconnection the bucket may be another one,
    /// in which somebody else has it: nothing is served before a renewal on the new connection.
    pub fn connection(&self) -> u64 {
        self.connection.load(Ordering::Acquire)
    }

    /// Renews it once.
    ///
    /// # Errors
    /// [`RenewalError`].
    pub async fn renew(&self) -> Result<(), RenewalError> {
        let mut revision = self.revision.lock().await;
        if !self.is_valid() {
            // Whoever stands by may have it already, though the bucket does not say so yet.
            return Err(RenewalError::Lost);
        }
        let bucket = &self.bucket;
        let renewed = async {
            let connection = self.bus.connection_count();
            let sent = Instant::now();
            if let Some(next) = write(bucket, &self.entry, Some(*revision)).await? {
                return Ok(Some((next, sent, connection)));
            }
            // A write of our own, whose acknowledgement was lost, is no loss of the claim.
            match read(bucket).await? {
                Some((entry, current)) if entry == self.entry => {
                    let sent = Instant::now();
                    let written = write(bucket, &self.entry, Some(current)).await?;
                    Ok(written.map(|next| (next, sent, connection)))
                }
                _ => Ok(None),
            }
        };
        match timeout(self.length / 2, renewed).await {
            Ok(Ok(Some((next, sent, connection)))) => {
                *revision = next;
                self.end_ms.store(millis(sent + self.length - self.origin), Ordering::Release);
                self.connection.store(connection, Ordering::Release);
                Ok(())
            }
            Ok(Ok(None)) => Err(RenewalError::Lost),
            Ok(Err(error)) => Err(RenewalError::Failed(error)),
            Err(_) => Err(RenewalError::Failed(anyhow::anyhow!("no answer in time"))),
        }
    }

    /// Renews it again and again. Returns when it is lost: taken by another, or run out.
    pub async fn keep(&self) {
        let mut failing = false;
        loop {
            sleep(if failing { self.length / 16 } else { self.length / 4 }).await;
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
        self.end_ms.store(0, Ordering::Release);
        let revision = self.revision.lock().await;
        let entry = Entry { released: true, ..self.entry.clone() };
        let released = write(&self.bucket, &entry, Some(*revision));
        match timeout(RELEASE_TIME, released).await {
            Ok(Ok(_)) => {}
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
    /// The revision that stood in the bucket, and when it was first seen there.
    seen: Option<(u64, Instant)>,
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
        let Some((entry, revision)) = found else { return self.take(bucket, None).await };
        let is_ours = self.former == Some(entry.incarnation.as_str());
        if entry.released || is_ours {
            return self.take(bucket, Some(revision)).await;
        }
        let now = Instant::now();
        let since = match self.seen {
            Some((seen, since)) if seen == revision => since,
            _ => {
                self.seen = Some((revision, now));
                now
            }
        };
        // By whichever length is longer, if they were set differently.
        let length = self.length.max(Duration::from_millis(entry.valid_ms));
        if now - since > length + length / 8 {
            tracing::info!(
                worker = entry.worker,
                incarnation = entry.incarnation,
                "the claim to serve has run out"
            );
            return self.take(bucket, Some(revision)).await;
        }
        self.say(format!("standing by: worker {} has the claim to serve", entry.worker));
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
        let origin = Instant::now();
        let Some(revision) = write(&bucket, &entry, expected).await? else { return Ok(None) };
        Ok(Some(Claim {
            bus: self.bus.clone(),
            bucket,
            entry,
            length: self.length,
            origin,
            end_ms: AtomicU64::new(millis(self.length)),
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

/// The entry and its revision, also one that can't be read as a claim: then nobody has it.
async fn read(bucket: &kv::Store) -> anyhow::Result<Option<(Entry, u64)>> {
    let Some(found) = bucket.entry(subject::OWNERS_KEY).await? else { return Ok(None) };
    let free = || Entry { worker: String::new(), incarnation: String::new(), valid_ms: 0, released: true };
    let entry = match found.operation {
        kv::Operation::Put => serde_json::from_slice(&found.value).unwrap_or_else(|error| {
            tracing::error!(%error, "what stands in the bucket is no claim; it is passed over");
            free()
        }),
        kv::Operation::Delete | kv::Operation::Purge => free(),
    };
    Ok(Some((entry, found.revision)))
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
