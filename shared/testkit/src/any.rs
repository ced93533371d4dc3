//! Arbitrary input for property tests, both absurd and nearly right.
//!
//! The properties that use it hold for every input. `bench/fuzz` runs them for any length of time, and `PROPTEST_CASES`
//! sets the number of cases at a time. Each run has a seed of its own.

use std::ops::Range;
use std::path::Path;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::{Config, TestRunner};

use crate::basics::repository_root;

/// The runner of a property whose cases need servers, so that they are fewer than usual: `cases`, unless
/// `PROPTEST_CASES` gives another number. A failing case is shrunk and printed, and stored nowhere.
///
/// # Panics
/// When `PROPTEST_CASES` is no number.
pub fn runner(cases: u32) -> TestRunner {
    let given = std::env::var("PROPTEST_CASES").ok();
    let cases = given.map_or(cases, |text| text.parse().expect("PROPTEST_CASES is a number"));
    TestRunner::new(Config { cases, failure_persistence: None, max_shrink_time: 20_000, ..Config::default() })
}

/// `bytes` with a few of them overwritten, taken out or put in.
pub fn nearly(bytes: impl Strategy<Value = Vec<u8>>, edits: Range<usize>) -> impl Strategy<Value = Vec<u8>> {
    (bytes, vec((0..4_u8, any::<Index>(), any::<u8>()), edits)).prop_map(|(mut bytes, edits)| {
        for (kind, at, byte) in edits {
            match kind {
                _ if bytes.is_empty() => bytes.push(byte),
                0 => {
                    let at = at.index(bytes.len());
                    bytes[at] = byte;
                }
                1 => drop(bytes.remove(at.index(bytes.len()))),
                2 => bytes.truncate(at.index(bytes.len())),
                _ => bytes.insert(at.index(bytes.len()), byte),
            }
        }
        bytes
    })
}

/// A small image of one of the four formats, as an encoder wrote it.
///
/// # Panics
/// When the files are not there.
pub fn image() -> impl Strategy<Value = Vec<u8>> {
    let folder = repository_root().join("shared/sniff/fixtures");
    let mut images: Vec<_> = std::fs::read_dir(folder)
        .expect("the fixtures are there")
        .map(|entry| entry.expect("the folder can be read").path())
        .filter(|path| path.extension().is_some_and(|extension| extension != "md"))
        .collect();
    images.sort();
    select(images).prop_map(|path: std::path::PathBuf| read(&path))
}

fn read(path: &Path) -> Vec<u8> {
    std::fs::read(path).expect("a fixture can be read")
}

/// JSON, or nearly JSON: objects with the `fields` of some message, and values that may or may not suit them.
pub fn json(fields: &'static [&'static str]) -> impl Strategy<Value = Vec<u8>> {
    const WORDS: [&str; 24] = [
        "null",
        "true",
        "0",
        "1",
        "-1",
        "100",
        "1001",
        "4294967296",
        "18446744073709551615",
        "1e400",
        "1.5",
        "-0",
        "\"\"",
        "\"lru\"",
        "\"clock_pro\"",
        "\"10m\"",
        "\"366d\"",
        "\"1ms\"",
        "\"hit\"",
        "\"size\"",
        "\"2026-01-02T03:04:05Z\"",
        "\"9999-12-31T23:59:59-01:00\"",
        "\"\\ud83d\"",
        "\"\\u0000\"",
    ];
    let text = ".{0,20}".prop_map(|text| serde_json::Value::from(text).to_string());
    let plain = prop_oneof![4 => select(&WORDS[..]).prop_map(str::to_owned), 1 => any::<i128>().prop_map(|n| n.to_string()),
        1 => text.clone()];
    let name = prop_oneof![9 => select(fields).prop_map(|name| format!("\"{name}\"")), 1 => text];
    let value = plain.prop_recursive(2, 8, 3, {
        let name = name.clone();
        move |inner| {
            prop_oneof![
                vec(inner.clone(), 0..3).prop_map(list),
                vec((name.clone(), inner), 0..3).prop_map(object)
            ]
        }
    });
    let object = vec((name, value), 0..10).prop_map(|fields| object(fields).into_bytes());
    prop_oneof![6 => object.clone(), 3 => nearly(object, 1..4), 1 => vec(any::<u8>(), 0..200)]
}

fn list(values: Vec<String>) -> String {
    format!("[{}]", values.join(","))
}

fn object(fields: Vec<(String, String)>) -> String {
    let fields: Vec<String> = fields.into_iter().map(|(name, value)| format!("{name}:{value}")).collect();
    format!("{{{}}}", fields.join(","))
}
