//! The NATS service `memcache`: turns messages into calls of the store, and their results into replies.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use async_nats::Client;
use async_nats::service::endpoint::Endpoint;
use async_nats::service::{Request, Service, ServiceExt as _};
use bytes::Bytes;
use futures_util::StreamExt as _;
use runtime::bus::meta_of;
use runtime::clock::Moment;
use runtime::service::{Answer, metadata, parse_json, parse_object, respond};
use sha2::{Digest as _, Sha256};
use sniff::{Format, Limits, SniffError};
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use wire::event::KeyEventKind;
use wire::inspect::{
    ClearRequest, InvalidateReply, KeysRequest, PutReply, ServicePing, WatchReply, WatchRequest,
};
use wire::near::{HitsReply, HitsReport, MOST_KEYS_REPORTED};
use wire::reply::{Code, Refusal};
use wire::words::shown;
use wire::{Item, Meta, Tag, subject};

use crate::holders::Drop;
use crate::live::{self, Live};
use crate::near;
use crate::store::{Entry, Insert, Lookup};
use crate::watch::MAX_EVENTS_PER_SECOND;
use crate::worker::{Worker, not_serving};

/// The queue group of all endpoints: one of its members gets each message.
const QUEUE_GROUP: &str = "memcache";
/// The queue group of the endpoint for unknown commands. A server delivers a message to one matching subscription
/// in each group. In a group with the others, this endpoint would get some of the known commands.
const UNKNOWN_QUEUE_GROUP: &str = "memcache-unknown";
/// From this many bytes on, a hash is computed off the threads that serve.
const LARGE_BYTES: usize = 256 << 10;
/// The most bytes that wait for one endpoint. They are counted in units of [`WAITING_UNIT`] bytes.
const WAITING_BYTES: usize = 32 << 20;
const WAITING_UNIT: usize = 1024;
/// The most entries in one answer to `cache.keys`.
const MOST_KEYS: u32 = 1000;
/// The longest watch, in seconds.
const LONGEST_WATCH_S: u32 = 3600;

/// The endpoints: subscribed, but not read yet.
pub struct Endpoints {
    service: Service,
    get: Endpoint,
    put: Endpoint,
    invalidate: Endpoint,
    clear: Endpoint,
    config: Endpoint,
    stats: Endpoint,
    keys: Endpoint,
    watch: Endpoint,
    near_hits: Endpoint,
    unknown: Endpoint,
}

impl Endpoints {
    /// Puts the service on the bus.
    ///
    /// # Errors
    /// When a subscription can't be made.
    pub async fn subscribe(worker: &Worker) -> Result<Self, async_nats::Error> {
        let client = worker.bus.client();
        let service = client
            .service_builder()
            .description("Keeps image bytes in memory")
            .queue_group(QUEUE_GROUP)
            .metadata(metadata([
                ("worker", worker.name.clone()),
                ("incarnation", worker.incarnation.clone()),
                ("state", ServicePing::SERVING.to_owned()),
            ]))
            .start(subject::MEMCACHE_SERVICE, env!("CARGO_PKG_VERSION"))
            .await?;
        // Invalidations first: a get must not be served before they can arrive.
        Ok(Self {
            invalidate: service.endpoint_builder().name("invalidate").add(subject::INVALIDATE).await?,
            clear: service.endpoint_builder().name("clear").add(subject::CLEAR).await?,
            config: service.endpoint_builder().name("config").add(subject::ANY_CONFIG_COMMAND).await?,
            get: service.endpoint_builder().name("get").add(subject::GET).await?,
            put: service.endpoint_builder().name("put").add(subject::PUT).await?,
            stats: service.endpoint_builder().name("stats").add(subject::STATS).await?,
            keys: service.endpoint_builder().name("keys").add(subject::KEYS).await?,
            watch: service.endpoint_builder().name("watch").add(subject::WATCH).await?,
            near_hits: service.endpoint_builder().name("near_hits").add(subject::NEAR_HITS).await?,
            unknown: service
                .endpoint_builder()
                .name("unknown")
                .queue_group(UNKNOWN_QUEUE_GROUP)
                .add(subject::ANY_COMMAND)
                .await?,
            service,
        })
    }

    /// Reads get and put until `stop.reads`, and the other endpoints until `stop.rest`. Each then answers the requests
    /// that have already come. `spawn` starts one endpoint's loop in the group that it belongs to.
    pub fn serve(
        self,
        worker: &Arc<Worker>,
        live: &Arc<Live>,
        stop: &Stop,
        mut spawn: impl FnMut(&'static str, Group, Loop),
    ) {
        let mut start = |name, group, endpoint, handle: Handle| {
            let stop = if group == Group::Reads { &stop.reads } else { &stop.rest };
            spawn(
                name,
                group,
                Box::pin(answer_all(endpoint, stop.clone(), worker.clone(), live.clone(), handle)),
            );
        };
        start("endpoint get", Group::Reads, self.get, Handle::Get);
        start("endpoint put", Group::Reads, self.put, Handle::Put);
        start("endpoint invalidate", Group::Rest, self.invalidate, Handle::Invalidate);
        start("endpoint clear", Group::Rest, self.clear, Handle::Clear);
        start("endpoint config", Group::Rest, self.config, Handle::Config);
        start("endpoint stats", Group::Rest, self.stats, Handle::Stats);
        start("endpoint keys", Group::Rest, self.keys, Handle::Keys);
        start("endpoint watch", Group::Rest, self.watch, Handle::Watch);
        start("endpoint near_hits", Group::Rest, self.near_hits, Handle::NearHits);
        start("endpoint unknown", Group::Rest, self.unknown, Handle::Unknown);
        let stopped = stop.rest.clone();
        let service = self.service;
        spawn(
            "service",
            Group::Rest,
            Box::pin(async move {
                stopped.cancelled().await;
                let _ = service.stop().await;
            }),
        );
    }
}

/// Announces on the bus, without any endpoint, that this worker stands by: until [`Service::stop`].
///
/// # Errors
/// When a subscription can't be made.
pub async fn stand_by(client: &Client, worker: &str) -> Result<Service, async_nats::Error> {
    let said = [("worker", worker.to_owned()), ("state", ServicePing::STANDING_BY.to_owned())];
    let service = client.service_builder().description("Waits for the claim to serve");
    let service = service.queue_group(QUEUE_GROUP).metadata(metadata(said));
    service.start(subject::MEMCACHE_SERVICE, env!("CARGO_PKG_VERSION")).await
}

/// One endpoint's loop.
pub type Loop = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

/// When the two groups of endpoints stop.
#[derive(Debug, Clone, Default)]
pub struct Stop {
    /// Get and put: first, because an entry that is served while invalidations no longer arrive could be stale.
    pub reads: CancellationToken,
    /// All others.
    pub rest: CancellationToken,
}

/// The group that an endpoint belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    /// Get and put.
    Reads,
    /// All others.
    Rest,
}

#[derive(Clone, Copy)]
enum Handle {
    Get,
    Put,
    Invalidate,
    Clear,
    Config,
    Stats,
    Keys,
    Watch,
    NearHits,
    Unknown,
}

/// The outcome of a request.
enum Handled {
    /// The answer.
    Now(Answer),
    /// The answer, sent when no holder of a near lease serves an older copy any more. Other requests are handled
    /// meanwhile.
    Later(Drop, Answer),
    /// No answer from here, because another endpoint answers.
    Elsewhere,
}

impl Handle {
    /// Whether answering takes longer than reading. Requests that come meanwhile then have to wait.
    fn takes_time(self) -> bool {
        matches!(self, Self::Put | Self::Clear | Self::Config)
    }
}

async fn answer_all(
    mut endpoint: Endpoint,
    stop: CancellationToken,
    worker: Arc<Worker>,
    live: Arc<Live>,
    handle: Handle,
) {
    let mut stopping = false;
    let later = TaskTracker::new();
    if !handle.takes_time() {
        while let Some(request) = next(&mut endpoint, &stop, &mut stopping).await {
            answer(handle, &worker, &live, request, Moment::now(), &later).await;
        }
        later.close();
        later.wait().await;
        return;
    }
    // The library keeps thousands of messages for a subscription, however large they are. So messages are taken
    // from it at once, and those beyond the limit are refused.
    let room = Arc::new(Semaphore::new(WAITING_BYTES / WAITING_UNIT));
    let (wait, mut waiting) = mpsc::unbounded_channel();
    let bus = worker.bus.clone();
    let taking = async move {
        while let Some(request) = next(&mut endpoint, &stop, &mut stopping).await {
            let units = request.message.length.div_ceil(WAITING_UNIT).max(1);
            let units = u32::try_from(units).unwrap_or(u32::MAX);
            let unsent = match room.clone().try_acquire_many_owned(units) {
                Ok(place) => wait.send((request, place, Moment::now())).err().map(|unsent| unsent.0.0),
                Err(_) => Some(request),
            };
            if let Some(request) = unsent {
                let message = "too many bytes wait for being looked at; ask again in a moment";
                respond(&bus, &request, Answer::refuse(Code::Unavailable, message)).await;
            }
        }
    };
    let answering = async {
        while let Some((request, _place, arrived)) = waiting.recv().await {
            answer(handle, &worker, &live, request, arrived, &later).await;
        }
    };
    tokio::join!(taking, answering);
    later.close();
    later.wait().await;
}

/// The next request. After the stop, only requests that had come before it; `None` when they are used up.
async fn next(endpoint: &mut Endpoint, stop: &CancellationToken, stopping: &mut bool) -> Option<Request> {
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled(), if !*stopping => {
                *stopping = true;
                if let Err(error) = endpoint.stop().await {
                    tracing::debug!(%error, "an endpoint was not unsubscribed");
                }
            }
            request = endpoint.next() => return request,
        }
    }
}

async fn answer(
    handle: Handle,
    worker: &Arc<Worker>,
    live: &Live,
    mut request: Request,
    arrived: Moment,
    later: &TaskTracker,
) {
    let handled = match handle {
        Handle::Get => Handled::Now(get(worker, &request)),
        Handle::Put => put(worker, &request).await,
        Handle::Invalidate => invalidate(worker, &request),
        Handle::Clear => clear(worker, live, &request, arrived).await,
        Handle::Config => config(worker, live, &request, arrived).await,
        Handle::Stats => Handled::Now(Answer::json(&worker.stats())),
        Handle::Keys => Handled::Now(keys(worker, &request)),
        Handle::Watch => Handled::Now(watch(worker, &request)),
        Handle::NearHits => Handled::Now(near_hits(worker, &request)),
        Handle::Unknown => unknown(&request).map_or(Handled::Elsewhere, Handled::Now),
    };
    match handled {
        Handled::Now(answer) => respond(&worker.bus, &request, answer).await,
        Handled::Later(drop, answer) if near::is_done(worker, &drop) => {
            respond(&worker.bus, &request, if_serving(worker, answer)).await;
        }
        Handled::Later(drop, answer) => {
            let worker = worker.clone();
            // Many requests may wait here, and none needs its payload any more.
            request.message.payload = Bytes::new();
            later.spawn(async move {
                near::tell(&worker, &drop).await;
                respond(&worker.bus, &request, if_serving(&worker, answer)).await;
            });
        }
        Handled::Elsewhere => {}
    }
}

/// The result of `change`, or a refusal as soon as the claim ends: a life that is over does not wait for JetStream.
async fn while_claimed<T>(
    worker: &Worker,
    change: impl Future<Output = Result<T, Refusal>>,
) -> Result<T, Refusal> {
    tokio::select! {
        biased;
        changed = change => changed,
        () = worker.claim.ended() => {
            Err(live::unknown(&"this worker has lost the claim to serve meanwhile"))
        }
    }
}

/// Only the worker that serves acknowledges (rule 9). On a new connection another worker may have the claim already,
/// and an acknowledgement by this one would say nothing about the other.
fn if_serving(worker: &Worker, answer: Answer) -> Answer {
    if worker.is_serving() { answer } else { Answer::Refused(not_serving(), None) }
}

/// The answer to a change that has been made: sent when the holders that `drop` names have been told.
fn later(drop: Option<Drop>, answer: Answer) -> Handled {
    match drop {
        Some(drop) => Handled::Later(drop, answer),
        None => Handled::Now(answer),
    }
}

fn item_and_meta(request: &Request) -> Result<(Item, Meta), Refusal> {
    let bad = |sentence| Refusal::new(Code::BadRequest, sentence);
    let item = subject::item_of(&request.message.subject).map_err(bad)?;
    let meta = meta_of(request.message.headers.as_ref()).map_err(bad)?;
    Ok((item, meta))
}

fn get(worker: &Worker, request: &Request) -> Answer {
    let (item, asked) = match item_and_meta(request) {
        Ok(parsed) => parsed,
        Err(refusal) => return Answer::Refused(refusal, None),
    };
    let most = match most_of(&request.message.payload) {
        Ok(most) => most,
        Err(refusal) => return Answer::Refused(refusal, None),
    };
    if asked.renewal {
        return renew(worker, &item, &asked);
    }
    // A lease given to a person's get would keep the gateways from filling the entry until the lease ends.
    let may_fill = request.message.reply.as_deref().is_some_and(subject::is_inbox_of_gateway);
    let (found, granted) = worker.get(&item, &asked, most, may_fill);
    let granted_ms = granted.map(millis);
    match found {
        Lookup::Hit(entry) => {
            worker.watch.tell(KeyEventKind::Hit, &item, entry.size());
            Answer::WithMeta(entry.bytes(), Meta { granted_ms, ..meta_of_entry(&entry) })
        }
        Lookup::Fresh(entry) => {
            worker.watch.tell(KeyEventKind::Hit, &item, entry.size());
            Answer::WithMeta(Bytes::new(), Meta { fresh: true, granted_ms, ..meta_of_entry(&entry) })
        }
        Lookup::Miss(lease) => {
            worker.watch.tell(KeyEventKind::Miss, &item, 0);
            let refusal = Refusal::new(Code::NotFound, "miss: the cache has no entry under this key");
            Answer::Refused(refusal, lease.map(|lease| Meta { lease: Some(lease), ..Meta::default() }))
        }
        Lookup::Larger(size) => {
            let message =
                format!("the image must be at most {most} bytes, as the request says, and has {size}");
            let meta = Meta { size: Some(size), ..Meta::default() };
            Answer::Refused(Refusal::new(Code::TooLarge, message), Some(meta))
        }
    }
}

/// The most bytes that the sender of a get has room for; without a number in the payload there is no limit.
fn most_of(payload: &[u8]) -> Result<u64, Refusal> {
    if payload.is_empty() {
        return Ok(u64::MAX);
    }
    let number = std::str::from_utf8(payload).ok().and_then(|text| text.trim_ascii().parse().ok());
    number.ok_or_else(|| {
        let got = shown(&String::from_utf8_lossy(payload));
        let message =
            format!("the payload must be empty, or the most bytes to answer with, such as 65536, got {got}");
        Refusal::new(Code::BadRequest, message)
    })
}

/// Renews the near lease of a gateway that holds a copy. It sends no bytes and counts no hit.
fn renew(worker: &Worker, item: &Item, asked: &Meta) -> Answer {
    let (Some(tag), Some(holder)) = (asked.tag, asked.near) else {
        return Answer::refuse(
            Code::BadRequest,
            "a renewal must have tag and near in the header Pixcache, got no such pair",
        );
    };
    match worker.renew(item, &tag, holder) {
        Some(granted) => {
            let meta = Meta { fresh: true, granted_ms: Some(millis(granted)), ..Meta::default() };
            Answer::WithMeta(Bytes::new(), meta)
        }
        None => Answer::refuse(
            Code::NotFound,
            "no near lease is granted: no entry with this tag is in the cache, or the leases are off",
        ),
    }
}

fn millis(length: Duration) -> u64 {
    u64::try_from(length.as_millis()).unwrap_or(u64::MAX)
}

fn near_hits(worker: &Worker, request: &Request) -> Answer {
    let example = r#"{"holder":"00000000000000a7","number":1,"to":"0123456789abcdef","hits":[{"key":"cat","count":2,"bytes":2048}]}"#;
    let report: HitsReport = match parse_object(&request.message.payload, example) {
        Ok(report) => report,
        Err(refusal) => return Answer::Refused(refusal, None),
    };
    if report.hits.len() > MOST_KEYS_REPORTED {
        let message = format!("hits must be at most {MOST_KEYS_REPORTED} keys, got {}", report.hits.len());
        return Answer::refuse(Code::BadRequest, message);
    }
    match worker.count_near_hits(&report) {
        Some(counted) => {
            for hits in report.hits.iter().filter(|hits| counted && hits.count > 0) {
                let item = Item { key: hits.key.clone(), variant: hits.variant };
                worker.watch.tell_near(&item, hits.bytes / hits.count, hits.count);
            }
            Answer::json(&HitsReply { counted, by: worker.incarnation.clone() })
        }
        None => Answer::Refused(not_serving(), None),
    }
}

fn meta_of_entry(entry: &Entry) -> Meta {
    Meta {
        content_type: Some(entry.format().content_type().to_owned()),
        tag: Some(entry.tag),
        modified_s: Some(entry.modified_s),
        ..Meta::default()
    }
}

async fn put(worker: &Worker, request: &Request) -> Handled {
    match try_put(worker, request).await {
        Ok((drop, reply)) => later(drop, answer_of(reply)),
        Err(refusal) => Handled::Now(Answer::Refused(refusal, None)),
    }
}

/// The answer, and the holders of the replaced copy, which must be told first. An error means that no insertion was
/// tried.
async fn try_put(
    worker: &Worker,
    request: &Request,
) -> Result<(Option<Drop>, Result<PutReply, Refusal>), Refusal> {
    let (item, meta) = item_and_meta(request)?;
    let payload = &request.message.payload;
    if let (Some(size), true) = (meta.size, payload.is_empty()) {
        // A size without bytes stands for an image that is too large for the bus. It is counted and refused.
        let inserted = worker.reject(&item, meta.lease);
        let reply = outcome_of(worker, &item, size, inserted.outcome).map(|stored| PutReply {
            stored,
            bytes: size,
            content_type: String::new(),
            tag: String::new(),
            granted_ms: None,
        });
        return Ok((inserted.drop, reply));
    }
    let (format, tag) = examine(worker, &item, payload, &meta).await?;
    let bytes = payload.len() as u64;
    // An image that was put by hand gets no date: the origin never had it, so it has no date to compare with.
    let modified_s = meta.lease.and(meta.modified_s).unwrap_or(0);
    let entry = Entry::new(item.clone(), payload, format, tag, modified_s);
    let inserted = worker.insert(entry, &meta).ok_or_else(not_serving)?;
    let reply = outcome_of(worker, &item, bytes, inserted.outcome).map(|stored| PutReply {
        stored,
        bytes,
        content_type: format.content_type().to_owned(),
        tag: tag.to_string(),
        granted_ms: inserted.granted.map(millis),
    });
    Ok((inserted.drop, reply))
}

/// The answer to a put or fill: whether the image is resident, or the reason for its refusal.
fn outcome_of(worker: &Worker, item: &Item, bytes: u64, outcome: Insert) -> Result<bool, Refusal> {
    match outcome {
        Insert::Stored(evicted) => {
            worker.watch.tell(KeyEventKind::Put, item, bytes);
            for entry in &evicted {
                worker.watch.tell(KeyEventKind::Evicted, &entry.item(), entry.size());
            }
            Ok(true)
        }
        Insert::NotKept => Ok(false),
        Insert::Rejected { limit_bytes } => {
            worker.watch.tell(KeyEventKind::Rejected, item, bytes);
            let message = format!(
                "the image must be at most {limit_bytes} bytes (90 % of the capacity) and no more than the bus carries, \
                 got {bytes}"
            );
            Err(Refusal::new(Code::TooLarge, message))
        }
        Insert::Refused => Err(Refusal::new(
            Code::Conflict,
            "lease must be the current one of the key, got another: the image may have changed since it was read",
        )),
    }
}

/// The type and the tag of an image to be inserted, found from its bytes. The request's headers must agree with them.
///
/// Only the tag of a variant does not follow from its bytes. There the tag that the fill names is believed.
async fn examine(
    worker: &Worker,
    item: &Item,
    payload: &Bytes,
    meta: &Meta,
) -> Result<(Format, Tag), Refusal> {
    let is_fill = meta.lease.is_some();
    // The images of the origin were within its limits when they were stored, and nothing is decoded here.
    let max_pixels = if is_fill { u64::MAX } else { worker.max_pixels };
    let limits = Limits { max_pixels };
    let look = {
        let payload = payload.clone();
        move || {
            let image = sniff::sniff(&payload, limits)?;
            Ok::<_, SniffError>((image, Tag(Sha256::digest(&payload).into())))
        }
    };
    let seen = if payload.len() < LARGE_BYTES {
        look()
    } else {
        let task = tokio::task::spawn_blocking(look).await;
        task.map_err(|error| {
            tracing::error!(%error, "an image could not be examined");
            Refusal::new(Code::Internal, "the image could not be examined: try again")
        })?
    };
    let (image, tag) = seen.map_err(|error| {
        let code = match error {
            SniffError::Unsupported => Code::UnsupportedType,
            SniffError::TooManyPixels { .. } | SniffError::TooMuchWork { .. } => Code::TooLarge,
            SniffError::Empty | SniffError::Truncated { .. } | SniffError::Malformed { .. } => {
                Code::Unprocessable
            }
        };
        Refusal::new(code, error.to_string())
    })?;
    let format = image.format;
    // An original that is not wider than its variant is used as that variant.
    if let Some(variant) = item.variant.filter(|variant| image.width > variant.width()) {
        let message =
            format!("{variant} must be at most {} pixels wide, got {}", variant.width(), image.width);
        return Err(Refusal::new(Code::Unprocessable, message));
    }
    if let Some(claimed) = meta.content_type.as_deref().filter(|claimed| *claimed != format.content_type()) {
        let message =
            format!("type must be that of the bytes, {}, got {}", format.content_type(), shown(claimed));
        return Err(Refusal::new(Code::Unprocessable, message));
    }
    if let (true, Some(_), Some(claimed)) = (is_fill, item.variant, meta.tag) {
        return Ok((format, claimed));
    }
    if meta.tag.is_some_and(|claimed| claimed != tag) {
        return Err(Refusal::new(
            Code::Unprocessable,
            format!("tag must be the SHA-256 of the bytes, {tag}, got another"),
        ));
    }
    Ok((format, tag))
}

fn invalidate(worker: &Worker, request: &Request) -> Handled {
    let key = match subject::key_of(&request.message.subject) {
        Ok(key) => key,
        Err(sentence) => return Handled::Now(Answer::refuse(Code::BadRequest, sentence)),
    };
    // Removal and voiding of leases come first, then the near drops, then the acknowledgement (rule 3).
    let (removed, drop) = worker.invalidate(&key);
    for entry in &removed {
        worker.watch.tell(KeyEventKind::Invalidated, &entry.item(), entry.size());
    }
    let resident = !removed.is_empty();
    if !resident {
        worker.watch.tell(KeyEventKind::Invalidated, &key.into(), 0);
    }
    Handled::Later(drop, Answer::json(&InvalidateReply { resident, incarnation: worker.incarnation.clone() }))
}

async fn clear(worker: &Worker, live: &Live, request: &Request, arrived: Moment) -> Handled {
    let asked: ClearRequest = match parse_json(&request.message.payload, r#"{"by":"me"}, or nothing"#) {
        Ok(asked) => asked,
        Err(refusal) => return Handled::Now(Answer::Refused(refusal, None)),
    };
    let by = asked.by.as_deref().unwrap_or_default();
    if by.chars().count() > wire::config::MAX_BY_CHARS || by.chars().any(char::is_control) {
        let message = format!(
            "by must be up to {} characters of text without control characters, got {}",
            wire::config::MAX_BY_CHARS,
            shown(by)
        );
        return Handled::Now(Answer::refuse(Code::BadRequest, message));
    }
    match while_claimed(worker, live.clear(asked.by.as_deref(), arrived)).await {
        Ok((reply, drop)) => later(drop, Answer::json(&reply)),
        Err(refusal) => Handled::Now(Answer::Refused(refusal, None)),
    }
}

async fn config(worker: &Worker, live: &Live, request: &Request, arrived: Moment) -> Handled {
    match request.message.subject.as_str() {
        subject::CONFIG_GET => Handled::Now(answer_of(while_claimed(worker, live.get()).await)),
        subject::CONFIG_SET => {
            match while_claimed(worker, live.change(&request.message.payload, arrived)).await {
                Ok((reply, drop)) => later(drop, Answer::json(&reply)),
                Err(refusal) => Handled::Now(Answer::Refused(refusal, None)),
            }
        }
        subject::CONFIG_REFRESH => {
            Handled::Now(answer_of(while_claimed(worker, live.refresh(arrived)).await))
        }
        other => {
            let message = format!(
                "the subject must be cache.config.get, cache.config.set or cache.config.refresh, got {}",
                shown(other)
            );
            Handled::Now(Answer::refuse(Code::NotFound, message))
        }
    }
}

fn keys(worker: &Worker, request: &Request) -> Answer {
    let example = r#"{"prefix":"","limit":100,"after":null,"sort":"recent"}"#;
    let asked: KeysRequest = match parse_json(&request.message.payload, example) {
        Ok(asked) => asked,
        Err(refusal) => return Answer::Refused(refusal, None),
    };
    if !(1..=MOST_KEYS).contains(&asked.limit) {
        return Answer::refuse(
            Code::BadRequest,
            format!("limit must be a whole number from 1 to {MOST_KEYS}, got {}", asked.limit),
        );
    }
    match worker.store().keys(&asked, Moment::now()) {
        Ok(page) => Answer::json(&page),
        Err(error) => Answer::refuse(Code::BadRequest, error.to_string()),
    }
}

fn watch(worker: &Worker, request: &Request) -> Answer {
    let example = r#"{"seconds":60,"kinds":["hit","miss","put","evicted","invalidated","rejected"]}"#;
    let asked: WatchRequest = match parse_json(&request.message.payload, example) {
        Ok(asked) => asked,
        Err(refusal) => return Answer::Refused(refusal, None),
    };
    if !(1..=LONGEST_WATCH_S).contains(&asked.seconds) {
        let seconds = asked.seconds;
        let message = format!(
            "seconds must be a whole number from 1 to {LONGEST_WATCH_S}, got {seconds}, as in {example}"
        );
        return Answer::refuse(Code::BadRequest, message);
    }
    if asked.kinds.is_empty() {
        let message = format!("kinds must have at least one kind, got none, as in {example}");
        return Answer::refuse(Code::BadRequest, message);
    }
    worker.watch.extend(&asked.kinds, Duration::from_secs(u64::from(asked.seconds)));
    Answer::json(&WatchReply {
        worker: worker.name.clone(),
        incarnation: worker.incarnation.clone(),
        seconds: asked.seconds,
        kinds: asked.kinds,
        max_per_second: MAX_EVENTS_PER_SECOND,
    })
}

/// The refusal of an unknown command. `None` for the known ones: the pattern of this endpoint covers them too, and
/// their own endpoints answer.
fn unknown(request: &Request) -> Option<Answer> {
    let asked = request.message.subject.as_str();
    if [subject::CLEAR, subject::STATS, subject::KEYS, subject::WATCH].contains(&asked) {
        return None;
    }
    let message = format!(
        "the subject must be cache.get.<key>, cache.put.<key>, cache.invalidate.<key>, cache.clear, cache.config.get, \
         cache.config.set, cache.config.refresh, cache.stats, cache.keys or cache.watch, got {}",
        shown(asked)
    );
    Some(Answer::refuse(Code::NotFound, message))
}

fn answer_of<T: serde::Serialize>(result: Result<T, Refusal>) -> Answer {
    match result {
        Ok(value) => Answer::json(&value),
        Err(refusal) => Answer::Refused(refusal, None),
    }
}
