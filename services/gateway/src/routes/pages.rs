//! The pages: what people see of the system, and the forms with which they change it.
//!
//! Each form answers a success with a redirection, so that a reload sends nothing again, and a refusal
//! with the same page, what was typed still in it, and the status that a program would get.

use axum::Router;
use axum::extract::{DefaultBodyLimit, FromRequest, RawForm, RawQuery, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use percent_encoding::percent_decode;
use serde::Serialize;
use serde_json::{Value, json};
use time::{OffsetDateTime, UtcOffset};
use wire::inspect::{KeySort, KeysRequest};
use wire::stats::{HistoryRequest, SeriesRequest};
use wire::{Key, KeyError, Span};

use crate::chart::ChartError;
use crate::conditional::WriteConditions;
use crate::error::Error;
use crate::routes::upload::{Reading, RefusedForm, store_form};
use crate::state::AppState;
use crate::units;
use crate::views::{
    CacheForm, CachePage, DELETE_ALL_PHRASE, DeletePage, Done, ErrorPage, FormError, HomePage, ImageFormPage,
    ImagePage, ImageView, KeysPage, Residency, Section, Shell, StatsPage, UploadPage, Views, changes,
    config_view, home_figures, image_page, keys_page, share,
};

/// How many images the first page shows.
const GALLERY_SIZE: u32 = 24;
/// How many keys a page of the list shows.
const LIST_SIZE: u32 = 50;
/// How many resident keys are asked for to mark them in a list: the most that one answer holds.
const RESIDENT_LIMIT: u32 = 1000;
/// How many changes of the configuration are shown.
const HISTORY_SIZE: u32 = 30;
/// The largest body of a form without a file: a key of 255 bytes, escaped, is below 1 kB.
const FORM_LIMIT: usize = 16 * 1024;
/// Who changes the configuration, as its history names it.
const BY: &str = "settings page";

/// The routes of the pages and of their static files.
pub fn router() -> Router<AppState> {
    Router::new()
        .route("/", get(home))
        .route("/keys_list", get(keys))
        .route("/image", get(image))
        .route("/image/delete", get(confirm_delete).post(delete))
        .route("/cache_properties", get(cache).post(configure))
        .route("/cache_properties/clear", post(clear).get(back_to_cache))
        .route("/cache_properties/delete_all", post(delete_all).get(back_to_cache))
        .route("/cache_stats", get(stats))
        .route("/static/{*path}", get(asset))
        .route("/favicon.ico", get(favicon))
        .layer(DefaultBodyLimit::max(FORM_LIMIT))
        .merge(upload_router())
}

/// Apart, because an image may be larger than any other form; `store_form` has its own limits.
fn upload_router() -> Router<AppState> {
    Router::new().route("/upload_image", get(upload_form).post(upload)).layer(DefaultBodyLimit::disable())
}

/// A failure as a page.
pub fn error_page(views: &Views, error: &Error) -> Response {
    error.log();
    let status = error.status();
    let page = ErrorPage { status: status.as_u16(), title: title_of(status), message: sentence(error) };
    let mut response = match views.page("error.html", &Shell::new(None, None), &page) {
        Ok(body) => html(status, body),
        Err(broken) => {
            broken.log();
            (status, error.message()).into_response()
        }
    };
    error.add_headers(response.headers_mut());
    response
}

/// What people call a status.
fn title_of(status: StatusCode) -> &'static str {
    match status {
        StatusCode::BAD_REQUEST => "That can’t be understood",
        StatusCode::UNAUTHORIZED => "Log in first",
        StatusCode::FORBIDDEN => "Not allowed",
        StatusCode::NOT_FOUND => "Not found",
        StatusCode::METHOD_NOT_ALLOWED => "Not like that",
        StatusCode::SERVICE_UNAVAILABLE => "Not possible now",
        status if status.is_client_error() => "That is not possible",
        _ => "Something went wrong",
    }
}

/// An error's message as a sentence of its own.
fn sentence(error: &Error) -> String {
    let message = error.message();
    let mut letters = message.chars();
    let first = letters.next().into_iter().flat_map(char::to_uppercase);
    let text: String = first.chain(letters).collect();
    if text.ends_with(['.', '!', '?']) { text } else { format!("{text}.") }
}

fn html(status: StatusCode, body: String) -> Response {
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8")),
        // Not "no-referrer", as elsewhere: with that, browsers send our own forms with `Origin: null`,
        // and older ones say nothing else about where a form comes from.
        (header::REFERRER_POLICY, HeaderValue::from_static("same-origin")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
    ];
    (status, headers, body).into_response()
}

/// Elsewhere, by GET: the answer to a form that did what it was asked.
fn see_other(path: &str) -> Response {
    let location = HeaderValue::from_str(path).unwrap_or(HeaderValue::from_static("/"));
    (StatusCode::SEE_OTHER, [(header::LOCATION, location)]).into_response()
}

impl AppState {
    /// Answers with the page that `made` is, or with one about why it could not be made.
    fn answer(&self, made: Result<Response, Error>) -> Response {
        made.unwrap_or_else(|error| error_page(&self.views, &error))
    }

    fn render<P: Serialize>(
        &self,
        status: StatusCode,
        template: &str,
        shell: &Shell,
        page: &P,
    ) -> Result<Response, Error> {
        Ok(html(status, self.views.page(template, shell, page)?))
    }

    /// A page about a refusal: the refusal's status and headers, and nothing lost of what was typed.
    fn render_refusal<P: Serialize>(
        &self,
        error: &Error,
        template: &str,
        shell: &Shell,
        page: &P,
    ) -> Result<Response, Error> {
        error.log();
        let mut response = self.render(error.status(), template, shell, page)?;
        error.add_headers(response.headers_mut());
        Ok(response)
    }
}

/// The fields of a query or of a form without files.
///
/// Unlike the usual decoders this one keeps bytes that are not UTF-8, so that a key made of them is
/// refused and not taken for another one.
#[derive(Debug, Default)]
struct Fields(Vec<(Vec<u8>, Vec<u8>)>);

impl Fields {
    fn parse(text: &[u8]) -> Self {
        let decode = |part: &[u8]| {
            let spaced: Vec<u8> = part.iter().map(|&byte| if byte == b'+' { b' ' } else { byte }).collect();
            percent_decode(&spaced).collect::<Vec<u8>>()
        };
        let pairs = text.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty()).map(|pair| {
            let mut halves = pair.splitn(2, |byte| *byte == b'=');
            (decode(halves.next().unwrap_or_default()), decode(halves.next().unwrap_or_default()))
        });
        Self(pairs.collect())
    }

    fn of_query(query: Option<String>) -> Self {
        Self::parse(query.unwrap_or_default().as_bytes())
    }

    async fn of_form(request: Request) -> Result<Self, Error> {
        let form =
            RawForm::from_request(request, &()).await.map_err(|rejection| match rejection.status() {
                StatusCode::PAYLOAD_TOO_LARGE => {
                    Error::TooLarge(format!("this form may have up to {FORM_LIMIT} bytes"))
                }
                StatusCode::UNSUPPORTED_MEDIA_TYPE => {
                    Error::UnsupportedType("this form is sent as application/x-www-form-urlencoded".into())
                }
                _ => Error::BadRequest(rejection.body_text()),
            })?;
        Ok(Self::parse(&form.0))
    }

    /// The bytes of the first field of that name.
    fn bytes(&self, name: &str) -> Option<&[u8]> {
        self.0.iter().find(|(field, _)| field == name.as_bytes()).map(|(_, value)| value.as_slice())
    }

    /// The text of a field, for showing it again.
    fn shown(&self, name: &str) -> String {
        String::from_utf8_lossy(self.bytes(name).unwrap_or_default()).into_owned()
    }

    /// The text of a field that has to be text.
    fn text(&self, name: &'static str) -> Result<Option<String>, Error> {
        let Some(bytes) = self.bytes(name) else { return Ok(None) };
        match String::from_utf8(bytes.to_owned()) {
            Ok(text) => Ok(Some(text)),
            Err(_) => Err(Error::BadRequest(format!("{name} is not valid UTF-8"))),
        }
    }

    fn key(&self) -> Result<Key, KeyError> {
        Key::from_bytes(self.bytes("key").unwrap_or_default())
    }

    fn number(&self, name: &str) -> Option<u64> {
        std::str::from_utf8(self.bytes(name)?).ok()?.parse().ok()
    }
}

/// Where the viewer's browser found this gateway: by the header `Host`, if that is a plain name or
/// address, because it becomes part of commands that people copy into a shell.
fn base_url(state: &AppState, headers: &HeaderMap) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || ".-:[]".contains(c);
    let named = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let host = named("host").filter(|host| !host.is_empty() && host.chars().all(plain));
    let host = host.map_or_else(|| format!("{}:{}", state.config.host, state.config.port), str::to_owned);
    let scheme = if named("x-forwarded-proto") == Some("https") { "https" } else { "http" };
    format!("{scheme}://{host}")
}

/// What of the first thousand resident keys, in this order, is known of a list of keys.
async fn residency(state: &AppState, request: &KeysRequest, last: Option<&Key>) -> Residency {
    match state.cache.keys(request).await {
        Ok(reply) => {
            // Sorted by key, an answer that goes past the list's last key has said all about it.
            let covers = request.sort == KeySort::Key
                && last.zip(reply.keys.last()).is_some_and(|(last, entry)| entry.key >= *last);
            let complete = covers || reply.next.is_none();
            Residency::new(reply.keys, complete)
        }
        Err(error) => {
            error.log();
            Residency::default()
        }
    }
}

async fn home(State(state): State<AppState>, RawQuery(query): RawQuery) -> Response {
    let fields = Fields::of_query(query);
    let now = OffsetDateTime::now_utc();
    let resident = KeysRequest { limit: RESIDENT_LIMIT, ..KeysRequest::default() };
    let lately = SeriesRequest::default();
    let (health, images, count, series, stats, residency) = tokio::join!(
        state.health(),
        state.images.newest(GALLERY_SIZE),
        state.images.count(units::MOST_COUNTED + 1),
        state.cache.series(&lately),
        state.cache.stats(),
        residency(&state, &resident, None),
    );
    let made = || {
        let count = logged(count);
        let (images, images_error) = or_reason(images);
        let page = HomePage {
            deleted: fields.bytes("deleted").map(|_| format!("“{}” is deleted.", fields.shown("deleted"))),
            figures: home_figures(logged(series).as_ref(), logged(stats).as_ref(), count)
                .map_err(broken_chart)?,
            images: images
                .unwrap_or_default()
                .iter()
                .map(|row| ImageView::new(row, &residency, now))
                .collect(),
            stored_count: count,
            images_error,
        };
        let shell = Shell::new(Some(Section::Gallery), Some(&health));
        state.render(StatusCode::OK, "home.html", &shell, &page)
    };
    state.answer(made())
}

/// What there is, or nothing: the page shows the part that failed as missing.
fn logged<T>(answer: Result<T, Error>) -> Option<T> {
    answer.inspect_err(Error::log).ok()
}

/// What there is, or why there is nothing, in a sentence for the place where it would be.
fn or_reason<T>(answer: Result<T, Error>) -> (Option<T>, Option<String>) {
    match answer {
        Ok(found) => (Some(found), None),
        Err(error) => {
            error.log();
            (None, Some(sentence(&error)))
        }
    }
}

fn broken_chart(error: ChartError) -> Error {
    Error::Internal(anyhow::Error::new(error))
}

async fn keys(State(state): State<AppState>, RawQuery(query): RawQuery) -> Response {
    let fields = Fields::of_query(query);
    let made = async {
        let prefix = fields.text("prefix")?.unwrap_or_default();
        let after = fields.text("after")?.filter(|after| !after.is_empty());
        // One more than is shown tells whether there is a next page.
        let (health, count, listed) = tokio::join!(
            state.health(),
            state.images.count(units::MOST_COUNTED + 1),
            state.images.page(&prefix, after.as_deref(), LIST_SIZE + 1),
        );
        let (rows, error) = or_reason(listed);
        let mut rows = rows.unwrap_or_default();
        let more = rows.len() > LIST_SIZE as usize;
        rows.truncate(LIST_SIZE as usize);
        let last = rows.last().map(|row| row.key.clone());
        let resident = KeysRequest {
            prefix: prefix.clone(),
            limit: RESIDENT_LIMIT,
            after: after.clone(),
            sort: KeySort::Key,
        };
        let residency = residency(&state, &resident, last.as_ref()).await;
        let now = OffsetDateTime::now_utc();
        let page = KeysPage {
            images: rows.iter().map(|row| ImageView::new(row, &residency, now)).collect(),
            stored_count: logged(count),
            error,
            first: after.is_some().then(|| keys_page(&prefix, None)),
            next: last.filter(|_| more).map(|last| keys_page(&prefix, Some(last.as_str()))),
            prefix,
            after,
        };
        let shell = Shell::new(Some(Section::Keys), Some(&health));
        state.render(StatusCode::OK, "keys.html", &shell, &page)
    };
    state.answer(made.await)
}

async fn upload_form(
    State(state): State<AppState>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    let key = Fields::of_query(query).shown("key");
    let health = state.health().await;
    let page = upload_page(&state, &headers, key, None);
    let shell = Shell::new(Some(Section::Upload), Some(&health));
    state.answer(state.render(StatusCode::OK, "upload.html", &shell, &page))
}

fn upload_page(state: &AppState, headers: &HeaderMap, key: String, error: Option<&Error>) -> UploadPage {
    UploadPage {
        key,
        // An image that is stored but not yet known to the cache is no refusal.
        stored: matches!(error, Some(Error::StillTelling { .. })),
        wrong: match error {
            Some(Error::Key(_)) => Some("key"),
            Some(Error::TooLarge(_) | Error::UnsupportedType(_) | Error::Unprocessable(_)) => Some("file"),
            _ => None,
        },
        error: error.map(sentence),
        max_bytes: state.config.max_image_bytes(),
        max_megapixels: state.config.max_image_megapixels,
        base: base_url(state, headers),
    }
}

async fn upload(State(state): State<AppState>, headers: HeaderMap, request: Request) -> Response {
    let made = match store_form(&state, request, Reading::ForTheKey).await {
        Ok(stored) => {
            let how = if stored.created { "new" } else { "replaced" };
            Ok(see_other(&format!("{}&stored={how}", image_page(&stored.row.key))))
        }
        Err(RefusedForm { error, key }) => {
            let health = state.health().await;
            let page = upload_page(&state, &headers, key.unwrap_or_default(), Some(&error));
            let shell = Shell::new(Some(Section::Upload), Some(&health));
            state.render_refusal(&error, "upload.html", &shell, &page)
        }
    };
    state.answer(made)
}

async fn image(State(state): State<AppState>, RawQuery(query): RawQuery, headers: HeaderMap) -> Response {
    let fields = Fields::of_query(query);
    if fields.bytes("key").is_none() {
        let health = state.health().await;
        let shell = Shell::new(Some(Section::LookUp), Some(&health));
        let page = ImageFormPage::default();
        return state.answer(state.render(StatusCode::OK, "image_form.html", &shell, &page));
    }
    let read = async {
        let key = fields.key()?;
        // First the read alone, so that its time is not shared with questions about it.
        let read = state.read(&key, None).await?;
        let (health, row, residency) =
            tokio::join!(state.health(), state.images.get(&key), residency_of(&state, &key));
        let done = match fields.shown("stored").as_str() {
            "new" => Some(Done {
                title: "Stored.".into(),
                text: "This is the image as anyone gets it now.".into(),
            }),
            "replaced" => Some(Done {
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

/// Whether one key is resident: of all keys that begin with it, it is the first.
async fn residency_of(state: &AppState, key: &Key) -> Residency {
    let request = KeysRequest { prefix: key.as_str().to_owned(), limit: 1, after: None, sort: KeySort::Key };
    residency(state, &request, Some(key)).await
}

/// The form for a key with what is wrong about it.
async fn no_image(state: &AppState, key: String, error: &Error) -> Result<Response, Error> {
    let health = state.health().await;
    let page =
        ImageFormPage { key, error: Some(sentence(error)), can_upload: matches!(error, Error::NoImage(_)) };
    let shell = Shell::new(Some(Section::LookUp), Some(&health));
    state.render_refusal(error, "image_form.html", &shell, &page)
}

async fn confirm_delete(State(state): State<AppState>, RawQuery(query): RawQuery) -> Response {
    let fields = Fields::of_query(query);
    let asked = async {
        let key = fields.key()?;
        let (health, row) = tokio::join!(state.health(), state.images.get(&key));
        let row = row?.ok_or(Error::NoImage(key))?;
        let image = ImageView::new(&row, &Residency::default(), OffsetDateTime::now_utc());
        let shell = Shell::new(Some(Section::Gallery), Some(&health));
        state.render(StatusCode::OK, "image_delete.html", &shell, &DeletePage { image })
    };
    let made = match asked.await {
        Ok(page) => Ok(page),
        Err(error) => no_image(&state, fields.shown("key"), &error).await,
    };
    state.answer(made)
}

async fn delete(State(state): State<AppState>, request: Request) -> Response {
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
        Ok(key) => Ok(see_other(&crate::views::deleted_page(&key))),
        Err(error) => no_image(&state, fields.shown("key"), &error).await,
    };
    state.answer(made)
}

async fn cache(State(state): State<AppState>, RawQuery(query): RawQuery) -> Response {
    let fields = Fields::of_query(query);
    state.answer(cache_page(&state, &fields, None).await)
}

/// A reload of an address that a form was sent to.
async fn back_to_cache() -> Response {
    see_other("/cache_properties")
}

/// The cache's page: after a success, or with what was refused, which form it was of, and why.
async fn cache_page(
    state: &AppState,
    fields: &Fields,
    refused: Option<(&'static str, Error)>,
) -> Result<Response, Error> {
    let latest = HistoryRequest { range: None, limit: HISTORY_SIZE };
    let (health, config, stats, history, count) = tokio::join!(
        state.health(),
        state.cache.config(),
        state.cache.stats(),
        state.cache.config_history(&latest),
        state.images.count(units::MOST_COUNTED + 1),
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
        // The worker names the field as programs know it; beside a form it has the form's name.
        error: refused.as_ref().map(|(form, error)| FormError {
            form,
            done: matches!(error, Error::StillTelling { .. }),
            message: sentence(error).replacen("Capacity_mb", "Capacity", 1),
        }),
        form,
        config: config.as_ref().map(|config| config_view(config, now)),
        share: stats.as_ref().map_or(0.0, |stats| share(stats.cache_size_bytes, stats.capacity_bytes)),
        stats,
        stats_error,
        history: history.map(|history| changes(&history.changes, now)).unwrap_or_default(),
        history_error,
        stored_count: logged(count),
        confirmation_phrase: DELETE_ALL_PHRASE,
    };
    let shell = Shell::new(Some(Section::Cache), Some(&health));
    match &refused {
        None => state.render(StatusCode::OK, "cache.html", &shell, &page),
        Some((_, error)) => state.render_refusal(error, "cache.html", &shell, &page),
    }
}

async fn configure(State(state): State<AppState>, request: Request) -> Response {
    let fields = match Fields::of_form(request).await {
        Ok(fields) => fields,
        Err(error) => return state.answer(Err(error)),
    };
    // What is no number goes to the worker as text: it alone says what is allowed.
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

async fn clear(State(state): State<AppState>) -> Response {
    let made = match state.cache.clear(BY).await {
        Ok(reply) => {
            let (entries, bytes) = (reply.entries, reply.bytes);
            Ok(see_other(&format!("/cache_properties?cleared={entries}&bytes={bytes}")))
        }
        Err(error) => cache_page(&state, &Fields::default(), Some(("clear", error))).await,
    };
    state.answer(made)
}

async fn delete_all(State(state): State<AppState>, request: Request) -> Response {
    let fields = match Fields::of_form(request).await {
        Ok(fields) => fields,
        Err(error) => return state.answer(Err(error)),
    };
    let deleted = if fields.shown("confirmation").trim() == DELETE_ALL_PHRASE {
        state.delete_all().await
    } else {
        Err(Error::BadRequest(format!("type “{DELETE_ALL_PHRASE}” to confirm that all images be deleted")))
    };
    let made = match deleted {
        Ok(count) => Ok(see_other(&format!("/cache_properties?deleted={count}"))),
        Err(error) => cache_page(&state, &fields, Some(("delete_all", error))).await,
    };
    state.answer(made)
}

async fn stats(State(state): State<AppState>, RawQuery(query): RawQuery) -> Response {
    let fields = Fields::of_query(query);
    let made = async {
        let range: Span = match fields.text("range")? {
            Some(range) => {
                range.parse().map_err(|error: wire::span::SpanError| Error::BadRequest(error.to_string()))?
            }
            None => SeriesRequest::default().range,
        };
        // The page's script knows the viewer's zone; without it, times are in UTC.
        let minutes = fields.shown("offset").parse::<i32>().ok().filter(|minutes| minutes.abs() < 24 * 60);
        let offset = minutes.and_then(|minutes| UtcOffset::from_whole_seconds(minutes * 60).ok());
        let request = SeriesRequest { range, step: None };
        let (health, series, stats) =
            tokio::join!(state.health(), state.cache.series(&request), state.cache.stats());
        let stats = logged(stats);
        let series = series.inspect_err(Error::log);
        let page = StatsPage::new(range, offset.unwrap_or(UtcOffset::UTC), series.as_ref(), stats.as_ref())
            .map_err(broken_chart)?;
        if fields.bytes("fragment").is_some() {
            return Ok(html(StatusCode::OK, state.views.fragment("partials/stats.html", &page)?));
        }
        let shell = Shell::new(Some(Section::Stats), Some(&health));
        state.render(StatusCode::OK, "stats.html", &shell, &page)
    };
    state.answer(made.await)
}

async fn favicon(state: State<AppState>, query: RawQuery, headers: HeaderMap) -> Response {
    asset(state, Uri::from_static("/static/icons/mark.svg"), query, headers).await
}

/// A static file. Pages link the very version that they were made with, which then never changes;
/// asked for without a version it is looked after each time.
async fn asset(
    State(state): State<AppState>,
    uri: Uri,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    // Not the router's own decoding, which answers bytes that are not UTF-8 in words of its own. No file has such a name.
    let path = uri.path().strip_prefix("/static/").unwrap_or_default();
    let path = percent_decode(path.as_bytes()).decode_utf8_lossy();
    let made = state.views.asset(&path).and_then(|asset| {
        let asset = asset.ok_or_else(|| Error::NoRoute(super::shortened(uri.path())))?;
        let entity_tag = format!("\"{}\"", asset.version);
        let this_version = Fields::of_query(query).bytes("v") == Some(asset.version.as_bytes());
        let held =
            headers.get(header::IF_NONE_MATCH).is_some_and(|held| held.as_bytes() == entity_tag.as_bytes());
        let lifetime = if this_version { "public, max-age=31536000, immutable" } else { "no-cache" };
        let headers = [
            (header::CONTENT_TYPE, asset.content_type.to_owned()),
            (header::CACHE_CONTROL, lifetime.to_owned()),
            (header::ETAG, entity_tag),
        ];
        Ok(if held {
            (StatusCode::NOT_MODIFIED, headers).into_response()
        } else {
            (headers, asset.bytes).into_response()
        })
    });
    state.answer(made)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_decoded_and_keep_their_bytes() {
        let fields = Fields::parse(b"key=a%2Fb+c%26&key=second&empty=&bare&bad=%FF%zz");
        assert_eq!(fields.key().map(|key| key.to_string()), Ok("a/b c&".to_owned()));
        assert_eq!(fields.bytes("empty"), Some(&b""[..]));
        assert_eq!(fields.bytes("bare"), Some(&b""[..]));
        assert_eq!(fields.bytes("absent"), None);
        assert_eq!(fields.bytes("bad"), Some(&b"\xFF%zz"[..]));
        assert!(fields.text("bad").is_err());
        assert_eq!(Fields::parse(b"key=%FF").key(), Err(KeyError::NotUtf8));
        assert_eq!(Fields::parse(b"").key(), Err(KeyError::Empty));
    }
}
