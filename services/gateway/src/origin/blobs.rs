//! The files of the images, in a folder or in S3-compatible storage.
//!
//! A file is written once, under a name of its own that says nothing about its key, and never changed:
//! which file belongs to which key is for the rows alone to say.

use std::io::{ErrorKind, Seek as _, SeekFrom};
use std::ops::{Range, RangeInclusive};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::body::Body;
use bytes::Bytes;
use futures_util::TryStreamExt as _;
use object_store::aws::AmazonS3Builder;
use object_store::local::LocalFileSystem;
use object_store::path::Path as StorePath;
use object_store::{
    GetOptions, GetRange, GetResult, GetResultPayload, ObjectStore, ObjectStoreExt as _, PutPayload,
    PutPayloadMut, WriteMultipart,
};
use tokio::io::AsyncReadExt as _;
use tokio_util::io::ReaderStream;
use wire::Variant;

use super::variants;

/// How much of an upload is collected before it is written. S3 takes no smaller parts than 5 MiB.
const S3_PART_BYTES: usize = 5 << 20;
/// The same for the folder, where nothing speaks against less.
const FOLDER_PART_BYTES: usize = 1 << 20;
/// How many parts of one upload may be on their way at once: one is written while the next comes in.
const PARTS_IN_FLIGHT: usize = 2;
/// How much of a file is read at once while it is sent.
const READ_BYTES: usize = 128 << 10;
/// The folders with the files: the first two digits of a name.
pub(crate) const SHELVES: RangeInclusive<u8> = 0..=u8::MAX;

/// Why a file can't be read or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BlobError {
    /// There is no such file. Its image was replaced or deleted since the row was read.
    #[error("the file {0} is gone")]
    Gone(String),
    /// The file is not what the row says.
    #[error("the file {location} has {found} bytes, and its row says {expected}")]
    Damaged {
        /// Its name.
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
}

/// Where the files are. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Blobs {
    store: Arc<dyn ObjectStore>,
    /// The folder, unless the files are in S3.
    folder: Option<Arc<Path>>,
    /// What stands before each name, in S3.
    prefix: String,
    part_bytes: usize,
}

impl Blobs {
    /// The files in a folder on this machine, which is made if it is not there.
    ///
    /// # Errors
    /// When it can't be made or not be opened.
    pub(crate) fn in_folder(folder: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let folder = folder.canonicalize()?;
        if let Some(parent) = folder.parent() {
            std::fs::File::open(parent)?.sync_all()?;
        }
        // All at once and before the first upload: it would have to wait for them to be on the disk.
        for shelf in SHELVES {
            std::fs::create_dir_all(folder.join(shelf_name(shelf)))?;
        }
        std::fs::File::open(&folder)?.sync_all()?;
        let store = LocalFileSystem::new_with_prefix(&folder)?.with_fsync(true);
        Ok(Self {
            store: Arc::new(store),
            folder: Some(folder.into()),
            prefix: String::new(),
            part_bytes: FOLDER_PART_BYTES,
        })
    }

    /// The files in S3-compatible storage, at `s3://bucket/prefix`. The account, the region and the
    /// endpoint come from the `AWS_…` variables that all tools for S3 read.
    ///
    /// # Errors
    /// When the URL or the variables make no sense. Nothing is contacted yet.
    pub(crate) fn in_s3(url: &str) -> anyhow::Result<Self> {
        let path = url.strip_prefix("s3://").unwrap_or_default();
        let (bucket, prefix) = path.split_once('/').unwrap_or((path, ""));
        anyhow::ensure!(!bucket.is_empty(), "BLOB_URL is {url:?}; it must look like s3://bucket/prefix");
        // object_store leaves the choice of a TLS implementation to the process. One that was chosen
        // already is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let store = AmazonS3Builder::from_env().with_bucket_name(bucket).build()?;
        let prefix = match prefix.trim_matches('/') {
            "" => String::new(),
            prefix => format!("{}/", StorePath::parse(prefix)?),
        };
        Ok(Self { store: Arc::new(store), folder: None, prefix, part_bytes: S3_PART_BYTES })
    }

    /// A new file, with a name that no other ever had.
    pub(crate) fn create(&self) -> BlobWriter {
        BlobWriter {
            blobs: self.clone(),
            location: new_location(),
            size: 0,
            held: PutPayloadMut::new(),
            parts: None,
        }
    }

    /// The whole file, in memory. Only for what is known to be small enough.
    pub(crate) async fn read(&self, location: &str, size: u64) -> Result<Bytes, BlobError> {
        let bytes = self.read_any(location).await?;
        check_size(location, bytes.len() as u64, size)?;
        Ok(bytes)
    }

    /// As [`Blobs::read`], whatever size the file has.
    pub(crate) async fn read_any(&self, location: &str) -> Result<Bytes, BlobError> {
        match &self.folder {
            // One trip to the thread pool, where object_store makes two.
            Some(folder) => match tokio::fs::read(folder.join(location)).await {
                Ok(bytes) => Ok(bytes.into()),
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    Err(BlobError::Gone(location.to_owned()))
                }
                Err(error) => Err(error.into()),
            },
            None => Ok(self.get(location, GetOptions::default()).await?.bytes().await?),
        }
    }

    /// Writes a small file under a name that follows from another one. Written twice, it is the same.
    pub(crate) async fn put(&self, location: &str, bytes: Bytes) -> Result<(), BlobError> {
        self.store.put(&self.path(location), bytes.into()).await?;
        Ok(())
    }

    /// A range of the file, read as it is sent. The file is open when this returns: that it is removed
    /// afterwards does no harm.
    pub(crate) async fn open(&self, location: &str, size: u64, range: Range<u64>) -> Result<Body, BlobError> {
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
                Body::from_stream(ReaderStream::with_capacity(part, READ_BYTES))
            }
            GetResultPayload::Stream(stream) => Body::from_stream(stream),
        })
    }

    async fn get(&self, location: &str, options: GetOptions) -> Result<GetResult, BlobError> {
        self.store.get_opts(&self.path(location), options).await.map_err(|error| match error {
            object_store::Error::NotFound { .. } => BlobError::Gone(location.to_owned()),
            error => error.into(),
        })
    }

    /// Removes a file; that it is gone already is fine.
    pub(crate) async fn remove(&self, location: &str) -> Result<(), BlobError> {
        match self.store.delete(&self.path(location)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Removes the file of an image and those of its variants.
    pub(crate) async fn remove_image(&self, location: &str) -> Result<(), BlobError> {
        self.remove(location).await?;
        for variant in Variant::ALL {
            self.remove(&variants::location_of(location, variant)).await?;
        }
        Ok(())
    }

    /// The names of the files on one of the [`SHELVES`], unfinished uploads included, that have not been
    /// written to for `age`. Only names that this module gives are among them, whatever else lies there.
    ///
    /// A folder is read directly, because object_store does not list unfinished uploads. Those in S3 are
    /// no objects at all: a lifecycle rule of the bucket removes them.
    pub(crate) async fn older_than(&self, age: Duration, shelf: u8) -> Result<Vec<String>, BlobError> {
        let Some(folder) = self.folder.clone() else { return self.older_in_s3(age, shelf).await };
        let Some(limit) = SystemTime::now().checked_sub(age) else { return Ok(Vec::new()) };
        let listing = tokio::task::spawn_blocking(move || {
            let mut found = Vec::new();
            list_folder(&folder, &mut PathBuf::from(shelf_name(shelf)), limit, &mut found)?;
            Ok(found)
        });
        listing.await.unwrap_or_else(|error| Err(std::io::Error::other(error))).map_err(BlobError::Folder)
    }

    async fn older_in_s3(&self, age: Duration, shelf: u8) -> Result<Vec<String>, BlobError> {
        let now = SystemTime::now();
        let prefix = self.path(&shelf_name(shelf));
        let found = self.store.list(Some(&prefix)).try_filter_map(|object| {
            let written: SystemTime = object.last_modified.into();
            let old = now.duration_since(written).is_ok_and(|since| since >= age);
            let location = object.location.as_ref().strip_prefix(&self.prefix).map(str::to_owned);
            std::future::ready(Ok(location.filter(|location| old && is_location(location))))
        });
        Ok(found.try_collect().await?)
    }

    /// Removes a file that [`Blobs::older_than`] named. object_store takes the names of unfinished
    /// uploads for invalid, so in a folder they are removed directly.
    pub(crate) async fn sweep_away(&self, location: &str) -> Result<(), BlobError> {
        let Some(folder) = &self.folder else { return self.remove(location).await };
        match tokio::fs::remove_file(folder.join(location)).await {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }

    fn path(&self, location: &str) -> StorePath {
        StorePath::from(format!("{}{location}", self.prefix))
    }
}

fn check_size(location: &str, found: u64, expected: u64) -> Result<(), BlobError> {
    if found == expected {
        return Ok(());
    }
    Err(BlobError::Damaged { location: location.to_owned(), found, expected })
}

/// 128 random bits, on one of the [`SHELVES`], so that no folder grows large: `3f/3fa9…`.
fn new_location() -> String {
    let name: u128 = rand::random();
    let digits = format!("{name:032x}");
    format!("{}/{digits}", &digits[..2])
}

fn shelf_name(shelf: u8) -> String {
    format!("{shelf:02x}")
}

/// Whether a name is one that [`new_location`] gives, or that of a variant of it, or of an unfinished upload to
/// either, which has a `#` and a number behind it. Nothing else is ever swept away: a person may have put it
/// there.
fn is_location(name: &str) -> bool {
    let (location, part) = name.split_once('#').unwrap_or((name, "0"));
    let location = variants::original_of(location);
    let is_hex = |text: &str| text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let on_its_shelf = location.split_once('/').is_some_and(|(shelf, digits)| {
        digits.len() == 32 && is_hex(digits) && digits.get(..2) == Some(shelf)
    });
    on_its_shelf && !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit())
}

fn list_folder(
    root: &Path,
    inside: &mut PathBuf,
    limit: SystemTime,
    found: &mut Vec<String>,
) -> std::io::Result<()> {
    let entries = match std::fs::read_dir(root.join(&*inside)) {
        Ok(entries) => entries,
        // No upload has needed it yet.
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        inside.push(entry.file_name());
        if entry.file_type()?.is_dir() {
            list_folder(root, inside, limit, found)?;
        } else if let Some(name) = inside.to_str().filter(|name| is_location(name)) {
            // A file that disappears while the folder is read was somebody's, and is nobody's now.
            let written = match entry.metadata().and_then(|metadata| metadata.modified()) {
                Ok(written) => Some(written),
                Err(error) if error.kind() == ErrorKind::NotFound => None,
                Err(error) => return Err(error),
            };
            if written.is_some_and(|written| written <= limit) {
                found.push(name.to_owned());
            }
        }
        inside.pop();
    }
    Ok(())
}

/// A file while it comes in. It holds at most a few parts in memory, whatever its size, and nothing of
/// it is visible before [`BlobWriter::finish`]. Dropping it gives it up.
#[derive(Debug)]
pub(crate) struct BlobWriter {
    blobs: Blobs,
    location: String,
    size: u64,
    /// What has come in and is not written yet, as long as that is less than one part.
    held: PutPayloadMut,
    /// The upload in parts, once there is more.
    parts: Option<WriteMultipart>,
}

impl BlobWriter {
    /// Takes the next bytes, and waits when they come faster than they can be written.
    pub(crate) async fn push(&mut self, bytes: Bytes) -> Result<(), BlobError> {
        self.size += bytes.len() as u64;
        if let Some(parts) = &mut self.parts {
            parts.wait_for_capacity(PARTS_IN_FLIGHT).await?;
            parts.put(bytes);
            return Ok(());
        }
        self.held.push(bytes);
        if self.held.content_length() < self.blobs.part_bytes {
            return Ok(());
        }
        let upload = self.blobs.store.put_multipart(&self.blobs.path(&self.location)).await?;
        let mut parts = WriteMultipart::new_with_chunk_size(upload, self.blobs.part_bytes);
        for bytes in PutPayload::from(std::mem::take(&mut self.held)) {
            parts.put(bytes);
        }
        self.parts = Some(parts);
        Ok(())
    }

    /// Puts the file in its place, and makes it survive a loss of power. Its name, and its size.
    pub(crate) async fn finish(mut self) -> Result<(String, u64), BlobError> {
        let location = std::mem::take(&mut self.location);
        match self.parts.take() {
            Some(parts) => parts.finish().await?,
            None => {
                let payload = std::mem::take(&mut self.held).into();
                self.blobs.store.put(&self.blobs.path(&location), payload).await?
            }
        };
        Ok((location, self.size))
    }

    /// Gives it up, and leaves nothing behind.
    pub(crate) async fn abort(mut self) -> Result<(), BlobError> {
        match self.parts.take() {
            Some(parts) => Ok(parts.abort().await?),
            None => Ok(()),
        }
    }
}

impl Drop for BlobWriter {
    fn drop(&mut self) {
        let Some(parts) = self.parts.take() else { return };
        // Whoever sent it has hung up. Without a runtime the process is ending; in a folder the sweep
        // then finds what is left, in S3 a lifecycle rule of the bucket.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                if let Err(error) = parts.abort().await {
                    tracing::warn!(%error, "what came in of an upload is left to the sweep");
                }
            });
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    fn body(bytes: usize) -> Bytes {
        (0..bytes).map(|at| (at % 251) as u8).collect()
    }

    async fn store(blobs: &Blobs, bytes: &Bytes, step: usize) -> String {
        let mut writer = blobs.create();
        for at in (0..bytes.len()).step_by(step) {
            writer.push(bytes.slice(at..(at + step).min(bytes.len()))).await.unwrap();
        }
        let (location, size) = writer.finish().await.unwrap();
        assert_eq!(size, bytes.len() as u64);
        location
    }

    /// The names of all files.
    pub(in crate::origin) async fn files(blobs: &Blobs) -> Vec<String> {
        let mut found = Vec::new();
        for shelf in SHELVES {
            found.extend(blobs.older_than(Duration::ZERO, shelf).await.unwrap());
        }
        found
    }

    async fn collect(body: Body) -> Bytes {
        axum::body::to_bytes(body, usize::MAX).await.unwrap()
    }

    #[tokio::test]
    async fn what_is_written_is_read_whole_and_in_part() {
        let folder = tempfile::tempdir().unwrap();
        let blobs = Blobs::in_folder(&folder.path().join("new/folder")).unwrap();
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
        let blobs = Blobs::in_folder(folder.path()).unwrap();
        let mut writer = blobs.create();
        writer.push(body(3_000_000)).await.unwrap();
        assert_eq!(files(&blobs).await.len(), 1, "the unfinished upload");
        writer.abort().await.unwrap();
        assert!(files(&blobs).await.is_empty());
    }

    #[tokio::test]
    async fn unfinished_and_finished_files_are_listed_by_age_and_swept_away() {
        let folder = tempfile::tempdir().unwrap();
        let blobs = Blobs::in_folder(folder.path()).unwrap();
        let finished = store(&blobs, &body(10), 10).await;
        let unfinished = format!("{}#1", new_location());
        let path = folder.path().join(&unfinished);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, b"part").unwrap();
        let mine = folder.path().join("3f/holiday.png");
        std::fs::create_dir_all(mine.parent().unwrap()).unwrap();
        std::fs::write(&mine, b"mine").unwrap();
        for shelf in SHELVES {
            assert!(blobs.older_than(Duration::from_secs(60), shelf).await.unwrap().is_empty());
        }
        let mut found = files(&blobs).await;
        found.sort();
        let mut expected = vec![finished, unfinished];
        expected.sort();
        assert_eq!(found, expected);
        for location in &found {
            blobs.sweep_away(location).await.unwrap();
        }
        assert!(files(&blobs).await.is_empty());
        assert!(mine.exists());
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

    #[test]
    fn a_url_that_is_no_bucket_is_refused_at_start() {
        for url in ["", "s3://", "s3:///x", "http://x/y", "bucket"] {
            assert!(Blobs::in_s3(url).is_err(), "{url}");
        }
    }
}
