//! The machine of a measurement, and the versions of the programs.

use std::fmt;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde::Serialize;

/// The properties of a machine that decide how fast things are.
#[derive(Debug, Serialize)]
pub(super) struct Machine {
    cores: usize,
    processor: String,
    memory_mb: u64,
    kernel: String,
}

impl Machine {
    /// This machine. A property that the system does not report stays empty.
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

/// The first line in which a program reports its version, without its name.
pub(super) fn version(program: &Path, flag: &str) -> String {
    const UNKNOWN: &str = "(version unknown)";
    // Debian keeps servers where an ordinary user's PATH does not lead.
    let places = [program.to_owned(), Path::new("/usr/sbin").join(program)];
    let said = places.iter().find_map(|program| Command::new(program).arg(flag).output().ok());
    let Some(said) = said else { return UNKNOWN.to_owned() };
    let text = [said.stdout, said.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    let line = text.lines().find(|line| !line.trim().is_empty()).unwrap_or(UNKNOWN).trim();
    let name = program.file_name().unwrap_or_default().to_string_lossy();
    match line.split_once(&*name) {
        Some((before, rest)) if before.is_empty() || before.ends_with('/') => {
            rest.trim_start_matches(':').trim().to_owned()
        }
        _ => line.to_owned(),
    }
}
