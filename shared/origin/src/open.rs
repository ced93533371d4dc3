//! Opening the origin: its settings, the image files, the connections to MySQL.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use runtime::args::{NEEDED, whole};
use runtime::wait;
use sql::{Database, Isolation, Session};
use sqlx::mysql::{MySqlConnectOptions, MySqlPoolOptions};
use sqlx::{ConnectOptions as _, Connection as _};
use tokio::time::timeout;

use crate::blobs::Blobs;
use crate::images::Images;

/// How long a statement waits for a connection to MySQL.
const ACQUIRE_LIMIT: Duration = Duration::from_secs(3);
/// A connection to MySQL that was idle for longer is tested before it is used. No server restarts within that time.
const UNTESTED: Duration = Duration::from_millis(100);
/// One writer at a time changes the rows of a key: the one that holds the lock of the key's note. Locks on gaps between
/// rows would only stop other writers. No writer waits long for another one.
const SESSION: Session = Session { isolation: Isolation::ReadCommitted, lock_wait: Duration::from_secs(3) };

/// The places of the rows and the files.
#[derive(Debug, Clone, Args)]
pub struct OriginArgs {
    /// URL of the MySQL or MariaDB database with the gateway's own account, as
    /// mysql://user:password@host:port/database
    #[arg(long, env = "GATEWAY_DATABASE_URL", value_name = "URL", hide_env_values = true, help_heading = NEEDED)]
    pub database_url: String,

    /// Folder of the image files, made if it is not there
    #[arg(long, env = "IMAGE_DIR", value_name = "FOLDER", default_value = "var/images")]
    pub image_dir: PathBuf,

    /// S3-compatible storage for the image files instead of the folder, as s3://bucket/prefix; its
    /// account comes from AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION, AWS_ENDPOINT and
    /// AWS_ALLOW_HTTP. Without it (the default), the folder
    #[arg(long, env = "BLOB_URL", value_name = "URL")]
    pub blob_url: Option<String>,

    /// How long a call to the folder or S3 may take, in seconds; then it is given up
    #[arg(long, env = "STORE_TIMEOUT_S", value_name = "SECONDS", default_value_t = 10,
          value_parser = whole::<u64>(1..=600))]
    pub store_timeout_s: u64,

    /// How long files stay in the trash that were replaced or deleted or that no row names, in days; 0: they are
    /// removed at once, and a database restored from a backup does not find them
    #[arg(long, env = "TRASH_DAYS", value_name = "DAYS", default_value_t = 7,
          value_parser = whole::<u64>(0..=3650))]
    pub trash_days: u64,
}

impl OriginArgs {
    /// [`OriginArgs::store_timeout_s`] as a duration.
    pub fn store_timeout(&self) -> Duration {
        Duration::from_secs(self.store_timeout_s)
    }

    /// [`OriginArgs::trash_days`] as a duration.
    pub fn trash(&self) -> Duration {
        Duration::from_secs(self.trash_days * 24 * 3600)
    }
}

/// Opens the image store: the folder, or S3 if a URL is given.
///
/// # Errors
/// When the folder or the URL can't be used.
pub async fn files(origin: &OriginArgs) -> anyhow::Result<Blobs> {
    let (limit, has_trash) = (origin.store_timeout(), origin.trash_days > 0);
    if let Some(url) = origin.blob_url.as_deref().map(str::trim).filter(|url| !url.is_empty()) {
        return Blobs::in_s3(url, limit, has_trash).context("the image store can't be used");
    }
    let folder = origin.image_dir.clone();
    let opening = tokio::task::spawn_blocking(move || Blobs::in_folder(&folder, limit, has_trash));
    let opened = match timeout(limit, opening).await {
        Ok(opened) => opened?,
        Err(_) => Err(anyhow::anyhow!("no answer within {} s (STORE_TIMEOUT_S)", limit.as_secs())),
    };
    opened.with_context(|| format!("the image folder {} can't be used", origin.image_dir.display()))
}

/// Waits for MySQL with the gateway's tables.
///
/// # Errors
/// When MySQL or the tables are not there in time, or the URL is malformed.
pub async fn connect(origin: &OriginArgs, max_connections: u32, limit: Duration) -> anyhow::Result<Database> {
    let options = database_options(origin)?;
    // A pool reports every cause as a timeout; a single connection reports the cause.
    let server = format!("MySQL at {}:{}", options.get_host(), options.get_port());
    wait::until(&server, limit, || async {
        let tried = async { options.connect().await?.close().await };
        tried.await.map_err(|error| sql::unconnected(&error, "GATEWAY_DATABASE_URL"))
    })
    .await?;
    let database = database(origin, max_connections)?;
    let images = Images::new(database.clone());
    wait::until("the gateway's tables, which the recorder makes", limit, || images.probe()).await?;
    Ok(database)
}

fn database_options(origin: &OriginArgs) -> anyhow::Result<MySqlConnectOptions> {
    // The URL is not shown, because it holds a password.
    origin.database_url.parse().map_err(|_| {
        anyhow::anyhow!(
            "GATEWAY_DATABASE_URL (--database-url) must be of the form mysql://user:password@host:port/database, got \
             another URL"
        )
    })
}

/// Connections that are made when they are needed.
///
/// # Errors
/// When the URL is malformed.
pub(crate) fn database(origin: &OriginArgs, max_connections: u32) -> anyhow::Result<Database> {
    let pool_options = MySqlPoolOptions::new()
        .max_connections(max_connections)
        .acquire_timeout(ACQUIRE_LIMIT)
        .test_before_acquire(false)
        .before_acquire(|connection, meta| {
            Box::pin(async move {
                // A test of a connection that was just in use would cost every statement one more round trip.
                if meta.idle_for > UNTESTED {
                    connection.ping().await?;
                }
                Ok(true)
            })
        });
    Ok(Database::new(pool_options, database_options(origin)?, SESSION))
}
