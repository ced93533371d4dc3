//! Rows of images as they come from MySQL, and what all statements have in common.

use std::time::Duration;

use sniff::Format;
use time::OffsetDateTime;
use tokio::time::timeout;
use wire::{Key, Tag};

use crate::dates::Dates;
use crate::error::Error;

/// How long a query or a transaction may take. A database that does not answer counts as unavailable.
pub(crate) const STATEMENT_LIMIT: Duration = Duration::from_secs(10);
/// MySQL's codes for a deadlock and for a lock that did not become free in time. Nothing was changed.
pub(crate) const LOCK_IS_TAKEN: [u16; 2] = [1213, 1205];

/// One row of `images`: everything known of an image except its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageRow {
    /// The key.
    pub key: Key,
    /// The name of the file in the image store.
    pub location: String,
    /// The format of its bytes.
    pub format: Format,
    /// The file's size in bytes.
    pub size: u64,
    /// Pixels across.
    pub width: u32,
    /// Pixels down.
    pub height: u32,
    /// SHA-256 of the bytes.
    pub tag: Tag,
    /// When something was first stored under the key.
    pub created_at: OffsetDateTime,
    /// When this image was stored.
    pub dates: Dates,
}

/// The columns of an [`ImageRow`], as MySQL returns them.
pub(crate) type Columns =
    (Vec<u8>, String, String, u64, u32, u32, Vec<u8>, OffsetDateTime, OffsetDateTime, Option<OffsetDateTime>);

impl TryFrom<Columns> for ImageRow {
    type Error = Error;

    fn try_from(columns: Columns) -> Result<Self, Error> {
        let (key, location, content_type, size, width, height, sha256, created_at, updated_at, earlier_at) =
            columns;
        Ok(Self {
            key: Key::from_bytes(&key).map_err(|_| corrupt("key"))?,
            location,
            format: Format::from_content_type(&content_type).ok_or_else(|| corrupt("content type"))?,
            size,
            width,
            height,
            tag: Tag(sha256.try_into().map_err(|_| corrupt("sha256"))?),
            created_at,
            dates: Dates { updated_at, earlier_at },
        })
    }
}

/// Whether MySQL has answered with one of these codes.
pub(crate) fn is_one_of(error: &sqlx::Error, codes: &[u16]) -> bool {
    let error = error.as_database_error();
    let error = error.and_then(|error| error.try_downcast_ref::<sqlx::mysql::MySqlDatabaseError>());
    error.is_some_and(|error| codes.contains(&error.number()))
}

/// The result of a query, if it comes within [`STATEMENT_LIMIT`].
pub(crate) async fn answered<T>(question: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, Error> {
    match timeout(STATEMENT_LIMIT, question).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(no_answer()),
    }
}

pub(crate) fn no_answer() -> Error {
    Error::Unavailable { part: "MySQL", reason: format!("no answer within {} s", STATEMENT_LIMIT.as_secs()) }
}

pub(crate) fn corrupt(what: &str) -> Error {
    Error::Internal(anyhow::anyhow!("a row of images holds a {what} that the gateway did not write"))
}

/// The first string of bytes behind all that begin with `prefix`. No UTF-8 contains the byte 0xFF, so
/// the last byte can always be raised.
pub(crate) fn behind(prefix: &[u8]) -> Vec<u8> {
    let mut bound = prefix.to_vec();
    if let Some(last) = bound.last_mut() {
        *last = last.saturating_add(1);
    }
    bound
}
