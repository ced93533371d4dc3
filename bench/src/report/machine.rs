//! The machine that something was measured on, and the programs.

use std::fmt;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde::Serialize;

/// What of a machine decides how fast things are.
#[derive(Debug, Serialize)]
pub(super) struct Machine {
    cores: usize,
    processor: String,
    memory_mb: u64,
    kernel: String,
}

impl Machine {
    /// This one. What it does not tell stays empty.
    pub(super) fn this() -> Self {
        let field = |file: &str, name: &str| {
            let text = fs::read_to_string(file).unwrap_or_default();
            let value = text.lines().find_map(|line| line.strip_prefix(name)?.trim().strip_prefix(':'));
            value.unwrap_or_default().trim().to_owned()
        };
        let memory = field("/proc/meminfo", "MemTotal");
        let kilobytes = memory.trim_end_matches(" kB").parse::<u64>().unwrap_or_default();
        Self {
            cores: std::thread::available_parallelism().map_or(0, std::num::NonZero::get),
            processor: field("/proc/cpuinfo", "model name"),
            memory_mb: kilobytes >> 10,
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned(),
        }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cores, processor, memory_mb, kernel } = self;
        write!(f, "{cores} cores of {processor}, {memory_mb} MB, Linux {kernel}")
    }
}

/// The first line that a program says of its version, without its path.
pub(super) fn version(program: &Path, flag: &str) -> String {
    let Ok(said) = Command::new(program).arg(flag).output() else { return "(version unknown)".to_owned() };
    let text = [said.stdout, said.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    let line = text.lines().find(|line| !line.trim().is_empty()).unwrap_or("(version unknown)");
    // MariaDB begins with where it lies.
    line.trim().trim_start_matches(&*program.to_string_lossy()).trim().to_owned()
}
