//! Brings the sizes of images up to date, in rows that have those of the file instead of those at which browsers show it.
//!
//! Such rows were written by an earlier version, or come from a backup of its database. Nothing else of a row changes, and
//! the cache holds no sizes, so it need not be told.

use std::collections::HashMap;
use std::time::Duration;

use futures_util::StreamExt as _;
use sniff::{Format, Image, Limits, Sniffer};
use sqlx::{MySql, QueryBuilder};
use tokio_util::sync::CancellationToken;

use crate::blobs::{BlobError, Blobs};
use crate::error::Error;
use crate::identity::{Identity, Standing};
use crate::images::Images;
use crate::rows::{answered, corrupt};

/// How many rows are read at once, and how many are written at once.
const PAGE: u32 = 2000;
const BATCH: usize = 100;
/// How much of a file is read at least, and until its header has come. The Exif block comes before that.
const HEAD_BYTES: usize = 256 << 10;
/// How often all rows are looked through.
const INTERVAL: Duration = Duration::from_secs(24 * 3600);
/// The pause after a failure, and while store and database do not belong together.
const RETRY: Duration = Duration::from_secs(600);

/// A row whose size is not known to be right.
struct Candidate {
    key: Vec<u8>,
    location: String,
    size: u64,
    /// Whether browsers may show it turned.
    may_be_turned: bool,
}

/// Looks through all rows at once and then every day, until the stop.
pub async fn run(
    identity: Identity,
    images: Images,
    blobs: Blobs,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    loop {
        let work = bring_up_to_date(&identity, &images, &blobs);
        let pause = match shutdown.run_until_cancelled(work).await {
            None => return Ok(()),
            Some(Ok(Some(0))) => INTERVAL,
            Some(Ok(Some(rows))) => {
                tracing::info!(rows, "the sizes of images are those at which they are shown");
                INTERVAL
            }
            Some(Ok(None)) => RETRY,
            Some(Err(error)) => {
                tracing::warn!(
                    error = error.to_string(),
                    "the sizes of images can't be brought up to date: it is tried again later"
                );
                RETRY
            }
        };
        if shutdown.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
            return Ok(());
        }
    }
}

/// Looks through all rows once, and returns how many were brought up to date. None if store and database do not belong
/// together.
///
/// # Errors
/// [`Error::Unavailable`] when MySQL or the store does not answer.
pub async fn bring_up_to_date(
    identity: &Identity,
    images: &Images,
    blobs: &Blobs,
) -> Result<Option<u64>, Error> {
    let Standing::Joined(_) = identity.settle().await? else { return Ok(None) };
    let (mut after, mut rows) = (Vec::new(), 0);
    loop {
        let (candidates, last) = page(images, &after).await?;
        let mut upright = Vec::new();
        for candidate in candidates {
            let turned = if candidate.may_be_turned { turned(blobs, &candidate).await? } else { Some(None) };
            match turned {
                Some(Some(size)) => rows += set_size(images, &candidate, size).await?,
                Some(None) => upright.push(candidate),
                // Without its file, nothing is known of it.
                None => {}
            }
        }
        for batch in upright.chunks(BATCH) {
            rows += set_upright(images, batch).await?;
        }
        match last {
            Some(last) => after = last,
            None => return Ok(Some(rows)),
        }
    }
}

/// The candidates among the next rows behind a key, and the last key of those rows; none if there are no more.
async fn page(images: &Images, after: &[u8]) -> Result<(Vec<Candidate>, Option<Vec<u8>>), Error> {
    let question = sqlx::query_as(
        "SELECT image_key, location, content_type, size, upright FROM images WHERE image_key > ? \
         ORDER BY image_key LIMIT ?",
    );
    let question = question.bind(after).bind(PAGE).fetch_all(images.database());
    let rows: Vec<(Vec<u8>, String, String, u64, bool)> = answered(question).await?;
    let last = rows.last().map(|(key, ..)| key.clone());
    let mut candidates = Vec::new();
    for (key, location, content_type, size, _) in rows.into_iter().filter(|(.., is_upright)| !is_upright) {
        let format = Format::from_content_type(&content_type).ok_or_else(|| corrupt("content type"))?;
        let may_be_turned = matches!(format, Format::Jpeg | Format::Png);
        candidates.push(Candidate { key, location, size, may_be_turned });
    }
    Ok((candidates, last))
}

/// The size at which an image is shown, if it is turned. None if its file is gone.
async fn turned(blobs: &Blobs, candidate: &Candidate) -> Result<Option<Option<Image>>, Error> {
    let head = async {
        let mut pieces = blobs.open(&candidate.location, candidate.size, 0..candidate.size).await?;
        let mut sniffer = Sniffer::new(Limits { max_pixels: u64::MAX });
        let mut read = 0;
        while let Some(piece) = pieces.next().await {
            let piece = piece?;
            // What was stored once may be no image by today's rules: its size stays what it is.
            if sniffer.push(&piece).is_err() {
                return Ok(None);
            }
            read += piece.len();
            if read >= HEAD_BYTES && sniffer.header().is_some() {
                break;
            }
        }
        Ok(sniffer.header().filter(|_| sniffer.is_turned()).map(|image| image.turned(true)))
    };
    match head.await {
        Ok(size) => Ok(Some(size)),
        Err(BlobError::Gone(_) | BlobError::Damaged { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

async fn set_size(images: &Images, candidate: &Candidate, size: Image) -> Result<u64, Error> {
    let change = sqlx::query(
        "UPDATE images SET width = ?, height = ?, upright = TRUE WHERE image_key = ? AND location = ?",
    );
    let change = change.bind(size.width).bind(size.height).bind(&candidate.key[..]).bind(&candidate.location);
    Ok(answered(change.execute(images.database())).await?.rows_affected())
}

/// A location belongs to one row only, so no row gets what another one's file says.
async fn set_upright(images: &Images, batch: &[Candidate]) -> Result<u64, Error> {
    let by_key: HashMap<&[u8], &str> =
        batch.iter().map(|candidate| (&candidate.key[..], &*candidate.location)).collect();
    let mut change = QueryBuilder::<MySql>::new("UPDATE images SET upright = TRUE WHERE image_key IN (");
    let mut keys = change.separated(", ");
    for key in by_key.keys() {
        keys.push_bind(*key);
    }
    keys.push_unseparated(") AND location IN (");
    let mut locations = change.separated(", ");
    for location in by_key.values() {
        locations.push_bind(*location);
    }
    locations.push_unseparated(")");
    Ok(answered(change.build().execute(images.database())).await?.rows_affected())
}
