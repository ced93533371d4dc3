//! The process around the gateway: settings, log, signals, socket.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser as _;
use gateway::Config;
use gateway::origin::adopt::{self, AdoptConfig};

/// glibc's allocator keeps what many threads have freed; this one gives it back.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Threads for what blocks: reading and writing files. A disk is kept busy by few, and of the many that the
/// library would start at need each keeps memory of its own: 1,000 readers of large files left 400 MB behind.
const BLOCKING_THREADS: usize = 32;
/// How long such a thread waits for work. What it had allocated and another thread has freed is given back only
/// when it ends, and a little work reaches all of them in turn.
const BLOCKING_THREAD_LIFE: Duration = Duration::from_millis(100);

fn main() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS)
        .thread_keep_alive(BLOCKING_THREAD_LIFE)
        .build();
    match runtime {
        Ok(runtime) => {
            let code = runtime.block_on(run());
            // A folder that hangs keeps its threads for ever; nobody waits for them.
            runtime.shutdown_background();
            code
        }
        Err(error) => {
            eprintln!("no threads can be started: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> ExitCode {
    let mut arguments = std::env::args_os();
    let program = arguments.next();
    if arguments.next().is_some_and(|argument| argument == "adopt") {
        let config = AdoptConfig::parse_from(program.into_iter().chain(arguments));
        return match adopt::run(config, std::io::stdout()).await {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("gateway adopt: {error:#}");
                ExitCode::FAILURE
            }
        };
    }
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
    let listener = gateway::listen((config.host, config.port).into())
        .with_context(|| format!("can't listen on {}:{}", config.host, config.port))?;
    gateway::run(config, listener, shutdown).await
}
