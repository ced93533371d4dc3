//! The page of one image, and its deletion.

use std::time::Duration;

use axum::Extension;
use axum::extract::{RawQuery, Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use time::OffsetDateTime;
use tokio::time::timeout;
use wire::Item;

use super::fields::Fields;
use super::render::{logged, residency, see_other};
use crate::conditional::WriteConditions;
use crate::error::Error;
use crate::routes::answer::sentence;
use crate::service::state::AppState;
use crate::views::{
    DeletePage, Deleted, Done, ImageFormPage, ImagePage, ImageView, Residency, Section, Shell, deleted_page,
    fate, image_page,
};
use crate::visitor::Visitor;

/// How long a page waits for its image.
const READ_LIMIT: Duration = Duration::from_secs(5);

pub(super) async fn image(
    State(state): State<AppState>,
    Extension(visitor): Extension<Visitor>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    let fields = Fields::of_query(query);
    if fields.bytes("key").is_none() {
        let health = state.health().await;
        let shell = Shell::new(Some(Section::LookUp), Some(&health));
        let page = ImageFormPage::default();
        return state.answer(state.render(StatusCode::OK, "image_form.html", &shell, &page));
    }
    let read = async {
        let key = fields.key()?;
        let item = Item::from(key.clone());
        // The read comes first and alone, so that questions about the image do not add to its time.
        let read = timeout(READ_LIMIT, state.read(&item, visitor)).await.unwrap_or_else(|_| {
            let reason = format!("no answer within {} s", READ_LIMIT.as_secs());
            Err(Error::Unavailable { part: "the image", reason })
        })?;
        // The page tells whether the image is in the cache, into which this read may have put it.
        state.settle(&item).await;
        let (health, row, residency) = tokio::join!(
            state.health(),
            state.for_page(state.images.get(&key)),
            residency(&state, vec![key.clone()])
        );
        let done = match (fields.shown("stored").as_str(), fields.shown("invalidated").as_str()) {
            (_, "dropped") => Some(Done {
                title: "Dropped from the cache.".into(),
                text: "This page shows the first read after that.".into(),
            }),
            (_, "absent") => Some(Done {
                title: "It was not in the cache.".into(),
                text: "No entry had to be dropped.".into(),
            }),
            ("new", _) => {
                Some(Done { title: "Stored.".into(), text: "Every reader gets this image now.".into() })
            }
            ("replaced", _) => Some(Done {
                title: "Replaced.".into(),
                text: "The image that was stored under this key before is gone.".into(),
            }),
            _ => None,
        };
        let row = logged(row).flatten();
        let base = base_url(&state, &headers);
        let now = OffsetDateTime::now_utc();
        let page = ImagePage::new(&key, &read, row.as_ref(), &residency, done, &base, now);
        let shell = Shell::new(Some(Section::LookUp), Some(&health));
        state.render(StatusCode::OK, "image.html", &shell, &page)
    };
    let made = match read.await {
        Ok(page) => Ok(page),
        Err(error) => no_image(&state, fields.shown("key"), &error).await,
    };
    state.answer(made)
}

/// Drops one image from the cache, and nothing else.
pub(super) async fn invalidate(State(state): State<AppState>, request: Request) -> Response {
    let fields = match Fields::of_form(request).await {
        Ok(fields) => fields,
        Err(error) => return state.answer(Err(error)),
    };
    let dropped = async {
        let key = fields.key()?;
        let reply = state.drop_cached(&key).await?;
        let what = if reply.resident { "dropped" } else { "absent" };
        Ok(see_other(&format!("{}&invalidated={what}", image_page(&key))))
    };
    let made = match dropped.await {
        Ok(answer) => Ok(answer),
        Err(error) => no_image(&state, fields.shown("key"), &error).await,
    };
    state.answer(made)
}

/// Redirects a reload of an address that a form was sent to.
pub(super) async fn back_to_form() -> Response {
    see_other("/image")
}

/// The form for a key, with the error about it.
async fn no_image(state: &AppState, key: String, error: &Error) -> Result<Response, Error> {
    let health = state.health().await;
    let page = ImageFormPage {
        key,
        error: Some(sentence(error)),
        is_made: matches!(error, Error::StillTelling { .. }),
        can_upload: matches!(error, Error::NoImage(_)),
    };
    let shell = Shell::new(Some(Section::LookUp), Some(&health));
    state.render_refusal(error, "image_form.html", &shell, &page)
}

pub(super) async fn confirm_delete(State(state): State<AppState>, RawQuery(query): RawQuery) -> Response {
    let fields = Fields::of_query(query);
    let asked = async {
        let key = fields.key()?;
        let (health, row) = tokio::join!(state.health(), state.for_page(state.images.get(&key)));
        let row = row?.ok_or(Error::NoImage(key))?;
        let image = ImageView::new(&row, &Residency::default(), OffsetDateTime::now_utc());
        let fate = fate(Deleted::One, state.config.origin.trash_days);
        let shell = Shell::new(Some(Section::Gallery), Some(&health));
        state.render(StatusCode::OK, "image_delete.html", &shell, &DeletePage { image, fate })
    };
    let made = match asked.await {
        Ok(page) => Ok(page),
        Err(error) => no_image(&state, fields.shown("key"), &error).await,
    };
    state.answer(made)
}

pub(super) async fn delete(State(state): State<AppState>, request: Request) -> Response {
    let fields = match Fields::of_form(request).await {
        Ok(fields) => fields,
        Err(error) => return state.answer(Err(error)),
    };
    let deleted = async {
        let key = fields.key()?;
        state.delete(&key, WriteConditions::default()).await?;
        Ok(key)
    };
    let made = match deleted.await {
        Ok(key) => Ok(see_other(&deleted_page(&key))),
        Err(error) => no_image(&state, fields.shown("key"), &error).await,
    };
    state.answer(made)
}

/// The URL at which the viewer's browser reached this gateway. The header `Host` is used only if it is a plain name or
/// address, because the URL becomes part of commands that people copy into a shell.
pub(super) fn base_url(state: &AppState, headers: &HeaderMap) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || ".-:[]".contains(c);
    let named = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let host = named("host").filter(|host| !host.is_empty() && host.chars().all(plain));
    let host = host.map_or_else(|| format!("{}:{}", state.config.host, state.config.port), str::to_owned);
    let scheme = if named("x-forwarded-proto") == Some("https") { "https" } else { "http" };
    format!("{scheme}://{host}")
}
