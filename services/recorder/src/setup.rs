//! The NATS user `setup`, which makes streams and consumers: connected only for as long as that takes.
//!
//! A consumer delivers wherever its maker says. So the lasting connections have no right to make, change or delete one.

use std::time::Duration;

use anyhow::Context as _;
use async_nats::jetstream::consumer::{AckPolicy, IntoConsumerConfig as _, pull};
use async_nats::jetstream::response::Response;
use async_nats::jetstream::{self, ErrorCode};
use runtime::Bus;
use runtime::args::NatsArgs;
use runtime::bus::{BusError, Refusal, User};
use serde_json::{Map, Value, json};
use tokio::sync::watch;

use crate::config::Config;

/// The user in nats.conf.
const USER: &str = "setup";
/// How long one try waits for a connection while the recorder runs.
const CONNECT: Duration = Duration::from_secs(5);
/// How long leaving the bus may take.
const LEAVE: Duration = Duration::from_millis(500);
/// Messages that one subscription holds: few, because this connection subscribes only to its replies.
const SUBSCRIPTION_CAPACITY: usize = 64;
/// The server's default for a consumer. It is set all the same, so that another value is seen as a difference.
const MAX_WAITING: i64 = 512;
/// Fields that the server adds by itself, or that an operator may have chosen.
const NOT_COMPARED: [&str; 3] = ["name", "num_replicas", "metadata"];

/// Connects as the user `setup`.
#[derive(Debug)]
pub(crate) struct Setup {
    nats: NatsArgs,
    password: String,
    refusal: watch::Sender<Option<Refusal>>,
}

/// A durable pull consumer.
#[derive(Debug)]
pub(crate) struct Wanted {
    pub(crate) stream: &'static str,
    pub(crate) name: &'static str,
    /// The subjects that it takes.
    pub(crate) filter: String,
    /// How long the server waits for an acknowledgement before it delivers a message again.
    pub(crate) ack_wait: Duration,
    pub(crate) max_ack_pending: i64,
}

/// The state of a consumer in JetStream, compared with the one that is wanted.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// No such consumer, or no such stream.
    Nothing,
    /// A consumer with another configuration.
    Different,
    /// The consumer that is wanted.
    Wanted,
}

impl Setup {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            nats: config.nats.clone(),
            password: config.nats_setup_password.clone(),
            refusal: watch::Sender::new(None),
        }
    }

    /// Proves at the start that the server accepts the password. Otherwise a wrong one would be noticed only when a
    /// lost store has to be made anew.
    ///
    /// # Errors
    /// [`BusError`], after `limit`.
    pub(crate) async fn prove_password(&self, limit: Duration) -> Result<(), BusError> {
        self.connect(limit).await?.drain(LEAVE).await;
        Ok(())
    }

    /// Connects, does `work`, and disconnects.
    ///
    /// # Errors
    /// The errors of `work`, and an error when the server refuses the connection or a right.
    pub(crate) async fn run<F>(&self, work: impl FnOnce(Bus) -> F) -> anyhow::Result<()>
    where
        F: Future<Output = anyhow::Result<()>>,
    {
        let bus = self.connect(CONNECT).await?;
        let done = tokio::select! {
            refusal = bus.refused() => {
                self.refusal.send_replace(Some(refusal.clone()));
                Err(refusal.into())
            }
            done = work(bus.clone()) => done,
        };
        bus.drain(LEAVE).await;
        done
    }

    /// Waits until the server refuses a right to the user `setup`.
    pub(crate) async fn refused(&self) -> Refusal {
        let mut refusals = self.refusal.subscribe();
        match refusals.wait_for(Option::is_some).await.map(|refusal| refusal.clone()) {
            Ok(Some(refusal)) => refusal,
            // Unreachable: the sender lives as long as `self`.
            _ => std::future::pending().await,
        }
    }

    async fn connect(&self, limit: Duration) -> Result<Bus, BusError> {
        Bus::connect(&self.nats, User::asking(USER), &self.password, SUBSCRIPTION_CAPACITY, limit).await
    }
}

impl Wanted {
    /// Looks for the consumer. Only the right to read is needed.
    ///
    /// # Errors
    /// When JetStream does not answer.
    pub(crate) async fn look(&self, jetstream: &jetstream::Context) -> anyhow::Result<Found> {
        let subject = format!("CONSUMER.INFO.{}.{}", self.stream, self.name);
        match jetstream.request(subject, &json!({})).await? {
            Response::Ok(info) => Ok(self.compare(&info)),
            Response::Err { error }
                if [ErrorCode::CONSUMER_NOT_FOUND, ErrorCode::STREAM_NOT_FOUND]
                    .contains(&error.error_code()) =>
            {
                Ok(Found::Nothing)
            }
            Response::Err { error } => Err(error.into()),
        }
    }

    /// Makes the consumer, or corrects the configuration of the one that was found. If a change can't do that, the
    /// consumer is deleted and made anew. Messages that then come again have their rows already.
    ///
    /// # Errors
    /// When JetStream does not answer, or can't make it.
    pub(crate) async fn make(&self, jetstream: &jetstream::Context, found: &Found) -> anyhow::Result<()> {
        let reason = match self.create(jetstream).await? {
            Response::Ok(info) if !is_push(&info) => {
                if *found == Found::Different {
                    tracing::warn!(
                        stream = self.stream,
                        consumer = self.name,
                        "a consumer had another configuration: it was updated"
                    );
                }
                return Ok(());
            }
            Response::Ok(_) => "it stays a push consumer".to_owned(),
            // There is no consumer to delete, or JetStream is not ready at all (503).
            Response::Err { error } if *found == Found::Nothing || error.code() == 503 => {
                return Err(error.into());
            }
            Response::Err { error } => error.to_string(),
        };
        tracing::warn!(
            stream = self.stream,
            consumer = self.name,
            reason,
            "a consumer has a configuration that can't be updated: it is deleted and created anew"
        );
        let subject = format!("CONSUMER.DELETE.{}.{}", self.stream, self.name);
        let deleted: Response<Value> = jetstream.request(subject, &json!({})).await?;
        if let Response::Err { error } = deleted
            && error.error_code() != ErrorCode::CONSUMER_NOT_FOUND
        {
            return Err(error.into());
        }
        match self.create(jetstream).await? {
            Response::Ok(_) => Ok(()),
            Response::Err { error } => Err(error).context("a consumer that was deleted can't be made anew"),
        }
    }

    /// Creates or changes the consumer, by the older subject, which does not repeat the filter. A server refuses a
    /// wildcard in a subject that goes from one account into another.
    async fn create(&self, jetstream: &jetstream::Context) -> anyhow::Result<Response<Value>> {
        let subject = format!("CONSUMER.DURABLE.CREATE.{}.{}", self.stream, self.name);
        let wanted = json!({ "stream_name": self.stream, "config": self.config()? });
        Ok(jetstream.request(subject, &wanted).await?)
    }

    fn config(&self) -> serde_json::Result<Value> {
        let config = pull::Config {
            durable_name: Some(self.name.to_owned()),
            description: Some("Makes rows of them in MySQL".to_owned()),
            ack_policy: AckPolicy::Explicit,
            ack_wait: self.ack_wait,
            filter_subject: self.filter.clone(),
            max_ack_pending: self.max_ack_pending,
            max_waiting: MAX_WAITING,
            max_deliver: -1,
            ..pull::Config::default()
        };
        serde_json::to_value(config.into_consumer_config())
    }

    /// Compares the found configuration with the wanted one, as JSON: a newer server has fields that the client's types
    /// lack.
    fn compare(&self, info: &Value) -> Found {
        let (Some(found), Ok(Value::Object(wanted))) = (info["config"].as_object(), self.config()) else {
            return Found::Different;
        };
        if are_alike(found, &wanted) { Found::Wanted } else { Found::Different }
    }
}

fn is_push(info: &Value) -> bool {
    !is_unset(&info["config"]["deliver_subject"])
}

fn are_alike(found: &Map<String, Value>, wanted: &Map<String, Value>) -> bool {
    let alike = |field: &String| {
        let (found, wanted) = (found.get(field), wanted.get(field));
        found == wanted || found.is_none_or(is_unset) && wanted.is_none_or(is_unset)
    };
    found.keys().chain(wanted.keys()).filter(|field| !NOT_COMPARED.contains(&field.as_str())).all(alike)
}

/// Whether a field's value means the same as the absence of the field.
fn is_unset(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Number(value) => value.as_f64() == Some(0.0),
        Value::String(value) => value.is_empty(),
        Value::Array(values) => values.is_empty(),
        Value::Object(fields) => fields.is_empty(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_consumer_is_the_wanted_one_whatever_the_server_adds() {
        let wanted = Wanted {
            stream: "S",
            name: "c",
            filter: "a.*".to_owned(),
            ack_wait: Duration::from_secs(10),
            max_ack_pending: 7,
        };
        let found = |change: Value| {
            let mut config = json!({
                "durable_name": "c", "name": "c", "description": "Makes rows of them in MySQL", "deliver_policy": "all",
                "ack_policy": "explicit", "ack_wait": 10_000_000_000_u64, "max_deliver": -1, "filter_subject": "a.*",
                "replay_policy": "instant", "max_waiting": 512, "max_ack_pending": 7, "num_replicas": 0,
                "metadata": { "_nats.req.level": "0" },
            });
            for (field, value) in change.as_object().into_iter().flatten() {
                config[field] = value.clone();
            }
            wanted.compare(&json!({ "config": config }))
        };
        for same in
            [json!({}), json!({ "inactive_threshold": 0, "num_replicas": 3, "priority_groups": null })]
        {
            assert_eq!(found(same.clone()), Found::Wanted, "{same}");
        }
        for other in [
            json!({ "inactive_threshold": 1_000_000 }),
            json!({ "deliver_subject": "x" }),
            json!({ "ack_policy": "none" }),
            json!({ "filter_subject": "" }),
            json!({ "ack_wait": null }),
            json!({ "priority_groups": ["a"] }),
        ] {
            assert_eq!(found(other.clone()), Found::Different, "{other}");
        }
        assert_eq!(wanted.compare(&json!({})), Found::Different);
    }
}
