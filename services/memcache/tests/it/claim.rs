//! One worker serves: whatever happens to it, never two that answer from what they hold.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use memcache::claim::{Claim, RenewalError};
use runtime::Bus;
use testkit::{eventually, samples};
use tokio_util::sync::CancellationToken;
use wire::{ConfigReply, subject};

use crate::helpers::{Got, PATIENCE, Scene, connect, key};

/// A worker in a process of its own, so that it can be stopped and resumed as a whole.
struct Process(Child);

impl Process {
    fn start(scene: &Scene, name: &str, claim_ms: u32) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_memcache"));
        command
            .args(["--worker-name", name, "--claim-ms", &claim_ms.to_string(), "--nats-url", ""])
            .args(["--nats-port", &scene.server.port().to_string(), "--stats-interval", "100ms"])
            .args(["--nats-password", scene.server.password("memcache")])
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        Self(command.spawn().unwrap())
    }

    fn signal(&self, signal: &str) {
        let done =
            Command::new("kill").args([&format!("-{signal}"), &self.0.id().to_string()]).status().unwrap();
        assert!(done.success());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn serves(scene: &Scene, name: &str) -> bool {
    scene.stats().await.is_some_and(|stats| stats.worker == name && stats.serving)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_worker_stands_by_and_takes_over_at_once_after_a_clean_stop() {
    let scene = Scene::new().await;
    // With a claim of a minute nobody could take over in time if it had to run out.
    let long = ["--claim-ms", "60000"];
    let first = scene.start_worker(&[&long[..], &["--worker-name", "first"]].concat()).await;
    let second = scene.spawn_worker(&[&long[..], &["--worker-name", "second"]].concat());
    scene.put("cat", samples::chelsea().bytes).await.unwrap();
    for _ in 0..50 {
        assert!(serves(&scene, "first").await);
        assert!(matches!(scene.get("cat").await, Got::Hit(_)));
    }
    first.stop().await.unwrap();
    eventually("the second serves", PATIENCE, async || serves(&scene, "second").await).await;
    assert!(matches!(scene.get("cat").await, Got::Miss(_)));
    second.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_that_start_at_once_one_serves() {
    let scene = Scene::new().await;
    let workers = ["a", "b", "c"].map(|name| scene.spawn_worker(&["--worker-name", name]));
    eventually("one serves", PATIENCE, async || scene.stats().await.is_some_and(|stats| stats.serving)).await;
    let first = scene.stats().await.unwrap().incarnation;
    for _ in 0..100 {
        assert_eq!(scene.stats().await.unwrap().incarnation, first);
    }
    for worker in workers {
        worker.stop().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_worker_is_followed_by_the_standby_when_its_claim_has_run_out() {
    let scene = Scene::new().await;
    let first = Process::start(&scene, "first", 1000);
    eventually("the first serves", PATIENCE, async || serves(&scene, "first").await).await;
    let second = Process::start(&scene, "second", 1000);
    let killed = Instant::now();
    drop(first);
    eventually("the second serves", PATIENCE, async || serves(&scene, "second").await).await;
    // The last renewal was at most a quarter of the claim ago.
    assert!(killed.elapsed() > Duration::from_millis(750), "it took over after {:?}", killed.elapsed());
    drop(second);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_was_stopped_past_its_claim_and_resumed_serves_and_acknowledges_nothing() {
    let scene = Scene::new().await;
    let first = Process::start(&scene, "first", 1000);
    eventually("the first serves", PATIENCE, async || serves(&scene, "first").await).await;
    for name in ["cat", "dog"] {
        scene.put(name, samples::chelsea().bytes).await.unwrap();
    }
    let second = Process::start(&scene, "second", 1000);
    first.signal("STOP");
    eventually("the second serves", PATIENCE, async || {
        // Some of the questions go to the one that is stopped and get no answer.
        tokio::time::timeout(Duration::from_millis(200), serves(&scene, "second")).await == Ok(true)
    })
    .await;
    // Questions wait with the one that is stopped; then it goes on.
    let questions = (0..200).map(|number| {
        let name = if number % 2 == 0 { "cat" } else { "dog" };
        scene.operator.request(subject::get(&key(name).into()), None, "".into(), Duration::from_secs(8))
    });
    let (answers, ()) = tokio::join!(futures_util::future::join_all(questions), async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        first.signal("CONT");
    });
    // What the first holds is old: an upload could have replaced it while the second served.
    assert!(
        answers.iter().all(Result::is_err),
        "an entry of the first was served after its claim had run out"
    );
    // On a busy machine the second may have lost its claim as well, to a new life of the first.
    let stats = scene.stats().await.unwrap();
    assert!(stats.worker == "second" || stats.key_count == 0, "{stats:?}");
    // It is alive, and serves again when the second has gone.
    drop(second);
    eventually("the first serves again, as a new life", PATIENCE, async || serves(&scene, "first").await)
        .await;
    assert_eq!(scene.stats().await.unwrap().key_count, 0);
    drop(first);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_waited_with_a_worker_past_its_claim_undoes_no_later_one() {
    let scene = Scene::new().await;
    let first = Process::start(&scene, "first", 1000);
    eventually("the first serves", PATIENCE, async || serves(&scene, "first").await).await;
    let _second = Process::start(&scene, "second", 1000);
    first.signal("STOP");
    eventually("the second serves", PATIENCE, async || {
        tokio::time::timeout(Duration::from_millis(200), serves(&scene, "second")).await == Ok(true)
    })
    .await;
    // Some of these wait with the one that is stopped.
    let early = (0..50).map(|_| scene.ask(subject::CONFIG_SET, r#"{"capacity_mb":7}"#, None));
    let late = async {
        eventually("the second makes a change", PATIENCE, async || {
            let set = scene.ask(subject::CONFIG_SET, r#"{"capacity_mb":9}"#, None);
            tokio::time::timeout(Duration::from_millis(200), set).await.is_ok_and(|set| set.is_ok())
        })
        .await;
        first.signal("CONT");
    };
    let (answers, ()) = tokio::join!(futures_util::future::join_all(early), late);
    // Each has been met before the later one, or been refused, or its answer came too late to be waited for.
    assert!(answers.iter().any(Result::is_err), "none waited with the one that was stopped");
    let in_force = eventually("the second says what is in force", PATIENCE, async || {
        let reply: Option<ConfigReply> = scene.ask_json(subject::CONFIG_GET, "").await.ok();
        reply.filter(|reply| reply.worker == "second")
    })
    .await;
    assert_eq!(in_force.config.capacity_mb.mb(), 9);
    drop(first);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_longer_than_the_claim_ends_no_process() {
    let scene = Scene::new().await;
    let worker = scene.start_worker(&["--claim-ms", "500"]).await;
    let before = scene.stats().await.unwrap().incarnation;
    scene.put("cat", samples::chelsea().bytes).await.unwrap();
    scene.server.kill().await;
    tokio::time::sleep(Duration::from_millis(1200)).await;
    scene.server.start_again().await;
    eventually("it serves again", PATIENCE, async || scene.stats().await.is_some_and(|stats| stats.serving))
        .await;
    assert_ne!(scene.stats().await.unwrap().incarnation, before);
    assert!(matches!(scene.get("cat").await, Got::Miss(_)));
    scene.put("cat", samples::chelsea().bytes).await.unwrap();
    assert!(matches!(scene.get("cat").await, Got::Hit(_)));
    worker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_that_the_bucket_has_forgotten_is_lost_and_won_anew() {
    let scene = Scene::new().await;
    let worker = scene.start_worker(&[]).await;
    let before = scene.stats().await.unwrap().incarnation;
    scene.server.restart_without_its_store().await;
    eventually("it serves again, as a new life", PATIENCE, async || {
        scene.stats().await.is_some_and(|stats| stats.serving && stats.incarnation != before)
    })
    .await;
    worker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_lost_its_claim_with_the_bucket_acknowledges_nothing_for_the_one_that_serves() {
    let scene = Scene::new().await;
    // The first knows its claim to be valid long after the second has won another.
    let long = ["--claim-ms", "60000"];
    let first = scene.start_worker(&[&long[..], &["--worker-name", "first"]].concat()).await;
    let second = scene.spawn_worker(&[&long[..], &["--worker-name", "second"]].concat());
    scene.server.restart_without_its_store().await;
    let mut told = 0;
    eventually("the second serves, and is told of many changes", PATIENCE, async || {
        let stored = scene.put("cat", samples::chelsea().bytes).await.is_ok();
        if stored && scene.ask(&subject::invalidate(&key("cat")), "", None).await.is_ok() {
            for _ in 0..4 {
                let got = scene.get("cat").await;
                assert!(matches!(got, Got::Miss(_)), "after the invalidation was acknowledged: {got:?}");
            }
            told += 1;
        }
        told == 100
    })
    .await;
    assert!(serves(&scene, "second").await);
    first.stop().await.unwrap();
    second.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_that_is_no_claim_is_waited_out_as_one() {
    let scene = Scene::new().await;
    let claim = ["--claim-ms", "2000"];
    let first = scene.start_worker(&[&claim[..], &["--worker-name", "first"]].concat()).await;
    let second = scene.spawn_worker(&[&claim[..], &["--worker-name", "second"]].concat());
    let entry = format!("$KV.CACHE_OWNERS.{}", subject::OWNERS_KEY);
    let writer = scene.server.connect("administrator").await;
    writer.publish(entry, "no claim".into()).await.unwrap();
    writer.flush().await.unwrap();
    let written = Instant::now();
    eventually("the first has lost its claim", PATIENCE, async || !serves(&scene, "first").await).await;
    eventually("one serves", PATIENCE, async || scene.stats().await.is_some_and(|stats| stats.serving)).await;
    assert!(written.elapsed() > Duration::from_millis(2000), "after {:?}", written.elapsed());
    first.stop().await.unwrap();
    second.stop().await.unwrap();
}

async fn win(bus: &Bus, worker: &str) -> Claim {
    let length = Duration::from_secs(60);
    Claim::win(bus, worker, length, None, &CancellationToken::new()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_is_not_renewed_over_another_that_has_its_number_in_a_bucket_made_anew() {
    let scene = Scene::new().await;
    let bus = connect(&scene.server, "memcache_own").await;
    let first = win(&bus, "first").await;
    scene.server.restart_without_its_store().await;
    let other = connect(&scene.server, "memcache_own").await;
    let second = win(&other, "second").await;
    let outcome = eventually("the renewal is answered", PATIENCE, async || match first.renew().await {
        Err(RenewalError::Failed(_)) => None,
        outcome => Some(outcome),
    })
    .await;
    assert!(matches!(outcome, Err(RenewalError::Lost)));
    assert!(!first.is_valid());
    second.renew().await.unwrap();
    assert!(second.is_valid());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_that_was_ended_is_never_valid_again() {
    let scene = Scene::new().await;
    let bus = connect(&scene.server, "memcache_own").await;
    let claim = win(&bus, "worker").await;
    claim.renew().await.unwrap();
    // Whichever comes first: a renewal that is on its way does not bring it back.
    let ended = async { claim.end() };
    let (_, ()) = tokio::join!(claim.renew(), ended);
    assert!(!claim.is_valid());
    assert!(matches!(claim.renew().await, Err(RenewalError::Lost)));
    claim.keep().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_is_given_up_also_after_a_renewal_that_was_broken_off() {
    let scene = Scene::new().await;
    let bus = connect(&scene.server, "memcache_own").await;
    let claim = win(&bus, "first").await;
    // The renewal was written, and whoever sent it was stopped before it was acknowledged.
    let bucket = runtime::streams::ensure_owners_bucket(bus.jetstream()).await.unwrap();
    let entry = runtime::streams::last(&bucket, subject::OWNERS_KEY).await.unwrap().unwrap();
    bucket.update(subject::OWNERS_KEY, entry.value.unwrap(), entry.revision).await.unwrap();
    claim.release().await;
    // Otherwise it would be waited for until the claim runs out, for a minute.
    let second = tokio::time::timeout(PATIENCE, win(&bus, "second")).await.unwrap();
    // Nor is anybody else's claim given up.
    claim.release().await;
    second.renew().await.unwrap();
    assert!(second.is_valid());
}
