//! The services' use of processor and memory while they get no requests.

use std::time::{Duration, Instant};

use anyhow::Context as _;

use super::{Bench, MB, Wanted, resident};
use crate::process::Process;
use crate::report::{Cell, Table};
use crate::system::System;

impl Bench {
    /// Measures a system that has just been started, and whose caches are empty.
    pub(super) async fn idle(&mut self, system: &System) -> anyhow::Result<()> {
        let (calm, measured) = if self.quick { (0.1, 0.5) } else { (5.0, 30.0) };
        // Work that is left from the start is not measured.
        tokio::time::sleep(Duration::from_secs_f64(calm)).await;
        let begun = Instant::now();
        let before = system.processes().map(processor_time).collect::<anyhow::Result<Vec<_>>>()?;
        tokio::time::sleep(Duration::from_secs_f64(measured)).await;
        let after = system.processes().map(processor_time).collect::<anyhow::Result<Vec<_>>>()?;
        let seconds = begun.elapsed().as_secs_f64();

        self.report.heading("Idle");
        self.report.text(format!("{seconds:.0} s without a request, empty caches."));
        let mut table = Table::new("Idle", ["process", "of a core (%)", "resident (MB)"]);
        let mut shares = 0.0;
        for (process, (before, after)) in system.processes().zip(before.iter().zip(&after)) {
            let share = 100.0 * (*after - *before).as_secs_f64() / seconds;
            let megabytes = resident(process)? / MB;
            table.row([Cell::text(process.name()), Cell::number(share, 2), Cell::number(megabytes, 1)]);
            shares += share;
            let what = format!("resident memory of {} with empty caches", process.name());
            self.target(what, "MB", megabytes, Wanted::AtMost(40.0));
        }
        self.target("idle, all three services", "% of a core", shares, Wanted::AtMost(1.0));
        self.report.table(table);
        Ok(())
    }
}

/// For how long a service has been on a processor, its threads that have ended included.
fn processor_time(process: &Process) -> anyhow::Result<Duration> {
    let pid = process.pid().with_context(|| format!("{} is away", process.name()))?;
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // Behind the name, which may hold anything, come the state and ten more fields before the two times.
    let ticks = stat.rsplit_once(") ").map(|(_, rest)| rest.split(' ').skip(11).take(2));
    let ticks = ticks.context("the kernel tells the times")?.map(str::parse::<u64>);
    let ticks: u64 = ticks.sum::<Result<_, _>>()?;
    Ok(Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64))
}
