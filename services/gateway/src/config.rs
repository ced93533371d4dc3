//! Every setting of the gateway: a flag and an environment variable each.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use axum::http::HeaderValue;
use clap::{Parser, ValueEnum};
use origin::open::OriginArgs;
use runtime::args::{LogArgs, NEEDED, NatsArgs, OPTIONAL, ProcessArgs, on_or_off, whole};
use runtime::process::Settings;
use runtime::shelf::AUTO;
use wire::{Refill, Variant};

use crate::cors::CorsOrigins;
use crate::hosts::AllowedHosts;
use crate::visitor::TrustedProxies;

/// pixcache web gateway: stores images, serves them through the cache, shows what the cache does.
#[derive(Debug, Clone, Parser)]
#[command(
    name = "gateway",
    version,
    next_help_heading = OPTIONAL,
    after_help = "gateway adopt --help: how to join an image store and a database that do not belong together"
)]
pub struct Config {
    /// Password of the NATS user "gateway"
    #[arg(
        long,
        env = "NATS_GATEWAY_PASSWORD",
        value_name = "PASSWORD",
        hide_env_values = true,
        help_heading = NEEDED
    )]
    pub nats_password: String,

    /// Address to listen on
    #[arg(long, env = "HOST", value_name = "ADDRESS", default_value = "127.0.0.1", value_parser = address)]
    pub host: IpAddr,

    /// Port to listen on; 0 takes a free one
    #[arg(long, env = "PORT", value_name = "PORT", default_value_t = 5000, value_parser = whole::<u16>(0..=65535))]
    pub port: u16,

    /// Token that every change needs, as Authorization: Bearer or as the password of a login; at least 16
    /// visible ASCII characters. Without it (the default), only programs on this machine are listened to
    #[arg(
        long,
        env = "ADMIN_TOKEN",
        value_name = "TOKEN",
        default_value = "",
        hide_default_value = true,
        hide_env_values = true
    )]
    pub admin_token: AdminToken,

    /// Whether reads need the token too, everywhere but at /healthz, at /readyz (which says no more then than which
    /// parts are there) and for the pages' own files. Without it (the default), anybody may read
    #[arg(long, env = "PRIVATE", num_args = 0..=1, default_missing_value = "true", default_value_t = false,
          value_parser = on_or_off, action = clap::ArgAction::Set)]
    pub private: bool,

    /// Host names that this gateway answers to besides IP addresses and localhost, apart by commas; *.example.com is
    /// any below that, * any. Without it (the default), any name with ADMIN_TOKEN, else none
    #[arg(long, env = "ALLOWED_HOSTS", value_name = "NAMES", default_value = "", hide_default_value = true)]
    pub allowed_hosts: AllowedHosts,

    /// Addresses and networks of reverse proxies, apart by commas, whose X-Forwarded-For says who asks; each must set
    /// it or add to it. Limits for one address are for those then, not for the proxy. Without it (the default), no such header
    /// is read
    #[arg(
        long,
        env = "TRUSTED_PROXIES",
        value_name = "ADDRESSES",
        default_value = "",
        hide_default_value = true
    )]
    pub trusted_proxies: TrustedProxies,

    /// Origins whose scripts may read all that is open to read, and make changes with the token as Authorization: Bearer
    /// (CORS); apart by commas, such as https://app.example.com,http://localhost:3000; * is any. Without it (the default), none
    #[arg(long, env = "CORS_ORIGINS", value_name = "ORIGINS", default_value = "", hide_default_value = true)]
    pub cors_origins: CorsOrigins,

    /// Web pages that may show the images (Cross-Origin-Resource-Policy)
    #[arg(long, env = "IMAGE_EMBEDDING", value_name = "WHOSE", value_enum, default_value_t)]
    pub image_embedding: Embedding,

    /// Where rows and files are.
    #[command(flatten)]
    pub origin: OriginArgs,

    /// Most of all files that a sweep takes away at once, in percent; if no row names more, it leaves them all. One
    /// file always may go, unless it is 0
    #[arg(long, env = "SWEEP_MAX_PERCENT", value_name = "PERCENT", default_value_t = 10,
          value_parser = whole::<u64>(0..=100))]
    pub sweep_max_percent: u64,

    /// Folder of the page templates
    #[arg(long, env = "TEMPLATE_DIR", value_name = "FOLDER", default_value = "templates")]
    pub template_dir: PathBuf,

    /// Largest image that is stored, in megabytes (2^20 bytes)
    #[arg(long, env = "MAX_IMAGE_MB", value_name = "MB", default_value_t = 20,
          value_parser = whole::<u64>(1..=4096))]
    pub max_image_mb: u64,

    /// Most pixels, width times height, that an image may have, in millions
    #[arg(long, env = "MAX_IMAGE_MEGAPIXELS", value_name = "MEGAPIXELS", default_value_t = 100,
          value_parser = whole::<u64>(1..=4_000))]
    pub max_image_megapixels: u64,

    /// Cache-Control of /images/{key}
    #[arg(long, env = "IMAGE_CACHE_CONTROL", value_name = "VALUE", default_value = "no-cache",
          value_parser = header_value)]
    pub image_cache_control: HeaderValue,

    /// How long a read waits for the cache before it goes to the origin, in milliseconds
    #[arg(long, env = "CACHE_BUDGET_MS", value_name = "MS", default_value_t = 50,
          value_parser = whole::<u64>(1..=10_000))]
    pub cache_budget_ms: u64,

    /// Memory for copies of hot images that are served without asking the worker, in megabytes; 0: none
    #[arg(long, env = "NEAR_CACHE_MB", value_name = "MB", default_value_t = 64,
          value_parser = whole::<u64>(0..=1_048_576))]
    pub near_cache_mb: u64,

    /// Whether an upload brings its image into the cache, after its answer
    #[arg(long, env = "FILL_ON_UPLOAD", value_name = "WHICH", value_enum, default_value_t)]
    pub fill_on_upload: FillOnUpload,

    /// Widths of the variants that are made after an upload, once no reader waits for one, apart by commas, such as
    /// 320,640. Without it (the default), variants are made when they are first asked for
    #[arg(
        long,
        env = "VARIANTS_AT_UPLOAD",
        value_name = "WIDTHS",
        default_value = "",
        hide_default_value = true
    )]
    pub variants_at_upload: Widths,

    /// Folder on a tmpfs for large images, the same as that of the worker on this machine: the bus then carries their names only.
    /// auto: /dev/shm/pixcache-UID; off: the bus carries the bytes
    #[arg(long, env = "SHARED_DIR", value_name = "FOLDER", default_value = AUTO)]
    pub shared_dir: String,

    /// Most HTTP connections at once; for a further one the idlest is closed, or of an address that has more than a
    /// sixteenth of all a busy one
    #[arg(long, env = "MAX_CONNECTIONS", value_name = "NUMBER", default_value_t = 4096,
          value_parser = whole::<u32>(1..=1_000_000))]
    pub max_connections: u32,

    /// Most requests without a body that are worked on at once, and as many again with one; further ones
    /// are answered 503, and so are those of one address that has three quarters of all
    #[arg(long, env = "MAX_REQUESTS", value_name = "NUMBER", default_value_t = 1024,
          value_parser = whole::<u32>(1..=1_000_000))]
    pub max_requests: u32,

    /// Most streams of events (/events/…) at once, and never more than half of the connections; for a further one,
    /// one of the address that has most gives way
    #[arg(long, env = "MAX_EVENT_STREAMS", value_name = "NUMBER", default_value_t = 128,
          value_parser = whole::<u32>(1..=10_000))]
    pub max_event_streams: u32,

    /// Most connections to MySQL at once
    #[arg(long, env = "DATABASE_CONNECTIONS", value_name = "NUMBER", default_value_t = 16,
          value_parser = whole::<u32>(1..=1_000))]
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

/// The web pages that a browser lets show an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Embedding {
    /// Only pages of this gateway: same scheme, name and port
    #[default]
    SameOrigin,
    /// Also pages of the same site: another name below the same registered one, another port
    SameSite,
    /// Any page
    CrossOrigin,
}

/// Which uploads fill the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum FillOnUpload {
    /// As "cached" if the images are in S3, else as "off"
    #[default]
    Auto,
    /// None: the first read of an image does
    Off,
    /// Those that replace an image that was cached
    Cached,
    /// All
    All,
}

impl FillOnUpload {
    /// As the invalidation of an upload says it. `is_far` is whether the images are in S3: there a read costs more than the
    /// fill that it saves.
    pub(crate) fn refill(self, is_far: bool) -> Option<Refill> {
        match self {
            Self::Auto if is_far => Some(Refill::Resident),
            Self::Auto | Self::Off => None,
            Self::Cached => Some(Refill::Resident),
            Self::All => Some(Refill::Any),
        }
    }
}

/// Widths of variants.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Widths(pub(crate) Vec<Variant>);

impl FromStr for Widths {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let widths = text.split(',').map(str::trim).filter(|width| !width.is_empty());
        widths.map(Variant::of_width).collect::<Result<_, _>>().map(Self)
    }
}

impl Embedding {
    /// As the header `Cross-Origin-Resource-Policy` says it.
    pub(crate) fn header_value(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::SameOrigin => "same-origin",
            Self::SameSite => "same-site",
            Self::CrossOrigin => "cross-origin",
        })
    }
}

/// A token, or none if it is empty. It is never shown.
#[derive(Clone)]
pub struct AdminToken(String);

impl AdminToken {
    /// The token, if one is set.
    pub fn as_set(&self) -> Option<&str> {
        (!self.0.is_empty()).then_some(&self.0)
    }
}

impl From<String> for AdminToken {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for AdminToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.as_set().is_some() { "AdminToken(set)" } else { "AdminToken(none)" })
    }
}

/// Settings that do not go together. A value that must not be shown is also checked here and not by clap,
/// which repeats what it refuses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A token that could be guessed, or that no header could carry.
    #[error(
        "ADMIN_TOKEN must be at least {MIN_TOKEN_CHARACTERS} visible ASCII characters, such as \
         `openssl rand -hex 32` prints"
    )]
    WeakToken,
    /// Without a token, every host on the network could change everything.
    #[error(
        "HOST is {0}, which others can reach, so ADMIN_TOKEN must be set: every change then needs it. Without it, \
         listen on 127.0.0.1"
    )]
    OpenToOthers(IpAddr),
    /// Reads need a token and none is set, so nothing could be read.
    #[error("PRIVATE is set, so ADMIN_TOKEN must be set too: it is what lets people in")]
    PrivateWithoutToken,
    /// Others can't log in on their own pages.
    #[error("IMAGE_EMBEDDING must be same-origin with PRIVATE, because images need the token then")]
    PrivateAndEmbedded,
}

/// The fewest characters of a token.
const MIN_TOKEN_CHARACTERS: usize = 16;

impl Settings for Config {
    fn log(&self) -> &LogArgs {
        &self.log
    }

    fn check(&self) -> anyhow::Result<()> {
        self.go_together()?;
        Ok(())
    }
}

impl Config {
    /// Checks the settings that depend on each other, before anything is listened to.
    ///
    /// # Errors
    /// [`ConfigError`]: a sentence for the person who starts the gateway.
    pub fn go_together(&self) -> Result<(), ConfigError> {
        match self.admin_token.as_set() {
            Some(token) => {
                let is_visible = token.bytes().all(|byte| byte.is_ascii_graphic());
                if token.len() < MIN_TOKEN_CHARACTERS || !is_visible {
                    return Err(ConfigError::WeakToken);
                }
            }
            None if !self.host.to_canonical().is_loopback() => {
                return Err(ConfigError::OpenToOthers(self.host));
            }
            None if self.private => return Err(ConfigError::PrivateWithoutToken),
            None => {}
        }
        if self.private && self.image_embedding != Embedding::SameOrigin {
            return Err(ConfigError::PrivateAndEmbedded);
        }
        Ok(())
    }

    /// The largest image in bytes.
    pub fn max_image_bytes(&self) -> u64 {
        self.max_image_mb << 20
    }

    /// The most pixels of an image.
    pub fn max_image_pixels(&self) -> u64 {
        self.max_image_megapixels * 1_000_000
    }

    /// [`Config::near_cache_mb`] in bytes.
    pub(crate) fn near_cache_bytes(&self) -> u64 {
        self.near_cache_mb << 20
    }

    /// [`Config::cache_budget_ms`] as a duration.
    pub fn cache_budget(&self) -> Duration {
        Duration::from_millis(self.cache_budget_ms)
    }
}

fn address(text: &str) -> Result<IpAddr, String> {
    text.parse().map_err(|_| {
        format!("must be an IP address such as 127.0.0.1, ::1 or 0.0.0.0, got {}", wire::words::shown(text))
    })
}

/// Refuses at start what no answer could carry later.
fn header_value(text: &str) -> Result<HeaderValue, String> {
    match HeaderValue::from_str(text.trim()) {
        Ok(value) if !value.is_empty() => Ok(value),
        _ => {
            Err("must be a value of the header Cache-Control, such as no-cache or public, max-age=60".into())
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    fn checked(flags: &[&str]) -> Result<(), ConfigError> {
        let needed = ["gateway", "--database-url", "mysql://x", "--nats-password", "x"];
        Config::parse_from(needed.iter().chain(flags)).go_together()
    }

    #[test]
    fn nothing_but_this_machine_is_listened_to_without_a_token() {
        for host in ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"] {
            assert_eq!(checked(&["--host", host]), Ok(()), "{host}");
        }
        for host in ["0.0.0.0", "::", "10.0.0.1", "::ffff:10.0.0.1"] {
            assert!(matches!(checked(&["--host", host]), Err(ConfigError::OpenToOthers(_))), "{host}");
            assert_eq!(checked(&["--host", host, "--admin-token", "0123456789abcdef"]), Ok(()), "{host}");
        }
        assert_eq!(checked(&["--private"]), Err(ConfigError::PrivateWithoutToken));
        let private = ["--private", "--admin-token", "0123456789abcdef"];
        assert_eq!(checked(&private), Ok(()));
        let embedded = [&private[..], &["--image-embedding", "cross-origin"]].concat();
        assert_eq!(checked(&embedded), Err(ConfigError::PrivateAndEmbedded));
    }

    #[test]
    fn widths_are_those_that_there_are() {
        assert_eq!("".parse(), Ok(Widths::default()));
        assert_eq!("640, 320".parse(), Ok(Widths(vec![Variant::W640, Variant::W320])));
        for wrong in ["w320", "321", "320;640", "0", "off"] {
            let error = wrong.parse::<Widths>().unwrap_err();
            assert_eq!(error, format!("must be 160, 320, 640 or 1280, got {wrong:?}"));
        }
    }

    #[test]
    fn a_token_is_long_and_visible_and_never_shown() {
        for weak in ["0123456789abcde", "0123456789 abcdef", "0123456789abcdé€", "0123456789abcdef\n"] {
            assert_eq!(checked(&["--admin-token", weak]), Err(ConfigError::WeakToken), "{weak:?}");
        }
        assert_eq!(checked(&["--admin-token", ""]), Ok(()));
        assert!(!format!("{:?}", AdminToken::from("0123456789abcdef".to_owned())).contains("0123"));
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
