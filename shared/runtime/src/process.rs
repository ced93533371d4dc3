//! The process around a service: settings, log, threads, signals, exit code.

use std::process::ExitCode;

use clap::Parser;
use tokio::runtime::Builder;
use tokio_util::sync::CancellationToken;

use crate::args::LogArgs;
use crate::{logging, shutdown};

/// The exit code for settings that can't be used; clap's is the same.
const UNUSABLE: u8 = 2;

/// The settings of a service.
pub trait Settings: Parser {
    /// How it logs.
    fn log(&self) -> &LogArgs;

    /// Whether its settings go together.
    ///
    /// # Errors
    /// A sentence that names the setting.
    fn check(&self) -> anyhow::Result<()>;
}

/// Runs a service until it ends or a signal stops it. The exit code is 0 after a stop, 1 after a failure, and 2 when a
/// setting can't be used. The last line of the log names the failure.
///
/// Each service calls it in its library, in a function that is not generic. Code that is awaited in `main.rs` would be
/// compiled once more there.
pub fn main<C: Settings>(
    name: &str,
    threads: &mut Builder,
    run: impl AsyncFnOnce(C, CancellationToken) -> anyhow::Result<()>,
) -> ExitCode {
    let config = C::parse();
    if let Err(message) = logging::init(config.log()) {
        eprintln!("{name}: {message}");
        return ExitCode::from(UNUSABLE);
    }
    if let Err(error) = config.check() {
        tracing::error!("{name} can't start: {error:#}");
        return ExitCode::from(UNUSABLE);
    }
    block_on(name, threads, async move || {
        let ended = async { run(config, shutdown::on_signals()?).await };
        match ended.await {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                tracing::error!("{name} ends: {error:#}");
                ExitCode::FAILURE
            }
        }
    })
}

/// Runs `work` on such threads, and waits for none of them afterwards: a folder that hangs keeps its threads for ever.
pub fn block_on(name: &str, threads: &mut Builder, work: impl AsyncFnOnce() -> ExitCode) -> ExitCode {
    match threads.enable_all().build() {
        Ok(runtime) => {
            let code = runtime.block_on(work());
            runtime.shutdown_background();
            code
        }
        Err(error) => {
            eprintln!("{name}: no threads can be started: {error}");
            ExitCode::FAILURE
        }
    }
}
