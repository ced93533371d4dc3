//! `cache.near.hits`: gateways report the hits that they served from copies of their own.

use async_nats::service::Request;
use runtime::service::{Answer, parse_object};
use wire::Item;
use wire::near::{HitsReply, HitsReport, MOST_KEYS_REPORTED};
use wire::reply::Code;

use crate::worker::{Worker, not_serving};

pub(super) fn near_hits(worker: &Worker, request: &Request) -> Answer {
    let example = r#"{"holder":"00000000000000a7","number":1,"to":"0123456789abcdef","hits":[{"key":"cat","count":2,"bytes":2048}]}"#;
    let report: HitsReport = match parse_object(&request.message.payload, example) {
        Ok(report) => report,
        Err(refusal) => return Answer::Refused(refusal, None),
    };
    if report.hits.len() > MOST_KEYS_REPORTED {
        let message = format!("hits must be at most {MOST_KEYS_REPORTED} keys, got {}", report.hits.len());
        return Answer::refuse(Code::BadRequest, message);
    }
    match worker.count_near_hits(&report) {
        Some(counted) => {
            for hits in report.hits.iter().filter(|hits| counted && hits.count > 0) {
                let item = Item { key: hits.key.clone(), variant: hits.variant };
                worker.watch.tell_near(&item, hits.bytes / hits.count, hits.count);
            }
            let uptime_ms = u64::try_from(worker.started.elapsed().as_millis()).unwrap_or(u64::MAX);
            Answer::json(&HitsReply { counted, by: worker.incarnation.clone(), uptime_ms })
        }
        None => Answer::Refused(not_serving(), None),
    }
}
