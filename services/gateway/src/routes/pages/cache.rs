//! The page of the cache's settings.

use axum::extract::{RawQuery, Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use charts::units;
use serde_json::{Value, json};
use time::OffsetDateTime;
use wire::Span;
use wire::stats::HistoryRequest;
use wire::words::shown;

use super::fields::Fields;
use super::render::{failed, logged, or_reason, see_other};
use crate::error::Error;
use crate::routes::answer::sentence;
use crate::service::state::AppState;
use crate::views::{
    CacheForm, CachePage, DELETE_ALL_PHRASE, Deleted, Done, FormError, Section, Shell, changes, config_view,
    fate, share,
};

/// How many changes of the configuration are shown.
const HISTORY_SIZE: u32 = 30;
/// How much time before and after a change is compared, in milliseconds.
const COMPARED_MS: u64 = 600_000;

/// The author of changes by this page, as the history of the configuration names it.
const BY: &str = "settings page";

pub(super) async fn cache(State(state): State<AppState>, RawQuery(query): RawQuery) -> Response {
    let fields = Fields::of_query(query);
    state.answer(cache_page(&state, &fields, None).await)
}

/// The cache's page: after a success, or with the refused values, the form that they were of, and the reason.
async fn cache_page(
    state: &AppState,
    fields: &Fields,
    refused: Option<(&'static str, Error)>,
) -> Result<Response, Error> {
    let compare = Span::from_millis(COMPARED_MS).ok();
    let latest = HistoryRequest { range: None, limit: HISTORY_SIZE, compare };
    let (health, config, stats, history, count) = tokio::join!(
        state.health(),
        state.cache.config(),
        state.cache.stats(),
        state.history_for_page(state.cache.config_history(&latest)),
        state.for_page(state.images.count(units::MOST_COUNTED + 1)),
    );
    let now = OffsetDateTime::now_utc();
    let config = logged(config);
    let (stats, stats_error) = or_reason(stats);
    let (history, history_error) = or_reason(history);

    let mut form = CacheForm::new(config.as_ref());
    match &refused {
        Some(("config", _)) => {
            form.capacity_mb = fields.shown("capacity_mb");
            form.policy = fields.shown("policy");
        }
        Some(("delete_all", _)) => form.confirmation = fields.shown("confirmation"),
        _ => {}
    }
    let done = match (fields.number("applied"), fields.number("cleared"), fields.number("deleted"), &config) {
        (Some(revision), _, _, Some(config)) if config.revision >= revision => Some(Done {
            title: format!("Revision {} is in force.", units::count(config.revision)),
            text: format!(
                "{} holds up to {}, policy {}.",
                config.worker,
                units::bytes(config.capacity_bytes),
                config.config.policy
            ),
        }),
        (_, Some(entries), _, _) => Some(Done {
            title: "The cache is cleared.".into(),
            text: format!(
                "{} with {} dropped.",
                units::counted(entries, "item", "items"),
                units::bytes(fields.number("bytes").unwrap_or_default()),
            ),
        }),
        (_, _, Some(deleted), _) => Some(Done {
            title: "Everything is deleted.".into(),
            text: format!("{} removed.", units::counted(deleted, "image was", "images were")),
        }),
        _ => None,
    };
    let page = CachePage {
        done: done.filter(|_| refused.is_none()),
        // The worker's message has the field name of the API. Beside a form it gets the form's name.
        error: refused.as_ref().map(|(form, error)| FormError {
            form,
            done: matches!(error, Error::StillTelling { .. }),
            title: match *form {
                "config" => failed(error, "Nothing was changed.", "The change failed."),
                "clear" => failed(error, "The cache was not cleared.", "Clearing the cache failed."),
                _ => {
                    failed(error, "No image was deleted.", "The deletion failed. Some images may be deleted.")
                }
            },
            message: sentence(error).replacen("Capacity_mb", "Capacity", 1),
        }),
        form,
        config: config.as_ref().map(|config| config_view(config, now)),
        share: stats.as_ref().map_or(0.0, |stats| share(stats.cache_size_bytes, stats.capacity_bytes)),
        stats,
        stats_error,
        history: history.map(|history| changes(&history.changes, now)).unwrap_or_default(),
        compared_ms: COMPARED_MS,
        history_error,
        stored_count: logged(count),
        confirmation_phrase: DELETE_ALL_PHRASE,
        fate: fate(Deleted::Several, state.config.origin.trash_days),
    };
    let shell = Shell::new(Some(Section::Cache), Some(&health));
    match &refused {
        None => state.render(StatusCode::OK, "cache.html", &shell, &page),
        Some((_, error)) => state.render_refusal(error, "cache.html", &shell, &page),
    }
}

pub(super) async fn configure(State(state): State<AppState>, request: Request) -> Response {
    let fields = match Fields::of_form(request).await {
        Ok(fields) => fields,
        Err(error) => return state.answer(Err(error)),
    };
    // A text that is not a number goes to the worker as it is: only the worker decides which values are allowed.
    let capacity = fields.shown("capacity_mb");
    let capacity = serde_json::from_str::<serde_json::Number>(capacity.trim())
        .map_or_else(|_| Value::from(capacity.as_str()), Value::from);
    let change = json!({ "capacity_mb": capacity, "policy": fields.shown("policy") });
    let made = match state.cache.set_config(change.to_string().as_bytes(), BY).await {
        Ok(reply) => Ok(see_other(&format!("/cache_properties?applied={}", reply.revision))),
        Err(error) => cache_page(&state, &fields, Some(("config", error))).await,
    };
    state.answer(made)
}

pub(super) async fn clear(State(state): State<AppState>) -> Response {
    let made = match state.clear_cache(BY).await {
        Ok(reply) => {
            let (entries, bytes) = (reply.entries, reply.bytes);
            Ok(see_other(&format!("/cache_properties?cleared={entries}&bytes={bytes}")))
        }
        Err(error) => cache_page(&state, &Fields::default(), Some(("clear", error))).await,
    };
    state.answer(made)
}

pub(super) async fn delete_all(State(state): State<AppState>, request: Request) -> Response {
    let fields = match Fields::of_form(request).await {
        Ok(fields) => fields,
        Err(error) => return state.answer(Err(error)),
    };
    let deleted = if fields.shown("confirmation").trim() == DELETE_ALL_PHRASE {
        state.delete_all().await
    } else {
        Err(Error::BadRequest(format!(
            "the confirmation must be “{DELETE_ALL_PHRASE}”, got {}",
            shown(&fields.shown("confirmation"))
        )))
    };
    let made = match deleted {
        Ok(count) => Ok(see_other(&format!("/cache_properties?deleted={count}"))),
        Err(error) => cache_page(&state, &fields, Some(("delete_all", error))).await,
    };
    state.answer(made)
}

/// Redirects a reload of an address that a form was sent to.
pub(super) async fn back_to_cache() -> Response {
    see_other("/cache_properties")
}
