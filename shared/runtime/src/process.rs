//! The process around a service: settings, log, threads, signals, exit code.

use std::error::Error as _;
use std::ffi::OsString;
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Command, Parser};
use tokio::runtime::Builder;
use tokio_util::sync::CancellationToken;
use wire::words::{one_of, shown};

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
    let config = settings::<C>(name);
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

/// Reads the arguments and the environment. When a setting can't be used, it ends the process with a sentence that names
/// it; for `--help` and `--version` with their text.
pub fn settings<C: Parser>(name: &str) -> C {
    settings_from(name, std::env::args_os())
}

/// As [`settings`], from these arguments. The first one is the program.
pub fn settings_from<C: Parser>(name: &str, arguments: impl IntoIterator<Item = OsString>) -> C {
    C::try_parse_from(arguments).unwrap_or_else(|error| {
        match refusal(&error, &C::command()) {
            Some(sentence) => eprintln!("{name}: {sentence}\n`{name} --help` lists all settings."),
            None => error.exit(),
        }
        std::process::exit(UNUSABLE.into())
    })
}

/// The sentence for a setting that can't be used: its name, the values that are allowed, and the value that was given.
/// `None` for `--help` and `--version`, and for errors that clap tells better.
fn refusal(error: &clap::Error, command: &Command) -> Option<String> {
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => vec![text.clone()],
        Some(ContextValue::Strings(texts)) => texts.clone(),
        _ => Vec::new(),
    };
    let asked = text(ContextKind::InvalidArg);
    match error.kind() {
        ErrorKind::ValueValidation | ErrorKind::InvalidValue => {
            let (argument, value) = (asked.first()?, text(ContextKind::InvalidValue).pop()?);
            let name = name_of(command, argument);
            let choices = text(ContextKind::ValidValue);
            if !choices.is_empty() {
                return Some(format!("{name} must be {}, got {}", one_of(choices), shown(&value)));
            }
            let sentence = error.source().map(ToString::to_string).unwrap_or_default();
            Some(if sentence.contains(", got ") {
                format!("{name} {sentence}")
            } else if value.is_empty() {
                format!("{name} must have a value, got none")
            } else if sentence.starts_with("must be ") {
                format!("{name} {sentence}, got {}", shown(&value))
            } else {
                format!("{name} must be another value, got {}: {sentence}", shown(&value))
            })
        }
        ErrorKind::MissingRequiredArgument => {
            let names: Vec<String> = asked.iter().map(|argument| name_of(command, argument)).collect();
            Some(format!("{} must be set, got nothing; bin/run sets it", names.join(" and ")))
        }
        ErrorKind::UnknownArgument => Some(format!("{} is not a setting", shown(asked.first()?))),
        _ => None,
    }
}

/// A setting as people know it, by clap's name for it: its environment variable and its flag.
fn name_of(command: &Command, shown: &str) -> String {
    let flag = shown.split_whitespace().next().unwrap_or(shown);
    let argument = command.get_arguments().find(|argument| argument.get_long() == flag.strip_prefix("--"));
    match argument.filter(|_| flag.starts_with("--")).and_then(|argument| argument.get_env()) {
        Some(variable) => format!("{} ({flag})", variable.display()),
        None => flag.trim_matches(['<', '>', '[', ']', '.']).to_owned(),
    }
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

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use crate::args::{LogFormat, whole};
    use clap::CommandFactory as _;

    #[derive(Debug, Parser)]
    #[command(name = "one")]
    struct Few {
        #[arg(long = "port", env = "PIXCACHE_TEST_PORT", value_name = "PORT", value_parser = whole::<u16>(0..=65535))]
        _port: u16,
        #[arg(long = "log", value_enum, default_value_t = LogFormat::Auto)]
        _log: LogFormat,
        #[arg(long = "interval", default_value = "5s")]
        _interval: wire::Span,
    }

    #[test]
    fn a_setting_that_can_t_be_used_is_named_with_what_is_allowed() {
        for (arguments, sentence) in [
            (
                &["--port", "abc"][..],
                "PIXCACHE_TEST_PORT (--port) must be a whole number from 0 to 65535, got \"abc\"",
            ),
            (
                &["--port=-1"],
                "PIXCACHE_TEST_PORT (--port) must be a whole number from 0 to 65535, got \"-1\"",
            ),
            (
                &["--port", "65536"],
                "PIXCACHE_TEST_PORT (--port) must be a whole number from 0 to 65535, got \"65536\"",
            ),
            (&["--port", "1", "--log", "xml"], "--log must be auto, pretty or json, got \"xml\""),
            (
                &["--port", "1", "--interval", "1x"],
                "--interval must be a whole number and a unit (ms, s, m, h or d), as in 10m, from 1ms to 366d, got \"1x\"",
            ),
            (&[], "PIXCACHE_TEST_PORT (--port) must be set, got nothing; bin/run sets it"),
            (&["--prt", "1"], "\"--prt\" is not a setting"),
        ] {
            let error = Few::try_parse_from(["one"].iter().chain(arguments)).unwrap_err();
            assert_eq!(refusal(&error, &Few::command()).as_deref(), Some(sentence), "{arguments:?}");
        }
        let help = Few::try_parse_from(["one", "--help"]).unwrap_err();
        assert_eq!(refusal(&help, &Few::command()), None);
    }
}
