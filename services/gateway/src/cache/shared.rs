//! Large images in files that the worker on this machine shares: the bus carries their names only.
//!
//! A worker tells its folder with its answers. From then on each get says that this folder can be read here, if it can. A
//! file that the worker or this gateway can't read costs nothing but the way over the bus: all images take it for a minute then.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use runtime::shelf::{Shelf, Shelved};
use wire::Meta;
use wire::shelf::Folder;

/// From this many bytes on, an image is handed over by a file. Smaller ones cost less on the bus.
pub(crate) const LARGE_BYTES: usize = 64 << 10;
/// The time after which files are tried again, when one could not be read.
const AGAIN: Duration = Duration::from_secs(60);

/// The files of the worker, and those of this gateway.
#[derive(Debug)]
pub(crate) struct Shared {
    shelf: Shelf,
    /// The folder that the worker told last, and whether it can be read here. No folder has the number 0.
    told: AtomicU64,
    can_read: AtomicBool,
    /// Whether the worker could not read a file of this gateway.
    is_unread: AtomicBool,
    /// When both are tried again, in milliseconds since `began`; 0: nothing has failed.
    again_ms: AtomicU64,
    began: Instant,
}

impl Shared {
    pub(crate) fn new(shelf: Shelf) -> Self {
        Self {
            shelf,
            told: AtomicU64::new(0),
            can_read: AtomicBool::new(false),
            is_unread: AtomicBool::new(false),
            again_ms: AtomicU64::new(0),
            began: Instant::now(),
        }
    }

    /// The folder whose files can be read here.
    pub(crate) fn folder(&self) -> Option<Folder> {
        self.can_read.load(Ordering::Acquire).then(|| Folder(self.told.load(Ordering::Relaxed)))
    }

    /// Notes the folder that an answer of the worker tells.
    pub(crate) fn note(&self, answer: &Meta) {
        let Some(folder) = answer.shelf else { return };
        if self.told.swap(folder.0, Ordering::Relaxed) != folder.0 || self.is_due() {
            self.again_ms.store(0, Ordering::Relaxed);
            let can_read = self.shelf.can_read(folder);
            self.can_read.store(can_read, Ordering::Release);
            self.is_unread.store(false, Ordering::Relaxed);
            tracing::debug!(%folder, can_read, "the worker shares files");
        }
    }

    fn is_due(&self) -> bool {
        let again_ms = self.again_ms.load(Ordering::Relaxed);
        again_ms != 0 && self.began.elapsed().as_millis() >= u128::from(again_ms)
    }

    fn try_again_later(&self) {
        let again = self.began.elapsed() + AGAIN;
        self.again_ms.store(u64::try_from(again.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// The bytes of an answer that names a file with at most `most`; none if it names none, or one that is gone or can't be
    /// read. In the last case no further one is asked for within [`AGAIN`].
    pub(crate) fn read(&self, answer: &Meta, most: u64) -> Option<Bytes> {
        let (file, size) = (answer.file?, answer.size.filter(|size| *size <= most)?);
        self.shelf
            .read(file, size)
            .inspect_err(|error| {
                tracing::debug!(%error, %file, "a shared file is not there");
                if error.kind() != io::ErrorKind::NotFound {
                    self.can_read.store(false, Ordering::Release);
                    self.try_again_later();
                }
            })
            .ok()
    }

    /// The bytes of a fill in a file, if the worker can be expected to read it.
    pub(crate) fn write(&self, bytes: &[u8]) -> Option<Shelved> {
        if bytes.len() < LARGE_BYTES || self.folder().is_none() || self.is_unread.load(Ordering::Relaxed) {
            return None;
        }
        self.shelf.write(bytes).ok()
    }

    /// Notes that the worker could not read a file of this gateway: fills go over the bus for [`AGAIN`].
    pub(crate) fn note_unread(&self) {
        if !self.is_unread.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                "fills cross the bus for a minute, because the worker can't read the files of this gateway"
            );
            self.try_again_later();
        }
    }
}
