//! The process around the gateway: settings, log, signals, socket.

use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser as _;
use gateway::Config;
use tokio::net::TcpListener;

/// glibc's allocator keeps what many threads have freed; this one gives it back.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    let config = Config::parse();
    if let Err(reason) = runtime::logging::init(&config.log) {
        eprintln!("{reason}");
        return ExitCode::FAILURE;
    }
    match serve(config).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(config: Config) -> anyhow::Result<()> {
    config.check()?;
    let shutdown = runtime::shutdown::on_signals().context("signals can't be caught")?;
    let listener = TcpListener::bind((config.host, config.port))
        .await
        .with_context(|| format!("can't listen on {}:{}", config.host, config.port))?;
    gateway::run(config, listener, shutdown).await
}
