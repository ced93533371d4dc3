//! The clients: they upload, replace, delete, read and list through both gateways, change the
//! configuration of the cache and clear it, and write down all of it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde::Deserialize;
use tokio::sync::{RwLock, RwLockWriteGuard};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::history::{CacheWord, Did, Failure, History, KeyId, Moment, Outcome, Record, Seen};
use super::http::{Answer, Client, NoAnswer};
use super::image::ImageId;

/// The number of keys that all clients change, and the number of these clients.
const KEYS: usize = 24;
const CLIENTS: usize = 10;
/// Keys behind those whose images stay, but for a deletion of all: what the probes read.
const STEADY_KEYS: usize = 4;
/// How often an image is read for a gateway to make itself a copy, and how often while it is replaced.
const COPY_TRIES: usize = 20;
const READ_EVERY: Duration = Duration::from_millis(2);
/// How often a read looks whether the cache has an image.
const SETTLE_EVERY: Duration = Duration::from_millis(20);
/// How long it may take until the cache has an image: a lease that went to a gateway whose fill was lost is
/// in the way for ten seconds.
const SETTLE_LIMIT: Duration = Duration::from_secs(15);
const BOUNDARY: &str = "-----------------bench";

/// How much the clients ask for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    /// How long a client pauses at most between two requests, in milliseconds.
    pub(crate) longest_pause_ms: u64,
    /// How often each probe reads.
    pub(crate) probe_every: Duration,
}

/// All clients.
#[derive(Debug)]
pub(crate) struct Load {
    shared: Arc<Shared>,
    tasks: JoinSet<()>,
    stop: CancellationToken,
}

/// The state that the clients share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) history: History,
    ports: [u16; 2],
    /// The keys as a path has them.
    paths: Vec<String>,
    keys: Vec<String>,
    /// Every request holds it for reading.
    gate: RwLock<()>,
    /// Whether cached images have to stay cached.
    is_gentle: AtomicBool,
    /// Held while the cache is cleared or its configuration changed.
    operator: tokio::sync::Mutex<()>,
    changes: Mutex<Vec<Change>>,
}

/// A change of the cache's configuration; a clear is one too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) start: Moment,
    pub(crate) end: Moment,
    /// The setting that was asked for; `None` for a clear.
    pub(crate) asked: Option<Setting>,
    /// The answer; `None` if it is unknown whether the change was made.
    pub(crate) answered: Option<InForce>,
}

/// Capacity and policy.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Setting {
    pub(crate) capacity_mb: u64,
    pub(crate) policy: String,
}

/// The configuration that a gateway reports to be in force.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct InForce {
    pub(crate) revision: u64,
    /// Absent in the answer to a clear.
    #[serde(flatten)]
    pub(crate) setting: Option<Setting>,
}

/// Nothing is under way as long as this lives.
pub(crate) type Silence<'a> = RwLockWriteGuard<'a, ()>;

impl Load {
    /// Clients of the gateways at these ports, which do what the seed says; they begin at once.
    pub(crate) fn start(ports: [u16; 2], seed: u64, pace: Pace) -> Self {
        let keys: Vec<String> = (0..KEYS + STEADY_KEYS).map(key_name).collect();
        let paths = keys.iter().map(|key| utf8_percent_encode(key, NON_ALPHANUMERIC).to_string()).collect();
        let shared = Arc::new(Shared {
            history: History::new(),
            ports,
            paths,
            keys,
            gate: RwLock::new(()),
            is_gentle: AtomicBool::new(false),
            operator: tokio::sync::Mutex::new(()),
            changes: Mutex::default(),
        });
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        for number in 0..CLIENTS {
            // Some know one gateway only, so that they go on while the other one is away.
            let gateway = if number < 6 { Some(number % 2) } else { None };
            let actor = Actor::new(&shared, seed, number, gateway);
            tasks.spawn(stop.clone().run_until_cancelled_owned(actor.change_and_read(pace)).then_unit());
        }
        for gateway in 0..ports.len() {
            let actor = Actor::new(&shared, seed, CLIENTS + gateway, Some(gateway));
            tasks.spawn(stop.clone().run_until_cancelled_owned(actor.probe(pace)).then_unit());
        }
        let actor = Actor::new(&shared, seed, CLIENTS + ports.len(), None);
        tasks.spawn(stop.clone().run_until_cancelled_owned(actor.operate()).then_unit());
        Self { shared, tasks, stop }
    }

    /// The state that the clients share.
    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Stops the clients; call it in silence, so that none is stopped in the middle of something.
    pub(crate) async fn stop(mut self) -> anyhow::Result<Arc<Shared>> {
        self.stop.cancel();
        while let Some(ended) = self.tasks.join_next().await {
            ended?;
        }
        Ok(self.shared)
    }
}

/// For futures whose value is not needed.
trait ThenUnit: Future + Sized {
    fn then_unit(self) -> impl Future<Output = ()> {
        async move { drop(self.await) }
    }
}

impl<F: Future> ThenUnit for F {}

/// Names of every kind: with white space, slashes, dots and other scripts.
fn key_name(number: KeyId) -> String {
    match number % 4 {
        0 => format!("key-{number}"),
        1 => format!("a folder/key {number}.gif"),
        2 => format!("ключ.{number}"),
        _ => format!("Key%{number}?&#"),
    }
}

impl Shared {
    /// Waits until every request has been answered, and lets none begin.
    pub(crate) async fn silence(&self) -> Silence<'_> {
        self.gate.write().await
    }

    /// With `gentle`, cached images stay cached: no client clears the cache, deletes all images, or makes the cache
    /// small.
    pub(crate) async fn be_gentle(&self, gentle: bool) {
        self.is_gentle.store(gentle, Ordering::SeqCst);
        // The operator's present work is over once its lock is free.
        drop(self.operator.lock().await);
    }

    /// The changes of the configuration so far.
    pub(crate) fn changes(&self) -> Vec<Change> {
        self.locked_changes().clone()
    }

    fn locked_changes(&self) -> MutexGuard<'_, Vec<Change>> {
        self.changes.lock()
    }

    /// How many keys there are.
    pub(crate) fn key_count(&self) -> usize {
        self.keys.len()
    }

    /// The numbers of the keys that stay.
    pub(crate) fn steady_keys(&self) -> std::ops::Range<KeyId> {
        KEYS..KEYS + STEADY_KEYS
    }

    /// Reads every key through every gateway, all gateways at once.
    pub(crate) async fn read_back(self: &Arc<Self>) {
        let readers = (0..self.ports.len()).map(|gateway| {
            let shared = Arc::clone(self);
            async move {
                let mut actor = Actor::new(&shared, 0, 0, Some(gateway));
                for key in 0..shared.key_count() {
                    let _seen = actor.read(gateway, key, false).await;
                }
            }
        });
        futures_util::future::join_all(readers).await;
    }

    /// Stores an image under each steady key, and reads each through every gateway until the cache has it.
    pub(crate) async fn settle_steady_keys(self: &Arc<Self>) -> bool {
        let mut actor = Actor::new(self, 0, 0, None);
        for key in self.steady_keys() {
            for gateway in 0..self.ports.len() {
                if !actor.settle(gateway, key).await {
                    return false;
                }
            }
        }
        true
    }

    /// One of the keys that all clients change, at random.
    pub(crate) fn some_key(&self, random: &mut StdRng) -> KeyId {
        random.random_range(0..KEYS)
    }

    /// Reads an image through a gateway until that answers from a copy of its own, or clearly makes none: there
    /// may be no worker, or a policy that keeps nothing.
    pub(crate) async fn make_copy(self: &Arc<Self>, gateway: usize, key: KeyId) {
        let mut actor = Actor::new(self, 0, 0, None);
        for _ in 0..COPY_TRIES {
            match actor.read(gateway, key, false).await {
                (Ok(Seen::Nothing), _) => actor.store(1 - gateway, key, 2_000).await,
                (_, Some(CacheWord::Near)) => return,
                _ => sleep(READ_EVERY).await,
            }
        }
    }

    /// Replaces an image through the other gateway, and reads it through this one until after that was answered.
    pub(crate) async fn replace_while_read(self: &Arc<Self>, gateway: usize, key: KeyId) {
        let answered = AtomicBool::new(false);
        let write = async {
            Actor::new(self, 0, 0, None).store(1 - gateway, key, 2_000).await;
            answered.store(true, Ordering::SeqCst);
        };
        let read = async {
            let mut actor = Actor::new(self, 0, 0, None);
            loop {
                let is_last = answered.load(Ordering::SeqCst);
                let _seen = actor.read(gateway, key, false).await;
                if is_last {
                    return;
                }
                sleep(READ_EVERY).await;
            }
        };
        tokio::join!(write, read);
    }

    /// Replaces images through the other gateway while this one stands still, and reads them through this one
    /// before and after: requests that wait there until it goes on.
    pub(crate) async fn replace_while_it_stands_still(self: &Arc<Self>, gateway: usize, keys: &[KeyId]) {
        let changes = keys.iter().map(|key| async {
            let read = async || {
                let _seen = Actor::new(self, 0, 0, None).read(gateway, *key, false).await;
            };
            let change = async {
                Actor::new(self, 0, 0, None).store(1 - gateway, *key, 2_000).await;
                read().await;
            };
            tokio::join!(read(), change);
        });
        futures_util::future::join_all(changes).await;
    }

    /// Makes this the configuration of the cache.
    pub(crate) async fn configure(self: &Arc<Self>, setting: &Setting) {
        let _one_at_a_time = self.operator.lock().await;
        Actor::new(self, 0, 0, None).configure(0, Some(setting.clone())).await;
    }

    /// Clears the cache.
    pub(crate) async fn clear(self: &Arc<Self>) {
        let _one_at_a_time = self.operator.lock().await;
        Actor::new(self, 0, 0, None).configure(0, None).await;
    }

    /// Keeps clients from changing the configuration and clearing the cache, as long as the returned guard lives.
    pub(crate) async fn without_operator(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.operator.lock().await
    }

    /// The configuration that a gateway reports to be in force.
    pub(crate) async fn in_force(&self, gateway: usize) -> Option<InForce> {
        let answer =
            Client::new(self.ports[gateway]).send("GET", "/api/cache", &[], Bytes::new()).await.ok()?;
        serde_json::from_slice(&answer.body).ok()
    }
}

/// One client.
struct Actor {
    shared: Arc<Shared>,
    random: StdRng,
    /// The gateway that it knows; else it takes either.
    gateway: Option<usize>,
    connections: [Client; 2],
    /// The image that it has last seen under each key.
    held: BTreeMap<KeyId, ImageId>,
    is_probe: bool,
    /// Whether its last change was refused: then it waits a little, as `Retry-After` asks for.
    is_turned_away: bool,
}

impl Actor {
    fn new(shared: &Arc<Shared>, seed: u64, number: usize, gateway: Option<usize>) -> Self {
        let random = StdRng::seed_from_u64(seed ^ (number as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let connections = shared.ports.map(Client::new);
        Self {
            shared: Arc::clone(shared),
            random,
            gateway,
            connections,
            held: BTreeMap::new(),
            is_probe: false,
            is_turned_away: false,
        }
    }

    /// Makes random requests until it is stopped, which happens only between two requests.
    async fn change_and_read(mut self, pace: Pace) {
        loop {
            let was_turned_away = std::mem::take(&mut self.is_turned_away);
            let pauses = if was_turned_away { 300..=1000 } else { 2..=pace.longest_pause_ms };
            let pause = self.random.random_range(pauses);
            sleep(Duration::from_millis(pause)).await;
            let shared = Arc::clone(&self.shared);
            let _open = shared.gate.read().await;
            let gateway = self.pick_gateway();
            let key = self.random.random_range(0..KEYS).min(self.random.random_range(0..KEYS));
            match self.random.random_range(0..100) {
                0..68 => {
                    let again = self.random.random_range(0..8) == 0;
                    let _seen = self.read(gateway, key, again).await;
                }
                68..71 => self.read_json(gateway, key).await,
                71..73 => self.list(gateway).await,
                73..77 => self.delete(gateway, key).await,
                _ => {
                    let size = self.pick_size();
                    self.store(gateway, key, size).await;
                }
            }
        }
    }

    /// Reads the images that no client changes, again and again.
    async fn probe(mut self, pace: Pace) {
        self.is_probe = true;
        loop {
            sleep(pace.probe_every).await;
            let shared = Arc::clone(&self.shared);
            let _open = shared.gate.read().await;
            let gateway = self.pick_gateway();
            let key = self.random.random_range(shared.steady_keys());
            let _seen = self.read(gateway, key, false).await;
        }
    }

    /// Changes the configuration, clears the cache, and now and then deletes everything.
    async fn operate(mut self) {
        loop {
            let pause = self.random.random_range(200..1500);
            sleep(Duration::from_millis(pause)).await;
            let shared = Arc::clone(&self.shared);
            let _open = shared.gate.read().await;
            let _one_at_a_time = shared.operator.lock().await;
            let is_gentle = shared.is_gentle.load(Ordering::SeqCst);
            let gateway = self.pick_gateway();
            match self.random.random_range(0..100) {
                0..55 => {
                    let (capacities, policies) = if is_gentle {
                        (&[64, 80, 96][..], &["lru", "clock_pro"][..])
                    } else {
                        (
                            &[2, 8, 32, 64, 96][..],
                            &["lru", "clock_pro", "random", "lru", "clock_pro", "none"][..],
                        )
                    };
                    let setting = Setting {
                        capacity_mb: capacities[self.random.random_range(0..capacities.len())],
                        policy: policies[self.random.random_range(0..policies.len())].to_owned(),
                    };
                    self.configure(gateway, Some(setting)).await;
                }
                55..85 if !is_gentle => self.configure(gateway, None).await,
                85..100 if !is_gentle => {
                    self.delete_all(gateway).await;
                    for key in shared.steady_keys() {
                        self.store(gateway, key, 2_000).await;
                    }
                }
                _ => {}
            }
        }
    }

    fn pick_gateway(&mut self) -> usize {
        self.gateway.unwrap_or_else(|| self.random.random_range(0..2))
    }

    /// From one kilobyte to more than the bus carries.
    fn pick_size(&mut self) -> usize {
        match self.random.random_range(0..1000) {
            0..700 => self.random.random_range(1_000..20_000),
            700..950 => self.random.random_range(20_000..200_000),
            950..996 => self.random.random_range(200_000..2_000_000),
            _ => self.random.random_range(8_500_000..9_500_000),
        }
    }

    fn note(&mut self, gateway: usize, start: Moment, did: Did) {
        if let Did::Wrote { outcome: Outcome::Unknown(_) | Outcome::NotSent, .. } = did {
            self.is_turned_away = true;
        }
        let end = self.shared.history.now();
        self.shared.history.note(Record { is_probe: self.is_probe, gateway, start, end, did });
    }

    async fn send(
        &mut self,
        gateway: usize,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Result<Answer, NoAnswer> {
        self.connections[gateway].send(method, path, headers, body).await
    }

    /// Reads an image; `again` says which one is held already, if one is.
    async fn read(
        &mut self,
        gateway: usize,
        key: KeyId,
        again: bool,
    ) -> (Result<Seen, Failure>, Option<CacheWord>) {
        let path = format!("/images/{}", self.shared.paths[key]);
        let held = self.held.get(&key).copied().filter(|_| again);
        let tag = held.and_then(|id| self.shared.history.hash_of(id)).map(|hash| quoted(&hash));
        let mut headers = Vec::new();
        if let Some(tag) = &tag {
            headers.push(("If-None-Match", tag.as_str()));
        }
        let start = self.shared.history.now();
        let answer = self.send(gateway, "GET", &path, &headers, Bytes::new()).await;
        let (seen, cache) = match answer {
            Ok(answer) => {
                let seen = match (answer.status, held) {
                    (200, _) => Ok(self.shared.history.recognize(&answer.body)),
                    (304, Some(id)) => Ok(Seen::Image(id)),
                    (404, _) => Ok(Seen::Nothing),
                    (status, _) => Err(Failure::Status(status)),
                };
                (seen, answer.cache)
            }
            Err(none) => (Err(none.failure), none.cache),
        };
        if let Ok(Seen::Image(id)) = seen {
            self.held.insert(key, id);
        }
        self.note(gateway, start, Did::Read { key, seen, cache });
        (seen, cache)
    }

    /// Reads an image until the cache has it, and stores one if there is none.
    async fn settle(&mut self, gateway: usize, key: KeyId) -> bool {
        let begin = Instant::now();
        while begin.elapsed() < SETTLE_LIMIT {
            match self.read(gateway, key, false).await {
                (Ok(Seen::Image(_)), Some(CacheWord::Hit | CacheWord::Near)) => return true,
                (Ok(Seen::Nothing), _) => self.store(gateway, key, 2_000).await,
                _ => sleep(SETTLE_EVERY).await,
            }
        }
        false
    }

    /// Reads an image as the JSON API has it.
    async fn read_json(&mut self, gateway: usize, key: KeyId) {
        #[derive(Deserialize)]
        struct Content {
            content: String,
        }
        let path = format!("/api/key/{}", self.shared.paths[key]);
        let start = self.shared.history.now();
        let answer = self.send(gateway, "POST", &path, &[], Bytes::new()).await;
        let (seen, cache) = match answer {
            Ok(answer) => {
                let seen = match answer.status {
                    200 => {
                        let content: Option<Content> = serde_json::from_slice(&answer.body).ok();
                        let bytes = content.and_then(|content| BASE64.decode(content.content).ok());
                        Ok(bytes.map_or(Seen::Damaged, |bytes| self.shared.history.recognize(&bytes)))
                    }
                    404 => Ok(Seen::Nothing),
                    status => Err(Failure::Status(status)),
                };
                (seen, answer.cache)
            }
            Err(none) => (Err(none.failure), none.cache),
        };
        self.note(gateway, start, Did::Read { key, seen, cache });
    }

    async fn list(&mut self, gateway: usize) {
        #[derive(Deserialize)]
        struct List {
            keys: Vec<String>,
        }
        let start = self.shared.history.now();
        let keys = match self.send(gateway, "POST", "/api/list_keys", &[], Bytes::new()).await {
            Ok(answer) if answer.status == 200 => {
                let list: Result<List, _> = serde_json::from_slice(&answer.body);
                let number_of = |name: &String| self.shared.keys.iter().position(|key| key == name);
                list.map(|list| list.keys.iter().filter_map(number_of).collect()).map_err(|_| Failure::Lost)
            }
            Ok(answer) => Err(Failure::Status(answer.status)),
            Err(none) => Err(none.failure),
        };
        self.note(gateway, start, Did::Listed { keys });
    }

    /// Uploads an image, as a program or as a form does.
    async fn store(&mut self, gateway: usize, key: KeyId, size: usize) {
        let (id, bytes) = self.shared.history.next_image(key, size);
        let is_form = self.random.random_range(0..3) == 0;
        let start = self.shared.history.now();
        let answer = if is_form {
            let content_type = format!("multipart/form-data; boundary={BOUNDARY}");
            let body = form(&self.shared.keys[key], &bytes);
            self.send(gateway, "POST", "/api/upload", &[("Content-Type", &content_type)], body).await
        } else {
            let path = format!("/images/{}", self.shared.paths[key]);
            self.send(gateway, "PUT", &path, &[], bytes.into()).await
        };
        let outcome = outcome(&answer, |status| match status {
            200 if is_form => Some(None),
            200 => Some(Some(true)),
            201 => Some(Some(false)),
            _ => None,
        });
        self.note(gateway, start, Did::Wrote { key, image: Some(id), outcome });
    }

    async fn delete(&mut self, gateway: usize, key: KeyId) {
        let path = format!("/images/{}", self.shared.paths[key]);
        let start = self.shared.history.now();
        let answer = self.send(gateway, "DELETE", &path, &[], Bytes::new()).await;
        let outcome = outcome(&answer, |status| match status {
            204 => Some(Some(true)),
            404 => Some(Some(false)),
            _ => None,
        });
        self.note(gateway, start, Did::Wrote { key, image: None, outcome });
    }

    async fn delete_all(&mut self, gateway: usize) {
        let start = self.shared.history.now();
        let answer = self.send(gateway, "POST", "/api/delete_all", &[], Bytes::new()).await;
        let outcome = outcome(&answer, |status| (status == 200).then_some(None));
        self.note(gateway, start, Did::DeletedAll { outcome });
    }

    /// Changes the configuration, or with `None` clears the cache.
    async fn configure(&mut self, gateway: usize, asked: Option<Setting>) {
        let start = self.shared.history.now();
        let json = [("Content-Type", "application/json")];
        let answer = match &asked {
            Some(setting) => {
                let body =
                    format!(r#"{{"capacity_mb":{},"policy":"{}"}}"#, setting.capacity_mb, setting.policy);
                self.send(gateway, "PUT", "/api/cache", &json, body.into()).await
            }
            None => self.send(gateway, "POST", "/api/cache/clear", &[], Bytes::new()).await,
        };
        let answered = match &answer {
            Ok(answer) if answer.status == 200 => serde_json::from_slice(&answer.body).ok(),
            Err(NoAnswer { failure: Failure::NotSent, .. }) => return,
            _ => None,
        };
        let end = self.shared.history.now();
        self.shared.locked_changes().push(Change { start, end, asked, answered });
    }
}

/// The outcome of a change. `done` tells from the status of a success whether there was an image before.
fn outcome(answer: &Result<Answer, NoAnswer>, done: impl Fn(u16) -> Option<Option<bool>>) -> Outcome {
    match answer {
        Ok(answer) => match done(answer.status) {
            Some(found) => Outcome::Done { found },
            None if answer.status == 503 && is_still_telling(&answer.body) => Outcome::StillTelling,
            None => Outcome::Unknown(Failure::Status(answer.status)),
        },
        Err(NoAnswer { failure: Failure::NotSent, .. }) => Outcome::NotSent,
        Err(none) => Outcome::Unknown(none.failure),
    }
}

/// Whether a failure says that the change is made and the cache does not know it yet.
fn is_still_telling(body: &[u8]) -> bool {
    let text = String::from_utf8_lossy(body);
    text.contains("still being told") && !text.contains("nothing was changed")
}

/// A hash as an entity tag.
fn quoted(hash: &[u8; 32]) -> String {
    let mut text = String::from("\"");
    for byte in hash {
        // Writing to a string never fails.
        let _ = write!(text, "{byte:02x}");
    }
    text.push('"');
    text
}

fn form(key: &str, bytes: &[u8]) -> Bytes {
    let mut body = format!(
        "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"key\"\r\n\r\n{key}\r\n\
         --{BOUNDARY}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"x.gif\"\r\n\r\n"
    )
    .into_bytes();
    body.extend_from_slice(bytes);
    body.extend_from_slice(format!("\r\n--{BOUNDARY}--\r\n").as_bytes());
    body.into()
}
