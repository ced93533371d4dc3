use std::time::Duration;

use testkit::{Database, NatsServer, eventually};
use time::OffsetDateTime;
use wire::reply::Code;
use wire::stats::{MAX_POINTS, Series};

use crate::helpers::*;

const ASK: &str = wire::subject::SERIES;

#[tokio::test]
async fn what_is_not_understood_is_refused_with_a_sentence() {
    let (nats, database) = (NatsServer::start().await, Database::empty().await);
    let recorder = Recorder::spawn(config(&nats, &database));
    let asker = Asker::connect(&nats).await;
    for question in [
        "ten minutes",
        "[1]",
        "{",
        "\u{0}",
        r#"{"range":10}"#,
        r#"{"range":"0s"}"#,
        r#"{"range":"-1m"}"#,
        r#"{"range":"367d"}"#,
        r#"{"range":"10m","step":"0s"}"#,
        r#"{"range":"10m","step":"1 m"}"#,
        r#"{"range":"10m","stpe":"1m"}"#,
        r#"{"range":null}"#,
    ] {
        let (code, sentence) = asker.refusal(ASK, question).await;
        assert_eq!(code, Code::BadRequest, "{question}");
        assert!(sentence.contains(r#"{"range":"10m"}"#), "{sentence}");
    }
    // Each only once: an unknown command is not also taken for a known one.
    for _ in 0..20 {
        let (code, sentence) = asker.refusal("stats.everything", "").await;
        assert_eq!(code, Code::NotFound);
        assert!(sentence.contains("stats.series") && sentence.contains("stats.everything"), "{sentence}");
        let _: Series = asker.ask(ASK, "").await;
    }
    recorder.stop().await.unwrap();
}

#[tokio::test]
async fn a_header_that_no_client_would_send_ends_no_process() {
    let (nats, database) = (NatsServer::start().await, Database::empty().await);
    let recorder = Recorder::spawn(config(&nats, &database));
    let asker = Asker::connect(&nats).await;
    for lines in ["X: a\rb", "no header"] {
        let _: Series = asker.ask(ASK, "").await;
        nats.publish_with_raw_headers("operator", ASK, lines).await;
        // What was asked over the connection that ends here stays without an answer.
        eventually("the recorder answers", SOON, async || {
            let asked = tokio::time::timeout(Duration::from_secs(1), asker.try_ask(ASK, "")).await;
            matches!(asked, Ok(Ok(_)))
        })
        .await;
    }
    recorder.stop().await.unwrap();
}

#[tokio::test]
async fn an_answer_without_windows_has_no_rows_and_says_its_range() {
    let (nats, database) = (NatsServer::start().await, Database::empty().await);
    let recorder = Recorder::spawn(config(&nats, &database));
    let asker = Asker::connect(&nats).await;
    for (question, range_s) in [("", 600), ("{}", 600), (r#"{"range":"7d","step":"1h"}"#, 7 * 86_400)] {
        let before = OffsetDateTime::now_utc();
        let series: Series = asker.ask(ASK, question).await;
        assert!(series.rows.is_empty() && series.step_ms > 0);
        assert_eq!((series.to - series.from).whole_seconds(), range_s);
        assert!((series.to - before).abs() < time::Duration::seconds(30));
    }
    recorder.stop().await.unwrap();
}

#[tokio::test]
async fn a_short_range_has_each_window_and_a_long_one_their_sums() {
    let (nats, database) = (NatsServer::start().await, Database::empty().await);
    let recorder = Recorder::spawn(config(&nats, &database));
    let worker = Worker::connect(&nats).await;
    // The last hour in windows of 5 s, without the tenth to twentieth minute.
    let start = (OffsetDateTime::now_utc().unix_timestamp() - 3600) / 5 * 5;
    let mut published = Vec::new();
    for at in (0..715).filter(|at| !(120..240).contains(at)) {
        let interval_start = OffsetDateTime::from_unix_timestamp(start + 5 * at).unwrap();
        let window = wire::Window { interval_start, ..window("life", at as u64 + 1) };
        worker.publish(&window).await;
        published.push(window);
    }
    let asker = Asker::connect(&nats).await;
    testkit::eventually("all windows are rows", SOON, async || {
        sequences(&database, "life").await.len() == published.len()
    })
    .await;

    let short: Series = asker.ask(ASK, "").await;
    assert_eq!(short.step_ms, 5000);
    let expected: Vec<_> = published.iter().filter(|window| window.interval_start >= short.from).collect();
    assert_eq!(short.rows.len(), expected.len());
    for (row, window) in short.rows.iter().zip(&expected) {
        assert_eq!((row.interval_start, row.sequence), (window.interval_start, Some(window.sequence)));
        assert_eq!((row.counters, row.window_count), (window.counters, 1));
    }

    let long: Series = asker.ask(ASK, r#"{"range":"2h"}"#).await;
    assert_eq!(long.step_ms, 20_000);
    assert!(long.rows.len() as u64 <= MAX_POINTS);
    let sum = |field: fn(&wire::Counters) -> u64| {
        let rows: u64 = long.rows.iter().map(|row| field(&row.counters)).sum();
        let windows: u64 = published.iter().map(|window| field(&window.counters)).sum();
        (rows, windows)
    };
    for (rows, windows) in [sum(|c| c.request_count), sum(|c| c.hit_count), sum(|c| c.served_bytes)] {
        assert_eq!(rows, windows);
    }
    // The gap is longer than a step, and no step within it has a row.
    let gaps = long.rows.windows(2).filter(|pair| {
        (pair[1].interval_start - pair[0].interval_start).whole_milliseconds() > i128::from(long.step_ms)
    });
    assert_eq!(gaps.count(), 1);

    // The ten minutes before the last twenty, as one sum; and a range that ends before anything was recorded.
    let earlier: Series = asker.ask(ASK, r#"{"range":"10m","step":"10m","ago":"20m"}"#).await;
    let expected =
        published.iter().filter(|window| (earlier.from..earlier.to).contains(&window.interval_start));
    let expected: u64 = expected.map(|window| window.counters.request_count).sum();
    assert_eq!((earlier.to - earlier.from).whole_seconds(), 600);
    assert!((OffsetDateTime::now_utc() - earlier.to).whole_seconds() >= 1200);
    assert_eq!(earlier.rows.iter().map(|row| row.counters.request_count).sum::<u64>(), expected);
    assert!(expected > 0);
    let nothing: Series = asker.ask(ASK, r#"{"range":"1d","ago":"2h"}"#).await;
    assert!(nothing.rows.is_empty());

    let minutes: Series = asker.ask(ASK, r#"{"range":"2h","step":"1m"}"#).await;
    assert_eq!(minutes.step_ms, 60_000);
    assert!(minutes.rows.iter().all(|row| row.interval_start.unix_timestamp() % 60 == 0));
    assert!(minutes.rows.iter().any(|row| row.window_count == 12 && row.interval_ms == 60_000));
    recorder.stop().await.unwrap();
}
