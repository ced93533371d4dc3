//! `cache.invalidate.<key>`: the image of a key has changed at the origin.

use async_nats::service::Request;
use runtime::bus::meta_of;
use runtime::service::Answer;
use wire::event::KeyEventKind;
use wire::inspect::InvalidateReply;
use wire::reply::Code;
use wire::{Meta, subject};

use super::handled::Handled;
use crate::worker::{Invalidated, Worker};

pub(super) fn invalidate(worker: &Worker, request: &Request) -> Handled {
    let bad = |sentence| Handled::Now(Answer::refuse(Code::BadRequest, sentence));
    let key = match subject::key_of(&request.message.subject) {
        Ok(key) => key,
        Err(sentence) => return bad(sentence),
    };
    let asked = match meta_of(request.message.headers.as_ref()) {
        Ok(asked) => asked,
        Err(sentence) => return bad(sentence),
    };
    // As for a miss, only a gateway fills.
    let is_of_gateway = request.message.reply.as_deref().is_some_and(subject::is_inbox_of_gateway);
    // Removal and voiding of leases come first, then the near drops, then the acknowledgement (rule 3).
    let Invalidated { removed, drop, lease } =
        worker.invalidate(&key, asked.refill.filter(|_| is_of_gateway));
    for entry in &removed {
        worker.watch.tell(KeyEventKind::Invalidated, &entry.item(), entry.size());
    }
    let resident = !removed.is_empty();
    if !resident {
        worker.watch.tell(KeyEventKind::Invalidated, &key.into(), 0);
    }
    let answer = Answer::json(&InvalidateReply { resident, incarnation: worker.incarnation.clone() });
    let answer = match (answer, lease) {
        (Answer::Body(body), Some(lease)) => {
            Answer::WithMeta(body, Meta { lease: Some(lease), ..Meta::default() })
        }
        (answer, _) => answer,
    };
    Handled::Later(drop, answer)
}
