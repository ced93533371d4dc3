//! One worker serves: whatever happens to it, never two that answer from what they hold.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use memcache::{Claim, RenewalError};
use runtime::owners::{Observer, Owners, UNKNOWN_OWNER_LASTS};
use runtime::{Bus, bucket, streams};
use testkit::{eventually, samples};
use tokio_util::sync::CancellationToken;
use wire::inspect::ServicePing;
use wire::owners::Entry;
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
    let long = ["--claim-ms", "10000"];
    let first = scene.start_worker(&[&long[..], &["--worker-name", "first"]].concat()).await;
    let second = scene.spawn_worker(&[&long[..], &["--worker-name", "second"]].concat());
    scene.put("cat", samples::chelsea().bytes).await.unwrap();
    for _ in 0..50 {
        assert!(serves(&scene, "first").await);
        assert!(matches!(scene.get("cat").await, Got::Hit(_)));
    }
    let stopped = Instant::now();
    first.stop().await.unwrap();
    eventually("the second serves", PATIENCE, async || serves(&scene, "second").await).await;
    assert!(stopped.elapsed() < Duration::from_secs(7), "it had to run out, after {:?}", stopped.elapsed());
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
        // A question behind them on the same connection was answered.
        eventually("they are with the workers", PATIENCE, async || {
            let asked = scene.ask(subject::CONFIG_GET, "", None);
            tokio::time::timeout(Duration::from_millis(200), asked).await.is_ok_and(|reply| reply.is_ok())
        })
        .await;
        first.signal("CONT");
    });
    // What the first holds is old: an upload could have replaced it while the second served.
    assert!(
        answers.iter().all(Result::is_err),
        "an entry of the first was served after its claim had run out"
    );
    // On a busy machine the second may have lost its claim as well, to a new life of the first. The old one may answer before
    // it ends, and says that it does not serve.
    let serving = async || scene.stats().await.filter(|stats| stats.serving);
    let stats = eventually("one of them serves", PATIENCE, serving).await;
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
async fn a_claim_that_the_bucket_has_forgotten_is_lost_waited_out_and_won_anew() {
    let scene = Scene::new().await;
    let worker = scene.start_worker(&[]).await;
    let before = scene.stats().await.unwrap().incarnation;
    let forgotten = Instant::now();
    scene.server.restart_without_its_store().await;
    eventually("it serves again, as a new life", PATIENCE, async || {
        scene.stats().await.is_some_and(|stats| stats.serving && stats.incarnation != before)
    })
    .await;
    // Another process may have had a claim of any length in it, and have granted leases.
    assert!(forgotten.elapsed() > UNKNOWN_OWNER_LASTS, "after {:?}", forgotten.elapsed());
    worker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_that_is_missing_beside_a_configuration_is_waited_out() {
    let scene = Scene::new().await;
    let bus = connect(&scene.server, "memcache_own").await;
    let bucket = runtime::streams::ensure_config_bucket(bus.jetstream()).await.unwrap();
    let config = r#"{"capacity_mb":3,"policy":"lru","generation":7,"changed_by":"x","changed_at":"2026-01-02T03:04:05Z"}"#;
    bucket.put(subject::CONFIG_KEY, config.into()).await.unwrap();
    let begun = Instant::now();
    let worker = scene.start_worker(&[]).await;
    assert!(begun.elapsed() > UNKNOWN_OWNER_LASTS, "after {:?}", begun.elapsed());
    assert_eq!(scene.stats().await.unwrap().capacity_bytes, 3 << 20);
    worker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_of_the_claim_that_is_removed_while_connections_stand_makes_no_second_owner() {
    let scene = Scene::new().await;
    let first = scene.start_worker(&["--claim-ms", "10000", "--worker-name", "first"]).await;
    let life = scene.stats().await.unwrap().incarnation;
    let second = scene.spawn_worker(&["--worker-name", "second"]);
    eventually("the second stands by", PATIENCE, async || {
        let limit = Duration::from_secs(1);
        let replies = scene.operator.gather(subject::PING, limit, limit / 10).await.unwrap();
        let pings = replies.iter().filter_map(|reply| serde_json::from_slice::<ServicePing>(reply).ok());
        pings.into_iter().any(|ping| ping.said("state") == ServicePing::STANDING_BY)
    })
    .await;
    let removed = Instant::now();
    scene.server.jetstream("administrator").await.delete_stream(subject::OWNERS_STREAM).await.unwrap();
    // The first serves until its next renewal, which may be seconds away.
    let mut lives = std::collections::BTreeSet::from([life.clone()]);
    eventually("one serves as a new life", 2 * PATIENCE, async || {
        let Some(stats) = scene.stats().await.filter(|stats| stats.serving) else { return false };
        lives.insert(stats.incarnation);
        lives.len() > 1
    })
    .await;
    assert!(removed.elapsed() > UNKNOWN_OWNER_LASTS, "after {:?}", removed.elapsed());
    first.stop().await.unwrap();
    second.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_lost_its_claim_with_the_bucket_acknowledges_nothing_for_the_one_that_serves() {
    let scene = Scene::new().await;
    // The first knows its claim to be valid for as long as can be.
    let long = ["--claim-ms", "10000"];
    let first = scene.start_worker(&[&long[..], &["--worker-name", "first"]].concat()).await;
    let second = scene.spawn_worker(&[&long[..], &["--worker-name", "second"]].concat());
    scene.server.restart_without_its_store().await;
    let mut told = 0;
    eventually("one serves, and is told of many changes", 3 * PATIENCE, async || {
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
    assert!(written.elapsed() > UNKNOWN_OWNER_LASTS, "after {:?}", written.elapsed());
    first.stop().await.unwrap();
    second.stop().await.unwrap();
}

async fn win(bus: &Bus, worker: &str) -> Claim {
    win_knowing(bus, worker, &mut Observer::new(false)).await
}

/// For a process that has seen this of the claim before.
async fn win_knowing(bus: &Bus, worker: &str, seen: &mut Observer) -> Claim {
    let length = Duration::from_secs(10);
    Claim::win(bus, worker, length, false, seen, &CancellationToken::new()).await.unwrap()
}

/// What stands in the bucket.
async fn entry(bus: &Bus) -> Entry {
    let found = Owners::new(bus.clone()).read(PATIENCE).await.unwrap();
    found.entry().expect("an entry").clone()
}

/// Writes what should never be there.
async fn overwrite(bus: &Bus, entry: impl Into<bytes::Bytes>) {
    let client = bus.client();
    client.publish(subject::OWNERS_WRITE, entry.into()).await.unwrap();
    // A question on the same connection comes after it.
    Owners::new(bus.clone()).read(PATIENCE).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn each_write_of_the_claim_is_the_next_beat_whoever_makes_it() {
    let scene = Scene::new().await;
    let bus = connect(&scene.server, "memcache_own").await;
    let first = win(&bus, "first").await;
    let won = entry(&bus).await;
    assert!(won.names(first.incarnation()) && !won.id.is_empty());
    first.renew().await.unwrap();
    assert_eq!(entry(&bus).await, won.renewed());
    first.release().await;
    assert_eq!(entry(&bus).await, won.renewed().ended());
    let second = win(&bus, "second").await;
    let taken = entry(&bus).await;
    assert!(taken.names(second.incarnation()));
    assert_eq!((taken.id, taken.beat), (won.id, won.beat + 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_that_the_stream_has_taken_back_is_lost_and_an_unknown_owner_s_to_those_who_knew_it() {
    let scene = Scene::new().await;
    let bus = connect(&scene.server, "memcache_own").await;
    let mut seen = Observer::new(false);
    let other = win(&bus, "other").await;
    other.release().await;
    let early = entry(&bus).await;
    let claim = win_knowing(&bus, "worker", &mut seen).await;
    claim.renew().await.unwrap();
    // As after a power failure: what was acknowledged is gone, and an older entry stands there.
    let taken_back = Instant::now();
    overwrite(&bus, serde_json::to_vec(&early).unwrap()).await;
    assert!(matches!(claim.renew().await, Err(RenewalError::Lost)));
    claim.leave_to(&mut seen).await;
    // Somebody else may have had it in between, and not know yet that it is lost.
    let next = tokio::time::timeout(PATIENCE, win_knowing(&bus, "worker", &mut seen)).await.unwrap();
    assert!(taken_back.elapsed() > UNKNOWN_OWNER_LASTS, "after {:?}", taken_back.elapsed());
    next.renew().await.unwrap();
    // The same with the owner's own entry, of an earlier beat.
    next.renew().await.unwrap();
    let earlier = Entry { beat: entry(&bus).await.beat - 1, ..entry(&bus).await };
    overwrite(&bus, serde_json::to_vec(&earlier).unwrap()).await;
    assert!(matches!(next.renew().await, Err(RenewalError::Lost)));
}

/// nats-server ends when it is asked for a message of a stream that it is just creating.
#[tokio::test(flavor = "multi_thread")]
async fn reading_a_bucket_that_is_just_created_does_not_end_the_server() {
    let scene = Scene::new().await;
    let administrator = scene.server.jetstream("administrator").await;
    let maker = connect(&scene.server, "memcache_own").await;
    let pid = scene.server.pid();
    for round in 0..50 {
        let stop = CancellationToken::new();
        let mut readers = tokio::task::JoinSet::new();
        for user in ["memcache_own", "memcache_own", "gateway_own", "gateway_own"] {
            let (bus, stop) = (connect(&scene.server, user).await, stop.clone());
            readers.spawn(async move {
                let mut reads = 0;
                while !stop.is_cancelled() {
                    let last =
                        bucket::last(&bus, subject::OWNERS_STREAM, subject::OWNERS_ENTRY, PATIENCE).await;
                    assert_eq!(last.unwrap(), None);
                    reads += 1;
                }
                reads
            });
        }
        streams::ensure_owners_bucket(maker.jetstream()).await.unwrap();
        stop.cancel();
        assert!(readers.join_all().await.iter().sum::<u64>() > 0, "in round {round}");
        administrator.delete_stream(subject::OWNERS_STREAM).await.unwrap();
    }
    assert_eq!(scene.server.pid(), pid);
    assert!(!scene.server.log().contains("panic"), "{}", scene.server.log());
}

/// As an older nats-server answers over the store of a newer one: it has messages, and finds none.
#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_whose_last_entry_the_server_can_not_find_is_no_empty_one() {
    let scene = Scene::new().await;
    let bus = connect(&scene.server, "memcache_own").await;
    streams::ensure_owners_bucket(bus.jetstream()).await.unwrap();
    let administrator = scene.server.jetstream("administrator").await;
    let other = format!("$KV.{}.other", subject::OWNERS_BUCKET);
    administrator.publish(other, "x".into()).await.unwrap().await.unwrap();
    let error = Owners::new(bus.clone()).read(PATIENCE).await.unwrap_err();
    assert!(error.to_string().contains("can't read the last one"), "{error}");
    let winning = async { win(&bus, "worker").await };
    assert!(tokio::time::timeout(Duration::from_secs(2), winning).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_of_a_later_release_is_never_written_over() {
    let scene = Scene::new().await;
    let bus = connect(&scene.server, "memcache_own").await;
    let claim = win(&bus, "worker").await;
    let newer = r#"{"version":2,"workers":[]}"#;
    overwrite(&bus, newer).await;
    assert!(matches!(claim.renew().await, Err(RenewalError::Lost)));
    claim.release().await;
    let mut seen = Observer::new(false);
    let winning = win_knowing(&bus, "other", &mut seen);
    assert!(tokio::time::timeout(Duration::from_secs(2), winning).await.is_err());
    let last =
        bucket::last(&bus, subject::OWNERS_STREAM, subject::OWNERS_ENTRY, PATIENCE).await.unwrap().unwrap();
    assert_eq!(last.value.unwrap(), newer);

    // Unless it is known that no worker of the later release runs.
    let began = Instant::now();
    let mut seen = Observer::new(false);
    let length = Duration::from_secs(1);
    let claim = Claim::win(&bus, "other", length, true, &mut seen, &CancellationToken::new()).await.unwrap();
    assert!(began.elapsed() > UNKNOWN_OWNER_LASTS, "after {:?}", began.elapsed());
    claim.renew().await.unwrap();
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
    overwrite(&bus, serde_json::to_vec(&entry(&bus).await.renewed()).unwrap()).await;
    claim.release().await;
    // Otherwise it would be waited for until the claim runs out.
    let second = tokio::time::timeout(Duration::from_secs(7), win(&bus, "second")).await.unwrap();
    // Nor is anybody else's claim given up.
    claim.release().await;
    second.renew().await.unwrap();
    assert!(second.is_valid());
}
