//! `cache.watch`: key events are published for a while.

use std::time::Duration;

use async_nats::service::Request;
use runtime::service::{Answer, parse_json};
use wire::inspect::{WatchReply, WatchRequest};
use wire::reply::Code;

use crate::watch::MAX_EVENTS_PER_SECOND;
use crate::worker::Worker;

/// The longest watch, in seconds.
const LONGEST_WATCH_S: u32 = 3600;

pub(super) fn watch(worker: &Worker, request: &Request) -> Answer {
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
