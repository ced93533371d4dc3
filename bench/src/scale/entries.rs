//! Entries in the worker: a thousand to a million of 100 bytes.

use std::sync::Arc;
use std::time::Instant;

use anyhow::Context as _;
use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _};
use memcache::{Entry, Lookup, Store};
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use sniff::Format;
use wire::{Capacity, Item, Key, Policy, Tag, subject};

use super::{Bench, Wanted, median, resident};
use crate::load::Request;
use crate::load::bus::Message;
use crate::picture::picture;
use crate::report::{Axis, Cell, Chart, Line, Table};
use crate::system::System;

const BYTES: usize = 100;
/// The fewest, with which all others are compared.
const FEW: usize = 1000;
/// A capacity that a million such entries don't fill.
const CAPACITY_MB: u64 = 1024;
const POLICIES: [Policy; 3] = [Policy::Random, Policy::Lru, Policy::ClockPro];
/// Requests in flight.
const IN_FLIGHT: usize = 64;
/// How many of a million entries are asked for, at random: requests for all would take more memory than the entries.
const ASKED_FOR: usize = 200_000;

impl Bench {
    /// Measures a worker of its own for each policy, beside the one of `small` with few entries.
    pub(super) async fn entries(&mut self, small: &System) -> anyhow::Result<()> {
        let (counts, policies) = if self.quick {
            (vec![FEW, 4 * FEW], &POLICIES[1..2])
        } else {
            (vec![FEW, 10_000, 100_000, 1_000_000], &POLICIES[..])
        };
        self.report.heading("Entries in the worker");
        self.report.text(format!(
            "Entries of {BYTES} bytes, put by `cache.put` and got by `cache.get` with {IN_FLIGHT} requests in flight. \
             Resident memory is what the process has grown by since {FEW} entries, less the {BYTES} bytes of each. The \
             time of a get is that of another worker with {FEW} entries, measured in turn, times the ratio of their \
             rates (of the most entries the median of {} rounds). *In the store alone* is a lookup without the bus, in this process.",
            self.rounds()
        ));
        let mut table = Table::new(
            "Entries in the worker",
            [
                "policy",
                "entries",
                "resident an entry (B)",
                "gets/s",
                "get, to that of 1,000",
                "in the store alone (ns)",
            ],
        );
        let mut chart = Chart::new(
            "entries",
            "A lookup in the store alone",
            Axis::log10("entries"),
            Axis::linear("nanoseconds"),
        );
        for policy in policies {
            small.configure(CAPACITY_MB, *policy).await?;
            put(small, 0, FEW).await?;
            // A process whose memory has not held anything else.
            let system = System::start(&self.setup).await?;
            system.configure(CAPACITY_MB, *policy).await?;
            let (mut stored, mut at_first, mut line) = (0, 0.0, Vec::new());
            for count in &counts {
                put(&system, stored, *count).await?;
                stored = *count;
                let stats = system.stats().await?;
                anyhow::ensure!(stats.key_count == *count as u64, "{} of {count} entries", stats.key_count);
                let bytes = resident(&system.workers[0])?;
                let growth = if *count == FEW {
                    at_first = bytes;
                    None
                } else {
                    Some((bytes - at_first) / (*count - FEW) as f64 - BYTES as f64)
                };
                let (few, many) = (self.gets(FEW), self.gets(*count));
                let (mut rates, mut ratios) = (Vec::new(), Vec::new());
                // Only the last count is judged.
                let rounds = if Some(count) == counts.last() { self.rounds() } else { 1 };
                for _ in 0..rounds {
                    let few = self.on_the_bus(small, &few, IN_FLIGHT).closed().await?.sound()?.rate();
                    let many = self.on_the_bus(&system, &many, IN_FLIGHT).closed().await?.sound()?.rate();
                    rates.push(many);
                    ratios.push(few / many);
                }
                let ratio = median(ratios);
                let alone = lookup_ns(*policy, *count, if self.quick { 10_000 } else { 2_000_000 })?;
                line.push((*count as f64, alone));
                table.row([
                    Cell::text(policy.as_str()),
                    Cell::count(*count as u64),
                    growth.map_or(Cell::Empty, |growth| Cell::number(growth, 0)),
                    Cell::number(median(rates), 0),
                    Cell::number(ratio, 2),
                    Cell::number(alone, 0),
                ]);
                if Some(count) == counts.last() {
                    let what = format!("memory of an entry above its bytes, {policy}, {count} entries");
                    self.target(
                        what,
                        "B",
                        growth.context("more than the fewest entries")?,
                        Wanted::AtMost(250.0),
                    );
                    let what = format!("get at {count} entries to that at {FEW}, {policy}");
                    self.target(what, "x", ratio, Wanted::AtMost(1.5));
                }
            }
            chart.line(policy.as_str(), Line::Solid, line);
        }
        self.report.table(table);
        self.report.chart(chart);
        Ok(())
    }

    /// Gets of entries that are there, of the first `count`.
    fn gets(&self, count: usize) -> Arc<Vec<Request<Message>>> {
        let mut random = SmallRng::seed_from_u64(self.seed);
        let get = |number| Request {
            kind: 0,
            message: Message {
                subject: subject::get(&key(number).into()).into(),
                payload: Bytes::new(),
                answer_length: Some(BYTES),
            },
        };
        let requests: Vec<_> = if count > ASKED_FOR {
            (0..ASKED_FOR).map(|_| get(random.random_range(0..count))).collect()
        } else {
            (0..count).map(get).collect()
        };
        Arc::new(requests)
    }
}

fn key(number: usize) -> Key {
    #[expect(clippy::expect_used, reason = "letters and digits are a key")]
    Key::new(&format!("entry-{number:07}")).expect("letters and digits are a key")
}

/// Puts the entries from `first` up to `end`.
async fn put(system: &System, first: usize, end: usize) -> anyhow::Result<()> {
    let image = picture(1, BYTES);
    let puts = futures_util::stream::iter(first..end).map(|number| {
        let request = system.operator.request(subject::put(&key(number).into()), image.clone());
        async move {
            let reply = request.await?;
            let refused = reply.headers.as_ref().and_then(|headers| headers.get("Nats-Service-Error"));
            match refused {
                Some(sentence) => anyhow::bail!("a put is refused: {}", sentence.as_str()),
                None => Ok(()),
            }
        }
    });
    puts.buffer_unordered(IN_FLIGHT).try_collect().await
}

/// How long a lookup takes in a store with `count` entries, in nanoseconds.
fn lookup_ns(policy: Policy, count: usize, lookups: u32) -> anyhow::Result<f64> {
    let mut store = Store::new(policy, Capacity::from_mb(CAPACITY_MB, CAPACITY_MB)?);
    let (image, now) = (picture(1, BYTES), Instant::now());
    let keys: Vec<Item> = (0..count).map(|number| key(number).into()).collect();
    for key in &keys {
        store.put(Entry::new(key.clone(), &image, Format::Gif, Tag([0; 32]), 0));
    }
    let mut random = SmallRng::seed_from_u64(1);
    // A key that is looked for comes off the bus: its own bytes are in the processor's cache.
    let asked: Vec<Item> = (0..lookups).map(|_| keys[random.random_range(0..count)].clone()).collect();
    let begun = Instant::now();
    let hits = asked
        .iter()
        .filter(|key| matches!(store.get(key, None, u64::MAX, true, now), Lookup::Hit(_)))
        .count();
    let elapsed = begun.elapsed();
    anyhow::ensure!(hits == lookups as usize, "every entry is resident");
    Ok(elapsed.as_nanos() as f64 / f64::from(lookups))
}
