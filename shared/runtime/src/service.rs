//! Answering requests of the NATS service API. No request is left without an answer.

use std::collections::HashMap;

use async_nats::client::{PublishError, PublishErrorKind};
use async_nats::service::{self, Request};
use bytes::Bytes;
use serde::de::DeserializeOwned;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use wire::reply::{Code, ERROR_CODE_HEADER, ERROR_HEADER, Refusal};
use wire::{Meta, subject};

use crate::Bus;
use crate::bus::headers_of;

/// The metadata with which a service answers to `$SRV.PING`: `pairs`, and the time of this call as `since`.
pub fn metadata<const N: usize>(pairs: [(&str, String); N]) -> HashMap<String, String> {
    let since = OffsetDateTime::now_utc().format(&Rfc3339).unwrap_or_default();
    let pairs = pairs.into_iter().chain([("since", since)]);
    pairs.map(|(name, value)| (name.to_owned(), value)).collect()
}

/// The answer of a service to a request.
#[derive(Debug)]
pub enum Answer {
    /// A body without headers, such as JSON.
    Body(Bytes),
    /// A body, or none, with metadata.
    WithMeta(Bytes, Meta),
    /// A refusal, which may come with metadata, such as the lease of a miss.
    Refused(Refusal, Option<Meta>),
}

impl Answer {
    /// A refusal without metadata.
    pub fn refuse(code: Code, message: impl Into<String>) -> Self {
        Self::Refused(Refusal::new(code, message), None)
    }

    /// A value as JSON.
    pub fn json<T: serde::Serialize>(value: &T) -> Self {
        match serde_json::to_vec(value) {
            Ok(body) => Self::Body(body.into()),
            Err(error) => {
                Self::refuse(Code::Internal, format!("the answer could not be written as JSON: {error}"))
            }
        }
    }
}

/// Sends `answer`. If it is larger than the bus carries, a refusal that says so is sent instead.
///
/// A message without a reply subject asks for no answer and gets none; nor does one whose reply subject is no inbox. By
/// such a subject, the asker could publish where it must not.
pub async fn respond(bus: &Bus, request: &Request, answer: Answer) {
    let Some(reply) = &request.message.reply else { return };
    if !subject::is_reply_to_an_asker(reply) {
        bus.note_refused_answer();
        tracing::warn!(subject = %request.message.subject, %reply, "an answer is not sent: the reply subject is no inbox of an asker");
        return;
    }
    let sent = match answer {
        Answer::Body(body) => request.respond(Ok(body)).await,
        Answer::WithMeta(body, meta) => request.respond_with_headers(Ok(body), headers_of(&meta)).await,
        Answer::Refused(refusal, meta) => refuse(request, &refusal, meta.as_ref()).await,
    };
    let Err(error) = sent else { return };
    if error.kind() == PublishErrorKind::MaxPayloadExceeded {
        let message = "the answer is larger than the bus carries (max_payload in nats.conf)";
        if refuse(request, &Refusal::new(Code::TooLarge, message), None).await.is_ok() {
            return;
        }
    }
    tracing::warn!(subject = %request.message.subject, %error, "an answer could not be sent");
}

async fn refuse(request: &Request, refusal: &Refusal, meta: Option<&Meta>) -> Result<(), PublishError> {
    let mut headers = meta.map(headers_of).unwrap_or_default();
    let message = one_line(&refusal.message);
    if refusal.code == Code::NotFound {
        // A miss is no failure: it is kept out of the error count of `nats micro stats`.
        headers.insert(ERROR_CODE_HEADER, refusal.code.number().to_string());
        headers.insert(ERROR_HEADER, message);
        return request.respond_with_headers(Ok(Bytes::new()), headers).await;
    }
    let error = service::error::Error { status: message, code: usize::from(refusal.code.number()) };
    request.respond_with_headers(Err(error), headers).await
}

/// The longest sentence of a refusal, in characters. The limit is needed because a parser may show its whole input.
const MAX_SENTENCE_CHARS: usize = 1000;

/// A header's value is one line: the library panics on a line break in it.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_SENTENCE_CHARS).collect()
}

/// Reads a JSON object; an empty payload takes the defaults.
///
/// # Errors
/// A [`Code::BadRequest`] that says what is wrong and shows `example`.
pub fn parse_json<T: DeserializeOwned + Default>(payload: &[u8], example: &str) -> Result<T, Refusal> {
    if payload.iter().all(u8::is_ascii_whitespace) {
        return Ok(T::default());
    }
    parse_object(payload, example)
}

/// Reads a JSON object.
///
/// # Errors
/// As [`parse_json`].
pub fn parse_object<T: DeserializeOwned>(payload: &[u8], example: &str) -> Result<T, Refusal> {
    let bad = |reason: &dyn std::fmt::Display| {
        Refusal::new(
            Code::BadRequest,
            format!("the request can't be read ({reason}); it looks like {example}"),
        )
    };
    // The library reads the fields of a struct from an array as well.
    if payload.trim_ascii_start().first() != Some(&b'{') {
        return Err(bad(&"it is no JSON object"));
    }
    serde_json::from_slice(payload).map_err(|error| bad(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sentence_is_one_line() {
        assert_eq!(one_line("a\r\nb\u{0}c"), "a  b c");
        assert_eq!(one_line(&"ä".repeat(5000)).chars().count(), MAX_SENTENCE_CHARS);
    }

    #[test]
    fn an_empty_payload_takes_the_defaults_and_a_bad_one_is_explained() {
        assert_eq!(parse_json::<Vec<u8>>(b" \n", "[1]"), Ok(Vec::new()));
        let refusal = parse_json::<Vec<u8>>(b"{", "[1]");
        assert!(
            matches!(refusal, Err(Refusal { code: Code::BadRequest, message }) if message.contains("[1]"))
        );
    }
}
