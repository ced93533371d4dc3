//! The JetStream stream of events and the KV bucket of the configuration.
//!
//! Worker and recorder both make them if they are not there, so either may start first.

use std::time::Duration;

use async_nats::jetstream::context::CreateStreamErrorKind;
use async_nats::jetstream::stream::{Config, DiscardPolicy, RetentionPolicy, StorageType};
use async_nats::jetstream::{self, ErrorCode, kv};
use wire::subject;

/// How long an event is kept for a recorder that does not run.
const EVENT_AGE: Duration = Duration::from_secs(7 * 24 * 3600);
/// The most bytes of events that are kept.
const EVENT_BYTES: i64 = 512 << 20;
/// How many revisions of the configuration the bucket keeps for a recorder that is away.
const CONFIG_HISTORY: i64 = 4096;

/// A stream could not be made, or not be reached.
#[derive(Debug, thiserror::Error)]
#[error("the JetStream stream {stream} is not available: {source}")]
pub struct StreamError {
    /// The name of the stream.
    pub stream: &'static str,
    /// The reason.
    pub source: async_nats::Error,
}

/// The stream of windows, configured and cleared events, made if it is not there.
///
/// # Errors
/// [`StreamError`], also while JetStream is still starting.
pub async fn ensure_event_stream(jetstream: &jetstream::Context) -> Result<(), StreamError> {
    let config = Config {
        name: subject::EVENT_STREAM.to_owned(),
        description: Some("What pixcache workers counted and did, for the recorder".to_owned()),
        subjects: subject::EVENT_STREAM_SUBJECTS.map(str::to_owned).to_vec(),
        retention: RetentionPolicy::Limits,
        storage: StorageType::File,
        discard: DiscardPolicy::Old,
        max_age: EVENT_AGE,
        max_bytes: EVENT_BYTES,
        duplicate_window: Duration::from_secs(120),
        ..Config::default()
    };
    create(jetstream, subject::EVENT_STREAM, config).await
}

/// The KV bucket of the live configuration, made if it is not there.
///
/// # Errors
/// [`StreamError`], also while JetStream is still starting.
pub async fn ensure_config_bucket(jetstream: &jetstream::Context) -> Result<kv::Store, StreamError> {
    let description = "The live configuration of the pixcache cache";
    bucket(jetstream, subject::CONFIG_BUCKET, subject::CONFIG_STREAM, description, CONFIG_HISTORY).await
}

/// The KV bucket that says which worker serves, made if it is not there.
///
/// # Errors
/// [`StreamError`], also while JetStream is still starting.
pub async fn ensure_owners_bucket(jetstream: &jetstream::Context) -> Result<kv::Store, StreamError> {
    let description = "Which pixcache worker serves";
    bucket(jetstream, subject::OWNERS_BUCKET, subject::OWNERS_STREAM, description, 1).await
}

/// A bucket is made as a plain stream: `create_key_value` fails against nats-server 2.9, which leaves out
/// a field that the client insists on.
async fn bucket(
    jetstream: &jetstream::Context,
    name: &str,
    stream: &'static str,
    description: &str,
    history: i64,
) -> Result<kv::Store, StreamError> {
    let config = Config {
        name: stream.to_owned(),
        description: Some(description.to_owned()),
        subjects: vec![subject::entries_of(name)],
        max_messages_per_subject: history,
        storage: StorageType::File,
        discard: DiscardPolicy::New,
        allow_direct: true,
        allow_rollup: true,
        deny_delete: true,
        ..Config::default()
    };
    create(jetstream, stream, config).await?;
    jetstream.get_key_value(name).await.map_err(|error| StreamError { stream, source: error.into() })
}

async fn create(
    jetstream: &jetstream::Context,
    stream: &'static str,
    config: Config,
) -> Result<(), StreamError> {
    match jetstream.create_stream(config).await {
        Ok(_) => Ok(()),
        // An operator may have changed its limits on purpose, so they stay.
        Err(error)
            if matches!(error.kind(), CreateStreamErrorKind::JetStream(ref reason)
                if reason.error_code() == ErrorCode::STREAM_NAME_EXIST) =>
        {
            Ok(())
        }
        Err(error) => Err(StreamError { stream, source: error.into() }),
    }
}
