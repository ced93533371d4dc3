//! `/api/openapi.json`: the HTTP interface, generated from the code that serves it.
//!
//! What the bus answers passes through as it is, in types of `wire`, which knows nothing of HTTP. Its
//! shape is described here, and a test compares the two.

use axum::routing::get;
use axum::{Json, Router};
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{ContentBuilder, Ref, ResponseBuilder};
use utoipa::{IntoParams, Modify, OpenApi, ToSchema};

use super::{api, cache, health, images, metrics, stats};
use crate::state::AppState;

/// The routes.
pub(crate) fn router() -> Router<AppState> {
    Router::new().route("/api/openapi.json", get(openapi))
}

/// Says of each operation what the token changes about it.
struct Rights;

impl Modify for Rights {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let schemes = [("bearer", HttpAuthScheme::Bearer), ("login", HttpAuthScheme::Basic)];
        if let Some(components) = &mut document.components {
            for (name, scheme) in schemes.clone() {
                components.add_security_scheme(name, SecurityScheme::Http(Http::new(scheme)));
            }
        }
        let no_token = ResponseBuilder::new()
            .description("The admin token is set, and this needs it")
            .content(
                "application/json",
                ContentBuilder::new().schema(Some(Ref::from_schema_name("Failure"))).build(),
            )
            .build();
        for (path, item) in &mut document.paths.paths {
            if path == "/healthz" {
                continue;
            }
            let operations = [&mut item.get, &mut item.put, &mut item.post, &mut item.delete];
            for operation in operations.into_iter().flatten() {
                operation.responses.responses.insert("401".into(), no_token.clone().into());
                let no_scopes: [&str; 0] = [];
                let mut ways = vec![SecurityRequirement::default()];
                ways.extend(schemes.iter().map(|(name, _)| SecurityRequirement::new(*name, no_scopes)));
                operation.security = Some(ways);
            }
        }
    }
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "pixcache",
        description = "Stores images under keys, serves them at memory speed, and shows what its cache is doing.\n\nA key is 1 to 255 bytes of UTF-8 without control characters and without white space at its ends. In a path it is percent-encoded, slashes or not, as you like. A change asked for by another web site is refused with 403. Where the admin token is set, every change needs it, and where everything is private, every read but /healthz too: as Authorization: Bearer, or as the password of a Basic login. Until NATS and MySQL are there, every path but /healthz answers 503."
    ),
    modifiers(&Rights),
    tags(
        (name = "images", description = "Images for programs and for <img>"),
        (name = "api", description = "Calls with JSON, for existing clients"),
        (name = "cache", description = "What the cache does, and how it is set"),
        (name = "operation", description = "For those who run it"),
    ),
    paths(
        images::get_image,
        images::put_image,
        images::delete_image,
        api::list_images,
        api::image_info,
        api::upload,
        api::list_keys,
        api::key,
        api::delete_all,
        cache::config,
        cache::set_config,
        cache::clear,
        stats::stats,
        health::healthz,
        health::readyz,
        metrics::metrics,
        openapi,
    )
)]
struct Document;

/// This document.
#[utoipa::path(
    get,
    path = "/api/openapi.json",
    tag = "operation",
    responses((status = 200, description = "An OpenAPI document", body = serde_json::Value))
)]
pub(crate) async fn openapi() -> Json<utoipa::openapi::OpenApi> {
    Json(Document::openapi())
}

/// A key in a path.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "it describes what key_behind reads")]
pub(crate) struct KeyInPath {
    /// The key: all of the rest of the path, slashes included.
    #[param(
        min_length = 1,
        max_length = 255,
        pattern = r"^(?!\.{1,2}$)[^\s\x00-\x1F\x7F-\x9F]([^\x00-\x1F\x7F-\x9F]*[^\s\x00-\x1F\x7F-\x9F])?$"
    )]
    key: String,
}

/// An upload as a form sends it.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "it describes what store_form reads")]
pub(crate) struct UploadForm {
    /// The key.
    #[schema(
        min_length = 1,
        max_length = 255,
        pattern = r"^(?!\.{1,2}$)[^\s\x00-\x1F\x7F-\x9F]([^\x00-\x1F\x7F-\x9F]*[^\s\x00-\x1F\x7F-\x9F])?$"
    )]
    key: String,
    /// The bytes of a PNG, JPEG, GIF or WebP image. File name and type are not needed.
    #[schema(value_type = String, format = Binary)]
    file: Vec<u8>,
}

/// The hash in an image's address.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "it describes images::version")]
pub(crate) struct Version {
    /// SHA-256 of the bytes: if they have it, the answer may be kept for ever.
    #[param(required = false)]
    v: String,
}

/// The headers that a read honours.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "it describes conditional::decide")]
pub(crate) struct ReadHeaders {
    /// Entity tags that the asker holds.
    #[param(rename = "If-None-Match", required = false)]
    if_none_match: String,
    /// A moment; it counts without If-None-Match.
    #[param(rename = "If-Modified-Since", required = false)]
    if_modified_since: String,
    /// Entity tags of which the asker wants one.
    #[param(rename = "If-Match", required = false)]
    if_match: String,
    /// A moment; it counts without If-Match.
    #[param(rename = "If-Unmodified-Since", required = false)]
    if_unmodified_since: String,
    /// One range of bytes.
    #[param(rename = "Range", required = false, example = "bytes=0-99")]
    range: String,
    /// An entity tag or a moment: the range counts only for this image.
    #[param(rename = "If-Range", required = false)]
    if_range: String,
}

/// The headers that a write honours.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "it describes conditional::WriteConditions")]
pub(crate) struct WriteHeaders {
    /// Only if one of these images is there now; with `*`, any image.
    #[param(rename = "If-Match", required = false, pattern = r#"^(\*|(W/)?"[!#-~]*"(, *(W/)?"[!#-~]*")*)$"#)]
    if_match: String,
    /// Only if none of these images is there now; with `*`, no image at all.
    #[param(
        rename = "If-None-Match",
        required = false,
        pattern = r#"^(\*|(W/)?"[!#-~]*"(, *(W/)?"[!#-~]*")*)$"#
    )]
    if_none_match: String,
    /// Only if the image is not newer; it counts without If-Match.
    #[param(rename = "If-Unmodified-Since", required = false)]
    if_unmodified_since: String,
}

/// The configuration of the cache that is in force.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "it describes wire::ConfigReply")]
pub(crate) struct CacheConfig {
    /// The worker that answers.
    worker: String,
    /// The revision of the configuration.
    revision: u64,
    /// The most that the cache may weigh, in megabytes of 2^20 bytes.
    capacity_mb: u64,
    policy: Policy,
    /// Goes up by one with each clear.
    generation: u64,
    /// Who asked for the change.
    changed_by: String,
    /// When.
    #[schema(format = DateTime)]
    changed_at: String,
    /// The capacity in bytes.
    capacity_bytes: u64,
    /// The largest capacity that the worker's machine allows, in megabytes.
    max_capacity_mb: u64,
}

/// Which entry leaves when the cache is full.
#[derive(Debug, ToSchema)]
#[schema(rename_all = "snake_case")]
#[expect(dead_code, reason = "it describes wire::Policy")]
pub(crate) enum Policy {
    /// Nothing is kept.
    None,
    /// A uniformly random one.
    Random,
    /// The least recently used one.
    Lru,
    /// CLOCK-Pro: not washed out by a scan.
    ClockPro,
}

/// A change of the configuration. Either field may be left out.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "it describes wire::ConfigChange")]
pub(crate) struct CacheConfigChange {
    /// Megabytes of 2^20 bytes, from 1 to three quarters of the memory of the worker's machine.
    #[schema(minimum = 1, required = false)]
    capacity_mb: u64,
    #[schema(required = false)]
    policy: Policy,
    /// Who asks, for the history.
    #[schema(max_length = 64, pattern = r"^[^\x00-\x1F\x7F-\x9F]*$", required = false)]
    by: String,
}

/// What a clear dropped.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "it describes wire::inspect::ClearReply")]
pub(crate) struct CacheCleared {
    /// Entries.
    entries: u64,
    /// Their weight, in bytes.
    bytes: u64,
    /// The new generation.
    generation: u64,
    /// The revision of the configuration that carries it.
    revision: u64,
}

/// What the cache did over time.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "it describes wire::stats::Series")]
pub(crate) struct Stats {
    /// Where the range begins.
    #[schema(format = DateTime)]
    from: String,
    /// Where it ends.
    #[schema(format = DateTime)]
    to: String,
    /// The interval that a row stands for, in milliseconds.
    step_ms: u64,
    /// The oldest first. Where nothing was recorded there is none.
    rows: Vec<StatsRow>,
}

/// One window, or several added up.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "it describes wire::stats::SeriesRow")]
pub(crate) struct StatsRow {
    /// When it begins.
    #[schema(format = DateTime)]
    interval_start: String,
    /// The time that its windows cover, in milliseconds.
    interval_ms: u64,
    /// The worker, if all windows in it are of one.
    worker: Option<String>,
    /// The worker's life, if all windows in it are of one.
    incarnation: Option<String>,
    /// The last window's number, if all windows in it are of one life.
    sequence: Option<u64>,
    /// How many windows it adds up.
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
}

/// Which parts of the system are there.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "it describes health::Readiness")]
pub(crate) struct Readiness {
    /// Whether all of them are.
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
}

/// One part.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "it describes state::Part")]
pub(crate) struct Part {
    /// Whether it can be used.
    ok: bool,
    /// What is wrong, or what it is.
    message: String,
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use serde_json::{Value, json};
    use std::collections::BTreeSet;
    use time::macros::datetime;
    use wire::Counters;

    fn document() -> Value {
        serde_json::to_value(Document::openapi()).unwrap()
    }

    fn names(object: &Value) -> BTreeSet<String> {
        object.as_object().unwrap().keys().cloned().collect()
    }

    /// Compares what a value is written as with what is said of it.
    fn assert_described(schema: &str, value: &impl serde::Serialize) {
        let properties = &document()["components"]["schemas"][schema]["properties"];
        assert_eq!(names(properties), names(&serde_json::to_value(value).unwrap()), "{schema}");
    }

    #[test]
    fn what_the_bus_answers_is_described_as_it_is() {
        let at = datetime!(2026-01-02 03:04:05 UTC);
        let config: wire::ConfigReply = serde_json::from_value(json!({
            "worker": "w", "revision": 1, "capacity_mb": 64, "policy": "lru", "generation": 0,
            "changed_by": "x", "changed_at": "2026-01-02T03:04:05Z", "capacity_bytes": 1, "max_capacity_mb": 2,
        }))
        .unwrap();
        assert_described("CacheConfig", &config);
        let clear = wire::inspect::ClearReply { entries: 1, bytes: 2, generation: 3, revision: 4 };
        assert_described("CacheCleared", &clear);
        let row = wire::stats::SeriesRow {
            interval_start: at,
            interval_ms: 1,
            worker: None,
            incarnation: None,
            sequence: None,
            window_count: 1,
            cache_size: 1,
            capacity: 1,
            key_count: 1,
            counters: Counters::default(),
        };
        assert_described("StatsRow", &row);
        assert_described("Stats", &wire::stats::Series { from: at, to: at, step_ms: 1, rows: vec![row] });
        let part = crate::state::Part { ok: true, message: String::new() };
        let parts = crate::state::Health {
            nats: part.clone(),
            memcache: part.clone(),
            recorder: part.clone(),
            mysql: part.clone(),
        };
        assert_described("Part", &part);
        assert_described("Parts", &parts);
        assert_described("Readiness", &health::answer(parts).1.0);
        let policies = document()["components"]["schemas"]["Policy"].to_string();
        for policy in wire::Policy::ALL {
            assert!(policies.contains(&format!("\"{policy}\"")), "{policy} in {policies}");
        }
    }

    #[test]
    fn paths_are_written_as_clients_read_them() {
        let document = document();
        let paths = names(&document["paths"]);
        assert!(paths.contains("/images/{key}"), "{paths:?}");
        assert!(paths.iter().all(|path| !path.contains('*')), "{paths:?}");
    }
}
