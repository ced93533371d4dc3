//! The recorder's process.

use std::process::ExitCode;

use clap::Parser as _;
use mimalloc::MiMalloc;
use recorder::config::Config;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    let config = Config::parse();
    if let Err(message) = runtime::logging::init(&config.log) {
        eprintln!("recorder: {message}");
        return ExitCode::from(2);
    }
    let result = async { recorder::run(config, runtime::shutdown::on_signals()?).await };
    match result.await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("recorder ends: {error:#}");
            ExitCode::FAILURE
        }
    }
}
