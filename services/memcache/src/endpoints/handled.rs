//! The outcome of a request, and what handlers share.

use std::future::Future;
use std::time::Duration;

use async_nats::service::Request;
use runtime::bus::meta_of;
use runtime::service::Answer;
use wire::reply::{Code, Refusal};
use wire::{Item, Meta, subject};

use crate::holders::Drop;
use crate::live;
use crate::worker::Worker;

/// The outcome of a request.
pub(super) enum Handled {
    /// The answer.
    Now(Answer),
    /// The answer, sent when no holder of a near lease serves an older copy any more. Other requests are handled
    /// meanwhile.
    Later(Drop, Answer),
    /// No answer from here, because another endpoint answers.
    Elsewhere,
}

impl From<Answer> for Handled {
    fn from(answer: Answer) -> Self {
        Self::Now(answer)
    }
}

impl From<Refusal> for Handled {
    fn from(refusal: Refusal) -> Self {
        Self::Now(Answer::Refused(refusal, None))
    }
}

/// The answer to a change that has been made: sent when the holders that `drop` names have been told.
pub(super) fn later(drop: Option<Drop>, answer: Answer) -> Handled {
    match drop {
        Some(drop) => Handled::Later(drop, answer),
        None => Handled::Now(answer),
    }
}

pub(super) fn answer_of<T: serde::Serialize>(result: Result<T, Refusal>) -> Answer {
    match result {
        Ok(value) => Answer::json(&value),
        Err(refusal) => Answer::Refused(refusal, None),
    }
}

/// The result of `change`, or a refusal as soon as the claim ends: a life that is over does not wait for JetStream.
pub(super) async fn while_claimed<T>(
    worker: &Worker,
    change: impl Future<Output = Result<T, Refusal>>,
) -> Result<T, Refusal> {
    tokio::select! {
        biased;
        changed = change => changed,
        () = worker.claim.ended() => {
            Err(live::unknown(&"this worker has lost the claim to serve meanwhile"))
        }
    }
}

pub(super) fn item_and_meta(request: &Request) -> Result<(Item, Meta), Refusal> {
    let bad = |sentence| Refusal::new(Code::BadRequest, sentence);
    let item = subject::item_of(&request.message.subject).map_err(bad)?;
    let meta = meta_of(request.message.headers.as_ref()).map_err(bad)?;
    Ok((item, meta))
}

pub(super) fn millis(length: Duration) -> u64 {
    u64::try_from(length.as_millis()).unwrap_or(u64::MAX)
}
