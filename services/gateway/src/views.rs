//! The pages' templates and static files, and what each template is given.
//!
//! Templates hold all HTML; this module turns what the system knows into words and numbers for them.
//! Whatever stands in a context is escaped where it is written, but for the charts, which are made of
//! numbers alone.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use bytes::Bytes;
use minijinja::value::Serde;
use minijinja::{Environment, UndefinedBehavior, Value, context};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;
use sha2::{Digest, Sha256};
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;
use time::{OffsetDateTime, UtcOffset};
use wire::inspect::ResidentKey;
use wire::stats::{ConfigRevision, Series, SeriesRow};
use wire::{CacheStats, ConfigReply, Counters, Key, Policy, Span, Tag};

use crate::chart::{self, Chart, ChartError};
use crate::error::Error;
use crate::origin::images::ImageRow;
use crate::read::{CacheStatus, ReadOutcome};
use crate::state::Health;
use crate::units;

/// What has to be typed to delete everything.
pub const DELETE_ALL_PHRASE: &str = "delete everything";

/// The templates and static files of one folder. Cloning it is cheap.
///
/// A release build reads the folder once, at start. A debug build reads it again for each page, so
/// that an edited template shows at the next reload.
#[derive(Debug, Clone)]
pub struct Views {
    folder: PathBuf,
    loaded: Arc<Loaded>,
}

#[derive(Debug)]
struct Loaded {
    environment: Environment<'static>,
    assets: Arc<HashMap<String, Asset>>,
}

/// A static file, held in memory: all of them together are smaller than one photograph.
#[derive(Debug, Clone)]
pub struct Asset {
    /// Its bytes.
    pub bytes: Bytes,
    /// Its type, by the name's ending.
    pub content_type: &'static str,
    /// The beginning of its SHA-256, by which links name this very version.
    pub version: String,
}

/// The templates that must be there for every page to be shown.
const PAGES: [&str; 9] = [
    "cache.html",
    "error.html",
    "home.html",
    "image.html",
    "image_delete.html",
    "image_form.html",
    "keys.html",
    "stats.html",
    "upload.html",
];

impl Views {
    /// Reads the templates in `folder` and the static files in its folder `static`.
    ///
    /// # Errors
    /// When the folder or one of the pages is missing, a file can't be read, or a template is malformed.
    pub fn load(folder: &Path) -> anyhow::Result<Self> {
        let loaded = Loaded::read(folder).with_context(|| {
            format!("the page templates in {} can't be used (TEMPLATE_DIR)", folder.display())
        })?;
        Ok(Self { folder: folder.to_owned(), loaded: Arc::new(loaded) })
    }

    /// What to show with: in a debug build, what stands in the folder now.
    fn current(&self) -> Result<Arc<Loaded>, Error> {
        if cfg!(debug_assertions) {
            Loaded::read(&self.folder).map(Arc::new).map_err(Error::Internal)
        } else {
            Ok(self.loaded.clone())
        }
    }

    /// A page as HTML.
    ///
    /// # Errors
    /// [`Error::Internal`] when the template asks for what the page does not give.
    pub fn page<P: Serialize>(&self, template: &str, shell: &Shell, page: &P) -> Result<String, Error> {
        let context = context! { shell => Serde(shell), ..Value::from(Serde(page)) };
        self.current()?.render(template, context)
    }

    /// A part of a page as HTML, for scripts that put it in place of the one before.
    ///
    /// # Errors
    /// As [`Views::page`].
    pub fn fragment<P: Serialize>(&self, template: &str, page: &P) -> Result<String, Error> {
        self.current()?.render(template, Value::from(Serde(page)))
    }

    /// A static file by its path below `static`.
    ///
    /// # Errors
    /// [`Error::Internal`] when, in a debug build, the folder can't be read.
    pub fn asset(&self, path: &str) -> Result<Option<Asset>, Error> {
        Ok(self.current()?.assets.get(path).cloned())
    }
}

impl Loaded {
    fn read(folder: &Path) -> anyhow::Result<Self> {
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_auto_reload(false);
        let mut assets = HashMap::new();
        for (path, bytes) in files(folder)? {
            if let Some(path) = path.strip_prefix("static/") {
                assets.insert(path.to_owned(), Asset::new(path, bytes)?);
            } else if path.ends_with(".html") {
                let source = String::from_utf8(bytes).with_context(|| format!("{path} is not UTF-8"))?;
                environment.add_template_owned(path, source)?;
            }
        }
        let assets = Arc::new(assets);
        for page in PAGES {
            environment.get_template(page)?;
        }

        let links = assets.clone();
        environment.add_function("asset", move |path: &str| {
            let asset = links.get(path).ok_or_else(|| {
                minijinja::Error::new(
                    minijinja::ErrorKind::InvalidOperation,
                    format!("there is no static file {path}"),
                )
            })?;
            // The names of our own files need no escaping, and read better without.
            Ok::<_, minijinja::Error>(Value::from_safe_string(format!("/static/{path}?v={}", asset.version)))
        });
        environment.add_filter("bytes", units::bytes);
        environment.add_filter("count", units::count);
        environment
            .add_filter("counted", |number: u64, one: &str, many: &str| units::counted(number, one, many));
        environment.add_filter("percent", units::percent);
        environment.add_filter("duration", units::duration);
        Ok(Self { environment, assets })
    }

    fn render(&self, template: &str, context: Value) -> Result<String, Error> {
        let render = || self.environment.get_template(template)?.render(context);
        render().map_err(|error| {
            let error = anyhow::Error::new(error).context(format!("the page {template} could not be made"));
            Error::Internal(error)
        })
    }
}

impl Asset {
    fn new(path: &str, bytes: Vec<u8>) -> anyhow::Result<Self> {
        let content_type = match path.rsplit_once('.').map(|(_, ending)| ending) {
            Some("css") => "text/css; charset=utf-8",
            Some("js") => "text/javascript; charset=utf-8",
            Some("svg") => "image/svg+xml",
            Some("png") => "image/png",
            Some("txt" | "md") => "text/plain; charset=utf-8",
            _ => anyhow::bail!("static/{path} has an ending for which no type is known"),
        };
        let digest: [u8; 32] = Sha256::digest(&bytes).into();
        let version = Tag(digest).to_string().chars().take(12).collect();
        Ok(Self { bytes: bytes.into(), content_type, version })
    }
}

/// Every file below a folder, by its path within, with `/` on every platform.
fn files(folder: &Path) -> anyhow::Result<Vec<(String, Vec<u8>)>> {
    let mut found = Vec::new();
    let mut folders = vec![(String::new(), folder.to_owned())];
    while let Some((prefix, folder)) = folders.pop() {
        let entries =
            std::fs::read_dir(&folder).with_context(|| format!("{} can't be read", folder.display()))?;
        for entry in entries {
            let entry = entry.with_context(|| format!("{} can't be read", folder.display()))?;
            let path = entry.path();
            let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
            if path.is_dir() {
                folders.push((format!("{name}/"), path));
            } else {
                let bytes =
                    std::fs::read(&path).with_context(|| format!("{} can't be read", path.display()))?;
                found.push((name, bytes));
            }
        }
    }
    Ok(found)
}

/// What may stand unescaped in a path or query. A slash in a key is escaped too, so that no browser
/// takes `..` between two of them for a way up.
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

fn escaped(text: &str) -> String {
    utf8_percent_encode(text, UNRESERVED).to_string()
}

/// The page of an image.
pub fn image_page(key: &Key) -> String {
    format!("/image?key={}", escaped(key.as_str()))
}

/// The first page, saying that an image was deleted.
pub fn deleted_page(key: &Key) -> String {
    format!("/?deleted={}", escaped(key.as_str()))
}

/// The bytes of an image, in the very version that `tag` names.
pub fn image_source(key: &Key, tag: Tag) -> String {
    format!("/images/{}?v={tag}", escaped(key.as_str()))
}

/// What every page shows around its content.
#[derive(Debug, Serialize)]
pub struct Shell {
    nav: Vec<NavEntry>,
    ready: bool,
    summary: &'static str,
    parts: Vec<PartView>,
    notices: Vec<PartView>,
}

#[derive(Debug, Serialize)]
struct NavEntry {
    href: &'static str,
    label: &'static str,
    icon: &'static str,
    current: bool,
}

/// A part of the system, and what it means that it is not there.
#[derive(Debug, Clone, Serialize)]
struct PartView {
    label: &'static str,
    ok: bool,
    message: String,
    meaning: &'static str,
}

/// An entry of the navigation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Section {
    /// `/`
    Gallery,
    /// `/upload_image`
    Upload,
    /// `/image`
    LookUp,
    /// `/keys_list`
    Keys,
    /// `/cache_properties`
    Cache,
    /// `/cache_stats`
    Stats,
}

impl Section {
    const ALL: [(Self, &'static str, &'static str, &'static str); 6] = [
        (Self::Gallery, "/", "Gallery", "gallery"),
        (Self::Upload, "/upload_image", "Upload", "upload"),
        (Self::LookUp, "/image", "Look up", "search"),
        (Self::Keys, "/keys_list", "Keys", "keys"),
        (Self::Cache, "/cache_properties", "Cache", "cache"),
        (Self::Stats, "/cache_stats", "Stats", "stats"),
    ];
}

impl Shell {
    /// Around a page of this section; none is marked in the navigation without one. Without `health`
    /// nothing is said of the system, as nobody asked it.
    pub fn new(section: Option<Section>, health: Option<&Health>) -> Self {
        let nav = Section::ALL.into_iter().map(|(entry, href, label, icon)| NavEntry {
            href,
            label,
            icon,
            current: section == Some(entry),
        });
        let parts: Vec<PartView> = health.map(part_views).unwrap_or_default();
        let down = parts.iter().filter(|part| !part.ok).count();
        let summary = match down {
            0 => "All parts are up",
            1 => "One part is down",
            _ => "Several parts are down",
        };
        // Without the bus nothing behind it can be asked: one notice says it all.
        let bus_is_down = health.is_some_and(|health| !health.nats.ok);
        let notices = parts
            .iter()
            .filter(|part| !part.ok && !(bus_is_down && ["Cache worker", "Recorder"].contains(&part.label)))
            .cloned()
            .collect();
        Self { nav: nav.collect(), ready: down == 0, summary, parts, notices }
    }
}

fn part_views(health: &Health) -> Vec<PartView> {
    let view = |(name, part): (&str, &crate::state::Part)| {
        let (label, meaning) = match name {
            "nats" => (
                "NATS",
                "Every read comes from the origin: slower, never an error. Settings and statistics can’t be \
                 read or changed.",
            ),
            "memcache" => (
                "Cache worker",
                "Every read comes from the origin: slower, never an error. The cache’s settings can’t be changed.",
            ),
            "recorder" => (
                "Recorder",
                "There are no charts and no history now. What the cache counts meanwhile is kept and recorded later.",
            ),
            _ => ("Database", "Cached images are still served. Nothing can be stored, listed or deleted."),
        };
        PartView { label, ok: part.ok, message: part.message.clone(), meaning }
    };
    health.parts().into_iter().map(view).collect()
}

/// A moment as templates write it: in UTC, until the viewer's browser puts it into the zone there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Moment {
    iso: String,
    text: String,
    ago: String,
}

impl Moment {
    /// The moment `at`, seen from `now`.
    pub fn new(at: OffsetDateTime, now: OffsetDateTime) -> Self {
        let at = at.to_offset(UtcOffset::UTC);
        let words = format_description!("[day padding:none] [month repr:short] [year], [hour]:[minute] UTC");
        let past_ms = u64::try_from((now - at).whole_milliseconds()).unwrap_or(0);
        Self {
            iso: at.format(&Rfc3339).unwrap_or_default(),
            text: at.format(words).unwrap_or_default(),
            ago: if past_ms < 1000 {
                "just now".to_owned()
            } else {
                format!("{} ago", units::duration(past_ms))
            },
        }
    }
}

/// A sentence about something that was just done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Done {
    /// What was done.
    pub title: String,
    /// What that means.
    pub text: String,
}

/// An image in a list.
#[derive(Debug, Serialize)]
pub struct ImageView {
    key: String,
    page: String,
    src: String,
    kind: &'static str,
    width: u32,
    height: u32,
    size: u64,
    stored: Moment,
    /// Whether it is in the cache; none when nobody knows.
    resident: Option<bool>,
    hits: u64,
}

impl ImageView {
    /// The image of a row, and what the cache says about it.
    pub fn new(row: &ImageRow, residency: &Residency, now: OffsetDateTime) -> Self {
        let resident = residency.of(&row.key);
        Self {
            key: row.key.to_string(),
            page: image_page(&row.key),
            src: image_source(&row.key, row.tag),
            kind: kind_of(&row.content_type),
            width: row.width,
            height: row.height,
            size: row.size,
            stored: Moment::new(row.updated_at, now),
            resident: resident.as_ref().map(Option::is_some),
            hits: resident.flatten().map_or(0, |entry| entry.hits),
        }
    }
}

/// What people call a content type.
fn kind_of(content_type: &str) -> &'static str {
    match content_type {
        "image/png" => "PNG",
        "image/jpeg" => "JPEG",
        "image/gif" => "GIF",
        "image/webp" => "WebP",
        _ => "image",
    }
}

/// Which keys are in the cache, as far as the cache was asked.
#[derive(Debug, Default)]
pub struct Residency {
    entries: HashMap<Key, ResidentKey>,
    /// Whether a key that is not among the entries is known to be absent.
    complete: bool,
}

impl Residency {
    /// From what the cache answered, `complete` if nothing was left out that could be asked for here.
    pub fn new(entries: Vec<ResidentKey>, complete: bool) -> Self {
        Self { entries: entries.into_iter().map(|entry| (entry.key.clone(), entry)).collect(), complete }
    }

    /// The entry of a key, that there is none, or that it is not known.
    fn of(&self, key: &Key) -> Option<Option<&ResidentKey>> {
        match self.entries.get(key) {
            Some(entry) => Some(Some(entry)),
            None => self.complete.then_some(None),
        }
    }
}

/// A headline figure.
#[derive(Debug, Serialize)]
pub struct Figure {
    name: &'static str,
    label: &'static str,
    value: String,
    unit: Option<String>,
    note: String,
    /// How full something is, 0 to 1, drawn as a bar.
    share: Option<f64>,
    spark: Option<Value>,
}

impl Figure {
    /// `shown` is a number and, behind a no-break space, its unit, as [`units`] writes them.
    fn new(name: &'static str, label: &'static str, shown: Option<String>, note: impl Into<String>) -> Self {
        let shown = shown.unwrap_or_else(|| "–".to_owned());
        let (value, unit) = match shown.split_once('\u{a0}') {
            Some((value, unit)) => (value.to_owned(), Some(unit.to_owned())),
            None => (shown, None),
        };
        Self { name, label, value, unit, note: note.into(), share: None, spark: None }
    }

    fn spark(self, chart: Chart, series: Option<&Series>) -> Result<Self, ChartError> {
        let spark = series.map(|series| chart::sparkline(chart, series)).transpose()?;
        Ok(Self { spark: spark.map(Value::from_safe_string), ..self })
    }
}

/// The sums over a series.
#[derive(Debug, Default)]
struct Totals {
    counters: Counters,
    covered_ms: u64,
}

impl Totals {
    fn of<'a>(rows: impl IntoIterator<Item = &'a SeriesRow>) -> Self {
        let mut totals = Self::default();
        for row in rows {
            totals.counters.add(&row.counters);
            totals.covered_ms = totals.covered_ms.saturating_add(row.interval_ms);
        }
        totals
    }

    fn hit_ratio(&self) -> Option<f64> {
        let requests = self.counters.request_count;
        (requests > 0).then(|| self.counters.hit_count as f64 / requests as f64)
    }

    fn requests_per_second(&self) -> Option<f64> {
        (self.covered_ms > 0).then(|| self.counters.request_count as f64 * 1000.0 / self.covered_ms as f64)
    }
}

/// The figures of items and size, which stand on several pages: as the worker has them now, else as
/// they were recorded last.
fn gauges(
    series: Option<&Series>,
    stats: Option<&CacheStats>,
    stored_count: Option<u64>,
) -> Result<[Figure; 2], ChartError> {
    let last = series.and_then(|series| series.rows.last());
    let key_count = stats.map(|stats| stats.key_count).or(last.map(|row| row.key_count));
    let size = stats.map(|stats| stats.cache_size_bytes).or(last.map(|row| row.cache_size));
    let capacity = stats.map(|stats| stats.capacity_bytes).or(last.map(|row| row.capacity));
    let stored = stored_count.map_or_else(
        || "in memory".to_owned(),
        |count| format!("in memory, of {} stored", units::count(count)),
    );
    let items = Figure::new("items", "Items cached", key_count.map(units::count), stored);
    let note = match (capacity, stats) {
        (Some(capacity), Some(stats)) => format!("of {}, policy {}", units::bytes(capacity), stats.policy),
        (Some(capacity), None) => format!("of {}", units::bytes(capacity)),
        (None, _) => "unknown now".to_owned(),
    };
    let mut size_figure = Figure::new("size", "Size", size.map(units::bytes), note);
    size_figure.share = size.zip(capacity).map(|(size, capacity)| share(size, capacity));
    Ok([items.spark(Chart::Items, series)?, size_figure])
}

/// How much of `capacity` is used, 0 to 1.
pub fn share(size: u64, capacity: u64) -> f64 {
    if capacity == 0 { 0.0 } else { (size as f64 / capacity as f64).min(1.0) }
}

/// The figures of the first page: what the cache has done in the last minutes.
///
/// # Errors
/// [`ChartError`] of a sparkline.
pub fn home_figures(
    series: Option<&Series>,
    stats: Option<&CacheStats>,
    stored_count: Option<u64>,
) -> Result<Vec<Figure>, ChartError> {
    let totals = series.map(|series| Totals::of(&series.rows));
    let ratio = totals.as_ref().and_then(Totals::hit_ratio);
    let hit_rate = match (ratio, stats.and_then(|stats| stats.hit_ratio)) {
        (Some(ratio), _) => {
            let requests = totals.as_ref().map_or(0, |totals| totals.counters.request_count);
            let note = format!("of {} in 10\u{a0}min", units::counted(requests, "read", "reads"));
            Figure::new("hit-rate", "Hit rate", Some(units::percent(ratio)), note)
        }
        (None, Some(ratio)) => {
            Figure::new("hit-rate", "Hit rate", Some(units::percent(ratio)), "since the worker’s start")
        }
        (None, None) => Figure::new("hit-rate", "Hit rate", None, "no reads yet"),
    };
    let rate = series.and_then(|series| {
        let a_minute_ago = series.to - time::Duration::minutes(1);
        Totals::of(series.rows.iter().filter(|row| row.interval_start >= a_minute_ago)).requests_per_second()
    });
    let requests = Figure::new(
        "requests",
        "Requests",
        rate.map(|rate| format!("{}\u{a0}/s", units::compact(rate))),
        "over the last minute",
    );
    let [items, size] = gauges(series, stats, stored_count)?;
    Ok(vec![hit_rate.spark(Chart::HitRate, series)?, requests.spark(Chart::Requests, series)?, items, size])
}

/// The figures above the charts: sums over what they show.
///
/// # Errors
/// [`ChartError`] of a sparkline.
pub fn stats_figures(series: &Series, stats: Option<&CacheStats>) -> Result<Vec<Figure>, ChartError> {
    let totals = Totals::of(&series.rows);
    let counters = &totals.counters;
    let hits = units::counted(counters.hit_count, "hit", "hits");
    let misses = units::counted(counters.miss_count, "miss", "misses");
    let average = totals.requests_per_second().map_or_else(
        || "nothing recorded".to_owned(),
        |rate| format!("{}/s on average", units::compact(rate)),
    );
    let evicted = format!("{} of weight", units::bytes(counters.evicted_bytes));
    let [items, size] = gauges(None, stats, None).map(|[mut items, size]| {
        items.note = "resident now".to_owned();
        [items, size]
    })?;
    Ok(vec![
        Figure::new(
            "hit-rate",
            "Hit rate",
            totals.hit_ratio().map(units::percent),
            format!("{hits}, {misses}"),
        ),
        Figure::new("requests", "Requests", Some(units::count(counters.request_count)), average),
        Figure::new("served", "Served from memory", Some(units::bytes(counters.served_bytes)), "in hits"),
        Figure::new("evictions", "Evictions", Some(units::count(counters.eviction_count)), evicted),
        items,
        size,
    ])
}

/// `home.html`
#[derive(Debug, Serialize)]
pub struct HomePage {
    /// What was just deleted, in a sentence.
    pub deleted: Option<String>,
    /// The headline figures.
    pub figures: Vec<Figure>,
    /// The newest images.
    pub images: Vec<ImageView>,
    /// How many are stored.
    pub stored_count: Option<u64>,
    /// Why there are none to show.
    pub images_error: Option<String>,
}

/// `upload.html`
#[derive(Debug, Default, Serialize)]
pub struct UploadPage {
    /// The key as it was typed.
    pub key: String,
    /// Why nothing was stored; or, if `stored`, what is still to come.
    pub error: Option<String>,
    /// Whether it is stored nevertheless.
    pub stored: bool,
    /// The largest image, in bytes.
    pub max_bytes: u64,
    /// The most pixels, in millions.
    pub max_megapixels: u64,
    /// Where the viewer's browser found this gateway, such as `http://127.0.0.1:5000`.
    pub base: String,
}

/// `image_form.html`
#[derive(Debug, Default, Serialize)]
pub struct ImageFormPage {
    /// The key as it was typed.
    pub key: String,
    /// Why there is nothing to show.
    pub error: Option<String>,
    /// Whether the key is a good one to store something under.
    pub can_upload: bool,
}

/// `image.html`
#[derive(Debug, Serialize)]
pub struct ImagePage {
    key: String,
    page: String,
    src: String,
    done: Option<Done>,
    read: ReadView,
    size: u64,
    content_type: String,
    width: Option<u32>,
    height: Option<u32>,
    stored: Option<Moment>,
    first_stored: Option<Moment>,
    resident: Option<Value>,
    hash: String,
    file_name: String,
    url: String,
    curl: String,
    nats: String,
}

/// What one read through the cache came to.
#[derive(Debug, Serialize)]
struct ReadView {
    kind: &'static str,
    label: &'static str,
    milliseconds: String,
    meaning: &'static str,
}

impl ReadView {
    fn new(read: &ReadOutcome) -> Self {
        let (kind, label, meaning) = match read.cache_status {
            CacheStatus::Hit => ("hit", "Hit", "The bytes came from the cache’s memory."),
            CacheStatus::Stored => (
                "miss",
                "Miss",
                "The bytes came from the origin and are in the cache now: the next read is a hit.",
            ),
            CacheStatus::Collapsed => (
                "miss",
                "Miss",
                "This read shared the origin’s bytes with another that had asked a moment before.",
            ),
            CacheStatus::Miss => (
                "miss",
                "Miss",
                "The bytes came from the origin. They were not put into the cache, because its policy keeps \
                 nothing or another reader is about to.",
            ),
            CacheStatus::Refused => (
                "miss",
                "Miss",
                "The bytes came from the origin. They were not put into the cache, because the image was \
                 replaced meanwhile.",
            ),
            CacheStatus::TooLarge => (
                "bypass",
                "Bypass",
                "Too large for the bus or for the cache, so it always comes from the origin.",
            ),
            CacheStatus::Unavailable => {
                ("bypass", "Bypass", "No cache answers, so the bytes came from the origin.")
            }
            CacheStatus::TimedOut => (
                "bypass",
                "Bypass",
                "The cache took longer than a read waits for it, so the bytes came from the origin.",
            ),
        };
        let milliseconds = read.elapsed.as_secs_f64() * 1000.0;
        let milliseconds =
            if milliseconds < 10.0 { format!("{milliseconds:.2}") } else { format!("{milliseconds:.0}") };
        Self { kind, label, milliseconds, meaning }
    }
}

impl ImagePage {
    /// The page of an image that was just read. `row` is what the database knows, if it answers;
    /// `base` is where the viewer's browser found this gateway, such as `http://127.0.0.1:5000`.
    pub fn new(
        key: &Key,
        read: &ReadOutcome,
        row: Option<&ImageRow>,
        residency: &Residency,
        done: Option<Done>,
        base: &str,
        now: OffsetDateTime,
    ) -> Self {
        let image = &read.image;
        // The row may already be of the image that replaced the one that was read.
        let row = row.filter(|row| row.tag == image.tag);
        let stored = row
            .map(|row| row.updated_at)
            .or_else(|| image.modified_s.and_then(|s| OffsetDateTime::from_unix_timestamp(s).ok()));
        let url = format!("{base}/images/{}", escaped(key.as_str()));
        let file_name = file_name(key, &image.content_type);
        let resident = residency.of(key).map(|entry| match entry {
            Some(entry) => {
                let since = now - time::Duration::milliseconds(i64::try_from(entry.age_ms).unwrap_or(0));
                context! { since => Serde(Moment::new(since, now)), hits => entry.hits }
            }
            None => Value::from(false),
        });
        Self {
            page: image_page(key),
            src: image_source(key, image.tag),
            done,
            read: ReadView::new(read),
            size: image.size,
            content_type: image.content_type.clone(),
            width: row.map(|row| row.width),
            height: row.map(|row| row.height),
            stored: stored.map(|at| Moment::new(at, now)),
            first_stored: row
                .filter(|row| row.created_at != row.updated_at)
                .map(|row| Moment::new(row.created_at, now)),
            resident,
            hash: image.tag.to_string(),
            curl: format!("curl -o {file_name} '{url}'"),
            nats: format!(
                "bin/nats req {} '' --translate 'tee {file_name}' > /dev/null",
                wire::subject::get(key)
            ),
            url,
            file_name,
            key: key.to_string(),
        }
    }
}

/// A name for the file on the viewer's disk, in letters that every shell and file system takes as
/// they are: the key's last part, with the ending of its type.
fn file_name(key: &Key, content_type: &str) -> String {
    let ending = match content_type {
        "image/png" => "png",
        "image/jpeg" => "jpg",
        "image/gif" => "gif",
        "image/webp" => "webp",
        _ => "bin",
    };
    let last = key.as_str().rsplit('/').find(|part| !part.is_empty()).unwrap_or_default();
    let stem = last.rsplit_once('.').map_or(last, |(stem, _)| stem);
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '_' || c == '-' { c } else { '_' };
    let stem: String = stem.chars().map(plain).take(80).collect();
    let stem = stem.trim_matches(['-', '_']);
    format!("{}.{ending}", if stem.is_empty() { "image" } else { stem })
}

/// `image_delete.html`
#[derive(Debug, Serialize)]
pub struct DeletePage {
    /// The image.
    #[serde(flatten)]
    pub image: ImageView,
}

/// `keys.html`
#[derive(Debug, Default, Serialize)]
pub struct KeysPage {
    /// The filter as it was typed.
    pub prefix: String,
    /// The key behind which this page begins.
    pub after: Option<String>,
    /// The images of this page.
    pub images: Vec<ImageView>,
    /// How many are stored in all.
    pub stored_count: Option<u64>,
    /// Why there are none to show.
    pub error: Option<String>,
    /// Where the list begins, unless it does here.
    pub first: Option<String>,
    /// Where it goes on.
    pub next: Option<String>,
}

/// The list of keys, filtered, from behind a key on.
pub fn keys_page(prefix: &str, after: Option<&str>) -> String {
    let mut parts = Vec::new();
    if !prefix.is_empty() {
        parts.push(format!("prefix={}", escaped(prefix)));
    }
    if let Some(after) = after {
        parts.push(format!("after={}", escaped(after)));
    }
    if parts.is_empty() { "/keys_list".to_owned() } else { format!("/keys_list?{}", parts.join("&")) }
}

/// `cache.html`
#[derive(Debug, Serialize)]
pub struct CachePage {
    /// What was just done.
    pub done: Option<Done>,
    /// What was refused.
    pub error: Option<FormError>,
    /// What stands in the forms.
    pub form: CacheForm,
    /// What is in force.
    pub config: Option<Value>,
    /// The worker's counters.
    pub stats: Option<CacheStats>,
    /// How full the cache is, 0 to 1.
    pub share: f64,
    /// Why there are no counters.
    pub stats_error: Option<String>,
    /// The changes, the newest first.
    pub history: Vec<ChangeView>,
    /// Why there are none to show.
    pub history_error: Option<String>,
    /// How many images are stored.
    pub stored_count: Option<u64>,
    /// What has to be typed to delete everything.
    pub confirmation_phrase: &'static str,
}

/// A form of the page was refused.
#[derive(Debug, Serialize)]
pub struct FormError {
    /// Which: `config`, `clear` or `delete_all`.
    pub form: &'static str,
    /// Why.
    pub message: String,
}

/// What stands in the forms of the cache's page: what was typed, else what is in force.
#[derive(Debug, Serialize)]
pub struct CacheForm {
    /// Capacity, as text, because what was typed may be none.
    pub capacity_mb: String,
    /// The largest that is allowed, if the worker answers.
    pub max_capacity_mb: Option<u64>,
    /// The name of the policy that is chosen.
    pub policy: String,
    /// What was typed to confirm that everything be deleted.
    pub confirmation: String,
    policies: [PolicyView; 4],
}

#[derive(Debug, Clone, Copy, Serialize)]
struct PolicyView {
    name: &'static str,
    label: &'static str,
    meaning: &'static str,
}

impl CacheForm {
    /// With what is in force.
    pub fn new(config: Option<&ConfigReply>) -> Self {
        Self {
            capacity_mb: config.map(|reply| reply.config.capacity_mb.mb().to_string()).unwrap_or_default(),
            max_capacity_mb: config.map(|reply| reply.max_capacity_mb),
            policy: config.map(|reply| reply.config.policy.to_string()).unwrap_or_default(),
            confirmation: String::new(),
            policies: Policy::ALL.map(policy_view),
        }
    }
}

fn policy_view(policy: Policy) -> PolicyView {
    let (label, meaning) = match policy {
        Policy::None => (
            "None",
            "Keeps nothing: every read is a miss and comes from the origin. It shows what the cache is worth.",
        ),
        Policy::Random => (
            "Random replacement",
            "An entry drawn by lot leaves, each as likely as any other. No pattern of reads can defeat it.",
        ),
        Policy::Lru => (
            "Least recently used",
            "The entry that was not read for the longest time leaves. Right when what was read lately is read again.",
        ),
        Policy::ClockPro => (
            "CLOCK-Pro",
            "Entries that are read again and again stay, even while something reads through everything once. \
             The choice for real traffic.",
        ),
    };
    PolicyView { name: policy.as_str(), label, meaning }
}

/// One change of the configuration.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct ChangeView {
    revision: u64,
    what: String,
    capacity: u64,
    policy: &'static str,
    by: String,
    at: Moment,
}

/// The changes in words, each against the one before it. Newest first, as they come.
pub fn changes(revisions: &[ConfigRevision], now: OffsetDateTime) -> Vec<ChangeView> {
    let before = revisions.iter().skip(1).map(Some).chain([None]);
    let view = |(revision, before): (&ConfigRevision, Option<&ConfigRevision>)| {
        let mut what = Vec::new();
        if let Some(before) = before {
            if revision.max_capacity != before.max_capacity {
                let (from, to) = (units::bytes(before.max_capacity), units::bytes(revision.max_capacity));
                what.push(format!("capacity {from} → {to}"));
            }
            if revision.replacement_policy != before.replacement_policy {
                what.push(format!("policy {} → {}", before.replacement_policy, revision.replacement_policy));
            }
            if revision.generation != before.generation {
                what.push("cleared".to_owned());
            }
            if what.is_empty() {
                what.push("set again, unchanged".to_owned());
            }
        } else {
            what.push(format!("{}, {}", units::bytes(revision.max_capacity), revision.replacement_policy));
        }
        ChangeView {
            revision: revision.revision,
            what: what.join(", "),
            capacity: revision.max_capacity,
            policy: revision.replacement_policy.as_str(),
            by: revision.changed_by.clone(),
            at: Moment::new(revision.created_at, now),
        }
    };
    revisions.iter().zip(before).map(view).collect()
}

/// The configuration in force, as `cache.html` needs it.
pub fn config_view(reply: &ConfigReply, now: OffsetDateTime) -> Value {
    context! {
        changed_by => &reply.config.changed_by,
        changed_at => Serde(Moment::new(reply.config.changed_at, now)),
    }
}

/// The times that one can choose from: as in the query, and in words.
pub const RANGES: [(&str, &str); 4] =
    [("10m", "10 min"), ("1h", "1 hour"), ("24h", "24 hours"), ("7d", "7 days")];

/// `stats.html`, and the part of it that is fetched again and again.
#[derive(Debug, Serialize)]
pub struct StatsPage {
    range: String,
    ranges: Vec<Value>,
    refresh_ms: u64,
    offset_minutes: i32,
    zone: String,
    error: Option<String>,
    figures: Vec<Figure>,
    charts: Vec<ChartView>,
    step_ms: u64,
    row_count: u64,
    json: String,
    csv: String,
}

#[derive(Debug, Serialize)]
struct ChartView {
    name: &'static str,
    title: &'static str,
    last: Option<String>,
    svg: Value,
}

impl StatsPage {
    /// How often charts are fetched again when no series says how long a window is.
    const REFRESH_MS: u64 = 5000;

    /// The charts of a series, or why there is none. Times at the charts are in the zone `offset`.
    ///
    /// # Errors
    /// [`ChartError`] when a chart can't be drawn.
    pub fn new(
        range: Span,
        offset: UtcOffset,
        series: Result<&Series, &Error>,
        stats: Option<&CacheStats>,
    ) -> Result<Self, ChartError> {
        let chart_view = |chart: Chart, series: &Series| {
            let last = series.rows.last().and_then(|row| chart.value(row)).map(|value| chart.shown(value));
            let svg = Value::from_safe_string(chart.draw(series, offset)?);
            Ok(ChartView { name: chart.name(), title: chart.title(), last, svg })
        };
        let (figures, charts) = match series {
            Ok(series) => {
                let charts = Chart::ALL.into_iter().map(|chart| chart_view(chart, series));
                (stats_figures(series, stats)?, charts.collect::<Result<_, ChartError>>()?)
            }
            Err(_) => (Vec::new(), Vec::new()),
        };
        let step_ms = series.map_or(Self::REFRESH_MS, |series| series.step_ms);
        Ok(Self {
            range: range.to_string(),
            ranges: RANGES
                .into_iter()
                .map(|(value, label)| context! { value, label, current => value.parse() == Ok(range) })
                .collect(),
            refresh_ms: step_ms.clamp(1000, 60_000),
            offset_minutes: offset.whole_seconds() / 60,
            zone: units::zone(offset),
            error: series.err().map(Error::message),
            figures,
            charts,
            step_ms,
            row_count: series.map_or(0, |series| series.rows.len() as u64),
            json: format!("/api/stats?range={range}"),
            csv: format!("/api/stats?range={range}&format=csv"),
        })
    }
}

/// `error.html`
#[derive(Debug, Serialize)]
pub struct ErrorPage {
    /// The HTTP status.
    pub status: u16,
    /// What that is called.
    pub title: &'static str,
    /// What is wrong, in a sentence.
    pub message: String,
}

#[cfg(test)]
mod tests;
