//! The variants of images: made when they are first asked for, and kept beside the original.
//!
//! The file of a variant has the name of the original's file with the variant behind it. Such a name is given
//! to one image only and never again, so a variant can't outlive the image that it was made of: once a row names
//! another file, nobody asks for it any more, and it is removed with the original or swept away. So it needs
//! no row, and reading it is as fresh as the row that the original's name came from.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use sniff::{Format, Limits};
use thumbnail::DecodeError;
use tokio::sync::{Mutex, Semaphore};
use wire::{Tag, Variant};

use super::blobs::{BlobError, Blobs};
use super::images::ImageRow;

/// How many images are decoded at once at most; large ones fewer.
const MOST_AT_ONCE: u32 = 4;
/// Two that are made at the same time may wait for each other without need, but each is made once.
const LOCKS: usize = 64;

/// Finds and makes variants.
#[derive(Debug)]
pub(crate) struct Variants {
    blobs: Blobs,
    max_pixels: u64,
    /// What may be decoded at once, in thousands of pixels: as much as the largest image has.
    work: Arc<Semaphore>,
    all_work: u32,
    locks: [Mutex<()>; LOCKS],
    hasher: RandomState,
}

/// A variant.
#[derive(Debug, Clone)]
pub(crate) struct Rendition {
    /// The name of its file.
    pub(crate) location: String,
    /// What it is.
    pub(crate) format: Format,
    /// Its bytes.
    pub(crate) bytes: Bytes,
}

/// Why there is no variant.
#[derive(Debug, thiserror::Error)]
pub(crate) enum VariantError {
    /// The original can't be read.
    #[error(transparent)]
    Original(#[from] BlobError),
    /// Its pixels can't be decoded.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// Something that should not happen.
    #[error(transparent)]
    Other(anyhow::Error),
}

impl Variants {
    /// Those of images of at most `max_pixels` pixels.
    pub(crate) fn new(blobs: Blobs, max_pixels: u64) -> Self {
        let all_work = kilopixels(max_pixels).max(MOST_AT_ONCE);
        let work = Arc::new(Semaphore::new(usize::try_from(all_work).unwrap_or(Semaphore::MAX_PERMITS)));
        let locks = std::array::from_fn(|_| Mutex::default());
        Self { blobs, max_pixels, work, all_work, locks, hasher: RandomState::new() }
    }

    /// The variant of the image of a row; none if the image is not wider itself, and does for it.
    ///
    /// # Errors
    /// [`VariantError`]; that the original's file is gone means that the row has moved on (design rule 5).
    pub(crate) async fn get(
        &self,
        row: &ImageRow,
        variant: Variant,
    ) -> Result<Option<Rendition>, VariantError> {
        // Turned upright, it may be as wide as it is high.
        if row.width.max(row.height) <= variant.width() {
            return Ok(None);
        }
        let location = location_of(&row.location, variant);
        if let Some(found) = self.find(&location).await? {
            return Ok(Some(found));
        }
        let lock = self.hasher.hash_one(&location) % LOCKS as u64;
        let _made_once = self.locks[usize::try_from(lock).unwrap_or_default()].lock().await;
        if let Some(found) = self.find(&location).await? {
            return Ok(Some(found));
        }
        self.make(row, variant, location).await
    }

    /// The file, if it is there and whole.
    async fn find(&self, location: &str) -> Result<Option<Rendition>, BlobError> {
        let bytes = match self.blobs.read_any(location).await {
            Ok(bytes) => bytes,
            Err(BlobError::Gone(_)) => return Ok(None),
            Err(error) => return Err(error),
        };
        match sniff::sniff(&bytes, Limits { max_pixels: u64::MAX }) {
            Ok(image) => Ok(Some(Rendition { location: location.to_owned(), format: image.format, bytes })),
            Err(error) => {
                tracing::warn!(location, %error, "the file of a variant is damaged, and is made again");
                Ok(None)
            }
        }
    }

    async fn make(
        &self,
        row: &ImageRow,
        variant: Variant,
        location: String,
    ) -> Result<Option<Rendition>, VariantError> {
        let other =
            |error: &dyn std::fmt::Display| VariantError::Other(anyhow::anyhow!("a variant: {error}"));
        let pixels = u64::from(row.width) * u64::from(row.height);
        let work = kilopixels(pixels).clamp(self.all_work / MOST_AT_ONCE, self.all_work);
        let turn = self.work.clone().acquire_many_owned(work).await.map_err(|error| other(&error))?;
        let original = self.blobs.read(&row.location, row.size).await?;
        let format = Format::from_content_type(&row.content_type)
            .ok_or_else(|| other(&"the row names a type that is not stored here"))?;
        let max_pixels = self.max_pixels.max(pixels);
        let making = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            thumbnail::make(&original, format, variant.width(), max_pixels)
        });
        let Some(made) = making.await.map_err(|error| other(&error))?? else { return Ok(None) };
        let bytes = Bytes::from(made.bytes);
        if let Err(error) = self.blobs.put(&location, bytes.clone()).await {
            tracing::warn!(location, %error, "a variant could not be stored; it will be made again");
        }
        Ok(Some(Rendition { location, format: made.format, bytes }))
    }
}

fn kilopixels(pixels: u64) -> u32 {
    u32::try_from(pixels.div_ceil(1000)).unwrap_or(u32::MAX)
}

/// The name of the file of a variant of the image in the file `original`.
pub(super) fn location_of(original: &str, variant: Variant) -> String {
    format!("{original}.{variant}")
}

/// The name of the file of the original, given that of any file.
pub(super) fn original_of(location: &str) -> &str {
    match location.rsplit_once('.') {
        Some((original, variant)) if variant.parse::<Variant>().is_ok() => original,
        _ => location,
    }
}

/// The entity tag of a variant. It follows from the tag of the original, so that it is known what a variant was
/// made of; the number is to change with the way in which variants are made.
pub(crate) fn tag_of(original: Tag, variant: Variant) -> Tag {
    let hash = Sha256::new().chain_update("pixcache variant 1 ").chain_update(variant.as_str());
    Tag(hash.chain_update(original.0).finalize().into())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use testkit::samples::{self, Sample};
    use time::OffsetDateTime;

    const MAX_PIXELS: u64 = 100_000_000;

    async fn stored(blobs: &Blobs, sample: Sample, bytes: &'static [u8]) -> ImageRow {
        let mut writer = blobs.create();
        writer.push(Bytes::from_static(bytes)).await.unwrap();
        let (location, size) = writer.finish().await.unwrap();
        let now = OffsetDateTime::UNIX_EPOCH;
        ImageRow {
            key: wire::Key::new(sample.name).unwrap(),
            location,
            content_type: sample.content_type.to_owned(),
            size,
            width: sample.width,
            height: sample.height,
            tag: Tag([7; 32]),
            created_at: now,
            updated_at: now,
        }
    }

    fn width_of(rendition: &Rendition) -> u32 {
        sniff::sniff(&rendition.bytes, Limits { max_pixels: MAX_PIXELS }).unwrap().width
    }

    #[tokio::test]
    async fn a_variant_is_made_once_and_found_again() {
        let folder = tempfile::tempdir().unwrap();
        let blobs = Blobs::in_folder(folder.path()).unwrap();
        let variants = Variants::new(blobs.clone(), MAX_PIXELS);
        let row = stored(&blobs, samples::rocket(), samples::rocket().bytes).await;
        let all = futures_util::future::join_all((0..4).map(|_| variants.get(&row, Variant::W160))).await;
        let first = all[0].as_ref().unwrap().clone().unwrap();
        assert_eq!((width_of(&first), first.format), (160, Format::Jpeg));
        for other in all {
            assert_eq!(other.unwrap().unwrap().bytes, first.bytes);
        }
        // From now on without the original.
        blobs.remove(&row.location).await.unwrap();
        assert_eq!(variants.get(&row, Variant::W160).await.unwrap().unwrap().bytes, first.bytes);
        let gone = variants.get(&row, Variant::W320).await.unwrap_err();
        assert!(matches!(gone, VariantError::Original(BlobError::Gone(_))));
        // 640 pixels are not made wider.
        assert!(variants.get(&row, Variant::W640).await.unwrap().is_none());

        blobs.remove_image(&row.location).await.unwrap();
        assert!(variants.get(&row, Variant::W160).await.is_err());
    }

    #[tokio::test]
    async fn a_damaged_variant_is_made_again() {
        let folder = tempfile::tempdir().unwrap();
        let blobs = Blobs::in_folder(folder.path()).unwrap();
        let variants = Variants::new(blobs.clone(), MAX_PIXELS);
        let row = stored(&blobs, samples::coffee(), samples::coffee().bytes).await;
        let whole = variants.get(&row, Variant::W320).await.unwrap().unwrap();
        let path = folder.path().join(&whole.location);
        for damaged in [&whole.bytes[..whole.bytes.len() / 2], b"", b"something else"] {
            std::fs::write(&path, damaged).unwrap();
            assert_eq!(variants.get(&row, Variant::W320).await.unwrap().unwrap().bytes, whole.bytes);
        }
    }

    #[tokio::test]
    async fn pixels_that_can_not_be_decoded_are_an_error_and_leave_no_file() {
        let folder = tempfile::tempdir().unwrap();
        let blobs = Blobs::in_folder(folder.path()).unwrap();
        let variants = Variants::new(blobs.clone(), MAX_PIXELS);
        let row = stored(&blobs, samples::astronaut(), &samples::astronaut().bytes[..1000]).await;
        let error = variants.get(&row, Variant::W320).await.unwrap_err();
        assert!(matches!(error, VariantError::Decode(_)), "{error}");
        assert!(!folder.path().join(location_of(&row.location, Variant::W320)).exists());
    }

    #[test]
    fn the_original_is_told_by_the_name_of_any_file() {
        for variant in Variant::ALL {
            assert_eq!(original_of(&location_of("3f/3fa9", variant)), "3f/3fa9");
        }
        for name in ["3f/3fa9", "3f/3fa9.w99", "3f/3fa9#1", "3f/3fa9.w320#1"] {
            assert_eq!(original_of(name), name);
        }
    }

    #[test]
    fn each_variant_of_each_image_has_a_tag_of_its_own() {
        let tags = [Tag([1; 32]), Tag([2; 32])]
            .into_iter()
            .flat_map(|tag| Variant::ALL.map(|variant| tag_of(tag, variant).0));
        let tags: std::collections::HashSet<_> = tags.collect();
        assert_eq!(tags.len(), 8);
    }
}
