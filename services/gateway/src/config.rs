//! Every setting of the gateway: a flag and an environment variable each.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use axum::http::HeaderValue;
use clap::Parser;
use runtime::args::{LogArgs, NatsArgs, ProcessArgs};

/// pixcache web gateway: stores images, serves them through the cache, shows what the cache does.
#[derive(Debug, Clone, Parser)]
#[command(name = "gateway", version)]
pub struct Config {
    /// Address to listen on
    #[arg(long, env = "HOST", value_name = "ADDRESS", default_value = "127.0.0.1")]
    pub host: IpAddr,

    /// Port to listen on; 0 takes a free one
    #[arg(long, env = "PORT", value_name = "PORT", default_value_t = 5000)]
    pub port: u16,

    /// URL of the MySQL or MariaDB database, as the gateway's own account
    #[arg(long, env = "GATEWAY_DATABASE_URL", value_name = "URL", hide_env_values = true)]
    pub database_url: String,

    /// Password of the user "gateway" on NATS
    #[arg(long, env = "NATS_GATEWAY_PASSWORD", value_name = "PASSWORD", hide_env_values = true)]
    pub nats_password: String,

    /// Folder of the image files, made if it is not there
    #[arg(long, env = "IMAGE_DIR", value_name = "FOLDER", default_value = "var/images")]
    pub image_dir: PathBuf,

    /// S3-compatible storage for the image files instead of the folder, as s3://bucket/prefix; its
    /// account comes from AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION, AWS_ENDPOINT and
    /// AWS_ALLOW_HTTP
    #[arg(long, env = "BLOB_URL", value_name = "URL")]
    pub blob_url: Option<String>,

    /// Folder of the page templates
    #[arg(long, env = "TEMPLATE_DIR", value_name = "FOLDER", default_value = "templates")]
    pub template_dir: PathBuf,

    /// Largest image that is stored, in megabytes (2^20 bytes)
    #[arg(long, env = "MAX_IMAGE_MB", value_name = "MB", default_value_t = 20,
          value_parser = clap::value_parser!(u64).range(1..=4096))]
    pub max_image_mb: u64,

    /// Most pixels, width times height, that an image may have, in millions
    #[arg(long, env = "MAX_IMAGE_MEGAPIXELS", value_name = "MEGAPIXELS", default_value_t = 100,
          value_parser = clap::value_parser!(u64).range(1..=4_000))]
    pub max_image_megapixels: u64,

    /// Cache-Control of /images/{key}
    #[arg(long, env = "IMAGE_CACHE_CONTROL", value_name = "VALUE", default_value = "no-cache",
          value_parser = header_value)]
    pub image_cache_control: HeaderValue,

    /// How long a read waits for the cache before it goes to the origin, in milliseconds
    #[arg(long, env = "CACHE_BUDGET_MS", value_name = "MS", default_value_t = 50,
          value_parser = clap::value_parser!(u64).range(1..=10_000))]
    pub cache_budget_ms: u64,

    /// Most HTTP connections at once; further ones wait to be accepted
    #[arg(long, env = "MAX_CONNECTIONS", value_name = "NUMBER", default_value_t = 4096,
          value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub max_connections: u32,

    /// Most connections to MySQL at once
    #[arg(long, env = "DATABASE_CONNECTIONS", value_name = "NUMBER", default_value_t = 16,
          value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub database_connections: u32,

    /// The bus.
    #[command(flatten)]
    pub nats: NatsArgs,

    /// Start and stop.
    #[command(flatten)]
    pub process: ProcessArgs,

    /// The log.
    #[command(flatten)]
    pub log: LogArgs,
}

impl Config {
    /// The largest image in bytes.
    pub fn max_image_bytes(&self) -> u64 {
        self.max_image_mb << 20
    }

    /// The most pixels of an image.
    pub fn max_image_pixels(&self) -> u64 {
        self.max_image_megapixels * 1_000_000
    }

    /// [`Config::cache_budget_ms`] as a duration.
    pub fn cache_budget(&self) -> Duration {
        Duration::from_millis(self.cache_budget_ms)
    }
}

/// Refuses at start what no answer could carry later.
fn header_value(text: &str) -> Result<HeaderValue, String> {
    match HeaderValue::from_str(text.trim()) {
        Ok(value) if !value.is_empty() => Ok(value),
        _ => {
            Err("it must be a value of the header Cache-Control, such as no-cache or public, max-age=60"
                .into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_stands_in_the_readme() {
        use clap::CommandFactory as _;
        let readme = include_str!("../../../README.md");
        for argument in Config::command().get_arguments() {
            if let Some(name) = argument.get_env().and_then(|name| name.to_str()) {
                assert!(readme.contains(&format!("| `{name}` |")), "README.md has no row for {name}");
            }
        }
    }
}
