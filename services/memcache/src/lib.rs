//! The memcache worker: keeps image bytes in memory and serves them as the NATS service `memcache`.
//!
//! It knows neither MySQL nor the image files. What it holds may be dropped at any moment without harm;
//! what it must never do is serve an image that has been replaced. The rules for that are numbered in
//! ARCHITECTURE.md and named where they are kept: leases in [`lease`], reconnections in [`worker`],
//! the order of a stop in [`run`].

pub mod config;
pub mod endpoints;
pub mod lease;
pub mod live;
pub mod memory;
pub mod store;
pub mod watch;
pub mod window;
pub mod worker;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use runtime::tasks::Tasks;
use runtime::{Bus, streams, wait};
use time::OffsetDateTime;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use wire::CacheConfig;

use crate::config::Config;
use crate::endpoints::{Endpoints, Group, Stop};
use crate::live::Live;
use crate::store::Store;
use crate::window::{Cutter, WindowQueue};
use crate::worker::Worker;

/// Messages that one subscription holds before the client drops further ones.
const SUBSCRIPTION_CAPACITY: usize = 8192;
/// What leaving the bus may take after everything has been answered.
const DRAIN_TIME: Duration = Duration::from_millis(500);

/// Runs the worker until `shutdown`, then stops in the order that loses nothing.
///
/// # Errors
/// When NATS is not there in time, a setting is out of range, or a background task fails.
pub async fn run(config: Config, shutdown: CancellationToken) -> anyhow::Result<()> {
    let first = CacheConfig {
        capacity_mb: config.first_capacity().context("CACHE_CAPACITY_MB")?,
        policy: config.cache_policy,
        generation: 0,
        changed_by: "first start".to_owned(),
        changed_at: OffsetDateTime::now_utc(),
    };
    let limit = config.process.dependency_timeout();
    let started = tokio::select! {
        started = start(&config, &first, limit) => started?,
        () = shutdown.cancelled() => return Ok(()),
    };
    let (worker, live, endpoints) = started;

    let mut tasks = Tasks::new(shutdown.clone());
    let stop = Stop::default();
    let (stop_windows, stop_publishing) = (CancellationToken::new(), CancellationToken::new());
    let (reads, rest, cutting) = (TaskTracker::new(), TaskTracker::new(), TaskTracker::new());
    tasks.spawn(
        "windows",
        cutting.track_future(
            Cutter::new(worker.clone(), config.stats_interval.duration()).run(stop_windows.clone()),
        ),
    );
    tasks.spawn("publication of windows", window::publish(worker.clone(), stop_publishing.clone()));
    tasks.spawn("configuration", live.clone().follow(stop.rest.clone()));
    tasks.spawn("key events", {
        let (worker, stop) = (worker.clone(), stop_publishing.clone());
        async move { worker.watch.publish(stop).await }
    });
    endpoints.serve(&worker, &live, &stop, |name, group, endpoint| {
        let tracker = if group == Group::Reads { &reads } else { &rest };
        let tracked = tracker.track_future(endpoint);
        tasks.spawn(name, async move {
            tracked.await;
            Ok(())
        });
    });
    tasks.spawn("connections", worker.clone().prove_connections(stop.rest.clone()));

    let failure = tasks.watch().await;

    // Get and put leave the bus before the invalidations do: what is still served can still be dropped.
    let deadline = Instant::now() + config.process.shutdown_grace();
    let stages = async {
        stop.reads.cancel();
        reads.close();
        reads.wait().await;
        stop.rest.cancel();
        rest.close();
        rest.wait().await;
        stop_windows.cancel();
        cutting.close();
        cutting.wait().await;
        worker.windows.emptied().await;
    };
    if timeout_at(deadline, stages).await.is_err() {
        tracing::warn!(
            pending = worker.windows.pending_count(),
            "stopping before JetStream has acknowledged every window"
        );
    }
    stop.rest.cancel();
    stop_windows.cancel();
    stop_publishing.cancel();
    worker.bus.drain(DRAIN_TIME).await;
    let finished = tasks.finish(DRAIN_TIME).await;
    failure?;
    finished?;
    tracing::info!("stopped");
    Ok(())
}

async fn start(
    config: &Config,
    first: &CacheConfig,
    limit: Duration,
) -> anyhow::Result<(Arc<Worker>, Arc<Live>, Endpoints)> {
    let bus =
        Bus::connect(&config.nats, "memcache", &config.nats_password, SUBSCRIPTION_CAPACITY, limit).await?;
    let worker = Worker::new(
        config.worker_name.clone(),
        bus.clone(),
        Store::new(first.policy, first.capacity_mb),
        WindowQueue::new(config.stats_interval.duration()),
        memory::largest_capacity_mb(),
        config.max_image_megapixels.saturating_mul(1_000_000),
    );
    let live = Arc::new(Live::new(worker.clone()));
    wait::until("JetStream", limit, || async { streams::ensure_event_stream(bus.jetstream()).await }).await?;
    wait::until("the configuration in JetStream", limit, || live.load(first)).await?;
    let endpoints = Endpoints::subscribe(&worker)
        .await
        .map_err(|error| anyhow::anyhow!("the service can't be put on the bus: {error}"))?;
    Ok((worker, live, endpoints))
}
