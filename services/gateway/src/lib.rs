//! The web gateway of pixcache: HTTP in front, the cache beside, the origin behind.

pub mod cache;
pub mod chart;
mod conditional;
pub mod config;
mod crowd;
pub mod error;
mod feed;
mod flight;
mod head;
pub mod hosts;
mod metrics;
mod near;
pub mod origin;
mod patient;
pub mod read;
mod room;
pub mod routes;
mod server;
mod serving;
pub mod state;
mod telling;
pub mod units;
pub mod views;
pub mod visitor;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use async_nats::service::ServiceExt as _;
use clap::Parser as _;
use runtime::Bus;
use runtime::bus::User;
use runtime::service::metadata;
use runtime::tasks::Tasks;
use runtime::{process, wait};
use sql::{Database, Isolation, Session};
use sqlx::mysql::{MySqlConnectOptions, MySqlPoolOptions};
use sqlx::{ConnectOptions as _, Connection as _};
use tokio::net::TcpListener;
use tokio::runtime::Builder;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use wire::subject;

use cache::CacheClient;
pub use config::Config;
use config::OriginArgs;
use feed::Feed;
use metrics::ConnectionMetrics;
use origin::adopt::{self, AdoptConfig};
use origin::blobs::Blobs;
use origin::identity::Identity;
use origin::images::Images;
use origin::ties::Ties;
use routes::access::Gate;
pub use server::listen;
use server::{Front, ServerLimits};
use state::AppState;
use views::Views;

/// The user in nats.conf that asks the cache and the recorder.
const USER: User = User::asking("gateway");
/// The user for what the gateway asks of JetStream and of all services.
const OWN_USER: User = User::asking("gateway_own");
/// How many replies may wait to be read. They are handed on at once, so this is never reached in peace.
const REPLY_CAPACITY: usize = 4096;
/// How long a statement waits for a connection to MySQL.
const ACQUIRE_LIMIT: Duration = Duration::from_secs(3);
/// A connection to MySQL that was idle for longer is tested before it is used. No server restarts within it.
const UNTESTED: Duration = Duration::from_millis(100);
/// Rows of a key are changed one writer at a time, who holds the key's note: locks on what is not there would only stop
/// others. No writer waits for another one for long.
const SESSION: Session = Session { isolation: Isolation::ReadCommitted, lock_wait: Duration::from_secs(3) };
/// What remains to be done after the last request may take so long each time.
const FAREWELL: Duration = Duration::from_millis(500);

/// Threads for what blocks: reading and writing files. A disk is kept busy by few, and of the many that the
/// library would start at need each keeps memory of its own: 1,000 readers of large files left 400 MB behind.
const BLOCKING_THREADS: usize = 32;
/// How long such a thread waits for work. What it had allocated and another thread has freed is given back only
/// when it ends, and a little work reaches all of them in turn.
const BLOCKING_THREAD_LIFE: Duration = Duration::from_millis(100);

/// The process: settings, log and signals, then the gateway, or the command `adopt`.
pub fn main() -> ExitCode {
    let mut threads = Builder::new_multi_thread();
    threads.max_blocking_threads(BLOCKING_THREADS).thread_keep_alive(BLOCKING_THREAD_LIFE);
    let mut arguments = std::env::args_os();
    let program = arguments.next();
    if arguments.next().is_some_and(|argument| argument == "adopt") {
        let config = AdoptConfig::parse_from(program.into_iter().chain(arguments));
        return process::block_on("gateway adopt", &mut threads, async || {
            match adopt::run(config, std::io::stdout()).await {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => {
                    eprintln!("gateway adopt: {error:#}");
                    ExitCode::FAILURE
                }
            }
        });
    }
    process::main("gateway", &mut threads, async |config: Config, shutdown| {
        let listener = listen((config.host, config.port).into())
            .with_context(|| format!("can't listen on {}:{}", config.host, config.port))?;
        run(config, listener, shutdown).await
    })
}

/// Runs the gateway on a socket that listens already, until the stop.
///
/// It takes requests at once, and answers them with 503 until NATS and MySQL are there.
///
/// # Errors
/// When settings do not go together, NATS or MySQL are not there in time, or a background task ends unexpectedly.
pub async fn run(config: Config, listener: TcpListener, shutdown: CancellationToken) -> anyhow::Result<()> {
    let grace = config.process.shutdown_grace();
    let views = Views::load(&config.template_dir)
        .with_context(|| format!("the templates in {} can't be loaded", config.template_dir.display()))?;
    let blobs = blobs(&config.origin).await?;
    let address = listener.local_addr()?;
    let gate = Gate::new(&config)?;
    let front = Front::new(views.clone(), gate.clone());
    let max_connections = server::connections_within_descriptors(config.max_connections);
    let limits = ServerLimits { max_connections, grace };
    let connections = ConnectionMetrics::new()?;
    let mut tasks = Tasks::new(shutdown.clone());
    let serving = server::serve(listener, front.clone(), limits, connections.clone(), shutdown.clone());
    tasks.spawn("HTTP server", serving);
    tracing::info!(%address, "listening on http://{address}");

    let connected = tokio::select! {
        connected = connect(&config, &front) => Some(connected?),
        // The stop, or the failure of the server.
        ended = tasks.watch() => ended.map(|()| None)?,
    };
    let Some((bus, own, database)) = connected else {
        tasks.finish(grace + FAREWELL).await?;
        return Ok(());
    };
    // Streams never end by themselves, so that there may be no more than leave room for everybody else.
    let streams = (config.max_event_streams as usize).min(max_connections / 2).max(1);
    let cache = CacheClient::new(bus.clone(), own.clone());
    let feed = Arc::new(Feed::new(cache.clone(), streams, shutdown.clone()));
    tasks.spawn("feed", feed.clone().run());
    let identity = Identity::new(database.clone(), Images::new(database.clone()), blobs.clone());
    let ties = Ties::default();
    // At the very first start this gives both their id.
    if shutdown.run_until_cancelled(ties.look(&identity, &blobs)).await.is_none() {
        tasks.finish(grace + FAREWELL).await?;
        return Ok(());
    }
    tasks.spawn(
        "watch over the image store",
        ties.clone().run(identity.clone(), blobs.clone(), shutdown.clone()),
    );
    let (state, to_renew) =
        AppState::new(config, views, blobs, database.clone(), cache, feed, &connections, ties)?;
    // Copies are served until the last request is answered, so that long they can be taken back.
    let left = CancellationToken::new();
    let mut last = Tasks::new(left.clone());
    if let (Some(upkeep), Some(to_renew)) = (state.near_upkeep(), to_renew) {
        last.spawn("near drops", {
            let (upkeep, left) = (upkeep.clone(), left.clone());
            async move { upkeep.answer_drops(left).await }
        });
        tasks.spawn("near renewals", upkeep.clone().renew(to_renew, shutdown.clone()));
        tasks.spawn("near hits", {
            let (upkeep, shutdown) = (upkeep.clone(), shutdown.clone());
            async move { upkeep.report(shutdown).await }
        });
    }
    tasks.spawn("telling of pending invalidations", state.run_teller(shutdown.clone()));
    tasks.spawn("sweep", state.run_sweep(identity, shutdown.clone()));
    tasks.spawn("forgetting of old dates", state.run_forgetting(shutdown.clone()));
    let service = bus.client().service_builder().description("Takes requests, keeps the images");
    let service = service.metadata(metadata([("address", address.to_string())]));
    let present = service.start(subject::GATEWAY_SERVICE, env!("CARGO_PKG_VERSION")).await;
    let present =
        present.map_err(|error| anyhow::anyhow!("the gateway can't say that it is there: {error}"))?;
    front.open(routes::App::new(state.clone(), gate));
    tracing::info!("serving");

    let ended = tokio::select! {
        ended = tasks.watch() => ended,
        ended = last.watch() => ended,
    };
    shutdown.cancel();
    let finished = tasks.finish(grace + FAREWELL).await;
    if timeout(FAREWELL, state.finish_changes()).await.is_err() {
        tracing::warn!(
            "changes were left behind; another gateway, or the next start, tells the cache of them"
        );
    }
    if let Some(upkeep) = state.near_upkeep()
        && !matches!(timeout(FAREWELL, upkeep.report_now()).await, Ok(Ok(())))
    {
        tracing::warn!("hits of the near cache were not counted");
    }
    if let Err(error) = present.stop().await {
        tracing::debug!(%error, "the bus was not told that this gateway leaves");
    }
    left.cancel();
    let finished = finished.and(last.finish(FAREWELL).await);
    tokio::join!(bus.drain(FAREWELL), own.drain(FAREWELL));
    if timeout(FAREWELL, database.close()).await.is_err() {
        tracing::warn!("connections to MySQL were cut off");
    }
    ended?;
    finished?;
    tracing::info!("stopped");
    Ok(())
}

async fn blobs(origin: &OriginArgs) -> anyhow::Result<Blobs> {
    let (limit, has_trash) = (origin.store_timeout(), origin.trash_days > 0);
    if let Some(url) = origin.blob_url.as_deref().map(str::trim).filter(|url| !url.is_empty()) {
        return Blobs::in_s3(url, limit, has_trash).context("the image store can't be used");
    }
    let folder = origin.image_dir.clone();
    let opening = tokio::task::spawn_blocking(move || Blobs::in_folder(&folder, limit, has_trash));
    let opened = match timeout(limit, opening).await {
        Ok(opened) => opened?,
        Err(_) => Err(anyhow::anyhow!("no answer within {} s (STORE_TIMEOUT_S)", limit.as_secs())),
    };
    opened.with_context(|| format!("the image folder {} can't be used", origin.image_dir.display()))
}

/// Waits for NATS and for MySQL with the gateway's tables, at the same time.
async fn connect(config: &Config, front: &Front) -> anyhow::Result<(Bus, Bus, Database)> {
    let limit = config.process.dependency_timeout();
    let buses = async {
        let connect = |user| Bus::connect(&config.nats, user, &config.nats_password, REPLY_CAPACITY, limit);
        let buses = tokio::try_join!(connect(USER), connect(OWN_USER))?;
        front.found(|health| &mut health.nats);
        anyhow::Ok(buses)
    };
    let database = async {
        let database = connect_mysql(&config.origin, config.database_connections, limit).await?;
        front.found(|health| &mut health.mysql);
        anyhow::Ok(database)
    };
    let ((bus, own), database) = tokio::try_join!(buses, database)?;
    Ok((bus, own, database))
}

async fn connect_mysql(
    origin: &OriginArgs,
    max_connections: u32,
    limit: Duration,
) -> anyhow::Result<Database> {
    let options = database_options(origin)?;
    // A pool reports all causes as a timeout; a connection says which it was.
    let server = format!("MySQL at {}:{}", options.get_host(), options.get_port());
    wait::until(&server, limit, || async { options.connect().await?.close().await }).await?;
    let database = database(origin, max_connections)?;
    let images = Images::new(database.clone());
    wait::until("the gateway's tables, which the recorder makes", limit, || images.probe()).await?;
    Ok(database)
}

fn database_options(origin: &OriginArgs) -> anyhow::Result<MySqlConnectOptions> {
    let options = origin.database_url.parse();
    options.context("GATEWAY_DATABASE_URL must look like mysql://user:password@host:port/database")
}

/// Connections that are made when they are needed.
fn database(origin: &OriginArgs, max_connections: u32) -> anyhow::Result<Database> {
    let pool_options = MySqlPoolOptions::new()
        .max_connections(max_connections)
        .acquire_timeout(ACQUIRE_LIMIT)
        .test_before_acquire(false)
        .before_acquire(|connection, meta| {
            Box::pin(async move {
                // To ask a connection that was just in use would be a round trip more for every statement.
                if meta.idle_for > UNTESTED {
                    connection.ping().await?;
                }
                Ok(true)
            })
        });
    Ok(Database::new(pool_options, database_options(origin)?, SESSION))
}
