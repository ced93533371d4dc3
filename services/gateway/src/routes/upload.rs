//! An upload as a form sends it, `multipart/form-data` with `key` and `file`: for the JSON API and for
//! the page alike.

use std::pin::Pin;
use std::sync::Arc;

use axum::extract::multipart::{Field, Multipart};
use axum::extract::{FromRequest as _, Request};
use axum::http::header;
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, stream};
use origin::upload::{self, Staged};
use parking_lot::{Mutex, MutexGuard};
use runtime::clock::Moment;
use tokio::time::timeout;
use wire::{Key, KeyError};

use super::answer::{content_length, data};
use crate::conditional::WriteConditions;
use crate::digests::Digests;
use crate::error::Error;
use crate::service::change::Stored;
use crate::service::state::AppState;

/// The most bytes that stand before a part of a form, its headers included.
const MOST_HEAD_BYTES: u64 = 64 << 10;
/// The most bytes of a form besides those of the image: boundaries, headers of its parts, the key.
const FORM_OVERHEAD: u64 = 64 << 10;

/// The most bytes of a key that are kept, so that a page can show a key that is too long.
const SHOWN_KEY_BYTES: usize = 4 * wire::key::MAX_KEY_BYTES;

/// How much of a form with too large an image is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reading {
    /// Nothing, if the head of the request claims a body that is too large; else up to the limit.
    AsLittleAsPossible,
    /// Up to twice the limit, because the key may come behind the image, and a page shows it again.
    ForTheKey,
}

/// A form that was refused, with the key that was typed into it, if it came that far.
#[derive(Debug)]
pub(crate) struct RefusedForm {
    /// Why.
    pub(crate) error: Error,
    /// The text of the part `key`, even if it is not a valid key.
    pub(crate) key: Option<String>,
}

impl From<RefusedForm> for Error {
    fn from(refused: RefusedForm) -> Self {
        refused.error
    }
}

/// Reads the form and stores the image. The caller answers, in the form of its interface.
///
/// The parts may come in any order, with or without file name and type. The query string is ignored. The route needs
/// `DefaultBodyLimit::disable()`, because this function has limits of its own.
///
/// # Errors
/// An error about the form, the key or the image. [`Error::StillTelling`] when the image is stored, but the cache may
/// not know it yet.
pub(crate) async fn store_form(
    state: &AppState,
    request: Request,
    reading: Reading,
) -> Result<Stored, RefusedForm> {
    let mut typed = None;
    let stored = store_typed(state, request, reading, &mut typed).await;
    stored.map_err(|error| RefusedForm { error, key: typed })
}

async fn store_typed(
    state: &AppState,
    request: Request,
    reading: Reading,
    typed: &mut Option<String>,
) -> Result<Stored, Error> {
    let is_form =
        request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).is_some_and(
            |content_type| {
                let essence = content_type.split(';').next().unwrap_or_default().trim();
                essence.eq_ignore_ascii_case("multipart/form-data")
            },
        );
    if !is_form {
        return Err(Error::UnsupportedType(
            "Content-Type must be multipart/form-data, with the parts \"key\" and \"file\", as `curl -F` sends it".into(),
        ));
    }
    let limits = state.upload_limits();
    let most = FORM_OVERHEAD
        + match reading {
            Reading::AsLittleAsPossible => limits.max_bytes,
            Reading::ForTheKey => limits.max_bytes.saturating_mul(2),
        };
    if content_length(request.headers()).is_some_and(|length| length > most) {
        return Err(limits.too_many_bytes().into());
    }
    // multer reports an error of the body only as text, so the error itself is kept aside.
    let (trouble, heads) = (Trouble::default(), Heads::default());
    let digests = Digests::from_headers(request.headers())?;
    let has_digests = !digests.is_empty();
    let (head, body) = request.into_parts();
    let limited = limited(digests.checked(data(body)), most, move || limits.too_many_bytes().into());
    let body = Shared::new(trouble.watch(heads.bound(limited)));
    let request = Request::from_parts(head, axum::body::Body::from_stream(body.stream()));
    let form = Multipart::from_request(request, state).await.map_err(|_| {
        Error::BadRequest(
            "Content-Type must be multipart/form-data with a boundary, got none: `curl -F` sends one".into(),
        )
    })?;
    let (key, staged) =
        read_form(state, form, &heads, typed).await.map_err(|error| trouble.take().unwrap_or(error))?;
    if has_digests {
        // multer stops at the last boundary, and the digest is of all that is sent.
        let rest = async { while let Some(Ok(_)) = body.stream().next().await {} };
        let rest = timeout(upload::IDLE_LIMIT, rest).await;
        if let Some(error) = trouble.take() {
            return Err(error);
        }
        rest.map_err(|_| Error::BodyTimeout(upload::IDLE_LIMIT.as_secs()))?;
    }
    state.store(key, staged, WriteConditions::default()).await
}

/// A body that can be read to its end after a reader who had enough of it has gone.
#[derive(Debug)]
struct Shared<S>(Arc<Mutex<Pin<Box<S>>>>);

impl<S: Stream + Send> Shared<S> {
    fn new(body: S) -> Self {
        Self(Arc::new(Mutex::new(Box::pin(body))))
    }

    /// The rest of the body.
    fn stream(&self) -> impl Stream<Item = S::Item> + Send + use<S> {
        let body = self.0.clone();
        stream::poll_fn(move |context| body.lock().poll_next_unpin(context))
    }
}

/// `typed` gets the text of the part `key`. That part may come behind the file, so a refused image does not end the
/// reading: a page could not show the key again.
async fn read_form(
    state: &AppState,
    mut form: Multipart,
    heads: &Heads,
    typed: &mut Option<String>,
) -> Result<(Key, Staged), Error> {
    let deadline = Moment::now() + upload::UPLOAD_LIMIT;
    let mut key = None;
    let mut file = None;
    loop {
        heads.begin();
        let part = timeout(deadline.since(Moment::now()), form.next_field()).await;
        heads.end();
        let mut part = match part {
            Ok(Ok(Some(part))) => part,
            Ok(Ok(None)) => break,
            // The refusal of the image is a better reason than the broken end of its form.
            Ok(Err(error)) => {
                return Err(file.and_then(Result::err).unwrap_or_else(|| broken(&error)));
            }
            Err(_) => return Err(Error::BodyTimeout(upload::UPLOAD_LIMIT.as_secs())),
        };
        let name = part.name().unwrap_or_default().to_owned();
        match name.as_str() {
            "key" if key.is_none() => key = Some(read_key(part, deadline, typed).await?),
            "file" if file.is_none() => {
                let bytes = stream::poll_fn(|context| part.poll_next_unpin(context));
                let received = state.receive(bytes.map(|chunk| chunk.map_err(|error| broken(&error)))).await;
                file = match received {
                    Err(
                        error @ (Error::TooLarge(_) | Error::UnsupportedType(_) | Error::Unprocessable(_)),
                    ) => {
                        // multer would skip the rest of the part too, but would count it as the head of the next part.
                        let rest = async { while let Some(Ok(_)) = part.next().await {} };
                        let _ = timeout(deadline.since(Moment::now()), rest).await;
                        Some(Err(error))
                    }
                    other => Some(Ok(other?)),
                };
            }
            "key" | "file" => {
                return Err(Error::BadRequest(format!(
                    "the part \"{name}\" must be sent once, got it twice"
                )));
            }
            // A page that sends a form adds parts of its own, such as `csrf_token` or `_charset_`.
            _ => {
                let mut rest = stream::poll_fn(|context| part.poll_next_unpin(context))
                    .map(|chunk| chunk.map_err(|error| broken(&error)));
                while upload::next(&mut rest, deadline).await?.is_some() {}
            }
        }
    }
    let missing = |name: &str| {
        Error::BadRequest(format!(
            "the form must have the part \"{name}\", got none: send \"key\" and \"file\""
        ))
    };
    let key = key.ok_or_else(|| missing("key"))?;
    let file = file.ok_or_else(|| missing("file"))?;
    Ok((key, file?))
}

/// Reads the key. Of a longer text, only the bytes that a page shows are held in memory.
async fn read_key(mut part: Field<'_>, deadline: Moment, typed: &mut Option<String>) -> Result<Key, Error> {
    let mut chunks = stream::poll_fn(|context| part.poll_next_unpin(context))
        .map(|chunk| chunk.map_err(|error| broken(&error)));
    let mut bytes = Vec::new();
    let mut length = 0;
    while let Some(chunk) = upload::next(&mut chunks, deadline).await? {
        length += chunk.len();
        let room = SHOWN_KEY_BYTES - bytes.len();
        bytes.extend_from_slice(&chunk[..chunk.len().min(room)]);
    }
    *typed = Some(String::from_utf8_lossy(&bytes).into_owned());
    if length > wire::key::MAX_KEY_BYTES {
        return Err(KeyError::TooLong(length).into());
    }
    Ok(Key::from_bytes(&bytes)?)
}

/// The error of a form that can't be read. The library's own words are for programmers of servers.
fn broken(error: &axum::extract::multipart::MultipartError) -> Error {
    tracing::debug!(error = error.body_text(), "a form could not be read");
    Error::BadRequest(
        "the form must be whole multipart/form-data, got one that breaks off or has a wrong head".into(),
    )
}

/// Ends a body with an error as soon as it is longer than `most`.
fn limited(
    body: impl Stream<Item = Result<Bytes, Error>>,
    most: u64,
    too_long: impl Fn() -> Error,
) -> impl Stream<Item = Result<Bytes, Error>> {
    let mut length = 0;
    body.map(move |chunk| {
        let chunk = chunk?;
        length += chunk.len() as u64;
        if length > most { Err(too_long()) } else { Ok(chunk) }
    })
}

/// Bounds the bytes before a part of a form: the preamble of the first one, and headers. multer keeps them in memory
/// until the part begins.
#[derive(Debug, Clone, Default)]
struct Heads(Arc<Mutex<Option<u64>>>);

impl Heads {
    /// Starts to count: a part is looked for.
    fn begin(&self) {
        *self.bytes() = Some(0);
    }

    /// Stops counting: the part is found, or the form has ended.
    fn end(&self) {
        *self.bytes() = None;
    }

    /// Ends a body with an error when too many bytes have come before a part begins. The last chunk does not count,
    /// because it may hold the beginning of the part too.
    fn bound<S: Stream<Item = Result<Bytes, Error>>>(
        &self,
        body: S,
    ) -> impl Stream<Item = Result<Bytes, Error>> + use<S> {
        let heads = self.clone();
        body.map(move |chunk| {
            let chunk = chunk?;
            if let Some(bytes) = &mut *heads.bytes() {
                if *bytes > MOST_HEAD_BYTES {
                    return Err(Error::BadRequest(format!(
                        "the form must have at most {MOST_HEAD_BYTES} bytes before a part and in its headers, got more"
                    )));
                }
                *bytes += chunk.len() as u64;
            }
            Ok(chunk)
        })
    }

    fn bytes(&self) -> MutexGuard<'_, Option<u64>> {
        self.0.lock()
    }
}

/// The error of a body that multer reads.
#[derive(Debug, Clone, Default)]
struct Trouble(Arc<Mutex<Option<Error>>>);

impl Trouble {
    fn watch<S: Stream<Item = Result<Bytes, Error>>>(
        &self,
        body: S,
    ) -> impl Stream<Item = Result<Bytes, std::io::Error>> + use<S> {
        let trouble = self.clone();
        body.map(move |chunk| {
            chunk.map_err(|error| {
                let text = error.message();
                *trouble.0.lock() = Some(error);
                std::io::Error::other(text)
            })
        })
    }

    fn take(&self) -> Option<Error> {
        self.0.lock().take()
    }
}
