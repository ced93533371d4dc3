//! The web gateway of pixcache: HTTP in front, the cache beside, the origin behind.

mod cache;
mod conditional;
mod config;
mod cors;
mod digests;
mod error;
mod fair;
mod head;
mod health;
mod holders;
mod hosts;
mod http;
mod image;
mod metrics;
mod routes;
mod service;
mod views;
mod visitor;

use std::io;
use std::net::IpAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use async_nats::service::ServiceExt as _;
use origin::adopt::{self, AdoptConfig};
use origin::identity::Identity;
use origin::images::Images;
use origin::open;
use origin::ties::Ties;
use runtime::Bus;
use runtime::bus::User;
use runtime::process;
use runtime::service::metadata;
use runtime::tasks::Tasks;
use sql::Database;
use tokio::net::TcpListener;
use tokio::runtime::Builder;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use wire::subject;

use cache::client::CacheClient;
use cache::feed::Feed;
pub use config::Config;
use http::access::Gate;
use http::app::App;
use http::server::{self, Front, ServerLimits};
use metrics::ConnectionMetrics;
use service::state::AppState;
use views::Views;

/// The user in nats.conf that asks the cache and the recorder.
const USER: User = User::asking("gateway");
/// The user in nats.conf that asks JetStream and all services.
const OWN_USER: User = User::asking("gateway_own");
/// How many replies may wait to be read. They are handed on at once, so this is never reached in normal operation.
const REPLY_CAPACITY: usize = 4096;
/// How long each wait for the work that remains after the last request may take.
const FAREWELL: Duration = Duration::from_millis(500);

/// Threads for blocking work: reading and writing files. A few keep a disk busy. The library would start many at
/// need, and each keeps memory of its own: 1,000 readers of large files left 400 MB behind.
const BLOCKING_THREADS: usize = 32;
/// How long such a thread waits for work. Memory that it had allocated and another thread has freed is given back
/// only when it ends, and a little work reaches all the threads in turn.
const BLOCKING_THREAD_LIFE: Duration = Duration::from_millis(100);

/// The process: settings, log and signals, then the gateway, or the command `adopt`.
pub fn main() -> ExitCode {
    let mut threads = Builder::new_multi_thread();
    threads.max_blocking_threads(BLOCKING_THREADS).thread_keep_alive(BLOCKING_THREAD_LIFE);
    let mut arguments = std::env::args_os();
    let program = arguments.next();
    if arguments.next().is_some_and(|argument| argument == "adopt") {
        let arguments = program.into_iter().chain(arguments);
        let config = process::settings_from::<AdoptConfig>("gateway adopt", arguments);
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
        let listener = server::listen((config.host, config.port).into())
            .map_err(|error| cannot_listen(config.host, config.port, &error))?;
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
    let blobs = open::files(&config.origin).await?;
    let address = listener.local_addr()?;
    let gate = Gate::new(&config)?;
    let front = Front::new(views.clone(), gate.clone());
    let max_connections = server::connections_within_descriptors(config.max_connections);
    let limits = ServerLimits { max_connections, grace };
    let connections = ConnectionMetrics::new()?;
    let mut tasks = Tasks::new(shutdown.clone());
    let serving = server::serve(listener, front.clone(), limits, connections.clone(), shutdown.clone());
    tasks.spawn("HTTP server", serving);
    tracing::info!(%address, "the gateway listens on http://{address}");

    let connected = tokio::select! {
        connected = connect(&config, &front) => Some(connected?),
        // The stop, or the failure of the server.
        ended = tasks.watch() => ended.map(|()| None)?,
    };
    let Some((bus, own, database)) = connected else {
        tasks.finish(grace + FAREWELL).await?;
        return Ok(());
    };
    // Streams never end by themselves, so they may take only half of the connections and leave the rest to others.
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
    // Copies are served until the last request is answered, so drops are answered until then too.
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
    tasks.spawn("sizes of images", state.run_sizes(identity.clone(), shutdown.clone()));
    tasks.spawn("sweep", state.run_sweep(identity, shutdown.clone()));
    tasks.spawn("forgetting of old dates", state.run_forgetting(shutdown.clone()));
    let service = bus.client().service_builder().description("Takes requests, keeps the images");
    let service = service.metadata(metadata([("address", address.to_string())]));
    let present = service.start(subject::GATEWAY_SERVICE, env!("CARGO_PKG_VERSION")).await;
    let present =
        present.map_err(|error| anyhow::anyhow!("the gateway can't say that it is there: {error}"))?;
    front.open(App::new(state.clone(), gate));
    tracing::info!("the gateway serves: NATS, MySQL and the image store are connected");

    let ended = tokio::select! {
        ended = tasks.watch() => ended,
        ended = last.watch() => ended,
    };
    shutdown.cancel();
    let finished = tasks.finish(grace + FAREWELL).await;
    if timeout(FAREWELL, state.finish_changes()).await.is_err() {
        tracing::warn!(
            "changes were left unacknowledged at the stop: another gateway, or the next start, tells the cache of them"
        );
    }
    if timeout(FAREWELL, state.finish_fills()).await.is_err() {
        tracing::debug!("images on their way into the cache were left at the stop");
    }
    if let Some(upkeep) = state.near_upkeep()
        && !matches!(timeout(FAREWELL, upkeep.report_now()).await, Ok(Ok(())))
    {
        tracing::warn!("near hits were not reported before the stop: the statistics lack them");
    }
    if let Err(error) = present.stop().await {
        tracing::debug!(%error, "the bus was not told that this gateway leaves");
    }
    left.cancel();
    let finished = finished.and(last.finish(FAREWELL).await);
    tokio::join!(bus.drain(FAREWELL), own.drain(FAREWELL));
    if timeout(FAREWELL, database.close()).await.is_err() {
        tracing::warn!(
            limit_ms = FAREWELL.as_millis() as u64,
            "the connections to MySQL were not closed in time"
        );
    }
    ended?;
    finished?;
    tracing::info!("the gateway has stopped");
    Ok(())
}

/// The error of an address that can't be listened on, with the setting to change.
fn cannot_listen(host: IpAddr, port: u16, error: &io::Error) -> anyhow::Error {
    let advice = match error.kind() {
        io::ErrorKind::AddrInUse => "another program listens there: choose another PORT",
        io::ErrorKind::AddrNotAvailable => "it is no address of this machine: choose another HOST",
        io::ErrorKind::PermissionDenied => "the system does not allow this PORT: choose one from 1024",
        _ => return anyhow::anyhow!("can't listen on {host}:{port}: {error}"),
    };
    anyhow::anyhow!("can't listen on {host}:{port}: {advice} ({error})")
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
        let database = open::connect(&config.origin, config.database_connections, limit).await?;
        front.found(|health| &mut health.mysql);
        anyhow::Ok(database)
    };
    let ((bus, own), database) = tokio::try_join!(buses, database)?;
    Ok((bus, own, database))
}
