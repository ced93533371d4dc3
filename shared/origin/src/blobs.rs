//! The files of the images, in a folder or in S3-compatible storage.
//!
//! A file is written once, under a name of its own that says nothing about its key, and never changed. The rows alone
//! say which file belongs to which key. A file that no row names any more lies in `trash/` for some days, so that a
//! database restored from a backup finds its files.
//!
//! Each call has a time limit. A network folder that hangs keeps a thread for each call. Once a probe has found that it
//! hangs, further calls fail at once.

use std::fs::File;
use std::io::{ErrorKind, Seek as _, SeekFrom, Write as _};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::stream::{self, BoxStream};
use futures_util::{Stream, StreamExt as _, TryStreamExt as _};
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::local::LocalFileSystem;
use object_store::path::Path as StorePath;
use object_store::{
    ClientConfigKey, GetOptions, GetRange, GetResult, GetResultPayload, ObjectStore, ObjectStoreExt as _,
    PutMode, PutPayload, PutPayloadMut, RetryConfig, WriteMultipart,
};
use rustix::fs::{Advice, Timespec, Timestamps, UTIME_NOW, fadvise, futimens};
use tokio::io::AsyncReadExt as _;
use tokio::time::timeout;
use tokio_util::io::ReaderStream;
use wire::Variant;

use crate::error::{Error, STORE};
use crate::id::OriginId;
use crate::names::{SHELVES, is_location, location_of, new_location, shelf_name};

/// How much of an upload is collected before it is written. S3 takes no smaller parts than 5 MiB.
const S3_PART_BYTES: usize = 5 << 20;
/// The same for the folder, which has no such minimum.
const FOLDER_PART_BYTES: usize = 1 << 20;
/// How many parts of one upload may be on their way at once: one is written while the next comes in.
const PARTS_IN_FLIGHT: usize = 2;
/// How much of a file is read at once while it is sent.
const READ_BYTES: usize = 128 << 10;
/// The folder of the files that no row names any more, divided into the same shelves.
const TRASH: &str = "trash";
/// The file that says which installation the store belongs to.
const ID_FILE: &str = "pixcache-id";
/// The file that a probe writes, to find out whether the store can be written to and what time its clock shows.
const PROBE_FILE: &str = "pixcache-probe";
/// The size of the probe: large enough for a full disk to refuse it.
const PROBE_BYTES: usize = 16 << 10;
/// The kinds of local filesystems, by the numbers of statfs(2): ext2 to ext4, XFS, Btrfs, F2FS, ZFS, tmpfs, overlayfs.
const LOCAL: [u64; 7] =
    [0xef53, 0x5846_5342, 0x9123_683e, 0xf2f5_2010, 0x2fc1_2fc1, 0x0102_1994, 0x794c_7630];
/// How often a call to S3 is tried again, within the time limit of the call.
const S3_RETRIES: usize = 2;

/// The bytes of a file, piece by piece.
pub type Pieces = BoxStream<'static, Result<Bytes, BlobError>>;

/// Why a file can't be read or written.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// There is no such file. Its image was replaced or deleted since the row was read.
    #[error("the file {0} is gone")]
    Gone(String),
    /// The file is not what the row says.
    #[error("the file {location} has {found} bytes, and its row says {expected}")]
    Damaged {
        /// The name of the file.
        location: String,
        /// Its size.
        found: u64,
        /// The size in the row.
        expected: u64,
    },
    /// The storage failed.
    #[error("the image store failed")]
    Store(#[from] object_store::Error),
    /// The folder failed.
    #[error("the image folder failed")]
    Folder(#[from] std::io::Error),
    /// The file of the store's id holds something else.
    #[error("{ID_FILE} must be 32 hexadecimal digits, got {0:?}")]
    NoId(String),
    /// The storage accepts calls and does not answer them.
    #[error("no answer within {} s (STORE_TIMEOUT_S)", .0.as_secs())]
    TimedOut(Duration),
}

impl BlobError {
    /// The error with its causes, in one line.
    pub fn reason(&self) -> String {
        let mut text = self.to_string();
        let mut source = std::error::Error::source(self);
        while let Some(error) = source {
            text.push_str(": ");
            text.push_str(&error.to_string());
            source = error.source();
        }
        text
    }
}

impl From<BlobError> for Error {
    fn from(error: BlobError) -> Self {
        match error {
            BlobError::Store(_) | BlobError::Folder(_) | BlobError::TimedOut(_) | BlobError::NoId(_) => {
                unavailable(&error)
            }
            BlobError::Gone(_) | BlobError::Damaged { .. } => Self::FileMissing(error.to_string()),
        }
    }
}

/// The failure of the store as an error of the origin.
pub fn unavailable(error: &BlobError) -> Error {
    Error::Unavailable { part: STORE, reason: error.reason() }
}

/// The place of a file in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The place of the files that rows name.
    Images,
    /// The place of the files that wait to be removed.
    Trash,
}

/// A file in a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its name. In the trash it is the name that the file had before.
    pub location: String,
    /// When it was written or came into the trash, by the store's clock.
    pub written: SystemTime,
}

/// The image store. Clones share it.
#[derive(Debug, Clone)]
pub struct Blobs {
    store: Arc<dyn ObjectStore>,
    /// The folder, unless the files are in S3.
    folder: Option<Arc<Path>>,
    /// The prefix of each name, in S3.
    prefix: String,
    part_bytes: usize,
    /// How long a call may take.
    limit: Duration,
    /// Whether files go to the trash before they are removed.
    has_trash: bool,
    /// Whether the last probe found that the folder hangs.
    hangs: Arc<AtomicBool>,
    /// Whether the folder is on a disk of this machine.
    is_local: bool,
}

impl Blobs {
    /// The files in a folder on this machine, which is made if it is not there.
    ///
    /// # Errors
    /// When it can't be made or not be opened.
    pub fn in_folder(folder: &Path, limit: Duration, has_trash: bool) -> anyhow::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let folder = folder.canonicalize()?;
        if let Some(parent) = folder.parent() {
            File::open(parent)?.sync_all()?;
        }
        // All shelves are made before the first upload, which would otherwise wait for them to be on the disk.
        for shelf in SHELVES {
            std::fs::create_dir_all(folder.join(shelf_name(shelf)))?;
        }
        File::open(&folder)?.sync_all()?;
        let store = LocalFileSystem::new_with_prefix(&folder)?.with_fsync(true);
        let is_local = is_local(&folder)?;
        Ok(Self {
            store: Arc::new(store),
            folder: Some(folder.into()),
            prefix: String::new(),
            part_bytes: FOLDER_PART_BYTES,
            limit,
            has_trash,
            hangs: Arc::default(),
            is_local,
        })
    }

    /// The files in S3-compatible storage, at `s3://bucket/prefix`. The account, the region and the
    /// endpoint come from the `AWS_…` variables that all tools for S3 read.
    ///
    /// # Errors
    /// When the URL or the variables make no sense. Nothing is contacted yet.
    pub fn in_s3(url: &str, limit: Duration, has_trash: bool) -> anyhow::Result<Self> {
        Self::in_bucket(AmazonS3Builder::from_env(), url, limit, has_trash)
    }

    fn in_bucket(
        builder: AmazonS3Builder,
        url: &str,
        limit: Duration,
        has_trash: bool,
    ) -> anyhow::Result<Self> {
        let path = url.strip_prefix("s3://").unwrap_or_default();
        let (bucket, prefix) = path.split_once('/').unwrap_or((path, ""));
        anyhow::ensure!(!bucket.is_empty(), "BLOB_URL is {url:?}; it must look like s3://bucket/prefix");
        // object_store leaves the choice of a TLS implementation to the process. An implementation that was chosen
        // already is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        // A connection that hangs must leave time for another one.
        let retry = RetryConfig { max_retries: S3_RETRIES, retry_timeout: limit, ..RetryConfig::default() };
        let of_client = |key| AmazonS3ConfigKey::Client(key);
        let store = builder
            .with_bucket_name(bucket)
            .with_retry(retry)
            .with_config(of_client(ClientConfigKey::Timeout), milliseconds(limit))
            .with_config(of_client(ClientConfigKey::ReadTimeout), milliseconds(limit / 2))
            .with_config(of_client(ClientConfigKey::ConnectTimeout), milliseconds(limit / 2))
            .build()?;
        let prefix = match prefix.trim_matches('/') {
            "" => String::new(),
            prefix => format!("{}/", StorePath::parse(prefix)?),
        };
        Ok(Self {
            store: Arc::new(store),
            folder: None,
            prefix,
            part_bytes: S3_PART_BYTES,
            limit,
            has_trash,
            hangs: Arc::default(),
            is_local: false,
        })
    }

    /// The place of the files, for people.
    pub fn describe(&self) -> String {
        match &self.folder {
            Some(folder) => folder.display().to_string(),
            None => format!("{}{}", self.store, self.prefix),
        }
    }

    /// Whether the files are in a folder.
    pub fn is_folder(&self) -> bool {
        self.folder.is_some()
    }

    /// The answer to a call, if it comes in time.
    async fn within<T, E: Into<BlobError>>(
        &self,
        call: impl Future<Output = Result<T, E>>,
    ) -> Result<T, BlobError> {
        if self.hangs.load(Ordering::Relaxed) {
            return Err(BlobError::TimedOut(self.limit));
        }
        self.in_time(call).await
    }

    async fn in_time<T, E: Into<BlobError>>(
        &self,
        call: impl Future<Output = Result<T, E>>,
    ) -> Result<T, BlobError> {
        match timeout(self.limit, call).await {
            Ok(answer) => answer.map_err(Into::into),
            Err(_) => Err(BlobError::TimedOut(self.limit)),
        }
    }

    /// Runs work in the folder on a thread that may wait for the disk.
    async fn in_folder_now<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
    ) -> Result<T, BlobError> {
        self.within(blocking(work)).await
    }

    /// A new file, with a name that no other ever had.
    pub fn create(&self) -> BlobWriter {
        BlobWriter {
            blobs: self.clone(),
            location: new_location(),
            size: 0,
            held: PutPayloadMut::new(),
            parts: None,
        }
    }

    /// The whole file, in memory. Only for files that are known to be small enough.
    pub async fn read(&self, location: &str, size: u64) -> Result<Bytes, BlobError> {
        let bytes = self.read_any(location).await?;
        check_size(location, bytes.len() as u64, size)?;
        Ok(bytes)
    }

    /// As [`Blobs::read`], whatever size the file has.
    pub async fn read_any(&self, location: &str) -> Result<Bytes, BlobError> {
        match &self.folder {
            // This takes one trip to the thread pool, where object_store makes two.
            Some(folder) => match self.within(tokio::fs::read(folder.join(location))).await {
                Ok(bytes) => Ok(bytes.into()),
                Err(BlobError::Folder(error)) if error.kind() == ErrorKind::NotFound => {
                    Err(BlobError::Gone(location.to_owned()))
                }
                Err(error) => Err(error),
            },
            None => {
                let found = self.get(location, GetOptions::default()).await?;
                self.within(found.bytes()).await
            }
        }
    }

    /// How many bytes the file has.
    pub async fn size_of(&self, location: &str) -> Result<u64, BlobError> {
        Ok(self.get(location, GetOptions { head: true, ..GetOptions::default() }).await?.meta.size)
    }

    /// Writes a small file under a name that follows from another one. Writing it twice has the same result.
    pub async fn put(&self, location: &str, bytes: Bytes) -> Result<(), BlobError> {
        self.within(self.store.put(&self.path(location), bytes.into())).await?;
        Ok(())
    }

    /// A range of the file, read while it is sent. The file is open when this returns, so a removal afterwards does no
    /// harm.
    pub async fn open(&self, location: &str, size: u64, range: Range<u64>) -> Result<Pieces, BlobError> {
        let whole = range == (0..size);
        let options = if self.folder.is_some() || whole {
            GetOptions::default()
        } else {
            GetOptions { range: Some(GetRange::Bounded(range.clone())), ..GetOptions::default() }
        };
        let found = self.get(location, options).await?;
        check_size(location, found.meta.size, size)?;
        Ok(match found.payload {
            // object_store would read a file in pieces of 8 KiB, with a trip to the thread pool each.
            GetResultPayload::File(mut file, _) => {
                if range.start > 0 {
                    file.seek(SeekFrom::Start(range.start))?;
                }
                let part = tokio::fs::File::from_std(file).take(range.end - range.start);
                self.in_pieces(ReaderStream::with_capacity(part, READ_BYTES)).boxed()
            }
            GetResultPayload::Stream(stream) => self.in_pieces(stream).boxed(),
        })
    }

    /// The pieces of a file, each of which comes in time. A store that stops in the middle ends the answer.
    fn in_pieces<E: Into<BlobError> + Send + 'static>(
        &self,
        pieces: impl Stream<Item = Result<Bytes, E>> + Send + 'static,
    ) -> impl Stream<Item = Result<Bytes, BlobError>> + Send + 'static {
        let limit = self.limit;
        stream::unfold(Some(Box::pin(pieces)), move |pieces| async move {
            let mut pieces = pieces?;
            match timeout(limit, pieces.next()).await {
                Ok(piece) => Some((piece?.map_err(Into::into), Some(pieces))),
                Err(_) => Some((Err(BlobError::TimedOut(limit)), None)),
            }
        })
    }

    async fn get(&self, location: &str, options: GetOptions) -> Result<GetResult, BlobError> {
        self.within(self.store.get_opts(&self.path(location), options))
            .await
            .map_err(|error| gone(error, location))
    }

    /// Removes a file. It is no error if the file is gone already.
    pub async fn remove(&self, location: &str) -> Result<(), BlobError> {
        is_removed(self.within(self.store.delete(&self.path(location))).await)
    }

    /// Removes the file of an image that no row has ever named, and those of its variants.
    pub async fn remove_image(&self, location: &str) -> Result<(), BlobError> {
        self.take_away(location, false).await
    }

    /// Takes away the file of an image that no row names any more. Its variants can be made again, so they
    /// are removed.
    pub async fn discard_image(&self, location: &str) -> Result<(), BlobError> {
        self.take_away(location, self.has_trash).await
    }

    /// Moves the file of an image to the trash, or removes it, and removes the files of its variants. It is no error if
    /// one of them is gone already.
    async fn take_away(&self, location: &str, to_trash: bool) -> Result<(), BlobError> {
        let variants = Variant::ALL.map(|variant| location_of(location, variant));
        let Some(folder) = self.folder.clone() else {
            match to_trash {
                true => is_removed(self.move_to(Place::Trash, location).await)?,
                false => self.remove(location).await?,
            }
            for variant in &variants {
                self.remove(variant).await?;
            }
            return Ok(());
        };
        // All of it takes one trip to the thread pool.
        let location = location.to_owned();
        let taken = self.in_folder_now(move || {
            let original = folder.join(&location);
            let taken = if to_trash {
                move_file(Place::Trash, &original, &folder.join(placed(Place::Trash, &location)))
            } else {
                std::fs::remove_file(original)
            };
            let removed = variants.iter().map(|variant| std::fs::remove_file(folder.join(variant)));
            for done in std::iter::once(taken).chain(removed) {
                match done {
                    Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
            }
            Ok(())
        });
        taken.await
    }

    /// Brings a file back from the trash, because a row names it. Returns false if it is not there.
    pub async fn put_back(&self, location: &str) -> Result<bool, BlobError> {
        match self.move_to(Place::Images, location).await {
            Ok(()) => Ok(true),
            Err(BlobError::Gone(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Removes a file from the trash.
    pub async fn purge(&self, location: &str) -> Result<(), BlobError> {
        is_removed(self.within(self.store.delete(&self.path(&placed(Place::Trash, location)))).await)
    }

    /// Moves a file to `place` from the other place. In the trash its age begins anew.
    async fn move_to(&self, place: Place, location: &str) -> Result<(), BlobError> {
        let other = if place == Place::Trash { Place::Images } else { Place::Trash };
        let (from, to) = (placed(other, location), placed(place, location));
        let Some(folder) = &self.folder else {
            let moved = self.within(self.store.rename(&self.path(&from), &self.path(&to))).await;
            return moved.map_err(|error| gone(error, location));
        };
        let (from, to) = (folder.join(from), folder.join(to));
        let moved = self.in_folder_now(move || move_file(place, &from, &to));
        moved.await.map_err(|error| gone(error, location))
    }

    /// Whether a file that a row names is in the store, and the store has this id.
    ///
    /// On a local disk it is asked right here: the file was just written, so the kernel answers from memory, and a trip
    /// to another thread would take ten times as long. A network folder may take any time.
    pub async fn holds(&self, location: &str, id: OriginId) -> Result<bool, BlobError> {
        let Some(folder) = &self.folder else {
            return match self.within(self.store.head(&self.path(location))).await {
                Ok(_) => Ok(true),
                Err(BlobError::Store(object_store::Error::NotFound { .. })) => Ok(false),
                Err(error) => Err(error),
            };
        };
        let (file, id_file) = (folder.join(location), folder.join(ID_FILE));
        // If the folder is not mounted any more, its path leads to another folder.
        let look = move || {
            let has_id = std::fs::read_to_string(id_file)?.trim().parse() == Ok(id);
            Ok(has_id && file.symlink_metadata()?.is_file())
        };
        let looked = if self.is_local && !self.hangs.load(Ordering::Relaxed) {
            look().map_err(BlobError::Folder)
        } else {
            self.in_folder_now(look).await
        };
        match looked {
            Err(BlobError::Folder(error)) if error.kind() == ErrorKind::NotFound => Ok(false),
            looked => looked,
        }
    }

    /// The id of the store, if it has one.
    pub async fn id(&self) -> Result<Option<OriginId>, BlobError> {
        let text = match self.read_any(ID_FILE).await {
            Ok(bytes) => String::from_utf8_lossy(&bytes).trim().to_owned(),
            Err(BlobError::Gone(_)) => return Ok(None),
            Err(error) => return Err(error),
        };
        text.parse().map(Some).map_err(|_| BlobError::NoId(text.chars().take(40).collect()))
    }

    /// Gives the store an id unless it has one, in one step. [`Blobs::id`] tells the id that it has now.
    pub async fn offer_id(&self, id: OriginId) -> Result<(), BlobError> {
        let payload = PutPayload::from(format!("{id}\n"));
        let path = self.path(ID_FILE);
        match self.within(self.store.put_opts(&path, payload, PutMode::Create.into())).await {
            Ok(_) | Err(BlobError::Store(object_store::Error::AlreadyExists { .. })) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Gives the store this id, whatever id it had.
    pub async fn replace_id(&self, id: OriginId) -> Result<(), BlobError> {
        self.put(ID_FILE, Bytes::from(format!("{id}\n"))).await
    }

    /// Writes a small file, and returns the time by the store's clock. It makes the call even while the folder is known
    /// to hang, and notes whether it still does.
    pub async fn probe(&self) -> Result<SystemTime, BlobError> {
        let Some(folder) = &self.folder else {
            let path = self.path(PROBE_FILE);
            self.in_time(self.store.put(&path, PutPayload::from_static(b"probe"))).await?;
            return Ok(self.in_time(self.store.head(&path)).await?.last_modified.into());
        };
        let path = folder.join(PROBE_FILE);
        let probed = self.in_time(blocking(move || probe_folder(&path))).await;
        let hangs = matches!(probed, Err(BlobError::TimedOut(_)));
        self.hangs.store(hangs, Ordering::Relaxed);
        probed
    }

    /// Whether there is any image file, be it in place or in the trash.
    pub async fn has_files(&self) -> Result<bool, BlobError> {
        if self.folder.is_none() {
            let all = (!self.prefix.is_empty()).then(|| StorePath::from(self.prefix.trim_end_matches('/')));
            let mut objects = self.store.list(all.as_ref());
            while let Some(object) = self.within(objects.try_next()).await? {
                let name = object.location.as_ref().strip_prefix(&self.prefix).unwrap_or_default();
                let trashed = name.strip_prefix(TRASH).and_then(|name| name.strip_prefix('/'));
                if is_location(trashed.unwrap_or(name)) {
                    return Ok(true);
                }
            }
            return Ok(false);
        }
        for place in [Place::Images, Place::Trash] {
            for shelf in SHELVES {
                if !self.list(place, shelf).await?.is_empty() {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// The files on one of the [`SHELVES`], unfinished uploads included. Files with other names than those that this
    /// crate gives are left out.
    ///
    /// A folder is read directly, because object_store does not list unfinished uploads. Unfinished uploads in S3 are
    /// no objects at all. A lifecycle rule of the bucket removes them.
    pub async fn list(&self, place: Place, shelf: u8) -> Result<Vec<Listed>, BlobError> {
        let shelf = placed(place, &shelf_name(shelf));
        let Some(folder) = self.folder.clone() else { return self.list_s3(place, &shelf).await };
        let root = placed(place, "");
        self.in_folder_now(move || {
            let mut found = Vec::new();
            list_folder(&folder.join(root), &mut PathBuf::from(shelf_of(&shelf)), &mut found)?;
            Ok(found)
        })
        .await
    }

    async fn list_s3(&self, place: Place, shelf: &str) -> Result<Vec<Listed>, BlobError> {
        let root = format!("{}{}", self.prefix, placed(place, ""));
        let prefix = self.path(shelf);
        let mut objects = self.store.list(Some(&prefix));
        let mut found = Vec::new();
        while let Some(object) = self.within(objects.try_next()).await? {
            let location = object.location.as_ref().strip_prefix(&root).map(str::to_owned);
            if let Some(location) = location.filter(|location| is_location(location)) {
                found.push(Listed { location, written: object.last_modified.into() });
            }
        }
        Ok(found)
    }

    /// Removes a file that [`Blobs::list`] named and that is no original. object_store takes the names of unfinished
    /// uploads for invalid, so in a folder they are removed directly.
    pub async fn remove_listed(&self, location: &str) -> Result<(), BlobError> {
        let Some(folder) = &self.folder else { return self.remove(location).await };
        is_removed(self.within(tokio::fs::remove_file(folder.join(location))).await)
    }

    fn path(&self, location: &str) -> StorePath {
        StorePath::from(format!("{}{location}", self.prefix))
    }
}

/// Moves a file of the folder to `place` from the other place.
fn move_file(place: Place, from: &Path, to: &Path) -> std::io::Result<()> {
    if place == Place::Trash {
        touch(from)?;
    }
    match std::fs::rename(from, to) {
        // Either the trash has no shelf for the file yet, or there is no such file.
        Err(error) if error.kind() == ErrorKind::NotFound => {
            if let Some(shelf) = to.parent() {
                std::fs::create_dir_all(shelf)?;
            }
            std::fs::rename(from, to)
        }
        moved => moved,
    }
}

/// Runs work that may wait for the disk on a thread for such work.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> std::io::Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(std::io::Error::other(error)))
}

/// Whether a folder is on a disk of this machine, so that the kernel keeps what was just used of it in memory.
fn is_local(folder: &Path) -> std::io::Result<bool> {
    let kind = rustix::fs::statfs(folder)?.f_type;
    Ok(u64::try_from(kind).is_ok_and(|kind| LOCAL.contains(&kind)))
}

/// Makes the error of a missing file [`BlobError::Gone`].
fn gone(error: BlobError, location: &str) -> BlobError {
    match error {
        BlobError::Store(object_store::Error::NotFound { .. }) => BlobError::Gone(location.to_owned()),
        BlobError::Folder(error) if error.kind() == ErrorKind::NotFound => {
            BlobError::Gone(location.to_owned())
        }
        error => error,
    }
}

/// Takes the error of a missing file as success, for a file that was to be removed.
fn is_removed(removed: Result<(), BlobError>) -> Result<(), BlobError> {
    match removed.map_err(|error| gone(error, "")) {
        Err(BlobError::Gone(_)) => Ok(()),
        removed => removed,
    }
}

/// Sets a file's times to this moment, by the clock of the file system that holds it, and lets go of its pages in memory.
fn touch(path: &Path) -> std::io::Result<()> {
    // If both times are set to now, any user who may write to the file may set them, not only its owner.
    let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
    let file = File::open(path)?;
    futimens(&file, &Timestamps { last_access: now, last_modification: now })?;
    // The trash is not read. Its pages are of more use to the next upload; a system that keeps them does no harm.
    let _ = fadvise(&file, 0, None, Advice::DontNeed);
    Ok(())
}

/// Writes a file, and returns the time of that by the clock of the file system that holds it.
fn probe_folder(path: &Path) -> std::io::Result<SystemTime> {
    let probed = (|| {
        let mut file = File::create(path)?;
        file.write_all(&[b'x'; PROBE_BYTES])?;
        file.metadata()?.modified()
    })();
    match std::fs::remove_file(path) {
        // A missing file is no error: another gateway probes at the same moment.
        Err(error) if error.kind() != ErrorKind::NotFound => probed.and(Err(error)),
        _ => probed,
    }
}

fn milliseconds(limit: Duration) -> String {
    format!("{}ms", limit.as_millis())
}

/// A name in one of the places.
fn placed(place: Place, location: &str) -> String {
    match place {
        Place::Images => location.to_owned(),
        Place::Trash => format!("{TRASH}/{location}"),
    }
}

/// The last part of the path of a shelf.
fn shelf_of(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

fn check_size(location: &str, found: u64, expected: u64) -> Result<(), BlobError> {
    if found == expected {
        return Ok(());
    }
    Err(BlobError::Damaged { location: location.to_owned(), found, expected })
}

fn list_folder(root: &Path, inside: &mut PathBuf, found: &mut Vec<Listed>) -> std::io::Result<()> {
    let entries = match std::fs::read_dir(root.join(&*inside)) {
        Ok(entries) => entries,
        // No file has needed this shelf yet.
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        inside.push(entry.file_name());
        if entry.file_type()?.is_dir() {
            list_folder(root, inside, found)?;
        } else if let Some(name) = inside.to_str().filter(|name| is_location(name)) {
            // A file may disappear while the folder is read. It is then left out.
            let written = match entry.metadata().and_then(|metadata| metadata.modified()) {
                Ok(written) => Some(written),
                Err(error) if error.kind() == ErrorKind::NotFound => None,
                Err(error) => return Err(error),
            };
            found.extend(written.map(|written| Listed { location: name.to_owned(), written }));
        }
        inside.pop();
    }
    Ok(())
}

/// A file that is written.
#[derive(Debug)]
pub struct WrittenFile {
    /// Its name.
    pub location: String,
    /// Its size in bytes.
    pub size: u64,
    /// Its bytes, if it was so small that all of them were in memory.
    pub bytes: Option<PutPayload>,
}

/// A file that is being received. At most a few parts of it are in memory, whatever its size, and nothing of it is
/// visible before [`BlobWriter::finish`]. Dropping this gives up the file.
#[derive(Debug)]
pub struct BlobWriter {
    blobs: Blobs,
    location: String,
    size: u64,
    /// The bytes that have come in and are not written yet, as long as they are less than one part.
    held: PutPayloadMut,
    /// The upload in parts, once there is more.
    parts: Option<WriteMultipart>,
}

impl BlobWriter {
    /// Takes the next bytes, and waits when they come faster than they can be written.
    pub async fn push(&mut self, bytes: Bytes) -> Result<(), BlobError> {
        self.size += bytes.len() as u64;
        if let Some(parts) = &mut self.parts {
            self.blobs.within(parts.wait_for_capacity(PARTS_IN_FLIGHT)).await?;
            parts.put(bytes);
            return Ok(());
        }
        self.held.push(bytes);
        if self.held.content_length() < self.blobs.part_bytes {
            return Ok(());
        }
        let path = self.blobs.path(&self.location);
        let upload = self.blobs.within(self.blobs.store.put_multipart(&path)).await?;
        let mut parts = WriteMultipart::new_with_chunk_size(upload, self.blobs.part_bytes);
        for bytes in PutPayload::from(std::mem::take(&mut self.held)) {
            parts.put(bytes);
        }
        self.parts = Some(parts);
        Ok(())
    }

    /// Puts the file in its place, and makes it survive a loss of power.
    pub async fn finish(mut self) -> Result<WrittenFile, BlobError> {
        let location = std::mem::take(&mut self.location);
        let bytes = match self.parts.take() {
            Some(parts) => {
                self.blobs.within(parts.finish()).await?;
                None
            }
            None => {
                let bytes = PutPayload::from(std::mem::take(&mut self.held));
                let path = self.blobs.path(&location);
                self.blobs.within(self.blobs.store.put(&path, bytes.clone())).await?;
                Some(bytes)
            }
        };
        Ok(WrittenFile { location, size: self.size, bytes })
    }

    /// Gives up the file, and leaves nothing behind.
    pub async fn abort(mut self) -> Result<(), BlobError> {
        match self.parts.take() {
            Some(parts) => self.blobs.within(parts.abort()).await,
            None => Ok(()),
        }
    }
}

impl Drop for BlobWriter {
    fn drop(&mut self) {
        let Some(parts) = self.parts.take() else { return };
        // The sender has closed the connection. Without a runtime the process is ending. Then the sweep removes the
        // rest in a folder, and a lifecycle rule of the bucket does so in S3.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let blobs = self.blobs.clone();
            runtime.spawn(async move {
                if let Err(error) = blobs.within(parts.abort()).await {
                    tracing::warn!(%error, "the unfinished file of an upload could not be removed: the sweep removes it");
                }
            });
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    pub(crate) fn in_folder(folder: &Path) -> Blobs {
        Blobs::in_folder(folder, LIMIT, true).unwrap()
    }

    fn body(bytes: usize) -> Bytes {
        (0..bytes).map(|at| (at % 251) as u8).collect()
    }

    async fn store(blobs: &Blobs, bytes: &Bytes, step: usize) -> String {
        let mut writer = blobs.create();
        for at in (0..bytes.len()).step_by(step) {
            writer.push(bytes.slice(at..(at + step).min(bytes.len()))).await.unwrap();
        }
        let WrittenFile { location, size, .. } = writer.finish().await.unwrap();
        assert_eq!(size, bytes.len() as u64);
        location
    }

    /// The names of all files.
    pub(crate) async fn files(blobs: &Blobs) -> Vec<String> {
        let mut found = Vec::new();
        for shelf in SHELVES {
            let listed = blobs.list(Place::Images, shelf).await.unwrap();
            found.extend(listed.into_iter().map(|file| file.location));
        }
        found
    }

    async fn collect(pieces: Pieces) -> Bytes {
        pieces
            .try_fold(Vec::new(), async |mut all, piece| {
                all.extend_from_slice(&piece);
                Ok(all)
            })
            .await
            .unwrap()
            .into()
    }

    #[tokio::test]
    async fn what_is_written_is_read_whole_and_in_part() {
        let folder = tempfile::tempdir().unwrap();
        let blobs = in_folder(&folder.path().join("new/folder"));
        for (size, step) in [(0, 1), (1, 1), (70_000, 999), (FOLDER_PART_BYTES, 4096), (3_500_000, 65_536)] {
            let bytes = body(size);
            let location = store(&blobs, &bytes, step).await;
            let size = size as u64;
            assert_eq!(blobs.read(&location, size).await.unwrap(), bytes);
            assert_eq!(collect(blobs.open(&location, size, 0..size).await.unwrap()).await, bytes);
            let middle = size / 3..size / 2;
            let part = collect(blobs.open(&location, size, middle.clone()).await.unwrap()).await;
            assert_eq!(part, bytes[middle.start as usize..middle.end as usize]);
            assert!(matches!(blobs.read(&location, size + 1).await, Err(BlobError::Damaged { .. })));
            blobs.remove(&location).await.unwrap();
            assert!(matches!(blobs.read(&location, size).await, Err(BlobError::Gone(_))));
            assert!(matches!(blobs.open(&location, size, 0..0).await, Err(BlobError::Gone(_))));
            blobs.remove(&location).await.unwrap();
        }
    }

    #[tokio::test]
    async fn an_upload_that_is_given_up_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let blobs = in_folder(folder.path());
        let mut writer = blobs.create();
        writer.push(body(3_000_000)).await.unwrap();
        assert_eq!(files(&blobs).await.len(), 1, "the unfinished upload");
        writer.abort().await.unwrap();
        assert!(files(&blobs).await.is_empty());
    }

    #[tokio::test]
    async fn unfinished_and_finished_files_are_listed_and_what_is_not_ours_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let blobs = in_folder(folder.path());
        let finished = store(&blobs, &body(10), 10).await;
        let unfinished = format!("{}#1", new_location());
        let path = folder.path().join(&unfinished);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, b"part").unwrap();
        let mine = folder.path().join("3f/holiday.png");
        std::fs::create_dir_all(mine.parent().unwrap()).unwrap();
        std::fs::write(&mine, b"mine").unwrap();
        let mut found = files(&blobs).await;
        found.sort();
        let mut expected = vec![finished, unfinished];
        expected.sort();
        assert_eq!(found, expected);
        for location in &found {
            blobs.remove_listed(location).await.unwrap();
        }
        assert!(files(&blobs).await.is_empty());
        assert!(mine.exists());
    }

    #[tokio::test]
    async fn what_goes_to_the_trash_begins_a_new_age_there_and_comes_back_whole() {
        let folder = tempfile::tempdir().unwrap();
        let blobs = in_folder(folder.path());
        let location = store(&blobs, &body(1000), 1000).await;
        blobs.put(&location_of(&location, Variant::W160), body(10)).await.unwrap();
        let long_ago = SystemTime::now() - Duration::from_secs(30 * 24 * 3600);
        let path = folder.path().join(&location);
        File::options().write(true).open(&path).unwrap().set_modified(long_ago).unwrap();
        let shelf = u8::from_str_radix(&location[..2], 16).unwrap();

        blobs.discard_image(&location).await.unwrap();
        assert!(files(&blobs).await.is_empty(), "the variant is gone, and the image is in the trash");
        assert!(blobs.has_files().await.unwrap());
        let now = blobs.probe().await.unwrap();
        let trashed = blobs.list(Place::Trash, shelf).await.unwrap();
        assert_eq!(trashed[0].location, location);
        assert!(trashed[0].age(now) < Duration::from_secs(60), "{:?}", trashed[0].age(now));
        assert!(matches!(blobs.read(&location, 1000).await, Err(BlobError::Gone(_))));

        assert!(blobs.put_back(&location).await.unwrap());
        assert_eq!(blobs.read(&location, 1000).await.unwrap(), body(1000));
        assert!(!blobs.put_back(&location).await.unwrap(), "it is not in the trash any more");
        blobs.discard_image(&location).await.unwrap();
        blobs.discard_image(&location).await.unwrap();
        blobs.purge(&location).await.unwrap();
        blobs.purge(&location).await.unwrap();
        assert!(!blobs.has_files().await.unwrap());

        let without_trash = Blobs::in_folder(folder.path(), LIMIT, false).unwrap();
        let location = store(&without_trash, &body(10), 10).await;
        without_trash.discard_image(&location).await.unwrap();
        assert!(!without_trash.has_files().await.unwrap());
    }

    #[tokio::test]
    async fn a_store_keeps_the_first_id_that_it_is_offered() {
        let folder = tempfile::tempdir().unwrap();
        let blobs = in_folder(folder.path());
        let (one, other) = ("1".repeat(32).parse().unwrap(), "2".repeat(32).parse().unwrap());
        assert_eq!(blobs.id().await.unwrap(), None);
        blobs.offer_id(one).await.unwrap();
        blobs.offer_id(other).await.unwrap();
        assert_eq!(blobs.id().await.unwrap(), Some(one));
        blobs.replace_id(other).await.unwrap();
        assert_eq!(blobs.id().await.unwrap(), Some(other));
        let location = store(&blobs, &body(10), 10).await;
        assert!(blobs.holds(&location, other).await.unwrap());
        assert!(!blobs.holds(&location, one).await.unwrap(), "it is another store now");
        assert!(!blobs.holds(&new_location(), other).await.unwrap());
        std::fs::write(folder.path().join(ID_FILE), "something else").unwrap();
        let reason = blobs.id().await.unwrap_err().reason();
        assert!(reason.contains("32 hexadecimal digits, got \"something else\""), "{reason}");
    }

    /// The file is a pipe. Opening one waits for its other end, so it hangs like a file on a network.
    #[tokio::test]
    async fn a_file_that_hangs_is_given_up_and_a_folder_that_hangs_is_not_asked_again() {
        let folder = tempfile::tempdir().unwrap();
        let limit = Duration::from_secs(1);
        let blobs = Blobs::in_folder(folder.path(), limit, true).unwrap();
        let whole = store(&blobs, &body(10), 10).await;
        let location = new_location();
        for name in [&*location, PROBE_FILE] {
            let pipe = folder.path().join(name);
            rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        }
        let began = std::time::Instant::now();
        assert!(matches!(blobs.read(&location, 10).await, Err(BlobError::TimedOut(_))));
        assert!(matches!(blobs.open(&location, 10, 0..10).await, Err(BlobError::TimedOut(_))));
        assert!(began.elapsed() < 4 * limit, "{:?}", began.elapsed());
        assert_eq!(blobs.read(&whole, 10).await.unwrap(), body(10));

        assert!(matches!(blobs.probe().await, Err(BlobError::TimedOut(_))));
        let began = std::time::Instant::now();
        assert!(matches!(blobs.read(&whole, 10).await, Err(BlobError::TimedOut(_))));
        assert!(began.elapsed() < limit / 2, "{:?}", began.elapsed());
        // The other ends, so that the threads that wait end too.
        drop(File::options().read(true).write(true).open(folder.path().join(PROBE_FILE)).unwrap());
        drop(File::options().read(true).write(true).open(folder.path().join(&location)).unwrap());
        std::fs::remove_file(folder.path().join(PROBE_FILE)).ok();
        blobs.probe().await.unwrap();
        assert_eq!(blobs.read(&whole, 10).await.unwrap(), body(10));
    }

    #[test]
    fn only_names_of_ours_are_taken_for_such() {
        let ours = new_location();
        assert!(
            is_location(&ours) && is_location(&format!("{ours}#1")) && is_location(&format!("{ours}#27"))
        );
        assert!(is_location(&format!("{ours}.w320")) && is_location(&format!("{ours}.w320#1")));
        for name in [
            "",
            "a.png",
            "3f/photo",
            &ours[3..],
            &format!("{ours}x"),
            &format!("{ours}#"),
            &format!("{ours}.w321"),
            &format!("{ours}.w320.w320"),
            &format!("{ours}#1.w320"),
            &format!("x/{ours}"),
        ] {
            assert!(!is_location(name), "{name}");
        }
        let other_folder = format!("zz{}", &ours[2..]);
        assert!(!is_location(&other_folder));
    }

    #[test]
    fn names_are_new_and_spread_over_folders() {
        let (one, two) = (new_location(), new_location());
        assert_ne!(one, two);
        let parts: Vec<&str> = one.split('/').collect();
        assert_eq!((parts.len(), parts[1].len()), (2, 32));
        assert!(parts[1].starts_with(parts[0]));
    }

    /// A server that takes every connection and never answers.
    #[tokio::test]
    async fn every_call_to_a_bucket_that_hangs_is_given_up_in_time() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let builder = AmazonS3Builder::new()
            .with_endpoint(format!("http://{}", listener.local_addr().unwrap()))
            .with_allow_http(true)
            .with_region("x")
            .with_access_key_id("x")
            .with_secret_access_key("x");
        let hanging = tokio::spawn(async move {
            let mut open = Vec::new();
            while let Ok((connection, _)) = listener.accept().await {
                open.push(connection);
            }
        });
        let limit = Duration::from_secs(1);
        let blobs = Blobs::in_bucket(builder, "s3://bucket/prefix", limit, true).unwrap();
        let id: OriginId = "1".repeat(32).parse().unwrap();
        let location = new_location();
        let name = &*location;
        let small = async {
            let mut writer = blobs.create();
            writer.push(body(10)).await?;
            writer.finish().await.map(drop)
        };
        let large = async {
            let mut writer = blobs.create();
            for _ in 0..3 {
                writer.push(body(S3_PART_BYTES)).await?;
            }
            writer.finish().await.map(drop)
        };
        let calls: [(&str, futures_util::future::BoxFuture<'_, Result<(), BlobError>>); 13] = [
            ("small upload", Box::pin(small)),
            ("large upload", Box::pin(large)),
            ("read", Box::pin(async { blobs.read(name, 10).await.map(drop) })),
            ("open", Box::pin(async { blobs.open(name, 10, 0..10).await.map(drop) })),
            ("put", Box::pin(blobs.put(name, body(10)))),
            ("list", Box::pin(async { blobs.list(Place::Images, 0).await.map(drop) })),
            ("has files", Box::pin(async { blobs.has_files().await.map(drop) })),
            ("discard", Box::pin(blobs.discard_image(name))),
            ("put back", Box::pin(async { blobs.put_back(name).await.map(drop) })),
            ("remove", Box::pin(blobs.remove_image(name))),
            ("holds", Box::pin(async { blobs.holds(name, id).await.map(drop) })),
            ("id", Box::pin(async { blobs.id().await.map(drop) })),
            ("probe", Box::pin(async { blobs.probe().await.map(drop) })),
        ];
        for (what, call) in calls {
            let began = std::time::Instant::now();
            let error = call.await.unwrap_err();
            assert!(!matches!(error, BlobError::Gone(_)), "{what}: {}", error.reason());
            assert!(began.elapsed() < 3 * limit, "{what} took {:?}", began.elapsed());
        }
        hanging.abort();
    }

    #[test]
    fn a_url_that_is_no_bucket_is_refused_at_start() {
        for url in ["", "s3://", "s3:///x", "http://x/y", "bucket"] {
            assert!(Blobs::in_s3(url, LIMIT, true).is_err(), "{url}");
        }
    }
}
