//! The list of images: as pictures on the first page, as rows on the page of the keys. And the deletion of several.

use axum::extract::{RawQuery, Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use charts::units;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use origin::ImageRow;
use origin::listing::{Page, Place, Position};
use time::OffsetDateTime;
use wire::Key;
use wire::stats::SeriesRequest;

use super::fields::Fields;
use super::render::{broken_chart, logged, or_reason, residency, see_other};
use crate::conditional::WriteConditions;
use crate::error::Error;
use crate::routes::answer::sentence;
use crate::service::state::AppState;
use crate::views::{
    ChosenPage, Deleted, DeletedPage, ImageView, ListPage, Listing, Outcome, Residency, Section, Shell,
    deleted_notice, fate, home_figures, with_deleted,
};

/// How many images a page shows as pictures: it fills rows of two, three, four, six and eight.
const PICTURES: u32 = 48;
/// How many images a page shows as rows.
const ROWS: u32 = 50;
/// How many images can be deleted together.
const MOST_CHOSEN: usize = 100;
/// How many of them are deleted at once: fewer than there are connections to the database.
const DELETIONS_AT_ONCE: usize = 8;
/// The largest form that names as many keys as can be deleted together, each byte of them escaped.
pub(super) const CHOSEN_LIMIT: usize = MOST_CHOSEN * (3 * wire::key::MAX_KEY_BYTES + 8) + 8 * 1024;

pub(super) async fn home(State(state): State<AppState>, RawQuery(query): RawQuery) -> Response {
    let made = async {
        let fields = Fields::of_query(query);
        let listing = listing(&fields, Listing::PICTURES)?;
        let lately = SeriesRequest::default();
        let (list, series, stats) = tokio::join!(
            list_page(&state, &fields, listing, PICTURES),
            state.history_for_page(state.cache.series(&lately)),
            state.cache.stats(),
        );
        let (shell, mut page) = list;
        page.figures = home_figures(logged(series).as_ref(), logged(stats).as_ref(), page.stored_count)
            .map_err(broken_chart)?;
        state.render(StatusCode::OK, "home.html", &shell, &page)
    };
    state.answer(made.await)
}

pub(super) async fn keys(State(state): State<AppState>, RawQuery(query): RawQuery) -> Response {
    let made = async {
        let fields = Fields::of_query(query);
        let listing = listing(&fields, Listing::ROWS)?;
        let (shell, page) = list_page(&state, &fields, listing, ROWS).await;
        state.render(StatusCode::OK, "keys.html", &shell, &page)
    };
    state.answer(made.await)
}

/// The page of the list that an address names.
fn listing(fields: &Fields, path: &'static str) -> Result<Listing, Error> {
    let named = |name| Ok::<_, Error>(fields.text(name)?.filter(|text| !text.is_empty()));
    let order = named("sort")?.map_or_else(|| Ok(Listing::usual_order(path)), |sort| sort.parse())?;
    let position = match (named("after")?, named("before")?) {
        (Some(after), None) => Position::After(Place::parse(&after, order)?),
        (None, Some(before)) => Position::Before(Place::parse(&before, order)?),
        (None, None) => Position::First,
        (Some(_), Some(_)) => {
            return Err(Error::BadRequest("after or before must be left out, got both".into()));
        }
    };
    Ok(Listing { path, prefix: named("prefix")?.unwrap_or_default(), order, position })
}

async fn list_page(state: &AppState, fields: &Fields, asked: Listing, size: u32) -> (Shell, ListPage) {
    let (health, stored, found) = tokio::join!(
        state.health(),
        state.for_page(state.images.count(units::MOST_COUNTED + 1)),
        state.for_page(find(state, asked.clone(), size)),
    );
    let (found, error) = or_reason(found);
    let Found { listing, page, matching, note } =
        found.unwrap_or(Found { listing: asked, page: Page::default(), matching: None, note: None });
    let residency = residency(state, page.rows.iter().map(|row| row.key.clone()).collect()).await;
    let mut page = ListPage::new(&listing, &page, &residency, OffsetDateTime::now_utc());
    let deleted = fields.bytes("deleted").map(|_| fields.shown("deleted"));
    page.done = deleted_notice(deleted.as_deref(), fields.number("deleted_count"));
    page.stored_count = logged(stored);
    page.matching_count = matching;
    page.error = error;
    page.note = note;
    let section = if listing.path == Listing::ROWS { Section::Keys } else { Section::Gallery };
    (Shell::new(Some(section), Some(&health)), page)
}

/// A page of the list.
struct Found {
    /// The listing that it is a page of.
    listing: Listing,
    page: Page,
    /// How many images the filter lets through, if there is one.
    matching: Option<u64>,
    /// The difference from the request, in a sentence.
    note: Option<String>,
}

async fn find(state: &AppState, mut listing: Listing, size: u32) -> Result<Found, Error> {
    let (mut matching, mut note) = (None, None);
    if !listing.prefix.is_empty() {
        let count = state.images.count_beginning(&listing.prefix, units::MOST_COUNTED + 1).await?;
        matching = Some(count);
        if count > units::MOST_COUNTED && !listing.order.is_by_key() {
            // No index has the matching keys in that order, and to sort more of them would take too long.
            note = Some(format!(
                "More than {} keys begin like that: they are sorted by key. A longer prefix can be sorted by size and \
                 age too.",
                units::count(units::MOST_COUNTED)
            ));
            listing = listing.by_key();
        }
    }
    let page = state.images.list(&listing.prefix, listing.order, &listing.position, size).await?;
    Ok(Found { listing, page, matching, note })
}

/// The deletion of several images. The first request shows them; with `confirmed`, it deletes them.
pub(super) async fn delete_chosen(State(state): State<AppState>, request: Request) -> Response {
    let made = async {
        let fields = Fields::of_form_up_to(request, CHOSEN_LIMIT).await?;
        let keys = chosen(&fields)?;
        let back = own_address(&fields.shown("back"));
        if fields.bytes("confirmed").is_none() {
            return show_chosen(&state, keys, back).await;
        }
        let asked = keys.len() as u64;
        let deletions = keys.into_iter().map(|key| {
            let state = &state;
            async move {
                let deleted = state.delete(&key, WriteConditions::default()).await;
                (key, deleted)
            }
        });
        let outcomes: Vec<_> = stream::iter(deletions).buffered(DELETIONS_AT_ONCE).collect().await;
        let is_made =
            |outcome: &Result<(), Error>| matches!(outcome, Ok(()) | Err(Error::StillTelling { .. }));
        let deleted = outcomes.iter().filter(|(_, outcome)| is_made(outcome)).count() as u64;
        let Some(failure) = outcomes.iter().find_map(|(_, outcome)| outcome.as_ref().err()) else {
            return Ok(see_other(&with_deleted(&back, deleted)));
        };
        let health = state.health().await;
        let page = DeletedPage {
            deleted,
            asked,
            outcomes: outcomes
                .iter()
                .map(|(key, outcome)| Outcome {
                    key: key.to_string(),
                    outcome: match outcome {
                        Ok(()) => "deleted",
                        Err(Error::StillTelling { .. }) => "not confirmed",
                        Err(_) => "failed",
                    },
                    reason: outcome.as_ref().err().map(sentence),
                })
                .collect(),
            back,
        };
        let shell = Shell::new(Some(Section::Keys), Some(&health));
        state.render_refusal(failure, "images_deleted.html", &shell, &page)
    };
    state.answer(made.await)
}

/// The keys that a form names, each once.
fn chosen(fields: &Fields) -> Result<Vec<Key>, Error> {
    let mut keys = Vec::new();
    for bytes in fields.all("key") {
        let key = Key::from_bytes(bytes)?;
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    match keys.len() {
        0 => Err(Error::BadRequest("the images to delete must be selected, got none".into())),
        1..=MOST_CHOSEN => Ok(keys),
        many => Err(Error::BadRequest(format!(
            "the images to delete together must be 1 to {MOST_CHOSEN}, got {many}"
        ))),
    }
}

async fn show_chosen(state: &AppState, keys: Vec<Key>, back: String) -> Result<Response, Error> {
    let found = stream::iter(keys).map(|key| async move {
        let row = state.for_page(state.images.get(&key)).await?;
        Ok::<_, Error>(row.ok_or(key))
    });
    let found: Vec<Result<ImageRow, Key>> = found.buffered(MOST_CHOSEN).try_collect().await?;
    let health = state.health().await;
    let now = OffsetDateTime::now_utc();
    let rows = found.iter().filter_map(|found| found.as_ref().ok());
    let page = ChosenPage {
        bytes: rows.clone().map(|row| row.size).sum(),
        images: rows.map(|row| ImageView::new(row, &Residency::default(), now)).collect(),
        gone: found.iter().filter_map(|found| found.as_ref().err()).map(Key::to_string).collect(),
        back,
        fate: fate(
            if found.len() == 1 { Deleted::One } else { Deleted::Several },
            state.config.origin.trash_days,
        ),
    };
    let shell = Shell::new(Some(Section::Keys), Some(&health));
    state.render(StatusCode::OK, "images_delete.html", &shell, &page)
}

/// The address if it is one of the list, else that of the list's first page: a form must not redirect anywhere else.
fn own_address(address: &str) -> String {
    let path = address.split('?').next().unwrap_or_default();
    let is_own = [Listing::PICTURES, Listing::ROWS].contains(&path)
        && address.bytes().all(|byte| byte.is_ascii_graphic());
    if is_own { address.to_owned() } else { Listing::ROWS.to_owned() }
}

/// Redirects a reload of an address that a form was sent to.
pub(super) async fn back_to_list() -> Response {
    see_other(Listing::ROWS)
}
