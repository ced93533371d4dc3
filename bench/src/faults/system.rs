//! The system that is broken: two gateways, two workers, a recorder, one or two nats-servers and a MariaDB, with a
//! link of our own wherever one of them talks to a server.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Context as _;
use sqlx::MySqlPool;
use testkit::database::Account;
use testkit::{Database, Guardian, Link, MariaDb, NatsServer, Route, free_port, repository_root};

use crate::process::{Process, end_of, is_running, resident_bytes};

/// A commit of a killed server is there afterwards, and no page is half of two.
const DURABLE: &[&str] = &["--innodb-doublewrite=1", "--innodb-flush-log-at-trx-commit=1"];

/// How long a window is: the shortest there is.
pub(crate) const WINDOW: Duration = Duration::from_millis(100);

/// How long a gateway waits for the cache. The 50 ms of the shipped setting are too short for a machine on
/// which everything, this program included, shares two cores.
const CACHE_BUDGET_MS: &str = "250";

/// The capacity at the first start, in megabytes.
pub(crate) const FIRST_CAPACITY_MB: u64 = 64;

/// All of it.
#[derive(Debug)]
pub(crate) struct System {
    /// The nats-server of the first gateway and the first worker, and of everybody if there is one only.
    pub(crate) nats: NatsServer,
    /// The second one, and the route to it.
    pub(crate) second: Option<(NatsServer, Route)>,
    pub(crate) mariadb: MariaDb,
    pub(crate) gateways: [Process; 2],
    pub(crate) gateway_ports: [u16; 2],
    pub(crate) workers: [Process; 2],
    pub(crate) recorder: Process,
    pub(crate) links: Vec<Joint>,
    /// The tables, straight and as an account that may do everything.
    pub(crate) tables: MySqlPool,
    /// The gateways' account in the database.
    pub(crate) gateway_account: String,
    /// Its folder holds the image files.
    shared: Guardian,
    /// Has the folder in memory that gateways and workers share.
    memory: Guardian,
}

/// A link, and what it joins.
#[derive(Debug)]
pub(crate) struct Joint {
    /// The service.
    pub(crate) of: &'static str,
    /// The server.
    pub(crate) to: Server,
    pub(crate) link: Link,
}

/// A server that the services share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Server {
    Nats,
    MariaDb,
}

const GATEWAYS: [&str; 2] = ["gateway 1", "gateway 2"];
const WORKERS: [&str; 2] = ["memcache 1", "memcache 2"];
const RECORDER: &str = "recorder";

impl System {
    /// Starts everything, with the services' binaries from `binaries`.
    pub(crate) async fn start(binaries: &Path, is_cluster: bool) -> anyhow::Result<Self> {
        let servers = async {
            if !is_cluster {
                return (NatsServer::start().await, None);
            }
            let ([first, second], route) = NatsServer::start_pair().await;
            (first, Some((second, route)))
        };
        let ((nats, second), mariadb) = tokio::join!(servers, MariaDb::start_with(DURABLE));
        let database = mariadb.database().await;
        let mut links = Vec::new();
        for service in GATEWAYS.into_iter().chain(WORKERS).chain([RECORDER]) {
            let is_on_second = [GATEWAYS[1], WORKERS[1], RECORDER].contains(&service);
            let server = second.as_ref().filter(|_| is_on_second).map_or(&nats, |(second, _)| second);
            links.push(Joint { of: service, to: Server::Nats, link: Link::to(server.port()).await? });
        }
        for service in GATEWAYS.into_iter().chain([RECORDER]) {
            links.push(Joint { of: service, to: Server::MariaDb, link: Link::to(mariadb.port()).await? });
        }
        let shared = Guardian::new(|_| Command::new("true"));
        let in_memory = Some(Path::new("/dev/shm")).filter(|folder| folder.is_dir());
        let in_memory = in_memory.map_or_else(std::env::temp_dir, Path::to_owned);
        let memory = Guardian::within(&in_memory, |_| Command::new("true"));
        let make = Maker {
            binaries,
            nats: &nats,
            database: &database,
            mariadb_port: mariadb.port(),
            links: &links,
            shared_dir: memory.folder().join("shared"),
        };
        let gateway_ports = [free_port(), free_port()];
        let images = shared.folder().join("images");
        let gateways = [
            make.gateway(GATEWAYS[0], gateway_ports[0], &images)?,
            make.gateway(GATEWAYS[1], gateway_ports[1], &images)?,
        ];
        let workers = [make.worker(WORKERS[0], "memcache-1")?, make.worker(WORKERS[1], "memcache-2")?];
        let recorder = make.recorder()?;
        let tables = database.pool(Account::Admin);
        let gateway_account = database.user(Account::Gateway);
        let system = Self {
            gateways,
            gateway_ports,
            workers,
            recorder,
            links,
            tables,
            gateway_account,
            shared,
            memory,
            nats,
            second,
            mariadb,
        };
        for process in system.processes() {
            process.start().await?;
        }
        Ok(system)
    }

    /// Every service.
    pub(crate) fn processes(&self) -> impl Iterator<Item = &Process> {
        self.gateways.iter().chain(&self.workers).chain([&self.recorder])
    }

    /// The folder of the image files.
    pub(crate) fn images(&self) -> PathBuf {
        self.shared.folder().join("images")
    }

    /// The folder in memory with those of each gateway and worker.
    pub(crate) fn shared_dir(&self) -> PathBuf {
        self.memory.folder().join("shared")
    }

    /// The resident memory of each process now, in bytes; `None` for a process that is away. Shared files are no process's
    /// own, so they are counted by themselves.
    pub(crate) fn resident(&self) -> Vec<(&'static str, Option<u64>)> {
        let services = self.processes().map(|process| (process.name(), process.pid()));
        let servers = [("nats-server", self.nats.pid()), ("MariaDB", self.mariadb.pid())];
        let of_processes = services.chain(servers).map(|(name, pid)| (name, pid.and_then(resident_bytes)));
        of_processes.chain([("shared files", Some(bytes_in(&self.shared_dir())))]).collect()
    }

    /// The nats-servers, by name.
    fn nats_servers(&self) -> impl Iterator<Item = (&'static str, &NatsServer)> {
        let second = self.second.as_ref().map(|(server, _)| ("nats-server 2", server));
        [("nats-server", &self.nats)].into_iter().chain(second)
    }

    /// A sentence for each process that has ended although no fault ended it.
    pub(crate) fn ended_by_themselves(&self) -> Vec<String> {
        let services = self
            .processes()
            .filter(|process| process.has_ended_by_itself())
            .map(|process| (process.name(), process.log_end()));
        let servers = self
            .nats_servers()
            .filter(|(_, server)| !server.pid().is_some_and(is_running))
            .map(|(name, server)| (name, end_of(&server.log())));
        let ended = services.chain(servers);
        ended.map(|(name, log)| format!("{name} ended by itself; its log ends:\n{log}")).collect()
    }

    /// The end of every log, with the name of its process.
    pub(crate) fn logs(&self) -> String {
        let services = self.processes().map(|process| (process.name(), process.log_end()));
        let servers = self.nats_servers().map(|(name, server)| (name, end_of(&server.log())));
        services.chain(servers).map(|(name, log)| format!("\n--- {name}\n{log}")).collect()
    }

    /// A connection to the bus that no fault touches, but those of the server itself.
    pub(crate) async fn bus(&self, user: &str) -> async_nats::Client {
        self.nats.connect(user).await
    }
}

/// The binaries and settings that the processes are made with.
struct Maker<'a> {
    binaries: &'a Path,
    nats: &'a NatsServer,
    database: &'a Database,
    mariadb_port: u16,
    links: &'a [Joint],
    shared_dir: PathBuf,
}

impl Maker<'_> {
    fn port(&self, service: &str, server: Server) -> anyhow::Result<u16> {
        let joint = self.links.iter().find(|joint| joint.of == service && joint.to == server);
        Ok(joint.context("every service has its links")?.link.port())
    }

    /// The URL of an account, over the link of a service.
    fn url(&self, service: &str, account: Account) -> anyhow::Result<String> {
        let link = self.port(service, Server::MariaDb)?;
        let url = self.database.url(account);
        Ok(url.replace(&format!(":{}/", self.mariadb_port), &format!(":{link}/")))
    }

    fn bus(&self, service: &str) -> anyhow::Result<Vec<(&'static str, String)>> {
        Ok(vec![
            ("NATS_PORT", self.port(service, Server::Nats)?.to_string()),
            ("LOG_FORMAT", "auto".to_owned()),
            ("RUST_LOG", "info,async_nats=warn".to_owned()),
        ])
    }

    fn gateway(&self, name: &'static str, port: u16, images: &Path) -> anyhow::Result<Process> {
        let mut settings = self.bus(name)?;
        settings.extend([
            ("PORT", port.to_string()),
            ("NATS_GATEWAY_PASSWORD", self.nats.password("gateway").to_owned()),
            ("GATEWAY_DATABASE_URL", self.url(name, Account::Gateway)?),
            ("IMAGE_DIR", text(images)?),
            ("SHARED_DIR", text(&self.shared_dir)?),
            // Crashes leave many files that no row names, and the sweep at the end is to take them away.
            ("SWEEP_MAX_PERCENT", "100".to_owned()),
            ("TEMPLATE_DIR", text(&repository_root().join("templates"))?),
            ("CACHE_BUDGET_MS", CACHE_BUDGET_MS.to_owned()),
            // Uploads through the one fill the cache; the other does what ships.
            ("FILL_ON_UPLOAD", if name == GATEWAYS[0] { "all" } else { "off" }.to_owned()),
        ]);
        Process::new(name, &self.binaries.join("gateway"), settings)
    }

    fn worker(&self, name: &'static str, worker: &str) -> anyhow::Result<Process> {
        let mut settings = self.bus(name)?;
        settings.extend([
            ("NATS_MEMCACHE_PASSWORD", self.nats.password("memcache").to_owned()),
            ("WORKER_NAME", worker.to_owned()),
            ("SHARED_DIR", text(&self.shared_dir)?),
            ("CACHE_CAPACITY_MB", FIRST_CAPACITY_MB.to_string()),
            ("STATS_INTERVAL", format!("{}ms", WINDOW.as_millis())),
        ]);
        Process::new(name, &self.binaries.join("memcache"), settings)
    }

    fn recorder(&self) -> anyhow::Result<Process> {
        let mut settings = self.bus(RECORDER)?;
        settings.extend([
            ("NATS_RECORDER_PASSWORD", self.nats.password("recorder").to_owned()),
            ("NATS_SETUP_PASSWORD", self.nats.password("setup").to_owned()),
            ("RECORDER_DATABASE_URL", self.url(RECORDER, Account::Recorder)?),
            ("MIGRATION_DATABASE_URL", self.url(RECORDER, Account::Migration)?),
            ("GATEWAY_DATABASE_USER", self.database.user(Account::Gateway)),
        ]);
        Process::new(RECORDER, &self.binaries.join("recorder"), settings)
    }
}

/// The memory of the files in the folders of a folder, in bytes. Files come and go meanwhile.
fn bytes_in(folder: &Path) -> u64 {
    let entries = |folder: &Path| std::fs::read_dir(folder).into_iter().flatten().flatten();
    let files = entries(folder).flat_map(|folder| entries(&folder.path()));
    files.filter_map(|file| Some(512 * file.metadata().ok()?.blocks())).sum()
}

fn text(path: &Path) -> anyhow::Result<String> {
    Ok(path.to_str().context("temporary folders have plain names")?.to_owned())
}
