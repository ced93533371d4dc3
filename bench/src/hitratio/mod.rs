//! `bench hitratio`: how many requests of a trace each policy answers from memory, by capacity, against the
//! most that any could.
//!
//! The policies are the worker's own: each request goes to its `Store` as a get, and after a miss as a fill
//! with the lease that came with it. The entries are kept in memory as they are in a worker, so a capacity has to
//! fit into this machine.

mod generate;
mod optimum;
mod simulate;
mod trace;

use std::path::PathBuf;

use anyhow::Context as _;
use wire::{Capacity, Policy};

use self::optimum::Optimum;
use self::trace::Trace;
use crate::report::{Axis, Cell, Chart, Line, Output, Report, Table, progress};

/// The policies that keep anything. Under `none` the hit ratio is 0.
const POLICIES: [Policy; 3] = [Policy::Random, Policy::Lru, Policy::ClockPro];

/// The capacities for generated traces, in megabytes: from a 128th of the images that they ask for.
const CAPACITIES_MB: [u64; 8] = [2, 4, 8, 16, 32, 64, 128, 256];

/// The arguments of `bench hitratio`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "A trace file is text with a request in each line: a key, blanks or tabs, and the size of its image in bytes, as
in `cats/tom.jpg 53210`. The key is everything before the last blanks, and follows the rules for keys. Where
the size of a key differs from before, its image was replaced. Empty lines and those that begin with # are
skipped. bench/src/hitratio/FORMAT.md has an example."
)]
pub(crate) struct Arguments {
    /// Trace files to measure instead of the generated traces; `bench hitratio --help` has their format
    #[arg(value_name = "TRACE")]
    traces: Vec<PathBuf>,
    /// Capacities in MB, apart by commas; by default 2 to 256, for files from a 128th of all their images to all
    #[arg(long, value_delimiter = ',', value_parser = runtime::args::whole::<u64>(1..=(1 << 30) - 1))]
    capacity_mb: Vec<u64>,
    /// Requests of each generated trace
    #[arg(long, default_value_t = 400_000, value_parser = runtime::args::whole::<u32>(1..=u32::MAX.into()))]
    requests: u32,
    /// Decides what the generated traces ask for
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Short traces and few capacities: shows that it works, in a second
    #[arg(long)]
    quick: bool,
    #[command(flatten)]
    output: Output,
}

/// The hit ratios of one trace at one capacity.
#[derive(Debug, serde::Serialize)]
struct Ratios {
    capacity_mb: u64,
    /// In the order of [`POLICIES`].
    policies: [f64; POLICIES.len()],
    optimum: f64,
}

/// Measures, and writes the report.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let requests = if arguments.quick { arguments.requests.min(5_000) } else { arguments.requests };
    let generated = arguments.traces.is_empty();
    let traces = if generated {
        generate::all(arguments.seed, requests)
    } else {
        let read = arguments.traces.iter().map(|file| Trace::read(file));
        read.collect::<anyhow::Result<Vec<_>>>()?
    };
    let mut report =
        Report::new("hitratio", "Hit ratio by policy and capacity", generated.then_some(arguments.seed));
    report.text(
        "The share of requests that are hits, the first request of each key included, which none can answer. The \
         policies are the worker's own store; `random` draws anew in each run, and `none` is always 0. Where all \
         images weigh the same the optimum is exact: Belady's MIN, which may also decline to keep an image. With \
         images of different weights finding the optimum is NP-hard; shown is the bound PFOO-L (Berger, Beckmann and \
         Harchol-Balter, *Practical Bounds on Optimal Caching with Variable Object Sizes*, 2018), which no policy \
         exceeds and which need not be within reach.",
    );
    let steps = traces.iter().map(|trace| capacities(arguments, generated, trace).len()).sum::<usize>();
    let bar = progress(steps as u64, "capacities");
    for trace in &traces {
        let mut ratios = Vec::new();
        let optimum = Optimum::of(trace);
        for capacity_mb in capacities(arguments, generated, trace) {
            let capacity = Capacity::from_mb(capacity_mb, u64::MAX).context("a capacity")?;
            let policies = POLICIES.map(|policy| simulate::hit_ratio(trace, policy, capacity));
            ratios.push(Ratios { capacity_mb, policies, optimum: optimum.hit_ratio(capacity.bytes()) });
            bar.inc(1);
        }
        show(&mut report, trace, &optimum, &ratios);
        report.data(&trace.name, &ratios)?;
    }
    bar.finish_and_clear();
    report.write(&arguments.output.folder("hitratio"))
}

/// The capacities at which a trace is measured: those asked for, otherwise doubled up to one at which everything fits.
fn capacities(arguments: &Arguments, generated: bool, trace: &Trace) -> Vec<u64> {
    let mut capacities = if !arguments.capacity_mb.is_empty() {
        arguments.capacity_mb.clone()
    } else if generated {
        CAPACITIES_MB.to_vec()
    } else {
        let all = trace.footprint().div_ceil(wire::config::MEGABYTE);
        (0..8).rev().map(|halvings| (all >> halvings).max(1)).collect()
    };
    capacities.sort_unstable();
    capacities.dedup();
    if arguments.quick {
        capacities.truncate(2);
    }
    capacities
}

fn show(report: &mut Report, trace: &Trace, optimum: &Optimum, ratios: &[Ratios]) {
    let title = format!("Hit ratio: {}", trace.name);
    report.heading(trace.name.clone());
    let footprint = trace.footprint();
    report.text(format!(
        "{}: {} requests for {} keys, {:.0} MB.",
        trace.about,
        trace.requests.len(),
        trace.keys.len(),
        footprint as f64 / wire::config::MEGABYTE as f64
    ));
    let bound = optimum.name();
    let names = POLICIES.map(Policy::as_str);
    let columns = ["capacity (MB)", "of all images (%)"].into_iter().chain(names).chain([bound]);
    let mut table = Table::new(title.clone(), columns);
    for at in ratios {
        let share = 100.0 * (at.capacity_mb * wire::config::MEGABYTE) as f64 / footprint as f64;
        let cells = [Cell::count(at.capacity_mb), Cell::number(share, 1)];
        let shown = at.policies.into_iter().chain([at.optimum]).map(|ratio| Cell::number(ratio, 3));
        table.row(cells.into_iter().chain(shown));
    }
    report.table(table);

    let mut chart =
        Chart::new(file_name(&trace.name), title, Axis::log2("capacity (MB)"), Axis::up_to("hit ratio", 1.0));
    for (number, name) in names.into_iter().enumerate() {
        let points = ratios.iter().map(|at| (at.capacity_mb as f64, at.policies[number]));
        chart.line(name, Line::Solid, points.collect());
    }
    let points = ratios.iter().map(|at| (at.capacity_mb as f64, at.optimum));
    chart.line(bound, Line::Solid, points.collect());
    report.chart(chart);
}

/// A name as one of a file: small letters, digits, dots and hyphens.
fn file_name(name: &str) -> String {
    let name: String = name
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || c == '.' { c.to_ascii_lowercase() } else { '-' })
        .collect();
    name.trim_matches('.').to_owned()
}
