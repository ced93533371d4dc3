//! Servers that are no part of pixcache, as processes.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use testkit::{Guardian, Order};
use tokio::net::TcpStream;

/// How long a server may take to listen.
const START_LIMIT: Duration = Duration::from_secs(30);
/// How often that is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// Folders of servers that are not on an ordinary user's PATH.
const SERVER_FOLDERS: [&str; 2] = ["/usr/sbin", "/usr/local/sbin"];

/// The file of a program on the PATH.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(SERVER_FOLDERS.map(PathBuf::from));
    folders.map(|folder| folder.join(program)).find(|file| file.is_file())
}

/// A server that runs. It ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) port: u16,
    /// How it was started, and with what settings.
    pub(crate) settings: String,
    guardian: Guardian,
}

impl Server {
    /// Starts what `command` makes for a folder and a port, and returns when it listens, if it ever does.
    pub(crate) async fn start(
        name: &str,
        port: u16,
        settings: impl Into<String>,
        command: impl FnOnce(&Path) -> anyhow::Result<Command>,
    ) -> anyhow::Result<Self> {
        let mut made = Ok(());
        let mut guardian = Guardian::new(|folder| {
            command(folder).unwrap_or_else(|error| {
                made = Err(error);
                Command::new("false")
            })
        });
        made?;
        let guardian = tokio::task::spawn_blocking(move || {
            guardian.order(Order::Start);
            guardian
        });
        let server = Self { port, settings: settings.into(), guardian: guardian.await? };
        let begun = Instant::now();
        while port > 0 && TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            let runs = server.guardian.pid().is_some_and(crate::process::is_running);
            let log = || server.guardian.log();
            anyhow::ensure!(runs, "{name} ended; its log says:\n{}", log());
            anyhow::ensure!(
                begun.elapsed() < START_LIMIT,
                "{name} does not listen; its log says:\n{}",
                log()
            );
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(server)
    }
}
