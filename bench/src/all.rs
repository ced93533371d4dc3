//! `bench all`: every measurement, one after the other, each in a process of its own.

use std::process::Command;

use anyhow::Context as _;

use crate::report::{Output, progress};
use crate::system::Binaries;

/// The commands in the order in which they run, and the arguments that make each of them short. `faults` is no
/// measurement, and has a test of its own.
const COMMANDS: [(&str, &[&str]); 6] = [
    ("hitratio", &["--quick"]),
    ("pictures", &["--quick"]),
    ("bus", &["--rounds", "1", "--seconds", "0.1"]),
    ("peers", &["--rounds", "1", "--seconds", "0.1"]),
    ("graphs", &["--quick"]),
    ("scale", &["--quick"]),
];

/// The arguments of `bench all`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Each for a few seconds, and no time is judged: shows that all of them work
    #[arg(long)]
    quick: bool,
    #[command(flatten)]
    binaries: Binaries,
    #[command(flatten)]
    output: Output,
}

/// Measures, and has each command write its report into a folder of its own.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let program = std::env::current_exe()?;
    let bar = progress(COMMANDS.len() as u64, "commands");
    for (name, short) in COMMANDS {
        let mut command = Command::new(&program);
        command.arg(name).arg("--out").arg(arguments.output.folder("").join(name));
        if arguments.quick {
            command.args(short);
        }
        if let Some(folder) = arguments.binaries.named().filter(|_| name != "hitratio") {
            command.arg("--bin-dir").arg(folder);
        }
        let begun = std::time::Instant::now();
        let ended = command.status().with_context(|| format!("bench {name}"))?;
        anyhow::ensure!(ended.success(), "bench {name} has failed: {ended}");
        println!("bench {name}: {:.1} s", begun.elapsed().as_secs_f64());
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(())
}
