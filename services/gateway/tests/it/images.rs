//! `/images/{key}` for `<img>` and for programs.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;
use testkit::{costly, eventually, samples};
use tokio::time::timeout;

use crate::helpers::{Gateway, PATIENCE, Scene, WITHOUT_COPIES};

#[tokio::test(flavor = "multi_thread")]
async fn an_image_comes_back_byte_for_byte_first_from_the_origin_then_from_the_cache() {
    let (scene, _worker, gateway) = Scene::running_with(&WITHOUT_COPIES).await;
    for image in samples::all() {
        let path = format!("/images/{}", image.name);
        let stored = gateway.put(&path, image.bytes).await;
        assert_eq!((stored.status, stored.header("location")), (201, &*path));
        for (expected, timing) in [("fwd=miss; detail=filling", "origin;dur="), ("hit", "cache;dur=")] {
            let answer = gateway.get(&path).await;
            assert_eq!((answer.status, answer.cache()), (200, expected), "{}", image.name);
            assert!(answer.header("server-timing").contains(timing));
            assert!(answer.body == image.bytes && answer.complete);
            assert_eq!(answer.header("content-type"), image.content_type);
            assert_eq!(answer.header("etag"), stored.header("etag"));
            assert_eq!(answer.header("cache-control"), "no-cache");
            assert_eq!(answer.header("accept-ranges"), "bytes");
            assert_eq!(answer.header("content-security-policy"), "default-src 'none'; sandbox");
            assert_eq!(answer.header("x-content-type-options"), "nosniff");
            assert_eq!(answer.header("referrer-policy"), "no-referrer");
            assert!(answer.header("last-modified").ends_with(" GMT"));
        }
        let info = gateway.get(&format!("/api/images/{}", image.name)).await.json();
        assert_eq!((&info["width"], &info["height"]), (&json!(image.width), &json!(image.height)));
        assert_eq!(info["size"], json!(image.bytes.len()));
        assert_eq!(format!("\"{}\"", info["sha256"].as_str().unwrap()), stored.header("etag"));
        assert_eq!(info, stored.json());
    }
    let stats = scene.cache_stats().await.unwrap();
    assert_eq!(
        (stats.counters.request_count, stats.counters.hit_count, stats.counters.fill_count),
        (14, 7, 7)
    );
    assert_eq!(gateway.metric("pixcache_reads_total{cache_status=\"hit\"}").await, 7.0);
    assert_eq!(gateway.metric("pixcache_reads_total{cache_status=\"filling\"}").await, 7.0);
    assert_eq!(gateway.metric("pixcache_cache_hits_total{worker=\"memcache-1\"}").await, 7.0);
    gateway.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replaced_image_is_the_new_one_at_once() {
    let (scene, _worker, gateway) = Scene::running().await;
    let (old, new) = (samples::chelsea().bytes, samples::coffee().bytes);
    let first = gateway.put("/images/cat", old).await;
    gateway.get("/images/cat").await;
    assert!(gateway.get("/images/cat").await.is_hit());
    let second = gateway.put("/images/cat", new).await;
    assert_eq!((first.status, second.status), (201, 200));
    let answer = gateway.get("/images/cat").await;
    assert_eq!(answer.cache(), "fwd=miss; detail=filling");
    assert!(answer.body == new);
    assert_ne!(first.header("etag"), second.header("etag"));

    // The same bytes again are another upload, and another moment.
    let before = gateway.get("/api/images/cat").await.json();
    gateway.put("/images/cat", new).await;
    let after = gateway.get("/api/images/cat").await.json();
    assert_eq!(before["created_at"], after["created_at"]);
    assert!(before["updated_at"].as_str() < after["updated_at"].as_str());
    assert_eq!(before["sha256"], after["sha256"]);
    testkit::eventually("replaced files are gone", crate::helpers::PATIENCE, async || {
        scene.file_count() == 1
    })
    .await;

    assert_eq!(gateway.delete("/images/cat").await.status, 204);
    let gone = gateway.get("/images/cat").await;
    assert_eq!((gone.failure(), gone.cache()), (404, "fwd=miss"));
    assert_eq!(gateway.delete("/images/cat").await.failure(), 404);
    testkit::eventually("the file is gone", crate::helpers::PATIENCE, async || scene.file_count() == 0).await;
    scene.nothing_is_pending().await;
    gateway.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn conditional_requests_and_ranges_are_honoured_by_cache_and_origin_alike() {
    let (scene, _worker, gateway) = Scene::running().await;
    let bytes = samples::retina().bytes;
    let etag = gateway.put("/images/eye", bytes).await.header("etag").to_owned();
    let modified = gateway.get("/images/eye").await.header("last-modified").to_owned();
    // By then its date is two seconds old.
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    let size = bytes.len();
    let other = format!("\"{}\"", "0".repeat(64));
    for policy in [r#"{"policy":"lru"}"#, r#"{"policy":"none"}"#] {
        scene.configure(policy).await;
        gateway.get("/images/eye").await;
        let ask = async |headers: &[(&str, &str)]| gateway.send("GET", "/images/eye", headers, b"").await;

        for headers in [("If-None-Match", &*etag), ("If-None-Match", "*"), ("If-Modified-Since", &*modified)]
        {
            let answer = ask(&[headers]).await;
            assert_eq!((answer.status, answer.body.len()), (304, 0), "{headers:?} {policy}");
            assert_eq!(answer.header("etag"), etag);
            assert_eq!(answer.header("cache-control"), "no-cache");
        }
        let answer = ask(&[("If-None-Match", &other), ("If-Modified-Since", &modified)]).await;
        assert_eq!(answer.status, 200);
        assert_eq!(ask(&[("If-Match", &other)]).await.failure(), 412);
        assert_eq!(ask(&[("If-Match", &etag)]).await.status, 200);

        for (range, from, to) in
            [("bytes=0-0", 0, 1), ("bytes=1000-1999", 1000, 2000), ("bytes=-5", size - 5, size)]
        {
            let answer = ask(&[("Range", range)]).await;
            assert_eq!(answer.status, 206, "{range} {policy}");
            assert_eq!(answer.header("content-range"), format!("bytes {from}-{}/{size}", to - 1));
            assert!(answer.body == bytes[from..to] && answer.complete, "{range} {policy}");
        }
        let beyond = ask(&[("Range", "bytes=99999999-")]).await;
        assert_eq!(beyond.failure(), 416);
        assert_eq!(beyond.header("content-range"), format!("bytes */{size}"));
        assert_eq!(ask(&[("Range", "bytes=0-1,5-6")]).await.status, 200);
        assert_eq!(ask(&[("Range", "bytes=0-9"), ("If-Range", &etag)]).await.status, 206);
        assert_eq!(ask(&[("Range", "bytes=0-9"), ("If-Range", &other)]).await.status, 200);

        let head = gateway.send("HEAD", "/images/eye", &[("Range", "bytes=0-9")], b"").await;
        assert_eq!((head.status, head.body.len()), (200, 0));
        assert_eq!(head.header("content-length"), size.to_string());
        assert_eq!(head.header("etag"), etag);
        assert!(head.complete);
    }
    gateway.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_obey_their_conditions_and_change_nothing_otherwise() {
    let (scene, _worker, gateway) = Scene::running().await;
    let (one, two) = (samples::chelsea().bytes, samples::coffee().bytes);
    let put = async |headers: &[(&str, &str)], bytes: &[u8]| {
        gateway.send("PUT", "/images/cat", headers, bytes).await
    };
    assert_eq!(put(&[("If-Match", "*")], one).await.failure(), 412);
    assert_eq!(gateway.get("/images/cat").await.status, 404);
    let first = put(&[("If-None-Match", "*")], one).await;
    assert_eq!(first.status, 201);
    assert_eq!(put(&[("If-None-Match", "*")], two).await.failure(), 412);
    let etag = first.header("etag");
    let other = format!("\"{}\"", "0".repeat(64));
    assert_eq!(put(&[("If-Match", &other)], two).await.failure(), 412);
    assert_eq!(put(&[("If-Match", "no quotes")], two).await.failure(), 400);
    assert!(gateway.get("/images/cat").await.body == one);
    assert_eq!(put(&[("If-Match", etag)], two).await.status, 200);
    assert!(gateway.get("/images/cat").await.body == two);
    let delete = async |etag: &str| gateway.send("DELETE", "/images/cat", &[("If-Match", etag)], b"").await;
    assert_eq!(delete(etag).await.failure(), 412);
    let current = gateway.get("/images/cat").await.header("etag").to_owned();
    assert_eq!(delete(&current).await.status, 204);
    testkit::eventually("refused uploads leave no file", crate::helpers::PATIENCE, async || {
        scene.file_count() == 0
    })
    .await;
    scene.nothing_is_pending().await;

    // Of many who want to be first, one is.
    let racing = (0..8).map(|_| put(&[("If-None-Match", "*")], one));
    let statuses: Vec<u16> =
        futures_util::future::join_all(racing).await.iter().map(|answer| answer.status).collect();
    assert_eq!(statuses.iter().filter(|status| **status == 201).count(), 1, "{statuses:?}");
    assert_eq!(statuses.iter().filter(|status| **status == 412).count(), 7, "{statuses:?}");
    gateway.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_with_the_hash_is_immutable_only_if_the_bytes_have_it() {
    let (scene, _worker, gateway) = Scene::running().await;
    gateway.put("/images/cat", samples::chelsea().bytes).await;
    let url = gateway.get("/api/images/cat").await.json()["url"].as_str().unwrap().to_owned();
    assert!(gateway.get(&url).await.header("cache-control").contains("immutable"));
    gateway.put("/images/cat", samples::coffee().bytes).await;
    for _ in 0..2 {
        let answer = gateway.get(&url).await;
        assert_eq!((answer.status, answer.header("cache-control")), (200, "no-cache"));
    }
    let other = scene.start_gateway(&["--image-cache-control", "public, max-age=60"]).await;
    let current = other.get("/api/images/cat").await.json()["url"].as_str().unwrap().to_owned();
    assert!(other.get(&current).await.header("cache-control").contains("immutable"));
    assert_eq!(other.get("/images/cat").await.header("cache-control"), "public, max-age=60");
    other.stop().await.unwrap();
    gateway.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_look_like_paths_or_alike_are_keys() {
    let (_scene, _worker, gateway) = Scene::running().await;
    let image = samples::chelsea().bytes;
    let other = samples::coffee().bytes;
    for (path, key) in [
        ("/images/..%2F..%2Fetc%2Fpasswd", "../../etc/passwd"),
        ("/images/a/../b", "a/../b"),
        ("/images/a", "a"),
        ("/images/a/", "a/"),
        ("/images//a", "/a"),
        ("/images/Cat", "Cat"),
        ("/images/cat", "cat"),
        ("/images/c%C3%A4t", "cät"),
        ("/images/with%20space", "with space"),
        ("/images/100%25", "100%"),
        ("/images/%3Cscript%3E", "<script>"),
    ] {
        assert_eq!(gateway.get(path).await.failure(), 404, "{path} is taken");
        let stored = gateway.put(path, image).await;
        assert_eq!((stored.status, &stored.json()["key"]), (201, &json!(key)), "{path}");
        let url = stored.json()["url"].as_str().unwrap().to_owned();
        for path in [path, &url] {
            assert!(gateway.get(path).await.body == image, "{path}");
        }
    }
    assert_eq!(gateway.put("/images/CAT", other).await.status, 201);
    assert!(gateway.get("/images/cat").await.body == image);
    // Slashes encoded or not name the same key.
    assert_eq!(gateway.get("/images/a%2F").await.status, 200);
    assert_eq!(gateway.get("/images/a/%2E./b").await.status, 200);
    gateway.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_too_large_for_the_bus_comes_from_the_origin_and_is_counted() {
    let (scene, _worker, gateway) = Scene::running().await;
    // Bytes behind an image's end are part of the file all the same.
    let mut large = samples::rocket().bytes.to_vec();
    large.resize(12 << 20, 7);
    assert_eq!(gateway.put("/images/large", &large).await.status, 201);
    for round in 1..=2 {
        let answer = gateway.get("/images/large").await;
        assert_eq!((answer.status, answer.cache()), (200, "fwd=bypass; detail=too-large"));
        assert!(answer.body == large && answer.complete);
        let stats = scene.cache_stats().await.unwrap().counters;
        assert_eq!((stats.rejection_count, stats.miss_count, stats.fill_count), (round, round, 0));
    }
    let part = gateway.send("GET", "/images/large", &[("Range", "bytes=9000000-9000009")], b"").await;
    assert!(part.status == 206 && part.body == large[9_000_000..9_000_010]);
    assert_eq!(gateway.send("HEAD", "/images/large", &[], b"").await.header("content-length"), "12582912");
    let base64 = gateway.post("/api/key/large").await;
    assert!(base64.complete);
    assert_eq!(base64.json()["content"].as_str().unwrap().len(), (12 << 20) / 3 * 4);

    // One that the bus carries and a small cache doesn't hold.
    scene.configure(r#"{"capacity_mb":1}"#).await;
    let medium = &large[..3 << 20];
    gateway.put("/images/medium", medium).await;
    // The first answer does not wait until the worker refuses it, and later ones do.
    for expected in
        ["fwd=miss; detail=filling", "fwd=bypass; detail=too-large", "fwd=bypass; detail=too-large"]
    {
        let answer = gateway.get("/images/medium").await;
        assert_eq!(answer.cache(), expected);
        assert!(answer.body == medium);
        gateway.fills_end().await;
    }
    // And one of almost three megabytes that is cached.
    scene.configure(r#"{"capacity_mb":64}"#).await;
    assert_eq!(gateway.get("/images/medium").await.cache(), "fwd=miss; stored");
    let hit = gateway.get("/images/medium").await;
    assert!(hit.is_hit() && hit.body == medium);
    gateway.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn with_policy_none_every_read_is_a_miss() {
    let (scene, _worker, gateway) = Scene::running().await;
    scene.configure(r#"{"policy":"none"}"#).await;
    gateway.put("/images/cat", samples::chelsea().bytes).await;
    for _ in 0..3 {
        let answer = gateway.get("/images/cat").await;
        assert_eq!((answer.status, answer.cache()), (200, "fwd=miss"));
    }
    let stats = scene.cache_stats().await.unwrap().counters;
    assert_eq!((stats.request_count, stats.miss_count), (3, 3));
    gateway.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn each_of_many_reads_at_once_has_its_own_row_also_when_others_give_up() {
    let (_scene, _worker, gateway) = Scene::running().await;
    let images = samples::all();
    for image in &images {
        gateway.put(&format!("/images/{}", image.name), image.bytes).await;
    }
    let read = async |number: usize| {
        let image = images.get(number % (images.len() + 1));
        let path = format!("/api/images/{}", image.map_or("nothing", |image| image.name));
        if number.is_multiple_of(3) {
            // Gone at some point between the question and its answer.
            let patience = Duration::from_micros(100 * number as u64);
            let _ = timeout(patience, gateway.get(&path)).await;
            return;
        }
        let answer = gateway.get(&path).await;
        match image {
            Some(image) => {
                assert_eq!((answer.status, &answer.json()["size"]), (200, &json!(image.bytes.len())));
            }
            None => assert_eq!(answer.failure(), 404),
        }
    };
    for _ in 0..5 {
        join_all((0..150).map(read)).await;
    }
    gateway.stop().await.unwrap();
}

/// A photograph that a camera took upright.
fn turned_by_a_quarter() -> Vec<u8> {
    let exif = b"Exif\0\0MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0";
    costly::jpeg_with_segments(samples::rocket().bytes, 0xE1, exif, 1)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_size_of_an_image_is_that_at_which_it_is_shown_in_old_rows_too() {
    let (scene, _worker, gateway) = Scene::running().await;
    let (rocket, cat) = (samples::rocket(), samples::chelsea());
    let turned = (rocket.height, rocket.width);
    assert_eq!(gateway.put("/images/turned", &turned_by_a_quarter()).await.status, 201);
    assert_eq!(gateway.put("/images/rocket", rocket.bytes).await.status, 201);
    assert_eq!(gateway.put("/images/cat", cat.bytes).await.status, 201);
    // Cameras put other pictures between the Exif block and the header.
    let exif_end = 4 + usize::from(u16::from_be_bytes([turned_by_a_quarter()[4], turned_by_a_quarter()[5]]));
    let (head, rest) = (&turned_by_a_quarter()[..exif_end], &turned_by_a_quarter()[exif_end..]);
    let between = [b"\xFF\xE2\xFF\xFF", &[7; 65_533][..]].concat().repeat(6);
    assert_eq!(gateway.put("/images/far", &[head, &between, rest].concat()).await.status, 201);
    let size = async |gateway: &Gateway, key: &str| {
        let found = gateway.get(&format!("/api/images/{key}")).await.json();
        (found["width"].as_u64().unwrap() as u32, found["height"].as_u64().unwrap() as u32)
    };
    assert_eq!((size(&gateway, "turned").await, size(&gateway, "far").await), (turned, turned));
    assert_eq!(size(&gateway, "rocket").await, (rocket.width, rocket.height));
    gateway.stop().await.unwrap();

    // As a version wrote them that knew the sizes of the files only, and one whose file is gone.
    for statement in [
        "UPDATE images SET width = 640, height = 427 WHERE image_key IN ('turned', 'far')",
        "UPDATE images SET sized_location = NULL",
        "UPDATE images SET sized_location = 'aa/before' WHERE image_key = 'cat'",
        "INSERT INTO images SELECT 'gone', 'aa/gone', content_type, size, width, height, sha256, created_at, updated_at \
         FROM images WHERE image_key = 'rocket'",
    ] {
        sqlx::query(statement).execute(&scene.pool).await.unwrap();
    }
    let updated_at = async || -> Vec<String> {
        let question = "SELECT CAST(updated_at AS CHAR) FROM images ORDER BY image_key";
        sqlx::query_scalar(question).fetch_all(&scene.pool).await.unwrap()
    };
    let before = updated_at().await;
    let gateway = scene.start_gateway(&[]).await;
    eventually("all rows are up to date whose files are there", PATIENCE, async || {
        let question = "SELECT COUNT(*) FROM images WHERE NOT sized_location <=> location";
        sqlx::query_scalar::<_, i64>(question).fetch_one(&scene.pool).await.unwrap() == 1
    })
    .await;
    assert_eq!((size(&gateway, "turned").await, size(&gateway, "far").await), (turned, turned));
    assert_eq!(size(&gateway, "rocket").await, (rocket.width, rocket.height));
    assert_eq!(size(&gateway, "cat").await, (cat.width, cat.height));
    assert_eq!(size(&gateway, "gone").await, (rocket.width, rocket.height));
    assert_eq!(updated_at().await, before);
    gateway.stop().await.unwrap();
}
