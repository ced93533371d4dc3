//! Entries of all sizes that come and go, and the memory of the worker meanwhile.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use wire::{Key, Policy, subject};

use super::{Bench, MB, Wanted, highest, resident};
use crate::load::bus::Message;
use crate::load::{Load, Request};
use crate::picture::picture;
use crate::report::{Axis, Cell, Chart, Line, Table};
use crate::system::System;

const CAPACITY_MB: u64 = 256;
/// Sizes are drawn evenly on a logarithmic scale between these, in bytes.
const SIZES: (f64, f64) = (1e3, 4e6);
const PICTURES: u64 = 256;
const KEYS: usize = 4000;
const IN_FLIGHT: usize = 16;
/// How often the memory is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(250);

impl Bench {
    /// Measures a worker of its own, whose policy changes twice in between.
    pub(super) async fn churn(&mut self) -> anyhow::Result<()> {
        let system = System::start(&self.setup).await?;
        let requests = Arc::new(puts(self.seed)?);
        self.report.heading("Entries of all sizes come and go");
        self.report.text(format!(
            "{:.1} minutes of puts of 1 kB to 4 MB, drawn on a logarithmic scale, into a capacity of {CAPACITY_MB} MB, under \
             one policy after another in the same process, and the memory of the worker meanwhile.",
            self.churn.as_secs_f64() / 60.0
        ));
        let mut table = Table::new(
            "Entries of all sizes come and go",
            ["policy", "puts/s", "MB/s", "resident, most (MB)"],
        );
        let mut chart =
            Chart::new("churn", "Resident memory of the worker", Axis::linear("minutes"), Axis::linear("MB"));
        let (begun, mut line, mut most) = (Instant::now(), Vec::new(), Vec::new());
        let policies = [Policy::Lru, Policy::Random, Policy::ClockPro];
        for policy in policies {
            system.configure(CAPACITY_MB, policy).await?;
            let length = self.churn / policies.len() as u32;
            let load = self.on_the_bus(&system, &requests, IN_FLIGHT);
            let load = Load { warmup: Duration::ZERO, length, ..load };
            let mut samples = Vec::new();
            let watch = async {
                loop {
                    let megabytes = resident(&system.workers[0])? / MB;
                    samples.push((begun.elapsed().as_secs_f64() / 60.0, megabytes));
                    tokio::time::sleep(LOOK_EVERY).await;
                }
            };
            let outcome = tokio::select! {
                outcome = load.closed() => outcome?.sound()?,
                failed = watch => return failed,
            };
            let megabytes: Vec<f64> = samples.iter().map(|(_, megabytes)| *megabytes).collect();
            let mean = requests.iter().map(|request| request.message.payload.len()).sum::<usize>() / KEYS;
            table.row([
                Cell::text(policy.as_str()),
                Cell::number(outcome.rate(), 0),
                Cell::number(outcome.rate() * mean as f64 / MB, 0),
                Cell::number(highest(&megabytes), 0),
            ]);
            most.push(highest(&megabytes));
            line.extend(samples);
        }
        chart.line("worker", Line::Solid, line);
        self.report.table(table);
        self.report.chart(chart);
        let limit = 1.15 * CAPACITY_MB as f64 + 40.0;
        self.target(
            "resident memory of the worker in the churn, most",
            "MB",
            highest(&most),
            Wanted::AtMost(limit),
        );
        Ok(())
    }
}

/// A put for each key, of any of the sizes.
fn puts(seed: u64) -> anyhow::Result<Vec<Request<Message>>> {
    let mut random = SmallRng::seed_from_u64(seed);
    let pictures: Vec<Bytes> = (0..PICTURES)
        .map(|number| {
            let size = SIZES.0 * (SIZES.1 / SIZES.0).powf(random.random());
            picture(number, size as usize)
        })
        .collect();
    (0..KEYS)
        .map(|number| {
            let key = Key::new(&format!("churn-{number}"))?;
            let payload = pictures[random.random_range(0..pictures.len())].clone();
            let message =
                Message { subject: subject::put(&key.clone().into()).into(), payload, answer_length: None };
            Ok(Request { kind: 0, message })
        })
        .collect()
}
