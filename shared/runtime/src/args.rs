//! Settings that every service has. Each is a flag and an environment variable; `--help` shows both.

use std::ops::RangeInclusive;
use std::time::Duration;

use clap::{Args, ValueEnum};
use wire::words::shown;

/// A parser of a whole number within a range.
///
/// The error of the parser is a sentence that goes on from the name of the setting.
pub fn whole<T: TryFrom<u64>>(
    range: RangeInclusive<u64>,
) -> impl Fn(&str) -> Result<T, String> + Clone + Send + Sync + 'static {
    move |text| {
        let number = text.parse().ok().filter(|number| range.contains(number));
        number.and_then(|number| T::try_from(number).ok()).ok_or_else(|| {
            let (least, most) = (range.start(), range.end());
            match *most {
                u64::MAX => format!("must be a whole number from {least}, got {}", shown(text)),
                _ => format!("must be a whole number from {least} to {most}, got {}", shown(text)),
            }
        })
    }
}

/// A parser of a setting that is on or off.
///
/// # Errors
/// A sentence that goes on from the name of the setting.
pub fn on_or_off(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "true" | "yes" | "y" | "on" | "t" => Ok(true),
        "" | "0" | "false" | "no" | "n" | "off" | "f" => Ok(false),
        _ => Err(format!("must be 1 or 0, got {}", shown(text))),
    }
}

/// The heading in `--help` of settings without which a service does not start.
pub const NEEDED: &str = "Needed";
/// The heading in `--help` of all other settings.
pub const OPTIONAL: &str = "With a default";

/// The address of NATS, the bus.
#[derive(Debug, Clone, Args)]
pub struct NatsArgs {
    /// URL of a NATS server of your own, or several apart by commas. Without it (the default): 127.0.0.1 at NATS_PORT
    #[arg(long, env = "NATS_URL", value_name = "URL")]
    pub nats_url: Option<String>,

    /// Port of the nats-server on this machine, when NATS_URL is not set
    #[arg(long, env = "NATS_PORT", value_name = "PORT", default_value_t = 4222, value_parser = whole::<u16>(0..=65535))]
    pub nats_port: u16,
}

impl NatsArgs {
    /// The address to connect to.
    pub fn address(&self) -> String {
        match self.nats_url.as_deref().map(str::trim) {
            Some(url) if !url.is_empty() => url.to_owned(),
            _ => format!("nats://127.0.0.1:{}", self.nats_port),
        }
    }
}

/// How a service starts and stops.
#[derive(Debug, Clone, Args)]
pub struct ProcessArgs {
    /// How long a stop waits for requests in flight, in milliseconds (Procfile runners kill after 5,000)
    #[arg(long, env = "SHUTDOWN_GRACE_MS", value_name = "MS", default_value_t = 2500,
          value_parser = whole::<u64>(0..=u64::MAX))]
    pub shutdown_grace_ms: u64,

    /// How long a start waits for NATS and MySQL before it gives up, in seconds
    #[arg(long, env = "DEPENDENCY_TIMEOUT_S", value_name = "SECONDS", default_value_t = 60,
          value_parser = whole::<u64>(0..=u64::MAX))]
    pub dependency_timeout_s: u64,
}

impl ProcessArgs {
    /// [`ProcessArgs::shutdown_grace_ms`] as a duration.
    pub fn shutdown_grace(&self) -> Duration {
        Duration::from_millis(self.shutdown_grace_ms)
    }

    /// [`ProcessArgs::dependency_timeout_s`] as a duration.
    pub fn dependency_timeout(&self) -> Duration {
        Duration::from_secs(self.dependency_timeout_s)
    }
}

/// How a service logs.
#[derive(Debug, Clone, Args)]
pub struct LogArgs {
    /// Form of the log: for people, as JSON lines, or (auto) for people on a terminal and plain otherwise
    #[arg(long, env = "LOG_FORMAT", value_name = "FORMAT", value_enum, default_value_t = LogFormat::Auto)]
    pub log_format: LogFormat,

    /// What is logged: a level, or directives such as info,gateway=debug
    #[arg(long, env = "RUST_LOG", value_name = "FILTER", default_value = "info,async_nats=warn")]
    pub log_filter: String,
}

/// Form of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Colours on a terminal, plain text otherwise.
    Auto,
    /// For people, with colours.
    Pretty,
    /// One JSON object a line.
    Json,
}
