//! Uploads of every size and manner, and what they leave behind.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use sha2::{Digest as _, Sha256};
use testkit::{eventually, samples};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::helpers::{PATIENCE, Scene};
use crate::http::{self, Form};

const MEGABYTE: usize = 1 << 20;

/// A JPEG with bytes behind its end, as cameras append previews.
fn image_of(size: usize) -> Vec<u8> {
    let mut bytes = samples::rocket().bytes.to_vec();
    let filler = (bytes.len()..size).map(|at| (at % 251) as u8);
    bytes.extend(filler);
    bytes
}

fn chunked(bytes: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    for chunk in bytes.chunks(100_000) {
        body.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        body.extend_from_slice(chunk);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(b"0\r\n\r\n");
    body
}

#[tokio::test(flavor = "multi_thread")]
async fn images_up_to_the_limit_are_stored_and_larger_ones_are_refused_in_words() {
    let (scene, _worker, gateway) = Scene::running().await;
    let most = image_of(20 * MEGABYTE);
    assert_eq!(gateway.put("/images/most", &most).await.status, 201);
    assert!(gateway.get("/images/most").await.body == most);
    let form = Form::new().key("form").file(&most);
    assert_eq!(gateway.upload(form).await.status, 200);
    assert!(gateway.get("/images/form").await.body == most);

    let more = image_of(20 * MEGABYTE + 1);
    let answer = gateway.put("/images/more", &more).await;
    assert_eq!(answer.failure(), 413);
    assert!(answer.text().contains("20 MB"), "{}", answer.text());
    let framing = [("Transfer-Encoding", "chunked")];
    let answer = gateway.send("PUT", "/images/more", &framing, &chunked(&more)).await;
    assert_eq!(answer.failure(), 413);
    assert_eq!(gateway.upload(Form::new().key("more").file(&more)).await.failure(), 413);
    assert_eq!(gateway.upload(Form::new().key("more").file(&image_of(21 * MEGABYTE))).await.failure(), 413);
    let content_type = Form::content_type();
    let headers = [("Transfer-Encoding", "chunked"), ("Content-Type", &*content_type)];
    let form = chunked(&Form::new().key("more").file(&image_of(21 * MEGABYTE)).bytes());
    assert_eq!(gateway.send("POST", "/api/upload", &headers, &form).await.failure(), 413);
    assert_eq!(gateway.get("/images/more").await.status, 404);

    // Exactly the same image in chunks is stored.
    let answer = gateway.send("PUT", "/images/chunked", &framing, &chunked(&most)).await;
    assert_eq!(answer.status, 201);
    assert!(gateway.get("/images/chunked").await.body == most);
    eventually("refused uploads leave no file", PATIENCE, async || scene.file_count() == 3).await;
    gateway.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_breaks_off_leaves_nothing() {
    let (scene, _worker, gateway) = Scene::running().await;
    let bytes = image_of(6 * MEGABYTE);
    for sent in [10, 100_000, 3 * MEGABYTE] {
        let mut stream = TcpStream::connect(("127.0.0.1", gateway.port)).await.unwrap();
        let head =
            format!("PUT /images/cat HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n", bytes.len());
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(&bytes[..sent]).await.unwrap();
        if sent > MEGABYTE {
            eventually("the upload has begun", PATIENCE, async || scene.file_count() == 1).await;
        }
        drop(stream);
        eventually("the unfinished file is gone", PATIENCE, async || scene.file_count() == 0).await;
    }
    assert_eq!(gateway.get("/images/cat").await.status, 404);
    gateway.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn of_concurrent_uploads_of_one_key_one_whole_image_remains() {
    let (scene, _worker, gateway) = Scene::running().await;
    let other = scene.start_gateway(&[]).await;
    let images: Vec<Vec<u8>> = (0..12).map(|number| image_of(200_000 + number)).collect();
    let uploads = images.iter().enumerate().map(|(at, bytes)| {
        let gateway = if at % 2 == 0 { &gateway } else { &other };
        gateway.put("/images/cat", bytes)
    });
    let answers = futures_util::future::join_all(uploads).await;
    assert!(answers.iter().all(|answer| matches!(answer.status, 200 | 201)), "{answers:?}");
    assert_eq!(answers.iter().filter(|answer| answer.status == 201).count(), 1);
    let one = gateway.get("/images/cat").await;
    assert!(images.contains(&one.body));
    assert_eq!(other.get("/images/cat").await.body, one.body);
    eventually("only its file remains", PATIENCE, async || scene.file_count() == 1).await;
    scene.nothing_is_pending().await;
    other.stop().await.unwrap();
    gateway.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_asks_before_sending_is_answered_before_sending() {
    let (_scene, _worker, gateway) = Scene::running().await;
    let head = format!(
        "PUT /images/cat HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nExpect: 100-continue\r\nContent-Length: {}\r\n\r\n",
        100 * MEGABYTE
    );
    // Not one byte of the body is sent, and none is waited for.
    let answer = http::exchange(gateway.port, "PUT", head.as_bytes()).await;
    assert_eq!(answer.failure(), 413);
    gateway.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_with_another_digest_than_its_headers_say_is_refused_and_changes_nothing() {
    let (scene, _worker, gateway) = Scene::running().await;
    let (cat, dog) = (samples::chelsea().bytes, samples::rocket().bytes);
    let digest = |bytes: &[u8]| format!("sha-256=:{}:", BASE64.encode(Sha256::digest(bytes)));
    let (of_cat, of_dog) = (digest(cat), digest(dog));
    let put = async |name: &str, text: &str| gateway.send("PUT", "/images/cat", &[(name, text)], cat).await;
    assert_eq!(put("Content-Digest", &of_cat).await.status, 201);
    assert_eq!(put("Repr-Digest", &of_cat).await.status, 200);
    for (name, text) in [
        ("Content-Digest", &*of_dog),
        ("Repr-Digest", &*of_dog),
        ("Content-MD5", "1B2M2Y8AsgTpgAmY7PhCfg=="),
        ("Content-Digest", "sha-256=:AAAA:"),
        ("Content-MD5", "cat"),
    ] {
        let answer = put(name, text).await;
        assert_eq!(answer.failure(), 400, "{name}: {text}");
        assert!(answer.text().contains(name), "{}", answer.text());
    }
    // Of a form, the digest is that of all of it, with what follows its last boundary.
    let content_type = Form::content_type();
    let send = async |form: &[u8], digest: &str| {
        let headers = [("Content-Type", &*content_type), ("Content-Digest", digest)];
        gateway.send("POST", "/api/upload", &headers, form).await
    };
    let mut form = Form::new().key("dog").file(dog).bytes();
    let of_form = digest(&form);
    assert_eq!(send(&form, &of_form).await.status, 200);
    form.extend_from_slice(&[b' '; 100_000]);
    assert_eq!(send(&form, &of_form).await.failure(), 400);
    assert_eq!(send(&form, &digest(&form)).await.status, 200);
    assert_eq!(send(&form, &of_dog).await.failure(), 400);
    let other = Form::new().key("dog").file(cat).bytes();
    assert_eq!(send(&other, &of_form).await.failure(), 400);

    // A read says the digest if that is wanted, of the image and not of what is sent of it.
    let wants = ("Want-Repr-Digest", "sha-512=3, sha-256=10");
    for (path, bytes, headers, status) in [
        ("/images/cat", cat, &[wants][..], 200),
        ("/images/dog", dog, &[wants], 200),
        ("/images/dog", dog, &[wants, ("Range", "bytes=0-9")], 206),
    ] {
        let answer = gateway.send("GET", path, headers, b"").await;
        assert_eq!((answer.status, answer.header("repr-digest")), (status, &*digest(bytes)), "{path}");
    }
    assert_eq!(gateway.get("/images/cat").await.header("repr-digest"), "");
    let variant = gateway.send("GET", "/images/cat?w=160", &[wants], b"").await;
    assert_eq!((variant.status, variant.header("repr-digest")), (200, ""));
    eventually("refused uploads leave no file", PATIENCE, async || {
        // The variant is the third.
        scene.file_count() == 3
    })
    .await;
    gateway.stop().await.unwrap();
}
