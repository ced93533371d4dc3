//! The claim to serve: an entry of a KV bucket, won by compare-and-set, renewed, and valid for a while by
//! the owner's own clock (a lease in the sense of Gray and Cheriton, SOSP 1989).
//!
//! The owner counts from *before* it sent a renewal; a worker that stands by counts from *after* it saw
//! the claim for the first time as it is, and waits a margin longer. So the owner's time always ends
//! first, however long a message took, as long as the rates of the two clocks differ by at most an eighth.
//! A worker that was paused, or cut off from the bus, looks at its clock before each answer and finds
//! that its claim has run out.
//!
//! Asking the bus for other workers would be no substitute: a paused worker does not answer, and may resume
//! later.
//!
//! Each write is a compare-and-set on the entry just read at the stream's leader. An entry that is missing although it
//! should be there, or that does not follow on the one that was known, counts as an unknown owner's. Such an owner's
//! claim is waited out ([`runtime::owners::Observer`]).

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use runtime::bucket::{self, Written};
use runtime::bus::RequestFailure;
use runtime::clock::Moment;
use runtime::owners::{Observer, Outlook, Owners, Standing};
use runtime::{Bus, streams};
use tokio::sync::Mutex;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use wire::owners::Entry;
use wire::subject;

/// How often a worker that stands by looks at the claim.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// How many times a free claim is tried for without a pause, when another writer was faster.
const TAKE_TRIES: usize = 4;
/// The longest that giving up a claim may take. A claim that is not given up in time runs out.
const RELEASE_TIME: Duration = Duration::from_millis(500);

/// The claim of one life of a worker.
#[derive(Debug)]
pub struct Claim {
    owners: Owners,
    incarnation: String,
    length: Duration,
    /// The zero of `end_ms`.
    origin: Moment,
    /// The end of its validity, in milliseconds since `origin`. Zero means that it has ended for good.
    end_ms: AtomicU64,
    /// Cancelled when it has ended for good.
    ended: CancellationToken,
    /// The connection on which it was renewed last.
    connection: AtomicU64,
    /// The entry as this worker knows it to be written, and its revision; held while it is renewed.
    entry: Mutex<(Entry, u64)>,
}

/// Why a renewal did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum RenewalError {
    /// Another worker has the claim, it has run out, or the bucket has lost it. It does not come back.
    #[error("the claim to serve has gone to another")]
    Lost,
    /// The bucket can't be reached; the claim is valid for as long as it was.
    #[error("the claim to serve can't be renewed now: {0:#}")]
    Failed(anyhow::Error),
}

impl Claim {
    /// Stands by until the claim is free, takes it, and returns it as that of a new incarnation. `None` after
    /// `shutdown`. `seen` holds the observations of the claim by this process, those of its former lives included.
    pub async fn win(
        bus: &Bus,
        worker: &str,
        length: Duration,
        replace_newer: bool,
        seen: &mut Observer,
        shutdown: &CancellationToken,
    ) -> Option<Self> {
        let owners = Owners::new(bus.clone());
        let mut standby = Standby { owners, worker, length, replace_newer, seen, said: String::new() };
        loop {
            let pause = match shutdown.run_until_cancelled(standby.look()).await? {
                Ok(Look::Won(claim)) => {
                    tracing::info!(incarnation = claim.incarnation, "this worker has the claim to serve");
                    return Some(*claim);
                }
                Ok(Look::StandBy(left)) => left.min(LOOK_EVERY),
                Err(error) => {
                    standby.say(format!("the claim to serve can't be read: {error:#}"));
                    LOOK_EVERY
                }
            };
            shutdown.run_until_cancelled(sleep(pause)).await?;
        }
    }

    /// The incarnation of the worker that has the claim.
    pub fn incarnation(&self) -> &str {
        &self.incarnation
    }

    /// A moment just before the claim was won. Since then no other worker serves.
    pub(crate) fn won(&self) -> Moment {
        self.origin
    }

    /// Whether it is valid at this moment.
    pub fn is_valid(&self) -> bool {
        millis(self.origin.elapsed()) < self.end_ms.load(Ordering::Acquire)
    }

    /// The connection on which it was renewed last. After a reconnection the bucket may be another one, in which
    /// another worker has the claim. So nothing is served before a renewal on the new connection.
    pub(crate) fn connection(&self) -> u64 {
        self.connection.load(Ordering::Acquire)
    }

    /// Ends it at once and for good, even if a renewal is under way.
    pub fn end(&self) {
        self.end_ms.store(0, Ordering::Release);
        self.ended.cancel();
    }

    /// Returns when it has ended for good.
    pub(crate) async fn ended(&self) {
        self.ended.cancelled().await;
    }

    /// Renews it once.
    ///
    /// # Errors
    /// [`RenewalError`].
    pub async fn renew(&self) -> Result<(), RenewalError> {
        let mut held = self.entry.lock().await;
        if !self.is_valid() {
            // A standby may count the claim as free already, even if the bucket does not show another owner yet.
            self.end();
            return Err(RenewalError::Lost);
        }
        let renewed = async {
            let connection = self.owners.bus().connection_count();
            let mut sent = Moment::now();
            let next = |entry: &Entry| {
                sent = Moment::now();
                entry.renewed()
            };
            let written = self.write_over(&held.0, next).await?;
            Ok::<_, RequestFailure>(written.map(|written| (written, sent, connection)))
        };
        match timeout(self.length / 2, renewed).await {
            Ok(Ok(Some((written, sent, connection)))) => {
                *held = written;
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
            Ok(Err(error)) => Err(RenewalError::Failed(anyhow::Error::new(error))),
            Err(_) => Err(RenewalError::Failed(anyhow::anyhow!("no answer in time"))),
        }
    }

    /// Writes what `next` makes of the entry, as long as the entry is this worker's and not older than `known`. It is
    /// older when a stream has lost its last writes. Returns the written entry and its revision, `None` otherwise.
    async fn write_over(
        &self,
        known: &Entry,
        mut next: impl FnMut(&Entry) -> Entry,
    ) -> Result<Option<(Entry, u64)>, RequestFailure> {
        let limit = self.length / 2;
        loop {
            // The entry is read first, because a remembered revision is not enough. In a bucket that was made anew or
            // rolled back, the same number may be another worker's write. And an own write whose acknowledgement was
            // lost does not end the claim.
            let found = self.owners.read(limit).await?;
            let is_ours = |entry: &&Entry| {
                entry.names(&self.incarnation) && entry.id == known.id && entry.beat >= known.beat
            };
            let Some(entry) = found.entry().filter(is_ours) else { return Ok(None) };
            let entry = next(entry);
            if let Written::Done(revision) = self.owners.write(&entry, found.revision, limit).await? {
                return Ok(Some((entry, revision)));
            }
        }
    }

    /// Renews it until it is lost: taken by another worker, or run out.
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
                        tracing::warn!(%error, "the claim to serve could not be renewed: it is tried again until it runs out");
                    }
                    failing = true;
                }
            }
            if !self.is_valid() {
                return;
            }
        }
    }

    /// Ends the claim, and notes its last entry and revision in `seen`, for the next life of this process.
    pub async fn leave_to(&self, seen: &mut Observer) {
        self.end();
        let (entry, revision) = self.entry.lock().await.clone();
        seen.wrote(&entry, revision, Moment::now());
    }

    /// Gives it up, after the worker has left the bus, so that a standby need not wait.
    pub async fn release(&self) {
        self.end();
        let released = async {
            let held = self.entry.lock().await;
            // The bucket may hold the entry of a renewal that the stop has cut short, so the entry is read again.
            self.write_over(&held.0, Entry::ended).await
        };
        match timeout(RELEASE_TIME, released).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => {
                tracing::warn!(%error, "the claim to serve could not be given up: it runs out by itself")
            }
            Err(_) => tracing::warn!("the claim to serve was not given up in time: it runs out by itself"),
        }
    }
}

/// A worker that waits for the claim.
struct Standby<'a> {
    owners: Owners,
    worker: &'a str,
    length: Duration,
    /// Whether an entry of a later release is waited out and replaced, like an entry that can't be read.
    replace_newer: bool,
    seen: &'a mut Observer,
    said: String,
}

/// The outcome of a look at the claim.
enum Look {
    Won(Box<Claim>),
    /// The claim is not free. It may be so after this time.
    StandBy(Duration),
}

impl Standby<'_> {
    /// Looks at the claim, and takes it if it is free.
    async fn look(&mut self) -> anyhow::Result<Look> {
        for _ in 0..TAKE_TRIES {
            let mut found = self.owners.read(self.length).await?;
            if let (Standing::Newer(version), true) = (&found.standing, self.replace_newer) {
                found.standing = Standing::Junk(format!("it has form {version}, of a later release"));
            }
            if found.standing == Standing::Missing && self.is_configured().await? {
                self.seen.expect_one();
            }
            let now = Moment::now();
            self.seen.note(&found, now);
            match self.seen.outlook(now) {
                Outlook::Free => {}
                Outlook::RunOut => {
                    tracing::info!(
                        revision = found.revision,
                        "the claim of another worker to serve has run out"
                    );
                }
                Outlook::Owned { by, left } => {
                    self.say(format!("the worker is standing by: {by}"));
                    return Ok(Look::StandBy(left));
                }
                Outlook::Newer(version) => {
                    self.say(format!(
                        "the worker is standing by: the claim to serve has form {version}, of a later release. If none of \
                         that release runs, start one worker with --replace-newer-claim"
                    ));
                    return Ok(Look::StandBy(LOOK_EVERY));
                }
                Outlook::Unseen => return Ok(Look::StandBy(LOOK_EVERY)),
            }
            if found.standing == Standing::Missing {
                let made = streams::ensure_owners_bucket(self.owners.bus().jetstream());
                timeout(self.length, made).await??;
            }
            // The write may fail because gateways write the entry too, when they make sure that no worker serves.
            if let Some(claim) = self.take().await? {
                return Ok(Look::Won(Box::new(claim)));
            }
        }
        Ok(Look::StandBy(LOOK_EVERY))
    }

    /// Whether there is a revision of the configuration, which comes after the first claim.
    async fn is_configured(&self) -> Result<bool, RequestFailure> {
        let bus = self.owners.bus();
        let last = bucket::last(bus, subject::CONFIG_STREAM, subject::CONFIG_ENTRY, self.length).await?;
        Ok(last.is_some())
    }

    async fn take(&mut self) -> anyhow::Result<Option<Claim>> {
        let incarnation = format!("{:016x}", rand::random::<u64>());
        let valid_ms = millis(self.length);
        let (entry, over) = self.seen.following(
            |entry| entry.taken(self.worker, incarnation.clone(), valid_ms),
            || {
                let id = format!("{:016x}", rand::random::<u64>());
                Entry::first(id, self.worker, incarnation.clone(), valid_ms)
            },
        );
        let connection = self.owners.bus().connection_count();
        let origin = Moment::now();
        // If the acknowledgement is lost, this incarnation must not be waited for as another owner.
        self.seen.lived(&incarnation);
        let Written::Done(revision) = self.owners.write(&entry, over, self.length).await? else {
            return Ok(None);
        };
        self.seen.wrote(&entry, revision, Moment::now());
        Ok(Some(Claim {
            owners: self.owners.clone(),
            incarnation,
            length: self.length,
            origin,
            end_ms: AtomicU64::new(millis(self.length)),
            ended: CancellationToken::new(),
            connection: AtomicU64::new(connection),
            entry: Mutex::new((entry, revision)),
        }))
    }

    /// Logs the state of the wait, unless it is the same as the last one logged.
    fn say(&mut self, what: String) {
        if self.said != what {
            tracing::info!("{what}");
            self.said = what;
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
