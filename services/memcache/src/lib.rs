//! The memcache worker: keeps image bytes in memory and serves them as the NATS service `memcache`.
//!
//! It knows neither MySQL nor the image files. Its entries may be dropped at any moment without harm, but it
//! must never serve an image that has been replaced. The rules for that are numbered in
//! ARCHITECTURE.md and named where they are kept: leases in [`lease`], reconnections in [`worker`],
//! which worker serves in [`claim`], the order of a stop in [`run`].

mod claim;
mod config;
mod cutter;
mod endpoints;
mod holders;
mod lease;
mod live;
mod memory;
mod near;
mod store;
mod watch;
mod window;
mod worker;

pub use claim::{Claim, RenewalError};
pub use config::Config;
pub use store::{ENTRY_OVERHEAD_BYTES, Entry, Insert, Lookup, Snapshot, Store};

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use runtime::owners::Observer;
use runtime::shelf::{self, Shelf};
use runtime::tasks::Tasks;
use runtime::{Buses, process, streams, wait};
use time::OffsetDateTime;
use tokio::runtime::Builder;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};
use wire::CacheConfig;

use crate::cutter::Cutter;
use crate::endpoints::{Endpoints, Group, Stop, stand_by};
use crate::live::Live;
use crate::window::WindowQueue;
use crate::worker::Worker;

/// The users in nats.conf: one for answers, and one for messages that the worker sends unasked.
const USERS: (&str, &str) = ("memcache", "memcache_own");
/// Messages that one subscription holds before the client drops further ones.
const SUBSCRIPTION_CAPACITY: usize = 8192;
/// The time that leaving the bus may take after everything has been answered.
const LEAVE_TIME: Duration = Duration::from_millis(500);

/// The process: settings, log and signals, then [`run`].
pub fn main() -> ExitCode {
    process::main("memcache", &mut Builder::new_multi_thread(), run)
}

/// Runs the worker until `shutdown`, then stops in the order that loses nothing. While another worker has
/// the claim to serve, this one stands by. A new life of it begins whenever it wins the claim.
///
/// # Errors
/// When NATS is not there in time, a setting is out of range, or a background task fails.
pub async fn run(config: Config, shutdown: CancellationToken) -> anyhow::Result<()> {
    let mut known = CacheConfig {
        capacity_mb: config.first_capacity().context("CACHE_CAPACITY_MB")?,
        policy: config.cache_policy,
        generation: 0,
        changed_by: "first start".to_owned(),
        changed_at: OffsetDateTime::now_utc(),
    };
    let windows = Arc::new(WindowQueue::new(config.stats_interval.duration()));
    let shelf = shelf::from_setting(&config.shared_dir);
    // At a first start there is no claim yet.
    let mut seen = Observer::new(false);
    loop {
        let Some(connected) = shutdown.run_until_cancelled(connect(&config)).await else { return Ok(()) };
        let buses = connected?;
        match serve_on(&buses, &config, &shelf, &mut known, &windows, &mut seen, &shutdown).await? {
            End::Stopped => return Ok(()),
            End::BusDied(error) => {
                tracing::error!(
                    error = format!("{error:#}"),
                    "the NATS client has ended: the worker connects anew"
                );
            }
        }
    }
}

/// Why a worker no longer uses a connection.
enum End {
    /// It was asked to stop.
    Stopped,
    /// The client has ended for good, and all work over its connection with it; the error of that work.
    BusDied(anyhow::Error),
}

/// Serves until `shutdown`, or for as long as the clients of the bus live.
async fn serve_on(
    buses: &Buses,
    config: &Config,
    shelf: &Option<Shelf>,
    known: &mut CacheConfig,
    windows: &Arc<WindowQueue>,
    seen: &mut Observer,
    shutdown: &CancellationToken,
) -> anyhow::Result<End> {
    let stop_publishing = CancellationToken::new();
    let mut tasks = Tasks::new(stop_publishing.clone());
    tasks.spawn(
        "publication of windows",
        window::publish(buses.own.clone(), windows.clone(), stop_publishing.clone()),
    );

    tasks.spawn("rights", {
        let (buses, stopped) = (buses.clone(), stop_publishing.clone());
        // A worker that lacks a right ends with an error: otherwise it would serve, and the lack would stay unseen.
        async move {
            stopped.run_until_cancelled(buses.refused()).await.map_or(Ok(()), |refusal| Err(refusal.into()))
        }
    });

    // All parts of a stop share one period of grace.
    let grace = config.process.shutdown_grace();
    let stopping = {
        let shutdown = shutdown.clone();
        async move {
            shutdown.cancelled().await;
            Instant::now()
        }
    };
    let stopping = AbortOnDropHandle::new(tokio::spawn(stopping));

    let result = tokio::select! {
        ended = live_again_and_again(config, shelf, known, buses, windows, seen, shutdown) => ended,
        failed = tasks.watch() => failed.map_err(anyhow::Error::from),
    };
    let has_died = result.is_err() && !shutdown.is_cancelled() && buses.have_died().await;
    let began = if shutdown.is_cancelled() { stopping.await? } else { Instant::now() };
    if !has_died && timeout_at(began + grace + LEAVE_TIME, windows.emptied()).await.is_err() {
        tracing::warn!(
            pending = windows.pending_count(),
            "the worker stops before JetStream has acknowledged every window"
        );
    }
    stop_publishing.cancel();
    buses.drain(LEAVE_TIME).await;
    let finished = tasks.finish(LEAVE_TIME).await;
    match result {
        Err(error) if has_died => return Ok(End::BusDied(error)),
        result => result?,
    }
    finished?;
    tracing::info!("the worker has stopped");
    Ok(End::Stopped)
}

async fn connect(config: &Config) -> anyhow::Result<Buses> {
    let limit = config.process.dependency_timeout();
    let buses =
        Buses::connect(&config.nats, USERS, &config.nats_password, SUBSCRIPTION_CAPACITY, limit).await?;
    let streams = wait::until("JetStream", limit, || async {
        streams::ensure_event_stream(buses.own.jetstream()).await
    });
    tokio::select! {
        made = streams => made?,
        refusal = buses.refused() => return Err(refusal.into()),
    }
    Ok(buses)
}

/// Stands by and serves in turns, until `shutdown`.
///
/// `known` is the last configuration in force that this process knows of. If the bucket is lost, it becomes the first
/// revision of the next bucket, whichever worker serves then.
async fn live_again_and_again(
    config: &Config,
    shelf: &Option<Shelf>,
    known: &mut CacheConfig,
    buses: &Buses,
    windows: &Arc<WindowQueue>,
    seen: &mut Observer,
    shutdown: &CancellationToken,
) -> anyhow::Result<()> {
    let length = Duration::from_millis(config.claim_ms);
    loop {
        let standing_by = stand_by(buses.answers.client(), &config.worker_name).await;
        let standing_by = standing_by.map_err(|error| anyhow::anyhow!("not on the bus: {error}"))?;
        let won = tokio::select! {
            won = Claim::win(&buses.own, &config.worker_name, length, config.replace_newer_claim, seen, shutdown) => won,
            () = live::keep_in_mind(&buses.own, known) => None,
        };
        if let Err(error) = standing_by.stop().await {
            tracing::debug!(%error, "the bus was not told that this worker stands by no more");
        }
        let Some(claim) = won else { return Ok(()) };
        let store = Store::new(known.policy, known.capacity_mb)
            .with_near_leases(Duration::from_millis(config.near_lease_ms))
            .with_admission(config.cache_admission);
        let max_pixels = config.max_image_megapixels.saturating_mul(1_000_000);
        let name = config.worker_name.clone();
        let worker = Worker::new(name, buses, claim, store, windows.clone(), max_pixels, shelf.clone());
        let settings = Arc::new(Live::new(worker.clone()));
        let lived = live(&worker, &settings, config, known, shutdown).await;
        if let Some(written) = settings.written().await {
            *known = written;
        }
        worker.claim.leave_to(seen).await;
        lived?;
        if shutdown.is_cancelled() {
            worker.claim.release().await;
            return Ok(());
        }
        tracing::warn!(
            incarnation = worker.incarnation,
            "the claim to serve is lost: the worker drops all entries"
        );
    }
}

/// One life: from the claim to its loss, or to the stop. Afterwards the worker has left the bus.
async fn live(
    worker: &Arc<Worker>,
    settings: &Arc<Live>,
    config: &Config,
    known: &CacheConfig,
    shutdown: &CancellationToken,
) -> anyhow::Result<()> {
    let beginning = async {
        let limit = config.process.dependency_timeout();
        wait::until("the configuration in JetStream", limit, || settings.load(known)).await?;
        let subscribed = Endpoints::subscribe(worker).await;
        subscribed.map_err(|error| anyhow::anyhow!("the service can't be put on the bus: {error}"))
    };
    let endpoints = tokio::select! {
        () = shutdown.cancelled() => return Ok(()),
        () = worker.claim.keep() => return Ok(()),
        endpoints = beginning => endpoints?,
    };

    let end = shutdown.child_token();
    let mut tasks = Tasks::new(end.clone());
    let stop = Stop::default();
    let (stop_windows, stop_events) = (CancellationToken::new(), CancellationToken::new());
    let (reads, rest) = (TaskTracker::new(), TaskTracker::new());
    tasks.spawn("claim", {
        let (worker, stopped) = (worker.clone(), stop.rest.clone());
        async move {
            if stopped.run_until_cancelled(worker.claim.keep()).await.is_some() {
                end.cancel();
            }
            Ok(())
        }
    });
    let cutter = Arc::new(Cutter::new(worker.clone(), config.stats_interval.duration()));
    tasks.spawn("windows", cutter.clone().run(stop_windows.clone()));
    tasks.spawn("configuration", settings.clone().follow(stop.rest.clone()));
    tasks.spawn("key events", {
        let (worker, stopped) = (worker.clone(), stop_events.clone());
        async move { worker.watch.publish(stopped).await }
    });
    endpoints.serve(worker, settings, &stop, |name, group, endpoint| {
        let tracker = if group == Group::Reads { &reads } else { &rest };
        let tracked = tracker.track_future(endpoint);
        tasks.spawn(name, async move {
            tracked.await;
            Ok(())
        });
    });
    tasks.spawn("connections", worker.clone().prove_connections(stop.rest.clone()));

    let failure = tasks.watch().await;
    if !worker.claim.is_valid() {
        // The claim has run out, and must not be renewed any more.
        worker.claim.end();
    }

    // Get and put leave the bus before the invalidations do (rule 8): an entry that is still served can still be
    // dropped. Every answer looks at the claim, so that none goes out after its end.
    let stages = async {
        stop.reads.cancel();
        reads.close();
        reads.wait().await;
        near::gather(worker).await;
        stop.rest.cancel();
        rest.close();
        rest.wait().await;
    };
    if timeout(config.process.shutdown_grace(), stages).await.is_err() {
        tracing::warn!("requests in flight were cut off: they took longer than SHUTDOWN_GRACE_MS");
    }
    // A task that still reads requests must not serve when the invalidations have left the bus.
    worker.claim.end();
    stop.rest.cancel();
    stop_windows.cancel();
    stop_events.cancel();
    let finished = tasks.finish(LEAVE_TIME).await;
    // Requests that were cut off may have been counted until now.
    cutter.cut();
    failure?;
    finished?;
    Ok(())
}
