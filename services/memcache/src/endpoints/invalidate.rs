//! `cache.invalidate.<key>`: the image of a key has changed at the origin.

use async_nats::service::Request;
use runtime::service::Answer;
use wire::event::KeyEventKind;
use wire::inspect::InvalidateReply;
use wire::reply::Code;
use wire::subject;

use super::handled::Handled;
use crate::worker::Worker;

pub(super) fn invalidate(worker: &Worker, request: &Request) -> Handled {
    let key = match subject::key_of(&request.message.subject) {
        Ok(key) => key,
        Err(sentence) => return Handled::Now(Answer::refuse(Code::BadRequest, sentence)),
    };
    // Removal and voiding of leases come first, then the near drops, then the acknowledgement (rule 3).
    let (removed, drop) = worker.invalidate(&key);
    for entry in &removed {
        worker.watch.tell(KeyEventKind::Invalidated, &entry.item(), entry.size());
    }
    let resident = !removed.is_empty();
    if !resident {
        worker.watch.tell(KeyEventKind::Invalidated, &key.into(), 0);
    }
    Handled::Later(drop, Answer::json(&InvalidateReply { resident, incarnation: worker.incarnation.clone() }))
}
