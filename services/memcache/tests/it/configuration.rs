//! The live configuration: taken at once, kept across lives, the same for every worker.

use std::time::Duration;

use runtime::bucket;
use runtime::bus::{Reply, RequestFailure};
use testkit::{AnswerHold, eventually, samples};
use tokio::task::JoinHandle;
use wire::reply::Code;
use wire::{CacheConfig, ConfigReply, Policy, subject};

use crate::helpers::{ANSWER, Got, PATIENCE, RunningWorker, Scene, connect};

#[tokio::test(flavor = "multi_thread")]
async fn the_first_start_sets_the_first_revision_and_later_starts_do_not() {
    let scene = Scene::new().await;
    let worker = scene.start_worker(&["--cache-capacity-mb", "7", "--cache-policy", "random"]).await;
    let first: ConfigReply = scene.ask_json(subject::CONFIG_GET, "").await.unwrap();
    assert_eq!((first.config.capacity_mb.mb(), first.config.policy, first.revision), (7, Policy::Random, 1));
    worker.stop().await.unwrap();
    let worker = scene.start_worker(&["--cache-capacity-mb", "9", "--cache-policy", "lru"]).await;
    let second: ConfigReply = scene.ask_json(subject::CONFIG_GET, "").await.unwrap();
    assert_eq!((second.config, second.revision), (first.config, first.revision));
    worker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_is_in_force_when_it_is_answered_and_after_every_restart() {
    let scene = Scene::new().await;
    let worker = scene.start_worker(&[]).await;
    let reply = scene.configure(r#"{"capacity_mb":3,"policy":"clock_pro","by":"test"}"#).await;
    assert_eq!((reply.revision, reply.config.changed_by.as_str()), (2, "test"));
    let stats = scene.stats().await.unwrap();
    assert_eq!((stats.capacity_bytes, stats.policy, stats.revision), (3 << 20, Policy::ClockPro, 2));
    let reply = scene.configure(r#"{"policy":"Least Recently Used"}"#).await;
    assert_eq!((reply.config.capacity_mb.mb(), reply.config.policy), (3, Policy::Lru));
    worker.stop().await.unwrap();
    scene.server.kill().await;
    scene.server.start_again().await;
    eventually("the asker is back", PATIENCE, async || scene.operator.is_connected()).await;
    let worker = scene.start_worker(&[]).await;
    let stats = scene.stats().await.unwrap();
    assert_eq!((stats.capacity_bytes, stats.policy, stats.revision), (3 << 20, Policy::Lru, 3));
    worker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_smaller_capacity_evicts_at_once_and_a_change_of_policy_keeps_the_entries() {
    let scene = Scene::new().await;
    let worker = scene.start_worker(&[]).await;
    for image in samples::all() {
        scene.put(image.name, image.bytes).await.unwrap();
    }
    for policy in ["random", "clock_pro", "lru"] {
        scene.configure(&format!(r#"{{"policy":"{policy}"}}"#)).await;
        assert_eq!(scene.stats().await.unwrap().key_count, 7, "{policy}");
    }
    scene.configure(r#"{"capacity_mb":1}"#).await;
    let stats = scene.stats().await.unwrap();
    assert!(stats.cache_size_bytes <= 1 << 20 && stats.key_count > 0 && stats.key_count < 7);
    assert_eq!(stats.counters.eviction_count, 7 - stats.key_count);
    scene.configure(r#"{"policy":"none"}"#).await;
    assert_eq!(scene.stats().await.unwrap().key_count, 0);
    assert!(matches!(scene.get("rocket.jpg").await, Got::Miss(None)));
    worker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clear_drops_everything_and_is_a_revision() {
    let scene = Scene::new().await;
    let worker = scene.start_worker(&[]).await;
    for image in samples::all() {
        scene.put(image.name, image.bytes).await.unwrap();
    }
    let weight = scene.stats().await.unwrap().cache_size_bytes;
    let cleared = scene.clear().await;
    assert_eq!((cleared.entries, cleared.bytes, cleared.revision), (7, weight, 2));
    assert_eq!(cleared.incarnation, scene.stats().await.unwrap().incarnation);
    assert_eq!(scene.stats().await.unwrap().key_count, 0);
    let again = scene.clear().await;
    assert_eq!((again.entries, again.revision), (0, 3));
    assert!(again.generation != cleared.generation && again.generation >> 53 == 0);
    worker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bucket_is_followed_over_a_restart_of_the_server_and_when_it_is_lost() {
    let scene = Scene::new().await;
    // A change that a worker makes when its claim runs out may be made or not.
    let worker = scene.start_worker(&["--claim-ms", "10000"]).await;
    scene.configure(r#"{"capacity_mb":5}"#).await;
    scene.server.restart().await;
    eventually("the worker serves again", PATIENCE, async || {
        scene.stats().await.is_some_and(|stats| stats.serving)
    })
    .await;

    // Somebody else writes the bucket, as another worker would.
    let other = scene.server.jetstream("administrator").await;
    let bucket = runtime::streams::ensure_config_bucket(&other).await.unwrap();
    let entry = bucket.entry(subject::CONFIG_KEY).await.unwrap().unwrap();
    let text =
        String::from_utf8(entry.value.to_vec()).unwrap().replace("\"capacity_mb\":5", "\"capacity_mb\":6");
    bucket.update(subject::CONFIG_KEY, text.into(), entry.revision).await.unwrap();
    eventually("the change is in force", PATIENCE, async || {
        scene.stats().await.is_some_and(|stats| stats.capacity_bytes == 6 << 20)
    })
    .await;

    // Junk is written over by what is in force, which stays so.
    let junk = bucket.put(subject::CONFIG_KEY, "junk".into()).await.unwrap();
    eventually("it is written over", PATIENCE, async || {
        // A busy machine may miss the time of an answer.
        let Some(stats) = scene.stats().await else { return false };
        assert_eq!(stats.capacity_bytes, 6 << 20);
        stats.revision > junk
    })
    .await;
    let mended: ConfigReply = scene.ask_json(subject::CONFIG_GET, "").await.unwrap();
    assert!(mended.config.changed_by.contains(&format!("revision {junk} could not be read")), "{mended:?}");

    // Everything that JetStream held is gone: what is in force becomes the first revision.
    scene.server.restart_without_its_store().await;
    eventually("the configuration is back in a new bucket", 2 * PATIENCE, async || {
        scene.stats().await.is_some_and(|stats| stats.revision == 1 && stats.capacity_bytes == 6 << 20)
    })
    .await;
    scene.configure(r#"{"capacity_mb":8}"#).await;
    assert_eq!(scene.stats().await.unwrap().revision, 2);
    worker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_at_the_same_time_are_all_made() {
    let scene = Scene::new().await;
    let worker = scene.start_worker(&[]).await;
    let changes = (1..=20).map(|mb| {
        let change = format!(r#"{{"capacity_mb":{mb}}}"#);
        let scene = &scene;
        async move { scene.configure(&change).await.revision }
    });
    let mut revisions = futures_util::future::join_all(changes).await;
    revisions.sort_unstable();
    assert_eq!(revisions, (2..=21).collect::<Vec<u64>>());
    worker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_finds_junk_starts_with_the_last_good_revision_or_its_own_first() {
    let scene = Scene::new().await;
    let own = connect(&scene.server, "memcache_own").await;
    let bucket = runtime::streams::ensure_config_bucket(own.jetstream()).await.unwrap();
    bucket.put(subject::CONFIG_KEY, "junk".into()).await.unwrap();
    // Beside a configuration that is no first start, a missing claim is waited out.
    let worker = scene.spawn_worker(&["--cache-capacity-mb", "7", "--cache-policy", "random"]);
    let serves = async || scene.stats().await.is_some_and(|stats| stats.serving);
    eventually("the worker serves", 2 * PATIENCE, serves).await;
    let reply: ConfigReply = scene.ask_json(subject::CONFIG_GET, "").await.unwrap();
    assert_eq!((reply.config.capacity_mb.mb(), reply.config.policy, reply.revision), (7, Policy::Random, 2));
    assert!(reply.config.changed_by.contains("revision 1 could not be read"), "{reply:?}");
    scene.configure(r#"{"capacity_mb":5}"#).await;
    worker.stop().await.unwrap();

    for junk in ["junk", "{}", r#"{"capacity_mb":"x"}"#] {
        bucket.put(subject::CONFIG_KEY, junk.into()).await.unwrap();
    }
    let worker = scene.start_worker(&["--cache-capacity-mb", "9", "--cache-policy", "lru"]).await;
    let reply: ConfigReply = scene.ask_json(subject::CONFIG_GET, "").await.unwrap();
    assert_eq!((reply.config.capacity_mb.mb(), reply.config.policy, reply.revision), (5, Policy::Random, 7));
    // A change is made over junk, too.
    bucket.put(subject::CONFIG_KEY, "junk".into()).await.unwrap();
    let reply = scene.configure(r#"{"capacity_mb":4}"#).await;
    assert_eq!((reply.config.capacity_mb.mb(), reply.config.policy), (4, Policy::Random));
    worker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_rollback_of_the_bucket_a_clear_drops_everything_and_what_was_acknowledged_is_written_again()
{
    let scene = Scene::new().await;
    // The claim outlives the restarts, and its bucket is not rolled back.
    let worker = scene.start_worker(&["--claim-ms", "10000"]).await;
    let life = scene.stats().await.unwrap().incarnation;
    let serves = async || {
        eventually("the worker serves", PATIENCE, async || {
            scene.stats().await.is_some_and(|stats| stats.serving)
        })
        .await;
    };
    let kept = scene.server.keep_stream(subject::CONFIG_STREAM).await;
    serves().await;
    for mb in [3, 4, 5] {
        scene.configure(&format!(r#"{{"capacity_mb":{mb}}}"#)).await;
    }
    let before = scene.clear().await;
    assert_eq!(before.revision, 5);
    scene.server.take_back(&kept).await;
    serves().await;
    scene.put("cat", samples::chelsea().bytes).await.unwrap();
    let cleared = scene.clear().await;
    assert!(cleared.revision <= 3 && cleared.entries == 1, "{cleared:?}");
    assert!(matches!(scene.get("cat").await, Got::Miss(_)));
    assert_eq!(scene.stats().await.unwrap().incarnation, life, "otherwise this tests nothing");

    scene.configure(r#"{"capacity_mb":6}"#).await;
    scene.server.take_back(&kept).await;
    serves().await;
    eventually("the bucket holds what is in force", PATIENCE, async || {
        let reply: ConfigReply = scene.ask_json(subject::CONFIG_GET, "").await.unwrap();
        assert_eq!(reply.config.capacity_mb.mb(), 6);
        // It was written anew, at the revision that follows on what was rolled back.
        reply.revision == 2
    })
    .await;
    let own = connect(&scene.server, "memcache_own").await;
    let last =
        bucket::last(&own, subject::CONFIG_STREAM, subject::CONFIG_ENTRY, PATIENCE).await.unwrap().unwrap();
    let last: CacheConfig = serde_json::from_slice(&last.value.unwrap()).unwrap();
    assert_eq!(last.capacity_mb.mb(), 6);
    worker.stop().await.unwrap();
}

/// A worker behind a way on which answers can be held back, and the operator's question for a change whose
/// acknowledgement by JetStream is held back on it.
async fn change_without_acknowledgement(
    scene: &Scene,
    claim_ms: &str,
) -> (RunningWorker, AnswerHold, JoinHandle<Result<Reply, RequestFailure>>) {
    let way = AnswerHold::to(scene.server.port()).await;
    let port = way.port().to_string();
    let worker = scene.start_worker(&["--nats-port", &port, "--claim-ms", claim_ms]).await;
    way.hold_answers_to("HPUB $JS.STORE.API.$KV.CACHE_CONFIG.live");
    let operator = scene.operator.clone();
    let asked = tokio::spawn(async move {
        operator.request(subject::CONFIG_SET.to_owned(), None, r#"{"capacity_mb":7}"#.into(), ANSWER).await
    });
    eventually("the acknowledgement is held back", PATIENCE, async || way.held() > 0).await;
    (worker, way, asked)
}

/// The change is refused in time, as one of which nobody knows whether it was made.
async fn is_unknown(asked: JoinHandle<Result<Reply, RequestFailure>>) {
    let Err(RequestFailure::Refused(refused)) = asked.await.unwrap() else { panic!("it is refused in time") };
    let message = refused.refusal.message;
    assert_eq!(refused.refusal.code, Code::Unavailable);
    assert!(message.contains("is unknown") && !message.contains("nothing was changed"), "{message}");
}

async fn is_in_force_in_the_end(scene: &Scene) {
    eventually("the change is in force", PATIENCE, async || {
        let reply: Option<ConfigReply> = scene.ask_json(subject::CONFIG_GET, "").await.ok();
        reply.is_some_and(|reply| reply.config.capacity_mb.mb() == 7)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_whose_acknowledgement_is_lost_is_read_back_and_acknowledged() {
    let scene = Scene::new().await;
    let (worker, way, asked) = change_without_acknowledgement(&scene, "10000").await;
    // The write is given up after 1.5 s, what was asked for after 4 s.
    tokio::time::sleep(Duration::from_millis(2300)).await;
    assert!(!asked.is_finished());
    way.release();
    let reply: ConfigReply = serde_json::from_slice(&asked.await.unwrap().unwrap().payload).unwrap();
    assert_eq!((reply.config.capacity_mb.mb(), reply.revision), (7, 2));
    worker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_which_nothing_is_heard_is_unknown_in_time_and_in_force_afterwards() {
    let scene = Scene::new().await;
    let (worker, way, asked) = change_without_acknowledgement(&scene, "10000").await;
    is_unknown(asked).await;
    way.release();
    is_in_force_in_the_end(&scene).await;
    worker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_that_is_lost_during_a_change_ends_the_life_and_not_the_process() {
    let scene = Scene::new().await;
    let (worker, way, asked) = change_without_acknowledgement(&scene, "1000").await;
    is_unknown(asked).await;
    // Longer than its stop may take.
    tokio::time::sleep(Duration::from_secs(4)).await;
    way.release();
    is_in_force_in_the_end(&scene).await;
    worker.stop().await.unwrap();
}
