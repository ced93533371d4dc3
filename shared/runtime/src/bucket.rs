//! The entries of KV buckets. They are read at their stream's leader and written by compare-and-set.

use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE;
use async_nats::jetstream::ErrorCode;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use wire::reply::Code;
use wire::{Meta, subject};

use crate::Bus;
use crate::bus::{Refused, RequestFailure};
use crate::clock::Moment;

/// The header that marks the entry of a bucket as removed.
pub const KV_OPERATION: &str = "KV-Operation";

/// The last message under one subject of a stream, as the stream's leader has it. The client's own reads may be
/// answered by a replica that is behind.
///
/// # Errors
/// [`RequestFailure`], also when the stream has no leader.
pub async fn last(
    bus: &Bus,
    stream: &'static str,
    of: &str,
    limit: Duration,
) -> Result<Option<Message>, RequestFailure> {
    let begin = Moment::now();
    let found = message(bus, stream, &serde_json::json!({ "last_by_subj": of }), limit).await?;
    // These streams hold one subject each. An older nats-server that can't read the blocks of a newer one reports
    // messages, but finds none.
    if found.is_none() && message_count(bus, stream, limit.saturating_sub(begin.elapsed())).await? > 0 {
        bus.note_messages(stream, None);
        return Err(RequestFailure::Other(format!(
            "nats-server has messages in the stream {stream} and can't read the last one: was a newer nats-server used \
             with this store before?"
        )));
    }
    Ok(found)
}

/// The message with this number, if it is still kept, as the stream's leader has it.
///
/// # Errors
/// As [`last`].
pub async fn with_number(
    bus: &Bus,
    stream: &'static str,
    number: u64,
    limit: Duration,
) -> Result<Option<Message>, RequestFailure> {
    message(bus, stream, &serde_json::json!({ "seq": number }), limit).await
}

/// Asks for a message, without crashing the server. A nats-server that is asked for a message of a stream that it is
/// just creating crashes on a nil pointer. `jsMsgGetRequest` reads the stream's store before `setupStore` has made it
/// (seen with 2.9.10, and in the sources up to 2.14). The stream's state can be asked for at any time. So the first
/// request on each connection is for the state. A message is asked for only if the stream holds one.
async fn message(
    bus: &Bus,
    stream: &'static str,
    question: &serde_json::Value,
    limit: Duration,
) -> Result<Option<Message>, RequestFailure> {
    let begin = Moment::now();
    if !bus.has_seen_messages(stream) {
        let connection = bus.connection_count();
        if message_count(bus, stream, limit).await? == 0 {
            return Ok(None);
        }
        bus.note_messages(stream, Some(connection));
    }
    let left = limit.saturating_sub(begin.elapsed());
    let subject = subject::stream_message(stream);
    let answer: MessageAnswer = ask(bus, &subject, question.to_string().into(), left).await?;
    let unreadable = |what: &dyn std::fmt::Display| unreadable(&subject, what);
    match (answer.message, answer.error) {
        (Some(message), None) => {
            let decoded = |text: &str| STANDARD.decode(text).map_err(|error| unreadable(&error));
            let headers = decoded(&message.hdrs)?;
            let is_removed = String::from_utf8_lossy(&headers)
                .lines()
                .any(|line| line.split_once(':').is_some_and(|(name, _)| name == KV_OPERATION));
            let value = if is_removed { None } else { Some(decoded(&message.data)?.into()) };
            Ok(Some(Message { value, revision: message.seq }))
        }
        // Either the stream has no such message, or there is no stream, which may be created at any moment from now on.
        (None, Some(error)) if error.code == 404 => {
            bus.note_messages(stream, None);
            Ok(None)
        }
        (_, Some(error)) => Err(RequestFailure::Other(error.description)),
        (None, None) => Err(unreadable(&"there is neither a message nor an error in it")),
    }
}

/// The number of messages in the stream; 0 if there is no such stream.
async fn message_count(bus: &Bus, stream: &str, limit: Duration) -> Result<u64, RequestFailure> {
    let subject = subject::stream_info(stream);
    let info: InfoAnswer = ask(bus, &subject, Bytes::new(), limit).await?;
    match (info.state, info.error) {
        (Some(state), None) => Ok(state.messages),
        (None, Some(error)) if error.code == 404 => Ok(0),
        (_, Some(error)) => Err(RequestFailure::Other(error.description)),
        (None, None) => Err(unreadable(&subject, &"there is neither a state nor an error in it")),
    }
}

async fn ask<A: DeserializeOwned>(
    bus: &Bus,
    subject: &str,
    question: Bytes,
    limit: Duration,
) -> Result<A, RequestFailure> {
    let reply = bus.request(subject.to_owned(), None, question, limit).await?;
    serde_json::from_slice(&reply.payload).map_err(|error| unreadable(subject, &error))
}

fn unreadable(subject: &str, what: &dyn std::fmt::Display) -> RequestFailure {
    RequestFailure::Other(format!("the answer on {subject} can't be read: {what}"))
}

/// A message in the stream of a bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The value; `None` if the entry was removed.
    pub value: Option<Bytes>,
    /// Its number in the stream.
    pub revision: u64,
}

#[derive(Deserialize)]
struct InfoAnswer {
    state: Option<StreamState>,
    error: Option<ApiError>,
}

#[derive(Deserialize)]
struct StreamState {
    messages: u64,
}

#[derive(Deserialize)]
struct MessageAnswer {
    message: Option<StoredMessage>,
    error: Option<ApiError>,
}

#[derive(Deserialize)]
struct StoredMessage {
    seq: u64,
    #[serde(default)]
    hdrs: String,
    #[serde(default)]
    data: String,
}

#[derive(Deserialize)]
struct ApiError {
    code: u16,
    #[serde(default)]
    err_code: u64,
    #[serde(default)]
    description: String,
}

/// The outcome of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// The entry was written, with this revision.
    Done(u64),
    /// Another process wrote first, so nothing was written.
    Overtaken,
}

/// Writes `body` under a subject if the last message under it has the number `over`; 0 if there is none.
///
/// # Errors
/// [`RequestFailure`]. Unless [`RequestFailure::had_no_effect`], `body` may be written all the same.
pub async fn write(
    bus: &Bus,
    entry: &str,
    body: Bytes,
    over: u64,
    limit: Duration,
) -> Result<Written, RequestFailure> {
    let mut headers = HeaderMap::new();
    headers.insert(NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, over.to_string());
    let reply = bus.request_with_headers(entry.to_owned(), headers, body, limit).await?;
    read_acknowledgement(&reply.payload)
}

fn read_acknowledgement(payload: &[u8]) -> Result<Written, RequestFailure> {
    #[derive(Deserialize)]
    struct Acknowledgement {
        seq: Option<u64>,
        error: Option<ApiError>,
    }
    match serde_json::from_slice(payload) {
        Ok(Acknowledgement { error: Some(error), .. }) => {
            let overtaken =
                [ErrorCode::STREAM_WRONG_LAST_SEQUENCE, ErrorCode::STREAM_WRONG_LAST_SEQUENCE_CONSTANT];
            if overtaken.iter().any(|code| code.0 == error.err_code) {
                return Ok(Written::Overtaken);
            }
            let refusal = wire::reply::Refusal::new(Code::Unavailable, error.description);
            Err(RequestFailure::Refused(Box::new(Refused { refusal, meta: Meta::default() })))
        }
        Ok(Acknowledgement { seq: Some(revision), error: None }) => Ok(Written::Done(revision)),
        Ok(Acknowledgement { seq: None, error: None }) => {
            Err(RequestFailure::Other("JetStream's acknowledgement names no message".to_owned()))
        }
        Err(error) => {
            Err(RequestFailure::Other(format!("JetStream's acknowledgement can't be read: {error}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_jetstream_says_to_a_write_is_told_apart() {
        let read = |text: &str| read_acknowledgement(text.as_bytes());
        assert_eq!(read(r#"{"stream":"KV_CACHE_OWNERS","seq":7}"#).ok(), Some(Written::Done(7)));
        let wrong = r#"{"error":{"code":400,"err_code":10071,"description":"wrong last sequence: 9"},"stream":"x","seq":0}"#;
        assert_eq!(read(wrong).ok(), Some(Written::Overtaken));
        for other in [r#"{"error":{"code":503,"err_code":10008}}"#, "{}", "junk", r#"{"seq":"x"}"#] {
            assert!(read(other).is_err(), "{other}");
        }
    }
}
