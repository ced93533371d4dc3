//! Keys in the table: a thousand to a million.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use futures_util::TryStreamExt as _;
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use wire::Policy;

use super::{Bench, MB, Wanted, highest, median, resident};
use crate::load::http::Message;
use crate::picture::picture;
use crate::report::{Cell, Table};
use crate::system::{Setup, System};

/// The fewest, with which all others are compared; these are stored whole and read.
const FEW: usize = 1000;
const BYTES: usize = 10_000;
const CONNECTIONS: usize = 32;
/// How many pages of the list are looked at.
const PAGES: usize = 50;

impl Bench {
    /// Measures a system that gets more and more keys, beside `small`, which has few.
    pub(super) async fn keys(&mut self, small: &System) -> anyhow::Result<()> {
        let counts: &[usize] = if self.quick { &[FEW, 3000] } else { &[FEW, 10_000, 100_000, 1_000_000] };
        self.report.heading("Keys");
        self.report.text(format!(
            "{FEW} images of {BYTES} bytes with their files are read; the further keys are rows that were inserted in bulk, \
             with files that nobody asks for and that are not there. Pages of the list are those behind {PAGES} keys \
             drawn at random. `list_keys` is read to its end, and beside it the same keys in the same order with one SELECT \
             from MariaDB, read by this process. A hit is compared with one of another system with {FEW} keys, \
             measured in turn on {CONNECTIONS} connections (of the most keys the median of {} rounds).",
            self.rounds()
        ));
        let columns = [
            "keys",
            "list page, median (ms)",
            "worst (ms)",
            "JSON page, worst (ms)",
            "list_keys (MB/s)",
            "SELECT (MB/s)",
            "gateway grew by (MB)",
            "hits/s",
            "hit, to that of 1,000 keys",
        ];
        let mut table = Table::new("Keys", columns);
        let large = System::start(&Setup { ..self.setup.clone() }).await?;
        for system in [small, &large] {
            system.configure(64, Policy::Lru).await?;
        }
        let keys = |range: std::ops::Range<usize>| range.map(key).collect::<Vec<_>>();
        let read = keys(0..FEW);
        small.seed(&read, FEW, |number| picture(number as u64, BYTES)).await?;
        small.warm(small.gateway_ports[0], &read).await?;
        let mut random = SmallRng::seed_from_u64(self.seed);
        let mut stored = 0;
        for count in counts {
            if stored == 0 {
                large.seed(&keys(0..FEW), FEW, |number| picture(number as u64, BYTES)).await?;
                stored = FEW;
            }
            let image = picture(0, 100);
            large.seed(&keys(stored..*count), 0, |_| image.clone()).await?;
            stored = *count;

            let mut pages = [Vec::new(), Vec::new()];
            for _ in 0..if self.quick { 3 } else { PAGES } {
                let after = key(random.random_range(0..stored));
                for (path, times) in ["/keys_list", "/api/images"].into_iter().zip(&mut pages) {
                    let question = Message::get(&format!("{path}?after={after}"));
                    let begun = Instant::now();
                    large.ask(large.gateway_ports[0], &question).await?;
                    times.push(begun.elapsed().as_secs_f64() * 1e3);
                }
            }
            let [html, json] = pages;

            let before = resident(&large.gateways[0])?;
            let listed = list_keys(large.gateway_ports[0]).await?;
            let growth = (resident(&large.gateways[0])? - before) / MB;
            let selected = select_keys(&large, stored).await?;
            let per_second = |(bytes, time): (u64, Duration)| bytes as f64 / 1e6 / time.as_secs_f64();
            let (listed, selected) = (per_second(listed), per_second(selected));

            large.warm(large.gateway_ports[0], &read).await?;
            let (few, many) = (self.reads(small, &read, CONNECTIONS), self.reads(&large, &read, CONNECTIONS));
            let (mut rates, mut ratios) = (Vec::new(), Vec::new());
            // Only the last count is judged.
            let rounds = if Some(count) == counts.last() { self.rounds() } else { 1 };
            for _ in 0..rounds {
                let few = few.closed().await?.sound()?.rate();
                let many = many.closed().await?.sound()?.rate();
                rates.push(many);
                ratios.push(few / many);
            }
            let ratio = median(ratios);
            table.row([
                Cell::count(stored as u64),
                Cell::number(median(html.clone()), 1),
                Cell::number(highest(&html), 1),
                Cell::number(highest(&json), 1),
                Cell::number(listed, 0),
                Cell::number(selected, 0),
                Cell::number(growth, 1),
                Cell::number(median(rates), 0),
                Cell::number(ratio, 2),
            ]);
            if Some(count) == counts.last() {
                let at = format!("at {stored} keys");
                self.target(
                    format!("list page {at}, worst of {PAGES}"),
                    "ms",
                    highest(&html),
                    Wanted::AtMost(50.0),
                );
                let what = format!("list_keys {at}, or bound by MariaDB's {selected:.0}");
                self.target(what, "MB/s", listed, Wanted::AtLeast(selected.min(100.0)));
                let what = format!("what the gateway grows by for list_keys {at}");
                self.target(what, "MB", growth, Wanted::AtMost(16.0));
                self.target(format!("hit {at} to that at {FEW}"), "x", ratio, Wanted::AtMost(1.1));
            }
        }
        self.report.table(table);
        Ok(())
    }
}

/// Key number `number`. Those that follow each other in number lie apart in the order of the table.
fn key(number: usize) -> String {
    // A prime beyond all numbers: no two are mapped to one.
    format!("album/photo-{:07}.jpg", number * 7_368_787 % 9_999_991)
}

/// Reads the whole of `list_keys`: its bytes, and how long that took.
async fn list_keys(port: u16) -> anyhow::Result<(u64, Duration)> {
    let begun = Instant::now();
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    let question =
        "POST /api/list_keys HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    stream.write_all(question.as_bytes()).await?;
    let (mut buffer, mut end, mut bytes) = (vec![0; 256 << 10], Vec::new(), 0);
    loop {
        let read = stream.read(&mut buffer).await?;
        if read == 0 {
            break;
        }
        if bytes == 0 {
            anyhow::ensure!(buffer.starts_with(b"HTTP/1.1 200"), "list_keys is refused");
        }
        bytes += read as u64;
        end.extend_from_slice(&buffer[read.saturating_sub(16)..read]);
        end.drain(..end.len().saturating_sub(16));
    }
    // The last two chunks of the body: the end of the list, and an empty chunk.
    anyhow::ensure!(end.ends_with(b"]}\r\n0\r\n\r\n"), "list_keys broke off");
    Ok((bytes, begun.elapsed()))
}

/// The same keys from the database itself.
async fn select_keys(system: &System, count: usize) -> anyhow::Result<(u64, Duration)> {
    let begun = Instant::now();
    let mut rows = sqlx::query_scalar::<_, Vec<u8>>("SELECT image_key FROM images ORDER BY image_key")
        .fetch(&system.tables);
    let (mut found, mut bytes) = (0, 0);
    while let Some(key) = rows.try_next().await.context("the keys in the table")? {
        found += 1;
        bytes += key.len() as u64;
    }
    anyhow::ensure!(found == count, "{found} of {count} keys");
    Ok((bytes, begun.elapsed()))
}
