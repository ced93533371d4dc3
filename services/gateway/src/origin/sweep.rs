//! The sweep: removes files that no row names, and variants of such.
//!
//! A crash between a file and its row, or between a row and the removal of the file that it replaced,
//! leaves such a file; nothing else depends on it.

use std::collections::HashSet;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::blobs::{Blobs, SHELVES};
use super::images::Images;
use super::variants::original_of;
use crate::error::Error;

/// How old a file must be. An upload that is still on its way to its row is younger: it may take half an
/// hour at most.
pub(crate) const AGE: Duration = Duration::from_secs(3600);
/// How often the sweep goes through all files.
const INTERVAL: Duration = Duration::from_secs(24 * 3600);
/// How soon it tries again when it failed.
const RETRY: Duration = Duration::from_secs(600);
/// How many files one question to the rows is about.
const BATCH: usize = 500;

/// Sweeps at once and then every day, until the stop.
pub(crate) async fn run(images: Images, blobs: Blobs, shutdown: CancellationToken) -> anyhow::Result<()> {
    loop {
        let pause = match shutdown.run_until_cancelled(sweep(&images, &blobs, AGE)).await {
            None => return Ok(()),
            Some(Ok(0)) => INTERVAL,
            Some(Ok(removed)) => {
                tracing::info!(removed, "files that no row names were swept away");
                INTERVAL
            }
            Some(Err(error)) => {
                tracing::warn!(error = error.message(), "the sweep of files that no row names failed");
                RETRY
            }
        };
        if shutdown.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
            return Ok(());
        }
    }
}

/// Removes the files older than `age` that no row names, and says how many they were.
///
/// The files are listed first and the rows asked afterwards. A file on the list was complete or abandoned
/// long before, so a row that names it was there before the question, and a row that does not name it then
/// never will: names are never used twice.
pub(crate) async fn sweep(images: &Images, blobs: &Blobs, age: Duration) -> Result<u64, Error> {
    let mut removed = 0;
    for shelf in SHELVES {
        let old = blobs.older_than(age, shelf).await?;
        for batch in old.chunks(BATCH) {
            let originals: Vec<String> =
                batch.iter().map(|location| original_of(location).to_owned()).collect();
            let named: HashSet<String> = images.named(&originals).await?.into_iter().collect();
            for location in batch.iter().filter(|location| !named.contains(original_of(location))) {
                blobs.sweep_away(location).await?;
                removed += 1;
            }
        }
    }
    Ok(removed)
}
