//! Fills and hits by files that are shared on one machine.

use std::fs;
use std::os::unix::fs::symlink;

use bytes::Bytes;
use runtime::bus::{Reply, RequestFailure};
use runtime::shelf::Shelf;
use tempfile::TempDir;
use testkit::samples;
use wire::reply::Code;
use wire::shelf::{FileName, Folder};
use wire::{Meta, subject};

use crate::helpers::{Got, RunningWorker, Scene, code, key, tag_of};

/// A worker, and the files of a gateway on its machine.
async fn sharing() -> (Scene, RunningWorker, TempDir, Shelf) {
    let root = tempfile::Builder::new().prefix("pixcache-test-").tempdir_in("/dev/shm").unwrap();
    let scene = Scene::new().await;
    let worker = scene.start_worker(&["--shared-dir", root.path().to_str().unwrap()]).await;
    let shelf = Shelf::open(root.path()).unwrap();
    (scene, worker, root, shelf)
}

async fn put_file(scene: &Scene, name: &str, file: FileName, size: u64) -> Result<Reply, RequestFailure> {
    let meta = Meta { file: Some(file), size: Some(size), ..Meta::default() };
    scene.ask(&subject::put(&key(name).into()), Bytes::new(), Some(&meta)).await
}

/// The reply to a gateway that reads the files of this folder.
async fn get_file(scene: &Scene, name: &str, shelf: Folder) -> Reply {
    let meta = Meta { shelf: Some(shelf), ..Meta::default() };
    scene.ask(&subject::get(&key(name).into()), Bytes::new(), Some(&meta)).await.unwrap()
}

/// The folder that the worker tells a gateway which names none.
async fn folder_of_worker(scene: &Scene, name: &str) -> Folder {
    let Got::Hit(reply) = scene.get(name).await else { panic!("{name} is resident") };
    reply.meta.shelf.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_copied_and_read_by_who_can_and_sent_to_others() {
    let (scene, worker, root, shelf) = sharing().await;
    let image = samples::coffee().bytes;
    let (lease, file) = (scene.lease("cat").await, shelf.write(image).unwrap());
    let fill = Meta {
        content_type: Some("image/png".into()),
        tag: Some(tag_of(image)),
        lease: Some(lease),
        file: Some(file.name()),
        size: Some(file.size()),
        ..Meta::default()
    };
    scene.ask(&subject::put(&key("cat").into()), Bytes::new(), Some(&fill)).await.unwrap();
    let path = |name: FileName| root.path().join(name.folder.to_string()).join(format!("{:x}", name.number));
    // The gateway may do with its file what it likes.
    fs::remove_file(path(file.name())).unwrap();
    fs::write(path(file.name()), "something else").unwrap();
    drop(file);

    let folder = folder_of_worker(&scene, "cat").await;
    assert_ne!(folder, shelf.own());
    let reply = get_file(&scene, "cat", folder).await;
    let (name, size) = (reply.meta.file.unwrap(), reply.meta.size.unwrap());
    assert!(reply.payload.is_empty() && reply.meta.tag == Some(tag_of(image)));
    assert!(shelf.read(name, size).unwrap() == image);
    // Whoever names another folder, or none, gets the bytes: as the CLI does.
    for other in [shelf.own(), Folder(7)] {
        let reply = get_file(&scene, "cat", other).await;
        assert!(reply.meta.file.is_none() && reply.payload == image);
    }
    // An image that came over the bus is no file.
    scene.put("dog", samples::chelsea().bytes).await.unwrap();
    assert!(get_file(&scene, "dog", folder).await.payload == samples::chelsea().bytes);

    // With the entry its file goes, if not at once.
    scene.ask(&subject::invalidate(&key("cat")), Bytes::new(), None).await.unwrap();
    testkit::eventually("the file is gone", crate::helpers::PATIENCE, async || !path(name).exists()).await;
    worker.stop().await.unwrap();
    let left = fs::read_dir(root.path()).unwrap().flatten().filter(|entry| entry.path().is_dir());
    assert_eq!(left.count(), 1, "that of the gateway");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_not_what_the_fill_says_is_refused_and_changes_nothing() {
    let (scene, worker, root, shelf) = sharing().await;
    let image = samples::coffee().bytes;
    let size = image.len() as u64;
    let file = shelf.write(image).unwrap();
    let folder = root.path().join(shelf.own().to_string());
    let missing = FileName { number: 99, ..file.name() };
    symlink("/etc/passwd", folder.join("a0")).unwrap();
    let link = FileName { number: 0xa0, ..file.name() };
    let made = std::process::Command::new("mkfifo").arg(folder.join("a1")).status().unwrap();
    assert!(made.success());
    let pipe = FileName { number: 0xa1, ..file.name() };
    // A folder that leads elsewhere.
    let away = Folder(0xabcd);
    fs::create_dir(root.path().join("elsewhere")).unwrap();
    fs::write(root.path().join("elsewhere/1"), image).unwrap();
    symlink(root.path().join("elsewhere"), root.path().join(away.to_string())).unwrap();
    let elsewhere = FileName { folder: away, number: 1 };
    for (name, said) in [
        (missing, size),
        (link, fs::metadata("/etc/passwd").unwrap().len()),
        (pipe, size),
        (elsewhere, size),
        (file.name(), size - 1),
        (file.name(), size + 1),
        (file.name(), 0),
    ] {
        assert_eq!(code(put_file(&scene, "cat", name, said).await), Code::NotFound, "{name} {said}");
    }
    assert_eq!(code(put_file(&scene, "cat", file.name(), 1 << 40).await), Code::TooLarge);
    let text = shelf.write(&[b'x'; 100_000]).unwrap();
    assert_eq!(code(put_file(&scene, "cat", text.name(), 100_000).await), Code::UnsupportedType);
    let cut = shelf.write(&image[..100]).unwrap();
    assert_eq!(code(put_file(&scene, "cat", cut.name(), 100).await), Code::Unprocessable);
    let lie = Meta { file: Some(file.name()), size: Some(size), tag: Some(tag_of(b"x")), ..Meta::default() };
    let told = scene.ask(&subject::put(&key("cat").into()), Bytes::new(), Some(&lie)).await;
    assert_eq!(code(told), Code::Unprocessable);
    let counters = scene.stats().await.unwrap();
    assert_eq!((counters.key_count, counters.counters.put_count), (0, 0));
    assert!(put_file(&scene, "cat", file.name(), size).await.is_ok());
    worker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn without_shared_files_a_fill_by_a_file_is_told_to_come_by_the_bus() {
    let (scene, shelf_root) = (Scene::new().await, tempfile::tempdir_in("/dev/shm").unwrap());
    let worker = scene.start_worker(&["--shared-dir", "off"]).await;
    let shelf = Shelf::open(shelf_root.path()).unwrap();
    let file = shelf.write(samples::coffee().bytes).unwrap();
    assert_eq!(code(put_file(&scene, "cat", file.name(), file.size()).await), Code::NotFound);
    scene.put("cat", samples::coffee().bytes).await.unwrap();
    let Got::Hit(reply) = scene.get("cat").await else { panic!("it is resident") };
    assert_eq!(reply.meta.shelf, None);
    worker.stop().await.unwrap();
}
