//! Sums over any range and step equal those of the windows themselves.

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use recorder::repository::{ROLLUP_MS, Repository};
use testkit::Database;
use testkit::database::Account;
use time::OffsetDateTime;
use wire::stats::{Counters, MAX_POINTS, SeriesRow, Window};

use crate::helpers::*;

/// A multiple of every step in use.
const START: i64 = 1_750_000_000 / 86_400 * 86_400;
const DAYS: i64 = 4;

/// Windows of two workers over four days, with pauses, lives of different length and odd intervals.
fn windows() -> Vec<Window> {
    let mut windows = Vec::new();
    for (worker, interval_s, pause) in [("memcache-1", 61, 7), ("memcache-2", 97, 11)] {
        let (mut at, mut life, mut sequence) = (START, 0, 0);
        while at < START + DAYS * 86_400 {
            sequence += 1;
            if sequence % (50 * pause) == 0 {
                (at, life, sequence) = (at + 3600 * pause as i64 / 2, life + 1, 1);
            }
            windows.push(Window {
                worker: worker.to_owned(),
                incarnation: format!("life-{life}"),
                interval_start: OffsetDateTime::from_unix_timestamp(at).unwrap()
                    + time::Duration::microseconds(sequence as i64 * 37 % 1_000_000),
                interval_ms: interval_s * 1000,
                cache_size: sequence * 17 % 1000,
                ..window("", sequence)
            });
            at += interval_s as i64;
        }
    }
    windows
}

fn total(rows: &[SeriesRow]) -> (Counters, u64, u64) {
    rows.iter().fold(Default::default(), |(mut counters, windows, ms), row| {
        counters.add(&row.counters);
        (counters, windows + row.window_count, ms + row.interval_ms)
    })
}

#[test]
fn the_rows_of_any_range_add_up_to_its_windows() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let windows = windows();
    let repository = runtime.block_on(async {
        let database = Database::migrated().await;
        let repository = Repository::new(database.url(Account::Recorder).parse().unwrap());
        // Late ones, repeated ones and any order make no difference to the sums.
        for batch in windows.rchunks(450) {
            repository.insert_windows(batch).await.unwrap();
            repository.insert_windows(&batch[..batch.len() / 3]).await.unwrap();
        }
        repository
    });

    const RANGE_MS: i64 = DAYS * 86_400_000;
    let time =
        |ms: i64| OffsetDateTime::from_unix_timestamp(START).unwrap() + time::Duration::milliseconds(ms);
    let step = prop_oneof![
        Just(None),
        (1..=86_400_000u64).prop_map(Some),
        (1..=288u64).prop_map(|many| Some(many * ROLLUP_MS)),
    ];
    let length = prop_oneof![1..=3_600_000i64, 1..=RANGE_MS];
    let mut runner = TestRunner::new(Config::with_cases(150));
    let ran = runner.run(&(-1000..RANGE_MS, length, step), |(from, length, step)| {
        let (from, to) = (time(from), time(from + length));
        let found = runtime.block_on(repository.series(from, to, step)).unwrap();
        let inside: Vec<&Window> =
            windows.iter().filter(|window| (from..to).contains(&window.interval_start)).collect();
        let mut expected = Counters::default();
        inside.iter().for_each(|window| expected.add(&window.counters));
        let expected_ms: u64 = inside.iter().map(|window| window.interval_ms).sum();
        prop_assert_eq!(total(&found.rows), (expected, inside.len() as u64, expected_ms));
        prop_assert!(found.rows.len() as u64 <= MAX_POINTS);
        prop_assert!(step.is_none_or(|step| found.step_ms >= step));
        prop_assert_eq!(
            found.rows.iter().map(|row| row.cache_size).max(),
            inside.iter().map(|window| window.cache_size).max()
        );
        prop_assert!(found.rows.is_sorted_by_key(|row| row.interval_start));
        prop_assert!(found.rows.iter().all(|row| (from..to).contains(&row.interval_start)));
        Ok(())
    });
    ran.unwrap();
}

#[tokio::test]
async fn a_row_names_the_worker_and_its_life_only_if_there_was_one() {
    let database = Database::migrated().await;
    let repository = Repository::new(database.url(Account::Recorder).parse().unwrap());
    let at = |ms: i64| OffsetDateTime::from_unix_timestamp(START).unwrap() + time::Duration::milliseconds(ms);
    let window = |worker: &str, life: &str, sequence, start_ms| Window {
        worker: worker.to_owned(),
        interval_start: at(start_ms),
        ..window(life, sequence)
    };
    repository
        .insert_windows(&[
            window("a", "x", 8, 0),
            window("a", "x", 9, 5000),
            window("a", "x", 10, 600_000),
            window("a", "y", 1, 605_000),
            window("a", "x", 11, 1_200_000),
            window("b", "x", 1, 1_205_000),
        ])
        .await
        .unwrap();
    for step_ms in [ROLLUP_MS, 2 * ROLLUP_MS, 200_000] {
        let rows = repository.series(at(0), at(3_600_000), Some(step_ms)).await.unwrap().rows;
        let names: Vec<_> = rows
            .iter()
            .map(|row| (row.worker.as_deref(), row.incarnation.as_deref(), row.sequence, row.window_count))
            .collect();
        assert_eq!(
            names,
            [(Some("a"), Some("x"), Some(9), 2), (Some("a"), None, None, 2), (None, Some("x"), None, 2)]
        );
    }
}
