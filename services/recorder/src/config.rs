//! Every setting of the recorder.

use clap::Parser;
use runtime::args::{LogArgs, NEEDED, NatsArgs, OPTIONAL, ProcessArgs, whole};
use runtime::process::Settings;
use sqlx::mysql::MySqlConnectOptions;

/// pixcache stats recorder: makes rows of what the cache counts, and answers questions about them.
#[derive(Debug, Clone, Parser)]
#[command(name = "recorder", version, about, next_help_heading = OPTIONAL)]
pub struct Config {
    /// Password of the NATS user "recorder"
    #[arg(
        long,
        env = "NATS_RECORDER_PASSWORD",
        value_name = "PASSWORD",
        hide_env_values = true,
        help_heading = NEEDED
    )]
    pub nats_password: String,

    /// Password of the NATS user "setup", which makes streams and consumers. It is proved at each start
    #[arg(
        long,
        env = "NATS_SETUP_PASSWORD",
        value_name = "PASSWORD",
        hide_env_values = true,
        help_heading = NEEDED
    )]
    pub nats_setup_password: String,

    /// Account for reading and writing rows, as mysql://user:password@host:port/database
    #[arg(
        long,
        env = "RECORDER_DATABASE_URL",
        value_name = "URL",
        hide_env_values = true,
        help_heading = NEEDED
    )]
    pub database_url: String,

    /// Account that makes the tables and may grant rights on them, used at the start only; same form
    #[arg(
        long,
        env = "MIGRATION_DATABASE_URL",
        value_name = "URL",
        hide_env_values = true,
        help_heading = NEEDED
    )]
    pub migration_database_url: String,

    /// Where the bus is.
    #[command(flatten)]
    pub nats: NatsArgs,

    /// Name of the gateway's account, which is granted rights on the gateway's tables
    #[arg(long, env = "GATEWAY_DATABASE_USER", value_name = "NAME", default_value = "pixcache_gateway")]
    pub gateway_database_user: String,

    /// How long rows of cache_stats are kept, in days: 1 to 3650
    #[arg(
        long,
        env = "STATS_RETENTION_DAYS",
        value_name = "DAYS",
        default_value_t = 30,
        value_parser = whole::<u32>(1..=3650)
    )]
    pub stats_retention_days: u32,

    /// How it starts and stops.
    #[command(flatten)]
    pub process: ProcessArgs,

    /// How it logs.
    #[command(flatten)]
    pub log: LogArgs,
}

/// A URL is not one of an account. It is not shown, because it holds a password.
#[derive(Debug, thiserror::Error)]
#[error("{setting} must be of the form mysql://user:password@host:port/database, got {reason}")]
pub struct DatabaseUrlError {
    setting: &'static str,
    reason: String,
}

impl Settings for Config {
    fn log(&self) -> &LogArgs {
        &self.log
    }

    fn check(&self) -> anyhow::Result<()> {
        self.account()?;
        self.migration_account()?;
        Ok(())
    }
}

impl Config {
    /// The account for reading and writing rows.
    ///
    /// # Errors
    /// [`DatabaseUrlError`], for `RECORDER_DATABASE_URL`.
    pub fn account(&self) -> Result<MySqlConnectOptions, DatabaseUrlError> {
        account("RECORDER_DATABASE_URL", &self.database_url)
    }

    /// The account that makes the tables.
    ///
    /// # Errors
    /// [`DatabaseUrlError`], for `MIGRATION_DATABASE_URL`.
    pub fn migration_account(&self) -> Result<MySqlConnectOptions, DatabaseUrlError> {
        account("MIGRATION_DATABASE_URL", &self.migration_database_url)
    }
}

fn account(setting: &'static str, url: &str) -> Result<MySqlConnectOptions, DatabaseUrlError> {
    let error = |reason: &str| DatabaseUrlError { setting, reason: reason.to_owned() };
    if url.is_empty() {
        return Err(error("nothing"));
    }
    // Other schemes are read by sqlx as if they were this one.
    if !url.starts_with("mysql://") && !url.starts_with("mariadb://") {
        return Err(error("another scheme than mysql://"));
    }
    let options: MySqlConnectOptions =
        url.parse().map_err(|_: sqlx::Error| error("a URL whose host, port or account can't be read"))?;
    match options.get_database() {
        Some(database) if !database.is_empty() => Ok(options),
        _ => Err(error("a URL without a database")),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn an_account_s_url_names_user_host_and_database_and_is_never_shown() {
        let options = account("X", "mysql://me:secret@127.0.0.1:3307/pixcache").unwrap();
        assert_eq!((options.get_username(), options.get_port()), ("me", 3307));
        for url in
            ["", "postgres://me:secret@h/d", "mysql://me:secret@h", "mysql://me:secret@h:x/d", "secret"]
        {
            let error = account("X", url).unwrap_err().to_string();
            assert!(error.starts_with("X must be of the form") && !error.contains("secret"), "{error}");
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
