//! `cache.get.<key>[.<variant>]`: an image, or the lease to fill it.

use async_nats::service::Request;
use bytes::Bytes;
use runtime::service::Answer;
use runtime::shelf::Shelf;
use wire::event::KeyEventKind;
use wire::reply::{Code, Refusal};
use wire::shelf::Folder;
use wire::words::shown;
use wire::{Item, Meta, subject};

use super::handled::{item_and_meta, millis};
use crate::store::{Entry, Lookup, MAPPED_BYTES};
use crate::worker::Worker;

pub(super) fn get(worker: &Worker, request: &Request) -> Answer {
    let (item, asked) = match item_and_meta(request) {
        Ok(parsed) => parsed,
        Err(refusal) => return Answer::Refused(refusal, None),
    };
    let most = match most_of(&request.message.payload) {
        Ok(most) => most,
        Err(refusal) => return Answer::Refused(refusal, None),
    };
    if asked.renewal {
        return renew(worker, &item, &asked);
    }
    // A lease given to a person's get would keep the gateways from filling the entry until the lease ends.
    let is_of_gateway = request.message.reply.as_deref().is_some_and(subject::is_inbox_of_gateway);
    answer(worker, &item, &asked, most, is_of_gateway)
}

fn answer(worker: &Worker, item: &Item, asked: &Meta, most: u64, is_of_gateway: bool) -> Answer {
    let (found, granted) = worker.get(item, asked, most, is_of_gateway && !asked.look);
    let granted_ms = granted.map(millis);
    let tell = |kind, bytes| {
        if !asked.again {
            worker.watch.tell(kind, item, bytes);
        }
    };
    match found {
        Lookup::Hit(entry) => {
            tell(KeyEventKind::Hit, entry.size());
            let meta = Meta { granted_ms, ..meta_of_entry(&entry) };
            let own = worker.shelf.as_ref().map(Shelf::own);
            if let Some(file) = entry.file().filter(|_| asked.shelf.is_some() && asked.shelf == own) {
                worker.tell_file(&entry);
                let meta = Meta { file: Some(file), size: Some(entry.size()), ..meta };
                return Answer::WithMeta(Bytes::new(), meta);
            }
            match entry.bytes() {
                Ok(bytes) => {
                    let may_be_shared = is_of_gateway && bytes.len() >= MAPPED_BYTES;
                    Answer::WithMeta(
                        bytes,
                        Meta { shelf: shelf_to_tell(worker, asked, may_be_shared), ..meta },
                    )
                }
                Err(error) => {
                    tracing::warn!(%error, "the file of an image is gone: the entry is dropped");
                    worker.forget(item);
                    let asked = Meta { again: true, ..asked.clone() };
                    answer(worker, item, &asked, most, is_of_gateway)
                }
            }
        }
        Lookup::Fresh(entry) => {
            tell(KeyEventKind::Hit, entry.size());
            Answer::WithMeta(Bytes::new(), Meta { fresh: true, granted_ms, ..meta_of_entry(&entry) })
        }
        Lookup::Miss(lease) => {
            tell(KeyEventKind::Miss, 0);
            let refusal = Refusal::new(Code::NotFound, "miss: the cache has no entry under this key");
            let shelf = shelf_to_tell(worker, asked, is_of_gateway);
            Answer::Refused(refusal, lease.map(|lease| Meta { lease: Some(lease), shelf, ..Meta::default() }))
        }
        Lookup::Larger(size) => {
            let message =
                format!("the image must be at most {most} bytes, as the request says, and has {size}");
            let meta = Meta { size: Some(size), ..Meta::default() };
            Answer::Refused(Refusal::new(Code::TooLarge, message), Some(meta))
        }
    }
}

/// The folder of this worker, for a gateway that does not read it already.
fn shelf_to_tell(worker: &Worker, asked: &Meta, is_useful: bool) -> Option<Folder> {
    let own = worker.shelf.as_ref()?.own();
    (is_useful && asked.shelf != Some(own)).then_some(own)
}

/// The most bytes that the sender of a get has room for; without a number in the payload there is no limit.
fn most_of(payload: &[u8]) -> Result<u64, Refusal> {
    if payload.is_empty() {
        return Ok(u64::MAX);
    }
    let number = std::str::from_utf8(payload).ok().and_then(|text| text.trim_ascii().parse().ok());
    number.ok_or_else(|| {
        let got = shown(&String::from_utf8_lossy(payload));
        let message =
            format!("the payload must be empty, or the most bytes to answer with, such as 65536, got {got}");
        Refusal::new(Code::BadRequest, message)
    })
}

/// Renews the near lease of a gateway that holds a copy. It sends no bytes and counts no hit.
fn renew(worker: &Worker, item: &Item, asked: &Meta) -> Answer {
    let (Some(tag), Some(holder)) = (asked.tag, asked.near) else {
        return Answer::refuse(
            Code::BadRequest,
            "a renewal must have tag and near in the header Pixcache, got no such pair",
        );
    };
    match worker.renew(item, &tag, holder) {
        Some(granted) => {
            let meta = Meta { fresh: true, granted_ms: Some(millis(granted)), ..Meta::default() };
            Answer::WithMeta(Bytes::new(), meta)
        }
        None => Answer::refuse(
            Code::NotFound,
            "no near lease is granted: no entry with this tag is in the cache, or the leases are off",
        ),
    }
}

fn meta_of_entry(entry: &Entry) -> Meta {
    Meta {
        content_type: Some(entry.format().content_type().to_owned()),
        tag: Some(entry.tag),
        modified_s: Some(entry.modified_s),
        ..Meta::default()
    }
}
