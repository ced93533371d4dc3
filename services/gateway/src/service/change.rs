//! Changes of the images: store, delete, and tell the cache of it. A change goes on even if its client closes the
//! connection.

use std::future::Future;

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, stream};
use origin::blobs::unavailable;
use origin::images::Change;
use origin::pending::Note;
use origin::upload::{self, Staged, UploadLimits, discard};
use origin::{ImageRow, OriginId};
use wire::Key;
use wire::inspect::{ClearReply, InvalidateReply};

use super::state::AppState;
use crate::conditional::WriteConditions;
use crate::error::Error;

/// How many files are removed at once when everything is deleted.
const REMOVALS_AT_ONCE: usize = 16;

/// An image that was stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stored {
    /// Its row as it is now.
    pub(crate) row: ImageRow,
    /// Whether nothing was stored under the key before.
    pub(crate) created: bool,
}

impl AppState {
    /// The limits of an upload, in bytes and in pixels.
    pub(crate) fn upload_limits(&self) -> UploadLimits {
        UploadLimits { max_bytes: self.config.max_image_bytes(), max_pixels: self.config.max_image_pixels() }
    }

    /// Takes in the body of an upload, as [`upload::receive`] does, if anything may be stored.
    pub(crate) async fn receive(
        &self,
        body: impl Stream<Item = Result<Bytes, Error>>,
    ) -> Result<Staged, Error> {
        self.ties.may_change()?;
        let received = upload::receive(&self.blobs, self.upload_limits(), body).await;
        if let Err(Error::Unavailable { .. }) = &received {
            self.ties.look_soon();
        }
        received
    }

    /// Stores a received image under `key`, if `conditions` hold, and tells the cache. It goes on even if the
    /// client closes its connection.
    ///
    /// # Errors
    /// [`Error::PreconditionFailed`]; [`Error::StillTelling`] when it is stored and the cache may not know
    /// it yet; [`Error::Unavailable`].
    pub(crate) async fn store(
        &self,
        key: Key,
        staged: Staged,
        conditions: WriteConditions,
    ) -> Result<Stored, Error> {
        let state = self.clone();
        self.see_through(async move { state.store_now(&key, staged, &conditions).await }).await
    }

    async fn store_now(
        &self,
        key: &Key,
        mut staged: Staged,
        conditions: &WriteConditions,
    ) -> Result<Stored, Error> {
        let id = self.ties.may_change()?;
        let size = staged.image()?.size;
        let location = staged.image()?.location.clone();
        let refill = self.config.fill_on_upload.refill(!self.blobs.is_folder());
        let uploaded = staged.take_bytes().filter(|_| refill.is_some());
        let uploaded = uploaded.and_then(|uploaded| self.reader.hold(uploaded, size));
        let Change { note, outcome } = match self.images.put(key, staged.image()?, conditions).await {
            Ok(change) => change,
            Err(failed) => {
                if failed.may_have_committed {
                    // A row may name the file. If none does, the sweep finds it.
                    staged.keep();
                }
                return Err(failed.error.into());
            }
        };
        let written = match outcome {
            Ok(written) => written,
            Err(unmet) => return self.tell(&note, "", Err(unmet.into())).await,
        };
        let may_be_gone = staged.may_be_gone();
        staged.keep();
        let refill = refill.filter(|_| self.reader.may_refill(size));
        // The file may have been taken away between its last byte and the row, and a row without a file is no stored
        // image.
        let held = async { if may_be_gone { self.holds(&location, id).await } else { Ok(()) } };
        let (told, held) = tokio::join!(self.teller.tell_to_refill(&note, refill), held);
        if told.is_some() {
            self.teller.forget(note, &self.changes);
        }
        if let Err(error) = held {
            self.ties.look_soon();
            // It is rarely reached, and large.
            return Err(Box::pin(self.take_back(key, &location, written.previous, error)).await);
        }
        self.metrics.count_upload(size);
        self.reader.expect(&written.row.key, size);
        self.reader.variants().make_later(&written.row, &self.config.variants_at_upload.0);
        let created = written.previous.is_none();
        if let Some(previous) = written.previous {
            self.discard_later(previous.location);
        }
        let Some(told) = told else {
            return Err(Error::StillTelling { done: "the image is stored, but not yet confirmed" });
        };
        if let Some(granted) = told.granted {
            let (state, item) = (self.clone(), written.row.key.clone().into());
            self.reader
                .fill_tasks()
                .spawn(async move { state.reader.refill(&item, granted, uploaded).await });
        }
        Ok(Stored { created, row: written.row })
    }

    /// Makes sure that the file that a row names now is at `location`, and puts it back there if that is possible.
    async fn holds(&self, location: &str, id: OriginId) -> Result<(), Error> {
        if self.blobs.holds(location, id).await.map_err(|error| unavailable(&error))? {
            return Ok(());
        }
        if self.blobs.put_back(location).await.map_err(|error| unavailable(&error))?
            && self.blobs.holds(location, id).await.map_err(|error| unavailable(&error))?
        {
            return Ok(());
        }
        Err(Error::Unavailable {
            part: "the image store",
            reason: "the file of this image was gone before the upload could be answered".to_owned(),
        })
    }

    /// Gives a key back its previous image, because it is not certain that the file of the new one is there. Returns
    /// the error to answer with.
    async fn take_back(&self, key: &Key, location: &str, previous: Option<ImageRow>, error: Error) -> Error {
        let note = match self.images.take_back(key, location, previous.as_ref()).await {
            Ok(Some(note)) => note,
            // Another upload has replaced it already.
            Ok(None) => return error,
            Err(failed) => {
                Error::from(failed.error).log();
                return error;
            }
        };
        // The file may be there all the same, behind a store that does not answer.
        self.discard_later(location.to_owned());
        if self.teller.tell(&note).await {
            self.teller.forget(note, &self.changes);
        }
        match error {
            Error::Unavailable { part, reason } => {
                Error::Unavailable { part, reason: format!("{reason}; nothing was changed") }
            }
            error => error,
        }
    }

    /// Deletes the image under `key`, if `conditions` hold, and tells the cache.
    ///
    /// # Errors
    /// [`Error::NoImage`]; otherwise as for storing.
    pub(crate) async fn delete(&self, key: &Key, conditions: WriteConditions) -> Result<(), Error> {
        let (state, key) = (self.clone(), key.clone());
        self.see_through(async move {
            state.ties.may_change()?;
            let change = state.images.delete(&key, &conditions).await.map_err(|failed| failed.error)?;
            let outcome = change.outcome.map_err(Error::from);
            let outcome = outcome.and_then(|deleted| deleted.ok_or(Error::NoImage(key)));
            let outcome = outcome.map(|location| state.discard_later(location));
            state.tell(&change.note, "the image is deleted, but not yet confirmed", outcome).await
        })
        .await
    }

    /// Deletes all images, and says how many there were.
    ///
    /// # Errors
    /// [`Error::StillTelling`] when they are deleted and the cache may not know it yet;
    /// [`Error::Unavailable`] when MySQL fails; some of them may be deleted by then.
    pub(crate) async fn delete_all(&self) -> Result<u64, Error> {
        let state = self.clone();
        self.see_through(async move {
            state.ties.may_change()?;
            let mut after = Vec::new();
            let mut count = 0;
            loop {
                let batch = state.images.delete_batch(&after).await.map_err(|failed| failed.error)?;
                count += batch.locations.len() as u64;
                stream::iter(&batch.locations)
                    .for_each_concurrent(REMOVALS_AT_ONCE, |location| discard(&state.blobs, location))
                    .await;
                match batch.last {
                    Some(last) => after = last,
                    None => {
                        let outcome = Ok(count);
                        return state
                            .tell(&batch.note, "all images are deleted, but not yet confirmed", outcome)
                            .await;
                    }
                }
            }
        })
        .await
    }

    /// Drops everything that is cached; the images stay stored. `by` goes into the history.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when no worker that serves answers; a refusal in the worker's own words.
    pub(crate) async fn clear_cache(&self, by: &str) -> Result<ClearReply, Error> {
        self.teller.clear(by).await
    }

    /// Drops what is cached under `key`, the copies of gateways included; the image stays stored.
    ///
    /// # Errors
    /// As [`AppState::clear_cache`].
    pub(crate) async fn drop_cached(&self, key: &Key) -> Result<InvalidateReply, Error> {
        self.teller.drop_cached(key).await
    }

    /// Tells the cache of a change, and returns `outcome` once it has acknowledged.
    async fn tell<T>(&self, note: &Note, done: &'static str, outcome: Result<T, Error>) -> Result<T, Error> {
        if self.teller.tell(note).await {
            self.teller.forget(note.clone(), &self.changes);
            return outcome;
        }
        let done = if outcome.is_ok() {
            done
        } else {
            "nothing was changed by this request, and an earlier change is not yet confirmed"
        };
        Err(Error::StillTelling { done })
    }

    /// Runs a change to its end, even if the client closes its connection.
    async fn see_through<T: Send + 'static>(
        &self,
        change: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> Result<T, Error> {
        match self.changes.spawn(change).await {
            Ok(done) => done,
            Err(error) => Err(Error::Internal(anyhow::Error::new(error).context("a change broke off"))),
        }
    }

    fn discard_later(&self, location: String) {
        let blobs = self.blobs.clone();
        self.changes.spawn(async move { discard(&blobs, &location).await });
    }

    /// Waits for the changes on their way.
    pub(crate) async fn finish_changes(&self) {
        self.changes.close();
        self.changes.wait().await;
    }

    /// Waits for the fills on their way.
    pub(crate) async fn finish_fills(&self) {
        self.reader.finish_fills().await;
    }
}
