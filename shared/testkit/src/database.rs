//! MariaDB: one server a test process, and a database with accounts of its own for each test.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use parking_lot::Mutex;
use sqlx::mysql::{MySqlPool, MySqlPoolOptions};
use sqlx::{AssertSqlSafe, Connection, MySqlConnection};
use tokio::sync::OnceCell;

use crate::basics::{LOOK_EVERY, PATIENCE, repository_root, unique};
use crate::guardian::{Guardian, Order};
use crate::port::free_port;
use crate::tools;

/// The server of this test process. It is never dropped; its guardian ends it with the process.
static SHARED: OnceCell<MariaDb> = OnceCell::const_new();

/// The default SQL mode of MySQL 8 and 9, which refuses more than MariaDB's default. With it, tests against MariaDB
/// find statements that MySQL would refuse.
const SQL_MODE: &str = "ONLY_FULL_GROUP_BY,STRICT_TRANS_TABLES,NO_ZERO_IN_DATE,NO_ZERO_DATE,\
    ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION";

/// The rights that the recorder gives on the tables, once it has made them.
const GRANTS: [(Account, &str); 7] = [
    (Account::Gateway, "images"),
    (Account::Gateway, "origin_identity"),
    (Account::Gateway, "pending_invalidations"),
    (Account::Gateway, "deleted_dates"),
    (Account::Recorder, "cache_properties"),
    (Account::Recorder, "cache_stats"),
    (Account::Recorder, "cache_stats_rollup"),
];

/// A fresh database with the accounts that a deployment has.
#[derive(Debug, Clone)]
pub struct Database {
    name: String,
    port: u16,
    password: String,
    admin_password: String,
}

/// An account that connects to a [`Database`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Account {
    /// The gateway's account: it has rights on its own tables, as far as they have been granted.
    Gateway,
    /// The recorder's account, likewise.
    Recorder,
    /// The account that migrates: it has all rights on the database, with the right to grant them, and none on anything
    /// else.
    Migration,
    /// The account that may do everything on the server, so that a test can inspect it and prepare its state.
    Admin,
}

impl Database {
    /// A database without tables, on the server that all tests of this process share: for tests of the recorder, which
    /// migrates.
    ///
    /// # Panics
    /// When MariaDB is not installed or does not start.
    pub async fn empty() -> Self {
        MariaDb::shared().await.database().await
    }

    /// A database with every table and with the rights that the recorder gives, on the shared server: for tests that
    /// need the tables but not the recorder.
    ///
    /// # Panics
    /// When MariaDB is not installed or does not start, or a migration fails.
    pub async fn migrated() -> Self {
        let database = Self::empty().await;
        database.migrate().await;
        database
    }

    /// Applies `migrations/` and grants the rights on the tables.
    ///
    /// # Panics
    /// When a statement fails.
    pub async fn migrate(&self) {
        let migrator = sqlx::migrate::Migrator::new(repository_root().join("migrations"))
            .await
            .expect("migrations/ can be read");
        let mut admin = self.connect(Account::Admin).await;
        migrator.run(&mut admin).await.expect("the migrations can be applied");
        let database = &self.name;
        for (account, table) in GRANTS {
            let user = self.user(account);
            let sql =
                format!("GRANT SELECT, INSERT, UPDATE, DELETE ON `{database}`.`{table}` TO '{user}'@'%'");
            sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut admin).await.expect("rights can be granted");
        }
    }

    /// The same database behind another port of this machine, such as a [`Link`](crate::Link)'s.
    pub fn behind(&self, port: u16) -> Self {
        Self { port, ..self.clone() }
    }

    /// The port of its server.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// An account's name, as `GATEWAY_DATABASE_USER` has it.
    pub fn user(&self, account: Account) -> String {
        match account {
            Account::Gateway => format!("{}_gateway", self.name),
            Account::Recorder => format!("{}_recorder", self.name),
            Account::Migration => format!("{}_migration", self.name),
            Account::Admin => ADMIN.to_owned(),
        }
    }

    /// The URL for an account, as `GATEWAY_DATABASE_URL` and its like have it.
    pub fn url(&self, account: Account) -> String {
        let password = if account == Account::Admin { &self.admin_password } else { &self.password };
        format!("mysql://{}:{password}@127.0.0.1:{}/{}", self.user(account), self.port, self.name)
    }

    /// A connection.
    ///
    /// # Panics
    /// When the server refuses it.
    pub async fn connect(&self, account: Account) -> MySqlConnection {
        MySqlConnection::connect(&self.url(account)).await.expect("the account may connect")
    }

    /// A small pool of connections that are made when they are needed.
    ///
    /// # Panics
    /// When the URL is malformed.
    pub fn pool(&self, account: Account) -> MySqlPool {
        MySqlPoolOptions::new()
            .max_connections(4)
            .connect_lazy(&self.url(account))
            .expect("the URL is well formed")
    }
}

/// The account that may do everything.
const ADMIN: &str = "testkit_admin";

/// A MariaDB server. Most tests share one through [`Database`]; a test that stops or pauses its
/// server starts one of its own.
///
/// It is killed, and its folder removed, when this is dropped.
#[derive(Debug)]
pub struct MariaDb {
    guardian: Arc<Mutex<Guardian>>,
    port: u16,
    /// A random password: a server that accepts it is this one, and not another one on the same port.
    admin_password: String,
    databases: AtomicU32,
}

impl MariaDb {
    /// Starts a server on a free port, and returns when it takes connections.
    ///
    /// # Panics
    /// When MariaDB is not installed or does not start.
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// [`MariaDb::start`] with further options, which override its own.
    ///
    /// # Panics
    /// As [`MariaDb::start`].
    pub async fn start_with(options: &'static [&'static str]) -> Self {
        let server = tools::find("mariadbd", "mariadb-server-core");
        let installer = tools::find("mariadb-install-db", "mariadb-server-core");
        loop {
            let port = free_port();
            let admin_password = unique("p");
            let prepared = tokio::task::spawn_blocking({
                let (server, installer, admin_password) =
                    (server.clone(), installer.clone(), admin_password.clone());
                move || prepare(server, installer, port, &admin_password, options)
            });
            let guardian = Arc::new(Mutex::new(prepared.await.expect("the folder can be prepared")));
            let server = Self { guardian, port, admin_password, databases: AtomicU32::new(0) };
            server.order(Order::Start).await;
            if server.is_ready_unless_its_port_is_taken().await {
                return server;
            }
        }
    }

    /// The server of this test process, started when it is first asked for.
    async fn shared() -> &'static Self {
        SHARED.get_or_init(Self::start).await
    }

    /// Its port on loopback; it stays the same over a restart.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its process, as long as it runs.
    pub fn pid(&self) -> Option<u32> {
        self.lock().pid()
    }

    /// A fresh database without tables, with its accounts.
    ///
    /// # Panics
    /// When the server is stopped.
    pub async fn database(&self) -> Database {
        let number = self.databases.fetch_add(1, Ordering::Relaxed);
        let database = Database {
            // In a GRANT, `_` in a database's name stands for any character, so the name has none.
            name: format!("pixcache{number}"),
            port: self.port,
            password: unique("p"),
            admin_password: self.admin_password.clone(),
        };
        let name = &database.name;
        let mut sql = format!("CREATE DATABASE `{name}` CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;");
        for account in [Account::Gateway, Account::Recorder, Account::Migration] {
            let user = database.user(account);
            sql += &format!("CREATE USER '{user}'@'%' IDENTIFIED BY '{}';", database.password);
        }
        let migration = database.user(Account::Migration);
        sql += &format!("GRANT ALL ON `{name}`.* TO '{migration}'@'%' WITH GRANT OPTION;");
        let mut admin = self.admin().await.expect("the server takes connections");
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut admin).await.expect("a database can be created");
        database
    }

    /// Stops it cleanly.
    pub async fn stop(&self) {
        self.order(Order::Terminate).await;
    }

    /// Kills it as a crash would (SIGKILL). Committed transactions stay.
    pub async fn kill(&self) {
        self.order(Order::Kill).await;
    }

    /// Starts it again after [`MariaDb::stop`] or [`MariaDb::kill`]: same port, same data.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn start_again(&self) {
        let start = Instant::now();
        loop {
            // An attempt before this one may have left the message that means a taken port.
            self.lock().clear_log();
            self.order(Order::Start).await;
            if self.is_ready_unless_its_port_is_taken().await {
                return;
            }
            self.order(Order::Kill).await;
            assert!(start.elapsed() < PATIENCE, "port {} was taken while its server was down", self.port);
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// [`MariaDb::stop`] and [`MariaDb::start_again`].
    pub async fn restart(&self) {
        self.stop().await;
        self.start_again().await;
    }

    /// Makes it stand still with its connections open (SIGSTOP).
    pub async fn pause(&self) {
        self.order(Order::Pause).await;
    }

    /// Lets it go on after [`MariaDb::pause`].
    pub async fn resume(&self) {
        self.order(Order::Resume).await;
    }

    async fn admin(&self) -> sqlx::Result<MySqlConnection> {
        let url = format!("mysql://{ADMIN}:{}@127.0.0.1:{}", self.admin_password, self.port);
        MySqlConnection::connect(&url).await
    }

    async fn is_ready_unless_its_port_is_taken(&self) -> bool {
        let start = Instant::now();
        loop {
            let error = match self.admin().await {
                Ok(_) => return true,
                Err(error) => error,
            };
            let log = self.lock().log();
            if log.contains("Address already in use") {
                return false;
            }
            assert!(
                start.elapsed() < PATIENCE,
                "MariaDB did not start; connecting says: {error}; its log says:\n{log}"
            );
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    async fn order(&self, order: Order) {
        let guardian = Arc::clone(&self.guardian);
        tokio::task::spawn_blocking(move || {
            guardian.lock().order(order);
        })
        .await
        .expect("the guardian carries it out");
    }

    fn lock(&self) -> parking_lot::MutexGuard<'_, Guardian> {
        self.guardian.lock()
    }
}

/// A guarded folder with a data directory in it, for a server that has yet to be started.
fn prepare(
    server: PathBuf,
    installer: PathBuf,
    port: u16,
    admin_password: &str,
    options: &[&str],
) -> Guardian {
    let guardian = Guardian::new(|folder| {
        let mut command = Command::new(server);
        // This option must come first. Without it, option files would bring in the machine's settings.
        command.arg("--no-defaults").args(owner(folder));
        command.arg(option("datadir", folder.join("data")));
        command.arg(option("socket", folder.join("socket")));
        command.arg(option("init-file", folder.join("init.sql")));
        command.arg(option("tmpdir", folder.join("tmp")));
        command.args([format!("--port={port}"), format!("--sql-mode={SQL_MODE}")]);
        command.args([
            "--bind-address=127.0.0.1",
            "--skip-name-resolve",
            // An odd time zone exposes code that depends on the server's zone instead of UTC.
            "--default-time-zone=+05:45",
            "--character-set-server=utf8mb4",
            "--collation-server=utf8mb4_general_ci",
            "--max-connections=500",
            "--skip-log-bin",
            // Commits survive a killed server; only a crash of the machine could lose some.
            "--innodb-flush-log-at-trx-commit=2",
            "--innodb-doublewrite=0",
            "--innodb-log-file-size=16M",
            "--innodb-buffer-pool-size=64M",
            "--performance-schema=OFF",
        ]);
        command.args(options);
        command
    });
    let folder = guardian.folder();
    // A server that starts removes the temporary tables that it finds in its folder for them. In a shared folder it
    // would remove those of other servers.
    std::fs::create_dir(folder.join("tmp")).expect("the temporary folder can be written to");
    std::fs::write(
        folder.join("init.sql"),
        format!(
            "CREATE USER IF NOT EXISTS '{ADMIN}'@'%' IDENTIFIED BY '{admin_password}';\n\
             GRANT ALL ON *.* TO '{ADMIN}'@'%' WITH GRANT OPTION;\n"
        ),
    )
    .expect("the temporary folder can be written to");
    let installed = Command::new(installer)
        .arg("--no-defaults")
        .args(owner(folder))
        .arg(option("datadir", folder.join("data")))
        .arg(option("tmpdir", folder.join("tmp")))
        .args(["--skip-test-db", "--skip-name-resolve", "--innodb-log-file-size=16M"])
        .output()
        .expect("mariadb-install-db runs");
    assert!(
        installed.status.success(),
        "mariadb-install-db failed: {}{}",
        String::from_utf8_lossy(&installed.stdout),
        String::from_utf8_lossy(&installed.stderr)
    );
    guardian
}

/// The option without which MariaDB refuses to run as root; nothing for any other user.
fn owner(folder: &Path) -> Option<&'static str> {
    let metadata = folder.metadata().expect("the temporary folder is there");
    (metadata.uid() == 0).then_some("--user=root")
}

fn option(name: &str, path: PathBuf) -> std::ffi::OsString {
    let mut option = std::ffi::OsString::from(format!("--{name}="));
    option.push(path);
    option
}
