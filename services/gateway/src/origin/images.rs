//! The rows of `images`: which key has which file.

use sqlx::mysql::MySqlPool;
use time::OffsetDateTime;
use wire::{Key, Tag};

use crate::error::Error;

/// One row of `images`: all that is known of an image but its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageRow {
    /// The key.
    pub key: Key,
    /// The name of the file in the image store.
    pub location: String,
    /// `image/png`, `image/jpeg`, `image/gif` or `image/webp`.
    pub content_type: String,
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
    /// When this image was stored. Each change is at least a second later than the one before.
    pub updated_at: OffsetDateTime,
}

/// The columns of an [`ImageRow`], as they come.
type Columns = (Vec<u8>, String, String, u64, u32, u32, Vec<u8>, OffsetDateTime, OffsetDateTime);

impl TryFrom<Columns> for ImageRow {
    type Error = Error;

    fn try_from(columns: Columns) -> Result<Self, Error> {
        let (key, location, content_type, size, width, height, sha256, created_at, updated_at) = columns;
        let corrupt = |what: &str| {
            Error::Internal(anyhow::anyhow!("a row of images holds a {what} that the gateway did not write"))
        };
        Ok(Self {
            key: Key::from_bytes(&key).map_err(|_| corrupt("key"))?,
            location,
            content_type,
            size,
            width,
            height,
            tag: Tag(sha256.try_into().map_err(|_| corrupt("sha256"))?),
            created_at,
            updated_at,
        })
    }
}

/// Reads the table `images`. Writing is `upload`'s business, within its transactions.
#[derive(Debug, Clone)]
pub struct Images {
    pool: MySqlPool,
}

impl Images {
    /// On this pool.
    pub fn new(pool: MySqlPool) -> Self {
        Self { pool }
    }

    /// The row of `key`.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when MySQL does not answer.
    pub async fn get(&self, key: &Key) -> Result<Option<ImageRow>, Error> {
        let columns: Option<Columns> = sqlx::query_as(
            "SELECT image_key, location, content_type, size, width, height, sha256, created_at, updated_at \
             FROM images WHERE image_key = ?",
        )
        .bind(key.as_str().as_bytes())
        .fetch_optional(&self.pool)
        .await?;
        columns.map(ImageRow::try_from).transpose()
    }

    /// Up to `limit` rows whose keys begin with `prefix` and come behind `after`, sorted by key, byte
    /// for byte.
    ///
    /// # Errors
    /// As [`Images::get`].
    pub async fn page(&self, prefix: &str, after: Option<&str>, limit: u32) -> Result<Vec<ImageRow>, Error> {
        let columns: Vec<Columns> = sqlx::query_as(
            "SELECT image_key, location, content_type, size, width, height, sha256, created_at, updated_at \
             FROM images WHERE image_key > ? AND image_key >= ? AND (? OR image_key < ?) \
             ORDER BY image_key LIMIT ?",
        )
        .bind(after.unwrap_or_default().as_bytes())
        .bind(prefix.as_bytes())
        .bind(prefix.is_empty())
        .bind(behind(prefix.as_bytes()))
        .bind(limit)
        .fetch_all(&self.pool)
        .await?;
        columns.into_iter().map(ImageRow::try_from).collect()
    }

    /// How many images are stored.
    ///
    /// # Errors
    /// As [`Images::get`].
    pub async fn count(&self) -> Result<u64, Error> {
        let count: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM images").fetch_one(&self.pool).await?;
        Ok(u64::try_from(count).unwrap_or_default())
    }

    /// The `limit` images stored last, the newest first.
    ///
    /// # Errors
    /// As [`Images::get`].
    pub async fn newest(&self, limit: u32) -> Result<Vec<ImageRow>, Error> {
        let columns: Vec<Columns> = sqlx::query_as(
            "SELECT image_key, location, content_type, size, width, height, sha256, created_at, updated_at \
             FROM images ORDER BY updated_at DESC, image_key LIMIT ?",
        )
        .bind(limit)
        .fetch_all(&self.pool)
        .await?;
        columns.into_iter().map(ImageRow::try_from).collect()
    }
}

/// The first string of bytes behind all that begin with `prefix`. No UTF-8 contains the byte 0xFF, so
/// the last byte can always be raised.
fn behind(prefix: &[u8]) -> Vec<u8> {
    let mut bound = prefix.to_vec();
    if let Some(last) = bound.last_mut() {
        *last = last.saturating_add(1);
    }
    bound
}
