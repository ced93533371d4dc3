//! Client of the memcache worker and of the recorder: one method a request of the bus.

use std::time::Duration;

use bytes::Bytes;
use runtime::Bus;
use runtime::bus::{Question, Reply, RequestFailure};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use wire::inspect::{
    ClearReply, ClearRequest, InvalidateReply, KeysReply, KeysRequest, PutReply, ServicePing, WatchReply,
    WatchRequest,
};
use wire::near::{HitsReply, HitsReport};
use wire::stats::{Backlog, History, HistoryRequest, Series, SeriesRequest};
use wire::{CacheStats, ConfigReply, Item, Key, Meta, Refill, subject};

use crate::cache::granted::Granted;
use crate::error::Error;

/// The worker's name in errors.
pub(crate) const CACHE: &str = "the cache";
/// The recorder's name in errors.
pub(crate) const RECORDER: &str = "the recorder";

/// JetStream's name in errors.
const JETSTREAM: &str = "JetStream";

/// How long a service may take to say that it is there, and how long the next one behind it may take.
const PING_LIMIT: Duration = Duration::from_secs(1);
const PING_QUIET: Duration = Duration::from_millis(75);
/// How long questions by people and monitors may take. They are no reads: no request for an image waits behind them.
const QUESTION_LIMIT: Duration = Duration::from_secs(2);
/// How long a change of the configuration may take: the worker writes it to JetStream first.
pub(crate) const CHANGE_LIMIT: Duration = Duration::from_secs(5);

/// Asks the memcache worker and the recorder. Clones share the connections.
#[derive(Debug, Clone)]
pub(crate) struct CacheClient {
    bus: Bus,
    own: Bus,
}

impl CacheClient {
    /// A client that asks the cache and the recorder by `bus`, and JetStream and all services by `own`.
    pub(crate) fn new(bus: Bus, own: Bus) -> Self {
        Self { bus, own }
    }

    /// The connection to JetStream and to all services.
    pub(crate) fn own(&self) -> &Bus {
        &self.own
    }

    /// The connection.
    pub(crate) fn bus(&self) -> &Bus {
        &self.bus
    }

    /// A question for the bytes of `item`, yet to be asked.
    pub(crate) fn get(&self, item: &Item) -> Question {
        self.bus.question(subject::get(item))
    }

    /// Reports hits of the near cache.
    pub(crate) async fn report_hits(
        &self,
        report: &HitsReport,
        limit: Duration,
    ) -> Result<HitsReply, RequestFailure> {
        read_json(self.bus.request(subject::NEAR_HITS.to_owned(), None, write_json(report)?, limit).await?)
    }

    /// Hands the worker the bytes of `item`, or only their size.
    pub(crate) async fn put(
        &self,
        item: &Item,
        meta: &Meta,
        bytes: Bytes,
        limit: Duration,
    ) -> Result<PutReply, RequestFailure> {
        read_json(self.bus.request(subject::put(item), Some(meta), bytes, limit).await?)
    }

    /// Tells the worker that the image under `key` changed. With `refill`, it may hand out the lease to fill the original anew.
    pub(crate) async fn invalidate(
        &self,
        key: &Key,
        refill: Option<Refill>,
        limit: Duration,
    ) -> Result<(InvalidateReply, Option<Granted>), RequestFailure> {
        let asked = refill.map(|refill| Meta { refill: Some(refill), ..Meta::default() });
        let reply = self.bus.request(subject::invalidate(key), asked.as_ref(), Bytes::new(), limit).await?;
        let lease = reply.meta.lease;
        let granted = lease.map(|lease| Granted::new(self.bus.clone(), key.clone().into(), lease));
        Ok((read_json(reply)?, granted))
    }

    /// Tells the worker to drop everything. `by` goes into the history.
    pub(crate) async fn clear(&self, by: &str, limit: Duration) -> Result<ClearReply, RequestFailure> {
        let request = ClearRequest { by: Some(by.to_owned()) };
        read_json(self.bus.request(subject::CLEAR.to_owned(), None, write_json(&request)?, limit).await?)
    }

    /// The worker's counters and gauges.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when no worker answers; a refusal in the worker's own words.
    pub(crate) async fn stats(&self) -> Result<CacheStats, Error> {
        self.ask(CACHE, subject::STATS, Bytes::new(), QUESTION_LIMIT).await
    }

    /// The configuration that is in force.
    ///
    /// # Errors
    /// As [`CacheClient::stats`].
    pub(crate) async fn config(&self) -> Result<ConfigReply, Error> {
        self.ask(CACHE, subject::CONFIG_GET, Bytes::new(), QUESTION_LIMIT).await
    }

    /// Changes the configuration: `change` is a JSON object such as `{"capacity_mb":64,"policy":"lru"}`,
    /// which the worker checks. `by` goes into the history, unless the object has a `by` of its own.
    ///
    /// # Errors
    /// As [`CacheClient::stats`]; a value that is not allowed is a 400 that names it.
    pub(crate) async fn set_config(&self, change: &[u8], by: &str) -> Result<ConfigReply, Error> {
        // The worker alone decides what is valid, so that all interfaces refuse alike. A change that is no
        // object goes to it as it is.
        let payload = match serde_json::from_slice::<Value>(change) {
            Ok(Value::Object(mut fields)) => {
                fields.entry("by").or_insert_with(|| Value::from(by));
                Value::Object(fields).to_string().into()
            }
            _ => Bytes::copy_from_slice(change),
        };
        self.ask(CACHE, subject::CONFIG_SET, payload, CHANGE_LIMIT).await
    }

    /// The resident items that `request` asks for.
    ///
    /// # Errors
    /// As [`CacheClient::stats`].
    pub(crate) async fn keys(&self, request: &KeysRequest) -> Result<KeysReply, Error> {
        self.ask_with(CACHE, subject::KEYS, request).await
    }

    /// Has the worker publish key events for a while.
    ///
    /// # Errors
    /// As [`CacheClient::stats`].
    pub(crate) async fn watch(&self, request: &WatchRequest) -> Result<WatchReply, Error> {
        self.ask_with(CACHE, subject::WATCH, request).await
    }

    /// The services that are there: gateways, workers, recorders. None when the bus is away.
    pub(crate) async fn services(&self) -> Vec<ServicePing> {
        match self.own.gather(subject::PING, PING_LIMIT, PING_QUIET).await {
            Ok(replies) => replies.iter().filter_map(|reply| serde_json::from_slice(reply).ok()).collect(),
            Err(failure) => {
                tracing::debug!(%failure, "services can't be looked for");
                Vec::new()
            }
        }
    }

    /// The windows that wait for the recorder, asked of JetStream: it knows while the recorder is away.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when JetStream does not answer, or knows of no recorder yet.
    pub(crate) async fn backlog(&self) -> Result<Backlog, Error> {
        #[derive(serde::Deserialize)]
        struct ConsumerInfo {
            num_pending: u64,
            num_ack_pending: u64,
        }
        let info: ConsumerInfo = read_json(
            self.own
                .request(subject::WINDOW_CONSUMER_INFO.to_owned(), None, Bytes::new(), PING_LIMIT)
                .await
                .map_err(|failure| Error::of_request(JETSTREAM, failure))?,
        )
        .map_err(|failure| Error::of_request(JETSTREAM, failure))?;
        Ok(Backlog { waiting_count: info.num_pending + info.num_ack_pending })
    }

    /// History in rows, from the recorder.
    ///
    /// # Errors
    /// As [`CacheClient::stats`], about the recorder.
    pub(crate) async fn series(&self, request: &SeriesRequest) -> Result<Series, Error> {
        self.ask_with(RECORDER, subject::SERIES, request).await
    }

    /// The changes of the configuration, from the recorder.
    ///
    /// # Errors
    /// As [`CacheClient::series`].
    pub(crate) async fn config_history(&self, request: &HistoryRequest) -> Result<History, Error> {
        self.ask_with(RECORDER, subject::CONFIG_HISTORY, request).await
    }

    async fn ask_with<Q: Serialize, A: DeserializeOwned>(
        &self,
        part: &'static str,
        subject: &str,
        question: &Q,
    ) -> Result<A, Error> {
        let payload = write_json(question).map_err(|failure| Error::of_request(part, failure))?;
        self.ask(part, subject, payload, QUESTION_LIMIT).await
    }

    async fn ask<A: DeserializeOwned>(
        &self,
        part: &'static str,
        subject: &str,
        payload: Bytes,
        limit: Duration,
    ) -> Result<A, Error> {
        let answer = async { read_json(self.bus.request(subject.to_owned(), None, payload, limit).await?) };
        answer.await.map_err(|failure| Error::of_request(part, failure))
    }
}

fn write_json<Q: Serialize>(question: &Q) -> Result<Bytes, RequestFailure> {
    serde_json::to_vec(question).map(Bytes::from).map_err(|error| RequestFailure::Other(error.to_string()))
}

fn read_json<A: DeserializeOwned>(reply: Reply) -> Result<A, RequestFailure> {
    serde_json::from_slice(&reply.payload).map_err(|error| {
        tracing::warn!(%error, "an answer on the bus could not be read");
        RequestFailure::Other("its answer can't be read: it may be of another release".to_owned())
    })
}
