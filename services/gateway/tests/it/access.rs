//! Who may do what: every route, each method, with and without the token.

use std::collections::BTreeSet;
use std::process::{Command, Stdio};

use serde_json::Value;
use testkit::{free_port, repository_root, samples};

use crate::helpers::{Gateway, Scene};
use crate::http::Form;

pub(crate) const TOKEN: &str = "correct-horse-battery";
pub(crate) const BEARER: (&str, &str) = ("Authorization", "Bearer correct-horse-battery");
/// `somebody:correct-horse-battery`
const LOGIN: (&str, &str) = ("Authorization", "Basic c29tZWJvZHk6Y29ycmVjdC1ob3JzZS1iYXR0ZXJ5");
pub(crate) const METHODS: [&str; 9] =
    ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW"];

/// The routes for people: each path as it is asked for, and the methods that it has.
const PAGES: &[(&str, &str, &[&str])] = &[
    ("/", "/", &["GET"]),
    ("/keys_list", "/keys_list", &["GET"]),
    ("/keys_list/delete", "/keys_list/delete", &["GET", "POST"]),
    ("/image", "/image?key=cat", &["GET"]),
    ("/image/delete", "/image/delete?key=cat", &["GET", "POST"]),
    ("/image/invalidate", "/image/invalidate", &["GET", "POST"]),
    ("/cache_properties", "/cache_properties", &["GET", "POST"]),
    ("/cache_properties/clear", "/cache_properties/clear", &["GET", "POST"]),
    ("/cache_properties/delete_all", "/cache_properties/delete_all", &["GET", "POST"]),
    ("/cache_stats", "/cache_stats", &["GET"]),
    ("/live", "/live", &["GET"]),
    ("/system", "/system", &["GET"]),
    ("/upload_image", "/upload_image", &["GET", "POST"]),
    ("/static/{*path}", "/static/css/pixcache.css", &["GET"]),
    ("/favicon.ico", "/favicon.ico", &["GET"]),
    ("/nothing", "/nothing", &[]),
];
/// What is stood for by the route for the empty key, which has none in the document.
const EMPTY_KEY: [&str; 3] = ["/images/", "/api/images/", "/api/key/"];

/// A route: as the router has it, a path that matches it, the methods that it has.
pub(crate) struct Route {
    pub(crate) route: String,
    pub(crate) path: String,
    methods: BTreeSet<String>,
}

/// Every route: those of the document, and the pages.
pub(crate) async fn routes(gateway: &Gateway) -> Vec<Route> {
    let document: Value = gateway.send("GET", "/api/openapi.json", &[BEARER], b"").await.json();
    let mut routes: Vec<Route> = document["paths"]
        .as_object()
        .unwrap()
        .iter()
        .map(|(path, methods)| Route {
            route: path.replace("{key}", "{*key}"),
            path: path.replace("{key}", "cat"),
            methods: methods.as_object().unwrap().keys().map(|method| method.to_uppercase()).collect(),
        })
        .collect();
    routes.extend(PAGES.iter().map(|(route, path, methods)| Route {
        route: (*route).into(),
        path: (*path).into(),
        methods: methods.iter().map(|method| (*method).to_owned()).collect(),
    }));
    for empty in EMPTY_KEY {
        let behind = routes.iter().find(|route| route.route == format!("{empty}{{*key}}")).unwrap();
        let methods = behind.methods.clone();
        routes.push(Route { route: empty.into(), path: empty.into(), methods });
    }
    routes
}

/// A request that would do what its route is for.
pub(crate) fn body_for(method: &str, route: &str) -> (String, Vec<u8>) {
    let image = samples::rocket().bytes;
    let form = "application/x-www-form-urlencoded".to_owned();
    match (method, route) {
        ("POST", "/api/upload" | "/upload_image") => {
            (Form::content_type(), Form::new().key("dog").file(image).bytes())
        }
        ("PUT", "/api/cache") => ("application/json".into(), br#"{"capacity_mb":33}"#.to_vec()),
        ("POST", "/image/delete" | "/image/invalidate") => (form, b"key=cat".to_vec()),
        ("POST", "/keys_list/delete") => (form, b"key=cat&confirmed=1".to_vec()),
        ("POST", "/cache_properties") => (form, b"capacity_mb=35&policy=lru".to_vec()),
        ("POST", "/cache_properties/delete_all") => (form, b"confirmation=delete+everything".to_vec()),
        ("PUT", _) => ("application/octet-stream".into(), image.to_vec()),
        _ => (form, Vec::new()),
    }
}

async fn ask(
    gateway: &Gateway,
    method: &str,
    route: &Route,
    credentials: &[(&str, &str)],
) -> crate::http::Answer {
    let (content_type, body) = body_for(method, &route.route);
    let mut headers = credentials.to_vec();
    if !body.is_empty() {
        headers.push(("Content-Type", &content_type));
    }
    gateway.send(method, &route.path, &headers, &body).await
}

/// Everything that a request could have changed.
pub(crate) async fn snapshot(scene: &Scene) -> (Vec<(Vec<u8>, Vec<u8>)>, usize, String, u64) {
    let rows = sqlx::query_as("SELECT image_key, sha256 FROM images ORDER BY image_key")
        .fetch_all(&scene.pool)
        .await
        .unwrap();
    let config = scene.ask(wire::subject::CONFIG_GET, "").await.unwrap();
    let resident = scene.cache_stats().await.unwrap().key_count;
    (rows, scene.file_count(), String::from_utf8_lossy(&config.payload).into_owned(), resident)
}

#[test]
fn no_route_is_left_out_of_these_tests() {
    let routes = repository_root().join("services/gateway/src/routes");
    let folders = [routes.join("pages"), routes];
    let files = folders.iter().flat_map(|folder| std::fs::read_dir(folder).unwrap());
    let mut found = 0;
    for file in files.map(|file| file.unwrap().path()).filter(|path| path.is_file()) {
        let source = std::fs::read_to_string(file).unwrap();
        for other in [".nest(", ".nest_service(", ".route_service("] {
            assert!(!source.contains(other), "this test does not know what {other} adds");
        }
        for piece in source.split(".route(").skip(1) {
            let said = piece.trim_start();
            // A literal, or the name of a constant of the same file.
            let literal = said.strip_prefix('"').or_else(|| {
                let (name, _) = said.split_once(',')?;
                source.split_once(&format!("const {name}: &str = \""))?.1.into()
            });
            let Some(route) = literal.and_then(|rest| rest.split('"').next()) else {
                panic!("a route that is neither a literal nor a constant: {piece:.60}");
            };
            found += 1;
            let known = PAGES.iter().any(|(page, ..)| *page == route)
                || EMPTY_KEY.contains(&route)
                || source.contains(&format!("path = \"{}\"", route.replace("{*key}", "{key}")));
            assert!(known, "{route} is neither in the document nor among the pages");
        }
    }
    assert!(found > 20, "only {found} routes were found");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_token_nothing_is_changed_without_it() {
    let scene = Scene::new().await;
    let _worker = scene.start_worker().await;
    let gateway = scene.start_gateway(&["--admin-token", TOKEN]).await;
    let cat = samples::chelsea().bytes;
    assert_eq!(gateway.send("PUT", "/images/cat", &[BEARER], cat).await.status, 201);
    assert_eq!(gateway.get("/images/cat").await.status, 200);
    let before = snapshot(&scene).await;
    let reads_by_post = ["/api/list_keys", "/api/key/{*key}", "/api/key/"];
    for route in routes(&gateway).await {
        for method in METHODS {
            let answer = ask(&gateway, method, &route, &[]).await;
            let is_read = match method {
                "GET" | "HEAD" => route.methods.contains("GET") || route.route == "/nothing",
                "POST" => reads_by_post.contains(&&*route.route),
                _ => false,
            };
            let what = format!("{method} {}", route.route);
            assert_eq!(answer.status == 401, !is_read, "{what} is answered with {}", answer.status);
            assert_ne!(answer.status, 500, "{what}");
            if answer.status == 401 && method != "HEAD" {
                assert!(answer.header("www-authenticate").starts_with("Basic realm="), "{what}");
                if route.route.starts_with("/api") || route.route.starts_with("/images") {
                    assert_eq!(answer.failure(), 401, "{what}");
                } else if PAGES.iter().any(|(page, ..)| *page == route.route) {
                    assert!(answer.header("content-type").starts_with("text/html"), "{what}");
                }
            }
            // What is no token is none, whatever it looks like.
            if !is_read {
                for wrong in ["Bearer correct-horse-batter", "Bearer ", "Basic Og==", "correct-horse-battery"]
                {
                    let answer = ask(&gateway, method, &route, &[("Authorization", wrong)]).await;
                    assert_eq!(answer.status, 401, "{what} with {wrong}");
                }
            }
        }
    }
    assert_eq!(snapshot(&scene).await, before);

    // Another web site may use the browser's login no more than anybody's.
    for credentials in [BEARER, LOGIN] {
        let foreign = [credentials, ("Sec-Fetch-Site", "cross-site")];
        assert_eq!(gateway.send("DELETE", "/images/cat", &foreign, b"").await.failure(), 403);
    }
    // With the token every route does what it is for, and none is answered 401.
    for credentials in [BEARER, LOGIN] {
        for route in routes(&gateway).await {
            for method in &route.methods {
                let put = gateway.send("PUT", "/images/cat", &[credentials], cat).await.status;
                assert!(matches!(put, 200 | 201), "{put}");
                let answer = ask(&gateway, method, &route, &[credentials]).await;
                let ready = matches!(&*route.route, "/readyz" | "/api/stats" | "/cache_stats");
                let empty = EMPTY_KEY.contains(&&*route.route);
                let expected = if empty { 400..401 } else { 200..304 };
                let what = format!("{method} {} answers {}", route.route, answer.status);
                // No recorder runs here.
                assert!(expected.contains(&answer.status) || (ready && answer.status == 503), "{what}");
            }
        }
    }
    gateway.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_private_shows_nothing_without_the_token() {
    let scene = Scene::new().await;
    let _worker = scene.start_worker().await;
    let flags = ["--admin-token", TOKEN, "--private", "--image-cache-control", "public, max-age=60"];
    let gateway = scene.spawn_gateway(&flags).await;
    testkit::eventually("the gateway serves", crate::helpers::PATIENCE, async || {
        let answer = gateway.send("GET", "/api/openapi.json", &[BEARER], b"").await.status;
        // From its first moment on; and a probe has no token.
        assert_eq!(gateway.get("/keys_list").await.status, 401);
        let ready = gateway.get("/readyz").await;
        assert!([200, 503].contains(&ready.status));
        assert!(!ready.text().contains("memcache-1"), "{}", ready.text());
        answer == 200
    })
    .await;
    assert!(gateway.send("GET", "/readyz", &[BEARER], b"").await.text().contains("memcache-1"));
    assert_eq!(gateway.send("GET", "/readyz", &[("Authorization", "Bearer no")], b"").await.status, 401);
    let cat = samples::chelsea().bytes;
    let put = gateway.send("PUT", "/images/cat", &[BEARER], cat).await;
    let version = put.json()["sha256"].as_str().unwrap().to_owned();
    for route in routes(&gateway).await {
        for method in METHODS {
            let answer = ask(&gateway, method, &route, &[]).await;
            let is_open = ["/healthz", "/readyz", "/static/{*path}", "/favicon.ico"].contains(&&*route.route)
                && matches!(method, "GET" | "HEAD");
            assert_eq!(answer.status == 401, !is_open, "{method} {}", route.route);
            assert!(answer.header("cache-control").starts_with("private"), "{method} {}", route.route);
        }
    }
    for (path, cache_control) in [
        ("/images/cat".to_owned(), "private, max-age=60"),
        (format!("/images/cat?v={version}"), "private, max-age=31536000, immutable"),
        ("/keys_list".to_owned(), "private, no-cache"),
        ("/api/images".to_owned(), "private"),
    ] {
        let answer = gateway.send("GET", &path, &[LOGIN], b"").await;
        assert_eq!(answer.status, 200, "{path}");
        assert_eq!(answer.header("cache-control"), cache_control, "{path}");
        assert_eq!(answer.header("cross-origin-resource-policy"), "same-origin", "{path}");
    }
    gateway.stop().await.unwrap();
}

#[test]
fn the_process_listens_to_nobody_else_without_a_token() {
    let port = free_port();
    let start = |host: &str, more: &[(&str, &str)]| {
        Command::new(env!("CARGO_BIN_EXE_gateway"))
            .env_clear()
            .env("HOST", host)
            .env("PORT", port.to_string())
            .env("GATEWAY_DATABASE_URL", "mysql://nobody:nothing@127.0.0.1:1/none")
            .env("NATS_GATEWAY_PASSWORD", "nothing")
            .envs(more.iter().copied())
            .stdin(Stdio::null())
            .output()
            .unwrap()
    };
    let taken = std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
    for (code, host, more, words) in [
        (2, "0.0.0.0", &[][..], "ADMIN_TOKEN must be set"),
        (2, "::", &[("ADMIN_TOKEN", "")][..], "ADMIN_TOKEN must be set"),
        (2, "0.0.0.0", &[("ADMIN_TOKEN", "secret")][..], "at least 16"),
        (2, "127.0.0.1", &[("PRIVATE", "1")][..], "PRIVATE is set"),
        // With all that is needed it gets as far as the port, which is taken.
        (1, "127.0.0.1", &[("ADMIN_TOKEN", TOKEN), ("PRIVATE", "1")][..], "can't listen on"),
        (1, "127.0.0.1", &[("ADMIN_TOKEN", ""), ("PRIVATE", "")][..], "can't listen on"),
    ] {
        let output = start(host, more);
        let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{host} {more:?}: {said}");
        assert!(said.contains(words), "{host} {more:?}: {said}");
        assert!(!said.contains("secret") && !said.contains(TOKEN), "{said}");
    }
    drop(taken);
    let help =
        Command::new(env!("CARGO_BIN_EXE_gateway")).arg("--help").env("ADMIN_TOKEN", TOKEN).output().unwrap();
    assert!(!String::from_utf8_lossy(&help.stdout).contains(TOKEN));
}
