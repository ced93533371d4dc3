//! The check that store and database belong together: one id in both, made at the first start.
//!
//! A gateway with another database would take all files for unnamed, and one with another store all images for lost. So
//! both hold the id of their installation: the store in the file `pixcache-id`, the database in the one row of
//! `origin_identity`. A gateway that finds two different ids, or only one, changes nothing.
//!
//! The row is written first and is *unconfirmed* until the file is there. The file is written only if there is none. So
//! gateways that start at once agree on one id, and a start that broke off goes on where it was. Of two databases that
//! are given one store, the second is refused.

use std::time::Duration;

use sql::Database;
use sqlx::{Connection as _, MySqlConnection};
use tokio::time::timeout;

use crate::blobs::{BlobError, Blobs};
use crate::census::{self, Census};
use crate::error::{Error, STORE};
use crate::id::{NoId, OriginId};
use crate::images::Images;
use crate::pending::{self, Note, Scope};
use crate::rows::answered;

/// How long the rows and files of an installation of the version before may be counted.
const CENSUS_LIMIT: Duration = Duration::from_secs(3600);
/// How often both ids are read at most, when they change while they are read.
const MAX_ROUNDS: u32 = 5;

/// Why store and database do not belong together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Mismatch {
    /// They are of two installations.
    #[error("the image store has the id {store} and the database {database}: they are of two installations")]
    Differ {
        /// The id of the store.
        store: OriginId,
        /// The id of the database.
        database: OriginId,
    },
    /// The database is new, or from before there were ids.
    #[error("the image store has the id {store} and the database none, so it is not this store's database")]
    DatabaseHasNone {
        /// The id of the store.
        store: OriginId,
    },
    /// The store is new, not mounted, or from before there were ids.
    #[error(
        "the database has the id {database} and the image store none, so it is not this database's store"
    )]
    StoreHasNone {
        /// The id of the database.
        database: OriginId,
    },
    /// The file with the store's id was emptied or damaged.
    #[error("the file pixcache-id in the image store holds no id of 32 hexadecimal digits")]
    StoreIdUnreadable,
    /// Neither has an id, and only the store has something in it.
    #[error("the image store has files and the database no image, so it is not this store's database")]
    FilesAlone,
    /// Neither has an id, and files are missing.
    #[error("of {rows} images in the database {missing} have no file in the image store")]
    FilesMissing {
        /// The rows.
        rows: u64,
        /// The rows whose file is missing.
        missing: u64,
    },
}

impl Mismatch {
    /// The problem and its remedies, in sentences for the operator.
    pub fn advice(&self) -> String {
        format!(
            "{self}. Nothing is stored, deleted or swept until they belong together: give this gateway the right \
             ones (IMAGE_DIR or BLOB_URL, GATEWAY_DATABASE_URL), restore what was lost from a backup, or join these \
             two with `bin/adopt` (`gateway adopt`), which first says what it finds"
        )
    }
}

/// Whether store and database belong together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// They belong together.
    Joined(OriginId),
    /// They do not belong together.
    Apart(Mismatch),
}

/// The ids of both, as they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ids {
    /// The id of the store.
    pub store: Option<OriginId>,
    /// Whether the store has a file for its id that does not hold one.
    pub store_is_unreadable: bool,
    /// The id of the database.
    pub database: Option<OriginId>,
    /// Whether the database knows that the store has the id too.
    confirmed: bool,
}

/// Access to the ids of store and database. Clones share it.
#[derive(Debug, Clone)]
pub struct Identity {
    database: Database,
    images: Images,
    blobs: Blobs,
}

impl Identity {
    /// For this database and this store.
    pub fn new(database: Database, images: Images, blobs: Blobs) -> Self {
        Self { database, images, blobs }
    }

    /// Both ids.
    pub async fn ids(&self) -> Result<Ids, Error> {
        let mut rounds = 0;
        loop {
            let before = self.database_id().await?;
            let (store, store_is_unreadable) = match self.blobs.id().await {
                Err(BlobError::NoId(_)) => (None, true),
                id => (id?, false),
            };
            let after = self.database_id().await?;
            rounds += 1;
            // If the two differ, another program is giving them an id at this moment.
            if before == after || rounds == MAX_ROUNDS {
                let (database, confirmed) =
                    after.map_or((None, false), |(id, confirmed)| (Some(id), confirmed));
                return Ok(Ids { store, store_is_unreadable, database, confirmed });
            }
        }
    }

    /// Finds out whether they belong together. At the very first start it joins them.
    pub async fn settle(&self) -> Result<Standing, Error> {
        let ids = self.ids().await?;
        if ids.store_is_unreadable {
            return Ok(Standing::Apart(Mismatch::StoreIdUnreadable));
        }
        match (ids.database, ids.store) {
            (Some(database), Some(store)) if database == store => {
                if !ids.confirmed {
                    self.confirm(database).await?;
                }
                Ok(Standing::Joined(database))
            }
            (Some(database), Some(store)) => Ok(Standing::Apart(Mismatch::Differ { store, database })),
            (None, Some(store)) => Ok(Standing::Apart(Mismatch::DatabaseHasNone { store })),
            (Some(database), None) if ids.confirmed => {
                Ok(Standing::Apart(Mismatch::StoreHasNone { database }))
            }
            (unconfirmed, None) => self.join(unconfirmed).await,
        }
    }

    /// Joins both at the first start, or at the first start after a version that knew no ids.
    async fn join(&self, unconfirmed: Option<OriginId>) -> Result<Standing, Error> {
        let has_rows = self.images.count(1).await? > 0;
        if has_rows {
            let counted = timeout(CENSUS_LIMIT, census::take(&self.images, &self.blobs)).await;
            let Census { rows, rows_without_file: missing, .. } = counted.unwrap_or_else(|_| {
                Err(Error::Unavailable { part: STORE, reason: "it takes too long to list".into() })
            })?;
            if missing > 0 {
                return Ok(Standing::Apart(Mismatch::FilesMissing { rows, missing }));
            }
        } else if self.blobs.has_files().await? {
            return Ok(Standing::Apart(Mismatch::FilesAlone));
        }
        let id = match unconfirmed {
            Some(id) => id,
            None => self.offer_to_database(OriginId::draw()).await?,
        };
        self.blobs.offer_id(id).await?;
        match self.blobs.id().await? {
            Some(store) if store == id => {
                self.confirm(id).await?;
                tracing::info!(%id, store = self.blobs.describe(), "image store and database were given an id");
                Ok(Standing::Joined(id))
            }
            Some(store) => Ok(Standing::Apart(Mismatch::Differ { store, database: id })),
            None => Err(Error::Unavailable {
                part: STORE,
                reason: "its id was removed as soon as it was there".into(),
            }),
        }
    }

    /// Joins a store and a database that do not belong together, under a new id. Another gateway that has only one of
    /// the two is refused from now on. The cache is cleared, since it may hold images of another database.
    pub async fn adopt(&self) -> Result<OriginId, Error> {
        let id = OriginId::draw();
        let change = async {
            let mut held = self.database.acquire().await?;
            let changed = Self::replace_in_database(&mut held, id).await;
            held.give_back(&changed);
            changed
        };
        answered(change).await?;
        self.blobs.replace_id(id).await?;
        self.confirm(id).await?;
        Ok(id)
    }

    async fn replace_in_database(connection: &mut MySqlConnection, id: OriginId) -> Result<(), sqlx::Error> {
        let mut transaction = connection.begin().await?;
        pending::note(&mut transaction, &Note::new(Scope::Everything)).await?;
        sqlx::query(
            "INSERT INTO origin_identity (one, id, confirmed, made_at) VALUES (1, ?, 0, UTC_TIMESTAMP(6)) \
                 ON DUPLICATE KEY UPDATE id = VALUES(id), confirmed = 0, made_at = VALUES(made_at)",
        )
        .bind(id.to_string())
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await
    }

    async fn database_id(&self) -> Result<Option<(OriginId, bool)>, Error> {
        let question = sqlx::query_as("SELECT id, confirmed FROM origin_identity WHERE one = 1");
        let row: Option<(String, bool)> = answered(question.fetch_optional(&self.database)).await?;
        let Some((id, confirmed)) = row else { return Ok(None) };
        let id = id.parse().map_err(|error: NoId| {
            Error::Internal(anyhow::Error::new(error).context("origin_identity holds something else"))
        })?;
        Ok(Some((id, confirmed)))
    }

    /// Gives the database an id unless it has one, and returns the id that it has now.
    async fn offer_to_database(&self, id: OriginId) -> Result<OriginId, Error> {
        let offer = sqlx::query(
            "INSERT INTO origin_identity (one, id, confirmed, made_at) VALUES (1, ?, 0, UTC_TIMESTAMP(6)) \
             ON DUPLICATE KEY UPDATE one = 1",
        );
        answered(offer.bind(id.to_string()).execute(&self.database)).await?;
        Ok(self.database_id().await?.map_or(id, |(id, _)| id))
    }

    async fn confirm(&self, id: OriginId) -> Result<(), Error> {
        let confirmation = sqlx::query("UPDATE origin_identity SET confirmed = 1 WHERE one = 1 AND id = ?");
        answered(confirmation.bind(id.to_string()).execute(&self.database)).await?;
        Ok(())
    }
}
