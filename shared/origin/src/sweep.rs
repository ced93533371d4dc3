//! The sweep moves files that no row names to the trash, and removes them from there after some days.
//!
//! A crash between a file and its row, or between a row and the removal of the file that it replaced, leaves such a
//! file. A database that was restored from a backup leaves such files too. Its next sweep finds in the trash the files
//! that its rows name, and puts them back. Nothing is swept while store and database do not belong together, or when it
//! would be too much at once.

use std::collections::HashSet;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::blobs::{Blobs, Listed};
use crate::census::{self, BATCH, Census};
use crate::error::Error;
use crate::identity::{Identity, Standing};
use crate::images::Images;
use crate::rounds::repeat;
use crate::swept::Swept;
use crate::ties::Ties;

/// How old a file must be. The file of an upload whose row is not written yet is younger: an upload takes at most half
/// an hour.
pub const AGE: Duration = Duration::from_secs(3600);
/// How often the sweep goes through all files.
const INTERVAL: Duration = Duration::from_secs(24 * 3600);
/// The pause after a sweep that failed, or that left everything as it was.
const RETRY: Duration = Duration::from_secs(600);
/// The pause while nothing may be changed, as during a restore from a backup.
const APART_RETRY: Duration = Duration::from_secs(10);

/// The limits of a sweep.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// How old a file must be, by the store's clock.
    pub age: Duration,
    /// How long a file stays in the trash; zero: there is none.
    pub trash: Duration,
    /// The most of all files that are taken away at once, in percent; one file always may.
    pub max_percent: u64,
}

/// Sweeps at once and then every day, until the stop.
pub async fn run(
    identity: Identity,
    images: Images,
    blobs: Blobs,
    rules: Rules,
    ties: Ties,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let round = async || match sweep(&identity, &images, &blobs, rules).await {
        // The code that found them apart has logged it.
        Ok(None) => APART_RETRY,
        Ok(Some(swept)) => {
            swept.log(rules.max_percent);
            let pause = if swept.held { RETRY } else { INTERVAL };
            ties.note_sweep(swept);
            pause
        }
        Err(error) => {
            tracing::warn!(error = error.to_string(), "the sweep failed: it is tried again later");
            RETRY
        }
    };
    repeat(&shutdown, round).await;
    Ok(())
}

/// Sweeps once. None if store and database do not belong together.
pub async fn sweep(
    identity: &Identity,
    images: &Images,
    blobs: &Blobs,
    rules: Rules,
) -> Result<Option<Swept>, Error> {
    let Standing::Joined(id) = identity.settle().await? else { return Ok(None) };
    let now = blobs.probe().await?;
    let census = census::take(images, blobs).await?;
    let old = |files: Vec<Listed>, age: Duration| -> Vec<Listed> {
        files.into_iter().filter(|file| file.age(now) >= age).collect()
    };
    let (unnamed, leftovers) = (old(census.unnamed, rules.age), old(census.leftovers, rules.age));
    let discarded = old(census.discarded, rules.trash);
    let mut swept = Swept {
        files: census.files,
        unnamed: unnamed.len() as u64,
        oldest: Census::oldest(&unnamed, now),
        missing: census.rows_without_file,
        ..Swept::default()
    };
    // Store or database may have been exchanged while they were read.
    if identity.settle().await? != Standing::Joined(id) {
        return Ok(None);
    }
    for location in &census.wanted {
        swept.put_back += u64::from(blobs.put_back(location).await?);
    }
    swept.files += swept.put_back;
    if swept.unnamed > most(swept.files, rules.max_percent) {
        return Ok(Some(Swept { held: true, ..swept }));
    }
    for file in still_unnamed(images, &unnamed).await? {
        blobs.discard_image(&file.location).await?;
        swept.moved += 1;
    }
    for file in &leftovers {
        blobs.remove_listed(&file.location).await?;
        swept.leftovers += 1;
    }
    let discarded = still_unnamed(images, &discarded).await?;
    swept.oldest_purged = Census::oldest(discarded.iter().copied(), now);
    for file in discarded {
        blobs.purge(&file.location).await?;
        swept.purged += 1;
    }
    Ok(Some(swept))
}

/// The most files that one sweep may take away.
fn most(files: u64, max_percent: u64) -> u64 {
    files.saturating_mul(max_percent).div_ceil(100)
}

/// The files that still no row names. The rows are asked again right before the files are moved or removed.
async fn still_unnamed<'a>(images: &Images, files: &'a [Listed]) -> Result<Vec<&'a Listed>, Error> {
    let mut unnamed = Vec::with_capacity(files.len());
    for batch in files.chunks(BATCH) {
        let locations: Vec<String> = batch.iter().map(|file| file.location.clone()).collect();
        let named: HashSet<String> = images.named(&locations).await?.into_iter().collect();
        unnamed.extend(batch.iter().filter(|file| !named.contains(&file.location)));
    }
    Ok(unnamed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenth_is_taken_away_at_once_and_one_file_always_may() {
        for (files, percent, expected) in
            [(0, 10, 0), (1, 10, 1), (10, 10, 1), (11, 10, 2), (1000, 10, 100), (47, 100, 47), (47, 0, 0)]
        {
            assert_eq!(most(files, percent), expected, "{percent} % of {files}");
        }
    }
}
