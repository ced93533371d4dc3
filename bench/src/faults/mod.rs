//! `bench faults`: a whole system under load, broken again and again at random points, and checks of all
//! that its clients did and saw.

mod check;
mod history;
mod http;
mod image;
mod load;
mod plan;
mod report;
mod rows;
mod run;
mod strike;
mod system;
mod watch;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;

use self::plan::Plan;
use crate::system::Binaries;

/// The seed of the long form, unless another one is given: the same faults and the same operations each
/// time, as far as a machine allows.
const SEED: u64 = 4;

/// The arguments of `bench faults`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Decides which faults strike when and what the clients do; 4 by default, random in the short form
    #[arg(long)]
    seed: Option<u64>,
    /// Each kind of fault once, in about two minutes, instead of again and again
    #[arg(long, conflicts_with = "minutes")]
    short: bool,
    /// For how long faults are made
    #[arg(long, default_value_t = 20)]
    minutes: u64,
    /// One kind of fault only, by its name in the report
    #[arg(long, value_name = "FAULT")]
    only: Option<strike::Kind>,
    /// Only the kinds of faults that show how nats-server behaves
    #[arg(long, conflicts_with = "only")]
    bus: bool,
    /// How many nats-servers: one, or two that are a cluster, with a gateway and a worker on each
    #[arg(long, default_value_t = 1, value_parser = runtime::args::whole::<u8>(1..=2))]
    nats: u8,
    #[command(flatten)]
    binaries: Binaries,
    /// Where the report goes: Markdown, and the same as JSON beside it
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
}

/// Breaks a system, and says whether it kept its promises.
pub(crate) async fn run(arguments: Arguments) -> anyhow::Result<bool> {
    let seed = arguments.seed.unwrap_or(if arguments.short { rand::random() } else { SEED });
    let binaries = arguments.binaries.find()?;
    let length = (!arguments.short).then(|| Duration::from_secs(60 * arguments.minutes));
    let is_cluster = arguments.nats > 1;
    let mut kinds = arguments.only.map_or_else(|| strike::Kind::ALL.to_vec(), |kind| vec![kind]);
    kinds.retain(|kind| kind.is_possible(is_cluster) && (!arguments.bus || kind.is_of_the_bus()));
    anyhow::ensure!(!kinds.is_empty(), "this fault needs another number of nats-servers (--nats)");
    let plan = Plan { seed, length, kinds, binaries, is_cluster };
    println!("seed {seed}");
    let report = tokio::select! {
        report = run::run(&plan) => report?,
        _ = tokio::signal::ctrl_c() => anyhow::bail!("interrupted"),
    };
    println!("\n{}", report.to_markdown());
    if let Some(file) = arguments.report {
        std::fs::write(&file, report.to_markdown()).with_context(|| file.display().to_string())?;
        std::fs::write(file.with_extension("json"), report.to_json()?)?;
    }
    Ok(report.is_kept())
}
