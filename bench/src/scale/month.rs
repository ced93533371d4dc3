//! A month of statistics: a window every five seconds.

use std::time::Instant;

use sqlx::AssertSqlSafe;

use super::{Bench, Wanted, highest, median};
use crate::load::http::Message;
use crate::report::{Cell, Table};
use crate::system::System;

/// Windows of 30 days, of five seconds each.
const WINDOWS: u32 = 30 * 24 * 3600 / 5;
const RANGES: [&str; 5] = ["10m", "1h", "24h", "7d", "30d"];

/// Windows that one worker would have sent, and what the recorder makes of them: the same sums as in
/// `cache_stats_rollup`'s description; of the five minutes that are not over the recorder may have made them already.
/// MariaDB counts the sequence by itself.
const FILL: [&str; 2] = [
    "INSERT INTO cache_stats \
     SELECT 'memcache-1', 'month', WINDOWS + 1 - seq, \
     FROM_UNIXTIME(5 * FLOOR(UNIX_TIMESTAMP() / 5)) - INTERVAL 5 * seq SECOND, 5000, \
     60000000 + 7000000 * SIN(seq / 500), 67108864, 200 + seq % 50, \
     5000 + seq % 977, 4000 + seq % 977, 1000, 900, 5, 40, 880, 90000000, 30, 1, 400000000, 2000 \
     FROM seq_1_to_WINDOWS",
    "REPLACE INTO cache_stats_rollup \
     SELECT FROM_UNIXTIME(300 * FLOOR(UNIX_TIMESTAMP(interval_start) / 300)) AS bucket, worker, incarnation, \
     MAX(sequence), COUNT(*), SUM(interval_ms), MAX(cache_size), MAX(capacity), MAX(key_count), SUM(request_count), \
     SUM(hit_count), SUM(miss_count), SUM(fill_count), SUM(refused_fill_count), SUM(put_count), SUM(eviction_count), \
     SUM(evicted_bytes), SUM(invalidation_count), SUM(rejection_count), SUM(served_bytes), SUM(near_hit_count) \
     FROM cache_stats WHERE incarnation = 'month' GROUP BY bucket, worker, incarnation",
];

impl Bench {
    /// Measures the page of each range.
    pub(super) async fn month(&mut self, system: &System) -> anyhow::Result<()> {
        let windows = if self.quick { 2000 } else { WINDOWS };
        for sql in FILL {
            let sql = sql.replace("WINDOWS", &windows.to_string());
            sqlx::raw_sql(AssertSqlSafe(sql)).execute(&system.tables).await?;
        }
        self.report.heading("A month of statistics");
        self.report.text(format!(
            "{windows} windows of five seconds, inserted straight into `cache_stats` with their sums in \
             `cache_stats_rollup`, and what the running worker adds. The page is `/cache_stats` with its charts; \
             the rows are `/api/stats`, which has the month as well."
        ));
        let columns =
            ["range", "page, median (ms)", "page, worst (ms)", "rows, median (ms)", "rows, worst (ms)"];
        let mut table = Table::new("A month of statistics", columns);
        for range in RANGES {
            let mut times = [Vec::new(), Vec::new()];
            for _ in 0..if self.quick { 2 } else { 30 } {
                for (path, times) in ["/cache_stats", "/api/stats"].into_iter().zip(&mut times) {
                    let question = Message::get(&format!("{path}?range={range}"));
                    let begun = Instant::now();
                    system.ask(system.gateway_ports[0], &question).await?;
                    times.push(begun.elapsed().as_secs_f64() * 1e3);
                }
            }
            let [page, rows] = times;
            let what = format!("stats page of {range}, a month of rows, worst");
            self.target(what, "ms", highest(&page), Wanted::AtMost(100.0));
            let figures = [median(page.clone()), highest(&page), median(rows.clone()), highest(&rows)];
            let figures = figures.map(|milliseconds| Cell::number(milliseconds, 1));
            table.row([Cell::text(range)].into_iter().chain(figures));
        }
        self.report.table(table);
        Ok(())
    }
}
