use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a server may go on after it was told to stand still.
const PAUSE_LIMIT: Duration = Duration::from_secs(10);

/// A server process in a temporary folder of its own, and the shell that guards both.
///
/// The shell runs `guardian.sh`, which says how it works.
#[derive(Debug)]
pub struct Guardian {
    folder: PathBuf,
    shell: Child,
    /// Closed to make the shell end the server, itself and the folder.
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

/// An order to the guardian of a server.
#[derive(Debug, Clone, Copy)]
pub enum Order {
    /// Start the server.
    Start,
    /// Stop it cleanly, and return when it is gone.
    Terminate,
    /// As [`Order::Terminate`], for servers whose clean signal this is.
    Interrupt,
    /// Kill it at once.
    Kill,
    /// Make it stand still with every connection open.
    Pause,
    /// Let it go on.
    Resume,
}

impl Order {
    fn as_str(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Terminate => "TERM",
            Self::Interrupt => "INT",
            Self::Kill => "KILL",
            Self::Pause => "STOP",
            Self::Resume => "CONT",
        }
    }
}

impl Guardian {
    /// A guardian for `command`, which is built for the folder it gets and not yet started.
    ///
    /// # Panics
    /// When no folder can be made, or no shell started.
    pub fn new(command: impl FnOnce(&Path) -> Command) -> Self {
        Self::within(&std::env::temp_dir(), command)
    }

    /// As [`Guardian::new`], with its folder within `place`.
    ///
    /// # Panics
    /// As [`Guardian::new`].
    pub fn within(place: &Path, command: impl FnOnce(&Path) -> Command) -> Self {
        let folder = tempfile::Builder::new()
            .prefix("pixcache-test-")
            .tempdir_in(place)
            .expect("a temporary folder can be made")
            .keep();
        let command = command(&folder);
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", include_str!("guardian.sh"), "guardian"]).arg(&folder);
        shell.arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => shell.env(name, value),
                None => shell.env_remove(name),
            };
        }
        let mut shell = shell
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // The shell has a process group of its own. Ctrl-C in the terminal, or a test runner that signals the
            // test's group, ends the test. The guardian must live on to clean up.
            .process_group(0)
            .spawn()
            .expect("/bin/sh runs");
        let orders = shell.stdin.take();
        let answers = BufReader::new(shell.stdout.take().expect("stdout is a pipe"));
        Self { folder, shell, orders, answers }
    }

    /// Gives an order and returns when it is carried out. It blocks for as long as that takes.
    ///
    /// # Panics
    /// When the shell is gone.
    pub fn order(&mut self, order: Order) {
        let orders = self.orders.as_mut().expect("the pipe is open until drop");
        writeln!(orders, "{}", order.as_str()).expect("the guardian reads orders");
        let mut answer = String::new();
        self.answers.read_line(&mut answer).expect("the guardian answers");
        assert_eq!(answer.trim_end(), format!("{} done", order.as_str()), "the guardian is confused");
        if matches!(order, Order::Pause) {
            self.wait_until_stopped();
        }
    }

    /// Waits until no thread of the server runs. On a busy machine the signal may take a moment, and requests are answered
    /// meanwhile.
    fn wait_until_stopped(&self) {
        let began = Instant::now();
        while !self.has_stopped() {
            assert!(began.elapsed() < PAUSE_LIMIT, "the server goes on although it was stopped");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn has_stopped(&self) -> bool {
        let Some(pid) = self.pid() else { return true };
        let Ok(threads) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return true };
        threads.flatten().all(|thread| {
            let stat = std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
            // The state follows the name, which is in brackets and may hold any letters.
            stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with(['T', 't', 'X', 'Z']))
        })
    }

    /// The server's folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The id of the server process that was started last, if there was one yet.
    pub fn pid(&self) -> Option<u32> {
        std::fs::read_to_string(self.folder.join("pid")).ok()?.trim().parse().ok()
    }

    /// Empties the log of a server that does not run.
    pub(crate) fn clear_log(&self) {
        std::fs::write(self.folder.join("log"), "").expect("the log can be written");
    }

    /// The log of the server.
    pub fn log(&self) -> String {
        let bytes = std::fs::read(self.folder.join("log")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

impl Drop for Guardian {
    fn drop(&mut self) {
        drop(self.orders.take());
        // An error here would hide the test's own failure. The shell does its work unobserved too.
        drop(self.shell.wait());
    }
}
