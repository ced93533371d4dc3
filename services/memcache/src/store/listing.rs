//! Lists of resident entries, a page at a time.

use std::collections::{BinaryHeap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use runtime::clock::Moment;
use wire::inspect::{KeySort, KeysReply, KeysRequest, ResidentKey};
use wire::words::shown;
use wire::{Item, Key};

use super::{Entry, Store};

/// The place of an entry in a list: smaller comes first.
type Place = (u64, Item);

/// The `after` of a request is not a place in the list that it asks for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "after must be the next of the answer before, or a key with sort \"key\", got {shown}",
    shown = shown(.0)
)]
pub(crate) struct BadCursor(String);

impl Store {
    /// One page of the resident entries: one pass over all of them, with memory for the page alone.
    ///
    /// # Errors
    /// [`BadCursor`].
    pub(crate) fn keys(&self, request: &KeysRequest, now: Moment) -> Result<KeysReply, BadCursor> {
        let limit = request.limit as usize;
        let after = request.after.as_deref().map(|after| parse_cursor(request.sort, after)).transpose()?;
        let only: HashSet<&Key> = request.only.iter().collect();
        let mut page: BinaryHeap<(Place, ByPlace)> = BinaryHeap::with_capacity(limit + 2);
        if let Some(resident) = &self.resident {
            resident.for_each(&mut |entry| {
                if !entry.key.as_str().starts_with(&request.prefix) {
                    return;
                }
                if !only.is_empty() && !only.contains(&entry.key) {
                    return;
                }
                let place = (rank(request.sort, entry), entry.item());
                if after.as_ref().is_some_and(|after| place <= *after) {
                    return;
                }
                // One more than the page, to know whether the list goes on.
                if page.len() <= limit {
                    page.push((place, ByPlace(entry.clone())));
                } else if page.peek().is_some_and(|(last, _)| place < *last) {
                    page.pop();
                    page.push((place, ByPlace(entry.clone())));
                }
            });
        }
        let more = page.len() > limit;
        let mut page = page.into_sorted_vec();
        page.truncate(limit);
        let next = page.last().filter(|_| more).map(|(place, _)| cursor(request.sort, place));
        let keys = page
            .into_iter()
            .map(|(_, ByPlace(entry))| ResidentKey {
                key: entry.key.clone(),
                variant: entry.variant(),
                bytes: entry.size(),
                content_type: entry.format().content_type().to_owned(),
                hits: entry.hits(),
                age_ms: u64::try_from(now.since(entry.since).as_millis()).unwrap_or(u64::MAX),
            })
            .collect();
        Ok(KeysReply { keys, next })
    }
}

fn rank(sort: KeySort, entry: &Entry) -> u64 {
    match sort {
        KeySort::Recent => u64::MAX - entry.last_used.load(Ordering::Relaxed),
        KeySort::Size => u64::MAX - entry.size(),
        KeySort::Hits => u64::MAX - entry.hits(),
        KeySort::Key => 0,
    }
}

/// Separates the key from the variant in a cursor; no key contains it.
const VARIANT_MARK: char = '\n';

fn cursor(sort: KeySort, (rank, item): &Place) -> String {
    let Item { key, variant } = item;
    let name = variant.map_or_else(|| key.to_string(), |variant| format!("{key}{VARIANT_MARK}{variant}"));
    match sort {
        KeySort::Key => name,
        KeySort::Recent | KeySort::Size | KeySort::Hits => format!("{rank}:{name}"),
    }
}

fn parse_cursor(sort: KeySort, text: &str) -> Result<Place, BadCursor> {
    let bad = || BadCursor(text.chars().take(300).collect());
    let (rank, name) = match sort {
        KeySort::Key => (0, text),
        KeySort::Recent | KeySort::Size | KeySort::Hits => {
            let (rank, name) = text.split_once(':').ok_or_else(bad)?;
            (rank.parse().map_err(|_| bad())?, name)
        }
    };
    let (key, variant) = match name.split_once(VARIANT_MARK) {
        Some((key, variant)) => (key, Some(variant.parse().map_err(|_| bad())?)),
        None => (name, None),
    };
    Ok((rank, Item { key: Key::new(key).map_err(|_| bad())?, variant }))
}

/// An entry beside its place. Two entries never have the same place, so this order decides nothing.
struct ByPlace(Arc<Entry>);

impl PartialEq for ByPlace {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for ByPlace {}

impl PartialOrd for ByPlace {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for ByPlace {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (&self.0.key, self.0.variant()).cmp(&(&other.0.key, other.0.variant()))
    }
}
