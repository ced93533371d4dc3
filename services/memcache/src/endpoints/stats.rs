//! `cache.stats`: the worker's counters.

use async_nats::service::Request;
use runtime::service::Answer;

use crate::worker::Worker;

pub(super) fn stats(worker: &Worker, _: &Request) -> Answer {
    Answer::json(&worker.stats())
}
