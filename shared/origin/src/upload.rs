//! An image on its way in: hashed, sized and checked while it streams to its file.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use object_store::PutPayload;
use runtime::clock::Moment;
use sha2::{Digest as _, Sha256};
use sniff::{Limits, Sniffer};
use tokio::time::timeout;
use wire::Tag;

use crate::blobs::{Blobs, WrittenFile};
use crate::error::Error;
use crate::images::NewImage;

/// How long a body may pause between two pieces.
pub const IDLE_LIMIT: Duration = Duration::from_secs(30);
/// How long an upload may take from its first byte to its row. It is far below [`sweep::AGE`](crate::sweep::AGE), so
/// that the sweep meets no file whose row is still to be written. The time goes on while the machine sleeps, as the
/// file's age does.
pub const UPLOAD_LIMIT: Duration = Duration::from_secs(30 * 60);

/// For how long a bucket is trusted to have a file that it has acknowledged.
const KEPT_BY_A_BUCKET: Duration = Duration::from_secs(60);

/// The most bytes and pixels of an image.
#[derive(Debug, Clone, Copy)]
pub struct UploadLimits {
    /// Bytes.
    pub max_bytes: u64,
    /// Pixels, width times height.
    pub max_pixels: u64,
}

impl UploadLimits {
    /// The error for an image of more bytes.
    pub fn too_many_bytes(self) -> Error {
        Error::TooLarge(format!(
            "the image must be at most {} MB ({} bytes, MAX_IMAGE_MB), got more",
            self.max_bytes >> 20,
            self.max_bytes
        ))
    }
}

/// A file that is complete and safe, and that no row names yet. Dropping it removes it.
#[derive(Debug)]
pub struct Staged {
    image: NewImage,
    blobs: Blobs,
    /// Its bytes, if all of them were in memory when it was written.
    bytes: Option<PutPayload>,
    /// When it was written.
    written: Moment,
    /// The moment until which a row may name it.
    deadline: Moment,
    /// Whether the file stays when this is dropped.
    kept: bool,
}

impl Staged {
    /// The facts that a row holds about it.
    ///
    /// # Errors
    /// When so much time has gone by that it may be swept away at any moment.
    pub fn image(&self) -> Result<&NewImage, Error> {
        if Moment::now() >= self.deadline {
            return Err(Error::BodyTimeout(UPLOAD_LIMIT.as_secs()));
        }
        Ok(&self.image)
    }

    /// Whether it has to be made sure that the file is still there. A folder may be another one by now, because it was
    /// unmounted. A bucket has each file that it has acknowledged, and nothing but this gateway's own work is expected to
    /// remove one within a minute.
    pub fn may_be_gone(&self) -> bool {
        self.blobs.is_folder() || Moment::now().since(self.written) > KEPT_BY_A_BUCKET
    }

    /// Its bytes, if all of them were in memory when it was written. They can be taken once.
    pub fn take_bytes(&mut self) -> Option<Uploaded> {
        let bytes = self.bytes.take()?;
        Some(Uploaded { location: self.image.location.clone(), bytes })
    }

    /// Keeps the file, because a row names it or may name it.
    pub fn keep(mut self) {
        self.kept = true;
    }
}

/// The bytes of an upload.
#[derive(Debug)]
pub struct Uploaded {
    /// The file that has them.
    location: String,
    bytes: PutPayload,
}

impl Uploaded {
    /// The bytes of the file at `location`, if that is the file of this upload.
    pub fn bytes_of(&self, location: &str) -> Option<Bytes> {
        (self.location == location).then(|| self.bytes.clone().into())
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        let (blobs, location) = (self.blobs.clone(), std::mem::take(&mut self.image.location));
        // Without a runtime the process is ending; the sweep finds the file.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { remove(&blobs, &location).await });
        }
    }
}

/// Takes away the files of an image that no row names any more. Files that can't be moved now are left to the sweep.
pub async fn discard(blobs: &Blobs, location: &str) {
    if let Err(error) = blobs.discard_image(location).await {
        tracing::warn!(
            location,
            reason = error.reason(),
            "a file that no row names could not be removed: the sweep removes it"
        );
    }
}

/// Removes the files of an image that no row has ever named. Files that can't be removed now are left to the sweep.
async fn remove(blobs: &Blobs, location: &str) {
    if let Err(error) = blobs.remove_image(location).await {
        tracing::warn!(location, %error, "a file that no row names could not be removed: the sweep removes it");
    }
}

/// Takes in a body. Whatever its size, only a few parts of it are in memory at once. On any error its file is removed.
///
/// # Errors
/// The body's own error; [`Error::TooLarge`] or [`Error::NoImage`], as soon as the bytes so far can't become an image
/// within the limits; [`Error::BodyTimeout`].
pub async fn receive<E: From<Error>>(
    blobs: &Blobs,
    limits: UploadLimits,
    body: impl Stream<Item = Result<Bytes, E>>,
) -> Result<Staged, E> {
    receive_until(Moment::now() + UPLOAD_LIMIT, blobs, limits, body).await
}

async fn receive_until<E: From<Error>>(
    deadline: Moment,
    blobs: &Blobs,
    limits: UploadLimits,
    body: impl Stream<Item = Result<Bytes, E>>,
) -> Result<Staged, E> {
    let mut writer = blobs.create();
    let mut checks = Checks::new(limits);
    let taken = async {
        let mut body = std::pin::pin!(body);
        while let Some(bytes) = next(&mut body, deadline).await? {
            checks.push(&bytes)?;
            writer.push(bytes).await.map_err(Error::from)?;
        }
        Ok::<_, E>(())
    };
    let checked = match taken.await {
        Ok(()) => checks.finish().map_err(E::from),
        Err(error) => Err(error),
    };
    match checked {
        Ok((image, tag)) => {
            let WrittenFile { location, size, bytes } = writer.finish().await.map_err(Error::from)?;
            let image = NewImage { location, image, size, tag };
            Ok(Staged { image, blobs: blobs.clone(), bytes, written: Moment::now(), deadline, kept: false })
        }
        Err(error) => {
            if let Err(error) = writer.abort().await {
                tracing::warn!(%error, "the unfinished file of a refused upload could not be removed: the sweep removes it");
            }
            Err(error)
        }
    }
}

/// The next bytes of a body, waiting neither for long nor beyond `deadline`.
///
/// # Errors
/// The body's own error; [`Error::BodyTimeout`].
pub async fn next<S, T, E: From<Error>>(body: &mut S, deadline: Moment) -> Result<Option<T>, E>
where
    S: Stream<Item = Result<T, E>> + Unpin,
{
    let left = deadline.since(Moment::now());
    let next = timeout(IDLE_LIMIT.min(left), body.next()).await;
    if Moment::now() >= deadline {
        return Err(Error::BodyTimeout(UPLOAD_LIMIT.as_secs()).into());
    }
    match next {
        Ok(next) => next.transpose(),
        Err(_) if left < IDLE_LIMIT => Err(Error::BodyTimeout(UPLOAD_LIMIT.as_secs()).into()),
        Err(_) => Err(Error::BodyTimeout(IDLE_LIMIT.as_secs()).into()),
    }
}

/// The checks of the bytes while they pass.
struct Checks {
    limits: UploadLimits,
    size: u64,
    hash: Sha256,
    sniffer: Sniffer,
}

impl Checks {
    fn new(limits: UploadLimits) -> Self {
        let sniffer = Sniffer::new(Limits { max_pixels: limits.max_pixels });
        Self { limits, size: 0, hash: Sha256::new(), sniffer }
    }

    fn push(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.size += bytes.len() as u64;
        if self.size > self.limits.max_bytes {
            return Err(self.limits.too_many_bytes());
        }
        self.sniffer.push(bytes)?;
        self.hash.update(bytes);
        Ok(())
    }

    fn finish(self) -> Result<(sniff::Image, Tag), Error> {
        let orientation = self.sniffer.orientation();
        let image = self.sniffer.finish()?.shown(orientation);
        Ok((image, Tag(self.hash.finalize().into())))
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use crate::blobs::tests::in_folder;
    use futures_util::stream;
    use sniff::SniffError;

    const PNG: &[u8] = include_bytes!("../../../samples/chelsea.png");
    const LIMITS: UploadLimits = UploadLimits { max_bytes: 1 << 20, max_pixels: 1_000_000 };

    fn chunks(bytes: &[u8]) -> impl Stream<Item = Result<Bytes, Error>> {
        let chunks: Vec<_> = bytes.chunks(10_000).map(|chunk| Ok(Bytes::copy_from_slice(chunk))).collect();
        stream::iter(chunks)
    }

    async fn files(blobs: &Blobs) -> usize {
        crate::blobs::tests::files(blobs).await.len()
    }

    #[tokio::test]
    async fn the_bytes_of_an_upload_are_those_of_its_file_alone() {
        let folder = tempfile::tempdir().unwrap();
        let blobs = in_folder(folder.path());
        let mut staged = receive(&blobs, LIMITS, chunks(PNG)).await.unwrap();
        let other = receive(&blobs, LIMITS, chunks(PNG)).await.unwrap();
        let uploaded = staged.take_bytes().unwrap();
        assert_eq!(uploaded.bytes_of(&staged.image().unwrap().location).unwrap(), PNG);
        assert_eq!(uploaded.bytes_of(&other.image().unwrap().location), None);
        assert!(staged.take_bytes().is_none());
        // A folder may be another one by now.
        assert!(staged.may_be_gone());
    }

    #[tokio::test]
    async fn an_image_is_hashed_sized_and_recognized() {
        let folder = tempfile::tempdir().unwrap();
        let blobs = in_folder(folder.path());
        let staged = receive(&blobs, LIMITS, chunks(PNG)).await.unwrap();
        let image = staged.image().unwrap().clone();
        assert_eq!((image.size, image.image.width, image.image.height), (PNG.len() as u64, 451, 300));
        assert_eq!(image.tag, Tag(Sha256::digest(PNG).into()));
        assert_eq!(blobs.read(&image.location, image.size).await.unwrap(), PNG);
        staged.keep();
        assert_eq!(files(&blobs).await, 1);
    }

    /// A PNG whose Exif block turns it by a quarter.
    #[tokio::test]
    async fn the_size_of_an_image_is_that_at_which_it_is_shown() {
        let folder = tempfile::tempdir().unwrap();
        let blobs = in_folder(folder.path());
        let exif = b"MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0";
        let turned = [&PNG[..33], &testkit::costly::chunk(b"eXIf", exif), &PNG[33..]].concat();
        let staged = receive(&blobs, LIMITS, chunks(&turned)).await.unwrap();
        let image = staged.image().unwrap().image;
        assert_eq!((image.width, image.height), (300, 451));
    }

    #[tokio::test]
    async fn whatever_is_refused_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let blobs = in_folder(folder.path());
        let small = UploadLimits { max_bytes: 100_000, ..LIMITS };
        let few = UploadLimits { max_pixels: 1000, ..LIMITS };
        assert!(matches!(receive(&blobs, small, chunks(PNG)).await, Err(Error::TooLarge(_))));
        assert!(matches!(
            receive(&blobs, few, chunks(PNG)).await,
            Err(Error::NoImage(SniffError::TooManyPixels { .. }))
        ));
        assert!(matches!(receive(&blobs, LIMITS, chunks(b"")).await, Err(Error::NoImage(SniffError::Empty))));
        assert!(matches!(
            receive(&blobs, LIMITS, chunks(&PNG[..5000])).await,
            Err(Error::NoImage(SniffError::Truncated { .. }))
        ));
        assert!(matches!(
            receive(&blobs, LIMITS, chunks(b"hello")).await,
            Err(Error::NoImage(SniffError::Unsupported))
        ));
        let broken = chunks(&PNG[..50_000])
            .chain(stream::iter([Err(Error::TooLarge("the connection was lost".into()))]));
        assert!(matches!(receive(&blobs, LIMITS, broken).await, Err(Error::TooLarge(_))));
        assert_eq!(files(&blobs).await, 0);
    }

    #[tokio::test]
    async fn a_body_that_stands_still_is_given_up() {
        let folder = tempfile::tempdir().unwrap();
        let blobs = in_folder(folder.path());
        let stalled = chunks(&PNG[..50_000]).chain(stream::pending());
        tokio::time::pause();
        let received = receive(&blobs, LIMITS, stalled).await;
        assert!(matches!(received, Err(Error::BodyTimeout(_))));
    }

    /// tokio's clock stands still, as it does while a machine sleeps.
    #[tokio::test]
    async fn the_limit_of_an_upload_goes_on_while_the_machine_sleeps() {
        let folder = tempfile::tempdir().unwrap();
        let blobs = in_folder(folder.path());
        let whole = receive_until(Moment::now() + UPLOAD_LIMIT, &blobs, LIMITS, chunks(PNG)).await.unwrap();
        tokio::time::pause();
        let limit = Duration::from_millis(200);
        let asleep = chunks(PNG).chain(stream::once(async {
            std::thread::sleep(Duration::from_millis(300));
            Ok(Bytes::new())
        }));
        let began = tokio::time::Instant::now();
        let received = receive_until(Moment::now() + limit, &blobs, LIMITS, asleep).await;
        assert!(
            matches!(received, Err(Error::BodyTimeout(s)) if s == UPLOAD_LIMIT.as_secs()),
            "{received:?}"
        );
        assert!(began.elapsed() < limit, "tokio's clock went on");
        // An upload is refused too when the machine sleeps between its last byte and its row.
        assert!(matches!(late(whole).image(), Err(Error::BodyTimeout(_))));
    }

    fn late(mut staged: Staged) -> Staged {
        staged.deadline = Moment::now();
        staged
    }

    #[tokio::test]
    async fn a_staged_file_that_no_row_takes_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let blobs = in_folder(folder.path());
        drop(receive(&blobs, LIMITS, chunks(PNG)).await.unwrap());
        while files(&blobs).await > 0 {
            tokio::task::yield_now().await;
        }
    }
}
