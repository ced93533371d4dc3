//! The JSON API under `/api`, in the form that existing clients know: `success` is a string.

use std::time::Instant;

use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderValue, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use base64_simd::STANDARD as BASE64;
use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt as _, TryStreamExt as _, stream};
use origin::ImageRow;
use origin::images::Images;
use serde::Serialize;
use time::OffsetDateTime;
use tokio_util::task::AbortOnDropHandle;
use utoipa::ToSchema;
use wire::words::shown;
use wire::{Item, Key};

use super::answer::{CACHE_STATUS, NoBody, Parameters, SERVER_TIMING, cache_timing, server_timing};
use super::key::key_behind;
use super::schema;
use super::upload::{Reading, store_form};
use crate::error::{Error, Failure};
use crate::image::{Asker, CacheStatus, Content};
use crate::service::state::{AppState, NearHit};
use crate::views;
use crate::visitor::Visitor;

/// The path that ends with the key of an image that is asked for in base64.
pub(crate) const KEY_PREFIX: &str = "/api/key/";
/// The route of such an image, as the router knows it.
pub(crate) const KEY_ROUTE: &str = "/api/key/{*key}";
const JSON: HeaderValue = HeaderValue::from_static("application/json");
/// The end of the answer, behind the base64.
const END: &[u8] = b"\"}";
/// How many keys one query to MySQL reads while all keys are listed.
const KEYS_AT_ONCE: u32 = 4000;
/// The most bytes of an image that are encoded at once. A larger image is encoded in chunks of this size.
const WHOLE_BYTES: usize = 64 << 10;
/// The most images that one page of the list has, and how many it has by default.
const MOST_IMAGES: u32 = 1000;
const USUAL_IMAGES: u32 = 100;

/// The routes.
pub(crate) fn router() -> Router<AppState> {
    Router::new()
        .route("/api/upload", post(upload).layer(DefaultBodyLimit::disable()))
        .route("/api/list_keys", post(list_keys))
        .route(KEY_ROUTE, post(key))
        .route(KEY_PREFIX, post(key))
        .route("/api/delete_all", post(delete_all))
        .route("/api/images", get(list_images))
        .route("/api/images/{*key}", get(image_info))
        .route("/api/images/", get(image_info))
}

/// The answer to a call that has no data to return.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Success {
    /// Always the string `true`.
    #[schema(example = "true")]
    success: &'static str,
}

/// The answer to an upload.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Uploaded {
    /// Always the string `true`.
    #[schema(example = "true")]
    success: &'static str,
    /// The key under which the image is stored.
    key: Key,
}

/// All keys.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct KeyList {
    /// Always the string `true`.
    #[schema(example = "true")]
    success: &'static str,
    /// Sorted byte for byte.
    keys: Vec<String>,
}

/// An image within JSON.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct KeyContent {
    /// Always the string `true`.
    #[schema(example = "true")]
    success: &'static str,
    /// The key.
    key: String,
    /// The bytes in base64.
    content: String,
}

/// The metadata of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct ImageInfo {
    /// The key.
    key: Key,
    /// Its address on this gateway, with the hash of its bytes.
    url: String,
    /// The media type of its format.
    #[schema(schema_with = schema::content_type)]
    content_type: &'static str,
    /// The size in bytes.
    size: u64,
    /// Pixels across, as it is shown: after the orientation that its Exif block asks for.
    width: u32,
    /// Pixels down, likewise.
    height: u32,
    /// SHA-256 of the bytes, in hexadecimal: the entity tag without its quotes.
    sha256: String,
    /// When something was first stored under the key.
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
    /// When this image was stored.
    #[serde(with = "time::serde::rfc3339")]
    updated_at: OffsetDateTime,
}

impl From<&ImageRow> for ImageInfo {
    fn from(row: &ImageRow) -> Self {
        Self {
            key: row.key.clone(),
            url: views::image_source(&row.key, row.tag),
            content_type: row.format.content_type(),
            size: row.size,
            width: row.width,
            height: row.height,
            sha256: row.tag.to_string(),
            created_at: row.created_at,
            updated_at: row.dates.updated_at,
        }
    }
}

/// One page of the images.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ImageList {
    /// Sorted by key, byte for byte.
    images: Vec<ImageInfo>,
    /// The value of `after` for the next page; `null` at the end of the list.
    next: Option<String>,
}

/// Stores an image that a form sends.
#[utoipa::path(
    post,
    path = "/api/upload",
    tag = "api",
    request_body(content = schema::UploadForm, content_type = "multipart/form-data"),
    responses(
        (status = 200, description = "It is stored", body = Uploaded),
        (status = 400, description = "Not a key, or a form that is not understood", body = Failure),
        (status = 413, description = "More bytes or pixels than are stored, or more scans or frames of them", body = Failure),
        (status = 415, description = "Not multipart/form-data, or not an image of a format that is stored", body = Failure),
        (status = 422, description = "An image that is empty, cut off or contradicts itself", body = Failure),
        (status = 503, description = "MySQL or the image store does not answer; or it is stored, and the cache is still being told", body = Failure),
    )
)]
pub(crate) async fn upload(State(state): State<AppState>, request: Request) -> Result<Json<Uploaded>, Error> {
    let stored = store_form(&state, request, Reading::AsLittleAsPossible).await?;
    Ok(Json(Uploaded { success: "true", key: stored.row.key }))
}

/// All keys, sorted byte for byte. The answer is sent while the keys are read, so a million keys cost no memory.
#[utoipa::path(
    post,
    path = "/api/list_keys",
    tag = "api",
    responses(
        (status = 200, description = "All keys", body = KeyList),
        (status = 503, description = "MySQL does not answer", body = Failure),
    )
)]
pub(crate) async fn list_keys(State(state): State<AppState>, _: NoBody) -> Result<Response, Error> {
    let images = state.images.clone();
    // The first keys are read before the head of the answer is sent, so that a failure can still set the status. A
    // later failure breaks the body off, because an incomplete list must not look complete.
    let first = images.keys(None, KEYS_AT_ONCE).await?;
    let pages = pages_from(images, first);
    let mut is_first = true;
    let entries = pages.map(move |page| {
        let mut text = Vec::new();
        for key in page? {
            if !std::mem::take(&mut is_first) {
                text.push(b',');
            }
            serde_json::to_writer(&mut text, &key).map_err(|error| Error::Internal(error.into()))?;
        }
        Ok(Bytes::from(text))
    });
    let head = stream::once(std::future::ready(Ok(Bytes::from_static(br#"{"success":"true","keys":["#))));
    let tail = stream::once(std::future::ready(Ok(Bytes::from_static(b"]}"))));
    Ok(json_stream(head.chain(entries).chain(tail)))
}

/// `first` and the pages behind it, each read while the one before is sent.
fn pages_from(images: Images, first: Vec<Key>) -> impl Stream<Item = Result<Vec<Key>, Error>> {
    let next = move |page: &[Key]| {
        let last = page.last().filter(|_| page.len() == KEYS_AT_ONCE as usize)?.clone();
        let images = images.clone();
        let reading = async move { images.keys(Some(&last), KEYS_AT_ONCE).await };
        Some(AbortOnDropHandle::new(tokio::spawn(reading)))
    };
    let behind = stream::try_unfold(next(&first), move |reading| {
        let next = next.clone();
        async move {
            let Some(reading) = reading else { return Ok(None) };
            let page = reading.await.map_err(|error| Error::Internal(error.into()))??;
            let reading = next(&page);
            Ok(Some((page, reading)))
        }
    });
    stream::once(std::future::ready(Ok(first))).chain(behind)
}

/// JSON that is sent while it is made.
fn json_stream(parts: impl Stream<Item = Result<Bytes, Error>> + Send + 'static) -> Response {
    let body = Body::from_stream(parts.inspect_err(Error::log));
    ([(header::CONTENT_TYPE, JSON)], body).into_response()
}

/// An image, with its bytes in base64.
#[utoipa::path(
    post,
    path = "/api/key/{key}",
    tag = "api",
    params(schema::KeyInPath),
    responses(
        (status = 200, description = "The image", body = KeyContent),
        (status = 404, description = "Nothing is stored under the key", body = Failure),
        (status = 503, description = "It is not cached, and the origin does not answer", body = Failure),
    )
)]
pub(crate) async fn key(
    State(state): State<AppState>,
    Extension(visitor): Extension<Visitor>,
    uri: Uri,
) -> Result<Response, Error> {
    let key = key_behind(KEY_PREFIX, &uri)?;
    match state.read_near(key.as_str(), None, Instant::now()) {
        Some(hit) => respond_near(hit),
        None => read_far(&state, key, visitor).await,
    }
}

/// Reads an image of which this gateway has no copy, and answers as [`key`] does.
pub(crate) async fn read_far(state: &AppState, key: Key, visitor: Visitor) -> Result<Response, Error> {
    let item = Item::from(key);
    let key = &item.key;
    let read = state.read_far(&item, Asker::of_all(visitor)).await.map_err(|failure| failure.error)?;
    let timing = server_timing(&read)?;
    respond(key, read.content, read.cache_status, timing)
}

/// Answers with a copy that this gateway keeps, as [`key`] would.
pub(crate) fn respond_near(hit: NearHit) -> Result<Response, Error> {
    let NearHit { copy, bytes, took } = hit;
    respond(&copy.item.key, Content::Bytes(bytes), CacheStatus::Near, cache_timing(took)?)
}

fn respond(
    key: &Key,
    content: Content,
    cache_status: CacheStatus,
    timing: HeaderValue,
) -> Result<Response, Error> {
    let key = serde_json::to_string(key).map_err(|error| Error::Internal(error.into()))?;
    let head = format!(r#"{{"success":"true","key":{key},"content":""#);
    let mut response = match content {
        // A large image is encoded while it is sent: the text would be a copy, and a third larger.
        Content::Bytes(bytes) if bytes.len() > WHOLE_BYTES => {
            let starts = (0..bytes.len()).step_by(WHOLE_BYTES);
            let chunks: Vec<_> =
                starts.map(|start| Ok(bytes.slice(start..bytes.len().min(start + WHOLE_BYTES)))).collect();
            encoded(head, stream::iter(chunks))
        }
        Content::Bytes(bytes) => {
            let mut text = head.into_bytes();
            text.reserve_exact(BASE64.encoded_length(bytes.len()) + END.len());
            BASE64.encode_append(&bytes, &mut text);
            text.extend_from_slice(END);
            ([(header::CONTENT_TYPE, JSON)], text).into_response()
        }
        Content::Stream(body) => {
            encoded(head, body.into_data_stream().map_err(|error| Error::Internal(error.into())))
        }
        Content::Fresh => {
            return Err(Error::Internal(anyhow::anyhow!("the cache answered fresh to nobody's tag")));
        }
    };
    response.headers_mut().insert(CACHE_STATUS, cache_status.header_value());
    response.headers_mut().insert(SERVER_TIMING, timing);
    Ok(response)
}

/// The answer with `head` before the base64 of the chunks, which is encoded while it is sent.
fn encoded(head: String, chunks: impl Stream<Item = Result<Bytes, Error>> + Send + 'static) -> Response {
    let head = stream::once(std::future::ready(Ok(Bytes::from(head))));
    let tail = stream::once(std::future::ready(Ok(Bytes::from_static(END))));
    json_stream(head.chain(base64_chunks(chunks)).chain(tail))
}

/// The base64 of a body, chunk by chunk. Bytes that do not fill a group of three wait for the next chunk.
fn base64_chunks(
    chunks: impl Stream<Item = Result<Bytes, Error>>,
) -> impl Stream<Item = Result<Bytes, Error>> {
    let mut held = BytesMut::new();
    // `None` marks the end, where the remaining bytes are encoded as they are.
    let with_end = chunks.map(|chunk| chunk.map(Some)).chain(stream::once(std::future::ready(Ok(None))));
    with_end.map(move |chunk| {
        let ready = match chunk? {
            Some(chunk) => {
                held.extend_from_slice(&chunk);
                let whole = held.len() - held.len() % 3;
                held.split_to(whole)
            }
            None => held.split(),
        };
        Ok(Bytes::from(BASE64.encode_to_string(ready)))
    })
}

/// Deletes all images.
#[utoipa::path(
    post,
    path = "/api/delete_all",
    tag = "api",
    responses(
        (status = 200, description = "All images are deleted", body = Success),
        (status = 503, description = "MySQL does not answer; or all are deleted, and the cache is still being told", body = Failure),
    )
)]
pub(crate) async fn delete_all(State(state): State<AppState>, _: NoBody) -> Result<Json<Success>, Error> {
    let count = state.delete_all().await?;
    tracing::info!(count, "all images were deleted");
    Ok(Json(Success { success: "true" }))
}

/// The metadata of the images, one page at a time.
#[utoipa::path(
    get,
    path = "/api/images",
    tag = "images",
    params(
        ("prefix" = Option<String>, Query, description = "Only keys that begin so"),
        ("after" = Option<String>, Query, description = "Only keys behind this one: the `next` of the page before"),
        ("limit" = Option<u32>, Query, description = "The most images on the page, 1 to 1,000; 100 if not given", minimum = 1, maximum = 1000),
    ),
    responses(
        (status = 200, description = "A page of images", body = ImageList),
        (status = 400, description = "A parameter that is not allowed", body = Failure),
        (status = 503, description = "MySQL does not answer", body = Failure),
    )
)]
pub(crate) async fn list_images(State(state): State<AppState>, uri: Uri) -> Result<Json<ImageList>, Error> {
    let query = Parameters::of(&uri, ["prefix", "after", "limit"])?;
    let limit = match query.get("limit") {
        None => USUAL_IMAGES,
        Some(text) => {
            text.parse().ok().filter(|limit| (1..=MOST_IMAGES).contains(limit)).ok_or_else(|| {
                let got = shown(text);
                Error::BadRequest(format!("limit must be a whole number from 1 to {MOST_IMAGES}, got {got}"))
            })?
        }
    };
    // One row more than asked for tells whether the list goes on.
    let mut rows =
        state.images.page(query.get("prefix").unwrap_or_default(), query.get("after"), limit + 1).await?;
    let goes_on = rows.len() > limit as usize;
    rows.truncate(limit as usize);
    let next = if goes_on { rows.last().map(|row| row.key.to_string()) } else { None };
    Ok(Json(ImageList { images: rows.iter().map(ImageInfo::from).collect(), next }))
}

/// The metadata of an image.
#[utoipa::path(
    get,
    path = "/api/images/{key}",
    tag = "images",
    params(schema::KeyInPath),
    responses(
        (status = 200, description = "What is known of it", body = ImageInfo),
        (status = 404, description = "Nothing is stored under the key", body = Failure),
        (status = 503, description = "MySQL does not answer", body = Failure),
    )
)]
pub(crate) async fn image_info(State(state): State<AppState>, uri: Uri) -> Result<Json<ImageInfo>, Error> {
    let key = key_behind("/api/images/", &uri)?;
    let row = state.images.get(&key).await?.ok_or(Error::NoImage(key))?;
    Ok(Json(ImageInfo::from(&row)))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn base64_in_chunks_is_base64_at_once(chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..10), 0..10)) {
            let whole: Vec<u8> = chunks.concat();
            let parts = stream::iter(chunks.into_iter().map(|chunk| Ok(Bytes::from(chunk))));
            let encoded: Vec<Bytes> = tokio::runtime::Builder::new_current_thread().build().unwrap()
                .block_on(base64_chunks(parts).try_collect()).unwrap();
            prop_assert_eq!(encoded.concat(), BASE64.encode_to_string(whole).into_bytes());
        }
    }
}
