//! Sizes of images: 1 kB to 8 MB.

use wire::Policy;

use super::{Bench, MB, store};
use crate::report::{Axis, Cell, Chart, Line, Table};
use crate::system::System;

/// From the smallest to the largest that one message carries.
const SIZES: [usize; 8] = [1_000, 4_000, 16_000, 64_000, 256_000, 1_000_000, 4_000_000, 8_000_000];
const CONNECTIONS: usize = 16;
/// All images of a size weigh about so much, so that they fit into the caches as they ship.
const TOGETHER: usize = 32_000_000;

impl Bench {
    /// Measures hits.
    pub(super) async fn sizes(&mut self, system: &System) -> anyhow::Result<()> {
        system.configure(64, Policy::Lru).await?;
        self.report.heading("Sizes of images");
        self.report
            .text(format!("Hits over HTTP on {CONNECTIONS} connections, with the settings as they ship."));
        let mut table =
            Table::new("Sizes of images", ["bytes", "requests/s", "MB/s", "p50 (ms)", "p99 (ms)"]);
        let mut chart = Chart::new(
            "sizes",
            "Hits by the size of the image",
            Axis::log10("bytes"),
            Axis::log10("requests/s"),
        );
        let mut line = Vec::new();
        let sizes = if self.quick { &SIZES[2..4] } else { &SIZES[..] };
        for size in sizes {
            let keys = store(system, &format!("size-{size}"), (TOGETHER / size).clamp(2, 64), *size).await?;
            let outcome = self.reads(system, &keys, CONNECTIONS).closed().await?.sound()?;
            let (rate, times) = (outcome.rate(), outcome.all());
            line.push((*size as f64, rate));
            table.row([
                Cell::count(*size as u64),
                Cell::number(rate, 0),
                Cell::number(rate * *size as f64 / MB, 0),
                Cell::number(times.value_at_quantile(0.5) as f64 / 1e6, 2),
                Cell::number(times.value_at_quantile(0.99) as f64 / 1e6, 2),
            ]);
        }
        chart.line("hits", Line::Solid, line);
        self.report.table(table);
        self.report.chart(chart);
        Ok(())
    }
}
