//! Logs on standard error: for people, or as JSON lines.

use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tracing_subscriber::EnvFilter;
use wire::words::shown;

use crate::args::{LogArgs, LogFormat};

/// Starts logging. A second call in one process changes nothing.
///
/// # Errors
/// A sentence, when the filter can't be read.
pub fn init(args: &LogArgs) -> Result<(), String> {
    let filter = EnvFilter::try_new(&args.log_filter).map_err(|error| {
        format!(
            "RUST_LOG (--log-filter) must be a level such as info, or directives such as info,gateway=debug, got {} \
             ({error})",
            shown(&args.log_filter)
        )
    })?;
    // A log that has lost its reader, because a Procfile runner was killed, must not end the process. By default the
    // subscriber would report the loss with `eprintln!`, which panics.
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .log_internal_errors(false);
    // Only the first call of a process has an effect: tests start several services in one.
    let _ = match args.log_format {
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
        LogFormat::Pretty => builder.with_ansi(true).try_init(),
        LogFormat::Auto => builder.with_ansi(std::io::stderr().is_terminal()).try_init(),
    };
    Ok(())
}

/// Limits how often a message is logged, and counts how often it occurred.
#[derive(Debug)]
pub struct Seldom {
    every: Duration,
    last: Mutex<(Option<Instant>, u64)>,
}

impl Seldom {
    /// Allows a message at most once in `every`.
    pub const fn new(every: Duration) -> Self {
        Self { every, last: Mutex::new((None, 0)) }
    }

    /// How often the message occurred since it was last allowed, this time included. `None` if that was less than
    /// `every` ago.
    pub fn now(&self) -> Option<u64> {
        let mut last = self.last.lock();
        last.1 += 1;
        if last.0.is_some_and(|said| said.elapsed() < self.every) {
            return None;
        }
        last.0 = Some(Instant::now());
        Some(std::mem::take(&mut last.1))
    }
}
