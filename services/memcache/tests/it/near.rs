//! Near leases: a holder is told before a change of what it holds is acknowledged.

use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use runtime::Bus;
use testkit::{eventually, samples};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use wire::event::KeyEvent;
use wire::near::{DropRequest, HitsReply, HitsReport, KeyHits, LONGEST_LEASE_MS};
use wire::reply::Code;
use wire::{Holder, Meta, Tag, subject};

use crate::helpers::{ANSWER, Got, PATIENCE, Scene, code, connect, key, tag_of};
use crate::windows::{sum, windows};

const LEASE: Duration = Duration::from_millis(LONGEST_LEASE_MS);

/// A gateway's side of a near lease.
struct Gateway {
    holder: Holder,
    drops: mpsc::UnboundedReceiver<(DropRequest, async_nats::Subject)>,
    bus: Bus,
    reader: JoinHandle<()>,
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl Gateway {
    async fn new(scene: &Scene, number: u64) -> Self {
        let (holder, bus) = (Holder(number), connect(&scene.server, "gateway").await);
        let mut requests = bus.client().subscribe(subject::near_drop(holder)).await.unwrap();
        bus.client().flush().await.unwrap();
        let (told, drops) = mpsc::unbounded_channel();
        let reader = tokio::spawn(async move {
            while let Some(message) = requests.next().await {
                let request = serde_json::from_slice(&message.payload).unwrap();
                let _ = told.send((request, message.reply.unwrap()));
            }
        });
        Self { holder, drops, bus, reader }
    }

    /// A get that asks for a near lease: how long it was granted.
    async fn get(&self, scene: &Scene, name: &str) -> Option<u64> {
        let asked = Meta { near: Some(self.holder), ..Meta::default() };
        scene.ask(&subject::get(&key(name).into()), "", Some(&asked)).await.unwrap().meta.granted_ms
    }

    async fn renew(&self, scene: &Scene, name: &str, tag: Tag) -> Result<Option<u64>, Code> {
        let asked = Meta { near: Some(self.holder), tag: Some(tag), renewal: true, ..Meta::default() };
        match scene.ask(&subject::get(&key(name).into()), "", Some(&asked)).await {
            Ok(reply) => {
                assert!(reply.meta.fresh && reply.payload.is_empty());
                Ok(reply.meta.granted_ms)
            }
            failed => Err(code(failed)),
        }
    }

    /// The next drop, to be acknowledged.
    async fn told(&mut self) -> (DropRequest, async_nats::Subject) {
        tokio::time::timeout(PATIENCE, self.drops.recv()).await.expect("a drop comes").unwrap()
    }

    async fn acknowledge(&self, reply: async_nats::Subject) {
        self.bus.client().publish(reply, "".into()).await.unwrap();
    }
}

/// A scene with a worker for which no lease of a predecessor can last, and the image "cat".
async fn settled(flags: &[&str]) -> (Scene, crate::helpers::RunningWorker) {
    let scene = Scene::new().await;
    let worker = scene.start_worker(flags).await;
    scene.put("cat", samples::chelsea().bytes).await.unwrap();
    (scene, worker)
}

#[tokio::test(flavor = "multi_thread")]
async fn each_change_waits_until_its_holders_have_dropped_their_copies() {
    let (scene, worker) = settled(&[]).await;
    let mut gateway = Gateway::new(&scene, 1).await;
    let cat = Some(key("cat"));
    let changes: [(String, Vec<u8>, _); 4] = [
        (subject::invalidate(&key("cat")), vec![], &cat),
        (subject::put(&key("cat").into()), samples::astronaut().bytes.to_vec(), &cat),
        (subject::CLEAR.to_owned(), vec![], &None),
        (subject::CONFIG_SET.to_owned(), br#"{"policy":"none"}"#.to_vec(), &None),
    ];
    for (change, payload, dropped) in changes {
        scene.put("cat", samples::chelsea().bytes).await.unwrap();
        assert_eq!(gateway.get(&scene, "cat").await, Some(LONGEST_LEASE_MS));
        let mut answer = Box::pin(scene.ask(&change, payload, None));
        let (request, reply) = tokio::select! {
            told = gateway.told() => told,
            answer = &mut answer => panic!("{change} was acknowledged before the holder was: {answer:?}"),
        };
        assert_eq!(request.key, *dropped, "{change}");
        // The worker is not held up by it.
        assert!(scene.stats().await.is_some());
        gateway.acknowledge(reply).await;
        answer.await.unwrap();
        // Who has dropped it is not told again.
        scene.ask(&subject::invalidate(&key("cat")), "", None).await.unwrap();
        assert!(gateway.drops.try_recv().is_err(), "{change}");
    }
    worker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_holder_that_does_not_answer_is_waited_for_until_its_lease_ends() {
    let (scene, worker) = settled(&["--near-lease-ms", "900"]).await;
    let gateway = Gateway::new(&scene, 1).await;
    let asked = Instant::now();
    assert_eq!(gateway.get(&scene, "cat").await, Some(900));
    // Two at once: the second waits for whom the first waits for.
    let (invalidate, put) = (subject::invalidate(&key("cat")), subject::put(&key("cat").into()));
    let (first, second) = tokio::join!(
        scene.ask(&invalidate, "", None),
        scene.ask(&put, samples::chelsea().bytes.to_vec(), None)
    );
    assert!(asked.elapsed() >= Duration::from_millis(900), "after {:?}", asked.elapsed());
    first.and(second).unwrap();
    // Nobody is there to hear it: that is no acknowledgement either.
    drop(gateway);
    let gone = Gateway::new(&scene, 2).await;
    let asked = Instant::now();
    gone.get(&scene, "cat").await.unwrap();
    drop(gone);
    scene.ask(&invalidate, "", None).await.unwrap();
    assert!(asked.elapsed() >= Duration::from_millis(900), "after {:?}", asked.elapsed());
    worker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_has_just_taken_over_acknowledges_when_leases_before_it_have_ended() {
    let scene = Scene::new().await;
    let first = scene.start_worker(&["--worker-name", "first"]).await;
    let second = scene.spawn_worker(&["--worker-name", "second"]);
    scene.put("cat", samples::chelsea().bytes).await.unwrap();
    let gateway = Gateway::new(&scene, 1).await;
    let asked = Instant::now();
    gateway.get(&scene, "cat").await.unwrap();
    first.stop().await.unwrap();
    eventually("the second acknowledges", PATIENCE, async || {
        scene.ask(&subject::invalidate(&key("cat")), "", None).await.is_ok()
    })
    .await;
    assert_eq!(scene.stats().await.unwrap().worker, "second");
    assert!(asked.elapsed() >= LEASE, "after {:?}", asked.elapsed());
    second.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fill_grants_and_a_renewal_is_no_lookup() {
    let (scene, worker) = settled(&[]).await;
    let gateway = Gateway::new(&scene, 1).await;
    let image = samples::chelsea().bytes;
    let Got::Miss(Some(lease)) = scene.get("dog").await else { panic!("a lease was expected") };
    let fill = Meta {
        content_type: Some("image/png".into()),
        tag: Some(tag_of(image)),
        lease: Some(lease),
        near: Some(gateway.holder),
        ..Meta::default()
    };
    let reply = scene.ask(&subject::put(&key("dog").into()), image.to_vec(), Some(&fill)).await.unwrap();
    let reply: wire::inspect::PutReply = serde_json::from_slice(&reply.payload).unwrap();
    assert_eq!(reply.granted_ms, Some(LONGEST_LEASE_MS));

    let before = scene.stats().await.unwrap().counters;
    assert_eq!(gateway.renew(&scene, "dog", tag_of(image)).await, Ok(Some(LONGEST_LEASE_MS)));
    assert_eq!(gateway.renew(&scene, "dog", Tag([7; 32])).await, Err(Code::NotFound));
    assert_eq!(gateway.renew(&scene, "nobody", tag_of(image)).await, Err(Code::NotFound));
    let asked = Meta { renewal: true, ..Meta::default() };
    let bare = scene.ask(&subject::get(&key("dog").into()), "", Some(&asked)).await;
    assert_eq!(code(bare), Code::BadRequest);
    assert_eq!(scene.stats().await.unwrap().counters, before);
    // Nobody is granted anything who does not ask, or under the policy `none`.
    assert!(matches!(scene.get("dog").await, Got::Hit(reply) if reply.meta.granted_ms.is_none()));
    scene.configure(r#"{"policy":"none"}"#).await;
    assert!(
        matches!(scene.put("dog", image).await, Ok(reply) if !reply.stored && reply.granted_ms.is_none())
    );
    assert_eq!(gateway.renew(&scene, "dog", tag_of(image)).await, Err(Code::NotFound));
    worker.stop().await.unwrap();
}

fn report(holder: Holder, number: u64, to: &str, hits: Vec<KeyHits>) -> String {
    serde_json::to_string(&HitsReport { holder, number, to: to.to_owned(), hits }).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn reported_hits_count_once_and_keep_an_entry_in_use() {
    let (scene, worker) = settled(&[]).await;
    scene.put("dog", samples::chelsea().bytes).await.unwrap();
    let incarnation = scene.stats().await.unwrap().incarnation;
    let gateway = connect(&scene.server, "gateway").await;
    let mut events = gateway.client().subscribe(subject::ALL_KEY_EVENTS).await.unwrap();
    let watch = gateway.request(subject::WATCH.to_owned(), None, r#"{"kinds":["hit"]}"#.into(), ANSWER).await;
    assert!(watch.is_ok());
    let tell = async |report: String| {
        gateway.request(subject::NEAR_HITS.to_owned(), None, report.into(), ANSWER).await
    };
    let mut counted = Vec::new();
    for number in [1, 1, 2, 1] {
        let hits = vec![
            KeyHits { key: key("cat"), variant: None, count: 5, bytes: 500 },
            KeyHits { key: key("evicted"), variant: None, count: 2, bytes: 20 },
        ];
        let reply = tell(report(Holder(1), number, &incarnation, hits)).await.unwrap();
        let reply: HitsReply = serde_json::from_slice(&reply.payload).unwrap();
        assert_eq!(reply.by, incarnation);
        counted.push(reply.counted);
    }
    assert_eq!(counted, [true, false, true, false]);
    // Whoever watches sees them too, each report once.
    for (name, count, bytes) in [("cat", 5, 100), ("evicted", 2, 10), ("cat", 5, 100), ("evicted", 2, 10)] {
        let message = tokio::time::timeout(PATIENCE, events.next()).await.unwrap().unwrap();
        let event: KeyEvent = serde_json::from_slice(&message.payload).unwrap();
        assert_eq!((event.key.as_str(), event.count, event.bytes, event.near), (name, count, bytes, true));
    }
    let counters = scene.stats().await.unwrap().counters;
    assert_eq!((counters.request_count, counters.hit_count, counters.near_hit_count), (14, 14, 14));
    assert_eq!(counters.served_bytes, 1040);
    let keys: wire::inspect::KeysReply = scene.ask_json(subject::KEYS, "").await.unwrap();
    let seen: Vec<_> = keys.keys.iter().map(|entry| (entry.key.as_str(), entry.hits)).collect();
    assert_eq!(seen, [("cat", 10), ("dog", 0)], "the most recently used first");
    for bad in ["", "{}", "[]", r#"{"holder":"x","number":1,"to":"","hits":[]}"#] {
        assert_eq!(code(tell(bad.to_owned()).await), Code::BadRequest);
    }
    worker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_for_an_earlier_life_of_the_worker_counts_no_more() {
    let scene = Scene::new().await;
    let first = scene.start_worker(&["--worker-name", "first"]).await;
    let earlier = scene.stats().await.unwrap().incarnation;
    let second = scene.spawn_worker(&["--worker-name", "second"]);
    tokio::time::sleep(Duration::from_millis(300)).await;
    let began = Instant::now();
    first.stop().await.unwrap();
    eventually("the second serves", PATIENCE, async || {
        scene.stats().await.is_some_and(|stats| stats.serving && stats.worker == "second")
    })
    .await;
    let later = scene.stats().await.unwrap().incarnation;
    let gateway = connect(&scene.server, "gateway").await;
    let mut counted = Vec::new();
    for to in [&earlier, "", &later] {
        let hits = vec![KeyHits { key: key("cat"), variant: None, count: 1, bytes: 10 }];
        let payload = report(Holder(1), 1, to, hits).into();
        let reply = gateway.request(subject::NEAR_HITS.to_owned(), None, payload, ANSWER).await.unwrap();
        let reply: HitsReply = serde_json::from_slice(&reply.payload).unwrap();
        assert_eq!(reply.by, later, "so that it can be addressed to who serves");
        let uptime = Duration::from_millis(reply.uptime_ms);
        assert!(uptime <= began.elapsed(), "{uptime:?}: the first had counted until then");
        counted.push(reply.counted);
    }
    assert_eq!(counted, [false, false, true]);
    assert_eq!(scene.stats().await.unwrap().counters.request_count, 1);
    second.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_stops_asks_all_holders_for_their_last_hits_and_counts_them() {
    let (scene, worker) = settled(&[]).await;
    let mut gateway = Gateway::new(&scene, 1).await;
    assert!(gateway.get(&scene, "cat").await.is_some());
    let incarnation = scene.stats().await.unwrap().incarnation;
    let stopping = tokio::spawn(worker.stop());
    let (request, reply) = gateway.told().await;
    assert_eq!(request.key, None);
    let hits = vec![KeyHits { key: key("cat"), variant: None, count: 3, bytes: 30 }];
    let report = report(gateway.holder, 1, &incarnation, hits).into();
    gateway.bus.request(subject::NEAR_HITS.to_owned(), None, report, ANSWER).await.unwrap();
    gateway.acknowledge(reply).await;
    stopping.await.unwrap().unwrap();
    assert_eq!(sum(&windows(&scene.server).await).near_hit_count, 3);
}
