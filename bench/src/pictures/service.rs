//! Thumbnails as a gateway makes them: how long a first look at a gallery takes, what memory it takes, and what hits
//! feel of it.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bytes::Bytes;
use futures_util::future::try_join_all;

use super::{convert, view};
use crate::load::http::{Http, Message};
use crate::load::{self, Load, Request, Target as _};
use crate::picture::picture;
use crate::process::peak_bytes;
use crate::report::{Cell, Report, Table};
use crate::system::{Binaries, Setup, System, path_of};

/// Hits a second while thumbnails are made. A busy gateway serves thirty times as many.
const HITS_A_SECOND: f64 = 1000.0;
const HIT_BYTES: usize = 10_000;

/// Some photographs that are looked at for the first time, all at once.
struct Look {
    what: &'static str,
    count: usize,
    size: (u32, u32),
    width: u32,
}

const GALLERY: Look =
    Look { what: "a gallery of 24 photographs of 12 MP", count: 24, size: (4000, 3000), width: 320 };
const LARGE: Look =
    Look { what: "16 photographs of 25 MP at once", count: 16, size: (6124, 4082), width: 640 };
const QUICK: Look = Look { what: "3 photographs of 1 MP", count: 3, size: (1200, 800), width: 320 };

/// Measures, and adds a table to the report.
pub(super) async fn measure(
    report: &mut Report,
    binaries: &Binaries,
    folder: &Path,
    rounds: u32,
    quick: bool,
) -> anyhow::Result<()> {
    let setup = Setup::shipped(binaries)?;
    report.services(&setup.binaries);
    report.heading("In a gateway");
    report.text(format!(
        "The time from the first request to the last answer; meanwhile {HITS_A_SECOND} hits a second, whose p99 is compared with the \
         same hits alone. Medians of {rounds} rounds. Memory is the most that the gateway ever had."
    ));
    let columns = ["", "seconds", "p99 of hits (ms)", "alone (ms)", "ratio", "gateway at most (MB)"];
    let mut table = Table::new("First looks", columns);
    for look in if quick { vec![QUICK] } else { vec![GALLERY, LARGE] } {
        table.row(look.measure(&setup, folder, rounds).await?);
    }
    report.table(table);
    Ok(())
}

impl Look {
    async fn measure(&self, setup: &Setup, folder: &Path, rounds: u32) -> anyhow::Result<Vec<Cell>> {
        let photographs = self.photographs(folder)?;
        let system = System::start(setup).await?;
        let port = system.gateway_ports[0];
        system.store([("hit".to_owned(), picture(1, HIT_BYTES))]).await?;
        system.warm(port, &["hit".to_owned()]).await?;
        let (mut took, mut beside, mut alone) = (Vec::new(), Vec::new(), Vec::new());
        for round in 0..rounds {
            let key = |number: usize| format!("{round}-{number}");
            let named = photographs.iter().enumerate().map(|(number, bytes)| (key(number), bytes.clone()));
            system.store(named).await?;
            let length = Duration::from_secs(1);
            alone.push(p99_ms(&hits(port, length)).await?);
            let looks = (0..self.count).map(|number| async move {
                let message = Message::get(&format!("{}?w={}", path_of(&key(number)), self.width));
                let answer = Http::connect(&port).await?.ask(&message).await?;
                Ok::<_, load::Failure>(answer.status)
            });
            let begun = Instant::now();
            let looking = async {
                let all = try_join_all(looks).await;
                (all, begun.elapsed())
            };
            let load = hits(port, length);
            let ((all, seconds), p99) = tokio::join!(looking, p99_ms(&load));
            let refused = all?.into_iter().filter(|status| *status != 200).count();
            anyhow::ensure!(refused == 0, "{refused} of {} thumbnails were refused", self.count);
            took.push(seconds.as_secs_f64());
            beside.push(p99?);
        }
        let gateway = system.gateways[0].pid().and_then(peak_bytes).context("the gateway is away")?;
        let (beside, alone) = (median(beside), median(alone));
        Ok(vec![
            Cell::text(self.what),
            Cell::number(median(took), 2),
            Cell::number(beside, 2),
            Cell::number(alone, 2),
            Cell::number(beside / alone, 2),
            Cell::number(gateway as f64 / 1e6, 0),
        ])
    }

    /// JPEGs that differ from each other.
    fn photographs(&self, folder: &Path) -> anyhow::Result<Vec<Bytes>> {
        let (width, height) = self.size;
        let photograph = folder.join("photograph.jpg");
        let photograph = photograph.to_string_lossy();
        let path = folder.join("look.jpg");
        (0..self.count)
            .map(|number| {
                let viewed = view(width, height, 37 * number);
                let viewed: Vec<&str> = viewed.iter().map(String::as_str).collect();
                let arguments = [&[&*photograph][..], &viewed, &["-strip", "-quality", "85"]];
                convert(&arguments.concat(), &path)?;
                Ok(std::fs::read(&path)?.into())
            })
            .collect()
    }
}

fn hits(port: u16, length: Duration) -> Load<Http, impl load::Choose> {
    Load {
        place: port,
        requests: Arc::new(vec![Request { kind: 0, message: Message::get(&path_of("hit")) }]),
        choose: load::in_turn(1),
        connections: 8,
        threads: 1,
        seed: 1,
        warmup: Duration::ZERO,
        length,
    }
}

async fn p99_ms(load: &Load<Http, impl load::Choose>) -> anyhow::Result<f64> {
    let outcome = load.open(HITS_A_SECOND).await?.sound()?;
    Ok(outcome.all().value_at_quantile(0.99) as f64 / 1e6)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}
