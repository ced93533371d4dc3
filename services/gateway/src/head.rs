//! The headers of an answer that follow from the image alone: made once for a copy that is served many times.

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
    /// The headers of `image`.
    ///
    /// # Errors
    /// Never: the gateway makes all the values itself.
    pub(crate) fn new(image: &ImageMeta) -> Result<Self, Error> {
        Ok(Self {
            etag: value(conditional::etag(&image.tag))?,
            last_modified: image.modified.and_then(|modified| {
                let modified = at(modified.seconds);
                Some((date(modified)?, modified))
            }),
            content_type: HeaderValue::from_static(image.format.content_type()),
        })
    }
}

/// A date as a header's value.
pub(crate) fn date(at: SystemTime) -> Option<HeaderValue> {
    let mut headers = axum::http::HeaderMap::with_capacity(1);
    headers.typed_insert(LastModified::from(at));
    headers.remove(axum::http::header::LAST_MODIFIED)
}

/// A header's value of our own making.
pub(crate) fn value(text: String) -> Result<HeaderValue, Error> {
    HeaderValue::from_maybe_shared(Bytes::from(text)).map_err(|error| Error::Internal(error.into()))
}
