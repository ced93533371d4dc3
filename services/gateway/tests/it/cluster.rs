//! Two nats-servers, and the route between them is cut: neither sees who is subscribed behind the other.

use std::time::Duration;

use testkit::{Database, NatsServer, eventually, samples};

use crate::helpers::{PATIENCE, Scene, WITHOUT_COPIES};

/// Two servers elect a leader first, and again when their route is healed.
const LONG: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn behind_a_route_that_is_cut_no_upload_is_answered_while_a_worker_serves_the_old_image() {
    let ([near, far], route) = NatsServer::start_pair().await;
    let far_port = far.port().to_string();
    let scene = Scene::on(near, Database::migrated().await).await;
    // The worker and one gateway are on one side, another gateway on the other.
    let worker = scene.start_worker().await;
    let beside = scene.start_gateway(&WITHOUT_COPIES).await;
    let behind = scene.start_gateway(&[&WITHOUT_COPIES[..], &["--nats-port", &far_port]].concat()).await;
    eventually("an upload is answered on the other side", LONG, async || {
        behind.put("/images/cat", samples::chelsea().bytes).await.status < 300
    })
    .await;
    eventually("it is cached", LONG, async || beside.get("/images/cat").await.is_hit()).await;

    route.cut();
    eventually("the route is cut", PATIENCE, async || {
        behind.get("/images/cat").await.cache().contains("cache-unavailable")
    })
    .await;
    let answer = behind.put("/images/cat", samples::coffee().bytes).await;
    let held = beside.get("/images/cat").await;
    let is_old = held.body == samples::chelsea().bytes;
    assert!(!(answer.status == 200 && is_old), "answered, and then {} was served", held.cache());
    if answer.status != 200 {
        assert_eq!(answer.failure(), 503);
        assert!(answer.text().contains("still being told"), "{}", answer.text());
    }

    route.heal();
    // The worker is told, whether it has served on or lost its claim.
    eventually("nothing is left to be told", LONG, async || scene.pending_count().await == 0).await;
    for gateway in [&beside, &behind] {
        let image = gateway.get("/images/cat").await;
        assert!(image.status == 200 && image.body == samples::coffee().bytes, "{}", image.cache());
    }
    eventually("uploads are answered again", LONG, async || {
        behind.put("/images/cat", samples::rocket().bytes).await.status == 200
    })
    .await;
    eventually("and it is cached again", LONG, async || beside.get("/images/cat").await.is_hit()).await;
    assert!(beside.get("/images/cat").await.body == samples::rocket().bytes);
    beside.stop().await.unwrap();
    behind.stop().await.unwrap();
    drop((worker, far));
}
