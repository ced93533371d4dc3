//! A nats-server of a test's own, with the shipped configuration.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

use crate::basics::{LOOK_EVERY, PATIENCE, repository_root, unique};
use crate::guardian::{Guardian, Order};
use crate::link::{Link, Way};
use crate::port::free_port;
use crate::tools;

/// The roles of `nats.conf`. A service's second user, `<role>_own`, has the password of its role.
const ROLES: [&str; 5] = ["gateway", "memcache", "recorder", "setup", "operator"];

/// A user that only tests have. It may do everything in the account of JetStream, which no other user may enter.
const ADMINISTRATOR: &str = "administrator";
/// The accounts of `nats.conf`.
pub const ACCOUNTS: [&str; 7] = ["CACHE", "STORE", "GATEWAY", "MEMCACHE", "RECORDER", "SETUP", "OPERATOR"];

/// A user that only tests have, one in each account. It receives every message there.
pub fn witness_of(account: &str) -> String {
    format!("witness_{}", account.to_lowercase())
}

/// The account of a user of `nats.conf`.
pub fn account_of(user: &str) -> String {
    match user.strip_suffix("_own") {
        Some(role) => role.to_uppercase(),
        None if ["setup", "operator"].contains(&user) => user.to_uppercase(),
        None => "CACHE".to_owned(),
    }
}

/// A real nats-server with the repository's `nats.conf`, JetStream on, in a temporary folder. It has one more user,
/// `administrator`, that can read and break the data of JetStream.
///
/// It is killed, and its folder removed, when this is dropped.
#[derive(Debug)]
pub struct NatsServer {
    guardian: Arc<Mutex<Guardian>>,
    port: u16,
    /// The name that distinguishes it from a server that happened to take the same port.
    name: String,
    secrets: Secrets,
}

/// The passwords of all users.
#[derive(Debug, Clone)]
struct Secrets {
    passwords: [String; ROLES.len()],
    administrator: String,
}

impl Secrets {
    fn new() -> Self {
        Self { passwords: ROLES.map(|_| unique("p")), administrator: unique("p") }
    }
}

/// The route between two servers.
#[derive(Debug)]
pub struct Route {
    links: [Link; 2],
}

impl Route {
    /// Lets nothing through, in either direction, and ends the open connections.
    pub fn cut(&self) {
        for link in &self.links {
            for way in Way::BOTH {
                link.hold(way, true);
            }
            link.cut();
        }
    }

    /// Lets everything through again.
    pub fn heal(&self) {
        for link in &self.links {
            // Connections that were attempted meanwhile would stay open and wait, so they are ended.
            link.cut();
            link.clear();
        }
    }
}

impl NatsServer {
    /// Starts a server on a free port, and returns when it takes connections.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn start() -> Self {
        Self::start_without(&[]).await
    }

    /// As [`NatsServer::start`], but without `rights`, given as `nats.conf` writes them: a server that was set up
    /// wrongly.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn start_without(rights: &[&str]) -> Self {
        let secrets = Secrets::new();
        loop {
            let conf = without(rights, &with_administrator(&secrets.administrator));
            if let Some(server) = Self::try_start(&conf, &secrets).await {
                return server;
            }
        }
    }

    /// Starts a cluster of two servers, with JetStream on both, and the route between them. Either may hold a stream.
    ///
    /// # Panics
    /// When they do not start.
    pub async fn start_pair() -> ([Self; 2], Route) {
        let secrets = Secrets::new();
        'ports: loop {
            let ports = [free_port(), free_port()];
            let mut links = Vec::new();
            for port in ports {
                links.push(Link::to(port).await.expect("a port of this process can be had"));
            }
            let mut servers = Vec::new();
            for (port, other) in ports.iter().zip(links.iter().rev()) {
                let mut conf = with_administrator(&secrets.administrator);
                conf.push_str(&format!(
                    "\ncluster {{ name: test, listen: \"127.0.0.1:{port}\", no_advertise: true, routes: [\"nats-route://127.0.0.1:{}\"] }}\n",
                    other.port()
                ));
                match Self::try_start(&conf, &secrets).await {
                    Some(server) => servers.push(server),
                    None => continue 'ports,
                }
            }
            if let (Ok(servers), Ok(links)) = (servers.try_into(), links.try_into()) {
                return (servers, Route { links });
            }
        }
    }

    /// `None` when another program has taken its port meanwhile.
    async fn try_start(conf: &str, secrets: &Secrets) -> Option<Self> {
        let program = tools::find("nats-server", "nats-server");
        let port = free_port();
        let name = unique("test");
        let guardian = Guardian::new(|folder| {
            let file = folder.join("nats.conf");
            std::fs::write(&file, conf).expect("a temporary folder can be written");
            let mut command = Command::new(&program);
            command.arg("--config").arg(file);
            command.arg("--name").arg(&name);
            command.env("NATS_HOST", "127.0.0.1").env("NATS_PORT", port.to_string());
            command.env("NATS_STORE_DIR", folder.join("store"));
            for (role, password) in ROLES.iter().zip(&secrets.passwords) {
                command.env(format!("NATS_{}_PASSWORD", role.to_uppercase()), password);
            }
            command
        });
        let server = Self { guardian: Arc::new(Mutex::new(guardian)), port, name, secrets: secrets.clone() };
        server.order(Order::Start).await;
        server.is_ready_unless_its_port_is_taken().await.then_some(server)
    }

    /// `nats://127.0.0.1:<port>`. The server knows no anonymous user.
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// The port on loopback; it stays the same over a restart.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its process, as long as it runs.
    pub fn pid(&self) -> Option<u32> {
        self.lock().pid()
    }

    /// The password of one of the users of `nats.conf`.
    ///
    /// # Panics
    /// For any other name.
    pub fn password(&self, user: &str) -> &str {
        if user == ADMINISTRATOR || user.starts_with("witness_") {
            return &self.secrets.administrator;
        }
        let role = user.strip_suffix("_own").unwrap_or(user);
        let at = ROLES.iter().position(|name| *name == role).expect("a user of nats.conf");
        &self.secrets.passwords[at]
    }

    /// A connection as one of the users, with that user's inbox prefix.
    ///
    /// # Panics
    /// When the server refuses it.
    pub async fn connect(&self, user: &str) -> async_nats::Client {
        async_nats::ConnectOptions::with_user_and_password(user.to_owned(), self.password(user).to_owned())
            .custom_inbox_prefix(format!("_INBOX_{user}"))
            .name(format!("test as {user}"))
            .connect(self.url())
            .await
            .expect("the server takes connections of its own users")
    }

    /// JetStream as one of the users sees it, on a connection of its own.
    ///
    /// # Panics
    /// When the server refuses it.
    pub async fn jetstream(&self, user: &str) -> async_nats::jetstream::Context {
        let client = self.connect(user).await;
        if user == ADMINISTRATOR {
            return async_nats::jetstream::new(client);
        }
        async_nats::jetstream::with_domain(client, "STORE")
    }

    /// Publishes a message with exactly these lines as its header block, because a client library would not send all of
    /// them. Returns when the server has passed it on.
    ///
    /// # Panics
    /// When the server does not take it.
    pub async fn publish_with_raw_headers(&self, user: &str, subject: &str, lines: &str) {
        let block = format!("NATS/1.0\r\n{lines}\r\n\r\n");
        let (password, size) = (self.password(user), block.len());
        let connect = format!(r#"{{"user":"{user}","pass":"{password}","headers":true,"verbose":false}}"#);
        let message = format!("CONNECT {connect}\r\nHPUB {subject} {size} {size}\r\n{block}\r\nPING\r\n");
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).await.expect("the server listens");
        stream.write_all(message.as_bytes()).await.expect("the server reads");
        let mut answers = BufReader::new(stream).lines();
        let mut last = String::new();
        while let Ok(Some(line)) = answers.next_line().await {
            if line == "PONG" {
                return;
            }
            last = line;
        }
        panic!("the server did not take the message: {last}");
    }

    /// Stops it cleanly. Data that JetStream has stored stay.
    pub async fn stop(&self) {
        self.order(Order::Interrupt).await;
    }

    /// Kills it as a crash would (SIGKILL). Data that JetStream has acknowledged stay.
    pub async fn kill(&self) {
        self.order(Order::Kill).await;
    }

    /// Starts it again after [`NatsServer::stop`] or [`NatsServer::kill`]: same port, same store.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn start_again(&self) {
        let start = Instant::now();
        loop {
            // An attempt before this one may have left the message that means a taken port.
            self.clear_log();
            self.order(Order::Start).await;
            if self.is_ready_unless_its_port_is_taken().await {
                return;
            }
            self.order(Order::Kill).await;
            assert!(start.elapsed() < PATIENCE, "port {} was taken while its server was down", self.port);
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// [`NatsServer::stop`] and [`NatsServer::start_again`].
    pub async fn restart(&self) {
        self.stop().await;
        self.start_again().await;
    }

    /// Starts it again without anything that JetStream had stored: streams, buckets, consumers.
    ///
    /// # Panics
    /// When the store can't be removed, or the server does not start.
    pub async fn restart_without_its_store(&self) {
        self.stop().await;
        let store = self.lock().folder().join("store");
        std::fs::remove_dir_all(store).expect("the store of a stopped server can be removed");
        self.start_again().await;
    }

    /// Copies the files that one stream has on disk now. The server is stopped for that, and started again.
    ///
    /// # Panics
    /// When there is no such stream.
    pub async fn keep_stream(&self, stream: &str) -> KeptStream {
        self.stop().await;
        let place = folder_of(&self.lock().folder().join("store"), stream).expect("the stream is on disk");
        let copy = tempfile::tempdir().expect("a temporary folder can be made");
        copy_folder(&place, copy.path()).expect("it can be copied");
        self.start_again().await;
        KeptStream { place, copy }
    }

    /// Undoes all that the stream has stored since `kept`, although it had acknowledged it. A power failure does the
    /// same before everything is on disk. Connections are lost with it.
    ///
    /// # Panics
    /// When the files can't be put back, or it does not start.
    pub async fn take_back(&self, kept: &KeptStream) {
        self.kill().await;
        std::fs::remove_dir_all(&kept.place).expect("the stream of a killed server can be removed");
        copy_folder(kept.copy.path(), &kept.place).expect("it can be put back");
        self.start_again().await;
    }

    /// Makes it stand still with its connections open, as a machine that swaps or a network that
    /// drops packets does (SIGSTOP).
    pub async fn pause(&self) {
        self.order(Order::Pause).await;
    }

    /// Lets it go on after [`NatsServer::pause`].
    pub async fn resume(&self) {
        self.order(Order::Resume).await;
    }

    /// Its log since it was last started.
    pub fn log(&self) -> String {
        self.lock().log()
    }

    async fn is_ready_unless_its_port_is_taken(&self) -> bool {
        let start = Instant::now();
        loop {
            if greets(self.port, &self.name).await {
                return true;
            }
            let log = self.log();
            if log.contains("address already in use") {
                return false;
            }
            assert!(start.elapsed() < PATIENCE, "nats-server did not start; its log says:\n{log}");
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

    fn clear_log(&self) {
        self.lock().clear_log();
    }

    fn lock(&self) -> parking_lot::MutexGuard<'_, Guardian> {
        self.guardian.lock()
    }
}

/// A configuration without these rights. Exports and imports stay as they are.
fn without(rights: &[&str], conf: &str) -> String {
    let line = |line: &str| {
        if line.trim_start().starts_with('{') {
            return line.to_owned();
        }
        rights.iter().fold(line.to_owned(), |line, right| line.replace(&format!("\"{right}\""), "\"none\""))
    };
    conf.lines().map(line).collect::<Vec<_>>().join("\n")
}

/// The shipped configuration, with an administrator of JetStream's account and a witness in each.
fn with_administrator(password: &str) -> String {
    let shipped = repository_root().join("nats.conf");
    let conf = std::fs::read_to_string(&shipped).expect("nats.conf can be read");
    let mut conf = conf.replacen("  STORE: {\n", "  STORE: {\n    users: [\n    ]\n", 1);
    for account in ACCOUNTS {
        let user = |name: &str| format!("\n      {{ user: {name}, password: {password} }}");
        let mut users = user(&witness_of(account));
        if account == "STORE" {
            users.push_str(&user(ADMINISTRATOR));
        }
        let (before, rest) =
            conf.split_once(&format!("  {account}: {{\n")).expect("nats.conf has this account");
        let rest = rest.replacen("    users: [", &format!("    users: [{users}"), 1);
        conf = format!("{before}  {account}: {{\n{rest}");
    }
    conf
}

/// The files that a stream had on disk at some time.
#[derive(Debug)]
pub struct KeptStream {
    place: PathBuf,
    copy: TempDir,
}

/// The folder of this name within another one, at any depth.
fn folder_of(within: &Path, name: &str) -> Option<PathBuf> {
    let entries = std::fs::read_dir(within).ok()?;
    let mut folders = entries.filter_map(Result::ok).map(|entry| entry.path()).filter(|path| path.is_dir());
    folders.find_map(|path| if path.ends_with(name) { Some(path) } else { folder_of(&path, name) })
}

fn copy_folder(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_folder(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

/// Whether the server called `name` greets a client that connects to `port`.
async fn greets(port: u16, name: &str) -> bool {
    let Ok(stream) = TcpStream::connect(("127.0.0.1", port)).await else { return false };
    let mut greeting = String::new();
    let mut reader = BufReader::new(stream);
    match tokio::time::timeout(PATIENCE, reader.read_line(&mut greeting)).await {
        Ok(Ok(_)) => greeting.contains(&format!("\"server_name\":\"{name}\"")),
        Ok(Err(_)) | Err(_) => false,
    }
}
