//! The memcache worker's process.

use std::process::ExitCode;

use clap::Parser as _;
use memcache::config::Config;
use mimalloc::MiMalloc;

/// Returns freed memory to the system, so that a smaller capacity is a smaller process.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    let config = Config::parse();
    if let Err(message) = runtime::logging::init(&config.log) {
        eprintln!("memcache: {message}");
        return ExitCode::from(2);
    }
    let result = async { memcache::run(config, runtime::shutdown::on_signals()?).await };
    match result.await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("memcache ends: {error:#}");
            ExitCode::FAILURE
        }
    }
}
