//! What those see who run the gateway.

use testkit::samples;

use crate::helpers::{Scene, WITHOUT_COPIES};

#[tokio::test(flavor = "multi_thread")]
async fn one_scrape_covers_the_system() {
    let (scene, _worker, gateway) = Scene::running_with(&WITHOUT_COPIES).await;
    gateway.put("/images/cat", samples::chelsea().bytes).await;
    gateway.get("/images/cat").await;
    gateway.get("/images/cat").await;
    gateway.get("/images/dog").await;
    scene.nothing_is_pending().await;
    let scrape = gateway.get("/metrics").await;
    assert!(scrape.header("content-type").starts_with("text/plain"));
    for (metric, value) in [
        ("pixcache_http_requests_total{method=\"GET\",route=\"/images/{*key}\",status=\"200\"}", 2.0),
        ("pixcache_http_requests_total{method=\"GET\",route=\"/images/{*key}\",status=\"404\"}", 1.0),
        ("pixcache_http_requests_total{method=\"PUT\",route=\"/images/{*key}\",status=\"201\"}", 1.0),
        ("pixcache_reads_total{cache_status=\"hit\"}", 1.0),
        ("pixcache_reads_total{cache_status=\"filling\"}", 1.0),
        ("pixcache_reads_total{cache_status=\"miss\"}", 1.0),
        ("pixcache_uploads_total", 1.0),
        ("pixcache_upload_bytes_total", samples::chelsea().bytes.len() as f64),
        ("pixcache_cache_requests_total{worker=\"memcache-1\"}", 3.0),
        ("pixcache_cache_misses_total{worker=\"memcache-1\"}", 2.0),
        ("pixcache_cache_keys{worker=\"memcache-1\"}", 1.0),
        ("pixcache_part_up{part=\"nats\"}", 1.0),
        ("pixcache_part_up{part=\"recorder\"}", 0.0),
        ("pixcache_pending_invalidations", 0.0),
    ] {
        assert_eq!(gateway.metric(metric).await, value, "{metric}");
    }
    gateway.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_document_names_every_route_and_every_status_that_is_answered() {
    let (_scene, _worker, gateway) = Scene::running().await;
    let document = gateway.get("/api/openapi.json").await.json();
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
    gateway.put("/images/cat", samples::chelsea().bytes).await;
    for (method, path, template) in [
        ("GET", "/images/cat", "/images/{key}"),
        ("PUT", "/images/dog", "/images/{key}"),
        ("DELETE", "/images/nobody", "/images/{key}"),
        ("GET", "/api/images", "/api/images"),
        ("GET", "/api/images/nobody", "/api/images/{key}"),
        ("POST", "/api/upload", "/api/upload"),
        ("POST", "/api/list_keys", "/api/list_keys"),
        ("POST", "/api/key/cat", "/api/key/{key}"),
        ("GET", "/api/cache", "/api/cache"),
        ("PUT", "/api/cache", "/api/cache"),
        ("POST", "/api/cache/clear", "/api/cache/clear"),
        ("GET", "/api/stats", "/api/stats"),
        ("GET", "/events/keys", "/events/keys"),
        ("GET", "/events/stats", "/events/stats"),
        ("GET", "/healthz", "/healthz"),
        ("GET", "/readyz", "/readyz"),
        ("GET", "/metrics", "/metrics"),
        ("GET", "/api/openapi.json", "/api/openapi.json"),
        ("POST", "/api/delete_all", "/api/delete_all"),
    ] {
        let answer = gateway.send(method, path, &[], b"").await;
        let operation = &document["paths"][template][method.to_lowercase()];
        let described = &operation["responses"][answer.status.to_string()];
        assert!(described.is_object(), "{method} {template} answers {}", answer.status);
    }
    gateway.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_has_the_headers_that_keep_browsers_safe() {
    let (_scene, _worker, gateway) = Scene::running().await;
    for path in ["/healthz", "/metrics", "/api/cache", "/images/nobody", "/nothing", "/api/nothing"] {
        let answer = gateway.get(path).await;
        assert_eq!(answer.header("x-content-type-options"), "nosniff", "{path}");
        // Within this gateway, pages say where a form comes from; nobody else learns of it.
        let expected = if path == "/nothing" { "same-origin" } else { "no-referrer" };
        assert_eq!(answer.header("referrer-policy"), expected, "{path}");
        let policy = answer.header("content-security-policy");
        assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{path}: {policy}");
    }
    gateway.stop().await.unwrap();
}
