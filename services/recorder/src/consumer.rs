//! Messages become rows: a durable consumer for each of the two streams that the recorder follows.
//!
//! A message is acknowledged once its row is committed, and a row has a unique key, so a message that
//! comes again, for whatever reason, changes nothing. While MySQL is away messages stay in JetStream;
//! while NATS is away they stay with their publishers.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use async_nats::jetstream::consumer::PullConsumer;
use async_nats::jetstream::{AckKind, Message, stream};
use futures_util::{FutureExt as _, StreamExt as _};
use runtime::{Bus, bucket, streams, wait};
use time::OffsetDateTime;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use wire::stats::{ConfigRevision, Window};
use wire::{CacheConfig, subject};

use crate::repository::{Repository, RepositoryError, RevisionRow};
use crate::setup::{Found, Setup, Wanted};

/// Messages in one transaction at most.
const BATCH: usize = 500;
/// How long one pull waits for messages before the next. It is limited because a pull may get lost between servers
/// while this connection stays open.
const PULL: Duration = Duration::from_secs(3);
/// How late the server may report the end of a pull.
const LATE: Duration = Duration::from_secs(1);
/// How long the server waits for an acknowledgement before it delivers a message again. A message that was on its way when a
/// connection or a recorder was lost becomes a row that much later. With a slow database it may come a second time, which
/// is harmless.
const ACK_WAIT: Duration = Duration::from_secs(3);
/// The delay before a message that this process gives back is delivered again: the process has left by then.
const GIVE_BACK_AFTER: Duration = Duration::from_secs(1);
/// How long a stop waits at most for messages that the bus has sent already.
const CATCH_UP: Duration = Duration::from_millis(300);
/// The first pause after a failure of the bus; it doubles up to a second.
const PAUSE: Duration = Duration::from_millis(250);
/// No limit: NATS and MySQL are waited for, however long they are away.
const FOREVER: Duration = Duration::MAX;

/// The longest names that the columns hold, in characters.
const WORKER_CHARS: usize = 64;
const INCARNATION_CHARS: usize = 32;
const CHANGED_BY_CHARS: usize = 255;

/// The numbers of stored and refused messages since the start. `nats micro stats` shows them.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    stored: AtomicU64,
    refused: AtomicU64,
}

impl Tally {
    /// The numbers as custom data of the service's statistics.
    pub(crate) fn to_json(&self) -> serde_json::Value {
        serde_json::json!({
            "stored_message_count": self.stored.load(Ordering::Relaxed),
            "refused_message_count": self.refused.load(Ordering::Relaxed),
        })
    }
}

/// A stream, the durable consumer of it, and how its messages become rows.
pub(crate) trait Feed: Send + Sync + Sized + 'static {
    /// The name of its messages in the log.
    const WHAT: &'static str;
    /// The name of the stream.
    const STREAM: &'static str;
    /// The name of the consumer.
    const CONSUMER: &'static str;
    /// A row made of one message.
    type Row: Send + Sync;

    /// The subjects that the consumer takes.
    fn filter() -> String;

    /// Makes the stream if it is not there.
    fn ensure(bus: &Bus) -> impl Future<Output = Result<(), streams::StreamError>> + Send;

    /// The feed of a stream that is there.
    fn new(stream: &stream::Info) -> Self;

    /// The row of a message; `Ok(None)` if it has none.
    ///
    /// # Errors
    /// A sentence, when the message can't be read.
    fn read(&self, message: &Message) -> Result<Option<Self::Row>, String>;

    /// Stores rows, all of them or none.
    fn store(
        repository: &Repository,
        rows: &[Self::Row],
    ) -> impl Future<Output = Result<(), RepositoryError>> + Send;
}

/// Windows to `cache_stats`.
pub(crate) struct Windows;

impl Feed for Windows {
    const WHAT: &'static str = "windows";
    const STREAM: &'static str = subject::EVENT_STREAM;
    const CONSUMER: &'static str = subject::WINDOW_CONSUMER;
    type Row = Window;

    fn filter() -> String {
        subject::ALL_WINDOWS.to_owned()
    }

    async fn ensure(bus: &Bus) -> Result<(), streams::StreamError> {
        streams::ensure_event_stream(bus.jetstream()).await
    }

    fn new(_: &stream::Info) -> Self {
        Self
    }

    fn read(&self, message: &Message) -> Result<Option<Window>, String> {
        read_window(&message.payload).map(Some)
    }

    async fn store(repository: &Repository, rows: &[Window]) -> Result<(), RepositoryError> {
        repository.insert_windows(rows).await
    }
}

/// Revisions of the configuration to `cache_properties`. They are taken from the bucket itself, so
/// that no crash between a change and its announcement can lose one.
pub(crate) struct Revisions {
    bucket_created_at: OffsetDateTime,
}

impl Feed for Revisions {
    const WHAT: &'static str = "revisions of the configuration";
    const STREAM: &'static str = subject::CONFIG_STREAM;
    const CONSUMER: &'static str = subject::CONFIG_CONSUMER;
    type Row = RevisionRow;

    fn filter() -> String {
        subject::CONFIG_ENTRY.to_owned()
    }

    async fn ensure(bus: &Bus) -> Result<(), streams::StreamError> {
        streams::ensure_config_bucket(bus.jetstream()).await.map(drop)
    }

    fn new(stream: &stream::Info) -> Self {
        Self { bucket_created_at: stream.created }
    }

    fn read(&self, message: &Message) -> Result<Option<RevisionRow>, String> {
        // The entry was removed by hand. The configuration in force then has no row until the next change.
        if message.headers.as_ref().is_some_and(|headers| headers.get(bucket::KV_OPERATION).is_some()) {
            return Ok(None);
        }
        let revision = message.info().map_err(|error| error.to_string())?.stream_sequence;
        let change = read_revision(revision, &message.payload)?;
        Ok(Some(RevisionRow { bucket_created_at: self.bucket_created_at, change }))
    }

    async fn store(repository: &Repository, rows: &[RevisionRow]) -> Result<(), RepositoryError> {
        repository.insert_revisions(rows).await
    }
}

/// Reads a window, and refuses values that its row could not hold.
fn read_window(payload: &[u8]) -> Result<Window, String> {
    let window: Window = serde_json::from_slice(payload).map_err(|error| error.to_string())?;
    for (field, text, most) in
        [("worker", &window.worker, WORKER_CHARS), ("incarnation", &window.incarnation, INCARNATION_CHARS)]
    {
        // The collation ignores white space at the end, so two names that differ only in it would be one.
        let plain = |c: char| !c.is_whitespace() && !c.is_control();
        if !(1..=most).contains(&text.chars().count()) || !text.chars().all(plain) {
            return Err(format!("{field} is not a name of 1 to {most} characters without white space"));
        }
    }
    Ok(window)
}

/// Reads an entry of the bucket.
fn read_revision(revision: u64, payload: &[u8]) -> Result<ConfigRevision, String> {
    let config: CacheConfig = serde_json::from_slice(payload).map_err(|error| error.to_string())?;
    Ok(ConfigRevision {
        revision,
        max_capacity: config.capacity_mb.bytes(),
        replacement_policy: config.policy,
        generation: config.generation,
        // A change with a shortened name is better than a missing one.
        changed_by: config.changed_by.chars().take(CHANGED_BY_CHARS).collect(),
        created_at: config.changed_at,
        effect: None,
    })
}

/// Follows one feed until `shutdown`. A batch in hand then has at most `grace` to be committed.
pub(crate) struct Follower<F> {
    bus: Bus,
    setup: Arc<Setup>,
    repository: Repository,
    tally: Arc<Tally>,
    shutdown: CancellationToken,
    grace: Duration,
    feed: std::marker::PhantomData<fn() -> F>,
}

/// Why a session with the bus ended without an error.
enum Ended {
    /// The process stops.
    Stopping,
    /// There is a new connection: the server may have restarted, with or without its stored data.
    Reconnected,
    /// The server has not reported the end of a pull: the report got lost, or the consumer no longer exists.
    Silent,
}

impl<F: Feed> Follower<F> {
    pub(crate) fn new(
        bus: &Bus,
        setup: &Arc<Setup>,
        repository: &Repository,
        tally: &Arc<Tally>,
        shutdown: &CancellationToken,
        grace: Duration,
    ) -> Self {
        Self {
            bus: bus.clone(),
            setup: setup.clone(),
            repository: repository.clone(),
            tally: tally.clone(),
            shutdown: shutdown.clone(),
            grace,
            feed: std::marker::PhantomData,
        }
    }

    /// Runs sessions with the bus, one after the other, until `shutdown`.
    pub(crate) async fn run(self) {
        let mut pause = PAUSE;
        loop {
            match self.session(&mut pause).await {
                Ok(Ended::Stopping) => return,
                Ok(Ended::Reconnected | Ended::Silent) => {}
                Err(error) => {
                    tracing::warn!(
                        stream = F::STREAM,
                        error = format!("{error:#}"),
                        "the consumer of {} was interrupted: it starts again",
                        F::WHAT
                    );
                    if self.shutdown.run_until_cancelled(sleep(pause)).await.is_none() {
                        return;
                    }
                    pause = (pause * 2).min(Duration::from_secs(1));
                }
            }
        }
    }

    async fn session(&self, pause: &mut Duration) -> anyhow::Result<Ended> {
        let mut connections = self.bus.connections();
        connections.borrow_and_update();
        let connection = self.bus.connection_count();
        let what = format!("{} in JetStream", F::WHAT);
        let opening = wait::until(&what, FOREVER, || self.open());
        let Some(opened) = self.shutdown.run_until_cancelled(opening).await else {
            return Ok(Ended::Stopping);
        };
        let (feed, consumer) = opened?;
        tracing::info!(stream = F::STREAM, "the consumer of {} has started", F::WHAT);
        loop {
            let pull = consumer.batch().max_messages(BATCH).expires(PULL).messages();
            let mut chunks = pull.await.context("messages can't be asked for")?.ready_chunks(BATCH);
            loop {
                let (chunk, stopping) = tokio::select! {
                    biased;
                    () = self.shutdown.cancelled() => {
                        // Delivered messages are finished, else they would come again only after a while. That
                        // includes messages on their way here, such as the last window of a worker that also stops.
                        if self.bus.is_connected() {
                            let _ = self.bus.round_trip(CATCH_UP).await;
                        }
                        (chunks.next().now_or_never().flatten(), true)
                    }
                    _ = connections.changed() => return Ok(Ended::Reconnected),
                    // The end of a pull may get lost as well, so the wait for it is limited.
                    chunk = timeout(PULL + LATE, chunks.next()) => match chunk {
                        Ok(chunk) => (chunk, false),
                        Err(_) => return Ok(Ended::Silent),
                    },
                };
                let pull_is_over = chunk.is_none();
                if let Some(chunk) = chunk {
                    self.take(&feed, chunk, connection).await?;
                    *pause = PAUSE;
                }
                if stopping {
                    return Ok(Ended::Stopping);
                }
                if pull_is_over {
                    break;
                }
            }
        }
    }

    /// Makes rows of messages that came on the connection with this number, and answers them.
    async fn take(
        &self,
        feed: &F,
        chunk: Vec<Result<Message, async_nats::Error>>,
        connection: u64,
    ) -> anyhow::Result<()> {
        let mut messages = Vec::with_capacity(chunk.len());
        let mut failure = Ok(());
        for message in chunk {
            match message {
                Ok(message) => messages.push(message),
                Err(error) => failure = Err(anyhow::Error::from_boxed(error)),
            }
        }
        let answers = self.rows_of(feed, &messages).await;
        // On another connection the server may have other messages under the same sequence numbers.
        if self.bus.connection_count() == connection {
            self.answer(&messages, answers).await?;
        }
        failure
    }

    /// Opens the feed and its consumer. A stream or consumer that is missing or differs is made or set right first.
    async fn open(&self) -> anyhow::Result<(F, PullConsumer)> {
        // A request without a connection would only time out, and leave some state in the client for good.
        anyhow::ensure!(self.bus.is_connected(), "there is no connection to NATS");
        let wanted = Wanted {
            stream: F::STREAM,
            name: F::CONSUMER,
            filter: F::filter(),
            ack_wait: ACK_WAIT,
            max_ack_pending: 2 * BATCH as i64,
        };
        let jetstream = self.bus.jetstream();
        let found = wanted.look(jetstream).await?;
        if found != Found::Wanted {
            let make = |bus: Bus| async move {
                F::ensure(&bus).await?;
                wanted.make(bus.jetstream(), &found).await
            };
            self.setup.run(make).await?;
        }
        let consumer = jetstream.get_consumer_from_stream(F::CONSUMER, F::STREAM).await?;
        // The stream is read after the consumer, because a stream that has replaced it would have no such consumer.
        let stream = jetstream.get_stream(F::STREAM).await?;
        Ok((F::new(stream.cached_info()), consumer))
    }

    /// Stores the rows of `messages`, and returns the answer to each. Tries until MySQL has taken them, or the grace of
    /// a stop is over.
    async fn rows_of(&self, feed: &F, messages: &[Message]) -> Vec<AckKind> {
        let mut answers = Vec::with_capacity(messages.len());
        let (mut rows, mut owners) = (Vec::new(), Vec::new());
        for (at, message) in messages.iter().enumerate() {
            answers.push(AckKind::Ack);
            match feed.read(message) {
                Ok(Some(row)) => {
                    rows.push(row);
                    owners.push(at);
                }
                Ok(None) => {}
                Err(reason) => {
                    refuse::<F>(message, &reason);
                    answers[at] = AckKind::Term;
                }
            }
        }
        let what = format!("MySQL to take {}", F::WHAT);
        let storing = wait::until(&what, FOREVER, || self.store(&rows));
        let out_of_time = async {
            self.shutdown.cancelled().await;
            sleep(self.grace).await;
        };
        let stored = tokio::select! {
            stored = storing => stored.ok(),
            () = out_of_time => None,
        };
        let Some(refused) = stored else {
            tracing::warn!(
                messages = messages.len(),
                "the recorder stops before MySQL has taken these {}: JetStream keeps them",
                F::WHAT
            );
            return messages.iter().map(|_| AckKind::Nak(Some(GIVE_BACK_AFTER))).collect();
        };
        for (row, error) in refused {
            refuse::<F>(&messages[owners[row]], &error.to_string());
            answers[owners[row]] = AckKind::Term;
        }
        answers
    }

    /// Stores `rows`, and returns the positions of those that MySQL refuses, with the errors. They are found by
    /// halving, so that a refused row does not keep the others out.
    async fn store(&self, rows: &[F::Row]) -> Result<Vec<(usize, RepositoryError)>, RepositoryError> {
        let mut refused = Vec::new();
        let mut parts = vec![(0, rows.len())];
        while let Some((from, to)) = parts.pop() {
            match F::store(&self.repository, &rows[from..to]).await {
                Ok(()) => {}
                Err(error @ RepositoryError::Refused(_)) if to - from == 1 => refused.push((from, error)),
                Err(RepositoryError::Refused(_)) => {
                    let middle = from + (to - from) / 2;
                    parts.extend([(from, middle), (middle, to)]);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(refused)
    }

    async fn answer(&self, messages: &[Message], answers: Vec<AckKind>) -> anyhow::Result<()> {
        for (message, answer) in messages.iter().zip(answers) {
            let tally = match answer {
                AckKind::Ack => Some(&self.tally.stored),
                AckKind::Term => Some(&self.tally.refused),
                _ => None,
            };
            message.ack_with(answer).await.map_err(anyhow::Error::from_boxed).context("acknowledging")?;
            if let Some(tally) = tally {
                tally.fetch_add(1, Ordering::Relaxed);
            }
        }
        Ok(())
    }
}

/// Logs a message that can't become a row. It is never delivered again, so that it blocks no other.
fn refuse<F: Feed>(message: &Message, reason: &str) {
    let sequence = message.info().map_or(0, |info| info.stream_sequence);
    tracing::error!(
        subject = %message.subject,
        stream = F::STREAM,
        sequence,
        reason,
        "a message could not be recorded among the {}: it is left out",
        F::WHAT
    );
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use proptest::prelude::*;

    const WINDOW: &str = r#"{"worker":"memcache-1","incarnation":"01JX","sequence":7,
        "interval_start":"2026-01-02T03:04:05Z","interval_ms":5000,"cache_size":1,"capacity":2,
        "key_count":3,"request_count":4}"#;

    #[test]
    fn a_window_needs_names_and_a_time_that_its_row_can_hold() {
        assert_eq!(read_window(WINDOW.as_bytes()).unwrap().counters.request_count, 4);
        for (good, bad) in [
            ("memcache-1", ""),
            ("memcache-1", "a b"),
            ("memcache-1", "ends with a space "),
            ("01JX", "0123456789012345678901234567890123"),
            ("2026-01-02T03:04:05Z", "1969-12-31T23:59:59Z"),
            ("2026-01-02T03:04:05Z", "9999-12-31T23:59:59-01:00"),
            ("\"sequence\":7", "\"sequence\":-7"),
            ("\"sequence\":7", "\"sequence\":18446744073709551616"),
        ] {
            assert!(read_window(WINDOW.replace(good, bad).as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_revision_s_author_is_shortened_to_what_its_row_can_hold() {
        let entry = |by: &str| {
            format!(
                r#"{{"capacity_mb":64,"policy":"lru","generation":0,"changed_by":"{by}","changed_at":"2026-01-02T03:04:05Z"}}"#
            )
        };
        let change = read_revision(9, entry(&"ä".repeat(300)).as_bytes()).unwrap();
        assert_eq!((change.revision, change.max_capacity), (9, 64 << 20));
        assert_eq!(change.changed_by.chars().count(), CHANGED_BY_CHARS);
        assert!(read_revision(9, b"").is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_row_or_a_sentence(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(read_window(&bytes).is_err());
            prop_assert!(read_revision(1, &bytes).is_err());
        }
    }
}
