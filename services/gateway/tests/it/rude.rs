//! Clients that are many, slow or rude: nothing exits, and honest ones keep their answers.

use std::time::Duration;

use futures_util::StreamExt as _;
use testkit::{eventually, samples};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::helpers::{Gateway, PATIENCE, Scene, WITHOUT_COPIES};
use crate::http::Form;

/// A JPEG with bytes behind its end, nearly as large as the bus carries.
fn large() -> Vec<u8> {
    let mut bytes = samples::rocket().bytes.to_vec();
    bytes.resize((8 << 20) - 4096, 7);
    bytes
}

/// Asks and reads nothing.
async fn ask(gateway: &Gateway, path: &str) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", gateway.port)).await.unwrap();
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes()).await.unwrap();
    stream
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_of_large_images_who_take_nothing_cost_others_no_answer() {
    let scene = Scene::new().await;
    let _worker = scene.start_worker().await;
    let flags = [&["--cache-budget-ms", "1000"], &WITHOUT_COPIES[..]].concat();
    let gateway = scene.start_gateway(&flags).await;
    let (image, small) = (large(), samples::chelsea().bytes);
    assert_eq!(gateway.put("/images/large", &image).await.status, 201);
    assert_eq!(gateway.put("/images/small", small).await.status, 201);
    for path in ["/images/large", "/images/small"] {
        gateway.is_cached(path).await;
    }
    let mut rude = Vec::new();
    for _ in 0..100 {
        rude.push(ask(&gateway, "/images/large").await);
    }
    // More of them than there is room for, so the last ones are served from the file.
    eventually("all of them have the head of their answer", PATIENCE, async || {
        for stream in &rude {
            stream.peek(&mut [0; 12]).await.unwrap();
        }
        true
    })
    .await;
    assert!(gateway.metric("pixcache_reads_total{cache_status=\"busy\"}").await > 50.0);
    for _ in 0..20 {
        let answer = gateway.get("/images/small").await;
        assert_eq!((answer.cache(), &*answer.body), ("hit", small));
    }
    // Those who come too late for the cache have the same image.
    let answer = gateway.get("/images/large").await;
    assert_eq!((answer.status, answer.body.len(), answer.complete), (200, image.len(), true));
    assert!(answer.body == image);
    assert_eq!(gateway.metric("pixcache_gateway_slow_consumers_total").await, 0.0);

    // The room comes back with their leaving.
    drop(rude);
    eventually("large images are hits again", PATIENCE, async || {
        gateway.get("/images/large").await.cache() == "hit"
    })
    .await;
    gateway.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_another_gateway_made_larger_is_asked_for_with_room_for_it() {
    let scene = Scene::new().await;
    let _worker = scene.start_worker().await;
    let flags = [&["--cache-budget-ms", "5000"], &WITHOUT_COPIES[..]].concat();
    let (one, other) = (scene.start_gateway(&flags).await, scene.start_gateway(&flags).await);
    let (image, small) = (large(), samples::chelsea().bytes);
    assert_eq!(one.put("/images/cat", small).await.status, 201);
    one.is_cached("/images/cat").await;
    assert_eq!(other.put("/images/cat", &image).await.status, 200);
    other.get("/images/cat").await;
    other.fills_end().await;

    // What this gateway knows of it is too small by far, and so would be the room for so many at once.
    let before = scene.cache_stats().await.unwrap().counters;
    let reads = (0..40).map(|_| one.get("/images/cat"));
    let answers = futures_util::future::join_all(reads).await;
    assert!(answers.iter().all(|answer| answer.body == image && answer.complete));
    let hits = answers.iter().filter(|answer| answer.cache() == "hit").count();
    assert!(hits > 0, "{:?}", answers.iter().map(crate::http::Answer::cache).collect::<Vec<_>>());
    // To be told its size is no answer: each read counts once.
    let after = scene.cache_stats().await.unwrap().counters;
    assert_eq!(after.since(&before).request_count, hits as u64);
    for gateway in [one, other] {
        assert_eq!(gateway.metric("pixcache_gateway_slow_consumers_total").await, 0.0);
        gateway.stop().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reply_that_nobody_waits_for_any_more_gives_its_room_back_when_it_comes() {
    let scene = Scene::new().await;
    let client = scene.nats.connect("memcache").await;
    let mut gets = client.subscribe(wire::subject::GET).await.unwrap();
    client.flush().await.unwrap();
    let gateway = scene.start_gateway(&["--cache-budget-ms", "200"]).await;
    // Of keys that were never seen anything may come: six times the most is all the room.
    let keys: Vec<String> = (0..6).map(|number| format!("/images/late{number}")).collect();
    let reads = keys.iter().map(|path| gateway.get(path));
    let answers = futures_util::future::join_all(reads).await;
    assert!(answers.iter().all(|answer| answer.cache() == "fwd=bypass; detail=cache-timeout"));
    let mut late = Vec::new();
    for _ in &keys {
        late.push(gets.next().await.unwrap().reply.unwrap());
    }
    assert_eq!(gateway.get("/images/seventh").await.cache(), "fwd=bypass; detail=busy");
    for reply in late {
        client.publish(reply, "x".into()).await.unwrap();
    }
    // Long before a reply is given up.
    eventually("the cache is asked again", Duration::from_secs(3), async || {
        gateway.get("/images/seventh").await.cache() == "fwd=bypass; detail=cache-timeout"
    })
    .await;
    gateway.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn more_requests_than_are_worked_on_are_told_to_come_again() {
    let scene = Scene::new().await;
    let _worker = scene.start_worker().await;
    let gateway = scene.start_gateway(&["--max-requests", "2"]).await;
    let image = samples::chelsea().bytes;
    assert_eq!(gateway.put("/images/cat", image).await.status, 201);
    // Two uploads that do not end.
    let mut slow = Vec::new();
    for _ in 0..2 {
        let mut stream = TcpStream::connect(("127.0.0.1", gateway.port)).await.unwrap();
        let head = format!(
            "PUT /images/dog HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: {}\r\n\r\n",
            image.len()
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        // Once its body is asked for, it has its turn.
        stream.read_exact(&mut [0; b"HTTP/1.1 100 Continue\r\n\r\n".len()]).await.unwrap();
        stream.write_all(&image[..1000]).await.unwrap();
        slow.push(stream);
    }
    let refused = gateway.send("POST", "/api/list_keys", &[], b"x").await;
    assert_eq!(refused.failure(), 503);
    assert_eq!(refused.header("retry-after"), "1");
    // Whoever reads is not kept from it.
    assert_eq!(gateway.get("/images/cat").await.status, 200);
    assert_eq!(gateway.get("/healthz").await.status, 200);
    for stream in &mut slow {
        stream.write_all(&image[1000..]).await.unwrap();
        let mut status = [0; 12];
        stream.read_exact(&mut status).await.unwrap();
        assert!(status.starts_with(b"HTTP/1.1 20"), "{}", String::from_utf8_lossy(&status));
    }
    assert_eq!(gateway.put("/images/bird", image).await.status / 100, 2);
    gateway.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_come_a_byte_at_a_time_keep_nobody_from_uploading() {
    let scene = Scene::new().await;
    let _worker = scene.start_worker().await;
    let gateway = scene.start_gateway(&["--max-requests", "2"]).await;
    let image = samples::chelsea().bytes;
    let mut slow = Vec::new();
    for number in 0..2 {
        let mut stream = TcpStream::connect(("127.0.0.1", gateway.port)).await.unwrap();
        let head = format!(
            "PUT /images/slow{number} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\nExpect: 100-continue\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        // It is asked to go on when it has its turn.
        let mut go_on = [0; 25];
        stream.read_exact(&mut go_on).await.unwrap();
        assert_eq!(&go_on, b"HTTP/1.1 100 Continue\r\n\r\n");
        let (mut reading, mut writing) = stream.into_split();
        slow.push(tokio::spawn(async move {
            let trickle = async {
                for byte in image.chunks(1) {
                    if writing.write_all(byte).await.is_err() {
                        break;
                    }
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                std::future::pending::<()>().await;
            };
            let mut status = [0; 12];
            tokio::select! {
                () = trickle => {}
                read = reading.read_exact(&mut status) => { read.unwrap(); }
            }
            status
        }));
    }
    // Only two may send at once, and each is given some seconds.
    eventually("a third one is stored", PATIENCE, async || {
        let status = gateway.put("/images/cat", image).await.status;
        assert!(matches!(status, 201 | 503), "{status}");
        status == 201
    })
    .await;
    let ended = futures_util::future::select_all(slow).await.0.unwrap();
    assert_eq!(&ended, b"HTTP/1.1 408");
    assert_eq!(gateway.put("/images/cat", image).await.status, 200);
    eventually("what was given up leaves no file", PATIENCE, async || scene.file_count() <= 2).await;
    gateway.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_on_which_nothing_is_said_keep_nobody_out() {
    let scene = Scene::new().await;
    let _worker = scene.start_worker().await;
    let gateway = scene.start_gateway(&["--max-connections", "8"]).await;
    let mut mute = Vec::new();
    for _ in 0..100 {
        mute.push(TcpStream::connect(("127.0.0.1", gateway.port)).await.unwrap());
        assert_eq!(gateway.get("/healthz").await.status, 200);
    }
    // Whoever came first had to go first.
    let read = tokio::time::timeout(PATIENCE, mute[0].read(&mut [0])).await.unwrap();
    assert!(matches!(read, Ok(0) | Err(_)));
    assert!(gateway.metric("pixcache_http_connections").await <= 8.0);
    assert!(gateway.metric("pixcache_http_connections_evicted_total").await >= 90.0);
    gateway.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn forms_without_end_and_of_too_many_parts_are_refused() {
    let (scene, _worker, gateway) = Scene::running().await;
    let mut form = Form::new();
    for part in 0..100_000 {
        form = form.part(&format!("name=\"part{part}\""), b"x");
    }
    assert_eq!(gateway.upload(form.key("cat")).await.failure(), 400);

    // A part's head that does not end, and an image that does not.
    for start in [
        "--b\r\nContent-Disposition: form-data; name=\"",
        "--b\r\nContent-Disposition: form-data; name=\"key\"\r\n\r\n",
        "--b\r\nContent-Disposition: form-data; name=\"file\"\r\n\r\n",
    ] {
        let mut stream = TcpStream::connect(("127.0.0.1", gateway.port)).await.unwrap();
        let head = "POST /api/upload HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\
                    Content-Type: multipart/form-data; boundary=b\r\n\r\n";
        stream.write_all(head.as_bytes()).await.unwrap();
        let (mut reading, mut writing) = stream.into_split();
        let mut body = start.as_bytes().to_vec();
        if start.contains("file") {
            body.extend_from_slice(samples::rocket().bytes);
        }
        let endless = tokio::spawn(async move {
            let mut sent = 0_usize;
            loop {
                let mut chunk = format!("{:x}\r\n", body.len()).into_bytes();
                chunk.extend_from_slice(&body);
                chunk.extend_from_slice(b"\r\n");
                if writing.write_all(&chunk).await.is_err() {
                    return sent;
                }
                sent += body.len();
                body = vec![b'x'; 100_000];
            }
        });
        let mut answer = Vec::new();
        let _ = tokio::time::timeout(4 * PATIENCE, reading.read_to_end(&mut answer)).await.unwrap();
        drop(reading);
        let sent = tokio::time::timeout(PATIENCE, endless).await.unwrap().unwrap();
        assert!(sent < 256 << 20, "{sent} bytes were taken");
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{start} is answered {answer:.60}");
    }
    eventually("refused uploads leave no file", PATIENCE, async || scene.file_count() == 0).await;

    // A head that is a bomb.
    let mut stream = TcpStream::connect(("127.0.0.1", gateway.port)).await.unwrap();
    let bomb = format!("GET / HTTP/1.1\r\nHost: localhost\r\nX-Bomb: {}\r\n\r\n", "x".repeat(1 << 20));
    let _ = stream.write_all(bomb.as_bytes()).await;
    let mut status = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut status)).await.unwrap();
    assert!(
        status.is_empty() || status.starts_with(b"HTTP/1.1 431"),
        "{:?}",
        String::from_utf8_lossy(&status)
    );
    assert_eq!(gateway.get("/healthz").await.status, 200);
    gateway.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_form_whose_parts_do_not_begin_is_refused_before_it_fills_the_memory() {
    let (_scene, _worker, gateway) = Scene::running().await;
    let file =
        format!("--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{}\"", "x".repeat(1 << 20));
    let second = format!("--b\r\nContent-Disposition: form-data; name=\"key\"\r\n\r\ncat\r\n{file}");
    for (what, start) in
        [("a preamble", "p".repeat(1 << 20)), ("a header", file), ("a second header", second)]
    {
        for path in ["/api/upload", "/upload_image"] {
            let mut stream = TcpStream::connect(("127.0.0.1", gateway.port)).await.unwrap();
            let head = format!(
                "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\
                 Content-Type: multipart/form-data; boundary=b\r\n\r\n",
                start.len()
            );
            stream.write_all(head.as_bytes()).await.unwrap();
            stream.write_all(start.as_bytes()).await.unwrap();
            let mut answer = Vec::new();
            let answered = async {
                while !String::from_utf8_lossy(&answer).contains("before a part and in its headers") {
                    assert!(stream.read_buf(&mut answer).await.unwrap() > 0, "{what} on {path}: {answer:?}");
                }
            };
            tokio::time::timeout(PATIENCE, answered)
                .await
                .unwrap_or_else(|_| panic!("{what} on {path}: no answer"));
            let answer = String::from_utf8_lossy(&answer);
            assert!(answer.starts_with("HTTP/1.1 400"), "{what} on {path}: {answer}");
        }
    }
    // A part may be large, and come in any pieces.
    let form = Form::new().key("cat").file(&large());
    assert_eq!(gateway.upload(form).await.status, 200);
    gateway.stop().await.unwrap();
}
