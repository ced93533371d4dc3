//! The live configuration: one entry of a JetStream KV bucket, read by every worker.
//!
//! A change is first written there, by compare-and-set, and then put into force. An acknowledged
//! change is therefore in force again after any restart, and a worker that was away finds it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::header::NATS_MESSAGE_ID;
use async_nats::jetstream::kv;
use runtime::bucket::{self, Message, Written};
use runtime::bus::RequestFailure;
use runtime::clock::Moment;
use runtime::{Bus, streams};
use serde::Serialize;
use time::OffsetDateTime;
use tokio::sync::{Mutex, MutexGuard};
use tokio_util::sync::CancellationToken;
use wire::config::InvalidConfig;
use wire::event::{Cleared, Configured, KeyEventKind};
use wire::inspect::ClearReply;
use wire::reply::{Code, Refusal};
use wire::{CacheConfig, Capacity, ConfigChange, ConfigReply, Policy, subject};

use crate::holders::Drop;
use crate::near;
use crate::worker::{Worker, not_serving};

/// How long a look into the bucket may take, outside of a request.
const BUCKET_TIME: Duration = Duration::from_secs(2);
/// How long the announcement of a change is waited for.
const ANNOUNCE_TIME: Duration = Duration::from_secs(5);
/// A request for a change is answered within this time of its arrival: before a gateway and the nats CLI stop waiting,
/// which is after 5 s.
const CHANGE_TIME: Duration = Duration::from_secs(4);
/// How long the write of a change may take.
const WRITE_TIME: Duration = Duration::from_millis(1500);
/// The rest of [`CHANGE_TIME`], for reading back whether a write without an acknowledgement was made.
const READ_BACK_TIME: Duration = Duration::from_millis(1000);
/// How many times a compare-and-set is tried against other writers.
const CHANGE_TRIES: usize = 16;
/// How many times the first revision is tried to be read or written at a start.
const LOAD_TRIES: usize = 8;
/// How often a worker looks in the bucket for a change of the configuration by another writer.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How many revisions are looked through for one that can be read, when the last one can't.
const EARLIER_REVISIONS: u64 = 32;

/// The configuration in force.
#[derive(Debug)]
pub(crate) struct Live {
    worker: Arc<Worker>,
    /// Locked from the write to the bucket until the change is in force. Otherwise a look could put it into force
    /// in between, and the clear would lack the counts for its answer.
    in_force: Mutex<Option<InForce>>,
}

#[derive(Debug, Clone)]
struct InForce {
    config: CacheConfig,
    /// As written in the bucket, where the capacity may be too large for this machine.
    written: CacheConfig,
    revision: u64,
    /// When the bucket was made: revisions of another bucket do not compare.
    bucket_created_at: OffsetDateTime,
}

/// The source of a revision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    /// It was found in the bucket. It drops everything if its generation differs from the one in force.
    Bucket,
    /// This worker has just written it. It comes into force whatever its number is, because a bucket that was rolled
    /// back counts again from an earlier number.
    Change,
    /// This worker has just written it in order to drop everything.
    Clear,
}

/// The content of the bucket.
#[derive(Debug)]
enum Found {
    /// Nothing, or the mark of a removal with this revision.
    Nothing(u64),
    /// A configuration and its revision.
    Config(CacheConfig, u64),
    /// A value that is no configuration, with its revision and the reason.
    Junk(u64, String),
}

/// The effect of putting a revision into force.
#[derive(Debug, Default)]
struct Effect {
    /// The entries and bytes that a clear dropped.
    dropped: Option<(u64, u64)>,
    /// The holders that must be told to drop everything before the revision is acknowledged.
    near: Option<Drop>,
}

/// Keeps `known` equal to the configuration in the bucket, and never returns. A worker that stands by needs it: once it
/// serves, it may have to write it again because JetStream has lost it.
pub(crate) async fn keep_in_mind(own: &Bus, known: &mut CacheConfig) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        if !own.is_connected() {
            continue;
        }
        let last = bucket::last(own, subject::CONFIG_STREAM, subject::CONFIG_ENTRY, BUCKET_TIME).await;
        let value = last.ok().flatten().and_then(|message| message.value);
        if let Some(Ok(config)) = value.map(|value| serde_json::from_slice(&value)) {
            *known = config;
        }
    }
}

impl Live {
    /// A configuration of which nothing is in force yet.
    pub(crate) fn new(worker: Arc<Worker>) -> Self {
        Self { worker, in_force: Mutex::new(None) }
    }

    /// The configuration in force, as written in the bucket; `None` before [`Live::load`].
    pub(crate) async fn written(&self) -> Option<CacheConfig> {
        self.in_force.lock().await.as_ref().map(|in_force| in_force.written.clone())
    }

    /// Reads the bucket, or sets its first revision, and puts that into force.
    ///
    /// # Errors
    /// When JetStream is not available, or what the bucket holds can't be read.
    pub(crate) async fn load(&self, first: &CacheConfig) -> anyhow::Result<()> {
        let bucket = self.bucket(BUCKET_TIME).await?;
        let mut in_force = self.in_force.lock().await;
        for _ in 0..LOAD_TRIES {
            let (config, over) = match self.read(BUCKET_TIME).await? {
                Found::Config(config, revision) => {
                    let effect =
                        self.put_into_force(&mut in_force, &bucket, config, revision, Source::Bucket);
                    self.tell_in_passing(effect);
                    return Ok(());
                }
                Found::Nothing(over) => {
                    tracing::info!("the bucket has no configuration: the first revision is written");
                    (first.clone(), over)
                }
                Found::Junk(over, why) => {
                    let last_good = self.last_good(over).await?;
                    (self.repaired(over, &why, last_good.as_ref().unwrap_or(first)), over)
                }
            };
            // If another worker was first, its revision is read next. An own write need not be read again.
            if let Written::Done(revision) = self.write_over(over, &config, BUCKET_TIME).await? {
                let effect = self.put_into_force(&mut in_force, &bucket, config, revision, Source::Change);
                self.tell_in_passing(effect);
                return Ok(());
            }
        }
        anyhow::bail!("others write the configuration at this moment")
    }

    /// The last revision before `revision` that can be read, among the [`EARLIER_REVISIONS`] before it.
    async fn last_good(&self, revision: u64) -> Result<Option<CacheConfig>, RequestFailure> {
        for earlier in (revision.saturating_sub(EARLIER_REVISIONS).max(1)..revision).rev() {
            let message =
                bucket::with_number(self.own(), subject::CONFIG_STREAM, earlier, BUCKET_TIME).await?;
            let value = message.and_then(|message| message.value);
            if let Some(Ok(config)) = value.map(|value| serde_json::from_slice(&value)) {
                return Ok(Some(config));
            }
        }
        Ok(None)
    }

    /// The configuration to write over an entry that can't be read.
    fn repaired(&self, over: u64, why: &str, config: &CacheConfig) -> CacheConfig {
        tracing::warn!(
            revision = over,
            why,
            policy = %config.policy,
            capacity_mb = config.capacity_mb.mb(),
            "the entry in the bucket is no configuration: it is overwritten"
        );
        CacheConfig {
            changed_by: format!("{}: revision {over} could not be read", self.worker.name),
            changed_at: OffsetDateTime::now_utc(),
            ..config.clone()
        }
    }

    fn own(&self) -> &Bus {
        &self.worker.own
    }

    /// Reads the content of the bucket.
    async fn read(&self, limit: Duration) -> Result<Found, RequestFailure> {
        let last = bucket::last(self.own(), subject::CONFIG_STREAM, subject::CONFIG_ENTRY, limit).await?;
        Ok(match last {
            None => Found::Nothing(0),
            Some(Message { value: None, revision }) => Found::Nothing(revision),
            Some(Message { value: Some(value), revision }) => match serde_json::from_slice(&value) {
                Ok(config) => Found::Config(config, revision),
                Err(error) => Found::Junk(revision, error.to_string()),
            },
        })
    }

    /// Writes the entry if its last revision is still `over`.
    async fn write_over(
        &self,
        over: u64,
        config: &CacheConfig,
        limit: Duration,
    ) -> Result<Written, RequestFailure> {
        let body = serde_json::to_vec(config).map_err(|error| RequestFailure::Other(error.to_string()))?;
        bucket::write(self.own(), subject::CONFIG_WRITE, body.into(), over, limit).await
    }

    /// Writes the configuration in force to the bucket again if the bucket no longer holds it.
    ///
    /// That is so if the bucket holds nothing, a value that can't be read, or an earlier revision, because the stream
    /// has lost one that it had acknowledged. Returns the written configuration and its revision; `None` if no write
    /// was needed, or another writer was first.
    async fn mend(
        &self,
        in_force: &InForce,
        found: &Found,
        bucket: &kv::Store,
    ) -> Result<Option<(CacheConfig, u64)>, RequestFailure> {
        let is_another = bucket.stream.cached_info().created != in_force.bucket_created_at;
        let (over, config) = match found {
            Found::Config(_, revision) if is_another || *revision >= in_force.revision => return Ok(None),
            Found::Config(_, over) => {
                tracing::warn!(
                    revision = over,
                    in_force = in_force.revision,
                    "the stream has lost the configuration in force: it is written again"
                );
                (*over, in_force.written.clone())
            }
            Found::Nothing(over) => (*over, in_force.written.clone()),
            Found::Junk(over, why) => (*over, self.repaired(*over, why, &in_force.written)),
        };
        Ok(match self.write_over(over, &config, BUCKET_TIME).await? {
            Written::Done(revision) => Some((config, revision)),
            Written::Overtaken => None,
        })
    }

    /// Looks into the bucket every second, and at once after a reconnection. A JetStream watch is not used: it would be
    /// a consumer, which delivers wherever its maker says, so the rights allow none.
    ///
    /// # Errors
    /// Never by itself; ends with `shutdown`.
    pub(crate) async fn follow(self: Arc<Self>, shutdown: CancellationToken) -> anyhow::Result<()> {
        let mut connections = self.worker.own.connections();
        let mut failing = false;
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                _ = connections.changed() => {}
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
            let Some(looked) = shutdown.run_until_cancelled(self.look()).await else { return Ok(()) };
            match looked {
                Ok(()) => failing = false,
                Err(error) => {
                    if !failing {
                        tracing::warn!(
                            error = format!("{error:#}"),
                            "the configuration could not be read from JetStream: the last one stays in force"
                        );
                    }
                    failing = true;
                }
            }
        }
    }

    async fn look(&self) -> anyhow::Result<()> {
        anyhow::ensure!(self.worker.own.is_connected(), "not connected to NATS");
        let bucket = self.bucket(BUCKET_TIME).await?;
        let mut in_force = self.in_force.lock().await;
        let found = self.read(BUCKET_TIME).await?;
        let mended = match in_force.as_ref() {
            Some(now) => self.mend(now, &found, &bucket).await?,
            None => None,
        };
        let effect = match (mended, found) {
            (Some((config, revision)), _) => {
                self.put_into_force(&mut in_force, &bucket, config, revision, Source::Change)
            }
            (None, Found::Config(config, revision)) => {
                self.put_into_force(&mut in_force, &bucket, config, revision, Source::Bucket)
            }
            (None, Found::Nothing(_) | Found::Junk(..)) => Effect::default(),
        };
        self.tell_in_passing(effect);
        Ok(())
    }

    /// Makes the change that `payload` asks for, in a request that arrived at `arrived`.
    ///
    /// # Errors
    /// A refusal with the code for it, which says whether anything was changed, or that this is not known.
    pub(crate) async fn change(
        &self,
        payload: &[u8],
        arrived: Moment,
    ) -> Result<(ConfigReply, Option<Drop>), Refusal> {
        let change = ConfigChange::parse(payload, self.worker.max_capacity_mb).map_err(bad_request)?;
        let (in_force, effect) = self
            .write(change.by.as_deref(), arrived, Source::Change, |config| {
                config.capacity_mb = change.capacity_mb.unwrap_or(config.capacity_mb);
                config.policy = change.policy.unwrap_or(config.policy);
            })
            .await?;
        Ok((self.reply(&in_force), effect.near))
    }

    /// Clears every worker's cache: writes another generation to the bucket, and drops everything here.
    ///
    /// # Errors
    /// As [`Live::change`].
    pub(crate) async fn clear(
        &self,
        by: Option<&str>,
        arrived: Moment,
    ) -> Result<(ClearReply, Option<Drop>), Refusal> {
        // A generation only has to differ from others. Numbers that grow would come again after the bucket was
        // rolled back.
        let draw = |config: &mut CacheConfig| config.generation = other_generation(config.generation);
        let (in_force, effect) = self.write(by, arrived, Source::Clear, draw).await?;
        let (entries, bytes) = effect.dropped.unwrap_or_default();
        let (generation, revision) = (in_force.config.generation, in_force.revision);
        let incarnation = self.worker.incarnation.clone();
        Ok((ClearReply { entries, bytes, generation, revision, incarnation }, effect.near))
    }

    /// Reads the bucket again, and puts its configuration into force.
    ///
    /// # Errors
    /// A refusal, when it can't be read.
    pub(crate) async fn refresh(&self, arrived: Moment) -> Result<ConfigReply, Refusal> {
        let end = arrived + CHANGE_TIME;
        let bucket = self.bucket(left(end)).await.map_err(|error| unavailable(format_args!("{error:#}")))?;
        let mut in_force = self.locked(end).await?;
        if let Found::Config(config, revision) = self.read(left(end)).await.map_err(unavailable)? {
            let effect = self.put_into_force(&mut in_force, &bucket, config, revision, Source::Bucket);
            self.tell_in_passing(effect);
        }
        in_force.as_ref().map(|in_force| self.reply(in_force)).ok_or_else(not_read_yet)
    }

    /// The configuration in force, locked for a change; a refusal if the lock is not free before `end`.
    async fn locked(&self, end: Moment) -> Result<MutexGuard<'_, Option<InForce>>, Refusal> {
        let locked = tokio::time::timeout(left(end), self.in_force.lock()).await;
        locked.map_err(|_| unavailable("JetStream does not answer in time"))
    }

    /// The configuration in force.
    ///
    /// # Errors
    /// A refusal, as long as nothing is in force.
    pub(crate) async fn get(&self) -> Result<ConfigReply, Refusal> {
        let in_force = self.in_force.lock().await.clone();
        in_force.as_ref().map(|in_force| self.reply(in_force)).ok_or_else(not_read_yet)
    }

    fn reply(&self, in_force: &InForce) -> ConfigReply {
        ConfigReply {
            worker: self.worker.name.clone(),
            incarnation: self.worker.incarnation.clone(),
            revision: in_force.revision,
            config: in_force.config.clone(),
            capacity_bytes: in_force.config.capacity_mb.bytes(),
            max_capacity_mb: self.worker.max_capacity_mb,
        }
    }

    async fn bucket(&self, limit: Duration) -> anyhow::Result<kv::Store> {
        let made = streams::ensure_config_bucket(self.worker.own.jetstream());
        let made = tokio::time::timeout(limit, made).await;
        Ok(made.map_err(|_| anyhow::anyhow!("JetStream does not answer in time"))??)
    }

    /// Changes the entry by compare-and-set and puts it into force.
    async fn write(
        &self,
        by: Option<&str>,
        arrived: Moment,
        source: Source,
        change: impl Fn(&mut CacheConfig),
    ) -> Result<(InForce, Effect), Refusal> {
        // No write begins after `end`, so that there is time left to find out its outcome.
        let end = arrived + (CHANGE_TIME - WRITE_TIME - READ_BACK_TIME);
        let bucket = self.bucket(left(end)).await.map_err(|error| unavailable(format_args!("{error:#}")))?;
        let mut in_force = self.locked(end).await?;
        for _ in 0..CHANGE_TRIES {
            let found = self.read(left(end)).await.map_err(unavailable)?;
            let (mut config, over) = match (found, in_force.as_ref()) {
                (Found::Config(config, revision), _) => (config, revision),
                (Found::Junk(revision, _), Some(now)) => (now.written.clone(), revision),
                (Found::Nothing(_) | Found::Junk(..), _) => {
                    return Err(Refusal::new(
                        Code::Unavailable,
                        "the bucket of the configuration is being made anew; try again in a moment",
                    ));
                }
            };
            // This worker may have been paused past the end of its claim with the request still waiting, and its
            // successor may have acknowledged a later change. The claim is looked at after the revision was read:
            // a change that comes from here on makes the compare-and-set fail.
            if !self.worker.claim.is_valid() {
                return Err(not_serving());
            }
            change(&mut config);
            config.changed_by = by.filter(|by| !by.is_empty()).unwrap_or("nats").to_owned();
            config.changed_at = OffsetDateTime::now_utc();
            let revision = match self.write_over(over, &config, WRITE_TIME).await {
                Ok(Written::Done(revision)) => revision,
                Ok(Written::Overtaken) => continue,
                Err(failure) if failure.had_no_effect() => return Err(unavailable(failure)),
                // The write may have been made, and only its acknowledgement lost.
                Err(failure) => match self.read(left(arrived + CHANGE_TIME)).await {
                    Ok(Found::Config(found, revision)) if found == config => revision,
                    _ => return Err(unknown(&failure)),
                },
            };
            let effect = self.put_into_force(&mut in_force, &bucket, config, revision, source);
            let now = in_force.clone().ok_or_else(|| Refusal::new(Code::Internal, "nothing is in force"))?;
            return Ok((now, effect));
        }
        Err(Refusal::new(
            Code::Unavailable,
            "too many others change the configuration at this moment; nothing was changed, try again",
        ))
    }

    /// Puts a revision into force. One that was found in the bucket is passed over if it or a later one already is in
    /// force. The effect has the entries and bytes that were dropped, if the revision is a clear.
    fn put_into_force(
        &self,
        in_force: &mut Option<InForce>,
        bucket: &kv::Store,
        config: CacheConfig,
        revision: u64,
        source: Source,
    ) -> Effect {
        let bucket_created_at = bucket.stream.cached_info().created;
        // Two revisions can have the same number, if the stream has lost the first of them.
        let is_old = |now: &InForce| {
            now.bucket_created_at == bucket_created_at
                && (now.revision > revision || now.revision == revision && now.written == config)
        };
        if source == Source::Bucket && in_force.as_ref().is_some_and(is_old) {
            return Effect::default();
        }
        let written = config.clone();
        let config = self.within_this_machine(config);
        let before =
            in_force.replace(InForce { config: config.clone(), written, revision, bucket_created_at });
        let (evicted, dropped, near) = {
            let mut store = self.worker.store();
            let evicted = store.configure(config.policy, config.capacity_mb);
            // A generation of another bucket says nothing about this one, even if it is the same.
            let is_new = before.as_ref().is_some_and(|before| {
                before.config.generation != config.generation || before.bucket_created_at != bucket_created_at
            });
            let is_clear = source == Source::Clear || is_new;
            // Under the policy `none`, gateways must hold no copies either.
            let is_end = config.policy == Policy::None
                && before.as_ref().is_some_and(|before| before.config.policy != Policy::None);
            let near = (is_clear || is_end).then(|| store.holders.drop_all(Moment::now()));
            (evicted, is_clear.then(|| store.clear()), near)
        };
        self.worker.revision.store(revision, Ordering::Relaxed);
        for entry in &evicted {
            self.worker.watch.tell(KeyEventKind::Evicted, &entry.item(), entry.size());
        }
        tracing::info!(revision, policy = %config.policy, capacity_mb = config.capacity_mb.mb(), generation = config.generation,
            changed_by = config.changed_by, evicted = evicted.len(), "the configuration is in force");
        let (worker, incarnation, time) =
            (self.worker.name.clone(), self.worker.incarnation.clone(), OffsetDateTime::now_utc());
        let changed_by = config.changed_by.clone();
        if let Some(dropped) = &dropped {
            let (entries, bytes, generation) = (dropped.entries, dropped.bytes, config.generation);
            let event =
                Cleared { worker, incarnation, revision, generation, entries, bytes, changed_by, time };
            self.announce(subject::cleared_event(&self.worker.name), revision, &event);
        } else {
            let (capacity_bytes, policy) = (config.capacity_mb.bytes(), config.policy);
            let event =
                Configured { worker, incarnation, revision, capacity_bytes, policy, changed_by, time };
            self.announce(subject::configured_event(&self.worker.name), revision, &event);
        }
        Effect { dropped: dropped.map(|dropped| (dropped.entries, dropped.bytes)), near }
    }

    /// Tells the holders about a revision that no request waits for, without waiting for their acknowledgements.
    fn tell_in_passing(&self, effect: Effect) {
        let Some(near) = effect.near.filter(|near| !near.holders.is_empty()) else { return };
        let worker = self.worker.clone();
        tokio::spawn(async move { near::tell(&worker, &near).await });
    }

    /// The configuration with a capacity that this machine allows. The bucket may come from a machine with more memory,
    /// or have been written by hand.
    fn within_this_machine(&self, mut config: CacheConfig) -> CacheConfig {
        let asked = config.capacity_mb.mb();
        let most = self.worker.max_capacity_mb;
        if let Ok(capacity) = Capacity::from_mb(asked.clamp(1, most), most)
            && capacity != config.capacity_mb
        {
            tracing::warn!(
                asked_mb = asked,
                capacity_mb = capacity.mb(),
                "the configured capacity is beyond three quarters of this machine's memory: a smaller one is in force"
            );
            config.capacity_mb = capacity;
        }
        config
    }

    /// Publishes an event for observers, without waiting for its acknowledgement: the truth is the bucket, which the
    /// recorder reads by itself.
    fn announce(&self, subject: String, revision: u64, event: &impl Serialize) {
        let Ok(body) = serde_json::to_vec(event) else { return };
        let mut headers = HeaderMap::new();
        headers.insert(NATS_MESSAGE_ID, format!("{}-r{revision}", self.worker.incarnation));
        let jetstream = self.worker.own.jetstream().clone();
        tokio::spawn(async move {
            let publication =
                async { jetstream.publish_with_headers(subject, headers, body.into()).await?.await };
            match tokio::time::timeout(ANNOUNCE_TIME, publication).await {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => {
                    tracing::warn!(%error, revision, "a change of the configuration could not be announced: watchers of events miss it")
                }
                Err(_) => tracing::warn!(
                    revision,
                    "a change of the configuration was not announced in time: watchers of events may miss it"
                ),
            }
        });
    }
}

/// Another generation than this one: 53 random bits, which every JSON reader can represent exactly.
fn other_generation(generation: u64) -> u64 {
    loop {
        let drawn = rand::random::<u64>() >> 11;
        if drawn != generation {
            return drawn;
        }
    }
}

/// The time left until `end`.
fn left(end: Moment) -> Duration {
    end.since(Moment::now())
}

fn not_read_yet() -> Refusal {
    Refusal::new(Code::Unavailable, "the configuration has not been read yet; try again in a moment")
}

fn bad_request(error: InvalidConfig) -> Refusal {
    Refusal::new(Code::BadRequest, error.to_string())
}

/// The refusal when the bucket could not be read, or has taken no write.
fn unavailable(error: impl std::fmt::Display) -> Refusal {
    Refusal::new(
        Code::Unavailable,
        format!("the bucket of the configuration can't be used now ({error}); nothing was changed"),
    )
}

/// The refusal when it is unknown whether the bucket has taken the write.
pub(crate) fn unknown(failure: &dyn std::fmt::Display) -> Refusal {
    Refusal::new(
        Code::Unavailable,
        format!(
            "whether this was changed is unknown: the bucket of the configuration has not acknowledged it \
             ({failure}); look at what is in force, or ask again"
        ),
    )
}
