//! Large images in files that worker and gateways on one machine share: the bytes are right, none stays longer than its
//! entry, and without the files everything goes over the bus.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use testkit::{eventually, samples};

use crate::helpers::{Gateway, PATIENCE, Scene, Worker};

/// A folder on a tmpfs.
fn folder() -> TempDir {
    tempfile::Builder::new().prefix("pixcache-test-").tempdir_in("/dev/shm").unwrap()
}

/// All image files in the folder, those of the worker and of gateways.
fn files(root: &Path) -> HashSet<PathBuf> {
    let folders =
        fs::read_dir(root).unwrap().flatten().map(|entry| entry.path()).filter(|path| path.is_dir());
    let entries = folders.flat_map(|folder| fs::read_dir(folder).into_iter().flatten().flatten());
    entries
        .map(|entry| entry.path())
        .filter(|path| path.file_name().is_some_and(|name| name != "lock"))
        .collect()
}

/// A worker and a gateway without copies of its own that share the folder.
async fn sharing(root: &Path) -> (Scene, Worker, Gateway) {
    let scene = Scene::new().await;
    let shared = root.to_str().unwrap();
    let worker = scene.start_worker_with(scene.nats.port(), &[("SHARED_DIR", shared)]).await;
    let gateway = scene.start_gateway(&["--shared-dir", shared, "--near-cache-mb", "0"]).await;
    // The first miss tells the gateway of the worker's folder.
    assert_eq!(gateway.get("/images/none").await.failure(), 404);
    (scene, worker, gateway)
}

async fn assert_read(gateway: &Gateway, path: &str, cache: &str, bytes: &[u8]) {
    let answer = gateway.get(path).await;
    assert_eq!((answer.status, answer.cache()), (200, cache));
    assert!(answer.body == bytes && answer.complete);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_image_is_filled_and_read_by_a_file_that_goes_with_its_entry() {
    let root = folder();
    let (_scene, worker, gateway) = sharing(root.path()).await;
    let (first, second) = (samples::coffee().bytes, samples::astronaut().bytes);
    assert_eq!(gateway.put("/images/cat", first).await.status, 201);
    assert_read(&gateway, "/images/cat", "fwd=miss; detail=filling", first).await;
    gateway.fills_end().await;
    assert_eq!(files(root.path()).len(), 1, "one copy, the worker's");
    for _ in 0..3 {
        assert_read(&gateway, "/images/cat", "hit", first).await;
    }
    assert_eq!(gateway.put("/images/cat", second).await.status, 200);
    assert_read(&gateway, "/images/cat", "fwd=miss; detail=filling", second).await;
    assert_read(&gateway, "/images/cat", "hit", second).await;
    // The file of the first one stays a moment longer, for a gateway that has just been told of it.
    eventually("the replaced one is gone", PATIENCE, async || {
        assert_read(&gateway, "/images/cat", "hit", second).await;
        files(root.path()).len() == 1
    })
    .await;
    assert_eq!(gateway.delete("/images/cat").await.status, 204);
    assert_eq!(gateway.get("/images/cat").await.failure(), 404);
    gateway.stop().await.unwrap();
    worker.stop();
    let left: Vec<_> = fs::read_dir(root.path()).unwrap().flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(left, ["lock"], "each takes its folder along");
}

fn remove(file: &PathBuf) {
    fs::remove_file(file).unwrap();
}

fn cut(file: &PathBuf) {
    fs::set_permissions(file, fs::Permissions::from_mode(0o640)).unwrap();
    fs::File::options().write(true).open(file).unwrap().set_len(1000).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_somebody_removed_or_cut_is_never_served() {
    let root = folder();
    let (scene, _worker, gateway) = sharing(root.path()).await;
    let bytes = samples::coffee().bytes;
    assert_eq!(gateway.put("/images/cat", bytes).await.status, 201);
    assert_read(&gateway, "/images/cat", "fwd=miss; detail=filling", bytes).await;
    gateway.fills_end().await;
    for (number, spoil) in [remove, cut].into_iter().enumerate() {
        files(root.path()).iter().for_each(spoil);
        // The worker finds the entry without its bytes, and takes a fill.
        assert_read(&gateway, "/images/cat", "fwd=miss; detail=filling", bytes).await;
        assert_read(&gateway, "/images/cat", "hit", bytes).await;
        // A hit, whose file was not there, counts once.
        let counters = scene.cache_stats().await.unwrap().counters;
        let gets = 4 + 2 * number as u64;
        assert_eq!((counters.request_count, counters.hit_count), (gets, gets - 2));
    }
    gateway.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_files_of_the_other_cannot_be_read_the_bus_carries_the_bytes() {
    let root = folder();
    let other = folder();
    let scene = Scene::new().await;
    let settings = [("SHARED_DIR", root.path().to_str().unwrap())];
    let worker = scene.start_worker_with(scene.nats.port(), &settings).await;
    let bytes = samples::coffee().bytes;
    // Another folder, none, one that can't be used.
    let open = other.path().join("open");
    fs::create_dir(&open).unwrap();
    fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).unwrap();
    for (number, shared) in [other.path(), Path::new("off"), &open].into_iter().enumerate() {
        let gateway =
            scene.start_gateway(&["--shared-dir", shared.to_str().unwrap(), "--near-cache-mb", "0"]).await;
        let path = format!("/images/{number}");
        assert_eq!(gateway.put(&path, bytes).await.status, 201);
        assert_read(&gateway, &path, "fwd=miss; detail=filling", bytes).await;
        assert_read(&gateway, &path, "hit", bytes).await;
        gateway.stop().await.unwrap();
    }
    assert!(files(root.path()).is_empty());
    // An image that one gateway fills by a file is read by another over the bus.
    let near = scene.start_gateway(&["--shared-dir", settings[0].1, "--near-cache-mb", "0"]).await;
    let far = scene.start_gateway(&["--near-cache-mb", "0", "--shared-dir", "off"]).await;
    assert_eq!(near.get("/images/none").await.failure(), 404);
    assert_eq!(near.put("/images/cat", bytes).await.status, 201);
    assert_read(&near, "/images/cat", "fwd=miss; detail=filling", bytes).await;
    near.fills_end().await;
    assert_eq!(files(root.path()).len(), 1);
    assert_read(&far, "/images/cat", "hit", bytes).await;
    near.stop().await.unwrap();
    far.stop().await.unwrap();
    worker.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_starts_anew_is_not_asked_for_the_files_of_the_one_before() {
    let root = folder();
    let (scene, worker, gateway) = sharing(root.path()).await;
    let bytes = samples::coffee().bytes;
    assert_eq!(gateway.put("/images/cat", bytes).await.status, 201);
    assert_read(&gateway, "/images/cat", "fwd=miss; detail=filling", bytes).await;
    gateway.fills_end().await;
    drop(worker);
    assert_eq!(files(root.path()).len(), 1, "it was killed");
    let settings = [("SHARED_DIR", root.path().to_str().unwrap())];
    let worker = scene.start_worker_with(scene.nats.port(), &settings).await;
    assert!(files(root.path()).is_empty(), "the next one removes what it left");
    assert_read(&gateway, "/images/cat", "fwd=miss; detail=filling", bytes).await;
    assert_read(&gateway, "/images/cat", "hit", bytes).await;
    gateway.stop().await.unwrap();
    worker.stop();
}
