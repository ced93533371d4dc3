use std::sync::LazyLock;
use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::jetstream;
use clap::Parser as _;
use recorder::config::Config;
use runtime::args::NatsArgs;
use runtime::bus::{Bus, Refused, RequestFailure, User};
use serde::de::DeserializeOwned;
use sqlx::{AssertSqlSafe, MySqlConnection};
use testkit::database::Account;
use testkit::{Database, NatsServer, eventually};
use time::OffsetDateTime;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use wire::reply::Code;
use wire::stats::{Counters, Window};
use wire::subject;

/// Longer than anything here takes on a busy machine.
pub(crate) const SOON: Duration = Duration::from_secs(45);

/// The settings of a recorder for these servers. They are all given, so that the environment of the
/// test run has no say.
pub(crate) fn config(nats: &NatsServer, database: &Database) -> Config {
    Config::parse_from([
        "recorder",
        &format!("--nats-url={}", nats.url()),
        &format!("--nats-port={}", nats.port()),
        &format!("--nats-password={}", nats.password("recorder")),
        &format!("--nats-setup-password={}", nats.password("setup")),
        &format!("--database-url={}", database.url(Account::Recorder)),
        &format!("--migration-database-url={}", database.url(Account::Migration)),
        &format!("--gateway-database-user={}", database.user(Account::Gateway)),
        "--stats-retention-days=30",
        "--shutdown-grace-ms=2500",
        "--dependency-timeout-s=60",
        "--log-format=auto",
        "--log-filter=warn",
    ])
}

/// A recorder that runs in this process.
pub(crate) struct Recorder {
    stop: CancellationToken,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Recorder {
    pub(crate) fn spawn(config: Config) -> Self {
        let stop = CancellationToken::new();
        let task = tokio::spawn(recorder::run(config, stop.clone()));
        Self { stop, task }
    }

    /// Asks it to stop, as a signal does, and returns what it ended with.
    pub(crate) async fn stop(self) -> anyhow::Result<()> {
        self.stop.cancel();
        self.ended().await
    }

    /// Makes it end at once, without anything that a stop does.
    pub(crate) fn kill(self) {
        self.task.abort();
    }

    /// What it ends with by itself.
    pub(crate) async fn ended(self) -> anyhow::Result<()> {
        tokio::time::timeout(SOON, self.task).await.expect("it ends").expect("it does not panic")
    }
}

/// A worker's part on the bus: publishes windows and writes the configuration.
pub(crate) struct Worker {
    pub(crate) client: async_nats::Client,
    jetstream: jetstream::Context,
}

impl Worker {
    /// Connects as the worker does, and makes the streams as it does.
    pub(crate) async fn connect(nats: &NatsServer) -> Self {
        let jetstream = nats.jetstream("memcache_own").await;
        let worker = Self { client: jetstream.client(), jetstream };
        worker.make_streams().await;
        worker
    }

    pub(crate) async fn make_streams(&self) {
        eventually("JetStream makes the streams", SOON, async || {
            runtime::streams::ensure_event_stream(&self.jetstream).await.is_ok()
                && runtime::streams::ensure_config_bucket(&self.jetstream).await.is_ok()
        })
        .await;
    }

    /// Publishes a window and waits until JetStream has it; for as long as it takes, as a worker does.
    pub(crate) async fn publish(&self, window: &Window) {
        let payload = serde_json::to_vec(window).unwrap();
        self.publish_bytes(&subject::window_event(&window.worker), &window.message_id(), &payload).await;
    }

    pub(crate) async fn publish_bytes(&self, subject: &str, id: &str, payload: &[u8]) {
        eventually("JetStream acknowledges a message", SOON, async || {
            let mut headers = HeaderMap::new();
            headers.insert("Nats-Msg-Id", id);
            let sent = self
                .jetstream
                .publish_with_headers(subject.to_owned(), headers, payload.to_vec().into())
                .await;
            match sent {
                Ok(acknowledgement) => acknowledgement.await.is_ok(),
                Err(_) => false,
            }
        })
        .await;
    }

    /// Writes a revision of the configuration, and returns its number.
    pub(crate) async fn configure(&self, capacity_mb: u64, generation: u64, by: &str) -> u64 {
        let payload = serde_json::json!({
            "capacity_mb": capacity_mb, "policy": "lru", "generation": generation,
            "changed_by": by, "changed_at": "2026-01-02T03:04:05.678Z",
        });
        self.write_entry(payload.to_string().as_bytes()).await
    }

    pub(crate) async fn write_entry(&self, payload: &[u8]) -> u64 {
        let bucket = self.jetstream.get_key_value(subject::CONFIG_BUCKET).await.unwrap();
        bucket.put(subject::CONFIG_KEY, payload.to_vec().into()).await.unwrap()
    }

    pub(crate) async fn delete_entry(&self) {
        let bucket = self.jetstream.get_key_value(subject::CONFIG_BUCKET).await.unwrap();
        bucket.delete(subject::CONFIG_KEY).await.unwrap();
    }
}

/// When the windows of a test begin: within the retention, and at a whole hour.
static YESTERDAY: LazyLock<OffsetDateTime> = LazyLock::new(|| {
    let hour = OffsetDateTime::now_utc().unix_timestamp() / 3600 - 24;
    OffsetDateTime::from_unix_timestamp(hour * 3600).unwrap()
});

/// A window with counts that tell it from others.
pub(crate) fn window(incarnation: &str, sequence: u64) -> Window {
    let counters = Counters::from_values(std::array::from_fn(|at| sequence * 100 + at as u64));
    Window {
        worker: "memcache-1".to_owned(),
        incarnation: incarnation.to_owned(),
        sequence,
        interval_start: *YESTERDAY + Duration::from_secs(5 * sequence),
        interval_ms: 5000,
        cache_size: sequence,
        capacity: 1 << 26,
        key_count: 3,
        counters,
    }
}

/// The sequence numbers of the rows of `incarnation`, in order.
pub(crate) async fn sequences(database: &Database, incarnation: &str) -> Vec<u64> {
    let query =
        sqlx::query_scalar("SELECT sequence FROM cache_stats WHERE incarnation = ? ORDER BY sequence")
            .bind(incarnation.to_owned());
    query.fetch_all(&mut database.connect(Account::Admin).await).await.unwrap_or_default()
}

/// Waits until exactly the windows 1 to `last` of `incarnation` are rows.
pub(crate) async fn wait_for_windows(database: &Database, incarnation: &str, last: u64) {
    let expected: Vec<u64> = (1..=last).collect();
    eventually("each window is a row, once", SOON, async || {
        sequences(database, incarnation).await == expected
    })
    .await;
}

/// One value from the database, seen by its administrator; nothing while the table is not there.
pub(crate) async fn value(database: &Database, sql: &'static str) -> Option<i64> {
    sqlx::query_scalar(sql).fetch_one(&mut database.connect(Account::Admin).await).await.ok()
}

pub(crate) async fn execute(connection: &mut MySqlConnection, sql: impl Into<String>) -> sqlx::Result<()> {
    sqlx::raw_sql(AssertSqlSafe(sql.into())).execute(connection).await.map(drop)
}

/// Who asks questions.
pub(crate) struct Asker(Bus);

impl Asker {
    /// Connects as a person with the CLI does, and waits until somebody answers.
    pub(crate) async fn connect(nats: &NatsServer) -> Self {
        let args = NatsArgs { nats_url: Some(nats.url()), nats_port: nats.port() };
        let connect = async |user| {
            Bus::connect(&args, User::asking(user), nats.password(user), 64, SOON).await.unwrap()
        };
        let asker = Self(connect("operator").await);
        // Older servers don't say from one account to another that nobody is there.
        let gateway = Self(connect("gateway").await);
        eventually("the recorder answers", SOON, async || {
            !matches!(gateway.try_ask(subject::SERIES, "").await, Err(RequestFailure::NoResponders(_)))
        })
        .await;
        asker
    }

    pub(crate) async fn try_ask(&self, subject: &str, payload: &str) -> Result<bytes::Bytes, RequestFailure> {
        let payload = payload.to_owned().into();
        self.0.request(subject.to_owned(), None, payload, SOON).await.map(|reply| reply.payload)
    }

    pub(crate) async fn ask<T: DeserializeOwned>(&self, subject: &str, payload: &str) -> T {
        serde_json::from_slice(&self.try_ask(subject, payload).await.unwrap()).unwrap()
    }

    /// The code and the sentence of a refusal.
    pub(crate) async fn refusal(&self, subject: &str, payload: &str) -> (Code, String) {
        match self.try_ask(subject, payload).await {
            Err(RequestFailure::Refused(refused)) => {
                let Refused { refusal, .. } = *refused;
                (refusal.code, refusal.message)
            }
            other => panic!("{subject} {payload} should be refused: {other:?}"),
        }
    }
}
