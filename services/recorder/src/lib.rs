//! The stats recorder: stores the workers' counts and configurations as rows in MySQL, and
//! answers questions about history as the NATS service `recorder`.
//!
//! It also makes the tables, those of the gateway too, but touches no image row and no cached byte.
//! Only [`repository`] knows SQL, and it knows nothing of NATS.

pub mod config;
mod consumer;
mod endpoints;
mod migrations;
pub mod repository;
mod retention;
mod setup;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use runtime::tasks::Tasks;
use runtime::{Buses, process, wait};
use tokio::runtime::Builder;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::consumer::{Follower, Revisions, Tally, Windows};
use crate::repository::Repository;
use crate::setup::Setup;

/// The users in nats.conf: one for answers, and one that consumes from JetStream.
const USERS: (&str, &str) = ("recorder", "recorder_own");
/// Messages that one subscription holds before the client drops further ones: twice a batch.
const SUBSCRIPTION_CAPACITY: usize = 1024;
/// The time that leaving the bus and the database may take after everything is done.
const LEAVE: Duration = Duration::from_millis(500);

/// The process: settings, log and signals, then [`run`].
pub fn main() -> ExitCode {
    process::main("recorder", &mut Builder::new_multi_thread(), run)
}

/// Runs the recorder until `shutdown`, then commits and acknowledges the messages in hand, answers the
/// questions that have come, and leaves.
///
/// # Errors
/// When NATS or MySQL is not there in time, a migration fails, or a background task ends by itself.
pub async fn run(config: Config, shutdown: CancellationToken) -> anyhow::Result<()> {
    let setup = Arc::new(Setup::new(&config));
    let Some(started) = shutdown.run_until_cancelled(start(&config, &setup)).await else { return Ok(()) };
    let (mut buses, repository) = started?;
    let ended = loop {
        // A failure ends the tasks on these connections. It also ends the process, unless the client of the bus
        // has died.
        let ended = record(&buses, &setup, &repository, &config, shutdown.child_token()).await;
        let has_died = ended.is_err() && !shutdown.is_cancelled() && buses.have_died().await;
        buses.drain(LEAVE).await;
        match ended {
            Err(error) if has_died => {
                tracing::error!(
                    error = format!("{error:#}"),
                    "the NATS client has ended: the recorder connects anew"
                );
            }
            ended => break ended,
        }
        match shutdown.run_until_cancelled(connect(&config)).await {
            Some(connected) => buses = connected?,
            None => break Ok(()),
        }
    };
    if timeout(LEAVE, repository.close()).await.is_err() {
        tracing::warn!("the connections to MySQL were not closed in time");
    }
    ended?;
    tracing::info!("the recorder has stopped");
    Ok(())
}

/// Records and answers until `shutdown`. A failure of one task cancels `shutdown` and so stops the others.
async fn record(
    buses: &Buses,
    setup: &Arc<Setup>,
    repository: &Repository,
    config: &Config,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let tally = Arc::new(Tally::default());
    let grace = config.process.shutdown_grace();

    let mut tasks = Tasks::new(shutdown.clone());
    let windows = Follower::<Windows>::new(&buses.own, setup, repository, &tally, &shutdown, grace);
    let revisions = Follower::<Revisions>::new(&buses.own, setup, repository, &tally, &shutdown, grace);
    tasks.spawn("windows", ended(windows.run()));
    tasks.spawn("revisions", ended(revisions.run()));
    tasks.spawn(
        "retention",
        ended(retention::remove_old_rows(repository.clone(), config.stats_retention_days, shutdown.clone())),
    );
    tasks.spawn(
        "endpoints",
        endpoints::serve(buses.answers.clone(), repository.clone(), tally, shutdown.clone(), grace),
    );
    tasks.spawn("rights", {
        let (buses, setup, stopped) = (buses.clone(), setup.clone(), shutdown.clone());
        // A recorder that lacks a right ends with an error: otherwise it would only seem to record.
        async move {
            let refused = async {
                tokio::select! {
                    refusal = buses.refused() => refusal,
                    refusal = setup.refused() => refusal,
                }
            };
            stopped.run_until_cancelled(refused).await.map_or(Ok(()), |refusal| Err(refusal.into()))
        }
    });
    tracing::info!(retention_days = config.stats_retention_days, "the recorder records windows and changes");

    let failure = tasks.watch().await;
    shutdown.cancel();
    // The tasks observe the grace by themselves, and the margin is for their last steps.
    let finished = tasks.finish(grace + LEAVE).await;
    failure?;
    finished?;
    Ok(())
}

async fn connect(config: &Config) -> anyhow::Result<Buses> {
    let limit = config.process.dependency_timeout();
    Ok(Buses::connect(&config.nats, USERS, &config.nats_password, SUBSCRIPTION_CAPACITY, limit).await?)
}

/// Waits for NATS and MySQL at the same time, and makes the tables.
async fn start(config: &Config, setup: &Setup) -> anyhow::Result<(Buses, Repository)> {
    let limit = config.process.dependency_timeout();
    let account = config.account()?;
    let migration_account = config.migration_account()?;
    let tables = async {
        let what = format!("MySQL at {}:{}", migration_account.get_host(), migration_account.get_port());
        let migrated = wait::until(&what, limit, || async {
            let recorder_user = account.get_username();
            let done =
                repository::migrate(&migration_account, &config.gateway_database_user, recorder_user).await;
            match done {
                Err(error) if error.may_pass() => Err(error),
                // A result needs no further wait, and any other error would not pass by waiting.
                done => Ok(done),
            }
        });
        migrated.await??;
        tracing::info!("the tables of the database are up to date");
        anyhow::Ok(())
    };
    let password = async { anyhow::Ok(setup.prove_password(limit).await?) };
    let (buses, (), ()) = tokio::try_join!(connect(config), password, tables)?;
    Ok((buses, Repository::new(account)))
}

/// Gives a task without a result the type that `Tasks::spawn` wants.
async fn ended(task: impl Future<Output = ()>) -> anyhow::Result<()> {
    task.await;
    Ok(())
}
