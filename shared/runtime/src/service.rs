//! Answering requests of the NATS service API. No request is left without an answer.

use std::collections::HashMap;

use async_nats::client::{PublishError, PublishErrorKind};
use async_nats::service::{self, Request};
use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use wire::reply::{Code, ERROR_CODE_HEADER, ERROR_HEADER, Refusal};
use wire::words::{cut, one_of, shown};
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
        tracing::warn!(subject = %request.message.subject, %reply, "an answer was not sent: the reply subject of its request is no inbox");
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
    let bad = |sentence: String| Refusal::new(Code::BadRequest, sentence);
    // The library reads the fields of a struct from an array as well.
    let is_object = payload.trim_ascii_start().first() == Some(&b'{');
    let read = is_object.then(|| serde_json::from_slice(payload));
    let error = match read {
        Some(Ok(object)) => return Ok(object),
        Some(Err(error)) => error.to_string(),
        None => String::new(),
    };
    match serde_json::from_slice(payload) {
        Ok(Value::Object(fields)) => {
            Err(bad(format!("{}, as in {example}", sentence_of::<T>(&error, fields))))
        }
        _ => {
            let got = shown(&String::from_utf8_lossy(payload));
            Err(bad(format!("the payload must be a JSON object such as {example}, got {got}")))
        }
    }
}

/// A refusal of the JSON library as a sentence that names the field, what is allowed and what was given.
fn sentence_of<T: DeserializeOwned>(error: &str, fields: Map<String, Value>) -> String {
    // The names within the library's sentence: the one that was given, then those that are allowed.
    let mut names = error.split('`').skip(1).step_by(2);
    if error.starts_with("unknown field") {
        let got = names.next().unwrap_or_default().to_owned();
        return format!("a field must be {}, got {}", one_of(names), shown(&got));
    }
    // An object with a wrong field alone fails by that field, and one with a right field by those that are missing.
    for (name, value) in fields {
        let got = cut(&value.to_string());
        let alone = Map::from_iter([(name.clone(), value)]);
        let Err(error) = serde_json::from_value::<T>(Value::Object(alone)) else { continue };
        let error = error.to_string();
        if error.starts_with("missing field") {
            continue;
        }
        return if error.contains(", got ") {
            format!("{name} {error}")
        } else {
            format!("{name} must be {}, got {got}", allowed(&error))
        };
    }
    match names.next() {
        Some(name) if error.starts_with("missing field") => {
            format!("{name} must be given, got no such field")
        }
        Some(name) if error.starts_with("duplicate field") => {
            format!("{name} must be given once, got it twice")
        }
        _ => "the payload must be a JSON object with values of the right kind, got another one".to_owned(),
    }
}

/// The values that are allowed, by the library's sentence.
fn allowed(error: &str) -> String {
    let expected = error.rsplit_once("expected ").map_or("", |(_, expected)| expected);
    match expected {
        "u8" => "a whole number from 0 to 255".to_owned(),
        "u16" => "a whole number from 0 to 65535".to_owned(),
        "u32" => "a whole number from 0 to 4294967295".to_owned(),
        "u64" => "a whole number from 0".to_owned(),
        "a sequence" => "a list".to_owned(),
        "a string" => "text".to_owned(),
        "a boolean" => "true or false".to_owned(),
        _ if error.starts_with("unknown variant") => one_of(expected.split('`').skip(1).step_by(2)),
        "" => "another value".to_owned(),
        other => other.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn a_sentence_is_one_line() {
        assert_eq!(one_line("a\r\nb\u{0}c"), "a  b c");
        assert_eq!(one_line(&"ä".repeat(5000)).chars().count(), MAX_SENTENCE_CHARS);
    }

    #[derive(Debug, Default, PartialEq, Eq, serde::Deserialize)]
    #[serde(deny_unknown_fields, default)]
    struct Asked {
        limit: u32,
        range: Option<wire::Span>,
        kinds: Vec<wire::event::KeyEventKind>,
        by: Option<String>,
    }

    #[derive(Debug, serde::Deserialize)]
    struct Needed {
        #[expect(dead_code, reason = "it is only read")]
        holder: String,
        #[expect(dead_code, reason = "it is only read")]
        number: u64,
    }

    #[test]
    fn a_refusal_names_the_field_what_is_allowed_and_what_was_given() {
        for (payload, sentence) in [
            ("hello", r#"the payload must be a JSON object such as {"limit":1}, got "hello""#),
            ("[1]", r#"the payload must be a JSON object such as {"limit":1}, got "[1]""#),
            (
                r#"{"limit":1} x"#,
                r#"the payload must be a JSON object such as {"limit":1}, got "{\"limit\":1} x""#,
            ),
            (r#"{"lmit":1}"#, r#"a field must be limit, range, kinds or by, got "lmit", as in {"limit":1}"#),
            (
                r#"{"by":"me","limit":"x"}"#,
                r#"limit must be a whole number from 0 to 4294967295, got "x", as in {"limit":1}"#,
            ),
            (
                r#"{"limit":-1}"#,
                r#"limit must be a whole number from 0 to 4294967295, got -1, as in {"limit":1}"#,
            ),
            (
                r#"{"range":"5"}"#,
                r#"range must be a whole number and a unit (ms, s, m, h or d), as in 10m, from 1ms to 366d, got "5", as in {"limit":1}"#,
            ),
            (r#"{"by":1}"#, r#"by must be text, got 1, as in {"limit":1}"#),
            (r#"{"kinds":"hit"}"#, r#"kinds must be a list, got "hit", as in {"limit":1}"#),
            (
                r#"{"kinds":["x"]}"#,
                r#"kinds must be hit, miss, put, evicted, invalidated or rejected, got ["x"], as in {"limit":1}"#,
            ),
            (r#"{"by":"a","by":"b"}"#, r#"by must be given once, got it twice, as in {"limit":1}"#),
        ] {
            let refusal = parse_json::<Asked>(payload.as_bytes(), r#"{"limit":1}"#).unwrap_err();
            assert_eq!(refusal.message, sentence);
        }
        for (payload, sentence) in [
            ("{}", "holder must be given, got no such field, as in {…}"),
            (r#"{"holder":"a"}"#, "number must be given, got no such field, as in {…}"),
            (r#"{"holder":"a","number":"b"}"#, "number must be a whole number from 0, got \"b\", as in {…}"),
        ] {
            assert_eq!(parse_object::<Needed>(payload.as_bytes(), "{…}").unwrap_err().message, sentence);
        }
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
