//! The live configuration: one entry of a JetStream KV bucket, watched by every worker.
//!
//! A change is first written there, by compare-and-set, and then put into force. What was
//! acknowledged is therefore in force again after any restart, and a worker that was away finds it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::header::NATS_MESSAGE_ID;
use async_nats::jetstream::kv;
use runtime::clock::Moment;
use runtime::streams::{self, Entry};
use serde::Serialize;
use time::OffsetDateTime;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;
use wire::config::InvalidConfig;
use wire::event::{Cleared, Configured, KeyEventKind};
use wire::inspect::ClearReply;
use wire::reply::{Code, Refusal};
use wire::{CacheConfig, Capacity, ConfigChange, ConfigReply, Policy, subject};

use crate::endpoints::not_serving;
use crate::holders::Drop;
use crate::near;
use crate::worker::Worker;

/// How long reading or writing the bucket may take.
const BUCKET_TIME: Duration = Duration::from_secs(5);
/// How often a compare-and-set is tried against other writers.
const CHANGE_TRIES: usize = 16;
/// How often a worker looks whether somebody else has changed the configuration.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The configuration in force.
#[derive(Debug)]
pub struct Live {
    worker: Arc<Worker>,
    /// Held from the write to the bucket until the change is in force, so that the watcher does not
    /// put it into force in between and take away the counts that a clear answers with.
    in_force: Mutex<Option<InForce>>,
}

#[derive(Debug, Clone)]
struct InForce {
    config: CacheConfig,
    revision: u64,
    /// When the bucket was made: revisions of another bucket do not compare.
    bucket_created_at: OffsetDateTime,
}

/// Whether a revision drops everything when it is put into force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Clears {
    /// It was written in order to.
    Always,
    /// If its generation is another one than what was in force.
    IfNew,
}

/// What came of putting a revision into force.
#[derive(Debug, Default)]
struct Effect {
    /// The entries and bytes that a clear dropped.
    dropped: Option<(u64, u64)>,
    /// Who must be told to drop everything before the revision is acknowledged.
    near: Option<Drop>,
}

impl Live {
    /// Nothing is in force yet.
    pub fn new(worker: Arc<Worker>) -> Self {
        Self { worker, in_force: Mutex::new(None) }
    }

    /// Reads the bucket, or sets its first revision, and puts that into force.
    ///
    /// # Errors
    /// When JetStream is not available, or what the bucket holds can't be read.
    pub async fn load(&self, first: &CacheConfig) -> anyhow::Result<()> {
        let bucket = self.bucket().await?;
        let mut in_force = self.in_force.lock().await;
        loop {
            let (config, revision) = read(&bucket).await?;
            if let Some(config) = config {
                let effect = self.put_into_force(&mut in_force, &bucket, config, revision, Clears::IfNew);
                self.tell_in_passing(effect);
                return Ok(());
            }
            // Another worker may be first; then its revision is read.
            if write(&bucket, first, revision).await?.is_some() {
                tracing::info!(policy = %first.policy, capacity_mb = first.capacity_mb.mb(), "the first revision of the configuration is set");
            }
        }
    }

    /// Looks into the bucket again and again, and at once after a reconnection. A watch of JetStream's would be a consumer
    /// that delivers wherever its maker says, so the rights allow none.
    ///
    /// # Errors
    /// Never by itself; ends with `shutdown`.
    pub async fn follow(self: Arc<Self>, shutdown: CancellationToken) -> anyhow::Result<()> {
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
                        tracing::warn!("the configuration in JetStream can't be read now: {error:#}");
                    }
                    failing = true;
                }
            }
        }
    }

    async fn look(&self) -> anyhow::Result<()> {
        anyhow::ensure!(self.worker.own.is_connected(), "not connected to NATS");
        let bucket = self.bucket().await?;
        let mut in_force = self.in_force.lock().await;
        match read(&bucket).await? {
            (Some(config), revision) => {
                let effect = self.put_into_force(&mut in_force, &bucket, config, revision, Clears::IfNew);
                self.tell_in_passing(effect);
            }
            (None, revision) => {
                // The bucket is gone or empty: what is in force is its first revision again.
                let config = in_force.as_ref().map(|in_force| in_force.config.clone());
                if let Some(config) = config {
                    write(&bucket, &config, revision).await?;
                }
            }
        }
        Ok(())
    }

    /// Makes the change that `payload` asks for.
    ///
    /// # Errors
    /// A refusal with the code for it. Nothing is changed then.
    pub async fn change(&self, payload: &[u8]) -> Result<(ConfigReply, Option<Drop>), Refusal> {
        let change = ConfigChange::parse(payload, self.worker.max_capacity_mb).map_err(bad_request)?;
        let (in_force, effect) = self
            .write(change.by.as_deref(), Clears::IfNew, |config| {
                config.capacity_mb = change.capacity_mb.unwrap_or(config.capacity_mb);
                config.policy = change.policy.unwrap_or(config.policy);
            })
            .await?;
        Ok((self.reply(&in_force), effect.near))
    }

    /// Clears every worker's cache: bumps the generation, and drops everything here.
    ///
    /// # Errors
    /// A refusal with the code for it. Nothing is dropped then.
    pub async fn clear(&self, by: Option<&str>) -> Result<(ClearReply, Option<Drop>), Refusal> {
        // Only that it differs counts; a worker lives on at the last number too.
        let raise = |config: &mut CacheConfig| config.generation = config.generation.wrapping_add(1);
        let (in_force, effect) = self.write(by, Clears::Always, raise).await?;
        let (entries, bytes) = effect.dropped.unwrap_or_default();
        let (generation, revision) = (in_force.config.generation, in_force.revision);
        Ok((ClearReply { entries, bytes, generation, revision }, effect.near))
    }

    /// Reads the bucket again.
    ///
    /// # Errors
    /// A refusal, when it can't be read.
    pub async fn refresh(&self) -> Result<ConfigReply, Refusal> {
        let bucket = self.bucket().await.map_err(unavailable)?;
        let mut in_force = self.in_force.lock().await;
        if let (Some(config), revision) = read(&bucket).await.map_err(unavailable)? {
            let effect = self.put_into_force(&mut in_force, &bucket, config, revision, Clears::IfNew);
            self.tell_in_passing(effect);
        }
        drop(in_force);
        self.get().await
    }

    /// What is in force.
    ///
    /// # Errors
    /// A refusal, before anything is.
    pub async fn get(&self) -> Result<ConfigReply, Refusal> {
        let in_force = self.in_force.lock().await.clone();
        in_force.as_ref().map(|in_force| self.reply(in_force)).ok_or_else(|| {
            Refusal::new(Code::Unavailable, "the configuration has not been read yet; try again in a moment")
        })
    }

    fn reply(&self, in_force: &InForce) -> ConfigReply {
        ConfigReply {
            worker: self.worker.name.clone(),
            revision: in_force.revision,
            config: in_force.config.clone(),
            capacity_bytes: in_force.config.capacity_mb.bytes(),
            max_capacity_mb: self.worker.max_capacity_mb,
        }
    }

    async fn bucket(&self) -> anyhow::Result<kv::Store> {
        Ok(tokio::time::timeout(BUCKET_TIME, streams::ensure_config_bucket(self.worker.own.jetstream()))
            .await??)
    }

    /// Changes the entry by compare-and-set and puts it into force.
    async fn write(
        &self,
        by: Option<&str>,
        clears: Clears,
        change: impl Fn(&mut CacheConfig),
    ) -> Result<(InForce, Effect), Refusal> {
        let bucket = self.bucket().await.map_err(unavailable)?;
        let mut in_force = self.in_force.lock().await;
        for _ in 0..CHANGE_TRIES {
            let (Some(mut config), revision) = read(&bucket).await.map_err(unavailable)? else {
                return Err(Refusal::new(
                    Code::Unavailable,
                    "the bucket of the configuration is being made anew; try again in a moment",
                ));
            };
            // A request may have waited with a worker that was stopped past its claim, and whoever serves now
            // have acknowledged a later one. The revision is known already: what changes from here on makes
            // the compare-and-set fail.
            if !self.worker.claim.is_valid() {
                return Err(not_serving());
            }
            change(&mut config);
            config.changed_by = by.filter(|by| !by.is_empty()).unwrap_or("nats").to_owned();
            config.changed_at = OffsetDateTime::now_utc();
            if let Some(revision) = write(&bucket, &config, revision).await.map_err(unavailable)? {
                let effect = self.put_into_force(&mut in_force, &bucket, config, revision, clears);
                let now =
                    in_force.clone().ok_or_else(|| Refusal::new(Code::Internal, "nothing is in force"))?;
                return Ok((now, effect));
            }
        }
        Err(Refusal::new(
            Code::Unavailable,
            "too many others change the configuration at this moment; try again",
        ))
    }

    /// Puts a revision into force unless it, or a later one, already is. Returns the entries and bytes
    /// that it dropped if it is a clear.
    fn put_into_force(
        &self,
        in_force: &mut Option<InForce>,
        bucket: &kv::Store,
        config: CacheConfig,
        revision: u64,
        clears: Clears,
    ) -> Effect {
        let bucket_created_at = bucket.stream.cached_info().created;
        if in_force
            .as_ref()
            .is_some_and(|now| now.bucket_created_at == bucket_created_at && now.revision >= revision)
        {
            return Effect::default();
        }
        let config = self.within_this_machine(config);
        let before = in_force.replace(InForce { config: config.clone(), revision, bucket_created_at });
        let (evicted, dropped, near) = {
            let mut store = self.worker.store();
            let evicted = store.configure(config.policy, config.capacity_mb);
            // In a bucket that was made anew, generations begin again as well.
            let is_new = before.as_ref().is_some_and(|before| {
                before.config.generation != config.generation || before.bucket_created_at != bucket_created_at
            });
            let is_clear = clears == Clears::Always || is_new;
            // Under `none`, nothing is held anywhere.
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
            changed_by = config.changed_by, evicted = evicted.len(), "configuration in force");
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

    /// Tells of a revision that somebody else wrote: nobody waits for the acknowledgement here.
    fn tell_in_passing(&self, effect: Effect) {
        let Some(near) = effect.near.filter(|near| !near.holders.is_empty()) else { return };
        let worker = self.worker.clone();
        tokio::spawn(async move { near::tell(&worker, &near).await });
    }

    /// The bucket may come from a machine with more memory, or have been written by hand.
    fn within_this_machine(&self, mut config: CacheConfig) -> CacheConfig {
        let asked = config.capacity_mb.mb();
        let most = self.worker.max_capacity_mb;
        if let Ok(capacity) = Capacity::from_mb(asked.clamp(1, most), most)
            && capacity != config.capacity_mb
        {
            tracing::warn!(
                asked_mb = asked,
                capacity_mb = capacity.mb(),
                "the configured capacity does not fit this machine"
            );
            config.capacity_mb = capacity;
        }
        config
    }

    /// Publishes an event for those who look on. The truth is the bucket, which the recorder reads by
    /// itself; so nobody waits for the acknowledgement.
    fn announce(&self, subject: String, revision: u64, event: &impl Serialize) {
        let Ok(body) = serde_json::to_vec(event) else { return };
        let mut headers = HeaderMap::new();
        headers.insert(NATS_MESSAGE_ID, format!("{}-r{revision}", self.worker.incarnation));
        let jetstream = self.worker.own.jetstream().clone();
        tokio::spawn(async move {
            let publication =
                async { jetstream.publish_with_headers(subject, headers, body.into()).await?.await };
            match tokio::time::timeout(BUCKET_TIME, publication).await {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => {
                    tracing::warn!(%error, revision, "a change of the configuration was not announced")
                }
                Err(_) => tracing::warn!(revision, "a change of the configuration was not announced in time"),
            }
        });
    }
}

/// The configuration in the bucket, if there is one, and the revision that a change of it replaces.
async fn read(bucket: &kv::Store) -> anyhow::Result<(Option<CacheConfig>, u64)> {
    let entry = tokio::time::timeout(BUCKET_TIME, streams::last(bucket, subject::CONFIG_KEY)).await??;
    let Some(Entry { value, revision }) = entry else { return Ok((None, 0)) };
    let config = value.map(|value| {
        serde_json::from_slice(&value).map_err(|error| {
            anyhow::anyhow!("revision {revision} in the bucket is no configuration: {error}")
        })
    });
    Ok((config.transpose()?, revision))
}

/// Writes the entry if its last revision is still `expected`. Returns the new revision, or `None` when
/// somebody else was first.
async fn write(bucket: &kv::Store, config: &CacheConfig, expected: u64) -> anyhow::Result<Option<u64>> {
    let body = serde_json::to_vec(config)?.into();
    let written = bucket.update(subject::CONFIG_KEY, body, expected);
    match tokio::time::timeout(BUCKET_TIME, written).await? {
        Ok(revision) => Ok(Some(revision)),
        Err(error) if error.kind() == kv::UpdateErrorKind::WrongLastRevision => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn bad_request(error: InvalidConfig) -> Refusal {
    Refusal::new(Code::BadRequest, error.to_string())
}

fn unavailable(error: anyhow::Error) -> Refusal {
    Refusal::new(
        Code::Unavailable,
        format!("the bucket of the configuration can't be used now ({error:#}); nothing was changed"),
    )
}
