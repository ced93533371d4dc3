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
//!
//! Each write is a compare-and-set on what was just read at the stream's leader. An entry that is missing although it
//! should be there, or that does not follow on the one that was known, is an unknown owner's, and is waited out
//! ([`runtime::owners::Observer`]).

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
/// How often it is tried at once to take a claim that is free, when somebody else has written it meanwhile.
const TAKE_TRIES: usize = 4;
/// The longest that giving up a claim may take; if it fails, it runs out.
const RELEASE_TIME: Duration = Duration::from_millis(500);

/// The claim of one life of a worker.
#[derive(Debug)]
pub struct Claim {
    owners: Owners,
    incarnation: String,
    length: Duration,
    /// The zero of `end_ms`.
    origin: Moment,
    /// Until when it is valid, in milliseconds since `origin`. Zero is for good.
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
    /// Somebody else has it, or the bucket has forgotten it. It does not come back.
    #[error("the claim to serve has gone to another")]
    Lost,
    /// The bucket can't be reached; the claim is valid for as long as it was.
    #[error("the claim to serve can't be renewed now: {0:#}")]
    Failed(anyhow::Error),
}

impl Claim {
    /// Stands by until the claim is free, takes it, and returns it as that of a new incarnation. `None`
    /// after `shutdown`. `seen` is what this process has seen of the claim, in its former lives too.
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

    /// The life of the worker that has it.
    pub fn incarnation(&self) -> &str {
        &self.incarnation
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

    /// Returns when it has ended for good.
    pub async fn ended(&self) {
        self.ended.cancelled().await;
    }

    /// Renews it once.
    ///
    /// # Errors
    /// [`RenewalError`].
    pub async fn renew(&self) -> Result<(), RenewalError> {
        let mut held = self.entry.lock().await;
        if !self.is_valid() {
            // Whoever stands by may have it already, though the bucket does not say so yet.
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

    /// Writes what `next` makes of the entry, as long as that is this worker's and none that a stream has taken back.
    /// What was written, and its revision; `None` when it is somebody else's.
    async fn write_over(
        &self,
        known: &Entry,
        mut next: impl FnMut(&Entry) -> Entry,
    ) -> Result<Option<(Entry, u64)>, RequestFailure> {
        let limit = self.length / 2;
        loop {
            // Not over a revision that is remembered: in a bucket made anew, or one that was taken back, the same number
            // is somebody else's. And a write of one's own, whose acknowledgement was lost, is no loss of the claim.
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

    /// Lets `seen` know how far this claim has come, when its life is over.
    pub async fn leave_to(&self, seen: &mut Observer) {
        self.end();
        let (entry, revision) = self.entry.lock().await.clone();
        seen.wrote(&entry, revision, Moment::now());
    }

    /// Gives it up, after the worker has left the bus: whoever stands by need not wait.
    pub async fn release(&self) {
        self.end();
        let released = async {
            let held = self.entry.lock().await;
            // That of a renewal which the stop has broken off may stand there.
            self.write_over(&held.0, Entry::ended).await
        };
        match timeout(RELEASE_TIME, released).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the claim to serve was not given up and runs out"),
            Err(_) => tracing::warn!("the claim to serve was not given up in time and runs out"),
        }
    }
}

/// A worker that waits for the claim.
struct Standby<'a> {
    owners: Owners,
    worker: &'a str,
    length: Duration,
    /// Whether an entry of a later release is waited out and replaced, as one that can't be read is.
    replace_newer: bool,
    seen: &'a mut Observer,
    said: String,
}

/// What came of a look at the claim.
enum Look {
    Won(Box<Claim>),
    /// It may be free after so long.
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
                    tracing::info!(revision = found.revision, "the claim to serve has run out");
                }
                Outlook::Owned { by, left } => {
                    self.say(format!("standing by: {by}"));
                    return Ok(Look::StandBy(left));
                }
                Outlook::Newer(version) => {
                    self.say(format!(
                        "standing by: the claim to serve has form {version}, of a later release; if none is in use, \
                         start one worker with --replace-newer-claim"
                    ));
                    return Ok(Look::StandBy(LOOK_EVERY));
                }
                Outlook::Unseen => return Ok(Look::StandBy(LOOK_EVERY)),
            }
            if found.standing == Standing::Missing {
                let made = streams::ensure_owners_bucket(self.owners.bus().jetstream());
                timeout(self.length, made).await??;
            }
            // Gateways write the entry too, when they make sure that nobody serves.
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
        // If the acknowledgement is lost, this is nobody to wait for.
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

    /// Logs what is the case, each thing once.
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
