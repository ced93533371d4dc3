//! Schemas of what no type describes that is sent: parameters, headers, forms and streams of events.

use serde_json::json;
use sniff::Format;
use utoipa::openapi::schema::{KnownFormat, RefBuilder, SchemaFormat, Type};
use utoipa::openapi::{ObjectBuilder, Ref, RefOr, Schema};
use utoipa::{IntoParams, PartialSchema, ToSchema};
use wire::Key;

use crate::cache::feed::GaveWay;

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

/// One of the media types of images.
pub(crate) fn content_type() -> Schema {
    let types = Format::ALL.map(Format::content_type);
    let text = ObjectBuilder::new().schema_type(Type::String).enum_values(Some(types));
    text.description(Some("The media type of its format.")).build().into()
}

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
        let words =
            "These two parts, once each. File names and types are not needed, and other parts are ignored.";
        form.description(Some(words)).build().into()
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
    /// The digests that the client wants to know (RFC 9530); `sha-256` is there, but not for variants.
    #[param(rename = "Want-Repr-Digest", required = false, example = "sha-256=10")]
    want_repr_digest: String,
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

/// The data of the events of `/events/stats`, by the event's name.
#[derive(Debug)]
pub(crate) struct StatsEvents;

impl PartialSchema for StatsEvents {
    fn schema() -> RefOr<Schema> {
        events(&[
            ("bus", "Whether the gateway hears the workers: first, and whenever that changes", "Connected"),
            ("window", "A worker has counted a window; its row follows within moments", "Window"),
            ("configured", "A worker has put a revision into force", "Configured"),
            ("cleared", "A worker has dropped everything, because it was asked to", "Cleared"),
            ("skipped", "This reader was too slow for so many events", "Skipped"),
            (GaveWay::NAME, "The last event: another reader has this place now", "GaveWay"),
        ])
    }
}

impl ToSchema for StatsEvents {}

/// The data of the events of `/events/keys`, by the event's name.
#[derive(Debug)]
pub(crate) struct KeysEvents;

impl PartialSchema for KeysEvents {
    fn schema() -> RefOr<Schema> {
        events(&[
            ("watch", "Whether a worker publishes key events: first, and whenever that changes", "KeysWatch"),
            ("keys", "The events since the batch before", "KeysBatch"),
            (GaveWay::NAME, "The last event: another reader has this place now", "GaveWay"),
        ])
    }
}

impl ToSchema for KeysEvents {}

/// A stream's events: the name, the description, and the name of the schema of each one's data.
fn events(events: &[(&str, &str, &str)]) -> RefOr<Schema> {
    let all =
        ObjectBuilder::new().description(Some("One property for each name of an event: what its data is."));
    let all = events.iter().fold(all, |all, (name, description, schema)| {
        let data = RefBuilder::new().ref_location_from_schema_name(*schema).description(Some(*description));
        all.property(*name, data.build())
    });
    all.into()
}
