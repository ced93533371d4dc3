//! What of an answer's head follows from the image alone: made once for a copy that is served many times.

use std::time::SystemTime;

use axum::http::HeaderValue;
use axum_extra::headers::{HeaderMapExt as _, LastModified};
use bytes::Bytes;

use origin::dates::at;

use crate::conditional;
use crate::error::Error;
use crate::image::ImageMeta;

/// The values of the headers that say what an image is.
#[derive(Debug, Clone)]
pub(crate) struct ImageHead {
    /// `ETag`.
    pub(crate) etag: HeaderValue,
    /// `Last-Modified`, if that is known, and not before that moment.
    pub(crate) last_modified: Option<(HeaderValue, SystemTime)>,
    /// `Content-Type`.
    pub(crate) content_type: HeaderValue,
}

impl ImageHead {
    /// Those of `image`.
    ///
    /// # Errors
    /// When its content type, which anybody with a right to the bus may have claimed, can't be in a header.
    pub(crate) fn new(image: &ImageMeta) -> Result<Self, Error> {
        Ok(Self {
            etag: value(conditional::etag(&image.tag))?,
            last_modified: image.modified.and_then(|modified| {
                let modified = at(modified.seconds);
                Some((date(modified)?, modified))
            }),
            content_type: content_type(&image.content_type)?,
        })
    }
}

/// A date as a header's value.
pub(crate) fn date(at: SystemTime) -> Option<HeaderValue> {
    let mut headers = axum::http::HeaderMap::with_capacity(1);
    headers.typed_insert(LastModified::from(at));
    headers.remove(axum::http::header::LAST_MODIFIED)
}

fn content_type(text: &str) -> Result<HeaderValue, Error> {
    Ok(match text {
        "image/png" => HeaderValue::from_static("image/png"),
        "image/jpeg" => HeaderValue::from_static("image/jpeg"),
        "image/gif" => HeaderValue::from_static("image/gif"),
        "image/webp" => HeaderValue::from_static("image/webp"),
        other => value(other.to_owned())?,
    })
}

/// A header's value of our own making.
pub(crate) fn value(text: String) -> Result<HeaderValue, Error> {
    HeaderValue::from_maybe_shared(Bytes::from(text)).map_err(|error| Error::Internal(error.into()))
}
