//! Settings that every service has. Each is a flag and an environment variable; `--help` shows both.

use std::time::Duration;

use clap::{Args, ValueEnum};

/// The address of NATS, the bus.
#[derive(Debug, Clone, Args)]
pub struct NatsArgs {
    /// URL of a NATS server of your own, or several apart by commas. Without it: 127.0.0.1 at NATS_PORT
    #[arg(long, env = "NATS_URL", value_name = "URL")]
    pub nats_url: Option<String>,

    /// Port of the nats-server on this machine, when NATS_URL is not set
    #[arg(long, env = "NATS_PORT", value_name = "PORT", default_value_t = 4222)]
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
    #[arg(long, env = "SHUTDOWN_GRACE_MS", value_name = "MS", default_value_t = 2500)]
    pub shutdown_grace_ms: u64,

    /// How long a start waits for NATS and MySQL before it gives up, in seconds
    #[arg(long, env = "DEPENDENCY_TIMEOUT_S", value_name = "SECONDS", default_value_t = 60)]
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
