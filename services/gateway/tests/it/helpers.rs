//! Gateways on a bus and a database of their own, with a real worker beside them.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use clap::Parser as _;
use gateway::Config;
use runtime::Bus;
use runtime::args::NatsArgs;
use runtime::bucket::Written;
use runtime::bus::{Reply, RequestFailure};
use runtime::owners::Owners;
use sqlx::MySqlPool;
use tempfile::TempDir;
use testkit::database::Account;
use testkit::{Database, NatsServer, eventually, repository_root};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use wire::owners::{Entry, LONGEST_CLAIM_MS};
use wire::{CacheStats, Key, subject};

use crate::http::{self, Answer, Form};

pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
const ANSWER: Duration = Duration::from_secs(5);

/// The flags of a gateway that asks the worker for each read.
pub(crate) const WITHOUT_COPIES: [&str; 2] = ["--near-cache-mb", "0"];

/// Everything around the gateways of one test.
pub(crate) struct Scene {
    pub(crate) nats: NatsServer,
    pub(crate) database: Database,
    pub(crate) pool: MySqlPool,
    pub(crate) folder: TempDir,
    /// Somebody who asks the cache, as a gateway does.
    pub(crate) asker: Bus,
}

/// One gateway, in this process.
pub(crate) struct Gateway {
    pub(crate) port: u16,
    shutdown: CancellationToken,
    run: JoinHandle<anyhow::Result<()>>,
}

/// One worker: the real binary. It is killed when this is dropped.
pub(crate) struct Worker {
    child: Child,
}

impl Worker {
    /// Asks it to stop, and waits until it has.
    pub(crate) fn stop(mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it runs");
        assert!(self.child.wait().expect("it ends").success());
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Scene {
    /// A bus and a migrated database; nobody on them yet.
    pub(crate) async fn new() -> Self {
        Self::with(Database::migrated().await).await
    }

    pub(crate) async fn with(database: Database) -> Self {
        Self::on(NatsServer::start().await, database).await
    }

    pub(crate) async fn on(nats: NatsServer, database: Database) -> Self {
        let pool = database.pool(Account::Admin);
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let args = NatsArgs { nats_url: None, nats_port: nats.port() };
        let asker = Bus::connect(
            &args,
            runtime::bus::User::asking("gateway"),
            nats.password("gateway"),
            1024,
            PATIENCE,
        )
        .await
        .expect("the bus lets us in");
        let scene = Self { nats, database, pool, folder, asker };
        // A worker was here, and has left.
        scene.set_owner(None).await;
        scene
    }

    /// The bucket of who serves.
    async fn owners(&self) -> Owners {
        let args = NatsArgs { nats_url: None, nats_port: self.nats.port() };
        let user = runtime::bus::User::asking("memcache_own");
        let bus = Bus::connect(&args, user, self.nats.password("memcache_own"), 1024, PATIENCE)
            .await
            .expect("the bus lets us in");
        // Of two servers, one has to be elected first.
        eventually("the bucket can be made", PATIENCE, async || {
            runtime::streams::ensure_owners_bucket(bus.jetstream()).await.is_ok()
        })
        .await;
        Owners::new(bus)
    }

    /// Writes into the bucket of the claim that this incarnation serves, for the next ten seconds; or that nobody does.
    pub(crate) async fn set_owner(&self, incarnation: Option<&str>) {
        let owners = self.owners().await;
        let found = owners.read(ANSWER).await.expect("the bucket can be read");
        let first = Entry::first("a bucket".into(), "worker", "left".into(), LONGEST_CLAIM_MS);
        let entry = match (found.entry(), incarnation) {
            (None, _) => first.ended(),
            (Some(entry), None) => entry.ended(),
            (Some(entry), Some(life)) => entry.taken("worker", life.to_owned(), LONGEST_CLAIM_MS),
        };
        let written = owners.write(&entry, found.revision, ANSWER).await.expect("the bucket can be written");
        assert!(matches!(written, Written::Done(_)), "somebody else writes who serves");
    }

    /// A scene with a worker and a gateway.
    pub(crate) async fn running() -> (Self, Worker, Gateway) {
        Self::running_with(&[]).await
    }

    /// The same with further flags for the gateway.
    pub(crate) async fn running_with(flags: &[&str]) -> (Self, Worker, Gateway) {
        let scene = Self::new().await;
        let worker = scene.start_worker().await;
        let gateway = scene.start_gateway(flags).await;
        (scene, worker, gateway)
    }

    /// Starts the worker's binary, and waits until it serves.
    pub(crate) async fn start_worker(&self) -> Worker {
        self.start_worker_with(self.nats.port(), &[]).await
    }

    /// The same behind this port, with further settings.
    pub(crate) async fn start_worker_with(&self, port: u16, settings: &[(&str, &str)]) -> Worker {
        let child = Command::new(testkit::service_binary("memcache"))
            .env("NATS_URL", "")
            .env("NATS_PORT", port.to_string())
            .env("NATS_MEMCACHE_PASSWORD", self.nats.password("memcache"))
            .env("STATS_INTERVAL", "500ms")
            .env("RUST_LOG", "warn")
            .envs(settings.iter().copied())
            .stdin(Stdio::null())
            .spawn()
            .expect("the worker's binary runs");
        let worker = Worker { child };
        eventually("the worker serves", PATIENCE, async || {
            self.cache_stats().await.is_some_and(|stats| stats.serving)
        })
        .await;
        worker
    }

    /// The flags of a gateway here.
    pub(crate) fn config(&self, flags: &[&str]) -> Config {
        let port = self.nats.port().to_string();
        let url = self.database.url(Account::Gateway);
        let images = self.images();
        let templates = repository_root().join("templates");
        let mut arguments = vec!["gateway", "--nats-url", "", "--nats-port", &port];
        arguments.extend(["--nats-password", self.nats.password("gateway"), "--database-url", &url]);
        arguments.extend(["--image-dir", text(&images), "--template-dir", text(&templates)]);
        // A debug build on a busy machine is not what the budget is made for.
        arguments.extend(["--cache-budget-ms", "4000"]);
        let given: Vec<&str> = flags.iter().copied().filter(|flag| flag.starts_with("--")).collect();
        let mut kept = Vec::new();
        let mut skip = false;
        for argument in arguments {
            if std::mem::take(&mut skip) {
                continue;
            }
            if given.contains(&argument) {
                skip = true;
            } else {
                kept.push(argument);
            }
        }
        kept.extend(flags);
        Config::parse_from(kept)
    }

    /// Starts a gateway with further flags, and waits until it serves.
    pub(crate) async fn start_gateway(&self, flags: &[&str]) -> Gateway {
        let gateway = self.spawn_gateway(flags).await;
        gateway.serves().await;
        gateway
    }

    /// Starts a gateway without waiting for what it needs.
    pub(crate) async fn spawn_gateway(&self, flags: &[&str]) -> Gateway {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let port = listener.local_addr().expect("it has an address").port();
        let shutdown = CancellationToken::new();
        let run = tokio::spawn(gateway::run(self.config(flags), listener, shutdown.clone()));
        Gateway { port, shutdown, run }
    }

    pub(crate) async fn cache_stats(&self) -> Option<CacheStats> {
        let reply = self.ask(subject::STATS, "").await.ok()?;
        serde_json::from_slice(&reply.payload).ok()
    }

    pub(crate) async fn ask(
        &self,
        subject: &str,
        payload: impl Into<Bytes>,
    ) -> Result<Reply, RequestFailure> {
        self.asker.request(subject.to_owned(), None, payload.into(), ANSWER).await
    }

    /// How often the entry of who serves was written.
    pub(crate) async fn owners_revision(&self) -> u64 {
        self.owners().await.read(ANSWER).await.expect("the bucket can be read").revision
    }

    /// Changes the configuration of the cache.
    pub(crate) async fn configure(&self, change: &'static str) {
        self.ask(subject::CONFIG_SET, change).await.expect("the change is allowed");
    }

    /// How many image files lie in the image folder, unfinished ones included, and without the trash.
    pub(crate) fn file_count(&self) -> usize {
        files_in(&self.images()).len()
    }

    /// The image folder.
    pub(crate) fn images(&self) -> PathBuf {
        self.folder.path().join("images")
    }

    /// Waits until the notes of all changes are removed, which no answer waits for.
    pub(crate) async fn nothing_is_pending(&self) {
        eventually("no note is left", PATIENCE, async || self.pending_count().await == 0).await;
    }

    pub(crate) async fn pending_count(&self) -> i64 {
        sqlx::query_scalar("SELECT COUNT(*) FROM pending_invalidations")
            .fetch_one(&self.pool)
            .await
            .expect("the table can be read")
    }
}

impl Gateway {
    /// Waits until the routes are there.
    pub(crate) async fn serves(&self) {
        eventually("the gateway serves", PATIENCE, async || {
            assert!(!self.run.is_finished(), "the gateway has ended");
            self.get("/api/openapi.json").await.status == 200
        })
        .await;
    }

    pub(crate) async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Answer {
        http::send(self.port, method, path, headers, body).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], b"").await
    }

    pub(crate) async fn post(&self, path: &str) -> Answer {
        self.send("POST", path, &[], b"").await
    }

    pub(crate) async fn put(&self, path: &str, body: &[u8]) -> Answer {
        self.send("PUT", path, &[], body).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.send("DELETE", path, &[], b"").await
    }

    pub(crate) async fn upload(&self, form: Form) -> Answer {
        let content_type = Form::content_type();
        self.send("POST", "/api/upload", &[("Content-Type", &content_type)], &form.bytes()).await
    }

    /// A value of `/metrics`.
    pub(crate) async fn metric(&self, name: &str) -> f64 {
        let text = self.get("/metrics").await.text();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("{name} in\n{text}")).parse().expect("a metric is a number")
    }

    /// Reads an image until the worker has it.
    pub(crate) async fn is_cached(&self, path: &str) {
        eventually("it is cached", PATIENCE, async || self.get(path).await.cache() == "hit").await;
    }

    /// Waits until no fill is under way.
    pub(crate) async fn fills_end(&self) {
        eventually("the fills end", PATIENCE, async || self.metric("pixcache_fills_under_way").await == 0.0)
            .await;
    }

    /// Stops it, and says how it ended.
    pub(crate) async fn stop(self) -> anyhow::Result<()> {
        self.shutdown.cancel();
        self.run.await.expect("the gateway does not panic")
    }

    /// Waits until it ends by itself, and says how.
    pub(crate) async fn end(self) -> anyhow::Result<()> {
        self.run.await.expect("the gateway does not panic")
    }

    /// Ends it as a crash does: nothing is finished.
    pub(crate) async fn crash(self) {
        self.run.abort();
        let _ = self.run.await;
    }
}

pub(crate) fn key(text: &str) -> Key {
    Key::new(text).expect("a key")
}

fn text(path: &Path) -> &str {
    path.to_str().expect("temporary folders have plain names")
}

/// The files on the shelves of a folder.
pub(crate) fn files_in(folder: &Path) -> Vec<PathBuf> {
    let list = |folder: &Path| -> Vec<PathBuf> {
        let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
        entries.filter_map(Result::ok).map(|entry| entry.path()).collect()
    };
    let is_shelf = |path: &PathBuf| path.file_name().is_some_and(|name| name.len() == 2);
    list(folder).into_iter().filter(is_shelf).flat_map(|shelf| list(&shelf)).collect()
}
