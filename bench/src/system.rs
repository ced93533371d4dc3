//! One plain system to measure: a nats-server, a MariaDB, and as many of the services as asked for, all release
//! binaries with their shipped settings, on free ports and in temporary folders that are gone with this process.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use sqlx::{MySql, MySqlPool, QueryBuilder};
use testkit::database::Account;
use testkit::{Database, Guardian, MariaDb, NatsServer, free_port, repository_root};
use time::OffsetDateTime;
use wire::{CacheStats, Policy, subject};

use crate::load::http::{Http, Message};
use crate::load::{Failure, Target as _};
use crate::process::Process;

/// A MariaDB as one runs it: what is committed is on the disk. The pages of a million rows fit into its memory.
pub(crate) const MARIADB: &[&str] = &[
    "--innodb-doublewrite=1",
    "--innodb-flush-log-at-trx-commit=1",
    "--innodb-buffer-pool-size=512M",
    "--innodb-log-file-size=256M",
];
/// How long a system may take to become ready.
const START_LIMIT: Duration = Duration::from_secs(60);
/// How often that is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// How long one answer may take that is no part of a measurement.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);
/// How long the last fills may take after the answers.
const FILL_TIME: Duration = Duration::from_millis(100);
/// How often they are read at most.
const MOST_ROUNDS: usize = 50;
/// How many images are stored at once.
const STORING: usize = 16;
/// How many rows are written in one statement.
const BATCH: usize = 1000;

/// Settings by their names in the environment.
pub(crate) type Settings = Vec<(&'static str, String)>;

/// Where the services' binaries are.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Binaries {
    /// Where the services' binaries are; by default where this program is
    #[arg(long, value_name = "FOLDER")]
    bin_dir: Option<PathBuf>,
}

impl Binaries {
    /// The folder, if one was named.
    pub(crate) fn named(&self) -> Option<&Path> {
        self.bin_dir.as_deref()
    }

    /// The folder, in which all of them are.
    ///
    /// # Errors
    /// When one is not.
    pub(crate) fn find(&self) -> anyhow::Result<PathBuf> {
        let folder = match &self.bin_dir {
            Some(folder) => folder.clone(),
            None => std::env::current_exe()?.parent().context("a program lies in a folder")?.to_owned(),
        };
        for service in ["gateway", "memcache", "recorder"] {
            let binary = folder.join(service);
            anyhow::ensure!(
                binary.is_file(),
                "{} is not there: run `cargo build --release -p {service}` first, or say --bin-dir",
                binary.display()
            );
        }
        Ok(folder)
    }
}

/// The parts of a system.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    /// Where the services' binaries are.
    pub(crate) binaries: PathBuf,
    /// One gateway for each, with these settings besides the shipped ones.
    pub(crate) gateways: Vec<Settings>,
    /// One worker for each, likewise.
    pub(crate) workers: Vec<Settings>,
    /// The recorder's settings besides the shipped ones.
    pub(crate) recorder: Settings,
}

impl Setup {
    /// One of each, as they ship.
    ///
    /// # Errors
    /// When a binary is not there.
    pub(crate) fn shipped(binaries: &Binaries) -> anyhow::Result<Self> {
        let (gateways, workers) = (vec![Vec::new()], vec![Vec::new()]);
        Ok(Self { binaries: binaries.find()?, gateways, workers, recorder: Vec::new() })
    }
}

/// The system. Its processes end when it is dropped.
#[derive(Debug)]
pub(crate) struct System {
    pub(crate) nats: NatsServer,
    _mariadb: MariaDb,
    pub(crate) database: Database,
    pub(crate) gateways: Vec<Process>,
    pub(crate) gateway_ports: Vec<u16>,
    pub(crate) workers: Vec<Process>,
    pub(crate) recorder: Process,
    /// The tables, as an account that may do everything.
    pub(crate) tables: MySqlPool,
    /// Asks the worker and the recorder as an operator does.
    pub(crate) operator: async_nats::Client,
    /// Its folder holds the image files.
    folder: Guardian,
}

impl System {
    /// Starts everything, and returns when every gateway is ready.
    ///
    /// # Errors
    /// When a process ends or is not ready in time, with the end of its log.
    pub(crate) async fn start(setup: &Setup) -> anyhow::Result<Self> {
        let (nats, mariadb) = tokio::join!(NatsServer::start(), MariaDb::start_with(MARIADB));
        let database = mariadb.database().await;
        let folder = Guardian::new(|_| Command::new("true"));
        let bus = |user: &str, password: &'static str| -> Settings {
            vec![("NATS_PORT", nats.port().to_string()), (password, nats.password(user).to_owned())]
        };
        let make = |name: &'static str, settings: Settings, more: &Settings| {
            let mut all: HashMap<_, _> = settings.into_iter().collect();
            all.extend(more.iter().cloned());
            Process::new(name, &setup.binaries.join(name), all.into_iter().collect())
        };
        let (mut gateways, mut gateway_ports, mut workers) = (Vec::new(), Vec::new(), Vec::new());
        for more in &setup.gateways {
            let port = free_port();
            let mut settings = bus("gateway", "NATS_GATEWAY_PASSWORD");
            settings.extend([
                ("PORT", port.to_string()),
                ("GATEWAY_DATABASE_URL", database.url(Account::Gateway)),
                ("IMAGE_DIR", text(&folder.folder().join("images"))?),
                ("TEMPLATE_DIR", text(&repository_root().join("templates"))?),
            ]);
            gateways.push(make("gateway", settings, more)?);
            gateway_ports.push(port);
        }
        for (number, more) in setup.workers.iter().enumerate() {
            let mut settings = bus("memcache", "NATS_MEMCACHE_PASSWORD");
            settings.push(("WORKER_NAME", format!("memcache-{}", number + 1)));
            workers.push(make("memcache", settings, more)?);
        }
        let mut settings = bus("recorder", "NATS_RECORDER_PASSWORD");
        settings.extend([
            ("NATS_SETUP_PASSWORD", nats.password("setup").to_owned()),
            ("RECORDER_DATABASE_URL", database.url(Account::Recorder)),
            ("MIGRATION_DATABASE_URL", database.url(Account::Migration)),
            ("GATEWAY_DATABASE_USER", database.user(Account::Gateway)),
        ]);
        let recorder = make("recorder", settings, &setup.recorder)?;
        let (tables, operator) = (database.pool(Account::Admin), nats.connect("operator").await);
        let system = Self {
            gateways,
            gateway_ports,
            workers,
            recorder,
            tables,
            operator,
            folder,
            database,
            nats,
            _mariadb: mariadb,
        };
        for process in system.processes() {
            process.start().await?;
        }
        for port in &system.gateway_ports {
            system.wait_until_ready(*port).await?;
        }
        Ok(system)
    }

    /// Every service.
    pub(crate) fn processes(&self) -> impl Iterator<Item = &Process> {
        self.gateways.iter().chain(&self.workers).chain([&self.recorder])
    }

    /// The folder of the image files.
    pub(crate) fn images(&self) -> PathBuf {
        self.folder.folder().join("images")
    }

    /// Waits until a gateway says that all parts are there.
    async fn wait_until_ready(&self, port: u16) -> anyhow::Result<()> {
        let begun = Instant::now();
        let question = Message::get("/readyz").answered(200..=599);
        loop {
            let asked = async { Http::connect(&port).await?.ask(&question).await };
            let said = match tokio::time::timeout(START_LIMIT, asked).await {
                Ok(Ok(answer)) if answer.status == 200 => return Ok(()),
                Ok(Ok(answer)) => String::from_utf8_lossy(&answer.body).into_owned(),
                Ok(Err(failure)) => failure.to_string(),
                Err(_) => Failure::Unanswered.to_string(),
            };
            let ended = self.processes().find(|process| process.has_ended_by_itself());
            if let Some(process) = ended {
                anyhow::bail!("{} ended; its log says:\n{}", process.name(), process.log_end());
            }
            anyhow::ensure!(begun.elapsed() < START_LIMIT, "the system does not become ready: {said}");
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Sends one request to the gateway at `port`.
    ///
    /// # Errors
    /// When the answer is not the one that the message expects.
    pub(crate) async fn ask(
        &self,
        port: u16,
        message: &Message,
    ) -> anyhow::Result<crate::load::http::Answer> {
        let asked = async { Http::connect(&port).await?.ask(message).await };
        Ok(tokio::time::timeout(ANSWER_LIMIT, asked).await.context("no answer")??)
    }

    /// Stores images as clients do, through the first gateway.
    ///
    /// # Errors
    /// When one is not stored.
    pub(crate) async fn store(
        &self,
        images: impl IntoIterator<Item = (String, Bytes)>,
    ) -> anyhow::Result<()> {
        let put = |(key, bytes): (String, Bytes)| {
            Message::new("PUT", &path_of(&key), &[], bytes).answered(200..=201)
        };
        self.send_all(self.gateway_ports[0], images.into_iter().map(put).collect()).await
    }

    /// Sends each of these requests once.
    ///
    /// # Errors
    /// When one is not answered as it should be.
    pub(crate) async fn send_all(&self, port: u16, messages: Vec<Message>) -> anyhow::Result<()> {
        let messages = std::sync::Arc::new(messages);
        let next = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let connections = (0..STORING).map(|_| {
            let (messages, next) = (messages.clone(), next.clone());
            async move {
                let mut connection = Http::connect(&port).await?;
                loop {
                    let at = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    let Some(message) = messages.get(at) else { return Ok(()) };
                    connection.send(message).await?;
                }
            }
        });
        let sent: Result<Vec<()>, Failure> = futures_util::future::try_join_all(connections).await;
        sent.map(drop).context("an image can't be stored")
    }

    /// Stores many images of one size as if they had been uploaded, but without asking the gateway: their files and
    /// rows are written directly. The first `files` of them have a file; the others are rows alone, for what
    /// never reads them.
    ///
    /// # Errors
    /// When a file or a row can't be written.
    pub(crate) async fn seed(
        &self,
        keys: &[String],
        files: usize,
        image: impl Fn(usize) -> Bytes + Send + Sync,
    ) -> anyhow::Result<()> {
        let folder = self.images();
        for (batch, keys) in keys.chunks(BATCH).enumerate() {
            let mut rows = Vec::with_capacity(keys.len());
            for (at, key) in keys.iter().enumerate() {
                let number = batch * BATCH + at;
                let bytes = image(number);
                let name = format!("{:032x}", rand::random::<u128>());
                let location = format!("{}/{}/{name}", &name[..2], &name[2..4]);
                if number < files {
                    let file = folder.join(&location);
                    std::fs::create_dir_all(file.parent().context("it lies in a folder")?)?;
                    std::fs::write(file, &bytes)?;
                }
                rows.push((key, location, bytes.len() as u64, Sha256::digest(&bytes)));
            }
            let mut insert = QueryBuilder::<MySql>::new(
                "INSERT INTO images \
                 (image_key, location, content_type, size, width, height, sha256, created_at, updated_at) ",
            );
            let now = OffsetDateTime::now_utc();
            insert.push_values(&rows, |mut row, (key, location, size, hash)| {
                row.push_bind(key.as_bytes()).push_bind(location).push_bind("image/gif").push_bind(size);
                row.push_bind(1).push_bind(1).push_bind(&hash[..]).push_bind(now).push_bind(now);
            });
            insert.build().execute(&self.tables).await?;
        }
        Ok(())
    }

    /// Asks the worker or the recorder.
    ///
    /// # Errors
    /// When it refuses, in its words, or does not answer.
    pub(crate) async fn command<A: DeserializeOwned>(
        &self,
        subject: &'static str,
        question: &Value,
    ) -> anyhow::Result<A> {
        let request = async_nats::Request::new()
            .payload(serde_json::to_vec(question)?.into())
            .timeout(Some(ANSWER_LIMIT));
        let reply = self.operator.send_request(subject, request).await?;
        let refused = reply.headers.as_ref().and_then(|headers| headers.get("Nats-Service-Error"));
        if let Some(sentence) = refused {
            anyhow::bail!("{subject} is refused: {}", sentence.as_str());
        }
        Ok(serde_json::from_slice(&reply.payload)?)
    }

    /// Changes capacity and policy of the cache, and empties it.
    ///
    /// # Errors
    /// When the worker refuses.
    pub(crate) async fn configure(&self, capacity_mb: u64, policy: Policy) -> anyhow::Result<()> {
        let change = json!({"capacity_mb": capacity_mb, "policy": policy});
        self.command::<Value>(subject::CONFIG_SET, &change).await?;
        self.clear().await
    }

    /// Empties the cache.
    ///
    /// # Errors
    /// When the worker refuses.
    pub(crate) async fn clear(&self) -> anyhow::Result<()> {
        self.command::<Value>(subject::CLEAR, &json!({})).await.map(drop)
    }

    /// The counts of the worker.
    ///
    /// # Errors
    /// When it does not answer.
    pub(crate) async fn stats(&self) -> anyhow::Result<CacheStats> {
        self.command(subject::STATS, &json!({})).await
    }

    /// Reads each image until all that the cache takes are in it. A gateway drops fills while enough others are under way.
    ///
    /// # Errors
    /// When one can't be read.
    pub(crate) async fn warm(&self, port: u16, keys: &[String]) -> anyhow::Result<()> {
        let messages: Vec<_> = keys.iter().map(|key| Message::get(&path_of(key))).collect();
        let mut filled = None;
        for _ in 0..MOST_ROUNDS {
            self.send_all(port, messages.clone()).await?;
            tokio::time::sleep(FILL_TIME).await;
            let count = self.stats().await?.counters.fill_count;
            if filled.replace(count) == Some(count) {
                return Ok(());
            }
        }
        anyhow::bail!("the cache still takes images after {MOST_ROUNDS} rounds of reads")
    }
}

/// Where an image is read and written. Keys of measurements are plain.
pub(crate) fn path_of(key: &str) -> String {
    format!("/images/{key}")
}

fn text(path: &Path) -> anyhow::Result<String> {
    Ok(path.to_str().context("temporary folders have plain names")?.to_owned())
}
