//! `cache.put.<key>[.<variant>]`: an image from its origin, with the lease of a miss, or from an operator.

use async_nats::service::Request;
use bytes::Bytes;
use runtime::service::Answer;
use sha2::{Digest as _, Sha256};
use sniff::{Format, Limits, SniffError};
use wire::event::KeyEventKind;
use wire::inspect::PutReply;
use wire::reply::{Code, Refusal};
use wire::shelf::FileName;
use wire::words::shown;
use wire::{Item, Meta, Tag};

use super::handled::{Handled, answer_of, item_and_meta, later, millis};
use crate::holders::Drop;
use crate::store::{Entry, Insert};
use crate::worker::{Worker, not_serving};

/// From this many bytes on, a hash is computed off the threads that serve.
const LARGE_BYTES: usize = 256 << 10;

pub(super) async fn put(worker: &Worker, request: &Request) -> Handled {
    match try_put(worker, request).await {
        Ok((drop, reply)) => later(drop, answer_of(reply)),
        Err(refusal) => Handled::Now(Answer::Refused(refusal, None)),
    }
}

/// The answer, and the holders of the replaced copy, which must be told first. An error means that no insertion was
/// tried.
async fn try_put(
    worker: &Worker,
    request: &Request,
) -> Result<(Option<Drop>, Result<PutReply, Refusal>), Refusal> {
    let (item, meta) = item_and_meta(request)?;
    let read = meta.file.map(|file| read_file(worker, &item, file, &meta)).transpose()?;
    let payload = read.as_ref().unwrap_or(&request.message.payload);
    if meta.returned {
        let Some(lease) = meta.lease.filter(|_| payload.is_empty()) else {
            let message = "returned=1 must come with the lease of a miss and without bytes, got other";
            return Err(Refusal::new(Code::BadRequest, message));
        };
        worker.store().take_back(&item, lease);
        return Ok((None, Ok(nothing_stored(0))));
    }
    if let (Some(size), true) = (meta.size, payload.is_empty()) {
        let most = worker.store().largest_image().min(worker.bus.max_payload() as u64);
        if meta.lease.is_none() && size <= most {
            let message =
                format!("size without bytes must be more than {most}, which can be sent, got {size}");
            return Err(Refusal::new(Code::BadRequest, message));
        }
        // A size without bytes stands for an image that is too large for the bus. It is counted and refused.
        let inserted = worker.reject(&item, meta.lease);
        let reply = outcome_of(worker, &item, size, inserted.outcome);
        return Ok((inserted.drop, reply.map(|_| nothing_stored(size))));
    }
    let (format, tag) = examine(worker, &item, payload, &meta).await?;
    let bytes = payload.len() as u64;
    // An image that was put by hand gets no date: the origin never had it, so it has no date to compare with.
    let modified_s = meta.lease.and(meta.modified_s).unwrap_or(0);
    // The file of another process is copied, because that process can change it.
    let shelf = worker.shelf.as_ref().filter(|_| meta.file.is_some());
    let entry = match shelf {
        Some(shelf) => Entry::shared(item.clone(), payload, format, tag, modified_s, shelf),
        None => Entry::new(item.clone(), payload, format, tag, modified_s),
    };
    let inserted = worker.insert(entry, &meta).ok_or_else(not_serving)?;
    let reply = outcome_of(worker, &item, bytes, inserted.outcome).map(|stored| PutReply {
        stored,
        bytes,
        content_type: format.content_type().to_owned(),
        tag: tag.to_string(),
        granted_ms: inserted.granted.map(millis),
    });
    Ok((inserted.drop, reply))
}

/// The bytes of a put that come in a file.
fn read_file(worker: &Worker, item: &Item, file: FileName, meta: &Meta) -> Result<Bytes, Refusal> {
    let gone = || {
        let message =
            format!("file must be one that the worker can read, got {file}: send the bytes instead");
        Refusal::new(Code::NotFound, message)
    };
    let shelf = worker.shelf.as_ref().ok_or_else(gone)?;
    let size = meta.size.unwrap_or_default();
    let most = worker.bus.max_payload() as u64;
    if size > most {
        let message = format!("size must be at most {most}, got {size} for {}", item.key);
        return Err(Refusal::new(Code::TooLarge, message));
    }
    shelf.read(file, size).map_err(|_| gone())
}

/// The answer to a put without bytes.
fn nothing_stored(bytes: u64) -> PutReply {
    PutReply { stored: false, bytes, content_type: String::new(), tag: String::new(), granted_ms: None }
}

/// The answer to a put or fill: whether the image is resident, or the reason for its refusal.
fn outcome_of(worker: &Worker, item: &Item, bytes: u64, outcome: Insert) -> Result<bool, Refusal> {
    match outcome {
        Insert::Stored(evicted) => {
            worker.watch.tell(KeyEventKind::Put, item, bytes);
            for entry in &evicted {
                worker.watch.tell(KeyEventKind::Evicted, &entry.item(), entry.size());
            }
            Ok(true)
        }
        Insert::NotKept => Ok(false),
        Insert::Rejected { limit_bytes } => {
            worker.watch.tell(KeyEventKind::Rejected, item, bytes);
            let message = format!(
                "the image must be at most {limit_bytes} bytes (90 % of the capacity) and no more than the bus carries, \
                 got {bytes}"
            );
            Err(Refusal::new(Code::TooLarge, message))
        }
        Insert::Refused => Err(Refusal::new(
            Code::Conflict,
            "lease must be the current one of the key, got another: the image may have changed since it was read",
        )),
    }
}

/// The type and the tag of an image to be inserted, found from its bytes. The request's headers must agree with them.
///
/// Only the tag of a variant does not follow from its bytes. There the tag that the fill names is believed.
async fn examine(
    worker: &Worker,
    item: &Item,
    payload: &Bytes,
    meta: &Meta,
) -> Result<(Format, Tag), Refusal> {
    let is_fill = meta.lease.is_some();
    // The images of the origin were within its limits when they were stored, and nothing is decoded here.
    let max_pixels = if is_fill { u64::MAX } else { worker.max_pixels };
    let limits = Limits { max_pixels };
    let look = {
        let payload = payload.clone();
        move || {
            let image = sniff::sniff(&payload, limits)?;
            Ok::<_, SniffError>((image, Tag(Sha256::digest(&payload).into())))
        }
    };
    let seen = if payload.len() < LARGE_BYTES {
        look()
    } else {
        let task = tokio::task::spawn_blocking(look).await;
        task.map_err(|error| {
            tracing::error!(%error, "an image could not be examined");
            Refusal::new(Code::Internal, "the image could not be examined: try again")
        })?
    };
    let (image, tag) = seen.map_err(|error| {
        let code = match error {
            SniffError::Unsupported => Code::UnsupportedType,
            SniffError::TooManyPixels { .. } | SniffError::TooMuchWork { .. } => Code::TooLarge,
            SniffError::Empty | SniffError::Truncated { .. } | SniffError::Malformed { .. } => {
                Code::Unprocessable
            }
        };
        Refusal::new(code, error.to_string())
    })?;
    let format = image.format;
    // An original that is not wider than its variant is used as that variant.
    if let Some(variant) = item.variant.filter(|variant| image.width > variant.width()) {
        let message =
            format!("{variant} must be at most {} pixels wide, got {}", variant.width(), image.width);
        return Err(Refusal::new(Code::Unprocessable, message));
    }
    if let Some(claimed) = meta.content_type.as_deref().filter(|claimed| *claimed != format.content_type()) {
        let message =
            format!("type must be that of the bytes, {}, got {}", format.content_type(), shown(claimed));
        return Err(Refusal::new(Code::Unprocessable, message));
    }
    if let (true, Some(_), Some(claimed)) = (is_fill, item.variant, meta.tag) {
        return Ok((format, claimed));
    }
    if meta.tag.is_some_and(|claimed| claimed != tag) {
        return Err(Refusal::new(
            Code::Unprocessable,
            format!("tag must be the SHA-256 of the bytes, {tag}, got another"),
        ));
    }
    Ok((format, tag))
}
