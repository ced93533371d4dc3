//! `cache.clear`: drops every entry.

use async_nats::service::Request;
use runtime::clock::Moment;
use runtime::service::{Answer, parse_json};
use wire::config::MAX_BY_CHARS;
use wire::inspect::ClearRequest;
use wire::reply::Code;
use wire::words::shown;

use super::handled::{Handled, later, while_claimed};
use crate::live::Live;
use crate::worker::Worker;

pub(super) async fn clear(worker: &Worker, live: &Live, request: &Request, arrived: Moment) -> Handled {
    let asked: ClearRequest = match parse_json(&request.message.payload, r#"{"by":"me"}, or nothing"#) {
        Ok(asked) => asked,
        Err(refusal) => return Handled::Now(Answer::Refused(refusal, None)),
    };
    let by = asked.by.as_deref().unwrap_or_default();
    if by.chars().count() > MAX_BY_CHARS || by.chars().any(char::is_control) {
        let message = format!(
            "by must be up to {MAX_BY_CHARS} characters of text without control characters, got {}",
            shown(by)
        );
        return Handled::Now(Answer::refuse(Code::BadRequest, message));
    }
    match while_claimed(worker, live.clear(asked.by.as_deref(), arrived)).await {
        Ok((reply, drop)) => later(drop, Answer::json(&reply)),
        Err(refusal) => Handled::Now(Answer::Refused(refusal, None)),
    }
}
