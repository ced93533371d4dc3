//! `bench graphs`: latency and throughput of a whole system over the requests in flight, by policy, for three
//! mixes of reads and writes.
//!
//! The policies take turns at each number of requests in flight, so that a machine which is slower for a while
//! is so for all of them.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use rand_distr::{Distribution as _, LogNormal, Zipf};
use serde::Serialize;
use wire::Policy;
use wire::config::MEGABYTE;

use crate::load::http::{Http, Message};
use crate::load::{self, Choose, Load, Outcome, Request};
use crate::picture::picture;
use crate::report::{Axis, Cell, Chart, Line, Output, Report, Table, progress};
use crate::s3::{DISTANCE, S3};
use crate::system::{Binaries, Setup, System, path_of};

/// Of a hundred requests, how many are reads.
const MIXES: [u32; 3] = [20, 50, 80];
/// The choice of an image follows Zipf's law with this exponent.
const EXPONENT: f64 = 0.99;
/// The ratio of the working set to the capacity.
const WORKING_SETS: u64 = 4;
/// Sizes are log-normal like those of the seven photographs in `samples/`: median and standard deviation of the
/// logarithm.
const MEDIAN_BYTES: f64 = 314_000.0;
const SIGMA: f64 = 0.65;
/// The number of different sizes. Keys share images, which makes a difference only to the memory.
const SIZES: u64 = 48;
/// The number of versions of each image, so that an upload changes the stored bytes.
const VERSIONS: usize = 2;
/// The number of connections that bring the cache to the state in which a mix leaves it.
const PRIMING_CONNECTIONS: usize = 32;
/// Reads and writes are counted apart.
const READ: usize = 0;
const WRITE: usize = 1;

/// The arguments of `bench graphs`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Requests in flight, apart by commas
    #[arg(long, value_delimiter = ',', default_values_t = [1, 2, 4, 8, 16, 32, 64, 128, 256],
          value_parser = runtime::args::whole::<u32>(1..=2048))]
    in_flight: Vec<u32>,
    /// For how many seconds each point is measured
    #[arg(long, default_value_t = 2.5)]
    seconds: f64,
    /// Capacity of the cache in MB; the images weigh four times as much
    #[arg(long, default_value_t = 64)]
    capacity_mb: u64,
    /// Mixes: of a hundred requests, how many are reads, apart by commas
    #[arg(long, value_delimiter = ',', default_values_t = MIXES, value_parser = runtime::args::whole::<u32>(0..=100))]
    reads: Vec<u32>,
    /// Policies, apart by commas
    #[arg(long, value_delimiter = ',', default_values_t = Policy::ALL)]
    policies: Vec<Policy>,
    /// Where the images are: a folder of this machine, or an S3 server on it whose answers come 10 ms later
    #[arg(long, value_enum, default_value_t = Origin::Folder)]
    origin: Origin,
    /// Settings of gateway and worker besides the shipped ones
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = setting)]
    set: Vec<(&'static str, String)>,
    /// Decides what is asked for
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// One point of each line, in seconds: shows that it works
    #[arg(long)]
    quick: bool,
    #[command(flatten)]
    binaries: Binaries,
    /// Where the six charts go; by default beside the report
    #[arg(long, value_name = "FOLDER")]
    charts: Option<PathBuf>,
    #[command(flatten)]
    output: Output,
}

/// Where the images are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Origin {
    Folder,
    S3,
}

/// A setting for all the time that the program runs.
fn setting(text: &str) -> Result<(&'static str, String), String> {
    let (name, value) = text.split_once('=').ok_or("it must look like NAME=VALUE")?;
    Ok((name.to_owned().leak(), value.to_owned()))
}

/// How long things take.
struct Times {
    /// The time to bring the cache to the state in which a mix leaves it.
    priming: Duration,
    warmup: Duration,
    measured: Duration,
}

/// One point of the lines.
#[derive(Debug, Serialize)]
struct Point {
    reads_percent: u32,
    in_flight: u32,
    policy: Policy,
    requests_per_s: f64,
    /// Of all requests, in milliseconds.
    all: Quantiles,
    reads: Quantiles,
    writes: Quantiles,
    /// The share of the reads that the cache answered.
    hit_ratio: f64,
    /// The failures and their numbers.
    failures: BTreeMap<String, u64>,
}

#[derive(Debug, Serialize)]
struct Quantiles {
    p50_ms: f64,
    p99_ms: f64,
}

impl Quantiles {
    fn of(histogram: &hdrhistogram::Histogram<u64>) -> Self {
        let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1e6;
        Self { p50_ms: at(0.5), p99_ms: at(0.99) }
    }
}

/// Measures, and writes the report.
pub(crate) async fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let quick = arguments.quick;
    let capacity_mb = if quick { 4 } else { arguments.capacity_mb };
    let in_flight = if quick { vec![8] } else { arguments.in_flight.clone() };
    let times = if quick {
        let short = Duration::from_millis(100);
        Times { priming: short, warmup: short / 2, measured: 2 * short }
    } else {
        Times {
            priming: Duration::from_millis(1200),
            warmup: Duration::from_millis(300),
            measured: Duration::from_secs_f64(arguments.seconds),
        }
    };
    let mut setup = Setup::shipped(&arguments.binaries)?;
    setup.gateways[0].extend(arguments.set.iter().cloned());
    setup.workers[0].extend(arguments.set.iter().cloned());
    let s3 = match arguments.origin {
        Origin::Folder => None,
        Origin::S3 => Some(S3::start().await?),
    };
    if let Some(s3) = &s3 {
        setup.gateways[0].extend(s3.settings());
    }
    let system = System::start(&setup).await?;
    let images = Images::new(arguments.seed, WORKING_SETS * capacity_mb * MEGABYTE);
    system.store(images.all()).await?;

    let mut points: Vec<Point> = Vec::new();
    let policies = &arguments.policies;
    let bar = progress((arguments.reads.len() * in_flight.len() * policies.len()) as u64, "points");
    for &reads_percent in &arguments.reads {
        let choose = images.choose(reads_percent);
        for (step, in_flight) in in_flight.iter().enumerate() {
            for turn in 0..policies.len() {
                bar.inc(1);
                let policy = policies[(step + turn) % policies.len()];
                // A system that failed with fewer requests in flight does not get more of them.
                let is_over = points.iter().any(|point| {
                    point.reads_percent == reads_percent
                        && point.policy == policy
                        && !point.failures.is_empty()
                });
                if is_over {
                    continue;
                }
                let load = |connections: usize, warmup, length| Load {
                    place: system.gateway_ports[0],
                    requests: images.requests.clone(),
                    choose: choose.clone(),
                    connections,
                    threads: load::threads(),
                    seed: arguments.seed,
                    warmup,
                    length,
                };
                system.configure(capacity_mb, policy).await?;
                load(PRIMING_CONNECTIONS, Duration::ZERO, times.priming).closed().await?;
                let before = system.stats().await?.counters;
                let load: Load<Http, _> = load(*in_flight as usize, times.warmup, times.measured);
                let outcome = load.closed().await?;
                let after = system.stats().await?.counters;
                let hits = (after.hit_count - before.hit_count) as f64;
                let hit_ratio = hits / (after.request_count - before.request_count).max(1) as f64;
                points.push(point(reads_percent, *in_flight, policy, &outcome, hit_ratio));
            }
        }
    }
    bar.finish_and_clear();
    report(arguments, &setup, &images, capacity_mb, &points)
}

fn point(reads_percent: u32, in_flight: u32, policy: Policy, outcome: &Outcome, hit_ratio: f64) -> Point {
    Point {
        reads_percent,
        in_flight,
        policy,
        requests_per_s: outcome.rate(),
        all: Quantiles::of(&outcome.all()),
        reads: Quantiles::of(&outcome.kinds[READ]),
        writes: Quantiles::of(&outcome.kinds[WRITE]),
        hit_ratio,
        failures: outcome.failures.iter().map(|(failure, count)| (failure.to_string(), *count)).collect(),
    }
}

/// The images, and the requests for them.
struct Images {
    /// Each version of each size.
    bytes: Vec<[Bytes; VERSIONS]>,
    /// The image of each key, the most popular key first.
    keys: Vec<usize>,
    /// The read of each key, then the writes of each key.
    requests: Arc<Vec<Request<Message>>>,
}

impl Images {
    /// Keys whose images weigh `total` bytes together.
    fn new(seed: u64, total: u64) -> Self {
        let mut random = SmallRng::seed_from_u64(seed);
        #[expect(clippy::expect_used, reason = "both parameters are finite")]
        let sizes = LogNormal::new(MEDIAN_BYTES.ln(), SIGMA).expect("a log-normal distribution");
        let bytes: Vec<[Bytes; VERSIONS]> = (0..SIZES)
            .map(|number| {
                let size = sizes.sample(&mut random).clamp(20_000.0, 4_000_000.0) as usize;
                std::array::from_fn(|version| picture(number * VERSIONS as u64 + version as u64, size))
            })
            .collect();
        let (mut keys, mut weight) = (Vec::new(), 0);
        while weight < total {
            let image = random.random_range(0..bytes.len());
            weight += bytes[image][0].len() as u64;
            keys.push(image);
        }
        let read = |key: usize| Request { kind: READ, message: Message::get(&path_of(&name(key))) };
        let mut requests: Vec<_> = (0..keys.len()).map(read).collect();
        for (key, image) in keys.iter().enumerate() {
            requests.extend(bytes[*image].iter().map(|version| Request {
                kind: WRITE,
                message: Message::new("PUT", &path_of(&name(key)), &[], version.clone()),
            }));
        }
        Self { bytes, keys, requests: Arc::new(requests) }
    }

    /// Each key with its first image.
    fn all(&self) -> impl Iterator<Item = (String, Bytes)> {
        self.keys.iter().enumerate().map(|(key, image)| (name(key), self.bytes[*image][0].clone()))
    }

    fn total_bytes(&self) -> u64 {
        self.keys.iter().map(|image| self.bytes[*image][0].len() as u64).sum()
    }

    /// Decides between reads and writes, and on a key.
    fn choose(&self, reads_percent: u32) -> impl Choose {
        let keys = self.keys.len();
        #[expect(clippy::expect_used, reason = "both parameters are positive")]
        let ranks = Zipf::new(keys as f64, EXPONENT).expect("a Zipf distribution");
        move |random: &mut SmallRng| {
            let key = ranks.sample(random) as usize - 1;
            if random.random_ratio(reads_percent, 100) {
                key
            } else {
                keys + VERSIONS * key + random.random_range(0..VERSIONS)
            }
        }
    }
}

fn name(key: usize) -> String {
    format!("photo-{key:06}.gif")
}

fn report(
    arguments: &Arguments,
    setup: &Setup,
    images: &Images,
    capacity_mb: u64,
    points: &[Point],
) -> anyhow::Result<()> {
    let mut report = Report::new("graphs", "Latency and throughput by policy", Some(arguments.seed));
    report.services(&setup.binaries);
    let origin = match arguments.origin {
        Origin::Folder => "in a folder of this machine".to_owned(),
        Origin::S3 => format!(
            "in S3 (versitygw on this machine, whose answers come {} ms later than they would)",
            DISTANCE.as_millis()
        ),
    };
    report.text(format!(
        "Images are {origin}. One gateway, one worker, one recorder, nats-server and MariaDB with their shipped settings, and the load, all on \
         this machine. {} keys, asked for by Zipf's law with the exponent {EXPONENT}; sizes log-normal like those of \
         samples/ (median {:.0} kB, sigma {SIGMA}), {:.0} MB together, {WORKING_SETS} times the capacity of \
         {capacity_mb} MB. Reads are `GET /images/KEY`, writes `PUT /images/KEY`, answered when the image is in \
         its store, its row is committed and no cache holds the one before. A closed loop keeps so many requests in \
         flight; before each point the cache is emptied and the same mix brings it to where it leaves it; the policies \
         take turns at each point. A line ends where requests begin to fail.",
        images.keys.len(),
        MEDIAN_BYTES / 1e3,
        images.total_bytes() as f64 / MEGABYTE as f64,
    ));
    for &reads in &arguments.reads {
        let mix = format!("{reads}:{}", 100 - reads);
        report.heading(format!("{mix} reads to writes"));
        let x = || Axis::log2("requests in flight");
        let title = format!("Latency at {mix} reads to writes");
        let mut latency =
            Chart::new(format!("latency-{reads}-{}", 100 - reads), title, x(), Axis::log10("milliseconds"))
                .with_dashes("p50", "p99");
        let title = format!("Throughput at {mix} reads to writes");
        let mut throughput =
            Chart::new(format!("throughput-{reads}-{}", 100 - reads), title, x(), Axis::linear("requests/s"));
        for &policy in &arguments.policies {
            let line = |value: fn(&Point) -> f64| {
                let of_line = |point: &&Point| {
                    point.reads_percent == reads && point.policy == policy && point.failures.is_empty()
                };
                points
                    .iter()
                    .filter(of_line)
                    .map(|point| (f64::from(point.in_flight), value(point)))
                    .collect()
            };
            latency.line(policy.as_str(), Line::Solid, line(|point| point.all.p50_ms));
            latency.line(policy.as_str(), Line::Dashed, line(|point| point.all.p99_ms));
            throughput.line(policy.as_str(), Line::Solid, line(|point| point.requests_per_s));
        }
        report.chart(latency);
        report.chart(throughput);
        report.table(table(reads, &mix, points));
    }
    report.data("points", points)?;
    let folder = arguments.output.folder("graphs");
    let charts = arguments.charts.clone().unwrap_or_else(|| folder.clone());
    report.write_charts(&folder, &charts)
}

fn table(reads_percent: u32, mix: &str, points: &[Point]) -> Table {
    let columns = [
        "in flight",
        "policy",
        "requests/s",
        "p50 (ms)",
        "p99 (ms)",
        "read p50 (ms)",
        "read p99 (ms)",
        "write p50 (ms)",
        "write p99 (ms)",
        "hit ratio (%)",
        "failures",
    ];
    let mut table = Table::new(format!("{mix} reads to writes"), columns);
    let mut points: Vec<_> = points.iter().filter(|point| point.reads_percent == reads_percent).collect();
    points.sort_by_key(|point| {
        (point.in_flight, Policy::ALL.iter().position(|policy| *policy == point.policy))
    });
    for point in points {
        let failures = point.failures.iter().map(|(failure, count)| format!("{count} × {failure}"));
        let mut cells = vec![
            Cell::count(point.in_flight.into()),
            Cell::text(point.policy.as_str()),
            Cell::number(point.requests_per_s, 0),
        ];
        for quantiles in [&point.all, &point.reads, &point.writes] {
            cells.extend([Cell::number(quantiles.p50_ms, 2), Cell::number(quantiles.p99_ms, 2)]);
        }
        cells.push(Cell::number(100.0 * point.hit_ratio, 1));
        cells.push(Cell::text(failures.collect::<Vec<_>>().join(", ")));
        table.row(cells);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mix_reads_as_often_as_it_says_and_asks_most_for_the_first_keys() {
        let total = 4 << 20;
        let images = Images::new(1, total);
        assert!(images.total_bytes() >= total);
        let keys = images.keys.len();
        for reads_percent in MIXES {
            let mut choose = images.choose(reads_percent);
            let mut random = SmallRng::seed_from_u64(1);
            let (mut reads, mut of_key) = (0, vec![0; keys]);
            for _ in 0..10_000 {
                let number = choose(&mut random);
                assert_eq!(images.requests[number].kind, if number < keys { READ } else { WRITE });
                reads += u32::from(number < keys);
                of_key[if number < keys { number } else { (number - keys) / VERSIONS }] += 1;
            }
            assert!(reads.abs_diff(100 * reads_percent) < 300, "{reads} of 10,000 at {reads_percent} %");
            assert!(of_key.iter().skip(1).all(|count| *count < of_key[0]), "{of_key:?}");
        }
    }
}
