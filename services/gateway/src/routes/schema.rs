//! Schemas of requests and answers, where the types themselves can't describe them.
//!
//! The answers of the bus pass through unchanged, in types of `wire`, which knows nothing of HTTP. Their form is
//! described here, and a test of the document compares the two.

use serde_json::json;
use utoipa::openapi::schema::{AdditionalProperties, KnownFormat, SchemaFormat, Type};
use utoipa::openapi::{ObjectBuilder, Ref, RefOr, Schema};
use utoipa::{IntoParams, PartialSchema, ToSchema};

/// A length of time, as `wire::Span` reads it: each unit has a largest number of its own.
#[derive(Debug)]
pub(crate) struct Span;

pub(super) const SPAN: &str = concat!(
    "^0*",
    r"(([1-9][0-9]{0,1}|[1-2][0-9]{2}|3[0-5][0-9]|36[0-5]|366)d",
    r"|([1-9][0-9]{0,2}|[1-7][0-9]{3}|8[0-6][0-9]{2}|87[0-7][0-9]|878[0-3]|8784)h",
    r"|([1-9][0-9]{0,4}|[1-4][0-9]{5}|5[0-1][0-9]{4}|52[0-6][0-9]{3}|5270[0-3][0-9]|527040)m",
    r"|([1-9][0-9]{0,6}|[1-2][0-9]{7}|30[0-9]{6}|31[0-5][0-9]{5}|316[0-1][0-9]{4}|3162[0-1][0-9]{3}|31622[0-3][0-9]{2}|31622400)s",
    r"|([1-9][0-9]{0,9}|[1-2][0-9]{10}|30[0-9]{9}|31[0-5][0-9]{8}|316[0-1][0-9]{7}|3162[0-1][0-9]{6}|31622[0-3][0-9]{5}|31622400000)ms",
    ")$"
);

impl PartialSchema for Span {
    fn schema() -> RefOr<Schema> {
        let text = ObjectBuilder::new().schema_type(Type::String).pattern(Some(SPAN)).examples(["10m"]);
        text.description(Some("A whole number and a unit (ms, s, m, h, d), from 1ms to 366d.")).build().into()
    }
}

impl ToSchema for Span {}

/// A key, as `wire::Key` takes it. A pattern can't count bytes, so a key within these bounds may still be too long.
#[derive(Debug)]
pub(crate) struct Key;

/// No `.` or `..`; no control characters, and at the ends no white space either.
pub(super) const KEY: &str = concat!(
    r"^(?!\.{1,2}$)",
    r"[^\u0000-\u0020\u007F-\u00A0\u1680\u2000-\u200A\u2028\u2029\u202F\u205F\u3000]",
    r"([^\u0000-\u001F\u007F-\u009F]*",
    r"[^\u0000-\u0020\u007F-\u00A0\u1680\u2000-\u200A\u2028\u2029\u202F\u205F\u3000])?$"
);

impl PartialSchema for Key {
    fn schema() -> RefOr<Schema> {
        let text = ObjectBuilder::new().schema_type(Type::String).min_length(Some(1));
        let text =
            text.max_length(Some(wire::key::MAX_KEY_BYTES)).pattern(Some(KEY)).examples(["cats/tom.jpg"]);
        text.description(Some("1 to 255 bytes of UTF-8.")).build().into()
    }
}

impl ToSchema for Key {}

/// The bytes of an image.
#[derive(Debug)]
pub(crate) struct ImageBytes;

impl PartialSchema for ImageBytes {
    fn schema() -> RefOr<Schema> {
        let binary = SchemaFormat::KnownFormat(KnownFormat::Binary);
        ObjectBuilder::new().schema_type(Type::String).format(Some(binary)).build().into()
    }
}

impl ToSchema for ImageBytes {}

/// A key in a path.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "it describes what key_behind reads")]
pub(crate) struct KeyInPath {
    /// The key: all of the rest of the path, slashes included.
    key: Key,
}

/// An upload as `upload::store_form` reads it.
#[derive(Debug)]
pub(crate) struct UploadForm;

impl PartialSchema for UploadForm {
    fn schema() -> RefOr<Schema> {
        let form = ObjectBuilder::new().property("key", Ref::from_schema_name("Key")).required("key");
        let form = form.property("file", Ref::from_schema_name("ImageBytes")).required("file");
        form.additional_properties(Some(AdditionalProperties::<Schema>::FreeForm(false)))
            .description(Some("These two parts, once each. File names and types are not needed."))
            .build()
            .into()
    }
}

impl ToSchema for UploadForm {}

/// The hash in an image's address.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "it describes images::version")]
pub(crate) struct Version {
    /// SHA-256 of the bytes, in hexadecimal. If the bytes have this hash, the answer may be kept for ever.
    #[param(required = false)]
    v: String,
}

#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "it describes images::width")]
pub(crate) struct Width {
    /// The largest width in pixels: asks for a variant of the image.
    #[param(required = false, inline)]
    w: Widths,
}

/// The widths of variants.
#[derive(Debug)]
pub(crate) struct Widths;

impl PartialSchema for Widths {
    fn schema() -> RefOr<Schema> {
        let widths = wire::Variant::ALL.map(wire::Variant::width);
        ObjectBuilder::new().schema_type(Type::Integer).enum_values(Some(widths)).into()
    }
}

impl ToSchema for Widths {}

/// The query of the history. A length of time is a whole number and a unit (ms, s, m, h, d), from 1ms to 366d.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "it describes stats::StatsQuery")]
pub(crate) struct StatsParameters {
    /// The length of time that the rows go back; 10m if not given.
    #[param(required = false)]
    range: Span,
    /// The interval of one row. A longer one is used if there would be more than 400 rows.
    #[param(required = false)]
    step: Span,
    /// The format of the rows. If not given, the header Accept decides, which a link can't set.
    #[param(required = false, example = "json")]
    format: StatsFormat,
}

/// How the rows of the history are written.
#[derive(Debug, ToSchema)]
#[schema(rename_all = "snake_case")]
#[expect(dead_code, reason = "it describes stats::StatsQuery")]
pub(crate) enum StatsFormat {
    /// As an object with rows.
    Json,
    /// RFC 4180, with a header.
    Csv,
}

/// The headers that a read honours.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "it describes conditional::decide")]
pub(crate) struct ReadHeaders {
    /// The entity tags that the client holds.
    #[param(rename = "If-None-Match", required = false)]
    if_none_match: String,
    /// A date. It counts only without If-None-Match.
    #[param(rename = "If-Modified-Since", required = false)]
    if_modified_since: String,
    /// Entity tags: the image must have one of them.
    #[param(rename = "If-Match", required = false)]
    if_match: String,
    /// A date. It counts only without If-Match.
    #[param(rename = "If-Unmodified-Since", required = false)]
    if_unmodified_since: String,
    /// One range of bytes.
    #[param(rename = "Range", required = false, example = "bytes=0-99")]
    range: String,
    /// An entity tag or a date: the range counts only for this image.
    #[param(rename = "If-Range", required = false)]
    if_range: String,
}

/// Entity tags, as `conditional::tag_list` reads them.
#[derive(Debug)]
pub(crate) struct EntityTags;

impl PartialSchema for EntityTags {
    fn schema() -> RefOr<Schema> {
        described(json!({
            "description": "`*`, or entity tags in double quotes, apart by commas.",
            "anyOf": [
                {"type": "string", "enum": ["*"]},
                {"type": "string", "pattern": r#"^(W/)?"[!#-~]*"(, *(W/)?"[!#-~]*")*$"#},
            ],
        }))
    }
}

impl ToSchema for EntityTags {}

/// A date, as RFC 9110, section 5.6.7, prefers it.
#[derive(Debug)]
pub(crate) struct HttpDate;

impl PartialSchema for HttpDate {
    fn schema() -> RefOr<Schema> {
        described(json!({
            "description": "A date such as `Sun, 06 Nov 1994 08:49:37 GMT`.",
            "type": "string",
            "format": "http-date",
        }))
    }
}

impl ToSchema for HttpDate {}

/// The headers that a write honours.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "it describes conditional::WriteConditions")]
pub(crate) struct WriteHeaders {
    /// Only if one of these images is there now; with `*`, any image.
    #[param(rename = "If-Match", required = false)]
    if_match: EntityTags,
    /// Only if none of these images is there now; with `*`, no image at all.
    #[param(rename = "If-None-Match", required = false)]
    if_none_match: EntityTags,
    /// Only if this is the Last-Modified of the image; it counts without If-Match.
    #[param(rename = "If-Unmodified-Since", required = false)]
    if_unmodified_since: HttpDate,
}

/// The configuration of the cache that is in force.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "it describes wire::ConfigReply")]
pub(crate) struct CacheConfig {
    /// The worker that answers.
    worker: String,
    /// The worker's incarnation: this life of its process.
    incarnation: String,
    /// The revision of the configuration.
    revision: u64,
    /// The most that the cache may weigh, in megabytes of 2^20 bytes.
    capacity_mb: u64,
    policy: Policy,
    /// The generation of the cache, drawn anew with each clear.
    generation: u64,
    /// The author of the change.
    changed_by: String,
    /// The time of the change.
    #[schema(format = DateTime)]
    changed_at: String,
    /// The capacity in bytes.
    capacity_bytes: u64,
    /// The largest capacity that the worker's machine allows, in megabytes.
    max_capacity_mb: u64,
}

/// The policy that chooses the entry to evict when the cache is full.
#[derive(Debug, ToSchema)]
#[schema(rename_all = "snake_case")]
#[expect(dead_code, reason = "it describes wire::Policy")]
pub(crate) enum Policy {
    /// Nothing is kept.
    None,
    /// A uniformly random entry is evicted.
    Random,
    /// The least recently used entry is evicted.
    Lru,
    /// CLOCK-Pro: a scan of many keys does not evict the entries in frequent use.
    ClockPro,
}

/// A change of the configuration, as `wire::ConfigChange` has it.
#[derive(Debug)]
pub(crate) struct CacheConfigChange;

impl PartialSchema for CacheConfigChange {
    /// Capacity and policy may each be left out, but not both.
    fn schema() -> RefOr<Schema> {
        let properties = json!({
            "capacity_mb": {
                "type": "integer",
                "format": "int64",
                "minimum": 1,
                "description": "Megabytes of 2^20 bytes, from 1 to `max_capacity_mb` of what is in force: three quarters of the memory of the worker's machine",
            },
            "policy": { "$ref": "#/components/schemas/Policy" },
            "by": {
                "type": "string",
                "maxLength": wire::config::MAX_BY_CHARS,
                "pattern": r"^[^\u0000-\u001F\u007F-\u009F]*$",
                "description": "Who asks, for the history",
            },
        });
        let with = |required: &str| json!({"type": "object", "required": [required], "properties": properties, "additionalProperties": false});
        described(json!({
            "description": "A change of the configuration: the capacity, the policy, or both.",
            "anyOf": [with("capacity_mb"), with("policy")],
        }))
    }
}

impl ToSchema for CacheConfigChange {}

/// A schema that can't be derived. A test checks that each of these is a schema.
fn described(schema: serde_json::Value) -> RefOr<Schema> {
    serde_json::from_value(schema).unwrap_or_default()
}

/// The outcome of a clear.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "it describes wire::inspect::ClearReply")]
pub(crate) struct CacheCleared {
    /// The number of entries dropped.
    entries: u64,
    /// Their weight, in bytes.
    bytes: u64,
    /// The new generation.
    generation: u64,
    /// The revision of the configuration that carries it.
    revision: u64,
    /// The incarnation of the worker that answers: this life of its process.
    incarnation: String,
}

/// The statistics of the cache over time.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "it describes wire::stats::Series")]
pub(crate) struct Stats {
    /// The beginning of the range.
    #[schema(format = DateTime)]
    from: String,
    /// The end of the range.
    #[schema(format = DateTime)]
    to: String,
    /// The interval of a row, in milliseconds.
    step_ms: u64,
    /// The rows, the oldest first. There is none for a time in which nothing was recorded.
    rows: Vec<StatsRow>,
}

/// One window, or several added up.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "it describes wire::stats::SeriesRow")]
pub(crate) struct StatsRow {
    /// The beginning of the row's interval.
    #[schema(format = DateTime)]
    interval_start: String,
    /// The time that its windows cover, in milliseconds.
    interval_ms: u64,
    /// The worker, if all windows in it are of one.
    worker: Option<String>,
    /// The worker's incarnation, if all windows in it are of one.
    incarnation: Option<String>,
    /// The number of the last window, if all windows in it are of one incarnation.
    sequence: Option<u64>,
    /// The number of windows that the row adds up.
    window_count: u64,
    /// The largest weight of all entries, in bytes.
    cache_size: u64,
    /// The largest capacity, in bytes.
    capacity: u64,
    /// The most resident entries.
    key_count: u64,
    /// Gets answered.
    request_count: u64,
    /// Gets of a resident entry.
    hit_count: u64,
    /// Gets of an entry that is not resident.
    miss_count: u64,
    /// Entries inserted after a miss.
    fill_count: u64,
    /// Fills refused because the image had changed.
    refused_fill_count: u64,
    /// Entries inserted by request.
    put_count: u64,
    /// Entries removed by the policy.
    eviction_count: u64,
    /// Their weight, in bytes.
    evicted_bytes: u64,
    /// Invalidations acknowledged.
    invalidation_count: u64,
    /// Images refused because they are too heavy.
    rejection_count: u64,
    /// Bytes sent in hits.
    served_bytes: u64,
    /// Hits that gateways served from copies of their own.
    near_hit_count: u64,
}

/// The filter of key events.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "it describes events::KeysQuery")]
pub(crate) struct KeysParameters {
    /// Kinds of events, apart by commas: hit, miss, put, evicted, invalidated, rejected; all if not given.
    #[param(
        required = false,
        example = "hit,miss",
        pattern = "^(hit|miss|put|evicted|invalidated|rejected)(,(hit|miss|put|evicted|invalidated|rejected))*$"
    )]
    kinds: String,
    /// Only events of keys that begin with this text.
    #[param(required = false, max_length = 255)]
    prefix: String,
}

/// The number of events of each kind.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "it describes feed::Counts")]
pub(crate) struct KeyEventCounts {
    hit: u64,
    miss: u64,
    put: u64,
    evicted: u64,
    invalidated: u64,
    rejected: u64,
}

/// An event: something that happened to a key.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "it describes wire::event::KeyEvent")]
pub(crate) struct KeyEvent {
    /// `hit`, `miss`, `put`, `evicted`, `invalidated` or `rejected`.
    kind: String,
    key: String,
    /// The variant of the image, such as `w320`; left out for the original.
    #[schema(required = false)]
    variant: String,
    /// The size of the image; 0 where it is not known.
    bytes: u64,
    /// How often it happened; 1 if not given.
    #[schema(required = false)]
    count: u64,
    /// Whether a gateway has served it from its near cache, and reports it; false if not given.
    #[schema(required = false)]
    near: bool,
    worker: String,
    #[schema(format = DateTime)]
    time: String,
    /// Events of this watch that the worker has left out so far.
    dropped_count: u64,
}

/// The data of the event `keys` of `/events/keys`.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "it describes feed::Batch")]
pub(crate) struct KeysBatch {
    /// The newest events, up to 50, the oldest first.
    events: Vec<KeyEvent>,
    /// How often each kind happened since the batch before, including the events that are not shown.
    counts: KeyEventCounts,
    /// How often all kinds together happened in a second, on average over the last two.
    rate_per_s: f64,
    /// Events of any kind that the worker has left out since the stream began, because there were too many.
    dropped_by_worker: u64,
    /// Events of any kind that the gateway has left out since the stream began, because they were read too slowly.
    dropped_by_gateway: u64,
}

/// The data of the event `watch` of `/events/keys`: whether a worker publishes key events.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "it describes feed::Watching")]
pub(crate) struct KeysWatch {
    watching: bool,
    /// The worker that publishes them.
    worker: Option<String>,
    /// The worker's incarnation: this life of its process.
    incarnation: Option<String>,
    /// The most events that it publishes in a second.
    max_per_second: Option<u32>,
    /// The reason why no worker publishes them; nothing while the first question has no answer yet.
    reason: Option<String>,
}

/// The data of the events of `/events/keys`, by the event's name.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "it describes feed::KeysEvent")]
pub(crate) struct KeysEvents {
    watch: KeysWatch,
    keys: KeysBatch,
    gave_way: GaveWay,
}

/// The last event of a stream: another reader has its place now.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "it describes feed::GaveWay")]
pub(crate) struct GaveWay {
    /// The reason.
    reason: String,
}

/// The data of the events of `/events/stats`, by the event's name.
#[derive(Debug)]
pub(crate) struct StatsEvents;

impl PartialSchema for StatsEvents {
    fn schema() -> RefOr<Schema> {
        let text = json!({ "type": "string" });
        let number = json!({ "type": "integer", "format": "int64", "minimum": 0 });
        let moment = json!({ "type": "string", "format": "date-time" });
        let object = |description: &str, fields: &[(&str, &serde_json::Value)]| {
            let properties: serde_json::Map<String, serde_json::Value> =
                fields.iter().map(|(name, schema)| ((*name).to_owned(), (*schema).clone())).collect();
            let required: Vec<&str> = fields.iter().map(|(name, _)| *name).collect();
            json!({"type": "object", "description": description, "properties": properties, "required": required})
        };
        let mut window = vec![
            ("worker", &text),
            ("incarnation", &text),
            ("sequence", &number),
            ("interval_start", &moment),
            ("interval_ms", &number),
            ("cache_size", &number),
            ("capacity", &number),
            ("key_count", &number),
        ];
        window.extend(wire::Counters::NAMES.iter().map(|name| (*name, &number)));
        let changed = [("worker", &text), ("incarnation", &text), ("revision", &number)];
        let by = [("changed_by", &text), ("time", &moment)];
        let policy = json!({ "$ref": "#/components/schemas/Policy" });
        let configured = [&changed[..], &[("capacity_bytes", &number), ("policy", &policy)], &by].concat();
        let cleared =
            [&changed[..], &[("generation", &number), ("entries", &number), ("bytes", &number)], &by]
                .concat();
        let connected = json!({ "type": "boolean" });
        described(json!({
            "type": "object",
            "description": "One property for each name of an event: what its data is.",
            "properties": {
                "bus": object("Whether the gateway hears the workers: first, and whenever that changes", &[("connected", &connected)]),
                "window": object("A worker has counted a window; its row follows within moments", &window),
                "configured": object("A worker has put a revision into force", &configured),
                "cleared": object("A worker has dropped everything, because it was asked to", &cleared),
                "skipped": object("This reader was too slow for so many events", &[("count", &number)]),
                "gave_way": object("The last event: another reader has this place now", &[("reason", &text)]),
            },
        }))
    }
}

impl ToSchema for StatsEvents {}

/// The parts of the system, and whether all of them are there.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "it describes health::Readiness")]
pub(crate) struct Readiness {
    /// Whether all parts are there.
    ready: bool,
    parts: Parts,
}

/// Each part by its name.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "it describes state::Health")]
pub(crate) struct Parts {
    nats: Part,
    memcache: Part,
    recorder: Part,
    mysql: Part,
    store: Part,
}

/// One part.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "it describes state::Part")]
pub(crate) struct Part {
    /// Whether it can be used.
    ok: bool,
    /// The fault of the part, or a description of it.
    message: String,
}
