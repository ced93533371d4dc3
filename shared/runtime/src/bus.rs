//! The connection to NATS: made with back-off, watched by its events, closed in the right order.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use async_nats::connection::State;
use async_nats::{Client, ConnectOptions, Event, HeaderMap, Message, ServerError, StatusCode, jetstream};
use bytes::Bytes;
use futures_util::StreamExt as _;
use parking_lot::Mutex;
use tokio::sync::{oneshot, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use wire::reply::{Code, ERROR_CODE_HEADER, ERROR_HEADER};
use wire::{Meta, meta, subject};

use crate::args::NatsArgs;
use crate::wait;

/// How often an idle connection is pinged. With the library's own interval, a minute, a dead peer would be noticed
/// after three minutes.
const PING_INTERVAL: Duration = Duration::from_secs(10);
/// The longest pause between two attempts to reconnect.
const LONGEST_RECONNECT_PAUSE: Duration = Duration::from_secs(1);
/// How long one attempt to connect may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the wait for a message that proves a subscription lasts, before another one is sent.
const PROOF_PAUSE: Duration = Duration::from_millis(50);

/// The beginning of the server's refusal of a message or of a subscription. The subject follows it.
const PUBLISH_REFUSED: &str = "Permissions Violation for Publish to ";
const SUBSCRIPTION_REFUSED: &str = "Permissions Violation for Subscription to ";

/// When the client ends, its subscriptions end one after the other, within this time.
const DYING_TIME: Duration = Duration::from_secs(1);

/// A connection to NATS as one of the users of `nats.conf`. Clones share it.
#[derive(Debug, Clone)]
pub struct Bus {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    client: Client,
    jetstream: jetstream::Context,
    signs: Arc<Signs>,
    inbox: String,
    next_request: AtomicU64,
    waiting: Arc<Waiting>,
    /// The connection on which each stream was last seen to hold messages.
    filled_streams: Mutex<HashMap<&'static str, u64>>,
}

/// Requests that wait for their reply. The library's own table keeps an entry for each request that timed out, for
/// good; here the entry leaves with the request, however that ends.
type Waiting = Mutex<HashMap<u64, oneshot::Sender<Message>>>;

/// The state of the connection, as its events have told it so far.
#[derive(Debug)]
struct Signs {
    slow_consumers: AtomicU64,
    connections: watch::Sender<u64>,
    /// When the connection was made or lost.
    since: Mutex<SystemTime>,
    closed: watch::Sender<bool>,
    died: CancellationToken,
    /// Whether this user publishes nothing but answers.
    only_answers: bool,
    /// The right that the server refuses on this connection, if any.
    refusal: watch::Sender<Option<Refusal>>,
    refused_answers: AtomicU64,
}

/// A right that this user lacks, because `nats.conf` and this program don't match.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the NATS server refuses {user} {what} (is its nats.conf that of this version?)")]
pub struct Refusal {
    user: &'static str,
    what: String,
}

/// A user of `nats.conf`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct User {
    /// Its name.
    pub name: &'static str,
    /// Whether it publishes nothing but answers. The asker names the subject of an answer, and a subject that the
    /// server refuses is then the asker's fault, not a right that this user lacks.
    pub only_answers: bool,
}

impl User {
    /// A user that asks, or that publishes by itself.
    pub const fn asking(name: &'static str) -> Self {
        Self { name, only_answers: false }
    }

    /// A user that answers.
    pub const fn answering(name: &'static str) -> Self {
        Self { name, only_answers: true }
    }
}

/// No connection could be made.
#[derive(Debug, thiserror::Error)]
pub enum BusError {
    /// No server accepted the connection within the time for waiting.
    #[error(transparent)]
    Wait(#[from] wait::WaitError),
    /// The connection was made, but the inbox for replies could not be subscribed.
    #[error("the inbox for replies could not be subscribed")]
    Inbox(#[from] async_nats::SubscribeError),
}

/// The answer to a request.
#[derive(Debug)]
pub struct Reply {
    /// The body.
    pub payload: Bytes,
    /// The metadata in the header [`meta::HEADER`]; empty if there was none.
    pub meta: Meta,
}

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
pub enum RequestFailure {
    /// The service refused it, and says why. The metadata may hold the lease that a miss hands out.
    #[error(transparent)]
    Refused(Box<Refused>),
    /// No service listens on the subject.
    #[error("no service answers {0}")]
    NoResponders(String),
    /// No answer in time; the request may have had its effect.
    #[error("no answer on {subject} within {} ms", .limit.as_millis())]
    TimedOut {
        /// The subject asked on.
        subject: String,
        /// How long the request waited.
        limit: Duration,
    },
    /// Payload and headers are more than the server takes. Nothing was sent.
    #[error("the message must be at most {0} bytes, which is the most that the bus carries")]
    TooLarge(usize),
    /// There is no connection. Nothing was sent.
    #[error("not connected to NATS")]
    Disconnected,
    /// The request could not be sent, or its reply not be read.
    #[error("{0}")]
    Other(String),
}

impl RequestFailure {
    /// Whether it is known that the request had no effect.
    pub fn had_no_effect(&self) -> bool {
        match self {
            Self::Refused(_) | Self::NoResponders(_) | Self::TooLarge(_) | Self::Disconnected => true,
            Self::TimedOut { .. } | Self::Other(_) => false,
        }
    }
}

/// A refusal and what came with it.
#[derive(Debug, thiserror::Error)]
#[error("{refusal}")]
pub struct Refused {
    /// The code and the sentence.
    pub refusal: wire::reply::Refusal,
    /// The metadata of the reply.
    pub meta: Meta,
}

/// The reason why no connection was made, and what helps.
fn unconnected(error: &async_nats::ConnectError, user: &str) -> String {
    use async_nats::ConnectErrorKind as Kind;
    match error.kind() {
        Kind::AuthorizationViolation | Kind::Authentication => {
            let setting = user.strip_suffix("_own").unwrap_or(user).to_uppercase();
            format!(
                "the server refuses the user {user}; NATS_{setting}_PASSWORD must be the password that the server has \
                 for it"
            )
        }
        Kind::Io | Kind::Dns | Kind::TimedOut | Kind::ServerParse => {
            format!("{error}; start a nats-server there, or name another place with NATS_URL or NATS_PORT")
        }
        _ => error.to_string(),
    }
}

impl Bus {
    /// Connects as `user`, with `_INBOX_<user>` as the prefix of its inboxes, waiting for the server for at most
    /// `limit`. Once made, the connection is made again by itself whenever it is lost.
    ///
    /// `subscription_capacity` is the number of messages that one subscription holds before the client drops further
    /// ones. The memory for them is that number times the size of the messages.
    ///
    /// # Errors
    /// [`BusError`], after `limit`: the last reason says whether the server was away or the password wrong.
    pub async fn connect(
        args: &NatsArgs,
        user: User,
        password: &str,
        subscription_capacity: usize,
        limit: Duration,
    ) -> Result<Self, BusError> {
        let address = args.address();
        let User { name: user, only_answers } = user;
        let signs = Arc::new(Signs::new(only_answers));
        let client = wait::until(&format!("NATS at {address}"), limit, || {
            let options = ConnectOptions::new()
                .name(format!("pixcache {user}"))
                .user_and_password(user.to_owned(), password.to_owned())
                .custom_inbox_prefix(inbox_prefix(user))
                .ping_interval(PING_INTERVAL)
                .connection_timeout(CONNECT_TIMEOUT)
                .subscription_capacity(subscription_capacity)
                .reconnect_delay_callback(|attempts| {
                    let doubled = Duration::from_millis(25)
                        * 2u32.saturating_pow(u32::try_from(attempts.min(10)).unwrap_or(10));
                    doubled.min(LONGEST_RECONNECT_PAUSE)
                })
                .event_callback({
                    let signs = signs.clone();
                    move |event| {
                        signs.take(user, &event);
                        std::future::ready(())
                    }
                });
            let servers: Vec<String> = address.split(',').map(|url| url.trim().to_owned()).collect();
            async move { options.connect(servers).await.map_err(|error| unconnected(&error, user)) }
        })
        .await?;
        let jetstream = jetstream::context::ContextBuilder::new()
            .timeout(Duration::from_secs(5))
            .domain(subject::JETSTREAM_DOMAIN)
            .build(client.clone());
        let inbox = client.new_inbox();
        let waiting = Arc::new(Waiting::default());
        let mut replies = client.subscribe(format!("{inbox}.*")).await?;
        tokio::spawn({
            let (waiting, died) = (waiting.clone(), signs.died.clone());
            async move {
                while let Some(message) = replies.next().await {
                    let id = message.subject.rsplit('.').next().and_then(|id| id.parse().ok());
                    let asker = id.and_then(|id: u64| locked(&waiting).remove(&id));
                    // A reply whose request no longer waits came too late.
                    if let Some(asker) = asker {
                        let _ = asker.send(message);
                    }
                }
                // The client has ended, and all its subscriptions with it.
                died.cancel();
            }
        });
        let (next_request, filled_streams) = (AtomicU64::new(0), Mutex::default());
        let shared = Shared { client, jetstream, signs, inbox, next_request, waiting, filled_streams };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// The client of the library.
    pub fn client(&self) -> &Client {
        &self.shared.client
    }

    /// JetStream on this connection.
    pub fn jetstream(&self) -> &jetstream::Context {
        &self.shared.jetstream
    }

    /// Whether the client is connected, as far as it knows.
    pub fn is_connected(&self) -> bool {
        self.shared.client.connection_state() == State::Connected
    }

    /// The number of connections made so far, this one included. A new connection is counted before its first message
    /// is handled.
    pub fn connection_count(&self) -> u64 {
        self.shared.client.statistics().connects.load(Ordering::Acquire)
    }

    /// Whether the stream held messages when it was looked at on the present connection.
    pub(crate) fn has_seen_messages(&self, stream: &str) -> bool {
        locked(&self.shared.filled_streams).get(stream) == Some(&self.connection_count())
    }

    /// Notes the connection on which the stream holds messages, or that it may hold none.
    pub(crate) fn note_messages(&self, stream: &'static str, connection: Option<u64>) {
        let mut filled = locked(&self.shared.filled_streams);
        match connection {
            Some(connection) => filled.insert(stream, connection),
            None => filled.remove(stream),
        };
    }

    /// The time since which the client has been connected, or has not been.
    pub fn since(&self) -> SystemTime {
        *locked(&self.shared.signs.since)
    }

    /// A value that changes after each new connection. The change may come a little late. [`Bus::connection_count`]
    /// never does.
    pub fn connections(&self) -> watch::Receiver<u64> {
        self.shared.signs.connections.subscribe()
    }

    /// How often the client or the server reported that this process reads too slowly.
    pub fn slow_consumer_count(&self) -> u64 {
        self.shared.signs.slow_consumers.load(Ordering::Relaxed)
    }

    /// The right that the server refuses to this connection, if any. It remains until the next connection.
    pub fn refusal(&self) -> Option<Refusal> {
        self.shared.signs.refusal.borrow().clone()
    }

    /// Waits until the server refuses something.
    pub async fn refused(&self) -> Refusal {
        let mut refusals = self.shared.signs.refusal.subscribe();
        match refusals.wait_for(Option::is_some).await.map(|refusal| refusal.clone()) {
            Ok(Some(refusal)) => refusal,
            // The channel is never closed, since its sender lives as long as `self`.
            _ => std::future::pending().await,
        }
    }

    /// The number of answers that were not sent, because the asker named a reply subject that is no inbox.
    pub fn refused_answer_count(&self) -> u64 {
        self.shared.signs.refused_answers.load(Ordering::Relaxed)
    }

    /// Counts an answer that is not sent, because its reply subject is no inbox.
    pub(crate) fn note_refused_answer(&self) {
        self.shared.signs.refused_answers.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether the client has ended for good, or does so at this moment; then only a new one helps.
    ///
    /// The library panics on a message with a header that its types can't hold, such as a carriage return within a
    /// value (nats-io/nats.rs#1612). nats-server passes on such a message from any client that may publish.
    pub async fn has_died(&self) -> bool {
        timeout(DYING_TIME, self.shared.signs.died.cancelled()).await.is_ok()
    }

    /// The most bytes that one message may have, headers included.
    pub fn max_payload(&self) -> usize {
        self.shared.client.max_payload()
    }

    /// Asks on `subject` and waits for one reply for at most `limit`.
    ///
    /// Without a connection it fails at once. The client would queue the request, and send it too late, after the
    /// reconnection.
    ///
    /// # Errors
    /// [`RequestFailure`]: each kind is a decision of the caller.
    pub async fn request(
        &self,
        subject: String,
        meta: Option<&Meta>,
        payload: Bytes,
        limit: Duration,
    ) -> Result<Reply, RequestFailure> {
        self.question(subject).ask(meta, payload, limit).await
    }

    /// As [`Bus::request`], with headers of the caller's own.
    ///
    /// # Errors
    /// As [`Bus::request`].
    pub async fn request_with_headers(
        &self,
        subject: String,
        headers: HeaderMap,
        payload: Bytes,
        limit: Duration,
    ) -> Result<Reply, RequestFailure> {
        self.question(subject).ask_with(Some(headers), payload, limit).await
    }

    /// A request that is yet to be sent, for callers that must know whether its reply comes late.
    pub fn question(&self, subject: String) -> Question {
        let id = self.shared.next_request.fetch_add(1, Ordering::Relaxed);
        let (asker, reply) = oneshot::channel();
        locked(&self.shared.waiting).insert(id, asker);
        Question { bus: self.clone(), id, subject, reply, is_open: false }
    }

    /// Asks on `subject` and takes the replies of all services that answer. All replies must come within `first`. After
    /// the first reply, it ends as soon as no other has come for `quiet`.
    ///
    /// # Errors
    /// [`RequestFailure`], when it could not be asked.
    pub async fn gather(
        &self,
        subject: &str,
        first: Duration,
        quiet: Duration,
    ) -> Result<Vec<Bytes>, RequestFailure> {
        if !self.is_connected() {
            return Err(RequestFailure::Disconnected);
        }
        let client = self.client();
        let inbox = client.new_inbox();
        let end = tokio::time::Instant::now() + first;
        let asking = async {
            let replies = client.subscribe(inbox.clone()).await;
            let replies = replies.map_err(|error| RequestFailure::Other(error.to_string()))?;
            let asked = client.publish_with_reply(subject.to_owned(), inbox, Bytes::new()).await;
            asked.map_err(|error| RequestFailure::Other(error.to_string()))?;
            Ok(replies)
        };
        let timed_out = || RequestFailure::TimedOut { subject: subject.to_owned(), limit: first };
        let mut replies = timeout(first, asking).await.map_err(|_| timed_out())??;
        let mut taken = Vec::new();
        loop {
            let limit = if taken.is_empty() { end } else { end.min(tokio::time::Instant::now() + quiet) };
            match tokio::time::timeout_at(limit, replies.next()).await {
                Ok(Some(reply)) if reply.status.is_none() => taken.push(reply.payload),
                _ => return Ok(taken),
            }
        }
    }

    /// Sends a message to this connection's own inbox and waits until it is back, for at most `limit`.
    ///
    /// A server handles the messages of one connection in order. So afterwards every subscription made before is in
    /// force. A flush would only show that bytes have left this machine.
    ///
    /// # Errors
    /// [`RequestFailure`], when it did not come back.
    pub async fn round_trip(&self, limit: Duration) -> Result<(), RequestFailure> {
        let mut question = self.question(String::new());
        question.subject = question.inbox();
        let subject = question.subject.clone();
        let trip = async {
            let sent = self.shared.client.publish(subject, Bytes::new()).await;
            sent.map_err(|error| RequestFailure::Other(error.to_string()))?;
            (&mut question.reply).await.map(|_| ()).map_err(|_| RequestFailure::Disconnected)
        };
        let outcome = timeout(limit, trip).await;
        outcome.unwrap_or_else(|_| Err(question.timed_out(limit)))
    }

    /// Waits until a message that `other` sends has come in on this connection, for at most `limit`. This connection
    /// needs no right to publish for it.
    ///
    /// A server handles the messages of one connection in order, and passes on its subscriptions in order. So
    /// afterwards every subscription made before on this connection is in force, also for clients of the server to
    /// which `other` is connected.
    ///
    /// # Errors
    /// [`RequestFailure`], when none came.
    pub async fn hears(&self, other: &Self, limit: Duration) -> Result<(), RequestFailure> {
        let unique = self.client().new_inbox();
        let subject = subject::proof(unique.rsplit('.').next().unwrap_or(&unique));
        let failed = |error: &dyn std::fmt::Display| RequestFailure::Other(error.to_string());
        let proof = async {
            let mut heard = self.client().subscribe(subject.clone()).await.map_err(|error| failed(&error))?;
            loop {
                // The first messages may be sent before the subscription is in force.
                let sent = other.client().publish(subject.clone(), Bytes::new()).await;
                sent.map_err(|error| failed(&error))?;
                match timeout(PROOF_PAUSE, heard.next()).await {
                    Ok(Some(_)) => return Ok(()),
                    Ok(None) => return Err(RequestFailure::Disconnected),
                    Err(_) => {}
                }
            }
        };
        let outcome = timeout(limit, proof).await;
        outcome.unwrap_or_else(|_| Err(RequestFailure::TimedOut { subject: subject.clone(), limit }))
    }

    /// Ends the connection. No more messages come in, published messages are still sent, then the connection is closed.
    /// It waits for that for at most `limit`.
    pub async fn drain(&self, limit: Duration) {
        let mut closed = self.shared.signs.closed.subscribe();
        if self.shared.client.drain().await.is_err() {
            return;
        }
        if timeout(limit, closed.wait_for(|closed| *closed)).await.is_err() {
            tracing::warn!(
                "the connection to NATS was not drained in time: messages on their way may be lost"
            );
        }
    }
}

/// The prefix of the inboxes of a user, as `nats.conf` allows them.
pub fn inbox_prefix(user: &str) -> String {
    format!("_INBOX_{user}")
}

/// The headers that carry `meta`.
pub fn headers_of(meta: &Meta) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(meta::HEADER, meta.to_string());
    headers
}

/// The metadata in a message's headers; empty if there is none.
///
/// # Errors
/// A sentence that names the field that can't be read.
pub fn meta_of(headers: Option<&HeaderMap>) -> Result<Meta, String> {
    match headers.and_then(|headers| headers.get(meta::HEADER)) {
        Some(text) => text.as_str().parse().map_err(|error: meta::MetaError| error.to_string()),
        None => Ok(Meta::default()),
    }
}

/// The bytes that headers take on the wire: a version line, each name and value, two line breaks.
pub fn header_size(headers: &HeaderMap) -> usize {
    let lines: usize = headers
        .iter()
        .flat_map(|(name, values)| {
            values.iter().map(move |value| AsRef::<str>::as_ref(name).len() + value.as_str().len() + 4)
        })
        .sum();
    lines + "NATS/1.0\r\n\r\n".len()
}

fn read_reply(message: Message) -> Result<Reply, RequestFailure> {
    let headers = message.headers.as_ref();
    let meta = meta_of(headers).map_err(RequestFailure::Other)?;
    let Some(code) = headers.and_then(|headers| headers.get(ERROR_CODE_HEADER)) else {
        return Ok(Reply { payload: message.payload, meta });
    };
    let code = Code::from_number(code.as_str().parse().unwrap_or(500));
    let sentence = headers.and_then(|headers| headers.get(ERROR_HEADER)).map_or("", |text| text.as_str());
    Err(RequestFailure::Refused(Box::new(Refused {
        refusal: wire::reply::Refusal::new(code, sentence),
        meta,
    })))
}

/// One request. It leaves the table of waiting requests when this is dropped.
#[derive(Debug)]
pub struct Question {
    bus: Bus,
    id: u64,
    subject: String,
    reply: oneshot::Receiver<Message>,
    is_open: bool,
}

impl Question {
    /// Sends the request, once, and waits for the reply for at most `limit`.
    ///
    /// # Errors
    /// As [`Bus::request`].
    pub async fn ask(
        &mut self,
        meta: Option<&Meta>,
        payload: Bytes,
        limit: Duration,
    ) -> Result<Reply, RequestFailure> {
        self.ask_with(meta.map(headers_of), payload, limit).await
    }

    async fn ask_with(
        &mut self,
        headers: Option<HeaderMap>,
        payload: Bytes,
        limit: Duration,
    ) -> Result<Reply, RequestFailure> {
        if !self.bus.is_connected() {
            return Err(RequestFailure::Disconnected);
        }
        let max_payload = self.bus.max_payload();
        let header_bytes = headers.as_ref().map_or(0, header_size);
        if payload.len() + header_bytes > max_payload {
            return Err(RequestFailure::TooLarge(max_payload));
        }
        let (subject, inbox) = (self.subject.clone(), self.inbox());
        let exchange = async {
            let client = &self.bus.shared.client;
            let sent = match headers {
                Some(headers) => {
                    client.publish_with_reply_and_headers(subject, inbox, headers, payload).await
                }
                None => client.publish_with_reply(subject, inbox, payload).await,
            };
            sent.map_err(|error| match error.kind() {
                async_nats::client::PublishErrorKind::MaxPayloadExceeded => {
                    RequestFailure::TooLarge(max_payload)
                }
                _ => RequestFailure::Other(error.to_string()),
            })?;
            self.is_open = true;
            let message = (&mut self.reply).await;
            self.is_open = false;
            let lost = "the connection was lost before the answer came";
            message.map_err(|_| RequestFailure::Other(lost.to_owned()))
        };
        let Ok(answered) = timeout(limit, exchange).await else { return Err(self.timed_out(limit)) };
        let message = answered?;
        if message.status == Some(StatusCode::NO_RESPONDERS) {
            return Err(RequestFailure::NoResponders(std::mem::take(&mut self.subject)));
        }
        read_reply(message)
    }

    /// Whether the request was sent and its reply has not come.
    pub fn is_open(&self) -> bool {
        self.is_open
    }

    /// Waits until the reply to an open request has come after all, or a new connection was made. A reply that was on
    /// its way over the old connection does not reach the new one. Returns the metadata of the late reply.
    pub async fn close(mut self) -> Option<Meta> {
        if !self.is_open {
            return None;
        }
        let mut connections = self.bus.connections();
        tokio::select! {
            message = &mut self.reply => meta_of(message.ok()?.headers.as_ref()).ok(),
            _ = connections.changed() => None,
        }
    }

    /// The bus that it is asked on.
    pub fn bus(&self) -> &Bus {
        &self.bus
    }

    fn inbox(&self) -> String {
        format!("{}.{}", self.bus.shared.inbox, self.id)
    }

    fn timed_out(&self, limit: Duration) -> RequestFailure {
        RequestFailure::TimedOut { subject: self.subject.clone(), limit }
    }
}

impl Drop for Question {
    fn drop(&mut self) {
        locked(&self.bus.shared.waiting).remove(&self.id);
    }
}

/// Locks a table. It has no invariant that a panic elsewhere could break.
fn locked<T>(shared: &Mutex<T>) -> parking_lot::MutexGuard<'_, T> {
    shared.lock()
}

/// The action that an error of the server refuses, if the error is about a right.
fn refused_of(error: &str) -> Option<String> {
    let error = error.trim_matches('\'');
    let publish = error.strip_prefix(PUBLISH_REFUSED).map(|subject| format!("to publish on {subject}"));
    publish.or_else(|| {
        error.strip_prefix(SUBSCRIPTION_REFUSED).map(|subject| format!("to subscribe to {subject}"))
    })
}

impl Signs {
    fn new(only_answers: bool) -> Self {
        Self {
            slow_consumers: AtomicU64::new(0),
            connections: watch::Sender::new(0),
            since: Mutex::new(SystemTime::now()),
            closed: watch::Sender::new(false),
            died: CancellationToken::new(),
            only_answers,
            refusal: watch::Sender::new(None),
            refused_answers: AtomicU64::new(0),
        }
    }

    fn is_refused_answer(&self, error: &str) -> bool {
        self.only_answers && error.trim_matches('\'').starts_with(PUBLISH_REFUSED)
    }

    fn take(&self, user: &'static str, event: &Event) {
        match event {
            Event::Connected => {
                tracing::info!(user, "the connection to NATS is there");
                *locked(&self.since) = SystemTime::now();
                self.refusal.send_if_modified(|refusal| refusal.take().is_some());
                self.connections.send_modify(|count| *count += 1);
            }
            Event::Disconnected => {
                tracing::warn!(user, "the connection to NATS is lost: the client reconnects");
                *locked(&self.since) = SystemTime::now();
            }
            Event::Closed => {
                self.closed.send_replace(true);
            }
            Event::SlowConsumer(subscription) => {
                self.slow_consumers.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(
                    user,
                    subscription,
                    "messages of a subscription were dropped: they came faster than they were read"
                );
            }
            Event::ServerError(ServerError::SlowConsumer(_)) => {
                self.slow_consumers.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(user, "the NATS server closed the connection: it was read too slowly");
            }
            Event::ServerError(ServerError::Other(error)) if self.is_refused_answer(error) => {
                self.refused_answers.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(
                    user,
                    error,
                    "an answer was not sent: the reply subject of its request is no inbox"
                );
            }
            Event::ServerError(error) => {
                tracing::error!(user, %error, "the NATS server refused a request of this user");
                if let ServerError::Other(error) = error
                    && let Some(what) = refused_of(error)
                {
                    self.refusal.send_replace(Some(Refusal { user, what }));
                }
            }
            // Each failed attempt to reconnect is such an error. The loss of the connection is logged already.
            Event::ClientError(error) => tracing::debug!(user, %error, "the NATS client reports an error"),
            Event::LameDuckMode | Event::Draining => {
                tracing::info!(user, %event, "the connection to NATS is ending")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn headers_carry_metadata_and_their_size_is_known() {
        let meta = Meta { content_type: Some("image/png".into()), fresh: true, ..Meta::default() };
        let headers = headers_of(&meta);
        assert_eq!(meta_of(Some(&headers)).unwrap(), meta);
        assert_eq!(meta_of(None).unwrap(), Meta::default());
        assert_eq!(header_size(&headers), "NATS/1.0\r\nPixcache: type=image/png fresh=1\r\n\r\n".len());
    }

    /// The refusal and the number of refused answers that are known after this error of the server.
    fn after(only_answers: bool, word: &str) -> (Option<String>, u64) {
        let signs = Signs::new(only_answers);
        signs.take("memcache", &Event::ServerError(ServerError::Other(word.to_owned())));
        let refusal = signs.refusal.borrow().as_ref().map(|refusal| refusal.what.clone());
        (refusal, signs.refused_answers.load(Ordering::Relaxed))
    }

    #[test]
    fn what_the_server_refuses_is_known_and_an_asker_s_fault_is_told_from_a_right_that_is_missing() {
        let publish = r#"'Permissions Violation for Publish to "$KV.CACHE_CONFIG.live"'"#;
        let subscription = r#"'Permissions Violation for Subscription to "cache.get.>"'"#;
        assert_eq!(after(false, publish), (Some(r#"to publish on "$KV.CACHE_CONFIG.live""#.into()), 0));
        assert_eq!(after(true, publish), (None, 1));
        assert_eq!(after(true, subscription), (Some(r#"to subscribe to "cache.get.>""#.into()), 0));
        assert_eq!(after(true, "'Something else'"), (None, 0));
    }
}
