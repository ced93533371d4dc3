//! The contexts of the list of images: as pictures on the first page, and as rows on the page of the keys. And the
//! contexts of the pages on which several images are deleted.

use charts::units;
use origin::listing::{Order, Page, Place};
use serde::Serialize;
use time::OffsetDateTime;
use wire::Key;

use super::figures::Figure;
use super::images::{ImageView, Residency};
use super::links::{Listing, escaped};
use super::shell::Done;

/// `home.html` and `keys.html`
#[derive(Debug, Default, Serialize)]
pub(crate) struct ListPage {
    /// The headline figures; the page of the keys has none.
    pub(crate) figures: Vec<Figure>,
    /// The notice about the action that was just done.
    pub(crate) done: Option<Done>,
    /// How many images are stored in all.
    pub(crate) stored_count: Option<u64>,
    /// How many of them the filter lets through.
    pub(crate) matching_count: Option<u64>,
    /// Why there is nothing to show.
    pub(crate) error: Option<String>,
    /// The difference from the request, in a sentence.
    pub(crate) note: Option<String>,
    path: &'static str,
    prefix: String,
    sort: &'static str,
    sorts: Vec<SortChoice>,
    columns: Columns,
    /// The address of this page, to come back to.
    here: String,
    as_pictures: String,
    as_rows: String,
    all: String,
    /// The address of the first page of the list.
    first: String,
    is_first: bool,
    images: Vec<ImageView>,
    previous: Option<String>,
    next: Option<String>,
}

/// An order to choose.
#[derive(Debug, Serialize)]
struct SortChoice {
    value: &'static str,
    label: &'static str,
    current: bool,
}

/// The heads of the table by which it can be sorted.
#[derive(Debug, Default, Serialize)]
struct Columns {
    key: Column,
    size: Column,
    stored: Column,
}

/// Such a head: its link, and the current order of the table by it.
#[derive(Debug, Default, Serialize)]
struct Column {
    href: String,
    sorted: Option<&'static str>,
}

impl ListPage {
    /// The page that `listing` names, with the rows of `page`.
    pub(crate) fn new(listing: &Listing, page: &Page, residency: &Residency, now: OffsetDateTime) -> Self {
        let order = listing.order;
        let place = |row| Place::of(row, order);
        let column = |up: Order, down: Order, first: Order| {
            let (turned, sorted) = match order {
                order if order == up => (down, Some("ascending")),
                order if order == down => (up, Some("descending")),
                _ => (first, None),
            };
            Column { href: listing.sorted(turned).address(), sorted }
        };
        Self {
            path: listing.path,
            prefix: listing.prefix.clone(),
            sort: order.as_str(),
            sorts: Order::ALL
                .into_iter()
                .map(|choice| SortChoice {
                    value: choice.as_str(),
                    label: label(choice),
                    current: choice == order,
                })
                .collect(),
            columns: Columns {
                key: column(Order::Key, Order::KeyDown, Order::Key),
                size: column(Order::Smallest, Order::Largest, Order::Largest),
                // An age goes up as the time of storing goes down.
                stored: column(Order::Newest, Order::Oldest, Order::Newest),
            },
            here: listing.address(),
            as_pictures: listing.on(Listing::PICTURES).address(),
            as_rows: listing.on(Listing::ROWS).address(),
            all: listing.unfiltered().address(),
            first: listing.sorted(order).address(),
            is_first: listing.is_first(),
            images: page.rows.iter().map(|row| ImageView::new(row, residency, now)).collect(),
            previous: page.rows.first().filter(|_| page.has_previous).map(|row| listing.before(&place(row))),
            next: page.rows.last().filter(|_| page.has_next).map(|row| listing.after(&place(row))),
            ..Self::default()
        }
    }
}

fn label(order: Order) -> &'static str {
    match order {
        Order::Key => "Key, first to last",
        Order::KeyDown => "Key, last to first",
        Order::Newest => "Newest first",
        Order::Oldest => "Oldest first",
        Order::Largest => "Largest first",
        Order::Smallest => "Smallest first",
    }
}

/// `images_delete.html`: several images, before they are deleted.
#[derive(Debug, Serialize)]
pub(crate) struct ChosenPage {
    /// The chosen images that are stored.
    pub(crate) images: Vec<ImageView>,
    /// Keys under which nothing is stored.
    pub(crate) gone: Vec<String>,
    /// The bytes of all of them together.
    pub(crate) bytes: u64,
    /// The address to go back to.
    pub(crate) back: String,
    /// The sentence about their files.
    pub(crate) fate: String,
}

/// `images_deleted.html`: the outcome for each image, when not all are deleted, or not all confirmed.
#[derive(Debug, Serialize)]
pub(crate) struct DeletedPage {
    /// How many are deleted.
    pub(crate) deleted: u64,
    /// How many were to be deleted.
    pub(crate) asked: u64,
    /// Each key in the order in which they were asked for.
    pub(crate) outcomes: Vec<Outcome>,
    /// The address to go back to.
    pub(crate) back: String,
}

/// The outcome of the deletion of one image.
#[derive(Debug, Serialize)]
pub(crate) struct Outcome {
    /// The key.
    pub(crate) key: String,
    /// `deleted`, `not confirmed` if the cache has not acknowledged the deletion, or `failed`.
    pub(crate) outcome: &'static str,
    /// The reason, in a sentence, unless it is deleted.
    pub(crate) reason: Option<String>,
}

/// `back` with a field that says how many images were deleted.
pub(crate) fn with_deleted(back: &str, count: u64) -> String {
    format!("{back}{}deleted_count={count}", if back.contains('?') { '&' } else { '?' })
}

/// The notice about the images that were just deleted, by the fields of the address.
pub(crate) fn deleted_notice(key: Option<&str>, count: Option<u64>) -> Option<Done> {
    let title = match (key, count) {
        (_, Some(count)) => format!("{} deleted.", units::counted(count, "image is", "images are")),
        (Some(key), None) => format!("“{key}” is deleted."),
        (None, None) => return None,
    };
    Some(Done { title, text: "The cache has dropped its copies.".into() })
}

/// The first page of the list, saying that an image was deleted.
pub(crate) fn deleted_page(key: &Key) -> String {
    format!("/?deleted={}", escaped(key.as_str()))
}
