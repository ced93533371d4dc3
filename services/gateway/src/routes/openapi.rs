//! `/api/openapi.json`: the HTTP interface, generated from the code that serves it.

use std::sync::Arc;

use axum::extract::State;
use axum::http::Method;
use axum::routing::get;
use axum::{Json, Router};
use sniff::Format;
use utoipa::OpenApi;
use utoipa::openapi::path::{Operation, Paths};
use utoipa::openapi::schema::Type;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{
    Content, ContentBuilder, HeaderBuilder, ObjectBuilder, Ref, RefOr, Response, ResponseBuilder,
};

use wire::event::{Cleared, Configured};
use wire::{Key, Policy, Span, Window};

use super::schema::{EntityTags, HttpDate, ImageBytes};
use super::stats::StatsFormat;
use super::{api, cache, events, health, images, metrics, stats};
use crate::cache::feed::{Batch, Connected, GaveWay, Skipped, Watching};
use crate::service::state::AppState;

/// The media type of images in the description of an operation.
const ANY_IMAGE: &str = "image/*";

/// Whether an operation needs the token.
pub(crate) type NeedsToken<'a> = &'a dyn Fn(&Method, Option<&str>) -> bool;

/// The routes. The settings decide which operations need the token, and the document says so.
pub(crate) fn router(needs_token: NeedsToken<'_>) -> Router<AppState> {
    Router::new().route("/api/openapi.json", get(openapi)).with_state(Arc::new(document(needs_token)))
}

/// The document: the description of each operation, and the parts that all operations share.
fn document(needs_token: NeedsToken<'_>) -> utoipa::openapi::OpenApi {
    let mut document = Document::openapi();
    let schemes = [("bearer", HttpAuthScheme::Bearer), ("login", HttpAuthScheme::Basic)];
    let any_needs_token = complete(&mut document.paths, needs_token, &schemes.clone().map(|(name, _)| name));
    if let Some(components) = document.components.as_mut().filter(|_| any_needs_token) {
        for (name, scheme) in schemes {
            components.add_security_scheme(name, SecurityScheme::Http(Http::new(scheme)));
        }
    }
    document
}

/// Adds to each operation the answers of the layers around it, and whether it needs the token. Returns whether any
/// operation needs the token.
fn complete(paths: &mut Paths, is_closed: NeedsToken<'_>, schemes: &[&'static str]) -> bool {
    let mut any_needs_token = false;
    for (path, item) in &mut paths.paths {
        if path == "/healthz" {
            continue;
        }
        let route = path.replace("{key}", "{*key}");
        let methods = [
            (Method::GET, &mut item.get),
            (Method::PUT, &mut item.put),
            (Method::POST, &mut item.post),
            (Method::DELETE, &mut item.delete),
        ];
        for (method, operation) in methods {
            let Some(operation) = operation else { continue };
            name_formats(operation);
            let needs_token = is_closed(&method, Some(&route));
            any_needs_token |= needs_token;
            if needs_token {
                let no_scopes: [&str; 0] = [];
                let ways = schemes.iter().map(|name| SecurityRequirement::new(*name, no_scopes));
                operation.security = Some(ways.collect());
                add(operation, "401", failure("This needs the admin token"));
                add(operation, "429", failure("Too many wrong tokens came from this address"));
            }
            if method != Method::GET {
                add(operation, "403", failure("Asked for by another web site; nothing was changed"));
                add(operation, "408", failure("The body came to a standstill"));
                add(operation, "415", failure("The body has a Content-Encoding"));
            }
            if route.ends_with("{*key}") {
                add(operation, "400", failure("Not a key"));
            }
            add(operation, "400", failure("Host is missing, or there are several"));
            add(operation, "421", failure("Host is another one than this gateway's; see ALLOWED_HOSTS"));
            add(operation, "500", failure("The gateway failed at this request; its log has the cause"));
            add(
                operation,
                "503",
                failure("A part that this needs does not answer, or too much is asked at once"),
            );
            describe_headers(operation, path == "/readyz");
        }
    }
    any_needs_token
}

/// Puts the media types of all formats in the place of `image/*`.
fn name_formats(operation: &mut Operation) {
    let of_each = |content: RefOr<Content>| {
        Format::ALL.map(|format| (format.content_type().to_owned(), content.clone()))
    };
    for response in operation.responses.responses.values_mut() {
        if let RefOr::T(response) = response
            && let Some(content) = response.content.shift_remove(ANY_IMAGE)
        {
            response.content.extend(of_each(content));
        }
    }
    if let Some(RefOr::T(body)) = &mut operation.request_body
        && let Some(content) = body.content.remove(ANY_IMAGE)
    {
        body.content.extend(of_each(content));
    }
}

/// Adds an answer, unless the operation itself describes that status.
fn add(operation: &mut Operation, status: &str, response: Response) {
    operation.responses.responses.entry(status.into()).or_insert(response.into());
}

fn failure(description: &str) -> Response {
    let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("Failure"))).build();
    ResponseBuilder::new().description(description).content("application/json", content).build()
}

/// Adds the headers that every answer with a status has, whatever the operation.
fn describe_headers(operation: &mut Operation, is_report: bool) {
    for (status, name, description) in [
        ("401", "WWW-Authenticate", "How to log in"),
        ("416", "Content-Range", "The size of the image, behind `bytes */`"),
        ("429", "Retry-After", "After how many seconds to try again"),
        ("503", "Retry-After", "After how many seconds to try again"),
    ] {
        let response = operation.responses.responses.get_mut(status).filter(|_| !is_report);
        if let Some(RefOr::T(response)) = response {
            let text = ObjectBuilder::new().schema_type(Type::String).build();
            let header = HeaderBuilder::new().schema(Some(text)).description(Some(description)).build();
            response.headers.insert(name.into(), header.into());
        }
    }
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "pixcache",
        description = "Stores images under keys, serves them at memory speed, and shows what its cache is doing.\n\nA key is 1 to 255 bytes of UTF-8 without control characters and without white space at its ends. In a path it is percent-encoded, slashes or not, as you like. A change asked for by another web site is refused with 403. Where the admin token is set, every change needs it, and where everything is private, every read but /healthz and /readyz too: as Authorization: Bearer, or as the password of a Basic login; the document of such a gateway says so of each operation. Until NATS and MySQL are there, every path but /healthz answers 503."
    ),
    tags(
        (name = "images", description = "Images for programs and for <img>"),
        (name = "api", description = "Calls with JSON, for existing clients"),
        (name = "cache", description = "What the cache does, and how it is set"),
        (name = "events", description = "What happens, as it happens"),
        (name = "operation", description = "For those who run it"),
    ),
    components(schemas(
        EntityTags, HttpDate, ImageBytes, Key, Policy, Span, StatsFormat,
        // The data of events, which only the streams' schemas name.
        Batch, Cleared, Configured, Connected, GaveWay, Skipped, Watching, Window,
    )),
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
        events::stats,
        events::keys,
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
pub(crate) async fn openapi(
    State(document): State<Arc<utoipa::openapi::OpenApi>>,
) -> Json<utoipa::openapi::OpenApi> {
    Json(utoipa::openapi::OpenApi::clone(&document))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use crate::cache::feed::{KeysEvent, StatsEvent};
    use crate::config::Config;
    use crate::http::access::Gate;
    use clap::Parser as _;
    use proptest::prelude::*;
    use proptest::test_runner::TestRunner;
    use serde_json::Value;
    use serde_json::json;
    use std::collections::BTreeSet;
    use time::macros::datetime;
    use wire::Counters;

    /// The document of a gateway with these flags.
    fn document_with(flags: &[&str]) -> Value {
        let needed =
            ["gateway", "--nats-password", "x", "--database-url", "mysql://x", "--host", "127.0.0.1"];
        let config = Config::parse_from(needed.iter().chain(flags));
        let gate = Gate::new(&config).unwrap();
        serde_json::to_value(super::document(&|method, route| gate.needs_token(method, route))).unwrap()
    }

    fn document() -> Value {
        document_with(&[])
    }

    fn names(object: &Value) -> BTreeSet<String> {
        object.as_object().unwrap().keys().cloned().collect()
    }

    /// The fields of a schema, including those of the schemas that it consists of.
    fn fields(document: &Value, schema: &Value) -> BTreeSet<String> {
        if let Some(reference) = schema["$ref"].as_str() {
            return fields(document, document.pointer(reference.trim_start_matches('#')).unwrap());
        }
        let parts = schema["allOf"].as_array().into_iter().flatten();
        let inherited = parts.flat_map(|part| fields(document, part));
        inherited
            .chain(schema["properties"].as_object().into_iter().flatten().map(|(name, _)| name.clone()))
            .collect()
    }

    /// Compares the fields of a written value with those of its schema.
    fn assert_described(schema: &str, value: &impl serde::Serialize) {
        let document = document();
        let described = fields(&document, &document["components"]["schemas"][schema]);
        assert_eq!(described, names(&serde_json::to_value(value).unwrap()), "{schema}");
    }

    #[test]
    fn what_the_bus_answers_is_described_as_it_is() {
        let at = datetime!(2026-01-02 03:04:05 UTC);
        let config: wire::ConfigReply = serde_json::from_value(json!({
            "worker": "w", "incarnation": "i", "revision": 1, "capacity_mb": 64, "policy": "lru", "generation": 0,
            "changed_by": "x", "changed_at": "2026-01-02T03:04:05Z", "capacity_bytes": 1, "max_capacity_mb": 2,
        }))
        .unwrap();
        assert_described("CacheConfig", &config);
        let clear = wire::inspect::ClearReply {
            entries: 1,
            bytes: 2,
            generation: 3,
            revision: 4,
            incarnation: "i".into(),
        };
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
        let part = crate::health::Part { ok: true, message: String::new() };
        let parts = crate::health::Health {
            nats: part.clone(),
            memcache: part.clone(),
            recorder: part.clone(),
            mysql: part.clone(),
            store: part.clone(),
        };
        assert_described("Part", &part);
        assert_described("Parts", &parts);
        assert_described("Readiness", &health::answer(parts).1.0);
        let documented = document();
        let events = &documented["components"]["schemas"]["StatsEvents"]["properties"];
        let said = [
            StatsEvent::Bus(Connected { connected: true }),
            StatsEvent::Window(Arc::new(wire::Window {
                worker: String::new(),
                incarnation: String::new(),
                sequence: 1,
                interval_start: at,
                interval_ms: 1,
                cache_size: 1,
                capacity: 1,
                key_count: 1,
                counters: Counters::default(),
            })),
            StatsEvent::Configured(Arc::new(wire::event::Configured {
                worker: String::new(),
                incarnation: String::new(),
                revision: 1,
                capacity_bytes: 1,
                policy: wire::Policy::Lru,
                changed_by: String::new(),
                time: at,
            })),
            StatsEvent::Cleared(Arc::new(wire::event::Cleared {
                worker: String::new(),
                incarnation: String::new(),
                revision: 1,
                generation: 1,
                entries: 1,
                bytes: 1,
                changed_by: String::new(),
                time: at,
            })),
            StatsEvent::Skipped(Skipped { count: 1 }),
            StatsEvent::GaveWay(crate::cache::feed::GaveWay::WORDS),
        ];
        assert_eq!(names(events), said.iter().map(|event| event.name().to_owned()).collect());
        for event in said {
            let described = fields(&documented, &events[event.name()]);
            assert_eq!(described, names(&serde_json::to_value(&event).unwrap()), "{}", event.name());
        }
        let event = wire::event::KeyEvent {
            kind: wire::event::KeyEventKind::Hit,
            key: wire::Key::new("cat").unwrap(),
            variant: Some(wire::Variant::W320),
            bytes: 1,
            count: 2,
            near: true,
            worker: String::new(),
            time: at,
            dropped_count: 0,
        };
        let batch = Batch { events: vec![Arc::new(event.clone())], ..Batch::default() };
        let watching =
            Watching { watching: false, worker: None, incarnation: None, max_per_second: None, reason: None };
        assert_described("KeyEvent", &event);
        assert_described("KeyEventCounts", &batch.counts);
        assert_described("KeysBatch", &batch);
        assert_described("KeysWatch", &watching);
        assert_described("GaveWay", &crate::cache::feed::GaveWay::WORDS);
        let gave_way = KeysEvent::GaveWay(crate::cache::feed::GaveWay::WORDS);
        let said = [KeysEvent::Watch(watching), KeysEvent::Keys(batch), gave_way];
        let said = said.map(|event| event.name().to_owned());
        assert_eq!(names(&documented["components"]["schemas"]["KeysEvents"]["properties"]), said.into());
        let policies = document()["components"]["schemas"]["Policy"].to_string();
        for policy in wire::Policy::ALL {
            assert!(policies.contains(&format!("\"{policy}\"")), "{policy} in {policies}");
        }
    }

    /// Every operation: its path, its method, its description.
    fn operations(document: &Value) -> Vec<(String, String, Value)> {
        let paths = document["paths"].as_object().unwrap().iter();
        let operations = paths.flat_map(|(path, item)| {
            let methods = item.as_object().unwrap().iter();
            methods.map(|(method, operation)| (path.clone(), method.clone(), operation.clone()))
        });
        operations.collect()
    }

    #[test]
    fn the_document_says_what_needs_the_token_of_this_gateway() {
        const TOKEN: &[&str] = &["--admin-token", "correct-horse-battery"];
        let needing = |flags: &[&str]| -> BTreeSet<String> {
            let operations = operations(&document_with(flags)).into_iter();
            let needing = operations.filter(|(_, _, operation)| {
                let ways = &operation["security"];
                let says = !operation["responses"]["401"].is_null();
                assert_eq!(says, *ways == json!([{"bearer": []}, {"login": []}]), "{ways}");
                says
            });
            needing.map(|(path, method, _)| format!("{method} {path}")).collect()
        };
        assert_eq!(needing(&[]), BTreeSet::new());
        let changes = [
            "delete /images/{key}",
            "post /api/cache/clear",
            "post /api/delete_all",
            "post /api/upload",
            "put /api/cache",
            "put /images/{key}",
        ];
        assert_eq!(needing(TOKEN), changes.map(String::from).into());
        let all = operations(&document()).into_iter().map(|(path, method, _)| format!("{method} {path}"));
        let all: BTreeSet<String> = all.collect();
        let private = needing(&[TOKEN, &["--private"]].concat());
        let open = all.difference(&private).map(String::as_str).collect::<Vec<_>>();
        assert_eq!(open, ["get /healthz", "get /readyz"]);
    }

    #[test]
    fn every_failure_has_the_one_shape_and_every_reference_an_end() {
        let document = document_with(&["--admin-token", "correct-horse-battery"]);
        for (path, method, operation) in operations(&document) {
            for (status, answer) in operation["responses"].as_object().unwrap() {
                if status.as_str() >= "400" && path != "/readyz" {
                    let schema = &answer["content"]["application/json"]["schema"]["$ref"];
                    assert_eq!(schema, "#/components/schemas/Failure", "{method} {path} {status}");
                }
            }
        }
        let schemas = names(&document["components"]["schemas"]);
        for reference in document.to_string().split("#/components/schemas/").skip(1) {
            let name = reference.split('"').next().unwrap();
            assert!(schemas.contains(name), "{name}");
        }
        // A value that could not be read as a schema would be an empty schema.
        assert!(schemas.iter().all(|name| names(&document["components"]["schemas"][name]).len() > 1));
    }

    #[test]
    fn a_span_s_pattern_is_what_a_span_may_be() {
        let document = document();
        let pattern = document["components"]["schemas"]["Span"]["pattern"].as_str().unwrap();
        // Generators know no anchors.
        let spans = proptest::string::string_regex(pattern.trim_matches(['^', '$'])).unwrap();
        let mut runner = TestRunner::default();
        let ran = runner.run(&spans, |text| {
            prop_assert!(text.parse::<wire::Span>().is_ok(), "{}", text);
            Ok(())
        });
        ran.unwrap();
    }

    #[test]
    fn paths_are_written_as_clients_read_them() {
        let document = document();
        let paths = names(&document["paths"]);
        assert!(paths.contains("/images/{key}"), "{paths:?}");
        assert!(paths.iter().all(|path| !path.contains('*')), "{paths:?}");
    }
}
