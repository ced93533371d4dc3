//! Brings the sizes of images up to date, in rows that have those of the file instead of those at which browsers show it.
//!
//! Such rows were written by an earlier version, or come from a backup of its database. Nothing else of a row changes, and
//! the cache holds no sizes, so it need not be told.

use std::time::Duration;

use futures_util::StreamExt as _;
use sniff::{Format, Image, Limits, Sniffer};
use sqlx::{MySql, QueryBuilder};
use tokio_util::sync::CancellationToken;

use crate::blobs::{BlobError, Blobs};
use crate::error::Error;
use crate::identity::{Identity, Standing};
use crate::images::Images;
use crate::rounds::repeat;
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

/// What the file of a row says about its size.
enum Found {
    /// It is shown with its sides exchanged, so this is its size.
    Turned(Image),
    /// The size in the row is right: an image is shown as it is stored, unless it is turned by a quarter.
    AsStored,
    /// Nothing, because the file is gone or damaged.
    Nothing,
}

/// Looks through all rows at once and then every day, until the stop.
pub async fn run(
    identity: Identity,
    images: Images,
    blobs: Blobs,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let round = async || match bring_up_to_date(&identity, &images, &blobs).await {
        Ok(None) => RETRY,
        Ok(Some(rows)) => {
            if rows > 0 {
                tracing::info!(rows, "the sizes of images are those at which they are shown");
            }
            INTERVAL
        }
        Err(error) => {
            tracing::warn!(
                error = error.to_string(),
                "the sizes of images can't be brought up to date: it is tried again later"
            );
            RETRY
        }
    };
    repeat(&shutdown, round).await;
    Ok(())
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
        let mut right = Vec::new();
        for candidate in candidates {
            let found =
                if candidate.may_be_turned { look(blobs, &candidate).await? } else { Found::AsStored };
            match found {
                Found::Turned(size) => rows += set_size(images, &candidate, size).await?,
                Found::AsStored => right.push(candidate),
                Found::Nothing => {}
            }
        }
        for batch in right.chunks(BATCH) {
            rows += set_right(images, batch).await?;
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
        "SELECT image_key, location, content_type, size, sized_location <=> location FROM images \
         WHERE image_key > ? ORDER BY image_key LIMIT ?",
    );
    let question = question.bind(after).bind(PAGE).fetch_all(images.database());
    let rows: Vec<(Vec<u8>, String, String, u64, bool)> = answered(question).await?;
    let last = rows.last().map(|(key, ..)| key.clone());
    let mut candidates = Vec::new();
    for (key, location, content_type, size, _) in rows.into_iter().filter(|(.., is_right)| !is_right) {
        let format = Format::from_content_type(&content_type).ok_or_else(|| corrupt("content type"))?;
        let may_be_turned = matches!(format, Format::Jpeg | Format::Png);
        candidates.push(Candidate { key, location, size, may_be_turned });
    }
    Ok((candidates, last))
}

/// Looks into the file of a row.
async fn look(blobs: &Blobs, candidate: &Candidate) -> Result<Found, Error> {
    let head = async {
        let mut pieces = blobs.open(&candidate.location, candidate.size, 0..candidate.size).await?;
        let mut sniffer = Sniffer::new(Limits { max_pixels: u64::MAX });
        let mut read = 0;
        while let Some(piece) = pieces.next().await {
            let piece = piece?;
            // What was stored once may be no image by today's rules: its size stays what it is.
            if sniffer.push(&piece).is_err() {
                return Ok(Found::AsStored);
            }
            read += piece.len();
            if read >= HEAD_BYTES && sniffer.header().is_some() {
                break;
            }
        }
        let stored = sniffer.header();
        let turned =
            stored.map(|image| image.shown(sniffer.orientation())).filter(|image| Some(*image) != stored);
        Ok(turned.map_or(Found::AsStored, Found::Turned))
    };
    match head.await {
        Ok(found) => Ok(found),
        Err(BlobError::Gone(_) | BlobError::Damaged { .. }) => Ok(Found::Nothing),
        Err(error) => Err(error.into()),
    }
}

async fn set_size(images: &Images, candidate: &Candidate, size: Image) -> Result<u64, Error> {
    let change = sqlx::query(
        "UPDATE images SET width = ?, height = ?, sized_location = location WHERE image_key = ? AND location = ?",
    );
    let change = change.bind(size.width).bind(size.height).bind(&candidate.key[..]).bind(&candidate.location);
    Ok(answered(change.execute(images.database())).await?.rows_affected())
}

/// A location belongs to one row only, so no row gets what another one's file says.
async fn set_right(images: &Images, batch: &[Candidate]) -> Result<u64, Error> {
    let mut change =
        QueryBuilder::<MySql>::new("UPDATE images SET sized_location = location WHERE image_key IN (");
    let mut keys = change.separated(", ");
    for candidate in batch {
        keys.push_bind(&candidate.key[..]);
    }
    keys.push_unseparated(") AND location IN (");
    let mut locations = change.separated(", ");
    for candidate in batch {
        locations.push_bind(&*candidate.location);
    }
    locations.push_unseparated(")");
    Ok(answered(change.build().execute(images.database())).await?.rows_affected())
}
