//! `bench scale`: costs as the work grows, against the most that they may be.
//!
//! A figure at a million is compared with the same figure at a thousand by two systems that stand side by side
//! and are measured in turn, so that a machine which is slower for a while is so for both.

mod churn;
mod clients;
mod entries;
mod idle;
mod keys;
mod month;
mod sizes;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;

use crate::load::bus::{self, Bus};
use crate::load::http::{Http, Message};
use crate::load::{self, Choose, Load, Request};
use crate::picture::picture;
use crate::process::Process;
use crate::report::{Cell, Output, Report, Table, progress};
use crate::system::{Binaries, Setup, System, path_of};

/// The arguments of `bench scale`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// One part only
    #[arg(long, value_name = "PART")]
    only: Option<Part>,
    /// For how many minutes entries of all sizes come and go
    #[arg(long, default_value_t = 10.0)]
    churn_minutes: f64,
    /// Decides what is asked for
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Little work and short times: shows that it works, and judges nothing
    #[arg(long)]
    quick: bool,
    #[command(flatten)]
    binaries: Binaries,
    #[command(flatten)]
    output: Output,
}

/// The parts of the measurement, each named for the quantity that grows in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// Nothing: what the services take while nobody asks for anything
    Idle,
    /// Entries in the worker
    Entries,
    /// Keys in the table
    Keys,
    /// Sizes of images
    Sizes,
    /// Clients of one gateway
    Clients,
    /// Rows of statistics, up to a month of them
    Month,
    /// Nothing, but entries of all sizes come and go
    Churn,
}

/// The state that all parts need.
struct Bench {
    setup: Setup,
    seed: u64,
    quick: bool,
    churn: Duration,
    report: Report,
    targets: Vec<Target>,
}

/// A figure, and the value that it must reach.
#[derive(Debug, serde::Serialize)]
struct Target {
    what: String,
    unit: &'static str,
    measured: f64,
    wanted: Wanted,
}

#[derive(Debug, Clone, Copy, serde::Serialize)]
#[serde(rename_all = "snake_case")]
enum Wanted {
    AtMost(f64),
    AtLeast(f64),
}

impl Target {
    fn is_reached(&self) -> bool {
        match self.wanted {
            Wanted::AtMost(limit) => self.measured <= limit,
            Wanted::AtLeast(limit) => self.measured >= limit,
        }
    }
}

/// Measures, and writes the report.
pub(crate) async fn run(arguments: &Arguments) -> anyhow::Result<()> {
    runtime::descriptors::raise_limit();
    let setup = Setup::shipped(&arguments.binaries)?;
    let mut report = Report::new("scale", "Cost as the work grows", Some(arguments.seed));
    report.services(&setup.binaries);
    let churn = if arguments.quick { 0.01 } else { arguments.churn_minutes };
    let mut bench = Bench {
        setup,
        seed: arguments.seed,
        quick: arguments.quick,
        churn: Duration::from_secs_f64(60.0 * churn),
        report,
        targets: Vec::new(),
    };
    let parts = arguments
        .only
        .map_or_else(|| <Part as clap::ValueEnum>::value_variants().to_vec(), |part| vec![part]);
    let bar = progress(parts.len() as u64, "parts");
    // With few images and empty caches; most parts do their work on it, some beside it.
    let small = System::start(&bench.setup).await?;
    for part in parts {
        match part {
            Part::Idle => bench.idle(&small).await?,
            Part::Entries => bench.entries(&small).await?,
            Part::Keys => bench.keys(&small).await?,
            Part::Sizes => bench.sizes(&small).await?,
            Part::Clients => bench.clients(&small).await?,
            Part::Month => bench.month(&small).await?,
            Part::Churn => bench.churn().await?,
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    bench.write(&arguments.output)
}

impl Bench {
    /// Notes a figure, and the value that it must reach.
    fn target(&mut self, what: impl Into<String>, unit: &'static str, measured: f64, wanted: Wanted) {
        self.targets.push(Target { what: what.into(), unit, measured, wanted });
    }

    fn write(mut self, output: &Output) -> anyhow::Result<()> {
        let columns = ["what", "measured", "wanted", "unit", "reached"];
        let mut table = Table::new("Against what is wanted", columns);
        for target in &self.targets {
            let (word, limit) = match target.wanted {
                Wanted::AtMost(limit) => ("≤", limit),
                Wanted::AtLeast(limit) => ("≥", limit),
            };
            let reached = match target.is_reached() {
                _ if self.quick => "not judged",
                true => "yes",
                false => "**no**",
            };
            let measured = Cell::number(target.measured, 2);
            let wanted = Cell::text(format!("{word} {}", (limit * 10.0).round() / 10.0));
            table.row([
                Cell::text(&*target.what),
                measured,
                wanted,
                Cell::text(target.unit),
                Cell::text(reached),
            ]);
        }
        self.report.data("targets", &self.targets)?;
        if !self.targets.is_empty() {
            self.report.summary(table);
        }
        self.report.write(&output.folder("scale"))
    }

    /// For how long one figure is measured.
    fn length(&self) -> Duration {
        Duration::from_millis(if self.quick { 50 } else { 700 })
    }

    /// How many times one figure is measured.
    fn rounds(&self) -> usize {
        if self.quick { 1 } else { 7 }
    }

    /// Reads of these keys, each with the same probability, over `connections` to the first gateway.
    fn reads(&self, system: &System, keys: &[String], connections: usize) -> Load<Http, impl Choose + use<>> {
        let read = |key: &String| Request { kind: 0, message: Message::get(&path_of(key)) };
        Load {
            place: system.gateway_ports[0],
            requests: Arc::new(keys.iter().map(read).collect()),
            choose: load::at_random(keys.len()),
            connections,
            threads: load::threads(),
            seed: self.seed,
            warmup: self.length() / 4,
            length: self.length(),
        }
    }

    /// These requests on the bus, each with the same probability and `in_flight` at a time. A connection lasts for
    /// one run.
    fn on_the_bus(
        &self,
        system: &System,
        requests: &Arc<Vec<Request<bus::Message>>>,
        in_flight: usize,
    ) -> Load<Bus, impl Choose + use<>> {
        Load {
            place: bus::Place::of(&system.nats, "operator"),
            requests: requests.clone(),
            choose: load::at_random(requests.len()),
            connections: in_flight,
            threads: 1,
            seed: self.seed,
            warmup: self.length() / 4,
            length: self.length(),
        }
    }
}

/// Stores `count` images of one size under names of their own, and reads each once.
async fn store(system: &System, prefix: &str, count: usize, size: usize) -> anyhow::Result<Vec<String>> {
    let images: Vec<(String, Bytes)> =
        (0..count).map(|number| (format!("{prefix}-{number:06}"), picture(number as u64, size))).collect();
    let keys: Vec<String> = images.iter().map(|(key, _)| key.clone()).collect();
    system.store(images).await?;
    system.warm(system.gateway_ports[0], &keys).await?;
    Ok(keys)
}

/// The resident memory of a service, in bytes.
fn resident(process: &Process) -> anyhow::Result<f64> {
    let bytes = process.pid().and_then(crate::process::resident_bytes);
    Ok(bytes.with_context(|| format!("{} is away", process.name()))? as f64)
}

/// The middle one.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The highest one.
fn highest(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::NEG_INFINITY, f64::max)
}

const MB: f64 = wire::config::MEGABYTE as f64;
