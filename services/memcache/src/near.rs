//! Telling the holders of near leases to drop their copies: before a change is acknowledged (rule 3), and before
//! the worker leaves.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use runtime::clock::{Moment, with_margin};
use wire::near::{DropRequest, LONGEST_LEASE_MS};
use wire::{Holder, subject};

use crate::holders::Drop;
use crate::worker::Worker;

/// How long one try waits for an answer. Further tries follow until the lease ends.
const TRY_TIME: Duration = Duration::from_millis(250);
const PAUSE: Duration = Duration::from_millis(20);
/// How long a worker that leaves waits for the last reports.
const LAST_REPORTS: Duration = Duration::from_millis(500);

/// Tells every holder that `drop` names, and returns when none of them serves an older copy any more.
///
/// By then each holder has acknowledged or its lease has ended, and so has every lease that a predecessor of this
/// worker granted.
pub(crate) async fn tell(worker: &Worker, drop: &Drop) {
    let payload = payload_of(drop);
    let told = drop.holders.iter().map(|(holder, end)| tell_one(worker, drop, *holder, *end, &payload));
    tokio::join!(join_all(told), sleep_until(leases_of_predecessors_end(worker)));
}

/// Whether [`tell`] has nothing to wait for.
pub(crate) fn is_done(worker: &Worker, drop: &Drop) -> bool {
    drop.holders.is_empty() && Moment::now() >= leases_of_predecessors_end(worker)
}

/// Has all holders drop their copies and report the hits on them, once no near lease is granted any more.
///
/// When all parts of the system stop at once, no other worker is there to count these hits. A holder that does not
/// answer within `LAST_REPORTS` is not waited for.
pub(crate) async fn gather(worker: &Worker) {
    if !worker.is_serving() {
        return;
    }
    let drop = worker.store().holders.drop_all(Moment::now());
    let payload = &payload_of(&drop);
    let asked = drop.holders.iter().map(|(holder, _)| async move {
        let subject = subject::near_drop(*holder);
        if let Err(failure) = worker.own.request(subject, None, payload.clone(), LAST_REPORTS).await {
            tracing::debug!(%holder, %failure, "a gateway may have hits that are not counted here");
        }
    });
    join_all(asked).await;
}

fn payload_of(drop: &Drop) -> Bytes {
    match serde_json::to_vec(&DropRequest { key: drop.key.clone() }) {
        Ok(payload) => payload.into(),
        Err(error) => {
            tracing::error!(%error, "a near drop could not be written: the worker waits for the end of the leases");
            Bytes::new()
        }
    }
}

/// The moment at which every near lease that an earlier worker granted has ended.
///
/// The holders of those leases are unknown, but the earlier worker's claim had ended when this worker won its own.
fn leases_of_predecessors_end(worker: &Worker) -> Moment {
    worker.claim.won() + with_margin(Duration::from_millis(LONGEST_LEASE_MS))
}

async fn tell_one(worker: &Worker, drop: &Drop, holder: Holder, end: Moment, payload: &Bytes) {
    loop {
        let left = end.since(Moment::now());
        if left.is_zero() {
            return;
        }
        let asked = worker.own.request(subject::near_drop(holder), None, payload.clone(), left.min(TRY_TIME));
        match asked.await {
            Ok(_) => {
                worker.store().holders.acknowledged(drop, holder);
                return;
            }
            // A holder that does not answer may be out of reach and still serve its copy.
            Err(failure) => {
                tracing::debug!(%holder, %failure, "a near copy is not dropped yet");
                sleep_until(end.min(Moment::now() + PAUSE)).await;
            }
        }
    }
}

async fn sleep_until(end: Moment) {
    // Tokio's clock stands still while the machine sleeps.
    loop {
        let left = end.since(Moment::now());
        if left.is_zero() {
            return;
        }
        tokio::time::sleep(left).await;
    }
}
