//! `cache.config.get`, `cache.config.set` and `cache.config.refresh`: the configuration in force.

use async_nats::service::Request;
use runtime::clock::Moment;
use runtime::service::Answer;
use wire::reply::Code;
use wire::subject;
use wire::words::{one_of, shown};

use super::handled::{Handled, answer_of, later, while_claimed};
use crate::live::Live;
use crate::worker::Worker;

/// The commands about the configuration.
pub(super) const COMMANDS: [&str; 3] = [subject::CONFIG_GET, subject::CONFIG_SET, subject::CONFIG_REFRESH];

pub(super) async fn config(worker: &Worker, live: &Live, request: &Request, arrived: Moment) -> Handled {
    match request.message.subject.as_str() {
        subject::CONFIG_GET => Handled::Now(answer_of(while_claimed(worker, live.get()).await)),
        subject::CONFIG_SET => {
            match while_claimed(worker, live.change(&request.message.payload, arrived)).await {
                Ok((reply, drop)) => later(drop, Answer::json(&reply)),
                Err(refusal) => Handled::Now(Answer::Refused(refusal, None)),
            }
        }
        subject::CONFIG_REFRESH => {
            Handled::Now(answer_of(while_claimed(worker, live.refresh(arrived)).await))
        }
        other => {
            let message = format!("the subject must be {}, got {}", one_of(COMMANDS), shown(other));
            Handled::Now(Answer::refuse(Code::NotFound, message))
        }
    }
}
