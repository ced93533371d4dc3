//! Every setting of the worker.

use clap::Parser;
use runtime::args::{LogArgs, NEEDED, NatsArgs, OPTIONAL, ProcessArgs, on_or_off, whole};
use runtime::process::Settings;
use runtime::shelf::AUTO;
use wire::config::InvalidConfig;
use wire::near::LONGEST_LEASE_MS;
use wire::owners::LONGEST_CLAIM_MS;
use wire::words::shown;
use wire::{Capacity, Policy, Span};

use crate::memory;
use crate::store::Admission;

/// pixcache memcache worker: keeps image bytes in memory and serves them over NATS.
#[derive(Debug, Clone, Parser)]
#[command(version, about, next_help_heading = OPTIONAL)]
pub struct Config {
    /// Password of the NATS user "memcache"
    #[arg(
        long,
        env = "NATS_MEMCACHE_PASSWORD",
        value_name = "PASSWORD",
        hide_env_values = true,
        help_heading = NEEDED
    )]
    pub nats_password: String,

    /// Where the bus is.
    #[command(flatten)]
    pub nats: NatsArgs,

    /// Name of this worker in events and rows: letters, digits, - and _
    #[arg(long, env = "WORKER_NAME", value_name = "NAME", default_value = "memcache-1", value_parser = worker_name)]
    pub worker_name: String,

    /// Capacity at the very first start, in megabytes (2^20 bytes); later the live configuration rules
    #[arg(long, env = "CACHE_CAPACITY_MB", value_name = "MB", default_value_t = 64,
          value_parser = whole::<u64>(0..=u64::MAX))]
    pub cache_capacity_mb: u64,

    /// Replacement policy at the very first start: none, random, lru or clock_pro
    #[arg(long, env = "CACHE_POLICY", value_name = "POLICY", default_value_t = Policy::Lru)]
    pub cache_policy: Policy,

    /// Which missed images are let in while others have to be evicted for them: those missed before keep out what is asked for once
    #[arg(long, env = "CACHE_ADMISSION", value_name = "WHICH", value_enum, default_value_t)]
    pub cache_admission: Admission,

    /// How long one window of statistics is: 100ms to 1h
    #[arg(long, env = "STATS_INTERVAL", value_name = "DURATION", default_value = "5s", value_parser = stats_interval)]
    pub stats_interval: Span,

    /// How long the claim to serve is valid without being renewed, in milliseconds: another worker takes
    /// over so long, and an eighth of it, after this one was last heard of. The same for all workers
    #[arg(long, env = "CLAIM_MS", value_name = "MS", default_value_t = 3000,
          value_parser = whole::<u64>(500..=LONGEST_CLAIM_MS))]
    pub claim_ms: u64,

    /// Replaces a claim that a later release has written, once it has been waited out. For a return to this release, when no
    /// worker of the later one runs any more
    #[arg(long, env = "REPLACE_NEWER_CLAIM", num_args = 0..=1, default_missing_value = "true", default_value_t = false,
          value_parser = on_or_off, action = clap::ArgAction::Set)]
    pub replace_newer_claim: bool,

    /// How long a gateway may serve a copy of its own without asking, in milliseconds; 0: not at all
    #[arg(long, env = "NEAR_LEASE_MS", value_name = "MS", default_value_t = LONGEST_LEASE_MS,
          value_parser = whole::<u64>(0..=LONGEST_LEASE_MS))]
    pub near_lease_ms: u64,

    /// Largest image that a put may hold, in millions of pixels
    #[arg(long, env = "MAX_IMAGE_MEGAPIXELS", value_name = "MP", default_value_t = 100,
          value_parser = whole::<u64>(0..=u64::MAX))]
    pub max_image_megapixels: u64,

    /// Folder on a tmpfs for large images, the same as that of the gateways on this machine: the bus then carries their names only.
    /// auto: /dev/shm/pixcache-UID; off: the bus carries the bytes
    #[arg(long, env = "SHARED_DIR", value_name = "FOLDER", default_value = AUTO)]
    pub shared_dir: String,

    /// How it starts and stops.
    #[command(flatten)]
    pub process: ProcessArgs,

    /// How it logs.
    #[command(flatten)]
    pub log: LogArgs,
}

impl Config {
    /// The capacity of the first revision, checked against this machine's memory.
    ///
    /// # Errors
    /// [`InvalidConfig::Capacity`].
    pub fn first_capacity(&self) -> Result<Capacity, InvalidConfig> {
        Capacity::from_mb(self.cache_capacity_mb, memory::largest_capacity_mb())
    }
}

impl Settings for Config {
    fn log(&self) -> &LogArgs {
        &self.log
    }

    fn check(&self) -> anyhow::Result<()> {
        self.first_capacity().map(|_| ()).map_err(|error| {
            anyhow::anyhow!("CACHE_{}", error.to_string().replacen("capacity_mb", "CAPACITY_MB", 1))
        })
    }
}

fn worker_name(text: &str) -> Result<String, String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    if (1..=64).contains(&text.len()) && text.bytes().all(plain) {
        Ok(text.to_owned())
    } else {
        Err(format!("must be 1 to 64 letters, digits, - and _, got {}", shown(text)))
    }
}

fn stats_interval(text: &str) -> Result<Span, String> {
    let span = text.parse().ok().filter(|span: &Span| (100..=3_600_000).contains(&span.millis()));
    span.ok_or_else(|| format!("must be a duration from 100ms to 1h, such as 5s, got {}", shown(text)))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn names_and_intervals_are_checked() {
        for name in ["", "a.b", "a b", "ä", &"x".repeat(65)] {
            assert!(worker_name(name).is_err(), "{name}");
        }
        assert!(worker_name("memcache-1").is_ok());
        assert_eq!(stats_interval("250ms").unwrap().millis(), 250);
        for interval in ["99ms", "2h", "0s", "x"] {
            let error = stats_interval(interval).unwrap_err();
            assert_eq!(error, format!("must be a duration from 100ms to 1h, such as 5s, got \"{interval}\""));
        }
    }

    #[test]
    fn the_settings_are_well_formed() {
        use clap::CommandFactory as _;
        Config::command().debug_assert();
    }

    #[test]
    fn every_setting_stands_in_the_readme() {
        use clap::CommandFactory as _;
        let settings = include_str!("../../../docs/settings.md");
        for argument in Config::command().get_arguments() {
            if let Some(name) = argument.get_env().and_then(|name| name.to_str()) {
                assert!(
                    settings.contains(&format!("| `{name}` |")),
                    "docs/settings.md has no row for {name}"
                );
            }
        }
    }
}
