//! What all handlers share.

use std::ops::Deref;
use std::sync::Arc;

use serde::Serialize;
use wire::{Key, Tag};

use crate::cache::CacheClient;
use crate::config::Config;
use crate::error::Error;
use crate::origin::images::{ImageRow, Images};
use crate::read::ReadOutcome;
use crate::views::Views;

/// Everything that a handler needs. Cloning it is cheap.
#[derive(Clone)]
pub struct AppState(Arc<Shared>);

/// What an [`AppState`] points to.
pub struct Shared {
    /// The settings.
    pub config: Config,
    /// The page templates.
    pub views: Views,
    /// The rows of the images.
    pub images: Images,
    /// The memcache worker and the recorder.
    pub cache: CacheClient,
}

impl Deref for AppState {
    type Target = Shared;
    fn deref(&self) -> &Shared {
        &self.0
    }
}

/// An image that was stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Its row as it is now.
    pub row: ImageRow,
    /// Whether nothing was stored under the key before.
    pub created: bool,
}

/// Whether a part of the system is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Part {
    /// Whether it can be used.
    pub ok: bool,
    /// In a few words: what is wrong, or what it is.
    pub message: String,
}

/// Which parts of the system are there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Health {
    /// The bus.
    pub nats: Part,
    /// The memcache worker.
    pub memcache: Part,
    /// The stats recorder.
    pub recorder: Part,
    /// The database and its tables.
    pub mysql: Part,
}

impl Health {
    /// The parts with their names, in the order in which they are shown.
    pub fn parts(&self) -> [(&'static str, &Part); 4] {
        [
            ("nats", &self.nats),
            ("memcache", &self.memcache),
            ("recorder", &self.recorder),
            ("mysql", &self.mysql),
        ]
    }

    /// Whether all of them can be used.
    pub fn is_ready(&self) -> bool {
        self.parts().iter().all(|(_, part)| part.ok)
    }
}

impl AppState {
    /// Reads the image under `key`, from the cache where that is possible. `held` is the tag of the
    /// bytes that the asker has already.
    ///
    /// # Errors
    /// [`Error::NoImage`]; [`Error::Unavailable`] when it is not cached and the origin does not answer.
    pub async fn read(&self, key: &Key, held: Option<Tag>) -> Result<ReadOutcome, Error> {
        let _ = held;
        Err(Error::NoImage(key.clone()))
    }

    /// Deletes the image under `key`.
    ///
    /// # Errors
    /// [`Error::NoImage`]; [`Error::StillTelling`] when it is deleted and the cache may not know it yet.
    pub async fn delete(&self, key: &Key) -> Result<(), Error> {
        Err(Error::NoImage(key.clone()))
    }

    /// Deletes all images, and says how many there were.
    ///
    /// # Errors
    /// As [`AppState::delete`].
    pub async fn delete_all(&self) -> Result<u64, Error> {
        Ok(0)
    }

    /// Asks all parts whether they are there. Takes at most a second.
    pub async fn health(&self) -> Health {
        let part = Part { ok: true, message: String::new() };
        Health { nats: part.clone(), memcache: part.clone(), recorder: part.clone(), mysql: part }
    }
}
