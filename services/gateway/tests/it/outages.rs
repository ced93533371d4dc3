//! Parts of the system come late, go away and come back.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use futures_util::future::join_all;
use serde_json::json;
use testkit::database::{Account, MariaDb};
use testkit::{Database, NatsServer, eventually, samples};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::helpers::{PATIENCE, Scene, WITHOUT_COPIES};

#[tokio::test(flavor = "multi_thread")]
async fn it_answers_from_the_first_moment_and_serves_when_all_is_there() {
    let scene = Scene::with(Database::empty().await).await;
    scene.nats.stop().await;
    let gateway = scene.spawn_gateway(&[]).await;
    assert_eq!(gateway.get("/healthz").await.json()["status"], "ok");
    let ready = gateway.get("/readyz").await;
    assert_eq!(ready.status, 503);
    for part in ["nats", "memcache", "recorder", "mysql"] {
        assert_eq!(ready.json()["parts"][part]["ok"], false, "{part}");
    }
    let image = gateway.get("/images/cat").await;
    assert_eq!(image.failure(), 503);
    assert!(image.text().contains("waits for nats"), "{}", image.text());
    assert_eq!(gateway.post("/api/list_keys").await.failure(), 503);
    let page = gateway.get("/").await;
    assert_eq!(page.status, 503);
    assert!(page.header("content-type").starts_with("text/html"));

    scene.nats.start_again().await;
    eventually("NATS is found", PATIENCE, async || {
        gateway.get("/readyz").await.json()["parts"]["nats"]["ok"] == true
    })
    .await;
    assert_eq!(gateway.get("/images/cat").await.failure(), 503, "there are no tables yet");
    scene.database.migrate().await;
    gateway.serves().await;
    assert_eq!(gateway.put("/images/cat", samples::chelsea().bytes).await.status, 201);
    let ready = gateway.get("/readyz").await;
    assert_eq!(ready.status, 503);
    let parts = &ready.json()["parts"];
    assert_eq!((&parts["nats"]["ok"], &parts["mysql"]["ok"]), (&json!(true), &json!(true)));
    assert_eq!((&parts["memcache"]["ok"], &parts["recorder"]["ok"]), (&json!(false), &json!(false)));
    let _worker = scene.start_worker().await;
    assert_eq!(gateway.get("/readyz").await.json()["parts"]["memcache"]["ok"], true);
    gateway.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_nats_server_refuses_stands_on_readyz_and_images_are_served_all_the_same() {
    for right in ["cache.near.drop.*", "$JS.STORE.API.CONSUMER.INFO.CACHE_EVENTS.recorder_windows"] {
        let nats = NatsServer::start_without(&[right]).await;
        let scene = Scene::on(nats, Database::migrated().await).await;
        let _worker = scene.start_worker().await;
        let gateway = scene.start_gateway(&[]).await;
        assert_eq!(gateway.put("/images/cat", samples::chelsea().bytes).await.status, 201);
        // A page asks for all that the gateway may ask.
        gateway.get("/system").await;
        let ready = eventually("it is said", PATIENCE, async || {
            let ready = gateway.get("/readyz").await;
            (ready.json()["parts"]["nats"]["ok"] == false).then_some(ready)
        })
        .await;
        assert_eq!(ready.status, 503);
        let said = ready.json()["parts"]["nats"]["message"].to_string();
        assert!(said.contains("refuses gateway") && said.contains(right.trim_end_matches('*')), "{said}");
        assert!(gateway.get("/images/cat").await.body == samples::chelsea().bytes);
        gateway.stop().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_gives_up_on_what_does_not_come_and_says_what_that_is() {
    let scene = Scene::new().await;
    scene.nats.stop().await;
    let gateway = scene.spawn_gateway(&["--dependency-timeout-s", "1"]).await;
    let error = gateway.end().await.unwrap_err();
    assert!(format!("{error:#}").contains("NATS"), "{error:#}");
    scene.nats.start_again().await;

    let wrong = scene.database.url(Account::Gateway).replace("_gateway:", "_gateway:x");
    let gateway = scene.spawn_gateway(&["--dependency-timeout-s", "1", "--database-url", &wrong]).await;
    let error = format!("{:#}", gateway.end().await.unwrap_err());
    assert!(error.contains("MySQL") && error.contains("denied"), "{error}");

    let wrong = ["--dependency-timeout-s", "1", "--nats-password", "wrong"];
    let error = format!("{:#}", scene.spawn_gateway(&wrong).await.end().await.unwrap_err());
    assert!(error.contains("password"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn while_mysql_is_down_cached_images_are_served_and_the_rest_is_503() {
    let server = MariaDb::start().await;
    let database = server.database().await;
    database.migrate().await;
    let scene = Scene::with(database).await;
    let _worker = scene.start_worker().await;
    let gateway = scene.start_gateway(&[]).await;
    gateway.put("/images/cached", samples::chelsea().bytes).await;
    gateway.put("/images/uncached", samples::chelsea().bytes).await;
    gateway.get("/images/cached").await;
    server.stop().await;
    let hit = gateway.get("/images/cached").await;
    assert!(hit.status == 200 && hit.is_hit() && hit.body == samples::chelsea().bytes);
    let started = Instant::now();
    let refused = gateway.get("/images/uncached").await;
    assert_eq!(refused.failure(), 503);
    // The reason in a few words: those of the library and of the system are for the log.
    let said = refused.text();
    assert!(said.contains("MySQL can't be reached now: "), "{said}");
    assert!(!said.contains("os error") && !said.contains("error communicating"), "{said}");
    assert!(started.elapsed() < Duration::from_secs(8), "{:?}", started.elapsed());
    assert_eq!(gateway.put("/images/new", samples::chelsea().bytes).await.failure(), 503);
    assert_eq!(gateway.post("/api/list_keys").await.failure(), 503);
    let ready = gateway.get("/readyz").await;
    assert_eq!((ready.status, &ready.json()["parts"]["mysql"]["ok"]), (503, &json!(false)));
    assert_eq!(gateway.metric("pixcache_part_up{part=\"mysql\"}").await, 0.0);
    assert_eq!(gateway.metric("pixcache_part_up{part=\"memcache\"}").await, 1.0);
    server.start_again().await;
    eventually("it is served again", PATIENCE, async || gateway.get("/images/uncached").await.status == 200)
        .await;
    assert_eq!(gateway.put("/images/new", samples::chelsea().bytes).await.status, 201);

    // A database that stands still is no better than none.
    eventually("it is cached", PATIENCE, async || gateway.get("/images/cached").await.is_hit()).await;
    server.pause().await;
    let hit = gateway.get("/images/cached").await;
    assert_eq!((hit.status, hit.is_hit()), (200, true), "{} {}", hit.cache(), hit.text());
    let started = Instant::now();
    assert_eq!(gateway.get("/images/new").await.failure(), 503);
    assert!(started.elapsed() < Duration::from_secs(12), "{:?}", started.elapsed());
    server.resume().await;
    gateway.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_that_wait_for_mysql_leave_turns_to_hits_and_pages() {
    let server = MariaDb::start().await;
    let database = server.database().await;
    database.migrate().await;
    let scene = Scene::with(database).await;
    let _worker = scene.start_worker().await;
    let flags = [&["--max-requests", "20"], &WITHOUT_COPIES[..]].concat();
    let gateway = scene.start_gateway(&flags).await;
    for key in ["cached", "cold"] {
        gateway.put(&format!("/images/{key}"), samples::chelsea().bytes).await;
    }
    eventually("it is cached", PATIENCE, async || gateway.get("/images/cached").await.is_hit()).await;
    server.pause().await;
    let done = AtomicBool::new(false);
    let cold = async {
        let answers = join_all((0..60).map(|_| gateway.get("/images/cold"))).await;
        done.store(true, Ordering::SeqCst);
        answers
    };
    let honest = async {
        let mut hits = 0;
        // The sixty come at once, and are sorted out soon.
        eventually("a hit is served", PATIENCE, async || gateway.get("/images/cached").await.is_hit()).await;
        while !done.load(Ordering::SeqCst) {
            let hit = gateway.get("/images/cached").await;
            assert_eq!((hit.status, hit.is_hit()), (200, true), "{}", hit.text());
            hits += 1;
        }
        hits
    };
    let (answers, hits) = tokio::join!(cold, honest);
    assert!(hits > 0, "nobody waited for MySQL");
    assert!(answers.iter().all(|answer| answer.status == 503 && !answer.header("retry-after").is_empty()));
    server.resume().await;
    eventually("it is read again", PATIENCE, async || gateway.get("/images/cold").await.status == 200).await;
    gateway.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_cache_is_waited_for_when_the_origin_does_not_answer() {
    let server = MariaDb::start().await;
    let database = server.database().await;
    database.migrate().await;
    let scene = Scene::with(database).await;
    let _worker = scene.start_worker().await;
    let flags = [&["--cache-budget-ms", "20"], &WITHOUT_COPIES[..]].concat();
    let gateway = scene.start_gateway(&flags).await;
    gateway.put("/images/cached", samples::chelsea().bytes).await;
    eventually("it is cached", PATIENCE, async || gateway.get("/images/cached").await.is_hit()).await;
    server.stop().await;
    scene.nats.pause().await;
    let (hit, ()) = tokio::join!(gateway.get("/images/cached"), async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        scene.nats.resume().await;
    });
    assert_eq!((hit.status, hit.is_hit()), (200, true), "{} {}", hit.cache(), hit.text());
    assert!(hit.body == samples::chelsea().bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn while_nats_is_down_reads_come_from_the_origin_and_uploads_are_kept() {
    let (scene, _worker, gateway) = Scene::running_with(&WITHOUT_COPIES).await;
    let (old, new) = (samples::chelsea().bytes, samples::coffee().bytes);
    gateway.put("/images/cat", old).await;
    gateway.get("/images/cat").await;
    assert_eq!(gateway.get("/images/cat").await.cache(), "hit");
    scene.nats.kill().await;
    let answer = gateway.get("/images/cat").await;
    assert_eq!((answer.status, answer.cache()), (200, "fwd=bypass; detail=cache-unavailable"));
    let stored = gateway.put("/images/cat", new).await;
    assert_eq!(stored.failure(), 503);
    assert!(stored.text().contains("the image is stored"), "{}", stored.text());
    assert!(gateway.get("/images/cat").await.body == new);
    assert_eq!(scene.pending_count().await, 1);
    scene.nats.start_again().await;
    eventually("the cache is told", PATIENCE, async || scene.pending_count().await == 0).await;
    eventually("the new image is cached", PATIENCE, async || {
        let answer = gateway.get("/images/cat").await;
        assert!(answer.status != 200 || answer.cache() != "hit" || answer.body == new);
        answer.cache() == "hit"
    })
    .await;
    gateway.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_worker_uploads_succeed_when_it_is_sure_that_nobody_can_be_stale() {
    let scene = Scene::new().await;
    let short = [("CLAIM_MS", "1000")];
    let worker = scene.start_worker_with(scene.nats.port(), &short).await;
    let gateway = scene.start_gateway(&[]).await;
    gateway.put("/images/cat", samples::chelsea().bytes).await;
    gateway.get("/images/cat").await;
    drop(worker);
    eventually("the server has noticed", PATIENCE, async || {
        gateway.get("/images/cat").await.cache() == "fwd=bypass; detail=cache-unavailable"
    })
    .await;
    assert_eq!(gateway.put("/images/cat", samples::coffee().bytes).await.status, 200);
    scene.nothing_is_pending().await;
    let _worker = scene.start_worker().await;
    let answer = gateway.get("/images/cat").await;
    assert!(answer.cache() == "fwd=miss; detail=filling" && answer.body == samples::coffee().bytes);
    gateway.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_breaks_off_does_not_look_whole() {
    let server = MariaDb::start().await;
    let database = server.database().await;
    database.migrate().await;
    let scene = Scene::with(database).await;
    let gateway = scene.start_gateway(&[]).await;
    // 40 MB of keys: more than fits between the gateway and someone who does not read.
    sqlx::query(
        "INSERT INTO images SELECT CONCAT(LPAD(seq, 6, '0'), REPEAT('x', 240)), seq, 'image/png', 1, 1, 1, \
         REPEAT('x', 32), UTC_TIMESTAMP(6), UTC_TIMESTAMP(6) FROM seq_1_to_160000",
    )
    .execute(&scene.pool)
    .await
    .unwrap();
    let mut stream = TcpStream::connect(("127.0.0.1", gateway.port)).await.unwrap();
    let head =
        "POST /api/list_keys HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut beginning = [0; 4096];
    stream.read_exact(&mut beginning).await.unwrap();
    assert!(beginning.starts_with(b"HTTP/1.1 200 OK"));
    server.kill().await;
    let mut rest = Vec::new();
    // Either the connection is reset or it ends; it must not end as a whole body does.
    let _ = stream.read_to_end(&mut rest).await;
    assert!(rest.len() < 41_000_000 && !rest.ends_with(b"0\r\n\r\n"), "{}", rest.len());

    server.start_again().await;
    eventually("it is listed again", PATIENCE, async || gateway.post("/api/list_keys").await.status == 200)
        .await;
    let list = gateway.post("/api/list_keys").await;
    assert!(list.complete && list.json()["keys"].as_array().unwrap().len() == 160_000);
    gateway.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_no_row_names_are_swept_away_at_start() {
    let (scene, _worker, gateway) = Scene::running().await;
    gateway.put("/images/cat", samples::chelsea().bytes).await;
    gateway.get("/images/cat?w=160").await;
    gateway.stop().await.unwrap();
    let images = scene.folder.path().join("images");
    let name = "abcdef0123456789abcdef0123456789";
    let two_hours_ago = SystemTime::now() - Duration::from_secs(7200);
    let age = |path: &std::path::Path| {
        std::fs::File::options().write(true).open(path).unwrap().set_modified(two_hours_ago).unwrap();
    };
    std::fs::create_dir_all(images.join("ab")).unwrap();
    let old = ["", "#1", ".w160", ".w320#1", ".w320-3", ".w640-3#1"]
        .map(|ending| images.join("ab").join(format!("{name}{ending}")));
    let young = images.join("ab").join(format!("{name}#2"));
    let foreign = images.join("holiday.jpg");
    for path in old.iter().chain([&young, &foreign]) {
        std::fs::write(path, b"x").unwrap();
    }
    old.iter().chain([&foreign]).for_each(|path| age(path));
    let location: String =
        sqlx::query_scalar("SELECT location FROM images").fetch_one(&scene.pool).await.unwrap();
    let variant = images.join(format!("{location}.w160-3"));
    let outdated = images.join(format!("{location}.w160"));
    std::fs::write(&outdated, b"x").unwrap();
    age(&images.join(&location));
    age(&variant);
    age(&outdated);

    let gateway = scene.start_gateway(&[]).await;
    eventually("the old ones are gone", PATIENCE, async || old.iter().all(|path| !path.exists())).await;
    assert!(young.exists() && foreign.exists() && images.join(&location).exists() && variant.exists());
    assert!(!outdated.exists());
    assert_eq!(gateway.get("/images/cat").await.status, 200);
    gateway.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_finishes_what_is_in_flight_and_waits_for_nobody_idle() {
    let (_scene, _worker, gateway) = Scene::running().await;
    let port = gateway.port;
    let bytes = samples::rocket().bytes;
    // One connection is idle, one is in the middle of an upload.
    let _idle = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let mut busy = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let head =
        format!("PUT /images/cat HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n", bytes.len());
    busy.write_all(head.as_bytes()).await.unwrap();
    busy.write_all(&bytes[..1000]).await.unwrap();
    // An answer on another connection shows that the gateway has got this far.
    gateway.get("/healthz").await;
    let started = Instant::now();
    let stopping = tokio::spawn(gateway.stop());
    eventually("no connection is taken any more", PATIENCE, async || {
        TcpStream::connect(("127.0.0.1", port)).await.is_err()
    })
    .await;
    busy.write_all(&bytes[1000..]).await.unwrap();
    let mut answer = Vec::new();
    busy.read_to_end(&mut answer).await.unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 201"), "{}", String::from_utf8_lossy(&answer));
    stopping.await.unwrap().unwrap();
    assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_takes_no_writes_is_a_part_that_is_missing_and_serves_reads() {
    let server = MariaDb::start().await;
    let database = server.database().await;
    database.migrate().await;
    let scene = Scene::with(database).await;
    let _worker = scene.start_worker().await;
    let gateway = scene.start_gateway(&WITHOUT_COPIES).await;
    assert_eq!(gateway.put("/images/cat", samples::chelsea().bytes).await.status, 201);
    let mut administrator = scene.database.connect(Account::Admin).await;
    sqlx::raw_sql("SET GLOBAL read_only = 1").execute(&mut administrator).await.unwrap();
    for answer in [
        gateway.put("/images/cat", samples::coffee().bytes).await,
        gateway.put("/images/new", samples::coffee().bytes).await,
        gateway.delete("/images/cat").await,
        gateway.post("/api/delete_all").await,
    ] {
        assert_eq!(answer.failure(), 503, "{}", answer.text());
        assert!(answer.text().contains("read-only"), "{}", answer.text());
    }
    eventually("it is said", PATIENCE, async || {
        let mysql = gateway.get("/readyz").await.json()["parts"]["mysql"].clone();
        mysql["ok"] == false && mysql["message"].as_str().unwrap().contains("read-only")
    })
    .await;
    assert!(gateway.get("/images/cat").await.body == samples::chelsea().bytes);
    sqlx::raw_sql("SET GLOBAL read_only = 0").execute(&mut administrator).await.unwrap();
    assert_eq!(gateway.put("/images/cat", samples::coffee().bytes).await.status, 200);
    gateway.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_that_are_locked_keep_no_page_and_no_probe_waiting() {
    let (scene, _worker, gateway) = Scene::running_with(&WITHOUT_COPIES).await;
    gateway.put("/images/cold", samples::chelsea().bytes).await;
    let mut holder = scene.database.connect(Account::Admin).await;
    let lock =
        "LOCK TABLES images WRITE, pending_invalidations WRITE, deleted_dates WRITE, origin_identity WRITE";
    sqlx::raw_sql(lock).execute(&mut holder).await.unwrap();
    for (path, most) in [("/metrics", 4), ("/readyz", 3), ("/image?key=cold", 9), ("/system", 5), ("/", 5)] {
        let started = Instant::now();
        let answer = gateway.get(path).await;
        assert!(started.elapsed() < Duration::from_secs(most), "{path}: {:?}", started.elapsed());
        assert!([200, 503].contains(&answer.status), "{path}: {}", answer.status);
    }
    sqlx::raw_sql("UNLOCK TABLES").execute(&mut holder).await.unwrap();
    eventually("it is read", PATIENCE, async || gateway.get("/images/cold").await.status == 200).await;
    gateway.stop().await.unwrap();
}
