//! Clients of one gateway: one to 1,024.

use wire::Policy;

use super::{Bench, MB, resident, store};
use crate::report::{Axis, Cell, Chart, Line, Table};
use crate::system::System;

const CLIENTS: [usize; 6] = [1, 4, 16, 64, 256, 1024];
const BYTES: usize = 10_000;
const KEYS: usize = 1000;

impl Bench {
    /// Measures hits.
    pub(super) async fn clients(&mut self, system: &System) -> anyhow::Result<()> {
        system.configure(64, Policy::Lru).await?;
        let keys = store(system, "client", if self.quick { 20 } else { KEYS }, BYTES).await?;
        self.report.heading("Clients");
        self.report.text(format!("Hits of {BYTES} bytes, each client with one request in flight."));
        let columns = ["clients", "requests/s", "p50 (ms)", "p99 (ms)", "gateway resident (MB)"];
        let mut table = Table::new("Clients", columns);
        let mut chart = Chart::new(
            "clients",
            "Latency of hits by the number of clients",
            Axis::log2("clients"),
            Axis::log10("milliseconds"),
        )
        .with_dashes("p50", "p99");
        let (mut p50s, mut p99s) = (Vec::new(), Vec::new());
        let all = if self.quick { &CLIENTS[4..5] } else { &CLIENTS[..] };
        for clients in all {
            let outcome = self.reads(system, &keys, *clients).closed().await?.sound()?;
            let times = outcome.all();
            let at = |quantile| times.value_at_quantile(quantile) as f64 / 1e6;
            p50s.push((*clients as f64, at(0.5)));
            p99s.push((*clients as f64, at(0.99)));
            table.row([
                Cell::count(*clients as u64),
                Cell::number(outcome.rate(), 0),
                Cell::number(at(0.5), 2),
                Cell::number(at(0.99), 2),
                Cell::number(resident(&system.gateways[0])? / MB, 1),
            ]);
        }
        chart.line("hits", Line::Solid, p50s);
        chart.line("hits", Line::Dashed, p99s);
        self.report.table(table);
        self.report.chart(chart);
        Ok(())
    }
}
