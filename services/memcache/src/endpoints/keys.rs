//! `cache.keys`: the resident entries.

use async_nats::service::Request;
use runtime::clock::Moment;
use runtime::service::{Answer, parse_json};
use wire::inspect::KeysRequest;
use wire::reply::Code;

use crate::worker::Worker;

/// The most entries in one answer to `cache.keys`.
const MOST_KEYS: u32 = 1000;

pub(super) fn keys(worker: &Worker, request: &Request) -> Answer {
    let example = r#"{"prefix":"","limit":100,"after":null,"sort":"recent"}"#;
    let asked: KeysRequest = match parse_json(&request.message.payload, example) {
        Ok(asked) => asked,
        Err(refusal) => return Answer::Refused(refusal, None),
    };
    if !(1..=MOST_KEYS).contains(&asked.limit) {
        return Answer::refuse(
            Code::BadRequest,
            format!("limit must be a whole number from 1 to {MOST_KEYS}, got {}", asked.limit),
        );
    }
    match worker.store().keys(&asked, Moment::now()) {
        Ok(page) => Answer::json(&page),
        Err(error) => Answer::refuse(Code::BadRequest, error.to_string()),
    }
}
