//! The page of the parts.

use std::time::Instant;

use testkit::eventually;

use crate::helpers::{PATIENCE, Scene};

#[tokio::test(flavor = "multi_thread")]
async fn the_page_shows_each_part_those_that_stand_by_and_those_that_are_away() {
    let (scene, worker, gateway) = Scene::running().await;
    let second = scene.start_gateway(&[]).await;
    // While the first one serves, this one can only stand by.
    let standing_by = scene.start_worker().await;
    eventually("a worker stands by", PATIENCE, async || {
        gateway.get("/system").await.text().contains("standing by</span>")
    })
    .await;
    let page = gateway.get("/system").await.text();
    assert!(page.contains("serving</span>"), "{page}");
    for port in [gateway.port, second.port] {
        assert!(page.contains(&format!("<strong>127.0.0.1:{port}</strong>")), "{port} in {page}");
    }
    // There is no recorder here.
    assert!(page.contains("down</span>"), "{page}");
    assert!(page.contains("MariaDB") && page.contains("Windows behind"), "{page}");

    drop((worker, standing_by));
    scene.nats.stop().await;
    let asked = Instant::now();
    let page = gateway.get("/system").await;
    assert_eq!(page.status, 200);
    assert!(page.text().contains("not connected"), "{}", page.text());
    // Each part has a second at most, and all have it at the same time.
    assert!(asked.elapsed().as_secs() < 5, "{:?}", asked.elapsed());
    scene.nats.start_again().await;
    second.stop().await.unwrap();
    gateway.stop().await.unwrap();
}
