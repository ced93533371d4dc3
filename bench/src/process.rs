//! One service as a process: started, killed, stopped and resumed through a guardian, which ends it when
//! this process is gone, however that ended.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use parking_lot::{Mutex, MutexGuard};
use rustix::process::{Pid, Resource, Rlimit};
use testkit::{Guardian, Order};

/// The script that runs in the guardian: `$0` is the folder, `$1` the command that takes away privileges, the others
/// are settings and the program.
///
/// - A write beyond the largest file allowed is to fail as on a full disk, not to end the process (XFSZ).
/// - The log goes through a pipe, so that it can be written while no file can.
/// - The file `preload` may hold settings that come and go between two starts.
const WRAPPER: &str = r#"privileges=$1; shift; trap '' XFSZ
exec $privileges env -i PATH="$PATH" $(cat "$0/preload") "$@" > >(exec cat >>"$0/log") 2>&1"#;

/// How long a service may take to stop; after this time it is taken for one that never does.
const PATIENCE: Duration = Duration::from_secs(30);

/// A service.
#[derive(Debug, Clone)]
pub(crate) struct Process {
    name: &'static str,
    guardian: Arc<Mutex<Guardian>>,
    /// Whether it is meant to run.
    wanted: Arc<Mutex<bool>>,
}

impl Process {
    /// A process of `program`, with nothing but these settings in its environment; not started yet.
    pub(crate) fn new(
        name: &'static str,
        program: &Path,
        settings: Vec<(&str, String)>,
    ) -> anyhow::Result<Self> {
        let guardian = Guardian::new(|folder| {
            let mut command = Command::new("/bin/bash");
            command.arg("-c").arg(WRAPPER).arg(folder).arg(without_privileges());
            command.args(settings.into_iter().map(|(name, value)| format!("{name}={value}")));
            command.arg(program);
            command
        });
        std::fs::write(guardian.folder().join("preload"), "")?;
        Ok(Self { name, guardian: Arc::new(Mutex::new(guardian)), wanted: Arc::new(Mutex::new(false)) })
    }

    /// Its name in the report.
    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    /// Starts it.
    pub(crate) async fn start(&self) -> anyhow::Result<()> {
        self.order(Order::Start).await?;
        *self.wanted() = true;
        Ok(())
    }

    /// Asks it to leave, and returns when it has.
    pub(crate) async fn terminate(&self) -> anyhow::Result<()> {
        *self.wanted() = false;
        self.order(Order::Terminate).await
    }

    /// Kills it (SIGKILL).
    pub(crate) async fn kill(&self) -> anyhow::Result<()> {
        *self.wanted() = false;
        self.order(Order::Kill).await
    }

    /// Pauses it (SIGSTOP).
    pub(crate) async fn pause(&self) -> anyhow::Result<()> {
        self.order(Order::Pause).await
    }

    /// Lets it go on (SIGCONT).
    pub(crate) async fn resume(&self) -> anyhow::Result<()> {
        self.order(Order::Resume).await
    }

    /// Its process, while it is meant to run.
    pub(crate) fn pid(&self) -> Option<u32> {
        if *self.wanted() { self.locked().pid() } else { None }
    }

    /// Whether it has ended without having been asked to.
    pub(crate) fn has_ended_by_itself(&self) -> bool {
        self.pid().is_some_and(|pid| !is_running(pid))
    }

    /// The end of its log.
    pub(crate) fn log_end(&self) -> String {
        end_of(&self.locked().log())
    }

    /// How many lines of its log contain `text`.
    pub(crate) fn log_count(&self, text: &str) -> usize {
        self.locked().log().lines().filter(|line| line.contains(text)).count()
    }

    /// Settings that it gets, besides its own, from the next start on.
    pub(crate) fn preload(&self, settings: &str) -> std::io::Result<()> {
        std::fs::write(self.folder().join("preload"), settings)
    }

    /// A folder of its own, which is removed with this process.
    pub(crate) fn folder(&self) -> PathBuf {
        self.locked().folder().to_owned()
    }

    /// Limits the size of the files that it may write to `bytes`; `None` takes the limit away.
    pub(crate) fn limit_files(&self, bytes: Option<u64>) -> anyhow::Result<()> {
        // Without a process nothing writes.
        let Some(pid) = self.pid().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?)) else {
            return Ok(());
        };
        let limit = Rlimit { current: bytes, maximum: None };
        rustix::process::prlimit(Some(pid), Resource::Fsize, limit).context("prlimit")?;
        Ok(())
    }

    async fn order(&self, order: Order) -> anyhow::Result<()> {
        let guardian = Arc::clone(&self.guardian);
        let carried_out = tokio::task::spawn_blocking(move || {
            guardian.lock().order(order);
        });
        let name = self.name;
        tokio::time::timeout(PATIENCE, carried_out)
            .await
            .with_context(|| format!("{name} does not stop within {PATIENCE:?}"))?
            .with_context(|| format!("the guardian of {name} is gone"))
    }

    fn locked(&self) -> MutexGuard<'_, Guardian> {
        self.guardian.lock()
    }

    fn wanted(&self) -> MutexGuard<'_, bool> {
        self.wanted.lock()
    }
}

/// The command that makes root an ordinary user as far as the rights of files go, so that a folder which is
/// read-only is so for every process. It is empty for an ordinary user.
fn without_privileges() -> &'static str {
    if rustix::process::geteuid().is_root() { "setpriv --bounding-set=-all --inh-caps=-all --" } else { "" }
}

/// The last lines of a log, or those from a Go panic on, whose cause stands before the stack.
pub(crate) fn end_of(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    let from = lines.iter().position(|line| line.starts_with("panic: "));
    lines[from.unwrap_or(lines.len().saturating_sub(15))..]
        .iter()
        .take(40)
        .copied()
        .collect::<Vec<_>>()
        .join("\n")
}

/// Whether a process exists and is not a zombie.
pub(crate) fn is_running(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    !matches!(state, None | Some('Z' | 'X'))
}

/// The memory that a process has resident, in bytes.
pub(crate) fn resident_bytes(pid: u32) -> Option<u64> {
    status_bytes(pid, "VmRSS:")
}

/// The most memory that a process has had resident, in bytes.
pub(crate) fn peak_bytes(pid: u32) -> Option<u64> {
    status_bytes(pid, "VmHWM:")
}

fn status_bytes(pid: u32, field: &str) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kilobytes| kilobytes << 10)
}
