//! Scripts of other web applications: what they may read and change.

use testkit::{eventually, samples};

use crate::access::{BEARER, TOKEN};
use crate::helpers::{PATIENCE, Scene};
use crate::http::Answer;

const APP: (&str, &str) = ("Origin", "https://app.example.com");
const OTHER: (&str, &str) = ("Origin", "https://other.example.com");
const CROSS: (&str, &str) = ("Sec-Fetch-Site", "cross-site");
/// The token as the password of a login, which a browser sends by itself: `me:correct-horse-battery`.
const LOGIN: (&str, &str) = ("Authorization", "Basic bWU6Y29ycmVjdC1ob3JzZS1iYXR0ZXJ5");

fn allows(answer: &Answer) -> &str {
    answer.header("access-control-allow-origin")
}

#[tokio::test(flavor = "multi_thread")]
async fn scripts_of_allowed_origins_read_and_change_with_the_token_alone() {
    let scene = Scene::new().await;
    let worker = scene.start_worker().await;
    let flags = ["--admin-token", TOKEN, "--cors-origins", "https://app.example.com"];
    let gateway = scene.start_gateway(&flags).await;
    let cat = samples::chelsea().bytes;
    let send = async |method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]| {
        gateway.send(method, path, headers, body).await
    };

    // A browser asks first.
    let asks = ("Access-Control-Request-Method", "PUT");
    let answer = send("OPTIONS", "/images/cat", &[APP, CROSS, asks], b"").await;
    assert_eq!((answer.status, allows(&answer)), (204, APP.1));
    assert!(answer.header("access-control-allow-methods").contains("PUT"));
    assert!(answer.header("access-control-allow-headers").contains("Authorization"));
    let answer = send("OPTIONS", "/images/cat", &[OTHER, CROSS, asks], b"").await;
    assert_eq!((answer.status, allows(&answer)), (401, ""));

    // Changes need the token, and a script sets it itself.
    let put = async |headers: &[(&str, &str)]| send("PUT", "/images/cat", headers, cat).await;
    for (headers, status) in [
        (&[APP, CROSS][..], 401),
        (&[APP, CROSS, LOGIN], 403),
        (&[OTHER, CROSS, BEARER], 403),
        (&[CROSS, BEARER], 403),
        (&[APP, CROSS, ("Authorization", "Bearer wrong-horse-battery")], 401),
    ] {
        let answer = put(headers).await;
        assert_eq!(answer.status, status, "{headers:?}: {}", answer.text());
    }
    assert_eq!(send("GET", "/images/cat", &[], b"").await.status, 404);
    let answer = put(&[APP, CROSS, BEARER]).await;
    assert_eq!((answer.status, allows(&answer)), (201, APP.1));
    assert!(answer.header("access-control-expose-headers").contains("ETag"));

    // Reads are open, from the origin, the cache and the near cache alike, and by POST.
    eventually("a near hit", PATIENCE, async || {
        let answer = send("GET", "/images/cat", &[APP, CROSS], b"").await;
        assert_eq!((answer.status, allows(&answer)), (200, APP.1));
        assert!(answer.body == cat && answer.header("vary").contains("origin"));
        answer.cache() == "hit; detail=near"
    })
    .await;
    let answer = send("POST", "/api/key/cat", &[APP, CROSS], b"").await;
    assert_eq!((answer.status, allows(&answer)), (200, APP.1));
    // Answers to others are not for scripts to read, and no shared cache gives them to one that may.
    for headers in [&[OTHER, CROSS][..], &[]] {
        let answer = send("GET", "/images/cat", headers, b"").await;
        assert_eq!((answer.status, allows(&answer)), (200, ""));
        assert!(answer.header("vary").contains("origin"));
    }
    assert_eq!(send("POST", "/api/key/cat", &[OTHER, CROSS], b"").await.status, 403);
    // A refusal can be read too.
    let answer = send("GET", "/images/dog", &[APP, CROSS], b"").await;
    assert_eq!((answer.status, allows(&answer)), (404, APP.1));
    gateway.stop().await.unwrap();
    worker.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_token_scripts_of_other_origins_read_only_and_unless_set_not_even_that() {
    let (scene, _worker, closed) = Scene::running().await;
    let open = scene.start_gateway(&["--cors-origins", "*"]).await;
    let cat = samples::chelsea().bytes;
    assert_eq!(closed.put("/images/cat", cat).await.status, 201);
    let asks = ("Access-Control-Request-Method", "PUT");
    let read = async |gateway: &crate::helpers::Gateway| {
        let answer = gateway.send("GET", "/images/cat", &[APP, CROSS], b"").await;
        assert_eq!(answer.status, 200);
        allows(&answer).to_owned()
    };
    assert_eq!((read(&open).await.as_str(), read(&closed).await.as_str()), ("*", ""));
    for gateway in [&open, &closed] {
        assert_eq!(gateway.send("PUT", "/images/cat", &[APP, CROSS], cat).await.status, 403);
        assert_eq!(gateway.send("PUT", "/images/cat", &[APP, CROSS, BEARER], cat).await.status, 403);
        assert_eq!(gateway.send("POST", "/api/delete_all", &[APP, CROSS], b"").await.status, 403);
    }
    assert_eq!(open.send("OPTIONS", "/images/cat", &[APP, asks], b"").await.status, 204);
    assert_eq!(closed.send("OPTIONS", "/images/cat", &[APP, asks], b"").await.status, 405);
    open.stop().await.unwrap();
    closed.stop().await.unwrap();
}
