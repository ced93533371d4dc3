//! `/images/{key}`: the bytes of an image, for `<img>` and for programs.

use std::ops::Range;
use std::time::{Instant, SystemTime};

use axum::body::Body;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::header;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get};
use axum::{Extension, Json, Router};
use bytes::Bytes;
use origin::variants;
use wire::words::shown;
use wire::{Item, Tag, Variant};

use super::answer::{
    CACHE_STATUS, RESOURCE_POLICY, SERVER_TIMING, cache_timing, content_length, data, server_timing,
};
use super::api::ImageInfo;
use super::key::key_behind;
use super::schema;
use crate::conditional::{self, Decision, WriteConditions};
use crate::digests::{self, Digests, REPR_DIGEST};
use crate::error::{Error, Failure};
use crate::head::{ImageHead, date, value};
use crate::image::{Asker, CacheStatus, Content, ImageMeta};
use crate::service::state::{AppState, NearHit};
use crate::views;
use crate::visitor::Visitor;

/// The path that ends with a key.
pub(crate) const PREFIX: &str = "/images/";
/// The route of an image, as the router knows it.
pub(crate) const ROUTE: &str = "/images/{*key}";
/// For an address that names the bytes by their hash: its answer can be kept for ever.
const IMMUTABLE: HeaderValue = HeaderValue::from_static("public, max-age=31536000, immutable");
/// A browser shows an image but runs nothing in it, even when it is opened by itself.
const IMAGE_POLICY: HeaderValue = HeaderValue::from_static("default-src 'none'; sandbox");

/// The routes.
pub(crate) fn router() -> Router<AppState> {
    let methods: MethodRouter<AppState> =
        get(get_image).put(put_image).delete(delete_image).layer(DefaultBodyLimit::disable());
    // The second route is for the empty key, which gets an error message of its own.
    Router::new().route(ROUTE, methods.clone()).route(PREFIX, methods)
}

/// The bytes of an image.
///
/// `HEAD` answers the same without them. `Cache-Status` (RFC 9211) names the outcome in the cache. With a width the
/// answer is a variant of the image, which is made once and cached by itself. An image that is not wider comes
/// unchanged.
#[utoipa::path(
    get,
    path = "/images/{key}",
    tag = "images",
    params(schema::KeyInPath, schema::Version, schema::Width, schema::ReadHeaders),
    responses(
        (status = 200, description = "The image", content(
            (schema::ImageBytes = "image/*"),
        ), headers(
            ("ETag" = String, description = "The SHA-256 of the bytes, in quotes; of a variant, a hash of that and the width"),
            ("Last-Modified" = String, description = "When it was stored, if that is known"),
            ("Cache-Status" = String, description = "What the cache did"),
            ("Repr-Digest" = String, description = "The SHA-256 of the bytes, if Want-Repr-Digest asks for it; not of variants"),
        )),
        (status = 206, description = "The range of it that was asked for", content(
            (schema::ImageBytes = "image/*"),
        ), headers(
            ("Content-Range" = String, description = "Which bytes, and of how many"),
        )),
        (status = 304, description = "The asker holds it"),
        (status = 400, description = "Not a key, or not a width that there is", body = Failure),
        (status = 404, description = "Nothing is stored under the key", body = Failure),
        (status = 412, description = "If-Match or If-Unmodified-Since does not hold; a date must be exactly the Last-Modified of the image", body = Failure),
        (status = 416, description = "The range is not within the image", body = Failure),
        (status = 422, description = "The image can't be decoded, or not with as much memory and time as there is for it, so there are no variants of it; that is remembered", body = Failure),
        (status = 503, description = "It is not cached, and the origin does not answer; or it is a variant that is not made yet, and as many are waited for as may be (64 in the queue), or it was waited for for 10 s", body = Failure),
    )
)]
pub(crate) async fn get_image(
    State(state): State<AppState>,
    Extension(visitor): Extension<Visitor>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Error> {
    let item = Item { key: key_behind(PREFIX, &uri)?, variant: width(&uri)? };
    let is_head = method == Method::HEAD;
    match state.read_near(item.key.as_str(), item.variant, Instant::now()) {
        Some(hit) => respond_near(&state, &uri, &headers, hit, is_head),
        None => read_far(&state, &item, visitor, &uri, &headers, is_head).await,
    }
}

/// Reads an `item` of which this gateway has no copy, and answers as [`get_image`] does.
pub(crate) async fn read_far(
    state: &AppState,
    item: &Item,
    visitor: Visitor,
    uri: &Uri,
    headers: &HeaderMap,
    is_head: bool,
) -> Result<Response, Error> {
    let now = SystemTime::now();
    let decide = |image: &ImageMeta| decide(headers, image, is_head, now);
    let asker = Asker { visitor, held: conditional::held_tag(headers), decide: &decide };
    let read = match state.read_far(item, asker).await {
        Ok(read) => read,
        Err(failure) => {
            let mut response = failure.error.into_response();
            response.headers_mut().insert(CACHE_STATUS, failure.cache_status.header_value());
            return Ok(response);
        }
    };
    let timing = server_timing(&read)?;
    let (head, status) = (ImageHead::new(&read.image)?, read.cache_status);
    let (image, variant, content) = (&read.image, item.variant, read.content);
    let found = Found { image, variant, head: &head, content, status, timing };
    respond(state, uri, headers, found, read.decision)
}

/// Answers with a copy that this gateway keeps, as [`get_image`] does.
pub(crate) fn respond_near(
    state: &AppState,
    uri: &Uri,
    headers: &HeaderMap,
    hit: NearHit,
    is_head: bool,
) -> Result<Response, Error> {
    let NearHit { copy, bytes, took } = hit;
    let (content, timing) = (Content::Bytes(bytes), cache_timing(took)?);
    let (image, variant) = (&copy.image, copy.item.variant);
    let found = Found { image, variant, head: &copy.head, content, status: CacheStatus::Near, timing };
    let decision = decide(headers, image, is_head, SystemTime::now());
    respond(state, uri, headers, found, decision)
}

fn decide(headers: &HeaderMap, image: &ImageMeta, is_head: bool, now: SystemTime) -> Decision {
    match conditional::decide(headers, &image.tag, image.modified, image.size, now) {
        // Ranges are for GET alone (RFC 9110, section 14.2).
        Decision::Whole | Decision::Part(_) | Decision::NotSatisfiable if is_head => Decision::Head,
        decision => decision,
    }
}

/// An image, and how it was found.
struct Found<'a> {
    image: &'a ImageMeta,
    variant: Option<Variant>,
    head: &'a ImageHead,
    content: Content,
    status: CacheStatus,
    timing: HeaderValue,
}

fn respond(
    state: &AppState,
    uri: &Uri,
    asked: &HeaderMap,
    found: Found<'_>,
    decision: Decision,
) -> Result<Response, Error> {
    let Found { image, variant, head, content, status: cache_status, timing } = found;
    let mut headers = HeaderMap::with_capacity(16);
    headers.insert(header::ETAG, head.etag.clone());
    // The tag of a variant is no hash of its bytes.
    if variant.is_none() && digests::wants_sha_256(asked) {
        headers.insert(REPR_DIGEST, digests::repr_digest(&image.tag)?);
    }
    let cache_control = match version(uri) {
        Some(version) if is_of(image.tag, version, variant) => IMMUTABLE,
        _ => state.config.image_cache_control.clone(),
    };
    headers.insert(header::CACHE_CONTROL, cache_control);
    add_last_modified(&mut headers, head);
    headers.insert(CACHE_STATUS, cache_status.header_value());
    headers.insert(SERVER_TIMING, timing);
    headers.insert(header::CONTENT_SECURITY_POLICY, IMAGE_POLICY);
    headers.insert(RESOURCE_POLICY, state.config.image_embedding.header_value());
    let is_head = decision == Decision::Head;
    let (status, range) = match decision {
        Decision::NotModified => return Ok((StatusCode::NOT_MODIFIED, headers).into_response()),
        Decision::PreconditionFailed => {
            return Err(Error::PreconditionFailed(
                "If-Match must hold the ETag of the image, and another image is stored under this key",
            ));
        }
        Decision::NotSatisfiable => return Err(Error::RangeNotSatisfiable { size: image.size }),
        Decision::Whole | Decision::Head => (StatusCode::OK, 0..image.size),
        Decision::Part(range) => {
            let text = format!("bytes {}-{}/{}", range.start, range.end.saturating_sub(1), image.size);
            headers.insert(header::CONTENT_RANGE, value(text)?);
            (StatusCode::PARTIAL_CONTENT, range)
        }
    };
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(header::CONTENT_TYPE, head.content_type.clone());
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(range.end - range.start));
    let body = match content {
        _ if is_head => Body::empty(),
        Content::Bytes(bytes) => Body::from(part_of(&bytes, &range)),
        Content::Stream(body) => body,
        Content::Fresh => Body::empty(),
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    Ok(response)
}

/// Adds the time at which the image was stored. If the clock of another machine was ahead, it is the date of this
/// answer instead (RFC 9110, section 8.8.2.1).
fn add_last_modified(headers: &mut HeaderMap, head: &ImageHead) {
    let Some((text, modified)) = &head.last_modified else { return };
    let now = SystemTime::now();
    if *modified <= now {
        headers.insert(header::LAST_MODIFIED, text.clone());
    } else if let Some(date) = date(conditional::last_modified(*modified, now)) {
        headers.insert(header::LAST_MODIFIED, date.clone());
        headers.insert(header::DATE, date);
    }
}

/// A part of bytes that are in memory, without a copy.
fn part_of(bytes: &Bytes, range: &Range<u64>) -> Bytes {
    let at = |position: u64| usize::try_from(position).unwrap_or(usize::MAX).min(bytes.len());
    bytes.slice(at(range.start)..at(range.end))
}

/// The hash in the address, `?v=…`.
fn version(uri: &Uri) -> Option<Tag> {
    uri.query()?.split('&').find_map(|pair| pair.strip_prefix("v="))?.parse().ok()
}

/// Whether `tag` is that of the image `version`, or of its `variant`.
fn is_of(tag: Tag, version: Tag, variant: Option<Variant>) -> bool {
    tag == version || variant.is_some_and(|variant| tag == variants::tag_of(version, variant))
}

/// The text of the width in the address, `?w=…`.
fn width_text(uri: &Uri) -> Option<&str> {
    uri.query()?.split('&').find_map(|pair| match pair.split_once('=') {
        Some((name, value)) => (name == "w").then_some(value),
        None => (pair == "w").then_some(""),
    })
}

/// Whether a variant is asked for.
pub(crate) fn asks_for_width(uri: &Uri) -> bool {
    width_text(uri).is_some()
}

/// Whether this is the address of a variant.
pub(crate) fn is_of_variant(uri: &Uri) -> bool {
    uri.path().starts_with(PREFIX) && asks_for_width(uri)
}

/// The variant of the width that is asked for.
fn width(uri: &Uri) -> Result<Option<Variant>, Error> {
    let Some(text) = width_text(uri) else { return Ok(None) };
    Variant::of_width(text).map(Some).map_err(|wrong| Error::BadRequest(format!("w {wrong}")))
}

/// Refuses a width, because a change is one of the image with all its variants.
fn without_width(uri: &Uri) -> Result<(), Error> {
    match width_text(uri) {
        Some(text) => Err(Error::BadRequest(format!(
            "w must be left out of a change, got {}: an image is stored and deleted with all its variants",
            shown(text)
        ))),
        None => Ok(()),
    }
}

/// Stores an image: the body is its bytes.
#[utoipa::path(
    put,
    path = "/images/{key}",
    tag = "images",
    params(schema::KeyInPath, schema::WriteHeaders),
    request_body(
        description = "The bytes decide what it is, whatever type is claimed",
        content(
            (schema::ImageBytes = "image/*"),
        )
    ),
    responses(
        (status = 200, description = "It replaced the image that was stored there", body = ImageInfo),
        (status = 201, description = "It is stored under a new key", body = ImageInfo, headers(
            ("Location" = String, description = "Its address"),
        )),
        (status = 400, description = "Not a key; a body that broke off, or has another digest than Content-Digest, Repr-Digest or Content-MD5 says", body = Failure),
        (status = 412, description = "If-Match or If-None-Match does not hold; nothing was changed", body = Failure),
        (status = 413, description = "More bytes or pixels than are stored, or more scans or frames of them", body = Failure),
        (status = 415, description = "Not an image of a format that is stored", body = Failure),
        (status = 422, description = "An image that is empty, cut off or contradicts itself", body = Failure),
        (status = 503, description = "MySQL or the image store does not answer; or it is stored, and the cache is still being told", body = Failure),
    )
)]
pub(crate) async fn put_image(
    State(state): State<AppState>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Error> {
    let key = key_behind(PREFIX, &uri)?;
    without_width(&uri)?;
    let conditions = WriteConditions::from_headers(&headers)?;
    if headers.contains_key(header::CONTENT_RANGE) {
        // RFC 9110, section 14.5: a part must not be stored as the whole image.
        return Err(Error::BadRequest("Content-Range must be left out: send the whole image".into()));
    }
    let limits = state.upload_limits();
    if content_length(&headers).is_some_and(|length| length > limits.max_bytes) {
        return Err(limits.too_many_bytes().into());
    }
    let digests = Digests::from_headers(&headers)?;
    let staged = state.receive(digests.checked(data(body))).await?;
    let stored = state.store(key, staged, conditions).await?;
    let status = if stored.created { StatusCode::CREATED } else { StatusCode::OK };
    let mut answer = HeaderMap::new();
    answer.insert(header::ETAG, value(conditional::etag(&stored.row.tag))?);
    if stored.created {
        let address = views::image_source(&stored.row.key, stored.row.tag);
        let address = address.split('?').next().unwrap_or_default();
        answer.insert(header::LOCATION, value(address.to_owned())?);
    }
    Ok((status, answer, Json(ImageInfo::from(&stored.row))).into_response())
}

/// Deletes an image.
#[utoipa::path(
    delete,
    path = "/images/{key}",
    tag = "images",
    params(schema::KeyInPath, schema::WriteHeaders),
    responses(
        (status = 204, description = "It is deleted"),
        (status = 404, description = "Nothing is stored under the key", body = Failure),
        (status = 412, description = "If-Match does not hold; nothing was changed", body = Failure),
        (status = 503, description = "MySQL does not answer; or it is deleted, and the cache is still being told", body = Failure),
    )
)]
pub(crate) async fn delete_image(
    State(state): State<AppState>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<StatusCode, Error> {
    let key = key_behind(PREFIX, &uri)?;
    without_width(&uri)?;
    state.delete(&key, WriteConditions::from_headers(&headers)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn the_version_is_found_wherever_it_stands() {
        let version_of = |uri: &str| version(&uri.parse().unwrap());
        let (tag, hex) = (Tag([0xab; 32]), "aB".repeat(32));
        assert_eq!(version_of(&format!("/images/cat?v={hex}")), Some(tag));
        assert_eq!(version_of(&format!("/images/cat?x=1&v={hex}&y")), Some(tag));
        assert_eq!(version_of(&format!("/images/cat?vv={hex}")), None);
        for uri in ["/images/cat", "/images/cat?v=", "/images/cat?v=ab12"] {
            assert_eq!(version_of(uri), None, "{uri}");
        }
    }

    #[test]
    fn a_width_is_one_of_four() {
        let width_of = |uri: &str| width(&uri.parse().unwrap());
        for variant in Variant::ALL {
            let uri = format!("/images/cat?v=1&w={}", variant.width());
            assert_eq!(width_of(&uri).unwrap(), Some(variant));
        }
        for uri in ["/images/w=320", "/images/cat?ww=320", "/images/cat?", "/images/cat"] {
            assert_eq!(width_of(uri).unwrap(), None, "{uri}");
        }
        for uri in
            ["?w", "?w=", "?w=0", "?w=321", "?w=0320", "?w=+320", "?w=1e9", "?w=%33%32%30", "?w=5&w=320"]
        {
            let error = width_of(&format!("/images/cat{uri}")).unwrap_err();
            assert!(error.message().starts_with("w must be 160, 320, 640 or 1280, got \""), "{uri}");
        }
    }

    #[test]
    fn a_version_is_that_of_the_image_and_of_its_variants() {
        let (tag, other) = (Tag([1; 32]), Tag([2; 32]));
        let small = variants::tag_of(tag, Variant::W320);
        assert!(is_of(tag, tag, None) && is_of(tag, tag, Some(Variant::W320)));
        assert!(is_of(small, tag, Some(Variant::W320)));
        assert!(!is_of(small, tag, None) && !is_of(small, tag, Some(Variant::W160)));
        assert!(!is_of(small, other, Some(Variant::W320)) && !is_of(tag, other, None));
    }

    #[test]
    fn a_part_is_cut_without_leaving_the_bytes() {
        let bytes = Bytes::from_static(b"0123456789");
        assert_eq!(part_of(&bytes, &(2..5)), "234");
        assert_eq!(part_of(&bytes, &(0..10)), "0123456789");
        assert_eq!(part_of(&bytes, &(8..99)), "89");
    }
}
